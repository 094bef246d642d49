/* One contract, both stores: every test runs over RocksDB (_i 0) and over the map (_i 1). */
#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/store.h"

static char dir[64];
static struct store *store;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rocks(void)
{
	struct store_options o = store_options_default();
	char why[200];

	o.write_buffer_bytes = 16 << 20;
	ck_assert_msg(store_open_rocks(dir, &o, &store, why, sizeof why) == OK, "%s", why);
}

static void open_store(int which)
{
	snprintf(dir, sizeof dir, "/tmp/store_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	if (which == 0)
		open_rocks();
	else
		ck_assert_int_eq(store_open_mem(7, &store), OK);
}

static void close_store(void)
{
	store_close(store);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(struct store_batch *b, enum store_family f, const char *key, const char *value)
{
	struct bytes part = bytes_text(value);

	store_put(b, f, bytes_text(key), &part, 1);
}

static void write_sync(struct store_batch *b)
{
	ck_assert_int_eq(store_write(store, b), OK);
	ck_assert_int_eq(store_sync(store), OK);
	store_batch_clear(b);
}

/* The value as text, or "-" when the key is not there. */
static const char *got(struct store_snapshot *at, enum store_family f, const char *key)
{
	static char out[256];
	struct slice s;
	enum err e = store_get(store, at, f, bytes_text(key), &s);

	if (e == ERR_NOTFOUND)
		return "-";
	ck_assert_int_eq(e, OK);
	snprintf(out, sizeof out, "%.*s", (int)s.bytes.len, (const char *)s.bytes.at);
	slice_unref(&s);
	return out;
}

/* All keys of [from, to) joined by spaces. */
static const char *walked(struct store_snapshot *at, const char *from, const char *to, bool forward)
{
	static char out[256];
	struct store_iter *i = store_iter_new(
		store, at, FAMILY_ROWS, bytes_text(from), bytes_text(to), forward);

	out[0] = 0;
	for (; store_iter_valid(i); store_iter_step(i)) {
		struct bytes k = store_iter_key(i), v = store_iter_value(i);
		size_t len = strlen(out);

		snprintf(out + len, sizeof out - len, "%.*s=%.*s ", (int)k.len, (const char *)k.at,
			(int)v.len, (const char *)v.at);
	}
	ck_assert_int_eq(store_iter_free(i), OK);
	return out;
}

START_TEST(puts_gets_and_deletes)
{
	open_store(_i);
	struct store_batch *b = store_batch_new(store);
	struct bytes parts[3] = {bytes_text("x"), bytes_text(""), bytes_text("yz")};

	store_put(b, FAMILY_IDX, bytes_text("k"), parts, 3);
	put(b, FAMILY_ROWS, "k", "row");
	put(b, FAMILY_META, "empty", "");
	ck_assert_int_eq(store_batch_count(b), 3);
	ck_assert_uint_ge(store_batch_bytes(b), 10);
	ck_assert_str_eq(got(NULL, FAMILY_IDX, "k"), "-");
	write_sync(b);
	ck_assert_int_eq(store_batch_count(b), 0);
	ck_assert_uint_eq(store_batch_bytes(b), 0);
	ck_assert_str_eq(got(NULL, FAMILY_IDX, "k"), "xyz");
	ck_assert_str_eq(got(NULL, FAMILY_ROWS, "k"), "row");
	ck_assert_str_eq(got(NULL, FAMILY_META, "empty"), "");
	ck_assert_str_eq(got(NULL, FAMILY_LOG_DAYS, "k"), "-");
	put(b, FAMILY_ROWS, "k", "new");
	store_delete(b, FAMILY_IDX, bytes_text("k"));
	store_delete(b, FAMILY_IDX, bytes_text("never"));
	write_sync(b);
	ck_assert_str_eq(got(NULL, FAMILY_IDX, "k"), "-");
	ck_assert_str_eq(got(NULL, FAMILY_ROWS, "k"), "new");
	store_batch_free(b);
	close_store();
}
END_TEST

/* The order inside a batch counts: what is put behind a range delete stays. */
START_TEST(deletes_ranges_in_order)
{
	open_store(_i);
	struct store_batch *b = store_batch_new(store);

	put(b, FAMILY_ROWS, "a", "1");
	put(b, FAMILY_ROWS, "b", "2");
	put(b, FAMILY_ROWS, "c", "3");
	put(b, FAMILY_ROWS, "d", "4");
	write_sync(b);
	store_delete_range(b, FAMILY_ROWS, bytes_text("b"), bytes_text("d"));
	put(b, FAMILY_ROWS, "c", "again");
	write_sync(b);
	ck_assert_str_eq(walked(NULL, "a", "z", true), "a=1 c=again d=4 ");
	store_batch_free(b);
	close_store();
}
END_TEST

START_TEST(walks_both_ways_within_bounds)
{
	open_store(_i);
	struct store_batch *b = store_batch_new(store);

	put(b, FAMILY_ROWS, "a", "1");
	put(b, FAMILY_ROWS, "ab", "2");
	put(b, FAMILY_ROWS, "b", "3");
	put(b, FAMILY_ROWS, "c", "4");
	write_sync(b);
	ck_assert_str_eq(walked(NULL, "a", "c", true), "a=1 ab=2 b=3 ");
	ck_assert_str_eq(walked(NULL, "a", "c", false), "b=3 ab=2 a=1 ");
	ck_assert_str_eq(walked(NULL, "aa", "b", true), "ab=2 ");
	ck_assert_str_eq(walked(NULL, "d", "e", true), "");
	ck_assert_str_eq(walked(NULL, "d", "e", false), "");
	store_batch_free(b);
	close_store();
}
END_TEST

START_TEST(snapshots_see_the_past)
{
	open_store(_i);
	struct store_batch *b = store_batch_new(store);

	put(b, FAMILY_ROWS, "a", "1");
	put(b, FAMILY_ROWS, "b", "1");
	write_sync(b);
	struct store_snapshot *s = store_snapshot_new(store);
	put(b, FAMILY_ROWS, "a", "2");
	put(b, FAMILY_ROWS, "c", "2");
	store_delete(b, FAMILY_ROWS, bytes_text("b"));
	write_sync(b);
	ck_assert_str_eq(got(s, FAMILY_ROWS, "a"), "1");
	ck_assert_str_eq(got(s, FAMILY_ROWS, "b"), "1");
	ck_assert_str_eq(got(s, FAMILY_ROWS, "c"), "-");
	ck_assert_str_eq(walked(s, "a", "z", true), "a=1 b=1 ");
	ck_assert_str_eq(walked(s, "a", "z", false), "b=1 a=1 ");
	ck_assert_str_eq(walked(NULL, "a", "z", true), "a=2 c=2 ");
	store_snapshot_free(store, s);
	write_sync(b);
	ck_assert_str_eq(walked(NULL, "a", "z", false), "c=2 a=2 ");
	store_batch_free(b);
	close_store();
}
END_TEST

/* A walk is of one moment even without a snapshot. */
START_TEST(walks_do_not_see_later_writes)
{
	open_store(_i);
	struct store_batch *b = store_batch_new(store);

	put(b, FAMILY_ROWS, "a", "1");
	put(b, FAMILY_ROWS, "c", "1");
	write_sync(b);
	struct store_iter *i = store_iter_new(
		store, NULL, FAMILY_ROWS, bytes_text("a"), bytes_text("z"), true);
	put(b, FAMILY_ROWS, "b", "2");
	store_delete(b, FAMILY_ROWS, bytes_text("c"));
	write_sync(b);
	ck_assert(store_iter_valid(i));
	store_iter_step(i);
	ck_assert(store_iter_valid(i));
	ck_assert(bytes_equal(store_iter_key(i), bytes_text("c")));
	store_iter_step(i);
	ck_assert(!store_iter_valid(i));
	ck_assert_int_eq(store_iter_free(i), OK);
	store_batch_free(b);
	close_store();
}
END_TEST

START_TEST(gets_many)
{
	enum { MANY = 150 };
	struct bytes keys[MANY];
	struct entry_key k[MANY];
	struct slice out[MANY];

	open_store(_i);
	struct store_batch *b = store_batch_new(store);
	for (int i = 0; i < MANY; i++) {
		k[i] = key_entry(3, (uint64_t)i);
		keys[i] = KEY_BYTES(k[i]);
		if (i % 3 != 0)
			store_put(b, FAMILY_LOG_LONG, keys[i], &keys[i], 1);
	}
	write_sync(b);
	uint64_t before = store_reads(store, FAMILY_LOG_LONG);
	ck_assert_int_eq(store_multi_get(store, NULL, FAMILY_LOG_LONG, MANY, keys, out), OK);
	ck_assert_uint_eq(store_reads(store, FAMILY_LOG_LONG) - before, MANY);
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(out[i].chunk != NULL, i % 3 != 0);
		if (out[i].chunk != NULL)
			ck_assert(bytes_equal(out[i].bytes, keys[i]));
		slice_unref(&out[i]);
	}
	store_batch_free(b);
	close_store();
}
END_TEST

/* A failed allocation for a value is an error, and nothing leaks (ASan looks). */
START_TEST(survives_failed_allocations)
{
	struct bytes keys[3] = {bytes_text("a"), bytes_text("b"), bytes_text("c")};
	struct slice out[3];

	open_store(_i);
	struct store_batch *b = store_batch_new(store);
	put(b, FAMILY_ROWS, "a", "1");
	put(b, FAMILY_ROWS, "b", "2");
	put(b, FAMILY_ROWS, "c", "3");
	write_sync(b);
	mem_fail_at(0);
	ck_assert_int_eq(store_get(store, NULL, FAMILY_ROWS, keys[0], out), ERR_NOMEM);
	for (int n = 0; n < 3; n++) {
		mem_fail_at(n);
		ck_assert_int_eq(
			store_multi_get(store, NULL, FAMILY_ROWS, 3, keys, out), ERR_NOMEM);
	}
	mem_fail_at(-1);
	ck_assert_str_eq(got(NULL, FAMILY_ROWS, "c"), "3");
	store_batch_free(b);
	close_store();
}
END_TEST

START_TEST(sequence_grows_with_writes)
{
	struct store_stats stats;

	open_store(_i);
	struct store_batch *b = store_batch_new(store);
	uint64_t before = store_sequence(store);
	put(b, FAMILY_ROWS, "a", "1");
	write_sync(b);
	ck_assert_uint_gt(store_sequence(store), before);
	store_stats(store, &stats);
	ck_assert_uint_eq(stats.last_sequence, store_sequence(store));
	store_batch_free(b);
	close_store();
}
END_TEST

/* Against an array: random writes, deletes, ranges, snapshots; the whole is compared. */
START_TEST(agrees_with_a_model)
{
	enum { KEYS = 60, ROUNDS = 400 };
	int now[KEYS] = {0}, then[KEYS] = {0};
	struct store_snapshot *s = NULL;

	open_store(_i);
	random_seed(_i == 0 ? 11 : 12);
	struct store_batch *b = store_batch_new(store);
	for (int round = 1; round <= ROUNDS; round++) {
		int a = (int)(random_u64() % KEYS), z = a + (int)(random_u64() % 6);
		struct entry_key ka = key_entry(1, (uint64_t)a), kz = key_entry(1, (uint64_t)z);
		struct bytes value = bytes_of(&round, sizeof round);
		uint64_t what = random_u64() % 10;

		if (what < 6) {
			store_put(b, FAMILY_ROWS, KEY_BYTES(ka), &value, 1);
			now[a] = round;
		} else if (what < 8) {
			store_delete(b, FAMILY_ROWS, KEY_BYTES(ka));
			now[a] = 0;
		} else {
			store_delete_range(b, FAMILY_ROWS, KEY_BYTES(ka), KEY_BYTES(kz));
			for (int i = a; i < z && i < KEYS; i++)
				now[i] = 0;
		}
		if (random_u64() % 3 == 0)
			write_sync(b);
		if (round % 50 == 0) {
			write_sync(b);
			store_snapshot_free(store, s);
			s = store_snapshot_new(store);
			memcpy(then, now, sizeof now);
		}
		if (round % 20 != 0)
			continue;
		write_sync(b);
		for (int k = 0; k < 2 * KEYS; k++) {
			bool past = k >= KEYS && s != NULL;
			int want = past ? then[k % KEYS] : now[k % KEYS], found = 0;
			struct entry_key key = key_entry(1, (uint64_t)(k % KEYS));
			struct slice v;

			if (store_get(store, past ? s : NULL, FAMILY_ROWS, KEY_BYTES(key), &v) ==
				OK) {
				memcpy(&found, v.bytes.at, sizeof found);
				slice_unref(&v);
			}
			ck_assert_int_eq(found, want);
		}
	}
	store_snapshot_free(store, s);
	store_batch_free(b);
	close_store();
}
END_TEST

START_TEST(rocks_keeps_what_it_was_given)
{
	char why[200];
	struct store_options o = store_options_default();
	struct store *second;

	open_store(0);
	struct store_batch *b = store_batch_new(store);
	put(b, FAMILY_ROWS, "a", "1");
	write_sync(b);
	uint64_t sequence = store_sequence(store);
	ck_assert_int_eq(store_open_rocks(dir, &o, &second, why, sizeof why), ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(why, "locked"));
	store_batch_free(b);
	store_close(store);
	open_rocks();
	ck_assert_str_eq(got(NULL, FAMILY_ROWS, "a"), "1");
	ck_assert_uint_ge(store_sequence(store), sequence);
	ck_assert_str_eq(store_dir(store), dir);
	close_store();
}
END_TEST

/* Writes a MiB at a time, as entries of a log. Gives how many bytes then lie in blob files: waits
 * for so many, and half a second for what would be too much. */
static int64_t flushed_of(enum store_family f, int mib, uint64_t from, int64_t awaited)
{
	enum { BYTES = 65536 };
	struct store_batch *b = store_batch_new(store);
	struct store_stats s = {0};
	uint8_t payload[BYTES];
	struct bytes part = bytes_of(payload, BYTES);

	for (uint64_t i = from; i < from + (uint64_t)mib * 16; i++) {
		struct entry_key k = key_entry(1, i);

		random_fill(payload, BYTES);
		store_put(b, f, KEY_BYTES(k), &part, 1);
		if (i % 16 == 15)
			write_sync(b);
	}
	store_batch_free(b);
	for (int i = 0; i < 1000 && (i < 25 || s.blob_bytes[f] < awaited); i++) {
		usleep(20000); /* flushes run beside */
		store_stats(store, &s);
	}
	return s.blob_bytes[f];
}

/* Compacted logs in small pieces, others not. */
START_TEST(flushes_pieces)
{
	struct store_options o = store_options_default();
	char why[200];

	snprintf(dir, sizeof dir, "/tmp/store_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_msg(store_open_rocks(dir, &o, &store, why, sizeof why) == OK, "%s", why);
	ck_assert_int_eq(flushed_of(FAMILY_LOG_LONG, 40, 0, 0), 0);
	ck_assert_int_ge(flushed_of(FAMILY_LOG_COMPACTED, 40, 1, 24 << 20), 24 << 20);
	close_store();
}
END_TEST

/* Whether a file of the store's folder says so: RocksDB writes its options down. */
static bool options_say(const char *text)
{
	char command[400];

	snprintf(command, sizeof command, "grep -qx ' *%s' %s/OPTIONS-*", text, dir);
	return system(command) == 0;
}

START_TEST(writes_past_the_page_cache_where_it_can)
{
	struct store_options o = store_options_default();
	char why[200], path[100];
	bool can;
	int fd;

	snprintf(dir, sizeof dir, "/tmp/store_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/probe", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_DIRECT, 0600);
	can = fd >= 0;
	close(fd);
	unlink(path);
	o.direct = _i == 0;
	ck_assert_msg(store_open_rocks(dir, &o, &store, why, sizeof why) == OK, "%s", why);
	ck_assert_int_ge(flushed_of(FAMILY_LOG_COMPACTED, 40, 1, 24 << 20), 24 << 20);
	ck_assert_int_eq(
		options_say("use_direct_io_for_flush_and_compaction=true"), can && o.direct);
	ck_assert(!options_say("use_direct_reads=true"));
	close_store();
}
END_TEST

START_TEST(compacted_logs_may_be_half_garbage)
{
	ck_assert(!store_garbage_much(FAMILY_LOG_LONG, 0, 0));
	ck_assert(!store_garbage_much(FAMILY_LOG_LONG, 100, 30));
	ck_assert(store_garbage_much(FAMILY_LOG_LONG, 100, 31));
	ck_assert(!store_garbage_much(FAMILY_LOG_COMPACTED, 100, 50));
	ck_assert(store_garbage_much(FAMILY_LOG_COMPACTED, 100, 51));
}
END_TEST

START_TEST(crash_keeps_a_prefix)
{
	enum { SYNCED = 5, WRITES = 12 };
	bool lost = false, kept = false;

	for (uint64_t seed = 1; seed <= 40; seed++) {
		int last = 0;

		ck_assert_int_eq(store_open_mem(seed, &store), OK);
		struct store_batch *b = store_batch_new(store);
		for (int i = 1; i <= WRITES; i++) {
			struct entry_key k = key_entry(1, (uint64_t)i);
			struct bytes v = bytes_of(&i, sizeof i);

			store_put(b, FAMILY_ROWS, KEY_BYTES(k), &v, 1);
			store_put(b, FAMILY_ROWS, bytes_text("last"), &v, 1);
			if (i > SYNCED + 1) {
				k = key_entry(1, (uint64_t)(i - 2));
				store_delete(b, FAMILY_ROWS, KEY_BYTES(k));
			}
			ck_assert_int_eq(store_write(store, b), OK);
			store_batch_clear(b);
			if (i == SYNCED)
				ck_assert_int_eq(store_sync(store), OK);
		}
		store_mem_crash(store);
		struct slice v;
		ck_assert_int_eq(store_get(store, NULL, FAMILY_ROWS, bytes_text("last"), &v), OK);
		memcpy(&last, v.bytes.at, sizeof last);
		slice_unref(&v);
		ck_assert_int_ge(last, SYNCED);
		lost = lost || last < WRITES;
		kept = kept || last > SYNCED;
		for (int i = 1; i <= WRITES; i++) {
			struct entry_key k = key_entry(1, (uint64_t)i);
			bool gone = i >= SYNCED && i + 2 <= last && i + 2 > SYNCED + 1;
			enum err e = store_get(store, NULL, FAMILY_ROWS, KEY_BYTES(k), &v);

			ck_assert_int_eq(e, i <= last && !gone ? OK : ERR_NOTFOUND);
			if (e == OK)
				slice_unref(&v);
		}
		store_batch_free(b);
		store_close(store);
	}
	ck_assert(lost && kept);
}
END_TEST

/* ---- what is written past the log of writes */

/* The files as a kill of the process would leave them. */
static void crash(int which)
{
	char command[300];

	if (which == 1) {
		store_mem_crash(store);
		return;
	}
	snprintf(command, sizeof command, "cp -r %s %s.copy", dir, dir);
	ck_assert_int_eq(system(command), 0);
	store_close(store);
	snprintf(command, sizeof command, "rm -r %s && mv %s.copy %s", dir, dir, dir);
	ck_assert_int_eq(system(command), 0);
	open_rocks();
}

enum { FAMILIES_TRIED = 2, STEPS = 40 };
static const enum store_family tried[FAMILIES_TRIED] = {FAMILY_LOG_DAYS, FAMILY_IDX};

struct step { /* what was done, in order */
	enum store_family f;
	bool unlogged, kept; /* kept: a crash may not take it */
};

/* One key of its own, and one that all steps of the family write. */
static void write_step(struct store_batch *b, uint64_t i, const struct step *s)
{
	struct entry_key k = key_entry(1, i);
	struct bytes v = KEY_BYTES(k);

	store_put(b, s->f, v, &v, 1);
	store_put(b, s->f, bytes_text("last"), &v, 1);
	ck_assert_int_eq(s->unlogged ? store_write_unlogged(store, b) : store_write(store, b), OK);
	store_batch_clear(b);
}

static void flush_steps(enum store_family f, struct step *steps, int count)
{
	int last = -1;

	ck_assert_int_eq(store_flush(store, f), OK);
	for (int i = 0; i < count; i++) {
		if (!steps[i].unlogged || steps[i].f != f)
			continue;
		steps[i].kept = true;
		last = i;
	}
	for (int i = 0; i < last; i++)
		steps[i].kept = steps[i].kept || !steps[i].unlogged;
}

static void sync_steps(struct step *steps, int count)
{
	ck_assert_int_eq(store_sync(store), OK);
	for (int i = 0; i < count; i++)
		steps[i].kept = steps[i].kept || !steps[i].unlogged;
}

static bool step_there(uint64_t i, const struct step *s)
{
	struct entry_key k = key_entry(1, i);
	struct slice v;
	enum err e = store_get(store, NULL, s->f, KEY_BYTES(k), &v);

	if (e == OK)
		slice_unref(&v);
	else
		ck_assert_int_eq(e, ERR_NOTFOUND);
	return e == OK;
}

/* Gives how many were lost. */
static int check_steps(const struct step *steps)
{
	bool logged_ended = false, ended[FAMILY_COUNT] = {false};
	int lost = 0, last[FAMILY_COUNT];
	struct slice v;

	memset(last, -1, sizeof last);
	for (int i = 0; i < STEPS; i++) {
		const struct step *s = &steps[i];
		bool there = step_there((uint64_t)i, s);

		ck_assert(there || !s->kept);
		ck_assert(!there || !(s->unlogged ? ended[s->f] : logged_ended)); /* a prefix */
		ck_assert(!there || !logged_ended); /* and nothing above what was logged before */
		ended[s->f] = ended[s->f] || (s->unlogged && !there);
		logged_ended = logged_ended || (!s->unlogged && !there);
		lost += !there;
		last[s->f] = there ? i : last[s->f];
	}
	for (int f = 0; f < FAMILIES_TRIED; f++) {
		enum err e = store_get(store, NULL, tried[f], bytes_text("last"), &v);

		ck_assert_int_eq(e, last[tried[f]] < 0 ? ERR_NOTFOUND : OK);
		if (e != OK)
			continue;
		ck_assert_uint_eq(get_u64be(v.bytes.at + 8), (uint64_t)last[tried[f]]);
		slice_unref(&v);
	}
	return lost;
}

static int crash_after_steps(int which, uint64_t seed)
{
	struct step steps[STEPS];
	struct store_batch *b = store_batch_new(store);
	int lost;

	random_seed(seed);
	for (int i = 0; i < STEPS; i++) {
		steps[i] = (struct step){
			.f = tried[random_u64() % FAMILIES_TRIED], .unlogged = random_u64() % 2};
		write_step(b, (uint64_t)i, &steps[i]);
		if (random_u64() % 16 == 0)
			flush_steps(tried[random_u64() % FAMILIES_TRIED], steps, i + 1);
		if (random_u64() % 16 == 0)
			sync_steps(steps, i + 1);
	}
	store_batch_free(b);
	for (int i = 0; i < STEPS; i++)
		ck_assert(step_there((uint64_t)i, &steps[i]));
	crash(which);
	lost = check_steps(steps);
	crash(which); /* what is left stays */
	ck_assert_int_eq(check_steps(steps), lost);
	return lost;
}

START_TEST(a_crash_keeps_what_was_flushed_and_a_prefix)
{
	bool none = false, some = false;

	for (uint64_t seed = 1; seed <= (_i == 0 ? 6 : 300); seed++) {
		int lost;

		open_store(_i);
		lost = crash_after_steps(_i, seed);
		none = none || lost == 0;
		some = some || lost > 0;
		close_store();
	}
	ck_assert(some && (none || _i == 0));
}
END_TEST

/* Deletes that were logged before hold for what comes after, those that come after for it. */
START_TEST(unlogged_and_logged_writes_keep_their_order)
{
	struct store_batch *b;

	open_store(_i);
	b = store_batch_new(store);
	put(b, FAMILY_LOG_DAYS, "a", "old");
	write_sync(b);
	store_delete_range(b, FAMILY_LOG_DAYS, bytes_text("a"), bytes_text("c"));
	ck_assert_int_eq(store_write(store, b), OK);
	store_batch_clear(b);
	put(b, FAMILY_LOG_DAYS, "a", "new");
	put(b, FAMILY_LOG_DAYS, "b", "new");
	ck_assert_int_eq(store_write_unlogged(store, b), OK);
	store_batch_free(b);
	ck_assert_int_eq(store_flush(store, FAMILY_LOG_DAYS), OK);
	crash(_i);
	ck_assert_str_eq(got(NULL, FAMILY_LOG_DAYS, "a"), "new");
	ck_assert_str_eq(got(NULL, FAMILY_LOG_DAYS, "b"), "new");
	b = store_batch_new(store);
	store_delete_range(b, FAMILY_LOG_DAYS, bytes_text("b"), bytes_text("c"));
	write_sync(b);
	store_batch_free(b);
	crash(_i);
	ck_assert_str_eq(got(NULL, FAMILY_LOG_DAYS, "a"), "new");
	ck_assert_str_eq(got(NULL, FAMILY_LOG_DAYS, "b"), "-");
	close_store();
}
END_TEST

/* Deleting a range and reclaiming it makes the folder smaller. */
START_TEST(reclaim_returns_disk_space)
{
	enum { ENTRIES = 4000, BYTES = 16384 };
	struct store_stats full, after;
	uint8_t *payload = malloc(BYTES);
	struct bytes part = bytes_of(payload, BYTES);

	open_store(0);
	struct store_batch *b = store_batch_new(store);
	for (int i = 0; i < ENTRIES; i++) {
		/* Two groups side by side: files hold live blobs between dead ones. */
		struct entry_key k = key_entry((uint64_t)(1 + i % 2), (uint64_t)i);

		random_fill(payload, BYTES);
		store_put(b, FAMILY_LOG_DAYS, KEY_BYTES(k), &part, 1);
		if (i % 50 == 49)
			write_sync(b);
	}
	store_stats(store, &full);
	struct entry_key from = key_entry(1, 0), to = key_entry(1, ENTRIES);
	store_delete_range(b, FAMILY_LOG_DAYS, KEY_BYTES(from), KEY_BYTES(to));
	write_sync(b);
	ck_assert_int_eq(store_reclaim(store, FAMILY_LOG_DAYS, KEY_BYTES(from), KEY_BYTES(to)), OK);
	/* Files are deleted behind it, when nobody has them open any more. */
	for (int i = 0; i < 500; i++) {
		store_stats(store, &after);
		if (after.disk_bytes < full.disk_bytes * 2 / 3)
			break;
		usleep(20000);
	}
	printf("reclaim: disk %lld -> %lld, blobs %lld -> %lld, garbage %lld\n",
		(long long)full.disk_bytes, (long long)after.disk_bytes,
		(long long)full.blob_bytes[FAMILY_LOG_DAYS],
		(long long)after.blob_bytes[FAMILY_LOG_DAYS],
		(long long)after.blob_garbage_bytes[FAMILY_LOG_DAYS]);
	ck_assert_int_lt(after.disk_bytes, full.disk_bytes * 2 / 3);
	ck_assert_int_lt(after.blob_garbage_bytes[FAMILY_LOG_DAYS] * 2,
		after.blob_bytes[FAMILY_LOG_DAYS] + 1);
	struct slice v;
	struct entry_key live = key_entry(2, ENTRIES - 1);
	ck_assert_int_eq(store_get(store, NULL, FAMILY_LOG_DAYS, KEY_BYTES(live), &v), OK);
	ck_assert_uint_eq(v.bytes.len, BYTES);
	ck_assert_int_eq(memcmp(v.bytes.at, payload, BYTES), 0);
	slice_unref(&v);
	store_batch_free(b);
	close_store();
	free(payload);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, puts_gets_and_deletes, 0, 2);
	tcase_add_loop_test(tc, deletes_ranges_in_order, 0, 2);
	tcase_add_loop_test(tc, walks_both_ways_within_bounds, 0, 2);
	tcase_add_loop_test(tc, snapshots_see_the_past, 0, 2);
	tcase_add_loop_test(tc, walks_do_not_see_later_writes, 0, 2);
	tcase_add_loop_test(tc, gets_many, 0, 2);
	tcase_add_loop_test(tc, survives_failed_allocations, 0, 2);
	tcase_add_loop_test(tc, sequence_grows_with_writes, 0, 2);
	tcase_add_loop_test(tc, agrees_with_a_model, 0, 2);
	tcase_add_test(tc, rocks_keeps_what_it_was_given);
	tcase_add_test(tc, flushes_pieces);
	tcase_add_loop_test(tc, writes_past_the_page_cache_where_it_can, 0, 2);
	tcase_add_test(tc, compacted_logs_may_be_half_garbage);
	tcase_add_test(tc, crash_keeps_a_prefix);
	tcase_add_loop_test(tc, a_crash_keeps_what_was_flushed_and_a_prefix, 0, 2);
	tcase_add_loop_test(tc, unlogged_and_logged_writes_keep_their_order, 0, 2);
	tcase_add_test(tc, reclaim_returns_disk_space);
	Suite *s = suite_create("store");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
