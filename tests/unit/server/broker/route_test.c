#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/broker/route.h"

static const struct {
	const char *text;
	const char *filter, *stream; /* NULL: refused */
	bool memory;
	enum route_key key;
} lines[] = {
	{"# -> mqtt", "#", "mqtt", false, ROUTE_KEY_TOPIC},
	{"  a/+/b \t->  Orders.v1_x-2  ", "a/+/b", "Orders.v1_x-2", false, ROUTE_KEY_TOPIC},
	{"a/# -> s durability=memory", "a/#", "s", true, ROUTE_KEY_TOPIC},
	{"a/# -> s durability=sync key=topic", "a/#", "s", false, ROUTE_KEY_TOPIC},
	{"a/# -> s key=level(2) durability=memory", "a/#", "s", true, ROUTE_KEY_LEVEL},
	{"a/# -> s key=text(one)", "a/#", "s", false, ROUTE_KEY_TEXT},
	{"a/# -> s key=text(one) key=text(two)", "a/#", "s", false, ROUTE_KEY_TEXT},
	{"", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a ->", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"-> a", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a => b", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a->b", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a/#/b -> s", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a+ -> s", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s/t", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> ..", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> __audit", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> __s", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> _s", "a", "_s", false, ROUTE_KEY_TOPIC},
	{"a -> s durability=none", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=level(0)", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=level(x)", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=level(1", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=level(1000)", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=text()", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s key=", NULL, NULL, false, ROUTE_KEY_TOPIC},
	{"a -> s extra", NULL, NULL, false, ROUTE_KEY_TOPIC},
};
enum { LINES = sizeof lines / sizeof lines[0] };

START_TEST(reads_a_route)
{
	struct route r;
	char why[120] = "";
	enum err e = route_parse(lines[_i].text, &r, why, sizeof why);
	ck_assert_int_eq(route_check(lines[_i].text, why, sizeof why), e);
	if (lines[_i].filter == NULL) {
		ck_assert_int_eq(e, ERR_INVALID);
		ck_assert_int_gt((int)strlen(why), 0);
		return;
	}
	ck_assert_int_eq(e, OK);
	ck_assert_str_eq(r.filter, lines[_i].filter);
	ck_assert_str_eq(r.stream, lines[_i].stream);
	ck_assert_int_eq(r.memory, lines[_i].memory);
	ck_assert_int_eq(r.key, lines[_i].key);
	route_fini(&r);
}
END_TEST

static const char *stream_of(struct routes *rs, const char *topic)
{
	int i = routes_find(rs, bytes_text(topic));
	return i < 0 ? "" : routes_at(rs, i)->stream;
}

START_TEST(asks_in_order_of_name_the_default_last)
{
	char why[80];
	struct routes *rs = routes_new();
	ck_assert_str_eq(stream_of(rs, "a/b"), "mqtt");
	ck_assert_int_eq(routes_set(rs, "z", "a/# -> wide", why, sizeof why), OK);
	ck_assert_int_eq(routes_set(rs, "b", "a/b -> narrow", why, sizeof why), OK);
	ck_assert_int_eq(routes_set(rs, "c", "a/b -> never", why, sizeof why), OK);
	ck_assert_int_eq(routes_set(rs, "bad", "a/b", why, sizeof why), ERR_INVALID);
	for (int again = 0; again < 2; again++) { /* the second time from the cache */
		ck_assert_str_eq(stream_of(rs, "a/b"), "narrow");
		ck_assert_str_eq(stream_of(rs, "a/c"), "wide");
		ck_assert_str_eq(stream_of(rs, "x"), "mqtt");
		ck_assert_str_eq(stream_of(rs, "$mine/x"), "mqtt");
		ck_assert_str_eq(stream_of(rs, "$SYS/x"), "");
		ck_assert_str_eq(stream_of(rs, "$share/x"), "");
	}
	ck_assert_str_eq(routes_at(rs, routes_count(rs) - 1)->name, "default");
	ck_assert_int_eq(routes_set(rs, "b", "q -> other", why, sizeof why), OK);
	ck_assert_str_eq(stream_of(rs, "a/b"), "never");
	ck_assert_int_eq(routes_set(rs, "default", "only/# -> mine", why, sizeof why), OK);
	ck_assert_str_eq(stream_of(rs, "x"), "");
	ck_assert_str_eq(stream_of(rs, "only/x"), "mine");
	routes_free(rs);
}
END_TEST

/* More topics than the cache holds. */
START_TEST(the_cache_is_bounded)
{
	char why[80], topic[64];
	struct routes *rs = routes_new();
	ck_assert_int_eq(routes_set(rs, "a", "t/1/# -> one", why, sizeof why), OK);
	for (int i = 0; i < 60000; i++) {
		snprintf(topic, sizeof topic, "t/%d/%d", i % 2, i);
		ck_assert_str_eq(stream_of(rs, topic), i % 2 ? "one" : "mqtt");
	}
	routes_free(rs);
}
END_TEST

START_TEST(makes_keys)
{
	struct route r;
	char why[80];
	struct bytes t = bytes_text("plant/7/temp");
	ck_assert_int_eq(route_parse("# -> s key=level(2)", &r, why, sizeof why), OK);
	ck_assert(bytes_equal(route_key(&r, t), bytes_text("7")));
	ck_assert(bytes_equal(route_key(&r, bytes_text("short")), bytes_text("short")));
	route_fini(&r);
	ck_assert_int_eq(route_parse("# -> s key=text(all)", &r, why, sizeof why), OK);
	ck_assert(bytes_equal(route_key(&r, t), bytes_text("all")));
	route_fini(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("route");
	TCase *tc = tcase_create("route");
	tcase_add_loop_test(tc, reads_a_route, 0, LINES);
	tcase_add_test(tc, asks_in_order_of_name_the_default_last);
	tcase_add_test(tc, the_cache_is_bounded);
	tcase_add_test(tc, makes_keys);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
