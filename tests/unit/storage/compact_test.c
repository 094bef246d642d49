/* Compaction against a model: random records of few keys, tombstones, records without a key, rows,
 * trims, restarts and crashes in the middle of runs. After each, a reader from the log's start must
 * find every record as it was appended, at its offset, all that is no key's newest gone as far as
 * the mark says, and by applying what it reads the very values that applying everything gives. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/change.h"
#include "storage/keys.h"
#include "tests/unit/storage/log_life.h"

enum { GROUP = 9, KEYS = 150, OFFSETS_MAX = 200000 };

static size_t memory = 24 * 4000;

static struct compact_rate rate;
static struct compactor *compactor;

static void begin_life(size_t cache_bytes)
{
	compactor = compactor_new(&rate, memory);
	begin_log(GROUP, FAMILY_LOG_COMPACTED, cache_bytes, compactor);
}

static void end_life(bool crash)
{
	end_log(crash);
	compactor_free(compactor);
}

/* --- the model --- */

struct made {        /* a record, by offset */
	int16_t key; /* -1: none */
	bool null_value;
	uint32_t value_bytes;
};
static struct made model[OFFSETS_MAX];
static int64_t next_offset, hlc;
static uint64_t seed;

static uint64_t pick(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

static struct bytes key_bytes(int key, char *room)
{
	return bytes_of(room, (size_t)snprintf(room, 16, "key-%d", key));
}

/* A value says which offset it is of. */
static void value_fill(uint8_t *at, size_t len, int64_t offset)
{
	memset(at, (int)(offset % 251), len);
	put_u64be(at, (uint64_t)offset);
}

static struct slice packed(struct slice s, enum batch_codec codec, uint32_t count)
{
	struct chunk *small, *c;
	struct slice out;
	size_t len;

	if (codec == CODEC_NONE)
		return s;
	ck_assert_int_eq(
		codec_deflate(codec,
			bytes_of(s.bytes.at + BATCH_HEADER_BYTES, s.bytes.len - BATCH_HEADER_BYTES),
			&small, &len),
		OK);
	c = chunk_try(BATCH_HEADER_BYTES + len);
	memcpy(c->data, s.bytes.at, BATCH_HEADER_BYTES);
	memcpy(c->data + BATCH_HEADER_BYTES, small->data, len);
	c->data[22] = (uint8_t)codec;
	batch_set_records(c->data, BATCH_HEADER_BYTES + len, (int32_t)count,
		(int64_t)get_u64be(s.bytes.at + 35));
	out = slice_of(c, bytes_of(c->data, BATCH_HEADER_BYTES + len));
	chunk_unref(c);
	chunk_unref(small);
	slice_unref(&s);
	return out;
}

static struct slice make_batch(uint32_t *count)
{
	struct batch_builder b;
	uint8_t value[4096];
	struct slice s;

	*count = 1 + (uint32_t)pick(12);
	batch_builder_init(&b, 1 << 20);
	for (uint32_t i = 0; i < *count; i++) {
		struct made *m = &model[next_offset];
		char room[16];
		struct bytes key, v;

		ck_assert_int_lt(next_offset, OFFSETS_MAX);
		*m = (struct made){.key = (int16_t)pick(KEYS),
			.null_value = pick(8) == 0,
			.value_bytes = 8 + (uint32_t)pick(pick(4) ? 100 : 4000)};
		if (pick(40) == 0)
			m->key = -1;
		key = key_bytes(m->key, room);
		value_fill(value, m->value_bytes, next_offset);
		v = bytes_of(value, m->value_bytes);
		ck_assert_int_eq(batch_builder_add(&b, 1000 + next_offset, m->key < 0 ? NULL : &key,
					 m->null_value ? NULL : &v, NULL, 0),
			OK);
		next_offset++;
	}
	s = batch_builder_seal(&b);
	batch_builder_fini(&b);
	s = packed(s, (enum batch_codec)(pick(3) ? CODEC_NONE : pick(CODEC_COUNT)), *count);
	batch_set_offset(s.chunk->data, next_offset - *count, 1);
	return s;
}

static struct slice rows_part(bool some)
{
	struct buf b;
	struct slice s;

	buf_init(&b, 1000);
	change_begin(&b);
	if (some)
		change_add_row(&b,
			&(struct row_change){ROW_PUT, 3, bytes_text("row"), bytes_text("value")});
	s = change_end(&b);
	buf_fini(&b);
	return s;
}

static void append_one(void *arg)
{
	struct slice parts[5];
	uint32_t count = 0, batches = pick(12) == 0 ? 0 : 1 + (uint32_t)pick(4), n;
	struct entry *e;
	bool rows = batches == 0 || pick(3) == 0;

	(void)arg;
	parts[0] = rows_part(rows);
	for (uint32_t i = 0; i < batches; i++) {
		parts[1 + i] = make_batch(&n);
		count += n;
	}
	e = entry_new(parts, 1 + batches);
	e->head.term = 1;
	e->head.count = count;
	e->head.hlc = hlc += 1 << 16;
	e->head.flags = rows ? ENTRY_HAS_ROWS : 0;
	plog_append(p, e, 1000 + next_offset);
	entry_unref(e);
	ck_assert_int_eq(plog_next_offset(p), next_offset);
	plog_applied(p, plog_last_index(p));
}

static void mark_applied(void *arg)
{
	(void)arg;
	plog_mark_applied(p, plog_last_index(p), 1);
}

static void append_many(int count)
{
	for (int i = 0; i < count; i++)
		on_loop(append_one, NULL);
	on_loop(mark_applied, NULL);
	wait_durable();
}

/* --- a run --- */

static struct compaction run;
static enum err run_err;

static void run_over(struct compaction *c)
{
	run_err = c->err;
	sem_post(&done);
}

static void run_begin(void *arg)
{
	const struct compact_policy *policy = arg;

	run.log = p;
	run.policy = *policy;
	run.limit_index = plog_last_index(p) > 8 ? plog_last_index(p) - 8 : 1;
	run.done = run_over;
	ck_assert(compaction_start(&run));
}

static void run_cancel(void *arg)
{
	(void)arg;
	compaction_cancel(&run);
}

static bool compact(const struct compact_policy *policy)
{
	on_loop(run_begin, (void *)(uintptr_t)policy);
	wait_done();
	ck_assert_int_eq(run_err, OK);
	ck_assert_int_eq(run.unreadable, 0);
	wait_durable();
	return run.ran;
}

/* --- reading it all --- */

struct seen {
	int64_t newest[KEYS]; /* offset, -1: none, or a tombstone */
	int64_t count, tombstones;
	uint64_t payload;
};

static void read_over(struct plog_read *r)
{
	(void)r;
	sem_post(&done);
}

static void read_begin(void *arg)
{
	plog_read(arg);
}

static void look_at(const struct record *r, int64_t offset, struct seen *s)
{
	const struct made *m = &model[offset];
	uint8_t value[4096];
	char room[16];

	ck_assert(r->null_key == (m->key < 0) && r->null_value == m->null_value);
	ck_assert(r->null_key || bytes_equal(r->key, key_bytes(m->key, room)));
	ck_assert_int_eq(r->timestamp_ms, 1000 + offset);
	value_fill(value, m->value_bytes, offset);
	ck_assert(r->null_value || bytes_equal(r->value, bytes_of(value, m->value_bytes)));
	s->count++;
	s->tombstones += m->null_value;
	if (m->key >= 0)
		s->newest[m->key] = m->null_value ? -1 : offset;
}

static void look_at_entry(const struct entry *e, int64_t *at, struct seen *s, bool *there)
{
	struct change_batches w;
	const struct slice *holder;
	struct batch b;
	enum err err;

	ck_assert(entry_whole(e));
	change_batches_init(&w, e);
	while ((err = change_batches_next(&w, &b, &holder)) == OK) {
		struct batch_walk walk;
		struct record r;

		ck_assert_int_eq(batch_walk_init(&walk, &b, 1 << 20), OK);
		while ((err = batch_walk_next(&walk, &r)) == OK) {
			int64_t offset = b.base_offset + r.offset_delta;

			ck_assert_int_ge(offset, e->head.base_offset);
			ck_assert_int_lt(offset, entry_next_offset(&e->head));
			if (offset < *at)
				continue;
			look_at(&r, offset, s);
			there[offset] = true;
			*at = offset + 1;
		}
		ck_assert_int_eq(err, ERR_NOTFOUND);
		batch_walk_fini(&walk);
	}
	ck_assert_int_eq(err, ERR_NOTFOUND);
	*at = entry_next_offset(&e->head);
}

static bool there[OFFSETS_MAX];

static void read_all(struct seen *s)
{
	int64_t at = plog_marks(p)->first_offset, end = plog_next_offset(p);

	memset(s, 0, sizeof *s);
	memset(there, 0, sizeof there);
	for (int k = 0; k < KEYS; k++)
		s->newest[k] = -1;
	while (at < end) {
		struct plog_read r = {.log = p,
			.offset = at,
			.end_offset = end,
			.bytes_max = 1 + (size_t)pick(200000),
			.done = read_over};
		int64_t before = at;

		on_loop(read_begin, &r);
		wait_done();
		ck_assert_int_eq(r.err, OK);
		ck_assert_int_gt(r.count, 0);
		for (int i = 0; i < r.count; i++) {
			look_at_entry(r.entries[i], &at, s, there);
			entry_unref(r.entries[i]);
		}
		mem_free(r.entries);
		ck_assert_int_gt(at, before);
	}
}

static bool cut_off; /* a run may have ended in its middle: entries above the mark were exchanged */

static bool replaced(int64_t offset)
{
	for (int64_t o = offset + 1; o < next_offset; o++) {
		if (model[o].key == model[offset].key)
			return true;
	}
	return model[offset].key < 0;
}

/* The values, and that below the mark each key has one record, nothing else is missing. */
static void check_all(void)
{
	int64_t first = plog_marks(p)->first_offset, clean = plog_cleaned(p)->end_offset;
	int64_t last[KEYS], newest[KEYS];
	static struct seen s;

	read_all(&s);
	for (int k = 0; k < KEYS; k++)
		last[k] = newest[k] = -1;
	for (int64_t o = first; o < next_offset; o++) {
		const struct made *m = &model[o];

		if (o >= clean)
			ck_assert_msg(there[o] || (cut_off && replaced(o)),
				"offset %lld, mark %lld", (long long)o, (long long)clean);
		if (m->key < 0) {
			ck_assert(o >= clean || !there[o]);
			continue;
		}
		newest[m->key] = m->null_value ? -1 : o;
		if (o < clean)
			last[m->key] = o;
	}
	for (int k = 0; k < KEYS; k++)
		ck_assert_int_eq(s.newest[k], newest[k]);
	for (int64_t o = first; o < clean; o++) {
		const struct made *m = &model[o];

		if (m->key >= 0 && last[m->key] != o)
			ck_assert_msg(
				!there[o], "offset %lld is not its key's newest", (long long)o);
		else if (m->key >= 0 && !m->null_value)
			ck_assert_msg(there[o], "offset %lld is lost", (long long)o);
	}
}

static void trim_some(void *arg)
{
	int64_t first = plog_marks(p)->first_offset;

	(void)arg;
	plog_trim(p, first + (int64_t)pick((uint64_t)(next_offset - first) / 4 + 1),
		plog_last_index(p) - 4);
}

static const struct compact_policy keeps = {0, 1000000000, 0, INT64_MAX};
static const struct compact_policy drops = {0, 0, 0, INT64_MAX};

static void begin(uint64_t with)
{
	seed = with;
	next_offset = 0;
	hlc = clock_wall_ms() << 16;
	rate = (struct compact_rate){0};
	cut_off = false;
	open_store(with);
	begin_life(pick(2) ? 64 << 10 : 64 << 20);
}

static void end(void)
{
	end_life(false);
	store_close(store);
	sem_destroy(&done);
}

START_TEST(values_are_the_models)
{
	begin((uint64_t)_i + 1);
	for (int round = 0; round < 6; round++) {
		append_many(20 + (int)pick(250));
		if (pick(3) == 0)
			on_loop(trim_some, NULL);
		compact(pick(2) ? &keeps : &drops);
		check_all();
		if (pick(2) == 0) {
			end_life(pick(2) == 0);
			begin_life(pick(2) ? 64 << 10 : 64 << 20);
			check_all();
		}
	}
	end();
}
END_TEST

/* A life ends while entries are exchanged: each is the old or the new one, and a run begins anew.
 */
START_TEST(crashes_in_the_middle)
{
	begin((uint64_t)_i + 1000);
	rate.bytes = 64 << 20;
	cut_off = true;
	append_many(1500);
	for (int i = 0; i < 4; i++) {
		on_loop(run_begin, (void *)(uintptr_t)&drops);
		usleep((useconds_t)pick(120000));
		atomic_store(&frozen, pick(4) != 0);
		on_loop(run_cancel, NULL);
		wait_done();
		ck_assert(run_err == ERR_CLOSED || run_err == OK);
		end_life(true);
		begin_life(64 << 10);
		check_all();
	}
	rate.bytes = 0;
	for (int i = 0; i < 10 && compact(&drops); i++)
		;
	check_all();
	ck_assert_int_gt(plog_cleaned(p)->end_offset, next_offset * 9 / 10);
	end();
}
END_TEST

/* Slices that take a while themselves go at the rate all the same; what long was not used is gone.
 */
START_TEST(goes_at_the_rate)
{
	enum { SLICE = 2 << 20, SLICES = 100, WORK_US = 8000 };
	struct compact_rate r = {.bytes = 100 << 20};
	int64_t now_us = 3600 * (int64_t)1000000, begin_us = now_us, at_once = 0;

	for (int i = 0; i < SLICES; i++)
		now_us += WORK_US + compact_rate_take(&r, now_us + WORK_US, SLICE) * 1000;
	ck_assert_int_ge(now_us - begin_us, 1900000); /* 2 s, but for the first slices */
	ck_assert_int_le(now_us - begin_us, 2050000);
	now_us += 60 * (int64_t)1000000;
	while (compact_rate_take(&r, now_us, SLICE) == 0)
		at_once++;
	ck_assert_int_le(at_once, 3);
	r.bytes = 0;
	ck_assert_int_eq(compact_rate_take(&r, now_us, INT64_MAX), 0);
}
END_TEST

/* More keys than there is memory for: each run goes as far as they fit. */
START_TEST(rounds_by_memory)
{
	int runs = 0;

	memory = 24 * 64; /* 57 keys of 150 */
	begin(77);
	append_many(120);
	for (; runs < 200 && compact(&drops); runs++)
		check_all();
	ck_assert_int_gt(runs, 3);
	ck_assert_int_lt(runs, 200);
	end();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("compact");
	Suite *s = suite_create("compact");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, values_are_the_models, 0, 12);
	tcase_add_loop_test(tc, crashes_in_the_middle, 0, 4);
	tcase_add_test(tc, goes_at_the_rate);
	tcase_add_test(tc, rounds_by_memory);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
