/* The route table: which stream takes a topic, with which key, how durable. Routes are asked in the
 * order of their names, the one named "default" last; it exists unless set otherwise: # -> mqtt.
 * A table is immutable between routes_set calls. One per shard; no I/O. */
#ifndef BROKER_ROUTE_H
#define BROKER_ROUTE_H
#include "server/base/wire.h"

enum route_key { ROUTE_KEY_TOPIC, ROUTE_KEY_LEVEL, ROUTE_KEY_TEXT };

struct route {
	char *name, *filter, *stream; /* owned */
	bool memory;                  /* durability=memory: not in the log */
	enum route_key key;
	int level;  /* ROUTE_KEY_LEVEL: from 1; a topic without it is its own key */
	char *text; /* ROUTE_KEY_TEXT */
};

/* FILTER -> STREAM [durability=sync|memory] [key=topic|level(N)|text(WORD)]. ERR_INVALID with a
 * line in why. Gives out (without a name), to be let go with route_fini. */
enum err route_parse(const char *text, struct route *out, char *why, size_t why_size) MUST_USE;
void route_fini(struct route *r);
/* For the configuration's row route.*. */
enum err route_check(const char *text, char *why, size_t why_size) MUST_USE;

struct routes;
struct routes *routes_new(void); /* with the default */
void routes_free(struct routes *rs);
/* Adds a route or replaces the one of that name. ERR_INVALID. */
enum err routes_set(
	struct routes *rs, const char *name, const char *text, char *why, size_t why_size) MUST_USE;
int routes_count(const struct routes *rs);
const struct route *routes_at(const struct routes *rs, int index); /* in order */
/* The number of the first route that takes topic, -1: none ($SYS/, $share/). Remembers topics, so
 * that a table of many routes costs a look-up. */
int routes_find(struct routes *rs, struct bytes topic);
/* The key of a message on topic; part of topic or of the route. */
struct bytes route_key(const struct route *r, struct bytes topic);

#endif
