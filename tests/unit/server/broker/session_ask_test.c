/* What sessions ask, as bytes: replies that are cut or changed are refused or read as something
 * else, never trusted; and whatever args reach a table, its leader lives and its rows stay
 * readable. */
#include "server/broker/session_priv.h"
#include "tests/unit/server/broker/world_rows.h"

enum { MUTATIONS = 1500 };

static struct world w;
static struct partition *table;
static const struct session_owner self = {1, 10};

struct asked {
	struct proposal p;
	struct slice reply;
};
static void on_done(struct proposal *p)
{
	struct asked *a = list_entry(p, struct asked, p);
	a->reply = slice_ref(p->reply);
	sem_post(&w.done);
}
static void run(void *arg)
{
	struct asked *a = arg;
	a->p.to = table = catalog_table_at(shard_catalog(world_shard(&w, 0)), 0);
	partition_propose(&a->p);
}
/* The reply is to be let go. */
static enum err ask(const struct proposal_kind *kind, struct bytes args, struct slice *reply)
{
	struct asked a = {.p = {.kind = kind, .args = args, .done = on_done}};
	world_call(&w, 0, run, &a);
	*reply = a.reply;
	return a.p.err;
}
static enum err ask_only(const struct proposal_kind *kind, struct bytes args)
{
	struct slice reply;
	enum err e = ask(kind, args, &reply);
	slice_unref(&reply);
	return e;
}

static void make_will(struct buf *out)
{
	struct will will = {.delay_s = 5,
		.message = {.topic = bytes_text("gone"), .value = bytes_text("x"), .qos = 1}};
	buf_init(out, 1000);
	ck_assert_int_eq(will_encode(&will, 1000, out), OK);
}

static void make_claim(struct buf *out, uint64_t forced)
{
	struct buf will;
	make_will(&will);
	buf_init(out, 4096);
	session_claim_args(out,
		&(struct session_claim_ask){.expiry_s = 100,
			.owner = self,
			.force_epoch = forced,
			.id = bytes_text("client"),
			.will = buf_bytes(&will)});
	buf_fini(&will);
}

static void make_write_due(struct buf *out, uint64_t epoch, bool last, int64_t will_in_ms)
{
	const uint64_t groups[] = {1024};
	struct buf will;
	struct window window = {0};
	struct session_write_ask ask = {.last = last, .epoch = epoch, .id = bytes_text("client")};
	struct session_row row = {.connected = !last,
		.epoch = epoch,
		.born = epoch,
		.owner = self,
		.expiry_s = 100,
		.since_ms = clock_wall_ms(),
		.group_count = 1};
	make_will(&will);
	if (last) {
		will_set_due(will.chunk->data + will.start, clock_wall_ms() + will_in_ms);
		ask.will = buf_bytes(&will);
	}
	buf_init(out, 4096);
	size_t mark = session_write_args(out, &ask);
	session_row_begin(out, &row, groups);
	session_row_subs_end(out, session_row_subs_begin(out), 0);
	session_write_row_end(out, mark);
	mark = cursor_row_begin(out);
	cursor_row_position(out, (struct session_place){1024, 5});
	cursor_row_end(out, mark, 1, &window);
	ck_assert_int_eq(out->err, OK);
	buf_fini(&will);
}

static void make_write(struct buf *out, uint64_t epoch, bool last)
{
	make_write_due(out, epoch, last, 1000000);
}

static uint64_t claim(void)
{
	struct buf args;
	struct slice reply;
	struct session_claim_reply r;
	make_claim(&args, 0);
	ck_assert_int_eq(ask(&session_claim_kind, buf_bytes(&args), &reply), OK);
	ck_assert_int_eq(session_claim_reply_read(reply.bytes, &r), OK);
	ck_assert_int_eq(r.outcome, CLAIM_TAKEN);
	buf_fini(&args);
	slice_unref(&reply);
	return r.epoch;
}

static void up(void)
{
	world_init(&w);
	world_start(&w, 1);
}
static void down(void)
{
	world_stop(&w);
}

