/* What goes to a client. A record is encoded straight into the connection's output; a large payload
 * is sent by reference to the chunk it was stored from. When the client's window is full, a little
 * is encoded ahead and held, so that QoS 0, to which the window does not apply, can pass it; beyond
 * that records are refused and read later from the log. To a durable session QoS 2 is held, too,
 * until the row that says so is in the log; PUBREL waits for its row in the same way. */
#include "protocols/mqtt/mqtt_priv.h"

enum {
	SLICE_BYTES_MIN = 4096, /* payloads from here on are not copied */
	HELD_COUNT_MAX = 64,
	HELD_BYTES_MAX = 64 * 1024,
	HELD_ROW_COUNT_MAX = 1000, /* waiting for a row */
	HELD_ROW_BYTES_MAX = 1024 * 1024
};

struct held_item {
	uint64_t ticket; /* what session_written must reach; 0: nothing */
	int64_t expires_at_ms;
	uint32_t len;       /* of its packet in bytes */
	uint32_t expiry_at; /* where in it the seconds until then are; 0: nowhere */
	uint16_t packet_id;
	bool pubrel;
};

struct held { /* packets in order; PUBRELs apart, since the window does not apply to them */
	struct buf bytes;
	struct held_item *items; /* a ring */
	uint32_t head, count, room;
	struct held_item *pubrels; /* in order */
	uint32_t pubrel_count, pubrel_room;
};

static struct held *held_of(struct mqtt_conn *m)
{
	if (m->held == NULL) {
		m->held = mem_new(sizeof *m->held);
		buf_init(&m->held->bytes, SIZE_MAX / 2);
	}
	return m->held;
}

static void held_free(struct mqtt_conn *m)
{
	struct held *h = m->held;
	m->held = NULL;
	if (h == NULL)
		return;
	buf_fini(&h->bytes);
	mem_free(h->items);
	mem_free(h->pubrels);
	mem_free(h);
}

void mqtt_deliver_end(struct mqtt_conn *m)
{
	held_free(m);
}

static bool push_item(struct held *h, struct held_item item)
{
	if (h->count == h->room) {
		uint32_t room = h->room > 0 ? h->room * 2 : 16;
		struct held_item *items = mem_try(room * sizeof *items);
		if (items == NULL)
			return false;
		for (uint32_t i = 0; i < h->count; i++)
			items[i] = h->items[(h->head + i) % h->room];
		mem_free(h->items);
		h->items = items;
		h->head = 0;
		h->room = room;
	}
	h->items[(h->head + h->count++) % h->room] = item;
	return true;
}

/* Encoding */

struct outgoing { /* a PUBLISH to be */
	struct mqtt_publish_out head;
	const struct delivery *d;
	size_t size;
};

static bool reserve_ids(struct mqtt_loop *l, int count)
{
	if (count <= l->ids_room)
		return true;
	uint32_t *ids = mem_resize(l->ids, (size_t)count * sizeof *ids);
	if (ids == NULL)
		return false;
	l->ids = ids;
	l->ids_room = count;
	return true;
}

/* Which of the matches count: not those with No Local for the client's own messages. Sets QoS,
 * RETAIN and subscription ids; false: none. */
static bool look_at_matches(struct mqtt_conn *m, struct outgoing *o, bool v5)
{
	const struct delivery *d = o->d;
	struct mqtt_loop *l = m->home;
	uint8_t qos = 0;
	uint32_t ids = 0;
	int own = -1, counted = 0;
	bool retain = d->retained;
	if (v5 && !reserve_ids(l, d->match_count))
		return false;
	for (int i = 0; i < d->match_count; i++) {
		const struct subscription *sub = d->matches[i];
		if (sub->no_local) {
			if (own < 0)
				own = mqtt_message_from(d->message, mqtt_client_id(m));
			if (own > 0)
				continue;
		}
		counted++;
		qos = sub->qos > qos ? sub->qos : qos;
		retain |= sub->retain_as_published && d->message->retain;
		if (v5 && sub->id > 0)
			l->ids[ids++] = sub->id;
	}
	o->head.qos = qos < d->message->qos ? qos : d->message->qos;
	o->head.retain = retain;
	o->head.subscription_ids = l->ids;
	o->head.subscription_id_count = ids;
	return counted > 0;
}

