/* The insides of a node, shared by node.c (boot, end, what others ask), node_change.c
 * (changes of the catalogue), node_model.c (rows to a model), node_meta.c (from the model to groups
 * and catalogues in force), found.c (founding and joining), controller.c (who should have what) and
 * node_status.c. But where said, it is all the meta group's home loop's. */
#ifndef CLUSTER_NODE_PRIV_H
#define CLUSTER_NODE_PRIV_H
#include <stdatomic.h>
#include "cluster/catalog.h"
#include "cluster/catchup.h"
#include "cluster/meta.h"
#include "cluster/node_metrics.h"
#include "cluster/partition_own.h"
#include "cluster/peer.h"
#include "server/base/mem.h"
#include "storage/identity.h"

enum { WHY_LINES = 8, VOTES_MAX = 16 };

struct node_loop { /* one per loop, that loop's */
	struct node *node;
	struct loop *loop;
	struct partition_home *home;
	struct map partitions;         /* group -> struct partition: for peers' frames */
	const struct catalog *catalog; /* in force */
	const struct catalog *old;     /* good until the turn ends */
	struct loop_hook release_hook;
	struct list watchers;
	bool ended;                  /* closed: nothing is in the catalogue any more */
	struct loop_msg install_msg; /* under way to it: node.next is to be put in force */
	struct loop_msg end_msg;
};

struct group { /* of the catalogue; with or without a replica here */
	uint64_t id;
	struct partition *partition; /* share */
	struct node *node;
	struct loop_msg msg;
	int disk;
	enum store_family family;
	uint64_t replica; /* that is here; 0: none */
	uint64_t asked;   /* being attached */
	uint64_t founders[META_MEMBERS_MAX];
	int founder_count;
	bool stored;  /* found at boot, not opened: nothing names it yet */
	bool wanted;  /* by the catalogue, as of the round */
	bool ready;   /* there, on its loop */
	bool busy;    /* a message or what it started is under way */
	bool leaving; /* its replica is named no more: its leader is asked whether it may go */
	bool told;    /* who its members are to be, as the model has it */
	enum err err; /* of opening */
};

struct model_stream { /* a stream's row, and what catalogues get of it */
	struct meta_stream *row;
	struct stream *shared; /* NULL: to be made anew */
};

enum settled { SETTLED_UNKNOWN, SETTLED_NO, SETTLED_YES };
struct model_place {
	struct meta_place row;
	enum settled settled; /* the leader has made it so; the controller's */
	bool asked;
	int64_t asked_ms;
	int present;   /* voters in sync, as last told */
	int64_t bytes; /* of its log, as last told */
	/* Who voted when its leader was last asked, the first of them; -1: not since the row was
	 * changed. */
	int vote_count;
	uint64_t votes[VOTES_MAX];
};

struct model_node {
	struct meta_node *row;
	/* As seen from here: */
	bool up;          /* connected, with the very instance of the row */
	int64_t since_ms; /* of up or down */
};

struct grave { /* a partition that is gone; others may still have messages on their way to it */
	struct list node;
	struct partition *partition;
	int64_t at_ms;
};

struct found;
struct controller;

struct node {
	struct node_conf conf;
	struct loops *loops;
	struct workers *workers;
	struct storage *storage;
	struct node_loop *each;
	const struct catalog *empty; /* in force before the first and after the last */
	struct loop *home;           /* of the meta group */
	struct partition *meta;
	uint64_t meta_replica; /* that is here; 0: none yet */
	struct watcher watcher;
	struct meta_view view;
	struct identity identity;
	struct job identity_job;
	enum err identity_err;
	bool identity_busy;
	void (*identity_written)(struct node *n, enum err e);
	struct peers *peers; /* NULL: none ever */
	struct catchups *catchups;
	struct peer_watcher peer_watcher;
	struct partition_finder finder;
	char cluster_id[23];
	char host[65]; /* the name where none is set */
	int door_count;
	struct stream_setting doors[META_DOORS_MAX]; /* as advertised */
	int64_t started_ms;
	int64_t twice_since_ms, twice_ms; /* refused as another process with the same data */
	_Atomic bool ready, closed, alone, failed;
	char why[WHY_LINES][160]; /* not ready, or failed; the newest is [why_at] */
	_Atomic uint32_t why_at;

	/* the model: rows as applied */
	bool founded;
	struct meta_cluster cluster;
	struct map streams;  /* name -> model_stream */
	struct map settings; /* key -> struct stream_setting */
	struct map nodes;    /* id -> model_node */
	struct map places;   /* group -> model_place */
	struct docs *docs;   /* NULL: never any */
	struct meta_docs docs_row;
	int64_t balance_ms;   /* asked for since; 0: not */
	uint64_t seen_index;  /* of the entry last seen */
	uint64_t model_index; /* of the entry last applied to it */
	uint64_t version;     /* of the last catalogue built */
	bool nodes_changed;   /* not told to the peers yet */
	bool current; /* has been as new as the leader's since the start, or since it was doubted */
	bool doubted; /* the list of nodes, as there has been no leader for long */
	int64_t led_ms;   /* when there was one */
	bool unnamed_due; /* what nothing names goes, once a round has seen all of that */
	struct partition_point point;
	bool pointing;
	struct proposal founding, telling;
	struct slice founding_args, telling_args;
	bool founding_busy, telling_busy;
	int64_t telling_ms;

