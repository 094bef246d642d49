/* What the workloads of sluice-bench share: the options of the command line, the way results
 * are printed, and the exit status. One thread, except where a workload says otherwise. */
#ifndef BENCH_H
#define BENCH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bench_exit {
	EXIT_FINE = 0,
	EXIT_TROUBLE = 1, /* the server refused, closed, or could not be reached */
	EXIT_USAGE = 2,
	EXIT_LOST = 3 /* something accepted was not delivered, or came twice under QoS 2 */
};

struct options {          /* every number is a uint64_t so that one table row can fill it */
	const char *host; /* comma list of NAME[:PORT]; connections go round robin */
	const char *topic;
	const char *user, *password;
	const char *dir;
	const char *entries; /* rocks: comma list of entry sizes */
	uint64_t port, seconds, count, size, clients, subscribers, window, qos, pid, rate, idle;
	uint64_t version, expiry, durable, drain, burst, hold;
	uint64_t groups, members, interval;
	uint64_t partitions, replicas, batch_bytes, inflight, acks, expect, verify, keys;
	uint64_t json, loss_ok;
};

/* Each runs one workload, prints its result lines and returns an enum bench_exit. */
int bench_mqtt_load(const struct options *o, const char *name);
int bench_mqtt_idle(const struct options *o, const char *name);
int bench_kafka_produce(const struct options *o, const char *name);
int bench_kafka_fetch(const struct options *o, const char *name);
int bench_kafka_groups(const struct options *o, const char *name);
int bench_kafka_logins(const struct options *o, const char *name);
int bench_rocks(const struct options *o, const char *name);
int bench_sync(const struct options *o, const char *name);

#endif
