/* Memory for one request at a time: taken piece by piece, given back all at once. Bounded, since
 * what is decoded into it was sized by a peer. Owner: whoever decodes, usually one per loop. */
#ifndef KAFKA_ARENA_H
#define KAFKA_ARENA_H
#include <stddef.h>
#include <stdint.h>
#include "server/base/err.h"

struct arena_block;
struct arena {
	struct arena_block *blocks; /* the newest first */
	uint8_t *at, *end;          /* what is left of the newest */
	size_t held;                /* bytes of all blocks */
	size_t max;                 /* bound of held */
	enum err err;               /* of the last arena_take that gave NULL */
};

void arena_init(struct arena *a, size_t max); /* an idle arena owns no memory */
void arena_fini(struct arena *a);
/* Gives back everything taken; keeps one small block for the next request. */
void arena_reset(struct arena *a);
/* len bytes, not zeroed, aligned for any type of ours; they live until the reset. NULL with
 * a->err: ERR_TOOBIG, ERR_NOMEM. */
void *arena_take(struct arena *a, size_t len) MUST_USE;

#endif
