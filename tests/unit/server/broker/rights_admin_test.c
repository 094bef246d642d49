/* Users, rules and quotas changed by administrators: what is in force afterwards, who may, and what
 * cannot be undone; the first administrator; tenants. */
#include "server/broker/rights_admin.h"
#include <time.h>
#include "server/broker/audit.h"
#include "tests/unit/server/broker/world.h"

static struct world w;

static void setup(void)
{
	world_init(&w);
	world_start(&w, 2);
}
static void teardown(void)
{
	world_stop(&w);
}

static struct bytes text(const char *t)
{
	return bytes_text(t);
}

/* --- asking */

struct ask {
	struct rights_change change;
	const char *as; /* user; NULL: the node itself */
	int loop;
};

static void asked(struct rights_change *c)
{
	access_unref(c->by);
	c->by = NULL;
	sem_post(&w.done);
}

static void ask_run(void *arg)
{
	struct ask *a = arg;
	a->change.shard = world_shard(&w, a->loop);
	a->change.done = asked;
	if (a->as != NULL)
		a->change.by = access_of_user(a->change.shard, text(a->as), "127.0.0.1:1");
	rights_change(&a->change);
}

static enum err ask(struct ask *a)
{
	world_call(&w, a->loop, ask_run, a);
	ck_assert_int_eq(a->change.err != OK, a->change.why[0] != 0);
	return a->change.err;
}

static enum err add(const char *as, const char *name, const char *tenant, const char *role)
{
	struct bytes roles[] = {text(role)}, password = text("secret");
	struct ask a = {.as = as,
		.change = {.kind = USER_ADD,
			.name = text(name),
			.tenant = text(tenant),
			.password = &password,
			.roles = roles,
			.role_count = *role != 0}};
	return ask(&a);
}

static enum err set_role(const char *as, const char *name, const char *role)
{
	struct bytes roles[] = {text(role)};
	struct ask a = {.as = as,
		.change = {.kind = USER_ALTER,
			.name = text(name),
			.roles = roles,
			.role_count = *role != 0}};
	return ask(&a);
}

static enum err disable(const char *name, bool disabled)
{
	struct ask a = {.change = {.kind = USER_ALTER,
				.name = text(name),
				.able = disabled ? USER_DISABLE : USER_ENABLE}};
	return ask(&a);
}

static enum err set_password(const char *as, const char *name, const char *password)
{
	struct bytes p = text(password);
	struct ask a = {
		.as = as, .change = {.kind = USER_ALTER, .name = text(name), .password = &p}};
	return ask(&a);
}

static enum err delete_user(const char *as, const char *name)
{
	struct ask a = {.as = as, .change = {.kind = USER_DELETE, .name = text(name)}};
	return ask(&a);
}

static struct rule rule(const char *tenant, const char *who, const char *stream)
{
	return (struct rule){.tenant = text(tenant),
		.principal = PRINCIPAL_USER,
		.who = text(who),
		.resource = RESOURCE_STREAM,
		.pattern = RULE_LITERAL,
		.name = text(stream),
		.host = text("*"),
		.action = ACTION_READ};
}

static enum err rules(const char *as, bool add_them, const struct rule *r, int count)
{
	struct ask a = {.as = as,
		.change = {.kind = add_them ? RULES_ADD : RULES_DELETE,
			.rules = r,
			.rule_count = count}};
	return ask(&a);
}

static enum err quota(const char *as, enum quota_kind kind, const char *name, int64_t bytes_in)
{
	struct ask a = {.as = as,
		.change = {.kind = QUOTA_SET,
			.quota = {.kind = kind,
				.name = text(name),
				.limit = {bytes_in, -1, -1, -1, -1, -1, -1, -1, -1, -1}}}};
	return ask(&a);
}

/* --- looking; the catalogue of the first loop, held */

static void look_run(void *arg)
{
	*(const struct catalog **)arg = catalog_hold(shard_catalog(world_shard(&w, 1)));
	sem_post(&w.done);
}

static const struct catalog *look(void)
{
	const struct catalog *c;
	world_call(&w, 1, look_run, (void *)&c);
	return c;
}

static int count_rules(const char *tenant)
{
	const struct catalog *c = look();
	struct bytes t = tenant != NULL ? text(tenant) : text("");
	struct rule r;
	int count = 0;
	for (int at = 0; rights_rule_next(c, &at, tenant != NULL ? &t : NULL, &r);)
		count++;
	catalog_release(c);
	return count;
}

