/* Connections: a socket, perhaps under TLS and PROXY protocol v2, read and written by one loop,
 * and the adapter (conn_kind) that speaks on it. An idle connection owns no buffers: input is
 * read into memory of the loop and only an unfinished frame is kept; output memory goes when
 * the socket has taken it.
 * Thread: all functions on the connection's loop. Owner: server/net until `closed` has run. */
#ifndef NET_CONN_H
#define NET_CONN_H
#include "server/base/buf.h"
#include "server/base/loop.h"

struct conn;

struct conn_kind {          /* an adapter; static */
	const char *name;   /* "mqtt": used in logs and metric labels */
	size_t state_bytes; /* the adapter's state, zeroed, which conn_state gives */
	/* After TLS and PROXY header are through. Not OK: closes at once. */
	enum err (*opened)(struct conn *c);
	/* There is input. Consumes whole frames and leaves the rest; not OK closes (output written
	 * before is still sent). */
	enum err (*input)(struct conn *c);
	/* Queued output, once over the high water mark, is under the low one again. NULL is fine.
	 */
	void (*drained)(struct conn *c);
	/* The deadline of conn_deadline has passed. NULL: the connection is closed. */
	void (*timeout)(struct conn *c);
	/* The last call: why is ERR_CLOSED when the peer closed in order. The state is gone after,
	 * unless conn_ref holds it. */
	void (*closed)(struct conn *c, enum err why);
	/* The server is about to close the connection because it ends (net_drain): a last chance to
	 * say so to the peer. NULL is fine. */
	void (*stopping)(struct conn *c);
};

void *conn_state(struct conn *c);
void *conn_door_arg(const struct conn *c); /* the arg of the door it came through (net.h) */
struct loop *conn_loop(const struct conn *c);
/* "10.0.0.1:4711", by PROXY header if there is one; "uid:0" of a local one. */
const char *conn_peer(const struct conn *c);
bool conn_is_tls(const struct conn *c);
/* It came through the node's own socket (net_open_local). */
bool conn_is_local(const struct conn *c);
/* The verified client certificate's subject (RFC 4514 text) or NULL. */
const char *conn_cert_subject(const struct conn *c);
/* Its common name, its alternative name (the URI, else the mail address, else the DNS name); NULL
 * also when there are several. */
const char *conn_cert_name(const struct conn *c);
const char *conn_cert_san(const struct conn *c);
const char *conn_alpn(const struct conn *c); /* "" if none */

/* The unread input, contiguous. Views of it are good until the adapter's function returns. */
struct bytes conn_input(struct conn *c);
void conn_consume(struct conn *c, size_t len);
/* The first len bytes of the input to keep: a share where they were read to memory of their own
 * (long frames after conn_need), else a copy. ERR_NOMEM. */
enum err conn_input_slice(struct conn *c, size_t len, struct slice *out) MUST_USE;
/* The next frame takes len bytes from here: memory for it is set aside, and `input` is not
 * called again before they are there. */
void conn_need(struct conn *c, size_t len);
/* Stops and resumes reading the socket (back-pressure). Counted: two pauses need two resumes.
 * Input left unread is presented again after the last resume. */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c);

/* Input that can wait some milliseconds (conn_lull.c), for connections that say little and seldom:
 * until it is switched off, or c moves. */
void conn_lull(struct conn *c, bool on);

/* Output. Append to conn_out, then call conn_wrote once; it leaves at the end of the turn. */
struct buf *conn_out(struct conn *c);
void conn_wrote(struct conn *c);
/* Queues shared bytes after all output so far, without a copy. Takes s. */
void conn_send_slice(struct conn *c, struct slice s);
size_t conn_queued(const struct conn *c); /* bytes not yet taken by the socket */
/* Bytes of output that the peer's system has taken so far. It wraps around: what it says is
 * whether any were taken since it was asked before. */
uint32_t conn_taken(const struct conn *c);
bool conn_over_high(const struct conn *c); /* over conn.out_high: stop producing, await drained */

/* Closes once queued output is sent, at the latest after conn.linger_ms; reads nothing more.
 * `closed` runs from the loop, not inside this call. Calling again is fine. */
void conn_close(struct conn *c, enum err why);
bool conn_is_closing(const struct conn *c);
/* Sets (or with 0 clears) the one deadline of the connection, in ms from now. */
void conn_deadline(struct conn *c, int64_t ms);
/* Keeps the memory of c and its state for completions that come later; after `closed` only
 * conn_is_closing, conn_state, conn_loop and conn_unref are allowed. */
void conn_ref(struct conn *c);
void conn_unref(struct conn *c);
/* Takes c to another loop of the same net: leaves this one at the end of the turn, with its unread
 * input, its output and TLS; its deadline is cleared. Until moved runs, over there, c may not be
 * touched. When it closes meanwhile it does so here, and moved does not run. Nobody may hold it by
 * conn_ref. Not while it is paused. */
void conn_move(struct conn *c, struct loop *to, void (*moved)(struct conn *c));
bool conn_may_move(const struct conn *c); /* as it is now */
/* Switches the adapter after an upgrade (WebSocket); the state is renewed. */
enum err conn_switch(struct conn *c, const struct conn_kind *kind) MUST_USE;

#endif
