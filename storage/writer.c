/* A lane is a position that grows with every put. A write set ends at some position; the writer
 * publishes for each lane how far it has written, the syncer how far it has synced, and whoever
 * waits waits for a position: no list of sets in flight, however many a slow sync lets pile up.
 *
 * A lane has two sets: one gathers while the other is with the writer, so the batches' memory is
 * reused and a lane under load sends larger sets, not more. Sets reach the writer by a stack any
 * loop pushes to; the writer takes it whole, turns it around, and writes those with terms and
 * votes first. Each write kicks the syncer, which looks how far the lanes were written, syncs
 * once and tells every loop that has moved, with one message.
 *
 * Waking a thread costs more than a small write, so under light load few are woken: when little
 * was written and nothing more waits, the writer syncs itself, unless the syncer is at it; and a
 * loop is told that its set was written only if it has something to do then.
 *
 * A write or sync that fails stops the process: what is on the disk is not known then, and only
 * a restart reads it. */
#include "storage/writer.h"
#include <stdatomic.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/pulse.h"
#include "storage/storage_metrics.h"

enum {
	BATCH_KEEP_BYTES = 8 << 20,     /* a batch that grew larger is not kept */
	SYNC_HERE_BYTES_MAX = 64 * 1024 /* written in one run: the writer syncs it itself */
};

struct set {
	struct lane *lane;
	struct set *next; /* on the writer's stack */
	struct store_batch *batch, *unlogged;
	uint64_t end; /* the lane's position behind it */
	bool urgent;  /* holds a term or vote */
};

struct lane {
	struct writer *writer;
	struct loop *loop;
	struct loop_hook submit; /* wanted at STAGE_WRITE while something gathers */
	struct set sets[2];
	int gathering;               /* which of the two */
	bool busy;                   /* the other one was sent, and may still be with the writer */
	bool asked;                  /* written_msg was asked for and has not arrived */
	bool urgent;                 /* of what gathers */
	uint64_t put;                /* position behind all that was put */
	uint64_t sent;               /* position behind what left for the writer */
	struct list waiting;         /* durables, by position */
	struct list idlers;          /* hooks */
	struct loop_msg written_msg; /* the set is home again */
	_Atomic bool written_wanted; /* the writer is to post it */
	struct loop_msg synced_msg;
	_Atomic bool synced_posted; /* synced_msg is under way */
	_Atomic uint64_t written;   /* by the writer thread */
	_Atomic uint64_t synced;    /* by the syncer thread */
};

struct writer {
	struct store *store;
	struct pulse *write_pulse, *sync_pulse;
	struct metric_cells *write_cells, *sync_cells; /* of each thread */
	_Atomic(struct set *) stack;                   /* newest first */
	_Atomic bool syncing;                          /* one of the two threads is at it */
	_Atomic int64_t write_since_us, sync_since_us; /* 0: none under way */
	_Atomic uint64_t logged_sequence; /* of the last write that a sync makes durable */
	_Atomic uint64_t synced_sequence;
	uint64_t *syncing_to; /* by lane, of who is syncing */
	bool stopped;
	int lane_count;
	struct lane lanes[];
};

/* A fault of the disk or a full one: stops here, see above. */
static void must_succeed(enum err e, const char *what)
{
	if (e == OK)
		return;
	LOG(LOG_ERROR, AREA_STORAGE, "store_failed", "call=%s err=\"%s\"", what, err_text(e));
	abort();
}

static void write_batch(struct writer *w, struct store_batch **batch,
	enum err (*write)(struct store *s, struct store_batch *b))
{
	size_t bytes = store_batch_bytes(*batch);

	if (store_batch_count(*batch) == 0)
		return;
	atomic_store(&w->write_since_us, clock_us());
	must_succeed(write(w->store, *batch), "write");
	atomic_store(&w->write_since_us, 0);
	storage_count(w->write_cells, M_WRITES, 1);
	storage_count(w->write_cells, M_WRITE_BYTES, (int64_t)bytes);
	if (bytes > BATCH_KEEP_BYTES) {
		store_batch_free(*batch);
		*batch = store_batch_new(w->store);
	} else {
		store_batch_clear(*batch);
	}
}

