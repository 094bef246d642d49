/* How an empty node finds its cluster, by its seeds. All of them are asked who they are:
 *
 *	one has a cluster        ask it to let this node join; its leader decides
 *	all answer, all empty    the lowest node.id founds the cluster, the others wait for it
 *	else                     wait: a cluster may be behind the one that is silent
 *
 * With lists that differ two nodes might each be the lowest they know of. So a node says in its
 *hello whom it would found with, its circle: the instances of its seeds and its own, each once,
 *xored. It founds only when all its seeds say the same circle as its own: two that found then have
 *no node in common. One whose list is shorter (itself alone) may found, the others join it.
 *
 * A seed that turns out to be this node itself counts as this node. To join is a change of the
 * catalogue like any other, proposed by whoever was asked; the answer names the replica that
 * follows the catalogue here, and whom to be connected with. The cluster is written down before
 * that replica comes to be: a node that is of a cluster never founds one.
 *
 * A node with data asks its seeds, too, while it has no leader: they may have moved to other
 * addresses, or be of another cluster, and then waiting would not help. */
#include <stdarg.h>
#include <stdio.h>
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"

enum {
	SEEDS_MAX = 16,
	ADDRESS_BYTES = 136,
	ASK_AGAIN_MS = 300,
	ASK_SOON_MS = 50, /* seeds have just come up, and do not know theirs yet */
	SOON_TIMES = 20,
	LOG_EVERY_MS = 5000,
	JOIN_TIMEOUT_MS = 5000,
	CONNECT_MS = 3000,
	CONNECT_LOOK_MS = 10,
	NO_ROWS_MS = 20000, /* joined, and nothing comes of the catalogue: asked again */
	ANSWER_NODES_BYTES = 64 << 10
};

enum found_state {
	FOUND_NOT,     /* nothing to do */
	FOUND_WAITS,   /* until next_ms */
	FOUND_PROBES,  /* seeds are asked who they are */
	FOUND_JOINS,   /* one is asked to let this node in */
	FOUND_WRITES,  /* which cluster it is */
	FOUND_ATTACHES /* the replica of the catalogue */
};

struct seed {
	struct peer_probe probe;
	struct found *found;
	char address[ADDRESS_BYTES];
	bool own;
};

struct found {
	struct node *node;
	enum found_state state;
	bool stopped, asked;
	struct seed seeds[SEEDS_MAX];
	int seed_count, pending;
	int64_t next_ms, logged_ms, joined_ms;
	unsigned turn; /* not always the same seed is asked */
	uint8_t circle[16];
	int soon; /* how often it was asked again soon */
	/* Who is to be asked to let this node in, once it is connected; id 0: nobody yet. */
	uint32_t target;
	char target_address[ADDRESS_BYTES];
	int64_t target_ms;
	struct peer_call call;
	uint64_t replica;
	bool founds;
};

/* --- waiting --- */

static void again(struct found *f, int64_t ms)
{
	f->state = FOUND_WAITS;
	f->next_ms = loop_now_ms(f->node->home) + ms;
	node_end_if_idle(f->node);
}

__attribute__((format(printf, 2, 3))) static void wait_for(struct found *f, const char *format, ...)
{
	int64_t now = loop_now_ms(f->node->home);
	char line[160];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	node_say_why(f->node, "%s", line);
	if (now - f->logged_ms >= LOG_EVERY_MS || f->logged_ms == 0) {
		LOG(LOG_INFO, AREA_CLUSTER, "joining", "why=\"%s\"", line);
		f->logged_ms = now;
	}
	again(f, ASK_AGAIN_MS);
}

static bool none(const uint8_t id[16])
{
	static const uint8_t zeros[16];

	return memcmp(id, zeros, sizeof zeros) == 0;
}

/* --- joining --- */

static void attach(struct found *f, uint64_t replica, bool founds)
{
	f->state = FOUND_ATTACHES;
	node_attach_meta(f->node, replica, founds);
}

void found_attached(struct found *f, enum err e)
{
	if (f->state != FOUND_ATTACHES)
		return;
	if (e != OK) {
		wait_for(f, "the catalogue can't be kept here: %s", err_text(e));
		return;
	}
	f->joined_ms = loop_now_ms(f->node->home);
	again(f, ASK_AGAIN_MS);
}

static void written(struct node *n, enum err e)
{
	struct found *f = n->found;

	if (f->state != FOUND_WRITES)
		return;
	if (e != OK)
		wait_for(f, "data.dir: %s", err_text(e));
	else
		attach(f, f->replica, f->founds);
}

