/* Changes of the catalogue are proposals like any other: decided by the leader of the meta group
 * against the rows as they will be, written as whole rows. The stream's row lists the groups of its
 * partitions; groups are numbered by a counter in the cluster's row and never used twice, so a
 * stream that is deleted and created again has nothing of the old one. Replicas are numbered the
 * same way: whenever a group is given to a node the replica there has an incarnation that was never
 * used, so what an older one promised to Raft can't be mistaken for its word.
 *
 * Which nodes a new group gets is chosen by loads as applied (they may be some changes old: that
 * makes it a bit less even, not wrong); whether a node may have it is read from the rows. */
#include "cluster/meta.h"
#include <stdarg.h>
#include <stdio.h>
#include "cluster/partition_priv.h"
#include "server/base/clock.h"

enum { KEY_MAX = 255, VALUE_MAX = 32768, ROW_MAX = 1 << 20 };

static const char cluster_key[] = "c", balance_key[] = "b";

struct change {
	struct eval *v;
	const struct meta_view *view;
	const struct meta_request *q;
};

enum err meta_say(struct eval *v, enum err e, const char *format, ...)
{
	struct buf *reply = eval_reply(v);
	char line[160];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	buf_clear(reply);
	buf_add_text(reply, line);
	return e;
}

/* --- rows as they will be --- */

struct key { /* of a row */
	char at[META_NAME_MAX + 16];
	size_t len;
};

static struct bytes key_text(char kind, const char *name, struct key *out)
{
	int len = snprintf(out->at, sizeof out->at, "%c/%s", kind, name);

	must(len > 0 && (size_t)len < sizeof out->at);
	return bytes_of(out->at, (size_t)len);
}

static struct bytes key_node(uint32_t id, struct key *out)
{
	memcpy(out->at, "n/", 2);
	put_u32be((uint8_t *)out->at + 2, id);
	return bytes_of(out->at, 6);
}

static struct bytes key_group(uint64_t id, struct key *out)
{
	memcpy(out->at, "g/", 2);
	put_u64be((uint8_t *)out->at + 2, id);
	return bytes_of(out->at, 10);
}

static enum err stream_get(struct eval *v, const char *name, struct meta_stream **out)
{
	struct bytes value;
	struct key key;
	enum err e = eval_get(v, META_KEYSPACE, key_text('s', name, &key), &value);

	return e == OK ? meta_stream_decode(value, out) : e;
}

static enum err stream_put(struct eval *v, const char *name, const struct meta_stream *s)
{
	struct key key;
	struct buf row;
	enum err e;

	buf_init(&row, ROW_MAX);
	meta_stream_encode(s, &row);
	e = row.err;
	if (e == OK)
		eval_put(v, META_KEYSPACE, key_text('s', name, &key), buf_bytes(&row));
	buf_fini(&row);
	return e;
}

/* ERR_UNAVAILABLE: there is no cluster yet. */
static enum err cluster_get(struct eval *v, struct meta_cluster *out)
{
	struct bytes value;
	enum err e = eval_get(v, META_KEYSPACE, bytes_text(cluster_key), &value);

	if (e == ERR_NOTFOUND)
		return ERR_UNAVAILABLE;
	return e == OK ? meta_cluster_decode(value, out) : e;
}

static void cluster_put(struct eval *v, const struct meta_cluster *c)
{
	struct buf row;

	buf_init(&row, ROW_MAX);
	meta_cluster_encode(c, &row);
	eval_put(v, META_KEYSPACE, bytes_text(cluster_key), buf_bytes(&row));
	buf_fini(&row);
}

static enum err node_get(struct eval *v, uint32_t id, struct meta_node **out)
{
	struct bytes value;
	struct key key;
	enum err e = eval_get(v, META_KEYSPACE, key_node(id, &key), &value);

	*out = NULL;
	if (e == OK)
		e = meta_node_decode(value, out);
	if (e == OK)
		(*out)->id = id;
	return e;
}

static enum err node_put(struct eval *v, const struct meta_node *n)
{
	struct key key;
	struct buf row;
	enum err e;

	buf_init(&row, ROW_MAX);
	meta_node_encode(n, &row);
	e = row.err;
	if (e == OK)
		eval_put(v, META_KEYSPACE, key_node(n->id, &key), buf_bytes(&row));
	buf_fini(&row);
	return e;
}

