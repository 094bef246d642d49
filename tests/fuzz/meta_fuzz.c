/* Changes and rows of the catalogue, as a peer may send them: the first byte says which reader. */
#include "cluster/meta.h"

static void read_request(struct bytes in)
{
	struct meta_request *q, *again;
	struct buf b;

	if (meta_request_decode(in, &q) != OK)
		return;
	buf_init(&b, 64 << 20); /* what was accepted can be said again */
	meta_request_encode(q, &b);
	if (b.err == OK && meta_request_decode(buf_bytes(&b), &again) == OK)
		meta_request_free(again);
	else if (b.err == OK)
		__builtin_trap();
	buf_fini(&b);
	meta_request_free(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in = bytes_of(data + 1, size > 0 ? size - 1 : 0);
	struct meta_founding f;
	struct meta_stream *s;
	struct meta_cluster c;
	struct meta_joined j;
	struct meta_place p;
	struct meta_node *n;

	if (size == 0)
		return 0;
	switch (data[0] % 7) {
	case 0: read_request(in); break;
	case 1:
		if (meta_founding_decode(in, &f) == OK)
			meta_founding_fini(&f);
		break;
	case 2:
		if (meta_node_decode(in, &n) == OK)
			meta_node_free(n);
		break;
	case 3: (void)(meta_place_decode(in, &p) == OK); break;
	case 4:
		if (meta_stream_decode(in, &s) == OK)
			meta_stream_free(s);
		break;
	case 5: (void)(meta_cluster_decode(in, &c) == OK); break;
	default: (void)(meta_joined_decode(in, &j) == OK);
	}
	return 0;
}
