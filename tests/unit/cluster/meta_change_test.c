/* Changes of the catalogue, evaluated over a table of rows that stands for the group's: what they
 * write, what they refuse and with which words; and their bytes. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/unit/cluster/meta_rows.h"

/* --- what a node knows --- */

static bool group_row(const struct fake_row *r, struct meta_place *out)
{
	return r->len == 10 && r->key[0] == 'g' && meta_place_decode(r->value.bytes, out) == OK;
}

static void view_placement(void *arg, struct placement *out)
{
	*out = (struct placement){0};
	(void)arg;
	for (struct list *n = w.rows.next; n != &w.rows; n = n->next) {
		const struct fake_row *r = list_entry(n, struct fake_row, node);
		struct meta_node *node;

		if (r->len != 6 || r->key[0] != 'n')
			continue;
		ck_assert_int_eq(meta_node_decode(r->value.bytes, &node), OK);
		if (node->state != NODE_REMOVED) {
			uint32_t id = get_u32be(r->key + 2);

			out->nodes[out->count++] = (struct place_node){.id = id,
				.rack = "",
				.active = node->state == NODE_ACTIVE,
				.alive = w.alive >> id & 1};
		}
		meta_node_free(node);
	}
	for (struct list *n = w.rows.next; n != &w.rows; n = n->next) {
		struct fake_row *r = list_entry(n, struct fake_row, node);
		struct place_group g = {0};
		struct meta_place p;

		if (!group_row(r, &p) || get_u64be(r->key + 2) == META_GROUP_ID)
			continue;
		for (int i = 0; i < p.member_count; i++)
			g.members[g.count++] = (uint32_t)(p.members[i] >> 32);
		placement_count(out, &g, 1);
	}
}

static enum meta_alive view_alive(void *arg, uint32_t id)
{
	(void)arg;
	return w.unknown >> id & 1  ? META_ALIVE_UNKNOWN
		: w.alive >> id & 1 ? META_ALIVE
				    : META_SILENT;
}

static bool view_votes(void *arg, uint64_t group, uint32_t id)
{
	(void)arg;
	(void)group;
	return w.votes >> id & 1;
}

static int view_held(void *arg, uint32_t id)
{
	(void)arg;
	(void)id;
	return w.held;
}

static int view_balance(void *arg)
{
	(void)arg;
	return w.balance;
}

/* Streams, or their partitions, or settings: all is applied. */
static int64_t view_count(void *arg, const struct meta_limit *l)
{
	int64_t count = 0;

	(void)arg;
	for (struct list *n = w.rows.next; n != &w.rows; n = n->next) {
		const struct fake_row *r = list_entry(n, struct fake_row, node);
		struct meta_stream *s;

		if (r->len < 2 || r->key[1] != '/' ||
			r->key[0] != (l->of == LIMIT_SETTINGS ? 'k' : 's') ||
			!meta_limited(l, bytes_of(r->key + 2, r->len - 2)))
			continue;
		if (l->of != LIMIT_PARTITIONS) {
			count++;
			continue;
		}
		ck_assert_int_eq(meta_stream_decode(r->value.bytes, &s), OK);
		count += s->group_count;
		meta_stream_free(s);
	}
	return count;
}

/* --- asking --- */

static struct stream_setting doors[] = {{"kafka", "h:1"}, {"mqtt", "h:2"}};

static struct meta_node words_of(uint32_t id, uint8_t instance)
{
	static char name[8], address[16], rack[] = "r";
	struct meta_node n = {.id = id,
		.instance = {instance, 9},
		.name = name,
		.rack = rack,
		.address = address,
		.door_count = 2,
		.doors = doors};

	snprintf(name, sizeof name, "n%u", id % 1000);
	snprintf(address, sizeof address, "10.0.0.%u:7", id % 1000);
	return n;
}

static enum err join(uint32_t id, uint8_t instance, uint64_t *replica)
{
	struct meta_node n = words_of(id, instance);
	struct meta_request q = {.kind = META_JOIN, .node_id = id, .node = &n};
	struct meta_joined j;
	enum err e = ask(&q);

	if (e == OK) {
		ck_assert_int_eq(meta_joined_decode(buf_bytes(&w.reply), &j), OK);
		if (replica != NULL)
			*replica = j.replica;
		w.alive |= 1u << id;
	}
	return e;
}

