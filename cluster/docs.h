/* The catalogue's documents in memory: sorted, shared between catalogues. The model has the one
 * that changes, on its loop; docs_share gives what it is now, which never changes and may be read
 * and let go on any thread. */
#ifndef CLUSTER_DOCS_H
#define CLUSTER_DOCS_H
#include "cluster/node.h"

struct docs;

struct docs *docs_new(void);
void docs_put(struct docs *d, struct bytes key, struct bytes value); /* copies both */
void docs_remove(struct docs *d, struct bytes key);                  /* not there: nothing */
void docs_clear(struct docs *d);
/* A share of all as it is now: the same one again when nothing has changed since. */
const struct docs *docs_share(struct docs *d);
void docs_free(struct docs *d); /* the one that changes; NULL is fine */

const struct docs *docs_ref(const struct docs *d);
void docs_unref(const struct docs *d); /* of shared ones; NULL is fine */

/* Of either kind; NULL has none. */
const struct catalog_doc *docs_get(const struct docs *d, struct bytes key);
bool docs_any(const struct docs *d, struct bytes prefix);
int docs_count_of(const struct docs *d, struct bytes prefix); /* those that begin so */
int docs_count(const struct docs *d);
uint64_t docs_version(const struct docs *d); /* grows with each change */

/* Of shared ones. */
const struct catalog_doc *docs_at(const struct docs *d, int index);
int docs_seek(const struct docs *d, struct bytes key);
bool docs_changed(const struct docs *old, const struct docs *now, struct catalog_docs_walk *at,
	const struct catalog_doc **was, const struct catalog_doc **is);

#endif
