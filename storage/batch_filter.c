/* One walk. Nothing is copied until the first record goes; from then on the bytes of what stays are
 * put one after another behind the room for a header. */
#include "storage/batch_filter.h"
#include "server/base/mem.h"

struct kept { /* what stays of the records */
	struct bytes all;
	struct chunk *chunk; /* NULL: all of what was looked at so far */
	size_t len;          /* in chunk, behind the room for the header */
	size_t looked;       /* of all */
	int32_t count;
	int64_t max_ms;
};

/* The first one goes: what stands before it stays. */
static enum err begin(struct kept *k)
{
	k->chunk = chunk_try(BATCH_HEADER_BYTES + k->all.len);
	if (k->chunk == NULL)
		return ERR_NOMEM;
	if (k->looked > 0)
		memcpy(k->chunk->data + BATCH_HEADER_BYTES, k->all.at, k->looked);
	k->len = k->looked;
	return OK;
}

static enum err take(struct kept *k, size_t len, bool keep, int64_t ms)
{
	enum err e = OK;

	if (!keep && k->chunk == NULL)
		e = begin(k);
	if (e != OK)
		return e;
	if (keep && k->chunk != NULL) {
		memcpy(k->chunk->data + BATCH_HEADER_BYTES + k->len, k->all.at + k->looked, len);
		k->len += len;
	}
	if (keep) {
		k->max_ms = k->count == 0 || ms > k->max_ms ? ms : k->max_ms;
		k->count++;
	}
	k->looked += len;
	return OK;
}

static enum err walk(
	struct batch_walk *w, const struct batch *b, const struct batch_filter *f, struct kept *k)
{
	struct record r;
	enum err e;

	k->all = bytes_of(w->rd.at, rd_left(&w->rd));
	for (;;) {
		const uint8_t *at = w->rd.at;

		e = batch_walk_next(w, &r);
		if (e != OK)
			break;
		e = take(k, (size_t)(w->rd.at - at),
			f->keep(f->arg, &r, b->base_offset + r.offset_delta), r.timestamp_ms);
		if (e != OK)
			return e;
	}
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err finish(const struct batch *b, const struct kept *k, struct slice *out)
{
	struct chunk *packed, *c = chunk_ref(k->chunk);
	size_t len = k->len;
	enum err e;

	if (b->codec != CODEC_NONE) {
		e = codec_deflate(
			b->codec, bytes_of(c->data + BATCH_HEADER_BYTES, k->len), &packed, &len);
		chunk_unref(c);
		if (e != OK)
			return e;
		c = chunk_try(BATCH_HEADER_BYTES + len);
		if (c != NULL)
			memcpy(c->data + BATCH_HEADER_BYTES, packed->data, len);
		chunk_unref(packed);
		if (c == NULL)
			return ERR_NOMEM;
	}
	memcpy(c->data, b->all.at, BATCH_HEADER_BYTES);
	batch_set_records(c->data, BATCH_HEADER_BYTES + len, k->count,
		b->append_time ? b->max_ms : k->max_ms);
	*out = slice_of(c, bytes_of(c->data, BATCH_HEADER_BYTES + len));
	chunk_unref(c);
	return OK;
}

enum err batch_filter_run(const struct batch *b, const struct batch_filter *f,
	enum batch_left *left, struct slice *out)
{
	struct kept k = {.count = 0};
	struct batch_walk w;
	enum err e;

	*left = BATCH_WHOLE;
	if (b->control)
		return OK;
	e = batch_walk_init(&w, b, BATCH_INFLATED_MAX);
	if (e != OK)
		return e;
	e = walk(&w, b, f, &k);
	if (e == OK && k.chunk != NULL) {
		*left = k.count > 0 ? BATCH_LESS : BATCH_GONE;
		if (k.count > 0)
			e = finish(b, &k, out);
	}
	chunk_unref(k.chunk);
	batch_walk_fini(&w);
	return e;
}
