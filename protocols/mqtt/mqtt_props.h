/* The parts MQTT packets are made of: versions, reason codes, texts, topic names and filters,
 * and the properties of MQTT 5. No I/O, no allocation, any thread. Views borrow what they were
 * read from. "MQTT-x.y.z-n" names a normative statement of the MQTT 5.0 specification. */
#ifndef MQTT_PROPS_H
#define MQTT_PROPS_H
#include "server/base/buf.h"

enum mqtt_version { MQTT_V311 = 4, MQTT_V5 = 5 };

#define MQTT_REASON_TABLE(X)                                                                       \
	X(MQTT_SUCCESS, 0x00, "success")                                                           \
	X(MQTT_GRANTED_QOS1, 0x01, "granted QoS 1")                                                \
	X(MQTT_GRANTED_QOS2, 0x02, "granted QoS 2")                                                \
	X(MQTT_DISCONNECT_WITH_WILL, 0x04, "disconnect with will")                                 \
	X(MQTT_NO_SUBSCRIBERS, 0x10, "no matching subscribers")                                    \
	X(MQTT_NO_SUBSCRIPTION, 0x11, "no subscription existed")                                   \
	X(MQTT_CONTINUE_AUTH, 0x18, "continue authentication")                                     \
	X(MQTT_REAUTHENTICATE, 0x19, "re-authenticate")                                            \
	X(MQTT_UNSPECIFIED, 0x80, "unspecified error")                                             \
	X(MQTT_MALFORMED, 0x81, "malformed packet")                                                \
	X(MQTT_PROTOCOL_ERROR, 0x82, "protocol error")                                             \
	X(MQTT_IMPLEMENTATION, 0x83, "implementation specific error")                              \
	X(MQTT_BAD_VERSION, 0x84, "unsupported protocol version")                                  \
	X(MQTT_BAD_CLIENT_ID, 0x85, "client identifier not valid")                                 \
	X(MQTT_BAD_LOGIN, 0x86, "bad user name or password")                                       \
	X(MQTT_NOT_AUTHORIZED, 0x87, "not authorized")                                             \
	X(MQTT_UNAVAILABLE, 0x88, "server unavailable")                                            \
	X(MQTT_BUSY, 0x89, "server busy")                                                          \
	X(MQTT_BANNED, 0x8a, "banned")                                                             \
	X(MQTT_SHUTTING_DOWN, 0x8b, "server shutting down")                                        \
	X(MQTT_BAD_AUTH_METHOD, 0x8c, "bad authentication method")                                 \
	X(MQTT_KEEP_ALIVE, 0x8d, "keep alive timeout")                                             \
	X(MQTT_TAKEN_OVER, 0x8e, "session taken over")                                             \
	X(MQTT_BAD_FILTER, 0x8f, "topic filter invalid")                                           \
	X(MQTT_BAD_TOPIC, 0x90, "topic name invalid")                                              \
	X(MQTT_ID_IN_USE, 0x91, "packet identifier in use")                                        \
	X(MQTT_ID_NOT_FOUND, 0x92, "packet identifier not found")                                  \
	X(MQTT_RECEIVE_MAX, 0x93, "receive maximum exceeded")                                      \
	X(MQTT_BAD_ALIAS, 0x94, "topic alias invalid")                                             \
	X(MQTT_TOO_LARGE, 0x95, "packet too large")                                                \
	X(MQTT_RATE_TOO_HIGH, 0x96, "message rate too high")                                       \
	X(MQTT_QUOTA, 0x97, "quota exceeded")                                                      \
	X(MQTT_ADMIN_ACTION, 0x98, "administrative action")                                        \
	X(MQTT_BAD_PAYLOAD, 0x99, "payload format invalid")                                        \
	X(MQTT_NO_RETAIN, 0x9a, "retain not supported")                                            \
	X(MQTT_NO_QOS, 0x9b, "QoS not supported")                                                  \
	X(MQTT_USE_ANOTHER, 0x9c, "use another server")                                            \
	X(MQTT_MOVED, 0x9d, "server moved")                                                        \
	X(MQTT_NO_SHARED, 0x9e, "shared subscriptions not supported")                              \
	X(MQTT_CONNECT_RATE, 0x9f, "connection rate exceeded")                                     \
	X(MQTT_CONNECT_TIME, 0xa0, "maximum connect time")                                         \
	X(MQTT_NO_SUBSCRIPTION_IDS, 0xa1, "subscription identifiers not supported")                \
	X(MQTT_NO_WILDCARDS, 0xa2, "wildcard subscriptions not supported")

enum mqtt_reason {
#define X(name, code, text) name = code,
	MQTT_REASON_TABLE(X)
#undef X
};
/* MQTT_SUCCESS is also "normal disconnection" and "granted QoS 0". */

/* The code in words: a static string, never NULL. */
const char *mqtt_reason_text(uint8_t reason);

/* UTF-8 without NUL (MQTT-1.5.4-1, -2). Control characters are let through. */
bool mqtt_text_ok(struct bytes b);
/* A topic name: text, not empty, no wildcards. */
bool mqtt_topic_ok(struct bytes b);
/* A topic filter: text, not empty, wildcards stand alone in their level and # is last. Of a
 * shared subscription ($share/NAME/FILTER) the name and the inner filter. */
