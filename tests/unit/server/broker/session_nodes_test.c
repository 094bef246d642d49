/* Sessions of two nodes: two `struct sessions` with a name each, over the rows of one and the same
 * node, and calls between them that the tests carry, lose or hold back. What the nodes know of each
 * other they know from rows and these calls, so it is as if they were apart; both look after the
 * table, as an old leader and a new one may for a moment. */
#include "server/broker/session_priv.h"
#include "server/broker/tenant.h"
#include "tests/unit/server/broker/world_rows.h"

/* A short lease is as long as a machine may stand still while others work. */
enum { LOOPS = 2, NODES = 2, LONG_MS = 600000, SHORT_MS = 2000 };

struct side {
	struct sessions *all;
	_Atomic bool silent; /* does not hear, nor is heard */
	_Atomic int fences;  /* that have come */
};

static struct {
	struct world w;
	struct side sides[NODES];
	struct session_open ask;
	struct session_open *opening;
	struct session *session; /* opened last */
	enum err err;
	bool present;
	_Atomic int fenced, ended, written;
	uint64_t ticket;
	struct subscribe subscribe;
	bool allowed;
} t;

/* Calls */

struct passing {
	struct loop_msg msg;
	struct peer_request request;
	struct peer_call *call;
	struct loop *from;
	struct side *to;
	enum err err;
	struct slice answer;
};

static bool not_alone(void *arg)
{
	(void)arg;
	return false;
}

static void arrive_back(struct loop_msg *m)
{
	struct passing *p = list_entry(m, struct passing, msg);
	struct peer_call *c = p->call;
	c->err = p->err;
	c->answer = p->answer;
	slice_unref(&p->request.body);
	mem_free(p);
	c->done(c);
}

static void answer(struct peer_request *r, enum err e, struct slice body)
{
	struct passing *p = list_entry(r, struct passing, request);
	p->err = e;
	p->answer = body;
	p->msg.run = arrive_back;
	loop_post(p->from, &p->msg);
}

static void arrive(struct loop_msg *m)
{
	struct passing *p = list_entry(m, struct passing, msg);
	if (p->to->silent) {
		answer(&p->request, ERR_UNAVAILABLE, (struct slice){NULL, {NULL, 0}});
	} else if (p->request.op == PEER_OP_FENCE) {
		p->to->fences++;
		session_serve_fence(p->to->all, &p->request);
	} else {
		session_serve_lease(p->to->all, &p->request);
	}
}

static void call(void *arg, struct peer_call *c)
{
	struct sessions *from = arg;
	struct passing *p = mem_new(sizeof *p);
	ck_assert_int_eq(c->part_count, 1);
	ck_assert_uint_ne(c->to, from->self.node);
	p->call = c;
	p->from = loop_here();
	p->to = &t.sides[c->to - 1];
	p->request = (struct peer_request){
		.from = from->self.node, .op = c->op, .group = c->group, .body = c->parts[0]};
	p->msg.run = arrive;
	loop_post(loops_at(t.w.loops, (int)(c->group % LOOPS)), &p->msg);
}

static const struct session_net net = {not_alone, call, answer};

/* A session's owner */

static bool on_deliver(struct session *s, const struct delivery *d)
{
	(void)s;
	(void)d;
	return true;
}
static bool on_again(struct session *s, uint16_t id, const struct delivery *d)
{
	(void)s;
	(void)id;
	(void)d;
	return true;
}
static void on_written(struct session *s)
{
	t.written++;
	if (t.ticket > 0 && session_written(s) >= t.ticket) {
		t.ticket = 0;
		sem_post(&t.w.done);
	}
}
static void on_fenced(struct session *s, enum err why)
{
	ck_assert_int_eq(why, ERR_FENCED);
	t.fenced++;
	session_close(s, true, s->expiry_s);
}
static void on_ended(struct session *s)
{
	(void)s;
	t.ended++;
}
static const struct session_ops ops = {on_deliver, on_again, on_written, on_fenced, on_ended};

