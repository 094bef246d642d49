/* cluster/peer.h over the simulated network. As in the product each loop of a node has a connection
 * of its own to every other node, which carries what the dialer sends: frames of one connection
 * keep their order, those of different ones overtake each other. A cut stalls a connection, as TCP
 * would, until it heals or the connection is given up; then what was on its way is lost, never
 * delivered later. Bytes are copied on the way: machines share no memory. */
#include <stdio.h>
#include <stdlib.h>
#include "tests/sim/sim_aim.h"
#include "tests/sim/sim_peer_priv.h"

static struct peers *all_peers[SIM_MACHINES_MAX + 1]; /* by machine; of its present life */
static uint64_t frames;

#define AT(field) offsetof(struct peer_settings, field)
const struct conf_row peer_rows[] = {
	{"peer.tls", CONF_BOOL, AT(tls), "false", 0, 0, NULL, CONF_AT_START, NULL, "As in peer.c."},
	{"peer.queue", CONF_BYTES, AT(queue_bytes_max), "64MiB", 65536, INT64_MAX, NULL,
		CONF_AT_START, NULL, "As in peer.c."},
	{0},
};
#undef AT

uint64_t sim_net_frames(void)
{
	return frames;
}

struct conn_out *sim_conn_of(const struct peers *p, int loop, uint32_t to)
{
	return &p->conns[(uint32_t)loop * (SIM_MACHINES_MAX + 1) + to];
}

static bool is_zero(const uint8_t *at)
{
	for (int i = 0; i < 16; i++)
		if (at[i] != 0)
			return false;
	return true;
}

/* --- life */

struct peers *peers_new(const struct peers_conf *c, struct loops *loops)
{
	struct peers *p = mem_new(sizeof *p);

	p->conf = *c;
	p->machine = sim_here();
	p->loops = loops;
	p->loop_count = loops_count(loops);
	p->conns = mem_new((size_t)p->loop_count * (SIM_MACHINES_MAX + 1) * sizeof *p->conns);
	p->each = mem_new((size_t)p->loop_count * sizeof *p->each);
	for (int i = 0; i < p->loop_count; i++) {
		struct peer_loop *l = &p->each[i];

		l->peers = p;
		l->loop = loops_at(loops, i);
		list_init(&l->watchers);
		list_init(&l->calls);
		loop_timer_init(&l->timer, l->loop, sim_calls_time_out);
		for (uint32_t to = 0; to <= SIM_MACHINES_MAX; to++) {
			struct conn_out *k = sim_conn_of(p, i, to);

			k->peers = p;
			k->loop = l->loop;
			k->to = to;
			k->backoff_ms = BACKOFF_MS_MIN;
			k->held_tail = &k->held;
			k->held_back_tail = &k->held_back;
			list_init(&k->rooms);
		}
	}
	all_peers[p->machine->id] = p;
	return p;
}

static void dial(void *arg);
static void poll_conns(void *arg);

void peers_start(struct peers *p, struct net *net)
{
	(void)net;
	p->started = true;
	sim_after(POLL_US, p->machine, poll_conns, p);
	for (int i = 0; i < p->loop_count; i++)
		for (uint32_t to = 1; to <= SIM_MACHINES_MAX; to++)
			if (sim_conn_of(p, i, to)->wanted)
				sim_after(
					sim_pick(1, 1000), p->machine, dial, sim_conn_of(p, i, to));
}

void peers_handle(struct peers *p, enum peer_kind kind, peer_handler fn, void *arg)
{
	p->handlers[kind] = fn;
	p->handler_args[kind] = arg;
}

void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	p->servers[op] = fn;
	p->server_args[op] = arg;
}

/* --- connections */

static uint32_t machine_at(const char *address)
{
	const char *n = address ? strrchr(address, 'n') : NULL;
	long id = n ? strtol(n + 1, NULL, 10) : 0;

	return id > 0 && id <= SIM_MACHINES_MAX ? (uint32_t)id : 0;
}

/* The node at the other end, if a connection can be made to it now. */
static struct peers *reachable(const struct peers *p, uint32_t to)
{
	struct peers *q = to <= SIM_MACHINES_MAX ? all_peers[to] : NULL;

