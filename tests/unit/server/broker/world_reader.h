/* Subscribers that keep what they are given, for tests of deliveries. */
#ifndef TESTS_BROKER_WORLD_READER_H
#define TESTS_BROKER_WORLD_READER_H
#include "server/broker/topic.h"
#include "tests/unit/server/broker/world.h"

enum { LOOPS = 3 };

static struct world w;

enum { SEEN_PARTITIONS = 64 };

struct got {
	uint64_t group;
	int64_t offset;
	bool retained;
	char topic[24], value[24];
	int match_count;
	uint8_t qos;
};

struct reader {
	struct subscriber s;
	const char *tenant;
	int loop;
	struct loop_timer timer;
	int refuse_percent;
	bool stopped;   /* refuses everything */
	size_t stop_at; /* stops when it has kept as many; 0: does not */
	bool leave;     /* ends itself at the next record */
	struct got *got;
	size_t count, room;
	size_t keep; /* gots kept; beyond, only counted */
	int64_t skipped;
	uint64_t groups[SEEN_PARTITIONS];
	int64_t next[SEEN_PARTITIONS];
	int group_count;
	bool disorder;
	struct subscribe op;
	enum err err;
	_Atomic int64_t total;
};

static inline void wake(struct loop_timer *t)
{
	struct reader *r = list_entry(t, struct reader, timer);
	if (!r->stopped)
		subscriber_ready(&r->s);
}

static inline void order_check(struct reader *r, const struct delivery *d)
{
	uint64_t group = partition_group(d->partition);
	int i = 0;
	while (i < r->group_count && r->groups[i] != group)
		i++;
	if (i == r->group_count) {
		must(i < SEEN_PARTITIONS);
		r->groups[r->group_count++] = group;
	} else if (d->offset < r->next[i]) {
		r->disorder = true;
	}
	r->next[i] = d->offset + 1;
}

static inline void text_keep(char *out, size_t size, struct bytes b)
{
	size_t n = b.len < size ? b.len : size - 1;
	if (n > 0)
		memcpy(out, b.at, n);
	out[n] = 0;
}

static inline bool take(struct subscriber *s, const struct delivery *d)
{
	struct reader *r = list_entry(s, struct reader, s);
	loop_must_own(s->shard->loop);
	r->stopped = r->stopped || (r->stop_at > 0 && r->count == r->stop_at);
	if (r->stopped || (int)(random_u64() % 100) < r->refuse_percent) {
		loop_timer_set(&r->timer, (int64_t)(random_u64() % 3));
		return false;
	}
	if (d->partition != NULL && !d->retained)
		order_check(r, d);
	for (int i = 0; i < d->match_count; i++)
		must(d->matches[i]->who == s &&
			topic_matches(d->matches[i]->filter, d->message->topic));
	if (r->count < r->keep) {
		r->got = priv_grown(r->got, r->count, &r->room, sizeof *r->got);
		struct got *g = &r->got[r->count++];
		*g = (struct got){.offset = d->offset,
			.retained = d->retained,
			.match_count = d->match_count,
			.qos = d->qos};
		g->group = d->partition != NULL ? partition_group(d->partition) : 0;
		text_keep(g->topic, sizeof g->topic, d->message->topic);
		text_keep(g->value, sizeof g->value, d->message->value);
	}
	atomic_fetch_add(&r->total, 1);
	if (r->leave)
		subscriber_fini(s);
	return true;
}

static inline void passed_over(struct subscriber *s, struct partition *p, int64_t from, int64_t to)
{
	(void)p;
	list_entry(s, struct reader, s)->skipped += to - from;
}
static const struct subscriber_ops ops = {take, passed_over};

static inline void reader_init_run(void *arg)
{
	struct reader *r = arg;
	struct shard *s = world_shard(&w, r->loop);
	subscriber_init(&r->s, s, bytes_text(r->tenant), &ops);
	loop_timer_init(&r->timer, shard_loop(s), wake);
	sem_post(&w.done);
}
static inline struct reader *reader_new(int loop)
{
	struct reader *r = mem_new(sizeof *r);
	r->tenant = "";
	r->loop = loop;
	r->keep = 1000;
	world_call(&w, loop, reader_init_run, r);
	return r;
}

static inline void reader_end_run(void *arg)
{
	struct reader *r = arg;
	loop_timer_cancel(&r->timer);
	if (!r->leave)
		subscriber_fini(&r->s);
	sem_post(&w.done);
}
static inline void reader_free(struct reader *r)
{
	world_call(&w, r->loop, reader_end_run, r);
	mem_free(r->got);
	mem_free(r);
}

static inline void subscribed(struct subscribe *op)
{
	sem_post(&w.done);
	(void)op;
}
static inline void subscribe_run(void *arg)
{
	struct reader *r = arg;
	r->op.who = &r->s;
	r->op.done = subscribed;
	subscriber_subscribe(&r->op);
}
static inline enum err subscribe(struct reader *r, const char *filter)
{
	r->op.filter = bytes_text(filter);
	r->op.qos = 1;
	world_call(&w, r->loop, subscribe_run, r);
	return r->op.err;
}

static inline void unsubscribe_run(void *arg)
{
	struct reader *r = arg;
	r->err = subscriber_unsubscribe(&r->s, r->op.filter);
	sem_post(&w.done);
}
static inline enum err unsubscribe(struct reader *r, const char *filter)
{
	r->op.filter = bytes_text(filter);
	world_call(&w, r->loop, unsubscribe_run, r);
	return r->err;
}

static inline void ready_run(void *arg)
{
	struct reader *r = arg;
	r->stopped = false;
	r->stop_at = 0;
	subscriber_ready(&r->s);
	sem_post(&w.done);
}
static inline void reader_go(struct reader *r)
{
	world_call(&w, r->loop, ready_run, r);
}

static inline void nothing_run(void *arg)
{
	(void)arg;
	sem_post(&w.done);
}
/* Waits until the reader has had n; then a little longer for what would be too much. */
static inline void reader_wait(struct reader *r, int64_t n)
{
	for (int i = 0; i < 6000 && atomic_load(&r->total) < n; i++)
		usleep(2000);
	usleep(20000);
	world_call(&w, r->loop, nothing_run, NULL); /* what it kept is seen by this thread */
	ck_assert_int_eq(atomic_load(&r->total), n);
	ck_assert(!r->disorder);
}

struct peek { /* what a reader has, looked at on its loop */
	struct reader *r;
	char last[16];
	bool back; /* a value came after a newer one */
};
static inline void peek_run(void *arg)
{
	struct peek *p = arg;
	const struct reader *r = p->r;
	p->last[0] = 0;
	if (r->count > 0)
		snprintf(p->last, sizeof p->last, "%.15s", r->got[r->count - 1].value);
	for (size_t k = 1; k < r->count; k++)
		p->back = p->back || strcmp(r->got[k - 1].value, r->got[k].value) >= 0;
	sem_post(&w.done);
}

#endif
