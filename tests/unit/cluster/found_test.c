/* How a node finds its cluster, with seeds, calls and the rest of the node pretended: what it asks,
 * what it makes of each answer, and that it is idle afterwards, or the node would never end. */
#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include "cluster/node_priv.h"

enum { SEEDS = 3 };

struct answer { /* of a seed */
	enum err err;
	uint32_t node;
	uint8_t instance, cluster; /* first byte; cluster 0: none */
	int circle;                /* 0: as this node's, -1: not known yet, else another */
};

static struct world {
	int64_t now_ms;
	struct answer answers[SEEDS];
	struct peer_probe *probes[SEEDS];
	int probe_count, probed;
	struct peer_call *call;
	bool connected;
	uint8_t circle;
	int circles, lists;
	uint32_t dialled, dialled_too, found_node;
	uint32_t named; /* by the catalogue here */
	int found_count;
	uint64_t attached;
	bool founds;
	int attaches, writes;
	enum err write_err;
	struct proposal *proposal;
	struct peer_request *answered;
	enum err answer_err;
	size_t answer_bytes;
	char failed[200], why[200];
	const char *their_name;
	peer_server on_join;
	void *join_arg;
} w;
static struct node n;

/* --- stand-ins --- */

int64_t loop_now_ms(const struct loop *l)
{
	(void)l;
	return w.now_ms;
}
void peer_probe(struct peers *p, struct peer_probe *q)
{
	(void)p;
	w.probes[w.probe_count++] = q;
	w.probed++;
}
void peer_call(struct peers *p, struct peer_call *c)
{
	(void)p;
	ck_assert_ptr_null(w.call);
	for (int i = 0; i < c->part_count; i++)
		slice_unref(&c->parts[i]);
	w.call = c;
}
bool peer_connected(const struct peers *p, uint32_t node)
{
	(void)p;
	return w.connected && node == w.dialled;
}
void peers_set_nodes(struct peers *p, const struct peer_node *nodes, int count)
{
	(void)p;
	w.dialled = count > 0 ? nodes[0].id : 0;
	w.dialled_too = count > 1 ? nodes[1].id : 0;
	w.lists++;
}
void peers_set_cluster(struct peers *p, const uint8_t id[16])
{
	(void)p;
	ck_assert_uint_ne(id[0], 0);
}
void peers_set_circle(struct peers *p, const uint8_t id[16])
{
	(void)p;
	w.circle = id[0];
	w.circles++;
}
void peers_found_at(struct peers *p, uint32_t node, const char *address)
{
	(void)p;
	ck_assert(address[0] != 0);
	w.found_node = node;
	w.found_count++;
}
void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	(void)p;
	ck_assert_int_eq(op, PEER_OP_JOIN);
	w.on_join = fn;
	w.join_arg = arg;
}
void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int k)
{
	(void)lane;
	w.answered = r;
	w.answer_err = e;
	w.answer_bytes = k > 0 ? parts[0].bytes.len : 0;
	for (int i = 0; i < k; i++)
		slice_unref(&parts[i]);
}
void partition_propose(struct proposal *p)
{
	w.proposal = p;
}
void node_attach_meta(struct node *x, uint64_t replica, bool founds)
{
	w.attached = replica;
	w.founds = founds;
	w.attaches++;
	(void)x;
}
void node_write_identity(struct node *x, void (*done)(struct node *x, enum err e))
{
	w.writes++;
	done(x, w.write_err);
}
void node_end_if_idle(struct node *x)
{
	(void)x;
}
void node_fail(struct node *x, const char *format, ...)
{
	va_list args;

	(void)x;
	va_start(args, format);
	vsnprintf(w.failed, sizeof w.failed, format, args);
	va_end(args);
}
void node_say_why(struct node *x, const char *format, ...)
{
	va_list args;

	(void)x;
	va_start(args, format);
	vsnprintf(w.why, sizeof w.why, format, args);
	va_end(args);
}
struct node_words node_line(struct bytes b)
{
	struct node_words out = {{0}};

