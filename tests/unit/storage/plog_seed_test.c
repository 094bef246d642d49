/* Seeding a log: nothing of the half state is seen, not after a crash either; what is there at the
 * end is a log like any other. */
#include <check.h>
#include <semaphore.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/plog.h"
#include "tests/unit/run_on.h"

enum { GROUP = 9, ENTRIES = 20 };

static struct {
	struct store *store;
	struct loops *loops;
	struct workers *workers;
	struct writer *writer;
	struct plog_env env;
	struct plog *log;
	sem_t done;
} T;

static struct entry *entry_made(int i)
{
	uint8_t text[64];
	struct slice s;
	struct entry *e;

	memset(text, i, sizeof text);
	ck_assert_int_eq(slice_copy(bytes_of(text, sizeof text), &s), OK);
	e = entry_new(&s, 1);
	e->head.term = 3;
	e->head.count = 2;
	e->head.hlc = 1000 + i;
	return e;
}

static void open_log(void *arg)
{
	*(enum err *)arg = plog_open(&T.env, GROUP, FAMILY_LOG_DAYS, &T.log);
}

static void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(T.env.loop, fn, arg);
}
static void durable_run(struct durable *d)
{
	(void)d;
	sem_post(&T.done);
}
static void ask_durable(void *arg)
{
	lane_when_durable(T.env.lane, arg);
}
static void wait_durable(void)
{
	struct durable d = {.done = durable_run};

	on_loop(ask_durable, &d);
	sem_wait(&T.done);
}

static void up(void)
{
	enum err e;

	T.loops = loops_new(1);
	T.workers = workers_new(1);
	T.writer = writer_new(T.store, T.loops);
	T.env = (struct plog_env){.loop = loops_at(T.loops, 0),
		.store = T.store,
		.lane = writer_lane(T.writer, loops_at(T.loops, 0)),
		.cache = tail_cache_new(1 << 20),
		.workers = T.workers};
	loops_run(T.loops);
	on_loop(open_log, &e);
	ck_assert_int_eq(e, OK);
}

static void close_log(void *arg)
{
	(void)arg;
	plog_close(T.log);
}

static void down(void)
{
	on_loop(close_log, NULL);
	loops_stop(T.loops);
	writer_stop(T.writer);
	workers_free(T.workers);
	loops_free(T.loops);
	writer_free(T.writer);
	tail_cache_free(T.env.cache);
}

static void setup(void)
{
	sem_init(&T.done, 0, 0);
	ck_assert_int_eq(store_open_mem(7, &T.store), OK);
	up();
}
static void teardown(void)
{
	down();
	store_close(T.store);
}

/* An old state: entries, rows, marks. */
static void old_state(void *arg)
{
	(void)arg;
	plog_mark_term_vote(T.log, 5, 77);
	for (int i = 1; i <= 5; i++) {
		struct entry *e = entry_made(i);

		plog_append(T.log, e, 10);
		entry_unref(e);
	}
	plog_mark_config(T.log, 1, bytes_text("old"));
	plog_mark_applied(T.log, 5, 3);
	plog_applied(T.log, 5);
}

static void put_old_row(void *arg)
{
	uint8_t key[16];
	size_t len = key_row(GROUP, 1, bytes_text("old"), key);
	struct bytes value = bytes_text("x");

	(void)arg;
	lane_put(T.env.lane, FAMILY_ROWS, bytes_of(key, len), &value, 1);
}

static struct plog_state state; /* of what has been seeded */
static struct plog_state first;
static bool unlogged; /* payloads */
static bool bare;     /* some entries have none */

static void seed_begin(void *arg)
{
	plog_seed_begin(T.log, 100, *(bool *)arg ? state.index : 0);
}

static void seed_entries(void *arg)
{
	for (int i = 0; i < *(int *)arg; i++) {
		struct entry *e = entry_made(i);
		struct entry_header h = e->head;

		h.hlc = 1000 + (int64_t)(state.index - first.index);
		h.base_offset = state.next_offset;
		h.max_ms = state.max_ms;
		if (bare && (state.index + 1) % 3 == 0)
			h.payload_bytes = h.payload_crc = 0;
		h.log_bytes = state.bytes + h.payload_bytes;
		ck_assert(plog_follows(&state, state.index + 1, &h));
		ck_assert(!plog_follows(&state, state.index + 2, &h));
		plog_seed_entry(T.log, state.index + 1, &h,
			bytes_of(e->parts[0].bytes.at, h.payload_bytes), unlogged);
		state = plog_state_of(state.index + 1, &h);
		entry_unref(e);
	}
}

