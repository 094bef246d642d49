/* The door over real sockets, in front of a whole node in a temporary folder: frames written by
 * hand through the codec's client side. */
#include "tests/unit/protocols/kafka/fixture.h"
#include <zlib.h>
#include "protocols/kafka/kafka_priv.h"
#include "protocols/kafka/kafka_set.h"
#include "server/broker/group_home.h"

START_TEST(pipelined_requests_are_answered_in_order)
{
	int fd = dial();
	make_topic(fd, "order");
	struct slice b = batch_of(100, 3);
	struct kafka_metadata_req all = kafka_metadata_req_init;
	struct kafka_metadata_res res;
	for (int i = 0; i < 50; i++) {
		produce(fd, "order", 7, -1, b.bytes, i * 2);
		ask(fd, KAFKA_METADATA, 5, i * 2 + 1, &all);
	}
	for (int i = 0; i < 50; i++) {
		int64_t offset;
		ck_assert_int_eq(produced(fd, 7, i * 2, &offset), 0);
		ck_assert_int_eq(offset, i * 3);
		answer(fd, KAFKA_METADATA, 5, i * 2 + 1, &res);
		ck_assert_int_eq(res.brokers[0].port, t.port);
		ck_assert_int_eq(res.brokers[0].node_id, 1);
	}
	slice_unref(&b);
	end(fd);
}
END_TEST

/* Connections that ask for a new topic at once: none of them is told that it is not there. (That it
 * has no leader yet may be told to who finds it in force.) */
START_TEST(who_asks_while_a_topic_is_made_waits_for_it)
{
	enum { CLIENTS = 4, TOPICS = 5 };
	struct kafka_metadata_req req = kafka_metadata_req_init;
	struct kafka_metadata_res res;
	int fds[CLIENTS];
	char name[16];
	req.auto_create = true;
	req.topics = kafka_array(&arena, &kafka_metadata_req_topic_type, 1);
	req.topics_count = 1;
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial();
	for (int n = 0; n < TOPICS; n++) {
		snprintf(name, sizeof name, "new-%d", n);
		req.topics[0].name = bytes_text(name);
		for (int i = 0; i < CLIENTS; i++)
			ask(fds[i], KAFKA_METADATA, 5, n, &req);
		for (int i = 0; i < CLIENTS; i++) {
			answer(fds[i], KAFKA_METADATA, 5, n, &res);
			ck_assert_int_eq(res.topics[0].error, 0);
			ck_assert_uint_gt(res.topics[0].partitions_count, 0);
		}
	}
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	arena_reset(&arena);
}
END_TEST

START_TEST(what_is_stored_is_what_was_sent)
{
	int fd = dial();
	struct kafka_fetch_res res;
	struct batch got;
	make_topic(fd, "bytes");
	struct slice b = batch_of(500, 4);
	for (int i = 0; i < 2; i++) {
		produce(fd, "bytes", 7, 1, b.bytes, i);
		ck_assert_int_eq(produced(fd, 7, i, NULL), 0);
	}
	fetch(fd, "bytes", 5, 1000, 7); /* within the second batch, which is over max_bytes */
	answer(fd, KAFKA_FETCH, 11, 7, &res);
	ck_assert_uint_eq(res.topics[0].partitions_count, 2); /* the empty one, too */
	struct kafka_fetch_res_partition *p = &res.topics[0].partitions[0];
	ck_assert_int_eq(p->error, 0);
	ck_assert_int_eq(p->high_watermark, 8);
	ck_assert_uint_eq(p->records.bytes.len, b.bytes.len);
	ck_assert_int_eq(batch_read(p->records.bytes, &got), OK);
	ck_assert_int_eq(got.base_offset, 4);
	ck_assert_int_eq(batch_check(&got, 1 << 20), OK);
	ck_assert_mem_eq(p->records.bytes.at + 16, b.bytes.at + 16, b.bytes.len - 16);
	fetch(fd, "bytes", 9, 1000, 8);
	answer(fd, KAFKA_FETCH, 11, 8, &res);
	ck_assert_int_eq(res.topics[0].partitions[0].error, 1);
	fetch(fd, "no such", 0, 1000, 9);
	answer(fd, KAFKA_FETCH, 11, 9, &res);
	ck_assert_int_eq(res.topics[0].partitions[0].error, 3);
	slice_unref(&b);
	end(fd);
}
END_TEST

/* Many partitions with tiny limits: each read gives a batch at least, the answer keeps its bound.
 */
START_TEST(an_answer_keeps_its_bound)
{
	enum { TIMES = 2000, BATCH = 40000, ANSWER_MAX = 200000 };
	int fd = dial();
	struct slice batch = batch_of(BATCH, 1);
	struct kafka_fetch_req req = kafka_fetch_req_init;
	struct kafka_fetch_res res;
	size_t bytes = 0;
	int64_t offset;
	make_topic(fd, "many");
	produce(fd, "many", 7, -1, batch.bytes, 1);
	ck_assert_int_eq(produced(fd, 7, 1, &offset), 0);
	req.min_bytes = 1;
	req.max_bytes = ANSWER_MAX;
	req.topics_count = 1;
	req.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	req.topics[0].name = bytes_text("many");
	req.topics[0].partitions_count = TIMES;
	req.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, TIMES);
	for (int i = 0; i < TIMES; i++) {
		req.topics[0].partitions[i].fetch_offset = offset;
		req.topics[0].partitions[i].max_bytes = 1;
	}
	ask(fd, KAFKA_FETCH, 11, 2, &req);
	answer(fd, KAFKA_FETCH, 11, 2, &res);
	ck_assert_uint_eq(res.topics[0].partitions_count, TIMES);
	for (int i = 0; i < TIMES; i++)
		bytes += res.topics[0].partitions[i].records.bytes.len;
	ck_assert_uint_ge(bytes, BATCH);
	ck_assert_uint_le(bytes, ANSWER_MAX);
	slice_unref(&batch);
	end(fd);
}
END_TEST