static void write_batches(struct writer *w, struct set *s)
{
	bool logged = store_batch_count(s->batch) > 0;

	write_batch(w, &s->unlogged, store_write_unlogged);
	write_batch(w, &s->batch, store_write);
	if (logged)
		atomic_store(&w->logged_sequence, store_sequence(w->store));
}

static void write_set(struct writer *w, struct set *s)
{
	struct lane *l = s->lane;

	write_batches(w, s);
	atomic_store(&l->written, s->end); /* the set is the loop's again */
	if (atomic_exchange(&l->written_wanted, false))
		loop_post(l->loop, &l->written_msg);
}

/* Tells the lane's loop, unless it will look anyway. */
static void tell_synced(struct lane *l)
{
	if (!atomic_exchange(&l->synced_posted, true))
		loop_post(l->loop, &l->synced_msg);
}

static void sync_store(struct writer *w)
{
	uint64_t sequence = atomic_load(&w->logged_sequence);
	int64_t start = clock_us();

	atomic_store(&w->sync_since_us, start);
	must_succeed(store_sync(w->store), "sync");
	atomic_store(&w->sync_since_us, 0);
	atomic_store(&w->synced_sequence, sequence);
	storage_count(w->sync_cells, M_SYNCS, 1);
	storage_count(w->sync_cells, M_SYNC_US, clock_us() - start);
}

/* Syncs all that was written before. Within `syncing`. */
static void sync_lanes(struct writer *w)
{
	bool news = false;

	for (int i = 0; i < w->lane_count; i++) {
		w->syncing_to[i] = atomic_load(&w->lanes[i].written);
		news = news || w->syncing_to[i] != atomic_load(&w->lanes[i].synced);
	}
	if (news)
		sync_store(w);
	for (int i = 0; i < w->lane_count && news; i++) {
		if (w->syncing_to[i] == atomic_load(&w->lanes[i].synced))
			continue;
		atomic_store(&w->lanes[i].synced, w->syncing_to[i]);
		tell_synced(&w->lanes[i]);
	}
}

/* The syncer thread. What was written before the sync began is synced after it; a write that ends
 * meanwhile has kicked again. While the writer syncs itself there is nothing that it leaves. */
static void syncer_run(void *arg)
{
	struct writer *w = arg;

	if (atomic_exchange(&w->syncing, true))
		return;
	sync_lanes(w);
	atomic_store(&w->syncing, false);
}

/* Of little that was written. */
static void sync_written(struct writer *w)
{
	if (atomic_load(&w->stack) != NULL || atomic_exchange(&w->syncing, true)) {
		pulse_kick(w->sync_pulse);
		return;
	}
	sync_lanes(w);
	atomic_store(&w->syncing, false);
}

/* The writer thread. */
static void writer_run(void *arg)
{
	struct writer *w = arg;
	struct set *stack = atomic_exchange(&w->stack, NULL), *next, *first = NULL;
	bool any = stack != NULL;
	size_t bytes = 0; /* to be synced */

	for (; stack != NULL; stack = next) {
		next = stack->next;
		stack->next = first;
		first = stack;
	}
	for (int urgent = 1; urgent >= 0; urgent--) {
		for (struct set **at = &first; *at != NULL;) {
			struct set *s = *at;

			if (s->urgent != (urgent == 1)) {
				at = &s->next;
				continue;
			}
			*at = s->next;
			bytes += store_batch_bytes(s->batch);
			write_set(w, s);
			if (bytes > SYNC_HERE_BYTES_MAX)
				pulse_kick(w->sync_pulse);
		}
	}
	if (any && bytes <= SYNC_HERE_BYTES_MAX)
		sync_written(w);
}

