/* MQTT-like clients with durable sessions: each keeps a name, subscribes once, comes back on any
 * node (sometimes before its last connection has ended), acknowledges what it gets a little later,
 * and publishes at QoS 2, one message at a time, until PUBCOMP.
 *
 * Held against it: a session that was acknowledged is there when its client comes back; every
 * message sent after the subscription was acknowledged, and itself acknowledged, arrives; within a
 * connection offsets of a partition rise; nothing that a connection wrote after another one had the
 * name is acknowledged; what went out at QoS 2 is in the log once (sim_check.c). */
#include <stdio.h>
#include "server/base/map.h"
#include "server/base/mem.h"
#include "tests/sim/sim_load.h"

enum {
	GAP_US = 150 * SIM_MS,
	WINDOW = 16,
	ACK_US_MAX = 30 * SIM_MS,
	STAY_US_MAX = 6 * SIM_S,
	PROBE_US = 300 * SIM_MS,
	QOS2_US_MAX = 400 * SIM_MS,
	QOS2_RETRY_US = 700 * SIM_MS,
	QOS2_PRODUCERS = 5000,
	NAME_BYTES = 16
};

enum qos2_phase { QOS2_IDLE, QOS2_PUBLISH, QOS2_RELEASE };

struct conn;
struct client {
	struct actor actor;
	char name[NAME_BYTES];
	struct conn *conn; /* that has the name as far as the client knows; NULL: none */
	bool subscribed;   /* acknowledged, at: */
	int64_t subscribed_us;
	uint8_t *received; /* by op */
	uint64_t received_room, deliveries;
	uint64_t scanned;      /* ops up to here were looked at: nothing is missing of them */
	enum qos2_phase phase; /* of the message under way */
	uint64_t op;
	uint32_t sequence;
};

struct conn {             /* stays in memory: late events find it */
	struct list node; /* of all that are open */
	struct client *client;
	struct sim_node *on;
	uint64_t life, turn;
	struct loop *loop;
	struct session *session;
	int64_t opened_us;
	bool gone;       /* the session is closed, or going to be */
	struct map last; /* group -> offset_seen */
	struct subscribe subscribe;
	bool in_force;
	uint64_t subscribe_ticket, probe_ticket; /* 0: none awaited */
	int64_t probe_us;
	struct inbound *inbound;
};

struct offset_seen {
	int64_t offset;
};

struct inbound { /* a QoS 2 publish that came in */
	struct publish publish;
	struct conn *conn;
	uint64_t op, ticket;
	uint16_t packet_id;
	bool done;
};

static struct list conns;

static bool alive(const struct conn *k)
{
	return !k->gone && k->on->machine.up && k->on->machine.life == k->life;
}

struct late { /* a call on the connection's loop, if that is still there */
	struct conn *conn;
	void (*fn)(struct conn *k, uint16_t packet_id);
	uint16_t packet_id;
};

static void late_run(void *arg)
{
	struct late *l = arg;

	if (!l->conn->gone)
		l->fn(l->conn, l->packet_id);
	mem_free(l);
}

static void late_post(void *arg)
{
	struct late *l = arg;

	if (alive(l->conn))
		loop_call(l->conn->loop, late_run, l);
	else
		mem_free(l);
}

static void later(struct conn *k, int64_t us, void (*fn)(struct conn *k, uint16_t id), uint16_t id)
{
	struct late *l = mem_new(sizeof *l);

	*l = (struct late){k, fn, id};
	sim_after(us, NULL, late_post, l);
}

/* --- what arrives */

static void mark_received(struct client *c, uint64_t op)
{
	if (op >= c->received_room) {
		uint64_t room = c->received_room ? c->received_room : 4096;

		while (room <= op)
			room *= 2;
		c->received = mem_resize(c->received, room);
		must(c->received != NULL);
		memset(c->received + c->received_room, 0, room - c->received_room);
		c->received_room = room;
	}
	c->received[op] = 1;
	c->deliveries++;
}

static bool take(struct conn *k, const struct delivery *d)
{
	struct check_value v;

	if (d == NULL || d->match_count == 0 || !check_value_read(d->message->value, &v))
		return false;
	mark_received(k->client, v.op);
	return true;
}

