/* Chunks are one allocation: the share count, the size, the bytes. A buf owns the tail of its
 * chunk; once a slice of it is out (count above one) the buf leaves the chunk to the slices and
 * goes on in a new one, into which it takes only what it still holds. Consuming first, as the
 * readers of frames do, makes that copy the rest of one frame. */
#include "server/base/buf.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include "server/base/mem.h"

enum { CHUNK_BYTES_MAX = 1 << 30, BUF_BYTES_FIRST = 256 };

struct chunk *chunk_try(size_t size)
{
	struct chunk *c;

	if (size > CHUNK_BYTES_MAX)
		return NULL;
	c = mem_try(sizeof *c + size);
	if (c == NULL)
		return NULL;
	atomic_init(&c->refs, 1);
	c->size = (uint32_t)size;
	return c;
}

struct chunk *chunk_ref(struct chunk *c)
{
	/* Who holds a share keeps the chunk alive: taking another orders nothing. */
	uint32_t before = atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);

	must(before > 0);
	return c;
}

void chunk_unref(struct chunk *c)
{
	uint32_t before;

	if (c == NULL)
		return;
	/* Release: our reads end before the count falls; acquire: the last one sees that of all. */
	before = atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel);
	must(before > 0);
	if (before == 1)
		mem_free(c);
}

struct slice slice_of(struct chunk *c, struct bytes b)
{
	if (c == NULL)
		return (struct slice){NULL, b};
	must(b.len <= c->size);
	must(b.len == 0 || (b.at >= c->data && b.at - c->data + (ptrdiff_t)b.len <= c->size));
	return (struct slice){chunk_ref(c), b};
}

enum err slice_copy(struct bytes b, struct slice *out)
{
	struct chunk *c;

	if (b.len == 0) {
		*out = (struct slice){NULL, bytes_of("", 0)};
		return OK;
	}
	if (b.len > CHUNK_BYTES_MAX)
		return ERR_TOOBIG;
	c = chunk_try(b.len);
	if (c == NULL)
		return ERR_NOMEM;
	memcpy(c->data, b.at, b.len);
	*out = (struct slice){c, bytes_of(c->data, b.len)};
	return OK;
}

struct slice slice_ref(struct slice s)
{
	if (s.chunk != NULL)
		chunk_ref(s.chunk);
	return s;
}

void slice_unref(struct slice *s)
{
	chunk_unref(s->chunk);
	*s = (struct slice){0};
}

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){.max = max < CHUNK_BYTES_MAX ? max : CHUNK_BYTES_MAX};
}

void buf_fini(struct buf *b)
{
	chunk_unref(b->chunk);
	b->chunk = NULL;
	b->start = b->end = 0;
}

void buf_clear(struct buf *b)
{
	b->err = OK;
	buf_consume(b, buf_len(b));
}

static uint8_t *buf_failed(struct buf *b, enum err e)
{
	if (b->err == OK)
		b->err = e;
	return NULL;
}

/* Moves the bytes held to a chunk with room for need bytes in all. */
static enum err buf_move(struct buf *b, size_t need)
{
	size_t size = BUF_BYTES_FIRST;
	struct chunk *c;

	while (size < need)
		size *= 2;
	if (size > b->max)
		size = b->max;
	c = chunk_try(size);
	if (c == NULL)
		return ERR_NOMEM;
	if (buf_len(b) > 0)
		memcpy(c->data, b->chunk->data + b->start, buf_len(b));
	chunk_unref(b->chunk);
	b->chunk = c;
	b->end -= b->start;
	b->start = 0;
	return OK;
}

uint8_t *buf_room(struct buf *b, size_t len)
{
	size_t held = buf_len(b);
	bool shared;

	if (b->err != OK)
		return NULL;
	if (len > b->max - held)
		return buf_failed(b, ERR_TOOBIG);
	/* Acquire: pairs with the release of a reader on another thread that just let go, whose
	 * reads must end before we write over what it read. */
	shared = b->chunk && atomic_load_explicit(&b->chunk->refs, memory_order_acquire) > 1;
	if (b->chunk != NULL && !shared) {
		if (len <= b->chunk->size - b->end)
			return b->chunk->data + b->end;
		/* Move to the front when that frees at least half, so that moves stay rare. */
		if (b->start >= b->chunk->size / 2 && len <= b->chunk->size - held) {
			memmove(b->chunk->data, b->chunk->data + b->start, held);
			b->start = 0;
			b->end = held;
			return b->chunk->data + held;
		}
	}
	if (buf_move(b, held + len) != OK)
		return buf_failed(b, ERR_NOMEM);
	return b->chunk->data + b->end;
}

