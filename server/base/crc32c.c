/* ISA-L's crc32_iscsi is the bare polynomial division: the inversions of the start value and of
 * the result that RFC 3720 asks for are done here. It takes an int as length, so very long input
 * goes in slices. */
#include "server/base/crc32c.h"
#include <isa-l/crc.h>

enum { SLICE_BYTES = 1 << 30 };

uint32_t crc32c_more(uint32_t crc, struct bytes b)
{
	uint32_t state = ~crc;

	while (b.len > 0) {
		size_t len = b.len < SLICE_BYTES ? b.len : SLICE_BYTES;
		/* The library only reads, its prototype does not say so. */
		state = crc32_iscsi((unsigned char *)(uintptr_t)b.at, (int)len, state);
		b = bytes_of(b.at + len, b.len - len);
	}
	return ~state;
}

uint32_t crc32c(struct bytes b)
{
	return crc32c_more(0, b);
}
