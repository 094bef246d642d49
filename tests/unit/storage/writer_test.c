/* Lanes, writer and syncer over the map, with three loops; some over a store that is slow. */
#include <check.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/store_priv.h"
#include "storage/writer.h"

enum { LOOPS = 3, TURNS = 300 };

static struct store *store;
static struct writer *writer;
static struct loops *loops;
static sem_t ended;

/* Slows or holds the store below the writer by a table of functions of our own. */
static struct store_ops slow_ops;
static const struct store_ops *fast_ops;
static _Atomic int slow_sync_us;
static _Atomic bool hold_sync, hold_write;
static _Atomic int syncs, writes, syncs_by_syncer;

static enum err slow_sync(struct store *s)
{
	char name[16];

	usleep((useconds_t)atomic_load(&slow_sync_us));
	while (atomic_load(&hold_sync))
		usleep(1000);
	atomic_fetch_add(&syncs, 1);
	ck_assert_int_eq(pthread_getname_np(pthread_self(), name, sizeof name), 0);
	if (strcmp(name, "syncer") == 0)
		atomic_fetch_add(&syncs_by_syncer, 1);
	return fast_ops->sync(s);
}

static enum err slow_write(struct store *s, struct store_batch *b)
{
	while (atomic_load(&hold_write))
		usleep(1000);
	atomic_fetch_add(&writes, 1);
	return fast_ops->write(s, b);
}

static void setup(void)
{
	sem_init(&ended, 0, 0);
	ck_assert_int_eq(store_open_mem(5, &store), OK);
	fast_ops = store->ops;
	slow_ops = *fast_ops;
	slow_ops.sync = slow_sync;
	slow_ops.write = slow_write;
	store->ops = &slow_ops;
	atomic_store(&slow_sync_us, 0);
	loops = loops_new(LOOPS);
	writer = writer_new(store, loops);
}

static void teardown(void)
{
	loops_stop(loops);
	writer_stop(writer);
	loops_free(loops);
	writer_free(writer);
	store_close(store);
}

struct ask {
	struct durable durable;
	int turn;
};

struct client { /* one per loop: puts, waits, checks order, puts again */
	struct lane *lane;
	int loop, asked, answered;
	struct loop_hook hook;
	struct ask asks[TURNS];
};
static struct client clients[LOOPS];

static void put_number(struct lane *l, uint64_t group, uint64_t index)
{
	struct entry_key k = key_entry(group, index);
	struct bytes v = KEY_BYTES(k);

	lane_put(l, FAMILY_ROWS, v, &v, 1);
}

static bool is_there(uint64_t group, uint64_t index)
{
	struct entry_key k = key_entry(group, index);
	struct slice v;
	enum err e = store_get(store, NULL, FAMILY_ROWS, KEY_BYTES(k), &v);

	if (e == OK)
		slice_unref(&v);
	return e == OK;
}

static void on_durable(struct durable *d)
{
	struct ask *a = list_entry(d, struct ask, durable);
	struct client *c = &clients[loop_index(loop_here())];

	ck_assert_int_eq(a->turn, c->answered); /* in order, each once */
	ck_assert(is_there((uint64_t)c->loop, (uint64_t)a->turn));
	c->answered++;
	if (c->answered == TURNS)
		sem_post(&ended);
}

static void client_turn(struct loop_hook *h)
{
	struct client *c = list_entry(h, struct client, hook);
	int n = 1 + c->asked % 3;

	for (int i = 0; i < n && c->asked < TURNS; i++) {
		struct ask *a = &c->asks[c->asked];

		a->turn = c->asked;
		a->durable.done = on_durable;
		put_number(c->lane, (uint64_t)c->loop, (uint64_t)c->asked++);
		lane_when_durable(c->lane, &a->durable);
	}
	if (c->asked < TURNS)
		lane_when_idle(c->lane, &c->hook);
}

static void client_start(void *arg)
{
	client_turn(&((struct client *)arg)->hook);
}

static void run_clients(void)
{
	for (int i = 0; i < LOOPS; i++) {
		clients[i] = (struct client){
			.lane = writer_lane(writer, loops_at(loops, i)), .loop = i};
		loop_hook_init(&clients[i].hook, client_turn);
	}
	loops_run(loops);
	for (int i = 0; i < LOOPS; i++)
		loop_call(loops_at(loops, i), client_start, &clients[i]);
	for (int i = 0; i < LOOPS; i++)
		sem_wait(&ended);
}

