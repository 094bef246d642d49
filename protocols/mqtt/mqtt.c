/* The life of an MQTT connection and its input. Frames are cut from what has arrived and handed to
 * the function of their type; a frame that cannot be taken yet (too much is in flight somewhere)
 * stays where it is and input is not read until it can. Nothing is queued on behalf of a client but
 * what its protocol bounds. */
#include "protocols/mqtt/mqtt_priv.h"

enum { FRAME_HEADROOM = 65536 + 64 * 1024, SESSION_STOP_MS = 8000, CACHE_BYTES_MAX = 16 << 20 };

#define AT(field) offsetof(struct mqtt_conf, field)
const struct conf_row mqtt_rows[] = {
	{"mqtt.connect_rate", CONF_INT, AT(connect_rate), "20000", 0, 10000000, NULL,
		CONF_AT_RELOAD, NULL,
		"CONNECTs admitted per second; those over it are delayed, and refused when they "
		"have "
		"waited for mqtt.login_ms. 0: no limit."},
	{"mqtt.login_ms", CONF_MSEC, AT(login_ms), "10s", 100, 600000, NULL, CONF_AT_RELOAD, NULL,
		"Time from the opening of a connection to CONNECT, and to the answer."},
	{"mqtt.login_bytes_max", CONF_BYTES, AT(login_bytes_max), "256KiB", 1024, 16777216, NULL,
		CONF_AT_RELOAD, NULL, "Greatest CONNECT packet."},
	{"mqtt.keep_alive_max", CONF_INT, AT(keep_alive_s_max), "0", 0, 65535, NULL, CONF_AT_RELOAD,
		NULL, "Longest keep alive in seconds (MQTT 5 clients are told); 0: as they like."},
	{"mqtt.inflight_max", CONF_INT, AT(inflight_max), "1000", 1, 65535, NULL, CONF_AT_RELOAD,
		NULL,
		"QoS 1 and 2 messages unacknowledged at a time, from a client (its Receive "
		"Maximum) "
		"and to a client (at most what it asks for)."},
	{"mqtt.topic_alias_max", CONF_INT, AT(alias_max), "16", 0, 1000, NULL, CONF_AT_START, NULL,
		"Topic aliases a client may set."},
	{"mqtt.session_expiry_max", CONF_INT, AT(session_expiry_s_max), "4294967295", 0, 4294967295,
		NULL, CONF_AT_RELOAD, NULL,
		"Longest time in seconds that a session lasts while its client is away; "
		"4294967295: "
		"for ever."},
	{"mqtt.subscriptions_max", CONF_INT, AT(subscriptions_max), "10000", 1, 1000000, NULL,
		CONF_AT_RELOAD, NULL, "Subscriptions of one session."},
	{"mqtt.subscription_bytes_max", CONF_BYTES, AT(subscription_bytes_max), "2MiB", 1024,
		8388608, NULL, CONF_AT_RELOAD, NULL,
		"Bytes of the topic filters of one session, each level counted as 32 more."},
	{"mqtt.client_id_bytes_max", CONF_INT, AT(client_id_bytes_max), "256", 23, 65535, NULL,
		CONF_AT_RELOAD, NULL, "Longest client identifier, in bytes."},
	{0},
};

