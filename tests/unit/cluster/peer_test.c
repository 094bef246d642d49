#include "tests/unit/cluster/peer_world.h"
#include <errno.h>

START_TEST(frames_reach_the_home_loop_of_their_group)
{
	static const int loops[][2] = {{2, 2}, {1, 3}, {4, 1}, {3, 2}};
	world_init();
	two_up(loops[_i][0], loops[_i][1]);
	int total = 0;
	for (int loop = 0; loop < loops[_i][0]; loop++)
		for (uint64_t group = 0; group < 7; group++) {
			struct burst b = {.from = &world[0],
				.to = 2,
				.group = group,
				.bytes = 10 + group * 500,
				.count = 100};
			do_on(loops_at(world[0].loops, loop), send_burst, &b);
			ck_assert_int_eq(b.sent, 100);
			total += 100;
		}
	ck_assert(reaches(&world[1].frames, total));
	ck_assert_int_eq(world[1].wrong_loop, 0);
	ck_assert_int_eq(world[0].frames, 0);
	two_down();
}
END_TEST

START_TEST(large_frames_pass)
{
	world_init();
	two_up(2, 1);
	struct burst b = {
		.from = &world[0], .to = 2, .group = 1, .bytes = (size_t)70 << 20, .count = 1};
	struct burst too_big = b;
	too_big.bytes = (size_t)73 << 20;
	for (int i = 0; i < 1000 && b.sent == 0; i++) { /* until nothing else waits */
		do_on(loops_at(world[0].loops, 1), send_burst, &b);
		nap(10);
	}
	ck_assert_int_eq(b.sent, 1);
	do_on(loops_at(world[0].loops, 0), send_burst, &too_big);
	ck_assert_int_eq(too_big.sent, 0);
	ck_assert(reaches_u64(&world[1].frame_bytes, b.bytes));
	ck_assert_int_eq(world[0].downs, 0);
	two_down();
}
END_TEST

/* What waits is bounded; a frame larger than the bound passes only when nothing waits. */
START_TEST(queues_are_bounded)
{
	world_init();
	world[0].queue = 1 << 20;
	two_up(1, 1);
	struct burst b = {.from = &world[0],
		.to = 2,
		.lane = _i == 0 ? LANE_HIGH : LANE_BULK,
		.group = 1,
		.bytes = 100 << 10,
		.count = 100};
	do_on(loops_at(world[0].loops, 0), send_burst, &b);
	/* One turn: nothing leaves meanwhile. Bulk has the socket's share beside the queue. */
	if (_i == 0)
		ck_assert_int_eq(b.sent, 10);
	else
		ck_assert_int_le(b.sent, 21);
	ck_assert_int_ge(b.sent, 10);
	ck_assert(reaches(&world[1].frames, b.sent));
	ck_assert_int_gt(metric_sum(&peer_metrics, _i == 0 ? M_DROPPED_HIGH : M_DROPPED_BULK), 0);
	two_down();
}
END_TEST

/* A large frame of bulk before them does not make consensus messages drop. */
START_TEST(bulk_does_not_drop_the_high_lane)
{
	world_init();
	world[0].queue = 1 << 20;
	two_up(1, 1);
	struct burst b = {.from = &world[0],
		.to = 2,
		.lane = LANE_BULK,
		.group = 1,
		.bytes = (size_t)30 << 20,
		.count = 1};
	struct burst high = {.from = &world[0], .to = 2, .group = 1, .bytes = 1000, .count = 500};
	do_on(loops_at(world[0].loops, 0), send_burst, &b);
	do_on(loops_at(world[0].loops, 0), send_burst, &high);
	ck_assert_int_eq(b.sent, 1);
	ck_assert_int_eq(high.sent, 500);
	ck_assert(reaches(&world[1].frames, 501));
	two_down();
}
END_TEST

struct bulk { /* sends bulk whenever there is room, until it has sent so much */
	struct world_node *from;
	struct peer_room room;
	int left;
	atomic_int waits, done;
};
static void bulk_go(struct bulk *k)
{
	struct burst b = {.from = k->from,
		.to = 2,
		.lane = LANE_BULK,
		.group = 1,
		.bytes = 200 << 10,
		.count = 1};
	while (k->left > 0 && peer_bulk_room(k->from->peers, 2, &k->room)) {
		send_burst(&b);
		k->left--;
	}
	ck_assert_int_eq(b.sent > 0 || k->left > 0, 1);
	if (k->left == 0)
		atomic_store(&k->done, 1);
	else
		atomic_fetch_add(&k->waits, 1);
}
static void on_room(struct peer_room *w)
{
	bulk_go(list_entry(w, struct bulk, room));
}
static void bulk_start(void *arg)
{
	bulk_go(arg);
}

