/* Compaction by key: of the records of a key only the newest stays, and a null value (a tombstone)
 * not even that, once delete.retention.ms has passed since nothing older of its key is there. Each
 * replica compacts its own log, up to where nothing is needed as it was appended any more; offsets
 * stay, so there are gaps.
 *
 * A run reads what came since the last one into a map of keys (key_map.h), as much as fits, then
 * the log from its start, and exchanges the entries that lose records. It goes by slices: a worker
 * reads and prepares, the home loop stages, each slice durable before the next one, all at a
 * bounded rate. What a crash leaves are old and new entries, each whole; then the run begins anew.
 * Thread: the log's home loop, but for compact_rate and turns. */
#ifndef STORAGE_COMPACT_H
#define STORAGE_COMPACT_H
#include <stdatomic.h>
#include "storage/batch_filter.h"
#include "storage/plog.h"

struct compact_policy {
	uint32_t dirty_ppm; /* min.cleanable.dirty.ratio in millionths */
	int64_t delete_retention_ms, lag_min_ms, lag_max_ms;
};

/* Over all disks: a time when all that was taken has gone at the rate. It may lie a moment back:
 * work takes time, too, and who waited for nothing but the rate would stay below it. Any thread. */
struct compact_rate {
	int64_t bytes; /* a second; 0: no limit */
	_Atomic int64_t until_us;
};
/* Takes bytes; gives the ms to wait before more may be. */
int64_t compact_rate_take(struct compact_rate *r, int64_t now_us, int64_t bytes);

struct compactor; /* one per disk: runs there take turns, one at a time */
struct compactor *compactor_new(struct compact_rate *rate, size_t memory_bytes);
void compactor_free(struct compactor *c); /* NULL is fine */

/* An estimate, from memory: whether a run may be due. limit_index: entries from there on stay. */
bool compaction_due(const struct plog *p, const struct compact_policy *policy, uint64_t limit_index,
	int64_t wall_ms);

enum compact_phase { COMPACT_IDLE, COMPACT_PLAN, COMPACT_MAP, COMPACT_FILTER };

struct compaction { /* embed, zeroed; one run under way each */
	/* asked: */
	struct plog *log;
	struct compact_policy policy;
	uint64_t limit_index; /* entries from here on stay as they are, for good */
	/* given: */
	enum err err; /* ERR_CLOSED: the log is not what it was; ERR_NOMEM, ERR_IO, ERR_NOSPACE */
	bool ran;     /* false: it was not due after all */
	void (*done)(struct compaction *c); /* on the home loop, not inside the calls below */
	/* private: */
	struct job job;
	struct loop_timer timer;
	struct durable durable;
	enum compact_phase phase;
	bool working, cancelled, more, over;
	uint32_t generation;
	int64_t wall_ms, last_offset; /* of the log, when it began */
	uint64_t first_bytes;
	uint64_t low, end_index, next_index; /* entries looked at are [low, end_index] */
	int64_t from_offset, end_offset;     /* what is compared anew */
	int64_t dirty_ms, append_ms;         /* of its first entry, its last */
	uint64_t log_bytes, held_bytes;
	bool tombstones[CLEANED_SECTIONS_MAX + 1]; /* left in the old sections, the new one */
	struct plog_cleaned before;
	struct key_map *map;
	struct entry **made; /* of a slice */
	uint32_t made_count, made_room;
	int64_t read_bytes, written_bytes, removed_bytes, removed_all;
	int64_t removed_records, removed_tombstones, unreadable;
};

/* Begins a run if it is this log's turn on its disk; then done runs once. Takes c until done. */
bool compaction_start(struct compaction *c);
/* It ends at the next opportunity, with ERR_CLOSED. Nothing is under way: fine. */
void compaction_cancel(struct compaction *c);

#endif
