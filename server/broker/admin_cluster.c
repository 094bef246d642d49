/* Questions to many nodes and leaders at once, one answer. What a question needs lives in one piece
 * of memory until the last one is answered. */
#include "server/broker/admin_cluster.h"
#include "server/base/mem.h"

enum { ASKED_AT_ONCE = 128, INFO_WAIT_MS = 1000, SILENT_MAX = 64 };

/* ---- nodes */

struct nodes_ask;
struct status_ask {
	struct node_status status;
	struct nodes_ask *all;
};
struct nodes_ask {
	struct admin_nodes shown;
	int left;
	struct status_ask of[];
};

static void on_status(struct node_status *st)
{
	struct nodes_ask *a = list_entry(st, struct status_ask, status)->all;
	if (--a->left == 0)
		a->shown.done(&a->shown);
}

static void add_ask(struct shard *s, struct nodes_ask *a, uint32_t node)
{
	a->of[a->shown.count++] = (struct status_ask){
		.status = {.of = shard_node(s), .node = node, .done = on_status}, .all = a};
}

void admin_nodes(struct shard *s, void (*done)(struct admin_nodes *n), void *arg)
{
	size_t most = (size_t)catalog_node_count(shard_catalog(s)) + 1;
	struct nodes_ask *a = mem_new(sizeof *a + most * sizeof(struct status_ask));
	const struct cluster_node *n;
	a->shown = (struct admin_nodes){.done = done, .arg = arg};
	for (int at = 0; place_node_next(s, &at, &n);)
		add_ask(s, a, n->id);
	if (a->shown.count == 0) /* not in the catalogue yet */
		add_ask(s, a, node_id(shard_node(s)));
	a->left = a->shown.count;
	for (int i = 0, count = a->shown.count; i < count; i++)
		node_ask_status(&a->of[i].status);
}

const struct node_status *admin_nodes_at(const struct admin_nodes *n, int index)
{
	const struct nodes_ask *a = (const void *)((const char *)n -
		offsetof(struct nodes_ask, shown));
	return &a->of[index].status;
}

void admin_nodes_free(struct admin_nodes *n)
{
	mem_free(list_entry(n, struct nodes_ask, shown));
}

/* ---- groups */

int admin_group_count(const struct catalog *c)
{
	int count = 1 + catalog_table_count(c);
	for (int i = 0; i < catalog_stream_count(c); i++)
		count += catalog_stream_at(c, i)->partition_count;
	return count;
}

bool admin_group_at(const struct catalog *c, int number, struct admin_group *out)
{
	if (number == 0) {
		*out = (struct admin_group){"__catalog", 0, catalog_meta(c)};
		return out->partition != NULL;
	}
	number--;
	if (number < catalog_table_count(c)) {
		*out = (struct admin_group){"__tables", number, catalog_table_at(c, number)};
		return true;
	}
	number -= catalog_table_count(c);
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *s = catalog_stream_at(c, i);
		if (number < s->partition_count) {
			*out = (struct admin_group){s->name, number, s->partitions[number]};
			return true;
		}
		number -= s->partition_count;
	}
	return false;
}

struct look_one {
	struct partition_info info;
	struct look_all *all;
	int number;
	uint32_t asked; /* who led then, as far as known */
};

struct look_all {
	struct admin_look shown;
	struct shard *shard;
	const struct catalog *held; /* names of streams, places */
	int next, asked;
	int silent_count;
	uint32_t silent[SILENT_MAX]; /* leaders that did not answer: not asked again */
	struct look_one ones[ASKED_AT_ONCE];
};

static bool wanted(const struct group_place *g, const struct partition_member *m)
{
	for (int i = 0; g != NULL && i < g->member_count; i++)
		if (g->members[i] == m->replica)
			return (m->role == MEMBER_VOTER) == (i < g->voter_count);
	return g == NULL;
}

/* Nobody answered: what the catalogue wants, and who leads as far as known. */
static void fill_known(struct look_all *l, struct admin_replicas *out)
{
	struct place at;
	place_of(l->shard, out->group.partition, &at);
	out->leader = at.leader;
	out->epoch = at.epoch;
	out->first_offset = partition_first_offset(out->group.partition);
	out->next_offset = partition_high_watermark(out->group.partition);
	out->bytes = partition_bytes(out->group.partition);
	for (int i = 0; i < at.count && i < ADMIN_MEMBERS_MAX; i++)
		out->members[out->count++] = (struct admin_member){
			.node = at.replicas[i], .votes = true, .behind = -1};
}

