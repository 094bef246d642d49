/* Writing of MQTT packets to the end of a buf, in the form of the receiver's version. A writer
 * appends a whole packet or nothing. The receiver's Maximum Packet Size is kept: user properties
 * and then the reason string are left out when the packet would be too large with them, and if
 * it still is nothing is written (ERR_TOOBIG). Any thread. */
#ifndef MQTT_ENCODE_H
#define MQTT_ENCODE_H
#include "protocols/mqtt/mqtt_wire.h"

struct mqtt_peer { /* what a receiver told in its CONNECT */
	enum mqtt_version version;
	uint32_t frame_bytes_max; /* UINT32_MAX: no limit */
	/* Reason string and user properties are wanted in all packets; otherwise only in CONNACK,
	 * PUBLISH and DISCONNECT (MQTT-3.1.2-29). */
	bool problem_info;
};

/* All writers: props may be NULL, and is ignored in 3.1.1. Fails: ERR_TOOBIG (the peer's maximum
 * or out's bound), ERR_NOMEM. */

/* 3.1.1: the nearest return code is sent; with any failure session_present is sent as 0. */
enum err mqtt_write_connack(struct buf *out, const struct mqtt_peer *to, bool session_present,
	enum mqtt_reason reason, const struct mqtt_props *props) MUST_USE;
/* type: MQTT_PUBACK, _PUBREC, _PUBREL or _PUBCOMP. Short form where it can be. */
enum err mqtt_write_ack(struct buf *out, const struct mqtt_peer *to, enum mqtt_type type,
	uint16_t packet_id, enum mqtt_reason reason, const struct mqtt_props *props) MUST_USE;
/* codes: one per filter, in order; in 3.1.1 failures are sent as 0x80. */
enum err mqtt_write_suback(struct buf *out, const struct mqtt_peer *to, uint16_t packet_id,
	struct bytes codes, const struct mqtt_props *props) MUST_USE;
/* codes as above; left out in 3.1.1. */
enum err mqtt_write_unsuback(struct buf *out, const struct mqtt_peer *to, uint16_t packet_id,
	struct bytes codes, const struct mqtt_props *props) MUST_USE;
enum err mqtt_write_pingresp(struct buf *out) MUST_USE;
/* A server's; 3.1.1 has none: nothing is written and OK given. */
enum err mqtt_write_disconnect(struct buf *out, const struct mqtt_peer *to, enum mqtt_reason reason,
	const struct mqtt_props *props) MUST_USE;
/* MQTT 5 only. */
enum err mqtt_write_auth(struct buf *out, const struct mqtt_peer *to, enum mqtt_reason reason,
	const struct mqtt_props *props) MUST_USE;

/* A PUBLISH, written in two parts so that a large payload can be sent by reference. What is the
 * same for all receivers of a message (props) is encoded once by mqtt_props_encode. */
struct mqtt_publish_out {
	uint8_t qos;
	bool dup, retain;
	uint16_t packet_id; /* with QoS 1 and 2 */
	struct bytes topic; /* empty when alias stands for it; at most 65535 bytes */
	size_t payload_len;
	/* MQTT 5: */
	uint16_t alias; /* 0: none */
	const uint32_t *subscription_ids;
	uint32_t subscription_id_count;
	struct bytes props; /* encoded, without length, alias and subscription ids */
};
/* The exact size of the whole packet with its payload; SIZE_MAX: no packet can hold it. */
size_t mqtt_publish_size(enum mqtt_version version, const struct mqtt_publish_out *p);
/* Appends everything before the payload, which the caller sends right after it. Does not look at
 * the peer's maximum: who delivers compares mqtt_publish_size first and treats a message that is
 * too large as delivered (MQTT-3.1.2-25). */
enum err mqtt_write_publish_head(
	struct buf *out, enum mqtt_version version, const struct mqtt_publish_out *p) MUST_USE;

#endif
