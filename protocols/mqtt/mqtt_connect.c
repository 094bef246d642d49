/* CONNECT: checked, admitted at a rate, logged in, its session opened, then CONNACK. While that is
 * under way nothing is read from the connection; what the client has sent already waits in the
 * socket. */
#include "protocols/mqtt/mqtt_priv.h"
#include "server/base/clock.h"
#include "server/broker/secret.h"
#include "server/broker/tenant.h"
#include "server/broker/will.h"

enum { WILL_HEADROOM = 256 * 1024, WILL_WHO_BYTES = 512, RATE_TICK_MS = 10, ID_CHARS = 20 };

struct login {               /* from CONNECT to CONNACK */
	struct list node;    /* in home->logins while it waits for the rate */
	struct mqtt_conn *m; /* NULL: gone, only the login is awaited */
	struct auth_login auth;
	bool authenticating;
	struct session_open *opening; /* NULL: not begun */
	bool assigned;
	bool clean;
	bool keep_alive_cut, expiry_cut;
	struct buf will;
	bool has_user;
	bool proving; /* enhanced authentication is under way, or was done */
	uint16_t user_len, password_len, will_topic_len, id_len;
	uint8_t *user, *will_topic;
	uint8_t *password;    /* or authentication data; wiped as soon as looked at */
	struct buf proof;     /* ours, for CONNACK */
	uint8_t *id, *inside; /* the client id, and room for it with a tenant */
	uint8_t bytes[];
};

static const struct mqtt_conf *conf_of(const struct mqtt_conn *m)
{
	return m->home->mqtt->conf;
}

static enum err answer_refusal(struct mqtt_conn *m, enum mqtt_reason reason)
{
	COUNT(m, M_CONNECTS_REFUSED, 1);
	LOG(LOG_INFO, AREA_MQTT, "connect_refused", "peer=%s reason=\"%s\"", conn_peer(m->conn),
		mqtt_reason_text((uint8_t)reason));
	mqtt_wrote(m, mqtt_write_connack(conn_out(m->conn), &m->peer, false, reason, NULL));
	conn_close(m->conn, ERR_PROTOCOL);
	return ERR_PROTOCOL;
}

static enum mqtt_reason refusal_of(enum err e)
{
	enum mqtt_reason reason = mqtt_reason_of(e);
	return reason == MQTT_IMPLEMENTATION ? MQTT_UNAVAILABLE : reason;
}

/* The session is there */

static void fill_connack(
	struct mqtt_conn *m, const struct login *l, struct mqtt_props *p, struct bytes id)
{
	const struct mqtt_conf *conf = conf_of(m);
	p->receive_max = m->receive_max_told = (uint16_t)conf->inflight_max;
	mqtt_props_mark(p, MQTT_PROP_RECEIVE_MAX);
	p->frame_bytes_max = (uint32_t)shard_conf(m->home->shard)->message_bytes_max + 65536;
	mqtt_props_mark(p, MQTT_PROP_FRAME_BYTES_MAX);
	p->alias_max = (uint16_t)conf->alias_max;
	mqtt_props_mark(p, MQTT_PROP_ALIAS_MAX);
	mqtt_props_mark(p, MQTT_PROP_SHARED_OK); /* 0: not yet */
	if (l->assigned) {
		p->assigned_id = id;
		mqtt_props_mark(p, MQTT_PROP_ASSIGNED_ID);
	}
	if (l->keep_alive_cut) {
		p->server_keep_alive_s = m->keep_alive_s;
		mqtt_props_mark(p, MQTT_PROP_SERVER_KEEP_ALIVE);
	}
	if (l->expiry_cut) {
		p->session_expiry_s = m->expiry_s;
		mqtt_props_mark(p, MQTT_PROP_SESSION_EXPIRY);
	}
}

static void login_free(struct mqtt_conn *m)
{
	struct login *l = m->login;
	m->login = NULL;
	list_remove(&l->node);
	buf_fini(&l->will);
	buf_fini(&l->proof);
	secret_wipe(l->password, l->password_len);
	l->m = NULL;
	if (l->authenticating)
		auth_cancel(&l->auth);
	else
		mem_free(l);
}

