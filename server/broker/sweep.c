/* A round walks the catalogue by position: when it changes meanwhile, a partition may be looked at
 * twice or left to the next round, which is all the same. Positions are looked up anew for each
 * page, so no partition is held on to between two.
 *
 * A row is judged twice: as read, to see whether it is worth a proposal, and when the leader
 * evaluates the proposal, against what is pending; so a row renewed in between stays. */
#include "server/broker/sweep.h"
#include "server/base/log.h"
#include "server/base/mem.h"

enum { PAGE_ROWS = 512, PAGE_BYTES = 1 << 18, VALUE_BYTES_MAX = 1 << 21, GAP_MS_MIN = 1 };
enum { ARGS_BYTES_MAX = 8 + SWEEP_SLICE * (3 + UINT16_MAX) };

enum { PERIOD_MS_MIN = 200, PERIOD_MS_MAX = 600000, PERIODS_PER_LIFE = 8 };

int64_t expire_period_ms(int64_t keep_ms)
{
	int64_t part = keep_ms / PERIODS_PER_LIFE;
	return part < PERIOD_MS_MIN ? PERIOD_MS_MIN : part > PERIOD_MS_MAX ? PERIOD_MS_MAX : part;
}

static int64_t life_ms(const struct sweep *s)
{
	return s->rule->is_old == NULL ? s->rule->keep_ms(s) : *(const int64_t *)s->arg;
}
static int64_t round_ms(const struct sweep *s)
{
	return s->rule->is_old == NULL ? s->rule->period_ms(s) : expire_period_ms(life_ms(s));
}

static bool may_go(struct sweep *s, struct sweep_row *row)
{
	return s->rule->is_old == NULL ? s->rule->judge(s, s->page.from, row)
				       : s->rule->is_old(row);
}

static enum err last_word(
	const struct sweep_rule *rule, struct sweep_row *row, enum sweep_word *word)
{
	if (rule->is_old == NULL)
		return rule->decide(row, word);
	*word = rule->is_old(row) ? SWEEP_DELETE : SWEEP_KEEP;
	return OK;
}

static struct partition *partition_here(const struct sweep *s)
{
	const struct catalog *c = node_catalog(s->node, s->loop);
	if (c == NULL)
		return NULL;
	if (s->rule->tables)
		return s->index < catalog_table_count(c) ? catalog_table_at(c, s->index) : NULL;
	if (s->stream >= catalog_stream_count(c))
		return NULL;
	const struct stream *stream = catalog_stream_at(c, s->stream);
	return s->index < stream->partition_count ? stream->partitions[s->index] : NULL;
}

/* One position further; false: the round is over. */
static bool step(struct sweep *s, const struct catalog *c)
{
	s->index++;
	if (s->rule->tables)
		return s->index < catalog_table_count(c);
	if (s->stream < catalog_stream_count(c) &&
		s->index < catalog_stream_at(c, s->stream)->partition_count)
		return true;
	s->stream++;
	s->index = 0;
	return s->stream < catalog_stream_count(c);
}

static bool ours(const struct sweep *s, const struct partition *p)
{
	return p != NULL && partition_home(p) == s->loop && partition_leads(p);
}

static int count_ours(const struct sweep *s, const struct catalog *c)
{
	int count = 0;
	for (int i = 0; s->rule->tables && i < catalog_table_count(c); i++)
		count += ours(s, catalog_table_at(c, i));
	for (int i = 0; !s->rule->tables && i < catalog_stream_count(c); i++) {
		const struct stream *stream = catalog_stream_at(c, i);
		for (int n = 0; n < stream->partition_count; n++)
			count += ours(s, stream->partitions[n]);
	}
	return count;
}

static void begin_round(struct sweep *s)
{
	const struct catalog *c = node_catalog(s->node, s->loop);
	int64_t gap = round_ms(s) / ((c != NULL ? count_ours(s, c) : 0) + 1);
	s->stream = s->index = 0;
	s->gap_ms = gap > GAP_MS_MIN ? gap : GAP_MS_MIN;
	loop_timer_set(&s->timer, s->gap_ms);
}

static void read_page(struct sweep *s, struct partition *p);

/* The next partition of ours is looked at, after the gap. */
static void next_partition(struct sweep *s)
{
	const struct catalog *c = node_catalog(s->node, s->loop);
	buf_clear(&s->after);
	if (s->stopped)
		return;
	while (c != NULL && step(s, c))
		if (ours(s, partition_here(s))) {
			loop_timer_set(&s->timer, s->gap_ms);
			return;
		}
	begin_round(s);
}

static void on_timer(struct loop_timer *t)
{
	struct sweep *s = list_entry(t, struct sweep, timer);
	struct partition *p = partition_here(s);
	if (!ours(s, p)) {
		next_partition(s);
		return;
	}
	buf_clear(&s->after);
	s->group = partition_group(p);
	read_page(s, p);
}

/* Deciding, on the partition's home */