static void on_opened(struct session_open *op)
{
	t.err = op->err;
	t.present = op->present;
	t.session = op->session;
	if (op->err == OK)
		session_resume(op->session);
	sem_post(&t.w.done);
}

static void run_open(void *arg)
{
	t.ask.shard = world_shard(&t.w, *(int *)arg);
	t.ask.ops = &ops;
	t.ask.done = on_opened;
	ck_assert_int_eq(session_open(&t.ask, &t.opening), OK);
}

static enum err try_open_as(
	int node, const char *tenant, const char *id, bool clean, uint32_t expiry_s)
{
	int loop = node; /* any will do */
	uint8_t room[16 + TENANT_ID_EXTRA];
	t.ask.all = t.sides[node].all;
	t.ask.client_id = tenant_id(bytes_text(tenant), bytes_text(id), room);
	t.ask.clean = clean;
	t.ask.expiry_s = expiry_s;
	world_call(&t.w, loop, run_open, &loop);
	return t.err;
}

static enum err try_open(int node, const char *id, bool clean, uint32_t expiry_s)
{
	return try_open_as(node, "", id, clean, expiry_s);
}

static struct session *open_at(int node, const char *id, bool clean, uint32_t expiry_s)
{
	ck_assert_int_eq(try_open(node, id, clean, expiry_s), OK);
	return t.session;
}

static void quiet(int node)
{
	for (int i = 0; i < 20000 && sessions_count(t.sides[node].all) > 0; i++)
		usleep(1000);
	ck_assert_int_eq(sessions_count(t.sides[node].all), 0);
}

static void run_close(void *arg)
{
	struct session *s = arg;
	session_close(s, true, s->expiry_s);
	sem_post(&t.w.done);
}
static void close_at(int node, struct session *s)
{
	world_call(&t.w, node, run_close, s);
	quiet(node);
}

static void run_write(void *arg)
{
	(void)session_write(arg, true);
	sem_post(&t.w.done);
}

static void on_subscribed(struct subscribe *op)
{
	ck_assert_int_eq(op->err, OK);
	t.ticket = session_write(t.session, true);
	if (t.ticket == 0)
		sem_post(&t.w.done);
}
static void run_subscribe(void *arg)
{
	t.subscribe = (struct subscribe){.who = &t.session->reader,
		.filter = bytes_text((const char *)arg),
		.qos = 1,
		.retained = RETAINED_NOT,
		.done = on_subscribed};
	list_init(&t.subscribe.node);
	subscriber_subscribe(&t.subscribe);
}

/* What there is */

static struct partition *table(void)
{
	return catalog_table_at(node_catalog(t.w.node, loops_at(t.w.loops, 0)), 0);
}
static struct partition *the_table;
static int64_t published_before;

static int rows_of(enum keyspace k)
{
	return rows_count(&t.w, the_table, (uint8_t)k, NULL);
}

static void run_count(void *arg)
{
	const struct stream *s = catalog_stream(
		shard_catalog(world_shard(&t.w, 0)), bytes_text("mqtt"));
	int64_t *sum = arg;
	for (int i = 0; i < s->partition_count; i++)
		*sum += partition_high_watermark(s->partitions[i]);
	the_table = table();
	sem_post(&t.w.done);
}
/* Messages published so far. */
static int published(void)
{
	int64_t sum = 0;
	world_call(&t.w, 0, run_count, &sum);
	return (int)(sum - published_before);
}

static void set_will(uint32_t delay_s)
{
	static struct buf will;
	struct will w = {.delay_s = delay_s,
		.message = {.topic = bytes_text("gone"), .value = bytes_text("x"), .qos = 1}};
	if (will.max == 0)
		buf_init(&will, 1000);
	buf_clear(&will);
	ck_assert_int_eq(will_encode(&w, 1000, &will), OK);
	t.ask.will = buf_bytes(&will);
}
static void no_will(void)
{
	t.ask.will = bytes_of(NULL, 0);
}

static void eventually(bool (*what)(void))
{
	for (int i = 0; i < 5000 && !what(); i++)
		usleep(5000);
	ck_assert(what());
}
static bool no_session(void)
{
	return rows_of(KEYSPACE_SESSION) == 0;
}
static bool no_will_left(void)
{
	return rows_of(KEYSPACE_WILL) == 0;
}
static bool was_fenced(void)
{
	return t.fenced > 0;
}

