/* One history per group: the first replica that applies an index writes it, all others are compared
 * with it, again after every restart. Offsets are dense because each entry must begin where the one
 * before ended. Records of the loads are looked for in each entry when it is first seen. At the end
 * stores and row tables are compared as they are. What compaction has made of an entry is one
 * replica's own: of that the records are compared, and that the newest of each key is there. */
#include "tests/sim/sim_check.h"
#include <stdio.h>
#include "cluster/meta.h"
#include "cluster/partition_priv.h"
#include "server/base/crc32c.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "storage/change.h"
#include "storage/keys.h"
#include "tests/sim/sim_disk.h"

enum { KEYSPACES = 32, FILL_MAX = 64, TERMS_MAX = 4096 };
static const uint64_t value_magic = 0x534c554943453031; /* SLUICE01 */

struct seen { /* an entry of the history */
	uint64_t term;
	int64_t base;
	uint32_t count, crc, bytes;
	uint8_t kind;
	bool compacted; /* when first seen: its bytes are one replica's own */
	bool looked;    /* at its records: who was restarted applies without payloads in memory */
};

struct group_history {
	uint64_t group;
	struct seen *entries; /* by index */
	uint64_t last, room;
	uint64_t *ops; /* by offset; 0: none of ours */
	int64_t ops_room;
	struct {
		uint64_t term;
		int node;
	} leaders[TERMS_MAX];
	int leader_count;
};

struct op {
	bool acked, found;
	int64_t sent_us; /* by topic; 0: not */
	uint64_t group;  /* where it was said to be */
	int64_t offset;
};

struct producer_seen {
	uint32_t producer, sequence;
	bool any;
};

struct watched { /* a replica of a life of a node */
	struct watcher watcher;
	struct list node; /* of watches.all, while the life lasts */
	struct sim_node *of;
	uint64_t life, group, last_index;
	bool attached; /* when the last entry came: one that comes to be here applies from its start
			*/
	struct partition *partition;
};

struct eye { /* per loop of a life */
	struct catalog_watcher watcher;
	struct sim_node *of;
	struct map known; /* partition -> watched */
};

static struct {
	struct map groups;
	struct op *ops; /* by number */
	uint64_t op_count, op_room, acked, entries;
	struct map producers;
	struct map newest; /* group and key of a producer's record -> struct newest */
	uint64_t compacted;
	struct list watches;
} check;

struct newest {
	uint64_t group;
	uint32_t key;
	int64_t offset, found; /* in the history, in the store that is looked at */
};

/* --- records */

void check_value_write(const struct check_value *v, uint8_t *out)
{
	put_u64be(out, value_magic);
	put_u64be(out + 8, v->op);
	put_u32be(out + 16, v->producer);
	put_u32be(out + 20, v->sequence);
	put_u32be(out + 24, v->topic);
}

bool check_value_read(struct bytes in, struct check_value *out)
{
	if (in.len < CHECK_VALUE_BYTES || get_u64be(in.at) != value_magic)
		return false;
	out->op = get_u64be(in.at + 8);
	out->producer = get_u32be(in.at + 16);
	out->sequence = get_u32be(in.at + 20);
	out->topic = get_u32be(in.at + 24);
	return true;
}

uint64_t check_op_new(void)
{
	if (check.op_count + 1 >= check.op_room) {
		check.op_room = check.op_room ? check.op_room * 2 : 4096;
		check.ops = mem_resize(check.ops, check.op_room * sizeof *check.ops);
		must(check.ops != NULL);
	}
	check.ops[++check.op_count] = (struct op){0};
	return check.op_count;
}

void check_acked(uint64_t op, uint64_t group, int64_t offset)
{
	struct op *o = &check.ops[op];

	sim_must(op > 0 && op <= check.op_count && !o->acked);
	o->acked = true;
	o->group = group;
	o->offset = offset;
	check.acked++;
}

void check_sent(uint64_t op)
{
	check.ops[op].sent_us = sim_now_us();
}

bool check_is_expected(uint64_t op, int64_t since_us)
{
	const struct op *o = &check.ops[op];

	return o->acked && o->sent_us > since_us;
}

