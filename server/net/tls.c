/* wolfSSL with its input and output replaced. Input comes from memory, because wolfSSL would read
 * a record's head and body with a call each. Output that the socket does not take is kept here,
 * encrypted, and wolfSSL never sees a full socket: its rules for repeating a write (same bytes,
 * same size, what of a key update in between) need not be followed. No more than one record and
 * one flight of a handshake wait that way, since tls_write takes nothing while something waits.
 *
 * After the handshake everything that only it needed is given back; what a connection keeps is
 * the ciphers' state and two record buffers. */
#include "server/net/tls.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/openssl/x509v3.h>
#include "server/base/buf.h"
#include "server/base/mem.h"

enum { OWED_BYTES_MAX = 1 << 20, SUBJECT_BYTES_MAX = 1024, ALPN_BYTES_MAX = 256 };

/* By speed on machines where this library's AES is plain C (README.md has the figures). Without
 * forward secrecy or authenticated encryption nothing is offered. */
static const char ciphers[] = "TLS13-CHACHA20-POLY1305-SHA256:TLS13-AES128-GCM-SHA256:"
			      "TLS13-AES256-GCM-SHA384:"
			      "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
			      "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
			      "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

struct tls_context {
	WOLFSSL_CTX *ctx;
	_Atomic uint32_t refs;
	bool dials;
};

struct tls {
	WOLFSSL *ssl;
	struct tls_context *context;
	int fd;
	int failure;     /* wolfSSL's code */
	struct bytes in; /* lent: encrypted, not read yet */
	struct buf owed; /* encrypted, waits for the socket */
	char *alpn;
	char *subject, *name, *san; /* of the peer's certificate */
};

/* The context */

/* The library says only that it failed when a file is missing or not to be read, or has nothing of
 * the kind in it; the first two are found out here. */
static enum err refuse(char *why, size_t size, const char *key, const char *file, int code)
{
	char text[80] = "nothing usable in it";
	FILE *f = fopen(file, "rb");
	if (f == NULL || fgetc(f) == EOF)
		snprintf(text, sizeof text, "%s",
			f == NULL           ? strerror(errno)
				: ferror(f) ? strerror(errno)
					    : "the file is empty");
	else if (code < 0)
		wolfSSL_ERR_error_string_n((unsigned long)-code, text, sizeof text);
	if (f != NULL)
		fclose(f);
	snprintf(why, size, "%s: %s: %s", key, file, text);
	return ERR_INVALID;
}

static enum err load_files(WOLFSSL_CTX *ctx, const struct tls_files *f, char *why, size_t size)
{
	int rc = wolfSSL_CTX_use_certificate_chain_file(ctx, f->cert);
	if (rc != WOLFSSL_SUCCESS)
		return refuse(why, size, "tls.cert", f->cert, rc);
	rc = wolfSSL_CTX_use_PrivateKey_file(ctx, f->key, WOLFSSL_FILETYPE_PEM);
	if (rc != WOLFSSL_SUCCESS)
		return refuse(why, size, "tls.key", f->key, rc);
	if (*f->ca != 0) {
		rc = wolfSSL_CTX_load_verify_locations(ctx, f->ca, NULL);
		if (rc != WOLFSSL_SUCCESS)
			return refuse(why, size, "tls.ca", f->ca, rc);
	}
	if (*f->crl == 0)
		return OK;
	rc = wolfSSL_CTX_EnableCRL(ctx, 0);
	if (rc == WOLFSSL_SUCCESS)
		rc = wolfSSL_CTX_LoadCRLFile(ctx, f->crl, WOLFSSL_FILETYPE_PEM);
	return rc == WOLFSSL_SUCCESS ? OK : refuse(why, size, "tls.crl", f->crl, rc);
}

static int on_recv(WOLFSSL *ssl, char *at, int size, void *arg)
{
	struct tls *t = arg;
	(void)ssl;
	size_t n = t->in.len < (size_t)size ? t->in.len : (size_t)size;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_READ;
	memcpy(at, t->in.at, n);
	t->in = bytes_of(t->in.at + n, t->in.len - n);
	return (int)n;
}

