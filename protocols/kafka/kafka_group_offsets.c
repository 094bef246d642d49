/* Committed offsets of consumer groups. Streams are named by uuid inside, so what is not there, or
 * not theirs to read, is answered here. */
#include "protocols/kafka/kafka_priv.h"

/* OffsetCommit, OffsetDelete */

struct ask {
	struct group_call call;
	struct kafka_request *r;
	bool *may; /* by topic of the request */
};

static void offsets_fini(struct kafka_request *r)
{
	struct ask *a = r->op;
	group_call_fini(&a->call);
}

static void offsets_start(struct kafka_request *r, struct ask *a)
{
	r->op = a;
	r->fini = offsets_fini;
	r->outstanding++;
	group_call(kafka_of(r)->groups, kafka_catalog(r), &a->call);
}

/* s NULL: none, or not theirs to read. */
static void find_partition(const struct stream *s, int32_t index, struct group_offset *o)
{
	*o = (struct group_offset){.partition = index, .err = GROUP_NOT_FOUND};
	if (s == NULL || stream_partition(s, index) == NULL)
		return;
	memcpy(o->stream, s->uuid, sizeof o->stream);
	o->err = GROUP_OK;
}

static int16_t offset_code(const struct group_call *c, const struct group_offset *o, bool may)
{
	if (!may)
		return KAFKA_TOPIC_DENIED;
	if (o->err == GROUP_NOT_FOUND)
		return KAFKA_UNKNOWN_TOPIC;
	return kafka_group_code(c->err != GROUP_OK ? c->err : o->err);
}

/* a NULL: the whole request is refused, and that is said of each partition. */
static void answer_commit(struct kafka_request *r, const struct ask *a, int16_t refused)
{
	const struct kafka_offset_commit_req *req = r->req;
	struct kafka_offset_commit_res *res = r->res;
	const struct group_offset *o = a != NULL ? a->call.offsets : NULL;
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
		for (uint32_t k = 0; k < n; k++) {
			t->partitions[k].index = req->topics[i].partitions[k].index;
			t->partitions[k].error = a != NULL ? offset_code(&a->call, o++, a->may[i])
							   : refused;
		}
	}
	kafka_answer(r);
}

static void on_commit(struct group_call *c)
{
	const struct ask *a = list_entry(c, struct ask, call);
	if (kafka_landed(a->r))
		answer_commit(a->r, a, KAFKA_NONE);
}

/* The call of a request about offsets, with room for them and for what may be read. */
static struct ask *offsets_ask(struct kafka_request *r, enum group_call_kind kind,
	struct bytes group, void (*done)(struct group_call *c), uint32_t topics, uint32_t count)
{
	struct ask *a = kafka_take(r, sizeof *a);
	struct group_offset *o = a ? kafka_take(r, (count + 1) * sizeof *o) : NULL;
	bool *may = o ? kafka_take(r, topics + 1) : NULL;
	if (may == NULL)
		return NULL;
	a->r = r;
	a->may = may;
	a->call.kind = kind;
	a->call.group_id = group;
	a->call.done = done;
	a->call.offsets = o;
	a->call.offset_count = count;
	return a;
}

void kafka_on_offset_commit(struct kafka_request *r)
{
	const struct kafka_offset_commit_req *req = r->req;
	struct bytes inside;
	uint32_t count = 0;
	int16_t code = kafka_group(r, ACTION_READ, req->group_id, &inside);
	if (code != KAFKA_NONE) {
		answer_commit(r, NULL, code);
		return;
	}
	for (uint32_t i = 0; i < req->topics_count; i++)
		count += req->topics[i].partitions_count;
	struct ask *a = offsets_ask(
		r, GROUP_CALL_COMMIT, inside, on_commit, req->topics_count, count);
	if (a == NULL)
		return;
	struct group_offset *o = a->call.offsets;
	a->call.generation = req->generation;
	a->call.member_id = req->member_id;
	a->call.instance_id = req->instance_id;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct bytes name = req->topics[i].name;
		a->may[i] = kafka_may_stream(r, ACTION_READ, name);
		const struct stream *s = a->may[i] ? kafka_stream(r, name) : NULL;
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++, o++) {
			const struct kafka_offset_commit_req_partition *p =
				&req->topics[i].partitions[n];
			find_partition(s, p->index, o);
			o->offset = p->offset;
			o->epoch = p->leader_epoch;
			o->metadata = p->metadata;
		}
	}
	offsets_start(r, a);
}

static void on_forget(struct group_call *c)
{
	struct kafka_request *r = list_entry(c, struct ask, call)->r;
	const struct kafka_offset_delete_req *req = r->req;
	struct kafka_offset_delete_res *res = r->res;
	const struct group_offset *o = c->offsets;
	const bool *may = list_entry(c, struct ask, call)->may;
	kafka_tell_group(r, "group-offsets-delete", req->group_id, c->err);
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
			t->partitions[k].error = offset_code(c, o, may[i]);
		}
	}
	kafka_answer(r);
}

