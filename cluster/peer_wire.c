/* Reader and writer of each form stand side by side. Lengths are checked against the bound of the
 * connection's state before more bytes are asked for, so one that has not said hello cannot make
 * its receiver set memory aside. Errors have numbers of their own on the wire: the order of enum
 * err may change between versions, these may not. */
#include "cluster/peer_wire.h"
#include <assert.h>
#include "server/base/mem.h"

static const char magic[8] = {'S', 'L', 'U', 'I', 'C', 'E', '-', 'P'};

enum err peer_frame_read(struct bytes in, size_t max, struct peer_frame *out)
{
	struct rd r = rd_over(in);
	if (in.len < 4) {
		out->length = PEER_HEAD_BYTES;
		return ERR_MORE;
	}
	out->length = rd_u32be(&r);
	if (out->length < PEER_HEAD_BYTES)
		return ERR_MALFORMED;
	if (out->length > max)
		return ERR_TOOBIG;
	if (in.len < out->length)
		return ERR_MORE;
	out->kind = rd_u8(&r);
	uint8_t flags = rd_u8(&r);
	uint16_t zero = rd_u16be(&r);
	out->group = rd_u64be(&r);
	out->body = rd_take(&r, out->length - PEER_HEAD_BYTES);
	return r.err != OK || flags != 0 || zero != 0 ? ERR_MALFORMED : OK;
}

void peer_head_write(uint8_t at[PEER_HEAD_BYTES], size_t body, uint8_t kind, uint64_t group)
{
	put_u32be(at, (uint32_t)(PEER_HEAD_BYTES + body));
	at[4] = kind;
	at[5] = at[6] = at[7] = 0;
	put_u64be(at + 8, group);
}

/* Hello */

static struct bytes read_text(struct rd *r)
{
	uint16_t len = rd_u16be(r);
	if (len > PEER_TEXT_BYTES_MAX)
		rd_fail(r, ERR_MALFORMED);
	struct bytes text = rd_take(r, len);
	if (r->err == OK && !bytes_utf8(text))
		rd_fail(r, ERR_MALFORMED);
	return r->err == OK ? text : bytes_of("", 0);
}

static void read_fixed(struct rd *r, uint8_t *at, size_t len)
{
	struct bytes b = rd_take(r, len);
	memset(at, 0, len);
	if (r->err == OK)
		memcpy(at, b.at, len);
}

enum err peer_hello_read(struct bytes body, struct peer_hello *out)
{
	struct rd r = rd_over(body);
	uint8_t start[sizeof magic];
	read_fixed(&r, start, sizeof start);
	if (memcmp(start, magic, sizeof magic) != 0)
		return ERR_MALFORMED;
	out->version_min = rd_u16be(&r);
	out->version_max = rd_u16be(&r);
	out->purpose = rd_u8(&r);
	(void)rd_u8(&r);
	out->loop = rd_u16be(&r);
	out->node = rd_u32be(&r);
	out->boot = rd_u64be(&r);
	out->capabilities = rd_u64be(&r);
	read_fixed(&r, out->cluster, sizeof out->cluster);
	read_fixed(&r, out->instance, sizeof out->instance);
	out->cluster_name = read_text(&r);
	out->name = read_text(&r);
	out->rack = read_text(&r);
	out->address = read_text(&r);
	memset(out->circle, 0, sizeof out->circle);
	if (r.err == OK && rd_left(&r) > 0)
		read_fixed(&r, out->circle, sizeof out->circle);
	if (r.err != OK || out->version_min > out->version_max || out->node == 0 ||
		out->node > INT32_MAX)
		return ERR_MALFORMED;
	return OK;
}

static void write_text(struct buf *out, struct bytes text)
{
	buf_add_u16be(out, (uint16_t)text.len);
	buf_add(out, text);
}

