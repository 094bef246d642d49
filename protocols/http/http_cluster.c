/* The cluster: nodes, groups and their replicas, changes of nodes and what they would move. Any
 * node answers for all: what others know is asked of them first. */
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/admin_cluster.h"

static bool has_catalog(struct exchange *x)
{
	if (shard_catalog(x->shard) != NULL)
		return true;
	answer_err(x, ERR_UNAVAILABLE, NULL);
	return false;
}

/* ---- nodes */

static const char *state_text(enum node_state s)
{
	static const char *const texts[] = {
		[NODE_ACTIVE] = "active", [NODE_DRAINING] = "draining", [NODE_REMOVED] = "removed"};
	return texts[s];
}

static void add_status(struct json *j, const struct node_status *st)
{
	json_bool(j, "answers", st->err == OK);
	if (st->err != OK)
		return;
	json_bool(j, "ready", st->ready);
	json_text(j, "version", st->version);
	json_text(j, "why", st->why);
	json_int(j, "uptime_s", st->uptime_ms / 1000);
	json_int(j, "memory_bytes", st->rss_bytes);
	json_bool(j, "disk_ok", st->disk_ok);
	json_int(j, "disk_bytes", st->disk_bytes);
	json_int(j, "disk_free_bytes", st->disk_free_bytes);
	json_int(j, "connections", st->connections);
	json_int(j, "replicas", st->replicas);
	json_int(j, "leaders", st->leaders);
	json_int(j, "unsettled", st->unsettled);
}

static void add_node(struct exchange *x, struct json *j, const struct node_status *st)
{
	const struct cluster_node *n = catalog_node(shard_catalog(x->shard), st->node);
	char joined[32];

	json_open(j, NULL, '{');
	json_int(j, "id", st->node);
	if (n != NULL) {
		clock_text(n->joined_ms, joined);
		json_text(j, "name", n->name);
		json_text(j, "rack", n->rack);
		json_text(j, "state", state_text(n->state));
		json_text(j, "address", n->address);
		json_text(j, "joined", joined);
		json_open(j, "doors", '{');
		for (int i = 0; i < n->door_count; i++)
			json_text(j, n->doors[i].key, n->doors[i].value);
		json_close(j, '}');
	}
	add_status(j, st);
	json_close(j, '}');
}

static void add_problem(struct json *j, int count, const char *one, const char *many)
{
	char text[96];

	if (count == 0)
		return;
	(void)snprintf(text, sizeof text, "%d %s", count, count == 1 ? one : many);
	json_text(j, NULL, text);
}

static void add_health(struct json *j, const struct admin_health *h)
{
	json_bool(j, "healthy", h->healthy);
	json_open(j, "problems", '[');
	add_problem(j, h->silent, "node does not answer", "nodes do not answer");
	add_problem(j, h->unready, "node is not ready", "nodes are not ready");
	add_problem(
		j, h->bad_disks, "node's disk fails or is full", "nodes' disks fail or are full");
	add_problem(j, h->leaderless, "group has no leader", "groups have no leader");
	add_problem(j, h->under_replicated, "group lacks a replica", "groups lack replicas");
	json_close(j, ']');
	json_int(j, "groups", h->groups);
	json_int(j, "groups_without_leader", h->leaderless);
	json_int(j, "groups_under_replicated", h->under_replicated);
	json_int(j, "groups_moving", h->unsettled);
	json_int(j, "nodes_draining", h->draining);
}

static void add_leader(struct json *j, uint32_t leader)
{
	if (leader != 0)
		json_int(j, "leader", leader);
	else
		json_null(j, "leader");
}

static void answer_nodes(struct admin_nodes *n, bool with_nodes)
{
	struct exchange *x = n->arg;
	struct json j = json_over(&x->out);
	struct admin_health h;

	admin_health(x->shard, n, &h);
	json_open(&j, NULL, '{');
	json_text(&j, "cluster_name", node_conf(shard_node(x->shard))->cluster_name);
	json_text(&j, "cluster_id", node_cluster_id(shard_node(x->shard)));
	add_health(&j, &h);
	json_int(&j, "streams", catalog_stream_count(shard_catalog(x->shard)));
	add_leader(&j, place_leader(x->shard, catalog_meta(shard_catalog(x->shard))));
	if (with_nodes) {
		json_open(&j, "nodes", '[');
		for (int i = 0; i < n->count; i++)
			add_node(x, &j, admin_nodes_at(n, i));
		json_close(&j, ']');
	}
	json_close(&j, '}');
	admin_nodes_free(n);
	answer_json(x, 200);
}

