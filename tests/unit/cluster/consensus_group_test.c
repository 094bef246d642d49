/* Groups of several on a network that works: how soon followers apply, how much a leader sends, how
 * long a group is without a leader, what happens while a snapshot is fetched. */
#include <stdlib.h>
#include "tests/unit/cluster/consensus_net.h"

static int at_of(const struct rep *r)
{
	return (int)(r->id & 15);
}

static struct rep *begin(int n)
{
	random_seed(11);
	net_init(n);
	for (int i = 1; i <= n; i++)
		net_start(i, n);
	struct rep *lead = net_elect();
	net_run(400);
	return lead;
}

/* One entry at a time, with long pauses. */
START_TEST(followers_apply_without_a_heartbeat)
{
	struct rep *lead = begin(3);
	int worst = 0;
	for (int i = 0; i < 50; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		uint64_t index = plog_last_index(lead->log);
		int committed = 0, everywhere = 0;
		for (int ms = 1; everywhere == 0 && ms < 200; ms++) {
			net_ms();
			if (!committed && lead->applied >= index)
				committed = ms;
			bool all = true;
			for (int k = 1; k <= 3; k++)
				all = all && W.rep[k].applied >= index;
			if (all)
				everywhere = ms;
		}
		ck_assert_int_gt(committed, 0);
		if (everywhere - committed > worst)
			worst = everywhere - committed;
		net_run(37);
	}
	/* A hop, and the slower follower's disk. */
	ck_assert_int_le(worst, N.latency_ms + N.sync_ms + 1);
}
END_TEST

/* A follower whose disk is slow keeps the newest mark and applies when its append is through. */
START_TEST(a_mark_waits_for_the_append)
{
	struct rep *lead = begin(3), *slow = &W.rep[at_of(lead) % 3 + 1];
	slow->slow = true;
	ck_assert_int_eq(rep_propose(lead), OK);
	net_run(10);
	ck_assert_int_eq(rep_propose(lead), OK);
	net_run(10);
	uint64_t last = plog_last_index(lead->log);
	ck_assert_uint_eq(lead->applied, last);
	ck_assert_uint_lt(slow->applied, last - 1);
	N.lose = NULL;
	W.cut[at_of(lead)][at_of(slow)] = true; /* no heartbeat comes to its help */
	slow->loop.now_ms = W.now_ms;
	rep_sync(slow);
	ck_assert_uint_eq(slow->applied, last);
	ck_assert_uint_eq(slow->c->mark.term, 0);
}
END_TEST

START_TEST(entries_of_a_turn_are_one_message)
{
	struct rep *lead = begin(3);
	uint64_t frames = N.frames;
	struct value *v[20];
	for (int i = 0; i < 20; i++) { /* without a turn between */
		uint8_t at[8] = {0};
		struct slice s;
		v[i] = mem_new(sizeof *v[i]);
		put_u32be(at, W.next_value++);
		ck_assert_int_eq(slice_copy(bytes_of(at, sizeof at), &s), OK);
		v[i]->p.entry = entry_new(&s, 1);
		v[i]->p.entry->head.count = 1;
		v[i]->p.done = value_done;
		v[i]->r = lead;
		ck_assert_int_eq(consensus_propose(lead->c, &v[i]->p), OK);
	}
	ck_assert_uint_eq(N.frames, frames);
	rep_turn(lead);
	ck_assert_uint_eq(N.frames, frames + 2);
	net_run(20);
	for (int k = 1; k <= 3; k++)
		ck_assert_uint_eq(W.rep[k].applied, plog_last_index(lead->log));
}
END_TEST

/* --- the window --- */

static void propose_large(struct rep *lead, size_t size)
{
	struct value *v = mem_new(sizeof *v);
	struct chunk *c = chunk_try(size);
	memset(c->data, 0, size);
	put_u32be(c->data, W.next_value++);
	struct slice s = slice_of(c, bytes_of(c->data, size));
	chunk_unref(c);
	v->p.entry = entry_new(&s, 1);
	v->p.entry->head.count = 1;
	v->p.done = value_done;
	v->r = lead;
	if (consensus_propose(lead->c, &v->p) != OK) {
		entry_unref(v->p.entry);
		mem_free(v);
	}
	rep_turn(lead);
}

static int silent;
static bool to_silent(const struct frame *f)
{
	return f->to == silent && f->bytes.bytes.len > 100000;
}

static int small_to_silent;
static bool count_small(const struct frame *f)
{
	small_to_silent += f->to == silent && f->bytes.bytes.len < 1000;
	return false;
}

