/* The writing side of a log: appending, cutting back, marks, and what is known of the tail
 * without reading. Every change is staged in the loop's lane in the order it is made, so what a
 * crash leaves is the log as it was at some moment. The next offset is the tail's, which is the
 * last entry's: whatever is cut off takes its offsets with it. */
#include "server/base/mem.h"
#include "storage/disk.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

enum {
	DELETES_ONE_BY_ONE = 32, /* more than these are a range */
	PARTS_ON_STACK = 32,
	TRIM_ROW_BYTES = 52
};

struct plog *plog_ref(struct plog *p)
{
	p->refs++;
	return p;
}

void plog_unref(struct plog *p)
{
	must(p->refs > 0);
	if (--p->refs > 0)
		return;
	must(p->closed);
	slice_unref(&p->marks.config);
	mem_free(p);
}

void plog_close(struct plog *p)
{
	if (p == NULL)
		return;
	loop_must_own(p->env.loop);
	must(!p->closed);
	p->closed = true;
	durable_cancel(&p->durable);
	plog_trim_fini(p);
	plog_ring_fini(p);
	side_slot_free(p->side);
	p->side = NULL;
	plog_unref(p);
}

uint64_t plog_group(const struct plog *p)
{
	return p->group;
}
enum store_family plog_family(const struct plog *p)
{
	return p->family;
}
const struct plog_marks *plog_marks(const struct plog *p)
{
	return &p->marks;
}
uint64_t plog_last_index(const struct plog *p)
{
	return p->tail.index;
}
uint64_t plog_last_term(const struct plog *p)
{
	return p->tail.term;
}
int64_t plog_next_offset(const struct plog *p)
{
	return p->tail.next_offset;
}
int64_t plog_max_ms(const struct plog *p)
{
	return p->tail.max_ms;
}
int64_t plog_hlc(const struct plog *p)
{
	return p->tail.hlc;
}
struct plog_state plog_state_of(uint64_t index, const struct entry_header *h)
{
	return (struct plog_state){
		index, h->term, entry_next_offset(h), h->max_ms, h->log_bytes, h->hlc};
}

/* ---- terms */

void plog_note_term(struct plog *p, uint64_t index, uint64_t term)
{
	if (p->run_count > 0 && p->runs[p->run_count - 1].term == term)
		return;
	if (p->run_count == RUNS_MAX) {
		memmove(p->runs, p->runs + 1, (RUNS_MAX - 1) * sizeof p->runs[0]);
		p->run_count--;
	}
	p->runs[p->run_count++] = (struct run){index, term};
}

uint64_t plog_term_cached(const struct plog *p, uint64_t index)
{
	if (index == 0 || index > p->tail.index)
		return 0;
	for (int i = p->run_count - 1; i >= 0; i--) {
		if (p->runs[i].index <= index)
			return p->runs[i].term;
	}
	if (index == p->first.index)
		return p->first.term;
	return index == p->marks.applied_index ? p->marks.applied_term : 0;
}

/* ---- appending */