static void seed_row(void *arg)
{
	(void)arg;
	plog_seed_row(T.log, bytes_text("\1new"), bytes_text("value"));
}

static void seed_end(void *arg)
{
	struct plog_seed s = {.first = first,
		.last = state,
		.first_offset = first.next_offset,
		.config_index = 50,
		.cut = *(bool *)arg};

	ck_assert_int_eq(slice_copy(bytes_text("new"), &s.config), OK);
	plog_seed_end(T.log, &s);
	slice_unref(&s.config);
}

static bool row_there(const char *name)
{
	uint8_t key[16];
	size_t len = key_row(GROUP, 1, bytes_text(name), key);
	struct slice value;
	enum err e = store_get(T.store, NULL, FAMILY_ROWS, bytes_of(key, len), &value);

	if (e == OK)
		slice_unref(&value);
	return e == OK;
}

static void is_empty_but_term(void)
{
	const struct plog_marks *m = plog_marks(T.log);

	ck_assert(m->seeding);
	ck_assert_uint_eq(m->seeding_index, 100);
	ck_assert_uint_eq(m->given_up_index, 5);
	ck_assert_uint_eq(m->given_up_term, 3);
	ck_assert_uint_eq(m->term, 5);
	ck_assert_uint_eq(m->vote, 77);
	ck_assert_uint_eq(m->applied_index, 0);
	ck_assert_uint_eq(m->config.bytes.len, 0);
	ck_assert_uint_eq(plog_last_index(T.log), 0);
	ck_assert_int_eq(plog_next_offset(T.log), 0);
	ck_assert(plog_cached(T.log, 3) == NULL);
}

static void is_new(void)
{
	const struct plog_marks *m = plog_marks(T.log);

	ck_assert(!m->seeding);
	ck_assert_uint_eq(m->given_up_index, 0);
	ck_assert_uint_eq(m->term, 5);
	ck_assert_uint_eq(m->vote, 77);
	ck_assert_uint_eq(m->applied_index, first.index + ENTRIES);
	ck_assert_uint_eq(m->applied_term, 3);
	ck_assert_uint_eq(m->config_index, 50);
	ck_assert(bytes_equal(m->config.bytes, bytes_text("new")));
	ck_assert_uint_eq(m->first_index, first.index + 1);
	ck_assert_int_eq(m->first_offset, first.next_offset);
	ck_assert_uint_eq(plog_last_index(T.log), first.index + ENTRIES);
	ck_assert_uint_eq(plog_last_term(T.log), 3);
	ck_assert_int_eq(plog_next_offset(T.log), first.next_offset + 2 * ENTRIES);
	ck_assert_uint_eq((uint64_t)plog_bytes(T.log), state.bytes - first.bytes);
	ck_assert_int_eq(plog_hlc(T.log), 1000 + ENTRIES - 1);
	ck_assert_uint_eq(plog_term_cached(T.log, plog_last_index(T.log)), 3);
}

static int read_count;
static enum err read_err;
static void read_done(struct plog_read *r)
{
	read_err = r->err;
	read_count = r->count;
	for (int i = 0; i < r->count; i++) {
		ck_assert_int_eq(r->entries[i]->head.base_offset, first.next_offset + 2 * i);
		entry_unref(r->entries[i]);
	}
	mem_free(r->entries);
	sem_post(&T.done);
}
static struct plog_read reading;
static void read_all(void *arg)
{
	(void)arg;
	reading = (struct plog_read){.log = T.log,
		.offset = plog_marks(T.log)->first_offset,
		.end_offset = INT64_MAX,
		.bytes_max = 1 << 20,
		.done = read_done};
	plog_read(&reading);
}
static void append_one(void *arg)
{
	struct entry *e = entry_made(99);

	(void)arg;
	plog_append(T.log, e, 11);
	entry_unref(e);
}

static void begin_at(uint64_t index)
{
	state = first = (struct plog_state){.index = index,
		.term = index > 0 ? 2 : 0,
		.next_offset = (int64_t)index * 3,
		.max_ms = index > 0 ? 9 : -1,
		.bytes = index * 10};
}

/* Whole, with what was trimmed at the source (_i) or not; then it is read, appended to, reopened.
 */
