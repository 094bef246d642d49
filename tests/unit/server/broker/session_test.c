/* Sessions on a node, without a protocol: they go on, are taken over, end in time, and leave no
 * rows behind. Each step runs on one loop and waits for its outcome. */
#include "server/broker/session.h"
#include "server/broker/keyspace.h"
#include "server/broker/tenant.h"
#include "server/broker/will.h"
#include "tests/unit/server/broker/world.h"

static struct {
	struct world w;
	struct sessions *all;
	struct session *session; /* opened last */
	struct session_open ask;
	struct session_open *opening;
	enum err err;
	bool present;
	_Atomic int fenced, ended;
	struct subscribe subscribe;
	uint64_t ticket;
	struct row_read read;
	int rows;
} t;

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
	t.ask.all = t.all;
	t.ask.shard = world_shard(&t.w, *(int *)arg);
	t.ask.ops = &ops;
	t.ask.done = on_opened;
	ck_assert_int_eq(session_open(&t.ask, &t.opening), OK);
}

static struct session *open_as(
	int loop, const char *tenant, const char *id, bool clean, uint32_t expiry_s)
{
	uint8_t room[16 + TENANT_ID_EXTRA];
	t.ask.client_id = tenant_id(bytes_text(tenant), bytes_text(id), room);
	t.ask.clean = clean;
	t.ask.expiry_s = expiry_s;
	world_call(&t.w, loop, run_open, &loop);
	ck_assert_int_eq(t.err, OK);
	return t.session;
}

static struct session *open_on(int loop, const char *id, bool clean, uint32_t expiry_s)
{
	return open_as(loop, "", id, clean, expiry_s);
}

static void run_close(void *arg)
{
	struct session *s = arg;
	session_close(s, true, s->expiry_s);
	sem_post(&t.w.done);
}

static void close_leaving(int loop, struct session *s, int left)
{
	int before = t.ended;
	world_call(&t.w, loop, run_close, s);
	for (int i = 0; i < 20000 && (t.ended == before || sessions_count(t.all) > left); i++)
		usleep(1000);
	ck_assert_int_eq(sessions_count(t.all), left);
}

