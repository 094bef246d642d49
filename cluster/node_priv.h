/* The insides of a node, shared by node.c (boot, end, what others ask) and node_meta.c (from the
 * catalogue's rows to groups and catalogues in force). But where said, it is all the meta group's
 * home loop's. */
#ifndef CLUSTER_NODE_PRIV_H
#define CLUSTER_NODE_PRIV_H
#include <stdatomic.h>
#include "cluster/catalog.h"
#include "cluster/meta.h"
#include "cluster/partition_own.h"
#include "server/base/mem.h"

struct node_loop { /* one per loop, that loop's */
	struct node *node;
	struct loop *loop;
	struct partition_home *home;
	const struct catalog *catalog; /* in force */
	const struct catalog *old;     /* good until the turn ends */
	struct loop_hook release_hook;
	struct list watchers;
	struct loop_msg install_msg; /* under way to it: node.next is to be put in force */
	struct loop_msg end_msg;
};

struct group { /* a replica on this node */
	uint64_t id;
	struct partition *partition; /* share */
	struct node *node;
	struct loop_msg msg;
	bool wanted;  /* by the catalogue, as of the round */
	bool ready;   /* open */
	enum err err; /* of opening */
};

struct model_stream { /* a stream's row, and what catalogues get of it */
	struct meta_stream *row;
	struct stream *shared; /* NULL: to be made anew */
};

struct grave { /* a partition that is gone; others may still have messages on their way to it */
	struct list node;
	struct partition *partition;
	int64_t at_ms;
};

struct node {
	struct node_conf conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node_loop *each;
	struct loop *home; /* of the meta group */
	struct partition *meta;
	struct watcher watcher;
	struct meta_view view;
	char cluster_id[23];
	char host[65]; /* the name where none is set */
	_Atomic bool ready, closed;

	/* the model: rows as applied */
	bool founded;
	struct meta_cluster cluster;
	struct map streams;   /* name -> model_stream */
	struct map settings;  /* key -> struct stream_setting */
	uint64_t model_index; /* of the entry last applied to it */
	uint64_t version;     /* of the last catalogue built */
	struct meta_founding founding;

	/* groups and the round that brings them in line with the model */
	struct map groups; /* id -> struct group */
	bool dirty, running, closing;
	uint64_t round_index, force_index;
	int pending; /* answers the round waits for */
	const struct catalog *next;
	struct list waiting; /* meta_op, by proposal.node */
	struct list graves;
	struct loop_timer timer;
};

/* node_meta.c */
void model_row(struct node *n, enum row_op op, struct bytes key, struct bytes value);
void model_free(struct node *n);
void node_on_committed(struct watcher *w, struct entry *e);
void node_on_led(struct watcher *w, bool leads);
void node_round(struct node *n); /* does what is to be done, unless a round is under way */
struct catalog *node_build_catalog(struct node *n);
struct group *node_group_new(struct node *n, uint64_t id, int disk, enum store_family family);
void node_want_groups(struct node *n); /* marks those the model wants; missing ones are made */

/* node.c */
void node_install(struct node_loop *l, const struct catalog *c); /* takes the share */
void node_bury(struct node *n, struct partition *p);
void node_end_if_idle(struct node *n);

#endif
