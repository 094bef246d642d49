/* Administrators: the first makes the stream that producers write to; then streams of their own are
 * made, changed and deleted. What was acknowledged must be so on every node in the end. */
#include <stdio.h>
#include "server/base/mem.h"
#include "tests/sim/sim_load.h"

enum { GAP_US = 1500 * SIM_MS, STREAMS = 3, COMPACTED = 3 };

/* Of the producers' stream: compacted whenever there is anything to compare. */
static const struct meta_setting compacted[COMPACTED] = {{"cleanup.policy", "compact"},
	{"min.cleanable.dirty.ratio", "0.01"}, {"delete.retention.ms", "0"}};

struct admin {
	struct actor actor;
	bool made; /* the producers' stream */
};

struct change {
	struct meta_op op;
	struct admin *by;
	uint64_t turn;
	char name[32], value[16];
	struct meta_setting setting;
};

const char *load_stream(void)
{
	return "orders";
}

static void changed(struct meta_op *op)
{
	struct change *c = list_entry(op, struct change, op);
	bool expected = op->err == OK || op->err == ERR_EXISTS || op->err == ERR_NOTFOUND ||
		err_is_passing(op->err);

	if (!expected)
		sim_fail("change %d of stream %s: %s, %s", (int)op->kind, c->name,
			err_text(op->err), op->why);
	if (op->kind == META_CREATE_STREAM && (op->err == OK || op->err == ERR_EXISTS) &&
		strcmp(c->name, load_stream()) == 0)
		c->by->made = true;
	actor_done(&c->by->actor, c->turn);
	mem_free(c);
}

static void start(void *arg)
{
	struct change *c = arg;

	node_change(c->by->actor.on->node, &c->op);
}

static void admin_step(struct actor *a)
{
	struct admin *m = list_entry(a, struct admin, actor);
	struct sim_node *n = actor_node();
	struct change *c;

	if (n == NULL) {
		actor_again(a, GAP_US);
		return;
	}
	c = mem_new(sizeof *c);
	c->by = m;
	c->op = (struct meta_op){
		.kind = META_CREATE_STREAM, .partitions = -1, .replicas = -1, .done = changed};
	snprintf(c->name, sizeof c->name, "%s", load_stream());
	c->op.settings = compacted;
	c->op.setting_count = COMPACTED;
	if (m->made) {
		c->op.setting_count = 0;
		snprintf(c->name, sizeof c->name, "extra-%d", (int)sim_pick(1, STREAMS));
		c->op.kind = sim_chance(400) ? META_CREATE_STREAM
			: sim_chance(500)    ? META_ALTER_STREAM
					     : META_DELETE_STREAM;
		c->op.partitions = sim_pick(1, 3);
	}
	if (c->op.kind == META_ALTER_STREAM) {
		snprintf(c->value, sizeof c->value, "%d", (int)sim_pick(3600000, 7200000));
		c->setting = (struct meta_setting){"retention.ms", c->value};
		c->op.settings = &c->setting;
		c->op.setting_count = 1;
	}
	c->op.name = c->name;
	c->turn = actor_call(a, n, start, c);
}

static const struct actor_kind admin_kind = {"admin", admin_step, NULL, NULL};

void load_admin_add(int id)
{
	struct admin *m = mem_new(sizeof *m);

	m->made = id != 0;
	actor_add(&m->actor, &admin_kind, id, id == 0 ? GAP_US / 3 : GAP_US);
}
