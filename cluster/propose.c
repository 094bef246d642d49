/* Writing. Proposals gather until the turn's stage for it, and while the lane is busy with the set
 * before: what arrives meanwhile becomes one entry. Who decides them is whoever leads: this
 * replica (propose_eval.c) or another node's (remote_propose.c); in order, either way.
 *
 * Pending rows must tell exactly what is in flight. Where that is no longer sure (leadership was
 * lost, an entry was refused) nothing is evaluated until nothing is in flight; then they are
 * dropped. The same moment is waited for when another leads from now on: what has no outcome then,
 * and may be decided again, goes back to the front of the queue as one piece (again), so that
 * nothing newer overtakes it.
 *
 * What another node has sent (a guest) is decided here in the term it was sent for or given back;
 * it is never sent on. */
#include "cluster/remote.h"

enum {
	PROPOSAL_COST = 256, /* beside its bytes, in flight */
	UNREADY_MS = 3000,   /* how long proposals wait for a leader */
};

/* --- answers --- */

size_t propose_cost(const struct proposal *q)
{
	return q->batch.bytes.len + q->args.len + PROPOSAL_COST;
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
	slice_unref(&q->kept);
	q->node.next = NULL;
	if (a->last != NULL)
		a->last->node.next = &q->node;
	else
		a->first = q;
	a->last = q;
	loop_hook_want(h->loop, STAGE_DELIVER, &h->answer_hook);
}

void propose_answer(struct partition *p, struct proposal *q)
{
	p->held_bytes -= propose_cost(q);
	answer(p, q);
}

static void fail(struct partition *p, struct proposal *q, enum err e)
{
	q->err = e;
	slice_unref(&q->reply);
	propose_answer(p, q);
}

void propose_answer_all(struct partition *p, struct list *l, enum err e)
{
	struct list *n;

	while ((n = list_pop(l)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);

		if (e != OK)
			fail(p, q, e);
		else
			propose_answer(p, q);
	}
}

static void refuse(struct partition *p, struct proposal *q, enum err e)
{
	metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS_REFUSED, 1);
	q->err = e;
	answer(p, q);
}

/* Those that may have been carried out before say so. */
static void fail_waiting(struct partition *p, struct list *l, enum err e)
{
	struct list *n;

	while ((n = list_pop(l)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);

		q->not_evaluated = q->sent_term != 0;
		fail(p, q, q->unsure && e != ERR_CLOSED ? ERR_UNKNOWN : e);
	}
}

static void stop_fetching(struct partition *p)
{
	if (p->fetching)
		rows_fetch_cancel(&p->fetch);
	p->fetching = false;
	p->fetch_err = OK;
}

void propose_fail_all(struct partition *p, enum err e)
{
	stop_fetching(p);
	p->unready_ms = 0;
	fail_waiting(p, &p->again, e);
	fail_waiting(p, &p->gathered, e);
}

/* --- what has no outcome yet --- */

/* The batch comes back to the proposal. Where an entry has it the bytes are that entry's. */
static bool take_back(struct partition *p, struct proposal *q, bool in_entry)
{
	if (q->kept.bytes.len == 0)
		return true;
	if (!in_entry) {
		q->batch = q->kept;
		q->kept = (struct slice){NULL, {NULL, 0}};
	} else if (slice_copy(q->kept.bytes, &q->batch) != OK) {
		return false;
	}
	slice_unref(&q->kept);
	p->held_bytes += q->batch.bytes.len;
	return true;
}

static void give_back(struct partition *p, struct proposal *q)
{
	q->not_evaluated = true;
	fail(p, q, ERR_NOTLEADER);
}

void propose_again(struct partition *p, struct proposal *q)
{
	slice_unref(&q->reply);
	list_push_back(&p->again, &q->node);
}

void propose_lost(struct partition *p, struct list *l, enum err e)
{
	struct list *n;

	while ((n = list_pop(l)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);

		if (q->sent_term != 0 && !q->wrote) {
			give_back(p, q);
		} else if (e == ERR_CLOSED || p->phase != PARTITION_OPEN || q->sent_term != 0 ||
			(q->wrote && !q->repeatable)) {
			fail(p, q, e);
		} else if (take_back(p, q, q->wrote)) {
			q->unsure = q->unsure || q->wrote;
			propose_again(p, q);
		} else {
			fail(p, q, ERR_UNKNOWN);
		}
	}
}

/* Raft has refused them: they are the first of the queue again, behind what is still in flight and
 * may yet come back. Guests, too, as long as the term lasts: others of them may be behind. */
void propose_unproposed(struct partition *p, struct list *l)
{
	struct list rest, *n;

	stop_fetching(p); /* what is first now may need another row */
	list_init(&rest);
	list_move_all(&p->gathered, &rest);
	while ((n = list_pop(l)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);

		must(take_back(p, q, false));
		slice_unref(&q->reply);
		list_push_back(&p->gathered, n);
	}
	list_move_all(&rest, &p->gathered);
}

