/* The classic group. A rebalance collects joins until every member has asked again or its time is
 * up; then a generation begins, the first member that asked leads it and everyone is answered. The
 * leader's sync brings the assignments, which are handed out once the owner has stored that the
 * generation exists: so no generation that a member has worked in can be given out again.
 *
 * A member that waits in join or sync is alive; others live as long as their session. Members
 * with an instance id keep their place while they are away, until the session ends. */
#include "server/broker/group_priv.h"
#include <stdio.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum {
	ID_RANDOM_BYTES = 33,
	ID_NAME_BYTES_MAX = 255, /* of a client's name in the id it is given */
	PROMISED_MAX = 1000,
};

struct promised { /* an id that was given and not used yet */
	struct list node;
	struct slice id;
	int64_t deadline_ms;
};

static const char *const state_names[GROUP_STATE_COUNT] = {
	[GROUP_EMPTY] = "Empty",
	[GROUP_PREPARING] = "PreparingRebalance",
	[GROUP_COMPLETING] = "CompletingRebalance",
	[GROUP_STABLE] = "Stable",
	[GROUP_DEAD] = "Dead",
};

#define TO(s) (1u << (s))
static const unsigned next_states[GROUP_STATE_COUNT] = {
	[GROUP_EMPTY] = TO(GROUP_PREPARING) | TO(GROUP_DEAD),
	[GROUP_PREPARING] = TO(GROUP_COMPLETING) | TO(GROUP_EMPTY) | TO(GROUP_DEAD),
	[GROUP_COMPLETING] = TO(GROUP_STABLE) | TO(GROUP_PREPARING) | TO(GROUP_DEAD),
	[GROUP_STABLE] = TO(GROUP_PREPARING) | TO(GROUP_DEAD),
	[GROUP_DEAD] = 0,
};

const char *group_state_name(enum group_state s)
{
	return state_names[s];
}

static void group_move(struct group *g, enum group_state to)
{
	must(next_states[g->state] & TO(to));
	g->state = to;
}

void group_init(struct group *g, const struct group_conf *conf, int32_t generation)
{
	*g = (struct group){.conf = conf, .generation = generation};
	list_init(&g->in_order);
	list_init(&g->promised);
}

static void keep_empty(struct slice *s)
{
	static const uint8_t nothing[1];
	if (s->bytes.at != NULL && s->bytes.len == 0)
		s->bytes.at = nothing;
}

static bool said(struct bytes b)
{
	return b.at != NULL;
}

static void member_free(struct group_member *m)
{
	slice_unref(&m->id);
	slice_unref(&m->instance);
	slice_unref(&m->client_id);
	slice_unref(&m->client_host);
	slice_unref(&m->assignment);
	group_protocols_free(m->protocols, m->protocol_count);
	mem_free(m);
}

/* Answers */

void group_views_free(struct group_member_view *views, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		slice_unref(&views[i].id);
		slice_unref(&views[i].instance);
		slice_unref(&views[i].client_id);
		slice_unref(&views[i].client_host);
		slice_unref(&views[i].metadata);
		slice_unref(&views[i].assignment);
	}
	mem_free(views);
}

void group_join_fini(struct group_join *j)
{
	slice_unref(&j->type);
	slice_unref(&j->protocol);
	slice_unref(&j->leader);
	slice_unref(&j->id);
	group_views_free(j->members, j->member_count);
	j->members = NULL;
	j->member_count = 0;
}

void group_sync_fini(struct group_sync *s)
{
	slice_unref(&s->type);
	slice_unref(&s->chosen);
	slice_unref(&s->assignment);
}

static const struct slice *metadata_of(const struct group *g, const struct group_member *m)
{
	static const struct slice none;
	for (uint32_t i = 0; i < m->protocol_count; i++)
		if (bytes_equal(m->protocols[i].name.bytes, g->protocol.bytes))
			return &m->protocols[i].metadata;
	return &none;
}

enum err group_views(const struct group *g, struct group_member_view **out, uint32_t *count)
{
	uint32_t n = 0;
	struct group_member_view *views = mem_try((g->members.count + 1) * sizeof *views);
	if (views == NULL)
		return ERR_NOMEM;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		const struct group_member *m = list_entry(l, struct group_member, node);
		views[n++] = (struct group_member_view){
			.id = slice_ref(m->id),
			.instance = slice_ref(m->instance),
			.client_id = slice_ref(m->client_id),
			.client_host = slice_ref(m->client_host),
			.metadata = slice_ref(*metadata_of(g, m)),
			.assignment = slice_ref(m->assignment),
		};
	}
	*out = views;
	*count = n;
	return OK;
}

