/* Taking records out of a stored batch. What stays keeps its bytes: offsets and times are told
 * relative to the header, whose base offset, last offset delta, base timestamp, producer and
 * sequence stay, too; the count gets lower, the greatest timestamp is that of what is left, the
 * checksum is made anew and what was compressed is compressed again, the same way. Control batches
 * stay whole. Pure; any thread. */
#ifndef STORAGE_BATCH_FILTER_H
#define STORAGE_BATCH_FILTER_H
#include "storage/record_batch.h"

struct batch_filter { /* decides for each record, in order */
	bool (*keep)(void *arg, const struct record *r, int64_t offset);
	void *arg;
};
enum batch_left { BATCH_WHOLE, BATCH_LESS, BATCH_GONE };

/* Gives out with BATCH_LESS only. ERR_MALFORMED, ERR_TOOBIG: the batch is not one that could have
 * been stored; ERR_NOMEM. */
enum err batch_filter_run(const struct batch *b, const struct batch_filter *f,
	enum batch_left *left, struct slice *out) MUST_USE;

#endif
