/* A log for its tests: every life of it is a loop, a writer and workers over one store in memory.
 * What is done and asked runs on the home loop, the test waits. */
#ifndef TESTS_STORAGE_LOG_LIFE_H
#define TESTS_STORAGE_LOG_LIFE_H
#include <check.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "storage/compact.h"
#include "storage/plog.h"
#include "storage/store_priv.h"
#include "tests/unit/run_on.h"

static struct store *store;
static struct loops *loops;
static struct writer *writer;
static struct workers *workers;
static struct plog_env env;
static struct plog *p;
static sem_t done;

/* Once frozen the store takes writes and syncs and forgets them: the end of a power supply. */
static struct store_ops freezing;
static const struct store_ops *real;
static _Atomic bool frozen;
static _Atomic bool no_sync;

static enum err freezing_write(struct store *s, struct store_batch *b)
{
	return atomic_load(&frozen) ? OK : real->write(s, b);
}

static enum err freezing_sync(struct store *s)
{
	return atomic_load(&frozen) || atomic_load(&no_sync) ? OK : real->sync(s);
}

static void open_store(uint64_t seed)
{
	ck_assert_int_eq(sem_init(&done, 0, 0), 0);
	ck_assert_int_eq(store_open_mem(seed, &store), OK);
	real = store->ops;
	freezing = *real;
	freezing.write = freezing_write;
	freezing.sync = freezing_sync;
	store->ops = &freezing;
	atomic_store(&no_sync, false);
}

static void begin_log(uint64_t group, enum store_family f, size_t cache_bytes, struct compactor *c)
{
	atomic_store(&frozen, false);
	loops = loops_new(1);
	workers = workers_new(2);
	writer = writer_new(store, loops);
	env = (struct plog_env){
		.loop = loops_at(loops, 0),
		.store = store,
		.lane = writer_lane(writer, loops_at(loops, 0)),
		.cache = tail_cache_new(cache_bytes),
		.workers = workers,
		.compactor = c,
	};
	ck_assert_int_eq(plog_open(&env, group, f, &p), OK);
	loops_run(loops);
}

static void wait_done(void)
{
	while (sem_wait(&done) != 0)
		;
}

static void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(env.loop, fn, arg);
}

static void close_log(void *arg)
{
	(void)arg;
	plog_close(p);
	ck_assert_uint_eq(tail_cache_bytes(env.cache), 0);
}

static void end_log(bool crash)
{
	if (crash)
		atomic_store(&frozen, true);
	on_loop(close_log, NULL);
	workers_free(workers);
	loops_stop(loops);
	writer_stop(writer);
	loops_free(loops);
	writer_free(writer);
	tail_cache_free(env.cache);
	if (crash)
		store_mem_crash(store);
}

static void durable_run(struct durable *d)
{
	(void)d;
	sem_post(&done);
}

static void ask_durable(void *arg)
{
	lane_when_durable(env.lane, arg);
}

static void wait_durable(void)
{
	struct durable d = {.done = durable_run};

	on_loop(ask_durable, &d);
	wait_done();
}

#endif