static void on_session(struct session_open *op)
{
	struct mqtt_conn *m = op->owner;
	struct login *l = m->login;
	struct mqtt_props p = {0};
	l->opening = NULL;
	if (op->err != OK) {
		enum err e = op->err;
		login_free(m);
		if (!conn_is_closing(m->conn))
			answer_refusal(m, refusal_of(e));
		return;
	}
	m->session = op->session;
	m->id_skip = (uint8_t)(m->session->id_len - l->id_len);
	mqtt_rights_changed(m);
	COUNT(m, M_CONNECTED, 1);
	if (conn_is_closing(m->conn)) {
		login_free(m);
		return;
	}
	fill_connack(m, l, &p, mqtt_client_id(m));
	if (l->proving)
		mqtt_auth_props(m, buf_bytes(&l->proof), &p);
	mqtt_wrote(
		m, mqtt_write_connack(conn_out(m->conn), &m->peer, op->present, MQTT_SUCCESS, &p));
	login_free(m);
	COUNT(m, M_CONNECTS, 1);
	m->seen_ms = loop_now_ms(m->home->loop);
	mqtt_arm_keep_alive(m);
	session_resume(m->session);
	mqtt_unpause(m, PAUSE_LOGIN);
}

static void on_written(struct session *s)
{
	struct mqtt_conn *m = s->owner;
	mqtt_flush_acks(m);
	mqtt_flush_subop(m);
	mqtt_release_held(m);
}

static void on_fenced(struct session *s, enum err why)
{
	struct mqtt_conn *m = s->owner;
	bool taken = why == ERR_FENCED;
	if (conn_is_closing(m->conn))
		return;
	COUNT(m, M_TAKEN_OVER, taken);
	mqtt_wrote(m,
		mqtt_write_disconnect(conn_out(m->conn), &m->peer,
			taken ? MQTT_TAKEN_OVER : MQTT_IMPLEMENTATION, NULL));
	conn_close(m->conn, why);
}

static const struct session_ops session_ops = {
	.deliver = mqtt_deliver,
	.again = mqtt_again,
	.written = on_written,
	.fenced = on_fenced,
	.ended = mqtt_ended,
};

static void open_session(struct login *l)
{
	struct mqtt_conn *m = l->m;
	struct session_open ask = {.all = m->home->mqtt->sessions,
		.shard = m->home->shard,
		.ops = &session_ops,
		.owner = m,
		.client_id = tenant_id(
			access_tenant(m->holder.access), bytes_of(l->id, l->id_len), l->inside),
		.unique = l->assigned,
		.clean = l->clean,
		.expiry_s = m->expiry_s,
		.will = buf_bytes(&l->will),
		.done = on_session};
	enum err e = session_open(&ask, &l->opening);
	if (e == OK)
		return;
	login_free(m);
	answer_refusal(m, refusal_of(e));
}

/* Who it is */

static enum mqtt_reason login_reason(enum err e)
{
	switch ((int)e) {
	case ERR_UNAUTHENTICATED: return MQTT_BAD_LOGIN;
	case ERR_DENIED: return MQTT_NOT_AUTHORIZED;
	case ERR_BUSY: return MQTT_BUSY;
	default: return MQTT_UNAVAILABLE;
	}
}

static bool may_leave_will(struct mqtt_conn *m, const struct login *l)
{
	struct bytes topic = bytes_of(l->will_topic, l->will_topic_len);
	return buf_len(&l->will) == 0 ||
		access_topic(m->holder.access, ACTION_WRITE, topic, bytes_of(l->id, l->id_len));
}

/* For its right to be looked at again when it leaves. */
static enum err sign_will(struct mqtt_conn *m, struct login *l)
{
	if (buf_len(&l->will) > 0)
		will_say_who(&l->will, access_user(m->holder.access), conn_peer(m->conn));
	return l->will.err;
}

