/* Loops as events: a turn is one event of the loop's machine, planned when something is posted, a
 * timer is due or work is left over. Delays come from the dice, so loops of a machine interleave in
 * every order their messages allow. The turn itself is that of server/base/loop.c. There is no
 * libevent here: nothing that is linked has a socket. */
#include "server/base/loop.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "tests/sim/sim.h"

enum {
	LOCAL_RUNS_MAX = 4096,
	STAGE_PASSES_MAX = 8,
	TIMERS_FIRST = 64,
	WAKE_US_MAX = 30, /* from a post to the turn */
	QUIET_LOOKS_MAX = 1000,
	QUIET_US = 50
};

struct queue {
	struct loop_msg *head, **tail;
};

struct heap_node {
	int64_t at_ms;
	struct loop_timer *timer;
};

struct loop {
	struct loops *all;
	int index;
	struct sim_machine *machine;
	struct metric_cells *cells;
	int64_t now_ms, now_wall_ms;
	bool now_stale, stopped;
	int64_t turn_at_us; /* the turn planned; -1: none */
	struct queue inbox, local;
	struct list stages[STAGE_COUNT], later;
	struct loop_hook *hook_now;
	int stage_now;
	struct heap_node *heap; /* from slot 1 */
	uint32_t timers, timers_room;
};

struct loops {
	int count;
	struct loop **at;
	bool running;
	bool still; /* somebody made them stand still */
};

/* The loop whose turn runs, within the event of that number: a machine that ends in a turn leaves
 * it without telling us. */
static struct loop *turn_of;
static uint64_t turn_event;

struct loop *loop_here(void)
{
	return turn_event == sim_events() && !sim_in_fiber() ? turn_of : NULL;
}
int loops_count(const struct loops *all)
{
	return all->count;
}
int loop_index(const struct loop *l)
{
	return l->index;
}
struct loops *loop_all(const struct loop *l)
{
	return l->all;
}
struct metric_cells *loop_cells(struct loop *l)
{
	return l->cells;
}
struct loop *loops_at(struct loops *all, int index)
{
	must(index >= 0 && index < all->count);
	return all->at[index];
}
void loop_must_own(const struct loop *l)
{
	must(loop_here() == l || l->all->still || !l->all->running);
}

/* --- time */

static void now_read(struct loop *l)
{
	l->now_ms = clock_ms();
	l->now_wall_ms = clock_wall_ms();
	l->now_stale = false;
}

int64_t loop_now_ms(const struct loop *l)
{
	if (l->now_stale)
		now_read(l->all->at[l->index]);
	return l->now_ms;
}

int64_t loop_now_wall_ms(const struct loop *l)
{
	if (l->now_stale)
		now_read(l->all->at[l->index]);
	return l->now_wall_ms;
}

/* --- planning turns */

static void turn(void *arg);

static void plan(struct loop *l, int64_t after_us)
{
	int64_t at = sim_now_us() + after_us;

	if (!l->all->running || l->stopped || (l->turn_at_us >= 0 && l->turn_at_us <= at))
		return;
	l->turn_at_us = at;
	sim_at(at, l->machine, turn, l);
}

static bool work_waits(const struct loop *l)
{
	if (l->local.head != NULL)
		return true;
	for (int stage = 0; stage < STAGE_COUNT; stage++)
		if (!list_empty(&l->stages[stage]))
			return true;
	return false;
}

/* The machine's clock may run fast or slow: a turn that comes too early plans another one. */
static void plan_next(struct loop *l)
{
	if (l->inbox.head != NULL || work_waits(l))
		plan(l, sim_pick(1, WAKE_US_MAX));
	else if (l->timers > 0) {
		int64_t ms = l->heap[1].at_ms - clock_ms();

		plan(l, (ms > 0 ? ms * SIM_MS : 0) + sim_pick(1, 200));
	}
}

/* --- timers */

static void heap_place(struct loop *l, uint32_t slot, struct heap_node n)
{
	l->heap[slot] = n;
	n.timer->slot = slot;
}

