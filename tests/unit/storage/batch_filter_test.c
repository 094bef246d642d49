/* Taking records out of batches: for each codec, against what was put in. */
#include <check.h>
#include <stdlib.h>
#include "server/base/crc32c.h"
#include "server/base/mem.h"
#include "storage/batch_filter.h"

enum { RECORDS = 200, ALLOCS = 12, AT_CRC = 17, AT_ATTRIBUTES = 21, AT_MAX_TIME = 35 };

static uint8_t value_bytes[RECORDS];

/* Record i: key "k<i%7>" or none (i % 5 == 0), a value of i bytes or null (i % 11 == 0), two
 * headers with every third; times go up and down. */
static struct bytes key_of(int i, char *room)
{
	room[0] = 'k';
	room[1] = (char)('0' + i % 7);
	return bytes_of(room, 2);
}

static int64_t time_of(int i)
{
	return 1000 + (i % 2 ? i : -i);
}

static void add_one(struct batch_builder *b, int i)
{
	struct record_header headers[2] = {
		{bytes_text("a"), bytes_text("one"), false}, {bytes_text("b"), {NULL, 0}, true}};
	char room[2];
	struct bytes key = key_of(i, room), value = bytes_of(value_bytes, (size_t)i);

	ck_assert_int_eq(batch_builder_add(b, time_of(i), i % 5 ? &key : NULL,
				 i % 11 ? &value : NULL, headers, i % 3 ? 0 : 2),
		OK);
}

static struct slice recoded(struct slice s, enum batch_codec codec)
{
	struct chunk *packed, *c;
	struct slice out;
	size_t len;

	ck_assert_int_eq(
		codec_deflate(codec,
			bytes_of(s.bytes.at + BATCH_HEADER_BYTES, s.bytes.len - BATCH_HEADER_BYTES),
			&packed, &len),
		OK);
	c = chunk_try(BATCH_HEADER_BYTES + len);
	memcpy(c->data, s.bytes.at, BATCH_HEADER_BYTES);
	memcpy(c->data + BATCH_HEADER_BYTES, packed->data, len);
	c->data[AT_ATTRIBUTES + 1] = (uint8_t)codec;
	chunk_unref(packed);
	batch_set_records(c->data, BATCH_HEADER_BYTES + len, RECORDS,
		(int64_t)get_u64be(s.bytes.at + AT_MAX_TIME));
	out = slice_of(c, bytes_of(c->data, BATCH_HEADER_BYTES + len));
	chunk_unref(c);
	slice_unref(&s);
	return out;
}

static struct slice made(enum batch_codec codec)
{
	struct batch_builder b;
	struct slice s;

	batch_builder_init(&b, 1 << 20);
	for (int i = 0; i < RECORDS; i++)
		add_one(&b, i);
	s = batch_builder_seal(&b);
	batch_builder_fini(&b);
	batch_set_offset(s.chunk->data, 5000, 3);
	return codec == CODEC_NONE ? s : recoded(s, codec);
}

static struct batch read(struct slice s)
{
	struct batch b;

	ck_assert_int_eq(batch_read(s.bytes, &b), OK);
	ck_assert_uint_eq(b.all.len, s.bytes.len);
	ck_assert_uint_eq(
		crc32c(bytes_of(s.bytes.at + AT_ATTRIBUTES, s.bytes.len - AT_ATTRIBUTES)), b.crc);
	return b;
}

static bool every_third(void *arg, const struct record *r, int64_t offset)
{
	int *asked = arg;

	ck_assert_int_eq(offset, 5000 + *asked);
	ck_assert_int_eq(r->offset_delta, *asked);
	ck_assert(r->null_key == (*asked % 5 == 0));
	++*asked;
	return r->offset_delta % 3 == 1;
}

static bool all(void *arg, const struct record *r, int64_t offset)
{
	(void)arg, (void)r, (void)offset;
	return true;
}

