/* The window against a model: a list of what is in flight, in order. */
#include "server/broker/window.h"
#include <check.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum { MODEL_MAX = 70000 };

static struct window_entry entry(int64_t offset, enum window_state state)
{
	return (struct window_entry){.offset = offset, .group = 7, .state = (uint8_t)state};
}

START_TEST(ids_follow_each_other_and_wrap)
{
	struct window w = {0};
	uint16_t id;
	for (uint32_t i = 0; i < 65535u * 2; i++) {
		ck_assert_int_eq(window_take(&w, entry(i, WINDOW_SENT1), &id), OK);
		ck_assert_uint_eq(id, i % 65535 + 1);
		window_done(&w, id);
	}
	ck_assert_ptr_null(w.slots); /* empty: no memory */
	window_fini(&w);
}
END_TEST

START_TEST(an_id_in_flight_is_not_given_again)
{
	struct window w = {0};
	uint16_t stuck, id;
	ck_assert_int_eq(window_take(&w, entry(0, WINDOW_SENT1), &stuck), OK);
	for (int i = 1; i < 65535; i++) {
		ck_assert_int_eq(window_take(&w, entry(i, WINDOW_SENT1), &id), OK);
		ck_assert_uint_ne(id, stuck);
		window_done(&w, id);
	}
	ck_assert_int_eq(window_take(&w, entry(9, WINDOW_SENT1), &id), ERR_BUSY);
	ck_assert_uint_eq(w.count, 1);
	window_done(&w, stuck);
	ck_assert_int_eq(window_take(&w, entry(9, WINDOW_SENT1), &id), OK);
	window_fini(&w);
}
END_TEST

START_TEST(only_what_was_sent_counts)
{
	struct window w = {0};
	uint16_t a, b;
	ck_assert_int_eq(window_take(&w, entry(1, WINDOW_HELD2), &a), OK);
	ck_assert_int_eq(window_take(&w, entry(2, WINDOW_SENT1), &b), OK);
	ck_assert_uint_eq(w.sent, 1);
	window_move(&w, window_find(&w, a), WINDOW_SENT2);
	ck_assert_uint_eq(w.sent, 2);
	window_move(&w, window_find(&w, a), WINDOW_RELEASED);
	ck_assert_uint_eq(w.sent, 2);
	window_done(&w, a);
	ck_assert_uint_eq(w.sent, 1);
	ck_assert_ptr_null(window_find(&w, a));
	ck_assert_ptr_nonnull(window_find(&w, b));
	ck_assert_ptr_null(window_find(&w, 0));
	window_fini(&w);
}
END_TEST

START_TEST(a_walk_goes_on_behind_what_has_gone)
{
	struct window w = {0};
	uint16_t ids[5], at = 0;
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(window_take(&w, entry(i, WINDOW_SENT1), &ids[i]), OK);
	ck_assert_int_eq(window_next(&w, &at)->offset, 0);
	ck_assert_int_eq(window_next(&w, &at)->offset, 1);
	window_done(&w, ids[0]);
	window_done(&w, ids[1]); /* the head moves past the walk's place */
	window_done(&w, ids[3]);
	ck_assert_int_eq(window_next(&w, &at)->offset, 2);
	ck_assert_int_eq(window_next(&w, &at)->offset, 4);
	ck_assert_ptr_null(window_next(&w, &at));
	window_fini(&w);
}
END_TEST

START_TEST(restored_ones_are_to_be_sent_again)
{
	struct window w = {0};
	ck_assert_int_eq(window_restore(&w, 65534, entry(1, WINDOW_SENT1)), OK);
	ck_assert_int_eq(window_restore(&w, 65535, entry(2, WINDOW_RELEASED)), OK);
	ck_assert_int_eq(window_restore(&w, 3, entry(3, WINDOW_SENT2)), OK); /* over the end */
	ck_assert_int_eq(window_restore(&w, 2, entry(4, WINDOW_SENT2)), ERR_CORRUPT);
	ck_assert_int_eq(window_restore(&w, 0, entry(4, WINDOW_SENT2)), ERR_CORRUPT);
	ck_assert_int_eq(window_restore(&w, 9, entry(4, WINDOW_FREE)), ERR_CORRUPT);
	ck_assert_uint_eq(w.sent, 1); /* the released one */
	ck_assert_uint_eq(w.count, 3);
	ck_assert_int_eq(window_find(&w, 65534)->state, WINDOW_HELD1);
	ck_assert(window_find(&w, 65534)->again);
	ck_assert_int_eq(window_find(&w, 3)->state, WINDOW_HELD2);
	uint16_t id;
	ck_assert_int_eq(window_take(&w, entry(5, WINDOW_SENT1), &id), OK);
	ck_assert_uint_eq(id, 4);
	window_fini(&w);
}
END_TEST

START_TEST(agrees_with_a_model)
{
	static uint16_t model[MODEL_MAX];
	int count = 0;
	struct window w = {0};
	random_seed((uint64_t)_i + 1);
	for (int step = 0; step < 20000; step++) {
		if (count == 0 || random_u64() % 100 < 52) {
			uint16_t id;
			ck_assert_int_eq(window_take(&w, entry(step, WINDOW_SENT1), &id), OK);
			model[count++] = id;
		} else {
			int at = (int)(random_u64() % (uint64_t)count);
			if (random_u64() % 4 > 0)
				at = 0; /* mostly in order */
			window_done(&w, model[at]);
			memmove(model + at, model + at + 1, (size_t)(--count - at) * sizeof *model);
		}
		ck_assert_int_eq(w.count, count);
		if (step % 500 != 0)
			continue;
		uint16_t id = 0;
		for (int i = 0; i < count; i++) {
			ck_assert_ptr_nonnull(window_next(&w, &id));
			ck_assert_uint_eq(id, model[i]);
		}
		ck_assert_ptr_null(window_next(&w, &id));
	}
	window_fini(&w);
}
END_TEST

START_TEST(no_memory_leaves_it_as_it_was)
{
	struct window w = {0};
	uint16_t id;
	mem_fail_at(0);
	ck_assert_int_eq(window_take(&w, entry(1, WINDOW_SENT1), &id), ERR_NOMEM);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(window_take(&w, entry(i, WINDOW_SENT1), &id), OK);
	mem_fail_at(0);
	ck_assert_int_eq(window_take(&w, entry(8, WINDOW_SENT1), &id), ERR_NOMEM);
	mem_fail_at(-1);
	ck_assert_uint_eq(w.count, 8);
	ck_assert_int_eq(window_take(&w, entry(8, WINDOW_SENT1), &id), OK);
	ck_assert_uint_eq(id, 9);
	window_fini(&w);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("window");
	tcase_add_test(tc, ids_follow_each_other_and_wrap);
	tcase_add_test(tc, an_id_in_flight_is_not_given_again);
	tcase_add_test(tc, only_what_was_sent_counts);
	tcase_add_test(tc, a_walk_goes_on_behind_what_has_gone);
	tcase_add_test(tc, restored_ones_are_to_be_sent_again);
	tcase_add_loop_test(tc, agrees_with_a_model, 0, 5);
	tcase_add_test(tc, no_memory_leaves_it_as_it_was);
	Suite *s = suite_create("window");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