static void let_in(struct login *l, enum err e, struct access *access)
{
	struct mqtt_conn *m = l->m;
	if (conn_is_closing(m->conn)) { /* it was told: too late, or its login is over */
		access_unref(access);
		login_free(m);
		return;
	}
	if (e == OK && mqtt_hold(m, access) != OK) {
		access_unref(access);
		login_free(m);
		answer_refusal(m, MQTT_QUOTA);
		return;
	}
	if (e == OK && !may_leave_will(m, l))
		e = ERR_DENIED;
	if (e == OK)
		e = sign_will(m, l);
	if (e == OK) {
		open_session(l);
		return;
	}
	login_free(m);
	answer_refusal(m, login_reason(e));
}

static void on_login(struct auth_login *a)
{
	struct login *l = list_entry(a, struct login, auth);
	l->authenticating = false;
	if (l->m == NULL) {
		access_unref(a->access);
		mem_free(l);
		return;
	}
	let_in(l, a->err, a->access);
}

/* By enhanced authentication, which has its messages where a password would be. Input is read for
 * its next packet. */
static void prove(struct login *l)
{
	struct mqtt_conn *m = l->m;
	enum err e = mqtt_auth_begin(m, bytes_of(l->password, l->password_len));
	l->proving = true;
	if (e != OK)
		let_in(l, e == ERR_MALFORMED ? ERR_UNAUTHENTICATED : e, NULL);
	else
		mqtt_unpause(m, PAUSE_LOGIN);
}

void mqtt_login_proved(struct mqtt_conn *m, enum err e, struct access *access, struct bytes last)
{
	buf_add(&m->login->proof, last);
	let_in(m->login, e, access);
}

static void authenticate(struct login *l)
{
	struct mqtt_conn *m = l->m;
	struct auth_peer peer = mqtt_auth_peer(m);
	if (conn_is_closing(m->conn)) {
		login_free(m);
		return;
	}
	if (m->auth_method != 0) {
		prove(l);
		return;
	}
	if (!l->has_user) {
		struct access *access = NULL;
		enum err e = auth_without(m->home->shard, &peer, &access);
		let_in(l, e == ERR_UNAUTHENTICATED ? ERR_DENIED : e, access);
		return;
	}
	l->authenticating = true;
	l->auth = (struct auth_login){.shard = m->home->shard, .done = on_login};
	auth_login(&l->auth, &peer, bytes_of(l->user, l->user_len),
		bytes_of(l->password, l->password_len));
	secret_wipe(l->password, l->password_len);
}

/* The rate: a loop admits its share of it */

static bool take_token(struct mqtt_loop *l)
{
	int64_t rate = l->mqtt->conf->connect_rate;
	int64_t now = loop_now_ms(l->loop);
	if (rate == 0)
		return true;
	int64_t cost = 1000000 * (int64_t)l->mqtt->count / rate;
	l->tokens_us += (now - l->tokens_at_ms) * 1000;
	l->tokens_at_ms = now;
	if (l->tokens_us > 200000 + cost)
		l->tokens_us = 200000 + cost;
	if (l->tokens_us < cost)
		return false;
	l->tokens_us -= cost;
	return true;
}

static void on_login_timer(struct loop_timer *t)
{
	struct mqtt_loop *l = list_entry(t, struct mqtt_loop, login_timer);
	while (!list_empty(&l->logins) && take_token(l))
		authenticate(list_entry(list_pop(&l->logins), struct login, node));
	if (!list_empty(&l->logins))
		loop_timer_set(t, RATE_TICK_MS);
}

void mqtt_login_init(struct mqtt_loop *l)
{
	list_init(&l->logins);
	loop_timer_init(&l->login_timer, l->loop, on_login_timer);
}

static void admit(struct login *l)
{
	struct mqtt_loop *home = l->m->home;
	if (list_empty(&home->logins) && take_token(home)) {
		authenticate(l);
		return;
	}
	list_push_back(&home->logins, &l->node);
	if (!loop_timer_is_set(&home->login_timer))
		loop_timer_set(&home->login_timer, RATE_TICK_MS);
}

