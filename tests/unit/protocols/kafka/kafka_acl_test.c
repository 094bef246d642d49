/* Rules as Kafka's ACLs: which filter finds which, what is no rule, and many at once. */
#include <semaphore.h>
#include "server/broker/rights_admin.h"
#include "tests/unit/protocols/kafka/login.h"

static int admin;

static void up(void)
{
	boot_with(with_admin);
	admin = dial_admin();
}

static void over(void)
{
	close(admin);
	down();
}

enum { ANY = 1, MATCH = 2, LITERAL = 3, PREFIXED = 4 };

static const struct acl rules[] = {
	{2, LITERAL, "orders", "User:ann", 3, 3},
	{2, LITERAL, "orders", "User:ben", 3, 3},
	{2, LITERAL, "orders", "User:ann", 4, 2},
	{2, LITERAL, "*", "User:ann", 8, 3},
	{2, PREFIXED, "or", "User:*", 3, 3},
	{2, PREFIXED, "x", "Role:staff", 3, 3},
	{3, LITERAL, "orders", "User:ann", 3, 3},
	{4, LITERAL, "kafka-cluster", "User:ann", 7, 3},
	{5, LITERAL, "tx", "User:ann", 4, 3},
};
enum { RULES = sizeof rules / sizeof *rules };

static uint32_t describe(const struct kafka_describe_acls_req *req, int16_t *code,
	struct kafka_describe_acls_res *res)
{
	uint32_t count = 0;
	ask(admin, KAFKA_DESCRIBE_ACLS, 2, 3, req);
	answer(admin, KAFKA_DESCRIBE_ACLS, 2, 3, res);
	*code = res->error;
	for (uint32_t i = 0; i < res->resources_count; i++)
		count += res->resources[i].acls_count;
	return count;
}

static struct bytes said(const char *text)
{
	return text ? bytes_text(text) : bytes_of(NULL, 0);
}

static const struct {
	int8_t resource, pattern;
	const char *name, *principal, *host;
	int8_t operation, permission;
	uint32_t found;
} filters[] = {
	{ANY, ANY, NULL, NULL, NULL, ANY, ANY, RULES},
	{2, ANY, NULL, NULL, NULL, ANY, ANY, 6},
	{2, LITERAL, NULL, NULL, NULL, ANY, ANY, 4},
	{2, PREFIXED, NULL, NULL, NULL, ANY, ANY, 2},
	{2, LITERAL, "orders", NULL, NULL, ANY, ANY, 3},
	{2, ANY, "orders", NULL, NULL, ANY, ANY, 3},
	{2, MATCH, "orders", NULL, NULL, ANY, ANY, 5},
	{2, MATCH, "xyz", NULL, NULL, ANY, ANY, 2},
	{2, PREFIXED, "or", NULL, NULL, ANY, ANY, 1},
	{2, PREFIXED, "orders", NULL, NULL, ANY, ANY, 0},
	{ANY, MATCH, "orders", NULL, NULL, ANY, ANY, 6},
	{ANY, ANY, NULL, "User:ann", NULL, ANY, ANY, 6},
	{ANY, ANY, NULL, "User:*", NULL, ANY, ANY, 1},
	{ANY, ANY, NULL, "Role:staff", NULL, ANY, ANY, 1},
	{ANY, ANY, NULL, "User:staff", NULL, ANY, ANY, 0},
	{ANY, ANY, NULL, "ann", NULL, ANY, ANY, 0},
	{ANY, ANY, NULL, NULL, "*", ANY, ANY, RULES},
	{ANY, ANY, NULL, NULL, "10.0.0.1", ANY, ANY, 0},
	{ANY, ANY, NULL, NULL, NULL, 3, ANY, 5},
	{ANY, ANY, NULL, NULL, NULL, ANY, 2, 1},
	{4, ANY, NULL, NULL, NULL, 7, 3, 1},
	{6, ANY, NULL, NULL, NULL, ANY, ANY, 0},
};
enum { FILTERS = sizeof filters / sizeof *filters };