static void cluster_asked(struct admin_nodes *n)
{
	answer_nodes(n, true);
}

static void health_asked(struct admin_nodes *n)
{
	answer_nodes(n, false);
}

void api_cluster(struct exchange *x)
{
	if (has_catalog(x))
		admin_nodes(x->shard, cluster_asked, x);
}

void api_cluster_health(struct exchange *x)
{
	if (has_catalog(x))
		admin_nodes(x->shard, health_asked, x);
}

/* ---- groups and replicas */

static void add_members(struct json *j, const struct admin_replicas *r)
{
	json_open(j, "replicas", '[');
	for (int i = 0; i < r->count; i++)
		if (r->members[i].votes)
			json_int(j, NULL, r->members[i].node);
	json_close(j, ']');
	json_open(j, "in_sync", '[');
	for (int i = 0; i < r->count; i++)
		if (r->members[i].votes && r->members[i].in_sync)
			json_int(j, NULL, r->members[i].node);
	json_close(j, ']');
}

void json_replicas(struct json *j, const struct admin_replicas *r)
{
	json_int(j, "first_offset", r->first_offset);
	json_int(j, "next_offset", r->next_offset);
	json_int(j, "records", r->next_offset - r->first_offset);
	json_int(j, "bytes", r->bytes);
	add_leader(j, r->leader);
	json_int(j, "epoch", r->epoch);
	add_members(j, r);
	json_bool(j, "moving", r->moving);
}

/* whole: with the tenant. */
static void add_group(struct json *j, const struct admin_replicas *r, bool whole)
{
	json_text(j, "stream", whole ? r->group.stream : stream_bare(r->group.stream));
	json_int(j, "partition", r->group.index);
	json_int(j, "group", (int64_t)partition_group(r->group.partition));
	json_replicas(j, r);
}

/* Whose copy of what is on its way, moving or not: who was away for long fetches, too. */
static void add_fetches(struct json *j, const struct admin_look *l)
{
	json_open(j, "fetches", '[');
	for (int i = 0; i < l->count; i++) {
		const struct admin_replicas *r = &l->of[i];
		for (int k = 0; k < r->count; k++) {
			const struct admin_member *m = &r->members[k];
			if (!m->fetches)
				continue;
			json_open(j, NULL, '{');
			json_text(j, "stream", r->group.stream);
			json_int(j, "partition", r->group.index);
			json_int(j, "node", m->node);
			json_int(j, "entries", m->fetched);
			json_int(j, "entries_total", m->fetched_total);
			json_int(j, "bytes", m->fetched_bytes);
			json_close(j, '}');
		}
	}
	json_close(j, ']');
}

