/* Writing of MQTT packets. The exact size is computed first, so that the peer's maximum can be
 * kept and the bytes go to the buf with one bounds check; then fields are put one after the
 * other. Success acknowledgements, the bulk, are four constant-sized bytes. */
#include "protocols/mqtt/mqtt_encode.h"
#include "protocols/mqtt/mqtt_wire_priv.h"
#include "server/base/mem.h"

uint8_t *mqtt_open_frame(struct buf *out, uint8_t first, size_t body)
{
	size_t head = 1 + mqtt_varint_size((uint32_t)body);
	uint8_t *at = buf_room(out, head + body);
	if (!at)
		return NULL;
	buf_claim(out, head + body);
	*at++ = first;
	return mqtt_put_varint(at, (uint32_t)body);
}

static uint8_t first_byte(enum mqtt_type type)
{
	return (uint8_t)(type << 4 | (type == MQTT_PUBREL ? 2 : 0)); /* MQTT-3.6.1-1 */
}

static size_t frame_size(size_t body)
{
	if (body > MQTT_VARINT_MAX)
		return SIZE_MAX;
	return 1 + mqtt_varint_size((uint32_t)body) + body;
}

struct fitted { /* properties as they will be sent, and what they take with their length */
	struct mqtt_props props;
	size_t len;
	size_t size;
};

static void measure(struct fitted *f)
{
	f->len = mqtt_props_size(&f->props);
	f->size = mqtt_varint_size((uint32_t)f->len) + f->len;
}

static void drop(struct fitted *f, enum mqtt_prop id)
{
	f->props.present &= ~(1ull << id);
	if (id == MQTT_PROP_USER)
		f->props.user_count = 0;
	measure(f);
}

/* Leaves out what may be left out until a packet with fixed other bytes of body fits the peer
 * (MQTT-3.1.2-24; MQTT-3.2.2-19, -20 and their like). */
static enum err fit(struct fitted *f, const struct mqtt_peer *to, const struct mqtt_props *props,
	size_t fixed, bool always_tell)
{
	f->props = props ? *props : (struct mqtt_props){0};
	measure(f);
	if (!to->problem_info && !always_tell) {
		drop(f, MQTT_PROP_USER);
		drop(f, MQTT_PROP_REASON_TEXT);
	}
	if (frame_size(fixed + f->size) > to->frame_bytes_max)
		drop(f, MQTT_PROP_USER);
	if (frame_size(fixed + f->size) > to->frame_bytes_max)
		drop(f, MQTT_PROP_REASON_TEXT);
	return frame_size(fixed + f->size) > to->frame_bytes_max ? ERR_TOOBIG : OK;
}

static uint8_t *put_fitted(uint8_t *at, const struct fitted *f)
{
	return mqtt_props_put(mqtt_put_varint(at, (uint32_t)f->len), &f->props);
}

/* The return codes of 3.1.1 (§3.2.2.3) that come nearest. */
static uint8_t return_code_311(enum mqtt_reason reason)
{
	switch ((uint8_t)reason) {
	case MQTT_SUCCESS: return 0;
	case MQTT_BAD_VERSION: return 1;
	case MQTT_BAD_CLIENT_ID: return 2;
	case MQTT_BAD_LOGIN:
	case MQTT_BAD_AUTH_METHOD: return 4;
	case MQTT_NOT_AUTHORIZED:
	case MQTT_BANNED: return 5;
	default: return 3; /* server unavailable */
	}
}

enum err mqtt_write_connack(struct buf *out, const struct mqtt_peer *to, bool session_present,
	enum mqtt_reason reason, const struct mqtt_props *props)
{
	uint8_t flags = session_present && reason == MQTT_SUCCESS; /* MQTT-3.2.2-6 */
	if (to->version == MQTT_V311) {
		uint8_t *at = mqtt_open_frame(out, first_byte(MQTT_CONNACK), 2);
		if (!at)
			return out->err;
		at[0] = flags;
		at[1] = return_code_311(reason);
		return OK;
	}
	struct fitted f;
	enum err e = fit(&f, to, props, 2, true);
	if (e != OK)
		return e;
	uint8_t *at = mqtt_open_frame(out, first_byte(MQTT_CONNACK), 2 + f.size);
	if (!at)
		return out->err;
	*at++ = flags;
	*at++ = (uint8_t)reason;
	put_fitted(at, &f);
	return OK;
}

