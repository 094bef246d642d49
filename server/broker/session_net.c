/* Between nodes: telling one that a client has come elsewhere, and leases. Both are calls of two
 * lines each; what is at stake is decided by rows. A fence acquires the name as a client that comes
 * to this node would: whoever has it lets go, writes its cursor, and then the answer leaves. It is
 * meant for an epoch: one that comes late does not reach who has come here since.
 *
 * A node's lease in a table holds for `session.lease` from when it last asked the table's leader
 * and that said yes, be it for the lease or for a session. Leaders keep one time per node, not per
 * table: a node they have heard of lives. The first loop asks and is asked. Bodies: a fence: boot
 * 8, epoch 8, client id; a lease: boot 8, groups 8 each, and in the answer those that are led
 * there.
 */
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/session_priv.h"

enum { FENCE_MS = 1000, RENEWALS_PER_LEASE = 5, LEASE_CALLS_MAX = 64, ACK_TICK_MS = 100 };

static bool peers_alone(void *arg)
{
	return node_alone(arg);
}
static void peers_call(void *arg, struct peer_call *c)
{
	peer_call(node_peers(arg), c);
}
static void peers_answer(struct peer_request *r, enum err e, struct slice body)
{
	peer_answer(r, LANE_HIGH, e, &body, body.bytes.len > 0);
}
static const struct session_net net_of_peers = {peers_alone, peers_call, peers_answer};

void session_net_init(struct sessions *all, struct node *n)
{
	struct peers *peers = node_peers(n);
	all->net = &net_of_peers;
	all->net_arg = n;
	all->self = (struct session_owner){node_id(n), node_boot(n)};
	if (peers == NULL)
		return;
	peers_serve(peers, PEER_OP_FENCE, session_serve_fence, all);
	peers_serve(peers, PEER_OP_LEASE, session_serve_lease, all);
}

/* Fences */

enum err session_fence(struct sessions *all, struct peer_call *c, struct partition *table,
	struct session_owner owner, uint64_t epoch, struct bytes id)
{
	uint8_t head[16];
	struct buf body;
	put_u64be(head, owner.boot);
	put_u64be(head + 8, epoch);
	buf_init(&body, sizeof head + UINT16_MAX);
	buf_add(&body, bytes_of(head, sizeof head));
	buf_add(&body, id);
	enum err e = body.err;
	struct slice part = buf_share(&body);
	buf_fini(&body);
	if (e != OK) {
		slice_unref(&part);
		return e;
	}
	void (*done)(struct peer_call *) = c->done;
	*c = (struct peer_call){.to = owner.node,
		.op = PEER_OP_FENCE,
		.group = partition_group(table),
		.parts = &part,
		.part_count = 1,
		.lane = LANE_HIGH,
		.timeout_ms = FENCE_MS,
		.done = done};
	all->net->call(all->net_arg, c);
	return OK;
}

struct fencing { /* a fence that has come in */
	struct claim claim;
	struct sessions *all;
	struct peer_request *request;
	uint8_t id[];
};

static void fence_answer(struct fencing *f)
{
	struct peer_request *r = f->request;
	f->request = NULL;
	if (r != NULL)
		f->all->net->answer(r, OK, (struct slice){NULL, {NULL, 0}});
}
static void fence_granted(struct claim *c)
{
	fence_answer(list_entry(c, struct fencing, claim));
	claim_release(c);
}
static void fence_fenced(struct claim *c)
{
	(void)c; /* it is on its way out */
}
static void fence_released(struct claim *c)
{
	struct fencing *f = list_entry(c, struct fencing, claim);
	fence_answer(f); /* not granted: who is here came later */
	atomic_fetch_sub(&f->all->live, 1);
	mem_free(f);
}
static const struct claim_ops fence_ops = {fence_granted, fence_fenced, fence_released};

void session_serve_fence(void *arg, struct peer_request *r)
{
	struct sessions *all = arg;
	struct rd in = rd_over(r->body.bytes);
	uint64_t boot = rd_u64be(&in);
	uint64_t epoch = rd_u64be(&in);
	struct bytes id = rd_take(&in, rd_left(&in));
	struct session_home *h = &all->homes[loop_index(loop_here())];
	const struct catalog *c = node_catalog(shard_node(h->shard), h->loop);
	bool mine = in.err == OK && id.len <= UINT16_MAX && boot == all->self.boot && c != NULL &&
		catalog_table_count(c) > 0;
	struct fencing *f = mine ? mem_try(sizeof *f + id.len) : NULL;
	if (f == NULL) { /* of an earlier boot: nobody is here any more */
		enum err e = in.err != OK ? ERR_MALFORMED : mine ? ERR_NOMEM : OK;
		all->net->answer(r, e, (struct slice){NULL, {NULL, 0}});
		return;
	}
	*f = (struct fencing){.all = all, .request = r};
	memcpy(f->id, id.at, id.len);
	struct bytes name = bytes_of(f->id, id.len);
	struct session_home *home = session_home_of(all, catalog_table(c, name));
	atomic_fetch_add(&all->live, 1);
	claim_acquire_upto(&f->claim, &home->claims, h->loop, &fence_ops, name, epoch);
}

