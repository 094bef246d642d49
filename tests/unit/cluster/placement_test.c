/* Plans from random states: always valid, always ending, and even at the end. */
#include <check.h>
#include <stdlib.h>
#include "cluster/placement.h"
#include "server/base/clock.h"

static const char *const racks[] = {"a", "b", "c", ""};

static struct placement nodes(int count, int rack_count)
{
	struct placement p = {.count = count};

	for (int i = 0; i < count; i++)
		p.nodes[i] = (struct place_node){.id = (uint32_t)(i + 1),
			.rack = rack_count > 0 ? racks[i % rack_count] : "",
			.active = true,
			.alive = true};
	return p;
}

static int spread(const struct placement *p, const struct place_group *g)
{
	int racks_seen = 0;

	for (int i = 0; i < g->count; i++) {
		bool fresh = true;

		for (int k = 0; k < i; k++) {
			const char *a = p->nodes[g->members[i] - 1].rack;
			const char *b = p->nodes[g->members[k] - 1].rack;

			fresh = fresh && (a[0] == 0 || strcmp(a, b) != 0);
		}
		racks_seen += fresh;
	}
	return racks_seen;
}

static void valid(const struct place_group *g)
{
	for (int i = 0; i < g->count; i++)
		for (int k = 0; k < i; k++)
			ck_assert_uint_ne(g->members[i], g->members[k]);
}

static void gap(const struct placement *p, int *replicas, int *leaders)
{
	int rmin = INT32_MAX, rmax = 0, lmin = INT32_MAX, lmax = 0;

	for (int i = 0; i < p->count; i++) {
		const struct place_node *n = &p->nodes[i];

		if (!n->active)
			continue;
		rmin = n->replicas < rmin ? n->replicas : rmin;
		rmax = n->replicas > rmax ? n->replicas : rmax;
		lmin = n->leaders < lmin ? n->leaders : lmin;
		lmax = n->leaders > lmax ? n->leaders : lmax;
	}
	*replicas = rmax - rmin;
	*leaders = lmax - lmin;
}

START_TEST(new_groups_spread_over_nodes_and_racks)
{
	struct placement p = nodes(6, 3);
	int replicas, leaders;

	for (int i = 0; i < 60; i++) {
		struct place_group g = {.wanted = 3};

		g.count = placement_new(&p, 3, g.members);
		ck_assert_int_eq(g.count, 3);
		valid(&g);
		ck_assert_int_eq(spread(&p, &g), 3);
	}
	gap(&p, &replicas, &leaders);
	ck_assert_int_le(replicas, 1);
	ck_assert_int_le(leaders, 1);
}
END_TEST

START_TEST(new_groups_take_what_there_is)
{
	struct placement p = nodes(2, 0);
	uint32_t members[PLACEMENT_REPLICAS_MAX];

	ck_assert_int_eq(placement_new(&p, 3, members), 2);
	p.nodes[0].active = false;
	ck_assert_int_eq(placement_new(&p, 3, members), 1);
	ck_assert_uint_eq(members[0], 2);
	p.nodes[1].alive = false; /* better one that is away than none */
	ck_assert_int_eq(placement_new(&p, 3, members), 1);
	p.nodes[1].active = false;
	ck_assert_int_eq(placement_new(&p, 3, members), 0);
	p = nodes(3, 0);
	p.nodes[0].alive = false; /* counts when it is back */
	ck_assert_int_eq(placement_new(&p, 3, members), 3);
	ck_assert_uint_eq(members[0], 2);
	ck_assert_uint_eq(members[2], 1);
	p.nodes[1].alive = false; /* no majority answers */
	ck_assert_int_eq(placement_new(&p, 3, members), 1);
	ck_assert_uint_eq(members[0], 3);
}
END_TEST

