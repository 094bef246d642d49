/* The door's life: settings, metrics, a record per loop, and a watch on the catalogue that asks for
 * a reload when settings for the whole cluster have changed. */
#include <stdatomic.h>
#include "protocols/http/http_priv.h"
#include "server/base/clock.h"
#include "server/base/mem.h"

#define AT(field) offsetof(struct http_conf, field)

const struct conf_row http_rows[] = {
	{"http.head_bytes_max", CONF_BYTES, AT(head_bytes_max), "16KiB", 1024, 1 << 20, NULL,
		CONF_AT_RELOAD, NULL, "Greatest size of a request line with all headers."},
	{"http.head_count_max", CONF_INT, AT(head_count_max), "100", 4, 10000, NULL, CONF_AT_RELOAD,
		NULL, "Most headers of a request."},
	{"http.head_ms", CONF_MSEC, AT(head_ms), "10s", 100, 3600000, NULL, CONF_AT_RELOAD, NULL,
		"How long a client may take to send the head of a request it has begun."},
	{"http.body_ms", CONF_MSEC, AT(body_ms), "60s", 100, 3600000, NULL, CONF_AT_RELOAD, NULL,
		"How long a client may take to send a body."},
	{"http.idle_ms", CONF_MSEC, AT(idle_ms), "75s", 100, 3600000, NULL, CONF_AT_RELOAD, NULL,
		"How long a connection may stay open between requests, or while the client takes "
		"nothing of what it asked for."},
	{"http.json_bytes_max", CONF_BYTES, AT(json_bytes_max), "1MiB", 1024, 64 << 20, NULL,
		CONF_AT_RELOAD, NULL, "Greatest size of an API request's body."},
	{"http.pipeline_max", CONF_INT, AT(pipeline_max), "32", 1, 10000, NULL, CONF_AT_RELOAD,
		NULL,
		"Requests of one connection that may wait for their answers; the next ones are not "
		"read meanwhile."},
	{"http.wait_max", CONF_MSEC, AT(wait_ms_max), "60s", 0, 3600000, NULL, CONF_AT_RELOAD, NULL,
		"Longest time a request for records may wait for some."},
	{"http.answer_bytes_max", CONF_BYTES, AT(answer_bytes_max), "4MiB", 4096, 256 << 20, NULL,
		CONF_AT_RELOAD, NULL, "Most bytes of records read for one answer."},
	{"http.echo", CONF_BOOL, AT(echo), "false", 0, 0, NULL, CONF_AT_START, NULL,
		"Whether /ws/echo exists, a WebSocket that repeats what it is sent."},
	{0},
};
#undef AT

static const struct metric_row rows[] = {
	[M_REQUESTS_1XX_2XX] = {"sluice_http_requests_total", "code=\"2xx\"", METRIC_COUNTER,
		"Requests answered, by class of status."},
	[M_REQUESTS_3XX] = {"sluice_http_requests_total", "code=\"3xx\"", METRIC_COUNTER,
		"Requests answered, by class of status."},
	[M_REQUESTS_4XX] = {"sluice_http_requests_total", "code=\"4xx\"", METRIC_COUNTER,
		"Requests answered, by class of status."},
	[M_REQUESTS_5XX] = {"sluice_http_requests_total", "code=\"5xx\"", METRIC_COUNTER,
		"Requests answered, by class of status."},
	[M_REFUSED] = {"sluice_http_refused_total", NULL, METRIC_COUNTER,
		"Requests that were malformed, too large, too slow or not allowed."},
	[M_UNANSWERED] = {"sluice_http_unanswered", NULL, METRIC_GAUGE,
		"Requests being read or worked on."},
};
struct metric_table http_metrics = {rows, sizeof rows / sizeof rows[0], 0};

struct http_watch {
	struct catalog_watcher watcher;
	struct http *http;
	uint64_t settings_hash; /* of the replicated settings config.* seen last */
	bool seen;
};

static uint64_t hash_settings(const struct catalog *c)
{
	const char *key, *value;
	uint64_t sum = 0;

	for (int at = 0; catalog_setting_next(c, &at, &key, &value);)
		if (strncmp(key, "config.", 7) == 0)
			sum = hash_u64(sum ^ hash_bytes(bytes_text(key))) ^
				hash_bytes(bytes_text(value));
	return sum;
}

static void catalog_changed(struct catalog_watcher *w, const struct catalog *c)
{
	struct http_watch *watch = list_entry(w, struct http_watch, watcher);
	uint64_t hash = hash_settings(c);

	if (hash != (watch->seen ? watch->settings_hash : 0))
		watch->http->env.reload();
	watch->seen = true;
	watch->settings_hash = hash;
}

struct http *http_new(const struct http_conf *conf, const struct http_env *env)
{
	struct http *h = mem_new(sizeof *h);
	int count = loops_count(env->loops);

	h->conf = conf;
	h->env = *env;
	h->began_ms = clock_wall_ms();
	secret_random(h->key, sizeof h->key);
	h->loops = mem_new((size_t)count * sizeof *h->loops);
	for (int i = 0; i < count; i++) {
		h->loops[i].shard = broker_shard(env->broker, loops_at(env->loops, i));
		h->loops[i].date_s = -1;
	}
	h->watch = mem_new(sizeof *h->watch);
	h->watch->http = h;
	list_init(&h->watch->watcher.node);
	h->watch->watcher.loop = loops_at(env->loops, 0);
	h->watch->watcher.changed = catalog_changed;
	node_watch_catalog(shard_node(h->loops[0].shard), &h->watch->watcher);
	return h;
}

void http_serving(struct http *h, bool on)
{
	atomic_store(&h->serving, on);
}

void http_free(struct http *h)
{
	if (h == NULL)
		return;
	mem_free(h->watch);
	mem_free(h->loops);
	mem_free(h);
}
