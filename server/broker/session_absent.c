/* Sessions whose client is away and for which something is to be done in time: the session ends, or
 * its will is due. They are known on the home loop of their table, in a heap by time. What is done
 * is a proposal that looks at the row first: if the client has come back meanwhile, the epoch has
 * moved and nothing happens; so nobody has to be told when a client returns. When this node begins
 * to lead a table the heap is made anew from its rows. */
#include "server/base/log.h"
#include "server/broker/session_priv.h"

enum { SLEEP_MS_MAX = 3600 * 1000, RETRY_MS = 1000, AT_ONCE = 64 };

struct absent {
	struct session_home *home;
	int64_t at_ms, ends_ms, due_ms; /* wall */
	uint64_t epoch;
	uint32_t place; /* in the heap */
	uint16_t id_len;
	uint8_t id[];
};
static struct bytes absent_id(const struct absent *a)
{
	return bytes_of(a->id, a->id_len);
}

/* The heap */

static void put_at(struct session_home *h, uint32_t place, struct absent *a)
{
	h->heap[place] = a;
	a->place = place;
}

static void sift_up(struct session_home *h, struct absent *a)
{
	uint32_t at = a->place;
	for (; at > 0 && h->heap[(at - 1) / 2]->at_ms > a->at_ms; at = (at - 1) / 2)
		put_at(h, at, h->heap[(at - 1) / 2]);
	put_at(h, at, a);
}

static void sift_down(struct session_home *h, struct absent *a)
{
	uint32_t at = a->place, child;
	while ((child = at * 2 + 1) < h->heap_count) {
		if (child + 1 < h->heap_count && h->heap[child + 1]->at_ms < h->heap[child]->at_ms)
			child++;
		if (h->heap[child]->at_ms >= a->at_ms)
			break;
		put_at(h, at, h->heap[child]);
		at = child;
	}
	put_at(h, at, a);
}

static void take_out(struct session_home *h, struct absent *a)
{
	struct absent *last = h->heap[--h->heap_count];
	map_remove(&h->absents, absent_id(a));
	if (last == a)
		return;
	put_at(h, a->place, last);
	sift_up(h, last);
	sift_down(h, last);
}

static void arm(struct session_home *h)
{
	if (h->heap_count == 0 || h->stopped) {
		loop_timer_cancel(&h->timer);
		return;
	}
	int64_t in = h->heap[0]->at_ms - loop_now_wall_ms(h->loop);
	in = in < 1 ? 1 : in > SLEEP_MS_MAX ? SLEEP_MS_MAX : in;
	loop_timer_set(&h->timer, in);
}

static void add(struct absent *a)
{
	struct session_home *h = a->home;
	struct absent *old = map_get(&h->absents, absent_id(a));
	if (old != NULL) {
		take_out(h, old);
		mem_free(old);
	}
	if (h->heap_count == h->heap_room) {
		uint32_t room = h->heap_room > 0 ? h->heap_room * 2 : 64;
		struct absent **heap = mem_resize(h->heap, room * sizeof *heap);
		if (heap == NULL) { /* the session stays until the next start */
			mem_free(a);
			return;
		}
		h->heap = heap;
		h->heap_room = room;
	}
	map_put(&h->absents, absent_id(a), a);
	a->place = h->heap_count++;
	sift_up(h, a);
	if (a->place == 0)
		arm(h);
}