/* Who leads the table has not come to it, or could not yet. */
START_TEST(a_will_whose_time_has_come_is_not_forgotten_for_the_next_client)
{
	struct buf b;
	struct slice reply;
	struct session_claim_reply r;
	for (int i = 0; i < 2; i++) {
		make_write_due(&b, claim(), true, i == 0 ? 1000000 : -1000);
		ck_assert_int_eq(ask_only(&session_write_kind, buf_bytes(&b)), OK);
		buf_fini(&b);
		make_claim(&b, 0);
		ck_assert_int_eq(ask(&session_claim_kind, buf_bytes(&b), &reply), OK);
		ck_assert_int_eq(session_claim_reply_read(reply.bytes, &r), OK);
		ck_assert_int_eq(r.outcome, i == 0 ? CLAIM_TAKEN : CLAIM_WILL);
		slice_unref(&reply);
		buf_fini(&b);
	}
}
END_TEST

START_TEST(a_session_by_its_bytes)
{
	struct buf b;
	struct slice reply;
	struct bytes groups, will;
	uint32_t count;
	uint64_t epoch = claim();
	make_write(&b, epoch + 1, false);
	ck_assert_int_eq(ask_only(&session_write_kind, buf_bytes(&b)), ERR_FENCED);
	buf_fini(&b);
	make_write(&b, epoch, true);
	ck_assert_int_eq(ask_only(&session_write_kind, buf_bytes(&b)), OK);
	/* Once more, as after a failover: away is away. */
	ck_assert_int_eq(ask_only(&session_write_kind, buf_bytes(&b)), ERR_FENCED);
	buf_clear(&b);
	session_end_args(&b, SESSION_TAKE_WILL, epoch + 1, bytes_text("client"));
	ck_assert_int_eq(ask_only(&session_end_kind, buf_bytes(&b)), ERR_CONFLICT);
	buf_clear(&b);
	session_end_args(&b, SESSION_TAKE_WILL, epoch, bytes_text("client"));
	for (int i = 0; i < 2; i++) { /* whoever asks gets it */
		ck_assert_int_eq(ask(&session_end_kind, buf_bytes(&b), &reply), OK);
		ck_assert_int_eq(session_taken_read(reply.bytes, &count, &groups, &will), OK);
		ck_assert_uint_eq(count, 1);
		ck_assert_uint_gt(will.len, 0);
		slice_unref(&reply);
	}
	/* Taken, and not known to have left: the next client has it published first. */
	buf_fini(&b);
	make_claim(&b, 0);
	struct session_claim_reply r;
	ck_assert_int_eq(ask(&session_claim_kind, buf_bytes(&b), &reply), OK);
	ck_assert_int_eq(session_claim_reply_read(reply.bytes, &r), OK);
	ck_assert_int_eq(r.outcome, CLAIM_WILL);
	ck_assert_uint_eq(r.epoch, epoch);
	slice_unref(&reply);
	buf_clear(&b);
	session_end_args(&b, SESSION_END, epoch, bytes_text("client"));
	ck_assert_int_eq(ask_only(&session_end_kind, buf_bytes(&b)), OK);
	ck_assert_int_eq(ask_only(&session_end_kind, buf_bytes(&b)), ERR_NOTFOUND);
	ck_assert_int_eq(rows_count(&w, table, KEYSPACE_WILL, NULL), 0);
	ck_assert_int_eq(rows_count(&w, table, KEYSPACE_CURSOR, NULL), 0);
	buf_fini(&b);
}
END_TEST

/* The same claim evaluated twice, as when it was not known what became of it. */
START_TEST(a_claim_may_come_twice)
{
	struct buf b;
	struct slice reply;
	struct session_claim_reply r;
	uint64_t first = claim(), second = claim();
	ck_assert_uint_gt(second, first);
	make_claim(&b, 0);
	ck_assert_int_eq(ask(&session_claim_kind, buf_bytes(&b), &reply), OK);
	ck_assert_int_eq(session_claim_reply_read(reply.bytes, &r), OK);
	ck_assert_int_eq(r.outcome, CLAIM_TAKEN); /* not its own will */
	ck_assert(!r.present);                    /* nor a session its client does not know */
	slice_unref(&reply);
	buf_fini(&b);
}
END_TEST

