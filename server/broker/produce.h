/* Appending a client's own record batch: checks, the one copy, idempotence. A retried batch of an
 * idempotent producer is answered with the offset it got the first time; the last five batches of
 * each producer id are kept as a row of the partition (KEYSPACE_PRODUCER).
 * Thread: the loop that asks. */
#ifndef BROKER_PRODUCE_H
#define BROKER_PRODUCE_H
#include "server/broker/stream.h"

extern const struct proposal_kind produce_kind; /* of idempotent batches */

struct produce { /* embed; the broker's from produce_start (if it gives OK) until done */
	struct proposal proposal; /* private */
	bool forward; /* set by the caller: to the leader, wherever it is; else ERR_NOTLEADER */
	/* The outcome: */
	enum err err; /* ERR_SEQUENCE, ERR_FENCED, ERR_NOSPACE, ERR_UNKNOWN, ... */
	int64_t base_offset;
	int64_t append_ms; /* the records' time if the server set it, else -1 */
	void (*done)(struct produce *p);
};
/* Borrows batch: one batch of v2, copied once. Fails without done:
 *	ERR_UNSUPPORTED  an older message format
 *	ERR_CORRUPT      checksum, or what does not even look like a batch
 *	ERR_TOOBIG       over the stream's or the node's limit, packed or unpacked
 *	ERR_INVALID      records, counts or attributes a client may not send; where the stream is
 *	                 compacted, a record without a key
 *	ERR_RANGE        timestamps
 *	ERR_NOMEM */
enum err produce_start(struct produce *p, struct shard *s, const struct stream *to,
	struct partition *partition, struct bytes batch) MUST_USE;

/* The rule alone: what the row says about a batch, and the row after it. Pure. */
enum { PRODUCER_BATCHES = 5, PRODUCER_ROW_BYTES = 1 + 2 + 8 + 1 + PRODUCER_BATCHES * 16 };
struct producer_row {
	int16_t epoch;
	int64_t time_ms; /* of the newest batch, the leader's clock */
	int count;       /* oldest first */
	struct {
		int32_t first, last;
		int64_t offset;
	} batches[PRODUCER_BATCHES];
};
enum err producer_row_read(struct bytes in, struct producer_row *out) MUST_USE;
size_t producer_row_write(const struct producer_row *r, uint8_t *out);
/* OK: *duplicate says whether it is there already, at *offset; otherwise r has it at *offset. r
 * with count 0 knows nothing of the producer. ERR_FENCED: an older epoch. ERR_SEQUENCE. */
enum err producer_row_add(struct producer_row *r, int16_t epoch, int32_t first, int32_t last,
	int64_t *offset, bool *duplicate) MUST_USE;

#endif
