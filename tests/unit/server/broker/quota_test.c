#include "server/broker/quota.h"
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static struct bytes B(const char *text) {
	return bytes_text(text);
}

START_TEST(a_name_has_one_limiter)
{
	struct quotas *q = quotas_new();
	char name[32];
	struct limiter *a = quota_limiter(q, QUOTA_USER, B("a"));
	for (int i = 0; i < 20000; i++) { /* several in a chain */
		snprintf(name, sizeof name, "user-%d", i);
		struct limiter *l = quota_limiter(q, QUOTA_USER, B(name));
		ck_assert_ptr_ne(l, a);
		ck_assert_ptr_eq(quota_limiter(q, QUOTA_USER, B(name)), l);
	}
	ck_assert_ptr_eq(quota_limiter(q, QUOTA_USER, B("a")), a);
	ck_assert_ptr_ne(quota_limiter(q, QUOTA_TENANT, B("a")), a);
	quotas_free(q);
	quotas_free(NULL);
}
END_TEST

START_TEST(a_second_is_free_then_it_waits)
{
	struct quotas *q = quotas_new();
	struct limiter *l = quota_limiter(q, QUOTA_USER, B("a"));
	int64_t now = 5000000;
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 600, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 400, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 100, now), 100);
	/* Others are counted for themselves. */
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_OUT, 1000, 1000, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 0, now + 1), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 1, now + 50), 51);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 1, now + 102), 0);
	/* After a pause there is one second again, not more. */
	now += 100000;
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 1000, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 10, now), 10);
	quotas_free(q);
}
END_TEST

/* Over a long time exactly the limit passes, whatever the pieces. */
START_TEST(the_rate_is_the_limit)
{
	static const int64_t limits[] = {1, 7, 1000, 123456, 50000000};
	static const int64_t pieces[] = {1, 3, 100, 5000, 70000};
	struct quotas *q = quotas_new();
	struct limiter *l = quota_limiter(q, QUOTA_TENANT, B("t"));
	int64_t start = 1000000, now = start, used = 0;
	for (int i = 0; i < 20000 && now < start + 1000000; i++) {
		int64_t wait = limiter_charge(l, QUOTA_MESSAGES_IN, limits[_i], pieces[_i], now);
		used += pieces[_i];
		ck_assert_int_le(wait, QUOTA_WAIT_MAX_MS);
		now += wait;
	}
	double seconds = (double)(now - start) / 1000 + 1;
	ck_assert_double_le((double)used, (double)limits[_i] * seconds * 1.01 + (double)pieces[_i]);
	if (now > start + 10000)
		ck_assert_double_ge((double)used, (double)limits[_i] * seconds * 0.98);
	quotas_free(q);
}
END_TEST

START_TEST(a_change_is_in_force_at_once)
{
	struct quotas *q = quotas_new();
	struct limiter *l = quota_limiter(q, QUOTA_USER, B("a"));
	int64_t now = 77;
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, -1, 1 << 30, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 100, 200, now), 1000);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, -1, 1 << 30, now), 0);
	/* What was owed is forgiven who has more now, and is owed still by who has less. */
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000, 1500, now), 500);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 100, 10, now), 600);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1000000, 1000, now), 0);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 0, 1, now), QUOTA_WAIT_MAX_MS);
	/* What is owed has a bound. */
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1, INT64_MAX, now), QUOTA_WAIT_MAX_MS);
	ck_assert_int_eq(limiter_charge(l, QUOTA_BYTES_IN, 1, INT64_MAX, now), QUOTA_WAIT_MAX_MS);
	ck_assert_int_eq(
		limiter_charge(l, QUOTA_BYTES_IN, 1000, 1, now + QUOTA_WAIT_MAX_MS + 1), 0);
	quotas_free(q);
}
END_TEST

START_TEST(connections_are_counted)
{
	struct quotas *q = quotas_new();
	struct limiter *l = quota_limiter(q, QUOTA_USER, B("a"));
	ck_assert(limiter_connect(l, 2));
	ck_assert(limiter_connect(l, 2));
	ck_assert(!limiter_connect(l, 2));
	ck_assert(limiter_connect(l, -1));
	ck_assert_int_eq(limiter_connections(l), 3);
	limiter_add_connections(l, -2);
	ck_assert(limiter_connect(l, 2));
	ck_assert(!limiter_connect(l, 0));
	ck_assert_int_eq(limiter_connections(l), 2);
	quotas_free(q);
}
END_TEST

/* Several threads make, find and charge the same ones. */
enum { THREADS = 4, NAMES = 200, TURNS = 20 };
static struct quotas *shared;
static _Atomic(struct limiter *) found[NAMES];
static void *many(void *arg)
{
	char name[32];
	for (int turn = 0; turn < TURNS; turn++)
		for (int i = 0; i < NAMES; i++) {
			snprintf(name, sizeof name, "n%d", i);
			struct limiter *l = quota_limiter(shared, QUOTA_USER, B(name));
			struct limiter *none = NULL;
			if (!atomic_compare_exchange_strong(&found[i], &none, l))
				ck_assert_ptr_eq(none, l);
			(void)limiter_charge(l, QUOTA_BYTES_IN, 1000, 10, 1);
			ck_assert(limiter_connect(l, -1));
		}
	return arg;
}

START_TEST(threads_share_them)
{
	pthread_t threads[THREADS];
	shared = quotas_new();
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, many, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < NAMES; i++) {
		ck_assert_int_eq(limiter_connections(found[i]), THREADS * TURNS);
		/* 10 used each time, one second is free, and one more now. */
		ck_assert_int_eq(limiter_charge(found[i], QUOTA_BYTES_IN, 1000, 210, 1),
			THREADS * TURNS * 10 + 210 - 1000);
	}
	quotas_free(shared);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("quota");
	TCase *tc = tcase_create("quota");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_name_has_one_limiter);
	tcase_add_test(tc, a_second_is_free_then_it_waits);
	tcase_add_loop_test(tc, the_rate_is_the_limit, 0, 5);
	tcase_add_test(tc, a_change_is_in_force_at_once);
	tcase_add_test(tc, connections_are_counted);
	tcase_add_test(tc, threads_share_them);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
