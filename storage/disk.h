/* One folder of data.dir: its lock and format, its free space, its store, writer and side file,
 * and the threads that keep them. Any loop may ask disk_admit and disk_stalled: they read one
 * word. Writes are refused while free space is below the reserve, and admitted again by itself;
 * a ballast file is freed for trimming and reclaiming when space is short. */
#ifndef STORAGE_DISK_H
#define STORAGE_DISK_H
#include "storage/side.h"
#include "storage/writer.h"

struct disk;

struct disk_options {
	int64_t reserve_bytes; /* disk.reserve */
	int64_t stall_ms;      /* disk.stall: leaders step aside */
	int64_t abort_ms;      /* the process ends; 0: never */
	struct store_options store;
};

/* Locks and opens the folder, which is created. Starts writer and keepers. why: one line.
 * ERR_BUSY: locked by another process. ERR_UNSUPPORTED: a newer format. ERR_CORRUPT: it lacks
 * what the side file says was synced; the replicas in it count as wiped. ERR_IO. */
enum err disk_open(const char *dir, const struct disk_options *o, struct loops *loops,
	struct disk **out, char *why, size_t why_size) MUST_USE;
/* loops_stop, disk_stop (all is written, synced and flushed), loops_free, disk_free. */
void disk_stop(struct disk *d);
void disk_free(struct disk *d);

struct store *disk_store(const struct disk *d);
struct writer *disk_writer(const struct disk *d);
struct side *disk_side(const struct disk *d);
const char *disk_dir(const struct disk *d);

/* Asked for every proposal, with its bytes: false while space is short. */
bool disk_admit(struct disk *d, size_t bytes);
/* The same without taking anything. */
bool disk_writable(const struct disk *d);
int64_t disk_free_bytes(const struct disk *d); /* as last seen */
/* A write or sync hangs for longer than disk.stall: leaders on this disk step aside. */
bool disk_stalled(const struct disk *d);

/* Entries of a group below index were deleted: some time their space is given back (space.h). */
void disk_trimmed(
	struct disk *d, uint64_t group, enum store_family f, uint64_t index, uint64_t bytes);

#endif