static enum err place_get(struct eval *v, uint64_t group, struct meta_place *out)
{
	struct bytes value;
	struct key key;
	enum err e = eval_get(v, META_KEYSPACE, key_group(group, &key), &value);

	out->group = group;
	return e == OK ? meta_place_decode(value, out) : e;
}

static void place_put(struct eval *v, const struct meta_place *p)
{
	struct key key;
	struct buf row;

	buf_init(&row, ROW_MAX);
	meta_place_encode(p, &row);
	eval_put(v, META_KEYSPACE, key_group(p->group, &key), buf_bytes(&row));
	buf_fini(&row);
}

static uint64_t replica_of(uint32_t node, uint32_t incarnation)
{
	return (uint64_t)node << 32 | incarnation;
}

/* --- limits --- */

enum err meta_may_grow(
	struct eval *v, const struct meta_view *view, const struct meta_limit *l, int64_t more)
{
	int64_t now = more > 0 ? view->count(view->arg, l) : 0;

	if (more <= 0 || now + more <= l->most)
		return OK;
	return meta_say(v, ERR_QUOTA, "the tenant may have %lld %.*s, and has %lld",
		(long long)l->most, (int)l->what.len, (const char *)l->what.at, (long long)now);
}

static enum err may_grow(const struct change *c, enum meta_limited of, int64_t more)
{
	enum err e = OK;

	for (int i = 0; e == OK && i < c->q->limit_count; i++)
		if (c->q->limits[i].of == of)
			e = meta_may_grow(c->v, c->view, &c->q->limits[i], more);
	return e;
}

/* --- streams --- */

/* Gives the stream count more groups, and these their nodes. */
static enum err groups_add(const struct change *c, struct meta_stream *s, int64_t count)
{
	struct meta_cluster cluster;
	struct placement nodes;
	enum err e = cluster_get(c->v, &cluster);

	if (e != OK)
		return e;
	c->view->placement(c->view->arg, &nodes);
	s->groups = mem_resize(s->groups, (size_t)(s->group_count + count) * sizeof *s->groups);
	must(s->groups != NULL);
	for (int64_t i = 0; i < count; i++) {
		uint32_t members[PLACEMENT_REPLICAS_MAX];
		struct meta_place p = {.group = cluster.next_group++};

		p.member_count = placement_new(&nodes, s->replicas, members);
		if (p.member_count == 0)
			return meta_say(c->v, ERR_UNAVAILABLE, "no node takes partitions now");
		p.voter_count = p.founder_count = p.member_count;
		for (int k = 0; k < p.member_count; k++)
			p.founders[k] = p.members[k] = replica_of(
				members[k], cluster.next_incarnation);
		s->groups[s->group_count++] = p.group;
		if (!c->q->check_only)
			place_put(c->v, &p);
	}
	for (int i = 0; i < nodes.count; i++) {
		if (nodes.nodes[i].replicas > META_GROUPS_MAX)
			return meta_say(c->v, ERR_TOOBIG, "at most %d partitions on a node",
				META_GROUPS_MAX);
	}
	cluster.next_incarnation++;
	if (!c->q->check_only)
		cluster_put(c->v, &cluster);
	return OK;
}

static void setting_remove(struct meta_stream *s, const char *key)
{
	for (int i = 0; i < s->setting_count; i++) {
		if (strcmp(s->settings[i].key, key) != 0)
			continue;
		meta_setting_fini(&s->settings[i]);
		s->settings[i] = s->settings[--s->setting_count];
		return;
	}
}

static enum err settings_merge(const struct change *c, struct meta_stream *s)
{
	for (int i = 0; i < c->q->setting_count; i++) {
		const struct stream_setting *set = &c->q->settings[i];
		char why[160];
		enum err e = meta_setting_check(set->key, set->value, why, sizeof why);

		if (e != OK)
			return meta_say(c->v, e, "%s", why);
		setting_remove(s, set->key);
		if (set->value == NULL)
			continue;
		s->settings = mem_resize(
			s->settings, ((size_t)s->setting_count + 1) * sizeof *s->settings);
		must(s->settings != NULL);
		s->settings[s->setting_count].key = mem_text(set->key, strlen(set->key));
		s->settings[s->setting_count++].value = mem_text(set->value, strlen(set->value));
	}
	return OK;
}