/* A peer that has much on its way is told of commits by what follows, and by a mark when it has
 * acknowledged all. */
START_TEST(no_marks_beside_what_is_on_its_way)
{
	struct rep *lead = begin(3), *slow = &W.rep[at_of(lead) % 3 + 1];
	silent = at_of(slow);
	small_to_silent = 0;
	N.lose = count_small;
	slow->slow = true;
	for (int i = 0; i < 5; i++) {
		propose_large(lead, 200000);
		net_run(10);
		ck_assert_uint_eq(lead->applied, plog_last_index(lead->log));
	}
	ck_assert_int_eq(small_to_silent, 0);
	slow->slow = false;
	slow->loop.now_ms = W.now_ms;
	rep_sync(slow);
	net_run(3 * N.latency_ms + 1);
	ck_assert_int_eq(small_to_silent, 1);
	ck_assert_uint_eq(slow->applied, lead->applied);
}
END_TEST

/* A follower that answers nothing is not sent more than a window, and that not again and again. */
START_TEST(what_is_on_the_way_to_a_peer_is_bounded)
{
	struct rep *lead = begin(3), *slow = &W.rep[at_of(lead) % 3 + 1];
	W.o.inflight_bytes_max = 64 << 20;
	lead->c->o.inflight_bytes_max = 64 << 20;
	slow->slow = true;
	net_run(100);
	uint64_t before = N.bytes;
	for (int i = 0; i < 100; i++) {
		propose_large(lead, 200000);
		net_run(5);
	}
	net_run(300);
	uint64_t sent = N.bytes - before; /* 20 MB to the other one, a window or two to this one */
	ck_assert_uint_ge(sent, 20000000);
	ck_assert_uint_le(sent, 32000000);
	slow->slow = false;
	net_run(1500);
	for (int k = 1; k <= 3; k++)
		ck_assert_uint_eq(W.rep[k].applied, plog_last_index(lead->log));
	ck_assert_ptr_eq(net_leader(), lead);
}
END_TEST

/* Frames that are lost are sent again, once the peer has refused what follows. */
START_TEST(what_was_lost_is_sent_again)
{
	struct rep *lead = begin(3);
	lead->c->o.inflight_bytes_max = 64 << 20;
	silent = at_of(lead) % 3 + 1;
	N.lose = to_silent;
	for (int i = 0; i < 20; i++) {
		propose_large(lead, 200000);
		net_run(5);
	}
	ck_assert_uint_lt(W.rep[silent].applied, lead->applied);
	N.lose = NULL;
	net_run(1000);
	for (int k = 1; k <= 3; k++)
		ck_assert_uint_eq(W.rep[k].applied, plog_last_index(lead->log));
	ck_assert_ptr_eq(net_leader(), lead);
}
END_TEST

/* Entries that have left memory are read, a run at a time, until the peer has all. */
START_TEST(a_peer_that_was_away_reads_cold_entries)
{
	struct rep *lead = begin(3);
	int away = at_of(lead) % 3 + 1;
	lead->log->hide_below = 4;
	net_isolate(away, true);
	for (int i = 0; i < 600; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
	}
	net_isolate(away, false);
	net_run(2500);
	ck_assert_uint_eq(W.rep[away].applied, world_leader()->applied);
	ck_assert_uint_ge(W.rep[away].applied, 600);
}
END_TEST

/* The leader is muted, its disk being slow, when the read of a peer's entries ends: what was not
 * sent then is read again afterwards. */
START_TEST(a_read_that_ends_while_muted_is_repeated)
{
	struct rep *lead = begin(3);
	int away = at_of(lead) % 3 + 1;
	lead->log->hide_below = 4;
	net_isolate(away, true);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
	}
	N.reads_wait = true;
	net_isolate(away, false);
	for (int i = 0; i < 1000 && list_empty(&lead->loop.reads); i++)
		net_ms();
	ck_assert(!list_empty(&lead->loop.reads));
	consensus_mute(lead->c, true);
	N.reads_wait = false;
	net_run(100);
	ck_assert(list_empty(&lead->loop.reads));
	consensus_mute(lead->c, false);
	net_run(1500);
	ck_assert_ptr_eq(net_leader(), lead);
	ck_assert_uint_eq(W.rep[away].applied, lead->applied);
}
END_TEST

/* --- leaders that are lost --- */

enum { LOSSES = 200 };

