/* Rows are copied before the next look at the table, which is all that a borrowed row lasts; the
 * will's row is put before the session's, so that whoever sees the latter in the log knows when the
 * former is due (session_absent.c). */
#include "server/broker/session_ask.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "server/broker/session_priv.h"

enum { ROW_BYTES_MAX = 16 << 20, WILL_BYTES_MAX = 128 << 20 };
enum { CLAIM_CLEAN = 1, CLAIM_BRIEF = 2 };
enum { WRITE_LAST = 1, WRITE_END = 2, WRITE_UNTOUCHED = 4 };

static void add_owner(struct buf *out, struct session_owner o)
{
	buf_add_u32be(out, o.node);
	buf_add_u64be(out, o.boot);
}
static struct session_owner rd_owner(struct rd *r)
{
	struct session_owner o = {.node = rd_u32be(r)};
	o.boot = rd_u64be(r);
	return o;
}

/* A row of the session, copied. ERR_CORRUPT: it cannot be read. */
static enum err hold_row(struct eval *v, struct bytes id, struct buf *held, struct session_row *row)
{
	struct bytes value;
	enum err e = eval_get(v, KEYSPACE_SESSION, id, &value);
	if (e != OK)
		return e;
	buf_add(held, value);
	return held->err != OK ? held->err : session_row_read(buf_bytes(held), row);
}

static void forget_rows(struct eval *v, struct bytes id)
{
	eval_delete(v, KEYSPACE_WILL, id);
	eval_delete(v, KEYSPACE_CURSOR, id);
	eval_delete(v, KEYSPACE_SESSION, id);
}

static enum err put_row(struct eval *v, struct bytes id, const struct session_row *row)
{
	struct buf out;
	buf_init(&out, ROW_BYTES_MAX);
	session_row_again(&out, row);
	enum err e = out.err;
	if (e == OK)
		eval_put(v, KEYSPACE_SESSION, id, buf_bytes(&out));
	buf_fini(&out);
	return e;
}

/* The will's row with another time. */
static enum err put_will_due(struct eval *v, struct bytes id, struct bytes will, int64_t due_ms)
{
	struct buf out;
	buf_init(&out, WILL_BYTES_MAX);
	buf_add(&out, will);
	enum err e = out.err;
	if (e == OK) {
		will_set_due(out.chunk->data + out.start, due_ms);
		eval_put(v, KEYSPACE_WILL, id, buf_bytes(&out));
	}
	buf_fini(&out);
	return e;
}

/* Claims */

void session_claim_args(struct buf *out, const struct session_claim_ask *ask)
{
	buf_add_u8(out, (ask->clean ? CLAIM_CLEAN : 0) | (ask->brief ? CLAIM_BRIEF : 0));
	buf_add_u32be(out, ask->expiry_s);
	add_owner(out, ask->owner);
	buf_add_u64be(out, ask->force_epoch);
	buf_add_u64be(out, ask->settled_epoch);
	buf_add_bytes16(out, ask->id);
	buf_add(out, ask->will);
}

static enum err claim_read(struct bytes args, struct session_claim_ask *out)
{
	struct rd r = rd_over(args);
	struct will w;
	uint8_t flags = rd_u8(&r);
	*out = (struct session_claim_ask){
		.clean = flags & CLAIM_CLEAN, .brief = flags & CLAIM_BRIEF};
	out->expiry_s = rd_u32be(&r);
	out->owner = rd_owner(&r);
	out->force_epoch = rd_u64be(&r);
	out->settled_epoch = rd_u64be(&r);
	out->id = rd_bytes16(&r);
	out->will = rd_rest(&r);
	if (r.err != OK || flags > (CLAIM_CLEAN | CLAIM_BRIEF))
		return ERR_MALFORMED;
	return out->will.len == 0 || will_read(out->will, &w) == OK ? OK : ERR_MALFORMED;
}

