/* Reads that another node answers, and reads of others that are answered here. A read goes to
 * whoever leads; where nobody is known to, or the answer is that another does, it waits (parked)
 * and is tried again when that changes and at each tick, 3 s at most. Reading twice does no harm.
 *
 * Serving is the same read as for a loop of this node, but it is not sent on, and bounded: so many
 * at once, so many bytes each. */
#include "cluster/remote.h"

enum {
	SERVING_MAX = 512, /* per loop */
	ANSWER_BYTES = 1 << 20,
	ANSWER_MAX = 66 << 20, /* a row or entry larger than that is given alone */
};

struct remote_read {
	struct peer_call call;
	struct list node; /* partition.parked */
	struct partition *p;
	int64_t until_ms;
	const struct read_kind *kind;
	union {
		struct row_read *rows;
		struct record_read *records;
		struct offset_seek *seek;
		struct partition_info *info;
	} what;
};

struct read_kind {
	enum peer_op op;
	void (*write)(const struct remote_read *o, struct buf *b);
	enum err (*read)(struct remote_read *o); /* the answer; gives what is told */
	void (*here)(struct remote_read *o);     /* this node leads now */
	void (*end)(struct remote_read *o, enum err e);
};

static void read_free(struct remote_read *o)
{
	struct partition *p = o->p;

	slice_unref(&o->call.answer);
	mem_free(o);
	partition_unref(p);
}

static void read_end(struct remote_read *o, enum err e)
{
	o->kind->end(o, e);
	read_free(o);
}

static void park(struct remote_read *o)
{
	struct partition *p = o->p;

	if (p->phase != PARTITION_OPEN)
		read_end(o, ERR_CLOSED);
	else if (loop_now_ms(p->loop) >= o->until_ms)
		read_end(o, ERR_UNAVAILABLE);
	else
		list_push_back(&p->parked, &o->node);
}

/* Whether it may be otherwise when asked again, or elsewhere. */
static bool for_now(enum err e)
{
	return e == ERR_NOTLEADER || e == ERR_UNAVAILABLE || e == ERR_BUSY || e == ERR_UNKNOWN ||
		e == ERR_TIMEOUT || e == ERR_CLOSED;
}

static void read_done(struct peer_call *c)
{
	struct remote_read *o = list_entry(c, struct remote_read, call);
	enum err e = c->err == OK ? o->kind->read(o) : c->err;

	slice_unref(&c->answer);
	if (for_now(e))
		park(o);
	else
		read_end(o, e);
}

static void try(struct remote_read *o)
{
	struct partition *p = o->p;
	enum err e = partition_unserved(p);
	struct buf b;

	if (e == OK) {
		o->kind->here(o);
		read_free(o);
		return;
	}
	if (e != ERR_NOTLEADER || p->options.peers == NULL ||
		!peer_connected(p->options.peers, remote_leader(p))) {
		park(o);
		return;
	}
	buf_init(&b, ANSWER_BYTES);
	o->kind->write(o, &b);
	int64_t left_ms = o->until_ms - loop_now_ms(p->loop);
	o->call = (struct peer_call){.timeout_ms = left_ms > 0 ? left_ms : 1, .done = read_done};
	remote_call(p, &o->call, o->kind->op, &b);
}

void remote_read_retry(struct partition *p)
{
	struct list all, *n;

	list_init(&all);
	list_move_all(&p->parked, &all);
	while ((n = list_pop(&all)) != NULL)
		try(list_entry(n, struct remote_read, node));
}

void remote_read_close(struct partition *p)
{
	struct list *n;

	while ((n = list_pop(&p->parked)) != NULL)
		read_end(list_entry(n, struct remote_read, node), ERR_CLOSED);
}

static struct remote_read *read_new(struct partition *p, const struct read_kind *kind)
{
	struct remote_read *o = mem_new(sizeof *o);

	list_init(&o->node);
	o->p = partition_ref(p);
	o->kind = kind;
	o->until_ms = loop_now_ms(p->loop) + REMOTE_WAIT_MS;
	return o;
}

static enum err guest_err(const struct partition *p)
{
	enum err e = partition_unserved(p);

	return e == OK ? ERR_UNAVAILABLE : e;
}

static uint32_t bounded(size_t bytes)
{
	return bytes < ANSWER_BYTES ? (uint32_t)bytes : ANSWER_BYTES;
}

/* --- rows --- */