static int by_size(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Milliseconds from the crash of a leader until another one is ready. */
static int lose_leader(uint64_t seed, bool reset)
{
	random_seed(seed);
	net_init(3);
	N.sync_ms = 5;
	for (int i = 1; i <= 3; i++)
		net_start(i, 3);
	struct rep *lead = net_elect();
	net_run(500 + (int)(random_u64() % 500));
	rep_crash(lead, 0);
	int ms = 0;
	for (; !net_leader() && ms < 10000; ms++) {
		if (ms == 1 && reset)
			for (int i = 1; i <= 3; i++)
				if (W.rep[i].alive)
					consensus_lost(W.rep[i].c, (uint32_t)(lead->id >> 32));
		net_ms();
	}
	return ms;
}

static void measure(bool reset, int *median, int *worst)
{
	int ms[LOSSES];
	for (int i = 0; i < LOSSES; i++)
		ms[i] = lose_leader((uint64_t)i + 1, reset);
	qsort(ms, LOSSES, sizeof ms[0], by_size);
	*median = ms[LOSSES / 2];
	*worst = ms[LOSSES - 1];
	printf("leader lost, connections %s: next one ready after %d ms, 95 of 100 %d, worst %d\n",
		reset ? "reset" : "silent", *median, ms[LOSSES * 95 / 100], *worst);
}

/* Others open some time later, and their ticks come before or after the first's. */
START_TEST(the_first_founder_leads_at_once)
{
	random_seed(300 + (uint64_t)_i);
	net_init(3);
	net_start(1, 3);
	net_run(_i * 30);
	net_start(2, 3);
	net_run(20);
	net_start(3, 3);
	for (int ms = 0; ms < 350 && !net_leader(); ms++)
		net_ms();
	ck_assert_ptr_eq(net_leader(), &W.rep[1]);
	net_run(3000);
	ck_assert_ptr_eq(net_leader(), &W.rep[1]);
}
END_TEST

/* The first is not there: the others find one among them. */
START_TEST(founders_do_without_the_first)
{
	random_seed(17);
	net_init(3);
	net_start(2, 3);
	net_start(3, 3);
	struct rep *lead = net_elect();
	net_start(1, 3);
	net_run(3000);
	ck_assert_ptr_eq(net_leader(), lead);
}
END_TEST

START_TEST(the_next_leader_comes_soon)
{
	int median, worst;
	measure(false, &median, &worst);
	ck_assert_int_lt(median, 760);
	ck_assert_int_lt(worst, 1900);
}
END_TEST

START_TEST(a_reset_connection_tells_that_the_leader_is_gone)
{
	int median, worst;
	measure(true, &median, &worst);
	ck_assert_int_lt(median, 200);
	ck_assert_int_lt(worst, 1900);
}
END_TEST

START_TEST(a_leader_that_only_lost_its_connection_stays)
{
	struct rep *lead = begin(3);
	uint64_t term = consensus_term(lead->c);
	for (int i = 0; i < 50; i++) {
		int k = at_of(lead) % 3 + 1; /* one follower's connection */
		consensus_lost(W.rep[k].c, (uint32_t)(lead->id >> 32));
		net_run(400);
		propose_large(lead, 8);
	}
	ck_assert_ptr_eq(net_leader(), lead);
	ck_assert_uint_eq(consensus_term(lead->c), term);
}
END_TEST

/* --- what does not need another leader --- */

static void lost_by(int k, const struct rep *node)
{
	W.rep[k].loop.now_ms = W.now_ms;
	consensus_lost(W.rep[k].c, (uint32_t)(node->id >> 32));
}

/* A second of entries, one each 50 ms; all of them are acknowledged by lead. */
static void serves_a_second(struct rep *lead)
{
	int before = lead->acked;
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(50);
	}
	net_run(20);
	ck_assert_int_eq(lead->acked, before + 20);
}

/* The third one hears the leader: whoever does not gets no votes, and no newer term, so that the
 * leader stays also when that one is back. */
START_TEST(one_that_is_cut_off_from_the_leader_alone_disturbs_nobody)
{
	struct rep *lead = begin(3);
	int at = at_of(lead), away = at % 3 + 1;
	uint64_t term = consensus_term(lead->c);
	for (int round = 0; round < 5; round++) {
		if (_i != 2)
			W.cut[at][away] = true;
		if (_i != 1)
			W.cut[away][at] = true;
		lost_by(away, lead);
		lost_by(at, &W.rep[away]);
		for (int i = 0; i < 3; i++) {
			serves_a_second(lead);
			lost_by(away, lead); /* dialled again, in vain */
		}
		W.cut[at][away] = W.cut[away][at] = false;
		net_run(round % 2 ? 1000 : 30);
		ck_assert_ptr_eq(net_leader(), lead);
		ck_assert_uint_eq(consensus_term(lead->c), term);
	}
	net_run(1000);
	ck_assert_uint_eq(consensus_term(W.rep[away].c), term);
	ck_assert_uint_eq(W.rep[away].applied, lead->applied);
}
END_TEST