enum err session_claim_reply_read(struct bytes in, struct session_claim_reply *out)
{
	struct rd r = rd_over(in);
	uint8_t outcome = rd_u8(&r), present = 0;
	*out = (struct session_claim_reply){.outcome = CLAIM_TAKEN};
	switch (outcome) {
	case CLAIM_HELD:
		out->owner = rd_owner(&r);
		out->epoch = rd_u64be(&r);
		break;
	case CLAIM_WILL:
		out->epoch = rd_u64be(&r);
		out->will = rd_rest(&r);
		break;
	case CLAIM_TAKEN:
		present = rd_u8(&r);
		out->epoch = rd_u64be(&r);
		out->born = rd_u64be(&r);
		out->group_count = rd_count(&r, rd_u16be(&r), 8);
		out->groups = rd_take(&r, (size_t)out->group_count * 8);
		out->row = rd_bytes32(&r);
		out->cursor = rd_bytes32(&r);
		break;
	default: return ERR_MALFORMED;
	}
	out->outcome = outcome;
	out->present = present;
	return present > 1 ? ERR_MALFORMED : rd_done(&r);
}

/* Adds a row's value as a blob; an empty one if there is none. */
static enum err reply_row(struct eval *v, uint8_t keyspace, struct bytes id)
{
	struct bytes value;
	enum err e = eval_get(v, keyspace, id, &value);
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	buf_add_bytes32(eval_reply(v), e == OK ? value : bytes_of(NULL, 0));
	return OK;
}

static enum err reply_taken(
	struct eval *v, struct bytes id, const struct session_row *fresh, bool present)
{
	struct buf *out = eval_reply(v);
	buf_add_u8(out, CLAIM_TAKEN);
	buf_add_u8(out, present);
	buf_add_u64be(out, fresh->epoch);
	buf_add_u64be(out, fresh->born);
	buf_add_u16be(out, (uint16_t)fresh->group_count);
	buf_add(out, fresh->groups);
	if (!present) {
		buf_add_bytes32(out, bytes_of(NULL, 0));
		buf_add_bytes32(out, bytes_of(NULL, 0));
		return OK;
	}
	enum err e = reply_row(v, KEYSPACE_SESSION, id);
	return e == OK ? reply_row(v, KEYSPACE_CURSOR, id) : e;
}

static enum err put_fresh(struct eval *v, const struct session_claim_ask *ask,
	const struct session_row *fresh, bool present)
{
	if (!present && ask->expiry_s == 0 && !ask->brief) {
		forget_rows(v, ask->id);
		return OK;
	}
	if (!present)
		eval_delete(v, KEYSPACE_CURSOR, ask->id);
	if (ask->will.len > 0)
		eval_put(v, KEYSPACE_WILL, ask->id, ask->will);
	else
		eval_delete(v, KEYSPACE_WILL, ask->id);
	return put_row(v, ask->id, fresh);
}

/* Another process has the client, as far as is known, and has not been told. */
static bool is_held(const struct session_row *old, const struct session_claim_ask *ask)
{
	return old->connected && old->owner.node != 0 && old->owner.node != ask->owner.node &&
		old->epoch != ask->force_epoch;
}

/* Whether the will is to be published before this claim: nobody has seen its client off, its time
 * had come, it was on its way, or its session is over (MQTT-3.1.3-9). A will of this very process
 * is its own affair: the claim may be one that was evaluated before. */
static bool will_is_due(const struct session_row *old, const struct session_claim_ask *ask,
	bool present, const struct will *w, int64_t now_ms)
{
	if (old->connected)
		return !session_owner_equal(old->owner, ask->owner) &&
			(!present || w->delay_s == 0);
	return !present || (w->due_ms != 0 && w->due_ms <= now_ms); /* WILL_LEAVING is long ago */
}

