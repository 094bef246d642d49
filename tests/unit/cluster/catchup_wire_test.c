/* Catch-up's messages: what was written is read again, no prefix of it is, and a changed byte is
 * noticed where a checksum or a rule can. */
#include <check.h>
#include <stdlib.h>
#include "cluster/catchup_wire.h"
#include "server/base/mem.h"

static struct slice question(int which)
{
	static const struct catchup_question all[] = {
		{.what = CATCHUP_OPEN, .index_min = 77},
		{.what = CATCHUP_NEXT, .session = 5, .part = CATCHUP_LOG, .index = 9},
		{.what = CATCHUP_NEXT, .session = 5, .part = CATCHUP_ROWS},
		{.what = CATCHUP_NEXT,
			.session = 5,
			.part = CATCHUP_ROWS,
			.after = {(const uint8_t *)"\1key", 4}},
		{.what = CATCHUP_CLOSE, .session = 6, .whole = true},
		{.what = CATCHUP_CLOSE, .session = 6},
	};
	struct slice s;
	struct catchup_question q;

	ck_assert_int_eq(catchup_question_encode(&all[which], &s), OK);
	ck_assert_int_eq(catchup_question_decode(s.bytes, &q), OK);
	ck_assert_int_eq(q.what, all[which].what);
	ck_assert_uint_eq(q.index_min, all[which].index_min);
	ck_assert_uint_eq(q.session, all[which].session);
	ck_assert_int_eq(q.part, all[which].part);
	ck_assert_uint_eq(q.index, all[which].index);
	ck_assert(bytes_equal(q.after, all[which].after));
	ck_assert_int_eq(q.whole, all[which].whole);
	return s;
}

/* Of exactly this size, so that a sanitizer sees what is read beyond. */
static struct bytes exact(struct bytes in, size_t len)
{
	uint8_t *at = malloc(len > 0 ? len : 1);

	ck_assert(at != NULL);
	memcpy(at, in.at, len);
	return bytes_of(at, len);
}

static void drop(struct bytes b)
{
	free((void *)(uintptr_t)b.at);
}

START_TEST(questions)
{
	struct slice s = question(_i);
	struct catchup_question q;

	for (size_t len = 0; len < s.bytes.len; len++) {
		struct bytes cut = exact(s.bytes, len);

		ck_assert_int_eq(catchup_question_decode(cut, &q), ERR_MALFORMED);
		drop(cut);
	}
	struct bytes more = exact(s.bytes, s.bytes.len + 0), bad = more;
	uint8_t *at = (uint8_t *)(uintptr_t)bad.at;
	at[0] = 2;
	ck_assert_int_eq(catchup_question_decode(bad, &q), ERR_UNSUPPORTED);
	at[0] = 1;
	at[1] = 9;
	ck_assert_int_eq(catchup_question_decode(bad, &q), ERR_MALFORMED);
	drop(more);
	slice_unref(&s);
}
END_TEST

static struct slice opened(void)
{
	struct catchup_opened o = {.session = 4,
		.first = {.index = 10, .term = 1, .next_offset = 5, .max_ms = 3, .bytes = 7},
		.last = {.index = 20,
			.term = 2,
			.next_offset = 50,
			.max_ms = 30,
			.bytes = 70,
			.hlc = 9},
		.first_offset = 6,
		.config_index = 12,
		.config = bytes_text("configuration")};
	struct slice s;

	ck_assert_int_eq(catchup_opened_encode(&o, &s), OK);
	return s;
}

START_TEST(opening)
{
	struct slice s = opened();
	struct catchup_opened o;

	ck_assert_int_eq(catchup_opened_decode(s.bytes, &o), OK);
	ck_assert_uint_eq(o.session, 4);
	ck_assert_uint_eq(o.first.index, 10);
	ck_assert_uint_eq(o.first.bytes, 7);
	ck_assert_uint_eq(o.last.term, 2);
	ck_assert_int_eq(o.last.hlc, 9);
	ck_assert_int_eq(o.first_offset, 6);
	ck_assert_uint_eq(o.config_index, 12);
	ck_assert(bytes_equal(o.config, bytes_text("configuration")));
	for (size_t len = 0; len < s.bytes.len; len++) {
		struct bytes cut = exact(s.bytes, len);

		ck_assert_int_eq(catchup_opened_decode(cut, &o), ERR_MALFORMED);
		drop(cut);
	}
	slice_unref(&s);
}
END_TEST

