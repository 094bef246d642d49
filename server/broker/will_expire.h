/* Forgetting that a will was published: rows KEYSPACE_QOS2 of packet id 0, which keep it from being
 * published twice by those who do not know of each other, as long as they may not.
 * Thread: its loop. */
#ifndef BROKER_WILL_EXPIRE_H
#define BROKER_WILL_EXPIRE_H
#include "server/broker/sweep.h"

/* Longer than a node may take to find that somebody else has its sessions. */
enum { WILL_KEEP_MS = 600000 };

/* keep: *keep ms; borrowed for good. As sweep_start; s ends with sweep_stop, sweep_free. */
void will_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l);

#endif
