#include <check.h>
#include "protocols/http/http_json.h"

START_TEST(reads_objects_only)
{
	static const char *const bad[] = {"", "[]", "1", "{", "{} x", "{\"a\":\"\xff\"}", "nul",
		"{}{}", "{\"a\":\"b\\u0000c\"}", "{\"a\\u0000\":1}", "{\"a\":\"\\\\\\u0000\"}"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_ptr_null(json_read(bytes_text(bad[i])));
	cJSON *o = json_read(
		bytes_text(" {\"t\":\"x\",\"n\":3,\"f\":1.5,\"b\":true,\"z\":null} \n"));
	const char *text = "old";
	int64_t n = 7;
	bool b = false;
	ck_assert_ptr_nonnull(o);
	ck_assert_int_eq(json_get_text(o, "t", &text), OK);
	ck_assert_str_eq(text, "x");
	ck_assert_int_eq(json_get_text(o, "n", &text), ERR_INVALID);
	ck_assert_int_eq(json_get_text(o, "z", &text), OK);
	ck_assert_str_eq(text, "x");
	ck_assert_int_eq(json_get_int(o, "n", &n), OK);
	ck_assert_int_eq(n, 3);
	ck_assert_int_eq(json_get_int(o, "f", &n), ERR_INVALID);
	ck_assert_int_eq(json_get_int(o, "none", &n), OK);
	ck_assert_int_eq(n, 3);
	ck_assert_int_eq(json_get_bool(o, "b", &b), OK);
	ck_assert(b);
	ck_assert_int_eq(json_get_bool(o, "t", &b), ERR_INVALID);
	cJSON_Delete(o);
	o = json_read(bytes_text("{\"t\":\"\\\\u0000\\u00e9\"}")); /* that is a backslash */
	ck_assert_int_eq(json_get_text(o, "t", &text), OK);
	ck_assert_str_eq(text, "\\u0000\u00e9");
	cJSON_Delete(o);
}
END_TEST

/* A peer's nesting must not eat the stack. */
START_TEST(bounds_nesting)
{
	char deep[20001] = "{\"a\":";
	memset(deep + 5, '[', sizeof deep - 6);
	ck_assert_ptr_null(json_read(bytes_text(deep)));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_json");
	TCase *tc = tcase_create("json");
	tcase_add_test(tc, reads_objects_only);
	tcase_add_test(tc, bounds_nesting);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