START_TEST(bulk_waits_for_room)
{
	static struct bulk k;
	world_init();
	two_up(1, 1);
	memset(&k, 0, sizeof k);
	k.from = &world[0];
	k.left = 500;
	k.room.room = on_room;
	do_on(loops_at(world[0].loops, 0), bulk_start, &k);
	ck_assert(reaches(&world[1].frames, 500));
	ck_assert_int_eq(atomic_load(&k.done), 1);
	ck_assert_int_gt(atomic_load(&k.waits), 5);
	two_down();
}
END_TEST

/* --- calls --- */

START_TEST(calls_are_answered)
{
	static const int loops[][2] = {{2, 2}, {1, 3}, {3, 1}};
	static struct asked a;
	world_init();
	two_up(loops[_i][0], loops[_i][1]);
	for (int group = 0; group < 4; group++) {
		for (int loop = 0; loop < loops[_i][0]; loop++) {
			memset(&a, 0, sizeof a);
			a.from = &world[0];
			a.text = "hello";
			a.call.to = 2;
			a.call.group = (uint64_t)group;
			a.call.op = group % 2 ? PEER_OP_POINT : PEER_OP_INFO;
			a.call.timeout_ms = 30000;
			do_on(loops_at(world[0].loops, loop), ask, &a);
			ck_assert(reaches(&a.done, 1));
			ck_assert_str_eq(a.answer, "olleh");
			ck_assert_int_eq(a.call.err, group % 2 ? ERR_NOTLEADER : OK);
		}
	}
	ck_assert_int_eq(world[1].wrong_loop, 0);
	two_down();
}
END_TEST

static void start_asking(struct asked *a, enum peer_op op, uint32_t to, int timeout_ms)
{
	memset(a, 0, sizeof *a);
	a->from = &world[0];
	a->text = "x";
	a->call.to = to;
	a->call.op = op;
	a->call.timeout_ms = timeout_ms;
	do_on(loops_at(world[0].loops, 0), ask, a);
}

START_TEST(calls_that_fail)
{
	static struct asked a;
	world_init();
	two_up(2, 2);
	start_asking(&a, PEER_OP_INFO, 9, 30000);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_UNAVAILABLE);
	start_asking(&a, PEER_OP_LEASE, 2, 30000);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_UNSUPPORTED);
	/* Never answered in time, answered late: nobody minds. */
	start_asking(&a, PEER_OP_FENCE, 2, 100);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_TIMEOUT);
	ck_assert(reaches(&world[1].asked, 1));
	peer_answer(world[1].kept, LANE_HIGH, OK, NULL, 0);
	/* The answerer goes; its answer after that is dropped. */
	start_asking(&a, PEER_OP_FENCE, 2, 50000);
	ck_assert(reaches(&world[1].asked, 2));
	net_drain(world[1].net, 1000);
	peers_stop(world[1].peers);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_UNKNOWN);
	ck_assert(reaches(&world[0].downs, 2));
	peer_answer(world[1].kept, LANE_HIGH, OK, NULL, 0);
	/* Stopped while asking. */
	two_down();
}
END_TEST

START_TEST(stopping_ends_calls)
{
	static struct asked a;
	world_init();
	two_up(2, 2);
	start_asking(&a, PEER_OP_FENCE, 2, 50000);
	ck_assert(reaches(&world[1].asked, 1));
	node_down(&world[0]);
	ck_assert_int_eq(atomic_load(&a.done), 1);
	ck_assert_int_eq(a.call.err, ERR_CLOSED);
	peer_answer(world[1].kept, LANE_HIGH, OK, NULL, 0);
	node_down(&world[1]);
}
END_TEST

/* --- who may and who may not --- */

struct view {
	struct world_node *of;
	int after; /* ids from here on */
	struct peer_view out;
	bool found;
};
static void look(void *arg)
{
	struct view *v = arg;
	int at = v->after;
	v->found = peers_next(v->of->peers, &at, &v->out);
}
static const char *why_not_after(struct world_node *n, int after)
{
	static struct view v;
	for (int i = 0; i < 20000; i++) {
		v = (struct view){.of = n, .after = after};
		do_on(loops_at(n->loops, 1 % n->loop_count), look, &v);
		if (v.found && !v.out.connected && v.out.why[0] != 0)
			break;
		nap(1);
	}
	return v.out.why;
}

static const char *why_not(struct world_node *n)
{
	return why_not_after(n, 0);
}

