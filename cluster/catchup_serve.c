/* Serving a fetch. A session is a snapshot of the store, taken when rows and applied mark have just
 * been written back, so what it holds up to that mark is the group's state after one entry. Every
 * question names where to go on, so one whose answer was lost is asked again and nothing is kept of
 * where a fetch is. Chunks are made by workers; the throttle is waited for before. What of it is on
 * its way in connections is bounded by the memory of sessions: one has one chunk at a time.
 *
 * While a session lives, and after it until the replica has taken up the log from there, the
 * leader's log is pinned: else what comes after the snapshot would be gone when it asks for it.
 *
 * A session's memory is its chunk's, held from the first question to the last: a client that was
 * refused asks again. */
#include "cluster/catchup_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/keys.h"

enum { OPEN_TRIES = 5, PIN_LOOK_MS = 200, PIN_MS = 30000, NEAR_ENTRIES = 64 };

enum session_state {
	SESSION_OPENING,
	SESSION_READY,   /* waits for a question */
	SESSION_READING, /* one is being answered */
	SESSION_PINNED   /* over; the log is held until the replica has caught up */
};

struct session {
	struct list node; /* catchup_loop.sessions */
	struct catchup_loop *at;
	const struct catchup_source *source; /* not to be looked at once ended */
	struct store *store;
	struct workers *workers;
	enum store_family family;
	enum session_state state;
	uint64_t id, group;
	uint32_t from;
	struct store_snapshot *snapshot;
	struct plog_seed seed; /* what the snapshot holds */
	uint64_t index_min;
	int tries;                    /* of opening */
	struct peer_request *request; /* to be answered */
	struct catchup_question question;
	struct loop_timer timer;  /* the throttle's, and looking whether it has caught up */
	struct loop_timer expiry; /* of silence */
	struct durable durable;
	struct job job;
	bool working; /* the job is with a worker */
	bool ended;   /* goes when nothing of it is under way */
	struct slice chunk;
	size_t need; /* bytes of the one item that is larger than a chunk */
	int64_t held;
	int64_t given; /* bytes of chunks */
	enum err err;
	int64_t pinned_until_ms;
};

static void session_end(struct session *s, enum err e);

static void answer(struct session *s, enum err e, struct slice *part)
{
	struct peer_request *r = s->request;

	s->request = NULL;
	if (r != NULL)
		peer_answer(r, LANE_BULK, e, part, part != NULL);
}

static void refuse(struct peer_request *r, enum err e)
{
	peer_answer(r, LANE_HIGH, e, NULL, 0);
}

static int64_t half(const struct catchups *all)
{
	return all->settings->memory_bytes / 2;
}

static void count_sessions(struct catchup_loop *at, int more)
{
	at->session_count += more;
	metric_set(loop_cells(at->loop), &catchup_metrics, M_CATCHUP_SESSIONS, at->session_count);
}

/* --- the end of a session --- */

static void let_go(struct session *s, int64_t keep)
{
	if (s->held > keep) {
		catchup_let_go(&s->at->all->out.memory, s->held - keep);
		s->held = keep;
	}
}

static void session_free(struct session *s)
{
	must(s->snapshot == NULL);
	must(s->request == NULL);
	slice_unref(&s->chunk);
	slice_unref(&s->seed.config);
	let_go(s, 0);
	mem_free(s);
}

static void release_work(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);

	store_snapshot_free(s->store, s->snapshot);
	s->snapshot = NULL;
}

static void release_done(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);

	s->working = false;
	if (s->ended)
		session_free(s);
}

static void run(struct session *s, void (*work)(struct job *j), void (*done)(struct job *j))
{
	must(!s->working);
	s->working = true;
	s->job.home = s->at->loop;
	s->job.work = work;
	s->job.done = done;
	worker_run(s->workers, &s->job);
}

/* The snapshot goes: by a worker, as a store may have to do something then. */
static void release(struct session *s)
{
	if (s->snapshot != NULL)
		run(s, release_work, release_done);
	else if (s->ended)
		session_free(s);
}

static void unlist(struct session *s)
{
	list_remove(&s->node);
	count_sessions(s->at, -1);
	loop_timer_cancel(&s->timer);
	loop_timer_cancel(&s->expiry);
	durable_cancel(&s->durable);
}

