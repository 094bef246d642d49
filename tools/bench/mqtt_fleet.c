/* The login of many clients. At most `burst` are between connect and ready, so that neither
 * the listen backlog overflows nor a handshake's time measures our own queue. */
#include "tools/bench/mqtt_fleet.h"
#include "tools/bench/proc.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, STALL_S = 30 };

bool fleet_init(struct fleet *f, const struct options *o, uint32_t count)
{
	memset(f, 0, sizeof *f);
	f->options = o;
	f->ep = -1;
	f->keepalive_s = 600;
	f->run_id = (uint32_t)(now_ns() >> 10) ^ (uint32_t)getpid() << 16;
	if (!addrs_resolve(o->host, o->port, &f->addrs))
		return false;
	f->clients = calloc(count, sizeof *f->clients);
	f->ep = epoll_create1(EPOLL_CLOEXEC);
	if (!f->clients || f->ep < 0) {
		fprintf(stderr, "sluice-bench: %s\n", strerror(errno));
		return false;
	}
	f->count = count;
	for (uint32_t i = 0; i < count; i++) {
		f->clients[i].index = i;
		f->clients[i].sock.fd = -1;
	}
	return true;
}

static void client_fail(struct fleet *f, struct client *c, const char *what, int code)
{
	if (f->failed++ == 0)
		snprintf(f->trouble, sizeof f->trouble, "client %c-%u: %s (%d%s%s)", c->role,
			c->index, what, code, errno ? ", " : "", errno ? strerror(errno) : "");
	sock_close(&c->sock);
	c->state = CLIENT_GONE;
}

static void client_dial(struct fleet *f, struct client *c)
{
	errno = 0;
	c->state = CLIENT_DIALING;
	f->started++;
	if (!sock_open(&c->sock, f->ep, &f->addrs, c->index, c) ||
		!sock_buffers(&c->sock, f->in_cap, f->out_cap))
		client_fail(f, c, "cannot connect", 0);
}

static void client_login(struct fleet *f, struct client *c)
{
	const struct options *o = f->options;
	char id[48];
	struct mqtt_login l = {.client_id = id,
		.user = o->user,
		.password = o->password,
		.version = (uint8_t)o->version,
		.clean = !o->durable,
		.expiry_s = (uint32_t)o->expiry,
		.keepalive_s = f->keepalive_s};

	if (!sock_connected(&c->sock)) {
		client_fail(f, c, "cannot connect", 0);
		return;
	}
	snprintf(id, sizeof id, "bench-%08x-%c%u", f->run_id, c->role, c->index);
	c->sock.out_len = (uint32_t)mqtt_connect_write(c->sock.out, &l);
	c->state = CLIENT_LOGIN;
	if (!sock_flush(&c->sock))
		client_fail(f, c, "closed before CONNECT", 0);
	else
		sock_watch(&c->sock, f->ep, EPOLLIN, c);
}

static void client_ready(struct fleet *f, struct client *c)
{
	c->state = CLIENT_READY;
	f->ready++;
}

static void on_connack(struct fleet *f, struct client *c, const struct mqtt_packet *p)
{
	struct mqtt_connack ack;
	uint8_t qos = (uint8_t)f->options->qos;

	if (p->type != MQTT_CONNACK || !mqtt_connack_read(p, (uint8_t)f->options->version, &ack)) {
		client_fail(f, c, "not a CONNACK", p->type);
		return;
	}
	if (ack.code != 0) {
		client_fail(f, c, "CONNECT refused", ack.code);
		return;
	}
	if (c->role == 'p' && ack.qos_max < qos) {
		client_fail(f, c, "QoS not supported, at most", ack.qos_max);
		return;
	}
	c->receive_max = ack.receive_max;
	if (!c->filter) {
		client_ready(f, c);
		return;
	}
	c->state = CLIENT_SUBSCRIBING;
	c->sock.out_len = (uint32_t)mqtt_subscribe_write(
		c->sock.out, (uint8_t)f->options->version, c->filter, qos);
	if (!sock_flush(&c->sock))
		client_fail(f, c, "closed before SUBSCRIBE", 0);
}

static void on_suback(struct fleet *f, struct client *c, const struct mqtt_packet *p)
{
	uint8_t code;

	if (p->type != MQTT_SUBACK) /* a retained message may come first (MQTT 5 §3.8.4) */
		return;
	code = mqtt_suback_read(p, (uint8_t)f->options->version);
	if (code != f->options->qos)
		client_fail(f, c, "SUBSCRIBE refused or granted less", code);
	else
		client_ready(f, c);
}

static void client_input(struct fleet *f, struct client *c)
{
	struct mqtt_packet p;
	int64_t used;

	if (sock_fill(&c->sock) < 0) {
		client_fail(f, c, "closed by the server", 0);
		return;
	}
	while ((used = mqtt_packet_read(c->sock.in, c->sock.in_len, &p)) > 0) {
		if (c->state == CLIENT_LOGIN)
			on_connack(f, c, &p);
		else if (c->state == CLIENT_SUBSCRIBING)
			on_suback(f, c, &p);
		if (c->state == CLIENT_GONE)
			return;
		sock_consume(&c->sock, (uint32_t)used);
	}
	if (used < 0)
		client_fail(f, c, "malformed packet", 0);
}

bool fleet_connect(struct fleet *f)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t moved = now_ns();
	uint64_t burst = f->options->burst;

	while (f->ready < f->count && f->failed == 0) {
		uint32_t before = f->ready + f->started;
		int n;

		while (f->started < f->count && f->started - f->ready < burst && f->failed == 0)
			client_dial(f, &f->clients[f->started]);
		n = epoll_wait(f->ep, events, EVENTS_MAX, 1000);
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			errno = 0;
			if (c->state == CLIENT_DIALING)
				client_login(f, c);
			else
				client_input(f, c);
		}
		if (f->ready + f->started != before)
			moved = now_ns();
		else if (now_ns() - moved > STALL_S * 1000000000ull) {
			snprintf(f->trouble, sizeof f->trouble, "%u of %u clients ready after %d s",
				f->ready, f->count, STALL_S);
			return false;
		}
	}
	return f->failed == 0;
}

void fleet_fini(struct fleet *f)
{
	for (uint32_t i = 0; i < f->count; i++) {
		struct client *c = &f->clients[i];

		if (c->state == CLIENT_READY && sock_pending(&c->sock) == 0) {
			c->sock.out_len = (uint32_t)mqtt_disconnect_write(
				c->sock.out, (uint8_t)f->options->version);
			(void)sock_flush(&c->sock);
		}
		sock_close(&c->sock);
	}
	free(f->clients);
	if (f->ep >= 0)
		close(f->ep);
	f->clients = NULL;
	f->count = 0;
	f->ep = -1;
}
