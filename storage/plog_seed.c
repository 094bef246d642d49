/* Seeding: a group's log, rows and marks are replaced by those of another node's store, which come
 * in pieces. The first write deletes what was there, but for the entries of the log that are kept,
 * and says so (META_SEEDING), the last one sets the marks and takes that word back; a crash between
 * the two leaves a group that is in no state, and plog_open says it. What has been staged comes in
 * the order of the log, and a crash keeps a prefix of what was staged, so the entries found after
 * it are a run without a gap: they are committed ones, the same on every node, and need not be
 * fetched again. Payloads may be written past the log of writes, headers never: a crash then keeps
 * another prefix of the payloads, and the run ends before the first header that lacks its own. */
#include "server/base/mem.h"
#include "storage/disk.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

enum { SEEDING_LAYOUT = 2, SEEDING_BYTES = 25 };

static const struct plog_state nothing = {.max_ms = -1};

/* --- what a store holds --- */

static enum err state_at(struct store *s, struct store_snapshot *snapshot, uint64_t group,
	uint64_t index, struct plog_state *out)
{
	struct entry_key key = key_entry(group, index);
	struct entry_header h;
	struct slice value;
	enum err e = store_get(s, snapshot, FAMILY_IDX, KEY_BYTES(key), &value);

	if (e != OK)
		return e == ERR_NOTFOUND ? ERR_CORRUPT : e;
	e = entry_header_decode(value.bytes, &h);
	slice_unref(&value);
	if (e != OK)
		return ERR_CORRUPT;
	*out = plog_state_of(index, &h);
	return OK;
}

struct plog_state plog_below(const struct plog *p)
{
	return p->first;
}

enum err plog_seed_source(
	struct store *s, struct store_snapshot *snapshot, uint64_t group, struct plog_seed *out)
{
	struct plog p = {.group = group, .env.store = s, .first = nothing, .marks.first_index = 1};
	enum err e = plog_read_marks(&p, snapshot);

	*out = (struct plog_seed){.first = p.first,
		.last = p.first,
		.first_offset = p.marks.first_offset,
		.config_index = p.marks.config_index};
	if (e == OK && p.marks.seeding)
		e = ERR_UNAVAILABLE;
	if (e == OK && p.marks.applied_index == 0)
		e = ERR_NOTFOUND;
	if (e == OK && p.marks.applied_index > p.first.index)
		e = state_at(s, snapshot, group, p.marks.applied_index, &out->last);
	if (e == OK)
		out->config = p.marks.config;
	else
		slice_unref(&p.marks.config);
	return e;
}

/* The first or last entry of the group before `end`: 0: none. */
static enum err edge(
	struct store *s, uint64_t group, uint64_t end, bool forward, struct plog_state *out)
{
	struct entry_key from = key_entry(group, 0), to = key_entry(group, end);
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), forward);
	struct entry_header h;
	uint64_t read, index;
	enum err e = OK, walked;

	*out = nothing;
	if (store_iter_valid(i)) {
		if (key_entry_read(store_iter_key(i), &read, &index) &&
			entry_header_decode(store_iter_value(i), &h) == OK)
			*out = plog_state_of(index, &h);
		else
			e = ERR_CORRUPT;
	}
	walked = store_iter_free(i);
	return walked != OK ? walked : e;
}

/* The last entry up to `last` whose payload is there; 0: none. */
static enum err last_payload(
	struct store *s, uint64_t group, enum store_family f, uint64_t last, uint64_t *index)
{
	struct entry_key from = key_entry(group, 0), to = key_entry(group, last + 1);
	struct store_iter *i = store_iter_new(s, NULL, f, KEY_BYTES(from), KEY_BYTES(to), false);
	uint64_t read;
	enum err e = OK, walked;

	*index = 0;
	if (store_iter_valid(i) && !key_entry_read(store_iter_key(i), &read, index))
		e = ERR_CORRUPT;
	walked = store_iter_free(i);
	return walked != OK ? walked : e;
}

/* Moves *last on over entries that need no payload, at most to `end`. */
static enum err walk_bare(struct store *s, uint64_t group, uint64_t end, struct plog_state *last)
{
	struct entry_key from = key_entry(group, last->index + 1), to = key_entry(group, end + 1);
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	struct entry_header h;
	uint64_t read, index;
	enum err e = OK, walked;

	for (; e == OK && store_iter_valid(i); store_iter_step(i)) {
		if (!key_entry_read(store_iter_key(i), &read, &index) ||
			entry_header_decode(store_iter_value(i), &h) != OK)
			e = ERR_CORRUPT;
		else if (h.payload_bytes > 0 && !(h.flags & ENTRY_TRIMMED))
			break;
		else
			*last = plog_state_of(index, &h);
	}
	walked = store_iter_free(i);
	return walked != OK ? walked : e;
}

enum err plog_seed_found(struct store *s, uint64_t group, enum store_family log_family,
	uint64_t end, uint64_t *below, struct plog_state *last)
{
	struct plog_state first;
	uint64_t highest, whole;
	enum err e = edge(s, group, end, true, &first);

	if (e == OK)
		e = edge(s, group, end, false, last);
	if (e == OK)
		e = last_payload(s, group, log_family, last->index, &whole);
	if (e != OK)
		return e;
	*below = first.index > 0 ? first.index - 1 : 0;
	highest = last->index;
	last->index = *below;
	if (whole > *below)
		e = state_at(s, NULL, group, whole, last);
	if (e == OK)
		e = walk_bare(s, group, highest, last);
	if (e == OK && last->index == *below) {
		*below = 0;
		*last = nothing;
	}
	return e;
}

