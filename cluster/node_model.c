/* The model: the catalogue's rows as applied here, and what follows from them and from whom this
 * node is connected with. It is the same on every node that has applied the same, but for who is
 * up: that is this node's own view, and it only ever delays or forbids a change. */
#include "cluster/node_priv.h"
#include "server/base/log.h"

enum {
	SILENT_MS = 3000, /* not connected for that long: it is taken for gone */
	DOUBT_MS = 5000   /* without a leader of the catalogue */
};

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
	meta_setting_fini(s);
	mem_free(s);
}

static void model_node_free(struct model_node *m)
{
	if (m == NULL)
		return;
	meta_node_free(m->row);
	mem_free(m);
}

/* Written once: the row comes with every change, and other loops read the id. */
static void set_cluster_id(struct node *n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *id = n->cluster.id;
	char text[23] = "";

	for (int i = 0; i < 22; i++) {
		int bit = i * 6, byte = bit / 8;
		unsigned two = (unsigned)id[byte] << 8 | (byte < 15 ? id[byte + 1] : 0);

		text[i] = digits[two >> (10 - bit % 8) & 63];
	}
	if (memcmp(text, n->cluster_id, sizeof text) != 0)
		memcpy(n->cluster_id, text, sizeof text);
}

static void unreadable(const char *what, struct bytes key)
{
	LOG(LOG_ERROR, AREA_CLUSTER, "catalog_row_unreadable", "%s=%s", what, log_text(key).text);
}

static void model_stream_row(struct node *n, enum row_op op, struct bytes name, struct bytes value)
{
	struct model_stream *s;
	struct meta_stream *row;

	model_stream_free(map_remove(&n->streams, name));
	if (op == ROW_DELETE)
		return;
	if (meta_stream_decode(value, &row) != OK) {
		unreadable("stream", name);
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

static void count_nodes(struct node *n)
{
	const struct model_node *m;
	int count = 0;

	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;)
		count += m->row->state != NODE_REMOVED;
	atomic_store(&n->alone, count <= 1);
}

static void model_node_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	uint32_t id = key.len == 4 ? get_u32be(key.at) : 0;
	struct model_node *m = map_get_u64(&n->nodes, id);
	struct meta_node *row;

	if (id == 0)
		return;
	if (op == ROW_DELETE) {
		model_node_free(map_remove_u64(&n->nodes, id));
		return;
	}
	if (meta_node_decode(value, &row) != OK) {
		unreadable("node", key);
		return;
	}
	row->id = id;
	if (m == NULL) {
		m = mem_new(sizeof *m);
		m->since_ms = loop_now_ms(n->home);
		map_put_u64(&n->nodes, id, m);
	}
	meta_node_free(m->row);
	m->row = row;
}

static void model_place_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	uint64_t group = key.len == 8 ? get_u64be(key.at) : 0;
	struct model_place *p = map_get_u64(&n->places, group);
	struct group *g = map_get_u64(&n->groups, group);
	struct meta_place row;

	if (op == ROW_DELETE) {
		mem_free(map_remove_u64(&n->places, group));
		return;
	}
	memset(&row, 0, sizeof row); /* rows are compared as bytes (controller.c) */
	if (meta_place_decode(value, &row) != OK) {
		unreadable("place", key);
		return;
	}
	row.group = group;
	if (p == NULL) {
		p = mem_new(sizeof *p);
		map_put_u64(&n->places, group, p);
	}
	p->row = row;
	p->settled = SETTLED_UNKNOWN;
	p->vote_count = -1;
	if (g != NULL)
		g->told = false;
}

static void model_doc_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	if (n->docs == NULL)
		n->view.docs = n->docs = docs_new();
	if (op == ROW_PUT)
		docs_put(n->docs, key, value);
	else
		docs_remove(n->docs, key);
}

static void model_docs_row(struct node *n, enum row_op op, struct bytes value)
{
	n->docs_row = (struct meta_docs){0};
	if (op == ROW_PUT && meta_docs_decode(value, &n->docs_row) != OK)
		unreadable("row", bytes_text("dn"));
}

