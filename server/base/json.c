/* Each value is preceded by what the place needs, a comma and a name. Characters that JSON forbids
 * are escaped, all others pass as they are, so text that is UTF-8 stays readable. Numbers over 2^53
 * are written in full: a reader that cares reads them as it should. */
#include "server/base/json.h"
#include <math.h>

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void escaped(struct buf *out, uint8_t c)
{
	switch (c) {
	case '"': buf_add_text(out, "\\\""); break;
	case '\\': buf_add_text(out, "\\\\"); break;
	case '\n': buf_add_text(out, "\\n"); break;
	case '\r': buf_add_text(out, "\\r"); break;
	case '\t': buf_add_text(out, "\\t"); break;
	default: buf_addf(out, "\\u%04x", c); break;
	}
}

static bool plain(uint8_t c)
{
	return c >= 0x20 && c != '"' && c != '\\' && c != 0x7f;
}

static void quoted(struct buf *out, struct bytes text)
{
	bool utf8 = bytes_utf8(text);

	buf_add_u8(out, '"');
	for (size_t i = 0; i < text.len;) {
		size_t from = i;
		while (i < text.len && plain(text.at[i]) && (utf8 || text.at[i] < 0x80))
			i++;
		buf_add(out, bytes_of(text.at + from, i - from));
		if (i == text.len)
			break;
		if (text.at[i] >= 0x80)
			buf_add_u8(out, '?');
		else
			escaped(out, text.at[i]);
		i++;
	}
	buf_add_u8(out, '"');
}

static void begin(struct json *j, const char *name)
{
	if (j->comma)
		buf_add_u8(j->out, ',');
	if (name != NULL) {
		quoted(j->out, bytes_text(name));
		buf_add_u8(j->out, ':');
	}
	j->comma = true;
}

void json_open(struct json *j, const char *name, char bracket)
{
	begin(j, name);
	buf_add_u8(j->out, (uint8_t)bracket);
	j->comma = false;
}

void json_close(struct json *j, char bracket)
{
	buf_add_u8(j->out, (uint8_t)bracket);
	j->comma = true;
}

void json_bytes(struct json *j, const char *name, struct bytes text)
{
	begin(j, name);
	quoted(j->out, text);
}

void json_text(struct json *j, const char *name, const char *text)
{
	json_bytes(j, name, bytes_text(text));
}

static void group64(uint8_t *to, const uint8_t *at, size_t len)
{
	uint32_t v = (uint32_t)at[0] << 16;

	if (len > 1)
		v |= (uint32_t)at[1] << 8;
	if (len > 2)
		v |= at[2];
	to[0] = (uint8_t)digits64[v >> 18];
	to[1] = (uint8_t)digits64[v >> 12 & 63];
	to[2] = len > 1 ? (uint8_t)digits64[v >> 6 & 63] : '=';
	to[3] = len > 2 ? (uint8_t)digits64[v & 63] : '=';
}

void json_base64(struct json *j, const char *name, struct bytes data)
{
	size_t size = (data.len + 2) / 3 * 4;
	uint8_t *to;

	begin(j, name);
	buf_add_u8(j->out, '"');
	to = size == 0 ? NULL : buf_room(j->out, size);
	if (to != NULL) {
		for (size_t i = 0; i < data.len; i += 3, to += 4)
			group64(to, data.at + i, data.len - i);
		buf_claim(j->out, size);
	}
	buf_add_u8(j->out, '"');
}

void json_int(struct json *j, const char *name, int64_t v)
{
	begin(j, name);
	buf_addf(j->out, "%lld", (long long)v);
}

void json_real(struct json *j, const char *name, double v)
{
	begin(j, name);
	buf_addf(j->out, "%.3f", isfinite(v) ? v : 0.0);
}

void json_bool(struct json *j, const char *name, bool v)
{
	begin(j, name);
	buf_add_text(j->out, v ? "true" : "false");
}

void json_null(struct json *j, const char *name)
{
	begin(j, name);
	buf_add_text(j->out, "null");
}
