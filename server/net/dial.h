/* Outgoing connections: after it is open one is like any other (conn.h), with an adapter of its
 * own. Names are looked up by threads of the net's own; the addresses of a name are tried in order.
 * Thread: the calling loop's. */
#ifndef NET_DIAL_H
#define NET_DIAL_H
#include "server/net/net.h"

struct dial {       /* embed; the memory stays until done, or until dial_cancel returned */
	void *priv; /* private */
	/* asked: */
	struct net *net;
	const char *address;          /* "host:port", copied */
	const struct conn_kind *kind; /* its opened runs, after TLS, before done */
	void *arg;                    /* conn_door_arg of the connection */
	bool tls;                     /* with the node's certificate and authorities (tls.*): the
				       * door it belongs to is mutual (net.h) */
	int64_t timeout_ms;
	/* given: */
	enum err err; /* ERR_UNAVAILABLE (refused, unreachable, name unknown), ERR_TIMEOUT,
		       * ERR_UNAUTHENTICATED (TLS), ERR_INVALID */
	char why[96]; /* one line when err is not OK */
	struct conn *conn;
	void (*done)(struct dial *d); /* never inside dial_start */
};
void dial_start(struct dial *d);
/* done will not run; what was begun is closed. After done: nothing happens. */
void dial_cancel(struct dial *d);

#endif
