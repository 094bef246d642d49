/* Recent entries of all logs of a loop under one budget. An entry counts from its append, but can
 * leave only when it is durable and applied; from then on it stands in one list over all logs,
 * and the oldest leaves first. Readers of old entries put nothing in here. A log may be opened by a
 * worker while its loop uses the cache: what is recovered counts when it may leave. */
#include "server/base/mem.h"
#include "storage/plog_priv.h"
#include "storage/storage_metrics.h"

enum { RING_FIRST = 8 };

struct tail_cache *tail_cache_new(size_t bytes_max)
{
	struct tail_cache *c = mem_new(sizeof *c);

	list_init(&c->may_leave);
	c->bytes_max = bytes_max;
	return c;
}

void tail_cache_free(struct tail_cache *c)
{
	if (c == NULL)
		return;
	must(list_empty(&c->may_leave)); /* the logs close first */
	mem_free(c);
}

size_t tail_cache_bytes(const struct tail_cache *c)
{
	return c->bytes;
}

static void evict(struct tail_cache *c)
{
	while (c->bytes > c->bytes_max && !list_empty(&c->may_leave)) {
		struct slot *s = list_entry(c->may_leave.next, struct slot, node);

		plog_ring_drop_front(s->log);
	}
}

static struct slot **slot_at(const struct plog *p, uint64_t index)
{
	return &p->ring[index & p->ring_mask];
}

struct entry *plog_ring_at(const struct plog *p, uint64_t index)
{
	return index > p->before.index && index <= p->tail.index ? (*slot_at(p, index))->entry
								 : NULL;
}

static void slot_free(struct slot *s)
{
	if (s->memory > 0)
		s->log->env.cache->bytes -= s->memory;
	list_remove(&s->node);
	entry_unref(s->entry);
	mem_free(s);
}

/* Moves the slots to a ring of another size; the range of indices stays. */
static void ring_resize(struct plog *p, uint64_t size)
{
	struct slot **ring = mem_new(size * sizeof(struct slot *));

	for (uint64_t i = p->before.index + 1; i < p->tail.index; i++)
		ring[i & (size - 1)] = *slot_at(p, i);
	mem_free(p->ring);
	p->ring = ring;
	p->ring_mask = size - 1;
}

static struct slot *ring_add(struct plog *p, struct entry *e)
{
	uint64_t held = p->tail.index - p->before.index; /* e among them */
	struct slot *s = mem_new(sizeof *s);

	if (p->ring == NULL)
		ring_resize(p, RING_FIRST);
	else if (held > p->ring_mask + 1)
		ring_resize(p, (p->ring_mask + 1) * 2);
	list_init(&s->node);
	s->log = p;
	s->entry = e;
	*slot_at(p, e->index) = s;
	return s;
}

static void count_in(struct slot *s)
{
	s->memory = entry_memory(s->entry) + sizeof *s;
	s->log->env.cache->bytes += s->memory;
}

void plog_ring_push(struct plog *p, struct entry *e)
{
	count_in(ring_add(p, e));
	evict(p->env.cache);
}

void plog_ring_recover(struct plog *p, struct entry *e)
{
	(void)ring_add(p, e);
}

void plog_ring_replace(struct plog *p, struct entry *e)
{
	struct slot *s;

	if (plog_ring_at(p, e->index) == NULL)
		return;
	s = *slot_at(p, e->index);
	if (s->memory > 0)
		p->env.cache->bytes -= s->memory;
	entry_unref(s->entry);
	s->entry = entry_ref(e);
	if (s->memory > 0)
		count_in(s);
}

void plog_ring_drop_front(struct plog *p)
{
	uint64_t index = p->before.index + 1;
	struct slot *s = *slot_at(p, index);

	must(index <= p->tail.index);
	p->before = plog_state_of(index, &s->entry->head);
	slot_free(s);
	if (p->leave_index < index)
		p->leave_index = index;
	/* An idle log gives its ring back. */
	if (p->before.index == p->tail.index) {
		mem_free(p->ring);
		p->ring = NULL;
		p->ring_mask = 0;
	}
}

void plog_ring_cut(struct plog *p, uint64_t index)
{
	for (uint64_t i = index > p->before.index ? index : p->before.index + 1; i <= p->tail.index;
		i++)
		slot_free(*slot_at(p, i));
	if (p->leave_index >= index)
		p->leave_index = index - 1;
}

void plog_ring_fini(struct plog *p)
{
	plog_ring_cut(p, p->before.index + 1);
	mem_free(p->ring);
	p->ring = NULL;
	p->ring_mask = 0;
}

void plog_may_leave(struct plog *p)
{
	uint64_t end = p->durable_index < p->applied_index ? p->durable_index : p->applied_index;

	if (p->leave_index < p->before.index)
		p->leave_index = p->before.index;
	end = end < p->tail.index ? end : p->tail.index;
	while (p->leave_index < end) {
		struct slot *s = *slot_at(p, ++p->leave_index);

		if (s->memory == 0)
			count_in(s);
		list_push_back(&p->env.cache->may_leave, &s->node);
	}
	evict(p->env.cache);
	storage_gauge(loop_cells(p->env.loop), M_TAIL_BYTES, (int64_t)p->env.cache->bytes);
}
