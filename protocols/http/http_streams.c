/* Streams: shown from the catalogue in force on the connection's loop, changed through it. A change
 * is answered when it is in force on every loop, so whoever asks next sees it. */
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/broker/admin.h"
#include "server/broker/admin_cluster.h"
#include "server/broker/tenant.h"

const struct stream *exchange_stream(struct exchange *x)
{
	const struct catalog *c = shard_catalog(x->shard);
	const struct stream *s = access_stream(x->access, x->params[0]);

	if (c == NULL)
		answer_err(x, ERR_UNAVAILABLE, NULL);
	else if (s == NULL && !broker_ready(x->http->env.broker))
		answer_err(x, ERR_UNAVAILABLE, "this node does not know all streams yet");
	else if (s == NULL)
		answer_error(x, 404, "not_found", "no stream %.*s",
			(int)(x->params[0].len < 100 ? x->params[0].len : 100),
			(const char *)x->params[0].at);
	return s;
}

static bool listed(const char *fields, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = fields; len > 0 && (at = strstr(at, name)) != NULL; at += len)
		if ((at == fields || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0))
			return true;
	return false;
}

cJSON *exchange_json(struct exchange *x, const char *fields)
{
	cJSON *o = buf_len(&x->body) == 0 ? cJSON_CreateObject() : json_read(buf_bytes(&x->body));
	const cJSON *v = NULL;

	if (o == NULL) {
		answer_error(x, 400, "malformed", "the body must be a JSON object");
		return NULL;
	}
	cJSON_ArrayForEach(v, o)
	{
		if (listed(fields, v->string))
			continue;
		/* A misspelt limit must not be taken for one that holds. */
		answer_error(x, 400, "invalid", "unknown field %.60s, one of: %s",
			log_text(bytes_text(v->string)).text, fields);
		cJSON_Delete(o);
		return NULL;
	}
	return o;
}

/* ---- showing */

static void add_settings(struct json *j, const struct stream *s, int64_t records, int64_t bytes)
{
	json_text(j, "name", stream_bare(s->name));
	json_int(j, "partitions", s->partition_count);
	json_int(j, "records", records);
	json_int(j, "bytes", bytes);
	json_int(j, "retention_ms", s->retention_ms);
	json_int(j, "retention_bytes", s->retention_bytes);
	json_bool(j, "internal", s->internal);
}

/* As known here: of partitions that have no replica on this node what it has heard. */
static void add_totals(struct shard *shard, struct json *j, const struct stream *s)
{
	struct admin_partition p;
	struct place at;
	int64_t records = 0, bytes = 0;
	int without = 0, replicas = 0;

	for (int i = 0; i < s->partition_count; i++) {
		admin_partition(s, i, &p);
		place_of(shard, s->partitions[i], &at);
		records += p.next_offset - p.first_offset;
		bytes += p.bytes;
		without += at.leader == 0;
		if (at.count > replicas)
			replicas = at.count;
	}
	add_settings(j, s, records, bytes);
	json_int(j, "replicas", replicas);
	json_int(j, "without_leader", without);
}

