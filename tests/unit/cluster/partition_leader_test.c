/* Who leads, as a partition knows it: by Raft, and by what other nodes say before or instead. */
#include <raft.h>
#include "tests/unit/cluster/remote_world.h"

static void setup(void)
{
	world_up(3, 8 << 20);
}

struct heard {
	struct partition *p;
	uint32_t leader;
	int32_t epoch;
	bool led;
	enum err unserved;
	uint32_t node;
	bool in_flight;
	uint64_t calls;
};

static void hear_run(void *arg)
{
	struct heard *h = arg;

	h->led = partition_leads(h->p);
	h->epoch = partition_epoch(h->p);
	partition_heard(h->p, h->leader, (uint64_t)h->epoch + 1);
	h->unserved = partition_unserved(h->p);
	sem_post(&N.done);
}

/* From others, before Raft says so: nobody says that it leads another's term. */
START_TEST(who_hears_of_a_newer_term_leads_no_more)
{
	uint32_t leader = (uint32_t)leader_wait();
	struct heard h = {.p = N.node[leader].p, .leader = leader % NODES + 1};

	on_loop(0, isolate_run, &leader);
	on_loop(0, hear_run, &h);
	ck_assert(h.led);
	ck_assert_int_eq(h.unserved, ERR_NOTLEADER);
	for (int i = 0; i < 20; i++) {
		ck_assert(!partition_leads(h.p));
		ck_assert_int_eq(partition_epoch(h.p), h.epoch + 1);
		usleep(5000);
	}
	on_loop(0, connect_all, NULL);
	ck_assert(partition_leads(N.node[leader_wait()].p));
}
END_TEST

struct alone {
	uint32_t leader, node, told;
	uint64_t term;
	bool muted;
};

/* Leadership is handed only to who is known to have all. */
static bool has_all(const struct partition *leader, uint64_t replica)
{
	struct consensus_peer peers[NODES];
	int count = consensus_peers(leader->consensus, peers, NODES);

	for (int i = 0; i < count; i++)
		if (peers[i].replica == replica)
			return peers[i].in_sync &&
				peers[i].match_index == plog_last_index(leader->log);
	return false;
}

/* What the node says is not heard from now on, and it is asked to lead. */
static void mute_run(void *arg)
{
	struct alone *a = arg;
	struct partition *leader = N.node[a->leader].p;

	a->muted = partition_leads(leader) && has_all(leader, replica_of((int)a->node));
	for (uint32_t to = 1; a->muted && to <= NODES; to++)
		N.cut[a->node][to] = true;
	a->term = consensus_term(leader->consensus);
	if (a->muted)
		partition_step_aside(leader, a->node);
	sem_post(&N.done);
}

static void term_run(void *arg)
{
	struct alone *a = arg;

	a->term = consensus_term(N.node[a->node].p->consensus);
	sem_post(&N.done);
}

static void want_others_run(void *arg)
{
	struct alone *a = arg;
	uint64_t ids[2];
	int count = 0;

	for (uint32_t i = 1; i <= 3; i++)
		if (i != a->node)
			ids[count++] = replica_of((int)i);
	partition_want_members(
		N.node[a->node].p, &(struct partition_wanted){.voters = ids, .voter_count = count});
	a->told = partition_leader(N.node[a->node].p);
	sem_post(&N.done);
}

static void lead_heard_run(void *arg)
{
	struct alone *a = arg;

	partition_heard(N.node[a->node].p, a->leader, a->term);
	a->told = partition_leader(N.node[a->node].p);
	sem_post(&N.done);
}

/* Taken out without having heard so, it stands for election for ever: it must still find out who
 * leads, or it never goes, and the node never gets the replica that it is to have. */
START_TEST(who_stands_in_vain_and_is_named_no_more_knows_the_leader)
{
	struct alone a = {0};
	uint64_t before;

	for (int i = 0; i < 1000 && !a.muted; i++) {
		a.leader = (uint32_t)leader_wait();
		a.node = a.leader % 3 + 1;
		on_loop(0, mute_run, &a);
		usleep(10000);
	}
	ck_assert(a.muted);
	before = a.term;
	for (int i = 0; i < 1000 && a.term < before + 2; i++) {
		usleep(10000);
		on_loop(0, term_run, &a);
	}
	ck_assert_uint_ge(a.term, before + 2);
	a.term = before;
	on_loop(0, lead_heard_run, &a);
	ck_assert_uint_eq(a.told, 0);
	on_loop(0, want_others_run, &a); /* nothing else may happen to it */
	ck_assert_uint_eq(a.told, a.leader);
	for (int i = 0; i < 2000 && partition_leader(N.node[a.node].p) != a.leader; i++)
		usleep(10000);
	ck_assert_uint_eq(partition_leader(N.node[a.node].p), a.leader);
}
END_TEST

struct handing {
	uint32_t leader;
	bool begun, led, hands;
	int32_t epoch;
	uint32_t told; /* as leader */
	uint64_t term;
};

