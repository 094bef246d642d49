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

static int64_t keep_ms(const struct sweep *s)
{
	return of(s)->conf->offsets_keep_ms;
}

/* Offsets. One goes when its stream does, or with the others of a group that is not in use. */

enum { WHY_OLD, WHY_STREAM_GONE };

static bool judge_offset(struct sweep *s, const struct partition *p, struct sweep_row *row)
{
	const struct group_expire *x = of(s);
	struct offsets_found o;
	struct rd key = rd_over(row->key);
	struct bytes group_id = rd_take(&key, rd_u16be(&key));
	if (group_offset_read(row->key, row->value, &o) != OK)
		return false; /* of a later version */
	slice_unref(&o.metadata);
	int64_t age = row->now_ms - o.commit_ms;
	const struct catalog *c = node_catalog(x->node, x->loop);
	if (age >= STREAM_NEW_MS && c != NULL && catalog_stream_by_uuid(c, o.stream) == NULL) {
		row->why = WHY_STREAM_GONE;
		return true;
	}
	return age >= row->keep_ms && !groups_busy(x->groups, p, group_id);
}

/* Whether the group's row is older than its time, too; offsets without one go by themselves. */
static enum err group_unused(const struct sweep_row *row, bool *unused)
{
	struct bytes found;
	struct group_row group;
	struct rd key = rd_over(row->key);
	*unused = true;
	enum err e = eval_get(row->eval, KEYSPACE_GROUP, rd_take(&key, rd_u16be(&key)), &found);
	if (e == OK && group_row_read(found, &group) == OK)
		*unused = row->now_ms - group.time_ms >= row->keep_ms;
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err decide_offset(struct sweep_row *row, enum sweep_word *word)
{
	struct offsets_found o;
	bool unused = false;
	enum err e = OK;
	if (group_offset_read(row->key, row->value, &o) != OK)
		return OK;
	slice_unref(&o.metadata);
	int64_t age = row->now_ms - o.commit_ms;
	if (row->why == WHY_STREAM_GONE)
		unused = age >= STREAM_NEW_MS;
	else if (age >= row->keep_ms)
		e = group_unused(row, &unused);
	if (e == OK && unused)
		*word = SWEEP_DELETE;
	return e;
}

/* Groups. Two periods later than the offsets: no row of them is left by then, since a commit renews
 * a row that is a period old. */

enum { WHY_UNUSED, WHY_BUSY };

static bool wants_change(const struct sweep_row *row, struct group_row *group)
{
	if (group_row_read(row->value, group) != OK)
		return false; /* of a later version */
	int64_t age = row->now_ms - group->time_ms, period = expire_period_ms(row->keep_ms);
	return row->why == WHY_BUSY ? age >= period : age - 2 * period >= row->keep_ms;
}

static bool judge_group(struct sweep *s, const struct partition *p, struct sweep_row *row)
{
	struct group_row group;
	row->why = groups_busy(of(s)->groups, p, row->key) ? WHY_BUSY : WHY_UNUSED;
	return wants_change(row, &group);
}

static enum err decide_group(struct sweep_row *row, enum sweep_word *word)
{
	struct group_row group;
	if (!wants_change(row, &group))
		return OK;
	if (row->why != WHY_BUSY) {
		eval_delete(row->eval, KEYSPACE_GROUP_STATE, row->key);
		*word = SWEEP_DELETE;
		return OK;
	}
	group.time_ms = row->now_ms;
	group_row_write(row->replacement, &group);
	*word = SWEEP_REPLACE;
	return OK;
}

static enum err evaluate_offsets(struct eval *v, struct bytes args);
static enum err evaluate_groups(struct eval *v, struct bytes args);
static const struct proposal_kind offsets_kind = {PROPOSAL_SWEEP_OFFSETS, evaluate_offsets};
static const struct proposal_kind groups_kind = {PROPOSAL_SWEEP_GROUPS, evaluate_groups};

static const struct sweep_rule offsets_rule = {.keyspace = KEYSPACE_GROUP_OFFSET,
	.tables = true,
	.kind = &offsets_kind,
	.judge = judge_offset,
	.decide = decide_offset,
	.keep_ms = keep_ms,
	.period_ms = period_ms};
static const struct sweep_rule rows_rule = {.keyspace = KEYSPACE_GROUP,
	.tables = true,
	.kind = &groups_kind,
	.judge = judge_group,
	.decide = decide_group,
	.keep_ms = keep_ms,
	.period_ms = period_ms};

static enum err evaluate_offsets(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&offsets_rule, v, args);
}
static enum err evaluate_groups(struct eval *v, struct bytes args)
{
	return sweep_evaluate(&rows_rule, v, args);
}

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
