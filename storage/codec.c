/* Compression of record sections. Every inflater writes to a chunk that grows fourfold up to the
 * bound the caller names, so a small hostile input costs at most that much memory, and the bound
 * is checked before bytes are produced, not after. Nothing is kept between calls: a codec's state
 * lives on the stack or for the length of one call, so any thread may call at any time. */
#include "storage/record_batch.h"
#include "server/base/mem.h"
#include <lz4frame.h>
#include <snappy-c.h>
#define ZLIB_CONST /* input is const */
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
	GROW_FIRST_BYTES = 4096,
	GROW_RATIO = 8,                 /* first guess: output = 8 x input */
	GZIP_WINDOW = 15 + 16,          /* zlib: 32 KiB window, gzip header and trailer only */
	ZSTD_LEVEL = 3,                 /* zstd's own default */
	XERIAL_HEADER_BYTES = 16,       /* magic 8, version 4, oldest compatible version 4 */
	XERIAL_BLOCK_BYTES = 32 * 1024, /* what snappy-java writes */
	CHUNK_BYTES_MAX = 1 << 30
};

/* Java's SnappyOutputStream: magic, version, oldest compatible version. */
static const uint8_t xerial_header[XERIAL_HEADER_BYTES] = {
	0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};

struct grow { /* output of unknown size */
	struct chunk *chunk;
	size_t len;
	size_t max; /* the bound; one byte over it is held, to tell "exactly max" from "more" */
};

static enum err grow_init(struct grow *g, size_t first, size_t max)
{
	if (max >= CHUNK_BYTES_MAX)
		max = CHUNK_BYTES_MAX - 1;
	*g = (struct grow){NULL, 0, max};
	g->chunk = chunk_try(first <= max ? first + 1 : max + 1);
	return g->chunk ? OK : ERR_NOMEM;
}

static size_t grow_guess(struct bytes in)
{
	size_t guess = in.len > CHUNK_BYTES_MAX / GROW_RATIO ? CHUNK_BYTES_MAX
							     : in.len * GROW_RATIO;
	return guess < GROW_FIRST_BYTES ? GROW_FIRST_BYTES : guess;
}

static size_t grow_left(const struct grow *g)
{
	size_t cap = g->chunk->size <= g->max ? g->chunk->size : g->max + 1;
	return cap - g->len;
}

/* A larger chunk with the same contents; ERR_TOOBIG when already at the bound. */
static enum err grow_more(struct grow *g)
{
	size_t size = g->chunk->size;
	if (size > g->max)
		return ERR_TOOBIG;
	size = size > g->max / 4 ? g->max + 1 : size * 4;
	struct chunk *bigger = chunk_try(size);
	if (!bigger)
		return ERR_NOMEM;
	if (g->len > 0)
		memcpy(bigger->data, g->chunk->data, g->len);
	chunk_unref(g->chunk);
	g->chunk = bigger;
	return OK;
}

static enum err grow_end(struct grow *g, enum err e, struct chunk **out, size_t *len)
{
	if (e == OK && g->len > g->max)
		e = ERR_TOOBIG;
	if (e != OK) {
		chunk_unref(g->chunk);
		return e;
	}
	*out = g->chunk;
	*len = g->len;
	return OK;
}

/* Reads gzip members until the input ends; Java writes one, others may join several. */
static enum err gunzip_all(z_stream *z, struct grow *g)
{
	for (;;) {
		size_t room = grow_left(g);
		z->next_out = g->chunk->data + g->len;
		z->avail_out = (uInt)room;
		int rc = inflate(z, Z_NO_FLUSH);
		g->len += room - z->avail_out;
		if (rc == Z_STREAM_END) {
			if (z->avail_in == 0)
				return OK;
			if (inflateReset(z) != Z_OK)
				return ERR_MALFORMED;
			continue;
		}
		if (rc == Z_MEM_ERROR)
			return ERR_NOMEM;
		if (rc != Z_OK && rc != Z_BUF_ERROR)
			return ERR_MALFORMED;
		if (z->avail_out > 0) /* it wants input and there is none */
			return ERR_MALFORMED;
		enum err e = grow_more(g);
		if (e != OK)
			return e;
	}
}

static enum err gzip_inflate(struct bytes in, size_t max, struct chunk **out, size_t *len)
{
	z_stream z = {0};
	z.next_in = in.at;
	z.avail_in = (uInt)in.len;
	struct grow g;
	enum err e = grow_init(&g, grow_guess(in), max);
	if (e != OK)
		return e;
	if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
		return grow_end(&g, ERR_NOMEM, out, len);
	e = gunzip_all(&z, &g);
	(void)inflateEnd(&z);
	return grow_end(&g, e, out, len);
}