static void refuse_join(struct group_join *j, enum group_err why)
{
	j->err = why;
	j->generation = -1;
	j->done(j);
}

/* Tells j the current generation and who leads it; the leader also who is in it. */
static void accept_join(struct group *g, const struct group_member *m, struct group_join *j,
	const struct slice *leader, bool with_members)
{
	j->err = GROUP_OK;
	j->generation = g->generation;
	j->type = slice_ref(g->protocol_type);
	j->protocol = slice_ref(g->protocol);
	j->leader = slice_ref(*leader);
	j->id = slice_ref(m->id);
	if (with_members && group_views(g, &j->members, &j->member_count) != OK)
		j->err = GROUP_UNAVAILABLE;
	j->done(j);
}

static void answer_sync(struct group *g, struct group_member *m, struct group_sync *s)
{
	s->err = GROUP_OK;
	s->type = slice_ref(g->protocol_type);
	s->chosen = slice_ref(g->protocol);
	s->assignment = slice_ref(m->assignment);
	s->done(s);
}

static void refuse_sync(struct group_sync *s, enum group_err why)
{
	s->err = why;
	s->done(s);
}

/* The join of who is back, as if nothing had been said of its answer; or NULL. */
static struct group_join *take_back(struct group_member *m)
{
	struct group_join *j = m->back;
	m->back = NULL;
	if (j != NULL) {
		j->skip_assignment = false;
		slice_unref(&j->leader);
	}
	return j;
}

/* Ends what a member waits for. */
static void member_refuse(struct group *g, struct group_member *m, enum group_err why)
{
	struct group_join *j = m->join, *back = take_back(m);
	struct group_sync *s = m->sync;
	m->join = NULL;
	m->sync = NULL;
	if (j != NULL) {
		g->joining--;
		refuse_join(j, why);
	}
	if (back != NULL)
		refuse_join(back, why);
	if (s != NULL)
		refuse_sync(s, why);
}

static void touch(struct group_member *m, int64_t now_ms)
{
	m->deadline_ms = now_ms + m->session_ms;
}

/* What members cost in memory, counted for the group and for the loop. */

static size_t member_bytes(const struct group_member *m)
{
	return sizeof *m + m->id.bytes.len + m->instance.bytes.len + m->client_id.bytes.len +
		m->client_host.bytes.len;
}

static bool fits(const struct group *g, size_t more)
{
	size_t shared = g->budget != NULL ? g->budget->bytes : 0;
	return g->bytes + more <= (size_t)g->conf->bytes_max &&
		(g->conf->loop_bytes_max == 0 || shared + more <= (size_t)g->conf->loop_bytes_max);
}

static void charge(struct group *g, size_t more, size_t less)
{
	g->bytes += more - less;
	if (g->budget != NULL)
		g->budget->bytes += more - less;
}

static void assignment_drop(struct group *g, struct group_member *m)
{
	charge(g, 0, m->assignment.bytes.len);
	slice_unref(&m->assignment);
}

/* Members */

void group_member_remove(struct group *g, struct group_member *m, enum group_err why)
{
	member_refuse(g, m, why);
	map_remove(&g->members, m->id.bytes);
	if (said(m->instance.bytes) && map_get(&g->instances, m->instance.bytes) == m)
		map_remove(&g->instances, m->instance.bytes);
	list_remove(&m->node);
	assignment_drop(g, m);
	charge(g, 0, m->bytes + member_bytes(m));
	if (g->leader == m)
		g->leader = NULL;
	member_free(m);
}

static void promised_remove(struct group *g, struct promised *p)
{
	list_remove(&p->node);
	g->promised_count--;
	charge(g, 0, sizeof *p + p->id.bytes.len);
	slice_unref(&p->id);
	mem_free(p);
}

static struct promised *promised_find(struct group *g, struct bytes id)
{
	for (struct list *l = g->promised.next; l != &g->promised; l = l->next) {
		struct promised *p = list_entry(l, struct promised, node);
		if (bytes_equal(p->id.bytes, id))
			return p;
	}
	return NULL;
}

