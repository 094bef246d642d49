#include <check.h>
#include <string.h>
#include "protocols/kafka/kafka_arena.h"
#include "server/base/mem.h"

START_TEST(pieces_are_aligned_and_apart)
{
	struct arena a;
	uint8_t *before = NULL;
	arena_init(&a, 1 << 20);
	for (size_t len = 1; len < 300; len++) {
		uint8_t *p = arena_take(&a, len);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq((uintptr_t)p % 8, 0);
		memset(p, (int)(len & 0xff), len);
		if (before)
			ck_assert_uint_eq(before[len - 2], (len - 1) & 0xff);
		before = p;
	}
	arena_fini(&a);
	ck_assert_uint_eq(a.held, 0);
}
END_TEST

START_TEST(bound_counts_all_blocks)
{
	struct arena a;
	size_t taken = 0;
	arena_init(&a, 100000);
	while (arena_take(&a, 1000))
		taken += 1000;
	ck_assert_int_eq(a.err, ERR_TOOBIG);
	ck_assert_uint_le(a.held, 100000);
	ck_assert_uint_ge(taken, 90000); /* little is lost at the ends of blocks */
	arena_reset(&a);
	ck_assert_ptr_null(arena_take(&a, 100001));
	ck_assert_ptr_null(arena_take(&a, SIZE_MAX));
	ck_assert_int_eq(a.err, ERR_TOOBIG);
	ck_assert_ptr_nonnull(arena_take(&a, 50000));
	arena_fini(&a);
}
END_TEST

START_TEST(reset_keeps_one_small_block)
{
	struct arena a;
	arena_init(&a, 1 << 20);
	void *first = arena_take(&a, 8);
	for (int i = 0; i < 100; i++)
		ck_assert_ptr_nonnull(arena_take(&a, 5000));
	arena_reset(&a);
	ck_assert_uint_le(a.held, 4096);
	ck_assert_ptr_eq(arena_take(&a, 8), first);
	arena_fini(&a);
	ck_assert_ptr_nonnull(arena_take(&a, 60000)); /* usable again */
	arena_reset(&a);
	ck_assert_uint_eq(a.held, 0); /* too large to be kept */
	arena_fini(&a);
}
END_TEST

START_TEST(survives_failed_alloc)
{
	struct arena a;
	arena_init(&a, 1 << 20);
	mem_fail_at(0);
	ck_assert_ptr_null(arena_take(&a, 8));
	ck_assert_int_eq(a.err, ERR_NOMEM);
	ck_assert_ptr_nonnull(arena_take(&a, 8));
	arena_fini(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_arena");
	TCase *tc = tcase_create("arena");
	tcase_add_test(tc, pieces_are_aligned_and_apart);
	tcase_add_test(tc, bound_counts_all_blocks);
	tcase_add_test(tc, reset_keeps_one_small_block);
	tcase_add_test(tc, survives_failed_alloc);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
