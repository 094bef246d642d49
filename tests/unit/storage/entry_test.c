/* The stored form of headers: what is written is read back, what is broken is refused. */
#include <check.h>
#include <stdlib.h>
#include "server/base/crc32c.h"
#include "storage/entry.h"

static const struct entry_header full = {.term = 0x0102030405060708,
	.kind = ENTRY_CONFIG,
	.flags = ENTRY_HAS_ROWS | ENTRY_HAS_ORIGIN,
	.base_offset = 0x1122334455667788,
	.count = 0xa1a2a3a4,
	.hlc = 0x2122232425262728,
	.max_ms = -1,
	.payload_bytes = 0xb1b2b3b4,
	.payload_crc = 0xc1c2c3c4,
	.log_bytes = 0x3132333435363738,
	.origin = {0x4142434445464748, 0xd1d2d3d4, 0x5152535455565758}};

START_TEST(layout_is_as_written_down)
{
	static const uint8_t golden[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES] = {1, 3, 3, 0, 0xa1,
		0xa2, 0xa3, 0xa4, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		0x88, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0xb1, 0xb2, 0xb3,
		0xb4, 0xc1, 0xc2, 0xc3, 0xc4, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0xd1,
		0xd2, 0xd3, 0xd4, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58};
	uint8_t out[sizeof golden];
	struct entry_header back;

	ck_assert_uint_eq(entry_header_encode(&full, out), sizeof golden);
	ck_assert_int_eq(memcmp(out, golden, sizeof golden), 0);
	ck_assert_int_eq(entry_header_decode(bytes_of(golden, sizeof golden), &back), OK);
	ck_assert_uint_eq(back.term, full.term);
	ck_assert_int_eq(back.kind, full.kind);
	ck_assert_uint_eq(back.flags, full.flags);
	ck_assert_int_eq(back.base_offset, full.base_offset);
	ck_assert_uint_eq(back.count, full.count);
	ck_assert_int_eq(back.hlc, full.hlc);
	ck_assert_int_eq(back.max_ms, full.max_ms);
	ck_assert_uint_eq(back.payload_bytes, full.payload_bytes);
	ck_assert_uint_eq(back.payload_crc, full.payload_crc);
	ck_assert_uint_eq(back.log_bytes, full.log_bytes);
	ck_assert_uint_eq(back.origin.cluster, full.origin.cluster);
	ck_assert_uint_eq(back.origin.partition, full.origin.partition);
	ck_assert_int_eq(back.origin.offset, full.origin.offset);
}
END_TEST

START_TEST(refuses_every_other_length)
{
	uint8_t out[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES + 1] = {0};
	size_t len = entry_header_encode(&full, out);
	uint8_t *exact = malloc((size_t)_i + 1);
	struct entry_header back;

	memcpy(exact, out, (size_t)_i);
	ck_assert_int_eq(entry_header_decode(bytes_of(exact, (size_t)_i), &back),
		(size_t)_i == len ? OK : ERR_MALFORMED);
	free(exact);
}
END_TEST

START_TEST(refuses_unknown_forms)
{
	static const struct {
		int at;
		uint8_t value;
	} bad[] = {{0, 0}, {0, 2}, {1, 0}, {1, 4}, {2, 0x13}, {3, 1}, {16, 0x80}, {16, 0x7f}};
	uint8_t out[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	size_t len = entry_header_encode(&full, out);
	struct entry_header back;

	out[bad[_i].at] = bad[_i].value;
	if (bad[_i].value == 0x7f)
		memset(out + 17, 0xff, 7);
	ck_assert_int_eq(entry_header_decode(bytes_of(out, len), &back), ERR_MALFORMED);
}
END_TEST

START_TEST(sums_up_its_parts)
{
	struct slice parts[3] = {{NULL, {NULL, 0}}, {NULL, {NULL, 0}}, {NULL, {NULL, 0}}};
	struct entry *e;

	ck_assert_int_eq(slice_copy(bytes_text("1234"), &parts[0]), OK);
	ck_assert_int_eq(slice_copy(bytes_text("56789"), &parts[2]), OK);
	e = entry_new(parts, 3);
	ck_assert_uint_eq(e->head.payload_bytes, 9);
	ck_assert_uint_eq(e->head.payload_crc, 0xe3069283); /* the check value of CRC-32C */
	ck_assert(entry_whole(e));
	ck_assert_uint_gt(entry_memory(e), 9);
	ck_assert_ptr_eq(entry_ref(e), e);
	entry_unref(e);
	entry_unref(e);
	e = entry_new(NULL, 0);
	ck_assert_uint_eq(e->head.payload_bytes, 0);
	ck_assert_uint_eq(e->head.payload_crc, 0);
	ck_assert(entry_whole(e));
	entry_unref(e);
	entry_unref(NULL);
	e = entry_of(1, 2, &full, NULL);
	ck_assert(!entry_whole(e));
	entry_unref(e);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("entry");
	tcase_add_test(tc, layout_is_as_written_down);
	tcase_add_loop_test(
		tc, refuses_every_other_length, 0, ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES + 2);
	tcase_add_loop_test(tc, refuses_unknown_forms, 0, 8);
	tcase_add_test(tc, sums_up_its_parts);
	Suite *s = suite_create("entry");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
