/* Three sources of messages: vectors made outside this program (tests/vectors/kafka: direction,
 * version, bytes, the values in the order of the wire), messages filled at random from the same
 * tables, and single ones written here by hand for one rule each. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include "protocols/kafka/kafka_print.h"
#include "protocols/kafka/kafka_schema.h"
#include "server/base/mem.h"

#define VECTORS "tests/vectors/kafka"
#define B(...)                                                                                     \
	((struct bytes){(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})})

enum { ARENA_MAX = 1 << 22, OUT_MAX = 1 << 22, LINE_MAX_BYTES = 1 << 20 };

static struct arena arena;
static struct buf out, text, again;
static void *message, *other; /* room for any C struct */

static void setup(void)
{
	size_t size = 0;
	for (int i = 0; i < kafka_apis_count; i++) {
		const struct kafka_api *a = kafka_apis[i];
		size = a->request->size > size ? a->request->size : size;
		size = a->response && a->response->size > size ? a->response->size : size;
	}
	message = mem_new(size);
	other = mem_new(size);
	arena_init(&arena, ARENA_MAX);
	buf_init(&out, OUT_MAX);
	buf_init(&text, OUT_MAX);
	buf_init(&again, OUT_MAX);
}

static void teardown(void)
{
	mem_fail_at(-1);
	arena_fini(&arena);
	buf_fini(&out);
	buf_fini(&text);
	buf_fini(&again);
	mem_free(message);
	mem_free(other);
}

/* Vectors. */

struct vector {
	const struct kafka_api *api;
	int version;
	bool request;
	struct bytes bytes, values; /* bytes: a heap block of exactly that size */
};

