/* What callers see, and the settling. Whenever something has gone into the core (a message, a tick,
 * a completion) it is settled after the call has returned: completions are told, the state is
 * looked at (the library has no callback for it), a new leader's barrier is appended, messages that
 * were held are tried again, and those who proposed get their outcome. All of it happens outside of
 * the core, so that whoever is called may propose again. consensus_propose itself settles nothing:
 * it is the hot path, and its caller may be in the middle of one. */
#include "cluster/consensus_priv.h"
#include "server/base/log.h"

_Static_assert(sizeof(struct raft) == 656, "the guard knows libraft 0.15.0's struct raft");
_Static_assert(sizeof(struct raft_stub) == 48, "a stub has no holes");

/* --- the library --- */

static void *heap_malloc(void *data, size_t size)
{
	(void)data;
	return mem_new(size ? size : 1);
}
static void heap_free(void *data, void *at)
{
	(void)data;
	mem_free(at);
}
static void *heap_calloc(void *data, size_t n, size_t size)
{
	(void)data;
	must(size == 0 || n <= SIZE_MAX / size);
	return mem_new(n != 0 && size != 0 ? n * size : 1);
}
static void *heap_realloc(void *data, void *at, size_t size)
{
	(void)data;
	void *more = mem_resize(at, size);
	must(more != NULL);
	return more;
}
static void *heap_aligned(void *data, size_t alignment, size_t size)
{
	(void)data, (void)alignment, (void)size;
	return NULL; /* only the library's own disk code asks */
}
static void heap_aligned_free(void *data, size_t alignment, void *at)
{
	(void)data, (void)alignment, (void)at;
}

static int probe_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io, (void)id, (void)address;
	return 0;
}
static void probe_close(struct raft_io *io, raft_io_close_cb cb)
{
	cb(io);
}

/* The library has no version call: its defaults must lie where this header says they do. */
static void check_library(void)
{
	struct raft_io io = {.version = 2, .init = probe_init, .close = probe_close};
	struct raft_fsm fsm = {.version = 1};
	struct raft r;
	memset(&r, 0xa5, sizeof r);
	must(raft_init(&r, &io, &fsm, 7, "probe") == 0);
	must(r.id == 7);
	must(r.state == RAFT_UNAVAILABLE);
	must(r.election_timeout == 1000);
	must(r.heartbeat_timeout == 100);
	must(r.snapshot.threshold == 1024);
	must(r.snapshot.trailing == 2048);
	must(r.max_catch_up_rounds == 10);
	must(r.max_catch_up_round_duration == 5000);
	must(r.close_cb == NULL);
	must(!r.pre_vote);
	raft_close(&r, NULL);
}

void consensus_process_init(void)
{
	/* Not const: the library keeps the pointer, and does not promise to leave it alone. */
	static struct raft_heap heap = {NULL, heap_malloc, heap_free, heap_calloc, heap_realloc,
		heap_aligned, heap_aligned_free};
	raft_heap_set(&heap);
	check_library();
}

/* --- what the state is --- */

enum consensus_role consensus_role(const struct consensus *c)
{
	if (c->phase == PHASE_DOWN)
		return ROLE_DOWN;
	if (!c->raft)
		return ROLE_FOLLOWER;
	switch (c->raft->state) {
	case RAFT_LEADER: return ROLE_LEADER;
	case RAFT_CANDIDATE: return ROLE_CANDIDATE;
	case RAFT_FOLLOWER: return ROLE_FOLLOWER;
	default: return ROLE_DOWN;
	}
}

uint64_t consensus_term(const struct consensus *c)
{
	return plog_marks(c->log)->term;
}

uint64_t consensus_leader(const struct consensus *c)
{
	raft_id id = 0;
	const char *address = NULL;
	if (c->raft && c->raft->state != RAFT_UNAVAILABLE)
		raft_leader(c->raft, &id, &address);
	return id;
}

static bool leads(const struct consensus *c)
{
	return c->raft && c->raft->state == RAFT_LEADER && !guard_wants_barrier(&c->guard);
}

bool consensus_ready(const struct consensus *c)
{
	return leads(c) && c->applied >= c->guard.barrier_index;
}

/* In this term. */
static bool majority_heard(const struct consensus *c, int64_t since_ms)
{
	const struct raft *r = c->raft;
	unsigned heard = 0;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		const struct peer_out *p = out_of(c, s->id);
		heard += s->role == RAFT_VOTER &&
			(s->id == c->replica ||
				(p != NULL && p->heard_ms != 0 && p->heard_ms >= since_ms));
	}
	return 2 * heard > guard_voters(r);
}

