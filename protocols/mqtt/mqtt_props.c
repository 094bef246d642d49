/* One row per property: its form, its field, where it may stand and which values it may have.
 * Reading and writing both walk the rows, so that a property is described once. Topics are
 * checked eight bytes at a time, since every PUBLISH has one. */
#include "protocols/mqtt/mqtt_wire_priv.h"

enum form {
	FORM_NONE,
	FORM_U8,
	FORM_U16,
	FORM_U32,
	FORM_VARINT,
	FORM_TEXT,
	FORM_BINARY,
	FORM_PAIR
};
enum limit { ANY, BOOLEAN, NOT_ZERO, ALIAS, TOPIC };

struct row {
	uint8_t form, limit;
	uint16_t field;  /* offset in struct mqtt_props */
	uint16_t places; /* bit (1 << enum mqtt_place) */
};

#define IN(place) (1u << MQTT_IN_##place)
#define AT(name)  offsetof(struct mqtt_props, name)

enum {
	MESSAGE = IN(PUBLISH) | IN(DELIVERY) | IN(WILL),
	HANDSHAKE = IN(CONNECT) | IN(CONNACK),
	LOGIN = HANDSHAKE | IN(AUTH),
	ANSWER = IN(CONNACK) | IN(ACK) | IN(DISCONNECT) | IN(SERVER_DISCONNECT) | IN(AUTH),
	EVERYWHERE = 0x7ff
};

/* clang-format off */
static const struct row rows[MQTT_PROP_COUNT] = { /* MQTT 5 §2.2.2.2 */
	[MQTT_PROP_PAYLOAD_FORMAT] = {FORM_U8, BOOLEAN, AT(payload_format), MESSAGE},
	[MQTT_PROP_MESSAGE_EXPIRY] = {FORM_U32, ANY, AT(message_expiry_s), MESSAGE},
	[MQTT_PROP_CONTENT_TYPE] = {FORM_TEXT, ANY, AT(content_type), MESSAGE},
	[MQTT_PROP_RESPONSE_TOPIC] = {FORM_TEXT, TOPIC, AT(response_topic), MESSAGE},
	[MQTT_PROP_CORRELATION] = {FORM_BINARY, ANY, AT(correlation), MESSAGE},
	[MQTT_PROP_SUBSCRIPTION_ID] = {FORM_VARINT, NOT_ZERO, AT(subscription_id),
		IN(PUBLISH) | IN(DELIVERY) | IN(SUBSCRIBE)},
	[MQTT_PROP_SESSION_EXPIRY] = {FORM_U32, ANY, AT(session_expiry_s),
		HANDSHAKE | IN(DISCONNECT)},
	[MQTT_PROP_ASSIGNED_ID] = {FORM_TEXT, ANY, AT(assigned_id), IN(CONNACK)},
	[MQTT_PROP_SERVER_KEEP_ALIVE] = {FORM_U16, ANY, AT(server_keep_alive_s), IN(CONNACK)},
	[MQTT_PROP_AUTH_METHOD] = {FORM_TEXT, ANY, AT(auth_method), LOGIN},
	[MQTT_PROP_AUTH_DATA] = {FORM_BINARY, ANY, AT(auth_data), LOGIN},
	[MQTT_PROP_PROBLEM_INFO] = {FORM_U8, BOOLEAN, AT(problem_info), IN(CONNECT)},
	[MQTT_PROP_WILL_DELAY] = {FORM_U32, ANY, AT(will_delay_s), IN(WILL)},
	[MQTT_PROP_WANT_RESPONSE_INFO] = {FORM_U8, BOOLEAN, AT(want_response_info), IN(CONNECT)},
	[MQTT_PROP_RESPONSE_INFO] = {FORM_TEXT, ANY, AT(response_info), IN(CONNACK)},
	[MQTT_PROP_SERVER_REFERENCE] = {FORM_TEXT, ANY, AT(server_reference),
		IN(CONNACK) | IN(SERVER_DISCONNECT)},
	[MQTT_PROP_REASON_TEXT] = {FORM_TEXT, ANY, AT(reason_text), ANSWER},
	[MQTT_PROP_RECEIVE_MAX] = {FORM_U16, NOT_ZERO, AT(receive_max), HANDSHAKE},
	[MQTT_PROP_ALIAS_MAX] = {FORM_U16, ANY, AT(alias_max), HANDSHAKE},
	[MQTT_PROP_ALIAS] = {FORM_U16, ALIAS, AT(alias), IN(PUBLISH) | IN(DELIVERY)},
	[MQTT_PROP_QOS_MAX] = {FORM_U8, BOOLEAN, AT(qos_max), IN(CONNACK)},
	[MQTT_PROP_RETAIN_OK] = {FORM_U8, BOOLEAN, AT(retain_ok), IN(CONNACK)},
	[MQTT_PROP_USER] = {FORM_PAIR, ANY, 0, EVERYWHERE},
	[MQTT_PROP_FRAME_BYTES_MAX] = {FORM_U32, NOT_ZERO, AT(frame_bytes_max), HANDSHAKE},
	[MQTT_PROP_WILDCARD_OK] = {FORM_U8, BOOLEAN, AT(wildcard_ok), IN(CONNACK)},
	[MQTT_PROP_SUBSCRIPTION_ID_OK] = {FORM_U8, BOOLEAN, AT(subscription_id_ok), IN(CONNACK)},
	[MQTT_PROP_SHARED_OK] = {FORM_U8, BOOLEAN, AT(shared_ok), IN(CONNACK)},
};
/* clang-format on */

