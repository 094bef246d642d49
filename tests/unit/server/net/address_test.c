#include <check.h>
#include <string.h>
#include "server/net/address.h"

static char why[200];

static void expect_one(const char *text, int i, const char *as)
{
	struct address_list l;
	char out[ADDRESS_TEXT_BYTES];
	ck_assert_int_eq(address_list_read(text, &l, why, sizeof why), OK);
	ck_assert_int_lt(i, l.count);
	address_text(&l.items[i].sa.any, out, sizeof out);
	ck_assert_str_eq(out, as);
	address_list_fini(&l);
}

START_TEST(reads_lists)
{
	expect_one("127.0.0.1:1883", 0, "127.0.0.1:1883");
	expect_one("127.0.0.1:1883, [::1]:1884", 1, "[::1]:1884");
	expect_one("[fe80::1:2]:0", 0, "[fe80::1:2]:0");
	expect_one("localhost:65535", 0, "127.0.0.1:65535");
}
END_TEST

START_TEST(off_and_empty_have_none)
{
	struct address_list l;
	ck_assert_int_eq(address_list_read("off", &l, why, sizeof why), OK);
	ck_assert_int_eq(l.count, 0);
	ck_assert_int_eq(address_list_read("", &l, why, sizeof why), OK);
	ck_assert_int_eq(l.count, 0);
}
END_TEST

START_TEST(star_is_every_address)
{
	struct address_list l;
	ck_assert_int_eq(address_list_read("*:80", &l, why, sizeof why), OK);
	ck_assert_int_ge(l.count, 1);
	for (int i = 0; i < l.count; i++)
		ck_assert(address_is_any(&l.items[i].sa.any));
	ck_assert(l.items[0].first);
	address_set_port(&l.items[0], 81);
	ck_assert_int_eq(address_port(&l.items[0].sa.any), 81);
	address_list_fini(&l);
}
END_TEST

static const char *const bad[] = {"1883", ":1883", "h:", "h:65536", "h:-1", "h:1x", "::1:1883",
	"[]:1", "a b:1", "h:1,", "h:1,,h:2", "h:123456", "on"};

START_TEST(refuses_and_names_the_item)
{
	why[0] = 0;
	ck_assert_int_eq(address_list_check(bad[_i], why, sizeof why),
		strcmp(bad[_i], "h:1,") == 0 ? OK : ERR_INVALID);
	if (strcmp(bad[_i], "h:1,") != 0)
		ck_assert_ptr_nonnull(strchr(why, '\''));
}
END_TEST

START_TEST(refuses_unknown_names)
{
	struct address_list l;
	ck_assert_int_eq(
		address_list_read("no.such.host.invalid:1", &l, why, sizeof why), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(why, "no.such.host.invalid"));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("address");
	tcase_add_test(tc, reads_lists);
	tcase_add_test(tc, off_and_empty_have_none);
	tcase_add_test(tc, star_is_every_address);
	tcase_add_loop_test(tc, refuses_and_names_the_item, 0, (int)(sizeof bad / sizeof *bad));
	tcase_add_test(tc, refuses_unknown_names);
	tcase_set_timeout(tc, 30);
	Suite *s = suite_create("address");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
