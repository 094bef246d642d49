/* Logins by SCRAM-SHA-256: a connection is made, logs in, is closed and made again, by so many
 * clients at a time. The client's slow part, PBKDF2, is done once: salt and count are the user's
 * and do not change. What is left on both sides is a few hashes and the way there and back. */
#include "tools/bench/bench.h"
#include "tools/bench/hist.h"
#include "tools/bench/kafka_wire.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include "tools/bench/sock.h"
#include <errno.h>
#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <nettle/pbkdf2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EVENTS_MAX = 64, BUF_BYTES = 2048, TEXT_BYTES = 512, SALT_BYTES_MAX = 64, PATIENCE_S = 5 };
enum step { DIALING, SHAKING, FIRST, FINAL };

struct login {
	struct sock sock;
	enum step step;
	uint32_t number;
	uint64_t begun_ns;
	char first[TEXT_BYTES]; /* what the client said first, without "n,," */
	uint8_t signature[SHA256_DIGEST_SIZE];
};

struct logins {
	const struct options *options;
	struct addrs addrs;
	int ep;
	struct login *clients;
	uint64_t number, done, refused, start_ns;
	bool keyed, stuck;
	char salt[TEXT_BYTES]; /* of which the keys are, with its count, as the server says them */
	uint8_t client_key[SHA256_DIGEST_SIZE], stored_key[SHA256_DIGEST_SIZE],
		server_key[SHA256_DIGEST_SIZE];
	struct hist took;
};

static void mac(const uint8_t *key, size_t len, const char *text, uint8_t *out)
{
	struct hmac_sha256_ctx c;

	hmac_sha256_set_key(&c, len, key);
	hmac_sha256_update(&c, strlen(text), (const uint8_t *)text);
	hmac_sha256_digest(&c, SHA256_DIGEST_SIZE, out);
}

/* The keys that the password has with "SALT,i=COUNT" (RFC 5802, 3). */
static bool keys_make(struct logins *l, const char *salt)
{
	uint8_t raw[SALT_BYTES_MAX], salted[SHA256_DIGEST_SIZE];
	const char *end = strchr(salt, ',');
	const char *password = l->options->password;
	struct base64_decode_ctx b;
	struct sha256_ctx s;
	size_t len = sizeof raw;

	base64_decode_init(&b);
	if (!end || strncmp(end, ",i=", 3) != 0 ||
		(size_t)(end - salt) > BASE64_ENCODE_RAW_LENGTH(sizeof raw) ||
		!base64_decode_update(&b, &len, raw, (size_t)(end - salt), salt))
		return false;
	pbkdf2_hmac_sha256(strlen(password), (const uint8_t *)password,
		(unsigned)strtoul(end + 3, NULL, 10), len, raw, sizeof salted, salted);
	mac(salted, sizeof salted, "Client Key", l->client_key);
	mac(salted, sizeof salted, "Server Key", l->server_key);
	sha256_init(&s);
	sha256_update(&s, sizeof l->client_key, l->client_key);
	sha256_digest(&s, sizeof l->stored_key, l->stored_key);
	snprintf(l->salt, sizeof l->salt, "%s", salt);
	l->keyed = true;
	return true;
}

static void base64(char *out, const uint8_t *data, size_t len)
{
	base64_encode_raw(out, len, data);
	out[BASE64_ENCODE_RAW_LENGTH(len)] = 0;
}

static void client_dial(struct logins *l, struct login *c)
{
	int fd = c->sock.fd;

	if (fd >= 0)
		close(fd);
	c->step = DIALING;
	c->begun_ns = now_ns();
	if (!sock_open(&c->sock, l->ep, &l->addrs, 0, c))
		l->stuck = true;
}

static bool client_send(struct logins *l, struct login *c, size_t len, enum step next)
{
	c->step = next;
	c->sock.out_len = (uint32_t)len;
	sock_watch(&c->sock, l->ep, EPOLLIN, c);
	return len > 0 && sock_flush(&c->sock);
}

static bool say_first(struct logins *l, struct login *c)
{
	char text[TEXT_BYTES + 3];
	int len;

	snprintf(c->first, sizeof c->first, "n=%s,r=bench%08llx%016llx", l->options->user,
		(unsigned long long)++l->number, (unsigned long long)now_ns());
	len = snprintf(text, sizeof text, "n,,%s", c->first);
	return client_send(l, c,
		kafka_authenticate_write(c->sock.out, c->sock.out_cap, bytes_of(text, (size_t)len)),
		FIRST);
}

/* The server's "r=NONCE,s=SALT,i=COUNT" is answered. */
static bool say_final(struct logins *l, struct login *c, struct bytes token)
{
	char server[TEXT_BYTES], bare[TEXT_BYTES], all[3 * TEXT_BYTES], proof64[64];
	char text[TEXT_BYTES + 64];
	uint8_t proof[SHA256_DIGEST_SIZE];
	char *salt;
	int len;

	len = snprintf(server, sizeof server, "%.*s", (int)token.len, (const char *)token.at);
	salt = strstr(server, ",s=");
	if (len >= (int)sizeof server || !salt || strncmp(server, "r=", 2) != 0)
		return false;
	if ((!l->keyed || strcmp(salt + 3, l->salt) != 0) && !keys_make(l, salt + 3))
		return false;
	snprintf(bare, sizeof bare, "c=biws,%.*s", (int)(salt - server), server);
	snprintf(all, sizeof all, "%s,%s,%s", c->first, server, bare);
	mac(l->stored_key, sizeof l->stored_key, all, proof);
	mac(l->server_key, sizeof l->server_key, all, c->signature);
	for (size_t i = 0; i < sizeof proof; i++)
		proof[i] ^= l->client_key[i];
	base64(proof64, proof, sizeof proof);
	len = snprintf(text, sizeof text, "%s,p=%s", bare, proof64);
	return client_send(l, c,
		kafka_authenticate_write(c->sock.out, c->sock.out_cap, bytes_of(text, (size_t)len)),
		FINAL);
}

