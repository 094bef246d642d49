/* A dial goes through looking up, connecting (each address of the name in turn, each with a fair
 * part of the time left) and, as an ordinary connection in its handshake, TLS. What is private to
 * it lies in memory of its own, which outlives a cancelled dial while its name is still looked up:
 * a name server that does not answer takes ten seconds, so those that nobody waits for any more are
 * not even begun, and the end of the net waits for none. The connection takes the place of a door
 * along (struct dialled): its adapter, the adapter's arg and the metrics' labels come from there.
 */
#include "server/net/dial.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include "server/net/conn_priv.h"

struct dialling {
	struct dial *dial; /* NULL: cancelled */
	struct job job;
	bool looking;         /* the job is under way */
	_Atomic bool dropped; /* nobody waits for it any more */
	char *address;        /* own copy: the worker reads it */
	struct net_home *home;
	enum err looked; /* the job's outcome, as are look_why and found */
	char look_why[96];
	struct address_list found;
	int next;                /* of found, to be tried */
	int fd;                  /* being connected, or -1 */
	struct event *connected; /* while fd is */
	struct conn *conn;       /* in its handshake */
	struct loop_timer timer; /* of one attempt, or what ends it later */
	int64_t until_ms;
	enum err err;
	char why[96];
};

static void attempt(struct dialling *x);

static void note(struct dialling *x, enum err e, const char *what)
{
	x->err = e;
	snprintf(x->why, sizeof x->why, "%s", what);
}

static void let_go_socket(struct dialling *x)
{
	if (x->connected != NULL)
		event_free(x->connected);
	x->connected = NULL;
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
}

static void free_dialling(struct dialling *x)
{
	let_go_socket(x);
	loop_timer_cancel(&x->timer);
	address_list_fini(&x->found);
	mem_free(x->address);
	mem_free(x);
}

static void tell(struct dialling *x, struct conn *c)
{
	struct dial *d = x->dial;
	d->priv = NULL;
	d->err = x->err;
	d->conn = c;
	snprintf(d->why, sizeof d->why, "%s", x->why);
	x->dial = NULL;
	if (x->looking) /* it goes when the job comes back */
		atomic_store(&x->dropped, true);
	else
		free_dialling(x);
	d->done(d);
}

/* From the loop, not from inside of dial_start. */
static void tell_later(struct dialling *x)
{
	loop_timer_set(&x->timer, 0);
}

/* Handshake */

void dial_ended(struct dialling *x, struct conn *c, enum err e, const char *failure)
{
	char text[80];
	x->conn = NULL;
	if (failure != NULL)
		snprintf(text, sizeof text, "TLS: %s", failure);
	else
		snprintf(text, sizeof text, "%s",
			e == OK                    ? ""
				: e == ERR_TIMEOUT ? "timed out in the TLS handshake"
						   : "closed in the TLS handshake");
	if (x->err == OK) /* else it was our own timer that ended it */
		note(x, e == ERR_CLOSED || e == ERR_IO ? ERR_UNAVAILABLE : e, text);
	tell(x, c);
}

static enum net_door_index door_of(const struct conn_kind *kind)
{
	static const char *const names[DOOR_COUNT] = {
#define X(name, protocol, tls) #name,
		NET_DOORS(X)
#undef X
	};
	for (int i = 0; i < DOOR_COUNT; i++)
		if (strcmp(names[i], kind->name) == 0)
			return (enum net_door_index)i;
	return DOOR_peer;
}

static struct dialled *new_dialled(struct dialling *x)
{
	const struct dial *d = x->dial;
	struct dialled *v = mem_new(sizeof *v);
	v->spec = (struct net_door){
		.name = d->kind->name, .kind = d->kind, .arg = d->arg, .mutual = d->tls};
	v->door = (struct door){.name = d->kind->name,
		.protocol = d->kind->name,
		.index = door_of(d->kind),
		.mutual = d->tls,
		.internal = true,
		.spec = &v->spec};
	v->waiting = x;
	return v;
}

/* Gives the socket to a connection. x may be gone afterwards. */
static void become_conn(struct dialling *x, const struct sockaddr *peer)
{
	int one = 1, fd = x->fd;
	event_free(x->connected);
	x->connected = NULL;
	x->fd = -1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct dialled *v = new_dialled(x);
	if (x->dial->tls) {
		int64_t left = x->until_ms - loop_now_ms(x->home->loop);
		loop_timer_set(&x->timer, left > 0 ? left : 1);
	}
	struct conn *c = conn_start_dialled(x->home, v, fd, peer);
	if (c == NULL) {
		close(fd);
		mem_free(v);
		note(x, ERR_UNAVAILABLE, "out of memory");
		tell(x, NULL);
		return;
	}
	if (v->waiting == NULL) /* without TLS it is open by now */
		return;
	x->conn = c;
	if (c->phase == PHASE_HANDSHAKE)
		conn_handshake_step(c);
}

/* Connecting */

/* A port of the kernel's own choice may be the very one that is dialled: a socket that is
 * connected with itself. */
