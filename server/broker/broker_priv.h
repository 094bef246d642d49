/* The insides of the broker, shared by broker.c (life, catalogue), space.c (what a tenant has on a
 * shard), publish.c and memory_route.c (the way in), feed.c (committed entries from home loops to
 * those interested), deliver.c (subscribers), catchup.c (those who are behind) and retained.c. A
 * shard is its loop's. */
#ifndef BROKER_BROKER_PRIV_H
#define BROKER_BROKER_PRIV_H
#include "server/base/map.h"
#include "server/base/mem.h"
#include "server/broker/deliver.h"
#include "server/broker/match.h"
#include "server/broker/publish.h"
#include "server/broker/route.h"
#include "server/broker/tenant.h"
#include "storage/change.h"

enum broker_metric {
	M_MESSAGES_IN,
	M_BYTES_IN,
	M_BATCHES_IN,
	M_PUBLISH_BUSY,
	M_PUBLISH_FAILED,
	M_INFLIGHT_BYTES,
	M_RECORDS_MATCHED,
	M_MESSAGES_OUT,
	M_BYTES_OUT,
	M_FELL_BEHIND,
	M_BEHIND,
	M_CATCHUP_READS,
	M_CATCHUP_BYTES,
	M_FEED_GAPS,
	M_SKIPPED,
	M_MEMORY_DROPPED,
	M_MEMORY_FRAMES_DROPPED,
	M_RETAINED_SKIPPED,
	M_RETAINED_SENT,
	M_SUBSCRIPTIONS,
	M_KEPT_BYTES,
	M_UNREADABLE,
	M_LOGINS,
	M_LOGINS_REFUSED,
	M_LOGINS_BUSY
};
#define COUNT(s, row, n) metric_add(loop_cells((s)->loop), &broker_metrics, (row), (int64_t)(n))

/* ---- publish */

struct batch_op;

struct slot {             /* the turn's batch for one partition */
	struct list node; /* shard.open while there is one */
	struct partition *to;
	struct batch_op *open;
	size_t last_bytes; /* of the last one sealed: how much room to begin with */
};

struct memory_batch { /* the turn's batch of a memory route */
	struct batch_builder builder;
	struct list publishes;
};

struct target { /* a stream that routes lead to */
	char *name;
	const struct stream *stream; /* in shard.catalog; NULL: does not exist yet */
	int slot_count;
	struct slot *slots;
	bool memory; /* some route to it is a memory route */
	struct memory_batch memory_batch;
};

/* ---- a tenant on a shard */

struct space {
	struct list node; /* shard.tenants; the default one is shard.home */
	struct shard *shard;
	struct routes *routes; /* NULL before the first catalogue, like targets */
	struct target *targets;
	int target_count;
	int *route_targets; /* by route: index into targets */
	struct match *match;
	bool following; /* feeds are wanted */
	bool in_round;  /* point.c */
	bool missing;   /* some stream that a route names does not exist */
	bool full;      /* and may not be made: the tenant has as many as it may */
	bool wanted;    /* on the first shard: it is to be made */
	struct list feeds;
	int feed_count;
	int64_t subscriber_count;
	int64_t used_ms;    /* published to last */
	int64_t missing_ms; /* since when */
	int64_t wanted_ms;  /* the first shard was told, 0: never */
	int64_t create_ms;  /* on the first shard: not tried before */
	uint8_t tenant_len;
	char tenant[TENANT_NAME_MAX];
};

/* ---- feeds: the home's side */

struct source { /* a partition at home that some loop follows */
	struct watcher watcher;
	struct shard *shard;
	struct partition *partition;
	uint64_t group;
	uint8_t uuid[16];
	int number; /* of the partition in its stream */
	int64_t next;
	uint8_t *dests; /* by loop: DEST_* */
};
enum { DEST_ON = 1, DEST_LAGGING = 2 };

struct feed_item { /* an entry, or with NULL: all from offset on follows */
	uint64_t group;
	struct entry *entry;
	int64_t offset;
};

struct feed_post {
	struct loop_msg msg;
	struct shard *from, *to;
	int count, room;
	struct feed_item *items;
};

