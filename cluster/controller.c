/* Who should have what. The leader of the meta group compares places with nodes and wishes, and
 * changes some places at a time; the leaders of the groups make it so (membership.h), and are asked
 * whether they have. A node has at most cluster.moves groups that move. In this order:
 *
 *	the catalogue   every node follows it, up to five vote
 *	repair          members on nodes that drain or are gone, members that lost their data, too
 *	                few or too many replicas
 *	leaders         evened out over the nodes, as far as members allow
 *	balance         if it was asked for: replicas evened out over racks and nodes
 *
 * Nothing here is remembered: who leads next looks anew. Each node tells its own addresses to the
 * catalogue, too. */
#include "cluster/node_priv.h"
#include "server/base/log.h"

enum {
	PLAN_MS = 200,
	PLAN_LARGE_MS = 1000, /* with many groups */
	LARGE_COUNT = 1000,
	ASK_AGAIN_MS = 200,
	ASK_LACKING_MS = 1000, /* a replica is not in sync */
	REFRESH_MS = 15000,    /* settled groups are looked at again */
	ASKS_MAX = 32,
	ARGS_MAX = 1 << 20,
	TELL_MS = 1000,
	STEADY_MS = 500, /* after leadership, before anything moves */
	/* A move is weighed: one with hardly any data is over in a moment. */
	MOVE_WEIGHT = 16,
	SMALL_BYTES = 1 << 20,
	HAND_OVER_MS = 5000,   /* from one handing over of the catalogue to the next */
	TARGET_DEAD_MS = 30000 /* a move to a node that is silent for so long is planned anew */
};

struct controller {
	struct node *node;
	bool leads;
	int64_t led_ms, plan_ms, handed_ms;
	int asks;
	bool proposing;
	struct proposal proposal;
	struct slice args;
	uint32_t ask_at; /* where the walk over places goes on */
};

struct ask {
	struct partition_info info;
	struct node *node;
	uint64_t group;
	struct meta_place row; /* as of the question */
};

/* --- what groups have become --- */

static bool same_members(const struct meta_place *p, const struct partition_info *i)
{
	int found = 0;

	for (int k = 0; k < p->member_count; k++) {
		for (int m = 0; m < i->member_count; m++) {
			bool votes = i->members[m].role == MEMBER_VOTER;

			found += i->members[m].replica == p->members[k] &&
				votes == (k < p->voter_count);
		}
	}
	return found == p->member_count && i->member_count == p->member_count;
}

static void note_voters(struct model_place *p, const struct partition_info *i)
{
	p->present = i->err == OK ? 0 : -1;
	if (i->err != OK)
		return;
	p->bytes = i->bytes;
	p->vote_count = 0;
	for (int k = 0; k < i->member_count; k++) {
		if (i->members[k].role != MEMBER_VOTER)
			continue;
		p->present += i->members[k].in_sync;
		if (p->vote_count < VOTES_MAX)
			p->votes[p->vote_count++] = i->members[k].replica;
	}
}

static void asked(struct partition_info *i)
{
	struct ask *a = list_entry(i, struct ask, info);
	struct node *n = a->node;
	struct model_place *p = map_get_u64(&n->places, a->group);

	n->controller->asks--;
	if (p != NULL) {
		p->asked = false;
		p->asked_ms = loop_now_ms(n->home);
		if (memcmp(&a->row, &p->row, sizeof a->row) == 0)
			note_voters(p, i);
		if (i->err != OK || memcmp(&a->row, &p->row, sizeof a->row) != 0)
			p->settled = SETTLED_UNKNOWN;
		else
			p->settled = same_members(&p->row, i) ? SETTLED_YES : SETTLED_NO;
	}
	mem_free(a);
	node_end_if_idle(n);
}

static void ask(struct controller *c, struct model_place *p)
{
	struct node *n = c->node;
	struct group *g = map_get_u64(&n->groups, p->row.group);
	struct ask *a;

	if (g == NULL || !g->ready || !g->wanted || g->busy)
		return;
	a = mem_new(sizeof *a);
	a->node = n;
	a->group = p->row.group;
	a->row = p->row;
	a->info.at = g->partition;
	a->info.done = asked;
	p->asked = true;
	c->asks++;
	partition_ask_info(&a->info);
}

static int64_t ask_after_ms(const struct model_place *p)
{
	if (p->settled != SETTLED_YES)
		return ASK_AGAIN_MS;
	return p->present < p->row.voter_count ? ASK_LACKING_MS : REFRESH_MS;
}

