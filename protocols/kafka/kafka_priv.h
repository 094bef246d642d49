/* The inside of the Kafka door: connections, requests and their answers in order. */
#ifndef KAFKA_KAFKA_PRIV_H
#define KAFKA_KAFKA_PRIV_H
#include "protocols/kafka/kafka.h"
#include "protocols/kafka/kafka_schema.h"
#include "protocols/kafka/kafka_wire.h"
#include "server/base/mem.h"
#include "server/broker/access.h"
#include "server/broker/admin_change.h"
#include "server/broker/group_expire.h"
#include "server/broker/group_home.h"
#include "server/broker/place.h"
#include "server/broker/producer.h"
#include "server/broker/producer_expire.h"
#include "server/broker/stream.h"
#include "server/broker/tenant.h"

struct kafka_login; /* kafka_sasl.c */

struct kafka_loop { /* what the connections of one loop share */
	struct kafka *kafka;
	struct loop *loop;
	struct shard *shard;
	struct kafka_out out;
	struct list spare; /* requests kept for reuse */
	uint32_t spare_count;
	int64_t inflight;   /* bytes produced on this loop and not answered */
	struct list hungry; /* connections that pause until inflight falls */
	int64_t held;       /* memory of large requests that are not produces */
	int64_t fetched;    /* bytes being read for fetches, or on their way to sockets */
	struct producer_ids ids;
	struct sweep producers;
	struct group_expire groups;
};

struct kafka_address {
	char *host; /* NULL: this door is off */
	int32_t port;
};

/* The first "host:port" of a list; an IPv6 address loses its brackets. false: there is none. */
bool kafka_address_read(const char *list, struct bytes *host, int32_t *port);

struct kafka {
	const struct kafka_conf *conf;
	struct broker *broker;
	struct loops *all;
	struct groups *groups;
	struct kafka_loop *loops;
	struct kafka_address plain, tls;
};

struct kafka_conn {
	struct conn *conn;
	struct kafka_loop *home;
	struct list requests; /* in the order of their answers */
	uint32_t count;
	int64_t inflight; /* bytes of unanswered requests that are large */
	int64_t fetched;  /* bytes of batches sent, as long as they are counted for the loop */
	uint32_t fetches; /* not yet answered */
	bool greeted;     /* has sent a request that made sense */
	bool closed;
	bool paused; /* for one or more of: too many requests, bytes, output, a login, a quota */
	struct list hungry;
	struct map waits;          /* struct fetch_wait, by the partition's number */
	struct access_holder who;  /* its access is NULL until there is a login, if one is needed */
	struct kafka_login *login; /* from a handshake to the outcome */
	bool login_busy;           /* the broker looks at what it was given */
	bool logged_in;            /* by SASL */
	bool muted;                /* a quota is used up: not read until the timer fires */
	int64_t muted_until_ms;
	struct loop_timer mute;
	uint8_t beats;           /* heartbeats in a row, nothing else, that went to that loop */
	struct loop *beats_home; /* of their group; NULL: this one */
	struct kafka_move *move; /* on its way there */
};

struct kafka_request {
	struct list node;
	struct kafka_conn *kc;
	struct access *access; /* a share; NULL: only logins may look at it */
	struct kafka_header h;
	struct arena arena;
	const void *req;
	void *res;
	bool ready;           /* res may be sent */
	bool silent;          /* no response goes out */
	bool sent;            /* out of the queue; lives for what is outstanding */
	uint32_t outstanding; /* completions that will come */
	int64_t bytes;        /* produced, counted as in flight */
	int64_t unpacked;     /* of message sets of old clients */
	int64_t messages;     /* in those */
	int64_t held;         /* memory of the arena counted as such */
	int64_t fetching;     /* bytes it may be given, counted as fetched */
	struct loop_timer timer;
	struct list awaiting; /* new streams that do not lead yet */
	void *op;             /* the handler's, in the arena */
	/* Nobody waits for the answer any more, or it had better come now: answer soon. */
	void (*hurry)(struct kafka_request *r);
	void (*fini)(struct kafka_request *r); /* what the handler holds beside the arena */
};

/* The API answers: res is filled. Runs at once if r is the oldest, frees r. */
void kafka_answer(struct kafka_request *r);
/* Closes the connection: what was asked makes no sense, or memory is out. */
void kafka_fail(struct kafka_request *r, enum err e);
/* One completion fewer to come. False: r is gone or only lives for others, do no more. */
bool kafka_landed(struct kafka_request *r);
void kafka_land(struct kafka_request *r); /* likewise; the last one answers */

