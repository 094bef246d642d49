/* The log against a model. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "tests/unit/storage/log_life.h"

enum { GROUP = 7, INDEX_MAX = 4096 };

static void begin_life(size_t cache_bytes)
{
	begin_log(GROUP, FAMILY_LOG_DAYS, cache_bytes, NULL);
}

/* ---- the model: what every index was given last, by its unique stamp */

struct made {
	uint64_t term, stamp;
	uint32_t count, bytes;
	int64_t base, max_ms, hlc;
	enum entry_kind kind;
	uint8_t flags;
};
static struct made model[INDEX_MAX]; /* by index, from 1 */
static uint64_t last, applied, first_index;
static int64_t next_offset, max_ms, first_offset;
static uint64_t stamp, term;

static void model_clear(void)
{
	memset(model, 0, sizeof model);
	last = applied = stamp = 0;
	first_index = term = 1;
	next_offset = first_offset = 0;
	max_ms = -1;
}

static struct entry *make_entry(const struct made *m)
{
	struct slice parts[2] = {{NULL, {NULL, 0}}, {NULL, {NULL, 0}}};
	struct entry *e;

	parts[0].chunk = chunk_try(16);
	put_u64be(parts[0].chunk->data, m->stamp);
	put_u64be(parts[0].chunk->data + 8, m->term);
	parts[0].bytes = bytes_of(parts[0].chunk->data, 16);
	parts[1].chunk = chunk_try(m->bytes);
	memset(parts[1].chunk->data, (int)(m->stamp & 0xff), m->bytes);
	parts[1].bytes = bytes_of(parts[1].chunk->data, m->bytes);
	e = entry_new(parts, 2);
	e->head.term = m->term;
	e->head.kind = m->kind;
	e->head.flags = m->flags;
	e->head.count = m->count;
	e->head.hlc = m->hlc;
	return e;
}

static void append(void *arg)
{
	struct made *m = &model[last + 1];
	struct entry *e;
	int64_t batch_ms = (int64_t)(random_u64() % 5000);

	(void)arg;
	*m = (struct made){.term = term, .stamp = ++stamp, .kind = ENTRY_DATA};
	m->count = (uint32_t)(random_u64() % 4);
	m->bytes = (uint32_t)(random_u64() % 6000);
	m->flags = random_u64() % 4 == 0 ? ENTRY_HAS_ROWS : 0;
	m->base = next_offset;
	m->hlc = (int64_t)stamp << 16;
	if (m->count > 0 && batch_ms > max_ms)
		max_ms = batch_ms;
	m->max_ms = max_ms;
	e = make_entry(m);
	plog_append(p, e, m->count > 0 ? batch_ms : -1);
	entry_unref(e);
	next_offset += m->count;
	last++;
	ck_assert_uint_eq(plog_last_index(p), last);
	ck_assert_int_eq(plog_next_offset(p), next_offset);
}

static void append_some(void *arg)
{
	for (int i = 0; i < *(int *)arg; i++)
		append(NULL);
}

static void same(const struct entry *e)
{
	const struct made *m = &model[e->index];
	struct rd r = rd_over(e->parts[0].bytes);

	ck_assert_uint_eq(e->group, GROUP);
	ck_assert_uint_eq(e->head.term, m->term);
	ck_assert_uint_eq(e->head.count, m->count);
	ck_assert_int_eq(e->head.base_offset, m->base);
	ck_assert_int_eq(e->head.max_ms, m->max_ms);
	ck_assert_uint_eq(e->head.payload_bytes, m->bytes + 16);
	ck_assert_uint_eq(rd_u64be(&r), m->stamp);
}

static void set_applied(void *arg)
{
	applied = *(uint64_t *)arg;
	plog_applied(p, applied);
	plog_mark_applied(p, applied, model[applied].term);
}