static struct bytes from_hex(const char *hex)
{
	size_t len = *hex == '-' ? 0 : strlen(hex) / 2;
	uint8_t *at = malloc(len ? len : 1);
	for (size_t i = 0; i < len; i++) {
		char two[3] = {hex[2 * i], hex[2 * i + 1], 0};
		at[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return bytes_of(at, len);
}

static int each_line(const struct kafka_api *api, void (*check)(const struct vector *v))
{
	char path[256];
	snprintf(path, sizeof path, VECTORS "/%s.txt", api->name);
	FILE *f = fopen(path, "r");
	ck_assert_msg(f != NULL, "no vectors: %s", path);
	char *line = mem_new(LINE_MAX_BYTES);
	int lines = 0;
	while (fgets(line, LINE_MAX_BYTES, f)) {
		char *save;
		const char *way = strtok_r(line, " ", &save);
		const char *version = strtok_r(NULL, " ", &save);
		const char *hex = strtok_r(NULL, " ", &save);
		const char *values = strtok_r(NULL, "\n", &save);
		ck_assert_ptr_nonnull(values);
		struct vector v = {api, (int)strtol(version, NULL, 10),
			strcmp(way, "response") != 0, from_hex(hex), bytes_text(values)};
		check(&v);
		free((void *)(uintptr_t)v.bytes.at);
		lines++;
	}
	fclose(f);
	mem_free(line);
	return lines;
}

static void each_vector(void (*check)(const struct vector *v))
{
	for (int i = 0; i < kafka_apis_count; i++) {
		int versions = kafka_apis[i]->last - kafka_apis[i]->first + 1;
		/* Two vectors for each version and direction, but for the newest of Produce. */
		ck_assert_int_ge(each_line(kafka_apis[i], check), versions);
	}
}

/* Drops the names from printed text: what stands before an = goes. */
static struct bytes values_only(struct buf *b)
{
	uint8_t *at = b->chunk->data + b->start;
	size_t len = 0;
	for (size_t i = 0; i < buf_len(b); i++) {
		uint8_t c = at[i];
		at[len++] = c;
		if (c != '=')
			continue;
		for (len--; len > 0 && at[len - 1] != '{' && at[len - 1] != ',';)
			len--;
	}
	return bytes_of(at, len);
}

static void vector_is_read_and_written(const struct vector *v)
{
	arena_reset(&arena);
	buf_clear(&out);
	buf_clear(&text);
	enum err e = kafka_decode(v->api, v->version, v->request, v->bytes, &arena, message);
	ck_assert_msg(e == OK, "%s %d %d: %s", v->api->name, v->version, v->request, err_text(e));
	kafka_print(v->api, v->version, v->request, message, &text);
	struct bytes values = values_only(&text);
	ck_assert_msg(bytes_equal(values, v->values), "%s %d: %.*s\nis not %.*s", v->api->name,
		v->version, (int)values.len, (const char *)values.at, (int)v->values.len,
		(const char *)v->values.at);
	ck_assert_int_eq(kafka_encode(v->api, v->version, v->request, message, &out), OK);
	ck_assert(bytes_equal(buf_bytes(&out), v->bytes));
}

START_TEST(reads_and_writes_vectors)
{
	each_vector(vector_is_read_and_written);
}
END_TEST

static void prefixes_are_refused(const struct vector *v)
{
	for (size_t len = 0; len < v->bytes.len; len++) {
		uint8_t *exact = malloc(len ? len : 1);
		memcpy(exact, v->bytes.at, len);
		arena_reset(&arena);
		ck_assert_int_eq(kafka_decode(v->api, v->version, v->request, bytes_of(exact, len),
					 &arena, message),
			ERR_MALFORMED);
		free(exact);
	}
}

START_TEST(refuses_every_short_input)
{
	each_vector(prefixes_are_refused);
}
END_TEST

static void a_byte_more_is_refused(const struct vector *v)
{
	uint8_t *longer = malloc(v->bytes.len + 1);
	memcpy(longer, v->bytes.at, v->bytes.len);
	longer[v->bytes.len] = 0;
	arena_reset(&arena);
	ck_assert_int_eq(kafka_decode(v->api, v->version, v->request,
				 bytes_of(longer, v->bytes.len + 1), &arena, message),
		ERR_MALFORMED);
	free(longer);
}

START_TEST(refuses_bytes_left_over)
{
	each_vector(a_byte_more_is_refused);
}
END_TEST

/* Writes message and reads it back into other: nothing the version has may differ. */
static void assert_round_trip(const struct kafka_api *api, int version, bool request)
{
	buf_clear(&out);
	buf_clear(&text);
	buf_clear(&again);
	ck_assert_int_eq(kafka_encode(api, version, request, message, &out), OK);
	enum err e = kafka_decode(api, version, request, buf_bytes(&out), &arena, other);
	ck_assert_msg(e == OK, "%s %d %d: %s", api->name, version, request, err_text(e));
	kafka_print(api, version, request, message, &text);
	kafka_print(api, version, request, other, &again);
	ck_assert_msg(bytes_equal(buf_bytes(&text), buf_bytes(&again)), "%s %d\n%.*s\n%.*s",
		api->name, version, (int)buf_len(&text), (const char *)buf_bytes(&text).at,
		(int)buf_len(&again), (const char *)buf_bytes(&again).at);
}

static void mutants_do_no_harm(const struct vector *v)
{
	static const uint8_t masks[] = {0x01, 0x80, 0xff};
	uint8_t *mutant = malloc(v->bytes.len + 1);
	for (size_t at = 0; at < v->bytes.len; at++)
		for (size_t m = 0; m < sizeof masks; m++) {
			memcpy(mutant, v->bytes.at, v->bytes.len);
			mutant[at] ^= masks[m];
			arena_reset(&arena);
			enum err e = kafka_decode(v->api, v->version, v->request,
				bytes_of(mutant, v->bytes.len), &arena, message);
			ck_assert(e == OK || e == ERR_MALFORMED);
			if (e == OK)
				assert_round_trip(v->api, v->version, v->request);
		}
	free(mutant);
}

START_TEST(survives_mutated_bytes)
{
	each_vector(mutants_do_no_harm);
}
END_TEST

/* Messages at random. */

static uint64_t dice_state;

static uint32_t dice(uint32_t sides)
{
	dice_state = dice_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(dice_state >> 33) % sides;
}

static struct bytes random_bytes(bool nullable)
{
	if (nullable && dice(3) == 0)
		return bytes_of(NULL, 0);
	uint32_t len = dice(8) == 0 ? dice(400) : dice(9);
	uint8_t *at = arena_take(&arena, len + 1);
	for (uint32_t i = 0; i < len; i++)
		at[i] = (uint8_t)dice(256);
	return bytes_of(at, len);
}

static void fill(const struct kafka_struct *s, int version, uint8_t *to);

static void fill_value(const struct kafka_field *f, int version, bool nullable, uint8_t *to)
{
	uint64_t bits = (uint64_t)dice(1u << 31) << 33 ^ (uint64_t)dice(1u << 31) << 8 ^ dice(256);
	double number = (double)dice(100000) / 8;
	struct kafka_records records = {0};
	struct bytes bytes;
	switch ((enum kafka_type)f->type) {
	case KAFKA_BOOL: *(bool *)to = dice(2); break;
	case KAFKA_I8: memcpy(to, &bits, 1); break;
	case KAFKA_I16:
	case KAFKA_U16: memcpy(to, &bits, 2); break;
	case KAFKA_I32: memcpy(to, &bits, 4); break;
	case KAFKA_I64: memcpy(to, &bits, 8); break;
	case KAFKA_F64: memcpy(to, &number, 8); break;
	case KAFKA_UUID: memcpy(to, &bits, 8); break;
	case KAFKA_STRING:
	case KAFKA_BYTES:
		bytes = random_bytes(nullable);
		memcpy(to, &bytes, sizeof bytes);
		break;
	case KAFKA_RECORDS:
		records.bytes = random_bytes(nullable);
		memcpy(to, &records, sizeof records);
		break;
	case KAFKA_STRUCT: fill(f->of, version, to); break;
	}
}

static void fill(const struct kafka_struct *s, int version, uint8_t *to)
{
	memcpy(to, s->initial, s->size);
	for (uint32_t i = 0; i < s->count; i++) {
		const struct kafka_field *f = &s->fields[i];
		bool nullable = version >= f->null_from && version <= f->null_to;
		if (version < f->from || version > f->to || (f->tag >= 0 && dice(2)))
			continue;
		if (!f->array) {
			fill_value(f, version, nullable, to + f->at);
			continue;
		}
		uint32_t count = dice(4);
		/* Values of 16 bytes are the largest but for structs. */
		size_t size = f->of               ? f->of->size
			: f->type == KAFKA_STRING ? sizeof(struct bytes)
			: f->type == KAFKA_I64    ? 8
			: f->type == KAFKA_I32    ? 4
						  : 0;
		ck_assert_uint_gt(size, 0);
		uint8_t *items = arena_take(&arena, count * size + 1);
		for (uint32_t n = 0; n < count; n++)
			fill_value(f, version, false, items + n * size);
		if (count == 0 && nullable && dice(2))
			items = NULL;
		memcpy(to + f->at, &items, sizeof items);
		memcpy(to + f->count_at, &count, sizeof count);
	}
}

START_TEST(round_trips_of_random_messages)
{
	const struct kafka_api *api = kafka_apis[_i];
	for (int version = api->first; version <= api->last; version++)
		for (int round = 0; round < 40; round++) {
			bool request = round % 2 == 0 || !api->response;
			dice_state = (uint64_t)(_i * 10000 + version * 100 + round);
			arena_reset(&arena);
			fill(request ? api->request : api->response, version, message);
			assert_round_trip(api, version, request);
		}
}
END_TEST

/* Rules, one by one. */

START_TEST(finds_apis_by_key)
{
	ck_assert_ptr_eq(kafka_api_find(KAFKA_FETCH), &kafka_api_fetch);
	ck_assert_ptr_null(kafka_api_find(-1));
	ck_assert_ptr_null(kafka_api_find(4));
	ck_assert_ptr_null(kafka_api_find(66 + 1));
	ck_assert_ptr_null(kafka_api_find(INT16_MAX));
	ck_assert(kafka_api_has(&kafka_api_list_offsets, 1));
	ck_assert(!kafka_api_has(&kafka_api_list_offsets, 0));
	ck_assert(!kafka_api_has(&kafka_api_fetch, 18));
	ck_assert_int_eq(kafka_decode(&kafka_api_list_offsets, 0, true, B(0), &arena, message),
		ERR_UNSUPPORTED);
	ck_assert_int_eq(kafka_encode(&kafka_api_fetch, 18, true, &kafka_fetch_req_init, &out),
		ERR_UNSUPPORTED);
}
END_TEST

START_TEST(reads_request_headers)
{
	static const uint8_t plain[] = {0, 3, 0, 1, 0, 0, 0, 7, 0, 1, 'c', 9, 9};
	static const uint8_t tagged[] = {0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 2, 1, 2, 8};
	struct kafka_header h;
	/* Metadata 1, correlation 7, client "c": the header without tagged fields. */
	ck_assert_int_eq(kafka_header_read(bytes_of(plain, sizeof plain), &h), OK);
	ck_assert_ptr_eq(h.api, &kafka_api_metadata);
	ck_assert_int_eq(h.version, 1);
	ck_assert_int_eq(h.correlation, 7);
	ck_assert(bytes_equal(h.client_id, bytes_text("c")));
	ck_assert(bytes_equal(h.body, B(9, 9)));
	/* Metadata 9: tagged fields follow the client's id; here null, and one unknown tag. */
	ck_assert_int_eq(kafka_header_read(bytes_of(tagged, sizeof tagged), &h), OK);
	ck_assert_ptr_null(h.client_id.at);
	ck_assert(bytes_equal(h.body, B(8)));
	ck_assert_int_eq(kafka_header_read(B(0, 3, 0, 9, 0, 0, 0, 7, 0, 9), &h), ERR_MALFORMED);
	ck_assert_int_eq(kafka_header_read(B(0, 3, 0, 9), &h), ERR_MALFORMED);
}
END_TEST

START_TEST(names_what_it_does_not_support)
{
	struct kafka_header h;
	ck_assert_int_eq(kafka_header_read(B(0, 18, 0, 99, 0, 0, 0, 5), &h), ERR_UNSUPPORTED);
	ck_assert_int_eq(h.key, KAFKA_API_VERSIONS);
	ck_assert_int_eq(h.version, 99);
	ck_assert_int_eq(h.correlation, 5);
	ck_assert_ptr_eq(h.api, &kafka_api_api_versions);
	ck_assert_int_eq(kafka_header_read(B(0, 4, 0, 0, 0, 0, 0, 6), &h), ERR_UNSUPPORTED);
	ck_assert_ptr_null(h.api);
	ck_assert_int_eq(h.correlation, 6);
}
END_TEST

static void append(void *arg, struct slice s)
{
	buf_add(arg, s.bytes);
	slice_unref(&s);
}

START_TEST(response_headers_have_tags_when_flexible)
{
	struct kafka_out o;
	kafka_out_init(&o, OUT_MAX);
	struct kafka_header h = {.api = &kafka_api_heartbeat, .version = 4, .correlation = 0x102};
	ck_assert_int_eq(kafka_response_encode(&h, &kafka_heartbeat_res_init, &o), OK);
	h.version = 3;
	ck_assert_int_eq(kafka_response_encode(&h, &kafka_heartbeat_res_init, &o), OK);
	struct kafka_header v = {.api = &kafka_api_api_versions, .version = 3, .correlation = 9};
	ck_assert_int_eq(kafka_response_encode(&v, &kafka_api_versions_res_init, &o), OK);
	kafka_out_each(&o, append, &out);
	ck_assert_uint_eq(kafka_out_len(&o), 0);
	static const uint8_t want[] = {0, 0, 0, 12, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, /* 4 */
		0, 0, 0, 10, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0,                              /* 3 */
		0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 0};
	ck_assert(bytes_equal(buf_bytes(&out), bytes_of(want, sizeof want)));
	int32_t correlation;
	struct bytes body;
	ck_assert_int_eq(kafka_response_read(&kafka_api_heartbeat, 4, bytes_of(want + 4, 12),
				 &correlation, &body),
		OK);
	ck_assert_int_eq(correlation, 0x102);
	ck_assert_uint_eq(body.len, 7);
	kafka_out_fini(&o);
}
END_TEST

START_TEST(request_frames_are_read_back)
{
	struct kafka_out o;
	struct kafka_header h = {.api = &kafka_api_find_coordinator, .correlation = -3};
	struct kafka_header got;
	h.client_id = bytes_text("tool");
	kafka_out_init(&o, OUT_MAX);
	for (int16_t version = 0; version <= 4; version++) {
		struct kafka_find_coordinator_req req = kafka_find_coordinator_req_init;
		struct bytes key = bytes_text("g");
		if (version >= 4) {
			req.keys = &key;
			req.keys_count = 1;
		} else {
			req.key = key;
		}
		h.version = version;
		buf_clear(&out);
		ck_assert_int_eq(kafka_request_encode(&h, &req, &o), OK);
		kafka_out_each(&o, append, &out);
		struct bytes frame = buf_bytes(&out);
		ck_assert_uint_eq(get_u32be(frame.at), frame.len - 4);
		ck_assert_int_eq(
			kafka_header_read(bytes_of(frame.at + 4, frame.len - 4), &got), OK);
		ck_assert_int_eq(got.key, KAFKA_FIND_COORDINATOR);
		ck_assert_int_eq(got.version, version);
		ck_assert_int_eq(got.correlation, -3);
		ck_assert(bytes_equal(got.client_id, h.client_id));
		ck_assert_int_eq(
			kafka_decode(got.api, version, true, got.body, &arena, message), OK);
	}
	kafka_out_fini(&o);
}
END_TEST

struct emitted {
	struct slice slices[16];
	int count;
};

static void keep(void *arg, struct slice s)
{
	struct emitted *e = arg;
	ck_assert_int_lt(e->count, 16);
	e->slices[e->count++] = s;
}

/* Two partitions, the first with two batches: the batches leave where they lie. */
START_TEST(fetched_batches_are_not_copied)
{
	struct slice batch[3];
	struct kafka_fetch_res_partition parts[2] = {
		kafka_fetch_res_partition_init, kafka_fetch_res_partition_init};
	struct kafka_fetch_res_topic topic = kafka_fetch_res_topic_init;
	struct kafka_fetch_res res = kafka_fetch_res_init;
	struct kafka_header h = {.api = &kafka_api_fetch, .version = (int16_t)_i};
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(slice_copy(bytes_of("aabbccddeeff" + 4 * i, 4), &batch[i]), OK);
	parts[0].records = (struct kafka_records){.slices = batch, .slices_count = 2};
	parts[1].records = (struct kafka_records){.slices = batch + 2, .slices_count = 1};
	topic.name = bytes_text("t");
	topic.partitions = parts;
	topic.partitions_count = 2;
	res.topics = &topic;
	res.topics_count = 1;

	struct kafka_out o;
	kafka_out_init(&o, OUT_MAX);
	ck_assert_int_eq(kafka_encode(h.api, h.version, false, &res, &again), OK);
	ck_assert_int_eq(kafka_response_encode(&h, &res, &o), OK);
	size_t len = kafka_out_len(&o);
	struct emitted e = {.count = 0};
	kafka_out_each(&o, keep, &e);
	int by_reference = 0;
	for (int i = 0; i < e.count; i++) {
		buf_add(&out, e.slices[i].bytes);
		for (int n = 0; n < 3; n++)
			by_reference += e.slices[i].bytes.at == batch[n].bytes.at;
		slice_unref(&e.slices[i]);
	}
	ck_assert_int_eq(by_reference, 3);
	ck_assert_uint_eq(buf_len(&out), len);
	ck_assert_uint_eq(get_u32be(buf_bytes(&out).at), len - 4);
	size_t head = _i >= 12 ? 9 : 8;
	ck_assert(bytes_equal(bytes_of(buf_bytes(&out).at + head, len - head), buf_bytes(&again)));

	ck_assert_int_eq(
		kafka_decode(h.api, h.version, false, buf_bytes(&again), &arena, message), OK);
	const struct kafka_fetch_res *got = message;
	ck_assert(bytes_equal(got->topics[0].partitions[0].records.bytes, bytes_text("aabbccdd")));
	kafka_out_fini(&o);
	for (int i = 0; i < 3; i++)
		slice_unref(&batch[i]);
}
END_TEST

START_TEST(records_are_a_view_of_the_input)
{
	static const uint8_t in[] = {0xff, 0xff, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0,
		1, 0, 0, 0, 3, 0, 0, 0, 2, 'r', 's'};
	struct kafka_produce_req req;
	ck_assert_int_eq(
		kafka_decode(&kafka_api_produce, 3, true, bytes_of(in, sizeof in), &arena, &req),
		OK);
	ck_assert_ptr_null(req.transactional_id.at);
	ck_assert_int_eq(req.acks, 1);
	ck_assert_int_eq(req.timeout_ms, 5);
	ck_assert_uint_eq(req.topics_count, 1);
	ck_assert_int_eq(req.topics[0].partitions[0].index, 3);
	ck_assert_ptr_eq(req.topics[0].partitions[0].records.bytes.at, in + sizeof in - 2);
}
END_TEST

START_TEST(null_only_where_allowed)
{
	struct kafka_metadata_req req;
	/* All topics: an empty array in version 0, null from 1 on. */
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 0, true, B(0xff, 0xff, 0xff, 0xff), &arena, &req),
		ERR_MALFORMED);
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 1, true, B(0xff, 0xff, 0xff, 0xff), &arena, &req),
		OK);
	ck_assert_ptr_null(req.topics);
	ck_assert(req.auto_create); /* its default: version 1 has no such field */
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 1, true, B(0, 0, 0, 0), &arena, &req), OK);
	ck_assert_ptr_nonnull(req.topics);
	ck_assert_uint_eq(req.topics_count, 0);
	/* A length of -2 is none. */
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 1, true, B(0xff, 0xff, 0xff, 0xfe), &arena, &req),
		ERR_MALFORMED);
	/* NULL is written as empty where null is not allowed. */
	ck_assert_int_eq(kafka_encode(&kafka_api_metadata, 0, true,
				 &(struct kafka_metadata_req){.topics = NULL}, &out),
		OK);
	ck_assert(bytes_equal(buf_bytes(&out), B(0, 0, 0, 0)));
}
END_TEST

