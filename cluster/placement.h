/* Where replicas go: pure functions from what there is to what is better, tested alone. Racks come
 * first (as many different ones as can be had), then load, and nothing is moved without a gain.
 * Loads are counted as plans are made, so that a run of plans stays even. */
#ifndef CLUSTER_PLACEMENT_H
#define CLUSTER_PLACEMENT_H
#include "server/base/wire.h"

enum {
	PLACEMENT_NODES_MAX = 64,
	PLACEMENT_REPLICAS_MAX = 7,
	CATALOG_VOTERS_MAX = 5, /* further nodes follow the catalogue without a vote */
	TABLE_REPLICAS = 3
};

struct place_node {
	uint32_t id;
	const char *rack;      /* "" counts as a rack of its own for each node */
	bool active;           /* may have replicas; else those it has are to leave */
	bool alive;            /* answers now: only such nodes get new replicas of a
				  group that is there */
	int replicas, leaders; /* wanted there; counted by placement_count */
	int tables_led;        /* of these, tables */
};
struct place_group {
	bool table; /* leaders of tables and of partitions are evened out apart */
	int wanted; /* replicas, if there are that many nodes */
	int count;
	uint32_t members[PLACEMENT_REPLICAS_MAX]; /* node ids; [0] leads best */
	uint32_t lost; /* bit i: members[i] is gone with its data, and is to be made anew */
	uint32_t dead; /* bit i: members[i] is not waited for: it goes if another node can take over
			*/
};
struct placement {
	struct place_node nodes[PLACEMENT_NODES_MAX]; /* in any order */
	int count;
};

/* Adds what a group weighs to the nodes' loads; with sign -1 takes it away. */
void placement_count(struct placement *p, const struct place_group *g, int sign);
/* Members for a new group of that many replicas; at least one if any node is active. Counts them.
 * Gives their number. */
int placement_new(struct placement *p, int wanted, uint32_t members[PLACEMENT_REPLICAS_MAX]);

enum placement_reason {
	PLACEMENT_KEEP,
	PLACEMENT_LEAVE,  /* a member's node drains or is removed */
	PLACEMENT_DEAD,   /* a member's node does not answer and is not waited for */
	PLACEMENT_RETURN, /* a member's node came back without its data */
	PLACEMENT_RAISE,
	PLACEMENT_LOWER,
	PLACEMENT_RACK,
	PLACEMENT_LOAD,
	PLACEMENT_LEADER
};
const char *placement_reason_text(enum placement_reason r);
/* What must change about a group: changes g's members (lost ones that stay are no longer lost in
 * g: the caller gives them new replicas), and the loads. */
enum placement_reason placement_repair(struct placement *p, struct place_group *g);
/* What would be better about a group, replicas even over racks and nodes: one member moves. */
enum placement_reason placement_improve(struct placement *p, struct place_group *g);
/* Another of its members had better lead: only the order changes. */
enum placement_reason placement_lead(struct placement *p, struct place_group *g);

/* The catalogue: everyone follows it. Orders the ids of members (in: as they are, voters first;
 * out: all nodes of p but those that were removed) and gives how many of them vote. A draining
 * node has no vote unless there is no other. */
int placement_catalog(const struct placement *p, uint32_t *members, int *count, int voters);

#endif
