/* Faults come one after the other from the dice, several at a time; each undoes itself after a
 * while. From HEAL on there are none, loads end at STOP, and what has not converged by END never
 * will. Nothing that happens may break a promise, so nothing is forbidden: also all machines may be
 * down at once. */
#include "tests/sim/sim_world.h"
#include <stdio.h>
#include <string.h>
#include "server/base/mem.h"
#include "tests/sim/sim_aim.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_net.h"

enum {
	BEGIN_US = 6 * SIM_S,
	HEAL_US = 42 * SIM_S,
	STOP_US = 46 * SIM_S,
	LOOK_US = 49 * SIM_S,
	END_US = 60 * SIM_S,
	POLL_US = 100 * SIM_MS,
	BLINK_US_MAX = 60 * SIM_MS,
	STORM_US_MAX = 350 * SIM_MS,
	FOUNDERS = 3,
	JOIN_US_MAX = 15 * SIM_S,
	OPERATED = 250 /* of a thousand runs: a node is taken out */
};

static struct {
	struct sim_node nodes[SIM_MACHINES_MAX];
	struct sim_cluster_conf cluster;
	uint64_t faults;
	bool healing;
	bool wiped;
	bool operated;
	bool heard; /* connections of whoever crashes now are reset, for sure */
	const char *without;
	enum sim_aim aim;
} world;

static void node_began(struct sim_node *n)
{
	sim_trace("running n%d", n->machine.id);
}

static void start_again(void *arg)
{
	struct sim_node *n = arg;

	if (n->phase == SIM_DOWN && !n->machine.up)
		sim_node_start(n);
}

static void node_ended(struct sim_node *n)
{
	bool crashed = n->phase == SIM_DOWN && n->machine.up;

	sim_net_machine_down(n->machine.id, crashed && sim_chance(300) && !world.heard);
	check_node_gone(n);
	load_node_gone(n);
	sim_after(world.healing ? SIM_MS : sim_pick(10 * SIM_MS, 6 * SIM_S), NULL, start_again, n);
}

static struct sim_node *any_node(void)
{
	return &world.nodes[sim_pick(0, world.cluster.nodes - 1)];
}

/* --- faults */

static void crash(struct sim_node *n)
{
	if (n->machine.up)
		sim_node_crash(n);
}

/* A process that is killed, and back at once: nobody has missed it. */
static void blink(struct sim_node *n)
{
	if (!n->machine.up)
		return;
	sim_node_crash(n);
	sim_after(sim_pick(1, BLINK_US_MAX), NULL, start_again, n);
}

static void storm_goes_on(void *arg)
{
	int *left = arg;

	if (world.healing || --*left <= 0) {
		mem_free(left);
		return;
	}
	blink(any_node());
	sim_after(sim_pick(20 * SIM_MS, STORM_US_MAX), NULL, storm_goes_on, left);
}

/* One after the other, while they elect. */
static void storm(struct sim_node *n)
{
	int *left = mem_new(sizeof *left);

	*left = (int)sim_pick(4, 25);
	sim_trace("storm of %d", *left);
	blink(n);
	storm_goes_on(left);
}

static void stop(struct sim_node *n)
{
	if (n->phase == SIM_RUNNING)
		sim_node_stop(n);
}

/* Never shorter than it was: what was put off to the end of the pause stays there, and the machine
 * would run without it. */
static void pause_machine(struct sim_machine *m, int64_t us)
{
	int64_t until_us = sim_now_us() + us;

	sim_trace("pause n%d ms=%lld", m->id, (long long)us / SIM_MS);
	if (m->paused_until_us < until_us)
		m->paused_until_us = until_us;
}

static void pause_for_a_while(struct sim_node *n)
{
	pause_machine(&n->machine,
		sim_chance(500) ? sim_pick(10 * SIM_MS, SIM_S) : sim_pick(SIM_S, 8 * SIM_S));
}

struct mend {
	struct sim_node *node, *other;
};

static void mend_cut(void *arg)
{
	struct mend *m = arg;

	sim_trace("mend n%d -> n%d", m->node->machine.id, m->other->machine.id);
	sim_net_cut(m->node->machine.id, m->other->machine.id, false);
	mem_free(m);
}

