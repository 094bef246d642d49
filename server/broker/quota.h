/* Counting against quotas: what a user or a tenant has used, on all loops of the node together. A
 * limiter is a few atomic words; what the limits are comes from the caller, so a change of them is
 * in force at once. Limiters are made when a limit first concerns their name and stay until the end
 * of the process: names are an administrator's, and few. Thread: any. */
#ifndef BROKER_QUOTA_H
#define BROKER_QUOTA_H
#include "server/broker/rights_doc.h"

struct quotas;
struct limiter;

struct quotas *quotas_new(void);
void quotas_free(struct quotas *q); /* NULL is fine; nobody uses its limiters any more */
/* The one of that name; made when there is none. Lives as long as q. */
struct limiter *quota_limiter(struct quotas *q, enum quota_kind kind, struct bytes name);

enum { QUOTA_WAIT_MAX_MS = 60000 };
/* n more of what has been used; gives the ms until its user is within the limit again, having
 * had a second's worth in advance: 0 nearly always. limit: a second, -1: none; higher than at the
 * last time: what was owed is forgiven. */
int64_t limiter_charge(
	struct limiter *l, enum quota_what what, int64_t limit, int64_t n, int64_t now_ms);
/* One more connection, unless there are limit already (-1: no limit, they are counted only). */
bool limiter_connect(struct limiter *l, int64_t limit);
void limiter_add_connections(struct limiter *l, int64_t n); /* held before the limit was set */
int64_t limiter_connections(const struct limiter *l);

#endif