struct channel {                /* from a home loop to one other */
	struct feed_post *post; /* being filled */
	size_t inflight;        /* bytes of entries sent and not yet dealt with there */
	bool lagging;           /* entries were left out */
};

struct outgoing {
	struct source *source;
	struct entry *entry;
};

/* ---- feeds: the reader's side */

struct kept { /* an entry kept for those who are behind */
	struct entry *entry;
	uint64_t serial;
};
struct run { /* entries read from the log for one who is behind */
	struct list in_feed, in_shard;
	struct feed *feed;
	int64_t from, to; /* offsets it covers */
	size_t bytes;
	int waiting; /* those it was read for and who have not seen it */
	int count;
	struct kept *entries;
};

struct feed {
	struct shard *shard;
	struct space *space; /* whose stream it is */
	struct list in_space;
	struct partition *partition;
	uint64_t group;
	const struct stream *stream; /* in shard.catalog */
	int home;                    /* loop */
	bool on;                     /* asked and answered */
	bool asked;
	bool dead;               /* left; memory waits for a read under way */
	int64_t position;        /* all below has been dispatched; -1: not known yet */
	struct feed_item *queue; /* a ring: items not yet dispatched */
	uint32_t queue_at, queue_count, queue_room;
	struct list in_dirty;      /* shard.dirty while the queue is not empty */
	bool filling, fill_failed; /* a gap is being read, or is to be read again */
	struct record_read fill;
	struct list behind;
	int behind_count, ahead_count;
	struct kept *tail; /* a ring: the newest entries dispatched, while someone is behind */
	uint32_t tail_at, tail_count, tail_room;
	size_t tail_bytes;
	struct list runs;
	int reads; /* under way for those behind, and for the point */
	struct partition_point point;
	bool pointing;        /* asked */
	int64_t point_offset; /* to be reached before subscriptions begin; -1: none is */
};

/* A place in an entry; steps record by record. */
struct entry_walk {
	struct change_batches batches;
	struct batch batch;
	const struct slice *holder;
	struct batch_walk walk;
	const uint8_t *undo_at; /* before the newest record */
	bool open;
};

enum behind_state { BEHIND_IDLE, BEHIND_QUEUED, BEHIND_READING };
struct behind { /* a subscriber's own position in a feed */
	struct list in_sub, in_feed, in_reads;
	struct subscriber *who;
	struct feed *feed;
	int64_t position;
	enum behind_state state;
	bool ahead;           /* position is above the feed's: it waits */
	struct run *run;      /* counts us as waiting, or NULL */
	uint64_t hint_serial; /* the kept entry that hint is in, 0: none */
	struct entry_walk hint;
	struct cold_read *read; /* BEHIND_READING */
};

struct subscriber_state {
	struct list behind;
	struct list retained; /* struct retained_send */
	bool blocked;         /* refused, and not ready since */
	enum { MEMORY_TAKES, MEMORY_AWAITED, MEMORY_LATE } memory; /* see memory_route.c */
};

struct retained_send;
struct cold_read;

struct shard {
	struct broker *broker;
	struct loop *loop;
	int index;
	struct catalog_watcher catalog_watcher;
	const struct catalog *catalog; /* held; NULL before the first */

	struct space home;               /* the default tenant's */
	struct map spaces;               /* the others', by name, ... */
	struct list tenants;             /* ... and in order of their coming */
	struct loop_timer streams_timer; /* set: publishers wait for streams to be made */

	struct list open; /* slots */
	struct loop_hook publish_hook;
	bool memory_open;
	size_t inflight;
	struct list room_waits;
	struct list spare_ops;
	int spare_op_count;
	_Atomic bool listening;         /* there are subscriptions here */
	size_t memory_out;              /* of memory routes, posted from here and not through */
	struct list memory_posts;       /* arrived, in order; the first may be half through */
	struct loop_timer memory_timer; /* set: they wait for memory_awaited */
	struct subscriber *memory_awaited;
	struct loop_hook memory_hook;

	struct map sources;       /* by group */
	struct channel *channels; /* by loop */
	struct outgoing *out;
	size_t out_count, out_room;
	struct loop_hook deliver_hook;