	/* groups and the round that brings them in line with the model */
	struct map groups; /* id -> struct group */
	bool dirty, running, closing, ending;
	uint32_t catalog_tables; /* in the newest catalogue */
	uint64_t round_index, force_index;
	int pending;    /* answers the round waits for */
	int end_round;  /* of the loops, which end */
	int busy_count; /* groups that are busy beside the round */
	int leaving_asked;
	const struct catalog *next;
	struct list waiting; /* meta_op, by proposal.node */
	struct list graves;
	struct loop_timer timer;
	int64_t retry_ms; /* of groups that leave */

	struct found *found;
	struct controller *controller;
	_Atomic int aside; /* of node_step_aside: 1 asked, 2 done */
	int64_t aside_ms;  /* when the groups were last told */
	int64_t (*connections)(void *arg);
	void *connections_arg;
};

/* node_model.c */
void model_row(struct node *n, enum row_op op, struct bytes key, struct bytes value);
void model_forget(struct node *n); /* all rows: they are read anew */
void model_free(struct node *n);
void model_gather_node(struct node *n, struct meta_node *out); /* what this node says of itself;
								   borrowed texts */
void model_placement(void *node, struct placement *out);
enum meta_alive model_alive(void *node, uint32_t id);
/* Groups that count on the node still, or may, whatever their rows say. */
int model_held(void *node, uint32_t id);
bool model_votes(void *node, uint64_t group, uint32_t id);
int64_t model_count(void *node, const struct meta_limit *l);
/* How long the node has not answered; 0: it does, or is not known. */
int64_t model_silent_ms(const struct node *n, uint32_t id);
bool model_lost(const struct node *n, uint64_t replica); /* went with the data of its node */
int model_wanted(const struct node *n, const struct meta_stream *row); /* NULL: of a table */
void model_place_groups(struct node *n, bool (*each)(void *arg, struct model_place *p, int wanted),
	void *arg);             /* all but the catalogue's; until it returns false */
enum { MODEL_PEERS_MAX = 512 }; /* told to the peers, those that were removed included */
void model_set_peers(struct node *n);
/* The nodes of the catalogue here that are not among the first count of out, which has room for
 * MODEL_PEERS_MAX, behind these; all borrowed. Gives how many there are then. */
int model_add_peers(const struct node *n, struct peer_node *out, int count);
void model_doubt_peers(struct node *n, int64_t now_ms);

/* node_meta.c */
void node_on_committed(struct watcher *w, struct entry *e);
void node_on_led(struct watcher *w, bool leads);
void node_on_replaced(struct watcher *w);
void node_round(struct node *n); /* does what is to be done, unless a round is under way */
struct catalog *node_build_catalog(struct node *n);
struct group *node_group_new(struct node *n, uint64_t id, int disk, enum store_family family);
void node_want_groups(struct node *n); /* marks those the model wants; missing ones are made */
void node_want_replica(struct node *n, struct group *g); /* sets asked and founders */
void node_note_cluster(struct node *n);
void node_tick_groups(struct node *n, int64_t now_ms);
/* The catalogue's replica comes to be here: as founder of the cluster, or to follow. */
void node_attach_meta(struct node *n, uint64_t replica, bool founds);
void node_delete_unnamed(struct node *n); /* what the store has and the catalogue does not */
struct partition_options node_partition_options(struct node *n, const struct group *g);

/* node_change.c */
void op_tell(struct meta_op *op); /* to its loop */
void ops_tick(struct node *n, int64_t now_ms);

/* node.c */
void node_install(struct node_loop *l, const struct catalog *c); /* takes the share */
void node_bury(struct node *n, struct partition *p);
void node_end_if_idle(struct node *n);
/* A line another node wrote for people, without what is not plain text; ours to print. */
struct node_words {
	char text[160];
};
struct node_words node_line(struct bytes b);
void node_say_why(struct node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));
void node_fail(struct node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));
void node_write_identity(struct node *n, void (*done)(struct node *n, enum err e));

/* found.c */
struct found *found_new(struct node *n);
void found_start(struct found *f); /* loops run */
void found_stop(struct found *f);  /* begins no more; found_idle when nothing is under way */
bool found_idle(const struct found *f);
void found_attached(struct found *f, enum err e); /* the catalogue's replica is here */
void found_free(struct found *f);
void found_tick(struct found *f, int64_t now_ms);
void found_cluster(struct node *n); /* it leads the catalogue, and there is no cluster yet */
void found_serve(struct node *n);   /* answers those that want to join; boot */

/* controller.c */
struct controller *controller_new(struct node *n);
void controller_free(struct controller *c);
void controller_tick(struct controller *c, int64_t now_ms);
bool controller_idle(const struct controller *c);
int controller_balance_count(void *node);
void controller_peer_changed(struct node *n, uint32_t id, bool up);
/* Node by refuses this one, whose data it does not know. */
void controller_other_data(struct controller *c, uint32_t by);

/* node_status.c */
void node_status_serve(struct node *n);
void node_aside_tick(struct node *n);

#endif
