/* What the cluster layer counts; each cell is written by its loop. */
#ifndef CLUSTER_NODE_METRICS_H
#define CLUSTER_NODE_METRICS_H
#include "server/base/metric.h"

enum node_metric {
	M_PROPOSALS,
	M_PROPOSALS_REFUSED,
	M_ENTRIES,
	M_BATCH_BYTES,
	M_RECORDS,
	M_ROW_FETCHES,
	M_WRITE_BACKS,
	M_WRITE_BACK_ROWS,
	M_TRIMS,
	M_ROWS,
	M_ROW_BYTES,
	M_PARTITIONS,
	M_LEADING,
	M_CATALOG_CHANGES,
	M_PROPOSALS_OUT,
	M_PROPOSALS_IN,
	M_FED,
	M_FOLLOWED,
	M_NODES_ALIVE,
	M_GROUPS,
	M_UNDER_REPLICATED,
	M_LEADERLESS,
	M_MOVES,
	M_NODE_COUNT
};
extern struct metric_table node_metrics;

#endif