	if (q == NULL || !q->machine->up || !q->started || q->stopping ||
		q->machine->paused_until_us > sim_now_us())
		return NULL;
	if (sim_way(p->machine->id, (int)to)->cut || sim_way((int)to, p->machine->id)->cut)
		return NULL;
	return q;
}

static int64_t delay(const struct sim_way *w)
{
	return sim_pick(w->delay_us_min, w->delay_us_max);
}

/* As the hellos of both are judged. */
static bool may_meet(const struct peers *p, const struct peers *q)
{
	const struct known *to = &p->known[q->conf.node], *from = &q->known[p->conf.node];
	bool guest = is_zero(p->cluster);

	if (!guest && memcmp(p->cluster, q->cluster, sizeof p->cluster) != 0)
		return false; /* another cluster, or none yet */
	if (!guest && from->instance_known &&
		(from->removed || memcmp(from->instance, p->conf.instance, 16) != 0))
		return false; /* data that was taken out, or other data, also after it */
	return !to->instance_known || memcmp(to->instance, q->conf.instance, 16) == 0;
}

static void tell_watchers(struct conn_out *k, bool up)
{
	struct peer_loop *l = &k->peers->each[loop_index(k->loop)];
	struct list *n, *next;

	for (n = l->watchers.next; n != &l->watchers; n = next) {
		struct peer_watcher *w = list_entry(n, struct peer_watcher, node);

		next = n->next;
		w->changed(w, k->to, up);
	}
}

static void rooms_run(void *arg)
{
	struct conn_out *k = arg;
	struct list told, *n;

	if (k->up && k->bulk_bytes >= BULK_ROOM_BYTES)
		return;
	list_init(&told);
	while ((n = list_pop(&k->rooms)) != NULL)
		list_push_back(&told, n);
	while ((n = list_pop(&told)) != NULL) {
		struct peer_room *w = list_entry(n, struct peer_room, node);

		w->room(w);
	}
}

static void tell_lost(void *arg)
{
	struct conn_out *k = arg;

	tell_watchers(k, false);
	sim_calls_lost(&k->peers->each[loop_index(k->loop)], k->to, ERR_UNKNOWN);
	rooms_run(k);
}

static void parcels_drop(struct parcel *f)
{
	struct parcel *next;

	for (; f != NULL; f = next) {
		next = f->next;
		slice_unref(&f->body);
		mem_free(f);
	}
}

static void conn_lose(struct conn_out *k)
{
	if (!k->up)
		return;
	k->up = false;
	k->epoch++;
	k->give_up_us = 0;
	parcels_drop(k->held);
	k->held = NULL;
	k->held_tail = &k->held;
	parcels_drop(k->held_back);
	k->held_back = NULL;
	k->held_back_tail = &k->held_back;
	k->bytes = k->bulk_bytes = 0;
	k->since_us = sim_now_us();
	loop_call(k->loop, tell_lost, k);
	if (k->wanted && !k->dialling) {
		k->dialling = true;
		sim_after(BACKOFF_MS_MIN * SIM_MS, k->peers->machine, dial, k);
	}
}

static void tell_up(void *arg)
{
	struct conn_out *k = arg;

	if (!k->up || k->peers->stopping)
		return;
	tell_watchers(k, true);
}

static void tell_removed(void *arg)
{
	struct peers *p = arg;

	if (!p->stopping)
		p->judged(p->judged_arg, PEER_SAYS_REMOVED, p->judged_by, "removed");
}

static void tell_other_data(void *arg)
{
	struct peers *p = arg;

	if (!p->stopping)
		p->judged(p->judged_arg, PEER_SAYS_OTHER_DATA, p->judged_by, "other data");
}

/* A node that was removed, or whose data is not the data known, hears of it from whoever refuses
 * it. */
static void hear_verdict(struct peers *p, const struct peers *q)
{
	const struct known *us = &q->known[p->conf.node];
	bool same = memcmp(us->instance, p->conf.instance, 16) == 0;

	if (p->judged == NULL || is_zero(p->cluster) || !us->instance_known ||
		(same && !us->removed))
		return;
	p->judged_by = q->conf.node;
	loop_call(p->judged_on, same ? tell_removed : tell_other_data, p);
}

