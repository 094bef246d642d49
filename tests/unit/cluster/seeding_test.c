/* A replica whose log and rows are on their way from another node, over a real log: it comes back
 * from a restart without a state, is not founded anew, stands for nothing, votes as it would with
 * the log it has given up, and asks to install as soon as a leader is heard; from another one if
 * that leads by then. */
#include <check.h>
#include <raft.h>
#include <semaphore.h>
#include "cluster/consensus_priv.h"
#include "cluster/raft_wire.h"
#include "server/base/mem.h"
#include "tests/unit/run_on.h"

enum { GROUP = 1, SELF = 11, LEADER = 12, NEXT = 13 };

static struct {
	struct loops *loops;
	struct workers *workers;
	struct store *store;
	struct writer *writer;
	struct plog_env env;
	struct plog *log;
	struct consensus *c;
	sem_t done;
	int installs, sent;
	bool granted; /* by the last vote result */
	uint64_t told_term;
	struct consensus_install asked;
} T;

static void on_apply(void *arg, struct entry *e)
{
	(void)arg, (void)e;
	ck_abort_msg("nothing is to be applied");
}
static void on_nothing(void *arg)
{
	(void)arg;
}
static void on_install(void *arg, const struct consensus_install *i)
{
	(void)arg;
	T.installs++;
	T.asked = *i;
}
static const struct consensus_fsm fsm = {on_apply, on_nothing, on_nothing, on_install};
static const struct consensus_fsm fsm_without = {on_apply, on_nothing, on_nothing, NULL};

static struct slice joined(struct slice *parts, int count)
{
	struct slice whole;
	struct buf b;

	buf_init(&b, 1 << 20);
	for (int i = 0; i < count; i++) {
		buf_add(&b, parts[i].bytes);
		slice_unref(&parts[i]);
	}
	whole = buf_share(&b);
	buf_fini(&b);
	return whole;
}

static void on_send(void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	struct slice whole = joined(parts, count);
	struct raft_wire w;

	(void)arg, (void)to, (void)address;
	T.sent++;
	ck_assert_int_eq(raft_wire_decode(whole, &w), OK);
	if (w.message.type == RAFT_IO_REQUEST_VOTE_RESULT) {
		T.granted = w.message.request_vote_result.vote_granted;
		T.told_term = w.message.request_vote_result.term;
	}
	raft_wire_fini(&w);
	slice_unref(&whole);
}
static const struct consensus_net net = {on_send};

static void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(loops_at(T.loops, 0), fn, arg);
}

static void open_log(void *arg)
{
	(void)arg;
	ck_assert_int_eq(plog_open(&T.env, GROUP, FAMILY_LOG_DAYS, &T.log), OK);
}

static void up(void)
{
	T.loops = loops_new(1);
	T.workers = workers_new(1);
	T.writer = writer_new(T.store, T.loops);
	T.env = (struct plog_env){.loop = loops_at(T.loops, 0),
		.store = T.store,
		.lane = writer_lane(T.writer, loops_at(T.loops, 0)),
		.cache = tail_cache_new(1 << 20),
		.workers = T.workers};
	loops_run(T.loops);
	on_loop(open_log, NULL);
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

static void seed_begin(void *arg)
{
	struct slice none = {NULL, {NULL, 0}};
	struct entry *e = entry_new(&none, 0);

	(void)arg;
	plog_mark_term_vote(T.log, 1, 0); /* such that a founding would be possible */
	e->head.kind = ENTRY_BARRIER;
	e->head.term = 1;
	plog_append(T.log, e, -1);
	entry_unref(e);
	plog_seed_begin(T.log, 100, 0);
}

static enum err open_with(const struct consensus_fsm *f)
{
	struct consensus_options o = {.heartbeat_ms = 150,
		.election_ms = 600,
		.snapshot_threshold = 256,
		.snapshot_trailing = 128,
		.inflight_bytes_max = 1 << 20,
		.env = &T.env};
	struct consensus_member m = {SELF, "11"};

	return consensus_open(T.log, SELF, "11", &m, 1, &o, f, NULL, &net, NULL, &T.c);
}

/* A message of a peer's, as it would come. */
static void receive(uint64_t from, struct raft_message message)
{
	struct raft_wire w = {.group = GROUP,
		.from = from,
		.to = SELF,
		.address = bytes_text("12"),
		.message = message};
	struct slice *parts, whole;
	int count;

	ck_assert_int_eq(raft_wire_encode(&w, &parts, &count), OK);
	whole = joined(parts, count);
	mem_free(parts);
	ck_assert_int_eq(consensus_receive(T.c, whole), OK);
	slice_unref(&whole);
}

static void asks(uint64_t candidate, uint64_t term, uint64_t last_term, uint64_t last, bool pre)
{
	receive(candidate,
		(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = term,
				.candidate_id = candidate,
				.last_log_index = last,
				.last_log_term = last_term,
				.pre_vote = pre}});
}

