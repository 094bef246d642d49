/* What the core calls. Nothing completes inside the call that started it: appends complete from the
 * lane when durable, in order and through the gate; sends, snapshots read and the rest at the next
 * settling (consensus.c), outside of the core.
 *
 * Raft holds stubs; the payload of an entry gets here beside it. A proposal: consensus_propose puts
 * it into c->proposing around raft_apply, which calls append within. A message: its entries are in
 * c->staged while the core receives it, which appends those from the first that it lacks. */
#include "cluster/consensus_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"

enum { SNAPSHOT_BYTES = 16 << 20 };

static struct consensus *of(struct raft_io *io)
{
	return io->impl;
}

static int on_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io, (void)id, (void)address;
	return 0;
}

static void on_close(struct raft_io *io, raft_io_close_cb cb)
{
	of(io)->closed = cb; /* instance_drop calls it, outside of raft_close */
}

static int on_load(struct raft_io *io, raft_term *term, raft_id *vote,
	struct raft_snapshot **snapshot, raft_index *start, struct raft_entry *entries[], size_t *n)
{
	struct consensus *c = of(io);
	*term = plog_marks(c->log)->term;
	*vote = plog_marks(c->log)->vote;
	return raft_log_load(c, snapshot, start, entries, n);
}

static int on_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	(void)ms;
	of(io)->tick = tick;
	of(io)->recv = recv;
	return 0;
}

/* Founding is consensus_open's, recovery by force is not offered through the core. */
static int on_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io, (void)conf;
	return RAFT_CANTBOOTSTRAP;
}

struct waiting {
	struct durable durable;
	struct consensus *c;
	void (*done)(struct consensus *c);
};

static void waited(struct durable *d)
{
	struct waiting *w = list_entry(d, struct waiting, durable);
	struct consensus *c = w->c;
	void (*done)(struct consensus * c) = w->done;
	mem_free(w);
	done(c);
	consensus_settle(c);
	consensus_let_go(c);
}

/* done runs when all that is staged by now is durable. */
void raft_io_wait_durable(struct consensus *c, void (*done)(struct consensus *c))
{
	struct waiting *w = mem_new(sizeof *w);
	w->c = c;
	w->done = done;
	w->durable.done = waited;
	c->under_way++;
	lane_when_durable(c->env->lane, &w->durable);
}

static void mark_durable(struct consensus *c)
{
	c->marks_pending--;
}

void raft_io_mark(struct consensus *c, uint64_t term, uint64_t vote)
{
	plog_mark_term_vote(c->log, term, vote);
	c->marks_pending++; /* messages wait from here on */
	raft_io_wait_durable(c, mark_durable);
}

static int on_set_term(struct raft_io *io, raft_term term)
{
	struct consensus *c = of(io);
	must(term > plog_marks(c->log)->term);
	raft_io_mark(c, term, 0);
	return 0;
}

static int on_set_vote(struct raft_io *io, raft_id vote)
{
	struct consensus *c = of(io);
	const struct plog_marks *m = plog_marks(c->log);
	/* G4: two votes in one term make two leaders; better no process. */
	must(m->vote == 0 || m->vote == vote || c->o.guard_off[4]);
	raft_io_mark(c, m->term, vote);
	return 0;
}

/* Keeps a request whose completion is told at the next settling. */
static void sent_add(struct consensus *c, struct raft_io_send *request, raft_io_send_cb cb)
{
	if (!cb)
		return; /* a transfer's; the request may be gone by then */
	if (c->sent_count == c->sent_room) {
		uint32_t room = c->sent_room ? c->sent_room * 2 : 4;
		struct sent *more = mem_resize(c->sent, room * sizeof *more);
		must(more != NULL);
		c->sent = more;
		c->sent_room = room;
	}
	c->sent[c->sent_count++] = (struct sent){request, cb};
}

static int on_send(struct raft_io *io, struct raft_io_send *request,
	const struct raft_message *message, raft_io_send_cb cb)
{
	struct consensus *c = of(io);
	struct raft_message m = *message;
	request->cb = cb;
	enum guard_verdict v = guard_send(&c->guard, &m);
	if (v == GUARD_HOLD)
		return RAFT_NOCONNECTION;
	sent_add(c, request, cb);
	if (v == GUARD_PASS && !(c->swallow_results && m.type == RAFT_IO_APPEND_ENTRIES_RESULT))
		raft_send(c, &m);
	return 0;
}

