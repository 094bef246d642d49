/* Who belongs to the group and who leads it: changes of the configuration, one at a time, transfers
 * of leadership, what the leader knows of its peers, and pins, which keep the core from forgetting
 * entries that somebody who fetches a snapshot will want next. */
#include <stdio.h>
#include "cluster/consensus_priv.h"

enum { SYNC_LACK_MAX = 1024 /* entries that a replica in sync may lack */ };

static enum err change_result(int status)
{
	switch (status) {
	case 0: return OK;
	case RAFT_NOTLEADER: return ERR_NOTLEADER;
	case RAFT_CANTCHANGE: return ERR_BUSY;
	case RAFT_NOTFOUND:
	case RAFT_BADID: return ERR_NOTFOUND;
	case RAFT_BADROLE:
	case RAFT_DUPLICATEID:
	case RAFT_DUPLICATEADDRESS: return ERR_EXISTS;
	case RAFT_NOCONNECTION: return ERR_TIMEOUT; /* the promotion was given up */
	default: return ERR_UNKNOWN;
	}
}

static void changed_membership(struct raft_change *q, int status)
{
	struct consensus *c = q->data;
	c->change_err = c->closing ? ERR_CLOSED : change_result(status);
	c->change_done = true;
}

bool change_finish(struct consensus *c)
{
	if (!c->change_done)
		return false;
	struct consensus_change *change = c->change;
	c->change = NULL;
	c->change_done = false;
	change->done(change, c->change_err);
	return true;
}

/* An address is the decimal replica id: ids are never used again, so addresses are not either. */
static bool address_valid(uint64_t replica, const char *address)
{
	char want[24];
	snprintf(want, sizeof want, "%llu", (unsigned long long)replica);
	return replica != 0 && address != NULL && strcmp(address, want) == 0;
}

static bool is_voter(const struct consensus *c, uint64_t replica)
{
	const struct raft_server *s = guard_server(c->raft, replica);
	return s != NULL && s->role == RAFT_VOTER;
}

enum err consensus_change(struct consensus *c, struct consensus_change *change)
{
	static const int role[] = {[CHANGE_TO_STANDBY] = RAFT_STANDBY,
		[CHANGE_TO_VOTER] = RAFT_VOTER,
		[CHANGE_TO_SPARE] = RAFT_SPARE};
	if (!consensus_ready(c) || c->closing)
		return ERR_NOTLEADER;
	if (c->change || c->transfer_to != 0)
		return ERR_BUSY;
	if (change->kind == CHANGE_ADD_SPARE &&
		(!address_valid(change->replica, change->address) ||
			c->raft->configuration.n >= RAFT_WIRE_MEMBERS_MAX))
		return ERR_INVALID;
	struct raft_change *q = &c->change_request;
	q->data = c;
	c->change = change;
	c->change_of_voter = is_voter(c, change->replica);
	int rv;
	if (change->kind == CHANGE_ADD_SPARE)
		rv = raft_add(c->raft, q, change->replica, change->address, changed_membership);
	else if (change->kind == CHANGE_REMOVE)
		rv = raft_remove(c->raft, q, change->replica, changed_membership);
	else
		rv = raft_assign(
			c->raft, q, change->replica, role[change->kind], changed_membership);
	if (rv != 0)
		c->change = NULL;
	consensus_want_turn(c);
	return change_result(rv);
}

/* --- transfers --- */

static void transfer_closed(struct raft_transfer *t)
{
	struct consensus *c = t->data;
	c->transfer_in_raft = false;
	c->transfer_to = 0;
}