/* The answer knows where nodes are now, but may be older than the catalogue here: what only that
 * names stays. */
static void take_nodes(struct found *f, struct rd *r)
{
	struct peer_node nodes[MODEL_PEERS_MAX];
	char addresses[META_NODES_MAX][ADDRESS_BYTES];
	uint32_t count = rd_count(r, rd_u16be(r), 22);
	int taken = 0;

	for (uint32_t i = 0; i < count && i < META_NODES_MAX && r->err == OK; i++) {
		uint32_t id = rd_u32be(r);
		struct bytes instance = rd_take(r, 16), address = rd_take(r, rd_u16be(r));

		if (r->err != OK || address.len >= ADDRESS_BYTES ||
			id == (uint32_t)f->node->conf.id)
			continue;
		snprintf(addresses[taken], ADDRESS_BYTES, "%.*s", (int)address.len,
			(const char *)address.at);
		nodes[taken] = (struct peer_node){
			.id = id, .address = addresses[taken], .instance = instance.at};
		taken++;
	}
	if (rd_done(r) == OK)
		peers_set_nodes(f->node->peers, nodes, model_add_peers(f->node, nodes, taken));
}

static void joined(struct found *f, struct bytes answer)
{
	struct node *n = f->node;
	struct rd r = rd_over(answer);
	struct meta_joined j;

	if (meta_joined_decode(rd_take(&r, 24), &j) != OK) {
		wait_for(f, "the answer to joining is malformed");
		return;
	}
	peers_set_cluster(n->peers, j.cluster);
	take_nodes(f, &r);
	LOG(LOG_INFO, AREA_CLUSTER, "joined", "node=%lld by=%u", (long long)n->conf.id, f->call.to);
	if (n->meta_replica != 0 && n->meta_replica == j.replica) {
		f->joined_ms = loop_now_ms(n->home);
		again(f, ASK_AGAIN_MS);
		return;
	}
	memcpy(n->identity.cluster, j.cluster, sizeof n->identity.cluster);
	f->replica = j.replica;
	f->founds = false;
	f->state = FOUND_WRITES;
	if (n->identity_busy)
		again(f, ASK_AGAIN_MS);
	else
		node_write_identity(n, written);
}

static void join_answered(struct peer_call *c)
{
	struct found *f = list_entry(c, struct found, call);
	struct slice answer = c->answer;
	struct bytes text = answer.bytes;

	c->answer = (struct slice){NULL, {NULL, 0}};
	if (f->stopped) {
		f->state = FOUND_NOT;
		node_end_if_idle(f->node);
	} else if (c->err == OK) {
		joined(f, text);
	} else if (c->err == ERR_EXISTS || c->err == ERR_DENIED) {
		LOG(LOG_ERROR, AREA_CLUSTER, "join_refused", "by=%u why=\"%s\"", c->to,
			node_line(text).text);
		node_fail(f->node, "refused by node %u: %s", c->to,
			text.len > 0 ? node_line(text).text : err_text(c->err));
		f->state = FOUND_NOT;
	} else {
		wait_for(f, "joining by node %u: %s", c->to,
			text.len > 0 ? node_line(text).text : err_text(c->err));
	}
	slice_unref(&answer);
}

static void ask_to_join(struct found *f)
{
	struct node *n = f->node;
	struct meta_node self;
	struct meta_request q = {.kind = META_JOIN, .node_id = (uint32_t)n->conf.id, .node = &self};
	struct slice part;
	struct buf b;

	model_gather_node(n, &self);
	buf_init(&b, 1 << 20);
	meta_request_encode(&q, &b);
	must(b.err == OK);
	part = buf_share(&b);
	buf_fini(&b);
	f->state = FOUND_JOINS;
	f->call = (struct peer_call){.to = f->target,
		.op = PEER_OP_JOIN,
		.group = META_GROUP_ID,
		.parts = &part,
		.part_count = 1,
		.timeout_ms = JOIN_TIMEOUT_MS,
		.done = join_answered};
	f->target = 0;
	peer_call(n->peers, &f->call);
}

static void join(struct found *f, const struct seed *s)
{
	struct peer_node to = {.id = s->probe.hello.node, .address = f->target_address};

	memcpy(f->target_address, s->address, sizeof f->target_address);
	f->target = to.id;
	f->target_ms = loop_now_ms(f->node->home) + CONNECT_MS;
	if (!peer_connected(f->node->peers, to.id)) /* else others are left as they are */
		peers_set_nodes(f->node->peers, &to, 1);
	again(f, CONNECT_LOOK_MS);
}

