/* One decoder and one encoder for all messages. Both walk a struct's table of fields, skip those
 * that the version lacks, and recurse into arrays and nested structs; how deep is decided by the
 * schema (at most 8, checked when the tables are made), never by the input. Every struct starts
 * as a copy of its initial value, so what a version does not carry has its default.
 *
 * Reading goes through struct rd. Writing goes through a window of room claimed ahead in the
 * output buffer, so that a number costs a comparison and a store and not a call. The length of a
 * tagged field is not known before it is written: one byte is left for it and, for the rare one
 * longer than 127 bytes, the field is moved up. */
#include "protocols/kafka/kafka_wire.h"
#include "protocols/kafka/kafka_schema.h"
#include "server/base/mem.h"

enum { WINDOW = 512, TAG_BYTES_MIN = 2, HOLE = 1 };

struct kafka_cut {
	size_t at; /* own bytes before it */
	const struct slice *slices;
	uint32_t count;
};

_Alignas(8) const uint8_t kafka_empty[16];

static const struct {
	uint8_t size;  /* in memory; 0: see the struct */
	uint8_t least; /* on the wire */
	uint8_t least_flex;
} type_sizes[] = {
	[KAFKA_BOOL] = {sizeof(bool), 1, 1},
	[KAFKA_I8] = {1, 1, 1},
	[KAFKA_I16] = {2, 2, 2},
	[KAFKA_U16] = {2, 2, 2},
	[KAFKA_I32] = {4, 4, 4},
	[KAFKA_I64] = {8, 8, 8},
	[KAFKA_F64] = {8, 8, 8},
	[KAFKA_UUID] = {sizeof(struct kafka_uuid), 16, 16},
	[KAFKA_STRING] = {sizeof(struct bytes), 2, 1},
	[KAFKA_BYTES] = {sizeof(struct bytes), 4, 1},
	[KAFKA_RECORDS] = {sizeof(struct kafka_records), 4, 1},
	[KAFKA_STRUCT] = {0, 0, 0},
};

static bool has(const struct kafka_field *f, int version)
{
	return version >= f->from && version <= f->to;
}

static bool may_be_null(const struct kafka_field *f, int version)
{
	return version >= f->null_from && version <= f->null_to;
}

static size_t value_size(const struct kafka_field *f)
{
	return f->of ? f->of->size : type_sizes[f->type].size;
}

const struct kafka_api *kafka_api_find(int key)
{
	return key >= 0 && key < kafka_keys_end ? kafka_apis_by_key[key] : NULL;
}

/* Reading. */

struct dec {
	struct rd r;
	struct arena *arena;
	int version;
	bool flex;
};

static void dec_struct(struct dec *d, const struct kafka_struct *s, void *out);

/* A length or count, -1 for null: i16 or i32, or compact (0 is null, else one more than it is). */
static int64_t dec_len(struct dec *d, bool is_short, bool nullable)
{
	int64_t len;
	if (d->flex)
		len = (int64_t)rd_uvar32(&d->r) - 1;
	else if (is_short)
		len = (int16_t)rd_u16be(&d->r);
	else
		len = (int32_t)rd_u32be(&d->r);
	if (d->r.err != OK)
		return 0;
	if (len < 0 && !(len == -1 && nullable)) {
		rd_fail(&d->r, ERR_MALFORMED);
		return 0;
	}
	return len;
}

static struct bytes dec_bytes(struct dec *d, bool is_short, bool nullable)
{
	int64_t len = dec_len(d, is_short, nullable);
	return len < 0 ? bytes_of(NULL, 0) : rd_take(&d->r, (size_t)len);
}

