/* A cell per row in memory. Its lists say what may happen to it: in the cache's LRU list a cell can
 * leave any time; dirty and writing ones (changed, and on their way to the store) are pinned until
 * what they hold is durable, for the store would give an older value; those with pending values or
 * a read under way are pinned, too.
 *
 * A cell that is not known has no applied value yet: it exists because something is pending for it
 * or it is being read. What the log applies meanwhile makes it known, and the read's answer, which
 * may be older, is thrown away.
 *
 * A table is complete as long as nothing that exists has left memory: then what has no cell does
 * not exist, and nobody needs to ask the store. */
#include "cluster/rows_priv.h"
#include "server/base/mem.h"
#include "storage/keys.h"

enum {
	CELLS_MIN = 1024,     /* of a loop, kept beyond the budget: an evaluation needs several */
	KEEP_BYTES = 8 << 20, /* but no more of those than this, */
	CELLS_FEW = 8,        /* or these, if they are that large */
	SPARE_MAX = 256,      /* overlays */
	ROOM_KEEP = 512,      /* values' memory of pending rows that is not given back */
	LOAD_ROWS_MAX = 1024, /* a table that is smaller is read whole at the start */
	LOAD_BYTES_MAX = 1 << 18,
};

/* --- values --- */

static void value_fini(struct value *v)
{
	mem_free(v->at);
	*v = (struct value){0};
}

static void value_set(struct value *v, bool present, struct bytes b)
{
	v->present = present;
	v->len = present ? (uint32_t)b.len : 0;
	if (v->len > v->room || v->room > ROOM_KEEP + 2 * v->len) {
		mem_free(v->at);
		v->room = v->len;
		v->at = v->len ? mem_new(v->len) : NULL;
	}
	if (v->len > 0)
		memcpy(v->at, b.at, v->len);
}

static enum err value_give(const struct value *v, struct bytes *out)
{
	*out = bytes_of(v->at, v->len);
	return v->present ? OK : ERR_NOTFOUND;
}

/* --- the cache --- */

struct rows_cache *rows_cache_new(size_t bytes_max)
{
	struct rows_cache *c = mem_new(sizeof *c);

	list_init(&c->lru);
	list_init(&c->spare);
	c->bytes_max = bytes_max;
	return c;
}

void rows_cache_free(struct rows_cache *c)
{
	struct list *n;

	must(c->count == 0);
	while ((n = list_pop(&c->spare)) != NULL) {
		struct overlay *o = list_entry(n, struct overlay, node);

		value_fini(&o->value);
		value_fini(&o->staged);
		mem_free(o);
	}
	mem_free(c);
}

size_t rows_cache_bytes(const struct rows_cache *c)
{
	return c->bytes;
}

size_t rows_cache_count(const struct rows_cache *c)
{
	return c->count;
}

/* --- cells --- */

static size_t cell_bytes(const struct cell *c)
{
	return sizeof *c + c->key_len + c->value.room + 32; /* and a slot of the map */
}

static struct bytes cell_key(const struct cell *c)
{
	return bytes_of(c->key, c->key_len);
}

/* What a cell costs counts for the loop's cache and for its table: around every change of it. */
static void uncount(struct cell *c)
{
	c->table->cache->bytes -= cell_bytes(c);
	c->table->bytes -= cell_bytes(c);
}

static void recount(struct cell *c)
{
	c->table->cache->bytes += cell_bytes(c);
	c->table->bytes += cell_bytes(c);
}

static void cell_out_of_list(struct cell *c)
{
	if (c->state == CELL_CLEAN && !list_empty(&c->node)) {
		c->table->cache->lru_count--;
		c->table->cache->lru_bytes -= cell_bytes(c);
	}
	if (c->state == CELL_DIRTY)
		c->table->dirty_bytes -= cell_bytes(c);
	list_remove(&c->node);
}

static void cell_free(struct cell *c)
{
	struct rows_cache *cache = c->table->cache;

	must(c->over == NULL);
	must(c->fetch == NULL);
	cell_out_of_list(c);
	map_remove(&c->table->cells, cell_key(c));
	uncount(c);
	cache->count--;
	value_fini(&c->value);
	mem_free(c);
}

/* A clean cell goes where it belongs: out of reach of eviction while something hangs on it. */
static void cell_place(struct cell *c)
{
	struct rows_cache *cache = c->table->cache;

	if (c->state != CELL_CLEAN)
		return;
	cell_out_of_list(c);
	if (c->over != NULL || c->fetch != NULL)
		return;
	if (!c->known || (c->table->complete && !c->value.present)) {
		cell_free(c);
		return;
	}
	list_push_front(&cache->lru, &c->node);
	cache->lru_count++;
	cache->lru_bytes += cell_bytes(c);
}

