/* Every rule of the guard against the real library: replica 1 of a group of three is real, the test
 * speaks for 2 and 3. Each script runs twice: with the rule the replica is safe, without it the
 * library does what the rule is against. */
#include <check.h>
#include <signal.h>
#include "server/base/log.h"
#include "tests/unit/cluster/replicas.h"

enum { ON, OFF }; /* _i of a looped test */
static struct rep *const X = &W.rep[1];

static void begin(int rule, int off)
{
	consensus_process_init();
	log_setup(LOG_ERROR + 1, false);
	random_seed(1);
	world_init(3);
	X->down_ok = true;
	W.o.guard_off[rule] = off == OFF;
}

static void go(void)
{
	rep_start(X, 3);
	rep_turn(X);
	rep_sync(X);
}

static void frames_drop(void)
{
	while (!list_empty(&W.frames))
		frame_free(list_entry(W.frames.next, struct frame, node));
}

/* The last message of a type that the replica has sent; type 0 in it: none. */
static struct raft_message heard(unsigned short type)
{
	struct raft_message last = {0};
	for (struct list *n = W.frames.next; n != &W.frames; n = n->next) {
		struct raft_wire w;
		ck_assert_int_eq(
			raft_wire_decode(list_entry(n, struct frame, node)->bytes, &w), OK);
		if (w.message.type == type) {
			last = w.message;
			last.server_id = w.to & 15;
		}
		raft_wire_fini(&w);
	}
	frames_drop();
	return last;
}

static void say_wire(int from, struct raft_wire *w)
{
	struct slice *parts;
	int count;
	size_t at = 0;
	w->group = 1;
	w->from = W.rep[from].id;
	w->to = X->id;
	w->address = bytes_text(W.rep[from].address);
	ck_assert_int_eq(raft_wire_encode(w, &parts, &count), OK);
	uint8_t all[4096];
	for (int i = 0; i < count; i++) {
		memcpy(all + at, parts[i].bytes.at, parts[i].bytes.len);
		at += parts[i].bytes.len;
		slice_unref(&parts[i]);
	}
	mem_free(parts);
	struct slice frame;
	ck_assert_int_eq(slice_copy(bytes_of(all, at), &frame), OK);
	X->loop.now_ms = W.now_ms;
	ck_assert_int_eq(consensus_receive(X->c, frame), OK);
	slice_unref(&frame);
	rep_turn(X);
}

static void say(int from, const struct raft_message *m)
{
	struct raft_wire w = {.message = *m};
	say_wire(from, &w);
}

/* What a leader sends: n entries after prev, all of entry_term, one record each; the configuration
 * with a fourth member when change is the number of one of them, counted from 1. */
struct append {
	uint64_t term, prev, prev_term, commit;
	int n;
	uint64_t entry_term;
	int change;
};

static int own_role = RAFT_VOTER; /* of replica 1 in it */

static struct entry *config_entry(void)
{
	struct raft_configuration c;
	struct raft_buffer b;
	struct slice s;
	raft_configuration_init(&c);
	for (int i = 1; i <= 3; i++)
		ck_assert_int_eq(raft_configuration_add(&c, W.rep[i].id, W.rep[i].address,
					 i == 1 ? own_role : RAFT_VOTER),
			0);
	ck_assert_int_eq(raft_configuration_add(&c, 99, "rep99", RAFT_STANDBY), 0);
	ck_assert_int_eq(raft_configuration_encode(&c, &b), 0);
	ck_assert_int_eq(slice_copy(bytes_of(b.base, b.len), &s), OK);
	raft_free(b.base);
	raft_configuration_close(&c);
	return entry_new(&s, 1);
}

static int64_t append_offset = -1; /* of the first entry said; -1: as in a log of such entries */