START_TEST(refusals_are_told_on_both_sides)
{
	static const struct {
		const char *what, *why;
	} cases[] = {{"cluster", "two clusters"}, {"name", "cluster"},
		{"id", "two nodes have the id 1"}, {"instance", "with other data"},
		{"empty", "no cluster yet"}, {"both", "'other'"}};
	static const uint8_t other[16] = "another-cluster-";
	int64_t before;
	world_init();
	if (_i == 1 || _i == 5)
		world[1].cluster_name = "other";
	if (_i == 2)
		world[1].id = 1;
	if (_i == 3) /* its loops hear of the list one by one, and the first one dials at once */
		world[1].loop_count = 1;
	node_up(&world[0]);
	node_up(&world[1]);
	before = metric_sum(&peer_metrics, M_REFUSED);
	joins(&world[0]);
	if (_i != 4 && _i != 1)
		peers_set_cluster(world[1].peers, _i == 0 || _i == 5 ? other : world_cluster);
	for (int i = 0; i < 2; i++)
		heard(&world[i]);
	if (_i == 3) { /* and it knows that before the other one dials */
		tell_of(&world[1], &world[0], (const uint8_t *)"nobody-has-this-");
		ck_assert_ptr_nonnull(strstr(why_not(&world[1]), cases[_i].why));
	}
	if (_i == 2)
		peers_set_nodes(world[0].peers,
			&(struct peer_node){.id = 2, .address = world[1].address}, 1);
	else
		tell_of(&world[0], &world[1], NULL);
	const char *why = why_not(&world[0]);
	ck_assert_msg(strstr(why, cases[_i].why) != NULL, "%s: %s", cases[_i].what, why);
	ck_assert_int_gt(metric_sum(&peer_metrics, M_REFUSED), before);
	ck_assert_int_eq(world[0].ups, 0);
	ck_assert_int_eq(world[1].ups, 0);
	two_down();
}
END_TEST

/* A cluster's name is for people: it changes node by node. */
START_TEST(a_new_name_is_the_same_cluster)
{
	world_init();
	world[1].cluster_name = "renamed";
	two_up(1, 1);
	two_down();
}
END_TEST

/* Three nodes, each with another number of loops; one goes, the others stay. */
START_TEST(three_nodes)
{
	world_init();
	for (int i = 0; i < 3; i++) {
		world[i].loop_count = i + 1;
		node_up(&world[i]);
		joins(&world[i]);
	}
	for (int i = 0; i < 3; i++) {
		struct peer_node all[3];
		for (int k = 0; k < 3; k++)
			all[k] = (struct peer_node){.id = world[k].id,
				.address = world[k].address,
				.instance = world[k].instance};
		peers_set_nodes(world[i].peers, all, 3);
	}
	for (int i = 0; i < 3; i++)
		ck_assert(reaches(&world[i].ups, 2 * (i + 1)));
	node_down(&world[1]);
	ck_assert(reaches(&world[0].downs, 1));
	ck_assert(reaches(&world[2].downs, 3));
	struct burst b = {.from = &world[2], .to = 1, .group = 5, .bytes = 100, .count = 50};
	do_on(loops_at(world[2].loops, 2), send_burst, &b);
	ck_assert_int_eq(b.sent, 50);
	ck_assert(reaches(&world[0].frames, 50));
	b.to = 2;
	b.sent = 0;
	do_on(loops_at(world[2].loops, 2), send_burst, &b);
	ck_assert_int_eq(b.sent, 0);
	node_down(&world[0]);
	node_down(&world[2]);
}
END_TEST

/* The dialler is not content: another node is there, or one with other data. */
START_TEST(dialler_refuses)
{
	world_init();
	node_up(&world[0]);
	node_up(&world[1]);
	for (int i = 0; i < 2; i++) {
		joins(&world[i]);
		heard(&world[i]);
	}
	if (_i == 0)
		peers_set_nodes(world[0].peers,
			&(struct peer_node){.id = 3, .address = world[1].address}, 1);
	else
		tell_of(&world[0], &world[1], (const uint8_t *)"nobody-has-this-");
	const char *why = why_not_after(&world[0], _i == 0 ? 2 : 0);
	ck_assert_msg(
		strstr(why, _i == 0 ? "node 3 was dialled, and node 2 is there" : "other data") !=
			NULL,
		"%s", why);
	if (_i == 1)
		ck_assert_int_eq(world[0].ups, 0);
	two_down();
}
END_TEST

