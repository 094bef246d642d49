/* The store as a skip list per family. Each key holds its versions, newest first, each with the
 * number of the write that made it: a snapshot is a number, and a crash takes back every write
 * above a number drawn between the last sync and the last write, and of unlogged ones those above
 * another, drawn for each family between its last flush and that. Versions that no snapshot, no
 * iterator and no crash can ask for are pruned as writes and syncs pass over them.
 *
 * One gate lets one thread in at a time: the simulator has one thread anyway, and the tests that
 * have more look for races above the store, not for speed in it. */
#include <semaphore.h>
#include "server/base/list.h"
#include "server/base/mem.h"
#include "storage/store_priv.h"

enum { LEVELS_MAX = 16 };
#define NEVER UINT64_MAX

struct version {
	struct version *older;
	uint64_t sequence;
	bool deleted, unlogged;
	size_t len;
	uint8_t data[];
};

struct node {
	struct version *newest; /* never NULL */
	struct node *dead_next; /* in the list of those that may go at the next sync */
	bool dead_listed;
	uint8_t levels;
	size_t key_len;
	uint8_t *key; /* behind next[] */
	struct node *next[];
};

struct store_mem {
	struct store base;
	sem_t gate;
	struct node *heads[FAMILY_COUNT][LEVELS_MAX];
	struct node *dead[FAMILY_COUNT];
	struct list snapshots;
	uint64_t written, synced; /* numbers of writes */
	bool unlogged;            /* the write under way */
	struct unflushed {
		uint64_t before; /* the write before the first unlogged one not flushed, or NEVER */
		uint64_t last;   /* the last one of them */
	} unflushed[FAMILY_COUNT];
	uint64_t flushed; /* of all families: the last unlogged write that was */
	uint64_t bytes;   /* held by versions */
	uint64_t random;
};

struct store_snapshot {
	struct list node;
	uint64_t sequence;
};

enum op { OP_PUT, OP_DELETE, OP_DELETE_RANGE };
enum { OP_HEAD_BYTES = 10 };

/* Operations one after another: op u8, family u8, key length u32, value length u32, both. */
struct batch_mem {
	struct store_batch base;
	uint8_t *at;
	size_t len, size;
};

struct iter_mem {
	struct store_iter base;
	struct store_mem *store;
	struct store_snapshot snapshot;
	bool forward, valid;
	struct slice from, to, key, value;
};

static void enter(struct store_mem *m)
{
	while (sem_wait(&m->gate) != 0)
		;
}

static void leave(struct store_mem *m)
{
	must(sem_post(&m->gate) == 0);
}

static struct store_mem *mem_of(struct store *s)
{
	return (struct store_mem *)(void *)s;
}

/* xorshift64: the seed decides what a crash keeps and nothing else. */
static uint64_t random_next(struct store_mem *m)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return m->random;
}

static struct bytes node_key(const struct node *n)
{
	return bytes_of(n->key, n->key_len);
}

/* The first node whose key is >= key (> key when after). before, if given, gets for each level
 * the link that leads to it. */
static struct node *find(struct store_mem *m, enum store_family f, struct bytes key, bool after,
	struct node ***before)
{
	struct node **links = m->heads[f];

	for (int level = LEVELS_MAX - 1; level >= 0; level--) {
		while (links[level] != NULL) {
			int order = bytes_compare(node_key(links[level]), key);

			if (order > 0 || (order == 0 && !after))
				break;
			links = links[level]->next;
		}
		if (before != NULL)
			before[level] = &links[level];
	}
	return links[0];
}

/* The last node whose key is < key; NULL: none. */
static struct node *find_before(struct store_mem *m, enum store_family f, struct bytes key)
{
	struct node **links = m->heads[f];
	struct node *last = NULL;

	for (int level = LEVELS_MAX - 1; level >= 0; level--) {
		while (links[level] && bytes_compare(node_key(links[level]), key) < 0) {
			last = links[level];
			links = last->next;
		}
	}
	return last;
}

static struct node *insert(struct store_mem *m, enum store_family f, struct bytes key)
{
	struct node **before[LEVELS_MAX];
	struct node *n = find(m, f, key, false, before);
	uint8_t levels = 1;

