/* What catch-up says: bodies of PEER_OP_CATCHUP calls and their answers. Pure; any thread.
 *
 * A question begins with version (1) and what is asked; numbers are big endian:
 *
 *	OFFSET SIZE MEANING
 *	0      1    version, 1
 *	1      1    1 open, 2 next, 3 close
 *	open:
 *	2      8    the snapshot must reach this entry
 *	next:
 *	2      8    session
 *	10     1    part: 1 log, 2 rows
 *	11     8    log: the entry wanted; rows: 0
 *	19     4+n  rows: the last key held (keyspace and key), "" for the first; log: ""
 *	close:
 *	2      8    session
 *	10     1    1: all was fetched
 *
 * The answer to open:
 *
 *	0      1    version, 1
 *	1      8    session
 *	9      48   the log below its first entry: index, term, next offset, max ms, bytes, hlc
 *	57     48   the log up to and with the snapshot's entry, likewise
 *	105    8    first offset
 *	113    8    index of the configuration
 *	121    2+n  configuration, as raft_configuration_encode writes it
 *
 * The answer to next, a chunk:
 *
 *	0      1    version, 1
 *	1      1    part
 *	2      1    1: the part ends with this chunk
 *	3      1    0
 *	4      4    CRC-32C of all that follows
 *	8      8    group
 *	16     4    items
 *	then items. Of the log: index 8, header length 1, header (entry.c), payload length 4,
 *payload. Of the rows: key length 4, value length 4, key (keyspace and key), value.
 */
#ifndef CLUSTER_CATCHUP_WIRE_H
#define CLUSTER_CATCHUP_WIRE_H
#include "server/base/buf.h"
#include "storage/plog.h"

enum {
	CATCHUP_VERSION = 1,
	CATCHUP_KEY_BYTES_MAX = 1 + 65536,
	CATCHUP_CONFIG_BYTES_MAX = 16384,
	CATCHUP_QUESTION_HEAD_BYTES = 23, /* all but the key */
	CATCHUP_CHUNK_HEAD_BYTES = 20,
	CATCHUP_ROW_HEAD_BYTES = 8,
	CATCHUP_ENTRY_BYTES_MAX = 8 + 1 + ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES + 4
};
enum catchup_what { CATCHUP_OPEN = 1, CATCHUP_NEXT = 2, CATCHUP_CLOSE = 3 };
enum catchup_part { CATCHUP_LOG = 1, CATCHUP_ROWS = 2 };

struct catchup_question {
	enum catchup_what what;
	uint64_t index_min; /* open */
	uint64_t session;   /* next, close */
	enum catchup_part part;
	uint64_t index;
	struct bytes after;
	bool whole; /* close */
};
/* Gives one slice. ERR_NOMEM. */
enum err catchup_question_encode(const struct catchup_question *q, struct slice *out) MUST_USE;
/* after lies in `in`. ERR_MALFORMED, ERR_UNSUPPORTED: another version. */
enum err catchup_question_decode(struct bytes in, struct catchup_question *out) MUST_USE;

struct catchup_opened {
	uint64_t session;
	struct plog_state first, last;
	int64_t first_offset;
	uint64_t config_index;
	struct bytes config;
};
enum err catchup_opened_encode(const struct catchup_opened *o, struct slice *out) MUST_USE;
/* config lies in `in`. Checks what can be without knowing more: order of indices, offsets, terms.
 */
enum err catchup_opened_decode(struct bytes in, struct catchup_opened *out) MUST_USE;

/* Making a chunk: begin, items, end. */
struct catchup_maker {
	struct chunk *chunk;
	struct wr w;
	uint32_t items;
};
/* room: bytes of items it can hold. ERR_NOMEM. */
enum err catchup_chunk_begin(struct catchup_maker *m, size_t room) MUST_USE;
size_t catchup_chunk_room(const struct catchup_maker *m);
size_t catchup_entry_bytes(const struct entry_header *h, size_t payload_len);
size_t catchup_row_bytes(size_t key_len, size_t value_len);
/* There must be room. */
void catchup_chunk_entry(struct catchup_maker *m, uint64_t index, const struct entry_header *h,
	struct bytes payload);
void catchup_chunk_row(struct catchup_maker *m, struct bytes key, struct bytes value);
/* Gives the chunk. */
struct slice catchup_chunk_end(
	struct catchup_maker *m, enum catchup_part part, bool last, uint64_t group);
void catchup_chunk_drop(struct catchup_maker *m); /* instead of end */

/* Reading one. Items are views of `in`. */
struct catchup_chunk {
	enum catchup_part part;
	bool last;
	uint64_t group;
	uint32_t items;
	struct rd rd;
};
struct catchup_item {
	uint64_t index; /* log */
	struct entry_header head;
	struct bytes payload;
	struct bytes key, value; /* rows */
};
/* ERR_CORRUPT: the checksum; ERR_MALFORMED, ERR_UNSUPPORTED. */
enum err catchup_chunk_decode(struct bytes in, struct catchup_chunk *out) MUST_USE;
/* The next item, its own length and checksum checked. ERR_NOTFOUND: the end; ERR_MALFORMED,
 * ERR_CORRUPT. */
enum err catchup_chunk_next(struct catchup_chunk *c, struct catchup_item *out) MUST_USE;

#endif