bool mqtt_filter_ok(struct bytes b);
/* Whether a valid filter is a shared one; then gives its name and the inner filter. */
bool mqtt_filter_shared(struct bytes b, struct bytes *share, struct bytes *inner);

enum mqtt_prop {
	MQTT_PROP_PAYLOAD_FORMAT = 0x01,
	MQTT_PROP_MESSAGE_EXPIRY = 0x02,
	MQTT_PROP_CONTENT_TYPE = 0x03,
	MQTT_PROP_RESPONSE_TOPIC = 0x08,
	MQTT_PROP_CORRELATION = 0x09,
	MQTT_PROP_SUBSCRIPTION_ID = 0x0b,
	MQTT_PROP_SESSION_EXPIRY = 0x11,
	MQTT_PROP_ASSIGNED_ID = 0x12,
	MQTT_PROP_SERVER_KEEP_ALIVE = 0x13,
	MQTT_PROP_AUTH_METHOD = 0x15,
	MQTT_PROP_AUTH_DATA = 0x16,
	MQTT_PROP_PROBLEM_INFO = 0x17,
	MQTT_PROP_WILL_DELAY = 0x18,
	MQTT_PROP_WANT_RESPONSE_INFO = 0x19,
	MQTT_PROP_RESPONSE_INFO = 0x1a,
	MQTT_PROP_SERVER_REFERENCE = 0x1c,
	MQTT_PROP_REASON_TEXT = 0x1f,
	MQTT_PROP_RECEIVE_MAX = 0x21,
	MQTT_PROP_ALIAS_MAX = 0x22,
	MQTT_PROP_ALIAS = 0x23,
	MQTT_PROP_QOS_MAX = 0x24,
	MQTT_PROP_RETAIN_OK = 0x25,
	MQTT_PROP_USER = 0x26,
	MQTT_PROP_FRAME_BYTES_MAX = 0x27,
	MQTT_PROP_WILDCARD_OK = 0x28,
	MQTT_PROP_SUBSCRIPTION_ID_OK = 0x29,
	MQTT_PROP_SHARED_OK = 0x2a,
	MQTT_PROP_COUNT
};

struct mqtt_user { /* a user property */
	struct bytes name, value;
};

struct mqtt_props {       /* all zero bytes = no properties */
	uint64_t present; /* bit (1 << id) of each property there; others' fields are 0 */
	uint32_t message_expiry_s, session_expiry_s, will_delay_s, frame_bytes_max;
	uint32_t subscription_id; /* read: the first one */
	uint16_t server_keep_alive_s, receive_max, alias_max, alias;
	uint8_t payload_format, problem_info, want_response_info;
	uint8_t qos_max, retain_ok, wildcard_ok, subscription_id_ok, shared_ok;
	struct bytes content_type, response_topic, correlation, assigned_id, auth_method, auth_data,
		response_info, server_reference, reason_text;
	struct bytes all; /* read: the encoded properties, for mqtt_user_next */
	uint32_t user_count;
	const struct mqtt_user *users; /* write: user_count of them; NULL: none. Read: NULL */
};

static inline bool mqtt_props_has(const struct mqtt_props *p, enum mqtt_prop id)
{
	return p->present >> id & 1;
}
static inline void mqtt_props_mark(struct mqtt_props *p, enum mqtt_prop id)
{
	p->present |= 1ull << id;
}

/* Which packet the properties belong to: it decides which are allowed. */
enum mqtt_place {
	MQTT_IN_CONNECT,
	MQTT_IN_WILL,
	MQTT_IN_CONNACK,
	MQTT_IN_PUBLISH,  /* from a client */
	MQTT_IN_DELIVERY, /* PUBLISH from a server: any number of subscription ids */
	MQTT_IN_ACK,      /* PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK */
	MQTT_IN_SUBSCRIBE,
	MQTT_IN_UNSUBSCRIBE,
	MQTT_IN_DISCONNECT, /* from a client */
	MQTT_IN_SERVER_DISCONNECT,
	MQTT_IN_AUTH
};

/* Reads the property length and properties at r. On failure *why is the code to answer with:
 * ERR_MALFORMED (0x81) or ERR_PROTOCOL (others). */
enum err mqtt_props_read(struct rd *r, enum mqtt_place place, struct mqtt_props *out,
	enum mqtt_reason *why) MUST_USE;
/* Steps to the next user property, in the order sent; *rest starts as props.all. */
bool mqtt_user_next(struct bytes *rest, struct mqtt_user *out);
/* The same for subscription ids (a delivery may carry several). */
bool mqtt_subscription_id_next(struct bytes *rest, uint32_t *out);

/* The size of the properties without the length before them, and the properties themselves at
 * memory of that size: the end is given. Texts are not checked: who fills props has. */
size_t mqtt_props_size(const struct mqtt_props *p);
uint8_t *mqtt_props_put(uint8_t *at, const struct mqtt_props *p);
/* Appends them to out, as mqtt_publish_out.props wants them. */
void mqtt_props_encode(struct buf *out, const struct mqtt_props *p);

#endif