void peers_on_verdict(struct peers *p, struct loop *loop, peer_judged fn, void *arg)
{
	p->judged_on = loop;
	p->judged = fn;
	p->judged_arg = arg;
}

/* Names are all there is of addresses here. */
void peers_found_at(struct peers *p, uint32_t node, const char *address)
{
	(void)p;
	(void)node;
	(void)address;
}

/* A node of this cluster of which the list does not know yet is dialled, too. */
static void learn(struct peers *q, const struct peers *p)
{
	uint32_t id = p->conf.node;

	if (is_zero(p->cluster) || q->known[id].wanted || q->known[id].removed || q->known[id].told)
		return;
	q->known[id].wanted = q->known[id].learnt = true;
	for (int i = 0; i < q->loop_count; i++) {
		struct conn_out *k = sim_conn_of(q, i, id);

		k->wanted = true;
		if (!k->up && !k->dialling)
			sim_after(sim_pick(1, 1000), q->machine, dial, k);
	}
}

/* p knows what data q has; a later list may name other data. A guest's may come to be another's. */
static void meet(struct peers *p, const struct peers *q)
{
	struct known *k = &p->known[q->conf.node];

	if (k->instance_known || is_zero(p->cluster) || is_zero(q->cluster))
		return;
	k->met = true;
	memcpy(k->instance, q->conf.instance, 16);
}

static void dialled(void *arg)
{
	struct conn_out *k = arg;
	struct peers *p = k->peers, *q = reachable(p, k->to);

	k->dialling = false;
	if (k->up || !k->wanted || p->stopping)
		return;
	if (q == NULL || !may_meet(p, q)) {
		if (q != NULL)
			hear_verdict(p, q);
		k->dialling = true;
		k->backoff_ms = k->backoff_ms * 2 > BACKOFF_MS_MAX ? BACKOFF_MS_MAX
								   : k->backoff_ms * 2;
		sim_after(k->backoff_ms * SIM_MS * sim_pick(80, 120) / 100, p->machine, dial, k);
		return;
	}
	learn(q, p);
	meet(p, q);
	meet(q, p);
	k->up = true;
	k->epoch++;
	k->life = q->machine->life;
	k->backoff_ms = BACKOFF_MS_MIN;
	k->arrives_us = k->back_arrives_us = k->since_us = sim_now_us();
	memcpy(k->cluster, p->cluster, sizeof k->cluster);
	k->guest = is_zero(p->cluster) || is_zero(q->cluster);
	loop_call(k->loop, tell_up, k);
}

static void dial(void *arg)
{
	struct conn_out *k = arg;

	k->dialling = true;
	sim_after(delay(sim_way(k->peers->machine->id, (int)k->to)) * 3, k->peers->machine, dialled,
		k);
}

/* --- frames */

static void deliver(struct loop_msg *m)
{
	struct arrived *a = list_entry(m, struct arrived, msg);
	struct peers *p = a->peers;

	if (a->kind == PEER_CALL)
		sim_call_arrived(a);
	else if (a->kind == PEER_ANSWER)
		sim_answer_arrived(a);
	else if (p->handlers[a->kind] != NULL)
		p->handlers[a->kind](p->handler_args[a->kind], a->from, a->group, a->body);
	slice_unref(&a->body);
	mem_free(a);
}

/* An answer goes to the loop that called: the top of its id. */
static void hand_over(struct peers *q, uint32_t from, const struct parcel *f)
{
	struct arrived *a = mem_new(sizeof *a);
	int count = q->loop_count;
	int loop = (int)(f->group % (uint64_t)count);

	if (f->kind == PEER_ANSWER)
		loop = (int)(get_u64be(f->body.bytes.at) >> 48) % count;
	a->peers = q;
	a->from = from;
	a->kind = f->kind;
	a->group = f->group;
	a->epoch = f->epoch;
	a->conn = f->conn;
	a->body = slice_ref(f->body);
	a->msg.run = deliver;
	loop_post(loops_at(q->loops, loop), &a->msg);
}