	memcpy(out.text, b.at, b.len < sizeof out.text ? b.len : sizeof out.text - 1);
	return out;
}
bool identity_has_cluster(const struct identity *id)
{
	return id->cluster[0] != 0;
}
void model_gather_node(struct node *x, struct meta_node *out)
{
	static char name[] = "n", rack[] = "", address[] = "a:1";

	*out = (struct meta_node){
		.id = (uint32_t)x->conf.id, .name = name, .rack = rack, .address = address};
}
int model_add_peers(const struct node *x, struct peer_node *out, int count)
{
	(void)x;
	if (w.named != 0)
		out[count++] = (struct peer_node){.id = w.named, .address = "e:5"};
	return count;
}
static enum err never(struct eval *v, struct bytes args)
{
	(void)v;
	(void)args;
	return OK;
}
const struct proposal_kind meta_kind = {PROPOSAL_META, never},
			   meta_found_kind = {PROPOSAL_FOUND, never};

/* --- driving it --- */

static void tick(int64_t ms)
{
	w.now_ms += ms;
	found_tick(n.found, w.now_ms);
}

/* What this node says is its circle when all answer: each instance once. */
static uint8_t circle(void)
{
	uint8_t c = n.identity.instance[0];

	for (int i = 0; i < SEEDS; i++) {
		bool counted = w.answers[i].instance == n.identity.instance[0];

		for (int k = 0; k < i; k++)
			counted |= w.answers[k].instance == w.answers[i].instance;
		c = counted ? c : (uint8_t)(c ^ w.answers[i].instance);
	}
	return c;
}

static uint8_t circle_said(const struct answer *a)
{
	return a->circle == 0 ? circle() : a->circle < 0 ? 0 : (uint8_t)a->circle;
}

/* One round of questions, answered as the world has it. */
static void ask_all(void)
{
	for (int64_t i = 0; i < 100 && w.probe_count == 0 && w.call == NULL; i++)
		tick(100);
	if (w.call != NULL)
		return; /* it asked to join */
	ck_assert_int_eq(w.probe_count, SEEDS);
	w.probe_count = 0;
	for (int i = 0; i < SEEDS; i++) {
		struct peer_probe *q = w.probes[i];

		q->err = w.answers[i].err;
		q->hello = (struct peer_hello){.node = w.answers[i].node,
			.instance = {w.answers[i].instance},
			.circle = {circle_said(&w.answers[i])},
			.cluster = {w.answers[i].cluster},
			.cluster_name = bytes_text(w.their_name)};
		snprintf(q->why, sizeof q->why, "not there");
		q->done(q);
	}
}

static void seeds(const struct answer *a)
{
	memcpy(w.answers, a, sizeof w.answers);
}

/* It is told to end: whatever it was doing, it is idle then. */
static void ends(void)
{
	found_stop(n.found);
	if (w.call != NULL) {
		struct peer_call *c = w.call;

		w.call = NULL;
		c->err = ERR_CLOSED;
		c->done(c);
	}
	ck_assert(found_idle(n.found));
}

static void setup(void)
{
	memset(&w, 0, sizeof w);
	memset(&n, 0, sizeof n);
	w.now_ms = 1000;
	n.conf.id = 2;
	n.conf.cluster_name = w.their_name = "ours";
	n.conf.seeds = "a:1, b:2 ,c:3";
	n.peers = (struct peers *)(uintptr_t)8;
	n.identity.instance[0] = 20;
	n.found = found_new(&n);
	found_start(n.found);
}

static void teardown(void)
{
	found_free(n.found);
	map_fini(&n.nodes);
}

static const struct answer all_empty[SEEDS] = {
	{OK, 2, 20, 0, 0}, {OK, 3, 30, 0, 0}, {OK, 4, 40, 0, 0}};

/* --- tests --- */

START_TEST(the_lowest_founds)
{
	seeds(all_empty);
	ask_all();
	ck_assert_int_eq(w.attaches, 1);
	ck_assert(w.founds);
	ck_assert_uint_eq(w.attached, 2ull << 32 | 1);
	ck_assert(!found_idle(n.found));
	found_attached(n.found, _i == 0 ? OK : ERR_IO);
	ck_assert(found_idle(n.found));
	if (_i == 1)
		ck_assert_ptr_nonnull(strstr(w.why, "can't be kept here"));
}
END_TEST

