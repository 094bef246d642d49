/* Forgetting. A trim is an order in the log: a row of the partition's own keyspace that every
 * replica obeys when it applies it; nothing is stored for it but the log's own mark. Who leads
 * looks now and then whether retention allows records to go, and proposes that.
 *
 * Logs that hold rows only (the catalogue, the tables) have no records to keep: what is written
 * back is what the store has of them, so each replica drops such entries by itself. */
#include "cluster/partition_priv.h"

enum {
	RETAIN_EVERY_MS = 30000,
	RETAIN_SOON_MS = 1000, /* when over its bytes */
};

static const char trim_key[] = "trim";

static enum err trim_evaluate(struct eval *v, struct bytes args)
{
	const struct partition *p = eval_partition(v);
	int64_t first = partition_first_offset(p), end = partition_high_watermark(p), offset;
	uint8_t value[8];

	if (args.len != sizeof value)
		return ERR_MALFORMED;
	offset = (int64_t)get_u64be(args.at);
	if (offset < 0)
		offset = end;
	if (offset > end)
		return ERR_RANGE;
	eval_answer_offset(v, offset > first ? offset : first);
	if (offset <= first)
		return OK;
	put_u64be(value, (uint64_t)offset);
	eval_put_own(v, bytes_text(trim_key), bytes_of(value, sizeof value));
	return OK;
}

const struct proposal_kind trim_kind = {PROPOSAL_TRIM, trim_evaluate};

bool trim_asked(const struct proposal *q)
{
	return q->kind == &trim_kind;
}

void partition_trim(struct proposal *q, int64_t offset)
{
	q->batch = (struct slice){NULL, {NULL, 0}};
	q->batch_count = 0;
	q->batch_max_ms = -1;
	put_u64be(q->trim_args, (uint64_t)offset);
	q->kind = &trim_kind;
	q->args = bytes_of(q->trim_args, sizeof q->trim_args);
	q->repeatable = true;
	q->leader_only = false;
	partition_propose(q);
}

static void trim_log(struct partition *p, int64_t offset)
{
	uint64_t keep = p->consensus != NULL ? consensus_keep_index(p->consensus) : 0;

	/* Entries that only have rows go when the store has the rows for good. */
	plog_trim(p->log, offset, keep <= p->marked_index + 1 ? keep : p->marked_index + 1);
	atomic_store_explicit(
		&p->first_offset, plog_marks(p->log)->first_offset, memory_order_release);
	atomic_store_explicit(&p->bytes, plog_bytes(p->log), memory_order_relaxed);
}

void trim_apply(struct partition *p, const struct row_change *row)
{
	if (row->op != ROW_PUT || row->value.len != 8 || row->key.len != sizeof trim_key - 1 ||
		memcmp(row->key.at, trim_key, row->key.len) != 0)
		return; /* of a later version */
	trim_log(p, (int64_t)get_u64be(row->value.at));
	metric_add(loop_cells(p->loop), &node_metrics, M_TRIMS, 1);
}

/* --- retention --- */

static void trim_proposed(struct proposal *q)
{
	struct partition *p = list_entry(q, struct partition, trim);

	p->retaining = false;
	partition_unref(p);
}

static void retain_done(struct plog_retain *q)
{
	struct partition *p = list_entry(q, struct partition, retain);

	if (q->err != OK || p->phase != PARTITION_OPEN || !partition_leads(p) ||
		q->keep_offset <= partition_first_offset(p)) {
		p->retaining = false;
		partition_unref(p);
		return;
	}
	p->trim.to = p;
	p->trim.done = trim_proposed;
	partition_trim(&p->trim, q->keep_offset);
}

static void retain(struct partition *p)
{
	p->retain_at_ms = loop_now_ms(p->loop) + RETAIN_EVERY_MS;
	if (p->retaining || !partition_leads(p))
		return;
	p->retaining = true;
	partition_ref(p);
	p->retain = (struct plog_retain){.log = p->log,
		.before_ms = p->retention_ms < 0 ? -1 : loop_now_wall_ms(p->loop) - p->retention_ms,
		.bytes_max = p->retention_bytes,
		.end_offset = partition_high_watermark(p),
		.done = retain_done};
	plog_retain(&p->retain);
}

void trim_tick(struct partition *p, int64_t now_ms)
{
	if (now_ms < p->retain_at_ms)
		return;
	p->retain_at_ms = now_ms + RETAIN_EVERY_MS;
	trim_log(p, partition_first_offset(p)); /* what Raft has let go of meanwhile */
	if (p->retention_ms >= 0 || p->retention_bytes >= 0)
		retain(p);
}

/* Over its bytes by some: looked at sooner than in turn. */
void trim_grown(struct partition *p)
{
	int64_t soon = loop_now_ms(p->loop) + RETAIN_SOON_MS;

	if (p->retention_bytes >= 0 && p->retain_at_ms > soon &&
		plog_bytes(p->log) > p->retention_bytes + p->retention_bytes / 16)
		p->retain_at_ms = soon;
}

void partition_set_retention(struct partition *p, int64_t ms, int64_t bytes)
{
	loop_must_own(p->loop);
	if (ms == p->retention_ms && bytes == p->retention_bytes)
		return;
	p->retention_ms = ms;
	p->retention_bytes = bytes;
	p->retain_at_ms = loop_now_ms(p->loop) + (ms == 0 || bytes == 0 ? 0 : RETAIN_SOON_MS);
}
