/* Consumers that commit how far they are, and read it back on any node. The position of a group is
 * a register: what is read is what was acknowledged last, or a later attempt whose outcome is not
 * known; once read, nothing older is. Each value is used once, so that every answer tells which
 * write it saw. */
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/group_home.h"
#include "tests/sim/sim_load.h"

enum { GAP_US = 120 * SIM_MS, UNKNOWN_MAX = 4096, NAME_BYTES = 16 };

struct committer {
	struct actor actor;
	char name[NAME_BYTES];
	int64_t value;        /* tried last */
	int64_t acknowledged; /* 0: none yet */
	int64_t unknown[UNKNOWN_MAX];
	int unknown_count;
	bool writing; /* what is under way is a write */
};

struct committing {
	struct group_call call;
	struct group_offset offset;
	struct committer *by;
	uint64_t turn;
	int64_t value;
};

struct looking {
	struct offsets_read read;
	struct committer *by;
	uint64_t turn;
};

static void unknown_add(struct committer *c, int64_t value)
{
	sim_must(c->unknown_count < UNKNOWN_MAX);
	c->unknown[c->unknown_count++] = value;
}

/* value is the register's now: others may only follow if their outcome is not known. */
static void known(struct committer *c, int64_t value)
{
	for (int i = 0; i < c->unknown_count; i++)
		if (c->unknown[i] == value)
			c->unknown[i] = c->unknown[--c->unknown_count];
	c->acknowledged = value;
}

static bool may_read(const struct committer *c, int64_t value)
{
	for (int i = 0; i < c->unknown_count; i++)
		if (c->unknown[i] == value)
			return true;
	return value == c->acknowledged;
}

static void committed(struct group_call *call)
{
	struct committing *o = list_entry(call, struct committing, call);
	struct committer *c = o->by;
	enum group_err e = call->err != GROUP_OK ? call->err : o->offset.err;

	if (c->actor.busy && c->actor.turn == o->turn) {
		c->writing = false;
		if (e == GROUP_OK)
			known(c, o->value);
		else if (e == GROUP_NOT_HERE || e == GROUP_UNAVAILABLE || e == GROUP_REBALANCING)
			unknown_add(c, o->value);
		else
			sim_fail("%s: commit of %lld: group error %d", c->name, (long long)o->value,
				(int)e);
		actor_done(&c->actor, o->turn);
	}
	group_call_fini(call);
	mem_free(o);
}

static void looked(struct offsets_read *r)
{
	struct looking *o = list_entry(r, struct looking, read);
	struct committer *c = o->by;
	int64_t value = r->count > 0 ? r->found[0].offset : 0;

	if (c->actor.busy && c->actor.turn == o->turn) {
		if (r->err == GROUP_OK && !may_read(c, value))
			sim_fail("%s: n%d reads %lld, acknowledged is %lld", c->name,
				c->actor.on->machine.id, (long long)value,
				(long long)c->acknowledged);
		if (r->err == GROUP_OK)
			known(c, value);
		actor_done(&c->actor, o->turn);
	}
	offsets_read_fini(r);
	mem_free(o);
}

static void commit_here(void *arg)
{
	struct committing *o = arg;
	struct committer *c = o->by;
	const struct catalog *k = actor_catalog(&c->actor);

	if (k == NULL) {
		c->writing = false;
		actor_done(&c->actor, o->turn);
		mem_free(o);
		return;
	}
	o->offset = (struct group_offset){.offset = o->value, .metadata = bytes_text("")};
	memcpy(o->offset.stream, catalog_stream(k, bytes_text(load_stream()))->uuid, 16);
	o->call = (struct group_call){.kind = GROUP_CALL_COMMIT,
		.group_id = bytes_text(c->name),
		.generation = -1,
		.offsets = &o->offset,
		.offset_count = 1,
		.done = committed};
	group_call(c->actor.on->groups, k, &o->call);
}

static void look_here(void *arg)
{
	struct looking *o = arg;
	const struct catalog *k = actor_catalog(&o->by->actor);

	if (k == NULL) {
		actor_done(&o->by->actor, o->turn);
		mem_free(o);
		return;
	}
	o->read.done = looked;
	offsets_read(&o->read, k, bytes_text(o->by->name));
}

static void commit_step(struct actor *a)
{
	struct committer *c = list_entry(a, struct committer, actor);
	struct sim_node *n = actor_node();

	if (n == NULL) {
		actor_again(a, GAP_US);
		return;
	}
	if (sim_chance(500)) {
		struct looking *o = mem_new(sizeof *o);

		o->by = c;
		o->turn = actor_call(a, n, look_here, o);
	} else {
		struct committing *o = mem_new(sizeof *o);

		o->by = c;
		o->value = ++c->value;
		c->writing = true;
		o->turn = actor_call(a, n, commit_here, o);
	}
}

static void commit_lost(struct actor *a)
{
	struct committer *c = list_entry(a, struct committer, actor);

	if (c->writing)
		unknown_add(c, c->value);
	c->writing = false;
}

static const struct actor_kind commit_kind = {"committer", commit_step, commit_lost, NULL};

void load_commit_add(int id)
{
	struct committer *c = mem_new(sizeof *c);

	snprintf(c->name, sizeof c->name, "group-%d", id);
	actor_add(&c->actor, &commit_kind, id, GAP_US);
}
