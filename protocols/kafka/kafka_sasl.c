/* Logins (SASL: KIP-43, KIP-152, KIP-368). A handshake names the mechanism; what it answers with
 * says how tokens come: version 1 in SaslAuthenticate requests, version 0 as frames of nothing but
 * the token. Until somebody is logged in, if a login is needed, nothing but that and ApiVersions is
 * served, and frames are small. Whoever is logged in may log in anew, as the same user.
 *
 *	             SaslHandshake          token
 *	(no login) ----------------> CHOSEN -------> the broker looks (not read meanwhile)
 *	    ^                          ^                 |
 *	    |                          +-----------------+ SCRAM, its first half
 *	    +--------------------------------------------+ the outcome; a failure closes
 *
 * The broker answers failures late, so nothing here counts or waits. */
#include "protocols/kafka/kafka_priv.h"
#include "server/base/log.h"
#include "server/broker/auth.h"

enum mechanism { PLAIN, SCRAM_256, SCRAM_512, MECHANISMS };
static const char *const mechanism_names[MECHANISMS] = {
	[PLAIN] = "PLAIN", [SCRAM_256] = "SCRAM-SHA-256", [SCRAM_512] = "SCRAM-SHA-512"};

struct kafka_login {
	struct kafka_conn *kc;
	enum mechanism mechanism;
	bool raw;
	bool taking;             /* the broker has plain: it is freed when that is done */
	struct kafka_request *r; /* the token's; NULL: it came raw, or none is looked at */
	struct auth_scram *scram;
	struct auth_login plain;
};

static struct auth_peer peer_of(const struct conn *c)
{
	return (struct auth_peer){.door = "kafka",
		.address = conn_peer(c),
		.tls = conn_is_tls(c),
		.cert_subject = conn_cert_subject(c),
		.cert_name = conn_cert_name(c),
		.cert_san = conn_cert_san(c)};
}

/* Rights have changed. A fetch that waits looks again; all other requests look when they come. */
static void on_changed(struct access_holder *h, bool gone)
{
	struct kafka_conn *kc = list_entry(h, struct kafka_conn, who);
	if (kc->closed)
		return;
	if (gone)
		conn_close(kc->conn, ERR_UNAUTHENTICATED);
	else
		kafka_fetch_changed(kc);
}

enum err kafka_login_open(struct kafka_conn *kc)
{
	struct auth_peer peer = peer_of(kc->conn);
	struct access *a;
	enum err e = ERR_UNAVAILABLE;
	kc->who.changed = on_changed;
	if (!auth_needed(kc->home->shard, &peer))
		e = auth_without(kc->home->shard, &peer, &a);
	if (e == ERR_UNAVAILABLE) { /* that is for later to say, or for a login */
		conn_deadline(kc->conn, kc->home->kafka->conf->request_ms);
		return OK;
	}
	if (e == OK && (e = access_hold(&kc->who, a)) != OK)
		access_unref(a);
	return e;
}

bool kafka_login_raw(const struct kafka_conn *kc)
{
	return kc->login != NULL && kc->login->raw;
}

static void login_free(struct kafka_login *l)
{
	if (l->kc->login == l)
		l->kc->login = NULL;
	auth_scram_free(l->scram);
	mem_free(l);
}

/* The broker has it: the connection's memory is kept, and it is not read. */
static void begin(struct kafka_login *l, struct kafka_request *r)
{
	l->r = r;
	if (r != NULL)
		r->outstanding++;
	l->kc->login_busy = true;
	conn_ref(l->kc->conn);
	kafka_pace(l->kc);
}

static void reply(struct kafka_login *l, struct bytes token)
{
	struct conn *c = l->kc->conn;
	if (l->r == NULL) {
		buf_add_u32be(conn_out(c), (uint32_t)token.len);
		buf_add(conn_out(c), token);
		conn_wrote(c);
		return;
	}
	struct kafka_sasl_authenticate_res *res = l->r->res;
	res->auth = kafka_copy(l->r, token);
	kafka_answer(l->r);
}