static void append_durable(struct durable *d)
{
	struct append_op *op = list_entry(d, struct append_op, durable);
	struct consensus *c = op->c;
	op->stored = true;
	if (!op->request) { /* its instance is gone */
		list_remove(&op->node);
		list_push_back(&c->spare_appends, &op->node);
	} else {
		consensus_settle(c);
	}
	consensus_let_go(c);
}

static struct append_op *append_op_get(struct consensus *c)
{
	struct list *n = list_pop(&c->spare_appends);
	struct append_op *op = n ? list_entry(n, struct append_op, node) : mem_new(sizeof *op);
	op->c = c;
	op->stored = false;
	op->durable.done = append_durable;
	list_init(&op->node);
	return op;
}

/* The plog's entry for one that the core makes as a leader; gives a share. */
static struct entry *entry_made(struct consensus *c, const struct raft_entry *re)
{
	struct entry *e;
	if (re->type == RAFT_COMMAND) {
		must(c->proposing != NULL);
		e = entry_ref(c->proposing->entry);
		e->head.kind = ENTRY_DATA;
		return e;
	}
	struct slice config = {0};
	if (re->type == RAFT_CHANGE)
		must(slice_copy(bytes_of(re->buf.base, re->buf.len), &config) == OK);
	e = entry_new(&config, re->type == RAFT_CHANGE ? 1 : 0);
	e->head.kind = re->type == RAFT_CHANGE ? ENTRY_CONFIG : ENTRY_BARRIER;
	e->head.hlc = clock_wall_ms() << 16;
	if (e->head.hlc <= plog_hlc(c->log))
		e->head.hlc = plog_hlc(c->log) + 1;
	return e;
}

static void append_staged(struct consensus *c, struct entry *const staged[], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (staged[i]->head.kind == ENTRY_CONFIG)
			guard_change_added(&c->guard, plog_last_index(c->log) + 1);
		plog_append(c->log, staged[i], staged[i]->head.max_ms);
	}
}

static void append_made(struct consensus *c, const struct raft_entry entries[], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct entry *e = entry_made(c, &entries[i]);
		e->head.term = entries[i].term;
		if (entries[i].type == RAFT_CHANGE)
			guard_change_added(&c->guard, plog_last_index(c->log) + 1);
		plog_append(c->log, e, c->proposing ? c->proposing->batch_max_ms : -1);
		entry_unref(e);
	}
}

static int on_append(struct raft_io *io, struct raft_io_append *request,
	const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct consensus *c = of(io);
	uint64_t first = plog_last_index(c->log) + 1;
	if (c->staged) { /* what the core appends is the tail of the message it receives */
		must(n <= c->staged_count);
		struct entry *const *tail = c->staged + (c->staged_count - n);
		if (tail[0]->head.base_offset != plog_next_offset(c->log)) {
			c->fault = "offsets";
			return RAFT_CORRUPT;
		}
		append_staged(c, tail, n);
	} else {
		append_made(c, entries, n);
	}
	struct append_op *op = append_op_get(c);
	request->cb = cb;
	op->request = request;
	op->first = first;
	op->last = first + n - 1;
	op->term = c->raft->current_term;
	c->guard.appends++;
	c->guard.append_term = op->term;
	list_push_back(&c->appends, &op->node);
	c->under_way++;
	lane_when_durable(c->env->lane, &op->durable);
	return 0;
}

static int on_truncate(struct raft_io *io, raft_index index)
{
	struct consensus *c = of(io);
	plog_truncate(c->log, index);
	guard_changes_cut(&c->guard, index);
	return 0;
}

static void put_free(struct put_op *p)
{
	snapshot_meta_fini(&p->meta);
	mem_free(p);
}

static void put_durable(struct durable *d)
{
	struct put_op *p = list_entry(d, struct put_op, durable);
	struct consensus *c = p->c;
	if (p->request) {
		p->stored = true;
		consensus_settle(c);
	} else {
		put_free(p);
	}
	consensus_let_go(c);
}

