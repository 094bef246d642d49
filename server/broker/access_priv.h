/* What access.c (accesses and their checks), grants.c (rules compiled) and rights.c (life,
 * following the catalogue) share, and auth.c. All of a shard is its loop's; struct rights is fixed
 * from boot on, its quotas are atomic. */
#ifndef BROKER_ACCESS_PRIV_H
#define BROKER_ACCESS_PRIV_H
#include "server/broker/access.h"
#include "server/broker/acl.h"
#include "server/broker/broker_priv.h"
#include "server/broker/quota.h"

enum { ANONYMOUS_AUTO, ANONYMOUS_ON, ANONYMOUS_OFF }; /* auth.anonymous */
enum { CERTIFICATE_OFF, CERTIFICATE_CN, CERTIFICATE_SUBJECT, CERTIFICATE_SAN };
enum { ACCESS_HOST_MAX = 63 };

struct shard_rights {
	struct rights *rights;
	struct shard *shard;
	struct catalog_watcher watcher;
	const struct catalog *catalog; /* held; NULL: none yet, and nobody is known */
	bool any_user;
	struct map accesses, grants; /* by their keys; those that are in force */
	int anonymous_count;
	struct loop_timer anonymous_timer; /* set while there are any: may they still stay? */
	struct list all;                   /* accesses, those that are gone, too */
	struct list telling;               /* accesses whose holders are to be told */
	struct loop_hook tell_hook;
	struct auth_home *auth;
};
struct rights {
	struct broker *broker;
	struct quotas *quotas;
	struct auth_node *auth;
	int count;
	struct shard_rights shards[];
};
static inline struct shard_rights *rights_of(const struct shard *s)
{
	return &s->broker->rights->shards[s->index];
}

/* Rules of a user, as they concern one tenant and host. Never changes; once its documents do it is
 * dead: out of the map, and whoever has it asks for another. */
struct grants {
	struct shard_rights *home;
	int refs;
	bool dead;
	struct acl *acl;
	struct bytes key, user, tenant, host; /* host empty: rules that name none */
	int host_count;                       /* of host empty: hosts that rules name, in order */
	struct bytes *hosts;
	int principal_count;
	uint64_t *principals; /* whose rules they are: hashes of rule_prefix */
};
/* The rules of a user of the tenant that come from host; a share. The user exists. */
struct grants *grants_get(
	struct shard_rights *r, struct bytes user, struct bytes tenant, struct bytes host);
void grants_unref(struct grants *g); /* NULL is fine */
/* Ends those that the documents which differ concern. principals: by hashes of rule_prefix; users:
 * by name. */
void grants_follow(struct shard_rights *r, const struct map *principals, const struct map *users);

enum access_kind { BY_USER, BY_NOBODY, BY_ALL };
struct access {
	struct shard_rights *home;
	struct bytes key;
	enum access_kind kind;
	int refs;
	bool gone;
	bool fresh; /* admin, cluster_admin and grants are of now */
	bool admin, cluster_admin;
	bool open; /* of nobody: may everything, as there is no user */
	bool loopback;
	struct grants *grants;           /* NULL: admin, or nothing is allowed */
	struct bytes user, tenant, host; /* tenant: acts in it */
	struct list holders, telling;    /* telling: those still to be told */
	struct list in_telling, in_all;
	int64_t held;
	bool limited;
	struct limit {
		struct limiter *limiter; /* NULL: no quota */
		int64_t most[QUOTA_WHATS];
	} limits[2]; /* of the user, of the tenant */
};

/* rights.c */
bool rights_known(const struct shard_rights *r); /* a catalogue is in force: users are known */
/* Borrowed from the catalogue in force. */
bool rights_find_user(const struct shard_rights *r, struct bytes name, struct user_doc *out);

/* auth.c */
void auth_init(struct rights *r);
void auth_fini(struct rights *r); /* loops stand */

/* access.c */
void access_init(struct shard_rights *r);
void access_free(struct access *a);
void access_set_limits(struct access *a);                /* from the quotas in force */
struct bytes access_tenant_name(const struct access *a); /* as quotas name it */
void access_end(struct access *a);                       /* gone; its holders are told */
void access_stale(struct access *a);                     /* so are they */
void access_tell(struct loop_hook *h);                   /* the turn's part of telling */
bool access_anonymous_stays(const struct access *a);     /* may nobody from there still be in? */
bool anonymous_allowed(const struct shard_rights *r, bool loopback);
struct bytes host_of(const char *peer, char out[ACCESS_HOST_MAX + 1]);
bool host_is_loopback(struct bytes host);

#endif
