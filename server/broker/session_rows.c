/* Rows are written by appending, counts into holes that are filled at the end, and checked as a
 * whole when read, so that the accessors need no error path. */
#include "server/broker/session_rows.h"
#include "server/base/mem.h"

enum {
	ROW_VERSION = 3,
	ROW_VERSION_ALONE = 2,
	CURSOR_VERSION = 1,
	FLAG_CONNECTED = 1,
	SUB_BYTES_MIN = 2 + 1 + 4 + 2,
	PLACE_BYTES = 16,
	INFLIGHT_BYTES = 2 + 1 + 16,
	INFLIGHT_RETAINED = 0x80
};

/* A hole of len bytes at the end; its place from the start of out. */
static size_t hole(struct buf *out, size_t len)
{
	size_t mark = buf_len(out);
	uint8_t *at = buf_room(out, len);
	if (at != NULL) {
		memset(at, 0, len);
		buf_claim(out, len);
	}
	return mark;
}
static uint8_t *hole_at(struct buf *out, size_t mark)
{
	return out->err == OK ? out->chunk->data + out->start + mark : NULL;
}

static void add_head(struct buf *out, const struct session_row *row)
{
	must(row->group_count <= UINT16_MAX);
	buf_add_u8(out, ROW_VERSION);
	buf_add_u8(out, row->connected ? FLAG_CONNECTED : 0);
	buf_add_u64be(out, row->epoch);
	buf_add_u64be(out, row->born);
	buf_add_u32be(out, row->owner.node);
	buf_add_u64be(out, row->owner.boot);
	buf_add_u32be(out, row->expiry_s);
	buf_add_u64be(out, (uint64_t)row->since_ms);
	buf_add_u16be(out, (uint16_t)row->group_count);
}

void session_row_again(struct buf *out, const struct session_row *row)
{
	add_head(out, row);
	buf_add(out, row->groups);
	buf_add_u32be(out, row->subscription_count);
	buf_add(out, row->subscriptions);
}

void session_row_begin(struct buf *out, const struct session_row *row, const uint64_t *groups)
{
	add_head(out, row);
	for (uint32_t i = 0; i < row->group_count; i++)
		buf_add_u64be(out, groups[i]);
}

size_t session_row_subs_begin(struct buf *out)
{
	return hole(out, 4);
}
void session_row_subs_end(struct buf *out, size_t mark, uint32_t count)
{
	put_u32be(hole_at(out, mark), count);
}

static void add_place(struct buf *out, struct session_place p)
{
	buf_add_u64be(out, p.group);
	buf_add_u64be(out, (uint64_t)p.offset);
}

size_t session_row_sub_begin(struct buf *out, const struct session_row_sub *sub)
{
	must(sub->filter.len <= UINT16_MAX);
	buf_add_u16be(out, (uint16_t)sub->filter.len);
	buf_add(out, sub->filter);
	buf_add_u8(out, (uint8_t)(sub->qos | sub->no_local << 2 | sub->retain_as_published << 3));
	buf_add_u32be(out, sub->id);
	return hole(out, 2);
}
void session_row_sub_start(struct buf *out, struct session_place start)
{
	add_place(out, start);
}
void session_row_sub_end(struct buf *out, size_t mark, uint16_t starts)
{
	put_u16be(hole_at(out, mark), starts);
}

static struct session_place rd_place(struct rd *r)
{
	struct session_place p = {rd_u64be(r), 0};
	p.offset = (int64_t)rd_u64be(r);
	return p;
}

static void rd_sub(struct rd *r, struct session_row_sub *out)
{
	out->filter = rd_take(r, rd_u16be(r));
	uint8_t options = rd_u8(r);
	if (options > 0xf || (options & 3) == 3)
		rd_fail(r, ERR_CORRUPT);
	out->qos = options & 3;
	out->no_local = options >> 2 & 1;
	out->retain_as_published = options >> 3 & 1;
	out->id = rd_u32be(r);
	out->start_count = rd_count(r, rd_u16be(r), PLACE_BYTES);
	out->starts = rd_take(r, (size_t)out->start_count * PLACE_BYTES);
}

static void rd_head(struct rd *r, struct session_row *out)
{
	uint8_t version = rd_u8(r), flags = rd_u8(r);
	if ((version != ROW_VERSION && version != ROW_VERSION_ALONE) || flags > FLAG_CONNECTED)
		rd_fail(r, ERR_CORRUPT);
	*out = (struct session_row){.connected = flags & FLAG_CONNECTED};
	out->epoch = rd_u64be(r);
	out->born = rd_u64be(r);
	if (version != ROW_VERSION_ALONE) {
		out->owner.node = rd_u32be(r);
		out->owner.boot = rd_u64be(r);
	}
	out->expiry_s = rd_u32be(r);
	out->since_ms = (int64_t)rd_u64be(r);
}

