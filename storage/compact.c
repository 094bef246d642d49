/* A run of compaction. The three phases are jobs of a worker, made again for each slice:
 *
 *	plan    headers only: up to which entry, is it due
 *	map     entries since the last run: newest offset of each key; ends early when it is full
 *	filter  entries from the log's start: those that lose records are made anew, handed to the
 *	        loop, which stages them; at the end, the mark of how far it has got
 *
 * A key's older records go in the run that has its newest in the map, and the mark that counts a
 * tombstone's time is staged behind all of that run: so what a tombstone hides is gone before it
 * goes itself. What could not be read for want of memory or by a fault of the disk ends the run; a
 * batch that is stored and not readable never will be, its entry stays as it is.
 *
 * Only entries below limit_index are touched: applied, marked so in the store, durable, and not to
 * be sent by Raft any more; and never the one with the log's last record, so that readers find the
 * end. A log that was reset or fetched meanwhile has another generation: the run ends. */
#include "storage/compact.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/disk.h"
#include "storage/key_map.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"
#include "storage/storage_metrics.h"

enum {
	SLICE_READ_BYTES = 2 << 20,
	SLICE_MADE_BYTES = 512 << 10,
	SLICE_ENTRIES = 4096,
	HEADER_COST = 16, /* an entry without payload counts as so much read */
	MADE_FIRST = 64,
	CREDIT_US = 50000, /* of the rate that was not used; a slice's own time is part of it */
	WAIT_MS_MAX = 10000
};
static const int64_t million = 1000000;

struct compactor {
	struct compact_rate *rate;
	size_t memory_bytes;
	_Atomic bool taken;
};

struct compactor *compactor_new(struct compact_rate *rate, size_t memory_bytes)
{
	struct compactor *c = mem_new(sizeof *c);

	c->rate = rate;
	c->memory_bytes = memory_bytes;
	return c;
}

void compactor_free(struct compactor *c)
{
	mem_free(c);
}

int64_t compact_rate_take(struct compact_rate *r, int64_t now_us, int64_t bytes)
{
	int64_t until = atomic_load(&r->until_us), first = now_us - CREDIT_US, next;

	if (r->bytes == 0)
		return 0;
	do {
		next = (until > first ? until : first) + bytes * million / r->bytes;
	} while (!atomic_compare_exchange_weak(&r->until_us, &until, next));
	next = next > now_us ? (next - now_us) / 1000 : 0;
	return next < WAIT_MS_MAX ? next : WAIT_MS_MAX;
}

/* --- is it due --- */

static bool expired(const struct cleaned_section *s, int64_t retention_ms, int64_t wall_ms)
{
	return wall_ms - s->time_ms >= retention_ms;
}

/* Tombstones may go. */
static bool horizon_passed(
	const struct plog_cleaned *c, const struct compact_policy *policy, int64_t wall_ms)
{
	for (int i = 0; i < c->section_count; i++) {
		if (c->sections[i].tombstones &&
			expired(&c->sections[i], policy->delete_retention_ms, wall_ms))
			return true;
	}
	return false;
}

static bool over_ratio(const struct compact_policy *policy, double dirty, double clean)
{
	return dirty > 0 && dirty * (double)million > (double)policy->dirty_ppm * (dirty + clean);
}

static uint64_t dirty_from(const struct plog *p)
{
	return p->cleaned.log_bytes > p->first.bytes ? p->cleaned.log_bytes : p->first.bytes;
}

bool compaction_due(const struct plog *p, const struct compact_policy *policy, uint64_t limit_index,
	int64_t wall_ms)
{
	const struct plog_cleaned *c = &p->cleaned;
	uint64_t from = dirty_from(p), end = p->tail.bytes, dirty;
	const struct entry *e;

	if (limit_index <= p->marks.first_index || p->marks.seeding)
		return false;
	if (horizon_passed(c, policy, wall_ms))
		return true;
	e = plog_ring_at(p, limit_index - 1);
	if (e != NULL)
		end = e->head.log_bytes;
	else if (limit_index - 1 == p->before.index)
		end = p->before.bytes;
	dirty = end > from ? end - from : 0;
	if (dirty > 0 && wall_ms - c->append_ms >= policy->lag_max_ms)
		return true;
	return over_ratio(
		policy, (double)dirty, (double)(plog_bytes(p) - (int64_t)(p->tail.bytes - from)));
}

/* --- plan: on a worker --- */

