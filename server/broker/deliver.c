/* Subscribers. One that keeps up has no state here at all: it is wherever the feeds are. Each
 * record of a feed is decoded and matched once; those it reaches take it or refuse it, and who
 * refuses falls behind in that feed, with a position of its own (catchup.c), until it has caught
 * up.
 *
 * deliver is code of the adapters and may do anything to subscriptions. The match's answer is only
 * good until then, so a change is seen by the shard's edition and the topic looked up again; hits
 * are in order of their subscribers, which tells who has had the record. */
#include <stdatomic.h>
#include "server/broker/broker_priv.h"
#include "server/broker/topic.h"

enum { IDLE_MS = 10000, FEW_SUBSCRIPTIONS = 16 };

struct starts { /* of one subscription: where it counts from, by partition */
	int count;
	struct start {
		uint64_t group;
		int64_t offset;
	} at[];
};

/* ---- offering */

enum offer deliver_offer(struct subscriber *who, const struct delivery *d)
{
	struct shard *s = who->shard;
	size_t bytes = d->message->value.len;
	s->serving = who;
	bool took = who->ops->deliver(who, d);
	if (s->serving == NULL)
		return OFFER_GONE;
	s->serving = NULL;
	if (!took)
		return OFFER_REFUSED;
	if (d->message->retain && !d->retained && who->state != NULL)
		retained_overtaken(who, d->message->topic);
	COUNT(s, M_MESSAGES_OUT, 1);
	COUNT(s, M_BYTES_OUT, bytes);
	return OFFER_TAKEN;
}

static void falls_behind(
	struct subscriber *who, struct feed *f, int64_t offset, const struct entry_walk *w)
{
	struct shard *s = f->shard;
	struct behind *b = behind_new(who, f, offset);
	catchup_blocked(who);
	behind_hint(b, w, s->serial + 1); /* what catchup_keep will give this entry */
	COUNT(s, M_FELL_BEHIND, 1);
}

/* The first hit of a subscriber above `last`; hits are sorted. */
static int hits_after(const struct match_result *r, uintptr_t last)
{
	int i = 0;
	while (i < r->count && (uintptr_t)r->hits[i].who <= last)
		i++;
	return i;
}

static void record_dispatch(struct feed *f, struct delivery *d, const struct entry_walk *w)
{
	struct shard *s = f->shard;
	struct match *match = f->space->match;
	struct bytes topic = d->message->topic;
	const struct match_result *r = match_find(match, topic);
	uint64_t edition = s->edition;
	for (int i = 0; i < r->count; i++) {
		const struct match_hit *hit = &r->hits[i];
		struct subscriber *who = hit->who;
		if (who->state != NULL && behind_find(who, f) != NULL)
			continue;
		d->matches = hit->matches;
		d->match_count = hit->count;
		d->qos = hit->qos;
		if (deliver_offer(who, d) == OFFER_REFUSED)
			falls_behind(who, f, d->offset, w);
		if (s->edition == edition)
			continue;
		edition = s->edition;
		r = match_find(match, topic);
		i = hits_after(r, (uintptr_t)who) - 1;
	}
}

void deliver_entry(struct feed *f, struct entry *e)
{
	struct shard *s = f->shard;
	struct bytes stream = space_bare_name(f->space, f->stream);
	struct entry_walk w;
	struct record r;
	struct message m;
	struct delivery d = {.message = &m, .stream = f->stream, .partition = f->partition};
	int64_t count = 0;
	if (match_count(f->space->match) == 0)
		return;
	entry_walk_init(&w, e);
	while (entry_walk_next(s, &w, f->position, &r, &d.offset) == OK) {
		message_decode(&r, stream, &m);
		d.holder = w.walk.inflated == NULL ? w.holder : NULL;
		record_dispatch(f, &d, &w);
		count++;
	}
	entry_walk_fini(&w);
	COUNT(s, M_RECORDS_MATCHED, count);
}

/* It refused a record that nothing keeps for it. */
static bool memory_awaits(struct subscriber *who)
{
	struct subscriber_state *st = subscriber_state_make(who);
	if (st->memory == MEMORY_LATE)
		return false;
	st->memory = MEMORY_AWAITED;
	catchup_blocked(who);
	who->shard->memory_awaited = who;
	return true;
}