static void rows_write_ask(const struct remote_read *o, struct buf *b)
{
	const struct row_read *r = o->what.rows;
	struct rows_ask a = {.keyspace = r->keyspace,
		.prefix = r->prefix,
		.linearizable = r->linearizable,
		.key = r->key,
		.after = r->after,
		.rows_max = r->rows_max > 0 ? (uint32_t)r->rows_max : 0,
		.bytes_max = bounded(r->bytes_max)};

	rows_ask_write(b, &a);
}

static enum err rows_read_given(struct remote_read *o)
{
	struct row_read *r = o->what.rows;
	struct rd in = rd_over(o->call.answer.bytes);
	struct rows_given g;
	enum err e;

	rows_given_read(&in, &g);
	if (in.err != OK)
		return in.err;
	if (g.err != OK)
		return g.err;
	r->rows = mem_try((g.count + 1) * sizeof *r->rows);
	if (r->rows == NULL)
		return ERR_NOMEM;
	for (uint32_t i = 0; i < g.count; i++)
		rows_row_read(&in, &r->rows[i]);
	e = rd_done(&in);
	if (e != OK || (!r->prefix && g.count != 1)) {
		mem_free(r->rows);
		r->rows = NULL;
		return ERR_MALFORMED;
	}
	r->count = (int)g.count;
	r->more = g.more;
	r->at_offset = g.at_offset;
	r->held = chunk_ref(o->call.answer.chunk);
	return OK;
}

static void rows_here(struct remote_read *o)
{
	reads_rows(o->what.rows);
}

static void rows_end(struct remote_read *o, enum err e)
{
	reads_rows_end(o->what.rows, e);
}

static const struct read_kind rows_kind = {
	PEER_OP_ROWS, rows_write_ask, rows_read_given, rows_here, rows_end};

static void rows_begin(struct row_read *r, void (*go)(struct remote_read *o))
{
	struct remote_read *o;

	if (r->guest) {
		reads_rows_end(r, guest_err(r->from));
		return;
	}
	o = read_new(r->from, &rows_kind);
	o->what.rows = r;
	go(o);
}

void remote_rows(struct row_read *r)
{
	rows_begin(r, try);
}

void remote_rows_later(struct row_read *r)
{
	rows_begin(r, park);
}

/* --- records --- */

static void records_write_ask(const struct remote_read *o, struct buf *b)
{
	const struct record_read *r = o->what.records;
	struct records_ask a = {r->offset, bounded(r->bytes_max)};

	records_ask_write(b, &a);
}

static enum err records_read_entries(
	struct remote_read *o, struct rd *in, const struct records_given *g)
{
	struct record_read *r = o->what.records;
	enum err e = OK;

	r->entries = mem_try((g->count + 1u) * sizeof(struct entry *));
	if (r->entries == NULL)
		return ERR_NOMEM;
	while (r->count < g->count && e == OK) {
		e = records_entry_read(
			in, o->call.answer, o->p->options.group, &r->entries[r->count]);
		r->count += e == OK ? 1 : 0;
	}
	if (e == OK)
		e = rd_done(in);
	if (e != OK)
		record_read_fini(r);
	return e;
}

static enum err records_read_given(struct remote_read *o)
{
	struct record_read *r = o->what.records;
	struct rd in = rd_over(o->call.answer.bytes);
	struct records_given g;

	records_given_read(&in, &g);
	if (in.err != OK)
		return in.err;
	r->first_offset = g.first_offset;
	r->high_watermark = g.high_watermark;
	return g.err != OK ? g.err : records_read_entries(o, &in, &g);
}

static void records_here(struct remote_read *o)
{
	reads_records(o->what.records);
}

static void records_end(struct remote_read *o, enum err e)
{
	reads_records_end(o->what.records, e);
}

static const struct read_kind records_kind = {
	PEER_OP_RECORDS, records_write_ask, records_read_given, records_here, records_end};

static void records_begin(struct record_read *r, void (*go)(struct remote_read *o))
{
	struct remote_read *o;

	if (r->guest) {
		reads_records_end(r, guest_err(r->from));
		return;
	}
	o = read_new(r->from, &records_kind);
	o->what.records = r;
	go(o);
}

void remote_records(struct record_read *r)
{
	records_begin(r, try);
}

void remote_records_later(struct record_read *r)
{
	records_begin(r, park);
}

/* --- seeks --- */

