#include "cluster/membership.h"
#include "tests/unit/cluster/consensus_net.h"

static uint64_t id(int i)
{
	return W.rep[i].id;
}

/* Everybody is told, as by the catalogue; a list of voters and of learners that ends with 0. */
static void want(const int *voters, const int *learners)
{
	uint64_t v[8], l[8];
	struct membership_wanted w = {.voters = v, .learners = l};
	while (voters[w.voter_count] != 0) {
		v[w.voter_count] = id(voters[w.voter_count]);
		w.voter_count++;
	}
	while (learners && learners[w.learner_count] != 0) {
		l[w.learner_count] = id(learners[w.learner_count]);
		w.learner_count++;
	}
	for (int i = 1; i <= W.n; i++) {
		struct rep *r = &W.rep[i];
		if (!r->alive)
			continue;
		rep_want(r, &w);
	}
}
#define WANT(...) want((const int[]){__VA_ARGS__, 0}, NULL)

static enum member_role role(int i)
{
	struct consensus_peer p[8];
	int n = consensus_peers(net_elect()->c, p, 8);
	for (int k = 0; k < n; k++)
		if (p[k].replica == id(i))
			return p[k].role;
	return (enum member_role) - 1;
}

static int voters(void)
{
	struct consensus_peer p[8];
	int n = consensus_peers(net_elect()->c, p, 8), count = 0;
	for (int k = 0; k < n; k++)
		count += p[k].role == MEMBER_VOTER;
	return count;
}

static void propose(void)
{
	struct rep *lead = net_leader();
	if (lead)
		(void)(rep_propose(lead) == OK);
}

/* Runs, under load, until the configuration is as wanted; the time it took. */
static int settle(int most_ms)
{
	int ms = 0;
	for (; ms < most_ms; ms++) {
		struct rep *lead = net_leader();
		if (lead && lead->members && rep_settled(lead))
			break;
		if (ms % 7 == 0)
			propose();
		net_ms();
	}
	ck_assert_int_lt(ms, most_ms);
	return ms;
}

static void all_agree(int from, int to)
{
	net_run(500);
	world_check();
	ck_assert_msg(!W.broken[0], "%s", W.broken);
	for (int i = from; i <= to; i++)
		ck_assert_uint_eq(W.rep[i].applied, net_leader()->applied);
}

static void begin(int n, int voters_first)
{
	random_seed(7);
	net_init(n);
	W.o.snapshot_threshold = 64;
	W.o.snapshot_trailing = 32;
	for (int i = 1; i <= n; i++)
		net_start(i, i <= voters_first ? voters_first : 0);
	net_elect();
}

START_TEST(grows_from_one_to_five)
{
	begin(5, 1);
	for (int i = 0; i < 200; i++) {
		propose();
		net_run(3);
	}
	WANT(1, 2, 3);
	settle(5000);
	ck_assert_int_eq(voters(), 3);
	WANT(1, 2, 3, 4, 5);
	settle(5000);
	ck_assert_int_eq(voters(), 5);
	all_agree(1, 5);
	ck_assert_uint_eq(net_leader()->id, id(1));
}
END_TEST

START_TEST(replaces_a_dead_replica)
{
	begin(3, 3);
	WANT(1, 2, 3);
	settle(1000);
	int lead = (int)(net_leader()->id & 15), dead = lead % 3 + 1;
	uint64_t was = id(dead);
	rep_crash(&W.rep[dead], 0);
	net_run(3000);
	rep_wipe(&W.rep[dead]);
	ck_assert_uint_ne(id(dead), was);
	net_start(dead, 0);
	WANT(1, 2, 3);
	settle(10000);
	ck_assert_int_eq(voters(), 3);
	all_agree(1, 3);
}
END_TEST

START_TEST(shrinks_to_one_that_did_not_lead)
{
	begin(3, 3);
	int lead = (int)(net_leader()->id & 15), stays = lead % 3 + 1;
	WANT(stays);
	settle(10000);
	ck_assert_int_eq(voters(), 1);
	ck_assert_uint_eq(net_leader()->id, id(stays));
	ck_assert_int_gt(net_leader()->acked, 10);
	all_agree(stays, stays);
	/* Those removed stand for nothing any more. */
	net_run(5000);
	ck_assert_uint_eq(net_leader()->id, id(stays));
}
END_TEST

static bool named(uint64_t replica)
{
	struct consensus_peer p[8];
	int n = consensus_peers(net_elect()->c, p, 8);
	for (int k = 0; k < n; k++)
		if (p[k].replica == replica)
			return true;
	return false;
}

/* A node has one replica of a group at a time: the next one waits for the old one to go. */
START_TEST(a_node_gets_its_next_replica_after_the_old_one)
{
	begin(3, 3);
	WANT(1, 2, 3);
	settle(1000);
	int lead = (int)(net_leader()->id & 15), again = _i == 0 ? lead : lead % 3 + 1;
	uint64_t old = id(again), ids[] = {id(1), id(2), id(3)};
	ids[again - 1] += 1 << 8;
	for (int i = 1; i <= 3; i++)
		rep_want(&W.rep[i], &(struct membership_wanted){.voters = ids, .voter_count = 3});
	for (int ms = 0; ms < 10000 && named(old); ms++)
		net_ms();
	ck_assert(!named(old));
	ck_assert_int_eq(voters(), 2);
	rep_crash(&W.rep[again], 0);
	rep_wipe(&W.rep[again]);
	net_start(again, 0);
	WANT(1, 2, 3);
	settle(10000);
	ck_assert_int_eq(voters(), 3);
	all_agree(1, 3);
}
END_TEST

