/* Documents of users, rules and quotas: what is written is read, and nothing else. */
#include <check.h>
#include <stdlib.h>
#include "cluster/node.h"
#include "server/broker/rights_doc.h"

static struct bytes text(const char *t)
{
	return bytes_text(t);
}

static const uint8_t keys[64] = {1, 2, 3};

static struct user_doc some_user(void)
{
	return (struct user_doc){.name = text("bob"),
		.tenant = text("acme"),
		.disabled = true,
		.created_ms = 1234567890123,
		.role_count = 2,
		.roles = {text("admin"), text("ops")},
		.secret_count = 3,
		.secrets = {{.kind = SECRET_SCRAM_512,
				    .iterations = 4096,
				    .salt = text("salt"),
				    .stored_key = bytes_of(keys, 64),
				    .server_key = bytes_of(keys, 64)},
			{.kind = SECRET_CRYPT, .crypt = text("$y$j9T$x$y")},
			{.kind = SECRET_SCRAM_256,
				.iterations = 8192,
				.salt = text("pepper"),
				.stored_key = bytes_of(keys, 32),
				.server_key = bytes_of(keys, 32)}}};
}

START_TEST(users_come_back)
{
	struct user_doc u = some_user(), back;
	struct buf key, value;
	buf_init(&key, 1000);
	buf_init(&value, 10000);
	user_key(u.name, &key);
	user_write(&u, &value);
	ck_assert(bytes_equal(buf_bytes(&key), bytes_of("u\0bob", 5)));
	ck_assert_int_eq(user_read(buf_bytes(&key), buf_bytes(&value), &back), OK);
	ck_assert(bytes_equal(back.name, u.name));
	ck_assert(bytes_equal(back.tenant, u.tenant));
	ck_assert(back.disabled);
	ck_assert_int_eq(back.created_ms, u.created_ms);
	ck_assert_int_eq(back.role_count, 2);
	ck_assert(bytes_equal(back.roles[1], text("ops")));
	ck_assert_int_eq(back.secret_count, 3);
	ck_assert(bytes_equal(user_secret(&back, SECRET_CRYPT)->crypt, text("$y$j9T$x$y")));
	ck_assert_uint_eq(user_secret(&back, SECRET_SCRAM_512)->iterations, 4096);
	ck_assert(bytes_equal(user_secret(&back, SECRET_SCRAM_256)->salt, text("pepper")));
	back.secret_count = 1;
	ck_assert_ptr_null(user_secret(&back, SECRET_CRYPT));
	buf_fini(&key);
	buf_fini(&value);
}
END_TEST

