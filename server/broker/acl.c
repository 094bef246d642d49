/* Rules of one kind of resource come apart into what all names have ("*"), literal names in a hash,
 * and prefixes in order. A rule is bits: one per action that it allows or denies, with what an
 * action implies put in beforehand; rules of the same name are one entry.
 *
 * Prefixes: each entry holds the bits of all entries that are prefixes of it as well, and knows the
 * longest of them. The last entry that is not above a name is either a prefix of it, or the longest
 * prefix there is is among those that the entry begins with; so a binary search and a short walk
 * find it.
 *
 * Topics also have filters. Those without wildcards and %c are literal names; the rest is a tree
 * (acl_tree.h), and the outcome is kept by topic and client. What %c or %u stands for is one
 * level's text or a part of it: ids and users that hold a wildcard or a slash are given nothing by
 * such a rule, and what it denies they are denied for any text there. */
#include "server/broker/acl.h"
#include <assert.h>
#include <stdlib.h>
#include "server/base/mem.h"
#include "server/broker/acl_tree.h"

enum { EXPANDED_MAX = 4096, WORD_MAX = EXPANDED_MAX - RULE_NAME_MAX };

struct named { /* a name, prefix or filter with what its rules say */
	struct acl_bits bits;
	bool prefixed; /* a filter's entry that is a prefix with %c */
	bool client;   /* holds %c */
	int parent;    /* prefixes: the longest other one that it starts with; -1 */
	struct bytes text;
};
struct set { /* of one kind of resource */
	struct acl_bits star;
	uint16_t any; /* actions allowed for some name */
	struct map literals;
	struct named **prefixes, **filters;
	int prefix_count, filter_count;
	size_t prefix_room, filter_room;
	/* The filters again: for clients whose id may stand for %c, and for the others. */
	struct acl_tree *trees[2];
};

/* A decision about a topic. */
struct seen {
	uint64_t hash;
	uint8_t action;
	bool used, allowed;
	uint8_t topic_len, client_len;
	uint8_t text[115];
};
static_assert(sizeof(struct seen) == 128, "two lines of a cache");
/* Few filters are tried as quickly as a decision is found. */
enum { CACHE_ABOVE_FILTERS = 2, CACHE_FIRST = 8, CACHE_MAX = 512, CACHE_GROW = 4 };

enum { SET_STREAM, SET_GROUP, SET_CLUSTER, SET_TRANSACTION, SET_USER, SET_TOPIC, SET_COUNT };

struct acl {
	struct set *sets[SET_COUNT];
	bool client; /* some filter holds %c */
	struct seen *cache;
	uint32_t cache_slots, cache_misses;
};

static int set_index(enum resource r)
{
	switch (r) {
	case RESOURCE_STREAM: return SET_STREAM;
	case RESOURCE_GROUP: return SET_GROUP;
	case RESOURCE_CLUSTER: return SET_CLUSTER;
	case RESOURCE_TRANSACTION: return SET_TRANSACTION;
	case RESOURCE_USER: return SET_USER;
	case RESOURCE_TOPIC: return SET_TOPIC;
	case RESOURCE_END: break;
	}
	return -1;
}

static uint16_t bit(enum action a)
{
	return (uint16_t)(1u << a);
}

/* ---- building */

static struct acl_bits bits_of(const struct rule *r)
{
	uint16_t all = (uint16_t)(bit(ACTION_END) - 1);
	uint16_t b = r->action == ACTION_ALL ? all : bit(r->action);
	if (r->deny)
		return (struct acl_bits){.deny = b};
	uint16_t describe = (uint16_t)(bit(ACTION_READ) | bit(ACTION_WRITE) | bit(ACTION_DELETE) |
		bit(ACTION_ALTER));
	if ((b & describe) != 0)
		b |= bit(ACTION_DESCRIBE);
	if ((b & bit(ACTION_ALTER_CONFIGS)) != 0)
		b |= bit(ACTION_DESCRIBE_CONFIGS);
	return (struct acl_bits){.allow = b};
}

