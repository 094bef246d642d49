/* A client's batch is stored as it came: checked in one pass over the network's bytes, copied to a
 * chunk of its own (the partition sets offset and epoch in it) and proposed. Whether it may be
 * appended is decided by the partition's leader in log order: the producer's row as it will be
 * after all pending entries says which sequence comes next, so any number of batches may be in
 * flight. The row changes in the same entry as the batch, so the two can't differ. */
#include "server/broker/produce.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"

enum { ROW_VERSION = 1 };

enum err producer_row_read(struct bytes in, struct producer_row *out)
{
	struct rd r = rd_over(in);
	*out = (struct producer_row){0};
	if (rd_u8(&r) != ROW_VERSION)
		return ERR_CORRUPT;
	out->epoch = (int16_t)rd_u16be(&r);
	out->time_ms = (int64_t)rd_u64be(&r);
	out->count = rd_u8(&r);
	if (out->count > PRODUCER_BATCHES)
		return ERR_CORRUPT;
	for (int i = 0; i < out->count; i++) {
		out->batches[i].first = (int32_t)rd_u32be(&r);
		out->batches[i].last = (int32_t)rd_u32be(&r);
		out->batches[i].offset = (int64_t)rd_u64be(&r);
	}
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

size_t producer_row_write(const struct producer_row *r, uint8_t *out)
{
	struct wr w = wr_over(out, PRODUCER_ROW_BYTES + 1);
	wr_u8(&w, ROW_VERSION);
	wr_u16be(&w, (uint16_t)r->epoch);
	wr_u64be(&w, (uint64_t)r->time_ms);
	wr_u8(&w, (uint8_t)r->count);
	for (int i = 0; i < r->count; i++) {
		wr_u32be(&w, (uint32_t)r->batches[i].first);
		wr_u32be(&w, (uint32_t)r->batches[i].last);
		wr_u64be(&w, (uint64_t)r->batches[i].offset);
	}
	must(w.err == OK);
	return wr_len(&w);
}

static int32_t sequence_after(int32_t sequence)
{
	return sequence == INT32_MAX ? 0 : sequence + 1;
}

enum err producer_row_add(struct producer_row *r, int16_t epoch, int32_t first, int32_t last,
	int64_t *offset, bool *duplicate)
{
	*duplicate = false;
	if (r->count > 0 && epoch < r->epoch)
		return ERR_FENCED;
	if (r->count > 0 && epoch > r->epoch) {
		if (first != 0)
			return ERR_SEQUENCE;
		r->count = 0;
	}
	for (int i = 0; i < r->count; i++) {
		if (r->batches[i].first != first || r->batches[i].last != last)
			continue;
		*duplicate = true;
		*offset = r->batches[i].offset;
		return OK;
	}
	if (r->count > 0 && first != sequence_after(r->batches[r->count - 1].last))
		return ERR_SEQUENCE;
	if (r->count == PRODUCER_BATCHES) {
		memmove(r->batches, r->batches + 1, sizeof r->batches - sizeof r->batches[0]);
		r->count--;
	}
	r->epoch = epoch;
	r->batches[r->count].first = first;
	r->batches[r->count].last = last;
	r->batches[r->count].offset = *offset;
	r->count++;
	return OK;
}

/* On the partition's home loop; may run again after ERR_MORE. No args: all is in the batch. */
static enum err evaluate(struct eval *v, struct bytes args)
{
	struct batch b;
	struct producer_row row = {0};
	uint8_t key[8], value[PRODUCER_ROW_BYTES + 1];
	struct bytes found;
	bool duplicate;
	int64_t offset = eval_offset(v);
	if (args.len != 0 || batch_read(eval_batch(v), &b) != OK || b.producer_id < 0)
		return ERR_MALFORMED;
	int32_t last = (int32_t)(((int64_t)b.base_sequence + b.count - 1) & INT32_MAX);
	put_u64be(key, (uint64_t)b.producer_id);
	enum err e = eval_get(v, KEYSPACE_PRODUCER, bytes_of(key, sizeof key), &found);
	if (e == OK)
		e = producer_row_read(found, &row);
	else if (e == ERR_NOTFOUND)
		e = OK;
	if (e == OK)
		e = producer_row_add(
			&row, b.producer_epoch, b.base_sequence, last, &offset, &duplicate);
	if (e != OK)
		return e;
	if (duplicate) {
		eval_duplicate(v, offset);
		return OK;
	}
	row.time_ms = eval_now_ms(v);
	size_t len = producer_row_write(&row, value);
	eval_put(v, KEYSPACE_PRODUCER, bytes_of(key, sizeof key), bytes_of(value, len));
	return OK;
}

const struct proposal_kind produce_kind = {PROPOSAL_PRODUCE, evaluate};

static void on_done(struct proposal *proposal)
{
	struct produce *p = list_entry(proposal, struct produce, proposal);
	p->err = proposal->err;
	p->base_offset = proposal->base_offset;
	p->done(p);
}

/* What a client may send, by the header. */
static enum err check_header(const struct batch *b, bool append_time)
{
	if (b->control || b->transactional || b->count < 1 || b->last_offset_delta != b->count - 1)
		return ERR_INVALID;
	if (b->producer_id >= 0 && (b->producer_epoch < 0 || b->base_sequence < 0))
		return ERR_INVALID;
	if (!append_time && (b->append_time || b->max_ms < -1 || b->base_ms < -1))
		return ERR_RANGE;
	return OK;
}

/* *newest_ms: of the records. The header need not say so: Go's sarama leaves -1 there. */
static enum err check(struct bytes in, const struct stream *to, const struct broker_conf *conf,
	struct batch *b, int64_t *newest_ms)
{
	int64_t max = stream_bytes_max(to, conf);
	if (in.len > (uint64_t)max)
		return ERR_TOOBIG;
	enum err e = batch_read(in, b);
	if (e == ERR_UNSUPPORTED)
		return e;
	if (e != OK)
		return ERR_CORRUPT;
	if (b->all.len != in.len)
		return ERR_INVALID; /* more than one batch */
	e = check_header(b, stream_append_time(to));
	if (e == OK)
		e = batch_check_records(b, BATCH_INFLATED_MAX, newest_ms);
	if (e == OK && !stream_append_time(to) && *newest_ms < -1)
		e = ERR_RANGE;
	/* A key is what says which record is newer than which. */
	if (e == OK && to->compacts && !batch_all_keyed(b, BATCH_INFLATED_MAX))
		e = ERR_INVALID;
	return e == ERR_MALFORMED ? ERR_INVALID : e;
}

enum err produce_start(struct produce *p, struct shard *s, const struct stream *to,
	struct partition *partition, struct bytes batch)
{
	struct batch b;
	struct slice own;
	int64_t newest_ms;
	enum err e = check(batch, to, shard_conf(s), &b, &newest_ms);
	if (e == OK)
		e = slice_copy(batch, &own);
	if (e != OK)
		return e;
	p->append_ms = -1;
	if (stream_append_time(to)) {
		p->append_ms = loop_now_wall_ms(shard_loop(s));
		batch_set_append_time(own.chunk->data, own.bytes.len, p->append_ms);
		b.max_ms = p->append_ms;
	} else if (b.max_ms != newest_ms) {
		batch_set_max_time(own.chunk->data, own.bytes.len, newest_ms);
		b.max_ms = newest_ms;
	}
	p->proposal = (struct proposal){
		.to = partition,
		.batch = own,
		.batch_max_ms = b.max_ms,
		.batch_count = (uint32_t)b.count,
		.kind = b.producer_id >= 0 ? &produce_kind : NULL,
		.leader_only = !p->forward, /* a Kafka client finds the leader itself */
		.repeatable = b.producer_id >= 0,
		.done = on_done,
	};
	partition_propose(&p->proposal);
	return OK;
}
