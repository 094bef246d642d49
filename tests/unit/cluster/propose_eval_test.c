/* What a leader says that leads no more, and does not know it yet. */
#include "tests/unit/cluster/remote_world.h"

enum { KS = 20, ATTEMPTS = 10, HELD_US = 100000, ANSWER_US = 100000 };

static enum err write_row(struct eval *v, struct bytes args)
{
	eval_put(v, KS, args, args);
	return OK;
}
static const struct proposal_kind write_kind = {60, write_row};
static enum err deny(struct eval *v, struct bytes args)
{
	(void)v;
	(void)args;
	return ERR_CONFLICT;
}
static const struct proposal_kind deny_kind = {61, deny};

static void setup(void)
{
	proposal_kind_add(&write_kind);
	proposal_kind_add(&deny_kind);
	world_up(3, 8 << 20);
}

struct asked {
	struct proposal q;
	bool done;
};
static struct asked written, denied;

static struct {
	bool written, denied, decided;
} seen;

static void told(struct proposal *q)
{
	list_entry(q, struct asked, q)->done = true;
}

static void ask(struct asked *a, uint32_t node, const struct proposal_kind *kind)
{
	*a = (struct asked){.q = {.to = N.node[node].p,
				    .kind = kind,
				    .args = bytes_text("row"),
				    .batch_max_ms = -1,
				    .done = told}};
	partition_propose(&a->q);
}

static void write_run(void *arg)
{
	N.hold = *(uint32_t *)arg;
	ask(&written, N.hold, &write_kind);
	sem_post(&N.done);
}

/* Nothing that the leader sends from now on arrives. */
static void deny_run(void *arg)
{
	uint32_t leader = *(uint32_t *)arg;

	for (uint32_t i = 1; i <= NODES; i++)
		N.cut[leader][i] = N.cut[i][leader] = i != leader;
	ask(&denied, leader, &deny_kind);
	sem_post(&N.done);
}

/* When that has been decided, what had been answered before arrives. */
static void let_go_run(void *arg)
{
	if (list_empty(&N.node[*(uint32_t *)arg].p->gathered))
		let_go();
	seen.decided = N.hold == 0;
	sem_post(&N.done);
}

static void look_run(void *arg)
{
	(void)arg;
	seen.written = written.done;
	seen.denied = denied.done;
	sem_post(&N.done);
}

static void wait_for_both(void)
{
	for (int i = 0; i < 1000; i++) {
		on_loop(0, look_run, NULL);
		if (seen.written && seen.denied)
			return;
		usleep(10000);
	}
	ck_abort_msg("no answer");
}

/* One attempt; false: leadership was lost before the acknowledgements arrived. */
static bool denial_waits(void)
{
	uint32_t leader = (uint32_t)leader_wait();
	bool committed;

	on_loop(0, write_run, &leader);
	usleep(HELD_US); /* the others store it, and say so */
	on_loop(0, deny_run, &leader);
	for (seen.decided = false; !seen.decided;)
		on_loop(0, let_go_run, &leader);
	usleep(ANSWER_US);
	on_loop(0, look_run, NULL);
	committed = seen.written && written.q.err == OK;
	if (committed)
		ck_assert(!seen.denied);
	on_loop(0, connect_all, NULL);
	wait_for_both();
	ck_assert(denied.q.err == ERR_CONFLICT || denied.q.err == ERR_UNAVAILABLE);
	return committed;
}

/* An entry that was in flight is committed by what arrives late; that says nothing of who leads at
 * the time of the denial. */
START_TEST(an_entry_from_before_confirms_no_denial)
{
	bool committed = false;

	for (int i = 0; i < ATTEMPTS && !committed; i++)
		committed = denial_waits();
	ck_assert(committed);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("denial");
	Suite *s = suite_create("propose_eval");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, setup, world_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, an_entry_from_before_confirms_no_denial);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
