#include "cluster/peer_wire.h"
#include <check.h>
#include <stdlib.h>
#include "server/base/mem.h"

static struct peer_hello sample(void)
{
	struct peer_hello h = {.version_min = 1,
		.version_max = 2,
		.node = 7,
		.boot = 0x0102030405060708,
		.loop = 3,
		.purpose = PEER_FOR_PROBE,
		.capabilities = 5,
		.cluster_name = bytes_text("c"),
		.name = bytes_text("node-7"),
		.rack = bytes_text(""),
		.address = bytes_text("host:7400")};
	memset(h.cluster, 0xcc, sizeof h.cluster);
	memset(h.instance, 0x11, sizeof h.instance);
	memset(h.circle, 0x22, sizeof h.circle);
	return h;
}

/* Layout of version 1: it may not change while nodes of it are spoken to. */
static const uint8_t hello_vector[] = {0, 0, 0, 124, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0,                                                                          /* head */
	'S', 'L', 'U', 'I', 'C', 'E', '-', 'P', 0, 1, 0, 2, 1, 0, 0, 3, 0, 0, 0, 7, /* to node */
	1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 5, /* boot, capabilities */
	0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
	0xcc, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
	0x11, 0x11, 0, 1, 'c', 0, 6, 'n', 'o', 'd', 'e', '-', '7', 0, 0, 0, 9, 'h', 'o', 's', 't',
	':', '7', '4', '0', '0', 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22,
	0x22, 0x22, 0x22, 0x22, 0x22};

/* A copy in memory of exactly its size, so that a read beyond it is seen. */
static uint8_t *exact(const void *at, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	ck_assert_ptr_nonnull(copy);
	memcpy(copy, at, len);
	return copy;
}

START_TEST(hello_is_as_laid_out)
{
	struct peer_hello h = sample(), got;
	struct peer_frame f;
	struct buf out;
	buf_init(&out, 4096);
	ck_assert_int_eq(peer_hello_write(&out, &h), OK);
	ck_assert(bytes_equal(buf_bytes(&out), bytes_of(hello_vector, sizeof hello_vector)));
	ck_assert_int_eq(peer_frame_read(buf_bytes(&out), PEER_HELLO_BYTES_MAX, &f), OK);
	ck_assert_int_eq(f.kind, PEER_HELLO);
	ck_assert_uint_eq(f.length, sizeof hello_vector);
	ck_assert_int_eq(peer_hello_read(f.body, &got), OK);
	ck_assert_uint_eq(got.version_min, 1);
	ck_assert_uint_eq(got.version_max, 2);
	ck_assert_uint_eq(got.node, 7);
	ck_assert_uint_eq(got.boot, h.boot);
	ck_assert_uint_eq(got.loop, 3);
	ck_assert_uint_eq(got.purpose, PEER_FOR_PROBE);
	ck_assert_uint_eq(got.capabilities, 5);
	ck_assert_mem_eq(got.cluster, h.cluster, 16);
	ck_assert_mem_eq(got.instance, h.instance, 16);
	ck_assert_mem_eq(got.circle, h.circle, 16);
	ck_assert(bytes_equal(got.cluster_name, h.cluster_name));
	ck_assert(bytes_equal(got.name, h.name));
	ck_assert(bytes_equal(got.rack, h.rack));
	ck_assert(bytes_equal(got.address, h.address));
	buf_fini(&out);
}
END_TEST

START_TEST(hello_refuses_every_prefix)
{
	struct peer_hello h;
	struct peer_frame f;
	uint8_t *frame = exact(hello_vector, (size_t)_i);
	ck_assert_int_eq(
		peer_frame_read(bytes_of(frame, (size_t)_i), PEER_HELLO_BYTES_MAX, &f), ERR_MORE);
	ck_assert_uint_ge(f.length, (size_t)_i);
	free(frame);
	if (_i < PEER_HEAD_BYTES)
		return;
	size_t len = (size_t)_i - PEER_HEAD_BYTES;
	uint8_t *body = exact(hello_vector + PEER_HEAD_BYTES, len);
	if (_i == sizeof hello_vector - 16) { /* as the first of version 1 said it */
		ck_assert_int_eq(peer_hello_read(bytes_of(body, len), &h), OK);
		ck_assert_mem_eq(h.circle, ((const uint8_t[16]){0}), 16);
	} else {
		ck_assert_int_eq(peer_hello_read(bytes_of(body, len), &h), ERR_MALFORMED);
	}
	free(body);
}
END_TEST