static bool is_expired(struct mqtt_conn *m, int64_t expires_at_ms)
{
	return expires_at_ms > 0 && expires_at_ms <= loop_now_wall_ms(m->home->loop);
}

/* Completes what does not depend on the matches; false: the client takes no packet this large. */
static bool measure(struct mqtt_conn *m, struct outgoing *o)
{
	const struct message *msg = o->d->message;
	o->head.topic = msg->topic;
	o->head.payload_len = msg->value.len;
	if (m->peer.version == MQTT_V5)
		o->head.props = mqtt_message_props(m->home, o->d);
	o->size = mqtt_publish_size(m->peer.version, &o->head);
	return o->size <= m->peer.frame_bytes_max && msg->topic.len <= UINT16_MAX;
}

static enum err write_publish(struct mqtt_conn *m, const struct outgoing *o, struct buf *out)
{
	const struct delivery *d = o->d;
	enum err e = mqtt_write_publish_head(out, m->peer.version, &o->head);
	if (e != OK || d->message->value.len == 0)
		return e;
	if (d->message->value.len >= SLICE_BYTES_MIN && d->holder != NULL &&
		d->holder->chunk != NULL && out == conn_out(m->conn)) {
		conn_send_slice(m->conn, slice_of(d->holder->chunk, d->message->value));
		return OK;
	}
	buf_add(out, d->message->value);
	return out->err;
}

static void send_publish(struct mqtt_conn *m, const struct outgoing *o)
{
	COUNT(m, M_PUBLISH_OUT_0 + o->head.qos, 1);
	enum err e = write_publish(m, o, conn_out(m->conn));
	if (e != OK)
		conn_close(m->conn, e);
	conn_wrote(m->conn);
}

/* Holding */

static bool may_hold(struct mqtt_conn *m, const struct outgoing *o, bool row)
{
	const struct held *h = m->held;
	if (h == NULL || h->count == 0)
		return true;
	if (row && m->session->window.sent < m->receive_max)
		return h->count < HELD_ROW_COUNT_MAX &&
			buf_len(&h->bytes) + o->size <= HELD_ROW_BYTES_MAX;
	return h->count < HELD_COUNT_MAX && buf_len(&h->bytes) + o->size <= HELD_BYTES_MAX;
}

static bool held_is_full(const struct held *h)
{
	return h != NULL && (h->count >= HELD_COUNT_MAX || buf_len(&h->bytes) >= HELD_BYTES_MAX);
}

static bool hold(struct mqtt_conn *m, const struct outgoing *o, uint64_t ticket)
{
	struct held *h = held_of(m);
	size_t before = buf_len(&h->bytes), expiry_at = mqtt_message_expiry_at(o->head.props);
	struct held_item item = {.ticket = ticket,
		.expires_at_ms = o->d->message->expires_at_ms,
		.packet_id = o->head.packet_id};
	enum err e = write_publish(m, o, &h->bytes);
	item.len = (uint32_t)(buf_len(&h->bytes) - before);
	if (expiry_at > 0) /* properties and payload are the end of it */
		item.expiry_at = item.len -
			(uint32_t)(o->d->message->value.len + o->head.props.len - expiry_at);
	if (e != OK || !push_item(h, item)) {
		conn_close(m->conn, ERR_NOMEM);
		return false;
	}
	return true;
}

/* Whether the first held packet may leave. */
static bool may_leave(const struct mqtt_conn *m, const struct held *h)
{
	return h->count > 0 && h->items[h->head].ticket <= session_written(m->session) &&
		m->session->window.sent < m->receive_max;
}

static void write_held(struct mqtt_conn *m, const struct held_item *item, struct bytes packet)
{
	struct buf *out = conn_out(m->conn);
	size_t at = item->expiry_at;
	if (at == 0) {
		buf_add(out, packet);
		return;
	}
	buf_add(out, bytes_of(packet.at, at));
	buf_add_u32be(out, mqtt_message_expiry_s(m->home, item->expires_at_ms));
	buf_add(out, bytes_of(packet.at + at + 4, packet.len - at - 4));
}

