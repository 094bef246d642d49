/* Each row says when its newest batch came, by the clock of who led then. */
#include "server/broker/producer_expire.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "server/broker/produce.h"

enum { PERIOD_MS_MIN = 200, PERIOD_MS_MAX = 600000, PERIODS_PER_LIFE = 8 };

int64_t expire_period_ms(int64_t keep_ms)
{
	int64_t part = keep_ms / PERIODS_PER_LIFE;
	return part < PERIOD_MS_MIN ? PERIOD_MS_MIN : part > PERIOD_MS_MAX ? PERIOD_MS_MAX : part;
}

static int64_t keep_ms(const struct sweep *s)
{
	const int64_t *keep = s->arg;
	return *keep;
}

/* What cannot be read may be of a later version. */
static bool is_old(const struct sweep_row *row)
{
	struct producer_row state;
	return producer_row_read(row->value, &state) == OK &&
		row->now_ms - state.time_ms >= row->keep_ms;
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

static int64_t period_ms(const struct sweep *s)
{
	return expire_period_ms(keep_ms(s));
}

static enum err evaluate(struct eval *v, struct bytes args);
static const struct proposal_kind kind = {PROPOSAL_SWEEP, evaluate};
static const struct sweep_rule rule = {.keyspace = KEYSPACE_PRODUCER,
	.kind = &kind,
	.judge = judge,
	.decide = decide,
	.keep_ms = keep_ms,
	.period_ms = period_ms};

static enum err evaluate(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&rule, v, args);
}

void producer_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l)
{
	sweep_start(s, &rule, keep, node, l);
}
