/* Finding an entry by what its header says: offset, time, term, age or bytes, none of which ever
 * falls along the log, so a search halves the range. The ring is searched on the loop, what lies
 * below it by a worker, which reads one header per step. */
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/plog_priv.h"

enum { TRIES = 8 };

enum err plog_fetch_header(const struct plog *p, uint64_t index, struct entry_header *out)
{
	struct entry_key key = key_entry(p->group, index);
	struct slice value;
	enum err e = store_get(p->env.store, NULL, FAMILY_IDX, KEY_BYTES(key), &value);

	if (e != OK)
		return e;
	e = entry_header_decode(value.bytes, out);
	slice_unref(&value);
	return e == OK ? OK : ERR_CORRUPT;
}

enum err plog_entry_check(const struct plog *p, uint64_t index, const struct entry_header *head,
	struct slice *payload, struct entry **out)
{
	struct entry *e = entry_new(payload, 1);

	*payload = (struct slice){NULL, {NULL, 0}};
	if (e->head.payload_bytes != head->payload_bytes ||
		e->head.payload_crc != head->payload_crc) {
		entry_unref(e);
		return ERR_CORRUPT;
	}
	e->head = *head;
	e->group = p->group;
	e->index = index;
	*out = e;
	return OK;
}

enum err plog_fetch_entry(
	const struct plog *p, uint64_t index, const struct entry_header *head, struct entry **out)
{
	struct entry_key key = key_entry(p->group, index);
	struct slice payload;
	enum err e;

	if (head->payload_bytes == 0 || (head->flags & ENTRY_TRIMMED)) {
		*out = entry_of(p->group, index, head, NULL);
		return OK;
	}
	e = store_get(p->env.store, NULL, p->family, KEY_BYTES(key), &payload);
	return e == OK ? plog_entry_check(p, index, head, &payload, out) : e;
}

enum err plog_fetch_again(const struct plog *p, uint64_t index, const struct entry_header *head,
	enum err why, struct entry **out)
{
	struct entry_header now, before = *head;

	for (int i = 0; i < TRIES && (why == ERR_CORRUPT || why == ERR_NOTFOUND); i++) {
		if (plog_fetch_header(p, index, &now) != OK || !(now.flags & ENTRY_COMPACTED) ||
			(now.payload_crc == before.payload_crc &&
				now.payload_bytes == before.payload_bytes))
			return why;
		before = now;
		why = plog_fetch_entry(p, index, &now, out);
	}
	return why;
}

