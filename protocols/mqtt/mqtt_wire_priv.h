/* Inside of the MQTT codec: MQTT's varint and length-prefixed fields, and how a failure is told.
 * For mqtt_*.c only. */
#ifndef MQTT_WIRE_PRIV_H
#define MQTT_WIRE_PRIV_H
#include "protocols/mqtt/mqtt_wire.h"

enum { MQTT_VARINT_MAX = 268435455, MQTT_VARINT_BYTES_MAX = 4 };

/* The failure with this reason code, and the code. */
static inline enum err mqtt_fail(enum mqtt_reason reason, enum mqtt_reason *why)
{
	*why = reason;
	if (reason == MQTT_MALFORMED)
		return ERR_MALFORMED;
	return reason == MQTT_BAD_VERSION ? ERR_UNSUPPORTED : ERR_PROTOCOL;
}

/* A variable byte integer: at most 4 bytes, and no more than needed (MQTT-1.5.5-1). */
static inline uint32_t mqtt_rd_varint(struct rd *r)
{
	uint32_t v = 0;
	for (unsigned shift = 0; shift < 7 * MQTT_VARINT_BYTES_MAX; shift += 7) {
		uint8_t b = rd_u8(r);
		v |= (uint32_t)(b & 0x7f) << shift;
		if (b >= 0x80)
			continue;
		if (b == 0 && shift > 0)
			break;
		return v;
	}
	rd_fail(r, ERR_MALFORMED);
	return 0;
}
static inline struct bytes mqtt_rd_field(struct rd *r)
{
	return rd_take(r, rd_u16be(r));
}

static inline size_t mqtt_varint_size(uint32_t v)
{
	return v < 1u << 7 ? 1 : v < 1u << 14 ? 2 : v < 1u << 21 ? 3 : 4;
}
static inline uint8_t *mqtt_put_varint(uint8_t *at, uint32_t v)
{
	for (; v >= 0x80; v >>= 7)
		*at++ = (uint8_t)(v | 0x80);
	*at++ = (uint8_t)v;
	return at;
}
static inline uint8_t *mqtt_put_u16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
	return at + 2;
}
static inline uint8_t *mqtt_put_bytes(uint8_t *at, struct bytes b)
{
	if (b.len > 0)
		memcpy(at, b.at, b.len);
	return at + b.len;
}
/* b.len was checked to be below 65536 by who made the size. */
static inline uint8_t *mqtt_put_field(uint8_t *at, struct bytes b)
{
	return mqtt_put_bytes(mqtt_put_u16(at, (uint16_t)b.len), b);
}

/* Room in out for a frame whose body has body bytes, its fixed header written and the whole
 * claimed; gives where the body goes, NULL when out is full. */
uint8_t *mqtt_open_frame(struct buf *out, uint8_t first, size_t body);

#endif
