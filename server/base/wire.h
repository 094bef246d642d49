/* Bounded reading of bytes that came from outside and bounded writing of what goes there.
 * The first failure sticks in err; later reads give zero, later writes do nothing. */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "server/base/err.h"

struct bytes { /* borrowed bytes; never owns */
	const uint8_t *at;
	size_t len;
};

static inline struct bytes bytes_of(const void *at, size_t len)
{
	return (struct bytes){(const uint8_t *)at, len};
}
static inline struct bytes bytes_text(const char *text)
{
	return bytes_of(text, strlen(text));
}
static inline bool bytes_equal(struct bytes a, struct bytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}
/* Orders like memcmp; a prefix comes before what it starts. */
int bytes_compare(struct bytes a, struct bytes b);
/* Whether b is well formed UTF-8 (RFC 3629: no surrogates, shortest form only). */
bool bytes_utf8(struct bytes b);

struct rd { /* a reader */
	const uint8_t *at;
	const uint8_t *end;
	enum err err;
};

struct rd rd_over(struct bytes b);
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16be(struct rd *r);
uint32_t rd_u32be(struct rd *r);
uint64_t rd_u64be(struct rd *r);
uint16_t rd_u16le(struct rd *r);
uint32_t rd_u32le(struct rd *r);
uint64_t rd_u64le(struct rd *r);
/* Base-128 varints, least significant group first, at most 5 and 10 bytes. */
uint32_t rd_uvar32(struct rd *r);
uint64_t rd_uvar64(struct rd *r);
/* The same, zigzag coded (Kafka's record fields, protobuf's sint). */
int32_t rd_svar32(struct rd *r);
int64_t rd_svar64(struct rd *r);
struct bytes rd_take(struct rd *r, size_t len);
struct bytes rd_bytes16(struct rd *r); /* behind their length, big endian */
struct bytes rd_bytes32(struct rd *r);
struct bytes rd_rest(struct rd *r);
bool rd_bool(struct rd *r); /* 1 or 0; else ERR_MALFORMED */
void rd_skip(struct rd *r, size_t len);
/* A count read from the wire: fails when n things of at least min_each bytes can't follow. */
uint32_t rd_count(struct rd *r, uint32_t n, size_t min_each);
void rd_fail(struct rd *r, enum err e); /* the first failure wins */
/* ERR_MALFORMED if short, or if bytes are left over. */
enum err rd_done(const struct rd *r) MUST_USE;
static inline size_t rd_left(const struct rd *r)
{
	return (size_t)(r->end - r->at);
}

struct wr { /* a writer over memory of a fixed size; over it: ERR_TOOBIG */
	uint8_t *start;
	uint8_t *at;
	uint8_t *end;
	enum err err;
};

struct wr wr_over(void *at, size_t size);
void wr_u8(struct wr *w, uint8_t v);
void wr_u16be(struct wr *w, uint16_t v);
void wr_u32be(struct wr *w, uint32_t v);
void wr_u64be(struct wr *w, uint64_t v);
void wr_u16le(struct wr *w, uint16_t v);
void wr_u32le(struct wr *w, uint32_t v);
void wr_u64le(struct wr *w, uint64_t v);
void wr_uvar32(struct wr *w, uint32_t v);
void wr_uvar64(struct wr *w, uint64_t v);
void wr_svar32(struct wr *w, int32_t v);
void wr_svar64(struct wr *w, int64_t v);
void wr_bytes(struct wr *w, struct bytes b);
void wr_text(struct wr *w, const char *text); /* without its NUL */
/* Leaves len bytes to be filled later, zeroed; NULL when the writer has failed. */
uint8_t *wr_hole(struct wr *w, size_t len);
static inline size_t wr_len(const struct wr *w)
{
	return (size_t)(w->at - w->start);
}

/* Fixed-width numbers in memory that is known to be there (holes, keys). NULL is ignored. */
void put_u16be(uint8_t *at, uint16_t v);
void put_u32be(uint8_t *at, uint32_t v);
void put_u64be(uint8_t *at, uint64_t v);
uint16_t get_u16be(const uint8_t *at);
uint32_t get_u32be(const uint8_t *at);
uint64_t get_u64be(const uint8_t *at);

/* How many bytes a varint takes. */
size_t uvar32_size(uint32_t v);
size_t uvar64_size(uint64_t v);
static inline uint32_t zigzag32(int32_t v)
{
	return ((uint32_t)v << 1) ^ (uint32_t)(v >> 31);
}
static inline uint64_t zigzag64(int64_t v)
{
	return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

#endif