START_TEST(filters_find_what_they_say)
{
	struct kafka_describe_acls_req req = kafka_describe_acls_req_init;
	struct kafka_describe_acls_res res;
	int16_t code;
	for (size_t i = 0; i < RULES; i++)
		ck_assert_int_eq(add_acl(admin, &rules[i]), 0);
	ck_assert_int_eq(add_acl(admin, &rules[0]), 0); /* it is there: fine */
	for (size_t i = 0; i < FILTERS; i++) {
		req.resource_type = filters[i].resource;
		req.pattern_type = filters[i].pattern;
		req.resource_name = said(filters[i].name);
		req.principal = said(filters[i].principal);
		req.host = said(filters[i].host);
		req.operation = filters[i].operation;
		req.permission = filters[i].permission;
		uint32_t found = describe(&req, &code, &res);
		ck_assert_int_eq(code, 0);
		ck_assert_msg(found == filters[i].found, "filter %zu: %u", i, found);
	}
	req = kafka_describe_acls_req_init;
	req.resource_type = req.operation = req.permission = ANY;
	req.pattern_type = LITERAL;
	req.resource_name = bytes_text("orders");
	req.resource_type = 2;
	ck_assert_uint_eq(describe(&req, &code, &res), 3);
	ck_assert_uint_eq(res.resources_count, 1); /* of one resource together */
	ck_assert(bytes_equal(res.resources[0].acls[0].principal, bytes_text("User:ann")));
	ck_assert_uint_eq(drop_acls(admin), RULES);
	ck_assert_uint_eq(drop_acls(admin), 0);
	arena_reset(&arena);
}
END_TEST

START_TEST(what_is_no_filter_is_refused)
{
	static const int8_t bad[][4] = {{0, ANY, ANY, ANY}, {8, ANY, ANY, ANY}, {-1, ANY, ANY, ANY},
		{ANY, 0, ANY, ANY}, {ANY, 5, ANY, ANY}, {ANY, ANY, 0, ANY}, {ANY, ANY, 13, ANY},
		{ANY, ANY, ANY, 0}, {ANY, ANY, ANY, 4}};
	struct kafka_describe_acls_req req = kafka_describe_acls_req_init;
	struct kafka_describe_acls_res res;
	int16_t code;
	req.resource_type = bad[_i][0];
	req.pattern_type = bad[_i][1];
	req.operation = bad[_i][2];
	req.permission = bad[_i][3];
	ck_assert_uint_eq(describe(&req, &code, &res), 0);
	ck_assert_int_eq(code, 42);
	arena_reset(&arena);
}
END_TEST

