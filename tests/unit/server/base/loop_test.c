#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include <event2/event.h>
#include "server/base/clock.h"
#include "server/base/loop.h"
#include "server/base/mem.h"

static struct loops *all;
static _Atomic int left; /* things the main thread waits for */

static void start(int loops)
{
	all = loops_new(loops);
	loops_run(all);
}

static void stop(void)
{
	loops_stop(all);
	loops_free(all);
}

static void wait_for(void)
{
	for (int i = 0; i < 20000 && atomic_load(&left) > 0; i++)
		usleep(500);
	ck_assert_int_eq(atomic_load(&left), 0);
}

/* ---- posting */

enum { BALLS = 200, HOPS = 600, STORM = 20000, SENDERS = 3 };

struct ball { /* wanders from loop to loop */
	struct loop_msg msg;
	int hops;
};

static void ball_run(struct loop_msg *m)
{
	struct ball *b = list_entry(m, struct ball, msg);
	struct loop *l = loop_here();

	if (++b->hops == HOPS) {
		mem_free(b);
		atomic_fetch_sub(&left, 1);
		return;
	}
	/* Every fourth hop stays: local and remote posts mix. */
	loop_post(loops_at(all, (loop_index(l) + (b->hops % 4 != 0)) % loops_count(all)), m);
}

START_TEST(three_loops_under_load)
{
	start(3);
	atomic_store(&left, BALLS);
	for (int i = 0; i < BALLS; i++) {
		struct ball *b = mem_new(sizeof *b);
		b->msg.run = ball_run;
		loop_post(loops_at(all, i % 3), &b->msg);
	}
	wait_for();
	stop();
}
END_TEST

struct numbered {
	struct loop_msg msg;
	int sender, number;
};

static int last_seen[SENDERS]; /* the receiving loop's */
static bool out_of_order;

static void numbered_run(struct loop_msg *m)
{
	struct numbered *n = list_entry(m, struct numbered, msg);

	loop_must_own(loops_at(all, 0));
	if (n->number != last_seen[n->sender] + 1)
		out_of_order = true;
	last_seen[n->sender] = n->number;
	mem_free(n);
	atomic_fetch_sub(&left, 1);
}

static void send_storm(void *arg)
{
	int sender = (int)(intptr_t)arg;

	for (int i = 1; i <= STORM; i++) {
		struct numbered *n = mem_new(sizeof *n);
		n->msg.run = numbered_run;
		n->sender = sender;
		n->number = i;
		loop_post(loops_at(all, 0), &n->msg);
	}
}

START_TEST(posts_of_one_thread_keep_their_order)
{
	start(3);
	atomic_store(&left, SENDERS * STORM);
	loop_call(loops_at(all, 1), send_storm, (void *)1);
	loop_call(loops_at(all, 2), send_storm, (void *)2);
	send_storm((void *)0); /* this thread is no loop */
	wait_for();
	stop();
	ck_assert(!out_of_order);
	for (int i = 0; i < SENDERS; i++)
		ck_assert_int_eq(last_seen[i], STORM);
}
END_TEST

static void one_done(void *arg)
{
	(void)arg;
	atomic_fetch_sub(&left, 1);
}

/* Each message finds the loop asleep, or just falling asleep: a lost wake-up would hang here. */
START_TEST(no_wake_up_is_lost)
{
	start(1);
	for (int i = 0; i < 3000; i++) {
		atomic_store(&left, 1);
		loop_call(loops_at(all, 0), one_done, NULL);
		for (int64_t until = clock_ms() + 5000;
			atomic_load(&left) > 0 && clock_ms() < until;)
			if (i % 2)
				usleep(1);
		ck_assert_int_eq(atomic_load(&left), 0);
	}
	stop();
}
END_TEST

START_TEST(what_was_posted_before_the_stop_runs)
{
	all = loops_new(2);
	atomic_store(&left, 1001);
	loop_call(loops_at(all, 0), one_done, NULL); /* before they run */
	loops_run(all);
	for (int i = 0; i < 1000; i++)
		loop_call(loops_at(all, i % 2), one_done, NULL);
	loops_stop(all);
	ck_assert_int_eq(atomic_load(&left), 0);
	loop_call(loops_at(all, 0), one_done, NULL); /* is dropped, does not leak */
	loops_stop(all);
	loops_free(all);
}
END_TEST

static void never_run(struct loop_msg *m)
{
	ck_abort_msg("message %p ran after the end", (void *)m);
}

START_TEST(what_is_posted_after_the_end_is_not_kept)
{
	start(1);
	loops_stop(all);
	struct loop_msg *m = mem_new(sizeof *m);
	m->run = never_run;
	loop_post(loops_at(all, 0), m);
	memset(m, 0xff, sizeof *m); /* its owner lets it go before the loops are freed */
	mem_free(m);
	loop_call(loops_at(all, 0), one_done, NULL);
	loops_free(all);
}
END_TEST

