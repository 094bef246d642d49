/* A group's row is small, since each commit may look at it; its members have a row of their own,
 * written with each generation. Both are absolute, so that nothing but the generation is compared:
 * a coordinator that is one no more, and does not know it yet, cannot take back what its successor
 * has written. Commits come with rows made by who proposes them.
 *
 *	store    generation 4, time 8, group id str, type str, state (the rest)
 *	offsets  now 8, renew before 8, flags 1 (1: forget), group id str, then each: key str,
 *	         value length 4, value
 *	delete   flags 1 (1: the last page), group id str, then each: key str
 *	str: length 2 and bytes */
#include "server/broker/group_store.h"
#include "server/base/wire.h"
#include "server/broker/keyspace.h"

enum { STATE_ROW_VERSION = 1, ROW_BYTES_MAX = 1 << 17, STATE_ROW_BYTES_MAX = 2 << 20 };

static void add_str(struct buf *out, struct bytes b)
{
	buf_add_u16be(out, (uint16_t)b.len);
	buf_add(out, b);
}

static struct bytes take_str(struct rd *r)
{
	return rd_take(r, rd_u16be(r));
}

void group_state_row_write(struct buf *out, const struct group_state_row *row)
{
	buf_add_u8(out, STATE_ROW_VERSION);
	buf_add_u32be(out, (uint32_t)row->generation);
	buf_add_u64be(out, (uint64_t)row->time_ms);
	buf_add(out, row->state);
}

