/* Open addressing with linear probing over a power of two of slots. A slot keeps the whole hash,
 * so that probing compares keys only where they are almost surely equal and growing touches no
 * key. Removal leaves a tombstone unless the next slot is empty; tombstones count as used and go
 * when the table is rebuilt. The table is rebuilt only by putting, never by removing, which is
 * what makes removal during a walk safe.
 *
 * The hash multiplies 64 by 64 bits and folds the 128 of the result, 16 bytes of key a step, each
 * step keyed by secrets drawn at the start of the process. */
#include "server/base/map.h"
#include "server/base/clock.h"
#include "server/base/mem.h"

enum { SLOTS_MIN = 8 };
enum { HASH_EMPTY = 0, HASH_TOMB = 1, HASH_FIRST = 2 }; /* hash of a slot without value */

struct map_slot {
	uint64_t hash;
	const uint8_t *at; /* the key; NULL: the key is the number in len */
	uint64_t len;
	void *value; /* NULL: empty or a tombstone */
};

__extension__ typedef unsigned __int128 uint128;

static uint64_t secret[4];

static uint64_t fold(uint64_t a, uint64_t b)
{
	uint128 product = (uint128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

void hash_seed(uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		seed += 0x9e3779b97f4a7c15u;
		secret[i] = fold(seed ^ 0xa0761d6478bd642fu, seed ^ 0xe7037ed1a0b428dbu) | 1;
	}
}

/* Before main: the hot path need not ask whether the secrets are there. */
__attribute__((constructor)) static void secrets_draw(void)
{
	random_fill(secret, sizeof secret);
	for (int i = 0; i < 4; i++)
		secret[i] |= 1;
}

static uint64_t load(const uint8_t *p, size_t len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static uint64_t load8(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t load4(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

uint64_t hash_bytes(struct bytes b)
{
	uint64_t state = secret[0], x = 0, y = 0;
	const uint8_t *p = b.at;
	size_t left = b.len;

	while (left > 16) {
		state = fold(load8(p) ^ secret[1], load8(p + 8) ^ state);
		p += 16;
		left -= 16;
	}
	if (left >= 8) { /* the two words may overlap */
		x = load8(p);
		y = load8(p + left - 8);
	} else if (left >= 4) {
		x = load4(p);
		y = load4(p + left - 4);
	} else if (left > 0) {
		x = load(p, left);
	}
	state = fold(x ^ secret[2], y ^ state);
	return fold(state ^ secret[3], b.len ^ secret[1]);
}

uint64_t hash_u64(uint64_t v)
{
	return fold(fold(v ^ secret[0], secret[1]) ^ v, secret[2]);
}

uint32_t hash_murmur2(struct bytes b)
{
	const uint32_t m = 0x5bd1e995;
	uint32_t h = 0x9747b28cu ^ (uint32_t)b.len;
	const uint8_t *p = b.at;
	size_t left = b.len;

	for (; left >= 4; p += 4, left -= 4) {
		uint32_t k = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
			(uint32_t)p[3] << 24;
		k *= m;
		k ^= k >> 24;
		h = h * m ^ k * m;
	}
	if (left > 2)
		h ^= (uint32_t)p[2] << 16;
	if (left > 1)
		h ^= (uint32_t)p[1] << 8;
	if (left > 0)
		h = (h ^ p[0]) * m;
	h ^= h >> 13;
	h *= m;
	return h ^ h >> 15;
}

static struct map_slot key_of_bytes(struct bytes key)
{
	uint64_t hash = hash_bytes(key);

	return (struct map_slot){hash < HASH_FIRST ? hash + HASH_FIRST : hash,
		key.len ? key.at : (const uint8_t *)"", key.len, NULL};
}

static struct map_slot key_of_u64(uint64_t key)
{
	uint64_t hash = hash_u64(key);

	return (struct map_slot){hash < HASH_FIRST ? hash + HASH_FIRST : hash, NULL, key, NULL};
}

static bool key_equal(const struct map_slot *a, const struct map_slot *b)
{
	if (a->hash != b->hash || a->len != b->len || (a->at == NULL) != (b->at == NULL))
		return false;
	return a->at == NULL || a->at == b->at || memcmp(a->at, b->at, a->len) == 0;
}

static struct map_slot *find(const struct map *m, const struct map_slot *key)
{
	if (m->count == 0)
		return NULL;
	for (uint32_t i = (uint32_t)key->hash & m->mask;; i = (i + 1) & m->mask) {
		struct map_slot *s = &m->slots[i];
		if (s->hash == HASH_EMPTY)
			return NULL;
		if (key_equal(s, key))
			return s;
	}
}

/* Rebuilds the table so that it is at most half full after one more. */
static void rebuild(struct map *m)
{
	struct map_slot *old = m->slots;
	uint32_t old_slots = old ? m->mask + 1 : 0, slots = SLOTS_MIN;

	must(m->count < UINT32_MAX / 8);
	while (slots < (m->count + 1) * 2)
		slots *= 2;
	m->slots = mem_new(slots * sizeof *m->slots);
	m->mask = slots - 1;
	m->used = m->count;
	for (uint32_t j = 0; j < old_slots; j++) {
		uint32_t i = (uint32_t)old[j].hash & m->mask;
		if (old[j].value == NULL)
			continue;
		while (m->slots[i].value != NULL)
			i = (i + 1) & m->mask;
		m->slots[i] = old[j];
	}
	mem_free(old);
}

static void *put(struct map *m, struct map_slot key, void *value)
{
	struct map_slot *s = find(m, &key);
	uint64_t slots = m->slots ? (uint64_t)m->mask + 1 : 0;

	must(value != NULL);
	key.value = value;
	if (s != NULL) {
		void *before = s->value;
		*s = key; /* the old key may go with the old value */
		return before;
	}
	if ((uint64_t)m->used * 4 >= slots * 3 || (slots > SLOTS_MIN && m->count < slots / 16))
		rebuild(m);
	uint32_t i = (uint32_t)key.hash & m->mask;
	while (m->slots[i].value != NULL)
		i = (i + 1) & m->mask;
	m->used += m->slots[i].hash == HASH_EMPTY;
	m->slots[i] = key;
	m->count++;
	return NULL;
}

static void *take(struct map *m, struct map_slot key)
{
	struct map_slot *s = find(m, &key);
	void *value;
	uint32_t i;

	if (s == NULL)
		return NULL;
	value = s->value;
	i = (uint32_t)(s - m->slots);
	*s = (struct map_slot){.hash = HASH_TOMB};
	m->count--;
	/* Nothing probes past an empty slot, so tombstones just before one are not needed. */
	if (m->slots[(i + 1) & m->mask].hash == HASH_EMPTY) {
		for (; m->slots[i].hash == HASH_TOMB; i = (i - 1) & m->mask) {
			m->slots[i].hash = HASH_EMPTY;
			m->used--;
		}
	}
	if (m->count == 0 && m->mask >= SLOTS_MIN)
		map_fini(m);
	return value;
}

void map_fini(struct map *m)
{
	mem_free(m->slots);
	*m = (struct map){0};
}

void *map_get(const struct map *m, struct bytes key)
{
	struct map_slot k, *s;

	if (m->count == 0)
		return NULL;
	k = key_of_bytes(key);
	s = find(m, &k);
	return s ? s->value : NULL;
}

void *map_get_u64(const struct map *m, uint64_t key)
{
	struct map_slot k = key_of_u64(key), *s = find(m, &k);

	return s ? s->value : NULL;
}

void *map_put(struct map *m, struct bytes key, void *value)
{
	return put(m, key_of_bytes(key), value);
}

void *map_put_u64(struct map *m, uint64_t key, void *value)
{
	return put(m, key_of_u64(key), value);
}

void *map_remove(struct map *m, struct bytes key)
{
	return take(m, key_of_bytes(key));
}
void *map_remove_u64(struct map *m, uint64_t key)
{
	return take(m, key_of_u64(key));
}

void *map_next(const struct map *m, uint32_t *at)
{
	while (m->slots != NULL && *at <= m->mask) {
		void *value = m->slots[(*at)++].value;
		if (value != NULL)
			return value;
	}
	return NULL;
}
