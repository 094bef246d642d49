/* Nodes in one process: each has its store, writer and home; all homes are loop 0's, those who ask
 * are on loop 1. The peers are a stand-in that carries frames as posted messages, and loses them
 * when the test says so. Included by one .c of a test binary. */
#ifndef TESTS_REMOTE_WORLD_H
#define TESTS_REMOTE_WORLD_H
#include <unistd.h>
#include "cluster/remote.h"
#include "storage/store_priv.h"
#include "tests/unit/cluster/partition_world.h"

enum { NODES = 4, GROUP = 1024 };

struct peers {
	uint32_t node;
	peer_handler handler[PEER_KIND_COUNT];
	void *handler_arg[PEER_KIND_COUNT];
	peer_server server[PEER_OP_COUNT];
	void *server_arg[PEER_OP_COUNT];
	struct peer_watcher *watcher;
	struct list calls;
	struct list rooms;
};

struct node {
	struct store *store;
	struct writer *writer;
	struct tail_cache *cache;
	struct plog_env env;
	struct partition_home *home;
	struct partition *p;
	struct partition_finder finder;
	struct peers peers;
};

static struct net_world {
	struct loops *loops;
	struct workers *workers;
	struct partition_limits limits;
	struct node node[NODES + 1]; /* from 1 */
	sem_t done;
	uint64_t next_call;
	/* loop 0's, once loops run: */
	bool cut[NODES + 1][NODES + 1];
	int lose; /* one of so many frames; 0: none */
	int no_bulk;
	uint32_t hold;     /* frames to this node stay on their way until let_go */
	uint8_t hold_kind; /* only Raft's of this kind; 0: all */
	struct list held;
	size_t tail_bytes; /* of each node's tail in memory */
	_Atomic int hung;  /* the node whose disk takes nothing for now; 0: none */
	uint64_t frames, lost, calls;
} N;

static void on_loop(int loop, void (*fn)(void *arg), void *arg)
{
	loop_call(loops_at(N.loops, loop), fn, arg);
	while (sem_wait(&N.done) != 0)
		;
}

/* --- disks --- */

static struct store_ops hanging_ops;
static const struct store_ops *mem_ops;

static enum err hanging_write(struct store *s, struct store_batch *b)
{
	int hung;

	while ((hung = atomic_load(&N.hung)) != 0 && N.node[hung].store == s)
		usleep(1000);
	return mem_ops->write(s, b);
}

static void may_hang(struct store *s)
{
	if (mem_ops == NULL) { /* once: writers of other nodes look at them */
		mem_ops = s->ops;
		hanging_ops = *mem_ops;
		hanging_ops.write = hanging_write;
	}
	s->ops = &hanging_ops;
}

/* --- the network --- */

static struct slice join(struct slice *parts, int count)
{
	size_t len = 0, at = 0;
	struct slice out;
	struct chunk *c;

	for (int i = 0; i < count; i++)
		len += parts[i].bytes.len;
	c = chunk_try(len);
	ck_assert_ptr_nonnull(c);
	for (int i = 0; i < count; i++) {
		if (parts[i].bytes.len > 0)
			memcpy(c->data + at, parts[i].bytes.at, parts[i].bytes.len);
		at += parts[i].bytes.len;
		slice_unref(&parts[i]);
	}
	out = slice_of(c, bytes_of(c->data, len));
	chunk_unref(c);
	return out;
}

static bool dropped(uint32_t from, uint32_t to)
{
	static uint32_t state = 12345;

	N.frames++;
	if (N.cut[from][to])
		return true;
	state = state * 1664525u + 1013904223u;
	if (N.lose == 0 || (state >> 8) % (uint32_t)N.lose != 0)
		return false;
	N.lost++;
	return true;
}

struct frame {
	struct loop_msg msg;
	struct list node; /* N.held */
	uint32_t from, to;
	enum peer_kind kind;
	uint64_t group;
	struct slice body;
};

static void frame_arrives(struct loop_msg *m)
{
	struct frame *f = list_entry(m, struct frame, msg);
	struct peers *p = &N.node[f->to].peers;

	if (p->handler[f->kind] != NULL)
		p->handler[f->kind](p->handler_arg[f->kind], f->from, f->group, f->body);
	slice_unref(&f->body);
	mem_free(f);
}

bool peers_send(struct peers *p, uint32_t node, enum peer_lane lane, enum peer_kind kind,
	uint64_t group, struct slice *parts, int count)
{
	struct frame *f;
	struct slice body = join(parts, count);

	(void)lane;
	if (node == 0 || node > NODES || dropped(p->node, node)) {
		slice_unref(&body);
		return false;
	}
	f = mem_new(sizeof *f);
	*f = (struct frame){
		.from = p->node, .to = node, .kind = kind, .group = group, .body = body};
	f->msg.run = frame_arrives;
	if (node == N.hold &&
		(N.hold_kind == 0 || (kind == PEER_RAFT && body.bytes.at[1] == N.hold_kind)))
		list_push_back(&N.held, &f->node);
	else
		loop_post(loops_at(N.loops, 0), &f->msg);
	return true;
}

