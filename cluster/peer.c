/* The life of the peers, the nodes each loop knows, and time: one timer per loop dials, pings,
 * expires calls and gives up the silent. Lists of nodes and the cluster's id come from whatever
 * loop and are posted to all; each loop has its own connections and its own view of who is up. */
#include <stdio.h>
#include <time.h>
#include "cluster/peer_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"

/* --- configuration, metrics --- */

#define AT(field) offsetof(struct peer_settings, field)

const struct conf_row peer_rows[] = {
	{"peer.tls", CONF_BOOL, AT(tls), "off", 0, 0, NULL, CONF_AT_START, NULL,
		"Nodes speak TLS with each other, and each shows a certificate of tls.ca. The same "
		"on all nodes."},
	{"peer.queue", CONF_BYTES, AT(queue_bytes_max), "16MiB", 1 << 20, 1 << 28, NULL,
		CONF_AT_START, NULL,
		"Most that waits to be sent to one node, per loop; a single larger frame goes when "
		"nothing waits. Above it consensus messages are dropped (they are repeated), calls "
		"refused and bulk waits."},
	{0},
};

static const struct metric_row metric_rows[M_PEER_COUNT] = {
	[M_SENT_BYTES] = {"sluice_peer_sent_bytes_total", NULL, METRIC_COUNTER,
		"Bytes of frames given to connections to other nodes."},
	[M_RECEIVED_BYTES] = {"sluice_peer_received_bytes_total", NULL, METRIC_COUNTER,
		"Bytes of frames received from other nodes."},
	[M_SENT_FRAMES] = {"sluice_peer_sent_frames_total", NULL, METRIC_COUNTER,
		"Frames given to connections to other nodes."},
	[M_RECEIVED_FRAMES] = {"sluice_peer_received_frames_total", NULL, METRIC_COUNTER,
		"Frames received from other nodes."},
	[M_DROPPED_HIGH] = {"sluice_peer_dropped_total", "lane=\"high\"", METRIC_COUNTER,
		"Frames not sent: no connection, or its queue was full."},
	[M_DROPPED_BULK] = {"sluice_peer_dropped_total", "lane=\"bulk\"", METRIC_COUNTER,
		"Frames not sent: no connection, or its queue was full."},
	[M_CONNECTED] = {"sluice_peer_connections", NULL, METRIC_GAUGE,
		"Connections to other nodes that are up, one per node and loop."},
	[M_CONNECTS] = {"sluice_peer_connects_total", NULL, METRIC_COUNTER,
		"Times a connection to another node came up."},
	[M_LOST] = {"sluice_peer_lost_total", NULL, METRIC_COUNTER,
		"Times a connection to another node was lost."},
	[M_DIALS_FAILED] = {"sluice_peer_dials_failed_total", NULL, METRIC_COUNTER,
		"Attempts to connect to another node that failed."},
	[M_REFUSED] = {"sluice_peer_refused_total", NULL, METRIC_COUNTER,
		"Connections of nodes that were refused, or of what was no node."},
	[M_CALLS] = {"sluice_peer_calls_total", NULL, METRIC_COUNTER, "Calls of other nodes."},
	[M_CALLS_FAILED] = {"sluice_peer_calls_failed_total", NULL, METRIC_COUNTER,
		"Calls of other nodes that gave an error, the other node's own included."},
	[M_PINGS] = {"sluice_peer_round_trips_total", NULL, METRIC_COUNTER,
		"Round trips measured, one a second for each connection."},
	[M_ROUND_TRIP_US] = {"sluice_peer_round_trip_microseconds_total", NULL, METRIC_COUNTER,
		"The sum of the round trips measured."},
};

struct metric_table peer_metrics = {metric_rows, M_PEER_COUNT, 0};

/* --- nodes --- */

static void set_text(char **at, const char *text, size_t len)
{
	mem_free(*at);
	*at = len == 0 ? NULL : mem_text(text, len);
}

