#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/map.h"

enum { KEYS = 700 };

struct thing {
	char name[24];
	uint64_t number;
	int present; /* the model: whether the map should hold it */
};

static void fill(struct thing *t, int count)
{
	for (int i = 0; i < count; i++) {
		snprintf(t[i].name, sizeof t[i].name, "%.*skey-%d", i % 3, "longer-prefix-", i);
		t[i].number = (uint64_t)i * 0x10001;
		t[i].present = 0;
	}
}

static void check_all(const struct map *m, const struct thing *t, int numbers)
{
	uint32_t at = 0, present = 0, walked = 0;

	for (int i = 0; i < KEYS; i++) {
		void *got = numbers ? map_get_u64(m, t[i].number)
				    : map_get(m, bytes_text(t[i].name));
		present += (uint32_t)t[i].present;
		ck_assert_int_eq(got == &t[i], t[i].present);
		ck_assert_int_eq(got == NULL, !t[i].present);
	}
	ck_assert_uint_eq(m->count, present);
	for (const struct thing *p; (p = map_next(m, &at)) != NULL; walked++)
		ck_assert(p->present);
	ck_assert_uint_eq(walked, present);
}

/* Random puts and removals against the model, growing for one half and emptying in the other. */
START_TEST(agrees_with_a_model)
{
	static struct thing t[KEYS];
	struct map m = {0};
	int numbers = _i;

	fill(t, KEYS);
	random_seed(17 + (uint64_t)_i);
	for (int step = 0; step < 30000; step++) {
		struct thing *p = &t[random_u64() % KEYS];
		int put = (int)(random_u64() % 8) < (step / 5000 % 2 ? 2 : 6);
		void *got;
		if (put)
			got = numbers ? map_put_u64(&m, p->number, p)
				      : map_put(&m, bytes_text(p->name), p);
		else
			got = numbers ? map_remove_u64(&m, p->number)
				      : map_remove(&m, bytes_text(p->name));
		ck_assert_int_eq(got == p, p->present);
		p->present = put;
		if (step % 1000 == 0)
			check_all(&m, t, numbers);
	}
	check_all(&m, t, numbers);
	map_fini(&m);
	ck_assert_ptr_null(m.slots);
}
END_TEST

START_TEST(removes_while_it_walks)
{
	static struct thing t[KEYS];
	struct map m = {0};
	uint32_t at = 0;
	int seen = 0;

	fill(t, KEYS);
	for (int i = 0; i < KEYS; i++)
		ck_assert_ptr_null(map_put(&m, bytes_text(t[i].name), &t[i]));
	for (struct thing *p; (p = map_next(&m, &at)) != NULL; seen++)
		ck_assert_ptr_eq(map_remove(&m, bytes_text(p->name)), p);
	ck_assert_int_eq(seen, KEYS);
	ck_assert_uint_eq(m.count, 0);
	ck_assert_ptr_null(m.slots); /* the big table is gone with its last entry */
	map_fini(&m);
}
END_TEST

START_TEST(shrinks_when_few_are_left)
{
	static struct thing t[KEYS];
	struct map m = {0};

	fill(t, KEYS);
	for (int i = 0; i < KEYS; i++)
		(void)map_put_u64(&m, t[i].number, &t[i]);
	uint32_t mask = m.mask;
	for (int i = 5; i < KEYS; i++)
		ck_assert_ptr_eq(map_remove_u64(&m, t[i].number), &t[i]);
	(void)map_put_u64(&m, t[6].number, &t[6]);
	ck_assert_uint_lt(m.mask, mask / 8);
	for (int i = 0; i < 5; i++)
		ck_assert_ptr_eq(map_get_u64(&m, t[i].number), &t[i]);
	map_fini(&m);
}
END_TEST

START_TEST(the_empty_key_is_a_key)
{
	struct map m = {0};
	int a = 1, b = 2;

	ck_assert_ptr_null(map_get(&m, bytes_of(NULL, 0)));
	ck_assert_ptr_null(map_put(&m, bytes_of(NULL, 0), &a));
	ck_assert_ptr_eq(map_get(&m, bytes_text("")), &a);
	ck_assert_ptr_null(map_get_u64(&m, 0)); /* numbers are other keys */
	ck_assert_ptr_null(map_put_u64(&m, 0, &b));
	ck_assert_ptr_eq(map_remove(&m, bytes_of(NULL, 0)), &a);
	ck_assert_ptr_eq(map_get_u64(&m, 0), &b);
	map_fini(&m);
}
END_TEST

START_TEST(hashes_spread_and_follow_the_seed)
{
	uint8_t key[40];
	int counts[16] = {0};
	uint64_t before;

	for (int i = 0; i < 16000; i++)
		counts[hash_u64((uint64_t)i) & 15]++;
	for (int i = 0; i < 16; i++)
		ck_assert_int_gt(counts[i], 800);
	memset(key, 0, sizeof key);
	for (size_t len = 0; len < sizeof key; len++) /* length and each byte count */
		for (size_t i = 0; i < len; i++) {
			uint64_t plain = hash_bytes(bytes_of(key, len));
			key[i] = 1;
			ck_assert(hash_bytes(bytes_of(key, len)) != plain);
			ck_assert(hash_bytes(bytes_of(key, len - 1)) != plain);
			key[i] = 0;
		}
	hash_seed(1);
	before = hash_bytes(bytes_text("x"));
	hash_seed(2);
	ck_assert(hash_bytes(bytes_text("x")) != before);
	hash_seed(1);
	ck_assert_uint_eq(hash_bytes(bytes_text("x")), before);
}
END_TEST

/* Vectors published in Apache Kafka's own tests. */
START_TEST(murmur2_is_kafkas)
{
	ck_assert_int_eq((int32_t)hash_murmur2(bytes_text("21")), -973932308);
	ck_assert_int_eq((int32_t)hash_murmur2(bytes_text("foobar")), -790332482);
	ck_assert_int_eq((int32_t)hash_murmur2(bytes_text("a-little-bit-long-string")), -985981536);
	ck_assert_int_eq(
		(int32_t)hash_murmur2(bytes_text("a-little-bit-longer-string")), -1486304829);
	ck_assert_int_eq((int32_t)hash_murmur2(bytes_text("abc")), 479470107);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("map");
	tcase_add_loop_test(tc, agrees_with_a_model, 0, 2);
	tcase_add_test(tc, removes_while_it_walks);
	tcase_add_test(tc, shrinks_when_few_are_left);
	tcase_add_test(tc, the_empty_key_is_a_key);
	tcase_add_test(tc, hashes_spread_and_follow_the_seed);
	tcase_add_test(tc, murmur2_is_kafkas);
	Suite *s = suite_create("map");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