/* On loop 0: what was held arrives, in order. */
static inline void let_go(void)
{
	struct list *n;

	N.hold = 0;
	while ((n = list_pop(&N.held)) != NULL)
		loop_post(loops_at(N.loops, 0), &list_entry(n, struct frame, node)->msg);
}

struct carried { /* a call, or its answer */
	struct loop_msg msg;
	uint32_t from, to;
	uint64_t id;
	enum peer_op op;
	uint64_t group;
	enum err err;
	struct slice body;
};

static void call_ends(struct peers *p, uint64_t id, enum err e, struct slice answer)
{
	for (struct list *n = p->calls.next; n != &p->calls; n = n->next) {
		struct peer_call *c = list_entry(n, struct peer_call, node);

		if (c->id != id)
			continue;
		list_remove(n);
		c->err = e;
		c->answer = answer;
		c->done(c);
		return;
	}
	slice_unref(&answer);
}

static void answer_arrives(struct loop_msg *m)
{
	struct carried *k = list_entry(m, struct carried, msg);

	call_ends(&N.node[k->to].peers, k->id, k->err, k->body);
	mem_free(k);
}

static void call_arrives(struct loop_msg *m)
{
	struct carried *k = list_entry(m, struct carried, msg);
	struct peers *p = &N.node[k->to].peers;
	struct peer_request *r = mem_new(sizeof *r);

	*r = (struct peer_request){.from = k->from,
		.op = k->op,
		.group = k->group,
		.id = k->id,
		.loop = loops_at(N.loops, 0),
		.body = k->body,
		.peers = p};
	mem_free(k);
	p->server[r->op](p->server_arg[r->op], r);
}

static void carry(struct carried *k, void (*run)(struct loop_msg *m))
{
	k->msg.run = run;
	loop_post(loops_at(N.loops, 0), &k->msg);
}

void peer_call(struct peers *p, struct peer_call *c)
{
	struct carried *k = mem_new(sizeof *k);
	bool gone = c->to == 0 || c->to > NODES || N.cut[p->node][c->to];

	N.calls++;
	c->id = ++N.next_call;
	list_push_back(&p->calls, &c->node);
	*k = (struct carried){.from = p->node,
		.to = c->to,
		.id = c->id,
		.op = c->op,
		.group = c->group,
		.body = join(c->parts, c->part_count)};
	if (!gone && !dropped(p->node, c->to)) {
		carry(k, call_arrives);
		return;
	}
	slice_unref(&k->body);
	k->to = p->node;
	k->err = gone ? ERR_UNAVAILABLE : ERR_UNKNOWN;
	carry(k, answer_arrives);
}

void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count)
{
	struct carried *k = mem_new(sizeof *k);

	(void)lane;
	*k = (struct carried){.from = r->peers->node,
		.to = r->from,
		.id = r->id,
		.err = e,
		.body = join(parts, count)};
	if (dropped(k->from, k->to)) {
		slice_unref(&k->body);
		k->err = ERR_UNKNOWN;
	}
	carry(k, answer_arrives);
	slice_unref(&r->body);
	mem_free(r);
}

void peers_handle(struct peers *p, enum peer_kind kind, peer_handler fn, void *arg)
{
	p->handler[kind] = fn;
	p->handler_arg[kind] = arg;
}
void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	p->server[op] = fn;
	p->server_arg[op] = arg;
}
void peers_watch(struct peers *p, struct peer_watcher *w)
{
	p->watcher = w;
}
void peers_unwatch(struct peers *p, struct peer_watcher *w)
{
	(void)w;
	p->watcher = NULL;
}
bool peer_connected(const struct peers *p, uint32_t node)
{
	return node > 0 && node <= NODES && node != p->node && !N.cut[p->node][node];
}
bool peer_bulk_room(struct peers *p, uint32_t node, struct peer_room *w)
{
	(void)node;
	if (N.no_bulk == 0)
		return true;
	N.no_bulk--;
	list_push_back(&p->rooms, &w->node);
	return false;
}
void peer_room_cancel(struct peer_room *w)
{
	list_remove(&w->node);
}

/* Connections between two nodes are lost or come back: calls under way end. */
static void connect_nodes(uint32_t a, uint32_t b, bool up)
{
	N.cut[a][b] = N.cut[b][a] = !up;
	for (int i = 0; i < 2; i++) {
		struct peers *p = &N.node[i ? b : a].peers;
		uint32_t other = i ? a : b;
		struct list ended, *n, *next;

		list_init(&ended);
		for (n = p->calls.next; !up && n != &p->calls; n = next) {
			next = n->next;
			if (list_entry(n, struct peer_call, node)->to != other)
				continue;
			list_remove(n);
			list_push_back(&ended, n);
		}
		while ((n = list_pop(&ended)) != NULL) {
			struct peer_call *c = list_entry(n, struct peer_call, node);

			c->err = ERR_UNKNOWN;
			c->answer = (struct slice){NULL, {NULL, 0}};
			c->done(c);
		}
		if (p->watcher != NULL)
			p->watcher->changed(p->watcher, other, up);
	}
}