START_TEST(replicas_are_raised_and_lowered)
{
	struct placement p = nodes(1, 0);
	struct place_group g = {.wanted = 3, .count = 1, .members = {1}};

	placement_count(&p, &g, 1);
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_KEEP);
	p.nodes[1] = (struct place_node){.id = 2, .rack = "", .active = true, .alive = true};
	p.count = 2;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_RAISE);
	ck_assert_int_eq(g.count, 2);
	ck_assert_uint_eq(g.members[0], 1);
	ck_assert_int_eq(p.nodes[1].replicas, 1);
	g.wanted = 1;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_LOWER);
	ck_assert_int_eq(g.count, 1);
	ck_assert_uint_eq(g.members[0], 1); /* who leads stays */
	ck_assert_int_eq(p.nodes[1].replicas, 0);
}
END_TEST

START_TEST(who_is_not_waited_for_is_replaced_where_that_can_be)
{
	struct placement p = nodes(4, 0);
	struct place_group g = {.wanted = 3, .count = 3, .members = {1, 2, 3}, .dead = 1u};
	struct place_group h = {.wanted = 3, .count = 3, .members = {2, 3, 4}, .dead = 6u};

	placement_count(&p, &g, 1);
	placement_count(&p, &h, 1);
	p.nodes[0].alive = false;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_DEAD);
	ck_assert_int_eq(g.count, 3);
	valid(&g);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_ne(g.members[i], 1);
	ck_assert_uint_eq(g.dead, 0);
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_KEEP);
	/* Nobody else is there: it stays named, and is back when it comes back. */
	ck_assert_int_eq(placement_repair(&p, &h), PLACEMENT_KEEP);
	ck_assert_int_eq(h.count, 3);
	/* What moves to the front takes its mark along. */
	h = (struct place_group){.wanted = 3, .count = 3, .members = {1, 2, 3}, .dead = 4u};
	p.nodes[0].active = p.nodes[3].active = false;
	(void)placement_repair(&p, &h);
	for (int i = 0; i < h.count; i++)
		ck_assert_int_eq(h.dead >> i & 1, h.members[i] == 3);
}
END_TEST

START_TEST(who_drains_is_replaced)
{
	struct placement p = nodes(4, 0);
	struct place_group g = {.wanted = 3, .count = 3, .members = {1, 2, 3}};

	placement_count(&p, &g, 1);
	p.nodes[0].active = false;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_LEAVE);
	ck_assert_int_eq(g.count, 3);
	valid(&g);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_ne(g.members[i], 1);
	ck_assert_int_eq(p.nodes[0].replicas, 0);
	ck_assert_int_eq(p.nodes[0].leaders, 0);
	p.nodes[1].active = false; /* nowhere to go: fewer replicas, not none */
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_LEAVE);
	ck_assert_int_eq(g.count, 2);
	p.nodes[2].active = p.nodes[3].active = false;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_KEEP);
	ck_assert_int_eq(g.count, 2);
}
END_TEST

START_TEST(who_lost_its_data_gets_a_new_replica)
{
	struct placement p = nodes(3, 0);
	struct place_group g = {.wanted = 3, .count = 3, .members = {1, 2, 3}, .lost = 2};

	placement_count(&p, &g, 1);
	p.nodes[1].alive = false;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_KEEP); /* not while it is away */
	p.nodes[1].alive = true;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_RETURN);
	ck_assert_uint_eq(g.lost, 0);
	ck_assert_uint_eq(g.members[1], 2);
	g.lost = 4;
	p.nodes[2].active = false; /* it leaves: the mark goes with it */
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_LEAVE);
	ck_assert_uint_eq(g.lost, 0);
}
END_TEST

START_TEST(dead_nodes_are_not_fled_from)
{
	struct placement p = nodes(4, 0);
	struct place_group g = {.wanted = 3, .count = 3, .members = {1, 2, 3}};

	placement_count(&p, &g, 1);
	p.nodes[2].alive = false;
	ck_assert_int_eq(placement_repair(&p, &g), PLACEMENT_KEEP);
	p.nodes[0].alive = false;
	ck_assert_int_eq(placement_lead(&p, &g), PLACEMENT_KEEP);
}
END_TEST

/* Random worlds: repair, then leaders and balance to the end. It ends, nothing is invalid, and
 * what can be even is. */