static struct peer_to *add_node(struct peer_home *h, uint32_t id)
{
	if (h->nodes.count >= PEER_NODES_MAX)
		return NULL;
	struct peer_to *t = mem_new(sizeof *t);
	t->home = h;
	t->id = id;
	t->since_ms = loop_now_wall_ms(h->loop);
	list_init(&t->rooms);
	list_init(&t->calls);
	(void)map_put_u64(&h->nodes, id, t);
	return t;
}

static void free_node(struct peer_to *t)
{
	peer_out_drop(t, ERR_CLOSED);
	peer_rooms_run(t);
	(void)map_remove_u64(&t->home->nodes, t->id);
	mem_free(t->address);
	mem_free(t->said);
	mem_free(t);
}

/* A later list may name other data. */
void peer_met(struct peer_to *t, const struct peer_hello *hello)
{
	t->known = true;
	if (!t->checked)
		memcpy(t->instance, hello->instance, sizeof t->instance);
}

struct peer_to *peer_learn(struct peer_home *h, const struct peer_hello *hello)
{
	struct peer_to *t = peer_find(h, hello->node);
	const char *address = (const char *)hello->address.at;
	bool news = t == NULL;
	if (news)
		t = add_node(h, hello->node);
	if (t == NULL)
		return NULL;
	peer_met(t, hello);
	t->checked = t->checked || news;
	if (t->address == NULL || !bytes_equal(bytes_text(t->address), hello->address))
		set_text(&t->said, address, hello->address.len);
	return t;
}

struct node_list { /* on its way to all loops, shared */
	_Atomic int refs;
	int count;
	struct list_item {
		uint32_t id;
		bool checked, removed;
		uint8_t instance[16];
		char *address;
	} items[];
};

struct order { /* to one loop */
	struct loop_msg msg;
	struct peer_home *home;
	struct node_list *nodes;
	uint8_t id[16]; /* of a cluster, or a circle */
};

static void drop_list(struct node_list *l)
{
	if (atomic_fetch_sub(&l->refs, 1) > 1)
		return;
	for (int i = 0; i < l->count; i++)
		mem_free(l->items[i].address);
	mem_free(l);
}

static void take_node(struct peer_home *h, const struct list_item *item)
{
	struct peer_to *t = peer_find(h, item->id);
	if (t == NULL)
		t = add_node(h, item->id);
	if (t == NULL) {
		LOG(LOG_ERROR, AREA_CLUSTER, "too_many_peers", "node=%u max=%d", item->id,
			PEER_NODES_MAX);
		return;
	}
	bool other = item->checked && t->known && memcmp(t->instance, item->instance, 16) != 0;
	t->told = t->kept = true;
	t->removed = false;
	t->checked = item->checked;
	if (item->checked) {
		t->known = true;
		memcpy(t->instance, item->instance, sizeof t->instance);
	}
	if (t->address == NULL || strcmp(t->address, item->address) != 0) {
		set_text(&t->address, item->address, strlen(item->address));
		t->retry_ms = 0;
	}
	/* The list may be older than what the node itself has said: both are tried. */
	if (t->said != NULL && strcmp(t->said, t->address) == 0)
		set_text(&t->said, NULL, 0);
	if (other) {
		peer_out_drop(t, ERR_FENCED);
		peer_in_close(h, t->id, ERR_FENCED);
	}
	if (h->started)
		peer_out_look(t, loop_now_ms(h->loop));
}

static void drop_node(struct peer_to *t)
{
	if (t->told)
		LOG(LOG_INFO, AREA_CLUSTER, "peer_removed", "node=%u", t->id);
	peer_out_drop(t, ERR_CLOSED);
	peer_in_close(t->home, t->id, ERR_CLOSED);
	t->told = false;
	t->why[0] = t->told_why[0] = 0;
}

/* The list has it no more, and does not say that it was removed: who joins is told of one node
 * first. It is not dialled, unless it says hello once more. */
static void forget_node(struct peer_to *t)
{
	drop_node(t);
	set_text(&t->address, NULL, 0);
	set_text(&t->said, NULL, 0);
}

