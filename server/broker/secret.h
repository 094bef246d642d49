/* Passwords: what is stored of them and how they are recognised; the SCRAM arithmetic (RFC 5802
 * section 3). By nettle and crypt(3). Pure but for random salt; slow ones say so: workers only. */
#ifndef BROKER_SECRET_H
#define BROKER_SECRET_H
#include "server/broker/rights_doc.h"

enum { SECRET_HASH_MAX = 64, SECRET_SALT_BYTES = 16, SECRET_ITERATIONS = 8192 };

struct secrets { /* owns what secret_* of a user_doc borrow */
	int count;
	struct secret of[SECRET_KINDS];
	struct buf kept;
};
/* Slow: all kinds for a password. ERR_INVALID: empty, over 1 KiB, a NUL. */
enum err secrets_make(struct bytes password, struct secrets *out) MUST_USE;
void secrets_fini(struct secrets *s);
/* Slow. Whether the password is the one of the user, by whichever kind there is. */
bool secret_check(const struct user_doc *u, struct bytes password);
/* As slow, for a user that does not exist. */
void secret_check_nobody(struct bytes password);

size_t secret_hash_bytes(enum secret_kind kind); /* 32, 64 */
/* Slow. salted: secret_hash_bytes of room; then the keys made of it. */
void secret_salted(enum secret_kind kind, struct bytes password, struct bytes salt,
	uint32_t iterations, uint8_t *salted);
void secret_keys(
	enum secret_kind kind, const uint8_t *salted, uint8_t *stored_key, uint8_t *server_key);
/* Whether proof is of who knows the password; auth_message: RFC 5802. */
bool secret_proof_ok(const struct secret *s, struct bytes auth_message, struct bytes proof);
void secret_server_signature(const struct secret *s, struct bytes auth_message, uint8_t *out);

/* HMAC-SHA-256: 32 bytes to out. */
void secret_mac(struct bytes key, struct bytes text, uint8_t *out);
void secret_random(void *out, size_t len);
bool secret_equal(struct bytes a, struct bytes b); /* in constant time */
void secret_wipe(void *at, size_t len);
enum err base64_read(struct bytes in, struct buf *out) MUST_USE; /* strict; ERR_MALFORMED */
void base64_write(struct bytes in, struct buf *out);

#endif
