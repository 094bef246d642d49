/* Two replicas of a group, each over its own store, log and core; only what goes between them is a
 * stand-in. The second one is added when the first has long forgotten its early entries: it is told
 * to install, fetches, and then follows the log. It may be ended in the middle and come back. */
#include <check.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "cluster/catchup.h"
#include "cluster/consensus_priv.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "tests/unit/run_on.h"

enum { GROUP = 1, ROWS = 16, ENTRIES = 1500 };
static const char *const addresses[3] = {NULL, "4294967297", "8589934593"};
static const uint64_t replicas[3] = {0, 1ull << 32 | 1, 2ull << 32 | 1};

struct node {
	int id;
	struct store *store;
	struct writer *writer;
	struct plog_env env;
	struct plog *log;
	struct consensus *c;
	struct catchups *all;
	struct catchup *fetch;
	uint64_t rows[ROWS], applied, applied_term, marked;
	_Atomic int installs, emptied;
};

static struct {
	struct loops *loops;
	struct workers *workers;
	struct loop *loop;
	struct node nodes[3]; /* 1 and 2 */
	struct catchup_settings settings;
	struct catchup_source source;
	struct consensus_change change;
	struct loop_timer timer;
	_Atomic bool changed;
	_Atomic int acked;
	sem_t done;
} T;

/* --- between them --- */

static peer_server server;
static void *server_arg;

void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	(void)p, (void)op;
	server = fn;
	server_arg = arg;
}

struct passing { /* a call, or a frame */
	struct peer_request r;
	struct peer_call *call;
	struct slice bytes;
	enum err err;
	int to;
};

static void call_done(void *arg)
{
	struct passing *p = arg;
	struct peer_call *c = p->call;

	c->err = p->err;
	c->answer = p->bytes;
	mem_free(p);
	c->done(c);
}
void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count)
{
	struct passing *p = list_entry(r, struct passing, r);

	(void)lane;
	slice_unref(&r->body);
	p->err = e;
	if (count > 0)
		p->bytes = parts[0];
	loop_call(T.loop, call_done, p);
}
static void call_arrive(void *arg)
{
	server(server_arg, &((struct passing *)arg)->r);
}
void peer_call(struct peers *peers, struct peer_call *c)
{
	struct passing *p = mem_new(sizeof *p);

	ck_assert_uint_eq(c->to, 1);
	p->call = c;
	p->r = (struct peer_request){.from = 2,
		.op = c->op,
		.group = c->group,
		.loop = T.loop,
		.body = c->parts[0],
		.peers = peers};
	loop_call(T.loop, call_arrive, p);
}

static void frame_arrive(void *arg)
{
	struct passing *p = arg;

	if (T.nodes[p->to].c != NULL)
		ck_assert_int_eq(consensus_receive(T.nodes[p->to].c, p->bytes), OK);
	slice_unref(&p->bytes);
	mem_free(p);
}
static void send(void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	struct passing *p = mem_new(sizeof *p);
	struct buf b;

	(void)arg, (void)address;
	buf_init(&b, 64 << 20);
	for (int i = 0; i < count; i++) {
		buf_add(&b, parts[i].bytes);
		slice_unref(&parts[i]);
	}
	p->bytes = buf_share(&b);
	buf_fini(&b);
	p->to = (int)(to >> 32);
	loop_call(T.loop, frame_arrive, p);
}
static const struct consensus_net net = {send};

/* --- a replica --- */

static void on_apply(void *arg, struct entry *e)
{
	struct node *n = arg;

	ck_assert_uint_eq(e->index, n->applied + 1);
	n->applied = e->index;
	n->applied_term = e->head.term;
	n->rows[e->index % ROWS] = e->index;
}
static void on_write_back(void *arg)
{
	struct node *n = arg;
	uint8_t key[16], value[8];

	for (uint8_t i = 0; i < ROWS && n->applied > n->marked; i++) {
		size_t len = key_row(GROUP, 1, bytes_of(&i, 1), key);
		struct bytes part = bytes_of(value, 8);

		put_u64be(value, n->rows[i]);
		lane_put(n->env.lane, FAMILY_ROWS, bytes_of(key, len), &part, 1);
	}
	if (n->applied > n->marked)
		plog_mark_applied(n->log, n->applied, n->applied_term);
	n->marked = n->applied;
}
static void on_changed(void *arg)
{
	(void)arg;
}