/* One who dials is dialled back, though nobody has told of it. */
START_TEST(a_node_that_says_hello_is_dialled)
{
	world_init();
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	tell_of(&world[0], &world[1], NULL);
	ck_assert(reaches(&world[0].ups, 2));
	ck_assert(reaches(&world[1].ups, 2));
	/* Removed, it may not come back. */
	struct peer_node gone = {.id = 2,
		.removed = true,
		.address = world[1].address,
		.instance = world[1].instance};
	peers_set_nodes(world[0].peers, &gone, 1);
	ck_assert(reaches(&world[0].downs, 2));
	ck_assert(reaches(&world[1].downs, 2));
	const char *why = why_not(&world[1]);
	ck_assert_msg(strstr(why, "removed") != NULL || strstr(why, "closed") != NULL, "%s", why);
	nap(300);
	ck_assert_int_eq(world[0].ups, 2);
	two_down();
}
END_TEST

/* A list that leaves a node out says nothing against it: who joins anew names one seed and has the
 * others say hello. Nobody is to end for that. */
START_TEST(a_node_left_out_is_not_removed)
{
	world_init();
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	tell_of(&world[0], &world[1], world[1].instance);
	ck_assert(reaches(&world[0].ups, 2));
	ck_assert(reaches(&world[1].ups, 2));
	peers_set_nodes(world[0].peers, NULL, 0);
	ck_assert(reaches(&world[0].downs, 2));
	ck_assert(reaches(&world[0].ups, 4));
	ck_assert(reaches(&world[1].ups, 4));
	ck_assert_int_eq(world[1].verdicts[PEER_SAYS_REMOVED], 0);
	two_down();
}
END_TEST

/* A node that starts learns from its list who was removed: that data never comes back; other data
 * under the id may, only not before the list says so. */
START_TEST(removed_data_is_told_so)
{
	struct peer_node gone = {.id = 2, .removed = true};
	world_init();
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	gone.address = world[1].address;
	gone.instance = _i == 0 ? world[1].instance : (const uint8_t *)"nobody-has-this-";
	peers_set_nodes(world[0].peers, &gone, 1);
	heard(&world[0]);
	tell_of(&world[1], &world[0], world[0].instance);
	const char *why = why_not(&world[1]);
	ck_assert_msg(strstr(why, _i == 0 ? "was removed" : "with other data") != NULL, "%s", why);
	if (_i == 0)
		ck_assert(reaches(&world[1].verdicts[PEER_SAYS_REMOVED], 1));
	else
		ck_assert(reaches(&world[1].verdicts[PEER_SAYS_OTHER_DATA], 1));
	ck_assert_int_eq(world[1].verdicts[_i == 0 ? PEER_SAYS_OTHER_DATA : PEER_SAYS_REMOVED], 0);
	ck_assert_int_eq(world[0].ups, 0);
	/* The list changes its mind: another one has that id now. */
	tell_of(&world[0], &world[1], world[1].instance);
	ck_assert(reaches(&world[0].ups, 2));
	ck_assert(reaches(&world[1].ups, 2));
	two_down();
}
END_TEST

/* While the list does not say what data a node has, any is let in; who has other data than the next
 * list says goes, on all loops, whichever of the two has more of them. */
START_TEST(any_data_is_let_in_until_a_list_names_it)
{
	const uint8_t *other = (const uint8_t *)"nobody-has-this-";
	struct peer_node old = {.id = 2, .removed = _i > 1, .instance = other};
	int ups = 1 + _i % 2, theirs = 2 - _i % 2;
	world_init();
	world[0].loop_count = ups;
	world[1].loop_count = theirs;
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	old.address = world[1].address;
	peers_set_nodes(world[0].peers, &old, 1);
	heard(&world[0]);
	tell_of(&world[1], &world[0], world[0].instance);
	ck_assert(reaches(&world[1].verdicts[PEER_SAYS_OTHER_DATA], 1));
	ck_assert_int_eq(world[0].ups + world[1].ups, 0);
	tell_of(&world[0], &world[1], NULL);
	ck_assert(reaches(&world[0].ups, ups));
	ck_assert(reaches(&world[1].ups, theirs));
	peers_set_nodes(world[0].peers, &old, 1);
	ck_assert(reaches(&world[0].downs, ups));
	ck_assert(reaches(&world[1].downs, theirs));
	tell_of(&world[0], &world[1], NULL);
	ck_assert(reaches(&world[0].ups, 2 * ups));
	ck_assert(reaches(&world[1].ups, 2 * theirs));
	tell_of(&world[0], &world[1], world[1].instance);
	heard(&world[0]);
	nap(100);
	ck_assert_int_eq(world[0].downs, ups);
	ck_assert_int_eq(world[1].downs, theirs);
	two_down();
}
END_TEST

