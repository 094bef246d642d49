/* Fetching a group from another node when Raft does not go back far enough: what its log lacks, and
 * the rows, from one store snapshot, by key, in chunks. One side serves (the leader's node), the
 * other stages. What is staged is not the group's until the last small write says so; a crash
 * before starts it anew or goes on. Both under a throttle of the node (catchup.rate) and a budget
 * of memory; never in the way of consensus (bulk lane). Thread: the group's home loop; reading the
 * store is a worker's. */
#ifndef CLUSTER_CATCHUP_H
#define CLUSTER_CATCHUP_H
#include "cluster/consensus.h"
#include "cluster/peer.h"
#include "server/base/conf.h"

struct catchup_settings {     /* catchup.rate, catchup.memory */
	int64_t rate_bytes;   /* a second, per node, each way */
	int64_t memory_bytes; /* chunks under way, per node */
	/* A log of which so much is to be fetched is written past the store's log of writes, and
	 * flushed at the end; 0: 8 MiB. No key: tests set it. */
	int64_t unlogged_bytes_min;
};
extern const struct conf_row catchup_rows[];
extern struct metric_table catchup_metrics;
struct catchups; /* of a process */
/* Boot. s is borrowed for good. Free: when loops stand and peers have stopped. */
struct catchups *catchups_new(
	const struct catchup_settings *s, struct peers *peers, struct loops *loops);
void catchups_free(struct catchups *all);

/* The serving side: what the partition supplies. */
struct catchup_source {
	struct plog *log;
	struct consensus *consensus;
	const struct plog_env *env;
	/* Writes rows and applied mark back, then tells: the store is the state after one entry. */
	void (*write_back)(void *arg);
	void *arg;
};
/* find: on the home loop of the group; NULL: not served here (ERR_NOTLEADER is answered). */
void catchups_serve(struct catchups *all,
	const struct catchup_source *(*find)(void *arg, uint64_t group), void *arg);
/* The group is not led from here any more, or its source is about to go: ends its sessions and
 * unpins. What find gave is good until then. On the group's home loop. */
void catchups_end(struct catchups *all, uint64_t group, const struct loop *home);
/* How far the node has come that fetches the group from here; false: it does not. On the group's
 * home loop. */
struct catchup_view {
	uint64_t entries, entries_total; /* of the log; the rows come after them */
	int64_t bytes;                   /* of both, given until now */
};
bool catchups_given(struct catchups *all, uint64_t group, uint32_t node, const struct loop *home,
	struct catchup_view *out);

/* The fetching side. */
struct catchup;
struct catchup_fetch {
	uint64_t group;
	uint32_t from;      /* node */
	uint64_t index_min; /* the snapshot must reach this entry */
	uint64_t held;      /* the log's entries up to here are committed ones: they stay */
	const struct plog_env *env;
	struct plog *log; /* left with what it holds at the start (and term and vote), filled, its
			     marks set at the end */
	/* The old state goes now: rows in memory must not be read any more. May be NULL. Runs again
	 * whenever fetching begins anew. */
	void (*emptied)(void *arg);
	/* OK: all is durable, marks and configuration, too, and log is as after a reopen. Else the
	 * old state is untouched, or, where plog_marks(log)->seeding, gone: all that may be done
	 * with the group then is to fetch again, from this node or another (ERR_NOTLEADER: another
	 * one); what was fetched of the log is not fetched twice. On the home loop, never inside
	 * catchup_start. */
	void (*done)(void *arg, enum err e);
	void *arg;
};
struct catchup *catchup_start(struct catchups *all, const struct catchup_fetch *f);
void catchup_cancel(struct catchup *c); /* done will not run */

#endif
