/* A change of the catalogue that a client asks for, whatever the door: held to the limits of the
 * tenant, and told of in the stream __audit. And what else clients do that is told of there.
 * Thread: the loop of the shard. */
#ifndef BROKER_ADMIN_CHANGE_H
#define BROKER_ADMIN_CHANGE_H
#include "server/broker/access.h"
#include "server/broker/audit.h"

enum { ADMIN_PEER_MAX = 127 };
struct admin_who { /* who asks, kept: the connection may end before the outcome is there */
	struct shard *shard;
	struct access *by; /* borrowed until all is told */
	const char *door;
	char peer[ADMIN_PEER_MAX + 1];
};
void admin_who(struct admin_who *w, struct shard *s, struct access *by, const char *door,
	const char *peer); /* copies peer; NULL: not known any more */
/* detail NULL or empty: none. */
void admin_tell(const struct admin_who *w, const char *what, struct bytes object, enum err e,
	const char *detail);

struct admin_change { /* embed; the broker's until done */
	struct admin_who who;
	struct meta_op op; /* what is asked, but for limits and done; the outcome */
	void (*done)(struct admin_change *c);
};
void admin_change(struct admin_change *c);

#endif