bool check_is_acked(uint64_t op)
{
	return check.ops[op].acked;
}
bool check_is_found(uint64_t op)
{
	return check.ops[op].found;
}
uint64_t check_ops(void)
{
	return check.op_count;
}
uint64_t check_acked_count(void)
{
	return check.acked;
}
uint64_t check_entries(void)
{
	return check.entries;
}

static struct group_history *history_of(uint64_t group)
{
	struct group_history *h = map_get_u64(&check.groups, group);

	if (h != NULL)
		return h;
	h = mem_new(sizeof *h);
	h->group = group;
	map_put_u64(&check.groups, group, h);
	return h;
}

static uint64_t *op_at(struct group_history *h, int64_t offset)
{
	int64_t room = h->ops_room ? h->ops_room : 1024;

	sim_must(offset >= 0);
	while (room <= offset)
		room *= 2;
	if (room > h->ops_room) {
		h->ops = mem_resize(h->ops, (size_t)room * sizeof *h->ops);
		must(h->ops != NULL);
		memset(h->ops + h->ops_room, 0, (size_t)(room - h->ops_room) * sizeof *h->ops);
		h->ops_room = room;
	}
	return &h->ops[offset];
}

static struct newest *newest_of(uint64_t group, uint32_t key)
{
	uint64_t at = group << 32 | key;
	struct newest *n = map_get_u64(&check.newest, at);

	if (n != NULL)
		return n;
	n = mem_new(sizeof *n);
	*n = (struct newest){group, key, -1, -1};
	map_put_u64(&check.newest, at, n);
	return n;
}

/* late: others after it were found before, which says nothing of their order. */
static void record_found(uint64_t group, int64_t offset, const struct check_value *v, bool late)
{
	struct producer_seen *p;
	uint64_t key = (uint64_t)v->producer << 32 | (uint32_t)group;

	sim_must(v->op > 0 && v->op <= check.op_count);
	*op_at(history_of(group), offset) = v->op;
	check.ops[v->op].found = true;
	if (v->producer != 0)
		sim_note("group %llu offset %lld: producer %u sequence %u",
			(unsigned long long)group, (long long)offset, v->producer, v->sequence);
	if (v->producer == 0)
		return;
	if (newest_of(group, v->topic)->offset < offset)
		newest_of(group, v->topic)->offset = offset;
	p = map_get_u64(&check.producers, key);
	if (p == NULL) {
		p = mem_new(sizeof *p);
		map_put_u64(&check.producers, key, p);
	}
	if (late)
		return;
	if (p->any && v->sequence <= p->sequence)
		sim_fail("group %llu offset %lld: producer %u sequence %u comes after %u",
			(unsigned long long)group, (long long)offset, v->producer, v->sequence,
			p->sequence);
	p->any = true;
	p->sequence = v->sequence;
}

static void records_look(const struct entry *e, bool late)
{
	struct change_batches w;
	const struct slice *holder;
	struct batch b;

	change_batches_init(&w, e);
	while (change_batches_next(&w, &b, &holder) == OK) {
		struct batch_walk walk;
		struct record r;

		if (batch_walk_init(&walk, &b, BATCH_INFLATED_MAX) != OK)
			sim_fail("group %llu index %llu: a batch that cannot be read",
				(unsigned long long)e->group, (unsigned long long)e->index);
		while (batch_walk_next(&walk, &r) == OK) {
			struct check_value v;

			if (check_value_read(r.value, &v))
				record_found(e->group, b.base_offset + r.offset_delta, &v, late);
		}
		batch_walk_fini(&walk);
	}
}

/* --- the history */

static struct seen *history_at(struct group_history *h, uint64_t index)
{
	if (index >= h->room) {
		uint64_t room = h->room ? h->room : 256;

		while (room <= index)
			room *= 2;
		h->entries = mem_resize(h->entries, room * sizeof *h->entries);
		must(h->entries != NULL);
		memset(h->entries + h->room, 0, (room - h->room) * sizeof *h->entries);
		h->room = room;
	}
	if (index > h->last)
		h->last = index;
	return &h->entries[index];
}