const char *mqtt_reason_text(uint8_t reason)
{
	switch (reason) {
#define X(name, code, text)                                                                        \
	case code: return text;
		MQTT_REASON_TABLE(X)
#undef X
	default: return "unknown reason";
	}
}

bool mqtt_text_ok(struct bytes b)
{
	return b.len == 0 || (!memchr(b.at, 0, b.len) && bytes_utf8(b));
}

/* Each byte's high bit is set where that byte of v is zero; bytes above a zero may be set too,
 * which is fine for asking whether there is any. */
static inline uint64_t zero_bytes(uint64_t v)
{
	return (v - 0x0101010101010101ull) & ~v & 0x8080808080808080ull;
}

enum { TOPIC_PLAIN, TOPIC_WIDE, TOPIC_BAD }; /* ASCII; has bytes above it; NUL or a wildcard */

static int topic_class(struct bytes b)
{
	uint64_t bad = 0, wide = 0;
	for (size_t i = 0; i < b.len; i += 8) {
		uint64_t v = 0x6161616161616161ull; /* "aaaaaaaa": the fill of the last word */
		size_t n = b.len - i;
		if (n >= 8) {
			memcpy(&v, b.at + i, 8);
		} else {
			for (size_t k = 0; k < n; k++)
				v = v << 8 | b.at[i + k];
		}
		bad |= zero_bytes(v) | zero_bytes(v ^ 0x2b2b2b2b2b2b2b2bull) |
			zero_bytes(v ^ 0x2323232323232323ull);
		wide |= v & 0x8080808080808080ull;
	}
	return bad ? TOPIC_BAD : wide ? TOPIC_WIDE : TOPIC_PLAIN;
}

bool mqtt_topic_ok(struct bytes b)
{
	if (b.len == 0 || b.len > UINT16_MAX)
		return false;
	int class = topic_class(b);
	return class == TOPIC_PLAIN || (class == TOPIC_WIDE && bytes_utf8(b));
}

/* MQTT-4.7.1-1, -2: # is a whole level and the last one, + a whole level. */
static bool wildcards_ok(struct bytes b)
{
	for (size_t i = 0; i < b.len; i++) {
		if (b.at[i] != '#' && b.at[i] != '+')
			continue;
		bool alone_before = i == 0 || b.at[i - 1] == '/';
		bool last = i + 1 == b.len;
		if (!alone_before || (!last && (b.at[i] == '#' || b.at[i + 1] != '/')))
			return false;
	}
	return true;
}

static const struct bytes share_prefix = {(const uint8_t *)"$share/", 7};

bool mqtt_filter_shared(struct bytes b, struct bytes *share, struct bytes *inner)
{
	if (b.len < share_prefix.len || memcmp(b.at, share_prefix.at, share_prefix.len) != 0)
		return false;
	struct bytes rest = bytes_of(b.at + share_prefix.len, b.len - share_prefix.len);
	const uint8_t *slash = rest.len > 0 ? memchr(rest.at, '/', rest.len) : NULL;
	size_t len = slash ? (size_t)(slash - rest.at) : rest.len;
	*share = bytes_of(rest.at, len);
	*inner = slash ? bytes_of(slash + 1, rest.len - len - 1) : bytes_of(rest.at + len, 0);
	return true;
}

bool mqtt_filter_ok(struct bytes b)
{
	if (b.len == 0 || b.len > UINT16_MAX || !mqtt_text_ok(b))
		return false;
	struct bytes share, inner;
	if (!mqtt_filter_shared(b, &share, &inner))
		return wildcards_ok(b);
	/* MQTT-4.8.2-1, -2: a name without wildcards, a slash, a filter. */
	return share.len > 0 && !memchr(share.at, '#', share.len) &&
		!memchr(share.at, '+', share.len) && inner.len > 0 && wildcards_ok(inner);
}

