/* Those who follow the log of this replica. Entries go to each as they are applied, while it has
 * credit and its connection has room for bulk; after that what the tail in memory still has is sent
 * once it may be again, and what it has not any more is left out. A high watermark goes along with
 * everything and, at the next tick, without anything. */
#include "cluster/remote.h"

enum {
	FOLLOWERS_MAX = 1024,
	MARK_MS = 1000,  /* at least that often */
	GONE_MS = 15000, /* without a sign of life */
};

struct follower {
	struct list node;
	struct peer_room room;
	struct partition *p;
	uint32_t id;
	uint64_t stream;
	bool entries, waiting; /* waiting: for room */
	int64_t credit;
	int64_t sent; /* next offset to be sent */
	int64_t told; /* high watermark */
	int64_t heard_ms, told_ms;
};

struct feeding {
	struct list followers;
	int count;
};

static void send_feed(struct partition *p, struct follower *f, const struct entry *e)
{
	struct feed m = {f->stream, p->term, partition_first_offset(p), partition_high_watermark(p),
		e != NULL};
	uint32_t count = e != NULL ? e->part_count : 0;
	struct slice *parts = mem_new((1 + (size_t)count) * sizeof *parts);
	struct buf b;

	buf_init(&b, 256);
	feed_write(&b, &m);
	if (e != NULL)
		records_entry_write(&b, e);
	parts[0] = buf_share(&b);
	for (uint32_t i = 0; i < count; i++)
		parts[i + 1] = slice_ref(e->parts[i]);
	f->told = m.high_watermark;
	f->told_ms = loop_now_ms(p->loop);
	(void)peers_send(p->options.peers, f->id, e != NULL ? LANE_BULK : LANE_HIGH, PEER_FEED,
		p->options.group, parts, (int)count + 1);
	buf_fini(&b);
	mem_free(parts);
}

static void room(struct peer_room *w);

static bool may_send(struct partition *p, struct follower *f)
{
	if (!f->entries || f->credit <= 0 || f->waiting)
		return false;
	f->room.room = room;
	f->waiting = !peer_bulk_room(p->options.peers, f->id, &f->room);
	return !f->waiting;
}

static void send_entry(struct partition *p, struct follower *f, const struct entry *e)
{
	f->credit -= e->head.payload_bytes;
	f->sent = entry_next_offset(&e->head);
	metric_add(loop_cells(p->loop), &node_metrics, M_FED, 1);
	send_feed(p, f, e);
}

/* From where it is; what is not in memory is left out. */
static void catch_up(struct partition *p, struct follower *f)
{
	while (f->sent < p->applied_offset && may_send(p, f)) {
		const struct entry *e = plog_cached_at(p->log, f->sent);

		if (e == NULL || e->head.count == 0 || e->head.base_offset >= p->applied_offset)
			break;
		send_entry(p, f, e);
	}
}

static void room(struct peer_room *w)
{
	struct follower *f = list_entry(w, struct follower, room);

	f->waiting = false;
	if (partition_local(f->p))
		catch_up(f->p, f);
}

void remote_feed_entry(struct partition *p, struct entry *e)
{
	struct list *all = &p->feeding->followers;

	for (struct list *n = all->next, *next; n != all; n = next) {
		struct follower *f = list_entry(n, struct follower, node);

		next = n->next;
		if (!f->entries)
			send_feed(p, f, NULL);
		else if (f->sent == e->head.base_offset && may_send(p, f))
			send_entry(p, f, e);
	}
}

static void follower_free(struct partition *p, struct follower *f)
{
	if (f->waiting)
		peer_room_cancel(&f->room);
	list_remove(&f->node);
	p->feeding->count--;
	mem_free(f);
}

void remote_feed_fini(struct partition *p)
{
	if (p->feeding == NULL)
		return;
	while (!list_empty(&p->feeding->followers))
		follower_free(p, list_entry(p->feeding->followers.next, struct follower, node));
	mem_free(p->feeding);
	p->feeding = NULL;
}

void remote_feed_tick(struct partition *p, int64_t now_ms)
{
	struct list *all = &p->feeding->followers;

	if (!partition_local(p))
		return;
	for (struct list *n = all->next, *next; n != all; n = next) {
		struct follower *f = list_entry(n, struct follower, node);

		next = n->next;
		if (now_ms - f->heard_ms >= GONE_MS) {
			follower_free(p, f);
			continue;
		}
		if (f->entries && f->sent < p->applied_offset)
			catch_up(p, f);
		if (f->told < partition_high_watermark(p) || now_ms - f->told_ms >= MARK_MS)
			send_feed(p, f, NULL);
	}
	if (list_empty(all))
		remote_feed_fini(p);
}

static struct follower *follower_of(struct partition *p, uint32_t from)
{
	if (p->feeding == NULL)
		return NULL;
	for (struct list *n = p->feeding->followers.next; n != &p->feeding->followers; n = n->next)
		if (list_entry(n, struct follower, node)->id == from)
			return list_entry(n, struct follower, node);
	return NULL;
}

static struct follower *follower_new(struct partition *p, uint32_t from)
{
	struct follower *f;

	if (p->feeding == NULL) {
		p->feeding = mem_new(sizeof *p->feeding);
		list_init(&p->feeding->followers);
	}
	if (p->feeding->count == FOLLOWERS_MAX)
		return NULL;
	f = mem_new(sizeof *f);
	f->p = p;
	f->id = from;
	list_init(&f->room.node);
	list_push_back(&p->feeding->followers, &f->node);
	p->feeding->count++;
	return f;
}

static void start(struct follower *f, const struct follow *m)
{
	f->stream = m->stream;
	f->entries = (m->flags & FOLLOW_ENTRIES) != 0;
	f->sent = m->offset > 0 ? m->offset : 0;
	f->credit = 0;
	f->told = -1;
	f->told_ms = 0;
}

void remote_on_follow(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	const struct partition_finder *finder = arg;
	struct partition *p = finder->find(finder->arg, group);
	struct follower *f;
	struct follow m;

	if (p == NULL || p->phase != PARTITION_OPEN || !partition_local(p) ||
		follow_read(body.bytes, &m) != OK)
		return;
	f = follower_of(p, from);
	if (f == NULL && (m.flags & FOLLOW_START))
		f = follower_new(p, from);
	if (f == NULL)
		return;
	f->heard_ms = loop_now_ms(p->loop);
	if (m.flags & FOLLOW_START)
		start(f, &m);
	if (f->stream != m.stream)
		return;
	if (m.flags & FOLLOW_STOP) {
		follower_free(p, f);
		return;
	}
	f->credit += m.credit;
	if (f->credit > UINT32_MAX)
		f->credit = UINT32_MAX;
	catch_up(p, f);
	if (f->told < partition_high_watermark(p))
		send_feed(p, f, NULL);
}
