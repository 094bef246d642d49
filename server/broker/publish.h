/* Publishing a message by topic: route -> stream, key -> partition; a turn's messages for one
 * partition become one batch and one proposal. The same call for every protocol and QoS. */
#ifndef BROKER_PUBLISH_H
#define BROKER_PUBLISH_H
#include "server/broker/broker.h"
#include "server/broker/message.h"

/* Duplicates of a durable session's QoS 2: the partition remembers {client, packet id -> epoch,
 * offset} in rows KEYSPACE_QOS2 written with the record. */
struct qos2_claim {
	struct bytes client_id; /* borrowed until shard_publish_claimed returns */
	uint64_t epoch;         /* of the session's claim */
	uint64_t born;          /* epoch in which the session began: older rows are not its own */
	uint16_t packet_id;
	/* It is the will of that session (packet id 0): published once, whoever does it how often,
	 * and whatever epoch the client has by now. Remembered for some time by itself. */
	bool will;
};

struct publish {          /* embed; one outcome awaited; belongs to the shard until done runs */
	struct list node; /* private */
	/* OK, ERR_NOSPACE, ERR_UNAVAILABLE (no leader for 3 s: try again), ... While another node
	 * comes to lead, it only takes longer. */
	enum err err;
	int64_t offset;              /* -1 on a memory route */
	struct partition *partition; /* NULL on a memory route */
	void (*done)(struct publish *
			p); /* on the shard's loop, in order per partition, never inside the call */
};
/* Copies m into the turn's batch. p NULL: no outcome wanted (QoS 0). Fails at once, without done:
 * ERR_TOOBIG (message.bytes_max), ERR_INVALID (topic), ERR_DENIED (no route, or no such tenant),
 * ERR_UNAVAILABLE, ERR_BUSY (too much in flight on this loop, or the tenant's first stream is being
 * made: pause reading, await shard_when_room; nothing was taken). */
enum err shard_publish(struct shard *s, const struct message *m, struct publish *p) MUST_USE;

/* The same for a message that must be stored once: a repeat of a packet id that is still remembered
 * ends with OK and the offset of the first; an epoch below the client's greatest with ERR_FENCED.
 * On a memory route the claim is ignored. p is not NULL. */
enum err shard_publish_claimed(struct shard *s, const struct message *m,
	const struct qos2_claim *claim, struct publish *p) MUST_USE;
/* The row's key for client and packet id; out holds client_id.len + QOS2_KEY_EXTRA bytes. All keys
 * of a client start with the first client_id.len + 1 bytes; the one of just these is its epoch. To
 * forget a packet id (PUBREL), delete its row in the partition that was published to. */
enum { QOS2_KEY_EXTRA = 3 };
size_t qos2_key(struct bytes client_id, uint16_t packet_id, uint8_t *out);
/* Reads a row. ERR_NOTFOUND: it is the client's epoch row; ERR_CORRUPT. */
enum err qos2_row_decode(struct bytes key, struct bytes value, uint16_t *packet_id, uint64_t *epoch,
	int64_t *offset) MUST_USE;

/* Whether it is the row of a will that was published, and when it was put. */
bool qos2_row_will(struct bytes key, struct bytes value, int64_t *put_ms);

struct room_wait {
	struct list node;
	void (*room)(struct room_wait *w);
};
/* room runs once when there is room again (then ask anew); list_remove(&w->node) cancels. */
void shard_when_room(struct shard *s, struct room_wait *w);

#endif