static struct meta_place place(uint64_t group)
{
	uint8_t key[10] = "g/";
	struct meta_place p;
	struct fake_row *r;

	put_u64be(key + 2, group);
	r = row_find(bytes_of(key, 10));
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(meta_place_decode(r->value.bytes, &p), OK);
	p.group = group;
	return p;
}

static struct meta_node *node(uint32_t id)
{
	uint8_t key[6] = "n/";
	struct meta_node *n;
	struct fake_row *r;

	put_u32be(key + 2, id);
	r = row_find(bytes_of(key, 6));
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(meta_node_decode(r->value.bytes, &n), OK);
	return n;
}

static enum err found(void)
{
	struct meta_node self = words_of(1, 1);
	struct meta_founding f = {.cluster = {.id = {7},
					  .tables = 2,
					  .next_group = META_STREAM_FIRST,
					  .next_incarnation = 2},
		.node = &self};
	struct buf b;
	enum err e;

	buf_init(&b, 10000);
	meta_founding_encode(&f, &b);
	buf_clear(&w.reply);
	w.writes = 0;
	e = meta_found_kind.evaluate(&w, buf_bytes(&b));
	buf_fini(&b);
	return e;
}

static void setup(void)
{
	rows_begin();
	w.conf.retention_ms = 1000;
	w.view = (struct meta_view){.conf = &w.conf,
		.placement = view_placement,
		.alive = view_alive,
		.held = view_held,
		.votes = view_votes,
		.balance_count = view_balance,
		.count = view_count};
	w.partition.options.owner = &w.view;
	w.alive = 1u << 1;
	ck_assert_int_eq(found(), OK);
}

static void teardown(void)
{
	rows_end();
}

static enum err create(const char *name, int64_t partitions, int64_t replicas)
{
	struct meta_request q = {.kind = META_CREATE_STREAM,
		.name = (char *)(uintptr_t)name,
		.partitions = partitions,
		.replicas = replicas};

	return ask(&q);
}

static enum err set_state(uint32_t id, enum node_state s, bool force)
{
	struct meta_request q = {
		.kind = META_NODE_STATE, .node_id = id, .node_state = s, .force = force};

	return ask(&q);
}

/* --- tests --- */

START_TEST(founding_places_everything_here_once)
{
	uint64_t groups[] = {META_GROUP_ID, META_TABLE_FIRST, META_TABLE_FIRST + 1};
	struct meta_node *n = node(1);

	for (int i = 0; i < 3; i++) {
		struct meta_place p = place(groups[i]);

		ck_assert_int_eq(p.member_count, 1);
		ck_assert_uint_eq(p.members[0], 1ull << 32 | 1);
		ck_assert(meta_place_founded_by(&p, 1ull << 32 | 1));
	}
	ck_assert_int_eq(n->state, NODE_ACTIVE);
	ck_assert_int_eq(n->door_count, 2);
	meta_node_free(n);
	ck_assert_int_eq(found(), OK); /* again: nothing */
	ck_assert_int_eq(w.writes, 0);
}
END_TEST

START_TEST(who_joins_follows_the_catalogue_by_a_new_replica)
{
	uint64_t two, again, three;
	struct meta_place p;

	ck_assert_int_eq(join(2, 2, &two), OK);
	ck_assert_uint_eq(two >> 32, 2);
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.member_count, 2);
	ck_assert_int_eq(p.voter_count, 2);
	ck_assert_uint_eq(p.members[1], two);
	ck_assert_uint_eq(p.founders[0], 1ull << 32 | 1);
	ck_assert_int_eq(p.founder_count, 1);
	ck_assert_int_eq(join(3, 3, &three), OK);
	ck_assert_uint_ne((uint32_t)two, (uint32_t)three);
	ck_assert_int_eq(join(2, 2, &again), OK); /* once more is the same, and writes nothing */
	ck_assert_uint_eq(again, two);
	ck_assert_int_eq(w.writes, 0);
	for (uint32_t i = 4; i <= 7; i++)
		ck_assert_int_eq(join(i, (uint8_t)i, NULL), OK);
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.member_count, 7);
	ck_assert_int_eq(p.voter_count, CATALOG_VOTERS_MAX);
	ck_assert_int_eq(join(0, 1, NULL), ERR_MALFORMED);
}
END_TEST