static const struct metric_row metric_rows[] = {
	[M_CONNECTED] = {"sluice_mqtt_connected", NULL, METRIC_GAUGE, "Clients connected."},
	[M_CONNECTS] = {"sluice_mqtt_connects_total", NULL, METRIC_COUNTER, "CONNECTs accepted."},
	[M_CONNECTS_REFUSED] = {"sluice_mqtt_connects_refused_total", NULL, METRIC_COUNTER,
		"CONNECTs refused."},
	[M_TAKEN_OVER] = {"sluice_mqtt_taken_over_total", NULL, METRIC_COUNTER,
		"Connections closed because their client connected again."},
	[M_KEEP_ALIVE] = {"sluice_mqtt_keep_alive_timeouts_total", NULL, METRIC_COUNTER,
		"Connections closed because nothing came in time."},
	[M_PROTOCOL_ERRORS] = {"sluice_mqtt_protocol_errors_total", NULL, METRIC_COUNTER,
		"Connections closed because a rule was broken."},
	[M_PUBLISH_IN_0] = {"sluice_mqtt_publish_in_total", "qos=\"0\"", METRIC_COUNTER,
		"PUBLISH packets received."},
	[M_PUBLISH_IN_1] = {"sluice_mqtt_publish_in_total", "qos=\"1\"", METRIC_COUNTER,
		"PUBLISH packets received."},
	[M_PUBLISH_IN_2] = {"sluice_mqtt_publish_in_total", "qos=\"2\"", METRIC_COUNTER,
		"PUBLISH packets received."},
	[M_PUBLISH_OUT_0] = {"sluice_mqtt_publish_out_total", "qos=\"0\"", METRIC_COUNTER,
		"PUBLISH packets sent."},
	[M_PUBLISH_OUT_1] = {"sluice_mqtt_publish_out_total", "qos=\"1\"", METRIC_COUNTER,
		"PUBLISH packets sent."},
	[M_PUBLISH_OUT_2] = {"sluice_mqtt_publish_out_total", "qos=\"2\"", METRIC_COUNTER,
		"PUBLISH packets sent."},
	[M_PUBLISH_FAILED] = {"sluice_mqtt_publish_failed_total", NULL, METRIC_COUNTER,
		"Messages received that could not be stored."},
	[M_PUBLISH_DENIED] = {"sluice_mqtt_publish_denied_total", NULL, METRIC_COUNTER,
		"Messages received that their user may not publish."},
	[M_DROPPED_EXPIRED] = {"sluice_mqtt_dropped_total", "why=\"expired\"", METRIC_COUNTER,
		"Messages not sent to a subscriber."},
	[M_DROPPED_TOO_LARGE] = {"sluice_mqtt_dropped_total", "why=\"too_large\"", METRIC_COUNTER,
		"Messages not sent to a subscriber."},
	[M_DROPPED_QUOTA] = {"sluice_mqtt_dropped_total", "why=\"quota\"", METRIC_COUNTER,
		"Messages not sent to a subscriber."},
	[M_SUBSCRIPTIONS] = {"sluice_mqtt_subscribes_total", NULL, METRIC_COUNTER,
		"Topic filters subscribed to."},
	[M_INPUT_PAUSED] = {"sluice_mqtt_input_paused_total", NULL, METRIC_COUNTER,
		"Times a client was not read from because too much was in flight."},
};
struct metric_table mqtt_metrics = {metric_rows, sizeof metric_rows / sizeof metric_rows[0], 0};

void mqtt_pause(struct mqtt_conn *m, enum mqtt_pause why)
{
	if (m->pauses & why)
		return;
	m->pauses = (uint8_t)(m->pauses | why);
	if (why == PAUSE_OUTPUT) {
		m->seen_ms = loop_now_ms(m->home->loop);
		m->seen_taken = conn_taken(m->conn);
	}
	COUNT(m, M_INPUT_PAUSED, why == PAUSE_ROOM || why == PAUSE_INFLIGHT);
	conn_pause(m->conn);
}

void mqtt_unpause(struct mqtt_conn *m, enum mqtt_pause why)
{
	if (!(m->pauses & why))
		return;
	m->pauses = (uint8_t)(m->pauses & ~why);
	conn_resume(m->conn);
}

void mqtt_wrote(struct mqtt_conn *m, enum err e)
{
	/* ERR_TOOBIG without an error of the buffer: what the client would not take is left out. */
	if (e != OK && conn_out(m->conn)->err != OK) {
		conn_close(m->conn, e);
		return;
	}
	conn_wrote(m->conn);
	if (conn_over_high(m->conn))
		mqtt_pause(m, PAUSE_OUTPUT);
}

