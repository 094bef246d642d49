/* Rules, compiled: those that concern one user on one host (its own, its roles', everybody's), so
 * that a check looks at few of them. Pure but for a cache of decisions about topics. Owner: an
 * access's grants (access.c); thread: its loop. */
#ifndef BROKER_ACL_H
#define BROKER_ACL_H
#include "server/broker/access.h"

struct acl;

struct acl *acl_new(void);
/* Copies what it needs. user is what %u stands for; who the rule names and its host have been
 * looked at by the caller. */
void acl_add(struct acl *a, const struct rule *r, struct bytes user);
void acl_seal(struct acl *a); /* all are added: checks may begin */
void acl_free(struct acl *a); /* NULL is fine */

/* resource: not RESOURCE_TOPIC. */
bool acl_may(const struct acl *a, enum action action, enum resource resource, struct bytes name);
bool acl_may_any(const struct acl *a, enum action action, enum resource resource);
bool acl_topic(struct acl *a, enum action action, struct bytes topic, struct bytes client_id);
enum access_filter acl_filter(
	struct acl *a, enum action action, struct bytes filter, struct bytes client_id);

/* Whether every topic that matches b matches a. Pure. */
bool acl_filter_covers(struct bytes a, struct bytes b);
/* The same with a prefix of topics in place of a; whether some topic has both. */
bool acl_prefix_covers(struct bytes prefix, struct bytes filter);
bool acl_prefix_overlaps(struct bytes prefix, struct bytes filter);

#endif