static enum err limit_check(
	const struct row *row, uint32_t v, struct bytes text, enum mqtt_reason *why)
{
	switch ((enum limit)row->limit) {
	case ANY: return OK;
	case BOOLEAN: return v <= 1 ? OK : mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	case NOT_ZERO: return v != 0 ? OK : mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	case ALIAS: return v != 0 ? OK : mqtt_fail(MQTT_BAD_ALIAS, why); /* MQTT-3.3.2-8 */
	case TOPIC: return mqtt_topic_ok(text) ? OK : mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	}
	return OK;
}

static enum err read_scalar(
	struct rd *r, const struct row *row, struct mqtt_props *out, enum mqtt_reason *why)
{
	uint8_t *field = (uint8_t *)out + row->field;
	uint32_t v = 0;
	if (row->form == FORM_U8) {
		uint8_t v8 = rd_u8(r);
		memcpy(field, &v8, sizeof v8);
		v = v8;
	} else if (row->form == FORM_U16) {
		uint16_t v16 = rd_u16be(r);
		memcpy(field, &v16, sizeof v16);
		v = v16;
	} else {
		v = row->form == FORM_U32 ? rd_u32be(r) : mqtt_rd_varint(r);
		memcpy(field, &v, sizeof v);
	}
	if (r->err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	return limit_check(row, v, bytes_of(NULL, 0), why);
}

static enum err read_field(
	struct rd *r, const struct row *row, struct mqtt_props *out, enum mqtt_reason *why)
{
	struct bytes b = mqtt_rd_field(r);
	if (row->form == FORM_PAIR) {
		struct bytes value = mqtt_rd_field(r);
		if (r->err != OK || !mqtt_text_ok(b) || !mqtt_text_ok(value))
			return mqtt_fail(MQTT_MALFORMED, why);
		out->user_count++;
		return OK;
	}
	if (r->err != OK || (row->form == FORM_TEXT && !mqtt_text_ok(b)))
		return mqtt_fail(MQTT_MALFORMED, why);
	memcpy((uint8_t *)out + row->field, &b, sizeof b);
	return limit_check(row, 0, b, why);
}

static bool may_repeat(uint8_t id, enum mqtt_place place)
{
	return id == MQTT_PROP_USER ||
		(id == MQTT_PROP_SUBSCRIPTION_ID && place == MQTT_IN_DELIVERY);
}

static enum err read_one(
	struct rd *r, enum mqtt_place place, struct mqtt_props *out, enum mqtt_reason *why)
{
	uint8_t id = rd_u8(r); /* a varint, but all ids are below 0x80 */
	if (id >= MQTT_PROP_COUNT || !(rows[id].places >> place & 1))
		return mqtt_fail(MQTT_MALFORMED, why);
	if (id == MQTT_PROP_SUBSCRIPTION_ID && place == MQTT_IN_PUBLISH)
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why); /* MQTT-3.3.4-6 */
	bool again = mqtt_props_has(out, (enum mqtt_prop)id);
	if (again && !may_repeat(id, place))
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	mqtt_props_mark(out, (enum mqtt_prop)id);
	if (rows[id].form >= FORM_TEXT)
		return read_field(r, &rows[id], out, why);
	uint32_t first = out->subscription_id;
	enum err e = read_scalar(r, &rows[id], out, why);
	if (again)
		out->subscription_id = first;
	return e;
}

