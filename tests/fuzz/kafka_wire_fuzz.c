/* The first byte picks an API, the second a version and direction; the rest is its body. What can
 * be read must be written, and what was written must be read as the same message. All of the
 * input is also taken for a request frame. */
#include "protocols/kafka/kafka_print.h"
#include "protocols/kafka/kafka_schema.h"
#include "server/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGE_BYTES_MAX = 1024, LIMIT = 1 << 24 };

static void check_body(const struct kafka_api *api, int version, bool request, struct bytes body)
{
	_Alignas(8) uint8_t message[MESSAGE_BYTES_MAX];
	_Alignas(8) uint8_t again[MESSAGE_BYTES_MAX];
	struct arena arena;
	struct buf written, first, second;
	arena_init(&arena, LIMIT);
	buf_init(&written, LIMIT);
	buf_init(&first, LIMIT);
	buf_init(&second, LIMIT);
	must((request ? api->request : api->response)->size <= MESSAGE_BYTES_MAX);
	enum err e = kafka_decode(api, version, request, body, &arena, message);
	must(e == OK || e == ERR_MALFORMED || e == ERR_TOOBIG);
	if (e == OK) {
		must(kafka_encode(api, version, request, message, &written) == OK);
		e = kafka_decode(api, version, request, buf_bytes(&written), &arena, again);
		must(e == OK || e == ERR_TOOBIG);
	}
	if (e == OK) {
		kafka_print(api, version, request, message, &first);
		kafka_print(api, version, request, again, &second);
		must(first.err != OK || bytes_equal(buf_bytes(&first), buf_bytes(&second)));
	}
	must(arena.held <= LIMIT);
	arena_fini(&arena);
	buf_fini(&written);
	buf_fini(&first);
	buf_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kafka_header h;
	if (size < 2)
		return 0;
	const struct kafka_api *api = kafka_apis[data[0] % kafka_apis_count];
	int version = api->first + (data[1] >> 1) % (api->last - api->first + 1);
	bool request = !(data[1] & 1) || !api->response;
	check_body(api, version, request, bytes_of(data + 2, size - 2));
	if (kafka_header_read(bytes_of(data, size), &h) == OK)
		check_body(h.api, h.version, true, h.body);
	return 0;
}
