/* An accepted connection: nameless until its hello, then moved to the loop that corresponds to the
 * sender's, where its frames are handed out. The number of loops may differ between nodes: a frame
 * whose group lives on another loop crosses over, many in one message, and the connection pauses
 * while too much is on its way. */
#include <stdio.h>
#include "cluster/peer_priv.h"
#include "server/base/log.h"

/* --- crossing to other loops --- */

enum { CROSSING_FRAMES = 64 };

struct crossing {
	struct loop_msg msg;
	struct peer_home *to;
	struct peer_origin from;
	size_t bytes;
	int count;
	struct {
		uint8_t kind;
		uint64_t group;
		struct slice body;
	} frames[CROSSING_FRAMES];
};

/* On the home loop of the group. Borrows body's share. */
static void hand_out(struct peer_home *h, const struct peer_origin *from, uint8_t kind,
	uint64_t group, struct slice body)
{
	const struct peer_table_handler *handler = &h->peers->handlers[kind];
	if (kind == PEER_CALL)
		peer_on_call(h, from, group, body);
	else if (handler->fn != NULL)
		handler->fn(handler->arg, from->node, group, body);
}

static void on_returned(struct loop_msg *m)
{
	struct crossing *x = list_entry(m, struct crossing, msg);
	struct peer_in *in = map_get_u64(&x->from.home->serials, x->from.serial);
	if (in != NULL) {
		in->crossing_bytes -= x->bytes;
		if (in->paused && in->crossing_bytes <= PEER_CROSSING_BYTES_MAX / 2) {
			in->paused = false;
			conn_resume(in->conn);
		}
	}
	mem_free(x);
}

static void on_crossed(struct loop_msg *m)
{
	struct crossing *x = list_entry(m, struct crossing, msg);
	for (int i = 0; i < x->count; i++) {
		if (!x->to->stopped)
			hand_out(x->to, &x->from, x->frames[i].kind, x->frames[i].group,
				x->frames[i].body);
		slice_unref(&x->frames[i].body);
	}
	x->msg.run = on_returned;
	loop_post(x->from.home->loop, &x->msg);
}

static void send_crossing(struct peer_home *h, int loop)
{
	struct crossing *x = h->crossing[loop];
	h->crossing[loop] = NULL;
	loop_post(x->to->loop, &x->msg);
}

static void cross(
	struct peer_in *in, struct peer_home *to, const struct peer_frame *f, struct slice body)
{
	struct peer_home *h = in->home;
	int loop = loop_index(to->loop);
	struct crossing *x = h->crossing[loop];
	if (x == NULL) {
		x = h->crossing[loop] = mem_new(sizeof *x);
		x->msg.run = on_crossed;
		x->to = to;
		x->from = (struct peer_origin){h, in->serial, in->from};
	}
	x->frames[x->count].kind = f->kind;
	x->frames[x->count].group = f->group;
	x->frames[x->count++].body = slice_ref(body);
	x->bytes += f->length;
	in->crossing_bytes += f->length;
	if (x->count == CROSSING_FRAMES)
		send_crossing(h, loop);
}

static void send_crossings(struct peer_home *h)
{
	for (int i = 0; i < h->peers->home_count; i++)
		if (h->crossing[i] != NULL)
			send_crossing(h, i);
}

/* --- hello --- */

/* Whether the one who says this may send frames; if not, in words. */
static enum peer_refusal judge(
	struct peer_home *h, const struct peer_hello *hello, char *why, size_t size)
{
	struct peer_hello ours;
	const struct peer_to *t = peer_find(h, hello->node);
	bool guest = peer_cluster_none(hello->cluster);
	peer_hello_of(h, PEER_FOR_FRAMES, &ours);
	if (peer_version_common(&ours, hello) == 0) {
		snprintf(why, size, "node %u speaks versions %u to %u, node %u only %u to %u",
			hello->node, hello->version_min, hello->version_max, ours.node,
			ours.version_min, ours.version_max);
		return REFUSED_VERSION;
	}
	if (hello->purpose == PEER_FOR_PROBE)
		return REFUSED_NOT;
	if (hello->node == ours.node) {
		bool self = memcmp(hello->instance, ours.instance, 16) == 0;
		snprintf(why, size,
			self ? "node %u is this one itself" : "two nodes have the id %u",
			ours.node);
		return self ? REFUSED_SELF : REFUSED_SAME_ID;
	}
	if (peer_other_cluster(h, hello, why, size))
		return REFUSED_CLUSTER;
	if (!guest && peer_cluster_none(h->cluster)) {
		snprintf(why, size, "node %u is of no cluster yet", ours.node);
		return REFUSED_EMPTY;
	}
	if (!guest && t != NULL && t->removed &&
		(!t->checked || memcmp(t->instance, hello->instance, 16) == 0)) {
		snprintf(why, size, "node %u was removed from the cluster", hello->node);
		return REFUSED_REMOVED;
	}
	if (!guest && t != NULL && t->checked && memcmp(t->instance, hello->instance, 16) != 0) {
		snprintf(why, size, "the cluster knows node %u with other data", hello->node);
		return REFUSED_INSTANCE;
	}
	return REFUSED_NOT;
}

