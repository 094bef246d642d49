/* The forms in which values are written, and the pages that describe the rows. The reference and
 * the sample come from the rows alone, so they cannot tell of a key that does not exist. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "server/base/conf_priv.h"

enum { KEY_BYTES_COMPARED = 96, SAMPLE_COLUMNS = 92 };

struct unit {
	const char *name;
	int64_t of;
};

static const struct unit byte_units[] = {{"", 1}, {"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20},
	{"GiB", 1 << 30}, {"TiB", (int64_t)1 << 40}, {0}};
static const struct unit time_units[] = {
	{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {0}};
static const struct unit no_units[] = {{"", 1}, {0}};

/* A whole number with one of the units behind it. */
static enum err parse_units(const char *text, const struct unit *units, int64_t *out)
{
	bool negative = text[0] == '-';
	const char *digits = text + negative, *at = digits;
	int64_t v = 0;

	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *at - '0', &v))
			return ERR_INVALID;
	if (at == digits)
		return ERR_INVALID;
	for (; units->name != NULL; units++)
		if (strcasecmp(at, units->name) == 0) {
			if (__builtin_mul_overflow(v, units->of, &v))
				return ERR_INVALID;
			*out = negative ? -v : v;
			return OK;
		}
	return ERR_INVALID;
}

enum err conf_parse_int(const char *text, int64_t *out)
{
	return parse_units(text, no_units, out);
}
enum err conf_parse_bytes(const char *text, int64_t *out)
{
	return parse_units(text, byte_units, out);
}
enum err conf_parse_msec(const char *text, int64_t *out)
{
	return parse_units(text, time_units, out);
}

enum err conf_parse_bool(const char *text, bool *out)
{
	static const char *const words[][2] = {
		{"false", "true"}, {"off", "on"}, {"no", "yes"}, {"0", "1"}};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		for (int v = 0; v < 2; v++)
			if (strcasecmp(text, words[i][v]) == 0) {
				*out = v;
				return OK;
			}
	return ERR_INVALID;
}

bool conf_is_secret(const char *key)
{
	return strstr(key, "password") != NULL || strstr(key, "bootstrap") != NULL;
}

bool conf_env_is(const char *env, const char *key, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = key[i];
		if (c >= 'a' && c <= 'z')
			c = (char)(c - 'a' + 'A');
		else if (c == '.' || c == '-')
			c = '_';
		if (c == 0 || env[i] != c)
			return false;
	}
	return true;
}

static int least(int a, int b)
{
	return a < b ? a : b;
}

int conf_key_distance(const char *a, const char *b)
{
	int row[KEY_BYTES_COMPARED + 1];
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > KEY_BYTES_COMPARED || b_len > KEY_BYTES_COMPARED)
		return KEY_BYTES_COMPARED;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = (int)j;
	for (size_t i = 1; i <= a_len; i++) {
		int diagonal = row[0];
		row[0] = (int)i;
		for (size_t j = 1; j <= b_len; j++) {
			int change = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			row[j] = least(change, least(row[j], row[j - 1]) + 1);
		}
	}
	return row[b_len];
}

/* What a value of the kind looks like. */
static const char *kind_text(enum conf_kind kind)
{
	switch (kind) {
	case CONF_BOOL: return "true or false";
	case CONF_INT: return "a whole number";
	case CONF_BYTES: return "a size (4096, 64KiB, 4MiB, 1GiB)";
	case CONF_MSEC: return "a time (500ms, 5s, 10m, 2h, 7d)";
	case CONF_TEXT: return "text";
	case CONF_WORD: return "a word";
	case CONF_NAMED: return "named texts";
	}
	return "";
}

static bool has_bounds(const struct conf_row *row)
{
	return row->min != 0 || row->max != 0;
}

static enum err number_parse(
	const struct conf_row *row, const char *text, int64_t *out, char *why, size_t why_size)
{
	enum err e;

	if (row->kind == CONF_INT)
		e = conf_parse_int(text, out);
	else if (row->kind == CONF_BYTES)
		e = conf_parse_bytes(text, out);
	else
		e = conf_parse_msec(text, out);
	if (e != OK) {
		snprintf(why, why_size, "must be %s", kind_text(row->kind));
		return e;
	}
	if (has_bounds(row) && (*out < row->min || *out > row->max)) {
		snprintf(why, why_size, "must lie between %lld and %lld", (long long)row->min,
			(long long)row->max);
		return ERR_INVALID;
	}
	if (!has_bounds(row) && row->kind != CONF_INT && *out < 0) {
		snprintf(why, why_size, "must not be negative");
		return ERR_INVALID;
	}
	return OK;
}