static void session_end(struct session *s, enum err e)
{
	must(!s->ended);
	s->ended = true;
	unlist(s);
	consensus_pin(s->source->consensus, false);
	s->source = NULL;
	if (s->working)
		return; /* its end sees that, and answers */
	answer(s, e, NULL);
	let_go(s, 0);
	release(s);
}

/* A job has ended; true: the session has, too. */
static bool job_ended(struct session *s)
{
	s->working = false;
	if (!s->ended)
		return false;
	answer(s, ERR_NOTFOUND, NULL);
	release(s);
	return true;
}

static void expire(struct loop_timer *t)
{
	struct session *s = list_entry(t, struct session, expiry);

	LOG(LOG_INFO, AREA_CLUSTER, "catchup_expired", "group=%llu node=%u",
		(unsigned long long)s->group, s->from);
	session_end(s, ERR_TIMEOUT);
}

/* --- open --- */

static void open_work(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);

	s->snapshot = store_snapshot_new(s->store);
	s->err = plog_seed_source(s->store, s->snapshot, s->group, &s->seed);
	/* A configuration is marked when it is applied, its entry's rows some time later. */
	if (s->err == OK && s->seed.config_index > s->seed.last.index)
		s->err = ERR_MORE;
	if (s->err == OK && s->seed.last.index < s->index_min)
		s->err = ERR_UNAVAILABLE;
	if (s->err == OK)
		return;
	store_snapshot_free(s->store, s->snapshot);
	s->snapshot = NULL;
	slice_unref(&s->seed.config);
}

static void open_begin(struct session *s);

static void open_done(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);
	struct catchup_opened o;
	struct slice part;

	if (job_ended(s))
		return;
	if (s->err == ERR_MORE && s->tries++ < OPEN_TRIES) {
		open_begin(s);
		return;
	}
	o = (struct catchup_opened){s->id, s->seed.first, s->seed.last, s->seed.first_offset,
		s->seed.config_index, s->seed.config.bytes};
	if (s->err == OK)
		s->err = catchup_opened_encode(&o, &part);
	if (s->err != OK) {
		session_end(s, s->err == ERR_MORE ? ERR_BUSY : s->err);
		return;
	}
	LOG(LOG_INFO, AREA_CLUSTER, "catchup_served", "group=%llu node=%u index=%llu bytes=%llu",
		(unsigned long long)s->group, s->from, (unsigned long long)s->seed.last.index,
		(unsigned long long)(s->seed.last.bytes - s->seed.first.bytes));
	s->state = SESSION_READY;
	answer(s, OK, &part);
	loop_timer_set(&s->expiry, CATCHUP_SILENCE_MS);
}

static void open_durable(struct durable *d)
{
	run(list_entry(d, struct session, durable), open_work, open_done);
}

/* Rows and mark are staged; once they are in the store it is looked at. */
static void open_begin(struct session *s)
{
	s->source->write_back(s->source->arg);
	s->durable.done = open_durable;
	lane_when_durable(s->source->env->lane, &s->durable);
}

static struct session *session_of(struct catchup_loop *at, uint64_t group, uint32_t from)
{
	for (struct list *n = at->sessions.next; n != &at->sessions; n = n->next) {
		struct session *s = list_entry(n, struct session, node);

		if (s->group == group && s->from == from)
			return s;
	}
	return NULL;
}

static void throttled(struct loop_timer *t);

static struct session *session_new(
	struct catchup_loop *at, const struct catchup_source *source, struct peer_request *r)
{
	struct session *s = mem_new(sizeof *s);

	s->at = at;
	s->source = source;
	s->store = source->env->store;
	s->workers = source->env->workers;
	s->family = plog_family(source->log);
	s->id = random_u64() | 1;
	s->group = r->group;
	s->from = r->from;
	s->held = CATCHUP_CHUNK_BYTES;
	loop_timer_init(&s->timer, at->loop, throttled);
	loop_timer_init(&s->expiry, at->loop, expire);
	list_push_back(&at->sessions, &s->node);
	count_sessions(at, 1);
	consensus_pin(source->consensus, true);
	return s;
}

static void open_session(
	struct catchup_loop *at, struct peer_request *r, const struct catchup_question *q)
{
	struct catchups *all = at->all;
	const struct catchup_source *source = all->find(all->find_arg, r->group);
	struct session *s = session_of(at, r->group, r->from);

