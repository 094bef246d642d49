/* From the model to groups and catalogues in force. Whenever the model has changed a round brings
 * everything in line, one step after the other, each step over all loops:
 *
 *	create   groups that the model names and that are not there, on their home loops, with
 *	         their replica if one is to be on this node
 *	install  a new catalogue is put in force on every loop, which lets go of the one before
 *	tell     those who wait for a change that is in it; each group's loop who its members are
 *	close    groups that are not named any more; nobody can find them now
 *
 * What changes meanwhile is for the next round. All of it is repeated safely after a crash: boot
 * opens what is named and deletes what is not.
 *
 * Replicas of groups that are there come and go beside the rounds. One that is to come is attached.
 * One that is named no more is still needed until the group's leader has taken it out of its
 * configuration, so the leader is asked, once a second, and when it says so the replica goes with
 * its data. */
#include "cluster/node_priv.h"
#include "cluster/partition_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/storage.h"

enum { RETRY_MS = 1000, ASKED_MAX = 16 };

/* --- following the meta group --- */

static void tell_waiting(struct node *n, uint64_t index)
{
	struct list *w, *next;

	for (w = n->waiting.next; w != &n->waiting; w = next) {
		struct meta_op *op = list_entry(
			list_entry(w, struct proposal, node), struct meta_op, proposal);

		next = w->next;
		if (op->proposal.index > index)
			continue;
		list_remove(w);
		op_tell(op);
	}
}

/* The cluster is there: who this node belongs to is written down. */
static void identity_noted(struct node *n, enum err e)
{
	if (e != OK) /* the next start does it */
		LOG(LOG_WARN, AREA_CLUSTER, "identity_not_written", "node=%lld err=\"%s\"",
			(long long)n->conf.id, err_text(e));
}

void node_note_cluster(struct node *n)
{
	if (!n->founded || identity_has_cluster(&n->identity) || n->identity_busy)
		return;
	memcpy(n->identity.cluster, n->cluster.id, sizeof n->identity.cluster);
	if (n->peers != NULL)
		peers_set_cluster(n->peers, n->cluster.id);
	node_write_identity(n, identity_noted);
}

void node_on_committed(struct watcher *w, struct entry *e)
{
	struct node *n = list_entry(w, struct node, watcher);
	struct change_rows rows;
	struct row_change row;

	n->seen_index = e->index;
	if ((e->head.flags & ENTRY_HAS_ROWS) && change_rows_init(&rows, e) == OK) {
		while (change_rows_next(&rows, &row) == OK) {
			if (row.keyspace == META_KEYSPACE)
				model_row(n, row.op, row.key, row.value);
		}
		n->model_index = e->index;
		n->dirty = true;
	}
	node_round(n);
	if (!n->dirty && !n->running) {
		n->force_index = n->seen_index;
		tell_waiting(n, n->force_index);
	}
}

static void read_row(void *arg, struct bytes key, struct bytes value)
{
	model_row(arg, ROW_PUT, key, value);
}

/* What came meanwhile was not shown entry by entry. */
void node_on_replaced(struct watcher *w)
{
	struct node *n = list_entry(w, struct node, watcher);

	model_forget(n);
	if (partition_walk_rows(n->meta, META_KEYSPACE, read_row, n) != OK) {
		LOG(LOG_ERROR, AREA_CLUSTER, "catalog_unreadable", "node=%lld",
			(long long)n->conf.id);
		must_failed("catalogue readable", __FILE__, __LINE__);
	}
	n->seen_index = n->model_index = n->meta->applied_index;
	n->dirty = true;
	node_round(n);
}

void node_on_led(struct watcher *w, bool leads)
{
	struct node *n = list_entry(w, struct node, watcher);

	if (leads)
		found_cluster(n);
}

/* --- groups --- */

/* Places of a node of this id whose data was lost are not this one's: while a catalogue that is
 * read from its beginning comes past them, nothing may be founded again. */