/* What is acknowledged is on a majority of the replicas. */
static enum err replicas_check(const struct change *c, const struct meta_stream *s)
{
	int majority = s->replicas / 2 + 1;
	int64_t least = meta_stream_number(s, "min.insync.replicas", 1);

	if (least <= majority)
		return OK;
	return meta_say(c->v, ERR_INVALID,
		"min.insync.replicas: %lld is more than the %d of %d replicas that have a record "
		"when it is acknowledged",
		(long long)least, majority, (int)s->replicas);
}

static enum err create_check(const struct change *c)
{
	if (!meta_name_valid(bytes_text(c->q->name)))
		return meta_say(c->v, ERR_INVALID, "invalid stream name");
	if (c->q->partitions < 1 || c->q->partitions > META_STREAM_PARTITIONS_MAX)
		return meta_say(c->v, ERR_INVALID, "partitions must be 1 to %d",
			META_STREAM_PARTITIONS_MAX);
	if (c->q->replicas < 1 || c->q->replicas > PLACEMENT_REPLICAS_MAX)
		return meta_say(
			c->v, ERR_INVALID, "replicas must be 1 to %d", PLACEMENT_REPLICAS_MAX);
	return OK;
}

static enum err create(const struct change *c, const struct meta_stream *old)
{
	struct meta_stream *s;
	struct compact_policy policy;
	bool compacts, deletes;
	enum err e = create_check(c);

	if (e != OK)
		return e;
	if (old != NULL)
		return meta_say(c->v, ERR_EXISTS, "stream \"%.100s\" exists already", c->q->name);
	e = may_grow(c, LIMIT_STREAMS, 1);
	if (e == OK)
		e = may_grow(c, LIMIT_PARTITIONS, c->q->partitions);
	if (e != OK)
		return e;
	s = mem_new(sizeof *s);
	random_fill(s->uuid, sizeof s->uuid);
	s->created_ms = eval_now_ms(c->v);
	s->replicas = (uint16_t)c->q->replicas;
	e = settings_merge(c, s);
	meta_stream_cleanup(s, &compacts, &deletes, &policy);
	s->log_family = meta_family(
		compacts, meta_stream_number(s, "retention.ms", c->view->conf->retention_ms));
	if (e == OK)
		e = replicas_check(c, s);
	if (e == OK)
		e = groups_add(c, s, c->q->partitions);
	if (e == OK && !c->q->check_only)
		e = stream_put(c->v, c->q->name, s);
	meta_stream_free(s);
	return e;
}

static enum err add_partitions(const struct change *c, struct meta_stream *s)
{
	enum err e;

	if (c->q->partitions <= s->group_count || c->q->partitions > META_STREAM_PARTITIONS_MAX)
		return meta_say(c->v, ERR_INVALID,
			"stream has %d partitions; the new number must be greater, at most %d",
			s->group_count, META_STREAM_PARTITIONS_MAX);
	e = may_grow(c, LIMIT_PARTITIONS, c->q->partitions - s->group_count);
	if (e == OK)
		e = groups_add(c, s, c->q->partitions - s->group_count);
	return e == OK && !c->q->check_only ? stream_put(c->v, c->q->name, s) : e;
}

static enum err alter(const struct change *c, struct meta_stream *s)
{
	enum err e = settings_merge(c, s);

	if (e == OK)
		e = replicas_check(c, s);
	return e == OK && !c->q->check_only ? stream_put(c->v, c->q->name, s) : e;
}

/* The controller moves replicas until there are that many. */
static enum err set_replicas(const struct change *c, struct meta_stream *s)
{
	enum err e;

	if (c->q->replicas < 1 || c->q->replicas > PLACEMENT_REPLICAS_MAX)
		return meta_say(
			c->v, ERR_INVALID, "replicas must be 1 to %d", PLACEMENT_REPLICAS_MAX);
	s->replicas = (uint16_t)c->q->replicas;
	e = replicas_check(c, s);
	return e != OK || c->q->check_only ? e : stream_put(c->v, c->q->name, s);
}

static enum err delete_stream(const struct change *c, const struct meta_stream *s)
{
	struct key key;