static enum err reply_will(struct eval *v, const struct session_claim_ask *ask,
	const struct session_row *old, bool present, bool *due)
{
	struct bytes value;
	struct will w;
	*due = false;
	if (old->epoch == 0 || old->epoch == ask->settled_epoch)
		return OK;
	enum err e = eval_get(v, KEYSPACE_WILL, ask->id, &value);
	if (e != OK)
		return e == ERR_NOTFOUND ? OK : e;
	if (will_read(value, &w) != OK || !will_is_due(old, ask, present, &w, eval_now_ms(v)))
		return OK;
	buf_add_u8(eval_reply(v), CLAIM_WILL);
	buf_add_u64be(eval_reply(v), old->epoch);
	buf_add(eval_reply(v), value);
	*due = true;
	return OK;
}

/* One that has nothing in it and is this process's own was made by this very claim, evaluated
 * before: the client is not told of a session that it does not know. */
static bool is_own_new(const struct session_row *old, const struct session_claim_ask *ask)
{
	return old->connected && session_owner_equal(old->owner, ask->owner) &&
		old->epoch == old->born && old->group_count == 0 && old->subscription_count == 0;
}

static enum err take(struct eval *v, const struct session_claim_ask *ask, struct session_row *old)
{
	int64_t now = eval_now_ms(v);
	bool present = old->epoch > 0 && !ask->clean && session_row_ends_ms(old, now) > now &&
		!is_own_new(old, ask);
	bool due;
	struct session_row fresh = {.connected = true,
		.epoch = eval_index(v),
		.owner = ask->owner,
		.expiry_s = ask->expiry_s,
		.since_ms = now,
		.group_count = old->group_count,
		.groups = old->groups,
		.subscription_count = present ? old->subscription_count : 0,
		.subscriptions = present ? old->subscriptions : bytes_of(NULL, 0)};
	fresh.born = present ? old->born : fresh.epoch;
	enum err e = reply_will(v, ask, old, present, &due);
	if (e != OK || due)
		return e;
	e = reply_taken(v, ask->id, &fresh, present);
	return e == OK ? put_fresh(v, ask, &fresh, present) : e;
}

static enum err evaluate_claim(struct eval *v, struct bytes args)
{
	struct session_claim_ask ask;
	struct session_row old = {0};
	struct buf held;
	enum err e = claim_read(args, &ask);
	if (e != OK)
		return e;
	buf_init(&held, ROW_BYTES_MAX);
	e = hold_row(v, ask.id, &held, &old);
	if (e == ERR_NOTFOUND || e == ERR_CORRUPT) {
		old = (struct session_row){0};
		e = OK;
	}
	if (e == OK && is_held(&old, &ask)) {
		buf_add_u8(eval_reply(v), CLAIM_HELD);
		add_owner(eval_reply(v), old.owner);
		buf_add_u64be(eval_reply(v), old.epoch);
	} else if (e == OK) {
		e = take(v, &ask, &old);
	}
	buf_fini(&held);
	return e;
}

/* Writes */

size_t session_write_args(struct buf *out, const struct session_write_ask *ask)
{
	buf_add_u8(out,
		(ask->last ? WRITE_LAST : 0) | (ask->end ? WRITE_END : 0) |
			(ask->untouched ? WRITE_UNTOUCHED : 0));
	buf_add_u64be(out, ask->epoch);
	buf_add_bytes16(out, ask->id);
	buf_add_bytes32(out, ask->will);
	size_t mark = buf_len(out);
	buf_add_u32be(out, 0);
	return mark;
}

void session_write_row_end(struct buf *out, size_t mark)
{
	if (out->err == OK)
		put_u32be(
			out->chunk->data + out->start + mark, (uint32_t)(buf_len(out) - mark - 4));
}

struct write { /* read */
	struct session_write_ask ask;
	struct bytes row, cursor;
};

