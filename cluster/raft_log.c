/* How an instance of the core begins and ends. It begins with a snapshot that is only made up: the
 * point up to which rows reflect the log, and the short tail of entries above (with some below, so
 * that a peer that is a little behind need not fetch everything). It ends by closing the core and
 * then telling it the end of whatever it still waits for, so that it frees what it had lent; what
 * the disk still has to do for it goes on without it. */
#include "cluster/consensus_priv.h"
#include "server/base/log.h"
#include "storage/keys.h"

void snapshot_meta_fini(struct snapshot_meta *m)
{
	raft_configuration_close(&m->config);
	*m = (struct snapshot_meta){0};
}

struct raft_stub stub_of(const struct entry_header *h)
{
	return (struct raft_stub){
		.magic = RAFT_STUB_MAGIC,
		.kind = (uint8_t)h->kind,
		.flags = h->flags,
		.count = h->count,
		.payload_bytes = h->payload_bytes,
		.payload_crc = h->payload_crc,
		.base_offset = h->base_offset,
		.hlc = h->hlc,
		.max_ms = h->max_ms,
	};
}

bool stub_read(const struct raft_buffer *b, struct raft_stub *out)
{
	if (b->len != sizeof *out)
		return false;
	memcpy(out, b->base, sizeof *out);
	return out->magic == RAFT_STUB_MAGIC;
}

/* What raft's memory knows of an entry. A configuration's and a barrier's offset are not among it:
 * they are 0 here. */
void stub_head(const struct raft_entry *re, struct entry_header *out)
{
	struct raft_stub s;
	*out = (struct entry_header){.term = re->term, .kind = ENTRY_CONFIG, .max_ms = -1};
	if (re->type == RAFT_CHANGE)
		return;
	out->kind = ENTRY_BARRIER;
	if (!stub_read(&re->buf, &s)) /* a barrier made by this leader */
		return;
	out->kind = (enum entry_kind)s.kind;
	out->flags = s.flags &
		(uint8_t)~ENTRY_HAS_ORIGIN; /* the origin itself is not in the stub */
	out->count = s.count;
	out->payload_bytes = s.payload_bytes;
	out->payload_crc = s.payload_crc;
	out->base_offset = s.base_offset;
	out->hlc = s.hlc;
	out->max_ms = s.max_ms;
}

struct slice entry_join(const struct entry *e)
{
	if (e->part_count == 1)
		return slice_ref(e->parts[0]);
	struct chunk *all = chunk_try(e->head.payload_bytes);
	must(all != NULL);
	size_t at = 0;
	for (uint32_t i = 0; i < e->part_count; i++) {
		memcpy(all->data + at, e->parts[i].bytes.at, e->parts[i].bytes.len);
		at += e->parts[i].bytes.len;
	}
	struct slice s = slice_of(all, bytes_of(all->data, at));
	chunk_unref(all);
	return s;
}

/* --- reading what load needs, from memory or the store --- */

static enum err config_read(struct consensus *c, uint64_t index, struct slice *out)
{
	const struct plog_marks *m = plog_marks(c->log);
	if (m->config_index == index && m->config.bytes.len > 0) {
		*out = slice_ref(m->config);
		return OK;
	}
	struct entry_key k = key_entry(plog_group(c->log), index);
	enum err e = ERR_NOTFOUND;
	for (int f = FAMILY_LOG_HOURS; f < FAMILY_COUNT && e == ERR_NOTFOUND; f++)
		e = store_get(c->env->store, NULL, (enum store_family)f, KEY_BYTES(k), out);
	return e;
}

static enum err head_read(
	struct consensus *c, uint64_t index, struct entry_header *h, struct slice *config)
{
	struct entry *cached = plog_cached(c->log, index);
	*config = (struct slice){0};
	if (cached) {
		*h = cached->head;
		if (h->kind == ENTRY_CONFIG)
			*config = entry_join(cached);
		return OK;
	}
	const struct entry_header *known = plog_header(c->log, index);
	if (known) {
		*h = *known;
		return h->kind == ENTRY_CONFIG ? config_read(c, index, config) : OK;
	}
	struct entry_key k = key_entry(plog_group(c->log), index);
	struct slice row;
	enum err e = store_get(c->env->store, NULL, FAMILY_IDX, KEY_BYTES(k), &row);
	if (e != OK)
		return e;
	e = entry_header_decode(row.bytes, h);
	slice_unref(&row);
	if (e == OK && h->kind == ENTRY_CONFIG)
		e = config_read(c, index, config);
	return e;
}