/* ApiVersions 3: software "a" "b", and tagged fields which nobody described. */
START_TEST(unknown_tags_are_skipped)
{
	static const uint8_t two[] = {2, 'a', 2, 'b', 2, 3, 2, 9, 9, 0x80, 1, 0};
	struct kafka_api_versions_req req;
	ck_assert_int_eq(kafka_decode(&kafka_api_api_versions, 3, true, bytes_of(two, sizeof two),
				 &arena, &req),
		OK);
	ck_assert(bytes_equal(req.software_version, bytes_text("b")));
	ck_assert_int_eq(kafka_decode(&kafka_api_api_versions, 3, true,
				 B(2, 'a', 2, 'b', 2, 3, 0, 3, 0), &arena, &req),
		ERR_MALFORMED);
	ck_assert_int_eq(kafka_decode(&kafka_api_api_versions, 3, true,
				 B(2, 'a', 2, 'b', 0xff, 0xff, 0xff, 0xff, 0x0f), &arena, &req),
		ERR_MALFORMED);
	/* A varint of six bytes. */
	ck_assert_int_eq(kafka_decode(&kafka_api_api_versions, 3, true,
				 B(0x82, 0x80, 0x80, 0x80, 0x80, 0, 'a', 2, 'b', 0), &arena, &req),
		ERR_MALFORMED);
}
END_TEST

