/* The inside of the peers: peer.c (life, nodes, time), peer_link.c (frames of one connection),
 * peer_out.c (dialled connections), peer_in.c (accepted ones), peer_call.c, peer_probe.c. All but
 * struct peers itself belongs to one loop (a home); struct peers is immutable once loops run, but
 * for what says atomic. */
#ifndef CLUSTER_PEER_PRIV_H
#define CLUSTER_PEER_PRIV_H
#include <stdatomic.h>
#include "cluster/peer.h"
#include "cluster/peer_wire.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "server/net/dial.h"

enum {
	PEER_TICK_MS = 50,
	PEER_PING_MS = 1000,
	PEER_SILENT_MS = 5000, /* then it is lost */
	PEER_HELLO_MS = 5000,  /* to be said within */
	PEER_DIAL_MS = 3000,
	PEER_BACKOFF_MIN_MS = 100,
	PEER_BACKOFF_MAX_MS = 2000,
	PEER_NODES_MAX = 1024,             /* that a loop knows, told or learned */
	PEER_INS_MAX = 4096,               /* accepted connections of a loop */
	PEER_NAMELESS_MAX = 128,           /* of them before their hello */
	PEER_REQUESTS_MAX = 4096,          /* unanswered, of one connection */
	PEER_REQUEST_BYTES_MAX = 64 << 20, /* of them; a single one may be larger */
	PEER_CROSSING_BYTES_MAX = 8 << 20, /* on their way to other loops, of one connection */
	PEER_COPY_BYTES_MAX = 2048,        /* parts up to this size are copied, not shared */
	PEER_OWN_BYTES_MIN = 1024,         /* bodies from this size get memory of their own */
	PEER_BATCH_BYTES = 16 * 1024       /* others share chunks of this size */
};

enum peer_metric {
	M_SENT_BYTES,
	M_RECEIVED_BYTES,
	M_SENT_FRAMES,
	M_RECEIVED_FRAMES,
	M_DROPPED_HIGH,
	M_DROPPED_BULK,
	M_CONNECTED,
	M_CONNECTS,
	M_LOST,
	M_DIALS_FAILED,
	M_REFUSED,
	M_CALLS,
	M_CALLS_FAILED,
	M_PINGS,
	M_ROUND_TRIP_US,
	M_PEER_COUNT
};

struct peer_link {         /* the sending half of a connection, either way */
	struct conn *conn; /* NULL: not open */
	struct list bulk;  /* struct bulk_frame that wait for the socket */
	size_t bulk_bytes;
	size_t bulk_given;              /* at most so much of what the socket waits for is bulk */
	int64_t heard_ms;               /* when there was a sign of life */
	size_t seen_input, seen_queued; /* as of the last look */
};

struct crossing; /* peer_in.c */

struct peer_to { /* a node, and our connection to it, of one loop */
	struct peer_home *home;
	uint32_t id;
	bool told;    /* by peers_set_nodes; else learned from a hello */
	bool removed; /* told so: this instance is out for ever */
	bool kept;    /* while a new list is gone through */
	bool checked; /* its instance must be the one given */
	bool known;   /* what it is: as told, or as it said itself if nobody told */
	uint8_t instance[16];
	char *address, *said; /* as set, and as the node itself said; NULL: not */
	struct dial dial;     /* under way while dialling */
	bool dialling;
	bool up;               /* hello is through */
	struct conn *greeting; /* hello said, not answered yet */
	struct peer_link link; /* while up */
	uint8_t cluster[16];   /* what our hello said */
	struct list rooms;     /* struct peer_room */
	struct list calls;     /* struct peer_call, asked over the link */
	uint32_t attempts;     /* since it was last up */
	int64_t retry_ms, ping_ms;
	int64_t since_ms; /* of the state, wall time */
	int64_t rtt_us;
	char to[136];       /* the address dialled */
	char why[160];      /* why not connected */
	char told_why[160]; /* the last that was logged */
};

struct peer_in { /* the adapter's state of an accepted connection */
	struct conn *conn;
	struct list node; /* in home->ins */
	struct peer_home *home;
	struct peer_link link; /* for answers */
	uint64_t serial;       /* how requests find it */
	uint32_t from;         /* 0: no hello yet */
	uint16_t loop;         /* of the sender */
	bool guest;            /* not of our cluster (yet): may only join, or ask */
	bool probe;
	bool paused;
	int requests;
	size_t request_bytes;
	size_t crossing_bytes;
	struct peer_hello hello; /* its texts in held */
	struct slice held;
};

struct peer_home { /* one per loop */
	struct peers *peers;
	struct loop *loop;
	bool started, stopped;
	uint8_t cluster[16], circle[16];
	struct map nodes; /* id -> struct peer_to */
	struct list ins;
	struct map serials; /* serial -> struct peer_in */
	uint64_t next_serial;
	int in_count, nameless;
	struct list watchers;
	struct map calls; /* id -> struct peer_call */
	uint64_t next_call;
	struct list ended; /* struct peer_call, to be told */
	struct loop_hook tell;
	struct list probes;
	struct loop_timer tick;
	int64_t ticked_ms, looked_ms; /* looked: at silence, once a second */
	struct crossing **crossing;   /* one per loop, while an input is gone through */
	struct chunk *batch;          /* small bodies are copied to it */
	size_t batch_used;
};

