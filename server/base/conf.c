/* Each row keeps two sets of texts: what the sources said since the last conf_forget, and what is
 * in force. Sources only check and remember, a stronger one replacing a weaker one's text; then
 * conf_apply moves the first set to the second and writes the modules' fields. So a reload whose
 * file has a mistake changes nothing. */
#include "server/base/conf.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "server/base/conf_priv.h"
#include "server/base/log.h"
#include "server/base/mem.h"

enum { FILE_BYTES_MAX = 1 << 20, NAME_BYTES_MAX = 128, NAMED_COUNT_MAX = 10000, WHY_BYTES = 256 };

/* ---- sets of texts */

static void settings_clear(struct conf_settings *s)
{
	for (int i = 0; i < s->count; i++) {
		mem_free(s->at[i].key);
		mem_free(s->at[i].value);
	}
	mem_free(s->at);
	*s = (struct conf_settings){0};
}

static struct conf_setting *settings_find(const struct conf_settings *s, const char *key)
{
	for (int i = 0; i < s->count; i++)
		if (strcmp(s->at[i].key, key) == 0)
			return &s->at[i];
	return NULL;
}

static char *text_copy(const char *text)
{
	return mem_text(text, strlen(text));
}

static enum err settings_put(
	struct conf_settings *s, const char *key, const char *value, enum conf_source source)
{
	struct conf_setting *at = settings_find(s, key);

	if (at != NULL && at->source > source)
		return OK;
	if (at != NULL) {
		mem_free(at->value);
		at->value = text_copy(value);
		at->source = source;
		return OK;
	}
	if (s->count >= NAMED_COUNT_MAX)
		return ERR_TOOBIG;
	at = mem_resize(s->at, (size_t)(s->count + 1) * sizeof *at);
	if (at == NULL)
		return ERR_NOMEM;
	s->at = at;
	s->at[s->count++] = (struct conf_setting){text_copy(key), text_copy(value), source};
	return OK;
}

/* Order counts too: the first that matches may be what a named list is for. */
static bool settings_equal(const struct conf_settings *a, const struct conf_settings *b)
{
	if (a->count != b->count)
		return false;
	for (int i = 0; i < a->count; i++)
		if (strcmp(a->at[i].key, b->at[i].key) != 0 ||
			strcmp(a->at[i].value, b->at[i].value) != 0)
			return false;
	return true;
}

/* ---- rows */

struct conf *conf_new(void)
{
	return mem_new(sizeof(struct conf));
}

void conf_free(struct conf *c)
{
	if (c == NULL)
		return;
	for (int i = 0; i < c->count; i++) {
		settings_clear(&c->at[i].read);
		settings_clear(&c->at[i].applied);
		mem_free(c->at[i].pairs);
	}
	mem_free(c->at);
	mem_free(c);
}

/* The length of what stands before the name, with its point; 0: not a named row. */
static size_t prefix_len(const struct conf_row *row)
{
	return row->kind == CONF_NAMED ? strlen(row->key) - 1 : 0;
}

static const char *text_now(const struct conf_entry *e)
{
	return e->applied.count ? e->applied.at[0].value : e->row->initial;
}

static void named_write(struct conf_entry *e, struct conf_named *field)
{
	mem_free(e->pairs);
	e->pairs = NULL;
	if (e->applied.count > 0)
		e->pairs = mem_new((size_t)e->applied.count * sizeof *e->pairs);
	for (int i = 0; i < e->applied.count; i++)
		e->pairs[i] = (struct conf_pair){
			e->applied.at[i].key + prefix_len(e->row), e->applied.at[i].value};
	*field = (struct conf_named){e->applied.count, e->pairs};
}