/* A known tagged field must fill the length it states. */
START_TEST(tagged_fields_fill_their_length)
{
	struct kafka_api_versions_res res;
	ck_assert_int_eq(
		kafka_decode(&kafka_api_api_versions, 3, false,
			B(0, 0, 1, 0, 0, 0, 0, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 7), &arena, &res),
		OK);
	ck_assert_int_eq(res.finalized_epoch, 7);
	ck_assert_int_eq(
		kafka_decode(&kafka_api_api_versions, 3, false,
			B(0, 0, 1, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0), &arena, &res),
		ERR_MALFORMED);
	ck_assert_int_eq(
		kafka_decode(&kafka_api_api_versions, 3, false,
			B(0, 0, 1, 0, 0, 0, 0, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0), &arena, &res),
		ERR_MALFORMED);
}
END_TEST

/* 60 nodes take more than 127 bytes: their length takes two, for which room is made. */
START_TEST(long_tagged_fields)
{
	struct kafka_fetch_res_node nodes[60];
	struct kafka_fetch_res res = kafka_fetch_res_init;
	for (int i = 0; i < 60; i++) {
		nodes[i] = kafka_fetch_res_node_init;
		nodes[i].node_id = i;
		nodes[i].host = bytes_text("host.example");
	}
	res.nodes = nodes;
	for (res.nodes_count = 1; res.nodes_count <= 60; res.nodes_count++) {
		memcpy(message, &res, sizeof res);
		arena_reset(&arena);
		assert_round_trip(&kafka_api_fetch, 17, false);
		const struct kafka_fetch_res *got = other;
		ck_assert_uint_eq(got->nodes_count, res.nodes_count);
	}
}
END_TEST