void model_row(struct node *n, enum row_op op, struct bytes key, struct bytes value)
{
	struct bytes rest = bytes_of(key.at + 2, key.len >= 2 ? key.len - 2 : 0);

	if (bytes_equal(key, bytes_text("c")) && op == ROW_PUT) {
		if (meta_cluster_decode(value, &n->cluster) == OK) {
			n->founded = true;
			set_cluster_id(n);
		}
	} else if (bytes_equal(key, bytes_text("b"))) {
		n->balance_ms = op == ROW_PUT && value.len == 8 ? (int64_t)get_u64be(value.at) : 0;
	} else if (bytes_equal(key, bytes_text("dn"))) {
		model_docs_row(n, op, value);
	} else if (key.len > 2 && key.at[1] == '/') {
		switch (key.at[0]) {
		case 's': model_stream_row(n, op, rest, value); break;
		case 'k': model_setting_row(n, op, rest, value); break;
		case 'g': model_place_row(n, op, rest, value); break;
		case 'd': model_doc_row(n, op, rest, value); break;
		case 'n':
			model_node_row(n, op, rest, value);
			count_nodes(n);
			n->nodes_changed = true;
			break;
		default: break;
		}
	}
}

/* --- what limits are about --- */

int64_t model_count(void *node, const struct meta_limit *l)
{
	const struct node *n = node;
	const struct model_stream *s;
	const struct stream_setting *k;
	int64_t count = 0;
	uint32_t at = 0;

	switch (l->of) {
	case LIMIT_STREAMS:
	case LIMIT_PARTITIONS:
		while ((s = map_next(&n->streams, &at)) != NULL)
			if (meta_limited(l, bytes_text(s->row->name)))
				count += l->of == LIMIT_STREAMS ? 1 : s->row->group_count;
		break;
	case LIMIT_SETTINGS:
		while ((k = map_next(&n->settings, &at)) != NULL)
			count += meta_limited(l, bytes_text(k->key));
		break;
	case LIMIT_DOCS: count = docs_count_of(n->docs, l->prefix); break;
	}
	return count;
}

void model_forget(struct node *n)
{
	struct model_stream *s;
	struct stream_setting *k;
	struct model_place *p;

	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;)
		model_stream_free(s);
	for (uint32_t at = 0; (k = map_next(&n->settings, &at)) != NULL;)
		model_setting_free(k);
	for (uint32_t at = 0; (p = map_next(&n->places, &at)) != NULL;)
		mem_free(p);
	map_fini(&n->streams);
	map_fini(&n->settings);
	map_fini(&n->places);
	n->balance_ms = 0;
	if (n->docs != NULL)
		docs_clear(n->docs);
	n->docs_row = (struct meta_docs){0};
}

void model_free(struct node *n)
{
	struct model_node *m;

	model_forget(n);
	docs_free(n->docs);
	n->view.docs = n->docs = NULL;
	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;)
		model_node_free(m);
	map_fini(&n->nodes);
}

/* --- other nodes --- */

static bool is_among(const struct peer_node *nodes, int count, uint32_t id)
{
	while (count > 0 && nodes[count - 1].id != id)
		count--;
	return count > 0;
}

static int add_peers(const struct node *n, bool removed, struct peer_node *out, int count)
{
	const struct model_node *m;

	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;) {
		if (m->row->id == (uint32_t)n->conf.id || count == MODEL_PEERS_MAX ||
			(m->row->state == NODE_REMOVED) != removed ||
			is_among(out, count, m->row->id))
			continue;
		out[count++] = (struct peer_node){.id = m->row->id,
			.address = m->row->address,
			.instance = n->doubted ? NULL : m->row->instance,
			.removed = removed && !n->doubted};
	}
	return count;
}

int model_add_peers(const struct node *n, struct peer_node *out, int count)
{
	count = add_peers(n, false, out, count);
	return add_peers(n, true, out, count);
}

void model_set_peers(struct node *n)
{
	struct peer_node nodes[MODEL_PEERS_MAX];

	n->nodes_changed = false;
	if (n->peers != NULL && n->founded)
		peers_set_nodes(n->peers, nodes, model_add_peers(n, nodes, 0));
}

/* A list that is old may be why nobody leads: it names the lost data of a node that has come back
 * since, which is refused, and whose vote is the one that lacks. So whatever data its nodes have
 * is let in until the catalogue here is as new as a leader's again. */
void model_doubt_peers(struct node *n, int64_t now_ms)
{
	if (partition_leader(n->meta) != 0)
		n->led_ms = now_ms;
	if (n->doubted || !n->founded || now_ms - n->led_ms < DOUBT_MS)
		return;
	n->doubted = true;
	n->current = false;
	model_set_peers(n);
}

enum meta_alive model_alive(void *node, uint32_t id)
{
	struct node *n = node;
	const struct model_node *m = map_get_u64(&n->nodes, id);
	int64_t now = loop_now_ms(n->home);

