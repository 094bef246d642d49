/* Record batches v2. The walk and the builder are on the way of every message, so both are one
 * pass without allocation: the walk decodes a record's six varints with an inline path for the
 * one- and two-byte forms (all others go through server/base/wire), the builder computes a
 * record's exact size first and writes it with one bounds check. The CRC is taken once, when a
 * batch is sealed or checked.
 *
 *	OFFSET  SIZE  MEANING
 *	0       8     base offset
 *	8       4     batch length: bytes that follow this field
 *	12      4     partition leader epoch
 *	16      1     magic, 2
 *	17      4     CRC-32C of everything from 21 on
 *	21      2     attributes: 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control
 *	23      4     last offset delta
 *	27      8     base timestamp
 *	35      8     max timestamp
 *	43      8     producer id
 *	51      2     producer epoch
 *	53      4     base sequence
 *	57      4     record count
 *	61      -     records, compressed as one block */
#include "storage/record_batch.h"
#include "server/base/crc32c.h"
#include "server/base/mem.h"
#include <assert.h>

enum {
	AT_LENGTH = 8,
	AT_EPOCH = 12,
	AT_MAGIC = 16,
	AT_CRC = 17,
	AT_ATTRIBUTES = 21,
	AT_LAST_DELTA = 23,
	AT_BASE_TIME = 27,
	AT_MAX_TIME = 35,
	AT_PRODUCER = 43,
	AT_PRODUCER_EPOCH = 51,
	AT_SEQUENCE = 53,
	AT_COUNT = 57,
	MAGIC = 2,
	ATTR_CODEC = 0x07,
	ATTR_APPEND_TIME = 0x08,
	ATTR_TRANSACTIONAL = 0x10,
	ATTR_CONTROL = 0x20,
	RECORD_BYTES_MIN = 7, /* length, attributes, two deltas, two lengths, header count */
	HEADER_PAIR_BYTES_MIN = 2,
	RECORD_OVERHEAD_MAX = 5 + 1 + 10 + 5 + 5 + 5 + 5,
	HEADER_PAIR_OVERHEAD_MAX = 5 + 5
};
static_assert((int)AT_COUNT + 4 == (int)BATCH_HEADER_BYTES, "the header's layout");

static bool all_in_range(const struct batch *b)
{
	return b->codec < CODEC_COUNT && b->count >= 0 && b->count <= BATCH_COUNT_MAX &&
		b->last_offset_delta >= 0;
}

enum err batch_read(struct bytes in, struct batch *out)
{
	if (in.len <= AT_MAGIC)
		return ERR_MORE;
	uint8_t magic = in.at[AT_MAGIC];
	if (magic != MAGIC)
		return magic < MAGIC ? ERR_UNSUPPORTED : ERR_MALFORMED;
	uint32_t length = get_u32be(in.at + AT_LENGTH);
	if (length < BATCH_HEADER_BYTES - AT_EPOCH || length > INT32_MAX)
		return ERR_MALFORMED;
	size_t size = (size_t)length + AT_EPOCH;
	if (in.len < size)
		return ERR_MORE;
	const uint8_t *at = in.at;
	uint16_t attributes = get_u16be(at + AT_ATTRIBUTES);
	*out = (struct batch){
		.all = bytes_of(at, size),
		.records = bytes_of(at + BATCH_HEADER_BYTES, size - BATCH_HEADER_BYTES),
		.base_offset = (int64_t)get_u64be(at),
		.leader_epoch = (int32_t)get_u32be(at + AT_EPOCH),
		.crc = get_u32be(at + AT_CRC),
		.codec = (enum batch_codec)(attributes & ATTR_CODEC),
		.append_time = attributes & ATTR_APPEND_TIME,
		.transactional = attributes & ATTR_TRANSACTIONAL,
		.control = attributes & ATTR_CONTROL,
		.last_offset_delta = (int32_t)get_u32be(at + AT_LAST_DELTA),
		.base_ms = (int64_t)get_u64be(at + AT_BASE_TIME),
		.max_ms = (int64_t)get_u64be(at + AT_MAX_TIME),
		.producer_id = (int64_t)get_u64be(at + AT_PRODUCER),
		.producer_epoch = (int16_t)get_u16be(at + AT_PRODUCER_EPOCH),
		.base_sequence = (int32_t)get_u32be(at + AT_SEQUENCE),
		.count = (int32_t)get_u32be(at + AT_COUNT),
	};
	return all_in_range(out) ? OK : ERR_MALFORMED;
}

void batch_set_offset(uint8_t *batch, int64_t base_offset, int32_t leader_epoch)
{
	put_u64be(batch, (uint64_t)base_offset);
	put_u32be(batch + AT_EPOCH, (uint32_t)leader_epoch);
}

