/* Inside of the sessions: session.c (life in memory), session_open.c (claim and resumption),
 * session_ask.c (what the table decides), session_settle.c (claims without an answer),
 * session_durable.c (what is written while the client is here, and when it goes), session_absent.c
 * (those whose client is away), session_gone.c (processes that are gone, and their sessions),
 * session_net.c (fences and leases between nodes), session_qos2.c (rows of QoS 2 that came in). */
#ifndef BROKER_SESSION_PRIV_H
#define BROKER_SESSION_PRIV_H
#include <stdatomic.h>
#include "cluster/meta.h"
#include "cluster/peer.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "server/broker/session.h"
#include "server/broker/session_ask.h"
#include "server/broker/sweep.h"
#include "server/broker/will.h"

enum {
	SESSION_NODES_MAX = 4 *
		META_NODES_MAX, /* whose leases are kept: some are of nodes that went */
	SESSION_TABLES_MAX = 256
};

struct session_net { /* the other nodes; the node's peers, but in tests */
	bool (*alone)(void *arg);
	void (*call)(void *arg, struct peer_call *c);
	void (*answer)(struct peer_request *r, enum err e, struct slice body); /* takes both */
};

struct node_lease {            /* what is known of another node; written on the first loop */
	_Atomic uint32_t node; /* 0: free */
	_Atomic uint64_t boot;
	_Atomic int64_t seen_ms; /* its last renewal, clock_ms */
};

struct absent;
struct session_home { /* one per loop: claims and absences of the tables at home there */
	struct sessions *all;
	struct loop *loop;
	struct shard *shard;
	struct claim_home claims;
	struct catalog_watcher catalog_watcher;
	struct list tables; /* struct table_watch */
	struct map absents; /* by client id: they have something to be done in time */
	struct absent **heap;
	uint32_t heap_count, heap_room;
	struct loop_timer timer, gone_timer, ack_timer;
	struct list settling; /* sessions that may have left a row: session_settle.c */
	uint32_t settling_count;
	struct sweep wills;   /* rows of those that were published */
	struct list unleased; /* sessions whose acknowledgements wait */
	bool stopped;
};

struct sessions {
	struct broker *broker;
	struct loops *loops;
	struct session_owner self;
	const struct session_net *net;
	void *net_arg;
	int64_t lease_ms, will_keep_ms;
	struct loop_timer lease_timer; /* the first loop's */
	int lease_calls;               /* under way */
	struct node_lease leases[SESSION_NODES_MAX];
	/* By table, until when our lease holds, clock_ms. */
	_Atomic int64_t leased[SESSION_TABLES_MAX];
	/* How often it had run out when it was renewed. */
	_Atomic uint32_t lapses[SESSION_TABLES_MAX];
	_Atomic int64_t live;     /* sessions in memory, and things under way for absent ones */
	_Atomic int64_t stopping; /* homes that have not stopped yet */
	_Atomic bool ending; /* the process is about to: nothing is waited for that need not be */
	int count;
	struct session_home homes[];
};

struct table_watch {
	struct list node;
	struct watcher watcher;
	struct session_home *home;
	struct partition *table;
	struct list owners; /* seen in rows of connected clients */
	int64_t led_ms;     /* since when it is led here, clock_ms */
	struct declaring *declaring;
};

struct session_rows { /* what a session in rows has beside */
	struct session *s;
	struct partition *table;
	uint64_t epoch, born;    /* of this claim, and of the first one of this session */
	struct proposal write;   /* one at a time */
	struct buf args;         /* the bytes it writes */
	uint64_t begun, written; /* writes */
	uint64_t *groups;        /* partitions that QoS 2 came in to, ... */
	uint64_t *tickets;       /* ... and the write that lists each */
	uint32_t group_count;
	uint8_t tries; /* of the last write */
	bool writing, want_row, want_cursor;
	bool last, keep_will;           /* the write at the end; with the will's row */
	bool will_settled, will_leaves; /* it is known what becomes of it; it is being published */
	bool untouched;                 /* the end of one that never came to be */
	bool brief;                     /* says where the client is, and no more */
	int table_at;                   /* in sessions.leased */
	uint32_t lapses;                /* of the lease, that are known to have been survived... */
	uint64_t proof;                 /* ...once this write is written */
	struct loop_hook hook;
	struct loop_timer timer;
};

