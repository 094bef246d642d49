/* The store in RocksDB, through its C interface. What the options below settle was measured:
 *
 * - One WAL for all families, bounded: replaying it is what a restart after a crash costs, and an
 *   idle family would otherwise pin it. A torn tail is cut off, and what is found behind a hole
 *   is not taken (point in time), so the store comes back as it was at some moment.
 * - Payloads from 4 KiB live in blob files, a file per flush: compaction moves only their keys.
 *   Garbage in blob files is left alone until store_reclaim asks; RocksDB's own collector reads
 *   and writes much and returns nearly nothing.
 * - Files are written past the page cache, DIRECT_BYTES at a time, where the file system can: a
 *   flush has no more than that in the disk's queue, where syncs wait behind it, and costs less
 *   processor time. The price: who reads what memory no longer holds reads from the disk the first
 *   time. strict_bytes_per_sync (a flush waits for each MiB) kept syncs as short, but cost 14 to
 *   18 % of replicated produce's processor time.
 * - No hint of random access at opening: readers of old entries go forward.
 * - Logs are not compressed again (their batches may be), other families by LZ4.
 *
 * The C interface makes a string of every error; the first words tell the kind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/rocks_crc.h"
#include "storage/store_priv.h"

enum {
	BLOB_BYTES_MIN = 4096,
	LOG_BUFFER_BYTES = 256 << 20,  /* a blob file's size, unless the WAL's bound comes first */
	SMALL_BUFFER_BYTES = 16 << 20, /* of compacted logs */
	DIRECT_BYTES = 256 << 10,      /* a write past the page cache */
	DIRECT_ALIGN = 4096,
	BUFFERS_MAX = 4,     /* of a family that is written faster than flushed */
	SLOW_AT_TABLES = 20, /* flushed and not yet sorted in: writes are slowed down, */
	STOP_AT_TABLES = 36, /* stopped; RocksDB's numbers, for large buffers */
	OTHER_BUFFER_BYTES = 64 << 20,
	META_BUFFER_BYTES = 8 << 20,
	LOG_TABLE_BYTES = 8 << 20, /* small: what one compaction of a trimmed range touches */
	RECLAIM_WAIT_MS = 60000,   /* bounds the wait for forced blob collection */
	HANDLES = FAMILY_COUNT + 1 /* and RocksDB's default family, which stays empty */
};

struct store_rocks {
	struct store base;
	rocksdb_t *db;
	rocksdb_column_family_handle_t *families[HANDLES]; /* the last is the default one */
	rocksdb_options_t *options[HANDLES];
	size_t log_buffer_bytes;
	rocksdb_cache_t *cache;
	rocksdb_writeoptions_t *write_options, *unlogged_options;
	rocksdb_flushoptions_t *flush_options;
	rocksdb_readoptions_t *read_options, *log_read_options;
};

struct batch_rocks {
	struct store_batch base;
	struct store_rocks *store;
	rocksdb_writebatch_t *rep;
	size_t bytes; /* of keys and values: RocksDB tells its own only by handing out all of it */
};

struct iter_rocks {
	struct store_iter base;
	rocksdb_iterator_t *rep;
	rocksdb_readoptions_t *options;
	bool forward;
	struct slice from, to; /* RocksDB borrows the bounds */
};

static struct store_rocks *rocks_of(struct store *s)
{
	return (struct store_rocks *)(void *)s;
}

static struct batch_rocks *batch_of(struct store_batch *b)
{
	return (struct batch_rocks *)(void *)b;
}

static struct iter_rocks *iter_of(const struct store_iter *i)
{
	return (struct iter_rocks *)(uintptr_t)i; /* base is its first member */
}

static const char *text(struct bytes b)
{
	return (const char *)b.at;
}

/* The library's words for a quoted value of a log line: it is read by the one whose disk failed,
 * so blanks stay blanks. */
static void make_plain(char *words)
{
	for (; *words != 0; words++) {
		if (*words < 0x20 || *words > 0x7e)
			*words = '?';
		else if (*words == '"' || *words == '\\')
			*words = '\'';
	}
}

/* Takes the error text of a call; logs what it says. */
static enum err result(char *error, const char *what)
{
	enum err e = ERR_IO;