static void up_with(int64_t lease_ms)
{
	char why[200] = "";
	memset(&t, 0, sizeof t);
	world_init(&t.w);
	conf_apply(t.w.rows, true);
	t.w.loops = loops_new(LOOPS);
	t.w.workers = workers_new(2);
	ck_assert_int_eq(storage_open(&t.w.storage_conf, t.w.loops, t.w.workers, &t.w.storage, why,
				 sizeof why),
		OK);
	ck_assert_int_eq(node_open(&t.w.node_conf, t.w.loops, t.w.workers, t.w.storage, &t.w.node,
				 why, sizeof why),
		OK);
	ck_assert_int_eq(
		broker_new(&t.w.conf, t.w.node, t.w.loops, &t.w.broker, why, sizeof why), OK);
	for (uint32_t i = 0; i < NODES; i++) {
		struct sessions *all = sessions_new(t.w.broker, t.w.loops);
		t.sides[i].all = all;
		all->net = &net;
		all->net_arg = all;
		all->self = (struct session_owner){i + 1, 10};
		all->lease_ms = lease_ms;
	}
	loops_run(t.w.loops);
	broker_start(t.w.broker);
	for (int i = 0; i < 2000 && !broker_ready(t.w.broker); i++)
		usleep(5000);
	published_before = 0;
	published_before = published();
}
static void up(void)
{
	up_with(LONG_MS);
}
static void up_short(void)
{
	up_with(SHORT_MS);
}

