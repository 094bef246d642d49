#include "server/net/dial.h"
#include "server/net/address.h"
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include "tests/unit/server/net/fixture.h"

/* Instead of the C library's: names that begin with "slow" are asked of a name server that does not
 * answer. */
static atomic_int slow, answer_slow;

int getaddrinfo(
	const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	union { /* a function's pointer, as dlsym gives it */
		void *at;
		int (*call)(const char *name, const char *service, const struct addrinfo *hints,
			struct addrinfo **out);
	} real = {.at = dlsym(RTLD_NEXT, "getaddrinfo")};
	bool literal = hints != NULL && (hints->ai_flags & AI_NUMERICHOST);
	if (name == NULL || strncmp(name, "slow", 4) != 0 || literal)
		return real.call(name, service, hints, out);
	atomic_fetch_add(&slow, 1);
	while (!atomic_load(&answer_slow))
		nap(1);
	return EAI_AGAIN;
}

/* The library keeps points of elliptic curves per thread and gives them back to nobody. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:wc_ecc_new_point";
}

/* Dials from loop 0; the caller's adapter sends one frame of the fixture and keeps the answer. */
struct call {
	struct dial dial;
	const char *frame; /* command and bytes */
	char answer[200];
	atomic_int opened, answered, closed, done;
	atomic_int why;
	bool done_after_opened;
	struct conn *conn;
	struct loop_msg msg;
	bool cancel_at_once;
};

static struct call call;

enum { PATIENT_MS = 30000 }; /* of a dial that is to succeed, or to be refused */

static enum err caller_opened(struct conn *c)
{
	struct call *k = conn_door_arg(c);
	k->conn = c;
	atomic_fetch_add(&k->opened, 1);
	if (k->frame == NULL)
		return ERR_DENIED;
	reply(c, bytes_text(k->frame));
	return OK;
}

static enum err caller_input(struct conn *c)
{
	struct call *k = conn_door_arg(c);
	struct bytes in = conn_input(c);
	if (in.len < 4 || in.len < 4 + get_u32be(in.at))
		return OK;
	snprintf(k->answer, sizeof k->answer, "%.*s", (int)(in.len - 4), (const char *)in.at + 4);
	conn_consume(c, in.len);
	atomic_fetch_add(&k->answered, 1);
	return OK;
}

static void caller_closed(struct conn *c, enum err why)
{
	struct call *k = conn_door_arg(c);
	atomic_store(&k->why, (int)why);
	atomic_fetch_add(&k->closed, 1);
}

static const struct conn_kind caller_kind = {
	.name = "peer", .opened = caller_opened, .input = caller_input, .closed = caller_closed};

static void on_done(struct dial *d)
{
	struct call *k = list_entry(d, struct call, dial);
	k->done_after_opened = atomic_load(&k->opened) == 1;
	ck_assert_ptr_eq(loop_here(), loops_at(fix.loops, 0));
	atomic_fetch_add(&k->done, 1);
}

static void begin(struct loop_msg *m)
{
	struct call *k = list_entry(m, struct call, msg);
	dial_start(&k->dial);
	ck_assert_int_eq(atomic_load(&k->done), 0);
	if (k->cancel_at_once)
		dial_cancel(&k->dial);
}

static void start_call(const char *address, const char *frame, bool tls, int timeout_ms)
{
	call = (struct call){.frame = frame, .msg.run = begin};
	call.dial = (struct dial){.net = fix.net,
		.address = address,
		.kind = &caller_kind,
		.arg = &call,
		.tls = tls,
		.timeout_ms = timeout_ms,
		.done = on_done};
}

static void place_call(void)
{
	loop_post(loops_at(fix.loops, 0), &call.msg);
}

static void hang_up(void *arg)
{
	conn_close(arg, ERR_CLOSED);
}

static void stop(void)
{
	if (atomic_load(&call.opened) > 0 && call.closed == 0) {
		loop_call(loops_at(fix.loops, 0), hang_up, call.conn);
		ck_assert(reaches(&call.closed, 1));
	}
	fixture_stop();
}

static const char *here(const char *host)
{
	static char text[64];
	snprintf(text, sizeof text, "%s:%d", host, fixture_port(false));
	return text;
}

START_TEST(speaks_like_any_connection)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost"};
	START("listen.mqtt=127.0.0.1:0");
	start_call(here(hosts[_i]), "ehello", false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.answered, 1));
	ck_assert_str_eq(call.answer, "ehello");
	ck_assert_int_eq(call.done, 1);
	ck_assert(call.done_after_opened);
	ck_assert_int_eq(call.dial.err, OK);
	ck_assert_ptr_eq(call.dial.conn, call.conn);
	/* Clients are counted, what goes between nodes is not. */
	ck_assert_int_eq(net_conn_count(fix.net), 1);
	stop();
	ck_assert_int_eq(call.why, ERR_CLOSED);
}
END_TEST

