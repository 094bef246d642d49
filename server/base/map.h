/* A hash map from bytes (or a 64-bit number) to a pointer; grows and shrinks by itself, keyed
 * by a per-process random seed so that peers can't aim at collisions. Keys are borrowed: they
 * must live in the value, or at least as long as the entry. Owner's thread only. */
#ifndef BASE_MAP_H
#define BASE_MAP_H
#include "server/base/wire.h"

struct map_slot;
struct map { /* all zero bytes = an empty map that owns no memory */
	struct map_slot *slots;
	uint32_t mask;  /* slots - 1 */
	uint32_t count; /* entries */
	uint32_t used;  /* entries and tombstones */
};

void map_fini(struct map *m);                         /* frees the table, not the values */
void *map_get(const struct map *m, struct bytes key); /* NULL: not there */
void *map_get_u64(const struct map *m, uint64_t key);
/* Sets or replaces; gives the value replaced, or NULL. value is not NULL. */
void *map_put(struct map *m, struct bytes key, void *value);
void *map_put_u64(struct map *m, uint64_t key, void *value);
/* Takes the entry out; gives its value, or NULL. */
void *map_remove(struct map *m, struct bytes key);
void *map_remove_u64(struct map *m, uint64_t key);
/* Walks in no order: start with *at = 0; NULL at the end. Removing the entry just given is
 * allowed, adding is not. */
void *map_next(const struct map *m, uint32_t *at);

/* The hash used, for those who keep their own tables. */
uint64_t hash_bytes(struct bytes b);
uint64_t hash_u64(uint64_t v);
/* Simulator and tests: hashes and the order of walks repeat. While no map holds entries. */
void hash_seed(uint64_t seed);
/* Kafka's default partitioner, murmur2 with seed 0x9747b28c (org.apache.kafka.common.utils). */
uint32_t hash_murmur2(struct bytes b);

#endif
