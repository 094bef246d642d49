/* Catch-up between two stores of one process, with a stand-in for the peers. The target holds the
 * first entries of the source's log, and one that no leader has made. The source may go on writing
 * meanwhile. */
#ifndef TESTS_UNIT_CLUSTER_CATCHUP_WORLD_H
#define TESTS_UNIT_CLUSTER_CATCHUP_WORLD_H
#include <check.h>
#include <raft.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#include "cluster/catchup_priv.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/store_priv.h"
#include "tests/unit/run_on.h"

enum { GROUP = 5, ROWS = 40, SOURCE_NODE = 1, TARGET_NODE = 2, ENTRIES = 60, HELD = 3 };

struct node {
	struct store *store;
	struct writer *writer;
	struct plog_env env;
	struct plog *log;
	struct catchups *all;
};

static struct {
	struct loops *loops;
	struct workers *workers;
	struct loop *loop;
	struct node source, target;
	struct catchup_settings settings;
	struct catchup_source from;
	struct catchup *fetch;
	sem_t done;
	enum err err;
	uint64_t index_min;
	/* the source */
	uint64_t rows[ROWS], applied;
	bool dirty[ROWS];
	_Atomic bool writing, leads;
	struct loop_timer timer;
	_Atomic int pins, emptied;
	_Atomic uint64_t match; /* what the target has acknowledged to the leader */
	size_t row_bytes;
	uint64_t held; /* of the target's log */
	/* the network */
	_Atomic int calls, chunks, log_chunks;
	int lose_questions, lose_answers; /* one in so many */
	_Atomic int break_at, expire_at;  /* the how manyeth chunk; 0: none */
} T;

/* --- stand-ins --- */

struct peers {
	int unused;
};
static peer_server server;
static void *server_arg;

void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	(void)p;
	ck_assert_int_eq(op, PEER_OP_CATCHUP);
	server = fn;
	server_arg = arg;
}

struct passing { /* a call on its way */
	struct peer_request r;
	struct peer_call *call;
	struct slice answer;
	enum err err;
};

static inline void passing_done(void *arg)
{
	struct passing *p = arg;
	struct peer_call *c = p->call;

	c->err = p->err;
	c->answer = p->answer;
	mem_free(p);
	c->done(c);
}

static inline bool unlucky(int one_in)
{
	return one_in > 0 && random_u64() % (uint64_t)one_in == 0;
}

/* Flips a bit of a chunk (its checksum is right again for every other one). */
static inline void spoil(struct slice *s)
{
	struct slice copy;
	uint8_t *at;

	ck_assert_int_eq(slice_copy(s->bytes, &copy), OK);
	at = copy.chunk->data;
	at[copy.bytes.len - 9] ^= 4;
	slice_unref(s);
	*s = copy;
}

void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int count)
{
	struct passing *p = list_entry(r, struct passing, r);

	(void)lane;
	ck_assert_int_le(count, 1);
	slice_unref(&r->body);
	p->err = e;
	if (count == 1) {
		p->answer = parts[0];
		if (p->answer.bytes.at[0] == 1 && p->answer.bytes.len > 8 &&
			get_u64be(p->answer.bytes.at + 8) == GROUP) {
			T.chunks++;
			T.log_chunks += p->answer.bytes.at[1] == CATCHUP_LOG;
			if (T.chunks == T.break_at)
				spoil(&p->answer);
		}
	}
	if (unlucky(T.lose_answers)) {
		slice_unref(&p->answer);
		p->err = ERR_TIMEOUT;
	}
	loop_call(T.loop, passing_done, p);
	if (T.chunks == T.expire_at && T.expire_at > 0) {
		T.expire_at = 0;
		catchups_end(T.source.all, GROUP, T.loop);
	}
}

static inline void passing_arrive(void *arg)
{
	struct passing *p = arg;

	server(server_arg, &p->r);
}

