/* What an administrator sees and does, whatever door it comes through: routes and settings as they
 * are in force, partitions at a glance, trimming a stream, one record to a stream, the retained
 * value of a topic, the state of the node. Thread: the loop of the shard. Completions never run
 * inside the call that started them. */
#ifndef BROKER_ADMIN_H
#define BROKER_ADMIN_H
#include "server/broker/message.h"
#include "server/broker/produce.h"

/* --- looking */

struct admin_partition {
	uint64_t group;
	int64_t first_offset, next_offset, bytes;
	int32_t epoch;
	bool leads;
};
void admin_partition(const struct stream *s, int index, struct admin_partition *out);

struct admin_route {
	const char *name, *text;
	enum { ROUTE_BUILT_IN, ROUTE_OF_CONF, ROUTE_OF_CLUSTER } source;
};
/* Of a tenant (empty: the default one), in the order in which they are asked; *i starts at 0; false
 * at the end. Names are without the tenant; the setting is route.NAME or route.TENANT/NAME. */
bool admin_route_next(struct shard *s, struct bytes tenant, int *i, struct admin_route *out);

struct admin_node {
	int64_t id;
	const char *name, *rack, *cluster_name, *cluster_id;
	bool ready;
	int loops, streams, partitions, leading, tables, tables_leading;
	uint64_t catalog_version;
	int64_t records, bytes; /* in the streams now */
	int64_t memory_bytes;   /* resident; -1 not known */
	int64_t cpu_us, files;  /* used so far; open now */
};
void admin_node(struct shard *s, struct admin_node *out);

/* --- doing */

/* Which partition a record with that key goes to (Kafka's default); without one they take turns. */
struct partition *admin_choose(const struct stream *s, const struct bytes *key, int *index);

struct admin_produce {          /* embed: one record to a stream */
	struct produce produce; /* private */
	struct batch_builder builder;
	enum err err;
	int partition;
	int64_t offset, timestamp_ms;
	void (*done)(struct admin_produce *p);
};
/* Borrows all of it. partition -1: by key. key, value NULL: null. Fails without done: ERR_RANGE no
 * such partition, and what produce_start and batch_builder_add say. */
struct admin_record {
	const struct bytes *key, *value;
	const struct record_header *headers;
	int header_count;
	int64_t partition, timestamp_ms;
};
enum err admin_produce(struct admin_produce *p, struct shard *s, const struct stream *to,
	const struct admin_record *record) MUST_USE;

struct admin_trim {   /* given by admin_trim, freed by admin_trim_free after done */
	enum err err; /* the first that went wrong */
	int parts;    /* partitions that were trimmed */
	void (*done)(struct admin_trim *t);
	void *arg;
};
/* Forgets what lies below offset, or with time_ms >= 0 what is older, in one partition or in all
 * (-1). An offset past the end means the end. ERR_RANGE. */
struct admin_trim_what {
	int64_t partition, offset, time_ms;
};
enum err admin_trim(struct shard *s, const struct stream *of, const struct admin_trim_what *what,
	void (*done)(struct admin_trim *t), void *arg) MUST_USE;
void admin_trim_free(struct admin_trim *t);

struct admin_retained {         /* embed: the retained value of a topic */
	struct row_read read;   /* private */
	struct bytes topic;     /* borrowed until done */
	struct bytes tenant;    /* borrowed for the call; empty: the default one */
	enum err err;           /* ERR_NOTFOUND */
	struct message message; /* borrowed from the read: admin_retained_fini */
	int64_t offset;         /* -1: of a memory route */
	void (*done)(struct admin_retained *r);
};
/* Fails without done: ERR_INVALID topic, ERR_NOTFOUND no route takes it, ERR_UNAVAILABLE. */
enum err admin_retained(struct admin_retained *r, struct shard *s) MUST_USE;
void admin_retained_fini(struct admin_retained *r);

#endif