bool deliver_memory(
	struct space *sp, const struct message *m, const struct slice *holder, uintptr_t *from)
{
	struct shard *s = sp->shard;
	struct delivery d = {.message = m, .holder = holder, .offset = -1};
	const struct match_result *r = match_find(sp->match, m->topic);
	uint64_t edition = s->edition;
	for (int i = *from > 0 ? hits_after(r, *from - 1) : 0; i < r->count; i++) {
		const struct match_hit *hit = &r->hits[i];
		struct subscriber *who = hit->who;
		d.matches = hit->matches;
		d.match_count = hit->count;
		d.qos = hit->qos;
		enum offer offer = deliver_offer(who, &d);
		if (offer == OFFER_REFUSED && memory_awaits(who)) {
			*from = (uintptr_t)who;
			return false;
		}
		if (offer == OFFER_REFUSED)
			COUNT(s, M_MEMORY_DROPPED, 1);
		if (s->edition == edition)
			continue;
		edition = s->edition;
		r = match_find(sp->match, m->topic);
		i = hits_after(r, (uintptr_t)who) - 1;
	}
	return true;
}

/* Tells all who are live in f; a feed's own gap was trimmed, which takes a loop that stood still
 * for as long as the log is kept. */
void deliver_trimmed(struct feed *f, int64_t from, int64_t to)
{
	struct shard *s = f->shard;
	COUNT(s, M_SKIPPED, to - from);
	for (struct list *n = s->subscribers.next; n != &s->subscribers;) {
		struct subscriber *who = list_entry(n, struct subscriber, all_node);
		n = n->next;
		if (who->space == f->space && behind_find(who, f) == NULL &&
			who->ops->skipped != NULL)
			who->ops->skipped(who, f->partition, from, to);
	}
}

/* ---- subscriptions */

static void subscriptions_changed(struct space *sp)
{
	struct shard *s = sp->shard;
	s->edition++;
	atomic_store(&s->listening, s->subscription_count > 0);
	metric_set(loop_cells(s->loop), &broker_metrics, M_SUBSCRIPTIONS, s->subscription_count);
	if (match_count(sp->match) == 0 && sp->following)
		priv_tick(s, IDLE_MS);
}

struct subscription *subscription_find(const struct subscriber *who, struct bytes filter)
{
	if (who->by_filter != NULL)
		return map_get(who->by_filter, filter);
	for (struct list *n = who->subscriptions.next; n != &who->subscriptions; n = n->next) {
		struct subscription *sub = list_entry(n, struct subscription, node);
		if (bytes_equal(sub->filter, filter))
			return sub;
	}
	return NULL;
}

static void index_add(struct subscriber *who, struct subscription *sub)
{
	who->subscription_count++;
	if (who->by_filter != NULL) {
		(void)map_put(who->by_filter, sub->filter, sub);
		return;
	}
	if (who->subscription_count <= FEW_SUBSCRIPTIONS)
		return;
	who->by_filter = mem_new(sizeof *who->by_filter);
	for (struct list *n = who->subscriptions.next; n != &who->subscriptions; n = n->next) {
		struct subscription *one = list_entry(n, struct subscription, node);
		(void)map_put(who->by_filter, one->filter, one);
	}
}

static void index_remove(struct subscriber *who, const struct subscription *sub)
{
	who->subscription_count--;
	if (who->by_filter == NULL)
		return;
	(void)map_remove(who->by_filter, sub->filter);
	if (who->subscription_count > FEW_SUBSCRIPTIONS / 2)
		return;
	map_fini(who->by_filter);
	mem_free(who->by_filter);
	who->by_filter = NULL;
}

static struct subscription *subscription_new(struct subscriber *who, struct bytes filter)
{
	struct subscription *sub = mem_try(sizeof *sub + filter.len);
	if (sub == NULL)
		return NULL;
	*sub = (struct subscription){.who = who};
	uint8_t *text = (uint8_t *)(sub + 1);
	memcpy(text, filter.at, filter.len);
	sub->filter = bytes_of(text, filter.len);
	list_push_back(&who->subscriptions, &sub->node);
	index_add(who, sub);
	return sub;
}

static void subscription_free(struct subscription *sub)
{
	sub->who->shard->subscription_count--;
	sub->who->no_local_count -= sub->no_local;
	match_remove(sub->who->space->match, sub);
	index_remove(sub->who, sub);
	list_remove(&sub->node);
	mem_free((void *)(uintptr_t)sub->priv[1]);
	mem_free(sub);
}

