/* The life of a connection. One timer serves it throughout, since the limits of its beginning,
 * the adapter's deadline and lingering never overlap. Whatever ends a connection - the adapter,
 * the peer, an error deep in a write - only marks it and puts it on the list of the turn's end;
 * there, outside of every adapter, output leaves and `closed` runs. So no function of an adapter
 * has to expect that its connection goes away under it.
 *
 * A close from our side first ends only our half (shutdown) and reads until the peer ends its
 * own: closing with unread input would make the kernel reset the connection, and the peer lose
 * the last answer, which is the one that says why. */
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/net/conn_priv.h"

#define TO(phase) (1u << (phase))

static const struct {
	const char *name;
	unsigned next;
} phases[PHASE_COUNT] = {
	[PHASE_PROXY] = {"proxy", TO(PHASE_HANDSHAKE) | TO(PHASE_OPEN) | TO(PHASE_CLOSING)},
	[PHASE_HANDSHAKE] = {"handshake", TO(PHASE_OPEN) | TO(PHASE_CLOSING)},
	[PHASE_OPEN] = {"open", TO(PHASE_CLOSING)},
	[PHASE_CLOSING] = {"closing", TO(PHASE_LINGER) | TO(PHASE_GONE)},
	[PHASE_LINGER] = {"linger", TO(PHASE_GONE)},
	[PHASE_GONE] = {"gone", 0},
};

void conn_enter(struct conn *c, enum conn_phase to)
{
	must(phases[c->phase].next & TO(to));
	c->phase = (uint8_t)to;
}

static inline struct loop *loop_of(const struct conn *c)
{
	return c->home->loop;
}

/* Accessors */

void *conn_state(struct conn *c)
{
	return c->state;
}
void *conn_door_arg(const struct conn *c)
{
	return c->door->spec->arg;
}
struct loop *conn_loop(const struct conn *c)
{
	return c->home->loop;
}
const char *conn_peer(const struct conn *c)
{
	return c->peer;
}
bool conn_is_tls(const struct conn *c)
{
	return c->tls != NULL;
}
bool conn_is_local(const struct conn *c)
{
	return c->door->local;
}
bool conn_is_closing(const struct conn *c)
{
	return c->phase >= PHASE_CLOSING;
}
const char *conn_alpn(const struct conn *c)
{
	return c->tls ? tls_alpn(c->tls) : "";
}
const char *conn_cert_subject(const struct conn *c)
{
	return c->tls ? tls_cert_subject(c->tls) : NULL;
}
const char *conn_cert_name(const struct conn *c)
{
	return c->tls ? tls_cert_name(c->tls) : NULL;
}
const char *conn_cert_san(const struct conn *c)
{
	return c->tls ? tls_cert_san(c->tls) : NULL;
}

/* The end of the turn */

void conn_pend(struct conn *c)
{
	if (!list_empty(&c->pending) || c->phase == PHASE_GONE)
		return;
	list_push_back(&c->home->pending, &c->pending);
	loop_hook_want(loop_of(c), STAGE_FLUSH, &c->home->flush);
}

static void end_beginning(struct conn *c)
{
	if (c->begun)
		limit_gate_end(net_gate(c->home, c->door));
	c->begun = false;
}

static void uncount(struct net_home *h, const struct door *d)
{
	atomic_fetch_sub_explicit(&h->load, 1, memory_order_relaxed);
	if (!d->internal)
		limit_total_give(&h->net->limit);
}

void conn_fail_dial(struct conn *c, enum err e, const char *failure)
{
	struct dialled *d = conn_dialled(c);
	struct dialling *x = d == NULL ? NULL : d->waiting;
	if (x == NULL)
		return;
	d->waiting = NULL;
	dial_ended(x, NULL, e, failure);
}

/* The socket goes; the memory too unless somebody holds it. */
static void finish(struct conn *c)
{
	struct net_home *h = c->home;
	conn_enter(c, PHASE_GONE);
	end_beginning(c);
	loop_timer_cancel(&c->timer);
	event_del(&c->readable);
	conn_await_writable(c, false);
	tls_free(c->tls);
	c->tls = NULL;
	close(c->fd);
	c->fd = -1;
	list_remove(&c->pending);
	list_remove(&c->all);
	conn_input_drop(c);
	conn_output_drop(c);
	conn_fail_dial(c, (enum err)c->why, NULL);
	net_count(h, c->door, M_OPEN, -1);
	uncount(h, c->door);
	conn_unref(c);
}

