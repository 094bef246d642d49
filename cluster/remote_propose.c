/* Proposals on their way to the node that leads. What a turn has gathered leaves in frames of at
 * most 256 KB (or one larger batch), in order; the frames of one leader and term are a stream,
 * numbered, and the leader takes them only in that order. So a frame that was refused, got lost or
 * found no room is not followed by one that is taken, and what was in it goes back to the queue in
 * front of everything newer, once each frame of the stream has its answer or is given up.
 *
 * When another leads from now on, the old leader still gets some time to answer: it may well have
 * committed what it was sent. Then the outcome is not known: what may be repeated is. */
#include "cluster/remote.h"

enum {
	FRAME_BYTES = 256 << 10,
	WINDOW_BYTES = 4 << 20,   /* unanswered, unless it is one frame */
	FRAME_HEAD_MAX = 2 << 20, /* descriptors and arguments; over it: one proposal */
	ARGS_BYTES = 128 << 10,
	RETRY_MS = 20, /* after a refusal */
	OVER_MS = 500, /* an old leader may take to answer */
	CALL_MS = 15000,
};

struct forward { /* a frame */
	struct peer_call call;
	struct list node; /* forwarding.frames */
	struct partition *p;
	struct list proposals; /* answered: those to be decided again */
	size_t bytes;
	bool answered;
	bool given_up; /* its answer does not matter any more; it is in no list */
};

struct forwarding {
	struct list frames; /* in order */
	int open;           /* of them, not answered */
	size_t bytes;       /* of those */
	uint64_t stream, term;
	uint32_t to, seq;
	bool stopped;       /* something of the stream is to be decided again: no more is sent */
	int64_t after_ms;   /* nothing is sent before */
	int64_t over_at_ms; /* when frames of an earlier leader are given up; 0: there are none */
};

static struct forwarding *forwarding_of(struct partition *p)
{
	if (p->forwarding == NULL) {
		p->forwarding = mem_new(sizeof *p->forwarding);
		list_init(&p->forwarding->frames);
		/* Streams grow over restarts, too, or a leader would refuse them. */
		p->forwarding->stream = (uint64_t)loop_now_wall_ms(p->loop) << 16;
	}
	return p->forwarding;
}

/* --- outcomes --- */

static void unsure(struct partition *p, struct forward *f, struct proposal *q)
{
	if (q->repeatable && p->phase == PARTITION_OPEN) {
		q->unsure = true;
		list_push_back(&f->proposals, &q->node);
		return;
	}
	q->err = p->phase == PARTITION_OPEN ? ERR_UNKNOWN : ERR_CLOSED;
	propose_answer(p, q);
}

static void all_unsure(struct partition *p, struct forward *f)
{
	struct list sent, *n;

	list_init(&sent);
	list_move_all(&f->proposals, &sent);
	while ((n = list_pop(&sent)) != NULL)
		unsure(p, f, list_entry(n, struct proposal, node));
}

static void one_outcome(
	struct partition *p, struct forward *f, struct proposal *q, const struct propose_outcome *o)
{
	switch (o->status) {
	case STATUS_NOT_EVALUATED: list_push_back(&f->proposals, &q->node); break;
	case STATUS_UNSURE: unsure(p, f, q); break;
	case STATUS_DONE:
		q->err = o->err;
		q->base_offset = o->base_offset;
		q->index = o->index;
		if (o->reply.len > 0)
			q->reply = slice_of(f->call.answer.chunk, o->reply);
		propose_answer(p, q);
		break;
	}
}

static void outcomes(struct partition *p, struct forward *f, struct rd *r, uint32_t count)
{
	struct list sent, *n;

	list_init(&sent);
	list_move_all(&f->proposals, &sent);
	while ((n = list_pop(&sent)) != NULL) {
		struct proposal *q = list_entry(n, struct proposal, node);
		struct propose_outcome o = {.status = STATUS_UNSURE};

		if (count > 0) {
			count--;
			propose_outcome_read(r, &o);
		}
		if (r->err != OK)
			o.status = STATUS_UNSURE;
		one_outcome(p, f, q, &o);
	}
}

/* The answer says who leads: that may be news. */
static void hint(struct partition *p, const struct propose_answer *a)
{
	struct forwarding *fw = p->forwarding;

	if (a->stream >= fw->stream)
		fw->stream = a->stream + 1;
	if (a->leader != 0)
		partition_heard(p, a->leader, a->term);
}