	if (n != NULL && bytes_equal(node_key(n), key))
		return n;
	while (levels < LEVELS_MAX && random_next(m) % 4 == 0)
		levels++;
	n = mem_new(sizeof *n + levels * sizeof n->next[0] + key.len + 1);
	n->levels = levels;
	n->key = (uint8_t *)&n->next[levels];
	n->key_len = key.len;
	if (key.len > 0)
		memcpy(n->key, key.at, key.len);
	for (int level = 0; level < levels; level++) {
		n->next[level] = *before[level];
		*before[level] = n;
	}
	return n;
}

/* The number up to which only the newest version of a key can still be asked for. */
static uint64_t horizon(const struct store_mem *m, enum store_family f)
{
	uint64_t before = m->unflushed[f].before, low = m->synced < before ? m->synced : before;

	for (struct list *l = m->snapshots.next; l != &m->snapshots; l = l->next) {
		uint64_t sequence = list_entry(l, struct store_snapshot, node)->sequence;

		low = sequence < low ? sequence : low;
	}
	return low;
}

static void free_versions(struct store_mem *m, struct version *v)
{
	while (v != NULL) {
		struct version *older = v->older;

		m->bytes -= v->len;
		mem_free(v);
		v = older;
	}
}

static void prune(struct store_mem *m, struct node *n, uint64_t low)
{
	struct version *v = n->newest;

	while (v != NULL && v->sequence > low)
		v = v->older;
	if (v != NULL) {
		free_versions(m, v->older);
		v->older = NULL;
	}
}

static void add_version(
	struct store_mem *m, enum store_family f, struct node *n, struct bytes value, bool deleted)
{
	struct version *v = mem_new(sizeof *v + value.len);

	v->older = n->newest;
	v->sequence = m->written;
	v->deleted = deleted;
	v->unlogged = m->unlogged;
	v->len = value.len;
	if (value.len > 0)
		memcpy(v->data, value.at, value.len);
	m->bytes += value.len;
	n->newest = v;
	prune(m, n, horizon(m, f));
	if (deleted && !n->dead_listed) {
		n->dead_listed = true;
		n->dead_next = m->dead[f];
		m->dead[f] = n;
	}
}

static void remove_node(struct store_mem *m, enum store_family f, struct node *n)
{
	struct node **before[LEVELS_MAX];

	must(find(m, f, node_key(n), false, before) == n);
	for (int level = 0; level < n->levels; level++)
		*before[level] = n->next[level];
	free_versions(m, n->newest);
	mem_free(n);
}

/* Takes out the keys of which only a deletion is left that all who can ask already see. */
static void sweep(struct store_mem *m)
{
	for (int f = 0; f < FAMILY_COUNT; f++) {
		uint64_t low = horizon(m, (enum store_family)f);
		struct node *n = m->dead[f];

		m->dead[f] = NULL;
		while (n != NULL) {
			struct node *next = n->dead_next;

			n->dead_listed = false;
			prune(m, n, low);
			if (n->newest->deleted && n->newest->sequence <= low) {
				remove_node(m, (enum store_family)f, n);
			} else if (n->newest->deleted) {
				n->dead_listed = true;
				n->dead_next = m->dead[f];
				m->dead[f] = n;
			}
			n = next;
		}
	}
}

static const struct version *visible(const struct node *n, uint64_t sequence)
{
	const struct version *v = n->newest;

	while (v != NULL && v->sequence > sequence)
		v = v->older;
	return v != NULL && !v->deleted ? v : NULL;
}

static void map_close(struct store *s)
{
	struct store_mem *m = mem_of(s);

	for (int f = 0; f < FAMILY_COUNT; f++) {
		while (m->heads[f][0] != NULL)
			remove_node(m, (enum store_family)f, m->heads[f][0]);
	}
	must(list_empty(&m->snapshots));
	sem_destroy(&m->gate);
	mem_free(m);
}

static struct store_batch *map_batch_new(struct store *s)
{
	struct batch_mem *b = mem_new(sizeof *b);

	b->base.ops = s->ops;
	return &b->base;
}

static struct batch_mem *batch_of(struct store_batch *b)
{
	return (struct batch_mem *)(void *)b;
}

static void map_batch_free(struct store_batch *b)
{
	mem_free(batch_of(b)->at);
	mem_free(b);
}

static void map_batch_clear(struct store_batch *b)
{
	batch_of(b)->len = 0;
}

static size_t map_batch_bytes(const struct store_batch *b)
{
	return ((const struct batch_mem *)(const void *)b)->len;
}