/* Its id may be in use again by other data: that is told by the same list. */
static void take_removed(struct peer_home *h, const struct list_item *item)
{
	struct peer_to *t = peer_find(h, item->id);
	if (t == NULL)
		t = add_node(h, item->id);
	if (t == NULL)
		return; /* too many: it is refused when it is known */
	if (!t->removed || memcmp(t->instance, item->instance, sizeof t->instance) != 0)
		drop_node(t);
	t->removed = true;
	t->checked = t->known = true;
	memcpy(t->instance, item->instance, sizeof t->instance);
}

static void on_nodes(struct loop_msg *m)
{
	struct order *o = list_entry(m, struct order, msg);
	struct peer_home *h = o->home;
	struct peer_to *t;
	for (int i = 0; i < o->nodes->count && !h->stopped; i++)
		if (o->nodes->items[i].id == h->peers->conf.node)
			continue;
		else if (o->nodes->items[i].removed)
			take_removed(h, &o->nodes->items[i]);
		else
			take_node(h, &o->nodes->items[i]);
	for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;) {
		if (t->told && !t->kept)
			forget_node(t);
		t->kept = false;
	}
	drop_list(o->nodes);
	mem_free(o);
}

void peers_set_nodes(struct peers *p, const struct peer_node *nodes, int count)
{
	struct node_list *l = mem_new(sizeof *l + (size_t)count * sizeof l->items[0]);
	atomic_init(&l->refs, p->home_count);
	l->count = count;
	for (int i = 0; i < count; i++) {
		struct list_item *item = &l->items[i];
		item->id = nodes[i].id;
		item->address = mem_text(nodes[i].address, strlen(nodes[i].address));
		item->checked = nodes[i].instance != NULL;
		item->removed = nodes[i].removed && item->checked;
		if (item->checked)
			memcpy(item->instance, nodes[i].instance, sizeof item->instance);
	}
	for (int i = 0; i < p->home_count; i++) {
		struct order *o = mem_new(sizeof *o);
		*o = (struct order){.msg.run = on_nodes, .home = &p->homes[i], .nodes = l};
		loop_post(p->homes[i].loop, &o->msg);
	}
}

static void on_cluster(struct loop_msg *m)
{
	struct order *o = list_entry(m, struct order, msg);
	struct peer_home *h = o->home;
	struct peer_to *t;
	bool changed = memcmp(h->cluster, o->id, sizeof h->cluster) != 0;
	memcpy(h->cluster, o->id, sizeof h->cluster);
	mem_free(o);
	if (!changed || h->stopped)
		return;
	/* What said hello under another one was a guest's connection. */
	for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;) {
		if (memcmp(t->cluster, h->cluster, sizeof t->cluster) != 0)
			peer_out_drop(t, ERR_UNKNOWN);
		peer_out_kick(t);
	}
	peer_in_close(h, 0, ERR_CLOSED);
}

static void on_circle(struct loop_msg *m)
{
	struct order *o = list_entry(m, struct order, msg);
	memcpy(o->home->circle, o->id, sizeof o->home->circle);
	mem_free(o);
}

static void order_all(struct peers *p, void (*run)(struct loop_msg *m), const uint8_t id[16])
{
	for (int i = 0; i < p->home_count; i++) {
		struct order *o = mem_new(sizeof *o);
		*o = (struct order){.msg.run = run, .home = &p->homes[i]};
		memcpy(o->id, id, sizeof o->id);
		loop_post(p->homes[i].loop, &o->msg);
	}
}

void peers_set_cluster(struct peers *p, const uint8_t id[16])
{
	order_all(p, on_cluster, id);
}

void peers_set_circle(struct peers *p, const uint8_t id[16])
{
	order_all(p, on_circle, id);
}

/* --- what the connections' files share --- */

void peer_hello_of(const struct peer_home *h, enum peer_purpose purpose, struct peer_hello *out)
{
	const struct peers_conf *c = &h->peers->conf;
	*out = (struct peer_hello){.version_min = PEER_VERSION_MIN,
		.version_max = PEER_VERSION,
		.node = c->node,
		.boot = c->boot,
		.loop = (uint16_t)loop_index(h->loop),
		.purpose = (uint8_t)purpose,
		.cluster_name = bytes_text(c->cluster_name),
		.name = bytes_text(c->name),
		.rack = bytes_text(c->rack),
		.address = bytes_text(c->address)};
	memcpy(out->cluster, h->cluster, sizeof out->cluster);
	memcpy(out->circle, h->circle, sizeof out->circle);
	memcpy(out->instance, c->instance, sizeof out->instance);
}

