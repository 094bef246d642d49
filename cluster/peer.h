/* The other nodes: what this one sends them and what of theirs reaches it. Each loop of a node
 * dials every other node; a connection carries frames of its dialer only, and answers to calls
 * travel over the answerer's own connection. The wire is in peer_wire.h. What peers send is checked
 * like any client's; a frame reaches its handler on the home loop of its group (group mod loops).
 * Boot: peers_new, handlers, peers_start (loops run); the end: peers_stop, loops_stop, peers_free.
 */
#ifndef CLUSTER_PEER_H
#define CLUSTER_PEER_H
#include "server/base/buf.h"
#include "server/base/conf.h"
#include "server/base/loop.h"

struct peers;
struct net;
struct conn_kind;

enum peer_kind {         /* of a frame; the numbers are the wire's */
	PEER_RAFT = 1,   /* a message of one replica to another (raft_wire.h) */
	PEER_CALL = 2,   /* private to peer.c */
	PEER_ANSWER = 3, /* private to peer.c */
	PEER_LEADS = 4,  /* groups the sender leads: n * {group 8, term 8} */
	PEER_FOLLOW = 5, /* see remote.c */
	PEER_FEED = 6,   /* see remote.c */
	PEER_MEMORY = 7, /* see server/broker/memory_route.c */
	PEER_KIND_COUNT = 16
};
enum peer_op {               /* of a call; the numbers are the wire's */
	PEER_OP_PROPOSE = 1, /* remote.c */
	PEER_OP_ROWS = 2,
	PEER_OP_RECORDS = 3,
	PEER_OP_SEEK = 4,
	PEER_OP_POINT = 5,
	PEER_OP_INFO = 6,     /* partition_info of a leader, for admin */
	PEER_OP_JOIN = 16,    /* node */
	PEER_OP_STATUS = 17,  /* node: what a node says of itself */
	PEER_OP_CATCHUP = 24, /* catchup.c: _OPEN, _NEXT, _CLOSE by a byte in the body */
	PEER_OP_FENCE = 32,   /* server/broker: a session is claimed elsewhere */
	PEER_OP_LEASE = 33,
	PEER_OP_COUNT = 64
};

struct peer_hello { /* what a node says of itself when a connection begins; see peer_wire.h */
	uint16_t version_min, version_max;
	uint8_t cluster[16];  /* zeros: none yet */
	uint8_t instance[16]; /* made with the data */
	uint8_t circle[16];   /* whom it would found a cluster with (found.c); zeros: not known */
	uint32_t node;
	uint64_t boot; /* grows with each start of the process */
	uint16_t loop;
	uint8_t purpose; /* enum peer_purpose */
	uint64_t capabilities;
	struct bytes cluster_name, name, rack, address; /* address: where peers reach it */
};

struct peer_node { /* where a node is */
	uint32_t id;
	const char *address;     /* "host:port" */
	const uint8_t *instance; /* 16 bytes it must have, NULL: any */
	bool removed;            /* with that instance: never let in again, nor dialled */
};

struct peers_conf {
	uint32_t node;
	uint64_t boot;
	uint8_t instance[16];
	const char *cluster_name, *name, *rack, *address; /* borrowed for good */
	bool tls;
	int64_t queue_bytes_max; /* peer.queue: per peer and loop, waiting to be sent */
};
extern const struct conf_row
	peer_rows[]; /* peer.tls (on/off), peer.queue; over struct peer_settings */
struct peer_settings {
	bool tls;
	int64_t queue_bytes_max;
};
extern struct metric_table peer_metrics;
extern const struct conn_kind
	peer_kind_in; /* the adapter of the door "peer"; door arg: struct peers */

struct peers *peers_new(const struct peers_conf *c, struct loops *loops);
/* May dial from now on. The door may listen before or after. */
void peers_start(struct peers *p, struct net *net);
void peers_stop(struct peers *p); /* not from a loop; calls end with ERR_CLOSED */
void peers_free(struct peers *p);

/* The cluster is known from now on; connections of nodes of another one are refused. Any loop. */
void peers_set_cluster(struct peers *p, const uint8_t id[16]);
/* What this node's hellos say of its seeds. Any loop. */
void peers_set_circle(struct peers *p, const uint8_t id[16]);
/* Whom to be connected with; copies. Those not named are lost until they say hello, those that were
 * removed for ever. A peer that says hello from another address than the one set is dialled there,
 * too. Any loop. */
