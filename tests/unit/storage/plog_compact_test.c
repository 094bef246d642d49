/* The exchange of entries: what may be exchanged, what readers get of it before and behind it, in
 * memory and in the store, over restarts; and what retention by bytes counts. */
#include <stdlib.h>
#include "server/base/mem.h"
#include "storage/change.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"
#include "tests/unit/storage/log_life.h"

enum { GROUP = 5, BYTES = 1000, ENTRIES = 40 };

static void begin_life(size_t cache_bytes)
{
	begin_log(GROUP, FAMILY_LOG_COMPACTED, cache_bytes, NULL);
}

static struct slice bytes_like(uint8_t what, size_t len)
{
	uint8_t *at = mem_new(len);
	struct slice s;

	memset(at, what, len);
	ck_assert_int_eq(slice_copy(bytes_of(at, len), &s), OK);
	mem_free(at);
	return s;
}

static void append_all(void *arg)
{
	(void)arg;
	for (int i = 1; i <= ENTRIES; i++) {
		struct slice part = bytes_like((uint8_t)i, BYTES);
		struct entry *e = entry_new(&part, 1);

		e->head.term = 1;
		e->head.count = 2;
		e->head.hlc = (int64_t)i << 16;
		plog_append(p, e, 100 + i);
		entry_unref(e);
	}
	plog_applied(p, ENTRIES);
	plog_mark_applied(p, ENTRIES - 5, 1);
}

/* The entry with a payload of len bytes instead. */
static struct entry *other(uint64_t index, size_t len)
{
	struct slice part = len > 0 ? bytes_like(200, len) : (struct slice){NULL, {NULL, 0}};
	struct entry *e = entry_new(&part, len > 0);
	struct entry_header h = {.term = 1,
		.kind = ENTRY_DATA,
		.flags = ENTRY_COMPACTED,
		.count = 2,
		.base_offset = ((int64_t)index - 1) * 2,
		.hlc = (int64_t)index << 16,
		.max_ms = 100 + (int64_t)index,
		.log_bytes = index * BYTES};

	h.payload_bytes = e->head.payload_bytes;
	h.payload_crc = e->head.payload_crc;
	e->head = h;
	e->index = index;
	e->group = GROUP;
	return e;
}

struct exchange {
	uint64_t index;
	size_t len;
	bool taken;
};

static void exchange(void *arg)
{
	struct exchange *x = arg;
	struct entry *e = other(x->index, x->len);

	x->taken = plog_replace(p, e);
	entry_unref(e);
}

static bool replace(uint64_t index, size_t len)
{
	struct exchange x = {index, len, false};

	on_loop(exchange, &x);
	return x.taken;
}

static void read_over(struct plog_read *r)
{
	(void)r;
	sem_post(&done);
}

static void read_begin(void *arg)
{
	plog_read(arg);
}

static struct plog_read read_at(int64_t offset, size_t bytes_max)
{
	struct plog_read r = {.log = p,
		.offset = offset,
		.end_offset = ENTRIES * 2,
		.bytes_max = bytes_max,
		.done = read_over};

	on_loop(read_begin, &r);
	wait_done();
	ck_assert_int_eq(r.err, OK);
	return r;
}

static void read_end(struct plog_read *r)
{
	for (int i = 0; i < r->count; i++)
		entry_unref(r->entries[i]);
	mem_free(r->entries);
}

/* Entries 10 to 20 are empty, 21 is short; the rest as it was. Until that is durable the store may
 * still have them whole. */
static void check_log(bool durable)
{
	struct plog_read r = read_at(0, 1 << 20);
	int64_t at = 0;

	for (int pass = 0; pass < 3 && at < ENTRIES * 2; pass++) {
		for (int i = 0; i < r.count; i++) {
			const struct entry *e = r.entries[i];
			size_t wanted = e->index >= 10 && e->index <= 20 ? 0
				: e->index == 21                         ? 50
									 : BYTES;

			ck_assert_int_ge(e->head.base_offset, at);
			ck_assert_int_eq(e->head.base_offset, ((int64_t)e->index - 1) * 2);
			if (durable || e->head.payload_bytes != BYTES)
				ck_assert_uint_eq(e->head.payload_bytes, wanted);
			at = entry_next_offset(&e->head);
		}
		read_end(&r);
		if (at < ENTRIES * 2)
			r = read_at(at, 1 << 20);
	}
	ck_assert_int_eq(at, ENTRIES * 2);
	if (!durable)
		return;
	/* In the midst of what is empty: what follows it. */
	r = read_at(25, 1);
	ck_assert_int_eq(r.count, 1);
	ck_assert_uint_eq(r.entries[0]->index, 21);
	read_end(&r);
}

static void begin(size_t cache_bytes)
{
	open_store(3);
	begin_life(cache_bytes);
	on_loop(append_all, NULL);
	wait_durable();
}

static void end(void)
{
	end_log(false);
	store_close(store);
}

/* With all in memory, and with next to nothing; then after a restart. */
START_TEST(exchanged_entries_are_read)
{
	begin(_i ? 1 << 20 : 1);
	for (uint64_t i = 10; i <= 20; i++)
		ck_assert(replace(i, 0));
	ck_assert(replace(21, 50));
	check_log(false);
	wait_durable();
	check_log(true);
	end_log(false);
	begin_life(_i ? 1 : 1 << 20);
	check_log(true);
	end();
}
END_TEST

