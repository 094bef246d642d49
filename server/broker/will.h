/* A will: the message a client leaves to be published when it is gone, and how it waits. Its form,
 * in memory and in the row KEYSPACE_WILL (key: client id): 0/1 version 1; 1/4 delay in s; 5/1 has a
 * message expiry, 6/4 that in s; 10/8 wall ms when it is due, 0: its client is connected, 1: it is
 * on its way; 18/4 length and a record batch that holds the one message; then, of a
 * client that has an access, 1 length and user, 1 length and address. Version 1 has no length and
 * ends with the batch; it is read. Pure, but for will_publish. */
#ifndef BROKER_WILL_H
#define BROKER_WILL_H
#include "server/broker/publish.h"

enum { WILL_DUE_AT = 10, WILL_LEAVING = 1 };

struct will {
	uint32_t delay_s;
	bool has_expiry;
	uint32_t expiry_s; /* of the message, from when it is published */
	int64_t due_ms;
	struct message message;  /* writing: headers as an array */
	struct bytes batch;      /* read */
	struct bytes user, peer; /* read: who leaves it, and from where; user empty: nobody knows */
};
/* ERR_TOOBIG: over bytes_max; ERR_NOMEM. */
enum err will_encode(const struct will *w, size_t bytes_max, struct buf *out) MUST_USE;
/* Reads it without the message. ERR_CORRUPT. */
enum err will_read(struct bytes in, struct will *out) MUST_USE;
void will_set_due(uint8_t *at, int64_t due_ms); /* in place */
/* Says who leaves it, from conn_peer; once. */
void will_say_who(struct buf *will, struct bytes user, const char *peer);

/* Publishes it, in the tenant of its client, if who leaves it may (else ERR_DENIED): rules and
 * users are looked at now, whenever it was left. Waits while the loop has no room. Of a session
 * with a row, by the epoch the will came with, it is published once, by however many, and done
 * comes when it certainly has been. whose NULL: of the default tenant, of no row. done (NULL is
 * fine) runs once, with what became of it, never inside the call. Copies all. ERR_NOMEM: done will
 * not run. */
struct will_of {
	struct bytes client_id; /* as it is inside (tenant.h) */
	uint64_t epoch;
	bool no_row;
};
enum err will_publish(struct shard *s, struct bytes in, const struct will_of *whose,
	void (*done)(void *arg, enum err e), void *arg) MUST_USE;
/* What done was told: it was published, or never can be. Else it is to be tried again. */
bool will_is_over(enum err e);

#endif
