/* What the client of a connection may do. A struct access is a user on a loop: its rules, compiled
 * from the catalogue's documents, and its quotas; all connections of the user on that loop share
 * it. It follows the catalogue by itself: a change is in force with the catalogue that brings it.
 *
 * The rule (Kafka's): a matching deny refuses; else a matching allow allows; else refused. The role
 * "admin" may everything. Read, write, delete and alter imply describe; alter-configs implies
 * describe-configs. Thread: the shard's loop; quotas are counted over all loops of the node. */
#ifndef BROKER_ACCESS_H
#define BROKER_ACCESS_H
#include "server/broker/broker.h"
#include "server/broker/rights_doc.h"

struct access;

struct bytes access_user(const struct access *a);   /* "ANONYMOUS" without a login */
struct bytes access_tenant(const struct access *a); /* empty: the default one */
bool access_admin(const struct access *a);          /* of its tenant */
bool access_cluster_admin(const struct access *a);  /* of the cluster and all tenants */

/* name: as the client says it, without the tenant. RESOURCE_CLUSTER: no name; of a tenant other
 * than the default one, it is its part of the cluster: DESCRIBE, CREATE and IDEMPOTENT_WRITE,
 * nothing else whatever rules say. Streams whose names begin with __ are for admins, whatever rules
 * say, and what __audit tells nobody writes or deletes. About 100 ns at most for a stream or group;
 * for topics see access_topic.
 */
bool access_may(struct access *a, enum action action, enum resource resource, struct bytes name);
/* To create a stream of that name: by its own right, or the one to create on the cluster. */
bool access_may_create(struct access *a, struct bytes stream);
/* Some resource of that kind: for what names none. */
bool access_may_any(struct access *a, enum action action, enum resource resource);
/* A topic name, READ or WRITE, for the client with that id (%c). The last decisions are remembered:
 * a topic seen lately costs a look-up. */
bool access_topic(struct access *a, enum action action, struct bytes topic, struct bytes client_id);
/* A filter to subscribe to (what follows $share/NAME/): refused if no single rule allows all of it,
 * or a deny covers it. */
enum access_filter {
	ACCESS_NONE,
	ACCESS_ALL,
	ACCESS_SIFT /* some topics of it are denied: ask access_topic for each delivery */
};
enum access_filter access_filter(struct access *a, struct bytes filter, struct bytes client_id);

/* Told when rules, roles or quotas of the user have changed, or the user has lost its login
 * (deleted, disabled, new password; anonymous ones when that is no longer allowed): then gone, and
 * the connection has to end. Embed one per connection; it holds the access. */
struct access_holder {
	struct list node; /* private */
	struct access *access;
	bool counted; /* private: among the user's connections */
	void (*changed)(struct access_holder *h, bool gone);
};
/* Takes over the caller's share of a (auth.h). changed is never called inside; it may release.
 * ERR_BUSY: more connections than its quota, or its tenant's; then nothing is held or taken. */
enum err access_hold(struct access_holder *h, struct access *a) MUST_USE;
void access_release(struct access_holder *h); /* not held: nothing */
struct access *access_ref(struct access *a);
void access_unref(struct access *a); /* NULL is fine */

/* Quotas (of the user and of the tenant it acts in): counts what has come in or goes out, and gives
 * the ms to stop reading, or delivering, for: 0 nearly always. Tokens of one second may be used at
 * once. */
int64_t access_charge_in(struct access *a, int64_t messages, int64_t bytes);
int64_t access_charge_out(struct access *a, int64_t messages, int64_t bytes);
bool access_limited(const struct access *a); /* some quota is set: else charging does nothing */

/* --- names: what a client says <-> what is inside */

/* NULL: no such stream in the tenant, or no valid name. */
const struct stream *access_stream(const struct access *a, struct bytes name);
/* Whether it is the tenant's; *name is what the client calls it. */
bool access_sees(const struct access *a, const struct stream *s, struct bytes *name);

/* --- for auth.c, and internal users */

/* The user's access on this loop, shared; NULL: no such user, or it is disabled. ERR_NOMEM aborts.
 */
struct access *access_of_user(struct shard *s, struct bytes user, const char *peer);
struct access *access_anonymous(struct shard *s, const char *peer); /* with rules of ANONYMOUS */
/* What access_user named so has now, for what it left to be done later; NULL: it may not come in.
 */
struct access *access_later(struct shard *s, struct bytes user, const char *peer);
/* May everything: on the node's own socket. tenant: acts in it. peer: what it is called. */
struct access *access_all(struct shard *s, struct bytes tenant, const char *peer);
/* a, acting in another tenant; for admins of the cluster. */
struct access *access_in(struct access *a, struct bytes tenant);

/* Life, by broker.c. */
struct rights;
struct rights *rights_new(struct broker *b);
void rights_free(struct rights *r); /* loops stand */

#endif
