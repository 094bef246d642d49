/* What it looks at are frames as they are given to the network; what it does happens after the
 * event that sent them, or before they travel. Every vote is remembered, too: that a replica gives
 * one in a term is checked here, where it is said. */
#include "tests/sim/sim_aim.h"
#include <raft.h>
#include "cluster/meta.h"
#include "cluster/partition_own.h"
#include "cluster/peer.h"
#include "cluster/raft_wire.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "tests/sim/sim_check.h"

enum {
	KIND_AT = 1, /* of a frame of Raft's */
	UNSEAT_US_MAX = 1200 * SIM_MS,
	DEPOSE_US_MAX = 3 * SIM_S,
	CUT_US_MIN = 600 * SIM_MS,
	CUT_US_MAX = 2500 * SIM_MS,
	PAUSE_US_MIN = 900 * SIM_MS,
	PAUSE_US_MAX = 2500 * SIM_MS,
	FENCE_US_MAX = 4500 * SIM_MS
};

static struct {
	enum sim_aim aim;
	bool on;
	int nodes;
	const struct aim_hands *hands;
	uint64_t deposing; /* group; 0: none */
	int deposed;       /* node */
} aim;

/* --- votes */

struct vote {
	struct vote *next; /* of the same replica and group */
	uint64_t group, term, candidate;
};
static struct map votes; /* by replica */

static void voted(uint64_t group, uint64_t replica, uint64_t term, uint64_t candidate)
{
	struct vote *first = map_get_u64(&votes, replica), *v;

	for (v = first; v != NULL; v = v->next) {
		if (v->group != group || v->term != term)
			continue;
		if (v->candidate != candidate)
			sim_fail("group %llu term %llu: replica %llx votes for %llx and for %llx",
				(unsigned long long)group, (unsigned long long)term,
				(unsigned long long)replica, (unsigned long long)v->candidate,
				(unsigned long long)candidate);
		return;
	}
	v = mem_new(sizeof *v);
	*v = (struct vote){first, group, term, candidate};
	map_put_u64(&votes, replica, v);
}

/* --- moments */

static bool on(enum sim_aim which)
{
	return aim.on && aim.aim == which;
}

static void blink(void *arg)
{
	if (aim.on)
		aim.hands->blink((int)(intptr_t)arg);
}

static void cut_all(int from)
{
	int64_t us = sim_pick(CUT_US_MIN, CUT_US_MAX);

	for (int to = 1; to <= aim.nodes; to++)
		aim.hands->cut(from, to, us);
}

/* Of a candidate's requests one does not arrive, so that who lacks it may stand in the same term.
 */
static void vote_asked(int from, int to)
{
	if (on(AIM_VOTES) && sim_chance(400))
		aim.hands->cut(from, to, sim_pick(CUT_US_MIN, CUT_US_MAX));
}

static void mend_deposed(void *arg)
{
	(void)arg;
	for (int to = 1; to <= aim.nodes && aim.deposed != 0; to++)
		aim.hands->mend(aim.deposed, to);
	aim.deposed = 0;
}

static void vote_given(int from, int to, uint64_t group)
{
	if (on(AIM_VOTES)) {
		if (sim_chance(600))
			sim_after(sim_pick(500, 3000), NULL, blink, (void *)(intptr_t)from);
		if (sim_chance(600))
			cut_all(to);
	} else if (on(AIM_TERMS) && aim.deposing == group && from != aim.deposed) {
		aim.deposing = 0;
		sim_after(sim_pick(1, 20 * SIM_MS), NULL, mend_deposed, NULL);
	}
}