struct peer_words peer_words(struct bytes b)
{
	struct peer_words w;
	size_t len = b.len < sizeof w.text - 1 ? b.len : sizeof w.text - 1;
	for (size_t i = 0; i < len; i++)
		w.text[i] = b.at[i] < 0x20 || b.at[i] > 0x7e || b.at[i] == '"' || b.at[i] == '\\'
			? '?'
			: (char)b.at[i];
	w.text[len] = 0;
	return w;
}

bool peer_other_cluster(
	const struct peer_home *h, const struct peer_hello *hello, char *why, size_t size)
{
	struct bytes ours = bytes_text(h->peers->conf.cluster_name);
	bool named_alike = bytes_equal(ours, hello->cluster_name);
	if (!peer_cluster_none(h->cluster) && !peer_cluster_none(hello->cluster)) {
		/* The name is for people and may be changed; the id is what counts. */
		if (memcmp(h->cluster, hello->cluster, sizeof h->cluster) == 0)
			return false;
	} else if (named_alike) {
		return false;
	}
	if (named_alike)
		snprintf(why, size, "nodes %u and %u are of two clusters, both named '%.48s'",
			hello->node, h->peers->conf.node, peer_words(ours).text);
	else
		snprintf(why, size, "node %u is of cluster '%.48s', node %u of '%.48s'",
			hello->node, peer_words(hello->cluster_name).text, h->peers->conf.node,
			peer_words(ours).text);
	return true;
}

enum err peer_refuse(
	struct peer_home *h, struct conn *c, enum peer_refusal code, uint32_t node, const char *why)
{
	peer_count(h, M_REFUSED, 1);
	if (code == REFUSED_SELF || code == REFUSED_EMPTY) /* found out by everyone who starts */
		LOG(LOG_INFO, AREA_CLUSTER, "peer_refused", "peer=%s node=%u why=\"%s\"",
			conn_peer(c), node, why);
	else
		LOG(LOG_WARN, AREA_CLUSTER, "peer_refused", "peer=%s node=%u why=\"%s\"",
			conn_peer(c), node, why);
	peer_refusal_write(conn_out(c), code, why);
	conn_wrote(c);
	return ERR_DENIED;
}

struct found_at {
	struct loop_msg msg;
	struct peer_home *home;
	uint32_t node;
	char address[136];
};

static void on_found_at(struct loop_msg *m)
{
	struct found_at *f = list_entry(m, struct found_at, msg);
	struct peer_to *t = peer_find(f->home, f->node);
	if (t != NULL && !t->removed && !t->up && !f->home->stopped &&
		(t->said == NULL || strcmp(t->said, f->address) != 0)) {
		set_text(&t->said, f->address, strlen(f->address));
		peer_out_kick(t);
	}
	mem_free(f);
}

void peers_found_at(struct peers *p, uint32_t node, const char *address)
{
	for (int i = 0; i < p->home_count; i++) {
		struct found_at *f = mem_new(sizeof *f);
		*f = (struct found_at){.msg.run = on_found_at, .home = &p->homes[i], .node = node};
		snprintf(f->address, sizeof f->address, "%s", address);
		loop_post(p->homes[i].loop, &f->msg);
	}
}

void peers_on_verdict(struct peers *p, struct loop *loop, peer_judged fn, void *arg)
{
	p->judged = fn;
	p->judged_arg = arg;
	p->judged_loop = loop;
}

/* --- watchers --- */

void peers_watch(struct peers *p, struct peer_watcher *w)
{
	loop_must_own(w->loop);
	list_push_back(&p->homes[loop_index(w->loop)].watchers, &w->node);
}

void peers_unwatch(struct peers *p, struct peer_watcher *w)
{
	(void)p;
	loop_must_own(w->loop);
	list_remove(&w->node);
}

