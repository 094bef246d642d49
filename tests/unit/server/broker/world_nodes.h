/* More nodes in a world's catalogue, for tests of what is told about clusters. They have said once
 * who they are, and are never heard of again: their processes do not exist. */
#ifndef TESTS_BROKER_WORLD_NODES_H
#define TESTS_BROKER_WORLD_NODES_H
#include "cluster/meta.h"
#include "server/broker/admin_cluster.h"
#include "tests/unit/server/broker/world.h"

struct world_meta {
	struct world *w;
	struct proposal proposal;
	struct buf args;
};
static inline void world_meta_done(struct proposal *p)
{
	sem_post(&list_entry(p, struct world_meta, proposal)->w->done);
}
static inline void world_meta_run(void *arg)
{
	struct world_meta *m = arg;
	m->proposal = (struct proposal){.to = catalog_meta(node_catalog(m->w->node, loop_here())),
		.kind = &meta_kind,
		.args = buf_bytes(&m->args),
		.done = world_meta_done};
	partition_propose(&m->proposal);
}
static inline void world_meta(struct world *w, const struct meta_request *q)
{
	struct world_meta m = {.w = w};
	buf_init(&m.args, 1 << 16);
	meta_request_encode(q, &m.args);
	world_call(w, 0, world_meta_run, &m);
	ck_assert_int_eq(m.proposal.err, OK);
	buf_fini(&m.args);
}

static inline void world_seen_run(void *arg)
{
	sem_post(&((struct world *)arg)->done);
}
/* Waits until the catalogue in force on the first loop is as wanted. */
static inline void world_until(
	struct world *w, bool (*as)(const struct catalog *c, uint64_t what), uint64_t what)
{
	bool is = false;
	for (int i = 0; i < 4000 && !is; i++) {
		world_call(w, 0, world_seen_run, w);
		is = as(node_catalog(w->node, loops_at(w->loops, 0)), what);
		if (!is)
			usleep(5000);
	}
	ck_assert(is);
}
static inline bool world_has_node(const struct catalog *c, uint64_t id)
{
	return catalog_node(c, (uint32_t)id) != NULL;
}

static inline void world_join(struct world *w, uint32_t id, const char *rack)
{
	char name[16], in[32], address[32];
	struct meta_node n = {.id = id, .instance = {(uint8_t)id, 9}, .name = name, .rack = in};
	struct meta_request q = {.kind = META_JOIN, .node_id = id, .node = &n};
	n.address = address;
	snprintf(name, sizeof name, "n%u", id);
	snprintf(in, sizeof in, "%s", rack);
	snprintf(address, sizeof address, "127.0.0.1:%u", id);
	world_meta(w, &q);
	world_until(w, world_has_node, id);
}

static inline bool world_placed(const struct catalog *c, uint64_t group)
{
	const struct group_place *g = catalog_place(c, group);
	return g != NULL && g->member_count > 1;
}
/* Copies of a group on these nodes, of which only the first exists. */
static inline void world_place(struct world *w, uint64_t group, uint32_t second, uint32_t third)
{
	struct meta_asked_place place = {.group = group, .count = 3};
	struct meta_request q = {
		.kind = META_PLACES, .force = true, .place_count = 1, .places = &place};
	place.nodes[0] = node_id(w->node);
	place.nodes[1] = second;
	place.nodes[2] = third;
	world_meta(w, &q);
	world_until(w, world_placed, group);
}

/* The first partition of the stream that is there from the beginning. */
static inline struct partition *world_partition(struct world *w)
{
	const struct catalog *c = node_catalog(w->node, loops_at(w->loops, 0));
	return catalog_stream(c, bytes_text("mqtt"))->partitions[0];
}

static inline int world_tests(const char *name, TCase *tc)
{
	Suite *suite = suite_create(name);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}

#endif
