/* Rules compiled, against a naive model that looks at all of them, one by one. */
#include "server/broker/acl.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/mem.h"
#include "server/broker/topic.h"

enum { RULES_MAX = 12, ROUNDS = 300 };

struct text {
	char at[64];
};
struct model {
	int count;
	struct rule rules[RULES_MAX];
	struct text names[RULES_MAX];
};

static uint64_t seed = 1;
static uint32_t pick(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static struct bytes B(const char *text) {
	return bytes_text(text);
}

static struct acl *
compiled(const struct model *m, const char *user)
{
	struct acl *a = acl_new();
	for (int i = 0; i < m->count; i++)
		acl_add(a, &m->rules[i], B(user));
	acl_seal(a);
	return a;
}

static void add(struct model *m, enum resource resource, enum rule_pattern pattern,
	const char *name, bool deny, enum action action)
{
	ck_assert_int_lt(m->count, RULES_MAX);
	snprintf(m->names[m->count].at, sizeof m->names[0].at, "%s", name);
	m->rules[m->count] = (struct rule){.principal = PRINCIPAL_USER,
		.who = B("u"),
		.resource = resource,
		.pattern = pattern,
		.name = B(m->names[m->count].at),
		.host = B("*"),
		.deny = deny,
		.action = action};
	m->count++;
}

/* ---- the model */

static bool starts(struct bytes text, struct bytes with)
{
	return text.len >= with.len && memcmp(text.at, with.at, with.len) == 0;
}

static bool says(const struct rule *r, enum action wanted)
{
	if (r->action == ACTION_ALL || r->action == wanted)
		return true;
	if (r->deny)
		return false;
	if (wanted == ACTION_DESCRIBE)
		return r->action == ACTION_READ || r->action == ACTION_WRITE ||
			r->action == ACTION_DELETE || r->action == ACTION_ALTER;
	return wanted == ACTION_DESCRIBE_CONFIGS && r->action == ACTION_ALTER_CONFIGS;
}

static bool rule_is_for(const struct rule *r, struct bytes name)
{
	if (r->pattern == RULE_PREFIXED)
		return starts(name, r->name);
	if (bytes_equal(r->name, B("*")))
		return true;
	return r->resource == RESOURCE_TOPIC ? topic_matches(r->name, name)
					     : bytes_equal(r->name, name);
}

static bool model_may(
	const struct model *m, enum action a, enum resource resource, struct bytes name)
{
	bool allowed = false;
	for (int i = 0; i < m->count; i++) {
		const struct rule *r = &m->rules[i];
		if (r->resource != resource || !says(r, a) || !rule_is_for(r, name))
			continue;
		if (r->deny)
			return false;
		allowed = true;
	}
	return allowed;
}

static const enum action actions[] = {ACTION_READ, ACTION_WRITE, ACTION_CREATE, ACTION_DELETE,
	ACTION_ALTER, ACTION_DESCRIBE, ACTION_CLUSTER, ACTION_DESCRIBE_CONFIGS,
	ACTION_ALTER_CONFIGS, ACTION_IDEMPOTENT_WRITE};
enum { ACTIONS = sizeof actions / sizeof actions[0] };
static const enum resource resources[] = {
	RESOURCE_STREAM, RESOURCE_GROUP, RESOURCE_CLUSTER, RESOURCE_TRANSACTION, RESOURCE_USER};
enum { RESOURCES = sizeof resources / sizeof resources[0] };

/* One rule: each action, resource and pattern, asked for each action, resource and name. */
START_TEST(a_rule_alone_is_for_what_it_says)
{
	static const char *const names[] = {"a", "ab", "abc", "b", "*", "abcd", ""};
	enum { NAMES = sizeof names / sizeof names[0] };
	for (int action = 0; action <= ACTIONS; action++)
		for (int pattern = RULE_LITERAL; pattern <= RULE_PREFIXED; pattern++)
			for (int n = 0; n < 5; n++)
				for (int deny = 0; deny < 2; deny++) {
					struct model m = {.count = 0};
					enum resource of = resources[_i];
					enum action it = action == ACTIONS ? ACTION_ALL
									   : actions[action];
					add(&m, of, (enum rule_pattern)pattern, names[n], deny, it);
					if (deny)
						add(&m, of, RULE_LITERAL, "*", false, ACTION_ALL);
					struct acl *a = compiled(&m, "u");
					for (int i = 0; i < ACTIONS * RESOURCES * NAMES; i++) {
						enum action asked = actions[i % ACTIONS];
						enum resource on =
							resources[i / ACTIONS % RESOURCES];
						struct bytes name = B(
							names[i / ACTIONS / RESOURCES]);
						ck_assert_int_eq(acl_may(a, asked, on, name),
							model_may(&m, asked, on, name));
					}
					acl_free(a);
				}
}
END_TEST

static void random_name(char *out, size_t max)
{
	size_t len = 1 + pick((uint32_t)max);
	for (size_t i = 0; i < len; i++)
		out[i] = (char)('a' + pick(2));
	out[len] = 0;
}

START_TEST(many_rules_do_as_the_model)
{
	char name[16];
	seed = 77 + (uint64_t)_i;
	for (int round = 0; round < ROUNDS; round++) {
		struct model m = {.count = 0};
		for (uint32_t i = 0, n = pick(RULES_MAX); i < n; i++) {
			random_name(name, 5);
			add(&m, resources[pick(2)], pick(2) ? RULE_LITERAL : RULE_PREFIXED,
				pick(6) == 0 ? "*" : name, pick(3) == 0,
				pick(4) == 0 ? ACTION_ALL : actions[pick(ACTIONS)]);
		}
		struct acl *a = compiled(&m, "u");
		bool any[ACTIONS] = {false};
		for (int i = 0; i < 200; i++) {
			random_name(name, 7);
			for (int x = 0; x < ACTIONS; x++) {
				bool may = model_may(&m, actions[x], RESOURCE_STREAM, B(name));
				any[x] |= may;
				ck_assert_int_eq(
					acl_may(a, actions[x], RESOURCE_STREAM, B(name)), may);
			}
		}
		for (int x = 0; x < ACTIONS; x++) {
			bool may = acl_may_any(a, actions[x], RESOURCE_STREAM);
			if (any[x]) /* the names tried are not all there are */
				ck_assert(may);
			if (may && !any[x]) {
				bool allow = false;
				for (int i = 0; i < m.count; i++)
					allow |= !m.rules[i].deny && says(&m.rules[i], actions[x]);
				ck_assert(allow);
			}
		}
		acl_free(a);
	}
}
END_TEST

START_TEST(some_of_a_kind_is_what_no_wider_deny_covers)
{
	struct model m = {.count = 0};
	add(&m, RESOURCE_STREAM, RULE_PREFIXED, "ab", false, ACTION_WRITE);
	add(&m, RESOURCE_STREAM, RULE_PREFIXED, "a", true, ACTION_WRITE);
	add(&m, RESOURCE_GROUP, RULE_LITERAL, "ab", false, ACTION_READ);
	add(&m, RESOURCE_GROUP, RULE_PREFIXED, "abc", true, ACTION_READ);
	add(&m, RESOURCE_USER, RULE_LITERAL, "x", false, ACTION_ALTER);
	add(&m, RESOURCE_USER, RULE_LITERAL, "*", true, ACTION_ALTER);
	struct acl *a = compiled(&m, "u");
	ck_assert(!acl_may_any(a, ACTION_WRITE, RESOURCE_STREAM));
	ck_assert(acl_may_any(a, ACTION_DESCRIBE, RESOURCE_STREAM)); /* not denied */
	ck_assert(acl_may_any(a, ACTION_READ, RESOURCE_GROUP));
	ck_assert(!acl_may_any(a, ACTION_ALTER, RESOURCE_USER));
	ck_assert(!acl_may_any(a, ACTION_READ, RESOURCE_TRANSACTION));
	acl_free(a);
}
END_TEST

/* ---- topics */

static const char *const levels[] = {"a", "b", "", "ab", "$s", "z"};
enum { LEVELS = sizeof levels / sizeof levels[0], DEPTH = 4 };

static void level_add(char *out, int before, const char *level)
{
	size_t len = strlen(out);
	snprintf(out + len, 64 - len, "%s%s", before > 0 ? "/" : "", level);
}

/* The n-th of all topics of at most DEPTH levels; false: no more. "z" is in no rule. */
static bool topic_at(int n, char *out)
{
	for (int depth = 1, count = LEVELS; depth <= DEPTH; depth++, count *= LEVELS) {
		if (n >= count) {
			n -= count;
			continue;
		}
		*out = 0;
		for (int i = 0; i < depth; i++, n /= LEVELS)
			level_add(out, i, levels[n % LEVELS]);
		return true;
	}
	return false;
}

static void random_filter(char *out, bool wild)
{
	uint32_t depth = 1 + pick(3);
	*out = 0;
	for (uint32_t i = 0; i < depth; i++) {
		uint32_t kind = wild ? pick(4) : 0;
		if (kind == 3 && i + 1 == depth)
			level_add(out, (int)i, "#");
		else if (kind == 2)
			level_add(out, (int)i, "+");
		else
			level_add(out, (int)i, levels[pick(i == 0 ? LEVELS - 1 : LEVELS - 2)]);
	}
	if (*out == 0)
		snprintf(out, 64, "a");
}

static void random_topic_rules(struct model *m)
{
	char name[64];
	for (uint32_t i = 0, n = 1 + pick(RULES_MAX - 1); i < n; i++) {
		bool prefixed = pick(4) == 0;
		random_filter(name, !prefixed);
		add(m, RESOURCE_TOPIC, prefixed ? RULE_PREFIXED : RULE_LITERAL,
			pick(12) == 0 && !prefixed ? "*" : name, pick(3) == 0,
			pick(3) == 0      ? ACTION_ALL
				: pick(2) ? ACTION_READ
					  : ACTION_WRITE);
	}
}

START_TEST(topics_do_as_the_model)
{
	char topic[64];
	seed = 5 + (uint64_t)_i;
	for (int round = 0; round < 40; round++) {
		struct model m = {.count = 0};
		random_topic_rules(&m);
		struct acl *a = compiled(&m, "u");
		for (int n = 0; topic_at(n, topic); n += 1 + (int)pick(3)) {
			if (*topic == 0)
				continue;
			for (int again = 0; again < 2; again++) { /* from the cache as well */
				ck_assert_int_eq(acl_topic(a, ACTION_READ, B(topic), B("c")),
					model_may(&m, ACTION_READ, RESOURCE_TOPIC, B(topic)));
				ck_assert_int_eq(acl_topic(a, ACTION_WRITE, B(topic), B("c")),
					model_may(&m, ACTION_WRITE, RESOURCE_TOPIC, B(topic)));
			}
		}
		acl_free(a);
	}
}
END_TEST

/* What the naive model makes of a filter: all topics of some levels are looked at. */
static enum access_filter model_filter(const struct model *m, struct bytes filter)
{
	char topic[64];
	bool all[RULES_MAX], some[RULES_MAX] = {false};
	memset(all, true, sizeof all);
	for (int n = 0; topic_at(n, topic); n++) {
		if (*topic == 0 || !topic_matches(filter, B(topic)))
			continue;
		for (int i = 0; i < m->count; i++) {
			bool in = says(&m->rules[i], ACTION_READ) &&
				rule_is_for(&m->rules[i], B(topic));
			all[i] &= in;
			some[i] |= in;
		}
	}
	bool allowed = false, denied = false, sift = false;
	for (int i = 0; i < m->count; i++) {
		allowed |= !m->rules[i].deny && all[i];
		denied |= m->rules[i].deny && all[i];
		sift |= m->rules[i].deny && some[i];
	}
	if (!allowed || denied)
		return ACCESS_NONE;
	return sift ? ACCESS_SIFT : ACCESS_ALL;
}

START_TEST(filters_do_as_the_model)
{
	char filter[64];
	int seen[3] = {0};
	seed = 900 + (uint64_t)_i;
	for (int round = 0; round < 150; round++) {
		struct model m = {.count = 0};
		random_topic_rules(&m);
		struct acl *a = compiled(&m, "u");
		for (int i = 0; i < 4; i++) {
			random_filter(filter, true);
			/* "/#" is more than it says: no topic is its parent. Known, refused. */
			if (strncmp(filter, "/#", 2) == 0)
				continue;
			enum access_filter is = acl_filter(a, ACTION_READ, B(filter), B("c"));
			enum access_filter want = model_filter(&m, B(filter));
			if (is != want)
				for (int k = 0; k < m.count; k++)
					printf("rule %s %s%s\n", m.names[k].at,
						m.rules[k].deny ? "deny" : "allow",
						m.rules[k].pattern == RULE_PREFIXED ? " prefix"
										    : "");
			ck_assert_msg(is == want, "%s: %d, not %d", filter, (int)is, (int)want);
			seen[is]++;
		}
		acl_free(a);
	}
	ck_assert(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
}
END_TEST

static const struct {
	const char *a, *b;
	bool covers;
} covers[] = {
	{"#", "#", true},
	{"#", "a/#", true},
	{"#", "+/+", true},
	{"#", "$SYS/#", false},
	{"+/#", "$SYS/x", false},
	{"+/#", "#", true},
	{"$SYS/#", "$SYS/a/+", true},
	{"$SYS/#", "#", false},
	{"a/#", "a", true},
	{"a/#", "a/+/b", true},
	{"a/#", "+/b", false},
	{"a/+", "a/#", false},
	{"a/+", "a/b", true},
	{"a/+", "a/+", true},
	{"a/+", "a/+/b", false},
	{"a/+", "a", false},
	{"a/b", "a/+", false},
	{"a/b", "a/b", true},
	{"a/b/#", "a/#", false},
	{"+/b", "a/b", true},
	{"+/b", "+/+", false},
};

START_TEST(filters_cover_filters)
{
	ck_assert_int_eq(acl_filter_covers(B(covers[_i].a), B(covers[_i].b)), covers[_i].covers);
}
END_TEST

/* ---- %c and %u */

START_TEST(a_client_has_its_own_topics)
{
	struct model m = {.count = 0};
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "dev/%c/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "user/%u/in", false, ACTION_READ);
	add(&m, RESOURCE_TOPIC, RULE_PREFIXED, "x/id-%c/", false, ACTION_WRITE);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "dev/%c/secret", true, ACTION_READ);
	struct acl *a = compiled(&m, "eve");
	for (int again = 0; again < 2; again++) {
		ck_assert(acl_topic(a, ACTION_WRITE, B("dev/c1/t"), B("c1")));
		ck_assert(!acl_topic(a, ACTION_WRITE, B("dev/c1/t"), B("c2")));
		ck_assert(acl_topic(a, ACTION_WRITE, B("dev/c1/secret"), B("c1")));
		ck_assert(!acl_topic(a, ACTION_READ, B("dev/c1/secret"), B("c1")));
		ck_assert(acl_topic(a, ACTION_READ, B("user/eve/in"), B("c1")));
		ck_assert(!acl_topic(a, ACTION_READ, B("user/bob/in"), B("c1")));
		ck_assert(acl_topic(a, ACTION_WRITE, B("x/id-c1/y"), B("c1")));
		ck_assert(!acl_topic(a, ACTION_WRITE, B("x/id-c10/y"), B("c1")));
	}
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/c1/#"), B("c1")), ACCESS_SIFT);
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/c1/t/+"), B("c1")), ACCESS_ALL);
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/+/t"), B("c1")), ACCESS_NONE);
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/c2/#"), B("c1")), ACCESS_NONE);
	acl_free(a);
}
END_TEST

/* An id or name that is more than a level's text must not widen what it is given. */
static const char *const tricky[] = {"+", "#", "a/b", "", "c/#", "x+", "/", "c1\0z"};

START_TEST(ids_with_wildcards_are_given_nothing)
{
	struct model m = {.count = 0};
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "dev/%c/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "own/%u/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_PREFIXED, "p/%c", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "all/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "all/%c/x", true, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "all/%u/y", true, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_PREFIXED, "all/p-%c", true, ACTION_ALL);
	const char *word = tricky[_i];
	struct acl *a = compiled(&m, word);
	struct bytes id = _i == 7 ? bytes_of(word, 4) : B(word);
	for (int n = 0; n < 2; n++) {
		ck_assert(!acl_topic(a, ACTION_READ, B("dev/c1/t"), id));
		ck_assert(!acl_topic(a, ACTION_READ, B("dev/a/b/t"), id));
		ck_assert(!acl_topic(a, ACTION_READ, B("dev//t"), id));
		ck_assert(!acl_topic(a, ACTION_READ, B("p/a/b"), id));
		ck_assert(!acl_topic(a, ACTION_READ, B("p/"), id));
		if (_i != 7) {
			ck_assert(!acl_topic(a, ACTION_READ, B("own/a/b"), id));
			ck_assert(!acl_topic(a, ACTION_READ, B("all/eve/y"), id));
		}
		/* What is denied is denied for any text there. */
		ck_assert(!acl_topic(a, ACTION_READ, B("all/eve/x"), id));
		ck_assert(!acl_topic(a, ACTION_READ, B("all/p-eve"), id));
		ck_assert(acl_topic(a, ACTION_READ, B("all/eve/z"), id));
	}
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/#"), id), ACCESS_NONE);
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("dev/+/#"), id), ACCESS_NONE);
	acl_free(a);
}
END_TEST

