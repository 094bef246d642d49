/* The first byte picks version and side; the rest is a stream of packets as a connection would
 * cut it. What a reader accepts is walked to its end. */
#include "protocols/mqtt/mqtt_client_wire.h"
#include "server/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_props(const struct mqtt_props *p)
{
	struct bytes rest = p->all;
	struct mqtt_user u;
	uint32_t users = 0, id;
	while (mqtt_user_next(&rest, &u)) {
		must(mqtt_text_ok(u.name));
		must(mqtt_text_ok(u.value));
		users++;
	}
	must(users == p->user_count);
	rest = p->all;
	while (mqtt_subscription_id_next(&rest, &id))
		must(id > 0);
}

/* What was read and is written again reads as the same bytes' meaning. */
static void again_publish(const struct mqtt_publish *p, enum mqtt_version version)
{
	struct buf b;
	buf_init(&b, 1 << 24);
	struct mqtt_publish_out o = {.qos = p->qos,
		.dup = p->dup,
		.retain = p->retain,
		.packet_id = p->packet_id,
		.topic = p->topic,
		.payload_len = p->payload.len,
		.props = p->props.all};
	must(mqtt_write_publish_head(&b, version, &o) == OK);
	buf_add(&b, p->payload);
	must(buf_len(&b) == mqtt_publish_size(version, &o));
	struct mqtt_frame f;
	struct mqtt_publish q;
	enum mqtt_reason why;
	size_t used;
	must(mqtt_frame_read(buf_bytes(&b), SIZE_MAX, &f, &used) == OK);
	must(used == buf_len(&b));
	must(mqtt_read_delivery(&f, version, &q, &why) == OK);
	must(bytes_equal(q.topic, p->topic));
	must(bytes_equal(q.payload, p->payload));
	must(q.props.present == p->props.present);
	buf_fini(&b);
}

static enum err read_filters(
	const struct mqtt_frame *f, enum mqtt_version version, enum mqtt_reason *why)
{
	struct mqtt_subscribe s;
	enum err e = f->type == MQTT_SUBSCRIBE ? mqtt_read_subscribe(f, version, &s, why)
					       : mqtt_read_unsubscribe(f, version, &s, why);
	if (e != OK)
		return e;
	walk_props(&s.props);
	struct bytes rest = s.filters;
	struct mqtt_filter filter;
	uint32_t count = 0;
	while (mqtt_filter_next(&s, &rest, &filter)) {
		must(mqtt_filter_ok(filter.full));
		must(filter.filter.len > 0);
		count++;
	}
	must(count == s.count);
	return OK;
}

static enum err read_reasoned(
	const struct mqtt_frame *f, enum mqtt_version version, bool client, enum mqtt_reason *why)
{
	struct mqtt_reasoned x;
	enum err e;
	if (client)
		e = mqtt_read_server_reasoned(f, &x, why);
	else if (f->type == MQTT_AUTH)
		e = mqtt_read_auth(f, version, &x, why);
	else
		e = mqtt_read_disconnect(f, version, &x, why);
	if (e == OK)
		walk_props(&x.props);
	return e;
}

static enum err read_connect(const struct mqtt_frame *f, enum mqtt_reason *why)
{
	struct mqtt_connect c;
	enum err e = mqtt_read_connect(f, &c, why);
	if (e != OK)
		return e;
	walk_props(&c.props);
	walk_props(&c.will.props);
	must(c.receive_max > 0);
	return OK;
}

static enum err read_one(
	const struct mqtt_frame *f, enum mqtt_version version, bool client, enum mqtt_reason *why)
{
	struct mqtt_publish p;
	struct mqtt_ack a;
	struct mqtt_connack c;
	struct mqtt_codes codes;
	enum err e;
	switch (f->type) {
	case MQTT_CONNECT: return read_connect(f, why);
	case MQTT_CONNACK: return mqtt_read_connack(f, version, &c, why);
	case MQTT_PUBLISH:
		e = client ? mqtt_read_delivery(f, version, &p, why)
			   : mqtt_read_publish(f, version, &p, why);
		if (e == OK) {
			walk_props(&p.props);
			again_publish(&p, version);
		}
		return e;
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP: return mqtt_read_ack(f, version, &a, why);
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE: return read_filters(f, version, why);
	case MQTT_SUBACK:
	case MQTT_UNSUBACK: return mqtt_read_codes(f, version, &codes, why);
	case MQTT_DISCONNECT:
	case MQTT_AUTH: return read_reasoned(f, version, client, why);
	case MQTT_PINGREQ:
	case MQTT_PINGRESP: return mqtt_read_empty(f, why);
	case MQTT_TYPE_COUNT: break;
	}
	must_failed("a packet type", __FILE__, __LINE__);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	enum mqtt_version version = data[0] & 1 ? MQTT_V5 : MQTT_V311;
	bool client = data[0] & 2;
	struct bytes in = bytes_of(data + 1, size - 1);
	struct mqtt_frame f;
	size_t used;
	while (mqtt_frame_read(in, 1 << 20, &f, &used) == OK) {
		must(used <= in.len);
		enum mqtt_reason why = MQTT_SUCCESS;
		enum err e = read_one(&f, version, client, &why);
		must((e == OK) == (why == MQTT_SUCCESS));
		in = bytes_of(in.at + used, in.len - used);
	}
	return 0;
}
