/* An operator who takes a node out of the cluster: drains it, maybe thinks better of it, maybe
 * stops it, removes it as soon as that is allowed, throws its data away and starts it anew.
 *
 * Held against it: when a removal is acknowledged no group counts on that node's vote any more, so
 * its data may go at any time, and what was acknowledged is there all the same (sim_check.c). */
#include <stdio.h>
#include "server/base/mem.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_load.h"

enum {
	GAP_US = 600 * SIM_MS,
	BEGIN_US_MIN = 7 * SIM_S,
	BEGIN_US_MAX = 20 * SIM_S,
	DRAIN_US_MAX = 18 * SIM_S, /* then it is given up */
	REMOVED_US_MAX = 3 * SIM_S
};

enum stage { CALM, DRAINING, REMOVED, OVER };

struct keeper {
	struct actor actor;
	enum stage stage;
	struct sim_node *node; /* that goes */
	int64_t until_us;      /* of the stage */
};

struct order {
	struct meta_op op;
	struct keeper *by;
	uint64_t turn;
};

static void drained(struct keeper *o)
{
	sim_trace("n%d drains", o->node->machine.id);
	o->stage = DRAINING;
	o->until_us = sim_now_us() + sim_pick(SIM_S, DRAIN_US_MAX);
}

static void removed(struct keeper *o)
{
	sim_trace("n%d is removed", o->node->machine.id);
	check_let_go(o->node->machine.id);
	o->stage = REMOVED;
	o->until_us = sim_now_us() + sim_pick(1, REMOVED_US_MAX);
}

static void answered(struct meta_op *op)
{
	struct order *c = list_entry(op, struct order, op);
	struct keeper *o = c->by;
	bool mine = o->actor.busy && o->actor.turn == c->turn;

	if (op->err != OK && op->err != ERR_CONFLICT && op->err != ERR_NOTFOUND &&
		!err_is_passing(op->err))
		sim_fail("n%u to state %d: %s, %s", op->node_id, (int)op->node_state,
			err_text(op->err), op->why);
	if (op->err == ERR_CONFLICT)
		sim_note("n%u to state %d: %s", op->node_id, (int)op->node_state, op->why);
	/* Not found: an earlier order, whose outcome was not known, has removed it. */
	if (mine && op->err == ERR_NOTFOUND && o->stage == DRAINING)
		removed(o);
	else if (mine && op->err == OK && op->node_state == NODE_DRAINING)
		drained(o);
	else if (mine && op->err == OK && op->node_state == NODE_REMOVED)
		removed(o);
	else if (mine && op->err == OK)
		o->stage = OVER;
	actor_done(&o->actor, c->turn);
	mem_free(c);
}

static void start(void *arg)
{
	struct order *c = arg;

	node_change(c->by->actor.on->node, &c->op);
}

static void give(struct keeper *o, struct sim_node *to, enum node_state state)
{
	struct order *c = mem_new(sizeof *c);

	c->by = o;
	c->op = (struct meta_op){.kind = META_NODE_STATE,
		.node_id = (uint32_t)o->node->machine.id,
		.node_state = state,
		.done = answered};
	c->turn = actor_call(&o->actor, to, start, c);
}

/* Its data is nobody's any more. */
static void renew(struct keeper *o)
{
	sim_trace("n%d begins with empty data", o->node->machine.id);
	if (o->node->phase != SIM_DOWN)
		sim_node_crash(o->node);
	sim_disk_wipe(&o->node->machine);
	sim_node_forget(o->node);
	o->stage = OVER;
}

static void operator_step(struct actor *a)
{
	struct keeper *o = list_entry(a, struct keeper, actor);
	struct sim_node *to = actor_node();
	bool over = load_stopping() || o->until_us <= sim_now_us();

	if (o->stage == REMOVED && over)
		renew(o);
	if (o->stage == CALM && load_stopping())
		o->stage = OVER;
	if (to == NULL || o->stage == OVER || o->stage == REMOVED || (o->stage == CALM && !over)) {
		actor_again(a, GAP_US);
		return;
	}
	if (o->stage == DRAINING && !over && o->node->phase == SIM_RUNNING && sim_chance(100))
		sim_node_stop(o->node);
	give(o, to, o->stage == CALM ? NODE_DRAINING : over ? NODE_ACTIVE : NODE_REMOVED);
}

static bool operator_idle(struct actor *a, char *why, size_t why_size)
{
	const struct keeper *o = list_entry(a, struct keeper, actor);

	snprintf(why, why_size, "n%d is on its way out or in", o->node->machine.id);
	return o->stage == OVER;
}

static const struct actor_kind operator_kind = {"operator", operator_step, NULL, operator_idle};

void load_operator_add(int id, struct sim_node *nodes, int count)
{
	struct keeper *o = mem_new(sizeof *o);

	o->node = &nodes[sim_pick(0, count - 1)];
	o->until_us = sim_pick(BEGIN_US_MIN, BEGIN_US_MAX);
	actor_add(&o->actor, &operator_kind, id, GAP_US);
}
