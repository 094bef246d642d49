/* A node is its groups and the catalogue that names them. Group 1 holds the catalogue's rows; all
 * else follows from these: at boot the groups they name are opened before any loop runs. Those in
 * the store that they do not name (a stream half created or half deleted when the process ended)
 * are deleted once the catalogue is known to be as new as its leader's: what is here may be older.
 * A group lives on the loop its number falls to.
 *
 * Boot is the caller's thread alone, which owns all loops until they run. Afterwards the meta
 * group's home loop directs, and each loop keeps the catalogue in force on it. */
#include "cluster/node.h"
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "cluster/node_metrics.h"
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/storage.h"

enum {
	WATCH_MS = 20,
	CLUSTER_WATCH_MS = 100,
	GRAVE_MS = 60000,
	TWICE_MS = 15000,    /* refused for so long as a second process with the same data */
	TWICE_GAP_MS = 5000, /* between two such refusals */
	CLOSE_SAY_MS = 3000
};

#define AT(field) offsetof(struct node_conf, field)

const struct conf_row node_rows[] = {
	{"node.id", CONF_INT, AT(id), "1", 1, INT32_MAX, NULL, CONF_AT_START, NULL,
		"Number of this node, unique in the cluster; Kafka's broker id."},
	{"node.name", CONF_TEXT, AT(name), "", 0, 0, NULL, CONF_AT_START, NULL,
		"Name of this node for people; empty: the host's."},
	{"node.rack", CONF_TEXT, AT(rack), "", 0, 0, NULL, CONF_AT_START, NULL,
		"Rack or zone of this node."},
	{"cluster.name", CONF_TEXT, AT(cluster_name), "sluice", 0, 0, NULL, CONF_AT_START, NULL,
		"Name of the cluster for people."},
	{"cluster.seeds", CONF_TEXT, AT(seeds), "", 0, 0, NULL, CONF_AT_START, NULL,
		"Peer addresses to find the cluster by; empty: a cluster of one."},
	{"cluster.moves", CONF_INT, AT(moves), "4", 1, 1000, NULL, CONF_AT_START, NULL,
		"Partitions of a node whose replicas may be moved at a time; those with less than "
		"1 MiB count a sixteenth."},
	{"cluster.replace_after", CONF_MSEC, AT(replace_after_ms), "0", 0, INT64_MAX, NULL,
		CONF_AT_START, NULL,
		"A node that is silent for so long has its replicas made anew on other nodes; 0: "
		"never, as it may only be under repair and would be copied in vain."},
	{"stream.partitions", CONF_INT, AT(stream_partitions), "8", 1, META_STREAM_PARTITIONS_MAX,
		NULL, CONF_AT_START, NULL, "Partitions of a stream that is made without a number."},
	{"stream.replicas", CONF_INT, AT(stream_replicas), "3", 1, 7, NULL, CONF_AT_START, NULL,
		"Replicas a stream gets if there are that many nodes."},
	{"retention.ms", CONF_MSEC, AT(retention_ms), "7d", -1, INT64_MAX, NULL, CONF_AT_START,
		NULL, "Age at which records may go, unless a stream says else; -1: never."},
	{"retention.bytes", CONF_BYTES, AT(retention_bytes), "-1", -1, INT64_MAX, NULL,
		CONF_AT_START, NULL,
		"Bytes a partition may hold, unless its stream says else; -1: any number."},
	{"tables", CONF_INT, AT(tables), "16", 1, META_TABLES_MAX, NULL, CONF_AT_START, NULL,
		"Groups that hold sessions and consumers' positions; fixed when a cluster is "
		"founded."},
	{"partition.inflight", CONF_BYTES, AT(inflight_bytes_max), "16MiB", 1 << 20, 1 << 30, NULL,
		CONF_AT_START, NULL,
		"Bytes a partition takes before they are committed; more is refused for the "
		"moment."},
	{"partition.rows", CONF_BYTES, AT(rows_bytes_max), "64MiB", 1 << 20, INT64_MAX, NULL,
		CONF_AT_START, NULL,
		"Memory for rows (sessions, positions, retained messages) that are on the disk, "
		"too."},
	{0},
};

/* --- what others ask --- */

bool node_ready(const struct node *n)
{
	return atomic_load(&n->ready);
}

