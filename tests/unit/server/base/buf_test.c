#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "server/base/buf.h"
#include "server/base/mem.h"

START_TEST(grows_and_keeps_what_it_holds)
{
	struct buf b;

	buf_init(&b, 1 << 20);
	ck_assert_ptr_null(b.chunk);
	for (uint32_t i = 0; i < 20000; i++)
		buf_add_u32be(&b, i);
	ck_assert_int_eq(b.err, OK);
	struct rd r = rd_over(buf_bytes(&b));
	for (uint32_t i = 0; i < 20000; i++)
		ck_assert_uint_eq(rd_u32be(&r), i);
	ck_assert_int_eq(rd_done(&r), OK);
	buf_consume(&b, 79996);
	r = rd_over(buf_bytes(&b));
	ck_assert_uint_eq(rd_u32be(&r), 19999);
	buf_consume(&b, 4);
	ck_assert_ptr_null(b.chunk); /* idle: owns nothing */
	buf_fini(&b);
}
END_TEST

START_TEST(never_passes_its_bound)
{
	struct buf b;

	buf_init(&b, 1000);
	for (int i = 0; i < 1000; i++)
		buf_add_u8(&b, (uint8_t)i);
	ck_assert_int_eq(b.err, OK);
	ck_assert_uint_le(b.chunk->size, 1000);
	buf_add_u8(&b, 1);
	ck_assert_int_eq(b.err, ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&b), 1000);
	ck_assert_ptr_null(buf_room(&b, 0)); /* the failure sticks */
	buf_clear(&b);
	ck_assert_int_eq(b.err, OK);
	ck_assert_ptr_null(buf_room(&b, 1001));
	buf_clear(&b);
	ck_assert_ptr_null(buf_room(&b, SIZE_MAX));
	buf_fini(&b);
}
END_TEST

START_TEST(a_stream_through_it_stays_small)
{
	struct buf b;
	uint8_t next_in = 0, next_out = 0;

	buf_init(&b, 4096);
	for (int round = 0; round < 1000; round++) {
		for (int i = 0; i < 100; i++)
			buf_add_u8(&b, next_in++);
		for (int i = 0; i < (round ? 100 : 50); i++) {
			struct rd r = rd_over(buf_bytes(&b));
			ck_assert_uint_eq(rd_u8(&r), next_out++);
			buf_consume(&b, 1);
		}
	}
	ck_assert_int_eq(b.err, OK);
	ck_assert_uint_le(b.chunk->size, 512);
	buf_fini(&b);
}
END_TEST

START_TEST(shared_bytes_stay_as_they_were)
{
	struct buf b;
	struct slice first, again;

	buf_init(&b, 1 << 16);
	buf_add_text(&b, "first");
	first = buf_share(&b);
	again = slice_ref(first);
	const uint8_t *at = first.bytes.at;
	buf_consume(&b, 3);
	for (int i = 0; i < 1000; i++)
		buf_add_text(&b, "more");
	ck_assert_ptr_ne(b.chunk, first.chunk);
	ck_assert_ptr_eq(first.bytes.at, at);
	ck_assert(bytes_equal(first.bytes, bytes_text("first")));
	ck_assert(bytes_equal(bytes_of(buf_bytes(&b).at, 6), bytes_text("stmore")));
	buf_fini(&b);
	slice_unref(&first);
	ck_assert(bytes_equal(again.bytes, bytes_text("first")));
	ck_assert_uint_eq(atomic_load(&again.chunk->refs), 1);
	slice_unref(&again);
	ck_assert_ptr_null(again.chunk);
}
END_TEST

START_TEST(an_empty_share_owns_nothing)
{
	struct buf b;
	struct slice s;

	buf_init(&b, 100);
	s = buf_share(&b);
	ck_assert_uint_eq(s.bytes.len, 0);
	slice_unref(&s);
	ck_assert_int_eq(slice_copy(bytes_of(NULL, 0), &s), OK);
	ck_assert_uint_eq(s.bytes.len, 0);
	slice_unref(&s);
	buf_fini(&b);
}
END_TEST

