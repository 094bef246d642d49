/* Reading. A read goes to the home loop, is answered from memory if it can be, else by a worker,
 * and goes back with the outcome; the partition is held meanwhile. Nothing that is not committed
 * is ever given: the high watermark ends every read, and it lies between entries.
 *
 * Waits: the same message goes to the home loop and back, once. A cancellation sends a message of
 * its own, whose way back, behind the wait's, is what ends the wait: so neither side touches
 * memory the other may have freed. */
#include "cluster/partition_priv.h"

enum { READ_ENTRIES_MAX = 4096 };

/* --- rows --- */

struct row_work { /* a row_read that takes longer */
	struct row_read *read;
	struct partition *p;
	struct consensus_barrier barrier;
	struct rows_fetch fetch;
	struct rows_scan scan;
};

static void row_read_home(struct loop_msg *m)
{
	struct row_read *r = list_entry(m, struct row_read, msg);

	r->done(r);
}

static void row_read_end(struct row_read *r, enum err e)
{
	r->err = e;
	r->msg.run = row_read_home;
	loop_post(r->to, &r->msg);
}

static void row_work_end(struct row_work *op, enum err e)
{
	row_read_end(op->read, e);
	partition_unref(op->p);
	mem_free(op);
}

static enum err row_give(struct row_read *r, struct bytes value)
{
	struct chunk *held = chunk_try(r->key.len + value.len + 1);
	struct row *row = mem_try(sizeof *row);

	if (held == NULL || row == NULL) {
		chunk_unref(held);
		mem_free(row);
		return ERR_NOMEM;
	}
	if (r->key.len > 0)
		memcpy(held->data, r->key.at, r->key.len);
	if (value.len > 0)
		memcpy(held->data + r->key.len, value.at, value.len);
	row->key = bytes_of(held->data, r->key.len);
	row->value = bytes_of(held->data + r->key.len, value.len);
	r->held = held;
	r->rows = row;
	r->count = 1;
	return OK;
}

/* One key from memory. ERR_MORE: not there. */
static enum err row_look(struct partition *p, struct row_read *r)
{
	struct bytes value;
	enum err e = rows_get(p->rows, false, r->keyspace, r->key, &value);

	r->at_offset = partition_high_watermark(p);
	return e == OK ? row_give(r, value) : e;
}

static void row_fetched(struct rows_fetch *f, enum err e)
{
	struct row_work *op = list_entry(f, struct row_work, fetch);

	if (e == OK)
		e = row_look(op->p, op->read);
	row_work_end(op, e == ERR_MORE ? ERR_UNAVAILABLE : e);
}

static void row_scanned(struct rows_scan *s)
{
	struct row_work *op = list_entry(s, struct row_work, scan);
	struct row_read *r = op->read;

	r->rows = s->rows;
	r->count = s->count;
	r->held = s->held;
	r->more = s->more;
	row_work_end(op, s->err);
}

static void row_work_run(struct row_work *op)
{
	struct row_read *r = op->read;
	struct partition *p = op->p;

	if (r->prefix) {
		r->at_offset = partition_high_watermark(p);
		op->scan = (struct rows_scan){.keyspace = r->keyspace,
			.prefix = r->key,
			.after = r->after,
			.rows_max = r->rows_max,
			.bytes_max = r->bytes_max,
			.done = row_scanned};
		rows_scan(p->rows, &op->scan);
		return;
	}
	enum err e = row_look(p, r);

	if (e != ERR_MORE) {
		row_work_end(op, e);
		return;
	}
	op->fetch.done = row_fetched;
	rows_fetch(p->rows, r->keyspace, r->key, &op->fetch);
	metric_add(loop_cells(p->loop), &node_metrics, M_ROW_FETCHES, 1);
}

static void row_barrier_done(struct consensus_barrier *b, enum err e)
{
	struct row_work *op = list_entry(b, struct row_work, barrier);

	if (e == OK && op->p->phase != PARTITION_OPEN)
		e = ERR_CLOSED;
	if (e != OK)
		row_work_end(op, e);
	else
		row_work_run(op);
}

