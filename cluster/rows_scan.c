/* Ordered walks. The store holds the rows as of some write-back; what was changed since, or is
 * still on its way there, is in memory. Both are taken at one moment on the home loop: a snapshot
 * of the store, and copies of the changed rows in question. A worker then merges the two orders,
 * memory before store where both have a key, so a write-back that happens meanwhile changes
 * nothing. A small table that is complete in memory is walked without the store. */
#include <stdlib.h>
#include "cluster/rows_priv.h"
#include "server/base/mem.h"
#include "storage/keys.h"

enum {
	MEMORY_WALK_MAX = 2048,      /* rows, */
	MEMORY_WALK_BYTES = 1 << 20, /* and what they take: it is copied for each page */
	SCAN_BYTES = 1 << 20,
	SCAN_BYTES_MAX = 64 << 20
};

/* --- rows in memory --- */

static bool cell_wanted(
	const struct cell *c, uint8_t keyspace, struct bytes prefix, struct bytes after)
{
	struct bytes key = bytes_of(c->key + 1, c->key_len - 1);

	return c->known && c->key[0] == keyspace && key.len >= prefix.len &&
		(prefix.len == 0 || memcmp(key.at, prefix.at, prefix.len) == 0) &&
		(after.len == 0 || bytes_compare(key, after) > 0);
}

struct gathering {
	struct rows_mem *at;
	int count, room;
};

static void gather(struct gathering *g, const struct cell *c)
{
	size_t key_len = c->key_len - 1u;
	struct rows_mem *m;
	struct chunk *chunk = chunk_try(key_len + c->value.len + 1);

	if (g->count == g->room) {
		g->room = g->room ? g->room * 2 : 16;
		g->at = mem_resize(g->at, (size_t)g->room * sizeof *g->at);
	}
	must(chunk != NULL);
	must(g->at != NULL);
	memcpy(chunk->data, c->key + 1, key_len);
	if (c->value.len > 0)
		memcpy(chunk->data + key_len, c->value.at, c->value.len);
	m = &g->at[g->count++];
	m->chunk = chunk;
	m->key = bytes_of(chunk->data, key_len);
	m->value = bytes_of(chunk->data + key_len, c->value.len);
	m->present = c->value.present;
}

static int mem_order(const void *a, const void *b)
{
	const struct rows_mem *x = a, *y = b;

	return bytes_compare(x->key, y->key);
}

/* Copies what the store does not have yet, or, with all, everything. */
static struct gathering gather_wanted(
	struct rows *t, bool all, uint8_t keyspace, struct bytes prefix, struct bytes after)
{
	struct gathering g = {NULL, 0, 0};
	struct list *lists[2] = {&t->dirty, &t->writing};
	struct cell *c;

	for (uint32_t at = 0; all && (c = map_next(&t->cells, &at)) != NULL;) {
		if (cell_wanted(c, keyspace, prefix, after))
			gather(&g, c);
	}
	for (int i = 0; !all && i < 2; i++) {
		for (struct list *n = lists[i]->next; n != lists[i]; n = n->next) {
			c = list_entry(n, struct cell, node);
			if (cell_wanted(c, keyspace, prefix, after))
				gather(&g, c);
		}
	}
	if (g.count > 1)
		qsort(g.at, (size_t)g.count, sizeof *g.at, mem_order);
	return g;
}

static void mems_free(struct rows_mem *at, int count)
{
	for (int i = 0; i < count; i++)
		chunk_unref(at[i].chunk);
	mem_free(at);
}

/* --- the merge --- */

struct merge {
	struct store_iter *iter; /* NULL: memory alone */
	const struct rows_mem *mem;
	int mem_count, at;
	uint8_t *from, *to;
};

/* Bounds of the keys that start with prefix and come after `after`. */
static void merge_open(struct merge *m, const struct rows *t, struct store_snapshot *snapshot,
	uint8_t keyspace, struct bytes prefix, struct bytes after)
{
	bool behind = after.len > 0 && bytes_compare(after, prefix) >= 0;
	struct bytes first = behind ? after : prefix;
	size_t from_len, to_len;

	m->from = mem_new(ROW_KEY_PREFIX_BYTES + first.len + 1);
	m->to = mem_new(ROW_KEY_PREFIX_BYTES + prefix.len);
	from_len = key_row(t->group, keyspace, first, m->from);
	if (behind)
		from_len++; /* a zero byte more: the key right behind it */
	to_len = key_row(t->group, keyspace, prefix, m->to);
	while (to_len > 0 && m->to[to_len - 1] == 0xff)
		to_len--;
	if (to_len > 0)
		m->to[to_len - 1]++;
	m->iter = store_iter_new(t->env->store, snapshot, FAMILY_ROWS, bytes_of(m->from, from_len),
		bytes_of(m->to, to_len), true);
}

static enum err merge_close(struct merge *m)
{
	enum err e = m->iter != NULL ? store_iter_free(m->iter) : OK;

	mem_free(m->from);
	mem_free(m->to);
	return e;
}

/* The row at the front, deleted ones left out; false at the end. */
static bool merge_front(struct merge *m, struct bytes *key, struct bytes *value)
{
	for (;;) {
		bool stored = m->iter != NULL && store_iter_valid(m->iter);
		const struct rows_mem *mem = m->at < m->mem_count ? &m->mem[m->at] : NULL;
		struct bytes k = bytes_of(NULL, 0);
		int order = 1;

		if (!stored && mem == NULL)
			return false;
		if (stored) {
			k = store_iter_key(m->iter);
			k = bytes_of(k.at + ROW_KEY_PREFIX_BYTES, k.len - ROW_KEY_PREFIX_BYTES);
			order = mem != NULL ? bytes_compare(k, mem->key) : -1;
		}
		if (order < 0) {
			*key = k;
			*value = store_iter_value(m->iter);
			return true;
		}
		if (order == 0) { /* memory is newer */
			store_iter_step(m->iter);
			continue;
		}
		if (!mem->present) {
			m->at++;
			continue;
		}
		*key = mem->key;
		*value = mem->value;
		return true;
	}
}

