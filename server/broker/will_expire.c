/* Only rows of wills tell when they were put, and only these are looked at; the others of this
 * keyspace go with their packet id or their session. */
#include "server/broker/will_expire.h"
#include "server/broker/keyspace.h"
#include "server/broker/publish.h"

static bool is_old(const struct sweep_row *row)
{
	int64_t put_ms;
	return qos2_row_will(row->key, row->value, &put_ms) && row->now_ms - put_ms >= row->keep_ms;
}

static enum err evaluate(struct eval *v, struct bytes args);
static const struct proposal_kind kind = {PROPOSAL_SWEEP_QOS2, evaluate};
static const struct sweep_rule rule = {.keyspace = KEYSPACE_QOS2, .kind = &kind, .is_old = is_old};

static enum err evaluate(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&rule, v, args);
}

void will_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l)
{
	sweep_start(s, &rule, keep, node, l);
}
