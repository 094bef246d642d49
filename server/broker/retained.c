/* Retained messages for a new subscription: the rows of all partitions its filter may touch, read
 * in pages in order of topic and merged, so that a topic with values in two partitions (the stream
 * has been given more, or the message a key of its own) is sent once, the newest. Live delivery
 * owes the subscription all from the feed's position on; a row whose record is there comes live, or
 * came, and is not sent again. So the order read-then-live needs no memory of topics.
 *
 * Pages are large, so only so many subscriptions of a loop have a place to read at a time: at most
 * one of a subscriber, its first. The others wait. Who takes nothing now keeps its place only while
 * nobody else wants it; then its pages go, and are read again from where it stopped. */
#include "server/broker/retained.h"
#include "server/broker/broker_priv.h"
#include "server/broker/keyspace.h"
#include "server/broker/topic.h"

enum {
	ROW_LAYOUT = 1,
	PLACES = 16,
	PAGE_ROWS = 64,
	PAGE_BYTES = 32 << 10,
	TURN_ROWS = 64,
	NEWER_MAX = 16384, /* topics remembered by one job */
	RETRY_MS = 200,
};

/* ---- the row */

void retained_row_encode(const struct retained_row *row, struct buf *out)
{
	buf_add_u8(out, ROW_LAYOUT);
	buf_add_u64be(out, (uint64_t)row->offset);
	buf_add_u64be(out, (uint64_t)row->base_ms);
	buf_add(out, row->record);
}

enum err retained_row_decode(
	struct bytes topic, struct bytes value, struct message *out, int64_t *offset)
{
	struct rd r = rd_over(value);
	struct record record;
	uint8_t layout = rd_u8(&r);
	*offset = (int64_t)rd_u64be(&r);
	int64_t base_ms = (int64_t)rd_u64be(&r);
	if (r.err != OK || layout != ROW_LAYOUT)
		return ERR_CORRUPT;
	struct batch_walk w = {.rd = r, .base_ms = base_ms, .left = 1};
	if (batch_walk_next(&w, &record) != OK || rd_left(&w.rd) != 0)
		return ERR_CORRUPT;
	message_decode(&record, topic, out);
	out->topic = topic;
	return OK;
}

/* ---- the job */

struct part { /* one partition's rows */
	struct row_read read;
	struct retained_send *job;
	uint64_t group;
	int64_t boundary; /* from here on records come live */
	bool busy, failed, exhausted;
	bool stale; /* the page is to be read again from row `at` on */
	int at;     /* row next to be sent */
	uint8_t *after;
};

enum job_state {
	JOB_IDLE,   /* its subscriber takes nothing now, or takes for another one first */
	JOB_QUEUED, /* wants a place */
	JOB_READING /* has one */
};

struct retained_send {
	struct list in_sub, node;
	struct shard *shard;
	struct subscription *sub;
	enum job_state state;
	bool dead, literal;
	struct bytes prefix; /* of the filter; in text: reads outlive the subscription */
	int part_count, busy;
	struct part *parts;
	/* Hashes of topics whose newer retained message came live since the reading began: their
	 * rows may have been read before it and must not follow it. */
	struct map newer;
	uint8_t text[];
};

/* What all matching topics start with. "a/#" matches "a", too. */
static struct bytes filter_prefix(struct bytes filter)
{
	size_t len = 0;
	while (len < filter.len && filter.at[len] != '+' && filter.at[len] != '#')
		len++;
	if (len < filter.len && filter.at[len] == '#' && len > 0)
		len--;
	return bytes_of(filter.at, len);
}

static void job_free(struct retained_send *j)
{
	struct shard *s = j->shard;
	for (int i = 0; i < j->part_count; i++) {
		row_read_fini(&j->parts[i].read);
		mem_free(j->parts[i].after);
	}
	list_remove(&j->node);
	map_fini(&j->newer);
	s->retained_count -= j->state == JOB_READING;
	mem_free(j->parts);
	mem_free(j);
}

static struct retained_send *job_of(const struct subscription *sub)
{
	return (struct retained_send *)(uintptr_t)sub->priv[2];
}

