/* Building catalogues (node.h has what is read from them). A catalogue is immutable and shared; it
 * holds streams, which are immutable and shared between catalogues, which hold partitions. */
#ifndef CLUSTER_CATALOG_H
#define CLUSTER_CATALOG_H
#include "cluster/node.h"

/* A stream as catalogues hold it; copies all strings; shares the partitions. */
struct stream *catalog_stream_new(const struct stream *like);
struct stream *catalog_stream_ref(const struct stream *s);
void catalog_stream_unref(const struct stream *s); /* NULL is fine */

struct docs;
struct catalog_parts {
	uint64_t version;
	struct stream *const *streams; /* in any order; shared */
	int stream_count;
	struct partition *const *tables; /* shared */
	int table_count;
	const struct stream_setting *settings; /* copied */
	int setting_count;
	struct partition *meta; /* shared; NULL: not yet */
	/* Copied, in any order; all of a place is: members too. */
	const struct cluster_node *nodes;
	int node_count;
	const struct group_place *places;
	int place_count;
	const struct docs *docs; /* shared; NULL: none */
};
struct catalog *catalog_new(const struct catalog_parts *p); /* one share */

#endif
