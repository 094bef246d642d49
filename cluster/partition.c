/* The life of a partition and what happens when entries commit. Raft hands them over in order;
 * each is applied to the rows, moves the high watermark, is shown to the watchers, and ends the
 * waits it fulfils. Rows go to the store later: after some number of entries, bytes or time, or
 * when Raft is about to forget entries; always all of them, with the mark of the last applied
 * entry in the same write, so that the store holds the rows as of one entry exactly.
 *
 * Not every node that has a partition has a replica of it: without one it only knows who leads.
 *
 * A partition is memory that several loops point to. Its owner's share and those of catalogues
 * keep it; once closed it answers everything with ERR_CLOSED. */
#include <stdio.h>
#include "cluster/remote.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/disk.h"

enum {
	WRITE_BACK_ENTRIES = 256,
	WRITE_BACK_BYTES = 4 << 20,
	WRITE_BACK_MS = 1000,
	FOUNDERS_MAX = 64,
	ENTRY_OVERSIZE =
		64 << 20, /* beyond what this module lets in flight, Raft refuses nothing */
};

/* --- following the log --- */

/* Offsets are told by atomics: a loop that was told of an entry sees at least its end. */
void partition_moved(struct partition *p, int64_t next)
{
	if (next > atomic_load_explicit(&p->high_watermark, memory_order_relaxed))
		atomic_store_explicit(&p->high_watermark, next, memory_order_release);
}

static void apply_rows(struct partition *p, const struct entry *e)
{
	struct change_rows w;
	struct row_change row;
	enum err err = change_rows_init(&w, e);

	while (err == OK && (err = change_rows_next(&w, &row)) == OK) {
		if (row.keyspace == KEYSPACE_OWN)
			trim_apply(p, &row);
		else
			rows_apply(p->rows, e->index, &row);
	}
	if (err == ERR_NOTFOUND)
		return;
	/* Its checksum was right: other replicas would apply what this one can't. */
	LOG(LOG_ERROR, AREA_CLUSTER, "entry_unreadable", "group=%llu index=%llu err=\"%s\"",
		(unsigned long long)e->group, (unsigned long long)e->index, err_text(err));
	must_failed("entry readable", __FILE__, __LINE__);
}

void partition_show(struct partition *p, struct entry *e)
{
	for (struct list *n = p->watchers.next, *next; n != &p->watchers; n = next) {
		struct watcher *w = list_entry(n, struct watcher, node);

		next = n->next;
		if (w->committed != NULL && (p->consensus != NULL || !w->local))
			w->committed(w, e);
	}
}

