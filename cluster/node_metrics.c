/* The rows of the cluster layer's metrics. */
#include "cluster/node_metrics.h"

static const struct metric_row rows[M_NODE_COUNT] = {
	[M_PROPOSALS] = {"sluice_proposals_total", 0, METRIC_COUNTER, "Proposals that arrived."},
	[M_PROPOSALS_REFUSED] = {"sluice_proposals_refused_total", 0, METRIC_COUNTER,
		"Proposals refused because too much was in flight or the partition closed."},
	[M_ENTRIES] = {"sluice_entries_total", 0, METRIC_COUNTER, "Entries proposed to Raft."},
	[M_BATCH_BYTES] = {"sluice_entry_batch_bytes_total", 0, METRIC_COUNTER,
		"Bytes of record batches in entries."},
	[M_RECORDS] = {"sluice_records_total", 0, METRIC_COUNTER, "Records in entries."},
	[M_ROW_FETCHES] = {"sluice_row_fetches_total", 0, METRIC_COUNTER,
		"Rows read from the store because they were not in memory."},
	[M_WRITE_BACKS] = {"sluice_write_backs_total", 0, METRIC_COUNTER,
		"Times a partition's rows were written to the store."},
	[M_WRITE_BACK_ROWS] = {"sluice_write_back_rows_total", 0, METRIC_COUNTER,
		"Rows written to the store."},
	[M_TRIMS] = {"sluice_trims_total", 0, METRIC_COUNTER, "Trims applied."},
	[M_ROWS] = {"sluice_rows_in_memory", 0, METRIC_GAUGE, "Rows in memory."},
	[M_ROW_BYTES] = {"sluice_rows_in_memory_bytes", 0, METRIC_GAUGE, "Memory of rows."},
	[M_PARTITIONS] = {"sluice_partitions", 0, METRIC_GAUGE, "Raft groups on this node."},
	[M_LEADING] = {"sluice_partitions_leading", 0, METRIC_GAUGE,
		"Raft groups this node leads."},
	[M_CATALOG_CHANGES] = {"sluice_catalog_changes_total", 0, METRIC_COUNTER,
		"Catalogues put in force, per loop."},
};
struct metric_table node_metrics = {rows, M_NODE_COUNT, 0};