START_TEST(short_and_changed_users_are_refused_or_harmless)
{
	struct user_doc u = some_user(), back;
	struct bytes key = bytes_of("u\0bob", 5);
	struct buf value;
	buf_init(&value, 10000);
	user_write(&u, &value);
	size_t len = buf_len(&value);
	uint8_t *copy = malloc(len + 1);
	for (size_t n = 0; n < len; n++) {
		uint8_t *exact = malloc(n + 1);
		memcpy(exact, buf_bytes(&value).at, n);
		ck_assert_int_eq(user_read(key, bytes_of(exact, n), &back), ERR_MALFORMED);
		free(exact);
	}
	memcpy(copy, buf_bytes(&value).at, len);
	copy[len] = 0; /* more than it is */
	ck_assert_int_eq(user_read(key, bytes_of(copy, len + 1), &back), ERR_MALFORMED);
	for (size_t i = 0; i < len; i++)
		for (int v = 0; v < 256; v++) {
			memcpy(copy, buf_bytes(&value).at, len);
			copy[i] = (uint8_t)v;
			if (user_read(key, bytes_of(copy, len), &back) == OK) {
				ck_assert_int_le(back.role_count, USER_ROLES_MAX);
				ck_assert_int_le(back.secret_count, SECRET_KINDS);
			}
		}
	free(copy);
	static const struct {
		const char *at;
		size_t len;
	} bad[] = {{"", 0}, {"u", 1}, {"u\0", 2}, {"a\0bob", 5}, {"u\0b\nb", 5}, {"u\0b:b", 5},
		{"u\0b\xff", 4}, {"ubob", 4}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_int_eq(
			user_read(bytes_of(bad[i].at, bad[i].len), buf_bytes(&value), &back),
			ERR_MALFORMED);
	u.secrets[1] = u.secrets[0]; /* two of a kind */
	buf_clear(&value);
	user_write(&u, &value);
	ck_assert_int_eq(user_read(key, buf_bytes(&value), &back), ERR_MALFORMED);
	buf_fini(&value);
}
END_TEST

START_TEST(names_are_checked)
{
	char longest[USER_NAME_MAX + 1];
	memset(longest, 'x', sizeof longest);
	ck_assert(user_name_valid(bytes_of(longest, USER_NAME_MAX)));
	ck_assert(!user_name_valid(bytes_of(longest, USER_NAME_MAX + 1)));
	ck_assert(user_name_valid(text("J\xc3\xbcrgen M., =1")));
	ck_assert(!user_name_valid(text("")));
	ck_assert(!user_name_valid(text("a:b")));
	ck_assert(!user_name_valid(text("a\x7f")));
	ck_assert(!user_name_valid(text("a\xc2\x85"))); /* U+0085 */
	ck_assert(user_name_valid(text("a\xc2\xa0")));
	ck_assert(!user_name_valid(text("a\xc3")));
	ck_assert(role_name_valid(text("ops-2")));
	ck_assert(!role_name_valid(text("Ops")));
	ck_assert(!role_name_valid(text("")));
	ck_assert(!role_name_valid(bytes_of(longest, ROLE_NAME_MAX + 1)));
}
END_TEST

/* --- rules */

static struct rule rule(enum resource resource, enum rule_pattern pattern, const char *name)
{
	return (struct rule){.tenant = text(""),
		.principal = PRINCIPAL_USER,
		.who = text("bob"),
		.resource = resource,
		.pattern = pattern,
		.name = text(name),
		.host = text("*"),
		.action = ACTION_ALL};
}

static bool good(const struct rule *r)
{
	char why[100] = "";
	enum err e = rule_check(r, why, sizeof why);
	ck_assert_int_eq(e != OK, why[0] != 0);
	ck_assert(e == OK || e == ERR_INVALID);
	return e == OK;
}

static const struct {
	enum resource resource;
	enum rule_pattern pattern;
	const char *name;
	bool good;
} names[] = {
	{RESOURCE_STREAM, RULE_LITERAL, "orders", true},
	{RESOURCE_STREAM, RULE_LITERAL, "*", true},
	{RESOURCE_STREAM, RULE_LITERAL, "a/b", false},
	{RESOURCE_STREAM, RULE_LITERAL, "", false},
	{RESOURCE_STREAM, RULE_LITERAL, "..", false},
	{RESOURCE_STREAM, RULE_PREFIXED, "..", true},
	{RESOURCE_STREAM, RULE_PREFIXED, "ord", true},
	{RESOURCE_STREAM, RULE_PREFIXED, "*", false},
	{RESOURCE_GROUP, RULE_LITERAL, "any thing/here", true},
	{RESOURCE_GROUP, RULE_PREFIXED, "*", true},
	{RESOURCE_GROUP, RULE_LITERAL, "a\x01", false},
	{RESOURCE_CLUSTER, RULE_LITERAL, "kafka-cluster", true},
	{RESOURCE_CLUSTER, RULE_LITERAL, "*", false},
	{RESOURCE_CLUSTER, RULE_PREFIXED, "kafka-cluster", false},
	{RESOURCE_TRANSACTION, RULE_LITERAL, "tx", true},
	{RESOURCE_USER, RULE_LITERAL, "alice", true},
	{RESOURCE_USER, RULE_LITERAL, "a:b", false},
	{RESOURCE_TOPIC, RULE_LITERAL, "*", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "#", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "dev/%c/+/%u/#", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "dev/x%c/#", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "dev/%c%u", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "100%/a", true},
	{RESOURCE_TOPIC, RULE_LITERAL, "dev/#/x", false},
	{RESOURCE_TOPIC, RULE_LITERAL, "dev+", false},
	{RESOURCE_TOPIC, RULE_LITERAL, "$share/g/a", false},
	{RESOURCE_TOPIC, RULE_LITERAL, "$SYS/#", true},
	{RESOURCE_TOPIC, RULE_PREFIXED, "dev/", true},
	{RESOURCE_TOPIC, RULE_PREFIXED, "dev/+", false},
	{RESOURCE_TOPIC, RULE_PREFIXED, "dev/%c", true},
};

START_TEST(names_of_resources_are_checked)
{
	struct rule r = rule(names[_i].resource, names[_i].pattern, names[_i].name);
	ck_assert_int_eq(good(&r), names[_i].good);
}
END_TEST

START_TEST(actions_hosts_and_principals_are_checked)
{
	struct rule r = rule(RESOURCE_TOPIC, RULE_LITERAL, "a");
	for (int a = 0; a < ACTION_END + 2; a++) {
		r.action = (enum action)a;
		ck_assert_int_eq(
			good(&r), a == ACTION_ALL || a == ACTION_READ || a == ACTION_WRITE);
	}
	r = rule(RESOURCE_GROUP, RULE_LITERAL, "a");
	r.action = ACTION_WRITE;
	ck_assert(!good(&r));
	r.action = ACTION_READ;
	static const struct {
		const char *host;
		bool good;
	} hosts[] = {{"*", true}, {"10.0.0.1", true}, {"::1", true}, {"0:0::1", false},
		{"::ffff:10.0.0.1", false}, {"10.0.0.01", false}, {"", false},
		{"example.org", false}, {"10.0.0.0/8", false}};
	for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
		r.host = text(hosts[i].host);
		ck_assert_int_eq(good(&r), hosts[i].good);
	}
	r.host = text("*");
	for (int x = 0; x < 40; x++) {
		r.resource = (enum resource)x;
		r.action = ACTION_ALL;
		ck_assert_int_eq(resource_has(r.resource, ACTION_ALL),
			x == 2 || x == 3 || x == 4 || x == 5 || x == 7 || x == 32);
		if (!resource_has(r.resource, ACTION_ALL))
			ck_assert(!good(&r));
	}
	r = rule(RESOURCE_GROUP, RULE_LITERAL, "a");
	r.who = text("*");
	ck_assert(good(&r));
	r.principal = PRINCIPAL_ROLE;
	ck_assert(!good(&r));
	r.who = text("ops");
	ck_assert(good(&r));
	r.principal = (enum principal_kind)'x';
	ck_assert(!good(&r));
	r.principal = PRINCIPAL_ROLE;
	r.tenant = text("acme");
	ck_assert(good(&r));
	r.tenant = text("default"); /* its name is empty */
	ck_assert(!good(&r));
	r.tenant = text("");
	r.pattern = (enum rule_pattern)0;
	ck_assert(!good(&r));
}
END_TEST