static inline struct shard *kafka_shard(const struct kafka_request *r)
{
	return r->kc->home->shard;
}
static inline const struct catalog *kafka_catalog(const struct kafka_request *r)
{
	return shard_catalog(r->kc->home->shard);
}
static inline struct kafka *kafka_of(const struct kafka_request *r)
{
	return r->kc->home->kafka;
}
int32_t kafka_node_id(const struct kafka *k);
/* Nodes as clients of this connection's kind (plain, TLS) reach them. */
struct kafka_broker {
	int32_t id;
	struct bytes host, rack; /* rack.at NULL: none */
	int32_t port;
};
/* Nodes that have such a door, in order of id; memory of the request. NULL: r has failed. */
const struct kafka_broker *kafka_brokers(struct kafka_request *r, uint32_t *count);
/* That node; false: it is none, or has no such door. */
bool kafka_broker(struct kafka_request *r, uint32_t node, struct kafka_broker *out);
/* Counts bytes more as produced by r and in flight. */
void kafka_producing(struct kafka_request *r, int64_t more);
/* Counts bytes more (or fewer) as being fetched by r. */
void kafka_fetching(struct kafka_request *r, int64_t more);
/* Zeroed memory of the request; NULL: r has failed. */
void *kafka_take(struct kafka_request *r, size_t len);
/* A copy for the answer. An empty one when memory is out, which fails r. */
struct bytes kafka_copy(struct kafka_request *r, struct bytes b);
/* The same, counted at once as held. b itself when memory is out: then r has failed (r->ready). */
struct bytes kafka_keep(struct kafka_request *r, struct bytes b);
/* NULL: r has failed. */
void *kafka_list(struct kafka_request *r, const struct kafka_struct *type, uint32_t count);

/* An API: what is served. */
struct kafka_handler {
	int16_t key, first, last;
	/* Strings of the request are used after the handler returns. */
	bool keep;
	void (*run)(struct kafka_request *r);
};
extern const struct kafka_handler kafka_handlers[];
extern const int kafka_handlers_count;

/* Loops: kafka_move.c, but for kafka_enter, with which a connection begins on one. */
void kafka_enter(struct kafka_conn *kc, struct conn *c, struct kafka_loop *h);
/* A heartbeat was answered, by the loop its group is at home on. */
void kafka_beat(struct kafka_conn *kc, struct loop *home);
void kafka_no_beat(struct kafka_conn *kc); /* it has other things to do */
/* There is input: true if the connection takes it to another loop. */
bool kafka_moves(struct kafka_conn *kc);
void kafka_move_end(struct kafka_conn *kc); /* it closes */

/* Logins: kafka_sasl.c. */
/* Lets it in without one, if that is allowed; else its access stays NULL. */
enum err kafka_login_open(struct kafka_conn *kc) MUST_USE;
void kafka_login_closed(struct kafka_conn *kc);
bool kafka_login_raw(const struct kafka_conn *kc); /* frames are tokens, not requests */
enum err kafka_login_token(struct kafka_conn *kc, struct bytes token) MUST_USE;
void kafka_on_sasl_handshake(struct kafka_request *r);
void kafka_on_sasl_authenticate(struct kafka_request *r);

/* What who asked may do, and what things are called for them: kafka_rights.c. */
bool kafka_may(
	struct kafka_request *r, enum action action, enum resource resource, struct bytes name);
bool kafka_may_stream(struct kafka_request *r, enum action action, struct bytes name);
bool kafka_may_cluster(struct kafka_request *r, enum action action);
/* The same for users, rules and quotas, which admins of a tenant have to themselves. */
bool kafka_may_rights(struct kafka_request *r, enum action action);
/* The stream that they call so; NULL: there is none. Says nothing of rights. */
const struct stream *kafka_stream(struct kafka_request *r, struct bytes name);
/* Whether it is of their tenant; *name is what they call it. */
bool kafka_sees(struct kafka_request *r, const struct stream *s, struct bytes *name);
/* The name inside, with a NUL, in memory of r. NULL: not a valid name, or r has failed. */
char *kafka_inside(struct kafka_request *r, struct bytes name);
bool kafka_name_valid(struct bytes name);
/* The group id inside: 0 and *inside, or why not. */
int16_t kafka_group(
	struct kafka_request *r, enum action action, struct bytes id, struct bytes *inside);
/* The same without a right. */
int16_t kafka_group_inside(struct kafka_request *r, struct bytes id, struct bytes *inside);
/* Bits of what they may do, for the fields authorized_operations. */
int32_t kafka_stream_operations(struct kafka_request *r, struct bytes name);
int32_t kafka_group_operations(struct kafka_request *r, struct bytes id);
int32_t kafka_cluster_operations(struct kafka_request *r); /* 0: may not even describe it */

