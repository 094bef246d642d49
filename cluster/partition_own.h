/* What the owner of partitions does with them: the homes they live in (one per loop), opening,
 * closing, settings. The node's; everyone else has partition.h. */
#ifndef CLUSTER_PARTITION_OWN_H
#define CLUSTER_PARTITION_OWN_H
#include "cluster/partition.h"
#include "cluster/rows.h"

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
	uint64_t group, replica;
	enum store_family log_family;
	bool vital; /* small, and needed to get out of a full disk: never refused for its space */
};
/* One share, the owner's. Memory goes with the last share, after partition_close is done. */
struct partition *partition_new(struct partition_home *h, const struct partition_options *o);
struct partition *partition_ref(struct partition *p);
void partition_unref(struct partition *p); /* any thread */

/* Opens what is in the store, or founds an empty group of this replica alone. Boot: may block. */
enum err partition_open(struct partition *p) MUST_USE;
/* Founds it while loops run: on the home loop. done runs there, later. */
void partition_create(struct partition *p, void (*done)(void *arg, enum err e), void *arg);
/* Ends everything: with ERR_CLOSED what is under way; rows are written back, or, with destroy, all
 * of the group is deleted. done runs from the home loop. */
void partition_close(struct partition *p, bool destroy, void (*done)(void *arg), void *arg);

/* -1: not limited. */
void partition_set_retention(struct partition *p, int64_t ms, int64_t bytes);

#endif
