/* What a leader sends its peers, entries above all. The core asks for an AppendEntries with every
 * proposal and never looks at how much is on its way. So what it asks for is only noted, per peer,
 * as a run of indices; at the end of the turn the runs leave, what was proposed in one turn as one
 * message, in frames of about a megabyte, as far as the peer's window is open. What is kept back
 * leaves when the peer has acknowledged more. A heartbeat goes to the point that has been put on
 * the way, so that the peer need not refuse it.
 *
 * Payloads that are not in memory are read by a worker, one run at a time; those behind it wait.
 * Repeats of what was put on the way a moment ago are not sent again, unless the peer has refused.
 *
 * When the commit index has moved and no message of the turn tells so, peers get a mark: index and
 * term of what is committed, so that they need not wait for the next heartbeat to apply it. */
#include "cluster/consensus_priv.h"

enum { WINDOW_BYTES = 4 << 20, UNMARKED_BYTES = 64 << 10, ENTRY_OVERHEAD = 64 };

struct cold { /* an AppendEntries that waits for payloads */
	struct plog_read read;
	struct consensus *c;
	struct raft_wire wire;
	uint64_t first;
};

struct peer_out *out_of(const struct consensus *c, uint64_t replica)
{
	if (!c->raft || c->raft->state != RAFT_LEADER || c->peers_term != c->raft->current_term)
		return NULL;
	for (uint32_t i = 0; i < c->peer_count; i++)
		if (c->peers[i].replica == replica)
			return &c->peers[i];
	return NULL;
}

static unsigned server_at(const struct raft *r, uint64_t replica)
{
	unsigned i = 0;
	while (i < r->configuration.n && r->configuration.servers[i].id != replica)
		i++;
	return i;
}

/* Those that were removed make room. */
static void drop_strangers(struct consensus *c)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < c->peer_count; i++)
		if (server_at(c->raft, c->peers[i].replica) < c->raft->configuration.n)
			c->peers[n++] = c->peers[i];
	c->peer_count = n;
}

static struct peer_out *out_get(struct consensus *c, uint64_t replica)
{
	if (c->peers_term != c->raft->current_term) {
		c->peers_term = c->raft->current_term;
		c->peer_count = 0;
	}
	struct peer_out *p = out_of(c, replica);
	if (p || c->raft->state != RAFT_LEADER)
		return p;
	if (c->peer_count == c->peer_room)
		drop_strangers(c);
	if (c->peer_count == c->peer_room) {
		uint32_t room = c->peer_room ? c->peer_room * 2 : 4;
		struct peer_out *more = mem_resize(c->peers, room * sizeof *more);
		must(more != NULL);
		c->peers = more;
		c->peer_room = room;
	}
	p = &c->peers[c->peer_count++];
	*p = (struct peer_out){.replica = replica};
	return p;
}

void out_want(struct consensus *c)
{
	loop_hook_want(c->env->loop, STAGE_WRITE, &c->out_hook);
}

static bool repeats(const struct consensus *c, const struct peer_out *p, uint64_t prev)
{
	return !p->rejected && p->put_ms != 0 && prev + 1 < p->next &&
		loop_now_ms(c->env->loop) - p->put_ms < c->o.election_ms;
}

void out_append(struct consensus *c, const struct raft_message *m)
{
	const struct raft_append_entries *a = &m->append_entries;
	uint64_t prev = a->prev_log_index, last = prev + a->n_entries;
	struct peer_out *p = out_get(c, m->server_id);
	if (!p)
		return;
	p->due = true;
	out_want(c);
	if (!p->rejected && p->next > 0 && prev == p->last) {
		p->last = last;
	} else if (repeats(c, p, prev) && last + 1 >= p->next) {
		if (last > p->last)
			p->last = last;
	} else {
		p->next = prev + 1;
		p->last = last;
		p->mark_bytes = p->more_bytes = 0;
		p->rejected = false;
	}
}

