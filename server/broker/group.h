/* One consumer group of Kafka's classic protocol: members, generations, rebalances. A pure state
 * machine: time comes in as now_ms, timers are asked for by group_tick's result, answers leave by
 * the `done` of what was asked, storing is the owner's.
 *
 *	             group_join                      deadline or all have joined
 *	EMPTY --------------------> PREPARING -------------------------> COMPLETING
 *	  ^                           ^  |                                |      |
 *	  |   the last member goes    |  |                                |      | the leader's
 *	  +---------------------------+--+   join, leave, expiry          |      | group_sync,
 *stored
 *	                              +-----------------------------------+      v
 *	                              +-------------------------------------- STABLE
 *	DEAD: group_fini; whatever waits is answered.
 *
 * Thread: the home loop of the group's table. Owner: group_home. */
#ifndef BROKER_GROUP_H
#define BROKER_GROUP_H
#include "server/base/buf.h"
#include "server/base/list.h"
#include "server/base/map.h"

struct group_conf {
	int64_t session_ms_min, session_ms_max;
	int64_t initial_delay_ms;    /* a new group waits so long for more members */
	int64_t members_max;         /* per group */
	int64_t bytes_max;           /* of members' metadata and assignments per group */
	int64_t groups_max;          /* with members, per node and table */
	int64_t offset_metadata_max; /* bytes a client may attach to an offset */
	int64_t loop_bytes_max;      /* of all that members say, over the groups of one loop */
	int64_t offsets_keep_ms;     /* of a group that nobody uses */
};

struct group_budget { /* shared by the groups of a loop */
	size_t bytes;
};

enum group_state {
	GROUP_EMPTY,
	GROUP_PREPARING,
	GROUP_COMPLETING,
	GROUP_STABLE,
	GROUP_DEAD,
	GROUP_STATE_COUNT
};
const char *group_state_name(enum group_state s); /* as Kafka's tools show it */

enum group_err {
	GROUP_OK,
	GROUP_BAD_ID,       /* empty group id */
	GROUP_BAD_TIMEOUT,  /* session timeout outside of the limits */
	GROUP_BAD_PROTOCOL, /* nothing in common with the members */
	GROUP_UNKNOWN_MEMBER,
	GROUP_OLD_GENERATION,
	GROUP_REBALANCING, /* join again */
	GROUP_ID_REQUIRED, /* join again with the id given */
	GROUP_FULL,
	GROUP_FENCED_INSTANCE,
	GROUP_NOT_EMPTY,
	GROUP_NOT_FOUND,
	GROUP_SUBSCRIBED, /* its members read that stream */
	GROUP_METADATA_TOOBIG,
	GROUP_NOT_HERE,    /* another node coordinates it */
	GROUP_UNAVAILABLE, /* ask again */
	GROUP_ERR_COUNT
};

struct group_choice { /* an assignment protocol a member speaks */
	struct bytes name, metadata;
};

struct group_member_view { /* slices shared by who fills it */
	struct slice id, instance, client_id, client_host, metadata, assignment;
};

struct group_join {                          /* the caller's; in the group's hands until done */
	struct list node;                    /* private */
	struct bytes member_id, instance_id; /* instance_id.at NULL: a dynamic member */
	struct bytes client_id, client_host, protocol_type;
	const struct group_choice *protocols; /* most preferred first */
	uint32_t protocol_count;
	int32_t session_ms, rebalance_ms;
	bool id_required; /* a new member is first told its id */
	bool knows_skip;  /* understands skip_assignment */
	/* Answered; the slices are shared: group_join_fini. */
	enum group_err err;
	int32_t generation;
	bool skip_assignment; /* leads, but need not assign */
	struct slice type, protocol, leader, id;
	struct group_member_view *members; /* to the leader only */
	uint32_t member_count;
	void (*done)(struct group_join *j); /* may run inside group_join */
};
void group_join_fini(struct group_join *j);

struct group_share { /* what the leader gives a member */
	struct bytes member_id, assignment;
};

struct group_sync { /* likewise */
	struct list node;
	struct bytes member_id, instance_id, protocol_type, protocol; /* .at NULL: not said */
	int32_t generation;
	const struct group_share *assignments; /* by the leader */
	uint32_t assignment_count;
	enum group_err err;
	struct slice type, chosen, assignment; /* shared: group_sync_fini */
	void (*done)(struct group_sync *s);
};
void group_sync_fini(struct group_sync *s);

struct group_member;

struct group {
	const struct group_conf *conf;
	struct group_budget *budget; /* NULL: counts for itself only */
	enum group_state state;
	int32_t generation;
	struct slice protocol_type, protocol;
	struct map members;   /* by id */
	struct list in_order; /* members as they came */
	struct map instances; /* by instance id -> member */
	struct list promised; /* ids given by GROUP_ID_REQUIRED */
	uint32_t promised_count, joining;
	struct group_member *leader;
	int64_t deadline_ms;      /* of the rebalance phase */
	int64_t initial_until_ms; /* a first rebalance is not extended beyond; 0: not a first one */
	size_t bytes;
	bool storing;
	bool keeping; /* a member has a new id that is not stored: it is not told before */
	/* What must be kept is to be stored, then group_stored called: the leader has assigned, or
	 * (storing is false, nobody waits) a member has gone. */
	void (*store)(struct group *g);
};

void group_init(struct group *g, const struct group_conf *conf, int32_t generation);
/* All that wait are answered why. */
void group_fini(struct group *g, enum group_err why);
void group_join(struct group *g, struct group_join *j, int64_t now_ms);
void group_sync(struct group *g, struct group_sync *s, int64_t now_ms);
/* The assignment of that generation is durable, or not. */
void group_stored(struct group *g, int32_t generation, bool ok, int64_t now_ms);
enum group_err group_heartbeat(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms) MUST_USE;
enum group_err group_leave(
	struct group *g, struct bytes member_id, struct bytes instance_id, int64_t now_ms) MUST_USE;
/* Whether offsets may be committed with that membership. */
enum group_err group_may_commit(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms) MUST_USE;
/* Does what is due; gives when to be called next, 0: not needed. */
int64_t group_tick(struct group *g, int64_t now_ms);
/* What was to be stored is, or not; and nothing has been added since. */
void group_kept(struct group *g, bool ok, int64_t now_ms);
uint32_t group_size(const struct group *g);
/* Whether consumers are in it, and one of them reads that topic. If what they said of themselves
 * can't be read, it may be so. */
bool group_consumers(const struct group *g);
bool group_subscribes(const struct group *g, struct bytes topic);
/* Nobody is in it, was promised an id, or waits. */
bool group_idle(const struct group *g);
/* All members, for administrators; give back with group_views_free. ERR_NOMEM. */
enum err group_views(
	const struct group *g, struct group_member_view **out, uint32_t *count) MUST_USE;
void group_views_free(struct group_member_view *views, uint32_t count);

#endif