static void history_compare(int node, uint64_t group, uint64_t index, const struct seen *a,
	const struct entry_header *e)
{
	bool own = a->compacted || (e->flags & ENTRY_COMPACTED);

	if (a->term == e->term && a->base == e->base_offset && a->count == e->count &&
		a->kind == (uint8_t)e->kind && (own || a->crc == e->payload_crc))
		return;
	sim_fail("n%d group %llu index %llu: term %llu offset %lld count %u kind %d crc %08x, "
		 "where term %llu offset %lld count %u kind %d crc %08x was applied before",
		node, (unsigned long long)group, (unsigned long long)index,
		(unsigned long long)e->term, (long long)e->base_offset, e->count, (int)e->kind,
		e->payload_crc, (unsigned long long)a->term, (long long)a->base, a->count,
		(int)a->kind, a->crc);
}

/* The records of an entry, once, when somebody has them. */
static void entry_look(struct seen *at, const struct entry *e, bool late)
{
	if (at->looked || e->head.count == 0 || !entry_whole(e))
		return;
	at->looked = true;
	records_look(e, late);
}

static void entry_seen(int node, const struct entry *e)
{
	struct group_history *h = history_of(e->group);
	struct seen *at = history_at(h, e->index);

	if (at->term != 0) {
		history_compare(node, e->group, e->index, at, &e->head);
		entry_look(at, e, true);
		return;
	}
	*at = (struct seen){.term = e->head.term,
		.base = e->head.base_offset,
		.count = e->head.count,
		.crc = e->head.payload_crc,
		.bytes = e->head.payload_bytes,
		.kind = (uint8_t)e->head.kind,
		.compacted = e->head.flags & ENTRY_COMPACTED};
	check.entries++;
	if (e->index > 1 && at[-1].term != 0 && at[-1].base + at[-1].count != at->base)
		sim_fail("n%d group %llu index %llu: offset %lld follows %lld + %u", node,
			(unsigned long long)e->group, (unsigned long long)e->index,
			(long long)at->base, (long long)at[-1].base, at[-1].count);
	if (e->index > 1 && at[-1].term > at->term)
		sim_fail("n%d group %llu index %llu: terms go down", node,
			(unsigned long long)e->group, (unsigned long long)e->index);
	entry_look(at, e, false);
}

static void leader_seen(struct sim_node *n, uint64_t group, uint64_t term)
{
	struct group_history *h = history_of(group);

	sim_trace(
		"leads group=%llu term=%llu", (unsigned long long)group, (unsigned long long)term);
	for (int i = 0; i < h->leader_count; i++) {
		if (h->leaders[i].term != term)
			continue;
		if (h->leaders[i].node != n->machine.id)
			sim_fail("group %llu term %llu is led by n%d and by n%d",
				(unsigned long long)group, (unsigned long long)term,
				h->leaders[i].node, n->machine.id);
		return;
	}
	sim_must(h->leader_count < TERMS_MAX);
	h->leaders[h->leader_count].term = term;
	h->leaders[h->leader_count++].node = n->machine.id;
}

static bool payload_get(struct store *s, struct bytes key, struct slice *out)
{
	for (int f = FAMILY_LOG_HOURS; f < FAMILY_COUNT; f++)
		if (store_get(s, NULL, (enum store_family)f, key, out) == OK)
			return true;
	return false;
}

/* --- watching */

static void on_committed(struct watcher *w, struct entry *e)
{
	struct watched *v = list_entry(w, struct watched, watcher);

	/* Only a replica has entries without records; a founder applies one while it is opened. */
	bool attached = partition_attached(v->partition) || e->head.count == 0;

	/* One that went and came anew while nothing was said begins with the first entry. */
	if (e->index <= v->last_index && attached == v->attached && e->index > 1)
		sim_fail("n%d group %llu: index %llu is applied after %llu", v->of->machine.id,
			(unsigned long long)v->group, (unsigned long long)e->index,
			(unsigned long long)v->last_index);
	v->last_index = e->index;
	v->attached = attached;
	entry_seen(v->of->machine.id, e);
}

static void on_led(struct watcher *w, bool leads)
{
	struct watched *v = list_entry(w, struct watched, watcher);

	if (leads)
		leader_seen(v->of, v->group, (uint64_t)(uint32_t)partition_epoch(v->partition));
	else
		sim_trace("leads no more group=%llu", (unsigned long long)v->group);
}

