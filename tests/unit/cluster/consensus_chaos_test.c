/* A seeded run of a group on virtual time: loss, delay, reordering, partitions, crashes that lose
 * what was not synced, slow disks, transfers, membership changes, snapshots. A failure prints the
 * seed; SLUICE_CHAOS=SEED repeats one, FIRST..LAST runs more, SLUICE_CHAOS_OFF=N without a rule. */
#include <check.h>
#include "server/base/log.h"
#include "server/base/map.h"
#include "tests/unit/cluster/replicas.h"

enum event_kind { EV_TICK, EV_DISK, EV_READ, EV_CLIENT, EV_NEMESIS, EV_RESTART, EV_FETCHED };
struct event {
	int64_t at_ms;
	uint64_t order;
	enum event_kind kind;
	int rep;
	uint32_t life;
};

static struct {
	struct event heap[65536];
	size_t count;
	uint64_t order, seed;
	uint32_t life[REPLICAS_MAX + 1];
	int64_t last_at[REPLICAS_MAX + 1][REPLICAS_MAX + 1];
	bool reorder, members, snapshots, healed, quiet;
	bool wanted; /* membership.c makes the changes; replicas are wiped */
	struct consensus_install fetch[REPLICAS_MAX + 1];
	bool fetching[REPLICAS_MAX + 1];
	int pins[REPLICAS_MAX + 1], wipes, settled, voters_wanted;
	uint64_t want[REPLICAS_MAX];
	int voters, proposals;
	bool trace;
} R;

static int pick(int low, int high)
{
	return low + (int)(random_u64() % (uint64_t)(high - low + 1));
}
static bool chance(int permille)
{
	return pick(1, 1000) <= permille;
}

static bool sooner(const struct event *a, const struct event *b)
{
	return a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->order < b->order);
}

static void event_add(enum event_kind kind, int rep, int64_t after_ms)
{
	size_t i = R.count++;
	must(R.count < sizeof R.heap / sizeof R.heap[0]);
	struct event e = {W.now_ms + after_ms, R.order++, kind, rep, R.life[rep]};
	for (; i > 0 && sooner(&e, &R.heap[(i - 1) / 2]); i = (i - 1) / 2)
		R.heap[i] = R.heap[(i - 1) / 2];
	R.heap[i] = e;
}

static struct event event_next(void)
{
	struct event first = R.heap[0], last = R.heap[--R.count];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < R.count; i = child) {
		if (child + 1 < R.count && sooner(&R.heap[child + 1], &R.heap[child]))
			child++;
		if (!sooner(&R.heap[child], &last))
			break;
		R.heap[i] = R.heap[child];
	}
	R.heap[i] = last;
	return first;
}

static void route(struct frame *f)
{
	if (W.cut[f->from][f->to] || (!R.healed && R.reorder && chance(20))) {
		list_init(&f->node);
		frame_free(f);
		return;
	}
	f->at_ms = W.now_ms + pick(1, !R.healed && chance(50) ? 200 : 15);
	if (!R.reorder && f->at_ms < R.last_at[f->from][f->to])
		f->at_ms = R.last_at[f->from][f->to];
	R.last_at[f->from][f->to] = f->at_ms;
	struct list *at = W.frames.prev; /* kept in order of time */
	while (at != &W.frames && list_entry(at, struct frame, node)->at_ms > f->at_ms)
		at = at->prev;
	list_push_front(at, &f->node);
}

static void tell_wanted(struct rep *r)
{
	if (!r->c || !R.wanted)
		return;
	struct membership_wanted w = {.voters = R.want,
		.voter_count = R.voters_wanted,
		.learners = R.want + R.voters_wanted,
		.learner_count = W.n - R.voters_wanted};
	rep_want(r, &w);
}

