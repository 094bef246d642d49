/* Two tenants with equal names for everything: neither sees the other's, nor can it name it. */
#include <semaphore.h>
#include "server/broker/rights_admin.h"
#include "tests/unit/protocols/kafka/login.h"

static int admin, acme, zeta;

static struct made {
	struct rights_change change;
	sem_t done;
} made;

static void on_made(struct rights_change *c)
{
	sem_post(&made.done);
	(void)c;
}

static void make(void *arg)
{
	(void)arg;
	rights_change(&made.change);
}

/* An administrator of a tenant. */
static void make_admin(const char *name, const char *tenant)
{
	static struct bytes password, role;
	password = bytes_text("pw");
	role = bytes_text("admin");
	made.change = (struct rights_change){.shard = broker_shard(t.broker, loops_at(t.loops, 0)),
		.peer = "",
		.kind = USER_ADD,
		.name = bytes_text(name),
		.tenant = bytes_text(tenant),
		.password = &password,
		.roles = &role,
		.role_count = 1,
		.done = on_made};
	sem_init(&made.done, 0, 0);
	loop_call(loops_at(t.loops, 0), make, NULL);
	sem_wait(&made.done);
	ck_assert_int_eq(made.change.err, OK);
}

static void up(void)
{
	boot_with(with_admin);
	admin = dial_admin();
	make_admin("al", "acme");
	make_admin("zoe", "zeta");
	acme = dial_as("al", "pw");
	zeta = dial_as("zoe", "pw");
}

static void over(void)
{
	close(admin);
	close(acme);
	close(zeta);
	down();
}

static struct kafka_metadata_res *topics(int fd)
{
	static struct kafka_metadata_res res;
	struct kafka_metadata_req req = kafka_metadata_req_init;
	req.topics = NULL;
	req.cluster_operations = true;
	ask(fd, KAFKA_METADATA, 10, 3, &req);
	answer(fd, KAFKA_METADATA, 10, 3, &res);
	return &res;
}

static bool listed(const struct kafka_metadata_res *res, const char *name)
{
	for (uint32_t i = 0; i < res->topics_count; i++)
		if (bytes_equal(res->topics[i].name, bytes_text(name)))
			return true;
	return false;
}

static size_t fetched(int fd, const char *topic, int64_t offset, int16_t *code)
{
	struct kafka_fetch_res res;
	fetch(fd, topic, offset, 0, 4);
	answer(fd, KAFKA_FETCH, 11, 4, &res);
	*code = res.topics[0].partitions[0].error;
	return res.topics[0].partitions[0].records.bytes.len;
}

START_TEST(equal_topics_are_not_the_same)
{
	struct slice a = batch_of(100, 1), z = batch_of(700, 1);
	int16_t code;
	make_topic(acme, "orders");
	make_topic(zeta, "orders");
	produce(acme, "orders", 7, -1, a.bytes, 1);
	ck_assert_int_eq(produced(acme, 7, 1, NULL), 0);
	produce(zeta, "orders", 7, -1, z.bytes, 1);
	ck_assert_int_eq(produced(zeta, 7, 1, NULL), 0);
	ck_assert_uint_eq(fetched(acme, "orders", 0, &code), a.bytes.len);
	ck_assert_uint_eq(fetched(zeta, "orders", 0, &code), z.bytes.len);
	ck_assert_uint_eq(fetched(acme, "orders", 1, &code), 0);
	struct kafka_metadata_res *res = topics(acme);
	ck_assert(listed(res, "orders") && !listed(res, "zeta/orders"));
	struct kafka_uuid id = res->topics[0].topic_id;
	ck_assert(!listed(topics(admin), "orders")); /* nor does the default tenant */
	/* The inside name is none to clients, and another's id leads nowhere. */
	ck_assert_uint_eq(fetched(zeta, "acme/orders", 0, &code), 0);
	ck_assert_int_eq(code, 3);
	fetched(admin, "acme/orders", 0, &code);
	ck_assert_int_eq(code, 3);
	struct kafka_metadata_req req = kafka_metadata_req_init;
	struct kafka_metadata_res got;
	req.topics = kafka_array(&arena, &kafka_metadata_req_topic_type, 2);
	req.topics_count = 1;
	req.topics[0].topic_id = id;
	req.topics[0].name = bytes_of(NULL, 0);
	ask(zeta, KAFKA_METADATA, 12, 3, &req);
	answer(zeta, KAFKA_METADATA, 12, 3, &got);
	ck_assert_int_eq(got.topics[0].error, 100);
	ask(acme, KAFKA_METADATA, 12, 3, &req);
	answer(acme, KAFKA_METADATA, 12, 3, &got);
	ck_assert_int_eq(got.topics[0].error, 0);
	slice_unref(&a);
	slice_unref(&z);
	arena_reset(&arena);
}
END_TEST