static int on_send(WOLFSSL *ssl, char *at, int size, void *arg)
{
	struct tls *t = arg;
	ssize_t n = 0;
	(void)ssl;
	if (buf_len(&t->owed) == 0) {
		n = send(t->fd, at, (size_t)size, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return WOLFSSL_CBIO_ERR_GENERAL;
		if (n < 0)
			n = 0;
	}
	if (n < size)
		buf_add(&t->owed, bytes_of(at + n, (size_t)(size - n)));
	return t->owed.err == OK ? size : WOLFSSL_CBIO_ERR_GENERAL;
}

/* Certificates without a known authority, chain or date fail the handshake by the library's own
 * verification; here it is only switched on. */
static void set_client(WOLFSSL_CTX *ctx, enum tls_client client)
{
	switch (client) {
	case TLS_CLIENT_NONE: wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL); break;
	case TLS_CLIENT_OPTIONAL: wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_PEER, NULL); break;
	case TLS_CLIENT_REQUIRED:
		wolfSSL_CTX_set_verify(
			ctx, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		break;
	}
}

/* Taken up again, a session has no certificate any more, and nobody looks whether it was taken back
 * meanwhile: where clients show one, each handshake is a whole one. */
static void forget_sessions(WOLFSSL_CTX *ctx)
{
	(void)wolfSSL_CTX_set_session_cache_mode(ctx, WOLFSSL_SESS_CACHE_OFF);
	must(wolfSSL_CTX_NoTicketTLSv12(ctx) == WOLFSSL_SUCCESS);
	must(wolfSSL_CTX_no_ticket_TLSv13(ctx) == 0);
}

static enum err check_files(const struct tls_files *f, char *why, size_t size)
{
	const char *missing = NULL;
	if (*f->cert == 0)
		missing = "tls.cert: not set, but a TLS door or peer.tls is";
	else if (*f->key == 0)
		missing = "tls.key: not set, but tls.cert is";
	else if (*f->ca == 0 && f->client != TLS_CLIENT_NONE)
		missing = "tls.ca: not set, but tls.client or peer.tls asks for certificates";
	if (missing == NULL)
		return OK;
	snprintf(why, size, "%s", missing);
	return ERR_INVALID;
}

/* The library's own check of a key against its certificate passes any elliptic curve key, so both
 * ends of a handshake are played in memory: a signature by a wrong key fails there. */

struct pipe_end {
	struct buf *in, *out;
};

static int on_pipe_recv(WOLFSSL *ssl, char *at, int size, void *arg)
{
	struct buf *in = ((struct pipe_end *)arg)->in;
	(void)ssl;
	size_t n = buf_len(in) < (size_t)size ? buf_len(in) : (size_t)size;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_READ;
	memcpy(at, buf_bytes(in).at, n);
	buf_consume(in, n);
	return (int)n;
}

static int on_pipe_send(WOLFSSL *ssl, char *at, int size, void *arg)
{
	(void)ssl;
	buf_add(((struct pipe_end *)arg)->out, bytes_of(at, (size_t)size));
	return size;
}

static void attach(WOLFSSL *ssl, struct pipe_end *end)
{
	wolfSSL_SSLSetIORecv(ssl, on_pipe_recv);
	wolfSSL_SSLSetIOSend(ssl, on_pipe_send);
	wolfSSL_SetIOReadCtx(ssl, end);
	wolfSSL_SetIOWriteCtx(ssl, end);
	wolfSSL_set_verify(ssl, WOLFSSL_VERIFY_NONE, NULL);
}

static bool handshake_in_memory(WOLFSSL *server, WOLFSSL *client)
{
	enum { STEPS_MAX = 16 };
	struct buf up, down;
	bool done[2] = {false, false};
	struct pipe_end ends[2] = {{&up, &down}, {&down, &up}};
	buf_init(&up, OWED_BYTES_MAX);
	buf_init(&down, OWED_BYTES_MAX);
	attach(server, &ends[0]);
	attach(client, &ends[1]);
	for (int i = 0; i < STEPS_MAX && !(done[0] && done[1]); i++) {
		done[1] = done[1] || wolfSSL_connect(client) == WOLFSSL_SUCCESS;
		done[0] = done[0] || wolfSSL_accept(server) == WOLFSSL_SUCCESS;
	}
	buf_fini(&up);
	buf_fini(&down);
	return done[0] && done[1];
}