static enum err load_entry(
	struct consensus *c, uint64_t index, struct raft_entry *re, struct entry_header *h)
{
	struct slice config;
	enum err e = head_read(c, index, h, &config);
	if (e != OK)
		return e;
	*re = (struct raft_entry){.term = h->term};
	if (h->kind != ENTRY_CONFIG) {
		struct raft_stub s = stub_of(h);
		re->type = h->kind == ENTRY_BARRIER ? RAFT_BARRIER : RAFT_COMMAND;
		re->buf.len = sizeof s;
		re->buf.base = raft_malloc(sizeof s);
		memcpy(re->buf.base, &s, sizeof s);
		return OK;
	}
	struct raft_configuration conf;
	e = raft_config_decode(config.bytes, &conf);
	if (e == OK) {
		raft_configuration_close(&conf);
		re->type = RAFT_CHANGE;
		re->buf.len = config.bytes.len;
		re->buf.base = raft_malloc(config.bytes.len);
		memcpy(re->buf.base, config.bytes.at, config.bytes.len);
		if (index > c->applied)
			guard_change_added(&c->guard, index);
	}
	slice_unref(&config);
	return e == OK ? OK : ERR_CORRUPT;
}

static struct raft_snapshot *snapshot_made(const struct snapshot_meta *m)
{
	struct raft_snapshot *s = raft_calloc(1, sizeof *s);
	s->index = m->index;
	s->term = m->term;
	s->configuration_index = m->config_index;
	raft_config_copy(&m->config, &s->configuration);
	s->bufs = raft_malloc(sizeof *s->bufs);
	s->n_bufs = 1;
	s->bufs[0].len = 8;
	s->bufs[0].base = raft_calloc(1, 8);
	return s;
}

/* The first index to load: with peers, some entries below the snapshot as far as they are there. */
static uint64_t load_from(const struct consensus *c)
{
	uint64_t base = c->applied, trailing = (uint64_t)c->o.snapshot_trailing;
	uint64_t first = plog_marks(c->log)->first_index;
	if (base == 0)
		return 1;
	if (c->snapshot.config.n < 2 || base <= first)
		return base + 1;
	uint64_t from = base + 1 > trailing ? base + 1 - trailing : 1;
	if (c->pins > 0 && c->pin_index < from)
		from = c->pin_index + 1;
	if (from < first)
		from = first;
	return from < 1 ? 1 : from;
}

static enum err load_snapshot(struct consensus *c)
{
	const struct plog_marks *m = plog_marks(c->log);
	snapshot_meta_fini(&c->snapshot);
	if (c->applied == 0)
		return OK;
	if (raft_config_decode(m->config.bytes, &c->snapshot.config) != OK)
		return ERR_CORRUPT;
	c->snapshot.index = c->applied;
	c->snapshot.term = c->applied_term;
	c->snapshot.config_index = m->config_index < c->applied ? m->config_index : c->applied;
	return OK;
}

static void drop_entries(struct raft_entry *entries, size_t *n)
{
	while (*n > 0)
		raft_free(entries[--*n].buf.base);
}

/* Entries from *from to the end of the log. Below the snapshot one that is not there (trimmed) only
 * moves the start up; so does one that was compacted here, for it must not be sent: Raft may have
 * kept fewer entries in its last life than it would now. */
static enum err load_entries(
	struct consensus *c, uint64_t *from, struct raft_entry *entries, size_t *n)
{
	uint64_t last = plog_last_index(c->log);
	struct entry_header h = {0};
	*n = 0;
	for (uint64_t i = *from; i <= last; i++) {
		enum err e = load_entry(c, i, &entries[*n], &h);
		if (e != OK && i <= c->applied) {
			drop_entries(entries, n);
			*from = i + 1;
			continue;
		}
		if (e != OK)
			return e;
		(*n)++;
		if (i == c->applied && h.term != c->applied_term)
			return ERR_CORRUPT;
		if (h.flags & ENTRY_COMPACTED) {
			drop_entries(entries, n);
			*from = i + 1;
		}
		if (i == c->applied || (i == c->applied + 1 && c->applied > 0))
			c->applied_next_offset = i == c->applied ? entry_next_offset(&h)
								 : h.base_offset;
	}
	if (c->applied == last)
		c->applied_next_offset = plog_next_offset(c->log);
	return OK;
}