START_TEST(what_is_needed_stays)
{
	begin(1 << 20);
	ck_assert(!replace(ENTRIES, 0));     /* the last one */
	ck_assert(!replace(ENTRIES - 4, 0)); /* a start would apply it again */
	ck_assert(replace(ENTRIES - 5, 0));
	ck_assert(replace(1, 0));
	end();
}
END_TEST

/* A range with nothing but empty entries: the last of them is given, so that a reader gets on. */
START_TEST(empty_range_is_passed)
{
	struct plog_read r;

	begin(_i ? 1 << 20 : 1);
	for (uint64_t i = 5; i <= 30; i++)
		ck_assert(replace(i, 0));
	wait_durable();
	r = (struct plog_read){
		.log = p, .offset = 10, .end_offset = 40, .bytes_max = 1 << 20, .done = read_over};
	on_loop(read_begin, &r);
	wait_done();
	ck_assert_int_eq(r.err, OK);
	ck_assert_int_eq(r.count, 1);
	ck_assert_uint_eq(r.entries[0]->index, 20);
	ck_assert_uint_eq(r.entries[0]->head.payload_bytes, 0);
	read_end(&r);
	end();
}
END_TEST

static void mark(void *arg)
{
	plog_mark_cleaned(p, arg);
}

static struct plog_retain retained;

static void retain_over(struct plog_retain *q)
{
	(void)q;
	sem_post(&done);
}

static void retain_begin(void *arg)
{
	plog_retain(arg);
}

static int64_t keep_for(int64_t bytes)
{
	retained = (struct plog_retain){.log = p,
		.before_ms = -1,
		.bytes_max = bytes,
		.end_offset = ENTRIES * 2,
		.done = retain_over};
	on_loop(retain_begin, &retained);
	wait_done();
	ck_assert_int_eq(retained.err, OK);
	return retained.keep_offset;
}

/* 30 entries were compared and a fifth of their bytes is left. */
START_TEST(bytes_are_what_is_left)
{
	struct plog_cleaned c = {.end_offset = 60,
		.append_ms = 30,
		.log_bytes = 30 * BYTES,
		.held_bytes = 6 * BYTES,
		.section_count = 2,
		.sections = {{40, 11, true}, {60, 22, false}}};

	begin(1 << 20);
	ck_assert_int_eq(plog_bytes(p), ENTRIES * BYTES);
	on_loop(mark, &c);
	for (int life = 0; life < 2; life++) {
		ck_assert_int_eq(plog_bytes(p), 16 * BYTES);
		ck_assert_mem_eq(plog_cleaned(p), &c, sizeof c);
		ck_assert_int_eq(keep_for(16 * BYTES), 0);
		ck_assert_int_eq(keep_for(4 * BYTES), 36 * 2);  /* of those not compared */
		ck_assert_int_eq(keep_for(13 * BYTES), 15 * 2); /* half of the six */
		ck_assert_int_eq(keep_for(0), ENTRIES * 2);
		wait_durable();
		end_log(false);
		begin_life(1 << 20);
	}
	end();
}
END_TEST

static void reset(void *arg)
{
	(void)arg;
	plog_reset(p, 100, 2, 1000);
}

START_TEST(a_reset_forgets_it)
{
	struct plog_cleaned c = {.end_offset = 60, .log_bytes = 30 * BYTES, .held_bytes = 1};
	uint32_t generation;

	begin(1 << 20);
	on_loop(mark, &c);
	generation = plog_generation(p);
	on_loop(reset, NULL);
	ck_assert_uint_ne(plog_generation(p), generation);
	ck_assert_int_eq(plog_cleaned(p)->end_offset, 0);
	ck_assert_int_eq(plog_bytes(p), 0);
	wait_durable();
	end_log(false);
	begin_life(1);
	ck_assert_int_eq(plog_cleaned(p)->end_offset, 0);
	end();
}
END_TEST

/* Every prefix of the row, and one byte more. */
START_TEST(bad_rows_are_refused)
{
	struct plog_cleaned c = {.end_offset = 1, .section_count = 1, .sections = {{1, 2, true}}};
	struct meta_key key = key_meta(GROUP, META_CLEANED);
	struct slice row;
	struct plog one = {.group = GROUP};

	begin(1 << 20);
	on_loop(mark, &c);
	wait_durable();
	ck_assert_int_eq(store_get(store, NULL, FAMILY_META, KEY_BYTES(key), &row), OK);
	for (size_t len = 0; len <= row.bytes.len; len++) {
		uint8_t *exact = malloc(len ? len : 1);
		struct rd r = rd_over(bytes_of(exact, len));

		memcpy(exact, row.bytes.at, len);
		ck_assert_int_eq(plog_read_cleaned(&one, &r) == OK, len == row.bytes.len);
		if (len == row.bytes.len) {
			exact[41] = CLEANED_SECTIONS_MAX + 1;
			r = rd_over(bytes_of(exact, len));
			ck_assert_int_ne(plog_read_cleaned(&one, &r), OK);
			exact[0] = 9;
			r = rd_over(bytes_of(exact, len));
			ck_assert_int_ne(plog_read_cleaned(&one, &r), OK);
		}
		free(exact);
	}
	slice_unref(&row);
	end();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("plog_compact");
	Suite *s = suite_create("plog_compact");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, exchanged_entries_are_read, 0, 2);
	tcase_add_test(tc, what_is_needed_stays);
	tcase_add_loop_test(tc, empty_range_is_passed, 0, 2);
	tcase_add_test(tc, bytes_are_what_is_left);
	tcase_add_test(tc, a_reset_forgets_it);
	tcase_add_test(tc, bad_rows_are_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
