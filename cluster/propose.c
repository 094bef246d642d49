/* Writing. Proposals gather until the turn's stage for it, and while the lane is busy with the set
 * before: what arrives meanwhile becomes one entry. Each is evaluated in order against rows as they
 * will be after everything before it, and adds its rows and its batch to the entry being made.
 *
 * An answer that changes nothing (a condition does not hold, a duplicate) is a read of pending
 * state and shares the fate of the entry it may have relied on: it is listed with that entry.
 *
 * Pending rows must tell exactly what is in flight. Where that is no longer sure (leadership was
 * lost, an entry was refused) nothing is evaluated until nothing is in flight; then they are
 * dropped. */
#include "cluster/partition_priv.h"
#include "server/base/log.h"
#include "storage/disk.h"

enum {
	ENTRY_BATCH_BYTES = 256 << 10,
	ENTRY_ROW_BYTES = 256 << 10, /* an entry is closed beyond it */
	ROW_BYTES_MAX = 256 << 20,
	PROPOSAL_COST = 256,        /* beside its batch, in flight */
	UNREADY_MS = 3000,          /* how long proposals wait for a leader */
	REPLY_BYTES_MAX = 48 << 20, /* rows that are handed over; fits into a frame of a peer */
};

struct eval {
	struct partition *p;
	struct building *b;
	struct proposal *proposal;
	enum err err; /* of writing */
	bool rows, duplicate, offset_set;
	int64_t offset; /* with either of the last two */
	struct buf reply;
};

/* --- answers --- */

static size_t cost(const struct proposal *q)
{
	return q->batch.bytes.len + PROPOSAL_COST;
}

static void answers_arrive(struct loop_msg *m)
{
	struct proposal *q = list_entry(m, struct proposal, msg), *next;
	struct slice reply;

	for (; q != NULL; q = next) {
		next = q->node.next ? list_entry(q->node.next, struct proposal, node) : NULL;
		reply = q->reply;
		q->done(q);
		slice_unref(&reply);
	}
}

void propose_answers_run(struct loop_hook *hook)
{
	struct partition_home *h = list_entry(hook, struct partition_home, answer_hook);
	struct loops *loops = loop_all(h->loop);

	for (int i = 0; i < loops_count(loops); i++) {
		struct proposal *first = h->answers[i].first;

		h->answers[i].first = h->answers[i].last = NULL;
		if (first == NULL)
			continue;
		first->msg.run = answers_arrive;
		loop_post(loops_at(loops, i), &first->msg);
	}
}

/* q has its outcome: it goes home at the end of the turn, with all others of its loop. */
static void answer(struct partition *p, struct proposal *q)
{
	struct partition_home *h = p->home;
	struct answers *a = &h->answers[loop_index(q->from)];

	slice_unref(&q->batch);
	q->node.next = NULL;
	if (a->last != NULL)
		a->last->node.next = &q->node;
	else
		a->first = q;
	a->last = q;
	loop_hook_want(h->loop, STAGE_DELIVER, &h->answer_hook);
}

static void answer_held(struct partition *p, struct proposal *q)
{
	p->held_bytes -= cost(q);
	answer(p, q);
}

static void answer_all(struct partition *p, struct list *l, enum err e)
{
	struct list *n;

	while ((n = list_pop(l)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);

		if (e != OK) {
			q->err = e;
			slice_unref(&q->reply);
		}
		answer_held(p, q);
	}
}

static void refuse(struct partition *p, struct proposal *q, enum err e)
{
	metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS_REFUSED, 1);
	q->err = e;
	answer(p, q);
}

void propose_fail_all(struct partition *p, enum err e)
{
	if (p->fetching) {
		rows_fetch_cancel(&p->fetch);
		p->fetching = false;
	}
	p->fetch_err = OK;
	p->unready_ms = 0;
	answer_all(p, &p->gathered, e);
}

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
	return b->records == 0 && buf_len(&b->rows) <= CHANGE_HEADER_BYTES;
}

