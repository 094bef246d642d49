/* When a subscription begins. The followers of a partition lag behind its leader by a hop: one who
 * published with an acknowledgement and then subscribes on another node must not get the old
 * message as a live one, nor miss a retained value that is acknowledged. So subscribing goes in
 * rounds. A round asks, for every feed of its tenants whose partition is led elsewhere, for the
 * point up to which the leader had committed, waits until the feed has come past it, and then all
 * subscriptions of the round begin. What is asked for meanwhile is for the next round. Where
 * everything is led here a round takes no time. A partition without a leader holds a round up for
 * the time its question takes to fail: what it has here is the newest there is then. */
#include "server/broker/broker_priv.h"

static void reached(struct shard *s)
{
	if (--s->points_pending == 0)
		loop_hook_want(s->loop, STAGE_DELIVER, &s->deliver_hook);
}

void point_moved(struct feed *f)
{
	if (f->point_offset < 0 || f->position < f->point_offset)
		return;
	f->point_offset = -1;
	reached(f->shard);
}

void point_feed_gone(struct feed *f)
{
	if (f->pointing || f->point_offset >= 0)
		reached(f->shard);
	f->point_offset = -1;
}

static void pointed(struct partition_point *q)
{
	struct feed *f = list_entry(q, struct feed, point);
	f->pointing = false;
	f->reads--;
	if (f->dead) {
		if (f->reads == 0 && !f->filling)
			feed_free(f);
		return;
	}
	f->point_offset = q->err == OK ? q->offset : 0;
	point_moved(f);
}

static void point_ask(struct feed *f)
{
	f->point = (struct partition_point){.at = f->partition, .done = pointed};
	f->pointing = true;
	f->reads++; /* the memory stays until the answer is here */
	f->shard->points_pending++;
	partition_point(&f->point);
}

static void feeds_point(struct space *sp)
{
	for (struct list *n = sp->feeds.next; n != &sp->feeds; n = n->next) {
		struct feed *f = list_entry(n, struct feed, in_space);
		if (f->on && !partition_leads(f->partition))
			point_ask(f);
	}
}

static struct space *space_at(struct list *n)
{
	return list_entry(n, struct subscribe, node)->who->space;
}

static void round_begin(struct shard *s)
{
	for (struct list *n; (n = list_pop(&s->subscribing)) != NULL;) {
		list_push_back(&s->beginning, n);
		if (!space_at(n)->in_round)
			feeds_point(space_at(n));
		space_at(n)->in_round = true;
	}
	for (struct list *n = s->beginning.next; n != &s->beginning; n = n->next)
		space_at(n)->in_round = false;
}

bool point_round(struct shard *s)
{
	if (s->feeds_pending > 0 || s->catalog == NULL)
		return false;
	if (list_empty(&s->beginning) && s->points_pending == 0 && !list_empty(&s->subscribing))
		round_begin(s);
	return s->points_pending == 0 && !list_empty(&s->beginning);
}