/* Who asks, for the audit. */
void kafka_who(struct kafka_request *r, struct admin_who *out);
void kafka_tell_group(struct kafka_request *r, const char *what, struct bytes id, enum group_err e);
/* Starts a change of the catalogue, of which only op is filled: one more that is outstanding. */
void kafka_change(
	struct kafka_request *r, struct admin_change *c, void (*done)(struct admin_change *c));
/* Begins a change of users, rules or quotas by who asked; the rest is the caller's to fill in. */
struct rights_change;
void kafka_rights_change(struct kafka_request *r, struct rights_change *c, int kind,
	void (*done)(struct rights_change *c));

/* The connection is not read for so long at least; gives the ms to tell the client. */
int32_t kafka_throttle(struct kafka_request *r, int64_t ms);
/* Reads on, or stops, by what holds for the connection now. */
void kafka_pace(struct kafka_conn *kc);
/* A copy that ends with NUL; NULL: r has failed. */
char *kafka_text(struct kafka_request *r, struct bytes b);

void kafka_on_api_versions(struct kafka_request *r);
void kafka_on_metadata(struct kafka_request *r);
void kafka_on_describe_cluster(struct kafka_request *r);
void kafka_on_find_coordinator(struct kafka_request *r);
void kafka_on_produce(struct kafka_request *r);
void kafka_on_init_producer_id(struct kafka_request *r);
void kafka_on_fetch(struct kafka_request *r);
void kafka_fetch_closed(struct kafka_conn *kc);
void kafka_fetch_changed(struct kafka_conn *kc); /* rights: fetches that wait look again */
void kafka_on_list_offsets(struct kafka_request *r);
void kafka_on_offset_for_leader_epoch(struct kafka_request *r);
void kafka_on_delete_records(struct kafka_request *r);
void kafka_on_create_topics(struct kafka_request *r);
void kafka_on_delete_topics(struct kafka_request *r);
void kafka_on_create_partitions(struct kafka_request *r);
void kafka_on_describe_configs(struct kafka_request *r);
void kafka_on_alter_configs(struct kafka_request *r);
void kafka_on_incremental_alter_configs(struct kafka_request *r);
void kafka_on_describe_log_dirs(struct kafka_request *r);
void kafka_on_describe_acls(struct kafka_request *r);
void kafka_on_create_acls(struct kafka_request *r);
void kafka_on_delete_acls(struct kafka_request *r);
void kafka_on_describe_scram_users(struct kafka_request *r);
void kafka_on_alter_scram_users(struct kafka_request *r);
void kafka_on_describe_client_quotas(struct kafka_request *r);
void kafka_on_alter_client_quotas(struct kafka_request *r);
void kafka_on_list_reassignments(struct kafka_request *r);
void kafka_on_elect_leaders(struct kafka_request *r);
void kafka_on_describe_quorum(struct kafka_request *r);
void kafka_on_describe_producers(struct kafka_request *r);
void kafka_on_join_group(struct kafka_request *r);
void kafka_on_sync_group(struct kafka_request *r);
void kafka_on_heartbeat(struct kafka_request *r);
void kafka_on_leave_group(struct kafka_request *r);
void kafka_on_offset_commit(struct kafka_request *r);
void kafka_on_offset_fetch(struct kafka_request *r);
void kafka_on_offset_delete(struct kafka_request *r);
void kafka_on_describe_groups(struct kafka_request *r);
void kafka_on_list_groups(struct kafka_request *r);
void kafka_on_delete_groups(struct kafka_request *r);

/* Waits until a new stream is in force here and its partitions lead, so that the client which asked
 * for it is not sent around once more; not for long, nor when the client has gone. Embed in memory
 * of r, which is outstanding meanwhile. */
struct kafka_new_stream {
	struct list node;        /* private */
	struct loop_timer timer; /* private */
	int tries;               /* private */
	struct kafka_request *r;
	const char *name;
	void (*done)(struct kafka_new_stream *n); /* may run inside the call */
};
void kafka_await_leaders(struct kafka_new_stream *n);

