/* For the tests of peers: several nodes in one process, each with loops, a door and peers of its
 * own, on loopback. */
#ifndef TESTS_PEER_WORLD_H
#define TESTS_PEER_WORLD_H
#pragma GCC diagnostic ignored "-Wunused-function"
#include <arpa/inet.h>
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "cluster/peer_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"

enum { WORLD_NODES = 3, WORLD_LOOPS_MAX = 4 };

struct world_node {
	uint32_t id;
	int loop_count;
	const char *cluster_name;
	uint8_t instance[16];
	const char *cert; /* NULL: no TLS */
	int64_t queue;
	uint64_t boot; /* 0: 7 */
	/* made by node_up */
	struct conf *conf;
	void *values;
	struct loops *loops;
	struct net *net;
	struct net_door door;
	struct peers *peers;
	char address[64];
	int port; /* 0: any */
	/* seen, over all loops */
	atomic_int ups, downs, frames, wrong_loop, asked;
	_Atomic uint64_t frame_bytes, sum;
	atomic_int rooms;
	atomic_int verdicts[PEER_VERDICT_COUNT];
	struct peer_watcher watchers[WORLD_LOOPS_MAX];
	struct peer_request *kept; /* of op FENCE: answered by the test */
};

static struct world_node world[WORLD_NODES];
static char world_folder[64];

static void nap(int ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}
static bool reaches(atomic_int *counter, int value)
{
	for (int i = 0; i < 30000 && atomic_load(counter) < value; i++)
		nap(1);
	return atomic_load(counter) >= value;
}
static bool reaches_u64(_Atomic uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < 30000 && atomic_load(counter) < value; i++)
		nap(1);
	return atomic_load(counter) >= value;
}

static void world_watch(struct peer_watcher *w, uint32_t node, bool up)
{
	struct world_node *n = NULL;
	for (int i = 0; i < WORLD_NODES; i++)
		if (w >= world[i].watchers && w < world[i].watchers + WORLD_LOOPS_MAX)
			n = &world[i];
	ck_assert(loop_here() == w->loop);
	ck_assert(peer_connected(n->peers, node) == up);
	atomic_fetch_add(up ? &n->ups : &n->downs, 1);
}

static void world_frame(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	struct world_node *n = arg;
	if (loop_index(loop_here()) != (int)(group % (uint64_t)n->loop_count))
		atomic_fetch_add(&n->wrong_loop, 1);
	uint64_t sum = 0;
	for (size_t i = 0; i < body.bytes.len; i += 509)
		sum += body.bytes.at[i];
	atomic_fetch_add(&n->sum, sum + from);
	atomic_fetch_add(&n->frame_bytes, body.bytes.len);
	atomic_fetch_add(&n->frames, 1);
}

static void world_judged(void *arg, enum peer_verdict v, uint32_t by, const char *words)
{
	struct world_node *n = arg;
	ck_assert(by != 0 && words[0] != 0);
	ck_assert_int_eq(loop_index(loop_here()), 0);
	atomic_fetch_add(&n->verdicts[v], 1);
}

/* Answers with what it was asked, backwards. */
static void world_serve(void *arg, struct peer_request *r)
{
	struct world_node *n = arg;
	struct slice part;
	if (r->op == PEER_OP_FENCE)
		n->kept = r; /* there for whoever has seen it counted */
	if (loop_index(r->loop) != (int)(r->group % (uint64_t)n->loop_count))
		atomic_fetch_add(&n->wrong_loop, 1);
	atomic_fetch_add(&n->asked, 1);
	if (r->op == PEER_OP_FENCE)
		return;
	ck_assert_int_eq(slice_copy(r->body.bytes, &part), OK);
	for (size_t i = 0; i < part.bytes.len; i++)
		part.chunk->data[i] = r->body.bytes.at[part.bytes.len - 1 - i];
	peer_answer(r, LANE_HIGH, r->op == PEER_OP_POINT ? ERR_NOTLEADER : OK, &part, 1);
}

static void node_conf_set(struct world_node *n, const char *key, const char *value)
{
	char why[200];
	ck_assert_int_eq(conf_set(n->conf, key, value, why, sizeof why), OK);
}

