/* What sessions ask of the table of their client id, as bytes: a claim, what is written while it
 * holds, absence, the end. The leader of the table decides from these bytes and its rows alone, so
 * the one who asks may be on any node. Pure but for the evaluators, which run on the table's home.
 * All big endian; blob: length 4 and bytes; id: length 2 and bytes.
 *
 * A row belongs to its epoch: who holds a lower one than the row's, or one that was declared
 * absent meanwhile, writes nothing any more (ERR_FENCED). */
#ifndef BROKER_SESSION_ASK_H
#define BROKER_SESSION_ASK_H
#include "cluster/partition.h"
#include "server/broker/session_rows.h"

extern const struct proposal_kind session_claim_kind, session_write_kind, session_end_kind,
	session_absent_kind;
void session_kinds_add(void); /* boot: these, and those of session_qos2.c */

/* A claim. flags 1, expiry 4, owner 4 + 8, epoch of the one to be taken over 8, epoch of the one
 * whose will was published 8, id, will to the end (none: empty). */
struct session_claim_ask {
	bool clean; /* what there was is forgotten */
	bool brief; /* without a session to go on with: a short row all the same */
	uint32_t expiry_s;
	struct session_owner owner;
	/* Somebody else's session that has been told: it is taken over if it is still that one. */
	uint64_t force_epoch;
	uint64_t settled_epoch; /* the session whose will has been seen off */
	struct bytes id, will;
};
void session_claim_args(struct buf *out, const struct session_claim_ask *ask);
/* outcome 1. HELD: owner 4 + 8, epoch 8. WILL: epoch 8, will to the end. TAKEN: present 1, epoch 8,
 * born 8, n 2 of QoS 2's partitions, each 8; blobs: row and cursor as they were, if present. */
enum session_claim_outcome {
	CLAIM_TAKEN,
	CLAIM_HELD, /* by owner, in epoch, who is to be told; nothing has changed */
	CLAIM_WILL  /* that of epoch is to be published first; nothing has changed */
};
struct session_claim_reply {
	enum session_claim_outcome outcome;
	struct session_owner owner;
	uint64_t epoch, born;
	bool present;
	uint32_t group_count;
	struct bytes groups; /* 8 each */
	struct bytes will, row, cursor;
};
enum err session_claim_reply_read(struct bytes in, struct session_claim_reply *out) MUST_USE;

/* A write: flags 1, epoch 8, id, blobs: will, row, then the cursor to the end. What is missing is
 * left as it is, but for the will at the end. */
struct session_write_ask {
	bool last; /* the client is away from now on; its will waits, or else goes */
	bool end;  /* last: the session is over, its rows go */
	/* last: only that; the row is as another session left it, and the will does not count. */
	bool untouched;
	uint64_t epoch;
	struct bytes id, will;
};
/* Gives the mark of the row's length: the row follows, if there is one; then session_write_row_end,
 * then the cursor, if any. */
size_t session_write_args(struct buf *out, const struct session_write_ask *ask);
void session_write_row_end(struct buf *out, size_t mark);

/* The end of an absent one, in two steps, so that a will is published once by whoever gets to it:
 * TAKE marks the will as leaving and gives it, END removes what is over. ERR_CONFLICT: its client
 * has come back. step 1, epoch 8, id to the end. Reply of TAKE: n 2 of QoS 2's partitions, each 8;
 * the will to the end. */
enum session_end_step { SESSION_TAKE_WILL = 1, SESSION_FORGET_WILL = 2, SESSION_END = 3 };
void session_end_args(struct buf *out, enum session_end_step step, uint64_t epoch, struct bytes id);
enum err session_taken_read(
	struct bytes in, uint32_t *group_count, struct bytes *groups, struct bytes *will) MUST_USE;

/* Sessions of a process that is gone are absent from now on: owner 4 + 8, then each: epoch 8, id.
 * Those that have another owner or epoch by then stay. */
void session_absent_begin(struct buf *out, struct session_owner owner);
void session_absent_add(struct buf *out, uint64_t epoch, struct bytes id);

#endif