/* What was acknowledged survives a crash, in the order asked, on every loop. */
START_TEST(acknowledges_what_is_synced)
{
	atomic_store(&slow_sync_us, _i * 300);
	run_clients();
	store_mem_crash(store);
	for (int i = 0; i < LOOPS; i++) {
		ck_assert_int_eq(clients[i].answered, TURNS);
		for (int t = 0; t < TURNS; t++)
			ck_assert(is_there((uint64_t)i, (uint64_t)t));
		ck_assert_uint_eq(lane_pending_bytes(clients[i].lane), 0);
	}
	ck_assert_uint_eq(writer_synced_sequence(writer), store_sequence(store));
}
END_TEST

/* Under a slow sync many sets share one: far fewer syncs than asks. */
START_TEST(one_sync_serves_many_sets)
{
	atomic_store(&slow_sync_us, 3000);
	atomic_store(&syncs, 0);
	run_clients();
	ck_assert_int_gt(atomic_load(&syncs), 0);
	ck_assert_int_lt(atomic_load(&syncs), LOOPS * TURNS / 5);
}
END_TEST

static _Atomic int inside;

static void after(struct durable *d)
{
	(void)d;
	ck_assert_int_eq(atomic_load(&inside), 0);
	sem_post(&ended);
}

static struct durable first, second;

static void ask_twice(void *arg)
{
	struct lane *l = arg;

	atomic_store(&inside, 1);
	first.done = second.done = after;
	lane_when_durable(l, &first); /* nothing was ever put */
	put_number(l, 9, 9);
	lane_when_durable(l, &second);
	atomic_store(&inside, 0);
}

START_TEST(never_answers_inside_the_call)
{
	loops_run(loops);
	loop_call(loops_at(loops, 0), ask_twice, writer_lane(writer, loops_at(loops, 0)));
	sem_wait(&ended);
	sem_wait(&ended);
	ck_assert(is_there(9, 9));
}
END_TEST

static void put_some(void *arg)
{
	for (uint64_t i = 0; i < 50; i++)
		put_number(arg, 1, i);
	sem_post(&ended);
}

/* A turn is one set; while it is being written the lane is busy and gathers. */
START_TEST(load_makes_sets_larger)
{
	struct lane *l = writer_lane(writer, loops_at(loops, 1));

	atomic_store(&hold_write, true);
	atomic_store(&writes, 0);
	loops_run(loops);
	for (int i = 0; i < 10; i++) {
		loop_call(loops_at(loops, 1), put_some, l);
		sem_wait(&ended);
	}
	atomic_store(&hold_write, false);
	loops_stop(loops);
	writer_stop(writer);
	ck_assert_int_ge(atomic_load(&writes), 1);
	ck_assert_int_le(atomic_load(&writes), 6);
	store_mem_crash(store);
	ck_assert(is_there(1, 49)); /* ending wrote and synced what still gathered */
}
END_TEST

static void on_one_durable(struct durable *d)
{
	(void)d;
	sem_post(&ended);
}

static size_t put_bytes;

static void put_one_and_wait(void *arg)
{
	struct entry_key k = key_entry(7, put_bytes);
	uint8_t *value = mem_new(put_bytes);
	struct bytes v = bytes_of(value, put_bytes);

	lane_put(arg, FAMILY_ROWS, KEY_BYTES(k), &v, 1);
	mem_free(value);
	first.done = on_one_durable;
	lane_when_durable(arg, &first);
}

/* A small set alone wakes one thread only; a large one is synced while others are written. */
START_TEST(little_is_synced_by_the_writer)
{
	atomic_store(&syncs_by_syncer, 0);
	atomic_store(&syncs, 0);
	loops_run(loops);
	put_bytes = _i == 0 ? 100 : 100000;
	for (int i = 0; i < 5; i++) {
		loop_call(loops_at(loops, 1), put_one_and_wait,
			writer_lane(writer, loops_at(loops, 1)));
		sem_wait(&ended);
	}
	ck_assert_int_ge(atomic_load(&syncs), 5);
	ck_assert_int_eq(atomic_load(&syncs_by_syncer), _i == 0 ? 0 : atomic_load(&syncs));
}
END_TEST

/* ---- past the log of writes */

static void put_unlogged(struct lane *l, uint64_t index)
{
	struct entry_key k = key_entry(8, index);
	struct bytes v = KEY_BYTES(k);

	lane_put_unlogged(l, FAMILY_ROWS, v, &v);
}

static void put_unlogged_and_wait(void *arg)
{
	for (uint64_t i = 1; i <= 10; i++)
		put_unlogged(arg, i);
	if (put_bytes > 0)
		put_number(arg, 7, 1);
	ck_assert_uint_ge(lane_pending_bytes(arg), 10 * 2 * 16);
	first.done = on_one_durable;
	lane_when_durable(arg, &first);
}

