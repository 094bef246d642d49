/* Tests of consensus: loop, lane, store and plog on virtual time, without threads. Included by one
 * .c of a test binary, it takes the place of those modules (the linker does not reach for theirs).
 * What is staged becomes durable when the test says so, in order; a crash keeps a prefix of it. */
#ifndef TESTS_FAKE_BELOW_H
#define TESTS_FAKE_BELOW_H
/* Not every test uses all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stdlib.h>
#include "server/base/loop.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/plog.h"

enum op_kind {
	OP_APPEND,
	OP_TRUNCATE,
	OP_RESET,
	OP_SEED,
	OP_VOTE,
	OP_APPLIED,
	OP_CONFIG,
	OP_TOKEN
};
struct disk_op {
	struct list node;
	enum op_kind kind;
	uint64_t a, b, c, rows;
	struct entry *entry;
	struct slice bytes;
	struct durable *token;
};

struct disk {                   /* what is durable */
	struct entry **entries; /* of first..first + count - 1 */
	uint64_t first, reset_term;
	int64_t reset_offset;
	uint32_t count, room;
	struct plog_marks marks;
	uint64_t rows; /* a hash stands for the table */
};
struct lane {
	struct list ops;
	struct disk *disk;
	uint64_t appended, rows;
};
struct store {
	struct disk *disk;
};
struct loop {
	int64_t now_ms;
	struct list hooks[STAGE_COUNT];
	struct list reads;
};

/* --- loop --- */
void loop_hook_init(struct loop_hook *h, void (*run)(struct loop_hook *h))
{
	list_init(&h->node);
	h->run = run;
}
void loop_hook_want(struct loop *l, enum loop_stage stage, struct loop_hook *h)
{
	if (list_empty(&h->node))
		list_push_back(&l->hooks[stage], &h->node);
}
void loop_hook_cancel(struct loop_hook *h)
{
	list_remove(&h->node);
}
int64_t loop_now_ms(const struct loop *l)
{
	return l->now_ms;
}
void loop_must_own(const struct loop *l)
{
	(void)l;
}

static void fake_loop_init(struct loop *l, int64_t now_ms)
{
	l->now_ms = now_ms;
	for (int i = 0; i < STAGE_COUNT; i++)
		list_init(&l->hooks[i]);
	list_init(&l->reads);
}

struct fake_read {
	struct list node;
	struct plog_read *r;
};
static void fake_loop_turn(struct loop *l)
{
	struct list *n;
	for (int again = 1; again;) {
		again = 0;
		for (int i = 0; i < STAGE_COUNT; i++)
			while ((n = list_pop(&l->hooks[i])) != NULL) {
				struct loop_hook *h = list_entry(n, struct loop_hook, node);
				h->run(h);
				again = 1;
			}
	}
}

/* --- disk --- */
static void disk_cut(struct disk *d, uint64_t from)
{
	while (d->count > 0 && d->first + d->count > from)
		entry_unref(d->entries[--d->count]);
}

static void disk_append(struct disk *d, struct entry *e)
{
	if (d->count == 0 && d->marks.applied_index == 0 && d->reset_term == 0)
		d->first = e->index;
	must(e->index == d->first + d->count);
	if (d->count == d->room) {
		d->room = d->room ? d->room * 2 : 64;
		d->entries = mem_resize(d->entries, d->room * sizeof *d->entries);
	}
	d->entries[d->count++] = e;
}

static void disk_do(struct disk *d, struct disk_op *op)
{
	switch (op->kind) {
	case OP_APPEND: disk_append(d, op->entry); break;
	case OP_TRUNCATE: disk_cut(d, op->a); break;
	case OP_SEED: /* term and vote stay */
		disk_cut(d, 0);
		slice_unref(&d->marks.config);
		d->marks = (struct plog_marks){.term = d->marks.term,
			.vote = d->marks.vote,
			.seeding = true,
			.seeding_index = op->a,
			.given_up_index = op->b,
			.given_up_term = op->c};
		d->first = 1;
		d->reset_term = 0;
		d->rows = 0;
		break;
	case OP_RESET:
		d->marks.seeding = false;
		disk_cut(d, 0);
		d->first = op->a + 1;
		d->reset_term = op->b;
		d->reset_offset = (int64_t)get_u64be(op->bytes.bytes.at);
		slice_unref(&op->bytes);
		break;
	case OP_VOTE: d->marks.term = op->a, d->marks.vote = op->b; break;
	case OP_APPLIED: /* rows and mark: one write */
		d->marks.applied_index = op->a;
		d->marks.applied_term = op->b;
		d->rows = op->rows;
		break;
	case OP_CONFIG:
		slice_unref(&d->marks.config);
		d->marks.config = op->bytes;
		d->marks.config_index = op->a;
		break;
	case OP_TOKEN: break;
	}
}

