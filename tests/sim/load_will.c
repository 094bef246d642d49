/* Clients that leave a will, one life after the other under one name: a life ends with DISCONNECT,
 * with a connection that breaks, with its node, or because the next one begins elsewhere.
 *
 * Held against it: no will is in the log twice, nor behind that of a later life (sim_check.c); the
 * will of a life that began for its client and did not end with DISCONNECT is there in the end,
 * unless it is delayed and the session may have gone on; that of one that did, is not. */
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/session_priv.h"
#include "tests/sim/sim_load.h"

enum {
	GAP_US = 600 * SIM_MS,
	BEGIN_US = 6 * SIM_S, /* a node that is alone yet keeps no rows */
	STAY_US_MAX = 3 * SIM_S,
	LIVES_MAX = 400,
	WILL_PRODUCERS = 7000,
	WILL_BYTES_MAX = 4096,
	NAME_BYTES = 16
};

struct life {             /* stays in memory: late events find it */
	struct list node; /* of all that have a session */
	struct mortal *of;
	struct sim_node *on;
	uint64_t life, turn, op;
	struct loop *loop;
	struct session *session; /* NULL: not yet, or not any more */
	struct buf will;
	uint32_t delay_s, expiry_s;
	bool closed, graceful;
	bool must, never; /* be published */
};

struct mortal {
	struct actor actor;
	char name[NAME_BYTES];
	uint32_t sequence;
	struct life *lives[LIVES_MAX];
	int life_count, seen; /* lives below that are as they should be */
};

static struct list open_lives;

static bool alive(const struct life *l)
{
	return l->session != NULL && l->on->machine.up && l->on->machine.life == l->life;
}

/* --- the end of a life */

static void life_close(struct life *l, bool graceful)
{
	struct session *s = l->session;

	if (l->closed || s == NULL)
		return;
	l->closed = true;
	l->graceful = graceful;
	sim_note("%s: life with op %llu on n%d ends%s", l->of->name, (unsigned long long)l->op,
		l->on->machine.id, graceful ? ", DISCONNECT" : "");
	if (graceful)
		l->must = false;
	list_remove(&l->node);
	session_close(s, !graceful, l->expiry_s);
}

/* The rows say so, in its epoch, and nobody may have asked for its name before: who comes elsewhere
 * while this node is not heard takes the will for due. */
static void on_ended(struct session *s)
{
	struct life *l = s->owner;

	if (l == NULL) /* it did not come to be */
		return;
	l->session = NULL;
	sim_note("%s: life with op %llu is over, %s", l->of->name, (unsigned long long)l->op,
		s->durable != NULL ? err_text(s->durable->write.err) : "no row");
	l->never = l->graceful && s->durable != NULL && s->durable->write.err == OK &&
		l == l->of->lives[l->of->life_count - 1];
}

static void on_fenced(struct session *s, enum err why)
{
	(void)why;
	life_close(s->owner, false);
}

static bool on_deliver(struct session *s, const struct delivery *d)
{
	(void)s;
	(void)d;
	return true;
}

static bool on_again(struct session *s, uint16_t id, const struct delivery *d)
{
	(void)s;
	(void)id;
	(void)d;
	return true;
}

static void on_written(struct session *s)
{
	(void)s;
}

static const struct session_ops ops = {on_deliver, on_again, on_written, on_fenced, on_ended};

static void disconnect(void *arg)
{
	life_close(arg, true);
}
static void lose(void *arg)
{
	life_close(arg, false);
}

/* --- its beginning */

static void on_opened(struct session_open *op)
{
	struct life *l = op->owner;
	struct mortal *m = l->of;

	if (op->err != OK) {
		if (!err_is_passing(op->err) && op->err != ERR_FENCED)
			sim_fail("%s: open: %s", m->name, err_text(op->err));
		sim_note("%s: life with op %llu does not begin: %s", m->name,
			(unsigned long long)l->op, err_text(op->err));
		actor_done(&m->actor, l->turn);
		return;
	}
	l->session = op->session;
	l->must = l->delay_s == 0 && l->session->durable != NULL;
	list_push_back(&open_lives, &l->node);
	sim_note("%s: life with op %llu on n%d begins, delay %u, expiry %u, epoch %llu", m->name,
		(unsigned long long)l->op, l->on->machine.id, l->delay_s, l->expiry_s,
		l->session->durable ? (unsigned long long)l->session->durable->epoch : 0);
	session_resume(l->session);
	if (m->actor.turn != l->turn || l->on->phase != SIM_RUNNING)
		life_close(l, false);
	actor_done(&m->actor, l->turn);
}

