/* Proposals of other nodes. A frame is taken whole or not at all: only by who leads in the very
 * term it was sent for, in the order of its stream, when there is room for it (what other nodes
 * have here counts like what this node's loops have), and after everything in it has been looked
 * at. Its proposals then go the way of all; its answer leaves when the last of them has its
 * outcome. What was not evaluated when leadership was lost is said to be so: its node has it
 * decided elsewhere. */
#include "cluster/remote.h"
#include "server/base/crc32c.h"

enum {
	STREAMS_MAX = 1024, /* nodes that have sent something */
	ANSWER_BYTES_MAX = 64 << 20,
	BATCH_AT_COVERED = 21,
};

struct stream { /* of one node */
	uint32_t node, next;
	uint64_t number;
};

struct guests {
	struct stream *streams;
	int count, room;
};

struct guest_frame {
	struct peer_request *request;
	struct partition *p;
	uint16_t count, left;
	struct guest {
		struct proposal q;
		struct guest_frame *frame;
		struct slice reply;
	} guests[];
};

/* --- answers --- */

static void refuse(struct partition *p, struct peer_request *r, enum propose_verdict verdict,
	const struct stream *s)
{
	struct propose_answer a = {.verdict = verdict, .stream = s != NULL ? s->number : 0};
	struct buf b;

	if (p != NULL) {
		a.leader = remote_leader(p);
		a.term = p->leader_term;
	}
	buf_init(&b, 64);
	propose_answer_write(&b, &a);
	remote_answer(r, &b);
}

static enum propose_status status_of(const struct proposal *q)
{
	if (q->not_evaluated)
		return STATUS_NOT_EVALUATED;
	return q->wrote && (q->err == ERR_UNKNOWN || q->err == ERR_CLOSED) ? STATUS_UNSURE
									   : STATUS_DONE;
}

static void frame_answer(struct guest_frame *f)
{
	struct propose_answer a = {.verdict = VERDICT_TAKEN, .count = f->count};
	struct buf b;

	buf_init(&b, ANSWER_BYTES_MAX + (1 << 20));
	propose_answer_write(&b, &a);
	for (int i = 0; i < f->count; i++) {
		struct guest *g = &f->guests[i];
		struct propose_outcome o = {.status = status_of(&g->q),
			.err = g->q.err,
			.base_offset = g->q.base_offset,
			.index = g->q.index,
			.reply = g->reply.bytes};

		if (buf_len(&b) + o.reply.len > ANSWER_BYTES_MAX) { /* to be asked for alone */
			o.status = STATUS_UNSURE;
			o.reply.len = 0;
		}
		propose_outcome_write(&b, &o);
		slice_unref(&g->reply);
	}
	remote_answer(f->request, &b);
	partition_unref(f->p);
	mem_free(f);
}

static void guest_done(struct proposal *q)
{
	struct guest *g = list_entry(q, struct guest, q);

	g->reply = slice_ref(q->reply);
	if (--g->frame->left == 0)
		frame_answer(g->frame);
}

/* --- what is in a frame --- */

/* All that the log relies on: readers of records check those themselves. */
static enum err check_batch(struct bytes in, struct batch *out)
{
	enum err e = batch_read(in, out);

	if (e != OK || out->all.len != in.len)
		return ERR_MALFORMED;
	if (out->count < 1 || out->count > BATCH_COUNT_MAX ||
		out->last_offset_delta != out->count - 1)
		return ERR_INVALID;
	return crc32c(bytes_of(in.at + BATCH_AT_COVERED, in.len - BATCH_AT_COVERED)) == out->crc
		? OK
		: ERR_CORRUPT;
}

/* The frame's bytes are this partition's alone: the batch may stay where it is, unless that keeps
 * much more in memory than is its own. */
static enum err take_batch(struct proposal *q, struct slice body, struct bytes in)
{
	struct batch b;
	enum err e = check_batch(in, &b);

	if (e != OK)
		return e;
	q->batch_count = (uint32_t)b.count;
	q->batch_max_ms = b.max_ms;
	if (body.chunk != NULL && in.len >= body.chunk->size / 2) {
		q->batch = slice_of(body.chunk, in);
		return OK;
	}
	return slice_copy(in, &q->batch);
}

/* A later version's: refused alone, where it belongs in the order. */
static enum err evaluate_later(struct eval *v, struct bytes args)
{
	(void)v, (void)args;
	return ERR_UNSUPPORTED;
}
static const struct proposal_kind later_kind = {PROPOSAL_NUMBER_MAX, evaluate_later};

