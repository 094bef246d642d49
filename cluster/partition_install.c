/* The partition's side of catch-up. As a replica that is too far behind: Raft asks (fsm.install),
 * what the log lacks and the rows are fetched from the node of the leader, and the partition goes
 * on from their state as if it had been started with it. From the moment the old state is deleted
 * until then it has none: nothing is read, written back or served. A fetch that fails is asked for
 * again by Raft when it hears a leader, also after a restart; what is wrong with one node's data
 * must not end a replica.
 *
 * As a leader: what others fetch from is the log and the rows here, as long as it leads. */
#include "cluster/catchup.h"
#include "cluster/partition_priv.h"
#include "cluster/remote.h"

/* --- fetching --- */

bool partition_stateless(const struct partition *p)
{
	return p->log != NULL && plog_marks(p->log)->seeding;
}

static void on_emptied(void *arg)
{
	struct partition *p = arg;

	rows_reset(p->rows);
	p->applied_index = p->marked_index = p->applied_term = 0;
	p->applied_count = 0;
	p->overlay_stale = true;
}

/* The state is another one: offsets are told as after a start, only that none goes back. */
static void take_state(struct partition *p)
{
	const struct plog_marks *m = plog_marks(p->log);
	struct list *n, *then;

	rows_reset(p->rows); /* reads that came meanwhile may have left something */
	p->applied_index = p->marked_index = m->applied_index;
	p->applied_term = m->applied_term;
	atomic_store_explicit(&p->bytes, plog_bytes(p->log), memory_order_relaxed);
	atomic_store_explicit(&p->first_offset, m->first_offset, memory_order_release);
	p->applied_offset = plog_next_offset(p->log);
	partition_moved(p, p->applied_offset);
	for (n = p->watchers.next; n != &p->watchers; n = then) {
		struct watcher *w = list_entry(n, struct watcher, node);

		then = n->next;
		if (w->replaced != NULL)
			w->replaced(w);
	}
	reads_fire_waits(p, false);
	if (!list_empty(&p->point_waits))
		remote_point_grown(p);
}

static void on_fetched(void *arg, enum err e)
{
	struct partition *p = arg;

	p->install = NULL;
	if (e == OK)
		take_state(p);
	else if (e == ERR_CORRUPT)
		e = ERR_UNAVAILABLE; /* the other's data, not ours: another time, another node */
	consensus_installed(p->consensus, e);
}

void partition_install(void *arg, const struct consensus_install *i)
{
	struct partition *p = arg;
	struct catchup_fetch f = {.group = p->options.group,
		.from = (uint32_t)(i->from >> 32),
		.index_min = i->least,
		.held = p->applied_index,
		.env = p->env,
		.log = p->log,
		.emptied = on_emptied,
		.done = on_fetched,
		.arg = p};

	if (p->install != NULL)
		catchup_cancel(p->install); /* who led does no more */
	if (p->options.catchups == NULL) {
		consensus_installed(p->consensus, ERR_UNSUPPORTED);
		return;
	}
	p->install = catchup_start(p->options.catchups, &f);
}

/* --- serving --- */

static void write_back(void *arg)
{
	partition_write_back(arg);
}

static const struct catchup_source *source_of(void *arg, uint64_t group)
{
	const struct partition_finder *f = arg;
	struct partition *p = f->find(f->arg, group);

	/* Also before its own barrier is through: that may need the one who asks. */
	if (p == NULL || !partition_local(p) || consensus_role(p->consensus) != ROLE_LEADER)
		return NULL;
	p->source.log = p->log;
	p->source.consensus = p->consensus;
	p->source.env = p->env;
	p->source.write_back = write_back;
	p->source.arg = p;
	return &p->source;
}

void partitions_serve_catchup(struct catchups *all, struct partition_finder *f)
{
	catchups_serve(all, source_of, f);
}

void partition_install_unled(struct partition *p)
{
	if (p->options.catchups != NULL)
		catchups_end(p->options.catchups, p->options.group, p->loop);
}

void partition_install_close(struct partition *p)
{
	partition_install_unled(p);
	if (p->install == NULL)
		return;
	catchup_cancel(p->install);
	p->install = NULL;
	consensus_installed(p->consensus, ERR_CLOSED);
}
