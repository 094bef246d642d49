/* The life of sessions in memory. The subscriber's deliveries pass here, so that none reaches the
 * adapter before the client has been told that it is connected, nor before what was in flight has
 * been sent again: the order of a topic's messages holds over a reconnect. */
#include <time.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/session_priv.h"
#include "server/broker/tenant.h"

static struct session *of_reader(struct subscriber *r)
{
	return list_entry(r, struct session, reader);
}

struct partition *session_partition(struct shard *s, uint64_t group)
{
	const struct catalog *c = shard_catalog(s);
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *stream = catalog_stream_at(c, i);
		for (int k = 0; k < stream->partition_count; k++)
			if (partition_group(stream->partitions[k]) == group)
				return stream->partitions[k];
	}
	return NULL;
}

/* Deliveries */

static bool session_deliver(struct subscriber *r, const struct delivery *d)
{
	struct session *s = of_reader(r);
	if (s->open && s->ops->deliver(s, d))
		return true;
	s->refused = true;
	return false;
}

static void session_skipped(struct subscriber *r, struct partition *p, int64_t from, int64_t to)
{
	struct session *s = of_reader(r);
	LOG(LOG_WARN, AREA_BROKER, "session_skipped", "client=\"%s\" group=%llu records=%lld",
		log_text(session_id(s)).text, (unsigned long long)partition_group(p),
		(long long)(to - from));
}

struct bytes session_tenant(const struct session *s)
{
	struct bytes tenant, id;
	tenant_id_split(session_id(s), &tenant, &id);
	return tenant;
}

const struct subscriber_ops session_reader_ops = {session_deliver, session_skipped};

void session_ready(struct session *s)
{
	if (s->resuming != NULL) {
		if (s->resuming->paused) {
			s->resuming->paused = false;
			session_again_next(s);
		}
		return;
	}
	if (!s->refused || !s->open)
		return;
	s->refused = false;
	subscriber_ready(&s->reader);
}

void session_done(struct session *s, uint16_t packet_id)
{
	window_done(&s->window, packet_id);
	session_touch(s);
}

/* What was in flight */

bool session_again_gone(struct session *s, uint16_t packet_id)
{
	struct window_entry *e = window_find(&s->window, packet_id);
	if (e == NULL)
		return true;
	if (e->state != WINDOW_HELD2 || !e->again) {
		session_done(s, packet_id);
		return true;
	}
	window_move(&s->window, e, WINDOW_RELEASED);
	session_touch(s);
	return s->ops->again(s, packet_id, NULL);
}

static void again_end(struct session *s)
{
	mem_free(s->resuming);
	s->resuming = NULL;
	if (s->closing) {
		durable_close(s->durable, s->durable->keep_will);
		return;
	}
	s->open = true;
	s->refused = false;
	subscriber_ready(&s->reader);
}

static void on_give(struct redeliver *r, const struct delivery *d)
{
	struct session_again *a = list_entry(r, struct session_again, redeliver);
	a->given = true;
	if (!a->s->closing)
		a->more = a->s->ops->again(a->s, a->packet_id, d);
}

static void on_redelivered(struct redeliver *r)
{
	struct session_again *a = list_entry(r, struct session_again, redeliver);
	struct session *s = a->s;
	a->busy = false;
	if (s->closing) {
		again_end(s);
		return;
	}
	if (!a->given && r->err != OK && r->err != ERR_RANGE && r->err != ERR_NOTFOUND) {
		s->ops->fenced(s, r->err); /* the order would break without this one */
		return;
	}
	if (!a->given) /* trimmed */
		a->more = session_again_gone(s, a->packet_id);
	if (!a->more) {
		a->paused = true;
		return;
	}
	session_again_next(s);
}

void session_again_next(struct session *s)
{
	struct session_again *a = s->resuming;
	struct window_entry *e;
	while (!s->closing) {
		e = window_next(&s->window, &a->packet_id);
		if (e == NULL)
			break;
		if (e->state == WINDOW_RELEASED) {
			if (s->ops->again(s, a->packet_id, NULL))
				continue;
			a->paused = true;
			return;
		}
		struct partition *p = session_partition(session_shard(s), e->group);
		if (p == NULL) {
			if (session_again_gone(s, a->packet_id))
				continue;
			a->paused = true;
			return;
		}
		a->given = false;
		a->more = true;
		a->busy = true;
		a->redeliver = (struct redeliver){.partition = p,
			.offset = e->offset,
			.who = &s->reader,
			.give = on_give,
			.done = on_redelivered};
		subscriber_redeliver(&a->redeliver);
		return;
	}
	if (!s->closing)
		again_end(s);
}

