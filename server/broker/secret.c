/* Passwords by two libraries: nettle for SCRAM's hashes, base64 and comparing in constant time,
 * crypt(3) for the slow hash of plain logins (yescrypt, which needs memory as well as time).
 *
 * Of a password three things are kept. Who steals the documents attacks the weakest of them, and
 * that is SCRAM's PBKDF2 with its 8192 rounds; so crypt's cost is set for logins, not beyond: 4 ms
 * and 4 MiB. Passwords are bytes: they are not normalised (SASLprep), as Kafka's brokers do not. */
#include "server/broker/secret.h"
#include <assert.h>
#include <crypt.h>
#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <nettle/pbkdf2.h>
#include <stdio.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum { PASSWORD_MAX = 1024, PHRASE_MAX = 256, CRYPT_COST = 3, KEPT_MAX = 2048 };
static const char crypt_method[] = "$y$";
/* Of no password: what a login of an unknown user is compared with, at the usual cost. */
static const char crypt_nobody[] = "$y$j7T$kQ0f4e4xPvKjVVgFmL2qa.$";

static_assert(SHA256_DIGEST_SIZE <= SECRET_HASH_MAX && SHA512_DIGEST_SIZE <= SECRET_HASH_MAX,
	"room for either");
static_assert(PHRASE_MAX < CRYPT_MAX_PASSPHRASE_SIZE, "crypt takes it");

/* ---- bytes */

void secret_random(void *out, size_t len)
{
	random_fill(out, len);
}

bool secret_equal(struct bytes a, struct bytes b)
{
	return a.len == b.len && (a.len == 0 || memeql_sec(a.at, b.at, a.len) != 0);
}

void secret_wipe(void *at, size_t len)
{
	if (len > 0)
		explicit_bzero(at, len);
}

void base64_write(struct bytes in, struct buf *out)
{
	size_t len = BASE64_ENCODE_RAW_LENGTH(in.len);
	uint8_t *at = len > 0 ? buf_room(out, len) : NULL;
	if (at == NULL)
		return;
	base64_encode_raw((char *)at, in.len, in.at);
	buf_claim(out, len);
}

/* The library skips blanks and takes bits that mean nothing; what does not come back the same when
 * it is written again is refused. */
enum err base64_read(struct bytes in, struct buf *out)
{
	struct base64_decode_ctx x;
	struct buf again;
	size_t got = 0;
	if (in.len == 0)
		return OK;
	uint8_t *at = buf_room(out, BASE64_DECODE_LENGTH(in.len));
	if (at == NULL)
		return out->err;
	base64_decode_init(&x);
	if (!base64_decode_update(&x, &got, at, in.len, (const char *)in.at) ||
		!base64_decode_final(&x))
		return ERR_MALFORMED;
	buf_init(&again, in.len + 4);
	base64_write(bytes_of(at, got), &again);
	bool same = again.err == OK && bytes_equal(buf_bytes(&again), in);
	secret_wipe(at + got, BASE64_DECODE_LENGTH(in.len) - got);
	buf_fini(&again);
	if (!same)
		return ERR_MALFORMED;
	buf_claim(out, got);
	return OK;
}

/* ---- hashes */

size_t secret_hash_bytes(enum secret_kind kind)
{
	return kind == SECRET_SCRAM_512 ? SHA512_DIGEST_SIZE : SHA256_DIGEST_SIZE;
}

static void hmac(enum secret_kind kind, struct bytes key, struct bytes text, uint8_t *out)
{
	if (kind == SECRET_SCRAM_512) {
		struct hmac_sha512_ctx x;
		hmac_sha512_set_key(&x, key.len, key.at);
		hmac_sha512_update(&x, text.len, text.at);
		hmac_sha512_digest(&x, SHA512_DIGEST_SIZE, out);
		secret_wipe(&x, sizeof x);
		return;
	}
	struct hmac_sha256_ctx x;
	hmac_sha256_set_key(&x, key.len, key.at);
	hmac_sha256_update(&x, text.len, text.at);
	hmac_sha256_digest(&x, SHA256_DIGEST_SIZE, out);
	secret_wipe(&x, sizeof x);
}

