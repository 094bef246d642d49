/* MQTT for one who knows what it will be sent. Only what decides the run is looked at: return
 * codes, packet ids, the server's receive maximum, payloads; the rest is skipped by length. */
#include "tools/bench/mqtt_packet.h"
#include <string.h>

static uint8_t *put_varint(uint8_t *at, size_t v)
{
	do {
		uint8_t byte = v & 0x7f;

		v >>= 7;
		*at++ = (uint8_t)(byte | (v ? 0x80 : 0));
	} while (v);
	return at;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
	size_t len = strlen(text);

	set_be16(at, (uint32_t)len);
	memcpy(at + 2, text, len);
	return at + 2 + len;
}

/* Puts the fixed header before a body made at body; the whole packet starts at at. */
static size_t frame(uint8_t *at, uint8_t first, const uint8_t *body, size_t len)
{
	uint8_t *to = at;

	*to++ = first;
	to = put_varint(to, len);
	memmove(to, body, len);
	return (size_t)(to - at) + len;
}

size_t mqtt_connect_write(uint8_t *at, const struct mqtt_login *l)
{
	uint8_t body[MQTT_SMALL_BYTES];
	uint8_t *to = put_text(body, "MQTT");
	uint8_t flags = (uint8_t)(l->clean ? 2 : 0);

	if (l->user)
		flags |= 0x80;
	if (l->password)
		flags |= 0x40;
	*to++ = l->version;
	*to++ = flags;
	set_be16(to, l->keepalive_s);
	to += 2;
	if (l->version == 5) {
		*to++ = 5; /* length of the properties: session expiry interval only */
		*to++ = 0x11;
		set_be16(to, l->expiry_s >> 16);
		set_be16(to + 2, l->expiry_s & 0xffff);
		to += 4;
	}
	to = put_text(to, l->client_id);
	if (l->user)
		to = put_text(to, l->user);
	if (l->password)
		to = put_text(to, l->password);
	return frame(at, MQTT_CONNECT << 4, body, (size_t)(to - body));
}

size_t mqtt_subscribe_write(uint8_t *at, uint8_t version, const char *filter, uint8_t qos)
{
	uint8_t body[MQTT_SMALL_BYTES];
	uint8_t *to = body;

	set_be16(to, 1);
	to += 2;
	if (version == 5)
		*to++ = 0;
	to = put_text(to, filter);
	*to++ = qos;
	return frame(at, MQTT_SUBSCRIBE << 4 | 2, body, (size_t)(to - body));
}

size_t mqtt_disconnect_write(uint8_t *at, uint8_t version)
{
	/* Reason 0 and a session expiry of 0: what the bench made, it also removes. */
	static const uint8_t body[] = {0, 5, 0x11, 0, 0, 0, 0};

	return frame(at, MQTT_DISCONNECT << 4, body, version == 5 ? sizeof body : 0);
}

struct mqtt_publish mqtt_publish_write(
	uint8_t *at, uint8_t version, const char *topic, uint8_t qos, size_t size)
{
	struct mqtt_publish p = {0};
	size_t len = 2 + strlen(topic) + (qos ? 2 : 0) + (version == 5 ? 1 : 0) + size;
	uint8_t *to = at;

	*to++ = (uint8_t)(MQTT_PUBLISH << 4 | qos << 1);
	to = put_text(put_varint(to, len), topic);
	if (qos) {
		p.pid_at = (size_t)(to - at);
		set_be16(to, 0);
		to += 2;
	}
	if (version == 5)
		*to++ = 0;
	p.payload_at = (size_t)(to - at);
	p.len = p.payload_at + size;
	return p;
}

int64_t mqtt_packet_read(const uint8_t *at, size_t len, struct mqtt_packet *out)
{
	uint32_t body = 0;

	if (len < 2)
		return 0;
	for (uint32_t i = 1, shift = 0; i <= 4; i++, shift += 7) {
		if (i == len)
			return 0;
		body |= (uint32_t)(at[i] & 0x7f) << shift;
		if (at[i] & 0x80)
			continue;
		if (len - 1 - i < body)
			return 0;
		out->type = at[0] >> 4;
		out->flags = at[0] & 15;
		out->body = at + i + 1;
		out->len = body;
		return (int64_t)i + 1 + body;
	}
	return -1;
}