static void ask_some(struct controller *c, int64_t now_ms)
{
	struct node *n = c->node;
	struct model_place *p;
	uint32_t at = c->ask_at, seen = 0;

	while (c->asks < ASKS_MAX && seen++ <= n->places.count) {
		p = map_next(&n->places, &at);
		if (p == NULL) {
			at = 0;
			continue;
		}
		if (!p->asked && now_ms - p->asked_ms >= ask_after_ms(p))
			ask(c, p);
	}
	c->ask_at = at;
}

/* --- plans --- */

struct plan {
	struct controller *c;
	struct placement nodes;
	int64_t moving[PLACEMENT_NODES_MAX]; /* groups of each node that move, weighed */
	struct meta_request q;
	bool repairing; /* something is not as it must be, planned or not */
	int would;      /* count only */
	enum { PLAN_REPAIR, PLAN_LEADERS, PLAN_BALANCE, PLAN_COUNT } pass;
};

static int index_of(const struct placement *p, uint32_t id)
{
	for (int i = 0; i < p->count; i++) {
		if (p->nodes[i].id == id)
			return i;
	}
	return -1;
}

static int weight(const struct model_place *p)
{
	return p->bytes < SMALL_BYTES ? 1 : MOVE_WEIGHT;
}

static void count_moving(struct plan *a, const struct model_place *p)
{
	const struct meta_place *row = &p->row;

	for (int i = 0; i < row->member_count; i++) {
		int at = index_of(&a->nodes, (uint32_t)(row->members[i] >> 32));

		if (at >= 0)
			a->moving[at] += weight(p);
	}
}

static bool first_look(void *arg, struct model_place *p, int wanted)
{
	struct plan *a = arg;

	(void)wanted;
	if (p->settled != SETTLED_YES)
		count_moving(a, p);
	return true;
}

static bool votes(const struct model_place *p, uint64_t replica)
{
	for (int i = 0; i < p->vote_count; i++) {
		if (p->votes[i] == replica)
			return true;
	}
	return false;
}

/* A node that was to get a replica and died before it had it is not waited for; one that had it is
 * if the operator says so (cluster.replace_after). */
static bool not_waited_for(const struct node *n, const struct model_place *p, uint64_t replica)
{
	int64_t silent_ms = model_silent_ms(n, (uint32_t)(replica >> 32));
	int64_t after_ms = n->conf.replace_after_ms;

	if (after_ms > 0 && silent_ms >= after_ms)
		return true;
	return silent_ms >= TARGET_DEAD_MS && p->vote_count > 0 && !votes(p, replica);
}

static void group_of(
	const struct node *n, const struct model_place *p, int wanted, struct place_group *out)
{
	const struct meta_place *row = &p->row;

	*out = (struct place_group){.wanted = wanted, .table = row->group < META_STREAM_FIRST};
	for (int i = 0; i < row->member_count && i < PLACEMENT_REPLICAS_MAX; i++) {
		out->members[out->count] = (uint32_t)(row->members[i] >> 32);
		if (model_lost(n, row->members[i]))
			out->lost |= 1u << out->count;
		if (not_waited_for(n, p, row->members[i]))
			out->dead |= 1u << out->count;
		out->count++;
	}
}

static bool has_member(const struct place_group *g, uint32_t id)
{
	for (int i = 0; i < g->count; i++) {
		if (g->members[i] == id)
			return true;
	}
	return false;
}

/* Whether all nodes that get or lose a replica may have one more group that moves. One that does
 * not answer is not kept busy; a group that moves already is counted where it is. */
static bool has_room(const struct plan *a, const struct place_group *old,
	const struct place_group *new_, bool counted)
{
	int64_t max = a->c->node->conf.moves * MOVE_WEIGHT;

	for (int i = 0; i < a->nodes.count; i++) {
		uint32_t id = a->nodes.nodes[i].id;
		bool had = has_member(old, id), has = has_member(new_, id);
		bool more = had != has || (old->lost != 0 && has);

		if (more && a->nodes.nodes[i].alive && !(had && counted) && a->moving[i] >= max)
			return false;
	}
	return true;
}

