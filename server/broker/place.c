/* The catalogue says where replicas are to be, the partition who leads it, the connection of this
 * loop whether a node can be reached. A node that has just been cut off is named as reachable until
 * its connection breaks. */
#include "server/broker/place.h"
#include "cluster/peer.h"

bool place_reachable(const struct shard *s, uint32_t node)
{
	const struct node *n = shard_node(s);
	const struct peers *peers = node_peers(n); /* none: it has no door for nodes */
	return node == node_id(n) || (peers != NULL && peer_connected(peers, node));
}

/* This node leads only once it serves: who has just been elected has its log to finish first. */
uint32_t place_leader(const struct shard *s, const struct partition *p)
{
	uint32_t self = node_id(shard_node(s)), leader;
	if (p == NULL) /* the node is of no cluster yet */
		return 0;
	if (partition_leads(p))
		return self;
	leader = partition_leader(p);
	return leader == self ? 0 : leader;
}

static void add_replica(const struct shard *s, struct place *out, uint32_t node)
{
	if (out->count == PLACE_REPLICAS_MAX)
		return;
	out->replicas[out->count++] = node;
	if (place_reachable(s, node))
		out->reachable[out->reachable_count++] = node;
	else
		out->lost[out->lost_count++] = node;
}

void place_of(struct shard *s, const struct partition *p, struct place *out)
{
	const struct group_place *g = catalog_place(shard_catalog(s), partition_group(p));
	*out = (struct place){.leads = partition_leads(p),
		.here = partition_attached(p),
		.leader = place_leader(s, p),
		.epoch = partition_epoch(p)};
	for (int i = 0; g != NULL && i < g->voter_count; i++)
		add_replica(s, out, (uint32_t)(g->members[i] >> 32));
	if (out->count == 0 && out->here)
		add_replica(s, out, node_id(shard_node(s)));
}

static bool in_rack(const struct catalog *c, uint32_t node, struct bytes rack)
{
	const struct cluster_node *n = catalog_node(c, node);
	return n != NULL && rack.len > 0 && bytes_equal(bytes_text(n->rack), rack);
}

uint32_t place_nearest(struct shard *s, const struct partition *p, struct bytes rack)
{
	const struct catalog *c = shard_catalog(s);
	struct place at;
	uint32_t found = 0;
	place_of(s, p, &at);
	if (rack.len == 0 || in_rack(c, at.leader, rack))
		return 0;
	for (int i = 0; i < at.reachable_count && found == 0; i++)
		if (in_rack(c, at.reachable[i], rack))
			found = at.reachable[i];
	return found;
}

bool place_node_next(const struct shard *s, int *at, const struct cluster_node **out)
{
	const struct catalog *c = shard_catalog(s);
	while (*at < catalog_node_count(c)) {
		*out = catalog_node_at(c, (*at)++);
		if ((*out)->state != NODE_REMOVED)
			return true;
	}
	return false;
}