START_TEST(plans_end_even)
{
	enum { GROUPS = 40 };
	struct place_group g[GROUPS];
	struct placement p;
	int moves = 0, replicas, leaders;
	bool again = true;

	random_seed((uint64_t)_i + 1);
	p = nodes(3 + (int)(random_u64() % 6), (int)(random_u64() % 4));
	for (int i = 0; i < GROUPS; i++) {
		g[i] = (struct place_group){.wanted = 1 + (int)(random_u64() % 3), .count = 1};
		g[i].members[0] = 1 + (uint32_t)(random_u64() % (uint64_t)p.count);
		placement_count(&p, &g[i], 1);
	}
	if (random_u64() % 2 && p.count > 3)
		p.nodes[random_u64() % (uint64_t)p.count].active = false;
	for (int i = 0; i < GROUPS; i++) {
		placement_repair(&p, &g[i]);
		valid(&g[i]);
		ck_assert_int_eq(g[i].count, g[i].wanted);
		for (int k = 0; k < g[i].count; k++)
			ck_assert(p.nodes[g[i].members[k] - 1].active);
		ck_assert_int_eq(placement_repair(&p, &g[i]), PLACEMENT_KEEP);
	}
	while (again) {
		again = false;
		for (int i = 0; i < GROUPS; i++) {
			int before = spread(&p, &g[i]);

			again |= placement_improve(&p, &g[i]) != PLACEMENT_KEEP;
			ck_assert_int_ge(spread(&p, &g[i]), before);
			valid(&g[i]);
		}
		ck_assert_int_lt(++moves, 1000);
	}
	for (again = true; again;) {
		again = false;
		for (int i = 0; i < GROUPS; i++)
			again |= placement_lead(&p, &g[i]) != PLACEMENT_KEEP;
		ck_assert_int_lt(++moves, 2000);
	}
	gap(&p, &replicas, &leaders);
	if (p.nodes[0].rack[0] == 0) /* racks may forbid it */
		ck_assert_int_le(replicas, 2);
	ck_assert_int_le(leaders, replicas + 8);
	for (int i = 0; i < p.count; i++) { /* loads are what groups say */
		int sum = 0;

		for (int k = 0; k < GROUPS; k++)
			for (int m = 0; m < g[k].count; m++)
				sum += g[k].members[m] == p.nodes[i].id;
		ck_assert_int_eq(sum, p.nodes[i].replicas);
	}
}
END_TEST

START_TEST(leaders_are_evened_out)
{
	struct placement p = nodes(3, 0);
	struct place_group g[9];
	int replicas, leaders;

	for (int i = 0; i < 9; i++) { /* as after two nodes joined the first one */
		g[i] = (struct place_group){.wanted = 3, .count = 3, .members = {1, 2, 3}};
		placement_count(&p, &g[i], 1);
	}
	for (int i = 0; i < 9; i++)
		placement_lead(&p, &g[i]);
	gap(&p, &replicas, &leaders);
	ck_assert_int_eq(leaders, 0);
	for (int i = 0; i < 9; i++) {
		valid(&g[i]);
		ck_assert_int_eq(placement_lead(&p, &g[i]), PLACEMENT_KEEP);
	}
}
END_TEST

/* A stream's leaders do not all stay where they were because others lead tables. */
START_TEST(leaders_of_partitions_and_of_tables_are_evened_out_apart)
{
	struct placement p = nodes(3, 0);
	struct place_group g[24];

	for (int i = 0; i < 24; i++) { /* 16 tables come first */
		g[i] = (struct place_group){
			.table = i < 16, .wanted = 3, .count = 3, .members = {1, 2, 3}};
		placement_count(&p, &g[i], 1);
	}
	for (int i = 0; i < 24; i++)
		placement_lead(&p, &g[i]);
	for (int i = 0; i < 3; i++) {
		const struct place_node *n = &p.nodes[i];

		ck_assert_int_ge(n->tables_led, 5);
		ck_assert_int_ge(n->leaders - n->tables_led, 2);
	}
	for (int i = 0; i < 24; i++)
		ck_assert_int_eq(placement_lead(&p, &g[i]), PLACEMENT_KEEP);
}
END_TEST