START_TEST(rules_come_back_and_lie_side_by_side)
{
	struct rule r = rule(RESOURCE_TOPIC, RULE_LITERAL, "dev/%c/#"), back;
	struct buf key, prefix;
	r.tenant = text("acme");
	r.principal = PRINCIPAL_ROLE;
	r.who = text("ops");
	r.deny = true;
	r.host = text("10.1.2.3");
	r.action = ACTION_READ;
	buf_init(&key, CATALOG_DOC_KEY_MAX);
	buf_init(&prefix, CATALOG_DOC_KEY_MAX);
	rule_key(&r, &key);
	rule_prefix(r.tenant, r.principal, r.who, &prefix);
	ck_assert_int_eq(key.err, OK);
	ck_assert_uint_gt(buf_len(&key), buf_len(&prefix));
	ck_assert_mem_eq(buf_bytes(&key).at, buf_bytes(&prefix).at, buf_len(&prefix));
	ck_assert_int_eq(rule_read(buf_bytes(&key), &back), OK);
	ck_assert(bytes_equal(back.tenant, r.tenant));
	ck_assert_int_eq(back.principal, r.principal);
	ck_assert(bytes_equal(back.who, r.who));
	ck_assert_int_eq(back.resource, r.resource);
	ck_assert_int_eq(back.pattern, r.pattern);
	ck_assert(bytes_equal(back.name, r.name));
	ck_assert(bytes_equal(back.host, r.host));
	ck_assert(back.deny);
	ck_assert_int_eq(back.action, r.action);
	size_t len = buf_len(&key), name = r.name.len;
	for (size_t n = 0; n < len; n++) { /* a shorter name may be one, too */
		uint8_t *exact = malloc(n + 1);
		memcpy(exact, buf_bytes(&key).at, n);
		enum err e = rule_read(bytes_of(exact, n), &back);
		ck_assert(e == ERR_MALFORMED || (e == OK && n > len - name));
		free(exact);
	}
	uint8_t *copy = malloc(len);
	for (size_t i = 0; i < len; i++)
		for (int v = 0; v < 256; v++) {
			memcpy(copy, buf_bytes(&key).at, len);
			copy[i] = (uint8_t)v;
			if (rule_read(bytes_of(copy, len), &back) == OK) {
				struct buf again;
				buf_init(&again, CATALOG_DOC_KEY_MAX);
				rule_key(&back, &again);
				ck_assert(bytes_equal(buf_bytes(&again), bytes_of(copy, len)));
				buf_fini(&again);
			}
		}
	free(copy);
	buf_fini(&key);
	buf_fini(&prefix);
}
END_TEST

