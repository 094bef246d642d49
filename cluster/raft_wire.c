/* One pass over a struct wr for the head of a frame, whose size is known beforehand; payloads
 * follow it by reference. The reader takes nothing on trust: a message that comes out of it may be
 * handed to the core, which checks no bytes at all. */
#include "cluster/raft_wire.h"
#include "server/base/crc32c.h"
#include "server/base/mem.h"

enum {
	ENVELOPE_BYTES = 38,
	APPEND_BYTES = 36,
	ENTRY_BYTES = 48, /* without origin */
	CONFIG_MEMBER_BYTES_MIN = 10
};

/* Terms that leave room for more to come. */
static uint64_t term_read(struct rd *r)
{
	uint64_t term = rd_u64be(r);
	if (term == 0 || term > UINT64_MAX / 2)
		rd_fail(r, ERR_MALFORMED);
	return term;
}

/* An entry's header in AppendEntries:
 *	0  8 term              20 8 hybrid clock
 *	8  1 kind, 1 flags     28 8 greatest timestamp so far
 *	10 2 0                 36 4 payload bytes in this frame
 *	12 8 base offset       40 4 CRC-32C of the payload
 *	                       44 4 count
 *	48 20 origin, when flagged: cluster 8, partition 4, offset 8 */
static void entry_write(struct wr *w, const struct raft_wire_entry *e)
{
	const struct entry_header *h = &e->head;
	wr_u64be(w, h->term);
	wr_u8(w, (uint8_t)h->kind);
	wr_u8(w, h->flags);
	wr_u16be(w, 0);
	wr_u64be(w, (uint64_t)h->base_offset);
	wr_u64be(w, (uint64_t)h->hlc);
	wr_u64be(w, (uint64_t)h->max_ms);
	wr_u32be(w, e->from ? h->payload_bytes : 0);
	wr_u32be(w, e->from ? h->payload_crc : 0);
	wr_u32be(w, h->count);
	if (!(h->flags & ENTRY_HAS_ORIGIN))
		return;
	wr_u64be(w, h->origin.cluster);
	wr_u32be(w, h->origin.partition);
	wr_u64be(w, (uint64_t)h->origin.offset);
}

