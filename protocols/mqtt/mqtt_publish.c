/* What a client publishes. A message goes to the broker at once, from the input buffer; QoS 1 and 2
 * leave a small note in the order of arrival, and are acknowledged in that order when the message
 * is in the log. QoS 2 is delivered onward then, too: what PUBREL ends is the memory of its id. */
#include "protocols/mqtt/mqtt_priv.h"
#include "server/broker/topic.h"

enum { SPARE_MAX = 4096 };

struct inbound { /* a publish that is not acknowledged yet */
	struct publish publish;
	struct list node; /* in m->inbound, or spare */
	struct mqtt_loop *home;
	struct mqtt_conn *m; /* NULL: the client has gone */
	uint64_t ticket;     /* what session_written must reach */
	uint16_t packet_id;
	uint8_t qos;
	bool done;
};

struct alias {
	uint8_t *text;
	uint16_t len;
};

struct release { /* a PUBREL of a durable session: the row is being removed */
	struct session_forget forget;
	struct list node;    /* in m->releases */
	struct mqtt_conn *m; /* NULL: the client has gone */
};

static struct inbound *inbound_new(struct mqtt_conn *m, const struct mqtt_publish *p)
{
	struct mqtt_loop *l = m->home;
	struct list *n = list_pop(&l->spare);
	struct inbound *in = n != NULL ? list_entry(n, struct inbound, node) : mem_new(sizeof *in);
	l->spare_count -= n != NULL;
	*in = (struct inbound){.home = l, .m = m, .packet_id = p->packet_id, .qos = p->qos};
	list_init(&in->publish.node);
	list_push_back(&m->inbound, &in->node);
	m->inbound_count++;
	return in;
}

static void inbound_free(struct inbound *in)
{
	struct mqtt_loop *l = in->home;
	list_remove(&in->node);
	if (in->m != NULL)
		in->m->inbound_count--;
	if (l->spare_count >= SPARE_MAX) {
		mem_free(in);
		return;
	}
	l->spare_count++;
	list_push_front(&l->spare, &in->node);
}

void mqtt_publish_fini(struct mqtt_loop *l)
{
	struct list *n;
	while ((n = list_pop(&l->spare)) != NULL)
		mem_free(list_entry(n, struct inbound, node));
}

void mqtt_publish_end(struct mqtt_conn *m)
{
	struct list *n;
	while ((n = list_pop(&m->inbound)) != NULL) {
		struct inbound *in = list_entry(n, struct inbound, node);
		in->m = NULL;
		if (in->done)
			inbound_free(in);
	}
	while ((n = list_pop(&m->releases)) != NULL)
		list_entry(n, struct release, node)->m = NULL;
	for (int64_t i = 0; m->aliases != NULL && i < m->home->mqtt->conf->alias_max; i++)
		mem_free(m->aliases[i].text);
	mem_free(m->aliases);
	m->aliases = NULL;
}

/* Acknowledging */

static void give_quota(struct mqtt_conn *m)
{
	if (m->quota > 0)
		m->quota--;
}

static void write_ack(struct mqtt_conn *m, enum mqtt_type type, uint16_t id, enum mqtt_reason why)
{
	mqtt_wrote(m, mqtt_write_ack(conn_out(m->conn), &m->peer, type, id, why, NULL));
}

/* In 3.1.1 no answer says no: the connection ends, and the client tries again over the next one;
 * but for what it may not publish, which it would try for ever. */
static void acknowledge(struct mqtt_conn *m, const struct inbound *in)
{
	enum err e = in->publish.err;
	if (e == ERR_DENIED && m->peer.version == MQTT_V311) /* MQTT-3.3.5-2 */
		e = OK;
	if (e != OK && m->peer.version == MQTT_V311) {
		conn_close(m->conn, e);
		return;
	}
	if (in->qos == 1 || in->publish.err != OK)
		give_quota(m);
	write_ack(m, in->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, in->packet_id, mqtt_reason_of(e));
}

void mqtt_flush_acks(struct mqtt_conn *m)
{
	uint64_t written = session_written(m->session);
	while (!list_empty(&m->inbound) && session_may_acknowledge(m->session)) {
		struct inbound *in = list_entry(m->inbound.next, struct inbound, node);
		if (!in->done || in->ticket > written || conn_is_closing(m->conn))
			break;
		acknowledge(m, in);
		inbound_free(in);
	}
	if (m->inbound_count < m->home->mqtt->conf->inflight_max)
		mqtt_unpause(m, PAUSE_INFLIGHT);
}

static void settle_once(struct inbound *in)
{
	struct session *s = in->m->session;
	struct session_id *id = session_ids_find(&s->received, in->packet_id);
	if (id == NULL)
		return;
	if (in->publish.err != OK) {
		session_ids_remove(&s->received, in->packet_id);
		return;
	}
	id->state = ID_RECEIVED;
	if (in->publish.partition != NULL) {
		id->group = partition_group(in->publish.partition);
		in->ticket = session_listed(s, in->publish.partition);
	}
}

