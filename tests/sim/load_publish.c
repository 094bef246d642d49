/* Publishers: a message by topic, at QoS 1, from any loop of any node. Acknowledged, it is in the
 * log for ever; else it may be there, and maybe more than once. */
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/publish.h"
#include "tests/sim/sim_load.h"

enum { TOPICS = 8, BYTES_MAX = 2000, GAP_US = 60 * SIM_MS };

struct publisher {
	struct actor actor;
};

struct publication { /* one message */
	struct publish publish;
	struct publisher *by;
	uint64_t turn, op;
	uint32_t topic;
	uint8_t value[BYTES_MAX];
};

static void published(struct publish *p)
{
	struct publication *m = list_entry(p, struct publication, publish);

	if (p->err == OK)
		check_acked(m->op, partition_group(p->partition), p->offset);
	else if (!err_is_passing(p->err))
		sim_fail("publish ended with %s", err_text(p->err));
	actor_done(&m->by->actor, m->turn);
	mem_free(m);
}

static void start(void *arg)
{
	struct publication *m = arg;
	struct check_value v = {.op = m->op, .topic = m->topic};
	char topic[16];
	struct message message = {
		.topic = bytes_of(topic, (size_t)snprintf(topic, sizeof topic, "t/%u", m->topic)),
		.value = bytes_of(m->value, (size_t)sim_pick(CHECK_VALUE_BYTES, BYTES_MAX)),
		.qos = 1,
	};
	struct shard *s = actor_shard(&m->by->actor);
	enum err e;

	message.timestamp_ms = loop_now_wall_ms(shard_loop(s));
	check_value_write(&v, m->value);
	m->publish.done = published;
	e = shard_publish(s, &message, &m->publish);
	if (e == OK)
		return;
	if (!err_is_passing(e))
		sim_fail("publish refused with %s", err_text(e));
	actor_done(&m->by->actor, m->turn);
	mem_free(m);
}

static void publish_step(struct actor *a)
{
	struct sim_node *n = actor_node();
	struct publication *m;

	if (n == NULL) {
		actor_again(a, GAP_US);
		return;
	}
	m = mem_new(sizeof *m);
	m->by = list_entry(a, struct publisher, actor);
	m->op = check_op_new();
	check_sent(m->op);
	m->topic = (uint32_t)sim_pick(0, TOPICS - 1);
	m->turn = actor_call(a, n, start, m);
}

static const struct actor_kind publisher_kind = {"publisher", publish_step, NULL, NULL};

void load_publish_add(int id)
{
	struct publisher *p = mem_new(sizeof *p);

	actor_add(&p->actor, &publisher_kind, id, GAP_US);
}
