#include "server/broker/session_ids.h"
#include <check.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

START_TEST(keeps_what_it_is_told)
{
	static bool model[65536];
	struct session_ids s = {0};
	random_seed(9);
	memset(model, 0, sizeof model);
	for (int step = 0; step < 30000; step++) {
		uint16_t id = (uint16_t)(random_u64() % 3000 + 1);
		if (random_u64() & 1) {
			enum err e = session_ids_add(&s, (struct session_id){id * 2u, id, 0});
			ck_assert_int_eq(e, model[id] ? ERR_EXISTS : OK);
			model[id] = true;
		} else {
			session_ids_remove(&s, id);
			model[id] = false;
		}
		const struct session_id *found = session_ids_find(&s, id);
		ck_assert_int_eq(found != NULL, model[id]);
		if (found != NULL)
			ck_assert_uint_eq(found->group, id * 2u);
	}
	for (uint32_t i = 1; i < s.count; i++)
		ck_assert_uint_lt(s.items[i - 1].packet_id, s.items[i].packet_id);
	session_ids_fini(&s);
}
END_TEST

START_TEST(empty_owns_nothing)
{
	struct session_ids s = {0};
	ck_assert_int_eq(session_ids_add(&s, (struct session_id){1, 65535, 0}), OK);
	ck_assert_int_eq(session_ids_add(&s, (struct session_id){1, 1, 0}), OK);
	session_ids_remove(&s, 1);
	session_ids_remove(&s, 2);
	ck_assert_uint_eq(s.count, 1);
	session_ids_remove(&s, 65535);
	ck_assert_ptr_null(s.items);
}
END_TEST

START_TEST(no_memory)
{
	struct session_ids s = {0};
	mem_fail_at(0);
	ck_assert_int_eq(session_ids_add(&s, (struct session_id){1, 1, 0}), ERR_NOMEM);
	mem_fail_at(-1);
	ck_assert_uint_eq(s.count, 0);
	ck_assert_int_eq(session_ids_add(&s, (struct session_id){1, 1, 0}), OK);
	session_ids_fini(&s);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("session_ids");
	tcase_add_test(tc, keeps_what_it_is_told);
	tcase_add_test(tc, empty_owns_nothing);
	tcase_add_test(tc, no_memory);
	Suite *s = suite_create("session_ids");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
