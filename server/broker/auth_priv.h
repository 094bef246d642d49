/* What auth.c (logins) and auth_scram.c share. */
#ifndef BROKER_AUTH_PRIV_H
#define BROKER_AUTH_PRIV_H
#include "server/base/worker.h"
#include "server/broker/access_priv.h"
#include "server/broker/auth.h"
#include "server/broker/secret.h"

enum { AUTH_KEY_BYTES = 32, AUTH_SEEN_BYTES = 16, AUTH_ADDRESS_MAX = 119 };

struct auth_source { /* an address that failed logins came from, or a user they were for */
	uint64_t hash;
	int64_t last_ms;
	int64_t used_us; /* what its refusals take of its part is used up until then */
	int32_t failures, under_way;
};
struct auth_home { /* a shard's */
	struct list attempts;
	struct auth_source *sources, *users; /* by hash; NULL until the first failure */
	uint8_t (*seen)[AUTH_SEEN_BYTES];    /* passwords that were right; NULL until the first */
};
struct auth_node { /* the process's; fixed but for the atomics */
	struct workers *hashers;
	_Atomic int under_way;
	_Atomic bool stopping;
	uint8_t key[AUTH_KEY_BYTES];
};

struct auth_who { /* a peer, kept */
	const char *door;
	char address[AUTH_ADDRESS_MAX + 1];
	uint64_t source;
};
void auth_keep(const struct auth_peer *p, struct auth_who *out);
/* Whether a login from there is looked at: false while its refusals take all of its part. */
bool auth_may_try(const struct shard_rights *r, const struct auth_who *who);
/* Counts, logs and records a refused login; gives the ms that its answer waits for. */
int64_t auth_refused(struct shard_rights *r, const struct auth_who *who, struct bytes user);
void auth_accepted(struct shard_rights *r);

#endif
