/* Rows of partitions for tests: put and read from the test's own thread. */
#ifndef TESTS_BROKER_WORLD_ROWS_H
#define TESTS_BROKER_WORLD_ROWS_H
#include "tests/unit/server/broker/world.h"

struct rows_put {
	struct world *w;
	struct proposal proposal;
	uint8_t keyspace;
	int count;
	/* Key and value of the i-th row. */
	void (*row)(int i, struct buf *key, struct buf *value);
};
static inline enum err rows_put_evaluate(struct proposal *p, struct eval *v)
{
	struct rows_put *a = list_entry(p, struct rows_put, proposal);
	for (int i = 0; i < a->count; i++) {
		struct buf key, value;
		buf_init(&key, 1 << 16);
		buf_init(&value, 1 << 16);
		a->row(i, &key, &value);
		eval_put(v, a->keyspace, buf_bytes(&key), buf_bytes(&value));
		buf_fini(&key);
		buf_fini(&value);
	}
	return OK;
}
static inline void rows_put_done(struct proposal *p)
{
	sem_post(&list_entry(p, struct rows_put, proposal)->w->done);
}
static inline void rows_put_run(void *arg)
{
	struct rows_put *a = arg;
	a->proposal.evaluate = rows_put_evaluate;
	a->proposal.done = rows_put_done;
	partition_propose(&a->proposal);
}
static inline void rows_put(struct world *w, struct partition *p, uint8_t keyspace, int count,
	void (*row)(int i, struct buf *key, struct buf *value))
{
	struct rows_put a = {.w = w, .keyspace = keyspace, .count = count, .row = row};
	a.proposal.to = p;
	world_call(w, 0, rows_put_run, &a);
	ck_assert_int_eq(a.proposal.err, OK);
}

struct rows_seen {
	struct world *w;
	struct row_read read;
};
static inline void rows_seen_done(struct row_read *r)
{
	sem_post(&list_entry(r, struct rows_seen, read)->w->done);
}
static inline void rows_seen_run(void *arg)
{
	struct rows_seen *a = arg;
	partition_read_rows(&a->read);
}
/* How many rows there are; and if value is not NULL, how many begin with that byte. */
static inline int rows_count(
	struct world *w, struct partition *p, uint8_t keyspace, const char *value)
{
	struct rows_seen a = {.w = w};
	int count = 0;
	a.read = (struct row_read){.from = p,
		.keyspace = keyspace,
		.prefix = true,
		.rows_max = 100000,
		.bytes_max = 64 << 20,
		.done = rows_seen_done};
	world_call(w, 0, rows_seen_run, &a);
	ck_assert(a.read.err == OK || a.read.err == ERR_NOTFOUND);
	ck_assert(!a.read.more);
	for (int i = 0; i < a.read.count; i++)
		count += value == NULL ||
			(a.read.rows[i].value.len > 0 && a.read.rows[i].value.at[0] == *value);
	row_read_fini(&a.read);
	return count;
}

#endif
