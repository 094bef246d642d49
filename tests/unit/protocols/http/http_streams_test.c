#include "tests/unit/protocols/http/fixture.h"

START_TEST(a_stream_lives_and_dies)
{
	START();
	ck_assert_int_eq(ask("POST", "/api/v1/streams?dry_run=true", "{\"name\":\"s\"}"), 200);
	ck_assert_int_eq(ask("GET", "/api/v1/streams/s", NULL), 404);
	ck_assert_int_eq(ask("POST", "/api/v1/streams",
				 "{\"name\":\"s\",\"partitions\":3,"
				 "\"settings\":{\"retention.ms\":\"2h\"}}"),
		201);
	BODY_HAS("\"partitions\":3");
	BODY_HAS("\"retention_ms\":7200000");
	BODY_HAS("{\"partition\":2,");
	ck_assert_int_eq(ask("POST", "/api/v1/streams", "{\"name\":\"s\"}"), 409);
	BODY_HAS("\"code\":\"exists\"");
	ck_assert_int_eq(ask("GET", "/api/v1/streams", NULL), 200);
	BODY_HAS("\"name\":\"s\"");
	ck_assert_int_eq(ask("PATCH", "/api/v1/streams/s",
				 "{\"partitions\":4,\"settings\":{\"retention.ms\":null,"
				 "\"retention.bytes\":\"1MiB\"}}"),
		200);
	BODY_HAS("\"partitions\":4");
	BODY_HAS("\"retention_bytes\":1048576");
	BODY_HAS("\"settings\":{\"retention.bytes\":\"1048576\"}");
	ck_assert_int_eq(ask("DELETE", "/api/v1/streams/s?dry_run=1", NULL), 200);
	ck_assert_int_eq(ask("DELETE", "/api/v1/streams/s", NULL), 204);
	ck_assert_int_eq(ask("DELETE", "/api/v1/streams/s", NULL), 404);
	fix_stop();
}
END_TEST

START_TEST(refuses_nonsense)
{
	static const char *const bad[] = {"", "{}", "[]", "{\"name\":7}", "{\"name\":\"a b\"}",
		"{\"name\":\"..\"}", "{\"name\":\"s\",\"partitions\":\"x\"}",
		"{\"name\":\"s\",\"partitions\":0}", "{\"name\":\"s\",\"retention_bytes\":5}",
		"{\"name\":\"s\",\"setting\":{}}", "{\"name\":\"s\",\"settings\":[]}",
		"{\"name\":\"s\",\"settings\":{\"no.such\":\"1\"}}",
		"{\"name\":\"s\",\"settings\":{\"retention.ms\":{}}}"};
	START();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_msg(
			ask("POST", "/api/v1/streams", bad[i]) == 400, "%s: %s", bad[i], got.body);
	ck_assert_int_eq(ask("PATCH", "/api/v1/streams/none", "{}"), 404);
	ck_assert_int_eq(ask("PATCH", "/api/v1/streams/mqtt", "{\"partitions\":1}"), 400);
	fix_stop();
}
END_TEST

START_TEST(trims)
{
	START();
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(ask("POST", "/streams/mqtt/records?partition=1", "x"), 200);
	ck_assert_int_eq(
		ask("POST", "/api/v1/streams/mqtt/trim", "{\"partition\":1,\"before_offset\":3}"),
		200);
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?partition=1", NULL), 200);
	BODY_HAS("\"first_offset\":3");
	BODY_HAS("\"records\":[{\"offset\":3,");
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?partition=1&offset=2", NULL), 416);
	ck_assert_int_eq(ask("POST", "/api/v1/streams/mqtt/trim", "{\"before_offset\":99}"), 200);
	BODY_HAS("\"partitions_trimmed\":2");
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?partition=1", NULL), 200);
	BODY_HAS("\"first_offset\":5");
	ck_assert_int_eq(ask("POST", "/api/v1/streams/mqtt/trim", "{}"), 400);
	ck_assert_int_eq(ask("POST", "/api/v1/streams/mqtt/trim",
				 "{\"before_offset\":1,\"older_than\":\"1h\"}"),
		400);
	ck_assert_int_eq(
		ask("POST", "/api/v1/streams/mqtt/trim", "{\"partition\":9,\"before_offset\":1}"),
		416);
	fix_stop();
}
END_TEST

