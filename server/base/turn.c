/* Timers are a binary heap in which each timer knows its slot, so that to cancel one is as cheap as
 * to set it. Hooks that want each other within a stage run in passes, and own posts in runs, both
 * bounded: what is left waits for the next turn, after the sockets. */
#include "server/base/turn.h"
#include "server/base/mem.h"

enum {
	LOCAL_RUNS_MAX = 4096, /* own posts run in a row before the sockets get their turn */
	STAGE_PASSES_MAX = 8,  /* hooks that want each other within one stage */
	TIMERS_FIRST = 64
};

struct turn_timer {
	int64_t at_ms;
	struct loop_timer *timer;
};

void turn_init(struct turn *t)
{
	*t = (struct turn){.stage_now = STAGE_COUNT};
	msg_queue_init(&t->local);
	list_init(&t->later);
	for (int i = 0; i < STAGE_COUNT; i++)
		list_init(&t->stages[i]);
}

void turn_fini(struct turn *t)
{
	mem_free(t->heap);
}

/* ---- timers */

static void heap_place(struct turn *t, uint32_t slot, struct turn_timer n)
{
	t->heap[slot] = n;
	n.timer->slot = slot;
}

static void heap_settle(struct turn *t, uint32_t slot, struct turn_timer n)
{
	while (slot > 1 && n.at_ms < t->heap[slot / 2].at_ms) {
		heap_place(t, slot, t->heap[slot / 2]);
		slot /= 2;
	}
	for (;;) {
		uint32_t child = slot * 2;

		if (child > t->timers)
			break;
		if (child < t->timers && t->heap[child + 1].at_ms < t->heap[child].at_ms)
			child++;
		if (n.at_ms <= t->heap[child].at_ms)
			break;
		heap_place(t, slot, t->heap[child]);
		slot = child;
	}
	heap_place(t, slot, n);
}

void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fire)(struct loop_timer *t))
{
	*t = (struct loop_timer){.loop = l, .fire = fire};
}

void turn_timer_set(struct turn *t, struct loop_timer *timer, int64_t at_ms)
{
	timer->at_ms = at_ms;
	if (timer->slot == 0) {
		if (t->timers + 2 > t->timers_room) {
			uint32_t room = t->timers_room ? t->timers_room * 2 : TIMERS_FIRST;
			struct turn_timer *heap = mem_resize(t->heap, room * sizeof *heap);

			must(heap != NULL);
			t->heap = heap;
			t->timers_room = room;
		}
		timer->slot = ++t->timers;
	}
	heap_settle(t, timer->slot, (struct turn_timer){at_ms, timer});
}

void turn_timer_cancel(struct turn *t, struct loop_timer *timer)
{
	uint32_t slot = timer->slot;
	struct turn_timer last;

	if (slot == 0)
		return;
	must(t->heap[slot].timer == timer);
	timer->slot = 0;
	last = t->heap[t->timers--];
	if (last.timer != timer)
		heap_settle(t, slot, last);
}

void turn_timers(struct turn *t, int64_t now_ms)
{
	/* At most those there now: a timer that sets itself to 0 ms waits for the next turn. */
	for (uint32_t left = t->timers; left > 0 && t->timers > 0; left--) {
		struct loop_timer *timer = t->heap[1].timer;

		if (timer->at_ms > now_ms)
			return;
		turn_timer_cancel(t, timer);
		timer->fire(timer);
	}
}

bool turn_next_ms(const struct turn *t, int64_t *out)
{
	if (t->timers == 0)
		return false;
	*out = t->heap[1].at_ms;
	return true;
}

/* ---- messages */

void msg_queue_init(struct msg_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

void msg_queue_push(struct msg_queue *q, struct loop_msg *m)
{
	m->next = NULL;
	*q->tail = m;
	q->tail = &m->next;
}

struct loop_msg *msg_queue_pop(struct msg_queue *q)
{
	struct loop_msg *m = q->head;

	if (m == NULL)
		return NULL;
	q->head = m->next;
	if (q->head == NULL)
		q->tail = &q->head;
	return m;
}

void turn_posts(struct turn *t)
{
	struct loop_msg *m;

	for (int i = 0; i < LOCAL_RUNS_MAX && (m = msg_queue_pop(&t->local)) != NULL; i++)
		m->run(m);
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

void turn_drop(struct loop_msg *m)
{
	if (m->run == call_run)
		mem_free(list_entry(m, struct call, msg));
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call *c = mem_new(sizeof *c);

	c->msg.run = call_run;
	c->fn = fn;
	c->arg = arg;
	loop_post(l, &c->msg);
}

/* ---- hooks */

void loop_hook_init(struct loop_hook *h, void (*run)(struct loop_hook *h))
{
	list_init(&h->node);
	h->run = run;
}

void loop_hook_cancel(struct loop_hook *h)
{
	list_remove(&h->node);
}

void turn_want(struct turn *t, enum loop_stage stage, struct loop_hook *h)
{
	if (!list_empty(&h->node))
		return;
	/* Who asks for itself again while it runs wants to go on after the sockets' turn. */
	if (h == t->hook_now && (int)stage == t->stage_now)
		list_push_back(&t->later, &h->node);
	else
		list_push_back(&t->stages[stage], &h->node);
}

static void stage_run(struct turn *t, int stage)
{
	struct list doing, *n;

	t->stage_now = stage;
	list_init(&doing);
	for (int pass = 0; pass < STAGE_PASSES_MAX && !list_empty(&t->stages[stage]); pass++) {
		list_move_all(&t->stages[stage], &doing);
		while ((n = list_pop(&doing)) != NULL) {
			t->hook_now = list_entry(n, struct loop_hook, node);
			t->hook_now->run(t->hook_now);
			t->hook_now = NULL;
		}
	}
	list_move_all(&t->later, &t->stages[stage]);
}

void turn_stages(struct turn *t)
{
	for (int stage = 0; stage < STAGE_COUNT; stage++) {
		if (list_empty(&t->stages[stage]))
			continue;
		stage_run(t, stage);
		t->stage_now = stage +
			1; /* what own posts want of this stage is for the next turn */
		if (t->local.head != NULL)
			turn_posts(t);
	}
	t->stage_now = STAGE_COUNT;
}

bool turn_waits(const struct turn *t)
{
	if (t->local.head != NULL)
		return true;
	for (int stage = 0; stage < STAGE_COUNT; stage++)
		if (!list_empty(&t->stages[stage]))
			return true;
	return false;
}