static void in_order(struct conn *k, const struct delivery *d)
{
	uint64_t group = partition_group(d->partition);
	struct offset_seen *o = map_get_u64(&k->last, group);

	if (o == NULL) {
		o = mem_new(sizeof *o);
		o->offset = -1;
		map_put_u64(&k->last, group, o);
	}
	if (d->offset <= o->offset)
		sim_fail("%s on n%d: group %llu offset %lld comes after %lld", k->client->name,
			k->on->machine.id, (unsigned long long)group, (long long)d->offset,
			(long long)o->offset);
	o->offset = d->offset;
}

static void acknowledge(struct conn *k, uint16_t packet_id)
{
	const struct window_entry *e = window_find(&k->session->window, packet_id);

	if (e == NULL || e->state != WINDOW_SENT1)
		return;
	session_done(k->session, packet_id);
	session_touch(k->session);
	session_ready(k->session);
}

static bool on_deliver(struct session *s, const struct delivery *d)
{
	struct conn *k = s->owner;
	struct window_entry e = {.offset = d->offset,
		.group = d->partition ? partition_group(d->partition) : 0,
		.state = WINDOW_SENT1};
	uint16_t id;

	if (s->window.sent >= WINDOW || window_take(&s->window, e, &id) != OK)
		return false;
	if (!d->retained && d->partition != NULL)
		in_order(k, d);
	(void)take(k, d);
	session_touch(s);
	later(k, sim_pick(1, ACK_US_MAX), acknowledge, id);
	return true;
}

static bool on_again(struct session *s, uint16_t id, const struct delivery *d)
{
	struct conn *k = s->owner;
	struct window_entry *e = window_find(&s->window, id);

	if (d == NULL || e == NULL)
		return true;
	(void)take(k, d);
	window_move(&s->window, e, WINDOW_SENT1);
	later(k, sim_pick(1, ACK_US_MAX), acknowledge, id);
	return true;
}

/* --- QoS 2 */

static void qos2_send(struct conn *k, uint16_t id);

static uint16_t qos2_id(const struct client *c)
{
	return (uint16_t)(c->sequence % 60000 + 1);
}

static void qos2_next(struct conn *k, int64_t us)
{
	later(k, us, qos2_send, 0);
}

/* PUBCOMP */
static void qos2_completed(struct conn *k, uint16_t id)
{
	struct client *c = k->client;

	if (c->conn != k || c->phase != QOS2_RELEASE || id != qos2_id(c))
		return;
	c->phase = QOS2_IDLE;
	c->sequence++;
	qos2_next(k, sim_pick(1, QOS2_US_MAX));
}

struct release {
	struct session_forget forget;
	struct conn *conn;
};

static void on_forgotten(struct session_forget *f)
{
	struct release *r = list_entry(f, struct release, forget);
	struct conn *k = r->conn;
	struct session_id *id;

	if (!k->gone) {
		id = session_ids_find(&k->session->received, f->packet_id);
		if (f->err == OK) {
			session_ids_remove(&k->session->received, f->packet_id);
			qos2_completed(k, f->packet_id);
		} else if (id != NULL) {
			id->state = ID_RECEIVED;
		}
	}
	mem_free(r);
}

static void on_pubrel(struct conn *k, uint16_t packet_id)
{
	struct session_id *id = session_ids_find(&k->session->received, packet_id);
	struct release *r;
	enum err e;

	if (id == NULL) {
		qos2_completed(k, packet_id);
		return;
	}
	if (id->state != ID_RECEIVED)
		return;
	r = mem_new(sizeof *r);
	r->conn = k;
	r->forget = (struct session_forget){
		.group = id->group, .packet_id = packet_id, .done = on_forgotten};
	e = session_forget(k->session, &r->forget);
	if (e == OK) {
		id->state = ID_RELEASING;
		return;
	}
	mem_free(r);
	sim_must(e == ERR_NOTFOUND);
	session_ids_remove(&k->session->received, packet_id);
	qos2_completed(k, packet_id);
}

