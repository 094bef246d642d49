/* Users as Kafka's SCRAM credentials: made, altered, dropped, described, and each refusal. */
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

static uint8_t salted[SECRET_HASH_MAX];

struct put {
	const char *name;
	int8_t mechanism;
	int32_t iterations;
	const char *salt;
	size_t salted_len;
};

static struct kafka_alter_scram_users_res *alter(
	const struct put *puts, uint32_t put_count, const struct put *drops, uint32_t drop_count)
{
	static struct kafka_alter_scram_users_res res;
	struct kafka_alter_scram_users_req req = kafka_alter_scram_users_req_init;
	req.upsertions = kafka_array(
		&arena, &kafka_alter_scram_users_req_upsertion_type, put_count);
	req.upsertions_count = put_count;
	for (uint32_t i = 0; i < put_count; i++)
		req.upsertions[i] = (struct kafka_alter_scram_users_req_upsertion){
			.name = bytes_text(puts[i].name),
			.mechanism = puts[i].mechanism,
			.iterations = puts[i].iterations,
			.salt = bytes_text(puts[i].salt),
			.salted_password = bytes_of(salted, puts[i].salted_len)};
	req.deletions = kafka_array(&arena, &kafka_alter_scram_users_req_deletion_type, drop_count);
	req.deletions_count = drop_count;
	for (uint32_t i = 0; i < drop_count; i++)
		req.deletions[i] = (struct kafka_alter_scram_users_req_deletion){
			.name = bytes_text(drops[i].name), .mechanism = drops[i].mechanism};
	ask(admin, KAFKA_ALTER_SCRAM_USERS, 0, 5, &req);
	answer(admin, KAFKA_ALTER_SCRAM_USERS, 0, 5, &res);
	return &res;
}

static struct kafka_describe_scram_users_res *describe(const char *const *names, uint32_t count)
{
	static struct kafka_describe_scram_users_res res;
	struct kafka_describe_scram_users_req req = kafka_describe_scram_users_req_init;
	req.users = kafka_array(&arena, &kafka_describe_scram_users_req_user_type, count);
	req.users_count = count;
	for (uint32_t i = 0; i < count; i++)
		req.users[i].name = bytes_text(names[i]);
	ask(admin, KAFKA_DESCRIBE_SCRAM_USERS, 0, 6, &req);
	answer(admin, KAFKA_DESCRIBE_SCRAM_USERS, 0, 6, &res);
	ck_assert_int_eq(res.error, 0);
	return &res;
}

START_TEST(credentials_come_and_go)
{
	static const char *const ann[] = {"ann"};
	struct put both[] = {{"ann", 1, 4096, "salt", 32}, {"ann", 2, 5000, "salt", 64}};
	ck_assert_int_eq(describe(ann, 1)->results[0].error, 91);
	secret_salted(SECRET_SCRAM_512, bytes_text("pw"), bytes_text("salt"), 5000, salted);
	struct kafka_alter_scram_users_res *res = alter(both, 2, NULL, 0);
	ck_assert_uint_eq(res->results_count, 1); /* one user */
	ck_assert_int_eq(res->results[0].error, 0);
	struct kafka_describe_scram_users_res *found = describe(ann, 1);
	ck_assert_uint_eq(found->results[0].credentials_count, 2);
	ck_assert_int_eq(found->results[0].credentials[0].iterations, 4096);
	ck_assert_int_eq(found->results[0].credentials[1].mechanism, 2);
	ck_assert_int_eq(found->results[0].credentials[1].iterations, 5000);
	struct put drop = {"ann", 1, 0, NULL, 0};
	ck_assert_int_eq(alter(NULL, 0, &drop, 1)->results[0].error, 0);
	ck_assert_int_eq(alter(NULL, 0, &drop, 1)->results[0].error, 91);
	ck_assert_uint_eq(describe(ann, 1)->results[0].credentials_count, 1);
	int fd = dial();
	ck_assert_int_eq(login(fd, "ann", "pw"), 0);
	close(fd);
	found = describe(NULL, 0); /* all: the administrator, too */
	ck_assert_uint_eq(found->results_count, 2);
	arena_reset(&arena);
}
END_TEST

START_TEST(each_refusal_has_its_code)
{
	static const struct {
		struct put put;
		int16_t code;
	} bad[] = {
		{{"", 1, 4096, "salt", 32}, 93},
		{{"a:b", 1, 4096, "salt", 32}, 93},
		{{"x", 0, 4096, "salt", 32}, 33},
		{{"x", 3, 4096, "salt", 32}, 33},
		{{"x", 1, 4095, "salt", 32}, 93},
		{{"x", 1, 16385, "salt", 32}, 93},
		{{"x", 1, 4096, "", 32}, 93},
		{{"x", 1, 4096, "salt", 31}, 93},
		{{"x", 2, 4096, "salt", 32}, 93},
	};
	struct put good = {"good", 1, 4096, "salt", 32};
	struct put two[] = {bad[_i].put, good};
	struct kafka_alter_scram_users_res *res = alter(two, 2, NULL, 0);
	ck_assert_uint_eq(res->results_count, 2);
	ck_assert_int_eq(res->results[0].error, bad[_i].code);
	ck_assert_int_eq(res->results[1].error, 0);
	arena_reset(&arena);
}
END_TEST

START_TEST(twice_is_refused)
{
	static const char *const names[] = {"good", "good", "nobody"};
	struct put two[] = {{"twice", 1, 4096, "salt", 32}, {"twice", 1, 4096, "salt", 32}};
	ck_assert_int_eq(alter(two, 2, NULL, 0)->results[0].error, 92);
	ck_assert_int_eq(alter(two, 1, two, 1)->results[0].error, 92);
	struct kafka_describe_scram_users_res *found = describe(names, 3);
	ck_assert_uint_eq(found->results_count, 3);
	ck_assert_int_eq(found->results[0].error, 0);
	ck_assert_int_eq(found->results[1].error, 92);
	ck_assert_int_eq(found->results[2].error, 91);
	arena_reset(&arena);
}
END_TEST

START_TEST(twice_is_found_among_many)
{
	enum { MANY = 3000 };
	static char names[MANY][16];
	const char *asked[MANY + 1];
	for (int i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof names[i], "u%d", i);
		asked[i] = names[i];
	}
	asked[MANY] = names[MANY - 1];
	struct kafka_describe_scram_users_res *found = describe(asked, MANY + 1);
	ck_assert_uint_eq(found->results_count, MANY + 1);
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(found->results[i].error, 91);
	ck_assert_int_eq(found->results[MANY].error, 92);
	arena_reset(&arena);
}
END_TEST

START_TEST(nothing_asked_is_nothing_done)
{
	ck_assert_uint_eq(alter(NULL, 0, NULL, 0)->results_count, 0);
	arena_reset(&arena);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_users");
	TCase *tc = tcase_create("users");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_test(tc, credentials_come_and_go);
	tcase_add_loop_test(tc, each_refusal_has_its_code, 0, 9);
	tcase_add_test(tc, twice_is_refused);
	tcase_add_test(tc, twice_is_found_among_many);
	tcase_add_test(tc, nothing_asked_is_nothing_done);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