static void say_append(int from, struct append a)
{
	struct raft_wire_entry entries[8] = {0};
	struct raft_wire w = {.entries = entries, .message = {.type = RAFT_IO_APPEND_ENTRIES}};
	/* One record per entry, the first entry of the log has none. */
	int64_t offset = append_offset >= 0 ? append_offset : (int64_t)a.prev - 1;
	for (int i = 0; i < a.n; i++) {
		struct slice s;
		bool change = a.change == i + 1;
		ck_assert_int_eq(slice_copy(bytes_of(&entries[i], 4), &s), OK);
		struct entry *e = change ? config_entry() : entry_new(&s, 1);
		entries[i].from = e;
		entries[i].head = e->head;
		entries[i].head.term = a.entry_term;
		entries[i].head.kind = change ? ENTRY_CONFIG : ENTRY_DATA;
		entries[i].head.count = !change;
		entries[i].head.base_offset = offset;
		offset += !change;
	}
	w.message.append_entries = (struct raft_append_entries){.term = a.term,
		.prev_log_index = a.prev,
		.prev_log_term = a.prev_term,
		.leader_commit = a.commit,
		.n_entries = (unsigned)a.n};
	say_wire(from, &w);
}

static void say_result(int from, uint64_t term, uint64_t last)
{
	say(from,
		&(struct raft_message){.type = RAFT_IO_APPEND_ENTRIES_RESULT,
			.append_entries_result = {.term = term, .last_log_index = last}});
}

/* Time passes until replica 1 stands; 3 votes for it. */
static void elect(void)
{
	for (int i = 0; i < 4 && consensus_role(X->c) != ROLE_CANDIDATE; i++) {
		W.now_ms += 1300;
		rep_tick(X);
	}
	ck_assert_int_eq(consensus_role(X->c), ROLE_CANDIDATE);
	uint64_t term = heard(RAFT_IO_REQUEST_VOTE).request_vote.term;
	struct raft_message vote = {.type = RAFT_IO_REQUEST_VOTE_RESULT,
		.request_vote_result = {
			.term = term, .vote_granted = true, .pre_vote = raft_tribool_true}};
	say(3, &vote);
	rep_sync(X); /* the vote for itself */
	vote.request_vote_result.pre_vote = raft_tribool_false;
	say(3, &vote);
	ck_assert_int_eq(consensus_role(X->c), ROLE_LEADER);
}

/* G1: entries of older terms are not committed by counting (Raft §5.4.2). */
START_TEST(g1_old_terms_are_not_counted)
{
	begin(1, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 2,
			.entry_term = 2});
	rep_sync(X);
	elect();
	say_result(3, 3, 3); /* 3 has both old entries, nothing of term 3 */
	rep_sync(X);
	ck_assert_uint_eq(consensus_applied(X->c), _i == ON ? 1 : 3);
	if (_i == OFF)
		return;
	say_result(3, 3, 4); /* now the barrier as well */
	ck_assert_uint_eq(consensus_applied(X->c), 4);
	ck_assert(consensus_ready(X->c));
}
END_TEST

START_TEST(g1_nothing_leaves_before_the_barrier)
{
	begin(1, _i);
	go();
	elect();
	struct raft_message m = heard(RAFT_IO_APPEND_ENTRIES);
	ck_assert_uint_eq(m.append_entries.n_entries, _i == ON ? 1 : 0);
	ck_assert_uint_eq(plog_last_index(X->log), _i == ON ? 2 : 1);
}
END_TEST

/* G2: what the leader has not compared is not acknowledged, nor committed. */
START_TEST(g2_acknowledges_no_more_than_was_compared)
{
	begin(2, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 3,
			.entry_term = 2});
	rep_sync(X);
	frames_drop();
	say_append(3, (struct append){.term = 3, .prev = 1, .prev_term = 1, .commit = 1});
	rep_sync(X);
	struct raft_message m = heard(RAFT_IO_APPEND_ENTRIES_RESULT);
	ck_assert_uint_eq(m.append_entries_result.rejected, 0);
	ck_assert_uint_eq(m.append_entries_result.last_log_index, _i == ON ? 1 : 4);
	say_append(3, (struct append){.term = 3, .prev = 1, .prev_term = 1, .commit = 3});
	ck_assert_uint_eq(consensus_applied(X->c), _i == ON ? 1 : 3);
}
END_TEST