static struct bytes full_key(struct rows *t, uint8_t keyspace, struct bytes key)
{
	uint8_t *at = t->cache->scratch;

	must(key.len <= UINT16_MAX);
	at[0] = keyspace;
	if (key.len > 0)
		memcpy(at + 1, key.at, key.len);
	return bytes_of(at, key.len + 1);
}

static struct cell *cell_find(struct rows *t, uint8_t keyspace, struct bytes key)
{
	return map_get(&t->cells, full_key(t, keyspace, key));
}

static struct cell *cell_make(struct rows *t, uint8_t keyspace, struct bytes key)
{
	struct bytes full = full_key(t, keyspace, key);
	struct cell *c = map_get(&t->cells, full);

	if (c != NULL)
		return c;
	c = mem_new(sizeof *c + full.len);
	c->table = t;
	c->key_len = (uint32_t)full.len;
	memcpy(c->key, full.at, full.len);
	c->known = t->complete; /* known not to exist */
	c->maybe_stored = !t->complete;
	list_init(&c->node);
	map_put(&t->cells, cell_key(c), c);
	recount(c);
	t->cache->count++;
	return c;
}

static void cell_set(struct cell *c, bool present, struct bytes value)
{
	uncount(c);
	value_set(&c->value, present, value);
	recount(c);
	c->known = true;
}

/* Whether what may leave is more than is kept in any case. */
static bool has_surplus(const struct rows_cache *c)
{
	return c->lru_count > CELLS_MIN || (c->lru_bytes > KEEP_BYTES && c->lru_count > CELLS_FEW);
}

void rows_cache_trim(struct rows_cache *c)
{
	while (c->bytes > c->bytes_max && has_surplus(c)) {
		struct cell *last = list_entry(c->lru.prev, struct cell, node);

		if (last->value.present)
			last->table->complete = false;
		cell_free(last);
	}
}

/* --- the table --- */

struct rows *rows_new(const struct plog_env *env, struct rows_cache *cache, uint64_t group)
{
	struct rows *t = mem_new(sizeof *t);

	t->env = env;
	t->cache = cache;
	t->group = group;
	list_init(&t->dirty);
	list_init(&t->writing);
	list_init(&t->pending);
	list_init(&t->staged);
	return t;
}

void rows_fresh(struct rows *t)
{
	must(t->cells.count == 0);
	t->complete = true;
}

enum err rows_load(struct rows *t)
{
	struct group_key from = key_group(t->group), to = key_group(t->group + 1);
	struct store_iter *i = store_iter_new(
		t->env->store, NULL, FAMILY_ROWS, KEY_BYTES(from), KEY_BYTES(to), true);
	size_t bytes = 0;
	int count = 0;

	for (; store_iter_valid(i); store_iter_step(i)) {
		struct bytes key = store_iter_key(i), value = store_iter_value(i);
		struct cell *c;

		bytes += key.len + value.len;
		if (++count > LOAD_ROWS_MAX || bytes > LOAD_BYTES_MAX || key.len < 9)
			break;
		c = cell_make(t, key.at[8], bytes_of(key.at + 9, key.len - 9));
		cell_set(c, true, value);
		cell_place(c);
	}
	t->complete = !store_iter_valid(i);
	return store_iter_free(i);
}

void rows_let_go(struct rows *t)
{
	void (*idle)(void *arg) = t->idle;

	must(t->under_way > 0);
	if (--t->under_way > 0 || idle == NULL)
		return;
	t->idle = NULL;
	idle(t->idle_arg);
}

void rows_when_idle(struct rows *t, void (*idle)(void *arg), void *arg)
{
	if (t->under_way == 0) {
		idle(arg);
		return;
	}
	t->idle = idle;
	t->idle_arg = arg;
}

static void cells_drop(struct rows *t)
{
	struct cell *c;

	for (uint32_t at = 0; (c = map_next(&t->cells, &at)) != NULL;) {
		if (c->fetch != NULL) { /* its end finds it unknown */
			cell_out_of_list(c);
			c->state = CELL_CLEAN;
			c->known = false;
			continue;
		}
		cell_free(c);
	}
}

void rows_free(struct rows *t)
{
	must(t->under_way == 0);
	rows_stage_drop(t);
	rows_drop_pending(t);
	cells_drop(t);
	map_fini(&t->cells);
	mem_free(t);
}