static void seek_write_ask(const struct remote_read *o, struct buf *b)
{
	const struct offset_seek *s = o->what.seek;
	struct seek_ask a = {s->by_epoch, s->by_epoch ? s->epoch : s->time_ms};

	seek_ask_write(b, &a);
}

static enum err seek_read_given(struct remote_read *o)
{
	struct offset_seek *s = o->what.seek;
	struct seek_given g;
	enum err e = seek_given_read(o->call.answer.bytes, &g);

	if (e != OK)
		return e;
	s->offset = g.offset;
	s->timestamp_ms = g.timestamp_ms;
	s->found_epoch = g.found_epoch;
	return g.err;
}

static void seek_here(struct remote_read *o)
{
	reads_seek(o->what.seek);
}

static void seek_end(struct remote_read *o, enum err e)
{
	reads_seek_end(o->what.seek, e);
}

static const struct read_kind seek_kind = {
	PEER_OP_SEEK, seek_write_ask, seek_read_given, seek_here, seek_end};

static void seek_begin(struct offset_seek *s, void (*go)(struct remote_read *o))
{
	struct remote_read *o;

	if (s->guest) {
		reads_seek_end(s, guest_err(s->from));
		return;
	}
	o = read_new(s->from, &seek_kind);
	o->what.seek = s;
	go(o);
}

void remote_seek(struct offset_seek *s)
{
	seek_begin(s, try);
}

void remote_seek_later(struct offset_seek *s)
{
	seek_begin(s, park);
}

/* --- info --- */

static void info_write_ask(const struct remote_read *o, struct buf *b)
{
	buf_add_u8(b, o->what.info->prefer);
}

static enum err info_read_given(struct remote_read *o)
{
	enum err e = info_given_read(o->call.answer.bytes, o->what.info);

	return e != OK ? e : o->what.info->err;
}

static void info_here(struct remote_read *o)
{
	reads_info(o->what.info);
}

static void info_end(struct remote_read *o, enum err e)
{
	reads_info_end(o->what.info, e);
}

static const struct read_kind info_kind = {
	PEER_OP_INFO, info_write_ask, info_read_given, info_here, info_end};

void remote_info(struct partition_info *i)
{
	struct remote_read *o = read_new(i->at, &info_kind);

	o->what.info = i;
	if (i->wait_ms > 0 && i->wait_ms < REMOTE_WAIT_MS)
		o->until_ms = loop_now_ms(i->at->loop) + i->wait_ms;
	try(o);
}

/* --- serving --- */

struct served { /* a read of another node */
	struct peer_request *request;
	struct partition *p;
	union {
		struct row_read rows;
		struct record_read records;
		struct offset_seek seek;
	} u;
};

/* NULL: it has been answered. */
static struct served *serve_begin(void *arg, struct peer_request *r, enum err malformed)
{
	struct partition *p = malformed == OK ? remote_asked(arg, r) : NULL;
	struct served *s;

	if (malformed != OK) {
		peer_answer(r, LANE_HIGH, malformed, NULL, 0);
		return NULL;
	}
	if (p == NULL)
		return NULL;
	if (p->home->serving >= SERVING_MAX) {
		peer_answer(r, LANE_HIGH, ERR_BUSY, NULL, 0);
		return NULL;
	}
	p->home->serving++;
	s = mem_new(sizeof *s);
	s->request = r;
	s->p = partition_ref(p);
	return s;
}

static void serve_end(struct served *s)
{
	s->p->home->serving--;
	partition_unref(s->p);
	mem_free(s);
}

static void rows_served(struct row_read *r)
{
	struct served *s = list_entry(r, struct served, u.rows);
	struct rows_given g = {.err = r->err, .more = r->more, .at_offset = r->at_offset};
	struct buf b;

	g.count = r->err == OK ? (uint32_t)r->count : 0;
	buf_init(&b, ANSWER_MAX);
	rows_given_write(&b, &g);
	for (uint32_t i = 0; i < g.count; i++)
		rows_row_write(&b, &r->rows[i]);
	row_read_fini(r);
	remote_answer(s->request, &b);
	serve_end(s);
}