/* Names of users, or tenants, one after the other. */
static const char *list_users(const char *tenant)
{
	static char out[400];
	const struct catalog *c = look();
	struct bytes t = tenant != NULL ? text(tenant) : text("");
	struct user_doc u;
	int len = 0;
	out[0] = 0;
	for (int at = 0; rights_user_next(c, &at, tenant != NULL ? &t : NULL, &u);)
		len += snprintf(out + len, sizeof out - (size_t)len, "%.*s ", (int)u.name.len,
			(const char *)u.name.at);
	catalog_release(c);
	return out;
}

static const char *list_tenants(void)
{
	static char out[400];
	const struct catalog *c = look();
	struct bytes t = text("");
	int len = 0;
	out[0] = 0;
	for (int at = 0; rights_tenant_next(c, &at, &t);)
		len += snprintf(out + len, sizeof out - (size_t)len, "[%.*s]", (int)t.len,
			t.len > 0 ? (const char *)t.at : "");
	catalog_release(c);
	return out;
}

/* --- tests */

START_TEST(users_come_and_are_changed_and_go)
{
	const struct catalog *c;
	struct user_doc u;
	ck_assert_int_eq(add(NULL, "root", "", "admin"), OK);
	ck_assert_int_eq(add(NULL, "bob", "acme", "ops"), OK);
	ck_assert_int_eq(add(NULL, "bob", "", ""), ERR_EXISTS); /* in whatever tenant */
	c = look();
	ck_assert(rights_any_user(c));
	ck_assert(rights_user(c, text("bob"), &u));
	ck_assert(bytes_equal(u.tenant, text("acme")));
	ck_assert_int_eq(u.secret_count, SECRET_KINDS);
	ck_assert(secret_check(&u, text("secret")));
	ck_assert(!u.disabled && u.created_ms > 0);
	ck_assert_int_eq(u.role_count, 1);
	ck_assert(!rights_user(c, text("bo"), &u));
	catalog_release(c);
	ck_assert_int_eq(disable("bob", true), OK);
	ck_assert_int_eq(set_role(NULL, "bob", "admin"), OK);
	ck_assert_int_eq(set_password(NULL, "bob", "other"), OK);
	c = look();
	ck_assert(rights_user(c, text("bob"), &u));
	ck_assert(u.disabled);
	ck_assert(bytes_equal(u.roles[0], text("admin")));
	ck_assert(secret_check(&u, text("other")));
	ck_assert(!secret_check(&u, text("secret")));
	ck_assert(bytes_equal(u.tenant, text("acme")));
	catalog_release(c);
	ck_assert_int_eq(set_role(NULL, "nobody", "x"), ERR_NOTFOUND);
	ck_assert_int_eq(delete_user(NULL, "nobody"), ERR_NOTFOUND);
	ck_assert_str_eq(list_users(NULL), "bob root ");
	ck_assert_str_eq(list_users("acme"), "bob ");
	ck_assert_str_eq(list_users(""), "root ");
	ck_assert_int_eq(delete_user(NULL, "bob"), OK);
	ck_assert_str_eq(list_users(NULL), "root ");
	ck_assert_str_eq(list_users("acme"), "");
}
END_TEST

START_TEST(what_is_not_valid_is_refused_with_a_reason)
{
	struct bytes twice[] = {text("a"), text("a")}, long_password;
	static char many[1025];
	struct ask a = {
		.change = {.kind = USER_ADD, .name = text("x"), .roles = twice, .role_count = 2}};
	ck_assert_int_eq(ask(&a), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "", "", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "a:b", "", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "*", "", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "ANONYMOUS", "", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "x", "Acme", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "x", "default", ""), ERR_INVALID);
	ck_assert_int_eq(add(NULL, "x", "", "No"), ERR_INVALID);
	ck_assert_int_eq(set_password(NULL, "x", ""), ERR_INVALID);
	memset(many, 'x', sizeof many);
	long_password = bytes_of(many, sizeof many);
	a.change = (struct rights_change){
		.kind = USER_ADD, .name = text("x"), .password = &long_password};
	ck_assert_int_eq(ask(&a), ERR_INVALID);
	struct rule r = rule("", "bob", "a/b");
	ck_assert_int_eq(rules(NULL, true, &r, 1), ERR_INVALID);
	ck_assert_int_eq(quota(NULL, QUOTA_USER, "bob", 0), ERR_INVALID);
	ck_assert_str_eq(list_users(NULL), "");
	/* A check finds it out, too, and changes nothing when all is well. */
	a.change = (struct rights_change){.kind = USER_ADD, .name = text("x"), .check_only = true};
	ck_assert_int_eq(ask(&a), OK);
	ck_assert_str_eq(list_users(NULL), "");
}
END_TEST