void peer_call(struct peers *peers, struct peer_call *c)
{
	struct passing *p = mem_new(sizeof *p);

	T.calls++;
	ck_assert_uint_eq(c->to, SOURCE_NODE);
	ck_assert_uint_eq(c->group, GROUP);
	ck_assert_int_eq(c->part_count, 1);
	p->call = c;
	p->r = (struct peer_request){.from = TARGET_NODE,
		.op = c->op,
		.group = c->group,
		.loop = T.loop,
		.body = c->parts[0],
		.peers = peers};
	if (!unlucky(T.lose_questions)) {
		loop_call(T.loop, passing_arrive, p);
		return;
	}
	slice_unref(&p->r.body);
	p->err = ERR_UNKNOWN;
	loop_call(T.loop, passing_done, p);
}

void consensus_pin(struct consensus *c, bool on)
{
	(void)c;
	T.pins += on ? 1 : -1;
	ck_assert_int_ge(T.pins, 0);
}

enum consensus_role consensus_role(const struct consensus *c)
{
	(void)c;
	return T.leads ? ROLE_LEADER : ROLE_FOLLOWER;
}

uint64_t consensus_commit(const struct consensus *c)
{
	(void)c;
	return 0; /* what came after the snapshot is Raft's */
}

int consensus_peers(const struct consensus *c, struct consensus_peer *out, int max)
{
	(void)c;
	ck_assert_int_gt(max, 1);
	out[0] = (struct consensus_peer){.replica = 1ull << 32 | 1, .match_index = 1};
	out[1] = (struct consensus_peer){
		.replica = (uint64_t)TARGET_NODE << 32 | 7, .match_index = T.match};
	return 2;
}

/* --- stores that stop taking writes --- */

static struct store_ops freezing;
static const struct store_ops *real;
static _Atomic int writes_left; /* of the target; below 0: no limit */
static _Atomic int unlogged_writes, flushes, write_us;
static _Atomic bool flush_hangs;

static inline bool frozen(void)
{
	int left = atomic_load(&writes_left);

	if (left > 0)
		atomic_store(&writes_left, left - 1);
	return left == 0;
}

static inline enum err freezing_write(struct store *s, struct store_batch *b)
{
	usleep((useconds_t)atomic_load(&write_us));
	return frozen() ? OK : real->write(s, b);
}
static inline enum err freezing_write_unlogged(struct store *s, struct store_batch *b)
{
	atomic_fetch_add(&unlogged_writes, 1);
	return frozen() ? OK : real->write_unlogged(s, b);
}
static inline enum err freezing_flush(struct store *s, enum store_family f)
{
	atomic_fetch_add(&flushes, 1);
	while (atomic_load(&flush_hangs))
		usleep(1000);
	return frozen() ? OK : real->flush(s, f);
}

/* --- nodes --- */

static inline void node_up(struct node *n)
{
	n->writer = writer_new(n->store, T.loops);
	n->env = (struct plog_env){.loop = T.loop,
		.store = n->store,
		.lane = writer_lane(n->writer, T.loop),
		.cache = tail_cache_new(1 << 20),
		.workers = T.workers};
	n->all = catchups_new(&T.settings, NULL, T.loops);
	ck_assert_int_eq(plog_open(&n->env, GROUP, FAMILY_LOG_DAYS, &n->log), OK);
}

static inline const struct catchup_source *find(void *arg, uint64_t group)
{
	(void)arg;
	return group == GROUP && T.leads ? &T.from : NULL;
}

static inline void write_back(void *arg)
{
	uint8_t key[32], number[8];
	uint8_t *value = mem_new(T.row_bytes);

	(void)arg;
	for (int i = 0; i < ROWS; i++) {
		struct bytes parts[2] = {bytes_of(number, 8), bytes_of(value, T.row_bytes)};
		uint8_t name = (uint8_t)i;
		size_t len = key_row(GROUP, 1 + (uint8_t)(i % 2), bytes_of(&name, 1), key);

		if (!T.dirty[i])
			continue;
		T.dirty[i] = false;
		put_u64be(number, T.rows[i]);
		lane_put(T.source.env.lane, FAMILY_ROWS, bytes_of(key, len), parts, 2);
	}
	mem_free(value);
	plog_mark_applied(T.source.log, T.applied, 2);
}

