/* Each turn gathers what is published to one partition into one batch, which leaves as one proposal
 * at STAGE_PUBLISH, or earlier when it is full. A batch_op is that proposal with those who wait for
 * it; ops are reused, so that a QoS 0 message costs a look-up, a copy into the batch and no
 * allocation. What is in flight is bounded in bytes: beyond it the caller is told to stop reading.
 *
 * Retained values and QoS 2 claims are decided where the log's order is, in evaluate, and become
 * rows of the same entry as the record. That may be on another node: then the batch travels there,
 * with args if it has rows. All of it may be evaluated again when it is not known whether it was: a
 * claimed message finds its own row then, others may be in the log twice. */
#include "server/broker/broker_priv.h"
#include "server/broker/keyspace.h"
#include "server/broker/retained.h"
#include "server/broker/topic.h"

enum {
	SPARE_OPS_MAX = 256,
	RECORD_ROOM = 65536,
	BATCH_ROOM_MIN = 512,
	PARTITION_MASK = 0x7fffffff
};
enum { EPOCH_BYTES = 8, CLAIM_BYTES = 16, WILL_BYTES = 24, CLIENT_END = 0xff };

struct retained_at { /* a record of the batch that sets a retained value */
	uint32_t at, len;
	int32_t delta;
};

struct batch_op {
	struct proposal proposal;
	struct list node; /* shard.spare_ops */
	struct shard *shard;
	struct batch_builder builder;
	struct list publishes;
	size_t size; /* counted as in flight */
	struct retained_at *retained;
	size_t retained_count, retained_room;
	struct buf args; /* of the proposal, see ask_read; begun by a claim */
	bool rows_only;  /* a memory route's: the record itself is not logged */
	bool claimed;
};

static struct batch_op *op_get(struct shard *s)
{
	struct list *n = list_pop(&s->spare_ops);
	if (n != NULL) {
		s->spare_op_count--;
		return list_entry(n, struct batch_op, node);
	}
	struct batch_op *op = mem_new(sizeof *op);
	list_init(&op->node);
	list_init(&op->publishes);
	op->shard = s;
	size_t max = (size_t)s->broker->conf->message_bytes_max + RECORD_ROOM;
	buf_init(&op->args, 2 * (max + RECORD_ROOM)); /* a batch, and as much to say about it */
	batch_builder_init(&op->builder, max);
	return op;
}

static void op_free(struct batch_op *op)
{
	batch_builder_fini(&op->builder);
	buf_fini(&op->args);
	mem_free(op->retained);
	mem_free(op);
}

static void op_put(struct shard *s, struct batch_op *op)
{
	buf_clear(&op->args);
	op->retained_count = 0;
	op->size = 0;
	op->rows_only = op->claimed = false;
	if (s->spare_op_count >= SPARE_OPS_MAX) {
		op_free(op);
		return;
	}
	list_push_back(&s->spare_ops, &op->node);
	s->spare_op_count++;
}

/* ---- deciding, on the partition's home */

size_t qos2_key(struct bytes client_id, uint16_t packet_id, uint8_t *out)
{
	memcpy(out, client_id.at, client_id.len);
	out[client_id.len] = CLIENT_END; /* no byte of UTF-8: no client id is another's prefix */
	put_u16be(out + client_id.len + 1, packet_id);
	return client_id.len + QOS2_KEY_EXTRA;
}

enum err qos2_row_decode(
	struct bytes key, struct bytes value, uint16_t *packet_id, uint64_t *epoch, int64_t *offset)
{
	const uint8_t *end = memchr(key.at, CLIENT_END, key.len);
	if (end == NULL)
		return ERR_CORRUPT;
	size_t left = key.len - (size_t)(end - key.at) - 1;
	if (left == 0)
		return value.len == EPOCH_BYTES ? ERR_NOTFOUND : ERR_CORRUPT;
	if (left != 2 || (value.len != CLAIM_BYTES && value.len != WILL_BYTES))
		return ERR_CORRUPT;
	*packet_id = get_u16be(end + 1);
	*epoch = get_u64be(value.at);
	*offset = (int64_t)get_u64be(value.at + EPOCH_BYTES);
	return OK;
}

