/* Pending values and eviction, on one loop that does not run: the store is filled by hand. */
#include <check.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include "cluster/rows_priv.h"
#include "server/base/mem.h"
#include "storage/keys.h"

enum { KS = 9 };

static struct store *store;
static struct loops *loops;
static struct writer *writer;
static struct plog_env env;
static struct rows_cache *cache;
static struct rows *t;

static void setup(void)
{
	ck_assert_int_eq(store_open_mem(3, &store), OK);
	loops = loops_new(1);
	writer = writer_new(store, loops);
	env = (struct plog_env){.loop = loops_at(loops, 0),
		.store = store,
		.lane = writer_lane(writer, loops_at(loops, 0))};
	cache = rows_cache_new(1000);
	t = rows_new(&env, cache, 77);
}

static sem_t idle;
static bool settled;

static void is_idle(void *arg)
{
	(void)arg;
	sem_post(&idle);
}

/* The loop runs until what is written back is durable, then stands for good. */
static void settle(void)
{
	sem_init(&idle, 0, 0);
	rows_when_idle(t, is_idle, NULL);
	loops_run(loops);
	sem_wait(&idle);
	loops_stop(loops);
	settled = true;
}

static void teardown(void)
{
	if (!settled)
		settle();
	settled = false;
	rows_free(t);
	rows_cache_free(cache);
	writer_stop(writer);
	loops_free(loops);
	writer_free(writer);
	store_close(store);
}

static void stage(const char *key, const char *value)
{
	struct row_change row = {
		value ? ROW_PUT : ROW_DELETE, KS, bytes_text(key), bytes_text(value ? value : "")};

	ck_assert_int_eq(rows_stage(t, &row), OK);
}

static void apply(uint64_t index, const char *key, const char *value)
{
	struct row_change row = {
		value ? ROW_PUT : ROW_DELETE, KS, bytes_text(key), bytes_text(value ? value : "")};

	rows_apply(t, index, &row);
}

static void expect(bool pending, const char *key, const char *value)
{
	struct bytes out;
	enum err e = rows_get(t, pending, KS, bytes_text(key), &out);

	ck_assert_int_eq(e, value ? OK : ERR_NOTFOUND);
	if (value)
		ck_assert(bytes_equal(out, bytes_text(value)));
}

START_TEST(pending_is_seen_by_evaluation_only)
{
	rows_fresh(t);
	stage("a", "1");
	expect(true, "a", "1");
	expect(false, "a", NULL);
	rows_stage_keep(t, 5);
	stage("a", "2");
	rows_stage_drop(t);
	expect(true, "a", "1");
	stage("a", NULL);
	rows_stage_keep(t, 6);
	expect(true, "a", NULL);
	apply(5, "a", "1");
	expect(false, "a", "1");
	expect(true, "a", NULL);
	apply(6, "a", NULL);
	expect(false, "a", NULL);
	ck_assert_uint_eq(rows_pending(t), 0);
}
END_TEST

START_TEST(the_last_of_several_values_in_an_entry_counts)
{
	rows_fresh(t);
	stage("a", "1");
	rows_stage_keep(t, 5);
	stage("a", "22");
	rows_stage_keep(t, 5);
	apply(5, "a", "1");
	apply(5, "a", "22");
	expect(false, "a", "22");
	ck_assert_uint_eq(rows_pending(t), 0);
}
END_TEST

START_TEST(dropped_pending_leaves_the_applied)
{
	rows_fresh(t);
	apply(1, "a", "old");
	stage("a", "new");
	stage("b", "new");
	rows_stage_keep(t, 2);
	rows_drop_pending(t);
	expect(true, "a", "old");
	expect(true, "b", NULL);
	ck_assert_uint_eq(t->cells.count, 1);
	apply(2, "a", "other"); /* a later leader's */
	expect(false, "a", "other");
}
END_TEST

START_TEST(unknown_rows_must_be_fetched)
{
	struct bytes out;

	ck_assert_int_eq(rows_get(t, false, KS, bytes_text("a"), &out), ERR_MORE);
	stage("a", "1"); /* a blind write */
	expect(true, "a", "1");
	ck_assert_int_eq(rows_get(t, false, KS, bytes_text("a"), &out), ERR_MORE);
	rows_stage_drop(t);
	ck_assert_int_eq(rows_get(t, true, KS, bytes_text("a"), &out), ERR_MORE);
	ck_assert_uint_eq(t->cells.count, 0);
	apply(3, "a", NULL); /* known not to be there, and the store does not know yet */
	expect(false, "a", NULL);
	ck_assert_uint_eq(rows_write_back(t), 1);
	ck_assert_uint_gt(lane_pending_bytes(env.lane), 0);
}
END_TEST

