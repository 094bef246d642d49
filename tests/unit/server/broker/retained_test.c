/* The row of a retained value; sending them is in deliver_test.c. */
#include <check.h>
#include <stdlib.h>
#include "server/base/mem.h"
#include "server/broker/retained.h"

static struct buf row;
static uint8_t *copy;

static void setup(void)
{
	struct batch_builder b;
	struct message m = {.topic = bytes_text("a/b"),
		.value = bytes_text("value"),
		.qos = 1,
		.retain = true,
		.timestamp_ms = 1500,
		.expires_at_ms = 99};
	struct message first = {.topic = bytes_text("x"), .timestamp_ms = 1000};
	batch_builder_init(&b, 4096);
	ck_assert_int_eq(message_encode(&first, &b), OK); /* times refer to the batch's first */
	ck_assert_int_eq(message_encode(&m, &b), OK);
	struct bytes all = buf_bytes(&b.buf);
	struct retained_row r = {.offset = 41,
		.base_ms = b.base_ms,
		.record = bytes_of(all.at + b.record_at, all.len - b.record_at)};
	buf_init(&row, 4096);
	retained_row_encode(&r, &row);
	batch_builder_fini(&b);
}
static void teardown(void)
{
	mem_free(copy);
	buf_fini(&row);
}

/* The row's first len bytes in memory of just that size. */
static struct bytes cut(size_t len)
{
	mem_free(copy);
	copy = mem_try(len > 0 ? len : 1);
	memcpy(copy, buf_bytes(&row).at, len);
	return bytes_of(copy, len);
}

START_TEST(comes_back)
{
	struct message m;
	int64_t offset;
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a/b"), cut(buf_len(&row)), &m, &offset), OK);
	ck_assert_int_eq(offset, 41);
	ck_assert(bytes_equal(m.value, bytes_text("value")));
	ck_assert(bytes_equal(m.topic, bytes_text("a/b")));
	ck_assert_int_eq(m.qos, 1);
	ck_assert(m.retain);
	ck_assert_int_eq(m.timestamp_ms, 1500);
	ck_assert_int_eq(m.expires_at_ms, 99);
}
END_TEST

START_TEST(a_cut_or_odd_row_is_corrupt)
{
	struct message m;
	int64_t offset;
	for (size_t len = 0; len < buf_len(&row); len++)
		ck_assert_int_eq(
			retained_row_decode(bytes_text("a"), cut(len), &m, &offset), ERR_CORRUPT);
	(void)cut(buf_len(&row));
	copy[0] = 2;
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a"), bytes_of(copy, buf_len(&row)), &m, &offset),
		ERR_CORRUPT);
	buf_add_u8(&row, 0);
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a"), buf_bytes(&row), &m, &offset), ERR_CORRUPT);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("retained");
	TCase *tc = tcase_create("retained");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, comes_back);
	tcase_add_test(tc, a_cut_or_odd_row_is_corrupt);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
