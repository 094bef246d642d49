/* SUBSCRIBE and UNSUBSCRIBE, one at a time per connection: the next packet is read when the answer
 * has been written. It is written when every filter is in force, and for a durable session when the
 * filters are in its row. */
#include "protocols/mqtt/mqtt_priv.h"
#include "server/broker/topic.h"

enum { FILTERS_MIN = 1000 };

struct subop {
	struct mqtt_conn *m; /* NULL: the client has gone, its session frees us */
	enum mqtt_type answer;
	uint64_t ticket;
	uint32_t count, pending;
	uint16_t packet_id;
	bool in_force;
	uint8_t *codes;
	struct subscribe ops[];
};

static struct subop *subop_new(struct mqtt_conn *m, const struct mqtt_subscribe *s)
{
	size_t ops = s->has_options ? s->count * sizeof(struct subscribe) : 0;
	struct subop *op = mem_try(sizeof *op + ops);
	uint8_t *codes = mem_try(s->count);
	if (op == NULL || codes == NULL) {
		mem_free(op);
		mem_free(codes);
		return NULL;
	}
	memset(op, 0, sizeof *op + ops);
	memset(codes, 0, s->count);
	op->m = m;
	op->packet_id = s->packet_id;
	op->count = s->count;
	op->codes = codes;
	return op;
}

static void subop_free(struct subop *op)
{
	mem_free(op->codes);
	mem_free(op);
}

void mqtt_flush_subop(struct mqtt_conn *m)
{
	struct subop *op = m->subop;
	if (op == NULL || !op->in_force || op->ticket > session_written(m->session) ||
		conn_is_closing(m->conn))
		return;
	struct buf *out = conn_out(m->conn);
	struct bytes codes = bytes_of(op->codes, op->count);
	m->subop = NULL;
	mqtt_wrote(m,
		op->answer == MQTT_SUBACK
			? mqtt_write_suback(out, &m->peer, op->packet_id, codes, NULL)
			: mqtt_write_unsuback(out, &m->peer, op->packet_id, codes, NULL));
	subop_free(op);
	if (m->rights_moved)
		mqtt_rights_changed(m);
	mqtt_unpause(m, PAUSE_SUBSCRIBE);
}

static void in_force(struct subop *op, bool changed)
{
	op->in_force = true;
	op->ticket = changed ? session_write(op->m->session, true) : 0;
	mqtt_flush_subop(op->m);
}

static uint8_t code_of(const struct subscribe *s)
{
	if (s->err == OK)
		return s->qos;
	enum mqtt_reason why = mqtt_reason_of(s->err);
	return (uint8_t)(why == MQTT_BAD_TOPIC ? MQTT_BAD_FILTER : why);
}

static void on_subscribed(struct subscribe *s)
{
	struct session *session = list_entry(s->who, struct session, reader);
	struct mqtt_conn *m = session->owner;
	if (session->closing) /* owner is the op itself by now: mqtt_ended */
		return;
	struct subop *op = m->subop;
	op->codes[s - op->ops] = code_of(s);
	if (s->err == OK && !s->existed) {
		session->subscription_count++;
		session->subscription_weight += topic_filter_weight(s->subscription->filter);
	}
	if (--op->pending == 0)
		in_force(op, true);
}

static void fill(struct subscribe *s, struct mqtt_conn *m, const struct mqtt_filter *f, uint32_t id)
{
	static const int retained[] = {RETAINED_SEND, RETAINED_IF_NEW, RETAINED_NOT};
	*s = (struct subscribe){.who = &m->session->reader,
		.filter = f->filter,
		.qos = f->qos,
		.no_local = f->no_local,
		.retain_as_published = f->retain_as_published,
		.id = id,
		.done = on_subscribed};
	s->retained = retained[f->retain_handling];
	list_init(&s->node);
}

struct asked { /* what a SUBSCRIBE would add to the session */
	uint32_t count, weight;
};

/* What is refused before the broker is asked; 0: nothing, and it is part of asked. A filter that
 * the session has takes no more room than it does already. */