	if (error == NULL)
		return OK;
	if (strncmp(error, "Corruption", 10) == 0)
		e = ERR_CORRUPT;
	else if (strstr(error, "No space left") != NULL)
		e = ERR_NOSPACE;
	else if (strncmp(error, "NotFound", 8) == 0)
		e = ERR_NOTFOUND;
	make_plain(error);
	LOG(LOG_ERROR, AREA_STORAGE, "store_error", "call=%s err=\"%s\"", what, error);
	rocksdb_free(error);
	return e;
}

/* Half of the budget each: a family that is written faster than flushed is slowed down at four, so
 * the memory of writes is bounded by twice the budget. */
static size_t log_buffer_bytes(const struct store_options *c)
{
	size_t half = (size_t)c->write_buffer_bytes / 2;

	return half < (size_t)LOG_BUFFER_BYTES ? half : (size_t)LOG_BUFFER_BYTES;
}

/* As many more buffers and tables as they are smaller: a disk that is slow for a moment stops
 * nobody sooner. */
static void set_buffers(rocksdb_options_t *o, size_t all, bool small)
{
	size_t each = small && all > SMALL_BUFFER_BYTES ? SMALL_BUFFER_BYTES : all;
	int more = (int)(all / each);

	rocksdb_options_set_write_buffer_size(o, each);
	rocksdb_options_set_max_write_buffer_number(o, BUFFERS_MAX * more);
	rocksdb_options_set_level0_slowdown_writes_trigger(o, SLOW_AT_TABLES * more);
	rocksdb_options_set_level0_stop_writes_trigger(o, STOP_AT_TABLES * more);
}

static void set_blobs(rocksdb_options_t *o)
{
	rocksdb_options_set_enable_blob_files(o, 1);
	rocksdb_options_set_min_blob_size(o, BLOB_BYTES_MIN);
	rocksdb_options_set_blob_file_size(o, (uint64_t)LOG_BUFFER_BYTES);
	rocksdb_options_set_blob_compression_type(o, rocksdb_no_compression);
	rocksdb_options_set_enable_blob_gc(o, 0);
	rocksdb_options_set_compression(o, rocksdb_no_compression);
	rocksdb_options_set_target_file_size_base(o, LOG_TABLE_BYTES);
}

static rocksdb_options_t *family_options(struct store_rocks *r, int f)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_block_cache(t, r->cache);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
	rocksdb_block_based_options_set_block_size(t, 16384);
	rocksdb_block_based_options_set_format_version(t, 5);
	if (f == FAMILY_ROWS)
		rocksdb_block_based_options_set_filter_policy(
			t, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_options_set_block_based_table_factory(o, t);
	rocksdb_block_based_options_destroy(t);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
	if (f < FAMILY_COUNT && store_family_is_log((enum store_family)f)) {
		set_blobs(o);
		set_buffers(o, r->log_buffer_bytes, f == FAMILY_LOG_COMPACTED);
		return o;
	}
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	set_buffers(o, f == FAMILY_IDX || f == FAMILY_ROWS ? OTHER_BUFFER_BYTES : META_BUFFER_BYTES,
		false);
	return o;
}

/* Whether files in the store's folder can be written past the page cache: asked by doing it. */
static bool takes_direct(const char *dir)
{
	_Alignas(DIRECT_ALIGN) static const char block[DIRECT_ALIGN];
	size_t len = strlen(dir) + sizeof "/DIRECT";
	char *path = mem_new(len);
	bool can;
	int fd;

	snprintf(path, len, "%s/DIRECT", dir);
	(void)mkdir(dir, 0750);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_DIRECT, 0640);
	/* A full disk says so only after it took the question. */
	can = fd >= 0 && (pwrite(fd, block, sizeof block, 0) > 0 || errno != EINVAL);
	if (fd >= 0)
		close(fd);
	(void)unlink(path);
	mem_free(path);
	return can;
}