static void dec_value(struct dec *d, const struct kafka_field *f, bool nullable, void *out)
{
	struct bytes b;
	uint64_t v;
	switch ((enum kafka_type)f->type) {
	case KAFKA_BOOL: *(bool *)out = rd_u8(&d->r) != 0; break;
	case KAFKA_I8: *(int8_t *)out = (int8_t)rd_u8(&d->r); break;
	case KAFKA_I16: *(int16_t *)out = (int16_t)rd_u16be(&d->r); break;
	case KAFKA_U16: *(uint16_t *)out = rd_u16be(&d->r); break;
	case KAFKA_I32: *(int32_t *)out = (int32_t)rd_u32be(&d->r); break;
	case KAFKA_I64: *(int64_t *)out = (int64_t)rd_u64be(&d->r); break;
	case KAFKA_F64:
		v = rd_u64be(&d->r);
		memcpy(out, &v, sizeof v);
		break;
	case KAFKA_UUID:
		b = rd_take(&d->r, sizeof(struct kafka_uuid));
		if (b.len == sizeof(struct kafka_uuid))
			memcpy(out, b.at, b.len);
		break;
	case KAFKA_STRING: *(struct bytes *)out = dec_bytes(d, true, nullable); break;
	case KAFKA_BYTES: *(struct bytes *)out = dec_bytes(d, false, nullable); break;
	case KAFKA_RECORDS:
		*(struct kafka_records *)out = (struct kafka_records){
			.bytes = dec_bytes(d, false, nullable)};
		break;
	case KAFKA_STRUCT: dec_struct(d, f->of, out); break;
	}
}

static void dec_array(struct dec *d, const struct kafka_field *f, uint8_t *out)
{
	size_t size = value_size(f);
	size_t least = f->of ? f->of->least[d->version]
		: d->flex    ? type_sizes[f->type].least_flex
			     : type_sizes[f->type].least;
	int64_t len = dec_len(d, false, may_be_null(f, d->version));
	uint32_t count = len < 0 ? 0 : rd_count(&d->r, (uint32_t)len, least);
	uint8_t *items = len < 0 ? NULL : (void *)(uintptr_t)kafka_empty;
	if (count > 0) {
		items = arena_take(d->arena, count * size);
		if (!items) {
			rd_fail(&d->r, d->arena->err);
			count = 0;
		}
	}
	for (uint32_t i = 0; i < count && d->r.err == OK; i++)
		dec_value(d, f, false, items + i * size);
	memcpy(out + f->at, &items, sizeof items);
	memcpy(out + f->count_at, &count, sizeof count);
}

static void dec_field(struct dec *d, const struct kafka_field *f, uint8_t *out)
{
	if (f->array)
		dec_array(d, f, out);
	else
		dec_value(d, f, may_be_null(f, d->version), out + f->at);
}

static const struct kafka_field *find_tag(
	const struct dec *d, const struct kafka_struct *s, uint32_t tag)
{
	for (uint32_t i = s->plain; i < s->count; i++)
		if ((uint32_t)s->fields[i].tag == tag && has(&s->fields[i], d->version))
			return &s->fields[i];
	return NULL;
}

/* Tagged fields come in ascending order, each once. Unknown ones are skipped. */
static void dec_tags(struct dec *d, const struct kafka_struct *s, uint8_t *out)
{
	uint32_t count = rd_count(&d->r, rd_uvar32(&d->r), TAG_BYTES_MIN);
	int64_t before = -1;
	for (uint32_t i = 0; i < count && d->r.err == OK; i++) {
		uint32_t tag = rd_uvar32(&d->r);
		struct bytes in = rd_take(&d->r, rd_uvar32(&d->r));
		const struct kafka_field *f = s ? find_tag(d, s, tag) : NULL;
		if (tag <= before)
			rd_fail(&d->r, ERR_MALFORMED);
		before = tag;
		if (!f || d->r.err != OK)
			continue;
		struct rd rest = d->r;
		d->r = rd_over(in);
		dec_field(d, f, out);
		enum err e = rd_done(&d->r);
		d->r = rest;
		if (e != OK)
			rd_fail(&d->r, e);
	}
}

static void dec_struct(struct dec *d, const struct kafka_struct *s, void *out)
{
	memcpy(out, s->initial, s->size);
	for (uint32_t i = 0; i < s->plain; i++)
		if (has(&s->fields[i], d->version))
			dec_field(d, &s->fields[i], out);
	if (d->flex)
		dec_tags(d, s, out);
}