START_TEST(others_wait_for_it)
{
	seeds(all_empty);
	w.answers[2].node = 1;
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_str_eq(w.why, "waiting for node 1 at c:3 to found the cluster");
	ask_all(); /* and goes on asking */
	ck_assert_int_eq(w.probed, 2 * SEEDS);
	ends();
}
END_TEST

/* Lists of seeds that differ: whoever sees it waits, for each might be the lowest it knows of. */
START_TEST(other_seeds_are_not_agreed_with)
{
	seeds(all_empty);
	w.answers[2].circle = 99;
	n.conf.id = _i == 0 ? 2 : 5; /* whether it would found or not */
	w.answers[0].node = (uint32_t)n.conf.id;
	w.answers[1].node = _i == 0 ? 3 : 1;
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_str_eq(
		w.why, "node 4 at c:3 has other seeds: give all nodes the same cluster.seeds");
	w.answers[2].circle = 0;
	ask_all();
	ck_assert_int_eq(w.attaches, _i == 0);
	if (_i == 1)
		ends();
}
END_TEST

/* A node that has just started does not know its seeds yet: it is asked again at once, for a while,
 * and then told as what is waited for. */
START_TEST(who_does_not_know_its_seeds_is_waited_for)
{
	int64_t began;
	int rounds = 0;

	seeds(all_empty);
	w.answers[1].circle = -1;
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_str_eq(w.why, "");
	for (began = w.now_ms; w.why[0] == 0 && rounds < 100; rounds++) {
		while (w.probe_count == 0)
			tick(10);
		ask_all();
	}
	ck_assert_int_lt(w.now_ms - began, 2000);
	ck_assert_int_ge(rounds, 5);
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_str_eq(w.why, "waiting for node 3 at b:2 to find its seeds");
	w.answers[1].circle = 0;
	ask_all();
	ck_assert_int_eq(w.attaches, 1);
}
END_TEST

/* What others are told: nothing while a seed is silent, for its list may be any; a seed that is
 * named twice, or is this node itself, counts once. */
START_TEST(its_own_circle_is_told)
{
	seeds(all_empty);
	w.answers[1].err = ERR_TIMEOUT;
	ask_all();
	ck_assert_int_eq(w.circles, 0);
	w.answers[1] = w.answers[2];
	w.answers[2].circle = -1;
	ask_all();
	ck_assert_int_eq(w.circles, 1);
	ck_assert_uint_eq(w.circle, 20 ^ 40);
	ask_all();
	ck_assert_int_eq(w.circles, 1);
	w.answers[0].err = ERR_TIMEOUT;
	ask_all();
	ck_assert_int_eq(w.circles, 2);
	ck_assert_uint_eq(w.circle, 0);
	ck_assert_int_eq(w.attaches, 0);
	ends();
}
END_TEST

START_TEST(behind_a_silent_seed_may_be_a_cluster)
{
	seeds(all_empty);
	w.answers[1].err = ERR_TIMEOUT;
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_str_eq(w.why, "waiting for seed b:2: not there");
	ends();
}
END_TEST

/* Two of one id: exactly one of them ends, and it can end. */
START_TEST(one_id_twice)
{
	seeds(all_empty);
	w.answers[1] = (struct answer){OK, 2, _i == 0 ? 19 : 21, 0, 0};
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	if (_i == 0)
		ck_assert_str_eq(w.failed, "node.id 2 is in use by the node at b:2");
	else
		ck_assert_str_eq(w.failed, "");
	ck_assert(found_idle(n.found));
	ends();
}
END_TEST

static struct slice join_answer(size_t cut)
{
	struct meta_joined j = {.cluster = {5}, .replica = 2ull << 32 | 9};
	struct slice out;
	struct buf b;

	buf_init(&b, 1000);
	meta_joined_encode(&j, &b);
	buf_add_u16be(&b, 1);
	buf_add_u32be(&b, 4);
	buf_add(&b, bytes_of("0123456789abcdef", 16));
	buf_add_u16be(&b, 3);
	buf_add_text(&b, "d:4");
	ck_assert_int_eq(slice_copy(bytes_of(buf_bytes(&b).at, buf_len(&b) - cut), &out), OK);
	buf_fini(&b);
	return out;
}

static void answer_call(enum err e, struct slice answer)
{
	struct peer_call *c = w.call;

	ck_assert_ptr_nonnull(c);
	w.call = NULL;
	c->err = e;
	c->answer = answer;
	c->done(c);
}