/* Or goes, if its time has passed and the client does not know of it (MQTT-3.3.2-5). */
static void leave(struct mqtt_conn *m, struct held *h)
{
	struct held_item item = h->items[h->head];
	struct window_entry *e = window_find(&m->session->window, item.packet_id);
	h->head = (h->head + 1) % h->room;
	h->count--;
	must(e != NULL);
	if (!e->again && is_expired(m, item.expires_at_ms)) {
		COUNT(m, M_DROPPED_EXPIRED, 1);
		session_done(m->session, item.packet_id);
	} else {
		bool one = e->state == WINDOW_HELD1;
		window_move(&m->session->window, e, one ? WINDOW_SENT1 : WINDOW_SENT2);
		write_held(m, &item, bytes_of(buf_bytes(&h->bytes).at, item.len));
		COUNT(m, one ? M_PUBLISH_OUT_1 : M_PUBLISH_OUT_2, 1);
	}
	buf_consume(&h->bytes, item.len);
}

static void write_ack(struct mqtt_conn *m, enum mqtt_type type, uint16_t id, enum mqtt_reason why)
{
	mqtt_wrote(m, mqtt_write_ack(conn_out(m->conn), &m->peer, type, id, why, NULL));
}

static void release_pubrels(struct mqtt_conn *m, struct held *h)
{
	uint32_t n = 0;
	while (n < h->pubrel_count && h->pubrels[n].ticket <= session_written(m->session))
		write_ack(m, MQTT_PUBREL, h->pubrels[n++].packet_id, MQTT_SUCCESS);
	h->pubrel_count -= n;
	memmove(h->pubrels, h->pubrels + n, h->pubrel_count * sizeof *h->pubrels);
}

/* Over a quota nothing more is asked for: when that ends, it is. */
static void ready(struct mqtt_conn *m)
{
	if (!m->throttled)
		session_ready(m->session);
}

void mqtt_release_held(struct mqtt_conn *m)
{
	struct held *h = m->held;
	if (h == NULL || conn_is_closing(m->conn))
		return;
	if (h->pubrel_count > 0)
		release_pubrels(m, h);
	bool any = false;
	while (may_leave(m, h)) {
		leave(m, h);
		any = true;
	}
	if (any)
		mqtt_wrote(m, conn_out(m->conn)->err);
	if (h->count == 0 && h->pubrel_count == 0)
		held_free(m);
	h = m->held;
	bool low = h == NULL || h->count <= HELD_COUNT_MAX / 2;
	if (low && (m->session->open || !held_is_full(h)))
		ready(m);
}

/* Room that is not this of the window: the connection's output has drained. */
void mqtt_drained(struct mqtt_conn *m)
{
	if (m->session->open)
		ready(m);
	else /* what is sent again is taken one by one, so that no more is held than there is room
	      */
		mqtt_after_acks(m);
}

static struct bytes topic_of(struct bytes packet)
{
	struct rd r = rd_over(packet);
	(void)rd_u8(&r);
	while ((rd_u8(&r) & 0x80) != 0) /* the length */
		;
	return rd_take(&r, rd_u16be(&r));
}

/* The flows of what is left out end here: a client that may remember one is told so. */
static void sift(struct mqtt_conn *m, struct held *h, struct buf *rest)
{
	uint32_t kept = 0;
	size_t at = 0;
	for (uint32_t i = 0; i < h->count; i++) {
		struct held_item item = h->items[(h->head + i) % h->room];
		struct bytes packet = bytes_of(buf_bytes(&h->bytes).at + at, item.len);
		at += item.len;
		if (mqtt_may_receive(m, topic_of(packet))) {
			buf_add(rest, packet);
			h->items[(h->head + kept++) % h->room] = item;
		} else {
			(void)session_again_gone(m->session, item.packet_id);
		}
	}
	h->count = kept;
}

