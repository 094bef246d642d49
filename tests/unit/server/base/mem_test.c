#include <check.h>
#include <signal.h>
#include <string.h>
#include "server/base/mem.h"

START_TEST(new_is_zeroed)
{
	uint8_t *p = mem_new(100);

	for (int i = 0; i < 100; i++)
		ck_assert_uint_eq(p[i], 0);
	mem_free(p);
	mem_free(mem_new(0));
	mem_free(NULL);
}
END_TEST

START_TEST(countdown_fails_one_and_only_one)
{
	void *p;

	mem_fail_at(2);
	for (int i = 0; i < 5; i++) {
		p = mem_try(8);
		ck_assert_int_eq(p == NULL, i == 2);
		mem_free(p);
	}
	p = mem_try(8);
	mem_fail_at(0);
	ck_assert_ptr_null(mem_resize(p, 100));
	p = mem_resize(p, 100); /* the old one stayed valid */
	ck_assert_ptr_nonnull(p);
	mem_free(p);
}
END_TEST

START_TEST(a_negative_countdown_fails_none)
{
	void *p;

	mem_fail_at(0);
	mem_fail_at(-1);
	p = mem_try(1);
	ck_assert_ptr_nonnull(p);
	mem_free(p);
}
END_TEST

START_TEST(text_ends_with_nul)
{
	char *t = mem_text("abcdef", 3);

	ck_assert_str_eq(t, "abc");
	mem_free(t);
	t = mem_text(NULL, 0);
	ck_assert_str_eq(t, "");
	mem_free(t);
}
END_TEST

START_TEST(must_stops_the_process)
{
	must(1 + 1 == 2);
	must(1 + 1 == 3);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("mem");
	tcase_add_test(tc, new_is_zeroed);
	tcase_add_test(tc, countdown_fails_one_and_only_one);
	tcase_add_test(tc, a_negative_countdown_fails_none);
	tcase_add_test(tc, text_ends_with_nul);
	tcase_add_test_raise_signal(tc, must_stops_the_process, SIGABRT);
	Suite *s = suite_create("mem");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