static int64_t process_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is only tried costs nothing slow: everybody may try to change its own password. */
START_TEST(a_password_that_is_tried_is_not_hashed)
{
	struct bytes password = text("other");
	ck_assert_int_eq(add(NULL, "bob", "", ""), OK);
	int64_t began = process_ms();
	ck_assert_int_eq(set_password("bob", "bob", "other"), OK);
	int64_t one = process_ms() - began;
	began = process_ms();
	for (int i = 0; i < 20; i++) {
		struct ask a = {.as = "bob",
			.change = {.kind = USER_ALTER,
				.name = text("bob"),
				.password = &password,
				.check_only = true}};
		ck_assert_int_eq(ask(&a), OK);
	}
	ck_assert_int_lt(process_ms() - began, 10 * one + 5);
}
END_TEST

START_TEST(somebody_is_left_to_administer_the_cluster)
{
	ck_assert_int_eq(add(NULL, "root", "", "admin"), OK);
	ck_assert_int_eq(add(NULL, "bob", "", "ops"), OK);
	ck_assert_int_eq(add(NULL, "carl", "acme", "admin"), OK); /* not of the cluster */
	ck_assert_int_eq(delete_user(NULL, "root"), ERR_CONFLICT);
	ck_assert_int_eq(disable("root", true), ERR_CONFLICT);
	ck_assert_int_eq(set_role(NULL, "root", "ops"), ERR_CONFLICT);
	ck_assert_int_eq(set_password(NULL, "root", "new"), OK);
	ck_assert_int_eq(set_role(NULL, "bob", "admin"), OK);
	ck_assert_int_eq(disable("root", true), OK);
	ck_assert_int_eq(delete_user(NULL, "bob"), ERR_CONFLICT); /* one that is disabled is none */
	ck_assert_int_eq(disable("root", false), OK);
	ck_assert_int_eq(delete_user(NULL, "bob"), OK);
	ck_assert_int_eq(delete_user(NULL, "carl"), OK);
	ck_assert_int_eq(delete_user(NULL, "root"), OK); /* the very last user may go */
	ck_assert_str_eq(list_users(NULL), "");
}
END_TEST

/* Two at the same time: each sees another one when it looks. */
struct pair {
	struct ask a[2];
	_Atomic int left;
};
static struct pair pair;

static void pair_done(struct rights_change *c)
{
	(void)c;
	if (atomic_fetch_sub(&pair.left, 1) == 1)
		sem_post(&w.done);
}
static void pair_run(void *arg)
{
	struct ask *a = arg;
	a->change.shard = world_shard(&w, a->loop);
	a->change.done = pair_done;
	rights_change(&a->change);
}
static void run_pair(void)
{
	atomic_store(&pair.left, 2);
	for (int i = 0; i < 2; i++)
		loop_call(loops_at(w.loops, pair.a[i].loop), pair_run, &pair.a[i]);
	while (sem_wait(&w.done) != 0)
		;
}

START_TEST(of_two_that_go_at_a_time_one_stays)
{
	for (int round = 0; round < 10; round++) {
		ck_assert_int_eq(add(NULL, "x", "", "ops"), OK);
		ck_assert_int_eq(add(NULL, "a", "", "admin"), OK);
		ck_assert_int_eq(add(NULL, "b", "", "admin"), OK);
		for (int i = 0; i < 2; i++)
			pair.a[i] = (struct ask){.loop = i,
				.change = {.kind = USER_DELETE, .name = text(i == 0 ? "a" : "b")}};
		run_pair();
		enum err one = pair.a[0].change.err, two = pair.a[1].change.err;
		ck_assert_int_eq((one == OK) + (two == OK), 1);
		ck_assert_int_eq((one == ERR_CONFLICT) + (two == ERR_CONFLICT), 1);
		ck_assert_int_eq(delete_user(NULL, "x"), OK);
		ck_assert_int_eq(delete_user(NULL, one == OK ? "b" : "a"), OK);
	}
}
END_TEST