static bool reached_ms(const struct entry_header *h, const void *ms)
{
	return (h->hlc >> 16) >= *(const int64_t *)ms;
}

/* Entries that stay: not below *high any more. */
static enum err stop_at(struct compaction *c, plog_reached reached, const void *arg, uint64_t *high)
{
	struct entry_header h;
	uint64_t index;
	enum err e = plog_search(c->log, c->low, *high, reached, arg, &index, &h);

	if (e == OK && index < *high)
		*high = index;
	return e;
}

static enum err look_at_end(struct compaction *c, struct entry_header *last)
{
	int64_t young = c->wall_ms - c->policy.lag_min_ms + 1;
	uint64_t high = c->limit_index;
	enum err e = stop_at(c, plog_reached_offset, &c->last_offset, &high);

	if (e == OK && c->policy.lag_min_ms > 0)
		e = stop_at(c, reached_ms, &young, &high);
	if (e != OK)
		return e;
	if (high <= c->low)
		return ERR_NOTFOUND;
	c->end_index = high - 1;
	return plog_fetch_header(c->log, c->end_index, last);
}

/* The first entry that was not compared, and whether what follows it is enough. */
static enum err look_at_dirty(struct compaction *c, const struct entry_header *last, bool *due)
{
	const struct plog_cleaned *b = &c->before;
	struct entry_header h = {0};
	uint64_t index;
	enum err e = plog_search(
		c->log, c->low, c->end_index + 1, plog_reached_offset, &b->end_offset, &index, &h);
	double dirty;

	*due = false;
	if (e != OK || index > c->end_index)
		return e;
	c->next_index = index;
	c->from_offset = h.base_offset > b->end_offset ? h.base_offset : b->end_offset;
	c->dirty_ms = h.hlc >> 16;
	dirty = (double)(last->log_bytes - h.log_bytes) + (double)h.payload_bytes;
	*due = over_ratio(&c->policy, dirty, (double)c->held_bytes) ||
		c->wall_ms - c->dirty_ms >= c->policy.lag_max_ms;
	return OK;
}

static void plan(struct compaction *c)
{
	size_t room = c->log->env.compactor->memory_bytes;
	struct entry_header last;
	bool due;

	c->over = true;
	c->dirty_ms = c->wall_ms;
	c->err = look_at_end(c, &last);
	if (c->err == ERR_NOTFOUND) {
		c->err = OK; /* nothing may be touched yet */
		return;
	}
	if (c->err != OK)
		return;
	c->end_offset = entry_next_offset(&last);
	if (c->end_offset < c->before.end_offset)
		return; /* less may be touched than was: after a restart */
	c->err = look_at_dirty(c, &last, &due);
	if (c->err != OK || (!due && !horizon_passed(&c->before, &c->policy, c->wall_ms)))
		return;
	c->over = false;
	c->held_bytes = 0;
	if (!due) { /* tombstones alone */
		if (c->next_index < c->end_index)
			c->end_index = c->next_index;
		c->next_index = c->end_index + 1;
		c->from_offset = c->end_offset = c->before.end_offset;
	}
	c->map = key_map_new((uint64_t)(c->end_offset - c->from_offset), room);
	if (c->map == NULL)
		c->err = ERR_NOMEM;
}

/* --- slices of entries, on a worker --- */

/* What is the same for every try, as against what may be another time. */
static bool unreadable(enum err e)
{
	return e == ERR_MALFORMED || e == ERR_CORRUPT || e == ERR_TOOBIG || e == ERR_UNSUPPORTED;
}

/* The entry the iterators stand at; *out NULL: it holds no records. */
static enum err entry_here(struct compaction *c, struct store_iter *heads, struct store_iter *logs,
	struct entry_header *h, uint64_t *index, struct entry **out)
{
	struct bytes key = store_iter_key(heads);
	struct slice payload;
	uint64_t group;
	enum err e;

	*out = NULL;
	if (!key_entry_read(key, &group, index) ||
		entry_header_decode(store_iter_value(heads), h) != OK)
		return ERR_CORRUPT;
	while (store_iter_valid(logs) && bytes_compare(store_iter_key(logs), key) < 0)
		store_iter_step(logs);
	if (h->kind != ENTRY_DATA || h->count == 0 || h->payload_bytes == 0 ||
		(h->flags & ENTRY_TRIMMED))
		return OK;
	if (!store_iter_valid(logs) || !bytes_equal(store_iter_key(logs), key))
		return ERR_CORRUPT;
	e = slice_copy(store_iter_value(logs), &payload);
	return e == OK ? plog_entry_check(c->log, *index, h, &payload, out) : e;
}