/* The next entry, the same on every node. Gives its index. */
static inline uint64_t append_to(struct plog *log, size_t bytes)
{
	struct chunk *c = chunk_try(bytes);
	struct slice s = {c, bytes_of(c->data, bytes)};
	uint64_t index = plog_last_index(log) + 1;
	struct entry *e;

	memset(c->data, (int)index, bytes);
	e = entry_new(&s, 1);
	e->head.term = 2;
	e->head.count = 1 + (uint32_t)(index % 3);
	e->head.hlc = (int64_t)index;
	plog_append(log, e, (int64_t)index);
	entry_unref(e);
	return index;
}

/* One entry, applied at once: it sets a row. */
static inline void append(size_t bytes)
{
	uint64_t index = append_to(T.source.log, bytes);

	T.applied = index;
	T.rows[index % ROWS] = index;
	T.dirty[index % ROWS] = true;
	plog_applied(T.source.log, index);
}

static inline void go_on_writing(struct loop_timer *t)
{
	append(20000);
	if (plog_last_index(T.source.log) % 7 == 0)
		write_back(NULL);
	if (T.writing && plog_last_index(T.source.log) < 2000)
		loop_timer_set(t, 1);
}

/* --- calls to the loop --- */

static inline void wait_done(void)
{
	while (sem_wait(&T.done) != 0)
		;
}
static inline void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(T.loop, fn, arg);
}
static inline void durable_run(struct durable *d)
{
	(void)d;
	sem_post(&T.done);
}
static inline void ask_durable(void *arg)
{
	static struct durable d;

	d = (struct durable){.done = durable_run};
	lane_when_durable(((struct node *)arg)->env.lane, &d);
}
static inline void wait_durable(struct node *n)
{
	on_loop(ask_durable, n);
	wait_done();
}

static inline void fill(void *arg)
{
	struct raft_configuration conf;
	struct raft_buffer b;

	raft_configuration_init(&conf);
	ck_assert_int_eq(raft_configuration_add(&conf, 1ull << 32 | 1, "1", RAFT_VOTER), 0);
	ck_assert_int_eq(raft_configuration_encode(&conf, &b), 0);
	ck_assert_uint_eq(b.len, 24);
	memset((char *)b.base + 20, 0, 4); /* padding: the library's heap is not ours here */
	for (int i = 0; i < ENTRIES; i++)
		append(*(size_t *)arg + (size_t)i);
	plog_mark_config(T.source.log, 1, bytes_of(b.base, b.len));
	write_back(NULL);
	raft_free(b.base);
	raft_configuration_close(&conf);
}

/* An entry that no leader has made. */
static inline void append_other(struct plog *log)
{
	struct slice s;
	struct entry *e;

	ck_assert_int_eq(slice_copy(bytes_text("other entry"), &s), OK);
	e = entry_new(&s, 1);
	e->head.term = 2;
	e->head.count = 7;
	plog_append(log, e, 1);
	entry_unref(e);
}

/* The first entries, as the source has them, and one above that was never committed. */
static inline void old_target(void *arg)
{
	plog_mark_term_vote(T.target.log, 9, 4);
	for (int i = 0; i < HELD; i++)
		append_to(T.target.log, *(size_t *)arg + (size_t)i);
	append_other(T.target.log);
	plog_mark_config(T.target.log, 1, bytes_text("old"));
	plog_mark_applied(T.target.log, HELD, 2);
	plog_applied(T.target.log, HELD);
	uint8_t key[32];
	size_t len = key_row(GROUP, 9, bytes_text("old"), key);
	struct bytes value = bytes_text("row");
	lane_put(T.target.env.lane, FAMILY_ROWS, bytes_of(key, len), &value, 1);
}

