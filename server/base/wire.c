/* Reading and writing by bytes, without casts of memory to numbers: the compiler makes one load
 * and one swap of the shifts. Both sides fail once and stay failed, so that a decoder is a list
 * of reads with a single check at its end. */
#include "server/base/wire.h"
#include "server/base/mem.h"

static const uint8_t zeros[8];

int bytes_compare(struct bytes a, struct bytes b)
{
	size_t len = a.len < b.len ? a.len : b.len;
	int order = len ? memcmp(a.at, b.at, len) : 0;

	if (order != 0)
		return order;
	return (a.len > b.len) - (a.len < b.len);
}

/* How many bytes the character at p takes, 0 when it is not well formed. The bounds of the
 * second byte keep out long forms, surrogates and what lies above U+10FFFF (RFC 3629 §4). */
static size_t utf8_char(const uint8_t *p, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (left < len)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool bytes_utf8(struct bytes b)
{
	size_t i = 0;

	while (i < b.len) {
		uint64_t eight;

		/* Most text is ASCII: eight bytes without a high bit need no closer look. */
		if (b.len - i >= sizeof eight) {
			memcpy(&eight, b.at + i, sizeof eight);
			if ((eight & 0x8080808080808080u) == 0) {
				i += sizeof eight;
				continue;
			}
		}
		size_t len = utf8_char(b.at + i, b.len - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

struct rd rd_over(struct bytes b)
{
	const uint8_t *at = b.at ? b.at : zeros;

	return (struct rd){at, at + (b.at ? b.len : 0), OK};
}

void rd_fail(struct rd *r, enum err e)
{
	if (r->err == OK)
		r->err = e;
	r->at = r->end;
}

/* Steps over n bytes and gives where they start; NULL when they are not there. */
static const uint8_t *step(struct rd *r, size_t n)
{
	const uint8_t *p = r->at;

	if (r->err != OK || rd_left(r) < n) {
		rd_fail(r, ERR_MALFORMED);
		return NULL;
	}
	r->at += n;
	return p;
}

static const uint8_t *fixed(struct rd *r, size_t n)
{
	const uint8_t *p = step(r, n);

	return p ? p : zeros;
}

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static uint32_t le32(const uint8_t *p)
{
	return le16(p) | (uint32_t)le16(p + 2) << 16;
}
static uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

uint16_t get_u16be(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t get_u32be(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint64_t get_u64be(const uint8_t *p)
{
	return (uint64_t)get_u32be(p) << 32 | get_u32be(p + 4);
}

uint8_t rd_u8(struct rd *r)
{
	return fixed(r, 1)[0];
}
uint16_t rd_u16be(struct rd *r)
{
	return get_u16be(fixed(r, 2));
}
uint32_t rd_u32be(struct rd *r)
{
	return get_u32be(fixed(r, 4));
}
uint64_t rd_u64be(struct rd *r)
{
	return get_u64be(fixed(r, 8));
}
uint16_t rd_u16le(struct rd *r)
{
	return le16(fixed(r, 2));
}
uint32_t rd_u32le(struct rd *r)
{
	return le32(fixed(r, 4));
}
uint64_t rd_u64le(struct rd *r)
{
	return le64(fixed(r, 8));
}

/* The last byte allowed may not carry bits above the width, nor ask for another. */
static uint64_t varint(struct rd *r, unsigned bits)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < bits; shift += 7) {
		const uint8_t *p = step(r, 1);
		if (p == NULL)
			return 0;
		if (bits - shift < 7 && *p >> (bits - shift) != 0)
			break;
		v |= (uint64_t)(*p & 0x7f) << shift;
		if (*p < 0x80)
			return v;
	}
	rd_fail(r, ERR_MALFORMED);
	return 0;
}

uint32_t rd_uvar32(struct rd *r)
{
	return (uint32_t)varint(r, 32);
}
uint64_t rd_uvar64(struct rd *r)
{
	return varint(r, 64);
}

int32_t rd_svar32(struct rd *r)
{
	uint32_t v = rd_uvar32(r);

	return (int32_t)(v >> 1 ^ (0 - (v & 1)));
}

int64_t rd_svar64(struct rd *r)
{
	uint64_t v = rd_uvar64(r);

	return (int64_t)(v >> 1 ^ (0 - (v & 1)));
}

struct bytes rd_take(struct rd *r, size_t len)
{
	const uint8_t *p = step(r, len);

	return p ? bytes_of(p, len) : bytes_of(zeros, 0);
}

struct bytes rd_bytes16(struct rd *r)
{
	return rd_take(r, rd_u16be(r));
}
struct bytes rd_bytes32(struct rd *r)
{
	return rd_take(r, rd_u32be(r));
}
struct bytes rd_rest(struct rd *r)
{
	return rd_take(r, rd_left(r));
}

bool rd_bool(struct rd *r)
{
	uint8_t v = rd_u8(r);

	if (v > 1)
		rd_fail(r, ERR_MALFORMED);
	return v == 1;
}

void rd_skip(struct rd *r, size_t len)
{
	(void)step(r, len);
}

uint32_t rd_count(struct rd *r, uint32_t n, size_t min_each)
{
	if (r->err == OK && n <= rd_left(r) / (min_each ? min_each : 1))
		return n;
	rd_fail(r, ERR_MALFORMED);
	return 0;
}

enum err rd_done(const struct rd *r)
{
	if (r->err != OK)
		return r->err;
	return r->at == r->end ? OK : ERR_MALFORMED;
}

struct wr wr_over(void *at, size_t size)
{
	uint8_t *start = at;

	must(at != NULL || size == 0);
	return (struct wr){start, start, size ? start + size : start, OK};
}

/* Steps over n bytes that the caller fills; NULL when they don't fit. */
static uint8_t *room(struct wr *w, size_t n)
{
	uint8_t *p = w->at;

	if (w->err != OK || (size_t)(w->end - w->at) < n) {
		if (w->err == OK)
			w->err = ERR_TOOBIG;
		return NULL;
	}
	w->at += n;
	return p;
}

void put_u16be(uint8_t *at, uint16_t v)
{
	if (at == NULL)
		return;
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

void put_u32be(uint8_t *at, uint32_t v)
{
	if (at == NULL)
		return;
	at[0] = (uint8_t)(v >> 24);
	at[1] = (uint8_t)(v >> 16);
	at[2] = (uint8_t)(v >> 8);
	at[3] = (uint8_t)v;
}

void put_u64be(uint8_t *at, uint64_t v)
{
	if (at == NULL)
		return;
	put_u32be(at, (uint32_t)(v >> 32));
	put_u32be(at + 4, (uint32_t)v);
}

void wr_u8(struct wr *w, uint8_t v)
{
	uint8_t *p = room(w, 1);

	if (p != NULL)
		*p = v;
}

void wr_u16be(struct wr *w, uint16_t v)
{
	put_u16be(room(w, 2), v);
}
void wr_u32be(struct wr *w, uint32_t v)
{
	put_u32be(room(w, 4), v);
}
void wr_u64be(struct wr *w, uint64_t v)
{
	put_u64be(room(w, 8), v);
}

static void wr_le(struct wr *w, uint64_t v, size_t n)
{
	uint8_t *p = room(w, n);

	for (size_t i = 0; p != NULL && i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

void wr_u16le(struct wr *w, uint16_t v)
{
	wr_le(w, v, 2);
}
void wr_u32le(struct wr *w, uint32_t v)
{
	wr_le(w, v, 4);
}
void wr_u64le(struct wr *w, uint64_t v)
{
	wr_le(w, v, 8);
}

size_t uvar32_size(uint32_t v)
{
	return uvar64_size(v);
}

size_t uvar64_size(uint64_t v)
{
	size_t bits = 64 - (size_t)__builtin_clzll(v | 1);

	return (bits + 6) / 7;
}

void wr_uvar64(struct wr *w, uint64_t v)
{
	uint8_t *p = room(w, uvar64_size(v));

	if (p == NULL)
		return;
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p = (uint8_t)v;
}

void wr_uvar32(struct wr *w, uint32_t v)
{
	wr_uvar64(w, v);
}
void wr_svar32(struct wr *w, int32_t v)
{
	wr_uvar64(w, zigzag32(v));
}
void wr_svar64(struct wr *w, int64_t v)
{
	wr_uvar64(w, zigzag64(v));
}

void wr_bytes(struct wr *w, struct bytes b)
{
	uint8_t *p = room(w, b.len);

	if (p != NULL && b.len > 0)
		memcpy(p, b.at, b.len);
}

void wr_text(struct wr *w, const char *text)
{
	wr_bytes(w, bytes_text(text));
}

uint8_t *wr_hole(struct wr *w, size_t len)
{
	uint8_t *p = room(w, len);

	if (p != NULL && len > 0)
		memset(p, 0, len);
	return p;
}
