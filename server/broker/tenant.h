/* Tenants: whose a name is. On the wire everybody uses bare names; inside, the streams, client ids
 * and group ids of a tenant other than the default one carry its name, so equal names never meet.
 * The default tenant's name is empty here ("default" for people). Pure; any thread. */
#ifndef BROKER_TENANT_H
#define BROKER_TENANT_H
#include "server/base/wire.h"

enum {
	TENANT_NAME_MAX = 63,
	STREAM_NAME_MAX = 249,
	TENANT_STREAM_BYTES = TENANT_NAME_MAX + 1 + STREAM_NAME_MAX,
	TENANT_ID_EXTRA = TENANT_NAME_MAX + 2 /* bytes tenant_id adds at most */
};

bool tenant_name_valid(struct bytes name); /* 1-63 of [a-z0-9-], not "default" */
/* What users write: "default" and nothing give the empty name, others themselves. ERR_INVALID. */
enum err tenant_read(struct bytes text, struct bytes *out) MUST_USE;
const char *tenant_text(const char *tenant); /* "default" for "" */
/* As Kafka allows it: 1-249 of [a-zA-Z0-9._-], not "." or "..". What clients may say: no tenant. */
bool stream_name_valid(struct bytes name);
bool stream_name_internal(struct bytes name); /* without a tenant; begins with "__" */

/* A stream's name in the catalogue: NAME, or TENANT/NAME. */
struct tenant_stream {
	char text[TENANT_STREAM_BYTES + 1]; /* ends with NUL */
	size_t len;
};
/* ERR_INVALID: not a valid name, or tenant. */
enum err tenant_stream(struct bytes tenant, struct bytes name, struct tenant_stream *out) MUST_USE;
/* Takes it apart. */
void tenant_stream_split(struct bytes full, struct bytes *tenant, struct bytes *name);

/* A client id or group id inside: ID, or NUL TENANT NUL ID. Ids of clients never hold NUL: doors
 * refuse that. Written to out, of id.len + TENANT_ID_EXTRA bytes; for the default tenant it is id
 * itself and out is left alone. */
struct bytes tenant_id(struct bytes tenant, struct bytes id, uint8_t *out);
void tenant_id_split(struct bytes full, struct bytes *tenant, struct bytes *id);

#endif
