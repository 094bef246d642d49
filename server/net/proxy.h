/* The PROXY protocol, version 2, binary form: what a load balancer writes before the client's
 * first byte to say whose connection it passes on. A pure decoder. Thread: any.
 *
 *	OFFSET SIZE MEANING
 *	0      12   signature
 *	12     1    version 2 (high half), command 0 LOCAL or 1 PROXY (low half)
 *	13     1    family (high half: 0 none, 1 IPv4, 2 IPv6, 3 unix), transport (low half)
 *	14     2    bytes that follow, big endian
 *	16     12   IPv4: source, destination (4 each), source port, destination port (2 each)
 *	16     36   IPv6: the same with 16 bytes per address
 *	16     216  unix: two paths; not of interest here
 *	then        type-length-value extensions, skipped */
#ifndef NET_PROXY_H
#define NET_PROXY_H
#include "server/base/wire.h"

enum { PROXY_FIXED_BYTES = 16, PROXY_BYTES_MAX = 4096 };

enum proxy_family { PROXY_LOCAL, PROXY_IPV4, PROXY_IPV6 };

struct proxy_header {
	enum proxy_family family; /* PROXY_LOCAL: the socket's own peer counts */
	uint8_t source[16];       /* the client's address, 4 or 16 bytes of it */
	uint16_t source_port;
};

/* Reads one header from the front of in; *used is its size. ERR_MORE: in is a good beginning
 * and *used the bytes needed so far; ERR_TOOBIG: over PROXY_BYTES_MAX; ERR_MALFORMED. */
enum err proxy_read(struct bytes in, struct proxy_header *out, size_t *used) MUST_USE;

#endif
