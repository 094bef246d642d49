#include "server/broker/scram.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/mem.h"

static struct bytes B(const char *text) {
	return bytes_text(text);
}

static bool
is(struct bytes b, const char *text)
{
	return bytes_equal(b, B(text));
}

static const struct {
	const char *in, *gs2, *bare, *user, *nonce, *authzid;
} firsts[] = {
	{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "n,,", "n=user,r=rOprNGfwEbeRWgbNEkqO", "user",
		"rOprNGfwEbeRWgbNEkqO", ""},
	{"y,,n=u,r=x", "y,,", "n=u,r=x", "u", "x", ""},
	{"n,a=other,n=u,r=x", "n,a=other,", "n=u,r=x", "u", "x", "other"},
	{"n,,n=a=2Cb=3Dc,r=x", "n,,", "n=a=2Cb=3Dc,r=x", "a,b=c", "x", ""},
	{"n,,n==2C,r=x", "n,,", "n==2C,r=x", ",", "x", ""},
	{"n,a==3D,n=u,r=x", "n,a==3D,", "n=u,r=x", "u", "x", "="},
	{"n,,n=u,r=x,tokenauth=true", "n,,", "n=u,r=x,tokenauth=true", "u", "x", ""},
	{"n,,n=u,r=x,a=b=c,M=d", "n,,", "n=u,r=x,a=b=c,M=d", "u", "x", ""},
	{"n,,n=\xc3\xa4 b,r=!~", "n,,", "n=\xc3\xa4 b,r=!~", "\xc3\xa4 b", "!~", ""},
};

START_TEST(reads_first_messages)
{
	struct scram_first f;
	ck_assert_int_eq(scram_first_read(B(firsts[_i].in), &f), OK);
	ck_assert(is(f.gs2, firsts[_i].gs2));
	ck_assert(is(f.bare, firsts[_i].bare));
	ck_assert(is(f.user, firsts[_i].user));
	ck_assert(is(f.nonce, firsts[_i].nonce));
	ck_assert(is(f.authzid, firsts[_i].authzid));
}
END_TEST

static const char *const bad_firsts[] = {
	"",
	"n",
	"n,",
	"n,,",
	"n,,n=u",
	"n,,n=u,",
	"n,,n=u,r=",
	"n,,n=,r=x",
	"n,,n=u,r=x,",
	"n,,n=u,r=x,,a=b",
	"n,,n=u,r=x,a=",
	"n,,n=u,r=x,a",
	"n,,n=u,r=x,=b",
	"n,,n=u,r=x,1=b",
	"n,,n=u,r=x,m=b",
	"n,,m=b,n=u,r=x",        /* must be understood, and is not */
	"p=tls-unique,,n=u,r=x", /* channel binding */
	"x,,n=u,r=x",
	"nn,,n=u,r=x",
	",,n=u,r=x",
	"n,b=c,n=u,r=x",
	"n,a=,n=u,r=x",
	"n,u,n=u,r=x",
	"n,,r=x,n=u",
	"n,,n=a=b,r=x",
	"n,,n=a=,r=x",
	"n,,n=a=2,r=x",
	"n,,n=a=2c,r=x",
	"n,,n=a=3d,r=x",
	"n,,n=a=2Db,r=x",
	"n,,n=\xff,r=x",
	"n,,n=u,r=a b",
	"n,,n=u,r=\xc3\xa4",
	"n,,n=u,r=\x7f",
};

START_TEST(refuses_bad_first_messages)
{
	struct scram_first f;
	ck_assert_int_eq(scram_first_read(B(bad_firsts[_i]), &f), ERR_MALFORMED);
}
END_TEST

START_TEST(names_and_nonces_have_bounds)
{
	struct scram_first f;
	char text[1100];
	for (int len = USER_NAME_MAX - 1; len <= USER_NAME_MAX + 1; len++) {
		snprintf(text, sizeof text, "n,,n=%0*d,r=x", len, 0);
		ck_assert_int_eq(
			scram_first_read(B(text), &f), len <= USER_NAME_MAX ? OK : ERR_MALFORMED);
		snprintf(text, sizeof text, "n,a=%0*d,n=u,r=x", len, 0);
		ck_assert_int_eq(
			scram_first_read(B(text), &f), len <= USER_NAME_MAX ? OK : ERR_MALFORMED);
	}
	for (int len = SCRAM_NONCE_MAX; len <= SCRAM_NONCE_MAX + 1; len++) {
		snprintf(text, sizeof text, "n,,n=u,r=%0*d", len, 0);
		ck_assert_int_eq(
			scram_first_read(B(text), &f), len <= SCRAM_NONCE_MAX ? OK : ERR_MALFORMED);
	}
	ck_assert_int_eq(scram_first_read(bytes_of("n,,n=a\0b,r=x", 12), &f), ERR_MALFORMED);
	ck_assert_int_eq(scram_first_read(bytes_of("n,,n=a,r=x\0", 11), &f), ERR_MALFORMED);
}
END_TEST

