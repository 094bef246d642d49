/* Where things are in a partition: by time, by leader epoch, and where it is made to start. */
#include <stdio.h>
#include "protocols/kafka/kafka_priv.h"

enum { LATEST = -1, EARLIEST = -2, MAX_TIMESTAMP = -3, EARLIEST_LOCAL = -4 };

static int16_t epoch_check(const struct partition *p, int32_t epoch)
{
	if (epoch >= 0 && epoch < partition_epoch(p))
		return KAFKA_FENCED_LEADER_EPOCH;
	return epoch > partition_epoch(p) ? KAFKA_UNKNOWN_LEADER_EPOCH : KAFKA_NONE;
}

int16_t kafka_find(struct kafka_request *r, struct bytes topic, int32_t index, int32_t epoch,
	struct partition **out)
{
	const struct stream *s = kafka_stream(r, topic);
	*out = s ? stream_partition(s, index) : NULL;
	if (*out == NULL)
		return KAFKA_UNKNOWN_TOPIC;
	return partition_leads(*out) ? epoch_check(*out, epoch) : KAFKA_NOT_LEADER;
}

int16_t kafka_find_replica(struct kafka_request *r, struct bytes topic, int32_t index,
	int32_t epoch, struct partition **out)
{
	const struct stream *s = kafka_stream(r, topic);
	*out = s ? stream_partition(s, index) : NULL;
	if (*out == NULL)
		return KAFKA_UNKNOWN_TOPIC;
	bool serves = partition_leads(*out) ||
		(partition_attached(*out) && partition_leader(*out) != 0);
	return serves ? epoch_check(*out, epoch) : KAFKA_NOT_LEADER;
}

/* Holds r while its parts are started, since the first could end before the last begins. */
static void hold(struct kafka_request *r)
{
	r->outstanding++;
}

struct time_seek {
	struct offset_seek seek;
	struct kafka_request *r;
	struct kafka_list_offsets_res_partition *res;
	/* For the greatest timestamp: one was found at low, none at or after high. */
	int64_t low_ms, high_ms;
	bool greatest;
};

/* Seeking "the first record at or after t" for ever larger t closes in on the greatest timestamp
 * in at most 64 steps, each a search in the index. */
static bool seek_greatest_again(struct time_seek *t)
{
	if (t->seek.err == OK) {
		t->res->offset = t->seek.offset;
		t->res->timestamp = t->low_ms = t->seek.timestamp_ms;
	} else {
		t->high_ms = t->seek.time_ms;
	}
	if (t->low_ms + 1 >= t->high_ms)
		return false;
	t->seek.time_ms = t->low_ms + (t->high_ms - t->low_ms) / 2;
	partition_seek(&t->seek);
	return true;
}

static void on_time(struct offset_seek *s)
{
	struct time_seek *t = list_entry(s, struct time_seek, seek);
	bool known = s->err == OK || s->err == ERR_NOTFOUND;
	if (!t->r->sent && known && t->greatest && seek_greatest_again(t))
		return;
	if (!t->r->sent) {
		if (s->err == OK && !t->greatest) {
			t->res->offset = s->offset;
			t->res->timestamp = s->timestamp_ms;
		}
		t->res->error = known ? KAFKA_NONE : kafka_code(s->err);
	}
	kafka_land(t->r);
}

struct end_ask {
	struct partition_point point;
	struct kafka_request *r;
	int64_t *end;
	int16_t *error;
};

static void on_end(struct partition_point *q)
{
	struct end_ask *e = list_entry(q, struct end_ask, point);
	if (!e->r->sent && q->err == OK)
		*e->end = q->offset;
	else if (!e->r->sent)
		*e->error = kafka_code(q->err);
	kafka_land(e->r);
}

/* What is known of the end here may be old: whoever is told of one below what it has read or
 * written takes that for lost. */
static void ask_end(struct kafka_request *r, struct partition *p, int64_t *end, int16_t *error)
{
	struct end_ask *e = arena_take(&r->arena, sizeof *e);
	if (e == NULL) {
		*error = KAFKA_UNKNOWN_SERVER_ERROR;
		return;
	}
	*e = (struct end_ask){.r = r, .end = end, .error = error};
	e->point = (struct partition_point){.at = p, .done = on_end};
	r->outstanding++;
	partition_point(&e->point);
}

