/* Documents lie in leaves of some hundred pointers, in order; a leaf that somebody else has a share
 * of is copied before it is changed. So a change copies one leaf, and sharing all with a catalogue
 * copies the list of leaves: with 100,000 documents some hundred pointers each. Who compares two
 * catalogues passes over the leaves that both have. */
#include "cluster/docs.h"
#include <stdatomic.h>
#include "server/base/mem.h"

enum { LEAF_MAX = 256, LEAF_SMALL = LEAF_MAX / 4 };

struct doc {
	struct catalog_doc d; /* first: others point to it */
	_Atomic uint32_t refs;
	uint8_t data[];
};

struct leaf {
	_Atomic uint32_t refs;
	int count; /* never 0 */
	struct doc *docs[LEAF_MAX];
};

struct docs {
	_Atomic uint32_t refs;
	uint64_t version;
	int count, leaf_count, leaf_room;
	struct leaf **leaves;
	int *starts;         /* of shared ones: the index of each leaf's first */
	struct docs *shared; /* of the one that changes: as it is now; NULL: to be made */
};

/* --- parts --- */

static struct doc *doc_new(struct bytes key, struct bytes value)
{
	struct doc *d = mem_new(sizeof *d + key.len + value.len);

	atomic_init(&d->refs, 1);
	if (key.len > 0)
		memcpy(d->data, key.at, key.len);
	if (value.len > 0)
		memcpy(d->data + key.len, value.at, value.len);
	d->d.key = bytes_of(d->data, key.len);
	d->d.value = bytes_of(d->data + key.len, value.len);
	return d;
}

static void doc_unref(struct doc *d)
{
	if (atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) == 1)
		mem_free(d);
}

static void leaf_unref(struct leaf *l)
{
	if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (int i = 0; i < l->count; i++)
		doc_unref(l->docs[i]);
	mem_free(l);
}

static struct leaf *leaf_new(void)
{
	struct leaf *l = mem_new(sizeof *l);

	atomic_init(&l->refs, 1);
	return l;
}

/* The leaf with that number, ours alone. Nobody takes a share of it meanwhile: only we give them.
 */
static struct leaf *leaf_own(struct docs *d, int at)
{
	struct leaf *old = d->leaves[at], *l;