void rows_reset(struct rows *t)
{
	rows_stage_drop(t);
	rows_drop_pending(t);
	cells_drop(t);
	t->complete = false;
	t->generation++;
}

enum err rows_get(
	struct rows *t, bool pending, uint8_t keyspace, struct bytes key, struct bytes *out)
{
	struct cell *c;

	if (key.len > UINT16_MAX)
		return ERR_NOTFOUND;
	c = cell_find(t, keyspace, key);
	if (c == NULL)
		return t->complete ? ERR_NOTFOUND : ERR_MORE;
	if (pending && c->over != NULL)
		return value_give(c->over->is_staged ? &c->over->staged : &c->over->value, out);
	if (!c->known)
		return ERR_MORE;
	if (c->value.present)
		cell_place(c); /* in use: last to leave */
	return value_give(&c->value, out);
}

/* --- reads from the store --- */

static void fetch_work(struct job *j)
{
	struct fetch *f = list_entry(j, struct fetch, job);
	const struct cell *c = f->cell;
	uint8_t *key = mem_new(ROW_KEY_PREFIX_BYTES + c->key_len);
	size_t len = key_row(c->table->group, c->key[0], bytes_of(c->key + 1, c->key_len - 1), key);

	f->err = store_get(c->table->env->store, NULL, FAMILY_ROWS, bytes_of(key, len), &f->value);
	mem_free(key);
}

static void fetch_done(struct job *j)
{
	struct fetch *f = list_entry(j, struct fetch, job);
	struct cell *c = f->cell;
	struct rows *t = c->table;
	enum err e = f->err == ERR_NOTFOUND ? OK : f->err;
	struct list *n;

	if (f->generation != t->generation)
		e = ERR_UNAVAILABLE;
	if (e == OK && !c->known) {
		c->maybe_stored = f->err == OK;
		cell_set(c, f->err == OK, f->value.bytes);
	}
	c->fetch = NULL;
	cell_place(c); /* frees it if it could not be read and nothing hangs on it */
	slice_unref(&f->value);
	while ((n = list_pop(&f->waiting)) != NULL) {
		struct rows_fetch *w = list_entry(n, struct rows_fetch, node);

		w->done(w, e);
	}
	mem_free(f);
	rows_let_go(t);
}

static void fetch_nothing(struct job *j)
{
	(void)j;
}

void rows_fetch(struct rows *t, uint8_t keyspace, struct bytes key, struct rows_fetch *w)
{
	struct cell *c = cell_make(t, keyspace, key);
	struct fetch *f = c->fetch;

	if (f == NULL) {
		f = mem_new(sizeof *f);
		list_init(&f->waiting);
		f->cell = c;
		f->generation = t->generation;
		f->job.home = t->env->loop;
		f->job.work = c->known ? fetch_nothing : fetch_work;
		f->job.done = fetch_done;
		c->fetch = f;
		cell_place(c);
		t->under_way++;
		worker_run(t->env->workers, &f->job);
	}
	list_push_back(&f->waiting, &w->node);
}

void rows_fetch_cancel(struct rows_fetch *f)
{
	list_remove(&f->node);
}

/* --- pending values --- */

static struct overlay *overlay_of(struct cell *c)
{
	struct rows_cache *cache = c->table->cache;
	struct list *n;
	struct overlay *o;

	if (c->over != NULL)
		return c->over;
	n = list_pop(&cache->spare);
	if (n != NULL) {
		o = list_entry(n, struct overlay, node);
		cache->spare_count--;
	} else {
		o = mem_new(sizeof *o);
		list_init(&o->stage_node);
	}
	o->cell = c;
	list_push_back(&c->table->pending, &o->node);
	c->table->pending_count++;
	c->over = o;
	cell_place(c);
	return o;
}

static void overlay_free(struct overlay *o)
{
	struct cell *c = o->cell;
	struct rows *t = c->table;

	list_remove(&o->node);
	list_remove(&o->stage_node);
	t->pending_count--;
	c->over = NULL;
	cell_place(c);
	o->cell = NULL;
	o->index = 0;
	o->is_staged = false;
	if (t->cache->spare_count == SPARE_MAX || o->value.room > ROOM_KEEP ||
		o->staged.room > ROOM_KEEP) {
		value_fini(&o->value);
		value_fini(&o->staged);
		mem_free(o);
		return;
	}
	list_push_back(&t->cache->spare, &o->node);
	t->cache->spare_count++;
}

enum err rows_stage(struct rows *t, const struct row_change *row)
{
	struct overlay *o;

