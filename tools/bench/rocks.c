/* RocksDB alone: the reference for what a broker on top of it may reach. Each entry is written
 * as the server's log writes it, an index key with 48 bytes and a log key with the payload (a
 * blob from 4 KB), unsynced, by one thread; a second thread calls flush_wal(sync) back to
 * back, so that all that is counted has been synced when the run ends. The bytes of a run are
 * bounded by what may be unsynced: the writer waits for the syncer beyond 64 MB, as a server
 * with bounded queues would. */
#include "tools/bench/bench.h"
#include "tools/bench/hist.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	KEY_BYTES = 16,
	INDEX_BYTES = 48,
	BLOB_BYTES_MIN = 4096,
	ENTRY_BYTES_MAX = 16 * 1024 * 1024,
	SIZES_MAX = 16,
	IDLE_US = 20,
	FAMILIES = 3
};
static const uint64_t wal_bytes_max = 160ull << 20;
static const uint64_t write_buffer_bytes = 256ull << 20;
static const uint64_t db_buffer_bytes = 512ull << 20;
static const uint64_t unsynced_bytes_max = 64ull << 20;

struct rocks {
	const struct options *options;
	char path[512];
	rocksdb_options_t *base, *blob;
	rocksdb_t *db;
	rocksdb_column_family_handle_t *family[FAMILIES]; /* default, idx, log */
	_Atomic uint64_t written, synced;                 /* payload bytes */
	_Atomic bool writing;
	struct hist sync_times;
	char error[256];
};

static bool failed(struct rocks *r, char *e)
{
	if (!e)
		return false;
	snprintf(r->error, sizeof r->error, "%s", e);
	free(e);
	return true;
}

static bool rocks_open(struct rocks *r)
{
	const char *const names[FAMILIES] = {"default", "idx", "log"};
	const rocksdb_options_t *families[FAMILIES];
	char *e = NULL;

	r->base = rocksdb_options_create();
	r->blob = rocksdb_options_create();
	rocksdb_options_set_create_if_missing(r->base, 1);
	rocksdb_options_set_create_missing_column_families(r->base, 1);
	rocksdb_options_set_max_total_wal_size(r->base, wal_bytes_max);
	rocksdb_options_set_db_write_buffer_size(r->base, db_buffer_bytes);
	rocksdb_options_set_compression(r->base, rocksdb_no_compression);
	rocksdb_options_set_compression(r->blob, rocksdb_no_compression);
	rocksdb_options_set_write_buffer_size(r->blob, write_buffer_bytes);
	rocksdb_options_set_enable_blob_files(r->blob, 1);
	rocksdb_options_set_min_blob_size(r->blob, BLOB_BYTES_MIN);
	rocksdb_options_set_blob_compression_type(r->blob, rocksdb_no_compression);
	families[0] = families[1] = r->base;
	families[2] = r->blob;
	r->db = rocksdb_open_column_families(
		r->base, r->path, FAMILIES, names, families, r->family, &e);
	return !failed(r, e);
}

static void rocks_close(struct rocks *r)
{
	char *e = NULL;

	for (int i = 0; i < FAMILIES; i++)
		if (r->family[i])
			rocksdb_column_family_handle_destroy(r->family[i]);
	if (r->db)
		rocksdb_close(r->db);
	rocksdb_destroy_db(r->base, r->path, &e);
	(void)failed(r, e);
	rocksdb_options_destroy(r->base);
	rocksdb_options_destroy(r->blob);
	rmdir(r->path);
}

static void *sync_main(void *arg)
{
	struct rocks *r = arg;

	while (atomic_load(&r->writing) || atomic_load(&r->synced) < atomic_load(&r->written)) {
		uint64_t upto = atomic_load(&r->written);
		uint64_t start = now_ns();
		char *e = NULL;

		if (upto == atomic_load(&r->synced)) { /* nothing new: do not spin on its locks */
			usleep(IDLE_US);
			continue;
		}
		rocksdb_flush_wal(r->db, 1, &e);
		if (failed(r, e))
			break;
		hist_add(&r->sync_times, now_ns() - start);
		atomic_store(&r->synced, upto);
	}
	return NULL;
}

static void key_make(uint8_t *at, uint64_t group, uint64_t index)
{
	for (int i = 0; i < 8; i++) {
		at[i] = (uint8_t)(group >> (56 - 8 * i));
		at[8 + i] = (uint8_t)(index >> (56 - 8 * i));
	}
}