/* A plan is made of what is applied; a node may have joined since. */
START_TEST(an_older_plan_leaves_nobody_out)
{
	struct meta_asked_place to = {
		.group = META_GROUP_ID, .count = 2, .voters = 1, .nodes = {2, 1}};
	struct meta_request q = {.kind = META_PLACES, .place_count = 1, .places = &to};
	uint64_t three;
	struct meta_place p;

	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(join(3, 3, &three), OK);
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_int_eq(w.writes, 0);
	q.kind = META_PLACE;
	ck_assert_int_eq(ask(&q), ERR_CONFLICT);
	ck_assert(said("node 3 follows the catalogue"));
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.member_count, 3);
	to.nodes[to.count++] = 3;
	ck_assert_int_eq(ask(&q), OK);
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.voter_count, 1);
	ck_assert_uint_eq(p.members[0] >> 32, 2);
	ck_assert_uint_eq(p.members[2], three);
}
END_TEST

START_TEST(addresses_are_refreshed)
{
	struct meta_node said_ = words_of(2, 2), *n;
	struct meta_request q = {.kind = META_JOIN, .node_id = 2, .node = &said_};
	char elsewhere[] = "10.9.9.9:1";

	ck_assert_int_eq(join(2, 2, NULL), OK);
	said_.address = elsewhere;
	said_.door_count = 1;
	ck_assert_int_eq(ask(&q), OK);
	n = node(2);
	ck_assert_str_eq(n->address, elsewhere);
	ck_assert_int_eq(n->door_count, 1);
	meta_node_free(n);
}
END_TEST

START_TEST(an_id_in_use_is_refused_a_wiped_node_comes_back_as_another)
{
	uint64_t old, back;
	struct meta_place p;
	struct meta_node *n;

	ck_assert_int_eq(join(2, 2, &old), OK);
	ck_assert_int_eq(join(2, 77, NULL), ERR_EXISTS);
	ck_assert(said("in use by a live node"));
	w.alive &= ~4u;
	w.unknown = 4;
	ck_assert_int_eq(join(2, 77, NULL), ERR_BUSY);
	w.unknown = 0;
	ck_assert_int_eq(join(2, 77, &back), OK);
	ck_assert_uint_ne(old, back);
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.member_count, 2);
	ck_assert_uint_eq(meta_place_on(&p, 2), back);
	n = node(2);
	ck_assert_uint_eq(n->incarnation_min, (uint32_t)back);
	ck_assert_uint_gt(n->incarnation_min, (uint32_t)old);
	ck_assert_uint_eq(n->instance[0], 77);
	meta_node_free(n);
}
END_TEST

START_TEST(streams_are_placed_on_the_nodes_there_are)
{
	struct meta_place a, b, c;

	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(join(3, 3, NULL), OK);
	ck_assert_int_eq(create("s", 3, 3), OK);
	a = place(1024);
	b = place(1025);
	c = place(1026);
	ck_assert_int_eq(a.member_count, 3);
	ck_assert_int_eq(a.founder_count, 3);
	ck_assert_mem_eq(a.founders, a.members, 3 * sizeof a.members[0]);
	ck_assert_uint_ne(a.members[0] >> 32, b.members[0] >> 32);
	ck_assert_uint_ne(c.members[0] >> 32, 1); /* it leads all that was there before */
	ck_assert_int_eq(create("t", 1, 2), OK);
	ck_assert_int_eq(place(1027).member_count, 2);
	ck_assert_int_eq(create("u", 1, 7), OK); /* as many as there are */
	ck_assert_int_eq(place(1028).member_count, 3);
	ck_assert_int_eq(create("v", 1, 8), ERR_INVALID);
	ck_assert(said("replicas"));
	ck_assert_int_eq(create("s", 3, 3), ERR_EXISTS);
	ck_assert_int_eq(create("many", 4096, 3), OK);
	ck_assert_int_eq(create("more", 4096, 3), OK);
	ck_assert_int_eq(create("over", 4096, 3), ERR_TOOBIG);
	ck_assert(said("on a node"));
}
END_TEST

static struct meta_limit limits[] = {
	{.of = LIMIT_STREAMS, .most = 2}, {.of = LIMIT_PARTITIONS, .most = 5}};

