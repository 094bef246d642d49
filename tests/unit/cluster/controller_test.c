/* The controller and the model against groups that are pretended: their leaders' configurations
 * are lists here, changes of the catalogue become rows at once, time is a number. */
#include <check.h>
#include <stdio.h>
#include "cluster/node_priv.h"
#include "server/base/metric.h"

enum { NODES = 5, TABLES = 4, GROUPS = TABLES + 1 };

static struct world {
	int64_t now_ms;
	bool leads;
	bool up[NODES + 1];
	struct {
		uint64_t members[8];
		int count, voters;
		bool silent, in_sync[8];
	} actual[GROUPS]; /* [0]: the catalogue */
	int64_t bytes;    /* of each group's log */
	struct partition_info *asked[64];
	int asked_count, proposals, balanced, joins, asides;
	uint32_t leader; /* of the catalogue, as known here */
	int lists;       /* told to the peers; the last one: */
	int listed, any_data, removed;
	uint32_t incarnation;
	struct proposal *pending;
	char failed[160];
} w;
static struct node n;
static struct group groups[GROUPS];
static int64_t metrics[64];

/* --- stand-ins --- */

static struct partition *fake(int i)
{
	return (struct partition *)(uintptr_t)(0x1000 * (i + 1));
}
int64_t loop_now_ms(const struct loop *l)
{
	(void)l;
	return w.now_ms;
}
struct metric_cells *loop_cells(struct loop *l)
{
	(void)l;
	return NULL;
}
void metric_set(struct metric_cells *c, const struct metric_table *t, int index, int64_t value)
{
	(void)c;
	(void)t;
	metrics[index] = value;
}
bool partition_leads(const struct partition *p)
{
	return p == fake(0) && w.leads;
}
uint32_t partition_leader(const struct partition *p)
{
	ck_assert_ptr_eq(p, fake(0));
	return w.leader;
}
void partition_step_aside(struct partition *p, uint32_t to)
{
	ck_assert_ptr_eq(p, fake(0));
	ck_assert_uint_eq(to, 0);
	w.asides++;
}
void partition_ask_info(struct partition_info *i)
{
	ck_assert_int_lt(w.asked_count, 64);
	w.asked[w.asked_count++] = i;
}
void partition_propose(struct proposal *p)
{
	ck_assert_ptr_null(w.pending);
	w.pending = p;
	w.proposals++;
}
bool peer_connected(const struct peers *p, uint32_t node)
{
	(void)p;
	return w.up[node];
}
void peers_set_nodes(struct peers *p, const struct peer_node *nodes, int count)
{
	(void)p;
	w.lists++;
	w.listed = count;
	w.any_data = w.removed = 0;
	for (int i = 0; i < count; i++) {
		w.any_data += nodes[i].instance == NULL;
		w.removed += nodes[i].removed;
	}
}
bool node_alone(const struct node *x)
{
	return atomic_load(&x->alone);
}
void node_end_if_idle(struct node *x)
{
	(void)x;
}
void node_fail(struct node *x, const char *format, ...)
{
	(void)x;
	snprintf(w.failed, sizeof w.failed, "%s", format);
}
struct node_words node_line(struct bytes b)
{
	(void)b;
	return (struct node_words){"x"};
}
void catalog_stream_unref(const struct stream *s)
{
	(void)s;
}
static enum err never(struct eval *v, struct bytes args)
{
	(void)v;
	(void)args;
	return OK;
}
const struct proposal_kind meta_kind = {PROPOSAL_META, never};

/* --- rows --- */

static uint64_t group_id(int i)
{
	return i == 0 ? META_GROUP_ID : META_TABLE_FIRST + (uint64_t)i - 1;
}

static void put_place(const struct meta_place *p)
{
	uint8_t key[10] = "g/";
	struct buf b;

	put_u64be(key + 2, p->group);
	buf_init(&b, 4096);
	meta_place_encode(p, &b);
	model_row(&n, ROW_PUT, bytes_of(key, 10), buf_bytes(&b));
	buf_fini(&b);
}