static void on_synced(struct loop_msg *m)
{
	struct lane *l = list_entry(m, struct lane, synced_msg);
	uint64_t synced;

	atomic_store(&l->synced_posted, false);
	synced = atomic_load(&l->synced);
	while (!list_empty(&l->waiting)) {
		struct durable *d = list_entry(l->waiting.next, struct durable, node);

		if (d->at > synced)
			break;
		list_remove(&d->node);
		d->done(d);
	}
}

/* on_written runs once the set is home, in a later call. */
static void ask_written(struct lane *l)
{
	if (l->asked)
		return;
	l->asked = true;
	atomic_store(&l->written_wanted, true);
	/* Written before it could see that: nobody posts then. */
	if (atomic_load(&l->written) == l->sent && atomic_exchange(&l->written_wanted, false))
		loop_post(l->loop, &l->written_msg);
}

static void submit(struct loop_hook *h)
{
	struct lane *l = list_entry(h, struct lane, submit);
	struct set *s = &l->sets[l->gathering];

	if (l->put == l->sent)
		return;
	if (lane_busy(l)) {
		ask_written(l); /* on_written comes back here */
		return;
	}
	s->end = l->put;
	s->urgent = l->urgent;
	l->urgent = false;
	l->sent = l->put;
	l->busy = true;
	l->gathering ^= 1;
	s->next = atomic_load(&l->writer->stack);
	while (!atomic_compare_exchange_weak(&l->writer->stack, &s->next, s))
		;
	pulse_kick(l->writer->write_pulse);
}

static void on_written(struct loop_msg *m)
{
	struct lane *l = list_entry(m, struct lane, written_msg);
	struct list *n;

	l->asked = false;
	if (atomic_load(&l->written) != l->sent) { /* it told of the set before */
		ask_written(l);
		return;
	}
	l->busy = false;
	while ((n = list_pop(&l->idlers)) != NULL)
		loop_hook_want(l->loop, STAGE_PROPOSE, list_entry(n, struct loop_hook, node));
	if (l->put != l->sent)
		loop_hook_want(l->loop, STAGE_WRITE, &l->submit);
}

static void lane_init(struct lane *l, struct writer *w, struct loop *loop)
{
	l->writer = w;
	l->loop = loop;
	loop_hook_init(&l->submit, submit);
	list_init(&l->waiting);
	list_init(&l->idlers);
	l->synced_msg.run = on_synced;
	l->written_msg.run = on_written;
	for (int i = 0; i < 2; i++) {
		l->sets[i].lane = l;
		l->sets[i].batch = store_batch_new(w->store);
		l->sets[i].unlogged = store_batch_new(w->store);
	}
}

struct writer *writer_new(struct store *s, struct loops *loops)
{
	int count = loops_count(loops);
	struct writer *w = mem_new(sizeof *w + (size_t)count * sizeof w->lanes[0]);

	w->store = s;
	w->lane_count = count;
	w->syncing_to = mem_new((size_t)count * sizeof *w->syncing_to);
	w->write_cells = storage_cells_new();
	w->sync_cells = storage_cells_new();
	atomic_store(&w->logged_sequence, store_sequence(s));
	atomic_store(&w->synced_sequence, store_sequence(s));
	for (int i = 0; i < count; i++)
		lane_init(&w->lanes[i], w, loops_at(loops, i));
	w->sync_pulse = pulse_new("syncer", syncer_run, w, 0);
	w->write_pulse = pulse_new("writer", writer_run, w, 0);
	return w;
}

void writer_stop(struct writer *w)
{
	if (w->stopped)
		return;
	w->stopped = true;
	pulse_free(w->write_pulse);
	/* The loops stand: what still gathers is written here, behind what they sent. */
	for (int i = 0; i < w->lane_count; i++) {
		struct lane *l = &w->lanes[i];

		if (l->put != l->sent)
			write_batches(w, &l->sets[l->gathering]);
		atomic_store(&l->written, l->put);
		l->sent = l->put;
		loop_hook_cancel(&l->submit);
	}
	pulse_kick(w->sync_pulse);
	pulse_free(w->sync_pulse);
}