START_TEST(what_must_not_be_lost_is_not_dropped)
{
	struct kafka_find_coordinator_res_coordinator c = {.key = bytes_text("g"), .node_id = 1};
	struct kafka_find_coordinator_res res = kafka_find_coordinator_res_init;
	res.coordinators = &c;
	res.coordinators_count = 1;
	buf_add_text(&out, "before");
	ck_assert_int_eq(
		kafka_encode(&kafka_api_find_coordinator, 3, false, &res, &out), ERR_INVALID);
	ck_assert(bytes_equal(buf_bytes(&out), bytes_text("before")));
	ck_assert_int_eq(kafka_encode(&kafka_api_find_coordinator, 4, false, &res, &out), OK);
	/* A rack may be left out. */
	struct kafka_fetch_req fetch = kafka_fetch_req_init;
	fetch.rack_id = bytes_text("r1");
	ck_assert_int_eq(kafka_encode(&kafka_api_fetch, 10, true, &fetch, &out), OK);
}
END_TEST

START_TEST(counts_are_bounded_by_the_bytes_left)
{
	struct kafka_metadata_req req;
	ck_assert_int_eq(kafka_decode(&kafka_api_metadata, 1, true,
				 B(0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0), &arena, &req),
		ERR_MALFORMED);
	ck_assert_uint_eq(arena.held, 0);
	/* Four names of two bytes would fit, five can't. */
	ck_assert_int_eq(kafka_decode(&kafka_api_metadata, 1, true,
				 B(0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0), &arena, &req),
		OK);
	arena_reset(&arena);
	ck_assert_int_eq(kafka_decode(&kafka_api_metadata, 1, true,
				 B(0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0), &arena, &req),
		ERR_MALFORMED);
}
END_TEST

