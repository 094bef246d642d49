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
	for (int i = 0; i < 5000 && atomic_load(value) < want; i++)
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

int main(void)
{
	TCase *tc = tcase_create("claim");
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, one_at_a_time);
	Suite *s = suite_create("claim");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