START_TEST(becomes_a_log_like_any_other)
{
	bool no = false;
	int all = ENTRIES;

	begin_at((uint64_t)_i * 500);
	on_loop(old_state, NULL);
	on_loop(put_old_row, NULL);
	wait_durable();
	on_loop(seed_begin, &no);
	is_empty_but_term();
	on_loop(seed_entries, &all);
	on_loop(seed_row, NULL);
	wait_durable();
	is_empty_but_term();
	ck_assert(!row_there("old"));
	on_loop(seed_end, &no);
	is_new();
	wait_durable();
	on_loop(read_all, NULL);
	sem_wait(&T.done);
	ck_assert_int_eq(read_err, OK);
	ck_assert_int_eq(read_count, ENTRIES);
	down();
	up();
	is_new();
	ck_assert(row_there("new"));
	on_loop(append_one, NULL);
	ck_assert_uint_eq(plog_last_index(T.log), first.index + ENTRIES + 1);
	wait_durable();
	on_loop(read_all, NULL);
	sem_wait(&T.done);
	ck_assert_int_eq(read_count, ENTRIES); /* the store's; the new one is in memory */
	ck_assert(plog_cached_at(T.log, first.next_offset + 2 * ENTRIES) != NULL);
}
END_TEST

/* A crash in the middle: nothing of it is a state, term and vote are there, and what was staged is
 * found as a run and kept. */
START_TEST(goes_on_after_a_crash)
{
	bool no = false, yes = true;
	int some = 1 + _i, rest;
	struct plog_state found;
	uint64_t below;

	begin_at(500);
	on_loop(old_state, NULL);
	wait_durable();
	on_loop(seed_begin, &no);
	on_loop(seed_entries, &some);
	wait_durable();
	down();
	store_mem_crash(T.store);
	up();
	is_empty_but_term();
	ck_assert_int_eq(
		plog_seed_found(T.store, GROUP, FAMILY_LOG_DAYS, UINT64_MAX, &below, &found), OK);
	ck_assert_uint_eq(below, 500);
	ck_assert_uint_eq(found.index, 500 + (uint64_t)some);
	ck_assert_int_eq(found.next_offset, state.next_offset);
	rest = ENTRIES - some;
	state = found;
	on_loop(seed_begin, &yes);
	is_empty_but_term();
	on_loop(seed_entries, &rest);
	wait_durable();
	on_loop(seed_end, &no);
	is_new();
	wait_durable();
	down();
	up();
	is_new();
}
END_TEST

/* Every entry of the run has the payload that its header tells of. */
static void run_is_whole(uint64_t below, uint64_t last)
{
	for (uint64_t i = below + 1; i <= last; i++) {
		struct entry_key key = key_entry(GROUP, i);
		struct entry_header h;
		struct slice v;

		ck_assert_int_eq(store_get(T.store, NULL, FAMILY_IDX, KEY_BYTES(key), &v), OK);
		ck_assert_int_eq(entry_header_decode(v.bytes, &h), OK);
		slice_unref(&v);
		if (h.payload_bytes == 0)
			continue;
		ck_assert_int_eq(store_get(T.store, NULL, FAMILY_LOG_DAYS, KEY_BYTES(key), &v), OK);
		ck_assert_uint_eq(v.bytes.len, h.payload_bytes);
		slice_unref(&v);
	}
}

static void restart(void)
{
	down();
	store_mem_crash(T.store);
	up();
}

/* What an earlier seeding has left is taken up. Gives whether anything was. */
static bool take_up(uint64_t flushed)
{
	struct plog_state found;
	uint64_t below;

	ck_assert(plog_marks(T.log)->seeding);
	ck_assert_int_eq(
		plog_seed_found(T.store, GROUP, FAMILY_LOG_DAYS, UINT64_MAX, &below, &found), OK);
	if (found.index == below) {
		ck_assert_uint_eq(flushed, 0);
		ck_assert_uint_eq(found.index, 0); /* which nobody keeps */
		return false;
	}
	ck_assert_uint_eq(below, first.index);
	ck_assert_uint_ge(found.index, flushed);
	run_is_whole(below, found.index);
	state = found;
	return true;
}

/* Payloads unlogged, crashes anywhere: whatever is found is whole and goes on, what was flushed is
 * among it, and in the end nothing is missing. */
