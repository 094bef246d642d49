/* The broker's life and what follows the catalogue: each shard compiles the route tables anew when
 * a catalogue comes into force on its loop, so that publishing looks at nothing but its own shard
 * (space.c). */
#include <stdatomic.h>
#include <stdio.h>
#include "server/broker/access.h"
#include "server/broker/audit.h"
#include "server/broker/broker_priv.h"
#include "server/broker/produce.h"
#include "server/broker/producer.h"
#include "server/broker/rights_admin.h"
#include "server/broker/session_ask.h"

static enum err check_bootstrap(const char *text, char *why, size_t why_size)
{
	const char *colon = strchr(text, ':');
	if (*text == 0 || (colon != NULL && colon != text && colon[1] != 0))
		return OK;
	(void)snprintf(why, why_size, "must be NAME:PASSWORD");
	return ERR_INVALID;
}

static const char *const anonymous_words[] = {"auto", "on", "off", NULL};
static const char *const certificate_words[] = {"off", "cn", "subject", "san", NULL};

#define AT(field) offsetof(struct broker_conf, field)
const struct conf_row broker_rows[] = {
	{"message.bytes_max", CONF_BYTES, AT(message_bytes_max), "4MiB", 1024, 64 << 20, NULL,
		CONF_AT_START, NULL, "Greatest size of one message, the same for every protocol."},
	{"stream.auto_create", CONF_BOOL, AT(stream_auto_create), "true", 0, 0, NULL,
		CONF_AT_RELOAD, NULL,
		"Whether producing to a stream that does not exist creates it."},
	{"route.*", CONF_NAMED, AT(routes), "", 0, 0, NULL, CONF_AT_START, route_check,
		"Which stream takes a topic: FILTER -> STREAM [durability=sync|memory] "
		"[key=topic|level(N)|text(WORD)]. Routes are tried in order of name, the one named "
		"default last; unless set, that one is # -> mqtt. Those of a tenant are called "
		"route.TENANT/NAME."},
	{"publish.inflight_bytes", CONF_BYTES, AT(publish_inflight_bytes), "4MiB", 65536,
		(int64_t)1 << 40, NULL, CONF_AT_RELOAD, NULL,
		"Bytes published through one loop and not yet committed, beyond which its "
		"publishers are not read from."},
	{"publish.batch_bytes", CONF_BYTES, AT(batch_bytes_max), "256KiB", 4096, 16 << 20, NULL,
		CONF_AT_RELOAD, NULL,
		"Size at which the messages of one turn for one partition are cut into batches."},
	{"session.lease", CONF_MSEC, AT(session_lease_ms), "5s", 100, 600000, NULL, CONF_AT_START,
		NULL,
		"How long a node that cannot reach the leader of a session's table goes on "
		"acknowledging that session's messages; after half as long again its sessions are "
		"taken for absent. The same on all nodes."},
	{"feed.bytes", CONF_BYTES, AT(feed_bytes), "16MiB", 65536, (int64_t)1 << 40, NULL,
		CONF_AT_RELOAD, NULL,
		"Bytes of recent records that one loop keeps for readers that fell behind."},
	{"auth.anonymous", CONF_WORD, AT(auth_anonymous), "auto", 0, 0, anonymous_words,
		CONF_AT_RELOAD, NULL,
		"Who may come without a login: auto, from this machine while there is no user; on, "
		"everyone; off, nobody."},
	{"auth.bootstrap", CONF_TEXT, AT(auth_bootstrap), "", 0, 0, NULL, CONF_AT_START,
		check_bootstrap,
		"NAME:PASSWORD of the first administrator; used only while there is no user. Where "
		"it is set nobody gets in because there is none yet."},
	{"auth.certificate", CONF_WORD, AT(auth_certificate), "cn", 0, 0, certificate_words,
		CONF_AT_RELOAD, NULL,
		"Which part of a verified client certificate is the name of a user, who then needs "
		"no password: its common name, its whole subject as RFC 4514 writes it, or its "
		"alternative name (the URI, else the mail address, else the DNS name); off: none. "
		"A part there are several of names nobody."},
	{"auth.fail_delay", CONF_MSEC, AT(auth_fail_delay_ms), "100ms", 0, 5000, NULL,
		CONF_AT_RELOAD, NULL,
		"How long a refused login waits for its answer; doubled with each further one from "
		"the same address, up to five seconds."},
	{"auth.hashers", CONF_INT, AT(auth_hashers), "0", 0, 64, NULL, CONF_AT_START, NULL,
		"Threads that compare passwords with their slow hashes; 0: one for four processor "
		"cores."},
	{.key = NULL},
};
#undef AT

