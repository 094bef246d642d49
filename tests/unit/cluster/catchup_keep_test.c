/* What stays of a log when a replica fetches what it lacks. */
#include "tests/unit/cluster/catchup_world.h"

enum { MANY_HELD = 50 };

static void trim(void *arg)
{
	(void)arg;
	plog_trim(T.source.log, 40, 1000);
}

static void first_index(void *arg)
{
	*(uint64_t *)arg = plog_marks(T.source.log)->first_index;
}

static void trim_source(void)
{
	uint64_t first;

	on_loop(trim, NULL);
	do
		on_loop(first_index, &first);
	while (first == 1);
	wait_durable(&T.source);
}

/* The records may go, the entries may not yet. */
static void trim_records(void *arg)
{
	(void)arg;
	plog_trim(T.source.log, 40, 1);
}

START_TEST(begins_where_the_source_begins)
{
	world(10000);
	trim_source();
	ck_assert_int_eq(fetch(), OK);
	ck_assert_uint_gt(plog_marks(T.target.log)->first_index, 1);
	target_is_whole();
	end_world();
}
END_TEST

static void hold_more(void *arg)
{
	size_t bytes = *(size_t *)arg;

	plog_truncate(T.target.log, HELD + 1);
	for (int i = HELD; i < MANY_HELD; i++)
		append_to(T.target.log, bytes + (size_t)i);
	append_other(T.target.log);
	append_other(T.target.log);
	plog_applied(T.target.log, MANY_HELD);
	T.held = MANY_HELD;
}

static void trim_target(void *arg)
{
	(void)arg;
	plog_trim(T.target.log, 40, 1000);
}

static void target_first(void *arg)
{
	*(uint64_t *)arg = plog_marks(T.target.log)->first_index;
}

static int entries_of(struct node *n)
{
	struct store_iter *i = walk(n, FAMILY_IDX, ENTRIES + 1);
	int count = 0;

	for (; store_iter_valid(i); store_iter_step(i))
		count++;
	ck_assert_int_eq(store_iter_free(i), OK);
	return count;
}

/* A log that is behind, by a little or by nothing, and perhaps begins later than the leader's. What
 * is above the committed entries goes. */
START_TEST(fetches_what_the_log_lacks)
{
	size_t bytes = 100000;
	uint64_t first = 1;
	bool trimmed = _i / 2 == 1;

	world(bytes);
	unlogged_if(_i % 2 == 1);
	on_loop(hold_more, &bytes);
	wait_durable(&T.target);
	if (trimmed) {
		on_loop(trim_records, NULL);
		on_loop(trim_target, NULL);
	}
	while (trimmed && first == 1)
		on_loop(target_first, &first);
	T.expire_at = trimmed ? 2 : 0;
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_le(T.log_chunks, (ENTRIES - MANY_HELD) / 2 + 3);
	if (!trimmed)
		target_is_whole();
	restart_target();
	T.chunks = T.log_chunks = 0;
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_eq(T.log_chunks, 0);
	ck_assert_uint_eq(plog_marks(T.target.log)->first_index, first);
	ck_assert_int_eq(plog_marks(T.target.log)->first_offset, trimmed ? 40 : 0);
	ck_assert_int_eq(entries_of(&T.target), ENTRIES - (int)first + 1);
	if (!trimmed)
		target_is_whole();
	end_world();
}
END_TEST

/* What should never be: what is held as committed is not what the leader has. */
START_TEST(a_log_that_is_another_is_not_kept)
{
	world(1000);
	T.held = HELD + 1;
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_eq(T.emptied, 2);
	target_is_whole();
	end_world();
}
END_TEST

static void empty_one(void *arg)
{
	struct slice none = {NULL, {NULL, 0}};
	uint64_t index = *(uint64_t *)arg;
	struct entry *e = plog_cached(T.source.log, index), *less = entry_new(&none, 0);

	ck_assert_ptr_nonnull(e);
	less->index = index;
	less->group = GROUP;
	less->head = e->head;
	less->head.payload_bytes = 0;
	less->head.flags |= ENTRY_COMPACTED;
	ck_assert(plog_replace(T.source.log, less));
	entry_unref(less);
}

/* What the leader's compaction has taken may have hidden what is held here: found in the first
 * chunk, or late; nothing below matters. */
START_TEST(nothing_is_kept_below_what_compaction_took)
{
	uint64_t taken[] = {HELD + 1, ENTRIES - 2, HELD - 1};
	bool lacking = taken[_i] > HELD;

	world(_i == 1 ? 100000 : 1000);
	on_loop(empty_one, &taken[_i]);
	wait_durable(&T.source);
	ck_assert_int_eq(fetch(), OK);
	ck_assert_int_eq(T.emptied, lacking ? 2 : 1);
	if (lacking)
		target_is_whole();
	end_world();
}
END_TEST

START_TEST(keeps_entries_when_the_session_is_lost)
{
	int whole = 0;

	for (int round = 0; round < 2; round++) {
		world(100000);
		unlogged_if(_i >= 2);
		T.row_bytes = 20000;
		memset(T.dirty, 1, sizeof T.dirty);
		if (round == 1) /* in the log, in the rows */
			T.expire_at = _i % 2 == 0 ? whole / 2 : whole + 1;
		ck_assert_int_eq(fetch(), OK);
		ck_assert_int_eq(T.expire_at, 0);
		ck_assert_int_eq(T.emptied, round + 1);
		ck_assert_int_le(T.log_chunks, round == 0 ? ENTRIES : whole + 1);
		whole = T.log_chunks;
		ck_assert_int_gt(whole, 10);
		target_is_whole();
		end_world();
	}
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, begins_where_the_source_begins);
	tcase_add_loop_test(tc, fetches_what_the_log_lacks, 0, 4);
	tcase_add_test(tc, a_log_that_is_another_is_not_kept);
	tcase_add_loop_test(tc, nothing_is_kept_below_what_compaction_took, 0, 3);
	tcase_add_loop_test(tc, keeps_entries_when_the_session_is_lost, 0, 4);
}

int main(void)
{
	return run_suite("catchup_keep", add);
}
