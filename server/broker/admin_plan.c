/* What a change of nodes would move: the same pure functions that the controller plans with, run
 * over the catalogue as it is and the nodes as they would be. What is done later may differ, for
 * nodes come and go meanwhile. */
#include "cluster/placement.h"
#include "server/base/mem.h"
#include "server/broker/admin_cluster.h"

static void add_nodes(
	struct shard *s, enum admin_plan_kind kind, uint32_t drained, struct placement *p)
{
	const struct cluster_node *n;
	for (int at = 0; place_node_next(s, &at, &n) && p->count < PLACEMENT_NODES_MAX;) {
		bool leaves = n->state != NODE_ACTIVE ||
			(kind == ADMIN_PLAN_DRAIN && n->id == drained);
		p->nodes[p->count++] = (struct place_node){.id = n->id,
			.rack = n->rack,
			.active = !leaves,
			.alive = place_reachable(s, n->id)};
	}
}

static bool group_of(struct shard *s, const struct admin_group *g, struct place_group *out)
{
	const struct group_place *at = catalog_place(
		shard_catalog(s), partition_group(g->partition));
	*out = (struct place_group){0};
	for (int i = 0; at != NULL && i < at->voter_count && i < PLACEMENT_REPLICAS_MAX; i++)
		out->members[out->count++] = (uint32_t)(at->members[i] >> 32);
	out->wanted = out->count;
	out->table = strcmp(g->stream, "__tables") == 0;
	return out->count > 0;
}

static void add_move(struct admin_plan *out, const struct admin_group *g,
	const struct place_group *before, const struct place_group *after, const char *reason)
{
	struct admin_move *m = &out->moves[out->count++];
	*m = (struct admin_move){.group = *g,
		.reason = reason,
		.before_count = before->count,
		.after_count = after->count};
	for (int i = 0; i < before->count; i++)
		m->before[i] = before->members[i];
	for (int i = 0; i < after->count; i++)
		m->after[i] = after->members[i];
	out->short_of += after->count < before->count;
}

static void plan_group(struct placement *p, enum admin_plan_kind kind, const struct admin_group *g,
	struct place_group at, struct admin_plan *out)
{
	const struct place_group before = at;
	enum placement_reason reason = placement_repair(p, &at), more;
	if (kind == ADMIN_PLAN_BALANCE) {
		for (int i = 0; i < PLACEMENT_REPLICAS_MAX; i++)
			if ((more = placement_improve(p, &at)) != PLACEMENT_KEEP)
				reason = more;
			else
				break;
		more = placement_lead(p, &at);
		if (reason == PLACEMENT_KEEP)
			reason = more;
	}
	if (reason != PLACEMENT_KEEP)
		add_move(out, g, &before, &at, placement_reason_text(reason));
}

enum err admin_plan(
	struct shard *s, enum admin_plan_kind kind, uint32_t node, struct admin_plan *out)
{
	const struct catalog *c = shard_catalog(s);
	struct placement p = {0};
	struct place_group at;
	struct admin_group g;
	int count = admin_group_count(c);
	*out = (struct admin_plan){0};
	if (kind == ADMIN_PLAN_DRAIN &&
		(catalog_node(c, node) == NULL || catalog_node(c, node)->state == NODE_REMOVED))
		return ERR_NOTFOUND;
	out->moves = mem_try((size_t)count * sizeof *out->moves);
	if (out->moves == NULL)
		return ERR_NOMEM;
	add_nodes(s, kind, node, &p);
	/* The catalogue itself follows all nodes: it is no part of plans. */
	for (int i = 1; i < count; i++)
		if (admin_group_at(c, i, &g) && group_of(s, &g, &at))
			placement_count(&p, &at, 1);
	for (int i = 1; i < count; i++)
		if (admin_group_at(c, i, &g) && group_of(s, &g, &at))
			plan_group(&p, kind, &g, at, out);
	return OK;
}

void admin_plan_free(struct admin_plan *p)
{
	mem_free(p->moves);
	*p = (struct admin_plan){0};
}
