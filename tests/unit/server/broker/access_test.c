/* Accesses on a node of two loops, as documents change under them. */
#include "server/broker/tenant.h"
#include "tests/unit/server/broker/world_rights.h"

static const char here[] = "127.0.0.1:1", there[] = "10.0.0.9:77";

struct held {
	struct access_holder h;
	_Atomic int changed, gone;
	bool let_go; /* when told that it is gone */
};
static struct held held[600];

static struct bytes B(const char *text) {
	return bytes_text(text);
}

static void
changed(struct access_holder *h, bool gone)
{
	struct held *x = list_entry(h, struct held, h);
	if (gone)
		x->gone++;
	else
		x->changed++;
	if (gone && x->let_go)
		access_release(h);
}

static struct shard *shard(void)
{
	return broker_shard(w.broker, loop_here());
}

/* Takes the share. */
static void hold(struct held *x, struct access *a)
{
	memset(x, 0, sizeof *x);
	x->h.changed = changed;
	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(access_hold(&x->h, a), OK);
}

static void await(_Atomic int *count, int n)
{
	for (int i = 0; i < 10000 && atomic_load(count) < n; i++)
		usleep(2000);
	ck_assert_int_eq(atomic_load(count), n);
}

static void setup(void)
{
	world_init(&w);
	world_set(&w, "auth.hashers", "1");
	world_start(&w, 2);
}
static void teardown(void)
{
	world_stop(&w);
}

static bool may(struct access *a, enum action action, const char *stream)
{
	return access_may(a, action, RESOURCE_STREAM, B(stream));
}

static void release(void)
{
	access_release(&held[0].h);
	access_release(&held[0].h); /* not held: nothing */
}

/* ---- without users */

static void nobody_comes(void)
{
	struct access *a = access_anonymous(shard(), here);
	struct bytes name;
	hold(&held[0], a);
	ck_assert(access_admin(a) && access_cluster_admin(a));
	ck_assert(may(a, ACTION_WRITE, "x"));
	ck_assert(access_may_any(a, ACTION_WRITE, RESOURCE_STREAM));
	ck_assert(access_topic(a, ACTION_WRITE, B("a/b"), B("c")));
	ck_assert_int_eq(access_filter(a, B("#"), B("c")), ACCESS_ALL);
	ck_assert(bytes_equal(access_user(a), B("ANONYMOUS")));
	ck_assert(!access_limited(a) && access_charge_in(a, 1, 1 << 30) == 0);
	const struct stream *s = access_stream(a, B("mqtt"));
	ck_assert_ptr_nonnull(s);
	ck_assert(access_sees(a, s, &name) && bytes_equal(name, B("mqtt")));
	ck_assert_ptr_null(access_stream(a, B("none")));
	ck_assert_ptr_null(access_stream(a, B("../x")));
}

START_TEST(without_users_everything_is_allowed)
{
	on_loop(0, nobody_comes);
	on_loop(0, release);
}
END_TEST

static void who_came_is_gone(void)
{
	struct access *a = held[0].h.access;
	ck_assert(!access_admin(a) && !may(a, ACTION_READ, "x"));
	ck_assert(!access_topic(a, ACTION_READ, B("a"), B("c")));
	ck_assert_int_eq(access_filter(a, B("#"), B("c")), ACCESS_NONE);
	struct access *again = access_anonymous(shard(), here);
	ck_assert_ptr_ne(again, a);
	ck_assert(!access_admin(again));
	access_unref(again);
}

START_TEST(the_first_user_ends_what_nobody_had)
{
	on_loop(0, nobody_comes);
	put_user_named("root", "", "admin");
	on_loop(0, who_came_is_gone);
	await(&held[0].gone, 1);
	ck_assert_int_eq(held[0].changed, 0);
	on_loop(0, release);
	for (int i = 0; i < 10000 && !w.broker->rights->shards[0].any_user; i++)
		usleep(1000);
	/* When the last one is deleted everybody may everything again. */
	drop_user("root");
	on_loop(0, nobody_comes);
	on_loop(0, release);
}
END_TEST