/* Who is too much is not told that its password is wrong: it comes again. */
static void refuse(struct kafka_login *l, enum err e)
{
	struct kafka_request *r = l->r;
	struct conn *c = l->kc->conn;
	if (e != ERR_UNAUTHENTICATED) /* that is logged where it was found */
		LOG(LOG_WARN, AREA_KAFKA, "login_failed", "peer=%s mechanism=%s err=\"%s\"",
			conn_peer(c), mechanism_names[l->mechanism], err_text(e));
	if (r != NULL) {
		struct kafka_sasl_authenticate_res *res = r->res;
		res->error = KAFKA_SASL_FAILED;
		res->message = bytes_text("authentication failed");
		r->silent = e == ERR_BUSY || e == ERR_UNAVAILABLE;
		kafka_answer(r);
	}
	conn_close(c, e);
}

/* From now on the connection is that user's. */
static enum err become(struct kafka_conn *kc, struct access *a)
{
	if (kc->logged_in && !bytes_equal(access_user(kc->who.access), access_user(a))) {
		access_unref(a);
		return ERR_UNAUTHENTICATED;
	}
	access_release(&kc->who);
	enum err e = access_hold(&kc->who, a);
	if (e != OK)
		access_unref(a);
	kc->logged_in = e == OK;
	conn_deadline(kc->conn, 0);
	return e;
}

/* The outcome. Frees l. */
static void end(struct kafka_login *l, enum err e, struct access *a, struct bytes token)
{
	struct kafka_conn *kc = l->kc;
	struct conn *c = kc->conn;
	kc->login_busy = false;
	if (l->r != NULL)
		(void)kafka_landed(l->r); /* it waits in the queue: it is not gone */
	if (kc->closed || conn_is_closing(c)) {
		access_unref(a);
		if (l->r != NULL) {
			l->r->silent = true;
			kafka_answer(l->r);
		}
	} else {
		if (e == OK)
			e = become(kc, a);
		if (e == OK)
			reply(l, token);
		else
			refuse(l, e);
	}
	login_free(l);
	kafka_pace(kc);
	conn_unref(c);
}

static void on_plain(struct auth_login *p)
{
	struct kafka_login *l = list_entry(p, struct kafka_login, plain);
	l->taking = false;
	end(l, p->err, p->access, bytes_of(kafka_empty, 0));
}

static void on_scram(void *arg, enum err e, struct access *a, struct bytes token)
{
	struct kafka_login *l = arg;
	l->scram = NULL;
	end(l, e, a, token);
}

/* RFC 4616: [authzid] NUL authcid NUL passwd. Who wants to act as somebody else is refused. */
static enum err plain_read(struct bytes token, struct bytes *user, struct bytes *password)
{
	const uint8_t *first = token.len > 0 ? memchr(token.at, 0, token.len) : NULL;
	if (first == NULL)
		return ERR_MALFORMED;
	struct bytes as = bytes_of(token.at, (size_t)(first - token.at));
	size_t left = token.len - as.len - 1;
	const uint8_t *second = left > 0 ? memchr(first + 1, 0, left) : NULL;
	if (second == NULL)
		return ERR_MALFORMED;
	*user = bytes_of(first + 1, (size_t)(second - first) - 1);
	*password = bytes_of(second + 1, left - user->len - 1);
	if (user->len == 0 || password->len == 0 || memchr(password->at, 0, password->len) != NULL)
		return ERR_MALFORMED;
	return as.len == 0 || bytes_equal(as, *user) ? OK : ERR_UNAUTHENTICATED;
}

static enum err plain_start(struct kafka_login *l, struct kafka_request *r, struct bytes token)
{
	struct auth_peer peer = peer_of(l->kc->conn);
	struct bytes user, password;
	enum err e = plain_read(token, &user, &password);
	if (e != OK)
		return e;
	l->plain = (struct auth_login){.shard = l->kc->home->shard, .done = on_plain};
	l->taking = true;
	begin(l, r);
	auth_login(&l->plain, &peer, user, password);
	return OK;
}

