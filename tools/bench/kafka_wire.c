/* Kafka from the client's side. A record batch is built once per run and sent again and again:
 * what is measured is the broker, and to the broker each is a new batch at a new offset. */
#include "tools/bench/kafka_wire.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "server/base/crc32c.h"

enum {
	NO_VALUE = 0xffff, /* a null string's length */
	REQUEST_TIMEOUT_MS = 30000,
	BATCH_HEAD_BYTES = 61,
	BATCH_LENGTH_AT = 8,
	BATCH_MAGIC_AT = 16,
	BATCH_CRC_AT = 17,
	BATCH_ATTRIBUTES_AT = 21,
	BATCH_COUNT_AT = 57,
	RECORD_EXTRA_BYTES = 24
};

static const uint16_t spoken[][2] = {/* api, version */
	{KAFKA_PRODUCE, 7}, {KAFKA_FETCH, 4}, {KAFKA_METADATA, 4}, {KAFKA_API_VERSIONS, 0},
	{KAFKA_CREATE_TOPICS, 2}, {KAFKA_JOIN_GROUP, 2}, {KAFKA_HEARTBEAT, 1},
	{KAFKA_SYNC_GROUP, 1}, {KAFKA_SASL_HANDSHAKE, 1}, {KAFKA_SASL_AUTHENTICATE, 0}};

static void write_text(struct wr *w, const char *text)
{
	wr_u16be(w, (uint16_t)strlen(text));
	wr_text(w, text);
}

static void write_head(struct wr *w, enum kafka_api api, uint32_t correlation)
{
	for (size_t i = 0; i < sizeof spoken / sizeof spoken[0]; i++) {
		if (spoken[i][0] != api)
			continue;
		wr_u32be(w, 0); /* length, filled by finish */
		wr_u16be(w, spoken[i][0]);
		wr_u16be(w, spoken[i][1]);
	}
	wr_u32be(w, correlation);
	write_text(w, "sluice-bench");
}

/* Fills in the length; more bytes follow that somebody else sends. */
static size_t finish(struct wr *w, uint32_t more)
{
	if (w->err != OK)
		return 0;
	put_u32be(w->start, (uint32_t)wr_len(w) - 4 + more);
	return wr_len(w);
}

static void skip_text(struct rd *r)
{
	uint16_t len = rd_u16be(r);

	if (len != NO_VALUE)
		rd_skip(r, len);
}

size_t kafka_versions_write(uint8_t *at, size_t size)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_API_VERSIONS, 0);
	return finish(&w, 0);
}

bool kafka_versions_read(struct bytes body)
{
	struct rd r = rd_over(body);
	uint32_t found = 0;
	uint32_t count;
	uint16_t error;

	rd_u32be(&r); /* correlation */
	error = rd_u16be(&r);
	count = rd_count(&r, rd_u32be(&r), 6);
	for (uint32_t i = 0; i < count; i++) {
		uint16_t api = rd_u16be(&r), low = rd_u16be(&r), high = rd_u16be(&r);

		for (uint32_t k = 0; k < sizeof spoken / sizeof spoken[0]; k++)
			if (spoken[k][0] == api && spoken[k][1] >= low && spoken[k][1] <= high)
				found |= 1u << k;
	}
	if (r.err != OK || error)
		return false;
	for (uint32_t k = 0; k < sizeof spoken / sizeof spoken[0]; k++)
		if (!(found & 1u << k))
			fprintf(stderr,
				"sluice-bench: the broker does not speak api %u version %u\n",
				spoken[k][0], spoken[k][1]);
	return found == (1u << sizeof spoken / sizeof spoken[0]) - 1;
}

size_t kafka_create_write(uint8_t *at, size_t size, const struct kafka_topic *t)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_CREATE_TOPICS, 1);
	wr_u32be(&w, 1);
	write_text(&w, t->name);
	wr_u32be(&w, t->partitions);
	wr_u16be(&w, (uint16_t)t->replicas);
	wr_u32be(&w, 0); /* assignments */
	wr_u32be(&w, 0); /* configs */
	wr_u32be(&w, REQUEST_TIMEOUT_MS);
	wr_u8(&w, 0); /* not validate only */
	return finish(&w, 0);
}

