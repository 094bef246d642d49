/* Who leads, between nodes. A node that has become the ready leader of groups tells all nodes it is
 * connected with, in one frame per turn, and a node it gets connected with of all it leads; now and
 * then everything is told anew, for a frame may be lost. Replicas hear it from Raft earlier,
 * mostly; partitions without a replica know it from here only.
 *
 * A frame reaches the loop of the group it names; what it says of groups of other loops (nodes may
 * have different numbers of loops) is passed on to them. */
#include "cluster/remote.h"
#include "server/base/log.h"

enum {
	LEADS_AGAIN_MS = 1000, /* a node may have heard of it before it knew the partition */
	LEADS_BYTES_MAX = 1 << 20,
	NODES_MAX = 1024,
};

/* --- telling --- */

static bool leads_now(const struct partition *p)
{
	return partition_local(p) && consensus_ready(p->consensus);
}

static void tell(struct partition_home *h, uint32_t node, struct buf *b)
{
	struct slice body = buf_share(b);
	uint64_t group;

	if (body.bytes.len == 0)
		return;
	group = get_u64be(body.bytes.at);
	(void)peers_send(h->peers, node, LANE_HIGH, PEER_LEADS, group, &body, 1);
}

static void gather(struct partition_home *h, struct buf *b, bool all)
{
	for (int i = 0; i < h->count; i++) {
		struct partition *p = h->all[i];

		if (!leads_now(p) || (!all && p->lead_told == p->term))
			continue;
		p->lead_told = p->term;
		leads_write(
			b, &(struct lead){p->options.group, p->term, partition_high_watermark(p)});
	}
}

static void tell_all(struct partition_home *h, bool all)
{
	struct buf b;

	buf_init(&b, LEADS_BYTES_MAX);
	gather(h, &b, all);
	for (int i = 0; i < h->node_count; i++)
		tell(h, h->nodes[i], &b);
	buf_fini(&b);
}

static void leads_turn(struct loop_hook *hook)
{
	tell_all(list_entry(hook, struct partition_home, leads_hook), false);
}

void remote_home_tick(struct partition_home *h, int64_t now_ms)
{
	if (h->peers == NULL || now_ms < h->leads_again_ms)
		return;
	h->leads_again_ms = now_ms + LEADS_AGAIN_MS;
	tell_all(h, true);
}

/* --- who is there --- */

static int node_at(const struct partition_home *h, uint32_t node)
{
	int i = 0;

	while (i < h->node_count && h->nodes[i] != node)
		i++;
	return i;
}

static void node_up(struct partition_home *h, uint32_t node)
{
	struct buf b;

	if (node_at(h, node) == h->node_count && h->node_count < NODES_MAX) {
		if (h->node_count == h->node_room) {
			h->node_room = h->node_room ? h->node_room * 2 : 8;
			h->nodes = mem_resize(h->nodes, (size_t)h->node_room * sizeof *h->nodes);
			must(h->nodes != NULL);
		}
		h->nodes[h->node_count++] = node;
	}
	buf_init(&b, LEADS_BYTES_MAX);
	gather(h, &b, true);
	tell(h, node, &b);
	buf_fini(&b);
}

static void peer_changed(struct peer_watcher *w, uint32_t node, bool up)
{
	struct partition_home *h = list_entry(w, struct partition_home, peer_watcher);
	int at = node_at(h, node);

	if (up)
		node_up(h, node);
	else if (at < h->node_count)
		h->nodes[at] = h->nodes[--h->node_count];
	for (int i = 0; i < h->count; i++) {
		struct partition *p = h->all[i];
		if (!up && partition_local(p))
			consensus_lost(p->consensus, node);
		if (up && remote_leader(p) == node)
			remote_changed(p);
	}
}

void remote_home_init(struct partition_home *h)
{
	loop_hook_init(&h->leads_hook, leads_turn);
}

void partition_home_connect(struct partition_home *h, struct peers *peers)
{
	must(h->peers == NULL);
	h->peers = peers;
	h->peer_watcher.loop = h->loop;
	h->peer_watcher.changed = peer_changed;
	peers_watch(peers, &h->peer_watcher);
}

void remote_home_stop(struct partition_home *h)
{
	loop_hook_cancel(&h->leads_hook);
	if (h->peers != NULL)
		peers_unwatch(h->peers, &h->peer_watcher);
	h->peers = NULL;
}

/* --- hearing --- */

struct heard { /* for the groups of another loop */
	struct loop_msg msg;
	const struct partition_finder *finder;
	uint32_t from;
	struct loop *loop; /* whose groups these are */
	struct slice body;
};

static void hear(const struct partition_finder *f, uint32_t from, struct bytes body)
{
	struct rd r = rd_over(body);
	struct loop *here = loop_here();
	uint64_t loops = (uint64_t)loops_count(loop_all(here));
	struct lead l;

	while (leads_read(&r, &l)) {
		struct partition *p;

		if (l.group % loops != (uint64_t)loop_index(here))
			continue;
		p = f->find(f->arg, l.group);
		if (p == NULL)
			continue;
		if (p->consensus == NULL && l.term >= p->heard_term)
			partition_moved(p, l.high_watermark);
		partition_heard(p, from, l.term);
	}
}