static bool none(void *arg, const struct record *r, int64_t offset)
{
	(void)arg, (void)r, (void)offset;
	return false;
}

static void same_record(const struct record *r, int i)
{
	char room[2];
	struct bytes rest = r->headers;
	struct record_header h;

	ck_assert_int_eq(r->offset_delta, i);
	ck_assert_int_eq(r->timestamp_ms, time_of(i));
	ck_assert(r->null_key == (i % 5 == 0) && r->null_value == (i % 11 == 0));
	ck_assert(r->null_key || bytes_equal(r->key, key_of(i, room)));
	ck_assert(r->null_value || bytes_equal(r->value, bytes_of(value_bytes, (size_t)i)));
	ck_assert_int_eq(r->header_count, i % 3 ? 0 : 2);
	if (i % 3)
		return;
	ck_assert_int_eq(record_header_next(&rest, &h), OK);
	ck_assert(bytes_equal(h.value, bytes_text("one")));
	ck_assert_int_eq(record_header_next(&rest, &h), OK);
	ck_assert(h.null_value && rest.len == 0);
}

START_TEST(some_go)
{
	struct slice s = made((enum batch_codec)_i), out;
	struct batch b = read(s), less;
	int asked = 0, i = 1;
	struct batch_filter f = {every_third, &asked};
	enum batch_left left;
	struct batch_walk w;
	struct record r;
	int64_t newest = 0;

	ck_assert_int_eq(batch_filter_run(&b, &f, &left, &out), OK);
	ck_assert_int_eq(left, BATCH_LESS);
	ck_assert_int_eq(asked, RECORDS);
	less = read(out);
	ck_assert_int_eq(less.base_offset, b.base_offset);
	ck_assert_int_eq(less.last_offset_delta, b.last_offset_delta);
	ck_assert_int_eq(less.leader_epoch, b.leader_epoch);
	ck_assert_int_eq(less.codec, _i);
	ck_assert_int_eq(less.base_ms, b.base_ms);
	ck_assert_int_eq(less.producer_id, b.producer_id);
	ck_assert_int_eq(less.base_sequence, b.base_sequence);
	ck_assert_int_eq(less.count, (RECORDS - 1 + 2) / 3);
	ck_assert_int_eq(batch_walk_init(&w, &less, 1 << 20), OK);
	for (; batch_walk_next(&w, &r) == OK; i += 3) {
		same_record(&r, i);
		newest = r.timestamp_ms > newest ? r.timestamp_ms : newest;
	}
	ck_assert_int_eq(i / 3, less.count);
	ck_assert_int_eq(less.max_ms, newest);
	batch_walk_fini(&w);
	slice_unref(&out);
	slice_unref(&s);
}
END_TEST

START_TEST(all_or_none)
{
	struct slice s = made((enum batch_codec)_i), out = {NULL, {NULL, 0}};
	struct batch b = read(s);
	struct batch_filter f = {all, NULL};
	enum batch_left left;

	ck_assert_int_eq(batch_filter_run(&b, &f, &left, &out), OK);
	ck_assert_int_eq(left, BATCH_WHOLE);
	f.keep = none;
	ck_assert_int_eq(batch_filter_run(&b, &f, &left, &out), OK);
	ck_assert_int_eq(left, BATCH_GONE);
	ck_assert_ptr_null(out.chunk);
	slice_unref(&s);
}
END_TEST

/* Records of control batches say how transactions ended: nobody asks for their keys. */
START_TEST(control_stays)
{
	struct slice s = made(CODEC_NONE), out;
	struct batch b;
	struct batch_filter f = {none, NULL};
	enum batch_left left;

	s.chunk->data[AT_ATTRIBUTES + 1] |= 0x20;
	ck_assert_int_eq(batch_read(s.bytes, &b), OK);
	ck_assert_int_eq(batch_filter_run(&b, &f, &left, &out), OK);
	ck_assert_int_eq(left, BATCH_WHOLE);
	slice_unref(&s);
}
END_TEST

