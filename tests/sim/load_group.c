/* Members of consumer groups, as a client of Kafka's is one: they join, sync, are heard of now and
 * then, commit how far they are with what they own, go with a word or without one, come back as new
 * ones or as if they had not been away, and look for the coordinator when it is another node.
 *
 * Held against it: what a generation assigns comes from one leader and gives a partition to one
 * member; a leader's assignment is not taken for a generation when a later one was known already;
 * a commit of a member is refused when a later generation was known before it was sent, so that
 * committed positions only grow; an instance is not fenced by nobody; in the end all are in one
 * generation and own everything. */
#include <stdio.h>
#include "server/base/mem.h"
#include "server/broker/group_home.h"
#include "tests/sim/sim_load.h"

enum {
	TEAM_MEMBERS = 3,
	TEAMS_MAX = 4,
	PARTITIONS = 6,
	BEAT_US = 700 * SIM_MS, /* between two signs of life, at most */
	SOON_US = 20 * SIM_MS,
	ELSEWHERE_US = 200 * SIM_MS,
	AWAY_US_MAX = 6 * SIM_S,
	SESSION_MS_MIN = 1500,
	SESSION_MS_MAX = 3000,
	GENERATIONS_MAX = 2000,
	ID_BYTES = 96,
	NAME_BYTES = 16,
	SHARE_BYTES = 10,
	VALUES_PER_GENERATION = 1000000
};

struct share { /* what a leader gives a member, in the order of its bytes */
	uint32_t attempt, generation;
	uint8_t of, owns; /* actor; bits of partitions */
};

struct generation {       /* as the first member that was told knows it */
	uint32_t attempt; /* of whose sync it is; 0: not known yet */
	uint8_t owned;    /* by somebody */
	uint8_t told;     /* bits of members */
};

struct team { /* a group */
	char name[NAME_BYTES];
	int32_t newest; /* generation that somebody was assigned something in */
	struct generation generations[GENERATIONS_MAX];
	uint32_t attempts;
	int64_t values;            /* tried */
	int64_t floor[PARTITIONS]; /* acknowledged or read: nothing below is read again */
	struct member *members[TEAM_MEMBERS];
};
static struct team teams[TEAMS_MAX];

enum phase { OUT, JOINED, IN };

struct member {
	struct actor actor;
	struct team *team;
	int number; /* in its team */
	bool has_instance;
	char instance[NAME_BYTES], id[ID_BYTES];
	enum phase phase;
	int32_t generation;
	struct share share; /* owned: when IN */
	struct group_member_view *views;
	uint32_t view_count;            /* when it leads */
	int64_t away_until_us, beat_us; /* the last sign that was answered with OK */
	uint32_t coordinator;           /* node, as far as known; 0: not */
	bool look;                      /* at what is committed, before it goes on */
	bool doubtful;                  /* a join that was not answered may have counted */
};

struct asking { /* one call */
	struct group_call call;
	struct member *by;
	uint64_t turn;
	int32_t newest;   /* of its team when it began */
	uint32_t attempt; /* sync: it assigns */
	char id[ID_BYTES];
	struct group_choice choice;
	uint8_t number;
	struct group_share shares[TEAM_MEMBERS];
	uint8_t assigned[TEAM_MEMBERS][SHARE_BYTES];
	struct group_member_view *views; /* whose ids the shares borrow */
	uint32_t view_count;
	struct group_offset offset;
	struct group_leaver leaver;
};

struct looking {
	struct offsets_read read;
	struct member *by;
	uint64_t turn;
	int64_t floor[PARTITIONS]; /* when it began */
};

static void share_write(const struct share *s, uint8_t out[SHARE_BYTES])
{
	put_u32be(out, s->attempt);
	put_u32be(out + 4, s->generation);
	out[8] = s->of;
	out[9] = s->owns;
}

static void views_drop(struct member *m)
{
	group_views_free(m->views, m->view_count);
	m->views = NULL;
	m->view_count = 0;
}