/* Leases: the leader's side */

static struct node_lease *lease_of(struct sessions *all, uint32_t node)
{
	for (int i = 0; i < SESSION_NODES_MAX; i++)
		if (atomic_load(&all->leases[i].node) == node)
			return &all->leases[i];
	return NULL;
}

const struct node_lease *session_node_lease(struct sessions *all, uint32_t node)
{
	return lease_of(all, node);
}

/* The catalogue may not know a node yet that asks already, but it knows all that have sessions: of
 * those it does not, one gives way. Who reads its row meanwhile sees a node that is silent. */
static struct node_lease *lease_slot(struct sessions *all, const struct catalog *c, uint32_t node)
{
	struct node_lease *l = lease_of(all, node);
	if (l == NULL)
		l = lease_of(all, 0);
	for (int i = 0; i < SESSION_NODES_MAX && l == NULL && c != NULL; i++)
		if (catalog_node(c, atomic_load(&all->leases[i].node)) == NULL)
			l = &all->leases[i];
	if (l == NULL || atomic_load(&l->node) == node)
		return l;
	atomic_store(&l->node, 0);
	atomic_store(&l->boot, 0);
	atomic_store(&l->seen_ms, 0);
	atomic_store(&l->node, node);
	return l;
}

/* Gives -1 for a group that is no table. */
static int table_at(const struct catalog *c, uint64_t group)
{
	for (int i = 0; i < catalog_table_count(c) && i < SESSION_TABLES_MAX; i++)
		if (partition_group(catalog_table_at(c, i)) == group)
			return i;
	return -1;
}

void session_serve_lease(void *arg, struct peer_request *r)
{
	struct sessions *all = arg;
	struct rd in = rd_over(r->body.bytes);
	uint64_t boot = rd_u64be(&in);
	struct buf out;
	if (loop_here() != all->homes[0].loop) { /* no node of ours names a group here */
		all->net->answer(r, ERR_MALFORMED, (struct slice){NULL, {NULL, 0}});
		return;
	}
	const struct catalog *c = shard_catalog(all->homes[0].shard);
	struct node_lease *l = in.err == OK && r->from != 0 ? lease_slot(all, c, r->from) : NULL;
	buf_init(&out, SESSION_TABLES_MAX * 8);
	if (l == NULL || boot < atomic_load(&l->boot)) {
		all->net->answer(
			r, l == NULL ? ERR_MALFORMED : ERR_FENCED, (struct slice){NULL, {NULL, 0}});
		return;
	}
	atomic_store(&l->seen_ms, clock_ms());
	atomic_store(&l->boot, boot);
	for (int i = 0; i < SESSION_TABLES_MAX && rd_left(&in) >= 8; i++) {
		uint64_t group = rd_u64be(&in);
		int at = c != NULL ? table_at(c, group) : -1;
		if (at >= 0 && partition_leads(catalog_table_at(c, at)))
			buf_add_u64be(&out, group);
	}
	all->net->answer(r, out.err, buf_share(&out));
	buf_fini(&out);
}

/* Leases: the owner's side */

void session_leased(struct sessions *all, int at, int64_t asked_ms)
{
	int64_t until = asked_ms + all->lease_ms, held = atomic_load(&all->leased[at]);
	/* First, so that nobody finds it renewed and no lapse. */
	if (held < clock_ms())
		atomic_fetch_add(&all->lapses[at], 1);
	while (held < until && !atomic_compare_exchange_weak(&all->leased[at], &held, until))
		;
}

struct renewal {
	struct peer_call call;
	struct sessions *all;
	int64_t asked_ms;
	struct buf groups;
};

static void on_renewed(struct peer_call *call)
{
	struct renewal *n = list_entry(call, struct renewal, call);
	struct sessions *all = n->all;
	const struct catalog *c = shard_catalog(all->homes[0].shard);
	struct rd in = rd_over(call->answer.bytes);
	while (call->err == OK && c != NULL && rd_left(&in) >= 8) {
		int at = table_at(c, rd_u64be(&in));
		if (at >= 0)
			session_leased(all, at, n->asked_ms);
	}
	slice_unref(&call->answer);
	all->lease_calls--;
	mem_free(n);
}

