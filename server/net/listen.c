/* A socket per address and loop, all on one port by SO_REUSEPORT, so the kernel spreads the
 * clients and no loop waits for another's accept. The kernel spreads by hash, which for a
 * handful of busy clients may mean all on one loop; a loop that has clearly more connections
 * than the least loaded one hands the new socket over.
 *
 * SO_REUSEPORT would let a second server of the same user share our ports without a word, so
 * each port is first bound without it, which fails when anybody listens there. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/net/net_priv.h"

enum { BACKLOG = 4096, ACCEPTS_PER_EVENT = 64, PAUSE_MS = 50 };

static int socket_for(const struct address *a, bool share)
{
	int one = 1;
	int fd = socket(a->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
		(share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
		(a->sa.any.sa_family == AF_INET6 &&
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0) ||
		bind(fd, &a->sa.any, a->len) != 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

/* Finds out whether the port is free, and which one it is if the kernel may choose. */
static bool probe(struct address *a)
{
	int fd = socket_for(a, false);
	if (fd < 0)
		return false;
	socklen_t len = sizeof a->sa.room;
	/* Two servers at the same moment of their start: only listening shows the other. */
	bool ok = listen(fd, 1) == 0 && getsockname(fd, &a->sa.any, &len) == 0;
	int saved = errno;
	close(fd);
	errno = saved;
	return ok;
}

static void listener_add(struct net_home *h, const struct door *d, int fd)
{
	struct listener *more = mem_resize(
		h->listeners, (size_t)(h->listener_count + 1) * sizeof *h->listeners);
	must(more != NULL);
	h->listeners = more;
	h->listeners[h->listener_count++] = (struct listener){.home = h, .door = d, .fd = fd};
}

/* An address this machine does not have (::1 without IPv6) is left out when its item of the
 * list had another that worked. */
static bool may_skip(const struct address *a)
{
	return !a->first && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT);
}

static enum err bind_one(struct net *n, struct door *d, struct address *a, char *why, size_t size)
{
	char text[ADDRESS_TEXT_BYTES];
	address_text(&a->sa.any, text, sizeof text);
	bool ok = probe(a);
	if (!ok && may_skip(a))
		return OK;
	for (int i = 0; ok && i < n->home_count; i++) {
		int fd = socket_for(a, true);
		ok = fd >= 0;
		if (ok)
			listener_add(&n->homes[i], d, fd);
	}
	if (!ok) {
		enum err e = errno == EADDRINUSE ? ERR_EXISTS : ERR_INVALID;
		snprintf(why, size, "listen.%s: %s: %s", d->name, text, strerror(errno));
		return e;
	}
	d->bound.items[d->bound.count++] = *a;
	return OK;
}

enum err listen_bind(
	struct net *n, struct door *d, struct address_list *wanted, char *why, size_t why_size)
{
	if (wanted->count == 0)
		return OK;
	d->bound.items = mem_new((size_t)wanted->count * sizeof *d->bound.items);
	for (int i = 0; i < wanted->count; i++) {
		enum err e = bind_one(n, d, &wanted->items[i], why, why_size);
		if (e != OK)
			return e;
	}
	return OK;
}

/* --- the one in the file system */

static bool answers(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* EAGAIN: somebody listens, and has too many waiting. */
	bool yes = fd >= 0 &&
		(connect(fd, (const struct sockaddr *)sa, sizeof *sa) == 0 || errno == EAGAIN);
	if (fd >= 0)
		close(fd);
	return yes;
}

/* What a process that was killed has left is taken away; what is not a socket stays. */
static enum err make_way(const struct sockaddr_un *sa, char *why, size_t why_size)
{
	struct stat st;
	if (lstat(sa->sun_path, &st) != 0)
		return OK;
	if (!S_ISSOCK(st.st_mode) || answers(sa)) {
		snprintf(why, why_size, "%s: %s", sa->sun_path,
			S_ISSOCK(st.st_mode) ? "another server answers there"
					     : "this is no socket, and in its place");
		return ERR_EXISTS;
	}
	(void)unlink(sa->sun_path);
	return OK;
}

