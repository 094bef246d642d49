/* Real loops, workers, a writer and a store for tests of partitions; the test's own thread asks
 * loops to do things and waits for the outcome. */
#ifndef TESTS_PARTITION_WORLD_H
#define TESTS_PARTITION_WORLD_H
#include <check.h>
#include <semaphore.h>
#include <stdlib.h>
#include "cluster/partition_priv.h"

enum { WORLD_LOOPS = 3 };

struct world {
	struct store *store;
	struct loops *loops;
	struct workers *workers;
	struct writer *writer;
	struct compact_rate rate;
	struct compactor *compactor;
	struct tail_cache *cache[WORLD_LOOPS];
	struct plog_env env[WORLD_LOOPS];
	struct partition_home *home[WORLD_LOOPS];
	struct partition_limits limits;
	size_t tail_bytes;
	sem_t done;
	enum err err;
};

static inline void world_call(struct world *w, int loop, void (*fn)(void *arg), void *arg)
{
	loop_call(loops_at(w->loops, loop), fn, arg);
	while (sem_wait(&w->done) != 0)
		;
}

/* Loops and threads over w->store, which outlives them. */
static inline void world_start(struct world *w)
{
	consensus_process_init();
	w->loops = loops_new(WORLD_LOOPS);
	w->workers = workers_new(2);
	w->writer = writer_new(w->store, w->loops);
	sem_init(&w->done, 0, 0);
	w->compactor = compactor_new(&w->rate, 4 << 20);
	if (w->limits.inflight_bytes_max == 0)
		w->limits = (struct partition_limits){1 << 20, 16 << 20};
	for (int i = 0; i < WORLD_LOOPS; i++) {
		struct loop *l = loops_at(w->loops, i);

		w->cache[i] = tail_cache_new(w->tail_bytes ? w->tail_bytes : 8 << 20);
		w->env[i] = (struct plog_env){.loop = l,
			.store = w->store,
			.lane = writer_lane(w->writer, l),
			.cache = w->cache[i],
			.workers = w->workers,
			.compactor = w->compactor};
		w->home[i] = partition_home_new(l, &w->limits);
		partition_home_start(w->home[i]);
	}
}

static inline void world_stop(struct world *w)
{
	loops_stop(w->loops);
	for (int i = 0; i < WORLD_LOOPS; i++)
		partition_home_free(w->home[i]);
	writer_stop(w->writer);
	for (int i = 0; i < WORLD_LOOPS; i++)
		tail_cache_free(w->cache[i]);
	workers_free(w->workers);
	loops_free(w->loops);
	writer_free(w->writer);
	compactor_free(w->compactor);
	sem_destroy(&w->done);
}

static inline struct partition *world_partition(struct world *w, int loop, uint64_t group)
{
	struct partition_options o = {.env = &w->env[loop],
		.group = group,
		.replica = 1ull << 32 | 1,
		.log_family = FAMILY_LOG_DAYS};

	return partition_new(w->home[loop], &o);
}

/* Before loops_run. */
static inline struct partition *world_open(struct world *w, int loop, uint64_t group)
{
	struct partition *p = world_partition(w, loop, group);

	ck_assert_int_eq(partition_open(p), OK);
	return p;
}

struct world_close {
	struct world *w;
	struct partition *p;
	bool destroy, crash;
};
static inline void world_closed(void *arg)
{
	sem_post(&((struct world_close *)arg)->w->done);
}
static inline void world_close_run(void *arg)
{
	struct world_close *c = arg;

	if (c->crash) /* as if it had been killed: rows are not written back */
		c->p->marked_index = c->p->applied_index;
	partition_close(c->p, c->destroy, world_closed, c);
}
static inline void world_close(struct world *w, struct partition *p, bool destroy, bool crash)
{
	struct world_close c = {w, p, destroy, crash};

	world_call(w, loop_index(partition_home(p)), world_close_run, &c);
	partition_unref(p);
}

static inline struct slice world_batch(int records, size_t value_bytes, int64_t ms)
{
	struct batch_builder b;
	uint8_t *at = mem_new(value_bytes + 1);
	struct bytes value = bytes_of(at, value_bytes);
	struct slice s;

	memset(at, 'v', value_bytes);
	batch_builder_init(&b, 64 << 20);
	for (int i = 0; i < records; i++)
		ck_assert_int_eq(batch_builder_add(&b, ms + i, NULL, &value, NULL, 0), OK);
	s = batch_builder_seal(&b);
	batch_builder_fini(&b);
	mem_free(at);
	return s;
}

static inline void world_batch_into(struct proposal *q, int records, size_t value_bytes, int64_t ms)
{
	q->batch = world_batch(records, value_bytes, ms);
	q->batch_count = (uint32_t)records;
	q->batch_max_ms = ms + records - 1;
}

/* One proposal, from the test's thread, via a loop. */
struct world_ask {
	struct proposal q;
	struct world *w;
};
static inline void world_asked(struct proposal *q)
{
	sem_post(&list_entry(q, struct world_ask, q)->w->done);
}
static inline void world_ask_run(void *arg)
{
	struct world_ask *a = arg;

	a->q.done = world_asked;
	partition_propose(&a->q);
}
static inline enum err world_ask(struct world *w, int loop, struct world_ask *a)
{
	a->w = w;
	world_call(w, loop, world_ask_run, a);
	return a->q.err;
}

struct world_row {
	struct row_read r;
	struct world *w;
};
static inline void world_row_done(struct row_read *r)
{
	sem_post(&list_entry(r, struct world_row, r)->w->done);
}
static inline void world_row_run(void *arg)
{
	struct world_row *a = arg;

	a->r.done = world_row_done;
	partition_read_rows(&a->r);
}
static inline enum err world_row(struct world *w, int loop, struct world_row *a)
{
	a->w = w;
	world_call(w, loop, world_row_run, a);
	return a->r.err;
}

struct world_read {
	struct record_read r;
	struct world *w;
};
static inline void world_read_done(struct record_read *r)
{
	sem_post(&list_entry(r, struct world_read, r)->w->done);
}
static inline void world_read_run(void *arg)
{
	struct world_read *a = arg;

	a->r.done = world_read_done;
	partition_read_records(&a->r);
}
static inline enum err world_read(struct world *w, int loop, struct world_read *a)
{
	a->w = w;
	world_call(w, loop, world_read_run, a);
	return a->r.err;
}

#endif
