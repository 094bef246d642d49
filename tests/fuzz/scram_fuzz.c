/* SCRAM's messages: what is read lies within the input, names are within their bounds, and what was
 * accepted is accepted again from its own parts. */
#include "server/base/mem.h"
#include "server/broker/scram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct bytes b, const uint8_t *data, size_t size)
{
	must(b.at >= data && b.at <= data + size);
	must(b.len <= (size_t)(data + size - b.at));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scram_first first;
	struct scram_final final;
	struct buf b;
	if (scram_first_read(bytes_of(data, size), &first) == OK) {
		inside(first.gs2, data, size);
		inside(first.bare, data, size);
		inside(first.nonce, data, size);
		must(first.gs2.len + first.bare.len == size);
		must(first.user.len > 0 && first.user.len <= USER_NAME_MAX);
		must(first.authzid.len <= USER_NAME_MAX);
	}
	if (scram_final_read(bytes_of(data, size), &final) == OK) {
		inside(final.binding, data, size);
		inside(final.proof, data, size);
		must(final.without_proof.at == data);
		must(final.without_proof.len + 3 + final.proof.len == size);
		(void)scram_binding_ok(final.binding, bytes_of("n,,", 3));
	}
	buf_init(&b, 2 * size + 8);
	if (base64_read(bytes_of(data, size), &b) == OK)
		must(buf_len(&b) <= size);
	buf_fini(&b);
	return 0;
}
