/* How messages leave. Before a term or vote is durable nothing that depends on it may; a lone
 * voter's entries wait for its disk, since nobody else's copy makes them last. A frame holds at
 * most about a megabyte of payload: longer runs leave as several, each of which the peer answers.
 * Payloads that are not in memory are read by a worker; the message leaves after, if it still
 * makes sense. Whatever goes wrong drops the message: Raft repeats it. */
#include "cluster/consensus_priv.h"

enum { HOLDS_MAX = 1024, HOLD_BYTES_MAX = 16 << 20, COLD_MAX = 4 };

struct hold { /* a frame that waits for the disk */
	struct durable durable;
	struct consensus *c;
	uint64_t to;
	char *address;
	struct slice *parts;
	int count;
	size_t bytes;
};

struct cold { /* an AppendEntries that waits for payloads */
	struct plog_read read;
	struct consensus *c;
	struct raft_wire wire;
	char *to_address;
	uint64_t first;
};

static void parts_free(struct slice *parts, int count)
{
	for (int i = 0; i < count; i++)
		slice_unref(&parts[i]);
	mem_free(parts);
}

static void hold_done(struct durable *d)
{
	struct hold *h = list_entry(d, struct hold, durable);
	struct consensus *c = h->c;
	c->hold_count--;
	c->hold_bytes -= h->bytes;
	if (c->phase != PHASE_DOWN && !c->closing) {
		c->net->send(c->net_arg, h->to, h->address, h->parts, h->count);
		mem_free(h->parts);
	} else {
		parts_free(h->parts, h->count);
	}
	mem_free(h->address);
	mem_free(h);
	consensus_let_go(c);
}

static size_t parts_bytes(const struct slice *parts, int count)
{
	size_t n = 0;
	for (int i = 0; i < count; i++)
		n += parts[i].bytes.len;
	return n;
}

/* Encodes m and sends it, now or when what is staged is durable. */
static void frame_send(
	struct consensus *c, const struct raft_wire *m, const char *address, bool wait)
{
	struct slice *parts;
	int count;
	if (raft_wire_encode(m, &parts, &count) != OK)
		return;
	if (!wait) {
		c->net->send(c->net_arg, m->to, address, parts, count);
		mem_free(parts);
		return;
	}
	size_t bytes = parts_bytes(parts, count);
	if (c->hold_count >= HOLDS_MAX || c->hold_bytes + bytes > HOLD_BYTES_MAX) {
		parts_free(parts, count);
		return;
	}
	struct hold *h = mem_new(sizeof *h);
	*h = (struct hold){.c = c, .to = m->to, .parts = parts, .count = count, .bytes = bytes};
	h->address = mem_text(address, strlen(address));
	h->durable.done = hold_done;
	c->hold_count++;
	c->hold_bytes += bytes;
	c->under_way++;
	lane_when_durable(c->env->lane, &h->durable);
}

static bool must_wait(const struct consensus *c, const struct raft_message *m)
{
	if (c->marks_pending > 0)
		return true;
	return m->type == RAFT_IO_APPEND_ENTRIES && m->append_entries.n_entries > 0 &&
		guard_voters(c->raft) == 1;
}

static void cold_free(struct cold *k)
{
	mem_free(k->wire.entries);
	mem_free(k->to_address);
	mem_free(k);
}

/* The first entries of the message that the read gave; false: not even one. */
static bool cold_fill(struct cold *k)
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
			break;
		}
		e->from = k->read.entries[at];
		e->head = e->from->head;
	}
	if (a->leader_commit > a->prev_log_index + a->n_entries)
		a->leader_commit = a->prev_log_index + a->n_entries;
	return a->n_entries > 0;
}

static void cold_done(struct plog_read *r)
{
	struct cold *k = list_entry(r, struct cold, read);
	struct consensus *c = k->c;
	c->cold_count--;
	if (r->err == OK && c->raft && !c->closing && !c->muted && c->raft->state == RAFT_LEADER &&
		c->raft->current_term == k->wire.message.append_entries.term && cold_fill(k))
		frame_send(c, &k->wire, k->to_address, must_wait(c, &k->wire.message));
	for (int i = 0; r->err == OK && i < r->count; i++)
		entry_unref(r->entries[i]);
	if (r->err == OK)
		mem_free(r->entries);
	cold_free(k);
	consensus_let_go(c);
}

/* Takes m->entries. */
static void cold_send(struct consensus *c, const struct raft_wire *m, const char *address)
{
	const struct raft_append_entries *a = &m->message.append_entries;
	if (c->cold_count >= COLD_MAX || a->n_entries == 0) {
		mem_free(m->entries);
		return;
	}
	struct cold *k = mem_new(sizeof *k);
	k->c = c;
	k->wire = *m;
	k->to_address = mem_text(address, strlen(address));
	k->first = a->prev_log_index + 1;
	k->read.log = c->log;
	k->read.hint_index = k->first;
	k->read.offset = -1; /* by index */
	k->read.end_offset = INT64_MAX;
	k->read.bytes_max = RAFT_WIRE_PAYLOAD_MAX;
	k->read.done = cold_done;
	c->cold_count++;
	c->under_way++;
	plog_read(&k->read);
}

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

/* A run of entries that fits a frame: those in memory, or if the first is not, those to be read. */
static unsigned run_gather(struct consensus *c, const struct raft_append_entries *a, unsigned from,
	struct raft_wire_entry *out, bool *cold)
{
	size_t bytes = 0;
	unsigned n = 0;
	*cold = false;
	for (unsigned i = from; i < a->n_entries && n < RAFT_WIRE_ENTRIES_MAX; i++) {
		bool here = resolve(c, a->prev_log_index + 1 + i, &a->entries[i], &out[n]);
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

static void append_send(struct consensus *c, const struct raft_wire *envelope, const char *address)
{
	const struct raft_append_entries *a = &envelope->message.append_entries;
	bool wait = must_wait(c, &envelope->message);
	for (unsigned from = 0; from == 0 || from < a->n_entries;) {
		struct raft_wire m = *envelope;
		struct raft_append_entries *part = &m.message.append_entries;
		unsigned room = a->n_entries - from;
		if (room > RAFT_WIRE_ENTRIES_MAX)
			room = RAFT_WIRE_ENTRIES_MAX;
		bool cold = false;
		m.entries = room ? mem_new(room * sizeof *m.entries) : NULL;
		part->n_entries = room ? run_gather(c, a, from, m.entries, &cold) : 0;
		part->prev_log_index = a->prev_log_index + from;
		if (from > 0)
			part->prev_log_term = a->entries[from - 1].term;
		if (part->leader_commit > part->prev_log_index + part->n_entries)
			part->leader_commit = part->prev_log_index + part->n_entries;
		from += part->n_entries;
		if (cold) {
			cold_send(c, &m, address);
			return; /* the rest would be refused before this arrives */
		}
		frame_send(c, &m, address, wait);
		mem_free(m.entries);
		if (room == 0)
			return;
	}
}

void raft_send(struct consensus *c, const struct raft_message *m)
{
	if (!c->net || m->server_id == 0 || !m->server_address || c->closing)
		return;
	if (c->muted && m->type == RAFT_IO_APPEND_ENTRIES)
		return;
	struct raft_wire w = {
		.group = plog_group(c->log),
		.from = c->replica,
		.to = m->server_id,
		.address = bytes_text(c->address),
		.message = *m,
	};
	if (m->type == RAFT_IO_APPEND_ENTRIES)
		append_send(c, &w, m->server_address);
	else
		frame_send(c, &w, m->server_address, must_wait(c, m));
}
