/* A group's spread is the number of different racks among its members; a node without a rack is
 * one by itself. Every choice is the best of a small number of candidates by a tuple of costs, so
 * the same state gives the same plan. Load is evened by single moves from a fuller to an emptier
 * node: whenever two differ by more than one, some group can move unless its spread forbids it. */
#include "cluster/placement.h"
#include <string.h>
#include "server/base/mem.h"

static struct place_node *node_of(struct placement *p, uint32_t id)
{
	for (int i = 0; i < p->count; i++) {
		if (p->nodes[i].id == id)
			return &p->nodes[i];
	}
	return NULL;
}

static bool has(const struct place_group *g, uint32_t id)
{
	for (int i = 0; i < g->count; i++) {
		if (g->members[i] == id)
			return true;
	}
	return false;
}

static bool same_rack(const struct place_node *a, const struct place_node *b)
{
	return a == b || (a->rack[0] != 0 && strcmp(a->rack, b->rack) == 0);
}

/* How many members but one (-1: none is left out) share the rack of n. */
static int rack_mates(
	struct placement *p, const struct place_group *g, const struct place_node *n, int without)
{
	int mates = 0;

	for (int i = 0; i < g->count; i++) {
		const struct place_node *m = node_of(p, g->members[i]);

		mates += i != without && m != NULL && same_rack(m, n);
	}
	return mates;
}

void placement_count(struct placement *p, const struct place_group *g, int sign)
{
	for (int i = 0; i < g->count; i++) {
		struct place_node *n = node_of(p, g->members[i]);

		if (n == NULL)
			continue;
		n->replicas += sign;
		n->leaders += i == 0 ? sign : 0;
		n->tables_led += i == 0 && g->table ? sign : 0;
	}
}

static bool less_loaded(const struct place_node *a, const struct place_node *b)
{
	if (a->replicas != b->replicas)
		return a->replicas < b->replicas;
	if (a->leaders != b->leaders)
		return a->leaders < b->leaders;
	return a->id < b->id;
}

/* The node that had best get the next replica of g. NULL: none can. */
static struct place_node *best_new(struct placement *p, const struct place_group *g, bool alive)
{
	struct place_node *best = NULL;
	int best_mates = 0;

	for (int i = 0; i < p->count; i++) {
		struct place_node *n = &p->nodes[i];
		int mates;

		if (!n->active || (alive && !n->alive) || has(g, n->id))
			continue;
		mates = rack_mates(p, g, n, -1);
		if (best == NULL || mates < best_mates ||
			(mates == best_mates && less_loaded(n, best))) {
			best = n;
			best_mates = mates;
		}
	}
	return best;
}

static uint32_t without_bit(uint32_t bits, int at)
{
	return (bits & ((1u << at) - 1)) | bits >> (at + 1) << at;
}

static void remove_at(struct place_group *g, int at)
{
	memmove(g->members + at, g->members + at + 1,
		(size_t)(g->count - at - 1) * sizeof g->members[0]);
	g->lost = without_bit(g->lost, at);
	g->dead = without_bit(g->dead, at);
	g->count--;
}

static uint32_t bit_to_front(uint32_t bits, int at)
{
	return (bits >> (at + 1) << (at + 1)) | (bits & ((1u << at) - 1)) << 1 | (bits >> at & 1);
}

/* Groups like g that n leads. A table weighs less than a partition: a stream would end up on the
 * node that has no tables. */
static int leads(const struct place_node *n, const struct place_group *g)
{
	return g->table ? n->tables_led : n->leaders - n->tables_led;
}

/* The member with the fewest such groups to lead comes first; the present one if it is as good. */
static void choose_leader(struct placement *p, struct place_group *g)
{
	int best = -1, fewest = 0;

	for (int i = 0; i < g->count; i++) {
		const struct place_node *n = node_of(p, g->members[i]);

		if (n == NULL || !n->active || !n->alive)
			continue;
		if (best < 0 || leads(n, g) < fewest) {
			best = i;
			fewest = leads(n, g);
		}
	}
	if (best > 0) {
		uint32_t id = g->members[best];

		memmove(g->members + 1, g->members, (size_t)best * sizeof g->members[0]);
		g->members[0] = id;
		g->lost = bit_to_front(g->lost, best);
		g->dead = bit_to_front(g->dead, best);
	}
}