static void read_answer(struct partition *p, struct forward *f)
{
	struct rd r = rd_over(f->call.answer.bytes);
	struct propose_answer a;

	propose_answer_read(&r, &a);
	if (r.err != OK) {
		all_unsure(p, f);
	} else if (a.verdict == VERDICT_TAKEN) {
		p->unready_ms = 0;
		outcomes(p, f, &r, a.count);
	} else {
		p->forwarding->stopped = true;
		p->forwarding->after_ms = loop_now_ms(p->loop) + RETRY_MS;
		hint(p, &a);
	}
}

/* ERR_UNAVAILABLE and ERR_BUSY: it was not sent. */
static void no_answer(struct partition *p, struct forward *f, enum err e)
{
	struct list *n;

	p->forwarding->after_ms = loop_now_ms(p->loop) + RETRY_MS;
	if (e == ERR_UNAVAILABLE || e == ERR_BUSY || e == ERR_NOTLEADER)
		return;
	if (e == ERR_MALFORMED || e == ERR_UNSUPPORTED || e == ERR_TOOBIG) {
		while ((n = list_pop(&f->proposals)) != NULL) {
			struct proposal *q = list_entry(n, struct proposal, node);

			q->err = e;
			propose_answer(p, q);
		}
		return;
	}
	all_unsure(p, f);
}

static void forward_free(struct forward *f)
{
	struct partition *p = f->p;

	slice_unref(&f->call.answer);
	mem_free(f);
	partition_unref(p);
}