enum err peer_hello_write(struct buf *out, const struct peer_hello *h)
{
	const struct bytes texts[] = {h->cluster_name, h->name, h->rack, h->address};
	uint8_t head[PEER_HEAD_BYTES];
	size_t body = 68 + sizeof h->circle;
	for (int i = 0; i < 4; i++) {
		if (texts[i].len > PEER_TEXT_BYTES_MAX)
			return ERR_TOOBIG;
		body += 2 + texts[i].len;
	}
	peer_head_write(head, body, PEER_HELLO, 0);
	buf_add(out, bytes_of(head, sizeof head));
	buf_add(out, bytes_of(magic, sizeof magic));
	buf_add_u16be(out, h->version_min);
	buf_add_u16be(out, h->version_max);
	buf_add_u8(out, h->purpose);
	buf_add_u8(out, 0);
	buf_add_u16be(out, h->loop);
	buf_add_u32be(out, h->node);
	buf_add_u64be(out, h->boot);
	buf_add_u64be(out, h->capabilities);
	buf_add(out, bytes_of(h->cluster, sizeof h->cluster));
	buf_add(out, bytes_of(h->instance, sizeof h->instance));
	for (int i = 0; i < 4; i++)
		write_text(out, texts[i]);
	buf_add(out, bytes_of(h->circle, sizeof h->circle));
	return out->err;
}

/* Refusal */

enum err peer_refusal_read(struct bytes body, enum peer_refusal *code, struct bytes *text)
{
	struct rd r = rd_over(body);
	*code = (enum peer_refusal)rd_u16be(&r);
	*text = read_text(&r);
	return r.err;
}

void peer_refusal_write(struct buf *out, enum peer_refusal code, const char *text)
{
	uint8_t head[PEER_HEAD_BYTES];
	size_t len = strlen(text) < PEER_TEXT_BYTES_MAX ? strlen(text) : PEER_TEXT_BYTES_MAX;
	peer_head_write(head, 4 + len, PEER_REFUSAL, 0);
	buf_add(out, bytes_of(head, sizeof head));
	buf_add_u16be(out, (uint16_t)code);
	write_text(out, bytes_of(text, len));
}

/* Calls and answers */

enum err peer_call_read(struct bytes body, struct peer_call_head *out, struct bytes *rest)
{
	struct rd r = rd_over(body);
	out->id = rd_u64be(&r);
	out->op = rd_u16be(&r);
	rd_skip(&r, 6);
	*rest = rd_take(&r, rd_left(&r));
	return r.err;
}

void peer_call_write(uint8_t at[PEER_CALL_BYTES], const struct peer_call_head *h)
{
	memset(at, 0, PEER_CALL_BYTES);
	put_u64be(at, h->id);
	put_u16be(at + 8, h->op);
}

static const struct {
	enum err err;
	uint16_t number;
} numbers[] = {{OK, 0}, {ERR_MORE, 1}, {ERR_MALFORMED, 2}, {ERR_PROTOCOL, 3}, {ERR_UNSUPPORTED, 4},
	{ERR_INVALID, 5}, {ERR_TOOBIG, 6}, {ERR_NOMEM, 7}, {ERR_BUSY, 8}, {ERR_NOTFOUND, 9},
	{ERR_EXISTS, 10}, {ERR_CONFLICT, 11}, {ERR_RANGE, 12}, {ERR_CORRUPT, 13}, {ERR_FENCED, 14},
	{ERR_SEQUENCE, 15}, {ERR_UNAUTHENTICATED, 16}, {ERR_DENIED, 17}, {ERR_NOTLEADER, 18},
	{ERR_UNAVAILABLE, 19}, {ERR_UNKNOWN, 20}, {ERR_TIMEOUT, 21}, {ERR_NOSPACE, 22},
	{ERR_IO, 23}, {ERR_CLOSED, 24}, {ERR_QUOTA, 25}};

static_assert(sizeof numbers / sizeof numbers[0] == ERR_COUNT, "a code without a number");

static uint16_t number_of(enum err e)
{
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (numbers[i].err == e)
			return numbers[i].number;
	return 20;
}

/* A code of a later version says no more than that we do not know. */
static enum err err_of(uint16_t number)
{
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (numbers[i].number == number)
			return numbers[i].err;
	return ERR_UNKNOWN;
}

enum err peer_answer_read(struct bytes body, struct peer_answer_head *out, struct bytes *rest)
{
	struct peer_call_head h;
	enum err e = peer_call_read(body, &h, rest);
	out->id = h.id;
	out->err = err_of(h.op);
	return e;
}

void peer_answer_write(uint8_t at[PEER_ANSWER_BYTES], const struct peer_answer_head *h)
{
	peer_call_write(at, &(struct peer_call_head){h->id, number_of(h->err)});
}

uint16_t peer_version_common(const struct peer_hello *a, const struct peer_hello *b)
{
	uint16_t least = a->version_min > b->version_min ? a->version_min : b->version_min;
	uint16_t greatest = a->version_max < b->version_max ? a->version_max : b->version_max;
	return least > greatest ? 0 : greatest;
}
