#include "tests/unit/server/net/fixture.h"

#define PLAIN "listen.mqtt=127.0.0.1:0"

START_TEST(high_water_stops_and_low_water_resumes)
{
	enum { TOTAL = 60000000 };
	uint8_t size[4];
	START(PLAIN);
	int fd = dial();
	put_u32be(size, TOTAL);
	put_frame(fd, 'b', size, 4);
	for (int i = 0; i < 30000 && atomic_load(&fix.highs) == 0; i++)
		nap(1);
	nap(50);
	/* Nobody reads: what is produced is bounded by the marks and the socket's buffers. */
	int stops = atomic_load(&fix.highs);
	ck_assert_int_ge(stops, 1);
	ck_assert_int_le(stops, 20);
	uint8_t *all = malloc(TOTAL);
	ck_assert(get(fd, all, TOTAL));
	for (size_t i = 0; i < TOTAL; i += 10000)
		ck_assert_int_eq(all[i], (int)((TOTAL - i) / 10000 & 127));
	free(all);
	ck_assert_int_ge(fix.drained, 10);
	put_frame(fd, 'e', "after", 5);
	expect_frame(fd, "eafter");
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(slices_and_bytes_keep_their_order)
{
	char big[30000];
	START(PLAIN);
	int fd = dial();
	for (int round = 0; round < 300; round++) {
		memset(big, 'a' + round % 26, sizeof big);
		put_frame(fd, round % 3 ? 's' : 'e', big, (size_t)(round * 100));
		if (round % 5 == 0)
			put_frame(fd, 'e', "", 0);
	}
	for (int round = 0; round < 300; round++) {
		size_t len;
		char *got = get_frame(fd, &len);
		ck_assert_ptr_nonnull(got);
		ck_assert_uint_eq(len, (size_t)(round * 100 + 1));
		ck_assert_int_eq(got[0], round % 3 ? 's' : 'e');
		size_t same =
			1; /* an assertion for each byte would take minutes beside other work */
		while (same < len && got[same] == 'a' + round % 26)
			same++;
		ck_assert_uint_eq(same, len);
		free(got);
		if (round % 5 == 0)
			expect_frame(fd, "e");
	}
	close(fd);
	fixture_stop();
}
END_TEST

/* Not what is in the socket, which for who reads slowly is long the same. */
START_TEST(knows_what_the_peer_has_taken)
{
	static char big[30000];
	size_t len;
	START(PLAIN);
	int fd = dial();
	put_frame(fd, 's', big, sizeof big);
	free(get_frame(fd, &len));
	put_frame(fd, 't', "", 0); /* acknowledges, too */
	expect_frame(fd, "30005");
	put_frame(fd, 't', "", 0);
	expect_frame(fd, "30014");
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(output_over_the_bound_closes)
{
	uint8_t size[4];
	START(PLAIN, "conn.out_high=64MiB", "conn.out_max=64KiB");
	int fd = dial();
	put_u32be(size, 30000000);
	put_frame(fd, 'b', size, 4);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_TOOBIG);
	close(fd);
	fixture_stop();
}
END_TEST

static atomic_int orders_obeyed;

static void fail_soon(void *arg)
{
	mem_fail_at((int)(intptr_t)arg);
	atomic_fetch_add(&orders_obeyed, 1);
}

/* Both loops; they have heard of it when this returns. */
static void fail_both(int at)
{
	atomic_store(&orders_obeyed, 0);
	for (int i = 0; i < 2; i++)
		loop_call(loops_at(fix.loops, i), fail_soon, (void *)(intptr_t)at);
	ck_assert(reaches(&orders_obeyed, 2));
}

/* The n-th allocation of each loop fails, while connections are made, long frames come in and
 * slices go out: the connection may be closed, the server goes on. */
START_TEST(survives_failed_allocations)
{
	char *big = malloc(50000), byte;
	memset(big, 'x', 50000);
	START(PLAIN);
	/* The loops' heaps of timers, which may not fail, are there before. */
	int early[2] = {dial(), dial()}; /* one on each loop */
	for (int i = 0; i < 2; i++)
		put_frame(early[i], 'd', "", 0);
	for (int i = 0; i < 2; i++) {
		expect_frame(early[i], "late");
		close(early[i]);
	}
	fail_both(_i);
	for (int i = 0; i < 4; i++) {
		int fd = dial();
		send(fd,
			"\0\0\xc3\x51"
			"e",
			5, MSG_NOSIGNAL);
		nap(2);
		send(fd, big, 50000, MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		while (recv(fd, &byte, 1, MSG_WAITALL) > 0)
			;
		close(fd);
	}
	fail_both(-1);
	int fd = dial();
	put_frame(fd, 'e', "alive", 5);
	expect_frame(fd, "ealive");
	close(fd);
	free(big);
	fixture_stop();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("conn_out");
	tcase_add_test(tc, high_water_stops_and_low_water_resumes);
	tcase_add_test(tc, slices_and_bytes_keep_their_order);
	tcase_add_test(tc, knows_what_the_peer_has_taken);
	tcase_add_test(tc, output_over_the_bound_closes);
	tcase_add_loop_test(tc, survives_failed_allocations, 0, 14);
	return run_tests(tc);
}