struct session_again { /* while what was in flight is sent again */
	struct redeliver redeliver;
	struct session *s;
	uint16_t packet_id; /* the last one looked at */
	bool busy, given, paused, more;
};

/* session.c */
extern const struct subscriber_ops session_reader_ops;
void session_release(struct session *s); /* leaves the feeds, gives the name back, is freed */
void session_again_next(struct session *s);
struct partition *session_partition(struct shard *s, uint64_t group); /* NULL: gone */

/* session_open.c */
extern const struct claim_ops session_claim_ops;

/* session_durable.c */
struct session_rows *durable_new(
	struct session *s, struct partition *table, uint64_t epoch, uint64_t born);
void durable_abandon(struct session_rows *d); /* the session did not come to be */
void durable_free(struct session_rows *d);
void durable_close(struct session_rows *d, bool will);
/* Lists a partition; what is new and not in the row yet (else saved) is written. Gives the write
 * that lists it. */
uint64_t durable_list(struct session_rows *d, uint64_t group, bool saved);

/* session_absent.c */
void absent_home_init(struct session_home *h);
void absent_home_stop(struct session_home *h);
void absent_home_fini(struct session_home *h);
struct session_home *session_home_of(struct sessions *all, const struct partition *table);

/* session_gone.c */
void gone_home_init(struct session_home *h);
void gone_home_stop(struct session_home *h);
void gone_home_fini(struct session_home *h); /* loops stand */
void gone_table_led(struct table_watch *t);
void gone_table_end(struct table_watch *t);
void gone_owner_seen(struct table_watch *t, struct session_owner owner);

/* session_settle.c */
/* Of a session that did not come to be, though its row may have: seen off, then released. */
void settle_begin(struct session *s, bool fenced);
void settle_fenced(struct session *s);     /* another one wants the name */
void settle_again(struct session_home *h); /* now and then */

/* session_net.c */
void session_net_init(struct sessions *all, struct node *n); /* who we are, and our peers */
void session_net_start(struct sessions *all);
void session_net_stop(struct sessions *all); /* on the first loop */
/* Tells the node that has it; c->done when it has let go or will not. ERR_NOMEM. */
enum err session_fence(struct sessions *all, struct peer_call *c, struct partition *table,
	struct session_owner owner, uint64_t epoch, struct bytes id) MUST_USE;
void session_serve_fence(void *arg, struct peer_request *r); /* arg: struct sessions */
void session_serve_lease(void *arg, struct peer_request *r);
void session_net_home_init(struct session_home *h);
/* The leader of a table has said yes to what was asked then (clock_ms). Any loop. */
void session_leased(struct sessions *all, int table_at, int64_t asked_ms);
int session_table_at(const struct shard *s, const struct partition *table); /* in `leased`, or -1 */
/* NULL: never heard of. */
const struct node_lease *session_node_lease(struct sessions *all, uint32_t node);

/* session_qos2.c */
struct qos2_walk {              /* embed: rows of one client in several partitions */
	struct row_read read;   /* private */
	struct proposal forget; /* private */
	struct shard *shard;
	struct bytes client_id; /* borrowed until done */
	const uint64_t *groups; /* borrowed until done */
	uint32_t group_count, at;
	bool remove;     /* else: each is called */
	uint64_t epoch;  /* remove: rows of greater ones stay */
	uint8_t *key;    /* private */
	struct buf args; /* private */
	enum err err;
	void (*each)(struct qos2_walk *w, uint64_t group, uint16_t packet_id, uint64_t epoch);
	void (*done)(struct qos2_walk *w); /* never inside qos2_walk */
};
void qos2_walk(struct qos2_walk *w);
/* Removes them all, told to nobody. Copies. */
void qos2_sweep(struct sessions *all, struct shard *s, struct bytes client_id, uint64_t epoch,
	const uint64_t *groups, uint32_t count);
extern const struct proposal_kind qos2_forget_kind, qos2_release_kind;

#endif