/* The connection to it opens by itself. */
static bool await_target(struct found *f, int64_t now_ms)
{
	if (f->target == 0)
		return false;
	if (peer_connected(f->node->peers, f->target)) {
		ask_to_join(f);
		return true;
	}
	if (now_ms < f->target_ms) {
		again(f, CONNECT_LOOK_MS);
		return true;
	}
	wait_for(f, "no connection with node %u at %s: the log says why (peer_unreachable)",
		f->target, f->target_address);
	f->target = 0;
	return true;
}

/* --- what the seeds say --- */

/* Two nodes with one id and no cluster that could tell which is right: one of them ends. */
static bool same_id(struct found *f)
{
	struct node *n = f->node;

	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *s = &f->seeds[i];

		if (s->probe.err != OK || s->own || s->probe.hello.node != (uint32_t)n->conf.id)
			continue;
		if (memcmp(n->identity.instance, s->probe.hello.instance, 16) > 0) {
			node_fail(n, "node.id %u is in use by the node at %s", s->probe.hello.node,
				s->address);
			f->state = FOUND_NOT;
		} else {
			wait_for(f, "the node at %s has this node's id %u", s->address,
				s->probe.hello.node);
		}
		return true;
	}
	return false;
}

static const struct seed *with_cluster(const struct found *f)
{
	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *s = &f->seeds[(i + (int)(f->turn % 64)) % f->seed_count];

		if (s->probe.err == OK && !s->own && !none(s->probe.hello.cluster))
			return s;
	}
	return NULL;
}

/* The instances of all seeds and its own, each once; zeros when a seed did not answer. */
static void circle_of(const struct found *f, uint8_t out[16])
{
	memcpy(out, f->node->identity.instance, 16);
	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *s = &f->seeds[i];
		bool counted = s->own;

		if (s->probe.err != OK) {
			memset(out, 0, 16);
			return;
		}
		for (int k = 0; k < i && !counted; k++)
			counted = memcmp(f->seeds[k].probe.hello.instance, s->probe.hello.instance,
					  16) == 0;
		for (int k = 0; k < 16 && !counted; k++)
			out[k] ^= s->probe.hello.instance[k];
	}
}

static void tell_circle(struct found *f)
{
	uint8_t circle[16];

	circle_of(f, circle);
	if (memcmp(circle, f->circle, sizeof circle) == 0)
		return;
	memcpy(f->circle, circle, sizeof circle);
	peers_set_circle(f->node->peers, circle);
}

/* Whether all seeds would found with the same nodes as this one. */
static bool agreed(struct found *f)
{
	const struct seed *unknown = NULL;

	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *s = &f->seeds[i];

		if (s->own || memcmp(s->probe.hello.circle, f->circle, 16) == 0)
			continue;
		if (!none(s->probe.hello.circle)) {
			wait_for(f,
				"node %u at %s has other seeds: give all nodes the same "
				"cluster.seeds",
				s->probe.hello.node, s->address);
			return false;
		}
		unknown = s;
	}
	if (unknown == NULL)
		return true;
	if (f->soon++ < SOON_TIMES)
		again(f, ASK_SOON_MS);
	else
		wait_for(f, "waiting for node %u at %s to find its seeds",
			unknown->probe.hello.node, unknown->address);
	return false;
}

static void founds_or_waits(struct found *f)
{
	struct node *n = f->node;
	uint32_t lowest = (uint32_t)n->conf.id;
	const char *at = "";

	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *s = &f->seeds[i];

		if (s->probe.err != OK) {
			wait_for(f, "waiting for seed %s: %s", s->address, s->probe.why);
			return;
		}
		if (s->probe.hello.node < lowest) {
			lowest = s->probe.hello.node;
			at = s->address;
		}
	}
	if (!agreed(f))
		return;
	if (lowest != (uint32_t)n->conf.id) {
		wait_for(f, "waiting for node %u at %s to found the cluster", lowest, at);
		return;
	}
	LOG(LOG_INFO, AREA_CLUSTER, "founding", "node=%lld seeds=%d", (long long)n->conf.id,
		f->seed_count);
	attach(f, (uint64_t)n->conf.id << 32 | 1, true);
}

/* This node has a catalogue, but no leader of it: seeds only help to find the others, which may be
 * at other addresses than the catalogue knows. */