/* It is one more that moves, on each node that gets or loses a replica. */
static void count_change(
	struct plan *a, const struct place_group *old, const struct place_group *new_, int weighs)
{
	for (int i = 0; i < a->nodes.count; i++) {
		uint32_t id = a->nodes.nodes[i].id;

		if (has_member(old, id) != has_member(new_, id) ||
			(old->lost != 0 && has_member(new_, id)))
			a->moving[i] += weighs;
	}
}

static void plan_place(
	struct plan *a, uint64_t group, const uint32_t *members, int count, int voters)
{
	struct meta_asked_place *to;

	if (a->q.places == NULL)
		a->q.places = mem_new(META_PLACES_MAX * sizeof *a->q.places);
	to = &a->q.places[a->q.place_count++];
	*to = (struct meta_asked_place){.group = group, .count = count, .voters = voters};
	memcpy(to->nodes, members, (size_t)count * sizeof *members);
}

static enum placement_reason improve(struct plan *a, struct place_group *g)
{
	switch (a->pass) {
	case PLAN_REPAIR: return placement_repair(&a->nodes, g);
	case PLAN_LEADERS: return placement_lead(&a->nodes, g);
	case PLAN_BALANCE:
	case PLAN_COUNT: return placement_improve(&a->nodes, g);
	}
	return PLACEMENT_KEEP;
}

/* A group that moves already is left alone, unless where it moves to leaves or was lost. */
static bool plan_group(void *arg, struct model_place *p, int wanted)
{
	struct plan *a = arg;
	struct node *n = a->c->node;
	struct place_group old, g;
	enum placement_reason why;
	bool urgent;

	group_of(n, p, wanted, &old);
	if (p->settled != SETTLED_YES && a->pass != PLAN_REPAIR && a->pass != PLAN_COUNT) {
		a->repairing = true;
		return true;
	}
	g = old;
	why = improve(a, &g);
	if (why == PLACEMENT_KEEP)
		return true;
	urgent = why == PLACEMENT_LEAVE || why == PLACEMENT_RETURN || why == PLACEMENT_DEAD;
	a->repairing |= a->pass == PLAN_REPAIR;
	a->would++;
	if (a->pass == PLAN_COUNT)
		return true;
	if ((p->settled != SETTLED_YES && !urgent) ||
		(why != PLACEMENT_LEADER && !has_room(a, &old, &g, p->settled != SETTLED_YES))) {
		placement_count(&a->nodes, &g, -1);
		placement_count(&a->nodes, &old, 1);
		return true;
	}
	plan_place(a, p->row.group, g.members, g.count, g.count);
	count_change(a, &old, &g, weight(p));
	LOG(LOG_INFO, AREA_CLUSTER, "move", "group=%llu why=%s", (unsigned long long)p->row.group,
		placement_reason_text(why));
	return a->q.place_count < META_PLACES_MAX;
}

static void plan_catalog(struct plan *a)
{
	struct node *n = a->c->node;
	const struct model_place *p = map_get_u64(&n->places, META_GROUP_ID);
	uint32_t members[META_MEMBERS_MAX];
	bool changed;
	int count, voters;

	if (p == NULL || p->settled != SETTLED_YES)
		return;
	count = p->row.member_count;
	for (int i = 0; i < count; i++)
		members[i] = (uint32_t)(p->row.members[i] >> 32);
	voters = placement_catalog(&a->nodes, members, &count, p->row.voter_count);
	changed = voters != p->row.voter_count || count != p->row.member_count;
	for (int i = 0; i < count && !changed; i++)
		changed = members[i] != (uint32_t)(p->row.members[i] >> 32);
	if (changed)
		plan_place(a, META_GROUP_ID, members, count, voters);
}

/* --- proposing --- */

static void proposed(struct proposal *p)
{
	struct controller *c = list_entry(p, struct controller, proposal);

	c->proposing = false;
	slice_unref(&c->args);
	if (p->err != OK && p->err != ERR_CLOSED)
		LOG(LOG_WARN, AREA_CLUSTER, "move_refused", "err=\"%s\" why=\"%s\"",
			err_text(p->err), node_line(p->reply.bytes).text);
	node_end_if_idle(c->node);
}

static void propose(struct controller *c, const struct meta_request *q)
{
	struct buf b;

	buf_init(&b, ARGS_MAX);
	meta_request_encode(q, &b);
	must(b.err == OK);
	c->args = buf_share(&b);
	buf_fini(&b);
	c->proposing = true;
	c->proposal = (struct proposal){.to = c->node->meta,
		.batch_max_ms = -1,
		.kind = &meta_kind,
		.args = c->args.bytes,
		.done = proposed};
	partition_propose(&c->proposal);
}

