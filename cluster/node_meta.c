/* From rows to catalogues in force. The model is the catalogue's rows as applied. Whenever it has
 * changed a round brings everything in line, one step after the other, each step over all loops:
 *
 *	create   groups that the model names and that are not there, on their home loops
 *	install  a new catalogue is put in force on every loop, which lets go of the one before
 *	tell     those who wait for a change that is in it
 *	close    groups that are not named any more; nobody can find them now
 *
 * What changes meanwhile is for the next round. All of it is repeated safely after a crash: boot
 * opens what is named and deletes what is not. */
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/storage.h"

/* --- the model --- */

static void model_stream_free(struct model_stream *s)
{
	if (s == NULL)
		return;
	catalog_stream_unref(s->shared);
	meta_stream_free(s->row);
	mem_free(s);
}

static void model_setting_free(struct stream_setting *s)
{
	if (s == NULL)
		return;
	mem_free((void *)(uintptr_t)s->key);
	mem_free((void *)(uintptr_t)s->value);
	mem_free(s);
}

static void set_cluster_id(struct node *n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *id = n->cluster.id;

	for (int i = 0; i < 22; i++) {
		int bit = i * 6, byte = bit / 8;
		unsigned two = (unsigned)id[byte] << 8 | (byte < 15 ? id[byte + 1] : 0);

		n->cluster_id[i] = digits[two >> (10 - bit % 8) & 63];
	}
	n->cluster_id[22] = 0;
}

static void model_stream_row(struct node *n, enum row_op op, struct bytes name, struct bytes value)
{
	struct model_stream *s;
	struct meta_stream *row;

	model_stream_free(map_remove(&n->streams, name));
	if (op == ROW_DELETE)
		return;
	if (meta_stream_decode(value, &row) != OK) {
		LOG(LOG_ERROR, AREA_CLUSTER, "catalog_row_unreadable", "stream=%s",
			log_text(name).text);
		return;
	}
	row->name = mem_text(name.at, name.len);
	s = mem_new(sizeof *s);
	s->row = row;
	map_put(&n->streams, bytes_text(row->name), s);
}

static void model_setting_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	struct stream_setting *s;

	model_setting_free(map_remove(&n->settings, key));
	if (op == ROW_DELETE)
		return;
	s = mem_new(sizeof *s);
	s->key = mem_text(key.at, key.len);
	s->value = mem_text(value.at, value.len);
	map_put(&n->settings, bytes_text(s->key), s);
}

void model_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	struct bytes rest = bytes_of(key.at + 2, key.len >= 2 ? key.len - 2 : 0);

	if (bytes_equal(key, bytes_text("c")) && op == ROW_PUT) {
		if (meta_cluster_decode(value, &n->cluster) == OK) {
			n->founded = true;
			set_cluster_id(n);
		}
	} else if (key.len > 2 && key.at[1] == '/') {
		if (key.at[0] == 's')
			model_stream_row(n, op, rest, value);
		else if (key.at[0] == 'k')
			model_setting_row(n, op, rest, value);
	}
}

void model_free(struct node *n)
{
	struct model_stream *s;
	struct stream_setting *k;

	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;)
		model_stream_free(s);
	for (uint32_t at = 0; (k = map_next(&n->settings, &at)) != NULL;)
		model_setting_free(k);
	map_fini(&n->streams);
	map_fini(&n->settings);
}

/* --- following the meta group --- */

void node_on_committed(struct watcher *w, struct entry *e)
{
	struct node *n = list_entry(w, struct node, watcher);
	struct change_rows rows;
	struct row_change row;

	if (!(e->head.flags & ENTRY_HAS_ROWS) || change_rows_init(&rows, e) != OK)
		return;
	while (change_rows_next(&rows, &row) == OK) {
		if (row.keyspace == META_KEYSPACE)
			model_row(n, row.op, row.key, row.value);
	}
	n->model_index = e->index;
	n->dirty = true;
	node_round(n);
}

static void founded(struct proposal *p)
{
	if (p->err != OK && p->err != ERR_CLOSED)
		LOG(LOG_WARN, AREA_CLUSTER, "founding_failed", "err=\"%s\"", err_text(p->err));
}

void node_on_led(struct watcher *w, bool leads)
{
	struct node *n = list_entry(w, struct node, watcher);

	if (!leads || n->founded || n->closing)
		return;
	random_fill(n->founding.cluster.id, sizeof n->founding.cluster.id);
	n->founding.cluster.tables = (uint32_t)n->conf.tables;
	n->founding.cluster.next_group = META_STREAM_FIRST;
	n->founding.proposal = (struct proposal){.to = n->meta,
		.batch_max_ms = -1,
		.evaluate = meta_evaluate_founding,
		.done = founded};
	partition_propose(&n->founding.proposal);
}

