/* What a tenant may have: which limits go with which change, what is counted, and that changes and
 * messages which would make it too much are refused until there is room. */
#include "server/broker/tenant_limit.h"
#include "server/broker/admin_change.h"
#include "server/broker/rights_admin.h"
#include "tests/unit/server/broker/world_rights.h"

static void setup(void)
{
	world_init(&w);
	world_start(&w, 2);
	put_user_named("eve", "acme", "admin");
	struct buf key;
	buf_init(&key, 4096);
	buf_add(&key, bytes_of("t", 2));
	buf_add_text(&key, "acme/eve");
	put_doc(buf_bytes(&key), bytes_of("", 0));
	buf_fini(&key);
}
static void teardown(void)
{
	world_stop(&w);
}

/* --- asking */

struct ask {
	struct admin_change change;
	int loop;
};

static void asked(struct admin_change *c)
{
	access_unref(c->who.by);
	sem_post(&w.done);
}

static void ask_run(void *arg)
{
	struct ask *a = arg;
	struct shard *s = world_shard(&w, a->loop);
	admin_who(&a->change.who, s, access_of_user(s, bytes_text("eve"), "10.0.0.1:1"), "test",
		"10.0.0.1:1");
	a->change.done = asked;
	admin_change(&a->change);
}

static enum err ask(int loop, struct meta_op op)
{
	struct ask a = {.change = {.op = op}, .loop = loop};
	world_call(&w, loop, ask_run, &a);
	return a.change.op.err;
}

static enum err create(int loop, const char *name, int64_t partitions)
{
	return ask(loop,
		(struct meta_op){.kind = META_CREATE_STREAM,
			.name = name,
			.partitions = partitions,
			.replicas = -1});
}

static enum err drop(const char *name)
{
	return ask(0, (struct meta_op){.kind = META_DELETE_STREAM, .name = name});
}

static enum err route(const char *key, const char *value)
{
	struct meta_setting s = {key, value};
	return ask(0, (struct meta_op){.kind = META_SET, .settings = &s, .setting_count = 1});
}

static int64_t seen[QUOTA_WHATS];
static void count(void)
{
	for (int i = QUOTA_STREAMS; i < QUOTA_WHATS; i++)
		seen[i] = tenant_has(
			shard_catalog(world_shard(&w, 0)), bytes_text("acme"), (enum quota_what)i);
}

static enum err say(int loop)
{
	struct world_publish a = {.m = {.topic = bytes_text("t"),
					  .tenant = bytes_text("acme"),
					  .value = bytes_text("v"),
					  .qos = 1}};
	return world_publish(&w, loop, &a);
}

static enum err say_in_the_end(int loop, enum err not_yet)
{
	enum err e = say(loop);
	for (int i = 0; i < 2000 && e == not_yet; i++) {
		usleep(10000);
		e = say(loop);
	}
	return e;
}

/* --- tests */

static void expect_limits(void)
{
	const struct catalog *c = shard_catalog(world_shard(&w, 0));
	struct meta_setting settings[] = {{"config.x", "1"}, {"route.acme/r", "1"}};
	struct meta_op op = {.kind = META_CREATE_STREAM, .name = "acme/s"};
	struct tenant_limits l = {0};
	tenant_limits_of(&l, c, &op);
	ck_assert_int_eq(l.count, 1); /* of partitions there is none */
	ck_assert_int_eq(l.at[0].of, LIMIT_STREAMS);
	ck_assert_int_eq(l.at[0].most, 3);
	ck_assert(bytes_equal(l.at[0].prefix, bytes_text("acme/")));
	ck_assert(bytes_equal(l.at[0].what, bytes_text("streams")));
	ck_assert_int_eq(tenant_limit_add(&l, c, bytes_text("acme"), QUOTA_STREAMS), OK);
	ck_assert_int_eq(l.count, 1); /* once */
	op.name = "s";
	l.count = 0;
	tenant_limits_of(&l, c, &op);
	ck_assert_int_eq(l.count, 0);
	op = (struct meta_op){.kind = META_SET, .settings = settings, .setting_count = 2};
	tenant_limits_of(&l, c, &op);
	ck_assert_int_eq(l.count, 0);
	op = (struct meta_op){.kind = META_DELETE_STREAM, .name = "acme/s"};
	tenant_limits_of(&l, c, &op);
	ck_assert_int_eq(l.count, 0);
	ck_assert_int_eq(tenant_may_have(c, bytes_text("acme"), QUOTA_STREAMS), 3);
	ck_assert_int_eq(tenant_may_have(c, bytes_text("acme"), QUOTA_ROUTES), -1);
	ck_assert_int_eq(tenant_may_have(c, bytes_of("", 0), QUOTA_STREAMS), -1);
	for (int i = 0; i <= TENANT_LIMITS_MAX; i++) {
		char name[] = "t0";
		name[1] = (char)('0' + i);
		enum err e = tenant_limit_add(&l, c, bytes_text(name), QUOTA_RULES);
		ck_assert_int_eq(e, i < TENANT_LIMITS_MAX ? OK : ERR_TOOBIG);
	}
	ck_assert(bytes_equal(l.at[1].prefix, bytes_of("a\0t1", 5)));
}