const struct node_conf *node_conf(const struct node *n)
{
	return &n->conf;
}

const char *node_cluster_id(const struct node *n)
{
	return n->cluster_id;
}

struct peers *node_peers(const struct node *n)
{
	return n->peers;
}

uint32_t node_id(const struct node *n)
{
	return (uint32_t)n->conf.id;
}

uint64_t node_boot(const struct node *n)
{
	return n->identity.boot;
}

bool node_alone(const struct node *n)
{
	return atomic_load(&n->alone);
}

void node_advertise(struct node *n, const char *door, const char *addresses)
{
	if (addresses == NULL || addresses[0] == 0 || n->door_count == META_DOORS_MAX)
		return;
	n->doors[n->door_count++] = (struct stream_setting){
		mem_text(door, strlen(door)), mem_text(addresses, strlen(addresses))};
}

/* Lines are never changed, only followed by others: who reads an older one reads a whole one,
 * unless seven came meanwhile. */
static void say_line(struct node *n, const char *format, va_list args)
{
	uint32_t next = (atomic_load(&n->why_at) + 1) % WHY_LINES;

	vsnprintf(n->why[next], sizeof n->why[next], format, args);
	atomic_store(&n->why_at, next);
}

struct node_words node_line(struct bytes b)
{
	struct node_words w = {{0}};

	for (size_t i = 0; i < b.len && i < sizeof w.text - 1; i++)
		w.text[i] = (char)(b.at[i] < 0x20 || b.at[i] > 0x7e || b.at[i] == '"' ? '?'
										      : b.at[i]);
	return w;
}

void node_say_why(struct node *n, const char *format, ...)
{
	va_list args;

	if (atomic_load(&n->failed))
		return;
	va_start(args, format);
	say_line(n, format, args);
	va_end(args);
}

void node_fail(struct node *n, const char *format, ...)
{
	va_list args;

	if (atomic_load(&n->failed))
		return;
	va_start(args, format);
	say_line(n, format, args);
	va_end(args);
	LOG(LOG_ERROR, AREA_CLUSTER, "node_failed", "why=\"%s\"", n->why[atomic_load(&n->why_at)]);
	atomic_store(&n->failed, true);
	atomic_store(&n->ready, false);
}

void node_unready_why(const struct node *n, char *out, size_t size)
{
	snprintf(out, size, "%s", n->why[atomic_load(&n->why_at)]);
}

bool node_failed(const struct node *n, char *why, size_t why_size)
{
	if (!atomic_load(&n->failed))
		return false;
	node_unready_why(n, why, why_size);
	return true;
}

const struct catalog *node_catalog(const struct node *n, const struct loop *l)
{
	return n->each[loop_index(l)].catalog;
}

/* --- catalogues in force --- */

static void release_old(struct loop_hook *h)
{
	struct node_loop *l = list_entry(h, struct node_loop, release_hook);

	catalog_release(l->old);
	l->old = NULL;
}

static void apply_settings(struct node_loop *l)
{
	for (int i = 0; i < catalog_stream_count(l->catalog); i++) {
		const struct stream *s = catalog_stream_at(l->catalog, i);

		for (int k = 0; k < s->partition_count; k++) {
			if (partition_home(s->partitions[k]) != l->loop)
				continue;
			partition_set_retention(s->partitions[k], s->deletes ? s->retention_ms : -1,
				s->deletes ? s->retention_bytes : -1);
			partition_set_compaction(
				s->partitions[k], s->compacts ? &s->compaction : NULL);
		}
	}
}

void node_install(struct node_loop *l, const struct catalog *c)
{
	struct list *n, *next;

	catalog_release(l->old);
	l->old = l->catalog;
	l->catalog = c;
	loop_hook_want(l->loop, STAGE_FLUSH, &l->release_hook);
	apply_settings(l);
	metric_add(loop_cells(l->loop), &node_metrics, M_CATALOG_CHANGES, 1);
	for (n = l->watchers.next; n != &l->watchers; n = next) {
		struct catalog_watcher *w = list_entry(n, struct catalog_watcher, node);

		next = n->next;
		w->changed(w, c);
	}
}

struct first_look {
	struct loop_msg msg;
	struct node *node;
	struct catalog_watcher *watcher;
};