static void tell_closed(struct conn *c)
{
	if (c->opened)
		c->kind->closed(c, (enum err)c->why);
	c->opened = false;
}

/* Output has left, or never will. */
static void finish_output(struct conn *c)
{
	bool linger = !c->eof && c->opened;
	if (linger) {
		if (c->tls != NULL)
			tls_end(c->tls);
		linger = shutdown(c->fd, SHUT_WR) == 0 && conn_discard(c);
	}
	tell_closed(c);
	if (!linger || c->home->draining || event_add(&c->readable, NULL) != 0) {
		finish(c);
		return;
	}
	conn_enter(c, PHASE_LINGER);
	conn_input_drop(c);
	conn_output_drop(c);
	loop_timer_set(&c->timer, c->home->conf->linger_ms);
}

static bool under_low(const struct conn *c)
{
	return conn_queued(c) <= net_out_low(c->home, c->door);
}

/* Moving */

struct move { /* a connection on its way to another loop */
	struct loop_msg msg;
	struct list node; /* of home->moves, until it leaves */
	struct conn *conn;
	struct net_home *to;
	void (*moved)(struct conn *c);
};

static void on_timer(struct loop_timer *t);

static void on_arrival(struct loop_msg *m)
{
	struct move *v = list_entry(m, struct move, msg);
	struct conn *c = v->conn;
	struct net_home *h = c->home = v->to;
	void (*moved)(struct conn * c) = v->moved;
	mem_free(v);
	list_push_back(&h->conns, &c->all);
	loop_timer_init(&c->timer, h->loop, on_timer);
	must(event_assign(&c->readable, loop_event_base(h->loop), c->fd, EV_READ | EV_PERSIST,
		     conn_on_readable, c) == 0);
	c->lull = false;
	net_count(h, c->door, M_OPEN, 1);
	must(c->pauses > 0);
	conn_resume(c);
	conn_pend(c); /* for output that came along */
	if (h->draining && !c->door->internal)
		conn_close(c, ERR_UNAVAILABLE);
	moved(c);
}

/* Unread input is in memory of its own by now. One that is closing stays and ends here. */
static void leave(struct conn *c)
{
	struct net_home *h = c->home;
	struct list *node = h->moves.next;
	while (list_entry(node, struct move, node)->conn != c)
		node = node->next;
	struct move *v = list_entry(node, struct move, node);
	list_remove(&v->node);
	c->moving = false;
	if (c->phase != PHASE_OPEN) {
		mem_free(v);
		conn_pend(c);
		return;
	}
	loop_timer_cancel(&c->timer);
	conn_await_writable(c, false);
	list_remove(&c->pending);
	list_remove(&c->all);
	net_count(h, c->door, M_OPEN, -1);
	atomic_fetch_sub_explicit(&h->load, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&v->to->load, 1, memory_order_relaxed);
	c->high = false;
	loop_post(v->to->loop, &v->msg);
}

bool conn_may_move(const struct conn *c)
{
	return c->phase == PHASE_OPEN && c->refs == 1 && c->pauses == 0 && !c->moving;
}

void conn_move(struct conn *c, struct loop *to, void (*moved)(struct conn *c))
{
	struct net_home *h = c->home;
	loop_must_own(h->loop);
	must(conn_may_move(c));
	struct move *v = mem_new(sizeof *v);
	*v = (struct move){.msg.run = on_arrival,
		.conn = c,
		.to = &h->net->homes[loop_index(to)],
		.moved = moved};
	list_push_back(&h->moves, &v->node);
	c->moving = true;
	conn_pause(c);
	conn_pend(c);
}

static void end_of_turn(struct conn *c)
{
	if (c->phase < PHASE_LINGER && c->writable == NULL && !conn_flush(c))
		conn_abort(c, ERR_IO);
	if (c->phase >= PHASE_LINGER)
		conn_output_drop(c);
	conn_recycle(c);
	conn_settle(c);
	if (c->moving) {
		leave(c);
	} else if (c->phase == PHASE_CLOSING && conn_queued(c) == 0 && c->writable == NULL) {
		finish_output(c);
	} else if (c->phase == PHASE_OPEN && c->high && under_low(c)) {
		c->high = false;
		if (c->kind->drained != NULL)
			c->kind->drained(c);
	}
}