/* G3: an append that was made for one leader is not acknowledged to the next term. */
START_TEST(g3_appends_of_an_older_term_are_not_acknowledged)
{
	begin(3, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 1,
			.entry_term = 2});
	say(3,
		&(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = 3,
				.candidate_id = W.rep[3].id,
				.last_log_index = 1,
				.last_log_term = 1,
				.disrupt_leader = true}});
	ck_assert_uint_eq(consensus_term(X->c), 3);
	frames_drop();
	rep_sync(X);
	rep_sync(X); /* what it may say waits for the new term */
	struct raft_message m = heard(RAFT_IO_APPEND_ENTRIES_RESULT);
	ck_assert_uint_eq(m.type, _i == ON ? 0 : RAFT_IO_APPEND_ENTRIES_RESULT);
	if (_i == OFF)
		ck_assert_uint_eq(m.append_entries_result.term, 3);
}
END_TEST

/* G4: one vote in a term, also while a transfer runs. */
START_TEST(g4_one_vote_in_a_term)
{
	begin(4, _i);
	go();
	elect();
	rep_sync(X);
	say_result(2, 2, 2);
	say_result(3, 2, 2);
	ck_assert(consensus_ready(X->c));
	ck_assert_int_eq(consensus_transfer(X->c, W.rep[2].id), OK);
	rep_turn(X);
	ck_assert_uint_ne(heard(RAFT_IO_TIMEOUT_NOW).type, 0);
	uint64_t term = consensus_term(X->c);
	ck_assert_uint_eq(plog_marks(X->log)->vote, X->id);
	say(2,
		&(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = term,
				.candidate_id = W.rep[2].id,
				.last_log_index = 9,
				.last_log_term = term,
				.disrupt_leader = true}});
	ck_assert_uint_eq(consensus_term(X->c), term);
	ck_assert_uint_eq(plog_marks(X->log)->vote, _i == ON ? X->id : W.rep[2].id);
}
END_TEST

/* G5: nobody stands for election whose log is not on its disk. */
START_TEST(g5_stands_only_with_a_stored_log)
{
	begin(5, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 1,
			.entry_term = 2});
	for (int i = 0; i < 3; i++) {
		W.now_ms += 1300;
		rep_tick(X);
	}
	ck_assert_int_eq(consensus_role(X->c), _i == ON ? ROLE_FOLLOWER : ROLE_CANDIDATE);
	rep_sync(X);
	rep_tick(X);
	ck_assert_int_eq(consensus_role(X->c), ROLE_CANDIDATE);
}
END_TEST

START_TEST(g5_does_not_take_over_with_appends_under_way)
{
	begin(5, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 1,
			.entry_term = 2});
	say(2,
		&(struct raft_message){.type = RAFT_IO_TIMEOUT_NOW,
			.timeout_now = {.term = 2, .last_log_index = 2, .last_log_term = 2}});
	ck_assert_int_eq(consensus_role(X->c), _i == ON ? ROLE_FOLLOWER : ROLE_CANDIDATE);
}
END_TEST

/* G6: a snapshot holds committed configurations only. */
START_TEST(g6_no_snapshot_with_an_open_configuration)
{
	begin(6, _i);
	W.o.snapshot_threshold = 2;
	W.o.snapshot_trailing = 1;
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 3,
			.n = 3,
			.entry_term = 2,
			.change = 3});
	rep_sync(X);
	rep_sync(X);
	ck_assert_uint_eq(consensus_applied(X->c), 3);
	ck_assert_uint_eq(X->c->snapshot.index, _i == ON ? 0 : 3);
	if (_i == OFF)
		ck_assert_uint_eq(X->c->snapshot.config.n, 4); /* the open one */
}
END_TEST

/* G7: entries of an older term drain before a newer leader's come. */
START_TEST(g7_older_appends_drain_first)
{
	begin(7, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 2,
			.entry_term = 2});
	say_append(3,
		(struct append){.term = 3,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 1,
			.entry_term = 3});
	ck_assert_uint_eq(X->c->held_count, _i == ON ? 1 : 0);
	ck_assert_uint_eq(
		plog_last_index(X->log), _i == ON ? 3 : 2); /* off: cut under the disk's hands */
	rep_sync(X);
	rep_sync(X);
	ck_assert_uint_eq(X->c->held_count, 0);
	ck_assert_uint_eq(plog_last_index(X->log), 2);
	ck_assert_uint_eq(guard_term(X->c->raft, 2), 3);
}
END_TEST

