/* Users, rules and quotas as administrators see and change them, whatever door they come through.
 * Each change is one change of the catalogue's documents; when done runs it is in force on every
 * loop of this node, and on the others as soon as they have it. Each leaves a record in the stream
 * __audit. Who may ask is the door's to check first (action ALTER or DESCRIBE on RESOURCE_CLUSTER,
 * or an admin of the tenant). Thread: the shard's loop. */
#ifndef BROKER_RIGHTS_ADMIN_H
#define BROKER_RIGHTS_ADMIN_H
#include "server/broker/access.h"
#include "server/broker/secret.h"

enum rights_change_kind {
	USER_ADD,   /* ERR_EXISTS */
	USER_ALTER, /* password, roles, disabled; those given. ERR_NOTFOUND */
	/* With its rules and quota; those of its rules that don't fit into the change that takes
	 * the user away go by others after it. Of a user that is gone already, by a change that
	 * did not come to its end, the rules left in `tenant`. ERR_NOTFOUND */
	USER_DELETE,
	RULES_ADD,    /* those that exist are left as they are */
	RULES_DELETE, /* exact ones; those that do not exist are left out */
	QUOTA_SET     /* all limits of one; none left: it goes */
};
enum { QUOTA_AS_IS = -2 };   /* in place of a limit that QUOTA_SET leaves alone */
struct rights_change {       /* embed; the broker's until done; what is asked is borrowed as long */
	struct meta_op op;   /* private */
	struct loop_msg msg; /* private */
	struct loop_timer timer; /* private */
	void *work;              /* private */
	struct shard *shard;
	/* Who asks: for the audit, and a bound: who is not an admin of the cluster changes its own
	 * tenant only, and no quota of tenants or of all; only admins make admins or change them.
	 * ERR_DENIED. NULL: the node itself. */
	struct access *by;
	const char *door; /* "http"; NULL: none */
	const char *peer; /* from where */
	enum rights_change_kind kind;
	bool check_only;
	/* Users: */
	struct bytes name, tenant;
	const struct bytes *password; /* NULL: as it is */
	/* One kind, made by the client (Kafka's SCRAM), or NULL. The one for plain logins goes: it
	 * would know the password before. */
	const struct secret *secret;
	enum secret_kind drop;     /* this kind goes (Kafka's SCRAM), else ERR_NOTFOUND; 0: none */
	const struct bytes *roles; /* NULL: as they are */
	int role_count;
	enum { USER_AS_IS, USER_ENABLE, USER_DISABLE } able;
	bool first; /* USER_ADD only while there is no user at all; else ERR_CONFLICT */
	/* Rules: */
	const struct rule *rules;
	int rule_count;
	/* Quotas: */
	struct quota_doc quota;
	/* The outcome: ERR_EXISTS, ERR_NOTFOUND, ERR_INVALID, ERR_TOOBIG, ERR_DENIED, ERR_CONFLICT
	 * (nobody would be left to administer the cluster; or others change the same over and
	 * over), ERR_UNAVAILABLE, ... */
	enum err err;
	char why[160];
	void (*done)(struct rights_change *c); /* never inside the call */
};
void rights_change(struct rights_change *c);

/* Walks what is in force, in order; *at starts at 0; false at the end. What is given is borrowed
 * from the catalogue: good for this turn. tenant NULL: of all. */
bool rights_user_next(
	const struct catalog *c, int *at, const struct bytes *tenant, struct user_doc *out);
bool rights_user(const struct catalog *c, struct bytes name, struct user_doc *out);
bool rights_rule_next(
	const struct catalog *c, int *at, const struct bytes *tenant, struct rule *out);
bool rights_quota_next(const struct catalog *c, int *at, struct quota_doc *out);
bool rights_quota(
	const struct catalog *c, enum quota_kind kind, struct bytes name, struct quota_doc *out);
bool rights_any_user(const struct catalog *c);
/* Tenants there are: the default one, then those of users and of streams, in the order of their
 * streams. *out: the one given before; false at the end. */
bool rights_tenant_next(const struct catalog *c, int *at, struct bytes *out);
bool rights_tenant_exists(const struct catalog *c, struct bytes tenant);

/* auth.bootstrap: the first administrator, while there is no user. Boot; repeats by itself until it
 * is done or there is a user. text is wiped. */
void rights_bootstrap(struct broker *b, const char *text);
void rights_bootstrap_fini(struct broker *b); /* loops stand */

#endif