enum err mqtt_refuse(struct mqtt_conn *m, enum mqtt_reason reason, const char *what)
{
	if (conn_is_closing(m->conn))
		return ERR_PROTOCOL;
	COUNT(m, M_PROTOCOL_ERRORS, 1);
	LOG(LOG_INFO, AREA_MQTT, "mqtt_refused", "peer=%s client=\"%s\" what=\"%s\" reason=\"%s\"",
		conn_peer(m->conn), m->session != NULL ? log_text(session_id(m->session)).text : "",
		what, mqtt_reason_text((uint8_t)reason));
	if (m->session != NULL)
		mqtt_wrote(m, mqtt_write_disconnect(conn_out(m->conn), &m->peer, reason, NULL));
	conn_close(m->conn, ERR_PROTOCOL);
	return ERR_PROTOCOL;
}

/* For PUBACK, PUBREC, SUBACK, DISCONNECT; CONNACK has its own. */
enum mqtt_reason mqtt_reason_of(enum err e)
{
	switch (e) {
	case OK: return MQTT_SUCCESS;
	case ERR_MALFORMED: return MQTT_MALFORMED;
	case ERR_PROTOCOL: return MQTT_PROTOCOL_ERROR;
	case ERR_INVALID: return MQTT_BAD_TOPIC;
	case ERR_TOOBIG:
	case ERR_BUSY:
	case ERR_NOSPACE:
	case ERR_QUOTA: return MQTT_QUOTA;
	case ERR_UNAUTHENTICATED:
	case ERR_DENIED: return MQTT_NOT_AUTHORIZED;
	case ERR_FENCED: return MQTT_IMPLEMENTATION;
	case ERR_UNSUPPORTED:
	case ERR_NOTLEADER:
	case ERR_UNAVAILABLE:
	case ERR_UNKNOWN:
	case ERR_TIMEOUT: return MQTT_IMPLEMENTATION;
	case ERR_MORE:
	case ERR_NOMEM:
	case ERR_NOTFOUND:
	case ERR_EXISTS:
	case ERR_CONFLICT:
	case ERR_RANGE:
	case ERR_CORRUPT:
	case ERR_SEQUENCE:
	case ERR_IO:
	case ERR_CLOSED:
	case ERR_COUNT: return MQTT_UNSPECIFIED;
	}
	return MQTT_UNSPECIFIED;
}

/* Input */

static enum err on_pingreq(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	enum mqtt_reason why;
	if (mqtt_read_empty(f, &why) != OK)
		return mqtt_refuse(m, why, "PINGREQ");
	/* One that is not this node's any more is found out, also when nothing else comes. */
	if (m->session != NULL)
		(void)session_may_acknowledge(m->session);
	mqtt_wrote(m, mqtt_write_pingresp(conn_out(m->conn)));
	return OK;
}

static enum err on_disconnect(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_reasoned d;
	enum mqtt_reason why;
	if (mqtt_read_disconnect(f, m->peer.version, &d, &why) != OK)
		return mqtt_refuse(m, why, "DISCONNECT");
	if (mqtt_props_has(&d.props, MQTT_PROP_SESSION_EXPIRY)) {
		int64_t max = m->home->mqtt->conf->session_expiry_s_max;
		if (!m->expires && d.props.session_expiry_s > 0) /* MQTT-3.14.2-2 */
			return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "DISCONNECT expiry");
		m->expiry_s = d.props.session_expiry_s > max ? (uint32_t)max
							     : d.props.session_expiry_s;
	}
	m->graceful = d.reason == MQTT_SUCCESS; /* MQTT-3.14.4-3 */
	conn_close(m->conn, ERR_CLOSED);
	return ERR_CLOSED;
}

static enum err on_again(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	(void)f; /* MQTT-3.1.0-2 */
	return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "second CONNECT");
}