START_TEST(limits_go_with_what_adds_something)
{
	put_quota(QUOTA_TENANT, "acme", QUOTA_STREAMS, 3);
	put_quota(QUOTA_TENANT, "", QUOTA_RULES, 5); /* of those without a quota */
	on_loop(0, expect_limits);
}
END_TEST

START_TEST(what_there_is_is_counted_and_no_more_is_taken)
{
	put_quota(QUOTA_TENANT, "acme", QUOTA_STREAMS, 2);
	ck_assert_int_eq(create(0, "acme/a", 3), OK);
	ck_assert_int_eq(create(1, "acme/b", 2), OK);
	ck_assert_int_eq(create(0, "acme/c", 1), ERR_QUOTA);
	ck_assert_int_eq(create(0, "acmes/c", 1), OK);
	ck_assert_int_eq(route("route.acme/r", "# -> a"), OK);
	on_loop(0, count);
	ck_assert_int_eq(seen[QUOTA_STREAMS], 2);
	ck_assert_int_eq(seen[QUOTA_PARTITIONS], 5);
	ck_assert_int_eq(seen[QUOTA_USERS], 1);
	ck_assert_int_eq(seen[QUOTA_RULES], 0);
	ck_assert_int_eq(seen[QUOTA_ROUTES], 1);
	put_quota(QUOTA_TENANT, "acme", QUOTA_ROUTES, 1);
	ck_assert_int_eq(route("route.acme/r", "# -> b"), OK);
	ck_assert_int_eq(route("route.acme/s", "# -> b"), ERR_QUOTA);
	ck_assert_int_eq(route("route.acme/r", NULL), OK);
	ck_assert_int_eq(route("route.acme/s", "# -> b"), OK);
	put_quota(QUOTA_TENANT, "acme", QUOTA_PARTITIONS, 4); /* has more */
	struct meta_op grow = {
		.kind = META_ADD_PARTITIONS, .name = "acme/b", .partitions = 3, .replicas = -1};
	ck_assert_int_eq(ask(0, grow), ERR_QUOTA);
	ck_assert_int_eq(drop("acme/a"), OK);
	ck_assert_int_eq(ask(0, grow), OK);
}
END_TEST

START_TEST(messages_whose_stream_may_not_be_made_are_refused)
{
	put_quota(QUOTA_TENANT, "acme", QUOTA_STREAMS, 1);
	ck_assert_int_eq(create(0, "acme/a", 1), OK);
	for (int loop = 0; loop < 2; loop++)
		ck_assert_int_eq(say(loop), ERR_QUOTA);
	ck_assert_int_eq(drop("acme/a"), OK);
	ck_assert_int_eq(say_in_the_end(1, ERR_QUOTA) == OK ? OK : say_in_the_end(1, ERR_BUSY), OK);
	put_quota(QUOTA_TENANT, "acme", QUOTA_PARTITIONS, 1); /* it is there */
	ck_assert_int_eq(say(0) == ERR_BUSY ? say_in_the_end(0, ERR_BUSY) : OK, OK);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("tenant_limit");
	Suite *s = suite_create("tenant_limit");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, limits_go_with_what_adds_something);
	tcase_add_test(tc, what_there_is_is_counted_and_no_more_is_taken);
	tcase_add_test(tc, messages_whose_stream_may_not_be_made_are_refused);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