int16_t kafka_create_read(struct bytes body)
{
	struct rd r = rd_over(body);
	uint16_t error;

	rd_u32be(&r); /* correlation */
	rd_u32be(&r); /* throttle */
	if (rd_count(&r, rd_u32be(&r), 4) != 1)
		return -1;
	skip_text(&r);
	error = rd_u16be(&r);
	return r.err == OK ? (int16_t)error : -1;
}

size_t kafka_metadata_write(uint8_t *at, size_t size, const char *topic)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_METADATA, 2);
	wr_u32be(&w, 1);
	write_text(&w, topic);
	wr_u8(&w, 1); /* create it when it does not exist */
	return finish(&w, 0);
}

static void read_nodes(struct rd *r, struct kafka_place *out)
{
	uint32_t count = rd_count(r, rd_u32be(r), 12);

	for (uint32_t i = 0; i < count; i++) {
		int32_t id = (int32_t)rd_u32be(r);
		struct bytes host = rd_take(r, rd_u16be(r));
		uint32_t port = rd_u32be(r);

		skip_text(r); /* rack */
		if (r->err != OK || i >= KAFKA_NODES_MAX || host.len >= KAFKA_HOST_BYTES)
			continue;
		memcpy(out->host[i], host.at, host.len);
		out->host[i][host.len] = 0;
		out->node_id[i] = id;
		out->port[i] = port;
		out->nodes = i + 1;
	}
}

static uint32_t node_index(const struct kafka_place *p, int32_t id)
{
	for (uint32_t i = 0; i < p->nodes; i++)
		if (p->node_id[i] == id)
			return i;
	return UINT32_MAX;
}

static int16_t read_partition(struct rd *r, uint32_t want, struct kafka_place *out)
{
	int16_t error = (int16_t)rd_u16be(r);
	uint32_t index = rd_u32be(r);
	uint32_t node = node_index(out, (int32_t)rd_u32be(r));

	rd_skip(r, 4ul * rd_count(r, rd_u32be(r), 4)); /* replicas */
	rd_skip(r, 4ul * rd_count(r, rd_u32be(r), 4)); /* in sync */
	if (r->err == OK && error == 0 && index < want && node != UINT32_MAX) {
		out->leader[index] = node;
		out->partitions++;
	}
	return error;
}

int16_t kafka_metadata_read(struct bytes body, uint32_t want, struct kafka_place *out)
{
	struct rd r = rd_over(body);
	int16_t error, worst = 0;
	uint32_t count;

	out->nodes = out->partitions = 0;
	rd_u32be(&r); /* correlation */
	rd_u32be(&r); /* throttle */
	read_nodes(&r, out);
	skip_text(&r); /* cluster id */
	rd_u32be(&r);  /* controller */
	if (rd_count(&r, rd_u32be(&r), 9) != 1)
		return -1;
	error = (int16_t)rd_u16be(&r);
	skip_text(&r);
	rd_u8(&r); /* internal */
	count = rd_count(&r, rd_u32be(&r), 18);
	for (uint32_t i = 0; i < count; i++) {
		int16_t e = read_partition(&r, want, out);

		worst = worst ? worst : e;
	}
	if (r.err != OK)
		return -1;
	if (error || worst)
		return error ? error : worst;
	return out->partitions >= want ? 0 : 5;
}

size_t kafka_produce_write(uint8_t *at, size_t size, const struct kafka_produce *p)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_PRODUCE, p->correlation);
	wr_u16be(&w, NO_VALUE); /* not transactional */
	wr_u16be(&w, (uint16_t)p->acks);
	wr_u32be(&w, REQUEST_TIMEOUT_MS);
	wr_u32be(&w, 1);
	write_text(&w, p->topic);
	wr_u32be(&w, 1);
	wr_u32be(&w, p->partition);
	wr_u32be(&w, p->records_bytes);
	return finish(&w, p->records_bytes);
}