/* The name of a user is nobody's way to more than one level's text, %c least of all. */
START_TEST(users_with_marks_are_given_nothing)
{
	static const char *const users[] = {"%c", "x%", "%"};
	struct model m = {.count = 0};
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "own/%u/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "own/%uc/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "all/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "all/%u/x", true, ACTION_ALL);
	struct acl *a = compiled(&m, users[_i]);
	ck_assert(!acl_topic(a, ACTION_READ, B("own/bob/t"), B("bob")));
	ck_assert(!acl_topic(a, ACTION_READ, B("own/xbob/t"), B("bob")));
	ck_assert_int_eq(acl_filter(a, ACTION_READ, B("own/bob/#"), B("bob")), ACCESS_NONE);
	ck_assert(acl_topic(a, ACTION_READ, B("all/bob/y"), B("bob")));
	ck_assert(!acl_topic(a, ACTION_READ, B("all/bob/x"), B("bob")));
	acl_free(a);
}
END_TEST

/* ---- %c and %u against a model that puts in the words, rule by rule */

static const char *const words[] = {"a", "b", "ab", "$s", "", "a/b", "+", "#", "b+"};
enum { WORDS = sizeof words / sizeof words[0] };
static const char *const marked[] = {"%c", "a%c", "%cb", "%u", "%u%c", "%c%c", "%%c", "%"};
enum { MARKED = sizeof marked / sizeof marked[0] };