/* Nodes that answer come first. Those that do not fill up as long as a majority does: two voters of
 * two cannot lose either, two of three can lose one as soon as the third is back. */
int placement_new(struct placement *p, int wanted, uint32_t members[PLACEMENT_REPLICAS_MAX])
{
	struct place_group g = {.wanted = wanted};
	int alive = 0;

	must(wanted <= PLACEMENT_REPLICAS_MAX);
	while (g.count < wanted) {
		struct place_node *n = best_new(p, &g, true);

		if (n == NULL && (g.count == 0 || 2 * alive > g.count + 1))
			n = best_new(p, &g, false);
		if (n == NULL)
			break;
		alive += n->alive;
		g.members[g.count++] = n->id;
	}
	choose_leader(p, &g);
	placement_count(p, &g, 1);
	memcpy(members, g.members, sizeof g.members);
	return g.count;
}

static int active_members(struct placement *p, const struct place_group *g)
{
	int count = 0;

	for (int i = 0; i < g->count; i++) {
		const struct place_node *n = node_of(p, g->members[i]);

		count += n != NULL && n->active;
	}
	return count;
}

static void put_at(struct place_group *g, int at, uint32_t id)
{
	g->members[at] = id;
	g->lost &= ~(1u << at);
	g->dead &= ~(1u << at);
}

/* Members that are not waited for give way to others, as far as there are any. */
static bool replace_dead(struct placement *p, struct place_group *g)
{
	bool changed = false;

	for (int i = 0; i < g->count; i++) {
		const struct place_node *other = (g->dead >> i & 1) != 0 ? best_new(p, g, true)
									 : NULL;

		if (other == NULL)
			continue;
		put_at(g, i, other->id);
		changed = true;
	}
	return changed;
}

/* Members on nodes that leave give way to others, at least one of them stays. */
static bool replace_leaving(struct placement *p, struct place_group *g)
{
	bool changed = false;

	for (int i = 0; i < g->count;) {
		const struct place_node *n = node_of(p, g->members[i]);
		struct place_node *other;

		if (n != NULL && n->active) {
			i++;
			continue;
		}
		other = active_members(p, g) < g->wanted ? best_new(p, g, true) : NULL;
		if (other != NULL) {
			put_at(g, i, other->id);
			i++;
		} else if (active_members(p, g) > 0) {
			remove_at(g, i);
		} else {
			i++;
			continue;
		}
		changed = true;
	}
	return changed;
}

/* The member that is missed least: dead before alive, then the fullest rack, then load; who leads
 * stays if that can be. */
static int worst_member(struct placement *p, const struct place_group *g)
{
	int worst = -1, worst_mates = 0;

	for (int i = 0; i < g->count; i++) {
		const struct place_node *n = node_of(p, g->members[i]), *w;
		int mates = n != NULL ? rack_mates(p, g, n, i) : 0;

		if (n == NULL)
			return i;
		w = worst >= 0 ? node_of(p, g->members[worst]) : NULL;
		if (w == NULL || (w->alive && !n->alive) ||
			(w->alive == n->alive &&
				(mates > worst_mates ||
					(mates == worst_mates &&
						(worst == 0 || less_loaded(w, n)))))) {
			worst = i;
			worst_mates = mates;
		}
	}
	return worst;
}

static bool raise_or_lower(struct placement *p, struct place_group *g, enum placement_reason *why)
{
	bool changed = false;

	while (g->count > g->wanted && g->count > 1) {
		remove_at(g, worst_member(p, g));
		*why = PLACEMENT_LOWER;
		changed = true;
	}
	while (g->count < g->wanted) {
		struct place_node *n = best_new(p, g, true);

		if (n == NULL)
			break;
		g->members[g->count++] = n->id;
		*why = PLACEMENT_RAISE;
		changed = true;
	}
	return changed;
}