static void forward_done(struct peer_call *c)
{
	struct forward *f = list_entry(c, struct forward, call);
	struct partition *p = f->p;
	struct forwarding *fw = p->forwarding;

	if (f->given_up) {
		forward_free(f);
		return;
	}
	fw->open--;
	fw->bytes -= f->bytes;
	f->answered = true;
	if (c->err == OK)
		read_answer(p, f);
	else
		no_answer(p, f, c->err);
	if (!list_empty(&f->proposals)) {
		fw->stopped = true;
	} else {
		list_remove(&f->node);
		forward_free(f);
	}
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

/* --- sending --- */

static struct propose_item item_of(const struct proposal *q)
{
	return (struct propose_item){.kind = q->kind != NULL ? (uint8_t)q->kind->number : 0,
		.repeatable = q->repeatable,
		.args = q->args,
		.batch = q->batch.bytes};
}

/* Takes from the queue what goes into one frame; gives how many. */
static int choose(struct partition *p, struct forward *f)
{
	size_t args = 0;
	int count = 0;

	while (!list_empty(&p->gathered) && count < REMOTE_PROPOSALS_MAX) {
		struct proposal *q = list_entry(p->gathered.next, struct proposal, node);

		must(q->sent_term == 0);
		if (count > 0 &&
			(f->bytes + q->batch.bytes.len > FRAME_BYTES ||
				args + q->args.len > ARGS_BYTES))
			break;
		args += q->args.len;
		f->bytes += propose_cost(q);
		list_remove(&q->node);
		list_push_back(&f->proposals, &q->node);
		count++;
	}
	return count;
}

/* Descriptors lie in one chunk, batches stay where they are; a part ends at each batch. */
static int make_parts(struct forward *f, struct buf *b, struct slice *parts)
{
	size_t from = 0;
	int n = 0;
	struct chunk *chunk;

	chunk = b->chunk;
	for (struct list *l = f->proposals.next; l != &f->proposals; l = l->next) {
		const struct proposal *q = list_entry(l, struct proposal, node);

		if (q->batch.bytes.len == 0)
			continue;
		parts[n++] = slice_of(
			chunk, bytes_of(chunk->data + b->start + from, q->sent_at - from));
		parts[n++] = slice_ref(q->batch);
		from = q->sent_at;
	}
	if (from < buf_len(b))
		parts[n++] = slice_of(
			chunk, bytes_of(chunk->data + b->start + from, buf_len(b) - from));
	return n;
}

static enum err write_frame(struct forward *f, const struct propose_head *h, struct buf *b)
{
	propose_head_write(b, h);
	for (struct list *l = f->proposals.next; l != &f->proposals; l = l->next) {
		struct proposal *q = list_entry(l, struct proposal, node);
		struct propose_item i = item_of(q);

		propose_item_write(b, &i);
		q->sent_at = buf_len(b);
	}
	return b->err;
}

static void send_frame(struct partition *p, struct forwarding *fw)
{
	struct forward *f = mem_new(sizeof *f);
	struct propose_head h = {fw->stream, fw->term, fw->seq, 0};
	struct slice *parts;
	struct buf b;

	list_init(&f->proposals);
	f->p = partition_ref(p);
	h.count = (uint16_t)choose(p, f);
	buf_init(&b, FRAME_HEAD_MAX + f->bytes);
	parts = mem_new((2 * (size_t)h.count + 1) * sizeof *parts);
	if (write_frame(f, &h, &b) != OK) {
		propose_answer_all(p, &f->proposals, ERR_NOMEM);
		forward_free(f);
	} else {
		f->call = (struct peer_call){.to = fw->to,
			.op = PEER_OP_PROPOSE,
			.group = p->options.group,
			.parts = parts,
			.part_count = make_parts(f, &b, parts),
			.lane = LANE_HIGH,
			.timeout_ms = CALL_MS,
			.done = forward_done};
		fw->seq++;
		fw->open++;
		fw->bytes += f->bytes;
		list_push_back(&fw->frames, &f->node);
		metric_add(loop_cells(p->loop), &node_metrics, M_PROPOSALS_OUT, h.count);
		peer_call(p->options.peers, &f->call);
	}
	buf_fini(&b);
	mem_free(parts);
}

void remote_propose(struct partition *p)
{
	struct forwarding *fw = forwarding_of(p);

	if (p->options.peers == NULL || fw->stopped || loop_now_ms(p->loop) < fw->after_ms)
		return; /* a tick or an answer comes back */
	if (fw->term != p->leader_term || fw->to != remote_leader(p)) {
		fw->term = p->leader_term;
		fw->to = remote_leader(p);
		fw->stream++;
		fw->seq = 0;
	}
	while (!list_empty(&p->gathered) && (fw->open == 0 || fw->bytes < WINDOW_BYTES))
		send_frame(p, fw);
}

/* --- the end of a stream --- */

static bool of_another_leader(const struct partition *p, const struct forwarding *fw, bool here)
{
	return here || fw->term != p->leader_term || fw->to != remote_leader(p);
}

bool remote_propose_waits(const struct partition *p)
{
	return p->forwarding != NULL && p->forwarding->open == 0 &&
		!list_empty(&p->forwarding->frames);
}

bool remote_propose_settled(struct partition *p, bool here)
{
	struct forwarding *fw = p->forwarding;
	struct list *n;

	if (fw == NULL || (list_empty(&fw->frames) && !fw->stopped))
		return true;
	if (fw->open > 0)
		return !fw->stopped && !of_another_leader(p, fw, here);
	while ((n = list_pop(&fw->frames)) != NULL) {
		struct forward *f = list_entry(n, struct forward, node);

		while ((n = list_pop(&f->proposals)) != NULL)
			propose_again(p, list_entry(n, struct proposal, node));
		forward_free(f);
	}
	fw->stopped = false;
	fw->stream++;
	fw->seq = 0;
	return true;
}

static void give_up(struct partition *p)
{
	struct forwarding *fw = p->forwarding;

	for (struct list *n = fw->frames.next, *next; n != &fw->frames; n = next) {
		struct forward *f = list_entry(n, struct forward, node), *left;

		next = n->next;
		if (f->answered)
			continue;
		/* What is left of it takes its place; the call ends by itself. */
		left = mem_new(sizeof *left);
		left->p = partition_ref(p);
		left->answered = true;
		list_init(&left->proposals);
		list_move_all(&f->proposals, &left->proposals);
		left->node = f->node;
		left->node.prev->next = left->node.next->prev = &left->node;
		list_init(&f->node);
		f->given_up = true;
		fw->open--;
		fw->bytes -= f->bytes;
		all_unsure(p, left);
	}
	fw->stopped = true;
	fw->over_at_ms = 0;
	loop_hook_want(p->loop, STAGE_PROPOSE, &p->hook);
}

void remote_propose_changed(struct partition *p)
{
	struct forwarding *fw = p->forwarding;
	bool over;

	if (fw == NULL)
		return;
	over = fw->open > 0 && of_another_leader(p, fw, partition_unserved(p) == OK);
	if (!over)
		fw->over_at_ms = 0;
	else if (fw->over_at_ms == 0)
		fw->over_at_ms = loop_now_ms(p->loop) + OVER_MS;
}

void remote_propose_tick(struct partition *p, int64_t now_ms)
{
	struct forwarding *fw = p->forwarding;

	if (fw != NULL && fw->over_at_ms != 0 && now_ms >= fw->over_at_ms)
		give_up(p);
}

void remote_propose_close(struct partition *p)
{
	if (p->forwarding == NULL)
		return;
	give_up(p);
	(void)remote_propose_settled(p, true);
	propose_fail_all(p, ERR_CLOSED);
}

void remote_propose_fini(struct partition *p)
{
	if (p->forwarding != NULL)
		must(list_empty(&p->forwarding->frames));
	mem_free(p->forwarding);
}
