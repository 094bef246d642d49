/* The rows of durable sessions, in the table group of the client id (key: the client id):
 * KEYSPACE_SESSION says who it is and what it subscribes to; KEYSPACE_CURSOR where it reads on and
 * what is in flight, in one row, so that the two agree; KEYSPACE_WILL (will.h). Pure; any thread.
 *
 * A cursor's usual form is a low-water offset and a bitmap of what is acknowledged above it; this
 * is the dual, which the window bounds: the offset up to which all was taken, and those below it
 * that are not acknowledged yet. */
#ifndef BROKER_SESSION_ROWS_H
#define BROKER_SESSION_ROWS_H
#include "server/base/buf.h"
#include "server/broker/window.h"

enum { SESSION_NEVER = UINT32_MAX }; /* expiry_s */

struct session_place { /* an offset in the partition of a group */
	uint64_t group;
	int64_t offset;
};

struct session_owner { /* the process a client is connected to */
	uint32_t node; /* 0: a row of before there were several */
	uint64_t boot;
};
static inline bool session_owner_equal(struct session_owner a, struct session_owner b)
{
	return a.node == b.node && a.boot == b.boot;
}

/* KEYSPACE_SESSION. OFFSET/SIZE/MEANING: 0/1 version 3; 1/1 flags (1: connected); 2/8 epoch;
 * 10/8 epoch in which the session began; 18/4 node and 22/8 boot of the owner; 30/4 expiry in s;
 * 34/8 wall ms of the last connect or disconnect; 42/2 n of partitions that QoS 2 was published
 * to, n * 8 their groups; then 4 n of subscriptions, each: 2 length and filter, 1 options (bits 0-1
 * QoS, 2 No Local, 3 Retain As Published), 4 identifier, 2 n of starts, each 8 group and 8 offset.
 * All big endian. Version 2 is the same without the owner; it is read. */
struct session_row {
	bool connected;
	uint64_t epoch, born;
	struct session_owner owner; /* in whose hands it is or, when not connected, was */
	uint32_t expiry_s;
	int64_t since_ms;
	uint32_t group_count;
	struct bytes groups; /* read: session_row_group */
	uint32_t subscription_count;
	struct bytes subscriptions; /* read: session_row_next */
};
struct session_row_sub {
	struct bytes filter;
	uint8_t qos;
	bool no_local, retain_as_published;
	uint32_t id;
	uint32_t start_count;
	struct bytes starts; /* read: session_row_start */
};

/* Writing: begin, then each subscription (begin, starts, end), then end. Errors stick in out. */
void session_row_begin(struct buf *out, const struct session_row *row, const uint64_t *groups);
size_t session_row_subs_begin(struct buf *out); /* gives the mark for session_row_subs_end */
void session_row_subs_end(struct buf *out, size_t mark, uint32_t count);
size_t session_row_sub_begin(struct buf *out, const struct session_row_sub *sub);
void session_row_sub_start(struct buf *out, struct session_place start);
void session_row_sub_end(struct buf *out, size_t mark, uint16_t starts);

/* The row just read with another head: groups and subscriptions are its own. */
void session_row_again(struct buf *out, const struct session_row *row);

/* Checks the whole row. ERR_CORRUPT. */
enum err session_row_read(struct bytes in, struct session_row *out) MUST_USE;
/* Only what is before the groups, at less cost. */
enum err session_row_head(struct bytes in, struct session_row *out) MUST_USE;
uint64_t session_row_group(const struct session_row *row, uint32_t index);
/* *rest starts as row->subscriptions; false at the end. */
bool session_row_next(struct bytes *rest, struct session_row_sub *out);
struct session_place session_row_start(const struct session_row_sub *sub, uint32_t index);
/* When the session is over: wall ms, INT64_MAX never. A connected one counts from now. */
int64_t session_row_ends_ms(const struct session_row *row, int64_t now_ms);

/* KEYSPACE_CURSOR. 0/1 version 1; 1/4 n of positions, each 8 group, 8 offset; then 4 n in flight,
 * in order, each 2 packet id, 1 state (bit 7: retained), 8 group, 8 offset. */
struct cursor_row {
	uint32_t position_count, inflight_count;
	struct bytes positions, inflight;
};
struct cursor_inflight {
	uint16_t packet_id;
	struct window_entry entry;
};
size_t cursor_row_begin(struct buf *out);
void cursor_row_position(struct buf *out, struct session_place place);
void cursor_row_end(struct buf *out, size_t mark, uint32_t positions, const struct window *w);
enum err cursor_row_read(struct bytes in, struct cursor_row *out) MUST_USE;
struct session_place cursor_row_position_at(const struct cursor_row *row, uint32_t index);
struct cursor_inflight cursor_row_inflight_at(const struct cursor_row *row, uint32_t index);

#endif