enum placement_reason placement_repair(struct placement *p, struct place_group *g)
{
	enum placement_reason why = PLACEMENT_KEEP;
	const struct place_node *first;

	must(g->wanted <= PLACEMENT_REPLICAS_MAX && g->count <= PLACEMENT_REPLICAS_MAX);
	placement_count(p, g, -1);
	raise_or_lower(p, g, &why);
	if (replace_dead(p, g))
		why = PLACEMENT_DEAD;
	if (replace_leaving(p, g))
		why = PLACEMENT_LEAVE;
	for (int i = 0; i < g->count; i++) {
		const struct place_node *n = node_of(p, g->members[i]);

		if ((g->lost >> i & 1) == 0 || n == NULL || !n->alive)
			continue;
		g->lost &= ~(1u << i);
		if (why == PLACEMENT_KEEP)
			why = PLACEMENT_RETURN;
	}
	first = g->count > 0 ? node_of(p, g->members[0]) : NULL;
	if (why != PLACEMENT_KEEP && (first == NULL || !first->active || why == PLACEMENT_DEAD))
		choose_leader(p, g);
	placement_count(p, g, 1);
	return why;
}

/* Whether to put `to` in the place of member i is better, and by what. */
static enum placement_reason gain(
	struct placement *p, const struct place_group *g, int i, const struct place_node *to)
{
	const struct place_node *from = node_of(p, g->members[i]);
	int mates_now = rack_mates(p, g, from, i), mates_then = rack_mates(p, g, to, i);

	if (mates_then < mates_now)
		return PLACEMENT_RACK;
	if (mates_then == mates_now && from->replicas > to->replicas + 1)
		return PLACEMENT_LOAD;
	return PLACEMENT_KEEP;
}

enum placement_reason placement_improve(struct placement *p, struct place_group *g)
{
	enum placement_reason best_why = PLACEMENT_KEEP;
	int best_at = 0, best_gap = 0;
	const struct place_node *best_to = NULL;

	for (int i = g->count - 1; i >= 0; i--) { /* who leads stays if others are as good */
		const struct place_node *from = node_of(p, g->members[i]);

		if (from == NULL || !from->active)
			return PLACEMENT_KEEP; /* repair comes first */
		for (int k = 0; k < p->count; k++) {
			const struct place_node *to = &p->nodes[k];
			enum placement_reason why;
			int gap = from->replicas - to->replicas;

			if (!to->active || !to->alive || has(g, to->id))
				continue;
			why = gain(p, g, i, to);
			if (why == PLACEMENT_KEEP ||
				(best_why == PLACEMENT_RACK && why != best_why))
				continue;
			if (best_to == NULL || (why == PLACEMENT_RACK && best_why != why) ||
				gap > best_gap) {
				best_why = why;
				best_at = i;
				best_to = to;
				best_gap = gap;
			}
		}
	}
	if (best_to == NULL)
		return PLACEMENT_KEEP;
	placement_count(p, g, -1);
	g->members[best_at] = best_to->id;
	if (best_at == 0)
		choose_leader(p, g);
	placement_count(p, g, 1);
	return best_why;
}

enum placement_reason placement_lead(struct placement *p, struct place_group *g)
{
	const struct place_node *first = g->count > 0 ? node_of(p, g->members[0]) : NULL;
	const struct place_node *next;
	struct place_group then = *g;

	if (first == NULL || !first->alive)
		return PLACEMENT_KEEP; /* who leads meanwhile is decided by votes */
	placement_count(p, g, -1);
	choose_leader(p, &then);
	next = node_of(p, then.members[0]);
	if (next != NULL && next != first && (!first->active || leads(next, g) < leads(first, g))) {
		*g = then;
		placement_count(p, g, 1);
		return PLACEMENT_LEADER;
	}
	placement_count(p, g, 1);
	return PLACEMENT_KEEP;
}

const char *placement_reason_text(enum placement_reason r)
{
	switch (r) {
	case PLACEMENT_KEEP: return "keep";
	case PLACEMENT_LEAVE: return "leave";
	case PLACEMENT_DEAD: return "dead";
	case PLACEMENT_RETURN: return "return";
	case PLACEMENT_RAISE: return "raise";
	case PLACEMENT_LOWER: return "lower";
	case PLACEMENT_RACK: return "rack";
	case PLACEMENT_LOAD: return "load";
	case PLACEMENT_LEADER: return "leader";
	}
	return "";
}

