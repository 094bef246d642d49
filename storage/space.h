/* The space keeper of a store: deleted entries take disk space until the files that hold them are
 * rewritten, and RocksDB alone hardly ever does. It collects what trims report and, once enough
 * of a family is dead or the disk is short, has the store reclaim those ranges, slice by slice.
 * space_note: any thread. space_run: one thread of its own, since reclaiming takes long. */
#ifndef STORAGE_SPACE_H
#define STORAGE_SPACE_H
#include "storage/store.h"

struct space;

/* settle_ms: how old a note must be, so that the deletes it tells of have been written. */
struct space *space_new(struct store *s, int64_t settle_ms);
void space_free(struct space *sp);
/* Entries of the group below index are deleted or were replaced by shorter ones; bytes: what they
 * held, 0 if not known. */
void space_note(
	struct space *sp, uint64_t group, enum store_family f, uint64_t index, uint64_t bytes);
/* Reclaims what is worth it, all that was noted under pressure; stop: looked at between slices.
 * Gives the number of ranges. */
int space_run(struct space *sp, bool pressure, const _Atomic bool *stop);

#endif
