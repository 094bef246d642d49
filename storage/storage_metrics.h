/* What storage counts. Counting is a no-op until the table is registered (tests of parts). */
#ifndef STORAGE_STORAGE_METRICS_H
#define STORAGE_STORAGE_METRICS_H
#include "server/base/metric.h"

enum storage_metric {
	M_WRITES,
	M_WRITE_BYTES,
	M_SYNCS,
	M_SYNC_US,
	M_READ_ENTRIES,
	M_READ_BYTES,
	M_RECLAIMS,
	M_DISK_FREE,
	M_DISK_USED,
	M_BLOB_BYTES,
	M_BLOB_GARBAGE,
	M_WAL_BYTES,
	M_MEMTABLE_BYTES,
	M_TAIL_BYTES,
	M_COMPACT_RUNS,
	M_COMPACT_FAILED,
	M_COMPACT_READ,
	M_COMPACT_WRITTEN,
	M_COMPACT_REMOVED,
	M_COMPACT_RECORDS,
	M_COMPACT_TOMBSTONES,
	M_COMPACT_UNREADABLE,
	M_COMPACT_LAG,
	M_COMPACT_WAITING,
	STORAGE_METRIC_COUNT
};

extern struct metric_table storage_metrics;

/* cells is the thread's own; NULL counts nothing. */
void storage_count(struct metric_cells *cells, enum storage_metric m, int64_t n);
void storage_gauge(struct metric_cells *cells, enum storage_metric m, int64_t v);
/* The calling thread's cells, made once; NULL while the table is not registered. */
struct metric_cells *storage_cells_new(void);

#endif