/* The server's time is the batch's, whichever records stay. */
START_TEST(append_time_stays)
{
	struct slice s = made(CODEC_NONE), out;
	struct batch b, less;
	int asked = 0;
	struct batch_filter f = {every_third, &asked};
	enum batch_left left;

	batch_set_append_time(s.chunk->data, s.bytes.len, 777777);
	b = read(s);
	ck_assert_int_eq(batch_filter_run(&b, &f, &left, &out), OK);
	less = read(out);
	ck_assert(less.append_time);
	ck_assert_int_eq(less.max_ms, 777777);
	slice_unref(&out);
	slice_unref(&s);
}
END_TEST

/* Cut anywhere: an error, or (the cut of a compressed one may not show) a batch that can be read.
 */
START_TEST(bad_bytes_are_refused)
{
	struct slice s = made((enum batch_codec)_i);
	struct batch b = read(s);
	int refused = 0;

	for (size_t len = 0; len < b.records.len; len += len < 600 ? 1 : 97) {
		struct batch_filter f = {all, NULL};
		struct batch cut = b;
		struct slice out = {NULL, {NULL, 0}};
		enum batch_left left;
		uint8_t *own = malloc(len + 1); /* its very end is the sanitizer's */

		memcpy(own, b.records.at, len);
		own = realloc(own, len ? len : 1);
		cut.records = bytes_of(own, len);
		refused += batch_filter_run(&cut, &f, &left, &out) != OK;
		slice_unref(&out);
		free(own);
	}
	ck_assert_int_gt(refused, 20);
	if (_i == CODEC_NONE) /* each of them */
		ck_assert_int_ge(refused, 600);
	slice_unref(&s);
}
END_TEST

START_TEST(changed_bytes_do_no_harm)
{
	struct slice s = made((enum batch_codec)_i), copy;
	struct batch b;

	for (size_t at = BATCH_HEADER_BYTES; at < s.bytes.len; at += at < 400 ? 1 : 131) {
		int asked = 0;
		struct batch_filter f = {none, &asked};
		struct slice out = {NULL, {NULL, 0}};
		enum batch_left left;

		ck_assert_int_eq(slice_copy(s.bytes, &copy), OK);
		copy.chunk->data[at] ^= 0x55;
		if (batch_read(copy.bytes, &b) == OK)
			(void)!batch_filter_run(&b, &f, &left, &out);
		slice_unref(&out);
		slice_unref(&copy);
	}
	slice_unref(&s);
}
END_TEST

static bool odd(void *arg, const struct record *r, int64_t offset)
{
	(void)arg, (void)r;
	return offset % 2;
}

START_TEST(survives_failed_alloc)
{
	struct slice s = made((enum batch_codec)(_i / ALLOCS)), out = {NULL, {NULL, 0}};
	struct batch b = read(s);
	struct batch_filter f = {odd, NULL};
	enum batch_left left;
	enum err e;

	mem_fail_at(_i % ALLOCS);
	e = batch_filter_run(&b, &f, &left, &out);
	mem_fail_at(-1);
	ck_assert(e == OK || e == ERR_NOMEM);
	ck_assert(e == OK || out.chunk == NULL);
	slice_unref(&out);
	slice_unref(&s);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("batch_filter");
	Suite *s = suite_create("batch_filter");
	SRunner *sr;
	int failed;

	memset(value_bytes, 'v', sizeof value_bytes);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, some_go, 0, CODEC_COUNT);
	tcase_add_loop_test(tc, all_or_none, 0, CODEC_COUNT);
	tcase_add_test(tc, control_stays);
	tcase_add_test(tc, append_time_stays);
	tcase_add_loop_test(tc, bad_bytes_are_refused, 0, CODEC_COUNT);
	tcase_add_loop_test(tc, changed_bytes_do_no_harm, 0, CODEC_COUNT);
	tcase_add_loop_test(tc, survives_failed_alloc, 0, CODEC_COUNT * ALLOCS);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