static bool key_fits(WOLFSSL_CTX *ctx)
{
	WOLFSSL_CTX *client_ctx = wolfSSL_CTX_new(wolfSSLv23_client_method());
	WOLFSSL *client = client_ctx == NULL ? NULL : wolfSSL_new(client_ctx);
	WOLFSSL *server = wolfSSL_new(ctx);
	bool fits = client != NULL && server != NULL && handshake_in_memory(server, client);
	wolfSSL_free(server);
	wolfSSL_free(client);
	wolfSSL_CTX_free(client_ctx);
	return fits;
}

enum err tls_context_new(
	const struct tls_files *f, struct tls_context **out, char *why, size_t why_size)
{
	enum err e = check_files(f, why, why_size);
	if (e != OK)
		return e;
	wolfSSL_Init(); /* counted, as wolfSSL_Cleanup is */
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(
		f->dials ? wolfSSLv23_client_method() : wolfSSLv23_server_method());
	if (ctx == NULL) {
		snprintf(why, why_size, "tls.cert: out of memory");
		wolfSSL_Cleanup();
		return ERR_INVALID;
	}
	int version = f->version_min == TLS_1_3 ? WOLFSSL_TLSV1_3 : WOLFSSL_TLSV1_2;
	must(wolfSSL_CTX_SetMinVersion(ctx, version) == WOLFSSL_SUCCESS);
	must(wolfSSL_CTX_set_cipher_list(ctx, ciphers) == WOLFSSL_SUCCESS);
	wolfSSL_CTX_SetIORecv(ctx, on_recv);
	wolfSSL_CTX_SetIOSend(ctx, on_send);
	set_client(ctx, f->client);
	if (!f->dials && f->client != TLS_CLIENT_NONE)
		forget_sessions(ctx);
	e = load_files(ctx, f, why, why_size);
	if (e == OK && !f->dials && !key_fits(ctx)) { /* the doors' context has been through it */
		snprintf(why, why_size, "tls.key: %s: not the key of the certificate %s", f->key,
			f->cert);
		e = ERR_INVALID;
	}
	if (e != OK) {
		wolfSSL_CTX_free(ctx);
		wolfSSL_Cleanup();
		return e;
	}
	struct tls_context *x = mem_new(sizeof *x);
	x->ctx = ctx;
	x->dials = f->dials;
	atomic_init(&x->refs, 1);
	*out = x;
	return OK;
}

struct tls_context *tls_context_ref(struct tls_context *x)
{
	atomic_fetch_add_explicit(&x->refs, 1, memory_order_relaxed);
	return x;
}

void tls_context_unref(struct tls_context *x)
{
	if (x == NULL || atomic_fetch_sub_explicit(&x->refs, 1, memory_order_acq_rel) > 1)
		return;
	wolfSSL_CTX_free(x->ctx);
	wolfSSL_Cleanup();
	mem_free(x);
}

/* The connection */

static bool offer_alpn(WOLFSSL *ssl, const char *list)
{
	char copy[ALPN_BYTES_MAX];
	size_t len = list == NULL ? 0 : strlen(list);
	if (len == 0)
		return true;
	must(len < sizeof copy);
	memcpy(copy, list, len + 1); /* the library cuts it in place */
	return wolfSSL_UseALPN(ssl, copy, (unsigned)len, WOLFSSL_ALPN_CONTINUE_ON_MISMATCH) ==
		WOLFSSL_SUCCESS;
}

enum err tls_new(struct tls_context *x, int fd, const char *alpn, struct tls **out)
{
	struct tls *t = mem_try(sizeof *t);
	WOLFSSL *ssl = t == NULL ? NULL : wolfSSL_new(x->ctx);
	if (ssl == NULL || !offer_alpn(ssl, alpn)) {
		wolfSSL_free(ssl);
		mem_free(t);
		return ERR_NOMEM;
	}
	*t = (struct tls){.ssl = ssl, .context = tls_context_ref(x), .fd = fd};
	buf_init(&t->owed, OWED_BYTES_MAX);
	wolfSSL_SetIOReadCtx(ssl, t);
	wolfSSL_SetIOWriteCtx(ssl, t);
	*out = t;
	return OK;
}

void tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	wolfSSL_free(t->ssl);
	tls_context_unref(t->context);
	buf_fini(&t->owed);
	mem_free(t->alpn);
	mem_free(t->subject);
	mem_free(t->name);
	mem_free(t->san);
	mem_free(t);
}

