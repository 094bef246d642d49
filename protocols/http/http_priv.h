/* The insides of the HTTP door. http.c (life, settings, metrics), http_conn.c (bytes to exchanges
 * and back), http_head.c (request heads), http_answer.c (what handlers answer with), http_route.c
 * (the table of paths and rights), http_login.c (who asks), and the handlers: http_pages.c,
 * http_streams.c, http_records.c, http_admin.c, http_cluster.c, http_users.c, http_acls.c,
 * http_quotas.c, http_groups.c. Thread: an exchange and its connection belong to one loop. */
#ifndef HTTP_HTTP_PRIV_H
#define HTTP_HTTP_PRIV_H
#include <llhttp.h>
#include "protocols/http/http.h"
#include "protocols/http/http_json.h"
#include "server/base/list.h"
#include "server/base/map.h"
#include "server/broker/admin_change.h"
#include "server/broker/auth.h"
#include "server/broker/rights_admin.h"
#include "server/broker/tenant.h"
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
	uint8_t key[32];          /* made up at the start: credentials are known again by it */
};

struct header {
	struct bytes name, value;
};

struct exchange;

/* What a request needs to be let through to its handler. */
struct http_right {
	enum right_of {
		RIGHT_OPEN,  /* nothing, not even a login */
		RIGHT_LOGIN, /* to be let in; what is shown is what they may see */
		RIGHT_NAMED, /* one of the actions on what the first parameter names */
		RIGHT_SOME,  /* on something of the kind; the handler asks about the rest */
		RIGHT_ADMIN, /* an administrator of the tenant, or an action on the cluster */
		RIGHT_USER,  /* the same, or to be the user that the first parameter names */
		RIGHT_WHOLE  /* an action on the cluster itself, not on a tenant's part of it */
	} of;
	enum resource resource;
	unsigned actions; /* bits */
};

struct http_route {
	uint8_t method; /* HTTP_GET, ... */
	uint8_t body;   /* enum route_body */
	struct http_right right;
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
	struct access *access; /* a share; NULL only on open routes */
	bool tenant_asked;     /* it said which tenant it is about */
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
	const char *type;    /* NULL: no Content-Type */
	struct buf extra;    /* whole header lines */
	struct buf out;      /* the body */
	size_t answer_bytes; /* what it counts in the queue: what is expected, then what it has */
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
/* What would have worked. */
void answer_tried(struct exchange *x);
void answer_header(struct exchange *x, const char *name, const char *value);
const char *status_text(int status);
/* Writes status line, headers and body to the connection. */
void answer_write(struct exchange *x);

/* ---- http_conn.c */

void exchange_answered(struct exchange *x);
/* About how many bytes the answer will have: with many owed no further request is taken. For
 * handlers that answer later; not after the connection is gone. */
void exchange_expect(struct exchange *x, size_t bytes);
/* What it costs of the quotas: answers of the connection wait, and nothing is read, as long as they
 * say. */
void exchange_charge_in(struct exchange *x, size_t bytes);
void exchange_charge_out(struct exchange *x, int64_t messages, size_t bytes);
/* Who asks is known, or not: http_login.c's answer to login_begin. */
void exchange_known(struct exchange *x, enum err e);

/* ---- http_login.c */

struct http_login;
struct http_who { /* the last login of a connection, for the requests that come with the same */
	struct access_holder holder; /* .access NULL: nobody yet */
	struct http_login *pending;  /* one is under way */
	bool credentials;            /* it was by those with this HMAC */
	uint8_t mac[32];
};
/* OK: x->access is set. ERR_MORE: exchange_known follows, with one of: ERR_UNAUTHENTICATED;
 * ERR_BUSY: too many logins under way; ERR_RANGE: over the quota of connections;
 * ERR_UNAVAILABLE. */
enum err login_begin(struct http_who *w, struct exchange *x) MUST_USE;
void login_changed(struct access_holder *h, bool gone);
/* The connection goes. Gives the exchange that waited for its login, or NULL. */
struct exchange *login_drop(struct http_who *w);
/* The tenant x asks about, and whether it may what its route needs. If not it is answered. */
bool right_check(struct exchange *x);
bool exchange_may(
	struct exchange *x, enum action action, enum resource resource, struct bytes name);
bool exchange_may_cluster(struct exchange *x, enum action action);
/* False after a 403. */
bool exchange_must(
	struct exchange *x, enum action action, enum resource resource, struct bytes name);
/* The stream's name as its tenant says it. */
const char *stream_bare(const char *name);
/* Into __audit: what an administrator has done that is no change of the catalogue. */
void exchange_audit(
	struct exchange *x, const char *what, struct bytes object, enum err e, const char *detail);
/* Starts a change of the catalogue, of which only op is filled. done runs while x is there. */
void exchange_change(
	struct exchange *x, struct admin_change *c, void (*done)(struct admin_change *c));

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
void api_users(struct exchange *x);
void api_user_add(struct exchange *x);
void api_user(struct exchange *x);
void api_user_alter(struct exchange *x);
void api_user_delete(struct exchange *x);
void api_acls(struct exchange *x);
void api_acls_add(struct exchange *x);
void api_acls_delete(struct exchange *x);
void api_quotas(struct exchange *x);
void api_quota_set(struct exchange *x);
void api_quota_alter(struct exchange *x);
void api_quota_delete(struct exchange *x);
void api_tenants(struct exchange *x);
void api_groups(struct exchange *x);
void api_group(struct exchange *x);
void api_group_delete(struct exchange *x);
void api_group_reset(struct exchange *x);
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

/* A change of users, rules or quotas by who asks, who it is filled in. */
struct rights_op {
	struct rights_change change;
	struct exchange *x;
	cJSON *json;
	struct rule *rules;         /* owned; texts are the JSON's, the exchange's or held's */
	const struct catalog *held; /* NULL: none */
	struct bytes password, *roles;
};
/* json is taken. NULL after an answer: dry_run is no truth. */
struct rights_op *rights_op_new(struct exchange *x, enum rights_change_kind kind, cJSON *json);
void rights_op_free(struct rights_op *op);
/* done has the outcome; rights_op_over answers what all answer that failed or was only tried. */
void rights_op_start(struct rights_op *op, void (*done)(struct rights_change *c));
bool rights_op_over(struct rights_op *op);
/* NULL: none in force, after an answer. */
const struct catalog *exchange_catalog(struct exchange *x);

#endif
