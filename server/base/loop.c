/* A loop sleeps in libevent and nowhere else. Everything that is handed to it from outside comes
 * through one inbox, a stack that any thread pushes to with one compare-and-swap and that the
 * loop takes whole and turns around. Posts by the loop's own thread go to a plain queue.
 *
 * Waking costs a system call, so it is done only when the loop sleeps or is about to. The loop
 * says so (asleep) and then looks at the inbox once more; a poster pushes and then looks at
 * asleep. All four are sequentially consistent, so at least one of the two sees the other: a
 * message is never left in the inbox of a loop that sleeps.
 *
 * Timers are a heap of our own (turn.c) over one timerfd, which is set only when the loop goes to
 * sleep with an earlier deadline than the one it was set to: timers that are set and cancelled by
 * the million make no system calls. (libevent's own time-outs run on a clock of 4 ms steps.)
 *
 * libevent gives no point between its poll and the callbacks, so the cached time is marked stale
 * before a poll and read afresh by the first who asks. */
#include "server/base/loop.h"
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/base/turn.h"

enum {
	LAST_TURNS_MAX = 8,    /* of a loop that has ended and has work left */
	QUIET_LOOKS_MAX = 1000 /* before loops that never come to rest are stopped all the same */
};

struct loop {
	/* What other threads touch, on a cache line of its own. */
	_Alignas(64) _Atomic(struct loop_msg *) inbox; /* newest first */
	_Atomic bool asleep;

	_Alignas(64) struct loops *all;
	int index, wake_fd, timer_fd;
	pthread_t thread;
	struct event_base *base;
	struct event *wake_event, *timer_event;
	struct metric_cells *cells;
	bool stopping, now_stale;
	int64_t now_ms, now_wall_ms;

	struct loop_msg *taken; /* of the inbox, still to run */
	/* Stands in the inbox once the loop has ended: what is posted from then on is dropped, so
	 * nothing keeps a pointer into what its owner may let go before loops_free. */
	struct loop_msg closed;
	struct turn turn;
	int64_t timer_set_ms; /* when timer_fd fires; 0: not set */

	struct loop_msg stop_msg, park_msg;
};

struct loops {
	struct loop **at;
	int count;
	_Atomic bool running;
	pthread_mutex_t one_still; /* held by who made the loops stand still */
	pthread_mutex_t lock;      /* of the three below */
	pthread_cond_t changed;
	int parked;
	uint64_t still_round; /* counts the times they stood still */
};

static _Thread_local struct loop *here;
static _Thread_local const struct loops *still_here; /* this thread made them stand still */

