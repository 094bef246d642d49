/* A node is a place between levels: what was said up to there. Below it are, by the next level: in
 * a hash those that are plain text, one for '+', and in a list those that are neither (a part of a
 * level, or %c in it), each with its text to be compared. '#' is bits of the node before it, since
 * it matches that one's level, too.
 *
 * A walk goes down plain text and keeps the other ways for later. Each node is come to by one way
 * only, so there are never more of those than nodes that are not plain text, and they have room
 * from the beginning. */
#include "server/broker/acl_tree.h"
#include "server/base/map.h"
#include "server/base/mem.h"

struct node {
	struct acl_bits here, below; /* of what ends here; of what has '#' here */
	struct map plain;
	struct node *only; /* of plain, while there is one: mostly so, and no need to hash */
	struct node *plus, *parts;
	struct node *next; /* of parts */
	struct node *made; /* the one made before; of the root the last: all of them */
	bool open;         /* of parts: the level begins with text, and anything follows */
	struct bytes text; /* of plain and parts */
};
struct way { /* down from a node, with what of the topic is left */
	const struct node *node;
	struct bytes rest;
	bool more;
};
struct acl_tree {
	struct node root;
	struct way *ways;
	size_t count; /* nodes that are not plain text */
};

static struct node *node_new(struct acl_tree *t, struct bytes text)
{
	struct node *n = mem_new(sizeof *n + text.len);
	n->made = t->root.made;
	t->root.made = n;
	if (text.len > 0)
		memcpy(n + 1, text.at, text.len);
	n->text = bytes_of(n + 1, text.len);
	return n;
}

struct acl_tree *acl_tree_new(void)
{
	return mem_new(sizeof(struct acl_tree));
}

void acl_tree_free(struct acl_tree *t)
{
	if (t == NULL)
		return;
	for (struct node *n = &t->root, *made; n != NULL; n = made) {
		made = n->made;
		map_fini(&n->plain);
		if (n != &t->root)
			mem_free(n);
	}
	mem_free(t->ways);
	mem_free(t);
}

/* ---- adding */

static bool holds_mark(struct bytes level)
{
	return level.len >= 2 && memmem(level.at, level.len, "%c", 2) != NULL;
}

static void count_way(struct acl_tree *t)
{
	struct way *more = mem_resize(t->ways, (t->count + 1) * sizeof *more);
	must(more != NULL);
	t->ways = more;
	t->count++;
}

static struct node *part_below(struct acl_tree *t, struct node *n, struct bytes level, bool open)
{
	for (struct node *p = n->parts; p != NULL; p = p->next)
		if (p->open == open && bytes_equal(p->text, level))
			return p;
	struct node *p = node_new(t, level);
	p->open = open;
	p->next = n->parts;
	n->parts = p;
	count_way(t);
	return p;
}

static struct node *plain_below(struct acl_tree *t, struct node *n, struct bytes level)
{
	struct node *child = map_get(&n->plain, level);
	if (child == NULL) {
		child = node_new(t, level);
		map_put(&n->plain, child->text, child);
		n->only = n->plain.count == 1 ? child : NULL;
	}
	return child;
}

static struct node *plus_below(struct acl_tree *t, struct node *n)
{
	if (n->plus == NULL) {
		n->plus = node_new(t, bytes_of(NULL, 0));
		count_way(t);
	}
	return n->plus;
}

void acl_tree_add(struct acl_tree *t, struct bytes text, bool prefixed, struct acl_bits b)
{
	struct node *n = &t->root;
	struct bytes level;
	for (bool more = true; topic_level_next(&text, &more, &level);) {
		bool single = level.len == 1 && !prefixed;
		if (single && level.at[0] == '#') {
			acl_bits_add(&n->below, b);
			return;
		}
		if (single && level.at[0] == '+')
			n = plus_below(t, n);
		else if (prefixed && !more)
			n = part_below(t, n, level, true);
		else if (holds_mark(level))
			n = part_below(t, n, level, false);
		else
			n = plain_below(t, n, level);
	}
	acl_bits_add(&n->here, b);
}

/* ---- looking up */

/* Whether the level is what the part says, with id in place of %c; of an open one, begins so. */
static bool part_fits(const struct node *part, struct bytes level, struct bytes id)
{
	const uint8_t *p = part->text.at, *end = p + part->text.len;
	size_t at = 0;
	while (p < end) {
		bool mark = p + 1 < end && p[0] == '%' && p[1] == 'c';
		struct bytes want = mark ? id : bytes_of(p, 1);
		if (level.len - at < want.len || memcmp(level.at + at, want.at, want.len) != 0)
			return false;
		at += want.len;
		p += mark ? 2 : 1;
	}
	return part->open || at == level.len;
}

/* The next level; false: there is none. Levels are short, and this is most of what a walk does. */
static inline bool level_next(struct way *w, struct bytes *level)
{
	size_t len = 0;
	if (!w->more)
		return false;
	while (len < w->rest.len && w->rest.at[len] != '/')
		len++;
	*level = bytes_of(w->rest.at, len);
	w->more = len < w->rest.len;
	if (w->more)
		w->rest = bytes_of(w->rest.at + len + 1, w->rest.len - len - 1);
	return true;
}

static inline const struct node *plain_find(const struct node *n, struct bytes level)
{
	if (n->only != NULL)
		return bytes_equal(n->only->text, level) ? n->only : NULL;
	return n->plain.count > 0 ? map_get(&n->plain, level) : NULL;
}

struct acl_bits acl_tree_find(struct acl_tree *t, struct bytes topic, struct bytes client_id)
{
	/* MQTT-4.7.2-1: a leading wildcard matches no topic that starts with $. */
	bool hidden = topic.len > 0 && topic.at[0] == '$';
	struct way at = {&t->root, topic, true};
	struct acl_bits found = {0, 0};
	struct bytes level;
	for (size_t later = 0;;) {
		const struct node *n = at.node, *plain = NULL;
		bool wild = !hidden || n != &t->root;
		if (wild)
			acl_bits_add(&found, n->below);
		if (!at.more)
			acl_bits_add(&found, n->here);
		if (level_next(&at, &level)) {
			if (n->plus != NULL && wild)
				t->ways[later++] = (struct way){n->plus, at.rest, at.more};
			for (const struct node *p = n->parts; p != NULL; p = p->next) {
				if (!part_fits(p, level, client_id))
					continue;
				if (p->open)
					acl_bits_add(&found, p->here);
				else
					t->ways[later++] = (struct way){p, at.rest, at.more};
			}
			plain = plain_find(n, level);
		}
		at.node = plain;
		if (plain == NULL && later == 0)
			return found;
		if (plain == NULL)
			at = t->ways[--later];
	}
}