START_TEST(reads_final_messages)
{
	struct scram_final f;
	ck_assert_int_eq(scram_final_read(B("c=biws,r=abc,p=AAAA"), &f), OK);
	ck_assert(is(f.binding, "biws"));
	ck_assert(is(f.nonce, "abc"));
	ck_assert(is(f.proof, "AAAA"));
	ck_assert(is(f.without_proof, "c=biws,r=abc"));
	ck_assert_int_eq(scram_final_read(B("c=eSws,r=a,x=y,word=z,p=AA=="), &f), OK);
	ck_assert(is(f.proof, "AA=="));
	ck_assert(is(f.without_proof, "c=eSws,r=a,x=y,word=z"));
	ck_assert_int_eq(scram_final_read(B("c=,r=a,p="), &f), OK); /* refused by what follows */
	ck_assert(f.proof.len == 0);
}
END_TEST

static const char *const bad_finals[] = {"", "c=biws", "c=biws,", "c=biws,r=", "c=biws,r=a",
	"c=biws,r=a,", "c=biws,r=a,x=y", "c=biws,r=a,p=AAAA,", "c=biws,r=a,p=AAAA,x=y",
	"c=biws,r=a,,p=AAAA", "c=biws,r=a,m=x,p=AAAA", "r=a,c=biws,p=AAAA", "c=biws,p=AAAA,r=a",
	"c=biws,r=a b,p=AAAA", "biws,r=a,p=AAAA"};

START_TEST(refuses_bad_final_messages)
{
	struct scram_final f;
	ck_assert_int_eq(scram_final_read(B(bad_finals[_i]), &f), ERR_MALFORMED);
}
END_TEST

START_TEST(binding_says_the_header_again)
{
	ck_assert(scram_binding_ok(B("biws"), B("n,,")));
	ck_assert(scram_binding_ok(B("eSws"), B("y,,")));
	ck_assert(scram_binding_ok(B("bixhPWIs"), B("n,a=b,")));
	ck_assert(!scram_binding_ok(B("eSws"), B("n,,"))); /* a downgrade on the way */
	ck_assert(!scram_binding_ok(B("biw="), B("n,,")));
	ck_assert(!scram_binding_ok(B(""), B("n,,")));
}
END_TEST

/* Memory of the exact size: reading past it is found. */
START_TEST(every_prefix_is_read_within_bounds)
{
	static const char first[] = "n,a=b=2C,n=user=3D,r=abc,x=y";
	static const char final[] = "c=biws,r=abc,x=y,p=AAAA";
	struct scram_first a;
	struct scram_final b;
	for (size_t len = 0; len < sizeof first; len++) {
		char *copy = mem_new(len + 1);
		char *exact = mem_try(len);
		memcpy(copy, first, len);
		if (len > 0)
			memcpy(exact, first, len);
		enum err e = scram_first_read(bytes_of(exact, len), &a);
		ck_assert(e == ERR_MALFORMED || strstr(copy, "r=a") != NULL);
		mem_free(exact);
		mem_free(copy);
	}
	for (size_t len = 0; len < sizeof final; len++) {
		char *exact = mem_try(len);
		if (len > 0)
			memcpy(exact, final, len);
		enum err e = scram_final_read(bytes_of(exact, len), &b);
		ck_assert(e == ERR_MALFORMED || len >= sizeof "c=biws,r=abc,x=y,p=" - 1);
		mem_free(exact);
	}
}
END_TEST

START_TEST(writes_the_servers_first)
{
	struct buf b;
	buf_init(&b, 100);
	scram_server_first(B("abc"), B("salt"), 4096, &b);
	ck_assert(is(buf_bytes(&b), "r=abc,s=c2FsdA==,i=4096"));
	buf_fini(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("scram");
	TCase *tc = tcase_create("scram");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, reads_first_messages, 0, (int)(sizeof firsts / sizeof firsts[0]));
	tcase_add_loop_test(
		tc, refuses_bad_first_messages, 0, (int)(sizeof bad_firsts / sizeof bad_firsts[0]));
	tcase_add_test(tc, names_and_nonces_have_bounds);
	tcase_add_test(tc, reads_final_messages);
	tcase_add_loop_test(
		tc, refuses_bad_final_messages, 0, (int)(sizeof bad_finals / sizeof bad_finals[0]));
	tcase_add_test(tc, binding_says_the_header_again);
	tcase_add_test(tc, every_prefix_is_read_within_bounds);
	tcase_add_test(tc, writes_the_servers_first);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
