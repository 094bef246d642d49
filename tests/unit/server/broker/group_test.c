/* The classic group on virtual time: what members are told, in every state, and that random
 * members which join, sync, leave, fall silent and come back always end up sharing one generation.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/group_priv.h"

enum { SESSION = 10000, REBALANCE = 60000 };

static const struct group_conf conf = {
	.session_ms_min = 6000,
	.session_ms_max = 1800000,
	.initial_delay_ms = 3000,
	.members_max = 20,
	.bytes_max = 1 << 20,
	.groups_max = 100,
};

static struct group g;
static bool knows_skip = true;
static int64_t now;

struct client {
	struct group_join join;
	struct group_sync sync;
	struct group_choice choices[3];
	struct group_share shares[32];
	char id[120], instance[20];
	bool joining, syncing, joined, synced;
	int32_t generation;
	bool leads;
};

static void setup(void)
{
	now = 1000000;
	group_init(&g, &conf, 0);
}

static void teardown(void)
{
	group_fini(&g, GROUP_UNAVAILABLE);
}

static struct bytes id_of(const struct client *c)
{
	return bytes_text(c->id);
}

static struct bytes instance_of(const struct client *c)
{
	return c->instance[0] ? bytes_text(c->instance) : bytes_of(NULL, 0);
}

static void on_join(struct group_join *j)
{
	struct client *c = (struct client *)(void *)((char *)j - offsetof(struct client, join));
	ck_assert(c->joining);
	c->joining = false;
	c->joined = j->err == GROUP_OK;
	if (j->err == GROUP_OK || j->err == GROUP_ID_REQUIRED)
		snprintf(c->id, sizeof c->id, "%.*s", (int)j->id.bytes.len,
			(const char *)j->id.bytes.at);
	if (j->err == GROUP_OK) {
		c->generation = j->generation;
		c->leads = bytes_equal(j->leader.bytes, j->id.bytes);
	}
}

static void on_sync(struct group_sync *s)
{
	struct client *c = (struct client *)(void *)((char *)s - offsetof(struct client, sync));
	ck_assert(c->syncing);
	c->syncing = false;
	c->synced = s->err == GROUP_OK;
}

static void join_as(struct client *c, const char *metadata, bool id_required)
{
	ck_assert(!c->joining);
	group_join_fini(&c->join);
	c->choices[0] = (struct group_choice){bytes_text("range"), bytes_text(metadata)};
	c->choices[1] = (struct group_choice){bytes_text("robin"), bytes_text(metadata)};
	c->join = (struct group_join){
		.member_id = id_of(c),
		.instance_id = instance_of(c),
		.client_id = bytes_text("app"),
		.client_host = bytes_text("10.0.0.1"),
		.protocol_type = bytes_text("consumer"),
		.protocols = c->choices,
		.protocol_count = 2,
		.session_ms = SESSION,
		.rebalance_ms = REBALANCE,
		.id_required = id_required,
		.knows_skip = knows_skip,
		.done = on_join,
	};
	c->joining = true;
	c->joined = c->synced = false;
	group_join(&g, &c->join, now);
}

static void join(struct client *c)
{
	join_as(c, "topics", false);
}

static void sync_with(struct client *c)
{
	ck_assert(!c->syncing);
	group_sync_fini(&c->sync);
	c->sync = (struct group_sync){.member_id = id_of(c),
		.instance_id = instance_of(c),
		.generation = c->generation,
		.done = on_sync};
	if (c->leads && c->join.member_count > 0) {
		for (uint32_t i = 0; i < c->join.member_count; i++)
			c->shares[i] = (struct group_share){
				c->join.members[i].id.bytes, c->join.members[i].id.bytes};
		c->sync.assignments = c->shares;
		c->sync.assignment_count = c->join.member_count;
	}
	c->syncing = true;
	group_sync(&g, &c->sync, now);
}

static void pass(int64_t ms)
{
	int64_t until = now + ms;
	for (int i = 0; i < 100000; i++) {
		int64_t next = group_tick(&g, now);
		if (next == 0 || next > until)
			break;
		now = next > now ? next : now + 1;
	}
	now = until;
	group_tick(&g, now);
}

static void client_fini(struct client *c)
{
	group_join_fini(&c->join);
	group_sync_fini(&c->sync);
}

static enum group_err beat(struct client *c)
{
	return group_heartbeat(&g, c->generation, id_of(c), instance_of(c), now);
}

/* Two members in a stable group, a leading. */
static void two(struct client *a, struct client *b)
{
	join(a);
	join(b);
	pass(3000);
	pass(3000);
	ck_assert(a->joined && b->joined);
	sync_with(b);
	ck_assert(b->syncing);
	sync_with(a);
	ck_assert(a->synced && b->synced);
	ck_assert_int_eq(g.state, GROUP_STABLE);
}

