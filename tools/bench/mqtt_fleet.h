/* Many MQTT clients on one epoll: connecting them at a bounded rate, logging in, subscribing.
 * When fleet_connect returns true each is ready, and the workload reads their sockets. */
#ifndef BENCH_MQTT_FLEET_H
#define BENCH_MQTT_FLEET_H
#include "tools/bench/bench.h"
#include "tools/bench/mqtt_packet.h"
#include "tools/bench/sock.h"

enum client_state {
	CLIENT_NEW,
	CLIENT_DIALING,
	CLIENT_LOGIN,
	CLIENT_SUBSCRIBING,
	CLIENT_READY,
	CLIENT_GONE
};

struct client {
	struct sock sock;
	enum client_state state;
	uint32_t index;
	uint16_t receive_max; /* what the server takes unacknowledged */
	char role;            /* 'p', 's', 'i': part of the client id */
	const char *filter;   /* subscribed to during login; NULL: nothing. Borrowed */
	struct pub *pub;      /* the workload's, freed by it */
	struct sub *sub;
};

struct fleet {
	const struct options *options;
	struct addrs addrs;
	int ep;
	uint32_t run_id; /* distinguishes this run's client ids and messages */
	uint16_t keepalive_s;
	uint32_t in_cap, out_cap; /* buffers of each connection */
	struct client *clients;
	uint32_t count;
	uint32_t ready, started, failed;
	char trouble[160]; /* why the first one failed */
};

bool fleet_init(struct fleet *f, const struct options *o, uint32_t count);
/* Connects all; false when one fails or nothing moves for 30 s (f->trouble says why). */
bool fleet_connect(struct fleet *f);
/* DISCONNECTs what is connected and frees everything. */
void fleet_fini(struct fleet *f);

#endif