/* Which way with congestion the socket has whose other end is at the port; NULL: none is there. */
static const char *congestion_towards(uint16_t port)
{
	static char name[16];
	for (int fd = 3; fd < 1000; fd++) {
		struct sockaddr_in peer;
		socklen_t len = sizeof peer, name_len = sizeof name - 1;
		memset(name, 0, sizeof name);
		if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
			ntohs(peer.sin_port) == port &&
			getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_len) == 0)
			return name;
	}
	return NULL;
}

/* A name the host does not have changes nothing. */
START_TEST(nodes_have_their_own_way_with_congestion)
{
	static const char *const settings[] = {"peer.congestion=reno", "peer.congestion=nonsense"};
	char usual[16] = {0};
	socklen_t len = sizeof usual - 1;
	int fresh = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, usual, &len), 0);
	close(fresh);
	START("listen.mqtt=127.0.0.1:0", settings[_i]);
	start_call(here("127.0.0.1"), "ehello", false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.answered, 1));
	const char *port = strrchr(here("127.0.0.1"), ':');
	ck_assert_str_eq(
		congestion_towards((uint16_t)strtol(port + 1, NULL, 10)), _i == 0 ? "reno" : usual);
	stop();
}
END_TEST

/* A listener whose queue is full leaves a connect without an answer. */
struct silent {
	char address[64];
	int fd, held[3];
};

static void silence(struct silent *s)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(s->fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(s->fd, 0), 0);
	ck_assert_int_eq(getsockname(s->fd, (struct sockaddr *)&sa, &len), 0);
	for (int i = 0; i < 3; i++) {
		s->held[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(s->held[i], (const struct sockaddr *)&sa, sizeof sa);
	}
	nap(20);
	snprintf(s->address, sizeof s->address, "127.0.0.1:%d", ntohs(sa.sin_port));
}

static void silence_end(struct silent *s)
{
	for (int i = 0; i < 3; i++)
		close(s->held[i]);
	close(s->fd);
}

/* How many sockets of this process in that state have it. */
static int with_congestion(const char *wanted, int state)
{
	int count = 0;
	for (int fd = 3; fd < 1000; fd++) {
		struct tcp_info info;
		char name[16] = {0};
		socklen_t len = sizeof info, name_len = sizeof name - 1;
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
			info.tcpi_state == state &&
			getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_len) == 0)
			count += strcmp(name, wanted) == 0;
	}
	return count;
}

/* Before there is a connection: one that was BBR's when it came about is paced for good. */
START_TEST(congestion_is_chosen_before)
{
	struct silent silent;
	silence(&silent);
	int listening = with_congestion("reno", TCP_LISTEN);
	int connecting = with_congestion("reno", TCP_SYN_SENT);
	START("listen.mqtt=127.0.0.1:0", "listen.peer=127.0.0.1:0", "peer.congestion=reno");
	net_listen_internal(fix.net);
	ck_assert_int_gt(with_congestion("reno", TCP_LISTEN), listening);
	start_call(silent.address, "e", false, 2000);
	place_call();
	for (int i = 0; i < 100 && with_congestion("reno", TCP_SYN_SENT) == connecting; i++)
		nap(10);
	ck_assert_int_eq(with_congestion("reno", TCP_SYN_SENT), connecting + 1);
	ck_assert(reaches(&call.done, 1));
	stop();
	silence_end(&silent);
}
END_TEST

START_TEST(ends_with_the_other_side)
{
	START("listen.mqtt=127.0.0.1:0");
	start_call(here("127.0.0.1"), "cbye", false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.closed, 1));
	ck_assert_str_eq(call.answer, "cbye");
	stop();
}
END_TEST

START_TEST(adapter_may_refuse)
{
	START("listen.mqtt=127.0.0.1:0");
	start_call(here("127.0.0.1"), NULL, false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.done, 1));
	ck_assert_int_eq(call.dial.err, ERR_DENIED);
	ck_assert_ptr_null(call.dial.conn);
	ck_assert(reaches(&call.closed, 1));
	stop();
}
END_TEST

