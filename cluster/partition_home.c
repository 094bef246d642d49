/* Homes: what the partitions of one loop share. All are ticked, in slices, so that a loop with
 * thousands of groups does other things in between. */
#include "cluster/remote.h"

enum {
	TICK_MS = 50,
	TICK_SLICE = 512, /* partitions ticked before others get their turn */
};

void partition_home_add(struct partition_home *h, struct partition *p)
{
	if (h->count == h->room) {
		h->room = h->room ? h->room * 2 : 16;
		h->all = mem_resize(h->all, (size_t)h->room * sizeof(struct partition *));
		must(h->all != NULL);
	}
	p->home_at = h->count;
	h->all[h->count++] = p;
}

void partition_home_remove(struct partition_home *h, struct partition *p)
{
	struct partition *last = h->all[--h->count];

	h->all[p->home_at] = last;
	last->home_at = p->home_at;
}

static void tick_slice(struct loop_hook *hook)
{
	struct partition_home *h = list_entry(hook, struct partition_home, tick_hook);
	struct metric_cells *cells = loop_cells(h->loop);
	int64_t now_ms = loop_now_ms(h->loop);

	for (int i = 0; i < TICK_SLICE && h->tick_at < h->count; i++)
		partition_tick(h->all[h->tick_at++], now_ms);
	if (h->tick_at < h->count) {
		loop_hook_want(h->loop, STAGE_PROPOSE, &h->tick_hook);
		return;
	}
	h->tick_at = 0;
	remote_home_tick(h, now_ms);
	rows_cache_trim(h->cache);
	metric_set(cells, &node_metrics, M_ROWS, (int64_t)rows_cache_count(h->cache));
	metric_set(cells, &node_metrics, M_ROW_BYTES, (int64_t)rows_cache_bytes(h->cache));
	metric_set(cells, &node_metrics, M_PARTITIONS, h->count);
	metric_set(cells, &node_metrics, M_LEADING, h->leading);
}

static void tick_fire(struct loop_timer *t)
{
	struct partition_home *h = list_entry(t, struct partition_home, timer);

	loop_timer_set(&h->timer, TICK_MS);
	if (h->tick_at > 0)
		return; /* the last round goes on */
	loop_hook_want(h->loop, STAGE_PROPOSE, &h->tick_hook);
}

struct partition_home *partition_home_new(struct loop *l, const struct partition_limits *limits)
{
	struct partition_home *h = mem_new(sizeof *h);
	size_t loops = (size_t)loops_count(loop_all(l));

	proposal_kind_add(&trim_kind);
	h->loop = l;
	h->limits = *limits;
	h->cache = rows_cache_new(limits->rows_bytes_max);
	h->answers = mem_new(loops * sizeof *h->answers);
	building_init(&h->building);
	list_init(&h->spare);
	loop_hook_init(&h->answer_hook, propose_answers_run);
	loop_hook_init(&h->tick_hook, tick_slice);
	loop_timer_init(&h->timer, l, tick_fire);
	remote_home_init(h);
	return h;
}

void partition_home_start(struct partition_home *h)
{
	loop_must_own(h->loop);
	loop_timer_set(&h->timer, TICK_MS);
}

void partition_home_stop(struct partition_home *h)
{
	loop_must_own(h->loop);
	loop_timer_cancel(&h->timer);
	loop_hook_cancel(&h->tick_hook);
	remote_home_stop(h);
}

void partition_home_free(struct partition_home *h)
{
	struct list *n;

	must(h->count == 0);
	partition_home_stop(h);
	loop_hook_cancel(&h->answer_hook);
	while ((n = list_pop(&h->spare)) != NULL)
		mem_free(list_entry(n, struct pending_entry, node));
	building_fini(&h->building);
	rows_cache_free(h->cache);
	mem_free(h->answers);
	mem_free(h->all);
	mem_free(h->nodes);
	mem_free(h);
}
