/* Pages for people, probes and scrapers. The description of the API is made from the table of
 * routes, so that it can't tell of a path that does not exist. */
#include <stdatomic.h>
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "protocols/http/version.h"
#include "server/broker/admin.h"

static const char root_page[] =
	"<!doctype html>\n"
	"<html lang=\"en\"><meta charset=\"utf-8\"><title>Sluice</title>\n"
	"<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:3em auto;padding:0 1em}"
	"code{background:#8882;padding:.1em .3em}</style>\n"
	"<h1>Sluice " SLUICE_VERSION "</h1>\n"
	"<p>A messaging server: MQTT, Kafka and HTTP over one partitioned log.</p>\n"
	"<ul>\n"
	"<li><a href=\"/readyz\">/readyz</a>: whether this node serves; "
	"<a href=\"/livez\">/livez</a>: whether it runs\n"
	"<li><a href=\"/metrics\">/metrics</a>: for Prometheus\n"
	"<li><a href=\"/api/v1\">/api/v1</a>: "
	"<a href=\"/api/v1/streams\">streams</a>, <a href=\"/api/v1/routes\">routes</a>, "
	"<a href=\"/api/v1/config\">settings</a>, <a href=\"/api/v1/node\">this node</a>; "
	"described "
	"in <a href=\"/openapi.json\">/openapi.json</a>\n"
	"<li><code>POST /topics/plant/7/temp</code> publishes, <code>GET</code> gives the retained "
	"value\n"
	"<li><code>POST</code> and <code>GET /streams/mqtt/records</code> write and read the log\n"
	"</ul></html>\n";

void page_root(struct exchange *x)
{
	buf_add_text(&x->out, root_page);
	answer(x, 200, "text/html; charset=utf-8");
}

void page_livez(struct exchange *x)
{
	buf_add_text(&x->out, "ok\n");
	answer(x, 200, "text/plain; charset=utf-8");
}

void page_readyz(struct exchange *x)
{
	bool serving = atomic_load(&x->http->serving);
	bool ready = broker_ready(x->http->env.broker);
	char why[160] = "";

	if (!ready)
		node_unready_why(shard_node(x->shard), why, sizeof why);
	buf_add_text(&x->out, serving && ready ? "ok\n" : ready ? "stopping\n" : "not ready\n");
	if (*why != 0)
		buf_addf(&x->out, "%s\n", why);
	answer(x, serving && ready ? 200 : 503, "text/plain; charset=utf-8");
}

static void add_sample(
	struct buf *out, const char *name, const char *kind, const char *help, double v)
{
	buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.10g\n", name, help, name, kind, name, v);
}

/* What Prometheus' own client libraries tell of a process, under the same names. */
static void add_process(struct exchange *x)
{
	struct admin_node n;

	admin_node(x->shard, &n);
	buf_add_text(&x->out,
		"# HELP sluice_build_info The version that runs.\n"
		"# TYPE sluice_build_info gauge\n"
		"sluice_build_info{version=\"" SLUICE_VERSION "\"} 1\n");
	add_sample(&x->out, "sluice_ready", "gauge", "Whether this node serves.", n.ready);
	add_sample(&x->out, "sluice_stream_records", "gauge", "Records in all streams.",
		(double)n.records);
	add_sample(&x->out, "sluice_stream_bytes", "gauge", "Bytes of records in all streams.",
		(double)n.bytes);
	add_sample(&x->out, "process_resident_memory_bytes", "gauge", "Resident memory.",
		(double)n.memory_bytes);
	add_sample(&x->out, "process_cpu_seconds_total", "counter", "Processor time used.",
		(double)n.cpu_us / 1e6);
	add_sample(&x->out, "process_open_fds", "gauge", "Open files.", (double)n.files);
	add_sample(&x->out, "process_start_time_seconds", "gauge",
		"Start of the process since 1970.", (double)x->http->began_ms / 1e3);
}

void page_metrics(struct exchange *x)
{
	metric_scrape(&x->out);
	add_process(x);
	answer(x, 200, "text/plain; version=0.0.4; charset=utf-8");
}

void api_index(struct exchange *x)
{
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	json_text(&j, "name", "sluice");
	json_text(&j, "version", SLUICE_VERSION);
	json_text(&j, "streams", "/api/v1/streams");
	json_text(&j, "routes", "/api/v1/routes");
	json_text(&j, "config", "/api/v1/config");
	json_text(&j, "node", "/api/v1/node");
	json_text(&j, "cluster", "/api/v1/cluster");
	json_text(&j, "partitions", "/api/v1/partitions");
	json_text(&j, "users", "/api/v1/users");
	json_text(&j, "acls", "/api/v1/acls");
	json_text(&j, "quotas", "/api/v1/quotas");
	json_text(&j, "groups", "/api/v1/groups");
	json_text(&j, "tenants", "/api/v1/tenants");
	json_text(&j, "description", "/openapi.json");
	json_close(&j, '}');
	answer_json(x, 200);
}

