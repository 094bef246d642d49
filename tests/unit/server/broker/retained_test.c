/* The row of a retained value; sending them over a real node with three loops. */
#include "server/broker/retained.h"
#include "tests/unit/server/broker/world_reader.h"

static struct buf row;
static uint8_t *copy;

static void setup(void)
{
	struct batch_builder b;
	struct message m = {.topic = bytes_text("a/b"),
		.value = bytes_text("value"),
		.qos = 1,
		.retain = true,
		.timestamp_ms = 1500,
		.expires_at_ms = 99};
	struct message first = {.topic = bytes_text("x"), .timestamp_ms = 1000};
	batch_builder_init(&b, 4096);
	ck_assert_int_eq(message_encode(&first, &b), OK); /* times refer to the batch's first */
	ck_assert_int_eq(message_encode(&m, &b), OK);
	struct bytes all = buf_bytes(&b.buf);
	struct retained_row r = {.offset = 41,
		.base_ms = b.base_ms,
		.record = bytes_of(all.at + b.record_at, all.len - b.record_at)};
	buf_init(&row, 4096);
	retained_row_encode(&r, &row);
	batch_builder_fini(&b);
}
static void teardown(void)
{
	mem_free(copy);
	buf_fini(&row);
}

/* The row's first len bytes in memory of just that size. */
static struct bytes cut(size_t len)
{
	mem_free(copy);
	copy = mem_try(len > 0 ? len : 1);
	memcpy(copy, buf_bytes(&row).at, len);
	return bytes_of(copy, len);
}

START_TEST(comes_back)
{
	struct message m;
	int64_t offset;
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a/b"), cut(buf_len(&row)), &m, &offset), OK);
	ck_assert_int_eq(offset, 41);
	ck_assert(bytes_equal(m.value, bytes_text("value")));
	ck_assert(bytes_equal(m.topic, bytes_text("a/b")));
	ck_assert_int_eq(m.qos, 1);
	ck_assert(m.retain);
	ck_assert_int_eq(m.timestamp_ms, 1500);
	ck_assert_int_eq(m.expires_at_ms, 99);
}
END_TEST

START_TEST(a_cut_or_odd_row_is_corrupt)
{
	struct message m;
	int64_t offset;
	for (size_t len = 0; len < buf_len(&row); len++)
		ck_assert_int_eq(
			retained_row_decode(bytes_text("a"), cut(len), &m, &offset), ERR_CORRUPT);
	(void)cut(buf_len(&row));
	copy[0] = 2;
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a"), bytes_of(copy, buf_len(&row)), &m, &offset),
		ERR_CORRUPT);
	buf_add_u8(&row, 0);
	ck_assert_int_eq(
		retained_row_decode(bytes_text("a"), buf_bytes(&row), &m, &offset), ERR_CORRUPT);
}
END_TEST

/* ---- sending */

static void world_setup(void)
{
	world_init(&w);
}

START_TEST(sends_retained_messages_to_new_subscriptions)
{
	world_start(&w, LOOPS);
	char topic[24];
	for (int i = 0; i < 200; i++) {
		snprintf(topic, sizeof topic, "r/%03d/x", i);
		world_say(&w, i % LOOPS, topic, "old", true);
		world_say(&w, i % LOOPS, topic, "new", true);
	}
	world_say(&w, 0, "r/005/x", "", true);
	struct world_publish old = {.m = {.topic = bytes_text("r/006/x"),
					    .value = bytes_text("v"),
					    .retain = true,
					    .expires_at_ms = 1}};
	ck_assert_int_eq(world_publish(&w, 0, &old), OK);
	struct reader *r = reader_new(1);
	r->refuse_percent = 20;
	ck_assert_int_eq(subscribe(r, "r/+/x"), OK);
	reader_wait(r, 198);
	for (size_t i = 0; i < r->count; i++) {
		ck_assert_str_eq(r->got[i].value, "new");
		ck_assert(r->got[i].retained);
		if (i > 0) /* in order of topic, each once */
			ck_assert_str_lt(r->got[i - 1].topic, r->got[i].topic);
	}
	ck_assert_int_eq(subscribe(r, "r/007/x"), OK);
	reader_wait(r, 199);
	r->op.retained = RETAINED_IF_NEW;
	ck_assert_int_eq(subscribe(r, "r/007/x"), OK);
	reader_wait(r, 199);
	r->op.retained = RETAINED_SEND;
	ck_assert_int_eq(subscribe(r, "r/007/x"), OK);
	reader_wait(r, 200);
	r->op.retained = RETAINED_NOT;
	ck_assert_int_eq(subscribe(r, "r/008/x"), OK);
	reader_wait(r, 200);
	reader_free(r);
	world_stop(&w);
}
END_TEST

