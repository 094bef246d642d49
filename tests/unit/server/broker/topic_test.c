#include <check.h>
#include <stdlib.h>
#include "server/broker/topic.h"

static const struct {
	const char *filter, *topic;
	bool matches;
} pairs[] = {
	{"a/b", "a/b", true},
	{"a/b", "a/b/", false},
	{"a/+", "a/b", true},
	{"a/+", "a/", true},
	{"a/+", "a", false},
	{"a/#", "a", true},
	{"a/#", "a/b/c", true},
	{"#", "a/b", true},
	{"+/+", "/x", true},
	{"+", "/x", false},
	{"/+", "/x", true},
	{"#", "$SYS/x", false},
	{"+/x", "$SYS/x", false},
	{"$SYS/#", "$SYS/x", true},
	{"$SYS/+", "$SYS/x", true},
	{"a/+/c", "a/b/c", true},
	{"a/+/c", "a/b/d", false},
	{"a//c", "a//c", true},
	{"a/+/c", "a//c", true},
	{"sport/tennis/#", "sport/tennis", true},
	{"A", "a", false},
};

START_TEST(matches_by_the_book)
{
	ck_assert_int_eq(topic_matches(bytes_text(pairs[_i].filter), bytes_text(pairs[_i].topic)),
		pairs[_i].matches);
}
END_TEST

static const struct {
	const char *filter;
	bool valid;
} filters[] = {
	{"#", true},
	{"+", true},
	{"a/#", true},
	{"a/#/b", false},
	{"a#", false},
	{"a+/b", false},
	{"+a", false},
	{"", false},
	{"/", true},
	{"//", true},
	{"+/+/#", true},
	{"\xc0\x80", false},
	{"a/\xed\xa0\x80", false},
};

/* "a/a/.../a" with so many levels */
static struct bytes levels(char *text, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		text[2 * i] = 'a';
		text[2 * i + 1] = '/';
	}
	return bytes_of(text, 2 * count - 1);
}

START_TEST(levels_are_bounded)
{
	char text[1024];
	ck_assert(topic_filter_valid(levels(text, 256)));
	ck_assert(!topic_filter_valid(levels(text, 257)));
	ck_assert_uint_eq(topic_filter_weight(bytes_text("a/b")), 3 + 2 * 32);
	ck_assert_uint_eq(topic_filter_weight(levels(text, 256)), 511 + 256 * 32);
}
END_TEST

START_TEST(filters_are_checked)
{
	ck_assert_int_eq(topic_filter_valid(bytes_text(filters[_i].filter)), filters[_i].valid);
}
END_TEST

START_TEST(names_hold_no_wildcard_and_no_nul)
{
	ck_assert(topic_name_valid(bytes_text("a/b")));
	ck_assert(!topic_name_valid(bytes_text("a/+")));
	ck_assert(!topic_name_valid(bytes_text("a/#")));
	ck_assert(!topic_name_valid(bytes_of("a\0b", 3)));
	ck_assert(!topic_name_valid(bytes_text("")));
	uint8_t *big = malloc(65536);
	memset(big, 'x', 65536);
	ck_assert(topic_name_valid(bytes_of(big, 65535)));
	ck_assert(!topic_name_valid(bytes_of(big, 65536)));
	free(big);
}
END_TEST

static const struct {
	const char *a, *b;
	bool overlap;
} overlaps[] = {
	{"#", "a/b", true},
	{"a/+", "a/b", true},
	{"a/+", "b/+", false},
	{"a/#", "a", true},
	{"+/b", "a/+", true},
	{"a/+/c", "a/b", false},
	{"$SYS/#", "#", false},
	{"a", "a/+", false},
	{"+/+", "a/#", true},
	{"$a/#", "$a/b", true},
};

START_TEST(overlap_is_symmetric)
{
	struct bytes a = bytes_text(overlaps[_i].a), b = bytes_text(overlaps[_i].b);
	ck_assert_int_eq(topic_filters_overlap(a, b), overlaps[_i].overlap);
	ck_assert_int_eq(topic_filters_overlap(b, a), overlaps[_i].overlap);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof(a)[0])
int main(void)
{
	TCase *tc = tcase_create("topic");
	tcase_add_loop_test(tc, matches_by_the_book, 0, COUNT(pairs));
	tcase_add_test(tc, levels_are_bounded);
	tcase_add_loop_test(tc, filters_are_checked, 0, COUNT(filters));
	tcase_add_test(tc, names_hold_no_wildcard_and_no_nul);
	tcase_add_loop_test(tc, overlap_is_symmetric, 0, COUNT(overlaps));
	Suite *s = suite_create("topic");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
