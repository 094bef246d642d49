/* Delivery of committed records to those who subscribed by topic filter, the one reader of DESIGN
 * section 5. Each loop with an interest in a stream has a feed per partition: the home loop posts
 * it every committed range, in order, without gaps. A record is matched once per loop.
 *
 * A subscriber reads, per partition, either live (at the feed's position) or behind (at an offset
 * of its own, from the feed's recent entries or the log). It falls behind when it refuses a record
 * and becomes live again by itself once it has caught up; nothing is queued for it meanwhile.
 * Thread: the shard's loop. */
#ifndef BROKER_DELIVER_H
#define BROKER_DELIVER_H
#include "server/broker/broker.h"
#include "server/broker/message.h"

struct subscription {     /* one filter of one subscriber; read only for others than deliver.c */
	struct list node; /* in the subscriber */
	struct subscriber *who;
	struct bytes filter; /* owned */
	uint8_t qos;
	bool no_local, retain_as_published;
	uint32_t id;      /* MQTT 5 subscription identifier, 0: none */
	uint64_t priv[4]; /* private: start offsets, place in the trie */
};

struct delivery {
	const struct message *message;
	const struct slice
		*holder; /* shares the chunk that holds message->value, or NULL (inflated) */
	const struct stream *stream; /* NULL for a memory route */
	struct partition *partition; /* NULL for a memory route */
	int64_t offset;              /* -1 for a memory route */
	bool retained;               /* a retained message, sent because of a new subscription */
	struct subscription *const
		*matches; /* all of this subscriber that match (one if retained) */
	int match_count;
	uint8_t qos; /* greatest of the matches' */
};

struct subscriber;
struct map;
struct space;
struct subscriber_ops {
	/* Takes the record (true), or refuses it for now (false: output too full, window full):
	 * then it and all later ones of its partition are offered again after subscriber_ready.
	 * Expired messages and No Local are the subscriber's business (true = done with it). On a
	 * memory route a refused record is dropped. It may subscribe, unsubscribe and even end the
	 * subscriber. */
	bool (*deliver)(struct subscriber *s, const struct delivery *d);
	/* Records between the subscriber's position and where the log now starts were trimmed. */
	void (*skipped)(struct subscriber *s, struct partition *p, int64_t from, int64_t to);
};
struct subscriber { /* embed in the session; init before use */
	const struct subscriber_ops *ops;
	struct shard *shard;
	struct space *space; /* private: of its tenant */
	struct list subscriptions;
	uint32_t subscription_count;
	uint32_t no_local_count; /* of them: with no_local */
	struct map *by_filter;   /* private: once there are many subscriptions */
	struct list private_node, all_node;
	struct subscriber_state
		*state; /* private: positions of those behind; NULL while all live */
};
/* tenant: copied; empty: the default one. It hears of no other. */
void subscriber_init(struct subscriber *s, struct shard *shard, struct bytes tenant,
	const struct subscriber_ops *ops);
/* Leaves the feeds; subscriptions are freed. Completions under way are dropped. */
void subscriber_fini(struct subscriber *s);

struct subscribe { /* embed; one filter being added; the caller's until it asks, back at done */
	struct list node;    /* private */
	struct loop_msg msg; /* private */
	struct subscriber *who;
	struct bytes filter; /* copied */
	uint8_t qos;
	bool no_local, retain_as_published;
	uint32_t id;
	/* Send retained messages after done: always, only if the filter is new, never (MQTT 5
	 * Retain Handling 0, 1, 2). */
	enum { RETAINED_SEND, RETAINED_IF_NEW, RETAINED_NOT } retained;
	/* Resuming a session: records from the positions set by subscriber_start count for it (no
	 * "effective from now"), retained ones are not sent. */
	bool resumed;
	enum err err; /* ERR_INVALID filter, ERR_TOOBIG over a limit, ERR_DENIED */
	bool existed; /* replaced a subscription with the same filter */
	struct subscription *subscription; /* given */
	void (*done)(
		struct subscribe *op); /* every record committed from now on will be delivered */
};
void subscriber_subscribe(
	struct subscribe *op); /* done is never inside the call; in order per subscriber */
/* ERR_NOTFOUND. */
enum err subscriber_unsubscribe(struct subscriber *s, struct bytes filter) MUST_USE;
/* NULL: none with this filter is in force. Good until the next change. */
struct subscription *subscription_find(const struct subscriber *s, struct bytes filter);
/* The subscriber can take records again. */
void subscriber_ready(struct subscriber *s);

/* Durable readers. Where s goes on reading p: everything below was taken or did not match. */
int64_t subscriber_position(const struct subscriber *s, struct partition *p);
/* s starts at offset in p (behind, if the feed is further). Once all its filters are in force, in
 * the turn that the last one came: what is read before a filter is there does not match it. */
void subscriber_start(struct subscriber *s, struct partition *p, int64_t offset);
/* The offset from which subscription counts in p when greater than the position (added while
 * behind), else 0: to be kept with a durable session. */
int64_t subscription_start(const struct subscription *sub, struct partition *p);
void subscription_set_start(struct subscription *sub, struct partition *p, int64_t offset);
/* The streams a subscriber's filters can match, to walk their partitions (cursors). */
int subscriber_stream_count(const struct subscriber *s);
const struct stream *subscriber_stream_at(const struct subscriber *s, int index);

/* One record again (redelivery after a resume): read from the log and offered once to give. r is
 * the module's until done, even if the subscriber ends: then set give to NULL, before. */
struct redeliver {
	struct record_read read; /* private */
	struct partition *partition;
	int64_t offset;
	struct subscriber *who;
	enum err err;                                                /* ERR_RANGE: trimmed */
	void (*give)(struct redeliver *r, const struct delivery *d); /* matches may be empty */
	void (*done)(struct redeliver *r);
};
void subscriber_redeliver(struct redeliver *r);

#endif