/* Rows and marks are staged already (on_snapshot); what is kept here is for peers that ask. */
static int on_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *request, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb)
{
	struct consensus *c = of(io);
	if (trailing == 0) { /* raft_receive.c installs snapshots without the core */
		c->fault = "install";
		return RAFT_INVALID;
	}
	struct put_op *p = mem_new(sizeof *p);
	p->c = c;
	p->request = request;
	p->cb = request->cb = cb;
	p->meta.index = snapshot->index;
	p->meta.term = snapshot->term;
	p->meta.config_index = snapshot->configuration_index;
	p->meta.next_offset = c->applied_next_offset;
	raft_config_copy(&snapshot->configuration, &p->meta.config);
	p->durable.done = put_durable;
	c->put = p;
	c->under_way++;
	lane_when_durable(c->env->lane, &p->durable);
	return 0;
}

static int on_snapshot_get(
	struct raft_io *io, struct raft_io_snapshot_get *request, raft_io_snapshot_get_cb cb)
{
	struct consensus *c = of(io);
	struct get_op *g = mem_new(sizeof *g);
	g->request = request;
	g->cb = request->cb = cb;
	list_push_back(&c->gets, &g->node);
	return 0;
}

static raft_time on_time(struct raft_io *io)
{
	return (raft_time)loop_now_ms(of(io)->env->loop);
}

static int draw(int min, int max)
{
	return min + (int)(random_u64() % (uint64_t)(max - min + 1));
}

/* A follower's patience is the shorter of two draws: it is kept as long as nothing happens, and who
 * leads is who drew least the last time, so those left would be the patient ones. */
static int on_random(struct raft_io *io, int min, int max)
{
	const struct raft *r = of(io)->raft;
	int first = draw(min, max), second = draw(min, max);
	return r && r->state == RAFT_FOLLOWER && second < first ? second : first;
}

void consensus_deliver(struct consensus *c, uint64_t upto)
{
	while (c->applied < upto) {
		uint64_t index = c->applied + 1;
		const struct raft_entry *re = guard_entry(c->raft, index);
		must(re != NULL);
		struct entry *e = plog_cached(c->log, index), *made = NULL;
		if (!e) { /* read back at the start, without rows: its header is enough */
			struct entry_header h;
			stub_head(re, &h);
			h.base_offset = c->applied_next_offset;
			e = made = entry_of(plog_group(c->log), index, &h, NULL);
		}
		if (re->type == RAFT_CHANGE) {
			plog_mark_config(c->log, index, bytes_of(re->buf.base, re->buf.len));
			guard_changes_applied(&c->guard, index);
		}
		c->applied = index;
		c->applied_term = re->term;
		c->applied_next_offset = entry_next_offset(&e->head);
		c->fsm.apply(c->fsm_arg, e);
		c->unsnapped_bytes += e->head.payload_bytes;
		plog_applied(c->log, index); /* e may be gone after it */
		entry_unref(made);
	}
	if (c->unsnapped_bytes >= SNAPSHOT_BYTES && c->pins == 0)
		raft_set_snapshot_threshold(c->raft, 1);
}

/* What Raft holds, trim must keep. Its threshold and trailing count entries; large ones would keep
 * gigabytes, so a snapshot is also taken after so many bytes, and with nobody to send them to,
 * none of the entries before it is kept. */
static void snapshot_taken(struct consensus *c)
{
	bool alone = c->raft->configuration.n == 1;
	bool large = c->unsnapped_bytes >= SNAPSHOT_BYTES;

	raft_set_snapshot_trailing(c->raft, alone && large ? 1 : (unsigned)c->o.snapshot_trailing);
	pin_apply(c);
	c->unsnapped_bytes = 0;
}

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *c = fsm->data;
	(void)buf;
	consensus_deliver(c, c->raft->last_applied + 1);
	*result = NULL;
	return 0;
}

static void *offset_data(int64_t offset)
{
	uint8_t *at = raft_malloc(8);
	put_u64be(at, (uint64_t)offset);
	return at;
}

static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct consensus *c = fsm->data;
	if (c->starting || c->closing || !guard_may_snapshot(&c->guard))
		return RAFT_BUSY;
	consensus_deliver(c, c->raft->last_applied);
	c->fsm.write_back(c->fsm_arg);
	if (plog_marks(c->log)->applied_index < c->raft->last_applied)
		return RAFT_BUSY; /* the entries are still what the rows would be made from */
	*bufs = raft_malloc(sizeof **bufs);
	(*bufs)[0].base = offset_data(c->applied_next_offset);
	(*bufs)[0].len = 8;
	*n = 1;
	snapshot_taken(c);
	return 0;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	(void)fsm; /* the rows in the store are the state */
	raft_free(buf->base);
	return 0;
}