static enum err write_read(struct bytes args, struct write *out)
{
	struct rd r = rd_over(args);
	struct session_row row;
	struct cursor_row cursor;
	struct will will;
	uint8_t flags = rd_u8(&r);
	*out = (struct write){.ask = {.last = flags & WRITE_LAST,
				      .end = flags & WRITE_END,
				      .untouched = flags & WRITE_UNTOUCHED}};
	struct session_write_ask *ask = &out->ask;
	ask->epoch = rd_u64be(&r);
	ask->id = rd_bytes16(&r);
	ask->will = rd_bytes32(&r);
	out->row = rd_bytes32(&r);
	out->cursor = rd_rest(&r);
	bool whole = ask->last && !ask->end && !ask->untouched;
	if (r.err != OK || flags > (WRITE_LAST | WRITE_END | WRITE_UNTOUCHED) ||
		((ask->end || ask->untouched) && !ask->last) || (whole && out->row.len == 0))
		return ERR_MALFORMED;
	if (ask->will.len > 0 && (!whole || will_read(ask->will, &will) != OK))
		return ERR_MALFORMED;
	if (out->row.len > 0 &&
		(session_row_read(out->row, &row) != OK || row.epoch != ask->epoch ||
			row.connected == ask->last))
		return ERR_MALFORMED;
	if (out->cursor.len > 0 && cursor_row_read(out->cursor, &cursor) != OK)
		return ERR_MALFORMED;
	return OK;
}

/* The client of a claim did not get as far as to have a session. */
static enum err leave_untouched(struct eval *v, struct bytes id)
{
	struct session_row row;
	struct buf held;
	buf_init(&held, ROW_BYTES_MAX);
	enum err e = hold_row(v, id, &held, &row);
	if (e == OK && row.expiry_s == 0) {
		forget_rows(v, id);
	} else if (e == OK) {
		row.connected = false;
		row.since_ms = eval_now_ms(v);
		eval_delete(v, KEYSPACE_WILL, id);
		e = put_row(v, id, &row);
	}
	buf_fini(&held);
	return e;
}

static enum err evaluate_write(struct eval *v, struct bytes args)
{
	struct write w;
	struct bytes held;
	struct session_row row;
	enum err e = write_read(args, &w);
	struct bytes id = w.ask.id;
	if (e == OK)
		e = eval_get(v, KEYSPACE_SESSION, id, &held);
	if (e != OK)
		return e == ERR_NOTFOUND ? ERR_FENCED : e;
	if (session_row_head(held, &row) != OK || row.epoch != w.ask.epoch || !row.connected)
		return ERR_FENCED;
	if (w.ask.end) {
		forget_rows(v, id);
		return OK;
	}
	if (w.ask.untouched)
		return leave_untouched(v, id);
	if (w.cursor.len > 0)
		eval_put(v, KEYSPACE_CURSOR, id, w.cursor);
	if (w.ask.last && w.ask.will.len > 0)
		eval_put(v, KEYSPACE_WILL, id, w.ask.will);
	else if (w.ask.last)
		eval_delete(v, KEYSPACE_WILL, id);
	if (w.row.len > 0)
		eval_put(v, KEYSPACE_SESSION, id, w.row);
	return OK;
}

/* Ends */

void session_end_args(struct buf *out, enum session_end_step step, uint64_t epoch, struct bytes id)
{
	buf_add_u8(out, (uint8_t)step);
	buf_add_u64be(out, epoch);
	buf_add(out, id);
}

enum err session_taken_read(
	struct bytes in, uint32_t *group_count, struct bytes *groups, struct bytes *will)
{
	struct rd r = rd_over(in);
	*group_count = rd_count(&r, rd_u16be(&r), 8);
	*groups = rd_take(&r, (size_t)*group_count * 8);
	*will = rd_rest(&r);
	return rd_done(&r);
}

static enum err take_will(struct eval *v, struct bytes id, const struct session_row *row)
{
	struct bytes value;
	struct buf *out = eval_reply(v);
	buf_add_u16be(out, (uint16_t)row->group_count);
	buf_add(out, row->groups); /* borrowed as the row is: before the next look */
	enum err e = eval_get(v, KEYSPACE_WILL, id, &value);
	if (e != OK)
		return e == ERR_NOTFOUND ? OK : e;
	struct will w;
	if (will_read(value, &w) != OK)
		return OK;
	buf_add(out, value);
	return w.due_ms == WILL_LEAVING ? OK : put_will_due(v, id, value, WILL_LEAVING);
}