bool kafka_produce_read(struct bytes body, struct kafka_produced *out)
{
	struct rd r = rd_over(body);

	out->correlation = rd_u32be(&r);
	if (rd_count(&r, rd_u32be(&r), 6) != 1)
		return false;
	skip_text(&r);
	if (rd_count(&r, rd_u32be(&r), 30) != 1)
		return false;
	rd_u32be(&r); /* partition */
	out->error = (int16_t)rd_u16be(&r);
	out->base_offset = rd_u64be(&r);
	rd_u64be(&r); /* log append time */
	rd_u64be(&r); /* log start offset */
	rd_u32be(&r); /* throttle */
	return rd_done(&r) == OK;
}

size_t kafka_fetch_write(uint8_t *at, size_t size, const struct kafka_fetch *f)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_FETCH, f->correlation);
	wr_u32be(&w, UINT32_MAX); /* not a replica */
	wr_u32be(&w, 500);        /* longest wait, ms */
	wr_u32be(&w, 1);          /* fewest bytes */
	wr_u32be(&w, f->bytes_max);
	wr_u8(&w, 0); /* read uncommitted */
	wr_u32be(&w, 1);
	write_text(&w, f->topic);
	wr_u32be(&w, 1);
	wr_u32be(&w, f->partition);
	wr_u64be(&w, f->offset);
	wr_u32be(&w, f->bytes_max);
	return finish(&w, 0);
}

bool kafka_fetch_read(struct bytes body, struct kafka_fetched *out)
{
	struct rd r = rd_over(body);
	uint32_t aborted, len;

	out->records = bytes_of(NULL, 0);
	out->correlation = rd_u32be(&r);
	rd_u32be(&r); /* throttle */
	if (rd_count(&r, rd_u32be(&r), 6) != 1)
		return false;
	skip_text(&r);
	if (rd_count(&r, rd_u32be(&r), 30) != 1)
		return false;
	rd_u32be(&r); /* partition */
	out->error = (int16_t)rd_u16be(&r);
	out->high_watermark = rd_u64be(&r);
	rd_u64be(&r); /* last stable */
	aborted = rd_u32be(&r);
	if (aborted != UINT32_MAX)
		rd_skip(&r, 16ul * rd_count(&r, aborted, 16));
	len = rd_u32be(&r);
	if (len != UINT32_MAX)
		out->records = rd_take(&r, len);
	return rd_done(&r) == OK;
}

/* Consumers' own bytes inside JoinGroup and SyncGroup, version 0: what one subscribes to, and
 * which partition it got; then no user data. */
static void write_plan(struct wr *w, const char *topic, int64_t partition)
{
	uint8_t *len = wr_hole(w, 4);
	size_t start = wr_len(w);

	wr_u16be(w, 0);
	wr_u32be(w, 1);
	write_text(w, topic);
	if (partition >= 0) {
		wr_u32be(w, 1);
		wr_u32be(w, (uint32_t)partition);
	}
	wr_u32be(w, UINT32_MAX);
	put_u32be(len, (uint32_t)(wr_len(w) - start));
}

size_t kafka_join_write(uint8_t *at, size_t size, const struct kafka_member *m, uint32_t session_ms)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_JOIN_GROUP, 0);
	write_text(&w, m->group);
	wr_u32be(&w, session_ms);
	wr_u32be(&w, REQUEST_TIMEOUT_MS * 2); /* for a rebalance */
	write_text(&w, m->id);
	write_text(&w, "consumer");
	wr_u32be(&w, 1);
	write_text(&w, "range");
	write_plan(&w, m->topic, -1);
	return finish(&w, 0);
}

static void read_text(struct rd *r, char out[KAFKA_MEMBER_BYTES])
{
	struct bytes text = rd_take(r, rd_u16be(r));

	out[0] = 0;
	if (text.len >= KAFKA_MEMBER_BYTES)
		rd_fail(r, ERR_TOOBIG);
	if (r->err != OK)
		return;
	memcpy(out, text.at, text.len);
	out[text.len] = 0;
}

