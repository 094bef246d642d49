/* The grammar of RFC 5802 section 7, attribute by attribute: each is a letter (or, of extensions,
 * a word), '=', and a value up to the next comma. Channel binding is not offered, so "p=" is no
 * valid beginning. Kafka's clients send extensions with their names ("tokenauth=true"): unknown
 * ones are passed over, except "m=", which says that it must be understood. */
#include "server/broker/scram.h"

/* The text up to the next comma, which is passed over. */
static struct bytes part(struct rd *r)
{
	size_t len = rd_left(r);
	const uint8_t *comma = len > 0 ? memchr(r->at, ',', len) : NULL;
	if (comma == NULL)
		return rd_take(r, len);
	struct bytes b = rd_take(r, (size_t)(comma - r->at));
	rd_skip(r, 1);
	return b;
}

/* The value of a part "x=value". */
static struct bytes value_of(struct rd *r, struct bytes b, char letter)
{
	if (b.len < 2 || b.at[0] != (uint8_t)letter || b.at[1] != '=') {
		rd_fail(r, ERR_MALFORMED);
		return bytes_of(NULL, 0);
	}
	return bytes_of(b.at + 2, b.len - 2);
}

static bool is_letter(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_extension(struct bytes b)
{
	size_t i = 0;
	while (i < b.len && is_letter(b.at[i]))
		i++;
	return i > 0 && i + 1 < b.len && b.at[i] == '=' && !(i == 1 && b.at[0] == 'm') &&
		memchr(b.at, 0, b.len) == NULL && bytes_utf8(b);
}

/* A name: "=2C" is a comma, "=3D" an equals sign, no other '='. */
static struct bytes name_read(struct rd *r, struct bytes b, uint8_t *out)
{
	size_t len = 0;
	for (size_t i = 0; i < b.len; i++) {
		uint8_t c = b.at[i];
		if (c == '=') {
			bool comma = i + 2 < b.len && b.at[i + 1] == '2' && b.at[i + 2] == 'C';
			bool equals = i + 2 < b.len && b.at[i + 1] == '3' && b.at[i + 2] == 'D';
			if (!comma && !equals)
				break;
			c = comma ? ',' : '=';
			i += 2;
		}
		if (c == 0 || len == USER_NAME_MAX)
			break;
		out[len++] = c;
		if (i + 1 == b.len && bytes_utf8(bytes_of(out, len)))
			return bytes_of(out, len);
	}
	rd_fail(r, ERR_MALFORMED);
	return bytes_of(out, 0);
}

static bool nonce_valid(struct bytes b)
{
	for (size_t i = 0; i < b.len; i++)
		if (b.at[i] < 0x21 || b.at[i] > 0x7e)
			return false;
	return b.len > 0 && b.len <= SCRAM_NONCE_MAX;
}

enum err scram_first_read(struct bytes in, struct scram_first *out)
{
	struct rd r = rd_over(in);
	out->user = out->authzid = bytes_of(out->names, 0);
	struct bytes flag = part(&r), authzid = part(&r);
	if (flag.len != 1 || (flag.at[0] != 'n' && flag.at[0] != 'y'))
		rd_fail(&r, ERR_MALFORMED);
	if (authzid.len > 0)
		out->authzid = name_read(
			&r, value_of(&r, authzid, 'a'), out->names + USER_NAME_MAX);
	out->gs2 = bytes_of(in.at, in.len - rd_left(&r));
	out->bare = bytes_of(r.at, rd_left(&r));
	out->user = name_read(&r, value_of(&r, part(&r), 'n'), out->names);
	out->nonce = value_of(&r, part(&r), 'r');
	if (!nonce_valid(out->nonce))
		rd_fail(&r, ERR_MALFORMED);
	while (r.err == OK && rd_left(&r) > 0)
		if (!is_extension(part(&r)))
			rd_fail(&r, ERR_MALFORMED);
	if (r.err == OK && in.at[in.len - 1] == ',')
		rd_fail(&r, ERR_MALFORMED);
	return rd_done(&r);
}

enum err scram_final_read(struct bytes in, struct scram_final *out)
{
	struct rd r = rd_over(in);
	out->binding = value_of(&r, part(&r), 'c');
	out->nonce = value_of(&r, part(&r), 'r');
	if (!nonce_valid(out->nonce))
		rd_fail(&r, ERR_MALFORMED);
	for (;;) {
		size_t before = in.len - rd_left(&r);
		struct bytes b = part(&r);
		if (r.err != OK)
			break;
		if (b.len > 1 && b.at[0] == 'p' && b.at[1] == '=') {
			out->proof = bytes_of(b.at + 2, b.len - 2);
			out->without_proof = bytes_of(in.at, before - 1);
			if (in.at[in.len - 1] == ',')
				rd_fail(&r, ERR_MALFORMED);
			break;
		}
		if (!is_extension(b))
			rd_fail(&r, ERR_MALFORMED);
	}
	return rd_done(&r); /* the proof is last */
}

bool scram_binding_ok(struct bytes binding, struct bytes gs2)
{
	struct buf text;
	buf_init(&text, 2 * gs2.len + 4);
	base64_write(gs2, &text);
	bool ok = text.err == OK && bytes_equal(buf_bytes(&text), binding);
	buf_fini(&text);
	return ok;
}

void scram_server_first(struct bytes nonce, struct bytes salt, uint32_t iterations, struct buf *out)
{
	buf_add_text(out, "r=");
	buf_add(out, nonce);
	buf_add_text(out, ",s=");
	base64_write(salt, out);
	buf_addf(out, ",i=%u", iterations);
}
