/* The client's side of the Kafka protocol, in the classic encodings that every broker since
 * 2.1 speaks: ApiVersions 0, Metadata 4, CreateTopics 2, Produce 7, Fetch 4, JoinGroup 2,
 * Heartbeat 1, SyncGroup 1, SaslHandshake 1, SaslAuthenticate 0. Requests are
 * written whole, with their length; responses are read from the bytes after theirs. */
#ifndef BENCH_KAFKA_WIRE_H
#define BENCH_KAFKA_WIRE_H
#include "server/base/wire.h"

enum kafka_api {
	KAFKA_PRODUCE = 0,
	KAFKA_FETCH = 1,
	KAFKA_METADATA = 3,
	KAFKA_JOIN_GROUP = 11,
	KAFKA_HEARTBEAT = 12,
	KAFKA_SYNC_GROUP = 14,
	KAFKA_SASL_HANDSHAKE = 17,
	KAFKA_API_VERSIONS = 18,
	KAFKA_CREATE_TOPICS = 19,
	KAFKA_SASL_AUTHENTICATE = 36
};

enum {
	KAFKA_OK = 0,
	KAFKA_TOPIC_EXISTS = 36,
	KAFKA_SMALL_BYTES = 1024,
	KAFKA_NODES_MAX = 16,
	KAFKA_HOST_BYTES = 256
};

size_t kafka_versions_write(uint8_t *at, size_t size);
/* Whether the broker speaks all the versions above; says on stderr which one it lacks. */
bool kafka_versions_read(struct bytes body);

struct kafka_topic {
	const char *name;
	uint32_t partitions, replicas;
};
size_t kafka_create_write(uint8_t *at, size_t size, const struct kafka_topic *t);
int16_t kafka_create_read(struct bytes body); /* the topic's error code; -1 malformed */

struct kafka_place { /* where the leaders are */
	uint32_t nodes;
	int32_t node_id[KAFKA_NODES_MAX];
	char host[KAFKA_NODES_MAX][KAFKA_HOST_BYTES];
	uint32_t port[KAFKA_NODES_MAX];
	uint32_t partitions; /* of the topic that have a leader */
	uint32_t *leader;    /* by partition: index of its node above; freed by the caller */
};
size_t kafka_metadata_write(uint8_t *at, size_t size, const char *topic);
/* Error code of the topic or of a partition, 0 when each of want partitions has a leader; 5
 * (leader not available) when fewer have. */
int16_t kafka_metadata_read(struct bytes body, uint32_t want, struct kafka_place *out);

struct kafka_produce {
	const char *topic;
	uint32_t partition, correlation;
	int16_t acks;
	uint32_t records_bytes;
};
/* All of a Produce request but the records, which follow it on the wire. */
size_t kafka_produce_write(uint8_t *at, size_t size, const struct kafka_produce *p);
struct kafka_produced {
	uint32_t correlation;
	int16_t error;
	uint64_t base_offset;
};
bool kafka_produce_read(struct bytes body, struct kafka_produced *out);

struct kafka_fetch {
	const char *topic;
	uint32_t partition, correlation;
	uint64_t offset;
	uint32_t bytes_max;
};
size_t kafka_fetch_write(uint8_t *at, size_t size, const struct kafka_fetch *f);
struct kafka_fetched {
	uint32_t correlation;
	int16_t error;
	uint64_t high_watermark;
	struct bytes records;
};
bool kafka_fetch_read(struct bytes body, struct kafka_fetched *out);

enum { KAFKA_MEMBER_BYTES = 128, KAFKA_MEMBERS_MAX = 64 };

struct kafka_member { /* of a group of consumers; id is empty before its first join */
	const char *group, *topic;
	int32_t generation;
	char id[KAFKA_MEMBER_BYTES];
};
/* Subscribes to the one topic. */
size_t kafka_join_write(
	uint8_t *at, size_t size, const struct kafka_member *m, uint32_t session_ms);
struct kafka_joined {
	int16_t error;
	int32_t generation;
	char id[KAFKA_MEMBER_BYTES];
	bool leads;
	uint32_t count; /* members, if this one leads, with their ids */
	char members[KAFKA_MEMBERS_MAX][KAFKA_MEMBER_BYTES];
};
bool kafka_join_read(struct bytes body, struct kafka_joined *out);
/* The leader gives each member the partition of its number; j is NULL for the others. */
size_t kafka_sync_write(
	uint8_t *at, size_t size, const struct kafka_member *m, const struct kafka_joined *j);
size_t kafka_heartbeat_write(uint8_t *at, size_t size, const struct kafka_member *m);
/* Of SyncGroup and Heartbeat; -1 malformed. */
int16_t kafka_member_error(struct bytes body);

size_t kafka_handshake_write(uint8_t *at, size_t size, const char *mechanism);
int16_t kafka_handshake_read(struct bytes body); /* -1 malformed */
size_t kafka_authenticate_write(uint8_t *at, size_t size, struct bytes token);
/* The server's token, which is in body; its error code, -1 malformed. */
int16_t kafka_authenticate_read(struct bytes body, struct bytes *token);

enum { KAFKA_KEY_BYTES = 8 };
/* Builds one uncompressed record batch v2 of count records, each with a value of value_bytes
 * that does not compress and, if keyed, a key. Returns its length; 0 when size is too small. */
size_t kafka_batch_write(
	uint8_t *at, size_t size, uint32_t count, uint32_t value_bytes, bool keyed);
/* Gives each record of such a batch one of so many keys. */
void kafka_batch_keys(uint8_t *batch, size_t len, uint64_t keys, uint64_t *seed);
/* The room count such records take at most. */
size_t kafka_batch_bytes(uint32_t count, uint32_t value_bytes);

struct kafka_batch_view {
	uint64_t base_offset;
	uint32_t count;
	uint32_t len;
	bool intact; /* its checksum holds; true when not asked for */
};
/* The batch at the start of b: its length, 0 when it is cut off (as the last one of a fetch
 * may be), -1 when it is not a batch v2. */
int64_t kafka_batch_read(struct bytes b, bool check, struct kafka_batch_view *out);

#endif