static enum err refuse(struct peer_in *in, enum peer_refusal code, const char *why)
{
	return peer_refuse(in->home, in->conn, code, in->hello.node, why);
}

static enum err greet(struct peer_in *in)
{
	struct peer_hello ours;
	peer_hello_of(in->home, PEER_FOR_FRAMES, &ours);
	enum err e = peer_hello_write(conn_out(in->conn), &ours);
	conn_wrote(in->conn);
	return e;
}

/* A sender has one connection per loop: an older one is what is left of it. */
static void close_older(struct peer_home *h, const struct peer_in *newer)
{
	for (struct list *n = h->ins.next; n != &h->ins; n = n->next) {
		struct peer_in *in = list_entry(n, struct peer_in, node);
		if (in != newer && in->from == newer->from && in->loop == newer->loop)
			conn_close(in->conn, ERR_CLOSED);
	}
}

static void enter(struct peer_home *h, struct peer_in *in)
{
	in->home = h;
	list_push_back(&h->ins, &in->node);
	h->in_count++;
}

/* Another process with the data of one that is connected: two that think and vote as one would
 * break every promise. The one that is here stays; if it is dead it is found silent soon. */
static enum err runs_twice(struct peer_home *h, struct peer_in *newer)
{
	for (struct list *n = h->ins.next; n != &h->ins; n = n->next) {
		const struct peer_in *in = list_entry(n, struct peer_in, node);
		char why[200];
		if (in == newer || in->from != newer->from || conn_is_closing(in->conn) ||
			in->hello.boot == newer->hello.boot ||
			memcmp(in->hello.instance, newer->hello.instance, 16) != 0)
			continue;
		snprintf(why, sizeof why, "another process with the data of node %u runs at %.100s",
			in->from, peer_words(in->hello.address).text);
		return refuse(newer,
			in->hello.boot < newer->hello.boot ? REFUSED_RUNS : REFUSED_RUNS_NEWER,
			why);
	}
	return OK;
}

/* A list reaches the loops one by one: where it came in there may have been an older one. */
static enum err judge_again(struct peer_in *in)
{
	char why[200];
	if (in->home->in_count > PEER_INS_MAX)
		return refuse(in, REFUSED_FULL, "too many connections of nodes");
	enum peer_refusal code = judge(in->home, &in->hello, why, sizeof why);
	return code != REFUSED_NOT ? refuse(in, code, why) : runs_twice(in->home, in);
}

/* On the loop where it stays. */
static void settled(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	struct peer_home *h = in->home;
	in->serial = ++h->next_serial;
	(void)map_put_u64(&h->serials, in->serial, in);
	peer_link_open(&in->link, h, c);
	if (h->stopped) {
		conn_close(c, ERR_CLOSED);
		return;
	}
	if (conn_is_closing(c))
		return;
	conn_deadline(c, 0);
	enum err e = judge_again(in);
	if (e == OK)
		e = greet(in);
	if (e != OK) {
		conn_close(c, e);
		return;
	}
	close_older(h, in);
	if (in->guest)
		return;
	struct peer_to *t = peer_learn(h, &in->hello);
	if (t != NULL)
		peer_out_kick(t);
}

static void on_moved(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	enter(&in->home->peers->homes[loop_index(conn_loop(c))], in);
	settled(c);
}

/* Copies the hello, as its texts must live as long as the connection. */
static enum err keep_hello(struct peer_in *in, const struct peer_frame *f)
{
	enum err e = conn_input_slice(in->conn, f->length, &in->held);
	if (e != OK)
		return e;
	e = peer_hello_read(bytes_of(in->held.bytes.at + PEER_HEAD_BYTES, f->body.len), &in->hello);
	if (e != OK)
		slice_unref(&in->held);
	return e;
}