/* The node that dialled is still the same, and so is its connection. */
bool sim_conn_is_same(const struct conn_out *k, uint64_t epoch)
{
	const struct peers *p = k->peers;

	return p->machine->up && all_peers[p->machine->id] == p && epoch == k->epoch;
}

static void arrive_back(struct parcel *f)
{
	struct conn_out *k = f->conn;

	if (sim_conn_is_same(k, f->epoch) && !k->peers->stopping) {
		frames++;
		hand_over(k->peers, k->to, f);
	}
	slice_unref(&f->body);
	mem_free(f);
}

static void arrive_there(struct parcel *f)
{
	struct conn_out *k = f->conn;
	struct peers *q = all_peers[k->to];
	bool same = sim_conn_is_same(k, f->epoch);

	if (same) {
		size_t bytes = f->body.bytes.len;

		k->bytes -= bytes;
		k->bulk_bytes -= f->lane == LANE_BULK ? bytes : 0;
		if (f->lane == LANE_BULK && k->bulk_bytes < BULK_ROOM_BYTES &&
			!list_empty(&k->rooms))
			loop_call(k->loop, rooms_run, k);
	}
	if ((same || f->epoch == 0) && q != NULL && q->machine->up && q->machine->life == k->life &&
		!q->stopping && (!k->guest || f->kind == PEER_CALL)) {
		frames++;
		hand_over(q, k->peers->conf.node, f);
	}
	slice_unref(&f->body);
	mem_free(f);
}

static void arrive(void *arg)
{
	struct parcel *f = arg;

	if (f->back)
		arrive_back(f);
	else
		arrive_there(f);
}

static void travel(struct conn_out *k, struct parcel *f)
{
	int here = k->peers->machine->id, there = (int)k->to;
	int to = f->back ? here : there;
	int64_t *last = f->back ? &k->back_arrives_us : &k->arrives_us;
	const struct peers *q = all_peers[to];
	int64_t at = sim_now_us() + delay(sim_way(f->back ? there : here, to)) +
		(int64_t)f->body.bytes.len / BYTES_A_US;

	/* The other side may stand still: then what arrives waits in its socket. */
	if (q != NULL && q->machine->paused_until_us > at)
		at = q->machine->paused_until_us + (at - sim_now_us());
	if (at <= *last)
		at = *last + 1;
	*last = at;
	sim_at(at, NULL, arrive, f);
}

/* What Raft must bear, whatever carries its messages. */
static bool mess_up(struct conn_out *k, const struct parcel *f)
{
	const struct sim_way *w = sim_way(k->peers->machine->id, (int)k->to);
	struct parcel *other;

	if (f->kind != PEER_RAFT || w->messy == 0 || !sim_chance(w->messy))
		return false;
	if (sim_chance(300))
		return true; /* lost */
	other = mem_new(sizeof *other);
	*other = *f;
	other->body = slice_ref(f->body);
	other->epoch = 0;
	sim_after(sim_pick(1, LATE_US_MAX), NULL, arrive, other);
	return sim_chance(500); /* late, or doubled */
}

bool sim_send(struct peers *p, struct conn_out *k, struct parcel like)
{
	size_t max = p->conf.queue_bytes_max > 0 ? (size_t)p->conf.queue_bytes_max
						 : QUEUE_BYTES_MAX;
	struct parcel *f;

	if (!k->up || k->bytes > max || p->stopping)
		return false;
	f = mem_new(sizeof *f);
	*f = like;
	f->conn = k;
	f->epoch = k->epoch;
	f->body = slice_ref(like.body);
	if (f->kind == PEER_RAFT)
		sim_aim_raft(p->machine->id, (int)k->to, f->body);
	if (mess_up(k, f)) {
		slice_unref(&f->body);
		mem_free(f);
		return true;
	}
	k->bytes += f->body.bytes.len;
	k->bulk_bytes += f->lane == LANE_BULK ? f->body.bytes.len : 0;
	if (sim_way(p->machine->id, (int)k->to)->cut || k->held != NULL) {
		*k->held_tail = f;
		k->held_tail = &f->next;
	} else {
		travel(k, f);
	}
	return true;
}

