/* Any bytes as an idx row: refused, or written back as they were. */
#include <stdlib.h>
#include "storage/entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t out[ENTRY_HEADER_BYTES + ENTRY_ORIGIN_BYTES];
	struct entry_header h;

	if (entry_header_decode(bytes_of(data, size), &h) != OK)
		return 0;
	if (entry_header_encode(&h, out) != size || memcmp(out, data, size) != 0)
		abort();
	return 0;
}
