/* Compaction of a partition: each replica looks now and then whether its own log is due and begins
 * a run when it is its turn on the disk. What may be touched is below all that Raft may still send
 * (peers get what the leader wrote) and below the mark of the rows, as for trims. Nothing of it is
 * replicated: replicas differ in what they still have of records that newer ones have replaced. */
#include "cluster/partition_priv.h"

enum {
	COMPACT_EVERY_MS = 1000,
	COMPACT_AGAIN_MS = 5000 /* when headers have told that it was not due, or it failed */
};

static void waiting(struct partition *p, bool yes)
{
	struct partition_home *h = p->home;

	if (p->compact_waiting == yes)
		return;
	p->compact_waiting = yes;
	h->compact_waiting += yes ? 1 : -1;
	storage_gauge(loop_cells(h->loop), M_COMPACT_WAITING, h->compact_waiting);
}

static uint64_t limit_of(const struct partition *p)
{
	uint64_t keep = consensus_keep_index(p->consensus);

	return keep <= p->marked_index + 1 ? keep : p->marked_index + 1;
}

static void compact_done(struct compaction *c)
{
	struct partition *p = list_entry(c, struct partition, compaction);
	void (*then)(void *arg) = p->compact_then;

	p->compacting = false;
	p->compact_at_ms = loop_now_ms(p->loop) +
		(c->err == OK && c->ran ? COMPACT_EVERY_MS : COMPACT_AGAIN_MS);
	if (p->log != NULL && !partition_stateless(p))
		atomic_store_explicit(&p->bytes, plog_bytes(p->log), memory_order_relaxed);
	p->compact_then = NULL;
	if (then != NULL)
		then(p);
	partition_unref(p);
}

static void compact_begin(struct partition *p, uint64_t limit)
{
	p->compaction.log = p->log;
	p->compaction.policy = p->compact_policy;
	p->compaction.limit_index = limit;
	p->compaction.done = compact_done;
	p->compacting = compaction_start(&p->compaction);
	waiting(p, !p->compacting);
	if (p->compacting)
		partition_ref(p);
}

void compact_tick(struct partition *p, int64_t now_ms)
{
	uint64_t limit;

	if (!p->compacts || p->compacting || now_ms < p->compact_at_ms)
		return;
	p->compact_at_ms = now_ms + COMPACT_EVERY_MS;
	limit = limit_of(p);
	if (compaction_due(p->log, &p->compact_policy, limit, loop_now_wall_ms(p->loop)))
		compact_begin(p, limit);
	else
		waiting(p, false);
}

void compact_when_idle(struct partition *p, void (*then)(void *arg))
{
	waiting(p, false);
	if (!p->compacting) {
		then(p);
		return;
	}
	p->compact_then = then;
	compaction_cancel(&p->compaction);
}

void partition_set_compaction(struct partition *p, const struct compact_policy *policy)
{
	loop_must_own(p->loop);
	p->compacts = policy != NULL;
	if (policy != NULL)
		p->compact_policy = *policy;
	else
		waiting(p, false);
}
