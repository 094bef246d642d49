/* What a client asks first: which APIs there are, who the nodes are, where
 * partitions live: any node answers for all, from the catalogue and from what
 * it has heard of leaders. A topic that is not there is created by being asked
 * for, when request and configuration allow; the answer then waits for it. */
#include "protocols/kafka/kafka_priv.h"

enum {
	LEADERS_MS = 2,
	LEADERS_TRIES = 1000,
	CREATE_MAX = 256 /* by one request */
};

void kafka_on_api_versions(struct kafka_request *r)
{
	struct kafka_api_versions_res *res = kafka_take(r, sizeof *res);
	if (res == NULL)
		return;
	*res = kafka_api_versions_res_init;
	res->error = r->req == NULL ? KAFKA_UNSUPPORTED_VERSION : KAFKA_NONE;
	res->apis_count = (uint32_t)kafka_handlers_count;
	res->apis = kafka_list(r, &kafka_api_versions_res_api_type, res->apis_count);
	if (res->apis == NULL)
		return;
	for (int i = 0; i < kafka_handlers_count; i++) {
		res->apis[i].key = kafka_handlers[i].key;
		res->apis[i].min = kafka_handlers[i].first;
		res->apis[i].max = kafka_handlers[i].last;
	}
	r->res = res;
	kafka_answer(r);
}

/* Topics to be created before the answer. */

struct creation {
	struct admin_change asked;
	struct kafka_new_stream stream;
	struct kafka_request *r;
	struct bytes name; /* as they call it */
};
struct creations { /* of a request */
	uint32_t count;
	struct creation at[];
};

static bool all_lead(const struct shard *shard, const struct stream *s)
{
	for (int i = 0; s != NULL && i < s->partition_count; i++)
		if (place_leader(shard, s->partitions[i]) == 0)
			return false;
	return s != NULL;
}

static void on_again(struct loop_timer *t)
{
	kafka_await_leaders(list_entry(t, struct kafka_new_stream, timer));
}

/* The client has gone. The loops may end soon: a timer would not fire any more.
 */
static void await_no_more(struct kafka_request *r)
{
	struct list all, *l;
	list_init(&all);
	while ((l = list_pop(&r->awaiting)) != NULL)
		list_push_back(&all, l);
	while ((l = list_pop(&all)) != NULL) { /* the last one may free r */
		struct kafka_new_stream *n = list_entry(l, struct kafka_new_stream, node);
		loop_timer_cancel(&n->timer);
		n->done(n);
	}
}

void kafka_await_leaders(struct kafka_new_stream *n)
{
	struct kafka_request *r = n->r;
	if (n->tries++ == 0) {
		loop_timer_init(&n->timer, r->kc->home->loop, on_again);
		list_init(&n->node);
	}
	list_remove(&n->node);
	if (n->tries > LEADERS_TRIES || r->kc->closed ||
		all_lead(kafka_shard(r), catalog_stream(kafka_catalog(r), bytes_text(n->name)))) {
		n->done(n);
		return;
	}
	list_push_back(&r->awaiting, &n->node);
	r->hurry = await_no_more;
	loop_timer_set(&n->timer, LEADERS_MS);
}

static void metadata_answer(struct kafka_request *r);

static void on_ready(struct kafka_new_stream *n)
{
	struct kafka_request *r = n->r;
	if (kafka_landed(r) && r->outstanding == 0)
		metadata_answer(r);
}

/* One that somebody else creates at the same time exists before it is in force here: a client that
 * was told of it by another connection would throw away what it has for a topic that is not there.
 */
static void on_created(struct admin_change *a)
{
	struct creation *c = list_entry(a, struct creation, asked);
	c->stream = (struct kafka_new_stream){.r = c->r, .name = a->op.name, .done = on_ready};
	if (a->op.err == OK || a->op.err == ERR_EXISTS)
		kafka_await_leaders(&c->stream);
	else
		on_ready(&c->stream);
}

/* One that is to be created before the answer. Who may not describe it is not to learn that it is
 * missing; who may not create it is told so in the answer. */
static bool to_create(struct kafka_request *r, struct bytes name)
{
	return kafka_name_valid(name) && kafka_stream(r, name) == NULL &&
		kafka_may_stream(r, ACTION_DESCRIBE, name) && access_may_create(r->access, name);
}

