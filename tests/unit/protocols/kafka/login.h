/* Logins, users and rules over the door, for tests of rights. */
#ifndef KAFKA_LOGIN_H
#define KAFKA_LOGIN_H
#include "server/broker/secret.h"
#include "tests/unit/protocols/kafka/fixture.h"

static const char *const with_admin[] = {
	"auth.bootstrap", "admin:secret", "auth.fail_delay", "4ms", NULL};

static inline int16_t handshake(int fd, int16_t version, const char *mechanism)
{
	struct kafka_sasl_handshake_req req = {.mechanism = bytes_text(mechanism)};
	struct kafka_sasl_handshake_res res;
	ask(fd, KAFKA_SASL_HANDSHAKE, version, 70, &req);
	answer(fd, KAFKA_SASL_HANDSHAKE, version, 70, &res);
	ck_assert_uint_eq(res.mechanisms_count, 3);
	return res.error;
}

static inline void send_token(int fd, int16_t version, struct bytes token)
{
	struct kafka_sasl_authenticate_req req = {.auth = token};
	ask(fd, KAFKA_SASL_AUTHENTICATE, version, 71, &req);
}

static inline int16_t token_answer(int fd, int16_t version)
{
	struct kafka_sasl_authenticate_res res;
	answer(fd, KAFKA_SASL_AUTHENTICATE, version, 71, &res);
	ck_assert_int_eq(res.session_lifetime_ms, 0);
	return res.error;
}

static inline struct bytes plain_token(const char *user, const char *password)
{
	static char text[600];
	int len = snprintf(text, sizeof text, "%c%s%c%s", 0, user, 0, password);
	return bytes_of(text, (size_t)len);
}

static inline int16_t login(int fd, const char *user, const char *password)
{
	int16_t code = handshake(fd, 1, "PLAIN");
	if (code != 0)
		return code;
	send_token(fd, 1, plain_token(user, password));
	return token_answer(fd, 1);
}

static inline int dial_as(const char *user, const char *password)
{
	int fd = dial();
	ck_assert_int_eq(login(fd, user, password), 0);
	return fd;
}

/* Whether there is an answer; else the connection has been closed. */
static inline bool answered(int fd)
{
	char first;
	return readable(fd, PATIENT_MS) && recv(fd, &first, 1, MSG_PEEK) == 1;
}

/* The administrator comes to be soon after the start; until then nobody gets in. */
static inline int dial_admin(void)
{
	struct kafka_sasl_handshake_req hello = {.mechanism = bytes_text("PLAIN")};
	struct kafka_sasl_handshake_res res;
	for (int i = 0; i < 200; i++) {
		int fd = dial();
		ask(fd, KAFKA_SASL_HANDSHAKE, 1, 70, &hello);
		if (answered(fd)) {
			answer(fd, KAFKA_SASL_HANDSHAKE, 1, 70, &res);
			send_token(fd, 1, plain_token("admin", "secret"));
			if (answered(fd)) {
				ck_assert_int_eq(token_answer(fd, 1), 0);
				return fd;
			}
		}
		close(fd);
		usleep(20000);
	}
	ck_abort_msg("no administrator");
	return -1;
}

/* A user with a SCRAM secret: made, or given another password. */
static inline int16_t put_user(int admin, const char *name, const char *password)
{
	struct kafka_alter_scram_users_req req = kafka_alter_scram_users_req_init;
	struct kafka_alter_scram_users_res res;
	uint8_t salted[SECRET_HASH_MAX];
	secret_salted(SECRET_SCRAM_256, bytes_text(password), bytes_text("salty"), 4096, salted);
	req.upsertions = kafka_array(&arena, &kafka_alter_scram_users_req_upsertion_type, 1);
	req.upsertions_count = 1;
	req.upsertions[0].name = bytes_text(name);
	req.upsertions[0].mechanism = 1;
	req.upsertions[0].iterations = 4096;
	req.upsertions[0].salt = bytes_text("salty");
	req.upsertions[0].salted_password = bytes_of(salted, 32);
	ask(admin, KAFKA_ALTER_SCRAM_USERS, 0, 72, &req);
	answer(admin, KAFKA_ALTER_SCRAM_USERS, 0, 72, &res);
	ck_assert_uint_eq(res.results_count, 1);
	return res.results[0].error;
}

struct acl {
	int8_t resource, pattern;
	const char *name, *principal;
	int8_t operation, permission;
};

static inline int16_t add_acl(int admin, const struct acl *a)
{
	struct kafka_create_acls_req req = kafka_create_acls_req_init;
	struct kafka_create_acls_res res;
	req.acls = kafka_array(&arena, &kafka_create_acls_req_acl_type, 1);
	req.acls_count = 1;
	req.acls[0] = (struct kafka_create_acls_req_acl){.resource_type = a->resource,
		.resource_name = bytes_text(a->name),
		.pattern_type = a->pattern,
		.principal = bytes_text(a->principal),
		.host = bytes_text("*"),
		.operation = a->operation,
		.permission = a->permission};
	ask(admin, KAFKA_CREATE_ACLS, 2, 73, &req);
	answer(admin, KAFKA_CREATE_ACLS, 2, 73, &res);
	ck_assert_uint_eq(res.results_count, 1);
	return res.results[0].error;
}

/* All rules there are; how many it were. */
static inline uint32_t drop_acls(int admin)
{
	struct kafka_delete_acls_req req = kafka_delete_acls_req_init;
	struct kafka_delete_acls_res res;
	req.filters = kafka_array(&arena, &kafka_delete_acls_req_filter_type, 1);
	req.filters_count = 1;
	req.filters[0] = (struct kafka_delete_acls_req_filter){
		.resource_type = 1, .pattern_type = 1, .operation = 1, .permission = 1};
	ask(admin, KAFKA_DELETE_ACLS, 2, 74, &req);
	answer(admin, KAFKA_DELETE_ACLS, 2, 74, &res);
	ck_assert_int_eq(res.results[0].error, 0);
	for (uint32_t i = 0; i < res.results[0].acls_count; i++)
		ck_assert_int_eq(res.results[0].acls[i].error, 0);
	return res.results[0].acls_count;
}

#endif