static void batch_add(struct store_batch *base, enum op op, enum store_family f, struct bytes key,
	const struct bytes *parts, int part_count)
{
	struct batch_mem *b = batch_of(base);
	size_t value_len = 0, need;
	uint8_t *at;

	for (int i = 0; i < part_count; i++)
		value_len += parts[i].len;
	must(key.len <= UINT32_MAX && value_len <= UINT32_MAX);
	need = b->len + OP_HEAD_BYTES + key.len + value_len;
	if (need > b->size) {
		b->size = need * 2;
		b->at = mem_resize(b->at, b->size);
		must(b->at != NULL);
	}
	at = b->at + b->len;
	at[0] = (uint8_t)op;
	at[1] = (uint8_t)f;
	put_u32be(at + 2, (uint32_t)key.len);
	put_u32be(at + 6, (uint32_t)value_len);
	at += OP_HEAD_BYTES;
	if (key.len > 0)
		memcpy(at, key.at, key.len);
	at += key.len;
	for (int i = 0; i < part_count; i++) {
		if (parts[i].len > 0)
			memcpy(at, parts[i].at, parts[i].len);
		at += parts[i].len;
	}
	b->len = need;
}

static void map_put(struct store_batch *b, enum store_family f, struct bytes key,
	const struct bytes *parts, int part_count)
{
	batch_add(b, OP_PUT, f, key, parts, part_count);
}

static void map_del(struct store_batch *b, enum store_family f, struct bytes key)
{
	batch_add(b, OP_DELETE, f, key, NULL, 0);
}

static void map_del_range(
	struct store_batch *b, enum store_family f, struct bytes from, struct bytes to)
{
	batch_add(b, OP_DELETE_RANGE, f, from, &to, 1);
}

static void apply_delete_range(
	struct store_mem *m, enum store_family f, struct bytes from, struct bytes to)
{
	struct node *n = find(m, f, from, false, NULL);

	for (; n != NULL && bytes_compare(node_key(n), to) < 0; n = n->next[0]) {
		if (!n->newest->deleted)
			add_version(m, f, n, bytes_of(NULL, 0), true);
	}
}

static void note_unflushed(struct store_mem *m, enum store_family f)
{
	struct unflushed *u = &m->unflushed[f];

	if (u->before == NEVER)
		u->before = m->written - 1;
	u->last = m->written;
}

static enum err write_ops(struct store_mem *m, struct batch_mem *b, bool unlogged)
{
	struct rd r = rd_over(bytes_of(b->at, b->len));

	enter(m);
	m->written++;
	m->unlogged = unlogged;
	while (rd_left(&r) > 0) {
		uint8_t op = rd_u8(&r);
		enum store_family f = (enum store_family)rd_u8(&r);
		uint32_t key_len = rd_u32be(&r), value_len = rd_u32be(&r);
		struct bytes key = rd_take(&r, key_len);
		struct bytes value = rd_take(&r, value_len);
		struct node *n;

		if (unlogged)
			note_unflushed(m, f);
		if (op == OP_DELETE_RANGE) {
			apply_delete_range(m, f, key, value);
			continue;
		}
		if (op == OP_DELETE) {
			n = find(m, f, key, false, NULL);
			if (n == NULL || !bytes_equal(node_key(n), key))
				continue;
		} else {
			n = insert(m, f, key);
		}
		add_version(m, f, n, value, op == OP_DELETE);
	}
	leave(m);
	return OK;
}

static enum err map_write(struct store *s, struct store_batch *b)
{
	return write_ops(mem_of(s), batch_of(b), false);
}

static enum err map_write_unlogged(struct store *s, struct store_batch *b)
{
	return write_ops(mem_of(s), batch_of(b), true);
}

static enum err map_flush(struct store *s, enum store_family f)
{
	struct store_mem *m = mem_of(s);
	struct unflushed *u = &m->unflushed[f];

	enter(m);
	if (u->before != NEVER && u->last > m->flushed)
		m->flushed = u->last;
	u->before = NEVER;
	leave(m);
	return OK;
}

static enum err map_sync(struct store *s)
{
	struct store_mem *m = mem_of(s);

	enter(m);
	m->synced = m->written;
	sweep(m);
	leave(m);
	return OK;
}

static uint64_t between(struct store_mem *m, uint64_t low, uint64_t high)
{
	return low + random_next(m) % (high - low + 1);
}

