#include "tests/unit/server/net/fixture.h"

#define PLAIN "listen.mqtt=127.0.0.1:0"

START_TEST(echoes_on_both_loops)
{
	enum { CLIENTS = 200 };
	int fds[CLIENTS];
	START(PLAIN);
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial();
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CLIENTS; i++)
			put_frame(fds[i], i & 1 ? 'e' : 's', "hello", 5);
		for (int i = 0; i < CLIENTS; i++)
			expect_frame(fds[i], i & 1 ? "ehello" : "shello");
	}
	ck_assert_int_eq(net_conn_count(fix.net), CLIENTS);
	ck_assert_int_eq(fix.loop_seen, 3);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	ck_assert(reaches(&fix.closed, CLIENTS));
	ck_assert_int_eq(fix.why, ERR_CLOSED);
	fixture_stop();
}
END_TEST

START_TEST(names_the_peer)
{
	char text[64];
	struct sockaddr_in sa;
	socklen_t len = sizeof sa;
	START(PLAIN);
	int fd = dial();
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(sa.sin_port));
	put_frame(fd, 'n', "", 0);
	expect_frame(fd, text);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(close_delivers_what_is_queued)
{
	char text[] = "c.", big[70000];
	memset(big, 'x', sizeof big);
	text[1] = 0;
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 'c', "", 0);
	put(fd, big, sizeof big); /* unread input must not turn the close into a reset */
	expect_frame(fd, text);
	expect_end(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_DENIED);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(close_waits_for_a_slow_reader)
{
	uint8_t size[4];
	START(PLAIN, "conn.out_high=64MiB", "conn.linger_ms=60s");
	int fd = dial();
	put_u32be(size, 20000000);
	put_frame(fd, 'b', size, 4);
	put_frame(fd, 'c', "end", 3);
	nap(50);
	char *all = malloc(20000000);
	ck_assert(get(fd, all, 20000000));
	ck_assert_int_eq(all[0], 2000 & 127);
	free(all);
	expect_frame(fd, "cend");
	expect_end(fd);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(close_gives_up_on_a_stuck_reader)
{
	uint8_t size[4];
	START(PLAIN, "conn.out_high=64MiB", "conn.linger_ms=100");
	int fd = dial();
	put_u32be(size, 20000000);
	put_frame(fd, 'b', size, 4);
	put_frame(fd, 'c', "", 0);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert(conns_reach(0));
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(error_of_input_closes_after_its_answer)
{
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 'r', "no", 2);
	expect_frame(fd, "rno");
	expect_end(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_PROTOCOL);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(half_close_gets_its_answers)
{
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 'e', "last", 4);
	shutdown(fd, SHUT_WR);
	expect_frame(fd, "elast");
	expect_end(fd);
	close(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_CLOSED);
	fixture_stop();
}
END_TEST

START_TEST(reset_is_not_an_orderly_end)
{
	struct linger hard = {.l_onoff = 1};
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 'e', "x", 1);
	expect_frame(fd, "ex");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	close(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_IO);
	fixture_stop();
}
END_TEST

START_TEST(deadline_fires_once)
{
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 'd', "", 0);
	expect_frame(fd, "late");
	expect_end(fd);
	ck_assert_int_eq(fix.timeouts, 1);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_TIMEOUT);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(switches_its_adapter)
{
	char text[7] = "";
	START(PLAIN);
	int fd = dial();
	/* The new adapter gets what came in one piece with the request. */
	put(fd, "\0\0\0\1uabc", 8);
	expect_frame(fd, "u");
	put(fd, "def", 3);
	ck_assert(get(fd, text, 6));
	ck_assert_str_eq(text, "ABCDEF");
	close(fd);
	ck_assert(reaches(&fix.closed, 1));
	fixture_stop();
}
END_TEST

START_TEST(drain_says_goodbye)
{
	START(PLAIN);
	int a = dial(), b = dial();
	put_frame(a, 'e', "x", 1);
	put_frame(b, 'e', "x", 1);
	expect_frame(a, "ex");
	expect_frame(b, "ex");
	net_drain(fix.net, 2000);
	expect_frame(a, "bye");
	expect_frame(b, "bye");
	expect_end(a);
	expect_end(b);
	ck_assert_int_eq(fix.stopped, 2);
	ck_assert_int_eq(fix.why, ERR_UNAVAILABLE);
	close(a);
	close(b);
	fixture_stop();
}
END_TEST

START_TEST(drain_cuts_those_who_do_not_read)
{
	uint8_t size[4];
	START(PLAIN, "conn.out_high=64MiB", "conn.linger_ms=60s");
	int fd = dial();
	put_u32be(size, 20000000);
	put_frame(fd, 'b', size, 4);
	nap(30);
	net_drain(fix.net, 50);
	ck_assert_int_eq(net_conn_count(fix.net), 0);
	close(fd);
	fixture_stop();
}
END_TEST

