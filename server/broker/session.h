/* A client's session, of any protocol: its name (client id), subscriptions, what is in flight to
 * it, what came in at QoS 2, its will. It exists in memory while its client is connected, on the
 * loop of the connection. A durable one (it may outlive the connection) is kept in rows as well
 * (session_rows.h) and costs nothing else while its client is away.
 *
 *   session_open --> claim of the name --> rows: a claim with a new epoch --> resumed --> done
 *   session_close --> will --> rows saved --> name released --> memory gone
 *
 * Thread: the loop of the connection. Owner: this module, from open until close has ended. */
#ifndef BROKER_SESSION_H
#define BROKER_SESSION_H
#include "server/broker/claim.h"
#include "server/broker/deliver.h"
#include "server/broker/publish.h"
#include "server/broker/session_ids.h"
#include "server/broker/session_rows.h"
#include "server/broker/window.h"

struct sessions;     /* of the process */
struct session_rows; /* private */

struct session;
struct session_ops {
	/* As subscriber_ops.deliver; not called before session_resume, nor after session_close. */
	bool (*deliver)(struct session *s, const struct delivery *d);
	/* In flight when the session was left, in order: to be sent again under its packet id. d
	 * NULL: what there is to say again is that it was received (PUBREL). False: this one was
	 * taken, but the next one only after session_ready. */
	bool (*again)(struct session *s, uint16_t packet_id, const struct delivery *d);
	/* session_written has moved. */
	void (*written)(struct session *s);
	/* Another client has come with this name, or the session cannot go on: session_close is
	 * due. */
	void (*fenced)(struct session *s, enum err why);
	/* After session_close: no completion of a subscribe comes any more, owner is not used
	 * again. */
	void (*ended)(struct session *s);
};

struct session {
	struct subscriber reader;
	const struct session_ops *ops;
	void *owner; /* the adapter's */
	struct sessions *all;
	struct claim claim;
	struct window window;
	struct session_ids received;
	struct session_rows *durable;   /* NULL: the session ends with its connection */
	struct session_open *opening;   /* private: until done */
	struct session_again *resuming; /* private: while messages are sent again */
	struct settling *settling;      /* private: did not come to be, and may have left a row */
	struct buf *will;               /* private: encoded (will.h), or NULL */
	struct list unleased;           /* private: acknowledgements wait for the lease */
	uint32_t expiry_s;
	uint32_t subscription_count;
	uint32_t subscription_weight; /* topic_filter_weight of all */
	uint16_t id_len;
	bool refused : 1; /* a delivery was refused: session_ready is owed */
	bool open : 1;    /* deliveries are taken */
	bool closing : 1; /* private */
	uint8_t id[];
};
static inline struct bytes session_id(const struct session *s)
{
	return bytes_of(s->id, s->id_len);
}
struct bytes session_tenant(const struct session *s); /* empty: the default one; part of the id */
static inline struct shard *session_shard(const struct session *s)
{
	return s->reader.shard;
}

struct sessions *sessions_new(struct broker *b, struct loops *loops); /* before loops_run */
/* Waits (at most timeout_ms) until closed sessions are saved; then nothing of it runs any more. Not
 * from a loop, while loops run. */
void sessions_stop(struct sessions *all, int64_t timeout_ms);
void sessions_free(struct sessions *all);
int64_t sessions_count(const struct sessions *all); /* in memory; any thread */

struct session_open { /* what is asked; copied by session_open */
	struct sessions *all;
	struct shard *shard;
	const struct session_ops *ops;
	void *owner;
	struct bytes client_id; /* as it is inside: tenant_id; says whose the session is */
	bool unique;            /* the name was made up just now: nobody else knows it */
	bool clean;             /* what there was is forgotten */
	uint32_t expiry_s;      /* SESSION_NEVER, or 0: ends with the connection */
	struct bytes will;      /* will_encode's bytes; empty: none */
	/* The outcome. On failure there is no session. done runs once, never inside the call. */
	enum err err; /* ERR_UNAVAILABLE and its like; ERR_NOMEM */
	bool present; /* an earlier session goes on */
	struct session *session;
	void (*done)(struct session_open *op);
};
/* Gives a handle for session_open_cancel; good until done runs. ERR_NOMEM. */
enum err session_open(const struct session_open *ask, struct session_open **out) MUST_USE;
/* The client has gone: done will not run. */
void session_open_cancel(struct session_open *op);
/* The client has been told that it is connected: what was in flight is sent again, then deliveries
 * begin. */
void session_resume(struct session *s);
/* The client has gone. will: the will is due (by its delay); else it is forgotten. expiry_s: for a
 * durable session, as it is now. No op runs any more. */
void session_close(struct session *s, bool will, uint32_t expiry_s);

/* Output has room again, or the window has. */
void session_ready(struct session *s);
/* From again: the message cannot be sent again. Gives what again then gives. At QoS 2 its flow is
 * ended by PUBREL (again with NULL), since the client may remember the id. */
bool session_again_gone(struct session *s, uint16_t packet_id);
/* Acknowledged: packet_id is free. Tells the reader that there is room. */
void session_done(struct session *s, uint16_t packet_id);

/* Has the rows written. Everything as it is at the end of this turn is in the log once
 * session_written() has reached the number given. 0 at once for a session that is not durable.
 * subscriptions: they, or qos2 partitions, have changed; else only reading has. */
uint64_t session_write(struct session *s, bool subscriptions);
/* Whether it outlives its connection: what is in flight is in rows. One that does not may still
 * have a row on a cluster, which says no more than where its client is. */
bool session_lasts(const struct session *s);
uint64_t session_written(const struct session *s);
/* Whether its client may be told that something is done. Not while this node cannot reach the table
 * of a session that lasts (session.lease): others may have declared it absent, or have it. So when
 * the lease is there again, the session is proved first by a write in its epoch; `fenced` runs if
 * that is refused, `written` once it may again. */
bool session_may_acknowledge(struct session *s);
/* What is in flight has changed and should be in the rows within a second. */
void session_touch(struct session *s);

/* Publishes at QoS 2, in the session's tenant: once, for a durable session, even over a crash.
 * After done, session_listed. */
enum err session_publish_once(
	struct session *s, const struct message *m, uint16_t packet_id, struct publish *p) MUST_USE;
/* A QoS 2 publish went to this partition: gives the number that session_written must reach before
 * the client may be told so, 0 at once. */
uint64_t session_listed(struct session *s, struct partition *p);

struct session_forget {           /* embed: a released packet id's row goes */
	struct proposal proposal; /* private */
	uint8_t *args;            /* private */
	uint64_t group;
	uint16_t packet_id;
	enum err err;
	void (*done)(struct session_forget *f); /* never inside the call */
};
/* ERR_NOTFOUND: there is nothing to remove, done does not run. ERR_NOMEM. */
enum err session_forget(struct session *s, struct session_forget *f) MUST_USE;

#endif