static void put_node(uint32_t id, enum node_state state, const char *rack)
{
	struct meta_node row = {.id = id,
		.state = state,
		.instance = {(uint8_t)id},
		.incarnation_min = 1,
		.name = (char[]){"n"},
		.rack = (char *)(uintptr_t)rack,
		.address = (char[]){"a:1"}};
	uint8_t key[6] = "n/";
	struct buf b;

	put_u32be(key + 2, id);
	buf_init(&b, 4096);
	meta_node_encode(&row, &b);
	model_row(&n, ROW_PUT, bytes_of(key, 6), buf_bytes(&b));
	buf_fini(&b);
}

static struct meta_place *place(int i)
{
	struct model_place *p = map_get_u64(&n.places, group_id(i));

	ck_assert_ptr_nonnull(p);
	return &p->row;
}

static bool on(int i, uint32_t node)
{
	return meta_place_on(place(i), node) != 0;
}

/* --- what the world does --- */

static void answer_infos(void)
{
	for (int k = 0; k < w.asked_count; k++) {
		struct partition_info *i = w.asked[k];
		int g = 0;

		while (g < GROUPS - 1 && i->at != fake(g))
			g++;
		i->err = w.actual[g].silent ? ERR_UNAVAILABLE : OK;
		i->bytes = w.bytes;
		i->member_count = w.actual[g].silent ? 0 : w.actual[g].count;
		for (int m = 0; m < i->member_count; m++)
			i->members[m] = (struct partition_member){.replica = w.actual[g].members[m],
				.role = m < w.actual[g].voters ? MEMBER_VOTER : MEMBER_STANDBY,
				.in_sync = w.actual[g].in_sync[m]};
		i->done(i);
	}
	w.asked_count = 0;
}

/* As the catalogue's evaluation does: who stays keeps its replica. */
static void apply(const struct meta_request *q)
{
	w.incarnation++;
	for (int i = 0; i < q->place_count; i++) {
		const struct meta_asked_place *a = &q->places[i];
		struct model_place *old = map_get_u64(&n.places, a->group);
		struct meta_place p = old->row;

		p.member_count = a->count;
		p.voter_count = a->voters > 0 ? a->voters : a->count;
		for (int m = 0; m < a->count; m++) {
			uint64_t kept = meta_place_on(&old->row, a->nodes[m]);

			p.members[m] = kept != 0 && !model_lost(&n, kept)
				? kept
				: (uint64_t)a->nodes[m] << 32 | w.incarnation;
		}
		put_place(&p);
	}
}

static void decide(void)
{
	struct proposal *p = w.pending;
	struct meta_request *q;

	if (p == NULL)
		return;
	w.pending = NULL;
	ck_assert_int_eq(meta_request_decode(p->args, &q), OK);
	if (q->kind == META_PLACES)
		apply(q);
	else if (q->kind == META_BALANCED)
		n.balance_ms = 0, w.balanced++;
	else
		w.joins++;
	meta_request_free(q);
	p->err = OK;
	p->done(p);
}

/* Groups whose leaders do as the rows say. */
static void obey(int i)
{
	const struct meta_place *p = place(i);

	w.actual[i].count = p->member_count;
	w.actual[i].voters = p->voter_count;
	for (int m = 0; m < p->member_count; m++) {
		w.actual[i].members[m] = p->members[m];
		w.actual[i].in_sync[m] = p->members[m] >> 32 == 1 || w.up[p->members[m] >> 32];
	}
}

static void run(int ms, bool obedient)
{
	for (int64_t end = w.now_ms + ms; w.now_ms < end;) {
		w.now_ms += 50;
		controller_tick(n.controller, w.now_ms);
		answer_infos();
		decide();
		for (int i = 0; i < GROUPS && obedient; i++)
			obey(i);
	}
}

static void setup(void)
{
	memset(&w, 0, sizeof w);
	memset(&n, 0, sizeof n);
	memset(groups, 0, sizeof groups);
	w.now_ms = 1000;
	w.leads = true;
	w.incarnation = 10;
	n.conf.id = 1;
	n.conf.moves = 4;
	n.conf.name = "n";
	n.conf.peer_address = "a:1";
	n.identity.instance[0] = 1;
	n.peers = (struct peers *)(uintptr_t)8;
	n.meta = fake(0);
	n.founded = n.current = true;
	n.version = 1;
	n.cluster.tables = TABLES;
	n.controller = controller_new(&n);
	for (uint32_t id = 1; id <= 3; id++) {
		put_node(id, NODE_ACTIVE, "");
		w.up[id] = true;
	}
	for (int i = 0; i < GROUPS; i++) {
		struct meta_place p = {.group = group_id(i),
			.founder_count = 1,
			.founders = {1ull << 32 | 1},
			.member_count = 1,
			.voter_count = 1,
			.members = {1ull << 32 | 1}};

		groups[i] = (struct group){.id = p.group,
			.partition = fake(i),
			.node = &n,
			.ready = true,
			.wanted = true};
		(void)map_put_u64(&n.groups, p.group, &groups[i]);
		put_place(&p);
		obey(i);
	}
}

