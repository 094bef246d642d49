/* Bodies of catch-up: the first byte says which reader. Checksums are made right, or nothing would
 * get past them. */
#include "cluster/catchup_wire.h"
#include "server/base/crc32c.h"

static void read_chunk(struct slice *s)
{
	struct catchup_chunk c;
	struct catchup_item item;

	if (s->bytes.len >= CATCHUP_CHUNK_HEAD_BYTES)
		put_u32be(
			s->chunk->data + 4, crc32c(bytes_of(s->chunk->data + 8, s->bytes.len - 8)));
	if (catchup_chunk_decode(s->bytes, &c) != OK)
		return;
	while (catchup_chunk_next(&c, &item) == OK)
		;
}

static void read_question(struct bytes in)
{
	struct catchup_question q;
	struct slice again;

	/* What was accepted can be said again. */
	if (catchup_question_decode(in, &q) != OK || catchup_question_encode(&q, &again) != OK)
		return;
	if (!bytes_equal(again.bytes, in))
		__builtin_trap();
	slice_unref(&again);
}

static void read_opened(struct bytes in)
{
	struct catchup_opened o;
	struct slice again;

	if (catchup_opened_decode(in, &o) != OK || catchup_opened_encode(&o, &again) != OK)
		return;
	if (!bytes_equal(again.bytes, in))
		__builtin_trap();
	slice_unref(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice s;

	if (size == 0 || slice_copy(bytes_of(data + 1, size - 1), &s) != OK)
		return 0;
	switch (data[0] % 3) {
	case 0: read_question(s.bytes); break;
	case 1: read_opened(s.bytes); break;
	default: read_chunk(&s);
	}
	slice_unref(&s);
	return 0;
}
