/* The insides of catch-up, shared by catchup.c (fetching), catchup_serve.c (serving) and
 * catchup_budget.c (what both may use). But for the budgets all of it is the home loops'. */
#ifndef CLUSTER_CATCHUP_PRIV_H
#define CLUSTER_CATCHUP_PRIV_H
#include <stdatomic.h>
#include "cluster/catchup.h"
#include "cluster/catchup_wire.h"

enum {
	CATCHUP_CHUNK_BYTES = 256 << 10, /* of items in a chunk, but for one larger one */
	CATCHUP_WAIT_MS_MAX = 5000,      /* of one chunk, for the throttle */
	CATCHUP_CALL_MS = 20000,
	CATCHUP_SILENCE_MS = 30000 /* a session that is not asked ends */
};

enum catchup_metric {
	M_CATCHUP_BYTES_IN,
	M_CATCHUP_BYTES_OUT,
	M_CATCHUP_SESSIONS,
	M_CATCHUP_FETCHES,
	M_CATCHUP_FETCHED,
	M_CATCHUP_FAILED,
	M_CATCHUP_COUNT
};

/* A throttle: bytes may go at `rate` a second, whoever's they are. Any thread. */
struct catchup_bucket {
	_Atomic int64_t until_us; /* all that was taken has gone by then */
};
/* Takes bytes; gives how long to wait before they may go. -1: longer than CATCHUP_WAIT_MS_MAX,
 * nothing is taken. rate 0: no limit. */
int64_t catchup_bucket_take(struct catchup_bucket *b, int64_t now_us, int64_t bytes, int64_t rate);
/* What was taken turned out to be more or fewer bytes. */
void catchup_bucket_correct(struct catchup_bucket *b, int64_t bytes, int64_t rate);

/* Bytes of memory held, at most max, or one thing that is larger. Any thread. */
struct catchup_memory {
	_Atomic int64_t held;
};
bool catchup_hold(struct catchup_memory *m, int64_t bytes, int64_t max);
void catchup_let_go(struct catchup_memory *m, int64_t bytes);

struct catchup_way { /* in, out */
	struct catchup_bucket bucket;
	struct catchup_memory memory;
};

struct catchup_loop { /* one per loop, that loop's */
	struct catchups *all;
	struct loop *loop;
	struct list sessions, fetches;
	int session_count, fetch_count;
};

struct catchups {
	const struct catchup_settings *settings;
	struct peers *peers;
	struct loops *loops;
	const struct catchup_source *(*find)(void *arg, uint64_t group);
	void *find_arg;
	struct catchup_way in, out;
	struct catchup_loop each[];
};

static inline struct catchup_loop *catchup_here(struct catchups *all, const struct loop *l)
{
	return &all->each[loop_index(l)];
}

/* Loops stand: what is left of them. */
void catchup_sessions_drop(struct catchup_loop *at);
void catchup_fetches_drop(struct catchup_loop *at);

#endif