struct slice sim_joined(struct bytes head, struct slice *parts, int count)
{
	size_t len = head.len;
	struct chunk *c;
	struct slice out;

	for (int i = 0; i < count; i++)
		len += parts[i].bytes.len;
	c = chunk_try(len ? len : 1);
	must(c != NULL);
	out = (struct slice){c, bytes_of(c->data, len)};
	len = 0;
	if (head.len > 0)
		memcpy(c->data, head.at, head.len);
	len = head.len;
	for (int i = 0; i < count; i++) {
		if (parts[i].bytes.len > 0)
			memcpy(c->data + len, parts[i].bytes.at, parts[i].bytes.len);
		len += parts[i].bytes.len;
		slice_unref(&parts[i]);
	}
	return out;
}

/* An answer: over the connection of its call, from the other end. */
void sim_send_back(struct conn_out *k, struct parcel like)
{
	struct parcel *f = mem_new(sizeof *f);

	*f = like;
	f->conn = k;
	f->back = true;
	f->body = slice_ref(like.body);
	if (sim_way((int)k->to, k->peers->machine->id)->cut || k->held_back != NULL) {
		*k->held_back_tail = f;
		k->held_back_tail = &f->next;
	} else {
		travel(k, f);
	}
}

bool peers_send(struct peers *p, uint32_t node, enum peer_lane lane, enum peer_kind kind,
	uint64_t group, struct slice *parts, int count)
{
	struct slice body = sim_joined(bytes_of(NULL, 0), parts, count);
	struct loop *here = loop_here();
	bool sent = false;

	must(here != NULL);
	if (node > 0 && node <= SIM_MACHINES_MAX)
		sent = sim_send(p, sim_conn_of(p, loop_index(here), node),
			(struct parcel){.lane = lane, .kind = kind, .group = group, .body = body});
	slice_unref(&body);
	return sent;
}

bool peer_connected(const struct peers *p, uint32_t node)
{
	struct loop *here = loop_here();

	must(here != NULL);
	return node > 0 && node <= SIM_MACHINES_MAX && sim_conn_of(p, loop_index(here), node)->up;
}

bool peer_bulk_room(struct peers *p, uint32_t node, struct peer_room *w)
{
	struct conn_out *k;

	if (node == 0 || node > SIM_MACHINES_MAX)
		return true;
	k = sim_conn_of(p, loop_index(loop_here()), node);
	if (!k->up || k->bulk_bytes < BULK_ROOM_BYTES)
		return true;
	if (w->node.next == NULL)
		list_init(&w->node);
	list_remove(&w->node);
	list_push_back(&k->rooms, &w->node);
	return false;
}

void peer_room_cancel(struct peer_room *w)
{
	if (w->node.next != NULL)
		list_remove(&w->node);
}

void peers_watch(struct peers *p, struct peer_watcher *w)
{
	list_init(&w->node);
	list_push_back(&p->each[loop_index(w->loop)].watchers, &w->node);
}

void peers_unwatch(struct peers *p, struct peer_watcher *w)
{
	(void)p;
	list_remove(&w->node);
}

/* --- who there is */

void peers_set_cluster(struct peers *p, const uint8_t id[16])
{
	if (memcmp(p->cluster, id, 16) == 0)
		return;
	memcpy(p->cluster, id, 16);
	/* What said hello under another one, or to another one, was a guest's connection. */
	for (uint32_t to = 1; to <= SIM_MACHINES_MAX; to++) {
		for (int i = 0; i < p->loop_count; i++)
			conn_lose(sim_conn_of(p, i, to));
		if (to != (uint32_t)p->machine->id)
			sim_net_reset((int)to, p->machine->id);
	}
}

void peers_set_circle(struct peers *p, const uint8_t id[16])
{
	memcpy(p->circle, id, 16);
}