/* Partitions that have records and no room in the answer: there is nothing to wait for, though it
 * is less than was wanted. */
START_TEST(a_fetch_that_has_no_room_for_more_does_not_wait)
{
	enum { TIMES = 20 };
	int fd = dial();
	struct slice batch = batch_of(10, 1);
	struct kafka_fetch_req req = kafka_fetch_req_init;
	struct kafka_fetch_res res;
	int64_t offset;
	make_topic(fd, "room");
	produce(fd, "room", 7, -1, batch.bytes, 1);
	ck_assert_int_eq(produced(fd, 7, 1, &offset), 0);
	req.max_wait_ms = 3600000;
	req.min_bytes = (int32_t)(TIMES * batch.bytes.len);
	req.max_bytes = 100000; /* each read counts as more than a tenth of it */
	req.topics_count = 1;
	req.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	req.topics[0].name = bytes_text("room");
	req.topics[0].partitions_count = TIMES;
	req.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, TIMES);
	for (int i = 0; i < TIMES; i++) {
		req.topics[0].partitions[i].fetch_offset = offset;
		req.topics[0].partitions[i].max_bytes = 50000;
	}
	ask(fd, KAFKA_FETCH, 11, 2, &req);
	answer(fd, KAFKA_FETCH, 11, 2, &res);
	ck_assert_uint_eq(res.topics[0].partitions[0].records.bytes.len, batch.bytes.len);
	ck_assert_uint_eq(res.topics[0].partitions[TIMES - 1].records.bytes.len, 0);
	ck_assert_int_eq(res.topics[0].partitions[TIMES - 1].high_watermark, offset + 1);
	slice_unref(&batch);
	end(fd);
}
END_TEST

START_TEST(a_fetch_waits_for_records_and_for_no_longer)
{
	int fd = dial(), other = dial();
	struct kafka_fetch_res res;
	make_topic(fd, "poll");
	struct slice b = batch_of(10, 1);
	for (int i = 0; i < 5; i++) {
		fetch(fd, "poll", i, 8000, i);
		ck_assert(!readable(fd, 50));
		produce(other, "poll", 7, -1, b.bytes, i);
		ck_assert_int_eq(produced(other, 7, i, NULL), 0);
		answer(fd, KAFKA_FETCH, 11, i, &res);
		ck_assert_int_eq(res.topics[0].partitions[0].high_watermark, i + 1);
		ck_assert_uint_gt(res.topics[0].partitions[0].records.bytes.len, 0);
	}
	int64_t began = clock_ms();
	fetch(fd, "poll", 5, 200, 9);
	answer(fd, KAFKA_FETCH, 11, 9, &res);
	ck_assert_int_ge(clock_ms() - began, 190);
	ck_assert_uint_eq(res.topics[0].partitions[0].records.bytes.len, 0);
	fetch(fd, "poll", 5, 60000, 10); /* what comes after it does not wait */
	struct kafka_api_versions_req versions = kafka_api_versions_req_init;
	struct kafka_api_versions_res known;
	ask(fd, KAFKA_API_VERSIONS, 0, 11, &versions);
	answer(fd, KAFKA_FETCH, 11, 10, &res);
	answer(fd, KAFKA_API_VERSIONS, 0, 11, &known);
	fetch(fd, "poll", 5, 60000, 12); /* and one that waits does not keep its connection */
	usleep(50000);
	slice_unref(&b);
	close(other);
	end(fd);
}
END_TEST

enum { MUCH = 1 << 30 }; /* more than loops may have in flight */

static void fill_loops(void *arg)
{
	(void)arg;
	for (int i = 0; i < loops_count(t.loops); i++)
		kafka->loops[i].inflight += MUCH;
}

/* As at the end of a produce. */
static void ease_loop(void *arg)
{
	struct kafka_loop *h = arg;
	struct list *l;
	h->inflight -= MUCH;
	while ((l = list_pop(&h->hungry)) != NULL)
		kafka_pace(list_entry(l, struct kafka_conn, hungry));
}

/* Others have produced as much as their loop may have in flight: the first request, too, waits. */
START_TEST(a_full_loop_reads_nobody)
{
	struct kafka_api_versions_req versions = kafka_api_versions_req_init;
	struct kafka_api_versions_res known;
	int fds[4];
	bool early = false;
	loops_stand_still(t.loops, fill_loops, NULL);
	for (int i = 0; i < 4; i++) {
		fds[i] = dial();
		ask(fds[i], KAFKA_API_VERSIONS, 0, 1, &versions);
	}
	for (int i = 0; i < 4; i++)
		early |= readable(fds[i], 50);
	for (int i = 0; i < loops_count(t.loops); i++)
		loop_call(loops_at(t.loops, i), ease_loop, &kafka->loops[i]);
	for (int i = 0; i < 4; i++) {
		answer(fds[i], KAFKA_API_VERSIONS, 0, 1, &known);
		close(fds[i]);
	}
	ck_assert(!early);
	arena_reset(&arena);
}
END_TEST

/* Java's consumer ends with an exception for some codes: what passes is said so that it asks again.
 */
START_TEST(a_fetch_that_may_be_tried_again_is)
{
	static const enum err passes[] = {
		ERR_UNAVAILABLE, ERR_BUSY, ERR_TIMEOUT, ERR_NOTLEADER, ERR_CLOSED};
	for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++)
		ck_assert_int_eq(kafka_fetch_code(passes[i]), KAFKA_NOT_LEADER);
	ck_assert_int_eq(kafka_fetch_code(ERR_RANGE), KAFKA_OFFSET_OUT_OF_RANGE);
	ck_assert_int_eq(kafka_fetch_code(ERR_IO), KAFKA_STORAGE_ERROR);
}
END_TEST