static void down(void)
{
	for (int i = 0; i < NODES; i++)
		sessions_stop(t.sides[i].all, 5000);
	node_close(t.w.node);
	loops_stop(t.w.loops);
	for (int i = 0; i < NODES; i++)
		sessions_free(t.sides[i].all);
	broker_free(t.w.broker);
	storage_stop(t.w.storage);
	workers_free(t.w.workers);
	loops_free(t.w.loops);
	storage_free(t.w.storage);
	conf_free(t.w.rows);
	char command[128];
	snprintf(command, sizeof command, "rm -rf %s", t.w.dir);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(a_clean_one_has_a_short_row)
{
	struct session *s = open_at(0, "a", true, 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	char filter[] = "x";
	world_call(&t.w, 0, run_subscribe, filter);
	ck_assert_int_eq(rows_of(KEYSPACE_CURSOR), 0);
	close_at(0, s);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	t.ask.unique = true; /* nobody else can have this name */
	s = open_at(0, "b", true, 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	close_at(0, s);
}
END_TEST

START_TEST(the_later_one_has_it_wherever)
{
	for (int i = 0; i < 10; i++) {
		open_at(i % 2, "a", false, i % 3 == 0 ? 0 : 60);
		ck_assert_int_eq(t.fenced, i);
		ck_assert_int_eq(t.sides[0].fences + t.sides[1].fences, i);
		quiet(1 - i % 2);
		ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	}
	close_at(1, t.session);
}
END_TEST

START_TEST(two_tenants_have_the_same_id_at_two_nodes)
{
	struct session *a = open_at(0, "a", true, 0);
	ck_assert_int_eq(try_open_as(1, "acme", "a", false, 60), OK);
	ck_assert(!t.present);
	ck_assert_int_eq(t.sides[0].fences, 0);
	ck_assert_int_eq(t.fenced, 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 2);
	ck_assert_int_eq(try_open_as(0, "acme", "a", false, 60), OK); /* moves to the other node */
	ck_assert(t.present);
	struct session *b = t.session;
	ck_assert_int_eq(t.sides[1].fences, 1);
	ck_assert_int_eq(t.sides[0].fences, 0);
	eventually(was_fenced);
	quiet(1);
	ck_assert_int_eq(t.fenced, 1);
	world_call(&t.w, 0, run_close, b);
	world_call(&t.w, 0, run_close, a);
	quiet(0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
}
END_TEST

START_TEST(a_durable_one_goes_on_elsewhere)
{
	char filter[] = "x/+";
	open_at(0, "a", false, 60);
	world_call(&t.w, 0, run_subscribe, filter);
	struct session *s = open_at(1, "a", false, 60);
	ck_assert(t.present);
	ck_assert_uint_eq(s->subscription_count, 1);
	ck_assert_int_eq(t.fenced, 1);
	close_at(1, s);
	s = open_at(0, "a", false, 60);
	ck_assert(t.present);
	ck_assert_uint_eq(s->subscription_count, 1);
	ck_assert_int_eq(t.fenced, 1); /* nobody had it */
	ck_assert_int_eq(t.sides[1].fences, 0);
	close_at(0, s);
}
END_TEST

START_TEST(one_that_does_not_answer_writes_no_more)
{
	struct session *lost = open_at(0, "a", false, 60);
	t.sides[0].silent = true;
	struct session *s = open_at(1, "a", false, 60);
	ck_assert(t.present);
	ck_assert_int_eq(t.fenced, 0);
	world_call(&t.w, 0, run_write, lost);
	eventually(was_fenced);
	quiet(0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	close_at(1, s);
}
END_TEST

struct late_fence {
	struct peer_call call;
	uint64_t epoch;
};
static void late_fence_done(struct peer_call *c)
{
	slice_unref(&c->answer);
	sem_post(&t.w.done);
}
static void run_fence(void *arg)
{
	struct late_fence *l = arg;
	struct sessions *from = t.sides[1].all;
	l->call.done = late_fence_done;
	ck_assert_int_eq(session_fence(from, &l->call, the_table, t.sides[0].all->self, l->epoch,
				 bytes_text("a")),
		OK);
}

START_TEST(a_fence_that_comes_late_is_not_meant_for_who_is_here_now)
{
	struct session *s = open_at(0, "a", false, 60);
	struct late_fence late = {.epoch = s->durable->epoch};
	close_at(0, s);
	s = open_at(0, "a", false, 60);
	ck_assert_uint_gt(s->durable->epoch, late.epoch);
	world_call(&t.w, 1, run_fence, &late);
	ck_assert_int_eq(late.call.err, OK);
	ck_assert_int_eq(t.fenced, 0);
	late.epoch = s->durable->epoch;
	world_call(&t.w, 1, run_fence, &late);
	ck_assert_int_eq(t.fenced, 1);
	quiet(0);
}
END_TEST

/* By the one who takes over, as the other one does not answer, and by that one when it learns of
 * it. */
START_TEST(a_will_is_published_once_by_both)
{
	set_will(0);
	struct session *lost = open_at(0, "a", false, 60);
	t.sides[0].silent = true;
	no_will();
	struct session *s = open_at(1, "a", false, 60);
	ck_assert_int_eq(published(), 1);
	world_call(&t.w, 0, run_write, lost);
	eventually(was_fenced);
	quiet(0);
	ck_assert_int_eq(published(), 1);
	close_at(1, s);
	ck_assert_int_eq(published(), 1);
}
END_TEST

START_TEST(a_waiting_will_goes_with_its_session)
{
	set_will(1000);
	close_at(0, open_at(0, "a", false, 2000));
	no_will();
	close_at(1, open_at(1, "a", false, 2000)); /* it goes on: no will */
	ck_assert(t.present);
	ck_assert_int_eq(published(), 0);
	set_will(1000);
	close_at(0, open_at(0, "a", false, 2000));
	ck_assert_int_eq(published(), 0);
	no_will();
	struct session *s = open_at(1, "a", true, 0); /* it is over */
	ck_assert(!t.present);
	ck_assert_int_eq(published(), 1);
	close_at(1, s);
	ck_assert_int_eq(published(), 1);
	ck_assert_int_eq(rows_of(KEYSPACE_WILL), 0);
}
END_TEST

/* Who leads the table finds that out, too; the session is not kept waiting for it. */
START_TEST(a_will_that_cannot_leave_holds_nobody_up)
{
	set_will(0);
	struct session *s = open_at(0, "a", true, 0);
	t.w.conf.message_bytes_max = 1;
	int64_t began = clock_ms();
	close_at(0, s);
	ck_assert_int_lt(clock_ms() - began, 3000);
	eventually(no_session);
	ck_assert(no_will_left());
	ck_assert_int_eq(published(), 0);
}
END_TEST

static void bad_cursor(int i, struct buf *key, struct buf *value)
{
	(void)i;
	buf_add_text(key, "a");
	buf_add_u8(value, 99);
}

START_TEST(a_session_that_cannot_be_restored_ends_in_time)
{
	close_at(0, open_at(0, "a", false, 4));
	rows_put(&t.w, the_table, KEYSPACE_CURSOR, 1, bad_cursor);
	ck_assert_int_ne(try_open(1, "a", false, 4), OK);
	quiet(1);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	eventually(no_session); /* its row does not say connected: it expires */
}
END_TEST

/* As a claim leaves it whose answer was lost: the first node's, and nobody is there. */
static void doubtful_row(int i, struct buf *key, struct buf *value)
{
	struct session_row row = {.connected = true,
		.epoch = 7,
		.born = 7,
		.owner = t.sides[0].all->self,
		.expiry_s = 1};
	buf_add_u8(key, (uint8_t)('a' + i));
	session_row_begin(value, &row, NULL);
	session_row_subs_end(value, session_row_subs_begin(value), 0);
}
static void run_open_and_go(void *arg)
{
	t.ask.shard = world_shard(&t.w, 0);
	t.ask.all = t.sides[0].all;
	t.ask.ops = &ops;
	t.ask.client_id = bytes_text((const char *)arg);
	t.ask.expiry_s = 1;
	t.ask.done = on_opened;
	ck_assert_int_eq(session_open(&t.ask, &t.opening), OK);
	session_open_cancel(t.opening);
	sem_post(&t.w.done);
}

/* "a": its client has not waited. "b": nobody comes. "c": somebody comes meanwhile. */
START_TEST(a_claim_without_an_answer_leaves_nobody_behind)
{
	char a[] = "a", c[] = "c";
	rows_put(&t.w, the_table, KEYSPACE_SESSION, 3, doubtful_row);
	world_call(&t.w, 0, run_open_and_go, a);
	world_call(&t.w, 0, run_open_and_go, c);
	struct session *s = open_at(0, "c", false, 1);
	close_at(0, s);
	for (int i = 0; i < 4000 && rows_of(KEYSPACE_SESSION) > 1; i++)
		usleep(5000);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	s = open_at(1, "a", false, 1); /* it is over, and nobody has it */
	ck_assert(!t.present);
	ck_assert_int_eq(t.sides[0].fences, 0);
	close_at(1, s);
}
END_TEST

static void run_open_and_end(void *arg)
{
	run_open_and_go(arg);
	atomic_store(&t.sides[0].all->ending, true);
}

/* There it may be of one that could not be seen off, with its will. */
START_TEST(a_process_that_ends_gives_up_no_row_of_a_claim)
{
	char a[] = "a";
	rows_put(&t.w, the_table, KEYSPACE_SESSION, 1, doubtful_row);
	world_call(&t.w, 0, run_open_and_end, a);
	quiet(0);
	struct session *s = open_at(1, "a", false, 1);
	ck_assert_int_eq(t.sides[0].fences, 1); /* it was still the first node's */
	close_at(1, s);
}
END_TEST

static void run_choke(void *arg)
{
	struct session *s = arg;
	s->durable->args.max = 1;
	session_close(s, true, s->expiry_s);
	sem_post(&t.w.done);
}
static void run_tire(void *arg)
{
	((struct session *)arg)->durable->tries = 100; /* as after minutes */
	sem_post(&t.w.done);
}
static void run_unchoke(void *arg)
{
	((struct session *)arg)->durable->args.max = 1000;
	sem_post(&t.w.done);
}

/* Else the next one here would take its row, and the will in it, for its own. However often its
 * client comes and goes meanwhile, it waits once. */
START_TEST(a_name_is_kept_until_its_row_is_written)
{
	int loop = 0;
	char a[] = "a";
	set_will(1000);
	struct session *s = open_at(0, "a", false, 2000);
	world_call(&t.w, 0, run_choke, s);
	world_call(&t.w, 0, run_tire, s);
	for (int i = 0; i < 20; i++)
		world_call(&t.w, 0, run_open_and_go, a);
	no_will();
	t.ask.clean = true;
	t.ask.expiry_s = 0;
	loop_call(loops_at(t.w.loops, 0), run_open, &loop);
	usleep(1200000);
	ck_assert_int_eq(sem_trywait(&t.w.done), -1);
	ck_assert_int_eq(sessions_count(t.sides[0].all), 2);
	loop_call(loops_at(t.w.loops, 0), run_unchoke, s);
	sem_wait(&t.w.done);
	sem_wait(&t.w.done);
	ck_assert_int_eq(t.err, OK);
	ck_assert_int_eq(published(), 1); /* its session is over */
	close_at(0, t.session);
}
END_TEST

/* Leases */

struct lease {
	struct peer_call call;
	struct sessions *from;
	uint64_t boot;
};
static void lease_done(struct peer_call *c)
{
	slice_unref(&c->answer);
	sem_post(&t.w.done);
}
static void run_lease(void *arg)
{
	struct lease *l = arg;
	uint8_t body[16];
	struct slice part;
	put_u64be(body, l->boot);
	put_u64be(body + 8, partition_group(the_table));
	ck_assert_int_eq(slice_copy(bytes_of(body, sizeof body), &part), OK);
	l->call = (struct peer_call){.to = 1, .op = PEER_OP_LEASE, .parts = &part, .part_count = 1};
	l->call.done = lease_done;
	call(l->from, &l->call);
}
/* The second node renews with the first. */
static enum err renew(uint64_t boot)
{
	struct lease l = {.from = t.sides[1].all, .boot = boot};
	world_call(&t.w, 0, run_lease, &l);
	return l.call.err;
}

START_TEST(sessions_of_a_silent_node_are_absent)
{
	set_will(0);
	struct session *s = open_at(1, "a", false, 1);
	for (int64_t began = clock_ms(); clock_ms() - began < SHORT_MS + SHORT_MS / 4;) {
		ck_assert_int_eq(renew(10), OK);
		usleep(50000);
	}
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	ck_assert_int_eq(published(), 0);
	ck_assert_int_eq(t.fenced, 0);
	eventually(no_session); /* silent by now: the will, then the session */
	ck_assert(no_will_left());
	ck_assert_int_eq(published(), 1);
	world_call(&t.w, 1, run_write, s); /* it lives after all */
	eventually(was_fenced);
	quiet(1);
	ck_assert_int_eq(published(), 1);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
}
END_TEST

START_TEST(another_boot_ends_the_sessions_of_the_one_before)
{
	t.sides[0].all->lease_ms = t.sides[1].all->lease_ms = LONG_MS;
	set_will(0);
	struct session *s = open_at(1, "a", true, 0);
	ck_assert_int_eq(renew(10), OK);
	usleep(700000);
	ck_assert_int_eq(published(), 0);
	ck_assert_int_eq(renew(11), OK);
	ck_assert_int_eq(renew(10), ERR_FENCED);
	eventually(no_session);
	ck_assert_int_eq(published(), 1);
	close_at(1, s);
	ck_assert_int_eq(published(), 1);
}
END_TEST

/* Node numbers come and go. */
START_TEST(any_number_of_nodes_had_leases)
{
	struct sessions *all = t.sides[1].all;
	uint32_t self = all->self.node;
	for (uint32_t i = 0; i < SESSION_NODES_MAX + 50; i++) {
		all->self.node = 1000 + i;
		ck_assert_int_eq(renew(10), OK);
		ck_assert_ptr_nonnull(session_node_lease(t.sides[0].all, 1000 + i));
	}
	all->self.node = self;
	ck_assert_int_eq(renew(10), OK);
	ck_assert_ptr_nonnull(session_node_lease(t.sides[0].all, self));
}
END_TEST

static void run_allowed(void *arg)
{
	t.allowed = session_may_acknowledge(arg);
	sem_post(&t.w.done);
}
static bool was_written(void)
{
	return t.written > 0;
}

START_TEST(without_a_lease_nothing_is_acknowledged)
{
	struct session *s = open_at(0, "a", false, 60), *brief = open_at(0, "b", true, 0);
	int at = s->durable->table_at;
	_Atomic int64_t *leased = &t.sides[0].all->leased[at];
	ck_assert_int_ge(at, 0);
	world_call(&t.w, 0, run_allowed, s);
	ck_assert(t.allowed);
	for (int i = 0; i < 50; i++) { /* the timer renews it now and then */
		atomic_store(leased, 0);
		world_call(&t.w, 0, run_allowed, s);
		if (!t.allowed)
			break;
	}
	ck_assert(!t.allowed);
	world_call(&t.w, 0, run_allowed, brief);
	ck_assert(t.allowed);
	t.written = 0;
	eventually(was_written); /* it has asked again */
	for (int i = 0; i < 1000 && !t.allowed; i++) {
		usleep(10000);
		world_call(&t.w, 0, run_allowed, s);
	}
	close_at(0, (world_call(&t.w, 0, run_close, brief), s));
}
END_TEST

/* Whoever stood still is told nothing of what came to pass meanwhile. */
START_TEST(after_a_lapse_a_session_is_proved_first)
{
	struct session *lost = open_at(0, "a", false, 60), *kept = open_at(0, "b", false, 60);
	t.sides[0].silent = true;
	struct session *s = open_at(1, "a", false, 60);
	world_call(&t.w, 0, run_allowed, lost);
	ck_assert(t.allowed);
	ck_assert_int_eq(t.fenced, 0);
	atomic_store(&t.sides[0].all->leased[lost->durable->table_at], 0);
	for (int i = 0; i < 1000 && !was_fenced(); i++) {
		world_call(&t.w, 0, run_allowed, lost);
		ck_assert(!t.allowed);
		usleep(10000);
	}
	ck_assert(was_fenced());
	for (int i = 0; i < 1000 && !t.allowed; i++) {
		world_call(&t.w, 0, run_allowed, kept);
		usleep(10000);
	}
	ck_assert(t.allowed);
	ck_assert_int_eq(t.fenced, 1);
	close_at(0, kept);
	close_at(1, s);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("nodes");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, up, down);
	tcase_add_test(tc, a_clean_one_has_a_short_row);
	tcase_add_test(tc, the_later_one_has_it_wherever);
	tcase_add_test(tc, two_tenants_have_the_same_id_at_two_nodes);
	tcase_add_test(tc, a_durable_one_goes_on_elsewhere);
	tcase_add_test(tc, one_that_does_not_answer_writes_no_more);
	tcase_add_test(tc, a_fence_that_comes_late_is_not_meant_for_who_is_here_now);
	tcase_add_test(tc, a_will_is_published_once_by_both);
	tcase_add_test(tc, a_waiting_will_goes_with_its_session);
	tcase_add_test(tc, a_will_that_cannot_leave_holds_nobody_up);
	tcase_add_test(tc, a_session_that_cannot_be_restored_ends_in_time);
	tcase_add_test(tc, a_claim_without_an_answer_leaves_nobody_behind);
	tcase_add_test(tc, a_process_that_ends_gives_up_no_row_of_a_claim);
	tcase_add_test(tc, a_name_is_kept_until_its_row_is_written);
	TCase *leases = tcase_create("leases");
	tcase_set_timeout(leases, 60);
	tcase_add_checked_fixture(leases, up_short, down);
	tcase_add_test(leases, sessions_of_a_silent_node_are_absent);
	tcase_add_test(leases, another_boot_ends_the_sessions_of_the_one_before);
	tcase_add_test(leases, any_number_of_nodes_had_leases);
	tcase_add_test(leases, without_a_lease_nothing_is_acknowledged);
	tcase_add_test(leases, after_a_lapse_a_session_is_proved_first);
	Suite *s = suite_create("session_nodes");
	suite_add_tcase(s, tc);
	suite_add_tcase(s, leases);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
