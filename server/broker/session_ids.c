/* A sorted array: clients give ids in rising order, so an id is added at the end and removed near
 * the front, and what moves are the few in flight. */
#include "server/broker/session_ids.h"
#include "server/base/mem.h"

void session_ids_fini(struct session_ids *s)
{
	mem_free(s->items);
	*s = (struct session_ids){0};
}

/* The first place whose id is not below packet_id. */
static uint32_t place_of(const struct session_ids *s, uint16_t packet_id)
{
	uint32_t low = 0, high = s->count;
	if (high > 0 && s->items[high - 1].packet_id < packet_id)
		return high;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (s->items[middle].packet_id < packet_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct session_id *session_ids_find(const struct session_ids *s, uint16_t packet_id)
{
	uint32_t at = place_of(s, packet_id);
	return at < s->count && s->items[at].packet_id == packet_id ? &s->items[at] : NULL;
}

enum err session_ids_add(struct session_ids *s, struct session_id id)
{
	uint32_t at = place_of(s, id.packet_id);
	if (at < s->count && s->items[at].packet_id == id.packet_id)
		return ERR_EXISTS;
	if (s->count == s->room) {
		uint32_t room = s->room > 0 ? s->room * 2 : 8;
		struct session_id *items = mem_resize(s->items, room * sizeof *items);
		if (items == NULL)
			return ERR_NOMEM;
		s->items = items;
		s->room = room;
	}
	memmove(s->items + at + 1, s->items + at, (s->count - at) * sizeof *s->items);
	s->items[at] = id;
	s->count++;
	return OK;
}

void session_ids_remove(struct session_ids *s, uint16_t packet_id)
{
	struct session_id *found = session_ids_find(s, packet_id);
	if (found == NULL)
		return;
	uint32_t at = (uint32_t)(found - s->items);
	s->count--;
	memmove(found, found + 1, (s->count - at) * sizeof *found);
	if (s->count == 0)
		session_ids_fini(s);
}