/* What pends meanwhile waits for the next run, or one that always finds room would hold us. */
static void on_flush(struct loop_hook *hook)
{
	struct net_home *h = list_entry(hook, struct net_home, flush);
	struct list now, *node;
	list_init(&now);
	while ((node = list_pop(&h->pending)) != NULL)
		list_push_back(&now, node);
	while ((node = list_pop(&now)) != NULL)
		end_of_turn(list_entry(node, struct conn, pending));
}

/* Closing */

void conn_close(struct conn *c, enum err why)
{
	loop_must_own(loop_of(c));
	if (c->phase >= PHASE_CLOSING)
		return;
	if (c->phase != PHASE_OPEN)
		c->eof = true; /* nothing was said yet that the peer should read to its end */
	conn_enter(c, PHASE_CLOSING);
	c->why = (uint8_t)why;
	event_del(&c->readable);
	loop_timer_set(&c->timer, c->home->conf->linger_ms);
	conn_pend(c);
}

void conn_abort(struct conn *c, enum err why)
{
	conn_close(c, why);
	c->eof = true;
	conn_output_drop(c);
	conn_await_writable(c, false);
	conn_pend(c);
}

static void on_timer(struct loop_timer *t)
{
	struct conn *c = list_entry(t, struct conn, timer);
	switch ((enum conn_phase)c->phase) {
	case PHASE_PROXY:
	case PHASE_HANDSHAKE:
		LOG(LOG_INFO, AREA_NET, "conn_too_slow", "door=%s peer=%s phase=%s", c->door->name,
			c->peer, phases[c->phase].name);
		conn_abort(c, ERR_TIMEOUT);
		break;
	case PHASE_OPEN:
		if (c->kind->timeout != NULL)
			c->kind->timeout(c);
		else
			conn_close(c, ERR_TIMEOUT);
		break;
	case PHASE_CLOSING: conn_abort(c, ERR_TIMEOUT); break;
	case PHASE_LINGER: finish(c); break;
	case PHASE_GONE:
	case PHASE_COUNT: break;
	}
}

void conn_deadline(struct conn *c, int64_t ms)
{
	loop_must_own(loop_of(c));
	if (c->phase != PHASE_OPEN)
		return;
	if (ms > 0)
		loop_timer_set(&c->timer, ms);
	else
		loop_timer_cancel(&c->timer);
}

void conn_ref(struct conn *c)
{
	loop_must_own(loop_of(c));
	c->refs++;
}

static void *inline_state(struct conn *c)
{
	return c + 1;
}

void conn_unref(struct conn *c)
{
	must(c->refs > 0);
	if (--c->refs > 0)
		return;
	if (c->state != inline_state(c))
		mem_free(c->state);
	conn_output_drop(c);
	mem_free(c->peer);
	if (c->dialled)
		mem_free(conn_dialled(c));
	mem_free(c);
}

/* Opening */

void conn_open_now(struct conn *c)
{
	conn_enter(c, PHASE_OPEN);
	end_beginning(c);
	loop_timer_cancel(&c->timer);
	c->opened = true;
	enum err e = c->kind->opened(c);
	if (e != OK)
		conn_close(c, e);
	struct dialled *d = conn_dialled(c);
	struct dialling *x = d == NULL ? NULL : d->waiting;
	if (x == NULL)
		return;
	d->waiting = NULL;
	dial_ended(x, e == OK ? c : NULL, e, NULL);
}

enum err conn_switch(struct conn *c, const struct conn_kind *kind)
{
	loop_must_own(loop_of(c));
	must(c->phase == PHASE_OPEN);
	/* The first state lies behind the struct and stays until the end; only a later one is
	 * freed here. So the adapter which calls this may still look at its own. */
	void *state = mem_new(kind->state_bytes > 0 ? kind->state_bytes : 1);
	if (c->state != inline_state(c))
		mem_free(c->state);
	c->state = state;
	c->kind = kind;
	c->need = 0;
	loop_timer_cancel(&c->timer);
	return kind->opened(c);
}

/* Who comes by a socket in the file system is a user of this machine. */
static void peer_text(int fd, const struct sockaddr *peer, char text[ADDRESS_TEXT_BYTES])
{
	struct ucred who;
	socklen_t len = sizeof who;
	if (peer->sa_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0)
		snprintf(text, ADDRESS_TEXT_BYTES, "uid:%u", who.uid);
	else
		address_text(peer, text, ADDRESS_TEXT_BYTES);
}