/* Those of writes above keep, of unlogged ones above another number. */
static void forget_versions(struct store_mem *m, struct node *n, uint64_t keep, uint64_t unlogged)
{
	struct version **at = &n->newest, *v;

	while ((v = *at) != NULL) {
		if (v->sequence <= (v->unlogged && unlogged < keep ? unlogged : keep)) {
			at = &v->older;
			continue;
		}
		*at = v->older;
		v->older = NULL;
		free_versions(m, v);
	}
}

void store_mem_crash(struct store *s)
{
	struct store_mem *m = mem_of(s);
	uint64_t keep;

	enter(m);
	keep = between(m, m->synced > m->flushed ? m->synced : m->flushed, m->written);
	for (int f = 0; f < FAMILY_COUNT; f++) {
		uint64_t before = m->unflushed[f].before;
		uint64_t unlogged = before < keep ? between(m, before, keep) : before;
		struct node *next;

		m->unflushed[f].before = NEVER;
		for (struct node *n = m->heads[f][0]; n != NULL; n = n->next[0])
			forget_versions(m, n, keep, unlogged);
		/* Lists are built anew: what was dead may live again. */
		m->dead[f] = NULL;
		for (struct node *n = m->heads[f][0]; n != NULL; n = next) {
			next = n->next[0];
			n->dead_listed = n->newest != NULL && n->newest->deleted;
			if (n->newest == NULL) {
				remove_node(m, (enum store_family)f, n);
			} else if (n->dead_listed) {
				n->dead_next = m->dead[f];
				m->dead[f] = n;
			}
		}
	}
	m->written = m->synced = m->flushed = keep;
	leave(m);
}

static struct store_snapshot *map_snapshot_new(struct store *s)
{
	struct store_mem *m = mem_of(s);
	struct store_snapshot *snapshot = mem_new(sizeof *snapshot);

	enter(m);
	snapshot->sequence = m->written;
	list_push_back(&m->snapshots, &snapshot->node);
	leave(m);
	return snapshot;
}

static void map_snapshot_free(struct store *s, struct store_snapshot *snapshot)
{
	struct store_mem *m = mem_of(s);

	enter(m);
	list_remove(&snapshot->node);
	leave(m);
	mem_free(snapshot);
}

static enum err get_locked(struct store_mem *m, const struct store_snapshot *snapshot,
	enum store_family f, struct bytes key, struct slice *out)
{
	const struct node *n = find(m, f, key, false, NULL);
	const struct version *v;

	*out = (struct slice){NULL, {NULL, 0}};
	if (n == NULL || !bytes_equal(node_key(n), key))
		return ERR_NOTFOUND;
	v = visible(n, snapshot != NULL ? snapshot->sequence : m->written);
	if (v == NULL)
		return ERR_NOTFOUND;
	out->chunk = chunk_try(v->len);
	if (out->chunk == NULL)
		return ERR_NOMEM;
	memcpy(out->chunk->data, v->data, v->len);
	out->bytes = bytes_of(out->chunk->data, v->len);
	return OK;
}

static enum err map_get_one(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	struct bytes key, struct slice *out)
{
	struct store_mem *m = mem_of(s);
	enum err e;

	enter(m);
	e = get_locked(m, snapshot, f, key, out);
	leave(m);
	return e;
}

static enum err map_multi_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	int count, const struct bytes *keys, struct slice *out)
{
	struct store_mem *m = mem_of(s);
	enum err e = OK;
	int i;

	enter(m);
	for (i = 0; i < count && (e == OK || e == ERR_NOTFOUND); i++)
		e = get_locked(m, snapshot, f, keys[i], &out[i]);
	leave(m);
	if (e == OK || e == ERR_NOTFOUND)
		return OK;
	while (i-- > 0)
		slice_unref(&out[i]);
	return e;
}

static struct iter_mem *iter_of(const struct store_iter *i)
{
	return (struct iter_mem *)(uintptr_t)i; /* base is its first member */
}

/* Settles on n or the next node in the direction that is visible and in the range. */
static void iter_settle(struct iter_mem *i, struct node *n)
{
	const struct version *v = NULL;
	struct slice key = {NULL, {NULL, 0}};

	i->valid = false;
	while (n != NULL) {
		if (i->forward ? bytes_compare(node_key(n), i->to.bytes) >= 0
			       : bytes_compare(node_key(n), i->from.bytes) < 0)
			break;
		v = visible(n, i->snapshot.sequence);
		if (v != NULL)
			break;
		n = i->forward ? n->next[0] : find_before(i->store, i->base.family, node_key(n));
	}
	if (v != NULL) {
		must(slice_copy(node_key(n), &key) == OK);
		slice_unref(&i->value);
		must(slice_copy(bytes_of(v->data, v->len), &i->value) == OK);
		i->valid = true;
	}
	slice_unref(&i->key);
	i->key = key;
}