static void truncate_to(void *arg)
{
	uint64_t index = *(uint64_t *)arg;

	plog_truncate(p, index);
	last = index - 1;
	next_offset = model[last].base + model[last].count;
	max_ms = last > 0 ? model[last].max_ms : -1;
	term++; /* a new leader overwrites */
	ck_assert_uint_eq(plog_last_index(p), last);
	ck_assert_int_eq(plog_next_offset(p), next_offset);
	ck_assert_int_eq(plog_max_ms(p), max_ms);
}

static void trim_to(void *arg)
{
	int64_t offset = *(int64_t *)arg;

	plog_trim(p, offset, applied + 1);
	if (offset > first_offset)
		first_offset = offset;
}

static void read_done(struct plog_read *r)
{
	(void)r;
	sem_post(&done);
}

static void start_read(void *arg)
{
	plog_read(arg);
}

static void do_read(struct plog_read *r)
{
	r->log = p;
	r->done = read_done;
	on_loop(start_read, r);
	wait_done();
}

static void free_read(struct plog_read *r)
{
	for (int i = 0; i < r->count; i++)
		entry_unref(r->entries[i]);
	mem_free(r->entries);
}

/* Reads by offset from `from` to the end; every record must come, in order, once. */
static void read_all(int64_t from, size_t bytes_max)
{
	int64_t at = from;

	while (at < next_offset) {
		struct plog_read r = {
			.offset = at, .end_offset = next_offset, .bytes_max = bytes_max};

		do_read(&r);
		ck_assert_int_eq(r.err, OK);
		ck_assert_int_gt(r.count, 0);
		for (int i = 0; i < r.count; i++) {
			const struct entry_header *h = &r.entries[i]->head;

			same(r.entries[i]);
			ck_assert_int_gt(h->count, 0);
			ck_assert(i == 0 ? h->base_offset <= at : h->base_offset == at);
			at = entry_next_offset(h);
		}
		free_read(&r);
	}
	ck_assert_int_eq(at, next_offset > from ? next_offset : from);
}

static void check_cached(void *arg)
{
	(void)arg;
	for (uint64_t i = 1; i <= last; i++) {
		struct entry *e = plog_cached(p, i);

		if (e != NULL)
			same(e);
		if (plog_term_cached(p, i) != 0)
			ck_assert_uint_eq(plog_term_cached(p, i), model[i].term);
	}
	for (int64_t o = first_offset; o < next_offset; o += 3) {
		struct entry *e = plog_cached_at(p, o);

		if (e != NULL)
			ck_assert(e->head.base_offset <= o && entry_next_offset(&e->head) > o);
	}
	ck_assert_ptr_null(plog_cached(p, last + 1));
	ck_assert_ptr_null(plog_cached_at(p, next_offset));
}

/* What a crash left is some prefix: take it as the model, after checking what it must hold. */
static void take_recovered(uint64_t safe)
{
	ck_assert_uint_ge(plog_last_index(p), safe);
	last = plog_last_index(p);
	next_offset = plog_next_offset(p);
	max_ms = plog_max_ms(p);
	applied = plog_marks(p)->applied_index;
	first_offset = plog_marks(p)->first_offset;
	first_index = plog_marks(p)->first_index;
	ck_assert_uint_le(applied, last);
}

static void random_step(uint64_t *safe)
{
	uint64_t what = random_u64() % 20;
	int n = 1 + (int)(random_u64() % 6);

	if (what < 10 && last + 10 < INDEX_MAX) {
		on_loop(append_some, &n);
	} else if (what < 12 && applied < last) {
		uint64_t to = applied + 1 + random_u64() % (last - applied);

		wait_durable();
		on_loop(set_applied, &to);
		*safe = to;
	} else if (what == 13 && last > applied) {
		uint64_t from = applied + 1 + random_u64() % (last - applied);

		on_loop(truncate_to, &from);
	} else if (what == 14 && applied > 0) {
		int64_t to = model[1 + random_u64() % applied].base;

		on_loop(trim_to, &to);
	} else if (what < 18 && next_offset > first_offset) {
		uint64_t range = (uint64_t)(next_offset - first_offset);

		read_all(first_offset + (int64_t)(random_u64() % range), random_u64() % 30000);
	} else {
		on_loop(check_cached, NULL);
	}
}

