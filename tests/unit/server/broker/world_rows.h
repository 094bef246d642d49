/* Rows of partitions for tests: put and read from the test's own thread. */
#ifndef TESTS_BROKER_WORLD_ROWS_H
#define TESTS_BROKER_WORLD_ROWS_H
#include "tests/unit/server/broker/world.h"

struct rows_put {
	struct world *w;
	struct proposal proposal;
	struct buf args;
	uint8_t keyspace;
	int count;
	/* Key and value of the i-th row. */
	void (*row)(int i, struct buf *key, struct buf *value);
};
/* args: keyspace 1; then each: key length 4, key, value length 4, value. */
static inline enum err rows_put_evaluate(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	uint8_t keyspace = rd_u8(&r);
	while (rd_left(&r) > 0) {
		struct bytes key = rd_take(&r, rd_u32be(&r));
		struct bytes value = rd_take(&r, rd_u32be(&r));
		ck_assert_int_eq(r.err, OK);
		eval_put(v, keyspace, key, value);
	}
	return OK;
}
static const struct proposal_kind rows_put_kind = {PROPOSAL_NUMBER_MAX - 1, rows_put_evaluate};
static inline void rows_put_make(struct rows_put *a)
{
	struct buf key, value;
	buf_init(&a->args, 64 << 20);
	buf_init(&key, 1 << 16);
	buf_init(&value, 1 << 16);
	buf_add_u8(&a->args, a->keyspace);
	for (int i = 0; i < a->count; i++) {
		buf_clear(&key);
		buf_clear(&value);
		a->row(i, &key, &value);
		buf_add_u32be(&a->args, (uint32_t)buf_len(&key));
		buf_add(&a->args, buf_bytes(&key));
		buf_add_u32be(&a->args, (uint32_t)buf_len(&value));
		buf_add(&a->args, buf_bytes(&value));
	}
	ck_assert_int_eq(a->args.err, OK);
	buf_fini(&key);
	buf_fini(&value);
}
static inline void rows_put_done(struct proposal *p)
{
	sem_post(&list_entry(p, struct rows_put, proposal)->w->done);
}
static inline void rows_put_run(void *arg)
{
	struct rows_put *a = arg;
	rows_put_make(a);
	a->proposal.kind = &rows_put_kind;
	a->proposal.args = buf_bytes(&a->args);
	a->proposal.done = rows_put_done;
	partition_propose(&a->proposal);
}
static inline void rows_put(struct world *w, struct partition *p, uint8_t keyspace, int count,
	void (*row)(int i, struct buf *key, struct buf *value))
{
	struct rows_put a = {.w = w, .keyspace = keyspace, .count = count, .row = row};
	a.proposal.to = p;
	proposal_kind_add(&rows_put_kind);
	world_call(w, 0, rows_put_run, &a);
	buf_fini(&a.args);
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