static void look_answered(struct admin_look *l, const char *list, bool moving_only)
{
	struct exchange *x = l->arg;
	struct json j = json_over(&x->out);
	int silent = 0;

	json_open(&j, NULL, '{');
	if (moving_only)
		add_fetches(&j, l);
	json_open(&j, list, '[');
	for (int i = 0; i < l->count; i++) {
		silent += !l->of[i].answered;
		if (moving_only && !l->of[i].moving)
			continue;
		json_open(&j, NULL, '{');
		add_group(&j, &l->of[i], x->route->right.of == RIGHT_WHOLE);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_int(&j, "unanswered", silent); /* groups whose leader did not */
	json_close(&j, '}');
	admin_look_free(l);
	answer_json(x, 200);
}

static void partitions_looked(struct admin_look *l)
{
	look_answered(l, "partitions", false);
}

static void moves_looked(struct admin_look *l)
{
	look_answered(l, "moves", true);
}

/* The name as its tenant says it, if who asks may know of it. */
static bool group_seen(struct exchange *x, const char *full, struct bytes *name)
{
	struct bytes tenant;

	tenant_stream_split(bytes_text(full), &tenant, name);
	return bytes_equal(tenant, access_tenant(x->access)) &&
		exchange_may(x, ACTION_DESCRIBE, RESOURCE_STREAM, *name);
}

/* All groups, or those of the stream of the query. */
static void look_at(struct exchange *x, bool internal, void (*done)(struct admin_look *l))
{
	const struct catalog *c = shard_catalog(x->shard);
	struct bytes stream = request_query(x, "stream");
	int most = admin_group_count(c), count = 0;
	struct admin_group *groups = mem_try((size_t)most * sizeof *groups);
	enum err e = groups == NULL ? ERR_NOMEM : OK;

	for (int i = 0; e == OK && i < most; i++) {
		struct admin_group *g = &groups[count];
		struct bytes name;
		if (!admin_group_at(c, i, g) ||
			(x->route->right.of != RIGHT_WHOLE && !group_seen(x, g->stream, &name)))
			continue;
		if (x->route->right.of == RIGHT_WHOLE)
			name = bytes_text(g->stream);
		if (stream.at != NULL ? bytes_equal(name, stream)
				      : internal || name.at[0] != '_' || name.at[1] != '_')
			count++;
	}
	if (e == OK && count == 0 && stream.at == NULL) {
		buf_addf(&x->out, "{\"%s\":[],\"unanswered\":0}",
			done == moves_looked ? "moves" : "partitions");
		mem_free(groups);
		answer_json(x, 200);
		return;
	}
	if (e == OK)
		e = admin_look(x->shard, groups, count, done, x);
	mem_free(groups);
	if (e != OK)
		answer_err(x, e, e == ERR_NOTFOUND ? "no such stream" : NULL);
}

void api_partitions(struct exchange *x)
{
	bool internal = false;

	if (!has_catalog(x))
		return;
	if (request_query_bool(x, "internal", &internal) != OK)
		answer_error(x, 400, "invalid", "internal must be true or false");
	else
		look_at(x, internal, partitions_looked);
}

void api_cluster_moves(struct exchange *x)
{
	if (has_catalog(x))
		look_at(x, true, moves_looked);
}

static const char *role_text(const struct admin_replicas *r, const struct admin_member *m)
{
	return m->node == r->leader && m->votes ? "leader" : m->votes ? "follower" : "standby";
}

static void partition_looked(struct admin_look *l)
{
	struct exchange *x = l->arg;
	struct json j = json_over(&x->out);
	const struct admin_replicas *r = &l->of[0];

	json_open(&j, NULL, '{');
	add_group(&j, r, false);
	json_bool(&j, "answered", r->answered);
	json_open(&j, "members", '[');
	for (int i = 0; i < r->count; i++) {
		const struct admin_member *m = &r->members[i];
		json_open(&j, NULL, '{');
		json_int(&j, "node", m->node);
		json_text(&j, "role", role_text(r, m));
		json_bool(&j, "in_sync", m->in_sync);
		if (m->behind >= 0)
			json_int(&j, "behind", m->behind);
		else
			json_null(&j, "behind");
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	admin_look_free(l);
	answer_json(x, 200);
}

static bool whole_number(struct bytes text, int64_t *out)
{
	int64_t n = 0;

	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] < '0' || text.at[i] > '9' || i > 9)
			return false;
		n = n * 10 + (text.at[i] - '0');
	}
	*out = n;
	return text.len > 0;
}

void api_partition(struct exchange *x)
{
	struct admin_group g;
	struct bytes name;
	int64_t index;
	bool found = false;
	enum err e = ERR_NOTFOUND;

	if (!has_catalog(x))
		return;
	if (!whole_number(x->params[1], &index)) {
		answer_error(x, 400, "invalid", "the partition must be a number");
		return;
	}
	for (int i = 0; !found && i < admin_group_count(shard_catalog(x->shard)); i++)
		found = admin_group_at(shard_catalog(x->shard), i, &g) && g.index == index &&
			group_seen(x, g.stream, &name) && bytes_equal(name, x->params[0]);
	if (found)
		e = admin_look(x->shard, &g, 1, partition_looked, x);
	if (e != OK)
		answer_err(x, e, e == ERR_NOTFOUND ? "no such partition" : NULL);
}

