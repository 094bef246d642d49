/* What is fetched is the source's state after one entry, whatever is lost, broken or crashes on the
 * way. */
#include "tests/unit/cluster/catchup_world.h"

static const size_t sizes[] = {0, 100, 50000, 300000};

START_TEST(fetches_all)
{
	world(sizes[_i % 4]);
	unlogged_if(_i / 4 == 1);
	T.row_bytes = _i % 4 == 2 ? 300000 : 5000;
	memset(T.dirty, 1, sizeof T.dirty);
	T.index_min = ENTRIES;
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	ck_assert_int_eq(T.emptied, 1);
	ck_assert_int_le(T.chunks, 2 + ENTRIES + ROWS);
	end_world();
}
END_TEST

/* A log of some size, by itself: 60 entries of 300,000 bytes are 18 MB. */
START_TEST(much_is_written_once)
{
	bool much = sizes[_i] == 300000;

	world(sizes[_i]);
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_eq(atomic_load(&unlogged_writes) > 0, much);
	ck_assert_int_eq(atomic_load(&flushes), much);
	target_is_whole();
	restart_target();
	target_is_whole();
	end_world();
}
END_TEST

static void keep_busy(struct loop_timer *t)
{
	struct bytes b = bytes_text("x");

	lane_put(T.target.env.lane, FAMILY_META, b, &b, 1);
	loop_timer_set(t, 1);
}

static void start_busy(void *arg)
{
	(void)arg;
	T.timer.fire = keep_busy;
	loop_timer_set(&T.timer, 1);
}

/* The lane gathers while it is busy: what goes and what comes would be in one set, and of that the
 * unlogged part is written first. */
START_TEST(what_goes_is_gone_before_anything_comes)
{
	world(100);
	unlogged_if(true);
	on_loop(start_busy, NULL);
	atomic_store(&write_us, 30000);
	usleep(50000); /* it is busy now */
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	end_world();
}
END_TEST

START_TEST(fetches_while_the_source_writes)
{
	world(30000);
	unlogged_if(_i == 2);
	T.writing = true;
	T.lose_answers = _i * 4;
	T.lose_questions = _i * 5;
	random_seed((uint64_t)_i + 11);
	ck_assert_int_eq(fetch(), OK);
	T.writing = false;
	wait_durable(&T.source);
	target_is_whole();
	end_world();
}
END_TEST

/* Every write of the target but the first few is lost, and of unlogged ones some more; then the
 * machine comes back. Of those there are twice as many. */
START_TEST(survives_a_crash_anywhere)
{
	bool old, whole, unlogged = _i % 2 == 1;
	int writes = _i / 2;

	world(60000);
	unlogged_if(unlogged);
	atomic_store(&writes_left, unlogged ? 2 * writes : writes);
	ck_assert_int_eq(fetch(), OK); /* as it thinks */
	ck_assert_int_eq(atomic_load(&unlogged_writes) > 0, unlogged);
	restart_target();
	old = !plog_marks(T.target.log)->seeding && plog_last_index(T.target.log) == HELD + 1;
	whole = !plog_marks(T.target.log)->seeding && !old;
	if (old)
		target_is_old();
	else if (whole)
		target_is_whole();
	else
		target_is_nothing();
	ck_assert(writes > 0 || old);
	ck_assert(writes < 20 || whole);
	if (!whole) {
		ck_assert_int_eq(fetch(), OK);
		target_is_whole();
	}
	restart_target();
	target_is_whole();
	end_world();
}
END_TEST

START_TEST(refuses_what_is_broken)
{
	world(100000);
	unlogged_if(_i == 2);
	T.break_at = 1 + _i * 3;
	ck_assert_int_eq(fetch(), ERR_CORRUPT);
	ck_assert_int_eq(T.break_at, T.chunks);
	target_is_nothing();
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	end_world();
}
END_TEST

START_TEST(leaves_the_old_state_when_nobody_serves)
{
	world(100);
	T.leads = false;
	ck_assert_int_eq(fetch(), ERR_NOTLEADER);
	ck_assert_int_eq(T.emptied, 0);
	target_is_old();
	end_world();
}
END_TEST

static void cancel(void *arg)
{
	(void)arg;
	catchup_cancel(T.fetch);
}
static void look(void *arg)
{
	struct catchup_view *v = arg;

	if (catchups_given(T.source.all, GROUP, TARGET_NODE, T.loop, v))
		ck_assert_uint_eq(v->entries_total, ENTRIES);
	ck_assert(!catchups_given(T.source.all, GROUP, TARGET_NODE + 1, T.loop, v));
	ck_assert(!catchups_given(T.source.all, GROUP + 1, TARGET_NODE, T.loop, v));
}