enum err group_state_row_read(struct bytes in, struct group_state_row *out)
{
	struct rd r = rd_over(in);
	if (rd_u8(&r) != STATE_ROW_VERSION)
		return ERR_CORRUPT;
	out->generation = (int32_t)rd_u32be(&r);
	out->time_ms = (int64_t)rd_u64be(&r);
	out->state = rd_take(&r, rd_left(&r));
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

/* ---- a generation */

void group_store_args(
	struct buf *out, struct bytes group_id, const struct group_row *row, struct bytes state)
{
	buf_add_u32be(out, (uint32_t)row->generation);
	buf_add_u64be(out, (uint64_t)row->time_ms);
	add_str(out, group_id);
	add_str(out, row->protocol_type);
	buf_add(out, state);
}

static enum err row_get(struct eval *v, struct bytes group_id, struct group_row *out)
{
	struct bytes found;
	enum err e = eval_get(v, KEYSPACE_GROUP, group_id, &found);
	return e == OK ? group_row_read(found, out) : e;
}

static enum err put_row(struct eval *v, struct bytes group_id, const struct group_row *row)
{
	struct buf value;
	buf_init(&value, ROW_BYTES_MAX);
	group_row_write(&value, row);
	enum err e = value.err;
	if (e == OK)
		eval_put(v, KEYSPACE_GROUP, group_id, buf_bytes(&value));
	buf_fini(&value);
	return e;
}

static enum err put_state(struct eval *v, struct bytes group_id, const struct group_state_row *row)
{
	struct buf value;
	if (row->state.len == 0) {
		eval_delete(v, KEYSPACE_GROUP_STATE, group_id);
		return OK;
	}
	buf_init(&value, STATE_ROW_BYTES_MAX);
	group_state_row_write(&value, row);
	enum err e = value.err;
	if (e == OK)
		eval_put(v, KEYSPACE_GROUP_STATE, group_id, buf_bytes(&value));
	buf_fini(&value);
	return e;
}

static enum err evaluate_store(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	struct group_row row = {.generation = (int32_t)rd_u32be(&r)}, kept;
	row.time_ms = (int64_t)rd_u64be(&r);
	struct bytes group_id = take_str(&r);
	row.protocol_type = take_str(&r);
	struct bytes state = rd_take(&r, rd_left(&r));
	if (rd_done(&r) != OK || group_id.len == 0)
		return ERR_MALFORMED;
	enum err e = row_get(v, group_id, &kept);
	if (e == OK && kept.generation > row.generation)
		return ERR_CONFLICT;
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	e = put_row(v, group_id, &row);
	if (e != OK)
		return e;
	return put_state(v, group_id,
		&(struct group_state_row){
			.generation = row.generation, .time_ms = row.time_ms, .state = state});
}

const struct proposal_kind group_store_kind = {PROPOSAL_GROUP_STORE, evaluate_store};

/* ---- offsets */

void group_offsets_args(struct buf *out, const struct group_offsets_what *what)
{
	struct buf one;
	buf_add_u64be(out, (uint64_t)what->now_ms);
	buf_add_u64be(out, (uint64_t)what->renew_before_ms);
	buf_add_u8(out, what->forget);
	add_str(out, what->group_id);
	buf_init(&one, ROW_BYTES_MAX);
	for (uint32_t i = 0; i < what->count; i++) {
		const struct group_offset *o = &what->offsets[i];
		if (o->err != GROUP_OK)
			continue;
		buf_clear(&one);
		group_offset_key(&one, what->group_id, o->stream, o->partition);
		add_str(out, buf_bytes(&one));
		buf_clear(&one);
		if (!what->forget)
			group_offset_value(&one, o, what->now_ms);
		buf_add_u32be(out, (uint32_t)buf_len(&one));
		buf_add(out, buf_bytes(&one));
		if (one.err != OK && out->err == OK)
			out->err = one.err;
	}
	buf_fini(&one);
}

/* Says too little about when the group was last in use: see group_expire. */
static enum err renew_row(struct eval *v, struct bytes group_id, int64_t now_ms, int64_t before_ms)
{
	struct group_row row = {.time_ms = INT64_MIN};
	enum err e = row_get(v, group_id, &row);
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	if (row.time_ms >= before_ms)
		return OK;
	row.time_ms = now_ms;
	return put_row(v, group_id, &row);
}

static enum err evaluate_offsets(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	int64_t now_ms = (int64_t)rd_u64be(&r), before_ms = (int64_t)rd_u64be(&r);
	bool forget = rd_u8(&r) != 0;
	struct bytes group_id = take_str(&r);
	enum err e = r.err == OK && group_id.len > 0 ? OK : ERR_MALFORMED;
	if (e == OK && !forget)
		e = renew_row(v, group_id, now_ms, before_ms);
	while (e == OK && rd_left(&r) > 0) {
		struct bytes key = take_str(&r), value = rd_take(&r, rd_u32be(&r));
		if (r.err != OK || key.len == 0)
			e = ERR_MALFORMED;
		else if (forget)
			eval_delete(v, KEYSPACE_GROUP_OFFSET, key);
		else
			eval_put(v, KEYSPACE_GROUP_OFFSET, key, value);
	}
	return e;
}

const struct proposal_kind group_offsets_kind = {PROPOSAL_GROUP_OFFSETS, evaluate_offsets};

/* ---- deleting */

void group_delete_args(
	struct buf *out, struct bytes group_id, bool last, const struct row *rows, int count)
{
	buf_add_u8(out, last);
	add_str(out, group_id);
	for (int i = 0; i < count; i++)
		add_str(out, rows[i].key);
}

static enum err evaluate_delete(struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	bool last = rd_u8(&r) != 0;
	struct bytes group_id = take_str(&r);
	if (r.err != OK || group_id.len == 0)
		return ERR_MALFORMED;
	while (rd_left(&r) > 0) {
		struct bytes key = take_str(&r);
		if (r.err != OK || key.len == 0)
			return ERR_MALFORMED;
		eval_delete(v, KEYSPACE_GROUP_OFFSET, key);
	}
	if (last) {
		eval_delete(v, KEYSPACE_GROUP, group_id);
		eval_delete(v, KEYSPACE_GROUP_STATE, group_id);
	}
	return OK;
}

const struct proposal_kind group_delete_kind = {PROPOSAL_GROUP_DELETE, evaluate_delete};
