/* What a log knows of its compaction: how far it has got, what it has saved, and the exchange of an
 * entry for one with fewer records. Nothing that is told by an entry's place changes: index, term,
 * offsets, times and the coordinate of bytes, so searches and the chain of headers go on as they
 * were. What an old header says of its payload may be read just before the exchange: who then finds
 * another payload looks at the header again (plog_fetch_again).
 *
 * The row META_CLEANED: layout 1, end offset 8, time of appending 8, coordinate at the log's start
 * 8, at the end 8, bytes held 8, sections 1, of each: end offset 8, time 8, tombstones 1. */
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

enum {
	CLEANED_LAYOUT = 1,
	SECTION_BYTES = 17,
	CLEANED_BYTES_MAX = 1 + 5 * 8 + 1 + CLEANED_SECTIONS_MAX * SECTION_BYTES
};

const struct plog_cleaned *plog_cleaned(const struct plog *p)
{
	return &p->cleaned;
}

uint32_t plog_generation(const struct plog *p)
{
	return p->generation;
}

enum err plog_read_cleaned(struct plog *p, struct rd *r)
{
	struct plog_cleaned *c = &p->cleaned;

	if (rd_u8(r) != CLEANED_LAYOUT)
		return ERR_MALFORMED;
	c->end_offset = (int64_t)rd_u64be(r);
	c->append_ms = (int64_t)rd_u64be(r);
	c->first_bytes = rd_u64be(r);
	c->log_bytes = rd_u64be(r);
	c->held_bytes = rd_u64be(r);
	c->section_count = rd_u8(r);
	if (c->section_count > CLEANED_SECTIONS_MAX)
		return ERR_MALFORMED;
	for (int i = 0; i < c->section_count; i++) {
		c->sections[i].end_offset = (int64_t)rd_u64be(r);
		c->sections[i].time_ms = (int64_t)rd_u64be(r);
		c->sections[i].tombstones = rd_u8(r) != 0;
	}
	return rd_done(r);
}

void plog_mark_cleaned(struct plog *p, const struct plog_cleaned *c)
{
	uint8_t value[CLEANED_BYTES_MAX];
	struct wr w = wr_over(value, sizeof value);
	struct bytes part;

	must(c->section_count <= CLEANED_SECTIONS_MAX);
	wr_u8(&w, CLEANED_LAYOUT);
	wr_u64be(&w, (uint64_t)c->end_offset);
	wr_u64be(&w, (uint64_t)c->append_ms);
	wr_u64be(&w, c->first_bytes);
	wr_u64be(&w, c->log_bytes);
	wr_u64be(&w, c->held_bytes);
	wr_u8(&w, (uint8_t)c->section_count);
	for (int i = 0; i < c->section_count; i++) {
		wr_u64be(&w, (uint64_t)c->sections[i].end_offset);
		wr_u64be(&w, (uint64_t)c->sections[i].time_ms);
		wr_u8(&w, c->sections[i].tombstones);
	}
	must(w.err == OK);
	part = bytes_of(value, wr_len(&w));
	plog_put_mark(p, META_CLEANED, &part, 1);
	p->cleaned = *c;
}

void plog_forget_cleaned(struct plog *p)
{
	struct meta_key key = key_meta(p->group, META_CLEANED);

	if (p->cleaned.end_offset > 0)
		lane_delete(p->env.lane, FAMILY_META, KEY_BYTES(key));
	p->cleaned = (struct plog_cleaned){0};
}

/* --- bytes --- */

/* Of the part that was compared: its coordinates as far as it is not trimmed. */
static uint64_t span(const struct plog *p)
{
	const struct plog_cleaned *c = &p->cleaned;

	return c->log_bytes > p->first.bytes ? c->log_bytes - p->first.bytes : 0;
}

/* What is left of it; as if what was taken out were spread evenly, once some of it is trimmed. */
static uint64_t held(const struct plog *p)
{
	const struct plog_cleaned *c = &p->cleaned;
	uint64_t all = c->log_bytes - c->first_bytes, now = span(p);

	if (all == 0 || now >= all)
		return now == 0 ? 0 : c->held_bytes;
	return (uint64_t)((double)c->held_bytes * (double)now / (double)all);
}

int64_t plog_bytes(const struct plog *p)
{
	return (int64_t)(p->tail.bytes - p->first.bytes - span(p) + held(p));
}

uint64_t plog_edge(const struct plog *p, int64_t bytes)
{
	uint64_t now = span(p), left = held(p), behind = p->tail.bytes - p->first.bytes - now;
	double part;

	if (now == 0 || left == 0 || (uint64_t)bytes <= behind)
		return p->tail.bytes - (uint64_t)bytes;
	part = (double)((uint64_t)bytes - behind) / (double)left;
	return p->cleaned.log_bytes - (part < 1 ? (uint64_t)((double)now * part) : now);
}

/* --- the exchange --- */

bool plog_replace(struct plog *p, struct entry *e)
{
	struct entry_key key = key_entry(p->group, e->index);

	loop_must_own(p->env.loop);
	must(e->head.flags & ENTRY_COMPACTED);
	must(entry_whole(e));
	/* Above the mark a start would apply it again; the last one tells where the log ends. */
	if (p->closed || p->marks.seeding || e->index < p->marks.first_index ||
		e->index > p->marks.applied_index || e->index >= p->tail.index ||
		e->index > p->durable_index)
		return false;
	plog_stage_entry(p, e);
	if (e->head.payload_bytes == 0)
		lane_delete(p->env.lane, p->family, KEY_BYTES(key));
	plog_ring_replace(p, e);
	return true;
}