	if (c->q->check_only)
		return OK;
	for (int i = 0; i < s->group_count; i++)
		eval_delete(c->v, META_KEYSPACE, key_group(s->groups[i], &key));
	eval_delete(c->v, META_KEYSPACE, key_text('s', c->q->name, &key));
	return OK;
}

static enum err change_stream(const struct change *c)
{
	struct meta_stream *s = NULL;
	enum err e = ERR_NOTFOUND;

	if (meta_name_valid(bytes_text(c->q->name)))
		e = stream_get(c->v, c->q->name, &s);
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	if (c->q->kind == META_CREATE_STREAM)
		e = create(c, s);
	else if (e == ERR_NOTFOUND)
		meta_say(c->v, e, "no stream \"%.100s\"", c->q->name);
	else if (c->q->kind == META_ADD_PARTITIONS)
		e = add_partitions(c, s);
	else if (c->q->kind == META_ALTER_STREAM)
		e = alter(c, s);
	else if (c->q->kind == META_REPLICAS)
		e = set_replicas(c, s);
	else
		e = delete_stream(c, s);
	meta_stream_free(s);
	return e;
}

/* How many more settings that the limit is about there will be. */
static enum err settings_more(const struct change *c, const struct meta_limit *l, int64_t *more)
{
	*more = 0;
	for (int i = 0; i < c->q->setting_count; i++) {
		const struct stream_setting *set = &c->q->settings[i];
		struct bytes value;
		struct key key;
		enum err e;

		if (!meta_limited(l, bytes_text(set->key)))
			continue;
		e = eval_get(c->v, META_KEYSPACE, key_text('k', set->key, &key), &value);
		if (e != OK && e != ERR_NOTFOUND)
			return e;
		*more += (set->value != NULL) - (e == OK);
	}
	return OK;
}

static enum err change_settings(const struct change *c)
{
	struct key key;
	enum err e = OK;
	int64_t more;

	for (int i = 0; i < c->q->setting_count; i++) {
		const struct stream_setting *set = &c->q->settings[i];
		size_t len = strlen(set->key);

		if (len == 0 || len > KEY_MAX)
			return meta_say(c->v, ERR_INVALID, "a key has 1 to %d characters", KEY_MAX);
		if (set->value != NULL && strlen(set->value) > VALUE_MAX)
			return meta_say(c->v, ERR_INVALID, "%.60s: value too long", set->key);
	}
	for (int i = 0; e == OK && i < c->q->limit_count; i++) {
		e = settings_more(c, &c->q->limits[i], &more);
		if (e == OK)
			e = meta_may_grow(c->v, c->view, &c->q->limits[i], more);
	}
	if (e != OK)
		return e;
	for (int i = 0; i < c->q->setting_count && !c->q->check_only; i++) {
		struct bytes at = key_text('k', c->q->settings[i].key, &key);

		if (c->q->settings[i].value != NULL)
			eval_put(c->v, META_KEYSPACE, at, bytes_text(c->q->settings[i].value));
		else
			eval_delete(c->v, META_KEYSPACE, at);
	}
	return OK;
}

/* --- places --- */

/* The replica of that node in the new place: the one it has, unless it went with its data. */
static uint64_t replica_kept(const struct meta_place *old, const struct meta_node *n)
{
	uint64_t replica = meta_place_on(old, n->id);

	return (uint32_t)replica >= n->incarnation_min ? replica : 0;
}

static bool asked_twice(const struct meta_asked_place *a, int at)
{
	for (int i = 0; i < at; i++) {
		if (a->nodes[i] == a->nodes[at])
			return true;
	}
	return false;
}

/* One member of the new place. */
static enum err member_of(const struct change *c, const struct meta_asked_place *a, int at,
	const struct meta_place *old, uint64_t *replica)
{
	struct meta_node *n;
	enum err e = node_get(c->v, a->nodes[at], &n);

	*replica = 0;
	if (e == ERR_NOTFOUND || (e == OK && n->state == NODE_REMOVED)) {
		meta_say(c->v, ERR_NOTFOUND, "no node %u", a->nodes[at]);
		e = ERR_NOTFOUND;
	} else if (e == OK) {
		*replica = replica_kept(old, n);
		if (*replica == 0 && n->state == NODE_DRAINING && !c->q->force &&
			old->group != META_GROUP_ID)
			e = meta_say(c->v, ERR_CONFLICT, "node %u is being drained", a->nodes[at]);
		/* A node has one replica of a group at a time. */
		if (e == OK && *replica == 0 && c->view->votes(c->view->arg, a->group, n->id))
			e = meta_say(c->v, ERR_CONFLICT, "group %llu is just leaving node %u",
				(unsigned long long)a->group, n->id);
	}
	if (e == OK && asked_twice(a, at))
		e = meta_say(c->v, ERR_INVALID, "node %u is named twice", a->nodes[at]);
	meta_node_free(n);
	return e;
}