/* What a process that stands still is sent waits in its sockets. */
enum { KEPT_MAX = 4096 };
static struct {
	struct slice frame[KEPT_MAX];
	int count, by;
} kept;

static bool keep(const struct frame *f)
{
	if (f->to != kept.by)
		return false;
	ck_assert_int_lt(kept.count, KEPT_MAX);
	kept.frame[kept.count++] = slice_ref(f->bytes);
	return true;
}

static void stand_still(struct rep *r, bool on)
{
	kept.by = on ? at_of(r) : 0;
	N.lose = on ? keep : NULL;
	r->alive = !on;
	for (int i = 0; !on && i < kept.count; i++) {
		r->loop.now_ms = W.now_ms;
		ck_assert_int_eq(consensus_receive(r->c, kept.frame[i]), OK);
		slice_unref(&kept.frame[i]);
		rep_turn(r);
	}
	if (!on)
		kept.count = 0;
}

/* A process is stopped and goes on: one change of the leader if it led, none if not. */
START_TEST(who_stands_still_is_replaced_once)
{
	struct rep *lead = begin(3);
	for (int round = 0; round < 10; round++) {
		struct rep *still = round % 2 ? lead : &W.rep[at_of(lead) % 3 + 1], *next;
		uint64_t term = consensus_term(lead->c);
		stand_still(still, true);
		net_run(500 + 700 * (round / 2));
		next = net_leader();
		if (next == NULL || still == lead) { /* not yet, or it has been */
			stand_still(still, false);
			net_run(1500);
			next = net_leader();
		} else {
			ck_assert_ptr_eq(next, lead);
			stand_still(still, false);
		}
		ck_assert_ptr_nonnull(next);
		if (still != lead)
			ck_assert_ptr_eq(next, lead);
		/* Votes may have been divided once, not more. */
		ck_assert_uint_le(consensus_term(next->c), term + (still == lead ? 2 : 0));
		term = consensus_term(next->c);
		lead = next;
		for (int i = 0; i < 3; i++)
			serves_a_second(lead);
		ck_assert_ptr_eq(net_leader(), lead);
		ck_assert_uint_eq(consensus_term(lead->c), term);
		ck_assert_uint_eq(still->applied, lead->applied);
	}
	world_check();
}
END_TEST

static void check_unrivalled(void)
{
	for (int i = 1; i <= W.n; i++)
		for (int k = 1; k <= W.n; k++) {
			const struct rep *r = &W.rep[i], *other = &W.rep[k];
			if (r->alive && consensus_unrivalled(r->c) && i != k)
				ck_assert(consensus_role(other->c) != ROLE_LEADER ||
					consensus_term(other->c) < consensus_term(r->c));
		}
}

static void run_unrivalled(int ms)
{
	for (int i = 0; i < ms; i++) {
		net_ms();
		check_unrivalled();
	}
}

/* Goes on: its timer and what came meanwhile, piece by piece. */
static void goes_on(struct rep *r, bool timer_first)
{
	N.lose = NULL;
	r->alive = true;
	r->loop.now_ms = W.now_ms;
	if (timer_first)
		rep_tick(r);
	for (int i = 0; i < kept.count; i++) {
		check_unrivalled();
		ck_assert_int_eq(consensus_receive(r->c, kept.frame[i]), OK);
		slice_unref(&kept.frame[i]);
		rep_turn(r);
	}
	kept.count = 0;
}

/* A leader that hears from a majority always is; one that stood still, was cut off, was muted or
 * hands over is not while another may lead. */
START_TEST(nobody_is_unrivalled_beside_another)
{
	struct rep *lead = begin(3);
	N.latency_ms = 20;
	net_run(1000);
	for (int round = 0; round < 20; round++) {
		lead = net_elect();
		for (int i = 0; i < 1000 + 17 * round; i++) {
			net_ms();
			for (int k = 1; k <= 3; k++)
				ck_assert_int_eq(
					consensus_unrivalled(W.rep[k].c), &W.rep[k] == lead);
		}
		if (_i == 0) {
			stand_still(lead, true);
			run_unrivalled(2000);
			goes_on(lead, round % 2);
		} else if (_i == 1) {
			net_isolate(at_of(lead), true);
			run_unrivalled(400);
			ck_assert(!consensus_unrivalled(lead->c));
			run_unrivalled(2000);
			net_isolate(at_of(lead), false);
		} else if (_i == 2) {
			consensus_mute(lead->c, true);
			run_unrivalled(2000);
			consensus_mute(lead->c, false);
		} else {
			ck_assert_int_eq(
				consensus_transfer(lead->c, W.rep[at_of(lead) % 3 + 1].id), OK);
			ck_assert(!consensus_unrivalled(lead->c));
		}
		run_unrivalled(3000);
	}
	world_check();
}
END_TEST

