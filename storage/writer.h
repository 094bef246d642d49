/* Writing. Each loop gathers a turn's puts in its lane (one per loop and store); at STAGE_WRITE
 * the lane's write set leaves for the writer thread, unless the set before is still being
 * written: then it goes on growing until that is done, so load makes sets larger, not later.
 * The writer writes sets unsynced, the high lane's first; the syncer syncs back to back, and each
 * sync completes every set whose write ended before it began. A failed write or sync stops the
 * process (crash-only). Nobody else writes to the store. */
#ifndef STORAGE_WRITER_H
#define STORAGE_WRITER_H
#include "server/base/loop.h"
#include "storage/store.h"

struct writer;
struct lane;

/* Starts writer and syncer thread over s, and a lane for each loop. */
struct writer *writer_new(struct store *s, struct loops *loops);
/* Ends both threads after what was submitted is written and synced. Loops must stand. */
void writer_free(struct writer *w);
/* The same without freeing, for a clean end: loops_stop, writer_stop, loops_free, writer_free.
 * Loops that ended hold messages of the lanes they never ran, and look at them in loops_free;
 * writer_free before it leaves the lanes' memory to the process's end if there are any. */
void writer_stop(struct writer *w);
struct lane *writer_lane(struct writer *w, const struct loop *l);

/* Into the set being gathered; the calling loop's own lane. */
void lane_put(struct lane *l, enum store_family f, struct bytes key, const struct bytes *parts,
	int part_count);
void lane_delete(struct lane *l, enum store_family f, struct bytes key);
void lane_delete_range(struct lane *l, enum store_family f, struct bytes from, struct bytes to);

/* The same past the store's log of writes (store_write_unlogged), before all else of the set: what
 * it must come after has to be durable. lane_when_durable waits until it is written, durable it is
 * only by a store_flush that begins then. */
void lane_put_unlogged(
	struct lane *l, enum store_family f, struct bytes key, const struct bytes *value);

struct durable { /* embed; done runs on the lane's loop, in order of asking, never inside the call
		  */
	struct list node;
	void (*done)(struct durable *d);
	uint64_t at; /* private: the lane's position that must be synced */
};
/* Nobody is told: for who goes away while waiting. Not waiting is fine if d was zeroed. */
void durable_cancel(struct durable *d);
/* done runs once all that was put into the lane so far is synced. */
void lane_when_durable(struct lane *l, struct durable *d);
/* Whether a set of this lane is being written: proposals that can wait should. */
bool lane_busy(const struct lane *l);
/* h is wanted at STAGE_PROPOSE when the lane stops being busy. */
void lane_when_idle(struct lane *l, struct loop_hook *h);
/* Bytes put and not yet synced, for back-pressure. */
size_t lane_pending_bytes(const struct lane *l);

/* A write or sync under way for longer than this many ms, 0 if none is. Any thread. */
int64_t writer_stalled_ms(const struct writer *w);

/* The store's sequence number of the last logged write that is synced: a crash leaves no lower one.
 * Any thread. */
uint64_t writer_synced_sequence(const struct writer *w);

#endif