static void first_look(struct loop_msg *m)
{
	struct first_look *f = list_entry(m, struct first_look, msg);
	struct node_loop *l = &f->node->each[loop_index(f->watcher->loop)];
	struct catalog_watcher *w = f->watcher;

	mem_free(f);
	if (l->ended)
		return;
	list_push_back(&l->watchers, &w->node);
	w->changed(w, l->catalog);
}

void node_watch_catalog(struct node *n, struct catalog_watcher *w)
{
	struct first_look *f = mem_new(sizeof *f);

	f->node = n;
	f->watcher = w;
	list_init(&w->node);
	f->msg.run = first_look;
	loop_post(w->loop, &f->msg);
}

/* --- watching: readiness, graves --- */

static bool all_led(struct node *n)
{
	const struct group *g;
	int without = 0;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->wanted)
			continue;
		if (!g->ready || (g->replica != 0 && partition_leader(g->partition) == 0))
			without++;
		else if (partition_leader(g->partition) == (uint32_t)n->conf.id &&
			!partition_leads(g->partition))
			without++;
	}
	if (without > 0)
		node_say_why(n, "%d of %u groups have no leader yet", without, n->groups.count);
	return without == 0;
}

void node_bury(struct node *n, struct partition *p)
{
	struct grave *g = mem_new(sizeof *g);

	g->partition = p;
	g->at_ms = loop_now_ms(n->home) + GRAVE_MS;
	list_push_back(&n->graves, &g->node);
}

static void graves_clear(struct node *n, int64_t now_ms)
{
	while (!list_empty(&n->graves)) {
		struct grave *g = list_entry(n->graves.next, struct grave, node);

		if (g->at_ms > now_ms)
			return;
		list_remove(&g->node);
		partition_unref(g->partition);
		mem_free(g);
	}
}

static void pointed(struct partition_point *q)
{
	struct node *n = list_entry(q, struct node, point);

	n->pointing = false;
	if (q->err == OK && !n->closing) {
		n->current = true;
		n->doubted = false;
		model_set_peers(n);
		n->unnamed_due = true;
		n->dirty = true; /* replicas may come to be */
	}
	node_end_if_idle(n);
	node_round(n);
}

static void look_if_current(struct node *n)
{
	if (n->current || n->pointing || !n->founded || n->version == 0)
		return;
	if (partition_leader(n->meta) == 0) {
		node_say_why(n, "the catalogue has no leader yet");
		return;
	}
	n->pointing = true;
	n->point = (struct partition_point){.at = n->meta, .done = pointed};
	partition_point(&n->point);
}

static void look_if_ready(struct node *n)
{
	if (!n->current || n->dirty || n->running || n->catalog_tables == 0 || !all_led(n))
		return;
	LOG(LOG_INFO, AREA_CLUSTER, "node_ready", "node=%lld cluster=%s groups=%u",
		(long long)n->conf.id, n->cluster_id, n->groups.count);
	node_say_why(n, "ready");
	atomic_store(&n->ready, true);
}

static void watch_fire(struct loop_timer *t)
{
	struct node *n = list_entry(t, struct node, timer);
	int64_t now_ms = loop_now_ms(n->home);
	bool ready = atomic_load(&n->ready) || atomic_load(&n->failed), busy;

	graves_clear(n, now_ms);
	if (!n->closing) {
		model_doubt_peers(n, now_ms);
		look_if_current(n);
		if (!ready)
			look_if_ready(n);
		found_tick(n->found, now_ms);
		controller_tick(n->controller, now_ms);
		node_tick_groups(n, now_ms);
		ops_tick(n, now_ms);
		node_aside_tick(n);
	}
	busy = !atomic_load(&n->ready) || atomic_load(&n->aside) == 1;
	loop_timer_set(&n->timer, busy ? WATCH_MS : node_alone(n) ? 1000 : CLUSTER_WATCH_MS);
}

/* --- boot --- */

struct found_groups {
	struct node *n;
	struct stored_group {
		uint64_t id, replica;
		int disk;
		enum store_family family;
	} * at;
	int count, room;
};