static void open_here(void *arg)
{
	struct life *l = arg;
	struct session_open ask = {.all = l->on->sessions,
		.shard = broker_shard(l->on->broker, loop_here()),
		.ops = &ops,
		.owner = l,
		.client_id = bytes_text(l->of->name),
		.expiry_s = l->expiry_s,
		.clean = sim_chance(300),
		.will = buf_bytes(&l->will),
		.done = on_opened};
	struct session_open *opening;
	enum err e;

	l->loop = loop_here();
	e = session_open(&ask, &opening);
	if (e == OK)
		return;
	if (!err_is_passing(e))
		sim_fail("%s: open: %s", l->of->name, err_text(e));
	actor_done(&l->of->actor, l->turn);
}

static void write_will(struct life *l)
{
	uint8_t value[CHECK_VALUE_BYTES];
	char topic[NAME_BYTES];
	struct check_value v = {.op = l->op,
		.producer = WILL_PRODUCERS + (uint32_t)l->of->actor.id,
		.sequence = ++l->of->sequence};
	struct will w = {.delay_s = l->delay_s,
		.message = {.topic = bytes_of(topic,
				    (size_t)snprintf(topic, sizeof topic, "w/%d", l->of->actor.id)),
			.value = bytes_of(value, sizeof value),
			.qos = 1,
			.timestamp_ms = 1767225600000 + sim_now_us() / SIM_MS}};

	check_value_write(&v, value);
	buf_init(&l->will, WILL_BYTES_MAX);
	must(will_encode(&w, WILL_BYTES_MAX, &l->will) == OK);
}

static struct life *life_new(struct mortal *m, struct sim_node *n)
{
	struct life *l = mem_new(sizeof *l);

	sim_must(m->life_count < LIVES_MAX);
	l->of = m;
	l->on = n;
	l->life = n->machine.life;
	l->op = check_op_new();
	l->expiry_s = sim_chance(500) ? SESSION_NEVER : 0;
	l->delay_s = l->expiry_s != 0 && sim_chance(300) ? (uint32_t)sim_pick(1, 3) : 0;
	list_init(&l->node);
	write_will(l);
	m->lives[m->life_count++] = l;
	return l;
}

/* --- the client */

/* The life that is open: also of who came elsewhere, and was refused there. */
static struct life *open_life(const struct mortal *m)
{
	for (struct list *at = open_lives.next; at != NULL && at != &open_lives; at = at->next) {
		struct life *l = list_entry(at, struct life, node);

		if (l->of == m && alive(l))
			return l;
	}
	return NULL;
}

/* Ends it, unless the next one is to meet it; then that begins. */
static bool ends_life(struct mortal *m)
{
	struct life *l = open_life(m);

	if (l == NULL || (sim_chance(250) && !load_stopping()))
		return false;
	loop_call(l->loop, sim_chance(350) && !load_stopping() ? disconnect : lose, l);
	return true;
}

static void mortal_step(struct actor *a)
{
	struct mortal *m = list_entry(a, struct mortal, actor);
	struct sim_node *n = actor_node();
	struct life *l;

	if (n == NULL || sim_now_us() < BEGIN_US || ends_life(m) || load_stopping()) {
		actor_again(a, sim_pick(1, GAP_US));
		return;
	}
	l = life_new(m, n);
	l->turn = actor_call(a, n, open_here, l);
	sim_note("%s: life with op %llu is to begin on n%d", m->name, (unsigned long long)l->op,
		n->machine.id);
	a->gap_us = sim_pick(1, STAY_US_MAX);
}

static bool mortal_idle(struct actor *a, char *why, size_t why_size)
{
	struct mortal *m = list_entry(a, struct mortal, actor);

	for (; m->seen < m->life_count; m->seen++) {
		const struct life *l = m->lives[m->seen];
		bool there = check_is_found(l->op);

		if (l->never && there)
			sim_fail("%s: life %d ended with DISCONNECT, its will was published",
				m->name, m->seen);
		if (!l->must || there)
			continue;
		snprintf(why, why_size, "%s: the will of life %d (op %llu) on n%d is missing",
			m->name, m->seen, (unsigned long long)l->op, l->on->machine.id);
		return false;
	}
	return true;
}

static const struct actor_kind mortal_kind = {"mortal", mortal_step, NULL, mortal_idle};

void load_will_closing(struct sim_node *n)
{
	for (struct list *at = open_lives.next; at != NULL && at != &open_lives; at = at->next) {
		struct life *l = list_entry(at, struct life, node);

		if (l->on == n && alive(l))
			loop_call(l->loop, lose, l);
	}
}

void load_will_gone(struct sim_node *n)
{
	struct list *next;

	for (struct list *at = open_lives.next; at != NULL && at != &open_lives; at = next) {
		struct life *l = list_entry(at, struct life, node);

		next = at->next;
		if (l->on != n)
			continue;
		l->session = NULL;
		list_remove(at);
	}
}

void load_will_add(int id)
{
	struct mortal *m = mem_new(sizeof *m);

	if (open_lives.next == NULL)
		list_init(&open_lives);
	snprintf(m->name, sizeof m->name, "mortal-%d", id);
	actor_add(&m->actor, &mortal_kind, id, GAP_US);
}
