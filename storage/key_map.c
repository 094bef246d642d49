/* Open addressing with linear probing, at most nine tenths full; memory is not zeroed by us but by
 * the system, page by page as slots are used. */
#include "storage/key_map.h"
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum { KEYS_MIN = 64, ROUNDS = 1, FINAL_ROUNDS = 3 };

struct slot {
	uint64_t a, b;
	uint64_t next; /* offset + 1; 0: empty */
};

struct key_map {
	uint64_t seed[2];
	uint64_t size, count, count_max;
	struct slot *slots;
};

_Static_assert(sizeof(struct slot) == KEY_MAP_SLOT_BYTES, "what a key costs");

/* --- SipHash with 128 bits (Aumasson, Bernstein) --- */

struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t turn(uint64_t v, int by)
{
	return v << by | v >> (64 - by);
}

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = turn(s->v1, 13) ^ s->v0;
	s->v0 = turn(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = turn(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = turn(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = turn(s->v1, 17) ^ s->v2;
	s->v2 = turn(s->v2, 32);
}

static inline void sip_add(struct sip *s, uint64_t word, int rounds)
{
	s->v3 ^= word;
	for (int i = 0; i < rounds; i++)
		sip_round(s);
	s->v0 ^= word;
}

static inline uint64_t sip_end(struct sip *s, int rounds)
{
	for (int i = 0; i < rounds; i++)
		sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

static inline uint64_t word_le(const uint8_t *at, size_t len)
{
	uint64_t w = 0;

	for (size_t i = 0; i < len; i++)
		w |= (uint64_t)at[i] << (8 * i);
	return w;
}

struct key_hash key_hash(const uint64_t seed[2], struct bytes key, int rounds, int final_rounds)
{
	struct sip s = {seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d ^ 0xee,
		seed[0] ^ 0x6c7967656e657261, seed[1] ^ 0x7465646279746573};
	struct key_hash h;
	size_t at = 0;

	for (; key.len - at >= 8; at += 8)
		sip_add(&s, word_le(key.at + at, 8), rounds);
	sip_add(&s, word_le(key.at + at, key.len - at) | (uint64_t)key.len << 56, rounds);
	s.v2 ^= 0xee;
	h.a = sip_end(&s, final_rounds);
	s.v1 ^= 0xdd;
	h.b = sip_end(&s, final_rounds);
	return h;
}

/* --- the map --- */

struct key_map *key_map_new(uint64_t keys, size_t bytes_max)
{
	uint64_t room = bytes_max / sizeof(struct slot);
	struct key_map *m;
	struct slot *slots;

	if (keys < KEYS_MIN)
		keys = KEYS_MIN;
	if (keys < room / 2)
		room = keys * 2;
	if (room < KEYS_MIN)
		room = KEYS_MIN;
	slots = calloc(room, sizeof *slots);
	if (slots == NULL)
		return NULL;
	m = mem_new(sizeof *m);
	random_fill(m->seed, sizeof m->seed);
	m->slots = slots;
	m->size = room;
	m->count_max = room / 10 * 9;
	return m;
}

void key_map_free(struct key_map *m)
{
	if (m == NULL)
		return;
	free(m->slots);
	mem_free(m);
}

/* The key's slot, or the empty one where it belongs. */
static struct slot *slot_of(const struct key_map *m, struct bytes key, struct key_hash *h)
{
	uint64_t at;

	*h = key_hash(m->seed, key, ROUNDS, FINAL_ROUNDS);
	at = (uint64_t)((unsigned __int128)h->a * m->size >> 64);
	for (;; at = at + 1 < m->size ? at + 1 : 0) {
		struct slot *s = &m->slots[at];

		if (s->next == 0 || (s->a == h->a && s->b == h->b))
			return s;
	}
}

bool key_map_put(struct key_map *m, struct bytes key, int64_t offset)
{
	struct key_hash h;
	struct slot *s = slot_of(m, key, &h);

	if (s->next == 0 && m->count == m->count_max)
		return false;
	m->count += s->next == 0;
	*s = (struct slot){h.a, h.b, (uint64_t)offset + 1};
	return true;
}

int64_t key_map_get(const struct key_map *m, struct bytes key)
{
	struct key_hash h;

	return (int64_t)slot_of(m, key, &h)->next - 1;
}

uint64_t key_map_count(const struct key_map *m)
{
	return m->count;
}
