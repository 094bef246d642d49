/* Every API and the right it needs: refused without, with the code of its own; served with it. Then
 * what lists and answers show to who may see a part only, and rights that change meanwhile. */
#include "server/base/clock.h"
#include "tests/unit/protocols/kafka/login.h"

#define TOPIC "t"
#define OTHER "other"
#define GROUP "g"

static int admin, ann;

static void up(void)
{
	boot_with(with_admin);
	admin = dial_admin();
	make_topic(admin, TOPIC);
	make_topic(admin, OTHER);
	ck_assert_int_eq(put_user(admin, "ann", "pw"), 0);
	ann = dial_as("ann", "pw");
	arena_reset(&arena);
}

static void over(void)
{
	close(ann);
	close(admin);
	down();
}

/* Requests, each as small as it can be; the code that the answer has. */

static void *one(const struct kafka_struct *type)
{
	return kafka_array(&arena, type, 1);
}

#define TOPICS(req, api)                                                                           \
	(req).topics = one(&kafka_##api##_req_topic_type);                                         \
	(req).topics_count = 1;                                                                    \
	(req).topics[0].name = bytes_text(TOPIC)
#define PARTS(req, api)                                                                            \
	TOPICS(req, api);                                                                          \
	(req).topics[0].partitions = one(&kafka_##api##_req_partition_type);                       \
	(req).topics[0].partitions_count = 1
#define BEGIN(api)                                                                                 \
	struct kafka_##api##_req req = kafka_##api##_req_init;                                     \
	struct kafka_##api##_res res
#define DO(key, version)                                                                           \
	ask(fd, key, version, 9, &req);                                                            \
	answer(fd, key, version, 9, &res)

static int16_t do_produce(int fd)
{
	struct slice b = batch_of(10, 1);
	produce(fd, TOPIC, 7, -1, b.bytes, 9);
	slice_unref(&b);
	return produced(fd, 7, 9, NULL);
}

static int16_t do_fetch(int fd)
{
	BEGIN(fetch);
	PARTS(req, fetch);
	req.topics[0].partitions[0].index = 1;
	req.topics[0].partitions[0].max_bytes = 1000;
	DO(KAFKA_FETCH, 11);
	return res.topics[0].partitions[0].error;
}

static int16_t do_list_offsets(int fd)
{
	BEGIN(list_offsets);
	PARTS(req, list_offsets);
	req.topics[0].partitions[0].timestamp = -1;
	DO(KAFKA_LIST_OFFSETS, 5);
	return res.topics[0].partitions[0].error;
}

static int16_t do_epoch(int fd)
{
	BEGIN(offset_for_leader_epoch);
	PARTS(req, offset_for_leader_epoch);
	DO(KAFKA_OFFSET_FOR_LEADER_EPOCH, 3);
	return res.topics[0].partitions[0].error;
}

static int16_t do_metadata(int fd)
{
	BEGIN(metadata);
	TOPICS(req, metadata);
	DO(KAFKA_METADATA, 5);
	return res.topics[0].error;
}

static int16_t do_metadata_new(int fd)
{
	BEGIN(metadata);
	TOPICS(req, metadata);
	req.topics[0].name = bytes_text("made");
	DO(KAFKA_METADATA, 5);
	return res.topics[0].error;
}

static int16_t do_create(int fd)
{
	BEGIN(create_topics);
	TOPICS(req, create_topics);
	req.topics[0].name = bytes_text("n");
	req.validate_only = true;
	DO(KAFKA_CREATE_TOPICS, 5);
	return res.topics[0].error;
}

static int16_t do_delete(int fd)
{
	struct bytes name = bytes_text("gone");
	make_topic(admin, "gone");
	BEGIN(delete_topics);
	req.names = &name;
	req.names_count = 1;
	DO(KAFKA_DELETE_TOPICS, 5);
	struct kafka_delete_topics_res mine = res;
	int16_t code = mine.topics[0].error;
	if (code != 0) {
		ask(admin, KAFKA_DELETE_TOPICS, 5, 8, &req);
		answer(admin, KAFKA_DELETE_TOPICS, 5, 8, &res);
		ck_assert_int_eq(res.topics[0].error, 0);
	}
	return code;
}

static int16_t do_grow(int fd)
{
	BEGIN(create_partitions);
	TOPICS(req, create_partitions);
	req.topics[0].count = 3;
	req.validate_only = true;
	DO(KAFKA_CREATE_PARTITIONS, 2);
	return res.results[0].error;
}

static int16_t do_delete_records(int fd)
{
	BEGIN(delete_records);
	PARTS(req, delete_records);
	DO(KAFKA_DELETE_RECORDS, 1);
	return res.topics[0].partitions[0].error;
}

static int16_t describe_configs(int fd, int8_t type, const char *name)
{
	BEGIN(describe_configs);
	req.resources = one(&kafka_describe_configs_req_resource_type);
	req.resources_count = 1;
	req.resources[0].type = type;
	req.resources[0].name = bytes_text(name);
	DO(KAFKA_DESCRIBE_CONFIGS, 2);
	return res.results[0].error;
}

static int16_t do_describe_topic_configs(int fd)
{
	return describe_configs(fd, 2, TOPIC);
}

static int16_t do_describe_node_configs(int fd)
{
	return describe_configs(fd, 4, "1");
}

static int16_t do_alter_configs(int fd)
{
	BEGIN(alter_configs);
	req.resources = one(&kafka_alter_configs_req_resource_type);
	req.resources_count = 1;
	req.resources[0].type = 2;
	req.resources[0].name = bytes_text(TOPIC);
	DO(KAFKA_ALTER_CONFIGS, 1);
	return res.results[0].error;
}

static int16_t do_increment_configs(int fd)
{
	BEGIN(incremental_alter_configs);
	req.resources = one(&kafka_incremental_alter_configs_req_resource_type);
	req.resources_count = 1;
	req.resources[0].type = 2;
	req.resources[0].name = bytes_text(TOPIC);
	DO(KAFKA_INCREMENTAL_ALTER_CONFIGS, 1);
	return res.results[0].error;
}

static int16_t do_log_dirs(int fd)
{
	BEGIN(describe_log_dirs);
	DO(KAFKA_DESCRIBE_LOG_DIRS, 3);
	return res.error;
}

static int16_t do_reassignments(int fd)
{
	BEGIN(list_partition_reassignments);
	DO(KAFKA_LIST_PARTITION_REASSIGNMENTS, 0);
	return res.error;
}

static int16_t do_producer_id(int fd)
{
	BEGIN(init_producer_id);
	DO(KAFKA_INIT_PRODUCER_ID, 1);
	return res.error;
}

static int16_t do_coordinator(int fd)
{
	BEGIN(find_coordinator);
	req.key = bytes_text(GROUP);
	DO(KAFKA_FIND_COORDINATOR, 2);
	return res.error;
}

static int16_t do_join(int fd)
{
	BEGIN(join_group);
	req.group_id = bytes_text(GROUP);
	req.session_timeout_ms = 10000;
	DO(KAFKA_JOIN_GROUP, 4);
	return res.error;
}

static int16_t do_sync(int fd)
{
	BEGIN(sync_group);
	req.group_id = bytes_text(GROUP);
	DO(KAFKA_SYNC_GROUP, 3);
	return res.error;
}

static int16_t do_heartbeat(int fd)
{
	BEGIN(heartbeat);
	req.group_id = bytes_text(GROUP);
	DO(KAFKA_HEARTBEAT, 3);
	return res.error;
}

static int16_t do_leave(int fd)
{
	BEGIN(leave_group);
	req.group_id = bytes_text(GROUP);
	DO(KAFKA_LEAVE_GROUP, 3);
	return res.error;
}

static int16_t do_commit(int fd)
{
	BEGIN(offset_commit);
	req.group_id = bytes_text(GROUP);
	PARTS(req, offset_commit);
	DO(KAFKA_OFFSET_COMMIT, 5);
	return res.topics[0].partitions[0].error;
}

static int16_t do_offset_fetch(int fd)
{
	static int32_t zero;
	BEGIN(offset_fetch);
	req.group_id = bytes_text(GROUP);
	TOPICS(req, offset_fetch);
	req.topics[0].partitions = &zero;
	req.topics[0].partitions_count = 1;
	DO(KAFKA_OFFSET_FETCH, 5);
	return res.error != 0 ? res.error : res.topics[0].partitions[0].error;
}

static int16_t do_offset_delete(int fd)
{
	BEGIN(offset_delete);
	req.group_id = bytes_text(GROUP);
	PARTS(req, offset_delete);
	DO(KAFKA_OFFSET_DELETE, 0);
	return res.error != 0 ? res.error : res.topics[0].partitions[0].error;
}

static int16_t do_describe_groups(int fd)
{
	struct bytes group = bytes_text(GROUP);
	BEGIN(describe_groups);
	req.groups = &group;
	req.groups_count = 1;
	DO(KAFKA_DESCRIBE_GROUPS, 4);
	return res.groups[0].error;
}

static int16_t do_delete_groups(int fd)
{
	struct bytes group = bytes_text("no such group");
	BEGIN(delete_groups);
	req.groups = &group;
	req.groups_count = 1;
	DO(KAFKA_DELETE_GROUPS, 1);
	return res.results[0].error;
}

static int16_t do_describe_acls(int fd)
{
	BEGIN(describe_acls);
	req.resource_type = req.pattern_type = req.operation = req.permission = 1;
	DO(KAFKA_DESCRIBE_ACLS, 2);
	return res.error;
}

static int16_t do_create_acls(int fd)
{
	return add_acl(fd, &(struct acl){2, 3, OTHER, "User:nobody", 3, 3});
}

static int16_t do_delete_acls(int fd)
{
	BEGIN(delete_acls);
	req.filters = one(&kafka_delete_acls_req_filter_type);
	req.filters_count = 1;
	req.filters[0] = (struct kafka_delete_acls_req_filter){.resource_type = 1,
		.pattern_type = 1,
		.operation = 1,
		.permission = 1,
		.principal = bytes_text("User:nobody")};
	DO(KAFKA_DELETE_ACLS, 2);
	return res.results[0].error;
}

static int16_t do_describe_users(int fd)
{
	BEGIN(describe_scram_users);
	DO(KAFKA_DESCRIBE_SCRAM_USERS, 0);
	return res.error;
}

static int16_t do_alter_users(int fd)
{
	return put_user(fd, "somebody", "else");
}

static int16_t do_describe_quotas(int fd)
{
	BEGIN(describe_client_quotas);
	DO(KAFKA_DESCRIBE_CLIENT_QUOTAS, 0);
	return res.error;
}

static int16_t do_alter_quotas(int fd)
{
	BEGIN(alter_client_quotas);
	req.entries = one(&kafka_alter_client_quotas_req_entry_type);
	req.entries_count = 1;
	req.entries[0].entity = one(&kafka_alter_client_quotas_req_entity_type);
	req.entries[0].entity_count = 1;
	req.entries[0].entity[0].type = bytes_text("user");
	req.entries[0].entity[0].name = bytes_text("ann");
	DO(KAFKA_ALTER_CLIENT_QUOTAS, 0);
	return res.entries[0].error;
}

static int16_t do_elect(int fd)
{
	BEGIN(elect_leaders);
	DO(KAFKA_ELECT_LEADERS, 2);
	return res.error;
}

static int16_t do_quorum(int fd)
{
	BEGIN(describe_quorum);
	req.topics = one(&kafka_describe_quorum_req_topic_type);
	req.topics_count = 1;
	req.topics[0].name = bytes_text("__cluster_metadata");
	req.topics[0].partitions = one(&kafka_describe_quorum_req_partition_type);
	req.topics[0].partitions_count = 1;
	DO(KAFKA_DESCRIBE_QUORUM, 1);
	return res.error;
}

static int16_t do_producers(int fd)
{
	static int32_t partition;
	BEGIN(describe_producers);
	req.topics = one(&kafka_describe_producers_req_topic_type);
	req.topics_count = 1;
	req.topics[0].name = bytes_text(TOPIC);
	req.topics[0].partitions = &partition;
	req.topics[0].partitions_count = 1;
	DO(KAFKA_DESCRIBE_PRODUCERS, 0);
	return res.topics[0].partitions[0].error;
}

#define T(operation)                                                                               \
	{                                                                                          \
		2, 3, TOPIC, "User:ann", operation, 3                                              \
	}
#define G(operation)                                                                               \
	{                                                                                          \
		3, 3, GROUP, "User:ann", operation, 3                                              \
	}
#define C(operation)                                                                               \
	{                                                                                          \
		4, 3, "kafka-cluster", "User:ann", operation, 3                                    \
	}
enum {
	ALL = 2,
	READ,
	WRITE,
	CREATE,
	DELETE,
	ALTER,
	DESCRIBE,
	CLUSTER,
	DESCRIBE_CONFIGS,
	ALTER_CONFIGS,
	IDEMPOTENT_WRITE
};

static const struct need {
	int16_t (*ask)(int fd);
	int16_t without; /* the code of a refusal */
	int16_t with;    /* with all of these rules; with the first of two the code is between */
	struct acl rules[2];
	int16_t between;
} needs[] = {
	{do_produce, 29, 0, {T(WRITE)}, 0},
	{do_fetch, 29, 0, {T(READ)}, 0},
	{do_list_offsets, 29, 0, {T(DESCRIBE)}, 0},
	{do_list_offsets, 29, 0, {T(READ)}, 0}, /* which implies it */
	{do_epoch, 29, 0, {T(DESCRIBE)}, 0},
	{do_metadata, 29, 0, {T(DESCRIBE)}, 0},
	{do_metadata, 29, 0, {T(ALTER)}, 0},
	{do_metadata_new, 29, 0,
		{{2, 4, "ma", "User:ann", DESCRIBE, 3}, {2, 4, "m", "User:ann", CREATE, 3}}, 29},
	{do_create, 29, 0, {C(CREATE)}, 0},
	{do_create, 29, 0, {{2, 4, "n", "User:ann", CREATE, 3}}, 0},
	{do_delete, 29, 0, {{2, 3, "gone", "User:ann", DELETE, 3}}, 0},
	{do_grow, 29, 0, {T(ALTER)}, 0},
	{do_delete_records, 29, 0, {T(DELETE)}, 0},
	{do_describe_topic_configs, 29, 0, {T(DESCRIBE_CONFIGS)}, 0},
	{do_describe_topic_configs, 29, 0, {T(ALTER_CONFIGS)}, 0},
	{do_describe_node_configs, 31, 0, {C(DESCRIBE_CONFIGS)}, 0},
	{do_alter_configs, 29, 0, {T(ALTER_CONFIGS)}, 0},
	{do_increment_configs, 29, 0, {T(ALTER_CONFIGS)}, 0},
	{do_log_dirs, 31, 0, {C(DESCRIBE)}, 0},
	{do_reassignments, 31, 0, {C(DESCRIBE)}, 0},
	{do_quorum, 31, 0, {C(DESCRIBE)}, 0},
	{do_elect, 31, 0, {C(ALTER)}, 0},
	{do_producers, 29, 0, {T(READ)}, 0},
	{do_producer_id, 31, 0, {C(IDEMPOTENT_WRITE)}, 0},
	{do_producer_id, 31, 0, {T(WRITE)}, 0},
	{do_coordinator, 30, 0, {G(DESCRIBE)}, 0},
	{do_join, 30, 23, {G(READ)}, 0}, /* no protocols */
	{do_sync, 30, 25, {G(READ)}, 0},
	{do_heartbeat, 30, 25, {G(READ)}, 0},
	{do_leave, 30, 0, {G(READ)}, 0},
	{do_commit, 30, 0, {G(READ), T(READ)}, 29},
	{do_offset_fetch, 30, 0, {G(DESCRIBE), T(DESCRIBE)}, 29},
	{do_offset_delete, 30, 0, {G(DELETE), T(READ)}, 29},
	{do_describe_groups, 30, 0, {G(DESCRIBE)}, 0},
	{do_delete_groups, 30, 69, {{3, 4, "no", "User:ann", DELETE, 3}}, 0},
	{do_describe_acls, 31, 0, {C(DESCRIBE)}, 0},
	{do_create_acls, 31, 0, {C(ALTER)}, 0},
	{do_delete_acls, 31, 0, {C(ALTER)}, 0},
	{do_describe_users, 31, 0, {C(DESCRIBE)}, 0},
	{do_alter_users, 31, 0, {C(ALTER)}, 0},
	{do_describe_quotas, 31, 0, {C(DESCRIBE_CONFIGS)}, 0},
	{do_alter_quotas, 31, 0, {C(ALTER_CONFIGS)}, 0},
};
enum { NEEDS = sizeof needs / sizeof *needs };

START_TEST(each_api_needs_its_right)
{
	const struct need *r = &needs[_i];
	ck_assert_int_eq(r->ask(ann), r->without);
	ck_assert_int_eq(add_acl(admin, &r->rules[0]), 0);
	if (r->rules[1].name != NULL) {
		ck_assert_int_eq(r->ask(ann), r->between);
		ck_assert_int_eq(add_acl(admin, &r->rules[1]), 0);
	}
	ck_assert_int_eq(r->ask(ann), r->with);
	ck_assert_int_eq(r->ask(admin), r->with); /* who is may everything */
	struct acl deny = r->rules[0];
	deny.permission = 2; /* wins */
	deny.operation = ALL;
	deny.principal = "User:*";
	ck_assert_int_eq(add_acl(admin, &deny), 0);
	ck_assert_int_eq(r->ask(ann), r->without);
	ck_assert_uint_ge(drop_acls(admin), 2);
	ck_assert_int_eq(r->ask(ann), r->without);
	arena_reset(&arena);
}
END_TEST

static void *all_topics(int fd)
{
	static struct kafka_metadata_res res;
	struct kafka_metadata_req req = kafka_metadata_req_init;
	req.topics = NULL;
	req.topic_operations = req.cluster_operations = true;
	ask(fd, KAFKA_METADATA, 8, 3, &req);
	answer(fd, KAFKA_METADATA, 8, 3, &res);
	return &res;
}

/* Lists leave out what may not be seen; bits say what may be done. */
START_TEST(lists_show_what_may_be_seen)
{
	struct kafka_metadata_res *res = all_topics(ann);
	ck_assert_uint_eq(res->topics_count, 0);
	ck_assert_int_eq(res->cluster_operations, 0);
	ck_assert_uint_eq(res->brokers_count, 1);
	ck_assert_int_eq(add_acl(admin, &(struct acl)T(READ)), 0);
	res = all_topics(ann);
	ck_assert_uint_eq(res->topics_count, 1);
	ck_assert(bytes_equal(res->topics[0].name, bytes_text(TOPIC)));
	ck_assert_int_eq(res->topics[0].operations, 1 << READ | 1 << DESCRIBE);
	res = all_topics(admin);
	ck_assert_uint_ge(res->topics_count, 2);
	ck_assert(bytes_equal(res->topics[0].name, bytes_text("__audit")));
	ck_assert_int_eq(res->topics[0].operations, 3368); /* not to write, delete, alter */
	ck_assert_int_eq(res->topics[1].operations, 3576);
	ck_assert_int_eq(res->cluster_operations, 8096);
	ck_assert_int_eq(do_commit(admin), 0); /* the group comes to be */
	struct kafka_list_groups_req req = kafka_list_groups_req_init;
	struct kafka_list_groups_res groups;
	ask(ann, KAFKA_LIST_GROUPS, 2, 3, &req);
	answer(ann, KAFKA_LIST_GROUPS, 2, 3, &groups);
	ck_assert_uint_eq(groups.groups_count, 0);
	ck_assert_int_eq(add_acl(admin, &(struct acl)G(READ)), 0);
	ask(ann, KAFKA_LIST_GROUPS, 2, 3, &req);
	answer(ann, KAFKA_LIST_GROUPS, 2, 3, &groups);
	ck_assert_uint_eq(groups.groups_count, 1);
	drop_acls(admin);
	arena_reset(&arena);
}
END_TEST

/* Streams of the server's own are for admins, whatever rules say: also to be made. */
START_TEST(internal_streams_are_for_admins)
{
	struct acl every = {2, 3, "*", "User:ann", ALL, 3};
	ck_assert_int_eq(add_acl(admin, &every), 0);
	ck_assert_int_eq(add_acl(admin, &(struct acl)C(ALL)), 0);
	struct kafka_create_topics_req create = kafka_create_topics_req_init;
	struct kafka_create_topics_res created;
	create.topics = one(&kafka_create_topics_req_topic_type);
	create.topics_count = 1;
	create.topics[0].name = bytes_text("__mine");
	ask(ann, KAFKA_CREATE_TOPICS, 5, 3, &create);
	answer(ann, KAFKA_CREATE_TOPICS, 5, 3, &created);
	ck_assert_int_eq(created.topics[0].error, 29);
	struct kafka_metadata_req req = kafka_metadata_req_init;
	struct kafka_metadata_res res;
	req.topics = one(&kafka_metadata_req_topic_type);
	req.topics_count = 1;
	req.topics[0].name = bytes_text("__audit");
	ask(ann, KAFKA_METADATA, 5, 3, &req);
	answer(ann, KAFKA_METADATA, 5, 3, &res);
	ck_assert_int_eq(res.topics[0].error, 29);
	ck_assert_int_eq(do_metadata(ann), 0);
	drop_acls(admin);
	arena_reset(&arena);
}
END_TEST

/* A right that is taken away ends a fetch that waits. */
START_TEST(a_waiting_fetch_notices)
{
	struct kafka_fetch_res res;
	ck_assert_int_eq(add_acl(admin, &(struct acl){2, 3, OTHER, "User:ann", READ, 3}), 0);
	int64_t began = clock_ms();
	fetch(ann, OTHER, 0, PATIENT_MS, 5);
	ck_assert(!readable(ann, 100));
	drop_acls(admin);
	answer(ann, KAFKA_FETCH, 11, 5, &res);
	ck_assert_int_eq(res.topics[0].partitions[0].error, 29);
	ck_assert_int_lt(clock_ms() - began, PATIENT_MS);
	arena_reset(&arena);
}
END_TEST

START_TEST(groups_have_no_nul_in_their_id)
{
	struct kafka_heartbeat_req req = kafka_heartbeat_req_init;
	struct kafka_heartbeat_res res;
	req.group_id = bytes_of("\0acme\0g", 7);
	ask(admin, KAFKA_HEARTBEAT, 3, 5, &req);
	answer(admin, KAFKA_HEARTBEAT, 3, 5, &res);
	ck_assert_int_eq(res.error, 24);
	arena_reset(&arena);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_rights");
	TCase *tc = tcase_create("rights");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_loop_test(tc, each_api_needs_its_right, 0, NEEDS);
	tcase_add_test(tc, lists_show_what_may_be_seen);
	tcase_add_test(tc, internal_streams_are_for_admins);
	tcase_add_test(tc, a_waiting_fetch_notices);
	tcase_add_test(tc, groups_have_no_nul_in_their_id);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
