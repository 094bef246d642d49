/* A sweep over a real node: rows of every partition at home on every loop go or are replaced as the
 * rule says, and the rule's second word is the one that counts. */
#include "server/broker/keyspace.h"
#include "server/broker/sweep.h"
#include "tests/unit/server/broker/world_rows.h"

enum { LOOPS = 2, ROWS = 1500, KEYSPACE = KEYSPACE_PRODUCER };

static struct world w;

/* 'd' is deleted, 'r' becomes "k", 'm' is deleted only as long as nobody asks again. */
static bool judge(struct sweep *s, const struct partition *p, struct sweep_row *row)
{
	(void)s;
	(void)p;
	ck_assert_uint_eq(row->value.len, 1);
	row->why = row->value.at[0];
	return strchr("drm", row->why) != NULL;
}

static enum err decide(struct sweep_row *row, enum sweep_word *word)
{
	ck_assert_uint_eq(row->value.len, 1);
	ck_assert_uint_eq(row->why, row->value.at[0]); /* nobody else writes here */
	ck_assert_int_eq(row->keep_ms, 77);
	if (row->why == 'd')
		*word = SWEEP_DELETE;
	if (row->why == 'r') {
		buf_add_text(row->replacement, "k");
		*word = SWEEP_REPLACE;
	}
	return OK;
}

static int64_t keep(const struct sweep *s)
{
	(void)s;
	return 77;
}

static int64_t period(const struct sweep *s)
{
	(void)s;
	return 20;
}

static enum err evaluate(struct eval *v, struct bytes args);
static const struct proposal_kind kind = {PROPOSAL_SWEEP, evaluate};
static const struct sweep_rule of_streams = {
	KEYSPACE, false, &kind, judge, decide, keep, period, NULL};
static const struct sweep_rule of_tables = {
	KEYSPACE, true, &kind, judge, decide, keep, period, NULL};

static enum err evaluate(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&of_streams, v, args);
}

static void mixed(int i, struct buf *key, struct buf *value)
{
	static const char *const kinds[] = {"d", "k", "m", "r", "d"};
	buf_add_u32be(key, (uint32_t)i);
	buf_add_text(value, kinds[i % 5]);
}

static struct partition *partition_at(int i)
{
	const struct stream *s = catalog_stream(
		node_catalog(w.node, loops_at(w.loops, 0)), bytes_text("mqtt"));
	ck_assert_ptr_nonnull(s);
	ck_assert_int_lt(i, s->partition_count);
	return s->partitions[i];
}

static bool gone(struct partition *p)
{
	return rows_count(&w, p, KEYSPACE, "d") == 0 && rows_count(&w, p, KEYSPACE, "r") == 0;
}

static void await(struct partition *p)
{
	for (int i = 0; i < 1000 && !gone(p); i++)
		usleep(10000);
	ck_assert(gone(p));
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE, "m"), ROWS / 5);
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE, "k"), ROWS / 5 * 2);
}

static void start(void)
{
	world_init(&w);
	world_start(&w, LOOPS);
}

static void end(struct sweep *s)
{
	for (int i = 0; i < LOOPS; i++)
		sweep_stop(&s[i]);
	world_stop(&w);
	for (int i = 0; i < LOOPS; i++)
		sweep_free(&s[i]);
}

START_TEST(rows_of_every_partition_go)
{
	static struct sweep s[LOOPS];
	start();
	for (int i = 0; i < 4; i++)
		rows_put(&w, partition_at(i), KEYSPACE, ROWS, mixed);
	for (int i = 0; i < LOOPS; i++)
		sweep_start(&s[i], &of_streams, NULL, w.node, loops_at(w.loops, i));
	for (int i = 0; i < 4; i++)
		await(partition_at(i));
	rows_put(&w, partition_at(1), KEYSPACE, ROWS, mixed); /* and in the rounds to come */
	await(partition_at(1));
	end(s);
}
END_TEST

START_TEST(rows_of_tables_go_and_no_others)
{
	static struct sweep s[LOOPS];
	start();
	struct partition *table = catalog_table_at(node_catalog(w.node, loops_at(w.loops, 0)), 0);
	rows_put(&w, table, KEYSPACE, ROWS, mixed);
	rows_put(&w, partition_at(0), KEYSPACE, ROWS, mixed);
	for (int i = 0; i < LOOPS; i++)
		sweep_start(&s[i], &of_tables, NULL, w.node, loops_at(w.loops, i));
	await(table);
	ck_assert_int_eq(rows_count(&w, partition_at(0), KEYSPACE, NULL), ROWS);
	end(s);
}
END_TEST

START_TEST(a_stream_may_go_while_it_is_swept)
{
	static struct sweep s[LOOPS];
	start();
	for (int i = 0; i < LOOPS; i++)
		sweep_start(&s[i], &of_streams, NULL, w.node, loops_at(w.loops, i));
	for (int i = 0; i < 8; i++) {
		struct world_change make = {.op = {.kind = META_CREATE_STREAM,
						    .name = "a-short-one",
						    .partitions = 5,
						    .replicas = -1}};
		ck_assert_int_eq(world_change(&w, &make), OK);
		const struct stream *stream = catalog_stream(
			node_catalog(w.node, loops_at(w.loops, 0)), bytes_text("a-short-one"));
		rows_put(&w, stream->partitions[i % 5], KEYSPACE, ROWS, mixed);
		usleep(3000 * (useconds_t)i);
		struct world_change drop = {
			.op = {.kind = META_DELETE_STREAM, .name = "a-short-one"}};
		ck_assert_int_eq(world_change(&w, &drop), OK);
	}
	rows_put(&w, partition_at(2), KEYSPACE, ROWS, mixed);
	await(partition_at(2));
	end(s);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sweep");
	TCase *tc = tcase_create("sweep");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, rows_of_every_partition_go);
	tcase_add_test(tc, rows_of_tables_go_and_no_others);
	tcase_add_test(tc, a_stream_may_go_while_it_is_swept);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