static bool is_over(struct login *c, struct bytes token)
{
	char expected[64] = "v=";

	base64(expected + 2, c->signature, sizeof c->signature);
	return token.len == strlen(expected) && memcmp(token.at, expected, token.len) == 0;
}

/* False: refused, or not understood. */
static bool client_answer(struct logins *l, struct login *c, struct bytes body)
{
	struct bytes token;

	if (c->step == SHAKING)
		return kafka_handshake_read(body) == 0 && say_first(l, c);
	if (kafka_authenticate_read(body, &token) != 0)
		return false;
	if (c->step == FIRST)
		return say_final(l, c, token);
	if (!is_over(c, token))
		return false;
	hist_add(&l->took, now_ns() - c->begun_ns);
	l->done++;
	client_dial(l, c);
	return true;
}

static bool client_event(struct logins *l, struct login *c)
{
	struct sock *s = &c->sock;
	uint32_t len;

	if (c->step == DIALING)
		return sock_connected(s) &&
			client_send(l, c,
				kafka_handshake_write(s->out, s->out_cap, "SCRAM-SHA-256"),
				SHAKING);
	if (sock_fill(s) < 0)
		return false;
	if (s->in_len < 4 || (len = get_u32be(s->in)) > s->in_len - 4)
		return s->in_len < s->in_cap;
	/* The answer before the input goes: client_dial forgets it all. */
	s->in_len = 0;
	return client_answer(l, c, bytes_of(s->in + 4, len));
}

/* Runs for so long, or until so many have logged in. */
static void logins_run(struct logins *l, uint64_t ns, uint64_t count)
{
	struct epoll_event events[EVENTS_MAX];

	while (!l->stuck && now_ns() - l->start_ns < ns && l->done < count) {
		int n = epoll_wait(l->ep, events, EVENTS_MAX, 50);

		for (int i = 0; i < n; i++) {
			if (client_event(l, events[i].data.ptr))
				continue;
			l->refused++;
			client_dial(l, events[i].data.ptr);
		}
	}
}

static void logins_report(
	const struct logins *l, const char *name, const struct proc_use use[2], uint64_t self_us)
{
	static const char *const took[5] = {
		"login_p50_ms", "login_p90_ms", "login_p99_ms", "login_p999_ms", "login_max_ms"};
	double cpu_us = (double)(use[1].cpu_us - use[0].cpu_us);
	double took_s = (double)(now_ns() - l->start_ns) / 1e9;
	struct report r = {0};

	report_word(&r, "workload", name);
	report_int(&r, "clients", l->options->clients);
	report_real(&r, "logins_per_s", (double)l->done / took_s, 0);
	report_real(&r, "server_us_per_login", l->done ? cpu_us / (double)l->done : 0, 1);
	report_int(&r, "logins", l->done);
	report_int(&r, "refused", l->refused);
	report_hist(&r, took, &l->took);
	report_real(&r, "bench_cpu_s", (double)self_us / 1e6, 2);
	report_print(&r, l->options->json);
}

static bool logins_prepare(struct logins *l)
{
	const struct options *o = l->options;

	if (!o->user || !o->password || strlen(o->user) > TEXT_BYTES / 4) {
		fprintf(stderr, "sluice-bench: kafka-logins needs --user and --password\n");
		return false;
	}
	l->clients = calloc(o->clients, sizeof *l->clients);
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (!l->clients || l->ep < 0 || !addrs_resolve(o->host, o->port, &l->addrs))
		return false;
	for (uint64_t i = 0; i < o->clients; i++) {
		l->clients[i].sock.fd = -1;
		if (!sock_buffers(&l->clients[i].sock, BUF_BYTES, BUF_BYTES))
			return false;
	}
	l->start_ns = now_ns();
	client_dial(l, &l->clients[0]);
	/* The user may be about to be made; and the keys are there when time begins to count. */
	logins_run(l, PATIENCE_S * 1000000000ull, 1);
	if (l->done == 0)
		fprintf(stderr, "sluice-bench: %s is not let in\n", o->user);
	return l->done > 0;
}

int bench_kafka_logins(const struct options *o, const char *name)
{
	struct logins *l = calloc(1, sizeof *l);
	struct proc_use use[2];
	uint64_t self_us;
	int status = EXIT_TROUBLE;

	if (!l)
		return status;
	l->options = o;
	l->ep = -1;
	if (!logins_prepare(l))
		goto end;
	memset(&l->took, 0, sizeof l->took);
	l->done = l->refused = 0;
	for (uint64_t i = 1; i < o->clients; i++)
		client_dial(l, &l->clients[i]);
	proc_read(o->pid, &use[0]);
	self_us = proc_self_cpu_us();
	l->start_ns = now_ns();
	logins_run(l, o->seconds * 1000000000ull, UINT64_MAX);
	proc_read(o->pid, &use[1]);
	logins_report(l, name, use, proc_self_cpu_us() - self_us);
	status = l->refused || l->stuck || l->done == 0 ? EXIT_TROUBLE : EXIT_FINE;
end:
	for (uint64_t i = 0; l->clients && i < o->clients; i++)
		sock_close(&l->clients[i].sock);
	if (l->ep >= 0)
		close(l->ep);
	free(l->clients);
	free(l);
	return status;
}
