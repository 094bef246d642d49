/* Claims whose outcome nobody knows. A claim that ended without an answer may be in the log all the
 * same: then a row says that a client is connected here which is not, and nobody would ever see its
 * session off. So whoever did not get a session keeps the name, and reads the row of it until that
 * works. As nobody else in this process has the name meanwhile, a row that says its client is here
 * is such a one, and is given up by its epoch, like that of any session that did not come to be.
 * Not in a process that ends: there it may be of a session that could not be seen off, with its
 * will. Who wants the name waits for one read; if it fails, it is theirs: they claim the row anew,
 * or come to be in the same position. */
#include "server/broker/session_priv.h"

enum { SETTLING_MAX = 65536 };

struct settling {
	struct list node;
	struct session *s;
	struct row_read read;
	bool reading, fenced;
};

static struct session_home *home_of(const struct session *s)
{
	return &s->all->homes[loop_index(shard_loop(session_shard(s)))];
}

/* Gives the session back, which has nothing to settle any more. */
static struct session *settled(struct settling *w)
{
	struct session *s = w->s;
	list_remove(&w->node);
	home_of(s)->settling_count--;
	s->settling = NULL;
	mem_free(w);
	return s;
}

static bool is_left_here(const struct session *s, const struct row_read *r, struct session_row *row)
{
	return r->err == OK && r->count == 1 && session_row_head(r->rows[0].value, row) == OK &&
		row->connected && session_owner_equal(row->owner, s->all->self);
}

static void on_row(struct row_read *r)
{
	struct settling *w = list_entry(r, struct settling, read);
	struct session *s = w->s;
	struct session_row row;
	bool known = r->err == OK || r->err == ERR_NOTFOUND;
	bool left = !atomic_load(&s->all->ending) && is_left_here(s, r, &row);
	w->reading = false;
	row_read_fini(r);
	if (left) {
		s->durable = durable_new(settled(w), w->read.from, row.epoch, row.born);
		durable_abandon(s->durable);
	} else if (known || w->fenced || home_of(s)->stopped || atomic_load(&s->all->ending)) {
		session_release(settled(w));
	}
}

static void look(struct settling *w)
{
	struct session *s = w->s;
	w->reading = true;
	w->read = (struct row_read){
		.from = catalog_table(shard_catalog(session_shard(s)), session_id(s)),
		.keyspace = KEYSPACE_SESSION,
		.linearizable = true,
		.key = session_id(s),
		.rows_max = 1,
		.bytes_max = SIZE_MAX,
		.done = on_row};
	partition_read_rows(&w->read);
}

void settle_begin(struct session *s, bool fenced)
{
	struct session_home *h = home_of(s);
	struct settling *w = h->settling_count < SETTLING_MAX ? mem_try(sizeof *w) : NULL;
	if (w == NULL || h->stopped) { /* another boot of this node finds it */
		mem_free(w);
		session_release(s);
		return;
	}
	*w = (struct settling){.s = s, .fenced = fenced};
	s->settling = w;
	list_push_back(&h->settling, &w->node);
	h->settling_count++;
	look(w);
}

void settle_fenced(struct session *s)
{
	struct settling *w = s->settling;
	w->fenced = true;
	if (!w->reading)
		session_release(settled(w));
}

void settle_again(struct session_home *h)
{
	bool ending = h->stopped || atomic_load(&h->all->ending);
	for (struct list *n = h->settling.next, *next; n != &h->settling; n = next) {
		struct settling *w = list_entry(n, struct settling, node);
		next = n->next;
		if (w->reading)
			continue;
		if (ending)
			session_release(settled(w));
		else
			look(w);
	}
}
