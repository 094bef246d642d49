/* Logins over sockets: what is served before one, orders that are wrong, tokens with and without
 * frames of requests, connections that close in the midst of it. */
#include "server/base/clock.h"
#include "tests/unit/protocols/kafka/login.h"

static void up(void)
{
	boot_with(with_admin);
	close(dial_admin());
}

static void versions(int fd)
{
	struct kafka_api_versions_req req = kafka_api_versions_req_init;
	struct kafka_api_versions_res res;
	ask(fd, KAFKA_API_VERSIONS, 3, 1, &req);
	answer(fd, KAFKA_API_VERSIONS, 3, 1, &res);
	ck_assert_int_eq(res.error, 0);
}

static void send_metadata(int fd)
{
	struct kafka_metadata_req req = kafka_metadata_req_init;
	ask(fd, KAFKA_METADATA, 5, 2, &req);
}

static void metadata(int fd)
{
	struct kafka_metadata_res res;
	send_metadata(fd);
	answer(fd, KAFKA_METADATA, 5, 2, &res);
	ck_assert_uint_eq(res.brokers_count, 1);
}

static void send_raw(int fd, struct bytes token)
{
	uint8_t size[4];
	put_u32be(size, (uint32_t)token.len);
	ck_assert_int_eq(send(fd, size, 4, MSG_NOSIGNAL), 4);
	ck_assert_int_eq(send(fd, token.at, token.len, MSG_NOSIGNAL), (ssize_t)token.len);
}