/* Bound with its mode, so that there is no moment when others may connect. */
static int socket_local(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 ||
		bind(fd, (const struct sockaddr *)sa, sizeof *sa) != 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

enum err listen_bind_local(struct net *n, const char *path, char *why, size_t why_size)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stat st;
	if (strlen(path) >= sizeof sa.sun_path) {
		snprintf(why, why_size, "%s: a socket's path has at most %zu bytes", path,
			sizeof sa.sun_path - 1);
		return ERR_TOOBIG;
	}
	memcpy(sa.sun_path, path, strlen(path));
	enum err e = make_way(&sa, why, why_size);
	if (e != OK)
		return e;
	int fd = socket_local(&sa);
	if (fd < 0 || lstat(path, &st) != 0 || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		snprintf(why, why_size, "%s: %s", path,
			fd < 0 ? strerror(errno) : "others could connect to it");
		if (fd >= 0)
			close(fd);
		return ERR_INVALID;
	}
	n->local_path = mem_text(path, strlen(path));
	n->local_inode = st.st_ino;
	listener_add(&n->homes[0], &n->local, fd);
	return OK;
}

void listen_remove_local(struct net *n)
{
	struct stat st;
	if (n->local_path == NULL)
		return;
	if (lstat(n->local_path, &st) == 0 && st.st_ino == n->local_inode)
		(void)unlink(n->local_path);
	mem_free(n->local_path);
	n->local_path = NULL;
}

/* --- clients */

/* What a client has sent and we have not read lies in the kernel. Left alone, that grows to many
 * megabytes for each client that is faster than us, as delay and as memory nobody counts. A
 * connection takes the limit over from its listener, whose window scale must fit. Between nodes
 * there is flow control of its own, and a way with congestion. */
static bool bequeath(const struct net *n, const struct listener *l)
{
	int bytes = (int)n->conf->receive_buffer;
	bool ours = strcmp(l->door->protocol, "peer") == 0 || strcmp(l->door->protocol, "geo") == 0;
	if (l->door->internal)
		net_choose_congestion(n->conf, l->fd);
	return ours || bytes == 0 ||
		setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0;
}

enum err listen_all(struct net *n, bool internal)
{
	for (int i = 0; i < n->home_count; i++)
		for (int k = 0; k < n->homes[i].listener_count; k++)
			if (n->homes[i].listeners[k].door->internal == internal &&
				(!bequeath(n, &n->homes[i].listeners[k]) ||
					listen(n->homes[i].listeners[k].fd, BACKLOG) != 0))
				return ERR_EXISTS;
	return OK;
}

static void accepting(struct listener *l, bool on)
{
	if (l->accepting == on || !l->begun)
		return;
	l->accepting = on;
	if (on)
		must(event_add(&l->event, NULL) == 0);
	else
		event_del(&l->event);
}

static void all_accepting(struct net_home *h, bool on)
{
	for (int i = 0; i < h->listener_count; i++)
		accepting(&h->listeners[i], on);
}

/* Who wants to connect waits in the kernel's backlog meanwhile. The others may have room. */
static void pause_accepting(struct listener *l)
{
	accepting(l, false);
	loop_timer_set(&l->home->accept_again, PAUSE_MS);
}

static void on_accept_again(struct loop_timer *t)
{
	struct net_home *h = list_entry(t, struct net_home, accept_again);
	if (!h->draining)
		all_accepting(h, true);
}

struct handover { /* a new socket on its way to another loop */
	struct loop_msg msg;
	struct net_home *to;
	const struct door *door;
	int fd;
	struct address peer;
};

static void on_handover(struct loop_msg *m)
{
	struct handover *o = list_entry(m, struct handover, msg);
	conn_start(o->to, o->door, o->fd, &o->peer.sa.any);
	mem_free(o);
}

