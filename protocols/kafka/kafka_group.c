/* Consumer groups. Each request becomes a call that travels to the group's home and comes back;
 * what it borrows of the request stays where it is until then. */
#include "protocols/kafka/kafka_priv.h"

struct ask { /* a call of a request */
	struct group_call call;
	struct kafka_request *r;
	void *part; /* of the answer, where there are several calls */
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

static const char *host_of(const struct conn *c)
{
	return conn_peer(c);
}

void kafka_on_join_group(struct kafka_request *r)
{
	const struct kafka_join_group_req *req = r->req;
	struct ask *a = ask_new(r, GROUP_CALL_JOIN, req->group_id, on_join);
	if (a == NULL)
		return;
	struct group_choice *choices = kafka_take(r, req->protocols_count * sizeof *choices);
	if (choices == NULL)
		return;
	for (uint32_t i = 0; i < req->protocols_count; i++)
		choices[i] = (struct group_choice){
			req->protocols[i].name, req->protocols[i].metadata};
	struct bytes host = kafka_copy(r, bytes_text(host_of(r->kc->conn)));
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
	res->error = kafka_group_code(c->err);
	res->protocol_type = null_if_empty(&c->sync.type);
	res->protocol_name = null_if_empty(&c->sync.chosen);
	res->assignment = text_of(&c->sync.assignment);
	kafka_answer(r);
}

void kafka_on_sync_group(struct kafka_request *r)
{
	const struct kafka_sync_group_req *req = r->req;
	struct ask *a = ask_new(r, GROUP_CALL_SYNC, req->group_id, on_sync);
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
	kafka_answer(r);
}

void kafka_on_heartbeat(struct kafka_request *r)
{
	const struct kafka_heartbeat_req *req = r->req;
	struct ask *a = ask_new(r, GROUP_CALL_HEARTBEAT, req->group_id, on_heartbeat);
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
	struct ask *a = ask_new(r, GROUP_CALL_LEAVE, req->group_id, on_leave);
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

/* OffsetCommit and OffsetDelete: streams are named by uuid inside; unknown ones are answered here.
 */

static bool known_partition(
	struct kafka_request *r, struct bytes topic, int32_t index, struct group_offset *o)
{
	const struct stream *s = catalog_stream(kafka_catalog(r), topic);
	*o = (struct group_offset){.partition = index, .err = GROUP_NOT_FOUND};
	if (s == NULL || stream_partition(s, index) == NULL)
		return false;
	memcpy(o->stream, s->uuid, sizeof o->stream);
	o->err = GROUP_OK;
	return true;
}

static int16_t offset_code(const struct group_call *c, const struct group_offset *o)
{
	if (o->err == GROUP_NOT_FOUND)
		return KAFKA_UNKNOWN_TOPIC;
	return kafka_group_code(c->err != GROUP_OK ? c->err : o->err);
}

static void on_commit(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_offset_commit_req *req = r->req;
	struct kafka_offset_commit_res *res = r->res;
	const struct group_offset *o = c->offsets;
	if (!kafka_landed(r))
		return;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_offset_commit_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		struct kafka_offset_commit_res_topic *t = &res->topics[i];
		t->name = req->topics[i].name;
		t->partitions_count = n;
		t->partitions = kafka_list(r, &kafka_offset_commit_res_partition_type, n);
		if (t->partitions == NULL)
			return;
		for (uint32_t k = 0; k < n; k++, o++) {
			t->partitions[k].index = o->partition;
			t->partitions[k].error = offset_code(c, o);
		}
	}
	kafka_answer(r);
}

void kafka_on_offset_commit(struct kafka_request *r)
{
	const struct kafka_offset_commit_req *req = r->req;
	struct ask *a = ask_new(r, GROUP_CALL_COMMIT, req->group_id, on_commit);
	uint32_t count = 0;
	if (a == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++)
		count += req->topics[i].partitions_count;
	struct group_offset *o = kafka_take(r, count * sizeof *o);
	if (o == NULL)
		return;
	a->call.generation = req->generation;
	a->call.member_id = req->member_id;
	a->call.instance_id = req->instance_id;
	a->call.offsets = o;
	a->call.offset_count = count;
	for (uint32_t i = 0; i < req->topics_count; i++)
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++, o++) {
			const struct kafka_offset_commit_req_partition *p =
				&req->topics[i].partitions[n];
			known_partition(r, req->topics[i].name, p->index, o);
			o->offset = p->offset;
			o->epoch = p->leader_epoch;
			o->metadata = p->metadata;
		}
	ask_one(r, a);
}