static uint8_t refusal(struct mqtt_conn *m, const struct mqtt_filter *f, struct asked *asked)
{
	const struct mqtt_conf *conf = m->home->mqtt->conf;
	const struct session *s = m->session;
	if (f->shared)
		return MQTT_NO_SHARED;
	bool has = subscription_find(&s->reader, f->filter) != NULL;
	uint32_t weight = has ? 0 : topic_filter_weight(f->filter);
	if (!has && s->subscription_count + asked->count >= conf->subscriptions_max)
		return MQTT_QUOTA;
	if (!has && s->subscription_weight + asked->weight + weight > conf->subscription_bytes_max)
		return MQTT_QUOTA;
	uint8_t code = mqtt_may_subscribe(m, f->filter);
	asked->count += code == 0 && !has;
	asked->weight += code == 0 ? weight : 0;
	return code;
}

/* No session holds so many: a packet that names more is work for nothing. */
static bool has_too_many(const struct mqtt_conn *m, const struct mqtt_subscribe *s)
{
	int64_t max = m->home->mqtt->conf->subscriptions_max;
	return s->count > (max > FILTERS_MIN ? max : FILTERS_MIN);
}

enum err mqtt_on_subscribe(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_subscribe s;
	enum mqtt_reason why;
	if (mqtt_read_subscribe(f, m->peer.version, &s, &why) != OK)
		return mqtt_refuse(m, why, "SUBSCRIBE");
	if (has_too_many(m, &s))
		return mqtt_refuse(m, MQTT_QUOTA, "filters in one SUBSCRIBE");
	struct subop *op = subop_new(m, &s);
	if (op == NULL)
		return mqtt_refuse(m, MQTT_QUOTA, "SUBSCRIBE");
	op->answer = MQTT_SUBACK;
	m->subop = op;
	mqtt_pause(m, PAUSE_SUBSCRIBE);
	COUNT(m, M_SUBSCRIPTIONS, s.count);
	struct bytes rest = s.filters;
	struct mqtt_filter filter;
	struct asked asked = {0};
	for (uint32_t i = 0; mqtt_filter_next(&s, &rest, &filter); i++) {
		op->codes[i] = refusal(m, &filter, &asked);
		fill(&op->ops[i], m, &filter, s.props.subscription_id);
		op->pending += op->codes[i] == 0;
	}
	if (op->pending == 0) {
		in_force(op, false);
		return OK;
	}
	for (uint32_t i = 0; i < op->count; i++)
		if (op->codes[i] == 0)
			subscriber_subscribe(&op->ops[i]);
	return OK;
}

enum err mqtt_on_unsubscribe(struct mqtt_conn *m, const struct mqtt_frame *f)
{
	struct mqtt_subscribe s;
	enum mqtt_reason why;
	if (mqtt_read_unsubscribe(f, m->peer.version, &s, &why) != OK)
		return mqtt_refuse(m, why, "UNSUBSCRIBE");
	if (has_too_many(m, &s))
		return mqtt_refuse(m, MQTT_QUOTA, "filters in one UNSUBSCRIBE");
	s.has_options = false;
	struct subop *op = subop_new(m, &s);
	if (op == NULL)
		return mqtt_refuse(m, MQTT_QUOTA, "UNSUBSCRIBE");
	op->answer = MQTT_UNSUBACK;
	m->subop = op;
	mqtt_pause(m, PAUSE_SUBSCRIBE);
	struct bytes rest = s.filters;
	struct mqtt_filter filter;
	bool changed = false;
	for (uint32_t i = 0; mqtt_filter_next(&s, &rest, &filter); i++) {
		enum err e = subscriber_unsubscribe(&m->session->reader, filter.full);
		op->codes[i] = e == OK ? MQTT_SUCCESS : MQTT_NO_SUBSCRIPTION;
		m->session->subscription_count -= e == OK;
		m->session->subscription_weight -= e == OK ? topic_filter_weight(filter.full) : 0;
		changed |= e == OK;
	}
	in_force(op, changed);
	return OK;
}

void mqtt_subscribe_end(struct mqtt_conn *m)
{
	m->subop->m = NULL;
	m->subop = NULL;
}

/* No completion of ops comes any more. */
void mqtt_ended(struct session *s)
{
	struct subop *op = s->owner;
	s->owner = NULL;
	if (op != NULL)
		subop_free(op);
}