START_TEST(arena_bound_is_kept)
{
	enum { NAMES = 100000 };
	struct arena small;
	struct kafka_metadata_req req;
	size_t len = 4 + 2 * NAMES;
	uint8_t *in = mem_new(len);
	put_u32be(in, NAMES);
	arena_init(&small, 1 << 20);
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 1, true, bytes_of(in, len), &small, &req),
		ERR_TOOBIG);
	ck_assert_uint_le(small.held, 1 << 20);
	ck_assert_int_eq(
		kafka_decode(&kafka_api_metadata, 1, true, bytes_of(in, len), &arena, &req),
		arena.max >= NAMES * sizeof *req.topics ? OK : ERR_TOOBIG);
	arena_fini(&small);
	mem_free(in);
}
END_TEST

START_TEST(output_bounds_are_kept)
{
	struct kafka_heartbeat_req req = kafka_heartbeat_req_init;
	uint8_t *name = mem_new(40000);
	req.group_id = bytes_of(name, 40000);
	ck_assert_int_eq(kafka_encode(&kafka_api_heartbeat, 3, true, &req, &out), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&out), 0);
	ck_assert_int_eq(kafka_encode(&kafka_api_heartbeat, 4, true, &req, &out), OK);
	struct buf little;
	buf_init(&little, 39999);
	ck_assert_int_eq(kafka_encode(&kafka_api_heartbeat, 4, true, &req, &little), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&little), 0);
	buf_fini(&little);
	mem_free(name);
}
END_TEST

