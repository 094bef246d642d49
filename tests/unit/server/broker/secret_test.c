#include "server/broker/secret.h"
#include <check.h>
#include <stdlib.h>
#include "server/base/mem.h"

static struct bytes decode(struct buf *b, const char *text)
{
	buf_init(b, 4096);
	ck_assert_int_eq(base64_read(bytes_text(text), b), OK);
	return buf_bytes(b);
}

/* RFC 7677 section 3; for SHA-512 the same exchange, computed by Python's hashlib. */
#define NONCE "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
static const char salt_text[] = "W22ZaJ0SNY7soEsUEjb6gQ==";
static const char auth_message[] = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" NONCE
				   ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" NONCE;
static const struct {
	enum secret_kind kind;
	const char *proof, *signature;
} vectors[] = {
	{SECRET_SCRAM_256, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	{SECRET_SCRAM_512,
		"gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTx"
		"wnYPJQ==",
		"ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2r"
		"R7N7Zw=="},
};

START_TEST(follows_the_rfc)
{
	struct buf salt, proof, signature;
	uint8_t salted[SECRET_HASH_MAX], stored[SECRET_HASH_MAX], server[SECRET_HASH_MAX];
	uint8_t sign[SECRET_HASH_MAX], bad[SECRET_HASH_MAX];
	enum secret_kind kind = vectors[_i].kind;
	size_t len = secret_hash_bytes(kind);
	secret_salted(kind, bytes_text("pencil"), decode(&salt, salt_text), 4096, salted);
	secret_keys(kind, salted, stored, server);
	struct secret s = {.kind = kind,
		.stored_key = bytes_of(stored, len),
		.server_key = bytes_of(server, len)};
	struct bytes p = decode(&proof, vectors[_i].proof);
	ck_assert(secret_proof_ok(&s, bytes_text(auth_message), p));
	secret_server_signature(&s, bytes_text(auth_message), sign);
	ck_assert(bytes_equal(decode(&signature, vectors[_i].signature), bytes_of(sign, len)));
	for (size_t i = 0; i < len; i++) {
		memcpy(bad, p.at, len);
		bad[i] ^= 1;
		ck_assert(!secret_proof_ok(&s, bytes_text(auth_message), bytes_of(bad, len)));
	}
	for (size_t i = 0; i < len; i++)
		ck_assert(!secret_proof_ok(&s, bytes_text(auth_message), bytes_of(p.at, i)));
	ck_assert(!secret_proof_ok(&s, bytes_text("x"), p));
	buf_fini(&salt);
	buf_fini(&proof);
	buf_fini(&signature);
}
END_TEST

static struct user_doc user_with(const struct secrets *s, int only)
{
	struct user_doc u = {.name = bytes_text("u")};
	for (int i = 0; i < s->count; i++)
		if (only == 0 || (int)s->of[i].kind == only)
			u.secrets[u.secret_count++] = s->of[i];
	return u;
}

START_TEST(knows_the_password_by_each_kind)
{
	struct secrets s, again;
	ck_assert_int_eq(secrets_make(bytes_text("open sesame"), &s), OK);
	ck_assert_int_eq(s.count, SECRET_KINDS);
	for (int only = 0; only <= SECRET_KINDS; only++) {
		struct user_doc u = user_with(&s, only);
		ck_assert_int_eq(u.secret_count, only == 0 ? SECRET_KINDS : 1);
		ck_assert(secret_check(&u, bytes_text("open sesame")));
		ck_assert(!secret_check(&u, bytes_text("open sesamE")));
		ck_assert(!secret_check(&u, bytes_text("open sesame ")));
		ck_assert(!secret_check(&u, bytes_text("")));
		ck_assert(!secret_check(&u, bytes_of("open sesame\0x", 13)));
	}
	struct user_doc none = {.name = bytes_text("u")};
	ck_assert(!secret_check(&none, bytes_text("open sesame")));
	ck_assert_int_eq(secrets_make(bytes_text("open sesame"), &again), OK);
	for (int i = 0; i < SECRET_KINDS; i++) /* salted: no two are alike */
		ck_assert(!bytes_equal(i == 0 ? s.of[i].crypt : s.of[i].stored_key,
			i == 0 ? again.of[i].crypt : again.of[i].stored_key));
	secrets_fini(&s);
	secrets_fini(&again);
}
END_TEST

START_TEST(refuses_what_is_no_password)
{
	struct secrets s;
	char *big = mem_new(1026);
	memset(big, 'a', 1025);
	ck_assert_int_eq(secrets_make(bytes_text(""), &s), ERR_INVALID);
	ck_assert_int_eq(secrets_make(bytes_of("a\0b", 3), &s), ERR_INVALID);
	ck_assert_int_eq(secrets_make(bytes_of(big, 1025), &s), ERR_INVALID);
	ck_assert_int_eq(secrets_make(bytes_of(big, 1024), &s), OK);
	struct user_doc u = user_with(&s, SECRET_CRYPT);
	ck_assert(secret_check(&u, bytes_of(big, 1024)));
	ck_assert(!secret_check(&u, bytes_of(big, 1023)));
	ck_assert(!secret_check(&u, bytes_of(big, 1025)));
	secrets_fini(&s);
	mem_free(big);
}
END_TEST

/* Nothing of a broken document passes: '*' is crypt's own word for failure. */
START_TEST(no_password_fits_a_broken_hash)
{
	static const char *const broken[] = {"", "*0", "*1", "$y$", "$y$j7T$", "$9$x$y", "pencil"};
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		struct user_doc u = {.secret_count = 1,
			.secrets = {{.kind = SECRET_CRYPT, .crypt = bytes_text(broken[i])}}};
		ck_assert(!secret_check(&u, bytes_text("pencil")));
		ck_assert(!secret_check(&u, bytes_text("*0")));
	}
}
END_TEST

