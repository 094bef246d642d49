#include <check.h>
#include "storage/keys.h"

START_TEST(keys_sort_by_number)
{
	static const uint64_t numbers[] = {0, 1, 255, 256, 65536, UINT32_MAX, UINT64_MAX - 1};
	enum { N = sizeof numbers / sizeof numbers[0] };

	for (int a = 0; a < N; a++) {
		for (int b = 0; b < N; b++) {
			struct entry_key x = key_entry(numbers[a], numbers[b]);
			struct entry_key y = key_entry(numbers[b], numbers[a]);
			int want = (a > b) - (a < b);
			int got = bytes_compare(KEY_BYTES(x), KEY_BYTES(y));

			ck_assert_int_eq((got > 0) - (got < 0), want);
		}
	}
}
END_TEST

START_TEST(keys_lie_in_their_group)
{
	struct group_key from = key_group(5), to = key_group(6);
	struct entry_key e = key_entry(5, UINT64_MAX);
	struct meta_key m = key_meta(5, META_GROUP);
	uint8_t row[ROW_KEY_PREFIX_BYTES + 3];
	size_t len = key_row(5, 0xff, bytes_text("abc"), row);
	struct bytes keys[] = {KEY_BYTES(e), KEY_BYTES(m), bytes_of(row, len)};

	ck_assert_uint_eq(len, sizeof row);
	ck_assert_int_eq(memcmp(row, "\0\0\0\0\0\0\0\5\377abc", len), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_gt(bytes_compare(keys[i], KEY_BYTES(from)), 0);
		ck_assert_int_lt(bytes_compare(keys[i], KEY_BYTES(to)), 0);
	}
}
END_TEST

START_TEST(keys_read_back)
{
	struct entry_key e = key_entry(7, 8);
	struct meta_key m = key_meta(9, META_TRIM);
	uint64_t group, index;
	uint8_t what;

	ck_assert(key_entry_read(KEY_BYTES(e), &group, &index));
	ck_assert_uint_eq(group, 7);
	ck_assert_uint_eq(index, 8);
	ck_assert(key_meta_read(KEY_BYTES(m), &group, &what));
	ck_assert_uint_eq(group, 9);
	ck_assert_uint_eq(what, META_TRIM);
	ck_assert(!key_entry_read(KEY_BYTES(m), &group, &index));
	ck_assert(!key_meta_read(KEY_BYTES(e), &group, &what));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("keys");
	tcase_add_test(tc, keys_sort_by_number);
	tcase_add_test(tc, keys_lie_in_their_group);
	tcase_add_test(tc, keys_read_back);
	Suite *s = suite_create("keys");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