/* Answers that arrived while the process stood still are read at once when it goes on: they count
 * only after a time in which newer ones, or another leader, would have been heard. */
bool consensus_unrivalled(const struct consensus *c)
{
	int64_t now_ms = loop_now_ms(c->env->loop), lately_ms = c->o.election_ms / 2;
	if (!consensus_ready(c) || c->transfer_to != 0 || c->raft->transfer != NULL)
		return false;
	return guard_voters(c->raft) == 1 ||
		(now_ms - c->tick_ms <= lately_ms && now_ms - c->late_ms > c->o.election_ms &&
			majority_heard(c, now_ms - lately_ms));
}

uint64_t consensus_applied(const struct consensus *c)
{
	return c->applied;
}

uint64_t consensus_commit(const struct consensus *c)
{
	return c->raft && c->raft->commit_index > c->applied ? c->raft->commit_index : c->applied;
}

size_t consensus_inflight(const struct consensus *c)
{
	return c->inflight;
}

uint64_t consensus_keep_index(const struct consensus *c)
{
	return c->raft ? c->raft->log.offset + 1 : 0;
}

/* --- settling --- */

static void barrier_done(struct raft_barrier *b, int status)
{
	(void)b, (void)status; /* consensus_ready looks at what is applied */
}

/* G1 */
static bool lead(struct consensus *c)
{
	if (!guard_wants_barrier(&c->guard))
		return false;
	c->guard.barrier_stored = false;
	c->guard.barrier_index = plog_last_index(c->log) + 1;
	uint64_t before = c->guard.barrier_term;
	c->guard.barrier_term = c->raft->current_term;
	if (raft_barrier(c->raft, &c->lead_barrier, barrier_done) == 0)
		return true;
	c->guard.barrier_term = before; /* a transfer of an earlier leadership is not over yet */
	return false;
}

static bool check_state(struct consensus *c)
{
	if (!c->raft || c->raft->state != RAFT_UNAVAILABLE || c->closing)
		return false;
	LOG(LOG_ERROR, AREA_CLUSTER, "raft_unavailable", "group=%llu replica=%llx term=%llu why=%s",
		(unsigned long long)plog_group(c->log), (unsigned long long)c->replica,
		(unsigned long long)consensus_term(c), c->fault ? c->fault : "core");
	if (c->fault || c->unavailable++ > 0)
		instance_quarantine(c, c->fault ? c->fault : "core");
	else
		instance_rebuild(c);
	return true;
}

static bool finish_proposals(struct consensus *c)
{
	bool any = !list_empty(&c->finished);
	struct list *n;
	while ((n = list_pop(&c->finished)) != NULL) {
		struct apply_request *q = list_entry(n, struct apply_request, node);
		struct consensus_proposal *p = q->proposal;
		struct entry *e = p->entry;
		enum err err = q->err;
		list_push_front(&c->spare_requests, &q->node);
		p->done(p, err);
		entry_unref(e);
	}
	return any;
}

static enum err lost(const struct consensus *c)
{
	return c->closing ? ERR_CLOSED : ERR_UNKNOWN;
}

static bool finish_reads(struct consensus *c)
{
	bool any = false;
	for (struct list *n = c->reads.next, *next; n != &c->reads; n = next) {
		struct read_point *r = list_entry(n, struct read_point, node);
		next = n->next;
		if (!r->in_raft && !leads(c))
			r->finished = true, r->err = lost(c);
		else if (!r->in_raft && c->applied >= r->target)
			r->finished = true;
		if (!r->finished)
			continue;
		list_remove(&r->node);
		struct list *w;
		while ((w = list_pop(&r->waiting)) != NULL) {
			struct consensus_barrier *b = list_entry(w, struct consensus_barrier, node);
			b->done(b, r->err);
		}
		mem_free(r);
		any = true;
		next = c->reads.next; /* those called may have asked again */
	}
	return any;
}

/* Peers hear of it with the turn's messages, or by a mark. */
static void tell_commit(struct consensus *c)
{
	const struct raft *r = c->raft;
	if (r->state != RAFT_LEADER || r->commit_index == c->commit_seen)
		return;
	c->commit_seen = r->commit_index;
	if (c->net && r->configuration.n > 1)
		out_want(c);
}