	if (atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
		return old;
	l = leaf_new();
	l->count = old->count;
	memcpy(l->docs, old->docs, (size_t)l->count * sizeof(struct doc *));
	for (int i = 0; i < l->count; i++)
		atomic_fetch_add_explicit(&l->docs[i]->refs, 1, memory_order_relaxed);
	d->leaves[at] = l;
	leaf_unref(old);
	return l;
}

static void leaves_insert(struct docs *d, int at, struct leaf *l)
{
	if (d->leaf_count == d->leaf_room) {
		d->leaf_room = d->leaf_room > 0 ? d->leaf_room * 2 : 8;
		d->leaves = mem_resize(d->leaves, (size_t)d->leaf_room * sizeof(struct leaf *));
		must(d->leaves != NULL);
	}
	memmove(d->leaves + at + 1, d->leaves + at,
		(size_t)(d->leaf_count - at) * sizeof(struct leaf *));
	d->leaves[at] = l;
	d->leaf_count++;
}

static void leaves_remove(struct docs *d, int at)
{
	leaf_unref(d->leaves[at]);
	d->leaf_count--;
	memmove(d->leaves + at, d->leaves + at + 1,
		(size_t)(d->leaf_count - at) * sizeof(struct leaf *));
}

/* --- finding --- */

/* The last leaf whose first key is not beyond key; the first leaf if all are. */
static int find_leaf(const struct docs *d, struct bytes key)
{
	int low = 0, high = d->leaf_count;

	while (high - low > 1) {
		int mid = low + (high - low) / 2;

		if (bytes_compare(d->leaves[mid]->docs[0]->d.key, key) <= 0)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* The first in the leaf at or after key. */
static int find_in(const struct leaf *l, struct bytes key, bool *same)
{
	int low = 0, high = l->count;

	*same = false;
	while (low < high) {
		int mid = low + (high - low) / 2, order = bytes_compare(l->docs[mid]->d.key, key);

		if (order == 0) {
			*same = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct catalog_doc *docs_get(const struct docs *d, struct bytes key)
{
	const struct leaf *l;
	bool same;
	int at;

	if (d == NULL || d->count == 0)
		return NULL;
	l = d->leaves[find_leaf(d, key)];
	at = find_in(l, key, &same);
	return same ? &l->docs[at]->d : NULL;
}

static bool begins(const struct doc *d, struct bytes prefix)
{
	return d->d.key.len >= prefix.len && bytes_equal(bytes_of(d->d.key.at, prefix.len), prefix);
}

bool docs_any(const struct docs *d, struct bytes prefix)
{
	int leaf, at;
	bool same;

	if (d == NULL || d->count == 0)
		return false;
	leaf = find_leaf(d, prefix);
	at = find_in(d->leaves[leaf], prefix, &same);
	if (at == d->leaves[leaf]->count) {
		if (++leaf == d->leaf_count)
			return false;
		at = 0;
	}
	return begins(d->leaves[leaf]->docs[at], prefix);
}

int docs_count_of(const struct docs *d, struct bytes prefix)
{
	int count = 0, leaf, at;
	bool same;

	if (d == NULL || d->count == 0)
		return 0;
	leaf = find_leaf(d, prefix);
	at = find_in(d->leaves[leaf], prefix, &same);
	for (; leaf < d->leaf_count; leaf++, at = 0) {
		const struct leaf *l = d->leaves[leaf];

		if (at < l->count && begins(l->docs[l->count - 1], prefix)) {
			count += l->count - at;
			continue;
		}
		for (; at < l->count && begins(l->docs[at], prefix); at++)
			count++;
		if (at < l->count)
			break;
	}
	return count;
}

int docs_count(const struct docs *d)
{
	return d != NULL ? d->count : 0;
}

uint64_t docs_version(const struct docs *d)
{
	return d != NULL ? d->version : 0;
}

/* --- changing --- */

struct docs *docs_new(void)
{
	struct docs *d = mem_new(sizeof *d);

	atomic_init(&d->refs, 1);
	return d;
}

static void docs_touch(struct docs *d)
{
	d->version++;
	docs_unref(d->shared);
	d->shared = NULL;
}

/* The leaf is full: its second half becomes one of its own. */
static void split(struct docs *d, int at)
{
	struct leaf *l = leaf_own(d, at), *second = leaf_new();
	int half = LEAF_MAX / 2;

	second->count = l->count - half;
	memcpy(second->docs, l->docs + half, (size_t)second->count * sizeof(struct doc *));
	l->count = half;
	leaves_insert(d, at + 1, second);
}

static void insert(struct docs *d, struct doc *doc)
{
	struct leaf *l;
	bool same;
	int leaf, at;

	if (d->leaf_count == 0) {
		l = leaf_new();
		l->docs[l->count++] = doc;
		leaves_insert(d, 0, l);
		return;
	}
	leaf = find_leaf(d, doc->d.key);
	if (d->leaves[leaf]->count == LEAF_MAX) {
		split(d, leaf);
		leaf = find_leaf(d, doc->d.key);
	}
	l = leaf_own(d, leaf);
	at = find_in(l, doc->d.key, &same);
	memmove(l->docs + at + 1, l->docs + at, (size_t)(l->count - at) * sizeof(struct doc *));
	l->docs[at] = doc;
	l->count++;
}

void docs_put(struct docs *d, struct bytes key, struct bytes value)
{
	struct doc *doc = doc_new(key, value);
	struct leaf *l;
	bool same = false;
	int leaf, at;

	docs_touch(d);
	if (d->count > 0) {
		leaf = find_leaf(d, key);
		at = find_in(d->leaves[leaf], key, &same);
		if (same) {
			l = leaf_own(d, leaf);
			doc_unref(l->docs[at]);
			l->docs[at] = doc;
			return;
		}
	}
	insert(d, doc);
	d->count++;
}

/* Small neighbours become one, so that leaves stay few when much is removed. */
static void merge(struct docs *d, int at)
{
	struct leaf *l, *next;

	if (at + 1 >= d->leaf_count)
		at--;
	if (at < 0 || d->leaves[at]->count + d->leaves[at + 1]->count > LEAF_MAX / 2)
		return;
	l = leaf_own(d, at);
	next = d->leaves[at + 1];
	for (int i = 0; i < next->count; i++) {
		atomic_fetch_add_explicit(&next->docs[i]->refs, 1, memory_order_relaxed);
		l->docs[l->count++] = next->docs[i];
	}
	leaves_remove(d, at + 1);
}

void docs_remove(struct docs *d, struct bytes key)
{
	struct leaf *l;
	bool same;
	int leaf, at;

	if (d->count == 0)
		return;
	leaf = find_leaf(d, key);
	at = find_in(d->leaves[leaf], key, &same);
	if (!same)
		return;
	docs_touch(d);
	d->count--;
	if (d->leaves[leaf]->count == 1) {
		leaves_remove(d, leaf);
		return;
	}
	l = leaf_own(d, leaf);
	doc_unref(l->docs[at]);
	l->count--;
	memmove(l->docs + at, l->docs + at + 1, (size_t)(l->count - at) * sizeof(struct doc *));
	if (l->count < LEAF_SMALL)
		merge(d, leaf);
}

void docs_clear(struct docs *d)
{
	docs_touch(d);
	for (int i = 0; i < d->leaf_count; i++)
		leaf_unref(d->leaves[i]);
	d->leaf_count = d->count = 0;
}

/* --- sharing --- */

const struct docs *docs_share(struct docs *d)
{
	struct docs *s = d->shared;
	int start = 0;

	if (s == NULL) {
		s = docs_new();
		s->version = d->version;
		s->count = d->count;
		s->leaf_count = d->leaf_count;
		s->leaves = mem_new(((size_t)d->leaf_count + 1) * sizeof(struct leaf *));
		s->starts = mem_new(((size_t)d->leaf_count + 1) * sizeof *s->starts);
		for (int i = 0; i < d->leaf_count; i++) {
			atomic_fetch_add_explicit(&d->leaves[i]->refs, 1, memory_order_relaxed);
			s->leaves[i] = d->leaves[i];
			s->starts[i] = start;
			start += d->leaves[i]->count;
		}
		d->shared = s;
	}
	return docs_ref(s);
}

const struct docs *docs_ref(const struct docs *d)
{
	struct docs *mine = (struct docs *)(uintptr_t)d;

	if (d != NULL)
		atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed);
	return d;
}

static void docs_release(struct docs *d)
{
	for (int i = 0; i < d->leaf_count; i++)
		leaf_unref(d->leaves[i]);
	mem_free(d->leaves);
	mem_free(d->starts);
	mem_free(d);
}

void docs_unref(const struct docs *d)
{
	struct docs *mine = (struct docs *)(uintptr_t)d;

	if (d != NULL && atomic_fetch_sub_explicit(&mine->refs, 1, memory_order_acq_rel) == 1)
		docs_release(mine);
}

void docs_free(struct docs *d)
{
	if (d == NULL)
		return;
	docs_unref(d->shared);
	docs_release(d);
}

const struct catalog_doc *docs_at(const struct docs *d, int index)
{
	int low = 0, high;

	must(index >= 0 && index < docs_count(d));
	high = d->leaf_count;
	while (high - low > 1) {
		int mid = low + (high - low) / 2;

		if (d->starts[mid] <= index)
			low = mid;
		else
			high = mid;
	}
	return &d->leaves[low]->docs[index - d->starts[low]]->d;
}

int docs_seek(const struct docs *d, struct bytes key)
{
	bool same;
	int leaf;

	if (d == NULL || d->count == 0)
		return 0;
	leaf = find_leaf(d, key);
	return d->starts[leaf] + find_in(d->leaves[leaf], key, &same);
}

/* --- comparing --- */

static const struct leaf *leaf_at(const struct docs *d, int leaf)
{
	return d != NULL && leaf < d->leaf_count ? d->leaves[leaf] : NULL;
}

static void step(const struct leaf *l, int *leaf, int *at)
{
	if (++*at == l->count) {
		++*leaf;
		*at = 0;
	}
}

static bool same_doc(const struct doc *a, const struct doc *b)
{
	return a == b || bytes_equal(a->d.value, b->d.value);
}

bool docs_changed(const struct docs *old, const struct docs *now, struct catalog_docs_walk *w,
	const struct catalog_doc **was, const struct catalog_doc **is)
{
	for (;;) {
		const struct leaf *a = leaf_at(old, w->old_leaf), *b = leaf_at(now, w->now_leaf);
		struct doc *x = a != NULL ? a->docs[w->old_at] : NULL;
		struct doc *y = b != NULL ? b->docs[w->now_at] : NULL;
		int order;

		if (x == NULL && y == NULL)
			return false;
		if (a == b && w->old_at == 0 && w->now_at == 0) {
			w->old_leaf++;
			w->now_leaf++;
			continue;
		}
		order = x == NULL   ? 1
			: y == NULL ? -1
			: x == y    ? 0
				    : bytes_compare(x->d.key, y->d.key);
		if (order <= 0)
			step(a, &w->old_leaf, &w->old_at);
		if (order >= 0)
			step(b, &w->now_leaf, &w->now_at);
		if (order == 0 && same_doc(x, y))
			continue;
		*was = order <= 0 ? &x->d : NULL;
		*is = order >= 0 ? &y->d : NULL;
		return true;
	}
}