void buf_claim(struct buf *b, size_t len)
{
	if (len == 0)
		return;
	must(b->chunk != NULL);
	must(len <= b->chunk->size - b->end);
	b->end += len;
}

void buf_add(struct buf *b, struct bytes bytes)
{
	uint8_t *at;

	if (bytes.len == 0)
		return;
	at = buf_room(b, bytes.len);
	if (at == NULL)
		return;
	memcpy(at, bytes.at, bytes.len);
	b->end += bytes.len;
}

void buf_add_u8(struct buf *b, uint8_t v)
{
	buf_add(b, bytes_of(&v, 1));
}

void buf_add_u16be(struct buf *b, uint16_t v)
{
	uint8_t at[2];

	put_u16be(at, v);
	buf_add(b, bytes_of(at, sizeof at));
}

void buf_add_u32be(struct buf *b, uint32_t v)
{
	uint8_t at[4];

	put_u32be(at, v);
	buf_add(b, bytes_of(at, sizeof at));
}

void buf_add_u64be(struct buf *b, uint64_t v)
{
	uint8_t at[8];

	put_u64be(at, v);
	buf_add(b, bytes_of(at, sizeof at));
}

void buf_add_uvar64(struct buf *b, uint64_t v)
{
	uint8_t at[10];
	struct wr w = wr_over(at, sizeof at);

	wr_uvar64(&w, v);
	buf_add(b, bytes_of(at, wr_len(&w)));
}

void buf_add_uvar32(struct buf *b, uint32_t v)
{
	buf_add_uvar64(b, v);
}
void buf_add_svar32(struct buf *b, int32_t v)
{
	buf_add_uvar64(b, zigzag32(v));
}
void buf_add_svar64(struct buf *b, int64_t v)
{
	buf_add_uvar64(b, zigzag64(v));
}
void buf_add_bool(struct buf *b, bool yes)
{
	buf_add_u8(b, yes ? 1 : 0);
}

void buf_add_bytes16(struct buf *b, struct bytes bytes)
{
	if (bytes.len > UINT16_MAX && b->err == OK)
		b->err = ERR_TOOBIG;
	buf_add_u16be(b, (uint16_t)bytes.len);
	buf_add(b, bytes);
}

void buf_add_bytes32(struct buf *b, struct bytes bytes)
{
	if (bytes.len > UINT32_MAX && b->err == OK)
		b->err = ERR_TOOBIG;
	buf_add_u32be(b, (uint32_t)bytes.len);
	buf_add(b, bytes);
}

void buf_add_text(struct buf *b, const char *text)
{
	buf_add(b, bytes_text(text));
}

void buf_addf(struct buf *b, const char *format, ...)
{
	char small[256];
	va_list args;
	int len;
	char *at;

	va_start(args, format);
	len = vsnprintf(small, sizeof small, format, args);
	va_end(args);
	must(len >= 0);
	if ((size_t)len < sizeof small) {
		buf_add(b, bytes_of(small, (size_t)len));
		return;
	}
	/* Not straight into the buf: printf's final NUL may not fit at its bound. */
	at = mem_try((size_t)len + 1);
	if (at == NULL) {
		(void)buf_failed(b, ERR_NOMEM);
		return;
	}
	va_start(args, format);
	(void)vsnprintf(at, (size_t)len + 1, format, args);
	va_end(args);
	buf_add(b, bytes_of(at, (size_t)len));
	mem_free(at);
}

void buf_consume(struct buf *b, size_t len)
{
	must(len <= buf_len(b));
	b->start += len;
	if (b->start < b->end)
		return;
	chunk_unref(b->chunk);
	b->chunk = NULL;
	b->start = b->end = 0;
}

struct slice buf_share(struct buf *b)
{
	return b->chunk ? slice_of(b->chunk, buf_bytes(b)) : (struct slice){NULL, bytes_of("", 0)};
}
