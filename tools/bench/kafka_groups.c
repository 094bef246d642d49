/* Groups of consumers that do nothing but stay: each member has a connection, joins, syncs, and
 * heartbeats. What is measured begins when all are in their groups and have been for some
 * heartbeats each: groups live for days. Each member's turn comes once per interval, one after the
 * other and never two of a group in a row; one whose last heartbeat is unanswered then misses its
 * turn, which is counted. */
#include "tools/bench/bench.h"
#include "tools/bench/hist.h"
#include "tools/bench/kafka_wire.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include "tools/bench/sock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	EVENTS_MAX = 256,
	IN_BYTES = 8 * 1024, /* what a leader is told of its members */
	SESSION_MS = 45000,
	SETTLE_S = 60,
	CALM_S = 2,
	WARM_BEATS = 4,
	FILES_OF_OUR_OWN = 16,
	/* Kafka's codes that mean: join again. */
	UNKNOWN_MEMBER = 25,
	ILLEGAL_GENERATION = 22,
	REBALANCING = 27
};

enum step { NOT_YET, DIALING, JOINING, SYNCING, CALM, BEATING, GONE };

struct party { /* one member */
	struct sock sock;
	struct kafka_member member;
	char group[32];
	enum step step;
	uint64_t sent_ns;
};

struct groups {
	const struct options *options;
	struct addrs addrs;
	int ep;
	struct party *parties;
	uint32_t count, dialed, dialing, in_group; /* in_group: CALM or BEATING */
	uint32_t gone;
	uint64_t turn, turn_ns; /* whose turn is next, and when */
	uint64_t beats, missed, rejoined, errors;
	struct hist answer;
	bool measuring;
};

static bool is_in(enum step s)
{
	return s == CALM || s == BEATING;
}

static void party_gone(struct groups *g, struct party *p, const char *why, int code)
{
	if (g->gone++ == 0)
		fprintf(stderr, "sluice-bench: %s: %s (%d)\n", p->group, why, code);
	g->in_group -= is_in(p->step);
	g->dialing -= p->step == DIALING;
	p->step = GONE;
	sock_close(&p->sock);
}

static void party_send(struct groups *g, struct party *p, size_t len, enum step next)
{
	g->in_group -= is_in(p->step);
	g->in_group += is_in(next);
	p->step = next;
	p->sent_ns = now_ns();
	p->sock.out_len = (uint32_t)len;
	if (len == 0 || !sock_flush(&p->sock))
		party_gone(g, p, "cannot send", errno);
	else
		sock_watch(
			&p->sock, g->ep, sock_pending(&p->sock) ? EPOLLIN | EPOLLOUT : EPOLLIN, p);
}

static void party_join(struct groups *g, struct party *p, int16_t why)
{
	if (why == UNKNOWN_MEMBER)
		p->member.id[0] = 0;
	g->rejoined += why != 0;
	party_send(g, p, kafka_join_write(p->sock.out, p->sock.out_cap, &p->member, SESSION_MS),
		JOINING);
}

static bool rejoins(int16_t error)
{
	return error == UNKNOWN_MEMBER || error == ILLEGAL_GENERATION || error == REBALANCING;
}

static void party_joined(struct groups *g, struct party *p, struct bytes body)
{
	struct kafka_joined j;

	if (!kafka_join_read(body, &j)) {
		party_gone(g, p, "malformed answer to JoinGroup", 0);
	} else if (rejoins(j.error)) {
		party_join(g, p, j.error);
	} else if (j.error) {
		party_gone(g, p, "JoinGroup", j.error);
	} else {
		p->member.generation = j.generation;
		memcpy(p->member.id, j.id, sizeof j.id);
		party_send(g, p,
			kafka_sync_write(
				p->sock.out, p->sock.out_cap, &p->member, j.leads ? &j : NULL),
			SYNCING);
	}
}

static void party_answer(struct groups *g, struct party *p, struct bytes body)
{
	int16_t error;

	if (p->step == JOINING) {
		party_joined(g, p, body);
		return;
	}
	error = kafka_member_error(body);
	if (p->step == BEATING && g->measuring) {
		hist_add(&g->answer, now_ns() - p->sent_ns);
		g->beats++;
		g->errors += error != 0;
	}
	if (rejoins(error)) {
		party_join(g, p, error);
	} else if (error || (p->step != SYNCING && p->step != BEATING)) {
		party_gone(g, p, p->step == SYNCING ? "SyncGroup" : "Heartbeat", error);
	} else {
		g->in_group += p->step == SYNCING;
		p->step = CALM;
	}
}

static void party_event(struct groups *g, struct party *p, uint32_t events)
{
	uint32_t len;

	errno = 0;
	if (p->step == DIALING) {
		if (!sock_connected(&p->sock)) {
			party_gone(g, p, "cannot connect", errno);
			return;
		}
		g->dialing--;
		party_join(g, p, 0);
		return;
	}
	if (!sock_flush(&p->sock) || (events & ~(uint32_t)EPOLLOUT && sock_fill(&p->sock) < 0)) {
		party_gone(g, p, "closed by the broker", errno);
		return;
	}
	while (p->step != GONE && p->sock.in_len >= 4 &&
		(len = get_u32be(p->sock.in)) <= p->sock.in_len - 4) {
		struct bytes body = bytes_of(p->sock.in + 4, len);

		party_answer(g, p, body);
		if (p->step != GONE)
			sock_consume(&p->sock, 4 + len);
	}
	if (p->step != GONE && p->sock.in_len == p->sock.in_cap)
		party_gone(g, p, "an answer is too large", 0);
}