enum err kafka_decode(const struct kafka_api *api, int version, bool request, struct bytes in,
	struct arena *arena, void *out)
{
	if (!kafka_api_has(api, version))
		return ERR_UNSUPPORTED;
	struct dec d = {rd_over(in), arena, version, version >= api->flex};
	dec_struct(&d, request ? api->request : api->response, out);
	return rd_done(&d.r);
}

enum err kafka_header_read(struct bytes frame, struct kafka_header *out)
{
	struct dec d = {.r = rd_over(frame)};
	*out = (struct kafka_header){0};
	out->key = (int16_t)rd_u16be(&d.r);
	out->version = (int16_t)rd_u16be(&d.r);
	out->correlation = (int32_t)rd_u32be(&d.r);
	if (d.r.err != OK)
		return d.r.err;
	out->api = kafka_api_find(out->key);
	if (!out->api || !kafka_api_has(out->api, out->version))
		return ERR_UNSUPPORTED;
	/* The client's id keeps its long form even in the header with tagged fields. */
	out->client_id = dec_bytes(&d, true, true);
	d.version = out->version;
	d.flex = out->version >= out->api->flex;
	if (d.flex)
		dec_tags(&d, NULL, NULL);
	out->body = rd_take(&d.r, rd_left(&d.r));
	return rd_done(&d.r);
}

/* A client that asked for a version we lack must be able to read the answer, so ApiVersions never
 * has the header with tagged fields. */
static bool response_header_tagged(const struct kafka_api *api, int version)
{
	return version >= api->flex && api->key != KAFKA_API_VERSIONS;
}

enum err kafka_response_read(const struct kafka_api *api, int version, struct bytes frame,
	int32_t *correlation, struct bytes *body)
{
	struct dec d = {.r = rd_over(frame), .version = version};
	*correlation = (int32_t)rd_u32be(&d.r);
	if (response_header_tagged(api, version))
		dec_tags(&d, NULL, NULL);
	*body = rd_take(&d.r, rd_left(&d.r));
	return rd_done(&d.r);
}

/* Writing. */

struct enc {
	uint8_t *from, *at, *end; /* the window: written from..at, room up to end */
	struct buf *buf;
	struct kafka_out *out; /* NULL: slices are copied */
	enum err err;
	int version;
	bool flex;
};

static void enc_struct(struct enc *e, const struct kafka_struct *s, const uint8_t *in);

static void enc_fail(struct enc *e, enum err err)
{
	if (e->err == OK)
		e->err = err;
}

/* Claims what was written and gives the window up. */
static void enc_flush(struct enc *e)
{
	if (e->at != e->from)
		buf_claim(e->buf, (size_t)(e->at - e->from));
	e->from = e->at = e->end = NULL;
}

static bool enc_refill(struct enc *e, size_t len)
{
	enc_flush(e);
	if (e->err != OK)
		return false;
	size_t left = e->buf->max - buf_len(e->buf);
	size_t window = left < WINDOW ? left : WINDOW;
	if (window < len)
		window = len;
	uint8_t *p = buf_room(e->buf, window);
	if (!p) {
		enc_fail(e, e->buf->err);
		return false;
	}
	e->from = e->at = p;
	e->end = p + window;
	return true;
}

/* Room for len bytes, which the caller fills; NULL after a failure. */
static uint8_t *enc_take(struct enc *e, size_t len)
{
	if ((size_t)(e->end - e->at) < len && !enc_refill(e, len))
		return NULL;
	uint8_t *p = e->at;
	e->at += len;
	return p;
}

static void enc_u8(struct enc *e, uint8_t v)
{
	uint8_t *p = enc_take(e, 1);
	if (p)
		*p = v;
}

static void enc_uvar32(struct enc *e, uint32_t v)
{
	for (; v >= 0x80; v >>= 7)
		enc_u8(e, (uint8_t)(v | 0x80));
	enc_u8(e, (uint8_t)v);
}

