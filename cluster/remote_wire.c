/* Writers and readers of what partitions of different nodes say to each other, side by side. All
 * lengths come before what they count, so that nothing is read beyond the frame; a checksum is
 * looked at where bytes are kept (entries), the batches of proposals are checked by who takes
 * them. */
#include "cluster/remote_wire.h"
#include "server/base/crc32c.h"

enum { INFO_MEMBER_BYTES = 43, ROW_BYTES_MIN = 6, ITEM_BYTES_MIN = 10, LEAD_BYTES = 24 };

enum err remote_err(uint8_t number)
{
	return number < ERR_COUNT && number != ERR_MORE ? (enum err)number : ERR_UNKNOWN;
}

/* --- proposals ---
 * 0  8  stream
 * 8  8  term
 * 16 4  number in the stream
 * 20 2  count; each: kind 1, repeatable 1, args 4 + n, batch 4 + n */
void propose_head_write(struct buf *b, const struct propose_head *h)
{
	buf_add_u64be(b, h->stream);
	buf_add_u64be(b, h->term);
	buf_add_u32be(b, h->seq);
	buf_add_u16be(b, h->count);
}

void propose_head_read(struct rd *r, struct propose_head *out)
{
	out->stream = rd_u64be(r);
	out->term = rd_u64be(r);
	out->seq = rd_u32be(r);
	out->count = (uint16_t)rd_count(r, rd_u16be(r), ITEM_BYTES_MIN);
	if (out->count == 0 || out->count > REMOTE_PROPOSALS_MAX)
		rd_fail(r, ERR_MALFORMED);
}

void propose_item_write(struct buf *b, const struct propose_item *i)
{
	buf_add_u8(b, i->kind);
	buf_add_bool(b, i->repeatable);
	buf_add_bytes32(b, i->args);
	buf_add_u32be(b, (uint32_t)i->batch.len);
}

void propose_item_read(struct rd *r, struct propose_item *out)
{
	out->kind = rd_u8(r);
	out->repeatable = rd_bool(r);
	out->args = rd_bytes32(r);
	out->batch = rd_bytes32(r);
}

/* 0  1  verdict
 * 1  4  node that leads as far as known
 * 5  8  term
 * 13 8  stream in force
 * 21 2  count; each: status 1, err 1, offset 8, index 8, reply 4 + n */
void propose_answer_write(struct buf *b, const struct propose_answer *a)
{
	buf_add_u8(b, (uint8_t)a->verdict);
	buf_add_u32be(b, a->leader);
	buf_add_u64be(b, a->term);
	buf_add_u64be(b, a->stream);
	buf_add_u16be(b, a->count);
}

void propose_answer_read(struct rd *r, struct propose_answer *out)
{
	uint8_t verdict = rd_u8(r);

	if (verdict < VERDICT_TAKEN || verdict > VERDICT_BUSY) {
		rd_fail(r, ERR_MALFORMED);
		verdict = VERDICT_REFUSED;
	}
	out->verdict = (enum propose_verdict)verdict;
	out->leader = rd_u32be(r);
	out->term = rd_u64be(r);
	out->stream = rd_u64be(r);
	out->count = rd_u16be(r);
}

void propose_outcome_write(struct buf *b, const struct propose_outcome *o)
{
	buf_add_u8(b, (uint8_t)o->status);
	buf_add_u8(b, (uint8_t)o->err);
	buf_add_u64be(b, (uint64_t)o->base_offset);
	buf_add_u64be(b, o->index);
	buf_add_bytes32(b, o->reply);
}

void propose_outcome_read(struct rd *r, struct propose_outcome *out)
{
	uint8_t status = rd_u8(r);

	if (status > STATUS_UNSURE) {
		rd_fail(r, ERR_MALFORMED);
		status = STATUS_UNSURE;
	}
	out->status = (enum propose_status)status;
	out->err = remote_err(rd_u8(r));
	out->base_offset = (int64_t)rd_u64be(r);
	out->index = rd_u64be(r);
	out->reply = rd_bytes32(r);
}