static bool is_own(int fd)
{
	struct address a = {.len = sizeof a.sa.room}, b = {.len = sizeof b.sa.room};
	return getsockname(fd, &a.sa.any, &a.len) == 0 && getpeername(fd, &b.sa.any, &b.len) == 0 &&
		a.len == b.len && memcmp(&a.sa, &b.sa, a.len) == 0;
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct dialling *x = arg;
	int error = 0;
	socklen_t len = sizeof error;
	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error == 0 && is_own(fd))
		error = ECONNREFUSED;
	if (error == 0) {
		become_conn(x, &x->found.items[x->next - 1].sa.any);
		return;
	}
	let_go_socket(x);
	note(x, ERR_UNAVAILABLE, strerror(error));
	attempt(x);
}

/* Tries the next address; those that fail at once are passed over. */
static void attempt(struct dialling *x)
{
	int64_t left = x->until_ms - loop_now_ms(x->home->loop);
	while (x->next < x->found.count && left > 0) {
		const struct address *a = &x->found.items[x->next++];
		x->fd = socket(a->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (x->fd >= 0)
			net_choose_congestion(x->home->conf, x->fd);
		if (x->fd >= 0 &&
			(connect(x->fd, &a->sa.any, a->len) == 0 || errno == EINPROGRESS)) {
			x->connected = event_new(
				loop_event_base(x->home->loop), x->fd, EV_WRITE, on_connected, x);
			if (x->connected != NULL && event_add(x->connected, NULL) == 0) {
				x->err = OK;
				loop_timer_set(
					&x->timer, left / (x->found.count - x->next + 1) + 1);
				return;
			}
			errno = ENOMEM;
		}
		note(x, ERR_UNAVAILABLE, strerror(errno));
		let_go_socket(x);
	}
	if (x->err == OK)
		note(x, ERR_TIMEOUT, "timed out");
	tell_later(x);
}

static void on_timer(struct loop_timer *t)
{
	struct dialling *x = list_entry(t, struct dialling, timer);
	if (x->conn != NULL) {
		note(x, ERR_TIMEOUT, "timed out in the TLS handshake");
		conn_abort(x->conn, ERR_TIMEOUT);
	} else if (x->fd >= 0) {
		let_go_socket(x);
		note(x, ERR_TIMEOUT, "timed out");
		attempt(x);
	} else {
		if (x->looking)
			note(x, ERR_TIMEOUT, "timed out looking up the name");
		tell(x, NULL);
	}
}

/* Looking up */

static void look_up(struct job *j)
{
	struct dialling *x = list_entry(j, struct dialling, job);
	if (!atomic_load(&x->dropped))
		x->looked = address_find(
			x->address, false, &x->found, x->look_why, sizeof x->look_why);
}

static void look_up_left(struct job *j)
{
	struct dialling *x = list_entry(j, struct dialling, job);
	address_list_fini(&x->found);
	mem_free(x->address);
	mem_free(x);
}

static void looked_up(struct job *j)
{
	struct dialling *x = list_entry(j, struct dialling, job);
	x->looking = false;
	if (x->dial == NULL) {
		free_dialling(x);
	} else if (x->looked != OK) {
		note(x, x->looked, x->look_why);
		tell(x, NULL);
	} else {
		attempt(x);
	}
}

void dial_start(struct dial *d)
{
	struct loop *l = loop_here();
	must(l != NULL);
	struct dialling *x = mem_new(sizeof *x);
	x->dial = d;
	x->fd = -1;
	x->home = &d->net->homes[loop_index(l)];
	x->address = mem_text(d->address, strlen(d->address));
	x->until_ms = loop_now_ms(l) + d->timeout_ms;
	loop_timer_init(&x->timer, l, on_timer);
	d->priv = x;
	d->conn = NULL;
	if (d->tls && x->home->tls.dial == NULL) {
		note(x, ERR_INVALID, "TLS is not configured");
		tell_later(x);
		return;
	}
	enum err e = address_find(x->address, true, &x->found, x->why, sizeof x->why);
	if (e == OK) {
		attempt(x);
		return;
	}
	if (e != ERR_NOTFOUND) {
		x->err = e;
		tell_later(x);
		return;
	}
	x->looking = true;
	loop_timer_set(&x->timer, d->timeout_ms);
	x->job = (struct job){.home = l, .work = look_up, .done = looked_up, .left = look_up_left};
	worker_run(d->net->names, &x->job);
}

void dial_cancel(struct dial *d)
{
	struct dialling *x = d->priv;
	if (x == NULL)
		return;
	loop_must_own(x->home->loop);
	d->priv = NULL;
	x->dial = NULL;
	if (x->conn != NULL) {
		struct dialled *v = conn_dialled(x->conn);
		if (v != NULL)
			v->waiting = NULL;
		conn_abort(x->conn, ERR_CLOSED);
	}
	let_go_socket(x);
	loop_timer_cancel(&x->timer);
	if (x->looking)
		atomic_store(&x->dropped, true);
	else
		free_dialling(x);
}
