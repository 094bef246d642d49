/* The MQTT door, 3.1.1 and 5.0. Boot: mqtt_rows into a struct mqtt_conf; mqtt_new after broker_new
 * and before loops_run, its result is the door's arg. The end: mqtt_stop after net_drain and before
 * node_close (loops run: it waits until all sessions are saved), mqtt_free when the loops stand and
 * net is freed, before broker_free. */
#ifndef MQTT_MQTT_H
#define MQTT_MQTT_H
#include "server/base/conf.h"
#include "server/broker/broker.h"
#include "server/net/conn.h"

struct mqtt;

struct mqtt_conf {                      /* filled by mqtt_rows */
	int64_t connect_rate;           /* per node and second; 0: no limit */
	int64_t login_ms;               /* time for CONNECT, and for its answer */
	int64_t login_bytes_max;        /* of the CONNECT packet */
	int64_t keep_alive_s_max;       /* 0: as the client likes */
	int64_t inflight_max;           /* our Receive Maximum; cap for what goes out */
	int64_t alias_max;              /* topic aliases a client may set */
	int64_t session_expiry_s_max;   /* rows older than this after a disconnect are dropped */
	int64_t subscriptions_max;      /* per session */
	int64_t subscription_bytes_max; /* per session, as topic_filter_weight counts */
	int64_t client_id_bytes_max;
};
extern const struct conf_row mqtt_rows[];
extern struct metric_table mqtt_metrics;
extern const struct conn_kind mqtt_kind; /* conn_door_arg: struct mqtt * */

struct mqtt *mqtt_new(const struct mqtt_conf *conf, struct broker *b, struct loops *loops);
void mqtt_stop(struct mqtt *m); /* not from a loop */
void mqtt_free(struct mqtt *m); /* NULL is fine */

#endif
