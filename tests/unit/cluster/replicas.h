/* Tests of consensus: replicas of one group over fake_below.h, with messages in a queue that the
 * test delivers, loses and reorders, and the invariants that must hold whatever it does. */
#ifndef TESTS_REPLICAS_H
#define TESTS_REPLICAS_H
#include <stdio.h>
#include "cluster/consensus_priv.h"
#include "cluster/membership.h"
#include "server/base/clock.h"
#include "tests/unit/cluster/fake_below.h"

enum { REPLICAS_MAX = 5, WORLD_INDEX_MAX = 20000 };

struct rep {
	uint64_t id;
	char address[24];
	bool alive, slow, down_ok;
	struct disk disk;
	struct lane lane;
	struct store store;
	struct loop loop;
	struct plog_env env;
	struct plog *log;
	struct consensus *c;
	struct membership *members; /* of tests that have any */
	uint64_t wanted[8];         /* as it was told: voters, then learners */
	int wanted_count, voters_wanted;
	uint64_t applied, hash; /* the table in memory */
	int acked, lost, changed_calls;
	uint64_t install_index;
	struct consensus_change change;
	bool changing;
};

struct frame {
	struct list node;
	int from, to;
	int64_t at_ms;
	struct slice bytes;
};

static struct world {
	int n;
	struct rep rep[REPLICAS_MAX + 1]; /* by id, from 1 */
	struct list frames;
	int64_t now_ms;
	struct consensus_options o;
	uint64_t committed[WORLD_INDEX_MAX]; /* hash up to and with the index; 0: not yet */
	uint64_t term_at[WORLD_INDEX_MAX];
	int64_t next_offset_at[WORLD_INDEX_MAX];
	uint64_t leader_of[4096];        /* by term */
	uint64_t acked[WORLD_INDEX_MAX]; /* value acknowledged at the index, 0: none */
	uint32_t value_at[WORLD_INDEX_MAX];
	uint32_t next_value;
	char broken[128]; /* the first invariant that did not hold */
	bool cut[REPLICAS_MAX + 1][REPLICAS_MAX + 1];
	void (*route)(struct frame *f); /* a test's own network; NULL: into frames */
	/* A test's own way of fetching, which ends with rep_fetched; NULL: at once. */
	void (*fetch)(struct rep *r, const struct consensus_install *i);
} W;

static void broken(const char *what, uint64_t index)
{
	if (!W.broken[0])
		snprintf(W.broken, sizeof W.broken, "%s (index %llu, %lld ms)", what,
			(unsigned long long)index, (long long)W.now_ms);
}

struct value {
	struct consensus_proposal p;
	struct rep *r;
	uint32_t value;
	uint64_t index;
};

static struct rep *rep_of(uint64_t id)
{
	return &W.rep[id & 15];
}

static void rep_apply(void *arg, struct entry *e)
{
	struct rep *r = arg;
	if (e->index != r->applied + 1)
		broken("applied out of order", e->index);
	r->applied = e->index;
	uint64_t what = e->index * 31 + e->head.term * 7 + (uint64_t)e->head.kind;
	if (e->head.kind == ENTRY_DATA)
		what += ((uint64_t)e->head.payload_crc << 20) + (uint64_t)e->head.base_offset +
			e->head.count;
	r->hash = (r->hash ^ what) * 0x9E3779B97F4A7C15u + 1;
	if (e->index >= WORLD_INDEX_MAX)
		return;
	if (W.committed[e->index] != 0 && W.committed[e->index] != r->hash)
		broken("replicas differ", e->index);
	W.committed[e->index] = r->hash;
	W.term_at[e->index] = e->head.term;
	W.next_offset_at[e->index] = entry_next_offset(&e->head);
	if (e->head.kind == ENTRY_DATA)
		W.value_at[e->index] = e->head.payload_crc;
}

static void rep_write_back(void *arg)
{
	struct rep *r = arg;
	uint64_t term = r->c ? r->c->applied_term : 0;
	r->lane.rows = r->hash;
	plog_mark_applied(r->log, r->applied, term);
}

static void rep_changed(void *arg)
{
	struct rep *r = arg;
	r->changed_calls++;
}

