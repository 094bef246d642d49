/* sluice-bench: a load generator cheap enough to run beside what it measures. This file is its
 * command line: two tables, of workloads and of options, and what reads them. */
#include "tools/bench/bench.h"
#include "tools/bench/mqtt_packet.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct workload {
	const char *name;
	int (*run)(const struct options *o, const char *name);
	const char *help;
	/* What this workload means by an option left out; 0: the option's own default. */
	uint64_t port, size, clients, subscribers, rate, window;
};

static const struct workload workloads[] = {
	{"mqtt", bench_mqtt_load, "N publishers to N subscribers, as fast as it goes", 1883, 256, 4,
		0, 0, 100},
	{"mqtt-fanout", bench_mqtt_load, "one publisher to many subscribers", 1883, 256, 1, 50, 0,
		100},
	{"mqtt-latency", bench_mqtt_load, "N to N at a fixed rate (open loop)", 1883, 256, 4, 0,
		2000, 1000},
	{"mqtt-idle", bench_mqtt_idle, "idle connections: memory each, connect rate", 1883, 256, 1,
		0, 0, 1},
	{"kafka-produce", bench_kafka_produce, "record batches, acks=all", 9092, 1024, 4, 0, 0, 1},
	{"kafka-fetch", bench_kafka_fetch, "reads a topic from its start", 9092, 1024, 4, 0, 0, 1},
	{"kafka-groups", bench_kafka_groups, "members of groups that do nothing but heartbeat",
		9092, 0, 0, 0, 0, 0},
	{"kafka-logins", bench_kafka_logins,
		"connects and logs in by SCRAM-SHA-256, again and again", 9092, 0, 16, 0, 0, 0},
	{"rocks", bench_rocks, "RocksDB alone: unsynced writes and a sync thread", 0, 0, 0, 0, 0,
		0},
	{"sync", bench_sync, "4 KB written and synced, one at a time", 0, 0, 0, 0, 0, 0},
};

enum kind { KIND_NUMBER, KIND_TEXT, KIND_FLAG };

struct option_row {
	const char *name;
	enum kind kind;
	size_t at;
	uint64_t standard, min, max;
	const char *help;
};
#define AT(field) offsetof(struct options, field)

static const struct option_row rows[] = {
	{"host", KIND_TEXT, AT(host), 0, 0, 0, "server, or a comma list NAME[:PORT]"},
	{"port", KIND_NUMBER, AT(port), 0, 1, 65535, "port (1883; Kafka 9092)"},
	{"seconds", KIND_NUMBER, AT(seconds), 5, 1, 86400, "how long to send"},
	{"count", KIND_NUMBER, AT(count), 0, 1, UINT64_MAX, "messages to send instead of a time"},
	{"size", KIND_NUMBER, AT(size), 0, 24, 8 << 20, "payload bytes (256; Kafka 1024)"},
	{"clients", KIND_NUMBER, AT(clients), 0, 1, 10000, "publishers (4)"},
	{"subscribers", KIND_NUMBER, AT(subscribers), 0, 1, 10000,
		"subscribers (as many as publishers)"},
	{"window", KIND_NUMBER, AT(window), 0, 1, 65535, "unacknowledged publishes each (100)"},
	{"qos", KIND_NUMBER, AT(qos), 0, 0, 2, "of publishes and subscriptions"},
	{"rate", KIND_NUMBER, AT(rate), 0, 1, 10000000, "messages per second, all together"},
	{"pid", KIND_NUMBER, AT(pid), 0, 1, UINT64_MAX, "the server's, to read CPU and memory"},
	{"topic", KIND_TEXT, AT(topic), 0, 0, 0, "MQTT topic prefix (bench/), Kafka topic"},
	{"version", KIND_NUMBER, AT(version), 4, 4, 5, "MQTT: 4 (3.1.1) or 5"},
	{"durable", KIND_FLAG, AT(durable), 0, 0, 1, "clean start off: durable sessions"},
	{"session-expiry", KIND_NUMBER, AT(expiry), 0, 0, UINT32_MAX, "seconds; implies --durable"},
	{"user", KIND_TEXT, AT(user), 0, 0, 0, "user name"},
	{"password", KIND_TEXT, AT(password), 0, 0, 0, "password"},
	{"drain", KIND_NUMBER, AT(drain), 3, 1, 3600, "seconds without progress that end the wait"},
	{"burst", KIND_NUMBER, AT(burst), 100, 1, 100000, "logins in progress at a time"},
	{"idle", KIND_NUMBER, AT(idle), 15000, 1, 60000, "idle connections"},
	{"hold", KIND_NUMBER, AT(hold), 2, 0, 86400, "seconds to hold them before measuring"},
	{"groups", KIND_NUMBER, AT(groups), 1000, 1, 10000, "Kafka groups"},
	{"members", KIND_NUMBER, AT(members), 10, 1, 64, "of each group, each with a connection"},
	{"interval", KIND_NUMBER, AT(interval), 3000, 100, 60000,
		"ms between a member's heartbeats"},
	{"partitions", KIND_NUMBER, AT(partitions), 4, 1, 10000, "Kafka partitions"},
	{"replicas", KIND_NUMBER, AT(replicas), 1, 1, 100, "Kafka replicas"},
	{"batch-bytes", KIND_NUMBER, AT(batch_bytes), 128 * 1024, 1, 8 << 20,
		"Kafka record batch, at most"},
	{"inflight", KIND_NUMBER, AT(inflight), 5, 1, 1000, "Kafka requests in flight each"},
	{"keys", KIND_NUMBER, AT(keys), 0, 1, UINT64_MAX,
		"kafka-produce: records have keys, of so many; into a topic that is there"},
	{"acks", KIND_NUMBER, AT(acks), 2, 1, 2, "Kafka: 1 the leader, 2 all"},
	{"verify", KIND_FLAG, AT(verify), 0, 0, 1, "Kafka: fetch and check what was produced"},
	{"expect", KIND_NUMBER, AT(expect), 0, 1, UINT64_MAX, "kafka-fetch: records there must be"},
	{"dir", KIND_TEXT, AT(dir), 0, 0, 0, "rocks, sync: an existing directory (.)"},
	{"entries", KIND_TEXT, AT(entries), 0, 0, 0, "rocks: entry sizes (131072,32768,1024,330)"},
	{"allow-loss", KIND_FLAG, AT(loss_ok), 0, 0, 1, "lost messages do not fail the run"},
	{"json", KIND_FLAG, AT(json), 0, 0, 1, "one JSON object per result"},
};
enum { ROWS = sizeof rows / sizeof rows[0], WORKLOADS = sizeof workloads / sizeof workloads[0] };

