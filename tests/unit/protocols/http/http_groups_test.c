#include "tests/unit/protocols/http/fixture.h"

static const char admin[] = "root:secret";

static void records(const char *as, int count)
{
	for (int i = 0; i < count; i++)
		ck_assert_int_eq(ask_as(as, "POST", "/streams/mqtt/records?partition=1", "x"), 200);
}

START_TEST(a_group_goes_on_where_it_is_told)
{
	START();
	records(NULL, 5);
	ck_assert_int_eq(ask("GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("\"groups\":[]");
	ck_assert_int_eq(ask("GET", "/api/v1/groups/g", NULL), 404);
	ck_assert_int_eq(ask("POST", "/api/v1/groups/g/reset?dry_run",
				 "{\"stream\":\"mqtt\",\"to\":\"latest\"}"),
		200);
	BODY_HAS("\"dry_run\":true");
	BODY_HAS("[{\"partition\":0,\"offset\":0},{\"partition\":1,\"offset\":5}]");
	ck_assert_int_eq(ask("GET", "/api/v1/groups/g", NULL), 404);
	ck_assert_int_eq(ask("POST", "/api/v1/groups/g/reset",
				 "{\"stream\":\"mqtt\",\"partition\":1,\"to\":2}"),
		200);
	ck_assert_int_eq(ask("GET", "/api/v1/groups/g", NULL), 200);
	BODY_HAS("\"stream\":\"mqtt\",\"partition\":1,\"offset\":2,\"end_offset\":5,\"lag\":3,");
	ck_assert_ptr_null(strstr(got.body, "\"partition\":0"));
	ck_assert_int_eq(
		ask("POST", "/api/v1/groups/g/reset", "{\"stream\":\"mqtt\",\"to\":\"earliest\"}"),
		200);
	BODY_HAS("[{\"partition\":0,\"offset\":0},{\"partition\":1,\"offset\":0}]");
	ck_assert_int_eq(
		ask("POST", "/api/v1/groups/g/reset", "{\"stream\":\"mqtt\",\"time\":1}"), 200);
	BODY_HAS("{\"partition\":1,\"offset\":0}");
	ck_assert_int_eq(ask("POST", "/api/v1/groups/g/reset",
				 "{\"stream\":\"mqtt\",\"time\":4000000000000}"),
		200);
	BODY_HAS("{\"partition\":1,\"offset\":5}");
	ck_assert_int_eq(ask("GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("{\"group\":\"g\",\"state\":\"Empty\"");
	ck_assert_int_eq(ask("DELETE", "/api/v1/groups/g?dry_run", NULL), 200);
	ck_assert_int_eq(ask("DELETE", "/api/v1/groups/g", NULL), 204);
	ck_assert_int_eq(ask("DELETE", "/api/v1/groups/g", NULL), 404);
	ck_assert_int_eq(ask("DELETE", "/api/v1/groups/g?dry_run", NULL), 404);
	ck_assert_int_eq(ask("GET", "/api/v1/groups/g", NULL), 404);
	fix_stop();
}
END_TEST

START_TEST(refuses_nonsense)
{
	static const char *const bad[] = {"{}", "{\"stream\":\"mqtt\"}",
		"{\"stream\":\"mqtt\",\"to\":\"noon\"}", "{\"stream\":\"mqtt\",\"to\":-1}",
		"{\"stream\":\"mqtt\",\"to\":1.5}", "{\"stream\":\"mqtt\",\"to\":[]}",
		"{\"stream\":\"mqtt\",\"to\":1,\"time\":1}", "{\"stream\":\"mqtt\",\"time\":\"x\"}",
		"{\"stream\":\"mqtt\",\"to\":1,\"partition\":2}",
		"{\"stream\":\"mqtt\",\"to\":1,\"partition\":-2}", "{\"stream\":7,\"to\":1}",
		"{\"stream\":\"mqtt\",\"to\":1,\"group\":\"h\"}", "[]"};
	START();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_msg(ask("POST", "/api/v1/groups/g/reset", bad[i]) == 400, "%s: %d %s",
			bad[i], got.status, got.body);
	ck_assert_int_eq(
		ask("POST", "/api/v1/groups/g/reset", "{\"stream\":\"no\",\"to\":1}"), 404);
	ck_assert_int_eq(
		ask("POST", "/api/v1/groups/g/reset", "{\"stream\":\"mqtt\",\"to\":1}"), 416);
	ck_assert_int_eq(ask("GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("\"groups\":[]");
	fix_stop();
}
END_TEST

START_TEST(groups_are_of_who_may_and_of_their_tenant)
{
	static const char latest[] = "{\"stream\":\"mqtt\",\"to\":\"latest\"}";
	START("auth.fail_delay=20ms");
	ck_assert_int_eq(
		ask("POST", "/api/v1/users",
			"{\"name\":\"root\",\"password\":\"secret\",\"roles\":[\"admin\"]}"),
		201);
	ck_assert_int_eq(
		ask_as(admin, "POST", "/api/v1/users", "{\"name\":\"bob\",\"password\":\"pw\"}"),
		201);
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/users",
				 "{\"name\":\"eve\",\"password\":\"pw\",\"tenant\":\"acme\","
				 "\"roles\":[\"admin\"]}"),
		201);
	records(admin, 3);
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/groups/g/reset", latest), 200);
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("\"groups\":[]");
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/groups/g", NULL), 403);
	ck_assert_int_eq(ask_as("bob:pw", "DELETE", "/api/v1/groups/g", NULL), 403);
	ck_assert_int_eq(ask_as("bob:pw", "POST", "/api/v1/groups/g/reset", latest), 403);
	ck_assert_int_eq(
		ask_as(admin, "POST", "/api/v1/acls",
			"{\"user\":\"bob\",\"resource\":\"group\",\"name\":\"g\",\"action\":"
			"\"read\"}"),
		201);
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("\"group\":\"g\"");
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/groups/g", NULL), 200);
	BODY_HAS("\"offsets\":[]"); /* of a stream that it may not know of */
	ck_assert_int_eq(ask_as("bob:pw", "POST", "/api/v1/groups/g/reset", latest), 403);
	BODY_HAS("read on this stream");
	ck_assert_int_eq(ask_as("bob:pw", "POST", "/api/v1/groups/g/reset",
				 "{\"stream\":\"none\",\"to\":\"latest\"}"),
		403); /* as if there were one */
	ck_assert_int_eq(ask_as("eve:pw", "GET", "/api/v1/groups", NULL), 200);
	BODY_HAS("\"groups\":[]");
	ck_assert_int_eq(ask_as("eve:pw", "GET", "/api/v1/groups/g", NULL), 404);
	ck_assert_int_eq(ask_as("eve:pw", "POST", "/api/v1/streams", "{\"name\":\"s\"}"), 201);
	ck_assert_int_eq(ask_as("eve:pw", "POST", "/api/v1/groups/g/reset",
				 "{\"stream\":\"s\",\"to\":\"latest\"}"),
		200);
	ck_assert_int_eq(ask_as("eve:pw", "GET", "/api/v1/groups/g", NULL), 200);
	BODY_HAS("\"stream\":\"s\"");
	ck_assert_int_eq(ask_as("eve:pw", "DELETE", "/api/v1/groups/g", NULL), 204);
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/groups/g", NULL), 200);
	BODY_HAS("\"stream\":\"mqtt\"");
	fix_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_groups");
	TCase *tc = tcase_create("groups");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_group_goes_on_where_it_is_told);
	tcase_add_test(tc, refuses_nonsense);
	tcase_add_test(tc, groups_are_of_who_may_and_of_their_tenant);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