START_TEST(survives_failed_memory)
{
	struct secrets s;
	enum err e = ERR_NOMEM;
	int i = 0;
	for (; e == ERR_NOMEM && i < 10; i++) {
		mem_fail_at(i);
		e = secrets_make(bytes_text("a"), &s);
		mem_fail_at(-1);
	}
	ck_assert_int_eq(e, OK);
	ck_assert_int_gt(i, 2);
	struct user_doc u = user_with(&s, 0);
	mem_fail_at(0);
	ck_assert(!secret_check(&u, bytes_text("a"))); /* rather refused than let in */
	mem_fail_at(-1);
	secrets_fini(&s);
	secret_check_nobody(bytes_text("a"));
}
END_TEST

static const struct {
	const char *text;
	int len; /* -1: refused */
} base64s[] = {
	{"", 0},
	{"AA==", 1},
	{"AAA=", 2},
	{"AAAA", 3},
	{"AAAAAA==", 4},
	{"A", -1},
	{"AA", -1},
	{"AA=", -1},
	{"AA===", -1},
	{"AB==", -1},
	{"AAB=", -1},
	{"A A=", -1},
	{"AAAA\n", -1},
	{"AA==AA==", -1},
	{"=AAA", -1},
	{"AA-_", -1},
	{"AA*A", -1},
};

START_TEST(reads_base64_strictly)
{
	struct buf b;
	buf_init(&b, 64);
	buf_add_u8(&b, 7); /* what is there before stays */
	enum err e = base64_read(bytes_text(base64s[_i].text), &b);
	ck_assert_int_eq(e, base64s[_i].len < 0 ? ERR_MALFORMED : OK);
	ck_assert_int_eq((int)buf_len(&b), 1 + (base64s[_i].len < 0 ? 0 : base64s[_i].len));
	buf_fini(&b);
}
END_TEST

START_TEST(base64_comes_back)
{
	uint8_t raw[64];
	for (size_t len = 0; len < sizeof raw; len++) {
		struct buf text, back;
		buf_init(&text, 256);
		buf_init(&back, 256);
		secret_random(raw, len);
		base64_write(bytes_of(raw, len), &text);
		ck_assert_int_eq(base64_read(buf_bytes(&text), &back), OK);
		ck_assert(bytes_equal(buf_bytes(&back), bytes_of(raw, len)));
		buf_fini(&text);
		buf_fini(&back);
	}
}
END_TEST

START_TEST(compares_and_wipes)
{
	char a[] = "abc";
	ck_assert(secret_equal(bytes_text("abc"), bytes_text("abc")));
	ck_assert(!secret_equal(bytes_text("abc"), bytes_text("abd")));
	ck_assert(!secret_equal(bytes_text("abc"), bytes_text("ab")));
	ck_assert(secret_equal(bytes_of(NULL, 0), bytes_of(NULL, 0)));
	secret_wipe(a, 3);
	ck_assert_int_eq(a[0] | a[1] | a[2], 0);
	secret_wipe(NULL, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("secret");
	TCase *tc = tcase_create("secret");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, follows_the_rfc, 0, (int)(sizeof vectors / sizeof vectors[0]));
	tcase_add_test(tc, knows_the_password_by_each_kind);
	tcase_add_test(tc, refuses_what_is_no_password);
	tcase_add_test(tc, no_password_fits_a_broken_hash);
	tcase_add_test(tc, survives_failed_memory);
	tcase_add_loop_test(
		tc, reads_base64_strictly, 0, (int)(sizeof base64s / sizeof base64s[0]));
	tcase_add_test(tc, base64_comes_back);
	tcase_add_test(tc, compares_and_wipes);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
