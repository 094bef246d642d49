/* A dialled connection: waiting -> dialling -> greeting (our hello is said) -> up, and from each of
 * them back to waiting, for longer each time it did not get up. The connection's state points to
 * its node until one of them goes; nodes and connections end in any order. */
#include <stdio.h>
#include "cluster/peer_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"

struct out_state {
	struct peer_to *to; /* NULL: let go */
};

static void note_why(struct peer_to *t, const char *why)
{
	snprintf(t->why, sizeof t->why, "%s", why);
}

const char *peer_not_a_node(const struct peer_home *h)
{
	return h->peers->conf.tls ? "what answers there is not a node"
				  : "what answers there is not a node, or speaks TLS (peer.tls)";
}

const char *peer_closed_early(const struct conn *c, enum err why)
{
	return conn_is_tls(c) && why == ERR_PROTOCOL
		? "TLS: broken off, our certificate may not please"
		: "closed before it said who it is";
}

/* 100 ms, doubled each time, at most 2 s, and somewhere between three quarters and all of it: nodes
 * that lost each other do not come back in step. */
static void wait_for_retry(struct peer_to *t)
{
	int64_t ms = PEER_BACKOFF_MIN_MS;
	for (uint32_t i = 0; i < t->attempts && ms < PEER_BACKOFF_MAX_MS; i++)
		ms *= 2;
	ms = ms < PEER_BACKOFF_MAX_MS ? ms : PEER_BACKOFF_MAX_MS;
	ms -= (int64_t)(random_u64() % (uint64_t)(ms / 4 + 1));
	t->attempts++;
	t->retry_ms = loop_now_ms(t->home->loop) + ms;
	peer_hurry(t->home);
}

/* It did not get up. One line when it starts and when the reason changes. */
static void failed(struct peer_to *t, const char *why)
{
	bool news = strcmp(t->told_why, why) != 0;
	peer_count(t->home, M_DIALS_FAILED, 1);
	note_why(t, why);
	memcpy(t->told_why, t->why, sizeof t->told_why);
	wait_for_retry(t);
	if (news)
		LOG(LOG_WARN, AREA_CLUSTER, "peer_unreachable", "node=%u address=%s why=\"%s\"",
			t->id, peer_words(bytes_text(t->to)).text, t->why);
}

void peer_rooms_run(struct peer_to *t)
{
	struct list now, *n;
	list_init(&now);
	while ((n = list_pop(&t->rooms)) != NULL)
		list_push_back(&now, n);
	while ((n = list_pop(&now)) != NULL) {
		struct peer_room *w = list_entry(n, struct peer_room, node);
		w->room(w);
	}
}

/* It was up. */
static void lost(struct peer_to *t, enum err call_err)
{
	t->up = false;
	t->since_ms = loop_now_wall_ms(t->home->loop);
	peer_link_close(&t->link);
	peer_count(t->home, M_CONNECTED, -1);
	peer_count(t->home, M_LOST, 1);
	peer_calls_lost(t, call_err);
	peer_rooms_run(t);
	peer_tell_watchers(t->home, t->id, false);
}

/* --- the adapter --- */

static enum err out_opened(struct conn *c)
{
	struct out_state *s = conn_state(c);
	struct peer_to *t = s->to = conn_door_arg(c);
	struct peer_hello hello;
	atomic_fetch_add(&t->home->peers->conns, 1);
	t->greeting = c;
	t->why[0] = 0;
	peer_hello_of(t->home, PEER_FOR_FRAMES, &hello);
	memcpy(t->cluster, hello.cluster, sizeof t->cluster);
	enum err e = peer_hello_write(conn_out(c), &hello);
	conn_wrote(c);
	conn_deadline(c, PEER_HELLO_MS);
	return e;
}

static bool contented(struct peer_to *t, struct conn *c, const struct peer_hello *hello)
{
	struct peer_home *h = t->home;
	struct peer_hello ours;
	enum peer_refusal code = REFUSED_NOT;
	char why[200] = "";
	peer_hello_of(h, PEER_FOR_FRAMES, &ours);
	if (hello->node != t->id) {
		code = REFUSED_NODE;
		snprintf(why, sizeof why, "node %u was dialled, and node %u is there", t->id,
			hello->node);
	} else if (peer_version_common(&ours, hello) == 0) {
		code = REFUSED_VERSION;
		snprintf(why, sizeof why, "speaks versions %u to %u, this node %u to %u",
			hello->version_min, hello->version_max, ours.version_min, ours.version_max);
	} else if (peer_other_cluster(h, hello, why, sizeof why)) {
		code = REFUSED_CLUSTER;
	} else if (t->checked && memcmp(hello->instance, t->instance, 16) != 0) {
		code = REFUSED_INSTANCE;
		snprintf(why, sizeof why,
			"node %u is there with other data than the cluster knows it with", t->id);
	}
	if (code == REFUSED_NOT)
		return true;
	note_why(t, why);
	conn_close(c, peer_refuse(h, c, code, hello->node, why));
	return false;
}

