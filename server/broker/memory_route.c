/* Memory routes have no log: a turn's messages for one stream become one batch that is posted to
 * every loop with subscriptions, by reference. A publish is done once that has happened.
 *
 * Nothing keeps such a message for a subscriber that cannot take it, so the batch waits for it,
 * and those behind it in order; what is on its way is bounded, so soon the publishers' sockets are
 * not read. A subscriber that does not take again in time is late: until it does, what it cannot
 * take is dropped for it alone and counted, and nobody waits for it.
 *
 * Other nodes get the batch as a frame of the bulk lane, each from the loop that made it; there its
 * checksum is asked and it goes to all loops with subscriptions. Nobody waits for another node:
 * what its connection, or its loops, have no room for is dropped and counted. Nodes where nobody
 * subscribes get the frames, too: to spare them, a node's first subscription would have to wait
 * until all others know of it, and clients spread over nodes leave hardly one without any. */
#include <stdatomic.h>
#include "cluster/peer.h"
#include "server/broker/broker_priv.h"
#include "server/broker/place.h"

enum {
	RECORD_ROOM = 65536, /* what a record takes besides the message that was counted */
	AWAITED_MS = 200,    /* how long a subscriber may hold up the others */
};

struct memory_post {
	struct loop_msg msg;
	struct list node;
	struct shard *from, *to;
	struct slice batch;
	struct batch_walk walk;
	struct record record; /* to be offered, from the subscriber at `at` on */
	uintptr_t at;
	bool begun, has_record;
	uint8_t tenant_len;
	char tenant[];
};

static bool post_begin(struct memory_post *p)
{
	struct batch b;
	if (p->begun)
		return true;
	p->begun = batch_read(p->batch.bytes, &b) == OK && batch_walk_init(&p->walk, &b, 0) == OK;
	return p->begun;
}

/* Offers what is left of p; false: it waits. */
static bool post_dispatch(struct shard *s, struct memory_post *p)
{
	struct message m;
	struct space *sp = space_find(s, bytes_of(p->tenant, p->tenant_len));
	if (sp == NULL)
		return true; /* none of the tenant here */
	if (!post_begin(p)) {
		COUNT(s, M_UNREADABLE, 1);
		return true;
	}
	for (;;) {
		if (!p->has_record && batch_walk_next(&p->walk, &p->record) != OK)
			return true;
		p->has_record = true;
		message_decode(&p->record, bytes_of("", 0), &m);
		if (!deliver_memory(sp, &m, &p->batch, &p->at))
			return false;
		p->has_record = false;
		p->at = 0;
	}
}

static void post_free(struct memory_post *p)
{
	if (p->begun)
		batch_walk_fini(&p->walk);
	slice_unref(&p->batch);
	mem_free(p);
}

static void post_through(struct loop_msg *msg)
{
	struct memory_post *p = list_entry(msg, struct memory_post, msg);
	struct shard *s = p->from;
	s->memory_out -= p->batch.bytes.len;
	post_free(p);
	loop_hook_want(s->loop, STAGE_PUBLISH, &s->publish_hook); /* there may be room */
}

static void posts_dispatch(struct shard *s)
{
	while (!list_empty(&s->memory_posts) && !loop_timer_is_set(&s->memory_timer)) {
		struct list *n = s->memory_posts.next;
		struct memory_post *p = list_entry(n, struct memory_post, node);
		if (!post_dispatch(s, p)) {
			loop_timer_set(&s->memory_timer, AWAITED_MS);
			return;
		}
		list_remove(n);
		p->msg.run = post_through;
		loop_post(p->from->loop, &p->msg);
	}
}

static void post_arrived(struct loop_msg *msg)
{
	struct memory_post *p = list_entry(msg, struct memory_post, msg);
	list_push_back(&p->to->memory_posts, &p->node);
	posts_dispatch(p->to);
}

static void go_on(struct loop_hook *h)
{
	posts_dispatch(list_entry(h, struct shard, memory_hook));
}

