/* The PROXY header: never reads past its input, never asks for less than it has, and what it
 * accepts it accepts again from just the bytes it used. */
#include "server/base/mem.h"
#include "server/net/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header h, again;
	size_t used, used_again;
	enum err e = proxy_read(bytes_of(data, size), &h, &used);
	if (e == ERR_MORE)
		must(used > size);
	if (e != OK)
		return 0;
	must(used <= size);
	must(proxy_read(bytes_of(data, used), &again, &used_again) == OK);
	must(used_again == used);
	must(again.source_port == h.source_port);
	return 0;
}