static enum err write_short_ack(struct buf *out, enum mqtt_type type, uint16_t packet_id)
{
	uint8_t *at = buf_room(out, 4);
	if (!at)
		return out->err;
	at[0] = first_byte(type);
	at[1] = 2;
	mqtt_put_u16(at + 2, packet_id);
	buf_claim(out, 4);
	return OK;
}

static bool nothing_in(const struct mqtt_props *p)
{
	return !p || (!p->present && !p->user_count);
}

enum err mqtt_write_ack(struct buf *out, const struct mqtt_peer *to, enum mqtt_type type,
	uint16_t packet_id, enum mqtt_reason reason, const struct mqtt_props *props)
{
	if (to->version == MQTT_V311 || (reason == MQTT_SUCCESS && nothing_in(props)))
		return write_short_ack(out, type, packet_id);
	struct fitted f;
	enum err e = fit(&f, to, props, 3, false);
	if (e != OK && f.len > 0) /* only what must not be left out is left: it is not ours */
		return e;
	size_t body = 3 + (f.len > 0 ? f.size : 0); /* no properties: no length either */
	if (frame_size(body) > to->frame_bytes_max)
		return ERR_TOOBIG;
	uint8_t *at = mqtt_open_frame(out, first_byte(type), body);
	if (!at)
		return out->err;
	at = mqtt_put_u16(at, packet_id);
	*at++ = (uint8_t)reason;
	if (f.len > 0)
		put_fitted(at, &f);
	return OK;
}

static enum err write_codes_5(struct buf *out, const struct mqtt_peer *to, enum mqtt_type type,
	uint16_t packet_id, struct bytes codes, const struct mqtt_props *props)
{
	struct fitted f;
	enum err e = fit(&f, to, props, 2 + codes.len, false);
	if (e != OK)
		return e;
	uint8_t *at = mqtt_open_frame(out, first_byte(type), 2 + f.size + codes.len);
	if (!at)
		return out->err;
	at = put_fitted(mqtt_put_u16(at, packet_id), &f);
	mqtt_put_bytes(at, codes);
	return OK;
}

enum err mqtt_write_suback(struct buf *out, const struct mqtt_peer *to, uint16_t packet_id,
	struct bytes codes, const struct mqtt_props *props)
{
	if (to->version == MQTT_V5)
		return write_codes_5(out, to, MQTT_SUBACK, packet_id, codes, props);
	if (codes.len > MQTT_VARINT_MAX - 2)
		return ERR_TOOBIG;
	uint8_t *at = mqtt_open_frame(out, first_byte(MQTT_SUBACK), 2 + codes.len);
	if (!at)
		return out->err;
	at = mqtt_put_u16(at, packet_id);
	for (size_t i = 0; i < codes.len; i++)
		at[i] = codes.at[i] <= MQTT_GRANTED_QOS2 ? codes.at[i] : MQTT_UNSPECIFIED;
	return OK;
}

enum err mqtt_write_unsuback(struct buf *out, const struct mqtt_peer *to, uint16_t packet_id,
	struct bytes codes, const struct mqtt_props *props)
{
	if (to->version == MQTT_V5)
		return write_codes_5(out, to, MQTT_UNSUBACK, packet_id, codes, props);
	return write_short_ack(out, MQTT_UNSUBACK, packet_id);
}

enum err mqtt_write_pingresp(struct buf *out)
{
	return mqtt_open_frame(out, first_byte(MQTT_PINGRESP), 0) ? OK : out->err;
}