static rocksdb_options_t *db_options(const struct store_options *c, const char *dir)
{
	rocksdb_options_t *o = rocksdb_options_create();

	if (c->direct && takes_direct(dir)) {
		rocksdb_options_set_use_direct_io_for_flush_and_compaction(o, 1);
		rocksdb_options_set_writable_file_max_buffer_size(o, DIRECT_BYTES);
	}
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_create_missing_column_families(o, 1);
	rocksdb_options_set_max_total_wal_size(o, (uint64_t)c->wal_bytes_max);
	rocksdb_options_set_db_write_buffer_size(o, (size_t)c->write_buffer_bytes);
	rocksdb_options_set_max_open_files(o, c->open_files_max);
	rocksdb_options_set_max_background_jobs(o, c->background_threads);
	rocksdb_options_set_wal_recovery_mode(o, rocksdb_point_in_time_recovery);
	rocksdb_options_set_bytes_per_sync(o, 1 << 20);
	/* One thread writes: a second lane into the memtable would only cost. */
	rocksdb_options_set_allow_concurrent_memtable_write(o, 0);
	rocksdb_options_set_enable_write_thread_adaptive_yield(o, 0);
	rocksdb_options_set_info_log_level(o, 2);
	rocksdb_options_set_keep_log_file_num(o, 2);
	rocksdb_options_set_max_log_file_size(o, 1 << 20);
	rocksdb_options_set_max_manifest_file_size(o, 16 << 20);
	return o;
}

/* What is read again from the log of writes stays in memory, instead of being written to files
 * before the log is dropped, and nothing is set aside for files that grow: the leftovers of the
 * process before go only once it is open. The C API has no calls for these two. */
static rocksdb_options_t *scarce(rocksdb_options_t *o)
{
	rocksdb_options_t *out = rocksdb_options_create();
	char *error = NULL;

	rocksdb_get_options_from_string(
		o, "avoid_flush_during_recovery=true;allow_fallocate=false", out, &error);
	if (result(error, "options") != OK) {
		rocksdb_options_destroy(out);
		return o;
	}
	rocksdb_options_destroy(o);
	return out;
}

static void rocks_free(struct store_rocks *r)
{
	for (int f = 0; f < HANDLES; f++) {
		if (r->families[f] != NULL)
			rocksdb_column_family_handle_destroy(r->families[f]);
	}
	if (r->db != NULL)
		rocksdb_close(r->db);
	for (int f = 0; f < HANDLES; f++)
		rocksdb_options_destroy(r->options[f]);
	rocksdb_cache_destroy(r->cache);
	rocksdb_writeoptions_destroy(r->write_options);
	rocksdb_writeoptions_destroy(r->unlogged_options);
	rocksdb_flushoptions_destroy(r->flush_options);
	rocksdb_readoptions_destroy(r->read_options);
	rocksdb_readoptions_destroy(r->log_read_options);
	mem_free(r);
}

static enum err rocks_open(struct store_rocks *r, const char *dir, const struct store_options *c,
	char *why, size_t why_size)
{
	const char *names[HANDLES];
	rocksdb_options_t *o = db_options(c, dir);
	char *error = NULL;
	enum err e;

	if (c->scarce)
		o = scarce(o);
	(void)rocks_crc_in_force(); /* if not, sums are slow */
	for (int f = 0; f < HANDLES; f++)
		names[f] = f < FAMILY_COUNT ? store_family_name((enum store_family)f) : "default";
	r->db = rocksdb_open_column_families(o, dir, HANDLES, names,
		(const rocksdb_options_t *const *)r->options, r->families, &error);
	rocksdb_options_destroy(o);
	if (error == NULL)
		return OK;
	r->db = NULL;
	snprintf(why, why_size, "%s: %s", dir, error);
	if (strstr(error, "lock") != NULL) {
		snprintf(why, why_size, "%s: the data is locked by another process", dir);
		rocksdb_free(error);
		return ERR_BUSY;
	}
	e = result(error, "open");
	return e == ERR_NOTFOUND ? ERR_IO : e;
}

/* RocksDB flushes in the order of writing, and syncs the WAL of what was written before first. */
static enum err flush(struct store_rocks *r, int f)
{
	char *error = NULL;

	rocksdb_flush_cf(r->db, r->flush_options, r->families[f], &error);
	return result(error, "flush");
}

static void rocks_close(struct store *s)
{
	struct store_rocks *r = rocks_of(s);

	/* The next start has nothing to replay. Closing alone leaves what the WAL holds there. */
	for (int f = 0; f < HANDLES; f++) {
		if (flush(r, f) != OK)
			break; /* the WAL still holds what was logged */
	}
	rocksdb_cancel_all_background_work(r->db, 1);
	rocks_free(r);
}

static struct store_batch *rocks_batch_new(struct store *s)
{
	struct batch_rocks *b = mem_new(sizeof *b);

	b->base.ops = s->ops;
	b->store = rocks_of(s);
	b->rep = rocksdb_writebatch_create();
	return &b->base;
}