static void on_forget(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_offset_delete_req *req = r->req;
	struct kafka_offset_delete_res *res = r->res;
	const struct group_offset *o = c->offsets;
	if (!kafka_landed(r))
		return;
	res->error = kafka_group_code(c->err);
	res->topics_count = c->err == GROUP_OK ? req->topics_count : 0;
	res->topics = kafka_list(r, &kafka_offset_delete_res_topic_type, res->topics_count);
	if (res->topics == NULL)
		return;
	for (uint32_t i = 0; i < res->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		struct kafka_offset_delete_res_topic *t = &res->topics[i];
		t->name = req->topics[i].name;
		t->partitions_count = n;
		t->partitions = kafka_list(r, &kafka_offset_delete_res_partition_type, n);
		if (t->partitions == NULL)
			return;
		for (uint32_t k = 0; k < n; k++, o++) {
			t->partitions[k].index = o->partition;
			t->partitions[k].error = offset_code(c, o);
		}
	}
	kafka_answer(r);
}

void kafka_on_offset_delete(struct kafka_request *r)
{
	const struct kafka_offset_delete_req *req = r->req;
	struct ask *a = ask_new(r, GROUP_CALL_FORGET, req->group_id, on_forget);
	uint32_t count = 0;
	if (a == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++)
		count += req->topics[i].partitions_count;
	struct group_offset *o = kafka_take(r, count * sizeof *o);
	if (o == NULL)
		return;
	a->call.offsets = o;
	a->call.offset_count = count;
	for (uint32_t i = 0; i < req->topics_count; i++)
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++, o++)
			known_partition(
				r, req->topics[i].name, req->topics[i].partitions[n].index, o);
	ask_one(r, a);
}

/* OffsetFetch: each group's rows are read whole, then what was asked is picked. */

struct fetched { /* one group asked for */
	struct offsets_read read;
	struct kafka_request *r;
	struct bytes id;
	const struct kafka_offset_fetch_req_topic *topics;
	uint32_t topics_count;
	bool all;
};

struct offset_fetch {
	struct fetched *groups;
	uint32_t count;
};

