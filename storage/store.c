/* The store is called through a table of functions, so that whatever stands on it runs unchanged
 * over RocksDB and over the map of the tests. Reads are counted here, in one place. */
#include "storage/store_priv.h"
#include <stdatomic.h>
#include "server/base/mem.h"

static const char *const family_names[FAMILY_COUNT] = {
	[FAMILY_IDX] = "idx",
	[FAMILY_ROWS] = "rows",
	[FAMILY_META] = "meta",
	[FAMILY_LOG_HOURS] = "log_hours",
	[FAMILY_LOG_DAYS] = "log_days",
	[FAMILY_LOG_LONG] = "log_long",
	[FAMILY_LOG_COMPACTED] = "log_compacted",
};

const char *store_family_name(enum store_family f)
{
	must(f < FAMILY_COUNT);
	return family_names[f];
}

bool store_family_is_log(enum store_family f)
{
	return f >= FAMILY_LOG_HOURS && f < FAMILY_COUNT;
}

/* Of compacted logs half may be: nearly all of them is made anew in time, so most files die by
 * themselves, and to collect at a third wrote two bytes for each one it gave back. */
bool store_garbage_much(enum store_family f, int64_t total, int64_t garbage)
{
	int percent = f == FAMILY_LOG_COMPACTED ? 50 : 30;

	return total > 0 && garbage * 100 > total * percent;
}

struct store_options store_options_default(void)
{
	return (struct store_options){
		.wal_bytes_max = 160 << 20,
		.write_buffer_bytes = 192 << 20,
		.direct = true,
		.block_cache_bytes = 64 << 20,
		.open_files_max = 1024,
		.background_threads = 2,
	};
}

static void count_reads(struct store *s, enum store_family f, uint64_t n)
{
	must(f < FAMILY_COUNT);
	atomic_fetch_add_explicit(&s->reads[f], n, memory_order_relaxed);
}

uint64_t store_reads(const struct store *s, enum store_family f)
{
	return atomic_load_explicit(&s->reads[f], memory_order_relaxed);
}

void store_close(struct store *s)
{
	char *dir;

	if (s == NULL)
		return;
	dir = s->dir;
	s->ops->close(s);
	mem_free(dir);
}

struct store_batch *store_batch_new(struct store *s)
{
	return s->ops->batch_new(s);
}

void store_batch_free(struct store_batch *b)
{
	if (b != NULL)
		b->ops->batch_free(b);
}

void store_batch_clear(struct store_batch *b)
{
	b->count = 0;
	b->ops->batch_clear(b);
}

size_t store_batch_bytes(const struct store_batch *b)
{
	return b->ops->batch_bytes(b);
}

int store_batch_count(const struct store_batch *b)
{
	return b->count;
}

void store_put(struct store_batch *b, enum store_family f, struct bytes key,
	const struct bytes *parts, int part_count)
{
	must(f < FAMILY_COUNT);
	b->count++;
	b->ops->put(b, f, key, parts, part_count);
}

void store_delete(struct store_batch *b, enum store_family f, struct bytes key)
{
	must(f < FAMILY_COUNT);
	b->count++;
	b->ops->del(b, f, key);
}

void store_delete_range(
	struct store_batch *b, enum store_family f, struct bytes from, struct bytes to)
{
	must(f < FAMILY_COUNT);
	b->count++;
	b->ops->del_range(b, f, from, to);
}

enum err store_write(struct store *s, struct store_batch *b)
{
	return s->ops->write(s, b);
}

enum err store_sync(struct store *s)
{
	return s->ops->sync(s);
}

enum err store_write_unlogged(struct store *s, struct store_batch *b)
{
	return s->ops->write_unlogged(s, b);
}

enum err store_flush(struct store *s, enum store_family f)
{
	must(f < FAMILY_COUNT);
	return s->ops->flush(s, f);
}

struct store_snapshot *store_snapshot_new(struct store *s)
{
	return s->ops->snapshot_new(s);
}

void store_snapshot_free(struct store *s, struct store_snapshot *snapshot)
{
	if (snapshot != NULL)
		s->ops->snapshot_free(s, snapshot);
}

enum err store_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	struct bytes key, struct slice *out)
{
	count_reads(s, f, 1);
	return s->ops->get(s, snapshot, f, key, out);
}

enum err store_multi_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	int count, const struct bytes *keys, struct slice *out)
{
	count_reads(s, f, (uint64_t)count);
	return s->ops->multi_get(s, snapshot, f, count, keys, out);
}

struct store_iter *store_iter_new(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, struct bytes from, struct bytes to, bool forward)
{
	struct store_iter *i;

	count_reads(s, f, 1);
	i = s->ops->iter_new(s, snapshot, f, from, to, forward);
	i->store = s;
	i->family = f;
	return i;
}

bool store_iter_valid(const struct store_iter *i)
{
	return i->ops->iter_valid(i);
}

void store_iter_step(struct store_iter *i)
{
	count_reads(i->store, i->family, 1);
	i->ops->iter_step(i);
}

struct bytes store_iter_key(const struct store_iter *i)
{
	return i->ops->iter_key(i);
}

struct bytes store_iter_value(const struct store_iter *i)
{
	return i->ops->iter_value(i);
}

enum err store_iter_free(struct store_iter *i)
{
	return i->ops->iter_free(i);
}

void store_stats(struct store *s, struct store_stats *out)
{
	memset(out, 0, sizeof *out);
	s->ops->stats(s, out);
}

uint64_t store_sequence(struct store *s)
{
	return s->ops->sequence(s);
}

enum err store_reclaim(struct store *s, enum store_family f, struct bytes from, struct bytes to)
{
	return s->ops->reclaim(s, f, from, to);
}

const char *store_dir(const struct store *s)
{
	return s->dir;
}