	if (s != NULL)
		session_end(s, ERR_NOTFOUND); /* it starts anew */
	if (source == NULL || consensus_role(source->consensus) != ROLE_LEADER) {
		refuse(r, ERR_NOTLEADER);
		return;
	}
	if (!catchup_hold(&all->out.memory, CATCHUP_CHUNK_BYTES, half(all))) {
		refuse(r, ERR_BUSY);
		return;
	}
	s = session_new(at, source, r);
	s->index_min = q->index_min;
	s->request = r;
	open_begin(s);
}

/* --- next --- */

/* The payload of an entry: the iterator of the log stands at it. */
static enum err payload_at(
	struct store_iter *logs, struct bytes key, const struct entry_header *h, struct bytes *out)
{
	*out = bytes_of(NULL, 0);
	if (h->payload_bytes == 0 || (h->flags & ENTRY_TRIMMED))
		return OK;
	if (!store_iter_valid(logs) || !bytes_equal(store_iter_key(logs), key))
		return ERR_CORRUPT;
	*out = store_iter_value(logs);
	return out->len == h->payload_bytes ? OK : ERR_CORRUPT;
}

/* Whether an item of so many bytes goes in; what is larger than a chunk is alone in it. */
static enum err make_room(struct session *s, const struct catchup_maker *m, size_t bytes)
{
	if (bytes <= catchup_chunk_room(m))
		return OK;
	if (m->items > 0)
		return ERR_NOTFOUND; /* full */
	s->need = bytes;
	return ERR_TOOBIG;
}

static enum err fill_entry(struct session *s, struct catchup_maker *m, struct store_iter *heads,
	struct store_iter *logs, uint64_t index)
{
	struct entry_header h;
	struct bytes payload;
	uint64_t group, found;
	enum err e;

	if (!store_iter_valid(heads) || !key_entry_read(store_iter_key(heads), &group, &found) ||
		found != index || entry_header_decode(store_iter_value(heads), &h) != OK)
		return ERR_CORRUPT;
	e = payload_at(logs, store_iter_key(heads), &h, &payload);
	if (e == OK)
		e = make_room(s, m, catchup_entry_bytes(&h, payload.len));
	if (e != OK)
		return e;
	catchup_chunk_entry(m, index, &h, payload);
	if (payload.len > 0)
		store_iter_step(logs);
	store_iter_step(heads);
	return OK;
}

static enum err both(enum err e, enum err walked)
{
	return walked != OK ? walked : e;
}

static enum err fill_log(struct session *s, struct catchup_maker *m, bool *last)
{
	uint64_t index = s->question.index, end = s->seed.last.index + 1;
	struct entry_key from = key_entry(s->group, index), to = key_entry(s->group, end);
	struct store_iter *heads, *logs;
	enum err e = OK;

	heads = store_iter_new(
		s->store, s->snapshot, FAMILY_IDX, KEY_BYTES(from), KEY_BYTES(to), true);
	logs = store_iter_new(
		s->store, s->snapshot, s->family, KEY_BYTES(from), KEY_BYTES(to), true);
	for (; e == OK && index < end; index += e == OK)
		e = fill_entry(s, m, heads, logs, index);
	*last = index == end;
	e = both(e == ERR_NOTFOUND ? OK : e, store_iter_free(logs));
	return both(e, store_iter_free(heads));
}

static enum err fill_rows(struct session *s, struct catchup_maker *m, bool *last)
{
	struct bytes after = s->question.after;
	uint8_t *from = mem_new(8 + after.len + 1); /* the least key behind it */
	size_t len = 8 + after.len + (after.len > 0);
	struct group_key to = key_group(s->group + 1);
	struct store_iter *i;
	enum err e = OK;

	put_u64be(from, s->group);
	if (after.len > 0)
		memcpy(from + 8, after.at, after.len);
	i = store_iter_new(
		s->store, s->snapshot, FAMILY_ROWS, bytes_of(from, len), KEY_BYTES(to), true);
	for (; e == OK && store_iter_valid(i); e == OK ? store_iter_step(i) : (void)0) {
		struct bytes key = store_iter_key(i), value = store_iter_value(i);

		e = key.len < ROW_KEY_PREFIX_BYTES
			? ERR_CORRUPT
			: make_room(s, m, catchup_row_bytes(key.len - 8, value.len));
		if (e == OK)
			catchup_chunk_row(m, bytes_of(key.at + 8, key.len - 8), value);
	}
	*last = e == OK;
	mem_free(from);
	return both(e == ERR_NOTFOUND ? OK : e, store_iter_free(i));
}

