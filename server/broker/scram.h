/* The messages of SCRAM (RFC 5802 section 7), without channel binding. Pure; any thread. */
#ifndef BROKER_SCRAM_H
#define BROKER_SCRAM_H
#include "server/broker/secret.h"

enum { SCRAM_NONCE_MAX = 512 };

/* The client's first: "n,,n=user,r=nonce". */
struct scram_first {       /* borrows what was read, but for the names */
	struct bytes gs2;  /* "n,,", "y,,", "n,a=user,": the client says it again at the end */
	struct bytes bare; /* the rest */
	struct bytes nonce;
	struct bytes user, authzid; /* in names; authzid empty: none */
	uint8_t names[2 * USER_NAME_MAX];
};
/* ERR_MALFORMED: also what would need channel binding, and extensions that must be understood. */
enum err scram_first_read(struct bytes in, struct scram_first *out) MUST_USE;

/* The client's last: "c=biws,r=nonce,p=proof". */
struct scram_final {                        /* borrows */
	struct bytes binding, nonce, proof; /* binding and proof in base64 */
	struct bytes without_proof;
};
enum err scram_final_read(struct bytes in, struct scram_final *out) MUST_USE;
/* Whether binding says gs2 again. */
bool scram_binding_ok(struct bytes binding, struct bytes gs2);

/* The server's first: r=,s=,i=. */
void scram_server_first(
	struct bytes nonce, struct bytes salt, uint32_t iterations, struct buf *out);

#endif