bool qos2_row_will(struct bytes key, struct bytes value, int64_t *put_ms)
{
	uint16_t packet_id;
	uint64_t epoch;
	int64_t offset;
	if (value.len != WILL_BYTES ||
		qos2_row_decode(key, value, &packet_id, &epoch, &offset) != OK || packet_id != 0)
		return false;
	*put_ms = (int64_t)get_u64be(value.at + CLAIM_BYTES);
	return true;
}

/* What goes with a batch that has rows. 0/1 flags; with ASK_CLAIM: epoch 8, born 8, length of the
 * client id 2, the claim's key (client id, 3 more); then base time 8, n 4 of records that set a
 * retained value, each: place 4 and length 4 in the batch, offset delta 4; with ASK_ROWS_ONLY the
 * batch, which is not logged. */
enum { ASK_CLAIM = 1, ASK_WILL = 2, ASK_ROWS_ONLY = 4, RETAINED_AT_BYTES = 12 };

struct ask { /* those args */
	bool claim, will;
	bool rows_only;
	uint64_t epoch, born;
	struct bytes key; /* of the claim */
	int64_t base_ms;
	uint32_t retained_count;
	struct bytes retained, batch;
};

static enum err ask_read(struct eval *v, struct bytes args, struct ask *out)
{
	struct rd r = rd_over(args);
	uint8_t flags = rd_u8(&r);
	*out = (struct ask){.claim = flags & ASK_CLAIM,
		.will = flags & ASK_WILL,
		.rows_only = flags & ASK_ROWS_ONLY,
		.batch = eval_batch(v)};
	if (out->claim) {
		out->epoch = rd_u64be(&r);
		out->born = rd_u64be(&r);
		uint16_t id_len = rd_u16be(&r);
		out->key = rd_take(&r, (size_t)id_len + QOS2_KEY_EXTRA);
		if (r.err == OK &&
			(out->key.at[id_len] != CLIENT_END ||
				memchr(out->key.at, CLIENT_END, id_len) != NULL))
			return ERR_MALFORMED;
	}
	out->base_ms = (int64_t)rd_u64be(&r);
	out->retained_count = rd_count(&r, rd_u32be(&r), RETAINED_AT_BYTES);
	out->retained = rd_take(&r, (size_t)out->retained_count * RETAINED_AT_BYTES);
	if (out->rows_only)
		out->batch = rd_take(&r, rd_left(&r));
	bool known = flags <= (ASK_CLAIM | ASK_WILL | ASK_ROWS_ONLY);
	return known && rd_done(&r) == OK ? OK : ERR_MALFORMED;
}

static enum err claim_epoch(const struct ask *a, struct eval *v)
{
	struct bytes key = bytes_of(a->key.at, a->key.len - 2), held;
	enum err e = eval_get(v, KEYSPACE_QOS2, key, &held);
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	uint64_t epoch = e == OK && held.len == EPOCH_BYTES ? get_u64be(held.at) : 0;
	if (e == OK && epoch > a->epoch)
		return ERR_FENCED;
	if (e == ERR_NOTFOUND || epoch < a->epoch) {
		uint8_t now[EPOCH_BYTES];
		put_u64be(now, a->epoch);
		eval_put(v, KEYSPACE_QOS2, key, bytes_of(now, sizeof now));
	}
	return OK;
}

/* A repeat is dropped and answered with the first one's offset. */
static enum err claim_evaluate(const struct ask *a, struct eval *v, bool *repeat)
{
	struct bytes held;
	/* A will may be published after its client has come back with a greater epoch. */
	enum err e = a->will ? OK : claim_epoch(a, v);
	if (e != OK)
		return e;
	e = eval_get(v, KEYSPACE_QOS2, a->key, &held);
	/* A session before this one left it: its client may use the id for something new. */
	if (e == OK && held.len >= CLAIM_BYTES && get_u64be(held.at) >= a->born) {
		eval_duplicate(v, (int64_t)get_u64be(held.at + EPOCH_BYTES));
		*repeat = true;
		return OK;
	}
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	uint8_t row[WILL_BYTES];
	put_u64be(row, a->epoch);
	put_u64be(row + EPOCH_BYTES, (uint64_t)eval_offset(v));
	put_u64be(row + CLAIM_BYTES, (uint64_t)eval_now_ms(v));
	eval_put(v, KEYSPACE_QOS2, a->key, bytes_of(row, a->will ? WILL_BYTES : CLAIM_BYTES));
	return OK;
}