static void hash(enum secret_kind kind, struct bytes in, uint8_t *out)
{
	if (kind == SECRET_SCRAM_512) {
		struct sha512_ctx x;
		sha512_init(&x);
		sha512_update(&x, in.len, in.at);
		sha512_digest(&x, SHA512_DIGEST_SIZE, out);
		return;
	}
	struct sha256_ctx x;
	sha256_init(&x);
	sha256_update(&x, in.len, in.at);
	sha256_digest(&x, SHA256_DIGEST_SIZE, out);
}

void secret_mac(struct bytes key, struct bytes text, uint8_t *out)
{
	hmac(SECRET_SCRAM_256, key, text, out);
}

void secret_salted(enum secret_kind kind, struct bytes password, struct bytes salt,
	uint32_t iterations, uint8_t *salted)
{
	size_t len = secret_hash_bytes(kind);
	if (kind == SECRET_SCRAM_512)
		pbkdf2_hmac_sha512(
			password.len, password.at, iterations, salt.len, salt.at, len, salted);
	else
		pbkdf2_hmac_sha256(
			password.len, password.at, iterations, salt.len, salt.at, len, salted);
}

void secret_keys(
	enum secret_kind kind, const uint8_t *salted, uint8_t *stored_key, uint8_t *server_key)
{
	uint8_t client_key[SECRET_HASH_MAX];
	size_t len = secret_hash_bytes(kind);
	hmac(kind, bytes_of(salted, len), bytes_text("Client Key"), client_key);
	hash(kind, bytes_of(client_key, len), stored_key);
	hmac(kind, bytes_of(salted, len), bytes_text("Server Key"), server_key);
	secret_wipe(client_key, sizeof client_key);
}

bool secret_proof_ok(const struct secret *s, struct bytes auth_message, struct bytes proof)
{
	uint8_t key[SECRET_HASH_MAX], stored[SECRET_HASH_MAX];
	size_t len = secret_hash_bytes(s->kind);
	if (proof.len != len || s->stored_key.len != len)
		return false;
	hmac(s->kind, s->stored_key, auth_message, key);
	for (size_t i = 0; i < len; i++)
		key[i] ^= proof.at[i]; /* ClientKey, if who made the proof had it */
	hash(s->kind, bytes_of(key, len), stored);
	bool ok = secret_equal(bytes_of(stored, len), s->stored_key);
	secret_wipe(key, sizeof key);
	return ok;
}

void secret_server_signature(const struct secret *s, struct bytes auth_message, uint8_t *out)
{
	hmac(s->kind, s->server_key, auth_message, out);
}

/* ---- passwords */

static bool password_valid(struct bytes p)
{
	return p.len > 0 && p.len <= PASSWORD_MAX && memchr(p.at, 0, p.len) == NULL;
}

/* What crypt is given: the password, or of one too long for it, its hash. */
static void phrase_of(struct bytes password, char out[PHRASE_MAX + 1])
{
	uint8_t digest[SHA512_DIGEST_SIZE];
	size_t len = password.len;
	if (len <= PHRASE_MAX) {
		memcpy(out, password.at, len);
	} else {
		len = BASE64_ENCODE_RAW_LENGTH(sizeof digest);
		hash(SECRET_SCRAM_512, password, digest);
		base64_encode_raw(out, sizeof digest, digest);
		secret_wipe(digest, sizeof digest);
	}
	out[len] = 0;
}

/* crypt's text of a password under a setting; false when it has none. Works in memory of its own,
 * which is wiped: the library leaves traces there. */
static bool crypt_text(struct bytes password, const char *setting, char out[CRYPT_OUTPUT_SIZE])
{
	struct crypt_data *work = mem_try(sizeof *work);
	char phrase[PHRASE_MAX + 1];
	if (work == NULL || !password_valid(password)) {
		mem_free(work);
		return false;
	}
	memset(work, 0, sizeof *work);
	phrase_of(password, phrase);
	const char *text = crypt_r(phrase, setting, work);
	bool ok = text != NULL && text[0] != '*';
	if (ok)
		memcpy(out, text, strlen(text) + 1);
	secret_wipe(phrase, sizeof phrase);
	secret_wipe(work, sizeof *work);
	mem_free(work);
	return ok;
}