/* What a start applied before anybody could watch: in a group of one voter the whole log counts. Up
 * to the last entry that holds records below the high watermark. */
static void fill_in(struct sim_node *n, uint64_t group, int64_t next_offset)
{
	struct store *s = sim_disk_of(&n->machine)->content;
	struct group_history *h = history_of(group);
	struct entry_key from = key_entry(group, h->last + 1), to = key_entry(group, UINT64_MAX);
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	struct entry *waiting[FILL_MAX];
	int count = 0;

	for (; store_iter_valid(i) && count < FILL_MAX; store_iter_step(i)) {
		struct entry_header head;
		struct slice payload = {0};

		if (entry_header_decode(store_iter_value(i), &head) != OK ||
			entry_next_offset(&head) > next_offset)
			break;
		(void)payload_get(s, store_iter_key(i), &payload);
		waiting[count++] = entry_of(
			group, get_u64be(store_iter_key(i).at + 8), &head, &payload);
		for (int k = 0; head.count > 0 && k < count; k++) {
			entry_seen(n->machine.id, waiting[k]);
			entry_unref(waiting[k]);
		}
		count = head.count > 0 ? 0 : count;
	}
	while (count > 0)
		entry_unref(waiting[--count]);
	must(store_iter_free(i) == OK);
}

/* A fetched state: entries up to it are not shown. */
static void on_replaced(struct watcher *w)
{
	list_entry(w, struct watched, watcher)->last_index = 0;
}

static void watch(struct eye *eye, struct partition *p)
{
	struct watched *v;

	if (partition_home(p) != eye->watcher.loop || map_get_u64(&eye->known, (uintptr_t)p))
		return;
	v = mem_new(sizeof *v);
	v->watcher.committed = on_committed;
	v->watcher.led = on_led;
	v->watcher.replaced = on_replaced;
	v->of = eye->of;
	v->life = eye->of->machine.life;
	v->group = partition_group(p);
	v->partition = p;
	list_init(&v->node);
	list_push_back(&check.watches, &v->node);
	map_put_u64(&eye->known, (uintptr_t)p, v);
	fill_in(v->of, v->group, partition_watch(p, &v->watcher));
	if (partition_leads(p))
		on_led(&v->watcher, true);
}

static void on_catalog(struct catalog_watcher *w, const struct catalog *c)
{
	struct eye *eye = list_entry(w, struct eye, watcher);

	if (catalog_version(c) == 0)
		return;
	if (catalog_meta(c) != NULL)
		watch(eye, catalog_meta(c));
	for (int i = 0; i < catalog_table_count(c); i++)
		watch(eye, catalog_table_at(c, i));
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *s = catalog_stream_at(c, i);

		for (int k = 0; k < s->partition_count; k++)
			watch(eye, s->partitions[k]);
	}
}

void check_wire(struct sim_node *n)
{
	if (check.watches.next == NULL)
		list_init(&check.watches);
	for (int i = 0; i < loops_count(n->loops); i++) {
		struct eye *eye = mem_new(sizeof *eye);

		eye->of = n;
		eye->watcher.loop = loops_at(n->loops, i);
		eye->watcher.changed = on_catalog;
		node_watch_catalog(n->node, &eye->watcher);
	}
}

void check_node_gone(struct sim_node *n)
{
	struct list *at, *next;

	for (at = check.watches.next; at && at != &check.watches; at = next) {
		next = at->next;
		if (list_entry(at, struct watched, node)->of == n)
			list_remove(at);
	}
}

/* --- the end */

struct digest {
	uint64_t hash;
	uint8_t keyspace;
	bool note; /* rows are told one by one */
};

static void digest_row(void *arg, struct bytes key, struct bytes value)
{
	struct digest *d = arg;

	if (d->note)
		sim_note("keyspace %u key %.*s (%zu bytes) value %08x (%zu bytes)", d->keyspace,
			(int)key.len, (const char *)key.at, key.len, crc32c(value), value.len);
	/* Walks come in order. */
	d->hash = (d->hash ^ crc32c(key)) * 0x100000001b3u + d->keyspace;
	d->hash = (d->hash ^ crc32c(value)) * 0x100000001b3u + value.len;
}

