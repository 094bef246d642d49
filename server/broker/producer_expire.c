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

static enum err judge(struct sweep *s, struct sweep_row *row, enum sweep_word *word)
{
	struct producer_row state;
	if (producer_row_read(row->value, &state) == OK &&
		row->now_ms - state.time_ms >= keep_ms(s))
		*word = SWEEP_DELETE;
	return OK; /* what cannot be read may be of a later version */
}

static int64_t period_ms(const struct sweep *s)
{
	return expire_period_ms(keep_ms(s));
}

static const struct sweep_rule rule = {
	.keyspace = KEYSPACE_PRODUCER, .judge = judge, .period_ms = period_ms};

void producer_expire_start(struct sweep *s, const int64_t *keep, struct node *node, struct loop *l)
{
	sweep_start(s, &rule, keep, node, l);
}
