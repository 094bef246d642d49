/* What administrators do to topics: each becomes one change of the catalogue, which is checked
 * where it is made; only what has a code of its own in Kafka is looked at here first. */
#include "protocols/kafka/kafka_priv.h"

struct change {
	struct admin_change asked;
	struct kafka_new_stream stream;
	struct kafka_request *r;
	int16_t *error;
	struct bytes *message; /* NULL: this version has none */
	struct kafka_create_topics_res_topic *created;
};

static void tell_created(struct change *c)
{
	const struct stream *s = catalog_stream(kafka_catalog(c->r), bytes_text(c->asked.op.name));
	if (s == NULL)
		return;
	memcpy(&c->created->topic_id, s->uuid, sizeof c->created->topic_id);
	if (!kafka_may_stream(c->r, ACTION_DESCRIBE_CONFIGS, c->created->name)) {
		c->created->config_error = KAFKA_TOPIC_DENIED;
		return;
	}
	c->created->partitions = s->partition_count;
	c->created->replicas = 1;
}

static int16_t change_code(const struct meta_op *op)
{
	if (op->kind == META_CREATE_STREAM && op->err == ERR_INVALID && op->setting_count == 0)
		return KAFKA_INVALID_REQUEST;
	return kafka_admin_code(op->err);
}

static void on_ready(struct kafka_new_stream *n)
{
	struct change *c = list_entry(n, struct change, stream);
	if (!c->r->sent && c->created != NULL)
		tell_created(c);
	kafka_land(c->r);
}

static void on_changed(struct admin_change *a)
{
	struct change *c = list_entry(a, struct change, asked);
	const struct meta_op *op = &a->op;
	if (!c->r->sent) {
		*c->error = change_code(op);
		if (op->err != OK && c->message != NULL)
			*c->message = bytes_text(op->why[0] ? op->why : err_text(op->err));
	}
	bool grown = op->kind == META_CREATE_STREAM || op->kind == META_ADD_PARTITIONS;
	if (op->err != OK || op->check_only || !grown) {
		kafka_land(c->r);
		return;
	}
	c->stream = (struct kafka_new_stream){.r = c->r, .name = op->name, .done = on_ready};
	kafka_await_leaders(&c->stream);
}

static void refuse(int16_t *error, struct bytes *message, int16_t code, const char *why)
{
	*error = code;
	if (message != NULL)
		*message = bytes_text(why);
}

static void start(struct kafka_request *r, struct change *c)
{
	c->r = r;
	kafka_change(r, &c->asked, on_changed);
}

/* CreateTopics */

static bool assignments_fit(struct kafka_request *r, const struct kafka_create_topics_req_topic *t)
{
	int32_t self = kafka_node_id(kafka_of(r));
	for (uint32_t i = 0; i < t->assignments_count; i++) {
		const struct kafka_create_topics_req_assignment *a = &t->assignments[i];
		if (a->index < 0 || (uint32_t)a->index >= t->assignments_count ||
			a->nodes_count != 1 || a->nodes[0] != self)
			return false;
	}
	return true;
}

/* Of two of a name neither is made: which of both was meant? */
static void refuse_twice(
	const struct kafka_create_topics_req *req, struct kafka_create_topics_res *res)
{
	struct map named = {0};
	for (uint32_t i = 0; i < req->topics_count; i++) {
		struct kafka_create_topics_res_topic *before = map_put(
			&named, req->topics[i].name, &res->topics[i]);
		if (before == NULL)
			continue;
		const char *why = "the topic is named twice in the request";
		refuse(&before->error, &before->message, KAFKA_INVALID_REQUEST, why);
		refuse(&res->topics[i].error, &res->topics[i].message, KAFKA_INVALID_REQUEST, why);
	}
	map_fini(&named);
}

/* How many replicas there can be. Nodes that have gone leave the catalogue. */
static int nodes_count(struct kafka_request *r)
{
	int count = catalog_node_count(kafka_catalog(r));
	return count > 0 ? count : 1;
}

/* 0, or the code of what is wrong before the catalogue is asked. */
static int16_t create_check(
	struct kafka_request *r, const struct kafka_create_topics_req_topic *t, const char **why)
{
	*why = "";
	if (!access_may_create(r->access, t->name)) {
		*why = "not allowed to create it";
		return KAFKA_TOPIC_DENIED;
	}
	if (!kafka_name_valid(t->name)) {
		*why = "a name has 1 to 249 of a-z A-Z 0-9 . _ - and is not . or ..";
		return KAFKA_INVALID_TOPIC;
	}
	if (kafka_stream(r, t->name) != NULL) {
		*why = "the topic exists";
		return KAFKA_TOPIC_EXISTS;
	}
	if (t->assignments_count > 0 && (t->partitions != -1 || t->replicas != -1)) {
		*why = "either assignments or counts";
		return KAFKA_INVALID_REQUEST;
	}
	if (!assignments_fit(r, t)) {
		*why = "each partition has one replica, on a node that exists";
		return KAFKA_INVALID_ASSIGNMENT;
	}
	if (t->assignments_count == 0 && (t->partitions == 0 || t->partitions < -1)) {
		*why = "there is at least one partition";
		return KAFKA_INVALID_PARTITIONS;
	}
	if (t->replicas == 0 || t->replicas < -1 || t->replicas > nodes_count(r)) {
		*why = "more replicas than nodes";
		return KAFKA_INVALID_REPLICATION;
	}
	return KAFKA_NONE;
}

