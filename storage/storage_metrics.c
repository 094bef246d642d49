/* The rows of storage's metrics, in the order of the enum. */
#include "storage/storage_metrics.h"

static const struct metric_row rows[] = {
	[M_WRITES] = {"sluice_storage_writes_total", NULL, METRIC_COUNTER,
		"Write sets written to a store."},
	[M_WRITE_BYTES] = {"sluice_storage_write_bytes_total", NULL, METRIC_COUNTER,
		"Bytes of keys and values in those write sets."},
	[M_SYNCS] = {"sluice_storage_syncs_total", NULL, METRIC_COUNTER,
		"Times a store's log of writes was synced."},
	[M_SYNC_US] = {"sluice_storage_sync_microseconds_total", NULL, METRIC_COUNTER,
		"Time spent in those syncs."},
	[M_READ_ENTRIES] = {"sluice_storage_read_entries_total", NULL, METRIC_COUNTER,
		"Log entries read back from a store because they were not in memory."},
	[M_READ_BYTES] = {"sluice_storage_read_bytes_total", NULL, METRIC_COUNTER,
		"Payload bytes of those entries."},
	[M_RECLAIMS] = {"sluice_storage_reclaims_total", NULL, METRIC_COUNTER,
		"Ranges of trimmed entries whose space was given back to the disk."},
	[M_DISK_FREE] = {"sluice_storage_disk_free_bytes", NULL, METRIC_GAUGE,
		"Free space of the file systems of data.dir."},
	[M_DISK_USED] = {"sluice_storage_disk_used_bytes", NULL, METRIC_GAUGE,
		"Space taken by the stores."},
	[M_BLOB_BYTES] = {"sluice_storage_blob_bytes", NULL, METRIC_GAUGE,
		"Size of the files that hold large payloads."},
	[M_BLOB_GARBAGE] = {"sluice_storage_blob_garbage_bytes", NULL, METRIC_GAUGE,
		"Payload bytes in them that are trimmed and not yet given back."},
	[M_WAL_BYTES] = {"sluice_storage_wal_bytes", NULL, METRIC_GAUGE,
		"Size of the logs of writes, which a start after a crash reads again."},
	[M_MEMTABLE_BYTES] = {"sluice_storage_memtable_bytes", NULL, METRIC_GAUGE,
		"Memory held by writes not yet flushed to files."},
	[M_TAIL_BYTES] = {"sluice_storage_tail_bytes", NULL, METRIC_GAUGE,
		"Memory held by recent log entries for live readers."},
	[M_COMPACT_RUNS] = {"sluice_compaction_runs_total", NULL, METRIC_COUNTER,
		"Logs that were compacted by key."},
	[M_COMPACT_FAILED] = {"sluice_compaction_failed_total", NULL, METRIC_COUNTER,
		"Compactions that were given up; they are tried again."},
	[M_COMPACT_READ] = {"sluice_compaction_read_bytes_total", NULL, METRIC_COUNTER,
		"Payload bytes of entries read to be compared."},
	[M_COMPACT_WRITTEN] = {"sluice_compaction_written_bytes_total", NULL, METRIC_COUNTER,
		"Payload bytes of entries that lost records, as written again."},
	[M_COMPACT_REMOVED] = {"sluice_compaction_removed_bytes_total", NULL, METRIC_COUNTER,
		"Payload bytes by which those entries got smaller."},
	[M_COMPACT_RECORDS] = {"sluice_compaction_removed_records_total", NULL, METRIC_COUNTER,
		"Records removed: their key had a newer one, or none."},
	[M_COMPACT_TOMBSTONES] = {"sluice_compaction_removed_tombstones_total", NULL,
		METRIC_COUNTER, "Null values removed after delete.retention.ms."},
	[M_COMPACT_UNREADABLE] = {"sluice_compaction_unreadable_total", NULL, METRIC_COUNTER,
		"Entries left as they are since a batch in them could not be read."},
	[M_COMPACT_LAG] = {"sluice_compaction_lag_milliseconds_total", NULL, METRIC_COUNTER,
		"Age of the oldest record not compared before when a run ended, summed over runs."},
	[M_COMPACT_WAITING] = {"sluice_compaction_waiting", NULL, METRIC_GAUGE,
		"Logs that are due for compaction and wait for their turn on the disk."},
};

_Static_assert(sizeof rows / sizeof rows[0] == STORAGE_METRIC_COUNT, "a row per metric");

struct metric_table storage_metrics = {rows, STORAGE_METRIC_COUNT, 0};

void storage_count(struct metric_cells *cells, enum storage_metric m, int64_t n)
{
	if (cells != NULL && storage_metrics.base != 0)
		metric_add(cells, &storage_metrics, m, n);
}

void storage_gauge(struct metric_cells *cells, enum storage_metric m, int64_t v)
{
	if (cells != NULL && storage_metrics.base != 0)
		metric_set(cells, &storage_metrics, m, v);
}

struct metric_cells *storage_cells_new(void)
{
	return storage_metrics.base != 0 ? metric_cells_new() : NULL;
}