static void until_asked_to_join(void)
{
	seeds(all_empty);
	w.answers[1] = (struct answer){OK, 4, 40, 5, 0};
	ask_all();
	ck_assert_uint_eq(w.dialled, 4);
	ck_assert_ptr_null(w.call);
	tick(20); /* not connected yet */
	ck_assert_ptr_null(w.call);
	w.connected = true;
	tick(20);
	ck_assert_ptr_nonnull(w.call);
	ck_assert_uint_eq(w.call->to, 4);
	ck_assert(!found_idle(n.found));
}

START_TEST(joins_who_has_a_cluster)
{
	until_asked_to_join();
	answer_call(OK, join_answer(0));
	ck_assert_int_eq(w.writes, 1); /* the cluster first, then the replica */
	ck_assert_uint_eq(n.identity.cluster[0], 5);
	ck_assert_uint_eq(w.attached, 2ull << 32 | 9);
	ck_assert(!w.founds);
	ck_assert_uint_eq(w.dialled, 4);
	found_attached(n.found, OK);
	n.founded = true;
	n.version = 1;
	atomic_store(&n.ready, true);
	tick(1000);
	tick(1000);
	ck_assert_int_eq(w.probed, SEEDS); /* it is found: nobody is asked any more */
	ck_assert(found_idle(n.found));
}
END_TEST

/* The replica that was given may be named no more, and without rows nothing else tells so. The
 * catalogue in force is one without rows. */
START_TEST(who_hears_nothing_of_the_catalogue_asks_again)
{
	int64_t since;
	int lists;

	until_asked_to_join();
	answer_call(OK, join_answer(0));
	n.meta_replica = _i == 0 ? 2ull << 32 | 8 : w.attached;
	found_attached(n.found, OK);
	since = w.now_ms;
	lists = w.lists;
	n.version = 1;
	n.founded = _i == 2;
	while (w.call == NULL && w.now_ms - since < 60000)
		ask_all();
	if (_i == 2) {
		ck_assert_ptr_null(w.call);
		return;
	}
	ck_assert_ptr_nonnull(w.call);
	ck_assert_int_ge(w.now_ms - since, 20000);
	ck_assert_int_eq(w.lists, lists); /* other connections stay */
	answer_call(OK, join_answer(0));
	ck_assert_int_eq(w.attaches, _i == 0 ? 2 : 1);
	found_attached(n.found, OK);
	ends();
}
END_TEST

/* Who lets in may know less than is known here already. */
START_TEST(what_is_known_of_nodes_stays)
{
	until_asked_to_join();
	w.named = 7;
	answer_call(OK, join_answer(0));
	ck_assert_uint_eq(w.dialled, 4);
	ck_assert_uint_eq(w.dialled_too, 7);
	found_attached(n.found, OK);
	ends();
}
END_TEST

START_TEST(a_cluster_of_another_name_is_not_joined)
{
	seeds(all_empty);
	w.their_name = "theirs";
	w.answers[1] = (struct answer){OK, 4, 40, 5, 0};
	w.connected = true;
	ask_all();
	ck_assert_ptr_null(w.call);
	ck_assert_uint_eq(w.dialled, 0);
	ck_assert_str_eq(
		w.why, "node 4 at b:2 is of cluster 'theirs', this node of 'ours' (cluster.name)");
	ends();
}
END_TEST

START_TEST(a_target_that_is_lost_is_chosen_anew)
{
	seeds(all_empty);
	w.answers[1] = (struct answer){OK, 4, 40, 5, 0};
	ask_all();
	for (int i = 0; i < 40 && w.probe_count == 0; i++)
		tick(100);
	ck_assert_int_eq(w.probe_count, SEEDS);
	ck_assert_ptr_null(w.call);
	ck_assert_ptr_nonnull(strstr(w.why, "no connection with node 4 at b:2"));
}
END_TEST

START_TEST(a_refusal_that_helps_no_waiting_ends_it)
{
	static const enum err refusals[] = {ERR_EXISTS, ERR_DENIED};
	struct slice text;

	until_asked_to_join();
	ck_assert_int_eq(slice_copy(bytes_text("in use"), &text), OK);
	answer_call(refusals[_i], text);
	ck_assert_str_eq(w.failed, "refused by node 4: in use");
	ck_assert(found_idle(n.found));
	ends();
}
END_TEST

