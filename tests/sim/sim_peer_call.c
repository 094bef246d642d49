/* Calls over the simulated peers: a table of those that wait per loop, time-outs, and answers that
 * travel back over the connection of their call. */
#include "tests/sim/sim_aim.h"
#include "tests/sim/sim_peer_priv.h"

static void call_end(struct peer_call *c, enum err e, struct bytes answer)
{
	list_remove(&c->node);
	c->err = e;
	c->answer = (struct slice){0};
	if (answer.len > 0)
		must(slice_copy(answer, &c->answer) == OK);
	c->done(c);
}

/* Calls that wait for that node: what has become of them is not known. */
void sim_calls_lost(struct peer_loop *l, uint32_t to, enum err e)
{
	struct list lost, *n, *next;

	list_init(&lost);
	for (n = l->calls.next; n != &l->calls; n = next) {
		next = n->next;
		if (to == 0 || list_entry(n, struct peer_call, node)->to == to) {
			list_remove(n);
			list_push_back(&lost, n);
		}
	}
	while ((n = list_pop(&lost)) != NULL)
		call_end(list_entry(n, struct peer_call, node), e, bytes_of(NULL, 0));
}

/* --- calls: id 8, op 4, err 4, then the body */

void sim_calls_time_out(struct loop_timer *t)
{
	struct peer_loop *l = list_entry(t, struct peer_loop, timer);
	int64_t now = loop_now_ms(l->loop), next_ms = INT64_MAX;
	struct list late, *n, *next;

	list_init(&late);
	for (n = l->calls.next; n != &l->calls; n = next) {
		struct peer_call *c = list_entry(n, struct peer_call, node);

		next = n->next;
		if (c->until_ms <= now) {
			list_remove(n);
			list_push_back(&late, n);
		} else if (c->until_ms < next_ms) {
			next_ms = c->until_ms;
		}
	}
	if (next_ms != INT64_MAX)
		loop_timer_set(&l->timer, next_ms - now);
	while ((n = list_pop(&late)) != NULL)
		call_end(list_entry(n, struct peer_call, node), ERR_TIMEOUT, bytes_of(NULL, 0));
}

static void call_refused(void *arg)
{
	struct peer_call *c = arg;

	call_end(c, c->err, bytes_of(NULL, 0));
}

void peer_call(struct peers *p, struct peer_call *c)
{
	struct peer_loop *l = &p->each[loop_index(loop_here())];
	uint8_t head[CALL_HEAD] = {0};
	struct slice body;
	struct conn_out *k = NULL;
	bool unheard;

	list_init(&c->node);
	c->from = l->loop;
	c->id = (uint64_t)loop_index(l->loop) << 48 | ++l->next_id;
	c->until_ms = loop_now_ms(l->loop) + c->timeout_ms;
	put_u64be(head, c->id);
	put_u32be(head + 8, (uint32_t)c->op);
	body = sim_joined(bytes_of(head, CALL_HEAD), c->parts, c->part_count);
	unheard = sim_aim_call(p->machine->id, (int)c->to, (uint32_t)c->op);
	if (c->to > 0 && c->to <= SIM_MACHINES_MAX)
		k = sim_conn_of(p, loop_index(l->loop), c->to);
	c->err = p->stopping ? ERR_CLOSED : k != NULL && k->up ? OK : ERR_UNAVAILABLE;
	if (c->err == OK && !unheard &&
		!sim_send(p, k,
			(struct parcel){.lane = c->lane,
				.kind = PEER_CALL,
				.group = c->group,
				.body = body}))
		c->err = ERR_BUSY;
	slice_unref(&body);
	if (c->err != OK) {
		loop_call(l->loop, call_refused, c);
		return;
	}
	list_push_back(&l->calls, &c->node);
	if (!loop_timer_is_set(&l->timer) || l->timer.at_ms > c->until_ms)
		loop_timer_set(&l->timer, c->timeout_ms);
}

struct request {
	struct peer_request asked; /* first */
	struct conn_out *conn;     /* the caller's */
	uint64_t epoch;
};

void sim_call_arrived(struct arrived *a)
{
	struct request *q = mem_new(sizeof *q);
	struct peer_request *r = &q->asked;
	uint32_t op = get_u32be(a->body.bytes.at + 8);

	q->conn = a->conn;
	q->epoch = a->epoch;
	r->from = a->from;
	r->op = (enum peer_op)op;
	r->group = a->group;
	r->id = get_u64be(a->body.bytes.at);
	r->loop = loop_here();
	r->peers = a->peers;
	r->body = slice_of(a->body.chunk,
		bytes_of(a->body.bytes.at + CALL_HEAD, a->body.bytes.len - CALL_HEAD));
	must(op < PEER_OP_COUNT);
	if (a->conn->guest && op != PEER_OP_JOIN && op != PEER_OP_STATUS)
		peer_answer(r, LANE_HIGH, ERR_DENIED, NULL, 0);
	else if (a->peers->servers[op] == NULL)
		peer_answer(r, LANE_HIGH, ERR_UNSUPPORTED, NULL, 0);
	else
		a->peers->servers[op](a->peers->server_args[op], r);
}

void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count)
{
	struct request *q = list_entry(r, struct request, asked);
	struct conn_out *k = q->conn;
	uint8_t head[CALL_HEAD] = {0};
	struct slice body;

	put_u64be(head, r->id);
	put_u32be(head + 8, (uint32_t)r->op);
	put_u32be(head + 12, (uint32_t)e);
	body = sim_joined(bytes_of(head, CALL_HEAD), parts, count);
	if (sim_conn_is_same(k, q->epoch) && !r->peers->stopping)
		sim_send_back(k,
			(struct parcel){.epoch = q->epoch,
				.lane = lane,
				.kind = PEER_ANSWER,
				.group = r->group,
				.body = body});
	slice_unref(&body);
	slice_unref(&r->body);
	mem_free(q);
}

void sim_answer_arrived(struct arrived *a)
{
	struct peer_loop *l = &a->peers->each[loop_index(loop_here())];
	uint64_t id = get_u64be(a->body.bytes.at);
	enum err e = (enum err)get_u32be(a->body.bytes.at + 12);

	for (struct list *n = l->calls.next; n != &l->calls; n = n->next) {
		struct peer_call *c = list_entry(n, struct peer_call, node);

		if (c->id != id)
			continue;
		call_end(c, e,
			bytes_of(a->body.bytes.at + CALL_HEAD, a->body.bytes.len - CALL_HEAD));
		return;
	}
}
