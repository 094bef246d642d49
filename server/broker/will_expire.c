/* Only rows of wills tell when they were put, and only these are looked at; the others of this
 * keyspace go with their packet id or their session. */
#include "server/broker/will_expire.h"
#include "server/broker/keyspace.h"
#include "server/broker/producer_expire.h"
#include "server/broker/publish.h"

static int64_t keep_ms(const struct sweep *s)
{
	const int64_t *keep = s->arg;
	return *keep;
}

static int64_t period_ms(const struct sweep *s)
{
	return expire_period_ms(keep_ms(s));
}

static bool is_old(const struct sweep_row *row)
{
	int64_t put_ms;
	return qos2_row_will(row->key, row->value, &put_ms) && row->now_ms - put_ms >= row->keep_ms;
}

static bool judge(struct sweep *s, const struct partition *p, struct sweep_row *row)
{
	(void)s;
	(void)p;
	return is_old(row);
}

static enum err decide(struct sweep_row *row, enum sweep_word *word)
{
	if (is_old(row))
		*word = SWEEP_DELETE;
	return OK;
}

static enum err evaluate(struct eval *v, struct bytes args);
static const struct proposal_kind kind = {PROPOSAL_SWEEP_QOS2, evaluate};
static const struct sweep_rule rule = {.keyspace = KEYSPACE_QOS2,
	.kind = &kind,
	.judge = judge,
	.decide = decide,
	.keep_ms = keep_ms,
	.period_ms = period_ms};

static enum err evaluate(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&rule, v, args);
}

void will_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l)
{
	sweep_start(s, &rule, keep, node, l);
}