START_TEST(changes_of_one_user_at_a_time_are_all_made)
{
	struct bytes roles[] = {text("ops")};
	struct user_doc u;
	ck_assert_int_eq(add(NULL, "bob", "", ""), OK);
	for (int round = 0; round < 10; round++) {
		bool on = round % 2 == 0;
		pair.a[0] = (struct ask){.loop = 0,
			.change = {.kind = USER_ALTER,
				.name = text("bob"),
				.roles = roles,
				.role_count = on}};
		pair.a[1] = (struct ask){.loop = 1,
			.change = {.kind = USER_ALTER,
				.name = text("bob"),
				.able = on ? USER_DISABLE : USER_ENABLE}};
		run_pair();
		ck_assert_int_eq(pair.a[0].change.err, OK);
		ck_assert_int_eq(pair.a[1].change.err, OK);
		const struct catalog *c = look();
		ck_assert(rights_user(c, text("bob"), &u));
		ck_assert_int_eq(u.role_count, on);
		ck_assert_int_eq(u.disabled, on);
		catalog_release(c);
	}
}
END_TEST

START_TEST(rules_and_quotas_go_with_their_user)
{
	struct rule r[] = {rule("acme", "bob", "a"), rule("acme", "bob", "b"),
		rule("acme", "bobby", "a"), rule("", "bob", "a"), rule("acme", "*", "a")};
	const struct catalog *c;
	struct quota_doc q;
	ck_assert_int_eq(add(NULL, "root", "", "admin"), OK);
	ck_assert_int_eq(add(NULL, "bob", "acme", ""), OK);
	ck_assert_int_eq(rules(NULL, true, r, 5), OK);
	ck_assert_int_eq(rules(NULL, true, r, 3), OK); /* they are there */
	ck_assert_int_eq(count_rules(NULL), 5);
	ck_assert_int_eq(count_rules("acme"), 4);
	ck_assert_int_eq(count_rules(""), 1);
	ck_assert_int_eq(rules(NULL, false, &r[4], 1), OK);
	ck_assert_int_eq(rules(NULL, false, &r[4], 1), OK); /* it is gone */
	ck_assert_int_eq(count_rules("acme"), 3);
	ck_assert_int_eq(quota(NULL, QUOTA_USER, "bob", 1000), OK);
	ck_assert_int_eq(quota(NULL, QUOTA_USER, "", 5000), OK);
	ck_assert_int_eq(quota(NULL, QUOTA_TENANT, "default", 7000), OK);
	c = look();
	ck_assert(rights_quota(c, QUOTA_USER, text("bob"), &q));
	ck_assert_int_eq(q.limit[QUOTA_BYTES_IN], 1000);
	ck_assert(rights_quota(c, QUOTA_USER, text(""), &q));
	ck_assert(rights_quota(c, QUOTA_TENANT, text("default"), &q));
	ck_assert(!rights_quota(c, QUOTA_TENANT, text("acme"), &q));
	int count = 0;
	for (int at = 0; rights_quota_next(c, &at, &q);)
		count++;
	ck_assert_int_eq(count, 3);
	catalog_release(c);
	ck_assert_int_eq(quota(NULL, QUOTA_TENANT, "default", -1), OK); /* none left: it goes */
	ck_assert_int_eq(delete_user(NULL, "bob"), OK);
	c = look();
	ck_assert(!rights_quota(c, QUOTA_USER, text("bob"), &q));
	ck_assert(rights_quota(c, QUOTA_USER, text(""), &q));
	ck_assert(!rights_quota(c, QUOTA_TENANT, text("default"), &q));
	catalog_release(c);
	ck_assert_int_eq(count_rules("acme"), 1);
	ck_assert_int_eq(count_rules(""), 1); /* of the default tenant: not this user's */
}
END_TEST

START_TEST(many_rules_at_once_are_bounded)
{
	static struct rule many[CATALOG_CHANGE_DOCS_MAX + 1];
	static char names[CATALOG_CHANGE_DOCS_MAX + 1][16];
	for (int i = 0; i <= CATALOG_CHANGE_DOCS_MAX; i++) {
		snprintf(names[i], sizeof names[i], "s%d", i);
		many[i] = rule("", "bob", names[i]);
	}
	ck_assert_int_eq(add(NULL, "bob", "", ""), OK);
	ck_assert_int_eq(rules(NULL, true, many, CATALOG_CHANGE_DOCS_MAX + 1), ERR_TOOBIG);
	ck_assert_int_eq(rules(NULL, true, many, CATALOG_CHANGE_DOCS_MAX), OK);
	ck_assert_int_eq(count_rules(""), CATALOG_CHANGE_DOCS_MAX);
}
END_TEST