static void merge_step(struct merge *m, struct bytes key)
{
	if (m->at < m->mem_count && m->mem[m->at].key.at == key.at)
		m->at++;
	else
		store_iter_step(m->iter);
}

/* --- scans --- */

struct found { /* rows with their places in the buf, which moves while it grows */
	struct buf bytes;
	struct row *at;
	int count, room;
};

static enum err found_add(struct found *f, struct bytes key, struct bytes value)
{
	if (f->count == f->room) {
		int room = f->room ? f->room * 2 : 16;
		struct row *more = mem_resize(f->at, (size_t)room * sizeof *more);

		if (more == NULL)
			return ERR_NOMEM;
		f->at = more;
		f->room = room;
	}
	f->at[f->count].key.len = key.len;
	f->at[f->count].value.len = value.len;
	f->count++;
	buf_add(&f->bytes, key);
	buf_add(&f->bytes, value);
	return f->bytes.err;
}

static void scan_give(struct rows_scan *s, struct found *f, enum err e)
{
	const uint8_t *at;

	s->err = e;
	if (e == OK && f->count > 0) {
		s->held = buf_share(&f->bytes).chunk;
		at = buf_bytes(&f->bytes).at;
		for (int i = 0; i < f->count; i++) {
			f->at[i].key.at = at;
			f->at[i].value.at = at + f->at[i].key.len;
			at += f->at[i].key.len + f->at[i].value.len;
		}
		s->rows = f->at;
		s->count = f->count;
		f->at = NULL;
	}
	mem_free(f->at);
	buf_fini(&f->bytes);
}

static void scan_merge(struct rows_scan *s, struct merge *m)
{
	size_t bytes_max = s->bytes_max > 0 ? s->bytes_max : SCAN_BYTES;
	struct found f = {.at = NULL};
	struct bytes key, value;
	enum err e = OK, broke;

	if (bytes_max > SCAN_BYTES_MAX)
		bytes_max = SCAN_BYTES_MAX;
	buf_init(&f.bytes, bytes_max + SCAN_BYTES_MAX); /* one row more than asked for, at most */
	while (e == OK && merge_front(m, &key, &value)) {
		size_t len = key.len + value.len;

		s->more = f.count > 0 &&
			(buf_len(&f.bytes) + len > bytes_max ||
				(s->rows_max > 0 && f.count >= s->rows_max));
		if (s->more)
			break;
		e = found_add(&f, key, value);
		merge_step(m, key);
	}
	broke = merge_close(m);
	scan_give(s, &f, e != OK ? e : broke);
}

static void scan_work(struct job *j)
{
	struct rows_scan *s = list_entry(j, struct rows_scan, job);
	struct merge m = {.mem = s->mems, .mem_count = s->mem_count};

	if (s->snapshot != NULL)
		merge_open(&m, s->table, s->snapshot, s->keyspace, s->prefix, s->after);
	scan_merge(s, &m);
	if (s->snapshot != NULL)
		store_snapshot_free(s->table->env->store, s->snapshot);
	s->snapshot = NULL;
}

static void scan_done(struct job *j)
{
	struct rows_scan *s = list_entry(j, struct rows_scan, job);
	struct rows *t = s->table;

	mems_free(s->mems, s->mem_count);
	s->mems = NULL;
	s->done(s);
	rows_let_go(t);
}

static void scan_done_local(struct loop_msg *m)
{
	scan_done(list_entry(m, struct job, msg));
}

void rows_scan(struct rows *t, struct rows_scan *s)
{
	bool all = t->complete && t->cells.count <= MEMORY_WALK_MAX &&
		t->bytes <= MEMORY_WALK_BYTES;
	struct gathering g = gather_wanted(t, all, s->keyspace, s->prefix, s->after);

	s->table = t;
	s->mems = g.at;
	s->mem_count = g.count;
	s->err = OK;
	s->rows = NULL;
	s->count = 0;
	s->more = false;
	s->held = NULL;
	s->snapshot = all ? NULL : store_snapshot_new(t->env->store);
	s->job.home = t->env->loop;
	s->job.work = scan_work;
	s->job.done = scan_done;
	t->under_way++;
	if (!all) {
		worker_run(t->env->workers, &s->job);
		return;
	}
	scan_work(&s->job);
	s->job.msg.run = scan_done_local;
	loop_post(t->env->loop, &s->job.msg);
}

enum err rows_walk(struct rows *t, uint8_t keyspace,
	void (*each)(void *arg, struct bytes key, struct bytes value), void *arg)
{
	struct bytes none = bytes_of("", 0), key, value;
	struct gathering g = gather_wanted(t, t->complete, keyspace, none, none);
	struct merge m = {.mem = g.at, .mem_count = g.count};
	enum err e;

	if (!t->complete)
		merge_open(&m, t, NULL, keyspace, none, none);
	while (merge_front(&m, &key, &value)) {
		each(arg, key, value);
		merge_step(&m, key);
	}
	e = merge_close(&m);
	mems_free(g.at, g.count);
	return e;
}
