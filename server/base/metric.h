/* Metrics. Each module declares an enum and a table of rows; a metric_cells is one thread's own
 * counters, summed over threads when scraped. Exactly one thread writes a metric_cells.
 * Labels come only from bounded sets and are part of the row ("protocol=\"mqtt\""). */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H
#include <stdint.h>
#include "server/base/buf.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric_row {
	const char *name;   /* sluice_..., counters end with _total */
	const char *labels; /* inside the braces, or NULL */
	enum metric_kind kind;
	const char *help;
};

struct metric_table { /* one per module, const but for base, which metric_register sets */
	const struct metric_row *rows;
	int count;
	int base;
};

struct metric_cells;

/* Boot, before any cells exist: gives the table its numbers. */
void metric_register(struct metric_table *t);
struct metric_cells *metric_cells_new(void); /* one thread's own; kept for the scrape */
void metric_add(struct metric_cells *c, const struct metric_table *t, int row, int64_t n);
void metric_set(struct metric_cells *c, const struct metric_table *t, int row, int64_t v);
int64_t metric_sum(const struct metric_table *t, int row); /* over all threads */
/* Appends all metrics in the Prometheus text format 0.0.4. Any thread. */
void metric_scrape(struct buf *out);

#endif
