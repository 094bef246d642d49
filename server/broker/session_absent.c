/* Sessions whose client is away and for which something is to be done in time: the session ends, or
 * its will is due. They are known where their table is led, on its home loop, in a heap by time:
 * made from the rows when this node begins to lead it, kept true by what is committed from then on.
 * What is done is a proposal that looks at the row first: if the client has come back meanwhile,
 * the epoch has moved and nothing happens. A will is taken before it is published, published under
 * its session's name and epoch, and forgotten afterwards; so whoever goes on with that, after
 * whatever failure, does not publish it twice. */
#include "server/base/log.h"
#include "server/broker/session_priv.h"
#include "storage/change.h"

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

static void forget(struct session_home *h, struct bytes id)
{
	struct absent *old = map_get(&h->absents, id);
	if (old == NULL)
		return;
	take_out(h, old);
	mem_free(old);
}

static void add(struct absent *a)
{
	struct session_home *h = a->home;
	forget(h, absent_id(a));
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

struct session_home *session_home_of(struct sessions *all, const struct partition *table)
{
	return &all->homes[loop_index(partition_home(table))];
}

/* Its time has come */

struct ending { /* of an absent one: its will is taken, leaves, then the rows go */
	struct absent *absent;
	struct proposal proposal;
	struct buf args;
	enum session_end_step step;
	bool over; /* the session, not just the will's waiting */
	uint64_t *groups;
	uint32_t group_count;
};

static void end_finish(struct ending *e, bool again)
{
	struct absent *a = e->absent;
	struct session_home *h = a->home;
	bool other = map_get(&h->absents, absent_id(a)) != NULL; /* away once more, meanwhile */
	if (again && !other && !h->stopped) {
		a->at_ms = loop_now_wall_ms(h->loop) + RETRY_MS;
		add(a);
	} else if (!again && !e->over && !other) {
		a->due_ms = INT64_MAX;
		add_or_drop(a);
	} else {
		mem_free(a);
	}
	atomic_fetch_sub(&h->all->live, 1);
	buf_fini(&e->args);
	mem_free(e->groups);
	mem_free(e);
}

static bool is_final(enum err e)
{
	return e == ERR_NOTFOUND || e == ERR_CONFLICT || e == ERR_CORRUPT || e == ERR_NOTLEADER ||
		e == ERR_CLOSED;
}

static void on_step(struct proposal *p);

static void propose_step(struct ending *e, enum session_end_step step)
{
	const struct absent *a = e->absent;
	e->step = step;
	buf_clear(&e->args);
	session_end_args(&e->args, step, a->epoch, absent_id(a));
	e->proposal = (struct proposal){
		.to = catalog_table(shard_catalog(a->home->shard), absent_id(a)),
		.kind = &session_end_kind,
		.args = buf_bytes(&e->args),
		.repeatable = true,
		.done = on_step};
	if (e->args.err == OK)
		partition_propose(&e->proposal);
	else
		end_finish(e, true);
}

static void on_will_left(void *arg, enum err err)
{
	struct ending *e = arg;
	if (will_is_over(err))
		propose_step(e, e->over ? SESSION_END : SESSION_FORGET_WILL);
	else
		end_finish(e, true);
}

static void will_taken(struct ending *e, struct bytes reply)
{
	const struct absent *a = e->absent;
	struct will_of whose = {absent_id(a), a->epoch, false};
	struct bytes groups, will;
	if (session_taken_read(reply, &e->group_count, &groups, &will) != OK) {
		end_finish(e, true);
		return;
	}
	e->groups = mem_new((e->group_count + 1) * sizeof *e->groups);
	for (uint32_t i = 0; i < e->group_count; i++)
		e->groups[i] = get_u64be(groups.at + (size_t)i * 8);
	if (will.len == 0)
		propose_step(e, e->over ? SESSION_END : SESSION_FORGET_WILL);
	else if (will_publish(a->home->shard, will, &whose, on_will_left, e) != OK)
		end_finish(e, true);
}

static void on_step(struct proposal *p)
{
	struct ending *e = list_entry(p, struct ending, proposal);
	const struct absent *a = e->absent;
	if (p->err != OK) {
		e->over |= is_final(p->err); /* gone, or another's: nothing to wait for */
		end_finish(e, !is_final(p->err));
	} else if (e->step == SESSION_TAKE_WILL) {
		will_taken(e, p->reply.bytes);
	} else {
		if (e->step == SESSION_END)
			qos2_sweep(a->home->all, a->home->shard, absent_id(a), a->epoch, e->groups,
				e->group_count);
		end_finish(e, false);
	}
}

static void end(struct absent *a)
{
	struct session_home *h = a->home;
	struct partition *table = catalog_table(shard_catalog(h->shard), absent_id(a));
	if (!partition_leads(table)) { /* who leads it does this */
		mem_free(a);
		return;
	}
	struct ending *e = mem_new(sizeof *e);
	e->absent = a;
	buf_init(&e->args, UINT16_MAX + 16);
	e->over = a->ends_ms <= loop_now_wall_ms(h->loop);
	atomic_fetch_add(&h->all->live, 1);
	propose_step(e, SESSION_TAKE_WILL);
}

static void on_timer(struct loop_timer *t)
{
	struct session_home *h = list_entry(t, struct session_home, timer);
	int64_t now = loop_now_wall_ms(h->loop);
	for (int i = 0; i < AT_ONCE && h->heap_count > 0 && h->heap[0]->at_ms <= now; i++) {
		struct absent *a = h->heap[0];
		take_out(h, a);
		end(a); /* the row decides: its client may be here again */
	}
	arm(h);
}

/* From the rows */

struct rebuild {
	struct table_watch *table;
	int64_t now_ms;
};

static void rebuild_session(void *arg, struct bytes key, struct bytes value)
{
	struct rebuild *r = arg;
	struct session_row row;
	if (session_row_head(value, &row) != OK || key.len > UINT16_MAX) {
		LOG(LOG_ERROR, AREA_BROKER, "session_row_corrupt", "client=\"%s\"",
			log_text(key).text);
		return;
	}
	if (row.connected) {
		gone_owner_seen(r->table, row.owner);
		return;
	}
	struct absent *a = make(r->table->home, key, row.epoch);
	if (a == NULL)
		return;
	a->ends_ms = a->at_ms = session_row_ends_ms(&row, r->now_ms);
	add(a);
}

static void rebuild_will(void *arg, struct bytes key, struct bytes value)
{
	struct rebuild *r = arg;
	struct session_home *h = r->table->home;
	struct will w;
	struct absent *a = map_get(&h->absents, key);
	if (a == NULL || will_read(value, &w) != OK || w.due_ms == 0)
		return;
	take_out(h, a);
	a->due_ms = earlier(w.due_ms, a->ends_ms);
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

static void rebuild_table(struct table_watch *t)
{
	struct session_home *h = t->home;
	struct rebuild r = {t, loop_now_wall_ms(h->loop)};
	if (partition_walk_rows(t->table, KEYSPACE_SESSION, rebuild_session, &r) != OK ||
		partition_walk_rows(t->table, KEYSPACE_WILL, rebuild_will, &r) != OK)
		LOG(LOG_ERROR, AREA_BROKER, "sessions_not_read", "group=%llu",
			(unsigned long long)partition_group(t->table));
	drop_endless(h);
	arm(h);
	gone_table_led(t);
}

/* From the log: who has gone, and who is back. */

struct seen_will { /* the will put last; the session it belongs to follows it */
	struct bytes id;
	int64_t due_ms;
};

static void see_session(
	struct table_watch *t, const struct row_change *c, const struct seen_will *will)
{
	struct session_home *h = t->home;
	struct session_row row;
	struct absent *a = map_get(&h->absents, c->key);
	bool there = c->op == ROW_PUT && c->key.len <= UINT16_MAX &&
		session_row_head(c->value, &row) == OK;
	if (there && row.connected)
		gone_owner_seen(t, row.owner);
	if (there && !row.connected) {
		a = make(h, c->key, row.epoch);
		if (a == NULL)
			return;
		a->ends_ms = session_row_ends_ms(&row, loop_now_wall_ms(h->loop));
		if (bytes_equal(will->id, c->key))
			a->due_ms = earlier(will->due_ms, a->ends_ms);
		forget(h, c->key);
		add_or_drop(a);
	} else if (a != NULL) {
		forget(h, c->key);
		arm(h);
	}
}

static void on_committed(struct watcher *w, struct entry *e)
{
	struct table_watch *t = list_entry(w, struct table_watch, watcher);
	struct seen_will will = {.due_ms = INT64_MAX};
	struct change_rows rows;
	struct row_change c;
	struct will read;
	if (t->led_ms == 0 || t->home->stopped || change_rows_init(&rows, e) != OK)
		return;
	while (change_rows_next(&rows, &c) == OK) {
		if (c.keyspace == KEYSPACE_SESSION)
			see_session(t, &c, &will);
		if (c.keyspace != KEYSPACE_WILL)
			continue;
		bool put = c.op == ROW_PUT && will_read(c.value, &read) == OK && read.due_ms > 0;
		will.id = c.key;
		will.due_ms = put ? read.due_ms : INT64_MAX;
	}
}

/* Tables at home here */

static void on_led(struct watcher *w, bool leads)
{
	struct table_watch *t = list_entry(w, struct table_watch, watcher);
	if (t->home->stopped)
		return;
	if (leads)
		rebuild_table(t);
	else
		gone_table_end(t);
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
		list_init(&t->owners);
		t->watcher.committed = on_committed;
		t->watcher.led = on_led;
		t->watcher.local = true; /* who does not lead has nothing to do */
		list_init(&t->watcher.node);
		list_push_back(&h->tables, &t->node);
		partition_watch(p, &t->watcher);
		if (partition_leads(p))
			rebuild_table(t);
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
		gone_table_end(t);
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