static void teardown(void)
{
	answer_infos();
	decide();
	ck_assert(controller_idle(n.controller));
	controller_free(n.controller);
	map_fini(&n.groups);
	model_free(&n);
}

/* --- tests --- */

START_TEST(replicas_are_raised_as_nodes_come)
{
	run(3000, true);
	for (int i = 0; i < GROUPS; i++)
		ck_assert_int_eq(place(i)->member_count, 3);
	ck_assert_int_eq(metrics[M_UNDER_REPLICATED], 0);
	ck_assert_int_eq(metrics[M_MOVES], 0);
	int before = w.proposals;
	run(30000, true); /* and then all is quiet */
	ck_assert_int_eq(w.proposals, before);
}
END_TEST

START_TEST(only_the_leader_plans)
{
	w.leads = false;
	run(3000, true);
	ck_assert_int_eq(w.proposals, 0);
	ck_assert_int_eq(metrics[M_GROUPS], 0);
}
END_TEST

/* Sixteen without much data count as one with much. */
START_TEST(so_many_move_at_a_time)
{
	bool large = _i == 0;
	n.conf.moves = 1;
	w.bytes = large ? 1 << 20 : 1000;
	run(2000, false); /* nothing that was asked for comes to be */
	int moved = 0;
	for (int i = 1; i < GROUPS; i++)
		moved += place(i)->member_count > 1;
	ck_assert_int_eq(moved, large ? 1 : TABLES);
	run(10000, true);
	for (int i = 1; i < GROUPS; i++)
		ck_assert_int_eq(place(i)->member_count, 3);
}
END_TEST

START_TEST(who_drains_loses_everything)
{
	put_node(4, NODE_ACTIVE, "");
	w.up[4] = true;
	run(5000, true);
	put_node(2, NODE_DRAINING, "");
	run(5000, true);
	for (int i = 1; i < GROUPS; i++) {
		ck_assert(!on(i, 2));
		ck_assert_int_eq(place(i)->member_count, 3);
	}
	ck_assert_int_eq(model_held(&n, 2), 0); /* nor does the catalogue need its vote */
	ck_assert(on(0, 2));
}
END_TEST

/* A group counts on who is in its leader's configuration, whatever its row says. */
START_TEST(what_is_held_is_what_leaders_say)
{
	run(5000, true);
	ck_assert_int_eq(model_held(&n, 2), GROUPS);
	put_node(4, NODE_ACTIVE, "");
	w.up[4] = true;
	run(1000, true);
	put_node(2, NODE_DRAINING, "");
	run(5000, false); /* rows change, leaders do not get there */
	for (int i = 1; i < GROUPS; i++)
		ck_assert(!on(i, 2));
	ck_assert_int_ge(model_held(&n, 2), TABLES);
	run(5000, true);
	ck_assert_int_eq(model_held(&n, 2), 0);
	w.actual[2].silent = true; /* an election tells nothing new */
	run(20000, false);
	ck_assert_int_eq(model_held(&n, 2), 0);
	ck_assert_int_eq(metrics[M_LEADERLESS], 1);
}
END_TEST

/* It dies before it has caught up: planned anew, but not at once. */
START_TEST(a_move_to_a_node_that_dies_goes_elsewhere)
{
	run(5000, true);
	put_node(4, NODE_ACTIVE, "");
	put_node(5, NODE_ACTIVE, "");
	w.up[4] = true;
	run(1000, true);
	put_node(2, NODE_DRAINING, "");
	run(1000, false);
	for (int i = 1; i < GROUPS; i++)
		ck_assert(!on(i, 2) && !on(i, 5));
	w.up[4] = false;
	run(20000, false);
	for (int i = 1; i < GROUPS; i++)
		ck_assert(on(i, 4)); /* it may only have been restarted */
	w.up[5] = true;
	run(30000, false);
	for (int i = 1; i < GROUPS; i++) {
		ck_assert(!on(i, 4) && on(i, 5));
		ck_assert_int_eq(place(i)->member_count, 3);
	}
}
END_TEST