/* Asked for in metadata, a topic comes to be in the own tenant. */
START_TEST(topics_come_to_be_where_they_are_asked_for)
{
	struct kafka_metadata_req req = kafka_metadata_req_init;
	struct kafka_metadata_res res;
	req.topics = kafka_array(&arena, &kafka_metadata_req_topic_type, 2);
	req.topics_count = 2;
	req.topics[0].name = bytes_text("fresh");
	req.topics[1].name = bytes_text("zeta/fresh");
	ask(acme, KAFKA_METADATA, 5, 3, &req);
	answer(acme, KAFKA_METADATA, 5, 3, &res);
	ck_assert_int_eq(res.topics[0].error, 0);
	ck_assert_int_eq(res.topics[1].error, 17);
	ck_assert(listed(topics(acme), "fresh"));
	ck_assert(!listed(topics(zeta), "fresh"));
	struct kafka_delete_topics_req del = kafka_delete_topics_req_init;
	struct kafka_delete_topics_res gone;
	struct bytes name = bytes_text("fresh");
	del.names = &name;
	del.names_count = 1;
	ask(zeta, KAFKA_DELETE_TOPICS, 4, 3, &del);
	answer(zeta, KAFKA_DELETE_TOPICS, 4, 3, &gone);
	ck_assert_int_eq(gone.topics[0].error, 3);
	ask(acme, KAFKA_DELETE_TOPICS, 4, 3, &del);
	answer(acme, KAFKA_DELETE_TOPICS, 4, 3, &gone);
	ck_assert_int_eq(gone.topics[0].error, 0);
	arena_reset(&arena);
}
END_TEST

static void commit(int fd, const char *topic, int64_t offset)
{
	struct kafka_offset_commit_req req = kafka_offset_commit_req_init;
	struct kafka_offset_commit_res res;
	req.group_id = bytes_text("app");
	req.topics = kafka_array(&arena, &kafka_offset_commit_req_topic_type, 1);
	req.topics_count = 1;
	req.topics[0].name = bytes_text(topic);
	req.topics[0].partitions = kafka_array(&arena, &kafka_offset_commit_req_partition_type, 1);
	req.topics[0].partitions_count = 1;
	req.topics[0].partitions[0].offset = offset;
	ask(fd, KAFKA_OFFSET_COMMIT, 5, 5, &req);
	answer(fd, KAFKA_OFFSET_COMMIT, 5, 5, &res);
	ck_assert_int_eq(res.topics[0].partitions[0].error, 0);
}

static void expect_committed(int fd, const char *topic, int64_t offset)
{
	struct kafka_offset_fetch_req req = kafka_offset_fetch_req_init;
	struct kafka_offset_fetch_res res;
	req.group_id = bytes_text("app");
	req.topics = NULL;
	ask(fd, KAFKA_OFFSET_FETCH, 5, 6, &req);
	answer(fd, KAFKA_OFFSET_FETCH, 5, 6, &res);
	ck_assert_int_eq(res.error, 0);
	ck_assert_uint_eq(res.topics_count, 1);
	ck_assert(bytes_equal(res.topics[0].name, bytes_text(topic)));
	ck_assert_int_eq(res.topics[0].partitions[0].offset, offset);
}