/* What is to be known of a node; false: who is connected as that node is not that one any more. */
static bool know(struct known *k, const struct peer_node *want)
{
	struct known was = *k;

	k->told = k->told || want != NULL;
	k->learnt = k->learnt && !k->told;
	k->wanted = want != NULL ? !want->removed : k->learnt;
	k->removed = want != NULL && want->removed;
	k->instance_known = want != NULL && want->instance != NULL;
	if (k->instance_known)
		memcpy(k->instance, want->instance, 16);
	k->met = k->met || k->instance_known;
	if (was.wanted && !k->wanted)
		return false;
	return !was.met || memcmp(was.instance, k->instance, 16) == 0;
}

void peers_set_nodes(struct peers *p, const struct peer_node *nodes, int count)
{
	for (uint32_t to = 1; to <= SIM_MACHINES_MAX; to++) {
		const struct peer_node *want = NULL;

		for (int i = 0; i < count; i++)
			if (nodes[i].id == to && to != p->conf.node)
				want = &nodes[i];
		if (!know(&p->known[to], want)) {
			sim_net_reset(p->machine->id, (int)to);
			sim_net_reset((int)to, p->machine->id);
		}
		for (int i = 0; i < p->loop_count; i++) {
			struct conn_out *k = sim_conn_of(p, i, to);

			k->wanted = p->known[to].wanted;
			if (k->wanted && !k->up && !k->dialling && p->started)
				sim_after(sim_pick(1, 1000), p->machine, dial, k);
		}
	}
}

struct probing {
	struct peers *peers;
	struct loop *loop;
	struct peer_probe *probe;
};

static void probed(void *arg)
{
	struct probing *g = arg;
	struct peer_probe *q = g->probe;
	uint32_t to = machine_at(q->address);
	struct peers *other = reachable(g->peers, to);

	mem_free(g);
	q->held = (struct slice){0};
	q->why[0] = 0;
	q->err = other != NULL ? OK : ERR_UNAVAILABLE;
	if (other == NULL) {
		snprintf(q->why, sizeof q->why, "refused");
	} else {
		q->hello = (struct peer_hello){.version_min = 1,
			.version_max = 1,
			.node = other->conf.node,
			.boot = other->conf.boot,
			.cluster_name = bytes_text(other->conf.cluster_name),
			.name = bytes_text(other->conf.name),
			.rack = bytes_text(other->conf.rack),
			.address = bytes_text(other->conf.address)};
		memcpy(q->hello.cluster, other->cluster, 16);
		memcpy(q->hello.circle, other->circle, 16);
		memcpy(q->hello.instance, other->conf.instance, 16);
	}
	q->done(q);
}

static void probe_arrived(void *arg)
{
	struct probing *g = arg;

	loop_call(g->loop, probed, g);
}

void peer_probe(struct peers *p, struct peer_probe *q)
{
	struct probing *g = mem_new(sizeof *g);
	uint32_t to = machine_at(q->address);

	*g = (struct probing){p, loop_here(), q};
	sim_after(to ? delay(sim_way(p->machine->id, (int)to)) * 3 : 1000, p->machine,
		probe_arrived, g);
}

bool peers_next(const struct peers *p, int *at, struct peer_view *out)
{
	for (uint32_t to = (uint32_t)*at + 1; to <= SIM_MACHINES_MAX; to++) {
		const struct conn_out *k = sim_conn_of(p, 0, to);

		if (!k->wanted)
			continue;
		*out = (struct peer_view){.node = to, .connected = k->up};
		out->since_ms = k->since_us / SIM_MS;
		snprintf(out->address, sizeof out->address, "n%u", to);
		*at = (int)to;
		return true;
	}
	return false;
}

/* --- the end */

static void stop_here(void *arg)
{
	struct peer_loop *l = arg;

	sim_calls_lost(l, 0, ERR_CLOSED);
	loop_timer_cancel(&l->timer);
	l->stopped = true;
}

