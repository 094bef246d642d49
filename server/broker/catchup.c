/* Reading at a position of one's own. A feed keeps the entries it has dispatched lately (its tail)
 * for as long as someone is behind in it; what is older is read from the log, in runs. Both are
 * bounded per loop, apart from each other, so that one who reads a long history does not push out
 * the tail that many need. An entry found is walked from where its reader stopped: a hint remembers
 * the place, so that a window's worth of records costs no walk from the entry's start.
 *
 * Readers take turns, each for a bounded number of bytes and records. One whose position meets the
 * feed's is live again: nothing can be missed or repeated, because both positions move only on this
 * loop and never while it is compared. */
#include <stdlib.h>
#include "server/base/log.h"
#include "server/broker/broker_priv.h"
#include "server/broker/topic.h"

enum {
	READ_BYTES = 128 << 10,
	READS_MAX = 8,         /* under way per loop */
	TURN_BYTES = 64 << 10, /* of one subscriber */
	TURN_RECORDS = 512,
	TURN_ALL = 2 << 20, /* of all in one turn of the loop */
	FEW_FILTERS = 4,
	RETRY_MS = 200,
	RECORD_BYTES = 64, /* what a record counts for beside its value */
};

struct cold_read {
	struct record_read read;
	struct shard *shard;
	struct feed *feed;
	struct behind *for_whom; /* NULL: gone meanwhile */
};

/* ---- stepping through an entry */

void entry_walk_init(struct entry_walk *w, const struct entry *e)
{
	*w = (struct entry_walk){.open = false};
	change_batches_init(&w->batches, e);
}

static void batch_close(struct entry_walk *w)
{
	if (w->open)
		batch_walk_fini(&w->walk);
	w->open = false;
}

void entry_walk_fini(struct entry_walk *w)
{
	batch_close(w);
}

static enum err batch_unreadable(struct shard *s, const struct entry_walk *w, enum err e)
{
	COUNT(s, M_UNREADABLE, 1);
	LOG(LOG_WARN, AREA_BROKER, "batch_unreadable", "group=%llu offset=%lld err=\"%s\"",
		(unsigned long long)w->batches.entry->group, (long long)w->batch.base_offset,
		err_text(e));
	return e;
}

/* Opens the next batch with records at or above from. */
static enum err batch_open(struct shard *s, struct entry_walk *w, int64_t from)
{
	enum err e;
	while ((e = change_batches_next(&w->batches, &w->batch, &w->holder)) == OK) {
		if (w->batch.control || w->batch.base_offset + w->batch.last_offset_delta < from)
			continue;
		e = batch_walk_init(&w->walk, &w->batch, BATCH_INFLATED_MAX);
		w->open = e == OK;
		if (w->open)
			return OK;
		(void)batch_unreadable(s, w, e);
	}
	if (e != ERR_NOTFOUND)
		(void)batch_unreadable(s, w, e);
	return ERR_NOTFOUND;
}

enum err entry_walk_next(
	struct shard *s, struct entry_walk *w, int64_t from, struct record *r, int64_t *offset)
{
	for (;;) {
		if (!w->open && batch_open(s, w, from) != OK)
			return ERR_NOTFOUND;
		w->undo_at = w->walk.rd.at;
		enum err e = batch_walk_next(&w->walk, r);
		if (e == OK) {
			*offset = w->batch.base_offset + r->offset_delta;
			if (*offset >= from)
				return OK;
			continue;
		}
		if (e != ERR_NOTFOUND)
			(void)batch_unreadable(s, w, e);
		batch_close(w);
	}
}

/* ---- who is behind */

struct behind *behind_find(const struct subscriber *who, const struct feed *f)
{
	if (who->state == NULL)
		return NULL;
	const struct list *head = &who->state->behind;
	for (struct list *n = head->next; n != head; n = n->next) {
		struct behind *b = list_entry(n, struct behind, in_sub);
		if (b->feed == f)
			return b;
	}
	return NULL;
}

struct behind *behind_new(struct subscriber *who, struct feed *f, int64_t position)
{
	struct behind *b = mem_new(sizeof *b);
	struct subscriber_state *st = subscriber_state_make(who);
	b->who = who;
	b->feed = f;
	b->position = position;
	b->ahead = f->position < 0 || position > f->position;
	list_init(&b->in_reads);
	list_push_back(&st->behind, &b->in_sub);
	list_push_back(&f->behind, &b->in_feed);
	f->behind_count++;
	f->ahead_count += b->ahead;
	f->shard->behind_count++;
	return b;
}