static enum err word_parse(
	const struct conf_row *row, const char *text, int *out, char *why, size_t why_size)
{
	size_t len;

	for (int i = 0; row->words[i] != NULL; i++)
		if (strcasecmp(text, row->words[i]) == 0) {
			*out = i;
			return OK;
		}
	len = (size_t)snprintf(why, why_size, "must be one of");
	for (int i = 0; row->words[i] != NULL && len < why_size; i++)
		len += (size_t)snprintf(
			why + len, why_size - len, "%s %s", i ? "," : "", row->words[i]);
	return ERR_INVALID;
}

enum err conf_value_parse(const struct conf_row *row, const char *text, union conf_value *out,
	char *why, size_t why_size)
{
	enum err e = OK;

	switch (row->kind) {
	case CONF_BOOL:
		e = conf_parse_bool(text, &out->on);
		if (e != OK)
			snprintf(why, why_size, "must be %s", kind_text(row->kind));
		break;
	case CONF_INT:
	case CONF_BYTES:
	case CONF_MSEC: e = number_parse(row, text, &out->number, why, why_size); break;
	case CONF_WORD: e = word_parse(row, text, &out->word, why, why_size); break;
	case CONF_TEXT:
	case CONF_NAMED: break;
	}
	if (e == OK && row->check != NULL)
		e = row->check(text, why, why_size);
	return e;
}

/* Text for a cell of a table. */
static void add_cell(struct buf *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			buf_add_u8(out, '\\');
		buf_add_u8(out, *text == '\n' ? ' ' : (uint8_t)*text);
	}
}

static void add_allowed(struct buf *out, const struct conf_row *row)
{
	buf_add_text(out, row->kind == CONF_WORD ? "one of" : kind_text(row->kind));
	for (int i = 0; row->kind == CONF_WORD && row->words[i] != NULL; i++)
		buf_addf(out, "%s %s", i ? "," : "", row->words[i]);
	if (row->kind > CONF_MSEC || row->kind == CONF_BOOL || !has_bounds(row))
		return;
	if (row->max == INT64_MAX)
		buf_addf(out, ", at least %lld", (long long)row->min);
	else
		buf_addf(out, ", %lld to %lld", (long long)row->min, (long long)row->max);
}

void conf_write_reference(const struct conf *c, struct buf *out)
{
	buf_add_text(out,
		"| key | value | default | takes effect | meaning |\n"
		"|--|--|--|--|--|\n");
	for (int i = 0; i < c->count; i++) {
		const struct conf_row *row = c->at[i].row;
		buf_addf(out, "| `%s` | ", row->key);
		add_allowed(out, row);
		buf_add_text(out, row->initial[0] ? " | `" : " | ");
		add_cell(out, row->initial);
		buf_add_text(out, row->initial[0] ? "` | " : " | ");
		buf_add_text(out, row->effect == CONF_AT_RELOAD ? "on reload | " : "at start | ");
		add_cell(out, row->help);
		buf_add_text(out, " |\n");
	}
}

/* Adds text as comment lines of at most SAMPLE_COLUMNS. */
static void add_comment(struct buf *out, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t len = strcspn(text, " \n");
		if (column > 0 && column + 1 + len > SAMPLE_COLUMNS) {
			buf_add_u8(out, '\n');
			column = 0;
		}
		buf_add_text(out, column == 0 ? "# " : " ");
		buf_add(out, bytes_of(text, len));
		column += len + (column == 0 ? 2 : 1);
		text += len;
		text += strspn(text, " \n");
	}
	if (column > 0)
		buf_add_u8(out, '\n');
}

void conf_write_sample(const struct conf *c, struct buf *out)
{
	add_comment(out,
		"Settings as \"key = value\". Those that are commented out show their "
		"defaults. The environment (SLUICE_LISTEN_MQTT for listen.mqtt) and --set "
		"come after this file and win.");
	for (int i = 0; i < c->count; i++) {
		const struct conf_row *row = c->at[i].row;
		buf_add_u8(out, '\n');
		add_comment(out, row->help);
		buf_add_text(out, "# Value: ");
		add_allowed(out, row);
		buf_addf(out, "; %s.\n",
			row->effect == CONF_AT_RELOAD ? "changes on reload" : "read at start");
		if (row->kind == CONF_NAMED)
			buf_addf(out, "#%.*sNAME =%s%s\n", (int)strlen(row->key) - 1, row->key,
				row->initial[0] ? " " : "", row->initial);
		else
			buf_addf(out, "#%s =%s%s\n", row->key, row->initial[0] ? " " : "",
				row->initial);
	}
}
