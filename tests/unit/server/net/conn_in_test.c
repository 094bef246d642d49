#include "tests/unit/server/net/fixture.h"

#define PLAIN "listen.mqtt=127.0.0.1:0"

static char *pattern(size_t len)
{
	char *at = malloc(len);
	for (size_t i = 0; i < len; i++)
		at[i] = (char)('a' + (i * 7 + i / 1000) % 26);
	return at;
}

/* The loop index picks the size: around the scratch memory's, the short frame's, and beyond. */
static const size_t sizes[] = {
	0, 1, 100, 16380, 16384, 16400, 40000, 262100, 262144, 262150, 1000000, 9000000};

START_TEST(frames_of_all_sizes)
{
	size_t len = sizes[_i], got_len;
	char *sent = pattern(len);
	START(PLAIN);
	int fd = dial();
	for (int round = 0; round < 2; round++) {
		put_frame(fd, 'e', sent, len);
		put_frame(fd, 'e', "tail", 4);
		char *got = get_frame(fd, &got_len);
		ck_assert_uint_eq(got_len, len + 1);
		ck_assert_int_eq(memcmp(got + 1, sent, len), 0);
		free(got);
		expect_frame(fd, "etail");
	}
	free(sent);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(frames_in_small_pieces)
{
	START(PLAIN);
	int fd = dial();
	char *sent = pattern(20000);
	uint8_t head[5] = {0, 0, 0x4e, 0x21, 'e'};
	size_t got_len;
	for (size_t i = 0; i < 5; i++)
		put(fd, head + i, 1);
	for (size_t i = 0; i < 20000; i += 500) {
		put(fd, sent + i, 500);
		nap(1);
	}
	char *got = get_frame(fd, &got_len);
	ck_assert_uint_eq(got_len, 20001);
	ck_assert_int_eq(memcmp(got + 1, sent, 20000), 0);
	/* conn_need spares the adapter the calls that could do nothing. */
	ck_assert_int_le(fix.inputs, 8);
	free(got);
	free(sent);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(many_frames_in_one_read)
{
	enum { FRAMES = 5000 };
	START(PLAIN);
	int fd = dial();
	char *sent = malloc(FRAMES * 9);
	for (int i = 0; i < FRAMES; i++) {
		uint8_t *at = (uint8_t *)sent + i * 9;
		put_u32be(at, 5);
		at[4] = i % 3 ? 'e' : 's';
		put_u32be(at + 5, (uint32_t)i);
	}
	put(fd, sent, FRAMES * 9);
	char *got = malloc(FRAMES * 9);
	ck_assert(get(fd, got, FRAMES * 9));
	ck_assert_int_eq(memcmp(got, sent, FRAMES * 9), 0);
	ck_assert_int_lt(fix.inputs, 100);
	free(got);
	free(sent);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(pause_holds_input_back)
{
	START(PLAIN);
	int fd = dial();
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	put(fd, "\0\0\0\1p\0\0\0\5elate", 14);
	expect_frame(fd, "p");
	expect_frame(fd, "elate");
	clock_gettime(CLOCK_MONOTONIC, &after);
	int64_t ms = (after.tv_sec - before.tv_sec) * 1000 +
		(after.tv_nsec - before.tv_nsec) / 1000000;
	ck_assert_int_ge(ms, 55); /* it pauses for 60 */
	/* Reading goes on after. */
	put_frame(fd, 'e', "more", 4);
	expect_frame(fd, "emore");
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(frame_over_the_bound_closes)
{
	START(PLAIN, "conn.input_max=64KiB");
	int fd = dial();
	put(fd, "\0\2\0\0e", 5); /* 128 KiB */
	expect_end(fd);
	ck_assert(reaches(&fix.closed, 1));
	ck_assert_int_eq(fix.why, ERR_TOOBIG);
	close(fd);
	fixture_stop();
}
END_TEST

#define V2 "\r\n\r\n\0\r\nQUIT\n"

START_TEST(proxy_header_names_the_client)
{
	static const char v4[] = V2 "\x21\x11\0\x0c\x0a\1\2\3\x0a\0\0\1\x12\x67\7\x5b";
	START(PLAIN, "proxy_protocol.mqtt=on");
	int fd = dial();
	for (size_t i = 0; i < sizeof v4 - 1; i++) { /* byte by byte, then with what follows */
		put(fd, v4 + i, 1);
		if (i % 9 == 0)
			nap(1);
	}
	put_frame(fd, 'n', "", 0);
	expect_frame(fd, "10.1.2.3:4711");
	close(fd);
	static const char v6[] = V2 "\x21\x21\0\x27\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
				    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\x50\7\x5b\4\0\0"
				    "\0\0\0\1n";
	fd = dial();
	put(fd, v6, sizeof v6 - 1);
	expect_frame(fd, "[2001:db8::1]:80");
	close(fd);
	fd = dial();
	put(fd, V2 "\x20\0\0\0\0\0\0\1n", 21);
	size_t len;
	char *own = get_frame(fd, &len);
	ck_assert_int_eq(strncmp(own, "127.0.0.1:", 10), 0);
	free(own);
	close(fd);
	fixture_stop();
}
END_TEST

START_TEST(proxy_header_is_required_in_time)
{
	char byte;
	START(PLAIN, "proxy_protocol.mqtt=on", "conn.handshake_ms=60");
	int fd = dial(); /* which may be over before anything is sent */
	(void)send(fd, "\0\0\0\6ehello", 10, MSG_NOSIGNAL);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
	fd = dial();
	(void)send(fd, V2, 12, MSG_NOSIGNAL);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
	ck_assert_int_eq(fix.opened, 0);
	ck_assert_int_eq(fix.closed, 0);
	fixture_stop();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("conn_in");
	tcase_add_loop_test(tc, frames_of_all_sizes, 0, (int)(sizeof sizes / sizeof *sizes));
	tcase_add_test(tc, frames_in_small_pieces);
	tcase_add_test(tc, many_frames_in_one_read);
	tcase_add_test(tc, pause_holds_input_back);
	tcase_add_test(tc, frame_over_the_bound_closes);
	tcase_add_test(tc, proxy_header_names_the_client);
	tcase_add_test(tc, proxy_header_is_required_in_time);
	return run_tests(tc);
}
