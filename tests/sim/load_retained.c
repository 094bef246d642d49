/* Retained values: writers who set and delete one of a topic each, subscribers who come anywhere,
 * want to know what is retained, and go. A topic's value is a register: the last that a subscriber
 * is sent is what was acknowledged last when it asked, or a later attempt, or one whose outcome is
 * not known. It is sent a retained value once, and not after a later one has come live. (Where no
 * leader is heard the retained value may be an old one; then the newer one follows.) */
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/deliver.h"
#include "server/broker/publish.h"
#include "tests/sim/sim_load.h"

enum {
	WRITE_US = 500 * SIM_MS,
	LOOK_US = 1200 * SIM_MS,
	MEET_US_MAX = 3 * SIM_MS,
	PATIENCE_US = 4 * SIM_S,
	TOPICS = 3,
	TRIES_MAX = 2000,
	SETTLED_US = 15 * SIM_S, /* so long after it was tried, what did not count will not */
	NAME_BYTES = 16
};

enum outcome { UNKNOWN, REFUSED, ACKNOWLEDGED };

static struct looker {
	struct actor actor;
	struct sitting *now;
} * lookers[8];
static int looker_count;

static struct topic { /* attempts are numbered from 1 */
	struct attempt {
		enum outcome outcome;
		bool deletes;
		int64_t at_us;
	} tries[TRIES_MAX];
	int tried, acknowledged;
} topics[TOPICS];

/* It may have counted, or may yet. */
static bool is_open(const struct topic *t, int number)
{
	const struct attempt *a = &t->tries[number];

	return a->outcome == UNKNOWN && a->at_us > sim_now_us() - SETTLED_US;
}

/* --- writers */

struct writer {
	struct actor actor;
};

struct writing {
	struct publish publish;
	struct writer *by;
	uint64_t turn;
	uint64_t op;
	int number;
	uint8_t value[CHECK_VALUE_BYTES];
};

static struct topic *topic_of(const struct writing *w)
{
	return &topics[w->by->actor.id];
}

static void published(struct publish *p)
{
	struct writing *w = list_entry(p, struct writing, publish);
	struct topic *t = topic_of(w);

	if (p->err != OK && !err_is_passing(p->err))
		sim_fail("retained publish ended with %s", err_text(p->err));
	if (p->err == OK && w->by->actor.turn == w->turn) {
		t->tries[w->number].outcome = ACKNOWLEDGED;
		t->acknowledged = w->number;
		if (!t->tries[w->number].deletes)
			check_acked(w->op, partition_group(p->partition), p->offset);
	}
	actor_done(&w->by->actor, w->turn);
	mem_free(w);
}

static void write_here(void *arg)
{
	struct writing *w = arg;
	struct check_value v = {.topic = (uint32_t)w->number};
	char name[NAME_BYTES];
	struct message m = {.topic = bytes_of(name,
				    (size_t)snprintf(name, sizeof name, "r/%d", w->by->actor.id)),
		.qos = 1,
		.retain = true};
	struct shard *s = actor_shard(&w->by->actor);
	enum err e;

	v.op = w->op = check_op_new();
	check_value_write(&v, w->value);
	if (!topic_of(w)->tries[w->number].deletes)
		m.value = bytes_of(w->value, sizeof w->value);
	m.timestamp_ms = loop_now_wall_ms(shard_loop(s));
	w->publish.done = published;
	e = shard_publish(s, &m, &w->publish);
	if (e == OK)
		return;
	if (!err_is_passing(e))
		sim_fail("retained publish refused with %s", err_text(e));
	topic_of(w)->tries[w->number].outcome = REFUSED;
	actor_done(&w->by->actor, w->turn);
	mem_free(w);
}

/* They come while it is under way: what they read meets what comes live. */
static void wake_lookers(void)
{
	for (int i = 0; i < looker_count; i++)
		if (!lookers[i]->actor.busy && sim_chance(500))
			actor_again(&lookers[i]->actor, sim_pick(1, MEET_US_MAX));
}

static void write_step(struct actor *a)
{
	struct sim_node *n = actor_node();
	struct topic *t = &topics[a->id];
	struct writing *w;

	if (n == NULL) {
		actor_again(a, WRITE_US);
		return;
	}
	w = mem_new(sizeof *w);
	w->by = list_entry(a, struct writer, actor);
	w->number = ++t->tried;
	sim_must(t->tried < TRIES_MAX);
	t->tries[t->tried] = (struct attempt){UNKNOWN, sim_chance(150), sim_now_us()};
	w->turn = actor_call(a, n, write_here, w);
	wake_lookers();
}

static const struct actor_kind writer_kind = {"retained", write_step, NULL, NULL};

void load_retain_add(int id)
{
	struct writer *w = mem_new(sizeof *w);

	sim_must(id < TOPICS);
	actor_add(&w->actor, &writer_kind, id, WRITE_US);
}

/* --- subscribers */

struct wanted { /* of a topic, as it was when the subscriber asked */
	int acknowledged;
	int sent, live, last; /* attempts that came: retained, live, as the last one */
};

struct sitting { /* stays in memory: late events find it */
	struct subscriber subscriber;
	struct subscribe op;
	struct looker *by;
	uint64_t turn, life;
	struct sim_node *on;
	struct loop *loop;
	struct wanted topics[TOPICS];
	int64_t since_us;
	bool in_force, refused, over;
};

