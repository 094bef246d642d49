#include "server/base/clock.h"
#include "tests/unit/protocols/http/fixture.h"

START_TEST(writes_and_reads)
{
	START();
	int fd = dial();
	put(fd,
		"POST /streams/mqtt/records?partition=0 HTTP/1.1\r\nHost: a\r\nX-Key: k\r\n"
		"X-Prop-Color: red\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
	ck_assert_int_eq(get_reply(fd), 200);
	BODY_HAS("{\"stream\":\"mqtt\",\"partition\":0,\"offset\":0,\"timestamp\":");
	put(fd,
		"POST /streams/mqtt/records?partition=0 HTTP/1.1\r\nHost: a\r\n"
		"Content-Length: 2\r\n\r\n\xff\xfe");
	ck_assert_int_eq(get_reply(fd), 200);
	put(fd, "DELETE /streams/mqtt/records?partition=0&key=k HTTP/1.1\r\nHost: a\r\n\r\n");
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?partition=0", NULL), 200);
	BODY_HAS("\"first_offset\":0,\"end_offset\":3,\"records\":[{\"offset\":0,");
	BODY_HAS("\"key\":\"k\",\"value\":\"hello\",\"headers\":[{\"name\":\"color\","
		 "\"value\":\"red\"},{\"name\":\"content-type\",\"value\":\"text/plain\"}]}");
	BODY_HAS("\"key\":null,\"value_base64\":\"//4=\"");
	BODY_HAS("\"key\":\"k\",\"value\":null}");
	BODY_HAS("\"next_offset\":3}");
	ck_assert_int_eq(
		ask("GET", "/streams/mqtt/records?partition=0&offset=1&max=1&encoding=base64",
			NULL),
		200);
	BODY_HAS("\"records\":[{\"offset\":1,");
	BODY_HAS("\"next_offset\":2}");
	fix_stop();
}
END_TEST

/* Many a reader of JSON ends a text at a NUL. */
START_TEST(what_holds_a_nul_is_no_text)
{
	START();
	int fd = dial();
	put(fd,
		"POST /streams/mqtt/records?partition=0&key= HTTP/1.1\r\nHost: a\r\n"
		"Content-Length: 3\r\n\r\n");
	put_bytes(fd, "a\0b", 3);
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?partition=0", NULL), 200);
	BODY_HAS("\"key\":\"\",\"value_base64\":\"YQBi\"}");
	fix_stop();
}
END_TEST

/* Nobody makes a message one that MQTT's door takes for its own work. */
START_TEST(leaves_out_names_of_the_doors)
{
	static const char ours[] = " HTTP/1.1\r\nHost: a\r\nX-Prop-MQTT.from: c\r\n"
				   "X-Prop-mqtt.user: 1\r\nX-Prop-mqtt.pfi: 1\r\n"
				   "X-Prop-~mark: 1\r\nX-Prop-mqtt.topic: t\r\n"
				   "X-Prop-mqtt: 1\r\nContent-Length: 1\r\n\r\nx";
	char request[512];
	START("stream.partitions=1");
	int fd = dial();
	snprintf(request, sizeof request, "POST /topics/a?qos=1%s", ours);
	put(fd, request);
	ck_assert_int_eq(get_reply(fd), 200);
	snprintf(request, sizeof request, "POST /streams/mqtt/records%s", ours);
	put(fd, request);
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records", NULL), 200);
	BODY_HAS("\"headers\":[{\"name\":\"mqtt.qos\",\"value\":\"1\"},"
		 "{\"name\":\"mqtt\",\"value\":\"1\"}]}");
	BODY_HAS("\"headers\":[{\"name\":\"mqtt.topic\",\"value\":\"t\"},"
		 "{\"name\":\"mqtt\",\"value\":\"1\"}]}");
	fix_stop();
}
END_TEST

START_TEST(a_key_keeps_its_partition)
{
	char first[32] = "";
	START();
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(ask("POST", "/streams/mqtt/records?key=same", "x"), 200);
		const char *p = strstr(got.body, "\"partition\":");
		ck_assert_ptr_nonnull(p);
		if (i == 0)
			snprintf(first, sizeof first, "%.13s", p);
		ck_assert(strncmp(p, first, 13) == 0);
	}
	fix_stop();
}
END_TEST

START_TEST(waits_for_records)
{
	START();
	int fd = dial();
	int64_t began = clock_ms();
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?wait=200ms", NULL), 200);
	ck_assert_int_ge(clock_ms() - began, 200);
	began = clock_ms();
	put(fd, "GET /streams/mqtt/records?wait=30s HTTP/1.1\r\nHost: a\r\n\r\n");
	usleep(50000);
	ck_assert_int_eq(ask("POST", "/streams/mqtt/records?partition=0", "late"), 200);
	ck_assert_int_eq(get_reply(fd), 200);
	BODY_HAS("\"value\":\"late\"");
	ck_assert_int_lt(clock_ms() - began, 30000); /* as soon as there is one */
	put(fd, "GET /streams/mqtt/records?offset=latest&wait=30s HTTP/1.1\r\nHost: a\r\n\r\n");
	usleep(20000);
	fix_stop(); /* with one still waiting */
	close(fd);
}
END_TEST