static void usage(FILE *to)
{
	fprintf(to, "usage: sluice-bench WORKLOAD [--OPTION VALUE]...\n\nworkloads:\n");
	for (int i = 0; i < WORKLOADS; i++)
		fprintf(to, "  %-16s %s\n", workloads[i].name, workloads[i].help);
	fprintf(to, "\noptions:\n");
	for (int i = 0; i < ROWS; i++)
		fprintf(to, "  --%-16s %s\n", rows[i].name, rows[i].help);
	fprintf(to, "\nexit status: 0 fine, 1 refused or closed, 2 usage, 3 lost or repeated\n");
}

static bool number_read(const struct option_row *row, const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno == 0 && isdigit((unsigned char)text[0]) && *end == 0 && *out >= row->min &&
		*out <= row->max)
		return true;
	fprintf(stderr, "sluice-bench: --%s: not a number from %llu to %llu: %s\n", row->name,
		(unsigned long long)row->min, (unsigned long long)row->max, text);
	return false;
}

/* Sets the field of a row in *o; value is NULL for a flag. */
static bool option_set(struct options *o, const struct option_row *row, const char *value)
{
	uint64_t n = 1;

	if (row->kind == KIND_TEXT) {
		if (strlen(value) > MQTT_NAME_BYTES_MAX) {
			fprintf(stderr, "sluice-bench: --%s: too long\n", row->name);
			return false;
		}
		memcpy((char *)o + row->at, &value, sizeof value);
		return true;
	}
	if (row->kind == KIND_NUMBER && !number_read(row, value, &n))
		return false;
	memcpy((char *)o + row->at, &n, sizeof n);
	return true;
}

static bool options_read(struct options *o, int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		const struct option_row *row = NULL;

		for (int k = 0; k < ROWS && strncmp(argv[i], "--", 2) == 0; k++)
			if (strcmp(rows[k].name, argv[i] + 2) == 0)
				row = &rows[k];
		if (!row || (row->kind != KIND_FLAG && i + 1 == argc)) {
			fprintf(stderr, "sluice-bench: %s: %s\n", argv[i],
				row ? "needs a value" : "no such option (see --help)");
			return false;
		}
		if (!option_set(o, row, row->kind == KIND_FLAG ? NULL : argv[++i]))
			return false;
	}
	return true;
}

static void options_standard(struct options *o, const struct workload *w)
{
	for (int k = 0; k < ROWS; k++)
		if (rows[k].kind != KIND_TEXT)
			memcpy((char *)o + rows[k].at, &rows[k].standard, sizeof(uint64_t));
	o->host = "127.0.0.1";
	o->dir = ".";
	o->entries = "131072,32768,1024,330";
	o->port = w->port;
	o->size = w->size;
	o->clients = w->clients;
	o->subscribers = w->subscribers;
	o->rate = w->rate;
	o->window = w->window;
}

int main(int argc, char **argv)
{
	const struct workload *w = NULL;
	struct options o = {0};

	if (argc > 1 && strcmp(argv[1], "--help") == 0) {
		usage(stdout);
		return EXIT_FINE;
	}
	for (int i = 0; argc > 1 && i < WORKLOADS; i++)
		if (strcmp(workloads[i].name, argv[1]) == 0)
			w = &workloads[i];
	if (!w) {
		usage(stderr);
		return EXIT_USAGE;
	}
	options_standard(&o, w);
	if (!options_read(&o, argc, argv))
		return EXIT_USAGE;
	if (strncmp(w->name, "mqtt", 4) == 0 && !o.topic)
		o.topic = "bench/";
	if (o.expiry)
		o.durable = 1;
	return w->run(&o, w->name);
}
