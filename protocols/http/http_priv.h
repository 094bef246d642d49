/* The insides of the HTTP door. http.c (life, settings, metrics), http_conn.c (bytes to exchanges
 * and back), http_head.c (request heads), http_answer.c (what handlers answer with), http_route.c
 * (the table of paths), and the handlers: http_pages.c, http_streams.c, http_records.c,
 * http_admin.c, http_cluster.c. Thread: an exchange and its connection belong to one loop. */
#ifndef HTTP_HTTP_PRIV_H
#define HTTP_HTTP_PRIV_H
#include <llhttp.h>
#include "protocols/http/http.h"
#include "protocols/http/http_json.h"
#include "server/base/list.h"
#include "server/base/map.h"
#include "server/net/conn.h"

enum http_metric {
	M_REQUESTS_1XX_2XX,
	M_REQUESTS_3XX,
	M_REQUESTS_4XX,
	M_REQUESTS_5XX,
	M_REFUSED,
	M_UNANSWERED,
	M_HTTP_COUNT
};

enum { PARAMS_MAX = 3, ORIGIN_BYTES_MAX = 256 };

struct http_loop { /* what a loop keeps for its connections */
	struct shard *shard;
	int64_t date_s; /* of date */
	char date[40];
	int64_t unanswered;
};

struct http {
	const struct http_conf *conf;
	struct http_env env;
	_Atomic bool serving;
	int64_t began_ms; /* wall */
	struct http_loop *loops;
	struct http_watch *watch; /* of the catalogue, on the first loop */
};

struct header {
	struct bytes name, value;
};

struct exchange;
struct http_route {
	uint8_t method;      /* HTTP_GET, ... */
	uint8_t body;        /* enum route_body */
	bool open;           /* for everyone, whatever auth.anonymous says */
	const char *pattern; /* "/a/{b}/c"; {b...} takes the rest, slashes too */
	const char *query;   /* names it understands, for the description */
	const char *summary;
	void (*handle)(struct exchange *x);
};
enum route_body { BODY_NONE, BODY_JSON, BODY_MESSAGE };

/* One request and its answer. The handler owns it from handle until it answers (exactly once, on
 * the connection's loop, inside handle or later); after that it is gone. */
struct exchange {
	struct list node; /* in the connection's queue */
	struct conn *conn;
	struct http *http;
	struct shard *shard;
	const struct http_route *route;
	/* The request. Views point into the head's own copy. */
	uint8_t method;
	bool old; /* HTTP/1.0 */
	bool keep_alive;
	bool wants_continue;
	bool head_done, received, answered;
	bool handling; /* its handler runs, and may still look at it after it has answered */
	bool gone;     /* the connection is: the answer goes nowhere */
	enum err fail; /* found while the parser ran */
	struct bytes target, path, query;
	struct header *headers;
	int header_count, header_max;
	struct bytes params[PARAMS_MAX]; /* decoded, in the order of the pattern */
	struct buf body;
	/* The answer. */
	int status;
	const char *type; /* NULL: no Content-Type */
	struct buf extra; /* whole header lines */
	struct buf out;   /* the body */
	/* Set by a handler that waits: runs once if the connection goes before the answer. */
	void (*abandoned)(struct exchange *x);
	void *state;   /* the handler's */
	uint8_t *head; /* the copy, behind headers, in the same memory */
	size_t head_len;
	uint8_t *scratch; /* room for decoded path and query, as long as the head */
	size_t scratch_used;
};

/* ---- http_head.c */

/* Where the head ends in the input, from *scanned on. OK: *len bytes; ERR_MORE; ERR_MALFORMED: a
 * bare line feed or a folded header; ERR_TOOBIG. */
enum err head_find(struct bytes in, size_t bytes_max, size_t *scanned, size_t *len) MUST_USE;
/* Makes an exchange with a copy of the head. ERR_NOMEM. */
enum err exchange_new(struct bytes head, struct exchange **out) MUST_USE;
void exchange_free(struct exchange *x);
/* What the parser has left to check: Host, the target, Expect. 0, or the status to refuse with and
 * why. */