static struct disk_op *stage(struct lane *l, enum op_kind kind, uint64_t a, uint64_t b)
{
	struct disk_op *op = mem_new(sizeof *op);
	op->kind = kind;
	op->a = a;
	op->b = b;
	list_push_back(&l->ops, &op->node);
	return op;
}

void lane_when_durable(struct lane *l, struct durable *d)
{
	stage(l, OP_TOKEN, 0, 0)->token = d;
}

static void fake_lane_init(struct lane *l, struct disk *d)
{
	list_init(&l->ops);
	l->disk = d;
}

/* Makes what is staged by now durable, at most max things; tells those who wait. */
static int lane_sync(struct lane *l, int max)
{
	int done = 0;
	struct list *last = l->ops.prev, *n;
	while (done < max && (n = list_pop(&l->ops)) != NULL) {
		struct disk_op *op = list_entry(n, struct disk_op, node);
		struct durable *token = op->token;
		disk_do(l->disk, op);
		if (op->kind == OP_APPEND)
			l->appended = op->entry->index;
		mem_free(op);
		done++;
		if (token)
			token->done(token);
		if (n == last)
			break;
	}
	return done;
}

/* Nobody is told any more; the first keep of the staged things have reached the disk. */
static void lane_crash(struct lane *l, int keep)
{
	struct list *n;
	bool whole = false;
	while ((n = list_pop(&l->ops)) != NULL) {
		struct disk_op *op = list_entry(n, struct disk_op, node);
		if (op->kind == OP_TOKEN)
			whole = false;
		if (keep-- > 0 || whole) {
			whole = whole || op->kind == OP_RESET; /* with the marks: one write */
			disk_do(l->disk, op);
		} else {
			entry_unref(op->entry);
			slice_unref(&op->bytes);
		}
		mem_free(op);
	}
}

static int lane_count(const struct lane *l)
{
	int n = 0;
	for (struct list *i = l->ops.next; i != &l->ops; i = i->next)
		n++;
	return n;
}

static struct entry *disk_entry(const struct disk *d, uint64_t index)
{
	return d->count > 0 && index >= d->first && index < d->first + d->count
		? d->entries[index - d->first]
		: NULL;
}