/* Lives end by closing or by a crash; a truncated tail may come back only if it was replaced
 * neither: versions of an index are told apart by their stamps, kept by crash. */
START_TEST(agrees_with_a_model)
{
	uint64_t safe = 0;

	random_seed((uint64_t)_i + 100);
	model_clear();
	open_store((uint64_t)_i);
	for (int life = 0; life < 6; life++) {
		bool crash = life % 2 == 1;

		begin_life(random_u64() % 2 ? 20000 : 1 << 20);
		take_recovered(safe);
		for (int i = 0; i < 60; i++)
			random_step(&safe);
		/* A cut that a crash could take back would leave the model without the entries. */
		wait_durable();
		if (crash && last + 10 < INDEX_MAX) {
			int n = 5;

			safe = last;
			atomic_store(&no_sync, true);
			on_loop(append_some, &n);
		}
		end_log(crash);
		atomic_store(&no_sync, false);
		safe = crash ? safe : last;
	}
	begin_life(1 << 20);
	take_recovered(safe);
	read_all(first_offset, 100000);
	end_log(false);
	store_close(store);
}
END_TEST

/* A start reads no payload but those whose rows or configuration are to be applied again. */
START_TEST(recovery_reads_no_payload_without_rows)
{
	uint64_t rows = 0, to = 40, reads, headers;
	int n = 100;

	random_seed(5);
	model_clear();
	open_store(1);
	begin_life(1 << 20);
	on_loop(append_some, &n);
	wait_durable();
	on_loop(set_applied, &to);
	end_log(false);
	for (uint64_t i = to + 1; i <= last; i++)
		rows += model[i].flags == ENTRY_HAS_ROWS;
	reads = store_reads(store, FAMILY_LOG_DAYS);
	headers = store_reads(store, FAMILY_IDX);
	begin_life(1 << 20);
	ck_assert_uint_gt(rows, 0);
	ck_assert_uint_eq(store_reads(store, FAMILY_LOG_DAYS) - reads, rows);
	ck_assert_uint_le(store_reads(store, FAMILY_IDX) - headers, last - to + 3);
	for (uint64_t i = 1; i <= last; i++) {
		bool here = i > to && model[i].flags == ENTRY_HAS_ROWS;

		ck_assert_int_eq(plog_cached(p, i) != NULL, here);
		ck_assert_int_eq(plog_header(p, i) != NULL, i > to);
	}
	ck_assert_int_eq(plog_bytes(p) > 0, true);
	read_all(0, 5000);
	end_log(false);
	store_close(store);
}
END_TEST

START_TEST(cold_reads_leave_the_tail_alone)
{
	int n = 300;
	uint64_t all;

	random_seed(6);
	model_clear();
	open_store(1);
	begin_life(50000);
	on_loop(append_some, &n);
	wait_durable();
	all = last;
	ck_assert_uint_gt(tail_cache_bytes(env.cache), 50000); /* nothing applied: nothing leaves */
	on_loop(set_applied, &all);
	ck_assert_uint_le(tail_cache_bytes(env.cache), 50000);
	ck_assert_ptr_null(plog_cached(p, 1));
	ck_assert_ptr_nonnull(plog_cached(p, last));
	size_t before = tail_cache_bytes(env.cache);
	read_all(0, 20000);
	ck_assert_uint_eq(tail_cache_bytes(env.cache), before);
	end_log(false);
	store_close(store);
}
END_TEST