static bool settle_once(struct consensus *c)
{
	bool any = false;
	if (c->raft) {
		any = raft_io_complete(c);
		any = check_state(c) || any;
	}
	if (c->raft) {
		any = lead(c) || any;
		consensus_deliver(c, c->raft->last_applied);
		any = raft_receive_held(c) || any;
		any = raft_receive_mark(c) || any;
		any = transfer_step(c) || any;
	}
	if (c->raft)
		tell_commit(c);
	any = finish_proposals(c) || any;
	any = finish_reads(c) || any;
	return change_finish(c) || any;
}

void consensus_settle(struct consensus *c)
{
	if (c->settling)
		return;
	c->settling = true;
	while (settle_once(c))
		;
	c->settling = false;
	if (c->closing)
		return;
	if (c->told.role != consensus_role(c) || c->told.term != consensus_term(c) ||
		c->told.leader != consensus_leader(c) || c->told.ready != consensus_ready(c))
		consensus_want_turn(c);
}

void consensus_want_turn(struct consensus *c)
{
	loop_hook_want(c->env->loop, STAGE_PROPOSE, &c->hook);
}

void consensus_let_go(struct consensus *c)
{
	must(c->under_way > 0);
	c->under_way--;
	if (c->closing && c->under_way == 0)
		consensus_want_turn(c);
}

/* --- proposals --- */

static void applied(struct raft_apply *raft, int status, void *result)
{
	struct apply_request *q = list_entry(raft, struct apply_request, raft);
	(void)result;
	q->err = status == 0 ? OK : lost(q->c);
	q->c->inflight -= q->bytes;
	list_push_back(&q->c->finished, &q->node);
}

static struct apply_request *request_get(struct consensus *c)
{
	struct list *n = list_pop(&c->spare_requests);
	struct apply_request *q = n ? list_entry(n, struct apply_request, node)
				    : mem_new(sizeof *q);
	q->c = c;
	list_init(&q->node);
	return q;
}

enum err consensus_propose(struct consensus *c, struct consensus_proposal *p)
{
	struct entry_header *h = &p->entry->head;
	if (c->closing)
		return ERR_CLOSED;
	if (!leads(c) || c->transfer_to != 0)
		return ERR_NOTLEADER;
	size_t bytes = h->payload_bytes + sizeof(struct apply_request);
	if (c->inflight > 0 && c->inflight + bytes > c->o.inflight_bytes_max)
		return ERR_BUSY;
	struct apply_request *q = request_get(c);
	q->proposal = p;
	q->bytes = bytes;
	h->kind = ENTRY_DATA;
	h->base_offset = plog_next_offset(c->log);
	if (h->hlc <= plog_hlc(c->log))
		h->hlc = plog_hlc(c->log) + 1;
	struct raft_stub stub = stub_of(h);
	struct raft_buffer buf = {raft_malloc(sizeof stub), sizeof stub};
	memcpy(buf.base, &stub, sizeof stub);
	c->proposing = p;
	int rv = raft_apply(c->raft, &q->raft, &buf, 1, applied);
	c->proposing = NULL;
	if (rv != 0) {
		raft_free(buf.base);
		list_push_front(&c->spare_requests, &q->node);
		return ERR_NOTLEADER;
	}
	c->inflight += bytes;
	if (c->sent_count > 0)
		consensus_want_turn(c);
	return OK;
}

/* --- read points --- */

static void read_confirmed(struct raft_barrier *b, int status)
{
	struct read_point *r = list_entry(b, struct read_point, raft);
	r->err = status == 0 ? OK : lost(b->data);
	r->finished = true;
}

/* Who is told may ask again at once: that is for the next turn. */
static void fail_barriers(struct consensus *c, enum err e)
{
	struct list told, *n;
	list_init(&told);
	while ((n = list_pop(&c->barriers)) != NULL)
		list_push_back(&told, n);
	while ((n = list_pop(&told)) != NULL) {
		struct consensus_barrier *b = list_entry(n, struct consensus_barrier, node);
		b->done(b, e);
	}
}

void consensus_barrier(struct consensus *c, struct consensus_barrier *b)
{
	list_push_back(&c->barriers, &b->node);
	consensus_want_turn(c);
}

