/* Opening a session. The name is claimed in memory first: from then on nobody else in this process
 * touches its rows. A session that is to last, or for which rows exist, or that other nodes must
 * know of, then takes its row by one proposal, which decides in log order what there was, gives the
 * new epoch, and hands out the old rows. Before that the node that has the client is told to let
 * go, and a will that is due because of this is published: the proposal says so, and is made again.
 * One that goes on is set up from its rows before its client hears of it. */
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/session_priv.h"
#include "server/broker/topic.h"

enum { ROW_BYTES_MAX = 16 << 20, ARGS_BYTES_MAX = 128 << 20, CLAIM_TRIES = 6 };

struct opening {
	struct session_open op;
	struct session *s;
	struct row_read read;
	struct proposal claim;
	struct peer_call fence;
	struct buf args;        /* of the claim */
	struct buf row, cursor; /* as they were */
	uint64_t forced, settled;
	int64_t asked_ms; /* when the claim left, clock_ms */
	uint8_t tries;
	struct qos2_walk walk;
	uint64_t *groups;
	uint32_t group_count;
	uint64_t epoch, born;
	struct subscribe *subscribes; /* of a session that goes on */
	struct session_row_sub *saved;
	uint32_t pending;
	bool brief; /* has a row even if the session does not last */
	bool cancelled, fenced;
};

static struct loop *loop_of(const struct session *s)
{
	return s->claim.from;
}
static struct partition *table_of(const struct session *s)
{
	return catalog_table(shard_catalog(session_shard(s)), session_id(s));
}

static void opening_free(struct opening *o)
{
	buf_fini(&o->args);
	buf_fini(&o->row);
	buf_fini(&o->cursor);
	mem_free(o->groups);
	mem_free(o->subscribes);
	mem_free(o->saved);
	mem_free(o);
}

static void session_free(struct session *s)
{
	atomic_fetch_sub(&s->all->live, 1);
	if (s->will != NULL)
		buf_fini(s->will);
	mem_free(s->will);
	mem_free(s);
}

static struct opening *opening_of(struct session *s)
{
	return list_entry(s->opening, struct opening, op);
}

/* The outcome */

static void fail(struct opening *o, enum err e)
{
	struct session *s = o->s;
	bool known = o->op.unique && o->tries == 0; /* the name is, to nobody */
	bool fenced = o->fenced;
	o->op.err = e;
	o->op.session = NULL;
	s->opening = NULL;
	s->closing = true;
	if (!o->cancelled)
		o->op.done(&o->op);
	opening_free(o);
	s->owner = NULL;
	if (s->durable != NULL) /* its row says that the client is here */
		durable_abandon(s->durable);
	else if (known)
		session_release(s);
	else
		settle_begin(s, fenced);
}

static void succeed(struct opening *o)
{
	struct session *s = o->s;
	bool cancelled = o->cancelled, fenced = o->fenced;
	s->opening = NULL;
	if (cancelled) {
		opening_free(o);
		s->owner = NULL;
		session_close(s, false, s->expiry_s);
		return;
	}
	o->op.err = OK;
	o->op.session = s;
	o->op.done(&o->op);
	opening_free(o);
	if (fenced && !s->closing && !claim_outlives(&s->claim))
		s->ops->fenced(s, ERR_FENCED);
}

/* Setting up what goes on */

static bool is_listed(const struct cursor_row *row, uint64_t group)
{
	for (uint32_t i = 0; i < row->position_count; i++)
		if (cursor_row_position_at(row, i).group == group)
			return true;
	return false;
}

/* Partitions and streams that came while the client was away: all in them is new to it. */
static void start_new_ones(struct session *s, const struct cursor_row *row, int64_t since_ms)
{
	int count = subscriber_stream_count(&s->reader);
	for (int i = 0; i < count; i++) {
		const struct stream *stream = subscriber_stream_at(&s->reader, i);
		bool known = is_listed(row, partition_group(stream->partitions[0]));
		if (!known && stream->created_ms <= since_ms)
			continue;
		for (int k = 0; k < stream->partition_count; k++)
			if (!is_listed(row, partition_group(stream->partitions[k])))
				subscriber_start(&s->reader, stream->partitions[k], 0);
	}
}