static void cut_way(struct sim_node *a, struct sim_node *b, int64_t us)
{
	struct mend *m = mem_new(sizeof *m);

	if (sim_way(a->machine.id, b->machine.id)->cut || a == b) {
		mem_free(m);
		return;
	}
	sim_trace("cut n%d -> n%d ms=%lld", a->machine.id, b->machine.id, (long long)us / SIM_MS);
	*m = (struct mend){a, b};
	sim_net_cut(a->machine.id, b->machine.id, true);
	sim_after(us, NULL, mend_cut, m);
}

static void cut_one(struct sim_node *n)
{
	int64_t us = sim_pick(50 * SIM_MS, 8 * SIM_S);

	cut_way(n, any_node(), us);
}

/* From all others, in one direction or in both. */
static void isolate(struct sim_node *n)
{
	int64_t us = sim_pick(200 * SIM_MS, 9 * SIM_S);
	int ways = (int)sim_pick(1, 3);

	for (int i = 0; i < world.cluster.nodes; i++) {
		if (ways & 1)
			cut_way(n, &world.nodes[i], us);
		if (ways & 2)
			cut_way(&world.nodes[i], n, us);
	}
}

static void reset(struct sim_node *n)
{
	struct sim_node *b = any_node();

	sim_trace("reset n%d -> n%d", n->machine.id, b->machine.id);
	sim_net_reset(n->machine.id, b->machine.id);
}

static void mend_disk(void *arg)
{
	struct sim_disk *d = arg;

	d->write_us = 60;
	d->sync_us = 600;
}

static void slow_disk(struct sim_node *n)
{
	struct sim_disk *d = sim_disk_of(&n->machine);

	sim_trace("slow disk n%d", n->machine.id);
	d->write_us = sim_pick(1, 20) * SIM_MS;
	d->sync_us = sim_pick(1, 200) * SIM_MS;
	sim_after(sim_pick(SIM_S, 10 * SIM_S), NULL, mend_disk, d);
}

/* Longer than the watch bears: the node ends itself. */
static void hang_disk(struct sim_node *n)
{
	int64_t us = sim_pick(200 * SIM_MS, 14 * SIM_S);

	if (!n->machine.up)
		return;
	sim_trace("disk of n%d hangs ms=%lld", n->machine.id, (long long)us / SIM_MS);
	sim_disk_of(&n->machine)->hangs_until_us = sim_now_us() + us;
	n->machine.doomed = true;
}

static void break_disk(struct sim_node *n)
{
	if (!n->machine.up)
		return;
	sim_trace("disk of n%d fails", n->machine.id);
	sim_disk_of(&n->machine)->fails = true;
	n->machine.doomed = true;
}

static bool may_wipe(void)
{
	for (int i = 0; i < world.cluster.nodes; i++)
		if (world.nodes[i].phase != SIM_RUNNING || world.nodes[i].machine.doomed ||
			world.nodes[i].machine.paused_until_us > sim_now_us() ||
			!broker_ready(world.nodes[i].broker))
			return false;
	return check_bears_loss();
}

/* All data of the node is gone; the others are all right, in the first moment when they are. Once
 * in a run: a second one, before each group has replaced the first, would take a majority's data,
 * which nobody promises to bear. Nor is the data of one of two voters. Where an operator takes one
 * of three nodes out the others hear of the loss at once: a leader that does not may still count on
 * that node for a moment, and let the third go. */
static void wipe_now(void *arg)
{
	struct sim_node *n = arg;

	if (world.healing)
		return;
	if (!may_wipe()) {
		sim_after(POLL_US, NULL, wipe_now, n);
		return;
	}
	sim_trace("wipe n%d", n->machine.id);
	world.heard = world.operated && world.cluster.nodes == 3;
	sim_node_crash(n);
	world.heard = false;
	sim_disk_wipe(&n->machine);
	sim_node_forget(n);
}

static void wipe(struct sim_node *n)
{
	if (world.cluster.nodes < 3 || world.wiped)
		return;
	world.wiped = true;
	wipe_now(n);
}

static void jump_clock(struct sim_node *n)
{
	int64_t us = sim_chance(500) ? sim_pick(-3600 * (int64_t)SIM_S, 3600 * (int64_t)SIM_S)
				     : sim_pick(-2 * SIM_S, 2 * SIM_S);

	sim_trace("clock of n%d jumps ms=%lld", n->machine.id, (long long)us / SIM_MS);
	n->machine.wall_us += us;
}

static void mend_messy(void *arg)
{
	((struct sim_way *)arg)->messy = 0;
	((struct sim_way *)arg)->delay_us_min = 80;
	((struct sim_way *)arg)->delay_us_max = 400;
}

