/* Proposals of other nodes at one that leads, but has not had its first entry confirmed, when it is
 * told of the next leader: by that one, before Raft hears of it. And what a leader is asked while
 * it hands leadership over, which comes to nothing: what Raft has refused meanwhile. And what waits
 * for its disk. */
#include <raft.h>
#include "tests/unit/cluster/remote_world.h"

enum { KS = 20, ATTEMPTS = 20, POLLS = 40, POLL_US = 10000 };

static enum err write_row(struct eval *v, struct bytes args)
{
	eval_put(v, KS, args, args);
	return OK;
}
static const struct proposal_kind write_kind = {60, write_row};

static void setup(void)
{
	proposal_kind_add(&write_kind);
	world_up(3, 8 << 20);
}

static struct {
	struct proposal q;
	bool done;
} asked;
static uint32_t next_leader, guest_of;
static bool leads_unready, arrived, ended;

static void told(struct proposal *q)
{
	(void)q;
	asked.done = true;
}

static struct partition *part(uint32_t node)
{
	return N.node[node].p;
}

/* Leadership goes to next_leader, which gets votes, but no acknowledgements. */
static void transfer_run(void *arg)
{
	N.hold = next_leader;
	N.hold_kind = RAFT_IO_APPEND_ENTRIES_RESULT;
	partition_step_aside(part(*(uint32_t *)arg), next_leader);
	sem_post(&N.done);
}

static void look_run(void *arg)
{
	struct partition *p = part(next_leader);

	(void)arg;
	leads_unready = consensus_role(p->consensus) == ROLE_LEADER &&
		!consensus_ready(p->consensus) && partition_leader(part(guest_of)) == next_leader &&
		part(guest_of)->leader_term == p->term;
	arrived = !list_empty(&p->gathered);
	ended = asked.done;
	sem_post(&N.done);
}

static void ask_run(void *arg)
{
	(void)arg;
	asked.done = false;
	asked.q = (struct proposal){.to = part(guest_of),
		.kind = &write_kind,
		.args = bytes_text("row"),
		.batch_max_ms = -1,
		.repeatable = true,
		.done = told};
	partition_propose(&asked.q);
	sem_post(&N.done);
}

/* What is waited for after the leader's word must still be so. */
static void heard_run(void *arg)
{
	struct partition *p = part(next_leader);
	bool *counts = arg;

	*counts = !list_empty(&p->gathered) && consensus_role(p->consensus) == ROLE_LEADER &&
		!consensus_ready(p->consensus);
	partition_heard(p, guest_of, p->term + 1);
	sem_post(&N.done);
}

static void free_run(void *arg)
{
	(void)arg;
	N.hold_kind = 0;
	let_go();
	sem_post(&N.done);
}

static bool wait_until(const bool *what)
{
	for (int i = 0; i < POLLS; i++) {
		on_loop(0, look_run, NULL);
		if (*what)
			return true;
		usleep(POLL_US);
	}
	return false;
}

/* False: another leads already; it has to be tried again. */
static bool attempt(void)
{
	uint32_t leader = (uint32_t)leader_wait();
	bool counts = false;

	next_leader = leader % 3 + 1;
	guest_of = next_leader % 3 + 1;
	on_loop(0, transfer_run, &leader);
	if (wait_until(&leads_unready)) {
		on_loop(0, ask_run, NULL);
		(void)wait_until(&arrived);
		on_loop(0, heard_run, &counts);
		usleep(POLL_US);
		on_loop(0, look_run, NULL);
		if (counts)
			ck_assert(!arrived);
		on_loop(0, free_run, NULL);
		while (!wait_until(&ended))
			;
		ck_assert(asked.q.err == OK || asked.q.err == ERR_UNAVAILABLE);
	}
	on_loop(0, free_run, NULL);
	return counts;
}

START_TEST(guests_go_back_when_another_leads)
{
	bool counts = false;

	for (int i = 0; i < ATTEMPTS && !counts; i++)
		counts = attempt();
	ck_assert(counts);
}
END_TEST

/* --- what Raft refuses while leadership is handed over --- */

/* The answer says how many came before. */
static enum err count_up(struct eval *v, struct bytes args)
{
	struct bytes found;
	uint8_t next[8];
	enum err e = eval_get(v, KS, bytes_text("count"), &found);
	uint64_t before = e == OK ? get_u64be(found.at) : 0;

	(void)args;
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	put_u64be(next, before + 1);
	eval_put(v, KS, bytes_text("count"), bytes_of(next, sizeof next));
	buf_add_u64be(eval_reply(v), before);
	return OK;
}
static const struct proposal_kind count_kind = {61, count_up};

enum { COUNTS = 3 };

static struct counted {
	struct proposal q;
	bool done;
	uint64_t before;
} counts[COUNTS];
static bool all_counted, is_in_flight, is_refused, led_all_along;

static void counted(struct proposal *q)
{
	struct counted *c = list_entry(q, struct counted, q);

	if (q->err == OK)
		c->before = get_u64be(q->reply.bytes.at);
	c->done = true;
}

static void count(uint32_t node, int at)
{
	counts[at] = (struct counted){.q = {.to = part(node),
					      .kind = &count_kind,
					      .batch_max_ms = -1,
					      .repeatable = true,
					      .done = counted}};
	partition_propose(&counts[at].q);
}

static void cut(uint32_t a, uint32_t b)
{
	N.cut[a][b] = N.cut[b][a] = true;
}

/* The next one hears nothing of the first entry: it can't be handed over to. */
static void first_run(void *arg)
{
	uint32_t leader = *(uint32_t *)arg;

	next_leader = leader % 3 + 1;
	guest_of = next_leader % 3 + 1;
	cut(leader, next_leader);
	count(leader, 0);
	sem_post(&N.done);
}