/* What would break a rule: 64-bit fields by their place, and a value that does. */
static const struct {
	size_t at;
	uint64_t value;
} wrong[] = {
	{1, 0},            /* session */
	{9, 21},           /* begins above its end */
	{17, 3},           /* terms fall */
	{25, 51},          /* offsets fall */
	{25, UINT64_MAX},  /* below 0 */
	{33, 31},          /* times fall */
	{41, 71},          /* bytes fall */
	{57, 0},           /* nothing is there */
	{57, UINT64_MAX},  /* no index */
	{105, 51},         /* begins behind the last record */
	{105, UINT64_MAX}, /* below 0 */
	{113, 0},          /* no configuration */
	{113, 21},         /* one that is not in force yet */
};
START_TEST(opening_against_the_rules)
{
	struct slice s = opened();
	struct catchup_opened o;

	put_u64be(s.chunk->data + wrong[_i].at, wrong[_i].value);
	ck_assert_int_eq(catchup_opened_decode(s.bytes, &o), ERR_MALFORMED);
	slice_unref(&s);
}
END_TEST

enum { ITEMS = 3 };

static struct entry_header head(int i, struct bytes payload)
{
	struct slice s;
	struct entry *e;
	struct entry_header h;

	ck_assert_int_eq(slice_copy(payload, &s), OK);
	e = entry_new(&s, payload.len > 0);
	if (payload.len == 0)
		slice_unref(&s);
	h = e->head;
	h.term = 4;
	h.count = (uint32_t)i;
	h.base_offset = i * 10;
	if (i == 1) {
		h.flags = ENTRY_HAS_ORIGIN;
		h.origin = (struct entry_origin){1, 2, 3};
	}
	entry_unref(e);
	return h;
}

static const char *const texts[ITEMS] = {"one", "", "three"};

static struct slice chunk(enum catchup_part part)
{
	struct catchup_maker m;

	ck_assert_int_eq(catchup_chunk_begin(&m, 1000), OK);
	for (int i = 0; i < ITEMS; i++) {
		struct bytes value = bytes_text(texts[i]);
		struct entry_header h = head(i, value);
		size_t before = catchup_chunk_room(&m), costs;

		if (part == CATCHUP_LOG) {
			catchup_chunk_entry(&m, 7 + (uint64_t)i, &h, value);
			costs = catchup_entry_bytes(&h, value.len);
			ck_assert_uint_le(costs, CATCHUP_ENTRY_BYTES_MAX + value.len);
		} else {
			catchup_chunk_row(&m, bytes_text(i == 1 ? "\1b" : "\1a"), value);
			costs = catchup_row_bytes(2, value.len);
		}
		ck_assert_uint_eq(before - catchup_chunk_room(&m), costs);
	}
	return catchup_chunk_end(&m, part, part == CATCHUP_ROWS, 99);
}

static enum err read_all(struct bytes in, int *count)
{
	struct catchup_chunk c;
	struct catchup_item item;
	enum err e = catchup_chunk_decode(in, &c);

	*count = 0;
	if (e != OK)
		return e;
	while ((e = catchup_chunk_next(&c, &item)) == OK)
		(*count)++;
	return e;
}

START_TEST(chunks)
{
	enum catchup_part part = _i == 0 ? CATCHUP_LOG : CATCHUP_ROWS;
	struct slice s = chunk(part);
	struct catchup_chunk c;
	struct catchup_item item;

	ck_assert_int_eq(catchup_chunk_decode(s.bytes, &c), OK);
	ck_assert_int_eq(c.part, part);
	ck_assert_int_eq(c.last, part == CATCHUP_ROWS);
	ck_assert_uint_eq(c.group, 99);
	ck_assert_uint_eq(c.items, ITEMS);
	for (int i = 0; i < ITEMS; i++) {
		ck_assert_int_eq(catchup_chunk_next(&c, &item), OK);
		ck_assert(bytes_equal(_i == 0 ? item.payload : item.value, bytes_text(texts[i])));
		if (part == CATCHUP_LOG) {
			ck_assert_uint_eq(item.index, 7 + (uint64_t)i);
			ck_assert_uint_eq(item.head.count, (uint32_t)i);
			ck_assert_int_eq(item.head.origin.offset, i == 1 ? 3 : 0);
		} else {
			ck_assert(bytes_equal(item.key, bytes_text(i == 1 ? "\1b" : "\1a")));
		}
	}
	ck_assert_int_eq(catchup_chunk_next(&c, &item), ERR_NOTFOUND);
	slice_unref(&s);
}
END_TEST

