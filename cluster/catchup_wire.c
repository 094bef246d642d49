/* Writers and readers of catch-up's messages side by side; the layouts are in the header. Readers
 * check lengths, kinds and checksums; whether entries follow each other and rows are in order is
 * for the one who holds what came before. */
#include "cluster/catchup_wire.h"
#include "server/base/crc32c.h"
#include "server/base/mem.h"

enum { CRC_AT = 4, CRC_FROM = 8 };

/* --- questions --- */

static void write_next(struct wr *w, const struct catchup_question *q)
{
	wr_u8(w, (uint8_t)q->part);
	wr_u64be(w, q->index);
	wr_u32be(w, (uint32_t)q->after.len);
	wr_bytes(w, q->after);
}

enum err catchup_question_encode(const struct catchup_question *q, struct slice *out)
{
	struct chunk *c = chunk_try(CATCHUP_QUESTION_HEAD_BYTES + q->after.len);
	struct wr w;

	must(q->after.len <= CATCHUP_KEY_BYTES_MAX);
	if (c == NULL)
		return ERR_NOMEM;
	w = wr_over(c->data, c->size);
	wr_u8(&w, CATCHUP_VERSION);
	wr_u8(&w, (uint8_t)q->what);
	wr_u64be(&w, q->what == CATCHUP_OPEN ? q->index_min : q->session);
	if (q->what == CATCHUP_NEXT)
		write_next(&w, q);
	if (q->what == CATCHUP_CLOSE)
		wr_u8(&w, q->whole);
	must(w.err == OK);
	*out = (struct slice){c, bytes_of(c->data, wr_len(&w))};
	return OK;
}