static void entry_read(struct rd *r, struct entry_header *h)
{
	h->term = rd_u64be(r);
	uint8_t kind = rd_u8(r);
	h->flags = rd_u8(r);
	if (kind < ENTRY_DATA || kind > ENTRY_CONFIG || rd_u16be(r) != 0)
		rd_fail(r, ERR_MALFORMED);
	h->kind = (enum entry_kind)kind;
	h->base_offset = (int64_t)rd_u64be(r);
	h->hlc = (int64_t)rd_u64be(r);
	h->max_ms = (int64_t)rd_u64be(r);
	h->payload_bytes = rd_u32be(r);
	h->payload_crc = rd_u32be(r);
	h->count = rd_u32be(r);
	if (h->flags & ENTRY_HAS_ORIGIN) {
		h->origin.cluster = rd_u64be(r);
		h->origin.partition = rd_u32be(r);
		h->origin.offset = (int64_t)rd_u64be(r);
	}
	if (h->flags & ~(ENTRY_HAS_ROWS | ENTRY_HAS_ORIGIN | ENTRY_TRIMMED))
		rd_fail(r, ERR_MALFORMED);
	if (h->payload_bytes > RAFT_WIRE_ENTRY_BYTES_MAX || h->term == 0)
		rd_fail(r, ERR_MALFORMED);
	if (h->base_offset < 0 || h->base_offset > INT64_MAX - (int64_t)UINT32_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (kind != ENTRY_DATA && h->count != 0)
		rd_fail(r, ERR_MALFORMED);
	if (kind == ENTRY_BARRIER && h->payload_bytes != 0)
		rd_fail(r, ERR_MALFORMED);
	if (kind == ENTRY_CONFIG && h->payload_bytes > RAFT_WIRE_CONFIG_BYTES_MAX)
		rd_fail(r, ERR_MALFORMED);
	if ((h->flags & ENTRY_TRIMMED) && (kind != ENTRY_DATA || h->payload_bytes != 0))
		rd_fail(r, ERR_MALFORMED);
}

/* AppendEntries: term 8, previous index 8, previous term 8, commit 8, count 4; the headers; then
 * the payloads one after another. */
static void append_write(struct wr *w, const struct raft_wire *m)
{
	const struct raft_append_entries *a = &m->message.append_entries;
	wr_u64be(w, a->term);
	wr_u64be(w, a->prev_log_index);
	wr_u64be(w, a->prev_log_term);
	wr_u64be(w, a->leader_commit);
	wr_u32be(w, a->n_entries);
	for (unsigned i = 0; i < a->n_entries; i++)
		entry_write(w, &m->entries[i]);
}

static enum err payloads_read(struct rd *r, struct raft_wire *m)
{
	unsigned n = m->message.append_entries.n_entries;
	for (unsigned i = 0; i < n; i++) {
		struct raft_wire_entry *e = &m->entries[i];
		struct bytes b = rd_take(r, e->head.payload_bytes);
		if (r->err != OK)
			return r->err;
		if (b.len > 0 && crc32c(b) != e->head.payload_crc)
			return ERR_CORRUPT;
		e->payload = slice_of(m->frame.chunk, b);
		struct raft_configuration c;
		if (e->head.kind != ENTRY_CONFIG)
			continue;
		if (raft_config_decode(b, &c) != OK)
			return ERR_MALFORMED;
		raft_configuration_close(&c);
	}
	return OK;
}

static enum err append_read(struct rd *r, struct raft_wire *m)
{
	struct raft_append_entries *a = &m->message.append_entries;
	a->term = term_read(r);
	a->prev_log_index = rd_u64be(r);
	a->prev_log_term = rd_u64be(r);
	a->leader_commit = rd_u64be(r);
	uint32_t n = rd_count(r, rd_u32be(r), ENTRY_BYTES);
	if (r->err != OK || n > RAFT_WIRE_ENTRIES_MAX)
		return ERR_MALFORMED;
	if ((a->prev_log_index == 0) != (a->prev_log_term == 0) || a->prev_log_term > a->term ||
		a->prev_log_index > UINT64_MAX / 2)
		return ERR_MALFORMED;
	m->entries = n ? mem_try(n * sizeof *m->entries) : NULL;
	if (n && !m->entries)
		return ERR_NOMEM;
	if (n)
		memset(m->entries, 0, n * sizeof *m->entries);
	a->n_entries = n;
	for (uint32_t i = 0; i < n && r->err == OK; i++) {
		struct entry_header *h = &m->entries[i].head;
		const struct entry_header *before = i ? &m->entries[i - 1].head : NULL;
		entry_read(r, h);
		/* base(i) = base(i-1) + count(i-1), and terms never fall along a log. */
		if (before &&
			(h->base_offset != entry_next_offset(before) || h->term < before->term))
			rd_fail(r, ERR_MALFORMED);
		if (h->term > a->term || h->term < a->prev_log_term)
			rd_fail(r, ERR_MALFORMED);
	}
	return r->err != OK ? r->err : payloads_read(r, m);
}

/* InstallSnapshot: term 8, last index 8, last term 8, index of the configuration 8, its length 4
 * and bytes, length of the data 4 and bytes. */
static void install_write(
	struct wr *w, const struct raft_install_snapshot *i, const struct raft_buffer *config)
{
	wr_u64be(w, i->term);
	wr_u64be(w, i->last_index);
	wr_u64be(w, i->last_term);
	wr_u64be(w, i->conf_index);
	wr_u32be(w, (uint32_t)config->len);
	wr_bytes(w, bytes_of(config->base, config->len));
	wr_u32be(w, (uint32_t)i->data.len);
	wr_bytes(w, bytes_of(i->data.base, i->data.len));
}

static enum err install_read(struct rd *r, struct raft_wire *m)
{
	struct raft_install_snapshot *i = &m->message.install_snapshot;
	i->term = term_read(r);
	i->last_index = rd_u64be(r);
	i->last_term = rd_u64be(r);
	i->conf_index = rd_u64be(r);
	struct bytes config = rd_take(r, rd_count(r, rd_u32be(r), 1));
	struct bytes data = rd_take(r, rd_count(r, rd_u32be(r), 1));
	if (r->err != OK || i->last_index == 0 || i->last_term == 0 || i->last_term > i->term ||
		i->conf_index == 0 || i->conf_index > i->last_index || data.len != 8)
		return ERR_MALFORMED;
	if (raft_config_decode(config, &i->conf) != OK)
		return ERR_MALFORMED;
	i->data.len = data.len;
	i->data.base = raft_malloc(data.len);
	memcpy(i->data.base, data.at, data.len);
	return OK;
}

/* A mark: the leader's term 8, index 8 and term 8 of the entry. */
static void mark_read(struct rd *r, struct raft_append_entries *a)
{
	a->term = term_read(r);
	a->prev_log_index = a->leader_commit = rd_u64be(r);
	a->prev_log_term = rd_u64be(r);
	if (a->prev_log_term == 0 || a->prev_log_term > a->term || a->prev_log_index == 0 ||
		a->prev_log_index > UINT64_MAX / 2)
		rd_fail(r, ERR_MALFORMED);
}

static void small_write(struct wr *w, const struct raft_message *m)
{
	switch (m->type) {
	case RAFT_WIRE_MARK:
		wr_u64be(w, m->append_entries.term);
		wr_u64be(w, m->append_entries.prev_log_index);
		wr_u64be(w, m->append_entries.prev_log_term);
		break;
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		wr_u64be(w, m->append_entries_result.term);
		wr_u64be(w, m->append_entries_result.rejected);
		wr_u64be(w, m->append_entries_result.last_log_index);
		break;
	case RAFT_IO_REQUEST_VOTE:
		wr_u64be(w, m->request_vote.term);
		wr_u64be(w, m->request_vote.candidate_id);
		wr_u64be(w, m->request_vote.last_log_index);
		wr_u64be(w, m->request_vote.last_log_term);
		wr_u8(w, m->request_vote.disrupt_leader);
		wr_u8(w, m->request_vote.pre_vote);
		break;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		wr_u64be(w, m->request_vote_result.term);
		wr_u8(w, m->request_vote_result.vote_granted);
		wr_u8(w, (uint8_t)m->request_vote_result.pre_vote);
		break;
	default:
		wr_u64be(w, m->timeout_now.term);
		wr_u64be(w, m->timeout_now.last_log_index);
		wr_u64be(w, m->timeout_now.last_log_term);
		break;
	}
}

static bool flag_read(struct rd *r)
{
	uint8_t v = rd_u8(r);
	if (v > 1)
		rd_fail(r, ERR_MALFORMED);
	return v == 1;
}

static void small_read(struct rd *r, struct raft_wire *w)
{
	struct raft_message *m = &w->message;
	uint64_t term = term_read(r);
	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		m->append_entries_result.term = term;
		m->append_entries_result.rejected = rd_u64be(r);
		m->append_entries_result.last_log_index = rd_u64be(r);
		if (m->append_entries_result.last_log_index > UINT64_MAX / 2)
			rd_fail(r, ERR_MALFORMED);
		break;
	case RAFT_IO_REQUEST_VOTE:
		m->request_vote.term = term;
		m->request_vote.candidate_id = rd_u64be(r);
		m->request_vote.last_log_index = rd_u64be(r);
		m->request_vote.last_log_term = rd_u64be(r);
		m->request_vote.disrupt_leader = flag_read(r);
		m->request_vote.pre_vote = flag_read(r);
		if (m->request_vote.candidate_id != w->from)
			rd_fail(r, ERR_MALFORMED);
		break;
	case RAFT_IO_REQUEST_VOTE_RESULT: {
		m->request_vote_result.term = term;
		m->request_vote_result.vote_granted = flag_read(r);
		uint8_t pre = rd_u8(r);
		if (pre > raft_tribool_false)
			rd_fail(r, ERR_MALFORMED);
		m->request_vote_result.pre_vote = (raft_tribool)pre;
		break;
	}
	default:
		m->timeout_now.term = term;
		m->timeout_now.last_log_index = rd_u64be(r);
		m->timeout_now.last_log_term = rd_u64be(r);
		break;
	}
}

