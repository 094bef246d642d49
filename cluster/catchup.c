/* Fetching a group. One question is under way at a time; each names what is wanted next, so a lost
 * answer is asked for again, and a lost session is opened anew: the entries that are held stay,
 * rows begin again, for they must be those of one snapshot.
 *
 *	look (what of the log is held) -> open -> log -> rows -> durable -> end -> durable
 *
 * Where payloads were unlogged a flush stands before the end. Nothing of the old state is touched
 * before the first answer is there and right. What comes is checked item by item against what came
 * before; a wrong one ends the fetch. The lane is never given more than a few MiB that are not
 * written yet. */
#include "cluster/catchup_priv.h"
#include "cluster/raft_wire.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/disk.h"

enum {
	LANE_BYTES_MAX = 4 << 20,     /* staged and not synced before the next chunk is asked for */
	UNLOGGED_BYTES_MIN = 8 << 20, /* for less, flushing costs more than writing twice */
	RETRY_MS = 100,
	RETRY_MS_MAX = 2000,
	GIVE_UP_MS = 30000, /* without an answer that helped */
	CLOSE_MS = 5000,
	REOPENS_MAX = 5 /* in a row, without a chunk between them */
};

struct catchup {
	struct list node; /* catchup_loop.fetches */
	struct catchup_loop *at;
	struct catchup_fetch f;
	struct peer_call call;
	struct loop_timer timer;
	void (*then)(struct catchup *c); /* of timer and durable */
	struct durable durable;
	struct job job;
	bool under_way; /* the call or the job */
	bool over;      /* goes when that is back */
	bool holding;   /* a chunk's memory */
	bool unlogged;  /* payloads of the log, once they were: see plog_seed_entry */
	enum store_family family;
	uint64_t session;
	struct catchup_opened opened;
	struct slice config;
	uint64_t below;          /* the run of entries held begins above it */
	struct plog_state last;  /* and ends here */
	struct plog_state first; /* the log up to below, where that is known */
	bool keeps;              /* entries that were held when the session began */
	bool joined;             /* the last of them is the leader's, too, or none is */
	bool anew;               /* what is held must not be kept */
	uint64_t above;          /* what is fetched in it comes after this entry */
	uint64_t held_end;       /* what may be held lies before it */
	enum err worked;         /* the job */
	enum catchup_part part;
	uint8_t *after; /* the last row's key */
	size_t after_len, after_room;
	int tries, reopens;
	int64_t helped_ms; /* when an answer last helped */
	int64_t bytes, began_ms;
};

static void open_ask(struct catchup *c);
static void next_ask(struct catchup *c);

/* --- the end --- */

static void fetch_free(struct catchup *c)
{
	slice_unref(&c->config);
	mem_free(c->after);
	mem_free(c);
}

static void count_fetches(struct catchup_loop *at, int more)
{
	at->fetch_count += more;
	metric_set(loop_cells(at->loop), &catchup_metrics, M_CATCHUP_FETCHES, at->fetch_count);
}

static void let_go(struct catchup *c)
{
	if (c->holding)
		catchup_let_go(&c->at->all->in.memory, CATCHUP_CHUNK_BYTES);
	c->holding = false;
}

static void closed(struct peer_call *call)
{
	slice_unref(&call->answer);
	fetch_free(list_entry(call, struct catchup, call));
}

static void ask(struct catchup *c, const struct catchup_question *q, int64_t timeout_ms,
	void (*done)(struct peer_call *call));

/* The fetch is nobody's any more: the session is told, then it goes. */
static void retire(struct catchup *c, bool whole)
{
	struct catchup_question q = {.what = CATCHUP_CLOSE, .session = c->session, .whole = whole};

	must(!c->over);
	c->over = true;
	let_go(c);
	list_remove(&c->node);
	count_fetches(c->at, -1);
	loop_timer_cancel(&c->timer);
	durable_cancel(&c->durable);
	if (c->under_way)
		return; /* its end frees it; the session expires */
	if (c->session == 0)
		fetch_free(c);
	else
		ask(c, &q, CLOSE_MS, closed);
}

