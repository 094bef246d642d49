/* A door over real sockets for its tests: a node of one, packets in hex, spaces apart. */
#ifndef TESTS_MQTT_DOOR_H
#define TESTS_MQTT_DOOR_H
#include "protocols/mqtt/mqtt.h"
#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "cluster/node_metrics.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/net/net.h"
#include "storage/storage.h"

static struct {
	char dir[64];
	struct storage_conf storage_conf;
	struct node_conf node_conf;
	struct broker_conf broker_conf;
	struct mqtt_conf mqtt_conf;
	void *net_conf;
	struct conf *conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct mqtt *mqtt;
	struct net *net;
	struct net_door door;
	int port;
} t;

static inline void set(const char *key, const char *value)
{
	char why[200];
	ck_assert_msg(conf_set(t.conf, key, value, why, sizeof why) == OK, "%s", why);
}

static inline void configure(void)
{
	struct metric_table *tables[] = {
		&net_metrics, &storage_metrics, &node_metrics, &broker_metrics, &mqtt_metrics};
	for (size_t i = 0; i < 5; i++)
		metric_register(tables[i]);
	t.net_conf = mem_new(net_conf_bytes());
	t.conf = conf_new();
	conf_add(t.conf, storage_rows, &t.storage_conf);
	conf_add(t.conf, node_rows, &t.node_conf);
	conf_add(t.conf, broker_rows, &t.broker_conf);
	conf_add(t.conf, net_rows, t.net_conf);
	conf_add(t.conf, mqtt_rows, &t.mqtt_conf);
	set("data.dir", t.dir);
	set("listen.mqtt", "127.0.0.1:0");
	set("stream.partitions", "2");
	set("tables", "2");
	set("disk.reserve", "1MiB");
	set("message.bytes_max", "1024");
	set("mqtt.inflight_max", "3");
	set("mqtt.subscriptions_max", "4");
	const char *off[] = {"listen.kafka", "listen.http", "listen.amqp", "listen.peer"};
	for (size_t i = 0; i < 4; i++)
		set(off[i], "off");
	conf_apply(t.conf, true);
}

static inline void boot(void)
{
	char why[200];
	snprintf(t.dir, sizeof t.dir, "/tmp/sluice-mqtt-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	log_setup(LOG_ERROR, false);
	configure();
	t.loops = loops_new(2);
	t.workers = workers_new(2);
	t.door = (struct net_door){"mqtt", &mqtt_kind, NULL, NULL, false};
	ck_assert_int_eq(net_open(t.loops, t.net_conf, &t.door, 1, &t.net, why, sizeof why), OK);
	ck_assert_int_eq(
		storage_open(&t.storage_conf, t.loops, t.workers, &t.storage, why, sizeof why), OK);
	ck_assert_int_eq(
		node_open(&t.node_conf, t.loops, t.workers, t.storage, &t.node, why, sizeof why),
		OK);
	ck_assert_int_eq(
		broker_new(&t.broker_conf, t.node, t.loops, &t.broker, why, sizeof why), OK);
	t.mqtt = mqtt_new(&t.mqtt_conf, t.broker, t.loops);
	t.door.arg = t.mqtt;
	const char *at = net_addresses(t.net, "mqtt", false, true);
	t.port = (int)strtol(strrchr(at, ':') + 1, NULL, 10);
	loops_run(t.loops);
	broker_start(t.broker);
	for (int i = 0; i < 1000 && !broker_ready(t.broker); i++)
		usleep(10000);
	ck_assert(broker_ready(t.broker));
	net_listen(t.net);
}

static inline void down(void)
{
	char command[100];
	net_drain(t.net, 1000);
	mqtt_stop(t.mqtt);
	node_close(t.node);
	loops_stop(t.loops);
	node_free(t.node);
	net_free(t.net);
	mqtt_free(t.mqtt);
	broker_free(t.broker);
	workers_free(t.workers);
	storage_stop(t.storage);
	loops_free(t.loops);
	storage_free(t.storage);
	conf_free(t.conf);
	mem_free(t.net_conf);
	snprintf(command, sizeof command, "rm -rf %s", t.dir);
	ck_assert_int_eq(system(command), 0);
}

/* A client */

enum { WAIT_MS = 5000, ALLOCS = 8 };

static inline int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t.port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

static inline size_t from_hex(const char *text, uint8_t *out)
{
	size_t n = 0;
	for (; *text != 0; text++) {
		char two[3] = {text[0], text[1], 0};
		if (*text == ' ')
			continue;
		out[n++] = (uint8_t)strtoul(two, NULL, 16);
		text++;
	}
	return n;
}

static inline void say(int fd, const char *hex)
{
	uint8_t bytes[4096];
	size_t n = from_hex(hex, bytes);
	ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline size_t hear_bytes(int fd, uint8_t *out, size_t want, int ms)
{
	size_t have = 0;
	while (have < want) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n = poll(&p, 1, ms) > 0 ? recv(fd, out + have, want - have, 0) : -1;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	return have;
}

static inline void hear(int fd, const char *hex)
{
	uint8_t want[4096], got[4096];
	char text[600] = "";
	size_t n = from_hex(hex, want), have = hear_bytes(fd, got, n, WAIT_MS);
	for (size_t i = 0; i < have && i < 190; i++)
		snprintf(text + i * 3, 4, "%02x ", got[i]);
	ck_assert_msg(have == n && memcmp(want, got, n) == 0, "want %s\ngot  %s", hex, text);
}

static inline void silent(int fd)
{
	uint8_t b;
	ck_assert_uint_eq(hear_bytes(fd, &b, 1, 100), 0);
}

/* Closed, after a DISCONNECT at most. */
static inline void gone(int fd)
{
	uint8_t rest[16];
	size_t n = hear_bytes(fd, rest, sizeof rest, WAIT_MS);
	ck_assert_msg(n == 0 || rest[0] == 0xe0, "unexpected packet %02x", rest[0]);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	ck_assert_int_le(recv(fd, rest, 1, 0), 0);
	close(fd);
}

#define CONNECT4(id)      "10 0d 0004 4d515454 04 02 0000 0001 " id
#define CONNECT4_KEPT(id) "10 0d 0004 4d515454 04 00 0000 0001 " id
#define CONNECT5(id)      "10 0e 0004 4d515454 05 02 0000 00 0001 " id
#define CONNECT5_KEPT(id) "10 13 0004 4d515454 05 00 0000 05 11 00000064 0001 " id
#define CONNACK5(present) "20 10 " present " 00 0d 21 0003 22 0010 27 00010400 2a 00"

static inline int client4(const char *connect)
{
	int fd = dial();
	say(fd, connect);
	hear(fd, "20 02 00 00");
	return fd;
}

static inline int client5(const char *connect)
{
	int fd = dial();
	say(fd, connect);
	hear(fd, CONNACK5("00"));
	return fd;
}

#endif