static void enc_len(struct enc *e, bool is_short, bool is_null, size_t len)
{
	if (len > (is_short && !e->flex ? INT16_MAX : INT32_MAX))
		enc_fail(e, ERR_TOOBIG);
	else if (e->flex)
		enc_uvar32(e, is_null ? 0 : (uint32_t)len + 1);
	else if (is_short)
		put_u16be(enc_take(e, 2), is_null ? UINT16_MAX : (uint16_t)len);
	else
		put_u32be(enc_take(e, 4), is_null ? UINT32_MAX : (uint32_t)len);
}

static void enc_raw(struct enc *e, struct bytes b)
{
	uint8_t *p = b.len == 0 ? NULL : enc_take(e, b.len);
	if (p)
		memcpy(p, b.at, b.len);
}

static void enc_bytes(struct enc *e, bool is_short, bool nullable, struct bytes b)
{
	enc_len(e, is_short, !b.at && nullable, b.len);
	enc_raw(e, b);
}

static enum err out_cut(struct kafka_out *o, const struct kafka_records *records, size_t bytes)
{
	if (o->count == o->room) {
		uint32_t room = o->room ? o->room * 2 : 8;
		struct kafka_cut *grown = mem_resize(o->cuts, room * sizeof *grown);
		if (!grown)
			return ERR_NOMEM;
		o->cuts = grown;
		o->room = room;
	}
	o->cuts[o->count++] = (struct kafka_cut){
		buf_len(&o->buf), records->slices, records->slices_count};
	o->slice_bytes += bytes;
	return OK;
}

static void enc_records(struct enc *e, bool nullable, const struct kafka_records *r)
{
	if (!r->slices) {
		enc_bytes(e, false, nullable, r->bytes);
		return;
	}
	size_t len = 0;
	for (uint32_t i = 0; i < r->slices_count; i++)
		len += r->slices[i].bytes.len;
	enc_len(e, false, false, len);
	if (!e->out) {
		for (uint32_t i = 0; i < r->slices_count; i++)
			enc_raw(e, r->slices[i].bytes);
	} else if (len > 0 && e->err == OK) {
		enc_flush(e);
		enc_fail(e, out_cut(e->out, r, len));
	}
}

static void enc_value(struct enc *e, const struct kafka_field *f, bool nullable, const void *in)
{
	uint64_t v;
	switch ((enum kafka_type)f->type) {
	case KAFKA_BOOL: enc_u8(e, *(const bool *)in); break;
	case KAFKA_I8: enc_u8(e, *(const uint8_t *)in); break;
	case KAFKA_I16:
	case KAFKA_U16: put_u16be(enc_take(e, 2), *(const uint16_t *)in); break;
	case KAFKA_I32: put_u32be(enc_take(e, 4), *(const uint32_t *)in); break;
	case KAFKA_I64: put_u64be(enc_take(e, 8), *(const uint64_t *)in); break;
	case KAFKA_F64:
		memcpy(&v, in, sizeof v);
		put_u64be(enc_take(e, 8), v);
		break;
	case KAFKA_UUID: enc_raw(e, bytes_of(in, sizeof(struct kafka_uuid))); break;
	case KAFKA_STRING: enc_bytes(e, true, nullable, *(const struct bytes *)in); break;
	case KAFKA_BYTES: enc_bytes(e, false, nullable, *(const struct bytes *)in); break;
	case KAFKA_RECORDS: enc_records(e, nullable, in); break;
	case KAFKA_STRUCT: enc_struct(e, f->of, in); break;
	}
}

static void enc_field(struct enc *e, const struct kafka_field *f, const uint8_t *in)
{
	bool nullable = may_be_null(f, e->version);
	if (!f->array) {
		enc_value(e, f, nullable, in + f->at);
		return;
	}
	size_t size = value_size(f);
	const uint8_t *items;
	uint32_t count;
	memcpy(&items, in + f->at, sizeof items);
	memcpy(&count, in + f->count_at, sizeof count);
	enc_len(e, false, !items && nullable, count);
	for (uint32_t i = 0; i < count && e->err == OK; i++)
		enc_value(e, f, false, items + i * size);
}

