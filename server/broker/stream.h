/* What doors that speak of streams, partitions and offsets need beside node.h: committed records of
 * a partition as they are stored, by reference, and the settings of a stream.
 * Thread: the loop that asks. */
#ifndef BROKER_STREAM_H
#define BROKER_STREAM_H
#include "server/broker/broker.h"

struct stream_read {             /* embed; one read */
	struct record_read read; /* private */
	struct partition *from;
	int64_t offset;
	size_t bytes_max;     /* whole batches; the first is given even if it is larger */
	enum err err;         /* ERR_RANGE */
	struct slice *slices; /* whole batches, in order; the first holds offset */
	uint32_t count;
	size_t bytes;
	int64_t next_offset; /* after the last batch given, or what was found empty */
	int64_t first_offset, high_watermark;
	void (*done)(struct stream_read *r);
};
void stream_read(struct stream_read *r); /* any loop; done there, never inside the call */
void stream_read_fini(struct stream_read *r);

/* The value set for a stream, or NULL. */
const char *stream_setting(const struct stream *s, const char *key);
/* The largest batch the stream takes. */
int64_t stream_bytes_max(const struct stream *s, const struct broker_conf *conf);
bool stream_append_time(const struct stream *s); /* records get the server's time */
struct partition *stream_partition(const struct stream *s, int64_t index); /* NULL: none */

#endif