static enum err gzip_deflate(struct bytes in, struct chunk **out, size_t *len)
{
	z_stream z = {0};
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8,
		    Z_DEFAULT_STRATEGY) != Z_OK)
		return ERR_NOMEM;
	struct chunk *c = chunk_try(deflateBound(&z, in.len));
	if (!c) {
		(void)deflateEnd(&z);
		return ERR_NOMEM;
	}
	z.next_in = in.at;
	z.avail_in = (uInt)in.len;
	z.next_out = c->data;
	z.avail_out = c->size;
	must(deflate(&z, Z_FINISH) == Z_STREAM_END);
	*len = z.total_out;
	*out = c;
	(void)deflateEnd(&z);
	return OK;
}

/* Raw snappy states its size first, so it is checked before anything is allocated. */
static enum err snappy_block(struct bytes in, struct grow *g)
{
	size_t size;
	if (snappy_uncompressed_length((const char *)in.at, in.len, &size) != SNAPPY_OK)
		return ERR_MALFORMED;
	if (size > g->max - g->len)
		return ERR_TOOBIG;
	while (grow_left(g) < size) {
		enum err e = grow_more(g);
		if (e != OK)
			return e;
	}
	size_t got = size;
	if (snappy_uncompress((const char *)in.at, in.len, (char *)g->chunk->data + g->len, &got) !=
			SNAPPY_OK ||
		got != size)
		return ERR_MALFORMED;
	g->len += size;
	return OK;
}

/*	OFFSET  SIZE  MEANING
 *	0       8     82 'S' 'N' 'A' 'P' 'P' 'Y' 00
 *	8       4     version
 *	12      4     oldest compatible version
 *	16      4     length of a block of raw snappy, big-endian; the block; and so on */
static enum err snappy_inflate(struct bytes in, size_t max, struct chunk **out, size_t *len)
{
	struct grow g;
	enum err e = grow_init(&g, grow_guess(in), max);
	if (e != OK)
		return e;
	if (in.len < XERIAL_HEADER_BYTES || memcmp(in.at, xerial_header, 8) != 0)
		return grow_end(&g, snappy_block(in, &g), out, len);
	struct rd r = rd_over(in);
	rd_skip(&r, XERIAL_HEADER_BYTES);
	while (e == OK && rd_left(&r) > 0) {
		struct bytes block = rd_take(&r, rd_u32be(&r));
		e = r.err != OK ? r.err : snappy_block(block, &g);
	}
	return grow_end(&g, e, out, len);
}

static enum err snappy_deflate(struct bytes in, struct chunk **out, size_t *len)
{
	size_t blocks = in.len / XERIAL_BLOCK_BYTES + 1;
	size_t block_max = snappy_max_compressed_length(XERIAL_BLOCK_BYTES);
	struct chunk *c = chunk_try(XERIAL_HEADER_BYTES + blocks * (4 + block_max));
	if (!c)
		return ERR_NOMEM;
	memcpy(c->data, xerial_header, XERIAL_HEADER_BYTES);
	size_t at = XERIAL_HEADER_BYTES;
	for (size_t from = 0; from < in.len; from += XERIAL_BLOCK_BYTES) {
		size_t part = in.len - from < XERIAL_BLOCK_BYTES ? in.len - from
								 : XERIAL_BLOCK_BYTES;
		size_t got = block_max;
		must(snappy_compress((const char *)in.at + from, part, (char *)c->data + at + 4,
			     &got) == SNAPPY_OK);
		put_u32be(c->data + at, (uint32_t)got);
		at += 4 + got;
	}
	*out = c;
	*len = at;
	return OK;
}

static enum err lz4_read(LZ4F_dctx *d, struct bytes in, struct grow *g)
{
	size_t hint = 1; /* 0: a frame is complete */
	while (in.len > 0 || hint != 0) {
		size_t room = grow_left(g), used = in.len;
		hint = LZ4F_decompress(d, g->chunk->data + g->len, &room, in.at, &used, NULL);
		if (LZ4F_isError(hint))
			return ERR_MALFORMED;
		in = bytes_of(in.at + used, in.len - used);
		g->len += room;
		if (used > 0 || room > 0)
			continue;
		if (grow_left(g) > 0) /* no progress though there is room: input is missing */
			return ERR_MALFORMED;
		enum err e = grow_more(g);
		if (e != OK)
			return e;
	}
	return OK;
}

static enum err lz4_inflate(struct bytes in, size_t max, struct chunk **out, size_t *len)
{
	LZ4F_dctx *d;
	if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
		return ERR_NOMEM;
	struct grow g;
	enum err e = grow_init(&g, grow_guess(in), max);
	if (e == OK)
		e = grow_end(&g, lz4_read(d, in, &g), out, len);
	(void)LZ4F_freeDecompressionContext(d);
	return e;
}