static void create_one(
	struct kafka_request *r, uint32_t at, struct kafka_create_topics_res_topic *res)
{
	const struct kafka_create_topics_req *req = r->req;
	const struct kafka_create_topics_req_topic *t = &req->topics[at];
	const char *why;
	res->name = t->name;
	if (res->error != KAFKA_NONE)
		return;
	int16_t code = create_check(r, t, &why);
	if (code != KAFKA_NONE) {
		refuse(&res->error, &res->message, code, why);
		return;
	}
	struct change *c = kafka_take(r, sizeof *c);
	if (c == NULL)
		return;
	struct meta_setting *settings = kafka_take(r, (t->configs_count + 1) * sizeof *settings);
	char *name = settings ? kafka_inside(r, t->name) : NULL;
	if (name == NULL)
		return;
	int count = 0;
	for (uint32_t i = 0; i < t->configs_count; i++) {
		if (t->configs[i].value.at == NULL)
			continue;
		settings[count].key = kafka_text(r, t->configs[i].name);
		settings[count].value = settings[count].key ? kafka_text(r, t->configs[i].value)
							    : NULL;
		if (settings[count++].value == NULL)
			return;
	}
	c->error = &res->error;
	c->message = &res->message;
	c->created = res;
	c->asked.op = (struct meta_op){.kind = META_CREATE_STREAM,
		.name = name,
		.partitions = t->assignments_count > 0 ? (int64_t)t->assignments_count
						       : t->partitions,
		.replicas = t->replicas,
		.settings = settings,
		.setting_count = count,
		.check_only = req->validate_only};
	start(r, c);
}

void kafka_on_create_topics(struct kafka_request *r)
{
	const struct kafka_create_topics_req *req = r->req;
	struct kafka_create_topics_res *res = r->res;
	res->topics_count = req->topics_count;
	res->topics = kafka_list(r, &kafka_create_topics_res_topic_type, req->topics_count);
	if (res->topics == NULL)
		return;
	refuse_twice(req, res);
	r->outstanding++;
	for (uint32_t i = 0; i < req->topics_count && !r->ready; i++)
		create_one(r, i, &res->topics[i]);
	kafka_land(r);
}

/* DeleteTopics */

/* s NULL: there is none. name: as they call it; by_id: it was not said, and is not to be learnt. */
static void delete_one(struct kafka_request *r, struct kafka_delete_topics_res_topic *res,
	const struct stream *s, struct bytes name, bool by_id)
{
	if (by_id && s == NULL) {
		refuse(&res->error, &res->message, KAFKA_UNKNOWN_TOPIC_ID, "no such topic");
		return;
	}
	bool known = kafka_may_stream(r, ACTION_DESCRIBE, name);
	if (!known || !kafka_may_stream(r, ACTION_DELETE, name)) {
		refuse(&res->error, &res->message, KAFKA_TOPIC_DENIED, "not allowed to delete it");
		if (known)
			res->name = kafka_copy(r, name);
		return;
	}
	if (s == NULL) {
		refuse(&res->error, &res->message, KAFKA_UNKNOWN_TOPIC, "no such topic");
		return;
	}
	memcpy(&res->topic_id, s->uuid, sizeof res->topic_id);
	res->name = kafka_copy(r, name);
	if (s->internal) {
		refuse(&res->error, &res->message, KAFKA_INVALID_TOPIC, "the topic is internal");
		return;
	}
	struct change *c = kafka_take(r, sizeof *c);
	char *inside = c ? kafka_text(r, bytes_text(s->name)) : NULL;
	if (inside == NULL)
		return;
	c->error = &res->error;
	c->message = &res->message;
	c->asked.op = (struct meta_op){.kind = META_DELETE_STREAM, .name = inside};
	start(r, c);
}

void kafka_on_delete_topics(struct kafka_request *r)
{
	const struct kafka_delete_topics_req *req = r->req;
	struct kafka_delete_topics_res *res = r->res;
	bool by_name = r->h.version < 6;
	uint32_t count = by_name ? req->names_count : req->topics_count;
	res->topics_count = count;
	res->topics = kafka_list(r, &kafka_delete_topics_res_topic_type, count);
	if (res->topics == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < count && !r->ready; i++) {
		struct bytes name = by_name ? req->names[i] : req->topics[i].name;
		res->topics[i].name = name;
		if (name.at != NULL) {
			delete_one(r, &res->topics[i], kafka_stream(r, name), name, false);
			continue;
		}
		res->topics[i].topic_id = req->topics[i].topic_id;
		const struct stream *s = catalog_stream_by_uuid(
			kafka_catalog(r), req->topics[i].topic_id.bytes);
		if (s != NULL && !kafka_sees(r, s, &name))
			s = NULL;
		delete_one(r, &res->topics[i], s, name, true);
	}
	kafka_land(r);
}

