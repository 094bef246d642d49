/* Message sets: golden bytes as Kafka's old clients write them, every prefix, every byte changed,
 * and the way from set to batch to set. */
#include "protocols/kafka/kafka_set.h"
#include <check.h>
#include <stdlib.h>
#include <zlib.h>
#include "storage/record_batch.h"

enum { ROOM = 1 << 16 };

static uint8_t set[ROOM];
static size_t len;

static void put(const void *at, size_t n)
{
	memcpy(set + len, at, n);
	len += n;
}

static void put_number(uint64_t v, int bytes)
{
	while (bytes-- > 0)
		set[len++] = (uint8_t)(v >> (8 * bytes));
}

static void put_text(const char *text)
{
	put_number(text ? strlen(text) : UINT32_MAX, 4);
	if (text)
		put(text, strlen(text));
}

static size_t begin(uint64_t offset, uint8_t magic, uint8_t attributes, uint64_t time)
{
	size_t at = len;
	put_number(offset, 8);
	len += 8; /* size and checksum */
	set[len++] = magic;
	set[len++] = attributes;
	if (magic)
		put_number(time, 8);
	return at;
}

static void finish(size_t at)
{
	size_t end = len;
	len = at + 8;
	put_number(end - at - 12, 4);
	put_number(crc32_z(0, set + at + 16, end - at - 16), 4);
	len = end;
}

static void message(uint64_t offset, uint8_t magic, uint8_t attributes, uint64_t time,
	const char *key, const char *value)
{
	size_t at = begin(offset, magic, attributes, time);
	put_text(key);
	put_text(value);
	finish(at);
}

/* What is in set from there on becomes one message. */
static void pack(size_t from, uint8_t magic, enum batch_codec codec)
{
	struct chunk *c;
	size_t n;
	ck_assert_int_eq(codec_deflate(codec, bytes_of(set + from, len - from), &c, &n), OK);
	len = from;
	size_t at = begin(9, magic, (uint8_t)codec, 1);
	put_number(UINT32_MAX, 4);
	put_number(n, 4);
	put(c->data, n);
	finish(at);
	chunk_unref(c);
}

static size_t inflated; /* by the last read */

static enum err read_set(size_t max, struct slice *out)
{
	/* In memory of just that size, so that reading beyond it shows. */
	uint8_t *own = malloc(len ? len : 1);
	memcpy(own, set, len);
	enum err e = kafka_set_read(bytes_of(own, len), max, out, &inflated);
	free(own);
	ck_assert_uint_le(inflated, max);
	return e;
}

static void refused(enum err want, size_t max)
{
	struct slice s = {0};
	ck_assert_int_eq(read_set(max, &s), want);
	len = 0;
}

static void three(uint8_t magic)
{
	message(0, magic, 0, 1000, "k", "one");
	message(1, magic, 0, 3000, NULL, "");
	message(2, magic, 0, 2000, "", NULL);
}

static void assert_three(struct bytes batch, bool times)
{
	struct batch b;
	struct batch_walk w;
	struct record r;
	ck_assert_int_eq(batch_read(batch, &b), OK);
	ck_assert_uint_eq(b.all.len, batch.len);
	ck_assert_int_eq(batch_check(&b, ROOM), OK);
	ck_assert_int_eq(b.count, 3);
	ck_assert_int_eq(b.max_ms, times ? 3000 : -1);
	ck_assert_int_eq(b.producer_id, -1);
	ck_assert_int_eq(batch_walk_init(&w, &b, ROOM), OK);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(bytes_equal(r.key, bytes_text("k")) && bytes_equal(r.value, bytes_text("one")));
	ck_assert_int_eq(r.timestamp_ms, times ? 1000 : -1);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(r.null_key && !r.null_value && r.value.len == 0);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(!r.null_key && r.key.len == 0 && r.null_value);
	ck_assert_int_eq(r.timestamp_ms, times ? 2000 : -1);
	batch_walk_fini(&w);
}

