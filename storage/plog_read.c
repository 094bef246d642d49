/* Reading entries. What the ring holds is given from memory; what lies below it a worker reads
 * from the store: a search for the first entry, a walk over headers until the budget is full, and
 * multi-gets of the payloads, each checked. A read never goes from the store into the ring: the
 * next one does, so an answer needs the loop only at its two ends.
 *
 * An entry that cannot be read is told to the operator, and what stands before it is served: a
 * damaged file costs the records in it. */
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"
#include "storage/storage_metrics.h"

enum { BATCH_ENTRIES = 32, ENTRIES_FIRST = 16, EMPTY_RUN = 16384 };

struct found { /* a header on its way to an entry */
	uint64_t index;
	struct entry_header head;
};

/* Room for one more in r->entries, whose size is the next power of two. */
static bool room_for_one(struct plog_read *r)
{
	size_t count = (size_t)r->count;
	struct entry **grown;

	if (count != 0 && (count < ENTRIES_FIRST || (count & (count - 1)) != 0))
		return true;
	grown = mem_resize(
		r->entries, (count == 0 ? ENTRIES_FIRST : count * 2) * sizeof(struct entry *));
	if (grown == NULL)
		return false;
	r->entries = grown;
	return true;
}

static enum err give(struct plog_read *r, struct entry *e)
{
	if (!room_for_one(r)) {
		entry_unref(e);
		return ERR_NOMEM;
	}
	r->entries[r->count++] = e;
	return OK;
}

static void drop_all(struct plog_read *r)
{
	for (int i = 0; i < r->count; i++)
		entry_unref(r->entries[i]);
	mem_free(r->entries);
	r->entries = NULL;
	r->count = 0;
}

static bool by_index(const struct plog_read *r)
{
	return r->offset < 0;
}

/* Compaction has left nothing of it. */
static bool emptied(const struct plog_read *r, const struct entry_header *h)
{
	return !by_index(r) && h->count > 0 && (h->flags & ENTRY_COMPACTED) &&
		h->payload_bytes == 0;
}

static bool wanted(const struct plog_read *r, const struct entry_header *h)
{
	return by_index(r) || (h->count > 0 && !emptied(r, h));
}

static size_t budget(const struct plog_read *r)
{
	return r->bytes_max < READ_BYTES_MAX ? r->bytes_max : READ_BYTES_MAX;
}

/* ---- from the store, on a worker */

/* Whether the hinted entry is the one: saves the search. */
static bool hint_fits(const struct plog_read *r)
{
	struct entry_header h;

	return r->hint_index >= r->low && r->hint_index < r->high &&
		plog_fetch_header(r->log, r->hint_index, &h) == OK && h.base_offset <= r->offset &&
		entry_next_offset(&h) > r->offset;
}

static enum err find_start(const struct plog_read *r, uint64_t *start)
{
	struct entry_header h;

	*start = by_index(r) || hint_fits(r) ? r->hint_index : r->low;
	if (*start == r->hint_index && r->hint_index != 0)
		return OK;
	return plog_search(r->log, r->low, r->high, plog_reached_offset, &r->offset, start, &h);
}

/* All of them, or, where one is damaged, those before it. */
static enum err get_payloads(
	const struct plog *p, int count, const struct bytes *keys, struct slice *out)
{
	enum err e = store_multi_get(p->env.store, NULL, p->family, count, keys, out);

	if (e != ERR_CORRUPT && e != ERR_IO)
		return e;
	for (int i = 0; i < count; i++) {
		slice_unref(&out[i]);
		out[i] = (struct slice){NULL, {NULL, 0}};
	}
	e = OK;
	for (int i = 0; i < count && e == OK; i++)
		e = store_multi_get(p->env.store, NULL, p->family, 1, &keys[i], &out[i]);
	return e;
}

static enum err fetch_payloads(struct plog_read *r, const struct found *found, int count)
{
	const struct plog *p = r->log;
	struct entry_key keys[BATCH_ENTRIES];
	struct bytes at[BATCH_ENTRIES] = {{NULL, 0}};
	struct slice out[BATCH_ENTRIES] = {{NULL, {NULL, 0}}};
	int asked = 0, next = 0;
	enum err got = OK, e = OK;