bool kafka_join_read(struct bytes body, struct kafka_joined *out)
{
	struct rd r = rd_over(body);
	char leader[KAFKA_MEMBER_BYTES];

	rd_u32be(&r); /* correlation */
	rd_u32be(&r); /* throttle */
	out->error = (int16_t)rd_u16be(&r);
	out->generation = (int32_t)rd_u32be(&r);
	skip_text(&r); /* protocol */
	read_text(&r, leader);
	read_text(&r, out->id);
	out->count = rd_count(&r, rd_u32be(&r), 6);
	if (out->count > KAFKA_MEMBERS_MAX)
		return false;
	for (uint32_t i = 0; i < out->count; i++) {
		read_text(&r, out->members[i]);
		rd_skip(&r, rd_u32be(&r));
	}
	out->leads = strcmp(leader, out->id) == 0;
	return rd_done(&r) == OK;
}

size_t kafka_sync_write(
	uint8_t *at, size_t size, const struct kafka_member *m, const struct kafka_joined *j)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_SYNC_GROUP, 0);
	write_text(&w, m->group);
	wr_u32be(&w, (uint32_t)m->generation);
	write_text(&w, m->id);
	wr_u32be(&w, j ? j->count : 0);
	for (uint32_t i = 0; j && i < j->count; i++) {
		write_text(&w, j->members[i]);
		write_plan(&w, m->topic, i);
	}
	return finish(&w, 0);
}

size_t kafka_heartbeat_write(uint8_t *at, size_t size, const struct kafka_member *m)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_HEARTBEAT, 0);
	write_text(&w, m->group);
	wr_u32be(&w, (uint32_t)m->generation);
	write_text(&w, m->id);
	return finish(&w, 0);
}

int16_t kafka_member_error(struct bytes body)
{
	struct rd r = rd_over(body);
	uint16_t error;

	rd_u32be(&r); /* correlation */
	rd_u32be(&r); /* throttle */
	error = rd_u16be(&r);
	return r.err == OK ? (int16_t)error : -1;
}

size_t kafka_handshake_write(uint8_t *at, size_t size, const char *mechanism)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_SASL_HANDSHAKE, 0);
	write_text(&w, mechanism);
	return finish(&w, 0);
}

int16_t kafka_handshake_read(struct bytes body)
{
	struct rd r = rd_over(body);
	uint16_t error;

	rd_u32be(&r); /* correlation */
	error = rd_u16be(&r);
	return r.err == OK ? (int16_t)error : -1;
}

size_t kafka_authenticate_write(uint8_t *at, size_t size, struct bytes token)
{
	struct wr w = wr_over(at, size);

	write_head(&w, KAFKA_SASL_AUTHENTICATE, 0);
	wr_u32be(&w, (uint32_t)token.len);
	wr_bytes(&w, token);
	return finish(&w, 0);
}

int16_t kafka_authenticate_read(struct bytes body, struct bytes *token)
{
	struct rd r = rd_over(body);
	uint16_t error;

	rd_u32be(&r); /* correlation */
	error = rd_u16be(&r);
	skip_text(&r); /* why */
	*token = rd_take(&r, rd_u32be(&r));
	return rd_done(&r) == OK ? (int16_t)error : -1;
}

size_t kafka_batch_bytes(uint32_t count, uint32_t value_bytes)
{
	return BATCH_HEAD_BYTES + (size_t)count * ((size_t)value_bytes + RECORD_EXTRA_BYTES);
}

static void write_record(struct wr *w, uint32_t index, struct bytes value, bool keyed)
{
	static const uint8_t key[KAFKA_KEY_BYTES];
	/* attributes 1, time delta 1, offset delta, length of the key 1, value, no headers 1 */
	size_t len = 4 + uvar32_size(zigzag32((int32_t)index)) + (keyed ? sizeof key : 0) +
		uvar32_size(zigzag32((int32_t)value.len)) + value.len;

	wr_svar32(w, (int32_t)len);
	wr_u8(w, 0);
	wr_svar32(w, 0);
	wr_svar32(w, (int32_t)index);
	wr_svar32(w, keyed ? (int32_t)sizeof key : -1);
	if (keyed)
		wr_bytes(w, bytes_of(key, sizeof key));
	wr_svar32(w, (int32_t)value.len);
	wr_bytes(w, value);
	wr_svar32(w, 0);
}