static struct starts *starts_of(const struct subscription *sub)
{
	return (struct starts *)(uintptr_t)sub->priv[1];
}

static void start_set(struct subscription *sub, uint64_t group, int64_t offset)
{
	struct starts *st = starts_of(sub);
	int count = st != NULL ? st->count : 0;
	for (int i = 0; i < count; i++)
		if (st->at[i].group == group) {
			st->at[i].offset = offset;
			return;
		}
	st = mem_resize(st, sizeof *st + (size_t)(count + 1) * sizeof st->at[0]);
	must(st != NULL);
	st->count = count + 1;
	st->at[count] = (struct start){group, offset};
	sub->priv[1] = (uint64_t)(uintptr_t)st;
}

static int64_t start_get(const struct subscription *sub, uint64_t group)
{
	const struct starts *st = starts_of(sub);
	for (int i = 0; st != NULL && i < st->count; i++)
		if (st->at[i].group == group)
			return st->at[i].offset;
	return 0;
}

bool subscription_counts(const struct subscription *sub, uint64_t group, int64_t offset)
{
	return sub->priv[1] == 0 || offset >= start_get(sub, group);
}

/* A filter added while its subscriber is behind is not owed what was committed before. */
static void starts_now(struct subscription *sub)
{
	const struct subscriber *who = sub->who;
	if (who->state == NULL)
		return;
	for (struct list *n = who->state->behind.next; n != &who->state->behind; n = n->next) {
		const struct behind *b = list_entry(n, struct behind, in_sub);
		if (b->feed->position > b->position)
			start_set(sub, b->feed->group, b->feed->position);
	}
}

static void subscribe_apply(struct subscribe *op)
{
	struct space *sp = op->who->space;
	if (op->filter.at == NULL || !topic_filter_valid(op->filter)) {
		op->err = op->filter.at == NULL ? ERR_NOMEM : ERR_INVALID;
		return;
	}
	struct subscription *sub = subscription_find(op->who, op->filter);
	op->existed = sub != NULL;
	if (op->existed)
		match_remove(sp->match, sub);
	else
		sub = subscription_new(op->who, op->filter);
	if (sub == NULL) {
		op->err = ERR_NOMEM;
		return;
	}
	sub->qos = op->qos;
	op->who->no_local_count -= sub->no_local;
	sub->no_local = op->no_local;
	op->who->no_local_count += sub->no_local;
	sub->retain_as_published = op->retain_as_published;
	sub->id = op->id;
	match_add(sp->match, sub);
	sp->shard->subscription_count += !op->existed;
	if (!op->existed && !op->resumed)
		starts_now(sub);
	op->subscription = sub;
	subscriptions_changed(sp);
}

static void subscribe_done(struct subscribe *op)
{
	uint8_t *text = (uint8_t *)(uintptr_t)op->filter.at;
	subscribe_apply(op);
	bool send = op->err == OK && !op->resumed &&
		(op->retained == RETAINED_SEND ||
			(op->retained == RETAINED_IF_NEW && !op->existed));
	struct subscription *sub = op->subscription;
	op->filter = bytes_of(NULL, 0);
	mem_free(text);
	if (send) /* before done, which may unsubscribe; nothing is sent within the call */
		retained_begin(sub);
	op->done(op);
}

static void subscribes_done(struct shard *s)
{
	while (point_round(s))
		for (struct list *n; (n = list_pop(&s->beginning)) != NULL;)
			subscribe_done(list_entry(n, struct subscribe, node));
}