static void read_work(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);
	enum catchup_part part = s->question.part;
	struct catchup_maker m;
	bool last = false;

	s->err = catchup_chunk_begin(&m, s->need > 0 ? s->need : CATCHUP_CHUNK_BYTES);
	s->need = 0;
	if (s->err != OK)
		return;
	s->err = part == CATCHUP_LOG ? fill_log(s, &m, &last) : fill_rows(s, &m, &last);
	if (s->err == OK)
		s->chunk = catchup_chunk_end(&m, part, last, s->group);
	else
		catchup_chunk_drop(&m);
}

static void give(struct session *s)
{
	struct slice chunk = s->chunk;

	s->chunk = (struct slice){NULL, {NULL, 0}};
	s->state = SESSION_READY;
	s->given += (int64_t)chunk.bytes.len;
	loop_timer_set(&s->expiry, CATCHUP_SILENCE_MS);
	metric_add(loop_cells(s->at->loop), &catchup_metrics, M_CATCHUP_BYTES_OUT,
		(int64_t)chunk.bytes.len);
	answer(s, OK, &chunk);
}

static void fail_question(struct session *s, enum err e)
{
	s->state = SESSION_READY;
	loop_timer_set(&s->expiry, CATCHUP_SILENCE_MS);
	answer(s, e, NULL);
}

static void read_done(struct job *j)
{
	struct session *s = list_entry(j, struct session, job);
	struct catchups *all = s->at->all;
	int64_t more;

	if (job_ended(s))
		return;
	if (s->err == ERR_TOOBIG) {
		more = (int64_t)s->need - s->held;
		if (more > 0 && !catchup_hold(&all->out.memory, more, half(all))) {
			s->need = 0;
			fail_question(s, ERR_BUSY);
			return;
		}
		s->held += more > 0 ? more : 0;
		run(s, read_work, read_done);
		return;
	}
	if (s->err != OK) {
		LOG(LOG_ERROR, AREA_CLUSTER, "catchup_unreadable", "group=%llu node=%u err=\"%s\"",
			(unsigned long long)s->group, s->from, err_text(s->err));
		session_end(s, s->err);
		return;
	}
	catchup_bucket_correct(&all->out.bucket, (int64_t)s->chunk.bytes.len - CATCHUP_CHUNK_BYTES,
		all->settings->rate_bytes);
	give(s);
}

static bool question_fits(const struct session *s, const struct catchup_question *q)
{
	return q->part == CATCHUP_ROWS ||
		(q->index > s->seed.first.index && q->index <= s->seed.last.index + 1);
}

static void next(struct session *s, struct peer_request *r, const struct catchup_question *q)
{
	struct catchups *all = s->at->all;
	int64_t wait_us;

	if (!question_fits(s, q)) {
		refuse(r, ERR_RANGE);
		return;
	}
	let_go(s, CATCHUP_CHUNK_BYTES); /* it holds the last answer, or will never */
	wait_us = catchup_bucket_take(&all->out.bucket, loop_now_ms(s->at->loop) * 1000,
		CATCHUP_CHUNK_BYTES, all->settings->rate_bytes);
	if (wait_us < 0) {
		loop_timer_set(&s->expiry, CATCHUP_SILENCE_MS);
		refuse(r, ERR_BUSY);
		return;
	}
	s->state = SESSION_READING;
	s->request = r;
	s->question = *q;
	loop_timer_cancel(&s->expiry);
	if (wait_us >= 1000)
		loop_timer_set(&s->timer, wait_us / 1000);
	else
		run(s, read_work, read_done);
}

/* --- close --- */

/* It has the snapshot and nearly all that came since: one that is let go of earlier is behind the
 * log's beginning again under load, fetches anew, and gives no vote meanwhile. */
static bool caught_up(const struct session *s)
{
	struct consensus_peer peers[64];
	int count = consensus_peers(s->source->consensus, peers, 64);

	for (int i = 0; i < count && i < 64; i++) {
		if (peers[i].replica >> 32 == s->from)
			return peers[i].match_index >= s->seed.last.index &&
				peers[i].match_index + NEAR_ENTRIES >=
				consensus_commit(s->source->consensus);
	}
	return false;
}

