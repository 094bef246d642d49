/* The idx row holds all that delivery does not need the payload for, at a fixed size, so that
 * searches by offset, time, term or bytes read headers alone:
 *
 *	OFFSET SIZE MEANING
 *	0      1    layout, 1
 *	1      1    kind
 *	2      1    flags
 *	3      1    0
 *	4      4    count of records
 *	8      8    term
 *	16     8    base offset
 *	24     8    hybrid clock
 *	32     8    greatest record timestamp up to and with this entry
 *	40     8    payload bytes of the log up to and with this entry
 *	48     4    payload bytes
 *	52     4    CRC-32C of the payload
 *	56     20   origin {cluster 8, partition 4, offset 8}, only with ENTRY_HAS_ORIGIN
 *
 * Term, base offset, timestamp and bytes of the log never fall from one entry to the next, which is
 *what makes the binary searches work. */
#include "storage/entry.h"
#include <stdatomic.h>
#include "server/base/crc32c.h"
#include "server/base/mem.h"

enum {
	ENTRY_LAYOUT = 1,
	ENTRY_FLAGS = ENTRY_HAS_ROWS | ENTRY_HAS_ORIGIN | ENTRY_TRIMMED | ENTRY_COMPACTED
};

static struct entry *entry_alloc(uint32_t part_count)
{
	struct entry *e = mem_new(sizeof *e + part_count * sizeof e->parts[0]);

	atomic_init(&e->refs, 1);
	e->part_count = part_count;
	return e;
}

struct entry *entry_new(const struct slice *parts, uint32_t part_count)
{
	struct entry *e = entry_alloc(part_count);
	uint64_t bytes = 0;
	uint32_t crc = 0;

	for (uint32_t i = 0; i < part_count; i++) {
		e->parts[i] = parts[i];
		if (parts[i].bytes.len == 0)
			continue;
		crc = bytes == 0 ? crc32c(parts[i].bytes) : crc32c_more(crc, parts[i].bytes);
		bytes += parts[i].bytes.len;
	}
	must(bytes <= UINT32_MAX);
	e->head.kind = ENTRY_DATA;
	e->head.payload_bytes = (uint32_t)bytes;
	e->head.payload_crc = crc;
	return e;
}

struct entry *entry_of(
	uint64_t group, uint64_t index, const struct entry_header *head, struct slice *payload)
{
	struct entry *e = entry_alloc(payload != NULL && payload->bytes.len > 0);

	if (e->part_count > 0)
		e->parts[0] = *payload;
	else if (payload != NULL)
		slice_unref(payload); /* no bytes, but a share of what they lay in */
	e->group = group;
	e->index = index;
	e->head = *head;
	return e;
}

bool entry_whole(const struct entry *e)
{
	return e->part_count > 0 || e->head.payload_bytes == 0 || (e->head.flags & ENTRY_TRIMMED);
}

struct entry *entry_ref(struct entry *e)
{
	uint32_t before = atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);

	must(before > 0);
	return e;
}

void entry_unref(struct entry *e)
{
	uint32_t before;

	if (e == NULL)
		return;
	before = atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel);
	must(before > 0);
	if (before > 1)
		return;
	for (uint32_t i = 0; i < e->part_count; i++)
		slice_unref(&e->parts[i]);
	mem_free(e);
}

size_t entry_memory(const struct entry *e)
{
	size_t bytes = sizeof *e + e->part_count * (sizeof e->parts[0] + sizeof(struct chunk));

	for (uint32_t i = 0; i < e->part_count; i++)
		bytes += e->parts[i].bytes.len;
	return bytes;
}

size_t entry_header_encode(const struct entry_header *h, uint8_t *out)
{
	struct wr w = wr_over(out, ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES);

	wr_u8(&w, ENTRY_LAYOUT);
	wr_u8(&w, (uint8_t)h->kind);
	wr_u8(&w, h->flags);
	wr_u8(&w, 0);
	wr_u32be(&w, h->count);
	wr_u64be(&w, h->term);
	wr_u64be(&w, (uint64_t)h->base_offset);
	wr_u64be(&w, (uint64_t)h->hlc);
	wr_u64be(&w, (uint64_t)h->max_ms);
	wr_u64be(&w, h->log_bytes);
	wr_u32be(&w, h->payload_bytes);
	wr_u32be(&w, h->payload_crc);
	must(wr_len(&w) == ENTRY_HEADER_BYTES);
	if (h->flags & ENTRY_HAS_ORIGIN) {
		wr_u64be(&w, h->origin.cluster);
		wr_u32be(&w, h->origin.partition);
		wr_u64be(&w, (uint64_t)h->origin.offset);
	}
	return wr_len(&w);
}

enum err entry_header_decode(struct bytes in, struct entry_header *out)
{
	struct rd r = rd_over(in);
	uint8_t kind;

	memset(out, 0, sizeof *out);
	if (rd_u8(&r) != ENTRY_LAYOUT)
		rd_fail(&r, ERR_MALFORMED);
	kind = rd_u8(&r);
	out->flags = rd_u8(&r);
	if (kind < ENTRY_DATA || kind > ENTRY_CONFIG || (out->flags & ~ENTRY_FLAGS) || rd_u8(&r))
		rd_fail(&r, ERR_MALFORMED);
	out->kind = (enum entry_kind)kind;
	out->count = rd_u32be(&r);
	out->term = rd_u64be(&r);
	out->base_offset = (int64_t)rd_u64be(&r);
	out->hlc = (int64_t)rd_u64be(&r);
	out->max_ms = (int64_t)rd_u64be(&r);
	out->log_bytes = rd_u64be(&r);
	out->payload_bytes = rd_u32be(&r);
	out->payload_crc = rd_u32be(&r);
	if (out->flags & ENTRY_HAS_ORIGIN) {
		out->origin.cluster = rd_u64be(&r);
		out->origin.partition = rd_u32be(&r);
		out->origin.offset = (int64_t)rd_u64be(&r);
	}
	/* Offsets are added to: an end past the greatest offset would be undefined. */
	if (out->base_offset < 0 || out->base_offset > INT64_MAX - (int64_t)UINT32_MAX)
		rd_fail(&r, ERR_MALFORMED);
	return rd_done(&r);
}
