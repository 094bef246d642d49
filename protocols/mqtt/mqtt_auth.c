/* Enhanced authentication (MQTT 5 §4.12) by SCRAM: the client's first message comes with CONNECT,
 * the rest in AUTH packets, our last one leaves with CONNACK; and the same again, in AUTH packets
 * only, from a client that proves itself anew. A login is one exchange, and so is each renewal; a
 * connection has one at a time. */
#include "protocols/mqtt/mqtt_priv.h"

enum { FIRST_MAX = 2 * AUTH_SCRAM_MESSAGE_MAX };

struct exchange {
	struct mqtt_conn *m;
	struct auth_scram *scram;
	bool ending; /* the client has said all */
};

static const struct {
	const char *method;
	enum secret_kind kind;
} methods[] = {
	{"SCRAM-SHA-256", SECRET_SCRAM_256},
	{"SCRAM-SHA-512", SECRET_SCRAM_512},
};
enum { METHODS = sizeof methods / sizeof methods[0] };

int mqtt_auth_method(struct bytes name)
{
	for (int i = 0; i < METHODS; i++)
		if (bytes_equal(name, bytes_text(methods[i].method)))
			return i + 1;
	return 0;
}

void mqtt_auth_props(const struct mqtt_conn *m, struct bytes data, struct mqtt_props *p)
{
	p->auth_method = bytes_text(methods[m->auth_method - 1].method);
	mqtt_props_mark(p, MQTT_PROP_AUTH_METHOD);
	p->auth_data = data;
	mqtt_props_mark(p, MQTT_PROP_AUTH_DATA);
}

static void write_auth(struct mqtt_conn *m, enum mqtt_reason reason, struct bytes data)
{
	struct mqtt_props p = {0};
	mqtt_auth_props(m, data, &p);
	mqtt_wrote(m, mqtt_write_auth(conn_out(m->conn), &m->peer, reason, &p));
}

enum err mqtt_auth_begin(struct mqtt_conn *m, struct bytes data)
{
	struct auth_peer peer = mqtt_auth_peer(m);
	struct exchange *x = mem_try(sizeof *x);
	struct buf first;
	if (x == NULL)
		return ERR_NOMEM;
	*x = (struct exchange){.m = m};
	buf_init(&first, FIRST_MAX);
	enum err e = auth_scram_begin(
		m->home->shard, methods[m->auth_method - 1].kind, &peer, data, &first, &x->scram);
	if (e == OK) {
		m->exchange = x;
		write_auth(m, MQTT_CONTINUE_AUTH, buf_bytes(&first));
	} else {
		mem_free(x);
	}
	buf_fini(&first);
	return e;
}

/* Who has proved itself anew must be who it was: all that it has here is that user's. */
static void renewed(struct mqtt_conn *m, enum err e, struct access *access, struct bytes last)
{
	const struct access *was = m->holder.access;
	bool same = e == OK && bytes_equal(access_user(access), access_user(was)) &&
		bytes_equal(access_tenant(access), access_tenant(was));
	access_unref(access);
	if (conn_is_closing(m->conn))
		return;
	if (same)
		write_auth(m, MQTT_SUCCESS, last);
	else
		mqtt_refuse(m, MQTT_NOT_AUTHORIZED, "authentication");
}

static void on_end(void *arg, enum err e, struct access *access, struct bytes last)
{
	struct exchange *x = arg;
	struct mqtt_conn *m = x->m;
	m->exchange = NULL;
	mem_free(x);
	if (m->session == NULL)
		mqtt_login_proved(m, e, access, last);
	else
		renewed(m, e, access, last);
}

static enum err go_on(struct mqtt_conn *m, struct bytes data)
{
	struct exchange *x = m->exchange;
	if (x == NULL || x->ending)
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "AUTH without a question");
	x->ending = true;
	if (m->session == NULL)
		mqtt_pause(m, PAUSE_LOGIN);
	auth_scram_end(x->scram, data, on_end, x);
	return OK;
}

enum err mqtt_on_auth(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_reasoned a;
	enum mqtt_reason why;
	if (m->peer.version == MQTT_V311)
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "AUTH");
	if (mqtt_read_auth(f, m->peer.version, &a, &why) != OK)
		return mqtt_refuse(m, why, "AUTH");
	if (m->auth_method == 0) /* MQTT-4.12.0-7 */
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "AUTH without method");
	if (mqtt_auth_method(a.props.auth_method) != m->auth_method) /* MQTT-4.12.0-5 */
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "another method");
	if (a.reason == MQTT_CONTINUE_AUTH)
		return go_on(m, a.props.auth_data);
	if (m->session == NULL || m->exchange != NULL)
		return mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "AUTH while one is under way");
	if (mqtt_auth_begin(m, a.props.auth_data) != OK) /* MQTT-4.12.1-2 */
		return mqtt_refuse(m, MQTT_NOT_AUTHORIZED, "authentication");
	return OK;
}

void mqtt_auth_end(struct mqtt_conn *m)
{
	if (m->exchange == NULL)
		return;
	auth_scram_free(m->exchange->scram);
	mem_free(m->exchange);
	m->exchange = NULL;
}