static void throttled(struct loop_timer *t)
{
	struct session *s = list_entry(t, struct session, timer);

	if (s->state == SESSION_READING)
		run(s, read_work, read_done);
	else if (caught_up(s) || loop_now_ms(s->at->loop) >= s->pinned_until_ms)
		session_end(s, OK);
	else
		loop_timer_set(&s->timer, PIN_LOOK_MS);
}

static void close_session(struct session *s, bool whole)
{
	if (!whole || s->state != SESSION_READY) {
		session_end(s, ERR_NOTFOUND);
		return;
	}
	s->state = SESSION_PINNED;
	loop_timer_cancel(&s->expiry);
	let_go(s, 0);
	release(s);
	s->pinned_until_ms = loop_now_ms(s->at->loop) + PIN_MS;
	loop_timer_set(&s->timer, PIN_LOOK_MS);
}

/* --- what comes in --- */

static struct session *session_find(
	struct catchup_loop *at, const struct peer_request *r, uint64_t id)
{
	struct session *s = session_of(at, r->group, r->from);

	return s != NULL && s->id == id && s->state != SESSION_PINNED ? s : NULL;
}

static void on_request(void *arg, struct peer_request *r)
{
	struct catchups *all = arg;
	struct catchup_loop *at = catchup_here(all, r->loop);
	struct catchup_question q;
	enum err e = catchup_question_decode(r->body.bytes, &q);
	struct session *s;

	if (e != OK) {
		refuse(r, e);
		return;
	}
	if (q.what == CATCHUP_OPEN) {
		open_session(at, r, &q);
		return;
	}
	s = session_find(at, r, q.session);
	if (s != NULL && consensus_role(s->source->consensus) != ROLE_LEADER) {
		session_end(s, ERR_NOTLEADER);
		refuse(r, ERR_NOTLEADER);
	} else if (q.what == CATCHUP_CLOSE) {
		if (s != NULL)
			close_session(s, q.whole);
		refuse(r, OK);
	} else if (s == NULL) {
		refuse(r, ERR_NOTFOUND);
	} else if (s->state != SESSION_READY) {
		refuse(r, ERR_BUSY); /* the same again: the answer before is on its way */
	} else {
		next(s, r, &q);
	}
}

void catchups_serve(struct catchups *all,
	const struct catchup_source *(*find)(void *arg, uint64_t group), void *arg)
{
	all->find = find;
	all->find_arg = arg;
	peers_serve(all->peers, PEER_OP_CATCHUP, on_request, all);
}

void catchups_end(struct catchups *all, uint64_t group, const struct loop *home)
{
	struct catchup_loop *at = catchup_here(all, home);

	loop_must_own(home);
	for (struct list *n = at->sessions.next, *then; n != &at->sessions; n = then) {
		struct session *s = list_entry(n, struct session, node);

		then = n->next;
		if (s->group == group)
			session_end(s, ERR_NOTLEADER);
	}
}

/* Who asks for an entry has those before it. */
bool catchups_given(struct catchups *all, uint64_t group, uint32_t node, const struct loop *home,
	struct catchup_view *out)
{
	const struct session *s = session_of(catchup_here(all, home), group, node);
	uint64_t next;

	loop_must_own(home);
	if (s == NULL || s->state == SESSION_OPENING || s->state == SESSION_PINNED)
		return false;
	next = s->question.part == CATCHUP_ROWS   ? s->seed.last.index + 1
		: s->question.part == CATCHUP_LOG ? s->question.index
						  : s->seed.first.index + 1;
	*out = (struct catchup_view){.entries = next - 1 - s->seed.first.index,
		.entries_total = s->seed.last.index - s->seed.first.index,
		.bytes = s->given};
	return true;
}

void catchup_sessions_drop(struct catchup_loop *at)
{
	struct list *n;

	while ((n = list_pop(&at->sessions)) != NULL) {
		struct session *s = list_entry(n, struct session, node);

		if (s->snapshot != NULL)
			store_snapshot_free(s->store, s->snapshot);
		s->snapshot = NULL;
		s->request = NULL; /* the peers' end has let it go */
		session_free(s);
	}
}