void kafka_on_offset_delete(struct kafka_request *r)
{
	const struct kafka_offset_delete_req *req = r->req;
	struct kafka_offset_delete_res *res = r->res;
	struct bytes inside;
	uint32_t count = 0;
	res->error = kafka_group(r, ACTION_DELETE, req->group_id, &inside);
	if (res->error != KAFKA_NONE) {
		kafka_answer(r);
		return;
	}
	for (uint32_t i = 0; i < req->topics_count; i++)
		count += req->topics[i].partitions_count;
	struct ask *a = offsets_ask(
		r, GROUP_CALL_FORGET, inside, on_forget, req->topics_count, count);
	if (a == NULL)
		return;
	struct group_offset *o = a->call.offsets;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct bytes name = req->topics[i].name;
		a->may[i] = kafka_may_stream(r, ACTION_READ, name);
		const struct stream *s = a->may[i] ? kafka_stream(r, name) : NULL;
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++, o++) {
			find_partition(s, req->topics[i].partitions[n].index, o);
			o->topic = name;
		}
	}
	offsets_start(r, a);
}

/* OffsetFetch: each group's rows are read whole, then what was asked is picked. */

struct fetched { /* one group asked for */
	struct offsets_read read;
	struct kafka_request *r;
	struct bytes id; /* as they call it */
	int16_t refused;
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
	const struct offsets_found *found, int16_t code)
{
	out->index = index;
	out->error = code;
	out->offset = found ? found->offset : -1;
	out->leader_epoch = found ? found->epoch : -1;
	out->metadata = found && found->metadata.bytes.len > 0 ? found->metadata.bytes
							       : bytes_of(kafka_empty, 0);
}

static bool pick_asked(struct fetched *g, struct kafka_offset_fetch_res_topic *topics)
{
	for (uint32_t i = 0; i < g->topics_count; i++) {
		const struct kafka_offset_fetch_req_topic *t = &g->topics[i];
		bool may = kafka_may_stream(g->r, ACTION_DESCRIBE, t->name);
		const struct stream *s = may ? kafka_stream(g->r, t->name) : NULL;
		topics[i].name = t->name;
		topics[i].partitions_count = t->partitions_count;
		topics[i].partitions = kafka_list(
			g->r, &kafka_offset_fetch_res_partition_type, t->partitions_count);
		if (topics[i].partitions == NULL)
			return false;
		for (uint32_t n = 0; n < t->partitions_count; n++)
			fill_offset(&topics[i].partitions[n], t->partitions[n],
				s ? find_offset(&g->read, s->uuid, t->partitions[n]) : NULL,
				may ? KAFKA_NONE : KAFKA_TOPIC_DENIED);
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
		struct bytes name;
		const struct stream *s = catalog_stream_by_uuid(
			kafka_catalog(g->r), found[i].stream);
		for (n = 1; i + n < g->read.count &&
			memcmp(found[i + n].stream, found[i].stream, sizeof found[i].stream) == 0;)
			n++;
		if (s == NULL || !kafka_sees(g->r, s, &name) ||
			!kafka_may_stream(g->r, ACTION_DESCRIBE, name))
			continue;
		struct kafka_offset_fetch_res_topic *t = &topics[(*count)++];
		t->name = kafka_copy(g->r, name);
		t->partitions_count = n;
		t->partitions = kafka_list(g->r, &kafka_offset_fetch_res_partition_type, n);
		if (t->partitions == NULL)
			return false;
		for (uint32_t k = 0; k < n; k++)
			fill_offset(&t->partitions[k], found[i + k].partition, &found[i + k],
				KAFKA_NONE);
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

static int16_t fetched_code(const struct fetched *g)
{
	return g->refused != KAFKA_NONE ? g->refused : kafka_group_code(g->read.err);
}

static void offset_fetch_answer(struct kafka_request *r)
{
	struct offset_fetch *f = r->op;
	struct kafka_offset_fetch_res *res = r->res;
	if (r->h.version < 8) {
		res->error = fetched_code(&f->groups[0]);
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
		g->error = fetched_code(&f->groups[i]);
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
		struct bytes inside;
		g->refused = kafka_group(r, ACTION_DESCRIBE, g->id, &inside);
		if (g->refused != KAFKA_NONE)
			continue;
		r->outstanding++;
		offsets_read(&g->read, kafka_catalog(r), inside);
	}
	f->count = count;
	r->fini = offset_fetch_fini;
	if (kafka_landed(r) && r->outstanding == 0)
		offset_fetch_answer(r);
}