static void again_to_front(struct partition *p)
{
	struct list rest;

	if (list_empty(&p->again))
		return;
	stop_fetching(p); /* what is first now may need another row */
	list_init(&rest);
	list_move_all(&p->gathered, &rest);
	list_move_all(&p->again, &p->gathered);
	list_move_all(&rest, &p->gathered);
}

/* --- who decides --- */

static bool of_another_term(const struct partition *p, const struct proposal *q)
{
	return p->consensus == NULL || p->detaching || q->sent_term != p->term ||
		consensus_role(p->consensus) != ROLE_LEADER ||
		partition_unserved(p) == ERR_NOTLEADER; /* others said so before Raft did */
}

static void give_guests_back(struct partition *p)
{
	for (struct list *n = p->gathered.next, *next; n != &p->gathered; n = next) {
		struct proposal *q = list_entry(n, struct proposal, node);

		next = n->next;
		if (q->sent_term == 0 || !of_another_term(p, q))
			continue;
		stop_fetching(p);
		list_remove(n);
		give_back(p, q);
	}
}

/* Also what waits for the lane is looked at now: its disk may hang, which is why another leads. */
void propose_changed(struct partition *p)
{
	give_guests_back(p);
	loop_hook_cancel(&p->hook);
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

static void refuse_leader_only(struct partition *p)
{
	for (struct list *n = p->gathered.next, *next; n != &p->gathered; n = next) {
		struct proposal *q = list_entry(n, struct proposal, node);

		next = n->next;
		if (!q->leader_only)
			continue;
		stop_fetching(p);
		list_remove(n);
		fail(p, q, q->unsure ? ERR_UNKNOWN : ERR_NOTLEADER);
	}
}

/* Whether all that was decided under an earlier leader has its outcome or is to be decided anew.
 * Also where Raft has not heard of the next one yet. */
static bool settled(struct partition *p, bool here)
{
	if ((p->overlay_stale || !here) && !list_empty(&p->inflight))
		return false;
	if (p->overlay_stale) {
		if (p->rows != NULL)
			rows_drop_pending(p->rows);
		p->overlay_stale = false;
	}
	if (!remote_propose_settled(p, here))
		return false;
	again_to_front(p);
	return true;
}

static void dispatch(struct partition *p)
{
	enum err e = partition_unserved(p);

	if (e == ERR_CLOSED) {
		propose_fail_all(p, e);
		return;
	}
	if (e != OK && p->unready_ms == 0)
		p->unready_ms = loop_now_ms(p->loop);
	if (!settled(p, e == OK))
		return;
	if (e == OK) {
		p->unready_ms = 0;
		if (!p->fetching)
			evaluate_gathered(p);
		return;
	}
	stop_fetching(p);
	if (e == ERR_NOTLEADER) {
		give_guests_back(p);
		refuse_leader_only(p);
		remote_propose(p);
	}
}

/* Without an outcome, and on no way to one. */
static bool something_waits(const struct partition *p)
{
	return !list_empty(&p->gathered) || !list_empty(&p->again) || remote_propose_waits(p);
}

void propose_turn(struct loop_hook *h)
{
	struct partition *p = list_entry(h, struct partition, hook);

	if (p->phase != PARTITION_OPEN)
		return;
	if (something_waits(p)) {
		if (partition_unserved(p) == OK && lane_busy(p->env->lane))
			lane_when_idle(p->env->lane, &p->hook);
		else
			dispatch(p);
	}
	if (partition_local(p) && partition_write_back_due(p))
		partition_write_back(p);
}

/* Proposals do not wait for ever for a leader. One that hands leadership over takes none, and tells
 * nobody when that has come to nothing. */
void propose_tick(struct partition *p, int64_t now_ms)
{
	if (!something_waits(p))
		return;
	if (partition_unserved(p) != OK && p->unready_ms != 0 &&
		now_ms - p->unready_ms >= UNREADY_MS)
		propose_fail_all(p, ERR_UNAVAILABLE);
	else
		loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook); /* tries again */
}

/* --- arrival --- */

static void gather(struct partition *p, struct proposal *q)
{
	if (p->held_bytes == 0) /* how long others waited for a leader does not count for it */
		p->unready_ms = 0;
	p->held_bytes += propose_cost(q);
	list_push_back(&p->gathered, &q->node);
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

static void arrive(struct partition *p, struct proposal *q)
{
	metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS, 1);
	if (p->phase != PARTITION_OPEN) {
		refuse(p, q, ERR_CLOSED);
		return;
	}
	if (p->held_bytes > 0 &&
		p->held_bytes + propose_cost(q) > p->home->limits.inflight_bytes_max)
		refuse(p, q, ERR_BUSY);
	else
		gather(p, q);
}

void propose_guest(struct partition *p, struct proposal *q)
{
	metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS_IN, 1);
	gather(p, q);
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
	q->wrote = q->unsure = q->not_evaluated = false;
	q->kept = q->reply = (struct slice){NULL, {NULL, 0}};
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
	list_init(&p->again);
	list_init(&p->inflight);
	list_init(&p->fetch.node);
}