static void building_begin(struct building *b)
{
	change_begin(&b->rows);
	b->part_count = 1;
	b->batch_bytes = 0;
	b->records = 0;
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
	answer_all(p, &pe->proposals, e);
	list_remove(&pe->node);
	list_push_front(&p->home->spare, &pe->node);
	if (!list_empty(&p->gathered))
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

static void move_all(struct list *from, struct list *to)
{
	struct list *n;

	while ((n = list_pop(from)) != NULL)
		list_push_back(to, n);
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
	answer_all(p, &b->proposals, e);
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
	pe = pending_new(p);
	pe->proposal.entry = e;
	pe->proposal.batch_max_ms = b->max_ms;
	move_all(&b->proposals, &pe->proposals);
	err = consensus_propose(p->consensus, &pe->proposal);
	if (err != OK) {
		entry_unref(e);
		p->overlay_stale = true;
		answer_all(p, &pe->proposals, err);
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

/* Nothing was changed: the answer goes with the entry it may have relied on. */
static void answer_read(struct partition *p, struct building *b, struct proposal *q)
{
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
		answer_held(p, q);
	}
}

static enum err admit(struct partition *p, struct proposal *q)
{
	if (p->options.vital || p->env->disk == NULL || trim_asked(q))
		return OK;
	return disk_admit(p->env->disk, cost(q)) ? OK : ERR_NOSPACE;
}

static enum err run_evaluate(struct partition *p, struct eval *v, struct proposal *q)
{
	enum err e = p->fetch_err;

	p->fetch_err = OK;
	if (e == OK)
		e = admit(p, q);
	if (e == OK && q->kind != NULL)
		e = q->kind->evaluate(v, q->args);
	else if (e == OK && q->evaluate != NULL)
		e = q->evaluate(q, v);
	if (p->fetching && e != ERR_MORE) { /* it did without */
		rows_fetch_cancel(&p->fetch);
		p->fetching = false;
	}
	if (e == ERR_MORE)
		must(p->fetching);
	if (e == OK)
		e = v->err != OK ? v->err : v->reply.err;
	return e;
}

/* What evaluation has told becomes the proposal's. */
static void take_outcome(struct eval *v, enum err e)
{
	struct proposal *q = v->proposal;

	q->err = e;
	if (v->offset_set)
		q->base_offset = v->offset;
	if (e == OK && v->duplicate) {
		slice_unref(&q->batch);
		q->batch_count = 0;
	}
	slice_unref(&q->reply);
	q->reply = buf_share(&v->reply);
	buf_fini(&v->reply);
}

/* The first gathered proposal; false: it waits for rows. */
static bool evaluate_one(struct partition *p, struct building *b, struct proposal *q)
{
	struct eval v = {.p = p, .b = b, .proposal = q};
	size_t before = cost(q), mark;
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
	p->held_bytes -= before - cost(q);
	if (e != OK || (!v.rows && (q->batch_count == 0 || q->batch.bytes.len == 0))) {
		answer_read(p, b, q);
		return true;
	}
	q->index = plog_last_index(p->log) + 1;
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

static void evaluate_gathered(struct partition *p)
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
			break; /* fetched comes back */
	}
	if (building_begun(b))
		building_seal(p, b);
}

/* Whether proposals can be evaluated now; if not, someone will want the hook again. */
static bool may_evaluate(struct partition *p)
{
	enum err e = partition_unserved(p);

	if (e == ERR_UNAVAILABLE) {
		if (p->unready_ms == 0)
			p->unready_ms = loop_now_ms(p->loop);
		return false;
	}
	p->unready_ms = 0;
	if (e != OK) {
		propose_fail_all(p, e);
		return false;
	}
	if (p->overlay_stale) {
		if (!list_empty(&p->inflight))
			return false;
		rows_drop_pending(p->rows);
		p->overlay_stale = false;
	}
	return !p->fetching;
}

void propose_turn(struct loop_hook *h)
{
	struct partition *p = list_entry(h, struct partition, hook);

	if (p->phase != PARTITION_OPEN)
		return;
	if (!list_empty(&p->gathered)) {
		if (lane_busy(p->env->lane))
			lane_when_idle(p->env->lane, &p->hook);
		else if (may_evaluate(p))
			evaluate_gathered(p);
	}
	if (partition_write_back_due(p))
		partition_write_back(p);
}

/* Proposals do not wait for ever for a leader. */
void propose_tick(struct partition *p, int64_t now_ms)
{
	if (p->unready_ms != 0 && now_ms - p->unready_ms >= UNREADY_MS &&
		partition_unserved(p) != OK)
		propose_fail_all(p, ERR_UNAVAILABLE);
}

/* --- arrival --- */

static void arrive(struct partition *p, struct proposal *q)
{
	size_t held = p->held_bytes + cost(q);

	metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS, 1);
	if (p->phase != PARTITION_OPEN) {
		refuse(p, q, ERR_CLOSED);
		return;
	}
	if (p->held_bytes > 0 && held > p->home->limits.inflight_bytes_max) {
		refuse(p, q, ERR_BUSY);
		return;
	}
	p->held_bytes = held;
	list_push_back(&p->gathered, &q->node);
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

static void on_arrive(struct loop_msg *m)
{
	struct proposal *q = list_entry(m, struct proposal, msg);

	arrive(q->to, q);
}

void partition_propose(struct proposal *q)
{
	struct loop *here = loop_here();

	must(here != NULL);
	q->from = here;
	q->err = OK;
	q->index = 0;
	q->sent_term = 0;
	q->reply = (struct slice){NULL, {NULL, 0}};
	if (here == q->to->loop) {
		arrive(q->to, q);
		return;
	}
	q->msg.run = on_arrive;
	loop_post(q->to->loop, &q->msg);
}

void propose_init(struct partition *p)
{
	loop_hook_init(&p->hook, propose_turn);
	list_init(&p->gathered);
	list_init(&p->inflight);
	list_init(&p->fetch.node);
}
