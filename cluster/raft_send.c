/* How frames leave. Before a term or vote is durable nothing that depends on it may; a lone voter's
 * entries wait for its disk, since nobody else's copy makes them last. Whatever goes wrong drops
 * the message: Raft repeats it. */
#include "cluster/consensus_priv.h"

enum { HOLDS_MAX = 1024, HOLD_BYTES_MAX = 16 << 20 };

struct hold { /* a frame that waits for the disk */
	struct durable durable;
	struct consensus *c;
	uint64_t to;
	char *address;
	struct slice *parts;
	int count;
	size_t bytes;
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
void frame_send(struct consensus *c, const struct raft_wire *m, const char *address, bool wait)
{
	struct slice *parts, one;
	int count;
	if (!wait && raft_wire_encode_head(m, &one)) {
		c->net->send(c->net_arg, m->to, address, &one, 1);
		return;
	}
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

void raft_send(struct consensus *c, const struct raft_message *m)
{
	if (!c->net || m->server_id == 0 || !m->server_address || c->closing)
		return;
	if (m->type == RAFT_IO_APPEND_ENTRIES) {
		out_append(c, m);
		return;
	}
	struct raft_wire w = {
		.group = plog_group(c->log),
		.from = c->replica,
		.to = m->server_id,
		.address = bytes_text(c->address),
		.message = *m,
	};
	frame_send(c, &w, m->server_address, c->marks_pending > 0);
}