static void rocks_batch_free(struct store_batch *b)
{
	rocksdb_writebatch_destroy(batch_of(b)->rep);
	mem_free(b);
}

static void rocks_batch_clear(struct store_batch *b)
{
	rocksdb_writebatch_clear(batch_of(b)->rep);
	batch_of(b)->bytes = 0;
}

static size_t rocks_batch_bytes(const struct store_batch *b)
{
	return ((const struct batch_rocks *)(const void *)b)->bytes;
}

enum { PARTS_ON_STACK = 32 };

static void rocks_put(struct store_batch *base, enum store_family f, struct bytes key,
	const struct bytes *parts, int part_count)
{
	struct batch_rocks *b = batch_of(base);
	const char *at_stack[PARTS_ON_STACK] = {NULL}, **at = at_stack;
	size_t len_stack[PARTS_ON_STACK] = {0}, *len = len_stack;
	const char *key_at = text(key);

	if (part_count > PARTS_ON_STACK) {
		at = mem_new((size_t)part_count * sizeof *at);
		len = mem_new((size_t)part_count * sizeof *len);
	}
	b->bytes += key.len;
	for (int i = 0; i < part_count; i++) {
		at[i] = parts[i].len > 0 ? text(parts[i]) : "";
		len[i] = parts[i].len;
		b->bytes += len[i];
	}
	rocksdb_writebatch_putv_cf(
		b->rep, b->store->families[f], 1, &key_at, &key.len, part_count, at, len);
	if (at != at_stack) {
		mem_free(at);
		mem_free(len);
	}
}

static void rocks_del(struct store_batch *base, enum store_family f, struct bytes key)
{
	struct batch_rocks *b = batch_of(base);

	b->bytes += key.len;
	rocksdb_writebatch_delete_cf(b->rep, b->store->families[f], text(key), key.len);
}

static void rocks_del_range(
	struct store_batch *base, enum store_family f, struct bytes from, struct bytes to)
{
	struct batch_rocks *b = batch_of(base);

	b->bytes += from.len + to.len;
	rocksdb_writebatch_delete_range_cf(
		b->rep, b->store->families[f], text(from), from.len, text(to), to.len);
}

static enum err write_by(
	struct store *s, struct store_batch *b, const rocksdb_writeoptions_t *o, const char *what)
{
	char *error = NULL;

	rocksdb_write(rocks_of(s)->db, o, batch_of(b)->rep, &error);
	return result(error, what);
}

static enum err rocks_write(struct store *s, struct store_batch *b)
{
	return write_by(s, b, rocks_of(s)->write_options, "write");
}

static enum err rocks_write_unlogged(struct store *s, struct store_batch *b)
{
	return write_by(s, b, rocks_of(s)->unlogged_options, "write_unlogged");
}

static enum err rocks_sync(struct store *s)
{
	char *error = NULL;

	rocksdb_flush_wal(rocks_of(s)->db, 1, &error);
	return result(error, "sync");
}

static enum err rocks_flush(struct store *s, enum store_family f)
{
	return flush(rocks_of(s), (int)f);
}

static struct store_snapshot *rocks_snapshot_new(struct store *s)
{
	const rocksdb_snapshot_t *rep = rocksdb_create_snapshot(rocks_of(s)->db);

	return (struct store_snapshot *)(uintptr_t)rep;
}

static const rocksdb_snapshot_t *rep_of(const struct store_snapshot *snapshot)
{
	return (const rocksdb_snapshot_t *)(const void *)snapshot;
}

static void rocks_snapshot_free(struct store *s, struct store_snapshot *snapshot)
{
	rocksdb_release_snapshot(rocks_of(s)->db, rep_of(snapshot));
}

/* Options for reads of a family: own ones (to be destroyed) with a snapshot, else shared. */
static rocksdb_readoptions_t *read_options(
	struct store_rocks *r, struct store_snapshot *snapshot, enum store_family f)
{
	rocksdb_readoptions_t *o;

	if (snapshot == NULL)
		return store_family_is_log(f) ? r->log_read_options : r->read_options;
	o = rocksdb_readoptions_create();
	rocksdb_readoptions_set_snapshot(o, rep_of(snapshot));
	rocksdb_readoptions_set_fill_cache(o, !store_family_is_log(f));
	return o;
}

