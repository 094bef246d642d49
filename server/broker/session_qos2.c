/* Rows that partitions keep of a client's QoS 2 publishes: read when its session is resumed,
 * removed one by one as ids are released and all together when the session is over. Which
 * partitions to ask is in the session's row. */
#include "server/base/log.h"
#include "server/broker/session_priv.h"

enum { PAGE_ROWS = 256, PAGE_BYTES = 64 * 1024, PAGE_ARGS_MAX = PAGE_ROWS * (UINT16_MAX + 16) };

static void next_partition(struct qos2_walk *w);

/* Args of both kinds: 0/8 an epoch; then keys, each length 4 and the key. Rows that a greater epoch
 * has put there since stay: they belong to a session to come, or to one that took this one over. */
static void ask_begin(struct buf *args, uint64_t epoch)
{
	buf_add_u64be(args, epoch);
}
static void ask_key(struct buf *args, struct bytes key)
{
	buf_add_u32be(args, (uint32_t)key.len);
	buf_add(args, key);
}

static enum err forget_row(struct eval *v, struct bytes key, uint64_t epoch)
{
	struct bytes held;
	enum err e = eval_get(v, KEYSPACE_QOS2, key, &held);
	if (e == ERR_NOTFOUND)
		return OK;
	if (e == OK && (held.len < sizeof epoch || get_u64be(held.at) <= epoch))
		eval_delete(v, KEYSPACE_QOS2, key);
	return e;
}

/* The client's epoch here is that of who releases: a publish of an earlier connection that is still
 * on its way finds the id forgotten, and must not be taken for a new one. */
static enum err raise_epoch(struct eval *v, struct bytes key, uint64_t epoch)
{
	uint8_t now[sizeof epoch];
	struct bytes held;
	enum err e;
	if (key.len < QOS2_KEY_EXTRA)
		return ERR_MALFORMED;
	key.len -= QOS2_KEY_EXTRA - 1;
	e = eval_get(v, KEYSPACE_QOS2, key, &held);
	if (e == ERR_NOTFOUND)
		return OK;
	if (e == OK && held.len == sizeof now && get_u64be(held.at) < epoch) {
		put_u64be(now, epoch);
		eval_put(v, KEYSPACE_QOS2, key, bytes_of(now, sizeof now));
	}
	return e;
}

static enum err evaluate(struct eval *v, struct bytes args, bool release)
{
	struct rd r = rd_over(args);
	uint64_t epoch = rd_u64be(&r);
	enum err e = OK;
	while (e == OK && r.err == OK && rd_left(&r) > 0) {
		struct bytes key = rd_take(&r, rd_u32be(&r));
		if (r.err == OK && release)
			e = raise_epoch(v, key, epoch);
		if (r.err == OK && e == OK)
			e = forget_row(v, key, epoch);
	}
	return e != OK ? e : r.err != OK ? ERR_MALFORMED : OK;
}

static enum err forget_evaluate(struct eval *v, struct bytes args)
{
	return evaluate(v, args, false);
}
static enum err release_evaluate(struct eval *v, struct bytes args)
{
	return evaluate(v, args, true);
}

const struct proposal_kind qos2_forget_kind = {PROPOSAL_QOS2_FORGET, forget_evaluate};
const struct proposal_kind qos2_release_kind = {PROPOSAL_QOS2_RELEASE, release_evaluate};

static void finish(struct qos2_walk *w)
{
	buf_fini(&w->args);
	mem_free(w->key);
	w->key = NULL;
	w->done(w);
}

static void step(struct qos2_walk *w)
{
	bool more = w->read.more && w->remove; /* removed ones are not read again */
	row_read_fini(&w->read);
	if (!more)
		w->at++;
	next_partition(w);
}

static void on_forgotten(struct proposal *p)
{
	struct qos2_walk *w = list_entry(p, struct qos2_walk, forget);
	if (p->err != OK) {
		w->err = p->err;
		row_read_fini(&w->read);
		finish(w);
		return;
	}
	step(w);
}

static void give(struct qos2_walk *w)
{
	for (int i = 0; i < w->read.count; i++) {
		uint16_t id;
		uint64_t epoch;
		int64_t offset;
		if (qos2_row_decode(w->read.rows[i].key, w->read.rows[i].value, &id, &epoch,
			    &offset) == OK &&
			id > 0) /* 0: a will's */
			w->each(w, w->groups[w->at], id, epoch);
	}
}

static void forget(struct qos2_walk *w)
{
	buf_clear(&w->args);
	ask_begin(&w->args, w->epoch);
	for (int i = 0; i < w->read.count; i++)
		ask_key(&w->args, w->read.rows[i].key);
	w->forget = (struct proposal){.to = w->read.from,
		.kind = &qos2_forget_kind,
		.args = buf_bytes(&w->args),
		.repeatable = true,
		.err = w->args.err,
		.done = on_forgotten};
	if (w->args.err == OK)
		partition_propose(&w->forget);
	else
		on_forgotten(&w->forget);
}