void mqtt_sift_held(struct mqtt_conn *m)
{
	struct held *h = m->held;
	struct buf rest;
	if (h == NULL || h->count == 0)
		return;
	uint32_t before = h->count;
	buf_init(&rest, SIZE_MAX / 2);
	sift(m, h, &rest);
	buf_fini(&h->bytes);
	h->bytes = rest;
	if (rest.err != OK)
		conn_close(m->conn, ERR_NOMEM);
	else if (h->count < before)
		mqtt_release_held(m);
}

/* Deliveries */

/* Over a quota deliveries wait in the log. On a memory route there is none: waiting for this one
 * would hold up all others of the loop, so it goes without. True: it does. */
static bool goes_without(struct mqtt_conn *m, const struct delivery *d)
{
	bool drop = d->partition == NULL && !d->retained;
	COUNT(m, M_DROPPED_QUOTA, drop);
	return drop;
}

/* QoS 1 and 2. False: refused. */
static bool deliver_noted(struct mqtt_conn *m, struct outgoing *o)
{
	const struct delivery *d = o->d;
	struct session *s = m->session;
	bool row = o->head.qos == 2 && session_lasts(s);
	bool later = row || s->window.sent >= m->receive_max ||
		(m->held != NULL && m->held->count > 0);
	if (later && !may_hold(m, o, row))
		return false;
	struct window_entry e = {.offset = d->partition != NULL ? d->offset : -1,
		.group = d->partition != NULL ? partition_group(d->partition) : 0,
		.retained = d->retained};
	bool one = o->head.qos == 1;
	e.state = later ? (one ? WINDOW_HELD1 : WINDOW_HELD2) : (one ? WINDOW_SENT1 : WINDOW_SENT2);
	if (window_take(&s->window, e, &o->head.packet_id) != OK)
		return false;
	session_touch(s);
	if (later)
		hold(m, o, row ? session_write(s, false) : 0);
	else
		send_publish(m, o);
	return true;
}

bool mqtt_deliver(struct session *s, const struct delivery *d)
{
	struct mqtt_conn *m = s->owner;
	struct outgoing o = {.d = d};
	if (conn_is_closing(m->conn) || conn_over_high(m->conn))
		return false;
	if (m->sifts && !mqtt_may_receive(m, d->message->topic))
		return true;
	if (m->throttled)
		return goes_without(m, d);
	if (is_expired(m, d->message->expires_at_ms)) {
		COUNT(m, M_DROPPED_EXPIRED, 1);
		return true;
	}
	if (!look_at_matches(m, &o, m->peer.version == MQTT_V5))
		return true;
	if (!measure(m, &o)) { /* as if it had been sent (MQTT-3.1.2-25) */
		COUNT(m, M_DROPPED_TOO_LARGE, 1);
		session_touch(s);
		return true;
	}
	if (o.head.qos > 0) {
		if (!deliver_noted(m, &o))
			return false;
	} else {
		session_touch(s);
		send_publish(m, &o);
	}
	mqtt_charge_out(m, o.size);
	return true;
}

bool mqtt_again(struct session *s, uint16_t packet_id, const struct delivery *d)
{
	struct mqtt_conn *m = s->owner;
	struct window_entry *e = window_find(&s->window, packet_id);
	if (conn_is_closing(m->conn) || e == NULL)
		return true;
	if (d == NULL) {
		write_ack(m, MQTT_PUBREL, packet_id, MQTT_SUCCESS);
		return !conn_over_high(m->conn);
	}
	struct outgoing o = {.d = d};
	look_at_matches(m, &o, m->peer.version == MQTT_V5);
	o.head.qos = e->state == WINDOW_HELD1 ? 1 : 2;
	o.head.retain = e->retained;
	o.head.dup = e->again;
	o.head.packet_id = packet_id;
	bool expired = !e->again && is_expired(m, d->message->expires_at_ms);
	if (!mqtt_may_receive(m, d->message->topic))
		return session_again_gone(s, packet_id);
	if (expired || !measure(m, &o)) {
		COUNT(m, expired ? M_DROPPED_EXPIRED : M_DROPPED_TOO_LARGE, 1);
		return session_again_gone(s, packet_id);
	}
	if (s->window.sent >= m->receive_max || (m->held != NULL && m->held->count > 0)) {
		hold(m, &o, 0);
	} else {
		window_move(&s->window, e, o.head.qos == 1 ? WINDOW_SENT1 : WINDOW_SENT2);
		send_publish(m, &o);
	}
	mqtt_charge_out(m, o.size);
	return !conn_over_high(m->conn) && !held_is_full(m->held) && !m->throttled;
}

