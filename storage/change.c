/* A change is written front to back: the rows into a buf that becomes the entry's first part, the
 * batches as parts of their own that share their publishers' chunks. Read back from disk or a
 * peer it may be one part; the walks below see no difference: batches start behind the rows in
 * the first part and no batch lies across two parts. */
#include "storage/change.h"
#include "server/base/mem.h"

enum { CHANGE_VERSION = 1 };

void change_begin(struct buf *b)
{
	must(buf_len(b) == 0);
	buf_add_u8(b, CHANGE_VERSION);
	buf_add_u8(b, 0);
	buf_add_u32be(b, 0);
}

void change_add_row(struct buf *b, const struct row_change *row)
{
	if (row->key.len > UINT16_MAX || row->value.len > UINT32_MAX) {
		b->err = b->err == OK ? ERR_TOOBIG : b->err;
		return;
	}
	buf_add_u8(b, (uint8_t)row->op);
	buf_add_u8(b, row->keyspace);
	buf_add_u16be(b, (uint16_t)row->key.len);
	buf_add(b, row->key);
	if (row->op != ROW_PUT)
		return;
	buf_add_u32be(b, (uint32_t)row->value.len);
	buf_add(b, row->value);
}

struct slice change_end(struct buf *b)
{
	struct slice s = {NULL, {NULL, 0}};

	if (b->err == OK) {
		must(buf_len(b) >= CHANGE_HEADER_BYTES);
		put_u32be(b->chunk->data + b->start + 2,
			(uint32_t)(buf_len(b) - CHANGE_HEADER_BYTES));
		s = buf_share(b);
	}
	buf_clear(b);
	return s;
}

/* Reads the header of the first part; gives the rows. */
static enum err rows_of(struct bytes part, struct bytes *rows)
{
	struct rd r = rd_over(part);

	if (rd_u8(&r) != CHANGE_VERSION || rd_u8(&r) != 0)
		return ERR_MALFORMED;
	*rows = rd_take(&r, rd_u32be(&r));
	return r.err == OK ? OK : ERR_MALFORMED;
}

enum err change_rows_init(struct change_rows *w, const struct entry *e)
{
	struct bytes rows = bytes_of(NULL, 0);
	enum err err = OK;

	if (e->part_count > 0)
		err = rows_of(e->parts[0].bytes, &rows);
	w->rd = rd_over(rows);
	return err;
}

enum err change_rows_next(struct change_rows *w, struct row_change *out)
{
	uint8_t op;

	if (w->rd.err != OK)
		return ERR_MALFORMED;
	if (rd_left(&w->rd) == 0)
		return ERR_NOTFOUND;
	op = rd_u8(&w->rd);
	out->keyspace = rd_u8(&w->rd);
	out->key = rd_take(&w->rd, rd_u16be(&w->rd));
	out->value = bytes_of(NULL, 0);
	if (op == ROW_PUT)
		out->value = rd_take(&w->rd, rd_u32be(&w->rd));
	else if (op != ROW_DELETE)
		rd_fail(&w->rd, ERR_MALFORMED);
	out->op = (enum row_op)op;
	return w->rd.err == OK ? OK : ERR_MALFORMED;
}

void change_batches_init(struct change_batches *w, const struct entry *e)
{
	*w = (struct change_batches){e, 0, 0};
}

enum err change_batches_next(
	struct change_batches *w, struct batch *out, const struct slice **holder)
{
	const struct entry *e = w->entry;
	struct bytes part, rows;
	enum err err;

	if (w->part == 0 && w->at == 0 && e->part_count > 0) {
		if (rows_of(e->parts[0].bytes, &rows) != OK)
			return ERR_MALFORMED;
		w->at = CHANGE_HEADER_BYTES + rows.len;
	}
	while (w->part < e->part_count && w->at == e->parts[w->part].bytes.len) {
		w->part++;
		w->at = 0;
	}
	if (w->part == e->part_count)
		return ERR_NOTFOUND;
	part = e->parts[w->part].bytes;
	err = batch_read(bytes_of(part.at + w->at, part.len - w->at), out);
	if (err != OK || out->all.len == 0)
		return ERR_MALFORMED;
	w->at += out->all.len;
	*holder = &e->parts[w->part];
	return OK;
}