static void read_next(struct rd *r, struct catchup_question *out)
{
	uint8_t part = rd_u8(r);

	out->part = part == CATCHUP_ROWS ? CATCHUP_ROWS : CATCHUP_LOG;
	out->index = rd_u64be(r);
	out->after = rd_take(r, rd_u32be(r));
	if (out->after.len > CATCHUP_KEY_BYTES_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (part != CATCHUP_LOG && part != CATCHUP_ROWS)
		rd_fail(r, ERR_MALFORMED);
	if (part == CATCHUP_LOG ? out->index == 0 || out->after.len != 0 : out->index != 0)
		rd_fail(r, ERR_MALFORMED);
}

static enum err check_version(struct rd *r)
{
	uint8_t version = rd_u8(r);

	if (r->err == OK && version != CATCHUP_VERSION)
		rd_fail(r, ERR_UNSUPPORTED);
	return r->err;
}

enum err catchup_question_decode(struct bytes in, struct catchup_question *out)
{
	struct rd r = rd_over(in);
	uint8_t what;

	*out = (struct catchup_question){0};
	if (check_version(&r) != OK)
		return r.err;
	what = rd_u8(&r);
	switch (what) {
	case CATCHUP_OPEN: out->index_min = rd_u64be(&r); break;
	case CATCHUP_NEXT:
		out->session = rd_u64be(&r);
		read_next(&r, out);
		break;
	case CATCHUP_CLOSE:
		out->session = rd_u64be(&r);
		what = rd_u8(&r);
		out->whole = what == 1;
		if (what > 1)
			rd_fail(&r, ERR_MALFORMED);
		what = CATCHUP_CLOSE;
		break;
	default: rd_fail(&r, ERR_MALFORMED);
	}
	out->what = (enum catchup_what)what;
	return rd_done(&r);
}

/* --- the answer to open --- */

static void write_state(struct wr *w, const struct plog_state *s)
{
	wr_u64be(w, s->index);
	wr_u64be(w, s->term);
	wr_u64be(w, (uint64_t)s->next_offset);
	wr_u64be(w, (uint64_t)s->max_ms);
	wr_u64be(w, s->bytes);
	wr_u64be(w, (uint64_t)s->hlc);
}

static void read_state(struct rd *r, struct plog_state *s)
{
	s->index = rd_u64be(r);
	s->term = rd_u64be(r);
	s->next_offset = (int64_t)rd_u64be(r);
	s->max_ms = (int64_t)rd_u64be(r);
	s->bytes = rd_u64be(r);
	s->hlc = (int64_t)rd_u64be(r);
}

enum err catchup_opened_encode(const struct catchup_opened *o, struct slice *out)
{
	uint8_t head[123];
	struct wr w = wr_over(head, sizeof head);
	struct chunk *c;

	must(o->config.len <= CATCHUP_CONFIG_BYTES_MAX);
	wr_u8(&w, CATCHUP_VERSION);
	wr_u64be(&w, o->session);
	write_state(&w, &o->first);
	write_state(&w, &o->last);
	wr_u64be(&w, (uint64_t)o->first_offset);
	wr_u64be(&w, o->config_index);
	wr_u16be(&w, (uint16_t)o->config.len);
	must(w.err == OK && wr_len(&w) == sizeof head);
	c = chunk_try(sizeof head + o->config.len);
	if (c == NULL)
		return ERR_NOMEM;
	memcpy(c->data, head, sizeof head);
	if (o->config.len > 0)
		memcpy(c->data + sizeof head, o->config.at, o->config.len);
	*out = (struct slice){c, bytes_of(c->data, sizeof head + o->config.len)};
	return OK;
}

static bool state_grows(const struct plog_state *a, const struct plog_state *b)
{
	return a->next_offset >= 0 && a->index <= b->index && a->term <= b->term &&
		a->next_offset <= b->next_offset && a->max_ms <= b->max_ms && a->bytes <= b->bytes;
}

enum err catchup_opened_decode(struct bytes in, struct catchup_opened *out)
{
	struct rd r = rd_over(in);

	*out = (struct catchup_opened){0};
	if (check_version(&r) != OK)
		return r.err;
	out->session = rd_u64be(&r);
	read_state(&r, &out->first);
	read_state(&r, &out->last);
	out->first_offset = (int64_t)rd_u64be(&r);
	out->config_index = rd_u64be(&r);
	out->config = rd_take(&r, rd_u16be(&r));
	if (out->session == 0 || out->last.index == 0 || out->last.index == UINT64_MAX ||
		!state_grows(&out->first, &out->last) || out->first_offset < 0 ||
		out->first_offset > out->last.next_offset ||
		out->config.len > CATCHUP_CONFIG_BYTES_MAX || out->config.len == 0 ||
		out->config_index == 0 || out->config_index > out->last.index)
		rd_fail(&r, ERR_MALFORMED);
	return rd_done(&r);
}

/* --- chunks --- */

enum err catchup_chunk_begin(struct catchup_maker *m, size_t room)
{
	m->items = 0;
	m->chunk = chunk_try(CATCHUP_CHUNK_HEAD_BYTES + room);
	if (m->chunk == NULL)
		return ERR_NOMEM;
	m->w = wr_over(m->chunk->data, CATCHUP_CHUNK_HEAD_BYTES + room);
	must(wr_hole(&m->w, CATCHUP_CHUNK_HEAD_BYTES) != NULL);
	return OK;
}

size_t catchup_chunk_room(const struct catchup_maker *m)
{
	return (size_t)(m->w.end - m->w.at);
}

size_t catchup_entry_bytes(const struct entry_header *h, size_t payload_len)
{
	size_t origin = h->flags & ENTRY_HAS_ORIGIN ? ENTRY_ORIGIN_BYTES : 0;

	return 8 + 1 + ENTRY_HEADER_BYTES + origin + 4 + payload_len;
}

size_t catchup_row_bytes(size_t key_len, size_t value_len)
{
	return CATCHUP_ROW_HEAD_BYTES + key_len + value_len;
}

void catchup_chunk_entry(
	struct catchup_maker *m, uint64_t index, const struct entry_header *h, struct bytes payload)
{
	uint8_t head[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	size_t len = entry_header_encode(h, head);

	wr_u64be(&m->w, index);
	wr_u8(&m->w, (uint8_t)len);
	wr_bytes(&m->w, bytes_of(head, len));
	wr_u32be(&m->w, (uint32_t)payload.len);
	wr_bytes(&m->w, payload);
	m->items++;
	must(m->w.err == OK);
}

void catchup_chunk_row(struct catchup_maker *m, struct bytes key, struct bytes value)
{
	wr_u32be(&m->w, (uint32_t)key.len);
	wr_u32be(&m->w, (uint32_t)value.len);
	wr_bytes(&m->w, key);
	wr_bytes(&m->w, value);
	m->items++;
	must(m->w.err == OK);
}

struct slice catchup_chunk_end(
	struct catchup_maker *m, enum catchup_part part, bool last, uint64_t group)
{
	uint8_t *at = m->chunk->data;
	size_t len = wr_len(&m->w);
	struct slice s = {m->chunk, bytes_of(at, len)};

	at[0] = CATCHUP_VERSION;
	at[1] = (uint8_t)part;
	at[2] = last;
	at[3] = 0;
	put_u64be(at + 8, group);
	put_u32be(at + 16, m->items);
	put_u32be(at + CRC_AT, crc32c(bytes_of(at + CRC_FROM, len - CRC_FROM)));
	m->chunk = NULL;
	return s;
}

void catchup_chunk_drop(struct catchup_maker *m)
{
	chunk_unref(m->chunk);
	m->chunk = NULL;
}

enum err catchup_chunk_decode(struct bytes in, struct catchup_chunk *out)
{
	uint8_t part, last, zero;
	uint32_t crc;

	*out = (struct catchup_chunk){.rd = rd_over(in)};
	if (check_version(&out->rd) != OK)
		return out->rd.err;
	part = rd_u8(&out->rd);
	last = rd_u8(&out->rd);
	zero = rd_u8(&out->rd);
	crc = rd_u32be(&out->rd);
	if (out->rd.err == OK && crc != crc32c(bytes_of(in.at + CRC_FROM, in.len - CRC_FROM)))
		return ERR_CORRUPT;
	out->group = rd_u64be(&out->rd);
	out->items = rd_count(&out->rd, rd_u32be(&out->rd), CATCHUP_ROW_HEAD_BYTES);
	if ((part != CATCHUP_LOG && part != CATCHUP_ROWS) || last > 1 || zero != 0)
		rd_fail(&out->rd, ERR_MALFORMED);
	out->part = part == CATCHUP_ROWS ? CATCHUP_ROWS : CATCHUP_LOG;
	out->last = last == 1;
	return out->rd.err;
}

static enum err next_entry(struct rd *r, struct catchup_item *out)
{
	struct bytes head;
	uint32_t wanted;

	out->index = rd_u64be(r);
	head = rd_take(r, rd_u8(r));
	out->payload = rd_take(r, rd_u32be(r));
	if (r->err != OK)
		return r->err;
	if (entry_header_decode(head, &out->head) != OK)
		return ERR_MALFORMED;
	wanted = out->head.flags & ENTRY_TRIMMED ? 0 : out->head.payload_bytes;
	if (out->payload.len != wanted)
		return ERR_MALFORMED;
	if (wanted > 0 && crc32c(out->payload) != out->head.payload_crc)
		return ERR_CORRUPT;
	return OK;
}

static enum err next_row(struct rd *r, struct catchup_item *out)
{
	uint32_t key_len = rd_u32be(r), value_len = rd_u32be(r);

	out->key = rd_take(r, key_len);
	out->value = rd_take(r, value_len);
	if (r->err == OK && (out->key.len == 0 || out->key.len > CATCHUP_KEY_BYTES_MAX))
		return ERR_MALFORMED;
	return r->err;
}

enum err catchup_chunk_next(struct catchup_chunk *c, struct catchup_item *out)
{
	*out = (struct catchup_item){0};
	if (c->items == 0)
		return rd_done(&c->rd) == OK ? ERR_NOTFOUND : ERR_MALFORMED;
	c->items--;
	return c->part == CATCHUP_LOG ? next_entry(&c->rd, out) : next_row(&c->rd, out);
}
