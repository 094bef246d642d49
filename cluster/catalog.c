/* A catalogue is built whole whenever something in it changes and never changed after: loops read
 * it without a lock. What did not change is shared with the one before, so a change costs a few
 * words per stream. */
#include "cluster/catalog.h"
#include <stdatomic.h>
#include <stdlib.h>
#include "cluster/docs.h"
#include "cluster/partition_own.h"
#include "server/base/mem.h"

struct shared_stream {
	struct stream s; /* first: others point to it */
	_Atomic uint32_t refs;
};

struct catalog {
	_Atomic uint32_t refs;
	uint64_t version;
	struct stream **streams; /* in order of name */
	int stream_count;
	struct map by_name, by_uuid;
	struct partition **tables;
	int table_count;
	struct stream_setting *settings; /* in order of key */
	int setting_count;
	struct partition *meta;
	struct cluster_node *nodes; /* in order of id */
	int node_count;
	struct group_place *places; /* in order of group */
	uint64_t *members;          /* of all places */
	int place_count;
	const struct docs *docs;
};

static char *text_copy(const char *text)
{
	return mem_text(text, strlen(text));
}

static void *array_new(int count, size_t each)
{
	return mem_new((size_t)(count > 0 ? count : 1) * each);
}

static struct stream_setting *settings_copy(const struct stream_setting *from, int count)
{
	struct stream_setting *to = array_new(count, sizeof *to);

	for (int i = 0; i < count; i++)
		to[i] = (struct stream_setting){text_copy(from[i].key), text_copy(from[i].value)};
	return to;
}

/* Strings of ours that readers see as const. */
static void text_free(const char *text)
{
	mem_free((void *)(uintptr_t)text);
}

static void settings_free(const struct stream_setting *s, int count)
{
	for (int i = 0; i < count; i++) {
		text_free(s[i].key);
		text_free(s[i].value);
	}
	mem_free((void *)(uintptr_t)s);
}

static struct partition **partitions_copy(struct partition *const *from, int count)
{
	struct partition **to = array_new(count, sizeof *to);

	for (int i = 0; i < count; i++)
		to[i] = partition_ref(from[i]);
	return to;
}

static void partitions_free(struct partition *const *at, int count)
{
	for (int i = 0; i < count; i++)
		partition_unref(at[i]);
	mem_free((void *)(uintptr_t)at);
}

struct stream *catalog_stream_new(const struct stream *like)
{
	struct shared_stream *b = mem_new(sizeof *b);

	atomic_init(&b->refs, 1);
	b->s = *like;
	b->s.name = text_copy(like->name);
	b->s.settings = settings_copy(like->settings, like->setting_count);
	b->s.partitions = partitions_copy(like->partitions, like->partition_count);
	return &b->s;
}

static struct shared_stream *shared(const struct stream *s)
{
	return (struct shared_stream *)(uintptr_t)s;
}

struct stream *catalog_stream_ref(const struct stream *s)
{
	atomic_fetch_add_explicit(&shared(s)->refs, 1, memory_order_relaxed);
	return &shared(s)->s;
}

void catalog_stream_unref(const struct stream *s)
{
	if (s == NULL || atomic_fetch_sub_explicit(&shared(s)->refs, 1, memory_order_acq_rel) > 1)
		return;
	text_free(s->name);
	settings_free(s->settings, s->setting_count);
	partitions_free(s->partitions, s->partition_count);
	mem_free(shared(s));
}