static void fill_answer(
	struct look_all *l, struct admin_replicas *out, const struct partition_info *info)
{
	const struct group_place *g = catalog_place(l->held, partition_group(out->group.partition));
	out->answered = true;
	out->leader = info->leader;
	out->epoch = (int32_t)info->term;
	out->first_offset = info->first_offset;
	out->next_offset = info->high_watermark;
	out->bytes = info->bytes;
	out->moving = g != NULL && g->member_count != info->member_count;
	for (int i = 0; i < info->member_count; i++) {
		const struct partition_member *m = &info->members[i];
		uint32_t node = (uint32_t)(m->replica >> 32);
		bool leads = node == info->leader && m->role == MEMBER_VOTER;
		out->moving |= !wanted(g, m);
		if (out->count == ADMIN_MEMBERS_MAX)
			continue;
		out->members[out->count++] = (struct admin_member){.node = node,
			.votes = m->role == MEMBER_VOTER,
			.in_sync = m->in_sync || leads,
			.behind = leads || m->match_index >= info->last_index
				? 0
				: (int64_t)(info->last_index - m->match_index),
			.fetches = m->fetches,
			.fetched = (int64_t)m->fetched,
			.fetched_total = (int64_t)m->fetched_total,
			.fetched_bytes = m->fetched_bytes};
	}
}

static bool is_silent(const struct look_all *l, uint32_t node)
{
	for (int i = 0; i < l->silent_count; i++)
		if (l->silent[i] == node)
			return true;
	return false;
}

static void note_silent(struct look_all *l, uint32_t node)
{
	if (node != 0 && l->silent_count < SILENT_MAX && !is_silent(l, node))
		l->silent[l->silent_count++] = node;
}

static void look_next(struct look_all *l, struct look_one *one);

static void on_info(struct partition_info *info)
{
	struct look_one *one = list_entry(info, struct look_one, info);
	struct look_all *l = one->all;
	struct admin_replicas *out = &l->shown.of[one->number];
	if (info->err == OK)
		fill_answer(l, out, info);
	else
		fill_known(l, out);
	if (info->err == ERR_UNAVAILABLE)
		note_silent(l, one->asked);
	l->asked--;
	look_next(l, one);
	if (l->asked == 0)
		l->shown.done(&l->shown);
}

/* The next one whose leader is not known to be silent: one that stands still costs one wait, not
 * one for each round. */
static void look_next(struct look_all *l, struct look_one *one)
{
	for (; l->next < l->shown.count; l->next++) {
		struct admin_replicas *out = &l->shown.of[l->next];
		one->asked = place_leader(l->shard, out->group.partition);
		if (!is_silent(l, one->asked))
			break;
		fill_known(l, out);
	}
	if (l->next == l->shown.count)
		return;
	one->all = l;
	one->number = l->next++;
	one->info = (struct partition_info){.at = l->shown.of[one->number].group.partition,
		.wait_ms = INFO_WAIT_MS,
		.done = on_info};
	l->asked++;
	partition_ask_info(&one->info);
}

/* There is always one to be asked: a question about nothing is none. */
enum err admin_look(struct shard *s, const struct admin_group *groups, int count,
	void (*done)(struct admin_look *l), void *arg)
{
	struct look_all *l;
	if (count <= 0)
		return ERR_NOTFOUND;
	l = mem_new(sizeof *l);
	l->shown = (struct admin_look){.count = count, .done = done, .arg = arg};
	l->shown.of = mem_try((size_t)count * sizeof *l->shown.of);
	if (l->shown.of == NULL) {
		mem_free(l);
		return ERR_NOMEM;
	}
	l->shard = s;
	l->held = catalog_hold(shard_catalog(s));
	for (int i = 0; i < count; i++)
		l->shown.of[i] = (struct admin_replicas){.group = groups[i]};
	for (int i = 0; i < ASKED_AT_ONCE; i++)
		look_next(l, &l->ones[i]);
	return OK;
}

void admin_look_free(struct admin_look *shown)
{
	struct look_all *l = list_entry(shown, struct look_all, shown);
	catalog_release(l->held);
	mem_free(shown->of);
	mem_free(l);
}

/* ---- health */

void admin_health(struct shard *s, const struct admin_nodes *n, struct admin_health *out)
{
	const struct catalog *c = shard_catalog(s);
	struct admin_group g;
	*out = (struct admin_health){.groups = admin_group_count(c)};
	for (int i = 0; i < out->groups; i++) {
		struct place at;
		if (!admin_group_at(c, i, &g))
			continue;
		place_of(s, g.partition, &at);
		out->leaderless += at.leader == 0;
		out->under_replicated += at.lost_count > 0;
	}
	for (int i = 0; i < n->count; i++) {
		const struct node_status *st = admin_nodes_at(n, i);
		const struct cluster_node *node = catalog_node(c, st->node);
		out->draining += node != NULL && node->state == NODE_DRAINING;
		out->silent += st->err != OK;
		out->unready += st->err == OK && !st->ready;
		out->bad_disks += st->err == OK && !st->disk_ok;
		out->unsettled += st->err == OK ? st->unsettled : 0;
	}
	out->healthy = out->leaderless + out->under_replicated + out->silent + out->unready +
			out->bad_disks ==
		0;
}