START_TEST(refuses_nonsense)
{
	static const char *const bad[] = {"partition=x", "partition=9", "partition=-1", "max=0",
		"max=10001", "offset=soon", "offset=-5", "wait=x", "encoding=hex", "time=x",
		"bytes=0"};
	char target[100];
	START();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(target, sizeof target, "/streams/mqtt/records?%s", bad[i]);
		ck_assert_msg(ask("GET", target, NULL) == 400, "%s: %s", bad[i], got.body);
	}
	ck_assert_int_eq(ask("GET", "/streams/none/records", NULL), 404);
	ck_assert_int_eq(ask("POST", "/streams/none/records", "x"), 404);
	ck_assert_int_eq(ask("POST", "/streams/mqtt/records?partition=2", "x"), 416);
	ck_assert_int_eq(ask("GET", "/streams/mqtt/records?offset=1", NULL), 416);
	ck_assert_int_eq(ask("POST", "/topics/a/+/b", "x"), 400);
	ck_assert_int_eq(ask("POST", "/topics/a?qos=3", "x"), 400);
	ck_assert_int_eq(ask("POST", "/topics/a?expires=never", "x"), 400);
	fix_stop();
}
END_TEST

START_TEST(finds_by_time)
{
	char target[100];
	START();
	ck_assert_int_eq(ask("POST", "/streams/mqtt/records?partition=0", "old"), 200);
	usleep(20000);
	int64_t between = clock_wall_ms();
	usleep(20000);
	ck_assert_int_eq(ask("POST", "/streams/mqtt/records?partition=0", "new"), 200);
	snprintf(target, sizeof target, "/streams/mqtt/records?time=%lld", (long long)between);
	ck_assert_int_eq(ask("GET", target, NULL), 200);
	BODY_HAS("\"records\":[{\"offset\":1,");
	snprintf(target, sizeof target, "/streams/mqtt/records?time=%lld",
		(long long)clock_wall_ms() + 60000);
	ck_assert_int_eq(ask("GET", target, NULL), 200);
	BODY_HAS("\"records\":[],\"next_offset\":2");
	fix_stop();
}
END_TEST

START_TEST(topics_publish_and_retain)
{
	START();
	ck_assert_int_eq(ask("POST", "/topics/plant/7/temp", "21.5"), 200);
	BODY_HAS("{\"topic\":\"plant/7/temp\",\"offset\":0}");
	ck_assert_int_eq(ask("GET", "/topics/plant/7/temp", NULL), 404);
	int fd = dial();
	put(fd,
		"POST /topics/plant/7/temp?retain=true HTTP/1.1\r\nHost: a\r\n"
		"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\n22.0");
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	ck_assert_int_eq(ask("GET", "/topics/plant/7/temp", NULL), 200);
	ck_assert_str_eq(got.body, "22.0");
	ck_assert_ptr_nonnull(strstr(got.head, "Content-Type: text/plain\r\n"));
	ck_assert_ptr_nonnull(strstr(got.head, "X-Offset: 1\r\n"));
	ck_assert_int_eq(ask("DELETE", "/topics/plant/7/temp", NULL), 200);
	ck_assert_int_eq(ask("GET", "/topics/plant/7/temp", NULL), 404);
	ck_assert_int_eq(ask("POST", "/topics/plant/7/temp?retain&expires=1ms", "x"), 200);
	usleep(20000);
	ck_assert_int_eq(ask("GET", "/topics/plant/7/temp", NULL), 404);
	ck_assert_int_eq(ask("POST", "/topics/q0?qos=0", "x"), 202);
	fix_stop();
}
END_TEST

/* Answers larger than what goes at once, and a reader who takes its time. */
START_TEST(large_answers)
{
	static char body[60000], request[61000];
	START();
	int fd = dial();
	memset(body, 'v', sizeof body - 1);
	int n = snprintf(request, sizeof request,
		"POST /streams/mqtt/records?partition=0 HTTP/1.1\r\nHost: a\r\n"
		"Content-Length: %zu\r\n\r\n%s",
		sizeof body - 1, body);
	for (int i = 0; i < 5; i++) {
		put_bytes(fd, request, (size_t)n);
		ck_assert_int_eq(get_reply(fd), 200);
	}
	for (int i = 0; i < 40; i++)
		put(fd, "GET /streams/mqtt/records?bytes=300000 HTTP/1.1\r\nHost: a\r\n\r\n");
	usleep(200000);
	for (int i = 0; i < 40; i++) {
		ck_assert_int_eq(get_reply(fd), 200);
		ck_assert_uint_gt(got.len, 59999);
	}
	close(fd);
	fix_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_records");
	TCase *tc = tcase_create("records");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, writes_and_reads);
	tcase_add_test(tc, what_holds_a_nul_is_no_text);
	tcase_add_test(tc, leaves_out_names_of_the_doors);
	tcase_add_test(tc, a_key_keeps_its_partition);
	tcase_add_test(tc, waits_for_records);
	tcase_add_test(tc, refuses_nonsense);
	tcase_add_test(tc, finds_by_time);
	tcase_add_test(tc, topics_publish_and_retain);
	tcase_add_test(tc, large_answers);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