/* --- the receiving side --- */

static void delete_marks(struct plog *p)
{
	const enum meta_what all[] = {META_SNAPSHOT, META_APPLIED, META_TRIM, META_CLEANED};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		struct meta_key key = key_meta(p->group, all[i]);

		lane_delete(p->env.lane, FAMILY_META, KEY_BYTES(key));
	}
}

static void delete_rows(struct plog *p)
{
	struct group_key from = key_group(p->group), to = key_group(p->group + 1);

	lane_delete_range(p->env.lane, FAMILY_ROWS, KEY_BYTES(from), KEY_BYTES(to));
}

/* Memory: nothing of a log. */
static void forget(struct plog *p)
{
	plog_ring_cut(p, 0);
	p->tail = p->first = p->before = nothing;
	p->run_count = 0;
	p->generation++;
	p->trim_row = false;
	p->leave_index = p->durable_index = p->durable_asked_index = p->applied_index = 0;
	p->cleaned = (struct plog_cleaned){0};
	slice_unref(&p->marks.config);
	p->marks = (struct plog_marks){
		.term = p->marks.term, .vote = p->marks.vote, .first_index = 1};
	loop_timer_cancel(&p->trim.timer);
}

void plog_seed_begin(struct plog *p, uint64_t index_min, uint64_t keep)
{
	uint8_t value[SEEDING_BYTES] = {SEEDING_LAYOUT};
	struct bytes part = bytes_of(value, sizeof value);
	bool anew = p->marks.seeding; /* the log had been given up before */
	uint64_t given_up_index = anew ? p->marks.given_up_index : p->tail.index;
	uint64_t given_up_term = anew ? p->marks.given_up_term : p->tail.term;

	loop_must_own(p->env.loop);
	must(!p->closed);
	must(p->group < UINT64_MAX);
	if (keep == 0 && !anew)
		plog_note_space(p);
	plog_stage_deletes(p, keep + 1, UINT64_MAX);
	delete_rows(p);
	delete_marks(p);
	forget(p);
	p->marks.seeding = true;
	p->marks.seeding_index = index_min;
	p->marks.given_up_index = given_up_index;
	p->marks.given_up_term = given_up_term;
	put_u64be(value + 1, index_min);
	put_u64be(value + 9, given_up_index);
	put_u64be(value + 17, given_up_term);
	plog_put_mark(p, META_SEEDING, &part, 1);
	plog_note_side(p);
}

void plog_seed_entry(struct plog *p, uint64_t index, const struct entry_header *h,
	struct bytes payload, bool unlogged)
{
	struct entry_key key = key_entry(p->group, index);
	uint8_t header[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	struct bytes idx = bytes_of(header, entry_header_encode(h, header));

	must(p->marks.seeding);
	lane_put(p->env.lane, FAMILY_IDX, KEY_BYTES(key), &idx, 1);
	if (payload.len > 0 && unlogged)
		lane_put_unlogged(p->env.lane, p->family, KEY_BYTES(key), &payload);
	else if (payload.len > 0)
		lane_put(p->env.lane, p->family, KEY_BYTES(key), &payload, 1);
}

void plog_seed_row(struct plog *p, struct bytes key, struct bytes value)
{
	uint8_t small[8 + 256], *full = key.len <= 256 ? small : mem_new(8 + key.len);

	must(p->marks.seeding);
	put_u64be(full, p->group);
	memcpy(full + 8, key.at, key.len);
	lane_put(p->env.lane, FAMILY_ROWS, bytes_of(full, 8 + key.len), &value, 1);
	if (full != small)
		mem_free(full);
}

/* Entries that were kept and the source has trimmed since. */
static void cut_below(struct plog *p, const struct plog_seed *s)
{
	plog_stage_deletes(p, 0, s->first.index + 1);
	if (p->env.disk != NULL)
		disk_trimmed(p->env.disk, p->group, p->family, s->first.index + 1, s->cut_bytes);
}

void plog_seed_end(struct plog *p, const struct plog_seed *s)
{
	struct meta_key key = key_meta(p->group, META_SEEDING);

	loop_must_own(p->env.loop);
	must(p->marks.seeding);
	must(s->last.index >= s->first.index);
	if (s->cut)
		cut_below(p, s);
	p->first = s->first;
	p->tail = p->before = s->last;
	p->marks.first_index = s->first.index + 1;
	p->marks.first_offset = s->first_offset;
	p->leave_index = p->durable_index = p->durable_asked_index = p->applied_index =
		s->last.index;
	plog_note_term(p, s->last.index, s->last.term);
	plog_write_trim_row(p);
	plog_mark_config(p, s->config_index, s->config.bytes);
	plog_mark_applied(p, s->last.index, s->last.term);
	lane_delete(p->env.lane, FAMILY_META, KEY_BYTES(key));
	p->marks.seeding = false;
	p->marks.seeding_index = p->marks.given_up_index = p->marks.given_up_term = 0;
	plog_note_side(p);
}
