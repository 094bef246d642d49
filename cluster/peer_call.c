/* Calls and their answers. An answer travels back over the connection its call came by, so the
 * caller knows that none will come when that connection is lost; who answers finds the connection
 * by a serial number, as it may be gone by then. Completions that are known at once (not sent, too
 * much in the queue) are told by a hook, never inside peer_call. */
#include "cluster/peer_priv.h"
#include "server/base/log.h"

/* --- the one who asks --- */

static void end_call(struct peer_call *c, enum err e)
{
	c->err = e;
	if (e != OK)
		peer_count(peer_home_here(c->peers), M_CALLS_FAILED, 1);
	c->done(c);
}

static void on_tell(struct loop_hook *hook)
{
	struct peer_home *h = list_entry(hook, struct peer_home, tell);
	struct list now, *n;
	list_init(&now);
	while ((n = list_pop(&h->ended)) != NULL)
		list_push_back(&now, n);
	while ((n = list_pop(&now)) != NULL) {
		struct peer_call *c = list_entry(n, struct peer_call, node);
		end_call(c, c->err);
	}
}

void peer_calls_init(struct peer_home *h)
{
	list_init(&h->ended);
	loop_hook_init(&h->tell, on_tell);
}

void peer_calls_stop(struct peer_home *h)
{
	loop_hook_cancel(&h->tell);
	on_tell(&h->tell);
}

static void end_later(struct peer_home *h, struct peer_call *c, enum err e)
{
	c->err = e;
	list_push_back(&h->ended, &c->node);
	loop_hook_want(h->loop, STAGE_PUBLISH, &h->tell);
}

void peer_call(struct peers *p, struct peer_call *c)
{
	struct peer_home *h = peer_home_here(p);
	struct peer_to *t = peer_find(h, c->to);
	uint8_t head[PEER_CALL_BYTES];
	peer_count(h, M_CALLS, 1);
	c->peers = p;
	c->from = h->loop;
	c->answer = (struct slice){0};
	list_init(&c->node);
	if (h->stopped || t == NULL || !t->up || conn_is_closing(t->link.conn)) {
		peer_drop_parts(c->parts, c->part_count);
		end_later(h, c, h->stopped ? ERR_CLOSED : ERR_UNAVAILABLE);
		return;
	}
	c->id = ++h->next_call;
	c->until_ms = loop_now_ms(h->loop) + c->timeout_ms;
	peer_call_write(head, &(struct peer_call_head){c->id, (uint16_t)c->op});
	if (!peer_link_send(h, &t->link, c->lane,
		    &(struct peer_message){.kind = PEER_CALL,
			    .group = c->group,
			    .head = bytes_of(head, sizeof head),
			    .parts = c->parts,
			    .count = c->part_count})) {
		end_later(h, c, ERR_BUSY);
		return;
	}
	(void)map_put_u64(&h->calls, c->id, c);
	list_push_back(&t->calls, &c->node);
	peer_hurry(h);
}

enum err peer_on_answer(struct peer_to *t, struct slice body)
{
	struct peer_answer_head head;
	struct bytes rest;
	enum err e = peer_answer_read(body.bytes, &head, &rest);
	if (e != OK)
		return e;
	struct peer_call *c = map_get_u64(&t->home->calls, head.id);
	if (c == NULL || c->to != t->id)
		return OK; /* its time was over */
	(void)map_remove_u64(&t->home->calls, head.id);
	list_remove(&c->node);
	c->answer = slice_ref(body);
	c->answer.bytes = rest;
	end_call(c, head.err);
	return OK;
}

void peer_calls_expire(struct peer_home *h, int64_t now_ms)
{
	struct peer_call *c;
	for (uint32_t at = 0; (c = map_next(&h->calls, &at)) != NULL;) {
		if (now_ms < c->until_ms)
			continue;
		(void)map_remove_u64(&h->calls, c->id);
		list_remove(&c->node);
		end_later(h, c, ERR_TIMEOUT);
	}
}

void peer_calls_lost(struct peer_to *t, enum err e)
{
	struct list *n;
	while ((n = list_pop(&t->calls)) != NULL) {
		struct peer_call *c = list_entry(n, struct peer_call, node);
		(void)map_remove_u64(&t->home->calls, c->id);
		end_later(t->home, c, e);
	}
}