/* G8: old messages about what is committed change nothing and are answered; a difference below the
 * commit index is a lost replica, not one to be started again. */
START_TEST(g8_repeats_below_the_commit_index_are_answered)
{
	begin(8, _i);
	W.o.snapshot_threshold = 2;
	W.o.snapshot_trailing = 1;
	go();
	struct append a = {
		.term = 2, .prev = 1, .prev_term = 1, .commit = 4, .n = 3, .entry_term = 2};
	say_append(2, a);
	rep_sync(X);
	rep_sync(X);
	ck_assert_uint_eq(consensus_applied(X->c), 4);
	ck_assert_uint_gt(consensus_keep_index(X->c), 2);
	frames_drop();
	say_append(2, a);
	rep_sync(X);
	struct raft_message m = heard(RAFT_IO_APPEND_ENTRIES_RESULT);
	ck_assert_uint_eq(m.append_entries_result.rejected, _i == ON ? 0 : 1);
	ck_assert_uint_eq(m.append_entries_result.last_log_index, 4);
}
END_TEST

START_TEST(g8_a_diverged_replica_goes_down)
{
	begin(8, _i);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 3,
			.n = 2,
			.entry_term = 2});
	rep_sync(X);
	ck_assert_uint_eq(consensus_applied(X->c), 3);
	say_append(3,
		(struct append){.term = 3,
			.prev = 2,
			.prev_term = 2,
			.commit = 3,
			.n = 1,
			.entry_term = 3});
	rep_sync(X);
	ck_assert_int_eq(consensus_role(X->c), _i == ON ? ROLE_DOWN : ROLE_FOLLOWER);
	ck_assert_uint_eq(X->c->rebuilds, _i == ON ? 0 : 1);
}
END_TEST

/* G9: a configuration is taken back whose predecessor is not in memory. */
static void g9_script(int off)
{
	begin(9, off);
	W.o.snapshot_threshold = 2;
	W.o.snapshot_trailing = 1;
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 3,
			.n = 2,
			.entry_term = 2});
	rep_sync(X);
	rep_sync(X);
	say_append(2,
		(struct append){.term = 2,
			.prev = 3,
			.prev_term = 2,
			.commit = 3,
			.n = 1,
			.entry_term = 2,
			.change = 1});
	rep_sync(X);
	ck_assert_uint_eq(X->c->raft->configuration.n, 4);
	say_append(3,
		(struct append){.term = 3,
			.prev = 3,
			.prev_term = 2,
			.commit = 4,
			.n = 1,
			.entry_term = 3});
}

START_TEST(g9_takes_back_a_configuration)
{
	g9_script(ON);
	for (int i = 0; i < 4; i++)
		rep_sync(X);
	ck_assert_int_eq(consensus_role(X->c), ROLE_FOLLOWER);
	ck_assert_uint_eq(X->c->raft->configuration.n, 3);
	ck_assert_uint_eq(consensus_applied(X->c), 4);
	ck_assert_uint_eq(guard_term(X->c->raft, 4), 3);
	ck_assert_str_eq(W.broken, "");
}
END_TEST

START_TEST(g9_off_the_library_crashes)
{
	g9_script(OFF);
}
END_TEST

/* G10: a refused pre-vote tells the term that refuses. */
START_TEST(g10_refused_pre_votes_tell_the_term)
{
	begin(10, _i);
	go();
	say_append(2, (struct append){.term = 5, .prev = 1, .prev_term = 1, .commit = 1});
	rep_sync(X);
	frames_drop();
	say(3,
		&(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = 3,
				.candidate_id = W.rep[3].id,
				.last_log_index = 1,
				.last_log_term = 1,
				.pre_vote = true}});
	struct raft_message m = heard(RAFT_IO_REQUEST_VOTE_RESULT);
	ck_assert(!m.request_vote_result.vote_granted);
	ck_assert_uint_eq(m.request_vote_result.term, _i == ON ? 5 : 3);
}
END_TEST