/* More than one change takes; what is of others stays. */
START_TEST(a_user_with_many_rules_goes)
{
	static struct rule many[CATALOG_CHANGE_DOCS_MAX];
	static char names[CATALOG_CHANGE_DOCS_MAX][32];
	struct rule others[] = {rule("acme", "bobby", "a"), rule("acme", "bo", "a"),
		rule("", "bob", "a"), rule("acme", "*", "a")};
	ck_assert_int_eq(add(NULL, "root", "", "admin"), OK);
	ck_assert_int_eq(add(NULL, "bob", "acme", ""), OK);
	ck_assert_int_eq(add(NULL, "boss", "acme", "admin"), OK);
	ck_assert_int_eq(rules(NULL, true, others, 4), OK);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CATALOG_CHANGE_DOCS_MAX; i++) {
			snprintf(names[i], sizeof names[i], "s%d-%d", round, i);
			many[i] = rule("acme", "bob", names[i]);
		}
		ck_assert_int_eq(rules(NULL, true, many, CATALOG_CHANGE_DOCS_MAX), OK);
	}
	struct ask dry = {.change = {.kind = USER_DELETE, .name = text("bob"), .check_only = true}};
	ck_assert_int_eq(ask(&dry), OK);
	ck_assert_int_eq(count_rules("acme"), 3 * CATALOG_CHANGE_DOCS_MAX + 3);
	ck_assert_int_eq(delete_user("root", "bob"), OK);
	ck_assert_int_eq(count_rules("acme"), 3);
	ck_assert_int_eq(count_rules(""), 1);
	ck_assert_str_eq(list_users("acme"), "boss ");
	/* A change that did not come to its end is asked for once more. */
	ck_assert_int_eq(rules(NULL, true, many, 10), OK);
	struct ask again = {.as = "boss",
		.change = {.kind = USER_DELETE, .name = text("bob"), .tenant = text("acme")}};
	ck_assert_int_eq(ask(&again), OK);
	ck_assert_int_eq(count_rules("acme"), 3);
	ck_assert_int_eq(ask(&again), ERR_NOTFOUND);
	/* Not by who is of another tenant. */
	again.change.tenant = text("");
	ck_assert_int_eq(ask(&again), ERR_NOTFOUND);
	ck_assert_int_eq(count_rules(""), 1);
}
END_TEST

static struct quota_doc one_limit(enum quota_what what, int64_t limit)
{
	struct quota_doc q = {.kind = QUOTA_USER, .name = text("bob")};
	for (int i = 0; i < QUOTA_WHATS; i++)
		q.limit[i] = i == (int)what ? limit : QUOTA_AS_IS;
	return q;
}

START_TEST(limits_of_one_quota_at_a_time_are_all_set)
{
	struct quota_doc q;
	for (int round = 0; round < 10; round++) {
		pair.a[0] = (struct ask){.loop = 0,
			.change = {.kind = QUOTA_SET,
				.quota = one_limit(QUOTA_BYTES_IN, 1000 + round)}};
		pair.a[1] = (struct ask){.loop = 1,
			.change = {.kind = QUOTA_SET,
				.quota = one_limit(QUOTA_MESSAGES_OUT, 2000 + round)}};
		run_pair();
		ck_assert_int_eq(pair.a[0].change.err, OK);
		ck_assert_int_eq(pair.a[1].change.err, OK);
		const struct catalog *c = look();
		ck_assert(rights_quota(c, QUOTA_USER, text("bob"), &q));
		ck_assert_int_eq(q.limit[QUOTA_BYTES_IN], 1000 + round);
		ck_assert_int_eq(q.limit[QUOTA_MESSAGES_OUT], 2000 + round);
		ck_assert_int_eq(q.limit[QUOTA_CONNECTIONS], -1);
		catalog_release(c);
	}
	struct ask a = {.change = {.kind = QUOTA_SET, .quota = one_limit(QUOTA_BYTES_IN, -1)}};
	ck_assert_int_eq(ask(&a), OK);
	a.change.quota = one_limit(QUOTA_MESSAGES_OUT, -1);
	ck_assert_int_eq(ask(&a), OK);
	const struct catalog *c = look();
	ck_assert(!rights_quota(c, QUOTA_USER, text("bob"), &q));
	catalog_release(c);
}
END_TEST

static enum err limit(const char *tenant, enum quota_what what, int64_t most)
{
	struct ask a = {.change = {.kind = QUOTA_SET,
				.quota = {.kind = QUOTA_TENANT, .name = text(tenant)}}};
	for (int i = 0; i < QUOTA_WHATS; i++)
		a.change.quota.limit[i] = i == (int)what ? most : -1;
	return ask(&a);
}