/* --- groups --- */

struct group *node_group_new(struct node *n, uint64_t id, int disk, enum store_family family)
{
	int loop = (int)(id % (uint64_t)loops_count(n->loops));
	struct group *g = mem_new(sizeof *g);
	struct partition_options o = {
		.env = storage_env(n->storage, loop, disk),
		.group = id,
		.replica = (uint64_t)n->conf.id << 32 | 1,
		.log_family = family,
	};

	g->id = id;
	g->node = n;
	g->partition = partition_new(n->each[loop].home, &o);
	must(map_put_u64(&n->groups, id, g) == NULL);
	return g;
}

static void want_group(struct node *n, uint64_t id, enum store_family family)
{
	struct group *g = map_get_u64(&n->groups, id);

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

	must(g != NULL);
	return g->partition;
}

/* --- the catalogue --- */

/* A stream that came while a round was under way has no groups yet: it is for the next round. */
static bool all_ready(const struct node *n, const struct meta_stream *row)
{
	for (int i = 0; i < row->group_count; i++) {
		const struct group *g = map_get_u64(&n->groups, row->groups[i]);

		if (g == NULL || !g->ready)
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
		.internal = strncmp(row->name, "__", 2) == 0,
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

	memcpy(s.uuid, row->uuid, sizeof s.uuid);
	for (int i = 0; i < row->group_count; i++)
		partitions[i] = partition_of(n, row->groups[i]);
	shared = catalog_stream_new(&s);
	mem_free(partitions);
	return shared;
}

struct catalog *node_build_catalog(struct node *n)
{
	struct catalog_parts parts = {.version = ++n->version};
	struct stream **streams = mem_new((n->streams.count + 1u) * sizeof(struct stream *));
	struct stream_setting *settings = mem_new((n->settings.count + 1u) * sizeof *settings);
	struct partition **tables = mem_new((n->cluster.tables + 1u) * sizeof(struct partition *));
	struct catalog *c;
	struct model_stream *s;
	struct stream_setting *k;

	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;) {
		if (s->shared == NULL && !all_ready(n, s->row))
			continue;
		if (s->shared == NULL)
			s->shared = share_stream(n, s->row);
		streams[parts.stream_count++] = s->shared;
	}
	for (uint32_t at = 0; (k = map_next(&n->settings, &at)) != NULL;)
		settings[parts.setting_count++] = *k;
	for (uint32_t i = 0; i < n->cluster.tables; i++)
		tables[parts.table_count++] = partition_of(n, META_TABLE_FIRST + i);
	parts.streams = streams;
	parts.settings = settings;
	parts.tables = tables;
	c = catalog_new(&parts);
	mem_free(streams);
	mem_free(settings);
	mem_free(tables);
	return c;
}

/* --- the round --- */

static void round_end(struct node *n)
{
	n->running = false;
	n->view.group_count = (int)n->groups.count;
	node_end_if_idle(n);
	node_round(n);
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

	partition_close(g->partition, true, group_destroyed, g);
}

static void close_step(struct node *n)
{
	struct group *g;

	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (g->wanted)
			continue;
		n->pending++;
		g->msg.run = group_destroy;
		loop_post(partition_home(g->partition), &g->msg);
	}
	if (--n->pending == 0)
		round_end(n);
}

static void op_done(struct loop_msg *m)
{
	struct meta_op *op = list_entry(m, struct meta_op, msg);

	op->done(op);
}

static void tell_step(struct node *n)
{
	struct list *w, *next;

	catalog_release(n->next);
	n->next = NULL;
	n->force_index = n->round_index;
	for (w = n->waiting.next; w != &n->waiting; w = next) {
		struct meta_op *op = list_entry(
			list_entry(w, struct proposal, node), struct meta_op, proposal);

		next = w->next;
		if (op->proposal.index > n->force_index)
			continue;
		list_remove(w);
		op->msg.run = op_done;
		loop_post(op->from, &op->msg);
	}
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

	partition_create(g->partition, group_created, g);
}

void node_round(struct node *n)
{
	struct group *g;

	if (n->running || !n->dirty || n->closing)
		return;
	n->running = true;
	n->dirty = false;
	n->round_index = n->model_index;
	node_want_groups(n);
	n->pending = 1;
	for (uint32_t at = 0; (g = map_next(&n->groups, &at)) != NULL;) {
		if (!g->wanted || g->ready)
			continue;
		n->pending++;
		g->msg.run = group_create;
		loop_post(partition_home(g->partition), &g->msg);
	}
	n->view.group_count = (int)n->groups.count;
	if (--n->pending == 0)
		install_step(n);
}