static bool auto_creates(struct kafka_request *r)
{
	const struct kafka_metadata_req *req = r->req;
	return shard_conf(kafka_shard(r))->stream_auto_create &&
		(r->h.version < 4 || req->auto_create);
}

static bool create_missing(struct kafka_request *r, const struct kafka_metadata_req *req)
{
	struct creations *list;
	uint32_t count = 0;
	for (uint32_t i = 0; auto_creates(r) && i < req->topics_count; i++)
		count += to_create(r, req->topics[i].name);
	if (count > CREATE_MAX)
		count = CREATE_MAX;
	if (count == 0)
		return true;
	list = kafka_take(r, sizeof *list + count * sizeof list->at[0]);
	if (list == NULL)
		return false;
	r->op = list;
	for (uint32_t i = 0; i < req->topics_count && list->count < count; i++) {
		if (!to_create(r, req->topics[i].name))
			continue;
		char *text = kafka_inside(r, req->topics[i].name);
		if (text == NULL)
			return false;
		struct creation *c = &list->at[list->count++];
		c->r = r;
		c->name = req->topics[i].name;
		c->asked.op = (struct meta_op){
			.kind = META_CREATE_STREAM, .name = text, .partitions = -1, .replicas = -1};
	}
	for (uint32_t i = 0; i < list->count; i++)
		kafka_change(r, &list->at[i].asked, on_created);
	return true;
}

static bool is_zero(const struct kafka_uuid *id)
{
	static const struct kafka_uuid none;
	return memcmp(id, &none, sizeof none) == 0;
}

static int32_t *ids_of(struct kafka_request *r, const uint32_t *nodes, int count)
{
	int32_t *ids = kafka_take(r, ((size_t)count + 1) * sizeof *ids);
	for (int i = 0; ids != NULL && i < count; i++)
		ids[i] = (int32_t)nodes[i];
	return ids;
}

static bool add_partition(
	struct kafka_request *r, struct kafka_metadata_res_partition *p, const struct partition *of)
{
	struct place at;
	place_of(kafka_shard(r), of, &at);
	p->leader_id = at.leader != 0 ? (int32_t)at.leader : -1;
	p->leader_epoch = at.leader != 0 ? at.epoch : -1;
	p->error = at.leader != 0 ? KAFKA_NONE : KAFKA_LEADER_NOT_AVAILABLE;
	p->replicas_count = (uint32_t)at.count;
	p->replicas = ids_of(r, at.replicas, at.count);
	p->isr_count = (uint32_t)at.reachable_count;
	p->isr = ids_of(r, at.reachable, at.reachable_count);
	p->offline_count = (uint32_t)at.lost_count;
	p->offline = ids_of(r, at.lost, at.lost_count);
	return p->replicas != NULL && p->isr != NULL && p->offline != NULL;
}

static bool add_partitions(
	struct kafka_request *r, struct kafka_metadata_res_topic *t, const struct stream *s)
{
	t->partitions_count = (uint32_t)s->partition_count;
	t->partitions = kafka_list(
		r, &kafka_metadata_res_partition_type, (uint32_t)s->partition_count);
	if (t->partitions == NULL)
		return false;
	for (int i = 0; i < s->partition_count; i++) {
		t->partitions[i].index = i;
		if (!add_partition(r, &t->partitions[i], s->partitions[i]))
			return false;
	}
	return true;
}

/* An answer outlives the catalogue it was made from: the name is copied. */
static bool fill_topic(struct kafka_request *r, struct kafka_metadata_res_topic *t,
	const struct stream *s, struct bytes name, bool operations)
{
	t->name = kafka_copy(r, name);
	t->internal = s->internal;
	memcpy(&t->topic_id, s->uuid, sizeof t->topic_id);
	if (operations)
		t->operations = kafka_stream_operations(r, name);
	return add_partitions(r, t, s);
}

/* It would have been created, were it not too much. */
static bool over_limit(const struct kafka_request *r, struct bytes name)
{
	const struct creations *list = r->op;
	for (uint32_t i = 0; list != NULL && i < list->count; i++)
		if (list->at[i].asked.op.err == ERR_QUOTA && bytes_equal(list->at[i].name, name))
			return true;
	return false;
}

