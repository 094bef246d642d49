/* Every row of every table has a number, given at boot; a thread's cells are an array of that
 * many relaxed atomics, written by that thread alone, so counting is a load and a store to its
 * own memory. Cells are pushed to a list that only grows and is walked by the scrape. */
#include "server/base/metric.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "server/base/mem.h"

struct metric_cells {
	struct metric_cells *next;
	int count;
	_Atomic int64_t cells[];
};

/* Written at boot by one thread; read only afterwards. */
static struct metric_table **tables;
static int tables_count, rows_count;
static _Atomic(struct metric_cells *) all_cells;

/* base is one above the first row's number: 0 says that the table has none yet. */
void metric_register(struct metric_table *t)
{
	if (t->base != 0)
		return;
	must(atomic_load(&all_cells) == NULL);
	tables = mem_resize(tables, (size_t)(tables_count + 1) * sizeof *tables);
	must(tables != NULL);
	tables[tables_count++] = t;
	t->base = rows_count + 1;
	rows_count += t->count;
}

struct metric_cells *metric_cells_new(void)
{
	size_t cells = (size_t)rows_count * sizeof(int64_t);
	struct metric_cells *c = mem_new(sizeof *c + cells);

	c->count = rows_count;
	c->next = atomic_load_explicit(&all_cells, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&all_cells, &c->next, c))
		;
	return c;
}

static _Atomic int64_t *cell(struct metric_cells *c, const struct metric_table *t, int row)
{
	must(t->base > 0);
	must(row >= 0 && row < t->count);
	must(t->base - 1 + row < c->count);
	return &c->cells[t->base - 1 + row];
}

void metric_add(struct metric_cells *c, const struct metric_table *t, int row, int64_t n)
{
	_Atomic int64_t *at = cell(c, t, row);

	/* One writer: no locked addition needed. */
	atomic_store_explicit(
		at, atomic_load_explicit(at, memory_order_relaxed) + n, memory_order_relaxed);
}

void metric_set(struct metric_cells *c, const struct metric_table *t, int row, int64_t v)
{
	atomic_store_explicit(cell(c, t, row), v, memory_order_relaxed);
}

int64_t metric_sum(const struct metric_table *t, int row)
{
	int64_t sum = 0;

	for (struct metric_cells *c = atomic_load(&all_cells); c != NULL; c = c->next)
		sum += atomic_load_explicit(cell(c, t, row), memory_order_relaxed);
	return sum;
}

struct scraped { /* one row of one table, to be sorted by name */
	const struct metric_row *row;
	const struct metric_table *table;
	int number;
};

static int by_name(const void *a, const void *b)
{
	const struct scraped *x = a, *y = b;
	int order = strcmp(x->row->name, y->row->name);

	return order ? order : (x->number > y->number) - (x->number < y->number);
}

static void add_help(struct buf *out, const struct metric_row *row)
{
	buf_addf(out, "# HELP %s ", row->name);
	for (const char *c = row->help ? row->help : ""; *c; c++) {
		if (*c == '\\' || *c == '\n')
			buf_add_u8(out, '\\');
		buf_add_u8(out, *c == '\n' ? 'n' : (uint8_t)*c);
	}
	buf_addf(out, "\n# TYPE %s %s\n", row->name,
		row->kind == METRIC_COUNTER ? "counter" : "gauge");
}

void metric_scrape(struct buf *out)
{
	struct scraped *all = mem_new((size_t)rows_count * sizeof *all);
	int n = 0;

	for (int t = 0; t < tables_count; t++)
		for (int r = 0; r < tables[t]->count; r++, n++)
			all[n] = (struct scraped){&tables[t]->rows[r], tables[t], n};
	qsort(all, (size_t)n, sizeof *all, by_name);
	for (int i = 0; i < n; i++) {
		const struct metric_row *row = all[i].row;
		int64_t sum = metric_sum(all[i].table, (int)(row - all[i].table->rows));

		if (i == 0 || strcmp(row->name, all[i - 1].row->name) != 0)
			add_help(out, row);
		buf_add_text(out, row->name);
		if (row->labels != NULL)
			buf_addf(out, "{%s}", row->labels);
		buf_addf(out, " %" PRId64 "\n", sum);
	}
	mem_free(all);
}
