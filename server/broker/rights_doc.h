/* Who may do what, as documents of the catalogue (node.h): users, rules, quotas. Their keys and
 * values are on disk. Pure; any thread.
 *
 *	u NUL NAME                                   a user; names are the cluster's, not a tenant's
 *	a NUL TENANT NUL PRINCIPAL NUL rule's rest   a rule, all of it in the key; no value
 *	q NUL KIND NUL NAME                          a quota; NAME empty: of those without one
 *	t NUL TENANT '/' NAME                        the tenant has that user; no value
 *	m NUL "admins"                               moves when one of the cluster's goes */
#ifndef BROKER_RIGHTS_DOC_H
#define BROKER_RIGHTS_DOC_H
#include "server/base/buf.h"

enum {
	USER_NAME_MAX = 255,
	ROLE_NAME_MAX = 63,
	USER_ROLES_MAX = 32,
	RULE_NAME_MAX = 512, /* of a resource or pattern */
	RULE_HOST_MAX = 63
};

/* --- users */

enum secret_kind { SECRET_CRYPT = 1, SECRET_SCRAM_256 = 2, SECRET_SCRAM_512 = 3 };
enum { SECRET_KINDS = 3 };
struct secret { /* how a password is recognised; never the password */
	enum secret_kind kind;
	struct bytes crypt;                        /* SECRET_CRYPT: crypt(3)'s text */
	struct bytes salt, stored_key, server_key; /* SCRAM (RFC 5802) */
	uint32_t iterations;
};
struct user_doc { /* borrowed from the document, or for writing */
	struct bytes name, tenant;
	bool disabled;
	int64_t created_ms;
	int role_count;
	struct bytes roles[USER_ROLES_MAX]; /* "admin": everything in the tenant; in the default
					       tenant also the cluster, and all tenants */
	int secret_count;                   /* at most one of a kind */
	struct secret secrets[SECRET_KINDS];
};
bool user_name_valid(struct bytes name); /* UTF-8, 1-255 bytes, no control characters, no ':' */
bool role_name_valid(struct bytes name); /* 1-63 of [a-z0-9-] */
void user_key(struct bytes name, struct buf *out);
void user_write(const struct user_doc *u, struct buf *out);
enum err user_read(struct bytes key, struct bytes value, struct user_doc *out) MUST_USE;
const struct secret *user_secret(const struct user_doc *u, enum secret_kind kind); /* or NULL */

/* --- rules */

/* The numbers of Kafka's ACL operations and resource types where they exist: on disk, on the wire.
 */
enum action {
	ACTION_ALL = 2,
	ACTION_READ = 3,
	ACTION_WRITE = 4,
	ACTION_CREATE = 5,
	ACTION_DELETE = 6,
	ACTION_ALTER = 7,
	ACTION_DESCRIBE = 8,
	ACTION_CLUSTER = 9,
	ACTION_DESCRIBE_CONFIGS = 10,
	ACTION_ALTER_CONFIGS = 11,
	ACTION_IDEMPOTENT_WRITE = 12,
	ACTION_END = 13
};
enum resource {
	RESOURCE_STREAM = 2, /* Kafka's TOPIC */
	RESOURCE_GROUP = 3,
	RESOURCE_CLUSTER = 4, /* name "kafka-cluster" */
	RESOURCE_TRANSACTION = 5,
	RESOURCE_USER = 7,
	RESOURCE_TOPIC =
		32, /* an MQTT topic; names are filters, with %c (client id) and %u (user) */
	RESOURCE_END = 33
};
enum rule_pattern { RULE_LITERAL = 3, RULE_PREFIXED = 4 }; /* literal "*": all */
enum principal_kind { PRINCIPAL_USER = 'u', PRINCIPAL_ROLE = 'r' };
struct rule {
	struct bytes tenant;
	enum principal_kind principal;
	struct bytes who; /* "*" with PRINCIPAL_USER: everybody; "ANONYMOUS": without a login */
	enum resource resource;
	enum rule_pattern pattern;
	struct bytes name;
	struct bytes host; /* "*", or the client's address as text */
	bool deny;
	enum action action;
};
/* ERR_INVALID with why: an action that the resource has not, a bad name, filter or host. */
enum err rule_check(const struct rule *r, char *why, size_t why_size) MUST_USE;
void rule_key(const struct rule *r, struct buf *out);
/* The part of the key up to and with PRINCIPAL NUL: all rules of a principal start with it. */
void rule_prefix(struct bytes tenant, enum principal_kind kind, struct bytes who, struct buf *out);
enum err rule_read(struct bytes key, struct rule *out) MUST_USE; /* borrows */
const char *action_word(enum action a);     /* "read", "describe-configs", ... */
const char *resource_word(enum resource r); /* "stream", "topic", "group", "cluster", ... */
bool action_of(struct bytes word, enum action *out);
bool resource_of(struct bytes word, enum resource *out);
bool resource_has(enum resource r, enum action a); /* whether a rule may say so */

/* --- quotas: of a user or a tenant */

enum quota_kind { QUOTA_USER = 'u', QUOTA_TENANT = 't' };
enum quota_what {
	QUOTA_BYTES_IN, /* per second and node, like the next three */
	QUOTA_BYTES_OUT,
	QUOTA_MESSAGES_IN,
	QUOTA_MESSAGES_OUT,
	QUOTA_CONNECTIONS, /* on each node */
	QUOTA_STREAMS,     /* of a tenant only, in the whole cluster, like those behind it */
	QUOTA_PARTITIONS,
	QUOTA_USERS,
	QUOTA_RULES,
	QUOTA_ROUTES,
	QUOTA_WHATS
};
struct quota_doc {
	enum quota_kind kind;
	struct bytes name;          /* empty: of those that have none; "default": of that tenant */
	int64_t limit[QUOTA_WHATS]; /* -1: none */
};
const char *quota_word(enum quota_what w); /* "bytes-in", ... */
bool quota_of(struct bytes word, enum quota_what *out);
/* ERR_INVALID: the name, or a limit: rates are at least 1, numbers of things may be 0. */
enum err quota_check(const struct quota_doc *q) MUST_USE;
void quota_key(enum quota_kind kind, struct bytes name, struct buf *out);
void quota_write(const struct quota_doc *q, struct buf *out);
enum err quota_read(struct bytes key, struct bytes value, struct quota_doc *out) MUST_USE;

#endif
