#include "server/base/clock.h"
#include "tests/unit/protocols/http/fixture.h"

#define HOST  "Host: a\r\n"
#define LIVEZ "GET /livez HTTP/1.1\r\n" HOST "\r\n"

/* Sends bytes and expects one refusal, then the end. */
static void refused(const char *bytes, int status)
{
	int fd = dial();
	put(fd, bytes);
	ck_assert_msg(
		get_reply(fd) == status, "%d instead of %d for %.60s", got.status, status, bytes);
	BODY_HAS("{\"error\":{\"code\":\"");
	ck_assert_ptr_nonnull(strstr(got.head, "Connection: close\r\n"));
	expect_end(fd);
}

START_TEST(refuses_what_is_malformed)
{
	START();
	refused("GARBAGE\r\n\r\n", 400);
	refused("\x16\x03\x01", 400); /* TLS on a plain port */
	refused("get / HTTP/1.1\r\n" HOST "\r\n", 400);
	refused("GET / HTTP/1.1\r\n\r\n", 400);
	refused("GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400);
	refused("GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", 400);
	refused("GET / HTTP/1.1\n" HOST "\r\n", 400);
	refused("GET / HTTP/1.1\r\n" HOST "X\r\n\r\n", 400);
	refused("GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", 400);
	refused("GET / HTTP/1.1\r\n" HOST "X: a\rTransfer-Encoding: chunked\r\n\r\n", 400);
	refused("GET a b HTTP/1.1\r\n" HOST "\r\n", 400);
	refused("POST /topics/a HTTP/1.1\r\n" HOST
		"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
		400);
	refused("POST /topics/a HTTP/1.1\r\n" HOST
		"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		400);
	refused("POST /topics/a HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400);
	refused("POST /topics/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
		400);
	refused("GET / HTTP/2.0\r\n" HOST "\r\n", 505);
	refused("POST /topics/a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: more\r\n\r\n",
		417);
	refused("POST /topics/a HTTP/1.1\r\n" HOST
		"Origin: http://evil\r\nContent-Length: 1\r\n\r\nx",
		403);
	fix_stop();
}
END_TEST

START_TEST(bounds_heads_and_bodies)
{
	static char big[200000];
	START("http.head_bytes_max=2KiB", "http.head_count_max=20", "http.json_bytes_max=1KiB");
	int n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\n" HOST "X: ");
	memset(big + n, 'y', 4000);
	refused(big, 431);
	n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\n" HOST);
	for (int i = 0; i < 30; i++)
		n += snprintf(big + n, sizeof big - (size_t)n, "X%d: y\r\n", i);
	snprintf(big + n, sizeof big - (size_t)n, "\r\n");
	refused(big, 431);
	refused("POST /topics/a HTTP/1.1\r\n" HOST "Content-Length: 100001\r\n\r\n", 413);
	refused("POST /api/v1/streams HTTP/1.1\r\n" HOST "Content-Length: 1025\r\n\r\n", 413);
	refused("POST /topics/a HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n",
		400);
	n = snprintf(big, sizeof big,
		"POST /api/v1/streams HTTP/1.1\r\n" HOST
		"Transfer-Encoding: chunked\r\n\r\n500\r\n");
	memset(big + n, 'z', 1100);
	big[n + 1100] = 0;
	refused(big, 413);
	fix_stop();
}
END_TEST

START_TEST(answers_in_order)
{
	int fd;
	START();
	fd = dial();
	/* The second answers at once, the first waits 200 ms. */
	put(fd,
		"GET /streams/mqtt/records?wait=200ms HTTP/1.1\r\n" HOST "\r\n"
		"GET /livez HTTP/1.1\r\n" HOST "\r\n"
		"HEAD /livez HTTP/1.1\r\n" HOST "\r\n"
		"\r\nGET /no/such HTTP/1.1\r\n" HOST "\r\n"
		"GET /readyz HTTP/1.1\r\nConnection: close\r\n" HOST "\r\n"
		"GET /livez HTTP/1.1\r\n" HOST "\r\n");
	ck_assert_int_eq(get_reply(fd), 200);
	BODY_HAS("\"records\":[]");
	ck_assert_int_eq(get_reply(fd), 200);
	ck_assert_str_eq(got.body, "ok\n");
	ck_assert_int_eq(get_reply_of(fd, true), 200);
	ck_assert_uint_eq(got.len, 3);
	ck_assert_int_eq(get_reply(fd), 404);
	BODY_HAS("not_found");
	ck_assert_int_eq(get_reply(fd), 200);
	ck_assert_ptr_nonnull(strstr(got.head, "Connection: close"));
	expect_end(fd);
	fix_stop();
}
END_TEST

START_TEST(reads_bytes_as_they_come)
{
	static const char request[] = "POST /topics/slow HTTP/1.1\r\n" HOST
				      "Transfer-Encoding: chunked\r\n\r\n"
				      "2\r\nab\r\n1;x=y\r\nc\r\n0\r\nTrailer: t\r\n\r\n";
	int fd;
	START();
	fd = dial();
	for (size_t i = 0; i < sizeof request - 1; i++) {
		put_bytes(fd, request + i, 1);
		if (i % 8 == 0)
			usleep(1000);
	}
	ck_assert_int_eq(get_reply(fd), 200);
	put(fd,
		"GET /streams/mqtt/records?partition=0 HTTP/1.1\r\n" HOST "\r\n"
		"GET /streams/mqtt/records?partition=1 HTTP/1.1\r\n" HOST "\r\n");
	get_reply(fd);
	bool in_first = strstr(got.body, "\"value\":\"abc\"") != NULL;
	get_reply(fd);
	ck_assert(in_first != (strstr(got.body, "\"value\":\"abc\"") != NULL));
	close(fd);
	fix_stop();
}
END_TEST

/* More requests than may wait: reading stops, nothing is lost. */
START_TEST(pipelines_beyond_the_bound)
{
	enum { REQUESTS = 500 };
	int fd;
	START("http.pipeline_max=4");
	fd = dial();
	for (int i = 0; i < REQUESTS; i++)
		put(fd, "POST /topics/p HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nx");
	for (int i = 0; i < REQUESTS; i++)
		ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	fix_stop();
}
END_TEST

enum { PIPELINE = 32 };

/* One request and behind it others, all in one piece. */
static int dial_pipeline(const char *first, const char *other)
{
	char text[4096];
	int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "\r\n", first);
	for (int i = 1; i < PIPELINE; i++)
		n += snprintf(text + n, sizeof text - (size_t)n, "GET %s HTTP/1.1\r\n" HOST "\r\n",
			other);
	int fd = dial();
	put(fd, text);
	return fd;
}

/* How many of them there were at a time before the first was answered. */
static long most_taken(const char *first, const char *other)
{
	static const char gauge[] = "\nsluice_http_unanswered ";
	long most = 0;
	char c;
	int fd = dial_pipeline(first, other);
	do {
		ck_assert_int_eq(ask("GET", "/metrics", NULL), 200);
		const char *at = strstr(got.body, gauge);
		ck_assert_ptr_nonnull(at);
		long taken = strtol(at + sizeof gauge - 1, NULL, 10) - 1; /* but for this one */
		most = taken > most ? taken : most;
	} while (recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0);
	for (int i = 0; i < PIPELINE; i++)
		ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	return most;
}

/* A small request can have a large answer. */
START_TEST(takes_no_more_than_it_can_keep_the_answers_of)
{
	START("http.answer_bytes_max=64KiB");
	ck_assert_int_eq(ask("GET", "/openapi.json", NULL), 200);
	long room = 65536 / (long)got.len + 1;
	ck_assert_int_lt(room, PIPELINE - 1);
	ck_assert_int_le(
		most_taken("/streams/mqtt/records?bytes=1&wait=500ms", "/openapi.json"), room + 1);
	/* One that may become as much as all may. */
	ck_assert_int_le(most_taken("/streams/mqtt/records?bytes=65536&wait=500ms", "/livez"), 1);
	fix_stop();
}
END_TEST

START_TEST(writes_no_more_than_is_taken)
{
	START("conn.out_high=32KiB", "conn.out_low=16KiB", "conn.out_max=128KiB");
	int fd = dial_pipeline("/livez", "/openapi.json");
	for (int i = 0; i < PIPELINE; i++)
		ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	fix_stop();
}
END_TEST

START_TEST(continues_when_asked)
{
	char line[64] = "";
	int fd;
	START();
	fd = dial();
	put(fd,
		"POST /topics/a HTTP/1.1\r\n" HOST
		"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
	get_exactly(fd, line, 25);
	ck_assert_str_eq(line, "HTTP/1.1 100 Continue\r\n\r\n");
	put(fd, "hi");
	ck_assert_int_eq(get_reply(fd), 200);
	/* Refused before the body is sent. */
	put(fd,
		"POST /topics/a HTTP/1.1\r\n" HOST
		"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n");
	ck_assert_int_eq(get_reply(fd), 413);
	expect_end(fd);
	fix_stop();
}
END_TEST

START_TEST(loses_patience_in_the_midst_of_a_request)
{
	int fd;
	START("http.head_ms=200", "http.body_ms=200");
	fd = dial();
	put(fd, "GET / HT");
	ck_assert_int_eq(get_reply(fd), 408);
	expect_end(fd);
	fd = dial();
	put(fd, "POST /topics/a HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nab");
	ck_assert_int_eq(get_reply(fd), 408);
	expect_end(fd);
	fix_stop();
}
END_TEST

START_TEST(loses_patience_between_requests)
{
	bool answered = false;
	START("http.idle_ms=200");
	expect_end(dial());                          /* nothing is said */
	for (int i = 0; i < 100 && !answered; i++) { /* its patience may have ended before */
		int fd = dial();
		char first;
		(void)send(fd, LIVEZ, sizeof LIVEZ - 1, MSG_NOSIGNAL);
		answered = recv(fd, &first, 1, MSG_PEEK) == 1;
		if (answered) {
			ck_assert_int_eq(get_reply(fd), 200);
			expect_end(fd);
		} else {
			close(fd);
		}
	}
	ck_assert(answered);
	fix_stop();
}
END_TEST

/* Whether requests, each ending in the beginning of the next, are answered for ms milliseconds. */
static bool is_answered_for(int64_t ms, size_t split)
{
	static const char twice[] = LIVEZ LIVEZ;
	size_t len = sizeof LIVEZ - 1;
	int64_t end = clock_ms() + ms;
	int fd = dial();
	bool fine = send(fd, LIVEZ, split, MSG_NOSIGNAL) == (ssize_t)split;
	while (fine && clock_ms() < end) {
		char first;
		(void)send(fd, twice + split, len, MSG_NOSIGNAL);
		fine = recv(fd, &first, 1, MSG_PEEK) == 1 && get_reply(fd) == 200;
		usleep(10000);
	}
	close(fd);
	return fine;
}

/* Patience is counted from the last request, not from the first. */
START_TEST(has_new_patience_for_each_request)
{
	bool fine = false;
	START("http.idle_ms=400", "http.head_ms=400");
	for (int i = 0; i < 20 && !fine; i++) /* a busy machine may be late by itself */
		fine = is_answered_for(1200, 0);
	ck_assert(fine);
	fine = false;
	for (int i = 0; i < 20 && !fine; i++)
		fine = is_answered_for(1200, 10);
	ck_assert(fine);
	fix_stop();
}
END_TEST

enum { BIG_BYTES = 90000 };

/* A retained value that is more than conn.out_high, which the tests set. */
static void retain_big(void)
{
	static char request[BIG_BYTES + 200];
	int fd = dial();
	int n = snprintf(request, sizeof request,
		"POST /topics/big?retain HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n",
		BIG_BYTES);
	memset(request + n, 'v', BIG_BYTES);
	put_bytes(fd, request, (size_t)n + BIG_BYTES);
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
}

static void ask_for_big(int fd, int times)
{
	for (int i = 0; i < times; i++)
		put(fd, "GET /topics/big HTTP/1.1\r\n" HOST "\r\n");
}

START_TEST(loses_patience_with_who_does_not_read)
{
	START("http.idle_ms=200", "conn.out_high=64KiB", "conn.out_low=16KiB");
	retain_big();
	int fd = dial();
	ask_for_big(fd, 300); /* far more than the system's buffers take */
	for (int i = 0; i < 2000 && net_conn_count(t.net) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(net_conn_count(t.net), 0);
	close(fd);
	fix_stop();
}
END_TEST

/* Whether all are answered to somebody who takes some seconds for them. */
static bool may_read_slowly(void)
{
	enum { ANSWERS = 200 };
	int n = 0, small = 16384, fd = dial();
	char c;
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
	ask_for_big(fd, ANSWERS);
	while (n < ANSWERS && recv(fd, &c, 1, MSG_PEEK) == 1) {
		static char some[BIG_BYTES];
		ssize_t len = BIG_BYTES;
		for (ssize_t left = len; left > 0 && len > 0; left -= len)
			len = recv(fd, some, (size_t)left, 0);
		n++;
		usleep(15000);
	}
	close(fd);
	return n == ANSWERS;
}

START_TEST(has_patience_with_who_reads_slowly)
{
	bool fine = false;
	START("http.idle_ms=600", "conn.out_high=64KiB", "conn.out_low=16KiB",
		"http.pipeline_max=200", "http.answer_bytes_max=64MiB");
	retain_big();
	for (int i = 0; i < 3 && !fine; i++) /* a busy machine may be too slow by itself */
		fine = may_read_slowly();
	ck_assert(fine);
	fix_stop();
}
END_TEST

START_TEST(speaks_1_0)
{
	int fd;
	START();
	fd = dial();
	put(fd, "GET /livez HTTP/1.0\r\n\r\n");
	ck_assert_int_eq(get_reply(fd), 200);
	expect_end(fd);
	fd = dial();
	put(fd, "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	ck_assert_int_eq(get_reply(fd), 200);
	ck_assert_ptr_nonnull(strstr(got.head, "Connection: keep-alive"));
	put(fd, "GET http://a/livez HTTP/1.1\r\n" HOST "\r\n");
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	fix_stop();
}
END_TEST

START_TEST(options_and_methods)
{
	START();
	ck_assert_int_eq(ask("OPTIONS", "/api/v1/streams", NULL), 204);
	ck_assert_ptr_nonnull(strstr(got.head, "Allow: OPTIONS, GET, HEAD, POST\r\n"));
	ck_assert_int_eq(ask("OPTIONS", "*", NULL), 204);
	ck_assert_int_eq(ask("PUT", "/api/v1/streams", NULL), 405);
	ck_assert_ptr_nonnull(strstr(got.head, "Allow: "));
	ck_assert_int_eq(ask("CONNECT", "a:1", NULL), 400);
	ck_assert_int_eq(ask("GET", "/api/v1/streams/%zz", NULL), 400);
	fix_stop();
}
END_TEST

/* A client that goes while its request waits leaves nothing behind. */
START_TEST(forgets_those_who_left)
{
	START();
	for (int i = 0; i < 20; i++) {
		int fd = dial();
		put(fd, "GET /streams/mqtt/records?wait=30s HTTP/1.1\r\n" HOST "\r\n");
		usleep(2000);
		close(fd);
	}
	for (int i = 0; i < 2000 && net_conn_count(t.net) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(net_conn_count(t.net), 0);
	for (int i = 0; i < 2000; i++) { /* what waited ends a little later */
		ck_assert_int_eq(ask("GET", "/metrics", NULL), 200);
		if (strstr(got.body, "\nsluice_http_unanswered 1\n") != NULL)
			break;
		usleep(10000);
	}
	ck_assert_ptr_nonnull(strstr(got.body, "\nsluice_http_unanswered 1\n")); /* this one */
	fix_stop();
}
END_TEST

START_TEST(nobody_without_a_login)
{
	START("auth.anonymous=off");
	ck_assert_int_eq(ask("GET", "/livez", NULL), 200);
	ck_assert_int_eq(ask("GET", "/metrics", NULL), 200);
	ck_assert_int_eq(ask("GET", "/api/v1/streams", NULL), 401);
	ck_assert_int_eq(ask("POST", "/topics/a", "x"), 401);
	fix_stop();
}
END_TEST

START_TEST(says_when_it_stops)
{
	START();
	ck_assert_int_eq(ask("GET", "/readyz", NULL), 200);
	http_serving(http, false);
	ck_assert_int_eq(ask("GET", "/readyz", NULL), 503);
	ck_assert_int_eq(ask("GET", "/livez", NULL), 200);
	fix_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_conn");
	TCase *tc = tcase_create("conn");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, refuses_what_is_malformed);
	tcase_add_test(tc, bounds_heads_and_bodies);
	tcase_add_test(tc, answers_in_order);
	tcase_add_test(tc, reads_bytes_as_they_come);
	tcase_add_test(tc, pipelines_beyond_the_bound);
	tcase_add_test(tc, takes_no_more_than_it_can_keep_the_answers_of);
	tcase_add_test(tc, writes_no_more_than_is_taken);
	tcase_add_test(tc, continues_when_asked);
	tcase_add_test(tc, loses_patience_in_the_midst_of_a_request);
	tcase_add_test(tc, loses_patience_between_requests);
	tcase_add_test(tc, has_new_patience_for_each_request);
	tcase_add_test(tc, loses_patience_with_who_does_not_read);
	tcase_add_test(tc, has_patience_with_who_reads_slowly);
	tcase_add_test(tc, speaks_1_0);
	tcase_add_test(tc, options_and_methods);
	tcase_add_test(tc, forgets_those_who_left);
	tcase_add_test(tc, nobody_without_a_login);
	tcase_add_test(tc, says_when_it_stops);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
