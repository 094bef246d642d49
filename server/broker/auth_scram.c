/* SCRAM exchanges (RFC 5802, 7677): the client proves that it knows the password, and learns that
 * we know what was made of it; nothing slow is computed here, so it stays on the loop. A user that
 * does not exist, or has no secret of the kind, has one made up, from its name and what the cluster
 * keeps secret: the same one each time, on each node. It looks like one of those that there are,
 * since clients of Kafka choose salts and iterations themselves. */
#include "server/base/clock.h"
#include "server/broker/auth_priv.h"
#include "server/broker/scram.h"

enum {
	OUR_NONCE_BYTES = 18,
	KEPT_MAX = 3 * AUTH_SCRAM_MESSAGE_MAX,
	FINAL_MAX = 256,
	SALT_MAX = 255,
	LOOKS_MAX = 64 /* at users, for one to look like */
};
static const char failure[] = "e=invalid-proof";
static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";

struct auth_scram {
	struct shard_rights *home;
	struct auth_who who;
	enum secret_kind kind;
	bool known;   /* the secret is the user's */
	bool refused; /* whatever the proof */
	bool busy;    /* too many were, from there */
	struct secret secret;
	uint8_t made_up[SALT_MAX + SECRET_HASH_MAX];
	struct buf kept; /* what follows borrows from it */
	struct bytes user, gs2, nonce;
	size_t said; /* bytes of kept before the text of both first messages */
	/* The end: */
	struct loop_timer timer;
	struct buf out;
	bool right;
	void (*done)(void *arg, enum err e, struct access *access, struct bytes server_final);
	void *arg;
};

/* A secret of the kind, one of u, which is chosen by a number; NULL: none is found. */
static const struct secret *one_of_kind(
	const struct auth_scram *x, uint32_t number, struct user_doc *u)
{
	const struct catalog *c = x->home->catalog;
	int first = catalog_doc_seek(c, bytes_of("u\0", 2));
	int count = catalog_doc_seek(c, bytes_of("u\1", 2)) - first;
	int at = (int)((uint64_t)number * (uint64_t)count >> 32);
	const struct secret *s = NULL;
	for (int i = 0; i < count && i < LOOKS_MAX && s == NULL; i++) {
		const struct catalog_doc *d = catalog_doc_at(c, first + (at + i) % count);
		if (user_read(d->key, d->value, u) == OK)
			s = user_secret(u, x->kind);
	}
	return s;
}

/* Kafka's own tools write a number of 130 bits: its first digit is not any. */
static bool is_number(struct bytes salt)
{
	for (size_t i = 0; i < salt.len; i++)
		if (salt.at[i] == 0 || strchr(digits, salt.at[i]) == NULL)
			return false;
	return salt.len > 0;
}

static void make_up_salt(uint8_t *out, const struct secret *like, struct bytes key, uint8_t *mac)
{
	bool number = is_number(like->salt);
	for (size_t i = 0; i < like->salt.len; i++) {
		size_t at = i % AUTH_KEY_BYTES;
		if (at == 0)
			secret_mac(key, bytes_of(mac, AUTH_KEY_BYTES), mac);
		out[i] = number ? (uint8_t)digits[mac[at] % (sizeof digits - 1)] : mac[at];
	}
	if (number)
		out[0] = like->salt.at[0];
}

static void make_up(struct auth_scram *x, struct bytes user)
{
	static const uint8_t usual_salt[SECRET_SALT_BYTES];
	static const struct secret usual = {
		.salt = {usual_salt, sizeof usual_salt}, .iterations = SECRET_ITERATIONS};
	const struct catalog *c = x->home->catalog;
	uint8_t key[AUTH_KEY_BYTES], mac[AUTH_KEY_BYTES];
	struct user_doc u;
	int first = catalog_doc_seek(c, bytes_of("u\0", 2));
	struct bytes kept = first < catalog_doc_count(c) ? catalog_doc_at(c, first)->value
							 : bytes_of(NULL, 0);
	secret_mac(kept, bytes_text(node_cluster_id(x->home->rights->broker->node)), key);
	secret_mac(bytes_of(key, sizeof key), user, mac);
	const struct secret *like = one_of_kind(x, get_u32be(mac), &u);
	if (like == NULL)
		like = &usual;
	make_up_salt(x->made_up, like, bytes_of(key, sizeof key), mac);
	size_t len = secret_hash_bytes(x->kind), salt_len = like->salt.len;
	/* Keys that nobody knows. */
	secret_random(x->made_up + salt_len, len);
	x->secret = (struct secret){.kind = x->kind,
		.salt = bytes_of(x->made_up, salt_len),
		.stored_key = bytes_of(x->made_up + salt_len, len),
		.server_key = bytes_of(x->made_up + salt_len, len),
		.iterations = like->iterations};
}

static struct bytes keep(struct auth_scram *x, struct bytes b)
{
	size_t at = buf_len(&x->kept);
	buf_add(&x->kept, b);
	must(x->kept.err == OK);
	return bytes_of(buf_bytes(&x->kept).at + at, b.len);
}

/* The user's secret, or one made up. */
static void choose_secret(struct auth_scram *x, struct bytes user)
{
	struct user_doc u;
	const struct secret *s = NULL;
	if (rights_find_user(x->home, user, &u) && !u.disabled)
		s = user_secret(&u, x->kind);
	x->known = s != NULL;
	if (s == NULL) {
		make_up(x, user);
		return;
	}
	x->secret = *s;
	x->secret.salt = keep(x, s->salt);
	x->secret.stored_key = keep(x, s->stored_key);
	x->secret.server_key = keep(x, s->server_key);
}

