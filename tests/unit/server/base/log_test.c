#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"

static int64_t now_us = 1000000;
static FILE *captured;
static int stderr_kept;

static int64_t fake_us(void)
{
	return now_us;
}

static void capture(void)
{
	clock_replace(fake_us, fake_us);
	captured = tmpfile();
	stderr_kept = dup(STDERR_FILENO);
	ck_assert_int_ge(dup2(fileno(captured), STDERR_FILENO), 0);
}

/* What was logged since capture(). */
static const char *logged(void)
{
	static char text[65536];
	size_t len;

	ck_assert_int_ge(dup2(stderr_kept, STDERR_FILENO), 0);
	rewind(captured);
	len = fread(text, 1, sizeof text - 1, captured);
	text[len] = 0;
	fclose(captured);
	close(stderr_kept);
	return text;
}

static void noisy(int i)
{
	LOG(LOG_WARN, AREA_NET, "noise", "i=%d", i);
}

static int count_of(const char *text, const char *word)
{
	int n = 0;

	for (; (text = strstr(text, word)) != NULL; text++)
		n++;
	return n;
}

START_TEST(a_line_has_its_form)
{
	capture();
	LOG(LOG_WARN, AREA_CLUSTER, "peer_lost", "node=%u err=\"%s\"", 3, "timed out");
	log_line(LOG_INFO, AREA_MQTT, "bare", "%s", "");
	ck_assert_str_eq(logged(),
		"1970-01-01T00:00:01.000Z warn cluster peer_lost node=3 err=\"timed out\"\n"
		"1970-01-01T00:00:01.000Z info mqtt bare\n");
}
END_TEST

START_TEST(json_says_the_same)
{
	log_setup(LOG_INFO, true);
	capture();
	LOG(LOG_WARN, AREA_CLUSTER, "lost",
		"node=%d err=\"a \\\"b\\\" c\" x=1.5 y=007 z= w=a\\x20b v=-3", 3);
	log_line(LOG_INFO, AREA_MQTT, "bare", "%s", "");
	ck_assert_str_eq(logged(),
		"{\"time\":\"1970-01-01T00:00:01.000Z\",\"level\":\"warn\",\"area\":\"cluster\","
		"\"event\":\"lost\",\"node\":3,\"err\":\"a \\\"b\\\" c\",\"x\":1.5,\"y\":\"007\","
		"\"z\":\"\",\"w\":\"a\\\\x20b\",\"v\":-3}\n"
		"{\"time\":\"1970-01-01T00:00:01.000Z\",\"level\":\"info\",\"area\":\"mqtt\","
		"\"event\":\"bare\"}\n");
}
END_TEST

START_TEST(a_site_is_limited_and_says_so)
{
	const char *text;

	capture();
	for (int i = 0; i < 51; i++)
		noisy(i);
	now_us += 9999000;
	noisy(51);
	now_us += 1000;
	noisy(52);
	noisy(53);
	now_us += 10000000;
	noisy(54); /* nothing was held back before this one */
	text = logged();
	ck_assert_int_eq(count_of(text, " noise i="), 13);
	ck_assert_int_eq(count_of(text, "suppressed="), 1);
	ck_assert_ptr_nonnull(strstr(text, "noise suppressed=42\n"));
	ck_assert_ptr_nonnull(strstr(text, "i=9\n"));
	ck_assert_ptr_null(strstr(text, "i=10\n"));
}
END_TEST

START_TEST(levels_are_kept)
{
	const char *text;

	log_setup(LOG_WARN, false);
	ck_assert(!log_on(LOG_INFO));
	ck_assert(log_on(LOG_ERROR));
	capture();
	LOG(LOG_INFO, AREA_MAIN, "quiet", "a=%d", 1);
	LOG(LOG_ERROR, AREA_MAIN, "loud", "a=%d", 1);
	text = logged();
	ck_assert_ptr_null(strstr(text, "quiet"));
	ck_assert_ptr_nonnull(strstr(text, "loud"));
}
END_TEST

START_TEST(peer_text_is_harmless)
{
	char big[300];

	ck_assert_str_eq(log_text(bytes_of("a\n\"\\ =\x1b\xff\0z", 10)).text,
		"a\\x0a\\x22\\x5c\\x20\\x3d\\x1b\\xff\\x00z");
	memset(big, 'x', sizeof big);
	ck_assert_uint_eq(strlen(log_text(bytes_of(big, 128)).text), 128);
	ck_assert_uint_eq(strlen(log_text(bytes_of(big, 129)).text), 131);
	memset(big, 1, sizeof big);
	ck_assert_uint_eq(strlen(log_text(bytes_of(big, sizeof big)).text), 131);
	ck_assert_str_eq(log_text(bytes_of(NULL, 0)).text, "");
}
END_TEST

START_TEST(a_long_line_is_cut_but_whole)
{
	char big[5000];
	const char *text;
	size_t len;

	memset(big, '"', sizeof big);
	big[sizeof big - 1] = 0;
	log_setup(LOG_INFO, _i);
	capture();
	log_line(LOG_INFO, AREA_MAIN, "big", "a=\"%.300s b=%s\nc=1 d=%s", "x", big, big);
	text = logged();
	len = strlen(text);
	ck_assert_uint_gt(len, 100);
	ck_assert_uint_le(len, 2048);
	ck_assert_int_eq(count_of(text, "\n"), 1);
	ck_assert_int_eq(text[len - 1], '\n');
	if (_i)
		ck_assert_int_eq(text[len - 2], '}');
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("log");
	tcase_add_test(tc, a_line_has_its_form);
	tcase_add_test(tc, json_says_the_same);
	tcase_add_test(tc, a_site_is_limited_and_says_so);
	tcase_add_test(tc, levels_are_kept);
	tcase_add_test(tc, peer_text_is_harmless);
	tcase_add_loop_test(tc, a_long_line_is_cut_but_whole, 0, 2);
	Suite *s = suite_create("log");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