/* PUBREC */
static void qos2_received(struct conn *k, uint16_t id)
{
	struct client *c = k->client;

	if (c->conn != k || c->phase != QOS2_PUBLISH || id != qos2_id(c))
		return;
	c->phase = QOS2_RELEASE;
	later(k, sim_pick(1, SIM_MS), on_pubrel, id);
}

static void inbound_flush(struct conn *k)
{
	struct inbound *in = k->inbound;
	struct client *c = k->client;

	if (in == NULL || !in->done || in->ticket > session_written(k->session))
		return;
	k->inbound = NULL;
	if (c->phase == QOS2_PUBLISH && in->op == c->op && in->publish.partition != NULL &&
		!check_is_acked(in->op))
		check_acked(in->op, partition_group(in->publish.partition), in->publish.offset);
	qos2_received(k, in->packet_id);
	mem_free(in);
}

static void on_published(struct publish *p)
{
	struct inbound *in = list_entry(p, struct inbound, publish);
	struct conn *k = in->conn;
	struct session_id *id;

	if (k->gone) {
		mem_free(in);
		return;
	}
	id = session_ids_find(&k->session->received, in->packet_id);
	sim_note("%s sequence %u id %u: %s, offset %lld", k->client->name, k->client->sequence,
		in->packet_id, err_text(p->err), (long long)p->offset);
	sim_must(id != NULL);
	if (p->err != OK) {
		if (!err_is_passing(p->err) && p->err != ERR_FENCED)
			sim_fail("%s: QoS 2 publish: %s", k->client->name, err_text(p->err));
		session_ids_remove(&k->session->received, in->packet_id);
		k->inbound = NULL;
		mem_free(in);
		return;
	}
	id->state = ID_RECEIVED;
	id->group = partition_group(p->partition);
	in->ticket = session_listed(k->session, p->partition);
	in->done = true;
	inbound_flush(k);
}

static void publish_once(struct conn *k, uint16_t packet_id)
{
	struct client *c = k->client;
	uint8_t value[CHECK_VALUE_BYTES];
	struct check_value v = {.op = c->op,
		.producer = QOS2_PRODUCERS + (uint32_t)c->actor.id,
		.sequence = c->sequence};
	char topic[NAME_BYTES];
	struct message m = {.topic = bytes_of(topic,
				    (size_t)snprintf(topic, sizeof topic, "q/%d", c->actor.id)),
		.value = bytes_of(value, sizeof value),
		.qos = 2,
		.timestamp_ms = loop_now_wall_ms(k->loop)};
	struct inbound *in;
	enum err e;

	sim_note("%s publishes sequence %u", c->name, c->sequence);
	check_value_write(&v, value);
	if (session_ids_add(&k->session->received, (struct session_id){0, packet_id, ID_PENDING}) !=
		OK)
		return;
	in = mem_new(sizeof *in);
	in->conn = k;
	in->op = c->op;
	in->packet_id = packet_id;
	in->publish.done = on_published;
	k->inbound = in;
	e = session_publish_once(k->session, &m, packet_id, &in->publish);
	if (e == OK)
		return;
	if (!err_is_passing(e) && e != ERR_FENCED)
		sim_fail("%s: QoS 2 publish refused: %s", c->name, err_text(e));
	session_ids_remove(&k->session->received, packet_id);
	k->inbound = NULL;
	mem_free(in);
}

/* The client's side: goes on with what is under way, or begins the next. Asked again and again. */
static void qos2_send(struct conn *k, uint16_t unused)
{
	struct client *c = k->client;
	struct session_id *id;

	(void)unused;
	if (c->conn != k)
		return;
	if (c->phase == QOS2_IDLE && load_stopping())
		return;
	if (c->phase == QOS2_IDLE) {
		c->op = check_op_new();
		c->phase = QOS2_PUBLISH;
	}
	id = session_ids_find(&k->session->received, qos2_id(c));
	if (c->phase == QOS2_RELEASE)
		on_pubrel(k, qos2_id(c));
	else if (id == NULL && k->inbound == NULL)
		publish_once(k, qos2_id(c));
	else if (id != NULL && id->state == ID_RECEIVED && k->inbound == NULL)
		qos2_received(k, qos2_id(c));
	if (c->conn == k)
		qos2_next(k, QOS2_RETRY_US);
}

