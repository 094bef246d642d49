/* The HTTP door over real sockets, in front of a whole node in a temporary folder. A test writes
 * bytes and reads answers: status, headers, body. */
#ifndef TESTS_HTTP_FIXTURE_H
#define TESTS_HTTP_FIXTURE_H
#include <arpa/inet.h>
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "protocols/http/http.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/base/worker.h"
#include "server/broker/group_home.h"
#include "server/broker/secret.h"
#include "server/net/net.h"
#include "storage/storage.h"

static struct fixture {
	struct conf *conf;
	struct storage_conf storage_conf;
	struct node_conf node_conf;
	struct broker_conf broker_conf;
	struct http_conf http_conf;
	void *net_conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct groups *groups;
	struct http *http;
	struct net *net;
	struct net_door door;
	char dir[64];
	int port;
} fix;
static _Atomic int reloads;

static inline void count_reload(void)
{
	atomic_fetch_add(&reloads, 1);
}

static inline void fix_set(const char *text)
{
	char why[200], key[64];
	size_t len = strcspn(text, "=");
	snprintf(key, sizeof key, "%.*s", (int)len, text);
	ck_assert_msg(conf_set(fix.conf, key, text + len + 1, why, sizeof why) == OK, "%s", why);
}

static inline void fix_open(void)
{
	char why[200] = "";
	enum err e = net_open(fix.loops, fix.net_conf, &fix.door, 1, &fix.net, why, sizeof why);
	if (e == OK)
		e = storage_open(
			&fix.storage_conf, fix.loops, fix.workers, &fix.storage, why, sizeof why);
	if (e == OK)
		e = node_open(&fix.node_conf, fix.loops, fix.workers, fix.storage, &fix.node, why,
			sizeof why);
	if (e == OK)
		e = broker_new(&fix.broker_conf, fix.node, fix.loops, &fix.broker, why, sizeof why);
	ck_assert_msg(e == OK, "%s", why);
	static const struct group_conf group_conf = {.session_ms_min = 100,
		.session_ms_max = 10000,
		.members_max = 10,
		.bytes_max = 100000,
		.groups_max = 100,
		.offset_metadata_max = 1000,
		.loop_bytes_max = 1000000,
		.offsets_keep_ms = 100000};
	fix.groups = groups_new(&group_conf, fix.loops);
	fix.http = http_new(&fix.http_conf,
		&(struct http_env){.broker = fix.broker,
			.groups = fix.groups,
			.loops = fix.loops,
			.net = fix.net,
			.conf = fix.conf,
			.reload = count_reload});
	fix.door.arg = fix.http;
	fix.port = (int)strtol(
		strrchr(net_addresses(fix.net, "http", false, false), ':') + 1, NULL, 10);
	loops_run(fix.loops);
	broker_start(fix.broker);
	for (int i = 0; i < 2000 && !broker_ready(fix.broker); i++)
		usleep(5000);
	ck_assert(broker_ready(fix.broker));
	net_listen(fix.net);
	http_serving(fix.http, true);
}