static void set_crc(uint8_t *batch, size_t len)
{
	struct bytes covered = bytes_of(batch + AT_ATTRIBUTES, len - AT_ATTRIBUTES);
	put_u32be(batch + AT_CRC, crc32c(covered));
}

void batch_set_append_time(uint8_t *batch, size_t len, int64_t ms)
{
	must(len >= BATCH_HEADER_BYTES);
	batch[AT_ATTRIBUTES + 1] |= ATTR_APPEND_TIME;
	put_u64be(batch + AT_MAX_TIME, (uint64_t)ms);
	set_crc(batch, len);
}

void batch_set_max_time(uint8_t *batch, size_t len, int64_t ms)
{
	must(len >= BATCH_HEADER_BYTES);
	put_u64be(batch + AT_MAX_TIME, (uint64_t)ms);
	set_crc(batch, len);
}

void batch_set_records(uint8_t *batch, size_t len, int32_t count, int64_t max_ms)
{
	must(len >= BATCH_HEADER_BYTES);
	put_u32be(batch + AT_LENGTH, (uint32_t)(len - AT_EPOCH));
	put_u64be(batch + AT_MAX_TIME, (uint64_t)max_ms);
	put_u32be(batch + AT_COUNT, (uint32_t)count);
	set_crc(batch, len);
}

/* The common short varints inline, everything else by the reader of server/base. */
static inline uint32_t uvar32(struct rd *r)
{
	const uint8_t *p = r->at;
	ptrdiff_t left = r->end - p;
	if (left >= 1 && p[0] < 0x80) {
		r->at = p + 1;
		return p[0];
	}
	if (left >= 2 && p[1] < 0x80) {
		r->at = p + 2;
		return (uint32_t)(p[0] & 0x7f) | (uint32_t)p[1] << 7;
	}
	return rd_uvar32(r);
}

static inline int32_t svar32(struct rd *r)
{
	uint32_t v = uvar32(r);
	return (int32_t)(v >> 1) ^ -(int32_t)(v & 1);
}

static inline int64_t svar64(struct rd *r)
{
	if (r->at < r->end && r->at[0] < 0x80) {
		uint8_t v = *r->at++;
		return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
	}
	return rd_svar64(r);
}

/* Bytes with a length before them, -1 for null. */
static inline struct bytes nullable(struct rd *r, bool *null)
{
	int32_t len = svar32(r);
	*null = len < 0;
	if (len < -1 || len > r->end - r->at) {
		rd_fail(r, ERR_MALFORMED);
		return bytes_of(r->end, 0);
	}
	const uint8_t *at = r->at;
	size_t n = *null ? 0 : (size_t)len;
	r->at = at + n;
	return bytes_of(at, n);
}

enum err batch_walk_init(struct batch_walk *w, const struct batch *b, size_t inflated_max)
{
	struct bytes records = b->records;
	struct chunk *inflated = NULL;
	if (b->codec != CODEC_NONE && records.len > 0) {
		size_t len;
		enum err e = codec_inflate(b->codec, records, inflated_max, &inflated, &len);
		if (e != OK)
			return e;
		records = bytes_of(inflated->data, len);
	}
	/* Bounds the walk by the bytes there are, before the first record is looked at. */
	if ((size_t)b->count > records.len / RECORD_BYTES_MIN) {
		chunk_unref(inflated);
		return ERR_MALFORMED;
	}
	*w = (struct batch_walk){
		.rd = rd_over(records),
		.inflated = inflated,
		.base_ms = b->base_ms,
		.base_offset = b->base_offset,
		.append_time = b->append_time,
		.max_ms = b->max_ms,
		.left = b->count,
	};
	return OK;
}

void batch_walk_fini(struct batch_walk *w)
{
	chunk_unref(w->inflated);
	w->inflated = NULL;
}

/*	varint  length of what follows
 *	u8      attributes, unused
 *	varlong timestamp delta
 *	varint  offset delta
 *	varint  key length or -1, key
 *	varint  value length or -1, value
 *	varint  header count, headers: varint length, name, varint length or -1, value */
enum err batch_walk_next(struct batch_walk *w, struct record *out)
{
	if (w->left == 0)
		return rd_left(&w->rd) == 0 ? ERR_NOTFOUND : ERR_MALFORMED;
	struct rd all = w->rd;
	int32_t len = svar32(&all);
	if (all.err != OK || len < RECORD_BYTES_MIN - 1 || len > all.end - all.at)
		return ERR_MALFORMED;
	struct rd r = {all.at + 1, all.at + len, OK}; /* the attributes carry no meaning yet */
	int64_t time_delta = svar64(&r);
	out->offset_delta = svar32(&r);
	out->key = nullable(&r, &out->null_key);
	out->value = nullable(&r, &out->null_value);
	out->header_count = svar32(&r);
	out->headers = bytes_of(r.at, (size_t)(r.end - r.at));
	if (r.err != OK || out->header_count < 0 ||
		(size_t)out->header_count > out->headers.len / HEADER_PAIR_BYTES_MIN)
		return ERR_MALFORMED;
	out->timestamp_ms = w->append_time ? w->max_ms
					   : (int64_t)((uint64_t)w->base_ms + (uint64_t)time_delta);
	w->rd.at = r.end;
	w->left--;
	return OK;
}

