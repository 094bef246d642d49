/* Each rule is one small function that names it. What they read of the core are fields of the
 * public struct raft; consensus_process_init checks that the library has the same layout. */
#include "cluster/guard.h"
#include "server/base/mem.h"

static size_t log_count(const struct raft_log *l)
{
	return l->front <= l->back ? l->back - l->front : l->size - l->front + l->back;
}

const struct raft_entry *guard_entry(const struct raft *r, uint64_t index)
{
	const struct raft_log *l = &r->log;
	if (index <= l->offset || index > l->offset + log_count(l))
		return NULL;
	return &l->entries[(l->front + (size_t)(index - 1 - l->offset)) % l->size];
}

uint64_t guard_term(const struct raft *r, uint64_t index)
{
	if (index > 0 && index == r->log.snapshot.last_index)
		return r->log.snapshot.last_term;
	const struct raft_entry *e = guard_entry(r, index);
	return e ? e->term : 0;
}

unsigned guard_voters(const struct raft *r)
{
	unsigned n = 0;
	for (unsigned i = 0; i < r->configuration.n; i++)
		n += r->configuration.servers[i].role == RAFT_VOTER;
	return n;
}

static bool on(const struct guard *g, int rule)
{
	return !g->off[rule];
}

void guard_change_added(struct guard *g, uint64_t index)
{
	must(g->change_count == 0 || g->changes[g->change_count - 1] < index);
	if (g->change_count == g->change_room) {
		uint32_t room = g->change_room ? g->change_room * 2 : 4;
		uint64_t *more = mem_resize(g->changes, room * sizeof *more);
		must(more != NULL);
		g->changes = more;
		g->change_room = room;
	}
	g->changes[g->change_count++] = index;
}

void guard_changes_cut(struct guard *g, uint64_t from)
{
	while (g->change_count > 0 && g->changes[g->change_count - 1] >= from)
		g->change_count--;
}

void guard_changes_applied(struct guard *g, uint64_t index)
{
	uint32_t n = 0;
	while (n < g->change_count && g->changes[n] <= index)
		n++;
	if (n == 0)
		return;
	g->change_count -= n;
	memmove(g->changes, g->changes + n, g->change_count * sizeof *g->changes);
}

void guard_fini(struct guard *g)
{
	mem_free(g->changes);
	g->changes = NULL;
	g->change_count = g->change_room = 0;
}

/* G4: while a transfer runs the core forgets that it has voted, for the transferee at least. */
static bool second_vote(const struct guard *g, const struct raft_wire *m)
{
	const struct raft *r = g->raft;
	const struct raft_request_vote *v = &m->message.request_vote;
	return on(g, 4) && !v->pre_vote && r->transfer && r->voted_for != 0 &&
		r->voted_for != v->candidate_id && v->term == r->current_term;
}

/* G7: an entry of an older term that is still on its way to the disk would be counted as stored
 * after the log has been cut and refilled. */
static bool older_appends(const struct guard *g, uint64_t term)
{
	return on(g, 7) && g->appends > 0 && term > g->append_term;
}

/* G8: what is committed here is compared here; the core would shut down, or cut committed entries
 * when the message is old. */
static enum guard_verdict below_commit(
	const struct guard *g, const struct raft_wire *m, struct guard_plan *plan)
{
	const struct raft *r = g->raft;
	const struct raft_append_entries *a = &m->message.append_entries;
	if (!on(g, 8) || a->term < r->current_term || a->prev_log_index >= r->commit_index)
		return GUARD_PASS;
	uint64_t prev_term = guard_term(r, a->prev_log_index);
	if (prev_term != 0 && a->prev_log_index > 0 && prev_term != a->prev_log_term)
		return GUARD_DIVERGED;
	for (uint32_t i = 0; i < a->n_entries && a->prev_log_index + 1 + i <= r->commit_index;
		i++) {
		uint64_t ours = guard_term(r, a->prev_log_index + 1 + i);
		if (ours != 0 && ours != m->entries[i].head.term)
			return GUARD_DIVERGED;
		plan->skip = i + 1;
	}
	plan->prev_index = r->commit_index;
	plan->prev_term = guard_term(r, r->commit_index);
	return GUARD_PASS;
}

/* G9: a conflict that takes back a configuration. The core rolls back to the committed one only if
 * that entry is in memory (else it crashes), and not at all if it was loaded from the disk. */