/* --- rows: keyspace 1, prefix 1, linearizable 1, rows 4, bytes 4, key 2 + n, after 2 + n --- */
void rows_ask_write(struct buf *b, const struct rows_ask *a)
{
	buf_add_u8(b, a->keyspace);
	buf_add_bool(b, a->prefix);
	buf_add_bool(b, a->linearizable);
	buf_add_u32be(b, a->rows_max);
	buf_add_u32be(b, a->bytes_max);
	buf_add_bytes16(b, a->key);
	buf_add_bytes16(b, a->after);
}

enum err rows_ask_read(struct bytes in, struct rows_ask *out)
{
	struct rd r = rd_over(in);

	out->keyspace = rd_u8(&r);
	out->prefix = rd_bool(&r);
	out->linearizable = rd_bool(&r);
	out->rows_max = rd_u32be(&r);
	out->bytes_max = rd_u32be(&r);
	out->key = rd_bytes16(&r);
	out->after = rd_bytes16(&r);
	return rd_done(&r);
}

/* err 1, more 1, offset 8, count 4; each: key 2 + n, value 4 + n */
void rows_given_write(struct buf *b, const struct rows_given *g)
{
	buf_add_u8(b, (uint8_t)g->err);
	buf_add_bool(b, g->more);
	buf_add_u64be(b, (uint64_t)g->at_offset);
	buf_add_u32be(b, g->count);
}

void rows_given_read(struct rd *r, struct rows_given *out)
{
	out->err = remote_err(rd_u8(r));
	out->more = rd_bool(r);
	out->at_offset = (int64_t)rd_u64be(r);
	out->count = rd_count(r, rd_u32be(r), ROW_BYTES_MIN);
	if (out->count > REMOTE_ROWS_MAX) {
		rd_fail(r, ERR_MALFORMED);
		out->count = 0;
	}
}

void rows_row_write(struct buf *b, const struct row *row)
{
	buf_add_bytes16(b, row->key);
	buf_add_bytes32(b, row->value);
}

void rows_row_read(struct rd *r, struct row *out)
{
	out->key = rd_bytes16(r);
	out->value = rd_bytes32(r);
}

/* --- records: offset 8, bytes 4 --- */
void records_ask_write(struct buf *b, const struct records_ask *a)
{
	buf_add_u64be(b, (uint64_t)a->offset);
	buf_add_u32be(b, a->bytes_max);
}

enum err records_ask_read(struct bytes in, struct records_ask *out)
{
	struct rd r = rd_over(in);

	out->offset = (int64_t)rd_u64be(&r);
	out->bytes_max = rd_u32be(&r);
	return rd_done(&r);
}

/* err 1, first offset 8, high watermark 8, count 2; each an entry */
void records_given_write(struct buf *b, const struct records_given *g)
{
	buf_add_u8(b, (uint8_t)g->err);
	buf_add_u64be(b, (uint64_t)g->first_offset);
	buf_add_u64be(b, (uint64_t)g->high_watermark);
	buf_add_u16be(b, g->count);
}

void records_given_read(struct rd *r, struct records_given *out)
{
	out->err = remote_err(rd_u8(r));
	out->first_offset = (int64_t)rd_u64be(r);
	out->high_watermark = (int64_t)rd_u64be(r);
	out->count = rd_u16be(r);
	if (out->count > REMOTE_ENTRIES_MAX) {
		rd_fail(r, ERR_MALFORMED);
		out->count = 0;
	}
}