/* Copies what RocksDB pinned to a chunk, also when it is empty; unpins. */
static enum err take_pinned(rocksdb_pinnableslice_t *pinned, struct slice *out)
{
	size_t len;
	const char *at = rocksdb_pinnableslice_value(pinned, &len);
	struct chunk *c = chunk_try(len);

	if (c != NULL) {
		if (len > 0)
			memcpy(c->data, at, len);
		*out = (struct slice){c, bytes_of(c->data, len)};
	}
	rocksdb_pinnableslice_destroy(pinned);
	return c != NULL ? OK : ERR_NOMEM;
}

static enum err rocks_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	struct bytes key, struct slice *out)
{
	struct store_rocks *r = rocks_of(s);
	rocksdb_readoptions_t *o = read_options(r, snapshot, f);
	rocksdb_pinnableslice_t *pinned;
	char *error = NULL;

	*out = (struct slice){NULL, {NULL, 0}};
	pinned = rocksdb_get_pinned_cf(r->db, o, r->families[f], text(key), key.len, &error);
	if (snapshot != NULL)
		rocksdb_readoptions_destroy(o);
	if (error != NULL)
		return result(error, "get");
	return pinned != NULL ? take_pinned(pinned, out) : ERR_NOTFOUND;
}

enum { KEYS_AT_ONCE = 64 };

static enum err multi_get_some(struct store_rocks *r, rocksdb_readoptions_t *o, enum store_family f,
	int count, const struct bytes *keys, struct slice *out)
{
	const char *at[KEYS_AT_ONCE] = {NULL};
	size_t len[KEYS_AT_ONCE] = {0};
	rocksdb_pinnableslice_t *pinned[KEYS_AT_ONCE] = {NULL};
	char *errors[KEYS_AT_ONCE] = {NULL};
	bool sorted = true;
	enum err e = OK;

	for (int i = 0; i < count; i++) {
		at[i] = text(keys[i]);
		len[i] = keys[i].len;
		sorted = sorted && (i == 0 || bytes_compare(keys[i - 1], keys[i]) < 0);
		out[i] = (struct slice){NULL, {NULL, 0}};
	}
	rocksdb_batched_multi_get_cf(
		r->db, o, r->families[f], (size_t)count, at, len, pinned, errors, sorted);
	for (int i = 0; i < count; i++) {
		enum err one = result(errors[i], "multi_get");

		if (pinned[i] != NULL) {
			enum err taken = take_pinned(pinned[i], &out[i]);

			one = one == OK ? taken : one;
		}
		e = e == OK ? one : e;
	}
	return e;
}

static enum err rocks_multi_get(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, int count, const struct bytes *keys, struct slice *out)
{
	struct store_rocks *r = rocks_of(s);
	rocksdb_readoptions_t *o = read_options(r, snapshot, f);
	enum err e = OK;
	int done = 0;

	while (done < count && e == OK) {
		int n = count - done < KEYS_AT_ONCE ? count - done : KEYS_AT_ONCE;

		e = multi_get_some(r, o, f, n, keys + done, out + done);
		done += n;
	}
	if (snapshot != NULL)
		rocksdb_readoptions_destroy(o);
	for (int i = 0; e != OK && i < done; i++)
		slice_unref(&out[i]);
	return e;
}

static struct store_iter *rocks_iter_new(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, struct bytes from, struct bytes to, bool forward)
{
	struct store_rocks *r = rocks_of(s);
	struct iter_rocks *i = mem_new(sizeof *i);

	i->base.ops = s->ops;
	i->forward = forward;
	must(slice_copy(from, &i->from) == OK);
	must(slice_copy(to, &i->to) == OK);
	i->options = rocksdb_readoptions_create();
	if (snapshot != NULL)
		rocksdb_readoptions_set_snapshot(i->options, rep_of(snapshot));
	rocksdb_readoptions_set_fill_cache(i->options, !store_family_is_log(f));
	rocksdb_readoptions_set_iterate_lower_bound(
		i->options, text(i->from.bytes), i->from.bytes.len);
	rocksdb_readoptions_set_iterate_upper_bound(i->options, text(i->to.bytes), i->to.bytes.len);
	i->rep = rocksdb_create_iterator_cf(r->db, i->options, r->families[f]);
	if (forward)
		rocksdb_iter_seek_to_first(i->rep);
	else
		rocksdb_iter_seek_to_last(i->rep);
	return &i->base;
}

