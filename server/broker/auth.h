/* Logins, the same for all doors: without one, by password, by certificate, by SCRAM (RFC 5802,
 * 7677). Failed ones are answered late, later with each from the same address or of the same user,
 * counted, and never say whether the user or the password was wrong; of an address that fails only
 * so many are looked at. Thread: the shard's loop; hashing runs on workers, a bounded number at a
 * time; a password that was right lately is recognised without. */
#ifndef BROKER_AUTH_H
#define BROKER_AUTH_H
#include "server/broker/access.h"

struct auth_peer {           /* who asks; borrowed for the call (copied where needed) */
	const char *door;    /* "mqtt"; static */
	const char *address; /* conn_peer */
	bool tls, local;     /* local: came through the node's own socket */
	/* Of a verified client certificate, or NULL: conn_cert_subject, conn_cert_name (the common
	 * name), conn_cert_san. */
	const char *cert_subject, *cert_name, *cert_san;
};

/* Without user and password: a certificate's user (auth.certificate), else auth.anonymous. Gives a
 * share of an access. ERR_UNAUTHENTICATED; ERR_UNAVAILABLE: no catalogue is in force yet, so nobody
 * knows whether there are users. */
enum err auth_without(struct shard *s, const struct auth_peer *peer, struct access **out) MUST_USE;

struct auth_login { /* embed: by password; the broker's from auth_login until done */
	struct shard *shard;
	struct loop_timer timer;      /* private */
	struct auth_attempt *attempt; /* private */
	/* The outcome: */
	enum err err;          /* ERR_UNAUTHENTICATED, ERR_BUSY: too many logins under way,
				* ERR_UNAVAILABLE, ERR_NOMEM, ERR_CLOSED: cancelled */
	struct access *access; /* a share; NULL unless err is OK */
	void (*done)(struct auth_login *l); /* never inside the call */
};
/* Copies user and password, and wipes its copy. While there is no user and auth.anonymous lets the
 * peer in, any user and password will do. */
void auth_login(struct auth_login *l, const struct auth_peer *peer, struct bytes user,
	struct bytes password);
/* Nobody wants to know any more: done runs all the same (soon), with access NULL. */
void auth_cancel(struct auth_login *l);

struct auth_scram; /* one SCRAM exchange, of a connection */
enum { AUTH_SCRAM_MESSAGE_MAX = 2048 };
/* The client's first message; writes the server's first to out. ERR_MALFORMED, ERR_NOMEM,
 * ERR_UNAVAILABLE. An unknown user goes through with made-up salt, the same one each time, that
 * looks, with its iterations, like one of those there are. */
enum err auth_scram_begin(struct shard *s, enum secret_kind kind, const struct auth_peer *peer,
	struct bytes client_first, struct buf *out, struct auth_scram **x) MUST_USE;
/* The client's last message; done(arg) runs later, on failure late, never inside the call: err OK,
 * out has the server's last, and a share of the access; ERR_UNAUTHENTICATED: out has "e=...";
 * ERR_BUSY: too many were refused from there lately, so nobody has looked. Frees x. */
void auth_scram_end(struct auth_scram *x, struct bytes client_final,
	void (*done)(void *arg, enum err e, struct access *access, struct bytes server_final),
	void *arg);
void auth_scram_free(struct auth_scram *x); /* at any time; done does not run. NULL is fine */

/* Whether a client may come without a login at all (for the answer of doors which ask first). */
bool auth_needed(struct shard *s, const struct auth_peer *peer);

#endif