START_TEST(fetches_that_wait_hold_nothing_up)
{
	int fd = dial();
	struct kafka_fetch_res res;
	struct kafka_api_versions_req versions = kafka_api_versions_req_init;
	struct kafka_api_versions_res known;
	struct slice b = batch_of(10, 1);
	const char *waits = _i == 0 ? "waits-0" : "waits-1";
	const char *written = _i == 0 ? "written-0" : "written-1";
	make_topic(fd, waits);
	make_topic(fd, written);
	for (int i = 1; i <= 3; i++)
		fetch(fd, waits, 0, 3600000, i);
	ck_assert(!readable(fd, 50));
	if (_i == 0)
		ask(fd, KAFKA_API_VERSIONS, 0, 4, &versions);
	else
		produce(fd, written, 7, -1, b.bytes, 4);
	for (int i = 1; i <= 3; i++)
		answer(fd, KAFKA_FETCH, 11, i, &res);
	if (_i == 0)
		answer(fd, KAFKA_API_VERSIONS, 0, 4, &known);
	else
		ck_assert_int_eq(produced(fd, 7, 4, NULL), 0);
	slice_unref(&b);
	end(fd);
}
END_TEST

/* What clients of before Kafka 0.11 write and read: sets of messages, in each version. */
START_TEST(old_clients_write_and_read_message_sets)
{
	int fd = dial();
	struct kafka_fetch_res res;
	struct kafka_set set, one;
	struct slice b = batch_of(500, 4), old;
	size_t inflated;
	int64_t offset;
	make_topic(fd, "old");
	ck_assert_int_eq(kafka_set_write(&b, 1, 0, 1, 1 << 20, &set), OK);
	ck_assert_int_eq(kafka_set_read(set.bytes.bytes, 1 << 20, &old, &inflated), OK);
	for (int16_t v = 0; v < 3; v++) {
		produce(fd, "old", v, -1, set.bytes.bytes, v);
		ck_assert_int_eq(produced(fd, v, v, &offset), 0);
		ck_assert_int_eq(offset, v * 4);
	}
	for (int16_t v = 0; v < 4; v++) {
		ck_assert_int_eq(kafka_set_write(&old, 1, 1, v >= 2, 1, &one), OK);
		fetch_version(fd, "old", v, 5, 1000, 10 + v);
		answer(fd, KAFKA_FETCH, v, 10 + v, &res);
		struct kafka_fetch_res_partition *p = &res.topics[0].partitions[0];
		ck_assert_int_eq(p->error, 0);
		ck_assert_int_eq(p->high_watermark, 12);
		/* Asked for is less than a message: it is one, from where it was asked. */
		ck_assert_uint_eq(p->records.bytes.len, one.bytes.bytes.len);
		ck_assert_uint_eq(get_u64be(p->records.bytes.at), 5);
		ck_assert_mem_eq(
			p->records.bytes.at + 8, one.bytes.bytes.at + 8, one.bytes.bytes.len - 8);
		slice_unref(&one.bytes);
	}
	fetch_version(fd, "old", 12, 5, 1000, 20); /* others see batches */
	answer(fd, KAFKA_FETCH, 12, 20, &res);
	ck_assert_mem_eq(res.topics[0].partitions[0].records.bytes.at + 21, old.bytes.at + 21,
		old.bytes.len - 21);
	fetch_version(fd, "old", 2, 13, 1000, 21);
	answer(fd, KAFKA_FETCH, 2, 21, &res);
	ck_assert_int_eq(res.topics[0].partitions[0].error, 1);
	int64_t began = clock_ms();
	fetch_version(fd, "old", 2, 12, 200, 22);
	answer(fd, KAFKA_FETCH, 2, 22, &res);
	ck_assert_int_ge(clock_ms() - began, 190);
	ck_assert_uint_eq(res.topics[0].partitions[0].records.bytes.len, 0);
	uint8_t *bad = arena_take(&arena, set.bytes.bytes.len);
	memcpy(bad, set.bytes.bytes.at, set.bytes.bytes.len);
	bad[set.bytes.bytes.len - 1] ^= 1;
	produce(fd, "old", 2, -1, bytes_of(bad, set.bytes.bytes.len), 23);
	ck_assert_int_eq(produced(fd, 2, 23, NULL), 2);
	produce(fd, "old", 7, -1, set.bytes.bytes, 24);
	ck_assert_int_eq(produced(fd, 7, 24, NULL), 43);
	slice_unref(&old);
	slice_unref(&set.bytes);
	slice_unref(&b);
	end(fd);
}
END_TEST

/* --- small bounds --- */

enum { UNPACKED_MAX = 200000, FETCHED_MAX = 50000, LARGE = 90000 };

static void boot_small(void)
{
	static const char *const small[] = {"kafka.request_bytes_max", "200000",
		"kafka.first_request_bytes_max", "200000", "kafka.fetch_bytes_max", "50000", NULL};
	boot_with(small);
}

/* What a batch holds, packed: as a batch of today, or as a message set in a message. */
static struct bytes packed(struct slice batch, size_t header, struct bytes what)
{
	struct chunk *c;
	size_t len;
	ck_assert_int_eq(codec_deflate(CODEC_GZIP, what, &c, &len), OK);
	uint8_t *out = arena_take(&arena, header + len);
	memcpy(out, batch.bytes.at, header);
	memcpy(out + header, c->data, len);
	chunk_unref(c);
	return bytes_of(out, header + len);
}

