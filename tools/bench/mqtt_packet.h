/* The client's side of MQTT 3.1.1 and 5, as little as a load needs. Writers return the length
 * written into memory the caller knows to be large enough; the reader checks what it is given. */
#ifndef BENCH_MQTT_PACKET_H
#define BENCH_MQTT_PACKET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
	MQTT_AUTH
};

enum { MQTT_SMALL_BYTES = 1024, MQTT_NAME_BYTES_MAX = 200 };

static inline uint16_t get_be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}
static inline void set_be16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

struct mqtt_login {
	const char *client_id, *user, *password; /* user may be NULL; each <= 200 bytes */
	uint8_t version;                         /* 4 or 5 */
	bool clean;
	uint32_t expiry_s;
	uint16_t keepalive_s;
};

/* These three fit in MQTT_SMALL_BYTES. */
size_t mqtt_connect_write(uint8_t *at, const struct mqtt_login *l);
size_t mqtt_subscribe_write(uint8_t *at, uint8_t version, const char *filter, uint8_t qos);
/* Ends the session too when expiry is 0 in version 5. */
size_t mqtt_disconnect_write(uint8_t *at, uint8_t version);

/* PUBACK, PUBREC, PUBREL, PUBCOMP: always 4 bytes. */
static inline void mqtt_ack_write(uint8_t *at, enum mqtt_type type, uint16_t pid)
{
	at[0] = (uint8_t)((unsigned)type << 4 | (type == MQTT_PUBREL ? 2u : 0u));
	at[1] = 2;
	set_be16(at + 2, pid);
}

struct mqtt_publish {                   /* where the parts of a PUBLISH made once lie */
	size_t len, pid_at, payload_at; /* pid_at is 0 with QoS 0 */
};

/* Builds a whole PUBLISH with size payload bytes left alone; at holds size + 512 bytes. */
struct mqtt_publish mqtt_publish_write(
	uint8_t *at, uint8_t version, const char *topic, uint8_t qos, size_t size);

struct mqtt_packet { /* borrows the input */
	uint8_t type, flags;
	const uint8_t *body;
	uint32_t len;
};

/* Bytes used; 0: more are needed; -1: not MQTT. */
int64_t mqtt_packet_read(const uint8_t *at, size_t len, struct mqtt_packet *out);

struct mqtt_connack {
	uint8_t code;
	uint16_t receive_max;
	uint8_t qos_max;
};
bool mqtt_connack_read(const struct mqtt_packet *p, uint8_t version, struct mqtt_connack *out);
/* The first reason code of a SUBACK; >= 0x80 also when it is malformed. */
uint8_t mqtt_suback_read(const struct mqtt_packet *p, uint8_t version);

struct mqtt_delivery {
	const uint8_t *payload;
	uint32_t len;
	uint16_t pid; /* 0 with QoS 0 */
	uint8_t qos;
};
/* A received PUBLISH; topic and properties are stepped over. */
bool mqtt_delivery_read(const struct mqtt_packet *p, uint8_t version, struct mqtt_delivery *out);

#endif