/* Writes entries until time is up; their count. */
static uint64_t write_entries(struct rocks *r, const uint8_t *payload, uint64_t size, uint64_t end)
{
	rocksdb_writeoptions_t *unsynced = rocksdb_writeoptions_create();
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	uint8_t key[KEY_BYTES];
	char index[INDEX_BYTES] = {0};
	uint64_t count = 0;
	char *e = NULL;

	while (now_ns() < end && !e) {
		if (atomic_load(&r->written) - atomic_load(&r->synced) > unsynced_bytes_max) {
			usleep(100);
			continue;
		}
		key_make(key, 1 + count % 8, count / 8 + 1);
		rocksdb_writebatch_clear(batch);
		rocksdb_writebatch_put_cf(
			batch, r->family[1], (const char *)key, KEY_BYTES, index, INDEX_BYTES);
		rocksdb_writebatch_put_cf(batch, r->family[2], (const char *)key, KEY_BYTES,
			(const char *)payload, size);
		rocksdb_write(r->db, unsynced, batch, &e);
		count++;
		atomic_fetch_add(&r->written, size);
	}
	(void)failed(r, e);
	rocksdb_writebatch_destroy(batch);
	rocksdb_writeoptions_destroy(unsynced);
	return count;
}

static int rocks_measure(struct rocks *r, const char *name, uint64_t size)
{
	uint64_t start = now_ns(), cpu_us = proc_self_cpu_us(), count;
	uint8_t *payload = malloc(size);
	struct report report = {0};
	pthread_t syncer;
	double took_s, bytes, cpu_s;

	if (!payload)
		return EXIT_TROUBLE;
	for (uint64_t i = 0, x = 88172645463325252u; i < size; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		payload[i] = (uint8_t)x;
	}
	atomic_store(&r->writing, true);
	if (pthread_create(&syncer, NULL, sync_main, r) != 0) {
		free(payload);
		return EXIT_TROUBLE;
	}
	count = write_entries(r, payload, size, start + r->options->seconds * 1000000000u);
	atomic_store(&r->writing, false);
	pthread_join(syncer, NULL);
	free(payload);
	took_s = (double)(now_ns() - start) / 1e9;
	cpu_s = (double)(proc_self_cpu_us() - cpu_us) / 1e6;
	bytes = (double)atomic_load(&r->synced);
	report_word(&report, "workload", name);
	report_int(&report, "entry_bytes", size);
	report_real(&report, "mb_per_s", bytes / took_s / 1e6, 1);
	report_real(&report, "cpu_s_per_gb", bytes > 0 ? cpu_s / (bytes / 1e9) : 0, 2);
	report_real(&report, "entries_per_s", (double)count / took_s, 0);
	report_int(&report, "entries", count);
	report_real(&report, "sync_p50_ms", (double)hist_at(&r->sync_times, 0.5) / 1e6, 3);
	report_real(&report, "sync_p99_ms", (double)hist_at(&r->sync_times, 0.99) / 1e6, 3);
	report_int(&report, "syncs", r->sync_times.count);
	report_print(&report, r->options->json);
	return EXIT_FINE;
}

/* One size in a database of its own, removed afterwards. */
static int rocks_run(const struct options *o, const char *name, uint64_t size)
{
	struct rocks *r = calloc(1, sizeof *r);
	int status = EXIT_TROUBLE;

	if (!r)
		return EXIT_TROUBLE;
	r->options = o;
	snprintf(r->path, sizeof r->path, "%s/bench-rocks-%d", o->dir, (int)getpid());
	if (rocks_open(r))
		status = rocks_measure(r, name, size);
	rocks_close(r);
	if (r->error[0]) {
		fprintf(stderr, "sluice-bench: RocksDB: %s\n", r->error);
		status = EXIT_TROUBLE;
	}
	free(r);
	return status;
}

int bench_rocks(const struct options *o, const char *name)
{
	const char *at = o->entries;
	int status = EXIT_FINE;

	for (int i = 0; i < SIZES_MAX && status == EXIT_FINE; i++) {
		char *end;
		uint64_t size = strtoull(at, &end, 10);

		if (end == at || size == 0 || size > ENTRY_BYTES_MAX || (*end && *end != ',')) {
			fprintf(stderr, "sluice-bench: --entries: not a list of sizes: %s\n", at);
			return EXIT_USAGE;
		}
		status = rocks_run(o, name, size);
		if (*end == 0)
			break;
		at = end + 1;
	}
	return status;
}