/* All in some order; how many of them are to vote. */
static void want_others(void)
{
	for (int i = 0; i < W.n; i++)
		R.want[i] = W.rep[i + 1].id;
	for (int i = W.n - 1; i > 0; i--) {
		int k = pick(0, i);
		uint64_t swap = R.want[i];
		R.want[i] = R.want[k];
		R.want[k] = swap;
	}
	R.voters_wanted = pick(1, W.n);
	for (int i = 1; i <= W.n; i++)
		tell_wanted(&W.rep[i]);
}

/* Fetching takes its time, and may fail. */
static void fetch(struct rep *r, const struct consensus_install *i)
{
	R.fetch[r->id & 15] = *i;
	R.fetching[r->id & 15] = true;
	event_add(EV_FETCHED, (int)(r->id & 15), pick(1, R.healed ? 200 : 3000));
}

/* What is served is what the other has applied by then, more than was asked for or less. */
static struct consensus_install served(const struct rep *r)
{
	struct consensus_install i = R.fetch[r->id & 15];
	const struct rep *from = rep_of(i.from);
	if (from->alive && from->applied > 0 && from->applied >= i.least)
		i.index = from->applied;
	return i;
}

static void fetched(struct rep *r)
{
	if (!r->alive || !R.fetching[r->id & 15])
		return;
	R.fetching[r->id & 15] = false;
	r->loop.now_ms = W.now_ms;
	if (!R.healed && chance(300) && !r->log->marks.seeding) /* from here on there is no state */
		fake_plog_seed_begin(r->log, R.fetch[r->id & 15].index);
	if (!R.healed && chance(300))
		consensus_installed(r->c, ERR_TIMEOUT);
	else
		rep_fetched(r, (struct consensus_install[]){served(r)});
	rep_turn(r);
}

static void start(int i, int voters)
{
	struct rep *r = &W.rep[i];
	R.life[i]++;
	R.fetching[i] = false;
	R.pins[i] = 0;
	rep_start(r, voters);
	tell_wanted(r);
	if (r->c)
		rep_turn(r);
	event_add(EV_TICK, i, pick(1, 50));
	event_add(EV_DISK, i, pick(1, 20));
	event_add(EV_READ, i, pick(1, 20));
}

static void crash(struct rep *r)
{
	rep_crash(r, pick(0, lane_count(&r->lane)));
	event_add(EV_RESTART, (int)(r->id & 15), pick(50, 2500));
}

static void member_done(struct consensus_change *change, enum err e)
{
	(void)e;
	list_entry(change, struct rep, change)->changing = false;
}

static void member(void)
{
	struct rep *lead = world_leader();
	if (!lead || lead->changing || !lead->c->raft)
		return;
	const struct raft_configuration *m = &lead->c->raft->configuration;
	struct rep *target = &W.rep[pick(1, W.n)];
	int role = -1, voters = 0;
	for (unsigned i = 0; i < m->n; i++) {
		if (m->servers[i].id == target->id)
			role = m->servers[i].role;
		voters += m->servers[i].role == RAFT_VOTER;
	}
	struct consensus_change *q = &lead->change;
	*q = (struct consensus_change){
		.replica = target->id, .address = target->address, .done = member_done};
	if (role == -1)
		q->kind = CHANGE_ADD_SPARE;
	else if (role == RAFT_SPARE)
		q->kind = chance(500) ? CHANGE_TO_STANDBY : CHANGE_TO_VOTER;
	else if (role == RAFT_STANDBY)
		q->kind = chance(800) ? CHANGE_TO_VOTER : CHANGE_TO_SPARE;
	else if (voters > 3)
		q->kind = chance(300) ? CHANGE_REMOVE
			: chance(500) ? CHANGE_TO_STANDBY
				      : CHANGE_TO_SPARE;
	else
		return;
	lead->changing = consensus_change(lead->c, q) == OK;
	rep_turn(lead);
}

/* One at a time may lose its data: when the configuration is as wanted no replica that is gone
 * counts any more. It comes back as another. */
