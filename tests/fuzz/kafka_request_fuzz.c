/* What a client's bytes meet before the broker: the input is taken for what a connection has read,
 * frame after frame, as the door would. Requests of what is served are decoded with the bounds of
 * a request, their arrays walked, and the batches in produce requests checked and walked like those
 * that are stored. What was admitted must be readable by everyone who reads. */
#include "protocols/kafka/kafka_priv.h"
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

static void produced(struct bytes records)
{
	struct batch b;
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