START_TEST(a_first_member_waits_for_more)
{
	struct client a = {0}, b = {0};
	join(&a);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	pass(2000);
	ck_assert(a.joining);
	join(&b); /* extends it */
	pass(2000);
	ck_assert(a.joining && b.joining);
	pass(1000);
	ck_assert(a.joined && b.joined);
	ck_assert_int_eq(a.generation, 1);
	ck_assert_int_eq(b.generation, 1);
	ck_assert(a.leads && !b.leads);
	ck_assert_uint_eq(a.join.member_count, 2);
	ck_assert_uint_eq(b.join.member_count, 0);
	ck_assert(bytes_equal(a.join.protocol.bytes, bytes_text("range")));
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(assignments_reach_everyone)
{
	struct client a = {0}, b = {0};
	two(&a, &b);
	ck_assert(bytes_equal(b.sync.assignment.bytes, id_of(&b)));
	ck_assert(bytes_equal(a.sync.assignment.bytes, id_of(&a)));
	ck_assert_int_eq(beat(&a), GROUP_OK);
	sync_with(&b); /* asked again */
	ck_assert(b.synced);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(nobody_is_assigned_before_it_is_stored)
{
	struct client a = {0};
	join(&a);
	pass(3000);
	g.storing = true; /* as if the owner's store were under way */
	sync_with(&a);
	ck_assert(a.syncing);
	group_stored(&g, a.generation - 1, true, now); /* an older one */
	ck_assert(a.syncing);
	group_stored(&g, a.generation, true, now);
	ck_assert(a.synced);
	client_fini(&a);
}
END_TEST

START_TEST(a_failed_store_rebalances)
{
	struct client a = {0};
	join(&a);
	pass(3000);
	g.storing = true;
	sync_with(&a);
	group_stored(&g, a.generation, false, now);
	ck_assert_int_eq(a.sync.err, GROUP_REBALANCING);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	client_fini(&a);
}
END_TEST

START_TEST(a_new_member_is_told_its_id_first)
{
	struct client a = {0};
	join_as(&a, "topics", true);
	ck_assert_int_eq(a.join.err, GROUP_ID_REQUIRED);
	ck_assert(a.id[0] != 0);
	ck_assert(!group_idle(&g));
	join_as(&a, "topics", true);
	ck_assert(a.joining);
	pass(3000);
	ck_assert(a.joined);
	struct client b = {0};
	join_as(&b, "topics", true);
	pass(SESSION);
	join_as(&b, "topics", true); /* too late */
	ck_assert_int_eq(b.join.err, GROUP_UNKNOWN_MEMBER);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(a_third_member_makes_the_others_join_again)
{
	struct client a = {0}, b = {0}, c = {0};
	two(&a, &b);
	join(&c);
	ck_assert_int_eq(beat(&a), GROUP_REBALANCING);
	ck_assert_int_eq(beat(&b), GROUP_REBALANCING);
	join(&a);
	ck_assert(c.joining);
	join(&b); /* the last one ends it, no timer */
	ck_assert(a.joined && b.joined && c.joined);
	ck_assert_int_eq(c.generation, 2);
	ck_assert(a.leads); /* leadership stays */
	a.generation = 1;
	ck_assert_int_eq(beat(&a), GROUP_OLD_GENERATION);
	client_fini(&a);
	client_fini(&b);
	client_fini(&c);
}
END_TEST

START_TEST(silent_members_are_dropped)
{
	struct client a = {0}, b = {0};
	two(&a, &b);
	for (int i = 0; i < 4; i++) {
		pass(3000);
		if (beat(&a) == GROUP_REBALANCING && !a.joining)
			join(&a);
	}
	ck_assert_int_eq(beat(&b), GROUP_UNKNOWN_MEMBER);
	ck_assert(a.joined);
	ck_assert_int_eq(a.generation, 2);
	ck_assert_uint_eq(group_size(&g), 1);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(who_does_not_join_again_is_dropped_at_the_deadline)
{
	struct client a = {0}, b = {0}, c = {0};
	two(&a, &b);
	join(&c);
	join(&a);
	for (int i = 0; i < 30 && a.joining; i++) { /* b lives but does not join */
		pass(2500);
		(void)beat(&b);
	}
	ck_assert(a.joined && c.joined);
	ck_assert_int_eq(beat(&b), GROUP_UNKNOWN_MEMBER);
	client_fini(&a);
	client_fini(&b);
	client_fini(&c);
}
END_TEST

START_TEST(leaving_empties_the_group)
{
	struct client a = {0}, b = {0};
	two(&a, &b);
	ck_assert_int_eq(group_leave(&g, id_of(&b), bytes_of(NULL, 0), now), GROUP_OK);
	ck_assert_int_eq(group_leave(&g, id_of(&b), bytes_of(NULL, 0), now), GROUP_UNKNOWN_MEMBER);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	ck_assert_int_eq(group_leave(&g, id_of(&a), bytes_of(NULL, 0), now), GROUP_OK);
	ck_assert_int_eq(g.state, GROUP_EMPTY);
	ck_assert(group_idle(&g));
	ck_assert_int_eq(group_tick(&g, now), 0);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(instances_keep_their_place)
{
	struct client a = {.instance = "one"}, b = {.instance = "two"};
	two(&a, &b);
	struct client again = {.instance = "two"};
	join(&again); /* restarted: a new id, the same assignment, no rebalance */
	ck_assert(again.joined);
	ck_assert_int_eq(again.generation, 1);
	ck_assert_int_eq(g.state, GROUP_STABLE);
	ck_assert_int_eq(beat(&b), GROUP_FENCED_INSTANCE);
	ck_assert_int_eq(beat(&again), GROUP_OK);
	sync_with(&again);
	ck_assert(again.synced);
	ck_assert(bytes_equal(again.sync.assignment.bytes, id_of(&b)));
	struct client leader = {.instance = "one"};
	join(&leader);
	ck_assert(leader.joined && leader.join.skip_assignment);
	struct client other = {.instance = "two"};
	join_as(&other, "other topics", false);
	ck_assert(other.joining);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	ck_assert_int_eq(group_leave(&g, bytes_text(""), bytes_text("one"), now), GROUP_OK);
	ck_assert(other.joined);
	client_fini(&a);
	client_fini(&b);
	client_fini(&again);
	client_fini(&leader);
	client_fini(&other);
}
END_TEST

static int stores;
static bool stores_wait;

static void count_store(struct group *of)
{
	stores++;
	if (stores_wait)
		return;
	if (of->storing)
		group_stored(of, of->generation, true, now);
	group_kept(of, true, now);
}

/* The new id is stored, or the next coordinator would fence who has it; and who can't be told to
 * leave assigning is not told that it leads. */
START_TEST(an_instance_that_comes_back_is_stored_under_its_new_id)
{
	struct client a = {.instance = "one"}, b = {.instance = "two"};
	g.store = count_store;
	two(&a, &b);
	int before = stores;
	struct client again = {.instance = "two"};
	join(&again);
	ck_assert(again.joined);
	ck_assert_int_eq(stores, before + 1);
	struct client *old = a.leads ? &a : &again, back = {0};
	snprintf(back.instance, sizeof back.instance, "%s", old->instance);
	knows_skip = false;
	join(&back);
	knows_skip = true;
	ck_assert(back.joined);
	ck_assert(!back.leads && !back.join.skip_assignment);
	ck_assert_uint_eq(back.join.member_count, 0);
	ck_assert(bytes_equal(back.join.leader.bytes, id_of(old)));
	ck_assert_int_eq(g.state, GROUP_STABLE);
	sync_with(&back);
	ck_assert(back.synced);
	ck_assert_uint_gt(back.sync.assignment.bytes.len, 0);
	client_fini(&a);
	client_fini(&b);
	client_fini(&again);
	client_fini(&back);
}
END_TEST

START_TEST(a_new_id_is_not_told_before_it_is_stored)
{
	struct client a = {.instance = "one"}, b = {.instance = "two"};
	g.store = count_store;
	two(&a, &b);
	struct client again = {.instance = "two"}, failed = {.instance = "two"};
	stores_wait = true;
	join(&again);
	ck_assert(!again.joined && again.joining);
	group_kept(&g, true, now);
	ck_assert(again.joined);
	ck_assert_int_eq(again.join.err, GROUP_OK);
	ck_assert_int_eq(g.state, GROUP_STABLE);
	join(&failed);
	ck_assert(failed.joining);
	group_kept(&g, false, now);
	ck_assert(!failed.joining);
	ck_assert_int_eq(failed.join.err, GROUP_UNAVAILABLE);
	stores_wait = false;
	client_fini(&a);
	client_fini(&b);
	client_fini(&again);
	client_fini(&failed);
}
END_TEST

START_TEST(who_is_back_takes_part_in_a_rebalance_that_begins_meanwhile)
{
	struct client a = {.instance = "one"}, b = {.instance = "two"};
	g.store = count_store;
	two(&a, &b);
	struct client again = {.instance = "two"}, more = {0};
	stores_wait = true;
	join(&again);
	join(&more);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	a.joined = false;
	join(&a);
	/* All have joined, but the new id is not stored. */
	ck_assert(!again.joined && !more.joined && !a.joined);
	group_kept(&g, true, now);
	ck_assert(again.joined && more.joined && a.joined);
	ck_assert_int_eq(again.join.err, GROUP_OK);
	ck_assert_int_eq(again.generation, a.generation);
	ck_assert_int_eq(g.state, GROUP_COMPLETING);
	stores_wait = false;
	client_fini(&a);
	client_fini(&b);
	client_fini(&again);
	client_fini(&more);
}
END_TEST

START_TEST(what_consumers_read_is_in_what_they_say)
{
	static const char said[] = "\0\1\0\0\0\2\0\1a\0\2bc\xff\xff\xff\xff";
	struct client a = {0};
	ck_assert(!group_consumers(&g));
	join(&a);
	pass(conf.initial_delay_ms);
	ck_assert(group_consumers(&g));
	ck_assert(group_subscribes(&g, bytes_text("x"))); /* "metadata" is no subscription */
	struct group_member *m = list_entry(g.in_order.next, struct group_member, node);
	for (size_t len = 0; len < sizeof said; len++) {
		uint8_t *exact = malloc(len + 1);
		memcpy(exact, said, len);
		for (uint32_t i = 0; i < m->protocol_count; i++) {
			slice_unref(&m->protocols[i].metadata);
			ck_assert_int_eq(
				slice_copy(bytes_of(exact, len), &m->protocols[i].metadata), OK);
		}
		bool whole = len >= 13;
		ck_assert(group_subscribes(&g, bytes_text("a")));
		ck_assert(group_subscribes(&g, bytes_text("bc")));
		ck_assert_int_eq(group_subscribes(&g, bytes_text("b")), !whole);
		ck_assert_int_eq(group_subscribes(&g, bytes_text("")), !whole);
		free(exact);
	}
	client_fini(&a);
}
END_TEST

START_TEST(refusals)
{
	struct client a = {0}, b = {0};
	two(&a, &b);
	struct client c = {0};
	c.choices[0] = (struct group_choice){bytes_text("strange"), bytes_text("x")};
	c.join = (struct group_join){.member_id = bytes_text(""),
		.protocol_type = bytes_text("consumer"),
		.protocols = c.choices,
		.protocol_count = 1,
		.session_ms = SESSION,
		.rebalance_ms = -1,
		.done = on_join};
	c.joining = true;
	group_join(&g, &c.join, now);
	ck_assert_int_eq(c.join.err, GROUP_BAD_PROTOCOL);
	c.joining = true;
	c.join.session_ms = 10;
	group_join(&g, &c.join, now);
	ck_assert_int_eq(c.join.err, GROUP_BAD_TIMEOUT);
	snprintf(c.id, sizeof c.id, "made-up");
	join(&c);
	ck_assert_int_eq(c.join.err, GROUP_UNKNOWN_MEMBER);
	c.generation = 1;
	sync_with(&c);
	ck_assert_int_eq(c.sync.err, GROUP_UNKNOWN_MEMBER);
	b.generation = 7;
	sync_with(&b);
	ck_assert_int_eq(b.sync.err, GROUP_OLD_GENERATION);
	client_fini(&a);
	client_fini(&b);
	client_fini(&c);
}
END_TEST

START_TEST(members_and_bytes_are_bounded)
{
	static struct client many[25];
	struct client fat = {0};
	char *metadata = malloc(1 << 20);
	memset(metadata, 'x', (1 << 20) - 1);
	metadata[(1 << 20) - 1] = 0;
	memset(many, 0, sizeof many);
	join_as(&fat, metadata, false);
	ck_assert_int_eq(fat.join.err, GROUP_FULL);
	for (int i = 0; i < 25; i++)
		join(&many[i]);
	for (int i = 0; i < 25; i++)
		ck_assert(many[i].joining == (i < 20));
	ck_assert_int_eq(many[24].join.err, GROUP_FULL);
	pass(REBALANCE);
	ck_assert(many[0].joined && many[19].joined);
	for (int i = 0; i < 25; i++)
		client_fini(&many[i]);
	client_fini(&fat);
	free(metadata);
}
END_TEST

/* Groups of a loop share a budget; whatever was counted is given back. */
START_TEST(groups_of_a_loop_share_a_budget)
{
	static struct client many[20], more;
	struct group_conf tight = conf;
	struct group_budget budget = {0};
	char *metadata = malloc(100001);
	memset(metadata, 'm', 100000);
	metadata[100000] = 0;
	memset(many, 0, sizeof many);
	memset(&more, 0, sizeof more);
	tight.loop_bytes_max = 1000000;
	g.conf = &tight;
	g.budget = &budget;
	for (int i = 0; i < 8; i++) /* two protocols each: over the budget from the fifth on */
		join_as(&many[i], metadata, i == 1);
	ck_assert_uint_le(budget.bytes, 1000000);
	ck_assert_int_eq(many[6].join.err, GROUP_FULL);
	join_as(&more, "small", true);
	ck_assert_int_eq(more.join.err, GROUP_ID_REQUIRED);
	ck_assert_int_eq(many[1].join.err, GROUP_ID_REQUIRED);
	pass(6000);
	for (int i = 0; i < 8; i++)
		if (many[i].joined)
			sync_with(&many[i]);
	for (int i = 0; i < 8; i++)
		if (many[i].id[0])
			ck_assert_int_eq(
				group_leave(&g, id_of(&many[i]), instance_of(&many[i]), now),
				GROUP_OK);
	ck_assert_int_eq(group_leave(&g, id_of(&more), instance_of(&more), now), GROUP_OK);
	ck_assert_uint_eq(group_size(&g), 0);
	ck_assert_uint_eq(budget.bytes, 0);
	ck_assert_uint_eq(g.bytes, 0);
	for (int i = 0; i < 8; i++)
		client_fini(&many[i]);
	client_fini(&more);
	free(metadata);
	g.conf = &conf;
	g.budget = NULL;
}
END_TEST

START_TEST(protocols_are_few)
{
	static struct group_choice choices[1000];
	struct client c = {0};
	for (int i = 0; i < 1000; i++)
		choices[i] = (struct group_choice){bytes_text("range"), bytes_text("")};
	c.join = (struct group_join){.protocol_type = bytes_text("consumer"),
		.protocols = choices,
		.protocol_count = 1000,
		.session_ms = SESSION,
		.done = on_join};
	c.joining = true;
	group_join(&g, &c.join, now);
	ck_assert_int_eq(c.join.err, GROUP_BAD_PROTOCOL);
	client_fini(&c);
}
END_TEST

START_TEST(commits_need_the_generation)
{
	struct client a = {0}, b = {0};
	struct bytes none = bytes_of(NULL, 0);
	ck_assert_int_eq(group_may_commit(&g, -1, bytes_text(""), none, now), GROUP_OK);
	ck_assert_int_eq(group_may_commit(&g, 3, bytes_text("x"), none, now), GROUP_UNKNOWN_MEMBER);
	two(&a, &b);
	ck_assert_int_eq(group_may_commit(&g, -1, bytes_text(""), none, now), GROUP_UNKNOWN_MEMBER);
	ck_assert_int_eq(group_may_commit(&g, 1, id_of(&a), none, now), GROUP_OK);
	ck_assert_int_eq(group_may_commit(&g, 0, id_of(&a), none, now), GROUP_OLD_GENERATION);
	join_as(&b, "more topics", false);
	ck_assert_int_eq(group_may_commit(&g, 1, id_of(&a), none, now), GROUP_OK);
	join(&a);
	ck_assert_int_eq(group_may_commit(&g, 2, id_of(&a), none, now), GROUP_REBALANCING);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

START_TEST(who_never_syncs_is_dropped)
{
	struct client a = {0}, b = {0};
	join(&a);
	join(&b);
	pass(6000);
	sync_with(&b); /* a leads, lives, and never assigns */
	for (int i = 0; i < 40 && b.syncing; i++) {
		pass(2500);
		(void)beat(&a);
	}
	ck_assert(!b.syncing);
	ck_assert_int_eq(b.sync.err, GROUP_REBALANCING);
	ck_assert_int_eq(beat(&a), GROUP_UNKNOWN_MEMBER);
	client_fini(&a);
	client_fini(&b);
}
END_TEST

/* Seeded: everyone does something at random, then behaves; the group must come to rest. */
static void random_step(struct client *c)
{
	switch (random_u64() % 6) {
	case 0:
		if (!c->joining && !c->syncing)
			join(c);
		break;
	case 1:
		if (!c->joining && !c->syncing && c->id[0])
			sync_with(c);
		break;
	case 2: (void)beat(c); break;
	case 3:
		if (random_u64() % 4 == 0 &&
			group_leave(&g, id_of(c), instance_of(c), now) == GROUP_OK)
			c->synced = false;
		break;
	default: pass((int64_t)(random_u64() % 4000)); break;
	}
}

static void behave(struct client *c)
{
	if (c->joining || c->syncing)
		return;
	if (!c->joined) {
		if (c->join.err == GROUP_UNKNOWN_MEMBER || c->join.err == GROUP_FENCED_INSTANCE)
			c->id[0] = 0;
		join(c);
		return;
	}
	if (!c->synced) {
		sync_with(c);
		if (!c->syncing && !c->synced)
			c->joined = false;
		return;
	}
	enum group_err e = beat(c);
	if (e != GROUP_OK)
		c->joined = false;
	if (e == GROUP_UNKNOWN_MEMBER || e == GROUP_FENCED_INSTANCE)
		c->id[0] = 0;
}

START_TEST(random_members_come_to_rest)
{
	static struct client c[6];
	memset(c, 0, sizeof c);
	random_seed((uint64_t)_i + 77);
	for (int i = 0; i < 2; i++)
		snprintf(c[i].instance, sizeof c[i].instance, "%s", i ? "one" : "two");
	for (int i = 0; i < 600; i++)
		random_step(&c[random_u64() % 6]);
	for (int round = 0; round < 400; round++) {
		for (int i = 0; i < 6; i++)
			behave(&c[i]);
		pass(500);
	}
	ck_assert_msg(g.state == GROUP_STABLE, "seed %d: %s", _i + 77, group_state_name(g.state));
	ck_assert_uint_eq(group_size(&g), 6);
	int leaders = 0;
	for (int i = 0; i < 6; i++) {
		ck_assert_int_eq(c[i].generation, g.generation);
		ck_assert(c[i].synced);
		leaders += c[i].leads;
		client_fini(&c[i]);
	}
	ck_assert_int_eq(leaders, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("group");
	TCase *tc = tcase_create("group");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_first_member_waits_for_more);
	tcase_add_test(tc, assignments_reach_everyone);
	tcase_add_test(tc, nobody_is_assigned_before_it_is_stored);
	tcase_add_test(tc, a_failed_store_rebalances);
	tcase_add_test(tc, a_new_member_is_told_its_id_first);
	tcase_add_test(tc, a_third_member_makes_the_others_join_again);
	tcase_add_test(tc, silent_members_are_dropped);
	tcase_add_test(tc, who_does_not_join_again_is_dropped_at_the_deadline);
	tcase_add_test(tc, leaving_empties_the_group);
	tcase_add_test(tc, instances_keep_their_place);
	tcase_add_test(tc, an_instance_that_comes_back_is_stored_under_its_new_id);
	tcase_add_test(tc, a_new_id_is_not_told_before_it_is_stored);
	tcase_add_test(tc, who_is_back_takes_part_in_a_rebalance_that_begins_meanwhile);
	tcase_add_test(tc, what_consumers_read_is_in_what_they_say);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, members_and_bytes_are_bounded);
	tcase_add_test(tc, groups_of_a_loop_share_a_budget);
	tcase_add_test(tc, protocols_are_few);
	tcase_add_test(tc, commits_need_the_generation);
	tcase_add_test(tc, who_never_syncs_is_dropped);
	tcase_add_loop_test(tc, random_members_come_to_rest, 0, 40);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