/* The next one goes on: what it finds need not be durable, so it is unlogged in any case. */
START_TEST(can_be_cancelled)
{
	struct catchup_view v = {0};

	world(100000);
	unlogged_if(_i % 2 == 1);
	T.settings.rate_bytes = 1 << 20; /* slow enough to be in the middle */
	on_loop(start, NULL);
	while (v.bytes < 500000)
		on_loop(look, &v);
	/* Chunks hold two entries of 100 KB each; the last one given is not asked beyond yet. */
	ck_assert_uint_ge(v.entries, 2);
	ck_assert_uint_le((v.entries - 2) * 100000, (uint64_t)v.bytes);
	on_loop(cancel, NULL);
	T.settings.rate_bytes = 0;
	target_is_nothing();
	unlogged_if(_i / 2 == 1);
	T.chunks = 0;
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	ck_assert_int_eq(atomic_load(&flushes), 1);
	ck_assert_int_lt(T.chunks, 1 + ENTRIES / 2 + 2); /* not from the beginning */
	restart_target();
	target_is_whole();
	end_world();
}
END_TEST

START_TEST(can_be_cancelled_while_it_flushes)
{
	world(100000);
	unlogged_if(true);
	atomic_store(&flush_hangs, true);
	on_loop(start, NULL);
	while (atomic_load(&flushes) == 0)
		usleep(1000);
	on_loop(cancel, NULL);
	atomic_store(&flush_hangs, false);
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	end_world();
}
END_TEST

/* --- time --- */

static _Atomic int64_t ahead_us;
static int64_t later_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + atomic_load(&ahead_us);
}
static void nothing(void *arg)
{
	(void)arg;
}
/* Time passes, and those who wait for it get their turn. */
static void pass(int64_t ms)
{
	atomic_fetch_add(&ahead_us, ms * 1000);
	for (int i = 0; i < 3; i++)
		on_loop(nothing, NULL);
}

START_TEST(a_silent_session_ends)
{
	struct catchup_view v = {0};

	clock_replace(later_us, later_us);
	world(100000);
	T.settings.rate_bytes = 4 << 20;
	on_loop(start, NULL);
	while (v.bytes < 500000)
		on_loop(look, &v);
	T.lose_questions = 1; /* the last word, too */
	on_loop(cancel, NULL);
	pass(CATCHUP_WAIT_MS_MAX);
	ck_assert_int_eq(T.pins, 1);
	for (int i = 0; i < 100 && T.pins > 0; i++)
		pass(1000);
	ck_assert_int_eq(T.pins, 0);
	ck_assert_int_eq(atomic_load(&T.source.all->out.memory.held), 0);
	T.lose_questions = 0;
	T.settings.rate_bytes = 0;
	ck_assert_int_eq(fetch(), OK);
	target_is_whole();
	end_world();
	clock_replace(NULL, NULL);
}
END_TEST

START_TEST(the_log_is_pinned_until_it_is_taken_up)
{
	clock_replace(later_us, later_us);
	world(1000);
	T.match = ENTRIES - 1;
	ck_assert_int_eq(fetch(), OK);
	pass(10000);
	ck_assert_int_eq(T.pins, 1);
	ck_assert_int_eq(atomic_load(&T.source.all->out.memory.held), 0);
	if (_i == 0)
		T.match = ENTRIES;
	for (int i = 0; i < 10 && T.pins > 0; i++)
		pass(_i == 0 ? 200 : 5000); /* or for too long */
	ck_assert_int_eq(T.pins, 0);
	end_world();
	clock_replace(NULL, NULL);
}
END_TEST

/* With no memory left sessions are refused, and the fetch waits for it. */
struct holding {
	struct loop_timer timer;
	int looks;
};
static void release_fire(struct loop_timer *t)
{
	struct holding *h = list_entry(t, struct holding, timer);

	ck_assert_int_le(atomic_load(&T.source.all->out.memory.held), 1 << 20);
	ck_assert(!plog_marks(T.target.log)->seeding);
	catchup_let_go(&T.source.all->out.memory, 1 << 20);
	h->looks++;
}
static void hold_all(void *arg)
{
	struct holding *h = arg;

	ck_assert(catchup_hold(&T.source.all->out.memory, 1 << 20, 1 << 20));
	loop_timer_init(&h->timer, T.loop, release_fire);
	loop_timer_set(&h->timer, 300);
}

START_TEST(waits_for_memory)
{
	struct holding h = {.looks = 0};

	world(1000);
	T.settings.memory_bytes = 2 << 20;
	on_loop(hold_all, &h);
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_eq(h.looks, 1);
	target_is_whole();
	end_world();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, fetches_all, 0, 8);
	tcase_add_loop_test(tc, much_is_written_once, 2, 4);
	tcase_add_test(tc, what_goes_is_gone_before_anything_comes);
	tcase_add_loop_test(tc, fetches_while_the_source_writes, 0, 3);
	tcase_add_loop_test(tc, survives_a_crash_anywhere, 0, 42);
	tcase_add_loop_test(tc, refuses_what_is_broken, 0, 3);
	tcase_add_test(tc, leaves_the_old_state_when_nobody_serves);
	tcase_add_loop_test(tc, can_be_cancelled, 0, 4);
	tcase_add_test(tc, can_be_cancelled_while_it_flushes);
	tcase_add_test(tc, a_silent_session_ends);
	tcase_add_loop_test(tc, the_log_is_pinned_until_it_is_taken_up, 0, 2);
	tcase_add_test(tc, waits_for_memory);
}

int main(void)
{
	return run_suite("catchup", add);
}
