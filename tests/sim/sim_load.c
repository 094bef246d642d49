/* The life of actors: steps are the world's events; what an actor does runs on a loop of a node as
 * a door's code would. A turn is numbered, so that an answer that comes after the node was believed
 * lost, or after another turn began, changes nothing. */
#include "tests/sim/sim_load.h"
#include <stdio.h>
#include "server/base/err.h"
#include "server/base/mem.h"

enum { ACTORS_MAX = 64, STILL_ASKED = 300 };

static struct {
	struct sim_node *nodes;
	int count;
	struct actor *actors[ACTORS_MAX];
	int actor_count;
	bool stopping;
	uint64_t turns;
} load;

bool err_is_passing(int e)
{
	return e == ERR_UNAVAILABLE || e == ERR_NOTLEADER || e == ERR_UNKNOWN || e == ERR_BUSY ||
		e == ERR_NOSPACE || e == ERR_CLOSED || e == ERR_TIMEOUT;
}

struct step {
	struct actor *actor;
	uint64_t turn;
};

static void step(void *arg)
{
	struct step *s = arg;
	struct actor *a = s->actor;
	bool due = !a->busy && a->turn == s->turn && (!load.stopping || a->kind->idle != NULL);

	mem_free(s);
	if (due)
		a->kind->step(a);
}

void actor_again(struct actor *a, int64_t after_us)
{
	struct step *s = mem_new(sizeof *s);

	a->busy = false;
	s->actor = a;
	s->turn = ++a->turn;
	sim_after(after_us, NULL, step, s);
}

void actor_add(struct actor *a, const struct actor_kind *kind, int id, int64_t gap_us)
{
	sim_must(load.actor_count < ACTORS_MAX);
	a->kind = kind;
	a->id = id;
	a->gap_us = gap_us;
	load.actors[load.actor_count++] = a;
	actor_again(a, sim_pick(1, gap_us));
}

struct sim_node *actor_node(void)
{
	int first = (int)sim_pick(0, load.count - 1);

	for (int i = 0; i < load.count; i++) {
		struct sim_node *n = &load.nodes[(first + i) % load.count];

		/* What is asked of one that stands still waits in its socket, and is the first
		 * thing it sees when it goes on. */
		if (n->phase == SIM_RUNNING &&
			(n->machine.paused_until_us <= sim_now_us() || sim_chance(STILL_ASKED)))
			return n;
	}
	return NULL;
}

struct sim_node *actor_node_at(uint32_t id)
{
	bool runs = id > 0 && id <= (uint32_t)load.count && load.nodes[id - 1].phase == SIM_RUNNING;

	return runs ? &load.nodes[id - 1] : NULL;
}

uint64_t actor_call(struct actor *a, struct sim_node *n, void (*fn)(void *arg), void *arg)
{
	a->on = n;
	a->life = n->machine.life;
	a->busy = true;
	a->since_us = sim_now_us();
	load.turns++;
	loop_call(loops_at(n->loops, (int)sim_pick(0, loops_count(n->loops) - 1)), fn, arg);
	return ++a->turn;
}

void actor_done(struct actor *a, uint64_t turn)
{
	if (a->turn != turn || !a->busy)
		return;
	actor_again(a, sim_pick(1, a->gap_us));
}

struct shard *actor_shard(struct actor *a)
{
	return broker_shard(a->on->broker, loop_here());
}

const struct catalog *actor_catalog(struct actor *a)
{
	const struct catalog *k = shard_catalog(actor_shard(a));

	return catalog_table_count(k) > 0 && catalog_stream(k, bytes_text(load_stream())) != NULL
		? k
		: NULL;
}

void load_node_gone(struct sim_node *n)
{
	load_session_gone(n);
	load_will_gone(n);
	for (int i = 0; i < load.actor_count; i++) {
		struct actor *a = load.actors[i];

		if (!a->busy || a->on != n)
			continue;
		if (a->kind->lost != NULL)
			a->kind->lost(a);
		actor_again(a, sim_pick(1, 2 * a->gap_us + 100 * SIM_MS));
	}
}

/* Doors close before sessions end. */
void load_node_closing(struct sim_node *n)
{
	load_session_closing(n);
	load_will_closing(n);
	load_retained_closing(n);
}

bool load_stopping(void)
{
	return load.stopping;
}

void load_stop(void)
{
	load.stopping = true;
}

bool load_idle(char *why, size_t why_size)
{
	for (int i = 0; i < load.actor_count; i++) {
		struct actor *a = load.actors[i];

		if (a->kind->idle != NULL && !a->kind->idle(a, why, why_size))
			return false;
		if (!a->busy || a->kind->idle != NULL)
			continue;
		snprintf(why, why_size, "%s %d waits on n%d since %.6f", a->kind->name, a->id,
			a->on->machine.id, (double)a->since_us / SIM_S);
		return false;
	}
	return true;
}

void load_print(void)
{
	sim_trace("load turns=%llu ops=%llu acknowledged=%llu", (unsigned long long)load.turns,
		(unsigned long long)check_ops(), (unsigned long long)check_acked_count());
}

void load_start(struct sim_node *nodes, int count, const struct load_conf *c)
{
	load.nodes = nodes;
	load.count = count;
	for (int i = 0; i < c->admins; i++)
		load_admin_add(i);
	for (int i = 0; i < c->publishers; i++)
		load_publish_add(i);
	for (int i = 0; i < c->producers; i++)
		load_produce_add(i);
	for (int i = 0; i < c->sessions; i++)
		load_session_add(i);
	for (int i = 0; i < c->committers; i++)
		load_commit_add(i);
	for (int i = 0; i < c->members; i++)
		load_group_add(i);
	for (int i = 0; i < c->operators; i++)
		load_operator_add(i, nodes, count);
	for (int i = 0; i < c->wills; i++)
		load_will_add(i);
	for (int i = 0; i < c->retained; i++) {
		load_retain_add(i);
		load_look_add(i);
	}
}
