/* A replica whose log and rows are on their way from another node, over a real log: it comes back
 * from a restart without a state, is not founded anew, stands for nothing, votes for nobody, and
 * asks to install as soon as a leader is heard. */
#include <check.h>
#include <raft.h>
#include <semaphore.h>
#include "cluster/consensus.h"
#include "cluster/raft_wire.h"
#include "server/base/mem.h"

enum { GROUP = 1, SELF = 11, LEADER = 12 };

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
	uint8_t sent_type;
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

static void on_send(void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	(void)arg, (void)to, (void)address;
	T.sent++;
	T.sent_type = parts[0].bytes.at[1];
	for (int i = 0; i < count; i++)
		slice_unref(&parts[i]);
}
static const struct consensus_net net = {on_send};

struct call {
	void (*fn)(void *arg);
	void *arg;
};
static void call_run(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	sem_post(&T.done);
}
static void on_loop(void (*fn)(void *arg), void *arg)
{
	struct call c = {fn, arg};

	loop_call(loops_at(T.loops, 0), call_run, &c);
	sem_wait(&T.done);
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
	(void)arg;
	plog_mark_term_vote(T.log, 1, 0); /* such that a founding would be possible */
	plog_seed_begin(T.log, 100, false);
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

/* A message of the leader's, as it would come. */
static void receive(struct raft_message message)
{
	struct raft_wire w = {.group = GROUP,
		.from = LEADER,
		.to = SELF,
		.address = bytes_text("12"),
		.message = message};
	struct slice *parts, whole;
	struct buf b;
	int count;

	ck_assert_int_eq(raft_wire_encode(&w, &parts, &count), OK);
	buf_init(&b, 1 << 20);
	for (int i = 0; i < count; i++) {
		buf_add(&b, parts[i].bytes);
		slice_unref(&parts[i]);
	}
	mem_free(parts);
	whole = buf_share(&b);
	buf_fini(&b);
	ck_assert_int_eq(consensus_receive(T.c, whole), OK);
	slice_unref(&whole);
}

static void is_down_until_a_leader_speaks(void *arg)
{
	struct raft_message vote = {.type = RAFT_IO_REQUEST_VOTE};
	struct raft_message heartbeat = {.type = RAFT_IO_APPEND_ENTRIES};

	(void)arg;
	ck_assert(plog_marks(T.log)->seeding);
	ck_assert_int_eq(open_with(&fsm_without), ERR_CORRUPT);
	ck_assert_int_eq(open_with(&fsm), OK);
	ck_assert_uint_eq(plog_last_index(T.log), 0);
	ck_assert(consensus_installing(T.c));
	for (int i = 0; i < 100; i++)
		consensus_tick(T.c);
	ck_assert_int_eq(consensus_role(T.c), ROLE_FOLLOWER);
	ck_assert_uint_eq(consensus_term(T.c), 1);
	vote.request_vote = (struct raft_request_vote){
		.term = 5, .candidate_id = LEADER, .last_log_index = 500, .last_log_term = 4};
	receive(vote);
	ck_assert_int_eq(T.sent, 0);
	ck_assert_uint_eq(plog_marks(T.log)->vote, 0);
	heartbeat.append_entries = (struct raft_append_entries){
		.term = 5, .prev_log_index = 500, .prev_log_term = 4, .leader_commit = 500};
	receive(heartbeat);
	ck_assert_int_eq(T.installs, 1);
	ck_assert_uint_eq(T.asked.from, LEADER);
	receive(heartbeat);
	ck_assert_int_eq(T.installs, 1);
}

static void fetch_failed(void *arg)
{
	(void)arg;
	consensus_installed(T.c, ERR_UNAVAILABLE);
	ck_assert(consensus_installing(T.c));
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
