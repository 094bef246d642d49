/* Reading of MQTT packets. Every reader takes a whole frame: it reads all fields through one
 * sticky reader, asks once whether they were there, and then checks what the specification says
 * about their values. PUBLISH, the one that matters for speed, does nothing but that and touches
 * the properties only in MQTT 5. */
#include "protocols/mqtt/mqtt_wire_priv.h"

#define FLAGS_ANY 0xff

static const struct type_row {
	const char *name;
	uint8_t flags; /* the only ones allowed (MQTT-2.1.3-1), or FLAGS_ANY */
} types[16] = {
	[0] = {"reserved", 0},
	[MQTT_CONNECT] = {"CONNECT", 0},
	[MQTT_CONNACK] = {"CONNACK", 0},
	[MQTT_PUBLISH] = {"PUBLISH", FLAGS_ANY},
	[MQTT_PUBACK] = {"PUBACK", 0},
	[MQTT_PUBREC] = {"PUBREC", 0},
	[MQTT_PUBREL] = {"PUBREL", 2},
	[MQTT_PUBCOMP] = {"PUBCOMP", 0},
	[MQTT_SUBSCRIBE] = {"SUBSCRIBE", 2},
	[MQTT_SUBACK] = {"SUBACK", 0},
	[MQTT_UNSUBSCRIBE] = {"UNSUBSCRIBE", 2},
	[MQTT_UNSUBACK] = {"UNSUBACK", 0},
	[MQTT_PINGREQ] = {"PINGREQ", 0},
	[MQTT_PINGRESP] = {"PINGRESP", 0},
	[MQTT_DISCONNECT] = {"DISCONNECT", 0},
	[MQTT_AUTH] = {"AUTH", 0},
};

const char *mqtt_type_text(enum mqtt_type type)
{
	return types[type & 15].name;
}

enum err mqtt_frame_read(
	struct bytes in, size_t frame_bytes_max, struct mqtt_frame *out, size_t *used)
{
	*used = 0;
	if (in.len == 0)
		return ERR_MORE;
	uint8_t type = in.at[0] >> 4, flags = in.at[0] & 15;
	if (type == 0 || (types[type].flags != FLAGS_ANY && types[type].flags != flags))
		return ERR_MALFORMED;
	size_t len = 0, at = 1;
	for (unsigned shift = 0;; shift += 7) {
		if (shift == 7 * MQTT_VARINT_BYTES_MAX)
			return ERR_MALFORMED;
		if (at == in.len)
			return ERR_MORE;
		uint8_t b = in.at[at++];
		len |= (size_t)(b & 0x7f) << shift;
		if (b >= 0x80)
			continue;
		if (b == 0 && shift > 0) /* MQTT-1.5.5-1: a shorter form exists */
			return ERR_MALFORMED;
		break;
	}
	if (at + len > frame_bytes_max)
		return ERR_TOOBIG;
	*used = at + len;
	if (in.len < at + len)
		return ERR_MORE;
	*out = (struct mqtt_frame){(enum mqtt_type)type, flags, bytes_of(in.at + at, len)};
	return OK;
}

/* CONNECT flags, MQTT 5 §3.1.2.3. */
enum {
	CONNECT_RESERVED = 0x01,
	CONNECT_CLEAN = 0x02,
	CONNECT_WILL = 0x04,
	CONNECT_WILL_QOS_SHIFT = 3,
	CONNECT_WILL_RETAIN = 0x20,
	CONNECT_PASSWORD = 0x40,
	CONNECT_USER = 0x80
};

/* Protocol name and level. The version is known afterwards, whatever happens then: a client of
 * a later level than ours is told so in MQTT 5, all others in 3.1.1, whose return code 1 MQTT
 * 3.1 clients know too. */