static void acknowledged(struct peer_out *p, uint64_t match)
{
	if (match >= p->mark) {
		p->mark_bytes = p->more_bytes;
		p->more_bytes = 0;
		p->mark = p->next - 1;
	}
	if (match + 1 >= p->next)
		p->mark_bytes = p->more_bytes = 0;
}

void out_heard(
	struct consensus *c, uint64_t replica, const struct raft_append_entries_result *result)
{
	struct peer_out *p = out_of(c, replica);
	unsigned i = p ? server_at(c->raft, replica) : 0;
	if (!p || i == c->raft->configuration.n)
		return;
	const struct raft_progress *progress = &c->raft->leader_state.progress[i];
	if (result->term == c->raft->current_term)
		p->heard_ms = loop_now_ms(c->env->loop);
	p->absent = result->rejected == 0 && result->last_log_index == 0;
	if (result->rejected > 0 && progress->state == GUARD_PEER_PROBE)
		p->rejected = true;
	acknowledged(p, progress->match_index);
	if (p->next <= p->last || p->commit_told < c->raft->commit_index)
		out_want(c);
}

void out_lost(struct consensus *c, uint32_t node)
{
	for (uint32_t i = 0; i < c->peer_count; i++)
		if ((uint32_t)(c->peers[i].replica >> 32) == node)
			c->peers[i].heard_ms = 0;
}

/* --- payloads --- */

/* The header of one entry, and its payload if it is in memory. False: it has to be read. */
static bool resolve(struct consensus *c, uint64_t index, const struct raft_entry *re,
	struct raft_wire_entry *out)
{
	struct entry *e = plog_cached(c->log, index);
	if (e && entry_whole(e)) {
		*out = (struct raft_wire_entry){.head = e->head, .from = e};
		return true;
	}
	*out = (struct raft_wire_entry){0};
	stub_head(re, &out->head);
	if (re->type == RAFT_COMMAND && index < plog_marks(c->log)->first_index)
		out->head.flags |= ENTRY_TRIMMED;
	if (out->head.flags & ENTRY_TRIMMED)
		out->head.flags &= (uint8_t)~ENTRY_HAS_ROWS;
	return re->type == RAFT_COMMAND && (out->head.flags & ENTRY_TRIMMED);
}

/* A run of entries that fits a frame: those in memory, or if the first is not, those to be read.
 * None: the core does not hold them any more. */
static unsigned gather(struct consensus *c, const struct peer_out *p, struct raft_wire_entry *out,
	unsigned room, bool *cold)
{
	size_t bytes = 0;
	unsigned n = 0;
	*cold = false;
	for (uint64_t index = p->next; index <= p->last && n < room; index++) {
		const struct raft_entry *re = guard_entry(c->raft, index);
		if (!re)
			break;
		bool here = resolve(c, index, re, &out[n]);
		if (n == 0)
			*cold = !here;
		if (here == *cold ||
			(n > 0 && bytes + out[n].head.payload_bytes > RAFT_WIRE_PAYLOAD_MAX))
			break;
		bytes += out[n].head.payload_bytes;
		n++;
	}
	return n;
}

/* Those of n entries that are on the way from now on. */
static void put(
	struct consensus *c, struct peer_out *p, const struct raft_wire_entry *e, unsigned n)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; i < n; i++)
		bytes += (e[i].from ? e[i].head.payload_bytes : 0) + ENTRY_OVERHEAD;
	p->next += n;
	p->put_ms = loop_now_ms(c->env->loop);
	if (p->mark_bytes + p->more_bytes == 0) {
		p->mark = p->next - 1;
		p->mark_bytes = bytes;
	} else {
		p->more_bytes += bytes;
	}
}

static bool must_wait(const struct consensus *c, bool entries)
{
	return c->marks_pending > 0 || (entries && guard_voters(c->raft) == 1);
}