void subscriber_subscribe(struct subscribe *op)
{
	struct shard *s = op->who->shard;
	loop_must_own(s->loop);
	uint8_t *text = mem_try(op->filter.len + 1);
	if (text != NULL && op->filter.len > 0)
		memcpy(text, op->filter.at, op->filter.len);
	op->filter = bytes_of(text, op->filter.len);
	op->err = OK;
	op->existed = false;
	op->subscription = NULL;
	list_push_back(&s->subscribing, &op->node);
	space_follow(op->who->space);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

enum err subscriber_unsubscribe(struct subscriber *who, struct bytes filter)
{
	loop_must_own(who->shard->loop);
	struct subscription *sub = subscription_find(who, filter);
	if (sub == NULL)
		return ERR_NOTFOUND;
	retained_cancel(who, sub);
	subscription_free(sub);
	subscriptions_changed(who->space);
	return OK;
}

/* ---- subscribers */

void subscriber_init(struct subscriber *who, struct shard *s, struct bytes tenant,
	const struct subscriber_ops *ops)
{
	loop_must_own(s->loop);
	who->ops = ops;
	who->shard = s;
	who->space = space_join(s, tenant);
	who->state = NULL;
	who->by_filter = NULL;
	who->subscription_count = 0;
	who->no_local_count = 0;
	list_init(&who->subscriptions);
	list_init(&who->private_node);
	list_push_back(&s->subscribers, &who->all_node);
}

struct subscriber_state *subscriber_state_make(struct subscriber *who)
{
	if (who->state == NULL) {
		who->state = mem_new(sizeof *who->state);
		list_init(&who->state->behind);
		list_init(&who->state->retained);
	}
	return who->state;
}

void subscriber_state_drop(struct subscriber *who)
{
	struct subscriber_state *st = who->state;
	if (st == NULL || !list_empty(&st->behind) || !list_empty(&st->retained) ||
		st->memory != MEMORY_TAKES)
		return;
	mem_free(st);
	who->state = NULL;
}

static void subscribes_cancel(const struct subscriber *who, struct list *head)
{
	for (struct list *n = head->next; n != head;) {
		struct subscribe *op = list_entry(n, struct subscribe, node);
		n = n->next;
		if (op->who != who)
			continue;
		list_remove(&op->node);
		mem_free((void *)(uintptr_t)op->filter.at);
	}
}

void subscriber_fini(struct subscriber *who)
{
	struct shard *s = who->shard;
	loop_must_own(s->loop);
	subscribes_cancel(who, &s->subscribing);
	subscribes_cancel(who, &s->beginning);
	retained_cancel(who, NULL);
	while (who->state != NULL && !list_empty(&who->state->behind))
		behind_free(list_entry(who->state->behind.next, struct behind, in_sub));
	memory_ready(who);
	subscriber_state_drop(who);
	while (!list_empty(&who->subscriptions))
		subscription_free(list_entry(who->subscriptions.next, struct subscription, node));
	list_remove(&who->private_node);
	list_remove(&who->all_node);
	if (s->serving == who)
		s->serving = NULL;
	subscriptions_changed(who->space);
	space_leave(who->space);
}

void subscriber_ready(struct subscriber *who)
{
	loop_must_own(who->shard->loop);
	if (who->state == NULL || !who->state->blocked)
		return;
	who->state->blocked = false;
	memory_ready(who);
	catchup_ready(who);
}

/* ---- positions of durable readers */

static int64_t feed_position(const struct feed *f)
{
	return f->position >= 0 ? f->position : partition_high_watermark(f->partition);
}

int64_t subscriber_position(const struct subscriber *who, struct partition *p)
{
	const struct feed *f = feed_find(who->shard, p);
	if (f == NULL)
		return partition_high_watermark(p);
	const struct behind *b = behind_find(who, f);
	return b != NULL ? b->position : feed_position(f);
}

static const struct stream *stream_of(const struct space *sp, const struct partition *p)
{
	for (int t = 0; t < sp->target_count; t++) {
		const struct stream *stream = sp->targets[t].stream;
		for (int i = 0; stream != NULL && i < stream->partition_count; i++)
			if (stream->partitions[i] == p)
				return stream;
	}
	return NULL;
}

void subscriber_start(struct subscriber *who, struct partition *p, int64_t offset)
{
	loop_must_own(who->shard->loop);
	const struct stream *stream = stream_of(who->space, p);
	if (stream == NULL)
		return; /* no route leads there any more */
	struct feed *f = feed_make(who->space, p, stream);
	struct behind *b = behind_find(who, f);
	if (b != NULL)
		behind_free(b);
	(void)behind_new(who, f, offset);
	catchup_ready(who);
}

int64_t subscription_start(const struct subscription *sub, struct partition *p)
{
	int64_t start = start_get(sub, partition_group(p));
	return start > 0 && start > subscriber_position(sub->who, p) ? start : 0;
}

void subscription_set_start(struct subscription *sub, struct partition *p, int64_t offset)
{
	start_set(sub, partition_group(p), offset);
}

int subscriber_stream_count(const struct subscriber *who)
{
	int count = 0;
	for (int i = 0; i < who->space->target_count; i++)
		count += who->space->targets[i].stream != NULL;
	return count;
}

const struct stream *subscriber_stream_at(const struct subscriber *who, int index)
{
	const struct space *sp = who->space;
	for (int i = 0; i < sp->target_count; i++)
		if (sp->targets[i].stream != NULL && index-- == 0)
			return sp->targets[i].stream;
	return NULL;
}

/* ---- one record again */

static enum err redeliver_give(struct redeliver *r, struct entry *e)
{
	struct shard *s = r->who->shard;
	const struct space *sp = r->who->space;
	const struct stream *stream = stream_of(sp, r->partition);
	struct entry_walk w;
	struct record record;
	struct message m;
	struct delivery d = {.message = &m, .stream = stream, .partition = r->partition};
	entry_walk_init(&w, e);
	enum err err = entry_walk_next(s, &w, r->offset, &record, &d.offset);
	if (err == OK && d.offset == r->offset) {
		int count = 0;
		message_decode(&record,
			stream != NULL ? space_bare_name(sp, stream) : bytes_of("", 0), &m);
		for (struct list *n = r->who->subscriptions.next; n != &r->who->subscriptions;
			n = n->next) {
			struct subscription *sub = list_entry(n, struct subscription, node);
			if (!topic_matches(sub->filter, m.topic))
				continue;
			size_t room = (size_t)s->scratch_room;
			s->scratch = priv_grown(
				s->scratch, (size_t)count, &room, sizeof(struct subscription *));
			s->scratch_room = (int)room;
			s->scratch[count++] = sub;
			d.qos = sub->qos > d.qos ? sub->qos : d.qos;
		}
		d.matches = s->scratch;
		d.match_count = count;
		d.holder = w.walk.inflated == NULL ? w.holder : NULL;
		r->give(r, &d);
	} else {
		err = ERR_RANGE;
	}
	entry_walk_fini(&w);
	return err;
}

static void redeliver_done(struct record_read *read)
{
	struct redeliver *r = list_entry(read, struct redeliver, read);
	r->err = read->err;
	if (r->err == OK && read->count == 0)
		r->err = ERR_RANGE;
	if (r->err == OK && r->give != NULL)
		r->err = redeliver_give(r, read->entries[0]);
	record_read_fini(read);
	r->done(r);
}

void subscriber_redeliver(struct redeliver *r)
{
	r->read = (struct record_read){
		.from = r->partition, .offset = r->offset, .bytes_max = 1, .done = redeliver_done};
	partition_read_records(&r->read);
}

/* ---- the turn */

static void deliver_turn(struct loop_hook *h)
{
	struct shard *s = list_entry(h, struct shard, deliver_hook);
	feeds_send(s);
	subscribes_done(s);
	/* Those behind first: who catches up now takes the new records live. */
	bool more = catchup_run(s);
	more = feeds_dispatch(s) || more;
	feeds_ack(s);
	metric_set(loop_cells(s->loop), &broker_metrics, M_KEPT_BYTES,
		(int64_t)(s->tail_bytes + s->run_bytes));
	metric_set(loop_cells(s->loop), &broker_metrics, M_BEHIND, s->behind_count);
	if (more)
		loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

static void tick(struct loop_timer *t)
{
	struct shard *s = list_entry(t, struct shard, tick);
	feeds_retry(s);
	catchup_retry(s);
	retained_retry(s);
	spaces_sweep(s);
}

void deliver_init(struct shard *s)
{
	list_init(&s->subscribers);
	list_init(&s->subscribing);
	list_init(&s->beginning);
	list_init(&s->ready);
	list_init(&s->reads);
	list_init(&s->runs);
	list_init(&s->retained_active);
	list_init(&s->retained_queued);
	list_init(&s->retained_idle);
	loop_hook_init(&s->deliver_hook, deliver_turn);
	loop_timer_init(&s->tick, s->loop, tick);
}

void deliver_fini(struct shard *s)
{
	for (struct list *n; (n = list_pop(&s->beginning)) != NULL;)
		list_push_back(&s->subscribing, n);
	for (struct list *n; (n = list_pop(&s->subscribing)) != NULL;)
		mem_free((void *)(uintptr_t)list_entry(n, struct subscribe, node)->filter.at);
	mem_free(s->scratch);
}
