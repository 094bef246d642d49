/* Each row says when its newest batch came, by the clock of who led then. */
#include "server/broker/producer_expire.h"
#include "server/broker/keyspace.h"
#include "server/broker/produce.h"

/* What cannot be read may be of a later version. */
static bool is_old(const struct sweep_row *row)
{
	struct producer_row state;
	return producer_row_read(row->value, &state) == OK &&
		row->now_ms - state.time_ms >= row->keep_ms;
}

static enum err evaluate(struct eval *v, struct bytes args);
static const struct proposal_kind kind = {PROPOSAL_SWEEP, evaluate};
static const struct sweep_rule rule = {
	.keyspace = KEYSPACE_PRODUCER, .kind = &kind, .is_old = is_old};

static enum err evaluate(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&rule, v, args);
}

void producer_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l)
{
	sweep_start(s, &rule, keep, node, l);
}