static enum err create_limited(const char *name, const char *prefix, int64_t partitions)
{
	struct meta_request q = {.kind = META_CREATE_STREAM,
		.name = (char *)(uintptr_t)name,
		.partitions = partitions,
		.replicas = 1,
		.limit_count = 2,
		.limits = limits};

	for (int i = 0; i < 2; i++) {
		limits[i].prefix = bytes_text(prefix);
		limits[i].what = bytes_text(i == 0 ? "streams" : "partitions");
	}
	return ask(&q);
}

START_TEST(a_tenant_has_no_more_streams_than_it_may)
{
	struct meta_request grow = {.kind = META_ADD_PARTITIONS,
		.name = (char[]){"a/s"},
		.limit_count = 1,
		.limits = limits + 1};

	ck_assert_int_eq(create_limited("a/s", "a/", 3), OK);
	ck_assert_int_eq(create_limited("a/t", "a/", 3), ERR_QUOTA);
	ck_assert(said("may have 5 partitions, and has 3"));
	ck_assert_int_eq(w.writes, 0);
	ck_assert_int_eq(create_limited("a/s", "a/", 1), ERR_EXISTS); /* what it is first of all */
	grow.partitions = 6;
	ck_assert_int_eq(ask(&grow), ERR_QUOTA);
	grow.partitions = 4;
	ck_assert_int_eq(ask(&grow), OK);
	ck_assert_int_eq(create_limited("a/t", "a/", 1), OK);
	ck_assert_int_eq(create_limited("a/u", "a/", 1), ERR_QUOTA);
	ck_assert(said("may have 2 streams, and has 2"));
	ck_assert_int_eq(create_limited("ab/u", "ab/", 1), OK); /* other tenants' */
	ck_assert_int_eq(create_limited("b/u", "b/", 1), OK);
	ck_assert_int_eq(create_limited("x", "", 1), OK); /* only what is the default one's */
	ck_assert_int_eq(create_limited("y", "", 1), OK);
	ck_assert_int_eq(create_limited("z", "", 1), ERR_QUOTA);
	w.unsettled = true; /* what there is is not known yet */
	ck_assert_int_eq(create_limited("z", "", 1), ERR_MORE);
	ck_assert_int_eq(create("z", 1, 1), OK); /* no limit: no matter */
}
END_TEST

START_TEST(a_tenant_has_no_more_settings_than_it_may)
{
	struct stream_setting two[] = {{"r.a/x", "1"}, {"r.a/y", "1"}};
	struct meta_limit l = {.of = LIMIT_SETTINGS, .prefix = bytes_text("r.a/"), .most = 1};
	struct meta_request q = {.kind = META_SET,
		.setting_count = 2,
		.settings = two,
		.limit_count = 1,
		.limits = &l};

	ck_assert_int_eq(ask(&q), ERR_QUOTA);
	ck_assert_int_eq(w.writes, 0);
	q.setting_count = 1;
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_int_eq(ask(&q), OK); /* again: it is there */
	q.setting_count = 2;
	ck_assert_int_eq(ask(&q), ERR_QUOTA);
	two[0].value = NULL; /* one for the other */
	ck_assert_int_eq(ask(&q), OK);
}
END_TEST

START_TEST(a_deleted_stream_takes_its_places_along)
{
	struct meta_request q = {.kind = META_DELETE_STREAM, .name = (char[]){"s"}};
	uint8_t key[10] = "g/";

	ck_assert_int_eq(create("s", 2, 1), OK);
	ck_assert_int_eq(ask(&q), OK);
	put_u64be(key + 2, 1025);
	ck_assert_ptr_null(row_find(bytes_of(key, 10)));
	ck_assert_int_eq(ask(&q), ERR_NOTFOUND);
	ck_assert_int_eq(create("s", 1, 1), OK);
	ck_assert_int_eq(place(1026).member_count, 1); /* another number */
}
END_TEST