static bool found_group(int disk, const struct plog_group_row *row, void *arg)
{
	struct found_groups *f = arg;

	if (f->count == f->room) {
		f->room = f->room ? f->room * 2 : 64;
		f->at = mem_resize(f->at, (size_t)f->room * sizeof *f->at);
		must(f->at != NULL);
	}
	f->at[f->count++] = (struct stored_group){row->group,
		row->info.len == 8 ? get_u64be(row->info.at) : (uint64_t)f->n->conf.id << 32 | 1,
		disk, row->log_family};
	return true;
}

static struct node *node_new(const struct node_conf *conf, struct loops *loops,
	struct workers *workers, struct storage *storage)
{
	struct node *n = mem_new(sizeof *n);
	int count = loops_count(loops);
	struct partition_limits limits = {
		.rows_bytes_max = (size_t)(conf->rows_bytes_max / count),
		.inflight_bytes_max = (size_t)conf->inflight_bytes_max,
	};

	n->conf = *conf;
	if (conf->name == NULL || conf->name[0] == 0) {
		gethostname(n->host, sizeof n->host - 1);
		n->conf.name = n->host;
	}
	n->loops = loops;
	n->workers = workers;
	n->storage = storage;
	n->view = (struct meta_view){.conf = &n->conf,
		.arg = n,
		.docs_row = &n->docs_row,
		.placement = model_placement,
		.alive = model_alive,
		.held = model_held,
		.votes = model_votes,
		.balance_count = controller_balance_count,
		.count = model_count};
	n->started_ms = n->led_ms = clock_ms();
	atomic_store(&n->alone, conf->seeds == NULL || conf->seeds[0] == 0);
	snprintf(n->why[0], sizeof n->why[0], "starting");
	n->home = loops_at(loops, META_GROUP_ID % count);
	n->each = mem_new((size_t)count * sizeof *n->each);
	n->empty = catalog_new(&(struct catalog_parts){0});
	list_init(&n->waiting);
	list_init(&n->graves);
	loop_timer_init(&n->timer, n->home, watch_fire);
	for (int i = 0; i < count; i++) {
		struct node_loop *l = &n->each[i];

		l->node = n;
		l->loop = loops_at(loops, i);
		l->home = partition_home_new(l->loop, &limits);
		l->catalog = catalog_hold(n->empty);
		list_init(&l->watchers);
		loop_hook_init(&l->release_hook, release_old);
	}
	return n;
}

/* Replicas of what the store has: the catalogue's names may be older. */
static void take_stored(struct node *n, const struct found_groups *f)
{
	for (int i = 0; i < f->count; i++) {
		struct group *g;

		if (map_get_u64(&n->groups, f->at[i].id) != NULL)
			continue; /* on two disks: the first one's is as good */
		g = node_group_new(n, f->at[i].id, f->at[i].disk, f->at[i].family);
		g->stored = true;
		g->replica = f->at[i].replica;
	}
}

static enum err open_group(struct node *n, struct group *g)
{
	struct node_loop *l = &n->each[g->id % (uint64_t)loops_count(n->loops)];
	struct partition_options o;

	if (g->id != META_GROUP_ID) {
		node_want_replica(n, g);
		if (g->replica != 0 && g->asked != g->replica)
			g->founder_count = 0;
	}
	o = node_partition_options(n, g);
	g->partition = partition_new(l->home, &o);
	map_put_u64(&l->partitions, g->id, g->partition);
	if (partition_open(g->partition) != OK)
		return g->err = ERR_CORRUPT;
	g->ready = true;
	g->stored = false;
	g->replica = o.replica;
	return OK;
}

/* A cluster of one is founded at once; with seeds it is found out first what there is. */
static bool founds_at_once(const struct node *n)
{
	return n->conf.seeds == NULL || n->conf.seeds[0] == 0;
}

static void read_meta_row(void *arg, struct bytes key, struct bytes value)
{
	model_row(arg, ROW_PUT, key, value);
}

static enum err open_meta(struct node *n)
{
	struct group *g = map_get_u64(&n->groups, META_GROUP_ID);
	bool stored = g != NULL;
	enum err e;