static void is_late(struct loop_timer *t)
{
	struct shard *s = list_entry(t, struct shard, memory_timer);
	if (s->memory_awaited != NULL)
		s->memory_awaited->state->memory = MEMORY_LATE;
	s->memory_awaited = NULL;
	posts_dispatch(s);
}

void memory_ready(struct subscriber *who)
{
	struct shard *s = who->shard;
	if (who->state != NULL)
		who->state->memory = MEMORY_TAKES;
	if (s->memory_awaited != who)
		return;
	s->memory_awaited = NULL;
	loop_timer_cancel(&s->memory_timer);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->memory_hook);
}

bool memory_has_room(const struct shard *s)
{
	return s->memory_out < (size_t)s->broker->conf->publish_inflight_bytes;
}

void memory_init(struct shard *s)
{
	list_init(&s->memory_posts);
	loop_timer_init(&s->memory_timer, s->loop, is_late);
	loop_hook_init(&s->memory_hook, go_on);
}

void memory_fini(struct shard *s)
{
	for (struct list *n; (n = list_pop(&s->memory_posts)) != NULL;)
		post_free(list_entry(n, struct memory_post, node));
	loop_timer_cancel(&s->memory_timer);
	loop_hook_cancel(&s->memory_hook);
}

/* To all loops of this node with subscriptions. */
static void send_here(struct shard *s, struct bytes tenant, struct slice batch)
{
	struct broker *b = s->broker;
	for (int i = 0; i < b->count; i++) {
		struct shard *to = &b->shards[i];
		if (!atomic_load(&to->listening))
			continue;
		struct memory_post *p = mem_new(sizeof *p + tenant.len);
		p->tenant_len = (uint8_t)tenant.len;
		if (tenant.len > 0)
			memcpy(p->tenant, tenant.at, tenant.len);
		p->msg.run = post_arrived;
		p->from = s;
		p->to = to;
		p->batch = slice_ref(batch);
		list_init(&p->node);
		s->memory_out += batch.bytes.len;
		loop_post(to->loop, &p->msg);
	}
}

/* A frame is a batch; before one of another tenant than the default its name, behind a byte that
 * says how long that is. A batch begins with a zero byte. */
static bool frame_send(struct shard *s, uint32_t node, struct slice name, struct slice batch)
{
	struct peers *peers = node_peers(s->broker->node);
	struct peer_room room = {0};
	struct slice parts[2] = {slice_ref(name), slice_ref(batch)};
	int first = name.bytes.len == 0;
	bool fits = peer_bulk_room(peers, node, &room);
	peer_room_cancel(&room);
	if (fits)
		return peers_send(peers, node, LANE_BULK, PEER_MEMORY, (uint64_t)s->index,
			parts + first, 2 - first);
	slice_unref(&parts[0]);
	slice_unref(&parts[1]);
	return false;
}

static void send_to_nodes(struct shard *s, struct bytes tenant, struct slice batch)
{
	uint8_t text[1 + TENANT_NAME_MAX] = {(uint8_t)tenant.len};
	struct slice name = {0};
	const struct cluster_node *n;
	if (tenant.len > 0) {
		memcpy(text + 1, tenant.at, tenant.len);
		if (slice_copy(bytes_of(text, tenant.len + 1), &name) != OK) {
			COUNT(s, M_MEMORY_FRAMES_DROPPED, 1);
			return;
		}
	}
	for (int at = 0; place_node_next(s, &at, &n);)
		if (n->id != node_id(s->broker->node) &&
			peer_connected(node_peers(s->broker->node), n->id) &&
			!frame_send(s, n->id, name, batch))
			COUNT(s, M_MEMORY_FRAMES_DROPPED, 1);
	slice_unref(&name);
}

static void memory_send(struct shard *s, struct bytes tenant, struct slice batch)
{
	send_here(s, tenant, batch);
	if (s->catalog != NULL && !node_alone(s->broker->node))
		send_to_nodes(s, tenant, batch);
}