START_TEST(hello_takes_what_later_versions_add)
{
	uint8_t body[sizeof hello_vector];
	struct peer_hello h;
	memset(body, 0xee, sizeof body);
	memcpy(body, hello_vector + PEER_HEAD_BYTES, sizeof hello_vector - PEER_HEAD_BYTES);
	ck_assert_int_eq(peer_hello_read(bytes_of(body, sizeof body), &h), OK);
	ck_assert(bytes_equal(h.address, bytes_text("host:7400")));
}
END_TEST

/* Offset in the body, value, whether it is still a hello. */
START_TEST(hello_fields_are_checked)
{
	static const struct {
		int at;
		uint8_t value;
		enum err err;
	} cases[] = {{0, 's', ERR_MALFORMED}, {7, 'Q', ERR_MALFORMED}, {9, 3, ERR_MALFORMED},
		{11, 0, ERR_MALFORMED}, {19, 0, ERR_MALFORMED}, {16, 0x80, ERR_MALFORMED},
		{68, 1, ERR_MALFORMED}, {70, 0xff, ERR_MALFORMED}, {72, 7, ERR_MALFORMED},
		{12, 9, OK}, {40, 0, OK}, {27, 0xff, OK}};
	struct peer_hello h;
	size_t len = sizeof hello_vector - PEER_HEAD_BYTES;
	uint8_t *body = exact(hello_vector + PEER_HEAD_BYTES, len);
	body[cases[_i].at] = cases[_i].value;
	ck_assert_int_eq(peer_hello_read(bytes_of(body, len), &h), cases[_i].err);
	free(body);
}
END_TEST

START_TEST(hello_texts_are_bounded)
{
	static char text[PEER_TEXT_BYTES_MAX + 2];
	struct peer_hello h = sample(), got;
	struct buf out;
	memset(text, 'x', sizeof text);
	h.name = h.rack = h.address = h.cluster_name = bytes_of(text, PEER_TEXT_BYTES_MAX);
	buf_init(&out, 4096);
	ck_assert_int_eq(peer_hello_write(&out, &h), OK);
	ck_assert_uint_lt(buf_len(&out), PEER_HELLO_BYTES_MAX);
	struct bytes b = buf_bytes(&out);
	ck_assert_int_eq(
		peer_hello_read(bytes_of(b.at + PEER_HEAD_BYTES, b.len - PEER_HEAD_BYTES), &got),
		OK);
	ck_assert_uint_eq(got.rack.len, PEER_TEXT_BYTES_MAX);
	buf_clear(&out);
	h.rack = bytes_of(text, PEER_TEXT_BYTES_MAX + 1);
	ck_assert_int_eq(peer_hello_write(&out, &h), ERR_TOOBIG);
	ck_assert_uint_eq(buf_len(&out), 0);
	buf_fini(&out);
}
END_TEST

START_TEST(frame_heads)
{
	static const struct {
		uint8_t head[8];
		enum err err;
	} cases[] = {{{0, 0, 0, 20, 1, 0, 0, 0}, OK}, {{0, 0, 0, 16, 1, 0, 0, 0}, OK},
		{{0, 0, 0, 15, 1, 0, 0, 0}, ERR_MALFORMED},
		{{0, 0, 0, 0, 1, 0, 0, 0}, ERR_MALFORMED}, {{0, 0, 0, 21, 1, 0, 0, 0}, ERR_MORE},
		{{0, 0, 1, 1, 1, 0, 0, 0}, ERR_TOOBIG},
		{{255, 255, 255, 255, 1, 0, 0, 0}, ERR_TOOBIG},
		{{0, 0, 0, 20, 1, 1, 0, 0}, ERR_MALFORMED},
		{{0, 0, 0, 20, 1, 0, 0, 1}, ERR_MALFORMED}};
	uint8_t in[20] = {0};
	struct peer_frame f;
	memcpy(in, cases[_i].head, 8);
	in[15] = 9;
	uint8_t *copy = exact(in, sizeof in);
	ck_assert_int_eq(peer_frame_read(bytes_of(copy, sizeof in), 256, &f), cases[_i].err);
	if (cases[_i].err == OK) {
		ck_assert_uint_eq(f.group, 9);
		ck_assert_uint_eq(f.kind, 1);
		ck_assert_uint_eq(f.body.len, f.length - PEER_HEAD_BYTES);
	}
	free(copy);
}
END_TEST