/* Sets or deletes the retained value of one record's topic. */
static enum err retain_one(const struct ask *a, struct bytes record, int32_t delta, struct eval *v)
{
	struct retained_row row = {
		.offset = a->rows_only ? -1 : eval_offset(v) + delta,
		.base_ms = a->base_ms,
		.record = record,
	};
	struct batch_walk w = {.rd = rd_over(row.record), .base_ms = a->base_ms, .left = 1};
	struct record r;
	struct message m;
	if (batch_walk_next(&w, &r) != OK || rd_left(&w.rd) > 0)
		return ERR_MALFORMED;
	message_decode(&r, bytes_of("", 0), &m);
	if (!topic_name_valid(m.topic))
		return ERR_MALFORMED;
	if (m.value.len == 0) {
		eval_delete(v, KEYSPACE_RETAINED, m.topic);
		return OK;
	}
	struct buf value;
	buf_init(&value, record.len + RETAINED_HEADER_BYTES);
	retained_row_encode(&row, &value);
	if (value.err == OK)
		eval_put(v, KEYSPACE_RETAINED, m.topic, buf_bytes(&value));
	else /* without memory the old value must not pass for the newest */
		eval_delete(v, KEYSPACE_RETAINED, m.topic);
	buf_fini(&value);
	return OK;
}

static enum err evaluate(struct eval *v, struct bytes args)
{
	struct ask a;
	bool repeat = false;
	enum err e = ask_read(v, args, &a);
	if (e == OK && a.claim)
		e = claim_evaluate(&a, v, &repeat);
	if (e != OK || repeat)
		return e;
	for (uint32_t i = 0; i < a.retained_count && e == OK; i++) {
		const uint8_t *at = a.retained.at + (size_t)i * RETAINED_AT_BYTES;
		uint64_t place = get_u32be(at), len = get_u32be(at + 4);
		e = place + len > a.batch.len ? ERR_MALFORMED
					      : retain_one(&a, bytes_of(a.batch.at + place, len),
							(int32_t)get_u32be(at + 8), v);
	}
	return e;
}

const struct proposal_kind publish_kind = {PROPOSAL_PUBLISH, evaluate};

/* ---- the batch leaves and comes back */

static bool has_room(const struct shard *s)
{
	return s->inflight < (size_t)s->broker->conf->publish_inflight_bytes;
}

static void room_wake(struct shard *s)
{
	struct list now;
	size_t limit = (size_t)s->broker->conf->publish_inflight_bytes;
	/* Not at the first free byte: those who wait would take turns of one message. */
	if (list_empty(&s->room_waits) || s->inflight > limit - limit / 4 ||
		s->memory_out > limit - limit / 4)
		return;
	list_init(&now);
	for (struct list *n; (n = list_pop(&s->room_waits)) != NULL;)
		list_push_back(&now, n);
	for (struct list *n; (n = list_pop(&now)) != NULL;) {
		struct room_wait *w = list_entry(n, struct room_wait, node);
		w->room(w);
	}
}

static enum err publishers_err(enum err e)
{
	return e == ERR_NOTLEADER || e == ERR_CLOSED ? ERR_UNAVAILABLE : e;
}

static void op_done(struct proposal *p)
{
	struct batch_op *op = list_entry(p, struct batch_op, proposal);
	struct shard *s = op->shard;
	struct list publishes;
	int64_t base = p->base_offset;
	enum err e = publishers_err(p->err);
	if (e != OK)
		COUNT(s, M_PUBLISH_FAILED, 1);
	list_init(&publishes);
	for (struct list *n; (n = list_pop(&op->publishes)) != NULL;)
		list_push_back(&publishes, n);
	s->inflight -= op->size;
	op_put(s, op);
	for (struct list *n; (n = list_pop(&publishes)) != NULL;) {
		struct publish *w = list_entry(n, struct publish, node);
		w->err = e;
		w->offset += base; /* held its place in the batch */
		w->done(w);
	}
	metric_set(loop_cells(s->loop), &broker_metrics, M_INFLIGHT_BYTES, (int64_t)s->inflight);
	room_wake(s);
}

