/* The door over real sockets, packet by packet: what is written is given in hex, spaces apart. The
 * client ids and topics are single letters, so that packets can be read by eye. */
#include "tests/unit/protocols/mqtt/door.h"

/* Exchanges */

START_TEST(version_3_1_1)
{
	int a = client4(CONNECT4("61"));
	say(a, "82 06 0001 0001 74 02");
	hear(a, "90 03 0001 02");
	say(a, "30 04 0001 74 78"); /* QoS 0 */
	hear(a, "30 04 0001 74 78");
	say(a, "32 06 0001 74 0007 79"); /* QoS 1 */
	uint8_t got[12];
	ck_assert_uint_eq(hear_bytes(a, got, 12, WAIT_MS), 12); /* PUBACK and PUBLISH, any order */
	bool ack_first = got[0] == 0x40;
	ck_assert_int_eq(memcmp(got + (ack_first ? 0 : 8), "\x40\x02\x00\x07", 4), 0);
	ck_assert_int_eq(memcmp(got + (ack_first ? 4 : 0), "\x32\x06\x00\x01t\x00\x01y", 8), 0);
	say(a, "40 02 0001");
	say(a, "c0 00");
	hear(a, "d0 00");
	say(a, "a2 05 0002 0001 74");
	hear(a, "b0 02 0002");
	say(a, "30 04 0001 74 78");
	silent(a);
	say(a, "e0 00");
	gone(a);
}
END_TEST

START_TEST(version_5)
{
	int a = client5(CONNECT5("61")), b = client5(CONNECT5("62"));
	say(a, "82 09 0001 02 0b 05 0001 74 02"); /* with a subscription id */
	hear(a, "90 04 0001 00 02");
	/* QoS 2 in, with payload format, content type and a user property that come out again */
	say(b, "34 16 0001 74 0009 0f 01 01 03 0001 63 26 0001 6b 0001 76 0b 05 78");
	gone(b); /* a subscription id from a client */
	b = client5(CONNECT5("62"));
	say(b, "34 14 0001 74 0009 0d 01 01 03 0001 63 26 0001 6b 0001 76 78");
	hear(b, "50 02 0009");
	hear(a, "34 16 0001 74 0001 0f 0b 05 01 01 03 0001 63 26 0001 6b 0001 76 78");
	say(b, "62 02 0009");
	hear(b, "70 02 0009");
	say(b, "62 02 0009");
	hear(b, "70 03 0009 92"); /* not known any more */
	say(a, "50 02 0001");
	hear(a, "62 02 0001");
	say(a, "70 02 0001");
	say(a, "82 10 0002 00 0006 2473 2f67 2f74 00 0001 75 00"); /* "$s/g/t" is no share */
	hear(a, "90 05 0002 00 00 00");
	say(a, "82 0f 0003 00 0009 2473686172652f672f74 00");
	gone(a); /* the length does not fit */
	close(b);
}
END_TEST

START_TEST(a_session_goes_on)
{
	int a = client4(CONNECT4_KEPT("61"));
	say(a, "82 06 0001 0001 74 01");
	hear(a, "90 03 0001 01");
	say(a, "e0 00");
	gone(a);
	int b = client4(CONNECT4("62"));
	say(b, "32 06 0001 74 0001 31");
	hear(b, "40 02 0001");
	a = dial();
	say(a, CONNECT4_KEPT("61"));
	hear(a, "20 02 01 00");
	hear(a, "32 06 0001 74 0001 31");
	close(a); /* not acknowledged */
	a = dial();
	say(a, CONNECT4_KEPT("61"));
	hear(a, "20 02 01 00");
	hear(a, "3a 06 0001 74 0001 31");
	say(a, "40 02 0001 c0 00");
	hear(a, "d0 00");
	int again = dial(); /* takes over */
	say(again, CONNECT4_KEPT("61"));
	hear(again, "20 02 01 00");
	gone(a);
	silent(again);
	a = dial(); /* and forgets it */
	say(a, CONNECT4("61"));
	hear(a, "20 02 00 00");
	gone(again);
	close(a);
	close(b);
}
END_TEST

START_TEST(taken_over_says_why)
{
	int a = client5(CONNECT5_KEPT("61"));
	int b = dial();
	say(b, CONNECT5_KEPT("61"));
	hear(a, "e0 01 8e");
	gone(a);
	hear(b, CONNACK5("01"));
	say(b, "e0 07 00 05 11 00000000"); /* the session ends now */
	gone(b);
	b = client5(CONNECT5_KEPT("61"));
	close(b);
}
END_TEST

START_TEST(no_more_than_the_receive_maximum)
{
	int a = client5(CONNECT5("61"));
	/* Four QoS 2 without PUBREL: ours is three. */
	say(a, "34 07 0001 74 0001 00 78 34 07 0001 74 0002 00 78 34 07 0001 74 0003 00 78");
	hear(a, "50 02 0001 50 02 0002 50 02 0003");
	say(a, "34 07 0001 74 0004 00 78");
	hear(a, "e0 01 93");
	gone(a);
	a = client4(CONNECT4("61")); /* 3.1.1 has no such rule */
	for (int i = 1; i <= 9; i++) {
		char hex[40];
		snprintf(hex, sizeof hex, "34 06 0001 74 00%02d 78", i);
		say(a, hex);
		snprintf(hex, sizeof hex, "50 02 00%02d", i);
		hear(a, hex);
	}
	close(a);
}
END_TEST

