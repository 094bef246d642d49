/* The stream __audit: one JSON record for every change by an administrator, also refused ones, and
 * every refused login, key = the user. Bounded, on disk as well: what is refused over and over is
 * told as a number. Thread: the shard's loop; never waits, never fails. */
#ifndef BROKER_AUDIT_H
#define BROKER_AUDIT_H
#include "server/broker/broker.h"

extern const char audit_stream[];

struct audit_event {
	const char *what; /* "login-refused", "user-add", "stream-delete", ... */
	const char *door; /* NULL: none */
	const char *peer; /* NULL: none */
	struct bytes user, tenant;
	struct bytes object; /* what was changed; empty: nothing */
	enum err err;
	const char *detail; /* NULL: none; never a secret */
};
void audit(struct shard *s, const struct audit_event *e);
void audit_fini(struct shard *s); /* loops stand */

#endif