enum err record_header_next(struct bytes *rest, struct record_header *out)
{
	struct rd r = {rest->at, rest->at + rest->len, OK};
	bool null_name;
	out->name = nullable(&r, &null_name);
	out->value = nullable(&r, &out->null_value);
	if (r.err != OK || null_name)
		return ERR_MALFORMED;
	*rest = bytes_of(r.at, (size_t)(r.end - r.at));
	return OK;
}

enum err record_header_find(const struct record *r, const char *name, struct record_header *out)
{
	struct bytes want = bytes_text(name), rest = r->headers;
	for (int32_t i = 0; i < r->header_count; i++) {
		struct record_header h;
		if (record_header_next(&rest, &h) != OK)
			break;
		if (bytes_equal(h.name, want)) {
			*out = h;
			return OK;
		}
	}
	return ERR_NOTFOUND;
}

static enum err check_headers(const struct record *r)
{
	struct bytes rest = r->headers;
	for (int32_t i = 0; i < r->header_count; i++) {
		struct record_header h;
		enum err e = record_header_next(&rest, &h);
		if (e != OK)
			return e;
	}
	return rest.len == 0 ? OK : ERR_MALFORMED;
}

static enum err check_records(struct batch_walk *w, int64_t *newest_ms)
{
	bool dense = true;
	struct record r;
	enum err e;
	for (int32_t i = 0; (e = batch_walk_next(w, &r)) == OK; i++) {
		e = check_headers(&r);
		if (e != OK)
			return e;
		dense = dense && r.offset_delta == i;
		*newest_ms = r.timestamp_ms > *newest_ms ? r.timestamp_ms : *newest_ms;
	}
	if (e != ERR_NOTFOUND)
		return e;
	return dense ? OK : ERR_INVALID;
}

enum err batch_check(const struct batch *b, size_t inflated_max)
{
	int64_t newest_ms;
	enum err e = batch_check_records(b, inflated_max, &newest_ms);
	return e == OK && newest_ms != b->max_ms ? ERR_INVALID : e;
}

enum err batch_check_records(const struct batch *b, size_t inflated_max, int64_t *newest_ms)
{
	struct bytes covered = bytes_of(b->all.at + AT_ATTRIBUTES, b->all.len - AT_ATTRIBUTES);
	if (crc32c(covered) != b->crc)
		return ERR_CORRUPT;
	if (b->count < 1 || b->last_offset_delta != b->count - 1)
		return ERR_INVALID;
	struct batch_walk w;
	enum err e = batch_walk_init(&w, b, inflated_max);
	if (e != OK)
		return e;
	*newest_ms = INT64_MIN;
	e = check_records(&w, newest_ms);
	batch_walk_fini(&w);
	return e;
}

bool batch_all_keyed(const struct batch *b, size_t inflated_max)
{
	struct batch_walk w;
	struct record r;
	bool keyed = true;
	if (batch_walk_init(&w, b, inflated_max) != OK)
		return false;
	while (keyed && batch_walk_next(&w, &r) == OK)
		keyed = !r.null_key;
	batch_walk_fini(&w);
	return keyed;
}

void batch_builder_init(struct batch_builder *b, size_t bytes_max)
{
	*b = (struct batch_builder){.count = 0};
	buf_init(&b->buf, bytes_max);
}

void batch_builder_fini(struct batch_builder *b)
{
	buf_fini(&b->buf);
}

static inline uint8_t *put_uvar(uint8_t *at, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*at++ = (uint8_t)(v | 0x80);
	*at++ = (uint8_t)v;
	return at;
}

