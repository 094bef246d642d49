/* Options, paths and human forms alone; exit statuses against a server of a few lines. */
#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

static struct options *o;

static void setup(void)
{
	o = calloc(1, sizeof *o);
	unsetenv("SLUICE_SERVER");
	unsetenv("SLUICE_OUTPUT");
	unsetenv("SLUICE_USER");
}
static void teardown(void)
{
	client_end();
	free(o);
}

/* text: words with one space between. */
static enum exit_code read_line(const char *text)
{
	static char line[512];
	static char *words[64];
	int count = 0;
	memset(o, 0, sizeof *o);
	snprintf(line, sizeof line, "sluice %s", text);
	for (char *at = line; at != NULL && *at && count < 63;) {
		char *space = strchr(at, ' ');
		words[count++] = at;
		if (space != NULL)
			*space++ = 0;
		at = space;
	}
	words[count] = NULL;
	return options_read(o, count, words);
}

START_TEST(flags_may_stand_anywhere)
{
	static const char *const lines[] = {
		"stream create orders --partitions 3 --server http://x -o json",
		"--server http://x -o json stream --partitions=3 create orders",
		"stream -ojson create --server=http://x orders --partitions 3"};
	for (size_t i = 0; i < 3; i++) {
		ck_assert_int_eq(read_line(lines[i]), EXIT_OK);
		ck_assert_ptr_eq(o->command->run, stream_create);
		ck_assert_int_eq(o->arg_count, 1);
		ck_assert_str_eq(o->args[0], "orders");
		ck_assert_str_eq(o->value[FLAG_partitions], "3");
		ck_assert_str_eq(o->value[FLAG_server], "http://x");
		ck_assert_int_eq(o->output, OUT_JSON);
	}
}
END_TEST

START_TEST(refuses_what_it_does_not_know)
{
	static const char *const lines[] = {"nonsense", "stream", "stream nonsense",
		"stream list x", "stream create", "stream list --bogus",
		"stream list --partitions 3", "stream create a --partitions", "stream list -o xml",
		"stream list --help=x", "stream create a --set novalue",
		"stream list --timeout soon", "stream list --timeout 0", "pub a b c",
		"a b c d e f g h i"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		ck_assert_msg(read_line(lines[i]) == EXIT_USAGE, "%s", lines[i]);
}
END_TEST

START_TEST(reads_values)
{
	int64_t n = 7;
	ck_assert_int_eq(read_line("sub s -n 12 --follow --timeout 2s"), EXIT_OK);
	ck_assert_int_eq(flag_int(o, FLAG_count, &n), EXIT_OK);
	ck_assert_int_eq(n, 12);
	ck_assert_int_eq(o->timeout_ms, 2000);
	ck_assert(o->given[FLAG_follow]);
	ck_assert_int_eq(read_line("sub s -n many"), EXIT_OK);
	ck_assert_int_eq(flag_int(o, FLAG_count, &n), EXIT_USAGE);
	ck_assert_int_eq(read_line("stream alter s --set a=b --set c="), EXIT_OK);
	ck_assert_int_eq(o->set_count, 2);
	ck_assert_str_eq(o->sets[1], "c=");
	ck_assert_int_eq(read_line("pub t -"), EXIT_OK); /* stdin, no flag */
	ck_assert_str_eq(o->args[1], "-");
}
END_TEST

START_TEST(words_may_begin_with_a_dash)
{
	ck_assert_int_eq(read_line("pub t -5.5 --retain"), EXIT_OK);
	ck_assert_str_eq(o->args[1], "-5.5");
	ck_assert(o->given[FLAG_retain]);
	ck_assert_int_eq(read_line("pub --retain -- -t --qos"), EXIT_OK);
	ck_assert_int_eq(o->arg_count, 2);
	ck_assert_str_eq(o->args[0], "-t");
	ck_assert_str_eq(o->args[1], "--qos");
	ck_assert(o->given[FLAG_retain] && !o->given[FLAG_qos]);
	ck_assert_int_eq(read_line("pub t -- --"), EXIT_OK);
	ck_assert_int_eq(o->arg_count, 2);
	ck_assert_str_eq(o->args[1], "--");
	ck_assert_int_eq(read_line("pub t -x"), EXIT_USAGE);
}
END_TEST

START_TEST(bench_passes_all_on)
{
	ck_assert_int_eq(read_line("--server http://x bench mqtt --qos 1 --whatever"), EXIT_OK);
	ck_assert_ptr_eq(o->command->run, bench);
	ck_assert_int_eq(o->raw_count, 4);
	ck_assert_str_eq(o->raw[3], "--whatever");
}
END_TEST

START_TEST(every_command_is_whole)
{
	for (const struct command *c = commands; c->noun != NULL; c++) {
		ck_assert_ptr_nonnull(c->run);
		ck_assert_int_le(c->args_min, c->args_max);
		ck_assert(strlen(c->help) > 5);
		for (const struct command *d = commands; d != c; d++)
			ck_assert(strcmp(c->noun, d->noun) != 0 ||
				(c->verb != NULL && strcmp(c->verb, d->verb) != 0));
	}
}
END_TEST

START_TEST(encodes_paths)
{
	static const char *const cases[][2] = {{"a/b c", "/topics/a/b%20c"},
		{"a?b#c%", "/topics/a%3Fb%23c%25"}, {"\xc3\xa4+", "/topics/%C3%A4%2B"},
		{"/x//", "/topics//x//"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *path = topic_path(cases[i][0]);
		ck_assert_str_eq(path, cases[i][1]);
		free(path);
	}
	char *path = path_of("/streams/", "a/b");
	ck_assert_str_eq(path, "/streams/a%2Fb");
	free(path);
}
END_TEST

START_TEST(human_forms)
{
	static const struct {
		int64_t n;
		const char *bytes, *msec;
	} cases[] = {{-1, "unlimited", "unlimited"}, {0, "0 B", "0ms"}, {1023, "1023 B", "1023ms"},
		{1536, "1.5 KiB", "1536ms"}, {1 << 20, "1.0 MiB", "17m"},
		{604800000, "577 MiB", "7d"}, {3600000, "3.4 MiB", "1h"}, {90000, "88 KiB", "90s"},
		{INT64_MAX, "8192 PiB", "106751991167d"}};
	char text[32];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		text_of_bytes(cases[i].n, text);
		ck_assert_str_eq(text, cases[i].bytes);
		text_of_msec(cases[i].n, text);
		ck_assert_str_eq(text, cases[i].msec);
	}
}
END_TEST

/* ---- a server that always says the same, and keeps what it was asked */

static struct {
	int fd, port, status;
	useconds_t after_us; /* the answer comes then */
	char asked[4096];
} server;

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		int fd = accept(server.fd, NULL, NULL);
		char answer[256];
		if (fd < 0)
			return NULL;
		ssize_t n = recv(fd, server.asked, sizeof server.asked - 1, 0);
		server.asked[n < 0 ? 0 : n] = 0;
		if (server.status == 0) { /* hangs */
			usleep(500000);
			close(fd);
			continue;
		}
		usleep(server.after_us);
		int len = snprintf(answer, sizeof answer,
			"HTTP/1.1 %d X\r\nContent-Length: 42\r\nConnection: close\r\n\r\n"
			"{\"error\":{\"code\":\"x\",\"message\":\"because\"}}",
			server.status);
		n = send(fd, answer, (size_t)len, MSG_NOSIGNAL);
		close(fd);
	}
}

