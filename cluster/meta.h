/* The catalogue's rows, in keyspace 1 of group 1: their encoding (meta_row.c), what may be set
 * (meta_setting.c), changes as bytes (meta_op.c), and how changes are checked and evaluated
 * (meta.c). All but evaluation is pure; that runs on the meta group's home loop of its leader.
 *
 *	c          the cluster: id, number of tables, next group and incarnation to be given out
 *	s/NAME     a stream
 *	n/ID       a node, big endian
 *	g/GROUP    where the replicas of a group are to be, big endian
 *	k/KEY      a setting: the value as it is
 *	d/KEY      a document: the value as it is
 *	dn         how many documents there are
 *	b          replicas are to be evened out: since when, big endian; gone when they are */
#ifndef CLUSTER_META_H
#define CLUSTER_META_H
#include "cluster/docs.h"
#include "cluster/placement.h"

enum {
	META_GROUP_ID = 1,
	META_TABLE_FIRST = 2, /* groups of the tables */
	META_TABLES_MAX = 256,
	META_STREAM_FIRST = 1024, /* groups of stream partitions */
	META_KEYSPACE = 1,
	META_GROUPS_MAX = 10000, /* replicas of a node: Raft's timers and memory are made for that
				    many */
	META_STREAM_PARTITIONS_MAX = 4096,
	META_SETTINGS_MAX = 1024,
	META_MEMBERS_MAX = PLACEMENT_NODES_MAX,
	META_NODES_MAX = PLACEMENT_NODES_MAX,
	META_DOORS_MAX = 32,
	META_TEXT_MAX = 1024,
	META_PLACES_MAX = 256, /* changed at once */
	META_LIMITS_MAX = 8,
};