/* NULL: no memory. */
static struct conn *conn_new(struct net_home *h, const struct door *d, int fd,
	const struct sockaddr *peer, struct tls_context *secure)
{
	char text[ADDRESS_TEXT_BYTES];
	const struct conn_kind *kind = d->spec->kind;
	struct conn *c = mem_try(sizeof *c + kind->state_bytes);
	struct tls *tls = NULL;
	if (c == NULL || (secure != NULL && tls_new(secure, fd, d->spec->alpn, &tls) != OK)) {
		mem_free(c);
		return NULL;
	}
	memset(c, 0, sizeof *c + kind->state_bytes);
	peer_text(fd, peer, text);
	c->home = h;
	c->kind = kind;
	c->door = d;
	c->tls = tls;
	c->fd = fd;
	c->refs = 1;
	c->state = inline_state(c);
	c->peer = mem_text(text, strlen(text));
	list_init(&c->pending);
	list_push_back(&h->conns, &c->all);
	buf_init(&c->out, net_out_max(h, d));
	loop_timer_init(&c->timer, h->loop, on_timer);
	must(event_assign(&c->readable, loop_event_base(h->loop), fd, EV_READ | EV_PERSIST,
		     conn_on_readable, c) == 0);
	net_count(h, d, M_OPEN, 1);
	c->phase = tls != NULL && !d->proxy ? PHASE_HANDSHAKE : PHASE_PROXY;
	return c;
}

static void begin(struct conn *c)
{
	if (event_add(&c->readable, NULL) != 0) {
		conn_abort(c, ERR_NOMEM);
	} else if (c->tls != NULL || c->door->proxy) {
		c->begun = true;
		limit_gate_begin(net_gate(c->home, c->door));
		loop_timer_set(&c->timer, c->home->conf->handshake_ms);
	} else {
		conn_open_now(c);
	}
}

void conn_start(struct net_home *h, const struct door *d, int fd, const struct sockaddr *peer)
{
	struct tls_context *secure = d->mutual ? h->tls.mutual : d->tls ? h->tls.doors : NULL;
	struct conn *c = h->draining ? NULL : conn_new(h, d, fd, peer, secure);
	if (c == NULL) {
		close(fd);
		net_count(h, d, M_REFUSED, 1);
		uncount(h, d);
		return;
	}
	begin(c);
}

struct conn *conn_start_dialled(
	struct net_home *h, struct dialled *d, int fd, const struct sockaddr *peer)
{
	struct conn *c = conn_new(h, &d->door, fd, peer, d->door.mutual ? h->tls.dial : NULL);
	if (c == NULL)
		return NULL;
	atomic_fetch_add_explicit(&h->load, 1, memory_order_relaxed);
	c->dialled = true;
	begin(c);
	return c;
}

/* The home */

void conn_home_init(struct net_home *h)
{
	list_init(&h->conns);
	list_init(&h->pending);
	list_init(&h->moves);
	loop_hook_init(&h->flush, on_flush);
	conn_lull_init(h);
	h->scratch = mem_new(SCRATCH_BYTES);
	h->cipher = mem_new(CIPHER_BYTES);
}

void conn_close_all(struct net_home *h, bool at_once)
{
	struct list *node, *next;
	for (node = h->conns.next; node != &h->conns; node = next) {
		struct conn *c = list_entry(node, struct conn, all);
		next = node->next;
		if (c->door->internal)
			continue;
		if (c->phase == PHASE_OPEN && c->kind->stopping != NULL && !at_once)
			c->kind->stopping(c);
		if (c->phase == PHASE_LINGER) {
			finish(c);
		} else if (at_once) {
			conn_abort(c, ERR_UNAVAILABLE);
		} else {
			conn_close(c, ERR_UNAVAILABLE);
		}
	}
}

void conn_home_fini(struct net_home *h)
{
	struct list *node;
	while ((node = list_pop(&h->conns)) != NULL) {
		struct conn *c = list_entry(node, struct conn, all);
		c->phase = PHASE_CLOSING;
		finish(c);
	}
	conn_lull_fini(h);
	loop_hook_cancel(&h->flush);
	while (h->spare_count > 0)
		chunk_unref(h->spares[--h->spare_count]);
	mem_free(h->scratch);
	mem_free(h->cipher);
}