START_TEST(who_stays_away_is_replaced_if_asked_for)
{
	put_node(4, NODE_ACTIVE, "");
	w.up[4] = true;
	n.conf.replace_after_ms = _i == 0 ? 0 : 60000;
	run(5000, true);
	w.up[2] = false;
	run(55000, true);
	int on_2 = 0;
	for (int i = 1; i < GROUPS; i++)
		on_2 += on(i, 2);
	ck_assert_int_gt(on_2, 0);
	run(20000, true);
	for (int i = 1; i < GROUPS; i++) {
		if (_i == 1)
			ck_assert(!on(i, 2));
		ck_assert_int_eq(place(i)->member_count, 3);
	}
	if (_i == 1)
		return;
	int still = 0;
	for (int i = 1; i < GROUPS; i++)
		still += on(i, 2);
	ck_assert_int_eq(still, on_2);
}
END_TEST

START_TEST(balance_ends)
{
	run(5000, true);
	for (uint32_t id = 4; id <= 5; id++) {
		put_node(id, NODE_ACTIVE, "");
		w.up[id] = true;
	}
	run(5000, true);
	for (int i = 1; i < GROUPS; i++)
		ck_assert(!on(i, 4) && !on(i, 5)); /* nothing moves for evenness alone */
	n.balance_ms = 5;
	ck_assert_int_gt(controller_balance_count(&n), 0);
	run(20000, true);
	ck_assert_int_eq(w.balanced, 1);
	int count[NODES + 1] = {0};
	for (int i = 1; i < GROUPS; i++)
		for (uint32_t id = 1; id <= NODES; id++)
			count[id] += on(i, id);
	for (uint32_t id = 1; id <= NODES; id++)
		ck_assert(count[id] == 2 || count[id] == 3);
}
END_TEST

START_TEST(addresses_are_told_and_removal_is_the_end)
{
	struct model_node *m = map_get_u64(&n.nodes, 1);

	run(2000, true);
	ck_assert_int_eq(w.joins, 0);
	n.conf.peer_address = "b:2";
	for (int i = 0; i < 3; i++) {
		controller_tick(n.controller, w.now_ms += 1100);
		answer_infos();
		if (n.telling_busy)
			break;
	}
	ck_assert(n.telling_busy);
	decide();
	ck_assert_int_eq(w.joins, 1);
	n.conf.peer_address = "a:1";
	m->row->state = NODE_REMOVED;
	m->row->instance[0] = 99; /* of data before this one: not meant */
	run(2000, false);
	ck_assert_str_eq(w.failed, "");
	m->row->instance[0] = 1;
	run(2000, false);
	ck_assert_ptr_nonnull(strstr(w.failed, "was removed"));
}
END_TEST

START_TEST(rows_that_cannot_be_read_change_nothing)
{
	uint32_t nodes = n.nodes.count, places = n.places.count;

	for (const char *const *k = (const char *const[]){"g/12345678", "n/1234", "s/x", "c", "q/",
		     "", "g/1", "n/1", NULL};
		*k != NULL; k++)
		model_row(&n, ROW_PUT, bytes_text(*k), bytes_text("\xff\xff"));
	ck_assert_uint_eq(n.nodes.count, nodes);
	ck_assert_uint_eq(n.places.count, places);
	model_row(&n, ROW_PUT, bytes_text("k/key"), bytes_text("v"));
	ck_assert_uint_eq(n.settings.count, 1);
	model_row(&n, ROW_DELETE, bytes_text("k/key"), bytes_text(""));
	ck_assert_uint_eq(n.settings.count, 0);
	model_forget(&n);
	ck_assert_uint_eq(n.places.count, 0);
	ck_assert_uint_eq(n.nodes.count, nodes); /* read anew over the old ones */
}
END_TEST

