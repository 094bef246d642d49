/* Three threads look after a folder, so that a hanging disk blocks none but those that touch it:
 * the watch touches only clocks and words (stall flag, the end of the process), the keeper looks
 * at free space, ballast and side file, and the space thread reclaims.
 *
 * Admission is one subtraction: each look at the file system sets what may be admitted until the
 * next one, free space minus reserve minus what was admitted since the look before, which may
 * not have reached the file system yet. Every byte counts twice, for the log of writes and for
 * the file it ends in. The ballast's space never counts as free, also while the file is gone: what
 * was freed for trimming, or for reading the log of writes again, must not be published into. */
#include "storage/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/pulse.h"
#include "storage/stall.h"
#include "storage/space.h"
#include "storage/storage_metrics.h"

enum {
	WATCH_MS = 50,
	KEEP_MS = 250,
	SIDE_MS = 1000,
	SPACE_MS = 3000,
	SETTLE_MS = 1000, /* from a delete's staging to its being written */
	WRITE_AMPLIFICATION = 2,
	BALLAST_PART = 4, /* of the reserve, but never less than a start may need */
	BALLAST_KEPT = 5, /* the part of it that only a start is given */
	FORMAT = 1
};

struct disk {
	char *dir, *store_path, *ballast_path;
	struct disk_options options;
	int lock_fd;
	struct store *store;
	struct writer *writer;
	struct side *side;
	struct space *space;
	struct pulse *watch, *keep, *reclaim;
	struct stall stall; /* the watch's */
	struct metric_cells *keep_cells, *space_cells;
	_Atomic int64_t room;       /* bytes that may still be admitted; below 0: none */
	_Atomic int64_t free_bytes; /* as last seen */
	_Atomic bool stalled, pressure, stopping;
	_Atomic bool refused; /* something, since the last look */
	int64_t room_set;     /* at the last look; the keeper's own, as what follows */
	int64_t side_ms;
	int64_t ballast; /* the file's size */
	bool stopped;
};

static char *path_of(const char *dir, const char *name)
{
	size_t len = strlen(dir) + strlen(name) + 2;
	char *path = mem_new(len);

	snprintf(path, len, "%s/%s", dir, name);
	return path;
}

/* ---- the folder */

static enum err make_folder(const char *dir, char *why, size_t why_size)
{
	char *path = mem_text(dir, strlen(dir));
	int failed = 0;

	for (char *at = path + 1; !failed && at[-1] != 0; at++) {
		char was = *at;

		if (was != '/' && was != 0)
			continue;
		*at = 0;
		failed = mkdir(path, 0750) != 0 && errno != EEXIST;
		*at = was;
	}
	mem_free(path);
	if (!failed)
		return OK;
	snprintf(why, why_size, "data.dir %s: %s", dir, strerror(errno));
	return ERR_IO;
}

/* Our number into the lock file, synced: a disk that fails is told here, in one line, before the
 * store trips over it. A full one may start. */
static bool takes_writes(int fd)
{
	char text[24];
	int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());

	errno = ENOSPC; /* what a short write means */
	return (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)len, 0) == len &&
		       fdatasync(fd) == 0) ||
		errno == ENOSPC;
}

static enum err lock_folder(struct disk *d, char *why, size_t why_size)
{
	char *path = path_of(d->dir, "LOCK");

	d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	mem_free(path);
	if (d->lock_fd < 0) {
		snprintf(why, why_size, "data.dir %s: %s", d->dir, strerror(errno));
		return ERR_IO;
	}
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		snprintf(why, why_size, "data.dir %s is locked: another sluiced uses it", d->dir);
		return ERR_BUSY;
	}
	if (takes_writes(d->lock_fd))
		return OK;
	snprintf(why, why_size, "data.dir %s takes no writes: %s", d->dir, strerror(errno));
	return ERR_IO;
}

/* The number of the layout: written once, never guessed. */
static enum err check_format(const struct disk *d, char *why, size_t why_size)
{
	char *path = path_of(d->dir, "FORMAT"), text[16] = "";
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	enum err e = ERR_IO;
	long format;

	if (len == 0 && dprintf(fd, "%d\n", FORMAT) > 0 && fsync(fd) == 0)
		e = OK;
	if (len > 0) {
		format = strtol(text, NULL, 10);
		e = format == FORMAT ? OK : ERR_UNSUPPORTED;
	}
	if (e == ERR_UNSUPPORTED)
		snprintf(why, why_size, "data.dir %s has format %.*s, this version reads %d",
			d->dir, (int)strcspn(text, "\n"), text, FORMAT);
	else if (e != OK)
		snprintf(why, why_size, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	mem_free(path);
	return e;
}

static enum err open_store(struct disk *d, char *why, size_t why_size)
{
	enum err e = side_open(d->dir, &d->side);
	struct store_options o = d->options.store;

