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

/* OffsetFetch: a group's rows are read whole, then what was asked is picked and copied to the
 * request's memory. One group after another: a short request may name many, or one many times. */

struct fetched {
	struct offsets_read read; /* of the group it is at */
	struct kafka_request *r;
	struct kafka_offset_fetch_res_group *groups;
	uint32_t count, at;
	const struct kafka_offset_fetch_req_topic *topics; /* asked of it; NULL: all */
	uint32_t topics_count;
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

static void fill_offset(struct kafka_request *r, struct kafka_offset_fetch_res_partition *out,
	int32_t index, const struct offsets_found *found)
{
	out->index = index;
	out->offset = found ? found->offset : -1;
	out->leader_epoch = found ? found->epoch : -1;
	out->metadata = found && found->metadata.bytes.len > 0
		? kafka_keep(r, found->metadata.bytes)
		: bytes_of(kafka_empty, 0);
}

static bool pick_asked(struct fetched *f, struct kafka_offset_fetch_res_topic *topics)
{
	for (uint32_t i = 0; i < f->topics_count; i++) {
		const struct kafka_offset_fetch_req_topic *t = &f->topics[i];
		bool may = kafka_may_stream(f->r, ACTION_DESCRIBE, t->name);
		const struct stream *s = may ? kafka_stream(f->r, t->name) : NULL;
		struct kafka_offset_fetch_res_partition *parts = kafka_list(
			f->r, &kafka_offset_fetch_res_partition_type, t->partitions_count);
		if (parts == NULL)
			return false;
		topics[i].name = t->name;
		topics[i].partitions_count = t->partitions_count;
		topics[i].partitions = parts;
		for (uint32_t n = 0; n < t->partitions_count && !f->r->ready; n++) {
			fill_offset(f->r, &parts[n], t->partitions[n],
				s ? find_offset(&f->read, s->uuid, t->partitions[n]) : NULL);
			parts[n].error = may ? KAFKA_NONE : KAFKA_TOPIC_DENIED;
		}
	}
	return !f->r->ready;
}

/* All of a group: the rows come ordered by stream, so a stream's stand together. */
static bool pick_all(
	struct fetched *f, struct kafka_offset_fetch_res_topic *topics, uint32_t *count)
{
	const struct offsets_found *found = f->read.found;
	*count = 0;
	for (uint32_t i = 0, n; i < f->read.count; i += n) {
		struct bytes name;
		const struct stream *s = catalog_stream_by_uuid(
			kafka_catalog(f->r), found[i].stream);
		for (n = 1; i + n < f->read.count &&
			memcmp(found[i + n].stream, found[i].stream, sizeof found[i].stream) == 0;)
			n++;
		if (s == NULL || !kafka_sees(f->r, s, &name) ||
			!kafka_may_stream(f->r, ACTION_DESCRIBE, name))
			continue;
		struct kafka_offset_fetch_res_topic *t = &topics[(*count)++];
		t->name = kafka_keep(f->r, name);
		t->partitions_count = n;
		t->partitions = kafka_list(f->r, &kafka_offset_fetch_res_partition_type, n);
		if (t->partitions == NULL)
			return false;
		for (uint32_t k = 0; k < n && !f->r->ready; k++)
			fill_offset(f->r, &t->partitions[k], found[i + k].partition, &found[i + k]);
	}
	return !f->r->ready;
}

static bool pick(struct fetched *f, struct kafka_offset_fetch_res_group *g)
{
	bool all = f->topics == NULL;
	g->topics_count = all ? f->read.count : f->topics_count;
	g->topics = kafka_list(f->r, &kafka_offset_fetch_res_topic_type, g->topics_count);
	if (g->topics == NULL)
		return false;
	return all ? pick_all(f, g->topics, &g->topics_count) : pick_asked(f, g->topics);
}

static void offset_fetch_answer(struct fetched *f)
{
	struct kafka_offset_fetch_res *res = f->r->res;
	if (f->r->h.version >= 8) {
		res->groups = f->groups;
		res->groups_count = f->count;
		kafka_answer(f->r);
		return;
	}
	res->error = f->groups->error;
	res->topics = f->groups->topics;
	res->topics_count = f->groups->topics_count;
	for (uint32_t i = 0; res->error != KAFKA_NONE && i < res->topics_count; i++)
		for (uint32_t n = 0; n < res->topics[i].partitions_count; n++)
			res->topics[i].partitions[n].error = res->error;
	kafka_answer(f->r);
}

static void on_offsets(struct offsets_read *read);

static void offset_fetch_next(struct fetched *f)
{
	struct kafka_request *r = f->r;
	const struct kafka_offset_fetch_req *req = r->req;
	bool single = r->h.version < 8;
	for (; f->at < f->count && !r->kc->closed; f->at++) {
		struct kafka_offset_fetch_res_group *g = &f->groups[f->at];
		struct bytes inside;
		g->group_id = single ? req->group_id : req->groups[f->at].group_id;
		f->topics = single ? req->topics : req->groups[f->at].topics;
		f->topics_count = single ? req->topics_count : req->groups[f->at].topics_count;
		g->error = kafka_group(r, ACTION_DESCRIBE, g->group_id, &inside);
		if (g->error == KAFKA_NONE) {
			r->outstanding++;
			offsets_read(&f->read, kafka_catalog(r), inside);
			return;
		}
		if (!pick(f, g))
			return;
	}
	offset_fetch_answer(f);
}

static void on_offsets(struct offsets_read *read)
{
	struct fetched *f = list_entry(read, struct fetched, read);
	if (!kafka_landed(f->r))
		return;
	if (*read->held > read->held_max) {
		kafka_fail(f->r, ERR_BUSY);
		return;
	}
	f->groups[f->at].error = kafka_group_code(read->err);
	if (!pick(f, &f->groups[f->at]))
		return;
	offsets_read_fini(read);
	f->at++;
	offset_fetch_next(f);
}

static void offset_fetch_fini(struct kafka_request *r)
{
	struct fetched *f = r->op;
	offsets_read_fini(&f->read);
}

void kafka_on_offset_fetch(struct kafka_request *r)
{
	const struct kafka_offset_fetch_req *req = r->req;
	struct fetched *f = kafka_take(r, sizeof *f);
	if (f == NULL)
		return;
	f->r = r;
	f->count = r->h.version < 8 ? 1 : req->groups_count;
	f->groups = kafka_list(r, &kafka_offset_fetch_res_group_type, f->count);
	if (f->groups == NULL)
		return;
	f->read.done = on_offsets;
	f->read.held = &r->kc->home->held;
	f->read.held_max = kafka_of(r)->conf->loop_held_bytes;
	r->op = f;
	r->fini = offset_fetch_fini;
	offset_fetch_next(f);
}
