/* A result: named numbers and words in the order they were added. Printed as one line of
 * "name value" columns under a heading, or with --json as one JSON object per line. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H
#include <stdbool.h>
#include <stdint.h>
#include "tools/bench/hist.h"

enum { REPORT_FIELDS_MAX = 48, REPORT_VALUE_BYTES = 256 };

struct report {
	const char *names[REPORT_FIELDS_MAX]; /* static strings */
	char values[REPORT_FIELDS_MAX][REPORT_VALUE_BYTES];
	bool quoted[REPORT_FIELDS_MAX];
	int count;
};

void report_word(struct report *r, const char *name, const char *value);
void report_int(struct report *r, const char *name, uint64_t value);
void report_real(struct report *r, const char *name, double value, int decimals);
/* p50, p90, p99, p99.9 and max of h in milliseconds, each name after prefix; h may be empty. */
void report_hist(struct report *r, const char *const names[5], const struct hist *h);
void report_print(const struct report *r, bool json);

#endif