/* They are in order of stream and partition. */
static const struct offsets_found *find_offset(
	const struct offsets_read *r, const uint8_t stream[16], int32_t partition)
{
	uint32_t low = 0, high = r->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct offsets_found *f = &r->found[middle];
		int order = memcmp(f->stream, stream, sizeof f->stream);
		if (order == 0)
			order = f->partition < partition ? -1 : f->partition > partition;
		if (order == 0)
			return f;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static void fill_offset(struct kafka_offset_fetch_res_partition *out, int32_t index,
	const struct offsets_found *found)
{
	out->index = index;
	out->offset = found ? found->offset : -1;
	out->leader_epoch = found ? found->epoch : -1;
	out->metadata = found && found->metadata.bytes.len > 0 ? found->metadata.bytes
							       : bytes_of(kafka_empty, 0);
}

static bool pick_asked(struct fetched *g, struct kafka_offset_fetch_res_topic *topics)
{
	for (uint32_t i = 0; i < g->topics_count; i++) {
		const struct kafka_offset_fetch_req_topic *t = &g->topics[i];
		const struct stream *s = catalog_stream(kafka_catalog(g->r), t->name);
		topics[i].name = t->name;
		topics[i].partitions_count = t->partitions_count;
		topics[i].partitions = kafka_list(
			g->r, &kafka_offset_fetch_res_partition_type, t->partitions_count);
		if (topics[i].partitions == NULL)
			return false;
		for (uint32_t n = 0; n < t->partitions_count; n++)
			fill_offset(&topics[i].partitions[n], t->partitions[n],
				s ? find_offset(&g->read, s->uuid, t->partitions[n]) : NULL);
	}
	return true;
}

/* All of a group: the rows come ordered by stream, so a stream's stand together. */
static bool pick_all(
	struct fetched *g, struct kafka_offset_fetch_res_topic *topics, uint32_t *count)
{
	const struct offsets_found *found = g->read.found;
	*count = 0;
	for (uint32_t i = 0, n; i < g->read.count; i += n) {
		const struct stream *s = catalog_stream_by_uuid(
			kafka_catalog(g->r), found[i].stream);
		for (n = 1; i + n < g->read.count &&
			memcmp(found[i + n].stream, found[i].stream, sizeof found[i].stream) == 0;)
			n++;
		if (s == NULL)
			continue;
		struct kafka_offset_fetch_res_topic *t = &topics[(*count)++];
		t->name = kafka_copy(g->r, bytes_text(s->name));
		t->partitions_count = n;
		t->partitions = kafka_list(g->r, &kafka_offset_fetch_res_partition_type, n);
		if (t->partitions == NULL)
			return false;
		for (uint32_t k = 0; k < n; k++)
			fill_offset(&t->partitions[k], found[i + k].partition, &found[i + k]);
	}
	return true;
}

static struct kafka_offset_fetch_res_topic *pick(struct fetched *g, uint32_t *count)
{
	*count = g->all ? g->read.count : g->topics_count;
	struct kafka_offset_fetch_res_topic *topics = kafka_list(
		g->r, &kafka_offset_fetch_res_topic_type, *count);
	if (topics == NULL)
		return NULL;
	bool fine = g->all ? pick_all(g, topics, count) : pick_asked(g, topics);
	return fine ? topics : NULL;
}

static void offset_fetch_answer(struct kafka_request *r)
{
	struct offset_fetch *f = r->op;
	struct kafka_offset_fetch_res *res = r->res;
	if (r->h.version < 8) {
		res->error = kafka_group_code(f->groups[0].read.err);
		res->topics = pick(&f->groups[0], &res->topics_count);
		if (res->topics == NULL)
			return;
		for (uint32_t i = 0; res->error != KAFKA_NONE && i < res->topics_count; i++)
			for (uint32_t n = 0; n < res->topics[i].partitions_count; n++)
				res->topics[i].partitions[n].error = res->error;
		kafka_answer(r);
		return;
	}
	res->groups_count = f->count;
	res->groups = kafka_list(r, &kafka_offset_fetch_res_group_type, f->count);
	if (res->groups == NULL)
		return;
	for (uint32_t i = 0; i < f->count; i++) {
		struct kafka_offset_fetch_res_group *g = &res->groups[i];
		g->group_id = f->groups[i].id;
		g->error = kafka_group_code(f->groups[i].read.err);
		g->topics = pick(&f->groups[i], &g->topics_count);
		if (g->topics == NULL)
			return;
	}
	kafka_answer(r);
}

static void on_offsets(struct offsets_read *read)
{
	struct fetched *g = list_entry(read, struct fetched, read);
	if (kafka_landed(g->r) && g->r->outstanding == 0)
		offset_fetch_answer(g->r);
}

static void offset_fetch_fini(struct kafka_request *r)
{
	struct offset_fetch *f = r->op;
	for (uint32_t i = 0; i < f->count; i++)
		offsets_read_fini(&f->groups[i].read);
}

void kafka_on_offset_fetch(struct kafka_request *r)
{
	const struct kafka_offset_fetch_req *req = r->req;
	bool single = r->h.version < 8;
	struct offset_fetch *f = kafka_take(r, sizeof *f);
	if (f == NULL)
		return;
	uint32_t count = single ? 1 : req->groups_count;
	f->groups = kafka_take(r, (count + 1) * sizeof *f->groups);
	if (f->groups == NULL)
		return;
	r->op = f;
	r->outstanding++;
	for (uint32_t i = 0; i < count; i++) {
		struct fetched *g = &f->groups[i];
		g->r = r;
		g->id = single ? req->group_id : req->groups[i].group_id;
		g->topics = single ? req->topics : req->groups[i].topics;
		g->topics_count = single ? req->topics_count : req->groups[i].topics_count;
		g->all = g->topics == NULL;
		g->read.done = on_offsets;
		r->outstanding++;
		offsets_read(&g->read, kafka_catalog(r), g->id);
	}
	f->count = count;
	r->fini = offset_fetch_fini;
	if (kafka_landed(r) && r->outstanding == 0)
		offset_fetch_answer(r);
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

static void asks_start(struct kafka_request *r, struct asks *all)
{
	r->outstanding = all->count;
	for (uint32_t i = 0; i < all->count; i++)
		group_call(kafka_of(r)->groups, kafka_catalog(r), &all->list[i].call);
	if (all->count == 0)
		kafka_answer(r);
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

static void on_described(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_describe_groups_req *req = r->req;
	struct kafka_describe_groups_res *res = r->res;
	const struct asks *all = r->op;
	if (!kafka_landed(r) || r->outstanding > 0)
		return;
	for (uint32_t i = 0; i < all->count; i++) {
		const struct group_call *one = &all->list[i].call;
		struct kafka_describe_groups_res_group *g = &res->groups[i];
		g->group_id = one->group_id;
		g->error = kafka_group_code(one->err);
		if (one->err != GROUP_OK)
			continue;
		g->state = bytes_text(group_state_name(one->state));
		g->protocol_type = text_of(&one->type);
		g->protocol = text_of(&one->protocol);
		if (req->operations)
			g->operations = KAFKA_GROUP_OPERATIONS;
		if (!fill_members(r, one, g))
			return;
	}
	kafka_answer(r);
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
		all->list[i].call.group_id = req->groups[i];
		all->list[i].call.done = on_described;
	}
	asks_start(r, all);
}

static void on_deleted(struct group_call *c)
{
	struct ask *a = list_entry(c, struct ask, call);
	struct kafka_request *r = a->r;
	if (!r->sent) {
		struct kafka_delete_groups_res_result *one = a->part;
		one->error = kafka_group_code(c->err);
	}
	if (kafka_landed(r) && r->outstanding == 0)
		kafka_answer(r);
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
		all->list[i].call.kind = GROUP_CALL_DELETE;
		all->list[i].call.group_id = req->groups[i];
		all->list[i].call.done = on_deleted;
	}
	asks_start(r, all);
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

static void on_listed(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_list_groups_req *req = r->req;
	struct kafka_list_groups_res *res = r->res;
	const struct asks *all = r->op;
	uint32_t count = 0;
	if (!kafka_landed(r) || r->outstanding > 0)
		return;
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
			if (!state_asked(req, l->state))
				continue;
			struct kafka_list_groups_res_group *g = &res->groups[res->groups_count++];
			g->group_id = text_of(&l->id);
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
	}
	asks_start(r, all);
}