static bool place_is_mine(const struct node *n, const struct meta_place *row, uint64_t *replica)
{
	const struct model_node *m = map_get_u64(&n->nodes, (uint64_t)n->conf.id);

	*replica = meta_place_on(row, (uint32_t)n->conf.id);
	return *replica != 0 && !model_lost(n, *replica) &&
		memcmp(m->row->instance, n->identity.instance, sizeof m->row->instance) == 0;
}

/* The catalogue here is as new as the leader's was when this process had begun. */
static bool is_current(const struct node *n)
{
	return n->current || partition_leads(n->meta);
}

/* Which replica of the group is to be here, and who founds the group. What the store lacks comes to
 * be only by a catalogue that is as new as the leader's: the rows that a restart finds may be older
 * than the end of a replica, which then began again, without what it had promised. */
void node_want_replica(struct node *n, struct group *g)
{
	const struct model_place *p = map_get_u64(&n->places, g->id);
	bool there = g->replica != 0 || g->stored;
	uint64_t replica;

	g->asked = 0;
	g->founder_count = 0;
	if (p == NULL || !place_is_mine(n, &p->row, &replica))
		return;
	if (!there && !is_current(n))
		return;
	g->asked = replica;
	if (!meta_place_founded_by(&p->row, replica))
		return;
	g->founder_count = p->row.founder_count;
	memcpy(g->founders, p->row.founders, sizeof g->founders);
}

struct partition_options node_partition_options(struct node *n, const struct group *g)
{
	int loop = (int)(g->id % (uint64_t)loops_count(n->loops));
	bool founds = g->founder_count > 0;

	return (struct partition_options){
		.env = storage_env(n->storage, loop, g->disk),
		.group = g->id,
		.replica = g->replica != 0 ? g->replica : g->asked,
		.log_family = g->family,
		.vital = g->id == META_GROUP_ID,
		.peers = n->peers,
		.catchups = n->catchups,
		.owner = &n->view,
		.founders = founds ? g->founders : NULL,
		.founder_count = founds ? g->founder_count : 0,
	};
}

struct group *node_group_new(struct node *n, uint64_t id, int disk, enum store_family family)
{
	struct group *g = mem_new(sizeof *g);

	g->id = id;
	g->node = n;
	g->disk = disk;
	g->family = family;
	must(map_put_u64(&n->groups, id, g) == NULL);
	return g;
}

static void want_group(struct node *n, uint64_t id, enum store_family family)
{
	struct group *g = map_get_u64(&n->groups, id);

	if (map_get_u64(&n->places, id) == NULL)
		return;
	if (g == NULL)
		g = node_group_new(n, id, storage_disk_for_new(n->storage), family);
	g->wanted = true;
}

void node_want_groups(struct node *n)
{
	const struct model_stream *s;
	struct group *g;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;)
		g->wanted = false;
	if (!n->founded)
		return;
	for (uint32_t i = 0; i < n->cluster.tables; i++)
		want_group(n, META_TABLE_FIRST + i, FAMILY_LOG_HOURS);
	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;) {
		for (int i = 0; i < s->row->group_count; i++)
			want_group(n, s->row->groups[i], s->row->log_family);
	}
}

static struct partition *partition_of(const struct node *n, uint64_t id)
{
	struct group *g = map_get_u64(&n->groups, id);

	return g != NULL && g->ready ? g->partition : NULL;
}

/* --- the catalogue --- */

/* A stream that came while a round was under way has no groups yet: it is for the next round. */
static bool all_ready(const struct node *n, const struct meta_stream *row)
{
	for (int i = 0; i < row->group_count; i++) {
		if (partition_of(n, row->groups[i]) == NULL)
			return false;
	}
	return true;
}