static void leads(uint64_t leader, uint64_t term)
{
	receive(leader,
		(struct raft_message){.type = RAFT_IO_APPEND_ENTRIES,
			.append_entries = {.term = term,
				.prev_log_index = 500,
				.prev_log_term = 4,
				.leader_commit = 500}});
}

/* It had an entry of term 1. */
static void votes_by_the_log_it_had(void)
{
	asks(LEADER, 5, 0, 0, true);
	ck_assert_int_eq(T.sent, 1);
	ck_assert(!T.granted);
	asks(LEADER, 5, 1, 1, true);
	ck_assert_int_eq(T.sent, 2);
	ck_assert(T.granted);
	ck_assert_uint_eq(T.told_term, 5);
	asks(LEADER, 5, 0, 0, false);
	ck_assert_uint_eq(plog_marks(T.log)->term, 5);
	ck_assert_uint_eq(plog_marks(T.log)->vote, 0);
	asks(LEADER, 6, 4, 500, false);
	ck_assert_uint_eq(plog_marks(T.log)->term, 6);
	ck_assert_uint_eq(plog_marks(T.log)->vote, LEADER);
	asks(NEXT, 6, 4, 501, false);
	ck_assert_uint_eq(plog_marks(T.log)->vote, LEADER);
}

static void is_down_until_a_leader_speaks(void *arg)
{
	(void)arg;
	ck_assert(plog_marks(T.log)->seeding);
	ck_assert_int_eq(open_with(&fsm_without), ERR_CORRUPT);
	ck_assert_int_eq(open_with(&fsm), OK);
	ck_assert_uint_eq(plog_last_index(T.log), 0);
	ck_assert(T.c->phase == PHASE_INSTALLING);
	for (int i = 0; i < 100; i++)
		consensus_tick(T.c);
	ck_assert_int_eq(consensus_role(T.c), ROLE_FOLLOWER);
	ck_assert_uint_eq(consensus_term(T.c), 1);
	ck_assert_int_eq(T.sent, 0);
	votes_by_the_log_it_had();
}

static void follows(void *arg)
{
	(void)arg;
	asks(NEXT, 4, 4, 500, true); /* one that is behind learns it */
	ck_assert(!T.granted);
	ck_assert_uint_eq(T.told_term, 6);
	leads(LEADER, 6);
	ck_assert_int_eq(T.installs, 1);
	ck_assert_uint_eq(T.asked.from, LEADER);
	leads(LEADER, 6);
	ck_assert_int_eq(T.installs, 1);
	leads(NEXT, 5);
	ck_assert_int_eq(T.installs, 1);
	leads(NEXT, 7);
	ck_assert_int_eq(T.installs, 2);
	ck_assert_uint_eq(T.asked.from, NEXT);
}

static void fetch_failed(void *arg)
{
	(void)arg;
	consensus_installed(T.c, ERR_UNAVAILABLE);
	ck_assert(T.c->phase == PHASE_INSTALLING);
}

static void on_durable(struct durable *d)
{
	(void)d;
	sem_post(&T.done);
}
static void ask_durable(void *arg)
{
	struct durable *d = arg;

	d->done = on_durable;
	lane_when_durable(T.env.lane, d);
}
static void wait_durable(void)
{
	struct durable d = {0};

	on_loop(ask_durable, &d);
	sem_wait(&T.done);
}

static void closed(void *arg)
{
	(void)arg;
	sem_post(&T.done);
}
static void close_consensus(void *arg)
{
	(void)arg;
	consensus_close(T.c, closed, NULL);
}

START_TEST(waits_for_a_leader)
{
	consensus_process_init();
	sem_init(&T.done, 0, 0);
	ck_assert_int_eq(store_open_mem(1, &T.store), OK);
	up();
	on_loop(seed_begin, NULL);
	down();
	up();
	on_loop(is_down_until_a_leader_speaks, NULL);
	wait_durable();
	on_loop(follows, NULL);
	on_loop(fetch_failed, NULL);
	on_loop(close_consensus, NULL);
	sem_wait(&T.done);
	down();
	store_close(T.store);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("seeding");
	TCase *tc = tcase_create("seeding");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, waits_for_a_leader);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
