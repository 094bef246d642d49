/* Storage as a whole: every disk of data.dir with its store, writer and keepers, and what the
 * logs of each loop and disk share. Boot: storage_open before loops_run; then plog_open for what
 * storage_groups lists. End: close the logs, loops_stop, storage_stop, loops_free, storage_free. */
#ifndef STORAGE_STORAGE_H
#define STORAGE_STORAGE_H
#include "server/base/conf.h"
#include "storage/disk.h"
#include "storage/plog.h"
#include "storage/storage_metrics.h"

enum { DISKS_MAX = 16 };

struct storage_conf {
	const char *dir;              /* data.dir */
	int64_t reserve_bytes;        /* disk.reserve */
	int64_t stall_ms;             /* disk.stall */
	int64_t tail_bytes;           /* storage.tail_cache, over all loops */
	int64_t write_buffer_bytes;   /* storage.write_buffers, over all disks */
	int64_t block_cache_bytes;    /* storage.block_cache, over all disks */
	int64_t wal_bytes;            /* storage.wal */
	int64_t open_files;           /* storage.open_files */
	bool direct;                  /* storage.direct */
	int64_t compact_rate_bytes;   /* compaction.rate, over all disks */
	int64_t compact_memory_bytes; /* compaction.memory, over all disks */
};
extern const struct conf_row storage_rows[]; /* over a struct storage_conf */

struct storage;

/* ERR_BUSY: data locked. ERR_CORRUPT: a store counts as wiped. why: one line. */
enum err storage_open(const struct storage_conf *c, struct loops *loops, struct workers *workers,
	struct storage **out, char *why, size_t why_size) MUST_USE;
void storage_stop(struct storage *s); /* all is written and synced; the loops stand */
void storage_free(struct storage *s); /* flushes and closes */
/* Both, for those who free the loops only afterwards. */
void storage_close(struct storage *s);

int storage_disks(const struct storage *s);
struct disk *storage_disk(const struct storage *s, int disk);
/* The disk with the most free space: for a new group. */
int storage_disk_for_new(const struct storage *s);
/* Shared by the logs of that loop and disk; lives as long as storage. */
const struct plog_env *storage_env(const struct storage *s, int loop_index, int disk);
/* Calls each for every group of every disk until it returns false. Boot. */
enum err storage_groups(const struct storage *s,
	bool (*each)(int disk, const struct plog_group_row *row, void *arg), void *arg) MUST_USE;
/* Whether every disk takes writes, and none hangs: for health pages. */
bool storage_writable(const struct storage *s);
bool storage_stalled(const struct storage *s);

#endif
