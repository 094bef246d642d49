#include <check.h>
#include "protocols/http/http_priv.h"

static struct bytes params[PARAMS_MAX];

static bool match(const char *pattern, const char *path)
{
	memset(params, 0, sizeof params);
	return route_match(pattern, bytes_text(path), params);
}

START_TEST(matches_parts)
{
	ck_assert(match("/", "/"));
	ck_assert(match("/a", "/a"));
	ck_assert(match("/a/{b}/c", "/a/xyz/c"));
	ck_assert(bytes_equal(params[0], bytes_text("xyz")));
	ck_assert(!match("/", "/a"));
	ck_assert(!match("/a", "/"));
	ck_assert(!match("/a", "/ab"));
	ck_assert(!match("/ab", "/a"));
	ck_assert(!match("/a", "/a/"));
	ck_assert(!match("/a/{b}", "/a/"));
	ck_assert(!match("/a/{b}", "/a/b/c"));
	ck_assert(!match("/a/{b}/c", "/a/b"));
	ck_assert(!match("/a", ""));
	ck_assert(!match("/a", "a"));
}
END_TEST

START_TEST(takes_the_rest)
{
	ck_assert(match("/topics/{topic...}", "/topics/plant/7//temp/"));
	ck_assert(bytes_equal(params[0], bytes_text("plant/7//temp/")));
	ck_assert(match("/topics/{topic...}", "/topics//"));
	ck_assert(bytes_equal(params[0], bytes_text("/")));
	ck_assert(!match("/topics/{topic...}", "/topics/"));
	ck_assert(!match("/topics/{topic...}", "/topics"));
}
END_TEST

START_TEST(every_row_is_whole)
{
	const struct http_route *r, *other;
	int count = 0;
	for (int i = 0; (r = route_at(i)) != NULL; i++, count++) {
		ck_assert_ptr_nonnull(r->handle);
		ck_assert(r->pattern[0] == '/' && r->summary[0] != 0 && r->query != NULL);
		for (int k = 0; k < i; k++) {
			other = route_at(k);
			ck_assert(other->method != r->method ||
				strcmp(other->pattern, r->pattern) != 0);
		}
	}
	ck_assert_int_gt(count, 20);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_route");
	TCase *tc = tcase_create("route");
	tcase_add_test(tc, matches_parts);
	tcase_add_test(tc, takes_the_rest);
	tcase_add_test(tc, every_row_is_whole);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
