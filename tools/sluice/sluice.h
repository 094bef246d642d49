/* The command line: words and flags in, HTTP requests to a server, tables or JSON out. One process,
 * one thread; memory is given back at the end of the process where that is simpler. */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code { /* part of the interface */
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_DENIED = 4,
	EXIT_CONFLICT = 5,
	EXIT_UNREACHABLE = 6,
	EXIT_PARTIAL = 7,
	EXIT_UNHEALTHY = 10
};

/* ---- flags (options.c) */

#define FLAGS(X)                                                                                   \
	X(server, "URL", "the server's HTTP door, or unix:PATH of its socket (SLUICE_SERVER)")     \
	X(output, "FORMAT", "-o: table, wide, json or ndjson (SLUICE_OUTPUT)")                     \
	X(user, "NAME[:PASSWORD]", "log in; also in the URL (SLUICE_USER)")                        \
	X(login, "NAME[:PASSWORD]", "the same, where --user is whom the command is about")         \
	X(tenant, "NAME", "act in that tenant (administrators of the cluster)")                    \
	X(timeout, "TIME", "how long a request may take; 30s")                                     \
	X(dry_run, NULL, "check, change nothing")                                                  \
	X(yes, NULL, "-y: do not ask")                                                             \
	X(wait, NULL, "return when the change has taken effect")                                   \
	X(force, NULL, "though nodes are away, or what is on a node that is gone is lost")         \
	X(undo, NULL, "take it back")                                                              \
	X(help, NULL, "-h: describe the command")                                                  \
	X(version, NULL, "print the version")                                                      \
	X(partitions, "N", "number of partitions")                                                 \
	X(replicas, "N", "copies of each partition")                                               \
	X(set, "KEY=VALUE", "a setting; may be repeated; no value: back to the default")           \
	X(retention, "TIME", "how long records are kept: 12h, 7d; -1: for ever")                   \
	X(retention_bytes, "SIZE", "bytes kept per partition: 10GiB; -1: no limit")                \
	X(internal, NULL, "internal streams, too")                                                 \
	X(partition, "N", "one partition only")                                                    \
	X(before, "OFFSET", "records below this offset")                                           \
	X(older_than, "TIME", "records older than this: 12h, 7d")                                  \
	X(stream, "NAME", "the stream")                                                            \
	X(durability, "WORD", "sync or memory")                                                    \
	X(key, "KEY", "the record's key; of a route: topic, level(N) or text(WORD)")               \
	X(header, "NAME=VALUE", "a header of the record; may be repeated")                         \
	X(retain, NULL, "keep as the topic's last value")                                          \
	X(qos, "N", "0: do not wait until it is stored; 1")                                        \
	X(expires, "TIME", "worthless after this time: 10m")                                       \
	X(offset, "OFFSET", "where to start: earliest, latest or a number")                        \
	X(count, "N", "end after so many")                                                         \
	X(follow, NULL, "-f: wait for more when the end is reached")                               \
	X(payload, NULL, "print values alone")                                                     \
	X(password, "TEXT", "the new password; others on the machine may see it")                  \
	X(password_stdin, NULL, "read the new password from stdin")                                \
	X(no_password, NULL, "no password: the user comes by certificate")                         \
	X(role, "NAME", "a role; of a user: may be repeated")                                      \
	X(allow, "ACTIONS", "allow read, write, create, delete, alter, describe, ... or all")      \
	X(deny, "ACTIONS", "refuse them, whatever else allows them")                               \
	X(topic, "FILTER", "MQTT topics; %c: the client id, %u: the user")                         \
	X(group, "NAME", "consumer groups")                                                        \
	X(cluster, NULL, "the cluster")                                                            \
	X(transaction, "ID", "transactional ids")                                                  \
	X(prefixed, NULL, "all whose name begins like this")                                       \
	X(host, "ADDRESS", "only from that address")                                               \
	X(to, "WHERE", "earliest, latest, an offset, or a time: 2026-01-31T12:00:00Z, -1h")

enum flag {
#define X(name, value, help) FLAG_##name,
	FLAGS(X)
#undef X
		FLAG_COUNT
};
enum { WORDS_MAX = 12, REPEATS_MAX = 100 };

struct command;

struct options {
	const char *words[WORDS_MAX]; /* all that is no flag */
	int word_count;
	bool given[FLAG_COUNT];
	const char *value[FLAG_COUNT];
	const char *sets[REPEATS_MAX], *headers[REPEATS_MAX], *roles[REPEATS_MAX];
	int set_count, header_count, role_count;
	const struct command *command;
	const char **args; /* words behind noun and verb */
	int arg_count;
	enum { OUT_TABLE, OUT_WIDE, OUT_JSON, OUT_NDJSON } output;
	int64_t timeout_ms;
	const char *self; /* argv[0] */
	int raw_count;    /* argv behind the command's words, for those that pass them on */
	char **raw;
};

struct command {
	const char *noun, *verb; /* verb NULL: the noun alone */
	const char *args;        /* how they are shown in the help */
	int args_min, args_max;
	const char *flags; /* names it takes, space between, beside those of all */
	const char *help;
	enum exit_code (*run)(const struct options *o);
	bool passes_on; /* what stands behind is not ours to read */
};
extern const struct command commands[]; /* noun NULL ends it */