START_TEST(who_is_alive)
{
	run(1000, true);
	ck_assert_int_eq(model_alive(&n, 1), META_ALIVE);
	ck_assert_int_eq(model_alive(&n, 2), META_ALIVE);
	ck_assert_int_eq(model_alive(&n, 77), META_SILENT);
	w.up[2] = false;
	controller_peer_changed(&n, 2, false);
	ck_assert_int_eq(model_alive(&n, 2), META_ALIVE_UNKNOWN);
	ck_assert_int_eq(model_silent_ms(&n, 2), 0);
	w.now_ms += 4000;
	ck_assert_int_eq(model_alive(&n, 2), META_SILENT);
	ck_assert_int_eq(model_silent_ms(&n, 2), 4000);
	ck_assert_int_eq(model_silent_ms(&n, 1), 0);
}
END_TEST

/* A node that still knows this one by data that is lost can't be told so by this one. */
START_TEST(who_is_refused_for_its_new_data_leads_no_more)
{
	run(1000, true);
	n.identity.instance[0] = 1; /* as the row says */
	w.leads = false;
	controller_other_data(n.controller, 2);
	ck_assert_int_eq(w.asides, 0);
	w.leads = true;
	controller_other_data(n.controller, 77); /* nobody */
	ck_assert_int_eq(w.asides, 0);
	controller_other_data(n.controller, 2);
	ck_assert_int_eq(w.asides, 1);
	controller_other_data(n.controller, 3); /* not again and again */
	ck_assert_int_eq(w.asides, 1);
	w.now_ms += 6000;
	controller_other_data(n.controller, 3);
	ck_assert_int_eq(w.asides, 2);
	w.now_ms += 6000;
	n.identity.instance[0] = 9; /* this data is the old one */
	controller_other_data(n.controller, 3);
	put_node(3, NODE_REMOVED, "");
	n.identity.instance[0] = 1;
	controller_other_data(n.controller, 3);
	ck_assert_int_eq(w.asides, 2);
}
END_TEST

/* A list may be so old that it keeps out the vote that a leader needs: without one for long, data
 * says nothing, until somebody who is led knows better. */
START_TEST(without_a_leader_the_list_is_doubted)
{
	put_node(5, NODE_REMOVED, "");
	n.led_ms = w.now_ms;
	w.leader = 2;
	model_set_peers(&n);
	ck_assert_int_eq(w.listed, 3);
	ck_assert_int_eq(w.any_data, 0);
	ck_assert_int_eq(w.removed, 1);
	w.lists = 0;
	w.now_ms += 60000;
	model_doubt_peers(&n, w.now_ms);
	w.leader = 0; /* an election */
	w.now_ms += 4000;
	model_doubt_peers(&n, w.now_ms);
	w.leader = 3;
	w.now_ms += 2000;
	model_doubt_peers(&n, w.now_ms);
	ck_assert_int_eq(w.lists, 0);
	ck_assert(n.current);
	w.leader = 0;
	for (int i = 0; i < 7; i++, w.now_ms += 1000)
		model_doubt_peers(&n, w.now_ms);
	ck_assert_int_eq(w.lists, 1); /* told once */
	ck_assert_int_eq(w.listed, 3);
	ck_assert_int_eq(w.any_data, 3);
	ck_assert_int_eq(w.removed, 0);
	ck_assert(!n.current); /* a leader is asked how far it is */
	w.leader = 3;
	model_doubt_peers(&n, w.now_ms);
	ck_assert_int_eq(w.lists, 1); /* its list is not here yet */
	ck_assert(n.doubted);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("controller");
	TCase *tc = tcase_create("controller");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, replicas_are_raised_as_nodes_come);
	tcase_add_test(tc, only_the_leader_plans);
	tcase_add_loop_test(tc, so_many_move_at_a_time, 0, 2);
	tcase_add_test(tc, who_drains_loses_everything);
	tcase_add_test(tc, what_is_held_is_what_leaders_say);
	tcase_add_test(tc, a_move_to_a_node_that_dies_goes_elsewhere);
	tcase_add_loop_test(tc, who_stays_away_is_replaced_if_asked_for, 0, 2);
	tcase_add_test(tc, balance_ends);
	tcase_add_test(tc, addresses_are_told_and_removal_is_the_end);
	tcase_add_test(tc, rows_that_cannot_be_read_change_nothing);
	tcase_add_test(tc, who_is_alive);
	tcase_add_test(tc, who_is_refused_for_its_new_data_leads_no_more);
	tcase_add_test(tc, without_a_leader_the_list_is_doubted);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
