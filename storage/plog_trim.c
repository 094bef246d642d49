/* Trimming. What may not be read any more is a mark, set at once; the entries are deleted later,
 * in ranges: a range delete costs every reader of the family something, so a group makes one a
 * minute, or one per 64 MB. Which entries lie wholly below the offset is known from the ring or
 * found by a worker. The last entry always stays: the log's next offset is a function of it. */
#include "server/base/mem.h"
#include "storage/disk.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

enum { DELETE_BYTES = 64 << 20, DELETE_EVERY_MS = 60000, ROWS_DELETE_ENTRIES = 256 };

static void trim_look(struct plog *p);

static void trim_fire(struct loop_timer *t)
{
	trim_look(list_entry(t, struct plog, trim.timer));
}

void plog_trim_init(struct plog *p)
{
	loop_timer_init(&p->trim.timer, p->env.loop, trim_fire);
}

void plog_trim_fini(struct plog *p)
{
	loop_timer_cancel(&p->trim.timer);
}

/* Payload bytes below the offset that are still there, if records were all of one size. */
static int64_t bytes_below(const struct plog *p)
{
	double all = (double)(p->tail.next_offset - p->first.next_offset);
	double below = (double)(p->marks.first_offset - p->first.next_offset);

	return all > 0 ? (int64_t)((double)plog_bytes(p) * below / all) : 0;
}

/* Deletes the entries up to and with the one of the state. */
static void delete_up_to(struct plog *p, const struct plog_state *state)
{
	struct entry_key from = key_entry(p->group, p->marks.first_index);
	struct entry_key to = key_entry(p->group, state->index + 1);
	uint64_t bytes = state->bytes - p->first.bytes;

	lane_delete_range(p->env.lane, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to));
	lane_delete_range(p->env.lane, p->family, KEY_BYTES(from), KEY_BYTES(to));
	p->first = *state;
	p->marks.first_index = state->index + 1;
	plog_write_trim_row(p);
	while (p->before.index < state->index)
		plog_ring_drop_front(p);
	p->trim.last_ms = loop_now_ms(p->env.loop);
	if (p->env.disk != NULL)
		disk_trimmed(p->env.disk, p->group, p->family, state->index + 1, bytes);
}

/* The last index that may be deleted, whatever the offset. */
static uint64_t delete_limit(const struct plog *p)
{
	uint64_t limit = p->tail.index > 0 ? p->tail.index - 1 : 0;

	if (p->trim.keep_index <= limit)
		limit = p->trim.keep_index > 0 ? p->trim.keep_index - 1 : 0;
	if (p->durable_index < limit)
		limit = p->durable_index;
	return p->applied_index < limit ? p->applied_index : limit;
}

static void trim_home(struct job *j)
{
	struct plog *p = list_entry(j, struct plog, trim.job);

	p->trim.running = false;
	/* A truncation or reset meanwhile: what was found need not be there any more. */
	if (!p->closed && p->trim.err == OK && p->trim.found.index > p->first.index &&
		p->trim.low == p->marks.first_index && p->trim.found.index <= delete_limit(p))
		delete_up_to(p, &p->trim.found);
	plog_unref(p);
}

static void trim_work(struct job *j)
{
	struct plog *p = list_entry(j, struct plog, trim.job);
	struct plog_trimmer *t = &p->trim;
	struct entry_header h;
	uint64_t index;

	t->found = (struct plog_state){0};
	t->err = plog_search(p, t->low, t->high, plog_reached_offset, &t->offset, &index, &h);
	if (t->err != OK || index == t->low)
		return;
	t->err = plog_fetch_header(p, index - 1, &h);
	if (t->err == OK)
		t->found = plog_state_of(index - 1, &h);
}

/* Deletes what may go: at once if the ring knows up to where, else after a worker has looked. */
static void trim_look(struct plog *p)
{
	uint64_t limit = delete_limit(p), index;

	if (p->closed || p->trim.running || limit <= p->first.index)
		return;
	index = plog_search_ring(p, plog_reached_offset, &p->marks.first_offset) - 1;
	index = index < limit ? index : limit;
	if (p->before.next_offset <= p->marks.first_offset && index >= p->before.index) {
		const struct entry *e = plog_ring_at(p, index);
		struct plog_state state = e != NULL ? plog_state_of(index, &e->head) : p->before;

		if (state.index > p->first.index)
			delete_up_to(p, &state);
		return;
	}
	p->trim.low = p->marks.first_index;
	p->trim.high = (limit < p->before.index ? limit : p->before.index) + 1;
	p->trim.offset = p->marks.first_offset;
	if (p->trim.low >= p->trim.high)
		return;
	p->trim.running = true;
	plog_ref(p);
	p->trim.job.home = p->env.loop;
	p->trim.job.work = trim_work;
	p->trim.job.done = trim_home;
	worker_run(p->env.workers, &p->trim.job);
}

/* Entries without records, all of them below the offset, that nobody needs any more. */
static bool rows_below(const struct plog *p)
{
	return p->marks.first_offset >= p->tail.next_offset &&
		delete_limit(p) > p->first.index + ROWS_DELETE_ENTRIES;
}

void plog_trim(struct plog *p, int64_t offset, uint64_t keep_index)
{
	int64_t wait_ms;

	loop_must_own(p->env.loop);
	if (offset > p->tail.next_offset)
		offset = p->tail.next_offset;
	p->trim.keep_index = keep_index;
	if (offset > p->marks.first_offset) {
		p->marks.first_offset = offset;
		plog_write_trim_row(p);
	}
	if ((p->marks.first_offset <= p->first.next_offset && !rows_below(p)) ||
		loop_timer_is_set(&p->trim.timer))
		if (bytes_below(p) < DELETE_BYTES)
			return;
	wait_ms = p->trim.last_ms == 0 || bytes_below(p) >= DELETE_BYTES
		? 0
		: p->trim.last_ms + DELETE_EVERY_MS - loop_now_ms(p->env.loop);
	loop_timer_set(&p->trim.timer, wait_ms > 0 ? wait_ms : 0);
}