enum err session_row_head(struct bytes in, struct session_row *out)
{
	struct rd r = rd_over(in);
	rd_head(&r, out);
	return r.err == OK ? OK : ERR_CORRUPT;
}

enum err session_row_read(struct bytes in, struct session_row *out)
{
	struct rd r = rd_over(in);
	rd_head(&r, out);
	out->group_count = rd_count(&r, rd_u16be(&r), 8);
	out->groups = rd_take(&r, (size_t)out->group_count * 8);
	out->subscription_count = rd_count(&r, rd_u32be(&r), SUB_BYTES_MIN);
	out->subscriptions = bytes_of(r.at, rd_left(&r));
	for (uint32_t i = 0; i < out->subscription_count && r.err == OK; i++) {
		struct session_row_sub sub;
		rd_sub(&r, &sub);
	}
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

uint64_t session_row_group(const struct session_row *row, uint32_t index)
{
	must(index < row->group_count);
	return get_u64be(row->groups.at + (size_t)index * 8);
}

bool session_row_next(struct bytes *rest, struct session_row_sub *out)
{
	if (rest->len == 0)
		return false;
	struct rd r = rd_over(*rest);
	rd_sub(&r, out);
	must(r.err == OK);
	*rest = bytes_of(r.at, rd_left(&r));
	return true;
}

static struct session_place place_at(const uint8_t *at)
{
	return (struct session_place){get_u64be(at), (int64_t)get_u64be(at + 8)};
}

struct session_place session_row_start(const struct session_row_sub *sub, uint32_t index)
{
	must(index < sub->start_count);
	return place_at(sub->starts.at + (size_t)index * PLACE_BYTES);
}

int64_t session_row_ends_ms(const struct session_row *row, int64_t now_ms)
{
	if (row->expiry_s == SESSION_NEVER)
		return INT64_MAX;
	return (row->connected ? now_ms : row->since_ms) + (int64_t)row->expiry_s * 1000;
}

size_t cursor_row_begin(struct buf *out)
{
	buf_add_u8(out, CURSOR_VERSION);
	return hole(out, 4);
}
void cursor_row_position(struct buf *out, struct session_place place)
{
	add_place(out, place);
}

/* A held QoS 2 message leaves as soon as this row is in the log: a reader of the row must take it
 * as sent. */
static uint8_t saved_state(const struct window_entry *e)
{
	if (e->state == WINDOW_HELD2)
		return WINDOW_SENT2;
	return e->state == WINDOW_HELD1 && e->again ? WINDOW_SENT1 : e->state;
}

void cursor_row_end(struct buf *out, size_t mark, uint32_t positions, const struct window *w)
{
	put_u32be(hole_at(out, mark), positions);
	size_t count_at = hole(out, 4);
	uint32_t count = 0;
	uint16_t id = 0;
	struct window_entry *e;
	while ((e = window_next(w, &id)) != NULL) {
		if (e->offset < 0)
			continue; /* of no log: it cannot be read again */
		buf_add_u16be(out, id);
		buf_add_u8(out, (uint8_t)(saved_state(e) | (e->retained ? INFLIGHT_RETAINED : 0)));
		add_place(out, (struct session_place){e->group, e->offset});
		count++;
	}
	put_u32be(hole_at(out, count_at), count);
}

enum err cursor_row_read(struct bytes in, struct cursor_row *out)
{
	struct rd r = rd_over(in);
	if (rd_u8(&r) != CURSOR_VERSION)
		return ERR_CORRUPT;
	out->position_count = rd_count(&r, rd_u32be(&r), PLACE_BYTES);
	out->positions = rd_take(&r, (size_t)out->position_count * PLACE_BYTES);
	out->inflight_count = rd_count(&r, rd_u32be(&r), INFLIGHT_BYTES);
	out->inflight = rd_take(&r, (size_t)out->inflight_count * INFLIGHT_BYTES);
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

struct session_place cursor_row_position_at(const struct cursor_row *row, uint32_t index)
{
	must(index < row->position_count);
	return place_at(row->positions.at + (size_t)index * PLACE_BYTES);
}

struct cursor_inflight cursor_row_inflight_at(const struct cursor_row *row, uint32_t index)
{
	must(index < row->inflight_count);
	struct rd r = rd_over(row->inflight);
	rd_skip(&r, (size_t)index * INFLIGHT_BYTES);
	struct cursor_inflight out = {.packet_id = rd_u16be(&r)};
	uint8_t state = rd_u8(&r);
	struct session_place p = rd_place(&r);
	out.entry = (struct window_entry){.offset = p.offset,
		.group = p.group,
		.state = state & (uint8_t)~INFLIGHT_RETAINED,
		.retained = state & INFLIGHT_RETAINED};
	return out;
}
