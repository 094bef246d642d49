/* Messages as text, for debugging and tests: {name=value,...} in the order of the wire, with the
 * fields that the version has. Strings are quoted and escaped, bytes and uuids are hexadecimal.
 * Payloads are shown too, so it is not for logs. */
#ifndef KAFKA_PRINT_H
#define KAFKA_PRINT_H
#include "protocols/kafka/kafka_wire.h"

/* Appends to out; errors stick there. */
void kafka_print(const struct kafka_api *api, int version, bool request, const void *message,
	struct buf *out);

#endif
