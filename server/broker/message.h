/* A message as all doors see it, and its one stored form, a Kafka record. MQTT names map to record
 * headers as docs/message-path.md says: qos > 0 is header "mqtt.qos", retain "mqtt.retain", expiry
 * "expires-at" (decimal ms), topic the key or, if the key differs, "mqtt.topic".
 * Views; pure; any thread. */
#ifndef BROKER_MESSAGE_H
#define BROKER_MESSAGE_H
#include "storage/record_batch.h"

enum { MESSAGE_HEADERS_MAX = 1024 };

struct message {             /* everything borrowed */
	struct bytes tenant; /* whose, when publishing; empty: the default one's */
	struct bytes topic;  /* MQTT topic name; empty: none (Kafka, HTTP to a stream) */
	struct bytes key;    /* used when has_key; else the topic is the key */
	bool has_key;
	struct bytes value;
	bool null_value; /* a tombstone */
	uint8_t qos;
	bool retain;
	int64_t timestamp_ms;
	int64_t expires_at_ms; /* wall; 0: never */
	/* Other headers, in order, duplicates kept: when publishing an array, ... */
	const struct record_header *headers;
	int header_count;
	/* ... when decoded from a record the encoded ones, walked by message_header_next, which
	 * skips the reserved ones that are fields above. */
	struct bytes encoded_headers;
	int encoded_count;
};

/* Appends m as a record. ERR_TOOBIG: the batch is full (seal it, try again), ERR_NOMEM. */
enum err message_encode(const struct message *m, struct batch_builder *out) MUST_USE;
/* The message in a record of an MQTT-routed stream; stream is its name, the last resort for a
 * topic. Never fails on odd headers: what can't be read is passed on as it is. */
void message_decode(const struct record *r, struct bytes stream, struct message *out);
/* Steps over the other headers: *rest starts as encoded_headers, *left as encoded_count. OK,
 * ERR_NOTFOUND at the end. */
enum err message_header_next(struct bytes *rest, int *left, struct record_header *out) MUST_USE;

#endif
