#include <check.h>
#include <stdlib.h>
#include "protocols/http/http_priv.h"

static enum err find(const char *text, size_t max, size_t *len)
{
	size_t scanned = 0;
	return head_find(bytes_text(text), max, &scanned, len);
}

START_TEST(finds_the_end)
{
	static const char head[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
	size_t len;
	ck_assert_int_eq(find(head, 1000, &len), OK);
	ck_assert_uint_eq(len, sizeof head - 1 - 4);
	ck_assert_int_eq(find("GET / HTTP/1.1\r\n\r\n", 18, &len), OK);
}
END_TEST

/* However the bytes are cut, the end is found once all are there and never before. */
START_TEST(finds_the_end_in_pieces)
{
	static const char head[] = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
	size_t len, full = sizeof head - 1, scanned = 0;
	for (size_t have = 1; have < full; have++) {
		char *copy = malloc(have);
		memcpy(copy, head, have);
		ck_assert_int_eq(head_find(bytes_of(copy, have), 1000, &scanned, &len), ERR_MORE);
		free(copy);
	}
	ck_assert_int_eq(head_find(bytes_of(head, full), 1000, &scanned, &len), OK);
	ck_assert_uint_eq(len, full);
}
END_TEST

START_TEST(refuses_folds_and_bare_line_feeds)
{
	size_t len, scanned = 0;
	ck_assert_int_eq(find("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 1000, &len), ERR_MALFORMED);
	ck_assert_int_eq(find("GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n", 1000, &len), ERR_MALFORMED);
	ck_assert_int_eq(find("GET / HTTP/1.1\nHost: a\n\n", 1000, &len), ERR_MALFORMED);
	ck_assert_int_eq(find("\n", 1000, &len), ERR_MALFORMED);
	/* The fold comes with the next piece. */
	ck_assert_int_eq(head_find(bytes_text("GET / HTTP/1.1\r\nX: a\r\n"), 1000, &scanned, &len),
		ERR_MORE);
	ck_assert_int_eq(
		head_find(bytes_text("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n"), 1000, &scanned, &len),
		ERR_MALFORMED);
}
END_TEST

START_TEST(bounds_the_head)
{
	size_t len;
	ck_assert_int_eq(find("GET / HTTP/1.1\r\nHost: abc", 20, &len), ERR_TOOBIG);
	ck_assert_int_eq(find("GET / HTTP/1.1\r\n\r\n", 17, &len), ERR_TOOBIG);
	ck_assert_int_eq(find("GET / HTTP/1.1\r\nHost", 21, &len), ERR_MORE);
}
END_TEST

static struct exchange *with(const char *target, const char *host)
{
	static const char head[] = "a head of some length, for its scratch: ................";
	struct exchange *x;
	ck_assert_int_eq(exchange_new(bytes_of(head, sizeof head), &x), OK);
	x->header_max = 1;
	x->target = bytes_text(target);
	x->method = HTTP_GET;
	if (host != NULL)
		x->headers[x->header_count++] = (struct header){
			bytes_text("host"), bytes_text(host)};
	return x;
}

static void without(struct exchange *x)
{
	buf_fini(&x->body);
	free(x);
}

START_TEST(splits_targets)
{
	static const struct {
		const char *target, *path, *query;
	} good[] = {{"/a/b?c=d", "/a/b", "c=d"}, {"/", "/", ""}, {"*", "*", ""},
		{"http://host:80/x?y", "/x", "y"}, {"/a?b?c", "/a", "b?c"}};
	static const char *const bad[] = {"", "a", "http://host", "/a#b", "host:80"};
	const char *why;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct exchange *x = with(good[i].target, "a");
		ck_assert_int_eq(head_check(x, &why), 0);
		ck_assert(bytes_equal(x->path, bytes_text(good[i].path)));
		ck_assert(bytes_equal(x->query, bytes_text(good[i].query)));
		without(x);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct exchange *x = with(bad[i], "a");
		ck_assert_int_eq(head_check(x, &why), 400);
		without(x);
	}
}
END_TEST

START_TEST(wants_a_host)
{
	const char *why;
	struct exchange *x = with("/", NULL);
	ck_assert_int_eq(head_check(x, &why), 400);
	x->old = true; /* HTTP/1.0 had none */
	ck_assert_int_eq(head_check(x, &why), 0);
	without(x);
}
END_TEST

static bool decodes(const char *in, const char *out)
{
	struct exchange *x = with("/", "a");
	struct bytes b;
	bool same = percent_decode(x, bytes_text(in), false, &b) == OK &&
		bytes_equal(b, bytes_text(out));
	without(x);
	return same;
}

START_TEST(decodes_escapes)
{
	ck_assert(decodes("a%2Fb%c3%a4", "a/b\xc3\xa4"));
	ck_assert(decodes("a+b", "a+b"));
	ck_assert(decodes("", ""));
	ck_assert(!decodes("%", ""));
	ck_assert(!decodes("%2", ""));
	ck_assert(!decodes("%2g", ""));
	ck_assert(!decodes("a%00", "a"));
}
END_TEST

START_TEST(reads_queries)
{
	struct exchange *x = with("/", "a");
	int64_t n = 7, ms = 7;
	bool on = false;
	x->query = bytes_text("max=12&maximum=3&empty=&flag&wait=5s&k=a%20b+c&bad=x&off=no");
	ck_assert_int_eq(request_query_int(x, "max", &n), OK);
	ck_assert_int_eq(n, 12);
	ck_assert_int_eq(request_query_int(x, "none", &n), OK);
	ck_assert_int_eq(n, 12);
	ck_assert_int_eq(request_query_int(x, "bad", &n), ERR_INVALID);
	ck_assert_int_eq(request_query_msec(x, "wait", &ms), OK);
	ck_assert_int_eq(ms, 5000);
	ck_assert_int_eq(request_query_bool(x, "flag", &on), OK);
	ck_assert(on);
	ck_assert_int_eq(request_query_bool(x, "off", &on), OK);
	ck_assert(!on);
	ck_assert(bytes_equal(request_query(x, "k"), bytes_text("a b c")));
	ck_assert_ptr_nonnull(request_query(x, "empty").at);
	ck_assert_uint_eq(request_query(x, "empty").len, 0);
	ck_assert_ptr_null(request_query(x, "ma").at);
	without(x);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_head");
	TCase *tc = tcase_create("head");
	tcase_add_test(tc, finds_the_end);
	tcase_add_test(tc, finds_the_end_in_pieces);
	tcase_add_test(tc, refuses_folds_and_bare_line_feeds);
	tcase_add_test(tc, bounds_the_head);
	tcase_add_test(tc, splits_targets);
	tcase_add_test(tc, wants_a_host);
	tcase_add_test(tc, decodes_escapes);
	tcase_add_test(tc, reads_queries);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