static void heap_settle(struct loop *l, uint32_t slot, struct heap_node n)
{
	while (slot > 1 && n.at_ms < l->heap[slot / 2].at_ms) {
		heap_place(l, slot, l->heap[slot / 2]);
		slot /= 2;
	}
	for (;;) {
		uint32_t child = slot * 2;

		if (child > l->timers)
			break;
		if (child < l->timers && l->heap[child + 1].at_ms < l->heap[child].at_ms)
			child++;
		if (n.at_ms <= l->heap[child].at_ms)
			break;
		heap_place(l, slot, l->heap[child]);
		slot = child;
	}
	heap_place(l, slot, n);
}

void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fire)(struct loop_timer *t))
{
	*t = (struct loop_timer){.loop = l, .fire = fire};
}

void loop_timer_set(struct loop_timer *t, int64_t after_ms)
{
	struct loop *l = t->loop;

	loop_must_own(l);
	t->at_ms = loop_now_ms(l);
	if (after_ms > 0)
		t->at_ms = after_ms > INT64_MAX / 2000 ? INT64_MAX / 2000 : t->at_ms + after_ms;
	if (t->slot == 0) {
		if (l->timers + 2 > l->timers_room) {
			l->timers_room = l->timers_room ? l->timers_room * 2 : TIMERS_FIRST;
			l->heap = mem_resize(l->heap, l->timers_room * sizeof *l->heap);
			must(l->heap != NULL);
		}
		t->slot = ++l->timers;
	}
	heap_settle(l, t->slot, (struct heap_node){t->at_ms, t});
	if (loop_here() != l)
		plan_next(l);
}

void loop_timer_cancel(struct loop_timer *t)
{
	struct loop *l = t->loop;
	uint32_t slot = t->slot;
	struct heap_node last;

	if (slot == 0)
		return;
	loop_must_own(l);
	must(l->heap[slot].timer == t);
	t->slot = 0;
	last = l->heap[l->timers--];
	if (last.timer != t)
		heap_settle(l, slot, last);
}

static void timers_fire(struct loop *l)
{
	for (uint32_t left = l->timers; left > 0 && l->timers > 0; left--) {
		struct loop_timer *t = l->heap[1].timer;

		if (t->at_ms > l->now_ms)
			return;
		loop_timer_cancel(t);
		t->fire(t);
	}
}

/* --- messages */

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_push(struct queue *q, struct loop_msg *m)
{
	m->next = NULL;
	*q->tail = m;
	q->tail = &m->next;
}

static struct loop_msg *queue_pop(struct queue *q)
{
	struct loop_msg *m = q->head;

	if (m == NULL)
		return NULL;
	q->head = m->next;
	if (q->head == NULL)
		q->tail = &q->head;
	return m;
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	if (loop_here() == l) {
		queue_push(&l->local, m);
		return;
	}
	queue_push(&l->inbox, m);
	plan(l, sim_pick(1, WAKE_US_MAX));
}

struct call {
	struct loop_msg msg;
	void (*fn)(void *arg);
	void *arg;
};

static void call_run(struct loop_msg *m)
{
	struct call *c = list_entry(m, struct call, msg);
	void (*fn)(void *arg) = c->fn;
	void *arg = c->arg;

	mem_free(c);
	fn(arg);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call *c = mem_new(sizeof *c);

	c->msg.run = call_run;
	c->fn = fn;
	c->arg = arg;
	loop_post(l, &c->msg);
}

static void local_run(struct loop *l)
{
	struct loop_msg *m;

	for (int i = 0; i < LOCAL_RUNS_MAX && (m = queue_pop(&l->local)) != NULL; i++)
		m->run(m);
}

static void messages_run(struct loop *l)
{
	struct queue taken = l->inbox;
	struct loop_msg *m;

	if (taken.head == NULL)
		taken.tail = &taken.head;
	queue_init(&l->inbox);
	while ((m = queue_pop(&taken)) != NULL)
		m->run(m);
	local_run(l);
}

/* --- hooks */

void loop_hook_init(struct loop_hook *h, void (*run)(struct loop_hook *h))
{
	list_init(&h->node);
	h->run = run;
}