static void look_at_keys(struct compaction *c, const struct entry *e);
static enum err make_anew(struct compaction *c, struct entry *e);

static enum err take_entry(struct compaction *c, const struct entry_header *h, struct entry *e)
{
	enum err err = OK;

	c->append_ms = h->hlc >> 16;
	if (e == NULL)
		return OK;
	c->read_bytes += h->payload_bytes;
	if (c->phase == COMPACT_MAP)
		look_at_keys(c, e);
	else
		err = make_anew(c, e);
	return c->err != OK ? c->err : err;
}

/* Of the entries wholly below the end of what is compared. */
static void count_held(struct compaction *c, const struct entry_header *h, uint64_t bytes)
{
	if (c->phase != COMPACT_FILTER || entry_next_offset(h) > c->end_offset)
		return;
	c->held_bytes += bytes;
	c->log_bytes = h->log_bytes;
}

static enum err step(struct compaction *c, struct store_iter *heads, struct store_iter *logs)
{
	struct entry_header h;
	struct entry *e;
	uint64_t index;
	uint32_t made = c->made_count;
	enum err err = entry_here(c, heads, logs, &h, &index, &e);

	if (err == ERR_CORRUPT && e == NULL) { /* its checksum: readers are told of it */
		c->unreadable++;
		err = OK;
	}
	if (err == OK)
		err = take_entry(c, &h, e);
	entry_unref(e);
	if (err != OK)
		return err;
	count_held(
		c, &h, c->made_count > made ? c->made[made]->head.payload_bytes : h.payload_bytes);
	c->next_index = index + 1;
	store_iter_step(heads);
	return OK;
}

