/* Committed entries, from the loop where a partition is at home to every loop that follows it.
 *
 * At home a watcher sees all entries; at STAGE_DELIVER they leave, one message per loop, entries by
 * reference. What a loop has been sent and not yet dealt with is bounded: beyond it entries are
 * left out and the loop is told, once it has caught up, where the log is now. The reader's side
 * trusts nothing but offsets: what is below its position it drops, and a gap above it it reads from
 * the log. So a message lost, late or left out can delay a record and never skip one. */
#include <stdatomic.h>
#include "server/base/log.h"
#include "server/broker/broker_priv.h"

enum { FILL_BYTES = 256 << 10, DISPATCH_BYTES_MAX = 2 << 20, RETRY_MS = 200 };

/* ---- the home's side */

static void channel_add(struct shard *s, int to, struct feed_item item)
{
	struct channel *c = &s->channels[to];
	if (c->post == NULL) {
		c->post = mem_new(sizeof *c->post);
		c->post->from = s;
		c->post->to = &s->broker->shards[to];
	}
	struct feed_post *p = c->post;
	size_t room = (size_t)p->room;
	p->items = priv_grown(p->items, (size_t)p->count, &room, sizeof *p->items);
	p->room = (int)room;
	p->items[p->count++] = item;
	if (item.entry != NULL)
		c->inflight += entry_memory(item.entry);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

static void send_one(struct shard *s, const struct outgoing *o)
{
	size_t limit = (size_t)s->broker->conf->feed_bytes;
	for (int i = 0; i < s->broker->count; i++) {
		uint8_t *dest = &o->source->dests[i];
		if (*dest != DEST_ON)
			continue;
		if (s->channels[i].inflight > limit || !entry_whole(o->entry)) {
			*dest |= DEST_LAGGING;
			s->channels[i].lagging = true;
			continue;
		}
		struct feed_item item = {
			o->source->group, entry_ref(o->entry), o->entry->head.base_offset};
		channel_add(s, i, item);
	}
}

static void feed_take(struct feed_post *p);
static void feed_arrived(struct loop_msg *msg);

/* Tells the loop where the log is now, for all partitions of which it was not sent something. */
static void channel_resume(struct shard *s, int to)
{
	struct channel *c = &s->channels[to];
	uint32_t at = 0;
	if (!c->lagging || c->inflight > (size_t)s->broker->conf->feed_bytes / 2)
		return;
	c->lagging = false;
	for (struct source *src; (src = map_next(&s->sources, &at)) != NULL;) {
		if (!(src->dests[to] & DEST_LAGGING))
			continue;
		src->dests[to] = DEST_ON;
		channel_add(s, to, (struct feed_item){src->group, NULL, src->next});
	}
}

void feeds_send(struct shard *s)
{
	for (size_t i = 0; i < s->out_count; i++) {
		send_one(s, &s->out[i]);
		entry_unref(s->out[i].entry);
	}
	s->out_count = 0;
	for (int i = 0; i < s->broker->count; i++) {
		channel_resume(s, i);
		struct feed_post *p = s->channels[i].post;
		if (p == NULL)
			continue;
		s->channels[i].post = NULL;
		p->msg.run = feed_arrived;
		if (i == s->index)
			feed_take(p); /* dispatched in this very turn */
		else
			loop_post(p->to->loop, &p->msg);
	}
}

static void source_committed(struct watcher *w, struct entry *e)
{
	struct source *src = list_entry(w, struct source, watcher);
	struct shard *s = src->shard;
	if (e->head.count == 0)
		return;
	src->next = entry_next_offset(&e->head);
	s->out = priv_grown(s->out, s->out_count, &s->out_room, sizeof *s->out);
	s->out[s->out_count++] = (struct outgoing){src, entry_ref(e)};
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

static void source_led(struct watcher *w, bool leads)
{
	(void)w; /* followers see the same entries */
	(void)leads;
}

/* The replica fetched a log further than it had: what lies between is there to be read. */
static void source_replaced(struct watcher *w)
{
	struct source *src = list_entry(w, struct source, watcher);
	struct shard *s = src->shard;
	src->next = partition_high_watermark(src->partition);
	for (int i = 0; i < s->broker->count; i++)
		if (src->dests[i] == DEST_ON)
			channel_add(s, i, (struct feed_item){src->group, NULL, src->next});
}

static struct source *source_make(
	struct shard *s, struct partition *p, const uint8_t *uuid, int number)
{
	uint64_t group = partition_group(p);
	struct source *src = map_get_u64(&s->sources, group);
	if (src != NULL)
		return src;
	src = mem_new(sizeof *src);
	src->shard = s;
	src->partition = p;
	src->group = group;
	src->number = number;
	memcpy(src->uuid, uuid, sizeof src->uuid);
	src->dests = mem_new((size_t)s->broker->count);
	list_init(&src->watcher.node);
	src->watcher.committed = source_committed;
	src->watcher.led = source_led;
	src->watcher.replaced = source_replaced;
	src->next = partition_watch(p, &src->watcher);
	(void)map_put_u64(&s->sources, group, src);
	return src;
}

static void source_free(struct shard *s, struct source *src, bool unwatch)
{
	size_t left = 0;
	if (unwatch)
		partition_unwatch(src->partition, &src->watcher);
	for (size_t i = 0; i < s->out_count; i++) {
		if (s->out[i].source == src)
			entry_unref(s->out[i].entry);
		else
			s->out[left++] = s->out[i];
	}
	s->out_count = left;
	mem_free(src->dests);
	mem_free(src);
}

/* Nobody follows it any more: a partition without a replica here need not be sent to us. */
static void source_leave(struct shard *s, struct source *src, int loop)
{
	src->dests[loop] = 0;
	for (int i = 0; i < s->broker->count; i++)
		if (src->dests[i] != 0)
			return;
	(void)map_remove_u64(&s->sources, src->group);
	source_free(s, src, true);
}

static bool in_catalog(const struct catalog *c, const uint8_t *uuid, int number)
{
	const struct stream *stream = c != NULL ? catalog_stream_by_uuid(c, uuid) : NULL;
	return stream != NULL && number < stream->partition_count;
}

struct interest { /* a loop begins or ceases to follow a partition */
	struct loop_msg msg;
	struct shard *from, *to;
	struct partition *partition;
	uint64_t group, catalog;
	uint8_t uuid[16];
	int number;
	bool on;
};

static void interest_arrived(struct loop_msg *msg)
{
	struct interest *i = list_entry(msg, struct interest, msg);
	struct shard *s = i->to;
	uint64_t here = s->catalog != NULL ? catalog_version(s->catalog) : 0;
	/* Gone from a catalogue newer than the asker's: the partition is about to close. */
	bool gone = here >= i->catalog && !in_catalog(s->catalog, i->uuid, i->number);
	if (i->on && !gone) {
		struct source *src = source_make(s, i->partition, i->uuid, i->number);
		src->dests[i->from->index] = DEST_ON;
		channel_add(s, i->from->index, (struct feed_item){src->group, NULL, src->next});
	} else if (!i->on) {
		struct source *src = map_get_u64(&s->sources, i->group);
		if (src != NULL)
			source_leave(s, src, i->from->index);
	}
	mem_free(i);
}

static void interest_send(struct feed *f, bool on)
{
	struct shard *s = f->shard;
	struct interest *i = mem_new(sizeof *i);
	i->msg.run = interest_arrived;
	i->from = s;
	i->to = &s->broker->shards[f->home];
	i->partition = f->partition;
	i->group = f->group;
	i->catalog = catalog_version(s->catalog);
	memcpy(i->uuid, f->stream->uuid, sizeof i->uuid);
	while (i->number < f->stream->partition_count &&
		f->stream->partitions[i->number] != f->partition)
		i->number++;
	i->on = on;
	if (i->to == s)
		interest_arrived(&i->msg);
	else
		loop_post(i->to->loop, &i->msg);
}

struct ack {
	struct loop_msg msg;
	struct shard *home;
	int from;
	size_t bytes;
};

static void ack_arrived(struct loop_msg *msg)
{
	struct ack *a = list_entry(msg, struct ack, msg);
	struct channel *c = &a->home->channels[a->from];
	must(c->inflight >= a->bytes);
	c->inflight -= a->bytes;
	if (c->lagging)
		loop_hook_want(a->home->loop, STAGE_DELIVER, &a->home->deliver_hook);
	mem_free(a);
}

void feeds_ack(struct shard *s)
{
	for (int i = 0; i < s->broker->count; i++) {
		if (s->acks[i] == 0)
			continue;
		struct ack *a = mem_new(sizeof *a);
		*a = (struct ack){{NULL, ack_arrived}, &s->broker->shards[i], s->index, s->acks[i]};
		s->acks[i] = 0;
		if (i == s->index)
			ack_arrived(&a->msg);
		else
			loop_post(a->home->loop, &a->msg);
	}
}

/* ---- the reader's side */

static void item_drop(struct shard *s, int home, struct feed_item *item)
{
	if (item->entry == NULL)
		return;
	s->acks[home] += entry_memory(item->entry);
	entry_unref(item->entry);
}

static struct feed_item *queue_head(struct feed *f)
{
	return &f->queue[f->queue_at];
}

static void queue_push(struct feed *f, struct feed_item item)
{
	if (f->queue_count == f->queue_room) {
		uint32_t room = f->queue_room > 0 ? f->queue_room * 2 : 8;
		struct feed_item *q = mem_new(room * sizeof *q);
		for (uint32_t i = 0; i < f->queue_count; i++)
			q[i] = f->queue[(f->queue_at + i) & (f->queue_room - 1)];
		mem_free(f->queue);
		f->queue = q;
		f->queue_at = 0;
		f->queue_room = room;
	}
	f->queue[(f->queue_at + f->queue_count++) & (f->queue_room - 1)] = item;
	if (f->queue_count == 1)
		list_push_back(&f->shard->dirty, &f->in_dirty);
}

static void queue_pop(struct feed *f)
{
	struct feed_item item = *queue_head(f);
	f->queue_at = (f->queue_at + 1) & (f->queue_room - 1);
	f->queue_count--;
	item_drop(f->shard, f->home, &item);
	if (f->queue_count == 0)
		list_remove(&f->in_dirty);
}

/* The first answer to our asking: records from its offset on will come. A feed that has a position
 * already (it was made for a stream that a new route leads to) reads up to there. */
static void feed_begins(struct feed *f, int64_t offset)
{
	f->on = true;
	f->shard->feeds_pending--;
	if (f->position < 0)
		f->position = offset;
	point_moved(f);
	catchup_feed_moved(f);
}

static void feed_take(struct feed_post *p)
{
	struct shard *s = p->to;
	for (int i = 0; i < p->count; i++) {
		struct feed *f = map_get_u64(&s->feeds, p->items[i].group);
		if (f != NULL && f->asked && !f->on && p->items[i].entry == NULL)
			feed_begins(f, p->items[i].offset);
		if (f != NULL && f->on)
			queue_push(f, p->items[i]);
		else
			item_drop(s, p->from->index, &p->items[i]);
	}
	mem_free(p->items);
	mem_free(p);
}

static void feed_arrived(struct loop_msg *msg)
{
	struct feed_post *p = list_entry(msg, struct feed_post, msg);
	struct shard *s = p->to;
	feed_take(p);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

static void fill_done(struct record_read *r);

static void fill(struct feed *f)
{
	f->filling = true;
	f->fill_failed = false;
	f->fill = (struct record_read){.from = f->partition,
		.offset = f->position,
		.bytes_max = FILL_BYTES,
		.done = fill_done};
	partition_read_records(&f->fill);
}

static void dispatch(struct feed *f, struct entry *e)
{
	int64_t end = entry_next_offset(&e->head);
	if (end <= f->position || e->head.count == 0)
		return;
	deliver_entry(f, e);
	f->position = end;
	point_moved(f);
	if (f->behind_count > 0) {
		catchup_keep(f, e);
		catchup_feed_moved(f);
	}
}

void feed_free(struct feed *f)
{
	mem_free(f->queue);
	mem_free(f->tail);
	mem_free(f);
}

static void fill_done(struct record_read *r)
{
	struct feed *f = list_entry(r, struct feed, fill);
	struct shard *s = f->shard;
	f->filling = false;
	if (f->dead) {
		record_read_fini(r);
		if (f->reads == 0)
			feed_free(f);
		return;
	}
	if (r->err == OK && r->count > 0) {
		for (int i = 0; i < r->count; i++)
			dispatch(f, r->entries[i]);
	} else if (r->err == ERR_RANGE && r->first_offset > f->position) {
		deliver_trimmed(f, f->position, r->first_offset);
		f->position = r->first_offset;
		point_moved(f);
		catchup_feed_moved(f);
	} else {
		f->fill_failed = true;
		priv_tick(s, RETRY_MS);
	}
	record_read_fini(r);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

/* Dispatches what is queued up to a gap or the budget's end; gives the bytes. */
static size_t feed_dispatch(struct feed *f, size_t budget)
{
	size_t spent = 0;
	while (f->queue_count > 0 && !f->filling && spent < budget) {
		struct feed_item *item = queue_head(f);
		int64_t from = item->entry != NULL ? item->entry->head.base_offset : item->offset;
		if (from > f->position) {
			if (f->fill_failed)
				break;
			COUNT(f->shard, M_FEED_GAPS, 1);
			fill(f);
			break;
		}
		if (item->entry != NULL) {
			spent += item->entry->head.payload_bytes;
			dispatch(f, item->entry);
		}
		queue_pop(f);
	}
	return spent;
}

bool feeds_dispatch(struct shard *s)
{
	size_t budget = DISPATCH_BYTES_MAX;
	struct list later;
	list_init(&later);
	while (budget > 0 && !list_empty(&s->dirty)) {
		struct feed *f = list_entry(s->dirty.next, struct feed, in_dirty);
		size_t spent = feed_dispatch(f, budget);
		budget -= spent < budget ? spent : budget;
		if (f->queue_count > 0) { /* in a gap, or over the budget */
			list_remove(&f->in_dirty);
			list_push_back(&later, &f->in_dirty);
		}
	}
	bool more = !list_empty(&s->dirty);
	for (struct list *n; (n = list_pop(&later)) != NULL;) {
		struct feed *f = list_entry(n, struct feed, in_dirty);
		more = more || (!f->filling && !f->fill_failed);
		list_push_back(&s->dirty, n);
	}
	return more;
}

/* ---- which feeds there are */

struct feed *feed_find(const struct shard *s, const struct partition *p)
{
	return map_get_u64(&s->feeds, partition_group(p));
}

struct feed *feed_make(struct space *sp, struct partition *p, const struct stream *stream)
{
	struct shard *s = sp->shard;
	struct feed *f = feed_find(s, p);
	if (f != NULL)
		return f;
	f = mem_new(sizeof *f);
	f->shard = s;
	f->space = sp;
	list_push_back(&sp->feeds, &f->in_space);
	sp->feed_count++;
	f->partition = p;
	f->group = partition_group(p);
	f->stream = stream;
	f->home = loop_index(partition_home(p));
	f->position = f->point_offset = -1;
	list_init(&f->in_dirty);
	list_init(&f->behind);
	list_init(&f->runs);
	(void)map_put_u64(&s->feeds, f->group, f);
	return f;
}

static void feed_ask(struct feed *f)
{
	if (f->asked)
		return;
	f->asked = true;
	f->shard->feeds_pending++;
	interest_send(f, true);
}

/* Takes f out of the shard; its memory goes when nothing reads into it any more. */
static void feed_leave(struct feed *f)
{
	struct shard *s = f->shard;
	(void)map_remove_u64(&s->feeds, f->group);
	list_remove(&f->in_space);
	f->space->feed_count--;
	catchup_feed_gone(f);
	point_feed_gone(f);
	while (f->queue_count > 0)
		queue_pop(f);
	if (f->asked && !f->on)
		s->feeds_pending--;
	f->dead = true;
	if (!f->filling && f->reads == 0)
		feed_free(f);
}

static const struct stream *routed_stream(const struct space *sp, const uint8_t *uuid)
{
	for (int i = 0; i < sp->target_count; i++)
		if (sp->targets[i].stream != NULL &&
			memcmp(sp->targets[i].stream->uuid, uuid, 16) == 0)
			return sp->targets[i].stream;
	return NULL;
}

/* Whether it has come with the catalogue in force. */
static bool is_new(const struct catalog *old, const struct stream *stream, int number)
{
	return old != NULL && catalog_version(old) > 0 && !in_catalog(old, stream->uuid, number);
}

/* Feeds of all routed streams. One that is new while we follow already began with the catalogue: a
 * partition that was made just now is owed from its first record on, others what is published by
 * the new route, which is above the high watermark of this moment. */
static void feeds_make(struct space *sp, bool later, const struct catalog *old)
{
	for (int t = 0; t < sp->target_count; t++) {
		const struct stream *stream = sp->targets[t].stream;
		for (int i = 0; stream != NULL && i < stream->partition_count; i++) {
			struct partition *p = stream->partitions[i];
			struct feed *f = feed_make(sp, p, stream);
			f->stream = stream;
			if (later && !f->asked && f->position < 0)
				f->position = is_new(old, stream, i) ? 0
								     : partition_high_watermark(p);
			feed_ask(f);
		}
	}
}

void feeds_follow(struct space *sp)
{
	if (sp->following || sp->shard->catalog == NULL)
		return;
	sp->following = true;
	feeds_make(sp, false, NULL);
}

static bool feed_wanted(struct feed *f, const uint8_t *uuid)
{
	const struct stream *stream = routed_stream(f->space, uuid);
	if (stream == NULL)
		return false;
	f->stream = stream;
	for (int i = 0; i < stream->partition_count; i++)
		if (stream->partitions[i] == f->partition)
			return true;
	return false;
}

/* f->stream is of the catalogue before, which its shard still holds. */
void feeds_catalog(struct shard *s, const struct catalog *old)
{
	uint32_t at = 0;
	for (struct feed *f; (f = map_next(&s->feeds, &at)) != NULL;) {
		uint8_t uuid[16];
		memcpy(uuid, f->stream->uuid, sizeof uuid);
		bool routed = feed_wanted(f, uuid);
		if (routed)
			continue;
		if (in_catalog(s->catalog, uuid, 0)) {
			f->stream = catalog_stream_by_uuid(s->catalog, uuid);
			interest_send(f, false);
		}
		feed_leave(f);
	}
	at = 0;
	for (struct source *src; (src = map_next(&s->sources, &at)) != NULL;) {
		if (in_catalog(s->catalog, src->uuid, src->number))
			continue;
		(void)map_remove_u64(&s->sources, src->group);
		source_free(s, src, true);
	}
	if (s->home.following)
		feeds_make(&s->home, true, old);
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next) {
		struct space *sp = list_entry(n, struct space, node);
		if (sp->following)
			feeds_make(sp, true, old);
	}
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

static bool asked_for(const struct space *sp, struct list *subscribes)
{
	for (struct list *n = subscribes->next; n != subscribes; n = n->next)
		if (list_entry(n, struct subscribe, node)->who->space == sp)
			return true;
	return false;
}

/* Nobody of the tenant here has subscribed for a while: the homes need not send any more. */
static void feeds_unfollow(struct space *sp)
{
	struct shard *s = sp->shard;
	struct list *n;
	if (!sp->following || match_count(sp->match) > 0 || asked_for(sp, &s->subscribing) ||
		asked_for(sp, &s->beginning))
		return;
	for (n = sp->feeds.next; n != &sp->feeds; n = n->next)
		if (list_entry(n, struct feed, in_space)->behind_count > 0)
			return;
	sp->following = false;
	while (!list_empty(&sp->feeds)) {
		struct feed *f = list_entry(sp->feeds.next, struct feed, in_space);
		if (f->asked)
			interest_send(f, false);
		feed_leave(f);
	}
}

void feeds_retry(struct shard *s)
{
	uint32_t at = 0;
	for (struct feed *f; (f = map_next(&s->feeds, &at)) != NULL;)
		f->fill_failed = false;
	feeds_unfollow(&s->home);
	for (struct list *n = s->tenants.next; n != &s->tenants; n = n->next)
		feeds_unfollow(list_entry(n, struct space, node));
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

void feeds_init(struct shard *s)
{
	s->channels = mem_new((size_t)s->broker->count * sizeof *s->channels);
	s->acks = mem_new((size_t)s->broker->count * sizeof *s->acks);
	list_init(&s->dirty);
}

void feeds_fini(struct shard *s)
{
	uint32_t at = 0;
	for (struct feed *f; (f = map_next(&s->feeds, &at)) != NULL;) {
		f->reads = 0; /* loops stand: nothing comes back any more */
		f->filling = f->pointing = false;
		feed_leave(f);
	}
	at = 0;
	for (struct source *src; (src = map_next(&s->sources, &at)) != NULL;)
		source_free(s, src, false);
	for (int i = 0; i < s->broker->count; i++) {
		struct feed_post *p = s->channels[i].post;
		for (int k = 0; p != NULL && k < p->count; k++)
			entry_unref(p->items[k].entry);
		if (p != NULL)
			mem_free(p->items);
		mem_free(p);
	}
	map_fini(&s->feeds);
	map_fini(&s->sources);
	mem_free(s->channels);
	mem_free(s->acks);
	mem_free(s->out);
}
