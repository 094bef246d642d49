/* The golden batch was made by kafka-python's builder; small compressed blocks are written by
 * hand from the formats' specifications, so that our own encoders don't vouch for themselves. */
#include "server/base/crc32c.h"
#include "server/base/mem.h"
#include "storage/record_batch.h"
#include <check.h>
#include <stdlib.h>

#define LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))
enum { INFLATED_MAX = 1 << 20, AT_RECORDS = BATCH_HEADER_BYTES };

/* clang-format off */
static const uint8_t golden[] = {
	0, 0, 0, 0, 0, 0, 0, 0,                          /* base offset */
	0, 0, 0, 0x59, 0, 0, 0, 0, 2,                    /* length, epoch, magic */
	0x9a, 0x80, 0x82, 0xb3, 0, 0, 0, 0, 0, 2,        /* crc, attributes, last delta */
	0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0,              /* base time 1700000000000 */
	0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0xfa,           /* max time, 250 ms later */
	0, 0, 0, 0, 0, 0, 0, 0x4d, 0, 3, 0, 0, 0, 9,     /* producer 77, epoch 3, sequence 9 */
	0, 0, 0, 3,
	0x26, 0, 0, 0, 2, 'k', 0x0a, 'h', 'e', 'l', 'l', 'o', 4, 2, 'h', 2, 'v', 2, 'n', 1,
	0x0e, 0, 0xf4, 3, 2, 1, 0, 0,
	0x16, 0, 0xcf, 0x0f, 4, 8, 'k', 'e', 'y', '2', 1, 0,
};
static const uint8_t gzip_word[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff, 1, 6, 0, 0xf9, 0xff,
	's', 'l', 'u', 'i', 'c', 'e', 0x32, 0x49, 0x59, 0x08, 6, 0, 0, 0};
static const uint8_t snappy_word[] = {6, 0x14, 's', 'l', 'u', 'i', 'c', 'e'};
static const uint8_t xerial_word[] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
	0, 0, 0, 5, 3, 8, 's', 'l', 'u', 0, 0, 0, 5, 3, 8, 'i', 'c', 'e'};
static const uint8_t lz4_word[] = {4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 6, 0, 0, 0x80,
	's', 'l', 'u', 'i', 'c', 'e', 0, 0, 0, 0};
static const uint8_t zstd_word[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 6, 0x31, 0, 0,
	's', 'l', 'u', 'i', 'c', 'e'};
/* clang-format on */

static uint8_t *copy_of(const uint8_t *at, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	ck_assert_ptr_nonnull(copy);
	memcpy(copy, at, len);
	return copy;
}

static void seal_crc(uint8_t *at, size_t len)
{
	put_u32be(at + 17, crc32c(bytes_of(at + 21, len - 21)));
}

static enum err read_and_check(const uint8_t *at, size_t len)
{
	struct batch b;
	enum err e = batch_read(bytes_of(at, len), &b);
	return e == OK ? batch_check(&b, INFLATED_MAX) : e;
}

START_TEST(reads_what_kafka_python_wrote)
{
	struct batch b;
	ck_assert_int_eq(batch_read(bytes_of(golden, sizeof golden), &b), OK);
	ck_assert_uint_eq(b.all.len, sizeof golden);
	ck_assert_int_eq(b.count, 3);
	ck_assert_int_eq(b.producer_id, 77);
	ck_assert_int_eq(b.producer_epoch, 3);
	ck_assert_int_eq(b.base_sequence, 9);
	ck_assert_int_eq(b.base_ms, 1700000000000);
	ck_assert_int_eq(b.max_ms, 1700000000250);
	ck_assert_int_eq(batch_check(&b, 0), OK);

	struct batch_walk w;
	struct record r;
	ck_assert_int_eq(batch_walk_init(&w, &b, 0), OK);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(bytes_equal(r.key, bytes_text("k")) && !r.null_key);
	ck_assert(bytes_equal(r.value, bytes_text("hello")));
	ck_assert_int_eq(r.header_count, 2);
	struct record_header h;
	ck_assert_int_eq(record_header_find(&r, "n", &h), OK);
	ck_assert(h.null_value);
	ck_assert_int_eq(record_header_find(&r, "h", &h), OK);
	ck_assert(bytes_equal(h.value, bytes_text("v")));
	ck_assert_int_eq(record_header_find(&r, "hh", &h), ERR_NOTFOUND);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(r.null_key && !r.null_value && r.value.len == 0);
	ck_assert_int_eq(r.timestamp_ms, 1700000000250);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(r.null_value && r.offset_delta == 2);
	ck_assert_int_eq(r.timestamp_ms, 1699999999000);
	ck_assert_int_eq(batch_walk_next(&w, &r), ERR_NOTFOUND);
	batch_walk_fini(&w);
}
END_TEST