static void on_apply(void *arg, struct entry *e)
{
	struct partition *p = arg;

	/* Of another leader: the same index means another entry than when they were evaluated. */
	if (e->head.term != p->overlay_term)
		rows_drop_pending(p->rows);
	if (e->head.flags & ENTRY_HAS_ROWS)
		apply_rows(p, e);
	p->applied_index = e->index;
	p->applied_term = e->head.term;
	p->applied_offset = entry_next_offset(&e->head);
	if (p->applied_count++ == 0)
		p->applied_ms = loop_now_ms(p->loop);
	if (e->head.count > 0)
		partition_moved(p, entry_next_offset(&e->head));
	atomic_store_explicit(&p->bytes, plog_bytes(p->log), memory_order_relaxed);
	partition_show(p, e);
	if (e->head.count > 0) {
		reads_fire_waits(p, false);
		trim_grown(p);
		if (p->feeding != NULL)
			remote_feed_entry(p, e);
	}
	if (!list_empty(&p->point_waits))
		remote_point_grown(p);
	if (partition_write_back_due(p))
		loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

bool partition_write_back_due(const struct partition *p)
{
	return p->applied_count >= WRITE_BACK_ENTRIES ||
		rows_dirty_bytes(p->rows) >= WRITE_BACK_BYTES;
}

void partition_write_back(struct partition *p)
{
	struct metric_cells *cells = loop_cells(p->loop);

	p->applied_count = 0;
	if (p->applied_index == p->marked_index)
		return;
	metric_add(cells, &node_metrics, M_WRITE_BACK_ROWS, (int64_t)rows_write_back(p->rows));
	metric_add(cells, &node_metrics, M_WRITE_BACKS, 1);
	plog_mark_applied(p->log, p->applied_index, p->applied_term);
	p->marked_index = p->applied_index;
}

static void on_write_back(void *arg)
{
	partition_write_back(arg);
}

/* This node, where it has a replica; without one others lead in any case. */
static uint32_t self(const struct partition *p)
{
	return (uint32_t)(p->options.replica >> 32);
}

/* Leads and has all of the terms before, and nobody has told of a newer term: a process that stood
 * still may hear of its successor from others before Raft tells it. */
static bool serves(const struct partition *p)
{
	return partition_local(p) && consensus_ready(p->consensus) &&
		consensus_term(p->consensus) >= p->heard_term;
}

/* A leader whose own barrier is under way serves soon: nothing is sent from it to itself. */
enum err partition_unserved(const struct partition *p)
{
	uint32_t leader = remote_leader(p);

	if (p->phase != PARTITION_OPEN)
		return ERR_CLOSED;
	if (serves(p))
		return OK;
	return leader != 0 && leader != self(p) ? ERR_NOTLEADER : ERR_UNAVAILABLE;
}

static void tell_led(struct partition *p, bool leads)
{
	struct list *n, *next;

	if (atomic_load(&p->leads) == leads)
		return;
	atomic_store(&p->leads, leads);
	p->home->leading += leads ? 1 : -1;
	for (n = p->watchers.next; n != &p->watchers; n = next) {
		next = n->next;
		list_entry(n, struct watcher, node)
			->led(list_entry(n, struct watcher, node), leads);
	}
	if (!leads) {
		partition_install_unled(p);
		reads_fire_waits(p, true);
	}
}

/* The catalogue names the members, and this node's replica is not among them. */
static bool named_no_more(const struct partition *p)
{
	for (int i = 0; i < p->wanted_voters + p->wanted_learners; i++) {
		if (p->wanted_ids[i] == p->options.replica)
			return false;
	}
	return p->wanted_ids != NULL;
}

/* Raft's word counts where there is a replica, until others have seen a newer term. One that was
 * taken out of the group and has not heard so stands for election for ever, in terms of its own:
 * it believes whoever says that he leads, so that it can ask whether it may go. While one hands
 * over Raft names nobody, but no older leader leads. */
static void find_leader(struct partition *p, uint64_t *term, uint32_t *node)
{
	bool leads = false;

	*term = 0;
	*node = 0;
	if (partition_local(p)) {
		*term = consensus_term(p->consensus);
		*node = (uint32_t)(consensus_leader(p->consensus) >> 32);
		leads = consensus_role(p->consensus) == ROLE_LEADER;
	}
	if (p->heard_term > *term ||
		(*node == 0 && !leads && (p->heard_term == *term || named_no_more(p)))) {
		*term = p->heard_term;
		*node = p->heard_leader;
	}
}

/* Who leads may be another from now on. */
static void look_for_leader(struct partition *p)
{
	uint64_t term;
	uint32_t node;

	find_leader(p, &term, &node);
	if (node != remote_leader(p) || term != p->leader_term) {
		atomic_store_explicit(&p->leader, node, memory_order_release);
		p->leader_term = term;
		atomic_store(&p->epoch, (int32_t)term);
	}
	propose_changed(p);
	remote_changed(p);
}

void partition_heard(struct partition *p, uint32_t node, uint64_t term)
{
	if (p->phase != PARTITION_OPEN || term < p->heard_term || node == self(p) ||
		(term == p->heard_term && node == p->heard_leader))
		return;
	p->heard_leader = node;
	p->heard_term = term;
	if (!serves(p))
		tell_led(p, false);
	look_for_leader(p);
}

static void on_changed(void *arg)
{
	struct partition *p = arg;
	bool ready;
	uint64_t term;

	if (p->phase != PARTITION_OPEN || p->detaching)
		return;
	ready = serves(p);
	term = consensus_term(p->consensus);
	if (!ready || term != p->term) {
		p->overlay_stale = true;
		tell_led(p, false);
	}
	p->term = term;
	look_for_leader(p);
	if (ready) {
		partition_moved(p, plog_next_offset(p->log));
		tell_led(p, true);
	}
}

int64_t partition_watch(struct partition *p, struct watcher *w)
{
	loop_must_own(p->loop);
	list_push_back(&p->watchers, &w->node);
	remote_follow_changed(p);
	return partition_high_watermark(p);
}

void partition_unwatch(struct partition *p, struct watcher *w)
{
	loop_must_own(p->loop);
	list_remove(&w->node);
	remote_follow_changed(p);
}

enum err partition_walk_rows(struct partition *p, uint8_t keyspace,
	void (*each)(void *arg, struct bytes key, struct bytes value), void *arg)
{
	loop_must_own(p->loop);
	if (p->rows == NULL || partition_stateless(p))
		return p->phase == PARTITION_OPEN ? ERR_UNAVAILABLE : ERR_CLOSED;
	return rows_walk(p->rows, keyspace, each, arg);
}

/* --- what any loop may look at --- */

int64_t partition_high_watermark(const struct partition *p)
{
	return atomic_load_explicit(&p->high_watermark, memory_order_acquire);
}
int64_t partition_first_offset(const struct partition *p)
{
	return atomic_load_explicit(&p->first_offset, memory_order_acquire);
}
int32_t partition_epoch(const struct partition *p)
{
	return atomic_load_explicit(&p->epoch, memory_order_acquire);
}
bool partition_leads(const struct partition *p)
{
	return atomic_load_explicit(&p->leads, memory_order_acquire);
}
uint32_t partition_leader(const struct partition *p)
{
	return atomic_load_explicit(&p->leader, memory_order_acquire);
}
bool partition_attached(const struct partition *p)
{
	return atomic_load_explicit(&p->attached, memory_order_acquire);
}
int64_t partition_bytes(const struct partition *p)
{
	return atomic_load_explicit(&p->bytes, memory_order_relaxed);
}
uint64_t partition_group(const struct partition *p)
{
	return p->options.group;
}
struct loop *partition_home(const struct partition *p)
{
	return p->loop;
}

/* --- members --- */

static void want(struct partition *p)
{
	if (p->membership != NULL && p->wanted_ids != NULL)
		membership_want(p->membership,
			&(struct membership_wanted){p->wanted_ids, p->wanted_voters,
				p->wanted_ids + p->wanted_voters, p->wanted_learners});
}

void partition_want_members(struct partition *p, const struct partition_wanted *w)
{
	size_t voters = (size_t)w->voter_count, learners = (size_t)w->learner_count;

	loop_must_own(p->loop);
	mem_free(p->wanted_ids);
	p->wanted_ids = mem_new((voters + learners + 1) * sizeof *p->wanted_ids);
	if (voters > 0)
		memcpy(p->wanted_ids, w->voters, voters * sizeof *w->voters);
	if (learners > 0)
		memcpy(p->wanted_ids + voters, w->learners, learners * sizeof *w->learners);
	p->wanted_voters = w->voter_count;
	p->wanted_learners = w->learner_count;
	want(p);
	if (p->phase == PARTITION_OPEN && remote_leader(p) == 0)
		look_for_leader(p); /* one that is named no more believes what it has heard */
}

void partition_step_aside(struct partition *p, uint32_t to)
{
	loop_must_own(p->loop);
	if (p->membership != NULL)
		membership_step_aside(p->membership, to);
}

/* --- beginning and end --- */

/* What is not sent is Raft's to send again. */
static void send_message(
	void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	struct partition *p = arg;

	(void)address;
	(void)peers_send(p->options.peers, (uint32_t)(to >> 32), LANE_HIGH, PEER_RAFT,
		p->options.group, parts, count);
}

static const struct consensus_net net = {send_message};

static void take_founders(struct partition *p, const struct partition_options *o)
{
	size_t bytes = (size_t)o->founder_count * sizeof *o->founders;

	mem_free(p->founders);
	p->founders = NULL;
	p->options.founders = NULL;
	p->options.founder_count = 0;
	if (o->founders == NULL || o->founder_count == 0)
		return;
	p->founders = mem_new(bytes);
	memcpy(p->founders, o->founders, bytes);
	p->options.founder_count = o->founder_count;
}

struct partition *partition_new(struct partition_home *h, const struct partition_options *o)
{
	struct partition *p = mem_new(sizeof *p);

	must(o->env->loop == h->loop);
	p->home = h;
	p->loop = h->loop;
	p->env = o->env;
	p->options = *o;
	take_founders(p, o);
	p->retention_ms = p->retention_bytes = -1;
	atomic_init(&p->refs, 1);
	list_init(&p->watchers);
	list_init(&p->waits);
	propose_init(p);
	remote_init(p);
	p->consensus_options = (struct consensus_options){
		.heartbeat_ms = 150,
		.election_ms = 600,
		.snapshot_threshold = 256,
		.snapshot_trailing = 128,
		.inflight_bytes_max = h->limits.inflight_bytes_max * 2 + ENTRY_OVERSIZE,
		.env = o->env,
	};
	return p;
}

struct partition *partition_ref(struct partition *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void partition_unref(struct partition *p)
{
	if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1)
		return;
	must(p->phase == PARTITION_NEW || p->phase == PARTITION_CLOSED);
	remote_fini(p);
	mem_free(p->founders);
	mem_free(p->wanted_ids);
	mem_free(p);
}

/* The first configuration, the same on each founding replica. */
static enum err open_consensus(struct partition *p)
{
	static const struct consensus_fsm fsm = {
		on_apply, on_write_back, on_changed, partition_install};
	struct consensus_member members[FOUNDERS_MAX];
	char addresses[FOUNDERS_MAX][24], address[24];
	const uint64_t *ids = p->founders;
	int count = p->options.founder_count;

	if (ids == NULL && p->options.peers == NULL) {
		ids = &p->options.replica;
		count = 1;
	}
	if (ids == NULL || plog_last_index(p->log) != 0 || partition_stateless(p))
		count = 0;
	must(count <= FOUNDERS_MAX);
	for (int i = 0; i < count; i++) {
		snprintf(addresses[i], sizeof addresses[i], "%llu", (unsigned long long)ids[i]);
		members[i] = (struct consensus_member){ids[i], addresses[i]};
	}
	snprintf(address, sizeof address, "%llu", (unsigned long long)p->options.replica);
	return consensus_open(p->log, p->options.replica, address, count > 0 ? members : NULL,
		count, &p->consensus_options, &fsm, p, p->options.peers ? &net : NULL, p,
		&p->consensus);
}

/* What is below the applied mark was committed. */
static int64_t committed_offset(struct partition *p)
{
	const struct entry_header *next = plog_header(p->log, p->applied_index + 1);

	return next != NULL ? next->base_offset : plog_next_offset(p->log);
}

/* The log is open: rows, then Raft, which applies what the rows lack. */
static enum err start(struct partition *p, bool boot)
{
	const struct plog_marks *marks = plog_marks(p->log);
	bool fresh = !boot && plog_last_index(p->log) == 0;
	enum err e = OK;

	p->applied_index = p->marked_index = marks->applied_index;
	p->applied_term = marks->applied_term;
	p->applied_count = 0;
	p->term = 0;
	atomic_store(&p->first_offset, marks->first_offset);
	p->applied_offset = committed_offset(p);
	partition_moved(p, p->applied_offset);
	atomic_store(&p->bytes, plog_bytes(p->log));
	p->rows = rows_new(p->env, p->home->cache, p->options.group);
	if (fresh)
		rows_fresh(p->rows);
	else if (boot)
		e = rows_load(p->rows);
	if (e == OK)
		e = open_consensus(p);
	if (e != OK) {
		rows_free(p->rows);
		p->rows = NULL;
		return e;
	}
	if (consensus_applied(p->consensus) == plog_last_index(p->log))
		p->applied_offset = plog_next_offset(p->log);
	partition_moved(p, p->applied_offset);
	p->retain_at_ms = loop_now_ms(p->loop) + (int64_t)(random_u64() % 30000);
	if (p->options.peers != NULL) {
		p->membership = membership_new(p->consensus, p->loop);
		want(p);
	}
	atomic_store(&p->attached, true);
	return OK;
}

/* With a replica or without one it serves from now on. */
static void become_open(struct partition *p)
{
	p->phase = PARTITION_OPEN;
	partition_home_add(p->home, p);
	if (p->consensus != NULL)
		on_changed(p);
	else
		look_for_leader(p);
}

static enum err open_log(struct partition *p)
{
	return plog_open(p->env, p->options.group, p->options.log_family, &p->log);
}

static enum err start_or_drop(struct partition *p, bool boot)
{
	enum err e = start(p, boot);

	if (e != OK) {
		plog_close(p->log);
		p->log = NULL;
	}
	return e;
}

/* Says that the group is here and which replica of it: the owner reads it at the next start. */
static void create_row(struct partition *p)
{
	uint8_t replica[8];

	put_u64be(replica, p->options.replica);
	plog_create(
		p->env, p->options.group, p->options.log_family, bytes_of(replica, sizeof replica));
}

enum err partition_open(struct partition *p)
{
	enum err e = OK;

	if (p->options.replica != 0) {
		e = open_log(p);
		if (e != OK)
			return e;
		if (plog_last_index(p->log) == 0)
			create_row(p);
		e = start_or_drop(p, true);
	}
	if (e == OK)
		become_open(p);
	return e;
}

static void open_work(struct job *j)
{
	struct partition *p = list_entry(j, struct partition, job);

	p->open_err = open_log(p);
}

static void open_while_running(struct partition *p, void (*then)(struct job *j))
{
	create_row(p);
	p->job.home = p->loop;
	p->job.work = open_work;
	p->job.done = then;
	worker_run(p->env->workers, &p->job);
}

static void create_done(struct job *j)
{
	struct partition *p = list_entry(j, struct partition, job);
	enum err e = p->open_err;

	if (e == OK)
		e = start_or_drop(p, false);
	if (e == OK)
		become_open(p);
	p->created(p->owner_arg, e);
}

static void create_bare(struct loop_msg *m)
{
	struct partition *p = list_entry(m, struct partition, bare);

	become_open(p);
	p->created(p->owner_arg, OK);
}

void partition_create(struct partition *p, void (*done)(void *arg, enum err e), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_NEW);
	p->created = done;
	p->owner_arg = arg;
	if (p->options.replica != 0) {
		open_while_running(p, create_done);
		return;
	}
	p->bare.run = create_bare;
	loop_post(p->loop, &p->bare);
}

