#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/match.h"
#include "server/broker/topic.h"

/* Against a model that asks topic_matches for every subscription. */
enum { SUBS = 400, WHO = 40, ROUNDS = 6000 };

static struct bytes random_path(char *out, size_t size, bool filter)
{
	static const char *const levels[] = {"a", "b", "c", "", "$x", "longer-level", "+", "#"};
	int depth = 1 + (int)(random_u64() % 4);
	size_t len = 0;
	for (int i = 0; i < depth; i++) {
		const char *level = levels[random_u64() % (filter ? 8 : 6)];
		bool last = i == depth - 1;
		if (level[0] == '#' && !last)
			level = "+";
		len += (size_t)snprintf(out + len, size - len, "%s%s", level, last ? "" : "/");
	}
	if (len == 0)
		len = (size_t)snprintf(out, size, "a");
	return bytes_of(out, len);
}

static void same_as_model(
	struct match *m, struct subscription *subs, const bool *in, struct bytes topic)
{
	const struct match_result *r = match_find(m, topic);
	int hits = 0, expected = 0;
	for (int i = 0; i < SUBS; i++)
		expected += in[i] && topic_matches(subs[i].filter, topic);
	for (int h = 0; h < r->count; h++) {
		uint8_t qos = 0;
		for (int k = 0; k < r->hits[h].count; k++) {
			struct subscription *s = r->hits[h].matches[k];
			ck_assert_ptr_eq(s->who, r->hits[h].who);
			ck_assert(topic_matches(s->filter, topic));
			qos = s->qos > qos ? s->qos : qos;
		}
		ck_assert_uint_eq(qos, r->hits[h].qos);
		for (int g = 0; g < h; g++)
			ck_assert_ptr_ne(r->hits[g].who, r->hits[h].who);
		hits += r->hits[h].count;
	}
	ck_assert_int_eq(hits, expected);
}

START_TEST(agrees_with_a_naive_model)
{
	random_seed((uint64_t)_i + 1);
	struct match *m = match_new(20000);
	struct subscriber *who = mem_new(WHO * sizeof *who);
	struct subscription *subs = mem_new(SUBS * sizeof *subs);
	bool in[SUBS] = {false};
	char(*text)[64] = mem_new(SUBS * sizeof *text);
	for (int round = 0; round < ROUNDS; round++) {
		int i = (int)(random_u64() % SUBS);
		if (in[i]) {
			match_remove(m, &subs[i]);
		} else {
			subs[i].filter = random_path(text[i], sizeof text[i], true);
			subs[i].who = &who[random_u64() % WHO];
			subs[i].qos = (uint8_t)(random_u64() % 3);
			match_add(m, &subs[i]);
		}
		in[i] = !in[i];
		char topic[64];
		same_as_model(m, subs, in, random_path(topic, sizeof topic, false));
		same_as_model(m, subs, in, bytes_text("a/b"));
	}
	for (int i = 0; i < SUBS; i++)
		if (in[i])
			match_remove(m, &subs[i]);
	ck_assert_int_eq(match_count(m), 0);
	ck_assert_int_eq(match_find(m, bytes_text("a"))->count, 0);
	match_free(m);
	mem_free(who);
	mem_free(subs);
	mem_free(text);
}
END_TEST

START_TEST(cache_stays_in_its_budget)
{
	struct match *m = match_new(50000);
	struct subscriber who = {0};
	struct subscription sub = {.who = &who, .filter = bytes_text("#"), .qos = 1};
	match_add(m, &sub);
	for (int i = 0; i < 20000; i++) {
		char topic[32];
		int len = snprintf(topic, sizeof topic, "t/%d", i);
		ck_assert_int_eq(match_find(m, bytes_of(topic, (size_t)len))->count, 1);
		ck_assert_uint_lt(match_cache_bytes(m), 51000);
	}
	match_remove(m, &sub);
	match_free(m);
}
END_TEST

START_TEST(a_thousand_levels_are_fine)
{
	struct match *m = match_new(1 << 20);
	char *deep = mem_new(20002);
	for (int i = 0; i < 10000; i++)
		memcpy(deep + 2 * i, "a/", 2);
	struct subscriber who = {0};
	struct subscription sub = {.who = &who, .filter = bytes_of(deep, 20000)};
	match_add(m, &sub);
	ck_assert_int_eq(match_find(m, bytes_of(deep, 20000))->count, 1);
	ck_assert_int_eq(match_find(m, bytes_of(deep, 19998))->count, 0);
	match_free(m); /* with the filter still in it */
	mem_free(deep);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("match");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, agrees_with_a_naive_model, 0, 3);
	tcase_add_test(tc, cache_stays_in_its_budget);
	tcase_add_test(tc, a_thousand_levels_are_fine);
	Suite *s = suite_create("match");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
