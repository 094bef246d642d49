/* Compaction of a partition: it comes about by itself, readers get over what is gone, and a
 * partition that closes or goes in the middle of a run does not wait for its end. */
#include "tests/unit/cluster/partition_world.h"
#include <stdio.h>
#include <unistd.h>
#include "storage/storage_metrics.h"

enum { KEYS = 10, PUBLISHED = 900 };

static struct world W;
static struct partition *P;

static const struct compact_policy eager = {10000, 0, 0, INT64_MAX};

static void start(void)
{
	world_start(&W);
	P = world_open(&W, 1, 1024);
	loops_run(W.loops);
}

static void setup(void)
{
	static bool registered;

	if (!registered) {
		metric_register(&storage_metrics);
		metric_register(&node_metrics);
	}
	registered = true;
	memset(&W, 0, sizeof W);
	ck_assert_int_eq(store_open_mem(7, &W.store), OK);
	start();
}

static void teardown(void)
{
	world_stop(&W);
	store_close(W.store);
}

static void publish(int number)
{
	struct world_ask a = {.q.to = P};
	struct batch_builder b;
	char key[8], value[300] = {0};
	struct bytes k = bytes_of(key, (size_t)snprintf(key, sizeof key, "k%d", number % KEYS));
	struct bytes v = bytes_of(value, sizeof value);

	snprintf(value, sizeof value, "%d", number);
	batch_builder_init(&b, 1 << 20);
	ck_assert_int_eq(batch_builder_add(&b, 1000 + number, &k, &v, NULL, 0), OK);
	a.q.batch = batch_builder_seal(&b);
	a.q.batch_count = 1;
	a.q.batch_max_ms = 1000 + number;
	batch_builder_fini(&b);
	ck_assert_int_eq(world_ask(&W, 1, &a), OK);
	ck_assert_int_eq(a.q.base_offset, number);
}

static void compacts(void *arg)
{
	partition_set_compaction(P, arg);
	P->compact_at_ms = 0;
	sem_post(&W.done);
}

static void clean_offset(void *arg)
{
	*(int64_t *)arg = plog_cleaned(P->log)->end_offset;
	sem_post(&W.done);
}

static void wait_clean(int64_t offset)
{
	int64_t clean = 0;

	for (int i = 0; i < 1000 && clean < offset; i++) {
		world_call(&W, 1, clean_offset, &clean);
		usleep(10000);
	}
	ck_assert_int_ge(clean, offset);
}

/* Offsets of what is read from one on; the newest of each key among them. */
static int read_from(int64_t at, int64_t newest[KEYS])
{
	int count = 0;

	while (at < PUBLISHED) {
		struct world_read a = {
			.r = {.from = P, .offset = at, .bytes_max = 1 + (size_t)(at * 7 % 5000)}};
		int64_t before = at;

		ck_assert_int_eq(world_read(&W, 2, &a), OK);
		ck_assert_int_gt(a.r.count, 0);
		for (int i = 0; i < a.r.count; i++) {
			struct change_batches w;
			const struct slice *holder;
			struct batch b;

			change_batches_init(&w, a.r.entries[i]);
			while (change_batches_next(&w, &b, &holder) == OK) {
				ck_assert_int_eq(b.count, 1);
				ck_assert_int_ge(b.base_offset, before);
				newest[b.base_offset % KEYS] = b.base_offset;
				count++;
			}
			at = entry_next_offset(&a.r.entries[i]->head);
		}
		record_read_fini(&a.r);
		ck_assert_int_gt(at, before);
	}
	return count;
}

START_TEST(it_comes_about)
{
	int64_t newest[KEYS] = {0};
	struct compact_policy policy = eager;
	int count;

	W.tail_bytes = 0;
	for (int i = 0; i < PUBLISHED; i++)
		publish(i);
	ck_assert_int_eq(read_from(0, newest), PUBLISHED);
	ck_assert_int_gt(partition_bytes(P), PUBLISHED * 300);
	world_call(&W, 1, compacts, &policy);
	wait_clean(400);
	count = read_from(0, newest);
	ck_assert_int_le(count, PUBLISHED - 400 + KEYS);
	ck_assert_int_ge(count, KEYS);
	for (int k = 0; k < KEYS; k++)
		ck_assert_int_eq(newest[k], PUBLISHED - KEYS + k);
	for (int64_t from = 1; from < 500; from += 97)
		ck_assert_int_le(read_from(from, newest), count);
	ck_assert_int_lt(partition_bytes(P), (PUBLISHED - 300) * 400);
	/* No more of it: nothing changes. */
	world_call(&W, 1, compacts, NULL);
	world_close(&W, P, false, false);
	world_stop(&W);
	start();
	ck_assert_int_eq(read_from(0, newest), count);
	world_close(&W, P, false, false);
}
END_TEST

static void is_compacting(void *arg)
{
	*(bool *)arg = P->compacting;
	sem_post(&W.done);
}

/* At some bytes a second a run would take minutes. */
START_TEST(closing_does_not_wait)
{
	struct compact_policy policy = eager;
	bool running = false;

	for (int i = 0; i < PUBLISHED; i++)
		publish(i);
	W.rate.bytes = 1000;
	world_call(&W, 1, compacts, &policy);
	for (int i = 0; i < 4000 && !running; i++) {
		world_call(&W, 1, is_compacting, &running);
		usleep(5000);
	}
	ck_assert(running);
	usleep((useconds_t)_i * 20000);
	world_close(&W, P, _i % 2, false);
}
END_TEST

/* One at a time on a disk: another waits, and says so. */
START_TEST(runs_take_turns)
{
	struct compact_policy policy = eager;
	struct partition *first = P, *second;
	bool running = false;

	for (int i = 0; i < PUBLISHED; i++)
		publish(i);
	world_close(&W, P, false, false);
	world_stop(&W);
	world_start(&W);
	first = world_open(&W, 1, 1024);
	second = world_open(&W, 1, 1027);
	loops_run(W.loops);
	P = second;
	for (int i = 0; i < PUBLISHED; i++)
		publish(i);
	W.rate.bytes = 1000;
	P = first;
	world_call(&W, 1, compacts, &policy);
	for (int i = 0; i < 4000 && !running; i++) {
		world_call(&W, 1, is_compacting, &running);
		usleep(5000);
	}
	ck_assert(running);
	P = second;
	world_call(&W, 1, compacts, &policy);
	for (int i = 0; i < 4000 && metric_sum(&storage_metrics, M_COMPACT_WAITING) == 0; i++)
		usleep(5000);
	ck_assert_int_eq(metric_sum(&storage_metrics, M_COMPACT_WAITING), 1);
	world_call(&W, 1, is_compacting, &running);
	ck_assert(!running);
	world_close(&W, first, false, false);
	for (int i = 0; i < 2000 && !running; i++) {
		world_call(&W, 1, is_compacting, &running);
		usleep(10000);
	}
	ck_assert(running);
	ck_assert_int_eq(metric_sum(&storage_metrics, M_COMPACT_WAITING), 0);
	world_close(&W, second, false, false);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("partition_compact");
	Suite *s = suite_create("partition_compact");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, it_comes_about);
	tcase_add_loop_test(tc, closing_does_not_wait, 0, 4);
	tcase_add_test(tc, runs_take_turns);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