static inline size_t uvar_size(uint64_t v)
{
	size_t n = 1;
	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

/* A length is never negative but -1, null; zigzag makes that 2 x len and 1. */
static inline uint64_t len_code(const struct bytes *b)
{
	return b ? (uint64_t)b->len << 1 : 1;
}

static inline size_t field_size(const struct bytes *b)
{
	return uvar_size(len_code(b)) + (b ? b->len : 0);
}

static inline uint8_t *put_field(uint8_t *at, const struct bytes *b)
{
	at = put_uvar(at, len_code(b));
	if (b && b->len > 0)
		memcpy(at, b->at, b->len);
	return b ? at + b->len : at;
}

static inline const struct bytes *header_value(const struct record_header *h)
{
	return h->null_value ? NULL : &h->value;
}

/* Whether the lengths can be summed without overflow: none is over what a batch could hold. */
static bool lengths_fit(const struct bytes *key, const struct bytes *value,
	const struct record_header *headers, int32_t header_count)
{
	size_t most = INT32_MAX, sum = 0;
	if ((key && key->len > most) || (value && value->len > most))
		return false;
	sum = (key ? key->len : 0) + (value ? value->len : 0);
	for (int32_t i = 0; i < header_count; i++) {
		if (headers[i].name.len > most || headers[i].value.len > most)
			return false;
		sum += headers[i].name.len + headers[i].value.len + HEADER_PAIR_OVERHEAD_MAX;
	}
	return sum <= most - RECORD_OVERHEAD_MAX;
}

static size_t headers_size(const struct record_header *headers, int32_t count)
{
	size_t size = uvar_size((uint64_t)count << 1);
	for (int32_t i = 0; i < count; i++)
		size += field_size(&headers[i].name) + field_size(header_value(&headers[i]));
	return size;
}

/* Room for a record of len bytes, and for the batch header before the first one. On failure the
 * buf's sticky error is taken back: what was added before is still good. */
static uint8_t *record_room(struct batch_builder *b, size_t len, enum err *e)
{
	size_t extra = b->count == 0 ? BATCH_HEADER_BYTES : 0;
	size_t held = buf_len(&b->buf);
	*e = ERR_TOOBIG;
	if (len > b->buf.max || held + extra > b->buf.max - len || b->count >= BATCH_COUNT_MAX)
		return NULL;
	uint8_t *at = buf_room(&b->buf, extra + len);
	if (!at) {
		*e = b->buf.err;
		b->buf.err = OK;
		return NULL;
	}
	*e = OK;
	buf_claim(&b->buf, extra + len);
	return at + extra;
}

enum err batch_builder_add(struct batch_builder *b, int64_t timestamp_ms, const struct bytes *key,
	const struct bytes *value, const struct record_header *headers, int32_t header_count)
{
	if (!lengths_fit(key, value, headers, header_count))
		return ERR_TOOBIG;
	int64_t base_ms = b->count > 0 ? b->base_ms : timestamp_ms;
	uint64_t time_code = zigzag64((int64_t)((uint64_t)timestamp_ms - (uint64_t)base_ms));
	uint64_t offset_code = (uint64_t)b->count << 1;
	size_t body = 1 + uvar_size(time_code) + uvar_size(offset_code) + field_size(key) +
		field_size(value) + headers_size(headers, header_count);
	size_t size = uvar_size((uint64_t)body << 1) + body;
	enum err e;
	uint8_t *at = record_room(b, size, &e);
	if (!at)
		return e;
	b->record_at = buf_len(&b->buf) - size;
	at = put_uvar(at, (uint64_t)body << 1);
	*at++ = 0; /* attributes */
	at = put_uvar(at, time_code);
	at = put_uvar(at, offset_code);
	at = put_field(at, key);
	at = put_field(at, value);
	at = put_uvar(at, (uint64_t)header_count << 1);
	for (int32_t i = 0; i < header_count; i++) {
		at = put_field(at, &headers[i].name);
		at = put_field(at, header_value(&headers[i]));
	}
	b->max_ms = b->count > 0 && b->max_ms > timestamp_ms ? b->max_ms : timestamp_ms;
	b->base_ms = base_ms;
	b->count++;
	return OK;
}

struct slice batch_builder_seal(struct batch_builder *b)
{
	size_t len = buf_len(&b->buf), max = b->buf.max;
	if (b->count == 0)
		return (struct slice){NULL, bytes_of(NULL, 0)};
	uint8_t *at = b->buf.chunk->data + b->buf.start;
	batch_set_offset(at, 0, -1);
	put_u32be(at + AT_LENGTH, (uint32_t)(len - AT_EPOCH));
	at[AT_MAGIC] = MAGIC;
	put_u16be(at + AT_ATTRIBUTES, 0);
	put_u32be(at + AT_LAST_DELTA, (uint32_t)(b->count - 1));
	put_u64be(at + AT_BASE_TIME, (uint64_t)b->base_ms);
	put_u64be(at + AT_MAX_TIME, (uint64_t)b->max_ms);
	put_u64be(at + AT_PRODUCER, UINT64_MAX);
	put_u16be(at + AT_PRODUCER_EPOCH, UINT16_MAX);
	put_u32be(at + AT_SEQUENCE, UINT32_MAX);
	put_u32be(at + AT_COUNT, (uint32_t)b->count);
	set_crc(at, len);
	struct slice sealed = buf_share(&b->buf);
	buf_fini(&b->buf);
	batch_builder_init(b, max);
	return sealed;
}
