/* From the configuration that is to the one that is wanted, a step at a time. A step is chosen anew
 * from what the leader sees; nothing but the step under way is remembered, so that a new leader
 * goes on where the last one was. The order keeps the group whole: what is added has caught up
 * before anything is taken away, and a step that would leave voters without a majority in sync
 * waits.
 *
 * Leadership moves last. It goes to the first of the wanted voters, when that one has been in sync
 * for a while, so that a node that has just come back does not lead groups in between its faults.
 */
#include "cluster/membership.h"
#include <stdio.h>
#include "server/base/log.h"
#include "server/base/mem.h"

enum {
	MEMBERS_MAX = 64,
	SETTLED_LOOK_MS = 500, /* between looks while nothing is to be done */
	RETRY_MS = 1000,       /* after a step that failed */
	PREFERRED_MS = 10000
};

struct membership {
	struct consensus *consensus;
	struct loop *loop;
	uint64_t *wanted; /* voters, then learners */
	int voter_count, count;
	struct consensus_change change;
	char address[24];
	bool changing, freed;
	bool aside;          /* leadership is to go to aside_node */
	uint32_t aside_node; /* 0: any */
	int64_t not_before_ms;
	int64_t lead_since_ms, preferred_since_ms; /* 0: not */
};

struct look { /* at the configuration */
	struct consensus_peer peer[MEMBERS_MAX];
	int count, voters, in_sync; /* voters in sync */
};

struct membership *membership_new(struct consensus *c, struct loop *l)
{
	struct membership *m = mem_new(sizeof *m);
	m->consensus = c;
	m->loop = l;
	return m;
}

static void discard(struct membership *m)
{
	mem_free(m->wanted);
	mem_free(m);
}

void membership_free(struct membership *m)
{
	if (!m)
		return;
	m->freed = true;
	if (!m->changing)
		discard(m);
}

void membership_want(struct membership *m, const struct membership_wanted *w)
{
	int count = w->voter_count + w->learner_count;
	must(count <= MEMBERS_MAX);
	mem_free(m->wanted);
	m->wanted = mem_new((size_t)(count ? count : 1) * sizeof *m->wanted);
	m->voter_count = w->voter_count;
	m->count = count;
	for (int i = 0; i < w->voter_count; i++)
		m->wanted[i] = w->voters[i];
	for (int i = 0; i < w->learner_count; i++)
		m->wanted[w->voter_count + i] = w->learners[i];
	m->not_before_ms = 0;
	m->preferred_since_ms = 0;
}

void membership_step_aside(struct membership *m, uint32_t node)
{
	m->aside = true;
	m->aside_node = node;
	m->not_before_ms = 0;
}

/* --- looking --- */

static uint32_t node_of(uint64_t replica)
{
	return (uint32_t)(replica >> 32);
}

static void look(const struct membership *m, struct look *out)
{
	out->count = consensus_peers(m->consensus, out->peer, MEMBERS_MAX);
	if (out->count > MEMBERS_MAX)
		out->count = MEMBERS_MAX;
	out->voters = out->in_sync = 0;
	for (int i = 0; i < out->count; i++) {
		bool voter = out->peer[i].role == MEMBER_VOTER;
		out->voters += voter;
		out->in_sync += voter && out->peer[i].in_sync;
	}
}

static const struct consensus_peer *find(const struct look *l, uint64_t replica)
{
	for (int i = 0; i < l->count; i++)
		if (l->peer[i].replica == replica)
			return &l->peer[i];
	return NULL;
}

static int wanted_at(const struct membership *m, uint64_t replica)
{
	for (int i = 0; i < m->count; i++)
		if (m->wanted[i] == replica)
			return i;
	return -1;
}

static enum member_role wanted_role(const struct membership *m, int at)
{
	return at < m->voter_count ? MEMBER_VOTER : MEMBER_STANDBY;
}

