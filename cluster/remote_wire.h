/* What partitions of different nodes say to each other: bodies of the frames PEER_LEADS,
 * PEER_FOLLOW, PEER_FEED and of the calls PEER_OP_PROPOSE to PEER_OP_INFO. Numbers are big endian.
 * Pure; any thread. Readers check everything, views borrow the input; a count is only what the
 * bytes left can hold. */
#ifndef CLUSTER_REMOTE_WIRE_H
#define CLUSTER_REMOTE_WIRE_H
#include "cluster/partition.h"

enum {
	REMOTE_PROPOSALS_MAX = 4096, /* of a frame */
	REMOTE_ENTRIES_MAX = 4096,   /* of an answer */
	REMOTE_ROWS_MAX = 65536,
};

/* An error's number as sent; what a later version may have is ERR_UNKNOWN. */
enum err remote_err(uint8_t number);

/* --- proposals --- */
/* A stream is what one node sends one leader in one term, numbered without a gap: a frame that is
 * refused is never followed by one of the same stream that is taken. */
struct propose_head {
	uint64_t stream, term;
	uint32_t seq;
	uint16_t count;
};
struct propose_item { /* kind 0: none */
	uint8_t kind;
	bool repeatable;
	struct bytes args, batch;
};
void propose_head_write(struct buf *b, const struct propose_head *h);
/* All but the batch's bytes, which follow. */
void propose_item_write(struct buf *b, const struct propose_item *i);
void propose_head_read(struct rd *r, struct propose_head *out);
void propose_item_read(struct rd *r, struct propose_item *out);

enum propose_verdict { VERDICT_TAKEN = 1, VERDICT_REFUSED = 2, VERDICT_BUSY = 3 };
struct propose_answer { /* TAKEN: count outcomes follow; else nothing of the frame was evaluated */
	enum propose_verdict verdict;
	uint32_t leader; /* as known there, 0: not */
	uint64_t term, stream;
	uint16_t count;
};
enum propose_status {
	STATUS_DONE = 0,
	STATUS_NOT_EVALUATED = 1,
	STATUS_UNSURE = 2 /* evaluated, and then leadership was lost */
};
struct propose_outcome {
	enum propose_status status;
	enum err err;
	int64_t base_offset;
	uint64_t index;
	struct bytes reply;
};
void propose_answer_write(struct buf *b, const struct propose_answer *a);
void propose_answer_read(struct rd *r, struct propose_answer *out);
void propose_outcome_write(struct buf *b, const struct propose_outcome *o);
void propose_outcome_read(struct rd *r, struct propose_outcome *out);

/* --- reads --- */
struct rows_ask {
	uint8_t keyspace;
	bool prefix, linearizable;
	struct bytes key, after;
	uint32_t rows_max, bytes_max;
};
void rows_ask_write(struct buf *b, const struct rows_ask *a);
enum err rows_ask_read(struct bytes in, struct rows_ask *out) MUST_USE;
struct rows_given { /* count rows follow */
	enum err err;
	bool more;
	int64_t at_offset;
	uint32_t count;
};
void rows_given_write(struct buf *b, const struct rows_given *g);
void rows_given_read(struct rd *r, struct rows_given *out);
void rows_row_write(struct buf *b, const struct row *row);
void rows_row_read(struct rd *r, struct row *out);

struct records_ask {
	int64_t offset;
	uint32_t bytes_max;
};
void records_ask_write(struct buf *b, const struct records_ask *a);
enum err records_ask_read(struct bytes in, struct records_ask *out) MUST_USE;
struct records_given { /* count entries follow */
	enum err err;
	int64_t first_offset, high_watermark;
	uint16_t count;
};
void records_given_write(struct buf *b, const struct records_given *g);
void records_given_read(struct rd *r, struct records_given *out);
/* All but the payload, which follows. */
void records_entry_write(struct buf *b, const struct entry *e);
/* Gives an entry that shares frame's chunk for its payload; its checksum was right. */
enum err records_entry_read(
	struct rd *r, struct slice frame, uint64_t group, struct entry **out) MUST_USE;

struct seek_ask {
	bool by_epoch;
	int64_t value; /* a time or an epoch */
};
void seek_ask_write(struct buf *b, const struct seek_ask *a);
enum err seek_ask_read(struct bytes in, struct seek_ask *out) MUST_USE;
struct seek_given {
	enum err err;
	int64_t offset, timestamp_ms;
	int32_t found_epoch;
};
void seek_given_write(struct buf *b, const struct seek_given *g);
enum err seek_given_read(struct bytes in, struct seek_given *out) MUST_USE;

struct point_given {
	enum err err;
	uint64_t index; /* of the last entry committed */
	int64_t offset; /* high watermark after it */
};
void point_given_write(struct buf *b, const struct point_given *g);
enum err point_given_read(struct bytes in, struct point_given *out) MUST_USE;

void info_given_write(struct buf *b, const struct partition_info *i);
/* Sets what info says, not whose it is. */
enum err info_given_read(struct bytes in, struct partition_info *out) MUST_USE;

/* --- who leads --- */
struct lead {
	uint64_t group, term;
	int64_t high_watermark;
};
void leads_write(struct buf *b, const struct lead *l);
/* false: no more. A rest that is too short is ignored. */
bool leads_read(struct rd *r, struct lead *out);

/* --- following --- */
enum follow_flag {
	FOLLOW_START = 1,   /* a new stream, from offset on */
	FOLLOW_ENTRIES = 2, /* else marks only */
	FOLLOW_STOP = 4
};
struct follow { /* also a sign of life; credit: bytes that may be sent beyond those before */
	uint64_t stream;
	uint8_t flags;
	int64_t offset;
	uint32_t credit;
};
void follow_write(struct buf *b, const struct follow *f);
enum err follow_read(struct bytes in, struct follow *out) MUST_USE;
struct feed { /* an entry may follow */
	uint64_t stream, term;
	int64_t first_offset, high_watermark;
	bool entry;
};
void feed_write(struct buf *b, const struct feed *f);
void feed_read(struct rd *r, struct feed *out);

#endif
