/* A node is its groups and the catalogue that names them. Group 1 holds the catalogue's rows; all
 * else follows from these: at boot the groups they name are opened before any loop runs, and those
 * in the store that they do not name (a stream half created or half deleted when the process ended)
 * are deleted. A group lives on the loop its number falls to.
 *
 * Boot is the caller's thread alone, which owns all loops until they run. Afterwards the meta
 * group's home loop directs, and each loop keeps the catalogue in force on it. */
#include "cluster/node.h"
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "cluster/node_metrics.h"
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/storage.h"

enum { WATCH_MS = 20, GRAVE_MS = 60000 };

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

const struct meta_view *node_meta_view(const struct node *n)
{
	return &n->view;
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
			if (partition_home(s->partitions[k]) == l->loop)
				partition_set_retention(
					s->partitions[k], s->retention_ms, s->retention_bytes);
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
	if (l->catalog == NULL)
		return; /* closed already */
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

/* --- changes --- */

static void op_home(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);

	op->done(op);
}

static void op_await(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);
	struct node *n = op->node;

	if (n->force_index < op->proposal.index && !n->closing) {
		list_push_back(&n->waiting, &op->proposal.node);
		return;
	}
	op->msg.run = op_home;
	loop_post(op->from, &op->msg);
}

static void op_proposed(struct proposal *p)
{
	struct meta_op *op = list_entry(p, struct meta_op, proposal);

	bool nothing = op->check_only || (op->kind == META_SET && op->setting_count == 0);

	op->err = p->err;
	if (op->err != OK || nothing) {
		if (op->err != OK && op->why[0] == 0)
			snprintf(op->why, sizeof op->why, "%s", err_text(op->err));
		op->done(op);
		return;
	}
	op->msg.run = op_await;
	loop_post(op->node->home, &op->msg);
}

void node_change(struct node *n, struct meta_op *op)
{
	op->node = n;
	op->from = loop_here();
	op->err = OK;
	op->why[0] = 0;
	if (op->kind == META_CREATE_STREAM && op->partitions == -1)
		op->partitions = n->conf.stream_partitions;
	if (op->kind == META_CREATE_STREAM && op->replicas == -1)
		op->replicas = n->conf.stream_replicas;
	op->proposal = (struct proposal){
		.to = n->meta, .batch_max_ms = -1, .evaluate = meta_evaluate, .done = op_proposed};
	partition_propose(&op->proposal);
}

/* --- watching: readiness, graves --- */

static bool all_lead(struct node *n)
{
	struct group *g;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->ready || !partition_leads(g->partition))
			return false;
	}
	return partition_leads(n->meta);
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

static void watch_fire(struct loop_timer *t)
{
	struct node *n = list_entry(t, struct node, timer);

	graves_clear(n, loop_now_ms(n->home));
	if (!n->closing && !atomic_load(&n->ready) && n->founded && n->version > 0 && all_lead(n)) {
		LOG(LOG_INFO, AREA_CLUSTER, "node_ready", "node=%lld cluster=%s groups=%u",
			(long long)n->conf.id, n->cluster_id, n->groups.count + 1);
		atomic_store(&n->ready, true);
	}
	loop_timer_set(&n->timer, atomic_load(&n->ready) ? 1000 : WATCH_MS);
}

/* --- boot --- */

struct found_groups {
	struct node *n;
	struct stored_group {
		uint64_t id;
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
	f->at[f->count++] = (struct stored_group){row->group, disk, row->log_family};
	return true;
}

static int disk_of(const struct node *n, const struct found_groups *f, uint64_t id)
{
	for (int i = 0; i < f->count; i++) {
		if (f->at[i].id == id)
			return f->at[i].disk;
	}
	return storage_disk_for_new(n->storage);
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
	struct catalog *empty = catalog_new(&(struct catalog_parts){0});

	n->conf = *conf;
	if (conf->name == NULL || conf->name[0] == 0) {
		gethostname(n->host, sizeof n->host - 1);
		n->conf.name = n->host;
	}
	n->loops = loops;
	n->workers = workers;
	n->storage = storage;
	n->view.conf = &n->conf;
	n->home = loops_at(loops, META_GROUP_ID % count);
	n->each = mem_new((size_t)count * sizeof *n->each);
	list_init(&n->waiting);
	list_init(&n->graves);
	loop_timer_init(&n->timer, n->home, watch_fire);
	for (int i = 0; i < count; i++) {
		struct node_loop *l = &n->each[i];

		l->node = n;
		l->loop = loops_at(loops, i);
		l->home = partition_home_new(l->loop, &limits);
		l->catalog = catalog_hold(empty);
		list_init(&l->watchers);
		loop_hook_init(&l->release_hook, release_old);
	}
	catalog_release(empty);
	return n;
}

static void read_meta_row(void *arg, struct bytes key, struct bytes value)
{
	model_row(arg, ROW_PUT, key, value);
}

static enum err open_meta(struct node *n, const struct found_groups *f)
{
	struct partition_options o = {
		.env = storage_env(n->storage, loop_index(n->home), disk_of(n, f, META_GROUP_ID)),
		.group = META_GROUP_ID,
		.replica = (uint64_t)n->conf.id << 32 | 1,
		.log_family = FAMILY_LOG_HOURS,
		.vital = true,
	};
	enum err e;

