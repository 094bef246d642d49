/* Routes, settings and the node. What is set here is set for the whole cluster, as a setting of the
 * catalogue: "route.NAME" is followed by every broker, "config.KEY" read by every daemon like one
 * more source of its configuration. Keys that only count at a start are refused: they would be in
 * force on some nodes and not on others. */
#include <stdatomic.h>
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "protocols/http/version.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/admin.h"
#include "server/broker/route.h"

enum { KEY_BYTES_MAX = 240, WHY_BYTES = 200 };

/* ---- one replicated setting */

struct set_op {
	struct admin_change change;
	struct meta_setting setting;
	struct exchange *x;
	char key[KEY_BYTES_MAX];
	char *value; /* NULL: removed */
};

static void set_done(struct admin_change *c)
{
	struct set_op *s = list_entry(c, struct set_op, change);
	struct exchange *x = s->x;
	enum err e = c->op.err;
	char why[sizeof c->op.why];

	memcpy(why, c->op.why, sizeof why);
	mem_free(s->value);
	mem_free(s);
	if (e != OK)
		answer_err(x, e, why);
	else
		answer_empty(x, 204);
}

/* Takes value. tenant: whose it is, empty for none. */
static void setting_set(
	struct exchange *x, const char *prefix, struct bytes tenant, struct bytes name, char *value)
{
	struct set_op *s = mem_new(sizeof *s);
	bool dry = false;

	if (strlen(prefix) + tenant.len + 1 + name.len >= sizeof s->key ||
		request_query_bool(x, "dry_run", &dry) != OK) {
		mem_free(value);
		mem_free(s);
		answer_error(x, 400, "invalid", "the name is too long, or dry_run no truth");
		return;
	}
	(void)snprintf(s->key, sizeof s->key, "%s%.*s%s%.*s", prefix, (int)tenant.len,
		(const char *)tenant.at, tenant.len > 0 ? "/" : "", (int)name.len,
		(const char *)name.at);
	s->x = x;
	s->value = value;
	s->setting = (struct meta_setting){s->key, value};
	s->change.op = (struct meta_op){.kind = META_SET,
		.partitions = -1,
		.replicas = -1,
		.settings = &s->setting,
		.setting_count = 1,
		.check_only = dry};
	exchange_change(x, &s->change, set_done);
}

/* ---- routes */

static void add_route(struct json *j, const struct admin_route *r)
{
	static const char *const sources[] = {"default", "config", "cluster"};
	struct route parsed;
	char why[WHY_BYTES], key[64] = "topic";

	json_open(j, NULL, '{');
	json_text(j, "name", r->name);
	json_text(j, "route", r->text);
	if (route_parse(r->text, &parsed, why, sizeof why) == OK) {
		if (parsed.key == ROUTE_KEY_LEVEL)
			(void)snprintf(key, sizeof key, "level(%d)", parsed.level);
		else if (parsed.key == ROUTE_KEY_TEXT)
			(void)snprintf(key, sizeof key, "text(%.50s)", parsed.text);
		json_text(j, "filter", parsed.filter);
		json_text(j, "stream", parsed.stream);
		json_text(j, "durability", parsed.memory ? "memory" : "sync");
		json_text(j, "key", key);
		route_fini(&parsed);
	}
	json_text(j, "source", sources[r->source]);
	json_close(j, '}');
}

void api_routes(struct exchange *x)
{
	struct json j = json_over(&x->out);
	struct admin_route r;

	if (shard_catalog(x->shard) == NULL) {
		answer_err(x, ERR_UNAVAILABLE, NULL);
		return;
	}
	json_open(&j, NULL, '{');
	json_open(&j, "routes", '[');
	for (int i = 0; admin_route_next(x->shard, access_tenant(x->access), &i, &r);)
		add_route(&j, &r);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

/* Names are the last part of a configuration key, too. */
static bool name_valid(struct bytes name)
{
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.at[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '_' || c == '-' || c == '.'))
			return false;
	}
	return name.len > 0 && name.len <= 100;
}

void api_route_set(struct exchange *x)
{
	cJSON *o = exchange_json(x, "route");
	const char *text = NULL;
	char why[WHY_BYTES] = "route must be a text";
	char *copy;

	if (o == NULL)
		return;
	if (json_get_text(o, "route", &text) != OK || text == NULL ||
		route_check(text, why, sizeof why) != OK || !name_valid(x->params[0])) {
		if (!name_valid(x->params[0]))
			(void)snprintf(why, sizeof why, "a route's name is made of a-z, 0-9, _-.");
		answer_error(x, 400, "invalid", "%s", why);
		cJSON_Delete(o);
		return;
	}
	copy = mem_text(text, strlen(text));
	cJSON_Delete(o);
	setting_set(x, "route.", access_tenant(x->access), x->params[0], copy);
}

void api_route_delete(struct exchange *x)
{
	struct admin_route r;

	for (int i = 0; shard_catalog(x->shard) != NULL &&
		admin_route_next(x->shard, access_tenant(x->access), &i, &r);) {
		if (!bytes_equal(bytes_text(r.name), x->params[0]))
			continue;
		if (r.source == ROUTE_OF_CLUSTER)
			setting_set(x, "route.", access_tenant(x->access), x->params[0], NULL);
		else
			answer_error(x, 409, "conflict",
				r.source == ROUTE_OF_CONF
					? "this route stands in the node's configuration"
					: "the default route can be replaced, not deleted");
		return;
	}
	answer_error(x, 404, "not_found", "no such route");
}

/* ---- settings */