	if (row->key.len > UINT16_MAX)
		return ERR_TOOBIG;
	o = overlay_of(cell_make(t, row->keyspace, row->key));
	value_set(&o->staged, row->op == ROW_PUT, row->value);
	if (!o->is_staged)
		list_push_back(&t->staged, &o->stage_node);
	o->is_staged = true;
	return OK;
}

void rows_stage_keep(struct rows *t, uint64_t index)
{
	struct list *n;

	while ((n = list_pop(&t->staged)) != NULL) {
		struct overlay *o = list_entry(n, struct overlay, stage_node);
		struct value old = o->value;

		o->value = o->staged;
		o->staged = old;
		o->is_staged = false;
		o->index = index;
	}
}

void rows_stage_drop(struct rows *t)
{
	struct list *n;

	while ((n = list_pop(&t->staged)) != NULL) {
		struct overlay *o = list_entry(n, struct overlay, stage_node);

		o->is_staged = false;
		if (o->index == 0)
			overlay_free(o);
	}
}

void rows_drop_pending(struct rows *t)
{
	while (!list_empty(&t->pending))
		overlay_free(list_entry(t->pending.next, struct overlay, node));
}

size_t rows_pending(const struct rows *t)
{
	return t->pending_count;
}

/* --- applying and writing back --- */

static void cell_dirty(struct cell *c)
{
	struct rows *t = c->table;

	c->state = CELL_DIRTY;
	list_push_back(&t->dirty, &c->node);
	t->dirty_bytes += cell_bytes(c);
}

void rows_apply(struct rows *t, uint64_t index, const struct row_change *row)
{
	struct cell *c;

	if (row->op == ROW_DELETE && t->complete && cell_find(t, row->keyspace, row->key) == NULL)
		return;
	c = cell_make(t, row->keyspace, row->key);
	cell_out_of_list(c);
	c->state = CELL_CLEAN;
	if (c->over != NULL && c->over->index == index && !c->over->is_staged) {
		struct value old = c->value;

		/* What was pending is what is applied: no need to copy it. It is the last value if
		 * the entry sets the row more than once. */
		uncount(c);
		c->value = c->over->value;
		recount(c);
		c->over->value = old;
		c->known = true;
		cell_dirty(c);
		overlay_free(c->over);
		return;
	}
	cell_set(c, row->op == ROW_PUT, row->value);
	cell_dirty(c);
}

size_t rows_dirty_bytes(const struct rows *t)
{
	return t->dirty_bytes;
}

struct write_back {
	struct durable durable;
	struct rows *table;
	uint64_t round;
};

static void write_back_durable(struct durable *d)
{
	struct write_back *w = list_entry(d, struct write_back, durable);
	struct rows *t = w->table;

	while (!list_empty(&t->writing)) {
		struct cell *c = list_entry(t->writing.next, struct cell, node);

		if (c->round > w->round)
			break;
		list_remove(&c->node);
		c->state = CELL_CLEAN;
		cell_place(c);
	}
	mem_free(w);
	rows_cache_trim(t->cache);
	rows_let_go(t);
}

static void cell_write(struct rows *t, struct cell *c)
{
	uint8_t small[ROW_KEY_PREFIX_BYTES + 256], *key = small;
	struct bytes value = bytes_of(c->value.at, c->value.len);
	size_t len;

	if (!c->value.present && !c->maybe_stored)
		return; /* came and went between two write-backs */
	if (c->key_len > 256)
		key = mem_new(ROW_KEY_PREFIX_BYTES + c->key_len);
	len = key_row(t->group, c->key[0], bytes_of(c->key + 1, c->key_len - 1), key);
	if (c->value.present)
		lane_put(t->env->lane, FAMILY_ROWS, bytes_of(key, len), &value, 1);
	else
		lane_delete(t->env->lane, FAMILY_ROWS, bytes_of(key, len));
	c->maybe_stored = c->value.present;
	if (key != small)
		mem_free(key);
}

size_t rows_write_back(struct rows *t)
{
	struct write_back *w;
	size_t count = 0;

	if (list_empty(&t->dirty))
		return 0;
	t->round++;
	while (!list_empty(&t->dirty)) {
		struct cell *c = list_entry(t->dirty.next, struct cell, node);

		cell_out_of_list(c);
		cell_write(t, c);
		c->state = CELL_WRITING;
		c->round = t->round;
		list_push_back(&t->writing, &c->node);
		count++;
	}
	must(t->dirty_bytes == 0);
	w = mem_new(sizeof *w);
	w->table = t;
	w->round = t->round;
	w->durable.done = write_back_durable;
	t->under_way++;
	lane_when_durable(t->env->lane, &w->durable);
	return count;
}