/* What ask_read reads; a claim has begun it. */
static void write_args(struct batch_op *op, int64_t base_ms, struct bytes batch)
{
	if (!op->claimed)
		buf_add_u8(&op->args, op->rows_only ? ASK_ROWS_ONLY : 0);
	buf_add_u64be(&op->args, (uint64_t)base_ms);
	buf_add_u32be(&op->args, (uint32_t)op->retained_count);
	for (size_t i = 0; i < op->retained_count; i++) {
		const struct retained_at *at = &op->retained[i];
		buf_add_u32be(&op->args, at->at);
		buf_add_u32be(&op->args, at->len);
		buf_add_u32be(&op->args, (uint32_t)at->delta);
	}
	if (op->rows_only)
		buf_add(&op->args, batch);
}

static void write_claim(struct batch_op *op, const struct qos2_claim *c)
{
	size_t len = c->client_id.len + QOS2_KEY_EXTRA;
	buf_add_u8(&op->args, ASK_CLAIM | (c->will ? ASK_WILL : 0));
	buf_add_u64be(&op->args, c->epoch);
	buf_add_u64be(&op->args, c->born);
	buf_add_u16be(&op->args, (uint16_t)c->client_id.len);
	uint8_t *key = buf_room(&op->args, len);
	if (key == NULL)
		return;
	(void)qos2_key(c->client_id, c->packet_id, key);
	buf_claim(&op->args, len);
	op->claimed = true;
}

static void fail_op(void *arg)
{
	struct batch_op *op = arg;
	slice_unref(&op->proposal.batch);
	op->proposal.err = ERR_NOMEM;
	op_done(&op->proposal);
}

static void op_propose(struct batch_op *op, struct partition *to)
{
	struct proposal *p = &op->proposal;
	*p = (struct proposal){.to = to, .repeatable = true, .done = op_done};
	int64_t base_ms = op->builder.base_ms;
	p->batch_max_ms = op->builder.max_ms;
	p->batch_count = (uint32_t)op->builder.count;
	p->batch = batch_builder_seal(&op->builder);
	if (op->retained_count > 0 || op->claimed) {
		write_args(op, base_ms, p->batch.bytes);
		p->kind = &publish_kind;
		p->args = buf_bytes(&op->args);
	}
	if (op->args.err != OK) { /* what cannot be decided is not stored, either */
		loop_call(op->shard->loop, fail_op, op);
		return;
	}
	if (op->rows_only) {
		slice_unref(&p->batch);
		p->batch_count = 0;
		p->batch_max_ms = -1;
	} else {
		COUNT(op->shard, M_BATCHES_IN, 1);
	}
	partition_propose(p);
}

static void slot_seal(struct slot *slot)
{
	struct batch_op *op = slot->open;
	slot->open = NULL;
	slot->last_bytes = batch_builder_len(&op->builder);
	list_remove(&slot->node);
	op_propose(op, slot->to);
}

void publish_flush(struct shard *s)
{
	while (!list_empty(&s->open))
		slot_seal(list_entry(s->open.next, struct slot, node));
	if (s->memory_open)
		memory_flush(s);
}

static void publish_turn(struct loop_hook *h)
{
	struct shard *s = list_entry(h, struct shard, publish_hook);
	publish_flush(s);
	room_wake(s);
}

/* ---- taking a message */

static struct batch_op *slot_open(struct shard *s, struct slot *slot)
{
	if (slot->open != NULL)
		return slot->open;
	slot->open = op_get(s);
	/* The room of the last batch at once instead of growing there by copying. */
	size_t hint = slot->last_bytes + slot->last_bytes / 8;
	if (hint > BATCH_ROOM_MIN && hint <= slot->open->builder.buf.max &&
		buf_room(&slot->open->builder.buf, hint) == NULL)
		slot->open->builder.buf.err = OK; /* it may still do with less */
	list_push_back(&s->open, &slot->node);
	return slot->open;
}

