/* The rule of idempotent producers, against the table in the protocol and against a model. */
#include <check.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/broker/produce.h"

static enum err add(struct producer_row *r, int16_t epoch, int32_t first, int32_t count,
	int64_t *offset, bool *duplicate)
{
	int32_t last = (int32_t)(((int64_t)first + count - 1) & INT32_MAX);
	return producer_row_add(r, epoch, first, last, offset, duplicate);
}

START_TEST(takes_sequences_in_order)
{
	struct producer_row r = {0};
	bool dup;
	int64_t at = 100;
	ck_assert_int_eq(add(&r, 0, 0, 10, &at, &dup), OK);
	ck_assert(!dup);
	at = 110;
	ck_assert_int_eq(add(&r, 0, 10, 1, &at, &dup), OK);
	ck_assert_int_eq(add(&r, 0, 12, 1, &at, &dup), ERR_SEQUENCE);
	ck_assert_int_eq(add(&r, 0, 5, 1, &at, &dup), ERR_SEQUENCE);
	ck_assert_int_eq(r.count, 2);
}
END_TEST

START_TEST(answers_a_repeat_with_the_first_offset)
{
	struct producer_row r = {0};
	bool dup;
	for (int i = 0; i < 8; i++) {
		int64_t at = 1000 + i * 10;
		ck_assert_int_eq(add(&r, 3, i * 10, 10, &at, &dup), OK);
	}
	ck_assert_int_eq(r.count, PRODUCER_BATCHES);
	for (int i = 0; i < 8; i++) {
		int64_t at = 5000;
		enum err e = add(&r, 3, i * 10, 10, &at, &dup);
		ck_assert_int_eq(e, i < 3 ? ERR_SEQUENCE : OK);
		ck_assert(e != OK || (dup && at == 1000 + i * 10));
	}
	int64_t at = 0; /* the same start with another end is no repeat */
	ck_assert_int_eq(add(&r, 3, 70, 9, &at, &dup), ERR_SEQUENCE);
}
END_TEST

START_TEST(epochs_fence_and_start_anew)
{
	struct producer_row r = {0};
	bool dup;
	int64_t at = 1;
	ck_assert_int_eq(add(&r, 2, 7, 1, &at, &dup), OK); /* nothing known: taken */
	ck_assert_int_eq(add(&r, 1, 8, 1, &at, &dup), ERR_FENCED);
	ck_assert_int_eq(add(&r, 3, 8, 1, &at, &dup), ERR_SEQUENCE);
	ck_assert_int_eq(add(&r, 3, 0, 1, &at, &dup), OK);
	ck_assert_int_eq(r.epoch, 3);
	ck_assert_int_eq(r.count, 1);
	ck_assert_int_eq(add(&r, 2, 7, 1, &at, &dup), ERR_FENCED);
}
END_TEST

START_TEST(sequences_wrap)
{
	struct producer_row r = {0};
	bool dup;
	int64_t at = 1;
	ck_assert_int_eq(add(&r, 0, INT32_MAX - 1, 2, &at, &dup), OK);
	ck_assert_int_eq(add(&r, 0, 0, 3, &at, &dup), OK);
	ck_assert(!dup);
	ck_assert_int_eq(add(&r, 0, 3, 1, &at, &dup), OK);
	struct producer_row s = {0};
	ck_assert_int_eq(add(&s, 0, INT32_MAX, 3, &at, &dup), OK); /* MAX, 0, 1 */
	ck_assert_int_eq(add(&s, 0, 2, 1, &at, &dup), OK);
}
END_TEST

START_TEST(rows_round_trip_and_every_prefix_is_refused)
{
	struct producer_row r = {0}, back;
	uint8_t row[PRODUCER_ROW_BYTES + 1];
	bool dup;
	for (int i = 0; i < _i; i++) {
		int64_t at = INT64_C(1) << (i * 10);
		ck_assert_int_eq(add(&r, 9, i, 1, &at, &dup), OK);
	}
	r.time_ms = 1234567890123;
	size_t len = producer_row_write(&r, row);
	ck_assert_int_eq(producer_row_read(bytes_of(row, len), &back), OK);
	ck_assert_int_eq(back.epoch, r.epoch);
	ck_assert_int_eq(back.time_ms, r.time_ms);
	ck_assert_int_eq(back.count, r.count);
	ck_assert_mem_eq(back.batches, r.batches, sizeof r.batches[0] * (size_t)r.count);
	for (size_t n = 0; n < len; n++) {
		uint8_t *cut = malloc(n + 1);
		memcpy(cut, row, n);
		ck_assert_int_eq(producer_row_read(bytes_of(cut, n), &back), ERR_CORRUPT);
		free(cut);
	}
}
END_TEST

/* A producer that loses answers and sends again: every batch ends up in the log once. */
START_TEST(lossy_producers_write_everything_once)
{
	struct producer_row r = {0};
	int64_t log_end = 0;
	int64_t offset_of[400];
	random_seed((uint64_t)_i + 1);
	for (int next = 0; next < 400;) {
		int window = 1 + (int)(random_u64() % PRODUCER_BATCHES);
		for (int i = next; i < next + window && i < 400; i++) {
			bool dup;
			int64_t at = log_end;
			ck_assert_int_eq(add(&r, 0, i * 2, 2, &at, &dup), OK);
			if (!dup) {
				ck_assert_int_eq(at, i * 2);
				log_end += 2;
			}
			ck_assert_int_eq(at, i * 2);
			offset_of[i] = at;
		}
		int kept = (int)(random_u64() % (uint64_t)(window + 1)); /* the rest is repeated */
		next += kept;
	}
	for (int i = 0; i < 400; i++)
		ck_assert_int_eq(offset_of[i], i * 2);
	ck_assert_int_eq(log_end, 800);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("produce");
	TCase *tc = tcase_create("idempotence");
	tcase_add_test(tc, takes_sequences_in_order);
	tcase_add_test(tc, answers_a_repeat_with_the_first_offset);
	tcase_add_test(tc, epochs_fence_and_start_anew);
	tcase_add_test(tc, sequences_wrap);
	tcase_add_loop_test(
		tc, rows_round_trip_and_every_prefix_is_refused, 0, PRODUCER_BATCHES + 1);
	tcase_add_loop_test(tc, lossy_producers_write_everything_once, 0, 20);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