static const struct metric_row rows[] = {
	[M_MESSAGES_IN] = {"sluice_messages_in_total", NULL, METRIC_COUNTER,
		"Messages published by topic."},
	[M_BYTES_IN] = {"sluice_message_bytes_in_total", NULL, METRIC_COUNTER,
		"Bytes of messages published by topic."},
	[M_BATCHES_IN] = {"sluice_publish_batches_total", NULL, METRIC_COUNTER,
		"Batches that published messages were gathered into."},
	[M_PUBLISH_BUSY] = {"sluice_publish_paused_total", NULL, METRIC_COUNTER,
		"Times a publisher had to wait because too much was in flight."},
	[M_PUBLISH_FAILED] = {"sluice_publish_batches_failed_total", NULL, METRIC_COUNTER,
		"Batches of published messages that were not stored."},
	[M_INFLIGHT_BYTES] = {"sluice_publish_inflight_bytes", NULL, METRIC_GAUGE,
		"Bytes published and not yet committed."},
	[M_RECORDS_MATCHED] = {"sluice_feed_records_total", NULL, METRIC_COUNTER,
		"Records that loops matched against their subscriptions."},
	[M_MESSAGES_OUT] = {"sluice_messages_out_total", NULL, METRIC_COUNTER,
		"Messages taken by subscribers."},
	[M_BYTES_OUT] = {"sluice_message_bytes_out_total", NULL, METRIC_COUNTER,
		"Payload bytes of messages taken by subscribers."},
	[M_FELL_BEHIND] = {"sluice_subscribers_fell_behind_total", NULL, METRIC_COUNTER,
		"Times a subscriber did not keep up with a partition."},
	[M_BEHIND] = {"sluice_subscribers_behind", NULL, METRIC_GAUGE,
		"Subscribers times partitions that read at a position of their own."},
	[M_CATCHUP_READS] = {"sluice_catchup_reads_total", NULL, METRIC_COUNTER,
		"Reads of the log for subscribers behind."},
	[M_CATCHUP_BYTES] = {"sluice_catchup_read_bytes_total", NULL, METRIC_COUNTER,
		"Bytes read from the log for subscribers behind."},
	[M_FEED_GAPS] = {"sluice_feed_gaps_total", NULL, METRIC_COUNTER,
		"Times a loop did not keep up with a partition and read the log instead."},
	[M_SKIPPED] = {"sluice_records_skipped_total", NULL, METRIC_COUNTER,
		"Records trimmed before subscribers behind had read them."},
	[M_MEMORY_FRAMES_DROPPED] = {"sluice_memory_batches_dropped_total", NULL, METRIC_COUNTER,
		"Batches of memory routes dropped between nodes for lack of room."},
	[M_MEMORY_DROPPED] = {"sluice_memory_dropped_total", NULL, METRIC_COUNTER,
		"Messages of memory routes dropped for a subscriber or loop that was full."},
	[M_RETAINED_SKIPPED] = {"sluice_retained_skipped_total", NULL, METRIC_COUNTER,
		"Retained values not sent because they had expired or could not be read."},
	[M_RETAINED_SENT] = {"sluice_retained_sent_total", NULL, METRIC_COUNTER,
		"Retained messages sent to new subscriptions."},
	[M_SUBSCRIPTIONS] = {"sluice_subscriptions", NULL, METRIC_GAUGE,
		"Topic filters subscribed to."},
	[M_KEPT_BYTES] = {"sluice_feed_kept_bytes", NULL, METRIC_GAUGE,
		"Memory of entries kept for subscribers behind."},
	[M_UNREADABLE] = {"sluice_batches_unreadable_total", NULL, METRIC_COUNTER,
		"Batches passed over because they could not be read."},
	[M_LOGINS] = {"sluice_logins_total", NULL, METRIC_COUNTER,
		"Logins by password, SCRAM or certificate that succeeded."},
	[M_LOGINS_REFUSED] = {"sluice_logins_refused_total", NULL, METRIC_COUNTER,
		"Logins refused: no such user, or not its password."},
	[M_LOGINS_BUSY] = {"sluice_logins_busy_total", NULL, METRIC_COUNTER,
		"Logins turned away because too many were under way."},
};
struct metric_table broker_metrics = {rows, sizeof rows / sizeof rows[0], 0};

