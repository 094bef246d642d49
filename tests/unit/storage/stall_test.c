#include "storage/stall.h"
#include <check.h>

START_TEST(a_hanging_write_grows)
{
	struct stall s = {.every_ms = 50};

	ck_assert_int_eq(stall_look(&s, 0, 1000), 0);
	for (int64_t ms = 50; ms < 12000; ms += 50)
		ck_assert_int_eq(stall_look(&s, ms, 1000 + ms), ms);
	ck_assert_int_eq(stall_look(&s, 0, 13050), 0);
}
END_TEST

START_TEST(standing_still_is_not_the_disks_doing)
{
	struct stall s = {.every_ms = 50};

	ck_assert_int_eq(stall_look(&s, 20, 1000), 20);
	ck_assert_int_eq(stall_look(&s, 20020, 21000), 70);
	ck_assert_int_eq(stall_look(&s, 20070, 21050), 120); /* it hangs all the same */
	ck_assert_int_eq(stall_look(&s, 31020, 32000), 170); /* stopped once more */
	ck_assert_int_eq(stall_look(&s, 30, 32050), 30);     /* the next one */
	ck_assert_int_eq(stall_look(&s, 80, 32100), 80);
}
END_TEST

START_TEST(a_write_that_began_after_the_stop_counts_in_full)
{
	struct stall s = {.every_ms = 50};

	ck_assert_int_eq(stall_look(&s, 0, 1000), 0);
	ck_assert_int_eq(stall_look(&s, 10, 21000), 0);
	for (int64_t ms = 60; ms < 11000; ms += 50)
		ck_assert_int_eq(stall_look(&s, ms, 20990 + ms), ms - 10);
}
END_TEST

/* A loaded machine lets the watch come late by less: that time counts. */
START_TEST(a_little_late_counts)
{
	struct stall s = {.every_ms = 50};

	ck_assert_int_eq(stall_look(&s, 100, 1000), 100);
	ck_assert_int_eq(stall_look(&s, 500, 1400), 500);
	ck_assert_int_eq(stall_look(&s, 1000, 1900), 1000);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("stall");
	tcase_add_test(tc, a_hanging_write_grows);
	tcase_add_test(tc, standing_still_is_not_the_disks_doing);
	tcase_add_test(tc, a_write_that_began_after_the_stop_counts_in_full);
	tcase_add_test(tc, a_little_late_counts);
	Suite *s = suite_create("stall");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