/* --- the catalogue --- */

static int find_id(const uint32_t *ids, int count, uint32_t id)
{
	for (int i = 0; i < count; i++) {
		if (ids[i] == id)
			return i;
	}
	return -1;
}

static void move_to(uint32_t *ids, int from, int to)
{
	uint32_t id = ids[from];

	if (from > to)
		memmove(ids + to + 1, ids + to, (size_t)(from - to) * sizeof *ids);
	else
		memmove(ids + from, ids + from + 1, (size_t)(to - from) * sizeof *ids);
	ids[to] = id;
}

/* Racks among the first count of ids that n shares. */
static int mates_among(
	struct placement *p, const uint32_t *ids, int count, const struct place_node *n)
{
	int mates = 0;

	for (int i = 0; i < count; i++) {
		const struct place_node *m = node_of(p, ids[i]);

		mates += m != NULL && same_rack(m, n);
	}
	return mates;
}

/* The next to get a vote, among ids[voters..count): in a rack of its own if there is one. */
static int next_voter(struct placement *p, const uint32_t *ids, int voters, int count)
{
	int best = -1, best_mates = 0;

	for (int i = voters; i < count; i++) {
		const struct place_node *n = node_of(p, ids[i]);
		int mates;

		if (n == NULL || !n->active || !n->alive)
			continue;
		mates = mates_among(p, ids, voters, n);
		if (best < 0 || mates < best_mates) {
			best = i;
			best_mates = mates;
		}
	}
	return best;
}

/* The first five to come have the votes, wherever they are: one that shares its rack with more of
 * them than another node would gives its vote to that one. Who leads keeps his if he can. */
static void spread_voters(struct placement *p, uint32_t *ids, int voters, int count)
{
	int worst = -1, worst_mates = 0, next = next_voter(p, ids, voters, count);
	const struct place_node *n;

	for (int i = voters - 1; i >= 0 && next >= 0; i--) {
		n = node_of(p, ids[i]);
		if (n != NULL && mates_among(p, ids, voters, n) - 1 > worst_mates) {
			worst = i;
			worst_mates = mates_among(p, ids, voters, n) - 1;
		}
	}
	n = next >= 0 ? node_of(p, ids[next]) : NULL;
	if (n == NULL || worst < 0 || mates_among(p, ids, voters, n) >= worst_mates)
		return;
	move_to(ids, next, worst);
	move_to(ids, worst + 1, count - 1);
}

int placement_catalog(const struct placement *const_p, uint32_t *members, int *count, int voters)
{
	struct placement *p = (struct placement *)(uintptr_t)const_p; /* looks things up only */
	int next;

	for (int i = 0; i < *count;) { /* gone from the cluster */
		if (node_of(p, members[i]) != NULL) {
			i++;
			continue;
		}
		memmove(members + i, members + i + 1, (size_t)(*count - i - 1) * sizeof *members);
		--*count;
		voters -= i < voters;
	}
	for (int i = 0; i < p->count && *count < PLACEMENT_NODES_MAX; i++) {
		if (find_id(members, *count, p->nodes[i].id) < 0)
			members[(*count)++] = p->nodes[i].id;
	}
	while (voters < CATALOG_VOTERS_MAX && (next = next_voter(p, members, voters, *count)) >= 0)
		move_to(members, next, voters++);
	for (int i = voters - 1; i >= 0; i--) { /* those that drain */
		const struct place_node *n = node_of(p, members[i]);

		if (n == NULL || n->active)
			continue;
		next = next_voter(p, members, voters, *count);
		if (next >= 0) {
			move_to(members, next, voters);
			voters++;
		} else if (voters == 1) {
			break;
		}
		move_to(members, i, *count - 1);
		voters--;
	}
	if (voters == CATALOG_VOTERS_MAX)
		spread_voters(p, members, voters, *count);
	return voters;
}