enum err mqtt_props_read(
	struct rd *r, enum mqtt_place place, struct mqtt_props *out, enum mqtt_reason *why)
{
	memset(out, 0, sizeof *out);
	uint32_t len = mqtt_rd_varint(r);
	out->all = rd_take(r, len);
	if (r->err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	struct rd block = rd_over(out->all);
	while (rd_left(&block) > 0) {
		enum err e = read_one(&block, place, out, why);
		if (e != OK)
			return e;
	}
	return OK;
}

/* Steps over properties that were checked before until one of the given id, whose value is then
 * at r. */
static bool seek(struct rd *r, enum mqtt_prop want)
{
	while (rd_left(r) > 0) {
		uint8_t id = rd_u8(r);
		if (id == want)
			return true;
		switch ((enum form)(id < MQTT_PROP_COUNT ? rows[id].form : FORM_NONE)) {
		case FORM_NONE: return false;
		case FORM_U8: rd_skip(r, 1); break;
		case FORM_U16: rd_skip(r, 2); break;
		case FORM_U32: rd_skip(r, 4); break;
		case FORM_VARINT: (void)mqtt_rd_varint(r); break;
		case FORM_PAIR:
			(void)mqtt_rd_field(r);
			(void)mqtt_rd_field(r);
			break;
		case FORM_TEXT:
		case FORM_BINARY: (void)mqtt_rd_field(r); break;
		}
	}
	return false;
}

bool mqtt_user_next(struct bytes *rest, struct mqtt_user *out)
{
	struct rd r = rd_over(*rest);
	if (!seek(&r, MQTT_PROP_USER))
		return false;
	out->name = mqtt_rd_field(&r);
	out->value = mqtt_rd_field(&r);
	*rest = bytes_of(r.at, rd_left(&r));
	return r.err == OK;
}

bool mqtt_subscription_id_next(struct bytes *rest, uint32_t *out)
{
	struct rd r = rd_over(*rest);
	if (!seek(&r, MQTT_PROP_SUBSCRIPTION_ID))
		return false;
	*out = mqtt_rd_varint(&r);
	*rest = bytes_of(r.at, rd_left(&r));
	return r.err == OK;
}

static uint32_t scalar_of(const struct mqtt_props *p, const struct row *row)
{
	const uint8_t *field = (const uint8_t *)p + row->field;
	if (row->form == FORM_U8)
		return *field;
	if (row->form == FORM_U16) {
		uint16_t v;
		memcpy(&v, field, sizeof v);
		return v;
	}
	uint32_t v;
	memcpy(&v, field, sizeof v);
	return v;
}

static struct bytes field_of(const struct mqtt_props *p, const struct row *row)
{
	struct bytes b;
	memcpy(&b, (const uint8_t *)p + row->field, sizeof b);
	return b;
}

/* The next property marked as present, user properties (written last, in order) apart. */
static unsigned next_id(uint64_t *left)
{
	unsigned id = (unsigned)__builtin_ctzll(*left);
	*left &= *left - 1;
	return id;
}

enum { USER_BIT_SHIFT = MQTT_PROP_USER };

static uint64_t single_props(const struct mqtt_props *p)
{
	return p->present & ~(1ull << USER_BIT_SHIFT) & ((1ull << MQTT_PROP_COUNT) - 1);
}

size_t mqtt_props_size(const struct mqtt_props *p)
{
	size_t size = 0;
	for (uint64_t left = single_props(p); left;) {
		const struct row *row = &rows[next_id(&left)];
		switch ((enum form)row->form) {
		case FORM_NONE:
		case FORM_PAIR: break;
		case FORM_U8: size += 1 + 1; break;
		case FORM_U16: size += 1 + 2; break;
		case FORM_U32: size += 1 + 4; break;
		case FORM_VARINT: size += 1 + mqtt_varint_size(scalar_of(p, row)); break;
		case FORM_TEXT:
		case FORM_BINARY: size += 1 + 2 + field_of(p, row).len; break;
		}
	}
	for (uint32_t i = 0; p->users && i < p->user_count; i++)
		size += 1 + 2 + p->users[i].name.len + 2 + p->users[i].value.len;
	return size;
}

uint8_t *mqtt_props_put(uint8_t *at, const struct mqtt_props *p)
{
	for (uint64_t left = single_props(p); left;) {
		unsigned id = next_id(&left);
		const struct row *row = &rows[id];
		if (row->form == FORM_NONE)
			continue;
		*at++ = (uint8_t)id;
		switch ((enum form)row->form) {
		case FORM_NONE:
		case FORM_PAIR: break;
		case FORM_U8: *at++ = (uint8_t)scalar_of(p, row); break;
		case FORM_U16: at = mqtt_put_u16(at, (uint16_t)scalar_of(p, row)); break;
		case FORM_U32:
			put_u32be(at, scalar_of(p, row));
			at += 4;
			break;
		case FORM_VARINT: at = mqtt_put_varint(at, scalar_of(p, row)); break;
		case FORM_TEXT:
		case FORM_BINARY: at = mqtt_put_field(at, field_of(p, row)); break;
		}
	}
	for (uint32_t i = 0; p->users && i < p->user_count; i++) {
		*at++ = MQTT_PROP_USER;
		at = mqtt_put_field(at, p->users[i].name);
		at = mqtt_put_field(at, p->users[i].value);
	}
	return at;
}

void mqtt_props_encode(struct buf *out, const struct mqtt_props *p)
{
	size_t size = mqtt_props_size(p);
	uint8_t *at = size > 0 ? buf_room(out, size) : NULL;
	if (!at)
		return;
	mqtt_props_put(at, p);
	buf_claim(out, size);
}
