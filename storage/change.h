/* A change: what one entry does, atomically: puts and deletes of rows, then record batches.
 * Encoded form: version u8, 0 u8, row_bytes u32be; the rows; whole batches to the end.
 * A row: op u8 (1 put, 2 delete), keyspace u8, key length u16be, key, and for a put value length
 * u32be, value. Pure; any thread. */
#ifndef STORAGE_CHANGE_H
#define STORAGE_CHANGE_H
#include "storage/entry.h"
#include "storage/record_batch.h"

enum { CHANGE_HEADER_BYTES = 6 };
enum row_op { ROW_PUT = 1, ROW_DELETE = 2 };

struct row_change {
	enum row_op op;
	uint8_t keyspace;
	struct bytes key, value;
};

/* Collects rows; the bytes become the first part of an entry. */
void change_begin(struct buf *b); /* writes the header */
void change_add_row(struct buf *b, const struct row_change *row);
struct slice change_end(struct buf *b); /* fills the header, shares the bytes, clears b */

/* Walks. Both check everything: entries come from disk and peers. */
struct change_rows {
	struct rd rd;
};
enum err change_rows_init(struct change_rows *w, const struct entry *e) MUST_USE;
enum err change_rows_next(
	struct change_rows *w, struct row_change *out) MUST_USE; /* ERR_NOTFOUND: end */

struct change_batches {
	const struct entry *entry;
	uint32_t part;
	size_t at;
};
void change_batches_init(struct change_batches *w, const struct entry *e);
/* Gives the next batch; ERR_NOTFOUND: end, ERR_MALFORMED. *holder: the slice whose chunk backs it.
 */
enum err change_batches_next(
	struct change_batches *w, struct batch *out, const struct slice **holder) MUST_USE;

#endif
