/* The Kafka door. Boot: kafka_rows into a struct kafka_conf; kafka_new after broker_new, its result
 * is the door's arg; kafka_advertise after net_open and before net_listen. The end: kafka_stop
 * after net_drain and before node_close (loops run), kafka_free when the loops stand and net is
 * freed. */
#ifndef KAFKA_KAFKA_H
#define KAFKA_KAFKA_H
#include "server/broker/broker.h"
#include "server/broker/group.h"
#include "server/net/conn.h"

struct kafka;

struct kafka_conf {                  /* filled by kafka_rows */
	int64_t request_bytes_max;   /* of a frame */
	int64_t request_bytes_first; /* of frames before the first request that made sense */
	int64_t request_ms;          /* a frame begun must be complete after */
	int64_t fetch_bytes_max;     /* of one fetch response, whatever the client allows */
	int64_t inflight_bytes_max;  /* per connection: produced and not answered */
	int64_t loop_inflight_bytes; /* the same over all connections of a loop */
	int64_t loop_held_bytes;     /* per loop: memory of other large requests */
	int64_t loop_fetch_bytes;    /* per loop: fetched and not yet taken by sockets */
	int64_t producer_keep_ms;    /* of an idempotent producer's state after its last batch */
	struct group_conf group;
};
extern const struct conf_row kafka_rows[];
extern struct metric_table kafka_metrics;
extern const struct conn_kind kafka_kind; /* conn_door_arg: struct kafka * */

struct kafka *kafka_new(const struct kafka_conf *conf, struct broker *b, struct loops *loops);
/* What clients are told to connect to: the comma lists of net_addresses(net, "kafka", tls, true);
 * the first of each is taken. "" when that door is off. Copies. */
void kafka_advertise(struct kafka *k, const char *plain, const char *tls);
struct groups;                                /* group_home.h */
struct groups *kafka_groups(struct kafka *k); /* consumer groups, for other doors */
void kafka_stop(struct kafka *k); /* no timer of a group fires any more. Not from a loop */
void kafka_free(struct kafka *k);

#endif
