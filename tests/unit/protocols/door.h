/* A whole node behind one door, over real sockets, in a temporary folder. A test's own part: what
 * stands behind the door, between door_open and door_listen, and its end, around door_close. */
#ifndef TESTS_PROTOCOLS_DOOR_H
#define TESTS_PROTOCOLS_DOOR_H
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/base/worker.h"
#include "server/broker/broker.h"
#include "server/net/net.h"
#include "storage/storage.h"

static struct {
	struct conf *conf;
	struct storage_conf storage_conf;
	struct node_conf node_conf;
	struct broker_conf broker_conf;
	void *net_conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct net *net;
	struct net_door door;
	char dir[64];
	int port;
} t;

static inline void set(const char *key, const char *value)
{
	char why[200];
	ck_assert_msg(conf_set(t.conf, key, value, why, sizeof why) == OK, "%s", why);
}

/* Settings may follow. rows, over settings, are those of what is behind the door. */
static inline void door_init(const char *name, const struct conn_kind *kind,
	const struct conf_row *rows, void *settings, struct metric_table *metrics)
{
	static const char *const doors[] = {
		"listen.mqtt", "listen.kafka", "listen.http", "listen.amqp", "listen.peer"};
	struct metric_table *tables[] = {
		&net_metrics, &storage_metrics, &node_metrics, &broker_metrics, metrics};
	log_setup(LOG_ERROR, false);
	snprintf(t.dir, sizeof t.dir, "/tmp/sluice-%s-test-XXXXXX", name);
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
		metric_register(tables[i]);
	t.door = (struct net_door){name, kind, NULL, NULL, false};
	t.net_conf = mem_new(net_conf_bytes());
	t.conf = conf_new();
	conf_add(t.conf, storage_rows, &t.storage_conf);
	conf_add(t.conf, node_rows, &t.node_conf);
	conf_add(t.conf, broker_rows, &t.broker_conf);
	conf_add(t.conf, net_rows, t.net_conf);
	conf_add(t.conf, rows, settings);
	for (size_t i = 0; i < sizeof doors / sizeof doors[0]; i++)
		set(doors[i], strcmp(strchr(doors[i], '.') + 1, name) == 0 ? "127.0.0.1:0" : "off");
	set("data.dir", t.dir);
	set("disk.reserve", "1MiB");
	set("stream.partitions", "2");
}

static inline void door_open(void)
{
	char why[200] = "";
	conf_apply(t.conf, true);
	t.loops = loops_new(2);
	t.workers = workers_new(2);
	enum err e = net_open(t.loops, t.net_conf, &t.door, 1, &t.net, why, sizeof why);
	if (e == OK)
		e = storage_open(&t.storage_conf, t.loops, t.workers, &t.storage, why, sizeof why);
	if (e == OK)
		e = node_open(
			&t.node_conf, t.loops, t.workers, t.storage, &t.node, why, sizeof why);
	if (e == OK)
		e = broker_new(&t.broker_conf, t.node, t.loops, &t.broker, why, sizeof why);
	ck_assert_msg(e == OK, "%s", why);
}

/* arg: what is behind it. */
static inline void door_listen(void *arg)
{
	const char *at = net_addresses(t.net, t.door.name, false, true);
	t.door.arg = arg;
	t.port = (int)strtol(strrchr(at, ':') + 1, NULL, 10);
	loops_run(t.loops);
	broker_start(t.broker);
	for (int i = 0; i < 2000 && !broker_ready(t.broker); i++)
		usleep(5000);
	ck_assert(broker_ready(t.broker));
	net_listen(t.net);
}

/* After net_drain and the stop of what is behind the door, which is freed next. */
static inline void door_close(void)
{
	node_close(t.node);
	loops_stop(t.loops);
	node_free(t.node);
	net_free(t.net);
}

static inline void door_free(void)
{
	char command[100];
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

static inline int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t.port)};
	struct timeval patience = {.tv_sec = 30};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
	return fd;
}

#endif