/* --- the session */

static void probe(struct conn *k, uint16_t unused)
{
	(void)unused;
	if (k->probe_ticket == 0) {
		k->probe_ticket = session_write(k->session, true);
		k->probe_us = sim_now_us();
	}
	later(k, PROBE_US, probe, 0);
}

static void on_written(struct session *s)
{
	struct conn *k = s->owner;
	struct client *c = k->client;
	uint64_t written = session_written(s);

	if (k->probe_ticket != 0 && written >= k->probe_ticket) {
		k->probe_ticket = 0;
		if (c->conn != NULL && c->conn != k && c->conn->opened_us < k->probe_us)
			sim_fail("%s: n%d wrote at %.6f, the name was n%d's since %.6f", c->name,
				k->on->machine.id, (double)k->probe_us / SIM_S,
				c->conn->on->machine.id, (double)c->conn->opened_us / SIM_S);
	}
	if (k->in_force && k->subscribe_ticket != 0 && written >= k->subscribe_ticket) {
		k->subscribe_ticket = 0;
		if (!c->subscribed) {
			c->subscribed = true;
			c->subscribed_us = sim_now_us();
			sim_trace("%s is subscribed", c->name);
		}
	}
	inbound_flush(k);
}

static void on_subscribed(struct subscribe *op)
{
	struct conn *k = list_entry(op, struct conn, subscribe);

	if (k->gone)
		return;
	if (op->err != OK) {
		if (!err_is_passing(op->err))
			sim_fail("%s: subscribe: %s", k->client->name, err_text(op->err));
		return;
	}
	if (!op->existed) {
		k->session->subscription_count++;
		k->session->subscription_weight += 3;
	}
	k->in_force = true;
	k->subscribe_ticket = session_write(k->session, true);
	on_written(k->session);
}

static void subscribe(struct conn *k)
{
	k->subscribe = (struct subscribe){.who = &k->session->reader,
		.filter = bytes_text("t/#"),
		.qos = 1,
		.retained = RETAINED_NOT,
		.done = on_subscribed};
	list_init(&k->subscribe.node);
	subscriber_subscribe(&k->subscribe);
}

/* The connection is over: the client comes back, unless it has already. */
static void conn_over(struct conn *k)
{
	struct client *c = k->client;

	if (c->conn == k)
		c->conn = NULL;
	actor_done(&c->actor, k->turn);
}

static void conn_close(struct conn *k, uint16_t unused)
{
	(void)unused;
	if (k->gone)
		return;
	k->gone = true;
	list_remove(&k->node);
	session_close(k->session, true, SESSION_NEVER);
	conn_over(k);
}

static void on_fenced(struct session *s, enum err why)
{
	struct conn *k = s->owner;

	sim_trace("%s on n%d ends: %s", k->client->name, k->on->machine.id, err_text(why));
	conn_close(k, 0);
}

static void on_ended(struct session *s)
{
	(void)s;
}

static const struct session_ops ops = {on_deliver, on_again, on_written, on_fenced, on_ended};

static void on_opened(struct session_open *op)
{
	struct conn *k = op->owner;
	struct client *c = k->client;

	if (op->err != OK) {
		if (!err_is_passing(op->err) && op->err != ERR_FENCED)
			sim_fail("%s: open: %s", c->name, err_text(op->err));
		k->gone = true;
		list_remove(&k->node);
		conn_over(k);
		return;
	}
	k->session = op->session;
	k->opened_us = sim_now_us();
	/* It has gone elsewhere meanwhile, or the node is about to end. */
	if (c->actor.turn != k->turn || k->on->phase != SIM_RUNNING) {
		session_resume(k->session);
		conn_close(k, 0);
		return;
	}
	if (c->subscribed && !op->present)
		sim_fail("%s: its session is lost", c->name);
	sim_trace("%s is on n%d%s", c->name, k->on->machine.id, op->present ? ", resumed" : "");
	c->conn = k;
	session_resume(k->session);
	if (!c->subscribed)
		subscribe(k);
	later(k, sim_pick(1, PROBE_US), probe, 0);
	qos2_next(k, sim_pick(1, QOS2_US_MAX));
}

