/* The rows of catch-up's configuration and metrics, apart from what uses them: they are read where
 * nothing is fetched (the reference pages). */
#include "cluster/catchup_priv.h"

#define AT(field) offsetof(struct catchup_settings, field)

const struct conf_row catchup_rows[] = {
	{"catchup.rate", CONF_BYTES, AT(rate_bytes), "20MiB", 0, INT64_MAX / 2000000, NULL,
		CONF_AT_RELOAD, NULL,
		"Bytes a second that replicas which are too far behind may fetch from this node, "
		"and as many that this node may fetch; 0: no limit."},
	{"catchup.memory", CONF_BYTES, AT(memory_bytes), "32MiB", 1 << 20, INT64_MAX, NULL,
		CONF_AT_RELOAD, NULL,
		"Memory of what is being fetched, half of it each way. Each replica under way "
		"takes 256 KiB of it; others wait."},
	{0},
};

static const struct metric_row rows[M_CATCHUP_COUNT] = {
	[M_CATCHUP_BYTES_IN] = {"sluice_catchup_in_bytes_total", 0, METRIC_COUNTER,
		"Bytes fetched from other nodes by replicas that were too far behind."},
	[M_CATCHUP_BYTES_OUT] = {"sluice_catchup_out_bytes_total", 0, METRIC_COUNTER,
		"Bytes that replicas on other nodes have fetched from this one."},
	[M_CATCHUP_SESSIONS] = {"sluice_catchup_sessions", 0, METRIC_GAUGE,
		"Replicas on other nodes that fetch from this one."},
	[M_CATCHUP_FETCHES] = {"sluice_catchup_fetches", 0, METRIC_GAUGE,
		"Replicas on this node that fetch what they lack of log and rows."},
	[M_CATCHUP_FETCHED] = {"sluice_catchup_fetched_total", 0, METRIC_COUNTER,
		"Replicas on this node that have fetched what they lacked."},
	[M_CATCHUP_FAILED] = {"sluice_catchup_failed_total", 0, METRIC_COUNTER,
		"Fetches that ended before; they are tried again."},
};
struct metric_table catchup_metrics = {rows, M_CATCHUP_COUNT, 0};
