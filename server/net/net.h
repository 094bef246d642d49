/* Doors: the listeners of all protocols, on every loop (SO_REUSEPORT), and their limits.
 * Boot: net_rows into the conf; net_open after conf_apply; net_listen when the node is ready to
 * serve; net_drain at SIGTERM. */
#ifndef NET_NET_H
#define NET_NET_H
#include "server/base/conf.h"
#include "server/net/conn.h"

/* One protocol's plain and TLS listener: keys listen.NAME, listen.NAMEs, advertise.NAME(s),
 * proxy_protocol.NAME(s). The keys and their defaults exist for every door of DESIGN section 8,
 * built or not; one with kind NULL logs a line when an address is configured. */
struct net_door {
	const char *name;             /* "mqtt" */
	const struct conn_kind *kind; /* NULL: not built yet */
	void *arg;                    /* conn_door_arg */
	const char *alpn;             /* comma list offered over TLS, or NULL */
	/* The plain listener speaks TLS, too, and clients must show a certificate of tls.ca. */
	bool mutual;
};

struct net;
extern const struct conf_row
	net_rows[];          /* listen.*, advertise.*, proxy_protocol.*, tls.*, conn.* */
size_t net_conf_bytes(void); /* size of the struct that net_rows fill */
extern struct metric_table net_metrics;

/* Reads addresses and certificates, probes that no other process holds a port (before
 * SO_REUSEPORT would hide it) and binds. conf is what net_rows filled. doors are borrowed until
 * net_free. why gets one line. ERR_INVALID (bad address, certificate), ERR_EXISTS (in use). */
enum err net_open(struct loops *loops, const void *conf, const struct net_door *doors, int count,
	struct net **out, char *why, size_t why_size) MUST_USE;
/* The plain listener of that door gets another one beside it, whatever listen.* says: a socket in
 * the file system, for the user that the server runs as (mode 0600). Its connections are
 * conn_is_local. Before net_listen; goes with net_drain. A file that is left of a process that is
 * gone is replaced. ERR_EXISTS: somebody answers there, or it is no socket; ERR_TOOBIG: the path is
 * too long for one; ERR_INVALID. why gets one line. */
enum err net_open_local(
	struct net *n, const char *door, const char *path, char *why, size_t why_size) MUST_USE;
void net_listen(struct net *n); /* starts accepting on all loops */
/* The same for the door between nodes alone, before: they need each other to get ready. */
void net_listen_internal(struct net *n);
/* The addresses a door really listens on ("127.0.0.1:1883,..."), port 0 resolved; advertised:
 * what clients are told. "" when off. Static until net_free. */
const char *net_addresses(const struct net *n, const char *door, bool tls, bool advertised);
/* Reads the certificates again (SIGHUP), while loops run; new connections use them. */
enum err net_reload_tls(struct net *n, char *why, size_t why_size) MUST_USE;
/* Stops accepting, closes all connections (each adapter's closed runs) but those between nodes,
 * which clients' last words still need; done on the caller's thread when all are gone or after
 * timeout_ms. Not from a loop. */
void net_drain(struct net *n, int64_t timeout_ms);
void net_free(struct net *n);
/* The connections of clients open now, of all doors. Any thread. */
int64_t net_conn_count(const struct net *n);

#endif
