/* A node: its groups (catalogue, tables, stream partitions), and the catalogue all loops read.
 * Boot (main thread): node_open before loops_run; the end: node_close after the doors are closed
 * and while loops still run. */
#ifndef CLUSTER_NODE_H
#define CLUSTER_NODE_H
#include "cluster/partition.h"
#include "server/base/conf.h"
#include "server/base/map.h"
#include "storage/compact.h"

struct catchup_settings;
struct peer_settings;
struct storage;
struct node;

struct node_conf { /* filled by node_rows: node.*, cluster.*, stream.*, retention.* */
	int64_t id;
	const char *name, *rack, *cluster_name, *seeds;
	int64_t stream_partitions, stream_replicas;
	int64_t retention_ms, retention_bytes;
	int64_t tables;
	int64_t inflight_bytes_max; /* partition.inflight: per partition, proposed and not answered
				     */
	int64_t rows_bytes_max;     /* partition.rows: over all loops, rows kept in memory */
	int64_t moves;              /* cluster.moves: groups of a node that move at a time */
	int64_t replace_after_ms;   /* cluster.replace_after: nodes silent for so long; 0: never */
	/* Set by who boots, not by rows: */
	const char *version;               /* of this server; NULL: "" */
	const char *peer_address;          /* where other nodes reach this one; NULL: nowhere */
	const struct peer_settings *peers; /* NULL: never any peers (tests) */
	const struct catchup_settings *catchup; /* NULL: replicas too far behind stay so (tests) */
};
extern const struct conf_row node_rows[];
extern struct metric_table node_metrics;

enum err node_open(const struct node_conf *conf, struct loops *loops, struct workers *workers,
	struct storage *storage, struct node **out, char *why, size_t why_size) MUST_USE;
/* Every group has a leader that serves, the catalogue is in force on every loop. Any thread. */
bool node_ready(const struct node *n);
/* The loops run and the door "peer" is open: dials, finds its cluster. Without it a node that has
 * peers or seeds does not come to be ready. Main thread. */
struct net;
void node_start(struct node *n, struct net *net);
/* It can't become part of its cluster, and waiting does not help: one line. Any thread. */
bool node_failed(const struct node *n, char *why, size_t why_size);
/* Ends calls to peers, writes back rows, waits for it. Not from a loop. Then loops_stop, node_free.
 */
void node_close(struct node *n);
void node_free(struct node *n); /* NULL is fine */
const struct node_conf *node_conf(const struct node *n);
const char *node_cluster_id(
	const struct node *n); /* 22 characters of base64url, made at founding */

/* --- the catalogue: immutable, one snapshot in force per loop --- */
struct stream_setting {
	const char *key, *value;
}; /* as set; unset ones take the node's defaults */

struct stream {
	const char *name; /* of a tenant but the default one: TENANT/NAME */
	uint8_t uuid[16];
	bool internal; /* NAME starts with __ */
	int64_t created_ms;
	bool compacts, deletes;                /* cleanup.policy */
	struct compact_policy compaction;      /* if it compacts */
	int64_t retention_ms, retention_bytes; /* in force, if it deletes; -1: not limited */
	int64_t message_bytes_max;             /* 0: the node's */
	int setting_count;
	const struct stream_setting *settings;
	int partition_count;
	struct partition *const *partitions; /* on one node: every one is local */
};

enum node_state { NODE_ACTIVE, NODE_DRAINING, NODE_REMOVED };
struct cluster_node { /* as the catalogue has it */
	uint32_t id;
	enum node_state state;
	uint8_t instance[16];
	const char *name, *rack, *address; /* address: of the door "peer" */
	int64_t joined_ms;
	int door_count;
	const struct stream_setting *doors; /* "kafka" -> "host:port,...": as advertised */
};
struct group_place { /* where a group is to be */
	uint64_t group;
	int member_count, voter_count; /* members[0..voter_count) vote, the rest follow */
	const uint64_t *members;       /* replica ids, node << 32 | incarnation; [0] leads best */
};