/* Independent 64 KiB blocks: Java's reader refuses linked ones. */
static enum err lz4_deflate(struct bytes in, struct chunk **out, size_t *len)
{
	LZ4F_preferences_t prefs = {
		.frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent}};
	size_t bound = LZ4F_compressFrameBound(in.len, &prefs);
	struct chunk *c = chunk_try(bound);
	if (!c)
		return ERR_NOMEM;
	size_t got = LZ4F_compressFrame(c->data, bound, in.at, in.len, &prefs);
	if (LZ4F_isError(got)) {
		chunk_unref(c);
		return ERR_NOMEM;
	}
	*out = c;
	*len = got;
	return OK;
}

/* One-shot decoding into the output itself, again with a larger one if it did not fit: unlike
 * streaming this needs no window buffer, whose size (up to 128 MB) the peer would choose. */
static enum err zstd_inflate(struct bytes in, size_t max, struct chunk **out, size_t *len)
{
	unsigned long long stated = ZSTD_getFrameContentSize(in.at, in.len);
	if (stated == ZSTD_CONTENTSIZE_ERROR)
		return ERR_MALFORMED;
	bool known = stated != ZSTD_CONTENTSIZE_UNKNOWN;
	if (known && stated > max)
		return ERR_TOOBIG;
	ZSTD_DCtx *d = ZSTD_createDCtx();
	if (!d)
		return ERR_NOMEM;
	struct grow g;
	enum err e = grow_init(&g, known ? (size_t)stated : grow_guess(in), max);
	if (e != OK) {
		(void)ZSTD_freeDCtx(d);
		return e;
	}
	while (e == OK) {
		size_t got = ZSTD_decompressDCtx(d, g.chunk->data, grow_left(&g), in.at, in.len);
		if (!ZSTD_isError(got)) {
			g.len = got;
			break;
		}
		ZSTD_ErrorCode why = ZSTD_getErrorCode(got);
		if (why == ZSTD_error_memory_allocation)
			e = ERR_NOMEM;
		else
			e = why == ZSTD_error_dstSize_tooSmall ? grow_more(&g) : ERR_MALFORMED;
	}
	(void)ZSTD_freeDCtx(d);
	return grow_end(&g, e, out, len);
}

static enum err zstd_deflate(struct bytes in, struct chunk **out, size_t *len)
{
	struct chunk *c = chunk_try(ZSTD_compressBound(in.len));
	if (!c)
		return ERR_NOMEM;
	size_t got = ZSTD_compress(c->data, c->size, in.at, in.len, ZSTD_LEVEL);
	if (ZSTD_isError(got)) {
		chunk_unref(c);
		return ERR_NOMEM;
	}
	*out = c;
	*len = got;
	return OK;
}

static enum err copy_all(struct bytes in, struct chunk **out, size_t *len)
{
	struct chunk *c = chunk_try(in.len > 0 ? in.len : 1);
	if (!c)
		return ERR_NOMEM;
	if (in.len > 0)
		memcpy(c->data, in.at, in.len);
	*out = c;
	*len = in.len;
	return OK;
}

enum err codec_inflate(
	enum batch_codec c, struct bytes in, size_t max, struct chunk **out, size_t *len)
{
	if (in.len > CHUNK_BYTES_MAX)
		return ERR_TOOBIG;
	switch (c) {
	case CODEC_NONE: return in.len > max ? ERR_TOOBIG : copy_all(in, out, len);
	case CODEC_GZIP: return gzip_inflate(in, max, out, len);
	case CODEC_SNAPPY: return snappy_inflate(in, max, out, len);
	case CODEC_LZ4: return lz4_inflate(in, max, out, len);
	case CODEC_ZSTD: return zstd_inflate(in, max, out, len);
	case CODEC_COUNT: break;
	}
	return ERR_UNSUPPORTED;
}

enum err codec_deflate(enum batch_codec c, struct bytes in, struct chunk **out, size_t *len)
{
	if (in.len > CHUNK_BYTES_MAX / 2) /* so that no bound below overflows a chunk */
		return ERR_TOOBIG;
	switch (c) {
	case CODEC_NONE: return copy_all(in, out, len);
	case CODEC_GZIP: return gzip_deflate(in, out, len);
	case CODEC_SNAPPY: return snappy_deflate(in, out, len);
	case CODEC_LZ4: return lz4_deflate(in, out, len);
	case CODEC_ZSTD: return zstd_deflate(in, out, len);
	case CODEC_COUNT: break;
	}
	return ERR_UNSUPPORTED;
}