/* A copy of a node's data is started, too: the one that is connected stays so. */
START_TEST(the_same_data_runs_once)
{
	world_init();
	world[2].id = 2;
	world[2].boot = _i == 0 ? 9 : 5;
	memcpy(world[2].instance, world[1].instance, 16);
	two_up(2, 2);
	node_up(&world[2]);
	joins(&world[2]);
	tell_of(&world[2], &world[0], world[0].instance);
	ck_assert(reaches(&world[2].verdicts[_i == 0 ? PEER_SAYS_RUNS : PEER_SAYS_RUNS_NEWER], 2));
	ck_assert_int_eq(world[2].verdicts[_i == 0 ? PEER_SAYS_RUNS_NEWER : PEER_SAYS_RUNS], 0);
	ck_assert_int_eq(world[2].ups, 0);
	ck_assert_int_eq(world[1].downs, 0);
	ck_assert_int_eq(world[0].downs, 0);
	/* It is a restarted one as soon as the other is gone. */
	node_down(&world[1]);
	ck_assert(reaches(&world[2].ups, 2));
	ck_assert(reaches(&world[0].ups, 4));
	node_down(&world[2]);
	node_down(&world[0]);
}
END_TEST

/* All addresses that are known are old: a seed says where the node is now. */
START_TEST(a_node_is_found_at_another_address)
{
	world_init();
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	peers_set_nodes(world[0].peers,
		&(struct peer_node){
			.id = 2, .address = "127.0.0.1:1", .instance = world[1].instance},
		1);
	(void)why_not(&world[0]);
	ck_assert_int_eq(world[0].ups, 0);
	peers_found_at(world[0].peers, 3, "127.0.0.1:2"); /* nobody of the list */
	peers_found_at(world[0].peers, 2, world[1].address);
	ck_assert(reaches(&world[0].ups, 2));
	ck_assert(reaches(&world[1].ups, 2));
	two_down();
}
END_TEST

/* Who starts reads the list's past: an address that was right once, after the node has said hello
 * from where it is now. */
START_TEST(an_old_list_does_not_hide_where_a_node_is)
{
	struct peer_node old = {.id = 2, .address = "127.0.0.1:1", .instance = world[1].instance};
	world_init();
	world[1].port = own_port();
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	peers_set_nodes(world[0].peers, &old, 1);
	tell_of(&world[1], &world[0], NULL);
	ck_assert(reaches(&world[0].ups, 2));
	old.address = "127.0.0.1:2";
	peers_set_nodes(world[0].peers, &old, 1);
	node_down(&world[1]);
	ck_assert(reaches(&world[0].downs, 2));
	node_up(&world[1]); /* says nothing now */
	joins(&world[1]);
	ck_assert(reaches(&world[0].ups, 4));
	two_down();
}
END_TEST

START_TEST(guests_may_join_and_nothing_else)
{
	static struct asked a;
	world_init();
	node_up(&world[0]); /* of no cluster */
	node_up(&world[1]);
	joins(&world[1]);
	tell_of(&world[1], &world[0], (const uint8_t *)"the-data-of-old-");
	heard(&world[1]);
	tell_of(&world[0], &world[1], NULL);
	ck_assert(reaches(&world[0].ups, 2));
	start_asking(&a, PEER_OP_INFO, 2, 30000);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_DENIED);
	start_asking(&a, PEER_OP_JOIN, 2, 30000);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, OK);
	struct burst b = {.from = &world[0], .to = 2, .bytes = 10, .count = 5};
	do_on(loops_at(world[0].loops, 0), send_burst, &b);
	ck_assert_int_eq(b.sent, 5);
	/* It has joined: both connect anew and in full. */
	tell_of(&world[1], &world[0], world[0].instance);
	joins(&world[0]);
	ck_assert(reaches(&world[0].ups, 4));
	ck_assert(reaches(&world[1].ups, 2));
	ck_assert_int_eq(world[1].frames, 0);
	b.group = 1;
	do_on(loops_at(world[0].loops, 1), send_burst, &b);
	ck_assert(reaches(&world[1].frames, 5));
	two_down();
}
END_TEST

START_TEST(comes_back_after_a_restart)
{
	world_init();
	world[1].port = own_port();
	two_up(2, 2);
	node_down(&world[1]);
	ck_assert(reaches(&world[0].downs, 2));
	nap(250);
	world[1].ups = 0;
	node_up(&world[1]);
	joins(&world[1]);
	tell_of(&world[1], &world[0], NULL);
	ck_assert(reaches(&world[0].ups, 4));
	ck_assert(reaches(&world[1].ups, 2));
	two_down();
}
END_TEST