static bool usable(const struct consensus *c)
{
	const struct raft *r = c->raft;
	return r && !c->closing && !c->muted && c->net && r->state == RAFT_LEADER &&
		r->current_term == c->peers_term && !guard_wants_barrier(&c->guard);
}

static void wire_begin(const struct consensus *c, const struct peer_out *p, struct raft_wire *w)
{
	w->group = plog_group(c->log);
	w->from = c->replica;
	w->to = p->replica;
	w->clock_ms = 0;
	w->address = bytes_text(c->address);
	w->entries = NULL;
	w->frame = (struct slice){0};
	w->message.type = RAFT_IO_APPEND_ENTRIES;
	w->message.append_entries = (struct raft_append_entries){.term = c->raft->current_term};
}

static void append_leaves(
	struct consensus *c, struct peer_out *p, struct raft_wire *w, const char *address)
{
	struct raft_append_entries *a = &w->message.append_entries;
	uint64_t end = a->prev_log_index + a->n_entries;
	a->leader_commit = c->raft->commit_index < end ? c->raft->commit_index : end;
	if (a->leader_commit > p->commit_told)
		p->commit_told = a->leader_commit;
	p->due = false;
	frame_send(c, w, address, must_wait(c, a->n_entries > 0));
}

/* The first entries of the message that the read gave. */
static void cold_fill(struct cold *k)
{
	struct raft_append_entries *a = &k->wire.message.append_entries;
	int at = 0;
	for (unsigned i = 0; i < a->n_entries; i++) {
		struct raft_wire_entry *e = &k->wire.entries[i];
		while (at < k->read.count && k->read.entries[at]->index < k->first + i)
			at++;
		if (at == k->read.count || k->read.entries[at]->index != k->first + i ||
			k->read.entries[at]->head.term != e->head.term ||
			!entry_whole(k->read.entries[at])) {
			a->n_entries = i;
			return;
		}
		e->from = k->read.entries[at];
		e->head = e->from->head;
	}
}

static void cold_done(struct plog_read *r)
{
	struct cold *k = list_entry(r, struct cold, read);
	struct consensus *c = k->c;
	/* A read has ended for its peer also when nothing can leave now (muted): it waits for it.
	 */
	struct peer_out *p = c->peers_term == k->wire.message.append_entries.term
		? out_of(c, k->wire.to)
		: NULL;
	unsigned i = p ? server_at(c->raft, p->replica) : 0;
	bool wanted = p && usable(c) && p->reading && p->next == k->first &&
		i < c->raft->configuration.n;
	c->cold_count--;
	if (p)
		p->reading = false;
	if (wanted && r->err == OK)
		cold_fill(k);
	if (wanted && r->err == OK && k->wire.message.append_entries.n_entries > 0) {
		put(c, p, k->wire.entries, k->wire.message.append_entries.n_entries);
		append_leaves(c, p, &k->wire, c->raft->configuration.servers[i].address);
	} else if (wanted) {
		p->last = p->next - 1; /* the core asks again when the peer lacks them */
	}
	for (int n = 0; r->err == OK && n < r->count; n++)
		entry_unref(r->entries[n]);
	if (r->err == OK)
		mem_free(r->entries);
	mem_free(k->wire.entries);
	mem_free(k);
	if (p)
		out_want(c);
	consensus_let_go(c);
}

/* Takes w->entries. */
static void cold_send(struct consensus *c, struct peer_out *p, const struct raft_wire *w)
{
	struct cold *k = mem_new(sizeof *k);
	k->c = c;
	k->wire = *w;
	k->wire.address = bytes_text(c->address);
	k->first = p->next;
	k->read.log = c->log;
	k->read.hint_index = k->first;
	k->read.offset = -1; /* by index */
	k->read.end_offset = INT64_MAX;
	k->read.bytes_max = RAFT_WIRE_PAYLOAD_MAX;
	k->read.done = cold_done;
	p->reading = true;
	c->cold_count++;
	c->under_way++;
	plog_read(&k->read);
}