void api_streams(struct exchange *x)
{
	const struct catalog *c = shard_catalog(x->shard);
	struct json j = json_over(&x->out);
	bool internal = false;

	if (request_query_bool(x, "internal", &internal) != OK) {
		answer_error(x, 400, "invalid", "internal must be true or false");
		return;
	}
	if (c == NULL) {
		answer_err(x, ERR_UNAVAILABLE, NULL);
		return;
	}
	json_open(&j, NULL, '{');
	json_open(&j, "streams", '[');
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *s = catalog_stream_at(c, i);
		struct bytes name;
		if ((s->internal && !internal) || !access_sees(x->access, s, &name) ||
			!exchange_may(x, ACTION_DESCRIBE, RESOURCE_STREAM, name))
			continue;
		json_open(&j, NULL, '{');
		add_totals(x->shard, &j, s);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

/* Records and bytes as the leaders know them: what is not here is not counted here. */
static void add_sums(struct json *j, const struct stream *s, const struct admin_look *l)
{
	int64_t records = 0, bytes = 0;

	for (int i = 0; i < l->count; i++) {
		records += l->of[i].next_offset - l->of[i].first_offset;
		bytes += l->of[i].bytes;
	}
	add_settings(j, s, records, bytes);
}

static void add_partitions(struct json *j, const struct admin_look *l)
{
	json_open(j, "partition_list", '[');
	for (int i = 0; i < l->count; i++) {
		json_open(j, NULL, '{');
		json_int(j, "partition", i);
		json_replicas(j, &l->of[i]);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void add_uuid(struct json *j, const uint8_t uuid[16])
{
	char text[37];
	size_t len = 0;

	for (int i = 0; i < 16; i++) {
		const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
		len += (size_t)snprintf(text + len, sizeof text - len, "%s%02x", dash, uuid[i]);
	}
	json_text(j, "uuid", text);
}

static bool show_settings(struct exchange *x, const struct stream *s)
{
	return exchange_may(
		x, ACTION_DESCRIBE_CONFIGS, RESOURCE_STREAM, bytes_text(stream_bare(s->name)));
}

static void add_stream(
	struct exchange *x, struct json *j, const struct stream *s, const struct admin_look *l)
{
	char created[32];

	clock_text(s->created_ms, created);
	json_open(j, NULL, '{');
	add_sums(j, s, l);
	add_uuid(j, s->uuid);
	json_text(j, "created", created);
	json_int(j, "message_bytes_max", stream_bytes_max(s, shard_conf(x->shard)));
	json_open(j, "settings", '{');
	for (int i = 0; i < s->setting_count && show_settings(x, s); i++)
		json_text(j, s->settings[i].key, s->settings[i].value);
	json_close(j, '}');
	add_partitions(j, l);
	json_close(j, '}');
}

/* x->status holds what to answer with. */
static void stream_looked(struct admin_look *l)
{
	struct exchange *x = l->arg;
	struct json j = json_over(&x->out);
	const struct stream *s = catalog_stream(
		shard_catalog(x->shard), bytes_text(l->of[0].group.stream));
	int status = x->status;

	if (s != NULL)
		add_stream(x, &j, s, l);
	admin_look_free(l);
	if (s != NULL)
		answer_json(x, status);
	else
		answer_error(x, 404, "not_found", "the stream was deleted meanwhile");
}

static void answer_stream(struct exchange *x, const struct stream *s, int status)
{
	struct admin_group *groups = mem_try((size_t)s->partition_count * sizeof *groups);
	enum err e = ERR_NOMEM;

	for (int i = 0; groups != NULL && i < s->partition_count; i++)
		groups[i] = (struct admin_group){s->name, i, s->partitions[i]};
	x->status = status;
	if (groups != NULL)
		e = admin_look(x->shard, groups, s->partition_count, stream_looked, x);
	mem_free(groups);
	if (e != OK)
		answer_err(x, e, NULL);
}

void api_stream(struct exchange *x)
{
	const struct stream *s = exchange_stream(x);

	if (s != NULL)
		answer_stream(x, s, 200);
}

/* ---- changing */

struct change { /* one request that changes the catalogue */
	struct admin_change asked;
	struct exchange *x;
	cJSON *json;
	char *name;
	int64_t partitions,
		replicas; /* alter: set after the settings, in this order; -1: not asked */
	int setting_count;
	struct meta_setting *settings; /* values are owned */
};

static void change_free(struct change *c)
{
	for (int i = 0; i < c->setting_count; i++)
		mem_free((void *)(uintptr_t)c->settings[i].value);
	mem_free(c->settings);
	mem_free(c->name);
	cJSON_Delete(c->json);
	mem_free(c);
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* "7d" for a setting in ms and "1GiB" for one in bytes are as good as the number. */
static char *setting_text(const char *key, const cJSON *v)
{
	char number[32];
	int64_t n;

	if (cJSON_IsString(v)) {
		if ((ends_with(key, ".ms") && conf_parse_msec(v->valuestring, &n) == OK) ||
			(ends_with(key, ".bytes") && conf_parse_bytes(v->valuestring, &n) == OK))
			(void)snprintf(number, sizeof number, "%lld", (long long)n);
		else
			return mem_text(v->valuestring, strlen(v->valuestring));
	} else if (cJSON_IsNumber(v)) {
		(void)snprintf(number, sizeof number, "%.17g", v->valuedouble);
	} else if (cJSON_IsBool(v)) {
		(void)snprintf(number, sizeof number, "%s", cJSON_IsTrue(v) ? "true" : "false");
	} else {
		return NULL;
	}
	return mem_text(number, strlen(number));
}

static enum err settings_read(struct change *c)
{
	const cJSON *o = cJSON_GetObjectItemCaseSensitive(c->json, "settings"), *v;
	int count = cJSON_IsObject(o) ? cJSON_GetArraySize(o) : 0;

	if (o != NULL && !cJSON_IsObject(o) && !cJSON_IsNull(o))
		return ERR_INVALID;
	if (count == 0)
		return OK;
	c->settings = mem_try((size_t)count * sizeof *c->settings);
	if (c->settings == NULL)
		return ERR_NOMEM;
	cJSON_ArrayForEach(v, o)
	{
		char *text = setting_text(v->string, v);
		if (text == NULL && !cJSON_IsNull(v))
			return ERR_INVALID;
		c->settings[c->setting_count++] = (struct meta_setting){v->string, text};
	}
	return OK;
}

static struct change *change_new(struct exchange *x, enum meta_kind kind, const char *fields)
{
	struct change *c = mem_new(sizeof *c);
	bool dry = false;
	enum err e;

	c->x = x;
	c->asked.op = (struct meta_op){.kind = kind, .partitions = -1, .replicas = -1};
	c->partitions = c->replicas = -1;
	c->json = exchange_json(x, fields);
	if (c->json == NULL)
		goto fail;
	e = settings_read(c);
	if (e == OK)
		e = request_query_bool(x, "dry_run", &dry);
	if (e != OK) {
		answer_err(x, e, "settings must be an object of texts; dry_run true or false");
		goto fail;
	}
	c->asked.op.check_only = dry;
	c->asked.op.settings = c->settings;
	c->asked.op.setting_count = c->setting_count;
	return c;
fail:
	change_free(c);
	return NULL;
}

static void change_start(struct change *c, void (*done)(struct admin_change *a))
{
	c->asked.op.name = c->name;
	exchange_change(c->x, &c->asked, done);
}

/* Answers what every change answers that did not work or was only tried. Whether it did. */
static bool answered_otherwise(struct change *c)
{
	if (c->asked.op.err != OK) {
		answer_err(c->x, c->asked.op.err, c->asked.op.why);
	} else if (c->asked.op.check_only) {
		answer_tried(c->x);
	} else {
		return false;
	}
	change_free(c);
	return true;
}

static void answer_changed(struct change *c, int status)
{
	const struct stream *s = catalog_stream(shard_catalog(c->x->shard), bytes_text(c->name));

	if (s != NULL)
		answer_stream(c->x, s, status);
	else
		answer_err(c->x, ERR_CONFLICT, "deleted meanwhile");
	change_free(c);
}

static void created(struct admin_change *a)
{
	struct change *c = list_entry(a, struct change, asked);

	if (!answered_otherwise(c))
		answer_changed(c, 201);
}

void api_stream_create(struct exchange *x)
{
	struct change *c = change_new(x, META_CREATE_STREAM, "name partitions replicas settings");
	struct tenant_stream inside;
	const char *name = NULL;

	if (c == NULL)
		return;
	if (json_get_text(c->json, "name", &name) != OK || name == NULL ||
		json_get_int(c->json, "partitions", &c->asked.op.partitions) != OK ||
		json_get_int(c->json, "replicas", &c->asked.op.replicas) != OK) {
		answer_error(x, 400, "invalid",
			"name must be a text, partitions and replicas whole numbers");
		change_free(c);
		return;
	}
	if (tenant_stream(access_tenant(x->access), bytes_text(name), &inside) != OK) {
		answer_error(x, 400, "invalid", "invalid stream name");
		change_free(c);
		return;
	}
	if (!access_may_create(x->access, bytes_text(name)) &&
		!exchange_must(x, ACTION_CREATE, RESOURCE_STREAM, bytes_text(name))) {
		change_free(c);
		return;
	}
	c->name = mem_text(inside.text, inside.len);
	change_start(c, created);
}

/* One change after the other, settings, partitions, replicas; the first that fails ends it. */
static void altered(struct admin_change *a)
{
	struct change *c = list_entry(a, struct change, asked);
	struct meta_op *op = &a->op;

	if (op->err == OK && c->partitions >= 0) {
		op->kind = META_ADD_PARTITIONS;
		op->partitions = c->partitions;
		c->partitions = -1;
	} else if (op->err == OK && c->replicas >= 0) {
		op->kind = META_REPLICAS;
		op->replicas = c->replicas;
		c->replicas = -1;
	} else {
		if (!answered_otherwise(c))
			answer_changed(c, 200);
		return;
	}
	op->setting_count = 0;
	change_start(c, altered);
}

/* Settings are one right, partitions and replicas another. */
static bool may_alter(struct exchange *x, const struct change *c, bool partitions)
{
	if (c->setting_count > 0 &&
		!exchange_must(x, ACTION_ALTER_CONFIGS, RESOURCE_STREAM, x->params[0]))
		return false;
	return (!partitions && c->replicas < 0) ||
		exchange_must(x, ACTION_ALTER, RESOURCE_STREAM, x->params[0]);
}

void api_stream_alter(struct exchange *x)
{
	const struct stream *s = exchange_stream(x);
	struct change *c = s == NULL
		? NULL
		: change_new(x, META_ALTER_STREAM, "partitions replicas settings");
	int64_t partitions = -1;

	if (c == NULL)
		return;
	if (json_get_int(c->json, "partitions", &partitions) != OK ||
		json_get_int(c->json, "replicas", &c->replicas) != OK) {
		answer_error(x, 400, "invalid", "partitions and replicas must be whole numbers");
		change_free(c);
		return;
	}
	if (!may_alter(x, c, partitions >= 0)) {
		change_free(c);
		return;
	}
	c->name = mem_text(s->name, strlen(s->name));
	c->partitions = partitions == s->partition_count ? -1 : partitions;
	if (c->setting_count == 0 && (c->partitions >= 0 || c->replicas >= 0))
		altered(&c->asked);
	else
		change_start(c, altered);
}

static void deleted(struct admin_change *a)
{
	struct change *c = list_entry(a, struct change, asked);

	if (answered_otherwise(c))
		return;
	answer_empty(c->x, 204);
	change_free(c);
}

void api_stream_delete(struct exchange *x)
{
	const struct stream *s = exchange_stream(x);
	struct change *c = s == NULL ? NULL : change_new(x, META_DELETE_STREAM, "");

	if (c == NULL)
		return;
	c->name = mem_text(s->name, strlen(s->name));
	change_start(c, deleted);
}

/* ---- trimming */

static void trimmed(struct admin_trim *t)
{
	struct exchange *x = t->arg;
	enum err e = t->err;
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	json_int(&j, "partitions_trimmed", t->parts);
	json_close(&j, '}');
	exchange_audit(x, "stream-trim", x->params[0], e, NULL);
	admin_trim_free(t);
	if (e != OK)
		answer_err(x, e, NULL);
	else
		answer_json(x, 200);
}

static enum err trim_read(const cJSON *o, struct admin_trim_what *what)
{
	const char *age = NULL;
	int64_t age_ms;

	*what = (struct admin_trim_what){.partition = -1, .offset = -1, .time_ms = -1};
	if (json_get_int(o, "partition", &what->partition) != OK ||
		json_get_int(o, "before_offset", &what->offset) != OK ||
		json_get_int(o, "before_time", &what->time_ms) != OK ||
		json_get_text(o, "older_than", &age) != OK)
		return ERR_INVALID;
	if (age != NULL) {
		if (conf_parse_msec(age, &age_ms) != OK || age_ms < 0)
			return ERR_INVALID;
		what->time_ms = clock_wall_ms() - age_ms;
	}
	return (what->offset >= 0) == (what->time_ms >= 0) ? ERR_INVALID : OK;
}

void api_stream_trim(struct exchange *x)
{
	const struct stream *s = exchange_stream(x);
	cJSON *o = s == NULL ? NULL
			     : exchange_json(x, "partition before_offset before_time older_than");
	struct admin_trim_what what;
	enum err e;

	if (o == NULL)
		return;
	e = trim_read(o, &what);
	cJSON_Delete(o);
	if (e == OK)
		e = admin_trim(x->shard, s, &what, trimmed, x);
	if (e != OK)
		answer_err(x, e,
			e == ERR_INVALID ? "one of before_offset, before_time (ms) and older_than "
					   "(7d) is needed; partition is a number"
					 : "no such partition");
}