void writer_free(struct writer *w)
{
	bool posted = false;

	if (w == NULL)
		return;
	for (int i = 0; !w->stopped && i < w->lane_count; i++)
		posted = posted || w->lanes[i].asked || atomic_load(&w->lanes[i].synced_posted);
	if (!w->stopped) {
		writer_stop(w);
		for (int i = 0; i < w->lane_count; i++)
			posted = posted || atomic_load(&w->lanes[i].synced_posted);
	}
	for (int i = 0; i < 2 * w->lane_count; i++) {
		store_batch_free(w->lanes[i / 2].sets[i % 2].batch);
		store_batch_free(w->lanes[i / 2].sets[i % 2].unlogged);
	}
	if (posted)
		return;
	mem_free(w->syncing_to);
	mem_free(w);
}

struct lane *writer_lane(struct writer *w, const struct loop *l)
{
	must(loop_index(l) < w->lane_count);
	return &w->lanes[loop_index(l)];
}

/* Every put moves the position, by what it costs. */
static struct set *gather(struct lane *l, size_t bytes)
{
	loop_must_own(l->loop);
	l->put += bytes + 1;
	loop_hook_want(l->loop, STAGE_WRITE, &l->submit);
	return &l->sets[l->gathering];
}

void lane_put(struct lane *l, enum store_family f, struct bytes key, const struct bytes *parts,
	int part_count)
{
	size_t bytes = key.len;

	for (int i = 0; i < part_count; i++)
		bytes += parts[i].len;
	if (f == FAMILY_META && key.len == META_KEY_BYTES && key.at[8] == META_TERM_VOTE)
		l->urgent = true;
	store_put(gather(l, bytes)->batch, f, key, parts, part_count);
}

void lane_put_unlogged(
	struct lane *l, enum store_family f, struct bytes key, const struct bytes *value)
{
	store_put(gather(l, key.len + value->len)->unlogged, f, key, value, 1);
}

void lane_delete(struct lane *l, enum store_family f, struct bytes key)
{
	store_delete(gather(l, key.len)->batch, f, key);
}

void lane_delete_range(struct lane *l, enum store_family f, struct bytes from, struct bytes to)
{
	store_delete_range(gather(l, from.len + to.len)->batch, f, from, to);
}

void lane_when_durable(struct lane *l, struct durable *d)
{
	loop_must_own(l->loop);
	d->at = l->put;
	list_push_back(&l->waiting, &d->node);
	if (d->at <= atomic_load(&l->synced))
		tell_synced(l);
}

void durable_cancel(struct durable *d)
{
	if (d->node.next != NULL)
		list_remove(&d->node);
}

bool lane_busy(const struct lane *l)
{
	return l->busy && (l->asked || atomic_load(&l->written) != l->sent);
}

void lane_when_idle(struct lane *l, struct loop_hook *h)
{
	loop_must_own(l->loop);
	if (!lane_busy(l)) {
		loop_hook_want(l->loop, STAGE_PROPOSE, h);
		return;
	}
	ask_written(l);
	if (list_empty(&h->node))
		list_push_back(&l->idlers, &h->node);
}

size_t lane_pending_bytes(const struct lane *l)
{
	return (size_t)(l->put - atomic_load(&l->synced));
}

int64_t writer_stalled_ms(const struct writer *w)
{
	int64_t since[2] = {atomic_load(&w->write_since_us), atomic_load(&w->sync_since_us)};
	int64_t now = clock_us(), worst = 0;

	for (int i = 0; i < 2; i++) {
		if (since[i] != 0 && now - since[i] > worst)
			worst = now - since[i];
	}
	return worst / 1000;
}

uint64_t writer_synced_sequence(const struct writer *w)
{
	return atomic_load(&w->synced_sequence);
}
