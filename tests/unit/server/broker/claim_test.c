/* Claims of one name by many from several loops: never two holders, everyone gets it, in the order
 * of asking, and all memory comes back. */
#include "server/broker/claim.h"
#include <check.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include "server/base/mem.h"

enum { LOOPS = 3, CLAIMS = 300 };

static _Atomic int holders, granted, released, fenced, overlaps;
static struct claim_home home;

struct one {
	struct claim claim;
	struct loop_timer timer;
	struct loop *loop;
	bool held;
	int number;
	char name[8];
};

static struct one *of(struct claim *c)
{
	return list_entry(c, struct one, claim);
}

static void give_back(struct one *o)
{
	if (!o->held)
		return;
	o->held = false;
	atomic_fetch_sub(&holders, 1);
	claim_release(&o->claim);
}

static void give_back_call(void *arg)
{
	give_back(arg);
}

static void on_timer(struct loop_timer *t)
{
	give_back(list_entry(t, struct one, timer));
}

static void on_granted(struct claim *c)
{
	struct one *o = of(c);
	if (atomic_fetch_add(&holders, 1) != 0)
		atomic_fetch_add(&overlaps, 1);
	o->held = true;
	atomic_fetch_add(&granted, 1);
	if (o->number % 7 == 0) /* goes by itself, maybe while it is being fenced */
		give_back(o);
}
static void on_fenced(struct claim *c)
{
	struct one *o = of(c);
	atomic_fetch_add(&fenced, 1);
	if (o->number % 3 == 0)
		loop_timer_set(&o->timer, 1); /* takes its time */
	else
		give_back(o);
}
static void on_released(struct claim *c)
{
	struct one *o = of(c);
	loop_timer_cancel(&o->timer);
	mem_free(o);
	atomic_fetch_add(&released, 1);
}
static const struct claim_ops ops = {on_granted, on_fenced, on_released};

static void ask(void *arg)
{
	struct one *o = arg;
	loop_timer_init(&o->timer, o->loop, on_timer);
	claim_acquire(&o->claim, &home, o->loop, &ops, bytes_text(o->name));
}

