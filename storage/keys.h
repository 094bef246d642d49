/* The keys of the store, all big endian so that they sort by number. Pure. */
#ifndef STORAGE_KEYS_H
#define STORAGE_KEYS_H
#include "server/base/wire.h"

enum {
	ENTRY_KEY_BYTES = 16,
	META_KEY_BYTES = 9,
	ROW_KEY_PREFIX_BYTES = 9,
	ROW_KEY_BYTES_MAX = 65536
};

enum meta_what { /* what a group keeps in FAMILY_META; values: plog.h */
	META_TERM_VOTE = 1,
	META_SNAPSHOT,
	META_APPLIED,
	META_TRIM,
	META_GROUP,
	META_SEEDING,
	META_CLEANED
};

struct entry_key {
	uint8_t at[ENTRY_KEY_BYTES];
};
struct meta_key {
	uint8_t at[META_KEY_BYTES];
};

struct entry_key key_entry(uint64_t group, uint64_t index);
struct meta_key key_meta(uint64_t group, enum meta_what what);
/* Where a group's keys start, in every family; the next group's is where they end. */
struct group_key {
	uint8_t at[8];
};
struct group_key key_group(uint64_t group);
/* The way back; false: not such a key. */
bool key_entry_read(struct bytes key, uint64_t *group, uint64_t *index);
bool key_meta_read(struct bytes key, uint64_t *group, uint8_t *what);
/* Writes prefix and key to out, which has room for both; gives the length. */
size_t key_row(uint64_t group, uint8_t keyspace, struct bytes key, uint8_t *out);
#define KEY_BYTES(k) bytes_of((k).at, sizeof(k).at)

#endif