START_TEST(reads_what_a_client_wrote)
{
	/* kafka-python 2.0.2: LegacyRecordBatchBuilder(1, 0, 9999), append(0, 1234, b"k", b"v"). */
	static const uint8_t golden[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 0x5a, 0xbe, 0xdb,
		0xab, 1, 0, 0, 0, 0, 0, 0, 0, 0x04, 0xd2, 0, 0, 0, 1, 'k', 0, 0, 0, 1, 'v'};
	struct slice s;
	struct batch b;
	len = 0;
	put(golden, sizeof golden);
	ck_assert_int_eq(read_set(ROOM, &s), OK);
	ck_assert_int_eq(batch_read(s.bytes, &b), OK);
	ck_assert_int_eq(b.max_ms, 1234);
	struct kafka_set out;
	ck_assert_int_eq(kafka_set_write(&s, 1, 0, 1, ROOM, &out), OK);
	ck_assert_mem_eq(out.bytes.bytes.at, golden, sizeof golden);
	ck_assert_uint_eq(out.bytes.bytes.len, sizeof golden);
	slice_unref(&out.bytes);
	slice_unref(&s);
}
END_TEST

/* _i: magic and codec */
START_TEST(sets_become_batches_and_sets_again)
{
	uint8_t magic = _i & 1;
	enum batch_codec codec = (enum batch_codec)(_i >> 1);
	uint8_t plain[ROOM];
	struct slice s;
	struct kafka_set out;
	len = 0;
	three(magic);
	size_t plain_len = len;
	memcpy(plain, set, len);
	if (codec != CODEC_NONE)
		pack(0, magic, codec);
	if (codec == CODEC_ZSTD || (codec == CODEC_LZ4 && magic == 0)) {
		refused(ERR_UNSUPPORTED, ROOM);
		return;
	}
	ck_assert_int_eq(read_set(ROOM, &s), OK);
	assert_three(s.bytes, magic > 0);
	ck_assert_int_eq(kafka_set_write(&s, 1, 0, magic, ROOM, &out), OK);
	ck_assert_uint_eq(out.count, 3);
	ck_assert_uint_eq(out.bytes.bytes.len, plain_len);
	ck_assert_mem_eq(out.bytes.bytes.at, plain, plain_len);
	slice_unref(&out.bytes);
	slice_unref(&s);
}
END_TEST

START_TEST(refuses_every_prefix_and_every_changed_byte)
{
	for (int packed = 0; packed < 2; packed++) {
		len = 0;
		three(1);
		size_t first = 12 + 22 + 1 + 3;
		if (packed)
			pack(0, 1, CODEC_GZIP);
		size_t whole = len;
		for (len = 1; len < whole; len++) {
			struct slice s = {0};
			bool ends = !packed && (len == first || len == first + 12 + 22);
			ck_assert_int_eq(read_set(ROOM, &s) == OK, ends);
			slice_unref(&s);
		}
		/* But for the offsets, which mean nothing. */
		for (size_t i = 8; i < whole; i++) {
			struct slice s = {0};
			bool offset = !packed && i >= first &&
				((i - first) % 34 < 8 && i < first + 34 + 8);
			set[i] ^= 0x55;
			ck_assert_int_eq(read_set(ROOM, &s) == OK, offset);
			set[i] ^= 0x55;
			slice_unref(&s);
		}
	}
}
END_TEST

START_TEST(refuses_what_may_not_be_sent)
{
	len = 0;
	refused(ERR_INVALID, ROOM); /* nothing */
	message(0, 1, 8, 1, "k", "v");
	refused(ERR_RANGE, ROOM); /* the server's time */
	message(0, 2, 0, 1, "k", "v");
	refused(ERR_UNSUPPORTED, ROOM);
	message(0, 1, 1, 1, NULL, NULL);
	refused(ERR_INVALID, ROOM); /* a packed nothing */
	message(0, 1, 1, 1, NULL, "junk");
	refused(ERR_MALFORMED, ROOM);
	ck_assert_uint_eq(inflated, ROOM); /* for all we know */
	three(0);
	pack(0, 1, CODEC_SNAPPY);
	refused(ERR_INVALID, ROOM); /* one format in another */
	three(1);
	pack(0, 1, CODEC_SNAPPY);
	pack(0, 1, CODEC_GZIP);
	refused(ERR_INVALID, ROOM); /* packed twice */
	message(0, 1, 0, 1, "k", "v");
	set[12] ^= 1;
	refused(ERR_CORRUPT, ROOM);
	three(1);
	refused(ERR_TOOBIG, 80);
	for (int i = 0; i < 500; i++)
		message(0, 1, 0, 1, "k", "the same");
	pack(0, 1, CODEC_GZIP);
	refused(ERR_TOOBIG, 4096);
}
END_TEST

