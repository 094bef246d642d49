/* The store: ordered keys in families, written in atomic batches, made durable by sync. Two
 * implementations under one conformance test: RocksDB (store_rocks.c) and a seeded ordered map
 * (store_mem.c) for tests and the simulator, which on store_mem_crash keeps a random prefix of
 * the unsynced writes. Only the writer and syncer threads write and sync; any thread reads. */
#ifndef STORAGE_STORE_H
#define STORAGE_STORE_H
#include "server/base/buf.h"

enum store_family {
	FAMILY_IDX,  /* group:8 index:8 -> entry header (entry.h), no blobs */
	FAMILY_ROWS, /* group:8 keyspace:1 key -> row value */
	FAMILY_META, /* group:8 what:1 -> terms, votes, marks */
	FAMILY_LOG_HOURS,
	FAMILY_LOG_DAYS,
	FAMILY_LOG_LONG,
	FAMILY_LOG_COMPACTED,
	/* group:8 index:8 -> payload, one family per class of retention */
	FAMILY_COUNT
};

struct store;
struct store_batch;
struct store_snapshot;
struct store_iter;

struct store_options {
	int64_t wal_bytes_max;      /* default 160 MiB */
	int64_t write_buffer_bytes; /* bound over all families */
	int64_t block_cache_bytes;
	int open_files_max; /* far below the process limit */
	int background_threads;
	bool direct; /* files are written past the page cache, where the file system can */
	bool scarce; /* the disk is full: opening takes as little of it as can be */
};
/* 160 MiB of WAL, 192 MiB of write buffers, 64 MiB of blocks, 1024 files, 2 threads, direct. */
struct store_options store_options_default(void);
bool store_family_is_log(enum store_family f);
const char *store_family_name(enum store_family f);
/* Whether so much of a family's blob bytes is garbage that what lives is written anew. */
bool store_garbage_much(enum store_family f, int64_t total, int64_t garbage);

/* Opens or creates. ERR_BUSY: another process holds it; ERR_IO, ERR_CORRUPT. why: one line. */
enum err store_open_rocks(const char *dir, const struct store_options *o, struct store **out,
	char *why, size_t why_size) MUST_USE;
enum err store_open_mem(uint64_t seed, struct store **out) MUST_USE;
/* Loses a random suffix of what was written since the last sync, as a crash would. */
void store_mem_crash(struct store *s);
void store_close(struct store *s); /* flushes memtables (a clean stop) */

struct store_batch *store_batch_new(struct store *s);
void store_batch_free(struct store_batch *b);
void store_batch_clear(struct store_batch *b);
size_t store_batch_bytes(const struct store_batch *b);
int store_batch_count(const struct store_batch *b);
/* The value is the parts one after another; all bytes are copied. */
void store_put(struct store_batch *b, enum store_family f, struct bytes key,
	const struct bytes *parts, int part_count);
void store_delete(struct store_batch *b, enum store_family f, struct bytes key);
void store_delete_range(
	struct store_batch *b, enum store_family f, struct bytes from, struct bytes to);
enum err store_write(struct store *s, struct store_batch *b) MUST_USE; /* ERR_IO, ERR_NOSPACE */
enum err store_sync(struct store *s) MUST_USE;
/* Past the log of writes, so what is large goes to the disk once and not twice. store_sync says
 * nothing about it: of what was written so a crash keeps, per family, a prefix, all that was
 * written before a store_flush of that family began which ended, and never more than was logged
 * before it: with any of it, all that store_write had written before. */
enum err store_write_unlogged(struct store *s, struct store_batch *b) MUST_USE;
/* Slow: a worker's. ERR_IO, ERR_NOSPACE. */
enum err store_flush(struct store *s, enum store_family f) MUST_USE;

/* Reads. snapshot NULL: the newest state. Values are given as slices of their own. */
struct store_snapshot *store_snapshot_new(struct store *s);
void store_snapshot_free(struct store *s, struct store_snapshot *snapshot);
enum err store_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	struct bytes key, struct slice *out) MUST_USE; /* ERR_NOTFOUND, ERR_IO, ERR_CORRUPT */
/* Each out[i].chunk is NULL where the key is not there. */
enum err store_multi_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	int count, const struct bytes *keys, struct slice *out) MUST_USE;
/* Walks [from, to). Forward: starts at the first key; else at the last. */
struct store_iter *store_iter_new(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, struct bytes from, struct bytes to, bool forward);
bool store_iter_valid(const struct store_iter *i);
void store_iter_step(struct store_iter *i);
struct bytes store_iter_key(const struct store_iter *i); /* good until the next step */
struct bytes store_iter_value(const struct store_iter *i);
enum err store_iter_free(struct store_iter *i); /* ERR_IO, ERR_CORRUPT if the walk broke off */

struct store_stats {
	int64_t disk_bytes; /* all files */
	int64_t blob_bytes[FAMILY_COUNT], blob_garbage_bytes[FAMILY_COUNT];
	int64_t wal_bytes, memtable_bytes, block_cache_bytes;
	uint64_t last_sequence; /* grows with every write */
};
void store_stats(struct store *s, struct store_stats *out);
uint64_t store_sequence(struct store *s); /* stats.last_sequence alone, cheap */
/* Cheap numbers of what the store has been asked, for tests and metrics: gets of a family's
 * keys, multi-gets counted by key, and steps of iterators. */
uint64_t store_reads(const struct store *s, enum store_family f);
/* Gives the space of deleted keys in [from, to) back to the disk (blob files too). Slow: worker. */
enum err store_reclaim(
	struct store *s, enum store_family f, struct bytes from, struct bytes to) MUST_USE;
const char *store_dir(const struct store *s); /* "" for the map */

#endif