/* Each node in turn hands over, ends and comes back: the term grows with each hand-over only. */
START_TEST(a_rolling_restart_changes_leaders_as_often_as_they_end)
{
	struct rep *lead = begin(3);
	uint64_t term = consensus_term(lead->c);
	unsigned changes = 0;
	for (int round = 0; round < 6; round++) {
		struct rep *ends = &W.rep[round % 3 + 1];
		if (ends == lead) {
			int to = at_of(lead) % 3 + 1, ms = 0;
			changes++;
			ck_assert_int_eq(consensus_transfer(lead->c, W.rep[to].id), OK);
			rep_turn(lead);
			for (lead = NULL; ms < 1000 && (!lead || lead == ends); ms++) {
				net_ms();
				lead = net_leader();
			}
			ck_assert_int_lt(ms, 100);
			ck_assert_int_eq(at_of(lead), to);
		}
		net_run(20);
		rep_crash(ends, 0);
		for (int i = 1; i <= 3; i++)
			if (W.rep[i].alive)
				lost_by(i, ends);
		serves_a_second(lead);
		net_start(at_of(ends), 0);
		serves_a_second(lead);
		ck_assert_ptr_eq(net_leader(), lead);
		ck_assert_uint_eq(consensus_term(lead->c), term + changes);
		ck_assert_uint_eq(ends->applied, lead->applied);
	}
	ck_assert_uint_ge(changes, 2);
	world_check();
}
END_TEST

/* --- a disk that hangs --- */

START_TEST(a_muted_leader_lets_go_of_its_callers)
{
	struct rep *lead = begin(3);
	lead->slow = true; /* nothing is synced any more */
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(rep_propose(lead), OK);
	ck_assert_int_eq(lead->lost, 0);
	consensus_mute(lead->c, true);
	struct rep *next = NULL;
	int ms = 0;
	for (; ms < 3000 && (!next || next == lead); ms++) {
		net_ms();
		next = net_leader();
	}
	ck_assert_ptr_ne(next, lead);
	ck_assert_int_lt(ms, 1500);
	net_run(700);
	/* The followers had them: they are committed by the next leader, and the callers know no
	 * more than that they may be. */
	ck_assert_int_eq(lead->lost + lead->acked, 10);
	ck_assert_int_eq(consensus_role(lead->c), ROLE_FOLLOWER);
	lead->slow = false;
	consensus_mute(lead->c, false);
	net_run(1000);
	for (int k = 1; k <= 3; k++)
		ck_assert_uint_eq(W.rep[k].applied, net_leader()->applied);
}
END_TEST

/* --- snapshots --- */

static void snapshots(void)
{
	W.o.snapshot_threshold = 64;
	W.o.snapshot_trailing = 32;
}

static struct consensus_install asked;
static int asked_count;
static void only_note(void *arg, const struct consensus_install *i)
{
	(void)arg;
	asked = *i;
	asked_count++;
}

/* Of three, one was away for longer than the leader's log reaches back, and begins to fetch; its
 * log is as it was. Gives the leader, and who that is and who the third. */
static struct rep *one_fetches(int *far, int *third)
{
	random_seed(11);
	net_init(3);
	snapshots();
	for (int i = 1; i <= 3; i++)
		net_start(i, 3);
	struct rep *lead = net_elect();
	*far = at_of(lead) % 3 + 1;
	*third = *far % 3 + 1;
	W.rep[*far].c->fsm.install = only_note;
	net_isolate(*far, true);
	for (int i = 0; i < 400; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
	}
	net_isolate(*far, false);
	net_run(2000);
	ck_assert(W.rep[*far].c->phase == PHASE_INSTALLING);
	return lead;
}