static bool is_word(const char *w)
{
	return *w != 0 && strpbrk(w, "+#/") == NULL;
}

/* text with word for mark; where it is no word: the level becomes "+", a prefix ends. False: the
 * rule gives nothing. */
static bool put_in(char *text, const char *mark, const char *word, bool prefixed, bool deny)
{
	static char plus[] = "+";
	char out[256] = "", *at = text, *found = strstr(text, mark);
	if (found == NULL)
		return true;
	if (!is_word(word) && !deny)
		return false;
	if (!is_word(word) && prefixed) {
		*found = 0;
		return true;
	}
	for (char *level = strsep(&at, "/"); level != NULL; level = strsep(&at, "/")) {
		size_t len = strlen(out);
		if (!is_word(word) && strstr(level, mark) != NULL)
			level = plus;
		for (found = strstr(level, mark); found != NULL; found = strstr(level, mark)) {
			snprintf(out + len, sizeof out - len, "%.*s%s", (int)(found - level), level,
				word);
			len = strlen(out);
			level = found + 2;
		}
		snprintf(out + len, sizeof out - len, "%s%s", level, at != NULL ? "/" : "");
	}
	snprintf(text, 256, "%s", out);
	return true;
}

static bool model_topic(
	const struct model *m, enum action a, const char *topic, const char *user, const char *id)
{
	bool allowed = false;
	for (int i = 0; i < m->count; i++) {
		const struct rule *r = &m->rules[i];
		struct rule is = *r;
		char text[256];
		bool prefixed = r->pattern == RULE_PREFIXED;
		snprintf(text, sizeof text, "%s", m->names[i].at);
		if (!says(r, a) || !put_in(text, "%u", user, prefixed, r->deny) ||
			!put_in(text, "%c", id, prefixed, r->deny))
			continue;
		is.name = B(text);
		if (!rule_is_for(&is, B(topic)))
			continue;
		if (r->deny)
			return false;
		allowed = true;
	}
	return allowed;
}