/* Puts what is in force where the module reads it. Every text was checked when it was read. */
static void field_write(struct conf_entry *e)
{
	void *field = (char *)e->into + e->row->at;
	union conf_value v = {0};
	char why[WHY_BYTES];

	if (e->row->kind != CONF_NAMED)
		must(conf_value_parse(e->row, text_now(e), &v, why, sizeof why) == OK);
	switch (e->row->kind) {
	case CONF_BOOL: *(bool *)field = v.on; break;
	case CONF_INT:
	case CONF_BYTES:
	case CONF_MSEC: *(int64_t *)field = v.number; break;
	case CONF_WORD: *(int *)field = v.word; break;
	case CONF_TEXT: *(const char **)field = text_now(e); break;
	case CONF_NAMED: named_write(e, field); break;
	}
}

static bool row_valid(const struct conf_row *row)
{
	size_t len = strlen(row->key);

	if (row->initial == NULL || row->help == NULL)
		return false;
	if (row->kind == CONF_WORD && row->words == NULL)
		return false;
	return row->kind != CONF_NAMED || (len > 2 && strcmp(row->key + len - 2, ".*") == 0);
}

void conf_add(struct conf *c, const struct conf_row *rows, void *into)
{
	for (; rows->key != NULL; rows++) {
		must(row_valid(rows));
		for (int i = 0; i < c->count; i++)
			must(strcmp(c->at[i].row->key, rows->key) != 0);
		c->at = mem_resize(c->at, (size_t)(c->count + 1) * sizeof *c->at);
		must(c->at != NULL);
		c->at[c->count] = (struct conf_entry){.row = rows, .into = into};
		field_write(&c->at[c->count++]);
	}
}

/* ---- sources */

static bool name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > NAME_BYTES_MAX)
		return false;
	for (; *name; name++)
		if ((uint8_t)*name <= ' ' || (uint8_t)*name == 0x7f || *name == '=')
			return false;
	return true;
}

static struct conf_entry *entry_find(struct conf *c, const char *key)
{
	for (int i = 0; i < c->count; i++)
		if (prefix_len(c->at[i].row) == 0 && strcmp(c->at[i].row->key, key) == 0)
			return &c->at[i];
	for (int i = 0; i < c->count; i++) {
		size_t len = prefix_len(c->at[i].row);
		if (len > 0 && strncmp(c->at[i].row->key, key, len) == 0 && name_valid(key + len))
			return &c->at[i];
	}
	return NULL;
}

__attribute__((format(printf, 3, 4))) static enum err invalid(
	char *why, size_t why_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(why, why_size, format, args);
	va_end(args);
	return ERR_INVALID;
}

static enum err unknown(const struct conf *c, const char *key, char *why, size_t why_size)
{
	const char *nearest = NULL;
	int least = (int)strlen(key) / 3 + 2; /* further away is no likely typing mistake */

	for (int i = 0; i < c->count; i++) {
		int distance = conf_key_distance(key, c->at[i].row->key);
		if (distance < least) {
			least = distance;
			nearest = c->at[i].row->key;
		}
	}
	if (nearest != NULL)
		return invalid(why, why_size, "unknown key %s; did you mean %s?",
			log_text(bytes_text(key)).text, nearest);
	return invalid(why, why_size, "unknown key %s", log_text(bytes_text(key)).text);
}

static enum err entry_set(struct conf_entry *e, const char *key, const char *value,
	enum conf_source source, char *why, size_t why_size)
{
	union conf_value v;
	char reason[WHY_BYTES] = "not valid";
	enum err err;

	if (!bytes_utf8(bytes_text(value)))
		return invalid(why, why_size, "%s: is not UTF-8", key);
	if (conf_value_parse(e->row, value, &v, reason, sizeof reason) != OK) {
		if (conf_is_secret(key))
			return invalid(why, why_size, "%s: %s", key, reason);
		return invalid(why, why_size, "%s = %s: %s", key, log_text(bytes_text(value)).text,
			reason);
	}
	err = settings_put(&e->read, key, value, source);
	if (err == ERR_TOOBIG)
		return invalid(why, why_size, "%s: too many of them", key);
	must(err == OK); /* configuration is ours: out of memory at start is the end */
	return OK;
}

