/* Produce: each partition's batch is checked and proposed straight from the connection's input; the
 * answer is made when all outcomes are there, or the client's patience ends. With acks 0 nothing is
 * answered, and an error closes the connection, since there is no other way to say it. */
#include "protocols/kafka/kafka_priv.h"
#include "protocols/kafka/kafka_set.h"
#include "server/base/log.h"
#include "server/broker/produce.h"

enum { TIMEOUT_MS_MIN = 100, BATCH_VERSION = 3, HINT_VERSION = 10 };

struct put { /* one partition's batch */
	struct produce produce;
	struct kafka_request *r;
	struct kafka_produce_res_partition *res;
	struct partition *partition;
};

static void refuse(struct kafka_request *r, struct kafka_produce_res_partition *res, int16_t code)
{
	res->error = code;
	res->base_offset = -1;
	kafka_count(r->kc->home, M_REFUSED_BATCHES, 1);
}

/* Where the leaders named by hints are reached. */
static void add_nodes(struct kafka_request *r, struct kafka_produce_res *res)
{
	bool hinted = false;
	for (uint32_t i = 0; r->h.version >= HINT_VERSION && i < res->topics_count; i++)
		for (uint32_t n = 0; n < res->topics[i].partitions_count; n++)
			hinted |= res->topics[i].partitions[n].leader.leader_id >= 0;
	if (!hinted)
		return;
	uint32_t count;
	const struct kafka_broker *brokers = kafka_brokers(r, &count);
	if (brokers == NULL)
		return;
	res->nodes = kafka_list(r, &kafka_produce_res_node_type, count);
	if (res->nodes == NULL)
		return;
	res->nodes_count = count;
	for (uint32_t i = 0; i < count; i++) {
		res->nodes[i].node_id = brokers[i].id;
		res->nodes[i].host = brokers[i].host;
		res->nodes[i].port = brokers[i].port;
		res->nodes[i].rack = brokers[i].rack;
	}
}

static void finish(struct kafka_request *r)
{
	struct kafka_produce_res *res = r->res;
	for (uint32_t i = 0; r->silent && i < res->topics_count; i++)
		for (uint32_t n = 0; n < res->topics[i].partitions_count; n++) {
			int16_t code = res->topics[i].partitions[n].error;
			if (code == KAFKA_NONE)
				continue;
			LOG(LOG_WARN, AREA_KAFKA, "produce_failed", "peer=%s acks=0 code=%d",
				conn_is_closing(r->kc->conn) ? "-" : conn_peer(r->kc->conn), code);
			kafka_fail(r, ERR_CLOSED);
			return;
		}
	add_nodes(r, res);
	kafka_answer(r);
}

static void hint(struct kafka_request *r, struct put *put)
{
	if (put->res->error == KAFKA_NOT_LEADER)
		kafka_hint(r, put->partition, &put->res->leader.leader_id,
			&put->res->leader.leader_epoch);
}

static void on_put(struct produce *p)
{
	struct put *put = list_entry(p, struct put, produce);
	struct kafka_request *r = put->r;
	if (!kafka_landed(r))
		return;
	if (p->err == OK) {
		put->res->error = KAFKA_NONE;
		put->res->base_offset = p->base_offset;
		put->res->log_append_time_ms = p->append_ms;
		put->res->log_start_offset = partition_first_offset(put->partition);
	} else {
		refuse(r, put->res, kafka_produce_code(p->err));
		hint(r, put);
	}
	if (r->outstanding == 0)
		finish(r);
}

/* What has no outcome yet has the code of a timeout already. */
static void on_timeout(struct kafka_request *r)
{
	finish(r);
}

/* A message set of an old client. Unpacked it must not be more than the stream takes, and all of a
 * request's not more than a request may be; as much memory counts as produced meanwhile. */
static enum err start_set(
	struct kafka_request *r, const struct stream *s, struct put *put, struct bytes set)
{
	int64_t most = stream_bytes_max(s, shard_conf(kafka_shard(r)));
	int64_t left = kafka_of(r)->conf->request_bytes_max - r->unpacked;
	struct slice made;
	struct batch b;
	size_t inflated;
	enum err e = kafka_set_read(
		set, left < 0 ? 0 : (size_t)(most < left ? most : left), &made, &inflated);
	r->unpacked += (int64_t)inflated;
	if (e != OK)
		return e;
	r->messages += batch_read(made.bytes, &b) == OK ? b.count : 0;
	kafka_producing(r, (int64_t)made.bytes.len);
	e = produce_start(&put->produce, kafka_shard(r), s, put->partition, made.bytes);
	slice_unref(&made);
	return e;
}