/* Acknowledgements. What they make room for is used once all of this input has been seen. */

void mqtt_after_acks(struct mqtt_conn *m)
{
	m->acked = false;
	if (m->held != NULL)
		mqtt_release_held(m);
	else
		ready(m);
}

static void done_with(struct mqtt_conn *m, uint16_t packet_id)
{
	session_done(m->session, packet_id);
	m->acked = true;
}

enum err mqtt_on_puback(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_ack a;
	enum mqtt_reason why;
	if (mqtt_read_ack(f, m->peer.version, &a, &why) != OK)
		return mqtt_refuse(m, why, "PUBACK");
	const struct window_entry *e = window_find(&m->session->window, a.packet_id);
	if (e != NULL && e->state == WINDOW_SENT1)
		done_with(m, a.packet_id);
	return OK;
}

static void pubrel_later(struct mqtt_conn *m, uint16_t packet_id, uint64_t ticket)
{
	struct held *h = held_of(m);
	if (h->pubrel_count == h->pubrel_room) {
		uint32_t room = h->pubrel_room > 0 ? h->pubrel_room * 2 : 16;
		struct held_item *items = mem_resize(h->pubrels, room * sizeof *items);
		if (items == NULL) {
			conn_close(m->conn, ERR_NOMEM);
			return;
		}
		h->pubrels = items;
		h->pubrel_room = room;
	}
	h->pubrels[h->pubrel_count++] = (struct held_item){
		.ticket = ticket, .packet_id = packet_id, .pubrel = true};
}

static bool waits_for_row(const struct mqtt_conn *m, uint16_t packet_id)
{
	for (uint32_t i = 0; m->held != NULL && i < m->held->pubrel_count; i++)
		if (m->held->pubrels[i].packet_id == packet_id)
			return true;
	return false;
}

enum err mqtt_on_pubrec(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_ack a;
	enum mqtt_reason why;
	if (mqtt_read_ack(f, m->peer.version, &a, &why) != OK)
		return mqtt_refuse(m, why, "PUBREC");
	struct window_entry *e = window_find(&m->session->window, a.packet_id);
	if (e == NULL || e->state < WINDOW_SENT2) {
		if (a.reason < 0x80)
			write_ack(m, MQTT_PUBREL, a.packet_id, MQTT_ID_NOT_FOUND);
		return OK;
	}
	if (e->state == WINDOW_RELEASED) {
		if (!waits_for_row(m, a.packet_id))
			write_ack(m, MQTT_PUBREL, a.packet_id, MQTT_SUCCESS);
		return OK;
	}
	if (a.reason >= 0x80) { /* the flow ends here (MQTT-4.3.3-4) */
		done_with(m, a.packet_id);
		return OK;
	}
	window_move(&m->session->window, e, WINDOW_RELEASED);
	if (session_lasts(m->session))
		pubrel_later(m, a.packet_id, session_write(m->session, false));
	else
		write_ack(m, MQTT_PUBREL, a.packet_id, MQTT_SUCCESS);
	return OK;
}

enum err mqtt_on_pubcomp(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_ack a;
	enum mqtt_reason why;
	if (mqtt_read_ack(f, m->peer.version, &a, &why) != OK)
		return mqtt_refuse(m, why, "PUBCOMP");
	const struct window_entry *e = window_find(&m->session->window, a.packet_id);
	if (e != NULL && e->state == WINDOW_RELEASED)
		done_with(m, a.packet_id);
	return OK;
}
