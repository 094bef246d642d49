/* How messages come in: decoded, judged by the guard, handed to the core, or kept for later. The
 * core gets stubs, the payloads wait in c->staged for the append that it makes within. */
#include "cluster/consensus_priv.h"
#include "server/base/log.h"

enum { HELD_MAX = 256, HELD_BYTES_MAX = 32 << 20 };

struct raft_address raft_address_of(struct bytes b)
{
	struct raft_address a;
	must(b.len < sizeof a.text);
	memcpy(a.text, b.at, b.len);
	a.text[b.len] = 0;
	return a;
}

static struct entry *entry_staged(
	const struct consensus *c, uint64_t index, const struct raft_wire_entry *w)
{
	struct slice payload = slice_ref(w->payload);
	return entry_of(plog_group(c->log), index, &w->head, &payload);
}

static size_t stub_bytes(const struct entry_header *h)
{
	return h->kind == ENTRY_CONFIG ? h->payload_bytes : sizeof(struct raft_stub);
}

static void raft_entry_fill(
	struct raft_entry *re, const struct raft_wire_entry *w, uint8_t *at, void *batch)
{
	re->term = w->head.term;
	re->batch = batch;
	re->buf.base = at;
	re->buf.len = stub_bytes(&w->head);
	if (w->head.kind == ENTRY_CONFIG) {
		re->type = RAFT_CHANGE;
		memcpy(at, w->payload.bytes.at, w->payload.bytes.len);
		return;
	}
	struct raft_stub s = stub_of(&w->head);
	re->type = w->head.kind == ENTRY_BARRIER ? RAFT_BARRIER : RAFT_COMMAND;
	memcpy(at, &s, sizeof s);
}

/* Makes what the core takes over (one array, one batch) and stages the plog's entries. */
static void stage(struct consensus *c, const struct raft_wire *m, uint32_t skip, uint64_t first,
	struct raft_append_entries *a)
{
	uint32_t n = m->message.append_entries.n_entries - skip;
	const struct raft_wire_entry *w = m->entries + skip;
	size_t size = 0;
	a->entries = NULL;
	a->n_entries = n;
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		size += (stub_bytes(&w[i].head) + 7) & ~(size_t)7;
	uint8_t *batch = raft_malloc(size), *at = batch;
	a->entries = raft_malloc(n * sizeof *a->entries);
	c->staged = mem_new(n * sizeof(struct entry *));
	c->staged_count = n;
	for (uint32_t i = 0; i < n; i++) {
		raft_entry_fill(&a->entries[i], &w[i], at, batch);
		at += (stub_bytes(&w[i].head) + 7) & ~(size_t)7;
		c->staged[i] = entry_staged(c, first + i, &w[i]);
	}
}

static void unstage(struct consensus *c)
{
	for (uint32_t i = 0; i < c->staged_count; i++)
		entry_unref(c->staged[i]);
	mem_free(c->staged);
	c->staged = NULL;
	c->staged_count = 0;
}

/* A leader that was thought lost speaks: it gets its time again. */
static void found_leader(struct consensus *c, uint64_t from)
{
	struct raft *r = c->raft;
	if (c->guard.lost_leader != from)
		return;
	c->guard.lost_leader = 0;
	if (r->state == RAFT_FOLLOWER)
		r->follower_state.randomized_election_timeout = (unsigned)c->io.random(
			&c->io, (int)c->o.election_ms, 2 * (int)c->o.election_ms);
}

static void receive_append(
	struct consensus *c, const struct raft_wire *m, const struct guard_plan *plan)
{
	struct raft_address from = raft_address_of(m->address);
	struct raft_message copy = m->message;
	struct raft_append_entries *a = &copy.append_entries;
	uint64_t end = a->prev_log_index + a->n_entries;
	copy.server_id = m->from;
	copy.server_address = from.text;
	a->prev_log_index = plan->prev_index;
	a->prev_log_term = plan->prev_term;
	/* The core would commit up to its own last entry, which this message need not vouch for. */
	if (a->leader_commit > end && !c->o.guard_off[2])
		a->leader_commit = end;
	stage(c, m, plan->skip, plan->prev_index + 1, a);
	c->guard.receiving = true;
	c->guard.receiving_end = end;
	found_leader(c, m->from);
	c->recv(&c->io, &copy);
	c->guard.receiving = false;
	unstage(c);
}

/* --- marks --- */

/* Tells the core that the leader has committed what is here up to the mark, or to the last entry
 * that is on the disk. The core would answer as to a heartbeat: nobody waits for that. */
static void mark_deliver(struct consensus *c)
{
	struct raft *r = c->raft;
	struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};
	m.server_id = r->follower_state.current_leader.id;
	m.server_address = r->follower_state.current_leader.address;
	m.append_entries.term = c->mark.term;
	m.append_entries.prev_log_index = m.append_entries.leader_commit = c->mark.index;
	m.append_entries.prev_log_term = c->mark.index_term;
	c->guard.receiving = c->swallow_results = true;
	c->guard.receiving_end = c->mark.index;
	c->recv(&c->io, &m);
	c->guard.receiving = c->swallow_results = false;
}

bool raft_receive_mark(struct consensus *c)
{
	const struct raft *r = c->raft;
	if (c->mark.term == 0 || !r)
		return false;
	if (r->state != RAFT_FOLLOWER || r->current_term != c->mark.term ||
		r->follower_state.current_leader.id != c->mark.from ||
		r->commit_index >= c->mark.index) {
		c->mark.term = 0;
		return false;
	}
	/* The entry is the leader's, so all before it are, and what is stored of them is committed.
	 */
	if (guard_term(r, c->mark.index) != c->mark.index_term || r->last_stored <= r->commit_index)
		return false;
	mark_deliver(c);
	return true;
}