static struct absent *make(struct session_home *h, struct bytes id, uint64_t epoch)
{
	struct absent *a = mem_try(sizeof *a + id.len);
	if (a == NULL)
		return NULL;
	*a = (struct absent){.home = h,
		.epoch = epoch,
		.ends_ms = INT64_MAX,
		.due_ms = INT64_MAX,
		.id_len = (uint16_t)id.len};
	memcpy(a->id, id.at, id.len);
	return a;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void add_or_drop(struct absent *a)
{
	a->at_ms = earlier(a->ends_ms, a->due_ms);
	if (a->at_ms == INT64_MAX || a->home->stopped)
		mem_free(a);
	else
		add(a);
}

/* Told by the loop its client was on */

struct telling {
	struct loop_msg msg;
	struct absent *absent;
};

static void on_told(struct loop_msg *m)
{
	struct telling *t = list_entry(m, struct telling, msg);
	add_or_drop(t->absent);
	mem_free(t);
}

void absent_tell(
	struct session_home *h, struct bytes id, uint64_t epoch, int64_t ends_ms, int64_t due_ms)
{
	if (ends_ms == INT64_MAX && due_ms == INT64_MAX)
		return;
	struct absent *a = make(h, id, epoch);
	if (a == NULL)
		return;
	a->ends_ms = ends_ms;
	a->due_ms = due_ms;
	struct telling *t = mem_new(sizeof *t);
	t->absent = a;
	t->msg.run = on_told;
	loop_post(h->loop, &t->msg);
}

struct session_home *session_home_of(struct sessions *all, const struct partition *table)
{
	return &all->homes[loop_index(partition_home(table))];
}

/* Its time has come */

struct ending { /* of one absent one: the will leaves first, then the rows go */
	struct absent *absent;
	struct row_read read;
	struct proposal proposal;
	struct partition *table;
	bool over; /* the session, not just the will's waiting */
	uint64_t *groups;
	uint32_t group_count;
};

static void end_finish(struct ending *e, bool again)
{
	struct absent *a = e->absent;
	struct session_home *h = a->home;
	if (again) {
		a->at_ms = loop_now_wall_ms(h->loop) + RETRY_MS;
		if (h->stopped || map_get(&h->absents, absent_id(a)) != NULL)
			mem_free(a);
		else
			add(a);
	} else if (!e->over) {
		a->due_ms = INT64_MAX;
		add_or_drop(a);
	} else {
		mem_free(a);
	}
	atomic_fetch_sub(&h->all->live, 1);
	mem_free(e->groups);
	mem_free(e);
}

static enum err end_evaluate(struct proposal *p, struct eval *v)
{
	struct ending *e = list_entry(p, struct ending, proposal);
	struct bytes id = absent_id(e->absent), value;
	struct session_row row;
	enum err err = eval_get(v, KEYSPACE_SESSION, id, &value);
	if (err != OK)
		return err;
	if (session_row_read(value, &row) != OK)
		return ERR_CORRUPT;
	if (row.epoch != e->absent->epoch)
		return ERR_CONFLICT;
	eval_delete(v, KEYSPACE_WILL, id);
	if (!e->over)
		return OK;
	mem_free(e->groups);
	e->groups = mem_new((row.group_count + 1) * sizeof *e->groups);
	e->group_count = row.group_count;
	for (uint32_t i = 0; i < row.group_count; i++)
		e->groups[i] = session_row_group(&row, i);
	eval_delete(v, KEYSPACE_SESSION, id);
	eval_delete(v, KEYSPACE_CURSOR, id);
	return OK;
}

static bool is_final(enum err e)
{
	return e == OK || e == ERR_NOTFOUND || e == ERR_CONFLICT || e == ERR_CORRUPT ||
		e == ERR_NOTLEADER || e == ERR_CLOSED;
}

static void on_ended(struct proposal *p)
{
	struct ending *e = list_entry(p, struct ending, proposal);
	struct absent *a = e->absent;
	if (p->err == OK && e->over)
		qos2_sweep(a->home->all, a->home->shard, absent_id(a), a->epoch, e->groups,
			e->group_count);
	else if (p->err != OK)
		e->over = true; /* gone, or another's: nothing to wait for */
	end_finish(e, !is_final(p->err));
}

static void propose_end(struct ending *e)
{
	e->proposal = (struct proposal){.to = e->table, .evaluate = end_evaluate, .done = on_ended};
	partition_propose(&e->proposal);
}

static void on_will_left(void *arg, enum err err)
{
	struct ending *e = arg;
	if (err == OK || err == ERR_TOOBIG || err == ERR_INVALID || err == ERR_DENIED ||
		err == ERR_CORRUPT)
		propose_end(e);
	else
		end_finish(e, true);
}

static void on_will_read(struct row_read *r)
{
	struct ending *e = list_entry(r, struct ending, read);
	enum err err = r->err;
	if (err == OK)
		err = will_publish(e->absent->home->shard, r->rows[0].value, on_will_left, e);
	else if (err == ERR_NOTFOUND)
		propose_end(e);
	bool again = err != OK && err != ERR_NOTFOUND;
	row_read_fini(r);
	if (again)
		end_finish(e, true);
}

static void end(struct absent *a)
{
	struct session_home *h = a->home;
	int64_t now = loop_now_wall_ms(h->loop);
	struct ending *e = mem_new(sizeof *e);
	e->absent = a;
	e->table = catalog_table(shard_catalog(h->shard), absent_id(a));
	e->over = a->ends_ms <= now;
	atomic_fetch_add(&h->all->live, 1);
	if (a->due_ms == INT64_MAX) {
		propose_end(e);
		return;
	}
	e->read = (struct row_read){.from = e->table,
		.keyspace = KEYSPACE_WILL,
		.linearizable = true,
		.key = absent_id(a),
		.rows_max = 1,
		.bytes_max = SIZE_MAX,
		.done = on_will_read};
	partition_read_rows(&e->read);
}

static void on_timer(struct loop_timer *t)
{
	struct session_home *h = list_entry(t, struct session_home, timer);
	int64_t now = loop_now_wall_ms(h->loop);
	for (int i = 0; i < AT_ONCE && h->heap_count > 0 && h->heap[0]->at_ms <= now; i++) {
		struct absent *a = h->heap[0];
		take_out(h, a);
		/* A client that is here again, and its new absence will be told. */
		if (map_get(&h->claims.holders, absent_id(a)) != NULL)
			mem_free(a);
		else
			end(a);
	}
	arm(h);
}

/* From the rows */

struct rebuild {
	struct session_home *home;
	int64_t now_ms;
};

static void rebuild_session(void *arg, struct bytes key, struct bytes value)
{
	struct rebuild *r = arg;
	struct session_row row;
	if (session_row_read(value, &row) != OK || key.len > UINT16_MAX) {
		LOG(LOG_ERROR, AREA_BROKER, "session_row_corrupt", "client=\"%s\"",
			log_text(key).text);
		return;
	}
	if (map_get(&r->home->claims.holders, key) != NULL)
		return;
	struct absent *a = make(r->home, key, row.epoch);
	if (a == NULL)
		return;
	a->ends_ms = a->at_ms = session_row_ends_ms(&row, r->now_ms);
	add(a);
}

/* A will without a time belongs to a client that was connected when the process ended. */
static void rebuild_will(void *arg, struct bytes key, struct bytes value)
{
	struct rebuild *r = arg;
	struct will w;
	if (will_read(value, &w) != OK || key.len > UINT16_MAX ||
		map_get(&r->home->claims.holders, key) != NULL)
		return;
	struct absent *a = map_get(&r->home->absents, key);
	if (a == NULL)
		return;
	int64_t due = w.due_ms > 0 ? w.due_ms : r->now_ms + (int64_t)w.delay_s * 1000;
	take_out(r->home, a);
	a->due_ms = earlier(due, a->ends_ms);
	add_or_drop(a);
}

/* Those for which there is nothing to do were kept until the wills had been seen. */
static void drop_endless(struct session_home *h)
{
	for (uint32_t i = 0; i < h->heap_count;) {
		struct absent *a = h->heap[i];
		if (a->at_ms < INT64_MAX) {
			i++;
			continue;
		}
		take_out(h, a);
		mem_free(a);
	}
}

static void rebuild_table(struct session_home *h, struct partition *table)
{
	struct rebuild r = {h, loop_now_wall_ms(h->loop)};
	if (partition_walk_rows(table, KEYSPACE_SESSION, rebuild_session, &r) != OK ||
		partition_walk_rows(table, KEYSPACE_WILL, rebuild_will, &r) != OK)
		LOG(LOG_ERROR, AREA_BROKER, "sessions_not_read", "group=%llu",
			(unsigned long long)partition_group(table));
	drop_endless(h);
	arm(h);
}

/* Tables at home here */

static void on_committed(struct watcher *w, struct entry *e)
{
	(void)w;
	(void)e;
}

static void on_led(struct watcher *w, bool leads)
{
	struct table_watch *t = list_entry(w, struct table_watch, watcher);
	if (leads && !t->home->stopped)
		rebuild_table(t->home, t->table);
}

static bool is_watched(const struct session_home *h, const struct partition *table)
{
	for (struct list *n = h->tables.next; n != &h->tables; n = n->next)
		if (list_entry(n, struct table_watch, node)->table == table)
			return true;
	return false;
}

static void on_catalog(struct catalog_watcher *w, const struct catalog *c)
{
	struct session_home *h = list_entry(w, struct session_home, catalog_watcher);
	for (int i = 0; i < catalog_table_count(c) && !h->stopped; i++) {
		struct partition *p = catalog_table_at(c, i);
		if (partition_home(p) != h->loop || is_watched(h, p))
			continue;
		struct table_watch *t = mem_new(sizeof *t);
		t->home = h;
		t->table = p;
		t->watcher.committed = on_committed;
		t->watcher.led = on_led;
		list_init(&t->watcher.node);
		list_push_back(&h->tables, &t->node);
		partition_watch(p, &t->watcher);
		if (partition_leads(p))
			rebuild_table(h, p);
	}
}

void absent_home_init(struct session_home *h)
{
	list_init(&h->tables);
	loop_timer_init(&h->timer, h->loop, on_timer);
	h->catalog_watcher.loop = h->loop;
	h->catalog_watcher.changed = on_catalog;
	list_init(&h->catalog_watcher.node);
	node_watch_catalog(shard_node(h->shard), &h->catalog_watcher);
}

void absent_home_stop(struct session_home *h)
{
	h->stopped = true;
	loop_timer_cancel(&h->timer);
	struct list *n;
	while ((n = list_pop(&h->tables)) != NULL) {
		struct table_watch *t = list_entry(n, struct table_watch, node);
		partition_unwatch(t->table, &t->watcher);
		mem_free(t);
	}
}

void absent_home_fini(struct session_home *h)
{
	for (uint32_t i = 0; i < h->heap_count; i++)
		mem_free(h->heap[i]);
	mem_free(h->heap);
	map_fini(&h->absents);
}
