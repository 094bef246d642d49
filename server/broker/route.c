/* The table is a sorted array; with more than one route the answer for a topic is kept in a map,
 * bounded in bytes and emptied when it is full (topics repeat, or no cache would help). */
#include "server/broker/route.h"
#include <stdio.h>
#include <stdlib.h>
#include "server/base/conf.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "server/broker/tenant.h"
#include "server/broker/topic.h"

enum { CACHE_BYTES_MAX = 1 << 20, LEVEL_MAX = 128 };
static const char default_name[] = "default";

struct cached {
	int route;
	uint32_t len;
	uint8_t topic[];
};

struct routes {
	struct route *at;
	int count;
	struct map cache;
	size_t cache_bytes;
};

/* The next word between blanks; empty at the end. */
static struct bytes word_next(const char **at)
{
	const char *p = *at;
	while (*p == ' ' || *p == '\t')
		p++;
	const char *start = p;
	while (*p != 0 && *p != ' ' && *p != '\t')
		p++;
	*at = p;
	return bytes_of(start, (size_t)(p - start));
}

static char *word_text(struct bytes w)
{
	return mem_text(w.at, w.len);
}
static bool word_is(struct bytes w, const char *text)
{
	return bytes_equal(w, bytes_text(text));
}
static bool word_starts(struct bytes w, const char *text, struct bytes *rest)
{
	size_t n = strlen(text);
	if (w.len < n || memcmp(w.at, text, n) != 0)
		return false;
	*rest = bytes_of(w.at + n, w.len - n);
	return true;
}

static bool parse_key(struct bytes value, struct route *out)
{
	struct bytes in;
	if (word_is(value, "topic"))
		return true;
	if (value.len == 0 || value.at[value.len - 1] != ')')
		return false;
	value.len--;
	if (word_starts(value, "text(", &in)) {
		out->key = ROUTE_KEY_TEXT;
		mem_free(out->text);
		out->text = word_text(in);
		return in.len > 0;
	}
	if (!word_starts(value, "level(", &in))
		return false;
	char *number = word_text(in);
	int64_t level = 0;
	bool good = conf_parse_int(number, &level) == OK && level >= 1 && level <= LEVEL_MAX;
	mem_free(number);
	out->key = ROUTE_KEY_LEVEL;
	out->level = (int)level;
	return good;
}

static const char *parse_option(struct bytes w, struct route *out)
{
	struct bytes value;
	if (word_starts(w, "durability=", &value)) {
		out->memory = word_is(value, "memory");
		return out->memory || word_is(value, "sync") ? NULL
							     : "durability is sync or memory";
	}
	if (word_starts(w, "key=", &value))
		return parse_key(value, out) ? NULL : "key is topic, level(N) or text(WORD)";
	return "options are durability= and key=";
}

static const char *parse(const char *text, struct route *out)
{
	struct bytes filter = word_next(&text), arrow = word_next(&text), stream = word_next(&text);
	if (!word_is(arrow, "->"))
		return "a route is FILTER -> STREAM [durability=sync|memory] [key=...]";
	if (!topic_filter_valid(filter))
		return "not a valid topic filter";
	if (!stream_name_valid(stream))
		return "stream names have 1 to 249 of a-z A-Z 0-9 . _ -";
	if (stream_name_internal(stream))
		return "names that begin with __ are the server's own: no route leads there";
	out->filter = word_text(filter);
	out->stream = word_text(stream);
	for (struct bytes w; (w = word_next(&text)).len > 0;) {
		const char *bad = parse_option(w, out);
		if (bad != NULL)
			return bad;
	}
	return NULL;
}

enum err route_parse(const char *text, struct route *out, char *why, size_t why_size)
{
	*out = (struct route){.memory = false};
	const char *bad = parse(text, out);
	if (bad == NULL)
		return OK;
	(void)snprintf(why, why_size, "%s", bad);
	route_fini(out);
	return ERR_INVALID;
}

void route_fini(struct route *r)
{
	mem_free(r->name);
	mem_free(r->filter);
	mem_free(r->stream);
	mem_free(r->text);
	*r = (struct route){.memory = false};
}

