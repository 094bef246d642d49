/* Configuration: modules export rows, this reads them from defaults < file < environment
 * (SLUICE_LISTEN_MQTT for listen.mqtt) < --set. A file has lines "key = value"; '#' starts a
 * comment line. The reference page and the sample file are made from the rows.
 * Values are read by any thread as plain fields and change only while all loops stand still. */
#ifndef BASE_CONF_H
#define BASE_CONF_H
#include "server/base/buf.h"

enum conf_kind {
	CONF_BOOL,  /* bool: true/false, on/off, yes/no, 1/0 */
	CONF_INT,   /* int64_t */
	CONF_BYTES, /* int64_t: 4096, 64KiB, 4MiB, 1GiB */
	CONF_MSEC,  /* int64_t: 500 (ms), 500ms, 5s, 10m, 2h, 7d */
	CONF_TEXT,  /* const char *, never NULL, owned by the conf */
	CONF_WORD,  /* int: index into words */
	CONF_NAMED  /* struct conf_named: a key that ends with ".*" collects what is set under it */
};
enum conf_effect { CONF_AT_START, CONF_AT_RELOAD };

struct conf_named { /* in the order first set */
	int count;
	struct conf_pair {
		const char *name, *value;
	} * pairs;
};

struct conf_row {
	const char *key;
	enum conf_kind kind;
	size_t at;                /* offset of the field in the module's struct */
	const char *initial;      /* the default, as it would stand in a file */
	int64_t min, max;         /* CONF_INT, CONF_BYTES, CONF_MSEC */
	const char *const *words; /* CONF_WORD: NULL-terminated */
	enum conf_effect effect;
	/* Further check of the text; NULL: none. On failure writes why (one line). */
	enum err (*check)(const char *text, char *why, size_t why_size);
	const char *help; /* one sentence or more */
};                        /* a row with key NULL ends a table */

struct conf;

struct conf *conf_new(void);
void conf_free(struct conf *c);
/* Adds a module's rows; fields lie in into, which gets the defaults. rows stay borrowed. */
void conf_add(struct conf *c, const struct conf_row *rows, void *into);
/* Each reads one source. On failure: ERR_INVALID (or ERR_IO, ERR_NOTFOUND for the file), and
 * why holds one line that names the key, or file:line. Nothing is applied until conf_apply. */
enum err conf_read_file(struct conf *c, const char *path, char *why, size_t why_size) MUST_USE;
enum err conf_read_env(struct conf *c, char **environ, char *why, size_t why_size) MUST_USE;
enum err conf_set(
	struct conf *c, const char *key, const char *value, char *why, size_t why_size) MUST_USE;
/* Fills the fields from what was read. start: all; else only rows of CONF_AT_RELOAD, and every
 * other changed key is logged as needing a restart. */
void conf_apply(struct conf *c, bool start);
/* Forgets what was read (before a reload reads everything again). */
void conf_forget(struct conf *c);
/* Walks the rows in order of registration: *i starts at 0; false at the end. value is the text
 * in force (secrets as "***"), source one of default/file/env/set. */
struct conf_item {
	const struct conf_row *row;
	const char *name;
	const char *value, *source;
};
bool conf_next(const struct conf *c, int *i, struct conf_item *out);
void conf_write_reference(const struct conf *c, struct buf *out); /* Markdown */
void conf_write_sample(const struct conf *c, struct buf *out);    /* a commented file */

/* Parsers of the value forms, for others who read such text (Kafka configs, CLI). */
enum err conf_parse_bytes(const char *text, int64_t *out) MUST_USE;
enum err conf_parse_msec(const char *text, int64_t *out) MUST_USE;
enum err conf_parse_int(const char *text, int64_t *out) MUST_USE;
enum err conf_parse_bool(const char *text, bool *out) MUST_USE;

#endif
