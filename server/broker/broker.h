/* The broker: the product's rules, the same for every protocol. One struct broker per process,
 * one struct shard per loop; adapters work with the shard of their connection's loop only.
 * Boot: broker_rows into the conf, broker_new after node_open, broker_free after node_close. */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H
#include "cluster/node.h"
#include "server/base/conf.h"

struct broker;
struct shard;

struct broker_conf {                    /* filled by broker_rows */
	int64_t message_bytes_max;      /* message.bytes_max: one limit for all doors, 4 MiB */
	bool stream_auto_create;        /* stream.auto_create */
	struct conf_named routes;       /* route.* */
	int64_t publish_inflight_bytes; /* per loop: published and not yet committed */
	int64_t batch_bytes_max;    /* a turn's publishes to one partition are cut at this size */
	int64_t session_lease_ms;   /* session.lease */
	int64_t feed_bytes;         /* per loop: recent entries kept for readers that fell behind */
	int auth_anonymous;         /* auth.anonymous: 0 auto, 1 on, 2 off */
	const char *auth_bootstrap; /* auth.bootstrap: NAME:PASSWORD or "" */
	int auth_certificate;       /* auth.certificate: 0 off, 1 cn, 2 subject, 3 san */
	int64_t auth_fail_delay_ms; /* auth.fail_delay */
	int64_t auth_hashers;       /* auth.hashers: threads for slow hashes */
};
extern const struct conf_row broker_rows[];
extern struct metric_table broker_metrics;

/* Borrows conf for good: what a reload changes is seen. */
enum err broker_new(const struct broker_conf *conf, struct node *node, struct loops *loops,
	struct broker **out, char *why, size_t why_size) MUST_USE;
/* Starts what needs running loops (the default stream exists, feeds, expiry): after loops_run. */
void broker_start(struct broker *b);
/* Any thread: node_ready, the routes' streams exist, and auth.bootstrap's user can log in. */
bool broker_ready(const struct broker *b);
void broker_free(struct broker *b); /* loops stand */

struct shard *broker_shard(struct broker *b, const struct loop *l);
struct loop *shard_loop(const struct shard *s);
struct broker *shard_broker(const struct shard *s);
struct node *shard_node(const struct shard *s);
const struct broker_conf *shard_conf(const struct shard *s);
const struct catalog *shard_catalog(const struct shard *s); /* in force now; good for this turn */

#endif