static void random_marked_rules(struct model *m)
{
	char name[64];
	for (uint32_t i = 0, n = 1 + pick(RULES_MAX - 1); i < n; i++) {
		bool prefixed = pick(4) == 0;
		uint32_t depth = 1 + pick(3);
		*name = 0;
		for (uint32_t k = 0; k < depth; k++) {
			uint32_t kind = pick(prefixed ? 6 : 9);
			if (kind < 3)
				level_add(name, (int)k, marked[pick(MARKED)]);
			else if (kind < 7)
				level_add(name, (int)k, levels[pick(LEVELS - 1)]);
			else
				level_add(name, (int)k, kind == 8 && k + 1 == depth ? "#" : "+");
		}
		if (*name != 0)
			add(m, RESOURCE_TOPIC, prefixed ? RULE_PREFIXED : RULE_LITERAL, name,
				pick(3) == 0, pick(2) ? ACTION_READ : ACTION_ALL);
	}
}

START_TEST(marks_do_as_the_model)
{
	char topic[64];
	int seen[2] = {0};
	seed = 4000 + (uint64_t)_i;
	for (int round = 0; round < 40; round++) {
		struct model m = {.count = 0};
		const char *user = words[pick(WORDS)];
		random_marked_rules(&m);
		struct acl *a = compiled(&m, user);
		for (int n = 0; topic_at(n, topic); n += 1 + (int)pick(3)) {
			const char *id = words[pick(WORDS)];
			if (*topic == 0)
				continue;
			bool want = model_topic(&m, ACTION_READ, topic, user, id);
			for (int again = 0; again < 2; again++)
				ck_assert_msg(acl_topic(a, ACTION_READ, B(topic), B(id)) == want,
					"%s of %s, %s", topic, user, id);
			seen[want]++;
		}
		acl_free(a);
	}
	ck_assert(seen[0] > 0 && seen[1] > 0);
}
END_TEST