/* --- strangers --- */

static int dial_raw(const struct world_node *n)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtol(strrchr(n->address, ':') + 1, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = 30};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}

static void hello_bytes(struct buf *out, uint16_t version, uint32_t node)
{
	struct peer_hello h = {.version_min = version,
		.version_max = version,
		.node = node,
		.cluster_name = bytes_text("test"),
		.name = bytes_text("x"),
		.rack = bytes_text(""),
		.address = bytes_text("127.0.0.1:1")};
	memcpy(h.cluster, world_cluster, 16);
	buf_init(out, 4096);
	ck_assert_int_eq(peer_hello_write(out, &h), OK);
}

/* Sends and reads all there is until the other side closes; that it does. */
static size_t exchange(int fd, struct bytes b, uint8_t *in, size_t size)
{
	size_t got = 0;
	ck_assert_int_eq(send(fd, b.at, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	for (;;) {
		ssize_t n = recv(fd, in + got, size - got, 0);
		ck_assert(n >= 0 || errno == ECONNRESET);
		if (n <= 0)
			return got;
		got += (size_t)n;
	}
}

START_TEST(strangers_are_shown_the_door)
{
	static const char *const garbage[] = {"GET / HTTP/1.1\r\n\r\n",
		"\0\0\0\x10\x01\0\0\0\0\0\0\0\0\0\0\0", "\0\0\0\1",
		"\xff\xff\xff\xff\xff\xff\xff\xff"};
	static const size_t lens[] = {18, 16, 4, 8};
	uint8_t in[512];
	world_init();
	world[0].loop_count = 1;
	node_up(&world[0]);
	joins(&world[0]);
	heard(&world[0]);
	for (int i = 0; i < 4; i++) {
		int fd = dial_raw(&world[0]);
		ck_assert_uint_eq(exchange(fd, bytes_of(garbage[i], lens[i]), in, sizeof in), 0);
		close(fd);
	}
	ck_assert_int_ge(metric_sum(&peer_metrics, M_REFUSED), 4);
	/* A version out of reach is refused by name. */
	struct buf hello;
	struct peer_frame f;
	enum peer_refusal code;
	struct bytes text;
	hello_bytes(&hello, PEER_VERSION + 1, 5);
	int fd = dial_raw(&world[0]);
	size_t n = exchange(fd, buf_bytes(&hello), in, sizeof in);
	ck_assert_int_eq(peer_frame_read(bytes_of(in, n), sizeof in, &f), OK);
	ck_assert_int_eq(f.kind, PEER_REFUSAL);
	ck_assert_int_eq(peer_refusal_read(f.body, &code, &text), OK);
	ck_assert_int_eq(code, REFUSED_VERSION);
	ck_assert_ptr_nonnull(memmem(text.at, text.len, "speaks versions 2 to 2", 22));
	close(fd);
	buf_fini(&hello);
	node_down(&world[0]);
}
END_TEST

START_TEST(silence_is_not_waited_for)
{
	uint8_t in[512];
	struct buf hello;
	world_init();
	world[0].loop_count = 2;
	node_up(&world[0]);
	joins(&world[0]);
	heard(&world[0]);
	hello_bytes(&hello, 1, 5);
	struct bytes b = buf_bytes(&hello);
	int64_t began = clock_ms();
	int half = dial_raw(&world[0]), whole = dial_raw(&world[0]);
	ck_assert_int_gt(send(whole, b.at, b.len, 0), 0);
	/* Half a hello, and one who never says anything after it: both are gone after 5 s. */
	ck_assert_uint_eq(exchange(half, bytes_of(b.at, b.len / 2), in, sizeof in), 0);
	ck_assert_int_ge(clock_ms() - began, 4900);
	size_t n = exchange(whole, bytes_of(b.at, 0), in, sizeof in);
	struct peer_frame f;
	ck_assert_int_eq(peer_frame_read(bytes_of(in, n), sizeof in, &f), OK);
	ck_assert_int_eq(f.kind, PEER_HELLO);
	close(half);
	close(whole);
	buf_fini(&hello);
	node_down(&world[0]);
}
END_TEST

/* One who answers our hello and then says nothing, as a machine that has lost its power. */
START_TEST(silent_peers_are_given_up)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	static struct asked a;
	char address[64];
	struct buf hello;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(sa.sin_port));
	world_init();
	world[0].loop_count = 1;
	node_up(&world[0]);
	joins(&world[0]);
	peers_set_nodes(world[0].peers, &(struct peer_node){.id = 2, .address = address}, 1);
	int at = accept(fd, NULL, NULL);
	ck_assert_int_ge(at, 0);
	hello_bytes(&hello, 1, 2);
	int64_t began = clock_ms();
	ck_assert_int_gt(send(at, buf_bytes(&hello).at, buf_len(&hello), 0), 0);
	ck_assert(reaches(&world[0].ups, 1));
	start_asking(&a, PEER_OP_INFO, 2, 60000);
	ck_assert(reaches(&world[0].downs, 1));
	ck_assert_int_ge(clock_ms() - began, 4500);
	ck_assert(reaches(&a.done, 1));
	ck_assert_int_eq(a.call.err, ERR_UNKNOWN);
	/* And dialled again. */
	int again = accept(fd, NULL, NULL);
	ck_assert_int_ge(again, 0);
	close(again);
	close(at);
	close(fd);
	buf_fini(&hello);
	node_down(&world[0]);
}
END_TEST

