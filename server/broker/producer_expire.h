/* Producer ids that nobody uses any more: their rows (KEYSPACE_PRODUCER) go some time after the
 * last batch. A producer that comes back later is taken for a new one.
 * Thread: the sweep's loop. */
#ifndef BROKER_PRODUCER_EXPIRE_H
#define BROKER_PRODUCER_EXPIRE_H
#include "server/broker/sweep.h"

/* keep_ms: borrowed for good, a reload changes it. */
void producer_expire_start(
	struct sweep *s, const int64_t *keep_ms, struct node *node, struct loop *l);

/* Of a round over rows that live keep_ms: a fraction of that, ten minutes at the most. */
int64_t expire_period_ms(int64_t keep_ms);

#endif