static void out_of_it(struct member *m, bool forget)
{
	m->phase = OUT;
	views_drop(m);
	if (forget)
		m->id[0] = 0;
}

/* --- what is held against it */

static struct generation *generation_of(struct team *t, int32_t number)
{
	if (number < 1 || number >= GENERATIONS_MAX)
		sim_fail("%s: generation %d", t->name, number);
	return &t->generations[number];
}

/* m was assigned this in its generation. */
static void assigned(struct member *m, const struct asking *o, const struct share *s)
{
	struct team *t = m->team;
	struct generation *g = generation_of(t, m->generation);
	uint8_t bit = (uint8_t)(1 << m->number);

	if (s->generation != (uint32_t)m->generation || s->of != m->number)
		sim_fail("%s: member %d, generation %d, is given member %u's part of generation %u",
			t->name, m->number, m->generation, s->of, s->generation);
	if (g->attempt != 0 && g->attempt != s->attempt)
		sim_fail("%s: generation %d was assigned twice", t->name, m->generation);
	if (s->attempt == o->attempt && o->newest >= m->generation)
		sim_fail("%s: generation %d is assigned, %d was before", t->name, m->generation,
			o->newest);
	if (!(g->told & bit) && (g->owned & s->owns))
		sim_fail("%s: generation %d gives partitions %02x to two members", t->name,
			m->generation, g->owned & s->owns);
	g->attempt = s->attempt;
	g->owned |= s->owns;
	g->told |= bit;
	if (t->newest < m->generation) {
		t->newest = m->generation;
		sim_trace("%s is in generation %d", t->name, m->generation);
	}
}

/* --- what a member makes of an answer */

static bool joins_again(enum group_err e)
{
	return e == GROUP_REBALANCING || e == GROUP_OLD_GENERATION;
}
static bool knows_it_not(enum group_err e)
{
	return e == GROUP_UNKNOWN_MEMBER || e == GROUP_FENCED_INSTANCE;
}
static bool looks_elsewhere(enum group_err e)
{
	return e == GROUP_NOT_HERE || e == GROUP_UNAVAILABLE;
}

/* Anything but OK, of any call. */
static void refused(struct member *m, struct asking *o, enum group_err e)
{
	if (looks_elsewhere(e)) {
		m->coordinator = o->call.table != NULL ? partition_leader(o->call.table) : 0;
		if (o->call.kind == GROUP_CALL_SYNC)
			out_of_it(m, false);
	} else if (joins_again(e)) {
		out_of_it(m, false);
	} else if (knows_it_not(e)) {
		if (e == GROUP_FENCED_INSTANCE && !m->doubtful)
			sim_fail("%s: member %d is fenced, there is no other", m->team->name,
				m->number);
		out_of_it(m, true);
	} else {
		sim_fail("%s: member %d, call %d: group error %d", m->team->name, m->number,
			(int)o->call.kind, (int)e);
	}
}

static void id_keep(struct member *m, struct bytes id)
{
	sim_must(id.len < ID_BYTES);
	memcpy(m->id, id.at, id.len);
	m->id[id.len] = 0;
}

static void on_joined(struct member *m, struct asking *o)
{
	struct group_join *j = &o->call.join;

	if (o->call.err == GROUP_ID_REQUIRED) {
		id_keep(m, j->id.bytes);
		return;
	}
	if (o->call.err != GROUP_OK) {
		refused(m, o, o->call.err);
		return;
	}
	id_keep(m, j->id.bytes);
	m->doubtful = false;
	m->phase = JOINED;
	m->generation = j->generation;
	views_drop(m);
	if (j->skip_assignment || !bytes_equal(j->leader.bytes, j->id.bytes))
		return;
	m->views = j->members;
	m->view_count = j->member_count;
	j->members = NULL;
	j->member_count = 0;
}

