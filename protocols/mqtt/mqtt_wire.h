/* The MQTT 3.1.1 and 5.0 packets a server receives and sends. A frame is cut from the input,
 * then read by the function of its type; views borrow the input. Whatever the specification
 * forbids and one packet alone can show is refused here, with the reason code to answer with;
 * what depends on the connection's state (aliases over the maximum, packet ids in flight, an
 * AUTH nobody asked for) is the connection's to check. Any thread; nothing is allocated. */
#ifndef MQTT_WIRE_H
#define MQTT_WIRE_H
#include "protocols/mqtt/mqtt_props.h"

enum mqtt_type {
	MQTT_CONNECT = 1,
	MQTT_CONNACK,
	MQTT_PUBLISH,
	MQTT_PUBACK,
	MQTT_PUBREC,
	MQTT_PUBREL,
	MQTT_PUBCOMP,
	MQTT_SUBSCRIBE,
	MQTT_SUBACK,
	MQTT_UNSUBSCRIBE,
	MQTT_UNSUBACK,
	MQTT_PINGREQ,
	MQTT_PINGRESP,
	MQTT_DISCONNECT,
	MQTT_AUTH,
	MQTT_TYPE_COUNT
};

const char *mqtt_type_text(enum mqtt_type type); /* "PUBLISH"; never NULL */

struct mqtt_frame {
	enum mqtt_type type;
	uint8_t flags;     /* low four bits of the first byte */
	struct bytes body; /* after the fixed header */
};

/* Cuts one packet from the front of in; *used is its size. ERR_MORE: *used is the size of the
 * whole packet if that can be told yet, else 0. ERR_TOOBIG (answer 0x95): the packet is larger
 * than frame_bytes_max, fixed header included. ERR_MALFORMED: type 0, flags that are reserved,
 * a length of more than four bytes or not in its shortest form. */
enum err mqtt_frame_read(
	struct bytes in, size_t frame_bytes_max, struct mqtt_frame *out, size_t *used) MUST_USE;

/* All readers: on failure *why is the reason code to answer with, and the result is
 * ERR_MALFORMED (0x81), ERR_UNSUPPORTED (0x84) or ERR_PROTOCOL (any other). */

struct mqtt_connect {
	enum mqtt_version version; /* set on failure too: the form in which to answer */
	bool clean;                /* clean session, clean start */
	bool has_will, has_user, has_password;
	uint16_t keep_alive_s;
	struct bytes client_id, user, password;
	struct {
		struct bytes topic, payload;
		struct mqtt_props props; /* MQTT 5 */
		uint8_t qos;
		bool retain;
	} will;
	struct mqtt_props props; /* MQTT 5 */
	/* What the properties say, or the default where they are absent, in both versions: */
	uint32_t session_expiry_s; /* UINT32_MAX: never; 3.1.1: 0 or never, by clean */
	uint32_t frame_bytes_max;  /* UINT32_MAX: no limit */
	uint16_t receive_max;      /* 65535 */
	uint16_t alias_max;        /* 0 */
	bool problem_info, want_response_info;
};
enum err mqtt_read_connect(
	const struct mqtt_frame *f, struct mqtt_connect *out, enum mqtt_reason *why) MUST_USE;

struct mqtt_publish {
	uint8_t qos;
	bool dup, retain;
	uint16_t packet_id; /* 0 with QoS 0 */
	struct bytes topic; /* empty only if props has an alias */
	struct bytes payload;
	struct mqtt_props props;
};
/* From a client: a subscription id is refused. */
enum err mqtt_read_publish(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_publish *out, enum mqtt_reason *why) MUST_USE;
/* From a server: there may be several subscription ids (mqtt_subscription_id_next). */
enum err mqtt_read_delivery(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_publish *out, enum mqtt_reason *why) MUST_USE;

struct mqtt_ack {
	uint16_t packet_id;
	uint8_t reason;
	struct mqtt_props props;
};
/* PUBACK, PUBREC, PUBREL, PUBCOMP. */
enum err mqtt_read_ack(const struct mqtt_frame *f, enum mqtt_version version, struct mqtt_ack *out,
	enum mqtt_reason *why) MUST_USE;

struct mqtt_filter {
	struct bytes full; /* as sent */
	struct bytes share,
		filter; /* of a shared one its name and inner filter; else empty, full */
	bool shared;
	/* SUBSCRIBE only: */
	uint8_t qos, retain_handling;
	bool no_local, retain_as_published;
};
struct mqtt_subscribe { /* SUBSCRIBE or UNSUBSCRIBE */
	uint16_t packet_id;
	uint32_t count;       /* of filters, at least 1 */
	struct bytes filters; /* encoded, all checked; walk with mqtt_filter_next */
	bool has_options;
	struct mqtt_props props;
};
enum err mqtt_read_subscribe(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_subscribe *out, enum mqtt_reason *why) MUST_USE;
enum err mqtt_read_unsubscribe(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_subscribe *out, enum mqtt_reason *why) MUST_USE;
/* Steps to the next filter; *rest starts as s->filters. False at the end. */
bool mqtt_filter_next(const struct mqtt_subscribe *s, struct bytes *rest, struct mqtt_filter *out);

struct mqtt_reasoned { /* DISCONNECT, AUTH */
	uint8_t reason;
	struct mqtt_props props;
};
enum err mqtt_read_disconnect(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_reasoned *out, enum mqtt_reason *why) MUST_USE;
/* From a client: 0x18 or 0x19, and the method is there. */
enum err mqtt_read_auth(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_reasoned *out, enum mqtt_reason *why) MUST_USE;
/* PINGREQ, PINGRESP: nothing may follow. */
enum err mqtt_read_empty(const struct mqtt_frame *f, enum mqtt_reason *why) MUST_USE;

#endif