START_TEST(a_tenant_has_no_more_users_and_rules_than_it_may)
{
	struct rule r[] = {rule("acme", "a", "x"), rule("acme", "a", "y"), rule("acme", "a", "z"),
		rule("other", "b", "x"), rule("", "c", "x")};
	ck_assert_int_eq(limit("acme", QUOTA_USERS, 2), OK);
	ck_assert_int_eq(add(NULL, "a", "acme", "admin"), OK);
	ck_assert_int_eq(add("a", "a2", "acme", ""), OK);
	ck_assert_int_eq(add("a", "a3", "acme", ""), ERR_QUOTA);
	ck_assert_int_eq(add(NULL, "a3", "acme", ""), ERR_QUOTA); /* whoever asks */
	ck_assert_int_eq(add(NULL, "b", "other", ""), OK);
	ck_assert_int_eq(add(NULL, "acme", "", ""), OK);
	ck_assert_int_eq(set_role(NULL, "a2", "ops"), OK); /* nothing more */
	ck_assert_int_eq(delete_user("a", "a2"), OK);
	ck_assert_int_eq(add("a", "a3", "acme", ""), OK);
	ck_assert_int_eq(limit("acme", QUOTA_RULES, 2), OK);
	ck_assert_int_eq(rules("a", true, r, 3), ERR_QUOTA);
	ck_assert_int_eq(count_rules("acme"), 0); /* all or none */
	ck_assert_int_eq(rules(NULL, true, r + 1, 4), OK);
	ck_assert_int_eq(rules("a", true, r, 1), ERR_QUOTA);
	ck_assert_int_eq(rules("a", true, r + 1, 2), OK); /* they are there */
	ck_assert_int_eq(rules("a", false, r + 1, 1), OK);
	ck_assert_int_eq(rules("a", true, r, 1), OK);
	ck_assert_int_eq(limit("", QUOTA_USERS, 1), OK); /* of those without a quota */
	ck_assert_int_eq(add(NULL, "b2", "other", ""), ERR_QUOTA);
	ck_assert_int_eq(add(NULL, "d", "acme", ""), OK); /* its own has no such limit now */
	ck_assert_int_eq(limit("other", QUOTA_USERS, 0), OK);
	ck_assert_int_eq(delete_user(NULL, "b"), OK);
	ck_assert_int_eq(add(NULL, "b", "other", ""), ERR_QUOTA);
	struct ask a = {
		.change = {.kind = QUOTA_SET, .quota = {.kind = QUOTA_USER, .name = text("a")}}};
	a.change.quota.limit[QUOTA_STREAMS] = 1; /* users have none of their own */
	ck_assert_int_eq(ask(&a), ERR_INVALID);
}
END_TEST

START_TEST(of_two_that_would_be_one_too_many_one_is)
{
	ck_assert_int_eq(limit("acme", QUOTA_USERS, 1), OK);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 2; i++)
			pair.a[i] = (struct ask){.loop = i,
				.change = {.kind = USER_ADD,
					.name = text(i == 0 ? "a" : "b"),
					.tenant = text("acme")}};
		run_pair();
		enum err one = pair.a[0].change.err, two = pair.a[1].change.err;
		ck_assert_int_eq((one == OK) + (two == OK), 1);
		ck_assert_int_eq((one == ERR_QUOTA) + (two == ERR_QUOTA), 1);
		ck_assert_int_eq(delete_user(NULL, one == OK ? "a" : "b"), OK);
	}
}
END_TEST