	if (g == NULL)
		g = node_group_new(
			n, META_GROUP_ID, storage_disk_for_new(n->storage), FAMILY_LOG_HOURS);
	if (!stored && founds_at_once(n) && !identity_has_cluster(&n->identity))
		g->asked = (uint64_t)n->conf.id << 32 | 1;
	/* Who joins writes down the cluster first. */
	g->founder_count = !identity_has_cluster(&n->identity) && (stored || g->asked != 0);
	g->founders[0] = stored ? g->replica : g->asked;
	g->wanted = true;
	e = open_group(n, g);
	n->meta = g->partition;
	n->meta_replica = g->replica;
	if (e != OK)
		return e;
	n->watcher.committed = node_on_committed;
	n->watcher.led = node_on_led;
	n->watcher.replaced = node_on_replaced;
	partition_watch(n->meta, &n->watcher);
	if (g->replica == 0)
		return OK;
	e = partition_walk_rows(n->meta, META_KEYSPACE, read_meta_row, n);
	return e == ERR_UNAVAILABLE || e == ERR_CLOSED ? OK : e; /* it was being fetched */
}

static enum err open_groups(struct node *n, uint64_t *failed)
{
	struct group *g;

	node_want_groups(n);
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->wanted || g->ready)
			continue;
		*failed = g->id;
		if (open_group(n, g) != OK)
			return g->err;
	}
	return OK;
}

static enum err boot(struct node *n, struct found_groups *f, char *why, size_t why_size)
{
	enum err e = storage_groups(n->storage, found_group, f);
	uint64_t failed = META_GROUP_ID;

	if (e == OK) {
		take_stored(n, f);
		e = open_meta(n);
	}
	if (e == OK && !n->founded && f->count > 1 && founds_at_once(n) &&
		!identity_has_cluster(&n->identity)) {
		snprintf(why, why_size, "the data has partitions but no catalogue");
		return ERR_CORRUPT;
	}
	if (e == OK)
		e = open_groups(n, &failed);
	if (e != OK) {
		snprintf(why, why_size, "group %llu: %s", (unsigned long long)failed, err_text(e));
		return e;
	}
	if (n->founded) {
		const struct catalog *c = node_build_catalog(n);

		for (int i = 0; i < loops_count(n->loops); i++)
			node_install(&n->each[i], catalog_hold(c));
		catalog_release(c);
		n->force_index = n->seen_index;
	}
	return OK;
}

static struct partition *find_partition(void *arg, uint64_t group)
{
	struct node *n = arg;

	return map_get_u64(&n->each[group % (uint64_t)loops_count(n->loops)].partitions, group);
}

static void peer_changed(struct peer_watcher *w, uint32_t id, bool up)
{
	controller_peer_changed(list_entry(w, struct node, peer_watcher), id, up);
}

/* To be removed is for ever: nothing lets the same data in again. A process of the same data that
 * is connected may be a dead one's connection that nobody has missed yet. */
static void judged(void *arg, enum peer_verdict v, uint32_t by, const char *words)
{
	struct node *n = arg;
	int64_t now_ms = loop_now_ms(n->home);

	if (n->closing)
		return;
	if (v == PEER_SAYS_REMOVED) {
		node_fail(n, "refused by node %u: %.60s; to come back it needs empty data", by,
			words);
		return;
	}
	if (v == PEER_SAYS_OTHER_DATA) {
		controller_other_data(n->controller, by);
		return;
	}
	if (now_ms - n->twice_ms > TWICE_GAP_MS)
		n->twice_since_ms = now_ms;
	n->twice_ms = now_ms;
	if (now_ms - n->twice_since_ms > (v == PEER_SAYS_RUNS ? TWICE_MS : 2 * TWICE_MS))
		node_fail(n, "refused by node %u: %.120s", by, words);
	else if (!atomic_load(&n->ready))
		node_say_why(n, "refused by node %u: %.120s", by, words);
}

static void make_peers(struct node *n)
{
	struct peers_conf c = {
		.node = (uint32_t)n->conf.id,
		.boot = n->identity.boot,
		.cluster_name = n->conf.cluster_name,
		.name = n->conf.name,
		.rack = n->conf.rack != NULL ? n->conf.rack : "",
		.address = n->conf.peer_address,
	};

	if (n->conf.peers == NULL || n->conf.peer_address == NULL || n->conf.peer_address[0] == 0)
		return;
	memcpy(c.instance, n->identity.instance, sizeof c.instance);
	c.tls = n->conf.peers->tls != 0;
	c.queue_bytes_max = n->conf.peers->queue_bytes_max;
	n->peers = peers_new(&c, n->loops);
	if (identity_has_cluster(&n->identity))
		peers_set_cluster(n->peers, n->identity.cluster);
	n->finder = (struct partition_finder){find_partition, n};
	partitions_serve(n->peers, &n->finder);
	if (n->conf.catchup != NULL) {
		n->catchups = catchups_new(n->conf.catchup, n->peers, n->loops);
		partitions_serve_catchup(n->catchups, &n->finder);
	}
	n->peer_watcher = (struct peer_watcher){.loop = n->home, .changed = peer_changed};
	peers_watch(n->peers, &n->peer_watcher);
	peers_on_verdict(n->peers, n->home, judged, n);
	for (int i = 0; i < loops_count(n->loops); i++)
		partition_home_connect(n->each[i].home, n->peers);
	found_serve(n);
	node_status_serve(n);
}

