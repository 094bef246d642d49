/* Where partitions are, as doors tell their clients: who leads, who has replicas, which of those
 * can be reached. What is said is what this node knows at the moment; only leaders know better.
 * Thread: the loop of the shard. */
#ifndef BROKER_PLACE_H
#define BROKER_PLACE_H
#include "server/broker/broker.h"

enum { PLACE_REPLICAS_MAX = 64 };

struct place {
	uint32_t leader; /* 0: none known */
	int32_t epoch;
	bool leads, here; /* this node leads it, serves it; has a replica */
	int count;        /* of replicas that vote; the preferred leader first */
	uint32_t replicas[PLACE_REPLICAS_MAX];
	int reachable_count;
	uint32_t reachable[PLACE_REPLICAS_MAX];
	int lost_count;
	uint32_t lost[PLACE_REPLICAS_MAX];
};
void place_of(struct shard *s, const struct partition *p, struct place *out);
/* The node that leads it as far as known, this one included; 0: none. */
uint32_t place_leader(const struct shard *s, const struct partition *p);
/* Whether a connection to that node is open, or it is this one. */
bool place_reachable(const struct shard *s, uint32_t node);
/* The node of a replica in that rack that can be reached and was in sync a moment ago. 0: none, or
 * the leader is there itself, or it is not known yet. */
uint32_t place_nearest(struct shard *s, struct partition *p, struct bytes rack);
/* Nodes of the catalogue that are in use, in order of id. *at starts at 0; false at the end. */
bool place_node_next(const struct shard *s, int *at, const struct cluster_node **out);

#endif
