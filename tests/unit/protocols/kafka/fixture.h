/* The Kafka door over real sockets, in front of a whole node in a temporary folder, and a client
 * that writes its frames by hand through the codec's client side. */
#ifndef KAFKA_FIXTURE_H
#define KAFKA_FIXTURE_H
#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "protocols/kafka/kafka.h"
#include "protocols/kafka/kafka_schema.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/net/net.h"
#include "storage/record_batch.h"
#include "storage/storage.h"

static struct {
	struct conf *conf;
	struct storage_conf storage_conf;
	struct node_conf node_conf;
	struct broker_conf broker_conf;
	struct kafka_conf kafka_conf;
	void *net_conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	struct kafka *kafka;
	struct net *net;
	struct net_door door;
	char dir[64];
	int port;
} t;

static struct arena arena;

static inline void set(const char *key, const char *value)
{
	char why[200];
	ck_assert_msg(conf_set(t.conf, key, value, why, sizeof why) == OK, "%s", why);
}

/* settings: "key", "value", ... NULL; before others of the node's. */
static inline void boot_with(const char *const *settings)
{
	char why[200];
	snprintf(t.dir, sizeof t.dir, "/tmp/sluice-kafka-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(t.dir));
	log_setup(LOG_ERROR, false);
	t.net_conf = mem_new(net_conf_bytes());
	struct metric_table *tables[] = {
		&net_metrics, &storage_metrics, &node_metrics, &broker_metrics, &kafka_metrics};
	for (size_t i = 0; i < 5; i++)
		metric_register(tables[i]);
	t.conf = conf_new();
	conf_add(t.conf, storage_rows, &t.storage_conf);
	conf_add(t.conf, node_rows, &t.node_conf);
	conf_add(t.conf, broker_rows, &t.broker_conf);
	conf_add(t.conf, net_rows, t.net_conf);
	conf_add(t.conf, kafka_rows, &t.kafka_conf);
	set("data.dir", t.dir);
	set("listen.kafka", "127.0.0.1:0");
	set("stream.partitions", "2");
	set("message.bytes_max", "100000");
	set("group.initial_rebalance_delay", "0");
	const char *off[] = {"listen.mqtt", "listen.http", "listen.amqp", "listen.peer"};
	for (size_t i = 0; i < 4; i++)
		set(off[i], "off");
	for (size_t i = 0; settings != NULL && settings[i] != NULL; i += 2)
		set(settings[i], settings[i + 1]);
	conf_apply(t.conf, true);
	t.loops = loops_new(2);
	t.workers = workers_new(2);
	t.door = (struct net_door){"kafka", &kafka_kind, NULL, NULL, false};
	ck_assert_int_eq(net_open(t.loops, t.net_conf, &t.door, 1, &t.net, why, sizeof why), OK);
	ck_assert_int_eq(
		storage_open(&t.storage_conf, t.loops, t.workers, &t.storage, why, sizeof why), OK);
	ck_assert_int_eq(
		node_open(&t.node_conf, t.loops, t.workers, t.storage, &t.node, why, sizeof why),
		OK);
	ck_assert_int_eq(
		broker_new(&t.broker_conf, t.node, t.loops, &t.broker, why, sizeof why), OK);
	t.kafka = kafka_new(&t.kafka_conf, t.broker, t.loops);
	t.door.arg = t.kafka;
	const char *at = net_addresses(t.net, "kafka", false, true);
	kafka_advertise(t.kafka, at, "");
	t.port = (int)strtol(strrchr(at, ':') + 1, NULL, 10);
	loops_run(t.loops);
	broker_start(t.broker);
	for (int i = 0; i < 1000 && !broker_ready(t.broker); i++)
		usleep(10000);
	ck_assert(broker_ready(t.broker));
	net_listen(t.net);
	arena_init(&arena, 1 << 24);
}

static inline void boot(void)
{
	boot_with(NULL);
}

static inline void down(void)
{
	char command[100];
	net_drain(t.net, 1000);
	kafka_stop(t.kafka);
	node_close(t.node);
	loops_stop(t.loops);
	node_free(t.node);
	net_free(t.net);
	kafka_free(t.kafka);
	broker_free(t.broker);
	workers_free(t.workers);
	storage_stop(t.storage);
	loops_free(t.loops);
	storage_free(t.storage);
	conf_free(t.conf);
	mem_free(t.net_conf);
	arena_fini(&arena);
	snprintf(command, sizeof command, "rm -rf %s", t.dir);
	ck_assert_int_eq(system(command), 0);
}

/* A client */

static inline int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t.port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

static inline void emit(void *arg, struct slice s)
{
	int fd = *(int *)arg;
	ck_assert_int_eq(send(fd, s.bytes.at, s.bytes.len, MSG_NOSIGNAL), (ssize_t)s.bytes.len);
	slice_unref(&s);
}

static inline void ask(int fd, int16_t key, int16_t version, int32_t correlation, const void *req)
{
	struct kafka_out out;
	struct kafka_header h = {.key = key,
		.version = version,
		.correlation = correlation,
		.client_id = bytes_text("test"),
		.api = kafka_api_find(key)};
	kafka_out_init(&out, 1 << 20);
	ck_assert_int_eq(kafka_request_encode(&h, req, &out), OK);
	kafka_out_each(&out, emit, &fd);
	kafka_out_fini(&out);
}

static inline bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, ms) == 1;
}

