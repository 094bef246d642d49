/* Where groups live: each group on the home loop of the table that owns its id, made when it is
 * first spoken of and forgotten when nobody is in it; its row and its committed offsets stay in the
 * table. Calls come from any loop and are answered there.
 *
 * Rows. KEYSPACE_GROUP: group id -> version, generation, time, protocol type.
 * KEYSPACE_GROUP_STATE: group id -> version, generation, time, members (group_state.h).
 * KEYSPACE_GROUP_OFFSET: length and group id, stream uuid, partition -> version, offset, leader
 * epoch, time, metadata. */
#ifndef BROKER_GROUP_HOME_H
#define BROKER_GROUP_HOME_H
#include "server/broker/broker.h"
#include "server/broker/group.h"

struct groups; /* of a process */

struct groups *groups_new(const struct group_conf *conf, struct loops *loops);
/* All that wait are answered, no timer fires any more. Not from a loop; done when loops have
 * turned. */
void groups_stop(struct groups *g);
void groups_free(struct groups *g); /* loops stand */

enum group_call_kind {
	GROUP_CALL_JOIN,
	GROUP_CALL_SYNC,
	GROUP_CALL_HEARTBEAT,
	GROUP_CALL_LEAVE,
	GROUP_CALL_COMMIT,
	GROUP_CALL_FORGET, /* offsets */
	GROUP_CALL_DESCRIBE,
	GROUP_CALL_DELETE,
	GROUP_CALL_LIST, /* of one table */
	GROUP_CALL_COUNT
};

struct group_leaver {
	struct bytes member_id, instance_id;
	enum group_err err;
};
struct group_offset { /* one partition's committed position */
	uint8_t stream[16];
	int32_t partition;
	int64_t offset;
	int32_t epoch;
	struct bytes metadata; /* asked: borrowed; found: see offsets_read */
	struct bytes topic;    /* GROUP_CALL_FORGET: what members call the stream; borrowed */
	enum group_err err;
};
struct group_listed {
	struct slice id, type;
	enum group_state state;
};

struct group_call {              /* the groups' until done; all that is asked is borrowed as long */
	struct loop_msg msg;     /* private */
	struct list node;        /* private */
	struct groups *groups;   /* private */
	struct loop *from;       /* private: done runs here */
	struct partition *table; /* GROUP_CALL_LIST: which; else set by group_call */
	const struct bytes *tenant; /* GROUP_CALL_LIST: whose groups only; NULL: all */
	struct proposal proposal;   /* private */
	struct row_read rows;       /* private */
	void *slot;                 /* private */
	struct buf args;            /* private */

	enum group_call_kind kind;
	struct bytes group_id; /* as it is inside (tenant.h), listed ones too; bare: no NUL */
	int32_t generation;
	struct bytes member_id, instance_id;
	struct group_join join;
	struct group_sync sync;
	struct group_leaver *leavers;
	uint32_t leaver_count;
	struct group_offset *offsets;
	uint32_t offset_count;

	enum group_err err;
	enum group_state state; /* described */
	struct slice type, protocol;
	struct group_member_view *members;
	uint32_t member_count;
	struct group_listed *listed;
	uint32_t listed_count;
	void (*done)(struct group_call *c);
};
/* done runs on the calling loop, never inside. Lists of one table are made one after another. */
void group_call(struct groups *g, const struct catalog *catalog, struct group_call *c);
void group_call_fini(struct group_call *c); /* what was answered */

struct offsets_read {         /* all committed offsets of a group; any loop */
	struct row_read rows; /* private */
	struct buf prefix;    /* private */
	struct buf after;     /* private */
	int64_t bytes;        /* private: counted in held */
	int64_t *held;        /* of this loop: counts what is found, until fini; or NULL */
	int64_t held_max;     /* *held over it: GROUP_UNAVAILABLE */
	enum group_err err;
	struct offsets_found {
		uint8_t stream[16];
		int32_t partition;
		int64_t offset;
		int32_t epoch;
		int64_t commit_ms;
		struct slice metadata;
	} * found; /* ordered by stream, partition */
	uint32_t count, room;
	void (*done)(struct offsets_read *r);
};
void offsets_read(struct offsets_read *r, const struct catalog *catalog, struct bytes group_id);
void offsets_read_fini(struct offsets_read *r);

/* On the home loop of that table: whether the group is in memory, with members or about to be. */
bool groups_busy(struct groups *g, const struct partition *table, struct bytes group_id);

/* Keys and values of the rows: for group_home.c, group_expire.c and tests. */
struct group_row {
	int32_t generation;
	int64_t time_ms; /* last known to be in use */
	struct bytes protocol_type;
};
void group_row_write(struct buf *out, const struct group_row *row);
enum err group_row_read(struct bytes in, struct group_row *out) MUST_USE; /* borrows */
void group_offset_key(
	struct buf *out, struct bytes group_id, const uint8_t stream[16], int32_t partition);
void group_offset_value(struct buf *out, const struct group_offset *o, int64_t now_ms);
enum err group_offset_read(
	struct bytes key, struct bytes value, struct offsets_found *out) MUST_USE;

#endif
