#include <check.h>
#include "cluster/partition_own.h"

static enum err nothing(struct eval *v, struct bytes args)
{
	(void)v, (void)args;
	return OK;
}
static const struct proposal_kind first = {40, nothing}, last = {PROPOSAL_NUMBER_MAX - 1, nothing};

START_TEST(kinds_are_found_by_number)
{
	ck_assert_ptr_null(proposal_kind_find(40));
	proposal_kind_add(&first);
	proposal_kind_add(&first);
	proposal_kind_add(&last);
	ck_assert_ptr_eq(proposal_kind_find(40), &first);
	ck_assert_ptr_eq(proposal_kind_find(PROPOSAL_NUMBER_MAX - 1), &last);
	ck_assert_ptr_null(proposal_kind_find(0));
	ck_assert_ptr_null(proposal_kind_find(41));
	ck_assert_ptr_null(proposal_kind_find(PROPOSAL_NUMBER_MAX));
	ck_assert_ptr_null(proposal_kind_find(UINT32_MAX));
}
END_TEST

static const struct proposal_kind wrong[] = {
	{40, nothing}, {0, nothing}, {PROPOSAL_NUMBER_MAX, nothing}, {41, NULL}};

START_TEST(two_of_a_number_stop_the_process)
{
	proposal_kind_add(&first);
	proposal_kind_add(&wrong[_i]);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("kinds");
	Suite *s = suite_create("proposal_kind");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, kinds_are_found_by_number);
	tcase_add_loop_test_raise_signal(
		tc, two_of_a_number_stop_the_process, 6, 0, sizeof wrong / sizeof wrong[0]);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