enum err plog_search(const struct plog *p, uint64_t low, uint64_t high, plog_reached reached,
	const void *arg, uint64_t *index, struct entry_header *head)
{
	struct entry_header h;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		enum err e = plog_fetch_header(p, middle, &h);

		if (e != OK && e != ERR_NOTFOUND)
			return e;
		if (e == OK && reached(&h, arg)) {
			*head = h;
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	*index = low;
	return OK;
}

uint64_t plog_search_ring(const struct plog *p, plog_reached reached, const void *arg)
{
	uint64_t low = p->before.index + 1, high = p->tail.index + 1;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (reached(&plog_ring_at(p, middle)->head, arg))
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

bool plog_reached_offset(const struct entry_header *h, const void *offset)
{
	return entry_next_offset(h) > *(const int64_t *)offset;
}

static bool reached_time(const struct entry_header *h, const void *time_ms)
{
	return h->max_ms >= *(const int64_t *)time_ms;
}

static bool reached_later_term(const struct entry_header *h, const void *term)
{
	return h->term > *(const uint64_t *)term;
}

static bool reached_age(const struct entry_header *h, const void *before_ms)
{
	return (h->hlc >> 16) >= *(const int64_t *)before_ms;
}

static bool reached_bytes(const struct entry_header *h, const void *bytes)
{
	return h->log_bytes > *(const uint64_t *)bytes;
}

static void answer_run(struct loop_msg *m)
{
	struct job *j = list_entry(m, struct job, msg);

	j->done(j);
}

void plog_answer(struct plog *p, struct job *j, void (*done)(struct job *j))
{
	j->home = p->env.loop;
	j->done = done;
	j->msg.run = answer_run;
	loop_post(p->env.loop, &j->msg);
}

static void send(
	struct plog *p, struct job *j, void (*work)(struct job *j), void (*done)(struct job *j))
{
	j->home = p->env.loop;
	j->work = work;
	j->done = done;
	worker_run(p->env.workers, j);
}

/* Entries of the store below the ring: [low, high). */
static uint64_t cold_low(const struct plog *p)
{
	return p->marks.first_index;
}
static uint64_t cold_high(const struct plog *p)
{
	return p->before.index + 1;
}

/* ---- by time */

static void seek_home(struct job *j)
{
	struct plog_seek *s = list_entry(j, struct plog_seek, job);
	struct plog *p = s->log;

	if (p->closed)
		s->err = ERR_CLOSED;
	else if (s->err == ERR_CORRUPT && s->low < p->marks.first_index)
		s->err = ERR_RANGE; /* trimmed between header and payload */
	if (s->err != OK) {
		entry_unref(s->entry);
		s->entry = NULL;
	}
	plog_unref(p);
	s->done(s);
}

/* entry holds what the ring says, maybe its header alone; what lies below the ring comes first. */
static void seek_work(struct job *j)
{
	struct plog_seek *s = list_entry(j, struct plog_seek, job);
	struct entry *ring = s->entry;
	struct entry_header h = {0};
	uint64_t index;

	s->entry = NULL;
	s->err = plog_search(s->log, s->low, s->high, reached_time, &s->time_ms, &index, &h);
	if (s->err == OK && index == s->high) {
		if (ring != NULL) {
			h = ring->head;
			index = ring->index;
		} else {
			s->err = ERR_NOTFOUND;
		}
	}
	if (s->err == OK && h.base_offset >= s->end_offset)
		s->err = ERR_NOTFOUND;
	if (s->err == OK) {
		s->err = plog_fetch_entry(s->log, index, &h, &s->entry);
		if (s->err != OK)
			s->err = plog_fetch_again(s->log, index, &h, s->err, &s->entry);
		s->err = s->err == OK ? OK : ERR_CORRUPT;
	}
	entry_unref(ring);
}

void plog_seek(struct plog_seek *s)
{
	struct plog *p = plog_ref(s->log);
	struct entry *e = plog_ring_at(p, plog_search_ring(p, reached_time, &s->time_ms));

	loop_must_own(p->env.loop);
	s->err = OK;
	s->entry = e != NULL ? entry_ref(e) : NULL;
	s->low = cold_low(p);
	s->high = cold_high(p);
	if (s->low < s->high && p->before.max_ms >= s->time_ms) {
		send(p, &s->job, seek_work, seek_home);
		return;
	}
	s->low = s->high;
	if (e != NULL && !entry_whole(e)) {
		send(p, &s->job, seek_work, seek_home);
		return;
	}
	if (e == NULL || e->head.base_offset >= s->end_offset)
		s->err = ERR_NOTFOUND;
	plog_answer(p, &s->job, seek_home);
}

/* ---- by term */

static void epoch_home(struct job *j)
{
	struct plog_epoch *q = list_entry(j, struct plog_epoch, job);

	if (q->log->closed)
		q->err = ERR_CLOSED;
	plog_unref(q->log);
	q->done(q);
}

static void epoch_work(struct job *j)
{
	struct plog_epoch *q = list_entry(j, struct plog_epoch, job);
	struct entry_header h;
	uint64_t index;

	q->err = plog_search(q->log, q->low, q->high, reached_later_term, &q->term, &index, &h);
	if (q->err != OK || index == q->high)
		return; /* at the ring: plog_epoch has filled in the answer */
	q->end_offset = h.base_offset;
	q->found_term = 0;
	if (index > q->low) {
		q->err = plog_fetch_header(q->log, index - 1, &h);
		q->found_term = h.term;
		if (q->err == ERR_NOTFOUND) {
			q->err = OK; /* trimmed meanwhile: no such term any more */
			q->found_term = 0;
		}
	}
}

void plog_epoch(struct plog_epoch *q)
{
	struct plog *p = plog_ref(q->log);
	uint64_t index = plog_search_ring(p, reached_later_term, &q->term);
	const struct entry *e = plog_ring_at(p, index), *last = plog_ring_at(p, index - 1);

	loop_must_own(p->env.loop);
	q->err = OK;
	q->end_offset = e != NULL ? e->head.base_offset : p->tail.next_offset;
	q->found_term = last != NULL ? last->head.term : p->before.term;
	q->low = cold_low(p);
	q->high = cold_high(p);
	if (p->before.term > q->term && p->first.term > q->term) {
		q->found_term = 0; /* older than all that is left */
		q->end_offset = p->first.next_offset;
	} else if (p->before.term > q->term && q->low < q->high) {
		/* What the search finds at the very start follows a trimmed entry. */
		q->found_term = p->first.term;
		q->end_offset = p->first.next_offset;
		send(p, &q->job, epoch_work, epoch_home);
		return;
	}
	plog_answer(p, &q->job, epoch_home);
}

/* ---- what to keep */

static void retain_home(struct job *j)
{
	struct plog_retain *q = list_entry(j, struct plog_retain, job);

	if (q->log->closed)
		q->err = ERR_CLOSED;
	if (q->keep_offset > q->end_offset)
		q->keep_offset = q->end_offset;
	plog_unref(q->log);
	q->done(q);
}

static void keep_from(struct plog_retain *q, int64_t offset)
{
	if (offset > q->keep_offset)
		q->keep_offset = offset;
}

/* Where to keep from for one limit; ring: what the ring alone says. */
static void retain_search(
	struct plog_retain *q, plog_reached reached, const void *arg, int64_t ring)
{
	struct entry_header h;
	uint64_t index;

	if (q->err == OK)
		q->err = plog_search(q->log, q->low, q->high, reached, arg, &index, &h);
	if (q->err == OK)
		keep_from(q, index < q->high ? h.base_offset : ring);
}

static void retain_work(struct job *j)
{
	struct plog_retain *q = list_entry(j, struct plog_retain, job);

	if (q->before_ms >= 0)
		retain_search(q, reached_age, &q->before_ms, q->ring_age);
	if (q->bytes_max >= 0)
		retain_search(q, reached_bytes, &q->edge, q->ring_bytes);
}

static int64_t retain_ring(const struct plog *p, plog_reached reached, const void *arg)
{
	const struct entry *e = plog_ring_at(p, plog_search_ring(p, reached, arg));

	return e != NULL ? e->head.base_offset : p->tail.next_offset;
}

void plog_retain(struct plog_retain *q)
{
	struct plog *p = plog_ref(q->log);

	loop_must_own(p->env.loop);
	q->err = OK;
	q->low = cold_low(p);
	q->high = cold_high(p);
	q->bytes = plog_bytes(p);
	q->keep_offset = p->marks.first_offset;
	/* Counted from the log's very start: an entry that ends above it is kept. */
	q->edge = q->bytes_max >= 0 && q->bytes > q->bytes_max ? plog_edge(p, q->bytes_max) : 0;
	q->ring_age = retain_ring(p, reached_age, &q->before_ms);
	q->ring_bytes = retain_ring(p, reached_bytes, &q->edge);
	if (q->low < q->high) {
		send(p, &q->job, retain_work, retain_home);
		return;
	}
	if (q->before_ms >= 0)
		keep_from(q, q->ring_age);
	if (q->bytes_max >= 0)
		keep_from(q, q->ring_bytes);
	plog_answer(p, &q->job, retain_home);
}