static const char *replicated(struct exchange *x, const char *key)
{
	const struct catalog *c = shard_catalog(x->shard);
	char full[KEY_BYTES_MAX];

	if (c == NULL || (size_t)snprintf(full, sizeof full, "config.%s", key) >= sizeof full)
		return NULL;
	return catalog_setting(c, full);
}

void api_config(struct exchange *x)
{
	struct json j = json_over(&x->out);
	struct conf_item item;

	json_open(&j, NULL, '{');
	json_open(&j, "settings", '[');
	for (int i = 0; conf_next(x->http->env.conf, &i, &item);) {
		json_open(&j, NULL, '{');
		json_text(&j, "key", item.name);
		json_text(&j, "value", item.value);
		json_text(&j, "source", replicated(x, item.name) ? "cluster" : item.source);
		json_text(&j, "default", item.row->initial);
		json_text(&j, "effect", item.row->effect == CONF_AT_RELOAD ? "reload" : "start");
		json_text(&j, "help", item.row->help);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

static const struct conf_row *row_find(struct exchange *x, struct bytes key)
{
	struct conf_item item;

	for (int i = 0; conf_next(x->http->env.conf, &i, &item);)
		if (bytes_equal(bytes_text(item.row->key), key))
			return item.row;
	return NULL;
}

/* Whether the row takes the value, tried on a configuration of this row alone. */
static enum err value_check(
	const struct conf_row *row, const char *value, char *why, size_t why_size)
{
	struct conf_row rows[2] = {*row, {0}};
	union {
		int64_t number;
		const char *text;
		struct conf_named named;
	} into;
	struct conf *c = conf_new();
	enum err e;

	rows[0].at = 0;
	conf_add(c, rows, &into);
	e = conf_set(c, row->key, value, why, why_size);
	conf_free(c);
	return e;
}

/* The row of the key in the path if it can be set for all; NULL after an answer. */
static const struct conf_row *row_settable(struct exchange *x)
{
	const struct conf_row *row = row_find(x, x->params[0]);

	if (row == NULL) {
		answer_error(x, 404, "not_found", "no such key");
		return NULL;
	}
	if (row->effect == CONF_AT_START) {
		answer_error(x, 409, "conflict",
			"%s is read at the start: set it in each node's file and restart",
			row->key);
		return NULL;
	}
	return row;
}

void api_config_set(struct exchange *x)
{
	const struct conf_row *row = row_settable(x);
	cJSON *o = row == NULL ? NULL : exchange_json(x, "value");
	const char *value = NULL;
	char why[WHY_BYTES] = "value must be a text";
	char *copy;

	if (o == NULL)
		return;
	if (json_get_text(o, "value", &value) != OK || value == NULL ||
		value_check(row, value, why, sizeof why) != OK) {
		answer_error(x, 400, "invalid", "%s", why);
		cJSON_Delete(o);
		return;
	}
	copy = mem_text(value, strlen(value));
	cJSON_Delete(o);
	setting_set(x, "config.", bytes_of("", 0), x->params[0], copy);
}

void api_config_delete(struct exchange *x)
{
	const struct conf_row *row = row_settable(x);

	if (row == NULL)
		return;
	if (replicated(x, row->key) == NULL)
		answer_error(x, 404, "not_found", "it is not set for the cluster");
	else
		setting_set(x, "config.", bytes_of("", 0), x->params[0], NULL);
}

/* ---- the node */

static void add_doors(struct exchange *x, struct json *j)
{
	static const char *const names[] = {"mqtt", "kafka", "http"};

	json_open(j, "doors", '[');
	for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
		const char *name = names[i / 2];
		const char *at = net_addresses(x->http->env.net, name, i % 2, false);
		if (*at == 0)
			continue;
		json_open(j, NULL, '{');
		json_text(j, "protocol", name);
		json_bool(j, "tls", i % 2);
		json_text(j, "address", at);
		json_text(j, "advertised", net_addresses(x->http->env.net, name, i % 2, true));
		json_close(j, '}');
	}
	json_close(j, ']');
}

void api_node(struct exchange *x)
{
	struct json j = json_over(&x->out);
	struct admin_node n;
	char began[32];

	admin_node(x->shard, &n);
	clock_text(x->http->began_ms, began);
	json_open(&j, NULL, '{');
	json_int(&j, "id", n.id);
	json_text(&j, "name", n.name);
	json_text(&j, "rack", n.rack);
	json_text(&j, "version", SLUICE_VERSION);
	json_text(&j, "state",
		!n.ready                                  ? "starting"
			: !atomic_load(&x->http->serving) ? "stopping"
							  : "ready");
	json_text(&j, "cluster_name", n.cluster_name);
	json_text(&j, "cluster_id", n.cluster_id);
	json_text(&j, "started", began);
	json_int(&j, "uptime_s", (clock_wall_ms() - x->http->began_ms) / 1000);
	json_int(&j, "loops", n.loops);
	json_int(&j, "connections", net_conn_count(x->http->env.net));
	json_int(&j, "streams", n.streams);
	json_int(&j, "partitions", n.partitions);
	json_int(&j, "partitions_leading", n.leading);
	json_int(&j, "tables", n.tables);
	json_int(&j, "tables_leading", n.tables_leading);
	json_int(&j, "records", n.records);
	json_int(&j, "bytes", n.bytes);
	json_int(&j, "memory_bytes", n.memory_bytes);
	json_real(&j, "cpu_s", (double)n.cpu_us / 1e6);
	json_int(&j, "open_files", n.files);
	add_doors(x, &j);
	json_close(&j, '}');
	answer_json(x, 200);
}
