/* A group's members as bytes: kept with each generation, so that the group goes on with it where
 * the table is led next, and nobody has to join again. Pure.
 *
 *	version 1, state 1 (0: joining again, 1: stable), protocol str, leader str, members 4, then
 *	each: id str, instance str, client id str, client host str, session ms 4, rebalance ms 4,
 *	protocols 1, each {name str, metadata blob}, assignment blob
 *	str: length 2 (ffff: null) and bytes; blob: length 4 (ffffffff: null) and bytes */
#ifndef BROKER_GROUP_STATE_H
#define BROKER_GROUP_STATE_H
#include "server/broker/group.h"

enum { GROUP_STATE_BYTES_MAX = 1 << 20 /* a larger group joins again at a new place */ };

/* Appends. Nothing for a group without members. out->err: ERR_TOOBIG. */
void group_state_write(const struct group *g, struct buf *out);
/* Into a group just made (group_init, generation and protocol type set). On failure the group is
 * as it was: empty. ERR_CORRUPT; ERR_TOOBIG, ERR_NOMEM. */
enum err group_state_read(struct group *g, struct bytes in, int64_t now_ms) MUST_USE;

#endif