START_TEST(every_prefix_wants_more)
{
	uint8_t *exact = copy_of(golden, (size_t)_i);
	struct batch b;
	ck_assert_int_eq(batch_read(bytes_of(exact, (size_t)_i), &b), ERR_MORE);
	free(exact);
}
END_TEST

/* The record section cut short, with header and CRC that vouch for it. */
START_TEST(every_cut_of_the_records_is_refused)
{
	size_t len = AT_RECORDS + (size_t)_i;
	uint8_t *exact = copy_of(golden, len);
	put_u32be(exact + 8, (uint32_t)(len - 12));
	seal_crc(exact, len);
	ck_assert_int_eq(read_and_check(exact, len), ERR_MALFORMED);
	free(exact);
}
END_TEST

/* Any one byte changed breaks the CRC; with the CRC made good it must still never be read past
 * its end (the sanitizers watch), whatever the answer. */
START_TEST(every_byte_mutated)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	for (int v = 0; v < LEN(values); v++) {
		uint8_t *exact = copy_of(golden, sizeof golden);
		bool same = exact[_i] == values[v];
		exact[_i] = values[v];
		if (_i >= 21 && !same)
			ck_assert_int_ne(read_and_check(exact, sizeof golden), OK);
		seal_crc(exact, sizeof golden);
		struct batch b;
		if (batch_read(bytes_of(exact, sizeof golden), &b) == OK)
			ck_assert_int_lt(batch_check(&b, INFLATED_MAX), ERR_COUNT);
		free(exact);
	}
}
END_TEST

static const struct refusal {
	int at;
	uint8_t value;
	enum err want;
	const char *why;
} refusals[] = {
	{16, 1, ERR_UNSUPPORTED, "magic 1"},
	{16, 3, ERR_MALFORMED, "magic 3"},
	{11, 48, ERR_MALFORMED, "shorter than a header"},
	{8, 0x80, ERR_MALFORMED, "negative length"},
	{22, 5, ERR_MALFORMED, "no such codec"},
	{26, 3, ERR_INVALID, "last delta is not count - 1"},
	{60, 2, ERR_INVALID, "count is not last delta + 1"},
	{57, 0x80, ERR_MALFORMED, "negative count"},
	{57, 0x40, ERR_MALFORMED, "count over the maximum"},
	{42, 0xfb, ERR_INVALID, "max timestamp no record has"},
	{61 + 3, 2, ERR_INVALID, "first offset delta 1"},
	{61 + 20 + 4, 4, ERR_INVALID, "offset delta repeated"},
	{61, 0x28, ERR_MALFORMED, "record length over its fields"},
	{61, 0x24, ERR_MALFORMED, "record length under its fields"},
	{61, 0x01, ERR_MALFORMED, "negative record length"},
	{61 + 4, 3, ERR_MALFORMED, "key length -2"},
	{61 + 12, 6, ERR_MALFORMED, "a header more than there is"},
	{61 + 12, 2, ERR_MALFORMED, "a header fewer than there are"},
	{61 + 12, 1, ERR_MALFORMED, "negative header count"},
	{61 + 13, 1, ERR_MALFORMED, "null header name"},
	{61 + 19, 3, ERR_MALFORMED, "header value length -2"},
};

START_TEST(refuses)
{
	const struct refusal *c = &refusals[_i];
	uint8_t *exact = copy_of(golden, sizeof golden);
	ck_assert_msg(exact[c->at] != c->value, "%s: mutates nothing", c->why);
	exact[c->at] = c->value;
	seal_crc(exact, sizeof golden);
	enum err e = read_and_check(exact, sizeof golden);
	ck_assert_msg(e == c->want, "%s: %s", c->why, err_text(e));
	free(exact);
}
END_TEST

