/* Following the log of another node, where there is no replica. The node that leads is told from
 * where; it sends entries as they commit, within a credit of bytes, and its high watermark. What it
 * had to leave out is a gap: the watchers see that by the offsets of the entry behind it, and read
 * it. If what was left out is the end of the log, there is no such entry: then the last one is
 * fetched from here. Who only waits for the log to grow follows without entries. */
#include "cluster/remote.h"

enum {
	CREDIT_BYTES = 1 << 20,
	ALIVE_MS = 2000,  /* between signs of life */
	SILENT_MS = 5000, /* of the leader: begins anew */
	BEHIND_MS = 100,  /* until the end of the log is fetched */
};

struct following {
	uint64_t stream, term;
	uint32_t to;  /* node; 0: not begun */
	bool entries; /* they are sent */
	bool watched; /* they are wanted */
	bool pulling;
	int64_t seen; /* next offset the watchers have not been shown */
	int64_t heard_ms, said_ms, behind_ms;
	uint32_t used; /* of the credit */
	struct record_read pull;
};

static bool is_watched(const struct partition *p)
{
	for (struct list *n = p->watchers.next; n != &p->watchers; n = n->next)
		if (!list_entry(n, struct watcher, node)->local)
			return true;
	return false;
}

int64_t remote_follow_seen(const struct partition *p)
{
	if (p->following == NULL || !p->following->entries)
		return partition_high_watermark(p);
	return p->following->seen;
}

static void say(struct partition *p, uint8_t flags, uint32_t credit)
{
	struct following *f = p->following;
	struct follow m = {f->stream, flags, f->seen, credit};
	struct slice body;
	struct buf b;

	buf_init(&b, 64);
	follow_write(&b, &m);
	body = buf_share(&b);
	buf_fini(&b);
	f->said_ms = loop_now_ms(p->loop);
	(void)peers_send(
		p->options.peers, f->to, LANE_HIGH, PEER_FOLLOW, p->options.group, &body, 1);
}

static void begin(struct partition *p)
{
	struct following *f = p->following;

	f->stream++;
	f->to = remote_leader(p);
	f->term = p->leader_term;
	f->entries = f->watched;
	f->used = 0;
	f->heard_ms = loop_now_ms(p->loop);
	f->behind_ms = 0;
	say(p, (uint8_t)(FOLLOW_START | (f->entries ? FOLLOW_ENTRIES : 0)), CREDIT_BYTES);
}

static void end(struct partition *p)
{
	struct following *f = p->following;

	if (f->to != 0 && p->home->peers != NULL)
		say(p, FOLLOW_STOP, 0);
	f->to = 0;
	if (f->pulling)
		return;
	mem_free(f);
	p->following = NULL;
}

static bool wanted(const struct partition *p)
{
	return p->phase == PARTITION_OPEN && p->consensus == NULL && p->home->peers != NULL &&
		(is_watched(p) || !list_empty(&p->waits));
}

void remote_follow_changed(struct partition *p)
{
	struct following *f = p->following;
	uint32_t leader = remote_leader(p);

	if (!wanted(p)) {
		if (f != NULL)
			end(p);
		return;
	}
	if (f == NULL) {
		f = p->following = mem_new(sizeof *f);
		f->seen = partition_high_watermark(p);
		f->stream = (uint64_t)loop_now_wall_ms(p->loop) << 16;
	}
	if (is_watched(p) && !f->watched) /* what is older was promised to nobody */
		f->seen = partition_high_watermark(p);
	f->watched = is_watched(p);
	if (leader == 0 || !peer_connected(p->options.peers, leader))
		return;
	if (f->to != leader || f->term != p->leader_term || f->entries != f->watched)
		begin(p);
}

/* --- what comes --- */

static void show(struct partition *p, struct following *f, struct entry *e)
{
	int64_t next = entry_next_offset(&e->head);

	if (next <= f->seen)
		return;
	f->seen = next;
	f->behind_ms = 0;
	partition_moved(p, next);
	metric_add(loop_cells(p->loop), &node_metrics, M_FOLLOWED, 1);
	partition_show(p, e);
}

static void grown(struct partition *p)
{
	if (!list_empty(&p->point_waits))
		remote_point_grown(p);
	reads_fire_waits(p, false);
}

static void take(struct partition *p, struct following *f, struct rd *r, struct slice body)
{
	struct entry *e;

	if (records_entry_read(r, body, p->options.group, &e) != OK || rd_done(r) != OK)
		return; /* a gap, read by whoever needs it */
	f->used += e->head.payload_bytes;
	show(p, f, e);
	entry_unref(e);
}

void remote_on_feed(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	const struct partition_finder *finder = arg;
	struct partition *p = finder->find(finder->arg, group);
	struct following *f = p != NULL ? p->following : NULL;
	struct rd r = rd_over(body.bytes);
	struct feed m;

	feed_read(&r, &m);
	if (r.err != OK || f == NULL || f->to != from || f->stream != m.stream || !wanted(p))
		return;
	f->heard_ms = loop_now_ms(p->loop);
	if (m.first_offset > partition_first_offset(p))
		atomic_store_explicit(&p->first_offset, m.first_offset, memory_order_release);
	partition_moved(p, m.high_watermark);
	if (m.entry)
		take(p, f, &r, body);
	if (f->used >= CREDIT_BYTES / 2) {
		say(p, 0, f->used);
		f->used = 0;
	}
	grown(p);
}

/* --- the end of the log that did not come --- */

static void pulled(struct record_read *r)
{
	struct following *f = list_entry(r, struct following, pull);
	struct partition *p = r->from;

	f->pulling = false;
	if (r->err == OK && f->to != 0)
		for (int i = 0; i < r->count; i++)
			show(p, f, r->entries[i]);
	record_read_fini(r);
	f->behind_ms = 0;
	if (f->to == 0 && !wanted(p))
		end(p);
	else
		grown(p);
	partition_unref(p);
}

static void pull(struct partition *p, struct following *f)
{
	partition_ref(p);
	f->pulling = true;
	f->pull = (struct record_read){.from = p,
		.offset = partition_high_watermark(p) - 1,
		.bytes_max = 1,
		.done = pulled};
	partition_read_records(&f->pull);
}

void remote_follow_tick(struct partition *p, int64_t now_ms)
{
	struct following *f = p->following;

	if (f->to == 0) {
		remote_follow_changed(p);
		return;
	}
	if (now_ms - f->heard_ms >= SILENT_MS && peer_connected(p->options.peers, f->to))
		begin(p);
	else if (now_ms - f->said_ms >= ALIVE_MS)
		say(p, 0, 0);
	if (!f->entries || f->pulling || f->seen >= partition_high_watermark(p))
		return;
	if (f->behind_ms == 0)
		f->behind_ms = now_ms;
	else if (now_ms - f->behind_ms >= BEHIND_MS)
		pull(p, f);
}

void remote_follow_fini(struct partition *p)
{
	mem_free(p->following);
}