struct catalog; /* see catalog_* ; good on a loop until the turn ends, or as long as held */
const struct catalog *node_catalog(const struct node *n, const struct loop *l);
const struct catalog *catalog_hold(const struct catalog *c);
void catalog_release(const struct catalog *c);
uint64_t catalog_version(const struct catalog *c);
const struct stream *catalog_stream(const struct catalog *c, struct bytes name); /* NULL: none */
const struct stream *catalog_stream_by_uuid(const struct catalog *c, const uint8_t uuid[16]);
int catalog_stream_count(const struct catalog *c);
const struct stream *catalog_stream_at(const struct catalog *c, int index); /* in order of name */
/* The table group that owns a key (client id, group id): hash over a fixed number of groups. */
struct partition *catalog_table(const struct catalog *c, struct bytes key);
int catalog_table_count(const struct catalog *c);
struct partition *catalog_table_at(const struct catalog *c, int index);
int catalog_node_count(const struct catalog *c);
const struct cluster_node *catalog_node_at(const struct catalog *c, int index); /* in order of id */
const struct cluster_node *catalog_node(const struct catalog *c, uint32_t id);  /* NULL: none */
const char *cluster_node_door(const struct cluster_node *n, const char *door);  /* "" if none */
const struct group_place *catalog_place(const struct catalog *c, uint64_t group); /* NULL: none */
struct partition *catalog_meta(const struct catalog *c);
/* Replicated settings that the upper layers interpret ("route.NAME", "config.KEY"). */
const char *catalog_setting(const struct catalog *c, const char *key); /* NULL: not set */
bool catalog_setting_next(const struct catalog *c, int *at, const char **key, const char **value);
int catalog_setting_seek(const struct catalog *c, const char *key); /* the first at or after key */

/* Documents: small replicated things that upper layers read and write as bytes ("who may do what").
 * Shared between catalogues as long as they do not change. In byte order of their keys. */
struct catalog_doc {
	struct bytes key, value;
};
int catalog_doc_count(const struct catalog *c);
const struct catalog_doc *catalog_doc_at(const struct catalog *c, int index);
const struct catalog_doc *catalog_doc(const struct catalog *c, struct bytes key); /* NULL: none */
int catalog_doc_seek(const struct catalog *c, struct bytes key); /* the first at or after key */
int catalog_doc_count_of(const struct catalog *c, struct bytes prefix); /* that begin so */
/* Moves whenever any document has changed. */
uint64_t catalog_docs_version(const struct catalog *c);
/* Every document that differs, in order: was NULL: it is new; is NULL: it is gone. false at the
 * end. Costs what has changed, not what there is. old may be NULL: then all are new. */
struct catalog_docs_walk { /* starts as zeros */
	int old_leaf, old_at, now_leaf, now_at;
};
bool catalog_docs_changed(const struct catalog *old, const struct catalog *now,
	struct catalog_docs_walk *at, const struct catalog_doc **was,
	const struct catalog_doc **is);
enum {
	CATALOG_DOC_KEY_MAX = 1024,
	CATALOG_DOC_BYTES_MAX = 16 * 1024, /* of a value */
	CATALOG_DOCS_BYTES_MAX = 64 << 20, /* of all, keys and values */
	CATALOG_DOCS_MAX = 1 << 19,
	/* Of one change: */
	CATALOG_CHANGE_DOCS_MAX = 4096,
	CATALOG_CHANGE_BYTES_MAX = 4 << 20 /* keys, values, conditions */
};

/* Called on each loop when a new catalogue comes into force there (and once at start). */
struct catalog_watcher {
	struct list node;
	struct loop *loop;
	void (*changed)(struct catalog_watcher *w, const struct catalog *c);
};
void node_watch_catalog(
	struct node *n, struct catalog_watcher *w); /* on w->loop, or before loops_run */

/* --- changes of the catalogue: any loop --- */
enum meta_kind {
	META_CREATE_STREAM,
	META_DELETE_STREAM,
	META_ADD_PARTITIONS,
	META_ALTER_STREAM,
	META_SET,
	META_REPLICAS,   /* of a stream: name, replicas */
	META_PLACE,      /* members of one group: group, members (node ids) */
	META_NODE_STATE, /* node, node_state; drain, undrain; removed only when nothing is on it,
			  * or with force */
	META_BALANCE,    /* a new plan for all: leaders and replicas even over nodes and racks */
	META_DOCS        /* docs, all or none of them */
};
struct meta_doc {
	struct bytes key;
	struct bytes value; /* at NULL: remove */
	/* What must be before: DOC_NEW: nothing, else ERR_EXISTS; DOC_OLD: something, else
	 * ERR_NOTFOUND; DOC_SAME: exactly `before`, else ERR_CONFLICT. */
	enum { DOC_ANY, DOC_NEW, DOC_OLD, DOC_SAME } only;
	struct bytes before;
};
/* How many there may be of what begins with prefix, when a change has added to them; else
 * ERR_QUOTA. Of streams and settings what has a slash behind it is another one's. */
