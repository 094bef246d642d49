#include <check.h>
#include <stdlib.h>
#include "cluster/catalog.h"
#include "server/base/mem.h"

static struct stream *make(const char *name, uint8_t id)
{
	struct stream_setting set = {"k", "v"};
	struct stream like = {.name = name, .uuid = {id}, .setting_count = 1, .settings = &set};

	return catalog_stream_new(&like);
}

START_TEST(finds_by_name_and_id_in_order_of_name)
{
	struct stream *all[3] = {make("b", 1), make("c", 2), make("a", 3)};
	struct stream_setting set[2] = {{"z", "1"}, {"y", "2"}};
	struct catalog *c = catalog_new(&(struct catalog_parts){.version = 9,
		.streams = all,
		.stream_count = 3,
		.settings = set,
		.setting_count = 2});
	const char *key, *value;
	int at = 0;

	for (int i = 0; i < 3; i++)
		catalog_stream_unref(all[i]); /* the catalogue keeps them */
	ck_assert_uint_eq(catalog_version(c), 9);
	ck_assert_str_eq(catalog_stream_at(c, 0)->name, "a");
	ck_assert_str_eq(catalog_stream_at(c, 2)->name, "c");
	ck_assert_ptr_eq(catalog_stream(c, bytes_text("c")), all[1]);
	ck_assert_ptr_null(catalog_stream(c, bytes_text("cc")));
	ck_assert_ptr_eq(catalog_stream_by_uuid(c, all[2]->uuid), all[2]);
	ck_assert_str_eq(catalog_stream(c, bytes_text("c"))->settings[0].value, "v");
	ck_assert_str_eq(catalog_setting(c, "z"), "1");
	ck_assert_ptr_null(catalog_setting(c, "x"));
	ck_assert(catalog_setting_next(c, &at, &key, &value));
	ck_assert_str_eq(key, "y");
	ck_assert_int_eq(catalog_setting_seek(c, ""), 0);
	ck_assert_int_eq(catalog_setting_seek(c, "y"), 0);
	ck_assert_int_eq(catalog_setting_seek(c, "ya"), 1);
	ck_assert_int_eq(catalog_setting_seek(c, "zz"), 2);
	ck_assert_ptr_null(catalog_table(c, bytes_text("any")));
	catalog_release(c);
}
END_TEST

START_TEST(a_stream_outlives_the_catalogue_it_came_with)
{
	struct stream *s = make("s", 1);
	struct catalog_parts parts = {.version = 1, .streams = &s, .stream_count = 1};
	struct catalog *one = catalog_new(&parts), *two = catalog_new(&parts);
	const struct catalog *held = catalog_hold(one);

	catalog_stream_unref(s);
	catalog_release(one);
	ck_assert_str_eq(catalog_stream(held, bytes_text("s"))->name, "s");
	catalog_release(held);
	ck_assert_str_eq(catalog_stream(two, bytes_text("s"))->name, "s");
	catalog_release(two);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("catalog");
	Suite *s = suite_create("catalog");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, finds_by_name_and_id_in_order_of_name);
	tcase_add_test(tc, a_stream_outlives_the_catalogue_it_came_with);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