START_TEST(before_a_login_only_logins_are_served)
{
	static const int16_t keys[] = {KAFKA_METADATA, KAFKA_FETCH, KAFKA_JOIN_GROUP,
		KAFKA_CREATE_ACLS, KAFKA_DESCRIBE_CLUSTER};
	const struct kafka_api *api = kafka_api_find(keys[_i]);
	int fd = dial();
	versions(fd);
	void *req = arena_take(&arena, api->request->size);
	memcpy(req, api->request->initial, api->request->size);
	ask(fd, keys[_i], api->first, 2, req);
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

START_TEST(a_login_by_password)
{
	int fd = dial();
	versions(fd);
	ck_assert_int_eq(handshake(fd, 1, "PLAIN"), 0);
	send_token(fd, (int16_t)_i, plain_token("admin", "secret"));
	send_metadata(fd); /* it may come at once, and waits */
	ck_assert_int_eq(token_answer(fd, (int16_t)_i), 0);
	struct kafka_metadata_res res;
	answer(fd, KAFKA_METADATA, 5, 2, &res);
	metadata(fd);
	end(fd);
}
END_TEST

START_TEST(tokens_without_requests)
{
	uint8_t size[4];
	int fd = dial();
	versions(fd);
	ck_assert_int_eq(handshake(fd, 0, "PLAIN"), 0);
	send_raw(fd, plain_token("admin", "secret"));
	take(fd, size, 4);
	ck_assert_uint_eq(get_u32be(size), 0);
	metadata(fd);
	ck_assert_int_eq(handshake(fd, 0, "PLAIN"), 34); /* answers may be under way now */
	end(fd);
	fd = dial();
	ck_assert_int_eq(handshake(fd, 0, "PLAIN"), 0);
	send_raw(fd, plain_token("admin", "wrong"));
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

START_TEST(wrong_orders_have_their_code)
{
	int fd = dial();
	send_token(fd, 1, plain_token("admin", "secret"));
	ck_assert_int_eq(token_answer(fd, 1), 34);
	ck_assert_int_eq(handshake(fd, 1, "GSSAPI"), 33);
	ck_assert_int_eq(handshake(fd, 1, ""), 33);
	ck_assert_int_eq(handshake(fd, 1, "PLAIN"), 0);
	ck_assert_int_eq(handshake(fd, 1, "PLAIN"), 34);
	versions(fd);
	send_token(fd, 1, plain_token("admin", "secret"));
	ck_assert_int_eq(token_answer(fd, 1), 0);
	send_token(fd, 1, plain_token("admin", "secret"));
	ck_assert_int_eq(token_answer(fd, 1), 34);
	metadata(fd);
	end(fd);
}
END_TEST

START_TEST(a_wrong_password_is_answered_late_and_ends_it)
{
	static const char *const users[] = {"admin", "nobody"};
	int64_t began = clock_ms();
	int fd = dial();
	ck_assert_int_eq(login(fd, users[_i], "wrong"), 58);
	ck_assert_int_ge(clock_ms() - began, 4);
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

START_TEST(what_is_no_token_is_refused)
{
	static const struct {
		const char *mechanism, *bytes;
		size_t len;
	} junk[] = {
		{"PLAIN", "", 0},
		{"PLAIN", "\0", 1},
		{"PLAIN", "\0\0", 2},
		{"PLAIN", "\0admin", 6},
		{"PLAIN", "\0admin\0", 7},
		{"PLAIN", "\0\0secret", 8},
		{"PLAIN", "other\0admin\0secret", 18},
		{"PLAIN", "\0admin\0secret\0", 14},
		{"SCRAM-SHA-256", "", 0},
		{"SCRAM-SHA-256", "n,,n=admin", 10},
		{"SCRAM-SHA-512", "p=tls-unique,,n=admin,r=abc", 27},
		{"SCRAM-SHA-512", "n,,m=x,n=admin,r=abc", 20},
	};
	int fd = dial();
	ck_assert_int_eq(handshake(fd, 1, junk[_i].mechanism), 0);
	send_token(fd, 1, bytes_of(junk[_i].bytes, junk[_i].len));
	ck_assert_int_eq(token_answer(fd, 1), 58);
	ck_assert(is_closed(fd));
	close(fd);
	fd = dial();
	ck_assert_int_eq(handshake(fd, 0, junk[_i].mechanism), 0);
	send_raw(fd, bytes_of(junk[_i].bytes, junk[_i].len));
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

START_TEST(scram_that_fails)
{
	static const char first[] = "n,,n=admin,r=rOprNGfwEbeRWgbNEkqO";
	struct kafka_sasl_authenticate_res res;
	char final[300];
	int fd = dial();
	ck_assert_int_eq(handshake(fd, 1, _i ? "SCRAM-SHA-256" : "SCRAM-SHA-512"), 0);
	send_token(fd, 1, bytes_text(first));
	answer(fd, KAFKA_SASL_AUTHENTICATE, 1, 71, &res);
	ck_assert_int_eq(res.error, 0);
	ck_assert_uint_gt(res.auth.len, 24);
	ck_assert_mem_eq(res.auth.at, "r=rOprNGfwEbeRWgbNEkqO", 22);
	const uint8_t *comma = memchr(res.auth.at, ',', res.auth.len);
	int nonce = (int)(comma - res.auth.at);
	int len = snprintf(final, sizeof final, "c=biws,%.*s,p=%s", nonce,
		(const char *)res.auth.at, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
	send_token(fd, 1, bytes_of(final, (size_t)len));
	ck_assert_int_eq(token_answer(fd, 1), 58);
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

START_TEST(frames_before_a_login_are_small)
{
	uint8_t head[8] = {0, 0, 0x40, 1, 0, 18, 0, 3}; /* 16 KiB and a byte */
	int fd = dial();
	if (_i == 1)
		ck_assert_int_eq(handshake(fd, 0, "PLAIN"), 0);
	ck_assert_int_eq(send(fd, head, sizeof head, MSG_NOSIGNAL), sizeof head);
	ck_assert(is_closed(fd));
	close(fd);
	fd = dial_as("admin", "secret"); /* not any more after it */
	struct kafka_metadata_req req = kafka_metadata_req_init;
	struct kafka_metadata_res res;
	static char name[30000];
	memset(name, 'x', sizeof name);
	req.topics_count = 5;
	req.topics = kafka_array(&arena, &kafka_metadata_req_topic_type, 5);
	for (int i = 0; i < 5; i++)
		req.topics[i].name = bytes_of(name, sizeof name);
	ask(fd, KAFKA_METADATA, 5, 2, &req);
	answer(fd, KAFKA_METADATA, 5, 2, &res);
	ck_assert_int_eq(res.topics[4].error, 17);
	end(fd);
}
END_TEST

/* Again as the same user, and only as that. A new password ends what had the old one. */
START_TEST(who_is_logged_in_may_do_so_again)
{
	int admin = dial_admin();
	ck_assert_int_eq(login(admin, "admin", "secret"), 0);
	metadata(admin);
	ck_assert_int_eq(put_user(admin, "ann", "one"), 0);
	int ann = dial_as("ann", "one"), other = dial_as("ann", "one");
	metadata(ann);
	ck_assert_int_eq(login(other, "admin", "secret"), 58);
	ck_assert(is_closed(other));
	ck_assert_int_eq(put_user(admin, "ann", "two"), 0);
	ck_assert(is_closed(ann));
	close(ann);
	ann = dial();
	ck_assert_int_eq(login(ann, "ann", "one"), 58);
	close(ann);
	ann = dial_as("ann", "two");
	close(ann);
	close(other);
	end(admin);
}
END_TEST

START_TEST(connections_that_close_in_the_midst_of_a_login)
{
	for (int i = 0; i < 20; i++) {
		int fd = dial();
		ck_assert_int_eq(handshake(fd, (int16_t)(i & 1), "PLAIN"), 0);
		if (i & 1)
			send_token(fd, 1, plain_token("admin", i & 2 ? "secret" : "wrong"));
		else
			send_raw(fd, plain_token("admin", i & 2 ? "secret" : "wrong"));
		if (i & 4)
			usleep(3000);
		close(fd);
	}
	int fd = dial_as("admin", "secret");
	metadata(fd);
	end(fd);
}
END_TEST

START_TEST(who_never_logs_in_is_let_go)
{
	kafka_conf.request_ms = 1000;
	int64_t began = clock_ms();
	int fd = dial(), slow = dial();
	ck_assert_int_eq(handshake(slow, 1, "PLAIN"), 0);
	ck_assert(is_closed(fd));
	ck_assert(is_closed(slow));
	ck_assert_int_ge(clock_ms() - began, 950);
	close(slow);
	end(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_sasl");
	TCase *tc = tcase_create("login");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, down);
	tcase_add_loop_test(tc, before_a_login_only_logins_are_served, 0, 5);
	tcase_add_loop_test(tc, a_login_by_password, 0, 3);
	tcase_add_test(tc, tokens_without_requests);
	tcase_add_test(tc, wrong_orders_have_their_code);
	tcase_add_loop_test(tc, a_wrong_password_is_answered_late_and_ends_it, 0, 2);
	tcase_add_loop_test(tc, what_is_no_token_is_refused, 0, 12);
	tcase_add_loop_test(tc, scram_that_fails, 0, 2);
	tcase_add_loop_test(tc, frames_before_a_login_are_small, 0, 2);
	tcase_add_test(tc, who_is_logged_in_may_do_so_again);
	tcase_add_test(tc, connections_that_close_in_the_midst_of_a_login);
	tcase_add_test(tc, who_never_logs_in_is_let_go);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