static void fill_random(uint8_t *at, size_t len, uint64_t *x)
{
	for (size_t i = 0; i < len; i++) {
		*x ^= *x << 13;
		*x ^= *x >> 7;
		*x ^= *x << 17;
		at[i] = (uint8_t)*x;
	}
}

/* base offset 8, length 4, leader epoch 4, magic 1, crc 4 | attributes 2, last delta 4, first
 * and last time 8 + 8, producer id 8, its epoch 2, sequence 4, count 4, records */
static void batch_checksum(uint8_t *at, size_t len)
{
	put_u32be(at + BATCH_CRC_AT,
		crc32c(bytes_of(at + BATCH_ATTRIBUTES_AT, len - BATCH_ATTRIBUTES_AT)));
}

void kafka_batch_keys(uint8_t *batch, size_t len, uint64_t keys, uint64_t *seed)
{
	struct rd r = rd_over(bytes_of(batch, len));

	rd_skip(&r, BATCH_HEAD_BYTES);
	while (r.err == OK && rd_left(&r) > 0) {
		struct bytes record = rd_take(&r, (size_t)rd_svar32(&r));
		struct rd one = rd_over(record);
		uint64_t key;

		fill_random((uint8_t *)&key, sizeof key, seed);
		rd_skip(&one, 2);
		rd_svar32(&one);
		rd_svar32(&one);
		put_u64be(batch + (one.at - batch), key % keys);
	}
	batch_checksum(batch, len);
}

size_t kafka_batch_write(uint8_t *at, size_t size, uint32_t count, uint32_t value_bytes, bool keyed)
{
	struct wr w = wr_over(at, size);
	uint64_t seed = 0x2545f4914f6cdd1du;
	uint8_t *value = malloc(value_bytes ? value_bytes : 1);
	struct timespec t;
	uint64_t time_ms;

	clock_gettime(CLOCK_REALTIME, &t);
	time_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	wr_u64be(&w, 0);
	wr_u32be(&w, 0);
	wr_u32be(&w, UINT32_MAX);
	wr_u8(&w, 2);
	wr_u32be(&w, 0);
	wr_u16be(&w, 0);
	wr_u32be(&w, count - 1);
	wr_u64be(&w, time_ms);
	wr_u64be(&w, time_ms);
	wr_u64be(&w, UINT64_MAX);
	wr_u16be(&w, UINT16_MAX);
	wr_u32be(&w, UINT32_MAX);
	wr_u32be(&w, count);
	for (uint32_t i = 0; value && i < count; i++) {
		fill_random(value, value_bytes, &seed);
		write_record(&w, i, bytes_of(value, value_bytes), keyed);
	}
	if (!value || w.err != OK) {
		free(value);
		return 0;
	}
	free(value);
	put_u32be(at + BATCH_LENGTH_AT, (uint32_t)wr_len(&w) - 12);
	batch_checksum(at, wr_len(&w));
	return wr_len(&w);
}

int64_t kafka_batch_read(struct bytes b, bool check, struct kafka_batch_view *out)
{
	uint64_t len;

	if (b.len < BATCH_HEAD_BYTES)
		return 0;
	len = 12ull + get_u32be(b.at + BATCH_LENGTH_AT);
	if (len < BATCH_HEAD_BYTES || b.at[BATCH_MAGIC_AT] != 2)
		return -1;
	if (b.len < len)
		return 0;
	out->base_offset = get_u64be(b.at);
	out->count = get_u32be(b.at + BATCH_COUNT_AT);
	out->len = (uint32_t)len;
	out->intact = !check ||
		crc32c(bytes_of(b.at + BATCH_ATTRIBUTES_AT, len - BATCH_ATTRIBUTES_AT)) ==
			get_u32be(b.at + BATCH_CRC_AT);
	return (int64_t)len;
}