/* The owner fetches for two minutes, fails, fetches again from whoever leads then. */
START_TEST(a_fetch_may_take_minutes_and_fail)
{
	int far, third;
	struct rep *lead = one_fetches(&far, &third);
	ck_assert_int_eq(asked_count, 1);
	uint64_t frames = N.frames;
	net_run(125000); /* past the library's time-out */
	ck_assert_int_eq(asked_count, 1);
	ck_assert_uint_lt((N.frames - frames) / 125, 40); /* a second: heartbeats, answers */
	ck_assert_ptr_eq(net_leader(), lead);
	/* The leader needs it to go on leading when the third is gone. */
	uint64_t term = consensus_term(lead->c);
	rep_crash(&W.rep[third], 0);
	net_run(5000);
	ck_assert_ptr_eq(net_leader(), lead);
	ck_assert_uint_eq(consensus_term(lead->c), term);
	net_start(third, 0);
	net_run(1000);
	/* It fails before the old state is given up: that goes on, until it begins anew. */
	W.rep[far].loop.now_ms = W.now_ms;
	consensus_installed(W.rep[far].c, ERR_UNAVAILABLE);
	net_run(900);
	ck_assert(W.rep[far].c->phase != PHASE_INSTALLING);
	ck_assert_uint_gt(consensus_applied(W.rep[far].c), 0);
	net_run(1500);
	ck_assert(W.rep[far].c->phase == PHASE_INSTALLING);
	ck_assert_int_eq(asked_count, 2);
	/* And after: there is nothing to go back to. */
	W.rep[far].loop.now_ms = W.now_ms;
	fake_plog_seed_begin(W.rep[far].log, asked.index);
	consensus_installed(W.rep[far].c, ERR_UNAVAILABLE);
	net_run(900);
	ck_assert(W.rep[far].c->phase == PHASE_INSTALLING);
	ck_assert_int_eq(asked_count, 2);
	net_run(500);
	ck_assert_int_eq(asked_count, 3);
	/* Nor after a crash. */
	rep_crash(&W.rep[far], 100);
	net_start(far, 0);
	ck_assert(W.rep[far].c->phase == PHASE_INSTALLING);
	net_run(1000);
	ck_assert(W.rep[far].c->phase != PHASE_INSTALLING);
	net_run(500);
	ck_assert_uint_eq(W.rep[far].applied, net_leader()->applied);
}
END_TEST

/* Of three one is gone for good and one has begun to fetch when the leader has to start anew: it is
 * voted for by the one that fetches, and fetched from, also if that one has been restarted. */
START_TEST(who_fetches_still_votes)
{
	int far, third;
	struct rep *lead = one_fetches(&far, &third);
	fake_plog_seed_begin(W.rep[far].log, asked.index);
	if (_i == 1) {
		net_run(100);
		rep_crash(&W.rep[far], 0);
		net_start(far, 0);
		W.rep[far].c->fsm.install = only_note;
		ck_assert(W.rep[far].c->phase == PHASE_INSTALLING);
	}
	rep_crash(&W.rep[third], 0);
	uint64_t acked = lead->applied;
	rep_crash(lead, 100);
	net_run(100);
	net_start(at_of(lead), 0);
	for (int i = 0; i < 4000 && consensus_role(lead->c) != ROLE_LEADER; i++)
		net_ms();
	ck_assert_int_eq(consensus_role(lead->c), ROLE_LEADER);
	net_run(3000);
	ck_assert_int_eq(consensus_role(lead->c), ROLE_LEADER);
	W.rep[far].loop.now_ms = W.now_ms;
	rep_fetched(&W.rep[far], &asked);
	net_run(1500);
	ck_assert_ptr_eq(net_leader(), lead);
	ck_assert_uint_ge(lead->applied, acked);
	ck_assert_uint_eq(W.rep[far].applied, lead->applied);
}
END_TEST

/* Of three the leader is gone for good, in the midst of being fetched from by one of the others.
 * The third leads; it does not know all to be committed that the first did, and cannot find out
 * before the one that fetches has its log: so that one takes what there is. */
START_TEST(fetches_from_who_knows_less)
{
	int far, third;
	struct rep *lead = one_fetches(&far, &third);
	uint64_t had = plog_last_index(W.rep[far].log);
	ck_assert_uint_gt(asked.index, had);
	fake_plog_seed_begin(W.rep[far].log, lead->applied + 1);
	rep_crash(lead, 0);
	if (_i == 1) {
		net_run(100);
		rep_crash(&W.rep[far], 0);
		net_start(far, 0);
		W.rep[far].c->fsm.install = only_note;
	}
	for (int i = 0; i < 6000 && consensus_role(W.rep[third].c) != ROLE_LEADER; i++)
		net_ms();
	net_run(2000);
	ck_assert_int_eq(consensus_role(W.rep[third].c), ROLE_LEADER);
	ck_assert_uint_eq(asked.from, W.rep[third].id);
	ck_assert_uint_le(asked.least, W.rep[third].applied);
	ck_assert_uint_eq(asked.least, had);
	asked.index = W.rep[third].applied;
	W.rep[far].loop.now_ms = W.now_ms;
	rep_fetched(&W.rep[far], &asked);
	net_run(1500);
	ck_assert_ptr_eq(net_leader(), &W.rep[third]);
	ck_assert_uint_eq(W.rep[far].applied, W.rep[third].applied);
}
END_TEST