static void row_read_arrive(struct loop_msg *m)
{
	struct row_read *r = list_entry(m, struct row_read, msg);
	struct partition *p = r->from;
	enum err e = r->linearizable ? partition_unserved(p) : OK;
	struct row_work *op;

	if (p->phase != PARTITION_OPEN)
		e = ERR_CLOSED;
	else if (e == OK && (r->key.len > UINT16_MAX || r->after.len > UINT16_MAX))
		e = ERR_INVALID;
	if (e == OK && !r->linearizable && !r->prefix) {
		e = row_look(p, r);
		if (e == OK || e == ERR_NOTFOUND) {
			row_read_end(r, e);
			return;
		}
	}
	if (e != OK && e != ERR_MORE) {
		row_read_end(r, e);
		return;
	}
	op = mem_new(sizeof *op);
	op->read = r;
	op->p = partition_ref(p);
	if (!r->linearizable) {
		row_work_run(op);
		return;
	}
	op->barrier.done = row_barrier_done;
	consensus_barrier(p->consensus, &op->barrier);
}

void partition_read_rows(struct row_read *r)
{
	r->to = loop_here();
	must(r->to != NULL);
	r->err = OK;
	r->rows = NULL;
	r->count = 0;
	r->more = false;
	r->held = NULL;
	r->at_offset = 0;
	r->msg.run = row_read_arrive;
	loop_post(r->from->loop, &r->msg);
}

void row_read_fini(struct row_read *r)
{
	mem_free(r->rows);
	chunk_unref(r->held);
	r->rows = NULL;
	r->held = NULL;
	r->count = 0;
}

/* --- records --- */

static void record_read_home(struct loop_msg *m)
{
	struct record_read *r = list_entry(m, struct record_read, msg);

	r->done(r);
}

static void record_read_end(struct record_read *r, enum err e)
{
	struct partition *p = r->from;

	r->err = e;
	r->first_offset = partition_first_offset(p);
	r->high_watermark = partition_high_watermark(p);
	r->msg.run = record_read_home;
	loop_post(r->to, &r->msg);
}

static void record_read_stored(struct plog_read *q)
{
	struct record_read *r = list_entry(q, struct record_read, read);
	struct partition *p = r->from;

	r->entries = q->err == OK ? q->entries : NULL;
	r->count = q->err == OK ? q->count : 0;
	record_read_end(r, q->err);
	partition_unref(p);
}

/* The live tail: from memory, at once. false: it is not all there. */
static bool read_tail(struct partition *p, struct record_read *r, int64_t end)
{
	struct entry *e = plog_cached_at(p->log, r->offset), **more;
	size_t bytes = 0;
	int room = 0;

	if (e == NULL || e->head.base_offset > r->offset || e->head.count == 0)
		return false;
	for (uint64_t index; e != NULL && e->head.base_offset < end;
		e = plog_cached(p->log, index)) {
		index = e->index + 1;
		if (e->head.count == 0)
			continue;
		if (r->count > 0 &&
			(bytes + e->head.payload_bytes > r->bytes_max ||
				r->count == READ_ENTRIES_MAX))
			break;
		if (r->count == room) {
			room = room ? room * 4 : 4;
			more = mem_resize(r->entries, (size_t)room * sizeof *more);
			if (more == NULL)
				break;
			r->entries = more;
		}
		r->entries[r->count++] = entry_ref(e);
		bytes += e->head.payload_bytes;
	}
	return r->count > 0;
}

static void record_read_arrive(struct loop_msg *m)
{
	struct record_read *r = list_entry(m, struct record_read, msg);
	struct partition *p = r->from;
	int64_t end = partition_high_watermark(p);

	if (p->phase != PARTITION_OPEN) {
		record_read_end(r, ERR_CLOSED);
	} else if (r->offset < partition_first_offset(p) || r->offset > end) {
		record_read_end(r, ERR_RANGE);
	} else if (r->offset == end || read_tail(p, r, end)) {
		record_read_end(r, OK);
	} else {
		partition_ref(p);
		r->read = (struct plog_read){.log = p->log,
			.offset = r->offset,
			.end_offset = end,
			.bytes_max = r->bytes_max,
			.done = record_read_stored};
		plog_read(&r->read);
	}
}

