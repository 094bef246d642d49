/* Routing and storing for groups. A call travels to the home loop of its group's table; there a
 * slot holds the group. A new slot first reads the group's row, calls wait meanwhile. The
 * generation is stored before anyone is told an assignment of it. A slot that is idle is forgotten
 * at once: it can be made again from the row.
 *
 * When leadership of the table is lost, or it is led under another term than a group was loaded in,
 * what is in memory may be old: all slots of the table are dropped and who waits is told to look
 * for the coordinator. That one loads the members with the group, so they go on as if nothing was.
 * With its first call it loads all groups that have members: those that nobody speaks for any more
 * end there, too. Lists wait until that is done, for a group's state is known to its slot alone. */
#include "server/broker/group_home.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/broker/group_state.h"
#include "server/broker/group_store.h"
#include "server/broker/keyspace.h"
#include "server/broker/producer_expire.h"
#include "server/broker/tenant.h"

enum { ROW_VERSION = 1, PAGE_ROWS = 500, PAGE_BYTES = 1 << 20, ID_BYTES_MAX = 32767 };
enum { STORE_BYTES_MAX = GROUP_STATE_BYTES_MAX + (1 << 18), OFFSETS_BYTES_MAX = 256 << 20 };

struct table_home { /* one table's groups; its home loop's */
	struct watcher watcher;
	struct groups *groups;
	struct partition *table;
	struct loop *loop;
	int32_t epoch;
	struct map slots;       /* by group id */
	struct row_read learn;  /* groups with members, led here anew */
	struct buf learn_after; /* where its next page begins */
	bool learning;          /* that read is under way */
	bool learn_again;       /* and is of an older term */
	uint32_t unlearned;     /* slots made by it that are not loaded yet */
	struct list lists;      /* calls that wait for both, and for the one before them */
	struct buf list_after;  /* where the next page of a list begins */
	bool listing;           /* one is under way */
};

struct groups {
	const struct group_conf *conf;
	struct loops *all;
	int count;           /* of loops */
	struct groups_loop { /* one per loop, which owns it */
		struct loop_msg msg;
		struct groups *groups;
		struct map tables; /* by the partition's group number */
		struct group_budget budget;
		bool stopped;
	} * loops;
};

struct slot {
	struct group group;
	struct slice id;
	struct table_home *home;
	struct loop_timer timer;
	struct list waiting; /* calls, while loading or deleting */
	struct row_read load;
	struct proposal store;
	struct buf store_args;
	int32_t storing_generation;
	uint32_t pending; /* completions that will come: keeps the memory */
	bool loaded, exists, deleting, gone;
	bool unlearned;            /* counted by its table */
	bool storing, store_again; /* a store is on its way; and is old already */
};

struct groups *groups_new(const struct group_conf *conf, struct loops *loops)
{
	struct groups *g = mem_new(sizeof *g);
	int count = loops_count(loops);
	proposal_kind_add(&group_store_kind);
	proposal_kind_add(&group_offsets_kind);
	proposal_kind_add(&group_delete_kind);
	g->conf = conf;
	g->all = loops;
	g->count = count;
	g->loops = mem_new((size_t)count * sizeof *g->loops);
	for (int i = 0; i < count; i++)
		g->loops[i].groups = g;
	return g;
}

/* Answering */

static void on_answer(struct loop_msg *m)
{
	struct group_call *c = list_entry(m, struct group_call, msg);
	c->done(c);
}

static void answer(struct group_call *c, enum group_err err)
{
	c->err = err;
	c->msg.run = on_answer;
	loop_post(c->from, &c->msg);
}

static enum group_err err_group(enum err e)
{
	return e == OK               ? GROUP_OK
		: e == ERR_NOTLEADER ? GROUP_NOT_HERE
		: e == ERR_TOOBIG    ? GROUP_METADATA_TOOBIG
				     : GROUP_UNAVAILABLE;
}