/* Input behind the move, output before and after it, again and again; from both sides' view it is
 * one stream. */
START_TEST(moves_between_loops)
{
	static char big[100000];
	START("listen.mqtt=127.0.0.1:0");
	int fd = dial();
	memset(big, 'x', sizeof big - 1);
	for (int round = 0; round < 20; round++) {
		put_frame(fd, 'e', "before", 6);
		put_frame(fd, 'm', NULL, 0);
		put_frame(fd, 'e', "after", 5);
		put_frame(fd, 'e', big, sizeof big - 1);
		expect_frame(fd, "ebefore");
		expect_frame(fd, "moved");
		expect_frame(fd, "eafter");
		size_t len;
		char *got = get_frame(fd, &len);
		ck_assert_uint_eq(len, sizeof big);
		free(got);
	}
	ck_assert_int_eq(fix.loop_seen, 3);
	ck_assert_int_eq(net_conn_count(fix.net), 1);
	put_frame(fd, 'm', NULL, 0);
	put_frame(fd, 'c', NULL, 0);
	expect_frame(fd, "moved");
	expect_frame(fd, "c");
	expect_end(fd);
	close(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.opened, 1);
	fixture_stop();
}
END_TEST

/* The peer goes, or the server stops, while connections are under way between loops. */
/* Looked at seldom, a connection still is one: asked, paused, moved, switched back, closed by
 * either side and by the end of the server. */
START_TEST(input_may_wait)
{
	START("listen.mqtt=127.0.0.1:0");
	int fd[3];
	for (int i = 0; i < 3; i++) {
		fd[i] = dial();
		put_frame(fd[i], 'w', "x", 1);
		expect_frame(fd[i], "wx");
	}
	for (int i = 0; i < 30; i++)
		put_frame(fd[i % 3], 'e', "a", 1);
	for (int i = 0; i < 30; i++)
		expect_frame(fd[i % 3], "ea");
	put_frame(fd[0], 'p', NULL, 0);
	put_frame(fd[0], 'e', "b", 1);
	expect_frame(fd[0], "p");
	expect_frame(fd[0], "eb");
	put_frame(fd[0], 'e', "c", 1);
	expect_frame(fd[0], "ec");
	put_frame(fd[0], 'm', NULL, 0);
	put_frame(fd[0], 'e', "d", 1);
	expect_frame(fd[0], "moved");
	expect_frame(fd[0], "ed");
	put_frame(fd[0], 'w', "x", 1);
	expect_frame(fd[0], "wx");
	put_frame(fd[0], 'w', NULL, 0);
	expect_frame(fd[0], "w");
	put_frame(fd[0], 'e', "e", 1);
	expect_frame(fd[0], "ee");
	put_frame(fd[1], 'c', NULL, 0);
	expect_frame(fd[1], "c");
	expect_end(fd[1]);
	close(fd[2]);
	close(fd[1]);
	ck_assert(reaches(&fix.closed, 2));
	put_frame(fd[0], 'w', "x", 1);
	expect_frame(fd[0], "wx");
	fixture_stop();
	close(fd[0]);
}
END_TEST

START_TEST(ends_while_moving)
{
	int fds[16];
	START("listen.mqtt=127.0.0.1:0", "conn.linger_ms=100");
	for (int i = 0; i < 16; i++) {
		fds[i] = dial();
		for (int k = 0; k < 50; k++)
			put_frame(fds[i], 'm', NULL, 0);
		if (i % 2 == 0)
			close(fds[i]);
	}
	fixture_stop();
	for (int i = 1; i < 16; i += 2)
		close(fds[i]);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("conn");
	tcase_add_test(tc, echoes_on_both_loops);
	tcase_add_test(tc, names_the_peer);
	tcase_add_test(tc, close_delivers_what_is_queued);
	tcase_add_test(tc, close_waits_for_a_slow_reader);
	tcase_add_test(tc, close_gives_up_on_a_stuck_reader);
	tcase_add_test(tc, error_of_input_closes_after_its_answer);
	tcase_add_test(tc, half_close_gets_its_answers);
	tcase_add_test(tc, reset_is_not_an_orderly_end);
	tcase_add_test(tc, deadline_fires_once);
	tcase_add_test(tc, switches_its_adapter);
	tcase_add_test(tc, drain_says_goodbye);
	tcase_add_test(tc, drain_cuts_those_who_do_not_read);
	tcase_add_test(tc, moves_between_loops);
	tcase_add_test(tc, input_may_wait);
	tcase_add_test(tc, ends_while_moving);
	return run_tests(tc);
}