/* Why an answer says nothing of a topic that was asked for. */
static int16_t missing_code(
	struct kafka_request *r, const struct kafka_metadata_req_topic *asked, bool by_id)
{
	if (!by_id && !kafka_may_stream(r, ACTION_DESCRIBE, asked->name))
		return KAFKA_TOPIC_DENIED;
	if (!broker_ready(shard_broker(r->kc->home->shard)))
		return KAFKA_LEADER_NOT_AVAILABLE;
	if (by_id)
		return KAFKA_UNKNOWN_TOPIC_ID;
	if (!kafka_name_valid(asked->name))
		return KAFKA_INVALID_TOPIC;
	if (over_limit(r, asked->name))
		return KAFKA_POLICY_VIOLATION;
	bool may = access_may_create(r->access, asked->name);
	return auto_creates(r) && !may ? KAFKA_TOPIC_DENIED : KAFKA_UNKNOWN_TOPIC;
}

/* Asked by id its name is not told to who may not describe it. */
static bool fill_one(struct kafka_request *r, const struct kafka_metadata_req_topic *asked,
	struct kafka_metadata_res_topic *t)
{
	const struct kafka_metadata_req *req = r->req;
	bool by_id = asked->name.at == NULL && !is_zero(&asked->topic_id);
	struct bytes name = asked->name;
	const struct stream *s = by_id
		? catalog_stream_by_uuid(kafka_catalog(r), asked->topic_id.bytes)
		: kafka_stream(r, name);
	if (s != NULL && !kafka_sees(r, s, &name))
		s = NULL;
	bool may = s != NULL && kafka_may_stream(r, ACTION_DESCRIBE, name);
	if (may)
		return fill_topic(r, t, s, name, req->topic_operations);
	t->name = asked->name;
	t->topic_id = asked->topic_id;
	t->error = s != NULL ? KAFKA_TOPIC_DENIED : missing_code(r, asked, by_id);
	return true;
}

static bool fill_asked(struct kafka_request *r, const struct kafka_metadata_req *req,
	struct kafka_metadata_res *res)
{
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_metadata_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return false;
	for (uint32_t i = 0; i < req->topics_count; i++)
		if (!fill_one(r, &req->topics[i], &res->topics[i]))
			return false;
	return true;
}

/* Whether it is among all topics; what others have, or they may not know of, is not. */
static bool is_listed(struct kafka_request *r, const struct stream *s, struct bytes *name)
{
	return kafka_sees(r, s, name) && kafka_may_stream(r, ACTION_DESCRIBE, *name);
}

static bool fill_all(struct kafka_request *r, const struct kafka_metadata_req *req,
	struct kafka_metadata_res *res)
{
	const struct catalog *catalog = kafka_catalog(r);
	struct bytes name;
	uint32_t count = 0;
	for (int i = 0; i < catalog_stream_count(catalog); i++)
		count += is_listed(r, catalog_stream_at(catalog, i), &name);
	res->topics = kafka_list(r, &kafka_metadata_res_topic_type, count);
	if (res->topics == NULL)
		return false;
	for (int i = 0; i < catalog_stream_count(catalog) && res->topics_count < count; i++) {
		const struct stream *s = catalog_stream_at(catalog, i);
		if (is_listed(r, s, &name) &&
			!fill_topic(r, &res->topics[res->topics_count++], s, name,
				req->topic_operations))
			return false;
	}
	return true;
}

/* Who leads the catalogue. Changes of it are taken by any node, so while nobody
 * is known to lead this one is named: clients would wait for a controller
 * before they even ask. */
static int32_t controller(struct kafka_request *r)
{
	const struct partition *meta = catalog_meta(kafka_catalog(r));
	struct kafka_broker at;
	bool known = meta != NULL && kafka_broker(r, place_leader(kafka_shard(r), meta), &at);
	return known ? at.id : kafka_node_id(kafka_of(r));
}

static void metadata_answer(struct kafka_request *r)
{
	const struct kafka_metadata_req *req = r->req;
	struct kafka_metadata_res *res = r->res;
	struct node *node = shard_node(kafka_shard(r));
	const struct kafka_broker *brokers = kafka_brokers(r, &res->brokers_count);
	bool all = req->topics == NULL || (r->h.version == 0 && req->topics_count == 0);
	if (brokers == NULL)
		return;
	res->brokers = kafka_list(r, &kafka_metadata_res_broker_type, res->brokers_count);
	if (res->brokers == NULL)
		return;
	for (uint32_t i = 0; i < res->brokers_count; i++) {
		res->brokers[i].node_id = brokers[i].id;
		res->brokers[i].host = brokers[i].host;
		res->brokers[i].port = brokers[i].port;
		res->brokers[i].rack = brokers[i].rack;
	}
	res->cluster_id = bytes_text(node_cluster_id(node));
	res->controller_id = controller(r);
	if (req->cluster_operations)
		res->cluster_operations = kafka_cluster_operations(r);
	if (all ? fill_all(r, req, res) : fill_asked(r, req, res))
		kafka_answer(r);
}

