/* Loops as events: a turn is one event of the loop's machine, planned when something is posted, a
 * timer is due or work is left over. Delays come from the dice, so loops of a machine interleave in
 * every order their messages allow. What a turn is made of is shared with server/base/loop.c. There
 * is no libevent here: nothing that is linked has a socket. */
#include "server/base/loop.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/base/turn.h"
#include "tests/sim/sim.h"

enum {
	WAKE_US_MAX = 30, /* from a post to the turn */
	QUIET_LOOKS_MAX = 1000,
	QUIET_US = 50
};

struct loop {
	struct loops *all;
	int index;
	struct sim_machine *machine;
	struct metric_cells *cells;
	int64_t now_ms, now_wall_ms;
	bool now_stale, stopped;
	int64_t turn_at_us; /* the turn planned; -1: none */
	struct msg_queue inbox;
	struct turn turn;
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

/* The machine's clock may run fast or slow: a turn that comes too early plans another one. */
static void plan_next(struct loop *l)
{
	int64_t ms;

	if (l->inbox.head != NULL || turn_waits(&l->turn))
		plan(l, sim_pick(1, WAKE_US_MAX));
	else if (turn_next_ms(&l->turn, &ms)) {
		ms -= clock_ms();
		plan(l, (ms > 0 ? ms * SIM_MS : 0) + sim_pick(1, 200));
	}
}

/* --- timers */

void loop_timer_set(struct loop_timer *t, int64_t after_ms)
{
	struct loop *l = t->loop;
	int64_t at_ms;

	loop_must_own(l);
	at_ms = loop_now_ms(l);
	if (after_ms > 0)
		at_ms = after_ms > INT64_MAX / 2000 ? INT64_MAX / 2000 : at_ms + after_ms;
	turn_timer_set(&l->turn, t, at_ms);
	if (loop_here() != l)
		plan_next(l);
}

void loop_timer_cancel(struct loop_timer *t)
{
	if (t->slot == 0)
		return;
	loop_must_own(t->loop);
	turn_timer_cancel(&t->loop->turn, t);
}

/* --- messages */

void loop_post(struct loop *l, struct loop_msg *m)
{
	if (loop_here() == l) {
		msg_queue_push(&l->turn.local, m);
		return;
	}
	msg_queue_push(&l->inbox, m);
	plan(l, sim_pick(1, WAKE_US_MAX));
}

static void messages_run(struct loop *l)
{
	struct msg_queue taken = l->inbox;
	struct loop_msg *m;

	if (taken.head == NULL)
		taken.tail = &taken.head;
	msg_queue_init(&l->inbox);
	while ((m = msg_queue_pop(&taken)) != NULL)
		m->run(m);
	turn_posts(&l->turn);
}

/* --- hooks */

void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h)
{
	loop_must_own(l);
	turn_want(&l->turn, stage, h);
	if (loop_here() != l)
		plan_next(l);
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
	turn_timers(&l->turn, l->now_ms);
	messages_run(l);
	turn_stages(&l->turn);
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
		l->turn_at_us = -1;
		l->cells = metric_cells_new();
		msg_queue_init(&l->inbox);
		turn_init(&l->turn);
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
		if (all->at[i]->inbox.head != NULL || turn_waits(&all->at[i]->turn))
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
		turn_fini(&all->at[i]->turn);
}
