/* What the files of this folder share: the configuration as read, the doors as opened, and what
 * each loop has of them (a home). A home belongs to its loop; struct net is immutable between
 * net_open and net_free but for the counters in it. */
#ifndef NET_PRIV_H
#define NET_PRIV_H
#include <event2/event.h>
#include <event2/event_struct.h>
#include "server/base/mem.h"
#include "server/base/worker.h"
#include "server/net/address.h"
#include "server/net/limit.h"
#include "server/net/net.h"
#include "server/net/tls.h"

/* X(name, protocol, tls): one for each listen.* key. */
#define NET_DOORS(X)                                                                               \
	X(mqtt, "mqtt", false)                                                                     \
	X(mqtts, "mqtt", true)                                                                     \
	X(amqp, "amqp", false)                                                                     \
	X(amqps, "amqp", true)                                                                     \
	X(http, "http", false)                                                                     \
	X(https, "http", true)                                                                     \
	X(kafka, "kafka", false)                                                                   \
	X(kafkas, "kafka", true)                                                                   \
	X(peer, "peer", false)                                                                     \
	X(geo, "geo", false)

enum net_door_index {
#define X(name, protocol, tls) DOOR_##name,
	NET_DOORS(X)
#undef X
		DOOR_COUNT
};

struct net_conf { /* filled by net_rows */
	const char *listen[DOOR_COUNT];
	const char *advertise[DOOR_COUNT];
	bool proxy[DOOR_COUNT];
	const char *tls_cert, *tls_key, *tls_ca, *tls_crl;
	int tls_client;      /* enum tls_client */
	int tls_version_min; /* enum tls_version */
	int64_t conn_max;
	int64_t accept_rate;
	int64_t handshakes_max;
	int64_t out_high, out_low, out_max;
	int64_t input_max;
	int64_t receive_buffer;
	int64_t linger_ms, handshake_ms;
	const char *peer_congestion;
};

enum net_metric { /* each has a row per door: row = metric * DOOR_COUNT + door */
	M_OPEN,
	M_ACCEPTED,
	M_REFUSED,
	M_BYTES_IN,
	M_BYTES_OUT,
	M_HANDSHAKES,
	M_HANDSHAKES_FAILED,
	M_COUNT
};

struct door {                 /* one listen.* key with addresses */
	const char *name;     /* "mqtts" */
	const char *protocol; /* "mqtt" */
	enum net_door_index index;
	bool tls;
	bool proxy;
	bool mutual;   /* TLS with certificates on both sides, whatever tls says */
	bool local;    /* a socket in the file system */
	bool internal; /* between nodes: outside of the limits for clients, and of draining */
	const struct net_door *spec; /* the caller's; NULL kind = not built */
	struct address_list bound;   /* ports resolved */
	char *addresses;             /* text of bound, "" when off */
	char *advertised;
};

struct dialled {          /* in place of a door, for one connection that we began */
	struct door door; /* first: conn_dialled casts */
	struct net_door spec;
	struct dialling *waiting; /* until it is open, dial.c's */
};

struct tls_contexts { /* each NULL where it is not needed */
	struct tls_context *doors;
	struct tls_context *mutual; /* for doors that ask for a certificate in any case */
	struct tls_context *dial;
};

struct listener { /* one socket: a door, an address, a loop */
	struct event event;
	struct net_home *home;
	const struct door *door;
	int fd;
	bool accepting, begun;
};

enum {
	SCRATCH_BYTES = 256 * 1024, /* what sockets are read into */
	CIPHER_BYTES = 64 * 1024,   /* encrypted input, and plain output on its way to TLS */
	OUT_CHUNK_BYTES = 4080,     /* with its head and malloc's a round 4 KiB */
	SPARES_MAX = 64
};

struct net_home { /* what one loop has of the net */
	struct net *net;
	struct loop *loop;
	const struct net_conf *conf;
	struct tls_contexts tls;          /* for new connections */
	struct list conns;                /* all of this loop */
	struct list pending;              /* with work for the end of the turn */
	struct list moves;                /* of those which leave for other loops */
	struct loop_hook flush;           /* wanted while pending holds any */
	struct conn *current;             /* whose input an adapter is looking at, if any */
	uint8_t *scratch, *cipher;        /* SCRATCH_BYTES, CIPHER_BYTES; good within one event */
	struct chunk *spares[SPARES_MAX]; /* empty output chunks */
	int spare_count;
	struct listener *listeners;
	int listener_count;
	struct loop_timer accept_again;     /* set while accepting is paused */
	struct limit_gate gate, inner_gate; /* of clients; of what goes between nodes */
	struct event_base *lull; /* of those whose input can wait (conn_lull); NULL: none yet */
	struct loop_timer lull_timer;
	bool lull_armed;
	_Atomic int64_t load; /* connections assigned here; others read it to balance */
	bool draining;
};