struct loop *loop_here(void)
{
	return here;
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
struct event_base *loop_event_base(struct loop *l)
{
	return l->base;
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
	must(here == l || still_here == l->all || !atomic_load(&l->all->running));
}

/* ---- time */

static void now_read(struct loop *l)
{
	l->now_ms = clock_ms();
	l->now_wall_ms = clock_wall_ms();
	l->now_stale = false;
}

/* The cache is the loop's own, whatever the caller's view of the loop: while it is stale, or
 * the loop does not run yet, it is read. */
static void now_want(const struct loop *l)
{
	if (l->now_stale && (here == l || !atomic_load(&l->all->running)))
		now_read(l->all->at[l->index]);
}

int64_t loop_now_ms(const struct loop *l)
{
	now_want(l);
	return l->now_ms;
}

int64_t loop_now_wall_ms(const struct loop *l)
{
	now_want(l);
	return l->now_wall_ms;
}

/* ---- timers */

void loop_timer_set(struct loop_timer *t, int64_t after_ms)
{
	struct loop *l = t->loop;
	int64_t now_ms;

	loop_must_own(l);
	now_ms = loop_now_ms(l);
	if (after_ms < 0)
		after_ms = 0;
	turn_timer_set(&l->turn, t, after_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + after_ms);
}

void loop_timer_cancel(struct loop_timer *t)
{
	if (t->slot == 0)
		return;
	loop_must_own(t->loop);
	turn_timer_cancel(&t->loop->turn, t);
}

/* Before sleeping: the timerfd must fire no later than the first timer. Earlier is harmless. */
static void timer_arm(struct loop *l)
{
	int64_t at, after;
	struct itimerspec spec = {0};

	if (!turn_next_ms(&l->turn, &at))
		return;
	if (l->timer_set_ms != 0 && l->timer_set_ms <= at)
		return;
	after = at - clock_ms();
	spec.it_value.tv_sec = after > 0 ? after / 1000 : 0;
	spec.it_value.tv_nsec = after > 0 ? after % 1000 * 1000000 : 0;
	if (after <= 0)
		spec.it_value.tv_nsec = 1; /* 0 would unset it */
	must(timerfd_settime(l->timer_fd, 0, &spec, NULL) == 0);
	l->timer_set_ms = at > 0 ? at : 1;
}

/* The descriptor is edge-triggered: setting it again makes a new edge without a read. */
static void on_timer_fd(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd;
	(void)what;
	l->timer_set_ms = 0;
}

/* ---- messages */

static void wake(struct loop *l)
{
	uint64_t one = 1;

	while (write(l->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	struct loop_msg *head;

	if (here == l) {
		msg_queue_push(&l->turn.local, m);
		return;
	}
	head = atomic_load_explicit(&l->inbox, memory_order_relaxed);
	do {
		if (head == &l->closed) {
			turn_drop(m);
			return;
		}
		m->next = head;
	} while (!atomic_compare_exchange_weak(&l->inbox, &head, m));
	if (atomic_load(&l->asleep) && atomic_exchange(&l->asleep, false))
		wake(l);
}

static struct loop_msg *inbox_take(struct loop *l)
{
	struct loop_msg *m, *oldest = NULL;

	if (atomic_load_explicit(&l->inbox, memory_order_relaxed) == NULL)
		return NULL;
	m = atomic_exchange_explicit(&l->inbox, NULL, memory_order_acquire);
	while (m != NULL) {
		struct loop_msg *next = m->next;
		m->next = oldest;
		oldest = m;
		m = next;
	}
	return oldest;
}

static void messages_run(struct loop *l)
{
	struct loop_msg *m;

	l->taken = inbox_take(l);
	while ((m = l->taken) != NULL) {
		l->taken = m->next; /* m may be gone or posted again after its run */
		m->run(m);
	}
	turn_posts(&l->turn);
}

void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h)
{
	loop_must_own(l);
	turn_want(&l->turn, stage, h);
}

/* ---- the turn */

static void poll_events(struct loop *l)
{
	bool sleeps = !turn_waits(&l->turn);

	if (sleeps) {
		timer_arm(l);
		atomic_store(&l->asleep, true);
		if (atomic_load(&l->inbox) != NULL) {
			atomic_store(&l->asleep, false);
			sleeps = false;
		}
	}
	l->now_stale = true;
	must(event_base_loop(l->base, sleeps ? EVLOOP_ONCE : EVLOOP_NONBLOCK) >= 0);
	if (sleeps)
		atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
	now_read(l);
}

static void *loop_thread(void *arg)
{
	struct loop *l = arg;
	char name[16];

	here = l;
	snprintf(name, sizeof name, "loop-%d", l->index);
	pthread_setname_np(pthread_self(), name);
	while (!l->stopping) {
		poll_events(l);
		turn_timers(&l->turn, l->now_ms);
		messages_run(l);
		turn_stages(&l->turn);
	}
	/* What the last messages asked for is still done, within reason. */
	for (int i = 0; i < LAST_TURNS_MAX && turn_waits(&l->turn); i++) {
		turn_posts(&l->turn);
		turn_stages(&l->turn);
	}
	here = NULL;
	return NULL;
}

static void stop_run(struct loop_msg *m)
{
	list_entry(m, struct loop, stop_msg)->stopping = true;
}

/* ---- all of them */

static void on_wake_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd; /* edge-triggered: the count need not be read to hear the next write */
	(void)what;
	(void)arg;
}

static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base;

	must(config != NULL);
	/* Only the own thread touches the base: no locks. Edge-triggering means epoll. */
	must(event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0);
	must(event_config_require_features(config, EV_FEATURE_ET) == 0);
	base = event_base_new_with_config(config);
	must(base != NULL);
	event_config_free(config);
	return base;
}

static struct loop *loop_new(struct loops *all, int index)
{
	struct loop *l = aligned_alloc(64, sizeof *l);
	const short edge = EV_READ | EV_PERSIST | EV_ET;

	must(l != NULL);
	*l = (struct loop){.all = all, .index = index, .now_stale = true};
	l->base = base_new();
	l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	must(l->wake_fd >= 0);
	must(l->timer_fd >= 0);
	l->wake_event = event_new(l->base, l->wake_fd, edge, on_wake_fd, l);
	l->timer_event = event_new(l->base, l->timer_fd, edge, on_timer_fd, l);
	must(l->wake_event != NULL);
	must(event_add(l->wake_event, NULL) == 0);
	must(l->timer_event != NULL);
	must(event_add(l->timer_event, NULL) == 0);
	l->cells = metric_cells_new();
	l->stop_msg.run = stop_run;
	turn_init(&l->turn);
	return l;
}

static void calls_drop(const struct loop *l, struct loop_msg *m)
{
	while (m != NULL && m != &l->closed) {
		struct loop_msg *next = m->next;
		turn_drop(m);
		m = next;
	}
}

