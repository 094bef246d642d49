/* Consumer groups. Each request becomes a call that travels to the group's home and comes back;
 * what it borrows of the request stays where it is until then. */
#include "protocols/kafka/kafka_priv.h"

struct ask { /* a call of a request */
	struct group_call call;
	struct kafka_request *r;
	void *part;      /* of the answer, where there are several calls */
	bool asked;      /* of several: nothing was wrong before */
	struct bytes id; /* as they call the group, to be told of */
	uint32_t at;     /* one after another: which group or table of the request */
	struct bytes tenant;
};

static struct ask *ask_new(struct kafka_request *r, enum group_call_kind kind, struct bytes group,
	void (*done)(struct group_call *c))
{
	struct ask *a = kafka_take(r, sizeof *a);
	if (a == NULL)
		return NULL;
	a->r = r;
	a->call.kind = kind;
	a->call.group_id = group;
	a->call.done = done;
	return a;
}

static void ask_fini(struct kafka_request *r)
{
	struct ask *a = r->op;
	if (a != NULL)
		group_call_fini(&a->call);
}

/* The one call of a request, or the next one. */
static void ask_one(struct kafka_request *r, struct ask *a)
{
	r->op = a;
	r->fini = ask_fini;
	r->outstanding++;
	group_call(kafka_of(r)->groups, kafka_catalog(r), &a->call);
}

static struct bytes text_of(const struct slice *s)
{
	return s->bytes.at != NULL ? s->bytes : bytes_of(kafka_empty, 0);
}

static struct bytes null_if_empty(const struct slice *s)
{
	return s->bytes.len > 0 ? s->bytes : bytes_of(NULL, 0);
}

/* JoinGroup */

static void on_join(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_request *r = a->r;
	struct kafka_join_group_res *res = r->res;
	const struct group_join *j = &c->join;
	if (!kafka_landed(r))
		return;
	res->error = kafka_group_code(c->err);
	res->generation = c->err == GROUP_OK ? j->generation : -1;
	res->protocol_type = null_if_empty(&j->type);
	res->protocol_name = r->h.version >= 7 ? null_if_empty(&j->protocol)
					       : text_of(&j->protocol);
	res->leader = text_of(&j->leader);
	res->member_id = j->id.bytes.len > 0 ? j->id.bytes : c->join.member_id;
	res->skip_assignment = r->h.version >= 9 && j->skip_assignment;
	res->members_count = j->member_count;
	res->members = kafka_list(r, &kafka_join_group_res_member_type, j->member_count);
	if (res->members == NULL)
		return;
	for (uint32_t i = 0; i < j->member_count; i++) {
		res->members[i].member_id = text_of(&j->members[i].id);
		res->members[i].instance_id = null_if_empty(&j->members[i].instance);
		res->members[i].metadata = text_of(&j->members[i].metadata);
	}
	kafka_answer(r);
}

static void refuse_join(struct kafka_request *r, int16_t code)
{
	const struct kafka_join_group_req *req = r->req;
	struct kafka_join_group_res *res = r->res;
	res->error = code;
	res->member_id = req->member_id;
	res->protocol_name = r->h.version >= 7 ? bytes_of(NULL, 0) : bytes_of(kafka_empty, 0);
	kafka_answer(r);
}

void kafka_on_join_group(struct kafka_request *r)
{
	const struct kafka_join_group_req *req = r->req;
	struct bytes inside;
	int16_t code = kafka_group(r, ACTION_READ, req->group_id, &inside);
	if (code != KAFKA_NONE) {
		refuse_join(r, code);
		return;
	}
	struct ask *a = ask_new(r, GROUP_CALL_JOIN, inside, on_join);
	if (a == NULL)
		return;
	struct group_choice *choices = kafka_take(r, req->protocols_count * sizeof *choices);
	if (choices == NULL)
		return;
	for (uint32_t i = 0; i < req->protocols_count; i++)
		choices[i] = (struct group_choice){
			req->protocols[i].name, req->protocols[i].metadata};
	struct bytes host = kafka_copy(r, bytes_text(conn_peer(r->kc->conn)));
	a->call.join = (struct group_join){
		.member_id = req->member_id,
		.instance_id = req->instance_id,
		.client_id = r->h.client_id,
		.client_host = host,
		.protocol_type = req->protocol_type,
		.protocols = choices,
		.protocol_count = req->protocols_count,
		.session_ms = req->session_timeout_ms,
		.rebalance_ms = req->rebalance_timeout_ms,
		.id_required = r->h.version >= 4,
		.knows_skip = r->h.version >= 9,
	};
	ask_one(r, a);
}