static void heard_elsewhere(struct loop_msg *m)
{
	struct heard *h = list_entry(m, struct heard, msg);

	hear(h->finder, h->from, h->body.bytes);
	slice_unref(&h->body);
	mem_free(h);
}

static void on_leads(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	const struct partition_finder *f = arg;
	struct rd r = rd_over(body.bytes);
	struct loops *loops = loop_all(loop_here());
	uint64_t count = (uint64_t)loops_count(loops);
	bool wanted[64] = {false};
	struct lead lead;

	(void)group;
	while (leads_read(&r, &lead))
		wanted[lead.group % count % 64] = true;
	for (int i = 0; i < (int)count; i++) {
		struct loop *l = loops_at(loops, i);
		struct heard *h;

		if (!wanted[i % 64])
			continue;
		if (l == loop_here()) {
			hear(f, from, body.bytes);
			continue;
		}
		h = mem_new(sizeof *h);
		h->finder = f;
		h->from = from;
		h->body = slice_ref(body);
		h->msg.run = heard_elsewhere;
		loop_post(l, &h->msg);
	}
}

static void on_raft(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	const struct partition_finder *f = arg;
	struct partition *p = f->find(f->arg, group);
	enum err e;

	if (p == NULL || p->phase != PARTITION_OPEN || p->consensus == NULL || p->detaching)
		return;
	e = consensus_receive(p->consensus, body);
	if (e != OK)
		LOG(LOG_WARN, AREA_CLUSTER, "raft_message_bad", "group=%llu from=%u err=\"%s\"",
			(unsigned long long)group, from, err_text(e));
}

/* --- calls --- */

void remote_call(struct partition *p, struct peer_call *c, enum peer_op op, struct buf *b)
{
	struct slice body = buf_share(b);

	c->to = remote_leader(p);
	c->op = op;
	c->group = p->options.group;
	c->parts = &body;
	c->part_count = 1;
	c->lane = LANE_HIGH;
	if (c->timeout_ms <= 0)
		c->timeout_ms = REMOTE_WAIT_MS;
	peer_call(p->options.peers, c);
	buf_fini(b);
}

void remote_answer(struct peer_request *r, struct buf *b)
{
	struct slice body = buf_share(b);
	enum err e = b->err;

	buf_fini(b);
	if (e != OK)
		slice_unref(&body);
	peer_answer(r, LANE_HIGH, e, &body, e == OK ? 1 : 0);
}

struct partition *remote_asked(void *arg, struct peer_request *r)
{
	const struct partition_finder *f = arg;
	struct partition *p = f->find(f->arg, r->group);

	if (p != NULL && p->phase == PARTITION_OPEN)
		return p;
	peer_answer(r, LANE_HIGH, ERR_NOTLEADER, NULL, 0);
	return NULL;
}

void partitions_serve(struct peers *peers, const struct partition_finder *f)
{
	static const struct {
		enum peer_op op;
		peer_server serve;
	} ops[] = {{PEER_OP_PROPOSE, remote_propose_serve}, {PEER_OP_ROWS, remote_rows_serve},
		{PEER_OP_RECORDS, remote_records_serve}, {PEER_OP_SEEK, remote_seek_serve},
		{PEER_OP_POINT, remote_point_serve}, {PEER_OP_INFO, remote_info_serve}};
	union { /* handlers take an argument that they do not change */
		const struct partition_finder *in;
		void *out;
	} arg = {.in = f};

	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
		peers_serve(peers, ops[i].op, ops[i].serve, arg.out);
	peers_handle(peers, PEER_RAFT, on_raft, arg.out);
	peers_handle(peers, PEER_LEADS, on_leads, arg.out);
	peers_handle(peers, PEER_FOLLOW, remote_on_follow, arg.out);
	peers_handle(peers, PEER_FEED, remote_on_feed, arg.out);
}

/* --- of one partition --- */

void remote_init(struct partition *p)
{
	list_init(&p->parked);
	list_init(&p->points);
	list_init(&p->point_waits);
}

void remote_changed(struct partition *p)
{
	if (p->phase != PARTITION_OPEN)
		return;
	remote_read_retry(p);
	if (p->home->peers == NULL)
		return;
	if (leads_now(p) && p->lead_told != p->term)
		loop_hook_want(p->loop, STAGE_DELIVER, &p->home->leads_hook);
	remote_propose_changed(p);
	remote_follow_changed(p);
}

void remote_tick(struct partition *p, int64_t now_ms)
{
	remote_propose_tick(p, now_ms);
	if (!list_empty(&p->parked))
		remote_read_retry(p);
	remote_point_tick(p, now_ms);
	if (p->following != NULL)
		remote_follow_tick(p, now_ms);
	if (p->feeding != NULL)
		remote_feed_tick(p, now_ms);
}

void remote_close(struct partition *p)
{
	remote_propose_close(p);
	remote_read_close(p);
	remote_point_close(p);
	remote_follow_changed(p);
	remote_feed_fini(p);
}

void remote_fini(struct partition *p)
{
	remote_propose_fini(p);
	remote_guests_fini(p);
	remote_follow_fini(p);
	remote_feed_fini(p);
}