/* Both nonces. */
static void make_nonce(struct auth_scram *x, struct bytes client)
{
	uint8_t raw[OUR_NONCE_BYTES];
	size_t at = buf_len(&x->kept);
	secret_random(raw, sizeof raw);
	buf_add(&x->kept, client);
	base64_write(bytes_of(raw, sizeof raw), &x->kept);
	x->nonce = bytes_of(buf_bytes(&x->kept).at + at, buf_len(&x->kept) - at);
}

void auth_scram_free(struct auth_scram *x)
{
	if (x == NULL)
		return;
	loop_timer_cancel(&x->timer);
	struct bytes b = buf_bytes(&x->kept);
	secret_wipe((void *)(uintptr_t)b.at, b.len);
	buf_fini(&x->kept);
	buf_fini(&x->out);
	mem_free(x);
}

/* Ours at its end: librdkafka before 2.6.1 says its own nonce once more before it. The proof is
 * over what was said, so nothing is lost by that. */
static bool nonce_ok(struct bytes said, struct bytes ours)
{
	return said.len >= ours.len &&
		memcmp(said.at + said.len - ours.len, ours.at, ours.len) == 0;
}

/* Whether the client knows the password; writes our own proof. */
static bool judge(struct auth_scram *x, struct bytes client_final)
{
	struct scram_final f;
	uint8_t signature[SECRET_HASH_MAX];
	struct buf proof;
	if (client_final.len > AUTH_SCRAM_MESSAGE_MAX || scram_final_read(client_final, &f) != OK ||
		!scram_binding_ok(f.binding, x->gs2) || !nonce_ok(f.nonce, x->nonce))
		return false;
	buf_init(&proof, AUTH_SCRAM_MESSAGE_MAX);
	buf_add_u8(&x->kept, ',');
	buf_add(&x->kept, f.without_proof);
	struct bytes all = buf_bytes(&x->kept);
	struct bytes said = bytes_of(all.at + x->said, all.len - x->said);
	bool right = x->kept.err == OK && base64_read(f.proof, &proof) == OK &&
		secret_proof_ok(&x->secret, said, buf_bytes(&proof)) && x->known && !x->refused;
	buf_fini(&proof);
	secret_server_signature(&x->secret, said, signature);
	buf_add_text(&x->out, "v=");
	base64_write(bytes_of(signature, secret_hash_bytes(x->kind)), &x->out);
	return right;
}

static void scram_fire(struct loop_timer *t)
{
	struct auth_scram *x = list_entry(t, struct auth_scram, timer);
	struct access *access = NULL;
	struct user_doc u;
	/* As long as the user has the secret that was asked for. */
	const struct secret *now = x->right && rights_find_user(x->home, x->user, &u)
		? user_secret(&u, x->kind)
		: NULL;
	if (now != NULL && bytes_equal(now->stored_key, x->secret.stored_key))
		access = access_of_user(x->home->shard, x->user, x->who.address);
	if (x->right && access == NULL)
		(void)auth_refused(x->home, &x->who, x->user);
	if (access != NULL)
		auth_accepted(x->home);
	enum err e = access != NULL ? OK : x->busy ? ERR_BUSY : ERR_UNAUTHENTICATED;
	x->done(x->arg, e, access, e == OK ? buf_bytes(&x->out) : bytes_text(failure));
	auth_scram_free(x);
}

enum err auth_scram_begin(struct shard *s, enum secret_kind kind, const struct auth_peer *peer,
	struct bytes client_first, struct buf *out, struct auth_scram **result)
{
	struct shard_rights *r = rights_of(s);
	struct scram_first first;
	loop_must_own(s->loop);
	if (!rights_known(r))
		return ERR_UNAVAILABLE;
	if (kind == SECRET_CRYPT || client_first.len > AUTH_SCRAM_MESSAGE_MAX ||
		scram_first_read(client_first, &first) != OK)
		return ERR_MALFORMED;
	struct auth_scram *x = mem_new(sizeof *x);
	x->home = r;
	x->kind = kind;
	auth_keep(peer, &x->who);
	loop_timer_init(&x->timer, s->loop, scram_fire);
	buf_init(&x->kept, KEPT_MAX);
	buf_init(&x->out, FINAL_MAX);
	if (buf_room(&x->kept, KEPT_MAX) == NULL) { /* at once: what is in it does not move */
		auth_scram_free(x);
		return ERR_NOMEM;
	}
	choose_secret(x, first.user);
	x->user = keep(x, first.user);
	x->gs2 = keep(x, first.gs2);
	/* To act as somebody else is not offered. */
	x->refused = first.authzid.len > 0 && !bytes_equal(first.authzid, first.user);
	make_nonce(x, first.nonce);
	x->said = buf_len(&x->kept);
	(void)keep(x, first.bare);
	buf_add_u8(&x->kept, ',');
	size_t ours = buf_len(&x->kept);
	scram_server_first(x->nonce, x->secret.salt, x->secret.iterations, &x->kept);
	buf_add(out, bytes_of(buf_bytes(&x->kept).at + ours, buf_len(&x->kept) - ours));
	if (x->kept.err != OK || out->err != OK) {
		enum err e = out->err != OK ? out->err : ERR_MALFORMED;
		auth_scram_free(x);
		return e;
	}
	*result = x;
	return OK;
}

void auth_scram_end(struct auth_scram *x, struct bytes client_final,
	void (*done)(void *arg, enum err e, struct access *access, struct bytes server_final),
	void *arg)
{
	x->done = done;
	x->arg = arg;
	x->busy = !auth_may_try(x->home, &x->who);
	x->right = !x->busy && judge(x, client_final);
	if (x->busy)
		COUNT(x->home->shard, M_LOGINS_BUSY, 1);
	loop_timer_set(
		&x->timer, x->right || x->busy ? 0 : auth_refused(x->home, &x->who, x->user));
}