/* Of a leader that the core follows; the newest is enough. */
static void receive_mark(struct consensus *c, const struct raft_wire *m)
{
	const struct raft_append_entries *a = &m->message.append_entries;
	const struct raft *r = c->raft;
	if (r->state != RAFT_FOLLOWER || a->term != r->current_term ||
		r->follower_state.current_leader.id != m->from)
		return;
	if (c->mark.term == a->term && c->mark.index >= a->prev_log_index)
		return;
	c->mark.from = m->from;
	c->mark.term = a->term;
	c->mark.index = a->prev_log_index;
	c->mark.index_term = a->prev_log_term;
	/* Taken up by the settling that follows, and whenever an append has completed. */
}

/* --- in --- */

static void hold(struct consensus *c, struct raft_wire *m)
{
	if (c->held_count >= HELD_MAX || c->held_bytes + m->frame.bytes.len > HELD_BYTES_MAX) {
		raft_wire_fini(m);
		return;
	}
	c->held_bytes += m->frame.bytes.len;
	struct held *h = mem_new(sizeof *h);
	h->message = *m;
	c->held_count++;
	list_push_back(&c->held, &h->node);
}

/* A peer that installs refuses nothing, so one that refuses a heartbeat does not install: the
 * snapshot was lost on the way. The core would wait for its time-out, a minute; told so it sends it
 * again. */
static void notice_lost_snapshot(const struct consensus *c, uint64_t from, struct raft_message *m)
{
	const struct raft *r = c->raft;
	if (m->type != RAFT_IO_APPEND_ENTRIES_RESULT || r->state != RAFT_LEADER ||
		m->append_entries_result.rejected == 0)
		return;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_progress *p = &r->leader_state.progress[i];
		int64_t since = loop_now_ms(c->env->loop) - (int64_t)p->snapshot_last_send;
		if (r->configuration.servers[i].id == from && p->state == GUARD_PEER_INSTALLING &&
			since >= c->o.election_ms)
			m->append_entries_result.rejected = p->snapshot_index;
	}
}

/* Takes m if it gives true: handed over, dropped, or the instance is not there any more. */
static bool deliver(struct consensus *c, struct raft_wire *m)
{
	struct guard_plan plan;
	struct raft_message copy = m->message;
	struct raft_address from = raft_address_of(m->address);
	switch (guard_receive(&c->guard, m, &plan)) {
	case GUARD_HOLD: return false;
	case GUARD_DROP: break;
	case GUARD_DIVERGED: instance_quarantine(c, "diverged"); break;
	case GUARD_REBUILD:
		plog_truncate(c->log, plan.cut);
		instance_rebuild(c);
		hold(c, m);
		return true;
	case GUARD_PASS:
		if (m->message.type == RAFT_IO_APPEND_ENTRIES) {
			receive_append(c, m, &plan);
		} else if (m->message.type == RAFT_IO_INSTALL_SNAPSHOT) {
			raft_install_receive(c, m);
		} else if (m->message.type == RAFT_WIRE_MARK) {
			receive_mark(c, m);
		} else {
			copy.server_id = m->from;
			copy.server_address = from.text;
			notice_lost_snapshot(c, m->from, &copy);
			guard_correct(&c->guard, loop_now_ms(c->env->loop), &copy);
			int role = guard_lend_vote(&c->guard, &copy);
			c->recv(&c->io, &copy);
			guard_take_vote(&c->guard, role);
			if (m->message.type == RAFT_IO_APPEND_ENTRIES_RESULT)
				out_heard(c, m->from, &copy.append_entries_result);
		}
		break;
	}
	raft_wire_fini(m);
	return true;
}

enum err consensus_receive(struct consensus *c, struct slice frame)
{
	struct raft_wire m;
	enum err e = raft_wire_decode(frame, &m);
	if (e != OK)
		return e;
	/* A replica that was wiped comes back under another id: what is for the old one is void. */
	if (!c->raft || c->closing || m.group != plog_group(c->log) || m.to != c->replica) {
		if (c->phase == PHASE_INSTALLING && !c->closing && m.group == plog_group(c->log) &&
			m.to == c->replica)
			raft_install_meanwhile(c, &m);
		raft_wire_fini(&m);
		return OK;
	}
	if (!deliver(c, &m))
		hold(c, &m);
	consensus_settle(c);
	return OK;
}

bool raft_receive_held(struct consensus *c)
{
	for (struct list *n = c->held.next, *next; n != &c->held && c->raft; n = next) {
		struct held *h = list_entry(n, struct held, node);
		size_t bytes = h->message.frame.bytes.len;
		next = n->next;
		/* Out of the list: delivering may end the instance and drop what is held. */
		list_remove(n);
		c->held_count--;
		c->held_bytes -= bytes;
		if (deliver(c, &h->message)) {
			mem_free(h);
			return true;
		}
		list_push_back(next, n); /* where it was */
		c->held_count++;
		c->held_bytes += bytes;
	}
	return false;
}

void raft_receive_drop_held(struct consensus *c)
{
	struct list *n;
	while ((n = list_pop(&c->held)) != NULL) {
		struct held *h = list_entry(n, struct held, node);
		c->held_bytes -= h->message.frame.bytes.len;
		raft_wire_fini(&h->message);
		mem_free(h);
		c->held_count--;
	}
}