/* --- a replica comes or goes --- */

static void attach_done(struct job *j)
{
	struct partition *p = list_entry(j, struct partition, job);
	enum err e = p->open_err;

	if (e == OK)
		e = start_or_drop(p, false);
	p->attaching = false;
	if (e == OK)
		on_changed(p);
	else
		p->options.replica = 0;
	p->created(p->owner_arg, e);
}

void partition_attach(struct partition *p, const struct partition_options *o,
	void (*done)(void *arg, enum err e), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_OPEN && p->consensus == NULL && !p->attaching);
	must(o->group == p->options.group && o->replica != 0 && !p->detaching);
	p->options.replica = o->replica;
	p->options.log_family = o->log_family;
	p->options.vital = o->vital;
	take_founders(p, o);
	p->attaching = true;
	p->created = done;
	p->owner_arg = arg;
	open_while_running(p, attach_done);
}

/* What was in flight has ended, and nothing of the replica is used any more. */
static void replica_end(struct partition *p)
{
	rows_free(p->rows);
	p->rows = NULL;
	if (p->destroy)
		plog_destroy(p->log);
	else
		plog_close(p->log);
	p->log = NULL;
	atomic_store(&p->attached, false);
}

struct gone { /* what the replica had, on its way out of the store */
	struct durable durable;
	struct partition *partition; /* share */
};