static void open_here(void *arg)
{
	struct conn *k = arg;
	struct session_open ask = {.all = k->on->sessions,
		.shard = broker_shard(k->on->broker, loop_here()),
		.ops = &ops,
		.owner = k,
		.client_id = bytes_text(k->client->name),
		.expiry_s = SESSION_NEVER,
		.done = on_opened};
	struct session_open *opening;

	k->loop = loop_here();
	if (catalog_table_count(shard_catalog(ask.shard)) == 0) { /* no catalogue yet */
		k->gone = true;
		list_remove(&k->node);
		conn_over(k);
		return;
	}
	if (session_open(&ask, &opening) != OK)
		sim_fail("%s: open", k->client->name);
}

/* --- the client */

struct leaving {
	struct conn *conn;
	bool close;
};

/* Closes, or comes anew somewhere while the last connection is still there. */
static void leave(void *arg)
{
	struct leaving *l = arg;
	struct conn *k = l->conn;
	struct client *c = k->client;

	if (c->conn == k && alive(k) && !load_stopping()) {
		if (l->close)
			later(k, 1, conn_close, 0);
		else
			actor_again(&c->actor, 1);
	}
	mem_free(l);
}

static void client_step(struct actor *a)
{
	struct client *c = list_entry(a, struct client, actor);
	struct sim_node *n = actor_node();
	struct conn *k;
	struct leaving *l;

	if (n == NULL) {
		actor_again(a, GAP_US);
		return;
	}
	k = mem_new(sizeof *k);
	k->client = c;
	k->on = n;
	k->life = n->machine.life;
	list_init(&k->node);
	list_push_back(&conns, &k->node);
	k->turn = actor_call(a, n, open_here, k);
	l = mem_new(sizeof *l);
	*l = (struct leaving){k, sim_chance(600)};
	sim_after(sim_pick(300 * SIM_MS, STAY_US_MAX), NULL, leave, l);
}

static void client_lost(struct actor *a)
{
	struct client *c = list_entry(a, struct client, actor);

	if (c->conn != NULL && c->conn->on == a->on)
		c->conn = NULL;
}

/* Connected, and nothing is missing. */
static bool client_idle(struct actor *a, char *why, size_t why_size)
{
	struct client *c = list_entry(a, struct client, actor);

	if (c->conn == NULL || !c->subscribed || c->phase != QOS2_IDLE) {
		snprintf(why, why_size, "%s is %s, QoS 2 phase %d since op %llu", c->name,
			c->conn ? "connected" : "not connected", (int)c->phase,
			(unsigned long long)c->op);
		return false;
	}
	for (; c->scanned < check_ops(); c->scanned++) {
		uint64_t op = c->scanned + 1;

		if (!check_is_expected(op, c->subscribed_us))
			continue;
		if (op < c->received_room && c->received[op])
			continue;
		snprintf(why, why_size, "%s on n%d (subscribed at %.6f) misses op %llu", c->name,
			c->conn->on->machine.id, (double)c->subscribed_us / SIM_S,
			(unsigned long long)op);
		return false;
	}
	return true;
}

static const struct actor_kind client_kind = {"client", client_step, client_lost, client_idle};

void load_session_closing(struct sim_node *n)
{
	for (struct list *at = conns.next; at != NULL && at != &conns; at = at->next) {
		struct conn *k = list_entry(at, struct conn, node);

		if (k->on == n && k->session != NULL)
			later(k, 1, conn_close, 0);
	}
}

void load_session_gone(struct sim_node *n)
{
	struct list *next;

	for (struct list *at = conns.next; at != NULL && at != &conns; at = next) {
		next = at->next;
		if (list_entry(at, struct conn, node)->on == n) {
			list_entry(at, struct conn, node)->gone = true;
			list_remove(at);
		}
	}
}

void load_session_add(int id)
{
	struct client *c = mem_new(sizeof *c);

	if (conns.next == NULL)
		list_init(&conns);
	snprintf(c->name, sizeof c->name, "client-%d", id);
	actor_add(&c->actor, &client_kind, id, GAP_US);
}
