/* Topic names and filters (MQTT 5 §4.7). Pure. */
#ifndef BROKER_TOPIC_H
#define BROKER_TOPIC_H
#include "server/base/wire.h"

bool topic_name_valid(struct bytes topic); /* UTF-8, 1-65535 bytes, no NUL, no + or # */
/* Well placed wildcards, not too many levels (each costs a node); $share is not looked into. */
bool topic_filter_valid(struct bytes filter);
/* What a subscription to it is counted for where memory is bounded: its bytes, and its levels. */
uint32_t topic_filter_weight(struct bytes filter);
bool topic_filter_literal(struct bytes filter);              /* holds no wildcard */
bool topic_matches(struct bytes filter, struct bytes topic); /* $-topics by the book */
/* Whether some topic matches both. */
bool topic_filters_overlap(struct bytes a, struct bytes b);
/* Steps over one level: *rest starts as the whole text, *more as true; false at the end. "a/" has
 * two levels, the last one empty. */
bool topic_level_next(struct bytes *rest, bool *more, struct bytes *level);

#endif