static int stream_order(const void *a, const void *b)
{
	const struct stream *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int setting_order(const void *a, const void *b)
{
	const struct stream_setting *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static int node_order(const void *a, const void *b)
{
	const struct cluster_node *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int place_order(const void *a, const void *b)
{
	const struct group_place *x = a, *y = b;

	return x->group < y->group ? -1 : x->group > y->group;
}

static void copy_nodes(struct catalog *c, const struct catalog_parts *p)
{
	c->nodes = array_new(p->node_count, sizeof *c->nodes);
	c->node_count = p->node_count;
	for (int i = 0; i < p->node_count; i++) {
		struct cluster_node *n = &c->nodes[i];

		*n = p->nodes[i];
		n->name = text_copy(n->name);
		n->rack = text_copy(n->rack);
		n->address = text_copy(n->address);
		n->doors = settings_copy(n->doors, n->door_count);
	}
	qsort(c->nodes, (size_t)c->node_count, sizeof *c->nodes, node_order);
}

static void free_nodes(struct catalog *c)
{
	for (int i = 0; i < c->node_count; i++) {
		text_free(c->nodes[i].name);
		text_free(c->nodes[i].rack);
		text_free(c->nodes[i].address);
		settings_free(c->nodes[i].doors, c->nodes[i].door_count);
	}
	mem_free(c->nodes);
}

static void copy_places(struct catalog *c, const struct catalog_parts *p)
{
	int total = 0, at = 0;

	for (int i = 0; i < p->place_count; i++)
		total += p->places[i].member_count;
	c->members = array_new(total, sizeof *c->members);
	c->places = array_new(p->place_count, sizeof *c->places);
	c->place_count = p->place_count;
	for (int i = 0; i < p->place_count; i++) {
		const struct group_place *from = &p->places[i];

		c->places[i] = *from;
		c->places[i].members = c->members + at;
		memcpy(c->members + at, from->members,
			(size_t)from->member_count * sizeof *c->members);
		at += from->member_count;
	}
	qsort(c->places, (size_t)c->place_count, sizeof *c->places, place_order);
}

struct catalog *catalog_new(const struct catalog_parts *p)
{
	struct catalog *c = mem_new(sizeof *c);

	atomic_init(&c->refs, 1);
	c->version = p->version;
	c->stream_count = p->stream_count;
	c->streams = array_new(p->stream_count, sizeof(struct stream *));
	for (int i = 0; i < p->stream_count; i++) {
		struct stream *s = catalog_stream_ref(p->streams[i]);

		c->streams[i] = s;
		map_put(&c->by_name, bytes_text(s->name), s);
		map_put(&c->by_uuid, bytes_of(s->uuid, sizeof s->uuid), s);
	}
	qsort(c->streams, (size_t)c->stream_count, sizeof(struct stream *), stream_order);
	c->tables = partitions_copy(p->tables, p->table_count);
	c->table_count = p->table_count;
	c->settings = settings_copy(p->settings, p->setting_count);
	c->setting_count = p->setting_count;
	qsort(c->settings, (size_t)c->setting_count, sizeof *c->settings, setting_order);
	c->meta = p->meta != NULL ? partition_ref(p->meta) : NULL;
	copy_nodes(c, p);
	copy_places(c, p);
	c->docs = docs_ref(p->docs);
	return c;
}

const struct catalog *catalog_hold(const struct catalog *c)
{
	struct catalog *mine = (struct catalog *)(uintptr_t)c;

	atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed);
	return c;
}

void catalog_release(const struct catalog *c)
{
	struct catalog *mine = (struct catalog *)(uintptr_t)c;

	if (c == NULL || atomic_fetch_sub_explicit(&mine->refs, 1, memory_order_acq_rel) > 1)
		return;
	map_fini(&mine->by_name);
	map_fini(&mine->by_uuid);
	for (int i = 0; i < mine->stream_count; i++)
		catalog_stream_unref(mine->streams[i]);
	mem_free(mine->streams);
	partitions_free(mine->tables, mine->table_count);
	settings_free(mine->settings, mine->setting_count);
	partition_unref(mine->meta);
	free_nodes(mine);
	mem_free(mine->places);
	mem_free(mine->members);
	docs_unref(mine->docs);
	mem_free(mine);
}

uint64_t catalog_version(const struct catalog *c)
{
	return c->version;
}

const struct stream *catalog_stream(const struct catalog *c, struct bytes name)
{
	return map_get(&c->by_name, name);
}

const struct stream *catalog_stream_by_uuid(const struct catalog *c, const uint8_t uuid[16])
{
	return map_get(&c->by_uuid, bytes_of(uuid, 16));
}

int catalog_stream_count(const struct catalog *c)
{
	return c->stream_count;
}

const struct stream *catalog_stream_at(const struct catalog *c, int index)
{
	must(index >= 0 && index < c->stream_count);
	return c->streams[index];
}

/* The same on every node and for good: not the map's hash, which is each process's own. */
struct partition *catalog_table(const struct catalog *c, struct bytes key)
{
	if (c->table_count == 0)
		return NULL;
	return c->tables[hash_murmur2(key) % (uint32_t)c->table_count];
}

int catalog_table_count(const struct catalog *c)
{
	return c->table_count;
}

struct partition *catalog_table_at(const struct catalog *c, int index)
{
	must(index >= 0 && index < c->table_count);
	return c->tables[index];
}

const char *catalog_setting(const struct catalog *c, const char *key)
{
	struct stream_setting want = {key, NULL}, *found;

	found = bsearch(
		&want, c->settings, (size_t)c->setting_count, sizeof *c->settings, setting_order);
	return found != NULL ? found->value : NULL;
}

int catalog_setting_seek(const struct catalog *c, const char *key)
{
	int low = 0, high = c->setting_count;

	while (low < high) {
		int mid = low + (high - low) / 2;

		if (strcmp(c->settings[mid].key, key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

bool catalog_setting_next(const struct catalog *c, int *at, const char **key, const char **value)
{
	if (*at >= c->setting_count)
		return false;
	*key = c->settings[*at].key;
	*value = c->settings[*at].value;
	++*at;
	return true;
}

/* --- the cluster --- */

struct partition *catalog_meta(const struct catalog *c)
{
	return c->meta;
}

int catalog_node_count(const struct catalog *c)
{
	return c->node_count;
}

const struct cluster_node *catalog_node_at(const struct catalog *c, int index)
{
	must(index >= 0 && index < c->node_count);
	return &c->nodes[index];
}

const struct cluster_node *catalog_node(const struct catalog *c, uint32_t id)
{
	struct cluster_node want = {.id = id};

	return bsearch(&want, c->nodes, (size_t)c->node_count, sizeof *c->nodes, node_order);
}

const char *cluster_node_door(const struct cluster_node *n, const char *door)
{
	for (int i = 0; i < n->door_count; i++) {
		if (strcmp(n->doors[i].key, door) == 0)
			return n->doors[i].value;
	}
	return "";
}

const struct group_place *catalog_place(const struct catalog *c, uint64_t group)
{
	struct group_place want = {.group = group};

	return bsearch(&want, c->places, (size_t)c->place_count, sizeof *c->places, place_order);
}

/* --- documents --- */

int catalog_doc_count(const struct catalog *c)
{
	return docs_count(c->docs);
}

const struct catalog_doc *catalog_doc_at(const struct catalog *c, int index)
{
	return docs_at(c->docs, index);
}

const struct catalog_doc *catalog_doc(const struct catalog *c, struct bytes key)
{
	return docs_get(c->docs, key);
}

int catalog_doc_seek(const struct catalog *c, struct bytes key)
{
	return docs_seek(c->docs, key);
}

int catalog_doc_count_of(const struct catalog *c, struct bytes prefix)
{
	return docs_count_of(c->docs, prefix);
}

uint64_t catalog_docs_version(const struct catalog *c)
{
	return docs_version(c->docs);
}

bool catalog_docs_changed(const struct catalog *old, const struct catalog *now,
	struct catalog_docs_walk *at, const struct catalog_doc **was, const struct catalog_doc **is)
{
	return docs_changed(old != NULL ? old->docs : NULL, now->docs, at, was, is);
}