/* Once the filters are in force: what is read before would match none of them. */
static void start_reading(struct opening *o)
{
	struct session *s = o->s;
	struct cursor_row row;
	struct session_row old;
	if (buf_len(&o->cursor) == 0)
		return;
	must(cursor_row_read(buf_bytes(&o->cursor), &row) == OK);
	must(session_row_read(buf_bytes(&o->row), &old) == OK);
	for (uint32_t i = 0; i < row.position_count; i++) {
		struct session_place at = cursor_row_position_at(&row, i);
		struct partition *p = session_partition(session_shard(s), at.group);
		if (p != NULL && at.offset >= 0)
			subscriber_start(&s->reader, p, at.offset);
	}
	start_new_ones(s, &row, old.since_ms);
}

static void on_claimed(struct proposal *p);

static enum err restore_window(struct opening *o)
{
	struct cursor_row row;
	if (buf_len(&o->cursor) == 0)
		return OK;
	if (cursor_row_read(buf_bytes(&o->cursor), &row) != OK)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < row.inflight_count; i++) {
		struct cursor_inflight f = cursor_row_inflight_at(&row, i);
		enum err e = window_restore(&o->s->window, f.packet_id, f.entry);
		if (e != OK)
			return e;
	}
	return OK;
}

static void on_resubscribed(struct subscribe *op)
{
	struct session *s = list_entry(op->who, struct session, reader);
	struct opening *o = opening_of(s);
	struct session_row_sub *saved = &o->saved[op - o->subscribes];
	if (op->err != OK) {
		LOG(LOG_WARN, AREA_BROKER, "subscription_lost", "client=\"%s\" err=\"%s\"",
			log_text(session_id(s)).text, err_text(op->err));
	} else {
		s->subscription_count += !op->existed;
		s->subscription_weight += op->existed
			? 0
			: topic_filter_weight(op->subscription->filter);
		for (uint32_t i = 0; i < saved->start_count; i++) {
			struct session_place at = session_row_start(saved, i);
			struct partition *p = session_partition(session_shard(s), at.group);
			if (p != NULL)
				subscription_set_start(op->subscription, p, at.offset);
		}
	}
	if (--o->pending == 0) {
		start_reading(o);
		succeed(o);
	}
}

static void resubscribe(struct opening *o)
{
	struct session_row row;
	must(session_row_read(buf_bytes(&o->row), &row) == OK);
	uint32_t count = row.subscription_count, i = 0;
	if (count == 0) {
		succeed(o);
		return;
	}
	o->subscribes = mem_try(count * sizeof *o->subscribes);
	o->saved = mem_try(count * sizeof *o->saved);
	if (o->subscribes == NULL || o->saved == NULL) {
		fail(o, ERR_NOMEM);
		return;
	}
	o->pending = count;
	struct bytes rest = row.subscriptions;
	for (; session_row_next(&rest, &o->saved[i]); i++) {
		const struct session_row_sub *sub = &o->saved[i];
		o->subscribes[i] = (struct subscribe){.who = &o->s->reader,
			.filter = sub->filter,
			.qos = sub->qos,
			.no_local = sub->no_local,
			.retain_as_published = sub->retain_as_published,
			.id = sub->id,
			.retained = RETAINED_NOT,
			.resumed = true,
			.done = on_resubscribed};
		list_init(&o->subscribes[i].node);
	}
	for (i = 0; i < count; i++)
		subscriber_subscribe(&o->subscribes[i]);
}

static void on_received(struct qos2_walk *w, uint64_t group, uint16_t packet_id, uint64_t epoch)
{
	struct opening *o = list_entry(w, struct opening, walk);
	if (epoch < o->born)
		return; /* of an earlier session, which never listed it */
	enum err e = session_ids_add(
		&o->s->received, (struct session_id){group, packet_id, ID_RECEIVED});
	if (e != OK && e != ERR_EXISTS)
		w->err = e;
}

static void on_walked(struct qos2_walk *w)
{
	struct opening *o = list_entry(w, struct opening, walk);
	enum err e = w->err;
	if (e == OK && o->op.present)
		e = restore_window(o);
	if (e != OK)
		fail(o, e);
	else if (o->op.present)
		resubscribe(o);
	else
		succeed(o);
}

/* Rows of QoS 2 that came in are known again, or forgotten with the session that is over. */
static void walk_received(struct opening *o)
{
	struct session *s = o->s;
	o->walk = (struct qos2_walk){.shard = session_shard(s),
		.client_id = session_id(s),
		.groups = o->groups,
		.group_count = o->group_count,
		.remove = !o->op.present,
		.epoch = o->epoch,
		.each = on_received,
		.done = on_walked};
	qos2_walk(&o->walk);
}