/* ---- rules */

static void u_comes(void)
{
	hold(&held[0], access_of_user(shard(), B("u"), there));
	ck_assert(!may(held[0].h.access, ACTION_READ, "x"));
	ck_assert_ptr_null(access_of_user(shard(), B("v"), there));
	ck_assert_ptr_null(access_of_user(shard(), B(""), there));
	struct access *again = access_of_user(shard(), B("u"), "10.0.0.9:5");
	ck_assert_ptr_eq(again, held[0].h.access); /* shared */
	access_unref(again);
}
static void u_stays(void)
{
	hold(&held[0], access_of_user(shard(), B("u"), here));
}
static void apply_rows(void *arg)
{
	(void)arg;
	conf_apply(w.rows, false);
}
static bool answer;
static void ask_read_x(void)
{
	answer = may(held[0].h.access, ACTION_READ, "x");
}
static bool reads_x(void)
{
	on_loop(0, ask_read_x);
	return answer;
}

START_TEST(changes_are_in_force_and_told)
{
	struct rule own = rule_of("u", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x");
	struct rule every = rule_of("*", true, ACTION_READ, RESOURCE_STREAM, RULE_PREFIXED, "x");
	struct rule role = rule_of("@ops", true, ACTION_ALL, RESOURCE_STREAM, RULE_LITERAL, "*");
	struct rule other = rule_of("v", true, ACTION_ALL, RESOURCE_STREAM, RULE_LITERAL, "*");
	put_user_named("u", "", NULL);
	on_loop(0, u_comes);
	int told = 0;
	put_rule(own, true);
	ck_assert(reads_x());
	await(&held[0].changed, ++told);
	put_rule(other, true); /* somebody else's */
	put_rule(role, true);  /* not a role of u yet */
	ck_assert(reads_x());
	put_rule(every, true);
	ck_assert(!reads_x());
	await(&held[0].changed, ++told);
	put_rule(every, false);
	ck_assert(reads_x());
	await(&held[0].changed, ++told);
	put_user_named("u", "", "ops");
	ck_assert(!reads_x());
	await(&held[0].changed, ++told);
	put_rule(role, false);
	ck_assert(reads_x());
	await(&held[0].changed, ++told);
	put_rule(own, false);
	ck_assert(!reads_x());
	await(&held[0].changed, ++told);
	put_user_named("u", "", "admin");
	ck_assert(reads_x());
	await(&held[0].changed, ++told);
	/* Administrators are above rules. */
	put_rule(rule_of("u", true, ACTION_ALL, RESOURCE_STREAM, RULE_LITERAL, "*"), true);
	ck_assert(reads_x());
	ck_assert_int_eq(held[0].gone, 0);
	on_loop(0, release);
}
END_TEST

/* ---- who is gone */

static struct user_doc loser(int what)
{
	struct user_doc u = {.name = B("u"), .secret_count = 1};
	u.secrets[0] = (struct secret){.kind = SECRET_CRYPT, .crypt = B("$y$one")};
	switch (what) {
	case 0: u.disabled = true; break;
	case 1: u.secrets[0].crypt = B("$y$two"); break;
	case 2: u.tenant = B("acme"); break;
	case 3: u.created_ms = 5; break; /* deleted and added again */
	case 4: u.secret_count = 0; break;
	default: break;
	}
	return u;
}

static void u_is_gone(void)
{
	ck_assert(!may(held[0].h.access, ACTION_READ, "x"));
	ck_assert(!access_admin(held[0].h.access));
}

START_TEST(who_has_lost_its_login_is_gone)
{
	struct user_doc before = loser(-1), after = loser(_i);
	put_rule(rule_of("u", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x"), true);
	put_user_named("root", "", "admin");
	put_user(&before);
	on_loop(0, u_stays);
	ck_assert(reads_x());
	if (_i == 5)
		drop_user("u");
	else
		put_user(&after);
	on_loop(0, u_is_gone);
	await(&held[0].gone, 1);
	on_loop(0, release);
}
END_TEST

START_TEST(who_is_as_before_stays)
{
	struct user_doc before = loser(-1), after = loser(-1);
	after.roles[after.role_count++] = B("x");
	put_user(&before);
	on_loop(0, u_stays);
	put_user(&after);
	await(&held[0].changed, 1);
	put_user_named("v", "", NULL);
	drop_user("v");
	ck_assert_int_eq(held[0].gone, 0);
	on_loop(0, release);
}
END_TEST

/* Many holders are told a part at a time; some let go when they are. */
static void many_come(void)
{
	for (int i = 0; i < 600; i++) {
		hold(&held[i], access_of_user(shard(), B("u"), there));
		held[i].let_go = i % 3 != 0;
	}
}
static void rest_goes(void)
{
	for (int i = 0; i < 600; i++)
		access_release(&held[i].h);
	ck_assert_int_eq((int)w.broker->rights->shards[1].accesses.count, 0);
	ck_assert(list_empty(&w.broker->rights->shards[1].all));
	ck_assert_int_eq((int)w.broker->rights->shards[1].grants.count, 0);
}

START_TEST(many_are_told)
{
	put_user_named("u", "", NULL);
	on_loop(1, many_come);
	put_rule(rule_of("u", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x"), true);
	put_rule(rule_of("u", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "y"), true);
	drop_user("u");
	for (int i = 0; i < 600; i++)
		await(&held[i].gone, 1);
	on_loop(1, rest_goes);
}
END_TEST

/* ---- hosts */

static bool from_here, from_there, from_six;
static void ask_hosts(void)
{
	struct access *a = access_of_user(shard(), B("u"), "127.0.0.1:5");
	struct access *b = access_of_user(shard(), B("u"), there);
	struct access *c = access_of_user(shard(), B("u"), "[::ffff:127.0.0.1]:9");
	from_here = may(a, ACTION_READ, "x");
	from_there = may(b, ACTION_READ, "x");
	from_six = may(c, ACTION_READ, "x");
	ck_assert_ptr_eq(a, c); /* the same address */
	access_unref(a);
	access_unref(b);
	access_unref(c);
}

START_TEST(rules_may_name_a_host)
{
	struct rule r = rule_of("u", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x");
	put_user_named("u", "", NULL);
	r.host = B("127.0.0.1");
	put_rule(r, true);
	on_loop(0, ask_hosts);
	ck_assert(from_here && !from_there && from_six);
	r.host = B("*");
	put_rule(r, true);
	on_loop(0, ask_hosts);
	ck_assert(from_here && from_there);
	r.host = B("10.0.0.9");
	r.deny = true;
	put_rule(r, true);
	on_loop(0, ask_hosts);
	ck_assert(from_here && !from_there);
}
END_TEST

/* ---- nobody, with users */

static struct access *nobody;
static void nobody_is_let_in(void)
{
	nobody = access_anonymous(shard(), there);
	hold(&held[0], nobody);
	ck_assert(!access_admin(nobody));
	ck_assert(may(nobody, ACTION_READ, "public") && !may(nobody, ACTION_READ, "x"));
}

START_TEST(nobody_has_rules_of_its_own)
{
	world_set(&w, "auth.anonymous", "on");
	loops_stand_still(w.loops, apply_rows, NULL);
	put_user_named("u", "", NULL);
	put_rule(rule_of("ANONYMOUS", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "public"),
		true);
	on_loop(0, nobody_is_let_in);
	put_rule(rule_of("*", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x"), true);
	ck_assert(reads_x());
	/* A reload lets nobody in any more. */
	world_set(&w, "auth.anonymous", "off");
	loops_stand_still(w.loops, apply_rows, NULL);
	await(&held[0].gone, 1);
	on_loop(0, release);
}
END_TEST

/* ---- tenants and the cluster */

static void tenants_ask(void)
{
	struct access *root = access_of_user(shard(), B("root"), here);
	struct access *boss = access_of_user(shard(), B("boss"), here);
	struct access *user = access_of_user(shard(), B("user"), here);
	struct access *in = access_in(root, B("acme"));
	struct bytes none = bytes_of(NULL, 0), name;
	ck_assert(access_admin(root) && access_cluster_admin(root));
	ck_assert(access_admin(boss) && !access_cluster_admin(boss));
	ck_assert(bytes_equal(access_tenant(boss), B("acme")));
	ck_assert(!access_admin(user));
	ck_assert(access_may(root, ACTION_ALTER, RESOURCE_CLUSTER, none));
	/* What is the cluster's is not a tenant's, whatever its own rules say. */
	ck_assert(!access_may(boss, ACTION_ALTER, RESOURCE_CLUSTER, none));
	ck_assert(!access_may(user, ACTION_ALTER, RESOURCE_CLUSTER, none));
	ck_assert(!access_may_any(user, ACTION_ALTER, RESOURCE_CLUSTER));
	ck_assert(access_may(boss, ACTION_CREATE, RESOURCE_CLUSTER, none));
	ck_assert(access_may(user, ACTION_CREATE, RESOURCE_CLUSTER, none));
	/* Rules of one tenant are nothing to another. */
	ck_assert(may(user, ACTION_READ, "x") && !may(user, ACTION_READ, "y"));
	ck_assert_ptr_nonnull(in);
	ck_assert(bytes_equal(access_tenant(in), B("acme")) && access_admin(in));
	ck_assert(access_cluster_admin(in) && may(in, ACTION_WRITE, "any"));
	ck_assert_ptr_null(access_in(boss, B("other")));
	ck_assert_ptr_null(access_in(user, bytes_of(NULL, 0)));
	ck_assert_ptr_null(access_stream(boss, B("mqtt")));
	ck_assert(!access_sees(boss, access_stream(root, B("mqtt")), &name));
	struct access *same = access_in(boss, B("acme"));
	ck_assert_ptr_eq(same, boss);
	struct access *all = access_all(shard(), B("acme"), "uid:0");
	ck_assert(access_admin(all) && access_cluster_admin(all));
	ck_assert(bytes_equal(access_tenant(all), B("acme")));
	struct access *drop[] = {root, boss, user, in, same, all};
	for (size_t i = 0; i < sizeof drop / sizeof drop[0]; i++)
		access_unref(drop[i]);
}

START_TEST(tenants_are_apart)
{
	struct rule r = rule_of("user", false, ACTION_READ, RESOURCE_STREAM, RULE_LITERAL, "x");
	put_user_named("root", "", "admin");
	put_user_named("boss", "acme", "admin");
	put_user_named("user", "acme", NULL);
	r.tenant = B("acme");
	put_rule(r, true);
	r.tenant = bytes_of(NULL, 0);
	r.name = B("y");
	put_rule(r, true);
	r = rule_of("user", false, ACTION_ALL, RESOURCE_CLUSTER, RULE_LITERAL, "kafka-cluster");
	r.tenant = B("acme");
	put_rule(r, true);
	on_loop(0, tenants_ask);
}
END_TEST

/* ---- the server's own */

static void user_asks_for_internal_streams(void)
{
	hold(&held[0], access_of_user(shard(), B("user"), here));
	struct access *a = held[0].h.access;
	ck_assert(may(a, ACTION_WRITE, "x") && access_may_create(a, B("x")));
	ck_assert(may(a, ACTION_WRITE, "_x") && access_may_create(a, B("_x")));
	for (int action = ACTION_READ; action < ACTION_END; action++)
		ck_assert(!may(a, (enum action)action, "__x"));
	ck_assert(access_may(a, ACTION_CREATE, RESOURCE_CLUSTER, B("")));
	ck_assert(!access_may_create(a, B("__x")) && !access_may_create(a, B("__audit")));
}

static void admin_asks_for_internal_streams(void)
{
	hold(&held[1], access_of_user(shard(), B("root"), here));
	struct access *a = held[1].h.access, *in = access_in(a, B("acme"));
	ck_assert(may(a, ACTION_WRITE, "__x") && may(a, ACTION_DELETE, "__x"));
	ck_assert(may(a, ACTION_READ, "__audit") && may(a, ACTION_DESCRIBE, "__audit"));
	ck_assert(may(a, ACTION_ALTER_CONFIGS, "__audit"));
	ck_assert(!may(a, ACTION_WRITE, "__audit") && !may(a, ACTION_DELETE, "__audit"));
	ck_assert(!may(a, ACTION_ALTER, "__audit"));
	ck_assert(may(in, ACTION_DELETE, "__audit")); /* of a tenant it is any stream */
	access_unref(in);
	access_release(&held[1].h);
}

/* Whatever rules say; and what is told of administrators they do not write themselves. */
START_TEST(internal_streams_are_for_administrators)
{
	put_user_named("root", "", "admin");
	put_user_named("boss", "acme", "admin");
	put_user_named("user", "", NULL);
	put_rule(rule_of("user", false, ACTION_ALL, RESOURCE_STREAM, RULE_LITERAL, "*"), true);
	put_rule(
		rule_of("user", false, ACTION_ALL, RESOURCE_CLUSTER, RULE_LITERAL, "kafka-cluster"),
		true);
	on_loop(0, user_asks_for_internal_streams);
	on_loop(0, admin_asks_for_internal_streams);
	on_loop(0, release);
}
END_TEST

/* Who acts elsewhere acts no more when it is no administrator any more. */
static void root_goes_in(void)
{
	struct access *root = access_of_user(shard(), B("root"), here);
	hold(&held[0], access_in(root, B("acme")));
	access_unref(root);
}

START_TEST(administrators_of_old_are_out)
{
	put_user_named("root", "", "admin");
	put_user_named("boss", "acme", "admin");
	on_loop(0, root_goes_in);
	ck_assert(reads_x());
	put_user_named("root", "", NULL);
	ck_assert(!reads_x());
	await(&held[0].changed, 1);
	on_loop(0, release);
}
END_TEST

/* ---- quotas */

static enum err hold_err;
static void try_hold(void)
{
	struct access *a = access_of_user(shard(), B("u"), here);
	memset(&held[1], 0, sizeof held[1]);
	held[1].h.changed = changed;
	hold_err = access_hold(&held[1].h, a);
	if (hold_err != OK)
		access_unref(a);
	else
		access_release(&held[1].h);
}
static void u_stays_on_1(void)
{
	hold(&held[2], access_of_user(shard(), B("u"), here));
}
static void u_leaves_1(void)
{
	access_release(&held[2].h);
}

START_TEST(connections_are_limited_over_loops)
{
	put_user_named("u", "", NULL);
	on_loop(0, u_stays); /* before there is a limit */
	put_quota(QUOTA_USER, "u", QUOTA_CONNECTIONS, 2);
	on_loop(1, u_stays_on_1);
	on_loop(0, try_hold);
	ck_assert_int_eq(hold_err, ERR_BUSY);
	put_quota(QUOTA_USER, "u", QUOTA_CONNECTIONS, 3);
	on_loop(0, try_hold);
	ck_assert_int_eq(hold_err, OK);
	put_quota(QUOTA_TENANT, "default", QUOTA_CONNECTIONS, 2);
	on_loop(1, try_hold);
	ck_assert_int_eq(hold_err, ERR_BUSY);
	on_loop(1, u_leaves_1);
	on_loop(1, try_hold);
	ck_assert_int_eq(hold_err, OK);
	put_quota(QUOTA_TENANT, "default", QUOTA_CONNECTIONS, -1);
	put_quota(QUOTA_USER, "u", QUOTA_CONNECTIONS, -1);
	put_quota(QUOTA_USER, "", QUOTA_CONNECTIONS, 1); /* of those without one */
	on_loop(1, try_hold);
	ck_assert_int_eq(hold_err, ERR_BUSY);
	on_loop(0, release);
	on_loop(1, try_hold);
	ck_assert_int_eq(hold_err, OK);
}
END_TEST

static int64_t waited;
static int64_t charge_bytes;
static void charge(void)
{
	waited = access_charge_in(held[loop_index(loop_here()) * 2].h.access, 1, charge_bytes);
}
static int64_t charged(int loop, int64_t bytes)
{
	charge_bytes = bytes;
	on_loop(loop, charge);
	return waited;
}

START_TEST(bytes_are_limited_over_loops)
{
	put_user_named("u", "", NULL);
	on_loop(0, u_stays);
	on_loop(1, u_stays_on_1);
	ck_assert_int_eq(charged(0, 1 << 30), 0);
	put_quota(QUOTA_USER, "u", QUOTA_BYTES_IN, 1000);
	ck_assert_int_eq(charged(0, 1000), 0);
	ck_assert_int_gt(charged(1, 10000), 9000);
	await(&held[0].changed, 1);
	await(&held[2].changed, 1);
	put_quota(QUOTA_USER, "u", QUOTA_BYTES_IN, 1 << 20); /* more: nothing is owed */
	ck_assert_int_eq(charged(0, 1000), 0);
	ck_assert_int_eq(charged(1, 1000), 0);
	await(&held[0].changed, 2);
	await(&held[2].changed, 2);
	put_quota(QUOTA_USER, "u", QUOTA_BYTES_IN, -1);
	ck_assert_int_eq(charged(1, 1 << 30), 0);
	await(&held[0].changed, 3);
	put_quota(QUOTA_TENANT, "", QUOTA_MESSAGES_IN, 1);
	ck_assert_int_eq(charged(0, 1), 0);
	ck_assert_int_gt(charged(1, 1), 500);
	on_loop(0, release);
	on_loop(1, u_leaves_1);
}
END_TEST

/* ---- what it costs: printed, not judged */

enum { COST_RULES = 24, COST_TURNS = 400000, COST_TOPICS = 64 };

static void print_cost(const char *what, int64_t began_ns, int turns)
{
	printf("%-34s %6.1f ns\n", what, (double)(cpu_ns() - began_ns) / turns);
}

static void measure(void)
{
	static char topics[COST_TOPICS][40], names[COST_TOPICS][40], allowed[COST_TURNS / 100][40];
	struct access *a = held[0].h.access;
	int yes = 0;
	for (int i = 0; i < COST_TOPICS; i++) {
		snprintf(topics[i], sizeof topics[i], "plant/%d/dev-1/temperature", i % COST_RULES);
		snprintf(names[i], sizeof names[i], "orders-%d-eu", i % COST_RULES);
	}
	for (int i = 0; i < COST_TURNS / 100; i++)
		snprintf(allowed[i], sizeof allowed[i], "plant/%d/dev-1/t-%d", i % COST_RULES, i);
	int64_t began = cpu_ns();
	for (int i = 0; i < COST_TURNS; i++)
		yes += may(a, ACTION_WRITE, names[i % COST_TOPICS]);
	print_cost("stream, 24 literal and 24 prefixed", began, COST_TURNS);
	began = cpu_ns();
	for (int i = 0; i < COST_TURNS; i++)
		yes += access_topic(a, ACTION_WRITE, B(topics[i % COST_TOPICS]), B("dev-1"));
	print_cost("topic, 24 filters, seen lately", began, COST_TURNS);
	began = cpu_ns();
	for (int i = 0; i < COST_TURNS / 100; i++) {
		topics[0][6] = (char)('a' + i % 26);
		topics[0][7] = (char)('a' + i / 26 % 26);
		topics[0][8] = (char)('a' + i / 676);
		yes += access_topic(a, ACTION_WRITE, B(topics[0]), B("dev-1"));
	}
	print_cost("topic, 24 filters, never seen", began, COST_TURNS / 100);
	began = cpu_ns();
	for (int i = 0; i < COST_TURNS / 100; i++)
		yes += access_topic(a, ACTION_WRITE, B(allowed[i]), B("dev-1"));
	print_cost("the same, allowed", began, COST_TURNS / 100);
	began = cpu_ns();
	for (int i = 0; i < COST_TURNS / 100; i++)
		yes += access_filter(a, B("plant/3/dev-1/+"), B("dev-1")) == ACCESS_ALL;
	print_cost("filter, 24 filters", began, COST_TURNS / 100);
	began = cpu_ns();
	for (int i = 0; i < COST_TURNS; i++)
		yes += access_charge_in(a, 1, 100) == 0;
	print_cost("charge, user and tenant", began, COST_TURNS);
	ck_assert_int_gt(yes, COST_TURNS);
}

static void measure_few(void)
{
	struct access *a = held[0].h.access;
	int yes = 0;
	int64_t began = cpu_ns();
	for (int i = 0; i < COST_TURNS; i++)
		yes += access_topic(a, ACTION_WRITE, B("plant/dev-1/temperature"), B("dev-1"));
	print_cost("topic, 1 filter with %c", began, COST_TURNS);
	ck_assert_int_eq(yes, COST_TURNS);
}

START_TEST(what_checks_cost_is_printed)
{
	char name[64];
	put_user_named("u", "", NULL);
	on_loop(0, u_stays);
	put_rule(rule_of("u", false, ACTION_WRITE, RESOURCE_TOPIC, RULE_LITERAL, "plant/%c/#"),
		true);
	on_loop(0, measure_few);
	for (int i = 0; i < COST_RULES; i++) {
		snprintf(name, sizeof name, "orders-%d-eu", i);
		put_rule(
			rule_of("u", i % 2 == 1, ACTION_WRITE, RESOURCE_STREAM, RULE_LITERAL, name),
			true);
		snprintf(name, sizeof name, "orders-%d", i);
		put_rule(rule_of("u", false, ACTION_ALL, RESOURCE_STREAM, RULE_PREFIXED, name),
			true);
		snprintf(name, sizeof name, "plant/%d/%%c/#", i);
		put_rule(rule_of("u", false, ACTION_ALL, RESOURCE_TOPIC, RULE_LITERAL, name), true);
	}
	put_quota(QUOTA_USER, "u", QUOTA_BYTES_IN, (int64_t)1 << 50);
	put_quota(QUOTA_TENANT, "", QUOTA_BYTES_IN, (int64_t)1 << 50);
	on_loop(0, measure);
	on_loop(0, release);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("access");
	TCase *tc = tcase_create("access");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, without_users_everything_is_allowed);
	tcase_add_test(tc, the_first_user_ends_what_nobody_had);
	tcase_add_test(tc, changes_are_in_force_and_told);
	tcase_add_loop_test(tc, who_has_lost_its_login_is_gone, 0, 6);
	tcase_add_test(tc, who_is_as_before_stays);
	tcase_add_test(tc, many_are_told);
	tcase_add_test(tc, rules_may_name_a_host);
	tcase_add_test(tc, nobody_has_rules_of_its_own);
	tcase_add_test(tc, tenants_are_apart);
	tcase_add_test(tc, internal_streams_are_for_administrators);
	tcase_add_test(tc, administrators_of_old_are_out);
	tcase_add_test(tc, connections_are_limited_over_loops);
	tcase_add_test(tc, bytes_are_limited_over_loops);
	tcase_add_test(tc, what_checks_cost_is_printed);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
