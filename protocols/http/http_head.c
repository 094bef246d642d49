/* Heads are read whole: the end is looked for first, byte limits and line ends are checked on the
 * way, then llhttp runs once over a copy. So views of names and values are contiguous and live as
 * long as the exchange, and what strict llhttp still lets pass, folded headers and bare line feeds,
 * is refused before it sees them. */
#include <strings.h>
#include "protocols/http/http_priv.h"
#include "server/base/conf.h"
#include "server/base/mem.h"

enum err head_find(struct bytes in, size_t bytes_max, size_t *scanned, size_t *len)
{
	size_t most = in.len < bytes_max ? in.len : bytes_max;

	for (size_t i = *scanned; i < most;) {
		const uint8_t *lf = memchr(in.at + i, '\n', most - i);
		if (lf == NULL)
			break;
		i = (size_t)(lf - in.at) + 1;
		if (i < 2 || lf[-1] != '\r')
			return ERR_MALFORMED;
		if (i >= 4 && lf[-2] == '\n') {
			*len = i;
			return OK;
		}
		if (i == in.len) { /* what begins the next line is looked at later */
			*scanned = i - 1;
			return i >= bytes_max ? ERR_TOOBIG : ERR_MORE;
		}
		if (in.at[i] == ' ' || in.at[i] == '\t')
			return ERR_MALFORMED;
		*scanned = i;
	}
	return in.len >= bytes_max ? ERR_TOOBIG : ERR_MORE;
}

static int count_lines(struct bytes head)
{
	int lines = 0;

	for (size_t i = 0; i < head.len; i++)
		lines += head.at[i] == '\n';
	return lines;
}

enum err exchange_new(struct bytes head, struct exchange **out)
{
	int lines = count_lines(head);
	size_t headers = (size_t)lines * sizeof(struct header);
	struct exchange *x = mem_try(sizeof *x + headers + 2 * head.len);

	if (x == NULL)
		return ERR_NOMEM;
	*x = (struct exchange){.header_max = lines};
	list_init(&x->node);
	x->headers = (struct header *)(void *)(x + 1);
	x->head = (uint8_t *)(x->headers + lines);
	x->head_len = head.len;
	x->scratch = x->head + head.len;
	if (head.len > 0)
		memcpy(x->head, head.at, head.len);
	buf_init(&x->body, 0);
	buf_init(&x->extra, 4096);
	buf_init(&x->out, SIZE_MAX / 2);
	*out = x;
	return OK;
}

void exchange_free(struct exchange *x)
{
	list_remove(&x->node);
	access_unref(x->access);
	buf_fini(&x->body);
	buf_fini(&x->extra);
	buf_fini(&x->out);
	if (x->conn != NULL)
		conn_unref(x->conn);
	mem_free(x);
}

static bool same_name(struct bytes a, const char *name)
{
	return a.len == strlen(name) && strncasecmp((const char *)a.at, name, a.len) == 0;
}

struct bytes request_header(const struct exchange *x, const char *name)
{
	for (int i = 0; i < x->header_count; i++)
		if (same_name(x->headers[i].name, name))
			return x->headers[i].value;
	return (struct bytes){0};
}

static int count_header(const struct exchange *x, const char *name)
{
	int count = 0;

	for (int i = 0; i < x->header_count; i++)
		count += same_name(x->headers[i].name, name);
	return count;
}

/* http://host/path becomes /path (RFC 9112 §3.2.2), then path and query part. */
static bool split_target(struct exchange *x)
{
	struct bytes t = x->target;
	const uint8_t *mark;

	if (t.len > 0 && t.at[0] != '/' && t.at[0] != '*') {
		const uint8_t *at = memmem(t.at, t.len, "://", 3);
		size_t from = at == NULL ? t.len : (size_t)(at + 3 - t.at);
		at = memchr(t.at + from, '/', t.len - from);
		if (at == NULL)
			return false;
		t = bytes_of(at, t.len - (size_t)(at - t.at));
	}
	if (t.len == 0)
		return false;
	mark = memchr(t.at, '#', t.len);
	if (mark != NULL)
		return false;
	mark = memchr(t.at, '?', t.len);
	x->path = t;
	x->query = bytes_of(NULL, 0);
	if (mark != NULL) {
		x->path.len = (size_t)(mark - t.at);
		x->query = bytes_of(mark + 1, t.len - x->path.len - 1);
	}
	return true;
}