/* CreatePartitions */

static void grow_one(struct kafka_request *r, const struct kafka_create_partitions_req_topic *t,
	struct kafka_create_partitions_res_result *res)
{
	const struct kafka_create_partitions_req *req = r->req;
	const struct stream *s = kafka_stream(r, t->name);
	res->name = t->name;
	if (!kafka_may_stream(r, ACTION_ALTER, t->name)) {
		refuse(&res->error, &res->message, KAFKA_TOPIC_DENIED, "not allowed to alter it");
		return;
	}
	if (s == NULL) {
		refuse(&res->error, &res->message, KAFKA_UNKNOWN_TOPIC, "no such topic");
		return;
	}
	if (t->count <= s->partition_count) {
		refuse(&res->error, &res->message, KAFKA_INVALID_PARTITIONS,
			"the topic has as many partitions or more");
		return;
	}
	struct change *c = kafka_take(r, sizeof *c);
	char *name = c ? kafka_inside(r, t->name) : NULL;
	if (name == NULL)
		return;
	c->error = &res->error;
	c->message = &res->message;
	c->asked.op = (struct meta_op){.kind = META_ADD_PARTITIONS,
		.name = name,
		.partitions = t->count,
		.check_only = req->validate_only};
	start(r, c);
}

void kafka_on_create_partitions(struct kafka_request *r)
{
	const struct kafka_create_partitions_req *req = r->req;
	struct kafka_create_partitions_res *res = r->res;
	res->results_count = req->topics_count;
	res->results = kafka_list(r, &kafka_create_partitions_res_result_type, req->topics_count);
	if (res->results == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->topics_count && !r->ready; i++)
		grow_one(r, &req->topics[i], &res->results[i]);
	kafka_land(r);
}

/* DescribeLogDirs: one directory as far as clients are concerned. */

static bool dir_asked(const struct kafka_describe_log_dirs_req *req, struct bytes name,
	const struct kafka_describe_log_dirs_req_topic **topic)
{
	*topic = NULL;
	for (uint32_t i = 0; req->topics != NULL && i < req->topics_count; i++)
		if (bytes_equal(req->topics[i].name, name))
			*topic = &req->topics[i];
	return req->topics == NULL || *topic != NULL;
}

static bool fill_sizes(struct kafka_request *r, struct kafka_describe_log_dirs_res_topic *t,
	const struct stream *s, struct bytes name,
	const struct kafka_describe_log_dirs_req_topic *asked)
{
	uint32_t count = asked ? asked->partitions_count : (uint32_t)s->partition_count;
	t->name = kafka_copy(r, name);
	t->partitions = kafka_list(r, &kafka_describe_log_dirs_res_partition_type, count);
	if (t->partitions == NULL)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		int32_t index = asked ? asked->partitions[i] : (int32_t)i;
		struct partition *p = stream_partition(s, index);
		if (p == NULL || !partition_attached(p))
			continue;
		t->partitions[t->partitions_count].index = index;
		t->partitions[t->partitions_count++].size = partition_bytes(p);
	}
	return true;
}

void kafka_on_describe_log_dirs(struct kafka_request *r)
{
	const struct kafka_describe_log_dirs_req *req = r->req;
	struct kafka_describe_log_dirs_res *res = r->res;
	const struct catalog *catalog = kafka_catalog(r);
	int count = catalog_stream_count(catalog);
	if (!kafka_may_cluster(r, ACTION_DESCRIBE)) {
		res->error = KAFKA_CLUSTER_DENIED;
		kafka_answer(r);
		return;
	}
	res->dirs = kafka_list(r, &kafka_describe_log_dirs_res_dir_type, 1);
	if (res->dirs == NULL)
		return;
	res->dirs_count = 1;
	res->dirs[0].path = bytes_text("data");
	res->dirs[0].topics = kafka_list(
		r, &kafka_describe_log_dirs_res_topic_type, (uint32_t)count);
	if (res->dirs[0].topics == NULL)
		return;
	for (int i = 0; i < count; i++) {
		const struct stream *s = catalog_stream_at(catalog, i);
		const struct kafka_describe_log_dirs_req_topic *asked;
		struct bytes name;
		if (kafka_sees(r, s, &name) && dir_asked(req, name, &asked) &&
			!fill_sizes(r, &res->dirs[0].topics[res->dirs[0].topics_count++], s, name,
				asked))
			return;
	}
	kafka_answer(r);
}

/* Replicas move by the cluster's own plan, which is no reassignment that a client could follow. */
void kafka_on_list_reassignments(struct kafka_request *r)
{
	struct kafka_list_partition_reassignments_res *res = r->res;
	if (!kafka_may_cluster(r, ACTION_DESCRIBE))
		res->error = KAFKA_CLUSTER_DENIED;
	kafka_answer(r);
}
