/* Two sweeps of the tables. A group's row tells when the group was last in use, give or take a
 * period: it is written with each generation, and again by commits and by the sweep when it is
 * older than that. So what is needed to judge an offset is in the table, and a restart or a new
 * leader, which knows no members yet, does not make a group look forgotten. */
#include "server/broker/group_expire.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "server/broker/producer_expire.h"

/* A stream that this loop does not know may be one it does not know yet. */
enum { STREAM_NEW_MS = 60000 };

static const struct group_expire *of(const struct sweep *s)
{
	return s->arg;
}

static int64_t period_ms(const struct sweep *s)
{
	return expire_period_ms(of(s)->conf->offsets_keep_ms);
}

/* Whether the group's row is older than its time, too; offsets without one go by themselves. */
static enum err group_unused(
	const struct group_expire *x, struct sweep_row *row, struct bytes group_id, bool *unused)
{
	struct bytes found;
	struct group_row group;
	*unused = true;
	if (row->eval == NULL)
		return OK;
	enum err e = eval_get(row->eval, KEYSPACE_GROUP, group_id, &found);
	if (e == OK && group_row_read(found, &group) == OK)
		*unused = row->now_ms - group.time_ms >= x->conf->offsets_keep_ms;
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err judge_offset(struct sweep *s, struct sweep_row *row, enum sweep_word *word)
{
	const struct group_expire *x = of(s);
	struct offsets_found o;
	struct rd key = rd_over(row->key);
	struct bytes group_id = rd_take(&key, rd_u16be(&key));
	bool unused;
	if (group_offset_read(row->key, row->value, &o) != OK)
		return OK; /* of a later version */
	slice_unref(&o.metadata);
	int64_t age = row->now_ms - o.commit_ms;
	const struct catalog *c = node_catalog(x->node, x->loop);
	if (age >= STREAM_NEW_MS && c != NULL && catalog_stream_by_uuid(c, o.stream) == NULL) {
		*word = SWEEP_DELETE;
		return OK;
	}
	if (age < x->conf->offsets_keep_ms || groups_busy(x->groups, row->partition, group_id))
		return OK;
	enum err e = group_unused(x, row, group_id, &unused);
	if (e == OK && unused)
		*word = SWEEP_DELETE;
	return e;
}

/* Two periods later than the offsets: no row of them is left by then, since a commit renews a row
 * that is a period old. */
static enum err judge_group(struct sweep *s, struct sweep_row *row, enum sweep_word *word)
{
	const struct group_expire *x = of(s);
	struct group_row group;
	if (group_row_read(row->value, &group) != OK)
		return OK; /* of a later version */
	int64_t age = row->now_ms - group.time_ms, period = period_ms(s);
	if (groups_busy(x->groups, row->partition, row->key)) {
		if (age >= period) {
			group.time_ms = row->now_ms;
			group_row_write(row->replacement, &group);
			*word = SWEEP_REPLACE;
		}
	} else if (age - 2 * period >= x->conf->offsets_keep_ms) {
		*word = SWEEP_DELETE;
	}
	return OK;
}

static const struct sweep_rule offsets_rule = {.keyspace = KEYSPACE_GROUP_OFFSET,
	.tables = true,
	.judge = judge_offset,
	.period_ms = period_ms};
static const struct sweep_rule rows_rule = {
	.keyspace = KEYSPACE_GROUP, .tables = true, .judge = judge_group, .period_ms = period_ms};

void group_expire_start(struct group_expire *x, struct groups *groups,
	const struct group_conf *conf, struct node *node, struct loop *l)
{
	*x = (struct group_expire){.groups = groups, .conf = conf, .node = node, .loop = l};
	sweep_start(&x->offsets, &offsets_rule, x, node, l);
	sweep_start(&x->rows, &rows_rule, x, node, l);
}

void group_expire_stop(struct group_expire *x)
{
	sweep_stop(&x->offsets);
	sweep_stop(&x->rows);
}

void group_expire_free(struct group_expire *x)
{
	sweep_free(&x->offsets);
	sweep_free(&x->rows);
}