static void first_alone_run(void *arg)
{
	cut(*(uint32_t *)arg, *(uint32_t *)arg % 3 + 1);
	cut(*(uint32_t *)arg, (*(uint32_t *)arg + 1) % 3 + 1);
	first_run(arg);
}

/* In a turn after the first one's. */
static void second_run(void *arg)
{
	uint32_t leader = *(uint32_t *)arg;
	struct partition *p = part(leader);

	is_in_flight = !list_empty(&p->inflight);
	is_refused = consensus_transfer(p->consensus, replica_of((int)next_leader)) == OK;
	count(leader, 1);
	sem_post(&N.done);
}

static void third_run(void *arg)
{
	count(*(uint32_t *)arg, 2);
	sem_post(&N.done);
}

static void counted_run(void *arg)
{
	all_counted = true;
	for (int i = 0; i < *(int *)arg; i++)
		all_counted = all_counted && counts[i].done;
	sem_post(&N.done);
}

static void wait_counted(int of)
{
	for (int i = 0; i < 500; i++) {
		on_loop(0, counted_run, &of);
		if (all_counted)
			return;
		usleep(POLL_US);
	}
	ck_abort_msg("no answer");
}

static void setup_counts(void)
{
	proposal_kind_add(&count_kind);
	world_up(3, 8 << 20);
}

/* Leadership stays, and nobody asks for anything more. */
START_TEST(what_was_refused_meanwhile_is_tried_again)
{
	uint32_t leader = (uint32_t)leader_wait();

	for (int i = 0; i < ATTEMPTS && !led_all_along; i++) {
		uint64_t term;

		leader = (uint32_t)leader_wait();
		term = part(leader)->term;
		on_loop(0, first_run, &leader);
		on_loop(0, second_run, &leader);
		wait_counted(2);
		led_all_along = is_refused && part(leader)->term == term;
		if (led_all_along) {
			ck_assert_int_eq(counts[0].q.err, OK);
			ck_assert_int_eq(counts[1].q.err, OK);
			ck_assert_uint_eq(counts[1].before, counts[0].before + 1);
		}
		on_loop(0, connect_all, NULL);
	}
	ck_assert(led_all_along);
}
END_TEST

/* Leadership is lost, and what was in flight with it: all is decided by the next one, in order. */
START_TEST(what_was_refused_stays_behind_what_was_in_flight)
{
	bool lost = false;

	for (int i = 0; i < ATTEMPTS && !lost; i++) {
		uint32_t leader = (uint32_t)leader_wait();

		on_loop(0, first_alone_run, &leader);
		on_loop(0, second_run, &leader);
		lost = is_in_flight && is_refused;
		on_loop(0, third_run, &leader);
		for (int n = 0; n < 1000 && (leader_now() == 0 || leader_now() == (int)leader); n++)
			usleep(POLL_US);
		on_loop(0, connect_all, NULL);
		wait_counted(COUNTS);
		for (int n = 0; n < COUNTS; n++)
			lost = lost && counts[n].q.err == OK;
		if (!lost)
			continue;
		ck_assert_uint_eq(counts[1].before, counts[0].before + 1);
		ck_assert_uint_eq(counts[2].before, counts[1].before + 1);
	}
	ck_assert(lost);
}
END_TEST

enum { HANGING = 3 };
static struct proposal hanging[HANGING];
static _Atomic int told_hanging;
static int hanging_asked;

static void hanging_told(struct proposal *q)
{
	(void)q;
	atomic_fetch_add(&told_hanging, 1);
}

static void hanging_run(void *arg)
{
	uint32_t leader = *(uint32_t *)arg;
	struct proposal *q = &hanging[hanging_asked++];

	*q = (struct proposal){.to = part(leader),
		.kind = &write_kind,
		.args = bytes_text("row"),
		.batch_max_ms = -1,
		.leader_only = true,
		.done = hanging_told};
	partition_propose(q);
	sem_post(&N.done);
}

/* The first is in flight, the others wait for the disk. It still hangs when another leads: they are
 * told so, instead of when it takes bytes again. */
START_TEST(who_waits_for_a_disk_that_hangs_is_told_who_leads)
{
	uint32_t leader = (uint32_t)leader_wait();

	atomic_store(&N.hung, (int)leader);
	for (int i = 0; i < HANGING; i++) {
		on_loop(0, hanging_run, &leader);
		usleep(50000);
	}
	ck_assert_int_eq(told_hanging, 0);
	on_loop(0, isolate_run, &leader);
	for (int n = 0; n < 1000 && (leader_now() == 0 || leader_now() == (int)leader); n++)
		usleep(POLL_US);
	on_loop(0, connect_all, NULL);
	for (int n = 0; n < 500 && told_hanging < HANGING; n++)
		usleep(POLL_US);
	ck_assert_int_eq(told_hanging, HANGING);
	ck_assert_int_eq(hanging[0].err, ERR_UNKNOWN);
	for (int i = 1; i < HANGING; i++)
		ck_assert_int_eq(hanging[i].err, ERR_NOTLEADER);
	atomic_store(&N.hung, 0);
	leader_wait();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("guests"), *handed = tcase_create("handed over");
	Suite *s = suite_create("propose");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, setup, world_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, guests_go_back_when_another_leads);
	tcase_add_test(tc, who_waits_for_a_disk_that_hangs_is_told_who_leads);
	suite_add_tcase(s, handed);
	tcase_add_checked_fixture(handed, setup_counts, world_down);
	tcase_set_timeout(handed, 120);
	tcase_add_test(handed, what_was_refused_meanwhile_is_tried_again);
	tcase_add_test(handed, what_was_refused_stays_behind_what_was_in_flight);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