START_TEST(counts_fewer_records_than_there_are)
{
	uint8_t *exact = copy_of(golden, sizeof golden);
	exact[26] = 1;
	exact[60] = 2;
	seal_crc(exact, sizeof golden);
	ck_assert_int_eq(read_and_check(exact, sizeof golden), ERR_MALFORMED);
	exact[26] = 3;
	exact[60] = 4;
	seal_crc(exact, sizeof golden);
	ck_assert_int_eq(read_and_check(exact, sizeof golden), ERR_MALFORMED);
	free(exact);
}
END_TEST

START_TEST(a_wrong_crc_is_corrupt)
{
	uint8_t *exact = copy_of(golden, sizeof golden);
	exact[sizeof golden - 3] ^= 1;
	ck_assert_int_eq(read_and_check(exact, sizeof golden), ERR_CORRUPT);
	free(exact);
}
END_TEST

START_TEST(offset_and_epoch_are_outside_the_crc)
{
	uint8_t *exact = copy_of(golden, sizeof golden);
	batch_set_offset(exact, 0x123456789a, 42);
	struct batch b;
	ck_assert_int_eq(batch_read(bytes_of(exact, sizeof golden), &b), OK);
	ck_assert_int_eq(b.base_offset, 0x123456789a);
	ck_assert_int_eq(b.leader_epoch, 42);
	ck_assert_int_eq(batch_check(&b, 0), OK);
	free(exact);
}
END_TEST

START_TEST(append_time_replaces_all_timestamps)
{
	uint8_t *exact = copy_of(golden, sizeof golden);
	batch_set_append_time(exact, sizeof golden, 1800000000000);
	struct batch b;
	ck_assert_int_eq(batch_read(bytes_of(exact, sizeof golden), &b), OK);
	ck_assert(b.append_time);
	ck_assert_int_eq(batch_check(&b, 0), OK);
	struct batch_walk w;
	struct record r;
	ck_assert_int_eq(batch_walk_init(&w, &b, 0), OK);
	while (batch_walk_next(&w, &r) == OK)
		ck_assert_int_eq(r.timestamp_ms, 1800000000000);
	batch_walk_fini(&w);
	free(exact);
}
END_TEST

START_TEST(builds_what_kafka_python_builds)
{
	static const struct record_header headers[] = {
		{.name = {(const uint8_t *)"h", 1}, .value = {(const uint8_t *)"v", 1}},
		{.name = {(const uint8_t *)"n", 1}, .null_value = true},
	};
	struct bytes key = bytes_text("k"), hello = bytes_text("hello"), empty = bytes_of(NULL, 0),
		     key2 = bytes_text("key2");
	struct batch_builder b;
	batch_builder_init(&b, 4096);
	for (int round = 0; round < 2; round++) { /* a sealed builder starts afresh */
		ck_assert_int_eq(
			batch_builder_add(&b, 1700000000000, &key, &hello, headers, 2), OK);
		ck_assert_int_eq(batch_builder_add(&b, 1700000000250, NULL, &empty, NULL, 0), OK);
		ck_assert_int_eq(batch_builder_add(&b, 1699999999000, &key2, NULL, NULL, 0), OK);
		ck_assert_uint_eq(batch_builder_len(&b), sizeof golden);
		struct slice s = batch_builder_seal(&b);
		ck_assert_uint_eq(s.bytes.len, sizeof golden);
		ck_assert_mem_eq(
			s.bytes.at + AT_RECORDS, golden + AT_RECORDS, sizeof golden - AT_RECORDS);
		ck_assert_mem_eq(s.bytes.at + 21, golden + 21, 43 - 21);
		struct batch read;
		ck_assert_int_eq(batch_read(s.bytes, &read), OK);
		ck_assert_int_eq(read.producer_id, -1);
		ck_assert_int_eq(read.producer_epoch, -1);
		ck_assert_int_eq(read.base_sequence, -1);
		ck_assert_int_eq(batch_check(&read, 0), OK);
		slice_unref(&s);
	}
	ck_assert_uint_eq(batch_builder_len(&b), 0);
	ck_assert_ptr_null(batch_builder_seal(&b).chunk);
	batch_builder_fini(&b);
}
END_TEST