/* The key after which the next page begins, that of the last row passed, outlives its page. */
static struct bytes after_take(struct part *p)
{
	if (p->job->literal)
		return bytes_of(NULL, 0);
	if (p->at == 0)
		return p->read.after; /* nothing of it was used: asked for again */
	struct bytes key = p->read.rows[p->at - 1].key;
	uint8_t *copy = mem_try(key.len + 1);
	must(copy != NULL);
	memcpy(copy, key.at, key.len);
	mem_free(p->after);
	p->after = copy;
	return bytes_of(copy, key.len);
}

/* What has been read is to be read again, up to date, so nothing newer need be remembered. */
static void pages_discard(struct retained_send *j)
{
	map_fini(&j->newer);
	memset(&j->newer, 0, sizeof j->newer);
	for (int i = 0; i < j->part_count; i++) {
		struct part *p = &j->parts[i];
		p->stale = p->busy || p->at < p->read.count;
	}
}

static void job_idle(struct retained_send *j)
{
	struct shard *s = j->shard;
	s->retained_count -= j->state == JOB_READING;
	j->state = JOB_IDLE;
	list_remove(&j->node);
	list_push_back(&s->retained_idle, &j->node);
}

/* Gives up its place and its pages. */
static void job_yield(struct retained_send *j)
{
	pages_discard(j);
	for (int i = 0; i < j->part_count; i++) {
		struct part *p = &j->parts[i];
		struct bytes after = after_take(p);
		row_read_fini(&p->read);
		p->read.after = after;
		p->at = 0;
		p->failed = false; /* retained_retry will not find it */
	}
	job_idle(j);
}

/* Whether there is a place, if need be that of one whose subscriber takes nothing now. */
static bool place_free(struct shard *s)
{
	if (s->retained_count < PLACES)
		return true;
	for (struct list *n = s->retained_active.next; n != &s->retained_active; n = n->next) {
		struct retained_send *j = list_entry(n, struct retained_send, node);
		if (!j->dead && j->busy == 0 && j->sub->who->state->blocked) {
			job_yield(j);
			return true;
		}
	}
	return false;
}

void retained_start(struct shard *s)
{
	while (!list_empty(&s->retained_queued)) {
		struct list *n = s->retained_queued.next;
		struct retained_send *j = list_entry(n, struct retained_send, node);
		if (j->sub->who->state->blocked) {
			job_idle(j); /* it will ask again when it is ready */
			continue;
		}
		if (!place_free(s))
			return;
		list_remove(n);
		list_push_back(&s->retained_active, n);
		j->state = JOB_READING;
		s->retained_count++;
		catchup_ready(j->sub->who);
	}
}

static void job_end(struct retained_send *j)
{
	struct shard *s = j->shard;
	struct subscriber *who = j->sub->who;
	j->sub->priv[2] = 0;
	list_remove(&j->in_sub);
	job_free(j);
	subscriber_state_drop(who);
	retained_start(s);
}

/* Ends it without its subscription; memory stays until its reads have come back. */
static void job_cancel(struct retained_send *j)
{
	list_remove(&j->in_sub);
	j->sub->priv[2] = 0;
	j->dead = true;
	j->sub = NULL;
	if (j->busy == 0) {
		struct shard *s = j->shard;
		job_free(j);
		retained_start(s);
	}
}

void retained_cancel(struct subscriber *who, const struct subscription *only)
{
	if (who->state == NULL)
		return;
	struct retained_send *one = only != NULL ? job_of(only) : NULL;
	if (one != NULL)
		job_cancel(one);
	if (one != NULL && !list_empty(&who->state->retained))
		catchup_ready(who); /* another one may be the first now */
	while (only == NULL && !list_empty(&who->state->retained))
		job_cancel(list_entry(who->state->retained.next, struct retained_send, in_sub));
	subscriber_state_drop(who);
}

static void parts_make(struct retained_send *j)
{
	struct space *sp = j->sub->who->space;
	int count = 0;
	j->parts = mem_new((size_t)(sp->feed_count > 0 ? sp->feed_count : 1) * sizeof *j->parts);
	for (struct list *n = sp->feeds.next; n != &sp->feeds; n = n->next) {
		const struct feed *f = list_entry(n, struct feed, in_space);
		struct part *p = &j->parts[count++];
		p->job = j;
		p->group = f->group;
		p->boundary = f->position >= 0 ? f->position : INT64_MAX;
	}
	j->part_count = count;
}

