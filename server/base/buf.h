/* Payload memory. A chunk is a refcounted run of bytes, written by the one who made it and
 * immutable once shared; a slice is a view that holds a share. A buf is a growable contiguous
 * buffer with a bound, for building things of unknown size. Chunks may cross threads. */
#ifndef BASE_BUF_H
#define BASE_BUF_H
#include "server/base/wire.h"

struct chunk {
	_Atomic uint32_t refs;
	uint32_t size; /* of data */
	uint8_t data[];
};

struct chunk *chunk_try(size_t size) MUST_USE; /* one share; NULL: no memory, or over 1 GiB */
struct chunk *chunk_ref(struct chunk *c);
void chunk_unref(struct chunk *c); /* NULL is fine */

struct slice {
	struct chunk *chunk; /* NULL: static or empty bytes */
	struct bytes bytes;
};

/* Shares c for the bytes, which lie within it. */
struct slice slice_of(struct chunk *c, struct bytes b);
/* Copies b to a chunk of its own. ERR_NOMEM. */
enum err slice_copy(struct bytes b, struct slice *out) MUST_USE;
struct slice slice_ref(struct slice s);
void slice_unref(struct slice *s); /* and empties it */

struct buf {
	struct chunk *chunk; /* NULL while empty: an idle buf owns no memory */
	size_t start, end;   /* the bytes held, within chunk->data */
	size_t max;          /* bound of end - start, in bytes */
	enum err err;        /* sticky: ERR_TOOBIG, ERR_NOMEM */
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}
static inline struct bytes buf_bytes(const struct buf *b)
{
	return b->chunk ? bytes_of(b->chunk->data + b->start, b->end - b->start)
			: bytes_of(NULL, 0);
}
/* Room for len more bytes, to be written at the pointer given and then claimed with
 * buf_claim; NULL (and b->err) when over max or out of memory. Never moves shared bytes: if
 * the chunk has been shared by buf_share the contents move to a new one first. */
uint8_t *buf_room(struct buf *b, size_t len);
void buf_claim(struct buf *b, size_t len);
void buf_add(struct buf *b, struct bytes bytes);
void buf_add_u8(struct buf *b, uint8_t v);
void buf_add_u16be(struct buf *b, uint16_t v);
void buf_add_u32be(struct buf *b, uint32_t v);
void buf_add_u64be(struct buf *b, uint64_t v);
void buf_add_uvar32(struct buf *b, uint32_t v);
void buf_add_uvar64(struct buf *b, uint64_t v);
void buf_add_svar32(struct buf *b, int32_t v);
void buf_add_svar64(struct buf *b, int64_t v);
void buf_add_bool(struct buf *b, bool yes);              /* read by rd_bool */
void buf_add_bytes16(struct buf *b, struct bytes bytes); /* length, bytes; ERR_TOOBIG */
void buf_add_bytes32(struct buf *b, struct bytes bytes);
void buf_add_text(struct buf *b, const char *text);
/* printf-like; only for words we make ourselves (metrics, JSON by hand is forbidden). */
void buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Drops len bytes from the front; frees the chunk when nothing is left. */
void buf_consume(struct buf *b, size_t len);
/* A view of the bytes held that shares the chunk. */
struct slice buf_share(struct buf *b);
void buf_clear(struct buf *b); /* empties it, err too */

#endif