static void wipe(struct rep *r)
{
	struct rep *lead = world_leader();
	if (!lead || !lead->members || !consensus_ready(lead->c) || !rep_settled(lead))
		return;
	R.settled++;
	if (R.voters_wanted < 3 || chance(500)) {
		want_others();
		return;
	}
	R.wipes++;
	if (r->alive)
		crash(r);
	rep_wipe(r);
	for (int i = 0; i < W.n; i++)
		if (rep_of(R.want[i]) == r)
			R.want[i] = r->id;
	for (int i = 1; i <= W.n; i++)
		tell_wanted(&W.rep[i]);
}

static void pin(struct rep *r)
{
	int i = (int)(r->id & 15);
	if (!r->alive)
		return;
	bool on = R.pins[i] == 0 || (R.pins[i] < 3 && chance(500));
	consensus_pin(r->c, on);
	R.pins[i] += on ? 1 : -1;
}

static void partition_at_random(void)
{
	int side[REPLICAS_MAX + 1];
	for (int i = 1; i <= W.n; i++)
		side[i] = pick(0, 1);
	for (int i = 1; i <= W.n; i++)
		for (int k = 1; k <= W.n; k++)
			W.cut[i][k] = side[i] != side[k];
}

static void nemesis(void)
{
	struct rep *r = &W.rep[pick(1, W.n)], *lead = world_leader();
	switch (pick(0, R.members || R.wanted ? 12 : 8)) {
	case 0:
	case 1: partition_at_random(); break;
	case 2: memset(W.cut, 0, sizeof W.cut); break;
	case 3: W.cut[pick(1, W.n)][pick(1, W.n)] = true; break;
	case 4:
		if (r->alive)
			crash(r);
		break;
	case 5:
		if (lead && chance(500))
			crash(lead);
		for (int k = 1; lead && lead->alive && k <= W.n; k++)
			W.cut[lead->id & 15][k] = W.cut[k][lead->id & 15] = &W.rep[k] != lead;
		break;
	case 6: r->slow = !r->slow; break;
	case 7:
		if (lead) {
			(void)(consensus_transfer(lead->c, r->id) == OK);
			rep_turn(lead);
		}
		break;
	case 8: pin(r); break;
	default:
		if (R.wanted)
			wipe(r);
		else
			member();
		break;
	}
}

static void client(void)
{
	struct rep *lead = world_leader();
	/* Any replica that thinks so is asked: two may at a time. */
	for (int i = 1; i <= W.n; i++) {
		struct rep *r = &W.rep[i];
		if (!r->alive || consensus_role(r->c) != ROLE_LEADER || (r != lead && chance(500)))
			continue;
		for (int k = pick(1, 3); k > 0; k--)
			R.proposals += rep_propose(r) == OK;
	}
}

static void event_do(const struct event *e)
{
	struct rep *r = &W.rep[e->rep];
	if (e->rep > 0 && e->life != R.life[e->rep])
		return;
	switch (e->kind) {
	case EV_TICK:
		rep_tick(r);
		if (r->alive)
			event_add(EV_TICK, e->rep, 50);
		break;
	case EV_DISK:
		rep_sync(r);
		if (r->alive)
			event_add(EV_DISK, e->rep, r->slow ? pick(50, 800) : pick(1, 15));
		break;
	case EV_READ:
		if (!r->alive)
			break;
		fake_reads_done(&r->loop);
		rep_turn(r);
		event_add(EV_READ, e->rep, pick(1, 15));
		break;
	case EV_CLIENT:
		if (!R.quiet)
			client();
		event_add(EV_CLIENT, 0, pick(1, 30));
		break;
	case EV_NEMESIS:
		if (!R.healed)
			nemesis();
		event_add(EV_NEMESIS, 0, pick(50, 1500));
		break;
	case EV_FETCHED: fetched(r); break;
	case EV_RESTART:
		if (!r->alive)
			start(e->rep,
				r->disk.count == 0 && r->disk.marks.applied_index == 0 &&
						e->rep <= R.voters && R.wipes == 0
					? R.voters
					: 0);
		break;
	}
}