/* may: whether they may write to the topic; s is NULL then, too. */
static void put_one(struct kafka_request *r, const struct stream *s, bool may,
	const struct kafka_produce_req_partition *req, struct put *put)
{
	struct partition *p = s ? stream_partition(s, req->index) : NULL;
	struct bytes in = req->records.bytes;
	struct batch b;
	int16_t acks = ((const struct kafka_produce_req *)r->req)->acks;
	put->res->index = req->index;
	if (acks < -1 || acks > 1)
		refuse(r, put->res, KAFKA_INVALID_ACKS);
	else if (!may)
		refuse(r, put->res, KAFKA_TOPIC_DENIED);
	else if (p == NULL)
		refuse(r, put->res, KAFKA_UNKNOWN_TOPIC);
	else if (in.len == 0)
		refuse(r, put->res, KAFKA_INVALID_RECORD);
	else if (r->h.version < 7 && batch_read(in, &b) == OK && b.codec == CODEC_ZSTD)
		refuse(r, put->res, KAFKA_UNSUPPORTED_COMPRESSION);
	else {
		put->r = r;
		put->partition = p;
		put->produce.done = on_put;
		enum err e = r->h.version < BATCH_VERSION
			? start_set(r, s, put, in)
			: produce_start(&put->produce, kafka_shard(r), s, p, in);
		if (e != OK) {
			refuse(r, put->res, kafka_produce_code(e));
			hint(r, put);
			return;
		}
		kafka_count(r->kc->home, M_PRODUCE_BYTES, (int64_t)in.len);
		put->res->error = KAFKA_REQUEST_TIMED_OUT;
		put->res->base_offset = -1;
		r->outstanding++;
	}
}

/* Counts what has come for the quotas: refused or not, it was sent. */
static int32_t charge(struct kafka_request *r, const struct kafka_produce_req *req)
{
	int64_t messages = r->messages, bytes = 0;
	if (!access_limited(r->access))
		return 0;
	for (uint32_t i = 0; i < req->topics_count; i++)
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++) {
			struct bytes in = req->topics[i].partitions[n].records.bytes;
			struct batch b;
			bytes += (int64_t)in.len;
			if (batch_read(in, &b) == OK && b.count > 0)
				messages += b.count;
		}
	return kafka_throttle(r, access_charge_in(r->access, messages, bytes));
}

/* The answer's skeleton. Names are copied: the input is gone when it leaves. */
static uint32_t prepare(struct kafka_request *r)
{
	const struct kafka_produce_req *req = r->req;
	struct kafka_produce_res *res = r->res;
	uint32_t count = 0;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_produce_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return UINT32_MAX;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		uint32_t n = req->topics[i].partitions_count;
		res->topics[i].name = kafka_copy(r, req->topics[i].name);
		res->topics[i].partitions_count = n;
		res->topics[i].partitions = kafka_list(r, &kafka_produce_res_partition_type, n);
		if (res->topics[i].partitions == NULL)
			return UINT32_MAX;
		count += n;
	}
	return count;
}

void kafka_on_produce(struct kafka_request *r)
{
	const struct kafka_produce_req *req = r->req;
	struct kafka_produce_res *res = r->res;
	uint32_t count = prepare(r);
	if (count == UINT32_MAX)
		return;
	struct put *put = kafka_take(r, count * sizeof *put);
	if (put == NULL)
		return;
	r->silent = req->acks == 0;
	for (uint32_t i = 0; i < req->topics_count; i++) {
		const struct kafka_produce_req_topic *t = &req->topics[i];
		bool may = kafka_may_stream(r, ACTION_WRITE, t->name);
		const struct stream *s = may ? kafka_stream(r, t->name) : NULL;
		for (uint32_t n = 0; n < t->partitions_count; n++, put++) {
			put->res = &res->topics[i].partitions[n];
			put_one(r, s, may, &t->partitions[n], put);
		}
	}
	res->throttle_ms = charge(r, req);
	if (r->outstanding == 0) {
		finish(r);
		return;
	}
	if (req->acks != 0 && req->timeout_ms > 0) {
		r->hurry = on_timeout;
		loop_timer_set(&r->timer,
			req->timeout_ms < TIMEOUT_MS_MIN ? TIMEOUT_MS_MIN : req->timeout_ms);
	}
}

struct id_ask {
	struct producer_id_ask ask;
	struct kafka_request *r;
};

static void on_id(struct producer_id_ask *a)
{
	struct id_ask *ask = list_entry(a, struct id_ask, ask);
	struct kafka_request *r = ask->r;
	struct kafka_init_producer_id_res *res = r->res;
	if (!kafka_landed(r))
		return;
	res->producer_id = a->err == OK ? a->id : -1;
	res->producer_epoch = a->err == OK ? 0 : -1;
	res->error = a->err == OK ? KAFKA_NONE : KAFKA_COORDINATOR_LOADING;
	kafka_answer(r);
}

void kafka_on_init_producer_id(struct kafka_request *r)
{
	const struct kafka_init_producer_id_req *req = r->req;
	struct kafka_init_producer_id_res *res = r->res;
	if (req->transactional_id.at != NULL) {
		res->error = KAFKA_TRANSACTIONAL_ID_DENIED;
		res->producer_epoch = -1;
		kafka_answer(r);
		return;
	}
	if (!kafka_may_cluster(r, ACTION_IDEMPOTENT_WRITE) &&
		!access_may_any(r->access, ACTION_WRITE, RESOURCE_STREAM)) {
		res->error = KAFKA_CLUSTER_DENIED;
		res->producer_epoch = -1;
		kafka_answer(r);
		return;
	}
	struct id_ask *ask = kafka_take(r, sizeof *ask);
	if (ask == NULL)
		return;
	ask->r = r;
	ask->ask.done = on_id;
	r->outstanding = 1;
	producer_id_get(&r->kc->home->ids, &ask->ask);
}
