#include <check.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "server/base/clock.h"

static int64_t fake_us(void)
{
	return 5000999;
}

START_TEST(texts_agree_with_the_library)
{
	random_seed(3);
	for (int i = 0; i < 20000; i++) {
		int64_t ms = (int64_t)(random_u64() % 253402300800000u);
		time_t s = ms / 1000;
		struct tm tm;
		char want[64], got[25];
		ck_assert_ptr_nonnull(gmtime_r(&s, &tm));
		size_t len = strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%S", &tm);
		snprintf(want + len, sizeof want - len, ".%03dZ", (int)(ms % 1000));
		clock_text(ms, got);
		ck_assert_str_eq(got, want);
	}
}
END_TEST

START_TEST(odd_times_still_fit)
{
	char got[25];

	clock_text(0, got);
	ck_assert_str_eq(got, "1970-01-01T00:00:00.000Z");
	clock_text(951782400000, got);
	ck_assert_str_eq(got, "2000-02-29T00:00:00.000Z");
	clock_text(-1, got);
	ck_assert_str_eq(got, "1970-01-01T00:00:00.000Z");
	clock_text(INT64_MAX, got);
	ck_assert_uint_eq(strlen(got), 24);
}
END_TEST

START_TEST(clocks_can_be_replaced)
{
	int64_t before = clock_us();

	ck_assert_int_ge(clock_us(), before);
	ck_assert_int_gt(clock_wall_ms(), 1600000000000);
	clock_replace(fake_us, fake_us);
	ck_assert_int_eq(clock_us(), 5000999);
	ck_assert_int_eq(clock_ms(), 5000);
	ck_assert_int_eq(clock_wall_ms(), 5000);
	clock_replace(NULL, NULL);
	ck_assert_int_ge(clock_us(), before);
}
END_TEST

START_TEST(random_is_random_until_seeded)
{
	uint8_t a[100] = {0}, b[100] = {0};
	uint64_t first = random_u64();
	int zeros = 0;

	ck_assert(first != random_u64());
	random_fill(a, sizeof a);
	for (size_t i = 0; i < sizeof a; i++)
		zeros += a[i] == 0;
	ck_assert_int_lt(zeros, 20);
	random_seed(9);
	random_fill(a, sizeof a);
	random_seed(9);
	random_fill(b, sizeof b);
	ck_assert_mem_eq(a, b, sizeof a);
	random_fill(b, sizeof b);
	ck_assert_mem_ne(a, b, sizeof a);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("clock");
	tcase_add_test(tc, texts_agree_with_the_library);
	tcase_add_test(tc, odd_times_still_fit);
	tcase_add_test(tc, clocks_can_be_replaced);
	tcase_add_test(tc, random_is_random_until_seeded);
	Suite *s = suite_create("clock");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
