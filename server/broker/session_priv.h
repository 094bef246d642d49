/* Inside of the sessions: session.c (life in memory), session_open.c (claim and resumption),
 * session_durable.c (what is written while the client is here, and when it goes), session_absent.c
 * (those whose client is away), session_qos2.c (rows of QoS 2 that came in). */
#ifndef BROKER_SESSION_PRIV_H
#define BROKER_SESSION_PRIV_H
#include <stdatomic.h>
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "server/broker/session.h"
#include "server/broker/will.h"

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
	struct loop_timer timer;
	bool stopped;
};

struct sessions {
	struct broker *broker;
	struct loops *loops;
	_Atomic int64_t live;     /* sessions in memory, and things under way for absent ones */
	_Atomic int64_t stopping; /* homes that have not stopped yet */
	int count;
	struct session_home homes[];
};

struct table_watch {
	struct list node;
	struct watcher watcher;
	struct session_home *home;
	struct partition *table;
};

struct session_rows { /* what a session in rows has beside */
	struct session *s;
	struct partition *table;
	uint64_t epoch, born;    /* of this claim, and of the first one of this session */
	struct proposal write;   /* one at a time */
	struct buf row, cursor;  /* the bytes it writes */
	uint64_t begun, written; /* writes */
	uint64_t *groups;        /* partitions that QoS 2 came in to, ... */
	uint64_t *tickets;       /* ... and the write that lists each */
	uint32_t group_count;
	uint8_t tries; /* of the last write */
	bool writing, want_row, want_cursor;
	bool last, keep_will;    /* the write at the end; with the will's row */
	int64_t ends_ms, due_ms; /* told to the home after it */
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
void durable_free(struct session_rows *d);
void durable_close(struct session_rows *d, bool will);
/* Lists a partition; what is new and not in the row yet (else saved) is written. Gives the write
 * that lists it. */
uint64_t durable_list(struct session_rows *d, uint64_t group, bool saved);

/* session_absent.c */
void absent_home_init(struct session_home *h);
void absent_home_stop(struct session_home *h);
void absent_home_fini(struct session_home *h);
/* From any loop: the client is away; INT64_MAX: never. */
void absent_tell(
	struct session_home *h, struct bytes id, uint64_t epoch, int64_t ends_ms, int64_t due_ms);
struct session_home *session_home_of(struct sessions *all, const struct partition *table);

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