static void mess_up(struct sim_node *n)
{
	struct sim_node *b = any_node();
	struct sim_way *w = sim_way(n->machine.id, b->machine.id);

	w->messy = (int)sim_pick(5, 200);
	w->delay_us_max = sim_pick(SIM_MS, 80 * SIM_MS);
	sim_trace("messy n%d -> n%d per_thousand=%d", n->machine.id, b->machine.id, w->messy);
	sim_after(sim_pick(SIM_S, 10 * SIM_S), NULL, mend_messy, w);
}

static void full_disk_ends(void *arg)
{
	((struct sim_disk *)arg)->free_bytes = (int64_t)100 << 30;
}

/* --- sim_aim.c's hands */

static void hand_cut(int from, int to, int64_t us)
{
	world.faults++;
	if (from >= 1 && from <= world.cluster.nodes && to >= 1 && to <= world.cluster.nodes)
		cut_way(&world.nodes[from - 1], &world.nodes[to - 1], us);
}

static void hand_count(void)
{
	world.faults++;
}

static void hand_mend(int from, int to)
{
	if (from != to)
		sim_net_cut(from, to, false);
}

static void hand_blink(int id)
{
	world.faults++;
	blink(&world.nodes[id - 1]);
}

static void hand_pause(int id, int64_t us)
{
	world.faults++;
	pause_machine(&world.nodes[id - 1].machine, us);
}

static void hand_slow(int id, int64_t sync_us, int64_t us)
{
	struct sim_disk *d = sim_disk_of(&world.nodes[id - 1].machine);

	d->sync_us = sync_us;
	sim_after(us, NULL, mend_disk, d);
}

static const struct aim_hands hands = {
	hand_cut, hand_mend, hand_blink, hand_pause, hand_slow, hand_count};

static void aim(void *unused)
{
	(void)unused;
	sim_aim_start(world.aim, world.cluster.nodes, &hands);
}

/* --- faults from the dice, going on */

static void fill_disk(struct sim_node *n)
{
	struct sim_disk *d = sim_disk_of(&n->machine);

	sim_trace("disk of n%d is full", n->machine.id);
	d->free_bytes = 100;
	sim_after(sim_pick(SIM_S, 6 * SIM_S), NULL, full_disk_ends, d);
}

static const struct {
	const char *name;
	void (*fn)(struct sim_node *n);
	int weight;
} fault_kinds[] = {{"crash", crash, 5}, {"blink", blink, 3}, {"storm", storm, 2}, {"stop", stop, 2},
	{"pause", pause_for_a_while, 3}, {"cut", cut_one, 3}, {"isolate", isolate, 4},
	{"reset", reset, 2}, {"slow", slow_disk, 2}, {"hang", hang_disk, 2},
	{"break", break_disk, 1}, {"clock", jump_clock, 2}, {"mess", mess_up, 3},
	{"full", fill_disk, 1}, {"wipe", wipe, 2}};
enum { FAULT_KINDS = sizeof fault_kinds / sizeof fault_kinds[0] };

static void next_fault(void *arg)
{
	int sum = 0, at;

	(void)arg;
	if (sim_now_us() >= HEAL_US)
		return;
	for (int i = 0; i < FAULT_KINDS; i++)
		sum += fault_kinds[i].weight;
	at = (int)sim_pick(0, sum - 1);
	for (int i = 0; i < FAULT_KINDS; i++) {
		at -= fault_kinds[i].weight;
		if (at >= 0)
			continue;
		if (strstr(world.without, fault_kinds[i].name) == NULL) {
			world.faults++;
			fault_kinds[i].fn(any_node());
		}
		break;
	}
	/* A claim that is to be disturbed needs a cluster that could carry it out; so does a read.
	 */
	sim_after(sim_pick(50 * SIM_MS,
			  world.aim == AIM_FENCES || world.aim == AIM_PAUSES ? 10 * SIM_S
									     : 4 * SIM_S),
		NULL, next_fault, NULL);
}

