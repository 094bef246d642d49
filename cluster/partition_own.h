/* What the owner of partitions does with them: the homes they live in (one per loop), opening,
 * closing, settings. The node's; everyone else has partition.h. */
#ifndef CLUSTER_PARTITION_OWN_H
#define CLUSTER_PARTITION_OWN_H
#include "cluster/partition.h"
#include "cluster/rows.h"
#include "storage/compact.h"

struct catchups;
struct partition_home; /* what the partitions of one loop share; that loop's */

struct partition_limits {
	size_t rows_bytes_max;     /* per loop: rows in memory that are in the store, too */
	size_t inflight_bytes_max; /* per partition: proposed and not answered */
};
struct partition_home *partition_home_new(struct loop *l, const struct partition_limits *limits);
/* Without partitions, on the home loop or when loops stand. */
void partition_home_free(struct partition_home *h);
/* Timers of all its partitions start; on the home loop. */
void partition_home_start(struct partition_home *h);
void partition_home_stop(struct partition_home *h);

struct partition_options {
	const struct plog_env *env; /* of the home's loop; borrowed for good */
	uint64_t group, replica;    /* replica 0: none here (partition_attach may make one) */
	enum store_family log_family;
	bool vital; /* small, and needed to get out of a full disk: never refused for its space */
	struct peers *peers;       /* NULL: a node that will never have any (tests) */
	struct catchups *catchups; /* NULL: a replica that is too far behind stays so */
	void *owner;               /* for evaluations: see eval_partition */
	/* The replicas that start the group, the same list on each; NULL: this one is added to a
	 * group that exists and starts empty. Borrowed for the call that opens or creates. */
	const uint64_t *founders;
	int founder_count;
};

/* Handlers of frames and calls (remote.c); boot. find runs on the group's home loop; NULL: there is
 * no such group here. f outlives peers. */
struct partition_finder {
	struct partition *(*find)(void *arg, uint64_t group);
	void *arg;
};
void partitions_serve(struct peers *peers, const struct partition_finder *f);
/* The same for replicas elsewhere that fetch log and rows from here (catchup.h). */
void partitions_serve_catchup(struct catchups *all, struct partition_finder *f);
/* The home's own: whom its loop is connected with, and told who leads. Before loops run, before
 * partitions; partition_home_stop ends it (so homes stop before peers_free). */
void partition_home_connect(struct partition_home *h, struct peers *peers);

/* One share, the owner's. Memory goes with the last share, after partition_close is done. */
struct partition *partition_new(struct partition_home *h, const struct partition_options *o);
struct partition *partition_ref(struct partition *p);
void partition_unref(struct partition *p); /* any thread */

/* Whatever makes a group in the store writes its replica id as the info of plog_create (8 bytes,
 * big endian): at the next start the owner learns from it which replica's data it is. */
/* Opens what is in the store; an empty log starts as founders say (without peers: of this replica
 * alone). Without a replica nothing is opened. Boot: may block. */
enum err partition_open(struct partition *p) MUST_USE;
/* Founds it while loops run: on the home loop. done runs there, later. */
void partition_create(struct partition *p, void (*done)(void *arg, enum err e), void *arg);
/* Ends everything: with ERR_CLOSED what is under way; rows are written back, or, with destroy, all
 * of the group is deleted. done runs from the home loop. */
void partition_close(struct partition *p, bool destroy, void (*done)(void *arg), void *arg);

/* A replica comes to be here (options as for partition_new, same group) or goes with all its data,
 * while the partition itself stays. On the home loop; done there, later; one at a time, and
 * partition_close only after it. ERR_IO, ERR_CORRUPT: it stays without a replica. */
void partition_attach(struct partition *p, const struct partition_options *o,
	void (*done)(void *arg, enum err e), void *arg);
void partition_detach(struct partition *p, void (*done)(void *arg), void *arg);

/* Who the group's replicas are to be, by the catalogue: its leader takes the steps (membership.h).
 * members[0] is who had best lead. On the home loop; copies. */
struct partition_wanted {
	const uint64_t *voters;
	int voter_count;
	const uint64_t *learners; /* follow the log without a vote */
	int learner_count;
};
void partition_want_members(struct partition *p, const struct partition_wanted *w);
/* Hands leadership away (to the given node, or with 0 to the best one): before a node ends. */
void partition_step_aside(struct partition *p, uint32_t to);

/* -1: not limited. */
void partition_set_retention(struct partition *p, int64_t ms, int64_t bytes);
/* NULL: the log is not compacted. */
void partition_set_compaction(struct partition *p, const struct compact_policy *policy);

#endif