static struct named *named_new(struct bytes text, struct acl_bits b)
{
	struct named *n = mem_new(sizeof *n + text.len);
	if (text.len > 0)
		memcpy(n + 1, text.at, text.len);
	n->text = bytes_of(n + 1, text.len);
	n->bits = b;
	n->parent = -1;
	return n;
}

static void add_literal(struct set *s, struct bytes name, struct acl_bits b)
{
	struct named *n = map_get(&s->literals, name);
	if (n == NULL) {
		n = named_new(name, (struct acl_bits){0, 0});
		map_put(&s->literals, n->text, n);
	}
	acl_bits_add(&n->bits, b);
}

static void push(struct named ***array, int *count, size_t *room, struct named *n)
{
	if ((size_t)*count == *room) {
		*room = *room > 0 ? *room * 2 : 4;
		struct named **bigger = mem_resize(*array, *room * sizeof *bigger);
		must(bigger != NULL);
		*array = bigger;
	}
	(*array)[(*count)++] = n;
}

static bool is_star(struct bytes name)
{
	return name.len == 1 && name.at[0] == '*';
}

static bool holds(struct bytes text, const char *two)
{
	return text.len >= 2 && memmem(text.at, text.len, two, 2) != NULL;
}

/* Whether a user's name or client id may stand for a level's text. */
static bool word_usable(struct bytes word)
{
	if (word.len == 0 || word.len > WORD_MAX)
		return false;
	for (size_t i = 0; i < word.len; i++)
		if (word.at[i] == '+' || word.at[i] == '#' || word.at[i] == '/' || word.at[i] == 0)
			return false;
	return true;
}

/* A user's name stands there before %c is looked for, and must not bring one along. */
static bool user_usable(struct bytes user)
{
	return word_usable(user) && memchr(user.at, '%', user.len) == NULL;
}

/* text with word in place of mark; false: too long. */
static bool expand(struct bytes text, const char *mark, struct bytes word, struct wr *out)
{
	const uint8_t *end = text.at + text.len;
	for (const uint8_t *from = text.at; from < end;) {
		const uint8_t *at = memchr(from, mark[0], (size_t)(end - from));
		while (at != NULL && at + 1 < end && at[1] != (uint8_t)mark[1])
			at = memchr(at + 1, mark[0], (size_t)(end - at - 1));
		if (at == NULL || at + 1 == end) {
			wr_bytes(out, bytes_of(from, (size_t)(end - from)));
			break;
		}
		wr_bytes(out, bytes_of(from, (size_t)(at - from)));
		wr_bytes(out, word);
		from = at + 2;
	}
	return out->err == OK;
}

/* The widest that a filter or prefix with the mark can be: any text in its level. */
static void widen(struct bytes text, const char *mark, bool prefixed, struct wr *out)
{
	struct bytes rest = text, level;
	bool more = true;
	if (prefixed) {
		const uint8_t *at = memmem(text.at, text.len, mark, 2);
		wr_bytes(out, bytes_of(text.at, (size_t)(at - text.at)));
		return;
	}
	for (bool first = true; topic_level_next(&rest, &more, &level); first = false) {
		if (!first)
			wr_u8(out, '/');
		wr_bytes(out, holds(level, mark) ? bytes_of("+", 1) : level);
	}
}

static void add_prefix(struct set *s, struct bytes prefix, struct acl_bits b)
{
	if (prefix.len == 0)
		acl_bits_add(&s->star, b);
	else
		push(&s->prefixes, &s->prefix_count, &s->prefix_room, named_new(prefix, b));
}

static void add_topic(
	struct acl *a, struct set *s, const struct rule *r, struct bytes name, struct acl_bits b)
{
	bool prefixed = r->pattern == RULE_PREFIXED, client = holds(name, "%c");
	if (!client && prefixed) {
		add_prefix(s, name, b);
	} else if (!client && topic_filter_literal(name)) {
		add_literal(s, name, b);
	} else {
		struct named *n = named_new(name, b);
		n->prefixed = prefixed;
		n->client = client;
		a->client |= client;
		push(&s->filters, &s->filter_count, &s->filter_room, n);
	}
}

