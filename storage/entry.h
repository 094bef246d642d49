/* An entry of a group's log: one Raft entry, its header (the idx row) and its payload, which is
 * an encoded change (change.h). Immutable once appended, refcounted, may cross threads. */
#ifndef STORAGE_ENTRY_H
#define STORAGE_ENTRY_H
#include "server/base/buf.h"

enum entry_kind { ENTRY_DATA = 1, ENTRY_BARRIER = 2, ENTRY_CONFIG = 3 };
enum entry_flag {
	ENTRY_HAS_ROWS = 1,   /* the change puts or deletes rows: recovery applies it again */
	ENTRY_HAS_ORIGIN = 2, /* born in another cluster */
	ENTRY_TRIMMED = 4,    /* payload is gone, header stands in for it */
	/* Records were taken out, and its rows, which the store has: offsets and count stay. In the
	 * store of one replica only: no such entry is ever proposed or sent by Raft. */
	ENTRY_COMPACTED = 8
};

struct entry_origin {
	uint64_t cluster;
	uint32_t partition;
	int64_t offset;
};

/* The idx row, fixed size (see entry.c for the layout), ENTRY_HEADER_BYTES. */
enum { ENTRY_HEADER_BYTES = 56, ENTRY_ORIGIN_BYTES = 20 };
struct entry_header {
	uint64_t term;
	enum entry_kind kind;
	uint8_t flags;
	int64_t base_offset; /* offset of the first record; with count 0 the next one's */
	uint32_t count;      /* records */
	int64_t hlc;         /* hybrid clock at append: wall ms << 16 | counter */
	int64_t max_ms;      /* greatest record timestamp of the log up to and with this entry */
	uint32_t payload_bytes;
	uint32_t payload_crc; /* CRC-32C of the payload; 0 bytes: 0 */
	/* Payload bytes of this replica's log up to and with this entry; what was compacted counts
	 * as it was appended. */
	uint64_t log_bytes;
	struct entry_origin origin;
};

struct entry {
	_Atomic uint32_t refs;
	uint32_t part_count;
	uint64_t group, index;
	struct entry_header head;
	struct slice
		parts[]; /* the payload, in order; the first holds the change's header and rows */
};

/* Makes an entry with one share from parts (takes their shares); computes size and crc. */
struct entry *entry_new(const struct slice *parts, uint32_t part_count);
struct entry *entry_ref(struct entry *e);
void entry_unref(struct entry *e); /* NULL is fine */
/* An entry as read back: one part, or none when payload is NULL (the header alone, for entries
 * without or with a trimmed payload, or not read). Takes payload. Does not check the CRC. */
struct entry *entry_of(
	uint64_t group, uint64_t index, const struct entry_header *head, struct slice *payload);
/* Whether the payload is here: false only for a header read without it. */
bool entry_whole(const struct entry *e);
/* What it costs to keep in memory, in bytes. */
size_t entry_memory(const struct entry *e);
size_t entry_header_encode(const struct entry_header *h, uint8_t *out); /* out: header + origin */
enum err entry_header_decode(struct bytes in, struct entry_header *out) MUST_USE;
static inline int64_t entry_next_offset(const struct entry_header *h)
{
	return h->base_offset + (int64_t)h->count;
}

#endif