/* --- nodes --- */

static struct partition *find(void *arg, uint64_t group)
{
	const struct node *n = arg;

	return group == GROUP ? n->p : NULL;
}

static uint64_t replica_of(int node)
{
	return (uint64_t)node << 32 | 1;
}

static struct partition_options options_of(int node, int replicas)
{
	static uint64_t founders[NODES];

	for (int i = 0; i < NODES; i++)
		founders[i] = replica_of(i + 1);
	return (struct partition_options){.env = &N.node[node].env,
		.group = GROUP,
		.replica = node <= replicas ? replica_of(node) : 0,
		.log_family = FAMILY_LOG_DAYS,
		.peers = &N.node[node].peers,
		.founders = node <= replicas ? founders : NULL,
		.founder_count = replicas};
}

static void node_start(int id, int replicas)
{
	struct node *n = &N.node[id];
	struct loop *l = loops_at(N.loops, 0);
	struct partition_options o;

	ck_assert_int_eq(store_open_mem((uint64_t)id, &n->store), OK);
	may_hang(n->store);
	n->writer = writer_new(n->store, N.loops);
	n->cache = tail_cache_new(N.tail_bytes);
	n->env = (struct plog_env){
		l, n->store, writer_lane(n->writer, l), n->cache, N.workers, NULL, NULL};
	n->peers = (struct peers){.node = (uint32_t)id};
	list_init(&n->peers.calls);
	list_init(&n->peers.rooms);
	n->home = partition_home_new(l, &N.limits);
	partition_home_connect(n->home, &n->peers);
	partition_home_start(n->home);
	n->finder = (struct partition_finder){find, n};
	partitions_serve(&n->peers, &n->finder);
	o = options_of(id, replicas);
	n->p = partition_new(n->home, &o);
	/* Nobody fetches snapshots here: whoever was away finds all entries in the leader's log. */
	n->p->consensus_options.snapshot_threshold = 1 << 20;
	ck_assert_int_eq(partition_open(n->p), OK);
}

static inline void isolate_run(void *arg)
{
	uint32_t a = *(uint32_t *)arg;

	for (uint32_t b = 1; b <= NODES; b++)
		if (a != b)
			connect_nodes(a, b, false);
	sem_post(&N.done);
}

static void connect_all(void *arg)
{
	(void)arg;
	for (uint32_t a = 1; a <= NODES; a++)
		for (uint32_t b = a + 1; b <= NODES; b++)
			connect_nodes(a, b, true);
	sem_post(&N.done);
}

static void world_up(int replicas, size_t tail_bytes)
{
	static bool registered;

	if (!registered)
		metric_register(&node_metrics);
	registered = true;
	memset((void *)&N, 0, sizeof N);
	list_init(&N.held);
	consensus_process_init();
	sem_init(&N.done, 0, 0);
	N.limits = (struct partition_limits){1 << 20, 4 << 20};
	N.tail_bytes = tail_bytes;
	N.loops = loops_new(2);
	N.workers = workers_new(2);
	for (int i = 1; i <= NODES; i++)
		node_start(i, replicas);
	loops_run(N.loops);
	on_loop(0, connect_all, NULL);
}

static void closed(void *arg)
{
	(void)arg;
	sem_post(&N.done);
}
static void close_run(void *arg)
{
	partition_close(((struct node *)arg)->p, false, closed, NULL);
}
static void home_stop_run(void *arg)
{
	partition_home_stop(((struct node *)arg)->home);
	sem_post(&N.done);
}
static void quiet(void *arg)
{
	(void)arg;
	N.lose = 0;
	sem_post(&N.done);
}

static void world_down(void)
{
	on_loop(0, quiet, NULL);
	for (int i = 1; i <= NODES; i++)
		on_loop(0, close_run, &N.node[i]);
	for (int i = 1; i <= NODES; i++)
		on_loop(0, home_stop_run, &N.node[i]);
	loops_stop(N.loops);
	for (int i = 1; i <= NODES; i++) {
		ck_assert(list_empty(&N.node[i].peers.calls));
		partition_unref(N.node[i].p);
		partition_home_free(N.node[i].home);
		writer_stop(N.node[i].writer);
		tail_cache_free(N.node[i].cache);
	}
	workers_free(N.workers);
	loops_free(N.loops);
	for (int i = 1; i <= NODES; i++) {
		writer_free(N.node[i].writer);
		store_close(N.node[i].store);
	}
	sem_destroy(&N.done);
}

static int leader_now(void)
{
	for (int i = 1; i <= NODES; i++)
		if (partition_leads(N.node[i].p))
			return i;
	return 0;
}

static int leader_wait(void)
{
	for (int i = 0; i < 1000 && leader_now() == 0; i++)
		usleep(10000);
	ck_assert_int_ne(leader_now(), 0);
	return leader_now();
}

#endif
