#include <check.h>
#include "server/base/crc32c.h"

START_TEST(known_vectors)
{
	uint8_t bytes[32];

	ck_assert_uint_eq(crc32c(bytes_of(NULL, 0)), 0);
	ck_assert_uint_eq(crc32c(bytes_text("123456789")), 0xe3069283);
	memset(bytes, 0, sizeof bytes); /* RFC 3720 B.4 */
	ck_assert_uint_eq(crc32c(bytes_of(bytes, 32)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof bytes);
	ck_assert_uint_eq(crc32c(bytes_of(bytes, 32)), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	ck_assert_uint_eq(crc32c(bytes_of(bytes, 32)), 0x46dd794e);
}
END_TEST

START_TEST(parts_make_the_whole)
{
	uint8_t bytes[300];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 7);
	for (size_t cut = 0; cut <= sizeof bytes; cut++)
		ck_assert_uint_eq(crc32c_more(crc32c(bytes_of(bytes, cut)),
					  bytes_of(bytes + cut, sizeof bytes - cut)),
			crc32c(bytes_of(bytes, sizeof bytes)));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("crc32c");
	tcase_add_test(tc, known_vectors);
	tcase_add_test(tc, parts_make_the_whole);
	Suite *s = suite_create("crc32c");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
