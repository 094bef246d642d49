/* The catalogue says where replicas are to be, the partition who leads it, the connection of this
 * loop whether a node can be reached. A node that has just been cut off is named as reachable until
 * its connection breaks.
 *
 * Readers are sent to a replica nearby only if it is in sync, which the home loop of the partition
 * knows. What it said is kept for a second per partition that somebody asks about; who asks while
 * nothing is kept is sent nowhere, which does no harm, and makes it be asked. */
#include "server/broker/place.h"
#include "cluster/peer.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/broker_priv.h"

enum { SYNCS_MAX = 1024, SYNC_NODES_MAX = 8, SYNC_KEPT_MS = 1000 };

struct place_sync { /* of one partition */
	struct partition_info info;
	const struct catalog *held; /* while it is asked */
	uint64_t group;
	int64_t at_ms;
	int count;
	uint32_t nodes[SYNC_NODES_MAX]; /* with replicas in sync */
};

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

static void on_sync(struct partition_info *info)
{
	struct place_sync *y = list_entry(info, struct place_sync, info);
	y->count = 0;
	for (int i = 0; info->err == OK && i < info->member_count && y->count < SYNC_NODES_MAX; i++)
		if (info->members[i].in_sync && info->members[i].role == MEMBER_VOTER)
			y->nodes[y->count++] = (uint32_t)(info->members[i].replica >> 32);
	y->at_ms = clock_ms();
	catalog_release(y->held);
	y->held = NULL;
}

/* Those that nobody has asked about for a while. */
static void forget_old(struct shard *s, int64_t now_ms)
{
	uint32_t at = 0;
	struct place_sync *y;
	while ((y = map_next(&s->syncs, &at)) != NULL) {
		if (y->held != NULL || now_ms - y->at_ms < 2 * SYNC_KEPT_MS)
			continue;
		map_remove_u64(&s->syncs, y->group);
		mem_free(y);
	}
}

static struct place_sync *sync_of(struct shard *s, uint64_t group, int64_t now_ms)
{
	struct place_sync *y = map_get_u64(&s->syncs, group);
	if (y != NULL)
		return y;
	if (s->syncs.count >= SYNCS_MAX)
		forget_old(s, now_ms);
	if (s->syncs.count >= SYNCS_MAX)
		return NULL;
	y = mem_new(sizeof *y);
	y->group = group;
	y->at_ms = INT64_MIN / 2;
	map_put_u64(&s->syncs, group, y);
	return y;
}

/* Whether that node's replica is in sync, by an answer that is not old. Asks anew when it is. */
static bool in_sync(struct shard *s, struct partition *p, uint32_t node)
{
	int64_t now_ms = clock_ms();
	struct place_sync *y = sync_of(s, partition_group(p), now_ms);
	bool found = false;
	if (y == NULL)
		return false;
	bool old = now_ms - y->at_ms > SYNC_KEPT_MS;
	for (int i = 0; i < y->count && !old; i++)
		found |= y->nodes[i] == node;
	if (old && y->held == NULL) {
		y->held = catalog_hold(s->catalog);
		y->info = (struct partition_info){
			.at = p, .wait_ms = SYNC_KEPT_MS, .done = on_sync};
		partition_ask_info(&y->info);
	}
	return found;
}

void place_fini(struct shard *s)
{
	uint32_t at = 0;
	struct place_sync *y;
	while ((y = map_next(&s->syncs, &at)) != NULL) {
		if (y->held != NULL)
			catalog_release(y->held);
		mem_free(y);
	}
	map_fini(&s->syncs);
}

uint32_t place_nearest(struct shard *s, struct partition *p, struct bytes rack)
{
	const struct catalog *c = shard_catalog(s);
	struct place at;
	place_of(s, p, &at);
	if (rack.len == 0 || in_rack(c, at.leader, rack))
		return 0;
	for (int i = 0; i < at.reachable_count; i++)
		if (in_rack(c, at.reachable[i], rack) && in_sync(s, p, at.reachable[i]))
			return at.reachable[i];
	return 0;
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