static enum err on_hello(struct peer_to *t, struct conn *c, struct bytes body)
{
	struct peer_hello hello;
	enum err e = peer_hello_read(body, &hello);
	if (e != OK) {
		note_why(t, peer_not_a_node(t->home));
		return e;
	}
	if (!contented(t, c, &hello))
		return OK;
	peer_met(t, &hello);
	t->greeting = NULL;
	t->up = true;
	t->attempts = 0;
	t->why[0] = t->told_why[0] = 0;
	t->since_ms = loop_now_wall_ms(t->home->loop);
	t->ping_ms = 0;
	conn_deadline(c, 0);
	peer_link_open(&t->link, t->home, c);
	peer_count(t->home, M_CONNECTED, 1);
	peer_count(t->home, M_CONNECTS, 1);
	LOG(LOG_INFO, AREA_CLUSTER, "peer_up", "node=%u address=%s loop=%d", t->id,
		peer_words(bytes_text(t->to)).text, loop_index(t->home->loop));
	peer_tell_watchers(t->home, t->id, true);
	return OK;
}

static void tell_verdict(const struct peer_to *t, enum peer_refusal code, const char *words)
{
	const struct peers *p = t->home->peers;
	enum peer_verdict v = code == REFUSED_REMOVED ? PEER_SAYS_REMOVED
		: code == REFUSED_RUNS                ? PEER_SAYS_RUNS
		: code == REFUSED_RUNS_NEWER          ? PEER_SAYS_RUNS_NEWER
		: code == REFUSED_INSTANCE            ? PEER_SAYS_OTHER_DATA
						      : PEER_VERDICT_COUNT;
	if (v != PEER_VERDICT_COUNT && p->judged != NULL && p->judged_loop == t->home->loop)
		p->judged(p->judged_arg, v, t->id, words);
}

static enum err on_refusal(struct peer_to *t, struct bytes body)
{
	enum peer_refusal code;
	struct bytes text;
	char why[160];
	if (peer_refusal_read(body, &code, &text) != OK)
		return ERR_MALFORMED;
	snprintf(why, sizeof why, "refused: %s", peer_words(text).text);
	note_why(t, why);
	tell_verdict(t, code, peer_words(text).text);
	return ERR_DENIED;
}

static enum err on_pong(struct peer_to *t, struct bytes body)
{
	struct rd r = rd_over(body);
	uint64_t sent_us = rd_u64be(&r);
	int64_t took = clock_us() - (int64_t)sent_us;
	if (r.err != OK)
		return r.err;
	if (took < 0 || took > 3600000000)
		return ERR_PROTOCOL; /* not what we sent */
	t->rtt_us = took;
	peer_count(t->home, M_PINGS, 1);
	peer_count(t->home, M_ROUND_TRIP_US, took);
	return OK;
}

static enum err on_frame(struct peer_to *t, struct conn *c, const struct peer_frame *f)
{
	struct slice body;
	bool owned;
	if (f->kind == PEER_REFUSAL)
		return on_refusal(t, f->body);
	if (!t->up)
		return f->kind == PEER_HELLO ? on_hello(t, c, f->body) : ERR_PROTOCOL;
	if (f->kind == PEER_PONG)
		return on_pong(t, f->body);
	if (f->kind != PEER_ANSWER)
		return ERR_PROTOCOL;
	enum err e = peer_body(t->home, c, f, &body, &owned);
	if (e == OK)
		e = peer_on_answer(t, body);
	if (owned)
		slice_unref(&body);
	return e;
}

static enum err out_input(struct conn *c)
{
	struct out_state *s = conn_state(c);
	struct peer_frame f;
	while (s->to != NULL && !conn_is_closing(c)) {
		size_t max = s->to->up ? PEER_FRAME_BYTES_MAX : PEER_HELLO_BYTES_MAX;
		enum err e = peer_frame_read(conn_input(c), max, &f);
		if (s->to->up)
			s->to->link.heard_ms = loop_now_ms(conn_loop(c));
		if (e == ERR_MORE) {
			conn_need(c, f.length);
			return OK;
		}
		if (e == OK)
			e = on_frame(s->to, c, &f);
		if (e != OK) {
			if (s->to != NULL && !s->to->up && s->to->why[0] == 0)
				note_why(s->to, peer_not_a_node(s->to->home));
			return e;
		}
		conn_consume(c, f.length);
	}
	return OK;
}

