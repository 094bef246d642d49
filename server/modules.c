/* Tables only: a new module adds its rows, metrics and door here and is otherwise unknown to the
 * rest. Rows of one module stand together in the reference page, in this order. */
#include "server/modules.h"
#include "server/base/mem.h"

static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_words[] = {"text", "json", NULL};

#define AT(field) offsetof(struct process_conf, field)

const struct conf_row process_rows[] = {
	{"loops", CONF_INT, AT(loops), "0", 0, 256, NULL, CONF_AT_START, NULL,
		"Threads that own connections and partitions; 0: one per processor core."},
	{"workers", CONF_INT, AT(workers), "4", 1, 256, NULL, CONF_AT_START, NULL,
		"Threads for what may block: cold reads of the disk, name look-ups."},
	{"drain.ms", CONF_MSEC, AT(drain_ms), "5s", 0, 600000, NULL, CONF_AT_RELOAD, NULL,
		"How long connections may take to end when the server is told to stop."},
	{"log.level", CONF_WORD, AT(log_level), "info", 0, 0, level_words, CONF_AT_RELOAD, NULL,
		"The least serious lines that are written."},
	{"log.format", CONF_WORD, AT(log_format), "text", 0, 0, format_words, CONF_AT_RELOAD, NULL,
		"Lines of key=value, or one JSON object per line."},
	{0},
};

void modules_init(struct modules *m, struct conf *c)
{
	*m = (struct modules){.net = mem_new(net_conf_bytes())};
	conf_add(c, process_rows, &m->process);
	conf_add(c, node_rows, &m->node);
	conf_add(c, peer_rows, &m->peer);
	conf_add(c, catchup_rows, &m->catchup);
	conf_add(c, storage_rows, &m->storage);
	conf_add(c, net_rows, m->net);
	conf_add(c, broker_rows, &m->broker);
	conf_add(c, mqtt_rows, &m->mqtt);
	conf_add(c, kafka_rows, &m->kafka);
	conf_add(c, http_rows, &m->http);
}

void modules_fini(struct modules *m)
{
	mem_free(m->net);
}

void modules_register_metrics(void)
{
	static struct metric_table *const tables[] = {&net_metrics, &storage_metrics, &node_metrics,
		&peer_metrics, &catchup_metrics, &broker_metrics, &mqtt_metrics, &kafka_metrics,
		&http_metrics};

	for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
		metric_register(tables[i]);
}

void modules_doors(struct modules_doors *d, const struct modules_args *args)
{
	*d = (struct modules_doors){
		.doors =
			{
				{"mqtt", &mqtt_kind, args->mqtt, "mqtt", false},
				{"kafka", &kafka_kind, args->kafka, NULL, false},
				{"http", &http_kind, args->http, "http/1.1", false},
				{"amqp", NULL, NULL, NULL, false},
				{"peer", &peer_kind_in, args->peers, NULL, args->peer_tls},
				{"geo", NULL, NULL, NULL, false},
			},
		.count = 6,
	};
}