static struct store_iter *map_iter_new(struct store *s, struct store_snapshot *snapshot,
	enum store_family f, struct bytes from, struct bytes to, bool forward)
{
	struct store_mem *m = mem_of(s);
	struct iter_mem *i = mem_new(sizeof *i);

	i->base.ops = s->ops;
	i->base.family = f;
	i->store = m;
	i->forward = forward;
	must(slice_copy(from, &i->from) == OK);
	must(slice_copy(to, &i->to) == OK);
	enter(m);
	i->snapshot.sequence = snapshot != NULL ? snapshot->sequence : m->written;
	list_push_back(&m->snapshots, &i->snapshot.node);
	iter_settle(i, forward ? find(m, f, from, false, NULL) : find_before(m, f, to));
	leave(m);
	return &i->base;
}

static bool map_iter_valid(const struct store_iter *base)
{
	return iter_of(base)->valid;
}

static void map_iter_step(struct store_iter *base)
{
	struct iter_mem *i = iter_of(base);
	struct store_mem *m = i->store;

	must(i->valid);
	enter(m);
	iter_settle(i,
		i->forward ? find(m, base->family, i->key.bytes, true, NULL)
			   : find_before(m, base->family, i->key.bytes));
	leave(m);
}

static struct bytes map_iter_key(const struct store_iter *base)
{
	must(iter_of(base)->valid);
	return iter_of(base)->key.bytes;
}

static struct bytes map_iter_value(const struct store_iter *base)
{
	must(iter_of(base)->valid);
	return iter_of(base)->value.bytes;
}

static enum err map_iter_free(struct store_iter *base)
{
	struct iter_mem *i = iter_of(base);

	enter(i->store);
	list_remove(&i->snapshot.node);
	leave(i->store);
	slice_unref(&i->from);
	slice_unref(&i->to);
	slice_unref(&i->key);
	slice_unref(&i->value);
	mem_free(i);
	return OK;
}

static void map_stats(struct store *s, struct store_stats *out)
{
	struct store_mem *m = mem_of(s);

	enter(m);
	out->memtable_bytes = (int64_t)m->bytes;
	out->last_sequence = m->written;
	leave(m);
}

static uint64_t map_sequence(struct store *s)
{
	struct store_mem *m = mem_of(s);
	uint64_t written;

	enter(m);
	written = m->written;
	leave(m);
	return written;
}

static enum err map_reclaim(
	struct store *s, enum store_family f, struct bytes from, struct bytes to)
{
	(void)f;
	must(bytes_compare(from, to) <= 0);
	enter(mem_of(s));
	sweep(mem_of(s));
	leave(mem_of(s));
	return OK;
}

static const struct store_ops map_ops = {
	.close = map_close,
	.batch_new = map_batch_new,
	.batch_free = map_batch_free,
	.batch_clear = map_batch_clear,
	.batch_bytes = map_batch_bytes,
	.put = map_put,
	.del = map_del,
	.del_range = map_del_range,
	.write = map_write,
	.write_unlogged = map_write_unlogged,
	.sync = map_sync,
	.flush = map_flush,
	.snapshot_new = map_snapshot_new,
	.snapshot_free = map_snapshot_free,
	.get = map_get_one,
	.multi_get = map_multi_get,
	.iter_new = map_iter_new,
	.iter_valid = map_iter_valid,
	.iter_step = map_iter_step,
	.iter_key = map_iter_key,
	.iter_value = map_iter_value,
	.iter_free = map_iter_free,
	.stats = map_stats,
	.sequence = map_sequence,
	.reclaim = map_reclaim,
};

enum err store_open_mem(uint64_t seed, struct store **out)
{
	struct store_mem *m = mem_new(sizeof *m);

	m->base.ops = &map_ops;
	m->base.dir = mem_text("", 0);
	m->random = seed * 2 + 1; /* never zero */
	for (int f = 0; f < FAMILY_COUNT; f++)
		m->unflushed[f].before = NEVER;
	must(sem_init(&m->gate, 0, 1) == 0);
	list_init(&m->snapshots);
	*out = &m->base;
	return OK;
}
