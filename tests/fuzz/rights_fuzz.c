/* Any bytes as a document of users, rules and quotas: what is taken is written again as it was. */
#include <stdlib.h>
#include <string.h>
#include "server/broker/rights_doc.h"

static void need(bool holds)
{
	if (!holds)
		abort();
}

static void same(struct buf *b, struct bytes as)
{
	need(b->err == OK && bytes_equal(buf_bytes(b), as));
	buf_clear(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct user_doc u;
	struct rule r;
	struct quota_doc q, again;
	struct bytes key, value;
	struct rd rd = rd_over(bytes_of(data, size));
	struct buf b;

	key = rd_bytes16(&rd);
	value = rd_rest(&rd);
	if (rd.err != OK)
		return 0;
	buf_init(&b, 1 << 20);
	if (user_read(key, value, &u) == OK) {
		user_key(u.name, &b);
		same(&b, key);
		user_write(&u, &b);
		need(buf_len(&b) == value.len);
		buf_clear(&b);
	}
	if (rule_read(key, &r) == OK) {
		rule_key(&r, &b);
		same(&b, key);
	}
	if (quota_read(key, value, &q) == OK) {
		quota_key(q.kind, q.name, &b);
		same(&b, key);
		quota_write(&q, &b); /* limits that are not set need not be there */
		need(quota_read(key, buf_bytes(&b), &again) == OK);
		need(memcmp(q.limit, again.limit, sizeof q.limit) == 0);
	}
	buf_fini(&b);
	return 0;
}