void tls_feed(struct tls *t, struct bytes cipher)
{
	t->in = cipher;
}
bool tls_is_blocked(const struct tls *t)
{
	return buf_len(&t->owed) > 0;
}
const char *tls_alpn(const struct tls *t)
{
	return t->alpn ? t->alpn : "";
}
const char *tls_cert_subject(const struct tls *t)
{
	return t->subject;
}
const char *tls_cert_name(const struct tls *t)
{
	return t->name;
}
const char *tls_cert_san(const struct tls *t)
{
	return t->san;
}

/* An alert says what the peer did not like; it is for us to say that it was the peer. */
const char *tls_failure(const struct tls *t)
{
	WOLFSSL_ALERT_HISTORY seen;

	if (t->failure == 0)
		return "closed by the peer";
	if (t->failure != FATAL_ERROR ||
		wolfSSL_get_alert_history(t->ssl, &seen) != WOLFSSL_SUCCESS)
		return wolfSSL_ERR_reason_error_string((unsigned long)t->failure);
	switch (seen.last_rx.code) {
	case unknown_ca: return "the peer does not trust our certificate's authority";
	case bad_certificate:
	case unsupported_certificate:
	case certificate_revoked:
	case certificate_expired:
	case certificate_unknown: return "the peer does not accept our certificate";
	case no_certificate: return "the peer wants a certificate of ours";
	default: return wolfSSL_alert_desc_string_long(seen.last_rx.code);
	}
}

/* Gives the socket what is owed to it. */
static enum err push(struct tls *t)
{
	while (buf_len(&t->owed) > 0) {
		struct bytes b = buf_bytes(&t->owed);
		ssize_t n = send(t->fd, b.at, b.len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? ERR_MORE : ERR_IO;
		buf_consume(&t->owed, (size_t)n);
	}
	return OK;
}

/* RFC 4514 §2.4: what must be escaped in a value. */
static void add_escaped(struct buf *out, const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool edge = (at[i] == ' ' && (i == 0 || i == len - 1)) || (at[i] == '#' && i == 0);
		if (at[i] < 0x20 || at[i] == 0x7f) {
			buf_addf(out, "\\%02X", at[i]);
			continue;
		}
		if (edge || memchr("\"+,;<>\\", at[i], 7) != NULL)
			buf_add_u8(out, '\\');
		buf_add_u8(out, at[i]);
	}
}

/* The subject's parts, last first, as RFC 4514 §2.1 has it. */
static void add_subject(struct buf *out, WOLFSSL_X509_NAME *name)
{
	for (int i = wolfSSL_X509_NAME_entry_count(name) - 1; i >= 0; i--) {
		WOLFSSL_X509_NAME_ENTRY *part = wolfSSL_X509_NAME_get_entry(name, i);
		WOLFSSL_ASN1_STRING *value = wolfSSL_X509_NAME_ENTRY_get_data(part);
		WOLFSSL_ASN1_OBJECT *kind = wolfSSL_X509_NAME_ENTRY_get_object(part);
		const char *word = kind == NULL ? NULL
						: wolfSSL_OBJ_nid2sn(wolfSSL_OBJ_obj2nid(kind));
		if (value == NULL)
			continue;
		if (buf_len(out) > 0)
			buf_add_u8(out, ',');
		buf_add_text(out, word == NULL ? "UNKNOWN" : word);
		buf_add_u8(out, '=');
		add_escaped(out, wolfSSL_ASN1_STRING_data(value),
			(size_t)wolfSSL_ASN1_STRING_length(value));
	}
}

/* A text that is a name as a whole: a NUL in it would cut it for others. NULL: it is not. */
static char *name_text(WOLFSSL_ASN1_STRING *value)
{
	const uint8_t *at = value == NULL ? NULL : wolfSSL_ASN1_STRING_data(value);
	int len = value == NULL ? 0 : wolfSSL_ASN1_STRING_length(value);
	if (at == NULL || len <= 0 || len > SUBJECT_BYTES_MAX ||
		!bytes_utf8(bytes_of(at, (size_t)len)))
		return NULL;
	for (int i = 0; i < len; i++)
		if (at[i] < 0x20 || at[i] == 0x7f)
			return NULL;
	return mem_text(at, (size_t)len);
}