/* Ends at the budget or behind end_index; more: there is another slice. */
static void slice(struct compaction *c)
{
	const struct plog *p = c->log;
	struct entry_key from = key_entry(p->group, c->next_index);
	struct entry_key to = key_entry(p->group, c->end_index + 1);
	struct store_snapshot *snapshot = store_snapshot_new(p->env.store);
	struct store_iter *heads = store_iter_new(
		p->env.store, snapshot, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	struct store_iter *logs = store_iter_new(
		p->env.store, snapshot, p->family, KEY_BYTES(from), KEY_BYTES(to), true);
	enum err walked;
	int count = 0;

	c->more = true;
	while (c->err == OK && c->more && count++ < SLICE_ENTRIES &&
		c->read_bytes < SLICE_READ_BYTES && c->written_bytes < SLICE_MADE_BYTES) {
		if (store_iter_valid(heads))
			c->err = step(c, heads, logs);
		else
			c->more = false;
	}
	walked = store_iter_free(heads);
	c->err = c->err == OK ? walked : c->err;
	walked = store_iter_free(logs);
	c->err = c->err == OK ? walked : c->err;
	store_snapshot_free(p->env.store, snapshot);
	c->read_bytes += count * HEADER_COST;
}

static void compact_work(struct job *j)
{
	struct compaction *c = list_entry(j, struct compaction, job);

	c->err = OK;
	c->read_bytes = c->written_bytes = c->removed_bytes = 0;
	c->removed_records = c->removed_tombstones = c->unreadable = 0;
	if (c->phase == COMPACT_PLAN)
		plan(c);
	else
		slice(c);
	if (c->phase == COMPACT_FILTER && !c->more) {
		key_map_free(c->map); /* here: to give so much memory back takes a while */
		c->map = NULL;
	}
}

/* --- map --- */

/* False: it is full. */
static bool add_batch(struct compaction *c, const struct batch *b, enum err *e)
{
	struct batch_walk w;
	struct record r;
	bool room = true;

	*e = batch_walk_init(&w, b, BATCH_INFLATED_MAX);
	if (*e != OK)
		return true;
	while (room && (*e = batch_walk_next(&w, &r)) == OK) {
		int64_t offset = b->base_offset + r.offset_delta;

		if (r.null_key || offset < c->from_offset)
			continue;
		room = key_map_put(c->map, r.key, offset);
		if (!room)
			c->end_offset = offset;
	}
	batch_walk_fini(&w);
	return room;
}

/* When the map is full the run ends with the record before: it need not be an entry's last. */
static void look_at_keys(struct compaction *c, const struct entry *e)
{
	struct change_batches w;
	const struct slice *holder;
	struct batch b;
	enum err err;

	change_batches_init(&w, e);
	while ((err = change_batches_next(&w, &b, &holder)) == OK) {
		if (b.control)
			continue;
		if (!add_batch(c, &b, &err)) {
			c->end_index = e->index;
			c->more = false;
			return;
		}
		if (err != OK && err != ERR_NOTFOUND)
			break;
	}
	if (unreadable(err))
		c->unreadable++;
	else if (err != ERR_NOTFOUND)
		c->err = err;
}

/* --- filter --- */

/* The section an offset lies in; those not compared before are in the new one. */
static int section_of(const struct compaction *c, int64_t offset)
{
	int i = 0;

	if (offset >= c->before.end_offset)
		return CLEANED_SECTIONS_MAX;
	while (i < c->before.section_count && c->before.sections[i].end_offset <= offset)
		i++;
	return i < c->before.section_count ? i : CLEANED_SECTIONS_MAX;
}

struct losing { /* what an entry loses */
	struct compaction *of;
	int64_t records, tombstones;
	bool left[CLEANED_SECTIONS_MAX + 1];
};

static bool keep_record(void *arg, const struct record *r, int64_t offset)
{
	struct losing *l = arg;
	const struct compaction *c = l->of;
	int section;

	if (offset >= c->end_offset)
		return true;
	if (r->null_key || key_map_get(c->map, r->key) > offset) {
		l->records++;
		return false;
	}
	if (!r->null_value)
		return true;
	section = section_of(c, offset);
	if (section < CLEANED_SECTIONS_MAX &&
		expired(&c->before.sections[section], c->policy.delete_retention_ms, c->wall_ms)) {
		l->tombstones++;
		return false;
	}
	l->left[section] = true;
	return true;
}

static enum err add_kept(const struct batch *b, struct losing *l, struct buf *out)
{
	struct batch_filter f = {keep_record, l};
	enum batch_left left;
	struct slice less;
	enum err e = batch_filter_run(b, &f, &left, &less);

	if (e != OK)
		return e;
	if (left == BATCH_WHOLE) {
		buf_add(out, b->all);
	} else if (left == BATCH_LESS) {
		buf_add(out, less.bytes);
		slice_unref(&less);
	}
	return out->err;
}

/* All batches of an entry as they are to be, behind a change without rows: those are in the store
 * since they were applied. */
static enum err filter_entry(const struct entry *e, struct losing *l, struct buf *out)
{
	struct change_batches w;
	const struct slice *holder;
	struct slice head;
	struct batch b;
	enum err err;

	change_begin(out);
	head = change_end(out);
	buf_add(out, head.bytes);
	slice_unref(&head);
	change_batches_init(&w, e);
	while ((err = change_batches_next(&w, &b, &holder)) == OK) {
		err = add_kept(&b, l, out);
		if (err != OK)
			break;
	}
	return err == ERR_NOTFOUND ? OK : err;
}

static enum err room_for_one(struct compaction *c)
{
	struct entry **more;

	if (c->made_count < c->made_room)
		return OK;
	more = mem_resize(
		c->made, (c->made_room ? c->made_room * 2 : MADE_FIRST) * sizeof(struct entry *));
	if (more == NULL)
		return ERR_NOMEM;
	c->made = more;
	c->made_room = c->made_room ? c->made_room * 2 : MADE_FIRST;
	return OK;
}

static enum err add_made(struct compaction *c, const struct entry *e, struct buf *b)
{
	struct slice payload = {NULL, {NULL, 0}};
	struct entry *made;
	struct entry_header head = e->head;
	bool empty = buf_len(b) == CHANGE_HEADER_BYTES;
	enum err err = room_for_one(c);

	if (err == OK && !empty)
		err = slice_copy(buf_bytes(b), &payload);
	if (err != OK)
		return err;
	made = entry_new(&payload, empty ? 0 : 1);
	made->group = e->group;
	made->index = e->index;
	head.payload_bytes = made->head.payload_bytes;
	head.payload_crc = made->head.payload_crc;
	head.flags = (uint8_t)((head.flags & ~ENTRY_HAS_ROWS) | ENTRY_COMPACTED);
	made->head = head;
	c->made[c->made_count++] = made;
	c->written_bytes += made->head.payload_bytes + ENTRY_HEADER_BYTES;
	c->removed_bytes += (int64_t)e->head.payload_bytes - made->head.payload_bytes;
	return OK;
}

static enum err make_anew(struct compaction *c, struct entry *e)
{
	struct losing l = {.of = c};
	struct buf out;
	enum err err;

	/* What is compressed again may come out larger than it was. */
	buf_init(&out, (size_t)e->head.payload_bytes * 2 + SLICE_MADE_BYTES);
	err = filter_entry(e, &l, &out);
	if (err == OK && l.records + l.tombstones > 0)
		err = add_made(c, e, &out);
	buf_fini(&out);
	if (unreadable(err)) {
		c->unreadable++;
		return OK;
	}
	if (err != OK)
		return err;
	for (int i = 0; i <= CLEANED_SECTIONS_MAX; i++)
		c->tombstones[i] |= l.left[i];
	c->removed_records += l.records;
	c->removed_tombstones += l.tombstones;
	return OK;
}

/* --- on the loop --- */

static void drop_made(struct compaction *c)
{
	for (uint32_t i = 0; i < c->made_count; i++)
		entry_unref(c->made[i]);
	c->made_count = 0;
}

static void finish(struct compaction *c, enum err e)
{
	struct plog *p = c->log;

	if (c->ran)
		storage_count(
			loop_cells(p->env.loop), e == OK ? M_COMPACT_RUNS : M_COMPACT_FAILED, 1);
	drop_made(c);
	mem_free(c->made);
	c->made = NULL;
	c->made_room = 0;
	key_map_free(c->map);
	c->map = NULL;
	c->phase = COMPACT_IDLE;
	c->err = e;
	atomic_store(&p->env.compactor->taken, false);
	plog_unref(p);
	c->done(c);
}

static void count_slice(struct compaction *c)
{
	struct metric_cells *cells = loop_cells(c->log->env.loop);

	storage_count(cells, M_COMPACT_READ, c->read_bytes);
	storage_count(cells, M_COMPACT_WRITTEN, c->written_bytes);
	storage_count(cells, M_COMPACT_REMOVED, c->removed_bytes);
	storage_count(cells, M_COMPACT_RECORDS, c->removed_records);
	storage_count(cells, M_COMPACT_TOMBSTONES, c->removed_tombstones);
	storage_count(cells, M_COMPACT_UNREADABLE, c->unreadable);
	c->removed_all += c->removed_bytes;
}

/* One section too many: the two that are nearest in time become one, of the later time. */
static void join_sections(struct cleaned_section *s, int *count)
{
	int best = 0;

	for (int i = 1; i + 1 < *count; i++) {
		if (s[i + 1].time_ms - s[i].time_ms < s[best + 1].time_ms - s[best].time_ms)
			best = i;
	}
	s[best + 1].tombstones |= s[best].tombstones;
	memmove(s + best, s + best + 1, (size_t)(*count - best - 1) * sizeof *s);
	(*count)--;
}

static void mark(struct compaction *c)
{
	struct cleaned_section all[CLEANED_SECTIONS_MAX + 1];
	struct plog_cleaned now = {
		.end_offset = c->end_offset,
		.append_ms = c->end_offset > c->before.end_offset ? c->append_ms
								  : c->before.append_ms,
		.first_bytes = c->first_bytes,
		.log_bytes = c->log_bytes,
		.held_bytes = c->held_bytes,
	};
	int count = 0;

	for (int i = 0; i < c->before.section_count; i++) {
		const struct cleaned_section *s = &c->before.sections[i];

		if (!c->tombstones[i])
			continue; /* its records belong to the next one: there is nothing to tell */
		all[count] = *s;
		all[count++].tombstones = true;
	}
	if (c->end_offset > c->before.end_offset)
		all[count++] = (struct cleaned_section){c->end_offset,
			loop_now_wall_ms(c->log->env.loop), c->tombstones[CLEANED_SECTIONS_MAX]};
	if (count > CLEANED_SECTIONS_MAX)
		join_sections(all, &count);
	memcpy(now.sections, all, (size_t)count * sizeof all[0]);
	now.section_count = count;
	plog_mark_cleaned(c->log, &now);
	if (c->log->env.disk != NULL && c->removed_all > 0)
		disk_trimmed(c->log->env.disk, c->log->group, c->log->family, c->end_index + 1,
			(uint64_t)c->removed_all);
	storage_count(loop_cells(c->log->env.loop), M_COMPACT_LAG,
		loop_now_wall_ms(c->log->env.loop) - c->dirty_ms);
}

static void stage(struct compaction *c)
{
	for (uint32_t i = 0; i < c->made_count; i++)
		(void)plog_replace(c->log, c->made[i]); /* trimmed meanwhile: it goes anyway */
	drop_made(c);
}

static bool log_is_another(const struct compaction *c)
{
	const struct plog *p = c->log;

	return c->cancelled || p->closed || p->marks.seeding || p->generation != c->generation;
}

static bool no_space(const struct compaction *c)
{
	return c->log->env.disk != NULL && !disk_writable(c->log->env.disk);
}

static void compact_home(struct job *j);

static void run_slice(struct compaction *c)
{
	c->working = true;
	c->job.home = c->log->env.loop;
	c->job.work = compact_work;
	c->job.done = compact_home;
	worker_run(c->log->env.workers, &c->job);
}

static void compact_wait_over(struct loop_timer *t)
{
	struct compaction *c = list_entry(t, struct compaction, timer);

	if (log_is_another(c))
		finish(c, ERR_CLOSED);
	else
		run_slice(c);
}

static void wait_for_rate(struct compaction *c)
{
	int64_t wait_ms = compact_rate_take(
		c->log->env.compactor->rate, clock_us(), c->read_bytes + c->written_bytes);

	if (wait_ms > 0)
		loop_timer_set(&c->timer, wait_ms);
	else
		run_slice(c);
}

static void compact_durable(struct durable *d)
{
	struct compaction *c = list_entry(d, struct compaction, durable);

	if (log_is_another(c))
		finish(c, ERR_CLOSED);
	else
		wait_for_rate(c);
}

static void next_phase(struct compaction *c)
{
	if (c->phase == COMPACT_PLAN) {
		c->phase = c->next_index <= c->end_index ? COMPACT_MAP : COMPACT_FILTER;
		c->ran = true;
	} else if (c->phase == COMPACT_MAP) {
		c->phase = COMPACT_FILTER;
	}
	if (c->phase == COMPACT_FILTER)
		c->next_index = c->low;
}

static void compact_home(struct job *j)
{
	struct compaction *c = list_entry(j, struct compaction, job);
	bool wrote = c->made_count > 0;

	c->working = false;
	if (c->ran)
		count_slice(c);
	if (log_is_another(c) || c->err != OK || (c->phase == COMPACT_PLAN && c->over)) {
		finish(c, log_is_another(c) ? ERR_CLOSED : c->err);
		return;
	}
	if (no_space(c)) {
		finish(c, ERR_NOSPACE);
		return;
	}
	stage(c);
	if (c->phase == COMPACT_FILTER && !c->more) {
		mark(c);
		finish(c, OK);
		return;
	}
	if (c->phase == COMPACT_PLAN || !c->more)
		next_phase(c);
	if (!wrote) {
		wait_for_rate(c);
		return;
	}
	c->durable.done = compact_durable;
	lane_when_durable(c->log->env.lane, &c->durable);
}

bool compaction_start(struct compaction *c)
{
	struct plog *p = c->log;

	loop_must_own(p->env.loop);
	must(c->phase == COMPACT_IDLE && !p->closed);
	if (p->env.compactor == NULL || atomic_exchange(&p->env.compactor->taken, true))
		return false;
	plog_ref(p);
	c->phase = COMPACT_PLAN;
	c->ran = c->cancelled = c->more = c->over = false;
	c->generation = p->generation;
	c->wall_ms = loop_now_wall_ms(p->env.loop);
	c->last_offset = p->tail.next_offset - 1;
	c->before = p->cleaned;
	c->low = p->marks.first_index;
	c->first_bytes = p->first.bytes;
	c->held_bytes = (uint64_t)plog_bytes(p) - (p->tail.bytes - dirty_from(p));
	c->log_bytes = p->first.bytes;
	c->removed_all = 0;
	c->next_index = UINT64_MAX;
	memset(c->tombstones, 0, sizeof c->tombstones);
	if (c->limit_index > p->durable_index + 1)
		c->limit_index = p->durable_index + 1;
	loop_timer_init(&c->timer, p->env.loop, compact_wait_over);
	run_slice(c);
	return true;
}

void compaction_cancel(struct compaction *c)
{
	if (c->phase == COMPACT_IDLE || c->cancelled)
		return;
	c->cancelled = true;
	if (!c->working) { /* waits for the rate or the disk */
		durable_cancel(&c->durable);
		loop_timer_set(&c->timer, 0);
	}
}