/* Who waits is told once it is written, with logged puts beside it or without; it counts as pending
 * until then. A crash takes it, and leaves no lower number than the one that is told as synced. */
START_TEST(unlogged_puts_are_written_and_not_durable)
{
	struct lane *l = writer_lane(writer, loops_at(loops, 1));
	bool lost = false;
	uint64_t synced;

	put_bytes = (size_t)_i % 2;
	loops_run(loops);
	loop_call(loops_at(loops, 1), put_unlogged_and_wait, l);
	sem_wait(&ended);
	ck_assert_uint_eq(lane_pending_bytes(l), 0);
	for (uint64_t i = 1; i <= 10; i++)
		ck_assert(is_there(8, i));
	ck_assert(is_there(7, 1) == (_i % 2 == 1));
	synced = writer_synced_sequence(writer);
	if (_i % 2 == 0)
		ck_assert_uint_lt(synced, store_sequence(store));
	if (_i >= 2)
		ck_assert_int_eq(store_flush(store, FAMILY_ROWS), OK);
	store_mem_crash(store);
	ck_assert_uint_ge(store_sequence(store), synced);
	ck_assert(is_there(7, 1) == (_i % 2 == 1));
	for (uint64_t i = 1; i <= 10; i++)
		lost = lost || !is_there(8, i);
	ck_assert(_i < 2 || !lost);
}
END_TEST

static void put_and_delete(void *arg)
{
	struct entry_key from = key_entry(8, 0), to = key_entry(8, 5);

	put_unlogged(arg, 4);
	lane_delete_range(arg, FAMILY_ROWS, KEY_BYTES(from), KEY_BYTES(to));
	put_unlogged(arg, 6);
	first.done = on_one_durable;
	lane_when_durable(arg, &first);
}

/* In one set they come before all else. */
START_TEST(unlogged_puts_come_first)
{
	loops_run(loops);
	loop_call(loops_at(loops, 1), put_and_delete, writer_lane(writer, loops_at(loops, 1)));
	sem_wait(&ended);
	ck_assert(!is_there(8, 4));
	ck_assert(is_there(8, 6));
}
END_TEST

static void put_unlogged_only(void *arg)
{
	put_unlogged(arg, 1);
	sem_post(&ended);
}

START_TEST(an_end_writes_unlogged_puts)
{
	loops_run(loops);
	loop_call(loops_at(loops, 1), put_unlogged_only, writer_lane(writer, loops_at(loops, 1)));
	sem_wait(&ended);
	loops_stop(loops);
	writer_stop(writer);
	ck_assert(is_there(8, 1));
}
END_TEST

START_TEST(shows_a_stall)
{
	ck_assert_int_eq(writer_stalled_ms(writer), 0);
	atomic_store(&hold_sync, true);
	loops_run(loops);
	loop_call(loops_at(loops, 1), put_some, writer_lane(writer, loops_at(loops, 1)));
	sem_wait(&ended);
	for (int i = 0; i < 10000 && writer_stalled_ms(writer) < 100; i++)
		usleep(1000);
	ck_assert_int_ge(writer_stalled_ms(writer), 100);
	atomic_store(&hold_sync, false);
	for (int i = 0; i < 10000 && writer_stalled_ms(writer) > 0; i++)
		usleep(1000);
	ck_assert_int_eq(writer_stalled_ms(writer), 0);
}
END_TEST

static enum err failing_sync(struct store *s)
{
	(void)s;
	return ERR_IO;
}

START_TEST(a_failed_sync_stops_the_process)
{
	slow_ops.sync = failing_sync;
	loops_run(loops);
	loop_call(loops_at(loops, 1), put_some, writer_lane(writer, loops_at(loops, 1)));
	sleep(25); /* it is over long before */
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("writer");
	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, acknowledges_what_is_synced, 0, 3);
	tcase_add_test(tc, one_sync_serves_many_sets);
	tcase_add_test(tc, never_answers_inside_the_call);
	tcase_add_test(tc, load_makes_sets_larger);
	tcase_add_loop_test(tc, little_is_synced_by_the_writer, 0, 2);
	tcase_add_loop_test(tc, unlogged_puts_are_written_and_not_durable, 0, 4);
	tcase_add_test(tc, unlogged_puts_come_first);
	tcase_add_test(tc, an_end_writes_unlogged_puts);
	tcase_add_test(tc, shows_a_stall);
	tcase_add_test_raise_signal(tc, a_failed_sync_stops_the_process, 6);
	Suite *s = suite_create("writer");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