/* DISCONNECT and AUTH: both parts may be left out from the end. */
static enum err write_reasoned(struct buf *out, const struct mqtt_peer *to, enum mqtt_type type,
	enum mqtt_reason reason, const struct mqtt_props *props)
{
	struct fitted f;
	enum err e = fit(&f, to, props, 1, type == MQTT_DISCONNECT);
	if (e != OK && f.len > 0)
		return e;
	size_t body = f.len > 0 ? 1 + f.size : reason != MQTT_SUCCESS ? 1 : 0;
	if (frame_size(body) > to->frame_bytes_max)
		return ERR_TOOBIG;
	uint8_t *at = mqtt_open_frame(out, first_byte(type), body);
	if (!at)
		return out->err;
	if (body > 0)
		*at++ = (uint8_t)reason;
	if (body > 1)
		put_fitted(at, &f);
	return OK;
}

enum err mqtt_write_disconnect(struct buf *out, const struct mqtt_peer *to, enum mqtt_reason reason,
	const struct mqtt_props *props)
{
	return to->version == MQTT_V311 ? OK
					: write_reasoned(out, to, MQTT_DISCONNECT, reason, props);
}

enum err mqtt_write_auth(struct buf *out, const struct mqtt_peer *to, enum mqtt_reason reason,
	const struct mqtt_props *props)
{
	must(to->version == MQTT_V5);
	return write_reasoned(out, to, MQTT_AUTH, reason, props);
}

static size_t publish_props_len(const struct mqtt_publish_out *p)
{
	size_t len = p->props.len + (p->alias ? 3 : 0);
	for (uint32_t i = 0; i < p->subscription_id_count; i++)
		len += 1 + mqtt_varint_size(p->subscription_ids[i]);
	return len;
}

/* The body without the payload; *props_len is 0 in 3.1.1. */
static size_t publish_head_len(
	enum mqtt_version version, const struct mqtt_publish_out *p, size_t *props_len)
{
	size_t len = 2 + p->topic.len + (p->qos > 0 ? 2 : 0);
	*props_len = 0;
	if (version == MQTT_V311)
		return len;
	*props_len = publish_props_len(p);
	size_t shown = *props_len > MQTT_VARINT_MAX ? MQTT_VARINT_MAX : *props_len;
	return len + mqtt_varint_size((uint32_t)shown) + *props_len;
}

size_t mqtt_publish_size(enum mqtt_version version, const struct mqtt_publish_out *p)
{
	size_t props_len, head = publish_head_len(version, p, &props_len);
	if (head > MQTT_VARINT_MAX || p->payload_len > MQTT_VARINT_MAX - head)
		return SIZE_MAX;
	return frame_size(head + p->payload_len);
}

enum err mqtt_write_publish_head(
	struct buf *out, enum mqtt_version version, const struct mqtt_publish_out *p)
{
	size_t props_len, head = publish_head_len(version, p, &props_len);
	if (p->topic.len > UINT16_MAX || head > MQTT_VARINT_MAX ||
		p->payload_len > MQTT_VARINT_MAX - head)
		return ERR_TOOBIG;
	uint32_t body = (uint32_t)(head + p->payload_len);
	size_t room = 1 + mqtt_varint_size(body) + head;
	uint8_t *at = buf_room(out, room);
	if (!at)
		return out->err;
	buf_claim(out, room);
	*at++ = (uint8_t)(MQTT_PUBLISH << 4 | p->dup << 3 | p->qos << 1 | p->retain);
	at = mqtt_put_field(mqtt_put_varint(at, body), p->topic);
	if (p->qos > 0)
		at = mqtt_put_u16(at, p->packet_id);
	if (version == MQTT_V311)
		return OK;
	at = mqtt_put_varint(at, (uint32_t)props_len);
	if (p->alias) {
		*at++ = MQTT_PROP_ALIAS;
		at = mqtt_put_u16(at, p->alias);
	}
	for (uint32_t i = 0; i < p->subscription_id_count; i++) {
		*at++ = MQTT_PROP_SUBSCRIPTION_ID;
		at = mqtt_put_varint(at, p->subscription_ids[i]);
	}
	mqtt_put_bytes(at, p->props);
	return OK;
}