static bool rocks_iter_valid(const struct store_iter *i)
{
	return rocksdb_iter_valid(iter_of(i)->rep) != 0;
}

static void rocks_iter_step(struct store_iter *i)
{
	if (iter_of(i)->forward)
		rocksdb_iter_next(iter_of(i)->rep);
	else
		rocksdb_iter_prev(iter_of(i)->rep);
}

static struct bytes rocks_iter_key(const struct store_iter *i)
{
	size_t len;
	const char *at = rocksdb_iter_key(iter_of(i)->rep, &len);

	return bytes_of(at, len);
}

static struct bytes rocks_iter_value(const struct store_iter *i)
{
	size_t len;
	const char *at = rocksdb_iter_value(iter_of(i)->rep, &len);

	return bytes_of(at, len);
}

static enum err rocks_iter_free(struct store_iter *base)
{
	struct iter_rocks *i = iter_of(base);
	char *error = NULL;
	enum err e;

	rocksdb_iter_get_error(i->rep, &error);
	e = result(error, "iterate");
	rocksdb_iter_destroy(i->rep);
	rocksdb_readoptions_destroy(i->options);
	slice_unref(&i->from);
	slice_unref(&i->to);
	mem_free(i);
	return e;
}

static int64_t family_number(struct store_rocks *r, int f, const char *property)
{
	uint64_t v = 0;

	return rocksdb_property_int_cf(r->db, r->families[f], property, &v) == 0 ? (int64_t)v : 0;
}

/* Reads the two sizes out of the lines of rocksdb.blob-stats. */
static void blob_stats(struct store_rocks *r, int f, int64_t *total, int64_t *garbage)
{
	static const char total_is[] = "Total size of blob files: ";
	static const char garbage_is[] = "Total size of garbage in blob files: ";
	char *stats = rocksdb_property_value_cf(r->db, r->families[f], "rocksdb.blob-stats");
	const char *at;

	*total = *garbage = 0;
	if (stats == NULL)
		return;
	at = strstr(stats, total_is);
	if (at != NULL)
		*total = strtoll(at + sizeof total_is - 1, NULL, 10);
	at = strstr(stats, garbage_is);
	if (at != NULL)
		*garbage = strtoll(at + sizeof garbage_is - 1, NULL, 10);
	rocksdb_free(stats);
}

/* What the files of the folder take on the disk; files come and go meanwhile. */
static void folder_bytes(const char *dir, int64_t *all, int64_t *wal)
{
	DIR *d = opendir(dir);
	const struct dirent *entry;

	while (d != NULL && (entry = readdir(d)) != NULL) {
		size_t len = strlen(entry->d_name);
		struct stat st;

		if (fstatat(dirfd(d), entry->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode))
			continue;
		*all += (int64_t)st.st_blocks * 512;
		if (len > 4 && strcmp(entry->d_name + len - 4, ".log") == 0)
			*wal += st.st_size;
	}
	if (d != NULL)
		closedir(d);
}

static void rocks_stats(struct store *s, struct store_stats *out)
{
	struct store_rocks *r = rocks_of(s);

	for (int f = 0; f < FAMILY_COUNT; f++) {
		blob_stats(r, f, &out->blob_bytes[f], &out->blob_garbage_bytes[f]);
		out->memtable_bytes += family_number(r, f, "rocksdb.size-all-mem-tables");
	}
	out->block_cache_bytes = (int64_t)rocksdb_cache_get_usage(r->cache);
	folder_bytes(s->dir, &out->disk_bytes, &out->wal_bytes);
	out->last_sequence = rocksdb_get_latest_sequence_number(r->db);
}

static uint64_t rocks_sequence(struct store *s)
{
	return rocksdb_get_latest_sequence_number(rocks_of(s)->db);
}

static enum err compact(
	struct store_rocks *r, enum store_family f, struct bytes from, struct bytes to)
{
	rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();

	rocksdb_compactoptions_set_exclusive_manual_compaction(o, 0);
	rocksdb_compactoptions_set_bottommost_level_compaction(o, 3); /* force, each file once */
	rocksdb_compact_range_cf_opt(
		r->db, r->families[f], o, text(from), from.len, text(to), to.len);
	rocksdb_compactoptions_destroy(o);
	return OK;
}