void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h)
{
	loop_must_own(l);
	if (!list_empty(&h->node))
		return;
	if (h == l->hook_now && (int)stage == l->stage_now)
		list_push_back(&l->later, &h->node);
	else
		list_push_back(&l->stages[stage], &h->node);
	if (loop_here() != l)
		plan_next(l);
}

void loop_hook_cancel(struct loop_hook *h)
{
	list_remove(&h->node);
}

static void list_move_all(struct list *from, struct list *to)
{
	struct list *n;

	while ((n = list_pop(from)) != NULL)
		list_push_back(to, n);
}

static void stage_run(struct loop *l, int stage)
{
	struct list doing, *n;

	l->stage_now = stage;
	list_init(&doing);
	for (int pass = 0; pass < STAGE_PASSES_MAX && !list_empty(&l->stages[stage]); pass++) {
		list_move_all(&l->stages[stage], &doing);
		while ((n = list_pop(&doing)) != NULL) {
			l->hook_now = list_entry(n, struct loop_hook, node);
			l->hook_now->run(l->hook_now);
			l->hook_now = NULL;
		}
	}
	list_move_all(&l->later, &l->stages[stage]);
}

static void stages_run(struct loop *l)
{
	for (int stage = 0; stage < STAGE_COUNT; stage++) {
		if (list_empty(&l->stages[stage]))
			continue;
		stage_run(l, stage);
		l->stage_now = stage + 1;
		if (l->local.head != NULL)
			local_run(l);
	}
	l->stage_now = STAGE_COUNT;
}

/* --- the turn */

static void turn(void *arg)
{
	struct loop *l = arg;

	if (l->turn_at_us != sim_now_us() && sim_here()->paused_until_us == 0)
		return; /* another turn was planned instead of this one */
	if (l->stopped || l->turn_at_us < 0 || l->turn_at_us > sim_now_us())
		return;
	l->turn_at_us = -1;
	turn_of = l;
	turn_event = sim_events();
	now_read(l);
	timers_fire(l);
	messages_run(l);
	stages_run(l);
	turn_of = NULL;
	l->now_stale = true;
	plan_next(l);
}

/* --- all of them */

struct loops *loops_new(int count)
{
	struct loops *all = mem_new(sizeof *all);

	must(count > 0);
	all->count = count;
	all->at = mem_new((size_t)count * sizeof(struct loop *));
	for (int i = 0; i < count; i++) {
		struct loop *l = mem_new(sizeof *l);

		all->at[i] = l;
		l->all = all;
		l->index = i;
		l->machine = sim_here();
		l->now_stale = true;
		l->stage_now = STAGE_COUNT;
		l->turn_at_us = -1;
		l->cells = metric_cells_new();
		queue_init(&l->inbox);
		queue_init(&l->local);
		list_init(&l->later);
		for (int s = 0; s < STAGE_COUNT; s++)
			list_init(&l->stages[s]);
	}
	return all;
}

void loops_run(struct loops *all)
{
	must(!all->running);
	all->running = true;
	for (int i = 0; i < all->count; i++)
		plan(all->at[i], sim_pick(1, WAKE_US_MAX));
}

/* Between two events all loops stand. */
void loops_stand_still(struct loops *all, void (*fn)(void *arg), void *arg)
{
	must(loop_here() == NULL);
	all->still = true;
	fn(arg);
	all->still = false;
	for (int i = 0; i < all->count; i++)
		plan_next(all->at[i]);
}

static bool is_quiet(const struct loops *all)
{
	for (int i = 0; i < all->count; i++)
		if (all->at[i]->inbox.head != NULL || work_waits(all->at[i]))
			return false;
	return true;
}

void loops_stop(struct loops *all)
{
	if (!all->running)
		return;
	for (int i = 0; i < QUIET_LOOKS_MAX && !is_quiet(all); i++)
		sim_sleep_us(QUIET_US);
	for (int i = 0; i < all->count; i++)
		all->at[i]->stopped = true;
	all->running = false;
}

void loops_free(struct loops *all)
{
	if (all == NULL)
		return;
	must(!all->running);
	/* Turns that are planned still find them: the memory stays, it is little. */
	for (int i = 0; i < all->count; i++)
		mem_free(all->at[i]->heap);
}