void plog_stage_entry(struct plog *p, const struct entry *e)
{
	struct entry_key key = key_entry(p->group, e->index);
	uint8_t header[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	struct bytes on_stack[PARTS_ON_STACK] = {{NULL, 0}}, *parts = on_stack;
	struct bytes idx = bytes_of(header, entry_header_encode(&e->head, header));

	lane_put(p->env.lane, FAMILY_IDX, KEY_BYTES(key), &idx, 1);
	if (e->head.payload_bytes == 0 || (e->head.flags & ENTRY_TRIMMED))
		return;
	if (e->part_count > PARTS_ON_STACK)
		parts = mem_new(e->part_count * sizeof *parts);
	for (uint32_t i = 0; i < e->part_count; i++)
		parts[i] = e->parts[i].bytes;
	lane_put(p->env.lane, p->family, KEY_BYTES(key), parts, (int)e->part_count);
	if (parts != on_stack)
		mem_free(parts);
}

static void on_durable(struct durable *d);

static void ask_durable(struct plog *p)
{
	if (p->durable_asked || p->durable_index >= p->tail.index)
		return;
	p->durable_asked = true;
	p->durable_asked_index = p->tail.index;
	p->durable.done = on_durable;
	lane_when_durable(p->env.lane, &p->durable);
}

/* What the side file may promise: durable, and never to be cut off again. */
void plog_note_side(struct plog *p)
{
	uint64_t safe = p->durable_index < p->applied_index ? p->durable_index : p->applied_index;

	if (p->side != NULL)
		side_slot_set(p->side, p->generation, safe);
}

static void on_durable(struct durable *d)
{
	struct plog *p = list_entry(d, struct plog, durable);

	p->durable_asked = false;
	if (p->durable_asked_index > p->durable_index)
		p->durable_index = p->durable_asked_index;
	ask_durable(p);
	plog_note_side(p);
	plog_may_leave(p);
}

void plog_append(struct plog *p, struct entry *e, int64_t batch_max_ms)
{
	loop_must_own(p->env.loop);
	must(!p->closed);
	must(e->head.term >= p->tail.term);
	must(entry_whole(e));
	e->group = p->group;
	e->index = p->tail.index + 1;
	e->head.base_offset = p->tail.next_offset;
	e->head.max_ms = batch_max_ms > p->tail.max_ms ? batch_max_ms : p->tail.max_ms;
	e->head.log_bytes = p->tail.bytes + e->head.payload_bytes;
	if (!p->trim_row)
		plog_write_trim_row(p);
	plog_stage_entry(p, e);
	plog_note_term(p, e->index, e->head.term);
	p->tail = plog_state_of(e->index, &e->head);
	plog_ring_push(p, entry_ref(e));
	ask_durable(p);
}

void plog_applied(struct plog *p, uint64_t index)
{
	loop_must_own(p->env.loop);
	must(index <= p->tail.index);
	if (index <= p->applied_index)
		return;
	p->applied_index = index;
	plog_note_side(p);
	plog_may_leave(p);
}

/* ---- cutting back */

static void delete_in(struct plog *p, enum store_family f, uint64_t from, uint64_t to)
{
	struct entry_key a = key_entry(p->group, from), b = key_entry(p->group, to);

	if (to - from > DELETES_ONE_BY_ONE) {
		lane_delete_range(p->env.lane, f, KEY_BYTES(a), KEY_BYTES(b));
		return;
	}
	for (uint64_t i = from; i < to; i++) {
		a = key_entry(p->group, i);
		lane_delete(p->env.lane, f, KEY_BYTES(a));
	}
}

void plog_stage_deletes(struct plog *p, uint64_t from, uint64_t to)
{
	delete_in(p, FAMILY_IDX, from, to);
	delete_in(p, p->family, from, to);
}

/* The state below index, which Raft cuts off. Above the applied entries it is in memory; a cut
 * below them is none of Raft's but must still leave a right tail, so it may read. */
static struct plog_state state_below(const struct plog *p, uint64_t index)
{
	const struct entry *e = plog_ring_at(p, index - 1);
	struct entry_header h;

	if (e != NULL)
		return plog_state_of(index - 1, &e->head);
	if (index - 1 == p->before.index)
		return p->before;
	if (index - 1 == p->first.index)
		return p->first;
	must(plog_fetch_header(p, index - 1, &h) == OK);
	return plog_state_of(index - 1, &h);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void plog_truncate(struct plog *p, uint64_t index)
{
	struct plog_state state;

	loop_must_own(p->env.loop);
	must(index > p->first.index);
	if (index > p->tail.index)
		return;
	state = state_below(p, index);
	plog_stage_deletes(p, index, p->tail.index + 1);
	plog_ring_cut(p, index);
	while (p->run_count > 0 && p->runs[p->run_count - 1].index >= index)
		p->run_count--;
	p->tail = state;
	if (p->before.index > state.index)
		p->before = state;
	p->durable_index = least(p->durable_index, state.index);
	p->durable_asked_index = least(p->durable_asked_index, state.index);
	p->applied_index = least(p->applied_index, state.index);
}

/* All that the log holds goes. */
void plog_note_space(struct plog *p)
{
	if (p->env.disk != NULL)
		disk_trimmed(p->env.disk, p->group, p->family, p->tail.index + 1,
			(uint64_t)plog_bytes(p));
}

void plog_reset(struct plog *p, uint64_t index, uint64_t term, int64_t next_offset)
{
	loop_must_own(p->env.loop);
	plog_note_space(p);
	plog_stage_deletes(p, 0, UINT64_MAX);
	plog_ring_cut(p, 0);
	p->tail = (struct plog_state){
		index, term, next_offset, p->tail.max_ms, p->tail.bytes, p->tail.hlc};
	p->first = p->before = p->tail;
	p->marks.first_index = index + 1;
	p->marks.first_offset = next_offset;
	p->run_count = 0;
	p->generation++;
	plog_forget_cleaned(p);
	p->leave_index = p->durable_index = p->durable_asked_index = p->applied_index = index;
	if (index > 0)
		plog_note_term(p, index, term);
	plog_write_trim_row(p);
	plog_note_side(p);
}

void plog_destroy(struct plog *p)
{
	const enum store_family families[] = {FAMILY_IDX, FAMILY_ROWS, FAMILY_META, p->family};
	struct group_key from = key_group(p->group), to = key_group(p->group + 1);

	loop_must_own(p->env.loop);
	must(p->group < UINT64_MAX);
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		lane_delete_range(p->env.lane, families[i], KEY_BYTES(from), KEY_BYTES(to));
	plog_note_space(p);
	plog_close(p);
}

/* ---- marks */

void plog_put_mark(struct plog *p, enum meta_what what, const struct bytes *parts, int count)
{
	struct meta_key key = key_meta(p->group, what);

	loop_must_own(p->env.loop);
	lane_put(p->env.lane, FAMILY_META, KEY_BYTES(key), parts, count);
}

static void put_two(struct plog *p, enum meta_what what, uint64_t a, uint64_t b)
{
	uint8_t value[16];
	struct bytes part = bytes_of(value, sizeof value);

	put_u64be(value, a);
	put_u64be(value + 8, b);
	plog_put_mark(p, what, &part, 1);
}

void plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote)
{
	p->marks.term = term;
	p->marks.vote = vote;
	put_two(p, META_TERM_VOTE, term, vote);
}

void plog_mark_applied(struct plog *p, uint64_t index, uint64_t term)
{
	must(index <= p->tail.index);
	p->marks.applied_index = index;
	p->marks.applied_term = term;
	put_two(p, META_APPLIED, index, term);
}

void plog_mark_config(struct plog *p, uint64_t index, struct bytes config)
{
	uint8_t head[8];
	struct bytes parts[2] = {bytes_of(head, sizeof head), config};
	struct slice copy;

	must(slice_copy(config, &copy) == OK);
	slice_unref(&p->marks.config);
	p->marks.config = copy;
	p->marks.config_index = index;
	put_u64be(head, index);
	plog_put_mark(p, META_SNAPSHOT, parts, 2);
}

/* Where the log begins: generation 4, term below 8, first index 8, first readable offset 8, then
 * of the entry below: next offset 8, max timestamp 8, bytes 8. */
void plog_write_trim_row(struct plog *p)
{
	uint8_t value[TRIM_ROW_BYTES];
	struct wr w = wr_over(value, sizeof value);
	struct bytes part = bytes_of(value, sizeof value);

	wr_u32be(&w, p->generation);
	wr_u64be(&w, p->first.term);
	wr_u64be(&w, p->marks.first_index);
	wr_u64be(&w, (uint64_t)p->marks.first_offset);
	wr_u64be(&w, (uint64_t)p->first.next_offset);
	wr_u64be(&w, (uint64_t)p->first.max_ms);
	wr_u64be(&w, p->first.bytes);
	must(w.err == OK && wr_len(&w) == sizeof value);
	plog_put_mark(p, META_TRIM, &part, 1);
	p->trim_row = true;
}

void plog_create(
	const struct plog_env *env, uint64_t group, enum store_family log_family, struct bytes info)
{
	struct meta_key key = key_meta(group, META_GROUP);
	uint8_t family = (uint8_t)log_family;
	struct bytes parts[2] = {bytes_of(&family, 1), info};

	must(store_family_is_log(log_family));
	lane_put(env->lane, FAMILY_META, KEY_BYTES(key), parts, 2);
}

/* ---- what is in memory */

struct entry *plog_cached(const struct plog *p, uint64_t index)
{
	struct entry *e = plog_ring_at(p, index);

	return e != NULL && entry_whole(e) ? e : NULL;
}

const struct entry_header *plog_header(const struct plog *p, uint64_t index)
{
	const struct entry *e = plog_ring_at(p, index);

	return e != NULL ? &e->head : NULL;
}

struct entry *plog_cached_at(const struct plog *p, int64_t offset)
{
	if (offset < p->before.next_offset && p->before.index > p->first.index)
		return NULL; /* an older entry may hold it */
	return plog_cached(p, plog_search_ring(p, plog_reached_offset, &offset));
}