/* settings: "key=value" and a NULL behind the last one. */
static inline void fix_start(const char *const *settings)
{
	static struct metric_table *const tables[] = {
		&net_metrics, &storage_metrics, &node_metrics, &broker_metrics, &http_metrics};
	static const char *const common[] = {"listen.http=127.0.0.1:0", "listen.mqtt=off",
		"listen.kafka=off", "listen.amqp=off", "listen.peer=off", "stream.partitions=2",
		"message.bytes_max=100000", "tables=1", "disk.reserve=1MiB"};
	log_setup(LOG_ERROR, false);
	for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
		metric_register(tables[i]);
	snprintf(fix.dir, sizeof fix.dir, "/tmp/sluice-http-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fix.dir));
	fix.net_conf = mem_new(net_conf_bytes());
	fix.conf = conf_new();
	conf_add(fix.conf, storage_rows, &fix.storage_conf);
	conf_add(fix.conf, node_rows, &fix.node_conf);
	conf_add(fix.conf, broker_rows, &fix.broker_conf);
	conf_add(fix.conf, net_rows, fix.net_conf);
	conf_add(fix.conf, http_rows, &fix.http_conf);
	for (size_t i = 0; i < sizeof common / sizeof common[0]; i++)
		fix_set(common[i]);
	for (; settings != NULL && *settings != NULL; settings++)
		fix_set(*settings);
	char dir[96];
	snprintf(dir, sizeof dir, "data.dir=%s", fix.dir);
	fix_set(dir);
	conf_apply(fix.conf, true);
	fix.loops = loops_new(2);
	fix.workers = workers_new(2);
	fix.door = (struct net_door){"http", &http_kind, NULL, NULL, false};
	fix_open();
}
#define START(...) fix_start((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static inline void fix_stop(void)
{
	char command[100];
	net_drain(fix.net, 1000);
	groups_stop(fix.groups);
	node_close(fix.node);
	loops_stop(fix.loops);
	node_free(fix.node);
	net_free(fix.net);
	http_free(fix.http);
	groups_free(fix.groups);
	broker_free(fix.broker);
	workers_free(fix.workers);
	storage_stop(fix.storage);
	loops_free(fix.loops);
	storage_free(fix.storage);
	conf_free(fix.conf);
	mem_free(fix.net_conf);
	snprintf(command, sizeof command, "rm -rf %s", fix.dir);
	ck_assert_int_eq(system(command), 0);
}

/* ---- a client */

static inline int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)fix.port)};
	struct timeval patience = {.tv_sec = 10};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
	return fd;
}

static inline void put_bytes(int fd, const void *at, size_t len)
{
	ck_assert_int_eq(send(fd, at, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline void put(int fd, const char *text)
{
	put_bytes(fd, text, strlen(text));
}

struct reply {
	int status;
	char head[4096];
	char body[400000];
	size_t len; /* of body */
};
static struct reply got;

static inline void get_exactly(int fd, char *to, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(fd, to, len, 0);
		ck_assert_msg(n > 0, "the connection ended within an answer");
		to += n;
		len -= (size_t)n;
	}
}

/* Reads the next answer into got; without_body: to a HEAD request. */
static inline int get_reply_of(int fd, bool without_body)
{
	size_t len = 0;
	memset(&got, 0, sizeof got);
	while (len < 4 || memcmp(got.head + len - 4, "\r\n\r\n", 4) != 0) {
		ck_assert(len + 1 < sizeof got.head);
		get_exactly(fd, got.head + len++, 1);
	}
	ck_assert_int_eq(sscanf(got.head, "HTTP/1.1 %d ", &got.status), 1);
	const char *length = strstr(got.head, "Content-Length: ");
	if (length != NULL)
		got.len = strtoul(length + 16, NULL, 10);
	ck_assert(got.len < sizeof got.body);
	if (!without_body)
		get_exactly(fd, got.body, got.len);
	return got.status;
}

static inline int get_reply(int fd)
{
	return get_reply_of(fd, false);
}

static inline void expect_end(int fd)
{
	char c;
	ck_assert_int_eq(recv(fd, &c, 1, 0), 0);
	close(fd);
}

/* One request on a connection of its own. body NULL: none. */
static inline int ask(const char *method, const char *target, const char *body)
{
	char text[4096];
	int fd = dial();
	snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
		method, target, body ? strlen(body) : 0, body ? body : "");
	put(fd, text);
	get_reply_of(fd, strcmp(method, "HEAD") == 0);
	close(fd);
	return got.status;
}

/* The same by user "NAME:PASSWORD"; NULL: without one. */
static inline int ask_as(const char *user, const char *method, const char *target, const char *body)
{
	char text[8192], credentials[400] = "";
	int fd = dial();
	if (user != NULL) {
		struct buf b;
		buf_init(&b, 300);
		base64_write(bytes_text(user), &b);
		snprintf(credentials, sizeof credentials, "Authorization: Basic %.*s\r\n",
			(int)buf_len(&b), (const char *)buf_bytes(&b).at);
		buf_fini(&b);
	}
	snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n%s",
		method, target, credentials, body ? strlen(body) : 0, body ? body : "");
	put(fd, text);
	get_reply(fd);
	close(fd);
	return got.status;
}

#define BODY_HAS(text)                                                                             \
	ck_assert_msg(strstr(got.body, text) != NULL, "no %s in %.1500s", text, got.body)

#endif