/* Frames for another loop that stands still: what crosses over is bounded, nothing is lost. */
static void stand_still(void *arg)
{
	(void)arg;
	nap(300);
}

START_TEST(crossing_waits_for_a_slow_loop)
{
	world_init();
	two_up(1, 2);
	struct burst b = {.from = &world[0], .to = 2, .group = 1, .bytes = 1 << 20, .count = 15};
	loop_call(loops_at(world[1].loops, 1), stand_still, NULL);
	int total = 0;
	for (int i = 0; i < 10; i++) {
		do_on(loops_at(world[0].loops, 0), send_burst, &b);
		nap(50);
	}
	total = b.sent;
	ck_assert_int_gt(total, 20);
	/* A machine that stands still for 5 s loses the connection, and with it frames. */
	ck_assert(reaches(&world[1].frames, total) || world[0].downs > 0);
	ck_assert_int_eq(world[1].wrong_loop, 0);
	two_down();
}
END_TEST

/* --- probes --- */

struct probe {
	struct peer_probe q;
	struct world_node *from;
	atomic_int done;
};
static void on_probed(struct peer_probe *q)
{
	atomic_fetch_add(&list_entry(q, struct probe, q)->done, 1);
}
static void start_probe(void *arg)
{
	struct probe *p = arg;
	p->q.done = on_probed;
	peer_probe(p->from->peers, &p->q);
	ck_assert_int_eq(p->done, 0);
}

START_TEST(probes_tell_who_is_there)
{
	static struct probe p;
	static const uint8_t other[16] = "another-cluster-";
	world_init();
	node_up(&world[0]);
	node_up(&world[1]);
	peers_set_cluster(world[1].peers, other);
	peers_set_circle(world[1].peers, (const uint8_t *)"0123456789abcdef");
	heard(&world[1]);
	for (int i = 0; i < 2; i++) { /* another one, oneself */
		memset(&p, 0, sizeof p);
		p.from = &world[0];
		p.q.address = world[1 - i].address;
		do_on(loops_at(world[0].loops, 0), start_probe, &p);
		ck_assert(reaches(&p.done, 1));
		ck_assert_msg(p.q.err == OK, "%s", p.q.why);
		ck_assert_uint_eq(p.q.hello.node, i == 0 ? 2 : 1);
		ck_assert_int_eq(
			memcmp(p.q.hello.cluster, i == 0 ? other : (const uint8_t[16]){0}, 16), 0);
		ck_assert_int_eq(memcmp(p.q.hello.instance, world[1 - i].instance, 16), 0);
		ck_assert_mem_eq(p.q.hello.circle,
			i == 0 ? (const uint8_t *)"0123456789abcdef" : (const uint8_t[16]){0}, 16);
		ck_assert(bytes_equal(p.q.hello.address, bytes_text(world[1 - i].address)));
		slice_unref(&p.q.held);
	}
	memset(&p, 0, sizeof p);
	p.from = &world[0];
	p.q.address = "127.0.0.1:1";
	do_on(loops_at(world[0].loops, 0), start_probe, &p);
	ck_assert(reaches(&p.done, 1));
	ck_assert_int_eq(p.q.err, ERR_UNAVAILABLE);
	two_down();
}
END_TEST

/* --- TLS --- */