/* Opens its door; peers exist, but do not start. */
static void node_open_door(struct world_node *n)
{
	static const char *const off[] = {
		"listen.mqtt", "listen.amqp", "listen.http", "listen.kafka"};
	char text[160], why[300];
	n->conf = conf_new();
	n->values = mem_new(net_conf_bytes());
	conf_add(n->conf, net_rows, n->values);
	for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
		node_conf_set(n, off[i], "off");
	snprintf(text, sizeof text, "127.0.0.1:%d", n->port);
	node_conf_set(n, "listen.peer", text);
	node_conf_set(n, "conn.linger_ms", "200");
	if (n->cert != NULL) {
		snprintf(text, sizeof text, "%s/%s.pem", world_folder, n->cert);
		node_conf_set(n, "tls.cert", text);
		snprintf(text, sizeof text, "%s/%s.key", world_folder, n->cert);
		node_conf_set(n, "tls.key", text);
		snprintf(text, sizeof text, "%s/ca.pem", world_folder);
		node_conf_set(n, "tls.ca", text);
	}
	conf_apply(n->conf, true);
	n->loops = loops_new(n->loop_count);
	n->door = (struct net_door){
		.name = "peer", .kind = &peer_kind_in, .mutual = n->cert != NULL};
	enum err e = net_open(n->loops, n->values, &n->door, 1, &n->net, why, sizeof why);
	ck_assert_msg(e == OK, "%s", why);
	snprintf(n->address, sizeof n->address, "%s", net_addresses(n->net, "peer", false, false));
}

static void node_up(struct world_node *n)
{
	node_open_door(n);
	struct peers_conf conf = {.node = n->id,
		.boot = n->boot ? n->boot : 7,
		.cluster_name = n->cluster_name ? n->cluster_name : "test",
		.name = "n",
		.rack = "r",
		.address = n->address,
		.tls = n->cert != NULL,
		.queue_bytes_max = n->queue ? n->queue : 16 << 20};
	memcpy(conf.instance, n->instance, 16);
	n->peers = peers_new(&conf, n->loops);
	n->door.arg = n->peers;
	peers_handle(n->peers, PEER_RAFT, world_frame, n);
	peers_on_verdict(n->peers, loops_at(n->loops, 0), world_judged, n);
	peers_serve(n->peers, PEER_OP_INFO, world_serve, n);
	peers_serve(n->peers, PEER_OP_POINT, world_serve, n);
	peers_serve(n->peers, PEER_OP_JOIN, world_serve, n);
	peers_serve(n->peers, PEER_OP_FENCE, world_serve, n);
	for (int i = 0; i < n->loop_count; i++) {
		n->watchers[i] = (struct peer_watcher){
			.loop = loops_at(n->loops, i), .changed = world_watch};
		peers_watch(n->peers, &n->watchers[i]);
	}
	loops_run(n->loops);
	peers_start(n->peers, n->net);
	net_listen(n->net);
}

static void node_down(struct world_node *n)
{
	net_drain(n->net, 1000);
	peers_stop(n->peers);
	ck_assert_int_eq(atomic_load(&n->peers->conns), 0);
	loops_stop(n->loops);
	net_free(n->net);
	peers_free(n->peers);
	loops_free(n->loops);
	conf_free(n->conf);
	mem_free(n->values);
}

static void world_init(void)
{
	static bool registered;
	memset(world, 0, sizeof world);
	for (int i = 0; i < WORLD_NODES; i++) {
		world[i].id = (uint32_t)i + 1;
		world[i].loop_count = 2;
		memset(world[i].instance, 'a' + i, 16);
	}
	if (!registered) {
		metric_register(&net_metrics);
		metric_register(&peer_metrics);
	}
	registered = true;
}

static const uint8_t world_cluster[16] = "the-cluster-of-1";

/* Node a is told of b, with b's instance. */
static void tell_of(struct world_node *a, const struct world_node *b, const uint8_t *instance)
{
	peers_set_nodes(a->peers,
		&(struct peer_node){.id = b->id, .address = b->address, .instance = instance}, 1);
}

/* --- things done on a loop, waited for --- */

