/* What group.c, group_protocol.c and group_state.c share: members as a group holds them. */
#ifndef BROKER_GROUP_PRIV_H
#define BROKER_GROUP_PRIV_H
#include "server/broker/group.h"

enum { GROUP_PROTOCOLS_MAX = 64 /* per member: finding a common one takes time by their square */ };

struct group_member {
	struct list node;
	struct slice id, instance, client_id, client_host, assignment;
	struct group_member_protocol {
		struct slice name, metadata;
	} * protocols;
	uint32_t protocol_count;
	int32_t session_ms, rebalance_ms;
	int64_t deadline_ms; /* of the session, while it does not wait */
	size_t bytes;
	struct group_join *join; /* waits */
	struct group_join *back; /* waits for nothing but that its new id is stored */
	struct group_sync *sync; /* waits */
	bool synced;             /* has asked for its assignment of this generation */
};

/* Copies what j says; shares id. ERR_TOOBIG, ERR_NOMEM. */
enum err group_member_new(struct group *g, const struct group_join *j, const struct slice *id,
	struct group_member **out) MUST_USE;
void group_member_remove(struct group *g, struct group_member *m, enum group_err why);
/* Copies. ERR_TOOBIG: over the group's or the loop's bound. */
enum err group_member_assign(
	struct group *g, struct group_member *m, struct bytes assignment) MUST_USE;

/* A copy; null and empty stay what they are. ERR_NOMEM. */
enum err group_keep(struct bytes b, struct slice *out) MUST_USE;

/* group_protocol.c. Gives: group_protocols_free. */
enum err group_protocols_copy(
	const struct group_join *j, struct group_member_protocol **out, size_t *bytes) MUST_USE;
void group_protocols_free(struct group_member_protocol *list, uint32_t count);
size_t group_protocols_bytes(const struct group_join *j);
/* Whether all members other than but (NULL: all) speak one of those asked for. */
bool group_protocols_fit(
	const struct group *g, const struct group_join *j, const struct group_member *but);
bool group_protocols_same(const struct group_member *m, const struct group_join *j);
/* The one most members like best among those that all speak; a share. */
struct slice group_protocol_choose(const struct group *g);

#endif
