/* For the tests of this folder: two loops with real sockets on loopback and an adapter whose
 * frames (a 32 bit length, a command letter, bytes) make it do what a test wants to see. */
#ifndef NET_FIXTURE_H
#define NET_FIXTURE_H
#include <check.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/net/net.h"

struct fixture {
	struct conf *conf;
	void *values;
	struct loops *loops;
	struct net *net;
	atomic_int opened, closed, drained, timeouts, stopped, highs, inputs;
	atomic_int why;       /* of the last close */
	atomic_int denied;    /* of all closes, those for ERR_DENIED */
	atomic_int loop_seen; /* a bit per loop that had a connection */
};

struct echo { /* the adapter's state */
	struct loop_timer wake;
	struct conn *conn;
	uint64_t to_produce; /* bytes the 'b' command still owes */
	bool up;
};

static struct fixture fix;
static char fix_why[300];

static inline void echo_wake(struct loop_timer *t)
{
	struct echo *e = list_entry(t, struct echo, wake);
	conn_resume(e->conn);
}

static inline enum err echo_opened(struct conn *c)
{
	struct echo *e = conn_state(c);
	e->conn = c;
	ck_assert(!e->up);
	e->up = true;
	loop_timer_init(&e->wake, conn_loop(c), echo_wake);
	atomic_fetch_add(&fix.opened, 1);
	atomic_fetch_or(&fix.loop_seen, 1 << loop_index(conn_loop(c)));
	ck_assert_ptr_eq(conn_door_arg(c), &fix);
	return OK;
}

static inline void echo_produce(struct conn *c)
{
	struct echo *e = conn_state(c);
	while (e->to_produce > 0 && !conn_over_high(c)) {
		struct slice s;
		size_t n = e->to_produce < 10000 ? (size_t)e->to_produce : 10000;
		struct chunk *k = chunk_try(n);
		ck_assert_ptr_nonnull(k);
		memset(k->data, (int)(e->to_produce / 10000 & 127), n);
		s = (struct slice){k, bytes_of(k->data, n)};
		conn_send_slice(c, s);
		e->to_produce -= n;
	}
	if (e->to_produce > 0)
		atomic_fetch_add(&fix.highs, 1);
}

static inline void echo_drained(struct conn *c)
{
	atomic_fetch_add(&fix.drained, 1);
	echo_produce(c);
}

static inline void reply(struct conn *c, struct bytes b)
{
	struct buf *out = conn_out(c);
	buf_add_u32be(out, (uint32_t)b.len);
	buf_add(out, b);
	conn_wrote(c);
}

static inline void reply_slice(struct conn *c, struct bytes b)
{
	struct slice s;
	ck_assert_int_eq(slice_copy(b, &s), OK);
	buf_add_u32be(conn_out(c), (uint32_t)b.len);
	conn_wrote(c);
	conn_send_slice(c, s);
}

static const struct conn_kind upper_kind;

/* The rest of the input comes by itself. */
static inline void echo_moved(struct conn *c)
{
	struct echo *e = conn_state(c);
	loop_timer_init(&e->wake, conn_loop(c), echo_wake);
	atomic_fetch_or(&fix.loop_seen, 1 << loop_index(conn_loop(c)));
	reply(c, bytes_text("moved"));
}

static inline enum err echo_frame(struct conn *c, struct bytes f)
{
	struct echo *e = conn_state(c);
	switch (f.at[0]) {
	case 'e': reply(c, f); break;
	case 's': reply_slice(c, f); break;
	case 'c':
		reply(c, f);
		conn_close(c, ERR_DENIED);
		break;
	case 'r': reply(c, f); return ERR_PROTOCOL;
	case 'p':
		conn_pause(c);
		loop_timer_set(&e->wake, 60);
		reply(c, f);
		break;
	case 'd': conn_deadline(c, 40); break;
	case 't': {
		char taken[20];
		snprintf(taken, sizeof taken, "%u", conn_taken(c));
		reply(c, bytes_text(taken));
		break;
	}
	case 'n': reply(c, bytes_text(conn_peer(c))); break;
	case 'l': reply(c, bytes_text(conn_is_local(c) ? "yes" : "no")); break;
	case 'a': reply(c, bytes_text(conn_alpn(c))); break;
	case 'i': {
		char both[300];
		snprintf(both, sizeof both, "%s|%s", conn_cert_name(c) ? conn_cert_name(c) : "-",
			conn_cert_san(c) ? conn_cert_san(c) : "-");
		reply(c, bytes_text(both));
		break;
	}
	case 'q': reply(c, bytes_text(conn_cert_subject(c) ? conn_cert_subject(c) : "-")); break;
	case 'b':
		e->to_produce = get_u32be(f.at + 1);
		echo_produce(c);
		break;
	case 'm':
		conn_move(c, loops_at(fix.loops, 1 - loop_index(conn_loop(c))), echo_moved);
		break;
	case 'w':
		conn_lull(c, f.len > 1);
		reply(c, f);
		break;
	case 'u': reply(c, f); return conn_switch(c, &upper_kind);
	default: return ERR_MALFORMED;
	}
	return OK;
}