static bool as_wanted(const struct membership *m, const struct look *l)
{
	if (l->count != m->count)
		return false;
	for (int i = 0; i < m->count; i++) {
		const struct consensus_peer *p = find(l, m->wanted[i]);
		if (!p || p->role != wanted_role(m, i))
			return false;
	}
	return true;
}

/* --- steps --- */

static void change_done(struct consensus_change *change, enum err e)
{
	struct membership *m = list_entry(change, struct membership, change);
	m->changing = false;
	if (m->freed) {
		discard(m);
		return;
	}
	if (e == OK)
		return;
	m->not_before_ms = loop_now_ms(m->loop) + RETRY_MS;
	LOG(LOG_WARN, AREA_CLUSTER, "member_step_failed", "replica=%llx step=%d err=\"%s\"",
		(unsigned long long)change->replica, (int)change->kind, err_text(e));
}

static bool step(struct membership *m, enum consensus_change_kind kind, uint64_t replica)
{
	snprintf(m->address, sizeof m->address, "%llu", (unsigned long long)replica);
	m->change = (struct consensus_change){
		.kind = kind, .replica = replica, .address = m->address, .done = change_done};
	m->changing = true;
	enum err e = consensus_change(m->consensus, &m->change);
	if (e != OK) {
		m->changing = false;
		m->not_before_ms = loop_now_ms(m->loop) + RETRY_MS;
	}
	return true;
}

static bool transfer(struct membership *m, uint64_t to)
{
	if (consensus_transfer(m->consensus, to) != OK)
		return false;
	m->not_before_ms = loop_now_ms(m->loop) + RETRY_MS;
	return true;
}

static uint64_t successor(const struct membership *m, const struct look *l, uint64_t self,
	uint32_t node, bool wanted);

static bool node_wanted(const struct membership *m, uint32_t node)
{
	for (int i = 0; i < m->count; i++)
		if (node_of(m->wanted[i]) == node)
			return true;
	return false;
}

/* What is wanted no more and has no vote goes at once. So does a voter whose node is to have
 * another replica of the group, if the others can do without: a node has one at a time, and would
 * wait for the old one to go as the old one waits for the new one to come. */
static bool make_way(struct membership *m, const struct look *l, uint64_t self)
{
	for (int i = 0; i < l->count; i++) {
		const struct consensus_peer *p = &l->peer[i];
		if (wanted_at(m, p->replica) >= 0)
			continue;
		if (p->role != MEMBER_VOTER && p->replica != self)
			return step(m, CHANGE_REMOVE, p->replica);
		if (p->role != MEMBER_VOTER || !node_wanted(m, node_of(p->replica)) ||
			2 * (l->in_sync - p->in_sync) <= l->voters - 1)
			continue;
		if (p->replica != self)
			return step(m, CHANGE_TO_SPARE, p->replica);
		uint64_t to = successor(m, l, self, 0, false);
		return to != 0 && transfer(m, to);
	}
	return false;
}

/* What is wanted and not there yet. True: a step is taken, or has to wait before anything else. */
static bool add_one(struct membership *m, const struct look *l)
{
	for (int i = 0; i < m->count; i++) {
		const struct consensus_peer *p = find(l, m->wanted[i]);
		if (!p && l->count < MEMBERS_MAX)
			return step(m, CHANGE_ADD_SPARE, m->wanted[i]);
		if (p && p->role == MEMBER_SPARE)
			return step(m, CHANGE_TO_STANDBY, m->wanted[i]);
	}
	for (int i = 0; i < m->voter_count; i++) {
		const struct consensus_peer *p = find(l, m->wanted[i]);
		if (!p || p->role != MEMBER_STANDBY || !p->in_sync)
			continue;
		if (2 * (l->in_sync + 1) > l->voters + 1)
			return step(m, CHANGE_TO_VOTER, m->wanted[i]);
	}
	return false;
}

static bool voters_there(const struct membership *m, const struct look *l)
{
	for (int i = 0; i < m->voter_count; i++) {
		const struct consensus_peer *p = find(l, m->wanted[i]);
		if (!p || p->role != MEMBER_VOTER)
			return false;
	}
	return m->voter_count > 0;
}