START_TEST(survives_failed_allocations)
{
	struct buf b;
	struct slice s;

	mem_fail_at(0);
	ck_assert_int_eq(slice_copy(bytes_text("x"), &s), ERR_NOMEM);
	buf_init(&b, 1 << 20);
	buf_add_text(&b, "kept");
	mem_fail_at(0);
	ck_assert_ptr_null(buf_room(&b, 1000));
	ck_assert_int_eq(b.err, ERR_NOMEM);
	ck_assert(bytes_equal(buf_bytes(&b), bytes_text("kept")));
	buf_add_text(&b, "no");
	ck_assert_uint_eq(buf_len(&b), 4);
	buf_clear(&b);
	mem_fail_at(0);
	buf_addf(&b, "%300d", 7);
	ck_assert_int_eq(b.err, ERR_NOMEM);
	buf_fini(&b);
	ck_assert_ptr_null(chunk_try(((size_t)1 << 30) + 1));
}
END_TEST

START_TEST(numbers_and_formats)
{
	struct buf b;

	buf_init(&b, 1000);
	buf_add_u16be(&b, 0x0102);
	buf_add_u64be(&b, 3);
	buf_add_uvar32(&b, 300);
	buf_add_uvar64(&b, UINT64_MAX);
	buf_add_svar32(&b, -5);
	buf_add_svar64(&b, INT64_MIN);
	struct rd r = rd_over(buf_bytes(&b));
	ck_assert_uint_eq(rd_u16be(&r), 0x0102);
	ck_assert_uint_eq(rd_u64be(&r), 3);
	ck_assert_uint_eq(rd_uvar32(&r), 300);
	ck_assert_uint_eq(rd_uvar64(&r), UINT64_MAX);
	ck_assert_int_eq(rd_svar32(&r), -5);
	ck_assert_int_eq(rd_svar64(&r), INT64_MIN);
	ck_assert_int_eq(rd_done(&r), OK);
	buf_clear(&b);
	buf_addf(&b, "%s=%d;", "a", 1);
	buf_addf(&b, "%990d", 5);
	ck_assert_int_eq(b.err, OK);
	ck_assert_uint_eq(buf_len(&b), 994);
	buf_addf(&b, "%s", "sevenxx");
	ck_assert_int_eq(b.err, ERR_TOOBIG);
	buf_fini(&b);
}
END_TEST

START_TEST(bytes_behind_their_length)
{
	static const uint8_t want[] = {1, 0, 0, 2, 'a', 'b', 0, 0, 0, 1, 'c'};
	struct buf b;
	buf_init(&b, 1 << 20);
	buf_add_bool(&b, true);
	buf_add_bool(&b, false);
	buf_add_bytes16(&b, bytes_text("ab"));
	buf_add_bytes32(&b, bytes_text("c"));
	ck_assert(bytes_equal(buf_bytes(&b), bytes_of(want, sizeof want)));
	uint8_t *big = mem_new(UINT16_MAX + 1);
	buf_add_bytes16(&b, bytes_of(big, UINT16_MAX + 1)); /* no length says that */
	ck_assert_int_eq(b.err, ERR_TOOBIG);
	mem_free(big);
	buf_fini(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("buf");
	tcase_add_test(tc, grows_and_keeps_what_it_holds);
	tcase_add_test(tc, never_passes_its_bound);
	tcase_add_test(tc, a_stream_through_it_stays_small);
	tcase_add_test(tc, shared_bytes_stay_as_they_were);
	tcase_add_test(tc, an_empty_share_owns_nothing);
	tcase_add_test(tc, survives_failed_allocations);
	tcase_add_test(tc, numbers_and_formats);
	tcase_add_test(tc, bytes_behind_their_length);
	Suite *s = suite_create("buf");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