static void on_synced(struct member *m, struct asking *o)
{
	struct bytes in = o->call.sync.assignment.bytes;
	struct share s;

	if (o->call.err != GROUP_OK) {
		refused(m, o, o->call.err);
		return;
	}
	if (in.len != SHARE_BYTES)
		sim_fail("%s: member %d is given %zu bytes in generation %d", m->team->name,
			m->number, in.len, m->generation);
	s = (struct share){get_u32be(in.at), get_u32be(in.at + 4), in.at[8], in.at[9]};
	assigned(m, o, &s);
	m->share = s;
	m->phase = IN;
	m->beat_us = sim_now_us();
	m->look = true;
}

static void on_committed(struct member *m, struct asking *o)
{
	enum group_err e = o->call.err != GROUP_OK ? o->call.err : o->offset.err;
	int64_t *floor = &m->team->floor[o->offset.partition];

	if (e != GROUP_OK) {
		refused(m, o, e);
		return;
	}
	if (o->call.generation < o->newest)
		sim_fail("%s: member %d commits in generation %d, %d was before", m->team->name,
			m->number, o->call.generation, o->newest);
	if (*floor < o->offset.offset)
		*floor = o->offset.offset;
}

static void on_beaten(struct member *m, struct asking *o)
{
	if (o->call.err == GROUP_OK)
		m->beat_us = sim_now_us();
	else
		refused(m, o, o->call.err);
}

static void asking_free(struct asking *o)
{
	group_call_fini(&o->call);
	group_views_free(o->views, o->view_count);
	mem_free(o);
}

static void goes_on_after(struct member *m, enum group_err e)
{
	int64_t us = looks_elsewhere(e)     ? ELSEWHERE_US
		: m->phase != IN || m->look ? SOON_US
					    : BEAT_US;

	actor_again(&m->actor, sim_pick(1, us));
}

static void answered(struct group_call *call)
{
	struct asking *o = list_entry(call, struct asking, call);
	struct member *m = o->by;

	sim_note("%s: member %d, call %d on n%d: error %d, generation %d", m->team->name, m->number,
		(int)call->kind, m->actor.on->machine.id, (int)call->err, m->generation);
	if (m->actor.busy && m->actor.turn == o->turn) {
		m->coordinator = (uint32_t)m->actor.on->machine.id;
		if (call->kind == GROUP_CALL_JOIN)
			on_joined(m, o);
		else if (call->kind == GROUP_CALL_SYNC)
			on_synced(m, o);
		else if (call->kind == GROUP_CALL_COMMIT)
			on_committed(m, o);
		else if (call->kind == GROUP_CALL_HEARTBEAT)
			on_beaten(m, o);
		goes_on_after(m, call->err);
	}
	asking_free(o);
}

/* --- asking */

static void ask_here(void *arg)
{
	struct asking *o = arg;
	struct member *m = o->by;
	const struct catalog *k = actor_catalog(&m->actor);

	if (k == NULL) {
		m->coordinator = 0;
		if (m->phase == JOINED)
			out_of_it(m, false);
		actor_done(&m->actor, o->turn);
		asking_free(o);
		return;
	}
	memcpy(o->offset.stream, catalog_stream(k, bytes_text(load_stream()))->uuid, 16);
	group_call(m->actor.on->groups, k, &o->call);
}

static struct bytes instance_of(const struct member *m)
{
	return m->has_instance ? bytes_text(m->instance) : bytes_of(NULL, 0);
}

static struct asking *asking_new(struct member *m, enum group_call_kind kind)
{
	struct asking *o = mem_new(sizeof *o);

	o->by = m;
	o->newest = m->team->newest;
	memcpy(o->id, m->id, sizeof o->id);
	o->call = (struct group_call){.kind = kind,
		.group_id = bytes_text(m->team->name),
		.generation = m->generation,
		.member_id = bytes_text(o->id),
		.instance_id = instance_of(m),
		.offsets = &o->offset,
		.offset_count = 1,
		.leavers = &o->leaver,
		.leaver_count = 1,
		.done = answered};
	return o;
}

static void ask(struct asking *o, struct sim_node *n)
{
	o->turn = actor_call(&o->by->actor, n, ask_here, o);
}