static void heal(void)
{
	R.healed = true;
	for (int i = 1; i <= W.n; i++)
		for (; W.rep[i].alive && R.pins[i] > 0; R.pins[i]--)
			consensus_pin(W.rep[i].c, false);
	memset(W.cut, 0, sizeof W.cut);
	for (int i = 1; i <= W.n; i++) {
		W.rep[i].slow = false;
		if (!W.rep[i].alive && W.rep[i].id)
			event_add(EV_RESTART, i, 1);
	}
}

static void run_until(int64_t end_ms)
{
	while (!W.broken[0]) {
		struct frame *f = list_empty(&W.frames)
			? NULL
			: list_entry(W.frames.next, struct frame, node);
		if (f && f->at_ms <= R.heap[0].at_ms) {
			W.now_ms = f->at_ms;
			if (W.cut[f->from][f->to])
				frame_free(f);
			else
				deliver_frame(f);
			continue;
		}
		if (R.heap[0].at_ms >= end_ms)
			return;
		struct event e = event_next();
		W.now_ms = e.at_ms;
		event_do(&e);
	}
}

static bool belongs(const struct rep *lead, uint64_t id)
{
	const struct raft_configuration *m = &lead->c->raft->configuration;
	for (unsigned i = 0; i < m->n; i++)
		if (m->servers[i].id == id)
			return m->servers[i].role != RAFT_SPARE;
	return false;
}

static void check_converged(void)
{
	struct rep *lead = world_leader();
	if (!lead) {
		broken("nobody leads after healing", 0);
		return;
	}
	for (int i = 1; i <= W.n; i++) {
		struct rep *r = &W.rep[i];
		if (belongs(lead, r->id) && !r->down_ok &&
			(!r->alive || r->applied + 1 < lead->applied))
			broken("not converged", r->id);
	}
}

static void run_seed(uint64_t seed, const bool *guard_off)
{
	random_seed(seed);
	hash_seed(seed);
	int n = seed % 2 ? 3 : 5;
	world_init(n);
	memset(&R, 0, sizeof R);
	R.seed = seed;
	R.reorder = seed % 3 == 0;
	R.members = n == 5 && seed % 4 == 0;
	R.snapshots = seed % 5 < 3;
	R.wanted = n == 5 && seed % 4 == 2;
	R.voters = R.members || R.wanted ? 3 : n;
	W.route = route;
	W.fetch = seed % 3 == 1 ? fetch : NULL;
	if (R.snapshots) {
		W.o.snapshot_threshold = 64;
		W.o.snapshot_trailing = 32;
	}
	if (guard_off)
		memcpy(W.o.guard_off, guard_off, sizeof W.o.guard_off);
	if (R.wanted)
		want_others();
	for (int i = 1; i <= n; i++) {
		start(i, i <= R.voters ? R.voters : 0);
		W.rep[i].log->hide_below = seed % 7 == 0 ? 4 : 0;
	}
	event_add(EV_CLIENT, 0, 1);
	event_add(EV_NEMESIS, 0, 2000);
	run_until(W.now_ms + 20000);
	if (!W.broken[0]) {
		heal();
		run_until(W.now_ms + 8000);
		R.quiet = true;
		run_until(W.now_ms + 4000);
		if (!world_leader()) /* leadership is just moving to the preferred one */
			run_until(W.now_ms + 3000);
	}
	if (!W.broken[0]) {
		world_check();
		check_converged();
	}
}

static void quiet(void)
{
	consensus_process_init();
	log_setup(LOG_ERROR + 1, false);
}

enum { SEEDS_EACH = 10, BATCHES = 30 };