static void dial_more(struct groups *g)
{
	while (g->dialed < g->count && g->dialing < g->options->burst) {
		struct party *p = &g->parties[g->dialed++];

		p->step = DIALING;
		g->dialing++;
		if (!sock_buffers(&p->sock, IN_BYTES, IN_BYTES) ||
			!sock_open(&p->sock, g->ep, &g->addrs, g->dialed, p))
			party_gone(g, p, "cannot connect", errno);
	}
}

/* Those whose turn has come heartbeat. Turns go through the groups: member 0 of each, then 1. */
static void take_turns(struct groups *g, uint64_t now)
{
	uint64_t groups = g->options->groups;
	uint64_t step_ns = g->options->interval * 1000000u / g->count;

	while (g->turn_ns <= now) {
		uint64_t at = g->turn++ % g->count;
		struct party *p = &g->parties[at % groups * g->options->members + at / groups];

		g->turn_ns += step_ns;
		if (p->step == CALM)
			party_send(g, p,
				kafka_heartbeat_write(p->sock.out, p->sock.out_cap, &p->member),
				BEATING);
		else if (g->measuring)
			g->missed++;
	}
}

static void turn_once(struct groups *g)
{
	struct epoll_event events[EVENTS_MAX];
	int n;

	dial_more(g);
	n = epoll_wait(g->ep, events, EVENTS_MAX, 1);
	for (int i = 0; i < n; i++)
		party_event(g, events[i].data.ptr, events[i].events);
	take_turns(g, now_ns());
}

/* Until all are in their groups and nothing has moved for a while. */
static bool settle(struct groups *g)
{
	uint64_t begun = now_ns(), calm_ns = begun;
	uint64_t rejoined = 0;

	while (now_ns() - calm_ns < CALM_S * 1000000000ull) {
		turn_once(g);
		if (g->in_group < g->count || g->rejoined != rejoined)
			calm_ns = now_ns();
		rejoined = g->rejoined;
		if (g->gone || now_ns() - begun > SETTLE_S * 1000000000ull)
			return false;
	}
	return true;
}

static void groups_report(const struct groups *g, const char *name, const struct proc_use use[2],
	double took_s, double settled_s)
{
	static const char *const answer[5] = {"answer_p50_ms", "answer_p90_ms", "answer_p99_ms",
		"answer_p999_ms", "answer_max_ms"};
	double cpu_us = (double)(use[1].cpu_us - use[0].cpu_us);
	struct report r = {0};

	report_word(&r, "workload", name);
	report_int(&r, "groups", g->options->groups);
	report_int(&r, "members", g->options->members);
	report_real(&r, "settled_s", settled_s, 1);
	report_real(&r, "heartbeats_per_s", (double)g->beats / took_s, 0);
	report_real(&r, "server_core_percent", cpu_us / took_s / 1e4, 2);
	report_real(&r, "server_us_per_heartbeat", g->beats ? cpu_us / (double)g->beats : 0, 2);
	report_int(&r, "heartbeats", g->beats);
	report_int(&r, "missed", g->missed);
	report_int(&r, "errors", g->errors);
	report_int(&r, "rejoined", g->rejoined);
	report_int(&r, "gone", g->gone);
	report_hist(&r, answer, &g->answer);
	report_real(&r, "server_rss_mb", (double)use[1].rss_bytes / 1e6, 1);
	report_print(&r, g->options->json);
}

static bool groups_prepare(struct groups *g, const char *topic)
{
	const struct options *o = g->options;

	g->count = (uint32_t)(o->groups * o->members);
	if (proc_raise_files() < g->count + FILES_OF_OUR_OWN) {
		fprintf(stderr, "sluice-bench: too few open files allowed for %u connections\n",
			g->count);
		return false;
	}
	g->parties = calloc(g->count, sizeof *g->parties);
	g->ep = epoll_create1(EPOLL_CLOEXEC);
	if (!g->parties || g->ep < 0 || !addrs_resolve(o->host, o->port, &g->addrs))
		return false;
	for (uint32_t i = 0; i < g->count; i++) {
		struct party *p = &g->parties[i];

		p->sock.fd = -1;
		snprintf(p->group, sizeof p->group, "bench-%llu",
			(unsigned long long)(i / o->members));
		p->member = (struct kafka_member){.group = p->group, .topic = topic};
	}
	g->turn_ns = now_ns();
	return true;
}

static void beat_for(struct groups *g, uint64_t ns)
{
	uint64_t start = now_ns();

	while (now_ns() - start < ns)
		turn_once(g);
}

int bench_kafka_groups(const struct options *o, const char *name)
{
	struct groups *g = calloc(1, sizeof *g);
	struct proc_use use[2];
	int status = EXIT_TROUBLE;
	uint64_t begun = now_ns(), start;

	if (!g)
		return status;
	g->options = o;
	g->ep = -1;
	if (!groups_prepare(g, o->topic ? o->topic : "bench-groups"))
		goto end;
	if (!settle(g)) {
		fprintf(stderr, "sluice-bench: %u of %u members are in their groups after %.0f s\n",
			g->in_group, g->count, (double)(now_ns() - begun) / 1e9);
		goto end;
	}
	beat_for(g, WARM_BEATS * o->interval * 1000000ull);
	g->rejoined = 0;
	g->measuring = true;
	start = now_ns();
	proc_read(o->pid, &use[0]);
	beat_for(g, o->seconds * 1000000000ull);
	proc_read(o->pid, &use[1]);
	groups_report(
		g, name, use, (double)(now_ns() - start) / 1e9, (double)(start - begun) / 1e9);
	status = g->gone || g->errors || g->rejoined ? EXIT_TROUBLE : EXIT_FINE;
end:
	for (uint32_t i = 0; g->parties && i < g->count; i++)
		sock_close(&g->parties[i].sock);
	if (g->ep >= 0)
		close(g->ep);
	free(g->parties);
	free(g);
	return status;
}
