/* Results as lines for people or for programs. Values are turned to text when they are added;
 * what remains is to lay them out. */
#include "tools/bench/report.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *next_value(struct report *r, const char *name, bool quoted)
{
	if (r->count == REPORT_FIELDS_MAX) /* our own table of fields is too short */
		__builtin_trap();
	r->names[r->count] = name;
	r->quoted[r->count] = quoted;
	return r->values[r->count++];
}

void report_word(struct report *r, const char *name, const char *value)
{
	char *at = next_value(r, name, true);

	snprintf(at, REPORT_VALUE_BYTES, "%s", value);
	for (; *at; at++) /* names we were given; what JSON would have to escape is masked */
		if ((unsigned char)*at < ' ' || *at == '"' || *at == '\\')
			*at = '?';
}

void report_int(struct report *r, const char *name, uint64_t value)
{
	snprintf(next_value(r, name, false), REPORT_VALUE_BYTES, "%llu", (unsigned long long)value);
}

void report_real(struct report *r, const char *name, double value, int decimals)
{
	if (!isfinite(value))
		value = 0;
	snprintf(next_value(r, name, false), REPORT_VALUE_BYTES, "%.*f", decimals, value);
}

void report_hist(struct report *r, const char *const names[5], const struct hist *h)
{
	static const double shares[4] = {0.5, 0.9, 0.99, 0.999};

	for (int i = 0; i < 4; i++)
		report_real(r, names[i], (double)hist_at(h, shares[i]) / 1e6, 3);
	report_real(r, names[4], (double)h->max / 1e6, 3);
}

static void print_json(const struct report *r)
{
	for (int i = 0; i < r->count; i++) {
		printf("%s\"%s\": ", i ? ", " : "{", r->names[i]);
		printf(r->quoted[i] ? "\"%s\"" : "%s", r->values[i]);
	}
	printf("}\n");
}

static void print_table(const struct report *r)
{
	int column = 0;

	for (int i = 0; i < r->count; i++) {
		int width = (int)(strlen(r->names[i]) + strlen(r->values[i])) + 3;

		if (column && column + width > 100) {
			printf("\n    ");
			column = 4;
		}
		if (i == 0)
			printf("%s  ", r->values[i]);
		else
			printf("%s %s  ", r->names[i], r->values[i]);
		column += width;
	}
	printf("\n");
}

void report_print(const struct report *r, bool json)
{
	if (json)
		print_json(r);
	else
		print_table(r);
	fflush(stdout);
}
