/* Wills: round trips, every prefix, and one published on a node. */
#include "server/broker/will.h"
#include "tests/unit/server/broker/world.h"

#define TEXT(s) bytes_of(s, sizeof(s) - 1)

static void make(struct buf *out)
{
	static const struct record_header headers[] = {
		{{(const uint8_t *)"k", 1}, {(const uint8_t *)"v", 1}, false},
		{{(const uint8_t *)"k", 1}, {(const uint8_t *)"w", 1}, false}};
	struct will w = {.delay_s = 30,
		.has_expiry = true,
		.expiry_s = 60,
		.message = {.topic = TEXT("gone/a"),
			.value = TEXT("bye"),
			.qos = 1,
			.retain = true,
			.headers = headers,
			.header_count = 2}};
	buf_init(out, 4096);
	ck_assert_int_eq(will_encode(&w, 4096, out), OK);
}

START_TEST(comes_back)
{
	struct buf b;
	struct will w;
	make(&b);
	will_set_due(b.chunk->data + b.start, 123456789);
	ck_assert_int_eq(will_read(buf_bytes(&b), &w), OK);
	ck_assert_uint_eq(w.delay_s, 30);
	ck_assert(w.has_expiry);
	ck_assert_uint_eq(w.expiry_s, 60);
	ck_assert_int_eq(w.due_ms, 123456789);
	buf_fini(&b);
}
END_TEST

START_TEST(too_large)
{
	struct buf b;
	static uint8_t payload[5000];
	struct will w = {.message = {.topic = TEXT("t"), .value = bytes_of(payload, 5000)}};
	buf_init(&b, 8192);
	ck_assert_int_eq(will_encode(&w, 4096, &b), ERR_TOOBIG);
	buf_fini(&b);
}
END_TEST

/* A head that is cut is refused; a batch that is cut is only seen when it is published. */
START_TEST(every_prefix)
{
	struct buf b;
	struct will w;
	make(&b);
	for (size_t len = 0; len < 18; len++) {
		uint8_t *exact = malloc(len + (len == 0));
		memcpy(exact, buf_bytes(&b).at, len);
		ck_assert_int_eq(will_read(bytes_of(exact, len), &w), ERR_CORRUPT);
		free(exact);
	}
	buf_fini(&b);
}
END_TEST

static struct {
	struct world w;
	struct buf will;
	size_t len;
	enum err err;
} t;

static void on_left(void *arg, enum err e)
{
	(void)arg;
	t.err = e;
	sem_post(&t.w.done);
}

static void leave(void *arg)
{
	(void)arg;
	struct bytes in = bytes_of(buf_bytes(&t.will).at, t.len);
	ck_assert_int_eq(will_publish(world_shard(&t.w, 0), in, NULL, on_left, NULL), OK);
}

START_TEST(is_published)
{
	world_init(&t.w);
	world_start(&t.w, 2);
	make(&t.will);
	t.len = buf_len(&t.will);
	world_call(&t.w, 0, leave, NULL);
	ck_assert_int_eq(t.err, OK);
	for (t.len = 0; t.len < buf_len(&t.will); t.len += 3) {
		world_call(&t.w, 0, leave, NULL);
		ck_assert_int_eq(t.err, ERR_CORRUPT);
	}
	buf_fini(&t.will);
	world_stop(&t.w);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("will");
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, comes_back);
	tcase_add_test(tc, too_large);
	tcase_add_test(tc, every_prefix);
	tcase_add_test(tc, is_published);
	Suite *s = suite_create("will");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
