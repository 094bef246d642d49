/* The catalogue's rows, in keyspace 1 of group 1: their encoding, and how changes of them are
 * checked and evaluated. Encoding is pure; evaluation runs on the meta group's home loop.
 *
 *	c          the cluster: id, number of tables, next group to be given out
 *	s/NAME     a stream
 *	k/KEY      a setting: the value as it is */
#ifndef CLUSTER_META_H
#define CLUSTER_META_H
#include "cluster/node.h"

enum {
	META_GROUP_ID = 1,
	META_TABLE_FIRST = 2, /* groups of the tables */
	META_TABLES_MAX = 256,
	META_STREAM_FIRST = 1024, /* groups of stream partitions */
	META_KEYSPACE = 1,
	META_GROUPS_MAX = 10000, /* of a node: Raft's timers and memory are made for that many */
	META_STREAM_PARTITIONS_MAX = 4096,
	META_SETTINGS_MAX = 1024,
};

struct meta_cluster {
	uint8_t id[16];
	uint32_t tables;
	uint64_t next_group;
	int64_t founded_ms;
};
void meta_cluster_encode(const struct meta_cluster *c, struct buf *out);
enum err meta_cluster_decode(struct bytes in, struct meta_cluster *out) MUST_USE;

struct meta_stream {
	char *name; /* owned, like all below */
	uint8_t uuid[16];
	int64_t created_ms;
	uint16_t replicas;
	enum store_family log_family; /* by retention when it was created */
	int setting_count;
	struct stream_setting *settings;
	int group_count;
	uint64_t *groups; /* a partition each */
};
void meta_stream_encode(const struct meta_stream *s, struct buf *out);
/* Gives a stream with all but the name. ERR_MALFORMED. */
enum err meta_stream_decode(struct bytes in, struct meta_stream **out) MUST_USE;
void meta_stream_free(struct meta_stream *s);                                  /* NULL is fine */
const char *meta_stream_setting(const struct meta_stream *s, const char *key); /* NULL: not set */
/* As a number; else the default. */
int64_t meta_stream_number(const struct meta_stream *s, const char *key, int64_t otherwise);

bool meta_name_valid(struct bytes name);
/* One setting of a stream. ERR_INVALID, ERR_UNSUPPORTED, with why. */
enum err meta_setting_check(
	const char *key, const char *value, char *why, size_t why_size) MUST_USE;
enum store_family meta_family(int64_t retention_ms);

/* What evaluation needs to know of the node. */
struct meta_view {
	const struct node_conf *conf;
	int group_count;
};
const struct meta_view *node_meta_view(const struct node *n);
/* proposal.evaluate of a struct meta_op. */
enum err meta_evaluate(struct proposal *p, struct eval *v) MUST_USE;

struct meta_founding { /* the first change: makes the cluster's row unless it is there */
	struct proposal proposal;
	struct meta_cluster cluster;
};
enum err meta_evaluate_founding(struct proposal *p, struct eval *v) MUST_USE;

#endif