/* Kafka's error codes. */
enum kafka_code {
	KAFKA_UNKNOWN_SERVER_ERROR = -1,
	KAFKA_NONE = 0,
	KAFKA_OFFSET_OUT_OF_RANGE = 1,
	KAFKA_CORRUPT_MESSAGE = 2,
	KAFKA_UNKNOWN_TOPIC = 3,
	KAFKA_LEADER_NOT_AVAILABLE = 5,
	KAFKA_NOT_LEADER = 6,
	KAFKA_REQUEST_TIMED_OUT = 7,
	KAFKA_MESSAGE_TOO_LARGE = 10,
	KAFKA_OFFSET_METADATA_TOO_LARGE = 12,
	KAFKA_COORDINATOR_LOADING = 14,
	KAFKA_COORDINATOR_NOT_AVAILABLE = 15,
	KAFKA_NOT_COORDINATOR = 16,
	KAFKA_INVALID_TOPIC = 17,
	KAFKA_NOT_ENOUGH_REPLICAS = 19,
	KAFKA_NOT_ENOUGH_REPLICAS_AFTER = 20,
	KAFKA_INVALID_ACKS = 21,
	KAFKA_ILLEGAL_GENERATION = 22,
	KAFKA_INCONSISTENT_PROTOCOL = 23,
	KAFKA_INVALID_GROUP_ID = 24,
	KAFKA_UNKNOWN_MEMBER = 25,
	KAFKA_INVALID_SESSION_TIMEOUT = 26,
	KAFKA_REBALANCE_IN_PROGRESS = 27,
	KAFKA_TOPIC_DENIED = 29,
	KAFKA_GROUP_DENIED = 30,
	KAFKA_CLUSTER_DENIED = 31,
	KAFKA_INVALID_TIMESTAMP = 32,
	KAFKA_UNSUPPORTED_MECHANISM = 33,
	KAFKA_ILLEGAL_SASL_STATE = 34,
	KAFKA_UNSUPPORTED_VERSION = 35,
	KAFKA_TOPIC_EXISTS = 36,
	KAFKA_INVALID_PARTITIONS = 37,
	KAFKA_INVALID_REPLICATION = 38,
	KAFKA_INVALID_ASSIGNMENT = 39,
	KAFKA_INVALID_CONFIG = 40,
	KAFKA_INVALID_REQUEST = 42,
	KAFKA_UNSUPPORTED_FORMAT = 43,
	KAFKA_POLICY_VIOLATION = 44,
	KAFKA_OUT_OF_ORDER_SEQUENCE = 45,
	KAFKA_INVALID_PRODUCER_EPOCH = 47,
	KAFKA_TRANSACTIONAL_ID_DENIED = 53,
	KAFKA_STORAGE_ERROR = 56,
	KAFKA_SASL_FAILED = 58,
	KAFKA_NON_EMPTY_GROUP = 68,
	KAFKA_GROUP_NOT_FOUND = 69,
	KAFKA_FETCH_SESSION_NOT_FOUND = 70,
	KAFKA_FENCED_LEADER_EPOCH = 74,
	KAFKA_UNKNOWN_LEADER_EPOCH = 75,
	KAFKA_UNSUPPORTED_COMPRESSION = 76,
	KAFKA_OFFSET_NOT_AVAILABLE = 78,
	KAFKA_MEMBER_ID_REQUIRED = 79,
	KAFKA_PREFERRED_NOT_AVAILABLE = 80,
	KAFKA_GROUP_MAX_SIZE = 81,
	KAFKA_FENCED_INSTANCE = 82,
	KAFKA_ELIGIBLE_NOT_AVAILABLE = 83,
	KAFKA_ELECTION_NOT_NEEDED = 84,
	KAFKA_GROUP_SUBSCRIBED = 86,
	KAFKA_INVALID_RECORD = 87,
	KAFKA_RESOURCE_NOT_FOUND = 91,
	KAFKA_DUPLICATE_RESOURCE = 92,
	KAFKA_UNACCEPTABLE_CREDENTIAL = 93,
	KAFKA_UNKNOWN_TOPIC_ID = 100
};
int16_t kafka_code(enum err e);         /* of reads, writes and changes in general */
int16_t kafka_produce_code(enum err e); /* of produce_start and its outcome */
int16_t kafka_fetch_code(enum err e);   /* of stream_read for a fetch */
int16_t kafka_group_code(enum group_err e);
int16_t kafka_admin_code(enum err e);  /* of node_change */
int16_t kafka_rights_code(enum err e); /* of rights_change */

/* The partition, led here, and its leader epoch check: 0, or why not (*out is set unless it is
 * unknown). */
int16_t kafka_find(struct kafka_request *r, struct bytes topic, int32_t index, int32_t epoch,
	struct partition **out);
/* The same, for who may read from any replica. */
int16_t kafka_find_replica(struct kafka_request *r, struct bytes topic, int32_t index,
	int32_t epoch, struct partition **out);
/* Who leads it and in which epoch, for those who asked the wrong node: -1, -1 when not known. */
void kafka_hint(
	struct kafka_request *r, const struct partition *p, int32_t *leader, int32_t *epoch);

enum kafka_metric {
	M_REQUESTS,
	M_MALFORMED,
	M_PRODUCE_BYTES,
	M_FETCH_BYTES,
	M_FETCH_WAITS,
	M_REFUSED_BATCHES,
	M_THROTTLED,
	M_MOVED,
	M_KAFKA_COUNT
};
void kafka_count(struct kafka_loop *h, enum kafka_metric row, int64_t n);

#endif
