/* Wills: round trips, every prefix, published on a node, and not without a right. */
#include "server/broker/will.h"
#include "tests/unit/server/broker/world_rights.h"

#define TEXT(s) bytes_of(s, sizeof(s) - 1)

static void make(struct buf *out)
{
	static const struct record_header headers[] = {
		{{(const uint8_t *)"k", 1}, {(const uint8_t *)"v", 1}, false},
		{{(const uint8_t *)"k", 1}, {(const uint8_t *)"w", 1}, false}};
	struct will x = {.delay_s = 30,
		.has_expiry = true,
		.expiry_s = 60,
		.message = {.topic = TEXT("gone/a"),
			.value = TEXT("bye"),
			.qos = 1,
			.retain = true,
			.headers = headers,
			.header_count = 2}};
	buf_init(out, 4096);
	ck_assert_int_eq(will_encode(&x, 4096, out), OK);
}

START_TEST(comes_back)
{
	struct buf b;
	struct will x;
	make(&b);
	will_set_due(b.chunk->data + b.start, 123456789);
	ck_assert_int_eq(will_read(buf_bytes(&b), &x), OK);
	ck_assert_uint_eq(x.delay_s, 30);
	ck_assert(x.has_expiry);
	ck_assert_uint_eq(x.expiry_s, 60);
	ck_assert_int_eq(x.due_ms, 123456789);
	ck_assert_uint_eq(x.user.len, 0);
	size_t batch = x.batch.len;
	will_say_who(&b, TEXT("bob"), "10.0.0.1:5");
	ck_assert_int_eq(will_read(buf_bytes(&b), &x), OK);
	ck_assert_uint_eq(x.batch.len, batch);
	ck_assert(bytes_equal(x.user, TEXT("bob")));
	ck_assert(bytes_equal(x.peer, TEXT("10.0.0.1:5")));
	buf_fini(&b);
}
END_TEST

/* Rows of before a will said who leaves it. */
START_TEST(comes_back_from_version_1)
{
	struct buf b, old;
	struct will x, was;
	make(&b);
	ck_assert_int_eq(will_read(buf_bytes(&b), &x), OK);
	buf_init(&old, 4096);
	buf_add_u8(&old, 1);
	buf_add(&old, bytes_of(buf_bytes(&b).at + 1, 17));
	buf_add(&old, x.batch);
	ck_assert_int_eq(will_read(buf_bytes(&old), &was), OK);
	ck_assert_uint_eq(was.delay_s, 30);
	ck_assert(bytes_equal(was.batch, x.batch));
	ck_assert_uint_eq(was.user.len, 0);
	old.chunk->data[old.start] = 3;
	ck_assert_int_eq(will_read(buf_bytes(&old), &was), ERR_CORRUPT);
	buf_fini(&old);
	buf_fini(&b);
}
END_TEST

START_TEST(too_large)
{
	struct buf b;
	static uint8_t payload[5000];
	struct will x = {.message = {.topic = TEXT("t"), .value = bytes_of(payload, 5000)}};
	buf_init(&b, 8192);
	ck_assert_int_eq(will_encode(&x, 4096, &b), ERR_TOOBIG);
	buf_fini(&b);
}
END_TEST

/* But for the one that ends before who leaves it. */
START_TEST(every_prefix)
{
	struct buf b;
	struct will x;
	make(&b);
	size_t bare = buf_len(&b);
	will_say_who(&b, TEXT("bob"), "10.0.0.1:5");
	for (size_t len = 0; len < buf_len(&b); len++) {
		uint8_t *exact = malloc(len + (len == 0));
		memcpy(exact, buf_bytes(&b).at, len);
		ck_assert_int_eq(
			will_read(bytes_of(exact, len), &x), len == bare ? OK : ERR_CORRUPT);
		free(exact);
	}
	buf_fini(&b);
}
END_TEST

static struct {
	struct buf will;
	size_t len;
	const struct will_of *whose;
	enum err err;
} t;

static void on_left(void *arg, enum err e)
{
	(void)arg;
	t.err = e;
	sem_post(&w.done);
}

static void leave(void *arg)
{
	(void)arg;
	struct bytes in = bytes_of(buf_bytes(&t.will).at, t.len);
	ck_assert_int_eq(will_publish(world_shard(&w, 0), in, t.whose, on_left, NULL), OK);
}

START_TEST(is_published)
{
	world_init(&w);
	world_start(&w, 2);
	make(&t.will);
	t.len = buf_len(&t.will);
	world_call(&w, 0, leave, NULL);
	ck_assert_int_eq(t.err, OK);
	for (t.len = 0; t.len < buf_len(&t.will); t.len += 3) {
		world_call(&w, 0, leave, NULL);
		ck_assert_int_eq(t.err, ERR_CORRUPT);
	}
	buf_fini(&t.will);
	world_stop(&w);
}
END_TEST

static enum err left_by(const struct will_of *whose, const char *user)
{
	make(&t.will);
	if (user != NULL)
		will_say_who(&t.will, bytes_text(user), "10.0.0.1:5");
	t.len = buf_len(&t.will);
	t.whose = whose;
	world_call(&w, 0, leave, NULL);
	t.whose = NULL;
	buf_fini(&t.will);
	return t.err;
}

/* Of the moment it leaves, whenever it was left. */
START_TEST(leaves_only_with_a_right)
{
	const struct will_of a = {TEXT("a"), 1, true}, b = {TEXT("b"), 1, true};
	struct rule right = rule_of(
		"u", false, ACTION_WRITE, RESOURCE_TOPIC, RULE_LITERAL, "gone/%c");
	world_init(&w);
	log_setup(LOG_ERROR, false); /* wills that may not leave are told */
	world_start(&w, 2);
	ck_assert_int_eq(left_by(&a, "u"), ERR_DENIED);
	put_user_named("u", "", NULL);
	put_user_named("v", "acme", "admin");
	ck_assert_int_eq(left_by(&a, "u"), ERR_DENIED);
	put_rule(right, true);
	ck_assert_int_eq(left_by(&a, "u"), OK);
	ck_assert_int_eq(left_by(&b, "u"), ERR_DENIED);
	ck_assert_int_eq(left_by(&a, "v"), ERR_DENIED); /* may all, elsewhere */
	ck_assert_int_eq(left_by(&a, "ANONYMOUS"), ERR_DENIED);
	ck_assert_int_eq(left_by(&a, NULL), OK);
	right.host = TEXT("10.0.0.1");
	right.deny = true;
	put_rule(right, true);
	ck_assert_int_eq(left_by(&a, "u"), ERR_DENIED);
	put_rule(right, false);
	ck_assert_int_eq(left_by(&a, "u"), OK);
	drop_user("u");
	ck_assert_int_eq(left_by(&a, "u"), ERR_DENIED);
	world_stop(&w);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("will");
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, comes_back);
	tcase_add_test(tc, too_large);
	tcase_add_test(tc, every_prefix);
	tcase_add_test(tc, comes_back_from_version_1);
	tcase_add_test(tc, is_published);
	tcase_add_test(tc, leaves_only_with_a_right);
	Suite *s = suite_create("will");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
