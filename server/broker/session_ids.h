/* Packet ids of QoS 2 messages that came in and are not released yet, each with the partition its
 * message went to. Few as a rule, at most 65535; sorted by id. Owner's thread only. */
#ifndef BROKER_SESSION_IDS_H
#define BROKER_SESSION_IDS_H
#include "server/base/wire.h"

enum session_id_state {
	ID_PENDING,  /* the publish is not committed yet */
	ID_RECEIVED, /* PUBREC was sent */
	ID_RELEASING /* PUBREL has come; a durable session's row is being removed */
};
struct session_id {
	uint64_t group; /* 0: not known, or of no log */
	uint16_t packet_id;
	uint8_t state; /* enum session_id_state */
};
struct session_ids { /* all zero bytes = empty */
	struct session_id *items;
	uint32_t count, room;
};

void session_ids_fini(struct session_ids *s);
struct session_id *session_ids_find(const struct session_ids *s, uint16_t packet_id);
/* ERR_EXISTS, ERR_NOMEM. */
enum err session_ids_add(struct session_ids *s, struct session_id id) MUST_USE;
void session_ids_remove(struct session_ids *s, uint16_t packet_id); /* not there is fine */

#endif