static bool grants(int candidate, uint64_t term, uint64_t last, uint64_t last_term, bool pre_vote)
{
	frames_drop();
	say(candidate,
		&(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = term,
				.candidate_id = W.rep[candidate].id,
				.last_log_index = last,
				.last_log_term = last_term,
				.pre_vote = pre_vote}});
	rep_sync(X); /* a vote leaves when it is on the disk */
	struct raft_message m = heard(RAFT_IO_REQUEST_VOTE_RESULT);
	ck_assert_int_eq(m.type, RAFT_IO_REQUEST_VOTE_RESULT);
	return m.request_vote_result.vote_granted;
}

START_TEST(g11_a_silent_leader_holds_nobody)
{
	begin(11, _i);
	go();
	say_append(2, (struct append){.term = 5, .prev = 1, .prev_term = 1, .commit = 1});
	rep_sync(X);
	W.now_ms += 400;
	ck_assert(!grants(3, 6, 1, 1, true));
	W.now_ms += 200; /* not yet its own time-out */
	ck_assert_int_eq(grants(3, 6, 1, 1, true), _i == ON);
	ck_assert_int_eq(grants(3, 6, 1, 1, false), _i == ON);
}
END_TEST

START_TEST(g11_a_reset_connection_is_believed)
{
	begin(11, _i);
	go();
	say_append(2, (struct append){.term = 5, .prev = 1, .prev_term = 1, .commit = 1});
	rep_sync(X);
	W.now_ms += 10;
	consensus_lost(X->c, 3); /* another node */
	ck_assert(!grants(3, 6, 1, 1, true));
	consensus_lost(X->c, 2);
	ck_assert_int_eq(grants(3, 6, 1, 1, true), _i == ON);
	/* It was only the connection: the leader speaks, and is the leader. */
	say_append(2, (struct append){.term = 5, .prev = 1, .prev_term = 1, .commit = 1});
	ck_assert(!grants(3, 6, 1, 1, true));
	W.now_ms += 300;
	rep_tick(X);
	ck_assert_int_eq(consensus_role(X->c), ROLE_FOLLOWER);
	W.now_ms += 1000;
	rep_tick(X);
	ck_assert_int_eq(consensus_role(X->c), ROLE_CANDIDATE);
}
END_TEST

/* The candidate's configuration makes replica 1 a voter, which does not know of it yet. */
START_TEST(g12_votes_though_it_is_no_voter_yet)
{
	begin(12, _i);
	go();
	own_role = RAFT_STANDBY;
	say_append(2,
		(struct append){.term = 5,
			.prev = 1,
			.prev_term = 1,
			.n = 1,
			.entry_term = 5,
			.change = 1});
	rep_sync(X);
	say_append(2, (struct append){.term = 5, .prev = 2, .prev_term = 5, .commit = 2});
	struct consensus_peer p[4];
	ck_assert_int_eq(consensus_peers(X->c, p, 4), 4);
	ck_assert_int_eq(p[0].role, MEMBER_STANDBY);
	W.now_ms += 1300;
	rep_tick(X); /* it does not stand */
	ck_assert_int_eq(consensus_role(X->c), ROLE_FOLLOWER);
	ck_assert(!grants(3, 6, 1, 1, true)); /* its log decides */
	ck_assert_int_eq(grants(3, 6, 3, 5, true), _i == ON);
	ck_assert_int_eq(grants(3, 6, 3, 5, false), _i == ON);
	ck_assert_int_eq(consensus_peers(X->c, p, 4), 4);
	ck_assert_int_eq(p[0].role, MEMBER_STANDBY);
}
END_TEST

/* Two leaders of one term there are not: whoever says so is not let into the core, which would take
 * a leader's memory for a follower's. */
