/* The life of a partition and what happens when entries commit. Raft hands them over in order;
 * each is applied to the rows, moves the high watermark, is shown to the watchers, and ends the
 * waits it fulfils. Rows go to the store later: after some number of entries, bytes or time, or
 * when Raft is about to forget entries; always all of them, with the mark of the last applied
 * entry in the same write, so that the store holds the rows as of one entry exactly.
 *
 * A partition is memory that several loops point to. Its owner's share and those of catalogues
 * keep it; once closed it answers everything with ERR_CLOSED. */
#include "cluster/partition_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "storage/disk.h"

enum {
	TICK_MS = 50,
	TICK_SLICE = 512, /* partitions ticked before others get their turn */
	WRITE_BACK_ENTRIES = 256,
	WRITE_BACK_BYTES = 4 << 20,
	WRITE_BACK_MS = 1000,
	ENTRY_OVERSIZE =
		64 << 20, /* beyond what this module lets in flight, Raft refuses nothing */
};

/* --- following the log --- */

/* Offsets are told by atomics: a loop that was told of an entry sees at least its end. */
static void move_high_watermark(struct partition *p, int64_t next)
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

static void on_apply(void *arg, struct entry *e)
{
	struct partition *p = arg;
	struct list *n, *next;

	if (e->head.flags & ENTRY_HAS_ROWS)
		apply_rows(p, e);
	p->applied_index = e->index;
	p->applied_term = e->head.term;
	if (p->applied_count++ == 0)
		p->applied_ms = loop_now_ms(p->loop);
	if (e->head.count > 0)
		move_high_watermark(p, entry_next_offset(&e->head));
	atomic_store_explicit(&p->bytes, plog_bytes(p->log), memory_order_relaxed);
	for (n = p->watchers.next; n != &p->watchers; n = next) {
		struct watcher *w = list_entry(n, struct watcher, node);

		next = n->next;
		w->committed(w, e);
	}
	if (e->head.count > 0) {
		reads_fire_waits(p, false);
		trim_grown(p);
	}
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

enum err partition_unserved(const struct partition *p)
{
	uint64_t leader;

	if (p->phase != PARTITION_OPEN)
		return ERR_CLOSED;
	if (consensus_ready(p->consensus))
		return OK;
	leader = consensus_leader(p->consensus);
	return leader != 0 && leader != p->options.replica ? ERR_NOTLEADER : ERR_UNAVAILABLE;
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
	if (!leads)
		reads_fire_waits(p, true);
}

static void on_changed(void *arg)
{
	struct partition *p = arg;
	bool ready;
	uint64_t term;

	if (p->phase != PARTITION_OPEN)
		return;
	ready = consensus_ready(p->consensus);
	term = consensus_term(p->consensus);
	if (!ready || term != p->term) {
		p->overlay_stale = true;
		tell_led(p, false);
	}
	p->term = term;
	atomic_store(&p->epoch, (int32_t)term);
	if (ready) {
		move_high_watermark(p, plog_next_offset(p->log));
		tell_led(p, true);
	}
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

int64_t partition_watch(struct partition *p, struct watcher *w)
{
	loop_must_own(p->loop);
	list_push_back(&p->watchers, &w->node);
	return partition_high_watermark(p);
}

void partition_unwatch(struct partition *p, struct watcher *w)
{
	loop_must_own(p->loop);
	list_remove(&w->node);
}

enum err partition_walk_rows(struct partition *p, uint8_t keyspace,
	void (*each)(void *arg, struct bytes key, struct bytes value), void *arg)
{
	loop_must_own(p->loop);
	if (p->rows == NULL)
		return ERR_CLOSED;
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

/* --- beginning and end --- */

struct partition *partition_new(struct partition_home *h, const struct partition_options *o)
{
	struct partition *p = mem_new(sizeof *p);

	must(o->env->loop == h->loop);
	p->home = h;
	p->loop = h->loop;
	p->env = o->env;
	p->options = *o;
	p->retention_ms = p->retention_bytes = -1;
	atomic_init(&p->refs, 1);
	list_init(&p->watchers);
	list_init(&p->waits);
	propose_init(p);
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
	mem_free(p);
}

static void home_add(struct partition_home *h, struct partition *p)
{
	if (h->count == h->room) {
		h->room = h->room ? h->room * 2 : 16;
		h->all = mem_resize(h->all, (size_t)h->room * sizeof(struct partition *));
		must(h->all != NULL);
	}
	p->home_at = h->count;
	h->all[h->count++] = p;
}

static void home_remove(struct partition_home *h, struct partition *p)
{
	struct partition *last = h->all[--h->count];

	h->all[p->home_at] = last;
	last->home_at = p->home_at;
}

/* The log is open: rows, then Raft, which applies what the rows lack. */
static enum err start(struct partition *p, bool fresh)
{
	static const struct consensus_fsm fsm = {on_apply, on_write_back, on_changed, NULL};
	const struct plog_marks *marks = plog_marks(p->log);
	struct consensus_member self = {p->options.replica, "self"};
	bool founding = plog_last_index(p->log) == 0;
	enum err e = OK;

	p->applied_index = p->marked_index = marks->applied_index;
	p->applied_term = marks->applied_term;
	atomic_store(&p->first_offset, marks->first_offset);
	atomic_store(&p->high_watermark, marks->first_offset);
	atomic_store(&p->bytes, plog_bytes(p->log));
	p->rows = rows_new(p->env, p->home->cache, p->options.group);
	if (fresh)
		rows_fresh(p->rows);
	else
		e = rows_load(p->rows);
	if (e == OK)
		e = consensus_open(p->log, p->options.replica, self.address,
			founding ? &self : NULL, founding ? 1 : 0, &p->consensus_options, &fsm, p,
			NULL, NULL, &p->consensus);
	if (e != OK) {
		rows_free(p->rows);
		p->rows = NULL;
		return e;
	}
	if (consensus_applied(p->consensus) == plog_last_index(p->log))
		move_high_watermark(p, plog_next_offset(p->log));
	p->phase = PARTITION_OPEN;
	p->retain_at_ms = loop_now_ms(p->loop) + (int64_t)(random_u64() % 30000);
	home_add(p->home, p);
	on_changed(p);
	return OK;
}

/* Says that the group is here and which replica of it: the owner reads it at the next start. */
static void create_row(struct partition *p)
{
	uint8_t replica[8];

	put_u64be(replica, p->options.replica);
	plog_create(p->env, p->options.group, p->options.log_family,
		bytes_of(replica, sizeof replica));
}

enum err partition_open(struct partition *p)
{
	enum err e = plog_open(p->env, p->options.group, p->options.log_family, &p->log);

	if (e != OK)
		return e;
	if (plog_last_index(p->log) == 0)
		create_row(p);
	e = start(p, false);
	if (e != OK) {
		plog_close(p->log);
		p->log = NULL;
	}
	return e;
}

static void create_work(struct job *j)
{
	struct partition *p = list_entry(j, struct partition, job);

	p->open_err = plog_open(p->env, p->options.group, p->options.log_family, &p->log);
}

static void create_done(struct job *j)
{
	struct partition *p = list_entry(j, struct partition, job);
	enum err e = p->open_err;

	if (e == OK) {
		e = start(p, true);
		if (e != OK) {
			plog_close(p->log);
			p->log = NULL;
		}
	}
	p->created(p->owner_arg, e);
}

void partition_create(struct partition *p, void (*done)(void *arg, enum err e), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_NEW);
	create_row(p);
	p->created = done;
	p->owner_arg = arg;
	p->job.home = p->loop;
	p->job.work = create_work;
	p->job.done = create_done;
	worker_run(p->env->workers, &p->job);
}

static void close_log(void *arg)
{
	struct partition *p = arg;

	rows_free(p->rows);
	p->rows = NULL;
	if (p->destroy)
		plog_destroy(p->log);
	else
		plog_close(p->log);
	p->log = NULL;
	loop_hook_cancel(&p->hook);
	p->phase = PARTITION_CLOSED;
	p->closed(p->owner_arg);
	partition_unref(p);
}

static void close_rows(void *arg)
{
	struct partition *p = arg;

	p->consensus = NULL;
	rows_when_idle(p->rows, close_log, p);
}

void partition_close(struct partition *p, bool destroy, void (*done)(void *arg), void *arg)
{
	loop_must_own(p->loop);
	must(p->phase == PARTITION_OPEN);
	partition_ref(p);
	p->destroy = destroy;
	p->closed = done;
	p->owner_arg = arg;
	if (!destroy)
		partition_write_back(p);
	p->phase = PARTITION_CLOSING;
	home_remove(p->home, p);
	tell_led(p, false);
	reads_fire_waits(p, true);
	propose_fail_all(p, ERR_CLOSED);
	consensus_close(p->consensus, close_rows, p);
}

/* --- homes --- */

static void partition_tick(struct partition *p, int64_t now_ms)
{
	bool stalled = p->env->disk != NULL && disk_stalled(p->env->disk);

	consensus_mute(p->consensus, stalled);
	consensus_tick(p->consensus);
	propose_tick(p, now_ms);
	trim_tick(p, now_ms);
	if (p->applied_count > 0 && now_ms - p->applied_ms >= WRITE_BACK_MS)
		partition_write_back(p);
}

static void tick_slice(struct loop_hook *hook)
{
	struct partition_home *h = list_entry(hook, struct partition_home, tick_hook);
	struct metric_cells *cells = loop_cells(h->loop);
	int64_t now_ms = loop_now_ms(h->loop);

	for (int i = 0; i < TICK_SLICE && h->tick_at < h->count; i++)
		partition_tick(h->all[h->tick_at++], now_ms);
	if (h->tick_at < h->count) {
		loop_hook_want(h->loop, STAGE_PROPOSE, &h->tick_hook);
		return;
	}
	h->tick_at = 0;
	rows_cache_trim(h->cache);
	metric_set(cells, &node_metrics, M_ROWS, (int64_t)rows_cache_count(h->cache));
	metric_set(cells, &node_metrics, M_ROW_BYTES, (int64_t)rows_cache_bytes(h->cache));
	metric_set(cells, &node_metrics, M_PARTITIONS, h->count);
	metric_set(cells, &node_metrics, M_LEADING, h->leading);
}

static void tick_fire(struct loop_timer *t)
{
	struct partition_home *h = list_entry(t, struct partition_home, timer);

	loop_timer_set(&h->timer, TICK_MS);
	if (h->tick_at > 0)
		return; /* the last round goes on */
	loop_hook_want(h->loop, STAGE_PROPOSE, &h->tick_hook);
}

struct partition_home *partition_home_new(struct loop *l, const struct partition_limits *limits)
{
	struct partition_home *h = mem_new(sizeof *h);
	size_t loops = (size_t)loops_count(loop_all(l));

	proposal_kind_add(&trim_kind);
	h->loop = l;
	h->limits = *limits;
	h->cache = rows_cache_new(limits->rows_bytes_max);
	h->answers = mem_new(loops * sizeof *h->answers);
	building_init(&h->building);
	list_init(&h->spare);
	loop_hook_init(&h->answer_hook, propose_answers_run);
	loop_hook_init(&h->tick_hook, tick_slice);
	loop_timer_init(&h->timer, l, tick_fire);
	return h;
}

void partition_home_start(struct partition_home *h)
{
	loop_must_own(h->loop);
	loop_timer_set(&h->timer, TICK_MS);
}

void partition_home_stop(struct partition_home *h)
{
	loop_must_own(h->loop);
	loop_timer_cancel(&h->timer);
	loop_hook_cancel(&h->tick_hook);
}

void partition_home_free(struct partition_home *h)
{
	struct list *n;

	must(h->count == 0);
	partition_home_stop(h);
	loop_hook_cancel(&h->answer_hook);
	while ((n = list_pop(&h->spare)) != NULL)
		mem_free(list_entry(n, struct pending_entry, node));
	building_fini(&h->building);
	rows_cache_free(h->cache);
	mem_free(h->answers);
	mem_free(h->all);
	mem_free(h);
}