/* A value that keeps changing while readers subscribe: each ends with the newest, never goes back.
 */
START_TEST(retained_and_live_meet_without_going_back)
{
	enum { READERS = 24, VALUES = 300 };
	struct reader *r[READERS];
	char value[16];
	int n = 0;
	world_start(&w, LOOPS);
	for (int v = 0; v < VALUES; v++) {
		snprintf(value, sizeof value, "%06d", v);
		world_say(&w, v % LOOPS, "now/value", value, true);
		if (v % 12 == 6 && n < READERS) {
			r[n] = reader_new(n % LOOPS);
			r[n]->refuse_percent = (n % 3) * 15;
			ck_assert_int_eq(subscribe(r[n], n % 2 ? "now/#" : "now/value"), OK);
			n++;
		}
	}
	for (int i = 0; i < n; i++) {
		struct peek p = {.r = r[i]};
		for (int k = 0; k < 10000 && strcmp(p.last, value) != 0; k++) {
			usleep(2000);
			world_call(&w, r[i]->loop, peek_run, &p);
		}
		ck_assert_str_eq(p.last, value);
		ck_assert(!p.back);
	}
	for (int i = 0; i < n; i++)
		reader_free(r[i]);
	world_stop(&w);
}
END_TEST

/* The first n retained ones came in order of topic, each once. */
static void check_retained(const struct reader *r, int n)
{
	const char *last = "";
	for (size_t i = 0; i < r->count && n > 0; i++) {
		if (!r->got[i].retained)
			continue;
		ck_assert_str_lt(last, r->got[i].topic);
		last = r->got[i].topic;
		n--;
	}
	ck_assert_int_eq(n, 0);
}

/* There are more of them than places to read; some stop at the first row, some in a page. */
START_TEST(retained_messages_do_not_wait_for_who_takes_nothing)
{
	enum { STUCK = 24, VALUES = 150 };
	struct reader *stuck[STUCK];
	char topic[24];
	world_start(&w, LOOPS);
	for (int i = 0; i < VALUES; i++) {
		snprintf(topic, sizeof topic, "r/%03d", i);
		world_say(&w, i % LOOPS, topic, "v", true);
	}
	for (int i = 0; i < STUCK; i++) {
		stuck[i] = reader_new(1);
		stuck[i]->stop_at = (size_t)(i % 4 * 20);
		stuck[i]->stopped = i % 4 == 0;
		ck_assert_int_eq(subscribe(stuck[i], "r/#"), OK);
		ck_assert_int_eq(subscribe(stuck[i], "r/007"), OK);
		ck_assert_int_eq(subscribe(stuck[i], "live"), OK);
		struct reader *r = reader_new(1);
		ck_assert_int_eq(subscribe(r, i % 2 == 0 ? "r/007" : "r/+"), OK);
		reader_wait(r, i % 2 == 0 ? 1 : VALUES);
		check_retained(r, i % 2 == 0 ? 1 : VALUES);
		reader_free(r);
	}
	world_say(&w, 0, "live", "v", false);
	/* Each goes on where it stopped, also with its next filter when the first has gone. */
	for (int i = 0; i < STUCK; i++) {
		reader_wait(stuck[i], i % 4 * 20);
		if (i % 8 == 7)
			ck_assert_int_eq(unsubscribe(stuck[i], "r/#"), OK);
	}
	for (int i = 0; i < STUCK; i++)
		reader_go(stuck[i]);
	for (int i = 0; i < STUCK; i++) {
		int64_t whole = i % 8 == 7 ? i % 4 * 20 : VALUES;
		reader_wait(stuck[i], whole + 2);
		check_retained(stuck[i], (int)whole);
		reader_free(stuck[i]);
	}
	world_stop(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("retained");
	TCase *tc = tcase_create("row");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, comes_back);
	tcase_add_test(tc, a_cut_or_odd_row_is_corrupt);
	suite_add_tcase(s, tc);
	tc = tcase_create("sending");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, world_setup, NULL);
	tcase_add_test(tc, sends_retained_messages_to_new_subscriptions);
	tcase_add_test(tc, retained_and_live_meet_without_going_back);
	tcase_add_test(tc, retained_messages_do_not_wait_for_who_takes_nothing);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
