/* Quotas as Kafka's client quotas, and what they do: the answer tells how long, and the connection
 * is not read for as long. */
#include "protocols/kafka/kafka_set.h"
#include "server/base/clock.h"
#include "tests/unit/protocols/kafka/login.h"

static int admin;

static void up(void)
{
	boot_with(with_admin);
	admin = dial_admin();
	make_topic(admin, "t");
	ck_assert_int_eq(put_user(admin, "ann", "pw"), 0);
	ck_assert_int_eq(add_acl(admin, &(struct acl){2, 3, "*", "User:ann", 2, 3}), 0);
}

static void over(void)
{
	close(admin);
	down();
}

struct op {
	const char *type, *name, *key; /* name NULL: the default */
	double value;                  /* negative: remove */
};

static int16_t set_quota(const struct op *op, bool validate_only)
{
	struct kafka_alter_client_quotas_req req = kafka_alter_client_quotas_req_init;
	struct kafka_alter_client_quotas_res res;
	req.entries = kafka_array(&arena, &kafka_alter_client_quotas_req_entry_type, 1);
	req.entries_count = 1;
	req.entries[0].entity = kafka_array(&arena, &kafka_alter_client_quotas_req_entity_type, 1);
	req.entries[0].entity_count = 1;
	req.entries[0].entity[0].type = bytes_text(op->type);
	req.entries[0].entity[0].name = op->name ? bytes_text(op->name) : bytes_of(NULL, 0);
	req.entries[0].ops = kafka_array(&arena, &kafka_alter_client_quotas_req_op_type, 1);
	req.entries[0].ops_count = 1;
	req.entries[0].ops[0].key = bytes_text(op->key);
	req.entries[0].ops[0].value = op->value;
	req.entries[0].ops[0].remove = op->value == -1;
	req.validate_only = validate_only;
	ask(admin, KAFKA_ALTER_CLIENT_QUOTAS, 1, 5, &req);
	answer(admin, KAFKA_ALTER_CLIENT_QUOTAS, 1, 5, &res);
	ck_assert_uint_eq(res.entries_count, 1);
	ck_assert_uint_eq(res.entries[0].entity_count, 1);
	return res.entries[0].error;
}

static struct kafka_describe_client_quotas_res *describe(
	const char *type, int8_t match_type, const char *match, bool strict)
{
	static struct kafka_describe_client_quotas_res res;
	struct kafka_describe_client_quotas_req req = kafka_describe_client_quotas_req_init;
	req.components = kafka_array(&arena, &kafka_describe_client_quotas_req_component_type, 1);
	req.components_count = type != NULL;
	if (type != NULL)
		req.components[0] = (struct kafka_describe_client_quotas_req_component){
			.type = bytes_text(type),
			.match_type = match_type,
			.match = match ? bytes_text(match) : bytes_of(NULL, 0)};
	req.strict = strict;
	ask(admin, KAFKA_DESCRIBE_CLIENT_QUOTAS, 1, 6, &req);
	answer(admin, KAFKA_DESCRIBE_CLIENT_QUOTAS, 1, 6, &res);
	return &res;
}

START_TEST(quotas_are_set_described_and_removed)
{
	static const struct op ops[] = {
		{"user", "ben", "producer_byte_rate", 1000},
		{"user", "ben", "messages-out", 50},
		{"user", NULL, "consumer_byte_rate", 3e9},
		{"user", "cid", "connections", 7},
	};
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(set_quota(&ops[i], false), 0);
	struct kafka_describe_client_quotas_res *res = describe(NULL, 0, NULL, false);
	ck_assert_int_eq(res->error, 0);
	ck_assert_uint_eq(res->entries_count, 3);
	ck_assert_uint_eq(describe(NULL, 0, NULL, true)->entries_count, 0);
	ck_assert_uint_eq(describe("user", 2, NULL, true)->entries_count, 2);
	res = describe("user", 0, "ben", true);
	ck_assert_uint_eq(res->entries_count, 1);
	ck_assert_uint_eq(res->entries[0].values_count, 2);
	ck_assert(bytes_equal(res->entries[0].values[0].key, bytes_text("producer_byte_rate")));
	ck_assert(res->entries[0].values[0].value > 999 && res->entries[0].values[0].value < 1001);
	res = describe("user", 1, NULL, false);
	ck_assert_uint_eq(res->entries_count, 1);
	ck_assert_ptr_null(res->entries[0].entity[0].name.at);
	ck_assert_uint_eq(describe("client-id", 2, NULL, false)->entries_count, 0);
	ck_assert_uint_eq(describe("ip", 0, "::1", false)->entries_count, 0);
	ck_assert_int_eq(describe("tenant", 2, NULL, false)->error, 35);
	ck_assert_int_eq(describe("user", 3, NULL, false)->error, 42);
	ck_assert_int_eq(describe("user", 0, NULL, false)->error, 42);
	ck_assert_int_eq(describe("", 2, NULL, false)->error, 42);
	static const struct op gone[] = {{"user", "ben", "bytes-in", -1},
		{"user", "ben", "messages-out", -1}, {"user", NULL, "consumer_byte_rate", -1},
		{"user", "cid", "connections", -1}};
	ck_assert_int_eq(set_quota(&gone[0], true), 0); /* looked at only */
	ck_assert_uint_eq(describe("user", 0, "ben", true)->entries[0].values_count, 2);
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(set_quota(&gone[i], false), 0);
	ck_assert_uint_eq(describe(NULL, 0, NULL, false)->entries_count, 0);
	arena_reset(&arena);
}
END_TEST