static enum err change_row(const struct sweep_rule *rule, struct eval *v, struct sweep_row *row)
{
	enum sweep_word word = SWEEP_KEEP;
	struct buf replacement;
	enum err e = eval_get(v, rule->keyspace, row->key, &row->value);
	if (e == ERR_NOTFOUND)
		return OK;
	if (e != OK)
		return e;
	buf_init(&replacement, VALUE_BYTES_MAX);
	row->replacement = &replacement;
	e = last_word(rule, row, &word);
	if (e == OK && replacement.err != OK)
		e = replacement.err;
	if (e == OK && word == SWEEP_DELETE)
		eval_delete(v, rule->keyspace, row->key);
	else if (e == OK && word == SWEEP_REPLACE)
		eval_put(v, rule->keyspace, row->key, buf_bytes(&replacement));
	buf_fini(&replacement);
	return e;
}

enum err sweep_evaluate(const struct sweep_rule *rule, struct eval *v, struct bytes args)
{
	struct rd r = rd_over(args);
	int64_t keep_ms = (int64_t)rd_u64be(&r);
	while (r.err == OK && rd_left(&r) > 0) {
		struct sweep_row row = {.keep_ms = keep_ms, .now_ms = eval_now_ms(v), .eval = v};
		row.why = rd_u8(&r);
		row.key = rd_take(&r, rd_u16be(&r));
		enum err e = r.err == OK ? change_row(rule, v, &row) : ERR_MALFORMED;
		if (e != OK)
			return e;
	}
	return r.err == OK ? OK : ERR_MALFORMED;
}

static void go_on(struct sweep *s);

static void on_proposed(struct proposal *proposal)
{
	struct sweep *s = list_entry(proposal, struct sweep, proposal);
	if (proposal->err == OK && !s->stopped) {
		go_on(s);
		return;
	}
	row_read_fini(&s->page);
	next_partition(s);
}

/* Judges rows of the page until there is a slice to be changed, or they end. */
static void judge_some(struct sweep *s)
{
	int64_t keep_ms = life_ms(s);
	s->doomed_count = 0;
	buf_clear(&s->args);
	buf_add_u64be(&s->args, (uint64_t)keep_ms);
	for (; s->at < s->page.count && s->doomed_count < SWEEP_SLICE; s->at++) {
		struct sweep_row row = {.key = s->page.rows[s->at].key,
			.value = s->page.rows[s->at].value,
			.now_ms = loop_now_wall_ms(s->loop),
			.keep_ms = keep_ms};
		if (row.key.len > UINT16_MAX || !may_go(s, &row))
			continue;
		buf_add_u8(&s->args, row.why);
		buf_add_u16be(&s->args, (uint16_t)row.key.len);
		buf_add(&s->args, row.key);
		s->doomed_count++;
	}
}

/* From the page at hand to its next slice, the next page, the next partition. */
static void go_on(struct sweep *s)
{
	struct partition *p = partition_here(s);
	bool there = ours(s, p) && partition_group(p) == s->group;
	if (there)
		judge_some(s);
	if (there && s->doomed_count > 0 && s->args.err == OK) {
		s->proposal = (struct proposal){.to = p,
			.kind = s->rule->kind,
			.args = buf_bytes(&s->args),
			.leader_only = true,
			.done = on_proposed};
		partition_propose(&s->proposal);
		return;
	}
	bool more = there && s->page.more && s->page.count > 0;
	buf_clear(&s->after);
	if (more)
		buf_add(&s->after, s->page.rows[s->page.count - 1].key);
	row_read_fini(&s->page);
	if (more && s->after.err == OK)
		read_page(s, p);
	else
		next_partition(s);
}

static void on_page(struct row_read *page)
{
	struct sweep *s = list_entry(page, struct sweep, page);
	if (page->err == OK && !s->stopped) {
		s->at = 0;
		go_on(s);
		return;
	}
	row_read_fini(page);
	next_partition(s);
}

static void read_page(struct sweep *s, struct partition *p)
{
	s->page = (struct row_read){.from = p,
		.keyspace = s->rule->keyspace,
		.prefix = true,
		.after = buf_bytes(&s->after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_page};
	partition_read_rows(&s->page);
}

/* Life */

static void on_start(struct loop_msg *m)
{
	struct sweep *s = list_entry(m, struct sweep, start);
	if (s->stopped)
		return;
	begin_round(s);
	loop_timer_set(&s->timer, round_ms(s));
}

static void on_stop(struct loop_msg *m)
{
	struct sweep *s = list_entry(m, struct sweep, stop);
	s->stopped = true;
	loop_timer_cancel(&s->timer);
}

void sweep_start(struct sweep *s, const struct sweep_rule *rule, const void *arg, struct node *node,
	struct loop *l)
{
	*s = (struct sweep){.rule = rule, .arg = arg, .node = node, .loop = l};
	loop_timer_init(&s->timer, l, on_timer);
	buf_init(&s->after, UINT16_MAX + 1);
	buf_init(&s->args, ARGS_BYTES_MAX);
	proposal_kind_add(rule->kind);
	s->start.run = on_start;
	loop_post(l, &s->start);
}

void sweep_stop(struct sweep *s)
{
	s->stop.run = on_stop;
	loop_post(s->loop, &s->stop);
}

void sweep_free(struct sweep *s)
{
	buf_fini(&s->after);
	buf_fini(&s->args);
}
