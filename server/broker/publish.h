/* Publishing a message by topic: route -> stream, key -> partition; a turn's messages for one
 * partition become one batch and one proposal. The same call for every protocol and QoS. */
#ifndef BROKER_PUBLISH_H
#define BROKER_PUBLISH_H
#include "server/broker/broker.h"
#include "server/broker/message.h"

struct qos2_claim; /* session.h: duplicates of durable sessions' QoS 2 */

struct publish { /* embed; one outcome awaited; belongs to the shard until done runs */
	struct list node;             /* private */
	enum err err;                 /* OK, ERR_NOSPACE, ERR_UNAVAILABLE, ERR_UNKNOWN, ... */
	int64_t offset;               /* -1 on a memory route */
	struct partition *partition;  /* NULL on a memory route */
	void (*done)(struct publish *p); /* on the shard's loop, in order per partition, never inside the call */
};
/* Copies m into the turn's batch. p NULL: no outcome wanted (QoS 0). Fails at once, without done:
 * ERR_TOOBIG (message.bytes_max), ERR_INVALID (topic), ERR_DENIED, ERR_UNAVAILABLE, ERR_BUSY (too
 * much in flight on this loop: pause reading, await shard_when_room; nothing was taken). */
enum err shard_publish(struct shard *s, const struct message *m, struct publish *p) MUST_USE;

struct room_wait { struct list node; void (*room)(struct room_wait *w); };
/* room runs once when there is room again (then ask anew); list_remove(&w->node) cancels. */
void shard_when_room(struct shard *s, struct room_wait *w);

#endif
