/* The client's half of the MQTT codec: what the load generator, bridges and tests send and read
 * that a server does not. PUBLISH, acknowledgements and frames are shared with the server's half
 * (mqtt_write_publish_head, mqtt_write_ack, mqtt_read_delivery, mqtt_read_ack). */
#ifndef MQTT_CLIENT_WIRE_H
#define MQTT_CLIENT_WIRE_H
#include "protocols/mqtt/mqtt_encode.h"

/* Writes c as its version says; only version, clean, has_*, keep_alive_s, client_id, user,
 * password, will and the properties count. Texts over 65535 bytes: ERR_TOOBIG. */
enum err mqtt_write_connect(struct buf *out, const struct mqtt_connect *c) MUST_USE;
/* Of each filter: full, and the options. props may be NULL. */
enum err mqtt_write_subscribe(struct buf *out, enum mqtt_version version, uint16_t packet_id,
	const struct mqtt_filter *filters, uint32_t count, const struct mqtt_props *props) MUST_USE;
enum err mqtt_write_unsubscribe(struct buf *out, enum mqtt_version version, uint16_t packet_id,
	const struct mqtt_filter *filters, uint32_t count, const struct mqtt_props *props) MUST_USE;
enum err mqtt_write_pingreq(struct buf *out) MUST_USE;
/* A client's; in 3.1.1 without reason. */
enum err mqtt_write_goodbye(struct buf *out, enum mqtt_version version, enum mqtt_reason reason,
	const struct mqtt_props *props) MUST_USE;

struct mqtt_connack {
	bool session_present;
	uint8_t reason; /* 3.1.1: the return code */
	struct mqtt_props props;
};
enum err mqtt_read_connack(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_connack *out, enum mqtt_reason *why) MUST_USE;

struct mqtt_codes { /* SUBACK, UNSUBACK */
	uint16_t packet_id;
	struct bytes codes; /* one per filter; empty in an UNSUBACK of 3.1.1 */
	struct mqtt_props props;
};
enum err mqtt_read_codes(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_codes *out, enum mqtt_reason *why) MUST_USE;
/* DISCONNECT (MQTT 5) and AUTH as a server sends them. */
enum err mqtt_read_server_reasoned(
	const struct mqtt_frame *f, struct mqtt_reasoned *out, enum mqtt_reason *why) MUST_USE;

#endif