static struct renewal *renewal_of(
	struct sessions *all, struct list *head, uint32_t node, int64_t now_ms)
{
	for (struct list *l = head->next; l != head; l = l->next) {
		struct renewal *n = list_entry(l, struct renewal, call.node);
		if (n->call.to == node)
			return n;
	}
	if (all->lease_calls >= LEASE_CALLS_MAX)
		return NULL;
	struct renewal *n = mem_new(sizeof *n);
	*n = (struct renewal){.all = all, .asked_ms = now_ms, .call = {.to = node}};
	list_init(&n->call.node);
	buf_init(&n->groups, (1 + SESSION_TABLES_MAX) * 8);
	buf_add_u64be(&n->groups, all->self.boot);
	list_push_back(head, &n->call.node);
	all->lease_calls++;
	return n;
}

static void renew(struct renewal *n)
{
	struct slice part = buf_share(&n->groups);
	struct sessions *all = n->all;
	uint32_t to = n->call.to;
	buf_fini(&n->groups);
	n->call = (struct peer_call){.to = to,
		.op = PEER_OP_LEASE,
		.parts = &part,
		.part_count = 1,
		.lane = LANE_HIGH,
		.timeout_ms = all->lease_ms,
		.done = on_renewed};
	all->net->call(all->net_arg, &n->call);
}

static void on_lease(struct loop_timer *t)
{
	struct sessions *all = list_entry(t, struct sessions, lease_timer);
	const struct catalog *c = shard_catalog(all->homes[0].shard);
	int64_t now = clock_ms();
	struct list calls, *l;
	loop_timer_set(t, all->lease_ms / RENEWALS_PER_LEASE + 1);
	list_init(&calls);
	for (int i = 0; c != NULL && i < catalog_table_count(c) && i < SESSION_TABLES_MAX; i++) {
		struct partition *p = catalog_table_at(c, i);
		uint32_t leader = partition_leader(p);
		if (partition_leads(p) || all->net->alone(all->net_arg)) {
			session_leased(all, i, now);
			continue;
		}
		struct renewal *n = leader != 0 && leader != all->self.node
			? renewal_of(all, &calls, leader, now)
			: NULL;
		if (n != NULL)
			buf_add_u64be(&n->groups, partition_group(p));
	}
	while ((l = list_pop(&calls)) != NULL)
		renew(list_entry(l, struct renewal, call.node));
}

void session_net_start(struct sessions *all)
{
	loop_timer_init(&all->lease_timer, all->homes[0].loop, on_lease);
	loop_timer_set(&all->lease_timer, 1);
}

void session_net_stop(struct sessions *all)
{
	loop_timer_cancel(&all->lease_timer);
}

/* Acknowledging */

static void on_ack_tick(struct loop_timer *t)
{
	struct session_home *h = list_entry(t, struct session_home, ack_timer);
	struct list now, *l;
	list_init(&now);
	while ((l = list_pop(&h->unleased)) != NULL)
		list_push_back(&now, l);
	while ((l = list_pop(&now)) != NULL) {
		struct session *s = list_entry(l, struct session, unleased);
		if (!s->closing)
			s->ops->written(s);
	}
}

void session_net_home_init(struct session_home *h)
{
	list_init(&h->unleased);
	loop_timer_init(&h->ack_timer, h->loop, on_ack_tick);
}

/* While the lease was out, another node may have claimed the session, or the table's leader have
 * declared it absent, and nobody could tell us. A write in its epoch finds out: it is refused then,
 * and the session let go. */
static bool still_ours(struct session *s)
{
	struct session_rows *d = s->durable;
	uint32_t lapses = atomic_load(&s->all->lapses[d->table_at]);
	if (d->lapses != lapses) {
		d->lapses = lapses;
		d->proof = session_write(s, false);
	}
	return d->written >= d->proof;
}

bool session_may_acknowledge(struct session *s)
{
	const struct session_rows *d = s->durable;
	struct sessions *all = s->all;
	if (d == NULL || d->brief || d->table_at < 0 || all->net->alone(all->net_arg))
		return true;
	if (clock_ms() < atomic_load(&all->leased[d->table_at]) && still_ours(s))
		return true;
	struct session_home *h = &all->homes[loop_index(shard_loop(session_shard(s)))];
	if (list_empty(&s->unleased))
		list_push_back(&h->unleased, &s->unleased);
	if (!loop_timer_is_set(&h->ack_timer))
		loop_timer_set(&h->ack_timer, ACK_TICK_MS);
	return false;
}

int session_table_at(const struct shard *s, const struct partition *table)
{
	return table_at(shard_catalog(s), partition_group(table));
}
