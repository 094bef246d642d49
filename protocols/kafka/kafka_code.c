/* Outcomes of the broker as Kafka's error codes: one switch each, without a default, so that a
 * new outcome is noticed here. What a client may try again gets a code that it does try again. */
#include "protocols/kafka/kafka_priv.h"

int16_t kafka_code(enum err e)
{
	switch (e) {
	case OK: return KAFKA_NONE;
	case ERR_RANGE: return KAFKA_OFFSET_OUT_OF_RANGE;
	case ERR_CORRUPT:
	case ERR_IO:
	case ERR_NOSPACE: return KAFKA_STORAGE_ERROR;
	case ERR_NOTFOUND: return KAFKA_UNKNOWN_TOPIC;
	case ERR_DENIED:
	case ERR_UNAUTHENTICATED: return KAFKA_TOPIC_DENIED;
	case ERR_NOTLEADER:
	case ERR_CLOSED: return KAFKA_NOT_LEADER;
	case ERR_UNAVAILABLE: return KAFKA_LEADER_NOT_AVAILABLE;
	/* Not NOT_LEADER, as Kafka's brokers say: librdkafka takes that for "not stored", tells its
	 * application so, and repeats it even where nothing is to be repeated. */
	case ERR_UNKNOWN: return KAFKA_NOT_ENOUGH_REPLICAS_AFTER;
	case ERR_TIMEOUT:
	case ERR_BUSY: return KAFKA_REQUEST_TIMED_OUT;
	case ERR_TOOBIG: return KAFKA_MESSAGE_TOO_LARGE;
	case ERR_SEQUENCE: return KAFKA_OUT_OF_ORDER_SEQUENCE;
	case ERR_FENCED: return KAFKA_INVALID_PRODUCER_EPOCH;
	case ERR_QUOTA: return KAFKA_POLICY_VIOLATION;
	case ERR_INVALID:
	case ERR_MALFORMED:
	case ERR_PROTOCOL: return KAFKA_INVALID_REQUEST;
	case ERR_MORE:
	case ERR_UNSUPPORTED:
	case ERR_NOMEM:
	case ERR_EXISTS:
	case ERR_CONFLICT:
	case ERR_COUNT: break;
	}
	return KAFKA_UNKNOWN_SERVER_ERROR;
}

int16_t kafka_produce_code(enum err e)
{
	if (e == ERR_UNSUPPORTED)
		return KAFKA_UNSUPPORTED_FORMAT;
	if (e == ERR_CORRUPT || e == ERR_MALFORMED)
		return KAFKA_CORRUPT_MESSAGE;
	if (e == ERR_INVALID)
		return KAFKA_INVALID_RECORD;
	if (e == ERR_RANGE)
		return KAFKA_INVALID_TIMESTAMP;
	if (e == ERR_UNAVAILABLE)
		return KAFKA_NOT_ENOUGH_REPLICAS;
	return kafka_code(e);
}

/* Java's consumer throws at its application what it doesn't expect of a fetch, 5 and 7 among it.
 * After NOT_LEADER it asks who leads and tries again. */
int16_t kafka_fetch_code(enum err e)
{
	if (e == ERR_UNAVAILABLE || e == ERR_BUSY || e == ERR_TIMEOUT)
		return KAFKA_NOT_LEADER;
	return kafka_code(e);
}

int16_t kafka_group_code(enum group_err e)
{
	switch (e) {
	case GROUP_OK: return KAFKA_NONE;
	case GROUP_BAD_ID: return KAFKA_INVALID_GROUP_ID;
	case GROUP_BAD_TIMEOUT: return KAFKA_INVALID_SESSION_TIMEOUT;
	case GROUP_BAD_PROTOCOL: return KAFKA_INCONSISTENT_PROTOCOL;
	case GROUP_UNKNOWN_MEMBER: return KAFKA_UNKNOWN_MEMBER;
	case GROUP_OLD_GENERATION: return KAFKA_ILLEGAL_GENERATION;
	case GROUP_REBALANCING: return KAFKA_REBALANCE_IN_PROGRESS;
	case GROUP_ID_REQUIRED: return KAFKA_MEMBER_ID_REQUIRED;
	case GROUP_FULL: return KAFKA_GROUP_MAX_SIZE;
	case GROUP_FENCED_INSTANCE: return KAFKA_FENCED_INSTANCE;
	case GROUP_NOT_EMPTY: return KAFKA_NON_EMPTY_GROUP;
	case GROUP_NOT_FOUND: return KAFKA_GROUP_NOT_FOUND;
	case GROUP_SUBSCRIBED: return KAFKA_GROUP_SUBSCRIBED;
	case GROUP_METADATA_TOOBIG: return KAFKA_OFFSET_METADATA_TOO_LARGE;
	case GROUP_NOT_HERE: return KAFKA_NOT_COORDINATOR;
	case GROUP_UNAVAILABLE: return KAFKA_COORDINATOR_LOADING;
	case GROUP_ERR_COUNT: break;
	}
	return KAFKA_UNKNOWN_SERVER_ERROR;
}

int16_t kafka_admin_code(enum err e)
{
	if (e == ERR_EXISTS)
		return KAFKA_TOPIC_EXISTS;
	if (e == ERR_INVALID)
		return KAFKA_INVALID_CONFIG;
	if (e == ERR_UNSUPPORTED)
		return KAFKA_POLICY_VIOLATION;
	return kafka_code(e);
}

int16_t kafka_rights_code(enum err e)
{
	if (e == ERR_NOTFOUND)
		return KAFKA_RESOURCE_NOT_FOUND;
	if (e == ERR_EXISTS)
		return KAFKA_DUPLICATE_RESOURCE;
	if (e == ERR_DENIED)
		return KAFKA_CLUSTER_DENIED;
	if (e == ERR_CONFLICT || e == ERR_TOOBIG || e == ERR_UNSUPPORTED)
		return KAFKA_POLICY_VIOLATION;
	if (e == ERR_UNAVAILABLE || e == ERR_NOTLEADER)
		return KAFKA_REQUEST_TIMED_OUT;
	return kafka_code(e);
}