static void count_failed(struct mqtt_loop *l, enum err e)
{
	metric_add(loop_cells(l->loop), &mqtt_metrics,
		e == ERR_DENIED ? M_PUBLISH_DENIED : M_PUBLISH_FAILED, 1);
}

static void on_done(struct publish *p)
{
	struct inbound *in = list_entry(p, struct inbound, publish);
	struct mqtt_conn *m = in->m;
	if (p->err != OK)
		count_failed(in->home, p->err);
	if (m == NULL) {
		inbound_free(in);
		return;
	}
	in->done = true;
	if (in->qos == 2)
		settle_once(in);
	mqtt_flush_acks(m);
}

/* Publishing */

static void on_room(struct room_wait *w)
{
	mqtt_unpause(list_entry(w, struct mqtt_conn, room), PAUSE_ROOM);
}

static void fill_message(
	struct mqtt_conn *m, const struct mqtt_publish *p, struct bytes topic, struct message *out)
{
	*out = (struct message){.tenant = access_tenant(m->holder.access),
		.topic = topic,
		.value = p->payload,
		.qos = p->qos,
		.retain = p->retain,
		.timestamp_ms = loop_now_wall_ms(m->home->loop)};
	if (mqtt_props_has(&p->props, MQTT_PROP_MESSAGE_EXPIRY))
		out->expires_at_ms = out->timestamp_ms + (int64_t)p->props.message_expiry_s * 1000;
}

static enum err hand_over(struct mqtt_conn *m, const struct message *msg, struct inbound *in)
{
	if (in == NULL)
		return shard_publish(m->home->shard, msg, NULL);
	in->publish.done = on_done;
	if (in->qos == 2)
		return session_publish_once(m->session, msg, in->packet_id, &in->publish);
	return shard_publish(m->home->shard, msg, &in->publish);
}

/* Out of line for its stack: most messages have no properties. */
static __attribute__((noinline)) enum err hand_over_headers(struct mqtt_conn *m,
	struct message *msg, const struct mqtt_props *p, bool mark, struct inbound *in)
{
	struct mqtt_headers h;
	enum err e = mqtt_headers_fill(
		&h, p, mark ? mqtt_client_id(m) : bytes_of(NULL, 0), access_user(m->holder.access));
	if (e != OK)
		return e;
	msg->headers = h.at;
	msg->header_count = h.count;
	return hand_over(m, msg, in);
}

static enum err publish(
	struct mqtt_conn *m, const struct mqtt_publish *p, struct bytes topic, struct inbound *in)
{
	struct message msg;
	if (!mqtt_may_publish(m, topic))
		return ERR_DENIED;
	fill_message(m, p, topic, &msg);
	bool mark = m->session->reader.no_local_count > 0; /* as its own, so that it is known */
	if (p->props.present == 0 && !mark)
		return hand_over(m, &msg, in);
	return hand_over_headers(m, &msg, &p->props, mark, in);
}

/* The topic an alias stands for, or which it stands for from now on. */
static enum err resolve(struct mqtt_conn *m, const struct mqtt_publish *p, struct bytes *topic)
{
	int64_t max = m->home->mqtt->conf->alias_max;
	*topic = p->topic;
	if (!mqtt_props_has(&p->props, MQTT_PROP_ALIAS))
		return OK;
	if (p->props.alias == 0 || p->props.alias > max) /* MQTT-3.3.2-8, -9 */
		return mqtt_refuse(m, MQTT_BAD_ALIAS, "topic alias");
	if (m->aliases == NULL)
		m->aliases = mem_new((size_t)max * sizeof *m->aliases);
	struct alias *a = &m->aliases[p->props.alias - 1];
	if (p->topic.len == 0) {
		*topic = bytes_of(a->text, a->len);
		return a->text != NULL ? OK : mqtt_refuse(m, MQTT_PROTOCOL_ERROR, "unknown alias");
	}
	if (bytes_equal(p->topic, bytes_of(a->text, a->len)))
		return OK;
	uint8_t *text = mem_try(p->topic.len);
	if (text == NULL)
		return mqtt_refuse(m, MQTT_QUOTA, "topic alias");
	memcpy(text, p->topic.at, p->topic.len);
	mem_free(a->text);
	*a = (struct alias){text, (uint16_t)p->topic.len};
	return OK;
}

/* A packet id that came before. OK: it was dealt with. ERR_NOTFOUND: it is new. */
static enum err seen_before(struct mqtt_conn *m, const struct mqtt_publish *p)
{
	const struct session_id *id = session_ids_find(&m->session->received, p->packet_id);
	if (id == NULL)
		return ERR_NOTFOUND;
	if (id->state == ID_RECEIVED)
		write_ack(m, MQTT_PUBREC, p->packet_id, MQTT_SUCCESS);
	else if (id->state == ID_RELEASING)
		write_ack(m, MQTT_PUBREC, p->packet_id, MQTT_ID_IN_USE);
	return OK;
}