void peer_tell_watchers(struct peer_home *h, uint32_t node, bool up)
{
	struct list now, *n; /* any of them may go while one is told */
	list_init(&now);
	while ((n = list_pop(&h->watchers)) != NULL)
		list_push_back(&now, n);
	while ((n = list_pop(&now)) != NULL) {
		struct peer_watcher *w = list_entry(n, struct peer_watcher, node);
		list_push_back(&h->watchers, n);
		w->changed(w, node, up);
	}
}

/* --- sending --- */

bool peers_send(struct peers *p, uint32_t node, enum peer_lane lane, enum peer_kind kind,
	uint64_t group, struct slice *parts, int count)
{
	struct peer_home *h = peer_home_here(p);
	struct peer_to *t = peer_find(h, node);
	if (t == NULL || !t->up) {
		peer_drop_parts(parts, count);
		peer_count(h, lane == LANE_HIGH ? M_DROPPED_HIGH : M_DROPPED_BULK, 1);
		return false;
	}
	return peer_link_send(h, &t->link, lane,
		&(struct peer_message){
			.kind = (uint8_t)kind, .group = group, .parts = parts, .count = count});
}

bool peer_bulk_room(struct peers *p, uint32_t node, struct peer_room *w)
{
	struct peer_to *t = peer_find(peer_home_here(p), node);
	list_init(&w->node);
	if (t == NULL || !t->up || peer_link_room(&t->link))
		return true;
	list_push_back(&t->rooms, &w->node);
	return false;
}

void peer_room_cancel(struct peer_room *w)
{
	list_remove(&w->node);
}

bool peer_connected(const struct peers *p, uint32_t node)
{
	const struct loop *l = loop_here();
	must(l != NULL);
	const struct peer_to *t = peer_find(&p->homes[loop_index(l)], node);
	return t != NULL && t->up;
}

void peers_handle(struct peers *p, enum peer_kind kind, peer_handler fn, void *arg)
{
	must((int)kind > 0 && (int)kind < PEER_KIND_COUNT);
	p->handlers[kind] = (struct peer_table_handler){fn, arg};
}

void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	must((int)op > 0 && (int)op < PEER_OP_COUNT);
	p->servers[op] = (struct peer_table_server){fn, arg};
}

bool peers_next(const struct peers *p, int *at, struct peer_view *out)
{
	const struct peer_home *h = &p->homes[1 % p->home_count];
	const struct peer_to *t, *found = NULL;
	loop_must_own(h->loop);
	for (uint32_t i = 0; (t = map_next(&h->nodes, &i)) != NULL;)
		if (!t->removed && (int64_t)t->id > *at && (found == NULL || t->id < found->id))
			found = t;
	if (found == NULL)
		return false;
	*at = (int)found->id;
	*out = (struct peer_view){.node = found->id,
		.connected = found->up,
		.since_ms = found->since_ms,
		.rtt_us = found->rtt_us};
	snprintf(out->address, sizeof out->address, "%s",
		found->said != NULL              ? found->said
			: found->address != NULL ? found->address
						 : "");
	snprintf(out->why, sizeof out->why, "%.95s", found->up ? "" : found->why);
	return true;
}

/* --- time --- */

void peer_hurry(struct peer_home *h)
{
	if (h->started && !h->stopped && !loop_timer_is_set(&h->tick))
		loop_timer_set(&h->tick, PEER_TICK_MS);
}

static bool has_inbound(const struct peer_home *h, uint32_t node)
{
	for (struct list *n = h->ins.next; n != &h->ins; n = n->next)
		if (list_entry(n, struct peer_in, node)->from == node)
			return true;
	return false;
}

/* Once a second. When this loop stood still itself, nobody else was silent. */
static void look_for_silence(struct peer_home *h, int64_t now_ms, bool granted)
{
	struct peer_to *t;
	for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;) {
		if (t->up && peer_link_silent(&t->link, now_ms, granted)) {
			snprintf(t->why, sizeof t->why, "silent for %d ms", PEER_SILENT_MS);
			conn_close(t->link.conn, ERR_TIMEOUT);
		}
		if (!t->told && !t->removed && !t->up && !has_inbound(h, t->id))
			free_node(t);
	}
	peer_in_tick(h, now_ms, granted);
}