/* Connects, but nobody answers. */
static void server_listen(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(server.fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(server.fd, 10), 0);
	ck_assert_int_eq(getsockname(server.fd, (struct sockaddr *)&a, &len), 0);
	server.port = ntohs(a.sin_port);
}

static void server_start(void)
{
	pthread_t thread;
	server_listen();
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
	pthread_detach(thread);
}

static void read_line_to_server(const char *text)
{
	char line[400];
	snprintf(line, sizeof line, "%s --server http://127.0.0.1:%d", text, server.port);
	ck_assert_int_eq(read_line(line), EXIT_OK);
}

static enum exit_code run_line(const char *text)
{
	read_line_to_server(text);
	return o->command->run(o);
}

START_TEST(statuses_become_exit_statuses)
{
	static const int cases[][2] = {{400, EXIT_FAILED}, {401, EXIT_DENIED}, {403, EXIT_DENIED},
		{404, EXIT_NOT_FOUND}, {409, EXIT_CONFLICT}, {413, EXIT_FAILED}, {500, EXIT_FAILED},
		{503, EXIT_UNREACHABLE}, {504, EXIT_UNREACHABLE}, {507, EXIT_FAILED}};
	server_start();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		server.status = cases[i][0];
		ck_assert_int_eq(run_line("stream list"), cases[i][1]);
		ck_assert_int_eq(run_line("stream delete s --yes"), cases[i][1]);
	}
}
END_TEST

START_TEST(asks_for_the_right_thing)
{
	server_start();
	server.status = 500;
	ck_assert_int_eq(run_line("stream delete a/b --yes --dry-run"), EXIT_FAILED);
	ck_assert(strncmp(server.asked, "DELETE /api/v1/streams/a%2Fb?dry_run=true ", 42) == 0);
	ck_assert_int_eq(run_line("pub t/1 hello --retain --qos 0 --header a=b"), EXIT_FAILED);
	ck_assert(strncmp(server.asked, "POST /topics/t/1?retain=true&qos=0 ", 35) == 0);
	ck_assert_ptr_nonnull(strstr(server.asked, "X-Prop-a: b\r\n"));
	ck_assert_ptr_nonnull(strstr(server.asked, "\r\n\r\nhello"));
	ck_assert_ptr_null(strstr(server.asked, "Content-Type"));
	ck_assert_int_eq(run_line("pub t hello --header empty= --header a=b"), EXIT_FAILED);
	ck_assert_ptr_nonnull(strstr(server.asked, "X-Prop-empty:\r\n"));
	ck_assert_ptr_nonnull(strstr(server.asked, "X-Prop-a: b\r\n"));
	ck_assert_int_eq(run_line("pub --stream s --key k --partition 2 x"), EXIT_FAILED);
	ck_assert(strncmp(server.asked, "POST /streams/s/records?key=k&partition=2 ", 42) == 0);
	ck_assert_int_eq(run_line("stream list --user u:p"), EXIT_FAILED);
	ck_assert_ptr_nonnull(strstr(server.asked, "Authorization: Basic dTpw\r\n"));
	ck_assert_int_eq(
		run_line("stream create s --retention 7d --set a=b --set c= --partitions 3"),
		EXIT_FAILED);
	ck_assert_ptr_nonnull(strstr(server.asked,
		"{\"settings\":{\"retention.ms\":\"7d\",\"a\":\"b\",\"c\":null},"
		"\"partitions\":3,\"name\":\"s\"}"));
}
END_TEST

