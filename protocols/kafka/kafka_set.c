/* A compressed set is one message whose value is the set; it is unpacked at once, within a bound,
 * and holds messages of its own format only. Offsets in what is produced mean nothing: the log
 * gives them. A reader may begin at any record, so that a set that is fetched begins there, too,
 * and ends where the bound is.
 *
 *	OFFSET  SIZE  MEANING
 *	0       8     offset
 *	8       4     bytes that follow this field
 *	12      4     CRC-32 (zlib's) of everything from 16 on
 *	16      1     magic: 0 or 1
 *	17      1     attributes: 0-2 codec, 3 the time is the server's
 *	18      8     time, magic 1 only
 *	-       -     length, -1 for null, and key; the same for the value */
#include "protocols/kafka/kafka_set.h"
#include <zlib.h>

enum {
	BODY_AT = 12, /* after offset and size */
	MAGIC_AT = 16,
	ATTR_CODEC = 0x07,
	ATTR_APPEND_TIME = 0x08,
	MESSAGE_BYTES_MIN = 26, /* of magic 0 */
	TIME_BYTES = 8,
};

struct message {
	uint8_t magic, attributes;
	int64_t timestamp_ms; /* -1: none */
	struct bytes key, value;
	bool null_key, null_value;
};

static struct bytes nullable(struct rd *r, bool *null)
{
	uint32_t len = rd_u32be(r);
	*null = len == UINT32_MAX;
	return rd_take(r, *null ? 0 : len);
}

static const struct bytes *or_null(const struct bytes *b, bool null)
{
	return null ? NULL : b;
}

static enum err message_read(struct rd *set, struct message *out)
{
	rd_skip(set, BODY_AT - 4);
	struct bytes body = rd_bytes32(set);
	struct rd r = rd_over(body);
	if (set->err == OK && body.len > MAGIC_AT - BODY_AT && body.at[MAGIC_AT - BODY_AT] > 1)
		return ERR_UNSUPPORTED;
	uint32_t crc = rd_u32be(&r);
	if (set->err != OK || r.err != OK)
		return ERR_MALFORMED;
	if (crc32_z(0, r.at, rd_left(&r)) != crc)
		return ERR_CORRUPT;
	out->magic = rd_u8(&r);
	out->attributes = rd_u8(&r);
	out->timestamp_ms = out->magic == 0 ? -1 : (int64_t)rd_u64be(&r);
	out->key = nullable(&r, &out->null_key);
	out->value = nullable(&r, &out->null_value);
	if (rd_done(&r) != OK)
		return ERR_MALFORMED;
	return out->magic > 0 && (out->attributes & ATTR_APPEND_TIME) ? ERR_RANGE : OK;
}

static enum err add(struct batch_builder *b, const struct message *m)
{
	return batch_builder_add(b, m->timestamp_ms, or_null(&m->key, m->null_key),
		or_null(&m->value, m->null_value), NULL, 0);
}

static enum err add_packed(struct batch_builder *b, const struct message *outer, struct bytes set)
{
	struct rd r = rd_over(set);
	struct message m;
	enum err e = OK;
	while (e == OK && rd_left(&r) > 0) {
		e = message_read(&r, &m);
		if (e == OK && ((m.attributes & ATTR_CODEC) || m.magic != outer->magic))
			e = ERR_INVALID;
		if (e == OK)
			e = add(b, &m);
	}
	return e;
}

/* Of these formats the first has another checksum in lz4's frames, and neither has zstd. */
static enum err unpack(struct batch_builder *b, const struct message *m, size_t *inflated)
{
	enum batch_codec codec = (enum batch_codec)(m->attributes & ATTR_CODEC);
	struct chunk *chunk;
	size_t len, room = b->buf.max - *inflated;
	if (codec >= CODEC_ZSTD || (codec == CODEC_LZ4 && m->magic == 0))
		return ERR_UNSUPPORTED;
	if (m->null_value)
		return ERR_INVALID;
	enum err e = codec_inflate(codec, m->value, room, &chunk, &len);
	if (e != OK) {
		*inflated += room; /* it may have been as much */
		return e;
	}
	*inflated += len;
	e = add_packed(b, m, bytes_of(chunk->data, len));
	chunk_unref(chunk);
	return e;
}