START_TEST(keeps_every_promise)
{
	quiet();
	int acked = 0;
	for (uint64_t seed = (uint64_t)_i * SEEDS_EACH + 1; seed <= (uint64_t)(_i + 1) * SEEDS_EACH;
		seed++) {
		run_seed(seed, NULL);
		ck_assert_msg(!W.broken[0], "seed %llu: %s", (unsigned long long)seed, W.broken);
		for (int i = 1; i <= W.n; i++)
			acked += W.rep[i].acked;
	}
	ck_assert_int_gt(acked, SEEDS_EACH * 100); /* the runs are not idle */
}
END_TEST

/* The simulator notices: without a rule some seed fails. */
START_TEST(finds_a_planted_bug)
{
	quiet();
	bool off[16] = {[2] = true};
	int found = 0;
	for (uint64_t seed = 1; seed <= 120 && found == 0; seed++) {
		run_seed(seed, off);
		found += W.broken[0] != 0;
	}
	ck_assert_int_gt(found, 0);
}
END_TEST

static void print_replica(const struct rep *r)
{
	const struct consensus *c = r->c;
	if (!c) {
		printf("  %s dead\n", r->address);
		return;
	}
	printf("  %s phase=%d state=%d term=%llu applied=%llu last=%llu appends=%u held=%u\n",
		r->address, c->phase, c->raft ? c->raft->state : -1,
		(unsigned long long)consensus_term(c), (unsigned long long)r->applied,
		(unsigned long long)plog_last_index(r->log), c->guard.appends, c->held_count);
	for (unsigned i = 0; c->raft && i < c->raft->configuration.n; i++) {
		const struct raft_progress *p = c->raft->state == RAFT_LEADER
			? &c->raft->leader_state.progress[i]
			: NULL;
		printf("    %s role=%d progress=%d match=%llu next=%llu\n",
			c->raft->configuration.servers[i].address,
			c->raft->configuration.servers[i].role, p ? p->state : -1,
			p ? p->match_index : 0, p ? p->next_index : 0);
	}
}

static int by_hand(const char *range)
{
	char *end;
	uint64_t first = strtoull(range, &end, 10),
		 last = *end == '.' ? strtoull(end + 2, NULL, 10) : first;
	int failed = 0;
	bool off[16] = {false};
	if (getenv("SLUICE_CHAOS_OFF"))
		off[strtoul(getenv("SLUICE_CHAOS_OFF"), NULL, 10) % 16] = true;
	consensus_process_init();
	log_setup(first == last ? LOG_DEBUG : LOG_ERROR + 1, false);
	for (uint64_t seed = first; seed <= last; seed++) {
		run_seed(seed, off);
		uint64_t rebuilds = 0;
		int acked = 0;
		for (int i = 1; i <= W.n; i++) {
			rebuilds += W.rep[i].c ? W.rep[i].c->rebuilds : 0;
			acked += W.rep[i].acked;
		}
		if (W.broken[0] || first == last)
			printf("seed %llu: %s acked=%d of %d rebuilds=%llu wipes=%d settled=%d\n",
				(unsigned long long)seed, W.broken[0] ? W.broken : "ok", acked,
				R.proposals, (unsigned long long)rebuilds, R.wipes, R.settled);
		failed += W.broken[0] != 0;
		for (int i = 1; first == last && i <= W.n; i++)
			print_replica(&W.rep[i]);
	}
	printf("chaos %llu..%llu: %d failed\n", (unsigned long long)first, (unsigned long long)last,
		failed);
	return failed != 0;
}

int main(void)
{
	if (getenv("SLUICE_CHAOS"))
		return by_hand(getenv("SLUICE_CHAOS"));
	TCase *tc = tcase_create("chaos");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, keeps_every_promise, 0, BATCHES);
	tcase_add_test(tc, finds_a_planted_bug);
	Suite *s = suite_create("chaos");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* A crash of a replica forgets its memory, as a process would. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
