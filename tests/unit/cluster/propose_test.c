/* Proposals of other nodes at one that leads, but has not had its first entry confirmed, when it is
 * told of the next leader: by that one, before Raft hears of it. */
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

int main(void)
{
	TCase *tc = tcase_create("guests");
	Suite *s = suite_create("propose");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, setup, world_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, guests_go_back_when_another_leads);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
