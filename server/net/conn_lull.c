/* Connections whose input can wait. Each small request that comes alone costs a wake-up of the
 * loop, which is more than its answer does. The sockets of those that can wait are in an event base
 * of their own, which the loop looks at every few milliseconds: many of them share a wake-up. */
#include "server/net/conn_priv.h"

enum { LULL_MS = 10 };

static void arm(struct net_home *h)
{
	if (!h->lull_armed)
		loop_timer_set(&h->lull_timer, LULL_MS);
	h->lull_armed = true;
}

static void on_lull_timer(struct loop_timer *t)
{
	struct net_home *h = list_entry(t, struct net_home, lull_timer);
	h->lull_armed = false;
	(void)event_base_loop(h->lull, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	if (event_base_get_num_events(h->lull, EVENT_BASE_COUNT_ADDED) > 0)
		arm(h);
}

static bool lull_base(struct net_home *h)
{
	struct event_config *conf = h->lull == NULL ? event_config_new() : NULL;
	if (conf != NULL && event_config_set_flag(conf, EVENT_BASE_FLAG_NOLOCK) == 0)
		h->lull = event_base_new_with_config(conf);
	if (conf != NULL)
		event_config_free(conf);
	return h->lull != NULL;
}

/* Without memory for another base input does not wait. */
void conn_lull(struct conn *c, bool on)
{
	struct net_home *h = c->home;
	loop_must_own(h->loop);
	if (c->lull == on || c->phase != PHASE_OPEN || c->moving || !lull_base(h))
		return;
	event_del(&c->readable);
	c->lull = on;
	must(event_base_set(on ? h->lull : loop_event_base(h->loop), &c->readable) == 0);
	if (c->pauses == 0)
		conn_read_on(c);
}

void conn_read_on(struct conn *c)
{
	if (event_add(&c->readable, NULL) != 0)
		conn_abort(c, ERR_NOMEM);
	else if (c->lull)
		arm(c->home);
}

void conn_lull_init(struct net_home *h)
{
	loop_timer_init(&h->lull_timer, h->loop, on_lull_timer);
}

void conn_lull_fini(struct net_home *h)
{
	loop_timer_cancel(&h->lull_timer);
	if (h->lull != NULL)
		event_base_free(h->lull);
}