START_TEST(routes_lead_elsewhere)
{
	START("route.fixed=f/# -> mqtt");
	ck_assert_int_eq(ask("PUT", "/api/v1/routes/o", "{\"route\":\"o/# -> orders\"}"), 204);
	ck_assert_int_eq(ask("GET", "/api/v1/routes", NULL), 200);
	BODY_HAS("{\"name\":\"o\",\"route\":\"o/# -> orders\",\"filter\":\"o/#\","
		 "\"stream\":\"orders\",\"durability\":\"sync\",\"key\":\"topic\","
		 "\"source\":\"cluster\"}");
	BODY_HAS("\"source\":\"config\"");
	for (int i = 0; i < 2000 && ask("GET", "/api/v1/streams/orders", NULL) != 200; i++)
		usleep(10000); /* the broker makes it */
	ck_assert_int_eq(ask("POST", "/topics/o/1", "x"), 200);
	ck_assert_int_eq(ask("GET", "/api/v1/streams/orders", NULL), 200);
	BODY_HAS("\"records\":1,");
	ck_assert_int_eq(ask("DELETE", "/api/v1/routes/o", NULL), 204);
	ck_assert_int_eq(ask("DELETE", "/api/v1/routes/o", NULL), 404);
	ck_assert_int_eq(ask("DELETE", "/api/v1/routes/fixed", NULL), 409);
	ck_assert_int_eq(ask("DELETE", "/api/v1/routes/default", NULL), 409);
	ck_assert_int_eq(ask("PUT", "/api/v1/routes/o", "{\"route\":\"nonsense\"}"), 400);
	ck_assert_int_eq(ask("PUT", "/api/v1/routes/a%20b", "{\"route\":\"o/# -> x\"}"), 400);
	fix_stop();
}
END_TEST

START_TEST(settings)
{
	START("http.idle_ms=70s");
	ck_assert_int_eq(ask("GET", "/api/v1/config", NULL), 200);
	BODY_HAS("{\"key\":\"http.idle_ms\",\"value\":\"70s\",\"source\":\"set\"");
	int before = atomic_load(&reloads);
	ck_assert_int_eq(ask("PUT", "/api/v1/config/http.idle_ms", "{\"value\":\"50s\"}"), 204);
	for (int i = 0; i < 2000 && atomic_load(&reloads) == before; i++)
		usleep(5000);
	ck_assert_int_gt(atomic_load(&reloads), before);
	ck_assert_int_eq(ask("GET", "/api/v1/config", NULL), 200);
	BODY_HAS("\"source\":\"cluster\"");
	ck_assert_int_eq(ask("PUT", "/api/v1/config/http.idle_ms", "{\"value\":\"soon\"}"), 400);
	ck_assert_int_eq(ask("PUT", "/api/v1/config/data.dir", "{\"value\":\"/x\"}"), 409);
	ck_assert_int_eq(ask("PUT", "/api/v1/config/no.such", "{\"value\":\"1\"}"), 404);
	ck_assert_int_eq(ask("DELETE", "/api/v1/config/http.idle_ms", NULL), 204);
	ck_assert_int_eq(ask("DELETE", "/api/v1/config/http.idle_ms", NULL), 404);
	fix_stop();
}
END_TEST

START_TEST(pages)
{
	START();
	ck_assert_int_eq(ask("GET", "/", NULL), 200);
	BODY_HAS("/metrics");
	ck_assert_int_eq(ask("GET", "/api/v1", NULL), 200);
	for (int i = 0; i < 2000; i++) { /* until those of before are gone */
		ck_assert_int_eq(ask("GET", "/api/v1/node", NULL), 200);
		if (strstr(got.body, "\"connections\":1,") != NULL)
			break;
		usleep(5000);
	}
	BODY_HAS("\"state\":\"ready\"");
	BODY_HAS("\"connections\":1,");
	ck_assert_int_eq(ask("GET", "/openapi.json", NULL), 200);
	BODY_HAS("\"/topics/{topic}\":{\"post\":{");
	BODY_HAS("\"/openapi.json\":{");
	ck_assert_int_eq(ask("GET", "/metrics", NULL), 200);
	BODY_HAS("sluice_http_requests_total{code=\"2xx\"} ");
	BODY_HAS("\nprocess_resident_memory_bytes ");
	fix_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_streams");
	TCase *tc = tcase_create("api");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_stream_lives_and_dies);
	tcase_add_test(tc, refuses_nonsense);
	tcase_add_test(tc, trims);
	tcase_add_test(tc, routes_lead_elsewhere);
	tcase_add_test(tc, settings);
	tcase_add_test(tc, pages);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
