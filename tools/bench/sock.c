/* Sockets for a load generator: everything that costs per message is left to the caller's
 * buffers; here are the system calls, one per direction and wake-up. */
#include "tools/bench/sock.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool addrs_one(const char *host, uint64_t port, struct addrs *out)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	char service[24];
	int e;

	snprintf(service, sizeof service, "%llu", (unsigned long long)port);
	e = getaddrinfo(host, service, &hints, &found);
	if (e != 0 || out->count == ADDRS_MAX) {
		fprintf(stderr, "sluice-bench: %s: %s\n", host,
			e ? gai_strerror(e) : "too many addresses");
		if (e == 0)
			freeaddrinfo(found);
		return false;
	}
	memcpy(&out->at[out->count], found->ai_addr, found->ai_addrlen);
	out->len[out->count++] = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

bool addrs_resolve(const char *list, uint64_t port, struct addrs *out)
{
	char *copy = strdup(list);
	char *rest = NULL;
	bool fine = copy != NULL;

	out->count = 0;
	for (char *one = copy ? strtok_r(copy, ",", &rest) : NULL; one && fine;
		one = strtok_r(NULL, ",", &rest)) {
		char *colon = strrchr(one, ':');
		uint64_t its_port = port;

		if (colon && strchr(one, ':') == colon) { /* a bare IPv6 address has several */
			*colon = 0;
			its_port = strtoull(colon + 1, NULL, 10);
		}
		fine = addrs_one(one, its_port, out);
	}
	free(copy);
	return fine && out->count > 0;
}

bool sock_open(struct sock *s, int ep, const struct addrs *a, uint32_t which, void *ptr)
{
	const struct sockaddr_storage *to = &a->at[which % a->count];
	struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = ptr};
	int one = 1;

	s->in_len = s->out_at = s->out_len = 0;
	s->fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return false;
	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	s->events = EPOLLOUT;
	if (connect(s->fd, (const struct sockaddr *)to, a->len[which % a->count]) != 0 &&
		errno != EINPROGRESS)
		goto close_fd;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev) != 0)
		goto close_fd;
	return true;
close_fd:
	close(s->fd);
	s->fd = -1;
	return false;
}

bool sock_buffers(struct sock *s, uint32_t in_cap, uint32_t out_cap)
{
	s->in = malloc(in_cap);
	s->out = malloc(out_cap);
	s->in_cap = in_cap;
	s->out_cap = out_cap;
	return s->in && s->out;
}

void sock_close(struct sock *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	free(s->in);
	free(s->out);
	s->in = s->out = NULL;
	s->in_len = s->out_at = s->out_len = 0;
}

bool sock_connected(const struct sock *s)
{
	int e = 0;
	socklen_t len = sizeof e;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
		return false;
	if (e != 0)
		errno = e;
	return e == 0;
}

int sock_fill(struct sock *s)
{
	uint32_t room = s->in_cap - s->in_len;
	ssize_t n;

	if (room == 0)
		return 0;
	n = recv(s->fd, s->in + s->in_len, room, 0);
	if (n > 0) {
		s->in_len += (uint32_t)n;
		return (int)n;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

void sock_consume(struct sock *s, uint32_t len)
{
	s->in_len -= len;
	if (s->in_len > 0 && len > 0)
		memmove(s->in, s->in + len, s->in_len);
}

bool sock_flush(struct sock *s)
{
	while (s->out_at < s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_at, s->out_len - s->out_at, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		s->out_at += (uint32_t)n;
	}
	s->out_at = s->out_len = 0;
	return true;
}

int64_t sock_send(struct sock *s, struct iovec *iov, int count)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)count};
	ssize_t n = sendmsg(s->fd, &m, MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

void sock_watch(struct sock *s, int ep, uint32_t events, void *ptr)
{
	struct epoll_event ev = {.events = events, .data.ptr = ptr};

	if (s->fd < 0 || s->events == events)
		return;
	s->events = events;
	epoll_ctl(ep, EPOLL_CTL_MOD, s->fd, &ev);
}