void session_resume(struct session *s)
{
	if (s->window.count == 0) {
		s->open = true;
		session_ready(s);
		return;
	}
	s->resuming = mem_new(sizeof *s->resuming);
	s->resuming->s = s;
	session_again_next(s);
}

/* The end */

void session_close(struct session *s, bool will, uint32_t expiry_s)
{
	must(!s->closing);
	s->closing = true;
	s->open = false;
	s->expiry_s = expiry_s;
	if (s->durable != NULL) {
		if (s->resuming != NULL && !s->resuming->busy) {
			mem_free(s->resuming);
			s->resuming = NULL;
		}
		durable_close(s->durable, will);
		return;
	}
	struct will_of whose = {session_id(s), .no_row = true};
	if (will && s->will != NULL &&
		will_publish(session_shard(s), buf_bytes(s->will), &whose, NULL, NULL) != OK)
		LOG(LOG_WARN, AREA_BROKER, "will_lost", "client=\"%s\"",
			log_text(session_id(s)).text);
	session_release(s);
}

void session_release(struct session *s)
{
	subscriber_fini(&s->reader);
	s->ops->ended(s);
	list_remove(&s->unleased);
	window_fini(&s->window);
	session_ids_fini(&s->received);
	durable_free(s->durable);
	s->durable = NULL;
	claim_release(&s->claim);
}

/* All sessions */

struct sessions *sessions_new(struct broker *b, struct loops *loops)
{
	int count = loops_count(loops);
	struct sessions *all = mem_new(sizeof *all + (size_t)count * sizeof all->homes[0]);
	all->broker = b;
	all->loops = loops;
	all->count = count;
	session_net_init(all, shard_node(broker_shard(b, loops_at(loops, 0))));
	all->lease_ms = shard_conf(broker_shard(b, loops_at(loops, 0)))->session_lease_ms;
	for (int i = 0; i < count; i++) {
		struct session_home *h = &all->homes[i];
		h->all = all;
		h->loop = loops_at(loops, i);
		h->shard = broker_shard(b, h->loop);
		claim_home_init(&h->claims, h->loop);
		session_net_home_init(h);
		gone_home_init(h);
		absent_home_init(h);
	}
	session_net_start(all);
	return all;
}

int64_t sessions_count(const struct sessions *all)
{
	return atomic_load(&all->live);
}

static bool wait_zero(_Atomic int64_t *value, int64_t until_ms)
{
	while (atomic_load(value) > 0) {
		if (clock_ms() >= until_ms)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return true;
}

static void stop_home(void *arg)
{
	struct session_home *h = arg;
	absent_home_stop(h);
	gone_home_stop(h);
	loop_timer_cancel(&h->ack_timer);
	if (h == h->all->homes)
		session_net_stop(h->all);
	atomic_fetch_sub(&h->all->stopping, 1);
}

void sessions_stop(struct sessions *all, int64_t timeout_ms)
{
	int64_t until = clock_ms() + timeout_ms;
	atomic_store(&all->ending, true);
	if (!wait_zero(&all->live, until))
		LOG(LOG_WARN, AREA_BROKER, "sessions_not_saved", "count=%lld",
			(long long)sessions_count(all));
	atomic_store(&all->stopping, all->count);
	for (int i = 0; i < all->count; i++)
		loop_call(all->homes[i].loop, stop_home, &all->homes[i]);
	wait_zero(&all->stopping, clock_ms() + timeout_ms);
	wait_zero(&all->live, until);
}

void sessions_free(struct sessions *all)
{
	if (all == NULL)
		return;
	for (int i = 0; i < all->count; i++) {
		absent_home_fini(&all->homes[i]);
		gone_home_fini(&all->homes[i]);
		claim_home_fini(&all->homes[i].claims);
	}
	mem_free(all);
}