void acl_add(struct acl *a, const struct rule *r, struct bytes user)
{
	uint8_t text[EXPANDED_MAX];
	struct wr w = wr_over(text, sizeof text);
	int index = set_index(r->resource);
	struct acl_bits b = bits_of(r);
	if (index < 0)
		return;
	if (a->sets[index] == NULL)
		a->sets[index] = mem_new(sizeof *a->sets[index]);
	struct set *s = a->sets[index];
	if (r->pattern == RULE_LITERAL && is_star(r->name)) {
		acl_bits_add(&s->star, b);
	} else if (index != SET_TOPIC) {
		if (r->pattern == RULE_PREFIXED)
			add_prefix(s, r->name, b);
		else
			add_literal(s, r->name, b);
	} else if (!holds(r->name, "%u")) {
		add_topic(a, s, r, r->name, b);
	} else if (user_usable(user) && expand(r->name, "%u", user, &w)) {
		add_topic(a, s, r, bytes_of(text, wr_len(&w)), b);
	} else if (r->deny) {
		w = wr_over(text, sizeof text);
		widen(r->name, "%u", r->pattern == RULE_PREFIXED, &w);
		add_topic(a, s, r, bytes_of(text, wr_len(&w)), b);
	}
}

static int compare_named(const void *x, const void *y)
{
	const struct named *a = *(struct named *const *)x, *b = *(struct named *const *)y;
	int c = bytes_compare(a->text, b->text);
	return c != 0 ? c : (int)a->prefixed - (int)b->prefixed;
}

/* Sorts, and makes one of those that are the same. */
static void merge(struct named **array, int *count)
{
	int kept = 0;
	if (*count == 0)
		return;
	qsort(array, (size_t)*count, sizeof(struct named *), compare_named);
	for (int i = 1; i < *count; i++) {
		if (compare_named(&array[kept], &array[i]) == 0) {
			acl_bits_add(&array[kept]->bits, array[i]->bits);
			mem_free(array[i]);
		} else {
			array[++kept] = array[i];
		}
	}
	*count = kept + 1;
}

static bool starts_with(struct bytes text, struct bytes prefix)
{
	return text.len >= prefix.len && memcmp(text.at, prefix.at, prefix.len) == 0;
}