static void plan(struct controller *c)
{
	struct node *n = c->node;
	struct plan a = {.c = c, .q = {.kind = META_PLACES}};

	model_placement(n, &a.nodes);
	model_place_groups(n, first_look, &a);
	plan_catalog(&a);
	a.pass = PLAN_REPAIR;
	model_place_groups(n, plan_group, &a);
	if (!a.repairing) {
		a.pass = PLAN_LEADERS;
		model_place_groups(n, plan_group, &a);
	}
	if (a.q.place_count == 0 && !a.repairing && n->balance_ms != 0) {
		a.pass = PLAN_BALANCE;
		model_place_groups(n, plan_group, &a);
		if (a.would == 0 && !a.repairing)
			a.q.kind = META_BALANCED;
	}
	if (a.q.place_count > 0 || a.q.kind == META_BALANCED)
		propose(c, &a.q);
	mem_free(a.q.places);
}

int controller_balance_count(void *node)
{
	struct node *n = node;
	struct plan a = {.c = n->controller, .pass = PLAN_COUNT};

	model_placement(n, &a.nodes);
	model_place_groups(n, plan_group, &a);
	return a.would;
}

/* --- time --- */

struct counts {
	const struct node *node;
	int under, leaderless, unsettled, alive, active;
};

static bool all_stay(const struct node *n, const struct meta_place *row)
{
	for (int i = 0; i < row->member_count; i++) {
		const struct model_node *m = map_get_u64(&n->nodes, row->members[i] >> 32);

		if (m == NULL || m->row->state != NODE_ACTIVE || model_lost(n, row->members[i]))
			return false;
	}
	return true;
}

static bool count_group(void *arg, struct model_place *p, int wanted)
{
	struct counts *k = arg;
	int target = wanted < k->active ? wanted : k->active;

	k->under += p->present >= 0 && p->asked_ms != 0 && p->present < target;
	k->leaderless += p->present < 0;
	k->unsettled += p->settled != SETTLED_YES || p->row.member_count != target ||
		!all_stay(k->node, &p->row);
	return true;
}

/* Who is up is looked at, not only listened for: a node may be connected before its row is here. */
static void look_at_nodes(struct node *n, int64_t now_ms, struct counts *k)
{
	struct model_node *m;

	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;) {
		bool self = m->row->id == (uint32_t)n->conf.id;
		bool up = self || (n->peers != NULL && peer_connected(n->peers, m->row->id));

		if (up != m->up)
			m->since_ms = now_ms;
		m->up = up;
		k->alive += up && m->row->state != NODE_REMOVED;
		k->active += m->row->state == NODE_ACTIVE;
	}
}

static void count_groups(struct controller *c, int64_t now_ms)
{
	struct node *n = c->node;
	struct metric_cells *cells = loop_cells(n->home);
	struct counts k = {.node = n};

	look_at_nodes(n, now_ms, &k);
	if (c->leads)
		model_place_groups(n, count_group, &k);
	metric_set(cells, &node_metrics, M_UNDER_REPLICATED, k.under);
	metric_set(cells, &node_metrics, M_LEADERLESS, k.leaderless);
	metric_set(cells, &node_metrics, M_MOVES, c->leads && !node_alone(n) ? k.unsettled : 0);
	metric_set(cells, &node_metrics, M_NODES_ALIVE, c->leads ? k.alive : 0);
	metric_set(cells, &node_metrics, M_GROUPS, c->leads ? (int64_t)n->places.count : 0);
}

static void told(struct proposal *p)
{
	struct node *n = list_entry(p, struct node, telling);

	n->telling_busy = false;
	slice_unref(&n->telling_args);
	if (p->err != OK && p->err != ERR_CLOSED && p->err != ERR_UNAVAILABLE)
		LOG(LOG_WARN, AREA_CLUSTER, "addresses_not_told", "err=\"%s\" why=\"%s\"",
			err_text(p->err), node_line(p->reply.bytes).text);
	if (p->err == ERR_DENIED)
		node_fail(n, "%s", node_line(p->reply.bytes).text);
	node_end_if_idle(n);
}

