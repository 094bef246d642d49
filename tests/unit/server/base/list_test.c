#include <check.h>
#include "server/base/list.h"

struct item {
	int value;
	struct list node;
};

START_TEST(keeps_order_and_lets_go)
{
	struct list head;
	struct item a = {.value = 1}, b = {.value = 2}, c = {.value = 3};

	list_init(&head);
	ck_assert(list_empty(&head));
	ck_assert_ptr_null(list_pop(&head));
	list_push_back(&head, &b.node);
	list_push_back(&head, &c.node);
	list_push_front(&head, &a.node);
	list_remove(&b.node);
	ck_assert(list_empty(&b.node));
	list_remove(&b.node); /* in no list: nothing happens */
	ck_assert_ptr_eq(list_pop(&head), &a.node);
	ck_assert_int_eq(list_entry(head.next, struct item, node)->value, 3);
	ck_assert_ptr_eq(list_pop(&head), &c.node);
	ck_assert(list_empty(&head));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("list");
	tcase_add_test(tc, keeps_order_and_lets_go);
	Suite *s = suite_create("list");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
