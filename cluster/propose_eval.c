/* Evaluation. Each proposal is evaluated in order against rows as they will be after everything
 * before it, and adds its rows and its batch to the entry being made.
 *
 * An answer that changes nothing (a condition does not hold, a duplicate) is a read of pending
 * state and shares the fate of the entry it may have relied on: it is listed with that entry. What
 * its rows deny may have come to be elsewhere, as who was paused or cut off may lead no more: with
 * other replicas a denial needs an entry that is proposed after it, one without content if there is
 * no other. One that was in flight before may be committed although another leads since.
 *
 * A batch that is in an entry stays at hand until the outcome is known (a share): should the entry
 * be lost with leadership, a proposal that may be repeated is evaluated again. */
#include "cluster/partition_priv.h"
#include "storage/disk.h"

enum {
	ENTRY_BATCH_BYTES = 256 << 10,
	ENTRY_ROW_BYTES = 256 << 10, /* an entry is closed beyond it */
	ROW_BYTES_MAX = 256 << 20,
	REPLY_BYTES_MAX = 48 << 20, /* rows that are handed over; fits into a frame of a peer */
};

struct eval {
	struct partition *p;
	struct building *b;
	struct proposal *proposal;
	enum err err; /* of writing */
	bool rows, duplicate, offset_set;
	bool settles;   /* waits for what was decided before */
	int64_t offset; /* with either of the last two */
	struct buf reply;
};

/* --- the entry being made --- */

void building_init(struct building *b)
{
	*b = (struct building){.max_ms = -1};
	buf_init(&b->rows, ROW_BYTES_MAX);
	list_init(&b->proposals);
}

void building_fini(struct building *b)
{
	buf_fini(&b->rows);
	mem_free(b->parts);
}

static bool building_begun(const struct building *b)
{
	return buf_len(&b->rows) > 0;
}

static bool building_empty(const struct building *b)
{
	return b->records == 0 && buf_len(&b->rows) <= CHANGE_HEADER_BYTES && !b->confirms;
}

static void building_begin(struct building *b)
{
	change_begin(&b->rows);
	b->part_count = 1;
	b->batch_bytes = 0;
	b->records = 0;
	b->confirms = false;
	b->max_ms = -1;
}

static void building_add_batch(struct building *b, struct proposal *q)
{
	if (b->part_count + 1 >= b->part_room) {
		b->part_room = b->part_room ? b->part_room * 2 : 64;
		b->parts = mem_resize(b->parts, b->part_room * sizeof *b->parts);
		must(b->parts != NULL);
	}
	b->parts[b->part_count++] = q->batch;
	b->batch_bytes += q->batch.bytes.len;
	b->records += q->batch_count;
	if (q->batch_max_ms > b->max_ms)
		b->max_ms = q->batch_max_ms;
	q->kept = slice_ref(q->batch);
	q->batch = (struct slice){NULL, {NULL, 0}};
}

static int64_t hlc_now(struct partition_home *h)
{
	int64_t now = loop_now_wall_ms(h->loop) << 16;

	h->hlc = now > h->hlc ? now : h->hlc + 1;
	return h->hlc;
}

