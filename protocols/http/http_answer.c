/* Answers. Handlers fill x->out and name a status; head and body leave when all earlier answers of
 * the connection have left. Errors have one form: {"error":{"code","message"}}. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include "protocols/http/http_priv.h"
#include "server/base/log.h"

enum { SHARED_BODY_BYTES = 8192, MESSAGE_BYTES = 256 };

const char *status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {{200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"},
		{307, "Temporary Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
		{403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
		{408, "Request Timeout"}, {409, "Conflict"}, {413, "Content Too Large"},
		{416, "Range Not Satisfiable"}, {417, "Expectation Failed"},
		{429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"}, {501, "Not Implemented"},
		{503, "Service Unavailable"}, {504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"}};

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		if (texts[i].status == status)
			return texts[i].text;
	return "Unknown";
}

struct meaning {
	int status;
	const char *code;
};

static struct meaning meaning_of(enum err e)
{
	switch (e) {
	case OK:
	case ERR_MORE: return (struct meaning){500, "internal"};
	case ERR_MALFORMED:
	case ERR_PROTOCOL: return (struct meaning){400, "malformed"};
	case ERR_INVALID: return (struct meaning){400, "invalid"};
	case ERR_UNSUPPORTED: return (struct meaning){501, "unsupported"};
	case ERR_TOOBIG: return (struct meaning){413, "too_big"};
	case ERR_NOMEM:
	case ERR_BUSY: return (struct meaning){503, "busy"};
	case ERR_NOTFOUND: return (struct meaning){404, "not_found"};
	case ERR_EXISTS: return (struct meaning){409, "exists"};
	case ERR_CONFLICT:
	case ERR_FENCED:
	case ERR_SEQUENCE: return (struct meaning){409, "conflict"};
	case ERR_RANGE: return (struct meaning){416, "out_of_range"};
	case ERR_CORRUPT: return (struct meaning){500, "corrupt"};
	case ERR_UNAUTHENTICATED: return (struct meaning){401, "unauthenticated"};
	case ERR_DENIED: return (struct meaning){403, "denied"};
	case ERR_QUOTA: return (struct meaning){403, "quota"};
	case ERR_NOTLEADER:
	case ERR_UNAVAILABLE:
	case ERR_CLOSED: return (struct meaning){503, "unavailable"};
	case ERR_UNKNOWN: return (struct meaning){504, "outcome_unknown"};
	case ERR_TIMEOUT: return (struct meaning){504, "timeout"};
	case ERR_NOSPACE: return (struct meaning){507, "no_space"};
	case ERR_IO: return (struct meaning){500, "io"};
	case ERR_COUNT: break;
	}
	return (struct meaning){500, "internal"};
}

void answer(struct exchange *x, int status, const char *type)
{
	if (x->out.err != OK) { /* the answer would be cut: better none */
		enum err e = x->out.err;
		buf_clear(&x->out);
		answer_err(x, e, "the answer is too large");
		return;
	}
	x->status = status;
	x->type = type;
	exchange_answered(x);
}

void answer_json(struct exchange *x, int status)
{
	buf_add_u8(&x->out, '\n');
	answer(x, status, "application/json");
}

void answer_tried(struct exchange *x)
{
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	json_bool(&j, "dry_run", true);
	json_bool(&j, "valid", true);
	json_close(&j, '}');
	answer_json(x, 200);
}

void answer_empty(struct exchange *x, int status)
{
	answer(x, status, NULL);
}

void answer_error(struct exchange *x, int status, const char *code, const char *format, ...)
{
	char text[MESSAGE_BYTES];
	struct json j;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args);
	va_end(args);
	buf_clear(&x->out);
	j = json_over(&x->out);
	json_open(&j, NULL, '{');
	json_open(&j, "error", '{');
	json_text(&j, "code", code);
	json_text(&j, "message", text);
	json_close(&j, '}');
	json_close(&j, '}');
	if (status == 503)
		answer_header(x, "Retry-After", "1");
	answer_json(x, status);
}

void answer_err(struct exchange *x, enum err e, const char *why)
{
	struct meaning m = meaning_of(e);

	answer_error(x, m.status, m.code, "%s", why != NULL && *why ? why : err_text(e));
}

void answer_header(struct exchange *x, const char *name, const char *value)
{
	buf_addf(&x->extra, "%s: %s\r\n", name, value);
}

/* The date is the same for a second. */
static const char *date_now(struct exchange *x)
{
	struct http_loop *l = &x->http->loops[loop_index(conn_loop(x->conn))];
	int64_t s = loop_now_wall_ms(conn_loop(x->conn)) / 1000;
	time_t t = (time_t)s;
	struct tm tm;

	if (s != l->date_s && gmtime_r(&t, &tm) != NULL) {
		l->date_s = s;
		(void)strftime(l->date, sizeof l->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	return l->date;
}

static void write_head(struct exchange *x, struct buf *out)
{
	buf_addf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", x->status, status_text(x->status),
		date_now(x));
	if (x->type != NULL)
		buf_addf(out, "Content-Type: %s\r\nX-Content-Type-Options: nosniff\r\n", x->type);
	if (x->status != 204)
		buf_addf(out, "Content-Length: %zu\r\n", buf_len(&x->out));
	buf_add(out, buf_bytes(&x->extra));
	buf_add_text(out, "Cache-Control: no-store\r\n");
	if (!x->keep_alive)
		buf_add_text(out, "Connection: close\r\n");
	else if (x->old)
		buf_add_text(out, "Connection: keep-alive\r\n");
	buf_add_text(out, "\r\n");
}

void answer_write(struct exchange *x)
{
	struct buf *out = conn_out(x->conn);

	write_head(x, out);
	if (x->method == HTTP_HEAD || buf_len(&x->out) == 0) {
		conn_wrote(x->conn);
	} else if (buf_len(&x->out) < SHARED_BODY_BYTES) {
		buf_add(out, buf_bytes(&x->out));
		conn_wrote(x->conn);
	} else {
		conn_wrote(x->conn);
		conn_send_slice(x->conn, buf_share(&x->out));
	}
}
