/* A ring of slots between the oldest id in flight and the newest. An acknowledgement frees its
 * slot; the head moves on over free ones. A client that never acknowledges one message but all
 * others makes the ring span up to all ids, 1.5 MB, and then waits for itself. */
#include "server/broker/window.h"
#include "server/base/mem.h"

enum { SLOTS_MIN = 8, IDS = 65535 };

static uint16_t id_after(uint16_t id, uint32_t steps)
{
	return (uint16_t)((id - 1u + steps) % IDS + 1);
}
static uint32_t id_distance(uint16_t from, uint16_t to)
{
	return (to + (uint32_t)IDS - from) % IDS;
}

static struct window_entry *slot(const struct window *w, uint32_t at)
{
	return &w->slots[(w->head + at) & (w->size - 1)];
}

static bool counts(uint8_t state)
{
	return state >= WINDOW_SENT1;
}

void window_fini(struct window *w)
{
	mem_free(w->slots);
	*w = (struct window){0};
}

static enum err grow(struct window *w, uint32_t need)
{
	uint32_t size = w->size > 0 ? w->size : SLOTS_MIN;
	while (size < need)
		size *= 2;
	if (size == w->size)
		return OK;
	struct window_entry *slots = mem_try(size * sizeof *slots);
	if (slots == NULL)
		return ERR_NOMEM;
	for (uint32_t i = 0; i < w->span; i++)
		slots[i] = *slot(w, i);
	mem_free(w->slots);
	w->slots = slots;
	w->size = size;
	w->head = 0;
	return OK;
}

static void fill(struct window *w, uint32_t at, struct window_entry entry)
{
	for (; w->span < at; w->span++)
		*slot(w, w->span) = (struct window_entry){0};
	*slot(w, at) = entry;
	w->span = at + 1;
	w->count++;
	w->sent = (uint16_t)(w->sent + counts(entry.state));
}

enum err window_take(struct window *w, struct window_entry entry, uint16_t *packet_id)
{
	must(entry.state != WINDOW_FREE);
	if (w->span == IDS)
		return ERR_BUSY;
	enum err e = grow(w, w->span + 1);
	if (e != OK)
		return e;
	if (w->first == 0)
		w->first = 1;
	*packet_id = id_after(w->first, w->span);
	fill(w, w->span, entry);
	return OK;
}

enum err window_restore(struct window *w, uint16_t packet_id, struct window_entry entry)
{
	if (packet_id == 0 || entry.state == WINDOW_FREE || entry.state >= WINDOW_STATE_COUNT)
		return ERR_CORRUPT;
	if (w->span == 0)
		w->first = packet_id;
	uint32_t at = id_distance(w->first, packet_id);
	if (at < w->span)
		return ERR_CORRUPT;
	enum err e = grow(w, at + 1);
	if (e != OK)
		return e;
	if (entry.state == WINDOW_SENT1 || entry.state == WINDOW_SENT2) {
		entry.again = true;
		entry.state = entry.state == WINDOW_SENT1 ? WINDOW_HELD1 : WINDOW_HELD2;
	}
	fill(w, at, entry);
	return OK;
}

struct window_entry *window_find(const struct window *w, uint16_t packet_id)
{
	if (packet_id == 0 || w->span == 0)
		return NULL;
	uint32_t at = id_distance(w->first, packet_id);
	if (at >= w->span)
		return NULL;
	struct window_entry *e = slot(w, at);
	return e->state == WINDOW_FREE ? NULL : e;
}

void window_move(struct window *w, struct window_entry *e, enum window_state to)
{
	must(to > e->state);
	w->sent = (uint16_t)(w->sent - counts(e->state) + counts((uint8_t)to));
	e->state = (uint8_t)to;
}

void window_done(struct window *w, uint16_t packet_id)
{
	struct window_entry *e = window_find(w, packet_id);
	must(e != NULL);
	w->sent = (uint16_t)(w->sent - counts(e->state));
	w->count--;
	e->state = WINDOW_FREE;
	if (w->count == 0) {
		uint16_t next = id_after(w->first, w->span);
		window_fini(w);
		w->first = next;
		return;
	}
	while (slot(w, 0)->state == WINDOW_FREE) {
		w->head = (w->head + 1) & (w->size - 1);
		w->first = id_after(w->first, 1);
		w->span--;
	}
}

struct window_entry *window_next(const struct window *w, uint16_t *packet_id)
{
	/* An id that is gone lies before the head: the walk goes on there. */
	uint32_t at = *packet_id > 0 && w->span > 0 ? id_distance(w->first, *packet_id) + 1 : 0;
	if (at > w->span)
		at = 0;
	for (; at < w->span; at++) {
		struct window_entry *e = slot(w, at);
		if (e->state == WINDOW_FREE)
			continue;
		*packet_id = id_after(w->first, at);
		return e;
	}
	return NULL;
}