/* The loop that gets the next connection: this one, unless another has clearly fewer. */
static struct net_home *choose_home(struct net_home *h)
{
	struct net_home *best = h;
	int64_t mine = atomic_load_explicit(&h->load, memory_order_relaxed), least = mine;
	for (int i = 0; i < h->net->home_count; i++) {
		struct net_home *other = &h->net->homes[i];
		int64_t load = atomic_load_explicit(&other->load, memory_order_relaxed);
		if (load < least) {
			least = load;
			best = other;
		}
	}
	return mine > least + least / 16 ? best : h;
}

static void welcome(struct listener *l, int fd, const struct address *peer)
{
	int one = 1;
	if (!l->door->local && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
		close(fd); /* the peer has gone already */
		return;
	}
	net_count(l->home, l->door, M_ACCEPTED, 1);
	if (!l->door->internal && !limit_total_take(&l->home->net->limit)) {
		net_count(l->home, l->door, M_REFUSED, 1);
		LOG(LOG_WARN, AREA_NET, "conn_refused", "door=%s why=conn.max open=%lld",
			l->door->name, (long long)limit_total_open(&l->home->net->limit));
		close(fd);
		return;
	}
	struct net_home *to = choose_home(l->home);
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
	if (to == l->home) {
		conn_start(to, l->door, fd, &peer->sa.any);
		return;
	}
	struct handover *o = mem_new(sizeof *o);
	*o = (struct handover){
		.msg.run = on_handover, .to = to, .door = l->door, .fd = fd, .peer = *peer};
	loop_post(to->loop, &o->msg);
}

/* True for what says nothing about the next accept (accept(2) passes network errors on). */
static bool accept_error_passes(int error)
{
	return error == EINTR || error == ECONNABORTED || error == EPROTO || error == ENETDOWN ||
		error == EHOSTDOWN || error == EHOSTUNREACH || error == ENETUNREACH ||
		error == ETIMEDOUT || error == EPERM;
}

static bool may_accept(const struct listener *l)
{
	const struct door *d = l->door;
	bool begins = d->tls || d->mutual || d->proxy;
	return d->local || limit_gate_pass(net_gate(l->home, d), begins, clock_us());
}

static void on_accept(evutil_socket_t at, short what, void *arg)
{
	struct listener *l = arg;
	(void)at;
	(void)what;
	for (int i = 0; i < ACCEPTS_PER_EVENT && l->accepting; i++) {
		struct address peer = {.len = sizeof peer.sa.room};
		if (!may_accept(l)) {
			pause_accepting(l);
			return;
		}
		int fd = accept4(l->fd, &peer.sa.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			welcome(l, fd, &peer);
			continue;
		}
		if (accept_error_passes(errno))
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK) {
			LOG(LOG_WARN, AREA_NET, "accept_paused", "door=%s err=\"%s\" retry_ms=%d",
				l->door->name, strerror(errno), PAUSE_MS);
			pause_accepting(l);
		}
		return;
	}
}

void listen_home_init(struct net_home *h)
{
	loop_timer_init(&h->accept_again, h->loop, on_accept_again);
}

void listen_start(struct net_home *h, bool internal)
{
	loop_must_own(h->loop);
	if (h->draining)
		return;
	for (int i = 0; i < h->listener_count; i++) {
		struct listener *l = &h->listeners[i];
		if (l->begun || l->door->internal != internal)
			continue;
		l->begun = true;
		must(event_assign(&l->event, loop_event_base(h->loop), l->fd, EV_READ | EV_PERSIST,
			     on_accept, l) == 0);
	}
	all_accepting(h, true);
}

void listen_stop(struct net_home *h)
{
	all_accepting(h, false);
	loop_timer_cancel(&h->accept_again);
	listen_home_fini(h);
}

void listen_home_fini(struct net_home *h)
{
	for (int i = 0; i < h->listener_count; i++) {
		if (h->listeners[i].accepting)
			event_del(&h->listeners[i].event);
		close(h->listeners[i].fd);
	}
	mem_free(h->listeners);
	h->listeners = NULL;
	h->listener_count = 0;
}