START_TEST(a_second_leader_of_the_term_is_not_heard)
{
	begin(15, ON);
	go();
	elect();
	rep_sync(X);
	say_append(2, (struct append){.term = 2, .prev = 1, .prev_term = 1, .commit = 1});
	ck_assert_int_eq(consensus_role(X->c), ROLE_LEADER);
	struct raft_wire w = {.message = {.type = RAFT_WIRE_MARK}};
	w.message.append_entries = (struct raft_append_entries){
		.term = 2, .prev_log_index = 1, .prev_log_term = 1, .leader_commit = 1};
	say_wire(2, &w);
	ck_assert_int_eq(consensus_role(X->c), ROLE_LEADER);
	say_result(3, 2, 2);
	ck_assert(consensus_ready(X->c));
}
END_TEST

/* The gate: what a majority has is committed even though the leader has stored more. */
START_TEST(gate_commits_what_a_majority_has)
{
	begin(0, _i);
	go();
	elect();
	rep_sync(X);
	say_result(3, 2, 2);
	ck_assert(consensus_ready(X->c));
	ck_assert_int_eq(rep_propose(X), OK);
	ck_assert_int_eq(rep_propose(X), OK);
	rep_sync(X);
	ck_assert_int_eq(X->acked, 0);
	say_result(3, 2, 3);
	ck_assert_int_eq(X->acked, _i == ON ? 1 : 0);
	say_result(3, 2, 4);
	ck_assert_int_eq(X->acked, 2);
}
END_TEST

static int changes;
static void change_done(struct consensus_change *c, enum err e)
{
	(void)c;
	changes += e == OK;
}

/* Terms and votes are on the disk before anything that depends on them leaves. */
START_TEST(votes_wait_for_the_disk)
{
	begin(15, ON);
	go();
	say(3,
		&(struct raft_message){.type = RAFT_IO_REQUEST_VOTE,
			.request_vote = {.term = 2,
				.candidate_id = W.rep[3].id,
				.last_log_index = 1,
				.last_log_term = 1}});
	ck_assert_uint_eq(heard(RAFT_IO_REQUEST_VOTE_RESULT).type, 0);
	rep_sync(X);
	struct raft_message m = heard(RAFT_IO_REQUEST_VOTE_RESULT);
	ck_assert(m.request_vote_result.vote_granted);
	ck_assert_uint_eq(X->disk.marks.vote, W.rep[3].id);
	ck_assert_uint_eq(X->disk.marks.term, 2);
}
END_TEST

/* Offsets that do not continue ours: this replica is lost. */
START_TEST(offsets_must_continue)
{
	begin(15, ON);
	go();
	say_append(2,
		(struct append){.term = 2,
			.prev = 1,
			.prev_term = 1,
			.commit = 1,
			.n = 1,
			.entry_term = 2});
	rep_sync(X);
	X->log->entries[1]->head.count = 7;
	say_append(2,
		(struct append){.term = 2,
			.prev = 2,
			.prev_term = 2,
			.commit = 1,
			.n = 1,
			.entry_term = 2});
	rep_sync(X);
	ck_assert_int_eq(consensus_role(X->c), ROLE_DOWN);
	ck_assert_uint_eq(plog_last_index(X->log), 2);
}
END_TEST

/* A leader whose disk hangs: it falls silent, and steps down when nobody answers. */
START_TEST(a_muted_leader_falls_silent)
{
	begin(15, ON);
	go();
	elect();
	rep_sync(X);
	say_result(3, 2, 2);
	frames_drop();
	W.now_ms += 200;
	rep_tick(X);
	ck_assert_uint_ne(heard(RAFT_IO_APPEND_ENTRIES).type, 0);
	consensus_mute(X->c, true);
	W.now_ms += 200;
	rep_tick(X);
	ck_assert_uint_eq(heard(RAFT_IO_APPEND_ENTRIES).type, 0);
	for (int i = 0; i < 3; i++) {
		W.now_ms += 700;
		rep_tick(X);
	}
	ck_assert_int_eq(consensus_role(X->c), ROLE_FOLLOWER);
	consensus_mute(X->c, false);
	for (int i = 0; i < 3; i++) {
		W.now_ms += 1300;
		rep_tick(X);
	}
	ck_assert_int_eq(consensus_role(X->c), ROLE_CANDIDATE);
}
END_TEST