int head_check(struct exchange *x, const char **why);
struct bytes request_header(const struct exchange *x, const char *name); /* .at NULL: none */
/* The decoded value of a query parameter; .at NULL: not there. Malformed escapes: as they are. */
struct bytes request_query(struct exchange *x, const char *name);
/* *out stays when it is missing. ERR_INVALID. */
enum err request_query_int(struct exchange *x, const char *name, int64_t *out) MUST_USE;
enum err request_query_msec(struct exchange *x, const char *name, int64_t *out) MUST_USE;
enum err request_query_bool(struct exchange *x, const char *name, bool *out) MUST_USE;
/* Decodes %XX into x's scratch. ERR_MALFORMED: an escape cut short, or a NUL. */
enum err percent_decode(
	struct exchange *x, struct bytes in, bool plus_is_space, struct bytes *out) MUST_USE;

/* ---- http_answer.c: each ends the exchange */

/* x->out is the body. */
void answer(struct exchange *x, int status, const char *type);
void answer_json(struct exchange *x, int status); /* ends x->out with a newline */
void answer_empty(struct exchange *x, int status);
void answer_err(struct exchange *x, enum err e, const char *why); /* why NULL: the code's words */
void answer_error(struct exchange *x, int status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void answer_header(struct exchange *x, const char *name, const char *value);
const char *status_text(int status);
/* Writes status line, headers and body to the connection. */
void answer_write(struct exchange *x);

/* ---- http_conn.c */

void exchange_answered(struct exchange *x);
/* Whether the peer is on this machine. */
bool peer_is_local(const struct conn *c);

/* ---- http_route.c */

/* Finds the route and decodes its parameters; 0, or 400, 404, 405 (with Allow set), 204 (OPTIONS,
 * Allow set). */
int route_find(struct exchange *x);
const struct http_route *route_at(int index); /* NULL: past the end */
bool route_match(const char *pattern, struct bytes path, struct bytes *params);

/* ---- handlers */

void page_root(struct exchange *x);
void page_livez(struct exchange *x);
void page_readyz(struct exchange *x);
void page_metrics(struct exchange *x);
void page_openapi(struct exchange *x);
void api_index(struct exchange *x);
void api_streams(struct exchange *x);
void api_stream_create(struct exchange *x);
void api_stream(struct exchange *x);
void api_stream_alter(struct exchange *x);
void api_stream_delete(struct exchange *x);
void api_stream_trim(struct exchange *x);
void api_routes(struct exchange *x);
void api_route_set(struct exchange *x);
void api_route_delete(struct exchange *x);
void api_config(struct exchange *x);
void api_config_set(struct exchange *x);
void api_config_delete(struct exchange *x);
void api_node(struct exchange *x);
void api_cluster(struct exchange *x);
void api_cluster_health(struct exchange *x);
void api_cluster_moves(struct exchange *x);
void api_cluster_balance(struct exchange *x);
void api_node_drain(struct exchange *x);
void api_node_undrain(struct exchange *x);
void api_node_remove(struct exchange *x);
void api_partitions(struct exchange *x);
void api_partition(struct exchange *x);
void records_produce(struct exchange *x);
void records_read(struct exchange *x);
void records_delete(struct exchange *x);
void topic_publish(struct exchange *x);
void topic_retained(struct exchange *x);
void topic_forget(struct exchange *x);

/* What is known of a partition, as members of an open object. */
struct admin_replicas;
void json_replicas(struct json *j, const struct admin_replicas *r);
/* The stream named by the first parameter, or NULL after a 404. */
const struct stream *exchange_stream(struct exchange *x);
/* The body as JSON, or NULL after a 400: it is no object, or has a field that is not one of the
 * space-separated names. An empty body is an empty object. */
cJSON *exchange_json(struct exchange *x, const char *fields);

#endif