START_TEST(a_passing_refusal_is_waited_for)
{
	static const enum err passing[] = {ERR_BUSY, ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_UNKNOWN};

	until_asked_to_join();
	answer_call(passing[_i], (struct slice){NULL, {NULL, 0}});
	ck_assert_str_eq(w.failed, "");
	ck_assert_ptr_nonnull(strstr(w.why, "joining by node 4"));
	w.connected = false;
	ask_all();
	ends();
}
END_TEST

/* Whatever a seed answers, the node lives and goes on asking. */
START_TEST(answers_that_are_cut)
{
	until_asked_to_join();
	answer_call(OK, join_answer((size_t)_i + 1));
	ck_assert_str_eq(w.failed, "");
	if (w.writes == 0)
		ck_assert_ptr_nonnull(strstr(w.why, "malformed"));
}
END_TEST

START_TEST(ends_in_the_middle)
{
	seeds(all_empty);
	if (_i == 0) { /* while seeds are asked */
		tick(0);
		ck_assert(!found_idle(n.found));
		found_stop(n.found);
		ask_all();
		ck_assert_int_eq(w.attaches, 0);
	} else {
		until_asked_to_join();
		ends();
		ck_assert_int_eq(w.writes, 0);
	}
	ck_assert(found_idle(n.found));
	tick(10000);
	ck_assert(found_idle(n.found));
}
END_TEST

START_TEST(data_of_another_cluster_is_the_end)
{
	n.identity.cluster[0] = 6;
	n.meta_replica = _i == 0 ? 0 : 1;
	seeds(all_empty);
	w.answers[2] = (struct answer){OK, 4, 40, 5, 0};
	ask_all();
	ck_assert_str_eq(w.failed, "data.dir is of another cluster than node 4 at c:3");
	ck_assert(found_idle(n.found));
}
END_TEST

/* A node of a cluster never founds one, whoever is empty; seeds tell it where the others are. */
START_TEST(data_finds_its_cluster_again)
{
	n.identity.cluster[0] = 5;
	n.meta_replica = _i == 0 ? 0 : 1;
	seeds(all_empty);
	ask_all();
	ck_assert_int_eq(w.attaches, 0);
	ck_assert_int_eq(w.found_count, 0);
	ck_assert(w.why[0] != 0);
	w.answers[0] = (struct answer){OK, 2, 20, 5, 0};
	w.answers[1] = (struct answer){OK, 4, 40, 5, 0};
	ask_all();
	if (_i == 0) {
		ck_assert_uint_eq(w.dialled, 4);
	} else {
		ck_assert_int_eq(w.found_count, 1); /* not where it is itself */
		ck_assert_uint_eq(w.found_node, 4);
	}
	ends();
}
END_TEST

START_TEST(seeds_without_a_door_are_a_mistake)
{
	found_free(n.found);
	n.peers = NULL;
	n.found = found_new(&n);
	found_start(n.found);
	ck_assert_ptr_nonnull(strstr(w.failed, "listen.peer is off"));
	found_free(n.found);
	n.conf.seeds = " , ,,";
	w.failed[0] = 0;
	n.found = found_new(&n);
	found_start(n.found);
	ck_assert_str_eq(w.failed, "");
	tick(10000);
	ck_assert_int_eq(w.probed, 0);
}
END_TEST

/* --- letting others in --- */

static void ask_in(uint32_t from, struct meta_request *q, size_t cut)
{
	static struct peer_request r;
	struct buf b;

	buf_init(&b, 10000);
	meta_request_encode(q, &b);
	slice_unref(&r.body);
	r.from = from;
	ck_assert_int_eq(slice_copy(bytes_of(buf_bytes(&b).at, buf_len(&b) - cut), &r.body), OK);
	buf_fini(&b);
	w.answered = NULL;
	w.proposal = NULL;
	w.on_join(w.join_arg, &r);
	if (w.proposal == NULL)
		ck_assert_ptr_nonnull(w.answered);
	else
		ck_assert_ptr_null(w.answered);
}

