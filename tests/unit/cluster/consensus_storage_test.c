/* Consensus over the real log, writer and loop, with a store that forgets what was not synced. */
#include <check.h>
#include <semaphore.h>
#include "cluster/consensus.h"
#include "server/base/log.h"
#include "server/base/mem.h"

enum { RECORDS = 3000, REPLICA = 11 };

static struct {
	struct loops *loops;
	struct workers *workers;
	struct store *store;
	struct writer *writer;
	struct tail_cache *cache;
	struct plog_env env;
	struct plog *log;
	struct consensus *c;
	sem_t done;
	uint64_t applied, records; /* what the owner has seen */
	int proposed, acked, failed;
	int64_t last_offset;
	bool with_rows;
} T;

static void on_apply(void *arg, struct entry *e)
{
	(void)arg;
	ck_assert_uint_eq(e->index, T.applied + 1);
	T.applied = e->index;
	T.records += e->head.count;
}
static void on_write_back(void *arg)
{
	(void)arg;
	plog_mark_applied(T.log, T.applied, consensus_term(T.c));
}
static void on_changed(void *arg)
{
	(void)arg;
}
static const struct consensus_fsm fsm = {on_apply, on_write_back, on_changed, NULL};

static void step(void *arg);

static void proposal_done(struct consensus_proposal *p, enum err e)
{
	T.acked += e == OK;
	T.failed += e != OK;
	if (e == OK)
		T.last_offset = p->entry->head.base_offset;
	mem_free(p);
	if (T.acked + T.failed == RECORDS)
		sem_post(&T.done);
	else if (T.acked + T.failed == T.proposed)
		loop_call(loops_at(T.loops, 0), step, NULL);
}

/* 50 proposals, then the next 50 when these are through. */
static void step(void *arg)
{
	(void)arg;
	for (int i = 0; i < 50 && T.proposed < RECORDS; i++) {
		struct consensus_proposal *p = mem_new(sizeof *p);
		struct slice s;
		ck_assert_int_eq(
			slice_copy(bytes_text("a change, as far as the log can tell"), &s), OK);
		p->entry = entry_new(&s, 1);
		p->entry->head.count = 1;
		p->batch_max_ms = 1000 + T.proposed;
		p->done = proposal_done;
		T.proposed++;
		ck_assert_int_eq(consensus_propose(T.c, p), OK);
	}
}

static void open_all(void *arg)
{
	const bool *founding = arg;
	struct consensus_options o = {.heartbeat_ms = 150,
		.election_ms = 600,
		.snapshot_threshold = 256,
		.snapshot_trailing = 128,
		.inflight_bytes_max = 1 << 20,
		.env = &T.env};
	struct consensus_member m = {REPLICA, "here"};
	ck_assert_int_eq(plog_open(&T.env, 1, FAMILY_LOG_DAYS, &T.log), OK);
	T.applied = plog_marks(T.log)->applied_index;
	T.records = 0;
	ck_assert_int_eq(consensus_open(T.log, REPLICA, "here", *founding ? &m : NULL, 1, &o, &fsm,
				 NULL, NULL, NULL, &T.c),
		OK);
	ck_assert_int_eq(consensus_role(T.c), ROLE_LEADER);
	sem_post(&T.done);
}

static void closed(void *arg)
{
	(void)arg;
	plog_close(T.log);
	sem_post(&T.done);
}
static void close_all(void *arg)
{
	(void)arg;
	consensus_close(T.c, closed, NULL);
}

static void on_loop(void (*fn)(void *arg), void *arg)
{
	loop_call(loops_at(T.loops, 0), fn, arg);
	sem_wait(&T.done);
}

static void up(bool founding)
{
	T.loops = loops_new(1);
	T.workers = workers_new(1);
	T.writer = writer_new(T.store, T.loops);
	T.cache = tail_cache_new(1 << 20);
	T.env = (struct plog_env){.loop = loops_at(T.loops, 0),
		.store = T.store,
		.lane = writer_lane(T.writer, loops_at(T.loops, 0)),
		.cache = T.cache,
		.workers = T.workers};
	loops_run(T.loops);
	on_loop(open_all, &founding);
}

static void down(void)
{
	on_loop(close_all, NULL);
	writer_free(T.writer);
	workers_free(T.workers);
	loops_stop(T.loops);
	tail_cache_free(T.cache);
	loops_free(T.loops);
}

START_TEST(keeps_everything_over_crashes)
{
	log_setup(LOG_WARN, false);
	consensus_process_init();
	sem_init(&T.done, 0, 0);
	ck_assert_int_eq(store_open_mem((uint64_t)_i + 1, &T.store), OK);
	up(true);
	on_loop(step, NULL);
	ck_assert_int_eq(T.acked, RECORDS);
	ck_assert_int_eq(T.last_offset, RECORDS - 1);
	uint64_t applied = T.applied;
	ck_assert_uint_gt(consensus_keep_index(T.c), RECORDS / 2);
	down();
	store_mem_crash(T.store);
	up(false);
	/* Those above the mark again, up to the last acknowledged; the new barrier comes on top. */
	ck_assert_uint_ge(T.applied, applied);
	ck_assert_uint_lt(T.records, RECORDS / 2);
	T.proposed = T.acked = T.failed = 0;
	on_loop(step, NULL);
	ck_assert_int_eq(T.acked, RECORDS);
	ck_assert_int_eq(T.last_offset, 2 * RECORDS - 1);
	down();
	store_close(T.store);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("consensus_storage");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, keeps_everything_over_crashes, 0, 3);
	Suite *s = suite_create("consensus_storage");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