static void close_on(int loop, struct session *s)
{
	close_leaving(loop, s, 0);
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

static void on_rows(struct row_read *r)
{
	ck_assert_int_eq(r->err, OK);
	t.rows = r->count;
	row_read_fini(r);
	sem_post(&t.w.done);
}

static void run_rows(void *arg)
{
	t.read = (struct row_read){.from = catalog_table_at(shard_catalog(world_shard(&t.w, 0)), 0),
		.keyspace = *(uint8_t *)arg,
		.prefix = true,
		.linearizable = true,
		.rows_max = 100,
		.bytes_max = 100000,
		.done = on_rows};
	partition_read_rows(&t.read);
}

static int rows_of(enum keyspace k)
{
	uint8_t keyspace = (uint8_t)k;
	world_call(&t.w, 0, run_rows, &keyspace);
	return t.rows;
}

static void up(void)
{
	memset(&t, 0, sizeof t);
	world_init(&t.w);
	/* Watchers of the catalogue are set before the loops run. */
	char why[200] = "";
	conf_apply(t.w.rows, true);
	t.w.loops = loops_new(2);
	t.w.workers = workers_new(2);
	ck_assert_int_eq(storage_open(&t.w.storage_conf, t.w.loops, t.w.workers, &t.w.storage, why,
				 sizeof why),
		OK);
	ck_assert_int_eq(node_open(&t.w.node_conf, t.w.loops, t.w.workers, t.w.storage, &t.w.node,
				 why, sizeof why),
		OK);
	ck_assert_int_eq(
		broker_new(&t.w.conf, t.w.node, t.w.loops, &t.w.broker, why, sizeof why), OK);
	t.all = sessions_new(t.w.broker, t.w.loops);
	loops_run(t.w.loops);
	broker_start(t.w.broker);
	for (int i = 0; i < 2000 && !broker_ready(t.w.broker); i++)
		usleep(5000);
}

static void down(void)
{
	sessions_stop(t.all, 5000);
	node_close(t.w.node);
	loops_stop(t.w.loops);
	node_free(t.w.node);
	sessions_free(t.all);
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

START_TEST(a_clean_one_has_no_rows)
{
	struct session *s = open_on(0, "a", true, 0);
	ck_assert(!t.present);
	ck_assert_ptr_null(s->durable);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	close_on(0, s);
	s = open_on(1, "a", false, 0);
	ck_assert(!t.present);
	close_on(1, s);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
}
END_TEST

START_TEST(a_durable_one_goes_on_with_its_filters)
{
	struct session *s = open_on(0, "a", false, SESSION_NEVER);
	ck_assert(!t.present);
	char narrow[] = "x/+", plain[] = "y";
	world_call(&t.w, 0, run_subscribe, narrow);
	world_call(&t.w, 0, run_subscribe, plain);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	ck_assert_int_eq(rows_of(KEYSPACE_CURSOR), 1);
	close_on(0, s);
	s = open_on(1, "a", false, 60);
	ck_assert(t.present);
	ck_assert_uint_eq(s->subscription_count, 2);
	close_on(1, s);
	s = open_on(0, "a", true, 60); /* forgotten */
	ck_assert(!t.present);
	ck_assert_uint_eq(s->subscription_count, 0);
	close_on(0, s);
	s = open_on(0, "a", false, 0); /* goes on, and ends with its connection */
	ck_assert(t.present);
	close_on(0, s);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	ck_assert_int_eq(rows_of(KEYSPACE_CURSOR), 0);
}
END_TEST

START_TEST(the_later_one_has_it)
{
	for (int i = 0; i < 10; i++) {
		open_on(i % 2, "a", false, i % 3 == 0 ? 0 : 60);
		ck_assert_int_eq(t.fenced, i);
		for (int n = 0; n < 4000 && sessions_count(t.all) != 1; n++)
			usleep(5000); /* until its last row is written */
		ck_assert_int_eq(sessions_count(t.all), 1);
	}
	close_on(1, t.session);
}
END_TEST

START_TEST(it_ends_in_time)
{
	struct buf will;
	struct will w = {.delay_s = 1,
		.message = {.topic = bytes_text("gone"), .value = bytes_text("x"), .qos = 1}};
	buf_init(&will, 1000);
	ck_assert_int_eq(will_encode(&w, 1000, &will), OK);
	t.ask.will = buf_bytes(&will);
	struct session *s = open_on(0, "a", false, 2);
	ck_assert_int_eq(rows_of(KEYSPACE_WILL), 1);
	close_on(0, s);
	ck_assert_int_eq(rows_of(KEYSPACE_WILL), 1); /* waits */
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	for (int i = 0; i < 3000 && rows_of(KEYSPACE_WILL) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(rows_of(KEYSPACE_WILL), 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	for (int i = 0; i < 3000 && rows_of(KEYSPACE_SESSION) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	ck_assert_int_eq(rows_of(KEYSPACE_CURSOR), 0);
	buf_fini(&will);
}
END_TEST

/* ---- tenants */

static void on_set(struct meta_op *op)
{
	ck_assert_int_eq(op->err, OK);
	sem_post(&t.w.done);
}
static void run_set(void *arg)
{
	static struct meta_op op;
	static const struct meta_setting acme = {"route.acme/default", "# -> mqtt"};
	(void)arg;
	op = (struct meta_op){
		.kind = META_SET, .settings = &acme, .setting_count = 1, .done = on_set};
	node_change(t.w.node, &op);
}

struct stored { /* records of a stream so far */
	const char *stream;
	int64_t count;
};
static void run_stored(void *arg)
{
	struct stored *x = arg;
	const struct stream *s = catalog_stream(
		shard_catalog(world_shard(&t.w, 0)), bytes_text(x->stream));
	for (int i = 0; s != NULL && i < s->partition_count; i++)
		x->count += partition_high_watermark(s->partitions[i]);
	sem_post(&t.w.done);
}
static int stored(const char *stream)
{
	struct stored x = {stream, 0};
	world_call(&t.w, 0, run_stored, &x);
	return (int)x.count;
}
static void stored_until(const char *stream, int count)
{
	for (int i = 0; i < 2000 && stored(stream) < count; i++)
		usleep(10000);
	ck_assert_int_eq(stored(stream), count);
}

START_TEST(one_id_in_two_tenants_is_two_clients)
{
	world_call(&t.w, 0, run_set, NULL);
	struct session *a = open_on(0, "a", false, 60), *b = open_as(1, "acme", "a", false, 60);
	ck_assert_int_eq(sessions_count(t.all), 2);
	ck_assert_int_eq(t.fenced, 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 2);
	ck_assert_uint_eq(session_tenant(a).len, 0);
	ck_assert(bytes_equal(session_tenant(b), bytes_text("acme")));
	char filter[] = "only/acme";
	world_call(&t.w, 1, run_subscribe, filter);
	close_leaving(1, b, 1);
	close_on(0, a);
	a = open_on(1, "a", false, 60);
	ck_assert(t.present && a->subscription_count == 0);
	b = open_as(0, "acme", "a", false, 60);
	ck_assert(t.present && b->subscription_count == 1);
	open_as(1, "acme", "a", true, 0); /* takes over, and ends, what is its own */
	ck_assert_int_eq(t.fenced, 1);
	close_leaving(1, t.session, 1);
	close_on(1, a);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
}
END_TEST

static struct publish once;
static void on_once(struct publish *p)
{
	ck_assert_int_eq(p->err, OK);
	sem_post(&t.w.done);
}
static struct room_wait once_room;
static void run_once(void *arg)
{
	struct message m = {.topic = bytes_text("x"), .value = bytes_text("once"), .qos = 2};
	once.done = on_once;
	enum err e = session_publish_once(arg, &m, 7, &once);
	if (e == ERR_BUSY) /* its stream is being made */
		shard_when_room(session_shard(arg), &once_room);
	else
		ck_assert_int_eq(e, OK);
}
static void on_once_room(struct room_wait *w)
{
	(void)w;
	run_once(t.session);
}

/* A durable one's QoS 2; wills: at once, late, of a clean one. */
START_TEST(what_a_session_says_stays_in_its_tenant)
{
	struct buf will;
	struct will w = {
		.message = {.topic = bytes_text("gone"), .value = bytes_text("x"), .qos = 1}};
	once_room.room = on_once_room;
	world_call(&t.w, 0, run_set, NULL);
	buf_init(&will, 1000);
	ck_assert_int_eq(will_encode(&w, 1000, &will), OK);
	t.ask.will = buf_bytes(&will);
	struct session *s = open_as(0, "acme", "a", false, 60);
	world_call(&t.w, 0, run_once, s);
	stored_until("acme/mqtt", 1);
	world_call(&t.w, 0, run_once, s); /* the same id again: it is stored once */
	close_on(0, s);
	stored_until("acme/mqtt", 2);
	close_on(0, open_as(0, "acme", "a", true, 0));
	stored_until("acme/mqtt", 3);
	buf_clear(&will);
	w.delay_s = 1;
	ck_assert_int_eq(will_encode(&w, 1000, &will), OK);
	t.ask.will = buf_bytes(&will);
	close_on(1, open_as(1, "acme", "a", false, 60));
	stored_until("acme/mqtt", 4);
	ck_assert_int_eq(stored("mqtt"), 0);
	buf_fini(&will);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("session");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, up, down);
	tcase_add_test(tc, a_clean_one_has_no_rows);
	tcase_add_test(tc, a_durable_one_goes_on_with_its_filters);
	tcase_add_test(tc, the_later_one_has_it);
	tcase_add_test(tc, it_ends_in_time);
	tcase_add_test(tc, one_id_in_two_tenants_is_two_clients);
	tcase_add_test(tc, what_a_session_says_stays_in_its_tenant);
	Suite *s = suite_create("session");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