void remote_rows_serve(void *arg, struct peer_request *request)
{
	struct rows_ask a;
	enum err e = rows_ask_read(request->body.bytes, &a);
	struct served *s = serve_begin(arg, request, e);

	if (s == NULL)
		return;
	s->u.rows = (struct row_read){.from = s->p,
		.to = s->p->loop,
		.guest = true,
		.keyspace = a.keyspace,
		.prefix = a.prefix,
		.linearizable = a.linearizable,
		.key = a.key,
		.after = a.after,
		.rows_max = a.rows_max < REMOTE_ROWS_MAX ? (int)a.rows_max : REMOTE_ROWS_MAX,
		.bytes_max = bounded(a.bytes_max),
		.done = rows_served};
	reads_rows(&s->u.rows);
}

/* Headers lie in one chunk, payloads stay where they are. Of many small entries the first are
 * given: who asked goes on behind them. */
static void records_answer(struct peer_request *request, const struct record_read *r, struct buf *b)
{
	struct records_given g = {r->err, r->first_offset, r->high_watermark, 0};
	size_t most = 1, at[REMOTE_ENTRIES_MAX], from = 0;
	struct slice *parts;
	int n = 0;

	if (r->err == OK)
		g.count = (uint16_t)(r->count < REMOTE_ENTRIES_MAX ? r->count : REMOTE_ENTRIES_MAX);
	records_given_write(b, &g);
	for (int i = 0; i < g.count; i++) {
		records_entry_write(b, r->entries[i]);
		at[i] = buf_len(b);
		most += r->entries[i]->part_count + 1;
	}
	if (b->err != OK) {
		peer_answer(request, LANE_HIGH, b->err, NULL, 0);
		return;
	}
	parts = mem_new(most * sizeof *parts);
	for (int i = 0; i < g.count; i++) {
		const struct entry *e = r->entries[i];

		parts[n++] = slice_of(
			b->chunk, bytes_of(b->chunk->data + b->start + from, at[i] - from));
		from = at[i];
		for (uint32_t k = 0; k < e->part_count; k++)
			parts[n++] = slice_ref(e->parts[k]);
	}
	if (from < buf_len(b))
		parts[n++] = slice_of(
			b->chunk, bytes_of(b->chunk->data + b->start + from, buf_len(b) - from));
	peer_answer(request, LANE_BULK, OK, parts, n);
	mem_free(parts);
}

static void records_served(struct record_read *r)
{
	struct served *s = list_entry(r, struct served, u.records);
	struct buf b;

	buf_init(&b, ANSWER_MAX);
	records_answer(s->request, r, &b);
	buf_fini(&b);
	record_read_fini(r);
	serve_end(s);
}

void remote_records_serve(void *arg, struct peer_request *request)
{
	struct records_ask a;
	enum err e = records_ask_read(request->body.bytes, &a);
	struct served *s = serve_begin(arg, request, e);

	if (s == NULL)
		return;
	s->u.records = (struct record_read){.from = s->p,
		.to = s->p->loop,
		.guest = true,
		.offset = a.offset,
		.bytes_max = bounded(a.bytes_max),
		.done = records_served};
	reads_records(&s->u.records);
}

static void seek_served(struct offset_seek *q)
{
	struct served *s = list_entry(q, struct served, u.seek);
	struct seek_given g = {q->err, q->offset, q->timestamp_ms, q->found_epoch};
	struct buf b;

	buf_init(&b, 64);
	seek_given_write(&b, &g);
	remote_answer(s->request, &b);
	serve_end(s);
}

void remote_seek_serve(void *arg, struct peer_request *request)
{
	struct seek_ask a;
	enum err e = seek_ask_read(request->body.bytes, &a);
	struct served *s = serve_begin(arg, request, e);

	if (s == NULL)
		return;
	s->u.seek = (struct offset_seek){.from = s->p,
		.to = s->p->loop,
		.guest = true,
		.by_epoch = a.by_epoch,
		.time_ms = a.by_epoch ? 0 : a.value,
		.epoch = a.by_epoch && a.value >= 0 && a.value <= INT32_MAX ? (int32_t)a.value : -1,
		.done = seek_served};
	reads_seek(&s->u.seek);
}

void remote_info_serve(void *arg, struct peer_request *request)
{
	struct partition *p = remote_asked(arg, request);
	struct partition_info i = {.err = ERR_NOTLEADER};
	struct rd body;
	struct buf b;

	if (p == NULL)
		return;
	body = rd_over(request->body.bytes);
	i.prefer = rd_u8(&body) == 1;
	if (partition_unserved(p) == OK)
		reads_info_fill(p, &i);
	buf_init(&b, 4096);
	info_given_write(&b, &i);
	remote_answer(request, &b);
}