/* A lone voter's entries leave when they are on its disk: nobody else's copy makes them last. */
START_TEST(a_lone_voters_entries_wait_for_its_disk)
{
	begin(15, ON);
	rep_start(X, 1);
	rep_turn(X);
	rep_sync(X);
	ck_assert(consensus_ready(X->c));
	static struct consensus_change change;
	change = (struct consensus_change){
		CHANGE_ADD_SPARE, W.rep[2].id, W.rep[2].address, change_done};
	ck_assert_int_eq(consensus_change(X->c, &change), OK);
	ck_assert_int_eq(consensus_change(X->c, &change), ERR_BUSY);
	rep_sync(X);
	ck_assert_int_eq(changes, 1);
	change.kind = CHANGE_TO_STANDBY;
	ck_assert_int_eq(consensus_change(X->c, &change), OK);
	rep_sync(X);
	rep_sync(X);
	ck_assert_int_eq(changes, 2);
	frames_drop();
	say_result(2, 1, plog_last_index(X->log));
	frames_drop();
	ck_assert_int_eq(rep_propose(X), OK);
	rep_turn(X);
	ck_assert_uint_eq(heard(RAFT_IO_APPEND_ENTRIES).type, 0);
	rep_sync(X);
	rep_sync(X);
	ck_assert_uint_eq(heard(RAFT_IO_APPEND_ENTRIES).append_entries.n_entries, 1);
	ck_assert_int_eq(X->acked, 1);
}
END_TEST

/* --- whatever peers say --- */

static uint64_t any(uint64_t low, uint64_t high)
{
	return low + random_u64() % (high - low + 1);
}

/* Around what the replica has, so that much of it is taken. */
static uint64_t any_term(void)
{
	uint64_t term = consensus_term(X->c);
	return any(term > 2 ? term - 2 : 1, term + (any(0, 9) == 0));
}
static uint64_t any_index(void)
{
	uint64_t last = plog_last_index(X->log);
	return any(last > 6 ? last - 6 : 1, last + 2);
}

static void any_append(int from)
{
	struct append a = {.term = any_term(), .prev = any_index(), .n = (int)any(0, 4)};
	struct entry *e = plog_any(X->log, a.prev);
	a.prev_term = e && any(0, 9) ? e->head.term : any(1, a.term);
	a.commit = any(0, 3) ? X->applied : any_index();
	if (a.prev_term > a.term)
		return;
	a.entry_term = any(a.prev_term, a.term);
	a.change = any(0, 9) ? 0 : (int)any(1, 4);
	append_offset = e ? entry_next_offset(&e->head) : (int64_t)a.prev - 1;
	own_role = (int)any(0, 2);
	say_append(from, a);
	append_offset = -1;
}

static void any_message(int from)
{
	struct raft_message m = {.type = (unsigned short)any(2, 6)};
	switch (m.type) {
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		m.append_entries_result = (struct raft_append_entries_result){
			any_term(), any(0, 1) ? 0 : any_index(), any(0, 9) ? any_index() : 0};
		break;
	case RAFT_IO_REQUEST_VOTE:
		m.request_vote = (struct raft_request_vote){
			any_term(), W.rep[from].id, any_index(), any_term(), any(0, 1), any(0, 1)};
		break;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		m.request_vote_result = (struct raft_request_vote_result){
			any_term(), any(0, 1), (raft_tribool)any(0, 2)};
		break;
	case RAFT_IO_INSTALL_SNAPSHOT: {
		uint8_t offset[8] = {0};
		struct raft_install_snapshot *s = &m.install_snapshot;
		s->term = any_term();
		s->last_index = any_index();
		s->last_term = any(1, s->term);
		s->conf_index = any(1, s->last_index);
		s->data = (struct raft_buffer){offset, sizeof offset};
		raft_configuration_init(&s->conf);
		for (int i = 1; i <= 3; i++)
			ck_assert_int_eq(raft_configuration_add(&s->conf, W.rep[i].id,
						 W.rep[i].address, RAFT_VOTER),
				0);
		say(from, &m);
		raft_configuration_close(&s->conf);
		return;
	}
	default:
		m.timeout_now = (struct raft_timeout_now){any_term(), any_index(), any_term()};
		break;
	}
	say(from, &m);
}