struct look {
	struct partition *partition;
	bool note;
	uint64_t hash;
};

static void look_at_rows(void *arg)
{
	struct look *l = arg;
	struct digest d = {.hash = 1, .note = l->note};

	for (int k = 1; k < KEYSPACES; k++) {
		d.keyspace = (uint8_t)k;
		if (partition_walk_rows(l->partition, d.keyspace, digest_row, &d) != OK)
			sim_fail("rows of group %llu cannot be read",
				(unsigned long long)partition_group(l->partition));
	}
	l->hash = d.hash;
}

static uint64_t rows_hash(struct watched *v, bool note)
{
	struct look l = {.partition = v->partition, .note = note};

	loops_stand_still(v->of->loops, look_at_rows, &l);
	return l.hash;
}

/* Two replicas of a group. */
static bool pair_agrees(struct watched *a, struct watched *b, char *why, size_t why_size)
{
	uint64_t group = a->group;

	if (partition_high_watermark(a->partition) != partition_high_watermark(b->partition)) {
		snprintf(why, why_size, "group %llu: n%d is at offset %lld, n%d at %lld",
			(unsigned long long)group, a->of->machine.id,
			(long long)partition_high_watermark(a->partition), b->of->machine.id,
			(long long)partition_high_watermark(b->partition));
		return false;
	}
	/* Also where nothing was seen since the start: it may lack what others have. */
	uint64_t applied = consensus_applied(a->partition->consensus);
	uint64_t other = consensus_applied(b->partition->consensus);
	if (applied != other) {
		snprintf(why, why_size, "group %llu: n%d is at index %llu, n%d at %llu",
			(unsigned long long)group, a->of->machine.id, (unsigned long long)applied,
			b->of->machine.id, (unsigned long long)other);
		return false;
	}
	if (rows_hash(a, false) != rows_hash(b, false)) {
		(void)rows_hash(a, true);
		(void)rows_hash(b, true);
		snprintf(why, why_size, "group %llu: rows of n%d and n%d differ",
			(unsigned long long)group, a->of->machine.id, b->of->machine.id);
		return false;
	}
	return true;
}

static bool led_once(struct watched *v, char *why, size_t why_size)
{
	int leaders = 0;

	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		struct watched *o = list_entry(n, struct watched, node);

		if (o->group == v->group && partition_leads(o->partition))
			leaders++;
	}
	if (leaders == 1)
		return true;
	snprintf(why, why_size, "group %llu: %d leaders", (unsigned long long)v->group, leaders);
	return false;
}

/* A partition that has been deleted is nobody's business any more. */
static bool in_force(const struct watched *v)
{
	const struct catalog *c = node_catalog(v->of->node, loops_at(v->of->loops, 0));

	if (v->group < 1024)
		return true;
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *s = catalog_stream_at(c, i);

		for (int k = 0; k < s->partition_count; k++)
			if (s->partitions[k] == v->partition)
				return true;
	}
	return false;
}

/* A replica whose state is being fetched has none to compare. */
static bool is_whole(struct watched *v, char *why, size_t why_size)
{
	if (!partition_attached(v->partition) || !partition_stateless(v->partition))
		return true;
	snprintf(why, why_size, "group %llu: n%d fetches it", (unsigned long long)v->group,
		v->of->machine.id);
	return false;
}

bool check_converged(struct sim_node *nodes, int count, char *why, size_t why_size)
{
	for (int i = 0; i < count; i++) {
		if (nodes[i].phase == SIM_RUNNING && broker_ready(nodes[i].broker))
			continue;
		snprintf(why, why_size, "n%d is not ready", nodes[i].machine.id);
		return false;
	}
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);

		if (in_force(v) && (!led_once(v, why, why_size) || !is_whole(v, why, why_size)))
			return false;
	}
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		struct watched *a = list_entry(n, struct watched, node);

		for (struct list *m = n->next; m != &check.watches && in_force(a); m = m->next) {
			struct watched *b = list_entry(m, struct watched, node);

			if (a->group != b->group || !in_force(b) ||
				!partition_attached(a->partition) ||
				!partition_attached(b->partition))
				continue;
			if (!pair_agrees(a, b, why, why_size))
				return false;
		}
	}
	return true;
}

