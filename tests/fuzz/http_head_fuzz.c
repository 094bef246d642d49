/* Heads of HTTP requests: the end is where it is however the bytes are cut, and never behind the
 * input; a head that was found has no folded line and no bare line feed; what stands behind the
 * parser (target, Host, Expect, queries, escapes, paths) stays inside the head's copy. */
#include "protocols/http/http_priv.h"
#include "server/base/mem.h"

enum { HEAD_BYTES_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same bytes in two pieces give the same outcome. */
static void find_in_pieces(struct bytes in, size_t cut, enum err expected, size_t expected_len)
{
	size_t scanned = 0, len;
	uint8_t *first = mem_try(cut + 1);
	must(first != NULL);
	memcpy(first, in.at, cut);
	enum err e = head_find(bytes_of(first, cut), HEAD_BYTES_MAX, &scanned, &len);
	if (e == ERR_MORE)
		e = head_find(in, HEAD_BYTES_MAX, &scanned, &len);
	must(e == expected);
	must(e != OK || len == expected_len);
	mem_free(first);
}

static int on_url(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = p->data;
	if (x->target.at != NULL)
		return HPE_USER;
	x->target = bytes_of(at, len);
	return 0;
}

static int on_name(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = p->data;
	/* There is a line for each header, so there is room for each. */
	must(x->header_count < x->header_max);
	x->headers[x->header_count++] = (struct header){
		bytes_of(at, len), {(const uint8_t *)at, 0}};
	return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = p->data;
	if (x->header_count == 0 || x->headers[x->header_count - 1].value.len > 0)
		return HPE_USER;
	x->headers[x->header_count - 1].value = bytes_of(at, len);
	return 0;
}

static int on_headers_complete(llhttp_t *p)
{
	struct exchange *x = p->data;
	x->head_done = true;
	x->method = p->method;
	x->old = p->http_major == 1 && p->http_minor == 0;
	return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {.on_url = on_url,
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete};

static bool inside(const struct exchange *x, struct bytes b)
{
	return b.len == 0 || (b.at >= x->head && b.at + b.len <= x->scratch + x->head_len);
}

/* What handlers ask of a request. */
static void look(struct exchange *x)
{
	static const char *const names[] = {"limit", "offset", "wait", "key", "partition"};
	const char *why = NULL;
	int status = head_check(x, &why);
	must(why != NULL);
	if (status != 0)
		return;
	must(inside(x, x->path) && inside(x, x->query));
	if (route_find(x) == 0)
		for (int i = 0; i < PARAMS_MAX; i++)
			must(inside(x, x->params[i]));
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct bytes value = request_query(x, names[i]);
		int64_t number = 0;
		must(inside(x, value));
		(void)!request_query_int(x, names[i], &number);
		(void)!request_query_msec(x, names[i], &number);
	}
}

static void parse(struct bytes head)
{
	struct exchange *x;
	llhttp_t parser;
	must(exchange_new(head, &x) == OK);
	llhttp_init(&parser, HTTP_REQUEST, &callbacks);
	parser.data = x;
	(void)llhttp_execute(&parser, (const char *)x->head, x->head_len);
	if (x->head_done)
		look(x);
	exchange_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in = bytes_of(data, size);
	size_t scanned = 0, len = 0;
	enum err e = head_find(in, HEAD_BYTES_MAX, &scanned, &len);
	if (size > 0)
		find_in_pieces(in, data[size / 2] * size / 256, e, len);
	if (e != OK)
		return 0;
	must(len >= 2 && len <= size && len <= HEAD_BYTES_MAX);
	for (size_t i = 0; i < len; i++)
		must(data[i] != '\n' || (i > 0 && data[i - 1] == '\r'));
	must(memmem(data, len, "\n ", 2) == NULL && memmem(data, len, "\n\t", 2) == NULL);
	parse(bytes_of(data, len));
	return 0;
}