static inline enum err echo_input(struct conn *c)
{
	atomic_fetch_add(&fix.inputs, 1);
	for (;;) {
		struct bytes in = conn_input(c);
		if (in.len < 4)
			return OK;
		size_t len = get_u32be(in.at);
		if (in.len < 4 + len) {
			conn_need(c, 4 + len);
			return OK;
		}
		enum err e = echo_frame(c, bytes_of(in.at + 4, len));
		conn_consume(c, 4 + len);
		if (e != OK || conn_is_closing(c))
			return e;
		if (((struct echo *)conn_state(c))->wake.slot != 0)
			return OK; /* paused */
		if (in.at[4] == 'u' || in.at[4] == 'm')
			return OK;
	}
}

static inline void echo_timeout(struct conn *c)
{
	atomic_fetch_add(&fix.timeouts, 1);
	reply(c, bytes_text("late"));
	conn_close(c, ERR_TIMEOUT);
}

static inline void echo_closed(struct conn *c, enum err why)
{
	struct echo *e = conn_state(c);
	loop_timer_cancel(&e->wake);
	ck_assert(e->up);
	e->up = false;
	atomic_store(&fix.why, (int)why);
	atomic_fetch_add(&fix.denied, why == ERR_DENIED);
	atomic_fetch_add(&fix.closed, 1);
}

static inline void echo_stopping(struct conn *c)
{
	atomic_fetch_add(&fix.stopped, 1);
	reply(c, bytes_text("bye"));
}

static const struct conn_kind echo_kind = {
	.name = "echo",
	.state_bytes = sizeof(struct echo),
	.opened = echo_opened,
	.input = echo_input,
	.drained = echo_drained,
	.timeout = echo_timeout,
	.closed = echo_closed,
	.stopping = echo_stopping,
};

/* After the upgrade: letters come back as capitals, byte for byte. */
static inline enum err upper_opened(struct conn *c)
{
	((struct echo *)conn_state(c))->up = true;
	return OK;
}

static inline enum err upper_input(struct conn *c)
{
	struct bytes in = conn_input(c);
	for (size_t i = 0; i < in.len; i++)
		buf_add_u8(conn_out(c), in.at[i] & 0xdf);
	conn_wrote(c);
	conn_consume(c, in.len);
	return OK;
}

static inline void upper_closed(struct conn *c, enum err why)
{
	ck_assert(((struct echo *)conn_state(c))->up);
	atomic_store(&fix.why, (int)why);
	atomic_fetch_add(&fix.closed, 1);
}

static const struct conn_kind upper_kind = {
	.name = "upper",
	.state_bytes = sizeof(struct echo),
	.opened = upper_opened,
	.input = upper_input,
	.closed = upper_closed,
};

static const struct net_door fix_doors[] = {
	{.name = "mqtt", .kind = &echo_kind, .arg = &fix, .alpn = "mqtt,other"},
	{.name = "peer", .kind = &echo_kind, .arg = &fix},
};