void group_fini(struct group *g, enum group_err why)
{
	struct list *l;
	group_move(g, GROUP_DEAD);
	while ((l = g->in_order.next) != &g->in_order)
		group_member_remove(g, list_entry(l, struct group_member, node), why);
	while ((l = g->promised.next) != &g->promised)
		promised_remove(g, list_entry(l, struct promised, node));
	map_fini(&g->members);
	map_fini(&g->instances);
	slice_unref(&g->protocol_type);
	slice_unref(&g->protocol);
}

uint32_t group_size(const struct group *g)
{
	return g->members.count;
}

bool group_idle(const struct group *g)
{
	return g->state == GROUP_EMPTY && g->promised_count == 0 && !g->storing;
}

/* Takes over what a join says about a member that is in the group. */
static enum err member_update(struct group *g, struct group_member *m, const struct group_join *j)
{
	struct group_member_protocol *list;
	size_t bytes;
	size_t was = m->bytes;
	if (group_protocols_bytes(j) > was && !fits(g, group_protocols_bytes(j) - was))
		return ERR_TOOBIG;
	enum err e = group_protocols_copy(j, &list, &bytes);
	if (e != OK)
		return e;
	group_protocols_free(m->protocols, m->protocol_count);
	m->protocols = list;
	m->protocol_count = j->protocol_count;
	m->session_ms = j->session_ms;
	m->rebalance_ms = j->rebalance_ms;
	m->bytes = bytes;
	charge(g, bytes, was);
	return OK;
}

/* A member's id: what it calls itself and something nobody can guess. */
static enum err make_id(const struct group_join *j, struct slice *out)
{
	struct bytes name = said(j->instance_id) ? j->instance_id : j->client_id;
	if (name.len > ID_NAME_BYTES_MAX)
		name.len = ID_NAME_BYTES_MAX;
	char tail[ID_RANDOM_BYTES + 2];
	struct buf b;
	snprintf(tail, sizeof tail, "-%016llx%016llx", (unsigned long long)random_u64(),
		(unsigned long long)random_u64());
	buf_init(&b, 1 << 17);
	buf_add(&b, name);
	buf_add_text(&b, tail);
	enum err e = b.err;
	if (e == OK)
		e = slice_copy(buf_bytes(&b), out);
	buf_fini(&b);
	return e;
}

enum err group_member_new(struct group *g, const struct group_join *j, const struct slice *id,
	struct group_member **out)
{
	struct group_member *m = mem_new(sizeof *m);
	enum err e = group_keep(j->instance_id, &m->instance);
	if (e == OK)
		e = group_keep(j->client_id, &m->client_id);
	if (e == OK)
		e = group_keep(j->client_host, &m->client_host);
	if (e == OK)
		e = member_update(g, m, j);
	if (e != OK) {
		member_free(m);
		return e;
	}
	keep_empty(&m->instance);
	m->id = slice_ref(*id);
	charge(g, member_bytes(m), 0);
	list_push_back(&g->in_order, &m->node);
	map_put(&g->members, m->id.bytes, m);
	if (said(m->instance.bytes))
		map_put(&g->instances, m->instance.bytes, m);
	*out = m;
	return OK;
}

/* Rebalance */

/* Who is back takes part in it like all others. */
static void join_instead(struct group *g, struct group_member *m)
{
	m->join = take_back(m);
	g->joining++;
}

static void begin_rebalance(struct group *g, int64_t now_ms)
{
	int64_t longest = 0;
	bool first = g->state == GROUP_EMPTY;
	if (g->state == GROUP_PREPARING)
		return;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		if (m->rebalance_ms > longest)
			longest = m->rebalance_ms;
		struct group_sync *s = m->sync;
		m->sync = NULL;
		m->synced = false;
		if (m->back != NULL)
			join_instead(g, m);
		if (s != NULL) {
			touch(m, now_ms);
			refuse_sync(s, GROUP_REBALANCING);
		}
	}
	group_move(g, GROUP_PREPARING);
	g->storing = false;
	g->deadline_ms = now_ms + (first ? g->conf->initial_delay_ms : longest);
	g->initial_until_ms = first ? now_ms + longest : 0;
}

static void become_empty(struct group *g)
{
	group_move(g, GROUP_EMPTY);
	slice_unref(&g->protocol);
	slice_unref(&g->protocol_type);
	g->leader = NULL;
	g->deadline_ms = g->initial_until_ms = 0;
}