static bool takes_back_config(
	const struct guard *g, const struct raft_wire *m, struct guard_plan *plan)
{
	const struct raft *r = g->raft;
	const struct raft_append_entries *a = &m->message.append_entries;
	if (!on(g, 9) || a->term < r->current_term || g->change_count == 0)
		return false;
	for (uint32_t i = plan->skip; i < a->n_entries; i++) {
		uint64_t index = a->prev_log_index + 1 + i, ours = guard_term(r, index);
		if (ours == 0 || ours == m->entries[i].head.term)
			continue;
		if (g->changes[g->change_count - 1] < index)
			return false;
		if (index <= r->configuration_uncommitted_index &&
			guard_entry(r, r->configuration_index) != NULL && g->change_count == 1)
			return false; /* the core can */
		plan->cut = index;
		return true;
	}
	return false;
}

/* G7: the core counts references by term and index: what is cut while the disk writes it, and comes
 * back, it frees twice. Among honest peers the newer term of the message has made it wait above. */
static bool cuts_what_is_written(
	const struct guard *g, const struct raft_wire *m, const struct guard_plan *plan)
{
	const struct raft_append_entries *a = &m->message.append_entries;
	if (!on(g, 7) || g->appends == 0)
		return false;
	for (uint32_t i = plan->skip; i < a->n_entries; i++) {
		uint64_t ours = guard_term(g->raft, a->prev_log_index + 1 + i);
		if (ours == 0)
			return false;
		if (ours != m->entries[i].head.term)
			return true;
	}
	return false;
}

static enum guard_verdict receive_append(
	const struct guard *g, const struct raft_wire *m, struct guard_plan *plan)
{
	if (older_appends(g, m->message.append_entries.term))
		return GUARD_HOLD;
	enum guard_verdict v = below_commit(g, m, plan);
	if (v != GUARD_PASS)
		return v;
	if (cuts_what_is_written(g, m, plan))
		return GUARD_HOLD;
	return takes_back_config(g, m, plan) ? GUARD_REBUILD : GUARD_PASS;
}

/* There is none, unless a peer is broken. */
static bool second_leader(const struct guard *g, const struct raft_wire *m)
{
	const struct raft *r = g->raft;
	if (r->state != RAFT_LEADER)
		return false;
	return (m->message.type == RAFT_IO_APPEND_ENTRIES &&
		       m->message.append_entries.term == r->current_term) ||
		(m->message.type == RAFT_IO_INSTALL_SNAPSHOT &&
			m->message.install_snapshot.term == r->current_term);
}

enum guard_verdict guard_receive(
	const struct guard *g, const struct raft_wire *m, struct guard_plan *plan)
{
	const struct raft *r = g->raft;
	*plan = (struct guard_plan){0};
	if (second_leader(g, m))
		return GUARD_DROP;
	switch (m->message.type) {
	case RAFT_IO_APPEND_ENTRIES:
		plan->prev_index = m->message.append_entries.prev_log_index;
		plan->prev_term = m->message.append_entries.prev_log_term;
		return receive_append(g, m, plan);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		/* G1: nothing may be counted before our own term's first entry is. */
		return on(g, 1) && r->state == RAFT_LEADER && !g->barrier_stored ? GUARD_HOLD
										 : GUARD_PASS;
	case RAFT_IO_REQUEST_VOTE: return second_vote(g, m) ? GUARD_DROP : GUARD_PASS;
	case RAFT_IO_TIMEOUT_NOW:
		/* G5: a candidate's unfinished appends would be acknowledged by a leader's log. */
		return on(g, 5) && g->appends > 0 ? GUARD_DROP : GUARD_PASS;
	case RAFT_IO_INSTALL_SNAPSHOT:
		return older_appends(g, m->message.install_snapshot.term) ? GUARD_HOLD : GUARD_PASS;
	default: return GUARD_PASS;
	}
}

/* G11: the core holds on to a leader until its own timer has run out, so that the vote of whoever
 * times out first has to wait for that of the last. */
void guard_correct(const struct guard *g, int64_t now_ms, struct raft_message *m)
{
	const struct raft *r = g->raft;
	if (!on(g, 11) || m->type != RAFT_IO_REQUEST_VOTE || r->state != RAFT_FOLLOWER)
		return;
	if (now_ms - (int64_t)r->election_timer_start >= g->silence_ms ||
		(g->lost_leader != 0 && g->lost_leader == r->follower_state.current_leader.id))
		m->request_vote.disrupt_leader = true;
}