static void compare(struct found *f)
{
	struct node *n = f->node;
	const struct seed *s = with_cluster(f);

	for (int i = 0; i < f->seed_count; i++) {
		const struct seed *k = &f->seeds[i];

		if (k->probe.err == OK && !k->own &&
			memcmp(k->probe.hello.cluster, n->identity.cluster, 16) == 0)
			peers_found_at(n->peers, k->probe.hello.node, k->address);
	}

	if (s != NULL && !n->founded && loop_now_ms(n->home) - f->joined_ms > NO_ROWS_MS) {
		join(f, s);
		return;
	}
	if (s == NULL)
		wait_for(f, "no leader of the catalogue is known");
	else
		again(f, ASK_AGAIN_MS * 3);
}

static bool other_name(struct found *f, const struct seed *s)
{
	const char *name = f->node->conf.cluster_name;

	if (bytes_equal(bytes_text(name), s->probe.hello.cluster_name))
		return false;
	wait_for(f, "node %u at %s is of cluster '%.*s', this node of '%s' (cluster.name)",
		s->probe.hello.node, s->address, (int)s->probe.hello.cluster_name.len,
		(const char *)s->probe.hello.cluster_name.at, name);
	return true;
}

static void decide(struct found *f)
{
	struct node *n = f->node;
	const struct seed *s;

	for (int i = 0; i < f->seed_count; i++) {
		s = &f->seeds[i];
		if (s->probe.err != OK || s->own || none(s->probe.hello.cluster) ||
			!identity_has_cluster(&n->identity) ||
			memcmp(s->probe.hello.cluster, n->identity.cluster, 16) == 0)
			continue;
		LOG(LOG_ERROR, AREA_CLUSTER, "other_cluster", "seed=%s node=%u", s->address,
			s->probe.hello.node);
		node_fail(n, "data.dir is of another cluster than node %u at %s",
			s->probe.hello.node, s->address);
		f->state = FOUND_NOT;
		return;
	}
	if (n->meta_replica != 0) {
		compare(f);
		return;
	}
	s = with_cluster(f);
	if (s != NULL && other_name(f, s))
		return;
	if (s != NULL)
		join(f, s);
	else if (identity_has_cluster(&n->identity))
		wait_for(f, "no seed knows this node's cluster yet");
	else if (!same_id(f))
		founds_or_waits(f);
}

static void probed(struct peer_probe *q)
{
	struct seed *s = list_entry(q, struct seed, probe);
	struct found *f = s->found;

	s->own = q->err == OK && memcmp(q->hello.instance, f->node->identity.instance, 16) == 0;
	if (--f->pending > 0)
		return;
	if (f->stopped) {
		f->state = FOUND_NOT;
	} else {
		tell_circle(f);
		decide(f);
	}
	for (int i = 0; i < f->seed_count; i++)
		slice_unref(&f->seeds[i].probe.held);
	node_end_if_idle(f->node);
}

static void probe_all(struct found *f)
{
	f->state = FOUND_PROBES;
	f->turn++;
	f->asked = true;
	f->pending = f->seed_count;
	for (int i = 0; i < f->seed_count; i++) {
		struct seed *s = &f->seeds[i];

		s->probe = (struct peer_probe){.address = s->address, .done = probed};
		peer_probe(f->node->peers, &s->probe);
	}
}

/* --- life --- */

static void read_seeds(struct found *f, const char *text)
{
	while (text != NULL && *text != 0 && f->seed_count < SEEDS_MAX) {
		size_t len = strcspn(text, ","), skip = strspn(text, " ");
		struct seed *s = &f->seeds[f->seed_count];

		if (len > skip && len - skip < ADDRESS_BYTES) {
			size_t take = len - skip;

			while (take > 0 && text[skip + take - 1] == ' ')
				take--;
			memcpy(s->address, text + skip, take);
			s->address[take] = 0;
			s->found = f;
			f->seed_count += take > 0;
		}
		text += len + (text[len] == ',');
	}
}

struct found *found_new(struct node *n)
{
	struct found *f = mem_new(sizeof *f);

	f->node = n;
	read_seeds(f, n->conf.seeds);
	return f;
}

void found_start(struct found *f)
{
	struct node *n = f->node;

	if (f->seed_count == 0 || n->closing)
		return;
	if (n->peers == NULL) {
		node_fail(n, "cluster.seeds is set, but listen.peer is off");
		return;
	}
	f->joined_ms = loop_now_ms(n->home);
	again(f, 0);
}

void found_tick(struct found *f, int64_t now_ms)
{
	struct node *n = f->node;

	if (f->state != FOUND_WAITS || f->stopped || now_ms < f->next_ms)
		return;
	if (f->asked && n->founded && n->version > 0 && atomic_load(&n->ready)) {
		f->state = FOUND_NOT; /* it is found */
		return;
	}
	if (!await_target(f, now_ms))
		probe_all(f);
}