static enum err scram_first(struct kafka_login *l, struct kafka_request *r, struct bytes token)
{
	struct auth_peer peer = peer_of(l->kc->conn);
	struct buf out;
	buf_init(&out, AUTH_SCRAM_MESSAGE_MAX);
	enum err e = auth_scram_begin(l->kc->home->shard,
		l->mechanism == SCRAM_256 ? SECRET_SCRAM_256 : SECRET_SCRAM_512, &peer, token, &out,
		&l->scram);
	if (e == OK) {
		l->r = r;
		reply(l, buf_bytes(&out));
		l->r = NULL;
	}
	buf_fini(&out);
	return e;
}

static enum err on_token(struct kafka_login *l, struct kafka_request *r, struct bytes token)
{
	if (token.len > AUTH_SCRAM_MESSAGE_MAX)
		return ERR_TOOBIG;
	if (l->mechanism == PLAIN)
		return plain_start(l, r, token);
	if (l->scram == NULL)
		return scram_first(l, r, token);
	begin(l, r);
	auth_scram_end(l->scram, token, on_scram, l);
	return OK;
}

/* A frame after a handshake of version 0. What is no token at all just ends the connection. */
enum err kafka_login_token(struct kafka_conn *kc, struct bytes token)
{
	struct kafka_login *l = kc->login;
	enum err e = on_token(l, NULL, token);
	if (e != OK) {
		l->r = NULL;
		refuse(l, e);
		login_free(l);
	}
	return OK;
}

void kafka_on_sasl_authenticate(struct kafka_request *r)
{
	const struct kafka_sasl_authenticate_req *req = r->req;
	struct kafka_sasl_authenticate_res *res = r->res;
	struct kafka_login *l = r->kc->login;
	if (l == NULL) {
		res->error = KAFKA_ILLEGAL_SASL_STATE;
		res->message = bytes_text("a handshake comes first");
		kafka_answer(r);
		return;
	}
	enum err e = on_token(l, r, req->auth);
	if (e != OK) {
		l->r = r;
		refuse(l, e);
		login_free(l);
	}
}

static void list_mechanisms(struct kafka_request *r, struct kafka_sasl_handshake_res *res)
{
	res->mechanisms = kafka_take(r, MECHANISMS * sizeof *res->mechanisms);
	if (res->mechanisms == NULL)
		return;
	res->mechanisms_count = MECHANISMS;
	for (int i = 0; i < MECHANISMS; i++)
		res->mechanisms[i] = bytes_text(mechanism_names[i]);
}

/* Raw tokens can't be told from answers: nothing else may be under way then. */
void kafka_on_sasl_handshake(struct kafka_request *r)
{
	const struct kafka_sasl_handshake_req *req = r->req;
	struct kafka_sasl_handshake_res *res = r->res;
	struct kafka_conn *kc = r->kc;
	int mechanism = 0;
	bool raw = r->h.version == 0;
	list_mechanisms(r, res);
	while (mechanism < MECHANISMS &&
		!bytes_equal(req->mechanism, bytes_text(mechanism_names[mechanism])))
		mechanism++;
	if (kc->login != NULL || (raw && (kc->logged_in || kc->count > 1)))
		res->error = KAFKA_ILLEGAL_SASL_STATE;
	else if (mechanism == MECHANISMS)
		res->error = KAFKA_UNSUPPORTED_MECHANISM;
	if (res->error == KAFKA_NONE) {
		kc->login = mem_new(sizeof *kc->login);
		kc->login->kc = kc;
		kc->login->mechanism = (enum mechanism)mechanism;
		kc->login->raw = raw;
	}
	kafka_answer(r);
}

void kafka_login_closed(struct kafka_conn *kc)
{
	struct kafka_login *l = kc->login;
	if (l != NULL && l->taking) {
		auth_cancel(&l->plain);
	} else if (l != NULL && kc->login_busy) {
		auth_scram_free(l->scram);
		l->scram = NULL;
		end(l, ERR_CLOSED, NULL, bytes_of(NULL, 0));
	} else if (l != NULL) {
		login_free(l);
	}
	access_release(&kc->who);
}