static struct bytes packed_set(struct slice batch)
{
	struct kafka_set plain;
	ck_assert_int_eq(kafka_set_write(&batch, 1, 0, 1, 1 << 20, &plain), OK);
	struct bytes out = packed(batch, 34, plain.bytes.bytes);
	uint8_t *at = arena_take(&arena, out.len);
	memcpy(at, out.at, out.len);
	memset(at, 0, 34);
	put_u32be(at + 8, (uint32_t)out.len - 12);
	at[16] = 1;
	at[17] = CODEC_GZIP;
	put_u32be(at + 26, UINT32_MAX);
	put_u32be(at + 30, (uint32_t)out.len - 34);
	put_u32be(at + 12, (uint32_t)crc32_z(0, at + 16, out.len - 16));
	slice_unref(&plain.bytes);
	return bytes_of(at, out.len);
}

static struct kafka_produce_res *produce_many(int fd, const struct bytes *sets, uint32_t count)
{
	static struct kafka_produce_res res;
	struct kafka_produce_req req = kafka_produce_req_init;
	req.acks = -1;
	req.timeout_ms = 10000;
	req.topics = kafka_array(&arena, &kafka_produce_req_topic_type, 1);
	req.topics_count = 1;
	req.topics[0].name = bytes_text("packed");
	req.topics[0].partitions_count = count;
	req.topics[0].partitions = kafka_array(&arena, &kafka_produce_req_partition_type, count);
	for (uint32_t i = 0; i < count; i++)
		req.topics[0].partitions[i].records.bytes = sets[i];
	ask(fd, KAFKA_PRODUCE, 2, 5, &req);
	answer(fd, KAFKA_PRODUCE, 2, 5, &res);
	ck_assert_uint_eq(res.topics[0].partitions_count, count);
	return &res;
}

/* The sets of a request may not be more, unpacked, than a request may be. What can't be unpacked
 * counts as much as it may have been. */
START_TEST(what_a_request_unpacks_is_bounded)
{
	int fd = dial();
	struct slice large = batch_of(LARGE, 1), tiny = batch_of(10, 1);
	struct bytes set = packed_set(large), cut = packed_set(large), little = packed_set(tiny);
	struct bytes many[] = {set, set, set, little}, bad[] = {cut, cut, little};
	uint8_t *end_of = (uint8_t *)(uintptr_t)cut.at + cut.len - 8; /* gzip's own checksum */
	end_of[0] ^= 1;
	put_u32be(
		(uint8_t *)(uintptr_t)cut.at + 12, (uint32_t)crc32_z(0, cut.at + 16, cut.len - 16));
	make_topic(fd, "packed");
	for (int again = 0; again < 2; again++) {
		struct kafka_produce_res_partition *p =
			produce_many(fd, many, 4)->topics[0].partitions;
		ck_assert_int_eq(p[0].error, 0);
		ck_assert_int_eq(p[1].error, 0);
		ck_assert_int_eq(p[2].error, 10);
		ck_assert_int_eq(p[3].error, 10);
		p = produce_many(fd, bad, 3)->topics[0].partitions;
		ck_assert_int_eq(p[0].error, 2);
		ck_assert_int_eq(p[1].error, 2);
		ck_assert_int_eq(p[2].error, 10);
	}
	slice_unref(&large);
	slice_unref(&tiny);
	end(fd);
}
END_TEST

/* A large record, and a small one behind it, where the client is: what has to be unpacked is more
 * than an answer may be, what is given is little. */
START_TEST(what_an_answer_unpacks_is_bounded)
{
	enum { TIMES = 5 };
	int fd = dial();
	static uint8_t fill[LARGE];
	struct bytes value = bytes_of(fill, LARGE), tiny = bytes_of(fill, 10);
	struct kafka_fetch_req req = kafka_fetch_req_init;
	struct kafka_fetch_res res;
	struct batch_builder b;
	int64_t offset;
	batch_builder_init(&b, 1 << 20);
	ck_assert_int_eq(batch_builder_add(&b, 1000, NULL, &value, NULL, 0), OK);
	ck_assert_int_eq(batch_builder_add(&b, 1000, NULL, &tiny, NULL, 0), OK);
	struct slice s = batch_builder_seal(&b);
	struct bytes batch = packed(s, BATCH_HEADER_BYTES,
		bytes_of(s.bytes.at + BATCH_HEADER_BYTES, s.bytes.len - BATCH_HEADER_BYTES));
	((uint8_t *)(uintptr_t)batch.at)[22] = CODEC_GZIP;
	batch_set_records((uint8_t *)(uintptr_t)batch.at, batch.len, 2, 1000);
	make_topic(fd, "unpacked");
	produce(fd, "unpacked", 7, -1, batch, 1);
	ck_assert_int_eq(produced(fd, 7, 1, &offset), 0);
	req.min_bytes = 1;
	req.max_wait_ms = 1000;
	req.topics_count = 1;
	req.topics = kafka_array(&arena, &kafka_fetch_req_topic_type, 1);
	req.topics[0].name = bytes_text("unpacked");
	req.topics[0].partitions_count = TIMES;
	req.topics[0].partitions = kafka_array(&arena, &kafka_fetch_req_partition_type, TIMES);
	for (int i = 0; i < TIMES; i++) {
		req.topics[0].partitions[i].fetch_offset = offset + 1;
		req.topics[0].partitions[i].max_bytes = 100;
	}
	ask(fd, KAFKA_FETCH, 2, 2, &req);
	answer(fd, KAFKA_FETCH, 2, 2, &res);
	int given = 0;
	for (int i = 0; i < TIMES; i++) {
		struct kafka_fetch_res_partition *p = &res.topics[0].partitions[i];
		ck_assert_int_eq(p->error, 0);
		ck_assert_int_eq(p->high_watermark, offset + 2);
		given += p->records.bytes.len > 0;
	}
	ck_assert_int_eq(given, 1);
	slice_unref(&s);
	batch_builder_fini(&b);
	end(fd);
}
END_TEST

