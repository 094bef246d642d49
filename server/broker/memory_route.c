/* Memory routes have no log: a turn's messages for one stream become one batch that is posted to
 * every loop with subscriptions, by reference. A publish is done once that has happened. A loop
 * that does not keep up is left out for the batch, a subscriber that refuses for the message; both
 * are counted. */
#include <stdatomic.h>
#include "server/broker/broker_priv.h"

enum { RECORD_ROOM = 65536 }; /* what a record takes besides the message that was counted */

struct memory_post {
	struct loop_msg msg;
	struct shard *to;
	struct slice batch;
};

static void batch_dispatch(struct shard *s, const struct slice *bytes)
{
	struct batch b;
	struct batch_walk w;
	struct record r;
	if (batch_read(bytes->bytes, &b) != OK || batch_walk_init(&w, &b, 0) != OK) {
		COUNT(s, M_UNREADABLE, 1);
		return;
	}
	while (batch_walk_next(&w, &r) == OK) {
		struct message m;
		message_decode(&r, bytes_of("", 0), &m);
		deliver_memory(s, &m, bytes);
	}
	batch_walk_fini(&w);
}

static void memory_arrived(struct loop_msg *msg)
{
	struct memory_post *post = list_entry(msg, struct memory_post, msg);
	int64_t size = (int64_t)post->batch.bytes.len;
	batch_dispatch(post->to, &post->batch);
	atomic_fetch_sub(&post->to->memory_inflight, size);
	slice_unref(&post->batch);
	mem_free(post);
}

static void memory_send(struct shard *s, struct slice batch, int count)
{
	struct broker *b = s->broker;
	int64_t size = (int64_t)batch.bytes.len;
	for (int i = 0; i < b->count; i++) {
		struct shard *to = &b->shards[i];
		if (!atomic_load(&to->listening))
			continue;
		if (atomic_load(&to->memory_inflight) > b->conf->feed_bytes) {
			COUNT(s, M_MEMORY_DROPPED, count);
			continue;
		}
		struct memory_post *post = mem_new(sizeof *post);
		*post = (struct memory_post){{NULL, memory_arrived}, to, slice_ref(batch)};
		atomic_fetch_add(&to->memory_inflight, size);
		loop_post(to->loop, &post->msg);
	}
}

static void target_flush(struct shard *s, struct target *t)
{
	struct memory_batch *b = &t->memory_batch;
	struct list publishes;
	int count = b->builder.count;
	struct slice batch = batch_builder_seal(&b->builder);
	list_init(&publishes);
	for (struct list *n; (n = list_pop(&b->publishes)) != NULL;)
		list_push_back(&publishes, n);
	s->inflight -= batch.bytes.len;
	memory_send(s, batch, count);
	slice_unref(&batch);
	/* Last: done may publish anew, to this very batch. */
	for (struct list *n; (n = list_pop(&publishes)) != NULL;) {
		struct publish *p = list_entry(n, struct publish, node);
		p->err = OK;
		p->offset = -1;
		p->done(p);
	}
}

void memory_flush(struct shard *s)
{
	s->memory_open = false;
	for (int i = 0; i < s->target_count; i++)
		if (s->targets[i].memory_batch.builder.count > 0)
			target_flush(s, &s->targets[i]);
}

static size_t memory_batch_bytes_max(const struct shard *s)
{
	const struct broker_conf *conf = s->broker->conf;
	return (size_t)(conf->publish_inflight_bytes + conf->message_bytes_max) + RECORD_ROOM;
}

enum err memory_publish(struct shard *s, const struct route *r, struct target *t,
	const struct message *m, struct publish *p)
{
	(void)r;
	struct batch_builder *b = &t->memory_batch.builder;
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
