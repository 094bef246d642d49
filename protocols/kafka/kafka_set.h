/* Message sets: how Kafka's clients of before 0.11 write and read records (Produce 0-2, Fetch 0-3;
 * KIP-31, KIP-32). What is stored is record batches v2 all the same: sets become such a batch when
 * they are produced and are made of batches when they are fetched. Pure; any thread. */
#ifndef KAFKA_KAFKA_SET_H
#define KAFKA_KAFKA_SET_H
#include "server/broker/stream.h"

/* Makes one batch, not compressed, of a client's messages, compressed or not. *inflated: the bytes
 * that were unpacked for it, on failure those that may have been. Fails:
 *	ERR_UNSUPPORTED  a newer format, or compressed in a way which that format does not have
 *	ERR_CORRUPT      checksum
 *	ERR_MALFORMED    not whole messages
 *	ERR_INVALID      no messages, or one a client may not send
 *	ERR_RANGE        a time said to be the server's
 *	ERR_TOOBIG       the batch, or what was unpacked, is over bytes_max
 *	ERR_NOMEM */
enum err kafka_set_read(
	struct bytes set, size_t bytes_max, struct slice *batch, size_t *inflated) MUST_USE;

struct kafka_set { /* what a fetch is given */
	struct slice bytes;
	uint32_t count;
	size_t inflated; /* bytes that were unpacked for it */
};
/* Makes a set of the records from offset first on, not compressed, without their headers: as many
 * as bytes_max allows, but one in any case if there is any. The slices hold whole batches as they
 * are stored. magic: 0, without times, or 1. ERR_MALFORMED, ERR_TOOBIG, ERR_NOMEM. */
enum err kafka_set_write(const struct slice *batches, uint32_t count, int64_t first, uint8_t magic,
	size_t bytes_max, struct kafka_set *out) MUST_USE;

#endif