enum err route_check(const char *text, char *why, size_t why_size)
{
	struct route r;
	enum err e = route_parse(text, &r, why, why_size);
	if (e == OK)
		route_fini(&r);
	return e;
}

static void cache_clear(struct routes *rs)
{
	uint32_t at = 0;
	for (struct cached *c; (c = map_next(&rs->cache, &at)) != NULL;)
		mem_free(c);
	map_fini(&rs->cache);
	memset(&rs->cache, 0, sizeof rs->cache);
	rs->cache_bytes = 0;
}

struct routes *routes_new(void)
{
	struct routes *rs = mem_new(sizeof *rs);
	char why[80];
	must(routes_set(rs, default_name, "# -> mqtt", why, sizeof why) == OK);
	return rs;
}

void routes_free(struct routes *rs)
{
	if (rs == NULL)
		return;
	cache_clear(rs);
	for (int i = 0; i < rs->count; i++)
		route_fini(&rs->at[i]);
	mem_free(rs->at);
	mem_free(rs);
}

static bool is_default(const struct route *r)
{
	return strcmp(r->name, default_name) == 0;
}

static int by_name(const void *a, const void *b)
{
	const struct route *x = a, *y = b;
	int last = is_default(x) - is_default(y);
	return last != 0 ? last : strcmp(x->name, y->name);
}

enum err routes_set(
	struct routes *rs, const char *name, const char *text, char *why, size_t why_size)
{
	struct route r;
	enum err e = route_parse(text, &r, why, why_size);
	if (e != OK)
		return e;
	r.name = word_text(bytes_text(name));
	cache_clear(rs);
	for (int i = 0; i < rs->count; i++)
		if (strcmp(rs->at[i].name, name) == 0) {
			route_fini(&rs->at[i]);
			rs->at[i] = r;
			return OK;
		}
	struct route *more = mem_resize(rs->at, (size_t)(rs->count + 1) * sizeof *more);
	must(more != NULL);
	rs->at = more;
	rs->at[rs->count++] = r;
	qsort(rs->at, (size_t)rs->count, sizeof *rs->at, by_name);
	return OK;
}

int routes_count(const struct routes *rs)
{
	return rs->count;
}
const struct route *routes_at(const struct routes *rs, int index)
{
	return &rs->at[index];
}

/* The default takes what starts with $ too: # would hide it (MQTT 5 §4.7.2), but a client that
 * publishes to "$name/..." must be heard by those who subscribe to that very name. */
static bool takes(const struct route *r, struct bytes topic)
{
	return topic_matches(bytes_text(r->filter), topic) ||
		(is_default(r) && strcmp(r->filter, "#") == 0);
}

static int find(const struct routes *rs, struct bytes topic)
{
	struct bytes rest;
	if (topic.len > 0 && topic.at[0] == '$' &&
		(word_starts(topic, "$SYS/", &rest) || word_starts(topic, "$share/", &rest)))
		return -1;
	for (int i = 0; i < rs->count; i++)
		if (takes(&rs->at[i], topic))
			return i;
	return -1;
}

int routes_find(struct routes *rs, struct bytes topic)
{
	if (rs->count == 1)
		return find(rs, topic);
	struct cached *c = map_get(&rs->cache, topic);
	if (c != NULL)
		return c->route;
	int found = find(rs, topic);
	if (topic.len == 0)
		return found;
	if (rs->cache_bytes > CACHE_BYTES_MAX)
		cache_clear(rs);
	c = mem_new(sizeof *c + topic.len);
	c->route = found;
	c->len = (uint32_t)topic.len;
	memcpy(c->topic, topic.at, topic.len);
	rs->cache_bytes += sizeof *c + topic.len + 48;
	(void)map_put(&rs->cache, bytes_of(c->topic, c->len), c);
	return found;
}

struct bytes route_key(const struct route *r, struct bytes topic)
{
	if (r->key == ROUTE_KEY_TEXT)
		return bytes_text(r->text);
	if (r->key == ROUTE_KEY_TOPIC)
		return topic;
	struct bytes rest = topic, level = topic;
	bool more = true;
	for (int i = 0; i < r->level; i++)
		if (!topic_level_next(&rest, &more, &level))
			return topic;
	return level;
}
