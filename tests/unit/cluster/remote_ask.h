/* What the tests of remote partitions ask of a node, from loop 1, each waiting for the answer.
 * Included by one .c of a test binary, behind remote_world.h. */
#ifndef TESTS_REMOTE_ASK_H
#define TESTS_REMOTE_ASK_H
#include "tests/unit/cluster/remote_world.h"

enum { KS = 20 }; /* the keyspace of all rows here */

static struct row_read row;
static void row_done(struct row_read *r)
{
	(void)r;
	sem_post(&N.done);
}
static void row_run(void *arg)
{
	(void)arg;
	row.done = row_done;
	partition_read_rows(&row);
}
static enum err read_row(int node, const char *key, bool linearizable)
{
	row = (struct row_read){.from = N.node[node].p,
		.keyspace = KS,
		.key = bytes_text(key),
		.linearizable = linearizable};
	on_loop(1, row_run, NULL);
	return row.err;
}

static struct record_read records;
static void records_done(struct record_read *r)
{
	(void)r;
	sem_post(&N.done);
}
static void records_run(void *arg)
{
	(void)arg;
	records.done = records_done;
	partition_read_records(&records);
}
static enum err read_records(int node, int64_t offset)
{
	records = (struct record_read){
		.from = N.node[node].p, .offset = offset, .bytes_max = 1 << 20};
	on_loop(1, records_run, NULL);
	return records.err;
}

static struct partition_point point;
static void point_done(struct partition_point *q)
{
	(void)q;
	sem_post(&N.done);
}
static void point_run(void *arg)
{
	(void)arg;
	point.done = point_done;
	partition_point(&point);
}
static enum err ask_point(int node)
{
	point = (struct partition_point){.at = N.node[node].p};
	on_loop(1, point_run, NULL);
	return point.err;
}

#endif