START_TEST(what_is_no_rule_is_refused)
{
	static const struct acl bad[] = {
		{1, LITERAL, "a", "User:ann", 3, 3},
		{6, LITERAL, "a", "User:ann", 3, 3},
		{32, LITERAL, "a", "User:ann", 3, 3},
		{2, ANY, "a", "User:ann", 3, 3},
		{2, MATCH, "a", "User:ann", 3, 3},
		{2, LITERAL, "", "User:ann", 3, 3},
		{2, LITERAL, "a", "ann", 3, 3},
		{2, LITERAL, "a", "User:", 3, 3},
		{2, LITERAL, "a", "Group:x", 3, 3},
		{2, LITERAL, "a", "User:ann", 1, 3},
		{2, LITERAL, "a", "User:ann", 13, 3},
		{2, LITERAL, "a", "User:ann", 9, 3}, /* cluster action on a topic */
		{2, LITERAL, "a", "User:ann", 3, 1},
		{4, LITERAL, "cluster", "User:ann", 7, 3},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_msg(add_acl(admin, &bad[i]) == 42, "rule %zu", i);
	ck_assert_uint_eq(drop_acls(admin), 0);
	arena_reset(&arena);
}
END_TEST

START_TEST(good_ones_are_added_beside_bad_ones_and_many_at_once)
{
	enum { MANY = 1200 };
	static char names[MANY][16];
	struct kafka_create_acls_req req = kafka_create_acls_req_init;
	struct kafka_create_acls_res res;
	req.acls = kafka_array(&arena, &kafka_create_acls_req_acl_type, MANY);
	req.acls_count = MANY;
	for (int i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof names[i], "t%d", i);
		req.acls[i] = (struct kafka_create_acls_req_acl){.resource_type = i == 7 ? 1 : 2,
			.resource_name = bytes_text(names[i]),
			.pattern_type = LITERAL,
			.principal = bytes_text("User:ann"),
			.host = bytes_text("*"),
			.operation = 3,
			.permission = 3};
	}
	ask(admin, KAFKA_CREATE_ACLS, 2, 3, &req);
	answer(admin, KAFKA_CREATE_ACLS, 2, 3, &res);
	ck_assert_uint_eq(res.results_count, MANY);
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(res.results[i].error, i == 7 ? 42 : 0);
	/* Two filters that find the same. */
	struct kafka_delete_acls_req del = kafka_delete_acls_req_init;
	struct kafka_delete_acls_res gone;
	del.filters = kafka_array(&arena, &kafka_delete_acls_req_filter_type, 2);
	del.filters_count = 2;
	for (int i = 0; i < 2; i++)
		del.filters[i] = (struct kafka_delete_acls_req_filter){.resource_type = ANY,
			.pattern_type = LITERAL,
			.resource_name = bytes_text("t3"),
			.operation = ANY,
			.permission = ANY};
	ask(admin, KAFKA_DELETE_ACLS, 2, 4, &del);
	answer(admin, KAFKA_DELETE_ACLS, 2, 4, &gone);
	ck_assert_int_eq(gone.results[0].acls[0].error, 0);
	ck_assert_uint_eq(drop_acls(admin), MANY - 2);
	arena_reset(&arena);
}
END_TEST

/* Rules about MQTT topics are none of Kafka's. */

static struct topic_rule {
	struct rights_change change;
	struct rule rule;
	sem_t done;
} topic_rule;

static void on_added(struct rights_change *c)
{
	ck_assert_int_eq(c->err, OK);
	sem_post(&topic_rule.done);
}

static void add_topic_rule(void *arg)
{
	(void)arg;
	rights_change(&topic_rule.change);
}

START_TEST(rules_about_mqtt_topics_are_not_seen)
{
	topic_rule.rule = (struct rule){.tenant = bytes_of("", 0),
		.principal = PRINCIPAL_USER,
		.who = bytes_text("ann"),
		.resource = RESOURCE_TOPIC,
		.pattern = RULE_LITERAL,
		.name = bytes_text("a/#"),
		.host = bytes_text("*"),
		.action = ACTION_READ};
	topic_rule.change = (struct rights_change){
		.shard = broker_shard(t.broker, loops_at(t.loops, 0)),
		.peer = "",
		.kind = RULES_ADD,
		.rules = &topic_rule.rule,
		.rule_count = 1,
		.done = on_added};
	sem_init(&topic_rule.done, 0, 0);
	loop_call(loops_at(t.loops, 0), add_topic_rule, NULL);
	sem_wait(&topic_rule.done);
	ck_assert_uint_eq(drop_acls(admin), 0);
	arena_reset(&arena);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_acl");
	TCase *tc = tcase_create("acl");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_test(tc, filters_find_what_they_say);
	tcase_add_loop_test(tc, what_is_no_filter_is_refused, 0, 9);
	tcase_add_test(tc, what_is_no_rule_is_refused);
	tcase_add_test(tc, good_ones_are_added_beside_bad_ones_and_many_at_once);
	tcase_add_test(tc, rules_about_mqtt_topics_are_not_seen);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