START_TEST(head_is_as_laid_out)
{
	static const uint8_t expected[] = {0, 0, 1, 16, 5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t at[PEER_HEAD_BYTES];
	memset(at, 0xff, sizeof at);
	peer_head_write(at, 256, PEER_FOLLOW, 0x0102030405060708);
	ck_assert_mem_eq(at, expected, sizeof at);
}
END_TEST

START_TEST(refusals)
{
	struct buf out;
	struct peer_frame f;
	enum peer_refusal code;
	struct bytes text;
	buf_init(&out, 4096);
	peer_refusal_write(&out, REFUSED_CLUSTER, "another one");
	ck_assert_int_eq(peer_frame_read(buf_bytes(&out), 4096, &f), OK);
	ck_assert_int_eq(f.kind, PEER_REFUSAL);
	ck_assert_int_eq(peer_refusal_read(f.body, &code, &text), OK);
	ck_assert_int_eq(code, REFUSED_CLUSTER);
	ck_assert(bytes_equal(text, bytes_text("another one")));
	for (size_t n = 0; n < f.body.len; n++) {
		uint8_t *copy = exact(f.body.at, n);
		ck_assert_int_eq(peer_refusal_read(bytes_of(copy, n), &code, &text), ERR_MALFORMED);
		free(copy);
	}
	buf_fini(&out);
}
END_TEST

START_TEST(calls_and_answers)
{
	static const uint8_t call[] = {0, 0, 0, 0, 0, 0, 1, 2, 0, 33, 0, 0, 0, 0, 0, 0};
	struct peer_call_head c = {0x102, PEER_OP_LEASE}, got;
	struct peer_answer_head a;
	struct bytes rest;
	uint8_t at[PEER_CALL_BYTES + 3] = {0};
	peer_call_write(at, &c);
	ck_assert_mem_eq(at, call, sizeof call);
	for (size_t n = 0; n < PEER_CALL_BYTES; n++) {
		uint8_t *copy = exact(at, n);
		ck_assert_int_eq(peer_call_read(bytes_of(copy, n), &got, &rest), ERR_MALFORMED);
		ck_assert_int_eq(peer_answer_read(bytes_of(copy, n), &a, &rest), ERR_MALFORMED);
		free(copy);
	}
	ck_assert_int_eq(peer_call_read(bytes_of(at, sizeof at), &got, &rest), OK);
	ck_assert_uint_eq(got.id, 0x102);
	ck_assert_uint_eq(got.op, PEER_OP_LEASE);
	ck_assert_uint_eq(rest.len, 3);
	for (int e = 0; e < ERR_COUNT; e++) {
		peer_answer_write(at, &(struct peer_answer_head){5, (enum err)e});
		ck_assert_int_eq(peer_answer_read(bytes_of(at, sizeof at), &a, &rest), OK);
		ck_assert_int_eq(a.err, e);
		ck_assert_uint_eq(a.id, 5);
	}
	at[8] = 0x7f; /* a code of a later version */
	ck_assert_int_eq(peer_answer_read(bytes_of(at, sizeof at), &a, &rest), OK);
	ck_assert_int_eq(a.err, ERR_UNKNOWN);
	peer_answer_write(at, &(struct peer_answer_head){5, ERR_CLOSED});
	ck_assert_uint_eq(get_u16be(at + 8), 24); /* the wire's, whatever the enum's */
}
END_TEST

START_TEST(versions_meet_or_not)
{
	static const uint16_t cases[][5] = {{1, 1, 1, 1, 1}, {1, 2, 2, 3, 2}, {2, 3, 1, 2, 2},
		{1, 1, 2, 3, 0}, {2, 3, 1, 1, 0}, {1, 5, 2, 4, 4}};
	struct peer_hello a = {.version_min = cases[_i][0], .version_max = cases[_i][1]};
	struct peer_hello b = {.version_min = cases[_i][2], .version_max = cases[_i][3]};
	ck_assert_uint_eq(peer_version_common(&a, &b), cases[_i][4]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("peer_wire");
	TCase *tc = tcase_create("peer_wire");
	tcase_add_test(tc, hello_is_as_laid_out);
	tcase_add_loop_test(tc, hello_refuses_every_prefix, 0, sizeof hello_vector);
	tcase_add_test(tc, hello_takes_what_later_versions_add);
	tcase_add_loop_test(tc, hello_fields_are_checked, 0, 12);
	tcase_add_test(tc, hello_texts_are_bounded);
	tcase_add_loop_test(tc, frame_heads, 0, 9);
	tcase_add_test(tc, head_is_as_laid_out);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, calls_and_answers);
	tcase_add_loop_test(tc, versions_meet_or_not, 0, 6);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