/* SyncGroup */

static void on_sync(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_request *r = a->r;
	struct kafka_sync_group_res *res = r->res;
	if (!kafka_landed(r))
		return;
	/* A broker of Kafka's never says "loading" here: Java's client takes it as fatal. The join
	 * that comes next may be told so. */
	res->error = c->err == GROUP_UNAVAILABLE ? KAFKA_REBALANCE_IN_PROGRESS
						 : kafka_group_code(c->err);
	res->protocol_type = null_if_empty(&c->sync.type);
	res->protocol_name = null_if_empty(&c->sync.chosen);
	res->assignment = text_of(&c->sync.assignment);
	kafka_answer(r);
}

void kafka_on_sync_group(struct kafka_request *r)
{
	const struct kafka_sync_group_req *req = r->req;
	struct kafka_sync_group_res *res = r->res;
	struct bytes inside;
	res->error = kafka_group(r, ACTION_READ, req->group_id, &inside);
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	struct ask *a = ask_new(r, GROUP_CALL_SYNC, inside, on_sync);
	if (a == NULL)
		return;
	struct group_share *shares = kafka_take(r, req->assignments_count * sizeof *shares);
	if (shares == NULL)
		return;
	for (uint32_t i = 0; i < req->assignments_count; i++)
		shares[i] = (struct group_share){
			req->assignments[i].member_id, req->assignments[i].assignment};
	a->call.sync = (struct group_sync){
		.member_id = req->member_id,
		.instance_id = req->instance_id,
		.protocol_type = req->protocol_type,
		.protocol = req->protocol_name,
		.generation = req->generation,
		.assignments = shares,
		.assignment_count = req->assignments_count,
	};
	ask_one(r, a);
}

/* Heartbeat, LeaveGroup */

static void on_heartbeat(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	struct kafka_heartbeat_res *res = r->res;
	if (!kafka_landed(r))
		return;
	res->error = kafka_group_code(c->err);
	if (c->err == GROUP_OK)
		kafka_beat(r->kc, partition_home(c->table));
	else
		kafka_no_beat(r->kc);
	kafka_answer(r);
}

void kafka_on_heartbeat(struct kafka_request *r)
{
	const struct kafka_heartbeat_req *req = r->req;
	struct kafka_heartbeat_res *res = r->res;
	struct bytes inside;
	res->error = kafka_group(r, ACTION_READ, req->group_id, &inside);
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	struct ask *a = ask_new(r, GROUP_CALL_HEARTBEAT, inside, on_heartbeat);
	if (a == NULL)
		return;
	a->call.generation = req->generation;
	a->call.member_id = req->member_id;
	a->call.instance_id = req->instance_id;
	ask_one(r, a);
}

static void on_leave(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	struct kafka_leave_group_res *res = r->res;
	if (!kafka_landed(r))
		return;
	res->error = kafka_group_code(c->err);
	if (r->h.version < 3) {
		if (c->err == GROUP_OK)
			res->error = kafka_group_code(c->leavers[0].err);
		kafka_answer(r);
		return;
	}
	res->members_count = c->leaver_count;
	res->members = kafka_list(r, &kafka_leave_group_res_member_type, c->leaver_count);
	if (res->members == NULL)
		return;
	for (uint32_t i = 0; i < c->leaver_count; i++) {
		res->members[i].member_id = c->leavers[i].member_id;
		res->members[i].instance_id = c->leavers[i].instance_id;
		res->members[i].error = kafka_group_code(c->leavers[i].err);
	}
	kafka_answer(r);
}

void kafka_on_leave_group(struct kafka_request *r)
{
	const struct kafka_leave_group_req *req = r->req;
	struct kafka_leave_group_res *res = r->res;
	struct bytes inside;
	res->error = kafka_group(r, ACTION_READ, req->group_id, &inside);
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	struct ask *a = ask_new(r, GROUP_CALL_LEAVE, inside, on_leave);
	if (a == NULL)
		return;
	uint32_t count = r->h.version < 3 ? 1 : req->members_count;
	struct group_leaver *leavers = kafka_take(r, count * sizeof *leavers);
	if (leavers == NULL)
		return;
	for (uint32_t i = 0; i < count; i++)
		leavers[i] = r->h.version < 3
			? (struct group_leaver){.member_id = req->member_id}
			: (struct group_leaver){.member_id = req->members[i].member_id,
				  .instance_id = req->members[i].instance_id};
	a->call.leavers = leavers;
	a->call.leaver_count = count;
	ask_one(r, a);
}

