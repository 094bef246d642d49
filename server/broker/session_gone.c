/* Processes that are gone, and what they leave: rows that say a client is connected where nobody
 * is. Whoever leads a table looks after them: it knows from the rows which processes (node and
 * boot) have clients, and from their leases which of these still run. One that has not renewed for
 * the lease and half as long again, by the leader's own clock and at the earliest from when it
 * began to lead, or that has another boot by now, is gone; its sessions are read page by page and
 * declared absent, which fences it should it live after all (session_ask.c). What then is due
 * (wills, expiry) follows from the rows, as for any other absence (session_absent.c). */
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/session_priv.h"
#include "server/broker/will_expire.h"

enum {
	TICK_MS = 500,
	PAGE_ROWS = 256,
	PAGE_BYTES = 1 << 20,
	OWNERS_MAX = 4096,
	ARGS_BYTES_MAX = 12 + PAGE_ROWS * (10 + UINT16_MAX)
};

struct owner { /* of connected clients, by the rows of a table */
	struct list node;
	struct session_owner who;
	uint64_t sightings;
	int64_t seen_ms; /* the last one in the log, which it was alive to ask for; clock_ms */
};

struct declaring {                 /* one owner's sessions absent */
	struct table_watch *table; /* NULL: not led any more */
	struct session_home *home;
	struct row_read page;
	struct proposal proposal;
	struct buf args, after;
	struct session_owner who;
	uint64_t sightings; /* of the owner when it began */
	int64_t count;
};

/* Owners */

static struct owner *owner_find(struct table_watch *t, struct session_owner who, int *count)
{
	*count = 0;
	for (struct list *n = t->owners.next; n != &t->owners; n = n->next, ++*count) {
		struct owner *o = list_entry(n, struct owner, node);
		if (session_owner_equal(o->who, who))
			return o;
	}
	return NULL;
}

void gone_owner_seen(struct table_watch *t, struct session_owner who)
{
	int count;
	if (session_owner_equal(who, t->home->all->self))
		return;
	struct owner *o = owner_find(t, who, &count);
	if (o == NULL && count < OWNERS_MAX) {
		o = mem_new(sizeof *o);
		o->who = who;
		list_push_back(&t->owners, &o->node);
	}
	if (o == NULL)
		return;
	o->sightings++;
	o->seen_ms = t->led_ms > 0 ? clock_ms() : 0; /* 0: from the rows, which may be old */
}

static bool is_gone(const struct table_watch *t, const struct owner *o, int64_t now_ms)
{
	struct session_owner who = o->who;
	struct sessions *all = t->home->all;
	if (who.node == 0 || who.node == all->self.node)
		return !session_owner_equal(who, all->self);
	const struct node_lease *l = session_node_lease(all, who.node);
	int64_t since = o->seen_ms > t->led_ms ? o->seen_ms : t->led_ms;
	if (l != NULL && atomic_load(&l->boot) > who.boot)
		return true;
	if (l != NULL && atomic_load(&l->seen_ms) > since)
		since = atomic_load(&l->seen_ms);
	return now_ms - since > all->lease_ms + all->lease_ms / 2;
}

/* Declaring */

static void declaring_free(struct declaring *d)
{
	if (d->table != NULL)
		d->table->declaring = NULL;
	atomic_fetch_sub(&d->home->all->live, 1);
	buf_fini(&d->args);
	buf_fini(&d->after);
	mem_free(d);
}

static void declared(struct declaring *d)
{
	int count;
	struct owner *o = owner_find(d->table, d->who, &count);
	if (d->count > 0)
		LOG(LOG_INFO, AREA_BROKER, "sessions_absent", "node=%u group=%llu count=%lld",
			(unsigned)d->who.node, (unsigned long long)partition_group(d->table->table),
			(long long)d->count);
	/* Seen once more meanwhile: it is looked for again. */
	if (o != NULL && o->sightings == d->sightings) {
		list_remove(&o->node);
		mem_free(o);
	}
	declaring_free(d);
}

static void read_page(struct declaring *d);

static void on_declared(struct proposal *p)
{
	struct declaring *d = list_entry(p, struct declaring, proposal);
	if (p->err != OK || d->table == NULL)
		declaring_free(d); /* again at a later tick */
	else if (buf_len(&d->after) > 0)
		read_page(d);
	else
		declared(d);
}