static size_t head_bytes(const struct raft_wire *m, const struct raft_buffer *config)
{
	size_t n = ENVELOPE_BYTES + m->address.len;
	if (m->message.type == RAFT_IO_INSTALL_SNAPSHOT)
		return n + 40 + config->len + m->message.install_snapshot.data.len;
	if (m->message.type != RAFT_IO_APPEND_ENTRIES)
		return n + 40;
	n += APPEND_BYTES + m->message.append_entries.n_entries * (size_t)ENTRY_BYTES;
	for (unsigned i = 0; i < m->message.append_entries.n_entries; i++)
		if (m->entries[i].head.flags & ENTRY_HAS_ORIGIN)
			n += ENTRY_ORIGIN_BYTES;
	return n;
}

static enum err head_encode(const struct raft_wire *m, struct slice *out)
{
	struct raft_buffer config = {NULL, 0};
	bool install = m->message.type == RAFT_IO_INSTALL_SNAPSHOT;
	if (install && raft_configuration_encode(&m->message.install_snapshot.conf, &config) != 0)
		return ERR_NOMEM;
	enum err e = ERR_TOOBIG;
	if (m->address.len > RAFT_WIRE_ADDRESS_MAX || config.len > RAFT_WIRE_CONFIG_BYTES_MAX)
		goto free_config;
	size_t size = head_bytes(m, &config);
	struct chunk *c = chunk_try(size);
	e = ERR_NOMEM;
	if (!c)
		goto free_config;
	struct wr w = wr_over(c->data, size);
	wr_u8(&w, RAFT_WIRE_VERSION);
	wr_u8(&w, (uint8_t)m->message.type);
	wr_u16be(&w, 0);
	wr_u64be(&w, m->group);
	wr_u64be(&w, m->from);
	wr_u64be(&w, m->to);
	wr_u64be(&w, m->clock_ms);
	wr_u16be(&w, (uint16_t)m->address.len);
	wr_bytes(&w, m->address);
	if (install)
		install_write(&w, &m->message.install_snapshot, &config);
	else if (m->message.type == RAFT_IO_APPEND_ENTRIES)
		append_write(&w, m);
	else
		small_write(&w, &m->message);
	must(w.err == OK);
	*out = slice_of(c, bytes_of(c->data, wr_len(&w)));
	chunk_unref(c);
	e = OK;
free_config:
	raft_free(config.base);
	return e;
}