/* After a failed boot: the process will end; what is open is let go of, nothing is written. */
static void node_drop(struct node *n)
{
	for (int i = 0; i < loops_count(n->loops); i++)
		n->each[i].catalog = NULL;
}

enum err node_open(const struct node_conf *conf, struct loops *loops, struct workers *workers,
	struct storage *storage, struct node **out, char *why, size_t why_size)
{
	struct node *n = node_new(conf, loops, workers, storage);
	struct found_groups f = {.n = n};
	enum err e;

	consensus_process_init();
	proposal_kind_add(&meta_kind);
	proposal_kind_add(&meta_found_kind);
	e = identity_open(storage, (uint32_t)conf->id, &n->identity, why, why_size);
	if (e == OK) {
		make_peers(n);
		n->found = found_new(n);
		n->controller = controller_new(n);
		e = boot(n, &f, why, why_size);
	}
	mem_free(f.at);
	if (e != OK) {
		node_drop(n);
		return e;
	}
	for (int i = 0; i < loops_count(loops); i++)
		partition_home_start(n->each[i].home);
	loop_timer_set(&n->timer, 0);
	if (partition_leads(n->meta))
		node_on_led(&n->watcher, true);
	*out = n;
	return OK;
}

static void start_here(void *arg)
{
	struct node *n = arg;

	model_set_peers(n);
	found_start(n->found);
}

void node_start(struct node *n, struct net *net)
{
	must(loop_here() == NULL);
	if (n->peers != NULL)
		peers_start(n->peers, net);
	loop_call(n->home, start_here, n);
}

/* --- the identity's file --- */

static void identity_work(struct job *j)
{
	struct node *n = list_entry(j, struct node, identity_job);

	n->identity_err = identity_write(n->storage, &n->identity);
}

static void identity_done(struct job *j)
{
	struct node *n = list_entry(j, struct node, identity_job);

	n->identity_busy = false;
	n->identity_written(n, n->identity_err);
	node_end_if_idle(n);
}

void node_write_identity(struct node *n, void (*done)(struct node *n, enum err e))
{
	must(!n->identity_busy);
	n->identity_busy = true;
	n->identity_written = done;
	n->identity_job.home = n->home;
	n->identity_job.work = identity_work;
	n->identity_job.done = identity_done;
	worker_run(n->workers, &n->identity_job);
}

/* --- the end --- */

/* Loops end in rounds, each begun when all of them have been through the one before: what one had
 * sent to another by then has arrived.
 * 1: the catalogue is let go of, and nobody proposes any more. 2: what was proposed is there, and
 * refused. 3: the answers have left, as they do when a turn ends. 4: they are there. */
enum { END_ROUNDS = 4 };

static void end_round(struct node *n);

static void loop_end_acked(struct loop_msg *m)
{
	struct node *n = list_entry(m, struct node_loop, end_msg)->node;

	if (--n->pending > 0)
		return;
	if (n->end_round < END_ROUNDS)
		end_round(n);
	else
		atomic_store(&n->closed, true);
}

/* Upper layers may still end what they began, and look things up for it, or ask a partition they
 * know: closed partitions refuse, and live until node_free. */
static void loop_end(struct loop_msg *m)
{
	struct node_loop *l = list_entry(m, struct node_loop, end_msg);

	if (!l->ended) {
		partition_home_stop(l->home);
		loop_hook_cancel(&l->release_hook);
		catalog_release(l->old);
		l->old = l->catalog;
		l->catalog = catalog_hold(l->node->empty);
		l->ended = true;
	}
	l->end_msg.run = loop_end_acked;
	loop_post(l->node->home, &l->end_msg);
}