/* The last thing that is done with c: the owner may start the next one in done. */
static void finish(struct catchup *c, enum err e)
{
	void (*done)(void *arg, enum err e) = c->f.done;
	void *arg = c->f.arg;

	metric_add(loop_cells(c->at->loop), &catchup_metrics,
		e == OK ? M_CATCHUP_FETCHED : M_CATCHUP_FAILED, 1);
	LOG(e == OK ? LOG_INFO : LOG_WARN, AREA_CLUSTER,
		e == OK ? "catchup_done" : "catchup_failed",
		"group=%llu node=%u above=%llu index=%llu bytes=%lld ms=%lld err=\"%s\"",
		(unsigned long long)c->f.group, c->f.from, (unsigned long long)c->above,
		(unsigned long long)c->opened.last.index, (long long)c->bytes,
		(long long)(loop_now_ms(c->at->loop) - c->began_ms), err_text(e));
	retire(c, e == OK);
	done(arg, e);
}

/* --- waiting --- */

static void fire(struct loop_timer *t)
{
	struct catchup *c = list_entry(t, struct catchup, timer);

	c->then(c);
}

static void after_ms(struct catchup *c, int64_t ms, void (*then)(struct catchup *c))
{
	c->then = then;
	loop_timer_set(&c->timer, ms);
}

static void on_durable(struct durable *d)
{
	struct catchup *c = list_entry(d, struct catchup, durable);

	c->then(c);
}

static void when_durable(struct catchup *c, void (*then)(struct catchup *c))
{
	c->then = then;
	c->durable.done = on_durable;
	lane_when_durable(c->f.env->lane, &c->durable);
}

static void by_worker(struct catchup *c, void (*run)(struct job *j), void (*done)(struct job *j))
{
	c->under_way = true;
	c->job.home = c->at->loop;
	c->job.work = run;
	c->job.done = done;
	worker_run(c->f.env->workers, &c->job);
}

static void again(struct catchup *c, void (*then)(struct catchup *c))
{
	int64_t ms = (int64_t)RETRY_MS << (c->tries < 5 ? c->tries : 5);

	c->tries++;
	ms = ms < RETRY_MS_MAX ? ms : RETRY_MS_MAX;
	after_ms(c, ms / 2 + (int64_t)(random_u64() % (uint64_t)(ms / 2)), then);
}

static void helped(struct catchup *c)
{
	c->tries = 0;
	c->helped_ms = loop_now_ms(c->at->loop);
}

/* --- asking --- */

static void ask(struct catchup *c, const struct catchup_question *q, int64_t timeout_ms,
	void (*done)(struct peer_call *call))
{
	struct slice part;

	if (catchup_question_encode(q, &part) != OK) {
		part = (struct slice){NULL, {NULL, 0}};
	}
	c->call = (struct peer_call){.to = c->f.from,
		.op = PEER_OP_CATCHUP,
		.group = c->f.group,
		.parts = &part,
		.part_count = 1,
		.lane = LANE_HIGH,
		.timeout_ms = timeout_ms,
		.done = done};
	c->under_way = true;
	peer_call(c->at->all->peers, &c->call);
}

/* What an answer that is none means. `then` asks again. */
static void failed(struct catchup *c, enum err e, void (*then)(struct catchup *c))
{
	int64_t silent_ms = loop_now_ms(c->at->loop) - c->helped_ms;

	if (e == ERR_NOTFOUND && c->reopens++ < REOPENS_MAX) {
		c->session = 0;
		again(c, open_ask);
	} else if (e == ERR_BUSY) {
		c->helped_ms = loop_now_ms(c->at->loop); /* it is there */
		again(c, then);
	} else if ((e == ERR_TIMEOUT || e == ERR_UNAVAILABLE || e == ERR_UNKNOWN) &&
		silent_ms < GIVE_UP_MS) {
		again(c, then);
	} else {
		finish(c, e == ERR_MALFORMED ? ERR_CORRUPT : e);
	}
}

/* The call or the job. Gives false if nobody wants it any more: then c is gone. */
static bool came_back(struct catchup *c)
{
	c->under_way = false;
	if (!c->over)
		return true;
	fetch_free(c);
	return false;
}

/* What was kept or fetched goes after all. */
static void note_garbage(const struct catchup *c)
{
	if (c->f.env->disk != NULL && c->last.index > 0)
		disk_trimmed(c->f.env->disk, c->f.group, c->family, c->last.index + 1,
			c->last.bytes - c->first.bytes);
}