static size_t memory_batch_bytes_max(const struct shard *s)
{
	const struct broker_conf *conf = s->broker->conf;
	return (size_t)(conf->publish_inflight_bytes + conf->message_bytes_max) + RECORD_ROOM;
}

static enum err frame_read(struct bytes in, struct bytes *tenant, struct bytes *batch)
{
	struct rd r = rd_over(in);
	*tenant = bytes_of("", 0);
	*batch = in;
	if (in.len == 0 || in.at[0] == 0)
		return OK;
	*tenant = rd_take(&r, rd_u8(&r));
	*batch = rd_rest(&r);
	return r.err == OK && tenant_name_valid(*tenant) ? OK : ERR_MALFORMED;
}

/* From another node. On the loop that the sender's is paired with. */
void memory_arrived(void *arg, uint32_t from, uint64_t group, struct slice body)
{
	struct broker *b = arg;
	struct shard *s = broker_shard(b, loop_here());
	struct batch batch;
	struct bytes tenant;
	(void)from;
	(void)group;
	if (frame_read(body.bytes, &tenant, &body.bytes) != OK ||
		batch_read(body.bytes, &batch) != OK || batch.all.len != body.bytes.len ||
		batch.codec != CODEC_NONE || batch_check(&batch, memory_batch_bytes_max(s)) != OK)
		COUNT(s, M_UNREADABLE, 1);
	else if (!memory_has_room(s))
		COUNT(s, M_MEMORY_FRAMES_DROPPED, 1);
	else
		send_here(s, tenant, body);
}

void memory_serve(struct broker *b)
{
	struct peers *peers = node_peers(b->node);
	if (peers != NULL)
		peers_handle(peers, PEER_MEMORY, memory_arrived, b);
}

static void target_flush(struct space *sp, struct target *t)
{
	struct shard *s = sp->shard;
	struct memory_batch *b = &t->memory_batch;
	struct list publishes;
	struct slice batch = batch_builder_seal(&b->builder);
	list_init(&publishes);
	for (struct list *n; (n = list_pop(&b->publishes)) != NULL;)
		list_push_back(&publishes, n);
	s->inflight -= batch.bytes.len;
	memory_send(s, space_tenant(sp), batch);
	slice_unref(&batch);
	/* Last: done may publish anew, to this very batch. */
	for (struct list *n; (n = list_pop(&publishes)) != NULL;) {
		struct publish *p = list_entry(n, struct publish, node);
		p->err = OK;
		p->offset = -1;
		p->done(p);
	}
}

static void space_flush(struct space *sp)
{
	for (int i = 0; i < sp->target_count; i++)
		if (sp->targets[i].memory_batch.builder.count > 0)
			target_flush(sp, &sp->targets[i]);
}

void memory_flush(struct shard *s)
{
	s->memory_open = false;
	space_flush(&s->home);
	/* Those told of a batch may have publishes made in tenants that are new here: they come
	 * last. None goes meanwhile. */
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next)
		space_flush(list_entry(n, struct space, node));
}

enum err memory_publish(
	struct space *sp, struct target *t, const struct message *m, struct publish *p)
{
	struct shard *s = sp->shard;
	struct batch_builder *b = &t->memory_batch.builder;
	if (!memory_has_room(s))
		return ERR_BUSY;
	/* What is in flight is bounded first, so that a turn's batch is never cut; a reload may
	 * have changed that bound. */
	if (b->count == 0)
		b->buf.max = memory_batch_bytes_max(s);
	size_t before = batch_builder_len(b);
	enum err e = message_encode(m, b);
	if (e != OK)
		return e; /* over the room of a turn: ERR_TOOBIG only for what never fits */
	s->inflight += batch_builder_len(b) - before;
	s->memory_open = true;
	if (p != NULL)
		list_push_back(&t->memory_batch.publishes, &p->node);
	return OK;
}