static enum err (*const handlers[MQTT_TYPE_COUNT])(
	struct mqtt_conn *m, const struct mqtt_frame *f) = {
	[MQTT_CONNECT] = on_again,
	[MQTT_PUBLISH] = mqtt_on_publish,
	[MQTT_PUBACK] = mqtt_on_puback,
	[MQTT_PUBREC] = mqtt_on_pubrec,
	[MQTT_PUBREL] = mqtt_on_pubrel,
	[MQTT_PUBCOMP] = mqtt_on_pubcomp,
	[MQTT_SUBSCRIBE] = mqtt_on_subscribe,
	[MQTT_UNSUBSCRIBE] = mqtt_on_unsubscribe,
	[MQTT_PINGREQ] = on_pingreq,
	[MQTT_DISCONNECT] = on_disconnect,
	[MQTT_AUTH] = mqtt_on_auth,
};

/* Before CONNACK: after CONNECT only enhanced authentication lets input be read. */
static enum err on_login_frame(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	if (m->login == NULL && f->type == MQTT_CONNECT)
		return mqtt_on_connect(m, f);
	if (m->login == NULL)
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "no CONNECT"); /* MQTT-3.1.0-1 */
	if (f->type == MQTT_AUTH)
		return mqtt_on_auth(m, f);
	if (f->type == MQTT_DISCONNECT)
		return on_disconnect(m, f);
	return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, mqtt_type_text(f->type));
}

/* ERR_BUSY: the frame is to be presented again. */
static enum err on_frame(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	if (m->session == NULL)
		return on_login_frame(m, f);
	if (handlers[f->type] == NULL)
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, mqtt_type_text(f->type));
	return handlers[f->type](m, f);
}

static size_t frame_bytes_max(const struct mqtt_conn *m)
{
	if (m->session == NULL)
		return (size_t)m->home->mqtt->conf->login_bytes_max;
	return (size_t)shard_conf(m->home->shard)->message_bytes_max + FRAME_HEADROOM;
}

static enum err on_no_frame(struct mqtt_conn *m, enum err e, size_t size)
{
	switch ((int)e) {
	case ERR_MORE:
		if (size > 0)
			conn_need(m->conn, size);
		return OK;
	case ERR_TOOBIG: return mqtt_refuse(m, MQTT_TOO_LARGE, "packet size");
	default: return mqtt_refuse(m, MQTT_MALFORMED, "fixed header");
	}
}

static enum err on_input(struct conn *c)
{
	struct mqtt_conn *m = mqtt_of(c);
	struct mqtt_frame f;
	size_t used;
	enum err e = OK;
	m->seen_ms = loop_now_ms(m->home->loop);
	while (m->pauses == 0 && !conn_is_closing(c)) {
		e = mqtt_frame_read(conn_input(c), frame_bytes_max(m), &f, &used);
		if (e != OK) {
			e = on_no_frame(m, e, used);
			break;
		}
		e = on_frame(m, &f);
		if (e != OK)
			break;
		conn_consume(c, used);
	}
	if (m->acked && !conn_is_closing(c))
		mqtt_after_acks(m);
	m->seen_bytes = (uint32_t)conn_input(c).len;
	return e == ERR_BUSY ? OK : e;
}

/* Life */

static enum err on_opened(struct conn *c)
{
	struct mqtt_conn *m = mqtt_of(c);
	struct mqtt *all = conn_door_arg(c);
	m->conn = c;
	m->home = &all->loops[loop_index(conn_loop(c))];
	m->peer = (struct mqtt_peer){MQTT_V311, UINT32_MAX, true};
	list_init(&m->inbound);
	list_init(&m->releases);
	list_init(&m->room.node);
	conn_deadline(c, all->conf->login_ms);
	return OK;
}

static void on_drained(struct conn *c)
{
	struct mqtt_conn *m = mqtt_of(c);
	mqtt_unpause(m, PAUSE_OUTPUT);
	if (m->session != NULL)
		mqtt_drained(m);
}

void mqtt_arm_keep_alive(struct mqtt_conn *m)
{
	int64_t limit = (int64_t)m->keep_alive_s * 1500;
	int64_t idle = loop_now_ms(m->home->loop) - m->seen_ms;
	conn_deadline(m->conn, limit == 0 ? 0 : idle < limit ? limit - idle : 1);
}