/* Reads the settings ("key=value", ended by NULL) and opens; everything else is off. */
static inline enum err fixture_open(const char *const *settings)
{
	static const char *const off[] = {
		"listen.mqtt", "listen.amqp", "listen.http", "listen.kafka", "listen.peer", NULL};
	memset(&fix, 0, sizeof fix);
	fix.conf = conf_new();
	fix.values = mem_new(net_conf_bytes());
	conf_add(fix.conf, net_rows, fix.values);
	for (int i = 0; off[i] != NULL; i++)
		ck_assert_int_eq(conf_set(fix.conf, off[i], "off", fix_why, sizeof fix_why), OK);
	for (int i = 0; settings[i] != NULL; i++) {
		char key[64];
		const char *eq = strchr(settings[i], '=');
		snprintf(key, sizeof key, "%.*s", (int)(eq - settings[i]), settings[i]);
		ck_assert_int_eq(conf_set(fix.conf, key, eq + 1, fix_why, sizeof fix_why), OK);
	}
	conf_apply(fix.conf, true);
	metric_register(&net_metrics);
	fix.loops = loops_new(2);
	return net_open(fix.loops, fix.values, fix_doors, 2, &fix.net, fix_why, sizeof fix_why);
}

static inline void fixture_start(const char *const *settings)
{
	enum err e = fixture_open(settings);
	ck_assert_msg(e == OK, "%s", fix_why);
	net_listen(fix.net);
	loops_run(fix.loops);
}

#define START(...) fixture_start((const char *const[]){__VA_ARGS__, NULL})

static inline void fixture_free(void)
{
	loops_free(fix.loops);
	conf_free(fix.conf);
	mem_free(fix.values);
}

static inline void fixture_stop(void)
{
	net_drain(fix.net, 2000);
	ck_assert_int_eq(net_conn_count(fix.net), 0);
	ck_assert_int_eq(fix.opened, fix.closed);
	loops_stop(fix.loops);
	net_free(fix.net);
	fixture_free();
}

static inline int fixture_port(bool tls)
{
	const char *text = net_addresses(fix.net, "mqtt", tls, false);
	ck_assert_str_ne(text, "");
	return (int)strtol(strrchr(text, ':') + 1, NULL, 10);
}

/* The client's side: blocking, with a time limit on every read. */

static inline int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {.tv_sec = 30};
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)fixture_port(false)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}

static inline void put(int fd, const void *at, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, (const char *)at + done, len - done, MSG_NOSIGNAL);
		ck_assert_int_gt(n, 0);
		done += (size_t)n;
	}
}

/* Reads exactly len bytes; false when the stream ends or breaks first. */
static inline bool get(int fd, void *at, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = recv(fd, (char *)at + done, len - done, 0);
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static inline void put_frame(int fd, char command, const void *at, size_t len)
{
	uint8_t *frame = mem_new(5 + len); /* in one piece: who is refused may be gone after it */
	put_u32be(frame, (uint32_t)len + 1);
	frame[4] = (uint8_t)command;
	if (len > 0)
		memcpy(frame + 5, at, len);
	put(fd, frame, 5 + len);
	mem_free(frame);
}

/* Gives the next frame as text (which the caller frees), NULL when the stream ends. */
static inline char *get_frame(int fd, size_t *len)
{
	uint8_t head[4];
	if (!get(fd, head, 4))
		return NULL;
	*len = get_u32be(head);
	char *text = malloc(*len + 1);
	ck_assert(get(fd, text, *len));
	text[*len] = 0;
	return text;
}

static inline void expect_frame(int fd, const char *text)
{
	size_t len;
	char *got = get_frame(fd, &len);
	ck_assert_ptr_nonnull(got);
	ck_assert_str_eq(got, text);
	free(got);
}

/* The orderly end, not a reset. */
static inline void expect_end(int fd)
{
	char byte;
	ck_assert_int_eq(recv(fd, &byte, 1, 0), 0);
}

static inline void nap(int ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* Waits until the counter has the value; false after 30 s. */
static inline bool reaches(atomic_int *counter, int value)
{
	for (int i = 0; i < 30000 && atomic_load(counter) < value; i++)
		nap(1);
	return atomic_load(counter) == value;
}

/* The same of the connections there are: one that has ended counts a little longer. */
static inline bool conns_reach(int count)
{
	for (int i = 0; i < 30000 && net_conn_count(fix.net) != count; i++)
		nap(1);
	return net_conn_count(fix.net) == count;
}

static inline int run_tests(TCase *tc)
{
	Suite *s = suite_create("net");
	log_setup(LOG_ERROR, false);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

#endif