enum err raft_wire_encode(const struct raft_wire *m, struct slice **parts, int *count)
{
	unsigned n = m->message.type == RAFT_IO_APPEND_ENTRIES ? m->message.append_entries.n_entries
							       : 0;
	size_t total = 1;
	for (unsigned i = 0; i < n; i++)
		total += m->entries[i].from ? m->entries[i].from->part_count : 0;
	struct slice *out = mem_try(total * sizeof *out);
	if (!out)
		return ERR_NOMEM;
	enum err e = head_encode(m, &out[0]);
	if (e != OK) {
		mem_free(out);
		return e;
	}
	int at = 1;
	for (unsigned i = 0; i < n; i++)
		for (uint32_t k = 0; m->entries[i].from && k < m->entries[i].from->part_count; k++)
			out[at++] = slice_ref(m->entries[i].from->parts[k]);
	*parts = out;
	*count = at;
	return OK;
}

bool raft_wire_encode_head(const struct raft_wire *m, struct slice *out)
{
	if (m->message.type == RAFT_IO_APPEND_ENTRIES)
		for (unsigned i = 0; i < m->message.append_entries.n_entries; i++)
			if (m->entries[i].from)
				return false;
	return head_encode(m, out) == OK;
}

static enum err body_read(struct rd *r, struct raft_wire *m)
{
	if (m->message.type == RAFT_IO_APPEND_ENTRIES)
		return append_read(r, m);
	if (m->message.type == RAFT_IO_INSTALL_SNAPSHOT)
		return install_read(r, m);
	if (m->message.type == RAFT_WIRE_MARK)
		mark_read(r, &m->message.append_entries);
	else
		small_read(r, m);
	return r->err;
}