/* index 8, header 1 + n (as in the store), payload 4 + n */
void records_entry_write(struct buf *b, const struct entry *e)
{
	uint8_t head[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	size_t len = entry_header_encode(&e->head, head), payload = 0;

	for (uint32_t i = 0; i < e->part_count; i++)
		payload += e->parts[i].bytes.len;
	buf_add_u64be(b, e->index);
	buf_add_u8(b, (uint8_t)len);
	buf_add(b, bytes_of(head, len));
	buf_add_u32be(b, (uint32_t)payload);
}

enum err records_entry_read(struct rd *r, struct slice frame, uint64_t group, struct entry **out)
{
	uint64_t index = rd_u64be(r);
	struct bytes head = rd_take(r, rd_u8(r)), payload = rd_bytes32(r);
	struct entry_header h;
	struct slice share;

	if (r->err != OK || entry_header_decode(head, &h) != OK)
		return ERR_MALFORMED;
	if (h.kind != ENTRY_DATA || h.count == 0 || payload.len != h.payload_bytes ||
		(h.flags & ENTRY_TRIMMED) || h.base_offset < 0 ||
		h.base_offset > INT64_MAX - (int64_t)h.count)
		return ERR_MALFORMED;
	if ((payload.len == 0 && !(h.flags & ENTRY_COMPACTED)) ||
		(payload.len > 0 && crc32c(payload) != h.payload_crc))
		return ERR_CORRUPT;
	share = slice_of(frame.chunk, payload);
	*out = entry_of(group, index, &h, &share);
	return OK;
}

/* --- seeks: by epoch 1, value 8; err 1, offset 8, timestamp 8, epoch 4 --- */
void seek_ask_write(struct buf *b, const struct seek_ask *a)
{
	buf_add_bool(b, a->by_epoch);
	buf_add_u64be(b, (uint64_t)a->value);
}

enum err seek_ask_read(struct bytes in, struct seek_ask *out)
{
	struct rd r = rd_over(in);

	out->by_epoch = rd_bool(&r);
	out->value = (int64_t)rd_u64be(&r);
	return rd_done(&r);
}

void seek_given_write(struct buf *b, const struct seek_given *g)
{
	buf_add_u8(b, (uint8_t)g->err);
	buf_add_u64be(b, (uint64_t)g->offset);
	buf_add_u64be(b, (uint64_t)g->timestamp_ms);
	buf_add_u32be(b, (uint32_t)g->found_epoch);
}

enum err seek_given_read(struct bytes in, struct seek_given *out)
{
	struct rd r = rd_over(in);

	out->err = remote_err(rd_u8(&r));
	out->offset = (int64_t)rd_u64be(&r);
	out->timestamp_ms = (int64_t)rd_u64be(&r);
	out->found_epoch = (int32_t)rd_u32be(&r);
	return rd_done(&r);
}

/* --- points: err 1, index 8, offset 8 --- */
void point_given_write(struct buf *b, const struct point_given *g)
{
	buf_add_u8(b, (uint8_t)g->err);
	buf_add_u64be(b, g->index);
	buf_add_u64be(b, (uint64_t)g->offset);
}

enum err point_given_read(struct bytes in, struct point_given *out)
{
	struct rd r = rd_over(in);

	out->err = remote_err(rd_u8(&r));
	out->index = rd_u64be(&r);
	out->offset = (int64_t)rd_u64be(&r);
	return rd_done(&r);
}

/* --- info: err 1, term, last, commit, first offset, high watermark, bytes 8 each, leader 4,
 * count 1; each: replica 8, role 1, match 8, in sync 1, fetches 1, entries fetched 8 of 8, bytes 8
 * --- */
void info_given_write(struct buf *b, const struct partition_info *i)
{
	buf_add_u8(b, (uint8_t)i->err);
	buf_add_u64be(b, i->term);
	buf_add_u64be(b, i->last_index);
	buf_add_u64be(b, i->commit_index);
	buf_add_u64be(b, (uint64_t)i->first_offset);
	buf_add_u64be(b, (uint64_t)i->high_watermark);
	buf_add_u64be(b, (uint64_t)i->bytes);
	buf_add_u32be(b, i->leader);
	buf_add_u8(b, (uint8_t)i->member_count);
	for (int n = 0; n < i->member_count; n++) {
		buf_add_u64be(b, i->members[n].replica);
		buf_add_u8(b, (uint8_t)i->members[n].role);
		buf_add_u64be(b, i->members[n].match_index);
		buf_add_bool(b, i->members[n].in_sync);
		buf_add_bool(b, i->members[n].fetches);
		buf_add_u64be(b, i->members[n].fetched);
		buf_add_u64be(b, i->members[n].fetched_total);
		buf_add_u64be(b, (uint64_t)i->members[n].fetched_bytes);
	}
}

static void info_member_read(struct rd *r, struct partition_member *out)
{
	uint8_t role;

	out->replica = rd_u64be(r);
	role = rd_u8(r);
	if (role > MEMBER_SPARE) {
		rd_fail(r, ERR_MALFORMED);
		role = MEMBER_SPARE;
	}
	out->role = (enum member_role)role;
	out->match_index = rd_u64be(r);
	out->in_sync = rd_bool(r);
	out->fetches = rd_bool(r);
	out->fetched = rd_u64be(r);
	out->fetched_total = rd_u64be(r);
	out->fetched_bytes = (int64_t)rd_u64be(r);
}

enum err info_given_read(struct bytes in, struct partition_info *out)
{
	struct rd r = rd_over(in);
	uint32_t count;

	out->err = remote_err(rd_u8(&r));
	out->term = rd_u64be(&r);
	out->last_index = rd_u64be(&r);
	out->commit_index = rd_u64be(&r);
	out->first_offset = (int64_t)rd_u64be(&r);
	out->high_watermark = (int64_t)rd_u64be(&r);
	out->bytes = (int64_t)rd_u64be(&r);
	out->leader = rd_u32be(&r);
	count = rd_count(&r, rd_u8(&r), INFO_MEMBER_BYTES);
	if (count > PARTITION_MEMBERS_MAX) {
		rd_fail(&r, ERR_MALFORMED);
		count = 0;
	}
	out->member_count = (int)count;
	for (uint32_t n = 0; n < count; n++)
		info_member_read(&r, &out->members[n]);
	return rd_done(&r);
}

/* --- who leads: any number of group 8, term 8, high watermark 8 --- */
void leads_write(struct buf *b, const struct lead *l)
{
	buf_add_u64be(b, l->group);
	buf_add_u64be(b, l->term);
	buf_add_u64be(b, (uint64_t)l->high_watermark);
}

bool leads_read(struct rd *r, struct lead *out)
{
	if (rd_left(r) < LEAD_BYTES)
		return false;
	out->group = rd_u64be(r);
	out->term = rd_u64be(r);
	out->high_watermark = (int64_t)rd_u64be(r);
	return true;
}

/* --- following: stream 8, flags 1, offset 8, credit 4 --- */
void follow_write(struct buf *b, const struct follow *f)
{
	buf_add_u64be(b, f->stream);
	buf_add_u8(b, f->flags);
	buf_add_u64be(b, (uint64_t)f->offset);
	buf_add_u32be(b, f->credit);
}

enum err follow_read(struct bytes in, struct follow *out)
{
	struct rd r = rd_over(in);

	out->stream = rd_u64be(&r);
	out->flags = rd_u8(&r);
	out->offset = (int64_t)rd_u64be(&r);
	out->credit = rd_u32be(&r);
	return rd_done(&r);
}

/* stream 8, term 8, first offset 8, high watermark 8, entry 1; then it */
void feed_write(struct buf *b, const struct feed *f)
{
	buf_add_u64be(b, f->stream);
	buf_add_u64be(b, f->term);
	buf_add_u64be(b, (uint64_t)f->first_offset);
	buf_add_u64be(b, (uint64_t)f->high_watermark);
	buf_add_bool(b, f->entry);
}

void feed_read(struct rd *r, struct feed *out)
{
	out->stream = rd_u64be(r);
	out->term = rd_u64be(r);
	out->first_offset = (int64_t)rd_u64be(r);
	out->high_watermark = (int64_t)rd_u64be(r);
	out->entry = rd_bool(r);
}