/* Each allocation on the way fails once; what was there before stays, and the next try works. */
START_TEST(survives_failed_alloc)
{
	const struct kafka_api *api = &kafka_api_fetch;
	struct slice batch;
	struct kafka_out o;
	struct arena fresh;
	struct kafka_header h = {.api = api, .version = 12};
	ck_assert_int_eq(slice_copy(bytes_text("batch"), &batch), OK);
	struct kafka_fetch_res_partition parts[40];
	for (int i = 0; i < 40; i++) {
		parts[i] = kafka_fetch_res_partition_init;
		parts[i].records = (struct kafka_records){.slices = &batch, .slices_count = 1};
	}
	struct kafka_fetch_res_topic topic = {
		.name = bytes_text("t"), .partitions = parts, .partitions_count = 40};
	struct kafka_fetch_res res = kafka_fetch_res_init;
	res.topics = &topic;
	res.topics_count = 1;
	int failures = 0;
	enum err e = ERR_NOMEM;
	for (int n = 0; e != OK; n++) {
		ck_assert_int_lt(n, 50);
		kafka_out_init(&o, OUT_MAX);
		mem_fail_at(n);
		e = kafka_response_encode(&h, &res, &o);
		mem_fail_at(-1);
		ck_assert(e == OK || e == ERR_NOMEM);
		ck_assert_uint_eq(kafka_out_len(&o) > 0, e == OK);
		failures += e != OK;
		kafka_out_fini(&o);
	}
	ck_assert_int_ge(failures, 2);
	ck_assert_int_eq(kafka_encode(api, 12, false, &res, &out), OK);
	e = ERR_NOMEM;
	for (int n = 0; e != OK; n++) {
		ck_assert_int_lt(n, 50);
		arena_init(&fresh, ARENA_MAX);
		mem_fail_at(n);
		e = kafka_decode(api, 12, false, buf_bytes(&out), &fresh, message);
		mem_fail_at(-1);
		ck_assert(e == OK || e == ERR_NOMEM);
		failures += e != OK;
		arena_fini(&fresh);
	}
	ck_assert_int_ge(failures, 4);
	slice_unref(&batch);
}
END_TEST