static void detach_gone(struct durable *d)
{
	struct gone *g = list_entry(d, struct gone, durable);
	struct partition *p = g->partition;

	mem_free(g);
	p->detaching = false;
	p->closed(p->owner_arg);
	partition_unref(p);
}

/* The next replica of the group here looks into the store from another thread: it must find nothing
 * of this one, or it takes for its own what is about to be deleted. */
static void detach_end(void *arg)
{
	struct partition *p = arg;
	struct gone *g = mem_new(sizeof *g);

	replica_end(p);
	p->destroy = false;
	p->overlay_stale = false;
	p->options.replica = 0;
	p->term = 0;
	atomic_store(&p->bytes, 0);
	look_for_leader(p);
	g->partition = p;
	g->durable.done = detach_gone;
	lane_when_durable(p->env->lane, &g->durable);
}

static void detach_compaction(void *arg)
{
	compact_when_idle(arg, detach_end);
}

static void detach_rows(void *arg)
{
	struct partition *p = arg;

	p->consensus = NULL;
	rows_when_idle(p->rows, detach_compaction, p);
}

void partition_detach(struct partition *p, void (*done)(void *arg), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_OPEN && p->consensus != NULL && !p->detaching);
	partition_ref(p);
	p->closed = done;
	p->owner_arg = arg;
	p->detaching = p->destroy = p->overlay_stale = true;
	membership_free(p->membership);
	p->membership = NULL;
	tell_led(p, false);
	remote_feed_fini(p);
	look_for_leader(p);
	partition_install_close(p);
	consensus_close(p->consensus, detach_rows, p);
}