/* ---- timers */

enum { TIMERS = 500 };

static struct loop_timer timers[TIMERS];
static int64_t wanted_at[TIMERS], fired_last;
static bool fired_early, fired_unordered;
static int fired;

static void on_timer(struct loop_timer *t)
{
	int i = (int)(t - timers);

	fired_early |= loop_now_ms(t->loop) < wanted_at[i];
	fired_unordered |= t->at_ms < fired_last;
	fired_last = t->at_ms;
	fired++;
	ck_assert(!loop_timer_is_set(t));
	if (i % 5 == 4)
		ck_abort_msg("a cancelled timer fired");
	atomic_fetch_sub(&left, 1);
}

static void timers_start(void *arg)
{
	struct loop *l = arg;

	for (int i = 0; i < TIMERS; i++) {
		loop_timer_init(&timers[i], l, on_timer);
		loop_timer_set(&timers[i], (int64_t)(random_u64() % 5000));
	}
	for (int i = 0; i < TIMERS; i++) { /* all are set anew, both ways */
		int64_t after = (int64_t)(random_u64() % 150);
		wanted_at[i] = loop_now_ms(l) + after;
		loop_timer_set(&timers[i], after);
	}
	for (int i = 4; i < TIMERS; i += 5) {
		loop_timer_cancel(&timers[i]);
		loop_timer_cancel(&timers[i]);
	}
}

START_TEST(what_is_on_its_way_at_the_stop_arrives)
{
	start(2);
	atomic_store(&left, BALLS);
	for (int i = 0; i < BALLS; i++) {
		struct ball *b = mem_new(sizeof *b);
		b->msg.run = ball_run;
		loop_post(loops_at(all, i % 2), &b->msg);
	}
	loops_stop(all);
	ck_assert_int_eq(atomic_load(&left), 0);
	loops_free(all);
}
END_TEST

START_TEST(timers_fire_in_order_and_not_early)
{
	int64_t began = clock_ms();

	random_seed(5);
	atomic_store(&left, TIMERS - TIMERS / 5);
	start(1);
	loop_call(loops_at(all, 0), timers_start, loops_at(all, 0));
	wait_for();
	stop();
	ck_assert_int_lt(clock_ms() - began, 4000);
	ck_assert_int_eq(fired, TIMERS - TIMERS / 5);
	ck_assert(!fired_early);
	ck_assert(!fired_unordered);
}
END_TEST

static void again(struct loop_timer *t)
{
	if (atomic_fetch_sub(&left, 1) > 1)
		loop_timer_set(t, 0);
}

START_TEST(a_timer_may_set_itself)
{
	struct loop_timer t;

	all = loops_new(1);
	loop_timer_init(&t, loops_at(all, 0), again); /* allowed: it does not run yet */
	loop_timer_set(&t, 20);
	atomic_store(&left, 100);
	loops_run(all);
	wait_for();
	stop();
}
END_TEST

/* The time a callback sees after a long sleep is the time of the callback. */
static int64_t socket_seen_ms;

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	char c;

	(void)what;
	if (read(fd, &c, 1) == 1)
		socket_seen_ms = loop_now_ms(arg);
	atomic_fetch_sub(&left, 1);
}