/* A long id and many marks stay within bounds. */
START_TEST(long_ids_are_given_nothing)
{
	struct model m = {.count = 0};
	char *id = mem_new(65536);
	memset(id, 'a', 65535);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "%c/%c/%c/#", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "%c", false, ACTION_ALL);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "b/+", false, ACTION_ALL);
	struct acl *a = compiled(&m, "u");
	ck_assert(!acl_topic(a, ACTION_READ, B(id), B(id)));
	ck_assert(acl_topic(a, ACTION_READ, B("b/c"), B(id)));
	ck_assert(acl_topic(a, ACTION_READ, B("q"), B("q")));
	acl_free(a);
	mem_free(id);
}
END_TEST

/* More topics than the cache holds, and clients that share it. */
START_TEST(the_cache_never_errs)
{
	struct model m = {.count = 0};
	char topic[64], id[16];
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "t/%c/+", false, ACTION_READ);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "t/+/a", false, ACTION_WRITE);
	add(&m, RESOURCE_TOPIC, RULE_LITERAL, "+/+/b", true, ACTION_READ);
	struct acl *a = compiled(&m, "u");
	seed = 3;
	for (int i = 0; i < 100000; i++) {
		uint32_t of = pick(60), by = pick(60);
		const char *last = pick(2) ? "a" : "b";
		snprintf(topic, sizeof topic, "t/%u/%s", of, last);
		snprintf(id, sizeof id, "%u", by);
		ck_assert_int_eq(
			acl_topic(a, ACTION_READ, B(topic), B(id)), of == by && *last == 'a');
		ck_assert_int_eq(acl_topic(a, ACTION_WRITE, B(topic), B(id)), *last == 'a');
	}
	acl_free(a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acl");
	TCase *tc = tcase_create("acl");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, a_rule_alone_is_for_what_it_says, 0, RESOURCES);
	tcase_add_loop_test(tc, many_rules_do_as_the_model, 0, 4);
	tcase_add_test(tc, some_of_a_kind_is_what_no_wider_deny_covers);
	tcase_add_loop_test(tc, topics_do_as_the_model, 0, 4);
	tcase_add_loop_test(tc, filters_do_as_the_model, 0, 4);
	tcase_add_loop_test(tc, filters_cover_filters, 0, (int)(sizeof covers / sizeof covers[0]));
	tcase_add_test(tc, a_client_has_its_own_topics);
	tcase_add_loop_test(tc, ids_with_wildcards_are_given_nothing, 0,
		(int)(sizeof tricky / sizeof tricky[0]));
	tcase_add_loop_test(tc, users_with_marks_are_given_nothing, 0, 3);
	tcase_add_loop_test(tc, marks_do_as_the_model, 0, 8);
	tcase_add_test(tc, long_ids_are_given_nothing);
	tcase_add_test(tc, the_cache_never_errs);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
