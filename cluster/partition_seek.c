/* Seeks: the log finds the entry, a worker the record in it, for batches may be compressed. Without
 * a replica here the leader is asked. That there is no record so young is said by a leader only
 * when a majority has been heard lately, or confirms it: the reader would begin behind records it
 * has not seen. */
#include "cluster/remote.h"

static void seek_home(struct loop_msg *m)
{
	struct offset_seek *s = list_entry(m, struct offset_seek, msg);

	s->done(s);
}

void reads_seek_end(struct offset_seek *s, enum err e)
{
	s->err = e;
	s->msg.run = seek_home;
	loop_post(s->to, &s->msg);
}

struct seek_none { /* nothing found in a log that is led here */
	struct consensus_barrier barrier;
	struct offset_seek *seek;
	int64_t end; /* looked at up to there */
};

static void none_confirmed(struct consensus_barrier *b, enum err e)
{
	struct seek_none *op = list_entry(b, struct seek_none, barrier);
	struct offset_seek *s = op->seek;
	struct partition *p = s->from;
	int64_t end = op->end;

	mem_free(op);
	if (p->phase != PARTITION_OPEN)
		reads_seek_end(s, ERR_CLOSED);
	else if (e != OK)
		remote_seek_later(s);
	else if (partition_high_watermark(p) > end)
		reads_seek(s);
	else
		reads_seek_end(s, ERR_NOTFOUND);
	partition_unref(p);
}

/* Takes the caller's share of the partition. */
static void seek_none(struct offset_seek *s, int64_t end)
{
	struct partition *p = s->from;
	struct seek_none *op;

	if (!partition_local(p) || !partition_leads(p) || consensus_unrivalled(p->consensus)) {
		reads_seek_end(s, ERR_NOTFOUND);
		partition_unref(p);
		return;
	}
	op = mem_new(sizeof *op);
	op->seek = s;
	op->end = end;
	op->barrier.done = none_confirmed;
	consensus_barrier(p->consensus, &op->barrier);
}

/* The first record of the batch that is not older; ERR_NOTFOUND: all are. */
static enum err seek_batch(struct offset_seek *s, const struct batch *b, int64_t first)
{
	struct batch_walk w;
	struct record r;
	enum err e;

	if (b->max_ms < s->time_ms)
		return ERR_NOTFOUND;
	e = batch_walk_init(&w, b, BATCH_INFLATED_MAX);
	if (e != OK)
		return e;
	while ((e = batch_walk_next(&w, &r)) == OK) {
		if (r.timestamp_ms < s->time_ms || b->base_offset + r.offset_delta < first)
			continue;
		s->offset = b->base_offset + r.offset_delta;
		s->timestamp_ms = r.timestamp_ms;
		s->found_epoch = b->leader_epoch;
		break;
	}
	batch_walk_fini(&w);
	return e;
}

/* A worker: batches may be compressed. */
static void seek_work(struct job *j)
{
	struct offset_seek *s = list_entry(j, struct offset_seek, op.time.job);
	struct change_batches w;
	struct batch b;
	const struct slice *holder;
	enum err e;

	change_batches_init(&w, s->op.time.entry);
	while ((e = change_batches_next(&w, &b, &holder)) == OK) {
		e = seek_batch(s, &b, partition_first_offset(s->from));
		if (e != ERR_NOTFOUND)
			break;
	}
	s->err = e;
}

static void seek_work_done(struct job *j)
{
	struct offset_seek *s = list_entry(j, struct offset_seek, op.time.job);
	struct partition *p = s->from;
	struct entry *e = s->op.time.entry;

	if (s->err == ERR_NOTFOUND && entry_next_offset(&e->head) < partition_high_watermark(p)) {
		/* Trimmed within the entry: what comes first now is the one behind it. */
		s->offset = entry_next_offset(&e->head);
		s->timestamp_ms = s->time_ms;
		s->found_epoch = (int32_t)e->head.term;
		s->err = OK;
	}
	entry_unref(e);
	if (s->err == ERR_NOTFOUND) {
		seek_none(s, s->op.time.end_offset);
		return;
	}
	reads_seek_end(s, s->err);
	partition_unref(p);
}

static void seek_time_found(struct plog_seek *q)
{
	struct offset_seek *s = list_entry(q, struct offset_seek, op.time);
	struct partition *p = s->from;

	if (q->err == ERR_NOTFOUND) {
		seek_none(s, q->end_offset);
		return;
	}
	if (q->err != OK) {
		reads_seek_end(s, q->err);
		partition_unref(p);
		return;
	}
	q->job.home = p->loop;
	q->job.work = seek_work;
	q->job.done = seek_work_done;
	worker_run(p->env->workers, &q->job);
}

static void seek_epoch_found(struct plog_epoch *q)
{
	struct offset_seek *s = list_entry(q, struct offset_seek, op.epoch);
	struct partition *p = s->from;
	int64_t high = partition_high_watermark(p);

	s->found_epoch = (int32_t)q->found_term;
	s->offset = q->end_offset < high ? q->end_offset : high;
	s->timestamp_ms = -1;
	reads_seek_end(s, q->err);
	partition_unref(p);
}

void reads_seek(struct offset_seek *s)
{
	struct partition *p = s->from;

	if (p->phase != PARTITION_OPEN) {
		reads_seek_end(s, ERR_CLOSED);
		return;
	}
	if (!partition_local(p)) {
		remote_seek(s);
		return;
	}
	if (s->by_epoch && s->epoch < 0) {
		reads_seek_end(s, ERR_NOTFOUND);
		return;
	}
	partition_ref(p);
	if (s->by_epoch) {
		s->op.epoch = (struct plog_epoch){
			.log = p->log, .term = (uint64_t)s->epoch, .done = seek_epoch_found};
		plog_epoch(&s->op.epoch);
		return;
	}
	s->op.time = (struct plog_seek){.log = p->log,
		.time_ms = s->time_ms,
		.end_offset = partition_high_watermark(p),
		.done = seek_time_found};
	plog_seek(&s->op.time);
}

static void seek_arrive(struct loop_msg *m)
{
	reads_seek(list_entry(m, struct offset_seek, msg));
}

void partition_seek(struct offset_seek *s)
{
	s->to = loop_here();
	must(s->to != NULL);
	s->err = OK;
	s->guest = false;
	s->msg.run = seek_arrive;
	loop_post(s->from->loop, &s->msg);
}