START_TEST(a_number_too_large_is_no_node)
{
	static const char *const names[] = {
		"4294967297", "2147483648", "99999999999999999999", "0", "1x"};
	char line[100];
	server_start();
	server.status = 500;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		snprintf(line, sizeof line, "cluster remove %s --yes", names[i]);
		ck_assert_int_eq(run_line(line), EXIT_FAILED);
		ck_assert_msg(strncmp(server.asked, "GET /api/v1/cluster ", 20) == 0, "%s: %.60s",
			names[i], server.asked);
	}
	ck_assert_int_eq(run_line("cluster remove 2147483647 --yes"), EXIT_FAILED);
	ck_assert(strncmp(server.asked, "DELETE /api/v1/cluster/nodes/2147483647 ", 40) == 0);
}
END_TEST

START_TEST(publishes_nothing_when_stdin_cannot_be_read)
{
	server_start();
	server.status = 200;
	ck_assert_ptr_nonnull(freopen("/", "r", stdin)); /* a folder */
	ck_assert_int_eq(run_line("pub t --retain"), EXIT_FAILED);
	ck_assert_str_eq(server.asked, "");
}
END_TEST

START_TEST(nobody_there)
{
	server_start();
	server.status = 0;
	ck_assert_int_eq(run_line("stream list --timeout 100ms"), EXIT_UNREACHABLE);
	server.port = 1;
	ck_assert_int_eq(run_line("stream list"), EXIT_UNREACHABLE);
	ck_assert_int_eq(read_line("stream list --server ftp://127.0.0.1"), EXIT_OK);
	ck_assert_int_eq(stream_list(o), EXIT_USAGE);
}
END_TEST

/* ---- long polls */

/* Asks again as often as *arg says, after 1.2 s of our own each time. */
static char *ask_again(void *arg, const cJSON *answer)
{
	int *times = arg;
	ck_assert_ptr_nonnull(answer);
	if ((*times)-- == 0)
		return NULL;
	usleep(1200000);
	return mem_text("/x", 2);
}

static enum exit_code poll_two(const char *line, int times)
{
	int left[2] = {times, times};
	struct poll_one at[2];
	bool enough = false;
	for (int i = 0; i < 2; i++)
		at[i] = (struct poll_one){mem_text("/x", 2), &left[i], ask_again};
	read_line_to_server(line);
	return client_poll(o, at, 2, &enough);
}

START_TEST(a_poll_that_nobody_answers_ends)
{
	server_listen();
	ck_assert_int_eq(poll_two("sub s --timeout 100ms", 0), EXIT_UNREACHABLE);
}
END_TEST

START_TEST(a_followed_poll_may_wait)
{
	server_start();
	server.status = 200;
	server.after_us = 500000;
	ck_assert_int_eq(poll_two("sub s --follow --timeout 100ms", 0), EXIT_OK);
}
END_TEST

/* A pager that is not read on must not look like a server that is silent. */
START_TEST(our_own_time_is_not_the_servers)
{
	server_start();
	server.status = 200;
	server.after_us = 50000; /* one after the other */
	ck_assert_int_eq(poll_two("sub s --timeout 1s", 1), EXIT_OK);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sluice");
	TCase *tc = tcase_create("sluice");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, flags_may_stand_anywhere);
	tcase_add_test(tc, refuses_what_it_does_not_know);
	tcase_add_test(tc, reads_values);
	tcase_add_test(tc, words_may_begin_with_a_dash);
	tcase_add_test(tc, bench_passes_all_on);
	tcase_add_test(tc, every_command_is_whole);
	tcase_add_test(tc, encodes_paths);
	tcase_add_test(tc, human_forms);
	tcase_add_test(tc, statuses_become_exit_statuses);
	tcase_add_test(tc, asks_for_the_right_thing);
	tcase_add_test(tc, a_number_too_large_is_no_node);
	tcase_add_test(tc, publishes_nothing_when_stdin_cannot_be_read);
	tcase_add_test(tc, nobody_there);
	tcase_add_test(tc, a_poll_that_nobody_answers_ends);
	tcase_add_test(tc, a_followed_poll_may_wait);
	tcase_add_test(tc, our_own_time_is_not_the_servers);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