static inline void all_up(void)
{
	T.loops = loops_new(1);
	T.loop = loops_at(T.loops, 0);
	T.workers = workers_new(2);
	node_up(&T.source);
	node_up(&T.target);
	T.from = (struct catchup_source){
		.log = T.source.log, .env = &T.source.env, .write_back = write_back};
	catchups_serve(T.source.all, find, NULL);
	loop_timer_init(&T.timer, T.loop, go_on_writing);
	loops_run(T.loops);
}

static inline void world(size_t entry_bytes)
{
	memset(&T, 0, sizeof T);
	atomic_store(&writes_left, -1);
	T.settings = (struct catchup_settings){.memory_bytes = 32 << 20};
	T.row_bytes = 100;
	T.leads = true;
	T.match = UINT64_MAX;
	T.held = HELD;
	sem_init(&T.done, 0, 0);
	ck_assert_int_eq(store_open_mem(3, &T.source.store), OK);
	ck_assert_int_eq(store_open_mem(4, &T.target.store), OK);
	real = T.target.store->ops;
	freezing = *real;
	freezing.write = freezing_write;
	freezing.write_unlogged = freezing_write_unlogged;
	freezing.flush = freezing_flush;
	T.target.store->ops = &freezing;
	all_up();
	on_loop(fill, &entry_bytes);
	on_loop(old_target, &entry_bytes);
	wait_durable(&T.source);
	wait_durable(&T.target);
}

static inline void close_logs(void *arg)
{
	(void)arg;
	loop_timer_cancel(&T.timer);
	catchups_end(T.source.all, GROUP, T.loop);
	ck_assert_int_eq(T.pins, 0);
	plog_close(T.source.log);
	plog_close(T.target.log);
}

static inline void all_down(void)
{
	on_loop(close_logs, NULL);
	workers_free(T.workers);
	loops_stop(T.loops);
	writer_stop(T.source.writer);
	writer_stop(T.target.writer);
	ck_assert_int_eq(atomic_load(&T.source.all->out.memory.held), 0);
	ck_assert_int_eq(atomic_load(&T.target.all->in.memory.held), 0);
	catchups_free(T.source.all);
	catchups_free(T.target.all);
	loops_free(T.loops);
	writer_free(T.source.writer);
	writer_free(T.target.writer);
	tail_cache_free(T.source.env.cache);
	tail_cache_free(T.target.env.cache);
}

static inline void end_world(void)
{
	all_down();
	store_close(T.source.store);
	store_close(T.target.store);
}

/* The target's process ends, its disk keeps what was synced and maybe more; it comes back. */
static inline void restart_target(void)
{
	all_down();
	store_mem_crash(T.target.store);
	atomic_store(&writes_left, -1);
	all_up();
}

static inline void fetched(void *arg, enum err e)
{
	(void)arg;
	T.err = e;
	T.fetch = NULL;
	sem_post(&T.done);
}
static inline void emptied(void *arg)
{
	(void)arg;
	T.emptied++;
}

static inline void start(void *arg)
{
	struct catchup_fetch f = {.group = GROUP,
		.from = SOURCE_NODE,
		.index_min = T.index_min,
		.held = T.held,
		.env = &T.target.env,
		.log = T.target.log,
		.emptied = emptied,
		.done = fetched};

	(void)arg;
	T.fetch = catchup_start(T.target.all, &f);
	if (T.writing)
		loop_timer_set(&T.timer, 1);
}

static inline enum err fetch(void)
{
	on_loop(start, NULL);
	wait_done();
	return T.err;
}

/* --- what must be --- */

static inline struct store_iter *walk(struct node *n, enum store_family f, uint64_t to_index)
{
	struct group_key from = key_group(GROUP);
	struct entry_key to = key_entry(GROUP, to_index);

	return store_iter_new(n->store, NULL, f, KEY_BYTES(from), KEY_BYTES(to), true);
}