struct raft_server *guard_server(struct raft *r, raft_id id)
{
	struct raft_configuration *c = &r->configuration;
	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].id == id)
			return &c->servers[i];
	return NULL;
}

static struct raft_server *self(const struct guard *g)
{
	return guard_server(g->raft, g->raft->id);
}

/* G12: the core votes only if its own newest configuration says so. A candidate's may be newer, and
 * its vote the one that is lacking; votes depend on logs, not on configurations (Raft §4.1). */
int guard_lend_vote(const struct guard *g, const struct raft_message *m)
{
	struct raft_server *s = self(g);
	if (!on(g, 12) || m->type != RAFT_IO_REQUEST_VOTE || !s || s->role == RAFT_VOTER)
		return RAFT_VOTER;
	int role = s->role;
	s->role = RAFT_VOTER;
	return role;
}

void guard_take_vote(const struct guard *g, int role)
{
	struct raft_server *s = role != RAFT_VOTER ? self(g) : NULL;
	if (s)
		s->role = role;
}

/* G2, G3: what a result may claim. */
static enum guard_verdict send_result(const struct guard *g, struct raft_append_entries_result *a)
{
	const struct raft *r = g->raft;
	if (g->completing && on(g, 3) && g->completing_term != r->current_term)
		return GUARD_DROP;
	if (!on(g, 2))
		return GUARD_PASS;
	if (a->rejected == 0 && !g->completing && g->receiving &&
		a->last_log_index > g->receiving_end)
		a->last_log_index = g->receiving_end;
	if (a->rejected > 0 && a->last_log_index >= a->rejected &&
		a->last_log_index > r->commit_index)
		a->last_log_index = r->commit_index;
	return GUARD_PASS;
}

enum guard_verdict guard_send(const struct guard *g, struct raft_message *m)
{
	const struct raft *r = g->raft;
	struct raft_request_vote_result *v = &m->request_vote_result;
	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES: /* G1 */
		if (on(g, 1) && m->append_entries.term != g->barrier_term)
			return GUARD_HOLD;
		return GUARD_PASS;
	case RAFT_IO_APPEND_ENTRIES_RESULT: return send_result(g, &m->append_entries_result);
	case RAFT_IO_REQUEST_VOTE_RESULT: /* G10: else two that are behind ask each other for ever
					   */
		if (on(g, 10) && v->pre_vote == raft_tribool_true && !v->vote_granted &&
			r->current_term > v->term)
			v->term = r->current_term;
		return GUARD_PASS;
	default: return GUARD_PASS;
	}
}

bool guard_may_tick(const struct guard *g)
{
	/* G5: a follower that stands for election has its log on the disk. */
	return !on(g, 5) || g->raft->state != RAFT_FOLLOWER || g->appends == 0;
}

bool guard_may_snapshot(const struct guard *g)
{
	const struct raft *r = g->raft;
	if (!on(g, 6))
		return true;
	/* G6: the core would write down a configuration that is not committed. */
	if (r->configuration_uncommitted_index != 0)
		return false;
	if (g->change_count > 0 && g->changes[g->change_count - 1] > r->last_applied)
		return false;
	if (log_count(&r->log) > GUARD_PINNED_MAX)
		return true;
	for (unsigned i = 0; r->state == RAFT_LEADER && i < r->configuration.n; i++)
		if (r->leader_state.progress[i].state == GUARD_PEER_INSTALLING)
			return false;
	return true;
}

bool guard_wants_barrier(const struct guard *g)
{
	return on(g, 1) && g->raft->state == RAFT_LEADER &&
		g->barrier_term != g->raft->current_term;
}

bool guard_may_complete(const struct guard *g, uint64_t first, uint64_t last, uint64_t term)
{
	const struct raft *r = g->raft;
	if (!on(g, 0) || r->state != RAFT_LEADER || term != r->current_term ||
		first <= g->barrier_index)
		return true;
	unsigned voters = 0, have = 0;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		if (s->role != RAFT_VOTER)
			continue;
		voters++;
		have += s->id == r->id || r->leader_state.progress[i].match_index >= last;
	}
	return have > voters / 2;
}