void peers_stop(struct peers *p)
{
	p->stopping = true;
	for (int i = 0; i < p->loop_count; i++)
		loop_call(p->each[i].loop, stop_here, &p->each[i]);
	for (int i = 0; i < p->loop_count; i++)
		while (!p->each[i].stopped)
			sim_sleep_us(50);
	for (int i = 0; i < p->loop_count; i++)
		for (uint32_t to = 1; to <= SIM_MACHINES_MAX; to++) {
			sim_conn_of(p, i, to)->up = false;
			sim_conn_of(p, i, to)->epoch++;
		}
	for (int from = 1; from <= SIM_MACHINES_MAX; from++)
		sim_net_reset(from, p->machine->id);
}

/* Frames on their way still point to it: its memory stays. */
void peers_free(struct peers *p)
{
	if (p != NULL && all_peers[p->machine->id] == p)
		all_peers[p->machine->id] = NULL;
}

/* --- what the world does to it */

static void go_on(struct conn_out *k, struct parcel *f)
{
	struct parcel *next;

	k->give_up_us = 0;
	for (; f != NULL; f = next) {
		next = f->next;
		f->next = NULL;
		travel(k, f);
	}
}

static void heal(struct conn_out *k)
{
	struct parcel *f = k->held;

	k->held = NULL;
	k->held_tail = &k->held;
	go_on(k, f);
}

static void heal_back(struct conn_out *k)
{
	struct parcel *f = k->held_back;

	k->held_back = NULL;
	k->held_back_tail = &k->held_back;
	go_on(k, f);
}

/* A connection whose way is cut, or whose other end is gone without a word, is given up in time. */
static void poll_conns(void *arg)
{
	struct peers *p = arg;

	if (p->stopping)
		return;
	for (int i = 0; i < p->loop_count; i++)
		for (uint32_t to = 1; to <= SIM_MACHINES_MAX; to++) {
			struct conn_out *k = sim_conn_of(p, i, to);
			struct peers *q = all_peers[to];
			bool gone, bad;

			if (!k->up)
				continue;
			gone = q == NULL || !q->machine->up || q->machine->life != k->life;
			bad = gone || sim_way(p->machine->id, (int)to)->cut ||
				sim_way((int)to, p->machine->id)->cut;
			if (gone && q != NULL && q->machine->up)
				conn_lose(k); /* it is back, and knows nothing of this */
			else if (!bad)
				k->give_up_us = 0;
			else if (k->give_up_us == 0)
				k->give_up_us = sim_now_us() +
					sim_pick(GIVE_UP_US_MIN, GIVE_UP_US_MAX);
			else if (k->give_up_us <= sim_now_us())
				conn_lose(k);
		}
	sim_after(POLL_US, p->machine, poll_conns, p);
}

static void each_conn(int from, int to, void (*fn)(struct conn_out *k))
{
	struct peers *p = all_peers[from];

	if (p == NULL || !p->machine->up)
		return;
	for (int i = 0; i < p->loop_count; i++)
		if (sim_conn_of(p, i, (uint32_t)to)->up)
			fn(sim_conn_of(p, i, (uint32_t)to));
}

void sim_net_cut(int from, int to, bool cut)
{
	struct sim_way *w = sim_way(from, to);

	if (w->cut == cut)
		return;
	w->cut = cut;
	w->cut_since_us = sim_now_us();
	if (cut)
		return;
	each_conn(from, to, heal);
	each_conn(to, from, heal_back);
}

void sim_net_reset(int from, int to)
{
	each_conn(from, to, conn_lose);
}

void sim_net_machine_down(int id, bool silent)
{
	all_peers[id] = NULL;
	for (int from = 1; from <= SIM_MACHINES_MAX && !silent; from++)
		sim_net_reset(from, id);
}

static struct sim_way ways[SIM_MACHINES_MAX + 1][SIM_MACHINES_MAX + 1];

struct sim_way *sim_way(int from, int to)
{
	must(from >= 0 && from <= SIM_MACHINES_MAX && to >= 0 && to <= SIM_MACHINES_MAX);
	return &ways[from][to];
}

void sim_net_init(void)
{
	for (int a = 0; a <= SIM_MACHINES_MAX; a++)
		for (int b = 0; b <= SIM_MACHINES_MAX; b++)
			ways[a][b] = (struct sim_way){.delay_us_min = 80, .delay_us_max = 400};
}
