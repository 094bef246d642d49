/* The Kafka door, and a client that writes its frames by hand through the codec's client side. */
#ifndef KAFKA_FIXTURE_H
#define KAFKA_FIXTURE_H
#include <poll.h>
#include "protocols/kafka/kafka.h"
#include "protocols/kafka/kafka_schema.h"
#include "server/base/clock.h"
#include "storage/record_batch.h"
#include "tests/unit/protocols/door.h"

static struct kafka_conf kafka_conf;
static struct kafka *kafka;
static struct arena arena;

/* settings: "key", "value", ... NULL; before others of the node's. */
static inline void boot_with(const char *const *settings)
{
	door_init("kafka", &kafka_kind, kafka_rows, &kafka_conf, &kafka_metrics);
	set("message.bytes_max", "100000");
	set("group.initial_rebalance_delay", "0");
	for (size_t i = 0; settings != NULL && settings[i] != NULL; i += 2)
		set(settings[i], settings[i + 1]);
	door_open();
	kafka = kafka_new(&kafka_conf, t.broker, t.loops);
	kafka_advertise(kafka, net_addresses(t.net, "kafka", false, true), "");
	door_listen(kafka);
	arena_init(&arena, 1 << 24);
}

static inline void boot(void)
{
	boot_with(NULL);
}

static inline void down(void)
{
	net_drain(t.net, 1000);
	kafka_stop(kafka);
	door_close();
	kafka_free(kafka);
	door_free();
	arena_fini(&arena);
}

/* A client */

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

enum { PATIENT_MS = 30000 };

static inline bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, ms) == 1;
}

static inline void take(int fd, uint8_t *at, size_t len)
{
	while (len > 0) {
		ck_assert(readable(fd, PATIENT_MS));
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
	return readable(fd, PATIENT_MS) && recv(fd, &byte, 1, 0) <= 0;
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

static inline void fetch_version(int fd, const char *topic, int16_t version, int64_t offset,
	int32_t wait_ms, int32_t correlation)
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
	ask(fd, KAFKA_FETCH, version, correlation, &req);
}

static inline void fetch(
	int fd, const char *topic, int64_t offset, int32_t wait_ms, int32_t correlation)
{
	fetch_version(fd, topic, 11, offset, wait_ms, correlation);
}

static inline void end(int fd)
{
	close(fd);
	arena_reset(&arena);
}

#endif