static inline void take(int fd, uint8_t *at, size_t len)
{
	while (len > 0) {
		ck_assert(readable(fd, 10000));
		ssize_t n = recv(fd, at, len, 0);
		ck_assert_int_gt(n, 0);
		at += n;
		len -= (size_t)n;
	}
}

/* The next answer, decoded; its bytes live until the arena's reset. */
static inline void answer(int fd, int16_t key, int16_t version, int32_t correlation, void *res)
{
	uint8_t size[4];
	int32_t got;
	struct bytes body;
	take(fd, size, sizeof size);
	uint32_t len = get_u32be(size);
	uint8_t *frame = arena_take(&arena, len);
	take(fd, frame, len);
	ck_assert_int_eq(kafka_response_read(
				 kafka_api_find(key), version, bytes_of(frame, len), &got, &body),
		OK);
	ck_assert_int_eq(got, correlation);
	ck_assert_int_eq(kafka_decode(kafka_api_find(key), version, false, body, &arena, res), OK);
}

static inline bool is_closed(int fd)
{
	char byte;
	return readable(fd, 10000) && recv(fd, &byte, 1, 0) <= 0;
}

static inline void make_topic(int fd, const char *name)
{
	struct kafka_create_topics_req req = kafka_create_topics_req_init;
	struct kafka_create_topics_res res;
	req.topics = kafka_array(&arena, &kafka_create_topics_req_topic_type, 1);
	req.topics_count = 1;
	req.topics[0].name = bytes_text(name);
	req.topics[0].partitions = 2;
	ask(fd, KAFKA_CREATE_TOPICS, 5, 1, &req);
	answer(fd, KAFKA_CREATE_TOPICS, 5, 1, &res);
	ck_assert_int_eq(res.topics[0].error, 0);
	ck_assert_int_eq(res.topics[0].partitions, 2);
}

static inline struct slice batch_of(size_t bytes, int count)
{
	static uint8_t fill[200000];
	struct batch_builder b;
	struct bytes value = bytes_of(fill, bytes);
	batch_builder_init(&b, 1 << 20);
	for (int i = 0; i < count; i++)
		ck_assert_int_eq(batch_builder_add(&b, 1700000000000, NULL, &value, NULL, 0), OK);
	return batch_builder_seal(&b);
}

static inline void produce(int fd, const char *topic, int16_t version, int16_t acks,
	struct bytes records, int32_t correlation)
{
	struct kafka_produce_req req = kafka_produce_req_init;
	req.acks = acks;
	req.timeout_ms = 10000;
	req.topics = kafka_array(&arena, &kafka_produce_req_topic_type, 1);
	req.topics_count = 1;
	req.topics[0].name = bytes_text(topic);
	req.topics[0].partitions = kafka_array(&arena, &kafka_produce_req_partition_type, 1);
	req.topics[0].partitions_count = 1;
	req.topics[0].partitions[0].records.bytes = records;
	ask(fd, KAFKA_PRODUCE, version, correlation, &req);
}

static inline int16_t produced(int fd, int16_t version, int32_t correlation, int64_t *offset)
{
	struct kafka_produce_res res;
	answer(fd, KAFKA_PRODUCE, version, correlation, &res);
	ck_assert_uint_eq(res.topics_count, 1);
	if (offset != NULL)
		*offset = res.topics[0].partitions[0].base_offset;
	return res.topics[0].partitions[0].error;
}

static inline void fetch(
	int fd, const char *topic, int64_t offset, int32_t wait_ms, int32_t correlation)
{
	struct kafka_fetch_req req = kafka_fetch_req_init;
	req.max_wait_ms = wait_ms;
	req.min_bytes = 1;
	req.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	req.topics_count = 1;
	req.topics[0].name = bytes_text(topic);
	req.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, 2);
	req.topics[0].partitions_count = 2;
	for (int i = 0; i < 2; i++) {
		req.topics[0].partitions[i].index = i;
		req.topics[0].partitions[i].fetch_offset = i == 0 ? offset : 0;
		req.topics[0].partitions[i].max_bytes = 50;
	}
	ask(fd, KAFKA_FETCH, 11, correlation, &req);
}

static inline void end(int fd)
{
	close(fd);
	arena_reset(&arena);
}

#endif