static uint32_t groups(int fd)
{
	struct kafka_list_groups_req req = kafka_list_groups_req_init;
	struct kafka_list_groups_res res;
	ask(fd, KAFKA_LIST_GROUPS, 2, 7, &req);
	answer(fd, KAFKA_LIST_GROUPS, 2, 7, &res);
	ck_assert_int_eq(res.error, 0);
	for (uint32_t i = 0; i < res.groups_count; i++)
		ck_assert(bytes_equal(res.groups[i].group_id, bytes_text("app")));
	return res.groups_count;
}

START_TEST(equal_groups_are_not_the_same)
{
	make_topic(acme, "jobs");
	make_topic(zeta, "work");
	ck_assert_uint_eq(groups(acme), 0);
	commit(acme, "jobs", 5);
	ck_assert_uint_eq(groups(zeta), 0);
	commit(zeta, "work", 6);
	expect_committed(acme, "jobs", 5);
	expect_committed(zeta, "work", 6);
	ck_assert_uint_eq(groups(acme), 1);
	ck_assert_uint_eq(groups(zeta), 1);
	ck_assert_uint_eq(groups(admin), 0);
	struct kafka_delete_groups_req req = kafka_delete_groups_req_init;
	struct kafka_delete_groups_res res;
	struct bytes group = bytes_text("app");
	req.groups = &group;
	req.groups_count = 1;
	ask(acme, KAFKA_DELETE_GROUPS, 1, 8, &req);
	answer(acme, KAFKA_DELETE_GROUPS, 1, 8, &res);
	ck_assert_int_eq(res.results[0].error, 0);
	ck_assert(bytes_equal(res.results[0].group_id, group));
	ck_assert_uint_eq(groups(acme), 0);
	expect_committed(zeta, "work", 6);
	arena_reset(&arena);
}
END_TEST

/* Users and rules: each tenant has its own, and can't take another's user. */
START_TEST(admins_of_tenants_administer_theirs)
{
	ck_assert_int_eq(put_user(acme, "ann", "pw"), 0);
	ck_assert_int_eq(put_user(zeta, "ann", "other"), 93);
	ck_assert_int_eq(put_user(zeta, "admin", "other"), 93);
	ck_assert_int_eq(add_acl(acme, &(struct acl){2, 3, "jobs", "User:ann", 3, 3}), 0);
	ck_assert_uint_eq(drop_acls(zeta), 0);
	ck_assert_uint_eq(drop_acls(admin), 0);
	int16_t code;
	int ann = dial_as("ann", "pw");
	make_topic(acme, "jobs2");
	fetched(ann, "jobs2", 0, &code);
	ck_assert_int_eq(code, 29);
	fetched(ann, "jobs", 0, &code);
	ck_assert_int_eq(code, 0);
	ck_assert_uint_eq(drop_acls(acme), 1);
	fetched(ann, "jobs", 0, &code);
	ck_assert_int_eq(code, 29);
	struct kafka_describe_scram_users_req req = kafka_describe_scram_users_req_init;
	struct kafka_describe_scram_users_res res;
	ask(zeta, KAFKA_DESCRIBE_SCRAM_USERS, 0, 9, &req);
	answer(zeta, KAFKA_DESCRIBE_SCRAM_USERS, 0, 9, &res);
	ck_assert_uint_eq(res.results_count, 1);
	ck_assert(bytes_equal(res.results[0].user, bytes_text("zoe")));
	close(ann);
	arena_reset(&arena);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_tenant");
	TCase *tc = tcase_create("tenants");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_test(tc, equal_topics_are_not_the_same);
	tcase_add_test(tc, topics_come_to_be_where_they_are_asked_for);
	tcase_add_test(tc, equal_groups_are_not_the_same);
	tcase_add_test(tc, admins_of_tenants_administer_theirs);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