static enum err read_version(struct rd *r, struct mqtt_connect *out, enum mqtt_reason *why)
{
	struct bytes name = mqtt_rd_field(r);
	uint8_t level = rd_u8(r);
	if (r->err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	bool named = bytes_equal(name, bytes_text("MQTT"));
	out->version = named && level >= MQTT_V5 ? MQTT_V5 : MQTT_V311;
	if (!named || (level != MQTT_V311 && level != MQTT_V5)) /* MQTT-3.1.2-1, -2 */
		return mqtt_fail(MQTT_BAD_VERSION, why);
	return OK;
}

static enum err take_flags(uint8_t flags, struct mqtt_connect *out, enum mqtt_reason *why)
{
	out->clean = flags & CONNECT_CLEAN;
	out->has_will = flags & CONNECT_WILL;
	out->has_user = flags & CONNECT_USER;
	out->has_password = flags & CONNECT_PASSWORD;
	out->will.qos = flags >> CONNECT_WILL_QOS_SHIFT & 3;
	out->will.retain = flags & CONNECT_WILL_RETAIN;
	bool bad = flags & CONNECT_RESERVED;                                  /* MQTT-3.1.2-3 */
	bad = bad || (!out->has_will && (out->will.qos || out->will.retain)); /* -11, -13 */
	bad = bad || out->will.qos == 3;                                      /* -12 */
	/* 3.1.1 only: MQTT-3.1.2-22 there. */
	bad = bad || (out->version == MQTT_V311 && out->has_password && !out->has_user);
	return bad ? mqtt_fail(MQTT_MALFORMED, why) : OK;
}

static void take_limits(struct mqtt_connect *c)
{
	const struct mqtt_props *p = &c->props;
	c->session_expiry_s = p->session_expiry_s;
	if (c->version == MQTT_V311)
		c->session_expiry_s = c->clean ? 0 : UINT32_MAX;
	c->frame_bytes_max = p->frame_bytes_max ? p->frame_bytes_max : UINT32_MAX;
	c->receive_max = p->receive_max ? p->receive_max : UINT16_MAX;
	c->alias_max = p->alias_max;
	c->problem_info = !mqtt_props_has(p, MQTT_PROP_PROBLEM_INFO) || p->problem_info;
	c->want_response_info = p->want_response_info;
}

static enum err read_will(struct rd *r, struct mqtt_connect *out, enum mqtt_reason *why)
{
	if (out->version == MQTT_V5) {
		enum err e = mqtt_props_read(r, MQTT_IN_WILL, &out->will.props, why);
		if (e != OK)
			return e;
	}
	out->will.topic = mqtt_rd_field(r);
	out->will.payload = mqtt_rd_field(r);
	if (r->err != OK || !mqtt_text_ok(out->will.topic)) /* MQTT-3.1.3-11 */
		return mqtt_fail(MQTT_MALFORMED, why);
	return mqtt_topic_ok(out->will.topic) ? OK : mqtt_fail(MQTT_BAD_TOPIC, why);
}

/* Client id, will, user name, password, in this order (MQTT-3.1.3-1). */
static enum err read_connect_payload(struct rd *r, struct mqtt_connect *out, enum mqtt_reason *why)
{
	out->client_id = mqtt_rd_field(r);
	if (r->err != OK || !mqtt_text_ok(out->client_id)) /* MQTT-3.1.3-4 */
		return mqtt_fail(MQTT_MALFORMED, why);
	if (out->has_will) {
		enum err e = read_will(r, out, why);
		if (e != OK)
			return e;
	}
	if (out->has_user)
		out->user = mqtt_rd_field(r);
	if (out->has_password)
		out->password = mqtt_rd_field(r);
	if (rd_done(r) != OK || !mqtt_text_ok(out->user)) /* MQTT-3.1.3-12 */
		return mqtt_fail(MQTT_MALFORMED, why);
	/* 3.1.1: MQTT-3.1.3-8 there. MQTT 5 assigns an id in either case. */
	if (out->version == MQTT_V311 && out->client_id.len == 0 && !out->clean)
		return mqtt_fail(MQTT_BAD_CLIENT_ID, why);
	return OK;
}

enum err mqtt_read_connect(
	const struct mqtt_frame *f, struct mqtt_connect *out, enum mqtt_reason *why)
{
	memset(out, 0, sizeof *out);
	out->version = MQTT_V311;
	struct rd r = rd_over(f->body);
	enum err e = read_version(&r, out, why);
	if (e != OK)
		return e;
	uint8_t flags = rd_u8(&r);
	out->keep_alive_s = rd_u16be(&r);
	if (r.err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	e = take_flags(flags, out, why);
	if (e == OK && out->version == MQTT_V5)
		e = mqtt_props_read(&r, MQTT_IN_CONNECT, &out->props, why);
	if (e != OK)
		return e;
	if (mqtt_props_has(&out->props, MQTT_PROP_AUTH_DATA) &&
		!mqtt_props_has(&out->props, MQTT_PROP_AUTH_METHOD)) /* MQTT 5 §3.1.2.11.10 */
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	take_limits(out);
	return read_connect_payload(&r, out, why);
}

/* What is wrong with a topic that mqtt_topic_ok refused. */
static enum err refuse_topic(struct bytes topic, enum mqtt_reason *why)
{
	if (!mqtt_text_ok(topic)) /* MQTT-3.3.2-1 */
		return mqtt_fail(MQTT_MALFORMED, why);
	/* Empty: it needs an alias, MQTT 5 §3.3.2.1. Else a wildcard: MQTT-3.3.2-2. */
	return mqtt_fail(topic.len == 0 ? MQTT_PROTOCOL_ERROR : MQTT_BAD_TOPIC, why);
}

static enum err read_publish(const struct mqtt_frame *f, enum mqtt_version version,
	enum mqtt_place place, struct mqtt_publish *out, enum mqtt_reason *why)
{
	out->qos = f->flags >> 1 & 3;
	out->dup = f->flags & 8;
	out->retain = f->flags & 1;
	if (out->qos == 3) /* MQTT-3.3.1-4 */
		return mqtt_fail(MQTT_MALFORMED, why);
	if (out->dup && out->qos == 0) /* MQTT-3.3.1-2 */
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	struct rd r = rd_over(f->body);
	out->topic = mqtt_rd_field(&r);
	out->packet_id = out->qos > 0 ? rd_u16be(&r) : 0;
	if (r.err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	if (out->qos > 0 && out->packet_id == 0) /* MQTT-2.2.1-3 */
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	if (version == MQTT_V5) {
		enum err e = mqtt_props_read(&r, place, &out->props, why);
		if (e != OK)
			return e;
	} else {
		memset(&out->props, 0, sizeof out->props);
	}
	bool aliased = out->topic.len == 0 && out->props.alias != 0;
	if (!aliased && !mqtt_topic_ok(out->topic))
		return refuse_topic(out->topic, why);
	out->payload = bytes_of(r.at, rd_left(&r));
	return OK;
}

enum err mqtt_read_publish(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_publish *out, enum mqtt_reason *why)
{
	return read_publish(f, version, MQTT_IN_PUBLISH, out, why);
}

enum err mqtt_read_delivery(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_publish *out, enum mqtt_reason *why)
{
	return read_publish(f, version, MQTT_IN_DELIVERY, out, why);
}

/* The codes an acknowledgement may carry: MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1. */
static bool ack_reason_ok(enum mqtt_type type, uint8_t reason)
{
	static const uint8_t receipt[] = {MQTT_SUCCESS, MQTT_NO_SUBSCRIBERS, MQTT_UNSPECIFIED,
		MQTT_IMPLEMENTATION, MQTT_NOT_AUTHORIZED, MQTT_BAD_TOPIC, MQTT_ID_IN_USE,
		MQTT_QUOTA, MQTT_BAD_PAYLOAD};
	if (type == MQTT_PUBREL || type == MQTT_PUBCOMP)
		return reason == MQTT_SUCCESS || reason == MQTT_ID_NOT_FOUND;
	return memchr(receipt, reason, sizeof receipt) != NULL;
}

enum err mqtt_read_ack(const struct mqtt_frame *f, enum mqtt_version version, struct mqtt_ack *out,
	enum mqtt_reason *why)
{
	struct rd r = rd_over(f->body);
	memset(out, 0, sizeof *out);
	out->packet_id = rd_u16be(&r);
	if (version == MQTT_V5 && rd_left(&r) > 0) /* absent: success, MQTT 5 §3.4.2.1 */
		out->reason = rd_u8(&r);
	if (version == MQTT_V5 && rd_left(&r) > 0) {
		enum err e = mqtt_props_read(&r, MQTT_IN_ACK, &out->props, why);
		if (e != OK)
			return e;
	}
	if (rd_done(&r) != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	if (out->packet_id == 0 || !ack_reason_ok(f->type, out->reason))
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	return OK;
}

/* Subscription options, MQTT 5 §3.8.3.1. */
enum {
	OPT_QOS = 0x03,
	OPT_NO_LOCAL = 0x04,
	OPT_AS_PUBLISHED = 0x08,
	OPT_HANDLING_SHIFT = 4,
	OPT_RESERVED_V5 = 0xc0,
	OPT_RESERVED_V311 = 0xfc
};

static enum err check_options(
	uint8_t options, enum mqtt_version version, bool shared, enum mqtt_reason *why)
{
	/* MQTT-3.8.3-5; 3.1.1: MQTT-3-8.3-4. */
	if (options & (version == MQTT_V5 ? OPT_RESERVED_V5 : OPT_RESERVED_V311))
		return mqtt_fail(MQTT_MALFORMED, why);
	bool bad = (options & OPT_QOS) == 3 || (options >> OPT_HANDLING_SHIFT & 3) == 3;
	bad = bad || (shared && (options & OPT_NO_LOCAL)); /* MQTT-3.8.3-4 */
	return bad ? mqtt_fail(MQTT_PROTOCOL_ERROR, why) : OK;
}

static enum err check_filters(
	struct mqtt_subscribe *s, enum mqtt_version version, enum mqtt_reason *why)
{
	struct rd r = rd_over(s->filters);
	while (rd_left(&r) > 0) {
		struct bytes filter = mqtt_rd_field(&r), share, inner;
		uint8_t options = s->has_options ? rd_u8(&r) : 0;
		if (r.err != OK || !mqtt_text_ok(filter)) /* MQTT-3.8.3-1, MQTT-3.10.3-1 */
			return mqtt_fail(MQTT_MALFORMED, why);
		if (!mqtt_filter_ok(filter))
			return mqtt_fail(MQTT_BAD_FILTER, why);
		bool shared = mqtt_filter_shared(filter, &share, &inner);
		enum err e = check_options(options, version, shared, why);
		if (e != OK)
			return e;
		s->count++;
	}
	if (s->count == 0) /* MQTT-3.8.3-2, MQTT-3.10.3-2 */
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	return OK;
}

static enum err read_filters(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_subscribe *out, enum mqtt_reason *why)
{
	struct rd r = rd_over(f->body);
	memset(out, 0, sizeof *out);
	out->has_options = f->type == MQTT_SUBSCRIBE;
	out->packet_id = rd_u16be(&r);
	if (r.err != OK)
		return mqtt_fail(MQTT_MALFORMED, why);
	if (out->packet_id == 0) /* MQTT-2.2.1-3 */
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	if (version == MQTT_V5) {
		enum mqtt_place place = out->has_options ? MQTT_IN_SUBSCRIBE : MQTT_IN_UNSUBSCRIBE;
		enum err e = mqtt_props_read(&r, place, &out->props, why);
		if (e != OK)
			return e;
	}
	out->filters = bytes_of(r.at, rd_left(&r));
	return check_filters(out, version, why);
}

enum err mqtt_read_subscribe(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_subscribe *out, enum mqtt_reason *why)
{
	return read_filters(f, version, out, why);
}

enum err mqtt_read_unsubscribe(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_subscribe *out, enum mqtt_reason *why)
{
	return read_filters(f, version, out, why);
}

bool mqtt_filter_next(const struct mqtt_subscribe *s, struct bytes *rest, struct mqtt_filter *out)
{
	if (rest->len == 0)
		return false;
	struct rd r = rd_over(*rest);
	memset(out, 0, sizeof *out);
	out->full = out->filter = mqtt_rd_field(&r);
	out->shared = mqtt_filter_shared(out->full, &out->share, &out->filter);
	uint8_t options = s->has_options ? rd_u8(&r) : 0;
	out->qos = options & OPT_QOS;
	out->no_local = options & OPT_NO_LOCAL;
	out->retain_as_published = options & OPT_AS_PUBLISHED;
	out->retain_handling = options >> OPT_HANDLING_SHIFT & 3;
	*rest = bytes_of(r.at, rd_left(&r));
	return r.err == OK;
}

/* Reason code and properties, either of which may be left out from the end. */
static enum err read_reasoned(
	struct rd *r, enum mqtt_place place, struct mqtt_reasoned *out, enum mqtt_reason *why)
{
	memset(out, 0, sizeof *out);
	if (rd_left(r) > 0)
		out->reason = rd_u8(r);
	if (rd_left(r) > 0) {
		enum err e = mqtt_props_read(r, place, &out->props, why);
		if (e != OK)
			return e;
	}
	return rd_done(r) == OK ? OK : mqtt_fail(MQTT_MALFORMED, why);
}

enum err mqtt_read_disconnect(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_reasoned *out, enum mqtt_reason *why)
{
	/* What a client may say, MQTT-3.14.2-1. */
	static const uint8_t allowed[] = {MQTT_SUCCESS, MQTT_DISCONNECT_WITH_WILL, MQTT_UNSPECIFIED,
		MQTT_MALFORMED, MQTT_PROTOCOL_ERROR, MQTT_IMPLEMENTATION, MQTT_BAD_TOPIC,
		MQTT_RECEIVE_MAX, MQTT_BAD_ALIAS, MQTT_TOO_LARGE, MQTT_RATE_TOO_HIGH, MQTT_QUOTA,
		MQTT_ADMIN_ACTION, MQTT_BAD_PAYLOAD};
	if (version == MQTT_V311) {
		memset(out, 0, sizeof *out);
		return mqtt_read_empty(f, why);
	}
	struct rd r = rd_over(f->body);
	enum err e = read_reasoned(&r, MQTT_IN_DISCONNECT, out, why);
	if (e == OK && !memchr(allowed, out->reason, sizeof allowed))
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	return e;
}

enum err mqtt_read_auth(const struct mqtt_frame *f, enum mqtt_version version,
	struct mqtt_reasoned *out, enum mqtt_reason *why)
{
	if (version == MQTT_V311) /* type 15 is reserved there */
		return mqtt_fail(MQTT_MALFORMED, why);
	struct rd r = rd_over(f->body);
	enum err e = read_reasoned(&r, MQTT_IN_AUTH, out, why);
	if (e != OK)
		return e;
	/* MQTT-3.15.2-1; the method may not be left out, MQTT 5 §3.15.2.2.2. */
	if ((out->reason != MQTT_CONTINUE_AUTH && out->reason != MQTT_REAUTHENTICATE) ||
		!mqtt_props_has(&out->props, MQTT_PROP_AUTH_METHOD))
		return mqtt_fail(MQTT_PROTOCOL_ERROR, why);
	return OK;
}

enum err mqtt_read_empty(const struct mqtt_frame *f, enum mqtt_reason *why)
{
	return f->body.len == 0 ? OK : mqtt_fail(MQTT_MALFORMED, why);
}