static void wrong(struct catchup *c, const char *what)
{
	LOG(LOG_ERROR, AREA_CLUSTER, "catchup_refused", "group=%llu node=%u what=\"%s\" index=%llu",
		(unsigned long long)c->f.group, c->f.from, what, (unsigned long long)c->last.index);
	/* It may be what is held that is wrong: the next fetch begins from nothing. */
	if (plog_marks(c->f.log)->seeding) {
		note_garbage(c);
		plog_seed_begin(c->f.log, plog_marks(c->f.log)->seeding_index, 0);
	}
	finish(c, ERR_CORRUPT);
}

/* --- open --- */

static bool same_state(const struct plog_state *a, const struct plog_state *b)
{
	return a->index == b->index && a->term == b->term && a->next_offset == b->next_offset &&
		a->max_ms == b->max_ms && a->bytes == b->bytes;
}

static bool log_is_whole(const struct catchup *c)
{
	return same_state(&c->last, &c->opened.last);
}

/* Whether the entries held are part of what this snapshot's log is. Where the replica has trimmed
 * further, its log goes on beginning there: if that is not known any more, nothing is kept. */
static bool may_keep(const struct catchup *c, const struct catchup_opened *o)
{
	bool known = c->below <= o->first.index || c->below == c->first.index;

	return !c->anew && c->last.index > 0 && known && c->last.index >= o->first.index &&
		c->last.index <= o->last.index &&
		(c->last.index < o->last.index || log_is_whole(c)) &&
		(c->last.index > o->first.index || c->last.term == o->first.term);
}

static uint64_t unlogged_min(const struct catchup *c)
{
	int64_t set = c->at->all->settings->unlogged_bytes_min;

	return set != 0 ? (uint64_t)set : UNLOGGED_BYTES_MIN;
}

static void begin(struct catchup *c)
{
	const struct catchup_opened *o = &c->opened;
	bool again = plog_marks(c->f.log)->seeding;

	if (!again) { /* it may have been trimmed since it was looked at */
		c->first = plog_below(c->f.log);
		c->below = c->first.index;
	}
	c->keeps = may_keep(c, o);
	c->joined = !c->keeps || c->last.index == o->first.index;
	if (!c->keeps) {
		if (again)
			note_garbage(c);
		c->first = c->last = o->first;
		c->below = o->first.index;
		c->anew = false;
	}
	/* What a fetch has left may be written and not durable. */
	c->unlogged = c->unlogged || (c->keeps && again) ||
		o->last.bytes - c->last.bytes >= unlogged_min(c);
	if (c->f.emptied != NULL)
		c->f.emptied(c->f.arg);
	c->above = c->last.index;
	plog_seed_begin(c->f.log, o->last.index, c->keeps ? c->last.index : 0);
	c->after_len = 0;
	c->part = c->last.index < o->last.index ? CATCHUP_LOG : CATCHUP_ROWS;
	when_durable(c, next_ask); /* what goes is gone before anything comes past the log */
}

static bool config_readable(struct bytes config)
{
	struct raft_configuration conf;

	if (raft_config_decode(config, &conf) != OK)
		return false;
	raft_configuration_close(&conf);
	return true;
}

static void open_answered(struct peer_call *call)
{
	struct catchup *c = list_entry(call, struct catchup, call);
	struct slice answer = call->answer;
	enum err e = call->err;

	if (!came_back(c)) {
		slice_unref(&answer);
		return;
	}
	if (e == OK)
		e = catchup_opened_decode(answer.bytes, &c->opened);
	if (e == OK &&
		(c->opened.last.index < c->f.index_min || !config_readable(c->opened.config)))
		e = ERR_MALFORMED;
	if (e == OK) {
		slice_unref(&c->config);
		e = slice_copy(c->opened.config, &c->config);
		c->opened.config = c->config.bytes;
	}
	slice_unref(&answer);
	if (e == ERR_MALFORMED || e == ERR_UNSUPPORTED) {
		wrong(c, "opened");
	} else if (e != OK) {
		failed(c, e, open_ask);
	} else {
		c->session = c->opened.session;
		helped(c);
		begin(c);
	}
}

