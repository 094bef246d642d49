/* Boot of the folder: what data.dir lists is opened in order, budgets are split evenly over
 * disks (write buffers, blocks) and loops (tail cache). */
#include "storage/storage.h"
#include <stdio.h>
#include "server/base/mem.h"
#include "storage/compact.h"

enum { DISK_ABORT_MS = 10000, DISK_THREADS = 2 };

#define AT(field) offsetof(struct storage_conf, field)
#define MIB(n)    ((int64_t)(n) << 20)

const struct conf_row storage_rows[] = {
	{"data.dir", CONF_TEXT, AT(dir), "./data", 0, 0, NULL, CONF_AT_START, NULL,
		"Folder of the data, created if missing; a comma list spreads partitions over "
		"several disks."},
	{"disk.reserve", CONF_BYTES, AT(reserve_bytes), "1GiB", 0, INT64_MAX, NULL, CONF_AT_START,
		NULL, "Publishing is refused while a disk has less free space than this."},
	{"disk.stall", CONF_MSEC, AT(stall_ms), "600ms", 50, 60000, NULL, CONF_AT_START, NULL,
		"A write that hangs longer makes this node's leaders step aside; after 10 s the "
		"process ends."},
	{"storage.tail_cache", CONF_BYTES, AT(tail_bytes), "128MiB", MIB(1), INT64_MAX, NULL,
		CONF_AT_START, NULL,
		"Memory for recent records that live readers are served from."},
	{"storage.write_buffers", CONF_BYTES, AT(write_buffer_bytes), "192MiB", MIB(8), INT64_MAX,
		NULL, CONF_AT_START, NULL, "Memory for writes that are not yet in their files."},
	{"storage.block_cache", CONF_BYTES, AT(block_cache_bytes), "64MiB", MIB(1), INT64_MAX, NULL,
		CONF_AT_START, NULL, "Memory for blocks of index and row files."},
	{"storage.wal", CONF_BYTES, AT(wal_bytes), "160MiB", MIB(8), INT64_MAX, NULL, CONF_AT_START,
		NULL, "Bound of the log of writes that a start after a crash reads again."},
	{"storage.open_files", CONF_INT, AT(open_files), "1024", 64, 100000, NULL, CONF_AT_START,
		NULL, "Files each store may keep open."},
	{"storage.direct", CONF_BOOL, AT(direct), "true", 0, 0, NULL, CONF_AT_START, NULL,
		"Whether files are written past the page cache, where the file system can: writers "
		"wait less, who reads old records reads from the disk."},
	{"compaction.rate", CONF_BYTES, AT(compact_rate_bytes), "128MiB", 0, INT64_MAX / 2000000,
		NULL, CONF_AT_START, NULL,
		"Bytes a second that compaction may read and write, over all disks; 0: no limit."},
	{"compaction.memory", CONF_BYTES, AT(compact_memory_bytes), "64MiB", MIB(1), INT64_MAX,
		NULL, CONF_AT_START, NULL,
		"Memory of the keys that are compared in one go, 24 bytes each, over all disks."},
	{0},
};

struct storage {
	int disk_count, loop_count;
	struct disk *disks[DISKS_MAX];
	struct compactor *compactors[DISKS_MAX];
	struct compact_rate compact_rate;
	struct tail_cache **caches; /* per loop */
	struct plog_env *envs;      /* loop * disk_count + disk */
};

static enum err open_disk(struct storage *s, const char *dir, size_t len,
	const struct storage_conf *c, int disks, struct loops *loops, char *why, size_t why_size)
{
	struct disk_options o = {
		.reserve_bytes = c->reserve_bytes,
		.stall_ms = c->stall_ms,
		.abort_ms = DISK_ABORT_MS,
		.store =
			{
				.wal_bytes_max = c->wal_bytes,
				.write_buffer_bytes = c->write_buffer_bytes / disks,
				.direct = c->direct,
				.block_cache_bytes = c->block_cache_bytes / disks,
				.open_files_max = (int)c->open_files,
				.background_threads = DISK_THREADS,
			},
	};
	char *path;
	enum err e;

	if (s->disk_count == DISKS_MAX || len == 0) {
		snprintf(why, why_size, "data.dir: %s",
			len == 0 ? "an empty name in the list" : "more than 16 folders");
		return ERR_INVALID;
	}
	path = mem_text(dir, len);
	e = disk_open(path, &o, loops, &s->disks[s->disk_count], why, why_size);
	mem_free(path);
	s->disk_count += e == OK;
	return e;
}