struct meta_cluster {
	uint8_t id[16];
	uint32_t tables;
	uint64_t next_group;
	uint32_t next_incarnation;
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
/* cleanup.policy and what belongs to compaction, as set or by default. */
void meta_stream_cleanup(
	const struct meta_stream *s, bool *compacts, bool *deletes, struct compact_policy *policy);
void meta_setting_fini(struct stream_setting *s);

struct meta_node {
	uint32_t id; /* not in the row's value */
	enum node_state state;
	uint8_t instance[16];
	/* Replicas of this node with a lower incarnation went with the data of an instance before.
	 */
	uint32_t incarnation_min;
	int64_t joined_ms;
	char *name, *rack, *address; /* owned, like the doors */
	int door_count;
	struct stream_setting *doors;
};
void meta_node_encode(const struct meta_node *n, struct buf *out);
enum err meta_node_decode(struct bytes in, struct meta_node **out) MUST_USE; /* all but the id */
void meta_node_free(struct meta_node *n);                                    /* NULL is fine */

struct meta_place {
	uint64_t group; /* not in the row's value */
	int founder_count, member_count, voter_count;
	uint64_t founders[META_MEMBERS_MAX]; /* replicas that start the group */
	uint64_t members[META_MEMBERS_MAX];  /* voters first */
};
void meta_place_encode(const struct meta_place *p, struct buf *out);
enum err meta_place_decode(struct bytes in, struct meta_place *out) MUST_USE;
uint64_t meta_place_on(const struct meta_place *p, uint32_t node); /* the member there; 0: none */
bool meta_place_founded_by(const struct meta_place *p, uint64_t replica);

enum {
	META_TENANT_MAX = 63,
	META_BARE_NAME_MAX = 249,
	META_NAME_MAX = META_TENANT_MAX + 1 + META_BARE_NAME_MAX
};
struct meta_docs { /* row dn */
	uint32_t count;
	uint64_t bytes;   /* of keys and values */
	uint64_t changes; /* grows with each */
};
enum { META_DOCS_BYTES = 20 };
void meta_docs_encode(const struct meta_docs *d, uint8_t out[META_DOCS_BYTES]);
enum err meta_docs_decode(struct bytes in, struct meta_docs *out) MUST_USE;

bool meta_tenant_valid(struct bytes tenant);  /* 1-63 of [a-z0-9-], not "default" */
bool meta_bare_name_valid(struct bytes name); /* as Kafka allows it */
bool meta_name_valid(struct bytes name);      /* a bare one, or TENANT/NAME */
bool meta_name_internal(struct bytes name);   /* begins with __, without the tenant */
/* One setting of a stream. ERR_INVALID, ERR_UNSUPPORTED, with why. */
enum err meta_setting_check(
	const char *key, const char *value, char *why, size_t why_size) MUST_USE;
enum store_family meta_family(bool compacts, int64_t retention_ms);

/* --- changes as bytes: what any node asks of the leader of the meta group --- */
enum {                    /* beside enum meta_kind; the numbers are the wire's */
	META_JOIN = 32,   /* a node comes, comes back or tells its addresses */
	META_PLACES = 33, /* like META_PLACE, of several groups; those that are gone are left out */
	META_BALANCED = 34
};
struct meta_asked_place {
	uint64_t group;
	int count, voters; /* voters 0: all vote */
	uint32_t nodes[META_MEMBERS_MAX];
};
struct meta_request {
	int kind; /* enum meta_kind or one of those above */
	bool check_only, force;
	char *name;
	int64_t partitions, replicas;
	int setting_count;
	struct stream_setting *settings; /* value NULL: remove */
	uint32_t node_id;
	enum node_state node_state;
	int place_count;
	struct meta_asked_place *places;
	struct meta_node *node; /* META_JOIN */
	int doc_count;          /* META_DOCS; what is borrowed lies in the bytes decoded */
	struct meta_doc *docs;
	struct bytes docs_none;
	int limit_count;
	struct meta_limit *limits; /* likewise */
};
void meta_request_encode(const struct meta_request *q, struct buf *out);
enum err meta_request_decode(struct bytes in, struct meta_request **out) MUST_USE;
void meta_request_free(struct meta_request *q); /* NULL is fine; not for borrowed parts */

struct meta_founding { /* makes the cluster's row */
	struct meta_cluster cluster;
	struct meta_node *node; /* who founds */
};
void meta_founding_encode(const struct meta_founding *f, struct buf *out);
enum err meta_founding_decode(struct bytes in, struct meta_founding *out) MUST_USE;
void meta_founding_fini(struct meta_founding *f); /* of a decoded one */

/* The reply of META_JOIN; of others, and with an error, it is a line for the user. */
struct meta_joined {
	uint8_t cluster[16];
	uint64_t replica; /* of the catalogue, on the node that joined */
};
void meta_joined_encode(const struct meta_joined *j, struct buf *out);
enum err meta_joined_decode(struct bytes in, struct meta_joined *out) MUST_USE;

/* --- evaluation --- */
enum meta_alive { META_SILENT, META_ALIVE, META_ALIVE_UNKNOWN };
/* What evaluation needs to know of the leader's node; the owner of the meta group's partition. */
struct meta_view {
	const struct node_conf *conf;
	/* As applied: the documents, and the row dn they belong to. */
	const struct docs *docs;
	const struct meta_docs *docs_row;
	void *arg;
	/* Nodes with their loads as applied; groups of all kinds but the catalogue. */
	void (*placement)(void *arg, struct placement *out);
	enum meta_alive (*alive)(void *arg, uint32_t node);
	/* Groups that count on the node still, or may, whatever their rows say. */
	int (*held)(void *arg, uint32_t node);
	/* Whether a replica of the group on that node may still have a vote (one that went with its
	 * data does not count). */
	bool (*votes)(void *arg, uint64_t group, uint32_t node);
	/* How balancing would go: groups that change. */
	int (*balance_count)(void *arg);
	/* What there is, as applied, of what the limit is about. */
	int64_t (*count)(void *arg, const struct meta_limit *l);
};
/* The reply of a refusal, or of a check, is one line for the user. Gives e. */
enum err meta_say(struct eval *v, enum err e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Whether so many more may come to be: ERR_QUOTA, said. */
enum err meta_may_grow(struct eval *v, const struct meta_view *view, const struct meta_limit *l,
	int64_t more) MUST_USE;
/* Whether what has that name counts for the limit (of settings, documents). */
bool meta_limited(const struct meta_limit *l, struct bytes name);
extern const struct proposal_kind meta_kind, meta_found_kind;
enum err meta_change_docs(struct eval *v, const struct meta_view *view,
	const struct meta_request *q) MUST_USE; /* meta_docs.c's part */

#endif