static struct stream *share_stream(const struct node *n, const struct meta_stream *row)
{
	struct partition **partitions = mem_new(
		(size_t)row->group_count * sizeof(struct partition *));
	struct stream s = {
		.name = row->name,
		.internal = meta_name_internal(bytes_text(row->name)),
		.created_ms = row->created_ms,
		.retention_ms = meta_stream_number(row, "retention.ms", n->conf.retention_ms),
		.retention_bytes = meta_stream_number(
			row, "retention.bytes", n->conf.retention_bytes),
		.message_bytes_max = meta_stream_number(row, "max.message.bytes", 0),
		.setting_count = row->setting_count,
		.settings = row->settings,
		.partition_count = row->group_count,
		.partitions = partitions,
	};
	struct stream *shared;

	meta_stream_cleanup(row, &s.compacts, &s.deletes, &s.compaction);
	memcpy(s.uuid, row->uuid, sizeof s.uuid);
	for (int i = 0; i < row->group_count; i++)
		partitions[i] = partition_of(n, row->groups[i]);
	shared = catalog_stream_new(&s);
	mem_free(partitions);
	return shared;
}

static void build_nodes(struct node *n, struct cluster_node *out, int *count)
{
	const struct model_node *m;

	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;) {
		struct cluster_node *to = &out[*count];

		if (m->row->state == NODE_REMOVED)
			continue;
		*to = (struct cluster_node){.id = m->row->id,
			.state = m->row->state,
			.name = m->row->name,
			.rack = m->row->rack,
			.address = m->row->address,
			.joined_ms = m->row->joined_ms,
			.door_count = m->row->door_count,
			.doors = m->row->doors};
		memcpy(to->instance, m->row->instance, sizeof to->instance);
		++*count;
	}
}

static void build_streams(struct node *n, struct stream **out, int *count)
{
	struct model_stream *s;

	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;) {
		if (s->shared == NULL && !all_ready(n, s->row))
			continue;
		if (s->shared == NULL)
			s->shared = share_stream(n, s->row);
		out[(*count)++] = s->shared;
	}
}

struct catalog *node_build_catalog(struct node *n)
{
	struct catalog_parts parts = {.version = ++n->version, .meta = n->meta};
	struct stream **streams = mem_new((n->streams.count + 1u) * sizeof(struct stream *));
	struct stream_setting *settings = mem_new((n->settings.count + 1u) * sizeof *settings);
	struct partition **tables = mem_new((n->cluster.tables + 1u) * sizeof(struct partition *));
	struct cluster_node *nodes = mem_new((n->nodes.count + 1u) * sizeof *nodes);
	struct group_place *places = mem_new((n->places.count + 1u) * sizeof *places);
	struct catalog *c;
	const struct model_place *p;
	const struct docs *docs;
	struct stream_setting *k;

	build_streams(n, streams, &parts.stream_count);
	build_nodes(n, nodes, &parts.node_count);
	for (uint32_t at = 0; (k = map_next(&n->settings, &at)) != NULL;)
		settings[parts.setting_count++] = *k;
	for (uint32_t i = 0; i < n->cluster.tables; i++) {
		tables[i] = partition_of(n, META_TABLE_FIRST + i);
		parts.table_count = tables[i] != NULL && parts.table_count == (int)i
			? (int)i + 1
			: parts.table_count;
	}
	if (parts.table_count != (int)n->cluster.tables)
		parts.table_count = 0; /* keys fall to the wrong one if some are missing */
	for (uint32_t at = 0; (p = map_next(&n->places, &at)) != NULL;)
		places[parts.place_count++] = (struct group_place){.group = p->row.group,
			.member_count = p->row.member_count,
			.voter_count = p->row.voter_count,
			.members = p->row.members};
	n->catalog_tables = (uint32_t)parts.table_count;
	parts.streams = streams;
	parts.settings = settings;
	parts.tables = tables;
	parts.nodes = nodes;
	parts.places = places;
	parts.docs = docs = n->docs != NULL ? docs_share(n->docs) : NULL;
	c = catalog_new(&parts);
	docs_unref(docs);
	mem_free(streams);
	mem_free(settings);
	mem_free(tables);
	mem_free(nodes);
	mem_free(places);
	return c;
}

