/* What is said to move when nodes change: nothing goes to a node that does not answer, and what
 * nobody can take is said to be short. */
#include "tests/unit/server/broker/world_nodes.h"

static struct world w;

static void setup(void)
{
	world_init(&w);
	world_start(&w, 1);
}
static void teardown(void)
{
	world_stop(&w);
}

struct asked {
	enum admin_plan_kind kind;
	uint32_t node;
	enum err err;
	struct admin_plan plan;
};
static void plan_run(void *arg)
{
	struct asked *a = arg;
	a->err = admin_plan(world_shard(&w, 0), a->kind, a->node, &a->plan);
	sem_post(&w.done);
}
static struct asked ask(enum admin_plan_kind kind, uint32_t node)
{
	struct asked a = {.kind = kind, .node = node};
	world_call(&w, 0, plan_run, &a);
	return a;
}

START_TEST(a_node_alone_has_nowhere_to_go)
{
	struct asked a = ask(ADMIN_PLAN_DRAIN, 77);
	ck_assert_int_eq(a.err, ERR_NOTFOUND);
	a = ask(ADMIN_PLAN_BALANCE, 0);
	ck_assert_int_eq(a.err, OK);
	ck_assert_int_eq(a.plan.count, 0);
	ck_assert_int_eq(a.plan.short_of, 0);
	admin_plan_free(&a.plan);
	a = ask(ADMIN_PLAN_DRAIN, node_id(w.node));
	ck_assert_int_eq(a.err, OK);
	for (int i = 0; i < a.plan.count; i++)
		ck_assert_int_eq(a.plan.moves[i].after_count, 0);
	admin_plan_free(&a.plan);
	ck_assert_ptr_null(a.plan.moves);
}
END_TEST

START_TEST(what_leaves_a_silent_node_is_named)
{
	uint64_t group = partition_group(world_partition(&w));
	bool found = false;
	world_join(&w, 11, "");
	world_join(&w, 12, "");
	world_place(&w, group, 11, 12);
	struct asked a = ask(ADMIN_PLAN_DRAIN, 12);
	ck_assert_int_eq(a.err, OK);
	for (int i = 0; i < a.plan.count; i++) {
		const struct admin_move *m = &a.plan.moves[i];
		ck_assert_ptr_nonnull(m->reason);
		for (int n = 0; n < m->after_count; n++)
			ck_assert_uint_ne(m->after[n], 12);
		if (partition_group(m->group.partition) != group)
			continue;
		found = true;
		ck_assert_int_eq(m->before_count, 3);
		ck_assert_uint_eq(m->before[0], node_id(w.node));
		ck_assert_int_eq(m->after_count, 2);
	}
	ck_assert(found);
	ck_assert_int_ge(a.plan.short_of, 1);
	admin_plan_free(&a.plan);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("admin_plan");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_node_alone_has_nowhere_to_go);
	tcase_add_test(tc, what_leaves_a_silent_node_is_named);
	return world_tests("admin_plan", tc);
}