static void rep_send(void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	struct rep *r = arg;
	(void)address;
	size_t size = 0, at = 0;
	for (int i = 0; i < count; i++)
		size += parts[i].bytes.len;
	struct chunk *c = chunk_try(size);
	for (int i = 0; i < count; i++) {
		memcpy(c->data + at, parts[i].bytes.at, parts[i].bytes.len);
		at += parts[i].bytes.len;
		slice_unref(&parts[i]);
	}
	struct frame *f = mem_new(sizeof *f);
	f->from = (int)(r->id & 15);
	f->to = (int)(to & 15);
	f->at_ms = W.now_ms;
	f->bytes = slice_of(c, bytes_of(c->data, size));
	chunk_unref(c);
	if (W.route)
		W.route(f);
	else
		list_push_back(&W.frames, &f->node);
}

/* Copies log and table of the replica that leads, as the owner's catch-up would. */
static void rep_fetched(struct rep *r, const struct consensus_install *i)
{
	const struct rep *from = rep_of(i->from);
	r->install_index = i->index;
	if (!from->alive || W.committed[i->index] == 0) {
		consensus_installed(r->c, ERR_UNAVAILABLE);
		return;
	}
	r->hash = W.committed[i->index];
	r->applied = i->index;
	plog_reset(r->log, i->index, W.term_at[i->index], W.next_offset_at[i->index]);
	r->lane.rows = r->hash;
	plog_mark_applied(r->log, i->index, W.term_at[i->index]);
	plog_mark_config(r->log, from->log->marks.config_index, from->log->marks.config.bytes);
	consensus_installed(r->c, OK);
}

static void rep_install(void *arg, const struct consensus_install *i)
{
	struct rep *r = arg;
	if (W.fetch)
		W.fetch(r, i);
	else
		rep_fetched(r, i);
}

static const struct consensus_fsm rep_fsm = {rep_apply, rep_write_back, rep_changed, rep_install};
static const struct consensus_net rep_net = {rep_send};

static void frame_free(struct frame *f)
{
	list_remove(&f->node);
	slice_unref(&f->bytes);
	mem_free(f);
}

static void world_init(int n)
{
	memset(&W, 0, sizeof W);
	W.n = n;
	W.now_ms = 1000000;
	list_init(&W.frames);
	W.next_value = 1;
	W.o = (struct consensus_options){.heartbeat_ms = 150,
		.election_ms = 600,
		.snapshot_threshold = 1000000,
		.snapshot_trailing = 128,
		.inflight_bytes_max = 1 << 20};
	for (int i = 1; i <= n; i++) {
		struct rep *r = &W.rep[i];
		r->id = (uint64_t)i << 32 | 1 << 8 | (uint64_t)i; /* node, incarnation, place */
		snprintf(r->address, sizeof r->address, "%llu", (unsigned long long)r->id);
		r->disk.first = 1;
	}
}

/* voters 0: a restart, or a replica that joins later. */
static void rep_start(struct rep *r, int voters)
{
	struct consensus_member m[REPLICAS_MAX];
	for (int i = 0; i < voters; i++)
		m[i] = (struct consensus_member){W.rep[i + 1].id, W.rep[i + 1].address};
	fake_loop_init(&r->loop, W.now_ms);
	fake_lane_init(&r->lane, &r->disk);
	r->store.disk = &r->disk;
	r->env = (struct plog_env){.loop = &r->loop, .store = &r->store, .lane = &r->lane};
	r->log = fake_plog_open(&r->env, &r->disk);
	r->applied = r->disk.marks.applied_index;
	r->hash = r->disk.rows;
	r->alive = true;
	r->c = NULL;
	r->members = NULL;
	r->changing = false;
	struct consensus_options o = W.o;
	o.env = &r->env;
	enum err e = consensus_open(r->log, r->id, r->address, voters ? m : NULL, voters, &o,
		&rep_fsm, r, W.n > 1 ? &rep_net : NULL, r, &r->c);
	if (e != OK)
		broken(err_text(e), 0);
}

/* The process dies: consensus and plog are simply forgotten. */
static void rep_crash(struct rep *r, int keep)
{
	lane_crash(&r->lane, keep);
	r->alive = false;
	r->c = NULL;
	r->members = NULL;
	r->log = NULL;
}

static void rep_look(struct rep *r)
{
	if (!r->c)
		return;
	uint64_t term = consensus_term(r->c);
	if (consensus_role(r->c) == ROLE_LEADER && term < 4096) {
		if (W.leader_of[term] != 0 && W.leader_of[term] != r->id)
			broken("two leaders in a term", term);
		W.leader_of[term] = r->id;
	}
	if (consensus_role(r->c) == ROLE_DOWN && !r->down_ok)
		broken("a replica is down", r->id);
}