/* --- members --- */

struct telling {
	struct loop_msg msg;
	struct partition *partition; /* share */
	struct meta_place row;
};

static void tell_members(struct loop_msg *m)
{
	struct telling *t = list_entry(m, struct telling, msg);

	partition_want_members(t->partition,
		&(struct partition_wanted){.voters = t->row.members,
			.voter_count = t->row.voter_count,
			.learners = t->row.members + t->row.voter_count,
			.learner_count = t->row.member_count - t->row.voter_count});
	partition_unref(t->partition);
	mem_free(t);
}

static void post_members(struct partition *p, const struct meta_place *row)
{
	struct telling *t = mem_new(sizeof *t);

	t->partition = partition_ref(p);
	t->row = *row;
	t->msg.run = tell_members;
	loop_post(partition_home(p), &t->msg);
}

/* --- replicas of groups that are there --- */

static void replica_changed(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct node *n = g->node;

	g->busy = false;
	n->busy_count--;
	if (g->err == OK) {
		g->replica = g->asked;
		LOG(LOG_INFO, AREA_CLUSTER, g->replica != 0 ? "replica_here" : "replica_gone",
			"group=%llu incarnation=%u", (unsigned long long)g->id,
			(uint32_t)g->replica);
	} else {
		LOG(LOG_ERROR, AREA_CLUSTER, "replica_failed", "group=%llu err=\"%s\"",
			(unsigned long long)g->id, err_text(g->err));
	}
	if (g->id == META_GROUP_ID) {
		n->meta_replica = g->replica;
		found_attached(n->found, g->err);
	}
	n->dirty = true; /* it may be wanted otherwise by now */
	node_end_if_idle(n);
	node_round(n);
}

static void attached(void *arg, enum err e)
{
	struct group *g = arg;

	g->err = e;
	g->msg.run = replica_changed;
	loop_post(g->node->home, &g->msg);
}

static void attach(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct partition_options o = node_partition_options(g->node, g);

	partition_attach(g->partition, &o, attached, g);
}

static void detached(void *arg)
{
	attached(arg, OK);
}

static void detach(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);

	partition_detach(g->partition, detached, g);
}

static void change_replica(struct group *g, void (*run)(struct loop_msg *m))
{
	g->busy = true;
	g->node->busy_count++;
	g->msg.run = run;
	loop_post(partition_home(g->partition), &g->msg);
}

struct leave_ask {
	struct partition_info info;
	struct group *group;
};

void node_attach_meta(struct node *n, uint64_t replica, bool founds)
{
	struct group *g = map_get_u64(&n->groups, META_GROUP_ID);

	if (g->busy) {
		found_attached(n->found, ERR_BUSY);
		return;
	}
	if (g->replica != 0) { /* of an earlier time; it is asked for again without it */
		g->asked = 0;
		change_replica(g, detach);
		return;
	}
	g->asked = g->founders[0] = replica;
	g->founder_count = founds;
	change_replica(g, attach);
}

static void align_replica(struct node *n, struct group *g);

/* Whether the leader's configuration is without the replica that is named no more. A round that
 * came past meanwhile left this group alone: it is brought in line now. */
static void may_go(struct partition_info *i)
{
	struct leave_ask *a = list_entry(i, struct leave_ask, info);
	struct group *g = a->group;
	struct node *n = g->node;
	bool named = false;

	n->leaving_asked--;
	g->busy = false;
	n->busy_count--;
	for (int k = 0; k < i->member_count && i->err == OK; k++)
		named |= i->members[k].replica == g->replica;
	if (i->err == OK && !named && i->member_count > 0 && g->leaving && !n->closing) {
		g->asked = 0;
		g->leaving = false;
		change_replica(g, detach);
	} else if (!n->closing) {
		align_replica(n, g);
	}
	mem_free(a);
	node_end_if_idle(n);
	node_round(n);
}