/* Its thread is gone: what waits is looked at while it is all there. */
static void loop_end(struct loop *l)
{
	calls_drop(l, atomic_exchange(&l->inbox, &l->closed));
	calls_drop(l, l->turn.local.head);
	msg_queue_init(&l->turn.local);
}

static void loop_free(struct loop *l)
{
	loop_end(l);
	event_free(l->wake_event);
	event_free(l->timer_event);
	event_base_free(l->base);
	close(l->wake_fd);
	close(l->timer_fd);
	turn_fini(&l->turn);
	free(l);
}

struct loops *loops_new(int count)
{
	struct loops *all = mem_new(sizeof *all);

	must(count > 0);
	all->count = count;
	all->at = mem_new((size_t)count * sizeof(struct loop *));
	must(pthread_mutex_init(&all->one_still, NULL) == 0);
	must(pthread_mutex_init(&all->lock, NULL) == 0);
	must(pthread_cond_init(&all->changed, NULL) == 0);
	for (int i = 0; i < count; i++)
		all->at[i] = loop_new(all, i);
	return all;
}

void loops_run(struct loops *all)
{
	sigset_t most, before;

	must(!atomic_exchange(&all->running, true));
	/* Signals are the main thread's; those of faults stay with who made them. */
	sigfillset(&most);
	sigdelset(&most, SIGSEGV);
	sigdelset(&most, SIGBUS);
	sigdelset(&most, SIGFPE);
	sigdelset(&most, SIGILL);
	sigdelset(&most, SIGABRT);
	must(pthread_sigmask(SIG_SETMASK, &most, &before) == 0);
	for (int i = 0; i < all->count; i++)
		must(pthread_create(&all->at[i]->thread, NULL, loop_thread, all->at[i]) == 0);
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
}

void loops_free(struct loops *all)
{
	if (all == NULL)
		return;
	must(!atomic_load(&all->running));
	for (int i = 0; i < all->count; i++)
		loop_free(all->at[i]);
	pthread_mutex_destroy(&all->one_still);
	pthread_mutex_destroy(&all->lock);
	pthread_cond_destroy(&all->changed);
	mem_free(all->at);
	mem_free(all);
}

/* ---- standing still */

static void park_run(struct loop_msg *m)
{
	struct loops *all = list_entry(m, struct loop, park_msg)->all;
	uint64_t round;

	pthread_mutex_lock(&all->lock);
	round = all->still_round;
	all->parked++;
	pthread_cond_broadcast(&all->changed);
	while (all->still_round == round)
		pthread_cond_wait(&all->changed, &all->lock);
	pthread_mutex_unlock(&all->lock);
}

void loops_stand_still(struct loops *all, void (*fn)(void *arg), void *arg)
{
	bool running = atomic_load(&all->running);

	must(here == NULL);
	pthread_mutex_lock(&all->one_still);
	pthread_mutex_lock(&all->lock);
	all->parked = 0;
	for (int i = 0; running && i < all->count; i++) {
		all->at[i]->park_msg.run = park_run;
		loop_post(all->at[i], &all->at[i]->park_msg);
	}
	while (running && all->parked < all->count)
		pthread_cond_wait(&all->changed, &all->lock);
	pthread_mutex_unlock(&all->lock);
	still_here = all;
	fn(arg);
	still_here = NULL;
	pthread_mutex_lock(&all->lock);
	all->still_round++;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	pthread_mutex_unlock(&all->one_still);
}

/* ---- stopping */

static bool is_quiet(const struct loops *all)
{
	for (int i = 0; i < all->count; i++) {
		const struct loop *l = all->at[i];
		if (atomic_load(&l->inbox) != NULL || l->taken != NULL || turn_waits(&l->turn))
			return false;
	}
	return true;
}

struct last_look {
	struct loops *all;
	bool quiet;
};

static void stop_if_quiet(void *arg)
{
	struct last_look *look = arg;

	look->quiet = is_quiet(look->all);
	for (int i = 0; i < look->all->count; i++)
		look->all->at[i]->stopping = look->quiet;
}

/* All end together, when nothing is on its way between them: what one loop posted to another that
 * had ended already would be lost, and with it what it holds. */
void loops_stop(struct loops *all)
{
	struct last_look look = {.all = all};

	must(here == NULL);
	if (!atomic_load(&all->running))
		return;
	for (int i = 0; i < QUIET_LOOKS_MAX && !look.quiet; i++)
		loops_stand_still(all, stop_if_quiet, &look);
	for (int i = 0; i < all->count && !look.quiet; i++)
		loop_post(all->at[i], &all->at[i]->stop_msg);
	for (int i = 0; i < all->count; i++)
		must(pthread_join(all->at[i]->thread, NULL) == 0);
	for (int i = 0; i < all->count; i++)
		loop_end(all->at[i]);
	atomic_store(&all->running, false);
}