static void judge_page(struct declaring *d)
{
	const struct row_read *r = &d->page;
	int found = 0;
	buf_clear(&d->args);
	session_absent_begin(&d->args, d->who);
	for (int i = 0; i < r->count; i++) {
		struct session_row row;
		if (r->rows[i].key.len > UINT16_MAX ||
			session_row_head(r->rows[i].value, &row) != OK || !row.connected ||
			!session_owner_equal(row.owner, d->who))
			continue;
		session_absent_add(&d->args, row.epoch, r->rows[i].key);
		found++;
	}
	buf_clear(&d->after);
	if (r->more && r->count > 0)
		buf_add(&d->after, r->rows[r->count - 1].key);
	d->count += found;
	d->proposal = (struct proposal){.to = d->table->table,
		.kind = &session_absent_kind,
		.args = buf_bytes(&d->args),
		.leader_only = true,
		.err = d->args.err != OK ? d->args.err : d->after.err,
		.done = on_declared};
	row_read_fini(&d->page);
	if (found > 0 && d->proposal.err == OK)
		partition_propose(&d->proposal);
	else
		on_declared(&d->proposal);
}

static void on_page(struct row_read *r)
{
	struct declaring *d = list_entry(r, struct declaring, page);
	if ((r->err == OK || r->err == ERR_NOTFOUND) && d->table != NULL) {
		judge_page(d);
		return;
	}
	row_read_fini(r);
	declaring_free(d);
}

static void read_page(struct declaring *d)
{
	d->page = (struct row_read){.from = d->table->table,
		.keyspace = KEYSPACE_SESSION,
		.prefix = true,
		.after = buf_bytes(&d->after),
		.rows_max = PAGE_ROWS,
		.bytes_max = PAGE_BYTES,
		.done = on_page};
	partition_read_rows(&d->page);
}

static void declare(struct table_watch *t, const struct owner *o)
{
	struct declaring *d = mem_new(sizeof *d);
	d->table = t;
	d->home = t->home;
	d->who = o->who;
	d->sightings = o->sightings;
	buf_init(&d->args, ARGS_BYTES_MAX);
	buf_init(&d->after, UINT16_MAX + 1);
	t->declaring = d;
	atomic_fetch_add(&d->home->all->live, 1);
	read_page(d);
}

static void look_after(struct table_watch *t, int64_t now_ms)
{
	if (t->led_ms == 0 || t->declaring != NULL)
		return;
	for (struct list *n = t->owners.next; n != &t->owners; n = n->next) {
		const struct owner *o = list_entry(n, struct owner, node);
		if (is_gone(t, o, now_ms)) {
			declare(t, o);
			return;
		}
	}
}

/* Life */

static void on_tick(struct loop_timer *timer)
{
	struct session_home *h = list_entry(timer, struct session_home, gone_timer);
	int64_t now = clock_ms();
	for (struct list *n = h->tables.next; n != &h->tables; n = n->next)
		look_after(list_entry(n, struct table_watch, node), now);
	settle_again(h);
	loop_timer_set(timer, TICK_MS);
}

void gone_home_init(struct session_home *h)
{
	list_init(&h->settling);
	loop_timer_init(&h->gone_timer, h->loop, on_tick);
	loop_timer_set(&h->gone_timer, TICK_MS);
	h->all->will_keep_ms = WILL_KEEP_MS;
	will_expire_start(&h->wills, &h->all->will_keep_ms, shard_node(h->shard), h->loop);
}

void gone_home_stop(struct session_home *h)
{
	sweep_stop(&h->wills);
	loop_timer_cancel(&h->gone_timer);
	settle_again(h); /* for the last time */
}

void gone_home_fini(struct session_home *h)
{
	sweep_free(&h->wills);
}

void gone_table_led(struct table_watch *t)
{
	t->led_ms = clock_ms();
	look_after(t, t->led_ms);
}

void gone_table_end(struct table_watch *t)
{
	struct list *n;
	while ((n = list_pop(&t->owners)) != NULL)
		mem_free(list_entry(n, struct owner, node));
	if (t->declaring != NULL)
		t->declaring->table = NULL;
	t->declaring = NULL;
	t->led_ms = 0;
}