static void join(struct member *m, struct sim_node *n)
{
	struct asking *o = asking_new(m, GROUP_CALL_JOIN);

	m->doubtful = true;
	o->number = (uint8_t)m->number;
	o->choice = (struct group_choice){bytes_text("range"), bytes_of(&o->number, 1)};
	o->call.join = (struct group_join){.member_id = bytes_text(o->id),
		.instance_id = instance_of(m),
		.client_id = bytes_text("sim"),
		.client_host = bytes_text("/127.0.0.1"),
		.protocol_type = bytes_text("consumer"),
		.protocols = &o->choice,
		.protocol_count = 1,
		.session_ms = (int32_t)sim_pick(SESSION_MS_MIN, SESSION_MS_MAX),
		.rebalance_ms = SESSION_MS_MAX,
		.id_required = true,
		.knows_skip = m->number > 1};
	ask(o, n);
}

/* Everything to somebody, from a number that changes. */
static void assign(struct member *m, struct asking *o)
{
	struct share s = {.generation = (uint32_t)m->generation};

	o->views = m->views;
	o->view_count = m->view_count;
	m->views = NULL;
	m->view_count = 0;
	sim_must(o->view_count <= TEAM_MEMBERS);
	s.attempt = o->attempt = ++m->team->attempts;
	for (uint32_t i = 0; i < o->view_count; i++) {
		sim_must(o->views[i].metadata.bytes.len == 1);
		s.of = o->views[i].metadata.bytes.at[0];
		s.owns = 0;
		for (uint32_t p = 0; p < PARTITIONS; p++)
			if ((p + s.attempt) % o->view_count == i)
				s.owns |= (uint8_t)(1 << p);
		share_write(&s, o->assigned[i]);
		o->shares[i] = (struct group_share){
			o->views[i].id.bytes, bytes_of(o->assigned[i], SHARE_BYTES)};
	}
}

static void sync(struct member *m, struct sim_node *n)
{
	struct asking *o = asking_new(m, GROUP_CALL_SYNC);

	if (m->view_count > 0)
		assign(m, o);
	o->call.sync = (struct group_sync){.member_id = bytes_text(o->id),
		.instance_id = instance_of(m),
		.generation = m->generation,
		.assignments = o->shares,
		.assignment_count = o->view_count};
	ask(o, n);
}

static void commit(struct member *m, struct sim_node *n)
{
	struct asking *o = asking_new(m, GROUP_CALL_COMMIT);
	int p = (int)sim_pick(0, PARTITIONS - 1);

	while (!(m->share.owns >> p & 1))
		p = (p + 1) % PARTITIONS;
	o->offset = (struct group_offset){.partition = p,
		.offset = (int64_t)m->generation * VALUES_PER_GENERATION + ++m->team->values,
		.metadata = bytes_text("")};
	ask(o, n);
}

static void leave(struct member *m, struct sim_node *n)
{
	struct asking *o = asking_new(m, GROUP_CALL_LEAVE);

	o->leaver = (struct group_leaver){bytes_text(o->id), instance_of(m), GROUP_OK};
	out_of_it(m, true);
	ask(o, n);
}

/* --- what is committed */

static void looked(struct offsets_read *r)
{
	struct looking *o = list_entry(r, struct looking, read);
	struct member *m = o->by;

	if (m->actor.busy && m->actor.turn == o->turn) {
		int64_t found[PARTITIONS] = {0};

		for (uint32_t i = 0; r->err == GROUP_OK && i < r->count; i++)
			found[r->found[i].partition] = r->found[i].offset;
		for (int p = 0; r->err == GROUP_OK && p < PARTITIONS; p++) {
			if (found[p] < o->floor[p])
				sim_fail("%s: partition %d is at %lld, was at %lld", m->team->name,
					p, (long long)found[p], (long long)o->floor[p]);
			if (m->team->floor[p] < found[p])
				m->team->floor[p] = found[p];
		}
		m->look = r->err != GROUP_OK;
		actor_done(&m->actor, o->turn);
	}
	offsets_read_fini(r);
	mem_free(o);
}