static void on_tick(struct loop_timer *timer)
{
	struct peer_home *h = list_entry(timer, struct peer_home, tick);
	int64_t now = loop_now_ms(h->loop);
	bool granted = now - h->ticked_ms > PEER_TICK_MS + 1000;
	struct peer_to *t;
	h->ticked_ms = now;
	for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;) {
		peer_out_look(t, now);
		peer_out_ping(t, now);
	}
	peer_calls_expire(h, now);
	if (granted || now - h->looked_ms >= 1000) {
		look_for_silence(h, now, granted);
		h->looked_ms = now;
	}
	loop_timer_set(&h->tick, PEER_TICK_MS);
}

/* --- life --- */

static void home_init(struct peer_home *h, struct peers *p, struct loop *l)
{
	h->peers = p;
	h->loop = l;
	list_init(&h->ins);
	list_init(&h->watchers);
	list_init(&h->probes);
	loop_timer_init(&h->tick, l, on_tick);
	peer_calls_init(h);
	h->crossing = mem_new((size_t)p->home_count * sizeof(struct crossing *));
}

struct peers *peers_new(const struct peers_conf *c, struct loops *loops)
{
	struct peers *p = mem_new(sizeof *p);
	p->conf = *c;
	p->loops = loops;
	p->home_count = loops_count(loops);
	p->homes = mem_new((size_t)p->home_count * sizeof *p->homes);
	for (int i = 0; i < p->home_count; i++)
		home_init(&p->homes[i], p, loops_at(loops, i));
	return p;
}

static void on_start(void *arg)
{
	struct peer_home *h = arg;
	h->started = true;
	h->ticked_ms = h->looked_ms = loop_now_ms(h->loop);
	loop_timer_set(&h->tick, 0);
}

void peers_start(struct peers *p, struct net *net)
{
	p->net = net; /* seen by the loops, as the calls below are posted */
	for (int i = 0; i < p->home_count; i++)
		loop_call(p->homes[i].loop, on_start, &p->homes[i]);
}

static void on_stop(void *arg)
{
	struct peer_home *h = arg;
	struct peer_to *t;
	h->stopped = true;
	loop_timer_cancel(&h->tick);
	peer_probes_stop(h);
	for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;)
		free_node(t);
	peer_calls_stop(h);
	peer_in_close(h, 0, ERR_CLOSED);
	atomic_fetch_add(&h->peers->stopped, 1);
}

/* Connections close when their output is sent or net has waited long enough for it. */
void peers_stop(struct peers *p)
{
	enum { WAIT_MS = 10000 };
	int64_t end = clock_ms() + WAIT_MS;
	must(loop_here() == NULL);
	for (int i = 0; i < p->home_count; i++)
		loop_call(p->homes[i].loop, on_stop, &p->homes[i]);
	while ((atomic_load(&p->stopped) < p->home_count || atomic_load(&p->conns) > 0) &&
		clock_ms() < end)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	if (atomic_load(&p->conns) > 0)
		LOG(LOG_WARN, AREA_CLUSTER, "peers_not_closed", "connections=%d loops=%d of %d",
			atomic_load(&p->conns), atomic_load(&p->stopped), p->home_count);
}

void peers_free(struct peers *p)
{
	if (p == NULL)
		return;
	for (int i = 0; i < p->home_count; i++) {
		struct peer_home *h = &p->homes[i];
		struct peer_to *t;
		for (uint32_t at = 0; (t = map_next(&h->nodes, &at)) != NULL;)
			free_node(t);
		loop_timer_cancel(&h->tick);
		loop_hook_cancel(&h->tell);
		map_fini(&h->nodes);
		map_fini(&h->serials);
		map_fini(&h->calls);
		chunk_unref(h->batch);
		mem_free(h->crossing);
	}
	mem_free(p->homes);
	mem_free(p);
}