static bool struct_is_initial(const struct kafka_struct *s, const uint8_t *in);

static bool field_is_initial(const struct kafka_field *f, const uint8_t *in, const uint8_t *initial)
{
	const uint8_t *value = in + f->at;
	if (f->array) {
		uint32_t count;
		memcpy(&count, in + f->count_at, sizeof count);
		return count == 0;
	}
	if (f->of)
		return struct_is_initial(f->of, value);
	if (f->type != KAFKA_STRING && f->type != KAFKA_BYTES && f->type != KAFKA_RECORDS)
		return memcmp(value, initial + f->at, type_sizes[f->type].size) == 0;
	struct bytes b;
	struct bytes was;
	memcpy(&b, value, sizeof b);
	memcpy(&was, initial + f->at, sizeof was);
	/* Where null is not allowed it means empty. */
	return b.len == 0 && (f->null_from > f->null_to || !b.at == !was.at);
}

static bool struct_is_initial(const struct kafka_struct *s, const uint8_t *in)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (!field_is_initial(&s->fields[i], in, s->initial))
			return false;
	return true;
}

/* Writes a tagged field's length into the byte left for it at hole, an offset in the buffer. */
static void enc_fill_hole(struct enc *e, size_t hole)
{
	enc_flush(e);
	size_t len = buf_len(e->buf) - hole - HOLE;
	size_t more = uvar32_size((uint32_t)len) - HOLE;
	uint8_t *room = more ? buf_room(e->buf, more) : NULL;
	if (more && !room) {
		enc_fail(e, e->buf->err);
		return;
	}
	if (more)
		buf_claim(e->buf, more);
	uint8_t *at = e->buf->chunk->data + e->buf->start + hole;
	memmove(at + HOLE + more, at + HOLE, len);
	struct wr w = wr_over(at, HOLE + more);
	wr_uvar32(&w, (uint32_t)len);
}

static void enc_tags(struct enc *e, const struct kafka_struct *s, const uint8_t *in)
{
	uint64_t said = 0; /* bit i: field i is there */
	uint32_t count = 0;
	for (uint32_t i = s->plain; i < s->count; i++) {
		const struct kafka_field *f = &s->fields[i];
		if (has(f, e->version) && !field_is_initial(f, in, s->initial)) {
			said |= UINT64_C(1) << i;
			count++;
		}
	}
	enc_uvar32(e, count);
	for (uint32_t i = s->plain; i < s->count && e->err == OK; i++) {
		if (!(said >> i & 1))
			continue;
		enc_uvar32(e, (uint32_t)s->fields[i].tag);
		enc_flush(e);
		size_t hole = buf_len(e->buf);
		enc_u8(e, 0);
		enc_field(e, &s->fields[i], in);
		if (e->err == OK)
			enc_fill_hole(e, hole);
	}
}

static void enc_struct(struct enc *e, const struct kafka_struct *s, const uint8_t *in)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const struct kafka_field *f = &s->fields[i];
		if (!has(f, e->version)) {
			if (f->must && !field_is_initial(f, in, s->initial))
				enc_fail(e, ERR_INVALID);
		} else if (i < s->plain) {
			enc_field(e, f, in);
		}
	}
	if (e->flex)
		enc_tags(e, s, in);
}

enum err kafka_encode(
	const struct kafka_api *api, int version, bool request, const void *in, struct buf *out)
{
	if (!kafka_api_has(api, version))
		return ERR_UNSUPPORTED;
	if (out->err != OK)
		return out->err;
	size_t mark = buf_len(out);
	struct enc e = {.buf = out, .version = version, .flex = version >= api->flex};
	enc_struct(&e, request ? api->request : api->response, in);
	enc_flush(&e);
	if (e.err != OK)
		out->end = out->start + mark;
	return e.err;
}

