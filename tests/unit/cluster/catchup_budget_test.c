/* What catch-up may take: bytes a second, memory. */
#include <check.h>
#include "cluster/catchup_priv.h"

START_TEST(a_bucket_gives_no_more_than_its_rate)
{
	struct catchup_bucket b = {0};
	int64_t now = 1000000, rate = 1 << 20, taken = 0, refused = 0, latest = 0;

	for (int i = 0; i < 10000; i++) {
		int64_t wait = catchup_bucket_take(&b, now, 64 << 10, rate);

		now += 10000; /* asked for 6.25 times the rate */
		if (wait < 0) {
			refused++;
			continue;
		}
		ck_assert_int_le(wait, CATCHUP_WAIT_MS_MAX * 1000);
		/* It goes when it says: by then no more has gone than the rate allows. */
		latest = now - 10000 + wait;
		ck_assert_int_le(taken, (latest - 1000000) * rate / 1000000 + 1);
		taken += 64 << 10;
	}
	ck_assert_int_gt(refused, 8000);
	ck_assert_int_gt(taken, 99 * rate);
	catchup_bucket_correct(&b, -(1 << 20), rate);
	ck_assert_int_eq(catchup_bucket_take(&b, now, 1, 0), 0);
}
END_TEST

START_TEST(memory_is_bounded_but_one_thing_fits)
{
	struct catchup_memory m = {0};

	ck_assert(catchup_hold(&m, 5000, 1000));
	ck_assert(!catchup_hold(&m, 1, 1000));
	catchup_let_go(&m, 5000);
	for (int i = 0; i < 10; i++)
		ck_assert(catchup_hold(&m, 100, 1000));
	ck_assert(!catchup_hold(&m, 1, 1000));
	ck_assert_int_eq(atomic_load(&m.held), 1000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("catchup_budget");
	TCase *tc = tcase_create("catchup_budget");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, a_bucket_gives_no_more_than_its_rate);
	tcase_add_test(tc, memory_is_bounded_but_one_thing_fits);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