START_TEST(the_longest_rule_fits_a_key)
{
	static char tenant[63], who[USER_NAME_MAX], name[RULE_NAME_MAX];
	struct rule r = rule(RESOURCE_TOPIC, RULE_LITERAL, "");
	struct buf key;
	memset(tenant, 't', sizeof tenant);
	memset(who, 'w', sizeof who);
	memset(name, 'n', sizeof name);
	r.tenant = bytes_of(tenant, sizeof tenant);
	r.who = bytes_of(who, sizeof who);
	r.name = bytes_of(name, sizeof name);
	r.host = text("1111:2222:3333:4444:5555:6666:7777:8888");
	ck_assert(good(&r));
	buf_init(&key, CATALOG_DOC_KEY_MAX);
	rule_key(&r, &key);
	ck_assert_int_eq(key.err, OK);
	buf_fini(&key);
}
END_TEST

/* --- words and quotas */

START_TEST(words_come_back)
{
	enum action a, b;
	enum resource r, s;
	enum quota_what w;
	int actions = 0, resources = 0;
	for (a = 0; a < ACTION_END; a++)
		if (action_of(text(action_word(a)), &b)) {
			ck_assert_int_eq(a, b);
			actions++;
		}
	ck_assert_int_eq(actions, 11);
	for (r = 0; r < RESOURCE_END; r++)
		if (resource_of(text(resource_word(r)), &s)) {
			ck_assert_int_eq(r, s);
			resources++;
		}
	ck_assert_int_eq(resources, 6);
	for (int i = 0; i < QUOTA_WHATS; i++) {
		ck_assert(quota_of(text(quota_word((enum quota_what)i)), &w));
		ck_assert_int_eq(w, i);
	}
	ck_assert(!action_of(text("unknown"), &b));
	ck_assert(!action_of(text(""), &b));
	ck_assert(!quota_of(text("bytes"), &w));
	ck_assert_str_eq(action_word((enum action)200), "unknown");
}
END_TEST