/* A leader that comes while it is fetched does not know why that one takes nothing, but sees that
 * it does not. */
START_TEST(who_fetches_is_sent_no_entries)
{
	int far, third;
	struct rep *lead = one_fetches(&far, &third);
	ck_assert_int_eq(consensus_transfer(lead->c, W.rep[third].id), OK);
	net_run(1000);
	lead = net_leader();
	ck_assert_ptr_eq(lead, &W.rep[third]);
	ck_assert_uint_eq(asked.from, lead->id); /* not from one that leads no more */
	uint64_t before = N.bytes_to[far];
	for (int i = 0; i < 50; i++) {
		propose_large(lead, 200000);
		net_run(100);
	}
	ck_assert_int_eq(lead->acked, 50);
	ck_assert_uint_lt(N.bytes_to[far] - before, 1000000);
	W.rep[far].c->fsm.install = rep_install; /* it is too far behind already */
	W.rep[far].loop.now_ms = W.now_ms;
	rep_fetched(&W.rep[far], &asked);
	net_run(2500);
	ck_assert_uint_eq(W.rep[far].applied, lead->applied);
}
END_TEST

START_TEST(pinned_entries_are_kept)
{
	random_seed(11);
	net_init(3);
	snapshots();
	for (int i = 1; i <= 3; i++)
		net_start(i, 3);
	struct rep *lead = net_elect();
	for (int i = 0; i < 200; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
	}
	ck_assert_uint_gt(consensus_keep_index(lead->c), 100);
	consensus_pin(lead->c, true);
	consensus_pin(lead->c, true);
	uint64_t from = consensus_applied(lead->c);
	for (int i = 0; i < 2000; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
		if (i == 500)
			consensus_pin(lead->c, false); /* one still holds */
	}
	ck_assert_uint_le(consensus_keep_index(lead->c), from + 1);
	consensus_pin(lead->c, false);
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(rep_propose(lead), OK);
		net_run(3);
	}
	ck_assert_uint_gt(consensus_keep_index(lead->c), from + 1900);
}
END_TEST

/* --- one that is added later --- */

static void rep_changed_done(struct consensus_change *q, enum err e)
{
	(void)q;
	ck_assert_int_eq(e, OK);
}

START_TEST(a_replica_without_a_configuration_waits)
{
	random_seed(11);
	net_init(4);
	for (int i = 1; i <= 3; i++)
		net_start(i, 3);
	net_start(4, 0);
	struct rep *lead = net_elect(), *late = &W.rep[4];
	net_run(5000);
	ck_assert_int_eq(consensus_role(late->c), ROLE_FOLLOWER);
	ck_assert_uint_eq(consensus_term(late->c), 0);
	ck_assert_int_eq(consensus_peers(late->c, NULL, 0), 0);
	ck_assert_int_eq(rep_propose(late), ERR_NOTLEADER);
	struct consensus_change q = {.kind = CHANGE_ADD_SPARE,
		.replica = late->id,
		.address = late->address,
		.done = rep_changed_done};
	ck_assert_int_eq(consensus_change(lead->c, &q), OK);
	net_run(100);
	q.kind = CHANGE_TO_STANDBY;
	ck_assert_int_eq(consensus_change(lead->c, &q), OK);
	net_run(1000);
	ck_assert_uint_eq(late->applied, lead->applied); /* from index 1 on */
	ck_assert_uint_eq(consensus_leader(late->c), lead->id);
	rep_crash(late, 0);
	net_start(4, 0);
	net_run(1000);
	ck_assert_uint_eq(late->applied, lead->applied);
	ck_assert_uint_eq(consensus_term(lead->c), consensus_term(late->c));
}
END_TEST

/* --- what is told of the group --- */

START_TEST(peers_tell_who_is_in_sync)
{
	struct rep *lead = begin(3);
	struct consensus_peer p[3];
	int away = at_of(lead) % 3 + 1;
	ck_assert_int_eq(rep_propose(lead), OK);
	net_run(50);
	ck_assert_int_eq(consensus_peers(lead->c, p, 3), 3);
	for (int i = 0; i < 3; i++) {
		ck_assert(p[i].in_sync);
		ck_assert_int_eq(p[i].role, MEMBER_VOTER);
		ck_assert_uint_eq(p[i].match_index, plog_last_index(lead->log));
	}
	ck_assert_uint_eq(consensus_commit(lead->c), plog_last_index(lead->log));
	net_isolate(away, true);
	net_run(700);
	ck_assert_int_eq(consensus_peers(lead->c, p, 3), 3);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(p[i].in_sync, p[i].replica != W.rep[away].id);
	ck_assert_int_eq(consensus_peers(W.rep[away % 3 + 1].c, p, 1), 3); /* writes one */
	ck_assert(!consensus_changing(lead->c));
}
END_TEST

