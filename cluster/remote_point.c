/* Points in the log. The leader is asked what it has committed, which it says only while it hears
 * from a majority: who has stood still may not know yet that another leads, and what that one has
 * committed. Who asked is told when it is applied here, or, without a replica, shown to the
 * watchers. However many ask, one call is under
 * way for a partition: those who ask meanwhile share the next one, for theirs must not be answered
 * from before they asked. */
#include "cluster/remote.h"

struct point_call {
	struct peer_call call;
	struct partition *p;
	struct list points;
};

static void point_home(struct loop_msg *m)
{
	struct partition_point *q = list_entry(m, struct partition_point, msg);

	q->done(q);
}

static void point_end(struct partition *p, struct partition_point *q, enum err e)
{
	q->err = e;
	q->offset = partition_high_watermark(p);
	q->msg.run = point_home;
	loop_post(q->to, &q->msg);
}

static void end_all(struct partition *p, struct list *l, enum err e)
{
	struct list *n;

	while ((n = list_pop(l)) != NULL)
		point_end(p, list_entry(n, struct partition_point, node), e);
}

/* --- waiting for the log here --- */

static bool reached(const struct partition *p, const struct partition_point *q)
{
	return p->consensus != NULL ? p->applied_index >= q->index
				    : remote_follow_seen(p) >= q->offset;
}

void remote_point_grown(struct partition *p)
{
	for (struct list *n = p->point_waits.next, *next; n != &p->point_waits; n = next) {
		struct partition_point *q = list_entry(n, struct partition_point, node);

		next = n->next;
		if (!reached(p, q))
			continue;
		list_remove(n);
		point_end(p, q, OK);
	}
}

/* --- asking --- */

static void point_done(struct peer_call *c)
{
	struct point_call *pc = list_entry(c, struct point_call, call);
	struct partition *p = pc->p;
	struct point_given g;
	struct list *n;
	enum err e = c->err;

	p->point_call = NULL;
	if (e == OK)
		e = point_given_read(c->answer.bytes, &g);
	if (e == OK)
		e = g.err;
	if (p->phase != PARTITION_OPEN)
		end_all(p, &pc->points, ERR_CLOSED);
	if (e == OK && p->consensus == NULL)
		partition_moved(p, g.offset);
	while ((n = list_pop(&pc->points)) != NULL) {
		struct partition_point *q = list_entry(n, struct partition_point, node);

		if (e == OK) {
			q->index = g.index;
			q->offset = g.offset;
		}
		list_push_back(e == OK ? &p->point_waits : &p->points, n);
	}
	remote_point_grown(p);
	slice_unref(&c->answer);
	mem_free(pc);
	partition_unref(p);
}

static bool is_told_here(const struct partition *p)
{
	return partition_unserved(p) == OK && consensus_unrivalled(p->consensus);
}

static void ask(struct partition *p)
{
	struct point_call *pc;
	struct buf b;

	if (is_told_here(p))
		end_all(p, &p->points, OK);
	if (list_empty(&p->points) || p->point_call != NULL || p->options.peers == NULL ||
		partition_unserved(p) != ERR_NOTLEADER)
		return; /* a tick comes back */
	pc = mem_new(sizeof *pc);
	pc->p = partition_ref(p);
	list_init(&pc->points);
	list_move_all(&p->points, &pc->points);
	pc->call.done = point_done;
	p->point_call = pc;
	buf_init(&b, 16);
	buf_add_u8(&b, 0);
	remote_call(p, &pc->call, PEER_OP_POINT, &b);
}

static void point_arrive(struct loop_msg *m)
{
	struct partition_point *q = list_entry(m, struct partition_point, msg);
	struct partition *p = q->at;

	if (p->phase != PARTITION_OPEN) {
		point_end(p, q, ERR_CLOSED);
		return;
	}
	q->until_ms = loop_now_ms(p->loop) + REMOTE_WAIT_MS;
	list_push_back(&p->points, &q->node);
	ask(p);
}

void partition_point(struct partition_point *q)
{
	q->to = loop_here();
	must(q->to != NULL);
	list_init(&q->node);
	q->msg.run = point_arrive;
	loop_post(q->at->loop, &q->msg);
}

static void expire(struct partition *p, struct list *l, int64_t now_ms)
{
	for (struct list *n = l->next, *next; n != l; n = next) {
		struct partition_point *q = list_entry(n, struct partition_point, node);

		next = n->next;
		if (now_ms < q->until_ms)
			continue;
		list_remove(n);
		point_end(p, q, ERR_UNAVAILABLE);
	}
}

void remote_point_tick(struct partition *p, int64_t now_ms)
{
	if (list_empty(&p->points) && list_empty(&p->point_waits))
		return;
	if (is_told_here(p))
		end_all(p, &p->point_waits, OK);
	expire(p, &p->points, now_ms);
	expire(p, &p->point_waits, now_ms);
	ask(p);
}

void remote_point_close(struct partition *p)
{
	end_all(p, &p->points, ERR_CLOSED);
	end_all(p, &p->point_waits, ERR_CLOSED);
}

void remote_point_serve(void *arg, struct peer_request *request)
{
	struct partition *p = remote_asked(arg, request);
	struct point_given g = {.err = ERR_NOTLEADER};
	struct buf b;

	if (p == NULL)
		return;
	if (is_told_here(p))
		g = (struct point_given){OK, p->applied_index, partition_high_watermark(p)};
	buf_init(&b, 64);
	point_given_write(&b, &g);
	remote_answer(request, &b);
}
