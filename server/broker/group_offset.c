/* Committed offsets as rows, and reading all of a group's. The rows of a group share a prefix, so
 * one ordered scan, page by page, gives them; a stream that is gone leaves rows that no stream of
 * the catalogue answers to, since the key holds its uuid and not its name. */
#include "server/broker/group_home.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"

enum { VALUE_VERSION = 1, PAGE_ROWS = 1000, PAGE_BYTES = 1 << 20, FOUND_MAX = 1000000 };

static void add_prefix(struct buf *out, struct bytes group_id)
{
	buf_add_u16be(out, (uint16_t)group_id.len);
	buf_add(out, group_id);
}

void group_offset_key(
	struct buf *out, struct bytes group_id, const uint8_t stream[16], int32_t partition)
{
	add_prefix(out, group_id);
	buf_add(out, bytes_of(stream, 16));
	buf_add_u32be(out, (uint32_t)partition);
}

void group_offset_value(struct buf *out, const struct group_offset *o, int64_t now_ms)
{
	buf_add_u8(out, VALUE_VERSION);
	buf_add_u64be(out, (uint64_t)o->offset);
	buf_add_u32be(out, (uint32_t)o->epoch);
	buf_add_u64be(out, (uint64_t)now_ms);
	buf_add(out, o->metadata);
}

enum err group_offset_read(struct bytes key, struct bytes value, struct offsets_found *out)
{
	struct rd k = rd_over(key);
	struct rd v = rd_over(value);
	struct bytes metadata;
	*out = (struct offsets_found){0};
	rd_skip(&k, rd_u16be(&k));
	struct bytes stream = rd_take(&k, sizeof out->stream);
	out->partition = (int32_t)rd_u32be(&k);
	if (rd_done(&k) != OK || rd_u8(&v) != VALUE_VERSION)
		return ERR_CORRUPT;
	memcpy(out->stream, stream.at, sizeof out->stream);
	out->offset = (int64_t)rd_u64be(&v);
	out->epoch = (int32_t)rd_u32be(&v);
	out->commit_ms = (int64_t)rd_u64be(&v);
	metadata = rd_take(&v, rd_left(&v));
	if (v.err != OK)
		return ERR_CORRUPT;
	return metadata.len > 0 ? slice_copy(metadata, &out->metadata) : OK;
}

static enum err count(struct offsets_read *r, size_t more)
{
	if (r->held == NULL)
		return OK;
	r->bytes += (int64_t)more;
	*r->held += (int64_t)more;
	return *r->held > r->held_max ? ERR_BUSY : OK;
}

static enum err add_found(struct offsets_read *r, const struct row *row)
{
	enum err e = OK;
	if (r->count == r->room) {
		uint32_t room = r->room ? r->room * 2 : 16;
		struct offsets_found *more = NULL;
		if (room <= FOUND_MAX)
			more = mem_resize(r->found, room * sizeof *more);
		if (more == NULL)
			return ERR_NOMEM;
		e = count(r, (room - r->room) * sizeof *more);
		r->found = more;
		r->room = room;
	}
	if (e == OK)
		e = group_offset_read(row->key, row->value, &r->found[r->count]);
	if (e != OK)
		return e;
	size_t len = r->found[r->count++].metadata.bytes.len;
	return len > 0 ? count(r, len + sizeof(struct chunk)) : OK;
}

static void on_page(struct row_read *rows);

static void read_page(struct offsets_read *r)
{
	r->rows = (struct row_read){
		.from = r->rows.from,
		.keyspace = KEYSPACE_GROUP_OFFSET,
		.prefix = true,
		.linearizable = true,
		.key = buf_bytes(&r->prefix),
		.after = buf_bytes(&r->after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_page,
	};
	partition_read_rows(&r->rows);
}

static void on_page(struct row_read *rows)
{
	struct offsets_read *r = list_entry(rows, struct offsets_read, rows);
	enum err e = rows->err == ERR_NOTFOUND ? OK : rows->err;
	bool more = e == OK && rows->more && rows->count > 0;
	for (int i = 0; i < rows->count && e == OK; i++)
		e = add_found(r, &rows->rows[i]);
	buf_clear(&r->after);
	if (more)
		buf_add(&r->after, rows->rows[rows->count - 1].key);
	row_read_fini(rows);
	if (more && e == OK && r->after.err == OK) {
		read_page(r);
		return;
	}
	r->err = e == OK ? GROUP_OK : e == ERR_NOTLEADER ? GROUP_NOT_HERE : GROUP_UNAVAILABLE;
	r->done(r);
}

/* The node is of no cluster yet. */
static void nowhere(struct loop_msg *m)
{
	on_page(list_entry(m, struct row_read, msg));
}

void offsets_read(struct offsets_read *r, const struct catalog *catalog, struct bytes group_id)
{
	r->found = NULL;
	r->count = r->room = 0;
	r->bytes = 0;
	buf_init(&r->prefix, 1 << 17);
	buf_init(&r->after, 1 << 17);
	add_prefix(&r->prefix, group_id);
	r->rows.from = catalog_table(catalog, group_id);
	if (r->rows.from != NULL) {
		read_page(r);
		return;
	}
	r->rows = (struct row_read){.err = ERR_UNAVAILABLE, .msg.run = nowhere};
	loop_post(loop_here(), &r->rows.msg);
}

void offsets_read_fini(struct offsets_read *r)
{
	for (uint32_t i = 0; i < r->count; i++)
		slice_unref(&r->found[i].metadata);
	mem_free(r->found);
	if (r->held != NULL)
		*r->held -= r->bytes;
	r->found = NULL;
	r->count = r->room = 0;
	r->bytes = 0;
	buf_fini(&r->prefix);
	buf_fini(&r->after);
}