START_TEST(a_dead_voter_goes_first)
{
	begin(3, 3);
	int lead = (int)(net_leader()->id & 15), dead = lead % 3 + 1, other = dead % 3 + 1;
	rep_crash(&W.rep[dead], 0);
	net_run(1000);
	WANT(lead);
	while (role(dead) == MEMBER_VOTER) {
		ck_assert_int_eq(role(other), MEMBER_VOTER);
		net_ms();
	}
	settle(10000);
	ck_assert_int_eq(voters(), 1);
}
END_TEST

START_TEST(nothing_is_taken_away_before_the_new_has_caught_up)
{
	begin(4, 3);
	net_isolate(4, true);
	WANT(1, 2, 4);
	net_run(20000);
	ck_assert_int_eq(voters(), 3);
	ck_assert_int_eq(role(3), MEMBER_VOTER);
	ck_assert_int_eq(role(4), MEMBER_STANDBY);
	net_isolate(4, false);
	settle(10000);
	ck_assert_int_eq(role(4), MEMBER_VOTER);
	ck_assert_int_eq((int)role(3), -1);
}
END_TEST

/* One of three is dead: another may go only when the dead one's successor is there. */
START_TEST(a_majority_stays_in_sync)
{
	begin(4, 3);
	int lead = (int)(net_leader()->id & 15), dead = lead % 3 + 1, other = dead % 3 + 1;
	rep_crash(&W.rep[dead], 0);
	net_run(1000);
	WANT(lead, dead); /* of the three the other one is to go: it may not */
	net_run(20000);
	ck_assert_int_eq(role(other), MEMBER_VOTER);
	ck_assert_int_eq(voters(), 3);
	net_start(dead, 0);
	WANT(lead, dead);
	settle(10000);
	ck_assert_int_eq(voters(), 2);
}
END_TEST

/* One of three dies a moment before another is to go, who then may not: those who stay would be the
 * dead one and one more. */
START_TEST(who_was_lost_a_moment_ago_is_not_counted_on)
{
	begin(3, 3);
	struct rep *lead = net_leader();
	int at = (int)(lead->id & 15), dead = at % 3 + 1, other = dead % 3 + 1;
	net_run(1000);
	rep_crash(&W.rep[dead], 0);
	net_run(10);
	consensus_lost(lead->c, (uint32_t)(id(dead) >> 32));
	WANT(at, dead);
	int acked = lead->acked;
	for (int i = 0; i < 100; i++) {
		propose();
		net_run(30);
	}
	ck_assert_int_eq(role(other), MEMBER_VOTER);
	ck_assert_int_ge(lead->acked, acked + 99);
}
END_TEST

START_TEST(learners_follow_and_do_not_vote)
{
	begin(4, 3);
	want((const int[]){1, 2, 3, 0}, (const int[]){4, 0});
	settle(5000);
	ck_assert_int_eq(role(4), MEMBER_STANDBY);
	ck_assert_int_eq(voters(), 3);
	all_agree(1, 4);
	want((const int[]){1, 2, 4, 0}, (const int[]){3, 0}); /* they change places */
	settle(10000);
	ck_assert_int_eq(role(3), MEMBER_STANDBY);
	ck_assert_int_eq(role(4), MEMBER_VOTER);
	all_agree(1, 4);
}
END_TEST

START_TEST(leadership_goes_to_the_preferred)
{
	begin(3, 3);
	int lead = (int)(net_leader()->id & 15), best = lead % 3 + 1;
	WANT(best, best % 3 + 1, lead);
	net_run(8000);
	ck_assert_uint_eq(net_leader()->id, id(lead));
	net_run(8000);
	ck_assert_uint_eq(net_elect()->id, id(best));
	uint64_t term = consensus_term(net_leader()->c);
	net_run(30000);
	ck_assert_uint_eq(consensus_term(net_leader()->c), term); /* and stays there */
}
END_TEST

START_TEST(steps_aside_when_asked)
{
	begin(3, 3);
	for (int i = 0; i < 3; i++) {
		int lead = (int)(net_elect()->id & 15), to = lead % 3 + 1;
		WANT(1, 2, 3);
		membership_step_aside(W.rep[lead].members, i < 2 ? (uint32_t)to : 0);
		net_run(1000);
		if (i < 2)
			ck_assert_uint_eq(net_elect()->id, id(to));
		else
			ck_assert_uint_ne(net_elect()->id, id(lead));
	}
}
END_TEST

START_TEST(may_be_freed_with_a_step_under_way)
{
	begin(2, 1);
	WANT(1, 2);
	W.rep[1].slow = true; /* nothing commits */
	net_run(60);
	ck_assert(consensus_changing(W.rep[1].c));
	membership_free(W.rep[1].members);
	W.rep[1].members = NULL;
	W.rep[1].slow = false;
	net_run(1000);
	ck_assert(!consensus_changing(W.rep[1].c));
	membership_free(NULL);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("membership");
	tcase_add_test(tc, grows_from_one_to_five);
	tcase_add_test(tc, replaces_a_dead_replica);
	tcase_add_test(tc, shrinks_to_one_that_did_not_lead);
	tcase_add_loop_test(tc, a_node_gets_its_next_replica_after_the_old_one, 0, 2);
	tcase_add_test(tc, a_dead_voter_goes_first);
	tcase_add_test(tc, nothing_is_taken_away_before_the_new_has_caught_up);
	tcase_add_test(tc, a_majority_stays_in_sync);
	tcase_add_test(tc, who_was_lost_a_moment_ago_is_not_counted_on);
	tcase_add_test(tc, learners_follow_and_do_not_vote);
	tcase_add_test(tc, leadership_goes_to_the_preferred);
	tcase_add_test(tc, steps_aside_when_asked);
	tcase_add_test(tc, may_be_freed_with_a_step_under_way);
	return net_main(tc, "membership");
}