START_TEST(row_that_came_and_went_is_not_written)
{
	size_t before;

	rows_fresh(t);
	apply(1, "a", "1");
	apply(2, "a", NULL);
	before = lane_pending_bytes(env.lane);
	rows_write_back(t);
	ck_assert_uint_eq(lane_pending_bytes(env.lane), before);
}
END_TEST

START_TEST(only_durable_rows_are_evicted)
{
	char key[20];

	rows_fresh(t);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof key, "k%d", i);
		apply((uint64_t)i, key, "value");
	}
	rows_cache_trim(cache);
	ck_assert_uint_eq(t->cells.count, 3000); /* dirty */
	rows_write_back(t);
	ck_assert_uint_eq(rows_dirty_bytes(t), 0);
	rows_cache_trim(cache);
	ck_assert_uint_eq(t->cells.count, 3000); /* on their way */
	ck_assert(t->complete);
	settle();
	rows_cache_trim(cache);
	ck_assert_uint_eq(t->cells.count, 1024); /* the least that is kept */
	ck_assert(!t->complete);
}
END_TEST

/* A few large rows are over the budget as much as many small ones. */
START_TEST(large_rows_are_evicted_however_few)
{
	enum { COUNT = 64, LARGE = 1 << 20 };
	char *value = mem_new(LARGE + 1);
	char key[16];

	memset(value, 'v', LARGE);
	rows_fresh(t);
	for (int i = 0; i < COUNT; i++) {
		snprintf(key, sizeof key, "k%d", i);
		apply((uint64_t)i + 1, key, value);
	}
	mem_free(value);
	rows_write_back(t);
	settle();
	ck_assert_uint_le(rows_cache_bytes(cache), 9 << 20);
	ck_assert_uint_ge(rows_cache_count(cache), 8);
	ck_assert_uint_eq(t->bytes, rows_cache_bytes(cache));
	ck_assert(!t->complete);
}
END_TEST

START_TEST(small_tables_are_read_whole)
{
	struct store_batch *b = store_batch_new(store);
	uint8_t key[ROW_KEY_PREFIX_BYTES + 8];
	struct bytes value = bytes_text("v");
	size_t len = key_row(77, KS, bytes_text("a"), key);

	store_put(b, FAMILY_ROWS, bytes_of(key, len), &value, 1);
	len = key_row(78, KS, bytes_text("b"), key); /* another group's */
	store_put(b, FAMILY_ROWS, bytes_of(key, len), &value, 1);
	ck_assert_int_eq(store_write(store, b), OK);
	store_batch_free(b);
	ck_assert_int_eq(rows_load(t), OK);
	ck_assert(t->complete);
	expect(false, "a", "v");
	expect(false, "b", NULL);
}
END_TEST

static char walked[200];
static void walk(void *arg, struct bytes key, struct bytes value)
{
	size_t at = strlen(walked);

	(void)arg;
	snprintf(walked + at, sizeof walked - at, "%.*s=%.*s ", (int)key.len, key.at,
		(int)value.len, value.at);
}

START_TEST(walk_is_in_order_and_of_one_keyspace)
{
	struct row_change other = {ROW_PUT, KS + 1, bytes_text("a"), bytes_text("x")};

	rows_fresh(t);
	apply(1, "b", "2");
	apply(1, "a", "1");
	apply(1, "aa", "3");
	apply(1, "gone", "4");
	apply(2, "gone", NULL);
	rows_apply(t, 2, &other);
	walked[0] = 0;
	ck_assert_int_eq(rows_walk(t, KS, walk, NULL), OK);
	ck_assert_str_eq(walked, "a=1 aa=3 b=2 ");
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("rows");
	Suite *s = suite_create("rows");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, pending_is_seen_by_evaluation_only);
	tcase_add_test(tc, the_last_of_several_values_in_an_entry_counts);
	tcase_add_test(tc, dropped_pending_leaves_the_applied);
	tcase_add_test(tc, unknown_rows_must_be_fetched);
	tcase_add_test(tc, row_that_came_and_went_is_not_written);
	tcase_add_test(tc, only_durable_rows_are_evicted);
	tcase_add_test(tc, large_rows_are_evicted_however_few);
	tcase_add_test(tc, small_tables_are_read_whole);
	tcase_add_test(tc, walk_is_in_order_and_of_one_keyspace);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