START_TEST(who_is_of_a_tenant_changes_that_only)
{
	struct rule own = rule("acme", "bob", "a"), other = rule("", "bob", "a");
	ck_assert_int_eq(add(NULL, "root", "", "admin"), OK);
	ck_assert_int_eq(add("root", "boss", "acme", "admin"), OK);
	ck_assert_int_eq(add("root", "plain", "", "ops"), OK);
	ck_assert_int_eq(add("boss", "bob", "acme", ""), OK);
	ck_assert_int_eq(add("boss", "ann", "acme", "admin"), OK);
	ck_assert_int_eq(add("boss", "eve", "", ""), ERR_DENIED);
	ck_assert_int_eq(add("boss", "eve", "other", ""), ERR_DENIED);
	ck_assert_int_eq(set_password("boss", "bob", "new"), OK);
	ck_assert_int_eq(set_password("boss", "root", "new"), ERR_NOTFOUND);
	ck_assert_int_eq(delete_user("boss", "plain"), ERR_NOTFOUND);
	ck_assert_int_eq(rules("boss", true, &own, 1), OK);
	ck_assert_int_eq(rules("boss", true, &other, 1), ERR_DENIED);
	ck_assert_int_eq(rules("boss", false, &other, 1), ERR_DENIED);
	ck_assert_int_eq(quota("boss", QUOTA_USER, "bob", 5), OK);
	ck_assert_int_eq(quota("boss", QUOTA_USER, "root", 5), ERR_NOTFOUND);
	ck_assert_int_eq(quota("boss", QUOTA_USER, "", 5), ERR_DENIED);
	ck_assert_int_eq(quota("boss", QUOTA_TENANT, "acme", 5), ERR_DENIED);
	ck_assert_int_eq(quota("root", QUOTA_TENANT, "acme", 5), OK);
	/* Who is none makes no administrators, and changes none. */
	ck_assert_int_eq(add("plain", "eve", "", "admin"), ERR_DENIED);
	ck_assert_int_eq(set_role("plain", "plain", "admin"), ERR_DENIED);
	ck_assert_int_eq(set_password("plain", "root", "mine"), ERR_DENIED);
	ck_assert_int_eq(delete_user("plain", "root"), ERR_DENIED);
	ck_assert_int_eq(add("plain", "eve", "", ""), OK);
	ck_assert_int_eq(delete_user("boss", "ann"), OK);
	ck_assert_int_eq(delete_user("boss", "boss"), OK); /* of a tenant the last may go */
}
END_TEST

START_TEST(secrets_made_by_the_client_replace_what_knew_the_old_password)
{
	uint8_t keys[64] = {7};
	struct secret s = {.kind = SECRET_SCRAM_256,
		.iterations = 4096,
		.salt = text("salt"),
		.stored_key = bytes_of(keys, 32),
		.server_key = bytes_of(keys, 32)};
	struct ask a = {.change = {.kind = USER_ALTER, .name = text("bob"), .secret = &s}};
	struct user_doc u;
	ck_assert_int_eq(add(NULL, "bob", "", ""), OK);
	ck_assert_int_eq(ask(&a), OK);
	const struct catalog *c = look();
	ck_assert(rights_user(c, text("bob"), &u));
	ck_assert_ptr_null(user_secret(&u, SECRET_CRYPT));
	ck_assert(bytes_equal(user_secret(&u, SECRET_SCRAM_256)->salt, text("salt")));
	ck_assert_ptr_nonnull(user_secret(&u, SECRET_SCRAM_512)); /* its own affair */
	ck_assert(!secret_check(&u, text("secret")) || user_secret(&u, SECRET_SCRAM_512) != NULL);
	catalog_release(c);
	a.change = (struct rights_change){
		.kind = USER_ALTER, .name = text("bob"), .drop = SECRET_SCRAM_512};
	ck_assert_int_eq(ask(&a), OK);
	ck_assert_int_eq(ask(&a), ERR_NOTFOUND);
	s.iterations = 4095;
	a.change = (struct rights_change){.kind = USER_ALTER, .name = text("bob"), .secret = &s};
	ck_assert_int_eq(ask(&a), ERR_INVALID);
	s.iterations = 4096;
	s.stored_key.len = 31;
	ck_assert_int_eq(ask(&a), ERR_INVALID);
	s.stored_key.len = 32;
	s.kind = SECRET_CRYPT;
	ck_assert_int_eq(ask(&a), ERR_UNSUPPORTED);
}
END_TEST

START_TEST(tenants_are_those_of_users_and_streams)
{
	static const char *const streams[] = {"b-c/x", "b/x", "bare", "zz/__y"};
	ck_assert_str_eq(list_tenants(), "[]");
	for (int i = 0; i < 4; i++) {
		struct world_change x = {.op = {.kind = META_CREATE_STREAM,
						 .name = streams[i],
						 .partitions = 1,
						 .replicas = 1}};
		ck_assert_int_eq(world_change(&w, &x), OK);
	}
	ck_assert_int_eq(add(NULL, "root", "", ""), OK);
	ck_assert_int_eq(add(NULL, "u1", "b", ""), OK);
	ck_assert_int_eq(add(NULL, "u2", "a", ""), OK);
	ck_assert_int_eq(add(NULL, "u3", "b-a", ""), OK);
	ck_assert_int_eq(add(NULL, "u4", "zzz", ""), OK);
	ck_assert_str_eq(list_tenants(), "[][a][b-a][b-c][b][zz][zzz]");
	const struct catalog *c = look();
	ck_assert(rights_tenant_exists(c, text("")));
	ck_assert(rights_tenant_exists(c, text("a")));
	ck_assert(rights_tenant_exists(c, text("zz")));
	ck_assert(!rights_tenant_exists(c, text("z")));
	ck_assert(!rights_tenant_exists(c, text("bare")));
	catalog_release(c);
	ck_assert_int_eq(delete_user(NULL, "u2"), OK);
	ck_assert_str_eq(list_tenants(), "[][b-a][b-c][b][zz][zzz]");
}
END_TEST