START_TEST(bad_batches_are_refused_each_with_its_code)
{
	int fd = dial();
	make_topic(fd, "bad");
	struct slice b = batch_of(100, 2), large = batch_of(150000, 1);
	uint8_t *copy = arena_take(&arena, b.bytes.len * 2);
	memcpy(copy, b.bytes.at, b.bytes.len);
	memcpy(copy + b.bytes.len, b.bytes.at, b.bytes.len);
	copy[b.bytes.len - 1] ^= 1;
	produce(fd, "bad", 7, -1, bytes_of(copy, b.bytes.len), 1);
	ck_assert_int_eq(produced(fd, 7, 1, NULL), 2);
	copy[b.bytes.len - 1] ^= 1;
	produce(fd, "bad", 7, -1, bytes_of(copy, b.bytes.len * 2), 2);
	ck_assert_int_eq(produced(fd, 7, 2, NULL), 87);
	produce(fd, "bad", 7, -1, large.bytes, 3);
	ck_assert_int_eq(produced(fd, 7, 3, NULL), 10);
	produce(fd, "bad", 2, -1, b.bytes, 4);
	ck_assert_int_eq(produced(fd, 2, 4, NULL), 43);
	copy[16] = 1;
	produce(fd, "bad", 7, -1, bytes_of(copy, b.bytes.len), 5);
	ck_assert_int_eq(produced(fd, 7, 5, NULL), 43);
	produce(fd, "bad", 7, 5, b.bytes, 6);
	ck_assert_int_eq(produced(fd, 7, 6, NULL), 21);
	produce(fd, "nowhere", 7, -1, b.bytes, 7);
	ck_assert_int_eq(produced(fd, 7, 7, NULL), 3);
	produce(fd, "bad", 7, 0, b.bytes, 8); /* no answer */
	int64_t offset;
	produce(fd, "bad", 7, -1, b.bytes, 9);
	ck_assert_int_eq(produced(fd, 7, 9, &offset), 0);
	ck_assert_int_eq(offset, 2); /* nothing of the above is in the log but that */
	produce(fd, "bad", 7, 0, large.bytes, 10);
	ck_assert(is_closed(fd));
	slice_unref(&b);
	slice_unref(&large);
	end(fd);
}
END_TEST

/* Go's sarama leaves the greatest timestamp out: it is set, as Kafka does. */
START_TEST(a_batch_that_does_not_say_its_greatest_time_is_taken)
{
	int fd = dial();
	struct kafka_fetch_res res;
	struct batch got;
	make_topic(fd, "times");
	struct slice b = batch_of(100, 3);
	uint8_t *copy = arena_take(&arena, b.bytes.len);
	memcpy(copy, b.bytes.at, b.bytes.len);
	batch_set_max_time(copy, b.bytes.len, -1);
	produce(fd, "times", 7, -1, bytes_of(copy, b.bytes.len), 1);
	ck_assert_int_eq(produced(fd, 7, 1, NULL), 0);
	fetch(fd, "times", 0, 1000, 2);
	answer(fd, KAFKA_FETCH, 11, 2, &res);
	ck_assert_int_eq(batch_read(res.topics[0].partitions[0].records.bytes, &got), OK);
	ck_assert_int_eq(got.max_ms, 1700000000000);
	ck_assert_int_eq(batch_check(&got, 1 << 20), OK);
	slice_unref(&b);
	end(fd);
}
END_TEST

START_TEST(what_is_no_request_closes_the_connection)
{
	static const struct {
		const char *bytes;
		size_t len;
	} junk[] = {
		{"GET / HTTP/1.1\r\n\r\n", 18},
		{"\x7f\xff\xff\xffxxxxxxxx", 12},
		{"\0\0\0\2\0\x12", 6},
		{"\0\0\0\x0a\0\x63\0\0\0\0\0\1\xff\xff", 14},
		{"\0\0\0\x0c\0\3\0\1\0\0\0\1\xff\xff\0\1", 16},
	};
	int fd = dial();
	ck_assert_int_eq(
		send(fd, junk[_i].bytes, junk[_i].len, MSG_NOSIGNAL), (ssize_t)junk[_i].len);
	ck_assert(is_closed(fd));
	end(fd);
}
END_TEST

/* It can be read, but its answer would take more memory than a request may have. */
START_TEST(a_request_too_large_to_answer_closes_the_connection)
{
	enum { PARTITIONS = 1000000, EACH = 16, HEAD = 44 };
	int fd = dial();
	uint8_t *frame = calloc(1, HEAD + PARTITIONS * EACH);
	struct kafka_api_versions_req hello = kafka_api_versions_req_init;
	struct kafka_api_versions_res res;
	ask(fd, KAFKA_API_VERSIONS, 3, 1, &hello);
	answer(fd, KAFKA_API_VERSIONS, 3, 1, &res);
	struct wr w = wr_over(frame, HEAD);
	wr_u32be(&w, HEAD - 4 + PARTITIONS * EACH);
	wr_u16be(&w, KAFKA_FETCH);
	wr_u16be(&w, 4);
	wr_u32be(&w, 1);
	wr_u16be(&w, UINT16_MAX); /* no client id */
	wr_u32be(&w, UINT32_MAX);
	wr_u32be(&w, 1000); /* max wait */
	wr_u32be(&w, 1);
	wr_u32be(&w, 1 << 20);
	wr_u8(&w, 0);
	wr_u32be(&w, 1);
	wr_u16be(&w, 3);
	wr_bytes(&w, bytes_text("one"));
	wr_u32be(&w, PARTITIONS);
	ck_assert_int_eq(w.err, OK);
	ck_assert_uint_eq(wr_len(&w), HEAD);
	for (size_t sent = 0, all = HEAD + PARTITIONS * EACH; sent < all;) {
		ssize_t n = send(fd, frame + sent, all - sent, MSG_NOSIGNAL);
		ck_assert_int_gt(n, 0);
		sent += (size_t)n;
	}
	ck_assert(is_closed(fd));
	free(frame);
	end(fd);
}
END_TEST

