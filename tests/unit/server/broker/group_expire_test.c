/* Offsets and groups that nobody uses go; what is in use, by a commit or by members, stays. */
#include "server/broker/group_expire.h"
#include "server/broker/keyspace.h"
#include "server/broker/producer_expire.h"
#include "tests/unit/server/broker/world_rows.h"

enum { KEEP_MS = 1600, OLD_MS = 10 * KEEP_MS, OFFSETS = 100 };

static struct world w;
static struct groups *groups;
static struct group_expire expire;
static const struct group_conf conf = {
	.session_ms_min = 1,
	.session_ms_max = 1800000,
	.members_max = 10,
	.bytes_max = 1 << 20,
	.groups_max = 100,
	.offset_metadata_max = 4096,
	.offsets_keep_ms = KEEP_MS,
};

static struct partition *table(void)
{
	return catalog_table_at(node_catalog(w.node, loops_at(w.loops, 0)), 0);
}

static int64_t ago(int64_t ms)
{
	return clock_wall_ms() - ms;
}

/* Offsets alternate between two groups, "young", used just now, and "old"; every tenth was
 * committed just now. */
static void add_offset(int i, const uint8_t uuid[16], struct buf *key, struct buf *value)
{
	struct group_offset o = {.partition = i, .offset = i, .epoch = 1};
	memcpy(o.stream, uuid, sizeof o.stream);
	group_offset_key(key, bytes_text(i % 2 ? "young" : "old"), o.stream, i);
	group_offset_value(value, &o, i % 10 == 0 ? ago(-600000) : ago(OLD_MS));
}

static void known_offsets(int i, struct buf *key, struct buf *value)
{
	const struct stream *s = catalog_stream(
		node_catalog(w.node, loop_here()), bytes_text("mqtt"));
	add_offset(i, s->uuid, key, value);
}

/* Of a stream that is gone, committed a good while ago, in a group in use. */
static void lost_offsets(int i, struct buf *key, struct buf *value)
{
	uint8_t uuid[16] = {1, 2, 3};
	struct group_offset o = {.partition = i};
	memcpy(o.stream, uuid, sizeof o.stream);
	group_offset_key(key, bytes_text("young"), o.stream, i);
	group_offset_value(value, &o, i % 2 ? ago(3600000) : ago(10));
}

static void two_groups(int i, struct buf *key, struct buf *value)
{
	struct group_row row = {.generation = 7,
		.time_ms = i ? ago(-600000) : ago(OLD_MS),
		.protocol_type = bytes_text("consumer")};
	buf_add_text(key, i ? "young" : "old");
	group_row_write(value, &row);
}

static void start(void)
{
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
}

static void sweep_on(void)
{
	group_expire_start(&expire, groups, &conf, w.node, loops_at(w.loops, 0));
}

static void end(void)
{
	group_expire_stop(&expire);
	groups_stop(groups);
	world_stop(&w);
	group_expire_free(&expire);
	groups_free(groups);
}

static void await(uint8_t keyspace, int left)
{
	for (int i = 0; i < 1000 && rows_count(&w, table(), keyspace, NULL) > left; i++)
		usleep(10000);
	usleep(3 * (useconds_t)expire_period_ms(KEEP_MS) * 1000); /* nor do more go later */
	ck_assert_int_eq(rows_count(&w, table(), keyspace, NULL), left);
}

START_TEST(offsets_go_with_their_group)
{
	start();
	rows_put(&w, table(), KEYSPACE_GROUP_OFFSET, OFFSETS, known_offsets);
	rows_put(&w, table(), KEYSPACE_GROUP, 2, two_groups);
	sweep_on();
	/* Those of the young group, and what was committed to the old one lately. */
	await(KEYSPACE_GROUP_OFFSET, OFFSETS / 2 + OFFSETS / 10);
	await(KEYSPACE_GROUP, 1);
	end();
}
END_TEST

START_TEST(offsets_without_a_group_go_by_themselves)
{
	start();
	rows_put(&w, table(), KEYSPACE_GROUP_OFFSET, OFFSETS, known_offsets);
	sweep_on();
	await(KEYSPACE_GROUP_OFFSET, OFFSETS / 10);
	end();
}
END_TEST

START_TEST(offsets_of_a_stream_that_is_gone_go)
{
	start();
	rows_put(&w, table(), KEYSPACE_GROUP, 2, two_groups);
	rows_put(&w, table(), KEYSPACE_GROUP_OFFSET, OFFSETS, lost_offsets);
	sweep_on();
	await(KEYSPACE_GROUP_OFFSET, OFFSETS / 2);
	end();
}
END_TEST

struct call {
	struct world *w;
	struct group_call call;
};

static void called(struct group_call *c)
{
	sem_post(&list_entry(c, struct call, call)->w->done);
}

static void call_run(void *arg)
{
	struct call *c = arg;
	c->call.done = called;
	group_call(groups, node_catalog(c->w->node, loop_here()), &c->call);
}

static enum group_err call(struct call *c)
{
	c->w = &w;
	c->call.group_id = bytes_text("old");
	world_call(&w, 0, call_run, c);
	return c->call.err;
}

START_TEST(a_group_with_members_is_renewed)
{
	static const struct group_choice choice = {{(const uint8_t *)"range", 5}, {NULL, 0}};
	start();
	rows_put(&w, table(), KEYSPACE_GROUP_OFFSET, OFFSETS, known_offsets);
	rows_put(&w, table(), KEYSPACE_GROUP, 2, two_groups);
	struct call join = {.call = {.kind = GROUP_CALL_JOIN,
				    .join = {.protocol_type = bytes_text("consumer"),
					    .protocols = &choice,
					    .protocol_count = 1,
					    .session_ms = 1800000,
					    .rebalance_ms = 1800000}}};
	ck_assert_int_eq(call(&join), GROUP_OK);
	sweep_on();
	usleep(10 * (useconds_t)expire_period_ms(KEEP_MS) * 1000);
	await(KEYSPACE_GROUP_OFFSET, OFFSETS);
	await(KEYSPACE_GROUP, 2);
	struct slice id = slice_ref(join.call.join.id);
	struct group_leaver leaver = {.member_id = id.bytes};
	struct call leave = {
		.call = {.kind = GROUP_CALL_LEAVE, .leavers = &leaver, .leaver_count = 1}};
	int64_t left_ms = clock_ms();
	ck_assert_int_eq(call(&leave), GROUP_OK);
	ck_assert_int_eq(leaver.err, GROUP_OK);
	group_call_fini(&join.call);
	slice_unref(&id);
	await(KEYSPACE_GROUP_OFFSET, OFFSETS / 2 + OFFSETS / 10);
	/* Not before its time, counted from when it was last seen in use. */
	ck_assert_int_ge(clock_ms() - left_ms, KEEP_MS - 2 * expire_period_ms(KEEP_MS));
	await(KEYSPACE_GROUP, 1);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("group_expire");
	TCase *tc = tcase_create("expiry");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, offsets_go_with_their_group);
	tcase_add_test(tc, offsets_without_a_group_go_by_themselves);
	tcase_add_test(tc, offsets_of_a_stream_that_is_gone_go);
	tcase_add_test(tc, a_group_with_members_is_renewed);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