static void open_ask(struct catchup *c)
{
	struct catchups *all = c->at->all;
	struct catchup_question q = {.what = CATCHUP_OPEN, .index_min = c->f.index_min};

	if (!c->holding &&
		!catchup_hold(
			&all->in.memory, CATCHUP_CHUNK_BYTES, all->settings->memory_bytes / 2)) {
		c->helped_ms = loop_now_ms(c->at->loop); /* the node it asks is not to blame */
		after_ms(c, RETRY_MS, open_ask);
		return;
	}
	c->holding = true;
	ask(c, &q, CATCHUP_CALL_MS, open_answered);
}

/* --- chunks --- */

/* The last entry that is held is fetched once more: if the leader has another there, the logs are
 * not one log, whatever Raft says (a store that was put back, perhaps). */
static void join(struct catchup *c, const struct catchup_item *i)
{
	struct plog_state theirs = plog_state_of(i->index, &i->head);

	c->joined = true;
	c->anew = !same_state(&theirs, &c->last);
	if (c->anew)
		LOG(LOG_WARN, AREA_CLUSTER, "catchup_differs", "group=%llu node=%u index=%llu",
			(unsigned long long)c->f.group, c->f.from,
			(unsigned long long)c->last.index);
}

/* Where compaction has taken records something that is held may have been hidden by them. */
static bool take_entry(struct catchup *c, const struct catchup_item *i)
{
	if (!c->joined) {
		join(c, i);
		return true;
	}
	if (i->index > c->opened.last.index || !plog_follows(&c->last, i->index, &i->head))
		return false;
	plog_seed_entry(c->f.log, i->index, &i->head, i->payload, c->unlogged);
	c->last = plog_state_of(i->index, &i->head);
	c->anew = c->keeps && (i->head.flags & ENTRY_COMPACTED);
	return true;
}

static bool take_row(struct catchup *c, const struct catchup_item *i)
{
	uint8_t *more;

	if (bytes_compare(i->key, bytes_of(c->after, c->after_len)) <= 0)
		return false;
	if (i->key.len > c->after_room) {
		more = mem_resize(c->after, i->key.len);
		if (more == NULL)
			return false;
		c->after = more;
		c->after_room = i->key.len;
	}
	memcpy(c->after, i->key.at, i->key.len);
	c->after_len = i->key.len;
	plog_seed_row(c->f.log, i->key, i->value);
	return true;
}

/* Gives what is wrong with it, NULL: nothing; all before that is staged. */
static const char *take_chunk(struct catchup *c, struct bytes in, bool *last)
{
	struct catchup_chunk chunk;
	struct catchup_item item;
	enum err e = catchup_chunk_decode(in, &chunk);

	if (e != OK)
		return err_text(e);
	if (chunk.group != c->f.group || chunk.part != c->part)
		return "not what was asked for";
	if (chunk.items == 0 && !chunk.last)
		return "nothing";
	while (!c->anew && (e = catchup_chunk_next(&chunk, &item)) == OK) {
		if (!(c->part == CATCHUP_LOG ? take_entry(c, &item) : take_row(c, &item)))
			return "order";
	}
	if (c->anew)
		return NULL;
	if (e != ERR_NOTFOUND)
		return err_text(e);
	*last = chunk.last;
	return chunk.last && c->part == CATCHUP_LOG && !log_is_whole(c) ? "end of the log" : NULL;
}

static void end_durable(struct catchup *c)
{
	finish(c, OK);
}

static void all_durable(struct catchup *c)
{
	const struct catchup_opened *o = &c->opened;
	bool earlier = c->below < o->first.index && c->below == c->first.index;
	struct plog_seed seed = {.first = c->first.index > o->first.index ? c->first : o->first,
		.last = c->last,
		.first_offset = o->first_offset,
		.config_index = o->config_index,
		.config = c->config,
		.cut = c->keeps,
		.cut_bytes = earlier ? o->first.bytes - c->first.bytes : 0};

	plog_seed_end(c->f.log, &seed);
	when_durable(c, end_durable);
}

static void flush_work(struct job *j)
{
	struct catchup *c = list_entry(j, struct catchup, job);

	c->worked = store_flush(c->f.env->store, c->family);
}

static void flushed(struct job *j)
{
	struct catchup *c = list_entry(j, struct catchup, job);

	if (!came_back(c))
		return;
	if (c->worked == OK)
		all_durable(c);
	else
		finish(c, c->worked);
}

static void flush(struct catchup *c)
{
	by_worker(c, flush_work, flushed);
}