START_TEST(failures_are_told)
{
	static const struct {
		const char *address;
		enum err err;
		const char *why;
	} cases[] = {{"127.0.0.1:1", ERR_UNAVAILABLE, "refused"},
		{"nonsense", ERR_INVALID, "host:port"},
		{"no-such-host.invalid:7400", ERR_UNAVAILABLE, "no-such-host.invalid"},
		{"[::1]:1", ERR_UNAVAILABLE, ""}};
	START("listen.mqtt=127.0.0.1:0");
	start_call(cases[_i].address, "e", false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.done, 1));
	ck_assert_int_eq(call.dial.err, cases[_i].err);
	ck_assert_msg(strstr(call.dial.why, cases[_i].why) != NULL, "%s", call.dial.why);
	ck_assert(call.dial.why[0] != 0);
	ck_assert_ptr_null(call.dial.conn);
	stop();
}
END_TEST

START_TEST(silence_times_out)
{
	struct silent silent;
	silence(&silent);
	START("listen.mqtt=127.0.0.1:0");
	start_call(silent.address, "e", false, 100);
	place_call();
	ck_assert(reaches(&call.done, 1));
	ck_assert_int_eq(call.dial.err, ERR_TIMEOUT);
	stop();
	silence_end(&silent);
}
END_TEST

START_TEST(cancelled_is_never_done)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost"};
	START("listen.mqtt=127.0.0.1:0");
	start_call(here(hosts[_i]), "ehello", false, PATIENT_MS);
	call.cancel_at_once = true;
	place_call();
	nap(100);
	ck_assert_int_eq(call.done, 0);
	ck_assert_int_eq(call.opened, 0);
	stop();
}
END_TEST

enum { SLOW_DIALS = 20 };
static struct call slow_calls[SLOW_DIALS];

static void dial_slow(void *arg)
{
	(void)arg;
	for (int i = 0; i < SLOW_DIALS; i++)
		dial_start(&slow_calls[i].dial);
}

static void drop_slow(void *arg)
{
	(void)arg;
	for (int i = 0; i < SLOW_DIALS / 2; i++)
		dial_cancel(&slow_calls[i].dial);
}

/* Dials end in their time, those that nobody waits for are not looked up any more, and the end does
 * not wait for those that are. */
START_TEST(a_name_server_that_is_silent_holds_up_nobody)
{
	START("listen.mqtt=127.0.0.1:0");
	for (int i = 0; i < SLOW_DIALS; i++) {
		start_call("slow.example:7400", "e", false, i < SLOW_DIALS / 2 ? 60000 : 100);
		slow_calls[i] = call;
		slow_calls[i].dial.arg = &slow_calls[i];
	}
	loop_call(loops_at(fix.loops, 0), dial_slow, NULL);
	for (int i = SLOW_DIALS / 2; i < SLOW_DIALS; i++) {
		ck_assert(reaches(&slow_calls[i].done, 1));
		ck_assert_int_eq(slow_calls[i].dial.err, ERR_TIMEOUT);
	}
	loop_call(loops_at(fix.loops, 0), drop_slow, NULL);
	ck_assert(reaches(&slow, 2)); /* one for each thread */
	fixture_stop();
	ck_assert_int_le(slow, 2);
	atomic_store(&answer_slow, 1);
	for (int i = 0; i < SLOW_DIALS / 2; i++)
		ck_assert_int_eq(slow_calls[i].done, 0);
}
END_TEST

START_TEST(many_addresses_are_read)
{
	struct address_list found;
	char why[100];
	ck_assert_int_eq(address_find("127.0.0.1:80", true, &found, why, sizeof why), OK);
	ck_assert_int_eq(found.count, 1);
	address_list_fini(&found);
	ck_assert_int_eq(address_find("localhost:80", true, &found, why, sizeof why), ERR_NOTFOUND);
	ck_assert_int_eq(address_find("localhost:80", false, &found, why, sizeof why), OK);
	ck_assert_int_ge(found.count, 1);
	ck_assert_int_eq(address_port(&found.items[0].sa.any), 80);
	address_list_fini(&found);
}
END_TEST

/* TLS: the fixture's only door is made one that asks for certificates. */

static char folder[64];

static void make_certificates(void)
{
	char command[1200];
	snprintf(folder, sizeof folder, "/tmp/net_dial_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(command, sizeof command,
		"cd %s; exec 2>make.log; set -e\n"
		"q='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256'\n"
		"for ca in ca other; do openssl req -x509 $q -keyout $ca.key -out $ca.pem -days 30 "
		"-subj /CN=$ca; done\n"
		"issue() { openssl req $q -keyout $1.key -out $1.csr -subj /CN=$1; openssl x509 "
		"-req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 20 -sha256 "
		"-out $1.pem; }\n"
		"issue node-1 ca; issue stranger other\n",
		folder);
	ck_assert_int_eq(system(command), 0);
}

static void remove_certificates(void)
{
	char command[100];
	snprintf(command, sizeof command, "rm -rf %s", folder);
	ck_assert_int_eq(system(command), 0);
}