START_TEST(replies_are_checked)
{
	struct buf b;
	struct slice reply;
	struct session_claim_reply r;
	struct bytes groups, will;
	uint32_t count;
	(void)claim();
	make_claim(&b, 0);
	ck_assert_int_eq(ask(&session_claim_kind, buf_bytes(&b), &reply), OK);
	for (size_t len = 0; len < reply.bytes.len; len++) {
		uint8_t *exact = malloc(len + 1);
		memcpy(exact, reply.bytes.at, len);
		ck_assert_int_eq(session_claim_reply_read(bytes_of(exact, len), &r), ERR_MALFORMED);
		free(exact);
	}
	ck_assert_int_eq(session_claim_reply_read(bytes_text("\x03"), &r), ERR_MALFORMED);
	ck_assert_int_eq(
		session_taken_read(bytes_text("\xff\xff"), &count, &groups, &will), ERR_MALFORMED);
	slice_unref(&reply);
	buf_fini(&b);
}
END_TEST

static void mutate(const struct proposal_kind *kind, struct bytes good, unsigned *seed)
{
	for (int i = 0; i < MUTATIONS; i++) {
		size_t len = i < (int)good.len ? (size_t)i : good.len;
		uint8_t *args = malloc(len + 1);
		memcpy(args, good.at, len);
		for (int k = (int)((unsigned)rand_r(seed) % 4); k >= 0 && len > 0; k--)
			args[(size_t)rand_r(seed) % len] ^= (uint8_t)(1 << rand_r(seed) % 8);
		(void)ask_only(kind, bytes_of(args, len));
		free(args);
	}
}

static void check_rows(struct row_read *r)
{
	for (int i = 0; i < r->count; i++) {
		struct session_row row;
		ck_assert_int_eq(session_row_read(r->rows[i].value, &row), OK);
	}
	row_read_fini(r);
	sem_post(&w.done);
}
static void run_check(void *arg)
{
	struct row_read *r = arg;
	*r = (struct row_read){.from = table,
		.keyspace = KEYSPACE_SESSION,
		.prefix = true,
		.rows_max = 100000,
		.bytes_max = 64 << 20,
		.done = check_rows};
	partition_read_rows(r);
}

START_TEST(whatever_args_come_rows_stay_readable)
{
	unsigned seed = 7;
	struct buf b;
	struct row_read r;
	uint64_t epoch = claim();
	make_claim(&b, epoch);
	mutate(&session_claim_kind, buf_bytes(&b), &seed);
	buf_fini(&b);
	make_write(&b, claim(), false);
	mutate(&session_write_kind, buf_bytes(&b), &seed);
	buf_fini(&b);
	make_write(&b, claim(), true);
	mutate(&session_write_kind, buf_bytes(&b), &seed);
	buf_clear(&b);
	session_end_args(&b, SESSION_TAKE_WILL, epoch, bytes_text("client"));
	mutate(&session_end_kind, buf_bytes(&b), &seed);
	buf_clear(&b);
	session_absent_begin(&b, self);
	session_absent_add(&b, epoch, bytes_text("client"));
	session_absent_add(&b, epoch, bytes_text("another"));
	mutate(&session_absent_kind, buf_bytes(&b), &seed);
	mutate(&qos2_forget_kind, buf_bytes(&b), &seed);
	buf_fini(&b);
	world_call(&w, 0, run_check, &r);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("session_ask");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, up, down);
	tcase_add_test(tc, a_session_by_its_bytes);
	tcase_add_test(tc, a_will_whose_time_has_come_is_not_forgotten_for_the_next_client);
	tcase_add_test(tc, a_claim_may_come_twice);
	tcase_add_test(tc, replies_are_checked);
	tcase_add_test(tc, whatever_args_come_rows_stay_readable);
	Suite *s = suite_create("session_ask");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
