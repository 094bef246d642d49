/* TLS 1.2 and 1.3, both sides, by wolfSSL: a filter beside a socket. Encrypted bytes are read
 * by the connection and fed in from memory; what is to be sent goes straight to the socket.
 * This module alone includes wolfSSL, whose headers take the names of OpenSSL.
 * Thread: a context is immutable and shared by all loops (counted); a tls belongs to the loop
 * of its connection. */
#ifndef NET_TLS_H
#define NET_TLS_H
#include <stdbool.h>
#include "server/base/wire.h"

enum tls_client { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };
enum tls_version { TLS_1_2, TLS_1_3 };

struct tls_files {        /* as configured; "" = not set */
	const char *cert; /* PEM, the chain */
	const char *key;
	const char *ca;  /* who signs client certificates */
	const char *crl; /* PEM list of what they took back */
	enum tls_client client;
	enum tls_version version_min;
	bool dials; /* for connections we begin: the other side must be signed by ca, too */
};

struct tls_context;

/* Reads the files. ERR_INVALID; why gets one line which names the key. */
enum err tls_context_new(
	const struct tls_files *f, struct tls_context **out, char *why, size_t why_size) MUST_USE;
struct tls_context *tls_context_ref(struct tls_context *x);
void tls_context_unref(struct tls_context *x); /* NULL is fine */

struct tls;

/* Starts TLS on fd, on the side the context is for, which stays the caller's. alpn: comma list or
 * NULL. Shares x. ERR_NOMEM. */
enum err tls_new(struct tls_context *x, int fd, const char *alpn, struct tls **out) MUST_USE;
void tls_free(struct tls *t); /* NULL is fine */

/* Lends bytes from the peer; read until ERR_MORE and all of them have been taken. */
void tls_feed(struct tls *t, struct bytes cipher);
/* OK: done. ERR_MORE: feed, or wait for the socket when tls_is_blocked. Else failed, and
 * tls_failure tells why in a word or two. */
enum err tls_handshake(struct tls *t) MUST_USE;
const char *tls_failure(const struct tls *t);
/* OK: *got bytes were read; ERR_MORE: nothing left to read; ERR_CLOSED: the peer ended it;
 * ERR_PROTOCOL: broken. */
enum err tls_read(struct tls *t, void *at, size_t size, size_t *got) MUST_USE;
/* OK: taken, all of it, and sent as far as the socket allows. ERR_MORE: nothing was taken, as the
 * socket still owes what it was given before. ERR_IO, ERR_NOMEM. No bytes: sends what is owed. */
enum { TLS_PIECE_BYTES = 16384 }; /* of plain bytes make one record; the best size of a write */
enum err tls_write(struct tls *t, struct bytes plain) MUST_USE;
bool tls_is_blocked(const struct tls *t); /* encrypted bytes wait for the socket */
void tls_end(struct tls *t);              /* says goodbye, if the socket takes it */

/* After the handshake; "" and NULL when there is none. Owned by t. */
const char *tls_alpn(const struct tls *t);
const char *tls_cert_subject(const struct tls *t);
const char *tls_cert_name(const struct tls *t);
const char *tls_cert_san(const struct tls *t);

#endif