/* Every node follows the catalogue: a plan without one that has joined meanwhile is an old one. */
static enum err leaves_nobody_out(
	const struct change *c, const struct meta_asked_place *a, const struct meta_place *old)
{
	for (int i = 0; i < old->member_count && a->group == META_GROUP_ID; i++) {
		uint32_t id = (uint32_t)(old->members[i] >> 32);
		bool named = false;

		for (int k = 0; k < a->count; k++)
			named |= a->nodes[k] == id;
		if (!named)
			return meta_say(c->v, ERR_CONFLICT, "node %u follows the catalogue", id);
	}
	return OK;
}

static enum err place(const struct change *c, const struct meta_asked_place *a,
	struct meta_cluster *cluster, bool *changed)
{
	struct meta_place old, p;
	enum err e = place_get(c->v, a->group, &old);

	if (e == ERR_NOTFOUND)
		return meta_say(c->v, e, "no group %llu", (unsigned long long)a->group);
	if (e == OK && a->group != META_GROUP_ID && a->count > PLACEMENT_REPLICAS_MAX)
		return meta_say(
			c->v, ERR_INVALID, "replicas must be 1 to %d", PLACEMENT_REPLICAS_MAX);
	if (e == OK)
		e = leaves_nobody_out(c, a, &old);
	if (e != OK)
		return e;
	p = old;
	p.member_count = a->count;
	p.voter_count = a->group == META_GROUP_ID && a->voters > 0 ? a->voters : a->count;
	if (p.voter_count > PLACEMENT_REPLICAS_MAX)
		p.voter_count = CATALOG_VOTERS_MAX;
	for (int i = 0; i < a->count; i++) {
		e = member_of(c, a, i, &old, &p.members[i]);
		if (e != OK)
			return e;
		if (p.members[i] == 0)
			p.members[i] = replica_of(a->nodes[i], cluster->next_incarnation);
	}
	*changed = p.member_count != old.member_count || p.voter_count != old.voter_count ||
		memcmp(p.members, old.members, (size_t)p.member_count * sizeof p.members[0]) != 0;
	if (*changed && !c->q->check_only)
		place_put(c->v, &p);
	return OK;
}

static enum err change_places(const struct change *c)
{
	struct meta_cluster cluster;
	enum err e = cluster_get(c->v, &cluster);
	bool several = c->q->kind == META_PLACES, any = false;

	if (e == OK && c->q->place_count == 0)
		return meta_say(c->v, ERR_INVALID, "no group");
	for (int i = 0; e == OK && i < c->q->place_count; i++) {
		bool changed = false;

		e = place(c, &c->q->places[i], &cluster, &changed);
		any |= changed;
		if (several && (e == ERR_NOTFOUND || e == ERR_CONFLICT))
			e = OK; /* it went, or drains, since this was planned */
	}
	if (e != OK || !any || c->q->check_only)
		return e;
	cluster.next_incarnation++;
	cluster_put(c->v, &cluster);
	return OK;
}

/* --- nodes --- */

static void copy_text(char **to, const char *from)
{
	mem_free(*to);
	*to = mem_text(from, strlen(from));
}

static bool same_doors(const struct meta_node *a, const struct meta_node *b)
{
	if (a->door_count != b->door_count)
		return false;
	for (int i = 0; i < a->door_count; i++) {
		if (strcmp(a->doors[i].key, b->doors[i].key) != 0 ||
			strcmp(a->doors[i].value, b->doors[i].value) != 0)
			return false;
	}
	return true;
}