static void part_ended(struct catchup *c)
{
	if (c->part == CATCHUP_LOG) {
		c->part = CATCHUP_ROWS;
		next_ask(c);
		return;
	}
	when_durable(c, c->unlogged ? flush : all_durable);
}

static void next_answered(struct peer_call *call)
{
	struct catchup *c = list_entry(call, struct catchup, call);
	struct catchups *all = c->at->all;
	struct slice answer = call->answer;
	enum err e = call->err;
	const char *fault;
	bool last = false;

	if (!came_back(c)) {
		slice_unref(&answer);
		return;
	}
	catchup_bucket_correct(&all->in.bucket, (int64_t)answer.bytes.len - CATCHUP_CHUNK_BYTES,
		all->settings->rate_bytes);
	if (e != OK) {
		slice_unref(&answer);
		failed(c, e, next_ask);
		return;
	}
	fault = take_chunk(c, answer.bytes, &last);
	c->bytes += (int64_t)answer.bytes.len;
	metric_add(loop_cells(c->at->loop), &catchup_metrics, M_CATCHUP_BYTES_IN,
		(int64_t)answer.bytes.len);
	slice_unref(&answer);
	if (fault != NULL) {
		wrong(c, fault);
		return;
	}
	helped(c);
	c->reopens = 0;
	if (c->anew)
		begin(c);
	else if (last)
		part_ended(c);
	else
		next_ask(c);
}

static void next_send(struct catchup *c)
{
	struct catchup_question q = {.what = CATCHUP_NEXT, .session = c->session, .part = c->part};

	if (c->part == CATCHUP_LOG)
		q.index = c->last.index + c->joined;
	else
		q.after = bytes_of(c->after, c->after_len);
	ask(c, &q, CATCHUP_CALL_MS, next_answered);
}

/* When the lane has room, and the throttle. */
static void next_ask(struct catchup *c)
{
	struct catchups *all = c->at->all;
	int64_t wait_us;

	if (lane_pending_bytes(c->f.env->lane) > LANE_BYTES_MAX) {
		when_durable(c, next_ask);
		return;
	}
	wait_us = catchup_bucket_take(&all->in.bucket, loop_now_ms(c->at->loop) * 1000,
		CATCHUP_CHUNK_BYTES, all->settings->rate_bytes);
	if (wait_us < 0)
		after_ms(c, CATCHUP_WAIT_MS_MAX / 2, next_ask);
	else if (wait_us >= 1000)
		after_ms(c, wait_us / 1000, next_send);
	else
		next_send(c);
}

/* --- the beginning --- */

static void look_work(struct job *j)
{
	struct catchup *c = list_entry(j, struct catchup, job);

	c->worked = plog_seed_found(
		c->f.env->store, c->f.group, c->family, c->held_end, &c->below, &c->last);
}

static void looked(struct job *j)
{
	struct catchup *c = list_entry(j, struct catchup, job);

	if (!came_back(c))
		return;
	if (c->worked != OK)
		c->last = (struct plog_state){.max_ms = -1};
	open_ask(c);
}

static void look(struct catchup *c)
{
	const struct plog_marks *m = plog_marks(c->f.log);
	uint64_t held = m->applied_index > c->f.held ? m->applied_index : c->f.held;

	c->held_end = m->seeding ? UINT64_MAX : held + 1;
	by_worker(c, look_work, looked);
}

struct catchup *catchup_start(struct catchups *all, const struct catchup_fetch *f)
{
	struct catchup *c = mem_new(sizeof *c);

	loop_must_own(f->env->loop);
	c->at = catchup_here(all, f->env->loop);
	c->f = *f;
	c->last.max_ms = -1;
	c->family = plog_family(f->log);
	c->began_ms = c->helped_ms = loop_now_ms(c->at->loop);
	loop_timer_init(&c->timer, c->at->loop, fire);
	list_push_back(&c->at->fetches, &c->node);
	count_fetches(c->at, 1);
	/* What is staged must be in the store before it is looked at. */
	when_durable(c, look);
	return c;
}

void catchup_cancel(struct catchup *c)
{
	loop_must_own(c->at->loop);
	retire(c, false);
}

void catchup_fetches_drop(struct catchup_loop *at)
{
	struct list *n;

	while ((n = list_pop(&at->fetches)) != NULL) {
		struct catchup *c = list_entry(n, struct catchup, node);

		let_go(c);
		fetch_free(c);
	}
}