static void on_emptied(void *arg)
{
	struct node *n = arg;

	n->emptied++;
	n->applied = n->marked = 0;
	memset(n->rows, 0, sizeof n->rows);
}
static void take_rows(struct node *n)
{
	uint8_t key[16];

	n->applied = n->marked = plog_marks(n->log)->applied_index;
	n->applied_term = plog_marks(n->log)->applied_term;
	for (uint8_t i = 0; i < ROWS; i++) {
		size_t len = key_row(GROUP, 1, bytes_of(&i, 1), key);
		struct slice value;

		if (store_get(n->store, NULL, FAMILY_ROWS, bytes_of(key, len), &value) != OK)
			continue;
		n->rows[i] = get_u64be(value.bytes.at);
		slice_unref(&value);
	}
}
static void on_fetched(void *arg, enum err e)
{
	struct node *n = arg;

	n->fetch = NULL;
	ck_assert_int_eq(e, OK);
	take_rows(n);
	consensus_installed(n->c, e);
}
static void on_install(void *arg, const struct consensus_install *i)
{
	struct node *n = arg;
	struct catchup_fetch f = {.group = GROUP,
		.from = (uint32_t)(i->from >> 32),
		.index_min = i->least,
		.held = n->applied,
		.env = &n->env,
		.log = n->log,
		.emptied = on_emptied,
		.done = on_fetched,
		.arg = n};

	n->installs++;
	n->fetch = catchup_start(n->all, &f);
}
static const struct consensus_fsm fsm = {on_apply, on_write_back, on_changed, on_install};

static void open_node(struct node *n, bool founding)
{
	struct consensus_options o = {.heartbeat_ms = 60,
		.election_ms = 400,
		.snapshot_threshold = 64,
		.snapshot_trailing = 16,
		.inflight_bytes_max = 8 << 20,
		.env = &n->env};
	struct consensus_member m = {replicas[n->id], addresses[n->id]};

	ck_assert_int_eq(plog_open(&n->env, GROUP, FAMILY_LOG_DAYS, &n->log), OK);
	memset(n->rows, 0, sizeof n->rows);
	take_rows(n);
	ck_assert_int_eq(consensus_open(n->log, replicas[n->id], addresses[n->id],
				 founding ? &m : NULL, founding, &o, &fsm, n, &net, n, &n->c),
		OK);
}

static const struct catchup_source *find(void *arg, uint64_t group)
{
	(void)arg, (void)group;
	T.source = (struct catchup_source){
		T.nodes[1].log, T.nodes[1].c, &T.nodes[1].env, on_write_back, &T.nodes[1]};
	return &T.source;
}

static void node_up(int id)
{
	struct node *n = &T.nodes[id];

	n->id = id;
	ck_assert_int_eq(store_open_mem((uint64_t)id, &n->store), OK);
	n->writer = writer_new(n->store, T.loops);
	n->env = (struct plog_env){.loop = T.loop,
		.store = n->store,
		.lane = writer_lane(n->writer, T.loop),
		.cache = tail_cache_new(64 << 10),
		.workers = T.workers};
	n->all = catchups_new(&T.settings, NULL, T.loops);
	open_node(n, id == 1);
}

static void tick(struct loop_timer *t)
{
	for (int i = 1; i <= 2; i++)
		if (T.nodes[i].c != NULL)
			consensus_tick(T.nodes[i].c);
	loop_timer_set(t, 20);
}

/* --- the test's thread --- */

static void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(T.loop, fn, arg);
}
static void begin(void *arg)
{
	(void)arg;
	tick(&T.timer);
}

static void proposal_done(struct consensus_proposal *p, enum err e)
{
	ck_assert_int_eq(e, OK);
	mem_free(p);
	T.acked++;
}
static void propose(void *arg)
{
	struct slice s;
	struct chunk *c = chunk_try(2000);

	for (int i = 0; i < *(int *)arg; i++) {
		struct consensus_proposal *p = mem_new(sizeof *p);

		memset(c->data, i, 2000);
		ck_assert_int_eq(slice_copy(bytes_of(c->data, 2000), &s), OK);
		p->entry = entry_new(&s, 1);
		p->entry->head.count = 1;
		p->batch_max_ms = 1;
		p->done = proposal_done;
		ck_assert_int_eq(consensus_propose(T.nodes[1].c, p), OK);
	}
	chunk_unref(c);
}
static void propose_all(int count)
{
	int upto = T.acked + count, some = 50;

	for (int i = 0; i < count; i += some) {
		on_loop(propose, &some);
		while (T.acked < upto - count + i + some)
			on_loop(on_changed, NULL);
	}
}

static void change_done(struct consensus_change *c, enum err e)
{
	(void)c;
	ck_assert_int_eq(e, OK);
	T.changed = true;
}
static void change_ask(void *arg)
{
	T.change = (struct consensus_change){.kind = *(enum consensus_change_kind *)arg,
		.replica = replicas[2],
		.address = addresses[2],
		.done = change_done};
	ck_assert_int_eq(consensus_change(T.nodes[1].c, &T.change), OK);
}
static void change(enum consensus_change_kind kind)
{
	T.changed = false;
	on_loop(change_ask, &kind);
	while (!T.changed)
		on_loop(on_changed, NULL);
}

