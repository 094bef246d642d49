/* What a turn is made of, without a loop around it: timers against a plain list, posts and hooks in
 * the order that is promised. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/base/turn.h"

static struct turn turn;
static char said[256]; /* what ran, in order */

static void setup(void)
{
	turn_init(&turn);
	said[0] = 0;
}

static void teardown(void)
{
	turn_fini(&turn);
}

static void say(char what)
{
	size_t len = strlen(said);

	ck_assert_uint_lt(len + 1, sizeof said);
	said[len] = what;
	said[len + 1] = 0;
}

/* ---- timers */

enum { TIMERS = 200, STEPS = 20000 };

struct alarm {
	struct loop_timer timer;
	int64_t wanted_ms; /* -1: not set */
};
static struct alarm alarms[TIMERS];
static int64_t now_ms, last_ms;
static int fired;

static void on_alarm(struct loop_timer *t)
{
	struct alarm *a = list_entry(t, struct alarm, timer);

	ck_assert_int_ge(a->wanted_ms, last_ms); /* the earlier ones first */
	ck_assert_int_le(a->wanted_ms, now_ms);
	last_ms = a->wanted_ms;
	a->wanted_ms = -1;
	fired++;
}

static int64_t earliest(void)
{
	int64_t at = -1;

	for (int i = 0; i < TIMERS; i++)
		if (alarms[i].wanted_ms >= 0 && (at < 0 || alarms[i].wanted_ms < at))
			at = alarms[i].wanted_ms;
	return at;
}

START_TEST(timers_are_those_of_a_plain_list)
{
	int64_t next;

	random_seed(3);
	now_ms = fired = 0;
	for (int i = 0; i < TIMERS; i++) {
		loop_timer_init(&alarms[i].timer, NULL, on_alarm);
		alarms[i].wanted_ms = -1;
	}
	for (int step = 0; step < STEPS; step++) {
		struct alarm *a = &alarms[random_u64() % TIMERS];

		if (random_u64() % 3 == 0) {
			turn_timer_cancel(&turn, &a->timer);
			a->wanted_ms = -1;
		} else {
			a->wanted_ms = now_ms + (int64_t)(random_u64() % 50);
			turn_timer_set(&turn, &a->timer, a->wanted_ms);
		}
		ck_assert_int_eq(loop_timer_is_set(&a->timer), a->wanted_ms >= 0);
		ck_assert_int_eq(turn_next_ms(&turn, &next), earliest() >= 0);
		if (earliest() >= 0)
			ck_assert_int_eq(next, earliest());
		if (random_u64() % 8 != 0)
			continue;
		now_ms++;
		last_ms = 0;
		turn_timers(&turn, now_ms);
		ck_assert(earliest() < 0 || earliest() > now_ms);
	}
	ck_assert_int_gt(fired, 500);
}
END_TEST

static void again(struct loop_timer *t)
{
	fired++;
	turn_timer_set(&turn, t, 5);
}

START_TEST(a_timer_that_is_due_again_waits)
{
	struct loop_timer t;

	fired = 0;
	loop_timer_init(&t, NULL, again);
	turn_timer_set(&turn, &t, 5);
	turn_timers(&turn, 4);
	ck_assert_int_eq(fired, 0);
	turn_timers(&turn, 10);
	ck_assert_int_eq(fired, 1);
	turn_timers(&turn, 10);
	ck_assert_int_eq(fired, 2);
}
END_TEST

/* ---- posts and hooks */

struct word { /* a message or a hook that says who it is, and perhaps makes others run */
	struct loop_msg msg;
	struct loop_hook hook;
	char name;
	struct word *posts, *wants;
	enum loop_stage stage;
	int times; /* how often it wants */
};

static void act(struct word *w)
{
	say(w->name);
	if (w->posts != NULL)
		msg_queue_push(&turn.local, &w->posts->msg);
	w->posts = NULL;
	if (w->wants != NULL && w->times-- > 0)
		turn_want(&turn, w->stage, &w->wants->hook);
}