/* Whether it may have sent something since seen_ms that was not looked at: bytes of a frame that is
 * not all there yet, or anything while input is not read. Who is not read because it does not read
 * must have done so since the last time. */
static bool may_have_sent(struct mqtt_conn *m)
{
	uint32_t bytes = (uint32_t)conn_input(m->conn).len, bytes_before = m->seen_bytes;
	m->seen_bytes = bytes;
	if (m->pauses == PAUSE_OUTPUT) {
		uint32_t taken_before = m->seen_taken;
		m->seen_taken = conn_taken(m->conn);
		return m->seen_taken != taken_before;
	}
	return m->pauses != 0 || bytes != bytes_before;
}

static void on_timeout(struct conn *c)
{
	struct mqtt_conn *m = mqtt_of(c);
	if (m->session == NULL) {
		mqtt_login_timeout(m);
		return;
	}
	if (may_have_sent(m))
		m->seen_ms = loop_now_ms(m->home->loop);
	if (loop_now_ms(m->home->loop) - m->seen_ms < (int64_t)m->keep_alive_s * 1500) {
		mqtt_arm_keep_alive(m);
		return;
	}
	COUNT(m, M_KEEP_ALIVE, 1);
	mqtt_wrote(m, mqtt_write_disconnect(conn_out(c), &m->peer, MQTT_KEEP_ALIVE, NULL));
	conn_close(c, ERR_TIMEOUT);
}

static void on_stopping(struct conn *c)
{
	struct mqtt_conn *m = mqtt_of(c);
	if (m->session != NULL)
		mqtt_wrote(
			m, mqtt_write_disconnect(conn_out(c), &m->peer, MQTT_SHUTTING_DOWN, NULL));
}

static void on_closed(struct conn *c, enum err why)
{
	struct mqtt_conn *m = mqtt_of(c);
	(void)why;
	list_remove(&m->room.node);
	mqtt_login_end(m);
	mqtt_auth_end(m);
	mqtt_publish_end(m);
	mqtt_deliver_end(m);
	mqtt_rights_end(m);
	if (m->session == NULL)
		return;
	COUNT(m, M_CONNECTED, -1);
	struct session *s = m->session;
	m->session = NULL;
	s->owner = NULL;
	if (m->subop != NULL) {
		s->owner = m->subop;
		mqtt_subscribe_end(m);
	}
	session_close(s, !m->graceful, m->expiry_s);
}

const struct conn_kind mqtt_kind = {
	.name = "mqtt",
	.state_bytes = sizeof(struct mqtt_conn),
	.opened = on_opened,
	.input = on_input,
	.drained = on_drained,
	.timeout = on_timeout,
	.closed = on_closed,
	.stopping = on_stopping,
};

/* The door */

struct mqtt *mqtt_new(const struct mqtt_conf *conf, struct broker *b, struct loops *loops)
{
	int count = loops_count(loops);
	struct mqtt *all = mem_new(sizeof *all + (size_t)count * sizeof all->loops[0]);
	all->conf = conf;
	all->broker = b;
	all->count = count;
	all->sessions = sessions_new(b, loops);
	for (int i = 0; i < count; i++) {
		struct mqtt_loop *l = &all->loops[i];
		l->mqtt = all;
		l->loop = loops_at(loops, i);
		l->shard = broker_shard(b, l->loop);
		list_init(&l->spare);
		buf_init(&l->cache.buf, CACHE_BYTES_MAX);
		mqtt_login_init(l);
	}
	return all;
}

void mqtt_stop(struct mqtt *m)
{
	sessions_stop(m->sessions, SESSION_STOP_MS);
}

void mqtt_free(struct mqtt *m)
{
	if (m == NULL)
		return;
	for (int i = 0; i < m->count; i++) {
		struct mqtt_loop *l = &m->loops[i];
		mqtt_publish_fini(l);
		buf_fini(&l->cache.buf);
		mem_free(l->users);
		mem_free(l->ids);
	}
	sessions_free(m->sessions);
	mem_free(m);
}