enum exit_code options_read(struct options *o, int argc, char **argv);
void usage_all(void);
void usage_command(const struct command *c);
enum exit_code usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The flag's value as a number; fallback if not given. EXIT_USAGE after a message. */
enum exit_code flag_int(const struct options *o, enum flag f, int64_t *out);
/* Whether a thing that can't be taken back may be done: --yes, or asked on a terminal. */
enum exit_code confirm(const struct options *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- passwords (password.c) */

/* Asked on the terminal, not shown; owned by the caller. NULL: no terminal. */
char *ask_password(const char *before_name, const char *name, const char *behind);
/* --password, a line of stdin, or asked twice. */
enum exit_code new_password(const struct options *o, const char *name, char **out);
/* Whether the flag is whom or what the command is about, not for all commands. */
bool flag_is_own(const struct options *o, enum flag f);

/* ---- requests (client.c) */

struct answer {
	long status;
	char *body; /* with a NUL behind len bytes */
	size_t len;
	cJSON *json; /* NULL: none */
};
struct request {
	const char *method, *path; /* path is encoded */
	const char *body;
	size_t len;
	const char *type;         /* NULL: JSON if there is a body */
	const char *const *lines; /* further headers */
	int line_count;
};
/* Says what went wrong on stderr. EXIT_OK: a status of 2xx. */
enum exit_code client_call(const struct options *o, const struct request *r, struct answer *out);
enum exit_code client_get(const struct options *o, const char *path, struct answer *out);
/* Takes json; NULL: no body. */
enum exit_code client_send(const struct options *o, const char *method, const char *path,
	cJSON *json, struct answer *out);
void answer_fini(struct answer *a);
/* printf of a path, where %s are encoded; slashes stay when '/' is in keep. Owned by the caller. */
char *path_of(const char *format, const char *part);
char *topic_path(const char *topic);
void client_end(void);

/* How long the server may hold a followed poll before it answers with nothing. */
enum { FOLLOW_WAIT_S = 30 };
/* Several long polls at a time. each gets an answer of 200 and gives the path to ask next, owned by
 * it and freed after the request, or NULL: that one is over. */
struct poll_one {
	char *path;
	void *arg;
	char *(*each)(void *arg, const cJSON *answer);
};
/* Ends when all are over, at once when *enough, or with EXIT_UNREACHABLE when one is not answered
 * within --timeout, followed within FOLLOW_WAIT_S more. */
enum exit_code client_poll(
	const struct options *o, struct poll_one *at, int count, const bool *enough);

/* ---- output (output.c) */

enum column_kind { COLUMN_TEXT, COLUMN_INT, COLUMN_BYTES, COLUMN_MSEC, COLUMN_SEC, COLUMN_BOOL };
struct column {
	const char *title, *member;
	enum column_kind kind;
	bool wide; /* in wide tables only */
};
/* Prints an array of objects, or with list NULL the document as one object. */
void print_list(const struct options *o, const cJSON *document, const char *list,
	const struct column *columns);
void print_object(const struct options *o, const cJSON *document, const struct column *columns);
void print_json(const struct options *o, const cJSON *document);
/* Human forms. out holds 32 bytes. */
void text_of_bytes(int64_t n, char *out);
void text_of_msec(int64_t ms, char *out);
void say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* to stderr */

/* ---- commands */

enum exit_code stream_list(const struct options *o);
enum exit_code stream_create(const struct options *o);
enum exit_code stream_describe(const struct options *o);
enum exit_code stream_alter(const struct options *o);
enum exit_code stream_delete(const struct options *o);
enum exit_code stream_trim(const struct options *o);
enum exit_code route_list(const struct options *o);
enum exit_code route_set(const struct options *o);
enum exit_code route_delete(const struct options *o);
enum exit_code config_show(const struct options *o);
enum exit_code config_set(const struct options *o);
enum exit_code config_check(const struct options *o);
enum exit_code node_status(const struct options *o);
enum exit_code cluster_status(const struct options *o);
enum exit_code cluster_health(const struct options *o);
enum exit_code cluster_nodes(const struct options *o);
enum exit_code cluster_drain(const struct options *o);
enum exit_code cluster_remove(const struct options *o);
enum exit_code cluster_balance(const struct options *o);
enum exit_code cluster_moves(const struct options *o);
enum exit_code partition_list(const struct options *o);
enum exit_code partition_describe(const struct options *o);
enum exit_code user_list(const struct options *o);
enum exit_code user_describe(const struct options *o);
enum exit_code user_add(const struct options *o);
enum exit_code user_passwd(const struct options *o);
enum exit_code user_alter(const struct options *o);
enum exit_code user_enable(const struct options *o);
enum exit_code user_disable(const struct options *o);
enum exit_code user_delete(const struct options *o);
enum exit_code acl_list(const struct options *o);
enum exit_code acl_add(const struct options *o);
enum exit_code acl_delete(const struct options *o);
enum exit_code quota_list(const struct options *o);
enum exit_code quota_set(const struct options *o);
enum exit_code quota_delete(const struct options *o);
enum exit_code group_list(const struct options *o);
enum exit_code group_describe(const struct options *o);
enum exit_code group_reset(const struct options *o);
enum exit_code group_delete(const struct options *o);
enum exit_code tenant_list(const struct options *o);
enum exit_code pub(const struct options *o);
enum exit_code sub(const struct options *o);
enum exit_code bench(const struct options *o);

/* Where a program that is installed beside this one lies. Owned by the caller. */
char *beside(const struct options *o, const char *program);

#endif