enum err raft_wire_decode(struct slice frame, struct raft_wire *out)
{
	memset(out, 0, sizeof *out);
	struct rd r = rd_over(frame.bytes);
	uint8_t version = rd_u8(&r);
	if (r.err == OK && version != RAFT_WIRE_VERSION)
		return ERR_UNSUPPORTED;
	out->message.type = rd_u8(&r);
	if ((out->message.type < RAFT_IO_APPEND_ENTRIES ||
		    out->message.type > RAFT_IO_TIMEOUT_NOW) &&
		out->message.type != RAFT_WIRE_MARK)
		return ERR_MALFORMED;
	if (rd_u16be(&r) != 0)
		return ERR_MALFORMED;
	out->group = rd_u64be(&r);
	out->from = rd_u64be(&r);
	out->to = rd_u64be(&r);
	out->clock_ms = rd_u64be(&r);
	uint16_t len = rd_u16be(&r);
	out->address = rd_take(&r, len);
	if (r.err != OK || out->from == 0 || len == 0 || len > RAFT_WIRE_ADDRESS_MAX ||
		memchr(out->address.at, 0, len))
		return ERR_MALFORMED;
	out->frame = slice_ref(frame);
	enum err e = body_read(&r, out);
	if (e == OK)
		e = rd_done(&r);
	if (e != OK)
		raft_wire_fini(out);
	return e;
}

void raft_wire_fini(struct raft_wire *m)
{
	if (m->message.type == RAFT_IO_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->message.install_snapshot.conf);
		raft_free(m->message.install_snapshot.data.base);
	}
	for (unsigned i = 0; m->entries && i < m->message.append_entries.n_entries; i++)
		slice_unref(&m->entries[i].payload);
	mem_free(m->entries);
	slice_unref(&m->frame);
	memset(m, 0, sizeof *m);
}

/* Version 1, count u64le; each server: id u64le, address with its NUL, role; padded to 8. */
enum err raft_config_decode(struct bytes in, struct raft_configuration *out)
{
	raft_configuration_init(out);
	struct rd r = rd_over(in);
	uint8_t version = rd_u8(&r);
	uint64_t n = rd_u64le(&r);
	if (r.err != OK || version != 1 || n == 0 || n > RAFT_WIRE_MEMBERS_MAX)
		return ERR_MALFORMED;
	(void)rd_count(&r, (uint32_t)n, CONFIG_MEMBER_BYTES_MIN);
	for (uint64_t i = 0; i < n && r.err == OK; i++) {
		uint64_t id = rd_u64le(&r);
		const uint8_t *nul = rd_left(&r) ? memchr(r.at, 0, rd_left(&r)) : NULL;
		struct bytes address = rd_take(&r, nul ? (size_t)(nul - r.at) : SIZE_MAX);
		rd_skip(&r, 1);
		uint8_t role = rd_u8(&r);
		if (r.err != OK || id == 0 || address.len == 0 ||
			address.len > RAFT_WIRE_ADDRESS_MAX || role > RAFT_SPARE ||
			raft_configuration_add(out, id, (const char *)address.at, role) != 0)
			rd_fail(&r, ERR_MALFORMED);
	}
	if (rd_left(&r) >= 8)
		rd_fail(&r, ERR_MALFORMED);
	while (r.err == OK && rd_left(&r) > 0)
		if (rd_u8(&r) != 0)
			rd_fail(&r, ERR_MALFORMED);
	if (r.err == OK)
		return OK;
	raft_configuration_close(out);
	raft_configuration_init(out);
	return ERR_MALFORMED;
}

void raft_config_copy(const struct raft_configuration *from, struct raft_configuration *to)
{
	raft_configuration_init(to);
	for (unsigned i = 0; i < from->n; i++) {
		const struct raft_server *s = &from->servers[i];
		must(raft_configuration_add(to, s->id, s->address, s->role) == 0);
	}
}