	if (id == (uint32_t)n->conf.id)
		return META_ALIVE;
	if (m == NULL)
		return META_SILENT;
	if (m->up) /* with the very instance that its row names, as long as somebody leads */
		return META_ALIVE;
	return now - m->since_ms < SILENT_MS ? META_ALIVE_UNKNOWN : META_SILENT;
}

int64_t model_silent_ms(const struct node *n, uint32_t id)
{
	const struct model_node *m = map_get_u64(&n->nodes, id);

	return m == NULL || m->up || id == (uint32_t)n->conf.id
		? 0
		: loop_now_ms(n->home) - m->since_ms;
}

int model_held(void *node, uint32_t id)
{
	struct node *n = node;
	const struct model_place *p;
	int count = 0;

	for (uint32_t at = 0; (p = map_next(&n->places, &at)) != NULL;) {
		bool holds = p->vote_count < 0;

		for (int i = 0; i < p->vote_count && !holds; i++)
			holds = p->votes[i] >> 32 == id;
		count += holds;
	}
	return count;
}

bool model_votes(void *node, uint64_t group, uint32_t id)
{
	struct node *n = node;
	const struct model_place *p = map_get_u64(&n->places, group);

	/* Without peers nobody can vote elsewhere, and nobody is asked. */
	if (n->peers == NULL || p == NULL || meta_place_on(&p->row, id) != 0)
		return false;
	for (int i = 0; i < p->vote_count; i++) {
		if (p->votes[i] >> 32 == id && !model_lost(n, p->votes[i]))
			return true;
	}
	return p->vote_count < 0;
}

bool model_lost(const struct node *n, uint64_t replica)
{
	const struct model_node *m = map_get_u64(&n->nodes, replica >> 32);

	return m == NULL || (uint32_t)replica < m->row->incarnation_min;
}

/* --- loads --- */

int model_wanted(const struct node *n, const struct meta_stream *row)
{
	(void)n;
	return row != NULL ? row->replicas : TABLE_REPLICAS;
}

void model_place_groups(
	struct node *n, bool (*each)(void *arg, struct model_place *p, int wanted), void *arg)
{
	const struct model_stream *s;
	struct model_place *p;

	for (uint32_t i = 0; i < n->cluster.tables; i++) {
		p = map_get_u64(&n->places, META_TABLE_FIRST + i);
		if (p != NULL && !each(arg, p, model_wanted(n, NULL)))
			return;
	}
	for (uint32_t at = 0; (s = map_next(&n->streams, &at)) != NULL;) {
		for (int i = 0; i < s->row->group_count; i++) {
			p = map_get_u64(&n->places, s->row->groups[i]);
			if (p != NULL && !each(arg, p, model_wanted(n, s->row)))
				return;
		}
	}
}

static bool count_group(void *arg, struct model_place *p, int wanted)
{
	struct place_group g = {.wanted = wanted, .table = p->row.group < META_STREAM_FIRST};

	for (int i = 0; i < p->row.member_count && i < PLACEMENT_REPLICAS_MAX; i++)
		g.members[g.count++] = (uint32_t)(p->row.members[i] >> 32);
	placement_count(arg, &g, 1);
	return true;
}

void model_placement(void *node, struct placement *out)
{
	struct node *n = node;
	const struct model_node *m;

	*out = (struct placement){0};
	for (uint32_t at = 0; (m = map_next(&n->nodes, &at)) != NULL;) {
		if (m->row->state == NODE_REMOVED || out->count == PLACEMENT_NODES_MAX)
			continue;
		out->nodes[out->count++] = (struct place_node){.id = m->row->id,
			.rack = m->row->rack,
			.active = m->row->state == NODE_ACTIVE,
			.alive = m->row->id == (uint32_t)n->conf.id || m->up};
	}
	model_place_groups(n, count_group, out);
}

void model_gather_node(struct node *n, struct meta_node *out)
{
	*out = (struct meta_node){.id = (uint32_t)n->conf.id,
		.name = (char *)(uintptr_t)n->conf.name,
		.rack = (char *)(uintptr_t)(n->conf.rack != NULL ? n->conf.rack : ""),
		.address = (char *)(uintptr_t)(n->conf.peer_address != NULL ? n->conf.peer_address
									    : ""),
		.door_count = n->door_count,
		.doors = n->doors};
	memcpy(out->instance, n->identity.instance, sizeof out->instance);
}