	for (int i = 0; i < count; i++) {
		if (found[i].head.payload_bytes == 0 || (found[i].head.flags & ENTRY_TRIMMED))
			continue;
		keys[asked] = key_entry(p->group, found[i].index);
		at[asked] = KEY_BYTES(keys[asked]);
		asked++;
	}
	if (asked > 0)
		got = get_payloads(p, asked, at, out);
	for (int i = 0; i < count && e == OK; i++) {
		const struct entry_header *h = &found[i].head;
		struct entry *entry = NULL;

		if (h->payload_bytes == 0 || (h->flags & ENTRY_TRIMMED))
			entry = entry_of(p->group, found[i].index, h, NULL);
		else if (out[next].chunk == NULL) {
			next++;
			e = got != OK ? got
				      : ERR_CORRUPT; /* or trimmed meanwhile: read_home knows */
		} else
			e = plog_entry_check(p, found[i].index, h, &out[next++], &entry);
		if (e != OK)
			e = plog_fetch_again(p, found[i].index, h, e, &entry);
		if (e == OK)
			e = give(r, entry);
	}
	for (int i = 0; i < asked; i++)
		slice_unref(&out[i]);
	return e;
}

struct walk {                 /* over headers */
	size_t bytes;         /* of entries given, or about to be */
	bool full;            /* the budget or the range is used up */
	int passed;           /* entries without anything left */
	struct found emptied; /* the last of them */
};

/* Of those with nothing left a read passes so many. */
static void pass(const struct plog_read *r, struct walk *w, const struct found *f)
{
	if (!emptied(r, &f->head))
		return;
	w->emptied = *f;
	w->full = ++w->passed == EMPTY_RUN;
}

static enum err walk_headers(
	struct plog_read *r, struct store_iter *i, struct found *found, int *count, struct walk *w)
{
	size_t max = budget(r);

	*count = 0;
	for (; *count < BATCH_ENTRIES && !w->full; store_iter_step(i)) {
		struct found *f = &found[*count];
		uint64_t group;

		if (!store_iter_valid(i)) {
			w->full = true;
			break;
		}
		if (!key_entry_read(store_iter_key(i), &group, &f->index) ||
			entry_header_decode(store_iter_value(i), &f->head) != OK)
			return ERR_CORRUPT;
		if (f->head.base_offset >= r->end_offset) {
			w->full = true;
			break;
		}
		if (!wanted(r, &f->head)) {
			pass(r, w, f);
			continue;
		}
		if (w->bytes > 0 && w->bytes + f->head.payload_bytes > max) {
			w->full = true;
			break;
		}
		/* A header costs too, or entries without payload would be without end. */
		w->bytes += f->head.payload_bytes + ENTRY_HEADER_BYTES;
		(*count)++;
	}
	return OK;
}