void sim_aim_raft(int from, int to, struct slice frame)
{
	struct raft_wire w;
	uint8_t kind = frame.bytes.at[KIND_AT];

	if (kind != RAFT_IO_REQUEST_VOTE && kind != RAFT_IO_REQUEST_VOTE_RESULT)
		return;
	if (raft_wire_decode(frame, &w) != OK)
		return;
	if (kind == RAFT_IO_REQUEST_VOTE && !w.message.request_vote.pre_vote) {
		voted(w.group, w.from, w.message.request_vote.term, w.from);
		vote_asked(from, to);
	} else if (kind == RAFT_IO_REQUEST_VOTE_RESULT &&
		w.message.request_vote_result.vote_granted &&
		w.message.request_vote_result.pre_vote != raft_tribool_true) {
		voted(w.group, w.from, w.message.request_vote_result.term, w.to);
		vote_given(from, to, w.group);
	}
	raft_wire_fini(&w);
}

/* The loop that is asked is busy, while the one of the session is not; or all is cut. */
bool sim_aim_call(int from, int to, uint32_t op)
{
	int64_t us;

	if (op != PEER_OP_FENCE || !on(AIM_FENCES) || sim_chance(200))
		return false;
	if (sim_chance(700)) {
		aim.hands->count();
		sim_trace("n%d does not hear n%d's fence", to, from);
		return true;
	}
	us = sim_pick(200 * SIM_MS, FENCE_US_MAX);
	aim.hands->cut(from, to, us);
	aim.hands->cut(to, from, us);
	return false;
}

/* --- what makes moments */

static void aside(void *arg)
{
	if (partition_leads(arg))
		partition_step_aside(arg, 0);
}

/* Some leader goes: by a transfer, or at once. */
static void unseat(void *arg)
{
	struct sim_node *n;
	struct partition *p;

	(void)arg;
	if (!aim.on)
		return;
	p = check_pick_leader(UINT64_MAX, &n);
	if (p != NULL && sim_chance(600))
		loop_call(partition_home(p), aside, p);
	else if (p != NULL)
		aim.hands->blink(n->machine.id);
	sim_after(sim_pick(200 * SIM_MS, UNSEAT_US_MAX), NULL, unseat, NULL);
}

/* Draws are statements of their own: the order of a call's arguments is the compiler's. */
static void slow_maybe(int node)
{
	int64_t us, sync_us;

	if (!sim_chance(400))
		return;
	us = sim_pick(SIM_S, 4 * SIM_S);
	sync_us = sim_pick(SIM_MS, 200 * SIM_MS);
	aim.hands->slow(node, sync_us, us);
}

/* Some leader is not heard any more but hears the others, while disks are slow; when one has voted
 * for the next leader it is heard again. */
static void depose(void *arg)
{
	struct sim_node *n;
	struct partition *p;

	(void)arg;
	if (!aim.on)
		return;
	mend_deposed(NULL);
	p = check_pick_leader(UINT64_MAX, &n);
	if (p != NULL) {
		aim.deposing = partition_group(p);
		aim.deposed = n->machine.id;
		cut_all(n->machine.id);
		for (int i = 1; i <= aim.nodes; i++)
			slow_maybe(i);
		if (sim_chance(300)) {
			int who = (int)sim_pick(1, aim.nodes);

			sim_after(sim_pick(SIM_MS, SIM_S), NULL, blink, (void *)(intptr_t)who);
		}
	}
	sim_after(sim_pick(SIM_S, DEPOSE_US_MAX), NULL, depose, NULL);
}

static void pause(void *arg)
{
	struct sim_node *n;

	(void)arg;
	if (!aim.on)
		return;
	if (check_pick_leader(META_STREAM_FIRST, &n) != NULL)
		aim.hands->pause(n->machine.id, sim_pick(PAUSE_US_MIN, PAUSE_US_MAX));
	sim_after(sim_pick(PAUSE_US_MIN, 2 * PAUSE_US_MAX), NULL, pause, NULL);
}

void sim_aim_start(enum sim_aim a, int nodes, const struct aim_hands *hands)
{
	aim.aim = a;
	aim.nodes = nodes;
	aim.hands = hands;
	aim.on = true;
	if (a == AIM_VOTES)
		unseat(NULL);
	if (a == AIM_TERMS)
		depose(NULL);
	if (a == AIM_PAUSES)
		pause(NULL);
}

void sim_aim_stop(void)
{
	aim.on = false;
}