static enum err on_hello(struct peer_in *in, const struct peer_frame *f)
{
	struct peer_home *h = in->home;
	char why[200];
	enum err e = keep_hello(in, f);
	if (e != OK)
		return e;
	conn_consume(in->conn, f->length);
	enum peer_refusal code = judge(h, &in->hello, why, sizeof why);
	if (code != REFUSED_NOT)
		return refuse(in, code, why);
	if (in->hello.purpose == PEER_FOR_PROBE) { /* it asks no more; its deadline stays */
		in->probe = true;
		/* It sees by our hello that it must not come in: here that is told, too. */
		if (peer_other_cluster(h, &in->hello, why, sizeof why))
			LOG(LOG_WARN, AREA_CLUSTER, "peer_stranger", "peer=%s node=%u why=\"%s\"",
				conn_peer(in->conn), in->hello.node, why);
		return greet(in);
	}
	struct peer_home *to = &h->peers->homes[in->hello.loop % h->peers->home_count];
	in->from = in->hello.node;
	in->loop = in->hello.loop;
	in->guest = peer_cluster_none(in->hello.cluster) || peer_cluster_none(h->cluster);
	h->nameless--;
	if (to == h) {
		settled(in->conn);
		return OK;
	}
	list_remove(&in->node);
	h->in_count--;
	conn_move(in->conn, to->loop, on_moved);
	return OK;
}

/* --- frames --- */

static enum err on_ping(struct peer_in *in, struct bytes body)
{
	(void)peer_link_send(in->home, &in->link, LANE_HIGH,
		&(struct peer_message){
			.kind = PEER_PONG, .head = body.len == 8 ? body : bytes_of("", 0)});
	return body.len == 8 ? OK : ERR_MALFORMED;
}

static bool take_call(struct peer_in *in, const struct peer_frame *f)
{
	enum err e = OK;
	if (in->guest && !peer_guest_may(f->body))
		e = ERR_DENIED;
	else if (in->requests >= PEER_REQUESTS_MAX ||
		(in->request_bytes > 0 && in->request_bytes + f->body.len > PEER_REQUEST_BYTES_MAX))
		e = ERR_BUSY;
	if (e == OK) {
		in->requests++;
		in->request_bytes += f->body.len;
		return true;
	}
	peer_call_refuse(in, f->body, e);
	return false;
}

static enum err on_frame(struct peer_in *in, const struct peer_frame *f)
{
	struct peer_home *h = in->home;
	struct slice body;
	bool owned;
	if (f->kind == PEER_PING)
		return on_ping(in, f->body);
	if (f->kind == PEER_REFUSAL) /* our hello did not please: the other one has said why */
		return ERR_DENIED;
	if (f->kind == PEER_CALL) {
		if (f->body.len < PEER_CALL_BYTES)
			return ERR_MALFORMED;
		if (!take_call(in, f))
			return OK;
	} else if (f->kind >= PEER_KIND_COUNT || in->guest) {
		return OK; /* of a later version, perhaps */
	}
	enum err e = peer_body(h, in->conn, f, &body, &owned);
	if (e != OK)
		return e;
	struct peer_home *to = &h->peers->homes[f->group % (uint64_t)h->peers->home_count];
	if (to == h)
		hand_out(
			h, &(struct peer_origin){h, in->serial, in->from}, f->kind, f->group, body);
	else
		cross(in, to, f, body);
	if (owned)
		slice_unref(&body);
	return OK;
}

static enum err log_refused(struct peer_in *in, enum err e)
{
	const char *what = in->from != 0 ? "it sent what no node sends"
		: conn_is_tls(in->conn)  ? "it is not a node"
					 : "it is not a node, or speaks TLS (peer.tls)";
	if (e == ERR_DENIED)
		return e; /* told already, by us or by the other one */
	peer_count(in->home, M_REFUSED, 1);
	LOG(LOG_WARN, AREA_CLUSTER, "peer_refused", "peer=%s node=%u why=\"%s: %s\"",
		conn_peer(in->conn), in->from, what, err_text(e));
	return e;
}