static void ask_may_go(struct node *n, struct group *g)
{
	struct leave_ask *a = mem_new(sizeof *a);

	a->info.at = g->partition;
	a->info.done = may_go;
	a->group = g;
	g->busy = true;
	n->busy_count++;
	n->leaving_asked++;
	partition_ask_info(&a->info);
}

void node_tick_groups(struct node *n, int64_t now_ms)
{
	struct group *g;

	if (now_ms < n->retry_ms || n->closing)
		return;
	n->retry_ms = now_ms + RETRY_MS;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (n->leaving_asked >= ASKED_MAX)
			return;
		if (g->leaving && g->ready && !g->busy)
			ask_may_go(n, g);
	}
}

/* What is to be here but is not, and the other way round. */
static void align_replica(struct node *n, struct group *g)
{
	const struct model_place *p = map_get_u64(&n->places, g->id);

	if (!g->ready || g->busy || !g->wanted || p == NULL)
		return;
	/* Members as they were: who leads would take in again those that have left since. */
	if (!g->told && (g->id == META_GROUP_ID || is_current(n))) {
		g->told = true;
		post_members(g->partition, &p->row);
	}
	node_want_replica(n, g);
	g->leaving = g->replica != 0 && g->asked != g->replica;
	if (g->replica == 0 && g->asked != 0)
		change_replica(g, attach);
}

/* --- what the store has and nothing names --- */

static void unnamed_ended(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct node *n = g->node;

	n->busy_count--;
	if (g->err != OK) { /* it stays, and is tried again at the next start */
		LOG(LOG_WARN, AREA_CLUSTER, "group_not_deleted", "group=%llu err=\"%s\"",
			(unsigned long long)g->id, err_text(g->err));
		partition_unref(g->partition);
		g->partition = NULL;
	} else {
		LOG(LOG_INFO, AREA_CLUSTER, "group_deleted", "group=%llu why=unnamed",
			(unsigned long long)g->id);
		map_remove_u64(&n->groups, g->id);
		node_bury(n, g->partition);
		mem_free(g);
	}
	node_end_if_idle(n);
}

static void unnamed_destroyed(void *arg)
{
	struct group *g = arg;

	g->msg.run = unnamed_ended;
	loop_post(g->node->home, &g->msg);
}

static void unnamed_opened(void *arg, enum err e)
{
	struct group *g = arg;

	g->err = e;
	if (e != OK)
		unnamed_destroyed(g);
	else
		partition_close(g->partition, true, unnamed_destroyed, g);
}

static void unnamed_open(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);

	partition_create(g->partition, unnamed_opened, g);
}

void node_delete_unnamed(struct node *n)
{
	struct group *g;

	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		struct partition_options o;

		if (!g->stored || g->wanted || g->busy)
			continue;
		g->busy = true;
		n->busy_count++;
		o = node_partition_options(n, g);
		g->partition = partition_new(
			n->each[g->id % (uint64_t)loops_count(n->loops)].home, &o);
		g->msg.run = unnamed_open;
		loop_post(partition_home(g->partition), &g->msg);
	}
}

/* --- the round --- */

static void round_end(struct node *n)
{
	n->running = false;
	node_end_if_idle(n);
	node_round(n);
	if (!n->dirty && !n->running && !n->closing) {
		n->force_index = n->seen_index;
		tell_waiting(n, n->force_index);
		if (n->unnamed_due)
			node_delete_unnamed(n);
		n->unnamed_due = false;
	}
}

static void group_gone(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct node *n = g->node;

	map_remove_u64(&n->groups, g->id);
	node_bury(n, g->partition);
	mem_free(g);
	if (--n->pending == 0)
		round_end(n);
}

