#include <check.h>
#include <stdlib.h>
#include "server/base/mem.h"
#include "server/broker/message.h"

static struct slice batch;
static struct record record;

/* Encodes m and reads its record back; the batch stays for as long as the test. */
static void round_trip(const struct message *m, struct message *out)
{
	struct batch_builder b;
	struct batch head;
	struct batch_walk walk;
	batch_builder_init(&b, 1 << 20);
	ck_assert_int_eq(message_encode(m, &b), OK);
	slice_unref(&batch);
	batch = batch_builder_seal(&b);
	batch_builder_fini(&b);
	ck_assert_int_eq(batch_read(batch.bytes, &head), OK);
	ck_assert_int_eq(batch_check(&head, 0), OK);
	ck_assert_int_eq(batch_walk_init(&walk, &head, 0), OK);
	ck_assert_int_eq(batch_walk_next(&walk, &record), OK);
	message_decode(&record, bytes_text("stream"), out);
}

static void is(struct bytes b, const char *text)
{
	ck_assert(bytes_equal(b, bytes_text(text)));
}

START_TEST(a_plain_message_has_no_headers)
{
	struct message in = {.topic = bytes_text("a/b"),
			       .value = bytes_text("v"),
			       .timestamp_ms = 1234567890123},
		       out;
	round_trip(&in, &out);
	ck_assert_int_eq(record.header_count, 0);
	is(record.key, "a/b");
	is(out.topic, "a/b");
	is(out.value, "v");
	ck_assert_int_eq(out.qos, 0);
	ck_assert(!out.retain && !out.null_value);
	ck_assert_int_eq(out.timestamp_ms, 1234567890123);
	ck_assert_int_eq(out.expires_at_ms, 0);
	/* No copies: the value lies in the batch. */
	ck_assert(out.value.at > batch.bytes.at && out.value.at < batch.bytes.at + batch.bytes.len);
}
END_TEST

START_TEST(all_fields_come_back)
{
	struct record_header headers[] = {
		{bytes_text("color"), bytes_text("red"), false},
		{bytes_text("color"), bytes_text("blue"), false},
		{bytes_text("mqtt.qos"), bytes_text("0"), false},
		{bytes_text("mqtt.topic"), bytes_text("forged"), false},
		{bytes_text("mqtt.retain"), bytes_text("0"), false},
		{bytes_text("expires-at"), bytes_text("1"), false},
		{bytes_text("none"), bytes_text(""), true},
		{bytes_text("mqtt.pfi"), bytes_text("1"), false},
	};
	struct message in = {.topic = bytes_text("a/b"),
			       .key = bytes_text("k"),
			       .has_key = true,
			       .value = bytes_text("v"),
			       .qos = 2,
			       .retain = true,
			       .expires_at_ms = 1700000000000,
			       .headers = headers,
			       .header_count = 8},
		       out;
	round_trip(&in, &out);
	is(record.key, "k");
	is(out.topic, "a/b");
	is(out.key, "k");
	ck_assert_int_eq(out.qos, 2);
	ck_assert(out.retain);
	ck_assert_int_eq(out.expires_at_ms, 1700000000000);
	static const char *const names[] = {"color", "color", "none", "mqtt.pfi"};
	static const char *const values[] = {"red", "blue", "", "1"};
	struct bytes rest = out.encoded_headers;
	int left = out.encoded_count;
	struct record_header h;
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(message_header_next(&rest, &left, &h), OK);
		is(h.name, names[i]);
		is(h.value, values[i]);
		ck_assert_int_eq(h.null_value, i == 2);
	}
	ck_assert_int_eq(message_header_next(&rest, &left, &h), ERR_NOTFOUND);
}
END_TEST

START_TEST(a_topic_is_found_for_records_of_others)
{
	struct message in = {.key = bytes_text("customer/17"), .has_key = true}, out;
	round_trip(&in, &out);
	is(out.topic, "customer/17");
	in.key = bytes_text("not/#/a topic");
	round_trip(&in, &out);
	is(out.topic, "stream");
	ck_assert(out.has_key);
	in = (struct message){.null_value = true};
	round_trip(&in, &out);
	is(out.topic, "stream");
	ck_assert(record.null_key && out.null_value && !out.has_key);
	/* A forged or broken topic header is no topic. */
	struct batch_builder b;
	struct batch head;
	struct batch_walk walk;
	struct record_header odd[] = {{bytes_text("mqtt.topic"), bytes_text("a/#"), false},
		{bytes_text("mqtt.qos"), bytes_text("7"), false},
		{bytes_text("expires-at"), bytes_text("12x"), false}};
	struct bytes key = bytes_text("k"), value = bytes_text("v");
	batch_builder_init(&b, 1 << 20);
	ck_assert_int_eq(batch_builder_add(&b, 1, &key, &value, odd, 3), OK);
	slice_unref(&batch);
	batch = batch_builder_seal(&b);
	batch_builder_fini(&b);
	ck_assert_int_eq(batch_read(batch.bytes, &head), OK);
	ck_assert_int_eq(batch_walk_init(&walk, &head, 0), OK);
	ck_assert_int_eq(batch_walk_next(&walk, &record), OK);
	message_decode(&record, bytes_text("stream"), &out);
	is(out.topic, "k");
	ck_assert_int_eq(out.qos, 0);
	ck_assert_int_eq(out.expires_at_ms, 0);
}
END_TEST

START_TEST(odd_headers_are_passed_on_as_far_as_they_go)
{
	/* Two headers are said to follow; the second one is cut. */
	static const uint8_t cut[] = {2, 'a', 2, 'b', 40, 'x'};
	struct record r = {.key = bytes_text("t"), .header_count = 2, .headers = bytes_of(cut, 6)};
	struct message out;
	struct record_header h;
	message_decode(&r, bytes_text("s"), &out);
	is(out.topic, "t");
	struct bytes rest = out.encoded_headers;
	int left = out.encoded_count;
	ck_assert_int_eq(message_header_next(&rest, &left, &h), OK);
	is(h.name, "a");
	ck_assert_int_eq(message_header_next(&rest, &left, &h), ERR_NOTFOUND);
}
END_TEST

START_TEST(limits_are_kept)
{
	struct batch_builder b;
	uint8_t big[2000] = {0};
	struct message m = {.topic = bytes_text("t"), .value = bytes_of(big, sizeof big)};
	batch_builder_init(&b, 3000);
	ck_assert_int_eq(message_encode(&m, &b), OK);
	ck_assert_int_eq(message_encode(&m, &b), ERR_TOOBIG);
	ck_assert_int_eq(b.count, 1);
	m.header_count = MESSAGE_HEADERS_MAX + 1;
	ck_assert_int_eq(message_encode(&m, &b), ERR_TOOBIG);
	m.header_count = 0;
	m.qos = 1;
	batch_builder_fini(&b);
	batch_builder_init(&b, 3000);
	mem_fail_at(0);
	ck_assert_int_eq(message_encode(&m, &b), ERR_NOMEM);
	ck_assert_int_eq(message_encode(&m, &b), OK);
	batch_builder_fini(&b);
}
END_TEST

static void teardown(void)
{
	slice_unref(&batch);
}

int main(void)
{
	Suite *s = suite_create("message");
	TCase *tc = tcase_create("message");
	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, a_plain_message_has_no_headers);
	tcase_add_test(tc, all_fields_come_back);
	tcase_add_test(tc, a_topic_is_found_for_records_of_others);
	tcase_add_test(tc, odd_headers_are_passed_on_as_far_as_they_go);
	tcase_add_test(tc, limits_are_kept);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