static void look_same(void *arg)
{
	const struct node *a = &T.nodes[1], *b = &T.nodes[2];

	*(bool *)arg = a->applied == b->applied && a->applied == plog_last_index(a->log) &&
		b->c->phase != PHASE_INSTALLING;
}
static void wait_same(void)
{
	for (bool same = false; !same;)
		on_loop(look_same, &same);
	ck_assert_mem_eq(T.nodes[1].rows, T.nodes[2].rows, sizeof T.nodes[1].rows);
	ck_assert_uint_eq(plog_last_index(T.nodes[1].log), plog_last_index(T.nodes[2].log));
	ck_assert_int_eq(plog_next_offset(T.nodes[1].log), plog_next_offset(T.nodes[2].log));
}

/* What a process has staged is in the store, or lost, before the next one looks. */
static void ended(struct durable *d)
{
	(void)d;
	sem_post(&T.done);
}
static void closed(void *arg)
{
	static struct durable staged = {.done = ended};
	struct node *n = arg;

	n->c = NULL;
	plog_close(n->log);
	lane_when_durable(n->env.lane, &staged);
}
static void close_node(void *arg)
{
	struct node *n = arg;

	catchups_end(n->all, GROUP, T.loop);
	if (n->fetch != NULL) {
		catchup_cancel(n->fetch);
		n->fetch = NULL;
		consensus_installed(n->c, ERR_CLOSED);
	}
	consensus_close(n->c, closed, n);
}
static void end_node(int id)
{
	on_loop(close_node, &T.nodes[id]);
	while (sem_wait(&T.done) != 0)
		;
}
static void reopen(void *arg)
{
	open_node(arg, false);
}

/* It was fetching from somebody who had more than there is now. */
static void reopen_wanting_more(void *arg)
{
	struct node *n = arg;

	open_node(n, false);
	plog_seed_begin(n->log, 1 << 20, plog_last_index(n->log));
}

static void setup(void)
{
	consensus_process_init();
	memset(&T, 0, sizeof T);
	T.settings = (struct catchup_settings){.memory_bytes = 32 << 20};
	sem_init(&T.done, 0, 0);
	T.loops = loops_new(1);
	T.loop = loops_at(T.loops, 0);
	T.workers = workers_new(2);
	node_up(1);
	node_up(2);
	catchups_serve(T.nodes[1].all, find, NULL);
	loop_timer_init(&T.timer, T.loop, tick);
	loops_run(T.loops);
	on_loop(begin, NULL);
	propose_all(ENTRIES);
}

static void end_timer(void *arg)
{
	(void)arg;
	loop_timer_cancel(&T.timer);
}

static void teardown(void)
{
	on_loop(end_timer, NULL);
	end_node(2);
	end_node(1);
	workers_free(T.workers);
	loops_stop(T.loops);
	for (int i = 1; i <= 2; i++) {
		catchups_free(T.nodes[i].all);
		writer_stop(T.nodes[i].writer);
		tail_cache_free(T.nodes[i].env.cache);
	}
	loops_free(T.loops);
	for (int i = 1; i <= 2; i++) {
		writer_free(T.nodes[i].writer);
		store_close(T.nodes[i].store);
	}
}

START_TEST(one_that_comes_late_fetches)
{
	change(CHANGE_ADD_SPARE);
	change(CHANGE_TO_STANDBY);
	propose_all(100);
	wait_same();
	ck_assert_int_ge(T.nodes[2].installs, 1);
	ck_assert_int_eq(T.nodes[2].emptied, 1);
	change(CHANGE_TO_VOTER);
	propose_all(200);
	wait_same();
	ck_assert_int_eq(T.nodes[2].emptied, 1);
	/* Its state is its own: it comes back with it. */
	end_node(2);
	on_loop(reopen, &T.nodes[2]);
	propose_all(50);
	wait_same();
	ck_assert_int_eq(T.nodes[2].emptied, 1);
}
END_TEST

START_TEST(one_that_ends_in_the_middle_goes_on)
{
	T.settings.rate_bytes = 1 << 20; /* time to end it */
	change(CHANGE_ADD_SPARE);
	change(CHANGE_TO_STANDBY);
	while (T.nodes[2].emptied == 0)
		on_loop(on_changed, NULL);
	end_node(2);
	on_loop(_i == 1 ? reopen_wanting_more : reopen, &T.nodes[2]);
	ck_assert(plog_marks(T.nodes[2].log)->seeding);
	ck_assert_uint_eq(plog_last_index(T.nodes[2].log), 0);
	T.settings.rate_bytes = 0;
	propose_all(100);
	wait_same();
	ck_assert_int_eq(T.nodes[2].emptied, 2);
	change(CHANGE_TO_VOTER);
	propose_all(50);
	wait_same();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("catchup_group");
	TCase *tc = tcase_create("catchup_group");
	SRunner *sr;
	int failed;

	metric_register(&catchup_metrics);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, one_that_comes_late_fetches);
	tcase_add_loop_test(tc, one_that_ends_in_the_middle_goes_on, 0, 2);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