static void out_drained(struct conn *c)
{
	struct out_state *s = conn_state(c);
	if (s->to == NULL || !s->to->up)
		return;
	peer_link_pump(&s->to->link);
	if (peer_link_room(&s->to->link))
		peer_rooms_run(s->to);
}

static void out_timeout(struct conn *c)
{
	struct out_state *s = conn_state(c);
	if (s->to != NULL)
		note_why(s->to, "no hello in answer to ours");
	conn_close(c, ERR_TIMEOUT);
}

static void out_closed(struct conn *c, enum err why)
{
	struct out_state *s = conn_state(c);
	struct peer_to *t = s->to;
	struct peers *p = t != NULL ? t->home->peers : NULL;
	if (t == NULL)
		return; /* counted when it was let go */
	s->to = NULL;
	atomic_fetch_sub(&p->conns, 1);
	if (!t->up) {
		char text[sizeof t->why];
		t->greeting = NULL;
		if (t->why[0] == 0 || (conn_is_tls(c) && why == ERR_PROTOCOL))
			note_why(t, peer_closed_early(c, why));
		memcpy(text, t->why, sizeof text);
		failed(t, text);
		return;
	}
	if (t->why[0] == 0)
		note_why(t, err_text(why));
	LOG(LOG_WARN, AREA_CLUSTER, "peer_lost", "node=%u loop=%d why=\"%s\"", t->id,
		loop_index(t->home->loop), t->why);
	wait_for_retry(t);
	lost(t, ERR_UNKNOWN);
}

static const struct conn_kind out_kind = {
	.name = "peer",
	.state_bytes = sizeof(struct out_state),
	.opened = out_opened,
	.input = out_input,
	.drained = out_drained,
	.timeout = out_timeout,
	.closed = out_closed,
};

/* --- dialling --- */

static void on_dialled(struct dial *d)
{
	struct peer_to *t = list_entry(d, struct peer_to, dial);
	t->dialling = false;
	if (d->err != OK && t->greeting == NULL)
		failed(t, d->why);
}

/* The address of this attempt: what the node said of itself and what we were told, each perhaps a
 * comma list, in turn. */
static bool pick_address(struct peer_to *t)
{
	const char *lists[2] = {t->said, t->address};
	const char *items[16];
	size_t lens[16];
	uint32_t count = 0;
	for (int i = 0; i < 2; i++)
		for (const char *at = lists[i]; at != NULL && *at != 0 && count < 16;) {
			size_t len = strcspn(at, ",");
			items[count] = at;
			lens[count++] = len;
			at += len + (at[len] == ',');
		}
	if (count == 0)
		return false;
	uint32_t at = t->attempts % count;
	snprintf(t->to, sizeof t->to, "%.*s", (int)lens[at], items[at]);
	return true;
}

void peer_out_look(struct peer_to *t, int64_t now_ms)
{
	const struct peers *p = t->home->peers;
	if (t->dialling || t->greeting != NULL || t->up || now_ms < t->retry_ms || t->removed ||
		!pick_address(t))
		return;
	t->dialling = true;
	t->dial = (struct dial){.net = p->net,
		.address = t->to,
		.kind = &out_kind,
		.arg = t,
		.tls = p->conf.tls,
		.timeout_ms = PEER_DIAL_MS,
		.done = on_dialled};
	dial_start(&t->dial);
}

void peer_out_ping(struct peer_to *t, int64_t now_ms)
{
	uint8_t at[8];
	if (!t->up || now_ms - t->ping_ms < PEER_PING_MS)
		return;
	t->ping_ms = now_ms;
	put_u64be(at, (uint64_t)clock_us());
	(void)peer_link_send(t->home, &t->link, LANE_HIGH,
		&(struct peer_message){.kind = PEER_PING, .head = bytes_of(at, sizeof at)});
}

void peer_out_drop(struct peer_to *t, enum err why)
{
	struct conn *c = t->up ? t->link.conn : t->greeting;
	if (t->dialling)
		dial_cancel(&t->dial);
	t->dialling = false;
	t->greeting = NULL;
	if (c != NULL) {
		((struct out_state *)conn_state(c))->to = NULL;
		atomic_fetch_sub(&t->home->peers->conns, 1);
		conn_close(c, why);
	}
	if (t->up)
		lost(t, why == ERR_CLOSED ? ERR_CLOSED : ERR_UNKNOWN);
}

void peer_out_kick(struct peer_to *t)
{
	t->retry_ms = 0;
	if (t->home->started && !t->home->stopped)
		peer_out_look(t, loop_now_ms(t->home->loop));
}