START_TEST(what_is_recovered_counts_when_it_may_leave)
{
	int n = 300;
	uint64_t all;

	random_seed(7);
	model_clear();
	open_store(1);
	begin_life(50000);
	on_loop(append_some, &n);
	wait_durable();
	all = last;
	end_log(false);
	begin_life(50000);
	ck_assert_uint_eq(plog_last_index(p), all);
	ck_assert_ptr_nonnull(plog_header(p, 1));
	ck_assert_uint_eq(tail_cache_bytes(env.cache), 0); /* a worker may have opened it */
	on_loop(set_applied, &all);
	ck_assert_uint_gt(tail_cache_bytes(env.cache), 0);
	ck_assert_uint_le(tail_cache_bytes(env.cache), 50000);
	end_log(false);
	store_close(store);
}
END_TEST

START_TEST(reads_by_index_give_every_entry)
{
	int n = 120;
	uint64_t at = 1, all;

	random_seed(8);
	model_clear();
	open_store(1);
	begin_life(50000);
	on_loop(append_some, &n);
	wait_durable();
	all = last;
	on_loop(set_applied, &all);
	while (at <= last) {
		struct plog_read r = {.offset = -1,
			.hint_index = at,
			.end_offset = INT64_MAX,
			.bytes_max = 30000};

		do_read(&r);
		ck_assert_int_eq(r.err, OK);
		ck_assert_int_gt(r.count, 0);
		for (int i = 0; i < r.count; i++) {
			ck_assert_uint_eq(r.entries[i]->index, at++);
			same(r.entries[i]);
		}
		free_read(&r);
	}
	end_log(false);
	store_close(store);
}
END_TEST

/* Flips a byte of a stored payload, then drops one: neither may be given to a reader. */
START_TEST(finds_broken_payloads)
{
	int n = 10;
	uint64_t all;
	struct entry_key key = key_entry(GROUP, 5);
	struct bytes bad = bytes_text("not what was written");
	struct plog_read r = {
		.offset = -1, .hint_index = 5, .end_offset = INT64_MAX, .bytes_max = 1};

	random_seed(9);
	model_clear();
	open_store(1);
	begin_life(100);
	on_loop(append_some, &n);
	wait_durable();
	all = last;
	on_loop(set_applied, &all);
	struct store_batch *b = store_batch_new(store);
	if (_i == 0)
		store_put(b, FAMILY_LOG_DAYS, KEY_BYTES(key), &bad, 1);
	else if (_i == 1)
		store_delete(b, FAMILY_LOG_DAYS, KEY_BYTES(key));
	else
		store_put(b, FAMILY_IDX, KEY_BYTES(key), &bad, 1);
	ck_assert_int_eq(store_write(store, b), OK);
	store_batch_free(b);
	do_read(&r);
	ck_assert_int_eq(r.err, ERR_CORRUPT);
	ck_assert_int_eq(r.count, 0);
	if (_i < 2) { /* what stands before it is served */
		struct plog_read before = {.offset = -1,
			.hint_index = 2,
			.end_offset = INT64_MAX,
			.bytes_max = 1 << 20};
		do_read(&before);
		ck_assert_int_eq(before.err, OK);
		ck_assert_int_eq(before.count, 3);
		ck_assert_uint_eq(before.entries[2]->index, 4);
		free_read(&before);
	}
	end_log(false);
	store_close(store);
}
END_TEST