static void on_msg(struct loop_msg *m)
{
	act(list_entry(m, struct word, msg));
}

static void on_hook(struct loop_hook *h)
{
	act(list_entry(h, struct word, hook));
}

static void word_init(struct word *w, char name)
{
	*w = (struct word){.msg.run = on_msg, .name = name};
	loop_hook_init(&w->hook, on_hook);
}

START_TEST(posts_keep_their_order)
{
	struct word a, b, c;

	word_init(&a, 'a');
	word_init(&b, 'b');
	word_init(&c, 'c');
	a.posts = &c;
	msg_queue_push(&turn.local, &a.msg);
	msg_queue_push(&turn.local, &b.msg);
	ck_assert(turn_waits(&turn));
	turn_posts(&turn);
	ck_assert_str_eq(said, "abc");
	ck_assert(!turn_waits(&turn));
	ck_assert_ptr_null(msg_queue_pop(&turn.local));
}
END_TEST

START_TEST(stages_run_in_order_and_posts_after_each)
{
	struct word flush, write, deliver, post, late;

	word_init(&flush, 'f');
	word_init(&write, 'w');
	word_init(&deliver, 'd');
	word_init(&post, 'p');
	word_init(&late, 'l');
	turn_want(&turn, STAGE_FLUSH, &flush.hook);
	turn_want(&turn, STAGE_WRITE, &write.hook);
	turn_want(&turn, STAGE_WRITE, &write.hook); /* twice is once */
	write.posts = &post;
	post.wants = &deliver; /* a later stage: in this turn */
	post.stage = STAGE_DELIVER;
	post.times = 1;
	deliver.wants = &late; /* an earlier one: in the next */
	deliver.stage = STAGE_PUBLISH;
	deliver.times = 1;
	turn_stages(&turn);
	ck_assert_str_eq(said, "wpdf");
	ck_assert(turn_waits(&turn));
	turn_stages(&turn);
	ck_assert_str_eq(said, "wpdfl");
	ck_assert(!turn_waits(&turn));
}
END_TEST

START_TEST(a_hook_that_wants_itself_waits_a_turn)
{
	struct word a;

	word_init(&a, 'a');
	a.wants = &a;
	a.stage = STAGE_PROPOSE;
	a.times = 2;
	turn_want(&turn, STAGE_PROPOSE, &a.hook);
	turn_stages(&turn);
	ck_assert_str_eq(said, "a");
	turn_stages(&turn);
	ck_assert_str_eq(said, "aa");
	turn_stages(&turn);
	ck_assert_str_eq(said, "aaa");
	ck_assert(!turn_waits(&turn));
}
END_TEST

/* Two that want each other for ever do not keep the sockets waiting. */
START_TEST(a_stage_ends)
{
	struct word a, b;

	word_init(&a, 'a');
	word_init(&b, 'b');
	a.wants = &b;
	b.wants = &a;
	a.stage = b.stage = STAGE_PUBLISH;
	a.times = b.times = 1000;
	turn_want(&turn, STAGE_PUBLISH, &a.hook);
	turn_stages(&turn);
	ck_assert_uint_ge(strlen(said), 2);
	ck_assert_uint_lt(strlen(said), 100);
	ck_assert(turn_waits(&turn));
	loop_hook_cancel(&a.hook);
	loop_hook_cancel(&b.hook);
	ck_assert(!turn_waits(&turn));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("turn");
	Suite *s = suite_create("turn");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, timers_are_those_of_a_plain_list);
	tcase_add_test(tc, a_timer_that_is_due_again_waits);
	tcase_add_test(tc, posts_keep_their_order);
	tcase_add_test(tc, stages_run_in_order_and_posts_after_each);
	tcase_add_test(tc, a_hook_that_wants_itself_waits_a_turn);
	tcase_add_test(tc, a_stage_ends);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