START_TEST(places_change_by_nodes_and_keep_replicas)
{
	struct meta_asked_place to = {.group = 1024, .count = 2, .nodes = {2, 1}};
	struct meta_request q = {.kind = META_PLACE, .place_count = 1, .places = &to};
	struct meta_place old, p;

	ck_assert_int_eq(create("s", 1, 1), OK);
	old = place(1024);
	ck_assert_int_eq(ask(&q), ERR_NOTFOUND);
	ck_assert(said("no node 2"));
	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(ask(&q), OK);
	p = place(1024);
	ck_assert_int_eq(p.member_count, 2);
	ck_assert_int_eq(p.voter_count, 2);
	ck_assert_uint_eq(p.members[1], old.members[0]);
	ck_assert_uint_gt((uint32_t)p.members[0], (uint32_t)old.members[0]);
	ck_assert_uint_eq(p.founders[0], old.founders[0]);
	ck_assert_int_eq(p.founder_count, 1);
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_int_eq(w.writes, 0); /* it is so already */
	to.count = 1;
	ck_assert_int_eq(ask(&q), OK);
	to.count = 2;
	w.votes = 1u << 1; /* the one that was there has not gone yet */
	ck_assert_int_eq(ask(&q), ERR_CONFLICT);
	ck_assert(said("is just leaving node 1"));
	w.votes = 0;
	ck_assert_int_eq(ask(&q), OK);
	to.nodes[1] = 2;
	ck_assert_int_eq(ask(&q), ERR_INVALID);
	ck_assert(said("twice"));
	to.group = 5555;
	ck_assert_int_eq(ask(&q), ERR_NOTFOUND);
	q.kind = META_PLACES; /* among several: what is gone is left out */
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_int_eq(w.writes, 0);
}
END_TEST

START_TEST(a_replica_that_went_with_its_data_is_not_kept)
{
	struct meta_asked_place to = {.group = 1024, .count = 2, .nodes = {1, 2}};
	struct meta_request q = {.kind = META_PLACES, .place_count = 1, .places = &to};
	struct meta_place old, p;

	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(create("s", 1, 2), OK);
	old = place(1024);
	w.alive &= ~4u;
	ck_assert_int_eq(join(2, 77, NULL), OK);
	ck_assert_int_eq(ask(&q), OK);
	p = place(1024);
	ck_assert_uint_eq(meta_place_on(&p, 1), meta_place_on(&old, 1));
	ck_assert_uint_gt(meta_place_on(&p, 2), meta_place_on(&old, 2));
}
END_TEST

/* Rows are what is wanted; what is there may be something else yet. */
START_TEST(nobody_goes_who_is_counted_on)
{
	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(create("s", 2, 2), OK);
	ck_assert_int_eq(set_state(2, NODE_REMOVED, true), ERR_CONFLICT);
	ck_assert(said("lives"));
	w.unknown = 1u << 2;
	ck_assert_int_eq(set_state(2, NODE_REMOVED, true), ERR_CONFLICT);
	w.unknown = 0;
	ck_assert_int_eq(join(3, 3, NULL), OK);
	ck_assert_int_eq(set_state(3, NODE_REMOVED, true), ERR_CONFLICT);
	ck_assert_int_eq(set_state(3, NODE_REMOVED, false), ERR_CONFLICT); /* it has a vote */
	ck_assert(said("1 groups may still count on node 3"));
	ck_assert_int_eq(set_state(3, NODE_DRAINING, false), OK);
	w.alive &= ~8u; /* the catalogue lives without it */
	w.held = 5;
	ck_assert_int_eq(set_state(3, NODE_REMOVED, false), ERR_CONFLICT);
	ck_assert(said("5 groups may still count on node 3"));
	w.held = 0;
	ck_assert_int_eq(set_state(3, NODE_REMOVED, false), OK);
}
END_TEST

START_TEST(draining_and_removing)
{
	struct meta_place p;
	struct meta_node *n;

	ck_assert_int_eq(set_state(1, NODE_DRAINING, true), ERR_CONFLICT);
	ck_assert(said("last"));
	ck_assert_int_eq(set_state(9, NODE_DRAINING, false), ERR_NOTFOUND);
	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(join(3, 3, NULL), OK);
	ck_assert_int_eq(create("s", 1, 3), OK);
	w.alive &= ~8u;
	ck_assert_int_eq(set_state(2, NODE_DRAINING, false), ERR_CONFLICT);
	ck_assert(said("majority"));
	ck_assert_int_eq(set_state(2, NODE_DRAINING, true), OK);
	ck_assert_int_eq(set_state(2, NODE_ACTIVE, false), OK);
	ck_assert_int_eq(set_state(3, NODE_REMOVED, false), ERR_CONFLICT);
	ck_assert(said("drain it first"));
	ck_assert_int_eq(set_state(3, NODE_REMOVED, true), OK);
	p = place(META_GROUP_ID);
	ck_assert_int_eq(p.member_count, 2);
	ck_assert_uint_eq(meta_place_on(&p, 3), 0);
	ck_assert_int_eq(set_state(3, NODE_ACTIVE, false), ERR_NOTFOUND);
	ck_assert_int_eq(join(3, 3, NULL), ERR_DENIED);
	ck_assert(said("was removed"));
	ck_assert_int_eq(join(3, 99, NULL), OK); /* with empty data, as a new one */
	n = node(3);
	ck_assert_int_eq(n->state, NODE_ACTIVE);
	meta_node_free(n);
}
END_TEST