static enum err key_set(struct conf *c, const char *key, const char *value, enum conf_source source,
	char *why, size_t why_size)
{
	struct conf_entry *e = entry_find(c, key);

	if (e == NULL)
		return unknown(c, key, why, why_size);
	return entry_set(e, key, value, source, why, why_size);
}

enum err conf_set(struct conf *c, const char *key, const char *value, char *why, size_t why_size)
{
	return key_set(c, key, value, FROM_SET, why, why_size);
}

/* Cuts white space off both ends, in place. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\r");
	len = strlen(text);
	while (len > 0 && strchr(" \t\r", text[len - 1]) != NULL)
		text[--len] = 0;
	return text;
}

static enum err line_read(struct conf *c, char *line, char *why, size_t why_size)
{
	char *equals;

	line = trim(line);
	if (*line == 0 || *line == '#')
		return OK;
	equals = strchr(line, '=');
	if (equals == NULL)
		return invalid(why, why_size, "expected key = value");
	*equals = 0;
	return key_set(c, trim(line), trim(equals + 1), FROM_FILE, why, why_size);
}

static enum err lines_read(struct conf *c, char *text, const char *path, char *why, size_t why_size)
{
	char reason[WHY_BYTES];

	for (int number = 1; text != NULL; number++) {
		char *next = strchr(text, '\n');
		if (next != NULL)
			*next++ = 0;
		if (line_read(c, text, reason, sizeof reason) != OK)
			return invalid(why, why_size, "%s:%d: %s", path, number, reason);
		text = next;
	}
	return OK;
}

static enum err file_failed(const char *path, char *why, size_t why_size)
{
	enum err e = errno == ENOENT ? ERR_NOTFOUND : ERR_IO;

	snprintf(why, why_size, "%s: %s", path, strerrordesc_np(errno));
	return e;
}

enum err conf_read_file(struct conf *c, const char *path, char *why, size_t why_size)
{
	FILE *f = fopen(path, "re");
	char *text;
	size_t len;
	enum err e;

	if (f == NULL)
		return file_failed(path, why, why_size);
	text = mem_new(FILE_BYTES_MAX + 1);
	errno = EIO;
	len = fread(text, 1, FILE_BYTES_MAX + 1, f);
	if (ferror(f))
		e = file_failed(path, why, why_size);
	else if (len > FILE_BYTES_MAX)
		e = invalid(why, why_size, "%s: is over 1 MiB", path);
	else if (memchr(text, 0, len) != NULL)
		e = invalid(why, why_size, "%s: holds a zero byte", path);
	else
		e = lines_read(c, text, path, why, why_size);
	mem_free(text);
	fclose(f);
	return e;
}

/* Names of the environment that begin like ours but are not: Kubernetes describes each service
 * of a namespace to every container (one called sluice: SLUICE_SERVICE_HOST, SLUICE_PORT,
 * SLUICE_PORT_1883_TCP ...), and the command line has its own. */
static bool env_is_foreign(const char *name)
{
	static const char *const tools[] = {"SERVER", "CONTEXT", "CONFIG", "USER", "OUTPUT"};
	const char *port = strstr(name, "PORT");

	for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++)
		if (strcmp(name, tools[i]) == 0)
			return true;
	if (strstr(name, "SERVICE_HOST") != NULL || strstr(name, "SERVICE_PORT") != NULL)
		return true;
	return port != NULL &&
		(port[4] == 0 || (port[4] == '_' && port[5] >= '0' && port[5] <= '9'));
}

/* The key an environment name (after SLUICE_) stands for; false: none. */
static bool env_key(const struct conf *c, const char *name, char *key, size_t key_size)
{
	for (int i = 0; i < c->count; i++) {
		const char *row_key = c->at[i].row->key;
		size_t len = strlen(row_key);
		if (prefix_len(c->at[i].row) == 0 && strlen(name) == len &&
			conf_env_is(name, row_key, len)) {
			snprintf(key, key_size, "%s", row_key);
			return true;
		}
	}
	for (int i = 0; i < c->count; i++) {
		size_t len = prefix_len(c->at[i].row);
		if (len == 0 || !conf_env_is(name, c->at[i].row->key, len))
			continue;
		snprintf(key, key_size, "%.*s%s", (int)len, c->at[i].row->key, name + len);
		for (char *at = key + len; *at; at++)
			if (*at >= 'A' && *at <= 'Z')
				*at = (char)(*at - 'A' + 'a');
		return true;
	}
	return false;
}