/* It is to have no place any more, and hands over to who is not heard. */
static void hand_run(void *arg)
{
	struct handing *h = arg;
	struct partition *p = N.node[h->leader].p;
	struct alone a = {.leader = h->leader, .node = h->leader % 3 + 1};

	h->begun = partition_leads(p) && has_all(p, replica_of((int)a.node));
	for (uint32_t i = 1; h->begun && i <= 3; i++)
		for (uint32_t to = 1; i != h->leader && to <= NODES; to++)
			N.cut[i][to] = true;
	h->term = consensus_term(p->consensus);
	if (h->begun) {
		partition_heard(p, a.node, h->term - 1);
		a.node = h->leader;
		want_others_run(&a); /* posts */
		partition_step_aside(p, h->leader % 3 + 1);
	} else {
		sem_post(&N.done);
	}
}

static void handing_run(void *arg)
{
	struct handing *h = arg;
	struct partition *p = N.node[h->leader].p;

	h->led = partition_leads(p);
	h->hands = h->led && consensus_role(p->consensus) == ROLE_LEADER &&
		consensus_leader(p->consensus) == 0;
	h->epoch = partition_epoch(p);
	h->told = partition_leader(p);
	sem_post(&N.done);
}

/* Raft names no leader while one hands over. It leads until the next one does: in its own term,
 * not in that of a leader before it of whom others had told. */
START_TEST(who_hands_over_leads_in_its_own_term)
{
	struct handing h = {0};
	int seen = 0;

	/* It may be lost, as nobody is heard, before it has begun to hand over. */
	for (int i = 0; i < 1000 && seen < 20; i++) {
		on_loop(0, connect_all, NULL);
		h.leader = (uint32_t)leader_wait();
		on_loop(0, hand_run, &h);
		h.led = h.begun;
		while (h.led && seen < 20) {
			on_loop(0, handing_run, &h);
			usleep(2000);
			if (!h.hands)
				continue;
			seen++;
			ck_assert_uint_eq((uint64_t)h.epoch, h.term);
			ck_assert(h.told == 0 || h.told == h.leader);
		}
		usleep(10000);
	}
	ck_assert_int_eq(seen, 20);
}
END_TEST

static struct proposal own[2];
static int own_told;
static void own_done(struct proposal *q)
{
	(void)q;
	own_told++;
}
static void own_ask(struct partition *p, struct proposal *q)
{
	*q = (struct proposal){.to = p, .repeatable = true, .done = own_done};
	world_batch_into(q, 1, 10, 1000);
	partition_propose(q);
}

/* The first is in flight, the second comes when others have said that another leads. */
static void overtake_run(void *arg)
{
	struct heard *h = arg;

	for (uint32_t i = 1; i <= NODES; i++) /* nothing is confirmed, calls go through */
		N.cut[i][h->node] = true;
	own_ask(h->p, &own[0]);
	sem_post(&N.done);
}
static void then_run(void *arg)
{
	struct heard *h = arg;

	h->in_flight = !list_empty(&h->p->inflight);
	h->epoch = partition_epoch(h->p);
	partition_heard(h->p, h->leader, (uint64_t)h->epoch + 1);
	h->calls = N.calls;
	own_ask(h->p, &own[1]);
	sem_post(&N.done);
}
static void calls_run(void *arg)
{
	struct heard *h = arg;

	h->in_flight = h->in_flight && !list_empty(&h->p->inflight);
	h->calls = N.calls - h->calls;
	sem_post(&N.done);
}
static void told_run(void *arg)
{
	*(int *)arg = own_told;
	sem_post(&N.done);
}

/* What is in flight here may come to nothing and is decided again then: nothing newer is sent to
 * the next leader before. */
START_TEST(what_comes_later_does_not_overtake_what_is_in_flight)
{
	struct heard h = {0};
	int told = 0;

	h.node = (uint32_t)leader_wait();
	h.p = N.node[h.node].p;
	h.leader = h.node % 3 + 1;
	on_loop(0, overtake_run, &h);
	on_loop(0, then_run, &h);
	on_loop(0, calls_run, &h);
	ck_assert(h.in_flight);
	ck_assert_uint_eq(h.calls, 0);
	on_loop(0, connect_all, NULL);
	for (int i = 0; i < 2000 && told < 2; i++) {
		usleep(10000);
		on_loop(0, told_run, &told);
	}
	ck_assert_int_eq(told, 2);
	ck_assert(own[0].err != OK || own[1].err != OK || own[0].base_offset < own[1].base_offset);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("told");
	Suite *s = suite_create("partition_leader");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, setup, world_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, who_hears_of_a_newer_term_leads_no_more);
	tcase_add_test(tc, what_comes_later_does_not_overtake_what_is_in_flight);
	tcase_add_test(tc, who_stands_in_vain_and_is_named_no_more_knows_the_leader);
	tcase_add_test(tc, who_hands_over_leads_in_its_own_term);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
