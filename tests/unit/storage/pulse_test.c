#include <check.h>
#include <stdatomic.h>
#include <unistd.h>
#include "storage/pulse.h"

static _Atomic int runs;

static void run(void *arg)
{
	atomic_fetch_add((_Atomic int *)arg, 1);
}

static void wait_for(int at_least)
{
	for (int i = 0; i < 10000 && atomic_load(&runs) < at_least; i++)
		usleep(1000);
	ck_assert_int_ge(atomic_load(&runs), at_least);
}

START_TEST(a_kick_runs_it)
{
	struct pulse *p = pulse_new("test", run, &runs, 0);

	for (int i = 1; i <= 20; i++) {
		pulse_kick(p);
		wait_for(i);
	}
	usleep(20000);
	ck_assert_int_eq(atomic_load(&runs), 20);
	pulse_kick(p);
	pulse_free(p);
	ck_assert_int_eq(atomic_load(&runs), 21); /* the last kick is not lost */
}
END_TEST

START_TEST(time_runs_it)
{
	struct pulse *p = pulse_new("test", run, &runs, 5);

	wait_for(5);
	pulse_free(p);
	pulse_free(NULL);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pulse");
	tcase_add_test(tc, a_kick_runs_it);
	tcase_add_test(tc, time_runs_it);
	Suite *s = suite_create("pulse");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