/* What the node says of itself. Gives whether something is new. */
static bool take_words(struct meta_node *n, const struct meta_node *said)
{
	bool same = strcmp(n->name, said->name) == 0 && strcmp(n->rack, said->rack) == 0 &&
		strcmp(n->address, said->address) == 0 && same_doors(n, said);

	if (same)
		return false;
	copy_text(&n->name, said->name);
	copy_text(&n->rack, said->rack);
	copy_text(&n->address, said->address);
	for (int i = 0; i < n->door_count; i++)
		meta_setting_fini(&n->doors[i]);
	mem_free(n->doors);
	n->doors = mem_new(((size_t)said->door_count + 1) * sizeof *n->doors);
	n->door_count = said->door_count;
	for (int i = 0; i < n->door_count; i++) {
		n->doors[i].key = mem_text(said->doors[i].key, strlen(said->doors[i].key));
		n->doors[i].value = mem_text(said->doors[i].value, strlen(said->doors[i].value));
	}
	return true;
}

/* The node follows the catalogue from now on, by a replica that is new. */
static enum err follow_catalog(
	const struct change *c, struct meta_cluster *cluster, uint32_t id, uint64_t *replica)
{
	struct meta_place p;
	enum err e = place_get(c->v, META_GROUP_ID, &p);
	int at = 0;

	if (e != OK)
		return e;
	*replica = replica_of(id, cluster->next_incarnation);
	while (at < p.member_count && p.members[at] >> 32 != id)
		at++;
	if (at == META_MEMBERS_MAX)
		return meta_say(c->v, ERR_TOOBIG, "at most %d nodes", META_NODES_MAX);
	if (at == p.member_count) {
		p.member_count++;
		if (p.voter_count < CATALOG_VOTERS_MAX) {
			memmove(p.members + p.voter_count + 1, p.members + p.voter_count,
				(size_t)(at - p.voter_count) * sizeof p.members[0]);
			at = p.voter_count++;
		}
	}
	p.members[at] = *replica;
	place_put(c->v, &p);
	cluster->next_incarnation++;
	cluster_put(c->v, cluster);
	return OK;
}

/* Another instance under an id that is known: the old one must be silent. */
static enum err old_is_silent(const struct change *c, const struct meta_node *old)
{
	switch (c->view->alive(c->view->arg, old->id)) {
	case META_ALIVE:
		return meta_say(c->v, ERR_EXISTS,
			"node.id %u is in use by a live node (%.40s at %.60s)", old->id, old->name,
			old->address);
	case META_ALIVE_UNKNOWN:
		return meta_say(c->v, ERR_BUSY,
			"node.id %u belongs to %.40s at %.60s: seeing if it lives", old->id,
			old->name, old->address);
	case META_SILENT: break;
	}
	return OK;
}

static enum err join_known(const struct change *c, struct meta_cluster *cluster,
	struct meta_node *n, uint64_t *replica)
{
	const struct meta_node *said = c->q->node;
	bool same = memcmp(n->instance, said->instance, sizeof n->instance) == 0, news;
	struct meta_place p;
	enum err e;

	if (same && n->state == NODE_REMOVED)
		return meta_say(c->v, ERR_DENIED,
			"node %u was removed from the cluster; it may come anew with empty data",
			n->id);
	e = same || n->state == NODE_REMOVED ? OK : old_is_silent(c, n);
	if (e != OK)
		return e;
	news = take_words(n, said);
	if (same) {
		e = place_get(c->v, META_GROUP_ID, &p);
		*replica = e == OK ? meta_place_on(&p, n->id) : 0;
		if (e == OK && *replica == 0)
			e = follow_catalog(c, cluster, n->id, replica);
		return e == OK && news ? node_put(c->v, n) : e;
	}
	memcpy(n->instance, said->instance, sizeof n->instance);
	n->incarnation_min = cluster->next_incarnation;
	if (n->state == NODE_REMOVED) {
		n->state = NODE_ACTIVE;
		n->joined_ms = eval_now_ms(c->v);
	}
	e = node_put(c->v, n);
	return e == OK ? follow_catalog(c, cluster, n->id, replica) : e;
}

static enum err join_new(const struct change *c, struct meta_cluster *cluster, uint64_t *replica)
{
	struct meta_node n = *c->q->node;
	enum err e;

	n.state = NODE_ACTIVE;
	n.incarnation_min = cluster->next_incarnation;
	n.joined_ms = eval_now_ms(c->v);
	e = follow_catalog(c, cluster, n.id, replica);
	return e == OK ? node_put(c->v, &n) : e;
}

