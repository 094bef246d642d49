/* The cluster as administrators see it: what each node says of itself, what each leader says of its
 * replicas, what is wrong, and what a change of nodes would move. Any node can be asked; what
 * others know is asked of them, and who does not answer is shown as such. Thread: the loop of the
 * shard. Completions never run inside the call that started them. */
#ifndef BROKER_ADMIN_CLUSTER_H
#define BROKER_ADMIN_CLUSTER_H
#include "server/broker/place.h"

enum { ADMIN_MEMBERS_MAX = 16 };

/* --- nodes */

struct admin_nodes { /* given, freed by admin_nodes_free after done */
	int count;
	void (*done)(struct admin_nodes *n);
	void *arg;
};
void admin_nodes(struct shard *s, void (*done)(struct admin_nodes *n), void *arg);
/* In order of id; err: it does not answer. */
const struct node_status *admin_nodes_at(const struct admin_nodes *n, int index);
void admin_nodes_free(struct admin_nodes *n);

/* --- groups and their replicas */

/* All groups: the catalogue, the tables, the partitions of streams in order of name. */
struct admin_group {
	const char *stream; /* "__catalog", "__tables" for what is no stream */
	int index;
	struct partition *partition;
};
int admin_group_count(const struct catalog *c);
bool admin_group_at(const struct catalog *c, int number, struct admin_group *out);

struct admin_member {
	uint32_t node;
	bool votes, in_sync;
	int64_t behind; /* entries that it has not; -1: not known */
	bool fetches;   /* log and rows; how far it is (struct partition_member) */
	int64_t fetched, fetched_total, fetched_bytes;
};
struct admin_replicas {
	struct admin_group group;
	bool answered;   /* its leader did; else what is known here */
	bool moving;     /* its members are not yet what the catalogue wants */
	uint32_t leader; /* 0: none known */
	int32_t epoch;
	int64_t first_offset, next_offset, bytes;
	int count;
	struct admin_member members[ADMIN_MEMBERS_MAX];
};
struct admin_look { /* given, freed by admin_look_free after done */
	int count;
	struct admin_replicas *of;
	void (*done)(struct admin_look *l);
	void *arg;
};
/* Copies groups. Asks some at a time. ERR_NOMEM. */
enum err admin_look(struct shard *s, const struct admin_group *groups, int count,
	void (*done)(struct admin_look *l), void *arg) MUST_USE;
void admin_look_free(struct admin_look *l);

/* --- what is wrong, from what this node knows and what nodes said */

struct admin_health {
	int groups, leaderless, under_replicated; /* a replica that votes can't be reached */
	int silent, unready, bad_disks, draining; /* nodes */
	int unsettled;                            /* groups with moves under way */
	bool healthy;
};
void admin_health(struct shard *s, const struct admin_nodes *n, struct admin_health *out);

/* --- plans: what would move, before anything does */

enum admin_plan_kind { ADMIN_PLAN_DRAIN, ADMIN_PLAN_BALANCE };
struct admin_move {
	struct admin_group group;
	const char *reason;
	int before_count, after_count;
	uint32_t before[ADMIN_MEMBERS_MAX], after[ADMIN_MEMBERS_MAX]; /* nodes; first leads best */
};
struct admin_plan { /* freed by admin_plan_free; good for this turn */
	int count;
	struct admin_move *moves;
	int short_of; /* groups that would have fewer replicas than now */
};
/* ERR_NOTFOUND: no such node. ERR_NOMEM. */
enum err admin_plan(
	struct shard *s, enum admin_plan_kind kind, uint32_t node, struct admin_plan *out) MUST_USE;
void admin_plan_free(struct admin_plan *p);

#endif