struct partition *check_pick_leader(uint64_t below, struct sim_node **on)
{
	struct watched *leads[256];
	int count = 0;

	for (struct list *n = check.watches.next; n && n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);

		if (v->group < below && v->of->phase == SIM_RUNNING &&
			partition_leads(v->partition) && count < 256)
			leads[count++] = v;
	}
	if (count == 0)
		return NULL;
	count = (int)sim_pick(0, count - 1);
	*on = leads[count]->of;
	return leads[count]->partition;
}

static bool has_votes(const struct watched *v)
{
	struct consensus_peer peers[16];
	int count = consensus_peers(v->partition->consensus, peers, 16), voters = 0;

	for (int i = 0; i < count && i < 16; i++)
		voters += peers[i].role == MEMBER_VOTER;
	return voters >= 3 && !consensus_changing(v->partition->consensus);
}

bool check_bears_loss(void)
{
	char why[64];

	for (struct list *n = check.watches.next; n && n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);

		if (!in_force(v))
			continue;
		if (!led_once(v, why, sizeof why))
			return false;
		if (partition_leads(v->partition) && !has_votes(v))
			return false;
	}
	return true;
}

/* Who leads by the newest term known: an older one may not have heard. */
static bool leads_newest(const struct watched *v)
{
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		const struct watched *o = list_entry(n, struct watched, node);

		if (o->group == v->group &&
			partition_epoch(o->partition) > partition_epoch(v->partition))
			return false;
	}
	return partition_leads(v->partition);
}

/* Some node that had it has it no more. One that is cut off has not heard of that, and may lead it
 * for a while. */
static bool is_deleted(uint64_t group)
{
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		const struct watched *v = list_entry(n, struct watched, node);

		if (v->group == group && !in_force(v))
			return true;
	}
	return false;
}

/* The catalogue's own group lets it go afterwards. */
void check_let_go(int node)
{
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);
		struct consensus_peer peers[16];
		int count;

		if (v->group == META_GROUP_ID || !leads_newest(v) || is_deleted(v->group))
			continue;
		count = consensus_peers(v->partition->consensus, peers, 16);
		for (int i = 0; i < count && i < 16; i++)
			if ((int)(peers[i].replica >> 32) == node && peers[i].role == MEMBER_VOTER)
				sim_fail("n%d was removed, group %llu counts on its vote", node,
					(unsigned long long)v->group);
	}
}

static bool payload_is_there(struct store *s, struct bytes key, const struct entry_header *h)
{
	struct slice got;
	bool same;

	if (!payload_get(s, key, &got))
		return false;
	same = got.bytes.len == h->payload_bytes && crc32c(got.bytes) == h->payload_crc;
	slice_unref(&got);
	return same;
}

/* What the store of a machine holds of the groups' logs. */
static void compare_store(struct sim_node *n)
{
	static const uint8_t low[16], high[] = {255, 255, 255, 255, 255, 255, 255, 255, 255};
	struct store *s = sim_disk_of(&n->machine)->content;
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_IDX, bytes_of(low, sizeof low), bytes_of(high, sizeof high), true);

	for (; store_iter_valid(i); store_iter_step(i)) {
		struct bytes key = store_iter_key(i);
		struct group_history *h = history_of(get_u64be(key.at));
		uint64_t index = get_u64be(key.at + 8);
		struct entry_header head;

		if (entry_header_decode(store_iter_value(i), &head) != OK)
			sim_fail("n%d: an idx row that cannot be read", n->machine.id);
		if (index > h->last || h->entries[index].term == 0)
			continue; /* not committed */
		if (head.flags & ENTRY_TRIMMED)
			continue;
		history_compare(n->machine.id, h->group, index, &h->entries[index], &head);
		if (head.payload_bytes > 0 && !payload_is_there(s, key, &head))
			sim_fail("n%d group %llu index %llu: its payload is not what it was",
				n->machine.id, (unsigned long long)h->group,
				(unsigned long long)index);
	}
	must(store_iter_free(i) == OK);
}