START_TEST(quotas_come_back)
{
	struct quota_doc q = {.kind = QUOTA_USER,
				 .name = text("bob"),
				 .limit = {1, -1, INT64_MAX, 5, 0, -1, -1, -1, -1, -1}},
			 back;
	struct buf key, value;
	buf_init(&key, 1000);
	buf_init(&value, 1000);
	quota_key(q.kind, q.name, &key);
	quota_write(&q, &value);
	ck_assert_int_eq(quota_read(buf_bytes(&key), buf_bytes(&value), &back), OK);
	ck_assert_int_eq(back.kind, QUOTA_USER);
	ck_assert(bytes_equal(back.name, q.name));
	ck_assert_mem_eq(back.limit, q.limit, sizeof q.limit);
	for (size_t n = 0; n < buf_len(&value); n++) {
		uint8_t *exact = malloc(n + 1);
		memcpy(exact, buf_bytes(&value).at, n);
		ck_assert_int_eq(
			quota_read(buf_bytes(&key), bytes_of(exact, n), &back), ERR_MALFORMED);
		free(exact);
	}
	ck_assert_int_eq(
		quota_read(bytes_of("q\0t\0", 4), buf_bytes(&value), &back), OK); /* of the rest */
	ck_assert_uint_eq(back.name.len, 0);
	ck_assert_int_eq(quota_read(bytes_of("q\0t\0default", 11), buf_bytes(&value), &back), OK);
	ck_assert_int_eq(
		quota_read(bytes_of("q\0t\0Bad", 7), buf_bytes(&value), &back), ERR_MALFORMED);
	ck_assert_int_eq(
		quota_read(bytes_of("q\0x\0bob", 7), buf_bytes(&value), &back), ERR_MALFORMED);
	ck_assert_int_eq(quota_read(bytes_of("q\0u", 3), buf_bytes(&value), &back), ERR_MALFORMED);
	q.limit[QUOTA_STREAMS] = 0; /* a user has none of its own */
	ck_assert_int_eq(quota_check(&q), ERR_INVALID);
	q.kind = QUOTA_TENANT;
	ck_assert_int_eq(quota_check(&q), OK);
	ck_assert_uint_eq(buf_len(&value), 2 + 5 * 8); /* versions before know no more */
	buf_clear(&value);
	quota_write(&q, &value);
	ck_assert_uint_eq(buf_len(&value), 2 + 6 * 8);
	ck_assert_int_eq(quota_read(bytes_of("q\0t\0", 4), buf_bytes(&value), &back), OK);
	ck_assert_mem_eq(back.limit, q.limit, sizeof q.limit);
	q.kind = QUOTA_USER;
	q.limit[QUOTA_STREAMS] = -1;
	q.limit[0] = 0; /* would never end */
	ck_assert_int_eq(quota_check(&q), ERR_INVALID);
	q.limit[0] = -2;
	ck_assert_int_eq(quota_check(&q), ERR_INVALID);
	buf_fini(&key);
	buf_fini(&value);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rights_doc");
	TCase *tc = tcase_create("documents");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, users_come_back);
	tcase_add_test(tc, short_and_changed_users_are_refused_or_harmless);
	tcase_add_test(tc, names_are_checked);
	tcase_add_loop_test(tc, names_of_resources_are_checked, 0, sizeof names / sizeof names[0]);
	tcase_add_test(tc, actions_hosts_and_principals_are_checked);
	tcase_add_test(tc, rules_come_back_and_lie_side_by_side);
	tcase_add_test(tc, the_longest_rule_fits_a_key);
	tcase_add_test(tc, words_come_back);
	tcase_add_test(tc, quotas_come_back);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