/* The target must have everything on its disk: it refuses to stand otherwise (G5). */
bool transfer_step(struct consensus *c)
{
	struct raft *r = c->raft;
	if (c->transfer_to == 0 || c->transfer_in_raft || !r)
		return false;
	if (r->state != RAFT_LEADER || loop_now_ms(c->env->loop) >= c->transfer_until_ms) {
		c->transfer_to = 0;
		return false;
	}
	for (unsigned i = 0; i < r->configuration.n; i++) {
		if (r->configuration.servers[i].id != c->transfer_to ||
			r->leader_state.progress[i].match_index != plog_last_index(c->log))
			continue;
		c->transfer.data = c;
		c->transfer_in_raft = true;
		if (raft_transfer(r, &c->transfer, c->transfer_to, transfer_closed) != 0)
			c->transfer_to = 0, c->transfer_in_raft = false;
		return true;
	}
	return false;
}

enum err consensus_transfer(struct consensus *c, uint64_t to)
{
	if (!consensus_ready(c) || c->closing)
		return ERR_NOTLEADER;
	if (c->transfer_to != 0 || c->change || c->raft->transfer)
		return ERR_BUSY;
	unsigned i = 0;
	const struct raft_configuration *m = &c->raft->configuration;
	while (i < m->n && m->servers[i].id != to)
		i++;
	if (i == m->n || m->servers[i].role != RAFT_VOTER || to == c->replica)
		return ERR_NOTFOUND;
	c->transfer_to = to;
	c->transfer_until_ms = loop_now_ms(c->env->loop) + c->o.election_ms;
	consensus_want_turn(c);
	return OK;
}

bool consensus_changing(const struct consensus *c)
{
	const struct raft *r = c->raft;
	if (!r || r->state != RAFT_LEADER)
		return false;
	return c->change || c->transfer_to != 0 || r->transfer ||
		r->configuration_uncommitted_index != 0 || r->leader_state.promotee_id != 0;
}

/* --- what is known of peers --- */

/* Nobody may count on a vote to be gone while the next leader may still count on it. */
static enum member_role role_of(const struct consensus *c, const struct raft_server *s)
{
	if (s->role == RAFT_VOTER ||
		(c->change && c->change_of_voter && c->change->replica == s->id))
		return MEMBER_VOTER;
	return s->role == RAFT_STANDBY ? MEMBER_STANDBY : MEMBER_SPARE;
}

static void look_at_progress(const struct consensus *c, unsigned i, struct consensus_peer *out)
{
	const struct raft *r = c->raft;
	uint64_t last = plog_last_index(c->log);
	const struct peer_out *p = out_of(c, out->replica);
	out->match_index = r->leader_state.progress[i].match_index;
	if (out->replica == c->replica)
		out->in_sync = true;
	else
		out->in_sync = p && p->heard_ms != 0 &&
			loop_now_ms(c->env->loop) - p->heard_ms <= c->o.election_ms &&
			r->leader_state.progress[i].state != GUARD_PEER_INSTALLING &&
			out->match_index > 0 && out->match_index + SYNC_LACK_MAX > last;
}

int consensus_peers(const struct consensus *c, struct consensus_peer *out, int max)
{
	const struct raft *r = c->raft;
	if (!r || r->state == RAFT_UNAVAILABLE)
		return 0;
	for (unsigned i = 0; i < r->configuration.n && (int)i < max; i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		out[i] = (struct consensus_peer){.replica = s->id, .role = role_of(c, s)};
		if (r->state == RAFT_LEADER)
			look_at_progress(c, i, &out[i]);
	}
	return (int)r->configuration.n;
}

/* --- pins --- */

/* A pinned core does not even try to forget: that would cost a copy of the configuration with each
 * entry applied. Its memory stays bounded. */
void pin_apply(struct consensus *c)
{
	if (c->raft)
		raft_set_snapshot_threshold(c->raft,
			c->pins > 0 ? GUARD_PINNED_MAX : (unsigned)c->o.snapshot_threshold);
}

void consensus_pin(struct consensus *c, bool on)
{
	must(on || c->pins > 0);
	if (on && c->pins++ == 0)
		c->pin_index = c->applied;
	if (!on)
		c->pins--;
	pin_apply(c);
}