static void heal_all(void *arg)
{
	(void)arg;
	sim_trace("heal");
	world.healing = true;
	sim_aim_stop();
	for (int a = 0; a < world.cluster.nodes; a++) {
		struct sim_node *n = &world.nodes[a];
		struct sim_disk *d = sim_disk_of(&n->machine);

		for (int b = 0; b < world.cluster.nodes; b++) {
			sim_net_cut(n->machine.id, b + 1, false);
			mend_messy(sim_way(n->machine.id, b + 1));
		}
		mend_disk(d);
		full_disk_ends(d);
		if (d->hangs_until_us > sim_now_us())
			d->hangs_until_us = sim_now_us();
		if (n->machine.paused_until_us > sim_now_us())
			sim_trace("n%d still stands for ms=%lld", n->machine.id,
				(long long)(n->machine.paused_until_us - sim_now_us()) / SIM_MS);
		if (n->phase == SIM_DOWN && !n->machine.up)
			sim_node_start(n);
	}
}

/* --- a run */

static void draw(const struct world_conf *c)
{
	world.cluster = (struct sim_cluster_conf){
		.nodes = c->nodes ? c->nodes : (int)sim_pick(3, 5),
		.loops = (int)sim_pick(1, 3),
		.tables = (int)sim_pick(1, 3),
		.partitions = (int)sim_pick(1, 3),
	};
	world.aim = (enum sim_aim)sim_pick(0, AIM_COUNT - 1);
	if (c->aim >= 0 && c->aim < AIM_COUNT)
		world.aim = (enum sim_aim)c->aim;
	sim_trace("nodes=%d loops=%d tables=%d partitions=%d aim=%d", world.cluster.nodes,
		world.cluster.loops, world.cluster.tables, world.cluster.partitions,
		(int)world.aim);
}

static void converge(void)
{
	char why[256] = "";

	for (;;) {
		if (load_idle(why, sizeof why) &&
			check_converged(world.nodes, world.cluster.nodes, why, sizeof why))
			break;
		if (sim_now_us() >= END_US) {
			check_dump();
			sim_fail("not converged: %s", why);
		}
		sim_run_until(sim_now_us() + POLL_US);
	}
	sim_trace("converged");
	check_final(world.nodes, world.cluster.nodes);
}

void world_run(const struct world_conf *c, struct world_result *out)
{
	struct load_conf load = {.publishers = 5,
		.producers = 3,
		.sessions = 3,
		.admins = 2,
		.committers = 2,
		.members = 6,
		.wills = 2,
		.retained = 2};

	sim_net_init();
	sim_plant_set(c->plant);
	world.without = c->without;
	load.publishers *= strstr(c->without, "publishers") == NULL;
	load.producers *= strstr(c->without, "producers") == NULL;
	load.sessions *= strstr(c->without, "sessions") == NULL;
	load.admins *= strstr(c->without, "admins") == NULL;
	load.committers *= strstr(c->without, "committers") == NULL;
	load.members *= strstr(c->without, "members") == NULL;
	load.wills *= strstr(c->without, "wills") == NULL;
	load.retained *= strstr(c->without, "retained") == NULL;
	draw(c);
	load.operators = sim_chance(OPERATED) && strstr(c->without, "operators") == NULL;
	world.operated = load.operators > 0;
	if (world.aim == AIM_FENCES) {
		load.sessions *= 3;
		load.publishers = load.publishers > 0;
		load.producers = load.producers > 0;
	}
	if (world.aim == AIM_PAUSES)
		load.committers *= 4;
	for (int i = 0; i < world.cluster.nodes; i++) {
		struct sim_node *n = &world.nodes[i];

		sim_node_init(n, i + 1, &world.cluster);
		n->machine.drift = sim_pick(-200, 200);
		n->machine.wall_us = sim_pick(-500, 500) * SIM_MS;
		n->began = node_began;
		n->wire = check_wire;
		n->closing = load_node_closing;
		n->ended = node_ended;
		sim_disk_of(&n->machine)->lies = c->plant == PLANT_SYNC;
		if (i < FOUNDERS)
			sim_node_start(n);
		else /* joins a cluster that is at work */
			sim_after(sim_pick(1, JOIN_US_MAX), NULL, start_again, n);
	}
	load_start(world.nodes, world.cluster.nodes, &load);
	sim_at(BEGIN_US, NULL, next_fault, NULL);
	sim_at(BEGIN_US, NULL, aim, NULL);
	sim_at(HEAL_US, NULL, heal_all, NULL);
	sim_run_until(STOP_US);
	load_stop();
	sim_run_until(LOOK_US);
	converge();
	load_print();
	*out = (struct world_result){check_ops(), check_acked_count(), world.faults,
		check_entries(), sim_events(), check_compacted()};
}