int raft_log_load(struct consensus *c, struct raft_snapshot **snapshot, raft_index *start_index,
	struct raft_entry **entries, size_t *n)
{
	uint64_t last = plog_last_index(c->log);
	if (last < c->applied || load_snapshot(c) != OK)
		return RAFT_CORRUPT;
	uint64_t from = load_from(c);
	struct raft_entry *all = last >= from ? raft_calloc(last - from + 1, sizeof *all) : NULL;
	enum err e = load_entries(c, &from, all, n);
	if (e != OK || (c->applied == 0 && *n > 0 && all[0].type != RAFT_CHANGE)) {
		LOG(LOG_ERROR, AREA_CLUSTER, "log_unreadable", "group=%llu err=%s",
			(unsigned long long)plog_group(c->log), err_text(e));
		while (*n > 0)
			raft_free(all[--*n].buf.base);
		raft_free(all);
		return RAFT_CORRUPT;
	}
	if (*n == 0) {
		raft_free(all);
		all = NULL;
	}
	c->snapshot.next_offset = c->applied_next_offset;
	*snapshot = c->snapshot.index ? snapshot_made(&c->snapshot) : NULL;
	*start_index = from;
	*entries = all;
	return 0;
}

/* --- beginning and end --- */

static void instance_free(struct raft *r)
{
	(void)r; /* instance_drop does, after the callback */
}

enum err instance_start(struct consensus *c, uint64_t base)
{
	const struct plog_marks *m = plog_marks(c->log);
	if (base != c->applied || c->applied_term == 0) {
		c->applied = base;
		c->applied_term = m->applied_term;
	}
	c->applied_next_offset = base == 0 ? 0 : plog_next_offset(c->log);
	raft_io_setup(c);
	c->raft = mem_new(sizeof *c->raft);
	c->guard.raft = c->raft;
	c->guard.off = c->o.guard_off;
	c->guard.lost_leader = 0;
	c->fault = NULL;
	must(raft_init(c->raft, &c->io, &c->raft_fsm, c->replica, c->address) == 0);
	raft_set_heartbeat_timeout(c->raft, (unsigned)c->o.heartbeat_ms);
	raft_set_election_timeout(c->raft, (unsigned)c->o.election_ms);
	pin_apply(c);
	raft_set_snapshot_trailing(c->raft, (unsigned)c->o.snapshot_trailing);
	raft_set_install_snapshot_timeout(c->raft, 60000);
	raft_set_pre_vote(c->raft, true);
	c->phase = PHASE_RUNNING;
	c->starting = true;
	int rv = raft_start(c->raft);
	c->starting = false;
	if (rv == 0)
		return OK;
	instance_drop(c);
	c->phase = PHASE_DOWN;
	return ERR_CORRUPT;
}

void instance_drop(struct consensus *c)
{
	if (!c->raft)
		return;
	raft_close(c->raft, instance_free);
	raft_io_abandon(c);
	c->closed(&c->io);
	mem_free(c->raft);
	c->raft = c->guard.raft = NULL;
	c->guard.barrier_term = c->guard.barrier_index = 0;
	c->guard.barrier_stored = false;
	c->guard.change_count = 0;
	c->transfer_to = 0;
	c->transfer_in_raft = false;
	c->mark.term = 0;
	c->peers_term = 0;
	c->peer_count = 0;
}

static void rebuilt(struct consensus *c)
{
	if (c->phase != PHASE_REBUILDING || c->closing)
		return;
	if (instance_start(c, c->applied) != OK)
		instance_quarantine(c, "reload");
}

void instance_rebuild(struct consensus *c)
{
	c->rebuilds++;
	LOG(LOG_WARN, AREA_CLUSTER, "replica_rebuilt", "group=%llu replica=%llx times=%u",
		(unsigned long long)plog_group(c->log), (unsigned long long)c->replica,
		c->rebuilds);
	instance_drop(c);
	c->phase = PHASE_REBUILDING;
	/* What the core reads at its start counts as stored, so it must be. */
	raft_io_wait_durable(c, rebuilt);
}

void instance_quarantine(struct consensus *c, const char *why)
{
	LOG(LOG_ERROR, AREA_CLUSTER, "replica_quarantined", "group=%llu replica=%llx why=%s",
		(unsigned long long)plog_group(c->log), (unsigned long long)c->replica, why);
	instance_drop(c);
	raft_receive_drop_held(c);
	c->phase = PHASE_DOWN;
	consensus_want_turn(c);
}
