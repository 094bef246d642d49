/* The client's half: the mirror of mqtt_wire.c and mqtt_encode.c for the packets which only a
 * client writes or only a server sends. Sizes first, then the fields, as there. */
#include "protocols/mqtt/mqtt_client_wire.h"
#include "protocols/mqtt/mqtt_wire_priv.h"

static size_t props_size(enum mqtt_version version, const struct mqtt_props *p)
{
	if (version == MQTT_V311)
		return 0;
	size_t len = p ? mqtt_props_size(p) : 0;
	return mqtt_varint_size((uint32_t)len) + len;
}

static uint8_t *put_props(uint8_t *at, enum mqtt_version version, const struct mqtt_props *p)
{
	if (version == MQTT_V311)
		return at;
	at = mqtt_put_varint(at, p ? (uint32_t)mqtt_props_size(p) : 0);
	return p ? mqtt_props_put(at, p) : at;
}

static uint8_t connect_flags(const struct mqtt_connect *c)
{
	unsigned flags = (unsigned)c->clean << 1 | (unsigned)c->has_password << 6 |
		(unsigned)c->has_user << 7;
	if (c->has_will)
		flags |= 4u | (unsigned)c->will.qos << 3 | (unsigned)c->will.retain << 5;
	return (uint8_t)flags;
}

static bool short_enough(const struct mqtt_connect *c)
{
	return c->client_id.len <= UINT16_MAX && c->user.len <= UINT16_MAX &&
		c->password.len <= UINT16_MAX && c->will.topic.len <= UINT16_MAX &&
		c->will.payload.len <= UINT16_MAX;
}

enum err mqtt_write_connect(struct buf *out, const struct mqtt_connect *c)
{
	enum { NAME_LEVEL_FLAGS_KEEP_ALIVE = 6 + 1 + 1 + 2 };
	if (!short_enough(c))
		return ERR_TOOBIG;
	size_t body = NAME_LEVEL_FLAGS_KEEP_ALIVE + props_size(c->version, &c->props) + 2 +
		c->client_id.len;
	if (c->has_will)
		body += props_size(c->version, &c->will.props) + 2 + c->will.topic.len + 2 +
			c->will.payload.len;
	body += (c->has_user ? 2 + c->user.len : 0) + (c->has_password ? 2 + c->password.len : 0);
	if (body > MQTT_VARINT_MAX)
		return ERR_TOOBIG;
	uint8_t *at = mqtt_open_frame(out, MQTT_CONNECT << 4, body);
	if (!at)
		return out->err;
	at = mqtt_put_field(at, bytes_text("MQTT"));
	*at++ = (uint8_t)c->version;
	*at++ = connect_flags(c);
	at = mqtt_put_u16(at, c->keep_alive_s);
	at = put_props(at, c->version, &c->props);
	at = mqtt_put_field(at, c->client_id);
	if (c->has_will) {
		at = put_props(at, c->version, &c->will.props);
		at = mqtt_put_field(at, c->will.topic);
		at = mqtt_put_field(at, c->will.payload);
	}
	if (c->has_user)
		at = mqtt_put_field(at, c->user);
	if (c->has_password)
		mqtt_put_field(at, c->password);
	return OK;
}

static uint8_t options_of(const struct mqtt_filter *f)
{
	return (uint8_t)(f->qos | f->no_local << 2 | f->retain_as_published << 3 |
		f->retain_handling << 4);
}

struct filters { /* what SUBSCRIBE and UNSUBSCRIBE have in common */
	enum mqtt_type type;
	uint16_t packet_id;
	const struct mqtt_filter *at;
	uint32_t count;
	const struct mqtt_props *props;
};

