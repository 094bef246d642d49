/* The insides that conf.c (rows, sources, applying) shares with conf_text.c (the forms of values,
 * the pages made from the rows). */
#ifndef BASE_CONF_PRIV_H
#define BASE_CONF_PRIV_H
#include "server/base/conf.h"

enum conf_source { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_SET };

struct conf_setting { /* a key that was set */
	char *key;    /* whole, as "route.orders" */
	char *value;
	enum conf_source source;
};

struct conf_settings { /* at most one but for CONF_NAMED */
	struct conf_setting *at;
	int count;
};

struct conf_entry { /* a row and what is known of it */
	const struct conf_row *row;
	void *into;
	struct conf_settings read;    /* since the last conf_forget */
	struct conf_settings applied; /* in force; texts of the module's struct point here */
	struct conf_pair *pairs;      /* CONF_NAMED: as the module sees applied */
};

struct conf {
	struct conf_entry *at;
	int count;
};

union conf_value { /* a parsed value */
	bool on;
	int64_t number;
	int word;
};

/* Whether text is a value of the row; why (one line, without the key) if not. */
enum err conf_value_parse(const struct conf_row *row, const char *text, union conf_value *out,
	char *why, size_t why_size) MUST_USE;
/* Passwords and the like are never shown. */
bool conf_is_secret(const char *key);
/* Whether env is the environment's name of key ("LISTEN_MQTT" for listen.mqtt), the first len
 * characters of both. */
bool conf_env_is(const char *env, const char *key, size_t len);
/* How many characters must change to make one key of the other; large when either is long. */
int conf_key_distance(const char *a, const char *b);

#endif