void mqtt_login_timeout(struct mqtt_conn *m)
{
	if (m->login == NULL) {
		conn_close(m->conn, ERR_TIMEOUT); /* no CONNECT came */
		return;
	}
	bool waits = !list_empty(&m->login->node);
	answer_refusal(m, waits ? MQTT_CONNECT_RATE : MQTT_UNAVAILABLE);
}

void mqtt_login_lost(struct mqtt_conn *m)
{
	if (m->session == NULL) {
		answer_refusal(m, MQTT_NOT_AUTHORIZED);
		return;
	}
	LOG(LOG_INFO, AREA_MQTT, "login_over", "peer=%s client=\"%s\" user=\"%s\"",
		conn_peer(m->conn), log_text(mqtt_client_id(m)).text,
		log_text(access_user(m->holder.access)).text);
	mqtt_wrote(
		m, mqtt_write_disconnect(conn_out(m->conn), &m->peer, MQTT_NOT_AUTHORIZED, NULL));
	conn_close(m->conn, ERR_DENIED);
}

void mqtt_login_end(struct mqtt_conn *m)
{
	if (m->login == NULL)
		return;
	if (m->login->opening != NULL)
		session_open_cancel(m->login->opening);
	login_free(m);
}

/* The packet */

static enum mqtt_reason check(const struct mqtt_conn *m, const struct mqtt_connect *c)
{
	if (mqtt_props_has(&c->props, MQTT_PROP_AUTH_METHOD) &&
		mqtt_auth_method(c->props.auth_method) == 0)
		return MQTT_BAD_AUTH_METHOD;
	if ((int64_t)c->client_id.len > conf_of(m)->client_id_bytes_max)
		return MQTT_BAD_CLIENT_ID;
	if (c->client_id.len == 0 && c->version == MQTT_V311 && !c->clean) /* MQTT-3.1.3-8 */
		return MQTT_BAD_CLIENT_ID;
	return MQTT_SUCCESS;
}

static enum err keep_will(struct mqtt_conn *m, const struct mqtt_connect *c, struct buf *out)
{
	size_t max = (size_t)shard_conf(m->home->shard)->message_bytes_max;
	struct mqtt_headers *h = mem_new(sizeof *h);
	const struct mqtt_props *p = &c->will.props;
	struct bytes none = bytes_of(NULL, 0);
	enum err e = c->will.payload.len > max ? ERR_TOOBIG : mqtt_headers_fill(h, p, none, none);
	struct will w = {.delay_s = p->will_delay_s,
		.has_expiry = mqtt_props_has(p, MQTT_PROP_MESSAGE_EXPIRY),
		.expiry_s = p->message_expiry_s,
		.message = {.topic = c->will.topic,
			.value = c->will.payload,
			.qos = c->will.qos,
			.retain = c->will.retain,
			.headers = h->at,
			.header_count = h->count}};
	buf_init(out, max + WILL_HEADROOM + WILL_WHO_BYTES);
	if (e == OK)
		e = will_encode(&w, max + WILL_HEADROOM, out);
	mem_free(h);
	return e;
}

static void make_id(uint8_t *out)
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
	uint8_t random[ID_CHARS];
	random_fill(random, sizeof random);
	memcpy(out, "auto-", 5);
	for (int i = 0; i < ID_CHARS; i++)
		out[5 + i] = (uint8_t)digits[random[i] & 31];
}