START_TEST(a_full_builder_keeps_what_it_has)
{
	static const uint8_t big[300];
	struct bytes value = bytes_of(big, 20), too_big = bytes_of(big, sizeof big);
	struct bytes absurd = bytes_of(big, (size_t)INT32_MAX + 1);
	struct batch_builder b;
	batch_builder_init(&b, 128);
	ck_assert_int_eq(batch_builder_add(&b, 5, NULL, &too_big, NULL, 0), ERR_TOOBIG);
	ck_assert_int_eq(batch_builder_add(&b, 5, NULL, &absurd, NULL, 0), ERR_TOOBIG);
	ck_assert_uint_eq(batch_builder_len(&b), 0);
	int added = 0;
	while (batch_builder_add(&b, 5, NULL, &value, NULL, 0) == OK)
		added++;
	ck_assert_int_eq(added, (128 - BATCH_HEADER_BYTES) / 27);
	struct bytes small = bytes_of(big, 1);
	ck_assert_int_eq(batch_builder_add(&b, 6, NULL, &small, NULL, 0), OK);
	struct slice s = batch_builder_seal(&b);
	ck_assert_int_eq(read_and_check(s.bytes.at, s.bytes.len), OK);
	struct batch read;
	ck_assert_int_eq(batch_read(s.bytes, &read), OK);
	ck_assert_int_eq(read.count, added + 1);
	slice_unref(&s);
	batch_builder_fini(&b);
}
END_TEST

/* Each varint size: values, deltas and times far apart come back as they went in. */
START_TEST(large_and_extreme_values_survive)
{
	static const size_t lens[] = {0, 63, 64, 8191, 8192, 100000};
	static const int64_t times[] = {0, 1, -1, 1LL << 40, INT64_MAX, INT64_MIN};
	static uint8_t fill[100000];
	struct batch_builder b;
	batch_builder_init(&b, 1 << 20);
	for (int i = 0; i < LEN(lens); i++) {
		struct bytes v = bytes_of(fill, lens[i]);
		ck_assert_int_eq(batch_builder_add(&b, times[i], &v, &v, NULL, 0), OK);
	}
	struct slice s = batch_builder_seal(&b);
	struct batch read;
	struct batch_walk w;
	struct record r;
	ck_assert_int_eq(batch_read(s.bytes, &read), OK);
	ck_assert_int_eq(batch_check(&read, 0), OK);
	ck_assert_int_eq(batch_walk_init(&w, &read, 0), OK);
	for (int i = 0; i < LEN(lens); i++) {
		ck_assert_int_eq(batch_walk_next(&w, &r), OK);
		ck_assert_uint_eq(r.key.len, lens[i]);
		ck_assert_uint_eq(r.value.len, lens[i]);
		ck_assert_int_eq(r.timestamp_ms, times[i]);
	}
	ck_assert_int_eq(batch_walk_next(&w, &r), ERR_NOTFOUND);
	batch_walk_fini(&w);
	slice_unref(&s);
	batch_builder_fini(&b);
}
END_TEST

/* The golden batch with its records compressed. Gives the bytes (free them). */
static uint8_t *compressed(enum batch_codec codec, size_t *len)
{
	struct chunk *c;
	size_t section;
	struct bytes plain = bytes_of(golden + AT_RECORDS, sizeof golden - AT_RECORDS);
	ck_assert_int_eq(codec_deflate(codec, plain, &c, &section), OK);
	*len = AT_RECORDS + section;
	uint8_t *at = malloc(*len);
	ck_assert_ptr_nonnull(at);
	memcpy(at, golden, AT_RECORDS);
	memcpy(at + AT_RECORDS, c->data, section);
	chunk_unref(c);
	at[22] = (uint8_t)codec;
	put_u32be(at + 8, (uint32_t)(*len - 12));
	seal_crc(at, *len);
	return at;
}

