#include <check.h>
#include <stdlib.h>
#include "server/base/wire.h"

#define B(...)                                                                                     \
	((struct bytes){(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})})

struct sample { /* one of everything */
	uint8_t a;
	uint16_t b, c;
	uint32_t d, e, f;
	uint64_t g, h, i;
	int32_t j;
	int64_t k;
	struct bytes l;
};

static enum err sample_read(struct bytes in, struct sample *s)
{
	struct rd r = rd_over(in);

	s->a = rd_u8(&r);
	s->b = rd_u16be(&r);
	s->c = rd_u16le(&r);
	s->d = rd_u32be(&r);
	s->e = rd_u32le(&r);
	s->f = rd_uvar32(&r);
	s->g = rd_u64be(&r);
	s->h = rd_u64le(&r);
	s->i = rd_uvar64(&r);
	s->j = rd_svar32(&r);
	s->k = rd_svar64(&r);
	rd_skip(&r, 2);
	s->l = rd_take(&r, rd_u16be(&r));
	return rd_done(&r);
}

static size_t sample_write(uint8_t *at, size_t size, enum err *e)
{
	struct wr w = wr_over(at, size);

	wr_u8(&w, 0xa1);
	wr_u16be(&w, 0xb1b2);
	wr_u16le(&w, 0xc1c2);
	wr_u32be(&w, 0xd1d2d3d4);
	wr_u32le(&w, 0xe1e2e3e4);
	wr_uvar32(&w, UINT32_MAX);
	wr_u64be(&w, 0x0102030405060708);
	wr_u64le(&w, 0xf1f2f3f4f5f6f7f8);
	wr_uvar64(&w, UINT64_MAX);
	wr_svar32(&w, INT32_MIN);
	wr_svar64(&w, INT64_MIN);
	uint8_t *hole = wr_hole(&w, 2);
	wr_u16be(&w, 5);
	wr_text(&w, "hello");
	put_u16be(hole, 0x1234);
	*e = w.err;
	return wr_len(&w);
}

START_TEST(reads_what_it_wrote)
{
	uint8_t at[128];
	struct sample s;
	enum err e;
	size_t len = sample_write(at, sizeof at, &e);

	ck_assert_int_eq(e, OK);
	ck_assert_int_eq(sample_read(bytes_of(at, len), &s), OK);
	ck_assert_uint_eq(s.a, 0xa1);
	ck_assert_uint_eq(s.b, 0xb1b2);
	ck_assert_uint_eq(s.c, 0xc1c2);
	ck_assert_uint_eq(s.d, 0xd1d2d3d4);
	ck_assert_uint_eq(s.e, 0xe1e2e3e4);
	ck_assert_uint_eq(s.f, UINT32_MAX);
	ck_assert_uint_eq(s.g, 0x0102030405060708);
	ck_assert_uint_eq(s.h, 0xf1f2f3f4f5f6f7f8);
	ck_assert_uint_eq(s.i, UINT64_MAX);
	ck_assert_int_eq(s.j, INT32_MIN);
	ck_assert_int_eq(s.k, INT64_MIN);
	ck_assert(bytes_equal(s.l, bytes_text("hello")));
	ck_assert_mem_eq(at, "\xa1\xb1\xb2\xc2\xc1\xd1\xd2\xd3\xd4\xe4\xe3\xe2\xe1", 13);
}
END_TEST

/* Neither may touch a byte behind its memory, which is malloc'd to the exact size. */
START_TEST(every_prefix_fails_on_both_sides)
{
	uint8_t at[128];
	struct sample s;
	enum err e;
	size_t len = sample_write(at, sizeof at, &e);

	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1);
		memcpy(exact, at, cut);
		ck_assert_int_eq(sample_read(bytes_of(exact, cut), &s), ERR_MALFORMED);
		(void)sample_write(exact, cut, &e);
		ck_assert_int_eq(e, ERR_TOOBIG);
		free(exact);
	}
	at[len] = 0;
	ck_assert_int_eq(sample_read(bytes_of(at, len + 1), &s), ERR_MALFORMED);
}
END_TEST

START_TEST(the_first_failure_sticks)
{
	struct rd r = rd_over(B(1, 2, 3));

	ck_assert_uint_eq(rd_u16be(&r), 0x0102);
	ck_assert_uint_eq(rd_u32be(&r), 0);
	ck_assert_uint_eq(rd_u8(&r), 0); /* though a byte was left */
	rd_fail(&r, ERR_PROTOCOL);
	ck_assert_int_eq(rd_done(&r), ERR_MALFORMED);
	r = rd_over(B(1));
	rd_fail(&r, ERR_PROTOCOL);
	ck_assert_int_eq(rd_done(&r), ERR_PROTOCOL);
	r = rd_over(bytes_of(NULL, 0));
	ck_assert_int_eq(rd_done(&r), OK);
}
END_TEST