void found_stop(struct found *f)
{
	f->stopped = true;
	if (f->state == FOUND_WAITS)
		f->state = FOUND_NOT;
}

bool found_idle(const struct found *f)
{
	return f == NULL || f->state == FOUND_NOT || f->state == FOUND_WAITS;
}

void found_free(struct found *f)
{
	mem_free(f);
}

/* --- the first change --- */

static void founded(struct proposal *p)
{
	struct node *n = list_entry(p, struct node, founding);

	n->founding_busy = false;
	slice_unref(&n->founding_args);
	if (p->err != OK && p->err != ERR_CLOSED)
		LOG(LOG_WARN, AREA_CLUSTER, "founding_failed", "err=\"%s\"", err_text(p->err));
	node_end_if_idle(n);
}

void found_cluster(struct node *n)
{
	struct meta_founding f = {.cluster = {.tables = (uint32_t)n->conf.tables,
					  .next_group = META_STREAM_FIRST,
					  .next_incarnation = 2}};
	struct meta_node self;
	struct buf b;

	if (n->founded || n->closing || n->founding_busy)
		return;
	random_fill(f.cluster.id, sizeof f.cluster.id);
	model_gather_node(n, &self);
	f.node = &self;
	buf_init(&b, 1 << 20);
	meta_founding_encode(&f, &b);
	must(b.err == OK);
	n->founding_args = buf_share(&b);
	buf_fini(&b);
	n->founding_busy = true;
	n->founding = (struct proposal){.to = n->meta,
		.batch_max_ms = -1,
		.kind = &meta_found_kind,
		.args = n->founding_args.bytes,
		.done = founded};
	partition_propose(&n->founding);
}

/* --- the other side: letting others in --- */

struct joiner {
	struct proposal proposal;
	struct peer_request *request;
	struct node *node;
};

static void add_nodes(struct node *n, struct buf *out)
{
	const struct model_node *m;
	uint16_t count = 0;

	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;)
		count = (uint16_t)(count + (m->row->state != NODE_REMOVED));
	buf_add_u16be(out, count);
	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;) {
		if (m->row->state == NODE_REMOVED)
			continue;
		buf_add_u32be(out, m->row->id);
		buf_add(out, bytes_of(m->row->instance, sizeof m->row->instance));
		buf_add_u16be(out, (uint16_t)strlen(m->row->address));
		buf_add_text(out, m->row->address);
	}
}

static void join_decided(struct proposal *p)
{
	struct joiner *j = list_entry(p, struct joiner, proposal);
	struct node *n = j->node;
	struct slice part;
	struct buf b;

	buf_init(&b, ANSWER_NODES_BYTES);
	buf_add(&b, p->reply.bytes);
	if (p->err == OK)
		add_nodes(n, &b);
	LOG(p->err == OK ? LOG_INFO : LOG_WARN, AREA_CLUSTER,
		p->err == OK ? "node_joins" : "node_refused", "node=%u why=\"%s\"",
		j->request->from,
		p->err == OK                     ? ""
			: p->reply.bytes.len > 0 ? node_line(p->reply.bytes).text
						 : err_text(p->err));
	part = buf_share(&b);
	buf_fini(&b);
	n->busy_count--;
	peer_answer(j->request, LANE_HIGH, p->err, &part, 1);
	mem_free(j);
	node_end_if_idle(n);
}

static void on_join(void *arg, struct peer_request *r)
{
	struct node *n = arg;
	struct meta_request *q = NULL;
	enum err e = meta_request_decode(r->body.bytes, &q);
	struct joiner *j;

	if (e == OK && (q->kind != META_JOIN || q->node == NULL || q->node_id != r->from))
		e = ERR_MALFORMED;
	if (e == OK && r->loop != n->home) /* another group than the catalogue's was named */
		e = ERR_MALFORMED;
	meta_request_free(q);
	if (e == OK && (n->closing || !n->founded))
		e = ERR_UNAVAILABLE;
	if (e != OK) {
		peer_answer(r, LANE_HIGH, e, NULL, 0);
		return;
	}
	j = mem_new(sizeof *j);
	j->node = n;
	j->request = r;
	n->busy_count++;
	j->proposal = (struct proposal){.to = n->meta,
		.batch_max_ms = -1,
		.kind = &meta_kind,
		.args = r->body.bytes,
		.repeatable = true,
		.done = join_decided};
	partition_propose(&j->proposal);
}

void found_serve(struct node *n)
{
	peers_serve(n->peers, PEER_OP_JOIN, on_join, n);
}