/* --- the end of a turn --- */

/* One frame of entries. False: nothing more can be put on the way now. */
static bool send_run(struct consensus *c, struct peer_out *p, const char *address)
{
	struct raft_wire w;
	struct raft_append_entries *a = &w.message.append_entries;
	uint64_t prev = p->next - 1, room = p->last - prev;
	if (room > RAFT_WIRE_ENTRIES_MAX)
		room = RAFT_WIRE_ENTRIES_MAX;
	bool cold = false;
	wire_begin(c, p, &w);
	a->prev_log_index = prev;
	a->prev_log_term = guard_term(c->raft, prev);
	w.entries = mem_new(room * sizeof *w.entries);
	a->n_entries = gather(c, p, w.entries, (unsigned)room, &cold);
	bool there = a->n_entries > 0 && (prev == 0 || a->prev_log_term != 0);
	if (there && cold) {
		cold_send(c, p, &w);
		return false;
	}
	if (there) {
		put(c, p, w.entries, a->n_entries);
		append_leaves(c, p, &w, address);
	} else {
		p->last = prev; /* forgotten meanwhile: the core finds out when the peer refuses */
	}
	mem_free(w.entries);
	return there;
}

static void send_empty(struct consensus *c, struct peer_out *p, const char *address)
{
	struct raft_wire w;
	struct raft_append_entries *a = &w.message.append_entries;
	wire_begin(c, p, &w);
	a->prev_log_index = p->next - 1;
	a->prev_log_term = guard_term(c->raft, a->prev_log_index);
	if (a->prev_log_index > 0 && a->prev_log_term == 0) {
		a->prev_log_index = plog_last_index(c->log);
		a->prev_log_term = guard_term(c->raft, a->prev_log_index);
	}
	append_leaves(c, p, &w, address);
}

static void send_mark(struct consensus *c, struct peer_out *p, const char *address)
{
	struct raft_wire w;
	struct raft_append_entries *a = &w.message.append_entries;
	wire_begin(c, p, &w);
	w.message.type = RAFT_WIRE_MARK;
	a->prev_log_index = a->leader_commit = c->raft->commit_index;
	a->prev_log_term = guard_term(c->raft, c->raft->commit_index);
	p->commit_told = c->raft->commit_index;
	if (a->prev_log_term != 0 && c->marks_pending == 0)
		frame_send(c, &w, address, false);
}

/* A peer that has much on its way needs no mark: what follows tells it, or the mark after its
 * acknowledgement. */
static bool wants_mark(const struct consensus *c, const struct peer_out *p, unsigned i)
{
	return p->commit_told < c->raft->commit_index &&
		p->mark_bytes + p->more_bytes < UNMARKED_BYTES && !p->absent &&
		c->raft->configuration.servers[i].role != RAFT_SPARE && p->heard_ms != 0 &&
		loop_now_ms(c->env->loop) - p->heard_ms < c->o.election_ms &&
		c->raft->leader_state.progress[i].state != GUARD_PEER_INSTALLING;
}

static void out_send(struct consensus *c, struct peer_out *p)
{
	unsigned i = server_at(c->raft, p->replica);
	if (i == c->raft->configuration.n)
		return;
	const char *address = c->raft->configuration.servers[i].address;
	/* The first entries of all leave in any case: a log that is empty says the same. */
	bool takes = !p->absent || p->next == 1;
	while (p->next <= p->last && takes && !p->reading && !p->rejected &&
		p->mark_bytes + p->more_bytes < WINDOW_BYTES && send_run(c, p, address))
		;
	if (p->due)
		send_empty(c, p, address);
	if (wants_mark(c, p, i))
		send_mark(c, p, address);
}

void out_turn(struct loop_hook *h)
{
	struct consensus *c = list_entry(h, struct consensus, out_hook);
	if (!usable(c))
		return;
	for (uint32_t i = 0; i < c->peer_count; i++)
		out_send(c, &c->peers[i]);
}