static enum err open_disks(struct storage *s, const struct storage_conf *c, struct loops *loops,
	char *why, size_t why_size)
{
	int disks = 1;
	enum err e = OK;

	for (const char *at = c->dir; *at != 0; at++)
		disks += *at == ',';
	for (const char *at = c->dir; e == OK; at++) {
		size_t len;

		at += strspn(at, " ");
		len = strcspn(at, ",");
		e = open_disk(s, at, len - (len > 0 && at[len - 1] == ' '), c, disks, loops, why,
			why_size);
		at += len;
		if (*at == 0)
			break;
	}
	return e;
}

enum err storage_open(const struct storage_conf *c, struct loops *loops, struct workers *workers,
	struct storage **out, char *why, size_t why_size)
{
	struct storage *s = mem_new(sizeof *s);
	enum err e = open_disks(s, c, loops, why, why_size);

	if (e != OK) {
		storage_close(s);
		return e;
	}
	s->loop_count = loops_count(loops);
	s->compact_rate.bytes = c->compact_rate_bytes;
	for (int d = 0; d < s->disk_count; d++)
		s->compactors[d] = compactor_new(
			&s->compact_rate, (size_t)(c->compact_memory_bytes / s->disk_count));
	s->caches = mem_new((size_t)s->loop_count * sizeof(struct tail_cache *));
	s->envs = mem_new((size_t)(s->loop_count * s->disk_count) * sizeof *s->envs);
	for (int l = 0; l < s->loop_count; l++) {
		s->caches[l] = tail_cache_new((size_t)(c->tail_bytes / s->loop_count));
		for (int d = 0; d < s->disk_count; d++) {
			struct loop *loop = loops_at(loops, l);

			s->envs[l * s->disk_count + d] = (struct plog_env){
				.loop = loop,
				.store = disk_store(s->disks[d]),
				.lane = writer_lane(disk_writer(s->disks[d]), loop),
				.cache = s->caches[l],
				.workers = workers,
				.disk = s->disks[d],
				.compactor = s->compactors[d],
			};
		}
	}
	*out = s;
	return OK;
}

void storage_stop(struct storage *s)
{
	for (int d = 0; d < s->disk_count; d++)
		disk_stop(s->disks[d]);
}

void storage_free(struct storage *s)
{
	if (s == NULL)
		return;
	for (int d = 0; d < s->disk_count; d++)
		disk_free(s->disks[d]);
	for (int d = 0; d < s->disk_count; d++)
		compactor_free(s->compactors[d]);
	for (int l = 0; l < s->loop_count; l++)
		tail_cache_free(s->caches[l]);
	mem_free(s->caches);
	mem_free(s->envs);
	mem_free(s);
}

void storage_close(struct storage *s)
{
	storage_free(s);
}

int storage_disks(const struct storage *s)
{
	return s->disk_count;
}

struct disk *storage_disk(const struct storage *s, int disk)
{
	must(disk >= 0 && disk < s->disk_count);
	return s->disks[disk];
}

int storage_disk_for_new(const struct storage *s)
{
	int best = 0;

	for (int d = 1; d < s->disk_count; d++) {
		if (disk_free_bytes(s->disks[d]) > disk_free_bytes(s->disks[best]))
			best = d;
	}
	return best;
}

const struct plog_env *storage_env(const struct storage *s, int loop_index, int disk)
{
	must(loop_index >= 0 && loop_index < s->loop_count);
	must(disk >= 0 && disk < s->disk_count);
	return &s->envs[loop_index * s->disk_count + disk];
}

struct each_group {
	bool (*each)(int disk, const struct plog_group_row *row, void *arg);
	void *arg;
	int disk;
	bool more;
};

static bool each_group(const struct plog_group_row *row, void *arg)
{
	struct each_group *e = arg;

	e->more = e->each(e->disk, row, e->arg);
	return e->more;
}

enum err storage_groups(const struct storage *s,
	bool (*each)(int disk, const struct plog_group_row *row, void *arg), void *arg)
{
	struct each_group e = {each, arg, 0, true};
	enum err err = OK;

	for (; e.disk < s->disk_count && err == OK && e.more; e.disk++)
		err = plog_groups(disk_store(s->disks[e.disk]), each_group, &e);
	return err;
}

bool storage_writable(const struct storage *s)
{
	for (int d = 0; d < s->disk_count; d++) {
		if (!disk_writable(s->disks[d]))
			return false;
	}
	return true;
}

bool storage_stalled(const struct storage *s)
{
	for (int d = 0; d < s->disk_count; d++) {
		if (disk_stalled(s->disks[d]))
			return true;
	}
	return false;
}