static void list_one(struct kafka_request *r, bool may, struct bytes topic,
	const struct kafka_list_offsets_req_partition *req,
	struct kafka_list_offsets_res_partition *res)
{
	struct partition *p;
	struct time_seek *t;
	res->index = req->index;
	res->error = may ? kafka_find(r, topic, req->index, req->leader_epoch, &p)
			 : KAFKA_TOPIC_DENIED;
	if (res->error != KAFKA_NONE)
		return;
	res->leader_epoch = partition_epoch(p);
	if (req->timestamp == LATEST) {
		ask_end(r, p, &res->offset, &res->error);
		return;
	}
	if (req->timestamp == EARLIEST || req->timestamp == EARLIEST_LOCAL) {
		res->offset = partition_first_offset(p);
		return;
	}
	if (req->timestamp < MAX_TIMESTAMP) {
		res->error = KAFKA_INVALID_REQUEST;
		return;
	}
	t = arena_take(&r->arena, sizeof *t);
	if (t == NULL) {
		res->error = KAFKA_UNKNOWN_SERVER_ERROR;
		return;
	}
	*t = (struct time_seek){.r = r,
		.res = res,
		.low_ms = -1,
		.high_ms = INT64_MAX,
		.greatest = req->timestamp == MAX_TIMESTAMP};
	t->seek = (struct offset_seek){
		.from = p, .time_ms = t->greatest ? 0 : req->timestamp, .done = on_time};
	r->outstanding++;
	partition_seek(&t->seek);
}

void kafka_on_list_offsets(struct kafka_request *r)
{
	const struct kafka_list_offsets_req *req = r->req;
	struct kafka_list_offsets_res *res = r->res;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_list_offsets_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		res->topics[i].name = req->topics[i].name;
		res->topics[i].partitions_count = n;
		res->topics[i].partitions = kafka_list(
			r, &kafka_list_offsets_res_partition_type, n);
		if (res->topics[i].partitions == NULL)
			return;
	}
	hold(r);
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct bytes name = req->topics[i].name;
		bool may = kafka_may_stream(r, ACTION_DESCRIBE, name);
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++)
			list_one(r, may, name, &req->topics[i].partitions[n],
				&res->topics[i].partitions[n]);
	}
	kafka_land(r);
}

struct epoch_seek {
	struct offset_seek seek;
	struct kafka_request *r;
	struct kafka_offset_for_leader_epoch_res_partition *res;
};

static void on_epoch(struct offset_seek *s)
{
	struct epoch_seek *e = list_entry(s, struct epoch_seek, seek);
	if (!e->r->sent && s->err == OK) {
		e->res->leader_epoch = s->found_epoch > 0 ? s->found_epoch : -1;
		e->res->end_offset = s->found_epoch > 0 ? s->offset : -1;
	} else if (!e->r->sent && s->err != ERR_NOTFOUND) {
		e->res->error = kafka_code(s->err);
	}
	kafka_land(e->r);
}

static void epoch_one(struct kafka_request *r, bool may, struct bytes topic,
	const struct kafka_offset_for_leader_epoch_req_partition *req,
	struct kafka_offset_for_leader_epoch_res_partition *res)
{
	struct partition *p;
	res->index = req->index;
	res->error = may ? kafka_find(r, topic, req->index, req->current_epoch, &p)
			 : KAFKA_TOPIC_DENIED;
	if (res->error != KAFKA_NONE)
		return;
	if (req->leader_epoch > partition_epoch(p))
		return; /* not known: -1, -1 */
	if (req->leader_epoch == partition_epoch(p)) {
		res->leader_epoch = req->leader_epoch;
		ask_end(r, p, &res->end_offset, &res->error);
		return;
	}
	struct epoch_seek *e = arena_take(&r->arena, sizeof *e);
	if (e == NULL) {
		res->error = KAFKA_UNKNOWN_SERVER_ERROR;
		return;
	}
	*e = (struct epoch_seek){.r = r, .res = res};
	e->seek = (struct offset_seek){
		.from = p, .by_epoch = true, .epoch = req->leader_epoch, .done = on_epoch};
	r->outstanding++;
	partition_seek(&e->seek);
}

