/* Filters of rules as a tree of their levels: one walk over a topic finds what all that match it
 * say, however many they are. A level may hold %c, the client's id or a part of what is there; an
 * entry may also be a prefix, whose last level is the beginning of one. Owner: acl.c. Thread: one
 * at a time, a look-up too. */
#ifndef BROKER_ACL_TREE_H
#define BROKER_ACL_TREE_H
#include "server/broker/topic.h"

struct acl_bits { /* one per action */
	uint16_t allow, deny;
};
static inline void acl_bits_add(struct acl_bits *to, struct acl_bits b)
{
	to->allow |= b.allow;
	to->deny |= b.deny;
}

struct acl_tree;

struct acl_tree *acl_tree_new(void);
void acl_tree_free(struct acl_tree *t); /* NULL is fine */
/* Copies text. */
void acl_tree_add(struct acl_tree *t, struct bytes text, bool prefixed, struct acl_bits b);
/* client_id stands for %c as it is: it holds no slash and no wildcard. */
struct acl_bits acl_tree_find(struct acl_tree *t, struct bytes topic, struct bytes client_id);

#endif
