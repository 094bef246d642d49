/* Changes of the catalogue as those see them who ask: done when they are in force here, and an
 * error in time where that does not happen. Loops and the group are pretended. */
#include <check.h>
#include <stdio.h>
#include "cluster/node_priv.h"

static struct {
	int64_t now_ms;
	struct proposal *proposal;
	int done;
} w;
static struct node n;
static struct meta_op first, second;

/* --- stand-ins --- */

int64_t loop_now_ms(const struct loop *l)
{
	(void)l;
	return w.now_ms;
}
struct loop *loop_here(void)
{
	return (struct loop *)(uintptr_t)8;
}
void loop_post(struct loop *l, struct loop_msg *m)
{
	(void)l;
	m->run(m);
}
void partition_propose(struct proposal *p)
{
	w.proposal = p;
}
static enum err never(struct eval *v, struct bytes args)
{
	(void)v;
	(void)args;
	return OK;
}
const struct proposal_kind meta_kind = {PROPOSAL_META, never};

/* --- driving it --- */

static void done(struct meta_op *op)
{
	w.done += op == &first ? 1 : 10;
}

static void decided(struct meta_op *op, enum err e, uint64_t index)
{
	*op = (struct meta_op){.kind = META_NODE_STATE, .node_id = 2, .done = done};
	node_change(&n, op);
	ck_assert_ptr_eq(w.proposal, &op->proposal);
	op->proposal.err = e;
	op->proposal.index = index;
	op->proposal.done(&op->proposal);
}

static void setup(void)
{
	memset(&w, 0, sizeof w);
	memset(&n, 0, sizeof n);
	w.now_ms = 1000;
	n.conf.id = 4;
	list_init(&n.waiting);
}

/* --- tests --- */

START_TEST(what_is_in_force_is_told_at_once)
{
	n.force_index = 7;
	decided(&first, OK, 7);
	ck_assert_int_eq(w.done, 1);
	ck_assert_int_eq(first.err, OK);
	decided(&second, ERR_CONFLICT, 0);
	ck_assert_int_eq(w.done, 11);
	ck_assert_str_eq(second.why, err_text(ERR_CONFLICT));
	ck_assert(list_empty(&n.waiting));
}
END_TEST

/* A node that hears nothing of the catalogue says so, each change in its own time. */
START_TEST(a_catalogue_that_is_behind_is_not_waited_for_for_ever)
{
	decided(&first, OK, 7);
	w.now_ms += 6000;
	decided(&second, OK, 8);
	ops_tick(&n, w.now_ms);
	ck_assert_int_eq(w.done, 0);
	w.now_ms += 4000;
	ops_tick(&n, w.now_ms);
	ck_assert_int_eq(w.done, 1);
	ck_assert_int_eq(first.err, ERR_TIMEOUT);
	ck_assert_ptr_nonnull(strstr(first.why, "made, but the catalogue of node 4 is behind"));
	w.now_ms += 6000;
	ops_tick(&n, w.now_ms);
	ck_assert_int_eq(w.done, 11);
	ck_assert_int_eq(second.err, ERR_TIMEOUT);
	ck_assert(list_empty(&n.waiting));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("node_change");
	TCase *tc = tcase_create("node_change");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, what_is_in_force_is_told_at_once);
	tcase_add_test(tc, a_catalogue_that_is_behind_is_not_waited_for_for_ever);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
