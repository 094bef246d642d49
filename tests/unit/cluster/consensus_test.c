#include <check.h>
#include "tests/unit/cluster/replicas.h"

static void setup(void)
{
	consensus_process_init();
	random_seed(7);
}

static void one_voter(void)
{
	world_init(1);
	rep_start(&W.rep[1], 1);
	rep_turn(&W.rep[1]);
}

START_TEST(one_voter_leads_at_once_and_serves_after_its_barrier)
{
	one_voter();
	struct rep *r = &W.rep[1];
	ck_assert_int_eq(consensus_role(r->c), ROLE_LEADER);
	ck_assert_uint_eq(consensus_leader(r->c), r->id);
	ck_assert(!consensus_ready(r->c));
	ck_assert_int_eq(rep_propose(r), OK); /* waits behind the barrier */
	ck_assert_int_eq(r->acked, 0);
	rep_sync(r);
	ck_assert(consensus_ready(r->c));
	ck_assert_int_eq(r->acked, 1);
	ck_assert_uint_eq(consensus_applied(r->c), 3);
	ck_assert_uint_eq(consensus_inflight(r->c), 0);
	ck_assert_int_gt(r->changed_calls, 0);
	ck_assert_str_eq(W.broken, "");
}
END_TEST

START_TEST(nothing_is_acknowledged_before_it_is_durable)
{
	one_voter();
	struct rep *r = &W.rep[1];
	rep_sync(r);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(rep_propose(r), OK);
	rep_tick(r);
	ck_assert_int_eq(r->acked, 0);
	lane_sync(&r->lane, 10); /* an append and its token each */
	ck_assert_int_eq(r->acked, 5);
	rep_sync(r);
	ck_assert_int_eq(r->acked, 100);
}
END_TEST

START_TEST(inflight_is_bounded)
{
	one_voter();
	struct rep *r = &W.rep[1];
	rep_sync(r);
	r->c->o.inflight_bytes_max = 1000;
	int n = 0;
	enum err e;
	while ((e = rep_propose(r)) == OK)
		n++;
	ck_assert_int_eq(e, ERR_BUSY);
	ck_assert_int_gt(n, 2);
	ck_assert_int_lt(n, 20);
	rep_sync(r);
	ck_assert_int_eq(rep_propose(r), OK);
}
END_TEST

/* A restart applies what is above the applied mark, once, and goes on. */
START_TEST(restarts_from_the_applied_mark)
{
	world_init(1);
	W.o.snapshot_threshold = 256;
	struct rep *r = &W.rep[1];
	rep_start(r, 1);
	for (int i = 0; i < 3000; i++) {
		ck_assert_int_eq(rep_propose(r), OK);
		if (i % 7 == 0)
			rep_sync(r);
	}
	rep_sync(r);
	rep_sync(r);
	ck_assert_int_eq(r->acked, 3000);
	ck_assert_uint_gt(r->disk.marks.applied_index, 2700);
	ck_assert_uint_gt(consensus_keep_index(r->c), 2500);
	uint64_t applied = r->applied, hash = r->hash;
	rep_crash(r, 0);
	uint64_t mark = r->disk.marks.applied_index;
	ck_assert_uint_lt(mark, applied);
	rep_start(r, 0);
	ck_assert_uint_eq(r->applied, applied);
	ck_assert_uint_eq(r->hash, hash);
	ck_assert_uint_eq(consensus_applied(r->c), applied);
	ck_assert_int_eq(rep_propose(r), OK);
	rep_sync(r);
	rep_sync(r);
	ck_assert_int_eq(r->acked, 3001);
	ck_assert_str_eq(W.broken, "");
}
END_TEST

/* _i: seed. Crashes at random points keep everything that was acknowledged. */
START_TEST(crashes_keep_what_was_acknowledged)
{
	random_seed((uint64_t)_i + 1);
	world_init(1);
	W.o.snapshot_threshold = 40;
	struct rep *r = &W.rep[1];
	rep_start(r, 1);
	for (int round = 0; round < 30; round++) {
		for (uint64_t k = random_u64() % 60; k > 0; k--) {
			(void)(rep_propose(r) == OK);
			if (random_u64() % 5 == 0)
				lane_sync(&r->lane, (int)(random_u64() % 20));
		}
		rep_turn(r);
		rep_crash(r, (int)(random_u64() % (uint64_t)(lane_count(&r->lane) + 1)));
		/* What was not acknowledged may be gone: its place may be taken by another. */
		uint64_t last = r->disk.first + r->disk.count - 1;
		int gone = 0;
		for (uint64_t i = last + 1; i < WORLD_INDEX_MAX; i++) {
			gone += W.acked[i] != 0;
			W.committed[i] = 0;
		}
		ck_assert_int_eq(gone, 0);
		rep_start(r, r->disk.marks.term == 0 || r->disk.count == 0 ? 1 : 0);
	}
	rep_sync(r);
	world_check();
	ck_assert_str_eq(W.broken, "");
}
END_TEST

