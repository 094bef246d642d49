/* The newest offset of each key, for compaction. Keys are known by 128 bits of a keyed hash
 * (SipHash-1-3, a random key for each map), so nobody can aim at a collision: with n keys in a map
 * the odds that any two are taken for one are n * n / 2^129, for 2.8 million keys (64 MiB) 1 in
 * 10^26 a run. A bound of memory, no growth. Thread: its owner's. */
#ifndef STORAGE_KEY_MAP_H
#define STORAGE_KEY_MAP_H
#include "server/base/wire.h"

enum { KEY_MAP_SLOT_BYTES = 24 };
struct key_map;

/* For up to `keys` keys, fewer if they do not fit into bytes_max. NULL: no memory. */
struct key_map *key_map_new(uint64_t keys, size_t bytes_max);
void key_map_free(struct key_map *m); /* NULL is fine */
/* offset is greater than any before. False: it is full, and the key not in it. */
bool key_map_put(struct key_map *m, struct bytes key, int64_t offset);
int64_t key_map_get(const struct key_map *m, struct bytes key); /* -1: not there */
uint64_t key_map_count(const struct key_map *m);

/* The hash, for its test vectors. */
struct key_hash {
	uint64_t a, b;
};
struct key_hash key_hash(const uint64_t seed[2], struct bytes key, int rounds, int final_rounds);

#endif
