#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "tests/unit/server/net/fixture.h"

START_TEST(refuses_a_port_in_use)
{
	char setting[64];
	START("listen.mqtt=127.0.0.1:0");
	struct fixture first = fix;
	snprintf(setting, sizeof setting, "listen.mqtt=127.0.0.1:%d", fixture_port(false));
	ck_assert_int_eq(fixture_open((const char *const[]){setting, NULL}), ERR_EXISTS);
	ck_assert_ptr_nonnull(strstr(fix_why, "listen.mqtt"));
	ck_assert_ptr_nonnull(strstr(fix_why, strchr(setting, '=') + 1));
	fixture_free();
	fix = first;
	fixture_stop();
}
END_TEST

START_TEST(listens_on_several_addresses)
{
	int port[2];
	START("listen.mqtt=127.0.0.1:0,127.0.0.2:0", "advertise.mqtt=broker.example:1883");
	const char *text = net_addresses(fix.net, "mqtt", false, false);
	ck_assert_int_eq(sscanf(text, "127.0.0.1:%d,127.0.0.2:%d", &port[0], &port[1]), 2);
	ck_assert_int_ne(port[0], port[1]);
	ck_assert_str_eq(net_addresses(fix.net, "mqtt", false, true), "broker.example:1883");
	ck_assert_str_eq(net_addresses(fix.net, "mqtt", true, false), "");
	ck_assert_str_eq(net_addresses(fix.net, "nothing", false, false), "");
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in sa = {.sin_family = AF_INET,
			.sin_port = htons((uint16_t)port[i]),
			.sin_addr.s_addr = htonl(0x7f000001u + (unsigned)i)};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
		put_frame(fd, 'e', "x", 1);
		expect_frame(fd, "ex");
		close(fd);
	}
	fixture_stop();
}
END_TEST

START_TEST(listens_on_ipv6)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	char own[80], text[64];
	socklen_t len = sizeof sa;
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof sa) != 0) {
		close(fd);
		return; /* this machine has no IPv6 */
	}
	close(fd);
	START("listen.mqtt=[::1]:0");
	sa.sin6_port = htons((uint16_t)fixture_port(false));
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	put_frame(fd, 'n', "", 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	inet_ntop(AF_INET6, &sa.sin6_addr, text, sizeof text);
	snprintf(own, sizeof own, "[%s]:%d", text, ntohs(sa.sin6_port));
	expect_frame(fd, own);
	close(fd);
	fixture_stop();
}
END_TEST

/* The server's end of a connection of ours. */
static int other_end(int fd)
{
	struct sockaddr_in own, peer;
	socklen_t len = sizeof own;
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&own, &len), 0);
	for (int i = 3; i < 1000; i++) {
		len = sizeof peer;
		if (i != fd && getpeername(i, (struct sockaddr *)&peer, &len) == 0 &&
			peer.sin_port == own.sin_port)
			return i;
	}
	ck_abort_msg("not there");
	return -1;
}

/* Client doors bound what the kernel holds; the kernel counts its own needs in, so it says twice.
 */
START_TEST(bounds_what_the_kernel_holds)
{
	static const char *const settings[] = {
		"conn.receive_buffer=20KiB", "conn.receive_buffer=0"};
	int bytes = 0;
	socklen_t len = sizeof bytes;
	START("listen.mqtt=127.0.0.1:0", settings[_i]);
	int fd = dial();
	put_frame(fd, 'e', "x", 1);
	expect_frame(fd, "ex");
	ck_assert_int_eq(getsockopt(other_end(fd), SOL_SOCKET, SO_RCVBUF, &bytes, &len), 0);
	if (_i == 0)
		ck_assert_int_eq(bytes, 2 * 20 * 1024);
	else
		ck_assert_int_ge(bytes, 65536);
	close(fd);
	fixture_stop();
}
END_TEST

/* The kernel spreads by hash; the handing over makes it even. */
START_TEST(loops_get_even_shares)
{
	int fds[20];
	START("listen.mqtt=127.0.0.1:0");
	for (int round = 0; round < 10; round++) {
		atomic_store(&fix.loop_seen, 0);
		for (int i = 0; i < 2; i++) {
			fds[round * 2 + i] = dial();
			put_frame(fds[round * 2 + i], 'e', "", 0);
			expect_frame(fds[round * 2 + i], "e");
		}
		ck_assert_int_eq(fix.loop_seen, 3);
	}
	for (int i = 0; i < 20; i++)
		close(fds[i]);
	fixture_stop();
}
END_TEST

