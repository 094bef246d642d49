/* The trie has a node per filter level; '+' and '#' are children of their own, the others sit in a
 * hash map by level text. A look-up walks level by level with the set of nodes reached so far (no
 * recursion; the set can't outgrow the nodes there are). Its outcome is grouped by subscriber and
 * kept under the topic until a filter that may matter comes or goes. */
#include "server/broker/match.h"
#include <stdlib.h>
#include "server/base/map.h"
#include "server/base/mem.h"
#include "server/broker/topic.h"

struct node {
	struct node *parent;
	struct node *plus, *hash;
	struct map children; /* by text */
	struct subscription **subs;
	uint32_t sub_count, sub_room;
	uint32_t text_len;
	uint8_t text[];
};

struct cached {
	struct match_result result;
	uint64_t generation;
	size_t memory;
	uint32_t topic_len;
	uint8_t topic[]; /* the hits and matches lie in one block of their own */
};

struct match {
	struct node *root;
	struct map cache;    /* by topic */
	uint64_t generation; /* moves with every wildcard filter */
	size_t cache_bytes, cache_bytes_max;
	int64_t count;
	struct node **reached; /* scratch of a walk: this level's nodes, then the next one's */
	size_t reached_room;
	struct subscription **found;
	size_t found_count, found_room;
};

static struct bytes node_text(const struct node *n)
{
	return bytes_of(n->text, n->text_len);
}
static struct bytes cached_topic(const struct cached *c)
{
	return bytes_of(c->topic, c->topic_len);
}

static struct node *node_new(struct node *parent, struct bytes text)
{
	struct node *n = mem_new(sizeof *n + text.len);
	n->parent = parent;
	n->text_len = (uint32_t)text.len;
	if (text.len > 0)
		memcpy(n->text, text.at, text.len);
	return n;
}

static void node_drop(struct node *n)
{
	map_fini(&n->children);
	mem_free(n->subs);
	mem_free(n);
}

/* Frees all below and with root: leaves first, climbing by parent. */
static void trie_free(struct node *root)
{
	struct node *n = root;
	while (n != NULL) {
		uint32_t at = 0;
		struct node *child = n->plus != NULL ? n->plus : n->hash;
		if (child == NULL)
			child = map_next(&n->children, &at);
		if (child != NULL) {
			if (child == n->plus)
				n->plus = NULL;
			else if (child == n->hash)
				n->hash = NULL;
			else
				map_remove(&n->children, node_text(child));
			n = child;
			continue;
		}
		struct node *up = n == root ? NULL : n->parent;
		node_drop(n);
		n = up;
	}
}

static struct node **wild_child(struct node *n, struct bytes level)
{
	if (level.len == 1 && level.at[0] == '+')
		return &n->plus;
	return level.len == 1 && level.at[0] == '#' ? &n->hash : NULL;
}

static struct node *child_make(struct node *n, struct bytes level)
{
	struct node **wild = wild_child(n, level);
	struct node *child = wild != NULL ? *wild : map_get(&n->children, level);
	if (child != NULL)
		return child;
	child = node_new(n, level);
	if (wild != NULL)
		*wild = child;
	else
		(void)map_put(&n->children, node_text(child), child);
	return child;
}

/* Takes away n and those above that nothing needs any more. */
static void prune(struct node *n)
{
	while (n->parent != NULL && n->sub_count == 0 && n->children.count == 0 &&
		n->plus == NULL && n->hash == NULL) {
		struct node *up = n->parent;
		if (up->plus == n)
			up->plus = NULL;
		else if (up->hash == n)
			up->hash = NULL;
		else
			(void)map_remove(&up->children, node_text(n));
		node_drop(n);
		n = up;
	}
}

struct match *match_new(size_t cache_bytes_max)
{
	struct match *m = mem_new(sizeof *m);
	m->root = node_new(NULL, bytes_of(NULL, 0));
	m->cache_bytes_max = cache_bytes_max;
	return m;
}

static void cached_free(struct match *m, struct cached *c)
{
	m->cache_bytes -= c->memory;
	mem_free(c->result.hits);
	mem_free(c);
}

static void cache_clear(struct match *m)
{
	uint32_t at = 0;
	for (struct cached *c; (c = map_next(&m->cache, &at)) != NULL;)
		cached_free(m, c);
	map_fini(&m->cache);
	memset(&m->cache, 0, sizeof m->cache);
}

void match_free(struct match *m)
{
	if (m == NULL)
		return;
	cache_clear(m);
	trie_free(m->root);
	mem_free(m->reached);
	mem_free(m->found);
	mem_free(m);
}

static void cache_forget(struct match *m, struct bytes filter)
{
	if (!topic_filter_literal(filter)) {
		m->generation++;
		return;
	}
	struct cached *c = map_remove(&m->cache, filter);
	if (c != NULL)
		cached_free(m, c);
}

/* Room for one more in an array that doubles. */
static void *grown(void *array, size_t count, size_t *room, size_t each)
{
	if (count < *room)
		return array;
	*room = *room > 0 ? *room * 2 : 4;
	void *bigger = mem_resize(array, *room * each);
	must(bigger != NULL);
	return bigger;
}

