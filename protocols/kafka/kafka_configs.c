/* Configurations as Kafka's tools see them: topics have the settings of their stream, a node a few
 * facts. A value that is not set for a stream shows what is in force instead. */
#include "protocols/kafka/kafka_priv.h"
#include <inttypes.h>
#include <stdio.h>

enum { CONFIG_TOPIC = 2, CONFIG_BROKER = 4 };
enum { SOURCE_TOPIC = 1, SOURCE_STATIC = 4, SOURCE_DEFAULT = 5 };
enum { TYPE_BOOLEAN = 1, TYPE_STRING, TYPE_INT, TYPE_SHORT, TYPE_LONG, TYPE_DOUBLE, TYPE_LIST };
enum { OP_SET, OP_DELETE, OP_APPEND, OP_SUBTRACT };
enum { NUMBER_BYTES = 24 };

struct known {
	const char *key;
	int8_t type;
	const char *initial; /* NULL: a figure of the node or the stream, see figure_of */
	const char *help;
};

static const struct known topic_keys[] = {
	{"cleanup.policy", TYPE_LIST, "delete",
		"delete: by age and size; compact: by key; or both, between commas."},
	{"compression.type", TYPE_STRING, "producer", "Batches stay as the producer made them."},
	{"delete.retention.ms", TYPE_LONG, "86400000",
		"How long a null value stays once nothing older of its key is there."},
	{"flush.messages", TYPE_LONG, "1", "Every acknowledged record is synced."},
	{"flush.ms", TYPE_LONG, "0", "Every acknowledged record is synced."},
	{"index.interval.bytes", TYPE_INT, "4096", "Taken for compatibility, without effect."},
	{"max.compaction.lag.ms", TYPE_LONG, "9223372036854775807",
		"Age of a record at which its log is compacted however little is dirty."},
	{"max.message.bytes", TYPE_INT, NULL, "The largest batch."},
	{"message.downconversion.enable", TYPE_BOOLEAN, "false", "There are no older formats."},
	{"message.timestamp.after.max.ms", TYPE_LONG, "9223372036854775807",
		"Timestamps are taken as they are."},
	{"message.timestamp.before.max.ms", TYPE_LONG, "9223372036854775807",
		"Timestamps are taken as they are."},
	{"message.timestamp.type", TYPE_STRING, "CreateTime",
		"Whether timestamps are the producer's or the server's."},
	{"min.cleanable.dirty.ratio", TYPE_DOUBLE, "0.5",
		"Part of a log that is not compacted above which it is."},
	{"min.compaction.lag.ms", TYPE_LONG, "0", "Records younger than this are not compacted."},
	{"min.insync.replicas", TYPE_INT, "1", "A majority is always waited for."},
	{"preallocate", TYPE_BOOLEAN, "false", "Never."},
	{"retention.bytes", TYPE_LONG, NULL, "Size of a partition above which it is trimmed."},
	{"retention.ms", TYPE_LONG, NULL, "Age above which records are trimmed."},
	{"segment.bytes", TYPE_INT, "1073741824", "Taken for compatibility, without effect."},
	{"segment.index.bytes", TYPE_INT, "10485760", "Taken for compatibility, without effect."},
	{"segment.jitter.ms", TYPE_LONG, "0", "Taken for compatibility, without effect."},
	{"segment.ms", TYPE_LONG, "604800000", "Taken for compatibility, without effect."},
	{"unclean.leader.election.enable", TYPE_BOOLEAN, "false", "Never."},
};

