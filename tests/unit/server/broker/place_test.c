/* Where partitions are said to be: by a node alone, and by one whose others cannot be reached. */
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

static struct place at;
static uint32_t nearest, ids[8];
static int id_count;
static const char *rack;
static void look_run(void *arg)
{
	struct shard *s = world_shard(&w, 0);
	const struct cluster_node *n;
	(void)arg;
	place_of(s, world_partition(&w), &at);
	nearest = place_nearest(s, world_partition(&w), bytes_text(rack));
	id_count = 0;
	for (int i = 0; place_node_next(s, &i, &n) && id_count < 8;)
		ids[id_count++] = n->id;
	ck_assert(place_reachable(s, node_id(w.node)));
	ck_assert(!place_reachable(s, 77));
	sem_post(&w.done);
}
static void look(const char *from)
{
	rack = from;
	world_call(&w, 0, look_run, NULL);
}

START_TEST(a_node_alone_has_everything)
{
	uint32_t self = node_id(w.node);
	look("anywhere");
	ck_assert(at.leads && at.here);
	ck_assert_uint_eq(at.leader, self);
	ck_assert_int_eq(at.epoch, partition_epoch(world_partition(&w)));
	ck_assert_int_eq(at.count, 1);
	ck_assert_uint_eq(at.replicas[0], self);
	ck_assert_int_eq(at.reachable_count, 1);
	ck_assert_int_eq(at.lost_count, 0);
	ck_assert_uint_eq(nearest, 0);
	ck_assert_int_eq(id_count, 1);
	ck_assert_uint_eq(ids[0], self);
}
END_TEST

START_TEST(what_cannot_be_reached_is_nobodys_nearest)
{
	uint32_t self = node_id(w.node);
	world_join(&w, 12, "east");
	world_join(&w, 11, "west");
	world_place(&w, partition_group(world_partition(&w)), 11, 12);
	look("east");
	ck_assert_uint_eq(at.leader, self);
	ck_assert_int_eq(at.count, 3);
	ck_assert_uint_eq(at.replicas[0], self); /* the preferred leader first */
	ck_assert_int_eq(at.reachable_count, 1);
	ck_assert_uint_eq(at.reachable[0], self);
	ck_assert_int_eq(at.lost_count, 2);
	ck_assert_uint_eq(at.lost[0] + at.lost[1], 23);
	ck_assert_uint_eq(nearest, 0);
	look("");
	ck_assert_uint_eq(nearest, 0);
	ck_assert_int_eq(id_count, 3);
	for (int i = 1; i < id_count; i++)
		ck_assert_uint_lt(ids[i - 1], ids[i]);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("place");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_node_alone_has_everything);
	tcase_add_test(tc, what_cannot_be_reached_is_nobodys_nearest);
	return world_tests("place", tc);
}