/* The claim of the rows */

static void claim_rows(struct opening *o)
{
	struct session *s = o->s;
	buf_clear(&o->args);
	session_claim_args(&o->args,
		&(struct session_claim_ask){.clean = o->op.clean,
			.brief = o->brief,
			.expiry_s = o->op.expiry_s,
			.owner = s->all->self,
			.force_epoch = o->forced,
			.settled_epoch = o->settled,
			.id = session_id(s),
			.will = s->will != NULL ? buf_bytes(s->will) : bytes_of(NULL, 0)});
	o->asked_ms = clock_ms();
	o->claim = (struct proposal){.to = table_of(s),
		.kind = &session_claim_kind,
		.args = buf_bytes(&o->args),
		.repeatable = true,
		.done = on_claimed};
	if (o->args.err != OK || o->tries++ == CLAIM_TRIES)
		fail(o, o->args.err != OK ? o->args.err : ERR_UNAVAILABLE);
	else
		partition_propose(&o->claim);
}

/* Another node has had a second to let go; what it writes from now on is refused. */
static void on_told(struct peer_call *c)
{
	struct opening *o = list_entry(c, struct opening, fence);
	slice_unref(&c->answer);
	claim_rows(o);
}

/* The claim would take it away: while it can't leave nobody has the name. */
static void on_will_left(void *arg, enum err e)
{
	struct opening *o = arg;
	if (will_is_over(e))
		claim_rows(o);
	else
		fail(o, e);
}

static void claim_again(struct opening *o, const struct session_claim_reply *r)
{
	struct session *s = o->s;
	struct will_of whose = {session_id(s), r->epoch, false};
	enum err e;
	if (r->outcome == CLAIM_HELD) {
		o->forced = r->epoch;
		o->fence.done = on_told;
		e = session_fence(
			s->all, &o->fence, o->claim.to, r->owner, r->epoch, session_id(s));
	} else {
		o->settled = r->epoch;
		e = will_publish(session_shard(s), r->will, &whose, on_will_left, o);
	}
	if (e != OK)
		fail(o, e);
}

/* What the reply says is kept: it is gone after this. */
static enum err keep_reply(struct opening *o, const struct session_claim_reply *r)
{
	o->op.present = r->present;
	o->epoch = r->epoch;
	o->born = r->born;
	o->groups = mem_new((r->group_count + 1) * sizeof *o->groups);
	o->group_count = r->group_count;
	for (uint32_t i = 0; i < r->group_count; i++)
		o->groups[i] = get_u64be(r->groups.at + (size_t)i * 8);
	buf_add(&o->row, r->row);
	buf_add(&o->cursor, r->cursor);
	return o->row.err != OK ? o->row.err : o->cursor.err;
}

static void have_rows(struct opening *o)
{
	struct session *s = o->s;
	bool lasts = o->op.present || o->op.expiry_s > 0;
	if (!lasts && !o->brief)
		return;
	s->durable = durable_new(s, o->claim.to, o->epoch, o->born);
	s->durable->brief = !lasts;
	claim_set_epoch(&s->claim, o->epoch);
	if (s->durable->table_at >= 0) {
		session_leased(s->all, s->durable->table_at, o->asked_ms);
		s->durable->lapses = atomic_load(&s->all->lapses[s->durable->table_at]);
	}
	for (uint32_t i = 0; i < o->group_count; i++)
		(void)durable_list(s->durable, o->groups[i], true);
}

static void on_claimed(struct proposal *p)
{
	struct opening *o = list_entry(p, struct opening, claim);
	struct session_claim_reply r;
	struct session_row row;
	enum err e = p->err;
	if (e == OK)
		e = session_claim_reply_read(p->reply.bytes, &r);
	if (e != OK) {
		fail(o, e);
		return;
	}
	if (r.outcome != CLAIM_TAKEN) {
		claim_again(o, &r);
		return;
	}
	e = keep_reply(o, &r);
	have_rows(o);
	if (e == OK && r.present)
		e = session_row_read(buf_bytes(&o->row), &row);
	if (e != OK)
		fail(o, e);
	else if (o->group_count > 0)
		walk_received(o);
	else
		on_walked(&o->walk);
}