/* ---- changes */

struct node_change_op {
	struct admin_change change;
	struct exchange *x;
};

static void add_ids(struct json *j, const char *name, const uint32_t *ids, int count)
{
	json_open(j, name, '[');
	for (int i = 0; i < count; i++)
		json_int(j, NULL, ids[i]);
	json_close(j, ']');
}

static void add_plan(struct json *j, const struct admin_plan *p)
{
	json_open(j, "plan", '[');
	for (int i = 0; i < p->count; i++) {
		const struct admin_move *m = &p->moves[i];
		json_open(j, NULL, '{');
		json_text(j, "stream", m->group.stream);
		json_int(j, "partition", m->group.index);
		json_text(j, "reason", m->reason);
		add_ids(j, "from", m->before, m->before_count);
		add_ids(j, "to", m->after, m->after_count);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_int(j, "fewer_replicas", p->short_of);
}

/* A check that went well is answered with what would move. */
static void answer_plan(struct exchange *x, const struct meta_op *op)
{
	struct json j = json_over(&x->out);
	struct admin_plan plan = {0};
	bool drains = op->kind == META_NODE_STATE && op->node_state == NODE_DRAINING;
	enum err e = OK;

	if (drains || op->kind == META_BALANCE)
		e = admin_plan(x->shard, drains ? ADMIN_PLAN_DRAIN : ADMIN_PLAN_BALANCE,
			op->node_id, &plan);
	if (e != OK) {
		answer_err(x, e, NULL);
		return;
	}
	json_open(&j, NULL, '{');
	json_bool(&j, "dry_run", true);
	json_bool(&j, "valid", true);
	add_plan(&j, &plan);
	json_close(&j, '}');
	admin_plan_free(&plan);
	answer_json(x, 200);
}

static void node_changed(struct admin_change *c)
{
	struct node_change_op *n = list_entry(c, struct node_change_op, change);
	const struct meta_op *op = &c->op;
	struct exchange *x = n->x;

	if (op->err != OK)
		answer_err(x, op->err, op->why);
	else if (op->check_only)
		answer_plan(x, op);
	else
		answer_empty(x, 204);
	mem_free(n);
}

static void start_change(struct exchange *x, const struct meta_op *op)
{
	struct node_change_op *n = mem_new(sizeof *n);

	n->x = x;
	n->change.op = *op;
	n->change.op.partitions = n->change.op.replicas = -1;
	exchange_change(x, &n->change, node_changed);
}

static bool read_dry_run(struct exchange *x, struct meta_op *op)
{
	if (request_query_bool(x, "dry_run", &op->check_only) == OK &&
		request_query_bool(x, "force", &op->force) == OK)
		return true;
	answer_error(x, 400, "invalid", "dry_run and force are true or false");
	return false;
}

static void change_state(struct exchange *x, enum node_state to)
{
	struct meta_op op = {.kind = META_NODE_STATE, .node_state = to};
	int64_t id;

	if (!has_catalog(x) || !read_dry_run(x, &op))
		return;
	if (!whole_number(x->params[0], &id) || id == 0 || id > UINT32_MAX) {
		answer_error(x, 400, "invalid", "a node is named by its id, a number");
		return;
	}
	op.node_id = (uint32_t)id;
	start_change(x, &op);
}

void api_node_drain(struct exchange *x)
{
	change_state(x, NODE_DRAINING);
}

void api_node_undrain(struct exchange *x)
{
	change_state(x, NODE_ACTIVE);
}

void api_node_remove(struct exchange *x)
{
	change_state(x, NODE_REMOVED);
}

void api_cluster_balance(struct exchange *x)
{
	struct meta_op op = {.kind = META_BALANCE};

	if (has_catalog(x) && read_dry_run(x, &op))
		start_change(x, &op);
}