START_TEST(what_there_is_not_is_refused)
{
	static const struct op bad[] = {
		{"client-id", "app", "producer_byte_rate", 1000},
		{"ip", NULL, "connections", 1000},
		{"user", "ben", "request_percentage", 10},
		{"user", "ben", "producer_byte_rate", 0},
		{"user", "ben", "producer_byte_rate", -5},
		{"user", "ben", "producer_byte_rate", 1e300},
		{"user", "", "producer_byte_rate", 1},
		{"user", "a:b", "producer_byte_rate", 1},
	};
	ck_assert_int_eq(set_quota(&bad[_i], false), 42);
	arena_reset(&arena);
}
END_TEST

START_TEST(who_produces_too_much_is_not_heard_for_a_while)
{
	struct kafka_produce_res res;
	struct slice b = batch_of(90000, 1);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "bytes-in", 100000}, false), 0);
	int ann = dial_as("ann", "pw");
	int64_t began = clock_ms();
	int32_t told = 0;
	for (int i = 0; i < 3; i++) {
		produce(ann, "t", 7, -1, b.bytes, i);
		answer(ann, KAFKA_PRODUCE, 7, i, &res);
		ck_assert_int_eq(res.topics[0].partitions[0].error, 0);
		told += res.throttle_ms;
	}
	/* The first second's worth is free. */
	ck_assert_int_ge(told, 500);
	struct kafka_api_versions_req hello = kafka_api_versions_req_init;
	struct kafka_api_versions_res known;
	ask(ann, KAFKA_API_VERSIONS, 0, 9, &hello);
	answer(ann, KAFKA_API_VERSIONS, 0, 9, &known);
	ck_assert_int_ge(clock_ms() - began, told - 50);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "bytes-in", -1}, false), 0);
	produce(ann, "t", 7, -1, b.bytes, 10);
	answer(ann, KAFKA_PRODUCE, 7, 10, &res);
	ck_assert_int_eq(res.throttle_ms, 0);
	slice_unref(&b);
	close(ann);
	arena_reset(&arena);
}
END_TEST

START_TEST(so_is_who_fetches_too_much)
{
	struct kafka_fetch_res res;
	struct slice b = batch_of(50000, 1);
	for (int i = 0; i < 3; i++) {
		produce(admin, "t", 7, -1, b.bytes, i);
		ck_assert_int_eq(produced(admin, 7, i, NULL), 0);
	}
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "bytes-out", 50000}, false), 0);
	int ann = dial_as("ann", "pw");
	int64_t began = clock_ms();
	int32_t told = 0;
	for (int i = 0; i < 3; i++) {
		fetch(ann, "t", i, 1000, i);
		answer(ann, KAFKA_FETCH, 11, i, &res);
		ck_assert_uint_ge(res.topics[0].partitions[0].records.bytes.len, 50000);
		told += res.throttle_ms;
	}
	ck_assert_int_ge(told, 500);
	fetch(ann, "t", 0, 1000, 9);
	answer(ann, KAFKA_FETCH, 11, 9, &res);
	ck_assert_int_ge(clock_ms() - began, told - 50);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "bytes-out", -1}, false), 0);
	/* A message limit. */
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-out", 1}, false), 0);
	int other = dial_as("ann", "pw");
	for (int i = 0; i < 3; i++) {
		fetch(other, "t", 0, 1000, i);
		answer(other, KAFKA_FETCH, 11, i, &res);
		told = res.throttle_ms;
	}
	ck_assert_int_ge(told, 500);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-out", -1}, false), 0);
	slice_unref(&b);
	close(ann);
	close(other);
	arena_reset(&arena);
}
END_TEST

/* A fetch that waits for more is ended by a produce on its connection: what it gets is over its
 * quota, by less than what is produced is over that one's. */