/* The voter in sync that is furthest, of those wanted if asked; on a node if one is given. */
static uint64_t successor(
	const struct membership *m, const struct look *l, uint64_t self, uint32_t node, bool wanted)
{
	uint64_t best = 0, match = 0;
	for (int i = 0; i < l->count; i++) {
		const struct consensus_peer *p = &l->peer[i];
		int at = wanted_at(m, p->replica);
		if (p->replica == self || p->role != MEMBER_VOTER || !p->in_sync ||
			(node != 0 && node_of(p->replica) != node) ||
			(wanted && (at < 0 || at >= m->voter_count)))
			continue;
		if (best == 0 || p->match_index > match) {
			best = p->replica;
			match = p->match_index;
		}
	}
	return best;
}

/* What is there and not wanted. Those in sync go last: the others only count against a majority. */
static bool remove_one(struct membership *m, const struct look *l, uint64_t self)
{
	if (!voters_there(m, l))
		return false;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < l->count; i++) {
			const struct consensus_peer *p = &l->peer[i];
			int at = wanted_at(m, p->replica);
			if (p->replica == self || p->in_sync != (pass == 1))
				continue;
			if (at < 0 && p->role != MEMBER_VOTER)
				return step(m, CHANGE_REMOVE, p->replica);
			if (p->role != MEMBER_VOTER || (at >= 0 && at < m->voter_count))
				continue;
			if (2 * (l->in_sync - p->in_sync) > l->voters - 1)
				return step(m, at < 0 ? CHANGE_TO_SPARE : CHANGE_TO_STANDBY,
					p->replica);
		}
	int at = wanted_at(m, self);
	if (at >= 0 && at < m->voter_count)
		return false;
	uint64_t to = successor(m, l, self, 0, true);
	return to != 0 && transfer(m, to);
}

static bool prefer(struct membership *m, const struct look *l, uint64_t self, int64_t now_ms)
{
	const struct consensus_peer *p = m->voter_count > 0 ? find(l, m->wanted[0]) : NULL;
	if (!p || p->replica == self || p->role != MEMBER_VOTER || !p->in_sync) {
		m->preferred_since_ms = 0;
		return false;
	}
	if (m->preferred_since_ms == 0)
		m->preferred_since_ms = now_ms;
	if (now_ms - m->preferred_since_ms < PREFERRED_MS ||
		now_ms - m->lead_since_ms < PREFERRED_MS)
		return false;
	m->preferred_since_ms = 0;
	return transfer(m, p->replica);
}

static bool step_aside(struct membership *m, const struct look *l, uint64_t self)
{
	if (!m->aside)
		return false;
	m->aside = false;
	uint64_t to = successor(m, l, self, m->aside_node, false);
	return to != 0 && transfer(m, to);
}

static void take_step(struct membership *m, int64_t now_ms)
{
	struct look l;
	uint64_t self = consensus_leader(m->consensus);
	look(m, &l);
	if (step_aside(m, &l, self))
		return;
	if (m->voter_count == 0) /* nobody has said what is wanted */
		return;
	if (!as_wanted(m, &l)) {
		if (!make_way(m, &l, self) && !add_one(m, &l))
			(void)remove_one(m, &l, self);
		return;
	}
	if (!prefer(m, &l, self, now_ms) && m->not_before_ms < now_ms)
		m->not_before_ms = now_ms + SETTLED_LOOK_MS;
}

void membership_tick(struct membership *m, int64_t now_ms)
{
	if (!consensus_ready(m->consensus)) {
		m->lead_since_ms = m->preferred_since_ms = 0;
		m->not_before_ms = 0;
		if (m->aside && consensus_role(m->consensus) != ROLE_LEADER)
			m->aside = false; /* somebody else leads already */
		return;
	}
	if (m->lead_since_ms == 0)
		m->lead_since_ms = now_ms;
	if (m->changing || now_ms < m->not_before_ms || consensus_changing(m->consensus))
		return;
	take_step(m, now_ms);
}