static void run_release(struct behind *b)
{
	if (b->run != NULL)
		b->run->waiting--;
	b->run = NULL;
}

void catchup_blocked(struct subscriber *who)
{
	struct subscriber_state *st = who->state;
	st->blocked = true;
	for (struct list *n = st->behind.next; n != &st->behind; n = n->next)
		run_release(list_entry(n, struct behind, in_sub));
}

void behind_hint(struct behind *b, const struct entry_walk *w, uint64_t serial)
{
	if (!w->open || w->walk.inflated != NULL)
		return; /* the inflated bytes will not be there again */
	b->hint = *w;
	b->hint.walk.rd.at = w->undo_at;
	b->hint.walk.left++;
	b->hint_serial = serial;
}

static void tail_clear(struct feed *f);
static void run_free(struct run *r);

void behind_free(struct behind *b)
{
	struct feed *f = b->feed;
	struct subscriber *who = b->who;
	run_release(b);
	if (b->read != NULL)
		b->read->for_whom = NULL;
	list_remove(&b->in_reads);
	list_remove(&b->in_sub);
	list_remove(&b->in_feed);
	f->behind_count--;
	f->ahead_count -= b->ahead;
	f->shard->behind_count--;
	mem_free(b);
	subscriber_state_drop(who);
	if (f->behind_count > 0)
		return;
	tail_clear(f);
	while (!list_empty(&f->runs))
		run_free(list_entry(f->runs.next, struct run, in_feed));
}

void catchup_feed_gone(struct feed *f)
{
	while (!list_empty(&f->behind))
		behind_free(list_entry(f->behind.next, struct behind, in_feed));
	tail_clear(f);
}

void catchup_feed_moved(struct feed *f)
{
	if (f->ahead_count == 0)
		return;
	for (struct list *n = f->behind.next; n != &f->behind; n = n->next) {
		struct behind *b = list_entry(n, struct behind, in_feed);
		if (!b->ahead || b->position > f->position)
			continue;
		b->ahead = false;
		f->ahead_count--;
		catchup_ready(b->who);
	}
}