	struct map syncs; /* by group: place.c */
	struct map feeds; /* by group */
	int feeds_pending;
	size_t *acks; /* by home loop: bytes dealt with */
	struct list dirty;
	uint64_t serial;
	size_t tail_bytes, run_bytes;
	struct list runs; /* least recently used first */
	struct loop_timer tick;

	int64_t subscription_count;
	uint64_t edition; /* moves with every subscription added or removed */
	struct list subscribers;
	struct list subscribing, beginning; /* struct subscribe: for the next round, in this one */
	int points_pending;                 /* feeds to be heard of in this round */
	const struct subscriber *serving;   /* within its deliver; NULL: it has ended itself */
	struct list ready;                  /* subscribers with something to catch up on */
	struct list reads;                  /* behind, waiting for a read */
	int reads_active;
	int64_t behind_count;
	struct subscription **scratch;
	int scratch_room;

	struct list retained_active, retained_queued, retained_idle;
	int retained_count; /* active */

	struct audit_log *audit; /* NULL: nothing to be told yet */
};

struct broker {
	const struct broker_conf *conf; /* borrowed: a reload changes it */
	struct node *node;
	struct loops *loops;
	struct shard *shards;
	int count;
	struct rights *rights;
	struct bootstrap *bootstrap; /* the first administrator; NULL: none is to be made */
	bool bootstraps; /* there is to be one: nobody may everything for want of users */
	_Atomic bool started, streams_exist, admin_due; /* due: bootstrap is under way */
	struct meta_op create; /* one stream at a time, by the first shard */
	char *creating;
	struct loop_timer create_timer;
};

/* How it went to give a subscriber what it is owed. */
enum served { SERVED_LIVE, SERVED_WAITS, SERVED_REFUSED, SERVED_MORE, SERVED_GONE };

/* Room for one more in an array that doubles; aborts without memory. */
void *priv_grown(void *array, size_t count, size_t *room, size_t each);
/* The shard's timer for what is to be tried again fires within after_ms. */
void priv_tick(struct shard *s, int64_t after_ms);

/* ---- space.c */
void spaces_init(struct shard *s);
void spaces_fini(struct shard *s);
void spaces_start(struct broker *b);  /* on the first loop */
void spaces_catalog(struct shard *s); /* s->catalog is another one */
void spaces_sweep(struct shard *s);   /* those that nobody uses go */
struct bytes space_tenant(const struct space *sp);
/* What clients call a stream of the tenant. */
struct bytes space_bare_name(const struct space *sp, const struct stream *stream);
struct space *space_find(struct shard *s, struct bytes tenant); /* NULL: nobody uses it here */
/* Of a tenant but the default one. NULL: there is no such tenant. */
struct space *space_to_publish(struct shard *s, struct bytes tenant);
struct space *space_join(struct shard *s, struct bytes tenant); /* a subscriber's */
void space_leave(struct space *sp);
void space_follow(struct space *sp); /* it has a subscription */
/* A route's stream does not exist: whether it will in a moment, and shard_when_room tells. */
bool space_awaits_streams(struct space *sp);
/* The routes in force in a tenant; tell: wrong ones are logged. */
struct routes *space_routes(
	const struct broker_conf *conf, const struct catalog *c, struct bytes tenant, bool tell);

/* ---- publish.c */
extern const struct proposal_kind publish_kind;
void publish_init(struct shard *s);
void publish_fini(struct shard *s);
void publish_flush(struct shard *s); /* the open batches leave */
/* Stores the retained value of a message of a memory route, which has no record. */
enum err publish_retained_only(
	struct shard *s, const struct message *m, struct slot *slot) MUST_USE;

/* ---- memory_route.c */
enum err memory_publish(
	struct space *sp, struct target *t, const struct message *m, struct publish *p) MUST_USE;
void memory_flush(struct shard *s);
bool memory_has_room(const struct shard *s);
void memory_ready(struct subscriber *who); /* takes again, or is gone: nobody waits for it */
void memory_init(struct shard *s);
void memory_serve(struct broker *b); /* boot: what other nodes send */
void memory_arrived(void *broker, uint32_t from, uint64_t group, struct slice body); /* borrows */
void memory_fini(struct shard *s);

