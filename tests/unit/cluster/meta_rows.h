/* A table of rows that stands for the group's, and what evaluation reads and writes in it. One test
 * file each. */
#ifndef TESTS_META_ROWS_H
#define TESTS_META_ROWS_H
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "cluster/meta.h"
#include "cluster/partition_priv.h"
#include "server/base/mem.h"

struct fake_row {
	struct list node;
	bool away; /* not in memory */
	size_t len;
	struct slice value;
	uint8_t key[];
};
struct eval {
	struct list rows; /* fake_row */
	struct buf reply;
	struct partition partition;
	struct meta_view view;
	struct node_conf conf;
	uint32_t alive; /* bit per node */
	uint32_t unknown;
	int balance, held, writes;
	uint32_t votes; /* bit per node */
	bool unsettled; /* something that was decided is not applied */
};

static struct eval w;

static struct fake_row *row_find(struct bytes key)
{
	for (struct list *n = w.rows.next; n != &w.rows; n = n->next) {
		struct fake_row *r = list_entry(n, struct fake_row, node);

		if (r->len == key.len && memcmp(r->key, key.at, key.len) == 0)
			return r;
	}
	return NULL;
}

enum err eval_get(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes *out)
{
	const struct fake_row *r = row_find(key);

	ck_assert_ptr_eq(v, &w);
	ck_assert_int_eq(keyspace, META_KEYSPACE);
	if (r == NULL)
		return ERR_NOTFOUND;
	*out = r->value.bytes;
	return r->away ? ERR_MORE : OK;
}

void eval_delete(struct eval *v, uint8_t keyspace, struct bytes key)
{
	struct fake_row *r = row_find(key);

	ck_assert_ptr_eq(v, &w);
	ck_assert_int_eq(keyspace, META_KEYSPACE);
	w.writes++;
	if (r == NULL)
		return;
	list_remove(&r->node);
	slice_unref(&r->value);
	free(r);
}

void eval_put(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes value)
{
	struct fake_row *r = calloc(1, sizeof *r + key.len);
	struct slice copy;

	ck_assert_int_eq(slice_copy(value, &copy), OK);
	eval_delete(v, keyspace, key);
	memcpy(r->key, key.at, key.len);
	r->len = key.len;
	r->value = copy;
	list_push_back(&w.rows, &r->node);
}

enum err eval_settle(struct eval *v)
{
	ck_assert_ptr_eq(v, &w);
	return w.unsettled ? ERR_MORE : OK;
}

int64_t eval_now_ms(const struct eval *v)
{
	ck_assert_ptr_eq(v, &w);
	return 1234;
}
struct buf *eval_reply(struct eval *v)
{
	return &v->reply;
}
struct partition *eval_partition(const struct eval *v)
{
	(void)v;
	return &w.partition;
}

/* --- asking --- */

static inline enum err ask(const struct meta_request *q)
{
	struct buf b;
	enum err e;

	buf_init(&b, 16 << 20);
	meta_request_encode(q, &b);
	ck_assert_int_eq(b.err, OK);
	buf_clear(&w.reply);
	w.writes = 0;
	e = meta_kind.evaluate(&w, buf_bytes(&b));
	buf_fini(&b);
	return e;
}

static inline bool said(const char *words)
{
	char line[200];

	snprintf(line, sizeof line, "%.*s", (int)buf_len(&w.reply),
		(const char *)buf_bytes(&w.reply).at);
	if (strstr(line, words) != NULL)
		return true;
	fprintf(stderr, "said: %s\n", line);
	return false;
}

static inline void rows_begin(void)
{
	memset(&w, 0, sizeof w);
	list_init(&w.rows);
	buf_init(&w.reply, 1 << 20);
}

static inline void rows_end(void)
{
	while (!list_empty(&w.rows)) {
		struct fake_row *r = list_entry(w.rows.next, struct fake_row, node);

		list_remove(&r->node);
		slice_unref(&r->value);
		free(r);
	}
	buf_fini(&w.reply);
}

#endif