static enum err evaluate_end(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	struct bytes value;
	struct session_row row;
	uint8_t step = rd_u8(&r);
	uint64_t epoch = rd_u64be(&r);
	struct bytes id = rd_rest(&r);
	if (r.err != OK || step < SESSION_TAKE_WILL || step > SESSION_END)
		return ERR_MALFORMED;
	enum err e = eval_get(v, KEYSPACE_SESSION, id, &value);
	if (e != OK)
		return e;
	if (session_row_read(value, &row) != OK)
		return ERR_CORRUPT;
	if (row.epoch != epoch || row.connected)
		return ERR_CONFLICT;
	if (step == SESSION_TAKE_WILL)
		return take_will(v, id, &row);
	if (step == SESSION_FORGET_WILL)
		eval_delete(v, KEYSPACE_WILL, id);
	else
		forget_rows(v, id);
	return OK;
}

/* Absence */

void session_absent_begin(struct buf *out, struct session_owner owner)
{
	add_owner(out, owner);
}

void session_absent_add(struct buf *out, uint64_t epoch, struct bytes id)
{
	buf_add_u64be(out, epoch);
	buf_add_bytes16(out, id);
}

/* The will gets its time; without a delay it is on its way from now on, whatever clocks say. */
static enum err will_waits(struct eval *v, struct bytes id, uint32_t expiry_s)
{
	struct bytes value;
	struct will w;
	enum err e = eval_get(v, KEYSPACE_WILL, id, &value);
	if (e != OK || will_read(value, &w) != OK || w.due_ms != 0)
		return e == ERR_NOTFOUND ? OK : e;
	uint32_t delay_s = w.delay_s < expiry_s ? w.delay_s : expiry_s;
	int64_t due_ms = eval_now_ms(v) + (int64_t)delay_s * 1000;
	return put_will_due(v, id, value, delay_s > 0 ? due_ms : WILL_LEAVING);
}

static enum err declare_absent(
	struct eval *v, struct session_owner owner, uint64_t epoch, struct bytes id)
{
	struct session_row row;
	struct buf held;
	buf_init(&held, ROW_BYTES_MAX);
	enum err e = hold_row(v, id, &held, &row);
	if (e == OK && row.connected && row.epoch == epoch &&
		session_owner_equal(row.owner, owner)) {
		e = will_waits(v, id, row.expiry_s);
		row.connected = false;
		row.since_ms = eval_now_ms(v);
		if (e == OK)
			e = put_row(v, id, &row);
	}
	buf_fini(&held);
	return e == ERR_NOTFOUND || e == ERR_CORRUPT ? OK : e;
}

static enum err evaluate_absent(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	struct session_owner owner = rd_owner(&r);
	while (r.err == OK && rd_left(&r) > 0) {
		uint64_t epoch = rd_u64be(&r);
		struct bytes id = rd_bytes16(&r);
		enum err e = r.err == OK ? declare_absent(v, owner, epoch, id) : ERR_MALFORMED;
		if (e != OK)
			return e;
	}
	return r.err == OK ? OK : ERR_MALFORMED;
}

const struct proposal_kind session_claim_kind = {PROPOSAL_SESSION_CLAIM, evaluate_claim};
const struct proposal_kind session_write_kind = {PROPOSAL_SESSION_WRITE, evaluate_write};
const struct proposal_kind session_end_kind = {PROPOSAL_SESSION_END, evaluate_end};
const struct proposal_kind session_absent_kind = {PROPOSAL_SESSION_ABSENT, evaluate_absent};

void session_kinds_add(void)
{
	proposal_kind_add(&session_claim_kind);
	proposal_kind_add(&session_write_kind);
	proposal_kind_add(&session_end_kind);
	proposal_kind_add(&session_absent_kind);
	proposal_kind_add(&qos2_forget_kind);
	proposal_kind_add(&qos2_release_kind);
}
