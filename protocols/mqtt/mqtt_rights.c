/* Who the client is and what it may do: the login between CONNECT and the session, the rights that
 * publishing, subscribing and deliveries ask for, what happens when they change, and quotas, which
 * stop the reading or the deliveries for a while. */
#include "protocols/mqtt/mqtt_priv.h"
#include "server/broker/topic.h"

struct throttle { /* of a connection that was over a quota */
	struct mqtt_conn *m;
	struct loop_timer in, out;
};

struct auth_peer mqtt_auth_peer(const struct mqtt_conn *m)
{
	return (struct auth_peer){.door = "mqtt",
		.address = conn_peer(m->conn),
		.tls = conn_is_tls(m->conn),
		.cert_subject = conn_cert_subject(m->conn),
		.cert_name = conn_cert_name(m->conn),
		.cert_san = conn_cert_san(m->conn)};
}

/* Changes */

static enum access_filter filter_right(struct mqtt_conn *m, struct bytes filter)
{
	return access_filter(m->holder.access, filter, mqtt_client_id(m));
}

void mqtt_rights_changed(struct mqtt_conn *m)
{
	struct session *s = m->session;
	struct list *head = &s->reader.subscriptions, *next;
	bool lost = false;
	m->rights_moved = m->subop != NULL; /* those on their way: when they are there */
	m->sifts = m->rights_moved;
	for (struct list *n = head->next; n != head; n = next) {
		const struct subscription *sub = list_entry(n, struct subscription, node);
		enum access_filter right = filter_right(m, sub->filter);
		next = n->next;
		m->sifts |= right == ACCESS_SIFT;
		if (right != ACCESS_NONE)
			continue;
		lost = true;
		s->subscription_count--;
		s->subscription_weight -= topic_filter_weight(sub->filter);
		must(subscriber_unsubscribe(&s->reader, sub->filter) == OK);
	}
	mqtt_sift_held(m);
	if (lost)
		session_write(s, true);
}

/* Its quota may be another one now: it goes on, and what comes next is charged anew. */
static void throttle_end(struct throttle *t)
{
	if (loop_timer_is_set(&t->in))
		loop_timer_set(&t->in, 0);
	if (loop_timer_is_set(&t->out))
		loop_timer_set(&t->out, 0);
}

static void on_changed(struct access_holder *h, bool gone)
{
	struct mqtt_conn *m = list_entry(h, struct mqtt_conn, holder);
	if (conn_is_closing(m->conn))
		return;
	if (gone)
		mqtt_login_lost(m);
	else if (m->session != NULL)
		mqtt_rights_changed(m);
	if (m->throttle != NULL)
		throttle_end(m->throttle);
}

enum err mqtt_hold(struct mqtt_conn *m, struct access *a)
{
	m->holder.changed = on_changed;
	return access_hold(&m->holder, a);
}

/* Rights */

uint8_t mqtt_may_subscribe(struct mqtt_conn *m, struct bytes filter)
{
	enum access_filter right = filter_right(m, filter);
	m->sifts |= right == ACCESS_SIFT;
	return right == ACCESS_NONE ? MQTT_NOT_AUTHORIZED : 0;
}

bool mqtt_may_publish(struct mqtt_conn *m, struct bytes topic)
{
	return access_topic(m->holder.access, ACTION_WRITE, topic, mqtt_client_id(m));
}

bool mqtt_may_receive(struct mqtt_conn *m, struct bytes topic)
{
	return access_topic(m->holder.access, ACTION_READ, topic, mqtt_client_id(m));
}

/* Quotas */

static void on_in(struct loop_timer *t)
{
	mqtt_unpause(list_entry(t, struct throttle, in)->m, PAUSE_QUOTA);
}

static void on_out(struct loop_timer *t)
{
	struct mqtt_conn *m = list_entry(t, struct throttle, out)->m;
	m->throttled = false;
	mqtt_drained(m);
}

static struct throttle *throttle_of(struct mqtt_conn *m)
{
	if (m->throttle == NULL) {
		m->throttle = mem_new(sizeof *m->throttle);
		m->throttle->m = m;
		loop_timer_init(&m->throttle->in, m->home->loop, on_in);
		loop_timer_init(&m->throttle->out, m->home->loop, on_out);
	}
	return m->throttle;
}

void mqtt_charge_in(struct mqtt_conn *m, size_t bytes)
{
	if (!access_limited(m->holder.access))
		return;
	int64_t wait = access_charge_in(m->holder.access, 1, (int64_t)bytes);
	if (wait <= 0)
		return;
	mqtt_pause(m, PAUSE_QUOTA);
	loop_timer_set(&throttle_of(m)->in, wait);
}

void mqtt_charge_out(struct mqtt_conn *m, size_t bytes)
{
	if (!access_limited(m->holder.access))
		return;
	int64_t wait = access_charge_out(m->holder.access, 1, (int64_t)bytes);
	if (wait <= 0)
		return;
	m->throttled = true;
	loop_timer_set(&throttle_of(m)->out, wait);
}

void mqtt_rights_end(struct mqtt_conn *m)
{
	access_release(&m->holder);
	if (m->throttle == NULL)
		return;
	loop_timer_cancel(&m->throttle->in);
	loop_timer_cancel(&m->throttle->out);
	mem_free(m->throttle);
	m->throttle = NULL;
}