static const struct known node_keys[] = {
	{"broker.id", TYPE_INT, NULL, "The node's id."},
	{"auto.create.topics.enable", TYPE_BOOLEAN, NULL, "stream.auto_create."},
	{"num.partitions", TYPE_INT, NULL, "stream.partitions."},
	{"default.replication.factor", TYPE_INT, "1", "Replicas of a new stream."},
	{"message.max.bytes", TYPE_INT, NULL, "message.bytes_max."},
	{"log.retention.ms", TYPE_LONG, NULL, "retention.ms."},
	{"log.retention.bytes", TYPE_LONG, NULL, "retention.bytes."},
	{"group.initial.rebalance.delay.ms", TYPE_INT, NULL, "group.initial_rebalance_delay."},
	{"log.cleanup.policy", TYPE_LIST, "delete", "What happens to old records."},
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static int64_t figure_of(struct kafka_request *r, const struct stream *s, const char *key)
{
	const struct broker_conf *conf = shard_conf(kafka_shard(r));
	const struct node_conf *node = node_conf(shard_node(kafka_shard(r)));
	if (s != NULL)
		return strcmp(key, "max.message.bytes") == 0  ? stream_bytes_max(s, conf)
			: strcmp(key, "retention.bytes") == 0 ? s->retention_bytes
							      : s->retention_ms;
	return strcmp(key, "broker.id") == 0            ? node->id
		: strcmp(key, "num.partitions") == 0    ? node->stream_partitions
		: strcmp(key, "message.max.bytes") == 0 ? conf->message_bytes_max
		: strcmp(key, "log.retention.ms") == 0  ? node->retention_ms
		: strcmp(key, "log.retention.bytes") == 0
		? node->retention_bytes
		: kafka_of(r)->conf->group.initial_delay_ms;
}

static struct bytes value_of(struct kafka_request *r, const struct stream *s, const struct known *k)
{
	char text[NUMBER_BYTES];
	if (k->initial != NULL)
		return bytes_text(k->initial);
	if (strcmp(k->key, "auto.create.topics.enable") == 0)
		return bytes_text(
			shard_conf(kafka_shard(r))->stream_auto_create ? "true" : "false");
	snprintf(text, sizeof text, "%" PRId64, figure_of(r, s, k->key));
	return kafka_copy(r, bytes_text(text));
}

static bool key_asked(const struct kafka_describe_configs_req_resource *req, struct bytes key)
{
	if (req->keys == NULL)
		return true;
	for (uint32_t i = 0; i < req->keys_count; i++)
		if (bytes_equal(req->keys[i], key))
			return true;
	return false;
}

static bool add_config(struct kafka_request *r, struct kafka_describe_configs_res_result *res,
	const struct stream *s, const struct known *k)
{
	const struct kafka_describe_configs_req *req = r->req;
	struct kafka_describe_configs_res_config *c = &res->configs[res->configs_count++];
	const char *set = s ? stream_setting(s, k->key) : NULL;
	c->name = bytes_text(k->key);
	c->value = set ? kafka_copy(r, bytes_text(set)) : value_of(r, s, k);
	c->source = set ? SOURCE_TOPIC : s ? SOURCE_DEFAULT : SOURCE_STATIC;
	c->read_only = s == NULL;
	c->type = k->type;
	if (req->documentation)
		c->documentation = bytes_text(k->help);
	if (!req->synonyms)
		return true;
	c->synonyms = kafka_list(r, &kafka_describe_configs_res_synonym_type, 1);
	if (c->synonyms == NULL)
		return false;
	c->synonyms_count = 1;
	c->synonyms[0].name = c->name;
	c->synonyms[0].value = c->value;
	c->synonyms[0].source = c->source;
	return true;
}

/* Settings that are set and not in the table. */
static bool add_others(struct kafka_request *r, struct kafka_describe_configs_res_result *res,
	const struct kafka_describe_configs_req_resource *req, const struct stream *s)
{
	for (int i = 0; i < s->setting_count; i++) {
		bool listed = false;
		for (size_t n = 0; n < COUNT(topic_keys); n++)
			listed |= strcmp(topic_keys[n].key, s->settings[i].key) == 0;
		if (listed || !key_asked(req, bytes_text(s->settings[i].key)))
			continue;
		struct bytes key = kafka_copy(r, bytes_text(s->settings[i].key));
		struct known k = {s->settings[i].key, TYPE_STRING, "", ""};
		if (!add_config(r, res, s, &k))
			return false;
		res->configs[res->configs_count - 1].name = key;
		for (uint32_t n = 0; n < res->configs[res->configs_count - 1].synonyms_count; n++)
			res->configs[res->configs_count - 1].synonyms[n].name = key;
	}
	return true;
}

/* 0, or the code of a refusal. */
static int16_t denied(struct kafka_request *r, int8_t type, struct bytes name, enum action action)
{
	if (type == CONFIG_TOPIC)
		return kafka_may_stream(r, action, name) ? KAFKA_NONE : KAFKA_TOPIC_DENIED;
	return kafka_may_cluster(r, action) ? KAFKA_NONE : KAFKA_CLUSTER_DENIED;
}

static bool describe_one(struct kafka_request *r,
	const struct kafka_describe_configs_req_resource *req,
	struct kafka_describe_configs_res_result *res)
{
	const struct stream *s = NULL;
	bool topic = req->type == CONFIG_TOPIC;
	char id[NUMBER_BYTES];
	snprintf(id, sizeof id, "%" PRId32, kafka_node_id(kafka_of(r)));
	res->type = req->type;
	res->name = req->name;
	if (topic)
		s = kafka_stream(r, req->name);
	res->error = denied(r, req->type, req->name, ACTION_DESCRIBE_CONFIGS);
	if (res->error != KAFKA_NONE) {
		res->message = bytes_text("not allowed to describe it");
		return true;
	}
	bool here = topic ? s != NULL
			  : req->type == CONFIG_BROKER &&
			(req->name.len == 0 || bytes_equal(req->name, bytes_text(id)));
	if (!here) {
		res->error = topic ? KAFKA_UNKNOWN_TOPIC : KAFKA_INVALID_REQUEST;
		res->message = bytes_text(topic ? "no such topic" : "no such resource");
		return true;
	}
	const struct known *keys = topic ? topic_keys : node_keys;
	size_t count = topic ? COUNT(topic_keys) : COUNT(node_keys);
	size_t room = count + (s ? (size_t)s->setting_count : 0);
	res->configs = kafka_list(r, &kafka_describe_configs_res_config_type, (uint32_t)room);
	if (res->configs == NULL)
		return false;
	for (size_t i = 0; i < count; i++)
		if (key_asked(req, bytes_text(keys[i].key)) && !add_config(r, res, s, &keys[i]))
			return false;
	return s == NULL || add_others(r, res, req, s);
}

void kafka_on_describe_configs(struct kafka_request *r)
{
	const struct kafka_describe_configs_req *req = r->req;
	struct kafka_describe_configs_res *res = r->res;
	res->results_count = req->resources_count;
	res->results = kafka_list(r, &kafka_describe_configs_res_result_type, req->resources_count);
	if (res->results == NULL)
		return;
	for (uint32_t i = 0; i < req->resources_count; i++)
		if (!describe_one(r, &req->resources[i], &res->results[i]))
			return;
	kafka_answer(r);
}

/* Altering: both requests become a list of settings, NULL for back to the default. */

struct alter {
	struct admin_change change;
	struct kafka_request *r;
	struct meta_setting *settings;
	int count;
	int16_t *error;
	struct bytes *message;
};

static void on_altered(struct admin_change *c)
{
	struct alter *a = list_entry(c, struct alter, change);
	const struct meta_op *op = &c->op;
	if (!a->r->sent && op->err != OK) {
		*a->error = kafka_admin_code(op->err);
		*a->message = bytes_text(op->why[0] ? op->why : err_text(op->err));
	}
	kafka_land(a->r);
}

/* Room for settings of a topic; NULL when the resource can't be altered (answered) or memory is
 * out. */
static struct alter *alter_new(struct kafka_request *r, int8_t type, struct bytes name,
	const struct stream *s, size_t room, int16_t *error, struct bytes *message)
{
	*error = denied(r, type, name, ACTION_ALTER_CONFIGS);
	if (*error != KAFKA_NONE) {
		*message = bytes_text("not allowed to alter it");
		return NULL;
	}
	if (type != CONFIG_TOPIC || s == NULL) {
		*error = type == CONFIG_TOPIC ? KAFKA_UNKNOWN_TOPIC : KAFKA_INVALID_REQUEST;
		*message = bytes_text(type == CONFIG_TOPIC
				? "no such topic"
				: "nodes are configured by their file and command line");
		return NULL;
	}
	struct alter *a = kafka_take(r, sizeof *a);
	if (a == NULL)
		return NULL;
	a->r = r;
	a->error = error;
	a->message = message;
	a->change.op.name = kafka_text(r, bytes_text(s->name));
	a->settings = a->change.op.name ? kafka_take(r, (room + 1) * sizeof *a->settings) : NULL;
	return a->settings ? a : NULL;
}

static bool alter_add(struct alter *a, struct bytes key, struct bytes value)
{
	struct meta_setting *m = &a->settings[a->count];
	m->key = kafka_text(a->r, key);
	if (m->key == NULL)
		return false;
	m->value = value.at != NULL ? kafka_text(a->r, value) : NULL;
	a->count++;
	return value.at == NULL || m->value != NULL;
}

static void alter_start(struct alter *a, bool check_only)
{
	a->change.op.kind = META_ALTER_STREAM;
	a->change.op.settings = a->settings;
	a->change.op.setting_count = a->count;
	a->change.op.check_only = check_only;
	kafka_change(a->r, &a->change, on_altered);
}

static bool key_given(const struct kafka_alter_configs_req_resource *req, const char *key)
{
	for (uint32_t i = 0; i < req->configs_count; i++)
		if (bytes_equal(req->configs[i].name, bytes_text(key)))
			return true;
	return false;
}

/* The old request replaces everything: what it does not name goes back to the default. */
static void alter_one(struct kafka_request *r, const struct kafka_alter_configs_req_resource *req,
	struct kafka_alter_configs_res_result *res)
{
	const struct stream *s = kafka_stream(r, req->name);
	size_t room = req->configs_count + (s ? (size_t)s->setting_count : 0);
	res->type = req->type;
	res->name = req->name;
	struct alter *a = alter_new(r, req->type, req->name, s, room, &res->error, &res->message);
	if (a == NULL)
		return;
	for (uint32_t i = 0; i < req->configs_count; i++)
		if (!alter_add(a, req->configs[i].name, req->configs[i].value))
			return;
	for (int i = 0; i < s->setting_count; i++)
		if (!key_given(req, s->settings[i].key) &&
			!alter_add(a, bytes_text(s->settings[i].key), bytes_of(NULL, 0)))
			return;
	alter_start(a, ((const struct kafka_alter_configs_req *)r->req)->validate_only);
}

void kafka_on_alter_configs(struct kafka_request *r)
{
	const struct kafka_alter_configs_req *req = r->req;
	struct kafka_alter_configs_res *res = r->res;
	res->results_count = req->resources_count;
	res->results = kafka_list(r, &kafka_alter_configs_res_result_type, req->resources_count);
	if (res->results == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->resources_count && !r->ready; i++)
		alter_one(r, &req->resources[i], &res->results[i]);
	kafka_land(r);
}

/* Words are added to the one list there is, or taken out of it. False: not so. */
static bool list_changed(const struct stream *s,
	const struct kafka_incremental_alter_configs_req_config *c, struct bytes *value)
{
	bool add = c->operation == OP_APPEND, compacts = s->compacts, deletes = s->deletes;
	if (!bytes_equal(c->name, bytes_text("cleanup.policy")) ||
		(!add && c->operation != OP_SUBTRACT))
		return false;
	if (bytes_equal(c->value, bytes_text("compact")))
		compacts = add;
	else if (bytes_equal(c->value, bytes_text("delete")))
		deletes = add;
	else
		return false;
	*value = bytes_text(deletes && compacts ? "delete,compact"
			: compacts              ? "compact"
			: deletes               ? "delete"
						: "");
	return true;
}

static void increment_one(struct kafka_request *r,
	const struct kafka_incremental_alter_configs_req_resource *req,
	struct kafka_incremental_alter_configs_res_result *res)
{
	const struct stream *s = kafka_stream(r, req->name);
	res->type = req->type;
	res->name = req->name;
	struct alter *a = alter_new(
		r, req->type, req->name, s, req->configs_count, &res->error, &res->message);
	if (a == NULL)
		return;
	for (uint32_t i = 0; i < req->configs_count; i++) {
		const struct kafka_incremental_alter_configs_req_config *c = &req->configs[i];
		bool set = c->operation == OP_SET && c->value.at != NULL;
		struct bytes value = set ? c->value : bytes_of(NULL, 0);
		if (!set && c->operation != OP_DELETE && !list_changed(s, c, &value)) {
			res->error = KAFKA_INVALID_CONFIG;
			res->message = bytes_text("of this only a value can be set or deleted");
			return;
		}
		if (!alter_add(a, c->name, value))
			return;
	}
	alter_start(a, ((const struct kafka_incremental_alter_configs_req *)r->req)->validate_only);
}

void kafka_on_incremental_alter_configs(struct kafka_request *r)
{
	const struct kafka_incremental_alter_configs_req *req = r->req;
	struct kafka_incremental_alter_configs_res *res = r->res;
	res->results_count = req->resources_count;
	res->results = kafka_list(
		r, &kafka_incremental_alter_configs_res_result_type, req->resources_count);
	if (res->results == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->resources_count && !r->ready; i++)
		increment_one(r, &req->resources[i], &res->results[i]);
	kafka_land(r);
}
