/* MQTT throughput N -> N, fan-out 1 -> M and latency at a fixed rate: one loop for the three.
 * A publisher's output buffer is filled only when it is empty, then sent with one call, so
 * the cost is one system call per some hundred messages; when the server stops reading, the
 * publisher waits for the socket, which is how a server without acknowledgements says "slow".
 * In the open loop each message has a time at which it is due: one that could not leave then
 * (window or socket full) carries that time, not the later one at which it left, so that the
 * server's pauses are measured in full; our own late wake-ups are shown as late_p99. */
#include "tools/bench/mqtt_flow.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	EVENTS_MAX = 128,
	IN_BYTES = 256 * 1024,
	OUT_BYTES = 64 * 1024,
	BUFFERS_BYTES_MAX = 256 * 1024 * 1024, /* of all connections together */
	ACK_BYTES = 4
};

enum phase { PHASE_SEND, PHASE_DRAIN, PHASE_END };

struct load {
	const struct options *options;
	const char *name;
	struct fleet fleet;
	struct flow flow;
	uint32_t pub_count, sub_count;
	struct pub *pubs;
	struct sub *subs;
	bool open_loop;
	uint64_t gap_ns; /* open loop: between two messages of one publisher */
	uint64_t start_ns, stop_ns, moved_ns;
	uint64_t last_send_ns;
	enum phase phase;
	uint32_t closed;
	struct proc_use use[2];
	uint64_t self_us[2];
};

static bool load_init(struct load *l)
{
	const struct options *o = l->options;
	uint64_t count, each;

	l->pub_count = (uint32_t)o->clients;
	l->sub_count = (uint32_t)(o->subscribers ? o->subscribers : o->clients);
	count = l->pub_count + l->sub_count;
	if (!fleet_init(&l->fleet, o, (uint32_t)count))
		return false;
	l->flow.run_id = l->fleet.run_id;
	l->flow.version = (uint8_t)o->version;
	each = BUFFERS_BYTES_MAX / count;
	l->fleet.in_cap = (uint32_t)((each < IN_BYTES ? each : IN_BYTES) + o->size + 1024);
	l->fleet.out_cap = (uint32_t)((each < OUT_BYTES ? each : OUT_BYTES) + o->size + 1024);
	l->pubs = calloc(l->pub_count, sizeof *l->pubs);
	l->subs = calloc(l->sub_count, sizeof *l->subs);
	if (!l->pubs || !l->subs)
		return false;
	for (uint32_t i = 0; i < l->pub_count; i++) {
		struct client *c = &l->fleet.clients[l->sub_count + i];

		if (!pub_init(&l->pubs[i], &l->flow, o, i))
			return false;
		if (o->count)
			l->pubs[i].limit = o->count / l->pub_count + (i < o->count % l->pub_count);
		c->role = 'p';
		c->pub = &l->pubs[i];
	}
	return true;
}

/* Gives subscriber i the topic of publisher i modulo their number; the topic of a publisher
 * is spelled once, in its packet. */
static bool subscribers_init(struct load *l, char **filters)
{
	for (uint32_t i = 0; i < l->sub_count; i++) {
		struct client *c = &l->fleet.clients[i];
		uint32_t from = i % l->pub_count;

		filters[i] = malloc(MQTT_NAME_BYTES_MAX + 16);
		if (!filters[i])
			return false;
		snprintf(filters[i], MQTT_NAME_BYTES_MAX + 16, "%s%u", l->options->topic, from);
		l->subs[i].source = &l->pubs[from];
		c->role = 's';
		c->filter = filters[i];
		c->sub = &l->subs[i];
	}
	return true;
}

static void client_lost(struct load *l, struct client *c, const char *why)
{
	if (c->state == CLIENT_GONE)
		return;
	if (l->closed++ == 0)
		fprintf(stderr, "sluice-bench: client %c-%u: %s%s%s\n", c->role, c->index, why,
			errno ? ": " : "", errno ? strerror(errno) : "");
	sock_close(&c->sock);
	c->state = CLIENT_GONE;
}

/* Fills the output of a publisher as far as window, buffer and schedule allow. */
static void pub_fill(struct load *l, struct client *c, uint64_t now)
{
	struct pub *p = c->pub;
	struct sock *s = &c->sock;

	while (s->out_cap - s->out_len >= p->shape.len) {
		uint64_t stamp = now;

		if (l->open_loop && p->next_due > now)
			return;
		if (!pub_open(p))
			return;
		if (l->open_loop) {
			hist_add(&l->flow.late, p->held ? 0 : now - p->next_due);
			stamp = p->held ? p->next_due : now;
			p->next_due += l->gap_ns;
			p->held = p->held && p->next_due <= now;
		}
		pub_write(p, s->out + s->out_len, stamp);
		s->out_len += (uint32_t)p->shape.len;
		l->last_send_ns = now;
	}
}