static inline int same(enum store_family f, uint64_t last)
{
	struct store_iter *a = walk(&T.source, f, last + 1), *b = walk(&T.target, f, UINT64_MAX);
	int count = 0;

	for (; store_iter_valid(a) && store_iter_valid(b); count++) {
		ck_assert(bytes_equal(store_iter_key(a), store_iter_key(b)));
		ck_assert(bytes_equal(store_iter_value(a), store_iter_value(b)));
		store_iter_step(a);
		store_iter_step(b);
	}
	ck_assert(!store_iter_valid(a));
	ck_assert(!store_iter_valid(b));
	ck_assert_int_eq(store_iter_free(a), OK);
	ck_assert_int_eq(store_iter_free(b), OK);
	return count;
}

/* Rows are those after entry `last`: each the newest index that set it. */
static inline void rows_are_after(uint64_t last)
{
	struct group_key from = key_group(GROUP), to = key_group(GROUP + 1);
	struct store_iter *i = store_iter_new(
		T.target.store, NULL, FAMILY_ROWS, KEY_BYTES(from), KEY_BYTES(to), true);
	int count = 0;

	for (; store_iter_valid(i); store_iter_step(i), count++) {
		struct bytes key = store_iter_key(i), value = store_iter_value(i);
		uint64_t row = key.at[9], newest = last - (last + ROWS - row) % ROWS;

		ck_assert_uint_eq(key.len, 10);
		ck_assert_uint_eq(value.len, 8 + T.row_bytes);
		ck_assert_uint_eq(get_u64be(value.at), newest);
	}
	ck_assert_int_eq(store_iter_free(i), OK);
	ck_assert_int_eq(count, ROWS);
}

static inline void target_is_whole(void)
{
	const struct plog_marks *m = plog_marks(T.target.log);

	ck_assert(!m->seeding);
	ck_assert_uint_eq(m->term, 9);
	ck_assert_uint_eq(m->vote, 4);
	ck_assert_uint_ge(m->applied_index, ENTRIES);
	ck_assert_uint_eq(plog_last_index(T.target.log), m->applied_index);
	ck_assert_uint_eq(m->config_index, 1);
	ck_assert(bytes_equal(m->config.bytes, plog_marks(T.source.log)->config.bytes));
	ck_assert_uint_eq(m->first_index, plog_marks(T.source.log)->first_index);
	ck_assert_int_eq(m->first_offset, plog_marks(T.source.log)->first_offset);
	ck_assert_int_eq(
		same(FAMILY_IDX, m->applied_index), (int)(m->applied_index - m->first_index + 1));
	same(FAMILY_LOG_DAYS, m->applied_index);
	rows_are_after(m->applied_index);
}

static inline void target_is_old(void)
{
	const struct plog_marks *m = plog_marks(T.target.log);

	ck_assert(!m->seeding);
	ck_assert_uint_eq(m->term, 9);
	ck_assert_uint_eq(m->applied_index, HELD);
	ck_assert_uint_eq(plog_last_index(T.target.log), HELD + 1);
	ck_assert(bytes_equal(m->config.bytes, bytes_text("old")));
}

static inline void target_is_nothing(void)
{
	const struct plog_marks *m = plog_marks(T.target.log);

	ck_assert(m->seeding);
	ck_assert_uint_ge(m->seeding_index, ENTRIES);
	ck_assert_uint_eq(m->term, 9);
	ck_assert_uint_eq(m->vote, 4);
	ck_assert_uint_eq(m->applied_index, 0);
	ck_assert_uint_eq(plog_last_index(T.target.log), 0);
}

static inline void unlogged_if(bool so)
{
	T.settings.unlogged_bytes_min = so ? 1 : INT64_MAX;
}

static inline int run_suite(const char *name, void (*add)(TCase *tc))
{
	Suite *s = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *sr;
	int failed;

	metric_register(&catchup_metrics);
	tcase_set_timeout(tc, 60);
	add(tc);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

#endif