static void end_round(struct node *n)
{
	n->end_round++;
	n->pending = loops_count(n->loops);
	for (int i = 0; i < loops_count(n->loops); i++) {
		n->each[i].end_msg.run = loop_end;
		loop_post(n->each[i].loop, &n->each[i].end_msg);
	}
}

static void end_loops(struct node *n)
{
	loop_timer_cancel(&n->timer);
	end_round(n);
}

static void group_ended(struct loop_msg *m)
{
	struct node *n = list_entry(m, struct group, msg)->node;

	if (--n->pending == 0)
		end_loops(n);
}

static void group_closed(void *arg)
{
	struct group *g = arg;

	g->msg.run = group_ended;
	loop_post(g->node->home, &g->msg);
}

static void group_close(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct node *n = g->node;

	map_remove_u64(&n->each[loop_index(partition_home(g->partition))].partitions, g->id);
	if (g->id == META_GROUP_ID)
		partition_unwatch(n->meta, &n->watcher);
	partition_close(g->partition, false, group_closed, g);
}

static bool idle(const struct node *n)
{
	return !n->running && n->busy_count == 0 && !n->pointing && !n->identity_busy &&
		!n->founding_busy && !n->telling_busy && found_idle(n->found) &&
		controller_idle(n->controller);
}

void node_end_if_idle(struct node *n)
{
	struct list *w;
	struct group *g;

	if (!n->closing || n->ending || !idle(n))
		return;
	n->ending = true;
	while ((w = list_pop(&n->waiting)) != NULL) {
		struct meta_op *op = list_entry(
			list_entry(w, struct proposal, node), struct meta_op, proposal);

		op->err = ERR_CLOSED;
		op_tell(op);
	}
	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->ready)
			continue;
		n->pending++;
		g->msg.run = group_close;
		loop_post(partition_home(g->partition), &g->msg);
	}
	if (--n->pending == 0)
		end_loops(n);
}

static void close_begin(void *arg)
{
	struct node *n = arg;

	n->closing = true;
	found_stop(n->found);
	node_end_if_idle(n);
}

/* An end that takes long says what for. */
static void say_what_waits(void *arg)
{
	const struct node *n = arg;

	LOG(LOG_WARN, AREA_CLUSTER, "close_waits",
		"ending=%d pending=%d round=%d groups=%d point=%d identity=%d proposals=%d "
		"found=%d "
		"controller=%d",
		n->ending, n->pending, n->running, n->busy_count, n->pointing, n->identity_busy,
		n->founding_busy + n->telling_busy, !found_idle(n->found),
		!controller_idle(n->controller));
}

void node_close(struct node *n)
{
	struct timespec nap = {0, 1000000};
	int64_t say_ms;

	must(loop_here() == NULL);
	atomic_store(&n->ready, false);
	loop_call(n->home, close_begin, n);
	if (n->peers != NULL)
		peers_stop(n->peers);
	say_ms = clock_ms() + CLOSE_SAY_MS;
	while (!atomic_load(&n->closed)) {
		nanosleep(&nap, NULL);
		if (clock_ms() < say_ms)
			continue;
		say_ms += CLOSE_SAY_MS;
		loop_call(n->home, say_what_waits, n);
	}
}

static void drop_groups(struct node *n)
{
	struct group *g;

	graves_clear(n, INT64_MAX);
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		map_remove_u64(&n->groups, g->id);
		partition_unref(g->partition);
		mem_free(g);
	}
}

void node_free(struct node *n)
{
	if (n == NULL)
		return;
	catchups_free(n->catchups);
	found_free(n->found);
	controller_free(n->controller);
	model_free(n);
	drop_groups(n);
	map_fini(&n->groups);
	for (int i = 0; i < n->door_count; i++)
		meta_setting_fini(&n->doors[i]);
	for (int i = 0; i < loops_count(n->loops); i++) {
		map_fini(&n->each[i].partitions);
		catalog_release(n->each[i].old);
		catalog_release(n->each[i].catalog);
		partition_home_free(n->each[i].home);
	}
	catalog_release(n->empty);
	peers_free(n->peers);
	mem_free(n->each);
	mem_free(n);
}