START_TEST(everything_offered_can_be_spoken)
{
	int fd = dial();
	struct kafka_api_versions_req req = kafka_api_versions_req_init;
	struct kafka_api_versions_res res;
	ask(fd, KAFKA_API_VERSIONS, 3, 1, &req);
	answer(fd, KAFKA_API_VERSIONS, 3, 1, &res);
	ck_assert_uint_gt(res.apis_count, 25);
	for (uint32_t i = 0; i < res.apis_count; i++) {
		const struct kafka_api *api = kafka_api_find(res.apis[i].key);
		ck_assert_ptr_nonnull(api);
		ck_assert(kafka_api_has(api, res.apis[i].min));
		ck_assert(kafka_api_has(api, res.apis[i].max));
		for (int16_t v = res.apis[i].min; v <= res.apis[i].max; v++) {
			int one = dial(); /* an empty request of every version gets an answer */
			void *empty = arena_take(&arena, api->request->size);
			void *got = arena_take(&arena, api->response->size);
			memcpy(empty, api->request->initial, api->request->size);
			if (res.apis[i].key == KAFKA_PRODUCE)
				((struct kafka_produce_req *)empty)->acks = 1;
			ask(one, api->key, v, v, empty);
			answer(one, api->key, v, v, got);
			close(one);
		}
		arena_reset(&arena);
		if (i + 1 < res.apis_count) {
			ask(fd, KAFKA_API_VERSIONS, 3, 2, &req);
			answer(fd, KAFKA_API_VERSIONS, 3, 2, &res);
		}
	}
	end(fd);
}
END_TEST

static void boot_impatient(void)
{
	boot_with((const char *[]){
		"kafka.request_ms", "1s", "kafka.inflight_bytes_max", "64KiB", NULL});
}

/* A request that comes in two parts and is so large that its connection is not read until it is
 * done: it has come in time, and the connection may idle after it. */
START_TEST(a_request_that_has_come_is_not_late)
{
	static uint8_t frame[91000];
	enum { FIRST = 600 };
	int fd = dial(), pair[2];
	struct slice b = batch_of(90000, 1);
	ssize_t len;
	make_topic(fd, "parts");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	produce(pair[0], "parts", 7, -1, b.bytes, 1);
	close(pair[0]);
	len = recv(pair[1], frame, sizeof frame, MSG_WAITALL);
	close(pair[1]);
	ck_assert_int_gt(len, (ssize_t)b.bytes.len);
	ck_assert_int_eq(send(fd, frame, FIRST, MSG_NOSIGNAL), FIRST);
	ck_assert(!readable(fd, 50));
	ck_assert_int_eq(send(fd, frame + FIRST, (size_t)len - FIRST, MSG_NOSIGNAL), len - FIRST);
	ck_assert_int_eq(produced(fd, 7, 1, NULL), 0);
	ck_assert(!readable(fd, 2000)); /* it is not closed */
	produce(fd, "parts", 7, -1, b.bytes, 2);
	ck_assert_int_eq(produced(fd, 7, 2, NULL), 0);
	slice_unref(&b);
	end(fd);
}
END_TEST

START_TEST(producers_get_ids_of_their_own)
{
	int fd = dial();
	int64_t before = -1;
	struct kafka_init_producer_id_req req = kafka_init_producer_id_req_init;
	struct kafka_init_producer_id_res res;
	for (int i = 0; i < 1500; i++) {
		ask(fd, KAFKA_INIT_PRODUCER_ID, 1, i, &req);
		answer(fd, KAFKA_INIT_PRODUCER_ID, 1, i, &res);
		ck_assert_int_eq(res.error, 0);
		ck_assert_int_gt(res.producer_id, before);
		before = res.producer_id;
		arena_reset(&arena);
	}
	req.transactional_id = bytes_text("tx");
	ask(fd, KAFKA_INIT_PRODUCER_ID, 1, 1, &req);
	answer(fd, KAFKA_INIT_PRODUCER_ID, 1, 1, &res);
	ck_assert_int_eq(res.error, 53);
	end(fd);
}
END_TEST

START_TEST(offsets_are_kept_by_group)
{
	int fd = dial();
	make_topic(fd, "offsets");
	for (int i = 0; i < 3; i++) {
		struct kafka_offset_commit_req c = kafka_offset_commit_req_init;
		struct kafka_offset_commit_res done;
		c.group_id = bytes_text("app");
		c.topics = kafka_array(&arena, &kafka_offset_commit_req_topic_type, 1);
		c.topics_count = 1;
		c.topics[0].name = bytes_text("offsets");
		c.topics[0].partitions = kafka_array(
			&arena, &kafka_offset_commit_req_partition_type, 2);
		c.topics[0].partitions_count = 2;
		c.topics[0].partitions[0].offset = 100 + i;
		c.topics[0].partitions[0].metadata = bytes_text("note");
		c.topics[0].partitions[1].index = 7; /* not there */
		ask(fd, KAFKA_OFFSET_COMMIT, 5, i, &c);
		answer(fd, KAFKA_OFFSET_COMMIT, 5, i, &done);
		ck_assert_int_eq(done.topics[0].partitions[0].error, 0);
		ck_assert_int_eq(done.topics[0].partitions[1].error, 3);
	}
	struct kafka_offset_fetch_req f = kafka_offset_fetch_req_init;
	struct kafka_offset_fetch_res found;
	f.group_id = bytes_text("app");
	f.topics = NULL;
	ask(fd, KAFKA_OFFSET_FETCH, 5, 9, &f);
	answer(fd, KAFKA_OFFSET_FETCH, 5, 9, &found);
	ck_assert_uint_eq(found.topics_count, 1);
	ck_assert(bytes_equal(found.topics[0].name, bytes_text("offsets")));
	ck_assert_uint_eq(found.topics[0].partitions_count, 1);
	ck_assert_int_eq(found.topics[0].partitions[0].offset, 102);
	ck_assert(bytes_equal(found.topics[0].partitions[0].metadata, bytes_text("note")));
	end(fd);
}
END_TEST