static void make_certificates(void)
{
	char command[1200];
	snprintf(world_folder, sizeof world_folder, "/tmp/peer_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(world_folder));
	snprintf(command, sizeof command,
		"cd %s; exec 2>make.log; set -e\n"
		"q='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256'\n"
		"for ca in ca other; do openssl req -x509 $q -keyout $ca.key -out $ca.pem -days 30 "
		"-subj /CN=$ca; done\n"
		"issue() { openssl req $q -keyout $1.key -out $1.csr -subj /CN=$1; openssl x509 "
		"-req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 20 -sha256 "
		"-out $1.pem; }\n"
		"issue one ca; issue two ca; issue stranger other\n",
		world_folder);
	ck_assert_int_eq(system(command), 0);
}
static void remove_certificates(void)
{
	char command[100];
	snprintf(command, sizeof command, "rm -rf %s", world_folder);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(speaks_tls)
{
	world_init();
	world[0].cert = "one";
	world[1].cert = "two";
	two_up(2, 3);
	struct burst b = {.from = &world[0], .to = 2, .group = 2, .bytes = 5 << 20, .count = 3};
	do_on(loops_at(world[0].loops, 0), send_burst, &b);
	b.bytes = 100;
	b.count = 1000;
	do_on(loops_at(world[0].loops, 1), send_burst, &b);
	ck_assert_int_eq(b.sent, 1003);
	ck_assert(reaches(&world[1].frames, 1003));
	ck_assert_int_eq(world[1].wrong_loop, 0);
	two_down();
}
END_TEST

/* A certificate of another authority; none at all (the one side without TLS). */
START_TEST(certificates_must_fit)
{
	world_init();
	world[0].cert = "one";
	world[1].cert = _i == 0 ? "stranger" : NULL;
	node_up(&world[0]);
	node_up(&world[1]);
	for (int i = 0; i < 2; i++)
		joins(&world[i]);
	tell_of(&world[0], &world[1], NULL);
	tell_of(&world[1], &world[0], NULL);
	const char *why = why_not(&world[0]);
	ck_assert_msg(strstr(why, "TLS") != NULL, "%s", why);
	why = why_not(&world[1]);
	ck_assert_msg(strstr(why, "TLS") != NULL || strstr(why, "closed") != NULL, "%s", why);
	ck_assert_int_eq(world[0].ups, 0);
	ck_assert_int_eq(world[1].ups, 0);
	two_down();
}
END_TEST

/* The library keeps points of elliptic curves per thread and gives them back to nobody. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:wc_ecc_new_point";
}

int main(void)
{
	Suite *s = suite_create("peer");
	TCase *tc = tcase_create("peer");
	log_setup(getenv("PEER_LOG") ? LOG_DEBUG : LOG_ERROR, false);
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, make_certificates, remove_certificates);
	tcase_add_loop_test(tc, frames_reach_the_home_loop_of_their_group, 0, 4);
	tcase_add_test(tc, large_frames_pass);
	tcase_add_loop_test(tc, queues_are_bounded, 0, 2);
	tcase_add_test(tc, bulk_does_not_drop_the_high_lane);
	tcase_add_test(tc, bulk_waits_for_room);
	tcase_add_loop_test(tc, calls_are_answered, 0, 3);
	tcase_add_test(tc, calls_that_fail);
	tcase_add_test(tc, stopping_ends_calls);
	tcase_add_loop_test(tc, refusals_are_told_on_both_sides, 0, 6);
	tcase_add_test(tc, a_new_name_is_the_same_cluster);
	tcase_add_test(tc, three_nodes);
	tcase_add_loop_test(tc, dialler_refuses, 0, 2);
	tcase_add_test(tc, a_node_that_says_hello_is_dialled);
	tcase_add_test(tc, a_node_left_out_is_not_removed);
	tcase_add_loop_test(tc, removed_data_is_told_so, 0, 2);
	tcase_add_loop_test(tc, any_data_is_let_in_until_a_list_names_it, 0, 4);
	tcase_add_loop_test(tc, the_same_data_runs_once, 0, 2);
	tcase_add_test(tc, a_node_is_found_at_another_address);
	tcase_add_test(tc, an_old_list_does_not_hide_where_a_node_is);
	tcase_add_test(tc, guests_may_join_and_nothing_else);
	tcase_add_test(tc, comes_back_after_a_restart);
	tcase_add_test(tc, strangers_are_shown_the_door);
	tcase_add_test(tc, silence_is_not_waited_for);
	tcase_add_test(tc, silent_peers_are_given_up);
	tcase_add_test(tc, crossing_waits_for_a_slow_loop);
	tcase_add_test(tc, probes_tell_who_is_there);
	tcase_add_test(tc, speaks_tls);
	tcase_add_loop_test(tc, certificates_must_fit, 0, 2);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