START_TEST(nobody_new_goes_to_who_drains)
{
	struct meta_asked_place to = {.group = 1024, .count = 1, .nodes = {2}};
	struct meta_request q = {.kind = META_PLACE, .place_count = 1, .places = &to};

	ck_assert_int_eq(join(2, 2, NULL), OK);
	ck_assert_int_eq(set_state(2, NODE_DRAINING, false), OK);
	ck_assert_int_eq(create("s", 1, 3), OK);
	ck_assert_int_eq(place(1024).member_count, 1);
	ck_assert_int_eq(ask(&q), ERR_CONFLICT);
	ck_assert(said("drained"));
	q.force = true;
	ck_assert_int_eq(ask(&q), OK);
}
END_TEST

START_TEST(balance_is_asked_for_and_ended)
{
	struct meta_request q = {.kind = META_BALANCE, .check_only = true};

	w.balance = 5;
	ck_assert_int_eq(ask(&q), OK);
	ck_assert(said("5 partitions would change"));
	ck_assert_int_eq(w.writes, 0);
	q.check_only = false;
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_ptr_nonnull(row_find(bytes_text("b")));
	q.kind = META_BALANCED;
	ck_assert_int_eq(ask(&q), OK);
	ck_assert_ptr_null(row_find(bytes_text("b")));
	q.kind = 99;
	ck_assert_int_eq(ask(&q), ERR_UNSUPPORTED);
}
END_TEST

START_TEST(a_stream_gets_other_replicas)
{
	struct meta_request q = {.kind = META_REPLICAS, .name = (char[]){"s"}, .replicas = 2};
	const struct fake_row *r;
	struct meta_stream *s;

	ck_assert_int_eq(ask(&q), ERR_NOTFOUND);
	ck_assert_int_eq(create("s", 1, 1), OK);
	ck_assert_int_eq(ask(&q), OK);
	r = row_find(bytes_text("s/s"));
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(meta_stream_decode(r != NULL ? r->value.bytes : bytes_text(""), &s), OK);
	ck_assert_uint_eq(s->replicas, 2);
	meta_stream_free(s);
	q.replicas = 0;
	ck_assert_int_eq(ask(&q), ERR_INVALID);
}
END_TEST

/* --- bytes --- */

static struct slice full_request(void)
{
	static struct stream_setting set[] = {{"a", "1"}, {"b", NULL}};
	static struct meta_asked_place places[] = {
		{.group = 7, .count = 2, .voters = 1, .nodes = {1, 2}}};
	struct meta_node n = words_of(5, 5);
	struct meta_request q = {.kind = META_JOIN,
		.force = true,
		.name = (char[]){"name"},
		.partitions = -1,
		.replicas = 3,
		.setting_count = 2,
		.settings = set,
		.node_id = 5,
		.node_state = NODE_DRAINING,
		.place_count = 1,
		.places = places,
		.node = &n};
	struct slice out;
	struct buf b;

	buf_init(&b, 1 << 20);
	meta_request_encode(&q, &b);
	out = buf_share(&b);
	buf_fini(&b);
	return out;
}