static bool row_is_true(const struct model_node *m, const struct meta_node *self)
{
	const struct meta_node *row = m->row;

	if (strcmp(row->name, self->name) != 0 || strcmp(row->rack, self->rack) != 0 ||
		strcmp(row->address, self->address) != 0 || row->door_count != self->door_count)
		return false;
	for (int i = 0; i < row->door_count; i++) {
		if (strcmp(row->doors[i].key, self->doors[i].key) != 0 ||
			strcmp(row->doors[i].value, self->doors[i].value) != 0)
			return false;
	}
	return memcmp(row->instance, self->instance, sizeof row->instance) == 0;
}

/* This node has other addresses than its row: the cluster is told. */
static void tell_addresses(struct node *n, int64_t now_ms)
{
	const struct model_node *m = map_get_u64(&n->nodes, (uint64_t)n->conf.id);
	struct meta_request q = {.kind = META_JOIN, .node_id = (uint32_t)n->conf.id};
	struct meta_node self;
	struct buf b;

	if (m == NULL || !n->current || n->telling_busy || now_ms - n->telling_ms < TELL_MS)
		return;
	n->telling_ms = now_ms;
	model_gather_node(n, &self);
	if (m->row->state == NODE_REMOVED &&
		memcmp(m->row->instance, self.instance, sizeof self.instance) == 0)
		node_fail(n,
			"node %lld was removed from the cluster; to come back it needs "
			"empty data",
			(long long)n->conf.id);
	if (m->row->state == NODE_REMOVED || row_is_true(m, &self))
		return;
	q.node = &self;
	buf_init(&b, ARGS_MAX);
	meta_request_encode(&q, &b);
	must(b.err == OK);
	n->telling_args = buf_share(&b);
	buf_fini(&b);
	n->telling_busy = true;
	n->telling = (struct proposal){.to = n->meta,
		.batch_max_ms = -1,
		.kind = &meta_kind,
		.args = n->telling_args.bytes,
		.done = told};
	partition_propose(&n->telling);
}

void controller_peer_changed(struct node *n, uint32_t id, bool up)
{
	struct model_node *m = map_get_u64(&n->nodes, id);

	if (m == NULL)
		return;
	m->up = up;
	m->since_ms = loop_now_ms(n->home);
	LOG(LOG_INFO, AREA_CLUSTER, up ? "node_up" : "node_down", "node=%u", id);
}

/* The catalogue reaches a node from whoever leads it. One that was away while this node lost its
 * data and came back knows this node by its old data, and refuses it: as long as this node led, it
 * would never hear otherwise. So another leads. */
void controller_other_data(struct controller *c, uint32_t by)
{
	struct node *n = c->node;
	const struct model_node *self = map_get_u64(&n->nodes, (uint64_t)n->conf.id);
	const struct model_node *m = map_get_u64(&n->nodes, by);
	int64_t now_ms = loop_now_ms(n->home);

	if (!partition_leads(n->meta) || self == NULL || m == NULL ||
		m->row->state == NODE_REMOVED ||
		memcmp(self->row->instance, n->identity.instance, sizeof self->row->instance) !=
			0 ||
		(c->handed_ms != 0 && now_ms - c->handed_ms < HAND_OVER_MS))
		return;
	c->handed_ms = now_ms;
	LOG(LOG_INFO, AREA_CLUSTER, "catalog_handed_over", "refused_by=%u", by);
	partition_step_aside(n->meta, 0);
}

void controller_tick(struct controller *c, int64_t now_ms)
{
	struct node *n = c->node;
	bool leads = partition_leads(n->meta);

	tell_addresses(n, now_ms);
	if (leads && !c->leads)
		c->led_ms = now_ms;
	c->leads = leads;
	if (now_ms < c->plan_ms || !n->founded || n->version == 0)
		return;
	c->plan_ms = now_ms + (n->places.count > LARGE_COUNT ? PLAN_LARGE_MS : PLAN_MS);
	count_groups(c, now_ms);
	if (!leads || node_alone(n))
		return;
	ask_some(c, now_ms);
	if (c->proposing || n->dirty || n->running || now_ms - c->led_ms < STEADY_MS)
		return;
	plan(c);
}

struct controller *controller_new(struct node *n)
{
	struct controller *c = mem_new(sizeof *c);

	c->node = n;
	return c;
}

void controller_free(struct controller *c)
{
	mem_free(c);
}

bool controller_idle(const struct controller *c)
{
	return c == NULL || (c->asks == 0 && !c->proposing);
}
