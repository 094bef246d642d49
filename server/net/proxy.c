/* The fixed part is checked as far as it is there, so that a client which speaks straight to a
 * port meant for the balancer is refused at its first wrong byte and not after a time limit. */
#include "server/net/proxy.h"

static const uint8_t signature[12] = {
	'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

enum { COMMAND_LOCAL = 0, COMMAND_PROXY = 1, FAMILY_UNIX_PATHS = 216 };

static enum err read_source(struct rd *r, uint8_t family, struct proxy_header *out)
{
	size_t address_bytes = family == 1 ? 4 : 16;
	struct bytes source = rd_take(r, address_bytes);
	rd_skip(r, address_bytes);
	out->source_port = rd_u16be(r);
	rd_skip(r, 2);
	if (r->err != OK)
		return ERR_MALFORMED;
	memcpy(out->source, source.at, address_bytes);
	out->family = family == 1 ? PROXY_IPV4 : PROXY_IPV6;
	return OK;
}

static enum err read_body(
	uint8_t command, uint8_t family, struct bytes body, struct proxy_header *out)
{
	struct rd r = rd_over(body);
	if (command == COMMAND_LOCAL)
		return OK;
	switch (family >> 4) {
	case 0: /* "unspec": the addresses must be ignored */ return OK;
	case 1:
	case 2: return read_source(&r, family >> 4, out);
	case 3: return body.len >= FAMILY_UNIX_PATHS ? OK : ERR_MALFORMED;
	default: return ERR_MALFORMED;
	}
}

enum err proxy_read(struct bytes in, struct proxy_header *out, size_t *used)
{
	size_t known = in.len < sizeof signature ? in.len : sizeof signature;
	*out = (struct proxy_header){.family = PROXY_LOCAL};
	*used = PROXY_FIXED_BYTES;
	if (known > 0 && memcmp(in.at, signature, known) != 0)
		return ERR_MALFORMED;
	if (in.len > 12 && (in.at[12] >> 4 != 2 || (in.at[12] & 15) > COMMAND_PROXY))
		return ERR_MALFORMED;
	if (in.len < PROXY_FIXED_BYTES)
		return ERR_MORE;
	struct rd r = rd_over(in);
	rd_skip(&r, 12);
	uint8_t command = rd_u8(&r) & 15;
	uint8_t family = rd_u8(&r);
	size_t body_len = rd_u16be(&r);
	if (body_len > PROXY_BYTES_MAX - PROXY_FIXED_BYTES)
		return ERR_TOOBIG;
	*used = PROXY_FIXED_BYTES + body_len;
	if (rd_left(&r) < body_len)
		return ERR_MORE;
	return read_body(command, family, rd_take(&r, body_len), out);
}