/* A hole in the headers, or one that breaks the rule of offsets, is not opened over. */
START_TEST(refuses_a_broken_index)
{
	int n = 10;
	struct entry_key key = key_entry(GROUP, 6);
	struct entry_header h = {.term = 1, .kind = ENTRY_DATA, .count = 3, .base_offset = 77};
	uint8_t row[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	struct bytes value = bytes_of(row, entry_header_encode(&h, row));

	random_seed(10);
	model_clear();
	open_store(1);
	begin_life(1 << 20);
	on_loop(append_some, &n);
	end_log(false);
	struct store_batch *b = store_batch_new(store);
	if (_i == 0)
		store_delete(b, FAMILY_IDX, KEY_BYTES(key));
	else
		store_put(b, FAMILY_IDX, KEY_BYTES(key), &value, 1);
	ck_assert_int_eq(store_write(store, b), OK);
	store_batch_free(b);
	env.cache = tail_cache_new(1000);
	loops = loops_new(1);
	env.loop = loops_at(loops, 0);
	ck_assert_int_eq(plog_open(&env, GROUP, FAMILY_LOG_DAYS, &p), ERR_CORRUPT);
	tail_cache_free(env.cache);
	loops_free(loops);
	store_close(store);
}
END_TEST

static void seek_done(struct plog_seek *s)
{
	(void)s;
	sem_post(&done);
}
static void start_seek(void *arg)
{
	plog_seek(arg);
}
static void epoch_done(struct plog_epoch *q)
{
	(void)q;
	sem_post(&done);
}
static void start_epoch(void *arg)
{
	plog_epoch(arg);
}
static void retain_done(struct plog_retain *q)
{
	(void)q;
	sem_post(&done);
}
static void start_retain(void *arg)
{
	plog_retain(arg);
}

static void check_seek(int64_t time_ms)
{
	struct plog_seek s = {
		.log = p, .time_ms = time_ms, .end_offset = next_offset, .done = seek_done};
	uint64_t want = 1;

	while (want <= last && model[want].max_ms < time_ms)
		want++;
	on_loop(start_seek, &s);
	wait_done();
	ck_assert_int_eq(s.err, want <= last ? OK : ERR_NOTFOUND);
	if (s.err != OK)
		return;
	ck_assert_uint_eq(s.entry->index, want);
	same(s.entry);
	entry_unref(s.entry);
}

static void check_epoch(uint64_t asked)
{
	struct plog_epoch q = {.log = p, .term = asked, .done = epoch_done};
	uint64_t after = 1;

	while (after <= last && model[after].term <= asked)
		after++;
	on_loop(start_epoch, &q);
	wait_done();
	ck_assert_int_eq(q.err, OK);
	ck_assert_uint_eq(q.found_term, after > 1 ? model[after - 1].term : 0);
	ck_assert_int_eq(q.end_offset, after <= last ? model[after].base : next_offset);
}

static void check_retain(int64_t before_ms, int64_t bytes_max)
{
	struct plog_retain q = {.log = p,
		.before_ms = before_ms,
		.bytes_max = bytes_max,
		.end_offset = next_offset,
		.done = retain_done};
	uint64_t keep = 1;
	int64_t behind = 0, all = 0;

	for (uint64_t i = 1; i <= last; i++)
		all += model[i].bytes + 16;
	for (behind = all; keep <= last; keep++) {
		bool old = before_ms >= 0 && model[keep].hlc >> 16 < before_ms;

		behind -= model[keep].bytes + 16;
		if (!old && !(bytes_max >= 0 && behind >= bytes_max))
			break;
	}
	on_loop(start_retain, &q);
	wait_done();
	ck_assert_int_eq(q.err, OK);
	ck_assert_int_eq(q.bytes, all);
	ck_assert_int_eq(q.keep_offset, keep <= last ? model[keep].base : next_offset);
}

/* By time, term, age and bytes; all in memory (0), split (1), all in the store (2). */
START_TEST(finds_by_header)
{
	static const size_t caches[] = {1 << 20, 60000, 1};
	int n = 20;
	uint64_t all;

	random_seed(20);
	model_clear();
	open_store(1);
	begin_life(caches[_i]);
	for (int t = 0; t < 8; t++) {
		on_loop(append_some, &n);
		term += 2;
	}
	wait_durable();
	all = last;
	on_loop(set_applied, &all);
	for (int64_t t = -1; t <= 5001; t += 83)
		check_seek(t);
	for (uint64_t t = 0; t <= term + 1; t++)
		check_epoch(t);
	for (int64_t ms = -1; ms <= (int64_t)last + 2; ms += 13) {
		check_retain(ms, -1);
		check_retain(-1, ms * 3000);
		check_retain(ms, ms * 3000);
	}
	end_log(false);
	store_close(store);
}
END_TEST

static bool stored(enum store_family f, uint64_t index)
{
	struct entry_key k = key_entry(GROUP, index);
	struct slice v;
	enum err e = store_get(store, NULL, f, KEY_BYTES(k), &v);

	if (e == OK)
		slice_unref(&v);
	return e == OK;
}

static void get_first(void *arg)
{
	*(uint64_t *)arg = plog_marks(p)->first_index;
}

/* Trimmed records can't be read; their entries are deleted, never those that must be kept. */
START_TEST(trims)
{
	int n = 100;
	uint64_t all;
	int64_t to;
	struct plog_read r = {.end_offset = INT64_MAX, .bytes_max = 1000};

	random_seed(30);
	model_clear();
	open_store(1);
	begin_life(_i == 0 ? 1 << 20 : 1);
	on_loop(append_some, &n);
	wait_durable();
	all = 60;
	on_loop(set_applied, &all);
	to = model[80].base;
	on_loop(trim_to, &to);
	uint64_t first = 1;
	for (int i = 0; i < 4000 && first == 1; i++) {
		usleep(5000);
		on_loop(get_first, &first);
	}
	wait_durable();
	ck_assert_uint_eq(plog_marks(p)->first_index, 61); /* kept from applied + 1 on */
	ck_assert_int_eq(plog_marks(p)->first_offset, to);
	r.offset = to - 1;
	do_read(&r);
	ck_assert_int_eq(r.err, ERR_RANGE);
	read_all(to, 10000);
	for (uint64_t i = 1; i <= last; i++) {
		ck_assert_int_eq(stored(FAMILY_IDX, i), i > 60);
		ck_assert_int_eq(stored(FAMILY_LOG_DAYS, i), i > 60);
	}
	end_log(false);
	begin_life(1 << 20);
	ck_assert_uint_eq(plog_marks(p)->first_index, 61);
	ck_assert_int_eq(plog_marks(p)->first_offset, to);
	ck_assert_uint_eq(plog_last_index(p), last);
	read_all(to, 10000);
	end_log(false);
	store_close(store);
}
END_TEST

static void reset_log(void *arg)
{
	(void)arg;
	plog_reset(p, 500, 9, 1234);
	plog_mark_applied(p, 500, 9);
}
static void mark_all(void *arg)
{
	(void)arg;
	plog_mark_term_vote(p, 12, 3);
	plog_mark_config(p, 2, bytes_text("configuration"));
	plog_create(&env, GROUP, FAMILY_LOG_DAYS, bytes_text("info"));
}
static void destroy_log(void *arg)
{
	(void)arg;
	plog_destroy(p);
	ck_assert_int_eq(plog_open(&env, GROUP, FAMILY_LOG_DAYS, &p), OK);
}
static bool count_group(const struct plog_group_row *row, void *arg)
{
	ck_assert_uint_eq(row->group, GROUP);
	ck_assert_int_eq(row->log_family, FAMILY_LOG_DAYS);
	ck_assert(bytes_equal(row->info, bytes_text("info")));
	++*(int *)arg;
	return true;
}

START_TEST(marks_reset_and_destroy)
{
	int n = 20, groups = 0;

	random_seed(40);
	model_clear();
	open_store(1);
	begin_life(1 << 20);
	on_loop(append_some, &n);
	on_loop(mark_all, NULL);
	on_loop(reset_log, NULL);
	ck_assert_uint_eq(plog_last_index(p), 500);
	ck_assert_int_eq(plog_next_offset(p), 1234);
	end_log(false);
	begin_life(1 << 20);
	ck_assert_uint_eq(plog_last_index(p), 500);
	ck_assert_uint_eq(plog_last_term(p), 9);
	ck_assert_uint_eq(plog_term_cached(p, 500), 9);
	ck_assert_int_eq(plog_next_offset(p), 1234);
	ck_assert_uint_eq(plog_marks(p)->term, 12);
	ck_assert_uint_eq(plog_marks(p)->vote, 3);
	ck_assert_uint_eq(plog_marks(p)->config_index, 2);
	ck_assert(bytes_equal(plog_marks(p)->config.bytes, bytes_text("configuration")));
	ck_assert(!stored(FAMILY_IDX, 3));
	ck_assert_int_eq(plog_groups(store, count_group, &groups), OK);
	ck_assert_int_eq(groups, 1);
	on_loop(destroy_log, NULL);
	wait_durable();
	ck_assert_int_eq(plog_groups(store, count_group, &groups), OK);
	ck_assert_int_eq(groups, 1);
	end_log(false);
	begin_life(1 << 20);
	ck_assert_uint_eq(plog_last_index(p), 0);
	ck_assert_uint_eq(plog_marks(p)->term, 0);
	end_log(false);
	store_close(store);
}
END_TEST

/* Every allocation of a size from the disk fails once: the read fails, nothing leaks. */
static _Atomic int fail_at;
static enum err failing_multi_get(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, int count, const struct bytes *keys, struct slice *out)
{
	enum err e;

	mem_fail_at(atomic_load(&fail_at));
	e = real->multi_get(s, snapshot, f, count, keys, out);
	if (atomic_load(&fail_at) < 100)
		mem_fail_at(-1);
	return e;
}

START_TEST(reads_survive_failed_allocations)
{
	int n = 10;
	uint64_t all = 10;

	random_seed(50);
	model_clear();
	open_store(1);
	freezing.multi_get = failing_multi_get;
	begin_life(1);
	on_loop(append_some, &n);
	wait_durable();
	on_loop(set_applied, &all);
	for (int i = 0; i < 5; i++) {
		struct plog_read r = {.offset = 0, .end_offset = INT64_MAX, .bytes_max = 1 << 20};

		atomic_store(&fail_at, i);
		do_read(&r);
		ck_assert_int_eq(r.err, ERR_NOMEM);
		ck_assert_int_eq(r.count, 0);
	}
	atomic_store(&fail_at, -1);
	read_all(0, 1 << 20);
	end_log(false);
	store_close(store);
}
END_TEST

static void read_then_close(void *arg)
{
	plog_read(arg);
	plog_close(p);
}

START_TEST(closing_ends_reads)
{
	int n = 10;
	uint64_t all = 10;
	struct plog_read r = {.end_offset = INT64_MAX, .bytes_max = 1000, .done = read_done};

	random_seed(60);
	model_clear();
	open_store(1);
	begin_life(1);
	on_loop(append_some, &n);
	wait_durable();
	on_loop(set_applied, &all);
	r.log = p;
	on_loop(read_then_close, &r);
	wait_done();
	ck_assert_int_eq(r.err, ERR_CLOSED);
	ck_assert_int_eq(r.count, 0);
	ck_assert_int_eq(plog_open(&env, GROUP, FAMILY_LOG_DAYS, &p), OK);
	end_log(false);
	store_close(store);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("plog");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, agrees_with_a_model, 0, 12);
	tcase_add_test(tc, recovery_reads_no_payload_without_rows);
	tcase_add_test(tc, cold_reads_leave_the_tail_alone);
	tcase_add_test(tc, what_is_recovered_counts_when_it_may_leave);
	tcase_add_test(tc, reads_by_index_give_every_entry);
	tcase_add_loop_test(tc, finds_broken_payloads, 0, 3);
	tcase_add_loop_test(tc, refuses_a_broken_index, 0, 2);
	tcase_add_loop_test(tc, finds_by_header, 0, 3);
	tcase_add_loop_test(tc, trims, 0, 2);
	tcase_add_test(tc, marks_reset_and_destroy);
	tcase_add_test(tc, reads_survive_failed_allocations);
	tcase_add_test(tc, closing_ends_reads);
	Suite *s = suite_create("plog");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
