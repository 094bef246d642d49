/* The table of rows of one group. The log is the truth; this is its applied state: what is in use
 * sits in memory, what was changed goes to the store later, coalesced, together with the applied
 * mark (rows_write_back), the rest is read from the store when asked for. Rows carry, beside the
 * applied value, the one they will have once the leader's pending entries are applied.
 * Thread: the group's home loop. Owner: the partition. */
#ifndef CLUSTER_ROWS_H
#define CLUSTER_ROWS_H
#include "cluster/partition.h"

struct rows;
struct rows_cache; /* one per loop: rows of all its tables share a budget of memory */

/* Rows that are in the store as they are in memory leave when there are more than bytes_max. */
struct rows_cache *rows_cache_new(size_t bytes_max);
void rows_cache_free(struct rows_cache *c); /* after all tables */
size_t rows_cache_bytes(const struct rows_cache *c);
size_t rows_cache_count(const struct rows_cache *c);
void rows_cache_trim(struct rows_cache *c);

struct rows *rows_new(const struct plog_env *env, struct rows_cache *cache, uint64_t group);
/* Nothing of the group is in the store: what is not in memory does not exist. */
void rows_fresh(struct rows *t);
/* Reads a small table whole. Boot: may block. ERR_IO, ERR_CORRUPT. */
enum err rows_load(struct rows *t) MUST_USE;
/* idle runs when nothing of the table is under way: inside the call, or later from the loop. */
void rows_when_idle(struct rows *t, void (*idle)(void *arg), void *arg);
void rows_free(struct rows *t); /* idle */
/* Forgets everything in memory: the store has been replaced under it (an install). */
void rows_reset(struct rows *t);

/* The value as applied, or with pending as after the newest pending entry and what is staged.
 * Borrowed until the next call. ERR_NOTFOUND; ERR_MORE: ask rows_fetch. */
enum err rows_get(struct rows *t, bool pending, uint8_t keyspace, struct bytes key,
	struct bytes *out) MUST_USE;

struct rows_fetch {       /* embed */
	struct list node; /* private */
	void (*done)(struct rows_fetch *f, enum err e);
};
/* done runs from the loop, never inside the call; then the row is in memory. */
void rows_fetch(struct rows *t, uint8_t keyspace, struct bytes key, struct rows_fetch *f);
void rows_fetch_cancel(struct rows_fetch *f);

/* What one proposal writes is staged while it is evaluated, then kept as pending with the index of
 * its entry, or dropped. ERR_TOOBIG: the key. */
enum err rows_stage(struct rows *t, const struct row_change *row) MUST_USE;
void rows_stage_keep(struct rows *t, uint64_t index);
void rows_stage_drop(struct rows *t);
/* All pending values go: leadership is lost, or nothing is in flight any more. */
void rows_drop_pending(struct rows *t);
size_t rows_pending(const struct rows *t);

/* The row of entry index, which is committed. */
void rows_apply(struct rows *t, uint64_t index, const struct row_change *row);
size_t rows_dirty_bytes(const struct rows *t);
/* Stages all changed rows in the lane; the caller adds the applied mark in the same turn. */
size_t rows_write_back(struct rows *t);

struct rows_scan {      /* embed: keys with a prefix, after `after` if that has bytes, in order */
	struct job job; /* private */
	struct rows *table;
	struct store_snapshot *snapshot;
	struct rows_mem *mems;
	int mem_count;
	/* asked; bytes borrowed until done: */
	uint8_t keyspace;
	struct bytes prefix, after;
	int rows_max;
	size_t bytes_max;
	/* given: */
	enum err err;
	struct row *rows; /* keys and values lie in held; the caller frees both */
	int count;
	bool more;
	struct chunk *held;
	void (*done)(struct rows_scan *s);
};
/* The table as applied at the time of the call. done never runs inside the call. */
void rows_scan(struct rows *t, struct rows_scan *s);
/* One keyspace, synchronously; may block. each may not change the table. */
enum err rows_walk(struct rows *t, uint8_t keyspace,
	void (*each)(void *arg, struct bytes key, struct bytes value), void *arg) MUST_USE;

#endif