void *priv_grown(void *array, size_t count, size_t *room, size_t each)
{
	if (count < *room)
		return array;
	*room = *room > 0 ? *room * 2 : 8;
	void *bigger = mem_resize(array, *room * each);
	must(bigger != NULL);
	return bigger;
}

void priv_tick(struct shard *s, int64_t after_ms)
{
	if (!loop_timer_is_set(&s->tick) || s->tick.at_ms > loop_now_ms(s->loop) + after_ms)
		loop_timer_set(&s->tick, after_ms);
}

/* ---- life */

static void catalog_changed(struct catalog_watcher *w, const struct catalog *c)
{
	struct shard *s = list_entry(w, struct shard, catalog_watcher);
	const struct catalog *old = s->catalog;
	/* Those told of a memory batch may publish anew: until nothing is left. */
	while (!list_empty(&s->open) || s->memory_open)
		publish_flush(s);
	s->catalog = catalog_hold(c);
	spaces_catalog(s);
	feeds_catalog(s, old);
	if (old != NULL)
		catalog_release(old);
}

static void shard_init(struct shard *s, struct broker *b, int index)
{
	s->broker = b;
	s->index = index;
	s->loop = loops_at(b->loops, index);
	spaces_init(s);
	publish_init(s);
	memory_init(s);
	deliver_init(s);
	feeds_init(s);
	list_init(&s->catalog_watcher.node);
	s->catalog_watcher.loop = s->loop;
	s->catalog_watcher.changed = catalog_changed;
}

enum err broker_new(const struct broker_conf *conf, struct node *node, struct loops *loops,
	struct broker **out, char *why, size_t why_size)
{
	for (int i = 0; i < conf->routes.count; i++) {
		char line[120];
		if (route_check(conf->routes.pairs[i].value, line, sizeof line) == OK)
			continue;
		(void)snprintf(why, why_size, "route.%s: %s", conf->routes.pairs[i].name, line);
		return ERR_INVALID;
	}
	proposal_kind_add(&publish_kind);
	proposal_kind_add(&produce_kind);
	proposal_kind_add(&producer_ids_kind);
	session_kinds_add();
	struct broker *b = mem_new(sizeof *b);
	b->conf = conf;
	b->bootstraps = conf->auth_bootstrap != NULL && *conf->auth_bootstrap != 0;
	b->node = node;
	b->loops = loops;
	b->count = loops_count(loops);
	b->shards = mem_new((size_t)b->count * sizeof *b->shards);
	for (int i = 0; i < b->count; i++)
		shard_init(&b->shards[i], b, i);
	memory_serve(b);
	b->rights = rights_new(b);
	for (int i = 0; i < b->count; i++)
		node_watch_catalog(node, &b->shards[i].catalog_watcher);
	*out = b;
	return OK;
}

static void start_here(void *arg)
{
	struct broker *b = arg;
	atomic_store(&b->started, true);
	spaces_start(b);
}

void broker_start(struct broker *b)
{
	loop_call(loops_at(b->loops, 0), start_here, b);
	rights_bootstrap(b, b->conf->auth_bootstrap);
}

bool broker_ready(const struct broker *b)
{
	return atomic_load(&b->streams_exist) && !atomic_load(&b->admin_due) && node_ready(b->node);
}

void broker_free(struct broker *b)
{
	if (b == NULL)
		return;
	rights_bootstrap_fini(b);
	rights_free(b->rights);
	for (int i = 0; i < b->count; i++) {
		struct shard *s = &b->shards[i];
		audit_fini(s);
		retained_fini(s);
		deliver_fini(s);
		feeds_fini(s);
		publish_fini(s);
		memory_fini(s);
		place_fini(s);
		spaces_fini(s);
		if (s->catalog != NULL)
			catalog_release(s->catalog);
	}
	mem_free(b->creating);
	mem_free(b->shards);
	mem_free(b);
}

struct shard *broker_shard(struct broker *b, const struct loop *l)
{
	return &b->shards[loop_index(l)];
}
struct loop *shard_loop(const struct shard *s)
{
	return s->loop;
}
struct broker *shard_broker(const struct shard *s)
{
	return s->broker;
}
struct node *shard_node(const struct shard *s)
{
	return s->broker->node;
}
const struct broker_conf *shard_conf(const struct shard *s)
{
	return s->broker->conf;
}
const struct catalog *shard_catalog(const struct shard *s)
{
	return node_catalog(s->broker->node, s->loop);
}