/* Batches of three records each at 10, 13, 16. */
static uint32_t stored(struct slice *s, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		len = 0;
		three(1);
		ck_assert_int_eq(read_set(ROOM, &s[i]), OK);
		batch_set_offset((uint8_t *)(uintptr_t)s[i].bytes.at, 10 + 3 * i, 1);
	}
	return count;
}

START_TEST(a_set_begins_and_ends_where_it_is_to)
{
	struct slice s[3];
	struct kafka_set out;
	uint32_t n = stored(s, 3);
	for (int64_t first = 0; first < 20; first++) {
		uint32_t want = first < 10 ? 9 : first > 18 ? 0 : (uint32_t)(19 - first);
		ck_assert_int_eq(kafka_set_write(s, n, first, 1, ROOM, &out), OK);
		ck_assert_uint_eq(out.count, want);
		if (want > 0)
			ck_assert_uint_eq(
				get_u64be(out.bytes.bytes.at), first < 10 ? 10 : (uint64_t)first);
		slice_unref(&out.bytes);
	}
	size_t before = 0;
	for (size_t max = 1; max < 400; max++) {
		ck_assert_int_eq(kafka_set_write(s, n, 12, 1, max, &out), OK);
		ck_assert_uint_ge(out.count, 1); /* one in any case */
		ck_assert(out.count == 1 || out.bytes.bytes.len <= max);
		ck_assert_uint_ge(out.bytes.bytes.len, before);
		before = out.bytes.bytes.len;
		slice_unref(&out.bytes);
	}
	ck_assert_int_eq(kafka_set_write(s, n, 12, 1, 400, &out), OK);
	ck_assert_uint_eq(out.count, 7);
	slice_unref(&out.bytes);
	for (uint32_t i = 0; i < n; i++)
		slice_unref(&s[i]);
}
END_TEST

START_TEST(headers_are_left_out_and_the_servers_time_is_told)
{
	struct batch_builder b;
	struct record_header h = {bytes_text("name"), bytes_text("value"), false};
	struct bytes key = bytes_text("k"), value = bytes_text("one");
	struct kafka_set out;
	batch_builder_init(&b, ROOM);
	ck_assert_int_eq(batch_builder_add(&b, 1000, &key, &value, &h, 1), OK);
	struct slice s = batch_builder_seal(&b);
	batch_set_append_time((uint8_t *)(uintptr_t)s.bytes.at, s.bytes.len, 7777);
	len = 0;
	message(0, 1, 8, 7777, "k", "one");
	ck_assert_int_eq(kafka_set_write(&s, 1, 0, 1, ROOM, &out), OK);
	ck_assert_uint_eq(out.bytes.bytes.len, len);
	ck_assert_mem_eq(out.bytes.bytes.at, set, len);
	slice_unref(&out.bytes);
	struct slice cut = {NULL, bytes_of(s.bytes.at, s.bytes.len - 1)};
	ck_assert_int_ne(kafka_set_write(&cut, 1, 0, 1, ROOM, &out), OK);
	slice_unref(&s);
	batch_builder_fini(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_set");
	TCase *tc = tcase_create("all");
	tcase_add_test(tc, reads_what_a_client_wrote);
	tcase_add_loop_test(tc, sets_become_batches_and_sets_again, 0, 2 * CODEC_COUNT);
	tcase_add_test(tc, refuses_every_prefix_and_every_changed_byte);
	tcase_add_test(tc, refuses_what_may_not_be_sent);
	tcase_add_test(tc, a_set_begins_and_ends_where_it_is_to);
	tcase_add_test(tc, headers_are_left_out_and_the_servers_time_is_told);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