	if (e != OK) {
		snprintf(why, why_size,
			"%s/side: %s; it tells what the store must hold: remove it only if nothing "
			"else is damaged",
			d->dir, err_text(e));
		return e;
	}
	o.scarce = atomic_load(&d->pressure);
	e = store_open_rocks(d->store_path, &o, &d->store, why, why_size);
	if (e != OK)
		return e;
	if (store_sequence(d->store) >= side_sequence(d->side))
		return OK;
	snprintf(why, why_size,
		"%s lacks synced writes (at %llu, the side file says %llu): it counts as wiped; "
		"remove the folder to let its replicas be filled anew, or, where it is the only "
		"copy, remove %s/side to go on with what is left",
		d->dir, (unsigned long long)store_sequence(d->store),
		(unsigned long long)side_sequence(d->side), d->dir);
	LOG(LOG_ERROR, AREA_STORAGE, "store_behind", "dir=%s sequence=%llu side=%llu", d->dir,
		(unsigned long long)store_sequence(d->store),
		(unsigned long long)side_sequence(d->side));
	return ERR_CORRUPT;
}

/* ---- the watch: touches no disk */

static void watch_run(void *arg)
{
	struct disk *d = arg;
	int64_t ms = stall_look(&d->stall, writer_stalled_ms(d->writer), clock_ms());
	bool stalled = ms > d->options.stall_ms;

	if (atomic_exchange(&d->stalled, stalled) != stalled)
		LOG(LOG_WARN, AREA_STORAGE, stalled ? "disk_stalled" : "disk_recovered",
			"dir=%s ms=%lld", d->dir, (long long)ms);
	if (d->options.abort_ms > 0 && ms > d->options.abort_ms) {
		LOG(LOG_ERROR, AREA_STORAGE, "disk_hangs", "dir=%s ms=%lld", d->dir, (long long)ms);
		abort();
	}
}

/* ---- the keeper: free space, ballast, side file */

/* A start writes what the log of writes holds to files once more before it is dropped. */
static int64_t ballast_bytes(const struct disk *d)
{
	int64_t part = d->options.reserve_bytes / BALLAST_PART;
	int64_t wal = d->options.store.wal_bytes_max + d->options.store.wal_bytes_max / 4;

	return part > wal || part == 0 ? part : wal;
}

/* Under pressure: what a running process gives up does not come back to it, and the next one needs
 * some to start with. */
static int64_t ballast_kept(const struct disk *d)
{
	return ballast_bytes(d) / BALLAST_KEPT;
}

static void ballast_drop(struct disk *d)
{
	if (unlink(d->ballast_path) == 0 || errno == ENOENT)
		d->ballast = 0;
}

static void ballast_set(struct disk *d, int64_t want)
{
	int fd;

	if (want == d->ballast)
		return;
	if (want == 0) {
		ballast_drop(d);
		return;
	}
	fd = open(d->ballast_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return;
	if (want < d->ballast ? ftruncate(fd, want) == 0 : posix_fallocate(fd, 0, want) == 0)
		d->ballast = want;
	else if (want < d->ballast || ftruncate(fd, d->ballast) != 0 || d->ballast == 0)
		ballast_drop(d);
	close(fd);
}

/* The running process leaves a part of it to the next one, and takes that back once it can. */
static void ballast_give(struct disk *d, int64_t there)
{
	int64_t kept = ballast_kept(d);

	if (d->ballast > kept)
		ballast_set(d, kept);
	else if (d->ballast < kept && there > 2 * kept)
		ballast_set(d, kept);
}

static void look_at_space(struct disk *d, bool starting)
{
	int64_t reserve = d->options.reserve_bytes, there, free_bytes, admitted, room;
	int64_t full = ballast_bytes(d);
	struct statvfs st;
	bool pressure, tight;

	if (statvfs(d->dir, &st) != 0)
		return;
	there = (int64_t)((uint64_t)st.f_bavail * st.f_frsize);
	free_bytes = there - (d->ballast < full ? full - d->ballast : 0);
	admitted = d->room_set - atomic_load(&d->room);
	room = free_bytes - reserve - admitted;
	/* Once short it must be clearly better before writes are taken again. Who was refused
	 * close to the reserve counts as short: one write in two looks is no service. */
	tight = atomic_exchange(&d->refused, false) || atomic_load(&d->pressure);
	pressure = free_bytes < reserve + (tight ? reserve / 8 : 0);
	if (pressure && room > 0)
		room = 0;
	d->room_set = room;
	atomic_store(&d->room, room);
	atomic_store(&d->free_bytes, free_bytes);
	if (atomic_exchange(&d->pressure, pressure) != pressure) {
		LOG(LOG_WARN, AREA_STORAGE, pressure ? "disk_full" : "disk_has_room",
			"dir=%s free=%lld reserve=%lld", d->dir, (long long)free_bytes,
			(long long)reserve);
		if (d->reclaim != NULL)
			pulse_kick(d->reclaim);
	}
	if (pressure && starting)
		ballast_set(d, 0);
	else if (pressure)
		ballast_give(d, there);
	else if (free_bytes > reserve * 2)
		ballast_set(d, full);
	storage_gauge(d->keep_cells, M_DISK_FREE, free_bytes);
}

static int64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

static void write_side(struct disk *d)
{
	enum err e = side_write(d->side, writer_synced_sequence(d->writer));

	if (e != OK)
		LOG(LOG_WARN, AREA_STORAGE, "side_failed", "dir=%s err=\"%s\"", d->dir,
			err_text(e));
}

static void keep_run(void *arg)
{
	struct disk *d = arg;
	int64_t now = clock_ms();

	look_at_space(d, false);
	if (now - d->side_ms < SIDE_MS)
		return;
	d->side_ms = now;
	write_side(d);
}

/* ---- the space thread */

static void reclaim_run(void *arg)
{
	struct disk *d = arg;
	struct store_stats stats;
	int64_t blobs = 0, garbage = 0;
	int done;

	if (atomic_load(&d->stopping))
		return;
	done = space_run(d->space, atomic_load(&d->pressure), &d->stopping);
	store_stats(d->store, &stats);
	for (int f = 0; f < FAMILY_COUNT; f++) {
		blobs += stats.blob_bytes[f];
		garbage += stats.blob_garbage_bytes[f];
	}
	storage_count(d->space_cells, M_RECLAIMS, done);
	storage_gauge(d->space_cells, M_DISK_USED, stats.disk_bytes);
	storage_gauge(d->space_cells, M_BLOB_BYTES, blobs);
	storage_gauge(d->space_cells, M_BLOB_GARBAGE, garbage);
	storage_gauge(d->space_cells, M_WAL_BYTES, stats.wal_bytes);
	storage_gauge(d->space_cells, M_MEMTABLE_BYTES, stats.memtable_bytes);
}

/* ---- opening and closing */

static void disk_close_parts(struct disk *d)
{
	space_free(d->space);
	store_close(d->store);
	side_close(d->side);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	mem_free(d->ballast_path);
	mem_free(d->store_path);
	mem_free(d->dir);
	mem_free(d);
}

enum err disk_open(const char *dir, const struct disk_options *o, struct loops *loops,
	struct disk **out, char *why, size_t why_size)
{
	struct disk *d = mem_new(sizeof *d);
	enum err e;

	d->dir = mem_text(dir, strlen(dir));
	d->store_path = path_of(dir, "store");
	d->ballast_path = path_of(dir, "ballast");
	d->options = *o;
	d->lock_fd = -1;
	e = make_folder(dir, why, why_size);
	if (e == OK)
		e = lock_folder(d, why, why_size);
	if (e == OK)
		e = check_format(d, why, why_size);
	/* Before the store: replaying its log of writes may need the ballast's space. */
	d->ballast = size_of(d->ballast_path);
	if (e == OK)
		look_at_space(d, true);
	if (e == OK)
		e = open_store(d, why, why_size);
	if (e != OK) {
		disk_close_parts(d);
		return e;
	}
	d->space = space_new(d->store, SETTLE_MS);
	d->keep_cells = storage_cells_new();
	d->space_cells = storage_cells_new();
	d->writer = writer_new(d->store, loops);
	d->stall.every_ms = WATCH_MS;
	d->watch = pulse_new("disk-watch", watch_run, d, WATCH_MS);
	d->reclaim = pulse_new("disk-space", reclaim_run, d, SPACE_MS);
	d->keep = pulse_new("disk-keep", keep_run, d, KEEP_MS);
	*out = d;
	return OK;
}

void disk_stop(struct disk *d)
{
	if (d->stopped)
		return;
	d->stopped = true;
	atomic_store(&d->stopping, true);
	writer_stop(d->writer);
	pulse_free(d->keep);
	pulse_free(d->reclaim);
	pulse_free(d->watch);
	write_side(d);
}

void disk_free(struct disk *d)
{
	if (d == NULL)
		return;
	disk_stop(d);
	writer_free(d->writer);
	disk_close_parts(d);
}

struct store *disk_store(const struct disk *d)
{
	return d->store;
}
struct writer *disk_writer(const struct disk *d)
{
	return d->writer;
}
struct side *disk_side(const struct disk *d)
{
	return d->side;
}
const char *disk_dir(const struct disk *d)
{
	return d->dir;
}

bool disk_writable(const struct disk *d)
{
	return atomic_load_explicit(&d->room, memory_order_relaxed) > 0;
}

bool disk_admit(struct disk *d, size_t bytes)
{
	if (!disk_writable(d)) {
		atomic_store_explicit(&d->refused, true, memory_order_relaxed);
		return false;
	}
	atomic_fetch_sub_explicit(
		&d->room, (int64_t)bytes * WRITE_AMPLIFICATION, memory_order_relaxed);
	return true;
}

int64_t disk_free_bytes(const struct disk *d)
{
	return atomic_load_explicit(&d->free_bytes, memory_order_relaxed);
}

bool disk_stalled(const struct disk *d)
{
	return atomic_load_explicit(&d->stalled, memory_order_relaxed);
}

void disk_trimmed(
	struct disk *d, uint64_t group, enum store_family f, uint64_t index, uint64_t bytes)
{
	space_note(d->space, group, f, index, bytes);
}
