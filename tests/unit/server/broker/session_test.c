/* Sessions on a node, without a protocol: they go on, are taken over, end in time, and leave no
 * rows behind. Each step runs on one loop and waits for its outcome. */
#include "server/broker/session.h"
#include "server/broker/keyspace.h"
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

static struct session *open_on(int loop, const char *id, bool clean, uint32_t expiry_s)
{
	t.ask.client_id = bytes_text(id);
	t.ask.clean = clean;
	t.ask.expiry_s = expiry_s;
	world_call(&t.w, loop, run_open, &loop);
	ck_assert_int_eq(t.err, OK);
	return t.session;
}

static void run_close(void *arg)
{
	struct session *s = arg;
	session_close(s, true, s->expiry_s);
	sem_post(&t.w.done);
}

static void close_on(int loop, struct session *s)
{
	int before = t.ended;
	world_call(&t.w, loop, run_close, s);
	for (int i = 0; i < 2000 && (t.ended == before || sessions_count(t.all) > 0); i++)
		usleep(1000);
	ck_assert_int_eq(sessions_count(t.all), 0);
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
	ck_assert_int_eq(broker_new(&t.w.conf, t.w.node, t.w.loops, t.w.workers, &t.w.broker, why,
				 sizeof why),
		OK);
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
	for (int i = 0; i < 300 && rows_of(KEYSPACE_WILL) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(rows_of(KEYSPACE_WILL), 0);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 1);
	for (int i = 0; i < 300 && rows_of(KEYSPACE_SESSION) > 0; i++)
		usleep(10000);
	ck_assert_int_eq(rows_of(KEYSPACE_SESSION), 0);
	ck_assert_int_eq(rows_of(KEYSPACE_CURSOR), 0);
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
	Suite *s = suite_create("session");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