START_TEST(refuses_over_the_limit)
{
	START("listen.mqtt=127.0.0.1:0", "conn.max=3");
	int fds[4];
	char byte;
	for (int i = 0; i < 3; i++) {
		fds[i] = dial();
		put_frame(fds[i], 'e', "", 0);
		expect_frame(fds[i], "e");
	}
	fds[3] = dial();
	ck_assert_int_le(recv(fds[3], &byte, 1, 0), 0);
	ck_assert(conns_reach(3));
	close(fds[0]);
	ck_assert(conns_reach(2));
	close(fds[3]);
	fds[3] = dial();
	put_frame(fds[3], 'e', "", 0);
	expect_frame(fds[3], "e");
	for (int i = 1; i < 4; i++)
		close(fds[i]);
	fixture_stop();
}
END_TEST

START_TEST(accept_rate_makes_wait_but_not_fail)
{
	enum { CLIENTS = 60 };
	int fds[CLIENTS];
	struct timespec before, after;
	START("listen.mqtt=127.0.0.1:0", "conn.accept_rate=20");
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial();
		put_frame(fds[i], 'e', "", 0);
	}
	for (int i = 0; i < CLIENTS; i++)
		expect_frame(fds[i], "e");
	clock_gettime(CLOCK_MONOTONIC, &after);
	/* 20 on each loop are saved up, the other 20 wait half a second or more. */
	ck_assert_int_ge(
		(after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000,
		400);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	fixture_stop();
}
END_TEST

/* Without a free descriptor accepting pauses and goes on by itself. */
START_TEST(survives_out_of_files)
{
	int spare[4096], count = 0;
	START("listen.mqtt=127.0.0.1:0");
	int fd = dial();
	put_frame(fd, 'e', "", 0);
	expect_frame(fd, "e");
	int client = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)fixture_port(false)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	/* net_open raised the limit; a lower one makes running out quick. */
	struct rlimit few = {200, 0}, all;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &all), 0);
	few.rlim_max = all.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (count < 4096 && (spare[count] = fcntl(fd, F_DUPFD, 0)) >= 0)
		count++;
	ck_assert_int_lt(count, 200);
	ck_assert_int_eq(connect(client, (const struct sockaddr *)&sa, sizeof sa), 0);
	nap(80);
	ck_assert_int_eq(fix.opened, 1);
	put_frame(fd, 'e', "", 0);
	expect_frame(fd, "e");
	while (count > 0)
		close(spare[--count]);
	put_frame(client, 'e', "", 0);
	expect_frame(client, "e");
	close(client);
	close(fd);
	fixture_stop();
}
END_TEST

static char local_dir[64], local_path[96];