static void choose_leader(struct group *g)
{
	if (g->leader != NULL && g->leader->join != NULL)
		return;
	g->leader = NULL;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		if (m->join != NULL) {
			g->leader = m;
			return;
		}
	}
}

/* Everyone has joined, or had the time to. */
static void end_rebalance(struct group *g, int64_t now_ms)
{
	struct list *l = g->in_order.next;
	int64_t longest = 0;
	while (l != &g->in_order) {
		struct group_member *m = list_entry(l, struct group_member, node);
		l = l->next;
		if (m->join == NULL && !said(m->instance.bytes))
			group_member_remove(g, m, GROUP_UNKNOWN_MEMBER);
	}
	if (g->members.count == 0) {
		g->generation++;
		become_empty(g);
		if (g->store != NULL)
			g->store(g);
		return;
	}
	choose_leader(g);
	if (g->leader == NULL) { /* only absent ones with an instance id: they may come yet */
		g->deadline_ms = now_ms + 1000;
		return;
	}
	slice_unref(&g->protocol);
	g->protocol = group_protocol_choose(g);
	g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1;
	group_move(g, GROUP_COMPLETING);
	for (l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		if (m->rebalance_ms > longest)
			longest = m->rebalance_ms;
		m->synced = false;
		assignment_drop(g, m);
		if (m->join != NULL)
			touch(m, now_ms);
	}
	g->deadline_ms = now_ms + longest;
	g->initial_until_ms = 0;
	for (l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		struct group_join *j = m->join;
		m->join = NULL;
		if (j == NULL)
			continue;
		g->joining--;
		accept_join(g, m, j, &g->leader->id, m == g->leader);
	}
}

static void try_end_rebalance(struct group *g, int64_t now_ms)
{
	if (g->state != GROUP_PREPARING || g->keeping)
		return;
	bool all = g->joining == g->members.count && g->promised_count == 0;
	bool nobody = g->members.count == 0;
	if (nobody || now_ms >= g->deadline_ms || (all && g->initial_until_ms == 0))
		end_rebalance(g, now_ms);
}

static void member_gone(struct group *g, int64_t now_ms)
{
	if (g->state == GROUP_STABLE || g->state == GROUP_COMPLETING)
		begin_rebalance(g, now_ms);
	try_end_rebalance(g, now_ms);
	if (g->store != NULL && g->members.count > 0)
		g->store(g);
}

/* Joining */

static void await_join(
	struct group *g, struct group_member *m, struct group_join *j, int64_t now_ms)
{
	struct group_join *before = m->join;
	m->join = j;
	if (before != NULL) /* asked twice: the older request gets nothing any more */
		refuse_join(before, GROUP_UNKNOWN_MEMBER);
	else
		g->joining++;
	begin_rebalance(g, now_ms);
	try_end_rebalance(g, now_ms);
}

static enum group_err err_of(enum err e)
{
	return e == ERR_TOOBIG ? GROUP_FULL : GROUP_UNAVAILABLE;
}

static void add_member(
	struct group *g, struct group_join *j, const struct slice *id, int64_t now_ms)
{
	struct group_member *m;
	if (g->members.count >= (uint64_t)g->conf->members_max) {
		refuse_join(j, GROUP_FULL);
		return;
	}
	enum err e = OK;
	if (g->members.count == 0) {
		slice_unref(&g->protocol_type);
		e = group_keep(j->protocol_type, &g->protocol_type);
	}
	if (e == OK)
		e = group_member_new(g, j, id, &m);
	if (e != OK) {
		refuse_join(j, err_of(e));
		return;
	}
	touch(m, now_ms);
	if (g->initial_until_ms != 0 && g->state == GROUP_PREPARING) {
		int64_t more = now_ms + g->conf->initial_delay_ms;
		if (now_ms + m->rebalance_ms > g->initial_until_ms)
			g->initial_until_ms = now_ms + m->rebalance_ms;
		g->deadline_ms = more < g->initial_until_ms ? more : g->initial_until_ms;
	}
	await_join(g, m, j, now_ms);
}

/* The group goes on as it was, but for the member's id. A leader that does not know that it need
 * not assign is told that the id it had leads: it would assign what it does not know. */