void peers_set_nodes(struct peers *p, const struct peer_node *nodes, int count);
/* A node of this cluster has been found at an address of which the list may not know. Any loop. */
void peers_found_at(struct peers *p, uint32_t node, const char *address);

/* Other nodes refuse this one, and say what it will not help to ask again for, or not for long. */
enum peer_verdict {
	PEER_SAYS_REMOVED, /* this node's data was taken out of the cluster */
	PEER_SAYS_RUNS,    /* a process with the same data runs, and was started before this one */
	PEER_SAYS_RUNS_NEWER, /* or after it */
	PEER_SAYS_OTHER_DATA, /* its list names other data: its list is old, or this data */
	PEER_VERDICT_COUNT
};
typedef void (*peer_judged)(void *arg, enum peer_verdict v, uint32_t by, const char *words);
/* fn runs on loop, for that loop's connections. Before loops run. */
void peers_on_verdict(struct peers *p, struct loop *loop, peer_judged fn, void *arg);

/* Sends a frame. Takes the parts (a share each; the array is copied). false: dropped, as there is
 * no connection or its queue is full. Any loop: the frame leaves by this loop's connection. */
enum peer_lane { LANE_HIGH, LANE_BULK };
bool peers_send(struct peers *p, uint32_t node, enum peer_lane lane, enum peer_kind kind,
	uint64_t group, struct slice *parts, int count);
/* Whether bulk may be sent now; if not, w->room runs on this loop once it may or the peer is lost.
 */
struct peer_room {
	struct list node; /* private */
	void (*room)(struct peer_room *w);
};
bool peer_bulk_room(struct peers *p, uint32_t node, struct peer_room *w);
void peer_room_cancel(struct peer_room *w);
bool peer_connected(const struct peers *p, uint32_t node); /* this loop's connection is open */

/* A handler of one kind of frame: on the home loop of the group. Borrows body's share (slice_ref to
 * keep). Registered at boot. */
typedef void (*peer_handler)(void *arg, uint32_t from, uint64_t group, struct slice body);
void peers_handle(struct peers *p, enum peer_kind kind, peer_handler fn, void *arg);

struct peer_watcher { /* embed; runs on loop, for that loop's connections */
	struct list node;
	struct loop *loop;
	void (*changed)(struct peer_watcher *w, uint32_t node, bool up);
};
void peers_watch(struct peers *p, struct peer_watcher *w); /* on w->loop, or before loops run */
void peers_unwatch(struct peers *p, struct peer_watcher *w);

/* --- calls --- */
struct peer_call {           /* embed; belongs to the peers until done */
	struct list node;    /* private */
	uint64_t id;         /* private */
	int64_t until_ms;    /* private */
	struct loop *from;   /* private */
	struct peers *peers; /* private */
	/* asked: */
	uint32_t to;
	enum peer_op op;
	uint64_t group;
	struct slice *parts; /* shares taken by peer_call; the array is borrowed for the call */
	int part_count;
	enum peer_lane lane; /* of the question; answers choose their own */
	int64_t timeout_ms;
	/* given: */
	enum err err; /* the answerer's, or ERR_UNAVAILABLE: not sent; ERR_BUSY: queue full, not
		       * sent; ERR_UNKNOWN: the peer was lost meanwhile; ERR_TIMEOUT; ERR_CLOSED */
	struct slice answer;               /* given: the caller lets it go */
	void (*done)(struct peer_call *c); /* on the calling loop, never inside peer_call */
};
void peer_call(struct peers *p, struct peer_call *c);

struct peer_request { /* a call that has come in; ended by peer_answer, on the same loop or any
			 other */
	uint32_t from;
	enum peer_op op;
	uint64_t group, id;
	struct loop *loop;
	struct slice body; /* a share, let go by peer_answer */
	struct peers *peers;
};
typedef void (*peer_server)(void *arg, struct peer_request *r);
void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg);
/* Takes r and the parts. */
void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count);

/* --- asking who is at an address: founding and joining --- */
struct peer_probe {
	void *priv; /* private */
	const char *address;
	enum err err;
	struct peer_hello hello; /* its bytes lie in held */
	struct slice held;
	char why[96];
	void (*done)(struct peer_probe *p); /* on the calling loop */
};
void peer_probe(struct peers *p, struct peer_probe *q);

/* What nodes have said of themselves since the start: for `cluster nodes`. On the meta group's
 * loop. */
struct peer_view {
	uint32_t node;
	bool connected;
	int64_t since_ms, rtt_us;
	char address[128], why[96]; /* why not connected */
};
bool peers_next(const struct peers *p, int *at, struct peer_view *out);

#endif
