/* Evaluation that needs all that was decided before to be applied waits for it, and so do those
 * behind it: nothing is passed over, nothing is decided twice. */
#include "tests/unit/cluster/partition_world.h"

enum { KS = 9, EACH = 400 };

static struct world W;
static struct partition *P;
static _Atomic int settled, unsettled;

static void setup(void)
{
	metric_register(&node_metrics);
	ck_assert_int_eq(store_open_mem(7, &W.store), OK);
	world_start(&W);
	P = world_open(&W, 1, 5);
	loops_run(W.loops);
}

static void teardown(void)
{
	world_close(&W, P, false, false);
	world_stop(&W);
	store_close(W.store);
}

static enum err count_up(struct eval *v, struct bytes args)
{
	struct bytes value;
	uint8_t next[8];
	enum err e = eval_get(v, KS, bytes_text("counter"), &value);
	uint64_t seen = e == OK ? get_u64be(value.at) : 0;

	(void)args;
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	put_u64be(next, seen + 1);
	eval_put(v, KS, bytes_text("counter"), bytes_of(next, sizeof next));
	buf_add_u64be(eval_reply(v), seen);
	return OK;
}
static const struct proposal_kind count_kind = {60, count_up};

/* As if it read what a watcher has of the log. */
static enum err count_settled(struct eval *v, struct bytes args)
{
	enum err e = eval_settle(v);

	atomic_fetch_add(e == OK ? &settled : &unsettled, 1);
	if (e != OK)
		return e;
	return list_empty(&eval_partition(v)->inflight) ? count_up(v, args) : ERR_CORRUPT;
}
static const struct proposal_kind settled_kind = {59, count_settled};

static struct {
	struct proposal at[EACH];
	int answered;
	bool bad;
} all;

static void told(struct proposal *q)
{
	if (q->err != OK || q != &all.at[all.answered] || q->reply.bytes.len != 8 ||
		get_u64be(q->reply.bytes.at) != (uint64_t)all.answered)
		all.bad = true;
	if (++all.answered == EACH)
		sem_post(&W.done);
}

static void run(void *arg)
{
	(void)arg;
	for (int i = 0; i < EACH; i++) {
		all.at[i] = (struct proposal){.to = P,
			.kind = i % 4 == 3 ? &settled_kind : &count_kind,
			.batch_max_ms = -1,
			.done = told};
		partition_propose(&all.at[i]);
	}
}

START_TEST(who_needs_all_applied_waits_and_so_do_those_behind)
{
	world_call(&W, 0, run, NULL);
	ck_assert(!all.bad);
	ck_assert_int_eq(settled, EACH / 4);
	ck_assert_int_ge(unsettled, EACH / 4); /* what came before it was never applied yet */
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("propose_settle");
	Suite *s = suite_create("propose_settle");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, who_needs_all_applied_waits_and_so_do_those_behind);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