static void any_mark(int from)
{
	struct raft_wire w = {.message = {.type = RAFT_WIRE_MARK}};
	struct raft_append_entries *a = &w.message.append_entries;
	a->term = any_term();
	a->prev_log_index = a->leader_commit = any_index();
	a->prev_log_term = any(1, a->term);
	say_wire(from, &w);
}

static void step(void)
{
	int from = (int)any(2, 3);
	switch (any(0, 9)) {
	case 0: any_mark(from); break;
	case 1:
	case 2:
	case 3:
	case 4: any_append(from); break;
	case 5:
		W.now_ms += (int64_t)any(1, 400);
		rep_tick(X);
		break;
	case 6: rep_sync(X); break;
	default: any_message(from); break;
	}
	frames_drop();
}

static void never_fetched(void *arg, const struct consensus_install *i)
{
	(void)i;
	consensus_installed(((struct rep *)arg)->c, any(0, 1) ? ERR_TIMEOUT : ERR_CORRUPT);
}

/* Peers that are broken may bring a replica down, but not the process. What holds among peers that
 * are not is checked elsewhere. */
START_TEST(survives_whatever_peers_say)
{
	begin(15, ON);
	random_seed((uint64_t)_i + 1);
	go();
	for (int i = 0; i < 2000; i++) {
		if (consensus_role(X->c) == ROLE_DOWN) {
			rep_crash(X, 1000);
			X->disk = (struct disk){.first = 1};
			memset(W.committed, 0, sizeof W.committed);
			go();
		}
		X->c->fsm.install = never_fetched;
		step();
		W.broken[0] = 0;
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("guard");
	tcase_add_loop_test(tc, g1_old_terms_are_not_counted, 0, 2);
	tcase_add_loop_test(tc, g1_nothing_leaves_before_the_barrier, 0, 2);
	tcase_add_loop_test(tc, g2_acknowledges_no_more_than_was_compared, 0, 2);
	tcase_add_loop_test(tc, g3_appends_of_an_older_term_are_not_acknowledged, 0, 2);
	tcase_add_loop_test(tc, g4_one_vote_in_a_term, 0, 2);
	tcase_add_loop_test(tc, g5_stands_only_with_a_stored_log, 0, 2);
	tcase_add_loop_test(tc, g5_does_not_take_over_with_appends_under_way, 0, 2);
	tcase_add_loop_test(tc, g6_no_snapshot_with_an_open_configuration, 0, 2);
	tcase_add_loop_test(tc, g7_older_appends_drain_first, 0, 2);
	tcase_add_loop_test(tc, g8_repeats_below_the_commit_index_are_answered, 0, 2);
	tcase_add_loop_test(tc, g8_a_diverged_replica_goes_down, 0, 2);
	tcase_add_test(tc, g9_takes_back_a_configuration);
	tcase_add_test_raise_signal(tc, g9_off_the_library_crashes, SIGSEGV);
	tcase_add_loop_test(tc, g10_refused_pre_votes_tell_the_term, 0, 2);
	tcase_add_loop_test(tc, g11_a_silent_leader_holds_nobody, 0, 2);
	tcase_add_loop_test(tc, g11_a_reset_connection_is_believed, 0, 2);
	tcase_add_loop_test(tc, g12_votes_though_it_is_no_voter_yet, 0, 2);
	tcase_add_test(tc, a_second_leader_of_the_term_is_not_heard);
	tcase_add_loop_test(tc, gate_commits_what_a_majority_has, 0, 2);
	tcase_add_test(tc, votes_wait_for_the_disk);
	tcase_add_test(tc, offsets_must_continue);
	tcase_add_test(tc, a_muted_leader_falls_silent);
	tcase_add_test(tc, a_lone_voters_entries_wait_for_its_disk);
	tcase_add_loop_test(tc, survives_whatever_peers_say, 0, 40);
	Suite *s = suite_create("guard");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* Scripts end in the middle of things; a crash in the library is to be seen as a signal. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:handle_segv=0";
}