struct peer_table_handler {
	peer_handler fn;
	void *arg;
};
struct peer_table_server {
	peer_server fn;
	void *arg;
};

struct peers {
	struct peers_conf conf;
	struct loops *loops;
	struct net *net;
	struct peer_home *homes;
	int home_count;
	struct peer_table_handler handlers[PEER_KIND_COUNT];
	struct peer_table_server servers[PEER_OP_COUNT];
	peer_judged judged; /* NULL: nobody asks */
	void *judged_arg;
	struct loop *judged_loop;
	_Atomic int conns;   /* open, either way */
	_Atomic int stopped; /* homes */
};

static inline struct peer_home *peer_home_here(struct peers *p)
{
	struct loop *l = loop_here();
	must(l != NULL);
	return &p->homes[loop_index(l)];
}
static inline void peer_count(const struct peer_home *h, enum peer_metric m, int64_t n)
{
	metric_add(loop_cells(h->loop), &peer_metrics, (int)m, n);
}
static inline struct peer_to *peer_find(const struct peer_home *h, uint32_t id)
{
	return map_get_u64(&h->nodes, id);
}
static inline bool peer_cluster_none(const uint8_t id[16])
{
	static const uint8_t none[16];
	return memcmp(id, none, 16) == 0;
}

/* peer.c */
/* It has said this: what it is is known from now on. */
void peer_met(struct peer_to *t, const struct peer_hello *hello);
/* A node has said hello from its address: it is known from now on. NULL: too many. */
struct peer_to *peer_learn(struct peer_home *h, const struct peer_hello *hello);
void peer_tell_watchers(struct peer_home *h, uint32_t node, bool up);
void peer_hello_of(const struct peer_home *h, enum peer_purpose purpose, struct peer_hello *out);
/* Writes a refusal, logs one line, and gives the error to close with. */
enum err peer_refuse(struct peer_home *h, struct conn *c, enum peer_refusal code, uint32_t node,
	const char *why);
/* A peer's text, as far as it goes, fit to stand between quotes in a line. */
struct peer_words {
	char text[128];
};
struct peer_words peer_words(struct bytes b);
/* Our clusters' names and ids do not go together; writes why. */
bool peer_other_cluster(
	const struct peer_home *h, const struct peer_hello *hello, char *why, size_t size);

void peer_hurry(struct peer_home *h); /* something is to be done at the next tick */

/* peer_link.c */
void peer_link_open(struct peer_link *k, struct peer_home *h, struct conn *c);
void peer_link_close(struct peer_link *k); /* what waited is dropped */
/* Takes the parts, after head if there is one. false: dropped. */
struct peer_message {
	uint8_t kind;
	uint64_t group;
	struct bytes head;
	struct slice *parts;
	int count;
};
bool peer_link_send(struct peer_home *h, struct peer_link *k, enum peer_lane lane,
	const struct peer_message *m);
void peer_drop_parts(struct slice *parts, int count);
bool peer_link_room(const struct peer_link *k);
void peer_link_pump(struct peer_link *k); /* the socket has room again */
/* Whether it must be given up as silent; granted: do not count the time till now. */
bool peer_link_silent(struct peer_link *k, int64_t now_ms, bool granted);
/* The body of the frame at the front of the input, borrowed, or with a share of its own. */
enum err peer_body(struct peer_home *h, struct conn *c, const struct peer_frame *f,
	struct slice *out, bool *owned) MUST_USE;

/* peer_out.c */
/* In words: what went wrong before a hello. */
const char *peer_not_a_node(const struct peer_home *h);
const char *peer_closed_early(const struct conn *c, enum err why);
void peer_out_look(struct peer_to *t, int64_t now_ms); /* dials when it is time to */
void peer_out_ping(struct peer_to *t, int64_t now_ms);
void peer_out_drop(struct peer_to *t, enum err why); /* closes whatever there is */
void peer_out_kick(struct peer_to *t);               /* it is there: no waiting */
void peer_rooms_run(struct peer_to *t);

/* peer_in.c */
void peer_in_tick(struct peer_home *h, int64_t now_ms, bool granted);
void peer_in_close(struct peer_home *h, uint32_t node, enum err why); /* 0: of all nodes */

/* peer_call.c */
void peer_calls_init(struct peer_home *h);
void peer_calls_stop(struct peer_home *h); /* tells what is to be told, at once */
void peer_calls_expire(struct peer_home *h, int64_t now_ms);
void peer_calls_lost(struct peer_to *t, enum err e); /* none of them will be answered */
enum err peer_on_answer(struct peer_to *t, struct slice body) MUST_USE;
/* A call has come in over in; on the home loop of its group. */
struct peer_origin {
	struct peer_home *home; /* of the connection */
	uint64_t serial;
	uint32_t node;
};
void peer_on_call(
	struct peer_home *h, const struct peer_origin *from, uint64_t group, struct slice body);
bool peer_guest_may(struct bytes call); /* which calls are taken from those outside the cluster */
/* A call that cannot be taken: answered at once. */
void peer_call_refuse(struct peer_in *in, struct bytes call, enum err e);

/* peer_probe.c */
void peer_probes_stop(struct peer_home *h);

#endif