void retained_begin(struct subscription *sub)
{
	struct shard *s = sub->who->shard;
	retained_cancel(sub->who, sub);
	bool literal = topic_filter_literal(sub->filter);
	struct bytes prefix = literal ? sub->filter : filter_prefix(sub->filter);
	struct retained_send *j = mem_new(sizeof *j + prefix.len);
	j->shard = s;
	j->sub = sub;
	j->literal = literal;
	memcpy(j->text, prefix.at, prefix.len);
	j->prefix = bytes_of(j->text, prefix.len);
	parts_make(j);
	sub->priv[2] = (uint64_t)(uintptr_t)j;
	list_push_back(&subscriber_state_make(sub->who)->retained, &j->in_sub);
	list_push_back(&s->retained_idle, &j->node);
	catchup_ready(sub->who);
}

void retained_overtaken(struct subscriber *who, struct bytes topic)
{
	struct list *head = &who->state->retained;
	for (struct list *n = head->next; n != head; n = n->next) {
		struct retained_send *j = list_entry(n, struct retained_send, in_sub);
		if (j->state != JOB_READING)
			continue; /* has no pages */
		if (j->newer.count >= NEWER_MAX)
			pages_discard(j); /* too many to remember */
		(void)map_put_u64(&j->newer, hash_bytes(topic), j);
	}
}

static void page_done(struct row_read *r)
{
	struct part *p = list_entry(r, struct part, read);
	struct retained_send *j = p->job;
	struct shard *s = j->shard;
	p->busy = false;
	j->busy--;
	if (r->err != OK && r->err != ERR_NOTFOUND && r->err != ERR_CLOSED) {
		p->failed = true; /* no leader for now, a disk that stalls */
		priv_tick(s, RETRY_MS);
	}
	if (r->err != OK)
		r->count = 0;
	p->at = 0;
	p->exhausted = !p->failed && (r->err != OK || j->literal || !r->more);
	if (j->dead && j->busy == 0) {
		job_free(j);
		retained_start(s);
	} else if (!j->dead) {
		catchup_ready(j->sub->who);
	}
}

static void page_ask(struct retained_send *j, struct part *p)
{
	struct shard *s = j->shard;
	struct feed *f = map_get_u64(&s->feeds, p->group);
	struct bytes after = after_take(p);
	p->stale = false;
	row_read_fini(&p->read);
	if (f == NULL) { /* its stream is gone, or no route leads there any more */
		p->exhausted = true;
		p->read.count = 0;
		p->at = 0;
		return;
	}
	p->read = (struct row_read){.from = f->partition,
		.keyspace = KEYSPACE_RETAINED,
		.prefix = !j->literal,
		.key = j->prefix,
		.after = after,
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = page_done};
	p->busy = true;
	j->busy++;
	partition_read_rows(&p->read);
}

/* Sees to it that each partition has a row at hand or none left; false: pages are on their way. */
static bool heads_ready(struct retained_send *j)
{
	for (int i = 0; i < j->part_count; i++) {
		struct part *p = &j->parts[i];
		if (p->busy || p->failed)
			continue; /* the page is its partition's to write */
		if (p->stale || (!p->exhausted && p->at >= p->read.count))
			page_ask(j, p);
	}
	for (int i = 0; i < j->part_count; i++)
		if (j->parts[i].failed)
			return false;
	return j->busy == 0;
}

static struct bytes head_key(const struct retained_send *j, const struct part *p)
{
	return j->literal ? j->prefix : p->read.rows[p->at].key;
}

/* The least topic at hand; false: all rows have been sent. */
static bool topic_next(const struct retained_send *j, struct bytes *out)
{
	bool found = false;
	for (int i = 0; i < j->part_count; i++) {
		const struct part *p = &j->parts[i];
		if (p->at >= p->read.count)
			continue;
		struct bytes key = head_key(j, p);
		if (!found || bytes_compare(key, *out) < 0)
			*out = key;
		found = true;
	}
	return found;
}

struct value { /* the newest value of a topic */
	struct message m;
	struct delivery d;
	bool live; /* comes live, or came */
};

