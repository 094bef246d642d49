/* The inside of a connection, for conn.c (its life), conn_in.c (input), conn_out.c (output). */
#ifndef NET_CONN_PRIV_H
#define NET_CONN_PRIV_H
#include "server/net/net_priv.h"

/* PROXY --> HANDSHAKE --> OPEN --> CLOSING --> LINGER --> GONE
 *   conn_begin  conn_opened  conn_close  finish_output   conn_finish
 * PROXY and HANDSHAKE are skipped where the door has no use for them; each may go straight to
 * CLOSING, and CLOSING to GONE when the peer has gone first. */
enum conn_phase {
	PHASE_PROXY,     /* the PROXY header is awaited */
	PHASE_HANDSHAKE, /* TLS */
	PHASE_OPEN,      /* the adapter's */
	PHASE_CLOSING,   /* output leaves, nothing is read */
	PHASE_LINGER,    /* `closed` has run; the peer reads the last of it */
	PHASE_GONE,
	PHASE_COUNT
};

struct out_piece {
	size_t before;      /* bytes of `out` that leave before the slice */
	struct slice slice; /* what is left of it */
};

struct out_queue { /* a ring of slices, while there are any */
	uint32_t first, count, size;
	struct out_piece pieces[];
};

struct conn {
	_Alignas(16) struct event readable; /* added while input is wanted */
	struct loop_timer timer;            /* the beginning's, the adapter's, then lingering's */
	struct list all;                    /* in home->conns */
	struct list pending;                /* in home->pending */
	struct net_home *home;
	const struct conn_kind *kind;
	const struct door *door;
	void *state;            /* behind this struct until conn_switch */
	struct tls *tls;        /* NULL: plain */
	struct event *writable; /* allocated while the socket is full */
	char *peer;
	uint8_t *at;             /* the unread input, in home->scratch or in `in` */
	struct chunk *in;        /* own memory for an unfinished frame, or NULL */
	uint32_t len;            /* bytes at `at` */
	uint32_t need;           /* bytes of the next frame if the adapter has said so */
	struct buf out;          /* output in order, but for the slices of queue */
	struct out_queue *queue; /* NULL: none */
	size_t before_pieces;    /* bytes of out which are before some piece */
	size_t slice_bytes;      /* bytes in queue's slices */
	int fd;                  /* -1 when gone */
	uint32_t refs;           /* server/net's own and conn_ref's */
	uint32_t sent_bytes;     /* of output, to the socket; wraps around */
	uint16_t pauses;
	uint8_t phase;    /* enum conn_phase */
	uint8_t why;      /* enum err, of the close */
	bool opened : 1;  /* the adapter has been told, so it hears of the end */
	bool eof : 1;     /* the peer has ended, or the socket is broken */
	bool high : 1;    /* over high water: owes a drained */
	bool begun : 1;   /* counted in the gate */
	bool dialled : 1; /* by us: door lies in a struct dialled, which goes with it */
	bool moving : 1;  /* is in home->moves */
	bool lull : 1;    /* readable is in home->lull */
	bool ended : 1;   /* the peer has said so over TLS, behind input that waits in a pause */
};

/* conn.c */
void conn_enter(struct conn *c, enum conn_phase to);
void conn_pend(struct conn *c);                /* looks at c at the end of the turn */
void conn_abort(struct conn *c, enum err why); /* conn_close, but queued output is dropped */
void conn_open_now(struct conn *c);            /* the adapter takes over */
/* conn_lull.c */
void conn_read_on(struct conn *c); /* its socket is looked at again, after a pause */
void conn_lull_init(struct net_home *h);
void conn_lull_fini(struct net_home *h); /* when no connection is left */
/* Tells who dialled, if anybody waits for it, that it will not open. */
void conn_fail_dial(struct conn *c, enum err e, const char *failure);

static inline struct dialled *conn_dialled(struct conn *c)
{
	return c->dialled ? (struct dialled *)(uintptr_t)c->door : NULL;
}

/* conn_in.c */
void conn_on_readable(evutil_socket_t fd, short what, void *arg);
void conn_handshake_step(struct conn *c);
void conn_settle(struct conn *c); /* unread input moves to memory of its own */
void conn_input_drop(struct conn *c);
/* Reads and forgets what has arrived; false when the peer has ended, or sends too much. */
bool conn_discard(struct conn *c);

/* conn_out.c */
bool conn_flush(struct conn *c); /* false: the socket failed */
void conn_recycle(struct conn *c);
void conn_output_drop(struct conn *c);
void conn_await_writable(struct conn *c, bool on);
void conn_on_writable(evutil_socket_t fd, short what, void *arg);

#endif
