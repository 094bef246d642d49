/* Which subscriptions a topic matches: a trie of filters by level, and in front of it a cache by
 * topic. One per shard; its loop only. A cached topic costs one hash look-up; adding or removing a
 * literal filter forgets one topic, a wildcard forgets all. */
#ifndef BROKER_MATCH_H
#define BROKER_MATCH_H
#include "server/broker/deliver.h"

struct match;

struct match_hit { /* one subscriber that a topic reaches */
	struct subscriber *who;
	uint8_t qos; /* greatest of its matching subscriptions */
	int count;
	struct subscription **matches; /* count of them */
};
struct match_result { /* good until the next add, remove or look-up */
	int count;
	struct match_hit *hits;
};

struct match *match_new(size_t cache_bytes_max);
void match_free(struct match *m); /* the subscriptions are their owners' */
/* Adds sub under its filter, a valid one; sub's priv[0] holds its place from here on. */
void match_add(struct match *m, struct subscription *sub);
void match_remove(struct match *m, struct subscription *sub);
const struct match_result *match_find(struct match *m, struct bytes topic);
int64_t match_count(const struct match *m); /* subscriptions held */
size_t match_cache_bytes(const struct match *m);

#endif