START_TEST(arrays_begin_with_defaults)
{
	struct kafka_fetch_res_partition *p = kafka_array(
		&arena, &kafka_fetch_res_partition_type, 3);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(p[i].preferred_replica, -1);
		ck_assert_int_eq(p[i].leader.leader_id, -1);
		ck_assert_ptr_nonnull(p[i].records.bytes.at);
	}
	ck_assert_ptr_nonnull(kafka_array(&arena, &kafka_fetch_res_partition_type, 0));
	ck_assert_ptr_null(kafka_array(&arena, &kafka_fetch_res_partition_type, UINT32_MAX));
	ck_assert_int_eq(arena.err, ERR_TOOBIG);
}
END_TEST

static void add_rules(TCase *tc)
{
	tcase_add_test(tc, finds_apis_by_key);
	tcase_add_test(tc, reads_request_headers);
	tcase_add_test(tc, names_what_it_does_not_support);
	tcase_add_test(tc, response_headers_have_tags_when_flexible);
	tcase_add_test(tc, request_frames_are_read_back);
	tcase_add_loop_test(tc, fetched_batches_are_not_copied, 4, 18);
	tcase_add_test(tc, records_are_a_view_of_the_input);
	tcase_add_test(tc, null_only_where_allowed);
	tcase_add_test(tc, unknown_tags_are_skipped);
	tcase_add_test(tc, tagged_fields_fill_their_length);
	tcase_add_test(tc, long_tagged_fields);
	tcase_add_test(tc, what_must_not_be_lost_is_not_dropped);
	tcase_add_test(tc, counts_are_bounded_by_the_bytes_left);
	tcase_add_test(tc, arena_bound_is_kept);
	tcase_add_test(tc, output_bounds_are_kept);
	tcase_add_test(tc, survives_failed_alloc);
	tcase_add_test(tc, arrays_begin_with_defaults);
}

int main(void)
{
	Suite *s = suite_create("kafka_wire");
	TCase *rules = tcase_create("rules");
	TCase *all = tcase_create("all messages");
	tcase_add_checked_fixture(rules, setup, teardown);
	tcase_add_checked_fixture(all, setup, teardown);
	add_rules(rules);
	tcase_set_timeout(all, 60);
	tcase_add_test(all, reads_and_writes_vectors);
	tcase_add_test(all, refuses_every_short_input);
	tcase_add_test(all, refuses_bytes_left_over);
	tcase_add_test(all, survives_mutated_bytes);
	tcase_add_loop_test(all, round_trips_of_random_messages, 0, kafka_apis_count);
	suite_add_tcase(s, rules);
	suite_add_tcase(s, all);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