START_TEST(of_two_quotas_the_longer_time_counts)
{
	struct kafka_fetch_req all = kafka_fetch_req_init;
	struct kafka_fetch_res got;
	struct kafka_produce_res put;
	struct kafka_api_versions_req hello = kafka_api_versions_req_init;
	struct kafka_api_versions_res known;
	struct slice b = batch_of(90000, 1);
	ck_assert_int_eq(put_user(admin, "cleo", "pw"), 0);
	ck_assert_int_eq(add_acl(admin, &(struct acl){2, 3, "*", "User:cleo", 2, 3}), 0);
	make_topic(admin, "both");
	produce(admin, "both", 7, -1, b.bytes, 1);
	ck_assert_int_eq(produced(admin, 7, 1, NULL), 0);
	ck_assert_int_eq(set_quota(&(struct op){"user", "cleo", "bytes-in", 30000}, false), 0);
	ck_assert_int_eq(set_quota(&(struct op){"user", "cleo", "bytes-out", 80000}, false), 0);
	all.max_wait_ms = 3600000;
	all.min_bytes = 1 << 20;
	all.topics_count = 1;
	all.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	all.topics[0].name = bytes_text("both");
	all.topics[0].partitions_count = 1;
	all.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, 1);
	all.topics[0].partitions[0].max_bytes = 100000;
	int cleo = dial_as("cleo", "pw");
	ask(cleo, KAFKA_FETCH, 11, 2, &all);
	ck_assert(!readable(cleo, 100));
	int64_t began = clock_ms();
	produce(cleo, "both", 7, -1, b.bytes, 3);
	answer(cleo, KAFKA_FETCH, 11, 2, &got);
	answer(cleo, KAFKA_PRODUCE, 7, 3, &put);
	ask(cleo, KAFKA_API_VERSIONS, 0, 4, &hello);
	answer(cleo, KAFKA_API_VERSIONS, 0, 4, &known);
	ck_assert_int_gt(got.throttle_ms, 0);
	ck_assert_int_gt(put.throttle_ms, got.throttle_ms);
	ck_assert_int_ge(clock_ms() - began, put.throttle_ms - 50);
	ck_assert_int_eq(set_quota(&(struct op){"user", "cleo", "bytes-in", -1}, false), 0);
	ck_assert_int_eq(set_quota(&(struct op){"user", "cleo", "bytes-out", -1}, false), 0);
	slice_unref(&b);
	close(cleo);
	arena_reset(&arena);
}
END_TEST

/* Sets are counted by the messages in them, both ways. */
START_TEST(messages_of_old_clients_count)
{
	struct kafka_produce_res put;
	struct kafka_fetch_res got;
	struct kafka_set set;
	struct slice b = batch_of(1, 20);
	ck_assert_int_eq(kafka_set_write(&b, 1, 0, 1, 1 << 20, &set), OK);
	make_topic(admin, "sets");
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-in", 10}, false), 0);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-out", 10}, false), 0);
	int ann = dial_as("ann", "pw");
	produce(ann, "sets", 2, -1, set.bytes.bytes, 1);
	answer(ann, KAFKA_PRODUCE, 2, 1, &put);
	ck_assert_int_eq(put.topics[0].partitions[0].error, 0);
	ck_assert_int_ge(put.throttle_ms, 500);
	struct kafka_fetch_req req = kafka_fetch_req_init;
	req.topics_count = 1;
	req.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	req.topics[0].name = bytes_text("sets");
	req.topics[0].partitions_count = 1;
	req.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, 1);
	req.topics[0].partitions[0].max_bytes = 100000;
	ask(ann, KAFKA_FETCH, 2, 2, &req);
	answer(ann, KAFKA_FETCH, 2, 2, &got);
	ck_assert_uint_eq(got.topics[0].partitions[0].records.bytes.len, set.bytes.bytes.len);
	ck_assert_int_ge(got.throttle_ms, 500);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-in", -1}, false), 0);
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "messages-out", -1}, false), 0);
	slice_unref(&set.bytes);
	slice_unref(&b);
	close(ann);
	arena_reset(&arena);
}
END_TEST

/* A login that ends in a closed connection instead of an answer; -1 then. */
static int try_ann(void)
{
	struct kafka_sasl_authenticate_res res;
	char byte;
	int fd = dial();
	ck_assert_int_eq(handshake(fd, 1, "PLAIN"), 0);
	send_token(fd, 1, plain_token("ann", "pw"));
	ck_assert(readable(fd, PATIENT_MS));
	if (recv(fd, &byte, 1, MSG_PEEK) == 1) {
		answer(fd, KAFKA_SASL_AUTHENTICATE, 1, 71, &res);
		ck_assert_int_eq(res.error, 0);
		return fd;
	}
	close(fd);
	return -1;
}

/* What closed a moment ago is still counted. */
static int ann_soon(void)
{
	for (int i = 0; i < 1000; i++) {
		int fd = try_ann();
		if (fd >= 0)
			return fd;
		usleep(20000);
	}
	ck_abort_msg("not let in");
	return -1;
}

START_TEST(connections_are_counted)
{
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "connections", 2}, false), 0);
	int one = ann_soon(), two = ann_soon();
	ck_assert_int_eq(try_ann(), -1); /* without a word: it is not the password */
	close(two);
	two = ann_soon();
	ck_assert_int_eq(set_quota(&(struct op){"user", "ann", "connections", -1}, false), 0);
	close(one);
	close(two);
	arena_reset(&arena);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_quotas");
	TCase *tc = tcase_create("quotas");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_test(tc, quotas_are_set_described_and_removed);
	tcase_add_loop_test(tc, what_there_is_not_is_refused, 0, 8);
	tcase_add_test(tc, who_produces_too_much_is_not_heard_for_a_while);
	tcase_add_test(tc, so_is_who_fetches_too_much);
	tcase_add_test(tc, of_two_quotas_the_longer_time_counts);
	tcase_add_test(tc, messages_of_old_clients_count);
	tcase_add_test(tc, connections_are_counted);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