START_TEST(compressed_batches_are_checked_and_walked)
{
	size_t len, plain = sizeof golden - AT_RECORDS;
	uint8_t *at = compressed((enum batch_codec)_i, &len);
	struct batch b;
	ck_assert_int_eq(batch_read(bytes_of(at, len), &b), OK);
	ck_assert_int_eq(b.codec, _i);
	ck_assert_int_eq(batch_check(&b, plain), OK);
	ck_assert_int_eq(batch_check(&b, plain - 1), ERR_TOOBIG);
	struct batch_walk w;
	struct record r;
	ck_assert_int_eq(batch_walk_init(&w, &b, INFLATED_MAX), OK);
	ck_assert_int_eq(batch_walk_next(&w, &r), OK);
	ck_assert(bytes_equal(r.value, bytes_text("hello")));
	batch_walk_fini(&w);
	free(at);
}
END_TEST

START_TEST(every_cut_of_a_compressed_section_is_refused)
{
	size_t len;
	uint8_t *at = compressed((enum batch_codec)_i, &len);
	for (size_t cut = AT_RECORDS; cut < len; cut++) {
		uint8_t *exact = copy_of(at, cut);
		put_u32be(exact + 8, (uint32_t)(cut - 12));
		seal_crc(exact, cut);
		ck_assert_int_eq(read_and_check(exact, cut), ERR_MALFORMED);
		free(exact);
	}
	free(at);
}
END_TEST

static const struct word {
	enum batch_codec codec;
	const uint8_t *at;
	size_t len;
} words[] = {
	{CODEC_GZIP, gzip_word, sizeof gzip_word},
	{CODEC_SNAPPY, snappy_word, sizeof snappy_word},
	{CODEC_SNAPPY, xerial_word, sizeof xerial_word},
	{CODEC_LZ4, lz4_word, sizeof lz4_word},
	{CODEC_ZSTD, zstd_word, sizeof zstd_word},
};

START_TEST(inflates_hand_written_blocks)
{
	const struct word *c = &words[_i];
	uint8_t *exact = copy_of(c->at, c->len);
	struct chunk *out;
	size_t len;
	ck_assert_int_eq(codec_inflate(c->codec, bytes_of(exact, c->len), 6, &out, &len), OK);
	ck_assert(bytes_equal(bytes_of(out->data, len), bytes_text("sluice")));
	chunk_unref(out);
	ck_assert_int_eq(
		codec_inflate(c->codec, bytes_of(exact, c->len), 5, &out, &len), ERR_TOOBIG);
	for (size_t cut = 1; cut < c->len; cut++) {
		uint8_t *part = copy_of(exact, cut);
		enum err e = codec_inflate(c->codec, bytes_of(part, cut), 100, &out, &len);
		if (e == OK) { /* Java's framing may end after any block */
			ck_assert(c->at == xerial_word && (cut == 16 || cut == 25));
			chunk_unref(out);
		}
		free(part);
	}
	free(exact);
}
END_TEST

/* Ten MiB of zeros from a few KB: comes back whole, and is refused below its size early. */
START_TEST(a_bomb_is_bounded)
{
	enum { BOMB = 10 << 20 };
	enum batch_codec codec = (enum batch_codec)_i;
	uint8_t *zeros = calloc(1, BOMB);
	struct chunk *packed, *out;
	size_t packed_len, len;
	ck_assert_int_eq(codec_deflate(codec, bytes_of(zeros, BOMB), &packed, &packed_len), OK);
	ck_assert_uint_lt(packed_len, BOMB / 10);
	struct bytes in = bytes_of(packed->data, packed_len);
	ck_assert_int_eq(codec_inflate(codec, in, BOMB, &out, &len), OK);
	ck_assert_uint_eq(len, BOMB);
	ck_assert_mem_eq(out->data, zeros, BOMB);
	chunk_unref(out);
	ck_assert_int_eq(codec_inflate(codec, in, BOMB - 1, &out, &len), ERR_TOOBIG);
	ck_assert_int_eq(codec_inflate(codec, in, 1000, &out, &len), ERR_TOOBIG);
	chunk_unref(packed);
	free(zeros);
}
END_TEST

