/* Retained values: rows KEYSPACE_RETAINED of stream partitions, key = topic. The value holds the
 * record as it is in the log, so that reading it needs no copy. Pure; any thread. */
#ifndef BROKER_RETAINED_H
#define BROKER_RETAINED_H
#include "server/base/buf.h"
#include "server/broker/message.h"

enum { RETAINED_HEADER_BYTES = 1 + 8 + 8 };

/* Layout: version u8 (1), offset u64be (-1: of a memory route), base time u64be, then the encoded
 * record whose time delta refers to that base. */
struct retained_row {
	int64_t offset;
	int64_t base_ms;
	struct bytes record;
};
void retained_row_encode(const struct retained_row *row, struct buf *out);
/* The message in a row's value, borrowed from it. ERR_CORRUPT. */
enum err retained_row_decode(
	struct bytes topic, struct bytes value, struct message *out, int64_t *offset) MUST_USE;

#endif