struct on_loop {
	struct loop_msg msg;
	void (*fn)(void *arg);
	void *arg;
	atomic_int done;
};
static void run_on_loop(struct loop_msg *m)
{
	struct on_loop *o = list_entry(m, struct on_loop, msg);
	o->fn(o->arg);
	atomic_store(&o->done, 1);
}
static void do_on(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct on_loop o = {.msg.run = run_on_loop, .fn = fn, .arg = arg};
	loop_post(l, &o.msg);
	ck_assert(reaches(&o.done, 1));
	nap(1); /* the store is the last thing it does with o */
}

static void nothing(void *arg)
{
	(void)arg;
}
/* What peers were told before is known to all loops: who connects sooner is closed when the loop
 * hears of its cluster. */
static void heard(const struct world_node *n)
{
	for (int i = 0; i < n->loop_count; i++)
		do_on(loops_at(n->loops, i), nothing, NULL);
}

static void joins(const struct world_node *n)
{
	peers_set_cluster(n->peers, world_cluster);
	heard(n);
}

/* A port for a node that will come again at it: of those that nobody is given who asks for any. */
static int own_port(void)
{
	enum { FIRST = 12000, COUNT = 8000 };
	for (int i = 0; i < COUNT; i++) {
		int port = FIRST + (getpid() + i * 7) % COUNT;
		struct sockaddr_in sa = {.sin_family = AF_INET,
			.sin_port = htons((uint16_t)port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		bool is_free = bind(fd, (const struct sockaddr *)&sa, sizeof sa) == 0;
		close(fd);
		if (is_free)
			return port;
	}
	ck_abort_msg("no port");
	return 0;
}

/* Nodes 1 and 2 with these numbers of loops, of one cluster, connected both ways. */
static void two_up(int loops_1, int loops_2)
{
	world[0].loop_count = loops_1;
	world[1].loop_count = loops_2;
	for (int i = 0; i < 2; i++) {
		node_up(&world[i]);
		joins(&world[i]);
	}
	tell_of(&world[0], &world[1], world[1].instance);
	tell_of(&world[1], &world[0], world[0].instance);
	ck_assert(reaches(&world[0].ups, loops_1));
	ck_assert(reaches(&world[1].ups, loops_2));
}

static void two_down(void)
{
	node_down(&world[0]);
	node_down(&world[1]);
}

struct burst { /* frames to be sent from one loop */
	struct world_node *from;
	uint32_t to;
	enum peer_lane lane;
	uint64_t group;
	size_t bytes;
	int count, sent;
};
static void send_burst(void *arg)
{
	struct burst *b = arg;
	for (int i = 0; i < b->count; i++) {
		struct slice parts[2];
		struct chunk *k = chunk_try(b->bytes);
		ck_assert_ptr_nonnull(k);
		memset(k->data, i & 0x7f, b->bytes);
		parts[0] = slice_of(k, bytes_of(k->data, b->bytes / 2));
		parts[1] = (struct slice){
			k, bytes_of(k->data + b->bytes / 2, b->bytes - b->bytes / 2)};
		b->sent += peers_send(
			b->from->peers, b->to, b->lane, PEER_RAFT, b->group, parts, 2);
	}
}

struct asked { /* a call and what came of it */
	struct peer_call call;
	struct world_node *from;
	const char *text;
	atomic_int done;
	bool inside;
	char answer[64];
};
static void on_asked(struct peer_call *c)
{
	struct asked *a = list_entry(c, struct asked, call);
	ck_assert(!a->inside);
	ck_assert(loop_here() == c->from);
	snprintf(a->answer, sizeof a->answer, "%.*s", (int)c->answer.bytes.len,
		(const char *)c->answer.bytes.at);
	slice_unref(&c->answer);
	atomic_fetch_add(&a->done, 1);
}
static void ask(void *arg)
{
	struct asked *a = arg;
	struct slice part;
	ck_assert_int_eq(slice_copy(bytes_text(a->text), &part), OK);
	a->call.parts = &part;
	a->call.part_count = 1;
	a->call.done = on_asked;
	a->inside = true;
	peer_call(a->from->peers, &a->call);
	a->inside = false;
}

#endif