/* --- the end --- */

static void close_end(void *arg)
{
	struct partition *p = arg;

	if (p->log != NULL)
		replica_end(p);
	loop_hook_cancel(&p->hook);
	p->phase = PARTITION_CLOSED;
	p->closed(p->owner_arg);
	partition_unref(p);
}

static void close_compaction(void *arg)
{
	compact_when_idle(arg, close_end);
}

static void close_rows(void *arg)
{
	struct partition *p = arg;

	p->consensus = NULL;
	rows_when_idle(p->rows, close_compaction, p);
}

static void close_bare(struct loop_msg *m)
{
	close_end(list_entry(m, struct partition, bare));
}

void partition_close(struct partition *p, bool destroy, void (*done)(void *arg), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_OPEN && !p->attaching && !p->detaching);
	partition_ref(p);
	p->destroy = destroy;
	p->closed = done;
	p->owner_arg = arg;
	if (!destroy && partition_local(p))
		partition_write_back(p);
	p->phase = PARTITION_CLOSING;
	partition_home_remove(p->home, p);
	membership_free(p->membership);
	p->membership = NULL;
	tell_led(p, false);
	reads_fire_waits(p, true);
	propose_fail_all(p, ERR_CLOSED);
	remote_close(p);
	if (p->consensus != NULL) {
		partition_install_close(p);
		consensus_close(p->consensus, close_rows, p);
		return;
	}
	p->bare.run = close_bare;
	loop_post(p->loop, &p->bare);
}

/* --- time --- */

static void tick_replica(struct partition *p, int64_t now_ms)
{
	bool stalled = p->env->disk != NULL && disk_stalled(p->env->disk);

	consensus_mute(p->consensus, stalled);
	consensus_tick(p->consensus);
	if (p->membership != NULL)
		membership_tick(p->membership, now_ms);
	if (!partition_local(p))
		return;
	trim_tick(p, now_ms);
	compact_tick(p, now_ms);
	if (p->applied_count > 0 && now_ms - p->applied_ms >= WRITE_BACK_MS)
		partition_write_back(p);
}

void partition_tick(struct partition *p, int64_t now_ms)
{
	if (p->consensus != NULL && !p->detaching)
		tick_replica(p, now_ms);
	propose_tick(p, now_ms);
	remote_tick(p, now_ms);
}
