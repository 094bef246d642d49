/* The one list of modules: whose configuration rows, metrics and doors make up this server. main.c
 * boots them in order; nothing else knows them all. Thread: main. */
#ifndef SERVER_MODULES_H
#define SERVER_MODULES_H
#include "cluster/catchup.h"
#include "protocols/http/http.h"
#include "protocols/kafka/kafka.h"
#include "protocols/mqtt/mqtt.h"
#include "server/broker/broker.h"
#include "server/net/net.h"
#include "storage/storage.h"

struct process_conf {     /* what belongs to no module */
	int64_t loops;    /* 0: one per core */
	int64_t workers;  /* threads for what may block */
	int64_t drain_ms; /* how long connections may take to end at SIGTERM */
	int log_level;    /* enum log_level */
	int log_format;   /* 0 text, 1 json */
};
extern const struct conf_row process_rows[];

struct modules { /* what their rows fill; plain fields, changed only while loops stand still */
	struct process_conf process;
	struct storage_conf storage;
	struct node_conf node;
	struct peer_settings peer;
	struct catchup_settings catchup;
	struct broker_conf broker;
	struct mqtt_conf mqtt;
	struct kafka_conf kafka;
	struct http_conf http;
	void *net; /* net_conf_bytes */
};

void modules_init(struct modules *m, struct conf *c); /* adds all rows to c */
void modules_fini(struct modules *m);
void modules_register_metrics(void);

struct modules_doors { /* every door there is, with what stands behind it */
	struct net_door doors[8];
	int count;
};
struct modules_args { /* the doors' own (net.h) */
	void *mqtt, *kafka, *http, *peers;
	bool peer_tls;
};
/* Fills d; the arguments may be set by calling again until net_listen. */
void modules_doors(struct modules_doors *d, const struct modules_args *args);

#endif
