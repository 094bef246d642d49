/* The HTTP/1.1 door: health, metrics, the administrator's API, records by stream and by topic.
 * Boot: http_rows into a struct http_conf; http_new after broker_new and net_open, its result is
 * the door's arg; http_serving(true) once the doors are open, (false) when the server is about to
 * end. The end: http_free when the loops stand and net is freed. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H
#include "server/base/conf.h"
#include "server/broker/broker.h"
#include "server/net/net.h"

struct groups; /* group_home.h */
struct http;

struct http_conf {                /* filled by http_rows */
	int64_t head_bytes_max;   /* request line and headers */
	int64_t head_count_max;   /* headers of a request */
	int64_t head_ms;          /* a head begun must be complete after */
	int64_t body_ms;          /* a body must be complete after */
	int64_t idle_ms;          /* between requests */
	int64_t json_bytes_max;   /* body of an API request */
	int64_t pipeline_max;     /* requests of a connection not yet answered */
	int64_t wait_ms_max;      /* longest wait for records */
	int64_t answer_bytes_max; /* records in one answer */
	bool echo;                /* http.echo */
};
extern const struct conf_row http_rows[];
extern struct metric_table http_metrics;
extern const struct conn_kind http_kind; /* conn_door_arg: struct http * */

struct http_env { /* what the door shows and changes; borrowed until http_free */
	struct broker *broker;
	struct groups *groups; /* the Kafka door's */
	struct loops *loops;
	const struct net *net;
	const struct conf *conf;
	/* Asks the daemon to read its settings again: replicated ones changed. Any thread. */
	void (*reload)(void);
};
/* Before loops_run. */
struct http *http_new(const struct http_conf *conf, const struct http_env *env);
void http_serving(struct http *h, bool on); /* any thread */
void http_free(struct http *h);             /* NULL is fine */

#endif