START_TEST(everyone_follows_the_catalogue_and_five_vote)
{
	struct placement p = nodes(7, 0);
	uint32_t members[PLACEMENT_NODES_MAX] = {1};
	int count = 1, voters = placement_catalog(&p, members, &count, 1);

	ck_assert_int_eq(count, 7);
	ck_assert_int_eq(voters, 5);
	ck_assert_uint_eq(members[0], 1);
	p.nodes[0].active = false; /* drains: follows on, another votes */
	voters = placement_catalog(&p, members, &count, voters);
	ck_assert_int_eq(voters, 5);
	ck_assert_int_eq(count, 7);
	ck_assert_uint_eq(members[6], 1);
	for (int i = 0; i < 7; i++)
		for (int k = 0; k < i; k++)
			ck_assert_uint_ne(members[i], members[k]);
	p.nodes[0] = p.nodes[6]; /* removed: node 1 is gone */
	p.count = 6;
	voters = placement_catalog(&p, members, &count, voters);
	ck_assert_int_eq(count, 6);
	ck_assert_int_eq(voters, 5);
	p = nodes(1, 0);
	p.nodes[0].active = false;
	members[0] = 1;
	count = 1;
	ck_assert_int_eq(placement_catalog(&p, members, &count, 1), 1); /* the last one stays */
}
END_TEST

/* Nodes came one after the other, and the first five got the votes; the later ones' racks get some
 * of them, one at a time, and then it is at rest. */
START_TEST(votes_are_spread_over_racks)
{
	static const char *const rack[] = {"a", "a", "a", "b", "b", "c", "c"};
	uint32_t members[PLACEMENT_NODES_MAX] = {1, 6, 3, 7, 2, 4, 5}, before[5];
	struct placement p = nodes(7, 0);
	struct place_group votes = {.count = 5};
	int count = 7, changes = 0;

	for (int i = 0; i < 7; i++)
		p.nodes[i].rack = rack[i];
	p.nodes[3].alive = _i != 1; /* one of rack b: the other one gets it */
	p.nodes[4].alive = _i != 2;
	for (int round = 0; round < 5; round++) {
		int kept = 0;

		memcpy(before, members, sizeof before);
		ck_assert_int_eq(placement_catalog(&p, members, &count, 5), 5);
		ck_assert_int_eq(count, 7);
		for (int i = 0; i < 5; i++)
			for (int k = 0; k < 5; k++)
				kept += before[i] == members[k];
		ck_assert_int_ge(kept, 4);
		changes += 5 - kept;
	}
	memcpy(votes.members, members, sizeof votes.members);
	valid(&votes);
	ck_assert_int_eq(spread(&p, &votes), 3);
	ck_assert_int_eq(changes, 1);
	ck_assert_uint_eq(members[0], 1); /* who leads best */
}
END_TEST

START_TEST(reasons_have_words)
{
	for (int r = PLACEMENT_KEEP; r <= PLACEMENT_LEADER; r++)
		ck_assert_int_gt((int)strlen(placement_reason_text((enum placement_reason)r)), 0);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("placement");
	Suite *s = suite_create("placement");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, new_groups_spread_over_nodes_and_racks);
	tcase_add_test(tc, new_groups_take_what_there_is);
	tcase_add_test(tc, replicas_are_raised_and_lowered);
	tcase_add_test(tc, who_is_not_waited_for_is_replaced_where_that_can_be);
	tcase_add_test(tc, who_drains_is_replaced);
	tcase_add_test(tc, who_lost_its_data_gets_a_new_replica);
	tcase_add_test(tc, dead_nodes_are_not_fled_from);
	tcase_add_loop_test(tc, plans_end_even, 0, 300);
	tcase_add_test(tc, leaders_are_evened_out);
	tcase_add_test(tc, leaders_of_partitions_and_of_tables_are_evened_out_apart);
	tcase_add_test(tc, everyone_follows_the_catalogue_and_five_vote);
	tcase_add_loop_test(tc, votes_are_spread_over_racks, 0, 3);
	tcase_add_test(tc, reasons_have_words);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