/* What the name would be as a key, for the hint. */
static void env_guess(const char *name, char *key, size_t key_size)
{
	snprintf(key, key_size, "%s", name);
	for (; *key; key++) {
		if (*key == '_')
			*key = '.';
		else if (*key >= 'A' && *key <= 'Z')
			*key = (char)(*key - 'A' + 'a');
	}
}

static enum err env_read(
	struct conf *c, const char *name, const char *value, char *why, size_t why_size)
{
	char key[2 * NAME_BYTES_MAX], reason[WHY_BYTES];
	enum err e;

	if (env_key(c, name, key, sizeof key)) {
		e = key_set(c, key, value, FROM_ENV, reason, sizeof reason);
	} else if (env_is_foreign(name)) {
		return OK;
	} else {
		env_guess(name, key, sizeof key);
		e = unknown(c, key, reason, sizeof reason);
	}
	if (e != OK)
		return invalid(
			why, why_size, "SLUICE_%s: %s", log_text(bytes_text(name)).text, reason);
	return OK;
}

enum err conf_read_env(struct conf *c, char **environ, char *why, size_t why_size)
{
	static const char start[] = "SLUICE_";

	for (; *environ != NULL; environ++) {
		const char *name = *environ + sizeof start - 1, *equals;
		char *copy;
		enum err e;

		if (strncmp(*environ, start, sizeof start - 1) != 0)
			continue;
		equals = strchr(name, '=');
		if (equals == NULL)
			continue;
		copy = mem_text(name, (size_t)(equals - name));
		e = env_read(c, copy, equals + 1, why, why_size);
		mem_free(copy);
		if (e != OK)
			return e;
	}
	return OK;
}

/* ---- in force */

void conf_apply(struct conf *c, bool start)
{
	for (int i = 0; i < c->count; i++) {
		struct conf_entry *e = &c->at[i];
		struct conf_settings before = e->applied;

		if (settings_equal(&e->read, &e->applied) && !start) {
			for (int k = 0; k < e->read.count; k++)
				e->applied.at[k].source = e->read.at[k].source;
			continue;
		}
		if (!start && e->row->effect == CONF_AT_START) {
			LOG(LOG_WARN, AREA_CONF, "conf_needs_restart", "key=%s", e->row->key);
			continue;
		}
		e->applied = (struct conf_settings){0};
		for (int k = 0; k < e->read.count; k++)
			must(settings_put(&e->applied, e->read.at[k].key, e->read.at[k].value,
				     e->read.at[k].source) == OK);
		field_write(e);
		settings_clear(&before); /* no field points there any more */
	}
}

void conf_forget(struct conf *c)
{
	for (int i = 0; i < c->count; i++)
		settings_clear(&c->at[i].read);
}

bool conf_next(const struct conf *c, int *i, struct conf_item *out)
{
	static const char *const sources[] = {"default", "file", "env", "set"};
	int left = *i;

	for (int k = 0; k < c->count; k++) {
		const struct conf_entry *e = &c->at[k];
		int items = e->row->kind == CONF_NAMED ? e->applied.count : 1;
		if (left >= items) {
			left -= items;
			continue;
		}
		*out = (struct conf_item){e->row, e->row->key, e->row->initial, sources[0]};
		if (e->applied.count > 0)
			*out = (struct conf_item){e->row, e->applied.at[left].key,
				e->applied.at[left].value, sources[e->applied.at[left].source]};
		if (conf_is_secret(out->name) && out->value[0])
			out->value = "***";
		(*i)++;
		return true;
	}
	return false;
}