enum err store_get(struct store *s, struct store_snapshot *snapshot, enum store_family f,
	struct bytes key, struct slice *out)
{
	(void)snapshot;
	const struct entry *e = disk_entry(s->disk, get_u64be(key.at + 8));
	uint8_t head[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	if (!e)
		return ERR_NOTFOUND;
	if (f == FAMILY_IDX)
		return slice_copy(bytes_of(head, entry_header_encode(&e->head, head)), out);
	if (f != FAMILY_LOG_DAYS || e->part_count == 0)
		return ERR_NOTFOUND;
	return slice_copy(e->parts[0].bytes, out);
}

/* --- plog --- */
struct plog {
	uint64_t group;
	struct plog_env *env;
	struct plog_marks marks;
	struct entry **entries; /* first..; where hidden: not in memory as far as callers see */
	bool *hidden;
	uint64_t first, reset_term;
	int64_t reset_offset;
	uint32_t count, room;
	int hide_below; /* applied entries that far back leave memory; 0: none do */
};

static struct plog *fake_plog_open(struct plog_env *env, struct disk *d)
{
	struct plog *p = mem_new(sizeof *p);
	p->group = 1;
	p->env = env;
	p->marks = d->marks;
	p->marks.config = slice_ref(d->marks.config);
	p->first = d->count || d->reset_term ? d->first : 1;
	p->reset_term = d->reset_term;
	p->reset_offset = d->reset_offset;
	p->marks.first_index = p->first;
	p->room = d->count + 64;
	p->entries = mem_new(p->room * sizeof *p->entries);
	p->hidden = mem_new(p->room);
	for (uint32_t i = 0; i < d->count; i++) {
		p->entries[i] = entry_ref(d->entries[i]);
		p->hidden[i] = !(d->entries[i]->head.flags & ENTRY_HAS_ROWS);
	}
	p->count = d->count;
	return p;
}

void plog_close(struct plog *p)
{
	for (uint32_t i = 0; i < p->count; i++)
		entry_unref(p->entries[i]);
	mem_free(p->entries);
	mem_free(p->hidden);
	slice_unref(&p->marks.config);
	mem_free(p);
}

uint64_t plog_group(const struct plog *p)
{
	return p->group;
}
const struct plog_marks *plog_marks(const struct plog *p)
{
	return &p->marks;
}
uint64_t plog_last_index(const struct plog *p)
{
	return p->first + p->count - 1;
}
uint64_t plog_last_term(const struct plog *p)
{
	return p->count ? p->entries[p->count - 1]->head.term : p->reset_term;
}
int64_t plog_next_offset(const struct plog *p)
{
	return p->count ? entry_next_offset(&p->entries[p->count - 1]->head) : p->reset_offset;
}

int64_t plog_hlc(const struct plog *p)
{
	return p->count ? p->entries[p->count - 1]->head.hlc : 0;
}

void plog_append(struct plog *p, struct entry *e, int64_t batch_max_ms)
{
	if (p->count == p->room) {
		p->room *= 2;
		p->entries = mem_resize(p->entries, p->room * sizeof *p->entries);
		p->hidden = mem_resize(p->hidden, p->room);
	}
	e->group = p->group;
	e->head.base_offset = plog_next_offset(p);
	e->index = p->first + p->count;
	e->head.max_ms = batch_max_ms;
	p->entries[p->count] = entry_ref(e);
	p->hidden[p->count++] = false;
	stage(p->env->lane, OP_APPEND, 0, 0)->entry = entry_ref(e);
}

void plog_truncate(struct plog *p, uint64_t index)
{
	must(index > p->marks.applied_index);
	while (p->count > 0 && plog_last_index(p) >= index)
		entry_unref(p->entries[--p->count]);
	stage(p->env->lane, OP_TRUNCATE, index, 0);
}

void plog_reset(struct plog *p, uint64_t index, uint64_t term, int64_t next_offset)
{
	uint8_t at[8];
	while (p->count > 0)
		entry_unref(p->entries[--p->count]);
	p->first = p->marks.first_index = index + 1;
	p->reset_term = term;
	p->reset_offset = next_offset;
	p->marks.seeding = false;
	put_u64be(at, (uint64_t)next_offset);
	must(slice_copy(bytes_of(at, 8), &stage(p->env->lane, OP_RESET, index, term)->bytes) == OK);
}

/* What a catch-up does first. */
static void fake_plog_seed_begin(struct plog *p, uint64_t index)
{
	uint64_t last_index = plog_last_index(p), last_term = plog_last_term(p);
	while (p->count > 0)
		entry_unref(p->entries[--p->count]);
	uint64_t given_up_index = p->marks.seeding ? p->marks.given_up_index : last_index;
	uint64_t given_up_term = p->marks.seeding ? p->marks.given_up_term : last_term;
	slice_unref(&p->marks.config);
	p->marks = (struct plog_marks){.term = p->marks.term,
		.vote = p->marks.vote,
		.first_index = 1,
		.seeding = true,
		.seeding_index = index,
		.given_up_index = given_up_index,
		.given_up_term = given_up_term};
	p->first = 1;
	p->reset_term = 0;
	p->reset_offset = 0;
	stage(p->env->lane, OP_SEED, index, given_up_index)->c = given_up_term;
}

static struct entry *plog_any(const struct plog *p, uint64_t index)
{
	return index >= p->first && index < p->first + p->count ? p->entries[index - p->first]
								: NULL;
}

struct entry *plog_cached(const struct plog *p, uint64_t index)
{
	struct entry *e = plog_any(p, index);
	return e && !p->hidden[index - p->first] ? e : NULL;
}

/* Not in memory for every other entry that was loaded: the store has to be read. */
const struct entry_header *plog_header(const struct plog *p, uint64_t index)
{
	struct entry *e = plog_any(p, index);
	return e && (!p->hidden[index - p->first] || index % 2) ? &e->head : NULL;
}

void plog_applied(struct plog *p, uint64_t index)
{
	uint64_t below = (uint64_t)p->hide_below;
	if (below && index > below && index - below >= p->first &&
		index - below <= p->env->lane->appended)
		p->hidden[index - below - p->first] = true;
}

void plog_mark_term_vote(struct plog *p, uint64_t term, uint64_t vote)
{
	p->marks.term = term;
	p->marks.vote = vote;
	stage(p->env->lane, OP_VOTE, term, vote);
}

void plog_mark_applied(struct plog *p, uint64_t index, uint64_t term)
{
	p->marks.applied_index = index;
	p->marks.applied_term = term;
	stage(p->env->lane, OP_APPLIED, index, term)->rows = p->env->lane->rows;
}

void plog_mark_config(struct plog *p, uint64_t index, struct bytes config)
{
	slice_unref(&p->marks.config);
	must(slice_copy(config, &p->marks.config) == OK);
	p->marks.config_index = index;
	stage(p->env->lane, OP_CONFIG, index, 0)->bytes = slice_ref(p->marks.config);
}

void plog_read(struct plog_read *r)
{
	struct fake_read *f = mem_new(sizeof *f);
	f->r = r;
	list_push_back(&r->log->env->loop->reads, &f->node);
}

static void fake_reads_done(struct loop *l)
{
	struct list *n;
	while ((n = list_pop(&l->reads)) != NULL) {
		struct fake_read *f = list_entry(n, struct fake_read, node);
		struct plog_read *r = f->r;
		mem_free(f);
		uint64_t index = r->hint_index;
		r->entries = mem_new(64 * sizeof *r->entries);
		for (r->count = 0; r->count < 64 && plog_any(r->log, index); index++)
			r->entries[r->count++] = entry_ref(plog_any(r->log, index));
		r->err = OK;
		r->done(r);
	}
}

#endif