enum err kafka_set_read(struct bytes set, size_t bytes_max, struct slice *batch, size_t *inflated)
{
	struct rd r = rd_over(set);
	struct batch_builder b;
	struct message m;
	enum err e = OK;
	*inflated = 0;
	batch_builder_init(&b, bytes_max);
	while (e == OK && rd_left(&r) > 0) {
		e = message_read(&r, &m);
		if (e == OK)
			e = m.attributes & ATTR_CODEC ? unpack(&b, &m, inflated) : add(&b, &m);
	}
	if (e == OK && b.count == 0)
		e = ERR_INVALID;
	if (e == OK)
		*batch = batch_builder_seal(&b);
	batch_builder_fini(&b);
	return e;
}

struct maker {
	struct buf buf;
	uint8_t magic;
	int64_t first;
	size_t bytes_max;
	uint32_t count;
	size_t inflated;
	bool full;
};

static uint8_t *put_nullable(uint8_t *at, struct bytes b, bool null)
{
	put_u32be(at, null ? UINT32_MAX : (uint32_t)b.len);
	if (!null && b.len > 0)
		memcpy(at + 4, b.at, b.len);
	return at + 4 + (null ? 0 : b.len);
}

static enum err put_message(
	struct maker *m, const struct record *record, int64_t offset, bool append_time)
{
	size_t header = m->magic == 0 ? MESSAGE_BYTES_MIN : MESSAGE_BYTES_MIN + TIME_BYTES;
	size_t len = header + record->key.len + record->value.len;
	m->full = m->count > 0 && buf_len(&m->buf) + len > m->bytes_max;
	uint8_t *start = m->full ? NULL : buf_room(&m->buf, len);
	if (start == NULL)
		return m->full ? OK : m->buf.err;
	uint8_t *at = start + MAGIC_AT + 2;
	put_u64be(start, (uint64_t)offset);
	put_u32be(start + BODY_AT - 4, (uint32_t)(len - BODY_AT));
	start[MAGIC_AT] = m->magic;
	start[MAGIC_AT + 1] = m->magic && append_time ? ATTR_APPEND_TIME : 0;
	if (m->magic) {
		put_u64be(at, (uint64_t)record->timestamp_ms);
		at += TIME_BYTES;
	}
	at = put_nullable(at, record->key, record->null_key);
	put_nullable(at, record->value, record->null_value);
	put_u32be(start + BODY_AT, (uint32_t)crc32_z(0, start + MAGIC_AT, len - MAGIC_AT));
	buf_claim(&m->buf, len);
	m->count++;
	return OK;
}

static enum err put_batch(struct maker *m, const struct batch *b)
{
	struct batch_walk w;
	struct record record;
	enum err e = batch_walk_init(&w, b, BATCH_INFLATED_MAX);
	if (e != OK)
		return e;
	m->inflated += w.inflated != NULL ? rd_left(&w.rd) : 0;
	while (e == OK && !m->full && (e = batch_walk_next(&w, &record)) == OK) {
		int64_t offset = b->base_offset + record.offset_delta;
		if (offset >= m->first)
			e = put_message(m, &record, offset, b->append_time);
	}
	batch_walk_fini(&w);
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err put_batches(struct maker *m, struct bytes left)
{
	enum err e = OK;
	while (e == OK && !m->full && left.len > 0) {
		struct batch b;
		e = batch_read(left, &b);
		if (e != OK)
			return e;
		left = bytes_of(left.at + b.all.len, left.len - b.all.len);
		/* Control batches are not for clients. */
		if (!b.control && b.base_offset + b.last_offset_delta >= m->first)
			e = put_batch(m, &b);
	}
	return e;
}

enum err kafka_set_write(const struct slice *batches, uint32_t count, int64_t first, uint8_t magic,
	size_t bytes_max, struct kafka_set *out)
{
	struct maker m = {.magic = magic, .first = first, .bytes_max = bytes_max};
	enum err e = OK;
	/* One record of any size, or as many as fit. */
	buf_init(&m.buf, bytes_max + BATCH_INFLATED_MAX + MESSAGE_BYTES_MIN + TIME_BYTES);
	for (uint32_t i = 0; e == OK && i < count; i++)
		e = put_batches(&m, batches[i].bytes);
	*out = (struct kafka_set){
		.bytes = {NULL, bytes_of("", 0)}, .count = m.count, .inflated = m.inflated};
	if (e == OK && m.count > 0)
		out->bytes = buf_share(&m.buf);
	buf_fini(&m.buf);
	return e;
}