static enum err make_crypt(struct bytes password, struct secrets *out)
{
	char salt[24], setting[CRYPT_GENSALT_OUTPUT_SIZE], text[CRYPT_OUTPUT_SIZE];
	secret_random(salt, SECRET_SALT_BYTES);
	if (crypt_gensalt_rn(crypt_method, CRYPT_COST, salt, SECRET_SALT_BYTES, setting,
		    sizeof setting) == NULL ||
		!crypt_text(password, setting, text))
		return ERR_NOMEM;
	size_t at = buf_len(&out->kept);
	buf_add_text(&out->kept, text);
	out->of[out->count++] = (struct secret){.kind = SECRET_CRYPT,
		.crypt = bytes_of(buf_bytes(&out->kept).at + at, strlen(text))};
	return OK;
}

static void make_scram(enum secret_kind kind, struct bytes password, struct secrets *out)
{
	uint8_t salted[SECRET_HASH_MAX];
	size_t len = secret_hash_bytes(kind), all = SECRET_SALT_BYTES + 2 * len;
	uint8_t *at = buf_room(&out->kept, all);
	must(at != NULL);
	secret_random(at, SECRET_SALT_BYTES);
	struct secret s = {.kind = kind,
		.salt = bytes_of(at, SECRET_SALT_BYTES),
		.stored_key = bytes_of(at + SECRET_SALT_BYTES, len),
		.server_key = bytes_of(at + SECRET_SALT_BYTES + len, len),
		.iterations = SECRET_ITERATIONS};
	secret_salted(kind, password, s.salt, s.iterations, salted);
	secret_keys(kind, salted, at + SECRET_SALT_BYTES, at + SECRET_SALT_BYTES + len);
	secret_wipe(salted, sizeof salted);
	buf_claim(&out->kept, all);
	out->of[out->count++] = s;
}

enum err secrets_make(struct bytes password, struct secrets *out)
{
	*out = (struct secrets){0};
	if (!password_valid(password))
		return ERR_INVALID;
	buf_init(&out->kept, KEPT_MAX);
	/* All of it at once: what the secrets borrow does not move. */
	if (buf_room(&out->kept, KEPT_MAX) == NULL)
		return ERR_NOMEM;
	enum err e = make_crypt(password, out);
	if (e != OK) {
		secrets_fini(out);
		return e;
	}
	make_scram(SECRET_SCRAM_256, password, out);
	make_scram(SECRET_SCRAM_512, password, out);
	return OK;
}

void secrets_fini(struct secrets *s)
{
	buf_fini(&s->kept);
	s->count = 0;
}

static bool check_crypt(struct bytes kept, struct bytes password)
{
	char setting[CRYPT_OUTPUT_SIZE], text[CRYPT_OUTPUT_SIZE];
	if (kept.len == 0 || kept.len >= sizeof setting)
		return false;
	memcpy(setting, kept.at, kept.len);
	setting[kept.len] = 0;
	return crypt_text(password, setting, text) && secret_equal(bytes_text(text), kept);
}

static bool check_scram(const struct secret *s, struct bytes password)
{
	uint8_t salted[SECRET_HASH_MAX], stored[SECRET_HASH_MAX], server[SECRET_HASH_MAX];
	secret_salted(s->kind, password, s->salt, s->iterations, salted);
	secret_keys(s->kind, salted, stored, server);
	secret_wipe(salted, sizeof salted);
	return secret_equal(bytes_of(stored, secret_hash_bytes(s->kind)), s->stored_key);
}

bool secret_check(const struct user_doc *u, struct bytes password)
{
	const struct secret *best = NULL;
	for (int i = 0; i < u->secret_count; i++)
		if (best == NULL || u->secrets[i].kind < best->kind)
			best = &u->secrets[i];
	if (best == NULL || !password_valid(password)) {
		secret_check_nobody(password);
		return false;
	}
	return best->kind == SECRET_CRYPT ? check_crypt(best->crypt, password)
					  : check_scram(best, password);
}

void secret_check_nobody(struct bytes password)
{
	char text[CRYPT_OUTPUT_SIZE];
	(void)crypt_text(password_valid(password) ? password : bytes_text("-"), crypt_nobody, text);
}