void *kafka_array(struct arena *arena, const struct kafka_struct *type, uint32_t count)
{
	if (count == 0)
		return (void *)(uintptr_t)kafka_empty;
	if (count > SIZE_MAX / type->size) {
		arena->err = ERR_TOOBIG;
		return NULL;
	}
	uint8_t *items = arena_take(arena, (size_t)count * type->size);
	for (uint32_t i = 0; items && i < count; i++)
		memcpy(items + (size_t)i * type->size, type->initial, type->size);
	return items;
}

/* Frames. */

void kafka_out_init(struct kafka_out *o, size_t own_bytes_max)
{
	*o = (struct kafka_out){0};
	buf_init(&o->buf, own_bytes_max);
}

void kafka_out_fini(struct kafka_out *o)
{
	buf_fini(&o->buf);
	mem_free(o->cuts);
	o->cuts = NULL;
	o->count = o->room = 0;
	o->slice_bytes = 0;
}

void kafka_out_clear(struct kafka_out *o)
{
	enum { ROOM_KEPT = 64 };
	buf_clear(&o->buf);
	o->count = 0;
	o->slice_bytes = 0;
	if (o->room > ROOM_KEPT) {
		mem_free(o->cuts);
		o->cuts = NULL;
		o->room = 0;
	}
}

/* Writes the frame's length, header and body; the header's fields are what differs. */
static enum err frame_encode(
	const struct kafka_header *h, bool request, const void *in, struct kafka_out *o)
{
	if (!kafka_api_has(h->api, h->version))
		return ERR_UNSUPPORTED;
	if (o->buf.err != OK)
		return o->buf.err;
	const struct kafka_out before = *o;
	size_t mark = kafka_out_len(o);
	size_t own_mark = buf_len(&o->buf);
	struct enc e = {.buf = &o->buf, .out = o, .version = h->version};
	put_u32be(enc_take(&e, 4), 0);
	if (request) {
		put_u16be(enc_take(&e, 2), (uint16_t)h->api->key);
		put_u16be(enc_take(&e, 2), (uint16_t)h->version);
	}
	put_u32be(enc_take(&e, 4), (uint32_t)h->correlation);
	if (request)
		enc_bytes(&e, true, true, h->client_id);
	e.flex = h->version >= h->api->flex;
	if (request ? e.flex : response_header_tagged(h->api, h->version))
		enc_u8(&e, 0);
	enc_struct(&e, request ? h->api->request : h->api->response, in);
	enc_flush(&e);
	size_t len = kafka_out_len(o) - mark - 4;
	if (len > INT32_MAX)
		enc_fail(&e, ERR_TOOBIG);
	if (e.err != OK) {
		o->buf.end = o->buf.start + own_mark;
		o->count = before.count;
		o->slice_bytes = before.slice_bytes;
		return e.err;
	}
	put_u32be(o->buf.chunk->data + o->buf.start + own_mark, (uint32_t)len);
	return OK;
}

enum err kafka_response_encode(const struct kafka_header *h, const void *in, struct kafka_out *o)
{
	return frame_encode(h, false, in, o);
}

enum err kafka_request_encode(const struct kafka_header *h, const void *in, struct kafka_out *o)
{
	return frame_encode(h, true, in, o);
}

static void emit_own(const struct slice *own, size_t from, size_t to,
	void (*emit)(void *arg, struct slice s), void *arg)
{
	if (to > from)
		emit(arg, slice_of(own->chunk, bytes_of(own->bytes.at + from, to - from)));
}

void kafka_out_each(struct kafka_out *o, void (*emit)(void *arg, struct slice s), void *arg)
{
	struct slice own = buf_share(&o->buf);
	size_t from = 0;
	for (uint32_t i = 0; i < o->count; i++) {
		const struct kafka_cut *c = &o->cuts[i];
		emit_own(&own, from, c->at, emit, arg);
		from = c->at;
		for (uint32_t n = 0; n < c->count; n++)
			if (c->slices[n].bytes.len > 0)
				emit(arg, slice_ref(c->slices[n]));
	}
	emit_own(&own, from, own.bytes.len, emit, arg);
	slice_unref(&own);
	kafka_out_clear(o);
}
