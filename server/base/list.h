/* An intrusive doubly linked list: the node sits in the thing listed. Owner's thread only. */
#ifndef BASE_LIST_H
#define BASE_LIST_H
#include <stdbool.h>
#include <stddef.h>

struct list { /* a head, or a node; a node that is in no list points to itself */
	struct list *next, *prev;
};

/* The struct of the given type whose member `field` is at node. */
#define list_entry(node, type, field) ((type *)(void *)((char *)(node)-offsetof(type, field)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}
static inline void list_push_back(struct list *head, struct list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}
static inline void list_push_front(struct list *head, struct list *n)
{
	list_push_back(head->next, n);
}
/* Takes n out of whatever list holds it; n may be in none. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}
/* Takes and gives the first node, NULL when empty. */
static inline struct list *list_pop(struct list *head)
{
	struct list *n = head->next;
	if (n == head)
		return NULL;
	list_remove(n);
	return n;
}
/* All of from, in order, behind what is in to. */
static inline void list_move_all(struct list *from, struct list *to)
{
	struct list *n;
	while ((n = list_pop(from)) != NULL)
		list_push_back(to, n);
}

#endif