START_TEST(who_asks_to_come_in_is_passed_on)
{
	struct meta_node said = {
		.id = 7, .name = (char[]){"x"}, .rack = (char[]){""}, .address = (char[]){"x:7"}};
	struct meta_request q = {.kind = META_JOIN, .node_id = 7, .node = &said};

	found_serve(&n);
	ask_in(7, &q, 0);
	ck_assert_int_eq(w.answer_err, ERR_UNAVAILABLE); /* there is no cluster here */
	n.founded = true;
	ask_in(8, &q, 0);
	ck_assert_int_eq(w.answer_err, ERR_MALFORMED); /* in another one's name */
	for (size_t cut = 1; cut < 20; cut++) {
		ask_in(7, &q, cut);
		ck_assert_int_eq(w.answer_err, ERR_MALFORMED);
	}
	q.kind = META_BALANCE; /* nothing else is taken from guests */
	ask_in(7, &q, 0);
	ck_assert_int_eq(w.answer_err, ERR_MALFORMED);
	q.kind = META_JOIN;
	ask_in(7, &q, 0);
	ck_assert_ptr_nonnull(w.proposal);
	ck_assert(w.proposal->repeatable);
	ck_assert_int_eq(n.busy_count, 1);
	w.proposal->err = OK;
	w.proposal->reply.bytes = bytes_text("reply");
	w.proposal->done(w.proposal);
	ck_assert_int_eq(w.answer_err, OK);
	ck_assert_uint_eq(w.answer_bytes, 5 + 2);
	ck_assert_int_eq(n.busy_count, 0);
	n.closing = true;
	ask_in(7, &q, 0);
	ck_assert_int_eq(w.answer_err, ERR_UNAVAILABLE);
	slice_unref(&w.answered->body);
}
END_TEST

START_TEST(the_first_change_is_made_once)
{
	n.conf.tables = 4;
	found_cluster(&n);
	ck_assert_ptr_nonnull(w.proposal);
	ck_assert(n.founding_busy);
	struct proposal *first = w.proposal;
	w.proposal = NULL;
	found_cluster(&n); /* under way */
	ck_assert_ptr_null(w.proposal);
	struct meta_founding f;
	ck_assert_int_eq(meta_founding_decode(first->args, &f), OK);
	ck_assert_uint_eq(f.cluster.tables, 4);
	ck_assert_uint_eq(f.node->id, 2);
	meta_founding_fini(&f);
	first->err = ERR_UNAVAILABLE;
	first->done(first);
	ck_assert(!n.founding_busy);
	n.founded = true;
	found_cluster(&n);
	ck_assert_ptr_null(w.proposal);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("found");
	TCase *tc = tcase_create("found");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, the_lowest_founds, 0, 2);
	tcase_add_test(tc, others_wait_for_it);
	tcase_add_loop_test(tc, other_seeds_are_not_agreed_with, 0, 2);
	tcase_add_test(tc, who_does_not_know_its_seeds_is_waited_for);
	tcase_add_test(tc, its_own_circle_is_told);
	tcase_add_test(tc, behind_a_silent_seed_may_be_a_cluster);
	tcase_add_loop_test(tc, one_id_twice, 0, 2);
	tcase_add_test(tc, joins_who_has_a_cluster);
	tcase_add_loop_test(tc, who_hears_nothing_of_the_catalogue_asks_again, 0, 3);
	tcase_add_test(tc, what_is_known_of_nodes_stays);
	tcase_add_test(tc, a_cluster_of_another_name_is_not_joined);
	tcase_add_test(tc, a_target_that_is_lost_is_chosen_anew);
	tcase_add_loop_test(tc, a_refusal_that_helps_no_waiting_ends_it, 0, 2);
	tcase_add_loop_test(tc, a_passing_refusal_is_waited_for, 0, 4);
	tcase_add_loop_test(tc, answers_that_are_cut, 0, 51);
	tcase_add_loop_test(tc, ends_in_the_middle, 0, 2);
	tcase_add_loop_test(tc, data_of_another_cluster_is_the_end, 0, 2);
	tcase_add_loop_test(tc, data_finds_its_cluster_again, 0, 2);
	tcase_add_test(tc, seeds_without_a_door_are_a_mistake);
	tcase_add_test(tc, who_asks_to_come_in_is_passed_on);
	tcase_add_test(tc, the_first_change_is_made_once);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
