/* Ids for idempotent producers: unique for ever, taken from the first table in blocks of 1000, so
 * that asking for one is as a rule an addition. Each loop has a block of its own.
 * Thread: the loop of its shard. */
#ifndef BROKER_PRODUCER_H
#define BROKER_PRODUCER_H
#include "server/broker/broker.h"

enum { PRODUCER_ID_BLOCK = 1000 };

extern const struct proposal_kind producer_ids_kind;

struct producer_ids { /* one per loop */
	struct shard *shard;
	int64_t next, end;   /* what is left of the block */
	struct list waiting; /* producer_id_ask */
	bool asking;
	struct proposal proposal;
};
struct producer_id_ask {
	struct list node; /* private */
	enum err err;
	int64_t id;
	void (*done)(struct producer_id_ask *a); /* may run inside the call */
};
void producer_ids_init(struct producer_ids *p, struct shard *s);
void producer_id_get(struct producer_ids *p, struct producer_id_ask *a);

#endif
