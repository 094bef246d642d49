/* Questions to all nodes and all leaders: everybody is in the answer, whoever is silent as such. */
#include "server/base/mem.h"
#include "tests/unit/server/broker/world_nodes.h"

static struct world w;

static void setup(void)
{
	world_init(&w);
	world_set(&w, "stream.partitions", "200"); /* more than are asked at once */
	world_start(&w, 1);
}
static void teardown(void)
{
	world_stop(&w);
}

static struct admin_nodes *nodes;
static void nodes_done(struct admin_nodes *n)
{
	nodes = n;
	sem_post(&w.done);
}
static void nodes_run(void *arg)
{
	(void)arg;
	nodes = NULL;
	admin_nodes(world_shard(&w, 0), nodes_done, NULL);
	ck_assert_ptr_null(nodes); /* never inside */
}

static struct admin_health health;
static void health_run(void *arg)
{
	(void)arg;
	admin_health(world_shard(&w, 0), nodes, &health);
	admin_nodes_free(nodes);
	sem_post(&w.done);
}

static struct admin_look *looked;
static enum err look_err;
static void look_done(struct admin_look *l)
{
	looked = l;
	sem_post(&w.done);
}
static void look_run(void *arg)
{
	struct shard *s = world_shard(&w, 0);
	const struct catalog *c = shard_catalog(s);
	int count = *(int *)arg < 0 ? admin_group_count(c) : *(int *)arg;
	struct admin_group *all = mem_new(((size_t)count + 1) * sizeof *all);
	for (int i = 0; i < count; i++)
		ck_assert(admin_group_at(c, i, &all[i]));
	ck_assert(!admin_group_at(c, admin_group_count(c), &all[count]));
	looked = NULL;
	look_err = admin_look(s, all, count, look_done, NULL);
	mem_free(all);
	if (look_err != OK)
		sem_post(&w.done);
}
static void forget_run(void *arg)
{
	(void)arg;
	admin_look_free(looked);
	sem_post(&w.done);
}

START_TEST(a_node_alone_is_healthy)
{
	world_call(&w, 0, nodes_run, NULL);
	ck_assert_int_eq(nodes->count, 1);
	ck_assert_int_eq(admin_nodes_at(nodes, 0)->err, OK);
	ck_assert_uint_eq(admin_nodes_at(nodes, 0)->node, node_id(w.node));
	world_call(&w, 0, health_run, NULL);
	ck_assert(health.healthy);
	ck_assert_int_eq(health.groups, 1 + 1 + 200);
	ck_assert_int_eq(health.leaderless + health.under_replicated + health.silent, 0);
}
END_TEST

START_TEST(all_groups_are_looked_at)
{
	int all = -1, none = 0;
	world_call(&w, 0, look_run, &all);
	ck_assert_int_eq(look_err, OK);
	ck_assert_int_eq(looked->count, 202);
	ck_assert_str_eq(looked->of[0].group.stream, "__catalog");
	ck_assert_str_eq(looked->of[1].group.stream, "__tables");
	for (int i = 0; i < looked->count; i++) {
		const struct admin_replicas *r = &looked->of[i];
		ck_assert(r->answered);
		ck_assert(!r->moving);
		ck_assert_uint_eq(r->leader, node_id(w.node));
		ck_assert_int_eq(r->count, 1);
		ck_assert(r->members[0].votes && r->members[0].in_sync);
		ck_assert_int_eq(r->members[0].behind, 0);
	}
	world_call(&w, 0, forget_run, NULL);
	world_call(&w, 0, look_run, &none);
	ck_assert_int_eq(look_err, ERR_NOTFOUND);
}
END_TEST

START_TEST(who_is_silent_is_shown)
{
	int all = -1, moving = 0;
	world_join(&w, 11, "");
	world_join(&w, 12, "");
	world_place(&w, partition_group(world_partition(&w)), 11, 12);
	world_call(&w, 0, nodes_run, NULL);
	ck_assert_int_eq(nodes->count, 3);
	for (int i = 0; i < 3; i++) {
		const struct node_status *st = admin_nodes_at(nodes, i);
		ck_assert_int_eq(st->err == OK, st->node == node_id(w.node));
	}
	world_call(&w, 0, health_run, NULL);
	ck_assert(!health.healthy);
	ck_assert_int_eq(health.silent, 2);
	ck_assert_int_ge(health.under_replicated, 1);
	ck_assert_int_eq(health.leaderless, 0);
	world_call(&w, 0, look_run, &all);
	for (int i = 0; i < looked->count; i++)
		moving += looked->of[i].moving;
	ck_assert_int_ge(moving, 1);
	world_call(&w, 0, forget_run, NULL);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("admin_cluster");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_node_alone_is_healthy);
	tcase_add_test(tc, all_groups_are_looked_at);
	tcase_add_test(tc, who_is_silent_is_shown);
	return world_tests("admin_cluster", tc);
}
