/* Consumer groups. Each request becomes a call that travels to the group's home and comes back;
 * what it borrows of the request stays where it is until then. */
#include "protocols/kafka/kafka_priv.h"

struct ask { /* a call of a request */
	struct group_call call;
	struct kafka_request *r;
	void *part;      /* of the answer, where there are several calls */
	bool asked;      /* of several: nothing was wrong before */
	struct bytes id; /* as they call the group, to be told of */
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

/* The one call of a request. */
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

/* DescribeGroups, DeleteGroups, ListGroups: a call for each group, or each table. */

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

/* Calls that may be made; refused answers when there is none. */
static void asks_start(
	struct kafka_request *r, struct asks *all, void (*refused)(struct kafka_request *r))
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < all->count; i++)
		count += all->list[i].asked;
	r->outstanding = count;
	for (uint32_t i = 0; i < all->count; i++)
		if (all->list[i].asked)
			group_call(kafka_of(r)->groups, kafka_catalog(r), &all->list[i].call);
	if (count == 0)
		refused(r);
}

static bool fill_members(struct kafka_request *r, const struct group_call *c,
	struct kafka_describe_groups_res_group *g)
{
	g->members_count = c->member_count;
	g->members = kafka_list(r, &kafka_describe_groups_res_member_type, c->member_count);
	if (g->members == NULL)
		return false;
	for (uint32_t i = 0; i < c->member_count; i++) {
		const struct group_member_view *m = &c->members[i];
		g->members[i].member_id = text_of(&m->id);
		g->members[i].instance_id = null_if_empty(&m->instance);
		g->members[i].client_id = text_of(&m->client_id);
		g->members[i].client_host = text_of(&m->client_host);
		g->members[i].metadata = text_of(&m->metadata);
		g->members[i].assignment = text_of(&m->assignment);
	}
	return true;
}

static void describe_answer(struct kafka_request *r)
{
	const struct kafka_describe_groups_req *req = r->req;
	struct kafka_describe_groups_res *res = r->res;
	const struct asks *all = r->op;
	for (uint32_t i = 0; i < all->count; i++) {
		const struct group_call *one = &all->list[i].call;
		struct kafka_describe_groups_res_group *g = &res->groups[i];
		g->group_id = req->groups[i];
		if (!all->list[i].asked)
			continue;
		g->error = kafka_group_code(one->err);
		if (one->err != GROUP_OK)
			continue;
		g->state = bytes_text(group_state_name(one->state));
		g->protocol_type = text_of(&one->type);
		g->protocol = text_of(&one->protocol);
		if (req->operations)
			g->operations = kafka_group_operations(r, g->group_id);
		if (!fill_members(r, one, g))
			return;
	}
	kafka_answer(r);
}

static void on_described(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	if (kafka_landed(r) && r->outstanding == 0)
		describe_answer(r);
}

void kafka_on_describe_groups(struct kafka_request *r)
{
	const struct kafka_describe_groups_req *req = r->req;
	struct kafka_describe_groups_res *res = r->res;
	res->groups_count = req->groups_count;
	res->groups = kafka_list(r, &kafka_describe_groups_res_group_type, req->groups_count);
	if (res->groups == NULL)
		return;
	struct asks *all = asks_new(r, req->groups_count);
	if (all == NULL)
		return;
	for (uint32_t i = 0; i < all->count; i++) {
		all->list[i].r = r;
		all->list[i].call.kind = GROUP_CALL_DESCRIBE;
		res->groups[i].error = kafka_group(
			r, ACTION_DESCRIBE, req->groups[i], &all->list[i].call.group_id);
		all->list[i].asked = res->groups[i].error == KAFKA_NONE;
		all->list[i].call.done = on_described;
	}
	asks_start(r, all, describe_answer);
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
	asks_start(r, all, kafka_answer);
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

/* A group of their tenant that they may see; *id is what they call it. */
static bool is_listed(
	struct kafka_request *r, const struct group_listed *l, bool all, struct bytes *id)
{
	struct bytes tenant;
	tenant_id_split(l->id.bytes, &tenant, id);
	return bytes_equal(tenant, access_tenant(r->access)) &&
		(all || kafka_may(r, ACTION_DESCRIBE, RESOURCE_GROUP, *id));
}

static void on_listed(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_list_groups_req *req = r->req;
	struct kafka_list_groups_res *res = r->res;
	const struct asks *all = r->op;
	uint32_t count = 0;
	if (!kafka_landed(r) || r->outstanding > 0)
		return;
	bool may = kafka_may_cluster(r, ACTION_DESCRIBE);
	for (uint32_t i = 0; i < all->count; i++) {
		count += all->list[i].call.listed_count;
		/* Groups coordinated elsewhere are listed there: clients ask all nodes. */
		enum group_err ge = all->list[i].call.err;
		if (ge != GROUP_OK && ge != GROUP_NOT_HERE)
			res->error = kafka_group_code(ge);
	}
	res->groups = kafka_list(r, &kafka_list_groups_res_group_type, count);
	if (res->groups == NULL)
		return;
	for (uint32_t i = 0; i < all->count; i++)
		for (uint32_t n = 0; n < all->list[i].call.listed_count; n++) {
			const struct group_listed *l = &all->list[i].call.listed[n];
			struct bytes id;
			if (!state_asked(req, l->state) || !is_listed(r, l, may, &id))
				continue;
			struct kafka_list_groups_res_group *g = &res->groups[res->groups_count++];
			g->group_id = id;
			g->protocol_type = text_of(&l->type);
			g->state = bytes_text(group_state_name(l->state));
		}
	kafka_answer(r);
}

void kafka_on_list_groups(struct kafka_request *r)
{
	const struct catalog *catalog = kafka_catalog(r);
	struct asks *all = asks_new(r, (uint32_t)catalog_table_count(catalog));
	if (all == NULL)
		return;
	for (uint32_t i = 0; i < all->count; i++) {
		all->list[i].r = r;
		all->list[i].call.kind = GROUP_CALL_LIST;
		all->list[i].call.table = catalog_table_at(catalog, (int)i);
		all->list[i].call.done = on_listed;
		all->list[i].asked = true;
	}
	asks_start(r, all, kafka_answer);
}
