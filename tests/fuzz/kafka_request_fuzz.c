/* What a client's bytes meet before the broker: the input is taken for what a connection has read,
 * frame after frame, as the door would. Requests of what is served are decoded with the bounds of
 * a request, their arrays walked, and the batches in produce requests checked and walked like those
 * that are stored. What was admitted must be readable by everyone who reads. */
#include "protocols/kafka/kafka_priv.h"
#include "protocols/kafka/kafka_set.h"
#include <zlib.h>
#include "storage/record_batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGE_BYTES_MAX = 1024, ARENA_MAX = 1 << 24, FRAMES_MAX = 64 };

static const struct kafka_handler *served(int key, int version)
{
	for (int i = 0; i < kafka_handlers_count; i++)
		if (kafka_handlers[i].key == key && version >= kafka_handlers[i].first &&
			version <= kafka_handlers[i].last)
			return &kafka_handlers[i];
	return NULL;
}

static void walk_headers(const struct record *r)
{
	struct bytes rest = r->headers;
	struct record_header h;
	for (int32_t i = 0; i < r->header_count; i++)
		must(record_header_next(&rest, &h) == OK);
	must(rest.len == 0);
}

/* A batch that passed: each reader's way through it must end well, at the count it states. */
static void walk_admitted(const struct batch *b)
{
	struct batch_walk w;
	struct record r;
	int32_t count = 0;
	enum err e;
	must(batch_walk_init(&w, b, BATCH_INFLATED_MAX) == OK);
	for (; (e = batch_walk_next(&w, &r)) == OK; count++) {
		must(r.offset_delta == count);
		walk_headers(&r);
	}
	must(e == ERR_NOTFOUND);
	must(count == b->count);
	batch_walk_fini(&w);
}

/* What was admitted as a message set must be a batch, and give the same batch as a set again. */
static void produced_set(struct bytes records)
{
	enum { BYTES_MAX = 1 << 20 };
	struct slice batch, again;
	struct kafka_set set;
	struct batch b;
	size_t inflated;
	if (kafka_set_read(records, BYTES_MAX, &batch, &inflated) != OK)
		return;
	must(inflated <= BYTES_MAX && batch.bytes.len <= BYTES_MAX);
	must(batch_read(batch.bytes, &b) == OK && batch_check(&b, BATCH_INFLATED_MAX) == OK);
	must(kafka_set_write(&batch, 1, 0, 1, (size_t)64 << 20, &set) == OK);
	must(set.count == (uint32_t)b.count);
	must(kafka_set_read(set.bytes.bytes, BYTES_MAX, &again, &inflated) == OK);
	must(bytes_equal(batch.bytes, again.bytes));
	slice_unref(&again);
	slice_unref(&set.bytes);
	slice_unref(&batch);
}

/* The mutator does not know checksums: messages have theirs made right, as far as they go. */
static void produced_set_mended(struct bytes records)
{
	struct slice own;
	if (records.len == 0 || slice_copy(records, &own) != OK)
		return;
	uint8_t *at = own.chunk->data;
	for (size_t left = records.len; left > 16;) {
		size_t len = get_u32be(at + 8);
		if (len < 4 || len > left - 12)
			break;
		put_u32be(at + 12, (uint32_t)crc32_z(0, at + 16, len - 4));
		at += 12 + len;
		left -= 12 + len;
	}
	produced_set(own.bytes);
	slice_unref(&own);
}

static void produced(struct bytes records)
{
	struct batch b;
	produced_set_mended(records);
	if (batch_read(records, &b) != OK)
		return;
	if (batch_check(&b, BATCH_INFLATED_MAX) == OK)
		walk_admitted(&b);
	/* The mutator does not know checksums: the records also as if it were right. */
	struct batch_walk w;
	struct record r;
	if (batch_walk_init(&w, &b, 1 << 20) != OK)
		return;
	while (batch_walk_next(&w, &r) == OK) {
		struct record_header h;
		(void)!record_header_find(&r, "mqtt.topic", &h);
	}
	batch_walk_fini(&w);
}

static void walk_produce(const struct kafka_produce_req *req)
{
	for (uint32_t i = 0; i < req->topics_count; i++)
		for (uint32_t n = 0; n < req->topics[i].partitions_count; n++)
			produced(req->topics[i].partitions[n].records.bytes);
}

static enum err request(struct bytes frame)
{
	_Alignas(8) uint8_t message[MESSAGE_BYTES_MAX];
	struct kafka_header h;
	struct arena arena;
	enum err e = kafka_header_read(frame, &h);
	if (e != OK)
		return e;
	if (served(h.key, h.version) == NULL)
		return ERR_UNSUPPORTED;
	must(h.api->request->size <= MESSAGE_BYTES_MAX);
	arena_init(&arena, ARENA_MAX);
	e = kafka_decode(h.api, h.version, true, h.body, &arena, message);
	must(e == OK || e == ERR_MALFORMED || e == ERR_TOOBIG);
	must(arena.held <= ARENA_MAX);
	if (e == OK && h.key == KAFKA_PRODUCE)
		walk_produce((const void *)message);
	arena_fini(&arena);
	return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rd r = rd_over(bytes_of(data, size));
	for (int i = 0; i < FRAMES_MAX && rd_left(&r) >= 4; i++) {
		uint32_t len = rd_u32be(&r);
		if (len > rd_left(&r))
			break;
		if (request(rd_take(&r, len)) != OK)
			break;
	}
	produced(bytes_of(data, size));
	return 0;
}