/* DescribeGroups, ListGroups: a call for each group, or each table. A short request may ask for
 * much, so there is one call at a time, and what it gave is copied to the memory of the request,
 * which is counted, before the next. */

struct bytes kafka_keep(struct kafka_request *r, struct bytes b)
{
	char *copy = b.len > 0 ? kafka_text(r, b) : NULL;
	return copy != NULL ? bytes_of(copy, b.len) : b;
}

static bool fill_members(struct kafka_request *r, const struct group_call *c,
	struct kafka_describe_groups_res_group *g)
{
	g->members = kafka_list(r, &kafka_describe_groups_res_member_type, c->member_count);
	if (g->members == NULL)
		return false;
	g->members_count = c->member_count;
	for (uint32_t i = 0; i < c->member_count && !r->ready; i++) {
		const struct group_member_view *m = &c->members[i];
		g->members[i].member_id = kafka_keep(r, text_of(&m->id));
		g->members[i].instance_id = kafka_keep(r, null_if_empty(&m->instance));
		g->members[i].client_id = kafka_keep(r, text_of(&m->client_id));
		g->members[i].client_host = kafka_keep(r, text_of(&m->client_host));
		g->members[i].metadata = kafka_keep(r, text_of(&m->metadata));
		g->members[i].assignment = kafka_keep(r, text_of(&m->assignment));
	}
	return !r->ready;
}

static bool fill_group(struct kafka_request *r, const struct group_call *c,
	struct kafka_describe_groups_res_group *g)
{
	const struct kafka_describe_groups_req *req = r->req;
	g->error = kafka_group_code(c->err);
	if (c->err != GROUP_OK)
		return true;
	g->state = bytes_text(group_state_name(c->state));
	g->protocol_type = kafka_keep(r, text_of(&c->type));
	g->protocol = kafka_keep(r, text_of(&c->protocol));
	if (req->operations)
		g->operations = kafka_group_operations(r, g->group_id);
	return fill_members(r, c, g);
}

static void on_described(struct group_call *c);

static void describe_next(struct kafka_request *r, struct ask *a)
{
	const struct kafka_describe_groups_req *req = r->req;
	struct kafka_describe_groups_res *res = r->res;
	for (; a->at < req->groups_count && !r->kc->closed; a->at++) {
		struct kafka_describe_groups_res_group *g = &res->groups[a->at];
		struct bytes inside;
		g->group_id = req->groups[a->at];
		g->error = kafka_group(r, ACTION_DESCRIBE, g->group_id, &inside);
		if (g->error != KAFKA_NONE)
			continue;
		a->call = (struct group_call){
			.kind = GROUP_CALL_DESCRIBE, .group_id = inside, .done = on_described};
		ask_one(r, a);
		return;
	}
	kafka_answer(r);
}

static void on_described(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_describe_groups_res *res = a->r->res;
	if (!kafka_landed(a->r) || !fill_group(a->r, c, &res->groups[a->at]))
		return;
	group_call_fini(c);
	a->at++;
	describe_next(a->r, a);
}

void kafka_on_describe_groups(struct kafka_request *r)
{
	const struct kafka_describe_groups_req *req = r->req;
	struct kafka_describe_groups_res *res = r->res;
	res->groups_count = req->groups_count;
	res->groups = kafka_list(r, &kafka_describe_groups_res_group_type, req->groups_count);
	if (res->groups == NULL)
		return;
	struct ask *a = ask_new(r, GROUP_CALL_DESCRIBE, bytes_of(NULL, 0), on_described);
	if (a != NULL)
		describe_next(r, a);
}

static bool state_asked(const struct kafka_list_groups_req *req, enum group_state state)
{
	if (req->states_count == 0)
		return true;
	struct bytes name = bytes_text(group_state_name(state));
	for (uint32_t i = 0; i < req->states_count; i++)
		if (bytes_equal(req->states[i], name))
			return true;
	return false;
}

/* A group that they may see is added. False: r has failed. */
static bool add_listed(struct kafka_request *r, const struct group_listed *l, bool may_all)
{
	struct kafka_list_groups_res *res = r->res;
	struct bytes tenant, id;
	uint32_t n = res->groups_count;
	tenant_id_split(l->id.bytes, &tenant, &id);
	if (!state_asked(r->req, l->state) ||
		(!may_all && !kafka_may(r, ACTION_DESCRIBE, RESOURCE_GROUP, id)))
		return true;
	if (n > 0 && (n & (n - 1)) == 0) { /* full at each power of two */
		struct kafka_list_groups_res_group *more = kafka_list(
			r, &kafka_list_groups_res_group_type, n * 2);
		if (more == NULL)
			return false;
		memcpy(more, res->groups, n * sizeof *more);
		res->groups = more;
	}
	res->groups[n].group_id = kafka_keep(r, id);
	res->groups[n].protocol_type = kafka_keep(r, text_of(&l->type));
	res->groups[n].state = bytes_text(group_state_name(l->state));
	res->groups_count++;
	return !r->ready;
}