static void wait_for(_Atomic int *value, int want)
{
	for (int i = 0; i < 20000 && atomic_load(value) < want; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	ck_assert_int_ge(atomic_load(value), want);
}

static void drop_last(void *arg)
{
	(void)arg;
	struct claim *c = map_get(&home.holders, bytes_text("name"));
	/* The last one is not fenced by anybody: on its loop, as it would end by itself. */
	loop_call(c->from, give_back_call, of(c));
}

START_TEST(one_at_a_time)
{
	struct loops *loops = loops_new(LOOPS);
	claim_home_init(&home, loops_at(loops, 0));
	loops_run(loops);
	for (int i = 0; i < CLAIMS; i++) {
		struct one *o = mem_new(sizeof *o);
		o->loop = loops_at(loops, i % LOOPS);
		o->number = i + 1;
		memcpy(o->name, "name", 5);
		loop_call(o->loop, ask, o);
	}
	wait_for(&granted, CLAIMS);
	if (atomic_load(&holders) > 0)
		loop_call(home.loop, drop_last, NULL);
	wait_for(&released, CLAIMS);
	ck_assert_int_eq(atomic_load(&overlaps), 0);
	ck_assert_int_eq(atomic_load(&granted), CLAIMS);
	ck_assert_int_gt(atomic_load(&fenced), 0);
	loops_stop(loops);
	ck_assert_uint_eq(home.holders.count, 0);
	claim_home_fini(&home);
	loops_free(loops);
}
END_TEST

/* Who wants a holder up to an epoch gone. */

static struct {
	struct loop *loop;
	struct claim holder, late, later, other;
	_Atomic int granted, fenced, released;
	int of_holder; /* times fenced */
} e;

static void e_granted(struct claim *c)
{
	if (c != &e.holder)
		claim_release(c);
	e.granted++;
}
static void e_fenced(struct claim *c)
{
	e.of_holder += c == &e.holder;
	e.fenced++;
}
static void e_released(struct claim *c)
{
	(void)c;
	e.released++;
}
static const struct claim_ops e_ops = {e_granted, e_fenced, e_released};

static void e_acquire(struct claim *c, uint64_t upto)
{
	claim_acquire_upto(c, &home, e.loop, &e_ops, bytes_text("name"), upto);
}
static void hold(void *arg)
{
	(void)arg;
	e_acquire(&e.holder, UINT64_MAX);
}
static void come_late(void *arg)
{
	(void)arg;
	e_acquire(&e.late, 4);
}
static void come_in_time(void *arg)
{
	(void)arg;
	e_acquire(&e.later, 5);
}
static void come_for_the_name(void *arg)
{
	(void)arg;
	e_acquire(&e.other, UINT64_MAX);
}
static void know_epoch(void *arg)
{
	(void)arg;
	claim_set_epoch(&e.holder, 5);
}
static void outlive(void *arg)
{
	claim_set_epoch(&e.holder, 5);
	*(bool *)arg = claim_outlives(&e.holder);
	e.granted++;
}
static void withdraw(void *arg)
{
	(void)arg;
	claim_withdraw(&e.other);
}
static void leave(void *arg)
{
	(void)arg;
	claim_release(&e.holder);
}

static struct loops *e_up(void)
{
	struct loops *loops = loops_new(LOOPS);
	memset(&e, 0, sizeof e);
	claim_home_init(&home, loops_at(loops, 0));
	e.loop = loops_at(loops, 1);
	loops_run(loops);
	loop_call(e.loop, hold, NULL);
	wait_for(&e.granted, 1);
	return loops;
}
static void e_down(struct loops *loops)
{
	loops_stop(loops);
	ck_assert_uint_eq(home.holders.count, 0);
	claim_home_fini(&home);
	loops_free(loops);
}

START_TEST(a_later_holder_is_not_meant)
{
	struct loops *loops = e_up();
	loop_call(e.loop, know_epoch, NULL);
	loop_call(e.loop, come_late, NULL);
	wait_for(&e.released, 1); /* without a grant, and at once */
	ck_assert_int_eq(e.granted, 1);
	ck_assert_int_eq(e.fenced, 0);
	loop_call(e.loop, come_in_time, NULL);
	wait_for(&e.fenced, 1);
	loop_call(e.loop, leave, NULL);
	wait_for(&e.released, 3);
	ck_assert_int_eq(e.granted, 2);
	e_down(loops);
}
END_TEST

/* Fenced before it knew its epoch; _i: somebody else wants the name, too. */
START_TEST(one_that_learns_its_epoch_later)
{
	struct loops *loops = e_up();
	bool outlived = false;
	loop_call(e.loop, come_late, NULL);
	wait_for(&e.fenced, 1);
	if (_i == 1)
		loop_call(e.loop, come_for_the_name, NULL);
	for (int i = 0; _i == 1 && i < 20000 && atomic_load(&e.holder.against) < UINT64_MAX; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	loop_call(e.loop, outlive, &outlived);
	wait_for(&e.granted, 2);
	ck_assert_int_eq(outlived, _i == 0);
	if (_i == 0) {
		wait_for(&e.released, 1);
		loop_call(e.loop, come_for_the_name, NULL);
		wait_for(&e.fenced, 2); /* anew */
	}
	loop_call(e.loop, leave, NULL);
	wait_for(&e.released, 3);
	ck_assert_int_eq(e.of_holder, _i == 0 ? 2 : 1);
	e_down(loops);
}
END_TEST

/* It goes when the next one comes, though the holder stays; who waits goes on waiting. */
START_TEST(who_has_gone_does_not_wait)
{
	struct loops *loops = e_up();
	loop_call(e.loop, come_for_the_name, NULL);
	loop_call(e.loop, withdraw, NULL);
	wait_for(&e.fenced, 1);
	loop_call(e.loop, come_in_time, NULL);
	wait_for(&e.released, 1);
	ck_assert_int_eq(e.granted, 1);
	loop_call(e.loop, leave, NULL);
	wait_for(&e.released, 3);
	ck_assert_int_eq(e.granted, 2);
	ck_assert_int_eq(e.of_holder, 1);
	e_down(loops);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("claim");
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, one_at_a_time);
	tcase_add_test(tc, a_later_holder_is_not_meant);
	tcase_add_loop_test(tc, one_that_learns_its_epoch_later, 0, 2);
	tcase_add_test(tc, who_has_gone_does_not_wait);
	Suite *s = suite_create("claim");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