/* --- the first administrator */

static void bootstrap_with(char *configured)
{
	rights_bootstrap(w.broker, configured);
	for (size_t i = 0; configured[i] != 0; i++)
		ck_abort_msg("not wiped");
}

/* While nothing can come of it yet. */
static void bootstrap_begins(void *configured)
{
	bootstrap_with(configured);
	ck_assert(!broker_ready(w.broker));
}

START_TEST(the_first_administrator_is_made_once)
{
	char first[] = "first:pass:word", second[] = "second:x";
	struct user_doc u;
	loops_stand_still(w.loops, bootstrap_begins, first);
	for (int i = 0; i < 2000 && !broker_ready(w.broker); i++)
		usleep(5000);
	ck_assert_str_eq(list_users(NULL), "first ");
	const struct catalog *c = look();
	ck_assert(rights_user(c, text("first"), &u));
	ck_assert(secret_check(&u, text("pass:word")));
	ck_assert(bytes_equal(u.roles[0], text("admin")));
	catalog_release(c);
	rights_bootstrap_fini(w.broker);
	bootstrap_with(second);
	for (int i = 0; i < 2000 && !broker_ready(w.broker); i++)
		usleep(5000);
	ck_assert(broker_ready(w.broker));
	usleep(100000);
	ck_assert_str_eq(list_users(NULL), "first ");
	struct bytes roles[] = {text("admin")};
	struct ask a = {.change = {.kind = USER_ADD,
				.first = true,
				.name = text("third"),
				.roles = roles,
				.role_count = 1}};
	ck_assert_int_eq(ask(&a), ERR_CONFLICT);
}
END_TEST

START_TEST(of_two_first_administrators_one_is_made)
{
	struct bytes roles[] = {text("admin")};
	for (int i = 0; i < 2; i++)
		pair.a[i] = (struct ask){.loop = i,
			.change = {.kind = USER_ADD,
				.first = true,
				.name = text(i == 0 ? "a" : "b"),
				.roles = roles,
				.role_count = 1}};
	run_pair();
	ck_assert_int_eq((pair.a[0].change.err == OK) + (pair.a[1].change.err == OK), 1);
	ck_assert_int_eq(
		(pair.a[0].change.err == ERR_CONFLICT) + (pair.a[1].change.err == ERR_CONFLICT), 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rights_admin");
	TCase *tc = tcase_create("changes");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, users_come_and_are_changed_and_go);
	tcase_add_test(tc, what_is_not_valid_is_refused_with_a_reason);
	tcase_add_test(tc, a_password_that_is_tried_is_not_hashed);
	tcase_add_test(tc, somebody_is_left_to_administer_the_cluster);
	tcase_add_test(tc, of_two_that_go_at_a_time_one_stays);
	tcase_add_test(tc, changes_of_one_user_at_a_time_are_all_made);
	tcase_add_test(tc, rules_and_quotas_go_with_their_user);
	tcase_add_test(tc, many_rules_at_once_are_bounded);
	tcase_add_test(tc, a_user_with_many_rules_goes);
	tcase_add_test(tc, limits_of_one_quota_at_a_time_are_all_set);
	tcase_add_test(tc, a_tenant_has_no_more_users_and_rules_than_it_may);
	tcase_add_test(tc, of_two_that_would_be_one_too_many_one_is);
	tcase_add_test(tc, who_is_of_a_tenant_changes_that_only);
	tcase_add_test(tc, secrets_made_by_the_client_replace_what_knew_the_old_password);
	tcase_add_test(tc, tenants_are_those_of_users_and_streams);
	tcase_add_test(tc, the_first_administrator_is_made_once);
	tcase_add_test(tc, of_two_first_administrators_one_is_made);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