static void slot_abandon_empty(struct shard *s, struct slot *slot)
{
	if (slot->open == NULL || slot->open->builder.count > 0)
		return;
	list_remove(&slot->node);
	op_put(s, slot->open);
	slot->open = NULL;
}

static enum err op_add(struct batch_op *op, const struct message *m, struct publish *p)
{
	if (m->retain)
		op->retained = priv_grown(
			op->retained, op->retained_count, &op->retained_room, sizeof *op->retained);
	int32_t delta = op->builder.count;
	size_t before = batch_builder_len(&op->builder);
	enum err e = message_encode(m, &op->builder);
	if (e != OK)
		return e;
	size_t end = batch_builder_len(&op->builder), at = op->builder.record_at;
	if (m->retain)
		op->retained[op->retained_count++] = (struct retained_at){
			(uint32_t)at, (uint32_t)(end - at), delta};
	op->size += end - before;
	op->shard->inflight += end - before;
	if (p != NULL) {
		p->offset = delta;
		list_push_back(&op->publishes, &p->node);
	}
	return OK;
}

static enum err slot_add(
	struct shard *s, struct slot *slot, const struct message *m, struct publish *p)
{
	size_t limit = (size_t)s->broker->conf->batch_bytes_max;
	size_t size = m->topic.len + m->value.len;
	if (slot->open != NULL && slot->open->builder.count > 0 &&
		batch_builder_len(&slot->open->builder) + size > limit)
		slot_seal(slot);
	enum err e = op_add(slot_open(s, slot), m, p);
	if (e == ERR_TOOBIG && slot->open->builder.count > 0) {
		slot_seal(slot);
		e = op_add(slot_open(s, slot), m, p);
	}
	slot_abandon_empty(s, slot);
	return e;
}

static size_t message_size(const struct message *m)
{
	size_t size = m->topic.len + m->value.len + (m->has_key ? m->key.len : 0);
	for (int i = 0; i < m->header_count; i++)
		size += m->headers[i].name.len + m->headers[i].value.len;
	return size;
}

/* What can be said against m without looking at its stream. */
static enum err admit(struct shard *s, const struct message *m, size_t size)
{
	if (!topic_name_valid(m->topic))
		return ERR_INVALID;
	if (size > (size_t)s->broker->conf->message_bytes_max)
		return ERR_TOOBIG;
	if (!has_room(s)) {
		COUNT(s, M_PUBLISH_BUSY, 1);
		return ERR_BUSY;
	}
	return OK;
}

static struct slot *target_slot(struct target *t, struct bytes key)
{
	uint32_t hash = hash_murmur2(key) & PARTITION_MASK;
	return &t->slots[hash % (uint32_t)t->slot_count];
}

struct way { /* where a message goes, and the form in which */
	struct space *space;
	const struct route *route;
	struct target *target;
	struct slot *slot; /* NULL: the stream does not exist yet */
	struct message m;
};

static enum err way_find(struct shard *s, const struct message *m, size_t size, struct way *out)
{
	struct space *sp = m->tenant.len == 0 ? &s->home : space_to_publish(s, m->tenant);
	if (sp == NULL)
		return s->catalog != NULL ? ERR_DENIED : ERR_UNAVAILABLE;
	int number = sp->routes != NULL ? routes_find(sp->routes, m->topic) : -1;
	if (number < 0)
		return sp->routes != NULL ? ERR_DENIED : ERR_UNAVAILABLE;
	out->space = sp;
	out->route = routes_at(sp->routes, number);
	out->target = &sp->targets[sp->route_targets[number]];
	out->slot = NULL;
	out->m = *m;
	if (!m->has_key && out->route->key != ROUTE_KEY_TOPIC) {
		out->m.key = route_key(out->route, m->topic);
		out->m.has_key = true;
	}
	if (m->timestamp_ms == 0)
		out->m.timestamp_ms = loop_now_wall_ms(s->loop);
	const struct stream *stream = out->target->stream;
	if (stream == NULL || out->target->slot_count == 0)
		return OK;
	if (stream->message_bytes_max > 0 && size > (size_t)stream->message_bytes_max)
		return ERR_TOOBIG;
	out->slot = target_slot(out->target, out->m.has_key ? out->m.key : m->topic);
	return OK;
}

