/* Producer ids that nobody uses any more: their rows (KEYSPACE_PRODUCER) go some time after the
 * last batch. A producer that comes back later is taken for a new one.
 * Thread: the sweep's loop. */
#ifndef BROKER_PRODUCER_EXPIRE_H
#define BROKER_PRODUCER_EXPIRE_H
#include "server/broker/sweep.h"

/* keep_ms: borrowed for good, a reload changes it. */
void producer_expire_start(
	struct sweep *s, const int64_t *keep_ms, struct node *node, struct loop *l);

#endif