static void look_here(void *arg)
{
	struct looking *o = arg;
	const struct catalog *k = actor_catalog(&o->by->actor);

	if (k == NULL) {
		actor_done(&o->by->actor, o->turn);
		mem_free(o);
		return;
	}
	o->read.done = looked;
	offsets_read(&o->read, k, bytes_text(o->by->team->name));
}

static void look(struct member *m)
{
	struct sim_node *n = actor_node();
	struct looking *o;

	if (n == NULL) {
		actor_again(&m->actor, BEAT_US);
		return;
	}
	o = mem_new(sizeof *o);
	o->by = m;
	memcpy(o->floor, m->team->floor, sizeof o->floor);
	o->turn = actor_call(&m->actor, n, look_here, o);
}

/* --- a member */

/* Without a word; maybe it comes back as if nothing had been. */
static void go_away(struct member *m)
{
	m->away_until_us = sim_now_us() + sim_pick(10 * SIM_MS, AWAY_US_MAX);
	if (sim_chance(500))
		out_of_it(m, true);
	actor_again(&m->actor, SOON_US);
}

static void goes_on(struct member *m, struct sim_node *n)
{
	int what = load_stopping() ? 999 : (int)sim_pick(0, 999);

	if (what < 40) {
		go_away(m);
	} else if (what < 70 && !m->has_instance) {
		m->away_until_us = sim_now_us() + sim_pick(10 * SIM_MS, AWAY_US_MAX);
		leave(m, n);
	} else if (what < 400 && m->share.owns != 0) {
		commit(m, n);
	} else {
		ask(asking_new(m, GROUP_CALL_HEARTBEAT), n);
	}
}

static void member_step(struct actor *a)
{
	struct member *m = list_entry(a, struct member, actor);
	struct sim_node *n = actor_node_at(m->coordinator);

	if (n == NULL)
		n = actor_node();
	if (n == NULL || (m->away_until_us > sim_now_us() && !load_stopping())) {
		actor_again(a, BEAT_US);
		return;
	}
	if (m->phase == OUT)
		join(m, n);
	else if (m->phase == JOINED)
		sync(m, n);
	else if (m->look)
		look(m);
	else
		goes_on(m, n);
}

static void member_lost(struct actor *a)
{
	struct member *m = list_entry(a, struct member, actor);

	m->coordinator = 0;
	if (m->phase == JOINED)
		out_of_it(m, false);
}

/* All are in the newest generation, were heard since, and own everything. */
static bool member_idle(struct actor *a, char *why, size_t why_size)
{
	struct member *m = list_entry(a, struct member, actor);
	struct team *t = m->team;
	uint8_t owned = 0;

	for (int i = 0; i < TEAM_MEMBERS; i++) {
		const struct member *o = t->members[i];

		if (o->phase == IN && o->generation == t->newest &&
			o->beat_us > sim_now_us() - 2 * SIM_S) {
			owned |= o->share.owns;
			continue;
		}
		snprintf(why, why_size, "%s: member %d is in phase %d, generation %d of %d",
			t->name, i, (int)o->phase, o->generation, t->newest);
		return false;
	}
	snprintf(why, why_size, "%s: only partitions %02x are owned", t->name, owned);
	return owned == (1 << PARTITIONS) - 1;
}

static const struct actor_kind member_kind = {"member", member_step, member_lost, member_idle};

void load_group_add(int id)
{
	struct member *m = mem_new(sizeof *m);

	sim_must(id < TEAMS_MAX * TEAM_MEMBERS);
	m->team = &teams[id / TEAM_MEMBERS];
	m->number = id % TEAM_MEMBERS;
	m->has_instance = m->number == 2;
	m->team->members[m->number] = m;
	snprintf(m->team->name, sizeof m->team->name, "team-%d", id / TEAM_MEMBERS);
	snprintf(m->instance, sizeof m->instance, "static-%d", id % 100);
	actor_add(&m->actor, &member_kind, id, BEAT_US);
}
