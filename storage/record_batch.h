/* The stored form: Kafka's record batch v2 (magic 2), as https://kafka.apache.org/documentation
 * "Record Batch" lays it out. Reading, building, checking and (de)compressing; no I/O. Any
 * thread. Only base offset and leader epoch are outside the CRC and may be set in place. */
#ifndef STORAGE_RECORD_BATCH_H
#define STORAGE_RECORD_BATCH_H
#include "server/base/buf.h"

/* BATCH_INFLATED_MAX: no stored batch inflates to more, so whoever reads one allows for it; not a
 * setting, or a batch taken under a larger one could not be read any more. */
enum { BATCH_HEADER_BYTES = 61, BATCH_COUNT_MAX = 1000000, BATCH_INFLATED_MAX = 64 << 20 };
enum batch_codec { CODEC_NONE, CODEC_GZIP, CODEC_SNAPPY, CODEC_LZ4, CODEC_ZSTD, CODEC_COUNT };

struct batch {                /* a decoded header over borrowed bytes */
	struct bytes all;     /* header and records, exactly this batch */
	struct bytes records; /* the record section, compressed if codec says so */
	int64_t base_offset;
	int32_t leader_epoch;
	uint32_t crc;
	enum batch_codec codec;
	bool append_time; /* timestamps are the server's (LogAppendTime) */
	bool transactional, control;
	int32_t last_offset_delta;
	int64_t base_ms, max_ms; /* timestamps */
	int64_t producer_id;     /* -1: none */
	int16_t producer_epoch;
	int32_t base_sequence; /* -1: none */
	int32_t count;
};

/* Reads one batch from the front of in. ERR_MORE: in ends within it; ERR_UNSUPPORTED: an older
 * magic; ERR_MALFORMED. Does not check the CRC. */
enum err batch_read(struct bytes in, struct batch *out) MUST_USE;
/* Full check of what a client produced: CRC (ERR_CORRUPT), then that the records (decompressed,
 * at most inflated_max bytes, ERR_TOOBIG) are well formed, count and offset deltas dense
 * (ERR_INVALID), max timestamp as stated. Trailing bytes: ERR_MALFORMED. */
enum err batch_check(const struct batch *b, size_t inflated_max) MUST_USE;
/* The same, whatever the header says the greatest timestamp is; gives what it is. */
enum err batch_check_records(
	const struct batch *b, size_t inflated_max, int64_t *newest_ms) MUST_USE;
/* Sets that field, and computes the CRC anew. */
void batch_set_max_time(uint8_t *batch, size_t len, int64_t ms);
void batch_set_offset(uint8_t *batch, int64_t base_offset, int32_t leader_epoch);
/* Sets LogAppendTime and the time, and computes the CRC anew. */
void batch_set_append_time(uint8_t *batch, size_t len, int64_t ms);
/* The records were replaced: sets length, count and greatest timestamp, computes the CRC anew. */
void batch_set_records(uint8_t *batch, size_t len, int32_t count, int64_t max_ms);
/* Whether every record has a key. What batch_check has found right. */
bool batch_all_keyed(const struct batch *b, size_t inflated_max);

struct record_header {
	struct bytes name, value;
	bool null_value;
};
struct record {
	int32_t offset_delta;
	int64_t timestamp_ms;    /* absolute */
	struct bytes key, value; /* borrowed from the batch (or the walk's inflated copy) */
	bool null_key, null_value;
	int32_t header_count;
	struct bytes headers; /* the encoded headers; walk them with record_header_next */
};
/* Steps over one header; *rest starts as record.headers, steps record.header_count times. */
enum err record_header_next(struct bytes *rest, struct record_header *out) MUST_USE;
/* Finds the first header of that name. ERR_NOTFOUND. */
enum err record_header_find(
	const struct record *r, const char *name, struct record_header *out) MUST_USE;

struct batch_walk { /* iterates the records of one batch */
	struct rd rd;
	struct chunk *inflated; /* owned; NULL when not compressed */
	int64_t base_ms, base_offset;
	bool append_time;
	int64_t max_ms;
	int32_t left;
};
/* ERR_TOOBIG when the records inflate to over inflated_max bytes; ERR_MALFORMED, ERR_NOMEM. */
enum err batch_walk_init(struct batch_walk *w, const struct batch *b, size_t inflated_max) MUST_USE;
void batch_walk_fini(struct batch_walk *w);
/* OK and a record, ERR_NOTFOUND at the end, ERR_MALFORMED. Fast: no allocation. */
enum err batch_walk_next(struct batch_walk *w, struct record *out) MUST_USE;

/* Builds a batch record by record in a buf. Appends are cheap: one pass, CRC at the end. */
struct batch_builder {
	struct buf buf;
	int64_t base_ms, max_ms;
	int32_t count;
	size_t record_at; /* where the newest record starts in buf */
};
void batch_builder_init(struct batch_builder *b, size_t bytes_max);
void batch_builder_fini(struct batch_builder *b);
/* Adds a record with headers given as an array. ERR_TOOBIG (the builder stays as it was),
 * ERR_NOMEM. */
enum err batch_builder_add(struct batch_builder *b, int64_t timestamp_ms, const struct bytes *key,
	const struct bytes *value, const struct record_header *headers,
	int32_t header_count) MUST_USE;
static inline size_t batch_builder_len(const struct batch_builder *b)
{
	return buf_len(&b->buf);
}
/* Finishes header and CRC and gives the bytes; the builder is empty again and reusable.
 * producer_id -1 for none. */
struct slice batch_builder_seal(struct batch_builder *b);

/* Inflates or deflates one block; gives a new chunk (len in *len). ERR_TOOBIG, ERR_MALFORMED,
 * ERR_NOMEM. Snappy is read in both the raw and Java's framed form, written in Java's. */
enum err codec_inflate(
	enum batch_codec c, struct bytes in, size_t max, struct chunk **out, size_t *len) MUST_USE;
enum err codec_deflate(
	enum batch_codec c, struct bytes in, struct chunk **out, size_t *len) MUST_USE;

#endif