enum meta_limited { LIMIT_STREAMS, LIMIT_PARTITIONS, LIMIT_SETTINGS, LIMIT_DOCS };
struct meta_limit {
	enum meta_limited of;
	struct bytes prefix, what; /* what: a word for people */
	int64_t most;
};
struct meta_setting {
	const char *key;
	const char *value; /* NULL: remove, back to the default */
};
struct meta_op {                  /* belongs to the node until done runs on the caller's loop */
	struct proposal proposal; /* private */
	struct loop_msg msg;      /* private */
	struct node *node;        /* private */
	struct slice args;        /* private */
	int64_t since_ms;         /* private */
	struct loop *from;
	enum meta_kind kind;
	const char *name;   /* stream; borrowed until done, like all pointers here */
	int64_t partitions; /* create: -1 default; add: the new total */
	int64_t replicas;   /* -1: default */
	const struct meta_setting *settings;
	int setting_count;
	uint32_t node_id; /* META_NODE_STATE */
	enum node_state node_state;
	bool force;
	uint64_t group; /* META_PLACE */
	const uint32_t *members;
	int member_count;
	const struct meta_doc *docs; /* META_DOCS */
	int doc_count;
	/* Not empty: ERR_CONFLICT if a document's key starts with it; ERR_BUSY: documents are just
	 * being changed. */
	struct bytes docs_none;
	const struct meta_limit *limits; /* those that concern it, at most 8; read by the call */
	int limit_count;
	bool check_only; /* validate, change nothing */
	/* Names as in Kafka: 1-249 of [a-zA-Z0-9._-], not "." or ".."; or TENANT/NAME: that clients
	 * say no slash is seen to by the doors. Settings: retention.ms,
	 * retention.bytes, max.message.bytes, cleanup.policy (delete), min.insync.replicas, ...;
	 * unknown ones: ERR_INVALID. ERR_EXISTS, ERR_NOTFOUND, ERR_UNSUPPORTED, ERR_QUOTA.
	 * ERR_TIMEOUT: made, but this node's catalogue is behind and does not have it after 10 s.
	 */
	enum err err;
	char why[160]; /* one line for the user when err is not OK; or what a check found */
	void (*done)(struct meta_op *op); /* after the change is in force on every loop */
};
void node_change(struct node *n, struct meta_op *op);

/* --- the cluster, as seen from here --- */
struct peers *node_peers(const struct node *n); /* for upper layers' frames and calls */
uint32_t node_id(const struct node *n);
uint64_t node_boot(const struct node *n); /* grows with each start */
/* Whether the process stands alone: the only node of its cluster. Any thread. */
bool node_alone(const struct node *n);
/* What this node says of itself when it joins: doors as advertised. Before loops_run. */
void node_advertise(struct node *n, const char *door, const char *addresses);
/* Why it is not ready, one line for /readyz ("waiting for seed 10.0.0.2:7400: refused"). Any
 * thread. */
void node_unready_why(const struct node *n, char *out, size_t size);
struct node_status { /* of one node; asked of it when it is another one */
	void *priv;  /* private */
	struct node *of;
	uint32_t node;
	struct loop *to; /* set by the call */
	enum err err;    /* ERR_UNAVAILABLE: it does not answer */
	bool ready, disk_ok;
	int64_t uptime_ms, rss_bytes, disk_bytes, disk_free_bytes, connections;
	int32_t replicas, leaders, unsettled; /* groups here, led from here, with moves under way */
	char version[32], why[96];
	void (*done)(struct node_status *s);
};
void node_ask_status(struct node_status *s); /* any loop */
enum err node_status_decode(struct bytes in, struct node_status *out) MUST_USE;
/* How status learns of connections; any loop may call it. Before loops_run. */
void node_count_connections(struct node *n, int64_t (*count)(void *arg), void *arg);
/* Leadership of all groups goes to other nodes, as far as there are any that can take it; at most
 * timeout_ms. Before the doors close. Not from a loop. */
void node_step_aside(struct node *n, int64_t timeout_ms);

#endif