void match_add(struct match *m, struct subscription *sub)
{
	struct node *n = m->root;
	struct bytes rest = sub->filter, level;
	bool more = true;
	while (topic_level_next(&rest, &more, &level))
		n = child_make(n, level);
	size_t room = n->sub_room;
	n->subs = grown(n->subs, n->sub_count, &room, sizeof *n->subs);
	n->sub_room = (uint32_t)room;
	n->subs[n->sub_count++] = sub;
	sub->priv[0] = (uint64_t)(uintptr_t)n;
	m->count++;
	cache_forget(m, sub->filter);
}

void match_remove(struct match *m, struct subscription *sub)
{
	struct node *n = (struct node *)(uintptr_t)sub->priv[0];
	uint32_t i = 0;
	while (i < n->sub_count && n->subs[i] != sub)
		i++;
	must(i < n->sub_count);
	n->subs[i] = n->subs[--n->sub_count];
	sub->priv[0] = 0;
	m->count--;
	cache_forget(m, sub->filter);
	prune(n);
}

static void found_add(struct match *m, const struct node *n)
{
	for (uint32_t i = 0; n != NULL && i < n->sub_count; i++) {
		m->found = grown(
			m->found, m->found_count, &m->found_room, sizeof(struct subscription *));
		m->found[m->found_count++] = n->subs[i];
	}
}

static void reached_add(struct match *m, size_t *count, struct node *n)
{
	if (n == NULL)
		return;
	m->reached = grown(m->reached, *count, &m->reached_room, sizeof(struct node *));
	m->reached[(*count)++] = n;
}

/* Collects into m->found what topic matches. */
static void walk(struct match *m, struct bytes topic)
{
	size_t from = 0, count = 0;
	struct bytes rest = topic, level;
	bool more = true, first = true;
	bool hidden = topic.len > 0 && topic.at[0] == '$';
	m->found_count = 0;
	reached_add(m, &count, m->root);
	while (topic_level_next(&rest, &more, &level)) {
		size_t to = count;
		for (size_t i = from; i < to; i++) {
			struct node *n = m->reached[i];
			if (!(first && hidden)) {
				found_add(m, n->hash);
				reached_add(m, &count, n->plus);
			}
			reached_add(m, &count, map_get(&n->children, level));
		}
		/* The next level's nodes move to the front, so that the scratch stays small. */
		memmove(m->reached, m->reached + to, (count - to) * sizeof(struct node *));
		count -= to;
		from = 0;
		first = false;
	}
	for (size_t i = 0; i < count; i++) {
		found_add(m, m->reached[i]);
		found_add(m, m->reached[i]->hash); /* "a/#" matches "a" (MQTT 5 §4.7.1.2) */
	}
}

static int by_subscriber(const void *a, const void *b)
{
	const struct subscription *x = *(struct subscription *const *)a;
	const struct subscription *y = *(struct subscription *const *)b;
	uintptr_t p = (uintptr_t)x->who, q = (uintptr_t)y->who;
	return p < q ? -1 : p > q;
}

/* Groups m->found by subscriber into one block: the hits, then the subscriptions. */
static size_t group(struct match *m, struct match_result *out)
{
	size_t n = m->found_count, who = 0;
	if (n > 1)
		qsort(m->found, n, sizeof(struct subscription *), by_subscriber);
	for (size_t i = 0; i < n; i++)
		who += i == 0 || m->found[i]->who != m->found[i - 1]->who;
	size_t size = who * sizeof(struct match_hit) + n * sizeof(struct subscription *);
	*out = (struct match_result){(int)who, n > 0 ? mem_new(size) : NULL};
	struct subscription **subs = (struct subscription **)(void *)(out->hits + who);
	size_t hits = 0;
	for (size_t i = 0; i < n; i++) {
		struct subscription *s = m->found[i];
		subs[i] = s;
		if (i == 0 || s->who != m->found[i - 1]->who)
			out->hits[hits++] = (struct match_hit){s->who, s->qos, 0, &subs[i]};
		struct match_hit *hit = &out->hits[hits - 1];
		hit->count++;
		hit->qos = s->qos > hit->qos ? s->qos : hit->qos;
	}
	return size;
}

const struct match_result *match_find(struct match *m, struct bytes topic)
{
	struct cached *c = map_get(&m->cache, topic);
	if (c != NULL && c->generation == m->generation)
		return &c->result;
	if (c != NULL) {
		(void)map_remove(&m->cache, topic);
		cached_free(m, c);
	} else if (m->cache_bytes > m->cache_bytes_max) {
		cache_clear(m);
	}
	walk(m, topic);
	c = mem_new(sizeof *c + topic.len);
	c->topic_len = (uint32_t)topic.len;
	memcpy(c->topic, topic.at, topic.len);
	c->generation = m->generation;
	c->memory = sizeof *c + topic.len + group(m, &c->result) + 32;
	m->cache_bytes += c->memory;
	(void)map_put(&m->cache, cached_topic(c), c);
	return &c->result;
}

int64_t match_count(const struct match *m)
{
	return m->count;
}
size_t match_cache_bytes(const struct match *m)
{
	return m->cache_bytes;
}