void group_call_fini(struct group_call *c)
{
	group_join_fini(&c->join);
	group_sync_fini(&c->sync);
	slice_unref(&c->type);
	slice_unref(&c->protocol);
	group_views_free(c->members, c->member_count);
	for (uint32_t i = 0; i < c->listed_count; i++) {
		slice_unref(&c->listed[i].id);
		slice_unref(&c->listed[i].type);
	}
	mem_free(c->listed);
	c->members = NULL;
	c->listed = NULL;
	c->member_count = c->listed_count = 0;
}

/* The group's row */

void group_row_write(struct buf *out, const struct group_row *row)
{
	buf_add_u8(out, ROW_VERSION);
	buf_add_u32be(out, (uint32_t)row->generation);
	buf_add_u64be(out, (uint64_t)row->time_ms);
	buf_add(out, row->protocol_type);
}

enum err group_row_read(struct bytes in, struct group_row *out)
{
	struct rd r = rd_over(in);
	if (rd_u8(&r) != ROW_VERSION)
		return ERR_CORRUPT;
	out->generation = (int32_t)rd_u32be(&r);
	out->time_ms = (int64_t)rd_u64be(&r);
	out->protocol_type = rd_take(&r, rd_left(&r));
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

/* Slots */

static void slot_free_if_unused(struct slot *s)
{
	if (!s->gone || s->pending > 0)
		return;
	loop_timer_cancel(&s->timer);
	slice_unref(&s->id);
	mem_free(s);
}

static void lists_go_on(struct table_home *t);

static void slot_learned(struct slot *s)
{
	if (!s->unlearned)
		return;
	s->unlearned = false;
	s->home->unlearned--;
	lists_go_on(s->home);
}

/* Takes the slot out; all who wait are answered why. */
static void slot_drop(struct slot *s, enum group_err why)
{
	struct list *l;
	slot_learned(s);
	map_remove(&s->home->slots, s->id.bytes);
	loop_timer_cancel(&s->timer);
	s->gone = true;
	s->pending++;
	while ((l = list_pop(&s->waiting)) != NULL)
		answer(list_entry(l, struct group_call, node), why);
	group_fini(&s->group, why);
	s->pending--;
	slot_free_if_unused(s);
}

static void table_drop_all(struct table_home *t, enum group_err why)
{
	uint32_t at = 0;
	struct slot *s;
	for (struct list *l; (l = list_pop(&t->lists)) != NULL;)
		answer(list_entry(l, struct group_call, node), why);
	while ((s = map_next(&t->slots, &at)) != NULL)
		slot_drop(s, why);
}

/* Does what is due in the group, forgets it when idle, else sets its timer. May free s. */
static void slot_settle(struct slot *s)
{
	if (s->gone)
		return;
	int64_t now = loop_now_ms(s->home->loop);
	int64_t next = group_tick(&s->group, now);
	if (s->loaded && !s->deleting && s->pending == 0 && list_empty(&s->waiting) &&
		group_idle(&s->group)) {
		slot_drop(s, GROUP_UNAVAILABLE);
		return;
	}
	if (next > 0)
		loop_timer_set(&s->timer, next > now ? next - now : 1);
	else
		loop_timer_cancel(&s->timer);
}

static void on_timer(struct loop_timer *t)
{
	slot_settle(list_entry(t, struct slot, timer));
}

static void begin_store(struct slot *s);

static void on_stored(struct proposal *p)
{
	struct slot *s = list_entry(p, struct slot, store);
	bool ok = p->err == OK;
	buf_fini(&s->store_args);
	s->pending--;
	s->storing = false;
	if (s->gone) {
		slot_free_if_unused(s);
		return;
	}
	if (p->err == ERR_NOTLEADER || p->err == ERR_CONFLICT) {
		slot_drop(s, GROUP_NOT_HERE);
		return;
	}
	s->exists |= ok;
	group_stored(&s->group, s->storing_generation, ok, loop_now_ms(s->home->loop));
	if (s->store_again)
		begin_store(s);
	else
		group_kept(&s->group, ok, loop_now_ms(s->home->loop));
	slot_settle(s);
}

/* Members that are too many to be kept are not: they join again where the group is led next. */
static void store_args(struct slot *s)
{
	struct group_row row = {.generation = s->group.generation,
		.time_ms = loop_now_wall_ms(s->home->loop),
		.protocol_type = s->group.protocol_type.bytes};
	struct buf state;
	buf_init(&state, GROUP_STATE_BYTES_MAX);
	group_state_write(&s->group, &state);
	buf_init(&s->store_args, STORE_BYTES_MAX);
	group_store_args(&s->store_args, s->id.bytes, &row,
		state.err == OK ? buf_bytes(&state) : bytes_of(NULL, 0));
	buf_fini(&state);
}

static void begin_store(struct slot *s)
{
	s->pending++;
	s->storing = true;
	s->store_again = false;
	s->storing_generation = s->group.generation;
	store_args(s);
	s->store = (struct proposal){.to = s->home->table,
		.kind = &group_store_kind,
		.args = buf_bytes(&s->store_args),
		.leader_only = true,
		.done = on_stored};
	partition_propose(&s->store);
}

/* A member that goes while nobody was ever assigned anything leaves nothing to be stored. */
static void on_store(struct group *g)
{
	struct slot *s = list_entry(g, struct slot, group);
	if (s->storing)
		s->store_again = true;
	else if (g->storing || s->exists)
		begin_store(s);
	else
		group_kept(g, true, loop_now_ms(s->home->loop));
}

static void run_call(struct slot *s, struct group_call *c);

/* The group is what its rows say: calls that waited for it run. */
static void slot_loaded(struct slot *s)
{
	struct list *l;
	s->loaded = true;
	slot_learned(s);
	s->pending++;
	while (!s->gone && !s->deleting && (l = list_pop(&s->waiting)) != NULL)
		run_call(s, list_entry(l, struct group_call, node));
	s->pending--;
	if (s->gone)
		slot_free_if_unused(s);
	else
		slot_settle(s);
}

/* The read of a row has ended. False: so has the slot. */
static bool load_ended(struct slot *s, enum err e)
{
	s->pending--;
	row_read_fini(&s->load);
	if (s->gone) {
		slot_free_if_unused(s);
		return false;
	}
	if (e != OK)
		slot_drop(s, err_group(e));
	return e == OK;
}

static void on_state_loaded(struct row_read *r)
{
	struct slot *s = list_entry(r, struct slot, load);
	struct group_state_row row;
	enum err e = r->err;
	if (e == OK && r->count > 0 && !s->gone &&
		group_state_row_read(r->rows[0].value, &row) == OK &&
		row.generation == s->group.generation) {
		enum err read = group_state_read(&s->group, row.state, loop_now_ms(s->home->loop));
		if (read != OK) /* they join again */
			LOG(LOG_WARN, AREA_KAFKA, "group_not_kept", "group=%s err=\"%s\"",
				log_text(s->id.bytes).text, err_text(read));
	}
	if (load_ended(s, e == ERR_NOTFOUND ? OK : e))
		slot_loaded(s);
}

static void load_row(struct slot *s, uint8_t keyspace, void (*done)(struct row_read *r))
{
	s->pending++;
	s->load = (struct row_read){.from = s->home->table,
		.keyspace = keyspace,
		.linearizable = true,
		.key = s->id.bytes,
		.done = done};
	partition_read_rows(&s->load);
}

static void on_loaded(struct row_read *r)
{
	struct slot *s = list_entry(r, struct slot, load);
	struct group_row row = {0};
	enum err e = r->err;
	if (e == OK && r->count > 0 && !s->gone) {
		s->exists = true;
		e = group_row_read(r->rows[0].value, &row);
		if (e == OK && row.protocol_type.len > 0)
			e = slice_copy(row.protocol_type, &s->group.protocol_type);
	}
	if (!load_ended(s, e == ERR_NOTFOUND ? OK : e))
		return;
	s->group.generation = row.generation;
	if (s->exists)
		load_row(s, KEYSPACE_GROUP_STATE, on_state_loaded);
	else
		slot_loaded(s);
}

static struct slot *slot_new(struct table_home *t, struct bytes id)
{
	struct slot *s = mem_new(sizeof *s);
	if (slice_copy(id, &s->id) != OK) {
		mem_free(s);
		return NULL;
	}
	s->home = t;
	list_init(&s->waiting);
	loop_timer_init(&s->timer, t->loop, on_timer);
	group_init(&s->group, t->groups->conf, 0);
	s->group.budget = &t->groups->loops[loop_index(t->loop)].budget;
	s->group.store = on_store;
	map_put(&t->slots, s->id.bytes, s);
	load_row(s, KEYSPACE_GROUP, on_loaded);
	return s;
}

/* Calls on a loaded group */

static void on_join(struct group_join *j)
{
	struct group_call *c = list_entry(j, struct group_call, join);
	answer(c, j->err);
}

static void on_sync(struct group_sync *s)
{
	struct group_call *c = list_entry(s, struct group_call, sync);
	answer(c, s->err);
}

static void run_leave(struct slot *s, struct group_call *c)
{
	int64_t now = loop_now_ms(s->home->loop);
	for (uint32_t i = 0; i < c->leaver_count; i++) {
		struct group_leaver *l = &c->leavers[i];
		l->err = group_leave(&s->group, l->member_id, l->instance_id, now);
	}
	answer(c, GROUP_OK);
}

static void run_describe(struct slot *s, struct group_call *c)
{
	c->state = s->exists || group_size(&s->group) > 0 ? s->group.state : GROUP_DEAD;
	c->type = slice_ref(s->group.protocol_type);
	c->protocol = slice_ref(s->group.protocol);
	answer(c, err_group(group_views(&s->group, &c->members, &c->member_count)));
}

/* Offsets: put or deleted in one proposal with the group's row, if there is none yet or it has not
 * been written for long. */

static void propose(struct slot *s, struct group_call *c, const struct proposal_kind *kind,
	void (*done)(struct proposal *p))
{
	c->proposal = (struct proposal){.to = s->home->table,
		.kind = kind,
		.args = buf_bytes(&c->args),
		.leader_only = true,
		.done = done};
	partition_propose(&c->proposal);
}

static void on_offsets(struct proposal *p)
{
	struct group_call *c = list_entry(p, struct group_call, proposal);
	struct slot *s = c->slot;
	s->exists |= p->err == OK;
	s->pending--;
	buf_fini(&c->args);
	answer(c, err_group(p->err));
	if (s->gone)
		slot_free_if_unused(s);
	else
		slot_settle(s);
}

static void propose_offsets(struct slot *s, struct group_call *c)
{
	int64_t now_ms = loop_now_wall_ms(s->home->loop);
	buf_init(&c->args, OFFSETS_BYTES_MAX);
	group_offsets_args(&c->args,
		&(struct group_offsets_what){.group_id = c->group_id,
			.offsets = c->offsets,
			.count = c->offset_count,
			.forget = c->kind == GROUP_CALL_FORGET,
			.now_ms = now_ms,
			.renew_before_ms = now_ms -
				expire_period_ms(c->groups->conf->offsets_keep_ms)});
	if (c->args.err != OK) {
		buf_fini(&c->args);
		answer(c, GROUP_UNAVAILABLE);
		return;
	}
	s->pending++;
	c->slot = s;
	propose(s, c, &group_offsets_kind, on_offsets);
}

static void run_commit(struct slot *s, struct group_call *c)
{
	const struct group_conf *conf = s->home->groups->conf;
	enum group_err ge = group_may_commit(
		&s->group, c->generation, c->member_id, c->instance_id, loop_now_ms(s->home->loop));
	uint32_t good = 0;
	for (uint32_t i = 0; i < c->offset_count; i++) {
		struct group_offset *o = &c->offsets[i];
		if (o->err == GROUP_OK && o->metadata.len > (size_t)conf->offset_metadata_max)
			o->err = GROUP_METADATA_TOOBIG;
		good += o->err == GROUP_OK;
	}
	if (ge != GROUP_OK || good == 0)
		answer(c, ge);
	else
		propose_offsets(s, c);
}

/* Members do not lose what they have read of what they read (Kafka's OffsetDelete). */
static void run_forget(struct slot *s, struct group_call *c)
{
	bool members = group_size(&s->group) > 0;
	uint32_t good = 0;
	for (uint32_t i = 0; i < c->offset_count; i++) {
		struct group_offset *o = &c->offsets[i];
		if (members && o->err == GROUP_OK && group_subscribes(&s->group, o->topic))
			o->err = GROUP_SUBSCRIBED;
		good += o->err == GROUP_OK;
	}
	if (!s->exists && !members)
		answer(c, GROUP_NOT_FOUND);
	else if (members && !group_consumers(&s->group))
		answer(c, GROUP_NOT_EMPTY);
	else if (good == 0)
		answer(c, GROUP_OK);
	else
		propose_offsets(s, c);
}

/* Deleting a group: its offsets a page at a time, then its row. */

static void delete_page(struct slot *s, struct group_call *c);

static void delete_end(struct slot *s, struct group_call *c, enum err e)
{
	struct list *l;
	s->deleting = false;
	answer(c, err_group(e));
	if (e == OK)
		s->exists = false;
	s->pending++;
	while (!s->gone && !s->deleting && (l = list_pop(&s->waiting)) != NULL)
		run_call(s, list_entry(l, struct group_call, node));
	s->pending--;
	if (s->gone)
		slot_free_if_unused(s);
	else
		slot_settle(s);
}

static void on_deleted(struct proposal *p)
{
	struct group_call *c = list_entry(p, struct group_call, proposal);
	struct slot *s = c->slot;
	bool more = c->rows.more;
	row_read_fini(&c->rows);
	buf_fini(&c->args);
	mem_free(c->listed); /* held the prefix */
	c->listed = NULL;
	s->pending--;
	if (p->err == OK && more && !s->gone)
		delete_page(s, c);
	else /* a slot that went with pages left has not deleted the group */
		delete_end(s, c, p->err == OK && more ? ERR_NOTLEADER : p->err);
}

static void on_delete_page(struct row_read *r)
{
	struct group_call *c = list_entry(r, struct group_call, rows);
	struct slot *s = c->slot;
	if (r->err != OK && r->err != ERR_NOTFOUND) {
		enum err e = r->err;
		row_read_fini(r);
		mem_free(c->listed);
		c->listed = NULL;
		s->pending--;
		delete_end(s, c, e);
		return;
	}
	buf_init(&c->args, OFFSETS_BYTES_MAX);
	group_delete_args(&c->args, c->group_id, !r->more, r->rows, r->count);
	propose(s, c, &group_delete_kind, on_deleted);
}

static void delete_page(struct slot *s, struct group_call *c)
{
	uint8_t *prefix = mem_try(c->group_id.len + 2);
	if (prefix == NULL) {
		delete_end(s, c, ERR_NOMEM);
		return;
	}
	put_u16be(prefix, (uint16_t)c->group_id.len);
	memcpy(prefix + 2, c->group_id.at, c->group_id.len);
	c->listed = (void *)prefix;
	s->deleting = true;
	s->pending++;
	c->slot = s;
	c->rows = (struct row_read){.from = s->home->table,
		.keyspace = KEYSPACE_GROUP_OFFSET,
		.prefix = true,
		.key = bytes_of(prefix, c->group_id.len + 2),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_delete_page};
	partition_read_rows(&c->rows);
}

static void run_delete(struct slot *s, struct group_call *c)
{
	if (group_size(&s->group) > 0)
		answer(c, GROUP_NOT_EMPTY);
	else if (!s->exists)
		answer(c, GROUP_NOT_FOUND);
	else
		delete_page(s, c);
}

static void run_join(struct slot *s, struct group_call *c)
{
	if (group_size(&s->group) == 0 &&
		s->home->slots.count > (uint64_t)s->home->groups->conf->groups_max) {
		answer(c, GROUP_FULL);
		return;
	}
	c->join.done = on_join;
	group_join(&s->group, &c->join, loop_now_ms(s->home->loop));
}

static void run_call(struct slot *s, struct group_call *c)
{
	int64_t now = loop_now_ms(s->home->loop);
	switch (c->kind) {
	case GROUP_CALL_JOIN: run_join(s, c); break;
	case GROUP_CALL_SYNC:
		c->sync.done = on_sync;
		group_sync(&s->group, &c->sync, now);
		break;
	case GROUP_CALL_HEARTBEAT:
		answer(c,
			group_heartbeat(
				&s->group, c->generation, c->member_id, c->instance_id, now));
		break;
	case GROUP_CALL_LEAVE: run_leave(s, c); break;
	case GROUP_CALL_COMMIT: run_commit(s, c); break;
	case GROUP_CALL_FORGET: run_forget(s, c); break;
	case GROUP_CALL_DESCRIBE: run_describe(s, c); break;
	case GROUP_CALL_DELETE: run_delete(s, c); break;
	case GROUP_CALL_LIST:
	case GROUP_CALL_COUNT: must(false);
	}
}

/* Lists: the rows of a table, and the groups in memory that have none yet. One after another: each
 * holds a copy of all that it lists. */

static enum err list_add(
	struct group_call *c, struct bytes id, struct bytes type, enum group_state state)
{
	struct bytes tenant, bare;
	tenant_id_split(id, &tenant, &bare);
	if (c->tenant != NULL && !bytes_equal(tenant, *c->tenant))
		return OK;
	if ((c->listed_count & (c->listed_count - 1)) == 0) { /* full at each power of two */
		size_t room = c->listed_count ? (size_t)c->listed_count * 2 : 1;
		struct group_listed *more = mem_resize(c->listed, room * sizeof *more);
		if (more == NULL)
			return ERR_NOMEM;
		c->listed = more;
	}
	struct group_listed *l = &c->listed[c->listed_count];
	*l = (struct group_listed){.state = state};
	enum err e = slice_copy(id, &l->id);
	if (e == OK && type.len > 0)
		e = slice_copy(type, &l->type);
	c->listed_count++;
	return e;
}

static void list_page(struct table_home *t, struct group_call *c);

static enum err list_rows(const struct table_home *t, struct group_call *c)
{
	enum err e = OK;
	for (int i = 0; i < c->rows.count && e == OK; i++) {
		const struct row *row = &c->rows.rows[i];
		const struct slot *s = map_get(&t->slots, row->key);
		struct group_row kept;
		if (group_row_read(row->value, &kept) != OK)
			continue;
		bool live = s != NULL && s->loaded && group_size(&s->group) > 0;
		e = list_add(c, row->key, live ? s->group.protocol_type.bytes : kept.protocol_type,
			live ? s->group.state : GROUP_EMPTY);
	}
	return e;
}

static void on_list_page(struct row_read *r)
{
	struct group_call *c = list_entry(r, struct group_call, rows);
	struct table_home *t = c->slot;
	enum err e = r->err == ERR_NOTFOUND ? OK : r->err;
	if (e == OK)
		e = list_rows(t, c);
	bool more = e == OK && r->more && r->count > 0;
	buf_clear(&t->list_after);
	if (more)
		buf_add(&t->list_after, r->rows[r->count - 1].key);
	row_read_fini(r);
	if (more) {
		list_page(t, c);
		return;
	}
	uint32_t at = 0;
	struct slot *s;
	while (e == OK && (s = map_next(&t->slots, &at)) != NULL)
		if (s->loaded && !s->exists && group_size(&s->group) > 0)
			e = list_add(c, s->id.bytes, s->group.protocol_type.bytes, s->group.state);
	t->listing = false;
	answer(c, err_group(e));
	lists_go_on(t);
}

static void list_page(struct table_home *t, struct group_call *c)
{
	t->listing = true;
	c->slot = t;
	c->rows = (struct row_read){.from = t->table,
		.keyspace = KEYSPACE_GROUP,
		.prefix = true,
		.after = buf_bytes(&t->list_after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_list_page};
	partition_read_rows(&c->rows);
}

static void lists_go_on(struct table_home *t)
{
	if (!t->listing && !t->learning && t->unlearned == 0 && !list_empty(&t->lists))
		list_page(t, list_entry(list_pop(&t->lists), struct group_call, node));
}

/* Led anew: what has members */

static void learn_page(struct table_home *t);

static void learn_rows(struct table_home *t, const struct row_read *r)
{
	for (int i = 0; i < r->count; i++) {
		struct bytes id = r->rows[i].key;
		struct slot *s = map_get(&t->slots, id);
		if (s != NULL || (s = slot_new(t, id)) == NULL)
			continue;
		s->unlearned = true;
		t->unlearned++;
	}
}

static void on_learned(struct row_read *r)
{
	struct table_home *t = list_entry(r, struct table_home, learn);
	bool mine = !t->learn_again && partition_leads(t->table) &&
		!t->groups->loops[loop_index(t->loop)].stopped;
	bool more = mine && r->err == OK && r->more && r->count > 0;
	t->learning = false;
	if (mine && r->err == OK)
		learn_rows(t, r);
	buf_clear(&t->learn_after);
	if (more)
		buf_add(&t->learn_after, r->rows[r->count - 1].key);
	row_read_fini(r);
	if (more || t->learn_again)
		learn_page(t);
	else
		lists_go_on(t);
}

static void learn_page(struct table_home *t)
{
	t->learning = true;
	t->learn_again = false;
	t->learn = (struct row_read){.from = t->table,
		.keyspace = KEYSPACE_GROUP_STATE,
		.prefix = true,
		.after = buf_bytes(&t->learn_after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_learned};
	partition_read_rows(&t->learn);
}

static void learn(struct table_home *t)
{
	if (t->learning)
		t->learn_again = true;
	else
		learn_page(t);
}

/* Arriving at the home loop */

static void on_led(struct watcher *w, bool leads)
{
	struct table_home *t = list_entry(w, struct table_home, watcher);
	if (!leads)
		table_drop_all(t, GROUP_NOT_HERE);
}

static struct table_home *table_home(struct groups_loop *gl, struct partition *table)
{
	struct table_home *t = map_get_u64(&gl->tables, partition_group(table));
	if (t == NULL) {
		t = mem_new(sizeof *t);
		t->groups = gl->groups;
		t->table = table;
		t->loop = partition_home(table);
		t->epoch = -1;
		list_init(&t->lists);
		buf_init(&t->learn_after, ID_BYTES_MAX + TENANT_ID_EXTRA + 1);
		buf_init(&t->list_after, ID_BYTES_MAX + TENANT_ID_EXTRA + 1);
		t->watcher = (struct watcher){.led = on_led, .local = true};
		(void)partition_watch(table, &t->watcher);
		map_put_u64(&gl->tables, partition_group(table), t);
	}
	return t;
}

bool groups_busy(struct groups *g, const struct partition *table, struct bytes group_id)
{
	const struct groups_loop *gl = &g->loops[loop_index(partition_home(table))];
	const struct table_home *t = map_get_u64(&gl->tables, partition_group(table));
	return t != NULL && map_get(&t->slots, group_id) != NULL;
}

static void on_call(struct loop_msg *m)
{
	struct group_call *c = list_entry(m, struct group_call, msg);
	struct groups_loop *gl = &c->groups->loops[loop_index(partition_home(c->table))];
	if (gl->stopped) {
		answer(c, GROUP_UNAVAILABLE);
		return;
	}
	struct table_home *t = table_home(gl, c->table);
	bool leads = partition_leads(c->table);
	bool anew = t->epoch != partition_epoch(c->table);
	if (!leads || anew) {
		table_drop_all(t, GROUP_NOT_HERE);
		t->epoch = leads ? partition_epoch(c->table) : -1;
	}
	if (!leads) {
		answer(c, partition_leader(c->table) != 0 ? GROUP_NOT_HERE : GROUP_UNAVAILABLE);
		return;
	}
	if (anew)
		learn(t);
	if (c->kind == GROUP_CALL_LIST) {
		list_push_back(&t->lists, &c->node);
		lists_go_on(t);
		return;
	}
	struct slot *s = map_get(&t->slots, c->group_id);
	if (s == NULL)
		s = slot_new(t, c->group_id);
	if (s == NULL) {
		answer(c, GROUP_UNAVAILABLE);
		return;
	}
	if (!s->loaded || s->deleting) {
		list_push_back(&s->waiting, &c->node);
		return;
	}
	/* Once answered, the call is its caller's again. */
	bool heartbeat = c->kind == GROUP_CALL_HEARTBEAT;
	run_call(s, c);
	if (!heartbeat || group_idle(&s->group))
		slot_settle(s);
}

static bool id_valid(struct bytes full)
{
	struct bytes tenant, id;
	tenant_id_split(full, &tenant, &id);
	return id.len > 0 && id.len <= ID_BYTES_MAX && memchr(id.at, 0, id.len) == NULL;
}

void group_call(struct groups *g, const struct catalog *catalog, struct group_call *c)
{
	c->groups = g;
	c->from = loop_here();
	list_init(&c->node);
	if (c->kind != GROUP_CALL_LIST)
		c->table = catalog_table(catalog, c->group_id);
	if (c->kind != GROUP_CALL_LIST && !id_valid(c->group_id)) {
		answer(c, GROUP_BAD_ID);
		return;
	}
	if (c->table == NULL) { /* the node is of no cluster yet */
		answer(c, GROUP_UNAVAILABLE);
		return;
	}
	c->msg.run = on_call;
	loop_post(partition_home(c->table), &c->msg);
}

/* The end */

static void on_stop(struct loop_msg *m)
{
	struct groups_loop *gl = list_entry(m, struct groups_loop, msg);
	uint32_t at = 0;
	struct table_home *t;
	gl->stopped = true;
	while ((t = map_next(&gl->tables, &at)) != NULL) {
		table_drop_all(t, GROUP_UNAVAILABLE);
		partition_unwatch(t->table, &t->watcher);
	}
}

void groups_stop(struct groups *g)
{
	for (int i = 0; i < g->count; i++) {
		g->loops[i].msg.run = on_stop;
		loop_post(loops_at(g->all, i), &g->loops[i].msg);
	}
}

void groups_free(struct groups *g)
{
	if (g == NULL)
		return;
	for (int i = 0; i < g->count; i++) {
		uint32_t at = 0;
		struct table_home *t;
		while ((t = map_next(&g->loops[i].tables, &at)) != NULL) {
			map_fini(&t->slots);
			buf_fini(&t->learn_after);
			buf_fini(&t->list_after);
			mem_free(t);
		}
		map_fini(&g->loops[i].tables);
	}
	mem_free(g->loops);
	mem_free(g);
}