void partition_read_records(struct record_read *r)
{
	r->to = loop_here();
	must(r->to != NULL);
	r->err = OK;
	r->entries = NULL;
	r->count = 0;
	r->msg.run = record_read_arrive;
	loop_post(r->from->loop, &r->msg);
}

void record_read_fini(struct record_read *r)
{
	for (int i = 0; i < r->count; i++)
		entry_unref(r->entries[i]);
	mem_free(r->entries);
	r->entries = NULL;
	r->count = 0;
}

/* --- waits --- */

static void wait_home(struct loop_msg *m)
{
	struct partition_wait *w = list_entry(m, struct partition_wait, msg);

	if (w->cancelled)
		return; /* the cancellation is on its way back */
	w->armed = false;
	w->done(w);
}

static void wait_fire(struct partition_wait *w)
{
	list_remove(&w->node);
	w->msg.run = wait_home;
	loop_post(w->to, &w->msg);
}

void reads_fire_waits(struct partition *p, bool all)
{
	int64_t end = partition_high_watermark(p);
	struct list *n, *next;

	for (n = p->waits.next; n != &p->waits; n = next) {
		struct partition_wait *w = list_entry(n, struct partition_wait, node);

		next = n->next;
		if (all || w->offset < end)
			wait_fire(w);
	}
}

static void wait_arrive(struct loop_msg *m)
{
	struct partition_wait *w = list_entry(m, struct partition_wait, msg);
	struct partition *p = w->at;

	if (p->phase != PARTITION_OPEN || partition_high_watermark(p) > w->offset)
		wait_fire(w);
	else
		list_push_back(&p->waits, &w->node);
}

void partition_wait(struct partition_wait *w)
{
	w->to = loop_here();
	must(w->to != NULL);
	must(!w->armed);
	w->armed = true;
	w->cancelled = false;
	list_init(&w->node);
	w->msg.run = wait_arrive;
	loop_post(w->at->loop, &w->msg);
}

struct wait_cancel {
	struct loop_msg msg;
	struct partition_wait *wait;
};

static void cancel_home(struct loop_msg *m)
{
	struct wait_cancel *c = list_entry(m, struct wait_cancel, msg);
	struct partition_wait *w = c->wait;

	mem_free(c);
	w->armed = false;
	w->done(w);
}

static void cancel_arrive(struct loop_msg *m)
{
	struct wait_cancel *c = list_entry(m, struct wait_cancel, msg);

	if (!list_empty(&c->wait->node))
		wait_fire(c->wait);
	c->msg.run = cancel_home;
	loop_post(c->wait->to, &c->msg);
}

void partition_wait_cancel(struct partition_wait *w)
{
	struct wait_cancel *c;

	loop_must_own(w->to);
	if (!w->armed || w->cancelled)
		return;
	w->cancelled = true;
	c = mem_new(sizeof *c);
	c->wait = w;
	c->msg.run = cancel_arrive;
	loop_post(w->at->loop, &c->msg);
}

/* --- seeks --- */

static void seek_home(struct loop_msg *m)
{
	struct offset_seek *s = list_entry(m, struct offset_seek, msg);

	s->done(s);
}

static void seek_end(struct offset_seek *s, enum err e)
{
	s->err = e;
	s->msg.run = seek_home;
	loop_post(s->to, &s->msg);
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
	seek_end(s, s->err);
	partition_unref(p);
}

static void seek_time_found(struct plog_seek *q)
{
	struct offset_seek *s = list_entry(q, struct offset_seek, op.time);
	struct partition *p = s->from;

	if (q->err != OK) {
		seek_end(s, q->err);
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
	seek_end(s, q->err);
	partition_unref(p);
}

static void seek_arrive(struct loop_msg *m)
{
	struct offset_seek *s = list_entry(m, struct offset_seek, msg);
	struct partition *p = s->from;

	if (p->phase != PARTITION_OPEN) {
		seek_end(s, ERR_CLOSED);
		return;
	}
	if (s->by_epoch && s->epoch < 0) {
		seek_end(s, ERR_NOTFOUND);
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

void partition_seek(struct offset_seek *s)
{
	s->to = loop_here();
	must(s->to != NULL);
	s->err = OK;
	s->msg.run = seek_arrive;
	loop_post(s->from->loop, &s->msg);
}