static void entry_finished(struct consensus_proposal *cp, enum err e)
{
	struct pending_entry *pe = list_entry(cp, struct pending_entry, proposal);
	struct partition *p = pe->partition;

	if (e != OK)
		p->overlay_stale = true;
	if (e == OK)
		propose_answer_all(p, &pe->proposals, OK);
	else
		propose_lost(p, &pe->proposals, e);
	list_remove(&pe->node);
	list_push_front(&p->home->spare, &pe->node);
	if (!list_empty(&p->gathered) || !list_empty(&p->again))
		loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

static struct pending_entry *pending_new(struct partition *p)
{
	struct list *n = list_pop(&p->home->spare);
	struct pending_entry *pe = n ? list_entry(n, struct pending_entry, node)
				     : mem_new(sizeof *pe);

	list_init(&pe->node);
	list_init(&pe->proposals);
	pe->partition = p;
	pe->proposal.done = entry_finished;
	return pe;
}

static struct entry *building_entry(struct partition *p, struct building *b)
{
	bool rows = buf_len(&b->rows) > CHANGE_HEADER_BYTES;
	struct entry *e;

	if (b->parts == NULL)
		b->parts = mem_new((b->part_room = 64) * sizeof *b->parts);
	b->parts[0] = change_end(&b->rows);
	if (b->parts[0].chunk == NULL)
		return NULL;
	e = entry_new(b->parts, b->part_count);
	e->head.count = b->records;
	e->head.flags = rows ? ENTRY_HAS_ROWS : 0;
	e->head.hlc = hlc_now(p->home);
	return e;
}

static void building_abandon(struct partition *p, struct building *b, enum err e)
{
	for (uint32_t i = 1; i < b->part_count; i++)
		slice_unref(&b->parts[i]);
	b->part_count = 0;
	p->overlay_stale = true;
	propose_answer_all(p, &b->proposals, e);
}

static void count_entry(struct partition *p, const struct building *b, const struct entry *e)
{
	struct metric_cells *cells = loop_cells(p->loop);

	metric_add(cells, &node_metrics, M_ENTRIES, 1);
	metric_add(cells, &node_metrics, M_BATCH_BYTES, (int64_t)b->batch_bytes);
	metric_add(cells, &node_metrics, M_RECORDS, e->head.count);
}

/* The entry being made leaves for the log. */
static void building_seal(struct partition *p, struct building *b)
{
	struct pending_entry *pe;
	struct entry *e;
	enum err err;

	if (building_empty(b)) { /* begun for a proposal that changed nothing */
		buf_clear(&b->rows);
		must(list_empty(&b->proposals));
		return;
	}
	e = building_entry(p, b);
	if (e == NULL) {
		building_abandon(p, b, ERR_NOMEM);
		return;
	}
	b->part_count = 0; /* the entry has the parts */
	b->records = 0;
	b->confirms = false;
	pe = pending_new(p);
	pe->proposal.entry = e;
	pe->proposal.batch_max_ms = b->max_ms;
	list_move_all(&b->proposals, &pe->proposals);
	err = consensus_propose(p->consensus, &pe->proposal);
	if (err != OK) {
		entry_unref(e);
		p->overlay_stale = true;
		if (err == ERR_NOTLEADER)
			propose_unproposed(p, &pe->proposals);
		else
			propose_answer_all(p, &pe->proposals, err);
		list_push_front(&p->home->spare, &pe->node);
		return;
	}
	pe->index = plog_last_index(p->log);
	list_push_back(&p->inflight, &pe->node);
	count_entry(p, b, e);
}

/* --- evaluation --- */

int64_t eval_offset(const struct eval *v)
{
	return plog_next_offset(v->p->log) + v->b->records;
}
int64_t eval_now_ms(const struct eval *v)
{
	return loop_now_wall_ms(v->p->loop);
}
uint64_t eval_index(const struct eval *v)
{
	return plog_last_index(v->p->log) + 1;
}
struct partition *eval_partition(const struct eval *v)
{
	return v->p;
}
struct bytes eval_batch(const struct eval *v)
{
	return v->proposal->batch.bytes;
}
struct buf *eval_reply(struct eval *v)
{
	return &v->reply;
}

void eval_answer_offset(struct eval *v, int64_t offset)
{
	v->offset_set = true;
	v->offset = offset;
}

void eval_duplicate(struct eval *v, int64_t offset)
{
	v->duplicate = true;
	eval_answer_offset(v, offset);
}

static void fetched(struct rows_fetch *f, enum err e)
{
	struct partition *p = list_entry(f, struct partition, fetch);

	p->fetching = false;
	p->fetch_err = e;
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

enum err eval_get(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes *out)
{
	struct partition *p = v->p;
	enum err e = rows_get(p->rows, true, keyspace, key, out);

	if (e != ERR_MORE || p->fetching)
		return e;
	p->fetching = true;
	p->fetch.done = fetched;
	rows_fetch(p->rows, keyspace, key, &p->fetch);
	metric_add(loop_cells(p->loop), &node_metrics, M_ROW_FETCHES, 1);
	return ERR_MORE;
}

/* Whatever was decided before is in an entry that is in flight, or in the one being made, which
 * leaves when nothing more is evaluated: entry_finished comes back. */
enum err eval_settle(struct eval *v)
{
	must(!v->rows);
	v->settles = !list_empty(&v->p->inflight) || !building_empty(v->b);
	return v->settles ? ERR_MORE : OK;
}

static void eval_write(struct eval *v, const struct row_change *row)
{
	enum err e = row->keyspace == KEYSPACE_OWN ? OK : rows_stage(v->p->rows, row);

	change_add_row(&v->b->rows, row);
	v->rows = true;
	if (v->err == OK)
		v->err = e != OK ? e : v->b->rows.err;
}

void eval_put(struct eval *v, uint8_t keyspace, struct bytes key, struct bytes value)
{
	must(keyspace != KEYSPACE_OWN);
	eval_write(v, &(struct row_change){ROW_PUT, keyspace, key, value});
}

void eval_put_own(struct eval *v, struct bytes key, struct bytes value)
{
	eval_write(v, &(struct row_change){ROW_PUT, KEYSPACE_OWN, key, value});
}

void eval_delete(struct eval *v, uint8_t keyspace, struct bytes key)
{
	must(keyspace != KEYSPACE_OWN);
	eval_write(v, &(struct row_change){ROW_DELETE, keyspace, key, bytes_of(NULL, 0)});
}

/* Whether the answer is true whoever leads by now: it tells of what is committed, or of the
 * proposal or this node alone. */
static bool answer_is_sure(const struct partition *p, enum err e, bool duplicate)
{
	if (p->options.peers == NULL || consensus_peers(p->consensus, NULL, 0) <= 1)
		return true;
	return (e == OK && duplicate) || e == ERR_NOSPACE || e == ERR_NOMEM || e == ERR_TOOBIG ||
		e == ERR_MALFORMED || e == ERR_IO || e == ERR_CORRUPT;
}

/* Nothing was changed: the answer goes with the entry it may have relied on, or confirms it. */
static void answer_read(struct partition *p, struct building *b, struct proposal *q, bool sure)
{
	b->confirms = b->confirms || !sure;
	if (!building_empty(b)) {
		q->index = plog_last_index(p->log) + 1;
		list_push_back(&b->proposals, &q->node);
	} else if (!list_empty(&p->inflight)) {
		struct pending_entry *last = list_entry(
			p->inflight.prev, struct pending_entry, node);

		q->index = last->index;
		list_push_back(&last->proposals, &q->node);
	} else {
		q->index = p->applied_index;
		propose_answer(p, q);
	}
}

static enum err admit(struct partition *p, struct proposal *q)
{
	if (p->options.vital || p->env->disk == NULL || trim_asked(q))
		return OK;
	return disk_admit(p->env->disk, propose_cost(q)) ? OK : ERR_NOSPACE;
}

static enum err run_evaluate(struct partition *p, struct eval *v, struct proposal *q)
{
	enum err e = p->fetch_err;

	p->fetch_err = OK;
	if (e == OK)
		e = admit(p, q);
	if (e == OK && q->kind != NULL)
		e = q->kind->evaluate(v, q->args);
	if (p->fetching && e != ERR_MORE) { /* it did without */
		rows_fetch_cancel(&p->fetch);
		p->fetching = false;
	}
	if (e == ERR_MORE)
		must(p->fetching || v->settles);
	if (e == OK)
		e = v->err != OK ? v->err : v->reply.err;
	return e;
}

/* What evaluation has told becomes the proposal's. */
static void take_outcome(struct eval *v, enum err e)
{
	struct proposal *q = v->proposal;

	q->err = e;
	q->wrote = false;
	if (v->offset_set)
		q->base_offset = v->offset;
	if (e == OK && v->duplicate) { /* kept: what it relied on may be lost */
		q->kept = q->batch;
		q->batch = (struct slice){NULL, {NULL, 0}};
	}
	slice_unref(&q->reply);
	q->reply = buf_share(&v->reply);
	buf_fini(&v->reply);
}

/* The first gathered proposal; false: it waits for rows, or for those before it. */
static bool evaluate_one(struct partition *p, struct building *b, struct proposal *q)
{
	struct eval v = {.p = p, .b = b, .proposal = q};
	size_t before = propose_cost(q), mark;
	uint8_t *at;
	enum err e;

	if (!building_begun(b))
		building_begin(b);
	mark = b->rows.end - b->rows.start;
	buf_init(&v.reply, REPLY_BYTES_MAX);
	e = run_evaluate(p, &v, q);
	if (e != OK) {
		rows_stage_drop(p->rows);
		b->rows.end = b->rows.start + mark;
		b->rows.err = OK;
	}
	if (e == ERR_MORE) {
		buf_fini(&v.reply);
		return false;
	}
	take_outcome(&v, e);
	list_remove(&q->node);
	p->held_bytes -= before - propose_cost(q);
	if (e != OK || (!v.rows && (q->batch_count == 0 || q->batch.bytes.len == 0))) {
		answer_read(p, b, q, answer_is_sure(p, e, v.duplicate));
		return true;
	}
	q->wrote = true;
	q->index = plog_last_index(p->log) + 1;
	p->overlay_term = p->term;
	rows_stage_keep(p->rows, q->index);
	if (q->batch_count > 0 && q->batch.bytes.len > 0) {
		size_t paid = q->batch.bytes.len;

		q->base_offset = eval_offset(&v);
		at = q->batch.chunk->data + (q->batch.bytes.at - q->batch.chunk->data);
		batch_set_offset(at, q->base_offset, (int32_t)p->term);
		building_add_batch(b, q);
		p->held_bytes -= paid; /* of the proposal; the entry's are Raft's to count */
	}
	list_push_back(&b->proposals, &q->node);
	return true;
}

static bool full(const struct building *b, const struct proposal *q)
{
	if (!building_begun(b))
		return false;
	if (b->records > 0 && b->batch_bytes + q->batch.bytes.len > ENTRY_BATCH_BYTES)
		return true;
	return buf_len(&b->rows) > ENTRY_ROW_BYTES;
}

void evaluate_gathered(struct partition *p)
{
	struct building *b = &p->home->building;
	size_t inflight_max = p->home->limits.inflight_bytes_max;

	while (!list_empty(&p->gathered) && !p->overlay_stale) {
		struct proposal *q = list_entry(p->gathered.next, struct proposal, node);

		if (full(b, q))
			building_seal(p, b);
		if (p->overlay_stale || consensus_inflight(p->consensus) >= inflight_max)
			break; /* entry_finished comes back */
		if (!evaluate_one(p, b, q))
			break; /* fetched or entry_finished comes back */
	}
	if (building_begun(b))
		building_seal(p, b);
}