static void come_back(
	struct group *g, struct group_member *m, struct group_join *j, const struct slice *before)
{
	bool skips = g->leader == m && j->knows_skip;
	j->skip_assignment = skips;
	j->leader = slice_ref(g->leader == m && !skips ? *before : g->leader->id);
	m->back = j;
}

void group_kept(struct group *g, bool ok, int64_t now_ms)
{
	g->keeping = false;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		if (m->back == NULL)
			continue;
		struct slice leader = slice_ref(m->back->leader);
		bool skips = m->back->skip_assignment;
		struct group_join *j = take_back(m);
		j->skip_assignment = ok && skips;
		if (ok)
			accept_join(g, m, j, &leader, skips);
		else
			refuse_join(j, GROUP_UNAVAILABLE);
		slice_unref(&leader);
	}
	try_end_rebalance(g, now_ms);
}

/* An instance has come back under no or a new id: the one before it is fenced. The new id is not
 * told before it is stored: where the group is led next the old one would be taken for the
 * instance's, and this one fenced. */
static void replace_instance(
	struct group *g, struct group_member *m, struct group_join *j, int64_t now_ms)
{
	struct slice id;
	bool same = group_protocols_same(m, j);
	enum err e = make_id(j, &id);
	if (e == OK && (e = member_update(g, m, j)) != OK)
		slice_unref(&id);
	if (e != OK) {
		refuse_join(j, err_of(e));
		return;
	}
	member_refuse(g, m, GROUP_FENCED_INSTANCE);
	map_remove(&g->members, m->id.bytes);
	charge(g, id.bytes.len, m->id.bytes.len);
	struct slice before = m->id;
	m->id = id;
	map_put(&g->members, m->id.bytes, m);
	touch(m, now_ms);
	g->keeping = true;
	if (g->state == GROUP_STABLE && same)
		come_back(g, m, j, &before);
	else
		await_join(g, m, j, now_ms);
	slice_unref(&before);
	if (g->store != NULL)
		g->store(g);
	else
		group_kept(g, true, now_ms);
}

static void join_new(struct group *g, struct group_join *j, int64_t now_ms)
{
	struct slice id;
	struct group_member *m = said(j->instance_id) ? map_get(&g->instances, j->instance_id)
						      : NULL;
	if (m != NULL) {
		replace_instance(g, m, j, now_ms);
		return;
	}
	if (make_id(j, &id) != OK) {
		refuse_join(j, GROUP_UNAVAILABLE);
		return;
	}
	if (said(j->instance_id) || !j->id_required) {
		add_member(g, j, &id, now_ms);
		slice_unref(&id);
		return;
	}
	if (g->promised_count >= PROMISED_MAX || !fits(g, sizeof(struct promised) + id.bytes.len)) {
		slice_unref(&id);
		refuse_join(j, GROUP_FULL);
		return;
	}
	struct promised *p = mem_new(sizeof *p);
	p->id = id;
	p->deadline_ms = now_ms + j->session_ms;
	charge(g, sizeof *p + id.bytes.len, 0);
	list_push_back(&g->promised, &p->node);
	g->promised_count++;
	j->id = slice_ref(id);
	refuse_join(j, GROUP_ID_REQUIRED);
}

/* The member with that id, or why not. */
static enum group_err member_find(
	struct group *g, struct bytes id, struct bytes instance, struct group_member **out)
{
	struct group_member *m = map_get(&g->members, id);
	*out = NULL;
	if (said(instance)) {
		struct group_member *owner = map_get(&g->instances, instance);
		if (owner == NULL)
			return GROUP_UNKNOWN_MEMBER;
		if (owner != m)
			return GROUP_FENCED_INSTANCE;
	}
	if (m == NULL)
		return GROUP_UNKNOWN_MEMBER;
	*out = m;
	return GROUP_OK;
}

static void join_known(struct group *g, struct group_join *j, int64_t now_ms)
{
	struct group_member *m;
	struct promised *p = said(j->instance_id) ? NULL : promised_find(g, j->member_id);
	if (p != NULL) {
		struct slice id = slice_ref(p->id);
		promised_remove(g, p);
		add_member(g, j, &id, now_ms);
		slice_unref(&id);
		return;
	}
	enum group_err ge = member_find(g, j->member_id, j->instance_id, &m);
	if (ge != GROUP_OK) {
		refuse_join(j, ge);
		return;
	}
	touch(m, now_ms);
	bool same = group_protocols_same(m, j);
	bool has_it = same &&
		(g->state == GROUP_COMPLETING || (g->state == GROUP_STABLE && m != g->leader));
	if (has_it) { /* the answer was lost */
		accept_join(g, m, j, &g->leader->id, m == g->leader);
		return;
	}
	enum err e = member_update(g, m, j);
	if (e != OK)
		refuse_join(j, err_of(e));
	else
		await_join(g, m, j, now_ms);
}