static void on_read(struct row_read *r)
{
	struct qos2_walk *w = list_entry(r, struct qos2_walk, read);
	if (r->err != OK) {
		w->err = r->err;
		row_read_fini(r);
		finish(w);
		return;
	}
	if (!w->remove) {
		give(w);
		step(w);
	} else if (r->count > 0) {
		forget(w);
	} else {
		step(w);
	}
}

static void finish_later(void *arg)
{
	finish(arg);
}

static void next_partition(struct qos2_walk *w)
{
	struct partition *p = NULL;
	while (w->at < w->group_count &&
		(p = session_partition(w->shard, w->groups[w->at])) == NULL)
		w->at++;
	if (p == NULL) {
		loop_call(shard_loop(w->shard), finish_later, w);
		return;
	}
	/* Without a remove, one page has all: a client has 65535 ids, and few of them at once. */
	w->read = (struct row_read){.from = p,
		.keyspace = KEYSPACE_QOS2,
		.prefix = true,
		.linearizable = true,
		.key = bytes_of(w->key, w->client_id.len + 1),
		.rows_max = w->remove ? PAGE_ROWS : UINT16_MAX + 1,
		.bytes_max = w->remove ? PAGE_BYTES : PAGE_BYTES * 1024,
		.done = on_read};
	partition_read_rows(&w->read);
}

void qos2_walk(struct qos2_walk *w)
{
	w->at = 0;
	w->err = OK;
	buf_init(&w->args, PAGE_ARGS_MAX);
	w->key = mem_new(w->client_id.len + QOS2_KEY_EXTRA);
	qos2_key(w->client_id, 0, w->key);
	next_partition(w);
}

struct clearing {
	struct qos2_walk walk;
	struct sessions *all;
	uint64_t *groups;
	uint8_t id[];
};

static void on_swept(struct qos2_walk *w)
{
	struct clearing *s = list_entry(w, struct clearing, walk);
	if (w->err != OK)
		LOG(LOG_WARN, AREA_BROKER, "qos2_rows_left", "err=\"%s\"", err_text(w->err));
	atomic_fetch_sub(&s->all->live, 1);
	mem_free(s->groups);
	mem_free(s);
}

void qos2_sweep(struct sessions *all, struct shard *shard, struct bytes client_id, uint64_t epoch,
	const uint64_t *groups, uint32_t count)
{
	if (count == 0)
		return;
	struct clearing *s = mem_new(sizeof *s + client_id.len);
	s->all = all;
	s->groups = mem_new(count * sizeof *groups);
	memcpy(s->groups, groups, count * sizeof *groups);
	memcpy(s->id, client_id.at, client_id.len);
	s->walk = (struct qos2_walk){.shard = shard,
		.client_id = bytes_of(s->id, client_id.len),
		.groups = s->groups,
		.group_count = count,
		.remove = true,
		.epoch = epoch,
		.done = on_swept};
	atomic_fetch_add(&all->live, 1);
	qos2_walk(&s->walk);
}

enum err session_publish_once(
	struct session *s, const struct message *m, uint16_t packet_id, struct publish *p)
{
	struct message own = *m;
	own.tenant = session_tenant(s);
	if (s->durable == NULL)
		return shard_publish(session_shard(s), &own, p);
	struct session_rows *d = s->durable;
	struct qos2_claim claim = {session_id(s), d->epoch, d->born, packet_id, false};
	enum err e = shard_publish_claimed(session_shard(s), &own, &claim, p);
	/* Listed while it is under way: if the client goes before the outcome, its row is known. */
	if (e == OK && p->partition != NULL)
		(void)durable_list(d, partition_group(p->partition), false);
	return e;
}

uint64_t session_listed(struct session *s, struct partition *p)
{
	if (s->durable == NULL || p == NULL)
		return 0;
	return durable_list(s->durable, partition_group(p), false);
}

static void on_released(struct proposal *p)
{
	struct session_forget *f = list_entry(p, struct session_forget, proposal);
	f->err = p->err;
	mem_free(f->args);
	f->done(f);
}

enum err session_forget(struct session *s, struct session_forget *f)
{
	struct partition *p = s->durable != NULL ? session_partition(session_shard(s), f->group)
						 : NULL;
	if (p == NULL)
		return ERR_NOTFOUND;
	size_t key_len = s->id_len + QOS2_KEY_EXTRA;
	f->args = mem_try(8 + 4 + key_len);
	if (f->args == NULL)
		return ERR_NOMEM;
	put_u64be(f->args, s->durable->epoch);
	put_u32be(f->args + 8, (uint32_t)key_len);
	(void)qos2_key(session_id(s), f->packet_id, f->args + 12);
	f->proposal = (struct proposal){.to = p,
		.kind = &qos2_release_kind,
		.args = bytes_of(f->args, 12 + key_len),
		.repeatable = true,
		.done = on_released};
	partition_propose(&f->proposal);
	return OK;
}