void raft_io_setup(struct consensus *c)
{
	c->io = (struct raft_io){
		.version = 2,
		.impl = c,
		.init = on_init,
		.close = on_close,
		.load = on_load,
		.start = on_start,
		.bootstrap = on_bootstrap,
		.recover = on_bootstrap,
		.set_term = on_set_term,
		.set_vote = on_set_vote,
		.send = on_send,
		.append = on_append,
		.truncate = on_truncate,
		.snapshot_put = on_snapshot_put,
		.snapshot_get = on_snapshot_get,
		.time = on_time,
		.random = on_random,
	};
	c->raft_fsm = (struct raft_fsm){
		.version = 1,
		.data = c,
		.apply = on_apply,
		.snapshot = on_snapshot,
		.restore = on_restore,
	};
}

/* G8: an AppendEntries that did not leave is not told either; a failure would make the core forget
 * how far it has sent. It repeats by itself. */
static bool tell_sent(struct consensus *c)
{
	bool any = c->sent_count > 0;
	for (uint32_t i = 0; i < c->sent_count; i++) {
		struct sent s = c->sent[i];
		s.cb(s.request, 0);
	}
	c->sent_count = 0;
	return any;
}

static void append_tell(struct consensus *c, struct append_op *op)
{
	struct raft_io_append *request = op->request;
	list_remove(&op->node);
	c->guard.appends--;
	c->guard.completing = true;
	c->guard.completing_term = op->term;
	op->request = NULL;
	request->cb(request, 0);
	c->guard.completing = false;
	if (op->term == c->guard.barrier_term && op->last >= c->guard.barrier_index)
		c->guard.barrier_stored = true;
	if (op->stored)
		list_push_back(&c->spare_appends, &op->node);
	/* else append_durable comes for it */
}

static bool tell_appends(struct consensus *c)
{
	bool any = false;
	while (!list_empty(&c->appends)) {
		struct append_op *op = list_entry(c->appends.next, struct append_op, node);
		if (!op->stored || !guard_may_complete(&c->guard, op->first, op->last, op->term))
			break;
		append_tell(c, op);
		any = true;
	}
	return any;
}

static void tell_put(struct consensus *c, int status)
{
	struct put_op *p = c->put;
	struct raft_io_snapshot_put *request = p->request;
	c->put = NULL;
	if (status == 0) {
		snapshot_meta_fini(&c->snapshot);
		c->snapshot = p->meta;
		p->meta = (struct snapshot_meta){0};
	}
	p->request = NULL;
	p->cb(request, status);
	if (p->stored)
		put_free(p);
}

static struct raft_snapshot *snapshot_of(const struct snapshot_meta *m)
{
	struct raft_snapshot *s = raft_calloc(1, sizeof *s);
	s->index = m->index;
	s->term = m->term;
	s->configuration_index = m->config_index;
	raft_config_copy(&m->config, &s->configuration);
	s->bufs = raft_malloc(sizeof *s->bufs);
	s->n_bufs = 1;
	s->bufs[0].base = offset_data(m->next_offset);
	s->bufs[0].len = 8;
	return s;
}

static bool tell_gets(struct consensus *c, int status)
{
	struct list *n = list_pop(&c->gets);
	if (!n)
		return false;
	struct get_op *g = list_entry(n, struct get_op, node);
	if (status == 0 && c->snapshot.index == 0)
		status = RAFT_NOTFOUND;
	g->cb(g->request, status == 0 ? snapshot_of(&c->snapshot) : NULL, status);
	mem_free(g);
	return true;
}

bool raft_io_complete(struct consensus *c)
{
	bool any = tell_sent(c);
	if (tell_appends(c))
		any = true;
	if (c->put && c->put->stored) {
		tell_put(c, 0);
		any = true;
	}
	return tell_gets(c, 0) || any;
}

/* The instance is unavailable: it only frees what it had lent, and sends nothing. */
void raft_io_abandon(struct consensus *c)
{
	while (!list_empty(&c->appends))
		append_tell(c, list_entry(c->appends.next, struct append_op, node));
	(void)tell_sent(c);
	if (c->put)
		tell_put(c, RAFT_CANCELED);
	while (tell_gets(c, RAFT_CANCELED))
		;
	must(c->guard.appends == 0);
}