void group_join(struct group *g, struct group_join *j, int64_t now_ms)
{
	struct group_member *self = j->member_id.len > 0 ? map_get(&g->members, j->member_id)
		: said(j->instance_id)                   ? map_get(&g->instances, j->instance_id)
							 : NULL;
	if (j->rebalance_ms < 0)
		j->rebalance_ms = j->session_ms;
	if (g->state == GROUP_DEAD)
		refuse_join(j, GROUP_UNAVAILABLE);
	else if (j->session_ms < g->conf->session_ms_min || j->session_ms > g->conf->session_ms_max)
		refuse_join(j, GROUP_BAD_TIMEOUT);
	else if (!group_protocols_fit(g, j, self))
		refuse_join(j, GROUP_BAD_PROTOCOL);
	else if (j->member_id.len == 0)
		join_new(g, j, now_ms);
	else
		join_known(g, j, now_ms);
}

/* Assignments */

enum err group_member_assign(struct group *g, struct group_member *m, struct bytes assignment)
{
	assignment_drop(g, m);
	if (!fits(g, assignment.len))
		return ERR_TOOBIG;
	enum err e = group_keep(assignment, &m->assignment);
	if (e != OK || m->assignment.chunk == NULL)
		m->assignment = (struct slice){NULL, {NULL, 0}};
	if (e == OK)
		charge(g, m->assignment.bytes.len, 0);
	return e;
}

static enum err take_assignments(struct group *g, const struct group_sync *s)
{
	size_t bytes = 0;
	for (uint32_t i = 0; i < s->assignment_count; i++)
		bytes += s->assignments[i].assignment.len;
	if (!fits(g, bytes))
		return ERR_TOOBIG;
	for (uint32_t i = 0; i < s->assignment_count; i++) {
		struct group_member *m = map_get(&g->members, s->assignments[i].member_id);
		if (m == NULL)
			continue;
		enum err e = group_member_assign(g, m, s->assignments[i].assignment);
		if (e != OK)
			return e;
	}
	return OK;
}

static void sync_completing(
	struct group *g, struct group_member *m, struct group_sync *s, int64_t now_ms)
{
	if (m->sync != NULL)
		refuse_sync(m->sync, GROUP_REBALANCING);
	m->sync = s;
	m->synced = true;
	if (m != g->leader || g->storing)
		return;
	enum err e = take_assignments(g, s);
	if (e != OK) {
		m->sync = NULL;
		refuse_sync(s, err_of(e));
		begin_rebalance(g, now_ms);
		return;
	}
	g->storing = true;
	if (g->store != NULL)
		g->store(g);
	else
		group_stored(g, g->generation, true, now_ms);
}

void group_stored(struct group *g, int32_t generation, bool ok, int64_t now_ms)
{
	if (g->state != GROUP_COMPLETING || g->generation != generation || !g->storing)
		return;
	g->storing = false;
	if (!ok) {
		begin_rebalance(g, now_ms);
		return;
	}
	group_move(g, GROUP_STABLE);
	g->deadline_ms = 0;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		struct group_member *m = list_entry(l, struct group_member, node);
		struct group_sync *s = m->sync;
		m->sync = NULL;
		if (s == NULL)
			continue;
		touch(m, now_ms);
		answer_sync(g, m, s);
	}
}

static bool says_other(struct bytes asked, const struct slice *is)
{
	return said(asked) && !bytes_equal(asked, is->bytes);
}

void group_sync(struct group *g, struct group_sync *s, int64_t now_ms)
{
	struct group_member *m;
	enum group_err ge = member_find(g, s->member_id, s->instance_id, &m);
	if (ge == GROUP_OK && s->generation != g->generation)
		ge = GROUP_OLD_GENERATION;
	else if (ge == GROUP_OK &&
		(says_other(s->protocol_type, &g->protocol_type) ||
			says_other(s->protocol, &g->protocol)))
		ge = GROUP_BAD_PROTOCOL;
	else if (ge == GROUP_OK && g->state == GROUP_PREPARING)
		ge = GROUP_REBALANCING;
	if (ge != GROUP_OK) {
		refuse_sync(s, ge);
		return;
	}
	touch(m, now_ms);
	if (g->state == GROUP_STABLE) {
		m->synced = true;
		answer_sync(g, m, s);
	} else {
		sync_completing(g, m, s, now_ms);
	}
}