void catchup_ready(struct subscriber *who)
{
	struct shard *s = who->shard;
	if (who->private_node.next == &who->private_node)
		list_push_back(&s->ready, &who->private_node);
	loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

/* ---- the tail: entries dispatched lately */

static struct kept *tail_at(struct feed *f, uint32_t i)
{
	return &f->tail[(f->tail_at + i) & (f->tail_room - 1)];
}

static void tail_pop(struct feed *f)
{
	struct entry *e = tail_at(f, 0)->entry;
	size_t bytes = entry_memory(e);
	f->tail_bytes -= bytes;
	f->shard->tail_bytes -= bytes;
	f->tail_at = (f->tail_at + 1) & (f->tail_room - 1);
	f->tail_count--;
	entry_unref(e);
}

static void tail_clear(struct feed *f)
{
	while (f->tail_count > 0)
		tail_pop(f);
}

static void tail_grow(struct feed *f)
{
	uint32_t room = f->tail_room > 0 ? f->tail_room * 2 : 8;
	struct kept *bigger = mem_new(room * sizeof *bigger);
	for (uint32_t i = 0; i < f->tail_count; i++)
		bigger[i] = *tail_at(f, i);
	mem_free(f->tail);
	f->tail = bigger;
	f->tail_at = 0;
	f->tail_room = room;
}

/* Over the budget the feed that keeps most gives way. */
static void tails_trim(struct shard *s)
{
	size_t limit = (size_t)s->broker->conf->feed_bytes / 4 * 3;
	while (s->tail_bytes > limit) {
		struct feed *most = NULL;
		uint32_t at = 0;
		for (struct feed *f; (f = map_next(&s->feeds, &at)) != NULL;)
			if (most == NULL || f->tail_bytes > most->tail_bytes)
				most = f;
		must(most != NULL && most->tail_count > 0);
		tail_pop(most);
	}
}

void catchup_keep(struct feed *f, struct entry *e)
{
	struct shard *s = f->shard;
	size_t bytes = entry_memory(e);
	if (f->tail_count == f->tail_room)
		tail_grow(f);
	f->tail_count++;
	*tail_at(f, f->tail_count - 1) = (struct kept){entry_ref(e), ++s->serial};
	f->tail_bytes += bytes;
	s->tail_bytes += bytes;
	tails_trim(s);
}

static bool covers(const struct entry *e, int64_t offset)
{
	return e->head.base_offset <= offset && offset < entry_next_offset(&e->head);
}

static struct kept *tail_find(struct feed *f, int64_t offset)
{
	uint32_t low = 0, high = f->tail_count;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		if (entry_next_offset(&tail_at(f, mid)->entry->head) <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low < f->tail_count && covers(tail_at(f, low)->entry, offset) ? tail_at(f, low)
									     : NULL;
}

/* ---- runs: entries read from the log */

static void run_free(struct run *r)
{
	struct shard *s = r->feed->shard;
	s->run_bytes -= r->bytes;
	list_remove(&r->in_feed);
	list_remove(&r->in_shard);
	for (int i = 0; i < r->count; i++)
		entry_unref(r->entries[i].entry);
	mem_free(r->entries);
	mem_free(r);
}

static void runs_trim(struct shard *s, const struct run *newest)
{
	size_t limit = (size_t)s->broker->conf->feed_bytes / 4;
	for (struct list *n = s->runs.next; n != &s->runs && s->run_bytes > limit;) {
		struct run *r = list_entry(n, struct run, in_shard);
		n = n->next;
		if (r != newest && r->waiting == 0)
			run_free(r);
	}
}

static struct run *run_make(struct feed *f, const struct record_read *read)
{
	struct shard *s = f->shard;
	struct run *r = mem_new(sizeof *r);
	r->feed = f;
	r->count = read->count;
	r->entries = mem_new((size_t)read->count * sizeof *r->entries);
	for (int i = 0; i < read->count; i++) {
		r->entries[i] = (struct kept){entry_ref(read->entries[i]), ++s->serial};
		r->bytes += entry_memory(read->entries[i]);
	}
	/* What was asked for, though compaction may have left nothing of it. */
	r->from = read->offset < read->entries[0]->head.base_offset
		? read->offset
		: read->entries[0]->head.base_offset;
	r->to = entry_next_offset(&read->entries[read->count - 1]->head);
	list_push_back(&f->runs, &r->in_feed);
	list_push_back(&s->runs, &r->in_shard);
	s->run_bytes += r->bytes;
	return r;
}

static struct kept *run_find(struct feed *f, int64_t offset)
{
	for (struct list *n = f->runs.next; n != &f->runs; n = n->next) {
		struct run *r = list_entry(n, struct run, in_feed);
		if (offset < r->from || offset >= r->to)
			continue;
		for (int i = 0; i < r->count; i++)
			if (entry_next_offset(&r->entries[i].entry->head) > offset) {
				list_remove(&r->in_shard);
				list_push_back(&f->shard->runs, &r->in_shard);
				return &r->entries[i];
			}
	}
	return NULL;
}

static struct kept *kept_find(struct feed *f, int64_t offset)
{
	struct kept *k = tail_find(f, offset);
	return k != NULL ? k : run_find(f, offset);
}

/* ---- reading the log */

static void cold_done(struct record_read *r);

static void reads_start(struct shard *s)
{
	while (s->reads_active < READS_MAX && !list_empty(&s->reads)) {
		struct behind *b = list_entry(list_pop(&s->reads), struct behind, in_reads);
		b->state = BEHIND_IDLE;
		if (b->who->state->blocked)
			continue; /* it will ask again when it is ready */
		if (kept_find(b->feed, b->position) != NULL) { /* read for another meanwhile */
			catchup_ready(b->who);
			continue;
		}
		struct cold_read *c = mem_new(sizeof *c);
		c->shard = s;
		c->feed = b->feed;
		c->for_whom = b;
		b->read = c;
		b->state = BEHIND_READING;
		b->feed->reads++;
		s->reads_active++;
		COUNT(s, M_CATCHUP_READS, 1);
		c->read.from = b->feed->partition;
		c->read.offset = b->position;
		c->read.bytes_max = READ_BYTES;
		c->read.done = cold_done;
		partition_read_records(&c->read);
	}
}

static void behind_skips(struct behind *b, int64_t to)
{
	struct subscriber *who = b->who;
	int64_t from = b->position;
	COUNT(who->shard, M_SKIPPED, to - from);
	b->position = to;
	b->hint_serial = 0;
	if (b->feed->position >= 0 && to > b->feed->position && !b->ahead) {
		b->ahead = true;
		b->feed->ahead_count++;
	}
	catchup_ready(who);
	if (who->ops->skipped != NULL)
		who->ops->skipped(who, b->feed->partition, from, to);
}

/* False: it is to be tried again, later. */
static bool cold_take(struct cold_read *c)
{
	struct shard *s = c->shard;
	struct behind *b = c->for_whom;
	struct run *run = NULL;
	if (c->read.err == OK && c->read.count > 0 && c->feed->behind_count > 0) {
		run = run_make(c->feed, &c->read);
		COUNT(s, M_CATCHUP_BYTES, run->bytes);
	}
	if (b != NULL) {
		b->read = NULL;
		b->state = BEHIND_IDLE;
		if (run != NULL) {
			/* Held for one that can go on; one that is blocked may take for ever. */
			b->run = b->who->state->blocked ? NULL : run;
			run->waiting += b->run != NULL;
			catchup_ready(b->who);
		} else if (c->read.err == ERR_RANGE && c->read.first_offset > b->position) {
			behind_skips(b, c->read.first_offset);
		} else {
			b->state = BEHIND_QUEUED; /* at the next tick */
			list_push_back(&s->reads, &b->in_reads);
			priv_tick(s, RETRY_MS);
			return false;
		}
	}
	if (run != NULL)
		runs_trim(s, run);
	return true;
}

static void cold_done(struct record_read *r)
{
	struct cold_read *c = list_entry(r, struct cold_read, read);
	struct shard *s = c->shard;
	struct feed *f = c->feed;
	bool go_on = true;
	s->reads_active--;
	f->reads--;
	if (!f->dead)
		go_on = cold_take(c);
	else if (f->reads == 0 && !f->filling)
		feed_free(f);
	record_read_fini(r);
	mem_free(c);
	if (go_on) /* else those who wait would try the same at once, again and again */
		reads_start(s);
}

void catchup_retry(struct shard *s)
{
	reads_start(s);
}

/* ---- serving one subscriber */

struct budget {
	int64_t bytes, records;
};

static void scratch_add(struct shard *s, int *count, struct subscription *sub)
{
	size_t room = (size_t)s->scratch_room;
	s->scratch = priv_grown(s->scratch, (size_t)*count, &room, sizeof(struct subscription *));
	s->scratch_room = (int)room;
	s->scratch[(*count)++] = sub;
}

static const struct match_hit *hit_of(const struct match_result *r, const struct subscriber *who)
{
	int low = 0, high = r->count;
	while (low < high) {
		int mid = low + (high - low) / 2;
		if ((uintptr_t)r->hits[mid].who < (uintptr_t)who)
			low = mid + 1;
		else
			high = mid;
	}
	return low < r->count && r->hits[low].who == who ? &r->hits[low] : NULL;
}

/* Those of who's subscriptions that a record reaches go to shard.scratch. One with few filters
 * tries them all: looking up the topic would fill the cache with old topics. */
static int matches_find(struct behind *b, struct bytes topic, int64_t offset)
{
	struct shard *s = b->feed->shard;
	struct subscriber *who = b->who;
	int count = 0, seen = 0;
	for (struct list *n = who->subscriptions.next; n != &who->subscriptions; n = n->next) {
		struct subscription *sub = list_entry(n, struct subscription, node);
		if (++seen > FEW_FILTERS)
			break;
		if (subscription_counts(sub, b->feed->group, offset) &&
			topic_matches(sub->filter, topic))
			scratch_add(s, &count, sub);
	}
	if (seen <= FEW_FILTERS)
		return count;
	count = 0;
	const struct match_hit *hit = hit_of(match_find(who->space->match, topic), who);
	for (int i = 0; hit != NULL && i < hit->count; i++)
		if (subscription_counts(hit->matches[i], b->feed->group, offset))
			scratch_add(s, &count, hit->matches[i]);
	return count;
}

static enum offer record_offer(struct behind *b, struct delivery *d, const struct message *m)
{
	struct shard *s = b->feed->shard;
	d->match_count = matches_find(b, m->topic, d->offset);
	if (d->match_count == 0)
		return OFFER_TAKEN;
	d->matches = s->scratch;
	d->qos = 0;
	for (int i = 0; i < d->match_count; i++)
		d->qos = d->matches[i]->qos > d->qos ? d->matches[i]->qos : d->qos;
	return deliver_offer(b->who, d);
}

static void walk_begin(struct behind *b, const struct kept *k, struct entry_walk *w)
{
	if (b->hint_serial == k->serial)
		*w = b->hint;
	else
		entry_walk_init(w, k->entry);
	b->hint_serial = 0;
}

static enum served entry_serve(struct behind *b, const struct kept *k, struct budget *left)
{
	struct feed *f = b->feed;
	struct entry *e = entry_ref(k->entry); /* serving may move what is kept */
	uint64_t serial = k->serial;
	enum served served = SERVED_MORE;
	struct entry_walk w;
	struct record r;
	struct message m;
	struct delivery d = {.message = &m, .stream = f->stream, .partition = f->partition};
	struct bytes stream = space_bare_name(f->space, f->stream);
	walk_begin(b, k, &w);
	while (left->bytes > 0 && left->records > 0) {
		if (entry_walk_next(f->shard, &w, b->position, &r, &d.offset) != OK) {
			b->position = entry_next_offset(&e->head);
			served = SERVED_LIVE;
			break;
		}
		message_decode(&r, stream, &m);
		d.holder = w.walk.inflated == NULL ? w.holder : NULL;
		b->position = d.offset;
		enum offer o = record_offer(b, &d, &m);
		if (o != OFFER_TAKEN) {
			served = o == OFFER_GONE ? SERVED_GONE : SERVED_REFUSED;
			break;
		}
		b->position = d.offset + 1;
		left->bytes -= (int64_t)m.value.len + RECORD_BYTES;
		left->records--;
	}
	if (served == SERVED_REFUSED) {
		catchup_blocked(b->who);
		behind_hint(b, &w, serial);
	}
	entry_walk_fini(&w);
	entry_unref(e);
	return served;
}

static enum served behind_serve(struct behind *b, struct budget *left)
{
	struct feed *f = b->feed;
	struct shard *s = f->shard;
	while (!b->ahead && b->state == BEHIND_IDLE) {
		if (b->position == f->position) {
			behind_free(b);
			return SERVED_LIVE;
		}
		if (b->position > f->position) {
			b->ahead = true;
			f->ahead_count++;
			break;
		}
		struct kept *k = kept_find(f, b->position);
		run_release(b);
		if (k == NULL) {
			b->state = BEHIND_QUEUED;
			list_push_back(&s->reads, &b->in_reads);
			reads_start(s);
			break;
		}
		enum served served = entry_serve(b, k, left);
		if (served != SERVED_LIVE)
			return served;
	}
	return SERVED_WAITS;
}

static int behind_count(const struct subscriber *who)
{
	int count = 0;
	if (who->state == NULL)
		return 0;
	for (struct list *n = who->state->behind.next; n != &who->state->behind; n = n->next)
		count++;
	return count;
}

/* Partition by partition, beginning with another one each time. */
static enum served subscriber_serve(struct subscriber *who, struct budget *left)
{
	for (int i = behind_count(who); i > 0 && who->state != NULL; i--) {
		struct list *head = &who->state->behind;
		if (who->state->blocked || list_empty(head))
			return SERVED_REFUSED;
		struct behind *b = list_entry(head->next, struct behind, in_sub);
		list_remove(&b->in_sub);
		list_push_back(head, &b->in_sub);
		enum served served = behind_serve(b, left);
		if (served == SERVED_GONE || served == SERVED_REFUSED || served == SERVED_MORE)
			return served;
	}
	return SERVED_WAITS;
}

bool catchup_run(struct shard *s)
{
	struct list again;
	int64_t all = TURN_ALL;
	list_init(&again);
	while (all > 0 && !list_empty(&s->ready)) {
		struct subscriber *who = list_entry(
			list_pop(&s->ready), struct subscriber, private_node);
		struct budget left = {TURN_BYTES, TURN_RECORDS};
		enum served served = subscriber_serve(who, &left);
		all -= TURN_BYTES - left.bytes;
		if (served == SERVED_GONE)
			continue;
		bool more = served == SERVED_MORE;
		if (who->state != NULL && !who->state->blocked) {
			served = retained_serve(who, &more);
			if (served == SERVED_GONE)
				continue;
		}
		if (more) {
			list_remove(&who->private_node);
			list_push_back(&again, &who->private_node);
		}
	}
	for (struct list *n; (n = list_pop(&again)) != NULL;)
		list_push_back(&s->ready, n);
	retained_start(s);
	return !list_empty(&s->ready);
}