static void on_listed(struct group_call *c);

static void list_next(struct kafka_request *r, struct ask *a)
{
	const struct catalog *catalog = kafka_catalog(r);
	if (a->at == (uint32_t)catalog_table_count(catalog) || r->kc->closed) {
		kafka_answer(r);
		return;
	}
	a->call = (struct group_call){.kind = GROUP_CALL_LIST,
		.table = catalog_table_at(catalog, (int)a->at++),
		.tenant = &a->tenant,
		.done = on_listed};
	ask_one(r, a);
}

static void on_listed(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_request *r = a->r;
	struct kafka_list_groups_res *res = r->res;
	if (!kafka_landed(r))
		return;
	/* Groups coordinated elsewhere are listed there: clients ask all nodes. */
	if (c->err != GROUP_OK && c->err != GROUP_NOT_HERE)
		res->error = kafka_group_code(c->err);
	bool may_all = kafka_may_cluster(r, ACTION_DESCRIBE);
	for (uint32_t i = 0; i < c->listed_count; i++)
		if (!add_listed(r, &c->listed[i], may_all))
			return;
	group_call_fini(c);
	list_next(r, a);
}

void kafka_on_list_groups(struct kafka_request *r)
{
	struct kafka_list_groups_res *res = r->res;
	res->groups = kafka_list(r, &kafka_list_groups_res_group_type, 1);
	if (res->groups == NULL)
		return;
	struct ask *a = ask_new(r, GROUP_CALL_LIST, bytes_of(NULL, 0), on_listed);
	if (a == NULL)
		return;
	a->tenant = access_tenant(r->access);
	list_next(r, a);
}

/* DeleteGroups: a call for each group, side by side. */

struct asks {
	struct ask *list;
	uint32_t count;
};

static void asks_fini(struct kafka_request *r)
{
	struct asks *all = r->op;
	for (uint32_t i = 0; i < all->count; i++)
		group_call_fini(&all->list[i].call);
}

static struct asks *asks_new(struct kafka_request *r, uint32_t count)
{
	struct asks *all = kafka_take(r, sizeof *all);
	if (all == NULL)
		return NULL;
	all->list = kafka_take(r, (count + 1) * sizeof *all->list);
	if (all->list == NULL)
		return NULL;
	all->count = count;
	r->op = all;
	r->fini = asks_fini;
	return all;
}

/* Calls that may be made; answers when there is none. */
static void asks_start(struct kafka_request *r, struct asks *all)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < all->count; i++)
		count += all->list[i].asked;
	r->outstanding = count;
	for (uint32_t i = 0; i < all->count; i++)
		if (all->list[i].asked)
			group_call(kafka_of(r)->groups, kafka_catalog(r), &all->list[i].call);
	if (count == 0)
		kafka_answer(r);
}

static void on_deleted(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_request *r = a->r;
	if (!r->sent) {
		struct kafka_delete_groups_res_result *one = a->part;
		one->error = kafka_group_code(c->err);
	}
	kafka_tell_group(r, "group-delete", a->id, c->err);
	kafka_land(r);
}

void kafka_on_delete_groups(struct kafka_request *r)
{
	const struct kafka_delete_groups_req *req = r->req;
	struct kafka_delete_groups_res *res = r->res;
	res->results_count = req->groups_count;
	res->results = kafka_list(r, &kafka_delete_groups_res_result_type, req->groups_count);
	if (res->results == NULL)
		return;
	struct asks *all = asks_new(r, req->groups_count);
	if (all == NULL)
		return;
	for (uint32_t i = 0; i < all->count; i++) {
		res->results[i].group_id = req->groups[i];
		all->list[i].r = r;
		all->list[i].part = &res->results[i];
		all->list[i].id = req->groups[i];
		all->list[i].call.kind = GROUP_CALL_DELETE;
		res->results[i].error = kafka_group(
			r, ACTION_DELETE, req->groups[i], &all->list[i].call.group_id);
		all->list[i].asked = res->results[i].error == KAFKA_NONE;
		all->list[i].call.done = on_deleted;
	}
	asks_start(r, all);
}