/* ---- the description */

static void add_parameter(struct json *j, struct bytes name, bool in_path)
{
	json_open(j, NULL, '{');
	json_bytes(j, "name", name);
	json_text(j, "in", in_path ? "path" : "query");
	if (in_path)
		json_bool(j, "required", true);
	json_open(j, "schema", '{');
	json_text(j, "type", "string");
	json_close(j, '}');
	json_close(j, '}');
}

static void add_parameters(struct json *j, const struct http_route *r)
{
	const char *at = r->pattern;

	json_open(j, "parameters", '[');
	while ((at = strchr(at, '{')) != NULL) {
		at++;
		add_parameter(j, bytes_of(at, strcspn(at, ".}")), true);
	}
	for (at = r->query; *at != 0; at += strspn(at, " ")) {
		size_t len = strcspn(at, " ");
		add_parameter(j, bytes_of(at, len), false);
		at += len;
	}
	if (r->right.of != RIGHT_OPEN)
		add_parameter(j, bytes_text("tenant"), false);
	json_close(j, ']');
}

/* "write on topic", "admin or alter on cluster", ... */
static void add_right(struct json *j, const struct http_right *r)
{
	static const char *const before[] = {[RIGHT_OPEN] = "nothing",
		[RIGHT_LOGIN] = "a login",
		[RIGHT_NAMED] = "",
		[RIGHT_SOME] = "",
		[RIGHT_ADMIN] = "admin",
		[RIGHT_USER] = "to be it, admin",
		[RIGHT_WHOLE] = "admin of the cluster"};
	bool cluster = r->of == RIGHT_ADMIN || r->of == RIGHT_USER || r->of == RIGHT_WHOLE;
	char text[128];
	size_t len = (size_t)snprintf(text, sizeof text, "%s", before[r->of]);

	for (int a = ACTION_ALL; a < ACTION_END && len < sizeof text; a++)
		if ((r->actions & 1u << a) != 0)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%s",
				len > 0 ? " or " : "", action_word((enum action)a));
	if (r->actions != 0 && len < sizeof text)
		(void)snprintf(text + len, sizeof text - len, " on %s",
			cluster ? "cluster" : resource_word(r->resource));
	json_text(j, "x-needs", text);
}

static void add_operation(struct json *j, const struct http_route *r)
{
	static const char *const names[] = {[HTTP_DELETE] = "delete",
		[HTTP_GET] = "get",
		[HTTP_POST] = "post",
		[HTTP_PUT] = "put",
		[HTTP_PATCH] = "patch"};

	json_open(j, names[r->method], '{');
	json_text(j, "summary", r->summary);
	add_right(j, &r->right);
	add_parameters(j, r);
	if (r->body != BODY_NONE) {
		json_open(j, "requestBody", '{');
		json_open(j, "content", '{');
		json_open(j, r->body == BODY_JSON ? "application/json" : "*/*", '{');
		json_close(j, '}');
		json_close(j, '}');
		json_close(j, '}');
	}
	json_open(j, "responses", '{');
	json_open(j, "default", '{');
	json_text(j, "description", "The result, or {\"error\":{\"code\",\"message\"}}.");
	json_close(j, '}');
	json_close(j, '}');
	json_close(j, '}');
}

/* The pattern without the dots of a part that takes the rest. */
static void open_path(struct json *j, const char *pattern)
{
	char path[128];
	size_t len = 0;

	for (; *pattern != 0 && len + 1 < sizeof path; pattern++)
		if (*pattern != '.' || pattern[1] == 'j')
			path[len++] = *pattern;
	path[len] = 0;
	json_open(j, path, '{');
}

static bool is_first_of_path(int index)
{
	for (int i = 0; i < index; i++)
		if (strcmp(route_at(i)->pattern, route_at(index)->pattern) == 0)
			return false;
	return true;
}

void page_openapi(struct exchange *x)
{
	struct json j = json_over(&x->out);
	const struct http_route *r, *other;

	json_open(&j, NULL, '{');
	json_text(&j, "openapi", "3.0.3");
	json_open(&j, "info", '{');
	json_text(&j, "title", "Sluice");
	json_text(&j, "version", SLUICE_VERSION);
	json_close(&j, '}');
	json_open(&j, "paths", '{');
	for (int i = 0; (r = route_at(i)) != NULL; i++) {
		if (!is_first_of_path(i))
			continue;
		open_path(&j, r->pattern);
		for (int k = i; (other = route_at(k)) != NULL; k++)
			if (strcmp(other->pattern, r->pattern) == 0)
				add_operation(&j, other);
		json_close(&j, '}');
	}
	json_close(&j, '}');
	json_close(&j, '}');
	answer_json(x, 200);
}
