#include <check.h>
#include <string.h>
#include "server/base/err.h"

START_TEST(every_code_has_words_of_its_own)
{
	for (int a = 0; a < ERR_COUNT; a++) {
		ck_assert_uint_gt(strlen(err_text((enum err)a)), 0);
		for (int b = 0; b < a; b++)
			ck_assert_str_ne(err_text((enum err)a), err_text((enum err)b));
	}
	ck_assert_str_eq(err_text(OK), "ok");
}
END_TEST

START_TEST(what_is_no_code_has_words_too)
{
	ck_assert_str_eq(err_text(ERR_COUNT), "unknown error");
	ck_assert_str_eq(err_text((enum err) - 1), "unknown error");
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("err");
	tcase_add_test(tc, every_code_has_words_of_its_own);
	tcase_add_test(tc, what_is_no_code_has_words_too);
	Suite *s = suite_create("err");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