static void local_make(void)
{
	snprintf(local_dir, sizeof local_dir, "/tmp/sluice-net-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(local_dir));
	snprintf(local_path, sizeof local_path, "%s/x.sock", local_dir);
}

static int local_dial(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	memcpy(sa.sun_path, local_path, strlen(local_path));
	if (connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0)
		return fd;
	close(fd);
	return -1;
}

static enum err local_open(const char *path)
{
	return net_open_local(fix.net, "mqtt", path, fix_why, sizeof fix_why);
}

/* With its listener on TCP or without. */
START_TEST(a_socket_in_the_file_system)
{
	static const char *const settings[] = {"listen.mqtt=127.0.0.1:0", NULL};
	struct stat st;
	local_make();
	ck_assert_int_eq(fixture_open(_i ? settings : settings + 1), OK);
	mode_t mask = umask(0);
	ck_assert_msg(local_open(local_path) == OK, "%s", fix_why);
	umask(mask);
	ck_assert_int_eq(lstat(local_path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	net_listen(fix.net);
	loops_run(fix.loops);
	for (int i = 0; i < 6; i++) {
		int fd = local_dial();
		ck_assert_int_ge(fd, 0);
		put_frame(fd, 'n', "", 0);
		char who[20];
		snprintf(who, sizeof who, "uid:%u", (unsigned)getuid());
		expect_frame(fd, who);
		put_frame(fd, 'l', "", 0);
		expect_frame(fd, "yes");
		close(fd);
	}
	if (_i) {
		int fd = dial();
		put_frame(fd, 'l', "", 0);
		expect_frame(fd, "no");
		close(fd);
	}
	fixture_stop();
	ck_assert_int_ne(lstat(local_path, &st), 0);
	ck_assert_int_eq(rmdir(local_dir), 0);
}
END_TEST

/* Of a process that was killed; of one that runs; what is no socket. */
START_TEST(replaces_only_what_is_left)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stat st;
	char longest[200];
	local_make();
	memcpy(sa.sun_path, local_path, strlen(local_path));
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(fixture_open((const char *const[]){NULL}), OK);
	ck_assert_int_eq(local_open(local_path), ERR_EXISTS);
	ck_assert_ptr_nonnull(strstr(fix_why, "answers"));
	close(fd);
	ck_assert_msg(local_open(local_path) == OK, "%s", fix_why);
	net_free(fix.net);
	ck_assert_int_ne(lstat(local_path, &st), 0);
	fixture_free();
	fd = open(local_path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	ck_assert_int_eq(fixture_open((const char *const[]){NULL}), OK);
	ck_assert_int_eq(local_open(local_path), ERR_EXISTS);
	ck_assert_int_eq(unlink(local_path), 0);
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = 0;
	ck_assert_int_eq(local_open(longest), ERR_TOOBIG);
	ck_assert_int_eq(local_open("/nonexistent/x.sock"), ERR_INVALID);
	ck_assert_int_eq(
		net_open_local(fix.net, "http", local_path, fix_why, sizeof fix_why), ERR_INVALID);
	/* Another's in the same place is not ours to remove. */
	ck_assert_int_eq(local_open(local_path), OK);
	ck_assert_int_eq(unlink(local_path), 0);
	fd = open(local_path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	net_free(fix.net);
	ck_assert_int_eq(lstat(local_path, &st), 0);
	ck_assert_int_eq(unlink(local_path), 0);
	ck_assert_int_eq(rmdir(local_dir), 0);
	fixture_free();
}
END_TEST

static int dial_peer(void)
{
	struct timeval limit = {.tv_sec = 30};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), port;
	const char *text = net_addresses(fix.net, "peer", false, false);
	ck_assert_int_eq(sscanf(text, "127.0.0.1:%d", &port), 1);
	sa.sin_port = htons((uint16_t)port);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}

/* Clients that never begin keep other clients of their door waiting, and nobody else. */
START_TEST(who_does_not_begin_holds_up_his_own_door)
{
	enum { CLIENTS = 8 };
	static const char *const settings[] = {"listen.mqtt=127.0.0.1:0", "listen.peer=127.0.0.1:0",
		"proxy_protocol.mqtt=true", "conn.handshakes_max=1", "conn.handshake_ms=60s", NULL};
	int idle[CLIENTS];
	local_make();
	ck_assert_msg(fixture_open(settings) == OK, "%s", fix_why);
	ck_assert_msg(local_open(local_path) == OK, "%s", fix_why);
	net_listen(fix.net);
	loops_run(fix.loops);
	for (int i = 0; i < CLIENTS; i++)
		idle[i] = dial();
	nap(50);
	for (int i = 0; i < CLIENTS; i++) {
		int fd = i % 2 ? local_dial() : dial_peer();
		put_frame(fd, 'e', "", 0);
		expect_frame(fd, "e");
		close(fd);
	}
	for (int i = 0; i < CLIENTS; i++)
		close(idle[i]);
	int fd = dial();
	put(fd, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16); /* PROXY protocol 2: LOCAL */
	put_frame(fd, 'e', "", 0);
	expect_frame(fd, "e");
	close(fd);
	ck_assert(conns_reach(0));
	fixture_stop();
	ck_assert_int_eq(rmdir(local_dir), 0);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("listen");
	tcase_add_test(tc, refuses_a_port_in_use);
	tcase_add_test(tc, listens_on_several_addresses);
	tcase_add_test(tc, listens_on_ipv6);
	tcase_add_loop_test(tc, bounds_what_the_kernel_holds, 0, 2);
	tcase_add_test(tc, loops_get_even_shares);
	tcase_add_test(tc, refuses_over_the_limit);
	tcase_add_test(tc, accept_rate_makes_wait_but_not_fail);
	tcase_add_test(tc, survives_out_of_files);
	tcase_add_test(tc, who_does_not_begin_holds_up_his_own_door);
	tcase_add_loop_test(tc, a_socket_in_the_file_system, 0, 2);
	tcase_add_test(tc, replaces_only_what_is_left);
	return run_tests(tc);
}
