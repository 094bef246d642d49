/* Reading. A read goes to the home loop, is answered from memory if it can be, else by a worker,
 * and goes back with the outcome; the partition is held meanwhile. Nothing that is not committed
 * is ever given: the high watermark ends every read, and it lies between entries.
 *
 * What cannot be answered here goes to the node that leads (remote_read.c): rows as of now, and
 * everything where there is no replica, or one that has not got as far yet.
 *
 * Waits: the same message goes to the home loop and back, once. A cancellation sends a message of
 * its own, whose way back, behind the wait's, is what ends the wait: so neither side touches
 * memory the other may have freed. */
#include "cluster/remote.h"

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

void reads_rows_end(struct row_read *r, enum err e)
{
	r->err = e;
	r->msg.run = row_read_home;
	loop_post(r->to, &r->msg);
}

static void row_work_end(struct row_work *op, enum err e)
{
	reads_rows_end(op->read, e);
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

/* Who leads has lost that meanwhile, or is handing it over: whoever does then is asked. */
static void row_barrier_done(struct consensus_barrier *b, enum err e)
{
	struct row_work *op = list_entry(b, struct row_work, barrier);
	struct row_read *r = op->read;
	struct partition *p = op->p;

	if (e == OK && partition_local(p)) {
		row_work_run(op);
		return;
	}
	mem_free(op);
	if (p->phase != PARTITION_OPEN)
		reads_rows_end(r, ERR_CLOSED);
	else
		remote_rows_later(r);
	partition_unref(p);
}

static void row_work_start(struct partition *p, struct row_read *r)
{
	struct row_work *op = mem_new(sizeof *op);

	op->read = r;
	op->p = partition_ref(p);
	if (!r->linearizable) {
		row_work_run(op);
		return;
	}
	op->barrier.done = row_barrier_done;
	consensus_barrier(p->consensus, &op->barrier);
}

/* They are older than what was told here of the log, as those of a replica that has just come are:
 * who reads on in the log from there would never see what lies between. */
static bool rows_are_old(const struct partition *p)
{
	return p->applied_offset < partition_high_watermark(p) && partition_unserved(p) != OK;
}

void reads_rows(struct row_read *r)
{
	struct partition *p = r->from;
	enum err e;

	if (p->phase != PARTITION_OPEN) {
		reads_rows_end(r, ERR_CLOSED);
		return;
	}
	if (r->key.len > UINT16_MAX || r->after.len > UINT16_MAX) {
		reads_rows_end(r, ERR_INVALID);
		return;
	}
	if (r->linearizable ? partition_unserved(p) != OK
			    : !partition_local(p) || rows_are_old(p)) {
		remote_rows(r);
		return;
	}
	if (!r->linearizable && !r->prefix) {
		e = row_look(p, r);
		if (e != ERR_MORE) {
			reads_rows_end(r, e);
			return;
		}
	}
	row_work_start(p, r);
}

static void row_read_arrive(struct loop_msg *m)
{
	reads_rows(list_entry(m, struct row_read, msg));
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
	r->guest = false;
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

void reads_records_end(struct record_read *r, enum err e)
{
	struct partition *p = r->from;

	r->err = e;
	if (p->consensus != NULL) { /* else the leader has said */
		r->first_offset = partition_first_offset(p);
		r->high_watermark = partition_high_watermark(p);
	}
	r->msg.run = record_read_home;
	loop_post(r->to, &r->msg);
}

static void record_read_stored(struct plog_read *q)
{
	struct record_read *r = list_entry(q, struct record_read, read);
	struct partition *p = r->from;

	r->entries = q->err == OK ? q->entries : NULL;
	r->count = q->err == OK ? q->count : 0;
	if (q->err == ERR_CLOSED && p->phase == PARTITION_OPEN)
		remote_records(r); /* only its replica has gone */
	else
		reads_records_end(r, q->err);
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

struct beyond { /* a read above the end of a log that is led here */
	struct consensus_barrier barrier;
	struct record_read *read;
	struct partition *p;
};

static void beyond_confirmed(struct consensus_barrier *b, enum err e)
{
	struct beyond *op = list_entry(b, struct beyond, barrier);
	struct record_read *r = op->read;
	struct partition *p = op->p;

	mem_free(op);
	if (p->phase != PARTITION_OPEN)
		reads_records_end(r, ERR_CLOSED);
	else if (e != OK || !partition_local(p))
		remote_records_later(r);
	else if (r->offset > p->applied_offset)
		reads_records_end(r, ERR_RANGE);
	else
		reads_records(r);
	partition_unref(p);
}

/* Who has stood still may take itself for the leader and not know what others have committed since:
 * a reader that was told of records that are there that they are not would begin anew. */
static void read_beyond(struct record_read *r)
{
	struct beyond *op = mem_new(sizeof *op);

	op->read = r;
	op->p = partition_ref(r->from);
	op->barrier.done = beyond_confirmed;
	consensus_barrier(op->p->consensus, &op->barrier);
}

void reads_records(struct record_read *r)
{
	struct partition *p = r->from;
	int64_t end = p->applied_offset; /* the high watermark may be ahead: others have told */

	if (p->phase != PARTITION_OPEN) {
		reads_records_end(r, ERR_CLOSED);
	} else if (!partition_local(p) || (r->offset > end && !partition_leads(p))) {
		remote_records(r);
	} else if (r->offset > end) {
		read_beyond(r);
	} else if (r->offset < partition_first_offset(p)) {
		reads_records_end(r, ERR_RANGE);
	} else if (r->offset == end || read_tail(p, r, end)) {
		reads_records_end(r, OK);
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

static void record_read_arrive(struct loop_msg *m)
{
	reads_records(list_entry(m, struct record_read, msg));
}

void partition_read_records(struct record_read *r)
{
	r->to = loop_here();
	must(r->to != NULL);
	r->err = OK;
	r->guest = false;
	r->first_offset = r->high_watermark = 0;
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
	if (list_empty(&p->waits) && p->following != NULL)
		remote_follow_changed(p);
}

static void wait_arrive(struct loop_msg *m)
{
	struct partition_wait *w = list_entry(m, struct partition_wait, msg);
	struct partition *p = w->at;

	if (p->phase != PARTITION_OPEN || partition_high_watermark(p) > w->offset)
		wait_fire(w);
	else
		list_push_back(&p->waits, &w->node);
	if (p->consensus == NULL)
		remote_follow_changed(p);
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