START_TEST(varints_are_bounded)
{
	static const struct {
		struct bytes in;
		bool ok32, ok64;
	} cases[] = {
		{{(const uint8_t *)"\x80\x00", 2}, true, true}, /* not the shortest: allowed */
		{{(const uint8_t *)"\xff\xff\xff\xff\x0f", 5}, true, true},
		{{(const uint8_t *)"\xff\xff\xff\xff\x1f", 5}, false, true},
		{{(const uint8_t *)"\xff\xff\xff\xff\x8f\x00", 6}, false, true},
		{{(const uint8_t *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10}, false, true},
		{{(const uint8_t *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}, false, false},
		{{(const uint8_t *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11}, false,
			false},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct rd r = rd_over(cases[i].in);
		(void)rd_uvar32(&r);
		ck_assert_int_eq(rd_done(&r) == OK, cases[i].ok32);
		r = rd_over(cases[i].in);
		(void)rd_uvar64(&r);
		ck_assert_int_eq(rd_done(&r) == OK, cases[i].ok64);
	}
}
END_TEST

START_TEST(varints_have_the_size_told)
{
	for (int shift = 0; shift < 64; shift++)
		for (int less = 0; less < 2; less++) {
			uint64_t v = ((uint64_t)1 << shift) - (uint64_t)less;
			uint8_t at[10];
			struct wr w = wr_over(at, sizeof at);
			wr_uvar64(&w, v);
			ck_assert_int_eq(w.err, OK);
			ck_assert_uint_eq(wr_len(&w), uvar64_size(v));
			struct rd r = rd_over(bytes_of(at, wr_len(&w)));
			ck_assert_uint_eq(rd_uvar64(&r), v);
			ck_assert_int_eq(rd_done(&r), OK);
			r = rd_over(bytes_of(at, wr_len(&w)));
			ck_assert_int_eq(zigzag64(rd_svar64(&r)) == v, 1);
			if (v <= UINT32_MAX)
				ck_assert_uint_eq(uvar32_size((uint32_t)v), uvar64_size(v));
		}
}
END_TEST

START_TEST(a_count_is_bounded_by_the_bytes_behind_it)
{
	struct rd r = rd_over(B(0xff, 0xff, 0xff, 0xff, 1, 2));

	ck_assert_uint_eq(rd_count(&r, rd_u32be(&r), 2), 0);
	ck_assert_int_eq(rd_done(&r), ERR_MALFORMED);
	r = rd_over(B(3, 1, 2, 3, 4, 5, 6));
	ck_assert_uint_eq(rd_count(&r, rd_u8(&r), 2), 3);
	ck_assert_int_eq(r.err, OK);
	ck_assert_uint_eq(rd_count(&r, 4, 2), 0);
	ck_assert_int_eq(r.err, ERR_MALFORMED);
}
END_TEST

START_TEST(bytes_behind_their_length)
{
	static const uint8_t in[] = {0, 2, 'a', 'b', 0, 0, 0, 1, 'c', 1, 0, 2, 'd', 'e'};
	struct rd r = rd_over(bytes_of(in, sizeof in));
	ck_assert(bytes_equal(rd_bytes16(&r), bytes_text("ab")));
	ck_assert(bytes_equal(rd_bytes32(&r), bytes_text("c")));
	ck_assert(rd_bool(&r));
	ck_assert(!rd_bool(&r));
	ck_assert_int_eq(r.err, OK);
	struct rd bad = r;
	ck_assert(!rd_bool(&bad)); /* 2 */
	ck_assert_int_eq(bad.err, ERR_MALFORMED);
	ck_assert_uint_eq(rd_rest(&r).len, 3);
	ck_assert_int_eq(rd_done(&r), OK);
	for (size_t n = 0; n < 4; n++) {
		r = rd_over(bytes_of(in, n));
		ck_assert_uint_eq(rd_bytes16(&r).len, 0);
		ck_assert_int_eq(r.err, ERR_MALFORMED);
	}
	for (size_t n = 4; n < 9; n++) {
		r = rd_over(bytes_of(in + 4, n - 4));
		ck_assert_uint_eq(rd_bytes32(&r).len, 0);
		ck_assert_int_eq(r.err, ERR_MALFORMED);
	}
}
END_TEST

START_TEST(bytes_have_an_order)
{
	ck_assert_int_eq(bytes_compare(bytes_text("ab"), bytes_text("ab")), 0);
	ck_assert_int_lt(bytes_compare(bytes_text("ab"), bytes_text("abc")), 0);
	ck_assert_int_gt(bytes_compare(bytes_text("b"), bytes_text("abc")), 0);
	ck_assert_int_lt(bytes_compare(bytes_of(NULL, 0), bytes_text("a")), 0);
	ck_assert_int_lt(bytes_compare(B(0x7f), B(0x80)), 0);
}
END_TEST

START_TEST(utf8_is_strict)
{
	static const char *const good[] = {"", "a", "plain ascii that is long", "\xc2\x80",
		"\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
		"\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "eightbyt\xc3\xa9"};
	static const char *const bad[] = {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41",
		"\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "eightbyt\xc3", "\xe2\x82\x41", "1234567\xff"};

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		ck_assert_msg(bytes_utf8(bytes_text(good[i])), "good %zu", i);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert_msg(!bytes_utf8(bytes_text(bad[i])), "bad %zu", i);
	ck_assert(bytes_utf8(B(0)));
}
END_TEST

START_TEST(puts_and_gets_agree)
{
	uint8_t at[8];

	put_u64be(at, 0x1122334455667788);
	ck_assert_uint_eq(get_u64be(at), 0x1122334455667788);
	ck_assert_uint_eq(get_u32be(at), 0x11223344);
	ck_assert_uint_eq(get_u16be(at), 0x1122);
	put_u16be(NULL, 1); /* a hole that a failed writer gave */
	put_u32be(NULL, 1);
	put_u64be(NULL, 1);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("wire");
	tcase_add_test(tc, reads_what_it_wrote);
	tcase_add_test(tc, every_prefix_fails_on_both_sides);
	tcase_add_test(tc, the_first_failure_sticks);
	tcase_add_test(tc, varints_are_bounded);
	tcase_add_test(tc, varints_have_the_size_told);
	tcase_add_test(tc, a_count_is_bounded_by_the_bytes_behind_it);
	tcase_add_test(tc, bytes_behind_their_length);
	tcase_add_test(tc, bytes_have_an_order);
	tcase_add_test(tc, utf8_is_strict);
	tcase_add_test(tc, puts_and_gets_agree);
	Suite *s = suite_create("wire");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
