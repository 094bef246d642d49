/* Output: tables for people, whose numbers are rounded and have units, or the server's JSON for
 * programs, whole or an element per line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

enum { CELL_BYTES = 512, COLUMNS_MAX = 16 };

void text_of_bytes(int64_t n, char *out)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)n;
	int unit = -1;

	while (v >= 1024 && unit < 4) {
		v /= 1024;
		unit++;
	}
	if (n < 0)
		(void)snprintf(out, 32, "unlimited");
	else if (unit < 0)
		(void)snprintf(out, 32, "%lld B", (long long)n);
	else
		(void)snprintf(out, 32, v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

void text_of_msec(int64_t ms, char *out)
{
	static const struct {
		int64_t of;
		const char *name;
	} units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}};

	if (ms < 0) {
		(void)snprintf(out, 32, "unlimited");
		return;
	}
	for (size_t i = 0; i < 4; i++)
		if (ms >= units[i].of && (ms % units[i].of == 0 || ms >= 10 * units[i].of)) {
			(void)snprintf(
				out, 32, "%lld%s", (long long)(ms / units[i].of), units[i].name);
			return;
		}
	(void)snprintf(out, 32, "%lldms", (long long)ms);
}

static void number_text(enum column_kind kind, double v, char *out)
{
	if (kind == COLUMN_BYTES)
		text_of_bytes((int64_t)v, out);
	else if (kind == COLUMN_MSEC)
		text_of_msec((int64_t)v, out);
	else if (kind == COLUMN_SEC)
		text_of_msec((int64_t)v * 1000, out);
	else if (v >= -1e15 && v <= 1e15 && v == (double)(int64_t)v)
		(void)snprintf(out, 32, "%lld", (long long)v);
	else
		(void)snprintf(out, 32, "%g", v);
}

/* Terminals obey control characters; names and values are not ours. */
static void safe_copy(char *out, const char *text)
{
	size_t len = 0;

	for (; *text && len + 1 < CELL_BYTES; text++)
		out[len++] = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
	out[len] = 0;
}

/* "1,2,3", or texts with "; " between. */
static void list_text(const cJSON *list, char *out)
{
	size_t len = 0;
	const cJSON *v;

	*out = 0;
	cJSON_ArrayForEach(v, list)
	{
		char one[CELL_BYTES];
		size_t room = CELL_BYTES - len;
		bool text = cJSON_IsString(v);
		if (text)
			safe_copy(one, v->valuestring);
		else
			number_text(COLUMN_INT, cJSON_IsNumber(v) ? v->valuedouble : 0, one);
		int n = snprintf(out + len, room, "%s%s",
			v == list->child ? ""
				: text   ? "; "
					 : ",",
			one);
		if (n < 0 || (size_t)n >= room)
			return;
		len += (size_t)n;
	}
}

static void cell_text(const struct column *c, const cJSON *row, char *out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, c->member);

	if (cJSON_IsString(v))
		safe_copy(out, v->valuestring);
	else if (cJSON_IsNumber(v))
		number_text(c->kind, v->valuedouble, out);
	else if (cJSON_IsArray(v))
		list_text(v, out);
	else if (cJSON_IsBool(v))
		(void)snprintf(out, CELL_BYTES, "%s", cJSON_IsTrue(v) ? "yes" : "no");
	else
		(void)snprintf(out, CELL_BYTES, "-");
	if (*out == 0)
		(void)snprintf(out, CELL_BYTES, "-");
}

/* Characters, not bytes: what begins one in UTF-8. */
static int width_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static bool shown(const struct options *o, const struct column *c)
{
	return !c->wide || o->output == OUT_WIDE;
}

static bool is_number(enum column_kind kind)
{
	return kind != COLUMN_TEXT && kind != COLUMN_BOOL;
}

static void print_cell(const char *text, int width, bool right, bool last)
{
	int pad = width - width_of(text);

	if (right)
		printf("%*s%s%s", pad, "", text, last ? "\n" : "  ");
	else if (last)
		printf("%s\n", text);
	else
		printf("%s%*s  ", text, pad, "");
}

static void print_table(const struct options *o, const cJSON *rows, const struct column *columns)
{
	int widths[COLUMNS_MAX] = {0}, last = 0;
	char cell[CELL_BYTES];
	const cJSON *row;

	for (int i = 0; columns[i].title != NULL && i < COLUMNS_MAX; i++) {
		if (!shown(o, &columns[i]))
			continue;
		last = i;
		widths[i] = width_of(columns[i].title);
		cJSON_ArrayForEach(row, rows)
		{
			cell_text(&columns[i], row, cell);
			if (width_of(cell) > widths[i])
				widths[i] = width_of(cell);
		}
	}
	for (int i = 0; i <= last; i++)
		if (shown(o, &columns[i]))
			print_cell(
				columns[i].title, widths[i], is_number(columns[i].kind), i == last);
	cJSON_ArrayForEach(row, rows)
	{
		for (int i = 0; i <= last; i++) {
			if (!shown(o, &columns[i]))
				continue;
			cell_text(&columns[i], row, cell);
			print_cell(cell, widths[i], is_number(columns[i].kind), i == last);
		}
	}
}

void print_json(const struct options *o, const cJSON *document)
{
	char *text = o->output == OUT_NDJSON ? cJSON_PrintUnformatted(document)
					     : cJSON_Print(document);

	must(text != NULL);
	puts(text);
	free(text); /* the JSON library's */
}

void print_list(const struct options *o, const cJSON *document, const char *list,
	const struct column *columns)
{
	const cJSON *rows = cJSON_GetObjectItemCaseSensitive(document, list), *row;

	if (o->output == OUT_JSON) {
		print_json(o, document);
	} else if (o->output == OUT_NDJSON) {
		cJSON_ArrayForEach(row, rows) print_json(o, row);
	} else {
		print_table(o, rows, columns);
	}
}

void print_object(const struct options *o, const cJSON *document, const struct column *columns)
{
	char cell[CELL_BYTES];
	int width = 0;

	if (o->output == OUT_JSON || o->output == OUT_NDJSON) {
		print_json(o, document);
		return;
	}
	for (int i = 0; columns[i].title != NULL; i++)
		if (shown(o, &columns[i]) && width_of(columns[i].title) > width)
			width = width_of(columns[i].title);
	for (int i = 0; columns[i].title != NULL; i++) {
		if (!shown(o, &columns[i]))
			continue;
		cell_text(&columns[i], document, cell);
		printf("%-*s  %s\n", width, columns[i].title, cell);
	}
}
