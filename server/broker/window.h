/* Messages on their way to one client and not yet acknowledged: packet ids, in the order of
 * sending. Ids are given one after the other, so the id is the place: a slot is found without
 * searching, an id cannot be used again while it is in flight, and the order is that of the ids.
 * An empty window owns no memory. Owner's thread only; the slots grow up to 65535. */
#ifndef BROKER_WINDOW_H
#define BROKER_WINDOW_H
#include "server/base/wire.h"

enum window_state {
	WINDOW_FREE,     /* acknowledged, or never used */
	WINDOW_HELD1,    /* has an id and its place, but has not been sent yet: QoS 1 */
	WINDOW_HELD2,    /* the same, QoS 2 */
	WINDOW_SENT1,    /* QoS 1: PUBACK is awaited */
	WINDOW_SENT2,    /* QoS 2: PUBREC is awaited */
	WINDOW_RELEASED, /* QoS 2: PUBREC has come, PUBCOMP is awaited */
	WINDOW_STATE_COUNT
};

struct window_entry {
	int64_t offset; /* where the message is, in the partition with this group; -1: in no log */
	uint64_t group;
	uint8_t state; /* enum window_state */
	bool retained; /* sent because of a new subscription: with the RETAIN flag */
	bool again;    /* held, but it was sent before, over an earlier connection */
};

struct window {                     /* all zero bytes = empty */
	struct window_entry *slots; /* a ring */
	uint32_t size;              /* of slots, a power of two */
	uint32_t head;              /* index of the slot of `first` */
	uint32_t span;  /* slots in use from head on, acknowledged ones between included */
	uint16_t first; /* packet id at head; 0: none given yet, 1 is next */
	uint16_t count; /* slots that are not free */
	uint16_t sent;  /* those of them that count for the receiver's maximum */
};

void window_fini(struct window *w);
/* Takes the next packet id, in the state HELD1 or HELD2, SENT1 or SENT2. ERR_BUSY: no id is free;
 * ERR_NOMEM. */
enum err window_take(struct window *w, struct window_entry entry, uint16_t *packet_id) MUST_USE;
/* Puts an entry back that was saved; ids come in the order of window_next. What was SENT is HELD
 * and `again` now: nothing has been sent over the new connection. ERR_CORRUPT: not in order;
 * ERR_NOMEM. */
enum err window_restore(struct window *w, uint16_t packet_id, struct window_entry entry) MUST_USE;
/* NULL: this id is not in flight. */
struct window_entry *window_find(const struct window *w, uint16_t packet_id);
/* HELD -> SENT -> RELEASED. */
void window_move(struct window *w, struct window_entry *e, enum window_state to);
/* Done with: the id is free for the next round. */
void window_done(struct window *w, uint16_t packet_id);
/* The entry after *packet_id in order, which need not be there any more; 0: the first. Sets
 * *packet_id; NULL at the end. */
struct window_entry *window_next(const struct window *w, uint16_t *packet_id);

#endif