static enum err set_blob_gc(struct store_rocks *r, enum store_family f, bool on)
{
	static const char *const names[] = {"enable_blob_garbage_collection",
		"blob_garbage_collection_age_cutoff", "blob_garbage_collection_force_threshold"};
	static const char *const values[2][3] = {{"false", "0.25", "1.0"}, {"true", "1.0", "0.3"}};
	char *error = NULL;

	rocksdb_set_options_cf(r->db, r->families[f], 3, names, values[on], &error);
	return result(error, "set_options");
}

static bool too_much_garbage(struct store_rocks *r, enum store_family f)
{
	int64_t total, garbage;

	blob_stats(r, f, &total, &garbage);
	return store_garbage_much(f, total, garbage);
}

/* Dropping the keys of the range makes their blobs garbage, and blob files that hold nothing else
 * vanish with it. Files that still hold live blobs between the dead ones are rewritten only if too
 * much of the family is garbage, the oldest first, while the collector is switched on. */
static enum err rocks_reclaim(
	struct store *s, enum store_family f, struct bytes from, struct bytes to)
{
	struct store_rocks *r = rocks_of(s);
	enum err e = compact(r, f, from, to);
	int64_t waited_ms = 0;

	if (e != OK || !store_family_is_log(f) || !too_much_garbage(r, f))
		return e;
	e = set_blob_gc(r, f, true);
	while (e == OK && waited_ms < RECLAIM_WAIT_MS && too_much_garbage(r, f)) {
		const struct timespec pause = {0, 50 * 1000 * 1000};

		if (waited_ms > 500 && family_number(r, f, "rocksdb.compaction-pending") == 0 &&
			family_number(r, f, "rocksdb.num-running-compactions") == 0)
			break;
		nanosleep(&pause, NULL);
		waited_ms += 50;
	}
	if (e == OK && too_much_garbage(r, f))
		e = compact(r, f, from, to);
	if (set_blob_gc(r, f, false) != OK && e == OK)
		e = ERR_IO;
	return e;
}

static const struct store_ops rocks_ops = {
	.close = rocks_close,
	.batch_new = rocks_batch_new,
	.batch_free = rocks_batch_free,
	.batch_clear = rocks_batch_clear,
	.batch_bytes = rocks_batch_bytes,
	.put = rocks_put,
	.del = rocks_del,
	.del_range = rocks_del_range,
	.write = rocks_write,
	.write_unlogged = rocks_write_unlogged,
	.sync = rocks_sync,
	.flush = rocks_flush,
	.snapshot_new = rocks_snapshot_new,
	.snapshot_free = rocks_snapshot_free,
	.get = rocks_get,
	.multi_get = rocks_multi_get,
	.iter_new = rocks_iter_new,
	.iter_valid = rocks_iter_valid,
	.iter_step = rocks_iter_step,
	.iter_key = rocks_iter_key,
	.iter_value = rocks_iter_value,
	.iter_free = rocks_iter_free,
	.stats = rocks_stats,
	.sequence = rocks_sequence,
	.reclaim = rocks_reclaim,
};

enum err store_open_rocks(const char *dir, const struct store_options *wanted, struct store **out,
	char *why, size_t why_size)
{
	struct store_rocks *r = mem_new(sizeof *r);
	struct store_options c = *wanted, *o = &c;
	enum err e;

	r->base.ops = &rocks_ops;
	if (c.scarce) {
		c.wal_bytes_max *= 2; /* what was read again is not to be flushed at once */
		c.write_buffer_bytes *= 2;
	}
	r->log_buffer_bytes = log_buffer_bytes(o);
	r->cache = rocksdb_cache_create_lru((size_t)o->block_cache_bytes);
	for (int f = 0; f < HANDLES; f++)
		r->options[f] = family_options(r, f);
	r->write_options = rocksdb_writeoptions_create();
	r->unlogged_options = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(r->unlogged_options, 1);
	r->flush_options = rocksdb_flushoptions_create();
	rocksdb_flushoptions_set_wait(r->flush_options, 1);
	r->read_options = rocksdb_readoptions_create();
	r->log_read_options = rocksdb_readoptions_create();
	rocksdb_readoptions_set_fill_cache(r->log_read_options, 0);
	e = rocks_open(r, dir, o, why, why_size);
	if (e != OK) {
		rocks_free(r);
		return e;
	}
	r->base.dir = mem_text(dir, strlen(dir));
	*out = &r->base;
	return OK;
}