static void group_destroyed(void *arg)
{
	struct group *g = arg;

	g->msg.run = group_gone;
	loop_post(g->node->home, &g->msg);
}

static void group_destroy(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);

	map_remove_u64(&g->node->each[loop_index(partition_home(g->partition))].partitions, g->id);
	partition_close(g->partition, true, group_destroyed, g);
}

static void close_step(struct node *n)
{
	struct group *g;

	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (g->id == META_GROUP_ID)
			continue;
		if (g->wanted) {
			align_replica(n, g);
			continue;
		}
		if (!g->ready || g->busy)
			continue; /* found at boot, or for a later round */
		g->ready = false;
		n->pending++;
		g->msg.run = group_destroy;
		loop_post(partition_home(g->partition), &g->msg);
	}
	g = map_get_u64(&n->groups, META_GROUP_ID);
	if (g != NULL) {
		g->wanted = true;
		align_replica(n, g);
	}
	if (--n->pending == 0)
		round_end(n);
}

static void tell_step(struct node *n)
{
	catalog_release(n->next);
	n->next = NULL;
	n->force_index = n->round_index;
	tell_waiting(n, n->force_index);
	close_step(n);
}

static void installed(struct loop_msg *m)
{
	struct node *n = list_entry(m, struct node_loop, install_msg)->node;

	if (--n->pending == 0)
		tell_step(n);
}

static void install(struct loop_msg *m)
{
	struct node_loop *l = list_entry(m, struct node_loop, install_msg);

	node_install(l, catalog_hold(l->node->next));
	l->install_msg.run = installed;
	loop_post(l->node->home, &l->install_msg);
}

static void install_step(struct node *n)
{
	n->next = node_build_catalog(n);
	n->pending = loops_count(n->loops);
	for (int i = 0; i < loops_count(n->loops); i++) {
		n->each[i].install_msg.run = install;
		loop_post(n->each[i].loop, &n->each[i].install_msg);
	}
}

static void group_ready(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	struct node *n = g->node;

	if (g->err != OK) { /* the disk: only a restart can tell what is on it */
		LOG(LOG_ERROR, AREA_CLUSTER, "group_open_failed", "group=%llu err=\"%s\"",
			(unsigned long long)g->id, err_text(g->err));
		must_failed("group opens", __FILE__, __LINE__);
	}
	g->ready = true;
	g->stored = false;
	g->replica = g->replica != 0 ? g->replica : g->asked;
	if (--n->pending == 0)
		install_step(n);
}

static void group_created(void *arg, enum err e)
{
	struct group *g = arg;

	g->err = e;
	g->msg.run = group_ready;
	loop_post(g->node->home, &g->msg);
}

static void group_create(struct loop_msg *m)
{
	struct group *g = list_entry(m, struct group, msg);
	int loop = loop_index(partition_home(g->partition));

	map_put_u64(&g->node->each[loop].partitions, g->id, g->partition);
	partition_create(g->partition, group_created, g);
}

static void group_begin(struct node *n, struct group *g)
{
	struct partition_options o;

	node_want_replica(n, g);
	if (g->replica != 0 && g->asked != g->replica)
		g->founder_count = 0;
	o = node_partition_options(n, g);
	g->partition = partition_new(n->each[g->id % (uint64_t)loops_count(n->loops)].home, &o);
	n->pending++;
	g->msg.run = group_create;
	loop_post(partition_home(g->partition), &g->msg);
}

void node_round(struct node *n)
{
	struct group *g;

	if (n->running || !n->dirty || n->closing)
		return;
	n->running = true;
	n->dirty = false;
	n->round_index = n->seen_index;
	node_note_cluster(n);
	/* A catalogue that is being caught up with does not know yet who came later. */
	if (n->nodes_changed && n->current)
		model_set_peers(n);
	node_want_groups(n);
	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (g->wanted && !g->ready && !g->busy)
			group_begin(n, g);
	}
	if (--n->pending == 0)
		install_step(n);
}