START_TEST(time_is_fresh_after_a_sleep)
{
	int fds[2];
	struct event *e;
	int64_t sent;

	ck_assert_int_eq(pipe(fds), 0);
	all = loops_new(1);
	e = event_new(
		loop_event_base(loops_at(all, 0)), fds[0], EV_READ, on_socket, loops_at(all, 0));
	event_add(e, NULL);
	atomic_store(&left, 1);
	loops_run(all);
	usleep(60000);
	sent = clock_ms();
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	wait_for();
	loops_stop(all);
	ck_assert_int_ge(socket_seen_ms, sent);
	event_free(e);
	loops_free(all);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* ---- stages */

static char trail[64]; /* what ran, in order */
static struct loop_hook hooks[STAGE_COUNT];
static struct loop_hook twice;
static int twice_runs;

static void trail_add(char c)
{
	size_t len = strlen(trail);

	ck_assert_uint_lt(len + 1, sizeof trail);
	trail[len] = c;
	trail[len + 1] = 0;
}

static void local_post(void *arg)
{
	(void)arg;
	trail_add('l');
	loop_hook_want(loop_here(), STAGE_FLUSH, &hooks[STAGE_FLUSH]);     /* this turn */
	loop_hook_want(loop_here(), STAGE_PUBLISH, &hooks[STAGE_PUBLISH]); /* the next */
}

static void hook_run(struct loop_hook *h)
{
	int stage = (int)(h - hooks);

	trail_add((char)('0' + stage));
	if (stage == STAGE_DELIVER)
		loop_call(loop_here(), local_post, NULL);
	if (strlen(trail) == 7)
		atomic_fetch_sub(&left, 1);
}

static void stages_start(void *arg)
{
	struct loop *l = arg;

	for (int i = 0; i < STAGE_COUNT; i++)
		loop_hook_init(&hooks[i], hook_run);
	for (int i = STAGE_COUNT - 2; i >= 0; i--) { /* asked for backwards, and twice */
		loop_hook_want(l, (enum loop_stage)i, &hooks[i]);
		loop_hook_want(l, (enum loop_stage)i, &hooks[i]);
	}
}

START_TEST(stages_run_in_their_order)
{
	atomic_store(&left, 1);
	start(1);
	loop_call(loops_at(all, 0), stages_start, loops_at(all, 0));
	wait_for();
	stop();
	ck_assert_str_eq(trail, "0123l40");
}
END_TEST

static void twice_run(struct loop_hook *h)
{
	(void)h;
	twice_runs++;
	if (atomic_fetch_sub(&left, 1) > 1)
		loop_hook_want(loop_here(), STAGE_PUBLISH, &twice);
	if (twice_runs == 1) /* others of the stage run before it does again */
		loop_hook_want(loop_here(), STAGE_PUBLISH, &hooks[0]);
}

static void other_run(struct loop_hook *h)
{
	(void)h;
	trail_add((char)('0' + twice_runs));
}

static void twice_start(void *arg)
{
	loop_hook_init(&twice, twice_run);
	loop_hook_init(&hooks[0], other_run);
	loop_hook_init(&hooks[1], other_run);
	loop_hook_want(arg, STAGE_PUBLISH, &twice);
	loop_hook_want(arg, STAGE_PUBLISH, &hooks[1]);
	loop_hook_cancel(&hooks[1]);
}

START_TEST(a_hook_that_goes_on_waits_a_turn)
{
	atomic_store(&left, 5);
	start(1);
	loop_call(loops_at(all, 0), twice_start, loops_at(all, 0));
	wait_for();
	stop();
	ck_assert_int_eq(twice_runs, 5);
	ck_assert_str_eq(trail, "1");
}
END_TEST

/* ---- standing still, owning */

static int shared_counter; /* plain: only safe because all loops stand still */
static _Atomic bool churning;

static void change(void *arg)
{
	(void)arg;
	loop_must_own(loops_at(all, 2)); /* now all is ours */
	shared_counter++;
}

static void look(void *arg)
{
	*(int *)arg = shared_counter;
	atomic_fetch_sub(&left, 1);
}

static void churn_alone(void *arg)
{
	if (atomic_load(&churning))
		loop_call(loop_here(), churn_alone, arg);
	else
		atomic_fetch_sub(&left, 1);
}

START_TEST(standing_still_is_exclusive)
{
	int seen = 0;

	start(3);
	atomic_store(&churning, true);
	atomic_store(&left, 4);
	for (int i = 0; i < 3; i++)
		loop_call(loops_at(all, i), churn_alone, NULL);
	for (int i = 0; i < 50; i++)
		loops_stand_still(all, change, NULL);
	atomic_store(&churning, false);
	loop_call(loops_at(all, 1), look, &seen);
	wait_for();
	ck_assert_int_eq(seen, 50);
	loops_stop(all);
	loops_stand_still(all, change, NULL); /* none runs: just the call */
	ck_assert_int_eq(shared_counter, 51);
	loops_free(all);
}
END_TEST

START_TEST(a_strangers_touch_stops_the_process)
{
	start(1);
	loop_must_own(loops_at(all, 0));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("loop");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, three_loops_under_load);
	tcase_add_test(tc, posts_of_one_thread_keep_their_order);
	tcase_add_test(tc, no_wake_up_is_lost);
	tcase_add_test(tc, what_was_posted_before_the_stop_runs);
	tcase_add_test(tc, what_is_posted_after_the_end_is_not_kept);
	tcase_add_test(tc, what_is_on_its_way_at_the_stop_arrives);
	tcase_add_test(tc, timers_fire_in_order_and_not_early);
	tcase_add_test(tc, a_timer_may_set_itself);
	tcase_add_test(tc, time_is_fresh_after_a_sleep);
	tcase_add_test(tc, stages_run_in_their_order);
	tcase_add_test(tc, a_hook_that_goes_on_waits_a_turn);
	tcase_add_test(tc, standing_still_is_exclusive);
	tcase_add_test_raise_signal(tc, a_strangers_touch_stops_the_process, SIGABRT);
	Suite *s = suite_create("loop");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