static void issue_barriers(struct consensus *c)
{
	if (list_empty(&c->barriers))
		return;
	if (c->closing || !leads(c)) {
		fail_barriers(c, c->closing ? ERR_CLOSED : ERR_NOTLEADER);
		return;
	}
	struct read_point *r = mem_new(sizeof *r);
	list_init(&r->waiting);
	r->raft.data = c;
	r->target = plog_last_index(c->log);
	/* One voter confirms itself; what it has appended only has to be applied. */
	r->in_raft = guard_voters(c->raft) > 1;
	if (r->in_raft && raft_barrier(c->raft, &r->raft, read_confirmed) != 0) {
		mem_free(r);
		fail_barriers(c, ERR_NOTLEADER);
		return;
	}
	struct list *n;
	while ((n = list_pop(&c->barriers)) != NULL)
		list_push_back(&r->waiting, n);
	list_push_back(&c->reads, &r->node);
}

/* Voters stand one after another, in the order of the configuration, so that they do not divide the
 * votes; whoever has the shorter log is refused, and the next one comes. */
void consensus_lost(struct consensus *c, uint32_t node)
{
	struct raft *r = c->raft;
	unsigned rank = 0;
	out_lost(c, node);
	if (!r || c->closing || r->state != RAFT_FOLLOWER)
		return;
	uint64_t leader = r->follower_state.current_leader.id;
	if (leader == 0 || (uint32_t)(leader >> 32) != node || c->guard.lost_leader == leader)
		return;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		if (s->id == c->replica)
			break;
		rank += s->role == RAFT_VOTER && s->id != leader;
	}
	c->guard.lost_leader = leader;
	uint64_t silent_ms = (uint64_t)loop_now_ms(c->env->loop) - r->election_timer_start;
	r->follower_state.randomized_election_timeout = (unsigned)silent_ms +
		rank * (unsigned)c->o.heartbeat_ms;
}

void consensus_mute(struct consensus *c, bool on)
{
	c->muted = on;
}

/* A group that is new has no leader that could be alive: the founder that is to lead it stands at
 * once, and again after each heartbeat's time, as the others may not have begun. Pre-votes cost
 * nobody anything. It ends with a leader, with another's term, or when the others' time has come.
 */
static void stand_first(struct consensus *c)
{
	struct raft *r = c->raft;
	unsigned soon = r->state == RAFT_FOLLOWER ? 0 : (unsigned)c->o.heartbeat_ms;
	int64_t age_ms = loop_now_ms(c->env->loop) - c->opened_ms;
	if (r->state == RAFT_LEADER || age_ms > 2 * c->o.election_ms ||
		(r->state == RAFT_FOLLOWER &&
			(r->current_term > 1 || r->follower_state.current_leader.id != 0)))
		c->first = false;
	else if (r->state == RAFT_FOLLOWER)
		r->follower_state.randomized_election_timeout = soon;
	else if (r->state == RAFT_CANDIDATE && r->candidate_state.in_pre_vote)
		r->candidate_state.randomized_election_timeout = soon;
}

void consensus_tick(struct consensus *c)
{
	int64_t now_ms = loop_now_ms(c->env->loop);
	if (now_ms - c->tick_ms > c->o.election_ms / 2)
		c->late_ms = now_ms;
	c->tick_ms = now_ms;
	if (!c->raft || c->closing)
		return;
	if (c->first)
		stand_first(c);
	/* A muted leader goes on so that it notices that nobody answers; others do not stand. */
	if (guard_may_tick(&c->guard) && (!c->muted || c->raft->state == RAFT_LEADER))
		c->tick(&c->io);
	consensus_settle(c);
}

/* --- beginning and end --- */

static void free_list(struct list *l, size_t node_at)
{
	struct list *n;
	while ((n = list_pop(l)) != NULL)
		mem_free((char *)n - node_at);
}

static void consensus_free(struct consensus *c)
{
	must(list_empty(&c->appends));
	must(list_empty(&c->finished));
	raft_receive_drop_held(c);
	free_list(&c->spare_appends, offsetof(struct append_op, node));
	free_list(&c->spare_requests, offsetof(struct apply_request, node));
	snapshot_meta_fini(&c->snapshot);
	raft_configuration_close(&c->install_config);
	guard_fini(&c->guard);
	mem_free(c->sent);
	mem_free(c->peers);
	mem_free(c->install_address);
	mem_free(c->address);
	mem_free(c);
}

/* Ends what can be ended; the rest, what others still do for it, brings another turn. */
static void close_turn(struct consensus *c)
{
	instance_drop(c);
	c->phase = PHASE_DOWN;
	consensus_settle(c);
	if (c->under_way > 0)
		return;
	void (*done)(void *arg) = c->close_done;
	void *arg = c->close_arg;
	loop_hook_cancel(&c->hook);
	loop_hook_cancel(&c->out_hook);
	consensus_free(c);
	done(arg);
}