/* Reads a varint at *pos; false when it does not end within len. */
static bool get_varint(const uint8_t *at, uint32_t len, uint32_t *pos, uint32_t *value)
{
	*value = 0;
	for (uint32_t shift = 0; shift < 28 && *pos < len; shift += 7) {
		uint8_t byte = at[(*pos)++];

		*value |= (uint32_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

/* How many bytes the value of a CONNACK property takes (MQTT 5 §2.2.2.2): fixed widths as they
 * are, SIZE_TEXT a length and text, SIZE_PAIR two of these, 0 for what cannot occur there. */
enum { SIZE_TEXT = 100, SIZE_PAIR = 101 };
static uint32_t property_size(uint8_t id)
{
	switch (id) {
	case 0x11: /* session expiry */
	case 0x27: /* maximum packet size */ return 4;
	case 0x13: /* server keep alive */
	case 0x21: /* receive maximum */
	case 0x22: /* topic alias maximum */ return 2;
	case 0x24: /* maximum QoS */
	case 0x25: /* retain available */
	case 0x28: /* wildcards */
	case 0x29: /* subscription identifiers */
	case 0x2a: /* shared subscriptions */ return 1;
	case 0x12: /* assigned client id */
	case 0x15: /* authentication method */
	case 0x16: /* authentication data */
	case 0x1a: /* response information */
	case 0x1c: /* server reference */
	case 0x1f: /* reason string */ return SIZE_TEXT;
	case 0x26: /* user property */ return SIZE_PAIR;
	default: return 0;
	}
}

bool mqtt_connack_read(const struct mqtt_packet *p, uint8_t version, struct mqtt_connack *out)
{
	uint32_t pos = 2, props;

	*out = (struct mqtt_connack){.code = 0xff, .receive_max = 65535, .qos_max = 2};
	if (p->len < 2)
		return false;
	out->code = p->body[1];
	if (version != 5 || p->len == 2)
		return true;
	if (!get_varint(p->body, p->len, &pos, &props) || props > p->len - pos)
		return false;
	while (pos < p->len) {
		uint8_t id = p->body[pos++];
		uint32_t size = property_size(id), texts = size == SIZE_PAIR ? 2 : 1;

		if (size == 0)
			return false;
		for (; size >= SIZE_TEXT && texts > 0; texts--) {
			if (p->len - pos < 2)
				return false;
			pos += 2u + get_be16(p->body + pos);
			if (pos > p->len)
				return false;
		}
		if (size >= SIZE_TEXT)
			continue;
		if (p->len - pos < size)
			return false;
		if (id == 0x21)
			out->receive_max = get_be16(p->body + pos);
		if (id == 0x24)
			out->qos_max = p->body[pos];
		pos += size;
	}
	return true;
}

uint8_t mqtt_suback_read(const struct mqtt_packet *p, uint8_t version)
{
	uint32_t pos = 2, props = 0;

	if (version == 5 && (!get_varint(p->body, p->len, &pos, &props) || props > p->len - pos))
		return 0xff;
	pos += props;
	return pos < p->len ? p->body[pos] : 0xff;
}

bool mqtt_delivery_read(const struct mqtt_packet *p, uint8_t version, struct mqtt_delivery *out)
{
	uint32_t pos, props = 0;

	if (p->len < 2)
		return false;
	pos = 2u + get_be16(p->body);
	out->qos = (p->flags >> 1) & 3;
	out->pid = 0;
	if (out->qos) {
		if (p->len < pos + 2)
			return false;
		out->pid = get_be16(p->body + pos);
		pos += 2;
	}
	if (version == 5 && !get_varint(p->body, p->len, &pos, &props))
		return false;
	if (pos > p->len || props > p->len - pos)
		return false;
	out->payload = p->body + pos + props;
	out->len = p->len - pos - props;
	return true;
}