static enum err take_item(struct guest_frame *f, int at, const struct propose_head *h, struct rd *r)
{
	struct guest *g = &f->guests[at];
	struct propose_item i;
	enum err e = OK;

	propose_item_read(r, &i);
	if (r->err != OK)
		return ERR_MALFORMED;
	g->frame = f;
	g->q = (struct proposal){.to = f->p,
		.from = f->p->loop,
		.batch_max_ms = -1,
		.args = i.args,
		.repeatable = i.repeatable,
		.sent_term = h->term,
		.done = guest_done};
	if (i.kind != 0) {
		g->q.kind = proposal_kind_find(i.kind);
		if (g->q.kind == NULL)
			g->q.kind = &later_kind;
	}
	if (i.batch.len > 0)
		e = take_batch(&g->q, f->request->body, i.batch);
	return e;
}

static void frame_drop(struct guest_frame *f)
{
	for (int i = 0; i < f->count; i++)
		slice_unref(&f->guests[i].q.batch);
	partition_unref(f->p);
	mem_free(f);
}

static enum err frame_read(struct partition *p, struct peer_request *request,
	const struct propose_head *h, struct rd *r, struct guest_frame **out)
{
	struct guest_frame *f = mem_new(sizeof *f + (size_t)h->count * sizeof f->guests[0]);
	enum err e = OK;

	f->request = request;
	f->p = partition_ref(p);
	f->count = f->left = h->count;
	for (int i = 0; i < h->count && e == OK; i++)
		e = take_item(f, i, h, r);
	if (e == OK)
		e = rd_done(r);
	if (e != OK)
		frame_drop(f);
	*out = f;
	return e;
}

/* --- taking one --- */

static struct stream *stream_of(struct partition *p, uint32_t node)
{
	struct guests *g = p->guests;

	if (g == NULL)
		g = p->guests = mem_new(sizeof *g);
	for (int i = 0; i < g->count; i++)
		if (g->streams[i].node == node)
			return &g->streams[i];
	if (g->count == STREAMS_MAX)
		return NULL;
	if (g->count == g->room) {
		g->room = g->room ? g->room * 2 : 4;
		g->streams = mem_resize(g->streams, (size_t)g->room * sizeof *g->streams);
		must(g->streams != NULL);
	}
	g->streams[g->count] = (struct stream){.node = node};
	return &g->streams[g->count++];
}

static bool in_order(const struct stream *s, const struct propose_head *h)
{
	return h->seq == 0 ? h->stream > s->number : h->stream == s->number && h->seq == s->next;
}

static bool has_room(const struct partition *p, size_t bytes)
{
	return p->held_bytes == 0 || p->held_bytes + bytes <= p->home->limits.inflight_bytes_max;
}

void remote_propose_serve(void *arg, struct peer_request *request)
{
	const struct partition_finder *finder = arg;
	struct partition *p = finder->find(finder->arg, request->group);
	struct rd r = rd_over(request->body.bytes);
	struct guest_frame *f;
	struct propose_head h;
	struct stream *s;
	enum err e;

	propose_head_read(&r, &h);
	if (r.err != OK) {
		peer_answer(request, LANE_HIGH, ERR_MALFORMED, NULL, 0);
		return;
	}
	if (p == NULL || p->phase != PARTITION_OPEN || !partition_local(p) ||
		consensus_role(p->consensus) != ROLE_LEADER || p->term != h.term ||
		partition_unserved(p) == ERR_NOTLEADER) {
		refuse(p, request, VERDICT_REFUSED, NULL);
		return;
	}
	s = stream_of(p, request->from);
	if (s == NULL || !in_order(s, &h)) {
		refuse(p, request, VERDICT_REFUSED, s);
		return;
	}
	if (!has_room(p, request->body.bytes.len)) {
		refuse(p, request, VERDICT_BUSY, s);
		return;
	}
	e = frame_read(p, request, &h, &r, &f);
	s->number = h.stream;
	s->next = h.seq + 1;
	if (e != OK) {
		peer_answer(request, LANE_HIGH, e, NULL, 0);
		return;
	}
	for (int i = 0; i < f->count; i++)
		propose_guest(p, &f->guests[i].q);
}

void remote_guests_fini(struct partition *p)
{
	if (p->guests != NULL)
		mem_free(p->guests->streams);
	mem_free(p->guests);
}