/* --- the one who is asked --- */

struct open_request {
	struct peer_request r;
	struct peer_origin from;
	size_t bytes;        /* as the connection counts them */
	struct loop_msg msg; /* the answer, on its way to the connection's loop */
	enum peer_lane lane;
	enum err err;
	struct slice *parts;
	int count;
};

bool peer_guest_may(struct bytes call)
{
	struct peer_call_head head;
	struct bytes rest;
	return peer_call_read(call, &head, &rest) == OK &&
		(head.op == PEER_OP_JOIN || head.op == PEER_OP_STATUS);
}

/* Answers a bulk call whose answer does not fit with the error alone. */
static void send_answer(struct peer_home *h, struct peer_link *k, enum peer_lane lane,
	const struct peer_answer_head *head, struct slice *parts, int count)
{
	uint8_t at[PEER_ANSWER_BYTES];
	struct peer_message m = {.kind = PEER_ANSWER,
		.head = bytes_of(at, sizeof at),
		.parts = parts,
		.count = count};
	peer_answer_write(at, head);
	if (peer_link_send(h, k, lane, &m))
		return;
	peer_answer_write(at, &(struct peer_answer_head){head->id, ERR_BUSY});
	m.parts = NULL;
	m.count = 0;
	(void)peer_link_send(h, k, LANE_HIGH, &m); /* else its time will be over */
}

void peer_call_refuse(struct peer_in *in, struct bytes call, enum err e)
{
	struct peer_call_head head;
	struct bytes rest;
	if (peer_call_read(call, &head, &rest) == OK)
		send_answer(in->home, &in->link, LANE_HIGH, &(struct peer_answer_head){head.id, e},
			NULL, 0);
}

/* On the connection's loop. */
static void answer_here(struct open_request *o, struct slice *parts, int count)
{
	struct peer_home *h = o->from.home;
	struct peer_in *in = map_get_u64(&h->serials, o->from.serial);
	if (in != NULL) {
		in->requests--;
		in->request_bytes -= o->bytes;
		send_answer(h, &in->link, o->lane, &(struct peer_answer_head){o->r.id, o->err},
			parts, count);
	} else {
		peer_drop_parts(parts, count);
	}
	slice_unref(&o->r.body);
	mem_free(o);
}

static void on_answer_home(struct loop_msg *m)
{
	struct open_request *o = list_entry(m, struct open_request, msg);
	struct slice *parts = o->parts;
	answer_here(o, parts, o->count);
	mem_free(parts);
}

void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count)
{
	struct open_request *o = list_entry(r, struct open_request, r);
	o->lane = lane;
	o->err = e;
	if (loop_here() == o->from.home->loop) {
		answer_here(o, parts, count);
		return;
	}
	o->count = count;
	o->parts = count == 0 ? NULL : mem_new((size_t)count * sizeof *parts);
	if (count > 0)
		memcpy(o->parts, parts, (size_t)count * sizeof *parts);
	o->msg.run = on_answer_home;
	loop_post(o->from.home->loop, &o->msg);
}

void peer_on_call(
	struct peer_home *h, const struct peer_origin *from, uint64_t group, struct slice body)
{
	struct open_request *o = mem_new(sizeof *o);
	struct peer_call_head head;
	must(peer_call_read(body.bytes, &head, &o->r.body.bytes) == OK);
	struct bytes rest = o->r.body.bytes;
	o->from = *from;
	o->bytes = body.bytes.len;
	o->r.from = from->node;
	o->r.op = (enum peer_op)head.op;
	o->r.group = group;
	o->r.id = head.id;
	o->r.loop = h->loop;
	o->r.peers = h->peers;
	o->r.body = slice_ref(body);
	o->r.body.bytes = rest;
	const struct peer_table_server *s = head.op < PEER_OP_COUNT ? &h->peers->servers[head.op]
								    : NULL;
	if (s == NULL || s->fn == NULL)
		peer_answer(&o->r, LANE_HIGH, ERR_UNSUPPORTED, NULL, 0);
	else
		s->fn(s->arg, &o->r);
}