struct net {
	struct loops *loops;
	struct workers *names; /* look up names */
	const struct net_conf *conf;
	struct limit_total limit;
	int64_t files; /* open files allowed */
	int home_count;
	struct net_home *homes;
	struct door doors[DOOR_COUNT];
	struct door local; /* net_open_local; name NULL: none */
	char *local_path;
	uint64_t local_inode; /* what is removed at the end is what we made */
	bool has_tls, has_mutual;
	bool internal_listens;
};

static inline struct limit_gate *net_gate(struct net_home *h, const struct door *d)
{
	return d->internal ? &h->inner_gate : &h->gate;
}

/* Bounds of one connection. Those of clients are configured; what goes between nodes has its own
 * bounds further up, which have to find room here. */
enum {
	INTERNAL_OUT_HIGH = 1 << 20,
	INTERNAL_OUT_LOW = 1 << 18,
	INTERNAL_OUT_MAX = 1 << 30,
	INTERNAL_INPUT_MAX = 128 << 20
};
static inline size_t net_out_high(const struct net_home *h, const struct door *d)
{
	return d->internal ? INTERNAL_OUT_HIGH : (size_t)h->conf->out_high;
}
static inline size_t net_out_low(const struct net_home *h, const struct door *d)
{
	return d->internal ? INTERNAL_OUT_LOW : (size_t)h->conf->out_low;
}
static inline size_t net_out_max(const struct net_home *h, const struct door *d)
{
	return d->internal ? INTERNAL_OUT_MAX : (size_t)h->conf->out_max;
}
static inline size_t net_input_max(const struct net_home *h, const struct door *d)
{
	return d->internal ? INTERNAL_INPUT_MAX : (size_t)h->conf->input_max;
}

static inline void net_count(
	const struct net_home *h, const struct door *d, enum net_metric m, int64_t n)
{
	metric_add(loop_cells(h->loop), &net_metrics, (int)m * DOOR_COUNT + (int)d->index, n);
}

/* conn.c */
void conn_home_init(struct net_home *h);
void conn_home_fini(struct net_home *h); /* the loops have ended; frees what is left */
/* Takes fd, which has been counted in the limit and the load; h's thread. */
void conn_start(struct net_home *h, const struct door *d, int fd, const struct sockaddr *peer);
/* The same for a socket we have connected: d goes with the connection, or at once when NULL is
 * given as there is no memory. */
struct conn *conn_start_dialled(
	struct net_home *h, struct dialled *d, int fd, const struct sockaddr *peer);
/* Says goodbye on all connections of clients; at_once: without waiting for their output. */
void conn_close_all(struct net_home *h, bool at_once);

/* net.c */
/* Between nodes the host's way with congestion may be dear: BBR paces, which is a timer and an
 * interrupt for every few segments. One that the host does not have leaves it as it is. To be
 * called before fd connects, or listens for those that take it over: a socket that was BBR's once
 * is paced for ever (sk_pacing_status in Linux's net/ipv4/tcp_bbr.c is set, and never taken back).
 */
void net_choose_congestion(const struct net_conf *conf, int fd);

/* dial.c */
/* The connection it waits for is open (OK) or never will be; failure: a few words, or NULL. */
void dial_ended(struct dialling *x, struct conn *c, enum err e, const char *failure);

/* listen.c */
/* Binds the door's addresses, a socket per loop, adding to each home's listeners. ERR_EXISTS
 * (in use), ERR_INVALID. */
enum err listen_bind(struct net *n, struct door *d, struct address_list *wanted, char *why,
	size_t why_size) MUST_USE;
/* Binds n->local. */
enum err listen_bind_local(struct net *n, const char *path, char *why, size_t why_size) MUST_USE;
void listen_remove_local(struct net *n); /* the file */
/* The kernel queues clients from here on. Which is those of internal doors, or all others. */
enum err listen_all(struct net *n, bool internal) MUST_USE;
void listen_start(struct net_home *h, bool internal); /* h's thread: accepts */
void listen_home_init(struct net_home *h);
void listen_stop(struct net_home *h); /* h's thread: never again */
void listen_home_fini(struct net_home *h);

#endif