	n->meta = partition_new(n->each[loop_index(n->home)].home, &o);
	e = partition_open(n->meta);
	if (e != OK)
		return e;
	n->watcher.committed = node_on_committed;
	n->watcher.led = node_on_led;
	partition_watch(n->meta, &n->watcher);
	return partition_walk_rows(n->meta, META_KEYSPACE, read_meta_row, n);
}

static enum err open_groups(struct node *n, const struct found_groups *f, uint64_t *failed)
{
	struct group *g;

	for (int i = 0; i < f->count; i++) {
		if (f->at[i].id != META_GROUP_ID)
			node_group_new(n, f->at[i].id, f->at[i].disk, f->at[i].family);
	}
	node_want_groups(n);
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		enum err e;

		if (!g->wanted)
			continue;
		e = partition_open(g->partition);
		if (e != OK) {
			*failed = g->id;
			return e;
		}
		g->ready = true;
	}
	return OK;
}

/* What the catalogue does not name. Before it exists there is nothing to compare with. */
static enum err delete_unwanted(struct node *n, const struct found_groups *f)
{
	for (int i = 0; i < f->count; i++) {
		struct group *g = map_get_u64(&n->groups, f->at[i].id);
		const struct plog_env *env;
		struct plog *log;
		enum err e;

		if (g == NULL || g->wanted)
			continue;
		env = storage_env(
			n->storage, loop_index(partition_home(g->partition)), f->at[i].disk);
		e = plog_open(env, g->id, f->at[i].family, &log);
		if (e != OK)
			return e;
		plog_destroy(log);
		LOG(LOG_INFO, AREA_CLUSTER, "group_deleted", "group=%llu why=unnamed",
			(unsigned long long)g->id);
		map_remove_u64(&n->groups, g->id);
		partition_unref(g->partition);
		mem_free(g);
	}
	return OK;
}

static enum err boot(struct node *n, struct found_groups *f, char *why, size_t why_size)
{
	enum err e = storage_groups(n->storage, found_group, f);
	uint64_t failed = META_GROUP_ID;

	if (e == OK)
		e = open_meta(n, f);
	if (e == OK && !n->founded && f->count > 1) {
		snprintf(why, why_size, "the data has partitions but no catalogue");
		return ERR_CORRUPT;
	}
	if (e == OK)
		e = open_groups(n, f, &failed);
	if (e == OK)
		e = delete_unwanted(n, f);
	if (e != OK) {
		snprintf(why, why_size, "group %llu: %s", (unsigned long long)failed, err_text(e));
		return e;
	}
	n->view.group_count = (int)n->groups.count;
	if (n->founded) {
		const struct catalog *c = node_build_catalog(n);

		for (int i = 0; i < loops_count(n->loops); i++)
			node_install(&n->each[i], catalog_hold(c));
		catalog_release(c);
		n->force_index = n->model_index;
	}
	return OK;
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
	e = boot(n, &f, why, why_size);
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

/* --- the end --- */

static void loop_end_acked(struct loop_msg *m)
{
	struct node_loop *l = list_entry(m, struct node_loop, end_msg);

	if (--l->node->pending == 0)
		atomic_store(&l->node->closed, true);
}

static void loop_end(struct loop_msg *m)
{
	struct node_loop *l = list_entry(m, struct node_loop, end_msg);

	partition_home_stop(l->home);
	partition_home_free(l->home);
	loop_hook_cancel(&l->release_hook);
	catalog_release(l->old);
	catalog_release(l->catalog);
	l->catalog = l->old = NULL;
	l->end_msg.run = loop_end_acked;
	loop_post(l->node->home, &l->end_msg);
}

static void end_loops(struct node *n)
{
	struct group *g;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		map_remove_u64(&n->groups, g->id);
		partition_unref(g->partition);
		mem_free(g);
	}
	partition_unref(n->meta);
	loop_timer_cancel(&n->timer);
	graves_clear(n, INT64_MAX);
	n->pending = loops_count(n->loops);
	for (int i = 0; i < loops_count(n->loops); i++) {
		n->each[i].end_msg.run = loop_end;
		loop_post(n->each[i].loop, &n->each[i].end_msg);
	}
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

	partition_close(g->partition, false, group_closed, g);
}

static void meta_closed(void *arg)
{
	struct node *n = arg;

	if (--n->pending == 0)
		end_loops(n);
}

void node_end_if_idle(struct node *n)
{
	struct list *w;
	struct group *g;

	if (!n->closing || n->running)
		return;
	while ((w = list_pop(&n->waiting)) != NULL) {
		struct meta_op *op = list_entry(
			list_entry(w, struct proposal, node), struct meta_op, proposal);

		op->err = ERR_CLOSED;
		op->msg.run = op_home;
		loop_post(op->from, &op->msg);
	}
	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		n->pending++;
		g->msg.run = group_close;
		loop_post(partition_home(g->partition), &g->msg);
	}
	partition_unwatch(n->meta, &n->watcher);
	partition_close(n->meta, false, meta_closed, n);
}

static void close_begin(void *arg)
{
	struct node *n = arg;

	n->closing = true;
	node_end_if_idle(n);
}

void node_close(struct node *n)
{
	struct timespec nap = {0, 1000000};

	must(loop_here() == NULL);
	atomic_store(&n->ready, false);
	loop_call(n->home, close_begin, n);
	while (!atomic_load(&n->closed))
		nanosleep(&nap, NULL);
	model_free(n);
	map_fini(&n->groups);
	mem_free(n->each);
	mem_free(n);
}