/* One that ends with its connection needs no row, but there may be one to be taken over or
 * forgotten. */
static void on_looked(struct row_read *r)
{
	struct opening *o = list_entry(r, struct opening, read);
	enum err e = r->err;
	row_read_fini(r);
	if (e == OK)
		claim_rows(o);
	else if (e == ERR_NOTFOUND)
		succeed(o);
	else
		fail(o, e);
}

static void look(struct opening *o)
{
	o->read = (struct row_read){.from = table_of(o->s),
		.keyspace = KEYSPACE_SESSION,
		.linearizable = true,
		.key = session_id(o->s),
		.rows_max = 1,
		.bytes_max = SIZE_MAX,
		.done = on_looked};
	partition_read_rows(&o->read);
}

static struct session *of_claim(struct claim *c)
{
	return list_entry(c, struct session, claim);
}

static void on_granted(struct claim *c)
{
	struct session *s = of_claim(c);
	struct opening *o = opening_of(s);
	bool alone = s->all->net->alone(s->all->net_arg);
	o->brief = !alone && (!o->op.unique || s->will != NULL);
	if (o->cancelled)
		fail(o, ERR_CLOSED);
	else if (s->expiry_s > 0 || o->brief)
		claim_rows(o);
	else if (o->op.unique)
		succeed(o);
	else
		look(o);
}

static void on_fenced(struct claim *c)
{
	struct session *s = of_claim(c);
	if (s->opening != NULL)
		opening_of(s)->fenced = true;
	else if (s->settling != NULL)
		settle_fenced(s);
	else if (!s->closing)
		s->ops->fenced(s, ERR_FENCED);
}

static void on_claim_released(struct claim *c)
{
	struct session *s = of_claim(c);
	if (s->opening != NULL) { /* cancelled, and never granted */
		subscriber_fini(&s->reader);
		opening_free(opening_of(s));
	}
	session_free(s);
}

const struct claim_ops session_claim_ops = {on_granted, on_fenced, on_claim_released};

static enum err copy_will(struct session *s, struct bytes will)
{
	if (will.len == 0)
		return OK;
	s->will = mem_new(sizeof *s->will);
	buf_init(s->will, will.len);
	buf_add(s->will, will);
	return s->will->err;
}

enum err session_open(const struct session_open *ask, struct session_open **out)
{
	const struct catalog *c = shard_catalog(ask->shard);
	if (c == NULL || catalog_table_count(c) == 0)
		return ERR_UNAVAILABLE; /* the node is of no cluster yet */
	struct opening *o = mem_try(sizeof *o);
	struct session *s = mem_try(sizeof *s + ask->client_id.len);
	if (o == NULL || s == NULL || ask->client_id.len > UINT16_MAX) {
		mem_free(o);
		mem_free(s);
		return ERR_NOMEM;
	}
	*o = (struct opening){.op = *ask, .s = s};
	buf_init(&o->args, ARGS_BYTES_MAX);
	buf_init(&o->row, ROW_BYTES_MAX);
	buf_init(&o->cursor, ROW_BYTES_MAX);
	memset(s, 0, sizeof *s);
	list_init(&s->unleased);
	s->ops = ask->ops;
	s->owner = ask->owner;
	s->all = ask->all;
	s->expiry_s = ask->expiry_s;
	s->opening = &o->op;
	s->id_len = (uint16_t)ask->client_id.len;
	memcpy(s->id, ask->client_id.at, ask->client_id.len);
	o->op.client_id = session_id(s);
	o->op.will = bytes_of(NULL, 0);
	atomic_fetch_add(&s->all->live, 1);
	enum err e = copy_will(s, ask->will);
	if (e != OK) {
		opening_free(o);
		session_free(s);
		return e;
	}
	subscriber_init(&s->reader, ask->shard, session_tenant(s), &session_reader_ops);
	struct session_home *h = session_home_of(s->all, table_of(s));
	claim_acquire(
		&s->claim, &h->claims, shard_loop(ask->shard), &session_claim_ops, session_id(s));
	*out = &o->op;
	return OK;
}

void session_open_cancel(struct session_open *op)
{
	struct opening *o = list_entry(op, struct opening, op);
	loop_must_own(loop_of(o->s));
	o->cancelled = true;
	claim_withdraw(&o->s->claim);
}