/* What a replica holds of producers' records: those of the history, and each key's newest. */
static void records_compare(int node, const struct entry *e)
{
	struct group_history *h = history_of(e->group);
	struct change_batches w;
	const struct slice *holder;
	struct batch b;

	check.compacted += (e->head.flags & ENTRY_COMPACTED) != 0;
	change_batches_init(&w, e);
	while (change_batches_next(&w, &b, &holder) == OK) {
		struct batch_walk walk;
		struct record r;

		must(batch_walk_init(&walk, &b, BATCH_INFLATED_MAX) == OK);
		while (batch_walk_next(&walk, &r) == OK) {
			int64_t offset = b.base_offset + r.offset_delta;
			struct check_value v;

			if (!check_value_read(r.value, &v) || v.producer == 0)
				continue;
			if (*op_at(h, offset) != v.op)
				sim_fail("n%d group %llu offset %lld: op %llu, where op %llu was",
					node, (unsigned long long)e->group, (long long)offset,
					(unsigned long long)v.op,
					(unsigned long long)*op_at(h, offset));
			newest_of(e->group, v.topic)->found = offset;
		}
		batch_walk_fini(&walk);
	}
}

static void compare_newest(const struct watched *v)
{
	struct store *s = sim_disk_of(&v->of->machine)->content;
	uint64_t last = history_of(v->group)->last;
	struct entry_key from = key_entry(v->group, 0), to = key_entry(v->group, last + 1);
	struct store_iter *i = store_iter_new(
		s, NULL, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	struct newest *n;

	for (uint32_t at = 0; (n = map_next(&check.newest, &at)) != NULL;)
		n->found = -1;
	for (; store_iter_valid(i); store_iter_step(i)) {
		struct entry_header head;
		struct slice payload = {0};
		struct entry *e;

		if (entry_header_decode(store_iter_value(i), &head) != OK || head.count == 0 ||
			(head.flags & ENTRY_TRIMMED))
			continue;
		(void)payload_get(s, store_iter_key(i), &payload);
		e = entry_of(v->group, get_u64be(store_iter_key(i).at + 8), &head, &payload);
		records_compare(v->of->machine.id, e);
		entry_unref(e);
	}
	must(store_iter_free(i) == OK);
	for (uint32_t at = 0; (n = map_next(&check.newest, &at)) != NULL;)
		if (n->group == v->group && n->found != n->offset)
			sim_fail("n%d group %llu: the newest of key %u is at %lld, found at %lld",
				v->of->machine.id, (unsigned long long)n->group, n->key,
				(long long)n->offset, (long long)n->found);
}

uint64_t check_compacted(void)
{
	return check.compacted;
}

void check_dump(void)
{
	for (struct list *n = check.watches.next; n && n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);

		if (in_force(v))
			sim_trace("group=%llu on n%d: leads=%d leader=n%u epoch=%d attached=%d "
				  "index=%llu high=%lld",
				(unsigned long long)v->group, v->of->machine.id,
				partition_leads(v->partition), partition_leader(v->partition),
				partition_epoch(v->partition), partition_attached(v->partition),
				(unsigned long long)v->last_index,
				(long long)partition_high_watermark(v->partition));
	}
}

void check_final(struct sim_node *nodes, int count)
{
	for (uint64_t i = 1; i <= check.op_count; i++) {
		const struct op *o = &check.ops[i];

		if (o->acked && *op_at(history_of(o->group), o->offset) != i)
			sim_fail("op %llu was acknowledged at %llu/%lld, where op %llu is",
				(unsigned long long)i, (unsigned long long)o->group,
				(long long)o->offset,
				(unsigned long long)*op_at(history_of(o->group), o->offset));
	}
	for (struct list *n = check.watches.next; n != &check.watches; n = n->next) {
		struct watched *v = list_entry(n, struct watched, node);

		if (in_force(v) && partition_attached(v->partition) && v->last_index != 0 &&
			v->last_index < history_of(v->group)->last)
			sim_fail("n%d group %llu ends at %llu; %llu had been applied",
				v->of->machine.id, (unsigned long long)v->group,
				(unsigned long long)v->last_index,
				(unsigned long long)history_of(v->group)->last);
		if (in_force(v) && partition_attached(v->partition))
			compare_newest(v);
	}
	for (int i = 0; i < count; i++)
		compare_store(&nodes[i]);
}