/* Fills what is not half sent already and sends it; false when the connection is gone. */
static bool pub_send(struct load *l, struct client *c, uint64_t now)
{
	struct sock *s = &c->sock;

	if (s->out_at > 0 && !sock_flush(s))
		return false;
	if (s->out_at == 0 && l->phase == PHASE_SEND)
		pub_fill(l, c, now);
	return sock_flush(s);
}

static void pub_pump(struct load *l, struct client *c, uint64_t now)
{
	struct pub *p = c->pub;
	bool hungry;

	if (c->state != CLIENT_READY)
		return;
	if (!pub_send(l, c, now)) {
		client_lost(l, c, "closed by the server");
		return;
	}
	if (l->open_loop && p->next_due <= now)
		p->held = true;
	/* Without acknowledgements the socket itself is the window: fill it whenever it takes. */
	hungry = sock_pending(&c->sock) > 0 ||
		(!l->open_loop && l->phase == PHASE_SEND && pub_open(p));
	sock_watch(&c->sock, l->fleet.ep, hungry ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
}

static bool packet_take(struct load *l, struct client *c, const struct mqtt_packet *k, uint64_t now)
{
	if (c->sub)
		return sub_on_packet(c->sub, &l->flow, &c->sock, k, now);
	return pub_on_ack(c->pub, &l->flow, &c->sock, k, now);
}

/* Parses what is there; stops while the output has no room for another acknowledgement. */
static void client_parse(struct load *l, struct client *c, uint64_t now)
{
	struct sock *s = &c->sock;
	struct mqtt_packet k;
	uint32_t at = 0;
	int64_t used = 0;

	while (s->out_cap - s->out_len >= ACK_BYTES &&
		(used = mqtt_packet_read(s->in + at, s->in_len - at, &k)) > 0) {
		if (!packet_take(l, c, &k, now)) {
			errno = 0;
			fprintf(stderr, "sluice-bench: packet type %u flags %u length %u\n", k.type,
				k.flags, k.len);
			client_lost(l, c, "a packet that is not allowed here");
			return;
		}
		at += (uint32_t)used;
	}
	sock_consume(s, at);
	if (used < 0 || (at == 0 && s->in_len == s->in_cap && used == 0 && sock_pending(s) == 0))
		client_lost(l, c, "malformed or too large a packet");
	if (at > 0)
		l->moved_ns = now;
}

static void on_event(struct load *l, struct client *c, uint32_t events)
{
	struct sock *s = &c->sock;

	if (c->state != CLIENT_READY)
		return;
	errno = 0;
	/* Output first: it makes room for the acknowledgements of input that had to wait. */
	if ((sock_pending(s) && !sock_flush(s)) ||
		((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && sock_fill(s) < 0)) {
		client_lost(l, c, "closed by the server");
		return;
	}
	client_parse(l, c, now_ns());
	if (c->state != CLIENT_READY)
		return;
	if (c->pub)
		pub_pump(l, c, now_ns());
	else if (!sock_flush(s))
		client_lost(l, c, "closed by the server");
	else
		sock_watch(s, l->fleet.ep, sock_pending(s) ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
}

static uint64_t load_accepted(const struct load *l, uint64_t *expected)
{
	uint64_t accepted = 0;

	*expected = 0;
	for (uint32_t i = 0; i < l->pub_count; i++)
		accepted += l->pubs[i].qos ? l->pubs[i].acked : l->pubs[i].sent;
	for (uint32_t i = 0; i < l->sub_count; i++) {
		const struct pub *p = l->subs[i].source;

		*expected += p->qos ? p->acked : p->sent;
	}
	return accepted;
}

static bool load_drained(const struct load *l)
{
	for (uint32_t i = 0; i < l->pub_count; i++) {
		const struct pub *p = &l->pubs[i];
		const struct client *c = &l->fleet.clients[l->sub_count + i];

		if (c->state == CLIENT_READY &&
			(sock_pending(&c->sock) || (p->qos && p->acked + p->refused < p->sent)))
			return false;
	}
	for (uint32_t i = 0; i < l->sub_count; i++) {
		const struct pub *p = l->subs[i].source;

		if (l->subs[i].unique < (p->qos ? p->acked : p->sent))
			return false;
	}
	return true;
}

static bool all_sent(const struct load *l)
{
	for (uint32_t i = 0; i < l->pub_count; i++)
		if (l->pubs[i].sent < l->pubs[i].limit)
			return false;
	return true;
}

/* Pumps the publishers that are due; how long the loop may sleep until the next one is. */
static uint64_t open_loop_turn(struct load *l)
{
	uint64_t now = now_ns();
	uint64_t next = now + 50000000;

	for (uint32_t i = 0; i < l->pub_count; i++) {
		struct client *c = &l->fleet.clients[l->sub_count + i];

		if (l->pubs[i].next_due <= now)
			pub_pump(l, c, now);
		if (l->pubs[i].next_due < next && !l->pubs[i].held)
			next = l->pubs[i].next_due;
	}
	now = now_ns();
	return next > now ? next - now : 0;
}

static void phase_move(struct load *l, uint64_t now)
{
	uint64_t drain_ns = l->options->drain * 1000000000u;

	if (l->phase == PHASE_SEND && (now >= l->stop_ns || l->closed || all_sent(l))) {
		l->phase = PHASE_DRAIN;
		l->moved_ns = now;
	}
	if (l->phase == PHASE_DRAIN && (load_drained(l) || now - l->moved_ns > drain_ns))
		l->phase = PHASE_END;
}

static void load_run(struct load *l)
{
	struct epoll_event events[EVENTS_MAX];

	l->start_ns = now_ns();
	l->stop_ns = l->options->count ? UINT64_MAX
				       : l->start_ns + l->options->seconds * 1000000000u;
	for (uint32_t i = 0; i < l->pub_count; i++) {
		l->pubs[i].next_due = l->start_ns +
			l->gap_ns / l->pub_count * i; /* spread evenly */
		pub_pump(l, &l->fleet.clients[l->sub_count + i], l->start_ns);
	}
	while (l->phase != PHASE_END) {
		uint64_t sleep_ns = l->open_loop && l->phase == PHASE_SEND ? open_loop_turn(l)
									   : 20000000;
		struct timespec t = {.tv_nsec = (long)sleep_ns};
		int n = epoll_pwait2(l->fleet.ep, events, EVENTS_MAX, &t, NULL);

		for (int i = 0; i < n; i++)
			on_event(l, events[i].data.ptr, events[i].events);
		phase_move(l, now_ns());
	}
}

struct totals {
	uint64_t sent, accepted, refused, expected, unique, twice, disorder;
};

static struct totals load_totals(const struct load *l)
{
	struct totals t = {0};

	t.accepted = load_accepted(l, &t.expected);
	for (uint32_t i = 0; i < l->pub_count; i++) {
		t.sent += l->pubs[i].sent;
		t.refused += l->pubs[i].refused;
	}
	for (uint32_t i = 0; i < l->sub_count; i++) {
		t.unique += l->subs[i].unique;
		t.twice += l->subs[i].twice;
		t.disorder += l->subs[i].disorder;
	}
	return t;
}

static uint64_t lost_count(const struct load *l)
{
	uint64_t lost = 0;

	/* By subscriber: a message delivered though never acknowledged must not make up for
	 * one that was acknowledged and never came. */
	for (uint32_t i = 0; i < l->sub_count; i++) {
		const struct pub *p = l->subs[i].source;
		uint64_t accepted = p->qos ? p->acked : p->sent;

		if (l->subs[i].unique < accepted)
			lost += accepted - l->subs[i].unique;
	}
	return lost;
}

static void load_report(const struct load *l, const struct totals *t)
{
	static const char *const deliver[5] = {"deliver_p50_ms", "deliver_p90_ms", "deliver_p99_ms",
		"deliver_p999_ms", "deliver_max_ms"};
	static const char *const ack[5] = {
		"ack_p50_ms", "ack_p90_ms", "ack_p99_ms", "ack_p999_ms", "ack_max_ms"};
	const struct options *o = l->options;
	struct report r = {0};
	uint64_t in_end = o->qos ? l->flow.last_ack_ns : l->last_send_ns;
	double in_s = (double)(in_end - l->start_ns) / 1e9;
	double out_s = (double)(l->flow.last_delivery_ns - l->start_ns) / 1e9;
	double handled = (double)(t->accepted + t->unique);
	double cpu_us = (double)(l->use[1].cpu_us - l->use[0].cpu_us);

	report_word(&r, "workload", l->name);
	report_int(&r, "qos", o->qos);
	report_int(&r, "version", o->version);
	report_int(&r, "publishers", l->pub_count);
	report_int(&r, "subscribers", l->sub_count);
	report_int(&r, "size", o->size);
	report_real(&r, "in_per_s", t->accepted && in_s > 0 ? (double)t->accepted / in_s : 0, 0);
	report_real(&r, "out_per_s", t->unique && out_s > 0 ? (double)t->unique / out_s : 0, 0);
	report_real(&r, "server_us_per_msg", handled > 0 ? cpu_us / handled : 0, 2);
	report_int(&r, "sent", t->sent);
	report_int(&r, "accepted", t->accepted);
	report_int(&r, "delivered", t->unique);
	report_int(&r, "lost", lost_count(l));
	report_int(&r, "twice", t->twice);
	report_int(&r, "disorder", t->disorder);
	report_int(&r, "refused", t->refused);
	report_int(&r, "closed", l->closed);
	report_hist(&r, deliver, &l->flow.deliver);
	if (o->qos)
		report_hist(&r, ack, &l->flow.ack);
	if (l->open_loop)
		report_real(&r, "late_p99_ms", (double)hist_at(&l->flow.late, 0.99) / 1e6, 3);
	report_real(&r, "server_cpu_s", cpu_us / 1e6, 2);
	report_real(&r, "server_rss_mb", (double)l->use[1].rss_bytes / 1e6, 1);
	report_int(&r, "server_threads", l->use[1].threads);
	report_real(&r, "bench_cpu_s", (double)(l->self_us[1] - l->self_us[0]) / 1e6, 2);
	report_print(&r, o->json);
}

static int load_verdict(const struct load *l, const struct totals *t)
{
	uint64_t unanswered = l->options->qos ? t->sent - t->accepted - t->refused : 0;

	if (unanswered)
		fprintf(stderr, "sluice-bench: %llu publishes were never acknowledged\n",
			(unsigned long long)unanswered);
	if (!l->options->loss_ok &&
		(lost_count(l) || (l->options->qos == 2 && t->twice) || t->disorder))
		return EXIT_LOST;
	return l->closed || t->refused || unanswered || t->accepted == 0 ? EXIT_TROUBLE : EXIT_FINE;
}

static void load_fini(struct load *l, char **filters)
{
	fleet_fini(&l->fleet);
	for (uint32_t i = 0; l->pubs && i < l->pub_count; i++)
		pub_fini(&l->pubs[i]);
	for (uint32_t i = 0; l->subs && i < l->sub_count; i++)
		sub_fini(&l->subs[i]);
	for (uint32_t i = 0; filters && i < l->sub_count; i++)
		free(filters[i]);
	free(filters);
	free(l->pubs);
	free(l->subs);
	free(l);
}

/* Narrows the windows to what the server lets be unacknowledged (MQTT 5 §3.2.2.3.3). */
static void windows_narrow(struct load *l)
{
	for (uint32_t i = 0; i < l->pub_count; i++) {
		uint16_t allowed = l->fleet.clients[l->sub_count + i].receive_max;

		if (allowed && allowed < l->pubs[i].window)
			l->pubs[i].window = l->pubs[i].free_count = allowed;
	}
}

int bench_mqtt_load(const struct options *o, const char *name)
{
	struct load *l = calloc(1, sizeof *l);
	char **filters = NULL;
	struct totals totals;
	int status = EXIT_TROUBLE;

	if (!l)
		return EXIT_TROUBLE;
	l->options = o;
	l->name = name;
	l->open_loop = o->rate > 0;
	l->gap_ns = o->rate ? 1000000000u * o->clients / o->rate : 0;
	proc_raise_files();
	proc_tight_timers();
	if (!load_init(l))
		goto end;
	filters = calloc(l->sub_count, sizeof *filters);
	if (!filters || !subscribers_init(l, filters))
		goto end;
	if (!fleet_connect(&l->fleet)) {
		fprintf(stderr, "sluice-bench: %s\n", l->fleet.trouble);
		goto end;
	}
	windows_narrow(l);
	proc_read(o->pid, &l->use[0]);
	l->self_us[0] = proc_self_cpu_us();
	load_run(l);
	proc_read(o->pid, &l->use[1]);
	l->self_us[1] = proc_self_cpu_us();
	totals = load_totals(l);
	load_report(l, &totals);
	status = load_verdict(l, &totals);
end:
	load_fini(l, filters);
	return status;
}
