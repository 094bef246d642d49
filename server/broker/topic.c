/* Topic names and filters, level by level. A filter is walked together with a topic (or another
 * filter) with one cursor each; nothing recurses and nothing is copied. */
#include "server/broker/topic.h"

enum { TOPIC_BYTES_MAX = 65535, FILTER_LEVELS_MAX = 256, LEVEL_WEIGHT = 32 };

static bool text_valid(struct bytes t)
{
	return t.len > 0 && t.len <= TOPIC_BYTES_MAX && memchr(t.at, 0, t.len) == NULL &&
		bytes_utf8(t);
}

bool topic_name_valid(struct bytes topic)
{
	return text_valid(topic) && memchr(topic.at, '+', topic.len) == NULL &&
		memchr(topic.at, '#', topic.len) == NULL;
}

bool topic_level_next(struct bytes *rest, bool *more, struct bytes *level)
{
	if (!*more)
		return false;
	const uint8_t *slash = rest->len > 0 ? memchr(rest->at, '/', rest->len) : NULL;
	size_t len = slash != NULL ? (size_t)(slash - rest->at) : rest->len;
	*level = bytes_of(rest->at, len);
	*more = slash != NULL;
	if (slash != NULL)
		*rest = bytes_of(slash + 1, rest->len - len - 1);
	return true;
}

static bool is_one(struct bytes level, char c)
{
	return level.len == 1 && level.at[0] == (uint8_t)c;
}

bool topic_filter_valid(struct bytes filter)
{
	if (!text_valid(filter))
		return false;
	struct bytes rest = filter, level;
	bool more = true;
	for (int levels = 0; topic_level_next(&rest, &more, &level); levels++) {
		if (levels == FILTER_LEVELS_MAX)
			return false;
		bool wild = level.len > 0 &&
			(memchr(level.at, '+', level.len) != NULL ||
				memchr(level.at, '#', level.len) != NULL);
		if (wild && level.len != 1)
			return false; /* MQTT-4.7.1-2: a wildcard stands alone in its level */
		if (is_one(level, '#') && more)
			return false; /* MQTT-4.7.1-1: # only at the end */
	}
	return true;
}

uint32_t topic_filter_weight(struct bytes filter)
{
	uint32_t weight = (uint32_t)filter.len + LEVEL_WEIGHT;
	for (size_t i = 0; i < filter.len; i++)
		weight += filter.at[i] == '/' ? LEVEL_WEIGHT : 0;
	return weight;
}

bool topic_filter_literal(struct bytes filter)
{
	return filter.len == 0 ||
		(memchr(filter.at, '+', filter.len) == NULL &&
			memchr(filter.at, '#', filter.len) == NULL);
}

/* MQTT-4.7.2-1: a leading wildcard matches no topic that starts with $. */
static bool hidden_from(struct bytes filter, struct bytes topic)
{
	return topic.len > 0 && topic.at[0] == '$' && filter.len > 0 &&
		(filter.at[0] == '+' || filter.at[0] == '#');
}

bool topic_matches(struct bytes filter, struct bytes topic)
{
	if (hidden_from(filter, topic))
		return false;
	bool more_f = true, more_t = true;
	struct bytes f, t;
	while (topic_level_next(&filter, &more_f, &f)) {
		if (is_one(f, '#'))
			return true; /* also the parent level, where no topic level is left */
		if (!topic_level_next(&topic, &more_t, &t))
			return false;
		if (!is_one(f, '+') && !bytes_equal(f, t))
			return false;
	}
	return !more_t;
}

bool topic_filters_overlap(struct bytes a, struct bytes b)
{
	if (hidden_from(a, b) || hidden_from(b, a))
		return false;
	bool more_a = true, more_b = true;
	struct bytes x, y;
	for (;;) {
		bool has_a = topic_level_next(&a, &more_a, &x);
		bool has_b = topic_level_next(&b, &more_b, &y);
		if ((has_a && is_one(x, '#')) || (has_b && is_one(y, '#')))
			return true;
		if (has_a != has_b)
			return false;
		if (!has_a)
			return true;
		if (!is_one(x, '+') && !is_one(y, '+') && !bytes_equal(x, y))
			return false;
	}
}