void kafka_on_metadata(struct kafka_request *r)
{
	if (create_missing(r, r->req) && r->outstanding == 0)
		metadata_answer(r);
}

void kafka_on_describe_cluster(struct kafka_request *r)
{
	const struct kafka_describe_cluster_req *req = r->req;
	struct kafka_describe_cluster_res *res = r->res;
	struct node *node = shard_node(kafka_shard(r));
	const struct kafka_broker *brokers;
	if (req->endpoint_type != 1) {
		res->error = KAFKA_INVALID_REQUEST;
		res->endpoint_type = req->endpoint_type;
		kafka_answer(r);
		return;
	}
	brokers = kafka_brokers(r, &res->brokers_count);
	if (brokers == NULL)
		return;
	res->brokers = kafka_list(r, &kafka_describe_cluster_res_broker_type, res->brokers_count);
	if (res->brokers == NULL)
		return;
	for (uint32_t i = 0; i < res->brokers_count; i++) {
		res->brokers[i].node_id = brokers[i].id;
		res->brokers[i].host = brokers[i].host;
		res->brokers[i].port = brokers[i].port;
		res->brokers[i].rack = brokers[i].rack;
	}
	res->cluster_id = bytes_text(node_cluster_id(node));
	res->controller_id = controller(r);
	if (req->operations)
		res->operations = kafka_cluster_operations(r);
	kafka_answer(r);
}

/* A group is coordinated by the node that leads its table. Transactions are not
 * offered: clients take this code as final, any other one they would try again
 * until their time is up. */
static int16_t find_coordinator(
	struct kafka_request *r, struct bytes key, int8_t key_type, struct kafka_broker *out)
{
	*out = (struct kafka_broker){.id = -1, .port = -1};
	if (key_type != 0)
		return key_type == 1 ? KAFKA_TRANSACTIONAL_ID_DENIED : KAFKA_INVALID_REQUEST;
	struct bytes inside;
	int16_t code = kafka_group(r, ACTION_DESCRIBE, key, &inside);
	if (code != KAFKA_NONE)
		return code;
	const struct partition *table = catalog_table(kafka_catalog(r), inside);
	if (!kafka_broker(r, place_leader(kafka_shard(r), table), out)) {
		*out = (struct kafka_broker){.id = -1, .port = -1};
		return KAFKA_COORDINATOR_NOT_AVAILABLE;
	}
	return KAFKA_NONE;
}

static struct bytes coordinator_message(int16_t code)
{
	switch (code) {
	case KAFKA_NONE: return bytes_of(NULL, 0);
	case KAFKA_COORDINATOR_NOT_AVAILABLE: return bytes_text("no leader is known");
	case KAFKA_GROUP_DENIED: return bytes_text("not allowed");
	case KAFKA_INVALID_GROUP_ID: return bytes_text("no group has such an id");
	case KAFKA_INVALID_REQUEST: return bytes_text("neither a group nor a transaction");
	default: return bytes_text("transactions are not supported");
	}
}

void kafka_on_find_coordinator(struct kafka_request *r)
{
	const struct kafka_find_coordinator_req *req = r->req;
	struct kafka_find_coordinator_res *res = r->res;
	struct kafka_broker at;
	if (r->h.version < 4) {
		res->error = find_coordinator(r, req->key, req->key_type, &at);
		res->message = coordinator_message(res->error);
		res->node_id = at.id;
		res->host = at.host;
		res->port = at.port;
		kafka_answer(r);
		return;
	}
	res->coordinators_count = req->keys_count;
	res->coordinators = kafka_list(
		r, &kafka_find_coordinator_res_coordinator_type, req->keys_count);
	if (res->coordinators == NULL)
		return;
	for (uint32_t i = 0; i < req->keys_count; i++) {
		struct kafka_find_coordinator_res_coordinator *c = &res->coordinators[i];
		c->key = req->keys[i];
		c->error = find_coordinator(r, c->key, req->key_type, &at);
		c->message = coordinator_message(c->error);
		c->node_id = at.id;
		c->host = at.host;
		c->port = at.port;
	}
	kafka_answer(r);
}