static bool may_be(const struct topic *t, const struct wanted *w, int number)
{
	return number > 0 && (number >= w->acknowledged || is_open(t, number));
}

/* Something is sure to come: no attempt that may have counted by now deletes. */
static bool is_owed(const struct topic *t, const struct wanted *w)
{
	if (w->acknowledged == 0 || t->tries[w->acknowledged].deletes)
		return false;
	for (int i = 1; i <= t->tried; i++)
		if (t->tries[i].deletes && (i > w->acknowledged || is_open(t, i)))
			return false;
	return true;
}

static void sitting_end(struct sitting *s)
{
	s->over = true;
	subscriber_fini(&s->subscriber);
	if (s->by->now == s)
		s->by->now = NULL;
	actor_done(&s->by->actor, s->turn);
}

static bool is_served(const struct sitting *s)
{
	for (int i = 0; i < TOPICS && !s->refused; i++)
		if (!may_be(&topics[i], &s->topics[i], s->topics[i].last) &&
			is_owed(&topics[i], &s->topics[i]))
			return false;
	return s->in_force;
}

static void look_again(void *arg);

static void look_at(void *arg)
{
	struct sitting *s = arg;

	if (s->over)
		return;
	if (is_served(s) || (sim_now_us() - s->since_us > PATIENCE_US && !load_stopping()))
		sitting_end(s);
	else
		sim_after(sim_pick(1, LOOK_US), NULL, look_again, s);
}

static void look_again(void *arg)
{
	struct sitting *s = arg;

	if (!s->over && s->on->machine.up && s->on->machine.life == s->life)
		loop_call(s->loop, look_at, s);
}

static bool on_deliver(struct subscriber *who, const struct delivery *d)
{
	struct sitting *s = list_entry(who, struct sitting, subscriber);
	int at = d->message->topic.at[2] - '0';
	struct check_value v;
	struct wanted *w;

	sim_must(at >= 0 && at < TOPICS);
	w = &s->topics[at];
	if (!check_value_read(d->message->value, &v))
		return true; /* it is deleted */
	if (d->retained && w->sent != 0)
		sim_fail("retained value %u of r/%d after value %d", v.topic, at, w->sent);
	if (d->retained && w->live > (int)v.topic)
		sim_fail("retained value %u of r/%d after live %d", v.topic, at, w->live);
	w->last = (int)v.topic;
	if (d->retained)
		w->sent = w->last;
	else
		w->live = w->last;
	return true;
}

static void on_skipped(struct subscriber *who, struct partition *p, int64_t from, int64_t to)
{
	(void)who;
	(void)p;
	(void)from;
	(void)to;
}

static const struct subscriber_ops reader_ops = {on_deliver, on_skipped};

static void subscribed(struct subscribe *op)
{
	struct sitting *s = list_entry(op, struct sitting, op);

	if (op->err != OK && !err_is_passing(op->err))
		sim_fail("retained subscribe ended with %s", err_text(op->err));
	s->in_force = true;
	s->refused = op->err != OK;
}

static void sit_down(void *arg)
{
	struct sitting *s = arg;

	s->loop = loop_here();
	if (s->on->phase != SIM_RUNNING ||
		catalog_table_count(shard_catalog(actor_shard(&s->by->actor))) == 0) {
		s->over = true;
		actor_done(&s->by->actor, s->turn);
		return;
	}
	s->by->now = s;
	subscriber_init(&s->subscriber, actor_shard(&s->by->actor), bytes_of(NULL, 0), &reader_ops);
	s->op = (struct subscribe){.who = &s->subscriber,
		.filter = bytes_text("r/#"),
		.qos = 1,
		.retained = RETAINED_SEND,
		.done = subscribed};
	list_init(&s->op.node);
	subscriber_subscribe(&s->op);
	look_at(s);
}

static void looker_step(struct actor *a)
{
	struct sim_node *n = actor_node();
	struct sitting *s;

	if (n == NULL) {
		actor_again(a, LOOK_US);
		return;
	}
	s = mem_new(sizeof *s);
	s->by = list_entry(a, struct looker, actor);
	s->on = n;
	s->life = n->machine.life;
	s->since_us = sim_now_us();
	for (int i = 0; i < TOPICS; i++)
		s->topics[i].acknowledged = topics[i].acknowledged;
	s->turn = actor_call(a, n, sit_down, s);
}

static void looker_lost(struct actor *a)
{
	list_entry(a, struct looker, actor)->now = NULL;
}

static const struct actor_kind looker_kind = {"looker", looker_step, looker_lost, NULL};

static void get_up(void *arg)
{
	struct sitting *s = arg;

	if (!s->over)
		sitting_end(s);
}

void load_retained_closing(struct sim_node *n)
{
	for (int i = 0; i < looker_count; i++) {
		struct sitting *s = lookers[i]->now;

		if (s != NULL && s->on == n && s->life == n->machine.life)
			loop_call(s->loop, get_up, s);
	}
}

void load_look_add(int id)
{
	struct looker *k = mem_new(sizeof *k);

	sim_must(looker_count < (int)(sizeof lookers / sizeof lookers[0]));
	lookers[looker_count++] = k;
	actor_add(&k->actor, &looker_kind, id, LOOK_US);
}