/* The longest prefix of text among the first `count` entries: its index, or -1. */
static int prefix_find(const struct set *s, int count, struct bytes text)
{
	int low = 0, high = count; /* the first above text is in [low, high] */
	while (low < high) {
		int middle = (low + high) / 2;
		if (bytes_compare(s->prefixes[middle]->text, text) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	int at = low - 1;
	while (at >= 0 && !starts_with(text, s->prefixes[at]->text))
		at = s->prefixes[at]->parent;
	return at;
}

/* To a client whose id can't stand there %c gives nothing, and denies the widest there is. */
static void trees_make(struct set *s)
{
	uint8_t wide[EXPANDED_MAX];
	if (s->filter_count == 0)
		return;
	s->trees[0] = acl_tree_new();
	s->trees[1] = acl_tree_new();
	for (int i = 0; i < s->filter_count; i++) {
		const struct named *n = s->filters[i];
		struct acl_bits deny = {.deny = n->bits.deny};
		struct wr w = wr_over(wide, sizeof wide);
		acl_tree_add(s->trees[0], n->text, n->prefixed, n->bits);
		if (n->client)
			widen(n->text, "%c", n->prefixed, &w);
		if (!n->client)
			acl_tree_add(s->trees[1], n->text, n->prefixed, n->bits);
		else if (deny.deny != 0)
			acl_tree_add(s->trees[1], bytes_of(wide, wr_len(&w)), n->prefixed, deny);
	}
}

static void set_seal(struct set *s)
{
	merge(s->prefixes, &s->prefix_count);
	merge(s->filters, &s->filter_count);
	s->any = (uint16_t)(s->star.allow & ~s->star.deny);
	for (int i = 0; i < s->prefix_count; i++) {
		struct named *p = s->prefixes[i];
		uint16_t own = p->bits.allow;
		p->parent = prefix_find(s, i, p->text);
		if (p->parent >= 0)
			acl_bits_add(&p->bits, s->prefixes[p->parent]->bits);
		s->any |= (uint16_t)(own & ~p->bits.deny & ~s->star.deny);
	}
	struct named *n;
	for (uint32_t at = 0; (n = map_next(&s->literals, &at)) != NULL;) {
		int p = prefix_find(s, s->prefix_count, n->text);
		uint16_t deny = p < 0 ? 0 : s->prefixes[p]->bits.deny;
		s->any |= (uint16_t)(n->bits.allow & ~n->bits.deny & ~deny & ~s->star.deny);
	}
	for (int i = 0; i < s->filter_count; i++)
		s->any |= (uint16_t)(s->filters[i]->bits.allow & ~s->star.deny);
	trees_make(s);
}

struct acl *acl_new(void)
{
	return mem_new(sizeof(struct acl));
}

void acl_seal(struct acl *a)
{
	for (int i = 0; i < SET_COUNT; i++)
		if (a->sets[i] != NULL)
			set_seal(a->sets[i]);
}

static void set_free(struct set *s)
{
	struct named *n;
	for (uint32_t at = 0; (n = map_next(&s->literals, &at)) != NULL;)
		mem_free(n);
	map_fini(&s->literals);
	for (int i = 0; i < s->prefix_count; i++)
		mem_free(s->prefixes[i]);
	for (int i = 0; i < s->filter_count; i++)
		mem_free(s->filters[i]);
	acl_tree_free(s->trees[0]);
	acl_tree_free(s->trees[1]);
	mem_free(s->prefixes);
	mem_free(s->filters);
	mem_free(s);
}

void acl_free(struct acl *a)
{
	if (a == NULL)
		return;
	for (int i = 0; i < SET_COUNT; i++)
		if (a->sets[i] != NULL)
			set_free(a->sets[i]);
	mem_free(a->cache);
	mem_free(a);
}

/* ---- names */

/* What all rules but filters say of a name. */
static struct acl_bits bits_for(const struct set *s, struct bytes name)
{
	struct acl_bits b = s->star;
	if (s->literals.count > 0) {
		const struct named *n = map_get(&s->literals, name);
		if (n != NULL)
			acl_bits_add(&b, n->bits);
	}
	if (s->prefix_count > 0) {
		int p = prefix_find(s, s->prefix_count, name);
		if (p >= 0)
			acl_bits_add(&b, s->prefixes[p]->bits);
	}
	return b;
}

static const struct set *set_of(const struct acl *a, enum resource resource)
{
	int index = set_index(resource);
	return index < 0 ? NULL : a->sets[index];
}

bool acl_may(const struct acl *a, enum action action, enum resource resource, struct bytes name)
{
	const struct set *s = set_of(a, resource);
	if (s == NULL)
		return false;
	struct acl_bits b = bits_for(s, name);
	return (b.allow & ~b.deny & bit(action)) != 0;
}

bool acl_may_any(const struct acl *a, enum action action, enum resource resource)
{
	const struct set *s = set_of(a, resource);
	return s != NULL && (s->any & bit(action)) != 0;
}

/* ---- topics */

/* What an entry means for a client: its text, or nothing (len 0). */
static struct bytes meant(const struct named *n, struct bytes client_id, bool deny, uint8_t *room)
{
	struct wr w = wr_over(room, EXPANDED_MAX);
	if (!n->client)
		return n->text;
	if (!word_usable(client_id) || !expand(n->text, "%c", client_id, &w)) {
		w = wr_over(room, EXPANDED_MAX);
		if (deny)
			widen(n->text, "%c", n->prefixed, &w);
	}
	return bytes_of(room, wr_len(&w));
}

static bool topic_decide(
	const struct acl *a, uint16_t wanted, struct bytes topic, struct bytes client_id)
{
	const struct set *s = a->sets[SET_TOPIC];
	struct acl_bits b = bits_for(s, topic);
	if (s->filter_count > 0)
		acl_bits_add(&b,
			acl_tree_find(
				s->trees[a->client && !word_usable(client_id)], topic, client_id));
	return (b.allow & ~b.deny & wanted) != 0;
}

/* The place of a decision; NULL: too long for one. */
static struct seen *cache_slot(
	struct acl *a, enum action action, struct bytes topic, struct bytes client_id, bool *found)
{
	if (a->cache_slots == 0 || a->cache_misses > a->cache_slots * CACHE_GROW) {
		uint32_t slots = a->cache_slots == 0 ? CACHE_FIRST : a->cache_slots * 2;
		a->cache_misses = 0;
		if (slots <= CACHE_MAX) {
			mem_free(a->cache);
			a->cache = mem_new(slots * sizeof *a->cache);
			a->cache_slots = slots;
		}
	}
	if (topic.len + client_id.len > sizeof a->cache->text)
		return NULL;
	uint64_t hash = hash_bytes(topic) + (uint64_t)action;
	if (client_id.len > 0)
		hash ^= hash_bytes(client_id) * 0x9e3779b97f4a7c15u;
	struct seen *e = &a->cache[(hash ^ hash >> 32) & (a->cache_slots - 1)];
	*found = e->used && e->hash == hash && e->action == (uint8_t)action &&
		e->topic_len == topic.len && e->client_len == client_id.len &&
		memcmp(e->text, topic.at, topic.len) == 0 &&
		(client_id.len == 0 ||
			memcmp(e->text + topic.len, client_id.at, client_id.len) == 0);
	if (*found)
		return e;
	a->cache_misses++;
	e->used = false;
	e->hash = hash;
	e->action = (uint8_t)action;
	e->topic_len = (uint8_t)topic.len;
	e->client_len = (uint8_t)client_id.len;
	return e;
}

bool acl_topic(struct acl *a, enum action action, struct bytes topic, struct bytes client_id)
{
	const struct set *s = a->sets[SET_TOPIC];
	bool found = false;
	if (s == NULL || topic.len == 0)
		return false;
	if (s->filter_count <= CACHE_ABOVE_FILTERS)
		return topic_decide(a, bit(action), topic, client_id);
	struct bytes id = a->client ? client_id : bytes_of(NULL, 0);
	struct seen *e = cache_slot(a, action, topic, id, &found);
	if (found)
		return e->allowed;
	bool allowed = topic_decide(a, bit(action), topic, client_id);
	if (e != NULL) {
		memcpy(e->text, topic.at, topic.len);
		if (id.len > 0)
			memcpy(e->text + topic.len, id.at, id.len);
		e->allowed = allowed;
		e->used = true;
	}
	return allowed;
}

/* ---- filters */

static bool is_one(struct bytes level, char c)
{
	return level.len == 1 && level.at[0] == (uint8_t)c;
}

static bool starts_wild(struct bytes filter)
{
	return filter.len > 0 && (filter.at[0] == '+' || filter.at[0] == '#');
}

bool acl_filter_covers(struct bytes a, struct bytes b)
{
	bool more_a = true, more_b = true;
	struct bytes x, y;
	if (starts_wild(a) && b.len > 0 && b.at[0] == '$')
		return false; /* MQTT-4.7.2-1 */
	/* Every topic has a first level: "+/#" has all that "#" has. */
	if (bytes_equal(a, bytes_text("+/#")))
		return true;
	while (topic_level_next(&a, &more_a, &x)) {
		if (is_one(x, '#'))
			return true;
		if (!topic_level_next(&b, &more_b, &y) || is_one(y, '#'))
			return false;
		if (!is_one(x, '+') && !bytes_equal(x, y))
			return false;
	}
	return !more_b;
}

bool acl_prefix_covers(struct bytes prefix, struct bytes filter)
{
	size_t fixed = 0; /* bytes that all its topics begin with */
	while (fixed < filter.len && filter.at[fixed] != '+' && filter.at[fixed] != '#')
		fixed++;
	if (fixed > 1 && fixed < filter.len && filter.at[fixed] == '#')
		fixed--; /* the parent level itself matches */
	return starts_with(bytes_of(filter.at, fixed), prefix);
}

bool acl_prefix_overlaps(struct bytes prefix, struct bytes filter)
{
	bool more_p = true, more_f = true;
	struct bytes x, y;
	if (prefix.len > 0 && prefix.at[0] == '$' && starts_wild(filter))
		return false;
	while (topic_level_next(&prefix, &more_p, &x)) {
		if (!topic_level_next(&filter, &more_f, &y))
			return false;
		if (is_one(y, '#'))
			return true;
		/* The prefix's last level is the beginning of a level. */
		if (!is_one(y, '+') && !(more_p ? bytes_equal(x, y) : starts_with(y, x)))
			return false;
	}
	return true;
}

struct ruling { /* of a filter, as rules are looked at */
	bool allowed, denied, sift;
};

static void rule_on(
	struct ruling *r, struct acl_bits b, uint16_t wanted, bool covers, bool overlaps)
{
	if ((b.allow & wanted) != 0 && covers)
		r->allowed = true;
	if ((b.deny & wanted) != 0 && covers)
		r->denied = true;
	if ((b.deny & wanted) != 0 && overlaps)
		r->sift = true;
}

static void rule_on_entry(struct ruling *r, const struct named *n, uint16_t wanted,
	struct bytes filter, struct bytes client_id)
{
	uint8_t room[EXPANDED_MAX];
	for (int deny = 0; deny < 2; deny++) {
		struct acl_bits b = deny ? (struct acl_bits){.deny = n->bits.deny}
					 : (struct acl_bits){.allow = n->bits.allow};
		if (((b.allow | b.deny) & wanted) == 0)
			continue;
		struct bytes text = meant(n, client_id, deny != 0, room);
		if (n->prefixed && (text.len > 0 || deny))
			rule_on(r, b, wanted, acl_prefix_covers(text, filter),
				acl_prefix_overlaps(text, filter));
		else if (!n->prefixed && text.len > 0)
			rule_on(r, b, wanted, acl_filter_covers(text, filter),
				topic_filters_overlap(text, filter));
	}
}

enum access_filter acl_filter(
	struct acl *a, enum action action, struct bytes filter, struct bytes client_id)
{
	const struct set *s = a->sets[SET_TOPIC];
	struct ruling r = {false, false, false};
	uint16_t wanted = bit(action);
	const struct named *n;
	if (s == NULL || filter.len == 0)
		return ACCESS_NONE;
	if (topic_filter_literal(filter))
		return acl_topic(a, action, filter, client_id) ? ACCESS_ALL : ACCESS_NONE;
	rule_on(&r, s->star, wanted, true, true);
	for (uint32_t at = 0; (n = map_next(&s->literals, &at)) != NULL;)
		rule_on(&r, n->bits, wanted, false, topic_matches(filter, n->text));
	for (int i = 0; i < s->prefix_count; i++)
		rule_on(&r, s->prefixes[i]->bits, wanted,
			acl_prefix_covers(s->prefixes[i]->text, filter),
			acl_prefix_overlaps(s->prefixes[i]->text, filter));
	for (int i = 0; i < s->filter_count; i++)
		rule_on_entry(&r, s->filters[i], wanted, filter, client_id);
	if (!r.allowed || r.denied)
		return ACCESS_NONE;
	return r.sift ? ACCESS_SIFT : ACCESS_ALL;
}