START_TEST(no_part_of_a_chunk_is_taken)
{
	struct slice s = chunk(_i == 0 ? CATCHUP_LOG : CATCHUP_ROWS);
	int count;

	for (size_t len = 0; len < s.bytes.len; len++) {
		struct bytes cut = exact(s.bytes, len);
		enum err e = read_all(cut, &count);

		ck_assert(e == ERR_MALFORMED || e == ERR_CORRUPT);
		ck_assert_int_eq(count, 0);
		drop(cut);
	}
	/* The checksum covers all behind it; what stands before is judged by itself. */
	for (size_t at = 0; at < s.bytes.len; at++) {
		for (int bit = 0; bit < 8; bit++) {
			s.chunk->data[at] ^= (uint8_t)(1 << bit);
			enum err e = read_all(s.bytes, &count);

			if (at != 1 && at != 2)
				ck_assert_int_ne(e, ERR_NOTFOUND);
			s.chunk->data[at] ^= (uint8_t)(1 << bit);
		}
	}
	ck_assert_int_eq(read_all(s.bytes, &count), ERR_NOTFOUND);
	slice_unref(&s);
}
END_TEST

/* Made by a peer that errs, with a right checksum. */
static enum err made(enum catchup_part part, struct bytes body, uint32_t items)
{
	struct catchup_maker m;
	struct slice s;
	int count;
	enum err e;

	ck_assert_int_eq(catchup_chunk_begin(&m, 1000), OK);
	wr_bytes(&m.w, body);
	m.items = items;
	s = catchup_chunk_end(&m, part, false, 1);
	e = read_all(s.bytes, &count);
	slice_unref(&s);
	return e;
}

START_TEST(items_are_checked)
{
	uint8_t at[200];
	struct wr w;
	struct bytes payload = bytes_text("payload");
	struct entry_header h = head(0, payload);
	uint8_t header[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];

	ck_assert_int_eq(made(CATCHUP_ROWS, bytes_of("", 0), 0), ERR_NOTFOUND);
	ck_assert_int_eq(made(CATCHUP_ROWS, bytes_of("x", 1), 0), ERR_MALFORMED);
	ck_assert_int_eq(made(CATCHUP_ROWS, bytes_of("", 0), 1000000), ERR_MALFORMED);
	/* A key of no bytes; a length beyond the end. */
	ck_assert_int_eq(made(CATCHUP_ROWS, bytes_of("\0\0\0\0\0\0\0\0", 8), 1), ERR_MALFORMED);
	ck_assert_int_eq(made(CATCHUP_ROWS, bytes_of("\0\0\0\1\xff\0\0\0k", 9), 1), ERR_MALFORMED);
	for (int wrongness = 0; wrongness < 4; wrongness++) {
		size_t len;

		h.payload_crc ^= wrongness == 1;
		h.payload_bytes += wrongness == 2;
		len = entry_header_encode(&h, header);
		h.payload_crc ^= wrongness == 1;
		h.payload_bytes -= wrongness == 2;
		header[0] ^= wrongness == 3;
		w = wr_over(at, sizeof at);
		wr_u64be(&w, 7);
		wr_u8(&w, (uint8_t)len);
		wr_bytes(&w, bytes_of(header, len));
		wr_u32be(&w, (uint32_t)payload.len);
		wr_bytes(&w, payload);
		enum err want[] = {ERR_NOTFOUND, ERR_CORRUPT, ERR_MALFORMED, ERR_MALFORMED};
		ck_assert_int_eq(made(CATCHUP_LOG, bytes_of(at, wr_len(&w)), 1), want[wrongness]);
	}
}
END_TEST

START_TEST(survives_failed_memory)
{
	struct catchup_question q = {.what = CATCHUP_OPEN};
	struct catchup_opened o = {.session = 1};
	struct catchup_maker m;
	struct slice s;

	mem_fail_at(0);
	ck_assert_int_eq(catchup_question_encode(&q, &s), ERR_NOMEM);
	mem_fail_at(0);
	ck_assert_int_eq(catchup_opened_encode(&o, &s), ERR_NOMEM);
	mem_fail_at(0);
	ck_assert_int_eq(catchup_chunk_begin(&m, 100), ERR_NOMEM);
	mem_fail_at(-1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("catchup_wire");
	TCase *tc = tcase_create("catchup_wire");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, questions, 0, 6);
	tcase_add_test(tc, opening);
	tcase_add_loop_test(tc, opening_against_the_rules, 0, sizeof wrong / sizeof wrong[0]);
	tcase_add_loop_test(tc, chunks, 0, 2);
	tcase_add_loop_test(tc, no_part_of_a_chunk_is_taken, 0, 2);
	tcase_add_test(tc, items_are_checked);
	tcase_add_test(tc, survives_failed_memory);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
