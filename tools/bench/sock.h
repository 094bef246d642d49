/* A TCP connection without blocking, with one input and one output buffer of a fixed size.
 * Belongs to the thread that opened it. */
#ifndef BENCH_SOCK_H
#define BENCH_SOCK_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { ADDRS_MAX = 16 };

struct addrs { /* the servers of --host */
	struct sockaddr_storage at[ADDRS_MAX];
	socklen_t len[ADDRS_MAX];
	uint32_t count;
};

/* Resolves a comma list of NAME[:PORT]; says on stderr what failed. */
bool addrs_resolve(const char *list, uint64_t port, struct addrs *out);
bool addrs_one(const char *host, uint64_t port, struct addrs *out);

struct sock {
	int fd;          /* -1: closed */
	uint32_t events; /* what epoll watches now */
	uint8_t *in;     /* bytes read and not yet parsed */
	uint32_t in_len, in_cap;
	uint8_t *out; /* bytes to send: out_at .. out_len */
	uint32_t out_at, out_len, out_cap;
};

/* Begins to connect and watches for it in ep with ptr as the event's data. */
bool sock_open(struct sock *s, int ep, const struct addrs *a, uint32_t which, void *ptr);
/* Buffers are allocated here, once; false without memory. */
bool sock_buffers(struct sock *s, uint32_t in_cap, uint32_t out_cap);
void sock_close(struct sock *s); /* frees the buffers too; may be called twice */
/* Whether a connect has succeeded, asked when the socket became writable. */
bool sock_connected(const struct sock *s);
/* Reads what fits: > 0 bytes, 0 none there, -1 closed or failed. */
int sock_fill(struct sock *s);
void sock_consume(struct sock *s, uint32_t len);
/* Sends what is pending; false when the connection is gone. */
bool sock_flush(struct sock *s);
static inline uint32_t sock_pending(const struct sock *s)
{
	return s->out_len - s->out_at;
}
/* Sends straight from iov: bytes taken, 0 would block, -1 gone. */
int64_t sock_send(struct sock *s, struct iovec *iov, int count);
void sock_watch(struct sock *s, int ep, uint32_t events, void *ptr);

#endif
