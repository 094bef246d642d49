/* Writing a durable session's rows. One proposal is under way at a time; what changes meanwhile
 * goes with the next one, so many changes of a turn cost one write. Every write checks that the row
 * still has our epoch: another node's claim ends it. The last one says that the client is away. */
#include "server/base/log.h"
#include "server/broker/session_priv.h"

enum {
	ARGS_BYTES_MAX = 128 << 20, /* row and cursor by the limits of a session, and the will */
	TOUCH_MS = 1000,            /* cursors are written back at most so often */
	RETRY_MS = 500,
	LAST_TRIES = 10
};

static void write_begin(struct session_rows *d);
static uint64_t want_write(struct session_rows *d, bool row);

static void on_hook(struct loop_hook *h)
{
	struct session_rows *d = list_entry(h, struct session_rows, hook);
	if (!d->writing && !d->last && (d->want_row || d->want_cursor))
		write_begin(d);
}

static void on_timer(struct loop_timer *t)
{
	struct session_rows *d = list_entry(t, struct session_rows, timer);
	if (d->last) {
		if (!d->writing)
			write_begin(d);
		return;
	}
	d->want_cursor = true;
	on_hook(&d->hook);
}

struct session_rows *durable_new(
	struct session *s, struct partition *table, uint64_t epoch, uint64_t born)
{
	struct session_rows *d = mem_new(sizeof *d);
	d->s = s;
	d->table = table;
	d->table_at = session_table_at(session_shard(s), table);
	d->epoch = epoch;
	d->born = born;
	buf_init(&d->args, ARGS_BYTES_MAX);
	loop_hook_init(&d->hook, on_hook);
	loop_timer_init(&d->timer, shard_loop(session_shard(s)), on_timer);
	return d;
}

void durable_free(struct session_rows *d)
{
	if (d == NULL)
		return;
	loop_hook_cancel(&d->hook);
	loop_timer_cancel(&d->timer);
	buf_fini(&d->args);
	mem_free(d->groups);
	mem_free(d->tickets);
	mem_free(d);
}

uint64_t durable_list(struct session_rows *d, uint64_t group, bool saved)
{
	for (uint32_t i = 0; i < d->group_count; i++)
		if (d->groups[i] == group)
			return d->tickets[i];
	if (d->group_count == UINT16_MAX)
		return 0;
	size_t size = (d->group_count + 1) * sizeof *d->groups;
	d->groups = mem_resize(d->groups, size);
	d->tickets = mem_resize(d->tickets, size);
	must(d->groups != NULL);
	must(d->tickets != NULL);
	uint32_t at = d->group_count++;
	d->groups[at] = group;
	d->tickets[at] = saved || d->s->closing ? 0 : want_write(d, true);
	return d->tickets[at];
}

/* The partitions a subscriber can read, one after the other. */
struct partition_walk {
	const struct subscriber *reader;
	int stream, partition;
};
static struct partition *walk_next(struct partition_walk *w)
{
	while (w->stream < subscriber_stream_count(w->reader)) {
		const struct stream *s = subscriber_stream_at(w->reader, w->stream);
		if (w->partition < s->partition_count)
			return s->partitions[w->partition++];
		w->stream++;
		w->partition = 0;
	}
	return NULL;
}

static void add_subscription(struct buf *out, const struct subscription *sub)
{
	struct session_row_sub row = {.filter = sub->filter,
		.qos = sub->qos,
		.no_local = sub->no_local,
		.retain_as_published = sub->retain_as_published,
		.id = sub->id};
	size_t mark = session_row_sub_begin(out, &row);
	struct partition_walk w = {.reader = sub->who};
	struct partition *p;
	uint16_t starts = 0;
	while ((p = walk_next(&w)) != NULL && starts < UINT16_MAX) {
		int64_t start = subscription_start(sub, p);
		if (start == 0)
			continue;
		session_row_sub_start(out, (struct session_place){partition_group(p), start});
		starts++;
	}
	session_row_sub_end(out, mark, starts);
}