/* A page of another origin that runs in a user's browser must not command this server. */
static bool foreign_origin(const struct exchange *x)
{
	struct bytes origin = request_header(x, "origin"), host = request_header(x, "host");
	const uint8_t *at;

	if (origin.at == NULL || x->method == HTTP_GET || x->method == HTTP_HEAD ||
		x->method == HTTP_OPTIONS)
		return false;
	at = memmem(origin.at, origin.len, "://", 3);
	if (at == NULL)
		return true;
	at += 3;
	return !bytes_equal(bytes_of(at, origin.len - (size_t)(at - origin.at)), host);
}

int head_check(struct exchange *x, const char **why)
{
	struct bytes expect = request_header(x, "expect");
	int hosts = count_header(x, "host");

	*why = "malformed request target";
	if (!split_target(x))
		return 400;
	*why = "exactly one Host header is needed";
	if (hosts > 1 || (hosts == 0 && !x->old))
		return 400;
	*why = "only Expect: 100-continue is known";
	if (expect.at != NULL && !same_name(expect, "100-continue"))
		return 417;
	*why = "a page of another origin may not do this";
	if (foreign_origin(x))
		return 403;
	x->wants_continue = expect.at != NULL && !x->old;
	return 0;
}

/* ---- escapes and queries */

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

enum err percent_decode(struct exchange *x, struct bytes in, bool plus_is_space, struct bytes *out)
{
	uint8_t *from = x->scratch + x->scratch_used, *to = from;

	*out = in;
	if (in.len == 0)
		return OK;
	if (memchr(in.at, '%', in.len) == NULL && (!plus_is_space || !memchr(in.at, '+', in.len)))
		return OK;
	/* Each part of the target is decoded into room of its own length, so the sum over
	 * different parts fits; a part asked for again may not. */
	if (in.len > x->head_len - x->scratch_used)
		return ERR_TOOBIG;
	for (size_t i = 0; i < in.len; i++) {
		int high, low;
		if (in.at[i] == '+' && plus_is_space) {
			*to++ = ' ';
			continue;
		}
		if (in.at[i] != '%') {
			*to++ = in.at[i];
			continue;
		}
		if (in.len - i < 3)
			return ERR_MALFORMED;
		high = hex(in.at[i + 1]);
		low = hex(in.at[i + 2]);
		if (high < 0 || low < 0 || (high == 0 && low == 0))
			return ERR_MALFORMED;
		*to++ = (uint8_t)(high << 4 | low);
		i += 2;
	}
	x->scratch_used += (size_t)(to - from);
	*out = bytes_of(from, (size_t)(to - from));
	return OK;
}

struct bytes request_query(struct exchange *x, const char *name)
{
	struct bytes rest = x->query, value;
	size_t name_len = strlen(name);

	while (rest.len > 0) {
		const uint8_t *end = memchr(rest.at, '&', rest.len);
		size_t len = end == NULL ? rest.len : (size_t)(end - rest.at);
		struct bytes pair = bytes_of(rest.at, len);
		rest.at += end == NULL ? len : len + 1;
		rest.len -= end == NULL ? len : len + 1;
		if (pair.len < name_len || memcmp(pair.at, name, name_len) != 0)
			continue;
		if (pair.len == name_len)
			return bytes_of(pair.at + name_len, 0);
		if (pair.at[name_len] != '=')
			continue;
		value = bytes_of(pair.at + name_len + 1, pair.len - name_len - 1);
		if (percent_decode(x, value, true, &value) != OK)
			return value;
		return value;
	}
	return (struct bytes){0};
}

/* Parsers of the configuration want text with a NUL. */
static enum err query_number(struct exchange *x, const char *name, int64_t *out,
	enum err (*parse)(const char *text, int64_t *out))
{
	struct bytes b = request_query(x, name);
	char text[32];

	if (b.at == NULL)
		return OK;
	if (b.len >= sizeof text)
		return ERR_INVALID;
	memcpy(text, b.at, b.len);
	text[b.len] = 0;
	return parse(text, out);
}

enum err request_query_int(struct exchange *x, const char *name, int64_t *out)
{
	return query_number(x, name, out, conf_parse_int);
}

enum err request_query_msec(struct exchange *x, const char *name, int64_t *out)
{
	return query_number(x, name, out, conf_parse_msec);
}

static enum err parse_flag(const char *text, int64_t *out)
{
	bool on = true; /* "?retain" alone means yes */
	enum err e = *text == 0 ? OK : conf_parse_bool(text, &on);

	*out = on;
	return e;
}

enum err request_query_bool(struct exchange *x, const char *name, bool *out)
{
	int64_t v = *out;
	enum err e = query_number(x, name, &v, parse_flag);

	*out = v != 0;
	return e;
}