/* What CONNACK said holds for the connection, whatever the setting is meanwhile. */
START_TEST(keeps_the_receive_maximum_it_told)
{
	int a = client5(CONNECT5("61"));
	mqtt_conf.inflight_max = 1;
	say(a, "34 07 0001 74 0001 00 78 34 07 0001 74 0002 00 78 34 07 0001 74 0003 00 78");
	hear(a, "50 02 0001 50 02 0002 50 02 0003");
	mqtt_conf.inflight_max = 9;
	say(a, "34 07 0001 74 0004 00 78");
	hear(a, "e0 01 93");
	gone(a);
}
END_TEST

START_TEST(limits_of_a_session)
{
	int a = client5(CONNECT5("61"));
	say(a, "82 17 0001 00 0001 61 00 0001 62 00 0001 63 00 0001 64 00 0001 65 00");
	hear(a, "90 08 0001 00 00 00 00 00 97");
	say(a, "82 13 0001 00 0001 64 01 0001 65 01 0001 61 01 0001 62 01"); /* those it has */
	hear(a, "90 07 0001 00 01 97 01 01");
	mqtt_conf.subscription_bytes_max = 1;
	say(a, "82 07 0001 00 0001 61 00");
	hear(a, "90 04 0001 00 00");
	say(a, "a2 0b 0002 00 0001 61 0001 65 0001 7a");
	gone(a); /* the last filter is cut */
	a = client5(CONNECT5("61"));
	say(a, "82 0f 0003 00 0009 2473686172652f672f 00");
	gone(a); /* $share/g/ has no filter */
	a = client5(CONNECT5("61"));
	say(a, "82 10 0003 00 000a 2473686172652f672f74 00");
	hear(a, "90 04 0003 00 9e");
	close(a);
}
END_TEST

static const struct {
	const char *say, *hear;
} refusals[] = {
	{"30 04 0001 74 78", ""},                               /* no CONNECT */
	{"10 0d 0004 4d515455 04 02 0000 0001 61", ""},         /* MQTU */
	{"10 0d 0004 4d515454 06 02 0000 0001 61", "20"},       /* version 6 */
	{"10 0c 0004 4d515454 04 00 0000 0000", "20 02 00 02"}, /* no id, not clean */
	{"10 ff ff ff 7f", ""},                                 /* a CONNECT of 256 MB */
	{CONNECT5("61") CONNECT5("61"), CONNACK5("00") "e0 01 82"},
	{CONNECT5("61") "36 06 0001 74 0001 00", CONNACK5("00") "e0 01 81"}, /* QoS 3 */
	{CONNECT5("61") "30 03 0000 00", CONNACK5("00") "e0 01 82"},         /* no topic */
	{CONNECT5("61") "30 07 0001 74 03 23 0011", CONNACK5("00") "e0 01 94"},
	{CONNECT5("61") "30 06 0000 03 23 0001", CONNACK5("00") "e0 01 82"},
	{CONNECT5("61") "f0 00", CONNACK5("00") "e0 01"},       /* AUTH */
	{CONNECT5("61") "20 02 00 00", CONNACK5("00") "e0 01"}, /* CONNACK to a server */
	{CONNECT5("61") "e0 07 00 05 11 00000001", CONNACK5("00") "e0 01 82"}, /* 0 -> 1 */
	{CONNECT5("61") "30 ff ff 7f", CONNACK5("00") "e0 01 95"},
	{CONNECT4("61") "82 03 0001 00", "20 02 00 00"},
};

START_TEST(refused)
{
	int other = client4(CONNECT4("7a"));
	int fd = dial();
	say(fd, refusals[_i].say);
	hear(fd, refusals[_i].hear);
	uint8_t rest[16];
	ck_assert_uint_lt(hear_bytes(fd, rest, sizeof rest, WAIT_MS), sizeof rest);
	close(fd);
	say(other, "c0 00");
	hear(other, "d0 00");
	close(other);
}
END_TEST

START_TEST(anonymous_may_be_refused)
{
	t.broker_conf.auth_anonymous = 2; /* off */
	int a = dial();
	say(a, CONNECT4("61"));
	hear(a, "20 02 00 05");
	gone(a);
	a = dial();
	say(a, CONNECT5("61"));
	hear(a, "20 03 00 87 00");
	gone(a);
}
END_TEST

static void fail_soon(void *arg)
{
	mem_fail_at((int)(intptr_t)arg);
}

/* Whichever of the door's allocations fails: that connection may end, the next one works. Nothing
 * is stored meanwhile: the log and the rows stop the process when they are out of memory. */
START_TEST(survives_failed_alloc)
{
	for (int n = 0; n < ALLOCS; n++) {
		int fd = dial();
		for (int i = 0; i < 2; i++)
			loop_call(loops_at(t.loops, i), fail_soon, (void *)(intptr_t)n);
		say(fd, CONNECT5("61") "c0 00 c0 00");
		uint8_t got[64];
		hear_bytes(fd, got, 18 + 4, 100);
		close(fd);
		for (int i = 0; i < 2; i++)
			loop_call(loops_at(t.loops, i), fail_soon, (void *)(intptr_t)-1);
	}
	int fd = client4(CONNECT4("61"));
	say(fd, "32 06 0001 74 0001 31");
	hear(fd, "40 02 0001");
	close(fd);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("mqtt");
	tcase_add_checked_fixture(tc, boot, down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, version_3_1_1);
	tcase_add_test(tc, version_5);
	tcase_add_test(tc, a_session_goes_on);
	tcase_add_test(tc, taken_over_says_why);
	tcase_add_test(tc, no_more_than_the_receive_maximum);
	tcase_add_test(tc, keeps_the_receive_maximum_it_told);
	tcase_add_test(tc, limits_of_a_session);
	tcase_add_loop_test(tc, refused, 0, sizeof refusals / sizeof refusals[0]);
	tcase_add_test(tc, anonymous_may_be_refused);
	tcase_add_test(tc, survives_failed_alloc);
	Suite *s = suite_create("mqtt");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