static enum err barrier_err;
static int barrier_calls;
static void barrier_called(struct consensus_barrier *b, enum err e)
{
	(void)b;
	barrier_err = e;
	barrier_calls++;
}

START_TEST(a_read_point_waits_for_what_was_before)
{
	one_voter();
	struct rep *r = &W.rep[1];
	rep_sync(r);
	struct consensus_barrier a = {.done = barrier_called}, b = {.done = barrier_called};
	ck_assert_int_eq(rep_propose(r), OK);
	uint64_t last = plog_last_index(r->log);
	consensus_barrier(r->c, &a);
	consensus_barrier(r->c, &b);
	rep_turn(r);
	ck_assert_int_eq(barrier_calls, 0);
	rep_sync(r);
	ck_assert_int_eq(barrier_calls, 2);
	ck_assert_int_eq(barrier_err, OK);
	ck_assert_uint_eq(plog_last_index(r->log), last); /* a lone voter writes nothing for it */
}
END_TEST

static bool closed;
static void on_closed(void *arg)
{
	(void)arg;
	closed = true;
}

START_TEST(closing_ends_proposals_and_waits_for_the_disk)
{
	one_voter();
	struct rep *r = &W.rep[1];
	rep_sync(r);
	ck_assert_int_eq(rep_propose(r), OK);
	closed = false;
	consensus_close(r->c, on_closed, NULL);
	ck_assert(!closed);
	struct consensus *c = r->c;
	r->c = NULL;
	fake_loop_turn(&r->loop);
	ck_assert_int_eq(r->lost, 1);
	ck_assert(!closed);
	ck_assert_int_eq(consensus_role(c), ROLE_DOWN);
	lane_sync(&r->lane, 1 << 30);
	fake_loop_turn(&r->loop);
	ck_assert(closed);
	plog_close(r->log);
}
END_TEST

static void *null_proposal(struct rep *r)
{
	struct value *v = mem_new(sizeof *v);
	struct slice s;
	must(slice_copy(bytes_text("01234567"), &s) == OK);
	v->p.entry = entry_new(&s, 1);
	v->p.entry->head.count = 1;
	v->p.done = value_done;
	v->r = r;
	return v;
}

/* What an entry costs from proposal to outcome, with a disk that costs nothing. */
START_TEST(the_path_of_an_entry_is_short)
{
	one_voter();
	struct rep *r = &W.rep[1];
	r->c->raft->snapshot.threshold = 256;
	r->c->raft->snapshot.trailing = 128;
	rep_sync(r);
	enum { N = 15000 };
	int64_t start = clock_us();
	for (int i = 0; i < N; i++) {
		struct value *v = null_proposal(r);
		must(consensus_propose(r->c, &v->p) == OK); /* a check costs more than an entry */
		if (i % 16 == 15)
			lane_sync(&r->lane, 1 << 30);
	}
	int64_t us = clock_us() - start;
	lane_sync(&r->lane, 1 << 30);
	ck_assert_int_eq(r->acked, N);
	printf("consensus: %.2f us an entry\n", (double)us / N);
	ck_assert_int_lt(us, N * 100);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("consensus");
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, one_voter_leads_at_once_and_serves_after_its_barrier);
	tcase_add_test(tc, nothing_is_acknowledged_before_it_is_durable);
	tcase_add_test(tc, inflight_is_bounded);
	tcase_add_test(tc, restarts_from_the_applied_mark);
	tcase_add_loop_test(tc, crashes_keep_what_was_acknowledged, 0, 20);
	tcase_add_test(tc, a_read_point_waits_for_what_was_before);
	tcase_add_test(tc, closing_ends_proposals_and_waits_for_the_disk);
	tcase_add_test(tc, the_path_of_an_entry_is_short);
	Suite *s = suite_create("consensus");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* A crash of a replica forgets its memory, as a process would. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
