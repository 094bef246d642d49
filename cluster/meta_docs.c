/* Changes of documents: several with conditions, all or none of them.
 *
 * Each condition is judged by the document as it will be, like every other row. The rows of
 * documents may have left memory; one that did has nothing pending, so what the model has, which is
 * all there is as applied, is its value, and nothing is fetched. That no key begins with some bytes
 * can't be read from rows by key. The model tells it, provided that it is what evaluation sees: row
 * dn has a number that every change of documents moves, so if it is the applied one nothing is
 * pending. */
#include <stdarg.h>
#include <stdio.h>
#include "cluster/meta.h"
#include "cluster/partition_priv.h"

static const char docs_key[] = "dn";

struct docs_change {
	struct eval *v;
	const struct meta_view *view;
	const struct meta_request *q;
	struct meta_docs row;
	int changed;
	int64_t more[META_LIMITS_MAX]; /* by limit: how many come, less those that go */
};

static struct bytes row_key(struct bytes key, uint8_t out[CATALOG_DOC_KEY_MAX + 2])
{
	memcpy(out, "d/", 2);
	memcpy(out + 2, key.at, key.len);
	return bytes_of(out, key.len + 2);
}

/* As it will be; at NULL: there is none. */
static enum err doc_get(const struct docs_change *c, struct bytes key, struct bytes *out)
{
	uint8_t row[CATALOG_DOC_KEY_MAX + 2];
	enum err e = eval_get(c->v, META_KEYSPACE, row_key(key, row), out);

	if (e == ERR_MORE) { /* not in memory: nothing is pending */
		const struct catalog_doc *d = docs_get(c->view->docs, key);

		e = d != NULL ? OK : ERR_NOTFOUND;
		if (d != NULL)
			*out = d->value;
	}
	if (e == ERR_NOTFOUND)
		*out = bytes_of(NULL, 0);
	else if (e == OK && out->at == NULL)
		*out = bytes_of("", 0);
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err check_one(const struct docs_change *c, const struct meta_doc *d, struct bytes now)
{
	switch (d->only) {
	case DOC_NEW:
		if (now.at != NULL)
			return meta_say(c->v, ERR_EXISTS, "it exists already");
		break;
	case DOC_OLD:
		if (now.at == NULL)
			return meta_say(c->v, ERR_NOTFOUND, "there is no such thing");
		break;
	case DOC_SAME:
		if ((now.at == NULL) != (d->before.at == NULL) || !bytes_equal(now, d->before))
			return meta_say(c->v, ERR_CONFLICT, "it was changed meanwhile");
		break;
	case DOC_ANY: break;
	}
	return OK;
}

static enum err change_one(struct docs_change *c, const struct meta_doc *d)
{
	uint8_t row[CATALOG_DOC_KEY_MAX + 2];
	struct bytes now;
	enum err e;

	if (d->key.len == 0 || d->key.len > CATALOG_DOC_KEY_MAX)
		return meta_say(c->v, ERR_INVALID, "a key has 1 to %d bytes", CATALOG_DOC_KEY_MAX);
	if (d->value.len > CATALOG_DOC_BYTES_MAX)
		return meta_say(c->v, ERR_TOOBIG, "more than %d bytes", CATALOG_DOC_BYTES_MAX);
	e = doc_get(c, d->key, &now);
	if (e == OK)
		e = check_one(c, d, now);
	if (e != OK || ((now.at == NULL) == (d->value.at == NULL) && bytes_equal(now, d->value)))
		return e;
	if (now.at != NULL) {
		c->row.count--;
		c->row.bytes -= d->key.len + now.len;
	}
	if (d->value.at != NULL) {
		c->row.count++;
		c->row.bytes += d->key.len + d->value.len;
	}
	for (int i = 0; i < c->q->limit_count; i++)
		if (meta_limited(&c->q->limits[i], d->key))
			c->more[i] += (d->value.at != NULL) - (now.at != NULL);
	c->changed++;
	if (c->q->check_only)
		return OK;
	if (d->value.at != NULL)
		eval_put(c->v, META_KEYSPACE, row_key(d->key, row), d->value);
	else
		eval_delete(c->v, META_KEYSPACE, row_key(d->key, row));
	return OK;
}

static enum err check_none(const struct docs_change *c)
{
	if (c->q->docs_none.len == 0 || c->row.count == 0)
		return OK;
	if (c->view->docs_row == NULL || c->view->docs_row->changes != c->row.changes)
		return meta_say(c->v, ERR_BUSY, "documents are just being changed");
	if (docs_any(c->view->docs, c->q->docs_none))
		return meta_say(c->v, ERR_CONFLICT, "there are some already");
	return OK;
}

static enum err docs_row_get(struct docs_change *c)
{
	struct bytes value;
	enum err e = eval_get(c->v, META_KEYSPACE, bytes_text(docs_key), &value);

	if (e == ERR_NOTFOUND)
		return OK;
	return e == OK ? meta_docs_decode(value, &c->row) : e;
}

/* A refusal takes back what was staged. */
enum err meta_change_docs(
	struct eval *v, const struct meta_view *view, const struct meta_request *q)
{
	struct docs_change c = {.v = v, .view = view, .q = q};
	struct meta_docs before;
	uint8_t row[META_DOCS_BYTES];
	enum err e = docs_row_get(&c);

	before = c.row;
	if (e == OK)
		e = check_none(&c);
	for (int i = 0; e == OK && i < q->doc_count; i++)
		e = change_one(&c, &q->docs[i]);
	if (e == OK && c.row.bytes > CATALOG_DOCS_BYTES_MAX && c.row.bytes > before.bytes)
		e = meta_say(c.v, ERR_TOOBIG, "all together may have %d MiB",
			CATALOG_DOCS_BYTES_MAX >> 20);
	if (e == OK && c.row.count > CATALOG_DOCS_MAX && c.row.count > before.count)
		e = meta_say(c.v, ERR_TOOBIG, "there may be %d of them", CATALOG_DOCS_MAX);
	for (int i = 0; e == OK && i < q->limit_count; i++)
		e = meta_may_grow(v, view, &q->limits[i], c.more[i]);
	if (e != OK || c.changed == 0 || q->check_only)
		return e;
	c.row.changes++;
	meta_docs_encode(&c.row, row);
	eval_put(v, META_KEYSPACE, bytes_text(docs_key), bytes_of(row, sizeof row));
	return OK;
}