static void build_row(struct session_rows *d)
{
	struct session *s = d->s;
	struct session_row row = {.connected = !d->last,
		.epoch = d->epoch,
		.born = d->born,
		.owner = s->all->self,
		.expiry_s = s->expiry_s,
		.since_ms = loop_now_wall_ms(shard_loop(session_shard(s))),
		.group_count = d->group_count};
	session_row_begin(&d->args, &row, d->groups);
	size_t mark = session_row_subs_begin(&d->args);
	uint32_t count = 0;
	struct list *head = &s->reader.subscriptions;
	for (struct list *n = head->next; n != head && !d->brief; n = n->next, count++)
		add_subscription(&d->args, list_entry(n, struct subscription, node));
	session_row_subs_end(&d->args, mark, count);
}

static void build_cursor(struct session_rows *d)
{
	struct partition_walk w = {.reader = &d->s->reader};
	struct partition *p;
	uint32_t count = 0;
	size_t mark = cursor_row_begin(&d->args);
	while ((p = walk_next(&w)) != NULL) {
		int64_t at = subscriber_position(&d->s->reader, p);
		cursor_row_position(&d->args, (struct session_place){partition_group(p), at});
		count++;
	}
	cursor_row_end(&d->args, mark, count, &d->s->window);
}

static void build_args(struct session_rows *d)
{
	struct session *s = d->s;
	struct session_write_ask ask = {.last = d->last,
		.end = d->last && s->expiry_s == 0 && !d->keep_will,
		.untouched = d->untouched,
		.epoch = d->epoch,
		.id = session_id(s)};
	if (d->keep_will && d->last)
		ask.will = buf_bytes(s->will);
	bool whole = !ask.end && !ask.untouched;
	buf_clear(&d->args);
	size_t mark = session_write_args(&d->args, &ask);
	if (whole && (d->want_row || d->last))
		build_row(d);
	session_write_row_end(&d->args, mark);
	if (whole && !d->brief)
		build_cursor(d);
}

/* The last one is tried until it is through: the row says that the client is here, and the will in
 * it is nobody else's; who has the name next would take the row for its own. A process that ends
 * leaves it to its next boot. */
static void try_last_again(struct session_rows *d)
{
	struct session *s = d->s;
	if (d->tries >= LAST_TRIES && atomic_load(&s->all->ending)) {
		session_release(s);
		return;
	}
	if (d->tries == LAST_TRIES)
		LOG(LOG_WARN, AREA_BROKER, "session_not_saved", "client=\"%s\" err=\"%s\"",
			log_text(session_id(s)).text, err_text(d->write.err));
	loop_timer_set(&d->timer, RETRY_MS);
}

static void on_written(struct proposal *p)
{
	struct session_rows *d = list_entry(p, struct session_rows, write);
	struct session *s = d->s;
	d->writing = false;
	bool failed = p->err != OK && p->err != ERR_FENCED;
	d->tries = !failed ? 0 : (uint8_t)(d->tries + (d->tries < UINT8_MAX));
	if (p->err == OK)
		d->written = d->begun;
	if (s->closing) {
		if (!d->last)
			durable_close(d, d->keep_will);
		else if (failed)
			try_last_again(d);
		else
			session_release(s); /* away for others too, and the name is free */
		return;
	}
	if (failed) {
		d->want_row = true;
		loop_timer_set(&d->timer, RETRY_MS);
		return;
	}
	if (d->want_row || d->want_cursor)
		loop_hook_want(shard_loop(session_shard(s)), STAGE_PUBLISH, &d->hook);
	if (p->err == ERR_FENCED)
		s->ops->fenced(s, ERR_FENCED);
	else
		s->ops->written(s);
}

/* A row that was not made is a write that failed: it is tried again. */
static void fail_write(void *arg)
{
	struct session_rows *d = arg;
	d->write.err = ERR_NOMEM;
	on_written(&d->write);
}