static bool value_find(struct retained_send *j, struct bytes topic, struct value *out)
{
	bool found = false;
	for (int i = 0; i < j->part_count; i++) {
		const struct part *p = &j->parts[i];
		struct message m;
		int64_t offset;
		if (p->at >= p->read.count || !bytes_equal(head_key(j, p), topic))
			continue;
		if (retained_row_decode(topic, p->read.rows[p->at].value, &m, &offset) != OK) {
			COUNT(j->shard, M_RETAINED_SKIPPED, 1);
			continue;
		}
		if (found && m.timestamp_ms < out->m.timestamp_ms)
			continue;
		struct feed *f = map_get_u64(&j->shard->feeds, p->group);
		found = true;
		out->m = m;
		out->live = offset >= p->boundary;
		out->d = (struct delivery){.offset = offset, .retained = true};
		if (f != NULL && offset >= 0) {
			out->d.stream = f->stream;
			out->d.partition = f->partition;
		}
	}
	return found;
}

static void topic_passed(struct retained_send *j, struct bytes topic)
{
	/* The topic's bytes may be those of a page: compare all before moving any. */
	for (int i = 0; i < j->part_count; i++) {
		struct part *p = &j->parts[i];
		if (p->at < p->read.count && bytes_equal(head_key(j, p), topic))
			p->at++;
	}
}

static enum offer topic_offer(struct retained_send *j, struct bytes topic)
{
	struct value v;
	struct subscription *sub = j->sub;
	if (!topic_matches(sub->filter, topic) || !value_find(j, topic, &v) || v.live)
		return OFFER_TAKEN;
	if (map_get_u64(&j->newer, hash_bytes(topic)) != NULL)
		return OFFER_TAKEN;
	if (v.m.expires_at_ms != 0 && v.m.expires_at_ms <= loop_now_wall_ms(j->shard->loop)) {
		COUNT(j->shard, M_RETAINED_SKIPPED, 1);
		return OFFER_TAKEN;
	}
	v.d.message = &v.m;
	v.d.matches = &sub;
	v.d.match_count = 1;
	v.d.qos = sub->qos;
	v.m.retain = true;
	enum offer o = deliver_offer(sub->who, &v.d);
	if (o == OFFER_TAKEN)
		COUNT(j->shard, M_RETAINED_SENT, 1);
	return o;
}

static enum served job_serve(struct retained_send *j)
{
	for (int left = TURN_ROWS; left > 0; left--) {
		struct bytes topic;
		if (!heads_ready(j))
			return SERVED_WAITS;
		if (!topic_next(j, &topic)) {
			job_end(j);
			return SERVED_LIVE;
		}
		struct subscriber *who = j->sub->who;
		j->busy++; /* deliver may unsubscribe: then the pages go with the job, later */
		enum offer o = topic_offer(j, topic);
		j->busy--;
		if (o == OFFER_GONE || j->dead) {
			struct shard *s = j->shard;
			job_free(j);
			retained_start(s);
			return o == OFFER_GONE ? SERVED_GONE : SERVED_LIVE;
		}
		if (o == OFFER_REFUSED) {
			catchup_blocked(who);
			return SERVED_REFUSED;
		}
		topic_passed(j, topic);
	}
	return SERVED_MORE;
}

enum served retained_serve(struct subscriber *who, bool *more)
{
	/* One at a time, in order of subscribing. */
	while (who->state != NULL && !list_empty(&who->state->retained)) {
		struct retained_send *j = list_entry(
			who->state->retained.next, struct retained_send, in_sub);
		if (j->state == JOB_IDLE) {
			j->state = JOB_QUEUED;
			list_remove(&j->node);
			list_push_back(&j->shard->retained_queued, &j->node);
			retained_start(j->shard);
		}
		if (j->state != JOB_READING)
			return SERVED_WAITS;
		enum served served = job_serve(j);
		if (served == SERVED_LIVE)
			continue;
		*more = *more || served == SERVED_MORE;
		return served;
	}
	return SERVED_LIVE;
}

void retained_retry(struct shard *s)
{
	for (struct list *n = s->retained_active.next; n != &s->retained_active; n = n->next) {
		struct retained_send *j = list_entry(n, struct retained_send, node);
		for (int i = 0; i < j->part_count; i++)
			j->parts[i].failed = false;
		if (!j->dead)
			catchup_ready(j->sub->who);
	}
}

void retained_fini(struct shard *s)
{
	while (!list_empty(&s->retained_active))
		job_free(list_entry(s->retained_active.next, struct retained_send, node));
	while (!list_empty(&s->retained_queued))
		job_free(list_entry(s->retained_queued.next, struct retained_send, node));
	while (!list_empty(&s->retained_idle))
		job_free(list_entry(s->retained_idle.next, struct retained_send, node));
}
