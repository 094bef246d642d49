/* The side file of a store: its last synced sequence number and, for each group, up to where its
 * log was synced and applied, written once a second. A store that comes back with less has lost
 * what it had promised to keep (a hole in the middle of its log of writes, an old copy of the
 * files), and must not take part as if it were merely a bit older: it counts as wiped.
 * Slots are set by the groups' loops; reading the file is for boot, writing it for one thread. */
#ifndef STORAGE_SIDE_H
#define STORAGE_SIDE_H
#include "server/base/wire.h"

struct side;
struct side_slot;

/* Reads dir/side if it is there. ERR_IO, ERR_CORRUPT (a checksum: it is written by rename). */
enum err side_open(const char *dir, struct side **out) MUST_USE;
void side_close(struct side *s);
/* What the file said: 0 without one. */
uint64_t side_sequence(const struct side *s);
/* Whether the file knew more of the group's log, in that generation, than last_index. */
bool side_behind(const struct side *s, uint64_t group, uint32_t generation, uint64_t last_index);

/* A group's slot; stays the side's. Any thread. */
struct side_slot *side_slot_new(struct side *s, uint64_t group);
void side_slot_set(struct side_slot *slot, uint32_t generation, uint64_t index);
void side_slot_free(struct side_slot *slot); /* NULL is fine */

/* Writes what the slots say, if something moved. sequence must be synced. ERR_IO, ERR_NOSPACE. */
enum err side_write(struct side *s, uint64_t sequence) MUST_USE;

#endif