START_TEST(every_codec_keeps_the_empty_block)
{
	struct chunk *packed, *out;
	size_t packed_len, len;
	enum batch_codec codec = (enum batch_codec)_i;
	ck_assert_int_eq(codec_deflate(codec, bytes_of("", 0), &packed, &packed_len), OK);
	ck_assert_int_eq(
		codec_inflate(codec, bytes_of(packed->data, packed_len), 0, &out, &len), OK);
	ck_assert_uint_eq(len, 0);
	chunk_unref(out);
	chunk_unref(packed);
}
END_TEST

/* Every allocation fails once: the error comes out and nothing leaks (the sanitizer counts). */
START_TEST(survives_failed_allocations)
{
	enum batch_codec codec = (enum batch_codec)_i;
	uint8_t *zeros = calloc(1, 1 << 20);
	struct chunk *packed, *out;
	size_t packed_len, len;
	ck_assert_int_eq(codec_deflate(codec, bytes_of(zeros, 1 << 20), &packed, &packed_len), OK);
	int failed = 0;
	for (int n = 0; n < 8; n++) {
		mem_fail_at(n);
		enum err e = codec_inflate(
			codec, bytes_of(packed->data, packed_len), 1 << 20, &out, &len);
		ck_assert(e == OK || e == ERR_NOMEM);
		failed += e == ERR_NOMEM;
		if (e == OK)
			chunk_unref(out);
	}
	ck_assert_int_ge(failed, 1);
	chunk_unref(packed);
	mem_fail_at(0);
	ck_assert_int_eq(codec_deflate(codec, bytes_of(zeros, 100), &packed, &len), ERR_NOMEM);
	struct batch_builder b;
	batch_builder_init(&b, 1 << 21);
	struct bytes v = bytes_of(zeros, 100), big = bytes_of(zeros, 1 << 20);
	mem_fail_at(0);
	ck_assert_int_eq(batch_builder_add(&b, 1, NULL, &v, NULL, 0), ERR_NOMEM);
	ck_assert_int_eq(batch_builder_add(&b, 1, NULL, &v, NULL, 0), OK);
	mem_fail_at(0);
	ck_assert_int_eq(batch_builder_add(&b, 1, NULL, &big, NULL, 0), ERR_NOMEM);
	mem_fail_at(-1);
	ck_assert_int_eq(batch_builder_add(&b, 1, NULL, &v, NULL, 0), OK);
	struct slice s = batch_builder_seal(&b);
	ck_assert_int_eq(read_and_check(s.bytes.at, s.bytes.len), OK);
	slice_unref(&s);
	batch_builder_fini(&b);
	free(zeros);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("record_batch");
	int records = (int)sizeof golden - AT_RECORDS;
	tcase_add_test(tc, reads_what_kafka_python_wrote);
	tcase_add_loop_test(tc, every_prefix_wants_more, 0, sizeof golden);
	tcase_add_loop_test(tc, every_cut_of_the_records_is_refused, 0, records);
	tcase_add_loop_test(tc, every_byte_mutated, 0, sizeof golden);
	tcase_add_loop_test(tc, refuses, 0, LEN(refusals));
	tcase_add_test(tc, counts_fewer_records_than_there_are);
	tcase_add_test(tc, a_wrong_crc_is_corrupt);
	tcase_add_test(tc, offset_and_epoch_are_outside_the_crc);
	tcase_add_test(tc, append_time_replaces_all_timestamps);
	tcase_add_test(tc, builds_what_kafka_python_builds);
	tcase_add_test(tc, a_full_builder_keeps_what_it_has);
	tcase_add_test(tc, large_and_extreme_values_survive);
	tcase_add_loop_test(tc, compressed_batches_are_checked_and_walked, 1, CODEC_COUNT);
	tcase_add_loop_test(tc, every_cut_of_a_compressed_section_is_refused, 1, CODEC_COUNT);
	tcase_add_loop_test(tc, inflates_hand_written_blocks, 0, LEN(words));
	tcase_add_loop_test(tc, a_bomb_is_bounded, 1, CODEC_COUNT);
	tcase_add_loop_test(tc, every_codec_keeps_the_empty_block, 0, CODEC_COUNT);
	tcase_add_loop_test(tc, survives_failed_allocations, 1, CODEC_COUNT);
	Suite *s = suite_create("record_batch");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
