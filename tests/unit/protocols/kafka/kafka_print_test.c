#include <check.h>
#include "protocols/kafka/kafka_print.h"
#include "protocols/kafka/kafka_schema.h"

static void assert_text(struct buf *b, const char *want)
{
	ck_assert_msg(bytes_equal(buf_bytes(b), bytes_text(want)), "%.*s", (int)buf_len(b),
		(const char *)buf_bytes(b).at);
	buf_clear(b);
}

START_TEST(prints_what_the_version_has)
{
	struct buf out;
	struct kafka_heartbeat_req req = {.group_id = bytes_of("a\"\n\xff", 4),
		.generation = -7,
		.member_id = bytes_text("m"),
		.instance_id = bytes_text("i")};
	buf_init(&out, 1 << 16);
	kafka_print(&kafka_api_heartbeat, 2, true, &req, &out);
	assert_text(&out, "{group_id=\"a\\x22\\x0a\\xff\",generation=-7,member_id=\"m\"}");
	req.instance_id = bytes_of(NULL, 0);
	req.group_id = bytes_of(NULL, 0); /* not allowed to be null, so it is empty */
	kafka_print(&kafka_api_heartbeat, 3, true, &req, &out);
	assert_text(&out, "{group_id=\"\",generation=-7,member_id=\"m\",instance_id=null}");
	buf_fini(&out);
}
END_TEST

START_TEST(prints_arrays_and_payloads)
{
	struct buf out;
	struct slice slices[2] = {{.bytes = bytes_text("ab")}, {.bytes = bytes_text("c")}};
	struct kafka_produce_req_partition parts[2] = {
		{.index = 1, .records = {.slices = slices, .slices_count = 2}}, {.index = 2}};
	struct kafka_produce_req_topic topic = {
		.name = bytes_text("t"), .partitions = parts, .partitions_count = 2};
	struct kafka_produce_req req = {.acks = -1, .topics = &topic, .topics_count = 1};
	buf_init(&out, 1 << 16);
	kafka_print(&kafka_api_produce, 3, true, &req, &out);
	assert_text(&out,
		"{transactional_id=null,acks=-1,timeout_ms=0,topics=[{name=\"t\","
		"partitions=[{index=1,records=x616263},{index=2,records=null}]}]}");
	buf_fini(&out);
}
END_TEST

START_TEST(keeps_the_bound)
{
	struct buf out;
	struct kafka_heartbeat_req req = kafka_heartbeat_req_init;
	buf_init(&out, 10);
	kafka_print(&kafka_api_heartbeat, 2, true, &req, &out);
	ck_assert_int_eq(out.err, ERR_TOOBIG);
	ck_assert_uint_le(buf_len(&out), 10);
	buf_fini(&out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_print");
	TCase *tc = tcase_create("print");
	tcase_add_test(tc, prints_what_the_version_has);
	tcase_add_test(tc, prints_arrays_and_payloads);
	tcase_add_test(tc, keeps_the_bound);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