static void rep_turn(struct rep *r)
{
	r->loop.now_ms = W.now_ms;
	fake_loop_turn(&r->loop);
	rep_look(r);
}

static void rep_sync(struct rep *r)
{
	if (r->alive && lane_sync(&r->lane, 1 << 30) > 0)
		rep_turn(r);
}

static void rep_tick(struct rep *r)
{
	if (!r->alive)
		return;
	r->loop.now_ms = W.now_ms;
	consensus_tick(r->c);
	if (r->members)
		membership_tick(r->members, W.now_ms);
	rep_turn(r);
}

static void rep_want(struct rep *r, const struct membership_wanted *w)
{
	must(w->voter_count + w->learner_count <= 8);
	r->voters_wanted = w->voter_count;
	r->wanted_count = w->voter_count + w->learner_count;
	for (int i = 0; i < r->wanted_count; i++)
		r->wanted[i] = i < w->voter_count ? w->voters[i] : w->learners[i - w->voter_count];
	if (!r->members)
		r->members = membership_new(r->c, &r->loop);
	membership_want(r->members, w);
}

/* The configuration is what is wanted. */
static bool rep_settled(const struct rep *r)
{
	struct consensus_peer p[16];
	int count = consensus_peers(r->c, p, 16), found = 0;
	for (int i = 0; i < r->wanted_count; i++)
		for (int k = 0; k < count; k++)
			found += p[k].replica == r->wanted[i] &&
				p[k].role == (i < r->voters_wanted ? MEMBER_VOTER : MEMBER_STANDBY);
	return r->voters_wanted > 0 && count == r->wanted_count && found == count &&
		!consensus_changing(r->c);
}

/* Its data are gone: it comes back as another replica. */
static void rep_wipe(struct rep *r)
{
	must(!r->alive);
	disk_cut(&r->disk, 0);
	mem_free(r->disk.entries);
	slice_unref(&r->disk.marks.config);
	r->disk = (struct disk){.first = 1};
	r->id += 1 << 8;
	snprintf(r->address, sizeof r->address, "%llu", (unsigned long long)r->id);
}

static void value_done(struct consensus_proposal *p, enum err e)
{
	struct value *v = list_entry(p, struct value, p);
	uint64_t index = p->entry->index;
	if (e == OK && index < WORLD_INDEX_MAX) {
		W.acked[index] = p->entry->head.payload_crc;
		v->r->acked++;
		if (!W.committed[index])
			broken("acknowledged before applied", index);
	}
	if (e != OK)
		v->r->lost++;
	mem_free(v);
}

/* One record that is a number. */
static enum err rep_propose(struct rep *r)
{
	struct value *v = mem_new(sizeof *v);
	uint8_t at[8] = {0};
	struct slice s;
	put_u32be(at, W.next_value++);
	must(slice_copy(bytes_of(at, sizeof at), &s) == OK);
	v->p.entry = entry_new(&s, 1);
	v->p.entry->head.count = 1;
	v->p.batch_max_ms = W.now_ms;
	v->p.done = value_done;
	v->r = r;
	r->loop.now_ms = W.now_ms;
	struct entry *e = v->p.entry;
	enum err err = consensus_propose(r->c, &v->p);
	if (err != OK) {
		entry_unref(e);
		mem_free(v);
	}
	rep_turn(r);
	return err;
}

static void deliver_frame(struct frame *f)
{
	struct rep *to = &W.rep[f->to];
	if (to->alive) {
		to->loop.now_ms = W.now_ms;
		enum err e = consensus_receive(to->c, f->bytes);
		if (e != OK)
			broken(err_text(e), 0);
		rep_turn(to);
	}
	frame_free(f);
}

/* Every acknowledged value is where it was. */
static void world_check(void)
{
	for (uint64_t i = 0; i < WORLD_INDEX_MAX; i++)
		if (W.acked[i] != 0 && W.value_at[i] != W.acked[i])
			broken("an acknowledged record is gone", i);
}

static struct rep *world_leader(void)
{
	struct rep *best = NULL;
	for (int i = 1; i <= W.n; i++)
		if (W.rep[i].alive && consensus_role(W.rep[i].c) == ROLE_LEADER &&
			(!best || consensus_term(W.rep[i].c) > consensus_term(best->c)))
			best = &W.rep[i];
	return best;
}

#endif