static enum err write_filters(struct buf *out, enum mqtt_version version, const struct filters *l)
{
	size_t options = l->type == MQTT_SUBSCRIBE;
	size_t body = 2 + props_size(version, l->props);
	for (uint32_t i = 0; i < l->count; i++) {
		if (l->at[i].full.len > UINT16_MAX)
			return ERR_TOOBIG;
		body += 2 + l->at[i].full.len + options;
	}
	if (body > MQTT_VARINT_MAX)
		return ERR_TOOBIG;
	uint8_t *at = mqtt_open_frame(out, (uint8_t)(l->type << 4 | 2), body);
	if (!at)
		return out->err;
	at = put_props(mqtt_put_u16(at, l->packet_id), version, l->props);
	for (uint32_t i = 0; i < l->count; i++) {
		at = mqtt_put_field(at, l->at[i].full);
		if (options)
			*at++ = options_of(&l->at[i]);
	}
	return OK;
}

enum err mqtt_write_subscribe(struct buf *out, enum mqtt_version version, uint16_t packet_id,
	const struct mqtt_filter *filters, uint32_t count, const struct mqtt_props *props)
{
	return write_filters(
		out, version, &(struct filters){MQTT_SUBSCRIBE, packet_id, filters, count, props});
}

enum err mqtt_write_unsubscribe(struct buf *out, enum mqtt_version version, uint16_t packet_id,
	const struct mqtt_filter *filters, uint32_t count, const struct mqtt_props *props)
{
	return write_filters(out, version,
		&(struct filters){MQTT_UNSUBSCRIBE, packet_id, filters, count, props});
}

enum err mqtt_write_pingreq(struct buf *out)
{
	return mqtt_open_frame(out, MQTT_PINGREQ << 4, 0) ? OK : out->err;
}

enum err mqtt_write_goodbye(struct buf *out, enum mqtt_version version, enum mqtt_reason reason,
	const struct mqtt_props *props)
{
	struct mqtt_peer to = {MQTT_V5, UINT32_MAX, true};
	if (version == MQTT_V5)
		return mqtt_write_disconnect(out, &to, reason, props);
	return mqtt_open_frame(out, MQTT_DISCONNECT << 4, 0) ? OK : out->err;
}

enum err mqtt_read_connack(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_connack *out, enum mqtt_reason *why)
{
	struct rd r = rd_over(f->body);
	memset(out, 0, sizeof *out);
	uint8_t flags = rd_u8(&r);
	out->reason = rd_u8(&r);
	if (r.err != OK || flags > 1) /* MQTT-3.2.2-1 */
		return mqtt_fail(MQTT_MALFORMED, why);
	out->session_present = flags;
	if (version == MQTT_V5) {
		enum err e = mqtt_props_read(&r, MQTT_IN_CONNACK, &out->props, why);
		if (e != OK)
			return e;
	}
	return rd_done(&r) == OK ? OK : mqtt_fail(MQTT_MALFORMED, why);
}

enum err mqtt_read_codes(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_codes *out, enum mqtt_reason *why)
{
	struct rd r = rd_over(f->body);
	memset(out, 0, sizeof *out);
	out->packet_id = rd_u16be(&r);
	if (r.err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	if (version == MQTT_V5) {
		enum err e = mqtt_props_read(&r, MQTT_IN_ACK, &out->props, why);
		if (e != OK)
			return e;
	}
	out->codes = bytes_of(r.at, rd_left(&r));
	bool wants_codes = version == MQTT_V5 || f->type == MQTT_SUBACK;
	if (wants_codes != (out->codes.len > 0))
		return mqtt_fail(MQTT_MALFORMED, why);
	return out->packet_id != 0 ? OK : mqtt_fail(MQTT_PROTOCOL_ERROR, why);
}

enum err mqtt_read_server_reasoned(
	const struct mqtt_frame *f, struct mqtt_reasoned *out, enum mqtt_reason *why)
{
	struct rd r = rd_over(f->body);
	memset(out, 0, sizeof *out);
	if (rd_left(&r) > 0)
		out->reason = rd_u8(&r);
	if (rd_left(&r) > 0) {
		bool auth = f->type == MQTT_AUTH;
		enum mqtt_place place = auth ? MQTT_IN_AUTH : MQTT_IN_SERVER_DISCONNECT;
		enum err e = mqtt_props_read(&r, place, &out->props, why);
		if (e != OK)
			return e;
	}
	return rd_done(&r) == OK ? OK : mqtt_fail(MQTT_MALFORMED, why);
}