/* A client that waits for its share is told to join again; that one may be told to wait. */
START_TEST(who_syncs_without_a_coordinator_joins_again)
{
	struct kafka_sync_group_req sync = kafka_sync_group_req_init;
	struct kafka_sync_group_res shared;
	struct kafka_join_group_req join = kafka_join_group_req_init;
	struct kafka_join_group_res joined;
	struct kafka_join_group_req_protocol range = {bytes_text("range"), bytes_text("m")};
	boot();
	int fd = dial();
	groups_stop(kafka_groups(kafka)); /* as without a leader: they can't be asked */
	sync.group_id = join.group_id = bytes_text("app");
	sync.member_id = bytes_text("m-1");
	ask(fd, KAFKA_SYNC_GROUP, 3, 1, &sync);
	answer(fd, KAFKA_SYNC_GROUP, 3, 1, &shared);
	ck_assert_int_eq(shared.error, 27);
	join.session_timeout_ms = join.rebalance_timeout_ms = 10000;
	join.protocol_type = bytes_text("consumer");
	join.protocols = &range;
	join.protocols_count = 1;
	ask(fd, KAFKA_JOIN_GROUP, 5, 2, &join);
	answer(fd, KAFKA_JOIN_GROUP, 5, 2, &joined);
	ck_assert_int_eq(joined.error, 14);
	end(fd);
	down();
}
END_TEST

/* Little memory for requests: what a short one makes of what is stored is counted, too. */
static void boot_tight(void)
{
	const char *const tight[] = {"kafka.loop_held_bytes_max", "1MiB", NULL};
	boot_with(tight);
}

enum { NOTE_BYTES = 4000, METADATA_BYTES = 30000, NAMES = 500 };

static void commit_notes(int fd, const char *topic)
{
	static uint8_t note[NOTE_BYTES];
	struct kafka_offset_commit_req c = kafka_offset_commit_req_init;
	struct kafka_offset_commit_res done;
	memset(note, 'n', sizeof note);
	c.group_id = bytes_text("app");
	c.topics = kafka_array(&arena, &kafka_offset_commit_req_topic_type, 1);
	c.topics_count = 1;
	c.topics[0].name = bytes_text(topic);
	c.topics[0].partitions_count = 2;
	c.topics[0].partitions = kafka_array(&arena, &kafka_offset_commit_req_partition_type, 2);
	for (int i = 0; i < 2; i++) {
		c.topics[0].partitions[i].index = i;
		c.topics[0].partitions[i].offset = 7 + i;
		c.topics[0].partitions[i].metadata = bytes_of(note, sizeof note);
	}
	ask(fd, KAFKA_OFFSET_COMMIT, 5, 1, &c);
	answer(fd, KAFKA_OFFSET_COMMIT, 5, 1, &done);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(done.topics[0].partitions[i].error, 0);
}

/* So many groups, all of them "app". */
static struct kafka_offset_fetch_req offsets_of(uint32_t count)
{
	struct kafka_offset_fetch_req f = kafka_offset_fetch_req_init;
	f.groups = kafka_array(&arena, &kafka_offset_fetch_req_group_type, count);
	f.groups_count = count;
	for (uint32_t i = 0; i < count; i++) {
		f.groups[i].group_id = bytes_text("app");
		f.groups[i].topics = NULL;
	}
	return f;
}

START_TEST(offsets_of_many_groups_are_bounded)
{
	struct kafka_offset_fetch_res res;
	struct kafka_offset_fetch_req_topic topic = {0};
	int32_t partition = 1;
	int fd = dial(), other = dial();
	make_topic(fd, "notes");
	commit_notes(fd, "notes");
	struct kafka_offset_fetch_req f = offsets_of(3);
	f.groups[1].group_id = bytes_text("nobody");
	topic.name = bytes_text("notes");
	topic.partitions = &partition;
	topic.partitions_count = 1;
	f.groups[2].topics = &topic;
	f.groups[2].topics_count = 1;
	ask(fd, KAFKA_OFFSET_FETCH, 8, 2, &f);
	answer(fd, KAFKA_OFFSET_FETCH, 8, 2, &res);
	ck_assert_uint_eq(res.groups_count, 3);
	ck_assert_uint_eq(res.groups[0].topics[0].partitions_count, 2);
	ck_assert_int_eq(res.groups[0].topics[0].partitions[1].offset, 8);
	ck_assert(bytes_equal(res.groups[1].group_id, bytes_text("nobody")));
	ck_assert_uint_eq(res.groups[1].topics_count, 0);
	ck_assert_uint_eq(res.groups[2].topics[0].partitions_count, 1);
	ck_assert_int_eq(res.groups[2].topics[0].partitions[0].offset, 8);
	ck_assert_uint_eq(res.groups[2].topics[0].partitions[0].metadata.len, NOTE_BYTES);
	f = offsets_of(NAMES);
	ask(other, KAFKA_OFFSET_FETCH, 8, 3, &f);
	ck_assert(is_closed(other));
	f = offsets_of(1); /* others go on */
	ask(fd, KAFKA_OFFSET_FETCH, 8, 4, &f);
	answer(fd, KAFKA_OFFSET_FETCH, 8, 4, &res);
	ck_assert_int_eq(res.groups[0].error, 0);
	close(other);
	end(fd);
}
END_TEST