/* One frame, while nothing is known of the sender. */
static enum err nameless_input(struct peer_in *in)
{
	struct peer_frame f;
	enum err e = peer_frame_read(conn_input(in->conn), PEER_HELLO_BYTES_MAX, &f);
	if (e == ERR_MORE) {
		conn_need(in->conn, f.length);
		return OK;
	}
	if (e == OK)
		e = f.kind == PEER_HELLO && !in->probe ? on_hello(in, &f) : ERR_PROTOCOL;
	return e == OK ? OK : log_refused(in, e);
}

static enum err in_input(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	struct peer_frame f;
	if (in->from == 0) {
		enum err e = nameless_input(in);
		if (e != OK || in->link.conn == NULL) /* still nameless, or on its way */
			return e;
	}
	enum err e = OK;
	in->link.heard_ms = loop_now_ms(in->home->loop);
	while (e == OK && !in->paused && !conn_is_closing(c)) {
		e = peer_frame_read(conn_input(c), PEER_FRAME_BYTES_MAX, &f);
		if (e != OK)
			break;
		e = on_frame(in, &f);
		if (e == OK)
			conn_consume(c, f.length);
		if (in->crossing_bytes > PEER_CROSSING_BYTES_MAX) {
			in->paused = true;
			conn_pause(c);
		}
	}
	send_crossings(in->home);
	if (e == ERR_MORE) {
		conn_need(c, f.length);
		e = OK;
	}
	return e == OK ? OK : log_refused(in, e);
}

static enum err in_opened(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	struct peers *p = conn_door_arg(c);
	in->conn = c;
	if (p == NULL)
		return ERR_UNAVAILABLE; /* the door is open before there is a node behind it */
	atomic_fetch_add(&p->conns, 1);
	struct peer_home *h = &p->homes[loop_index(conn_loop(c))];
	enter(h, in);
	h->nameless++;
	if (h->stopped)
		return ERR_UNAVAILABLE;
	if (h->nameless > PEER_NAMELESS_MAX || h->in_count > PEER_INS_MAX) {
		peer_count(h, M_REFUSED, 1);
		return ERR_BUSY;
	}
	conn_deadline(c, PEER_HELLO_MS);
	return OK;
}

static void in_drained(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	peer_link_pump(&in->link);
}

static void in_timeout(struct conn *c)
{
	struct peer_in *in = conn_state(c);
	if (!in->probe) {
		peer_count(in->home, M_REFUSED, 1);
		LOG(LOG_WARN, AREA_CLUSTER, "peer_refused",
			"peer=%s node=0 why=\"it has not said who it is in %d ms\"", conn_peer(c),
			PEER_HELLO_MS);
	}
	conn_close(c, ERR_TIMEOUT);
}

static void in_closed(struct conn *c, enum err why)
{
	struct peer_in *in = conn_state(c);
	struct peer_home *h = in->home;
	(void)why;
	if (h == NULL)
		return;
	if (in->from == 0)
		h->nameless--;
	if (!list_empty(&in->node)) {
		list_remove(&in->node);
		h->in_count--;
	}
	if (in->serial != 0)
		(void)map_remove_u64(&h->serials, in->serial);
	peer_link_close(&in->link);
	slice_unref(&in->held);
	atomic_fetch_sub(&h->peers->conns, 1);
}

const struct conn_kind peer_kind_in = {
	.name = "peer",
	.state_bytes = sizeof(struct peer_in),
	.opened = in_opened,
	.input = in_input,
	.drained = in_drained,
	.timeout = in_timeout,
	.closed = in_closed,
};

void peer_in_tick(struct peer_home *h, int64_t now_ms, bool granted)
{
	for (struct list *n = h->ins.next; n != &h->ins; n = n->next) {
		struct peer_in *in = list_entry(n, struct peer_in, node);
		if (in->link.conn == NULL || conn_is_closing(in->conn))
			continue;
		if (peer_link_silent(&in->link, now_ms, granted || in->paused)) {
			LOG(LOG_WARN, AREA_CLUSTER, "peer_silent", "node=%u peer=%s", in->from,
				conn_peer(in->conn));
			conn_close(in->conn, ERR_TIMEOUT);
		}
	}
}

void peer_in_close(struct peer_home *h, uint32_t node, enum err why)
{
	for (struct list *n = h->ins.next; n != &h->ins; n = n->next) {
		struct peer_in *in = list_entry(n, struct peer_in, node);
		if (node == 0 || in->from == node)
			conn_close(in->conn, why);
	}
}