static void taken(struct shard *s, size_t size)
{
	COUNT(s, M_MESSAGES_IN, 1);
	COUNT(s, M_BYTES_IN, size);
	loop_hook_want(s->loop, STAGE_PUBLISH, &s->publish_hook);
}

/* Where it goes there is no stream yet. */
static enum err way_missing(struct shard *s, const struct way *w)
{
	if (w->space->full)
		return ERR_QUOTA;
	if (!space_awaits_streams(w->space))
		return ERR_UNAVAILABLE;
	COUNT(s, M_PUBLISH_BUSY, 1);
	return ERR_BUSY;
}

static enum err publish_memory(struct shard *s, struct way *w, struct publish *p)
{
	if (w->m.retain && w->slot == NULL)
		return way_missing(s, w);
	enum err e = memory_publish(w->space, w->target, &w->m, p);
	return e == OK && w->m.retain ? publish_retained_only(s, &w->m, w->slot) : e;
}

enum err shard_publish(struct shard *s, const struct message *m, struct publish *p)
{
	loop_must_own(s->loop);
	struct way w;
	size_t size = message_size(m);
	enum err e = admit(s, m, size);
	if (e == OK)
		e = way_find(s, m, size, &w);
	if (e != OK)
		return e;
	if (p != NULL)
		p->partition = NULL;
	if (w.route->memory) {
		e = publish_memory(s, &w, p);
	} else if (w.slot == NULL) {
		e = way_missing(s, &w);
	} else {
		if (p != NULL)
			p->partition = w.slot->to;
		e = slot_add(s, w.slot, &w.m, p);
	}
	if (e == OK)
		taken(s, size);
	return e;
}

/* A claimed message is a proposal of its own: what evaluate refuses is a whole proposal. */
enum err shard_publish_claimed(
	struct shard *s, const struct message *m, const struct qos2_claim *claim, struct publish *p)
{
	loop_must_own(s->loop);
	struct way w;
	size_t size = message_size(m);
	enum err e = admit(s, m, size);
	if (e == OK)
		e = way_find(s, m, size, &w);
	if (e != OK)
		return e;
	if (w.route->memory)
		return shard_publish(s, m, p);
	if (w.slot == NULL)
		return way_missing(s, &w);
	if (w.slot->open != NULL) /* what was published before goes before */
		slot_seal(w.slot);
	struct batch_op *op = op_get(s);
	must(claim->client_id.len <= UINT16_MAX);
	write_claim(op, claim);
	e = op->args.err == OK ? op_add(op, &w.m, p) : op->args.err;
	if (e != OK) {
		op_put(s, op);
		return e;
	}
	p->partition = w.slot->to;
	op_propose(op, w.slot->to);
	taken(s, size);
	return OK;
}

enum err publish_retained_only(struct shard *s, const struct message *m, struct slot *slot)
{
	struct batch_op *op = op_get(s);
	op->rows_only = true;
	enum err e = op_add(op, m, NULL);
	if (e != OK) {
		op_put(s, op);
		return e;
	}
	op_propose(op, slot->to);
	return OK;
}

void shard_when_room(struct shard *s, struct room_wait *w)
{
	loop_must_own(s->loop);
	list_push_back(&s->room_waits, &w->node);
	if (loop_timer_is_set(&s->streams_timer))
		return; /* one of them waits for a stream: all are asked when it is over */
	if (has_room(s) && memory_has_room(s)) /* it came meanwhile */
		loop_hook_want(s->loop, STAGE_PUBLISH, &s->publish_hook);
}

void publish_init(struct shard *s)
{
	list_init(&s->open);
	list_init(&s->room_waits);
	list_init(&s->spare_ops);
	loop_hook_init(&s->publish_hook, publish_turn);
}

void publish_fini(struct shard *s)
{
	while (!list_empty(&s->open)) {
		struct slot *slot = list_entry(list_pop(&s->open), struct slot, node);
		op_free(slot->open);
		slot->open = NULL;
	}
	for (struct list *n; (n = list_pop(&s->spare_ops)) != NULL;)
		op_free(list_entry(n, struct batch_op, node));
}