static void join_app(int fd)
{
	static uint8_t metadata[METADATA_BYTES];
	struct kafka_join_group_req join = kafka_join_group_req_init;
	struct kafka_join_group_res joined;
	struct kafka_join_group_req_protocol range = {
		bytes_text("range"), bytes_of(metadata, sizeof metadata)};
	join.group_id = bytes_text("app");
	join.session_timeout_ms = join.rebalance_timeout_ms = 60000;
	join.protocol_type = bytes_text("consumer");
	join.protocols = &range;
	join.protocols_count = 1;
	ask(fd, KAFKA_JOIN_GROUP, 3, 1, &join);
	answer(fd, KAFKA_JOIN_GROUP, 3, 1, &joined);
	ck_assert_int_eq(joined.error, 0);
}

START_TEST(descriptions_of_many_groups_are_bounded)
{
	static struct bytes names[NAMES];
	struct kafka_describe_groups_req req = kafka_describe_groups_req_init;
	struct kafka_describe_groups_res res;
	int fd = dial(), other = dial();
	join_app(fd);
	for (int i = 0; i < NAMES; i++)
		names[i] = bytes_text("app");
	names[1] = bytes_text("nobody");
	req.groups = names;
	req.groups_count = 3;
	ask(fd, KAFKA_DESCRIBE_GROUPS, 4, 2, &req);
	answer(fd, KAFKA_DESCRIBE_GROUPS, 4, 2, &res);
	ck_assert_uint_eq(res.groups_count, 3);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(res.groups[i].error, 0);
		ck_assert(bytes_equal(res.groups[i].group_id, names[i]));
		ck_assert_uint_eq(res.groups[i].members_count, i != 1);
	}
	ck_assert(bytes_equal(res.groups[1].state, bytes_text("Dead")));
	ck_assert(bytes_equal(res.groups[2].protocol_type, bytes_text("consumer")));
	ck_assert(bytes_equal(res.groups[2].members[0].client_id, bytes_text("test")));
	ck_assert_uint_eq(res.groups[2].members[0].metadata.len, METADATA_BYTES);
	req.groups_count = NAMES;
	ask(other, KAFKA_DESCRIBE_GROUPS, 4, 3, &req);
	ck_assert(is_closed(other));
	req.groups_count = 1; /* others go on */
	ask(fd, KAFKA_DESCRIBE_GROUPS, 4, 4, &req);
	answer(fd, KAFKA_DESCRIBE_GROUPS, 4, 4, &res);
	ck_assert_uint_eq(res.groups[0].members_count, 1);
	close(other);
	end(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka");
	TCase *tc = tcase_create("door");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, boot, down);
	tcase_add_test(tc, pipelined_requests_are_answered_in_order);
	tcase_add_test(tc, who_asks_while_a_topic_is_made_waits_for_it);
	tcase_add_test(tc, what_is_stored_is_what_was_sent);
	tcase_add_test(tc, an_answer_keeps_its_bound);
	tcase_add_test(tc, a_fetch_that_has_no_room_for_more_does_not_wait);
	tcase_add_test(tc, a_fetch_waits_for_records_and_for_no_longer);
	tcase_add_test(tc, a_full_loop_reads_nobody);
	tcase_add_test(tc, a_fetch_that_may_be_tried_again_is);
	tcase_add_loop_test(tc, fetches_that_wait_hold_nothing_up, 0, 2);
	tcase_add_test(tc, old_clients_write_and_read_message_sets);
	tcase_add_test(tc, bad_batches_are_refused_each_with_its_code);
	tcase_add_test(tc, a_batch_that_does_not_say_its_greatest_time_is_taken);
	tcase_add_loop_test(tc, what_is_no_request_closes_the_connection, 0, 5);
	tcase_add_test(tc, a_request_too_large_to_answer_closes_the_connection);
	tcase_add_test(tc, everything_offered_can_be_spoken);
	tcase_add_test(tc, producers_get_ids_of_their_own);
	tcase_add_test(tc, offsets_are_kept_by_group);
	suite_add_tcase(s, tc);
	TCase *small = tcase_create("small bounds");
	tcase_set_timeout(small, 60);
	tcase_add_unchecked_fixture(small, boot_small, down);
	tcase_add_test(small, what_a_request_unpacks_is_bounded);
	tcase_add_test(small, what_an_answer_unpacks_is_bounded);
	suite_add_tcase(s, small);
	TCase *groups = tcase_create("groups");
	tcase_set_timeout(groups, 60);
	tcase_add_test(groups, who_syncs_without_a_coordinator_joins_again);
	suite_add_tcase(s, groups);
	TCase *tight = tcase_create("tight");
	tcase_set_timeout(tight, 60);
	tcase_add_unchecked_fixture(tight, boot_tight, down);
	tcase_add_test(tight, offsets_of_many_groups_are_bounded);
	tcase_add_test(tight, descriptions_of_many_groups_are_bounded);
	suite_add_tcase(s, tight);
	TCase *impatient = tcase_create("short times");
	tcase_set_timeout(impatient, 60);
	tcase_add_unchecked_fixture(impatient, boot_impatient, down);
	tcase_add_test(impatient, a_request_that_has_come_is_not_late);
	suite_add_tcase(s, impatient);
	SRunner *run = srunner_create(s);
	srunner_set_fork_status(run, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