static void write_begin(struct session_rows *d)
{
	if (!d->last || d->tries == 0 || d->args.err != OK) /* the last one again: as it was */
		build_args(d);
	d->want_row = d->want_cursor = false;
	d->writing = true;
	d->begun++;
	loop_timer_cancel(&d->timer);
	d->write = (struct proposal){.to = d->table,
		.kind = &session_write_kind,
		.args = buf_bytes(&d->args),
		.repeatable = true, /* absolute, and only in its epoch */
		.done = on_written};
	if (d->args.err == OK) {
		partition_propose(&d->write);
		return;
	}
	LOG(LOG_ERROR, AREA_BROKER, "session_row_not_made", "client=\"%s\" err=\"%s\"",
		log_text(session_id(d->s)).text, err_text(d->args.err));
	loop_call(shard_loop(session_shard(d->s)), fail_write, d);
}

static uint64_t want_write(struct session_rows *d, bool row)
{
	d->want_row |= row;
	d->want_cursor = true;
	loop_hook_want(shard_loop(session_shard(d->s)), STAGE_PUBLISH, &d->hook);
	return d->begun + 1;
}

uint64_t session_write(struct session *s, bool subscriptions)
{
	if (!session_lasts(s) || s->closing)
		return 0;
	return want_write(s->durable, subscriptions);
}

bool session_lasts(const struct session *s)
{
	return s->durable != NULL && !s->durable->brief;
}

uint64_t session_written(const struct session *s)
{
	return s->durable != NULL ? s->durable->written : UINT64_MAX;
}

void session_touch(struct session *s)
{
	if (s->durable != NULL && !s->durable->brief && !s->closing &&
		!loop_timer_is_set(&s->durable->timer))
		loop_timer_set(&s->durable->timer, TOUCH_MS);
}

/* It is in the log, and its row may go. If it could not be published it stays, on its way: the
 * table's leader publishes it, or who has the name next. */
static void on_will_out(void *arg, enum err e)
{
	struct session_rows *d = arg;
	struct session *s = d->s;
	d->will_leaves = false;
	if (e != OK) {
		d->keep_will = true;
		will_set_due(s->will->chunk->data + s->will->start, WILL_LEAVING);
	}
	durable_close(d, d->keep_will);
}

/* What becomes of the will: published now, kept with a time, or forgotten. Published before the row
 * goes that says it is not: the node may die in between, and who leads the table then looks there.
 */
static void settle_will(struct session_rows *d, int64_t now_ms)
{
	struct session *s = d->s;
	struct will w;
	struct will_of whose = {session_id(s), d->epoch, false};
	bool wanted = d->keep_will && s->will != NULL;
	d->will_settled = true;
	d->keep_will = false;
	if (!wanted || will_read(buf_bytes(s->will), &w) != OK)
		return;
	uint32_t delay_s = w.delay_s < s->expiry_s ? w.delay_s : s->expiry_s;
	if (delay_s > 0) {
		d->keep_will = true;
		will_set_due(
			s->will->chunk->data + s->will->start, now_ms + (int64_t)delay_s * 1000);
	} else if (will_publish(session_shard(s), buf_bytes(s->will), &whose, on_will_out, d) ==
		OK) {
		d->will_leaves = true;
	} else {
		LOG(LOG_WARN, AREA_BROKER, "will_lost", "client=\"%s\"",
			log_text(session_id(s)).text);
	}
}

void durable_close(struct session_rows *d, bool will)
{
	struct session *s = d->s;
	must(!d->last);
	d->keep_will = will;
	if (d->writing || d->will_leaves || (s->resuming != NULL && s->resuming->busy))
		return; /* comes back */
	if (!d->will_settled)
		settle_will(d, loop_now_wall_ms(shard_loop(session_shard(s))));
	if (d->will_leaves)
		return;
	d->last = true;
	d->tries = 0;
	write_begin(d);
	if (s->expiry_s == 0)
		qos2_sweep(s->all, session_shard(s), session_id(s), d->epoch, d->groups,
			d->group_count);
}

void durable_abandon(struct session_rows *d)
{
	d->last = d->untouched = true;
	write_begin(d);
}