static void read_work(struct job *j)
{
	struct plog_read *r = list_entry(j, struct plog_read, job);
	struct found found[BATCH_ENTRIES];
	struct entry_key from, to = key_entry(r->log->group, r->high);
	struct store_iter *i;
	struct walk w = {.full = false};
	uint64_t start;
	enum err walked;

	r->err = find_start(r, &start);
	if (r->err != OK || start >= r->high)
		return;
	from = key_entry(r->log->group, start);
	i = store_iter_new(
		r->log->env.store, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	while (r->err == OK && !w.full) {
		int count;

		r->err = walk_headers(r, i, found, &count, &w);
		if (r->err == OK && count > 0)
			r->err = fetch_payloads(r, found, count);
	}
	walked = store_iter_free(i);
	r->err = walked != OK ? walked : r->err;
	/* Who reads gets on. */
	if (r->err == OK && r->count == 0 && w.passed > 0)
		r->err = give(r, entry_of(r->log->group, w.emptied.index, &w.emptied.head, NULL));
}

/* ---- on the loop */

static bool trimmed(const struct plog_read *r)
{
	const struct plog *p = r->log;

	return by_index(r) ? r->hint_index < p->marks.first_index
			   : r->offset < p->marks.first_offset;
}

static void tell_unreadable(const struct plog_read *r)
{
	LOG(LOG_ERROR, AREA_STORAGE, "entry_unreadable",
		"group=%llu offset=%lld index=%llu read=%d err=\"%s\"",
		(unsigned long long)r->log->group, (long long)r->offset,
		(unsigned long long)r->hint_index, r->count, err_text(r->err));
}

static void read_home(struct job *j)
{
	struct plog_read *r = list_entry(j, struct plog_read, job);
	struct plog *p = r->log;
	struct metric_cells *cells = loop_cells(p->env.loop);

	if (p->closed)
		r->err = ERR_CLOSED;
	else if (trimmed(r) || r->generation != p->generation)
		r->err = ERR_RANGE;
	else if (r->err == ERR_CORRUPT || r->err == ERR_IO)
		tell_unreadable(r);
	if (r->err == ERR_CORRUPT && r->count > 0)
		r->err = OK; /* the next read begins at the damage */
	if (r->err != OK)
		drop_all(r);
	for (int i = 0; i < r->count && r->low < r->high; i++)
		storage_count(cells, M_READ_BYTES, r->entries[i]->head.payload_bytes);
	if (r->low < r->high)
		storage_count(cells, M_READ_ENTRIES, r->count);
	plog_unref(p);
	r->done(r);
}

/* The ring's entries from index on, as long as they are whole. */
static enum err read_ring(struct plog_read *r, uint64_t index)
{
	const struct plog *p = r->log;
	struct entry *last = NULL;
	size_t bytes = 0;

	for (; index <= p->tail.index; index++) {
		struct entry *e = plog_ring_at(p, index);

		if (!entry_whole(e) || e->head.base_offset >= r->end_offset)
			break;
		last = emptied(r, &e->head) ? e : last;
		if (!wanted(r, &e->head))
			continue;
		if (bytes > 0 && bytes + e->head.payload_bytes > budget(r))
			break;
		bytes += e->head.payload_bytes + ENTRY_HEADER_BYTES;
		if (give(r, entry_ref(e)) != OK)
			return ERR_NOMEM;
	}
	return r->count == 0 && last != NULL ? give(r, entry_ref(last)) : OK;
}

/* Where the ring comes in: tail.index + 1 if it does not; 0 if the store must be read first. */
static uint64_t ring_start(const struct plog_read *r)
{
	const struct plog *p = r->log;

	if (by_index(r))
		return r->hint_index > p->before.index ? r->hint_index : 0;
	if (r->offset < p->before.next_offset && p->before.index > p->first.index)
		return 0;
	return plog_search_ring(p, plog_reached_offset, &r->offset);
}

/* The first whole entry of the ring from index on: up to there the store is read. */
static uint64_t first_whole(const struct plog *p, uint64_t index)
{
	while (index <= p->tail.index && !entry_whole(plog_ring_at(p, index)))
		index++;
	return index;
}

void plog_read(struct plog_read *r)
{
	struct plog *p = plog_ref(r->log);
	uint64_t start;

	loop_must_own(p->env.loop);
	must(!p->closed);
	r->err = OK;
	r->entries = NULL;
	r->count = 0;
	r->low = r->high = 0;
	r->generation = p->generation;
	start = ring_start(r);
	if (trimmed(r) || start > p->tail.index) {
		plog_answer(p, &r->job, read_home);
		return;
	}
	if (start != 0 && entry_whole(plog_ring_at(p, start))) {
		r->err = read_ring(r, start);
		plog_answer(p, &r->job, read_home);
		return;
	}
	r->low = start != 0 ? start : p->marks.first_index;
	r->high = first_whole(p, start != 0 ? start : p->before.index + 1);
	r->job.home = p->env.loop;
	r->job.work = read_work;
	r->job.done = read_home;
	worker_run(p->env.workers, &r->job);
}
