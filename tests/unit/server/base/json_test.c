#include <check.h>
#include <stdio.h>
#include "server/base/json.h"

static struct buf out;

static void setup(void)
{
	buf_init(&out, 100000);
}
static void teardown(void)
{
	buf_fini(&out);
}

static void expect(const char *text)
{
	ck_assert_int_eq(out.err, OK);
	ck_assert_msg(bytes_equal(buf_bytes(&out), bytes_text(text)), "%.*s", (int)buf_len(&out),
		(const char *)buf_bytes(&out).at);
}

START_TEST(puts_commas_where_they_belong)
{
	struct json j = json_over(&out);
	json_open(&j, NULL, '{');
	json_open(&j, "a", '[');
	json_int(&j, NULL, -1);
	json_bool(&j, NULL, true);
	json_null(&j, NULL);
	json_open(&j, NULL, '{');
	json_close(&j, '}');
	json_close(&j, ']');
	json_text(&j, "b", "c");
	json_int(&j, "d", INT64_MAX);
	json_real(&j, "e", 1.5);
	json_close(&j, '}');
	expect("{\"a\":[-1,true,null,{}],\"b\":\"c\",\"d\":9223372036854775807,\"e\":1.500}");
}
END_TEST

START_TEST(escapes)
{
	struct json j = json_over(&out);
	json_bytes(&j, NULL, bytes_of("a\"\\\n\r\t\x01\x7f\0\xc3\xa4", 11));
	expect("\"a\\\"\\\\\\n\\r\\t\\u0001\\u007f\\u0000\xc3\xa4\"");
}
END_TEST

START_TEST(never_writes_what_is_not_utf8)
{
	struct json j = json_over(&out);
	json_bytes(&j, NULL, bytes_of("a\xff\xc3", 3));
	expect("\"a??\"");
}
END_TEST

/* RFC 4648 §10 */
START_TEST(base64)
{
	static const char *const vectors[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"}, {"\xfb\xff", "+/8="}};
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		struct json j = json_over(&out);
		char text[32];
		snprintf(text, sizeof text, "\"%s\"", vectors[i][1]);
		json_base64(&j, NULL, bytes_text(vectors[i][0]));
		expect(text);
		buf_clear(&out);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("json");
	TCase *tc = tcase_create("writing");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, puts_commas_where_they_belong);
	tcase_add_test(tc, escapes);
	tcase_add_test(tc, never_writes_what_is_not_utf8);
	tcase_add_test(tc, base64);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
