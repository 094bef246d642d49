#include <check.h>
#include <sys/resource.h>
#include "server/net/limit.h"

START_TEST(total_is_bounded)
{
	struct limit_total t;
	limit_total_init(&t, 2, 1000);
	ck_assert(limit_total_take(&t));
	ck_assert(limit_total_take(&t));
	ck_assert(!limit_total_take(&t));
	ck_assert_int_eq(limit_total_open(&t), 2);
	limit_total_give(&t);
	ck_assert(limit_total_take(&t));
}
END_TEST

START_TEST(files_bound_the_total)
{
	struct limit_total t;
	limit_total_init(&t, 0, 20000);
	ck_assert_int_eq(t.max, 20000 - 2048);
	limit_total_init(&t, 1000000, 1024);
	ck_assert_int_eq(t.max, 768);
	limit_total_init(&t, 0, 10);
	ck_assert_int_eq(t.max, 16);
}
END_TEST

START_TEST(rate_saves_up_a_second)
{
	struct limit_gate g;
	int passed = 0;
	limit_gate_init(&g, 100, 0, 0);
	while (limit_gate_pass(&g, true, 0))
		passed++;
	ck_assert_int_eq(passed, 100);
	ck_assert(!limit_gate_pass(&g, true, 9999));
	ck_assert(limit_gate_pass(&g, true, 10000));
	ck_assert(!limit_gate_pass(&g, true, 10001));
	for (passed = 0; limit_gate_pass(&g, true, 100000000);)
		passed++;
	ck_assert_int_eq(passed, 100);
}
END_TEST

START_TEST(beginnings_are_bounded)
{
	struct limit_gate g;
	limit_gate_init(&g, 0, 1, 0);
	ck_assert(limit_gate_pass(&g, true, 0));
	limit_gate_begin(&g);
	ck_assert(!limit_gate_pass(&g, true, 0));
	ck_assert(limit_gate_pass(&g, false, 0));
	limit_gate_end(&g);
	ck_assert(limit_gate_pass(&g, true, 0));
}
END_TEST

START_TEST(raises_open_files)
{
	struct rlimit l;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	rlim_t hard = l.rlim_max;
	l.rlim_cur = 64;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	ck_assert_int_gt(limit_raise_files(), 64);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	ck_assert(l.rlim_cur == hard);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("limit");
	tcase_add_test(tc, total_is_bounded);
	tcase_add_test(tc, files_bound_the_total);
	tcase_add_test(tc, rate_saves_up_a_second);
	tcase_add_test(tc, beginnings_are_bounded);
	tcase_add_test(tc, raises_open_files);
	Suite *s = suite_create("limit");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