START_TEST(unlogged_payloads_survive_or_come_again)
{
	bool no = false, held;
	uint64_t flushed = 0;

	unlogged = true;
	bare = _i % 2 == 1;
	random_seed((uint64_t)_i + 1);
	begin_at(500);
	on_loop(old_state, NULL);
	on_loop(seed_begin, &no);
	wait_durable();
	while (state.index < 500 + ENTRIES) {
		int n = 1 + (int)(random_u64() % 5), left = (int)(500 + ENTRIES - state.index);

		n = n < left ? n : left;
		on_loop(seed_entries, &n);
		if (random_u64() % 2)
			wait_durable();
		if (random_u64() % 4 == 0) {
			wait_durable();
			ck_assert_int_eq(store_flush(T.store, FAMILY_LOG_DAYS), OK);
			flushed = state.index;
		}
		if (random_u64() % 3)
			continue;
		restart();
		held = take_up(flushed);
		if (!held)
			state = first;
		on_loop(seed_begin, &held);
		wait_durable();
	}
	wait_durable();
	ck_assert_int_eq(store_flush(T.store, FAMILY_LOG_DAYS), OK);
	on_loop(seed_end, &no);
	wait_durable();
	restart();
	is_new();
	run_is_whole(500, 500 + ENTRIES);
	on_loop(read_all, NULL);
	sem_wait(&T.done);
	ck_assert_int_eq(read_err, OK);
	ck_assert_int_eq(read_count, ENTRIES);
}
END_TEST

/* The payloads of a run may be gone altogether: then its headers are worth nothing but where they
 * need none. */
START_TEST(headers_alone_are_no_run)
{
	bool no = false;
	int some = 8;
	struct plog_state found;
	struct entry_key from = key_entry(GROUP, (uint64_t)_i), to = key_entry(GROUP, 1000);
	struct store_batch *b = store_batch_new(T.store);
	uint64_t below;

	bare = true;
	begin_at(500);
	on_loop(seed_begin, &no);
	on_loop(seed_entries, &some); /* 501, 504 and 507 are bare */
	wait_durable();
	store_delete_range(b, FAMILY_LOG_DAYS, KEY_BYTES(from), KEY_BYTES(to));
	ck_assert_int_eq(store_write(T.store, b), OK);
	store_batch_free(b);
	ck_assert_int_eq(
		plog_seed_found(T.store, GROUP, FAMILY_LOG_DAYS, UINT64_MAX, &below, &found), OK);
	ck_assert_uint_eq(below, 500);
	if (_i >= 509)
		ck_assert_uint_eq(found.index, 508);
	else
		ck_assert_uint_eq(found.index, (uint64_t)(_i % 3 == 0 ? _i : _i - 1));
	run_is_whole(500, found.index);
}
END_TEST

/* The source trims meanwhile: what is held below its first entry goes with the end. */
START_TEST(cuts_what_is_trimmed)
{
	bool no = false, yes = true;
	int some = 4, all = ENTRIES;
	struct entry_key key = key_entry(GROUP, 502);
	struct slice value;

	begin_at(500);
	on_loop(seed_begin, &no);
	on_loop(seed_entries, &some);
	first = state;
	on_loop(seed_entries, &all);
	wait_durable();
	on_loop(seed_end, &yes);
	wait_durable();
	ck_assert_uint_eq(plog_marks(T.log)->first_index, 505);
	ck_assert_int_eq(
		store_get(T.store, NULL, FAMILY_IDX, KEY_BYTES(key), &value), ERR_NOTFOUND);
	down();
	up();
	ck_assert_uint_eq(plog_marks(T.log)->first_index, 505);
	ck_assert_int_eq(plog_bytes(T.log), 64 * ENTRIES);
}
END_TEST

START_TEST(a_source_is_what_was_applied)
{
	struct plog_seed s;
	bool no = false;

	ck_assert_int_eq(plog_seed_source(T.store, NULL, GROUP, &s), ERR_NOTFOUND);
	on_loop(old_state, NULL);
	on_loop(append_one, NULL);
	wait_durable();
	ck_assert_int_eq(plog_seed_source(T.store, NULL, GROUP, &s), OK);
	ck_assert_uint_eq(s.first.index, 0);
	ck_assert_uint_eq(s.last.index, 5);
	ck_assert_uint_eq(s.last.term, 3);
	ck_assert_int_eq(s.last.next_offset, 10);
	ck_assert_uint_eq(s.config_index, 1);
	ck_assert(bytes_equal(s.config.bytes, bytes_text("old")));
	slice_unref(&s.config);
	on_loop(seed_begin, &no);
	wait_durable();
	ck_assert_int_eq(plog_seed_source(T.store, NULL, GROUP, &s), ERR_UNAVAILABLE);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plog_seed");
	TCase *tc = tcase_create("plog_seed");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, becomes_a_log_like_any_other, 0, 2);
	tcase_add_loop_test(tc, goes_on_after_a_crash, 0, 6);
	tcase_add_loop_test(tc, unlogged_payloads_survive_or_come_again, 0, 40);
	tcase_add_loop_test(tc, headers_alone_are_no_run, 501, 510);
	tcase_add_test(tc, cuts_what_is_trimmed);
	tcase_add_test(tc, a_source_is_what_was_applied);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