/* The common name, when there is exactly one. */
static char *common_name(WOLFSSL_X509_NAME *subject)
{
	char *name = NULL;
	for (int i = 0, n = wolfSSL_X509_NAME_entry_count(subject); i < n; i++) {
		WOLFSSL_X509_NAME_ENTRY *part = wolfSSL_X509_NAME_get_entry(subject, i);
		WOLFSSL_ASN1_OBJECT *kind = wolfSSL_X509_NAME_ENTRY_get_object(part);
		if (kind == NULL || wolfSSL_OBJ_obj2nid(kind) != NID_commonName)
			continue;
		if (name != NULL) {
			mem_free(name);
			return NULL;
		}
		name = name_text(wolfSSL_X509_NAME_ENTRY_get_data(part));
		if (name == NULL)
			return NULL;
	}
	return name;
}

/* The one alternative name of the first kind there is: URI, mail address, DNS name. */
static char *alternative_name(WOLFSSL_X509 *cert)
{
	static const int kinds[] = {GEN_URI, GEN_EMAIL, GEN_DNS};
	WOLFSSL_STACK *all = wolfSSL_X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	WOLFSSL_ASN1_STRING *found = NULL;
	int n = all == NULL ? 0 : wolfSSL_sk_GENERAL_NAME_num(all), of_kind = 0;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && of_kind == 0; k++)
		for (int i = 0; i < n; i++) {
			WOLFSSL_GENERAL_NAME *g = wolfSSL_sk_GENERAL_NAME_value(all, i);
			if (g == NULL || g->type != kinds[k])
				continue;
			found = g->d.ia5;
			of_kind++;
		}
	char *name = of_kind == 1 ? name_text(found) : NULL;
	if (all != NULL)
		wolfSSL_sk_GENERAL_NAME_pop_free(all, wolfSSL_GENERAL_NAME_free);
	return name;
}

static void keep_names(struct tls *t)
{
	WOLFSSL_X509 *cert = wolfSSL_get_peer_certificate(t->ssl);
	struct buf text;
	if (cert == NULL)
		return;
	buf_init(&text, SUBJECT_BYTES_MAX);
	add_subject(&text, wolfSSL_X509_get_subject_name(cert));
	/* A name that was cut could be taken for somebody else's. */
	if (text.err == OK)
		t->subject = mem_text(buf_bytes(&text).at, buf_len(&text));
	buf_fini(&text);
	t->name = common_name(wolfSSL_X509_get_subject_name(cert));
	t->san = alternative_name(cert);
	wolfSSL_X509_free(cert);
}

static void keep_alpn(struct tls *t)
{
	char *name = NULL;
	unsigned short len = 0;
	if (wolfSSL_ALPN_GetProtocol(t->ssl, &name, &len) == WOLFSSL_SUCCESS && len > 0)
		t->alpn = mem_text(name, len);
}

enum err tls_handshake(struct tls *t)
{
	enum err e = push(t);
	if (e != OK && e != ERR_MORE)
		return e;
	if ((t->context->dials ? wolfSSL_connect(t->ssl) : wolfSSL_accept(t->ssl)) ==
		WOLFSSL_SUCCESS) {
		keep_alpn(t);
		keep_names(t);
		wolfSSL_FreeHandshakeResources(t->ssl);
		wolfSSL_UnloadCertsKeys(t->ssl);
		return OK;
	}
	t->failure = wolfSSL_get_error(t->ssl, 0);
	return t->failure == WOLFSSL_ERROR_WANT_READ ? ERR_MORE : ERR_PROTOCOL;
}

enum err tls_read(struct tls *t, void *at, size_t size, size_t *got)
{
	int n = wolfSSL_read(t->ssl, at, size > INT32_MAX ? INT32_MAX : (int)size);
	if (n > 0) {
		*got = (size_t)n;
		return OK;
	}
	t->failure = wolfSSL_get_error(t->ssl, n);
	if (t->failure == WOLFSSL_ERROR_WANT_READ)
		return ERR_MORE;
	return t->failure == WOLFSSL_ERROR_ZERO_RETURN ? ERR_CLOSED : ERR_PROTOCOL;
}

enum err tls_write(struct tls *t, struct bytes plain)
{
	enum err e = push(t);
	if (e != OK || plain.len == 0)
		return e;
	int n = wolfSSL_write(t->ssl, plain.at, (int)plain.len);
	return n == (int)plain.len ? OK : ERR_IO;
}

void tls_end(struct tls *t)
{
	/* One direction only; the socket's end follows, so the peer's answer is not awaited. */
	if (!tls_is_blocked(t))
		(void)wolfSSL_shutdown(t->ssl);
}