static void turn(struct loop_hook *h)
{
	struct consensus *c = list_entry(h, struct consensus, hook);
	issue_barriers(c);
	if (c->closing) {
		close_turn(c);
		return;
	}
	consensus_settle(c);
	if (c->closing) /* one of those called closed it */
		return;
	enum consensus_role role = consensus_role(c);
	uint64_t term = consensus_term(c), leader = consensus_leader(c);
	bool ready = consensus_ready(c);
	if (c->told.role == role && c->told.term == term && c->told.leader == leader &&
		c->told.ready == ready)
		return;
	c->told.role = role;
	c->told.term = term;
	c->told.leader = leader;
	c->told.ready = ready;
	c->fsm.changed(c->fsm_arg);
}

/* The first entry of a founding replica. */
static enum err found(struct plog *log, const struct consensus_member *members, int count)
{
	struct raft_configuration conf;
	struct raft_buffer buf;
	struct slice config;
	/* Term 1 without an entry: a crash in the middle of this. */
	if (plog_last_index(log) != 0 || plog_marks(log)->term > 1 || plog_marks(log)->vote != 0)
		return ERR_EXISTS;
	raft_configuration_init(&conf);
	enum err e = OK;
	for (int i = 0; i < count && e == OK; i++)
		if (raft_configuration_add(
			    &conf, members[i].replica, members[i].address, RAFT_VOTER) != 0)
			e = ERR_INVALID;
	if (e == OK && raft_configuration_encode(&conf, &buf) == 0) {
		must(slice_copy(bytes_of(buf.base, buf.len), &config) == OK);
		raft_free(buf.base);
		struct entry *first = entry_new(&config, 1);
		first->head.kind = ENTRY_CONFIG;
		first->head.term = 1;
		plog_mark_term_vote(log, 1, 0);
		plog_append(log, first, -1);
		entry_unref(first);
	}
	raft_configuration_close(&conf);
	return e;
}

static struct consensus *consensus_new(
	struct plog *log, uint64_t replica, const char *address, const struct consensus_options *o)
{
	struct consensus *c = mem_new(sizeof *c);
	c->log = log;
	c->env = o->env;
	c->replica = replica;
	c->address = mem_text(address, strlen(address));
	c->o = *o;
	c->guard.silence_ms = o->election_ms - o->heartbeat_ms / 2;
	list_init(&c->appends);
	list_init(&c->spare_appends);
	list_init(&c->spare_requests);
	list_init(&c->gets);
	list_init(&c->held);
	list_init(&c->finished);
	list_init(&c->barriers);
	list_init(&c->reads);
	loop_hook_init(&c->hook, turn);
	loop_hook_init(&c->out_hook, out_turn);
	return c;
}

enum err consensus_open(struct plog *log, uint64_t replica, const char *address,
	const struct consensus_member *members, int member_count, const struct consensus_options *o,
	const struct consensus_fsm *fsm, void *fsm_arg, const struct consensus_net *net,
	void *net_arg, struct consensus **out)
{
	must(o->env != NULL);
	/* Empty, but not to be founded: its log and rows are on their way from another node. */
	bool seeding = plog_marks(log)->seeding;
	if (seeding && !fsm->install)
		return ERR_CORRUPT;
	enum err e = members && !seeding ? found(log, members, member_count) : OK;
	if (e != OK)
		return e;
	struct consensus *c = consensus_new(log, replica, address, o);
	c->fsm = *fsm;
	c->fsm_arg = fsm_arg;
	c->net = net;
	c->net_arg = net_arg;
	c->tick_ms = loop_now_ms(c->env->loop);
	c->late_ms = c->tick_ms - c->o.election_ms - 1;
	if (seeding) {
		raft_install_resume(c);
		*out = c;
		return OK;
	}
	c->first = members && member_count > 1 && members[0].replica == replica;
	c->opened_ms = loop_now_ms(c->env->loop);
	e = instance_start(c, plog_marks(log)->applied_index);
	if (e != OK) {
		must(c->under_way == 0);
		loop_hook_cancel(&c->hook);
		loop_hook_cancel(&c->out_hook);
		consensus_free(c);
		return e;
	}
	consensus_settle(c);
	*out = c;
	return OK;
}

void consensus_close(struct consensus *c, void (*done)(void *arg), void *arg)
{
	must(!c->closing);
	c->closing = true;
	c->close_done = done;
	c->close_arg = arg;
	consensus_want_turn(c); /* the caller may be called from the core's completions */
}