static struct login *login_new(struct mqtt_conn *m, const struct mqtt_connect *c)
{
	bool assigned = c->client_id.len == 0;
	size_t len = assigned ? 5 + ID_CHARS : c->client_id.len;
	struct bytes topic = c->has_will ? c->will.topic : bytes_of(NULL, 0);
	bool proves = mqtt_props_has(&c->props, MQTT_PROP_AUTH_METHOD);
	struct bytes password = proves ? c->props.auth_data : c->password;
	size_t all = c->user.len + password.len + topic.len + 2 * len + TENANT_ID_EXTRA;
	struct login *l = mem_try(sizeof *l + all);
	if (l == NULL)
		return NULL;
	*l = (struct login){.m = m,
		.assigned = assigned,
		.clean = c->clean,
		.has_user = c->has_user || c->has_password,
		.user_len = (uint16_t)c->user.len,
		.password_len = (uint16_t)password.len,
		.will_topic_len = (uint16_t)topic.len,
		.id_len = (uint16_t)len};
	l->user = l->bytes;
	l->password = l->user + l->user_len;
	l->will_topic = l->password + l->password_len;
	l->id = l->will_topic + l->will_topic_len;
	l->inside = l->id + len;
	if (l->user_len > 0)
		memcpy(l->user, c->user.at, l->user_len);
	if (l->password_len > 0)
		memcpy(l->password, password.at, l->password_len);
	if (l->will_topic_len > 0)
		memcpy(l->will_topic, topic.at, topic.len);
	list_init(&l->node);
	buf_init(&l->will, 0);
	buf_init(&l->proof, AUTH_SCRAM_MESSAGE_MAX);
	if (assigned)
		make_id(l->id);
	else
		memcpy(l->id, c->client_id.at, len);
	return l;
}

static void take_wishes(struct mqtt_conn *m, struct login *l, const struct mqtt_connect *c)
{
	const struct mqtt_conf *conf = conf_of(m);
	int64_t keep = conf->keep_alive_s_max;
	m->peer.frame_bytes_max = c->frame_bytes_max;
	m->peer.problem_info = c->problem_info;
	m->receive_max = c->receive_max < conf->inflight_max ? c->receive_max
							     : (uint16_t)conf->inflight_max;
	m->keep_alive_s = c->keep_alive_s;
	if (keep > 0 && c->version == MQTT_V5 && (c->keep_alive_s == 0 || c->keep_alive_s > keep)) {
		m->keep_alive_s = (uint16_t)keep;
		l->keep_alive_cut = true;
	}
	m->expiry_s = c->session_expiry_s;
	m->expires = c->session_expiry_s > 0;
	if (m->expiry_s > conf->session_expiry_s_max) {
		m->expiry_s = (uint32_t)conf->session_expiry_s_max;
		l->expiry_cut = true;
	}
}

/* Whether it is MQTT of some version, 3.1 ("MQIsdp") included, which can be told so. */
static bool knows_mqtt(const struct mqtt_frame *f)
{
	struct rd r = rd_over(f->body);
	struct bytes name = rd_take(&r, rd_u16be(&r));
	return bytes_equal(name, bytes_text("MQTT")) || bytes_equal(name, bytes_text("MQIsdp"));
}

enum err mqtt_on_connect(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_connect c;
	enum mqtt_reason why;
	enum err e = mqtt_read_connect(f, &c, &why);
	m->peer.version = c.version;
	bool has_code = c.version == MQTT_V5 || why == MQTT_BAD_CLIENT_ID || e == ERR_UNSUPPORTED;
	if (e != OK && (!has_code || !knows_mqtt(f)))
		return mqtt_refuse(m, why, "CONNECT"); /* no answer says that */
	if (e != OK)
		return answer_refusal(m, why);
	why = check(m, &c);
	if (why != MQTT_SUCCESS)
		return answer_refusal(m, why);
	struct login *l = login_new(m, &c);
	if (l == NULL)
		return answer_refusal(m, MQTT_UNAVAILABLE);
	m->login = l;
	if (c.has_will && (e = keep_will(m, &c, &l->will)) != OK) {
		login_free(m);
		return answer_refusal(m, e == ERR_TOOBIG ? MQTT_TOO_LARGE : MQTT_UNAVAILABLE);
	}
	take_wishes(m, l, &c);
	m->auth_method = (uint8_t)mqtt_auth_method(c.props.auth_method);
	mqtt_pause(m, PAUSE_LOGIN);
	admit(l);
	return conn_is_closing(m->conn) ? ERR_PROTOCOL : OK;
}