/* A net whose plain mqtt door is mutual. */
static void start_mutual(const char *cert, const char *ca)
{
	static const struct net_door doors[] = {
		{.name = "mqtt", .kind = &echo_kind, .arg = &fix, .mutual = true}};
	char text[3][128];
	ck_assert_int_eq(fixture_open((const char *const[]){NULL}), OK);
	net_free(fix.net);
	snprintf(text[0], sizeof text[0], "%s/%s.pem", folder, cert);
	snprintf(text[1], sizeof text[1], "%s/%s.key", folder, cert);
	snprintf(text[2], sizeof text[2], "%s/%s.pem", folder, ca);
	const char *const sets[][2] = {{"listen.mqtt", "127.0.0.1:0"}, {"tls.cert", text[0]},
		{"tls.key", text[1]}, {"tls.ca", text[2]}};
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(
			conf_set(fix.conf, sets[i][0], sets[i][1], fix_why, sizeof fix_why), OK);
	conf_apply(fix.conf, true);
	enum err e = net_open(fix.loops, fix.values, doors, 1, &fix.net, fix_why, sizeof fix_why);
	ck_assert_msg(e == OK, "%s", fix_why);
	net_listen(fix.net);
	loops_run(fix.loops);
}

START_TEST(both_show_certificates)
{
	start_mutual("node-1", "ca");
	start_call(here("127.0.0.1"), "q", true, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.answered, 1));
	ck_assert_str_eq(call.answer, "CN=node-1");
	ck_assert_str_eq(conn_cert_subject(call.conn), "CN=node-1");
	ck_assert(call.done_after_opened);
	ck_assert_int_eq(call.dial.err, OK);
	stop();
}
END_TEST

/* Its certificate is not of the authority it trusts itself, so both sides say no. */
START_TEST(a_stranger_is_refused)
{
	start_mutual("stranger", "ca");
	start_call(here("127.0.0.1"), "q", true, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.done, 1));
	ck_assert_int_eq(call.dial.err, ERR_UNAUTHENTICATED);
	ck_assert_msg(strncmp(call.dial.why, "TLS: ", 5) == 0, "%s", call.dial.why);
	ck_assert_int_eq(fix.opened, 0);
	stop();
}
END_TEST

START_TEST(plain_against_tls_gets_nowhere)
{
	start_mutual("node-1", "ca");
	start_call(here("127.0.0.1"), "q", false, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.closed, 1));
	ck_assert_int_eq(call.answered, 0);
	ck_assert_int_eq(fix.opened, 0);
	stop();
}
END_TEST

START_TEST(tls_against_silence_times_out)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	char address[64];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(sa.sin_port));
	start_mutual("node-1", "ca");
	start_call(address, "q", true, 100);
	call.cancel_at_once = _i == 1;
	place_call();
	if (_i == 0) {
		ck_assert(reaches(&call.done, 1));
		ck_assert_int_eq(call.dial.err, ERR_TIMEOUT);
	} else {
		nap(150);
		ck_assert_int_eq(call.done, 0);
	}
	stop();
	close(fd);
}
END_TEST

START_TEST(tls_must_be_configured)
{
	START("listen.mqtt=127.0.0.1:0");
	start_call(here("127.0.0.1"), "q", true, PATIENT_MS);
	place_call();
	ck_assert(reaches(&call.done, 1));
	ck_assert_int_eq(call.dial.err, ERR_INVALID);
	stop();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("dial");
	tcase_add_unchecked_fixture(tc, make_certificates, remove_certificates);
	tcase_add_loop_test(tc, speaks_like_any_connection, 0, 2);
	tcase_add_loop_test(tc, nodes_have_their_own_way_with_congestion, 0, 2);
	tcase_add_test(tc, congestion_is_chosen_before);
	tcase_add_test(tc, ends_with_the_other_side);
	tcase_add_test(tc, adapter_may_refuse);
	tcase_add_loop_test(tc, failures_are_told, 0, 4);
	tcase_add_test(tc, silence_times_out);
	tcase_add_loop_test(tc, cancelled_is_never_done, 0, 2);
	tcase_add_test(tc, a_name_server_that_is_silent_holds_up_nobody);
	tcase_add_test(tc, many_addresses_are_read);
	tcase_add_test(tc, both_show_certificates);
	tcase_add_test(tc, a_stranger_is_refused);
	tcase_add_test(tc, plain_against_tls_gets_nowhere);
	tcase_add_loop_test(tc, tls_against_silence_times_out, 0, 2);
	tcase_add_test(tc, tls_must_be_configured);
	return run_tests(tc);
}
