/* A stream of batches. Each is checked as if a client had produced it, with the CRC made good
 * first, and walked to its end whatever the check said. */
#include "server/base/crc32c.h"
#include "server/base/mem.h"
#include "storage/record_batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INFLATED_MAX = 1 << 20 };

static void walk(const struct batch *b, bool checked)
{
	struct batch_walk w;
	struct record r;
	enum err e = batch_walk_init(&w, b, INFLATED_MAX);
	must(!checked || e == OK);
	if (e != OK)
		return;
	int32_t count = 0;
	while ((e = batch_walk_next(&w, &r)) == OK) {
		struct record_header h;
		struct bytes rest = r.headers;
		for (int32_t i = 0; i < r.header_count && record_header_next(&rest, &h) == OK; i++)
			must(h.name.len + h.value.len <= r.headers.len);
		(void)(record_header_find(&r, "mqtt.topic", &h) == OK);
		count++;
	}
	must(count <= b->count);
	must(!checked || (e == ERR_NOTFOUND && count == b->count));
	batch_walk_fini(&w);
}

static void one(uint8_t *at, size_t len)
{
	struct batch b;
	if (batch_read(bytes_of(at, len), &b) != OK)
		return;
	put_u32be(at + 17, crc32c(bytes_of(at + 21, b.all.len - 21)));
	if (batch_read(bytes_of(at, len), &b) != OK)
		must_failed("the same header reads again", __FILE__, __LINE__);
	enum err e = batch_check(&b, INFLATED_MAX);
	must(e != ERR_CORRUPT);
	walk(&b, e == OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	while (size > 0) {
		uint8_t *copy = mem_try(size); /* exact, so that the sanitizer sees each overrun */
		if (!copy)
			return 0;
		memcpy(copy, data, size);
		struct batch b;
		enum err e = batch_read(bytes_of(copy, size), &b);
		size_t used = e == OK ? b.all.len : size;
		one(copy, size);
		mem_free(copy);
		data += used;
		size -= used;
	}
	return 0;
}