static enum err join(const struct change *c)
{
	struct meta_joined joined;
	struct meta_cluster cluster;
	struct meta_node *n = NULL;
	enum err e;

	if (c->q->node == NULL || c->q->node_id == 0 || c->q->node_id > INT32_MAX)
		return ERR_MALFORMED;
	e = cluster_get(c->v, &cluster);
	if (e == OK)
		e = node_get(c->v, c->q->node_id, &n);
	if (e == ERR_NOTFOUND)
		e = join_new(c, &cluster, &joined.replica);
	else if (e == OK)
		e = join_known(c, &cluster, n, &joined.replica);
	meta_node_free(n);
	if (e != OK)
		return e;
	memcpy(joined.cluster, cluster.id, sizeof joined.cluster);
	buf_clear(eval_reply(c->v));
	meta_joined_encode(&joined, eval_reply(c->v));
	return OK;
}

static int others_active(const struct placement *p, uint32_t but, bool alive)
{
	int count = 0;

	for (int i = 0; i < p->count; i++) {
		const struct place_node *n = &p->nodes[i];

		count += n->id != but && n->active && (!alive || n->alive);
	}
	return count;
}

static enum err may_drain(const struct change *c, uint32_t id, const struct placement *nodes)
{
	int others = others_active(nodes, id, false), alive = others_active(nodes, id, true);

	if (others == 0)
		return meta_say(
			c->v, ERR_CONFLICT, "node %u is the last: nothing could take over", id);
	if (!c->q->force && alive < others)
		return meta_say(c->v, ERR_CONFLICT,
			"%d of the %d other nodes do not answer: draining node %u could leave "
			"partitions without a majority",
			others - alive, others, id);
	return OK;
}

/* What rows name may still have to move, and what they name no more may still be needed until it
 * has: the only copy, or a vote without which the groups it is in could not even let it go. */
static enum err may_remove(const struct change *c, uint32_t id, const struct placement *nodes)
{
	bool lives = c->view->alive(c->view->arg, id) != META_SILENT;
	int replicas = 0, held = c->view->held(c->view->arg, id);
	struct meta_place catalog;
	enum err e = place_get(c->v, META_GROUP_ID, &catalog);

	if (e != OK)
		return e;
	for (int i = 0; i < nodes->count; i++)
		replicas += nodes->nodes[i].id == id ? nodes->nodes[i].replicas : 0;
	for (int i = 0; i < catalog.voter_count && lives; i++)
		held += held == 0 && catalog.members[i] >> 32 == id;
	if (others_active(nodes, id, false) == 0)
		return meta_say(c->v, ERR_CONFLICT, "node %u is the last", id);
	if (replicas > 0 && !c->q->force)
		return meta_say(c->v, ERR_CONFLICT,
			"node %u has %d replicas: drain it first, or force it", id, replicas);
	if (lives && replicas + held > 0 && c->q->force)
		return meta_say(c->v, ERR_CONFLICT,
			"node %u lives, and groups count on it: drain it, or stop it first", id);
	if (held > 0 && !c->q->force)
		return meta_say(c->v, ERR_CONFLICT,
			"%d groups may still count on node %u: drain it and wait until all has "
			"moved",
			held, id);
	return OK;
}

/* It follows the catalogue no more. */
static enum err leave_catalog(const struct change *c, uint32_t id)
{
	struct meta_place p;
	enum err e = place_get(c->v, META_GROUP_ID, &p);

	for (int i = 0; e == OK && i < p.member_count; i++) {
		if (p.members[i] >> 32 != id)
			continue;
		if (p.member_count == 1 || (i < p.voter_count && p.voter_count == 1))
			return meta_say(
				c->v, ERR_CONFLICT, "node %u alone votes on the catalogue", id);
		memmove(p.members + i, p.members + i + 1,
			(size_t)(p.member_count - i - 1) * sizeof p.members[0]);
		p.member_count--;
		p.voter_count -= i < p.voter_count;
		place_put(c->v, &p);
		break;
	}
	return e;
}

static enum err change_node(const struct change *c)
{
	struct placement nodes;
	struct meta_node *n;
	enum err e = node_get(c->v, c->q->node_id, &n);