START_TEST(requests_come_back)
{
	struct slice bytes = full_request();
	struct meta_request *q;

	ck_assert_int_eq(meta_request_decode(bytes.bytes, &q), OK);
	ck_assert(q->force && !q->check_only);
	ck_assert_str_eq(q->name, "name");
	ck_assert_int_eq(q->partitions, -1);
	ck_assert_str_eq(q->settings[0].value, "1");
	ck_assert_ptr_null(q->settings[1].value);
	ck_assert_int_eq(q->places[0].voters, 1);
	ck_assert_uint_eq(q->places[0].nodes[1], 2);
	ck_assert_uint_eq(q->node->id, 5);
	ck_assert_str_eq(q->node->doors[1].value, "h:2");
	meta_request_free(q);
	slice_unref(&bytes);
}
END_TEST

START_TEST(short_and_changed_requests_are_refused_or_harmless)
{
	struct slice bytes = full_request();
	uint8_t *copy = malloc(bytes.bytes.len);
	struct meta_request *q;

	for (size_t len = 0; len < bytes.bytes.len; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, bytes.bytes.at, len);
		ck_assert_int_eq(meta_request_decode(bytes_of(exact, len), &q), ERR_MALFORMED);
		buf_clear(&w.reply);
		ck_assert_int_eq(meta_kind.evaluate(&w, bytes_of(exact, len)), ERR_MALFORMED);
		free(exact);
	}
	for (size_t i = 0; i < bytes.bytes.len; i++) {
		for (int v = 0; v < 256; v += 15) {
			memcpy(copy, bytes.bytes.at, bytes.bytes.len);
			copy[i] = (uint8_t)v;
			buf_clear(&w.reply);
			(void)meta_kind.evaluate(&w, bytes_of(copy, bytes.bytes.len));
		}
	}
	free(copy);
	slice_unref(&bytes);
}
END_TEST

START_TEST(short_and_changed_rows_are_refused)
{
	struct meta_node n = words_of(5, 5), *back;
	struct meta_place p = place(META_GROUP_ID), out;
	uint8_t copy[400];
	struct buf b;

	buf_init(&b, 4000);
	meta_node_encode(&n, &b);
	for (size_t len = 0; len < buf_len(&b); len++)
		ck_assert_int_eq(
			meta_node_decode(bytes_of(buf_bytes(&b).at, len), &back), ERR_MALFORMED);
	for (size_t i = 0; i < buf_len(&b); i++) {
		memcpy(copy, buf_bytes(&b).at, buf_len(&b));
		copy[i] ^= 0xff;
		if (meta_node_decode(bytes_of(copy, buf_len(&b)), &back) == OK)
			meta_node_free(back);
	}
	buf_clear(&b);
	meta_place_encode(&p, &b);
	for (size_t len = 0; len < buf_len(&b); len++)
		ck_assert_int_eq(
			meta_place_decode(bytes_of(buf_bytes(&b).at, len), &out), ERR_MALFORMED);
	p.voter_count = 2; /* more than there are */
	buf_clear(&b);
	meta_place_encode(&p, &b);
	ck_assert_int_eq(meta_place_decode(buf_bytes(&b), &out), ERR_MALFORMED);
	buf_fini(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("meta_change");
	Suite *s = suite_create("meta_change");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, founding_places_everything_here_once);
	tcase_add_test(tc, who_joins_follows_the_catalogue_by_a_new_replica);
	tcase_add_test(tc, an_older_plan_leaves_nobody_out);
	tcase_add_test(tc, addresses_are_refreshed);
	tcase_add_test(tc, an_id_in_use_is_refused_a_wiped_node_comes_back_as_another);
	tcase_add_test(tc, streams_are_placed_on_the_nodes_there_are);
	tcase_add_test(tc, a_tenant_has_no_more_streams_than_it_may);
	tcase_add_test(tc, a_tenant_has_no_more_settings_than_it_may);
	tcase_add_test(tc, a_deleted_stream_takes_its_places_along);
	tcase_add_test(tc, places_change_by_nodes_and_keep_replicas);
	tcase_add_test(tc, a_replica_that_went_with_its_data_is_not_kept);
	tcase_add_test(tc, nobody_goes_who_is_counted_on);
	tcase_add_test(tc, draining_and_removing);
	tcase_add_test(tc, nobody_new_goes_to_who_drains);
	tcase_add_test(tc, balance_is_asked_for_and_ended);
	tcase_add_test(tc, a_stream_gets_other_replicas);
	tcase_add_test(tc, requests_come_back);
	tcase_add_test(tc, short_and_changed_requests_are_refused_or_harmless);
	tcase_add_test(tc, short_and_changed_rows_are_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