static int voters_told(struct rep *r)
{
	struct consensus_peer p[3];
	int count = 0;
	ck_assert_int_eq(consensus_peers(r->c, p, 3), 3);
	for (int i = 0; i < 3; i++)
		count += p[i].role == MEMBER_VOTER;
	return count;
}

/* The next leader may never have heard that it is to go. */
START_TEST(a_vote_is_told_until_it_is_gone)
{
	struct rep *lead = begin(3), *goes = &W.rep[at_of(lead) % 3 + 1];
	struct consensus_change q = {
		.kind = CHANGE_TO_SPARE, .replica = goes->id, .done = rep_changed_done};
	net_run(50);
	net_isolate(at_of(lead), true);
	ck_assert_int_eq(consensus_change(lead->c, &q), OK);
	net_run(50);
	ck_assert(consensus_changing(lead->c));
	ck_assert_int_eq(voters_told(lead), 3);
	net_isolate(at_of(lead), false);
	net_run(1000);
	ck_assert_ptr_eq(net_leader(), lead);
	ck_assert(!consensus_changing(lead->c));
	ck_assert_int_eq(voters_told(lead), 2);
	q.kind = CHANGE_TO_STANDBY; /* and one that never was is not */
	net_isolate(at_of(lead), true);
	ck_assert_int_eq(consensus_change(lead->c, &q), OK);
	net_run(50);
	ck_assert_int_eq(voters_told(lead), 2);
	net_isolate(at_of(lead), false);
	net_run(1000);
	ck_assert(!consensus_changing(lead->c));
}
END_TEST

START_TEST(addresses_are_replica_ids)
{
	struct rep *lead = begin(3);
	struct consensus_change q = {
		.kind = CHANGE_ADD_SPARE, .replica = 77, .address = "somewhere:7400"};
	ck_assert_int_eq(consensus_change(lead->c, &q), ERR_INVALID);
	ck_assert(!consensus_changing(lead->c));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("group");
	tcase_add_test(tc, followers_apply_without_a_heartbeat);
	tcase_add_test(tc, a_mark_waits_for_the_append);
	tcase_add_test(tc, entries_of_a_turn_are_one_message);
	tcase_add_test(tc, no_marks_beside_what_is_on_its_way);
	tcase_add_test(tc, what_is_on_the_way_to_a_peer_is_bounded);
	tcase_add_test(tc, what_was_lost_is_sent_again);
	tcase_add_test(tc, a_peer_that_was_away_reads_cold_entries);
	tcase_add_test(tc, a_read_that_ends_while_muted_is_repeated);
	tcase_add_loop_test(tc, the_first_founder_leads_at_once, 0, 8);
	tcase_add_test(tc, founders_do_without_the_first);
	tcase_add_test(tc, the_next_leader_comes_soon);
	tcase_add_test(tc, a_reset_connection_tells_that_the_leader_is_gone);
	tcase_add_test(tc, a_leader_that_only_lost_its_connection_stays);
	tcase_add_loop_test(tc, one_that_is_cut_off_from_the_leader_alone_disturbs_nobody, 0, 3);
	tcase_add_test(tc, who_stands_still_is_replaced_once);
	tcase_add_loop_test(tc, nobody_is_unrivalled_beside_another, 0, 4);
	tcase_add_test(tc, a_rolling_restart_changes_leaders_as_often_as_they_end);
	tcase_add_test(tc, a_muted_leader_lets_go_of_its_callers);
	tcase_add_test(tc, a_fetch_may_take_minutes_and_fail);
	tcase_add_loop_test(tc, who_fetches_still_votes, 0, 2);
	tcase_add_loop_test(tc, fetches_from_who_knows_less, 0, 2);
	tcase_add_test(tc, who_fetches_is_sent_no_entries);
	tcase_add_test(tc, pinned_entries_are_kept);
	tcase_add_test(tc, a_replica_without_a_configuration_waits);
	tcase_add_test(tc, peers_tell_who_is_in_sync);
	tcase_add_test(tc, a_vote_is_told_until_it_is_gone);
	tcase_add_test(tc, addresses_are_replica_ids);
	return net_main(tc, "group");
}