void kafka_on_offset_for_leader_epoch(struct kafka_request *r)
{
	const struct kafka_offset_for_leader_epoch_req *req = r->req;
	struct kafka_offset_for_leader_epoch_res *res = r->res;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(
		r, &kafka_offset_for_leader_epoch_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		res->topics[i].name = req->topics[i].name;
		res->topics[i].partitions_count = n;
		res->topics[i].partitions = kafka_list(
			r, &kafka_offset_for_leader_epoch_res_partition_type, n);
		if (res->topics[i].partitions == NULL)
			return;
	}
	hold(r);
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct bytes name = req->topics[i].name;
		bool may = kafka_may_stream(r, ACTION_DESCRIBE, name);
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++)
			epoch_one(r, may, name, &req->topics[i].partitions[n],
				&res->topics[i].partitions[n]);
	}
	kafka_land(r);
}

struct trim {
	struct proposal proposal;
	struct kafka_request *r;
	struct kafka_delete_records_res_partition *res;
	struct trimmed *topic;
};
struct trimmed { /* what becomes of a topic, for the audit */
	uint32_t asked, done;
	enum err err; /* the first that went wrong */
};

/* Once for each topic of which something was trimmed, or was to be. */
static void tell_trimmed(struct kafka_request *r)
{
	const struct kafka_delete_records_req *req = r->req;
	const struct trimmed *of = r->op;
	struct admin_who who;
	char detail[40];
	kafka_who(r, &who);
	for (uint32_t i = 0; i < req->topics_count; i++) {
		snprintf(detail, sizeof detail, "partitions=%u", of[i].done);
		if (of[i].asked > 0)
			admin_tell(&who, "stream-trim", req->topics[i].name, of[i].err, detail);
	}
}

static void trim_land(struct kafka_request *r)
{
	if (r->outstanding == 1)
		tell_trimmed(r);
	kafka_land(r);
}

static void on_trimmed(struct proposal *p)
{
	struct trim *t = list_entry(p, struct trim, proposal);
	if (!t->r->sent) {
		t->res->error = kafka_code(p->err);
		t->res->low_watermark = p->err == OK ? partition_first_offset(p->to) : -1;
	}
	t->topic->done += p->err == OK;
	if (t->topic->err == OK)
		t->topic->err = p->err;
	trim_land(t->r);
}

static void trim_one(struct kafka_request *r, bool may, struct bytes topic,
	const struct kafka_delete_records_req_partition *req,
	struct kafka_delete_records_res_partition *res, struct trimmed *told)
{
	struct partition *p;
	res->index = req->index;
	res->low_watermark = -1;
	res->error = may ? kafka_find(r, topic, req->index, -1, &p) : KAFKA_TOPIC_DENIED;
	if (res->error != KAFKA_NONE)
		return;
	/* -1: all there is. Where the log ends is for the proposal to say: here it may be old. */
	int64_t to = req->offset;
	struct trim *t = arena_take(&r->arena, sizeof *t);
	if (to < -1 || t == NULL) {
		res->error = KAFKA_OFFSET_OUT_OF_RANGE;
		return;
	}
	if (to >= 0 && to <= partition_first_offset(p)) {
		res->low_watermark = partition_first_offset(p);
		return;
	}
	*t = (struct trim){.r = r, .res = res, .topic = told};
	told->asked++;
	t->proposal = (struct proposal){.to = p, .done = on_trimmed};
	r->outstanding++;
	partition_trim(&t->proposal, to);
}

void kafka_on_delete_records(struct kafka_request *r)
{
	const struct kafka_delete_records_req *req = r->req;
	struct kafka_delete_records_res *res = r->res;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_delete_records_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		res->topics[i].name = req->topics[i].name;
		res->topics[i].partitions_count = n;
		res->topics[i].partitions = kafka_list(
			r, &kafka_delete_records_res_partition_type, n);
		if (res->topics[i].partitions == NULL)
			return;
	}
	struct trimmed *told = kafka_take(r, (req->topics_count + 1) * sizeof *told);
	if (told == NULL)
		return;
	r->op = told;
	hold(r);
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct bytes name = req->topics[i].name;
		bool may = kafka_may_stream(r, ACTION_DELETE, name);
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++)
			trim_one(r, may, name, &req->topics[i].partitions[n],
				&res->topics[i].partitions[n], &told[i]);
	}
	trim_land(r);
}
