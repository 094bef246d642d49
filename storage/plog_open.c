/* What a log knows after a start: its marks, and the headers above the applied entry. Payloads are
 * read only where they are applied again, rows and configurations; so a start costs what was
 * written since the last write-back, however long the log is. */
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/disk.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

static enum err read_trim(struct plog *p, struct rd *r)
{
	p->generation = rd_u32be(r);
	p->first.term = rd_u64be(r);
	p->marks.first_index = rd_u64be(r);
	p->marks.first_offset = (int64_t)rd_u64be(r);
	p->first.next_offset = (int64_t)rd_u64be(r);
	p->first.max_ms = (int64_t)rd_u64be(r);
	p->first.bytes = rd_u64be(r);
	if (p->marks.first_index == 0)
		rd_fail(r, ERR_MALFORMED);
	p->first.index = p->marks.first_index - 1;
	p->trim_row = true;
	return rd_done(r);
}

static enum err read_mark(struct plog *p, uint8_t what, struct bytes value)
{
	struct rd r = rd_over(value);

	switch (what) {
	case META_TERM_VOTE:
		p->marks.term = rd_u64be(&r);
		p->marks.vote = rd_u64be(&r);
		return rd_done(&r);
	case META_APPLIED:
		p->marks.applied_index = rd_u64be(&r);
		p->marks.applied_term = rd_u64be(&r);
		return rd_done(&r);
	case META_SNAPSHOT:
		p->marks.config_index = rd_u64be(&r);
		slice_unref(&p->marks.config);
		return r.err != OK ? r.err : slice_copy(rd_take(&r, rd_left(&r)), &p->marks.config);
	case META_TRIM: return read_trim(p, &r);
	case META_SEEDING:
		p->marks.seeding = true;
		rd_skip(&r, 1); /* layout */
		p->marks.seeding_index = rd_u64be(&r);
		p->marks.given_up_index = rd_u64be(&r);
		p->marks.given_up_term = rd_u64be(&r);
		return rd_done(&r);
	case META_CLEANED: return plog_read_cleaned(p, &r);
	default: return OK; /* META_GROUP, and what later versions add */
	}
}

enum err plog_read_marks(struct plog *p, struct store_snapshot *snapshot)
{
	struct group_key from = key_group(p->group), to = key_group(p->group + 1);
	struct store_iter *i = store_iter_new(
		p->env.store, snapshot, FAMILY_META, KEY_BYTES(from), KEY_BYTES(to), true);
	enum err e = OK, walked;

	for (; e == OK && store_iter_valid(i); store_iter_step(i)) {
		uint64_t group;
		uint8_t what;

		if (!key_meta_read(store_iter_key(i), &group, &what))
			e = ERR_CORRUPT;
		else
			e = read_mark(p, what, store_iter_value(i));
	}
	walked = store_iter_free(i);
	return walked != OK ? walked : e == ERR_MALFORMED ? ERR_CORRUPT : e;
}

/* The state the ring starts from: below the first entry not applied. */
static enum err read_before(struct plog *p)
{
	struct entry_header h;
	enum err e;

	p->before = p->first;
	if (p->marks.applied_index <= p->first.index)
		return OK;
	e = plog_fetch_header(p, p->marks.applied_index, &h);
	if (e != OK)
		return e == ERR_NOTFOUND ? ERR_CORRUPT : e;
	p->before = plog_state_of(p->marks.applied_index, &h);
	return OK;
}

/* Follows the rule that makes offsets a function of the log. */
bool plog_follows(const struct plog_state *last, uint64_t index, const struct entry_header *h)
{
	/* Where compaction took something out the bytes count as they were appended. */
	bool bytes_follow = h->flags & ENTRY_COMPACTED
		? h->log_bytes >= last->bytes
		: h->log_bytes == last->bytes + h->payload_bytes;

	return index == last->index + 1 && h->base_offset == last->next_offset &&
		h->term >= last->term && h->max_ms >= last->max_ms && bytes_follow;
}

static enum err read_entry(struct plog *p, struct bytes key, struct bytes value)
{
	struct entry_header h;
	struct entry *entry;
	uint64_t group, index;

