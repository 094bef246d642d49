/* How much a tenant may have in the whole cluster: the limits of its quota that count things. They
 * go with a change of the catalogue that adds some, and hold where it is decided, so that no two
 * nodes pass them together. Pure; any thread. */
#ifndef BROKER_TENANT_LIMIT_H
#define BROKER_TENANT_LIMIT_H
#include "cluster/node.h"
#include "server/broker/rights_doc.h"
#include "server/broker/tenant.h"

enum { TENANT_LIMITS_MAX = 8, TENANT_LIMIT_PREFIX_MAX = TENANT_NAME_MAX + 8 };
struct tenant_limits { /* starts as zeros; not to be moved once there are any */
	int count;
	struct meta_limit at[TENANT_LIMITS_MAX];
	uint8_t prefixes[TENANT_LIMITS_MAX][TENANT_LIMIT_PREFIX_MAX];
};
/* Adds the tenant's limit of that kind (QUOTA_STREAMS and those behind it), if it has one and it is
 * not there yet. ERR_TOOBIG: there are as many as a change takes. */
enum err tenant_limit_add(struct tenant_limits *l, const struct catalog *c, struct bytes tenant,
	enum quota_what what) MUST_USE;
/* What it has of that, and may have (-1: no limit), by the catalogue here. */
int64_t tenant_has(const struct catalog *c, struct bytes tenant, enum quota_what what);
int64_t tenant_may_have(const struct catalog *c, struct bytes tenant, enum quota_what what);
/* Whether one more stream with so many partitions would be too much. */
bool tenant_full(const struct catalog *c, struct bytes tenant, int64_t partitions);
/* Those that concern a change of streams or routes. */
void tenant_limits_of(struct tenant_limits *l, const struct catalog *c, const struct meta_op *op);

#endif