static enum err take_quota(struct mqtt_conn *m)
{
	int64_t max = m->home->mqtt->conf->inflight_max;
	if (m->peer.version == MQTT_V5 && m->quota >= m->receive_max_told) /* MQTT-3.3.4-7 */
		return mqtt_refuse(m, MQTT_RECEIVE_MAX, "receive maximum");
	if (m->inbound_count >= max) {
		mqtt_pause(m, PAUSE_INFLIGHT);
		return ERR_BUSY;
	}
	return OK;
}

static enum err publish_noted(struct mqtt_conn *m, const struct mqtt_publish *p, struct bytes topic)
{
	enum err e = take_quota(m);
	if (e != OK)
		return e;
	if (p->qos == 2 &&
		(e = session_ids_add(&m->session->received,
			 (struct session_id){0, p->packet_id, ID_PENDING})) != OK)
		return mqtt_refuse(m, MQTT_QUOTA, "QoS 2 ids");
	struct inbound *in = inbound_new(m, p);
	m->quota++;
	e = publish(m, p, topic, in);
	if (e == OK)
		return OK;
	if (e == ERR_BUSY) { /* all as it was: it comes again */
		if (p->qos == 2)
			session_ids_remove(&m->session->received, p->packet_id);
		inbound_free(in);
		m->quota--;
		return e;
	}
	in->publish.err = e;
	in->publish.partition = NULL;
	on_done(&in->publish);
	return OK;
}

enum err mqtt_on_publish(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_publish p;
	struct bytes topic;
	enum mqtt_reason why;
	if (mqtt_read_publish(f, m->peer.version, &p, &why) != OK)
		return mqtt_refuse(m, why, "PUBLISH");
	enum err e = resolve(m, &p, &topic);
	if (e != OK)
		return e;
	if ((int64_t)p.payload.len > shard_conf(m->home->shard)->message_bytes_max)
		return mqtt_refuse(m, MQTT_TOO_LARGE, "message size");
	if (p.qos == 2 && seen_before(m, &p) == OK)
		return OK;
	if (p.qos > 0)
		e = publish_noted(m, &p, topic);
	else
		e = publish(m, &p, topic, NULL);
	if (e == ERR_BUSY) {
		if (!(m->pauses & PAUSE_INFLIGHT)) {
			mqtt_pause(m, PAUSE_ROOM);
			m->room.room = on_room;
			shard_when_room(m->home->shard, &m->room);
		}
		return e;
	}
	COUNT(m, M_PUBLISH_IN_0 + p.qos, 1);
	mqtt_charge_in(m, f->body.len);
	if (p.qos == 0 && e != OK) { /* nobody can be told: it is lost */
		count_failed(m->home, e);
		e = OK;
	}
	return e;
}

/* PUBREL */

static void complete(struct mqtt_conn *m, uint16_t packet_id, enum mqtt_reason why)
{
	if (why == MQTT_SUCCESS) {
		session_ids_remove(&m->session->received, packet_id);
		give_quota(m);
	}
	write_ack(m, MQTT_PUBCOMP, packet_id, why);
}

static void on_forgotten(struct session_forget *f)
{
	struct release *r = list_entry(f, struct release, forget);
	struct mqtt_conn *m = r->m;
	list_remove(&r->node);
	if (m != NULL && f->err == OK)
		complete(m, f->packet_id, MQTT_SUCCESS);
	else if (m != NULL)
		conn_close(m->conn, f->err); /* it asks again over the next one */
	mem_free(r);
}

static enum err release(struct mqtt_conn *m, struct session_id *id)
{
	struct release *r = mem_try(sizeof *r);
	if (r == NULL)
		return ERR_NOMEM;
	*r = (struct release){.m = m,
		.forget = {.group = id->group, .packet_id = id->packet_id, .done = on_forgotten}};
	list_init(&r->node);
	enum err e = session_forget(m->session, &r->forget);
	if (e != OK) {
		mem_free(r);
		return e;
	}
	id->state = ID_RELEASING;
	list_push_back(&m->releases, &r->node);
	return OK;
}

enum err mqtt_on_pubrel(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_ack a;
	enum mqtt_reason why;
	if (mqtt_read_ack(f, m->peer.version, &a, &why) != OK)
		return mqtt_refuse(m, why, "PUBREL");
	struct session_id *id = session_ids_find(&m->session->received, a.packet_id);
	if (id == NULL || id->state == ID_PENDING) {
		complete(m, a.packet_id, MQTT_ID_NOT_FOUND);
		return OK;
	}
	if (id->state == ID_RELEASING)
		return OK;
	enum err e = release(m, id);
	if (e == ERR_NOTFOUND)
		complete(m, a.packet_id, MQTT_SUCCESS);
	else if (e != OK)
		return mqtt_refuse(m, MQTT_QUOTA, "PUBREL");
	return OK;
}