/* ---- place.c */
void place_fini(struct shard *s); /* loops stand */

/* ---- point.c */
bool point_round(struct shard *s); /* whether those in s->beginning may begin; starts rounds */
void point_moved(struct feed *f);  /* its position has */
void point_feed_gone(struct feed *f);

/* ---- feed.c */
void feeds_init(struct shard *s);
void feeds_fini(struct shard *s);
/* The catalogue has changed. */
void feeds_catalog(struct shard *s, const struct catalog *old);
void feeds_follow(struct space *sp); /* asks for all feeds if that has not been done */
struct feed *feed_find(const struct shard *s, const struct partition *p);
struct feed *feed_make(struct space *sp, struct partition *p, const struct stream *stream);
/* Sends what was committed at home in this turn to those interested. */
void feeds_send(struct shard *s);
/* Dispatches queued entries within a budget; whether some are left. */
bool feeds_dispatch(struct shard *s);
void feeds_ack(struct shard *s);
void feeds_retry(struct shard *s);
void feed_free(struct feed *f); /* a dead one that nothing reads into */

/* ---- deliver.c */
void deliver_init(struct shard *s);
void deliver_fini(struct shard *s);
void deliver_entry(struct feed *f, struct entry *e); /* to all who are live */
void deliver_trimmed(struct feed *f, int64_t from, int64_t to);
/* A record of a memory route, offered to the subscribers from the one at *from on (0: all). False:
 * one refused that is worth waiting for; *from is it. */
bool deliver_memory(
	struct space *sp, const struct message *m, const struct slice *holder, uintptr_t *from);
struct subscriber_state *subscriber_state_make(struct subscriber *s);
void subscriber_state_drop(struct subscriber *s); /* if nothing is in it any more */
enum offer { OFFER_TAKEN, OFFER_REFUSED, OFFER_GONE /* the subscriber has ended itself */ };
enum offer deliver_offer(struct subscriber *who, const struct delivery *d);
/* Whether records at offset count for sub: it may be younger than its subscriber's position. */
bool subscription_counts(const struct subscription *sub, uint64_t group, int64_t offset);

/* ---- catchup.c */
void entry_walk_init(struct entry_walk *w, const struct entry *e);
void entry_walk_fini(struct entry_walk *w);
/* Gives the next record at or above `from` and its offset. ERR_NOTFOUND: the end. A batch that
 * cannot be read is counted and skipped. */
enum err entry_walk_next(struct shard *s, struct entry_walk *w, int64_t from, struct record *r,
	int64_t *offset) MUST_USE;
struct behind *behind_find(const struct subscriber *s, const struct feed *f);
struct behind *behind_new(struct subscriber *s, struct feed *f, int64_t position);
/* Where its entry stood: w is before the record at b's position, in the entry that is kept next. */
void behind_hint(struct behind *b, const struct entry_walk *w, uint64_t serial);
void behind_free(struct behind *b); /* its subscriber is live there again, or gone */
void catchup_keep(struct feed *f, struct entry *e); /* dispatched just now */
void catchup_feed_gone(struct feed *f);
void catchup_feed_moved(struct feed *f); /* its position; those ahead may be behind now */
bool catchup_run(struct shard *s);       /* serves the ready; whether some are left */
void catchup_retry(struct shard *s);
void catchup_ready(struct subscriber *s); /* puts it among the ready */
/* It refused: until subscriber_ready it is not served, and what was read for it may be dropped. */
void catchup_blocked(struct subscriber *s);

/* ---- retained.c */
void retained_begin(struct subscription *sub); /* sends the retained messages that match */
/* Goes on sending; *more: there is more to send in the next turn. */
enum served retained_serve(struct subscriber *s, bool *more);
void retained_cancel(struct subscriber *s, const struct subscription *only);
/* A retained message on topic was given to s live: older values that are under way are not sent. */
void retained_overtaken(struct subscriber *s, struct bytes topic);
void retained_retry(struct shard *s);
/* Lets those read that wait for a place, if there is one, or one who has it is blocked by now. */
void retained_start(struct shard *s);
void retained_fini(struct shard *s);

#endif
