/* What groups write, as proposals that the leader of a table evaluates from their bytes alone. Each
 * function appends the args of its kind. Pure, but for the evaluators. */
#ifndef BROKER_GROUP_STORE_H
#define BROKER_GROUP_STORE_H
#include "server/broker/group_home.h"

extern const struct proposal_kind group_store_kind, group_offsets_kind, group_delete_kind;

/* A generation and its members; state "" when nobody is in it. ERR_CONFLICT: the row has a later
 * generation, so somebody else has coordinated meanwhile. */
void group_store_args(
	struct buf *out, struct bytes group_id, const struct group_row *row, struct bytes state);
/* Offsets put or, with forget, deleted: those whose err is GROUP_OK. A row of the group that is
 * older than renew_before_ms is renewed, so that the group does not look forgotten. */
struct group_offsets_what {
	struct bytes group_id;
	const struct group_offset *offsets;
	uint32_t count;
	bool forget;
	int64_t now_ms, renew_before_ms;
};
void group_offsets_args(struct buf *out, const struct group_offsets_what *what);
/* Offsets by their keys; with last the group, too. */
void group_delete_args(
	struct buf *out, struct bytes group_id, bool last, const struct row *rows, int count);

/* The members' row: KEYSPACE_GROUP_STATE, group id -> version, generation, time, state. */
struct group_state_row {
	int32_t generation;
	int64_t time_ms;
	struct bytes state;
};
void group_state_row_write(struct buf *out, const struct group_state_row *row);
enum err group_state_row_read(struct bytes in, struct group_state_row *out) MUST_USE; /* borrows */

#endif