	if (e == ERR_NOTFOUND || (e == OK && n->state == NODE_REMOVED)) {
		meta_node_free(n);
		return meta_say(c->v, ERR_NOTFOUND, "no node %u", c->q->node_id);
	}
	if (e == OK)
		c->view->placement(c->view->arg, &nodes);
	if (e == OK && c->q->node_state == NODE_DRAINING)
		e = may_drain(c, n->id, &nodes);
	else if (e == OK && c->q->node_state == NODE_REMOVED)
		e = may_remove(c, n->id, &nodes);
	if (e == OK && !c->q->check_only) {
		n->state = c->q->node_state;
		if (n->state == NODE_REMOVED)
			e = leave_catalog(c, n->id);
		if (e == OK)
			e = node_put(c->v, n);
	}
	meta_node_free(n);
	return e;
}

static enum err balance(const struct change *c)
{
	uint8_t since[8];

	if (c->q->kind == META_BALANCED) {
		eval_delete(c->v, META_KEYSPACE, bytes_text(balance_key));
		return OK;
	}
	if (c->q->check_only) {
		int count = c->view->balance_count(c->view->arg);

		return meta_say(
			c->v, OK, "%d partition%s would change", count, count == 1 ? "" : "s");
	}
	put_u64be(since, (uint64_t)eval_now_ms(c->v));
	eval_put(c->v, META_KEYSPACE, bytes_text(balance_key), bytes_of(since, sizeof since));
	return OK;
}

static enum err run(const struct change *c)
{
	switch (c->q->kind) {
	case META_CREATE_STREAM:
	case META_DELETE_STREAM:
	case META_ADD_PARTITIONS:
	case META_ALTER_STREAM:
	case META_REPLICAS: return change_stream(c);
	case META_SET: return change_settings(c);
	case META_PLACE:
	case META_PLACES: return change_places(c);
	case META_NODE_STATE: return change_node(c);
	case META_BALANCE:
	case META_BALANCED: return balance(c);
	case META_JOIN: return join(c);
	case META_DOCS: return meta_change_docs(c->v, c->view, c->q);
	default: return meta_say(c->v, ERR_UNSUPPORTED, "this node knows no such change");
	}
}

static enum err evaluate(struct eval *v, struct bytes args)
{
	struct change c = {.v = v, .view = eval_partition(v)->options.owner};
	struct meta_request *q;
	enum err e = meta_request_decode(args, &q);

	if (e != OK)
		return e;
	c.q = q;
	if (q->limit_count > 0) /* what is counted must be all there is */
		e = eval_settle(v);
	if (e == OK)
		e = run(&c);
	meta_request_free(q);
	return e;
}
const struct proposal_kind meta_kind = {PROPOSAL_META, evaluate};

/* --- founding --- */

static void place_alone(struct eval *v, uint64_t group, uint64_t replica)
{
	struct meta_place p = {.group = group,
		.founder_count = 1,
		.member_count = 1,
		.voter_count = 1,
		.founders = {replica},
		.members = {replica}};

	place_put(v, &p);
}

/* Made once. */
static enum err found(struct eval *v, struct meta_founding *f)
{
	struct meta_cluster *c = &f->cluster;
	struct bytes value;
	enum err e = eval_get(v, META_KEYSPACE, bytes_text(cluster_key), &value);
	uint64_t self = replica_of(f->node->id, 1);

	if (e != ERR_NOTFOUND)
		return e;
	c->founded_ms = eval_now_ms(v);
	c->next_incarnation = 2;
	cluster_put(v, c);
	place_alone(v, META_GROUP_ID, self);
	for (uint32_t i = 0; i < c->tables; i++)
		place_alone(v, META_TABLE_FIRST + i, self);
	f->node->state = NODE_ACTIVE;
	f->node->incarnation_min = 1;
	f->node->joined_ms = eval_now_ms(v);
	return node_put(v, f->node);
}

static enum err evaluate_found(struct eval *v, struct bytes args)
{
	struct meta_founding f;
	enum err e = meta_founding_decode(args, &f);

	if (e != OK)
		return e;
	e = found(v, &f);
	meta_founding_fini(&f);
	return e;
}
const struct proposal_kind meta_found_kind = {PROPOSAL_FOUND, evaluate_found};