	if (!key_entry_read(key, &group, &index) || entry_header_decode(value, &h) != OK ||
		!plog_follows(&p->tail, index, &h))
		return ERR_CORRUPT;
	if (h.payload_bytes > 0 && !(h.flags & ENTRY_TRIMMED) &&
		(h.kind == ENTRY_CONFIG || (h.flags & ENTRY_HAS_ROWS))) {
		enum err e = plog_fetch_entry(p, index, &h, &entry);

		if (e != OK)
			return e == ERR_NOTFOUND ? ERR_CORRUPT : e;
	} else {
		entry = entry_of(p->group, index, &h, NULL);
	}
	p->tail = plog_state_of(index, &h);
	plog_note_term(p, index, h.term);
	plog_ring_recover(p, entry);
	return OK;
}

static enum err read_tail(struct plog *p)
{
	struct entry_key from = key_entry(p->group, p->before.index + 1);
	struct group_key to = key_group(p->group + 1);
	struct store_iter *i = store_iter_new(
		p->env.store, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	enum err e = OK, walked;

	p->tail = p->before;
	if (p->tail.index > 0)
		plog_note_term(p, p->tail.index, p->tail.term);
	for (; e == OK && store_iter_valid(i); store_iter_step(i))
		e = read_entry(p, store_iter_key(i), store_iter_value(i));
	walked = store_iter_free(i);
	return walked != OK ? walked : e;
}

static enum err recover(struct plog *p)
{
	enum err e = plog_read_marks(p, NULL);

	if (e == OK && p->marks.seeding) {
		p->tail = p->before = p->first;
		return OK; /* empty: what is there is half of something */
	}
	if (e == OK)
		e = read_before(p);
	if (e == OK)
		e = read_tail(p);
	if (e != OK)
		return e;
	p->applied_index = p->leave_index = p->before.index;
	p->durable_index = p->durable_asked_index = p->tail.index;
	if (p->env.disk != NULL &&
		side_behind(disk_side(p->env.disk), p->group, p->generation, p->tail.index)) {
		LOG(LOG_ERROR, AREA_STORAGE, "log_behind",
			"group=%llu last=%llu dir=%s hint=\"synced entries are gone, the replica "
			"counts as wiped\"",
			(unsigned long long)p->group, (unsigned long long)p->tail.index,
			disk_dir(p->env.disk));
		return ERR_CORRUPT;
	}
	return OK;
}

enum err plog_open(
	const struct plog_env *env, uint64_t group, enum store_family log_family, struct plog **out)
{
	struct plog *p = mem_new(sizeof *p);
	enum err e;

	must(group < UINT64_MAX);
	must(store_family_is_log(log_family));
	p->env = *env;
	p->group = group;
	p->family = log_family;
	p->refs = 1;
	p->marks.first_index = 1;
	p->first.max_ms = -1;
	p->generation = (uint32_t)random_u64(); /* unless the store knows one */
	plog_trim_init(p);
	e = recover(p);
	if (e != OK) {
		plog_ring_fini(p);
		p->closed = true;
		plog_unref(p);
		return e;
	}
	if (env->disk != NULL) {
		p->side = side_slot_new(disk_side(env->disk), group);
		if (p->marks.first_index > 1) /* maybe not reclaimed before the last end */
			disk_trimmed(env->disk, group, log_family, p->marks.first_index, 0);
	}
	*out = p;
	return OK;
}

enum err plog_groups(
	struct store *s, bool (*each)(const struct plog_group_row *row, void *arg), void *arg)
{
	struct meta_key from = key_meta(0, 0), to = key_meta(UINT64_MAX, 255);
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_META, KEY_BYTES(from), KEY_BYTES(to), true);
	bool more = true;
	enum err e = OK, walked;

	for (; e == OK && more && store_iter_valid(i); store_iter_step(i)) {
		struct rd r = rd_over(store_iter_value(i));
		struct plog_group_row row;
		uint8_t what;

		if (!key_meta_read(store_iter_key(i), &row.group, &what))
			e = ERR_CORRUPT;
		if (e != OK || what != META_GROUP)
			continue;
		row.log_family = (enum store_family)rd_u8(&r);
		row.info = rd_take(&r, rd_left(&r));
		if (r.err != OK || row.log_family >= FAMILY_COUNT ||
			!store_family_is_log(row.log_family))
			e = ERR_CORRUPT;
		else
			more = each(&row, arg);
	}
	walked = store_iter_free(i);
	return walked != OK ? walked : e;
}