/* Staying and going */

enum group_err group_heartbeat(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms)
{
	struct group_member *m;
	enum group_err ge = member_find(g, member_id, instance_id, &m);
	if (ge != GROUP_OK)
		return ge;
	if (generation != g->generation)
		return GROUP_OLD_GENERATION;
	touch(m, now_ms);
	return g->state == GROUP_PREPARING ? GROUP_REBALANCING : GROUP_OK;
}

enum group_err group_leave(
	struct group *g, struct bytes member_id, struct bytes instance_id, int64_t now_ms)
{
	struct group_member *m;
	struct promised *p = said(instance_id) ? NULL : promised_find(g, member_id);
	if (p != NULL) {
		promised_remove(g, p);
		try_end_rebalance(g, now_ms);
		return GROUP_OK;
	}
	if (said(instance_id) && member_id.len == 0) { /* an administrator removes an instance */
		m = map_get(&g->instances, instance_id);
		if (m == NULL)
			return GROUP_UNKNOWN_MEMBER;
	} else {
		enum group_err ge = member_find(g, member_id, instance_id, &m);
		if (ge != GROUP_OK)
			return ge;
	}
	group_member_remove(g, m, GROUP_UNKNOWN_MEMBER);
	member_gone(g, now_ms);
	return GROUP_OK;
}

enum group_err group_may_commit(struct group *g, int32_t generation, struct bytes member_id,
	struct bytes instance_id, int64_t now_ms)
{
	struct group_member *m;
	bool simple = generation < 0 && member_id.len == 0 && !said(instance_id);
	if (simple)
		return g->members.count == 0 ? GROUP_OK : GROUP_UNKNOWN_MEMBER;
	enum group_err ge = member_find(g, member_id, instance_id, &m);
	if (ge != GROUP_OK)
		return ge;
	if (generation != g->generation)
		return GROUP_OLD_GENERATION;
	touch(m, now_ms);
	return g->state == GROUP_COMPLETING ? GROUP_REBALANCING : GROUP_OK;
}

/* Time */

static void expire_promised(struct group *g, int64_t now_ms)
{
	struct list *l = g->promised.next;
	while (l != &g->promised) {
		struct promised *p = list_entry(l, struct promised, node);
		l = l->next;
		if (now_ms >= p->deadline_ms)
			promised_remove(g, p);
	}
}

static bool waits(const struct group_member *m)
{
	return m->join != NULL || m->sync != NULL;
}

/* Those whose session has ended; at the deadline of COMPLETING those who never asked. */
static void expire_members(struct group *g, int64_t now_ms)
{
	bool late = g->state == GROUP_COMPLETING && now_ms >= g->deadline_ms && !g->storing;
	bool gone = false;
	struct list *l = g->in_order.next;
	while (l != &g->in_order) {
		struct group_member *m = list_entry(l, struct group_member, node);
		l = l->next;
		if ((waits(m) || now_ms < m->deadline_ms) && !(late && !m->synced))
			continue;
		group_member_remove(g, m, GROUP_UNKNOWN_MEMBER);
		gone = true;
	}
	if (gone)
		member_gone(g, now_ms);
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

int64_t group_tick(struct group *g, int64_t now_ms)
{
	int64_t next = 0;
	if (g->state == GROUP_DEAD)
		return 0;
	expire_promised(g, now_ms);
	expire_members(g, now_ms);
	try_end_rebalance(g, now_ms);
	if (g->state == GROUP_PREPARING || g->state == GROUP_COMPLETING)
		next = g->deadline_ms > now_ms ? g->deadline_ms : now_ms + 1000;
	for (struct list *l = g->in_order.next; l != &g->in_order; l = l->next) {
		const struct group_member *m = list_entry(l, struct group_member, node);
		if (!waits(m))
			next = sooner(next, m->deadline_ms);
	}
	for (struct list *l = g->promised.next; l != &g->promised; l = l->next)
		next = sooner(next, list_entry(l, struct promised, node)->deadline_ms);
	return next;
}
