/* From bytes to exchanges and back. A connection reads one request at a time: its head whole, then
 * its body as it comes. Complete requests go to their handlers at once, which may answer later and
 * in any order; the queue keeps the order of the answers. Reading stops while too many answers are
 * owed, the peer does not take them, or quotas say so, and while a login is under way: a body is
 * not read for somebody unknown. After a request that can't be understood nothing more is read: the
 * refusal is the last answer. */
#include <string.h>
#include "protocols/http/http_priv.h"
#include "server/base/log.h"
#include "server/base/mem.h"

enum { QUEUED_BODY_BYTES_MAX = 1 << 20, HOLD_MS_MAX = 10000 };

enum phase { PHASE_NONE, PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_BUSY };

struct http_conn {
	struct conn *conn;
	llhttp_t parser;          /* of the body being read */
	struct list queue;        /* exchanges, oldest first; the newest may still be read */
	struct exchange *reading; /* its body is not complete; in the queue, too */
	size_t scanned;           /* of the head being awaited */
	size_t body_bytes;        /* of those queued */
	size_t answer_bytes;      /* theirs, too: expected or there, and not yet written */
	size_t left;              /* output queued when the idle timer ran last */
	struct http_who who;
	struct loop_timer hold; /* quotas: until then nothing is read or answered */
	int64_t hold_until_ms;
	int queued;
	uint8_t phase;
	bool paused, ended, held;
};

static void progress(struct conn *c);
static void proceed(struct exchange *x, enum err e);

/* ---- the parser's callbacks */

static struct exchange *of(const llhttp_t *p)
{
	return p->data;
}

static int on_url(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = of(p);

	if (x->target.at != NULL)
		return HPE_USER;
	x->target = bytes_of(at, len);
	return 0;
}

static int on_name(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = of(p);

	if (x->head_done)
		return 0; /* a trailer: read and forgotten */
	if (x->header_count >= x->header_max)
		return HPE_USER;
	x->headers[x->header_count++] = (struct header){
		bytes_of(at, len), {(const uint8_t *)at, 0}};
	return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = of(p);
	struct header *h;

	if (x->head_done)
		return 0;
	if (x->header_count == 0)
		return HPE_USER;
	h = &x->headers[x->header_count - 1];
	if (h->value.len > 0)
		return HPE_USER; /* a second line of it */
	while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t'))
		len--;
	h->value = bytes_of(at, len);
	return 0;
}

static int on_headers_complete(llhttp_t *p)
{
	struct exchange *x = of(p);

	x->head_done = true;
	x->method = p->method;
	x->old = p->http_major == 1 && p->http_minor == 0;
	p->upgrade = 0; /* a server may pass over the wish (RFC 9110 §7.8) */
	return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t len)
{
	struct exchange *x = of(p);

	buf_add(&x->body, bytes_of(at, len));
	if (x->body.err == OK)
		return 0;
	x->fail = x->body.err;
	return HPE_USER;
}

static int on_complete(llhttp_t *p)
{
	struct exchange *x = of(p);

	x->received = true;
	x->keep_alive = llhttp_should_keep_alive(p) != 0;
	return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
	.on_url = on_url,
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

/* ---- deadlines */

static void enter(struct conn *c, enum phase phase)
{
	struct http_conn *h = conn_state(c);
	const struct http_conf *conf = ((const struct http *)conn_door_arg(c))->conf;

	if (h->phase == phase)
		return;
	h->phase = phase;
	h->left = 0;
	switch (phase) {
	case PHASE_NONE:
	case PHASE_BUSY: conn_deadline(c, 0); break;
	case PHASE_IDLE: conn_deadline(c, conf->idle_ms); break;
	case PHASE_HEAD: conn_deadline(c, conf->head_ms); break;
	case PHASE_BODY: conn_deadline(c, conf->body_ms); break;
	}
}

/* A request has been taken: the next wait is a new one, though it may be of the same kind. */
static void taken(struct http_conn *h)
{
	h->phase = PHASE_NONE;
}

/* Nothing is left to do before the peer takes its answers. */
static bool awaits_peer(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	return conn_over_high(c) &&
		(list_empty(&h->queue) ||
			list_entry(h->queue.next, struct exchange, node)->answered);
}

static void settle(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	if (h->held || h->who.pending != NULL)
		enter(c, PHASE_BUSY);
	else if (h->reading != NULL)
		enter(c, PHASE_BODY);
	else if (awaits_peer(c))
		enter(c, PHASE_IDLE);
	else if (h->ended || h->paused)
		enter(c, PHASE_BUSY);
	else if (conn_input(c).len > 0)
		enter(c, PHASE_HEAD);
	else
		enter(c, list_empty(&h->queue) ? PHASE_IDLE : PHASE_BUSY);
}

/* ---- answers leave */

static void dequeue(struct http_conn *h, struct exchange *x)
{
	list_remove(&x->node);
	h->queued--;
	h->body_bytes -= buf_len(&x->body);
	h->answer_bytes -= x->answer_bytes;
}

static void count_answer(struct exchange *x)
{
	static const uint8_t rows[] = {M_REQUESTS_1XX_2XX, M_REQUESTS_1XX_2XX, M_REQUESTS_1XX_2XX,
		M_REQUESTS_3XX, M_REQUESTS_4XX, M_REQUESTS_5XX};

	metric_add(loop_cells(conn_loop(x->conn)), &http_metrics, rows[x->status / 100 % 6], 1);
}

static void count_unanswered(struct conn *c, struct http *http, int n)
{
	struct http_loop *l = &http->loops[loop_index(conn_loop(c))];

	l->unanswered += n;
	metric_set(loop_cells(conn_loop(c)), &http_metrics, M_UNANSWERED, l->unanswered);
}

/* Writes the answers that are due, in order, as long as the peer takes them. */
static void flush(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	while (!h->held && !conn_over_high(c) && !list_empty(&h->queue)) {
		struct exchange *x = list_entry(h->queue.next, struct exchange, node);
		bool last;
		if (!x->answered) {
			if (x->wants_continue && !x->received && h->who.pending == NULL) {
				buf_add_text(conn_out(c), "HTTP/1.1 100 Continue\r\n\r\n");
				conn_wrote(c);
				x->wants_continue = false;
			}
			return;
		}
		last = !x->keep_alive;
		answer_write(x);
		h->left = 0; /* what is queued now is no measure of what it has read */
		count_answer(x);
		count_unanswered(c, x->http, -1);
		dequeue(h, x);
		exchange_free(x);
		if (last) {
			h->ended = true;
			conn_close(c, OK);
			return;
		}
	}
}

void exchange_expect(struct exchange *x, size_t bytes)
{
	struct http_conn *h = conn_state(x->conn);

	h->answer_bytes += bytes - x->answer_bytes;
	x->answer_bytes = bytes;
}

void exchange_answered(struct exchange *x)
{
	struct conn *c = x->conn;
	struct http *http = x->http;

	must(!x->answered);
	x->answered = true;
	if (x->gone) {
		count_unanswered(c, http, -1);
		exchange_free(x);
		return;
	}
	exchange_expect(x, buf_len(&x->out));
	if (!x->handling)
		progress(c);
}

/* ---- requests come in */

static void refuse(struct exchange *x, int status, const char *code, const char *why)
{
	x->keep_alive = false;
	metric_add(loop_cells(conn_loop(x->conn)), &http_metrics, M_REFUSED, 1);
	LOG(LOG_DEBUG, AREA_HTTP, "refused", "peer=%s status=%d why=\"%s\"", conn_peer(x->conn),
		status, why);
	answer_error(x, status, code, "%s", why);
}

static void enqueue(struct conn *c, struct exchange *x)
{
	struct http_conn *h = conn_state(c);
	struct http *http = conn_door_arg(c);

	conn_ref(c);
	x->conn = c;
	x->http = http;
	x->shard = http->loops[loop_index(conn_loop(c))].shard;
	list_push_back(&h->queue, &x->node);
	h->queued++;
	count_unanswered(c, http, 1);
}

/* A request without a readable head: the last one of this connection. */
static enum err refuse_bytes(struct conn *c, int status, const char *code, const char *why)
{
	struct http_conn *h = conn_state(c);
	struct exchange *x;
	enum err e = exchange_new(bytes_of(NULL, 0), &x);

	if (e != OK)
		return e;
	h->ended = true;
	enqueue(c, x);
	refuse(x, status, code, why);
	return OK;
}

static void dispatch(struct exchange *x)
{
	struct http_conn *h = conn_state(x->conn);

	h->body_bytes += buf_len(&x->body);
	x->handling = true;
	x->route->handle(x);
	x->handling = false;
}

static size_t body_max(const struct exchange *x)
{
	switch ((enum route_body)x->route->body) {
	case BODY_NONE: return 0;
	case BODY_JSON: return (size_t)x->http->conf->json_bytes_max;
	case BODY_MESSAGE: return (size_t)shard_conf(x->shard)->message_bytes_max;
	}
	return 0;
}

/* The head has been parsed. Whether the request goes on; if not it has been answered, and is gone.
 */
static bool admit(struct exchange *x, const llhttp_t *p)
{
	const char *why;
	int status = head_check(x, &why);

	if (status == 0 && p->http_major != 1) {
		status = 505;
		why = "HTTP/1.1 is spoken here";
	}
	if (status != 0) {
		refuse(x, status, status == 403 ? "denied" : "malformed", why);
		return false;
	}
	status = route_find(x);
	if (!x->received && status != 0)
		x->keep_alive = false; /* the body is not read */
	if (status == 204) {
		answer_empty(x, 204);
	} else if (status != 0) {
		answer_error(x, status,
			status == 404           ? "not_found"
				: status == 405 ? "method_not_allowed"
						: "malformed",
			"%s", status == 404 ? "no such page" : status_text(status));
	} else if (!x->received && (p->flags & F_CONTENT_LENGTH) &&
		p->content_length > body_max(x)) {
		refuse(x, 413, "too_big", "the body is over the limit");
	} else {
		x->body.max = body_max(x);
		return true;
	}
	return false;
}

static void not_known(struct exchange *x, enum err e)
{
	if (!x->received)
		x->keep_alive = false; /* the body is not read */
	metric_add(loop_cells(conn_loop(x->conn)), &http_metrics, M_REFUSED, 1);
	if (e == ERR_UNAUTHENTICATED) {
		answer_header(x, "WWW-Authenticate", "Basic realm=\"sluice\", charset=\"UTF-8\"");
		answer_err(x, e,
			request_header(x, "authorization").at == NULL ? "log in first"
								      : "wrong user or password");
	} else if (e == ERR_RANGE) {
		answer_header(x, "Retry-After", "1");
		answer_error(x, 429, "busy", "more connections than the quota allows");
	} else {
		answer_err(x, e,
			e == ERR_UNAVAILABLE ? "this node does not know users and rights yet"
					     : NULL);
	}
}

/* Who asks is known (OK) or not: on to the handler, or to the body. */
static void proceed(struct exchange *x, enum err e)
{
	struct http_conn *h = conn_state(x->conn);
	bool fine = false;

	if (e != OK) {
		not_known(x, e);
	} else if (x->route->right.of == RIGHT_OPEN || right_check(x)) {
		fine = true;
	}
	if (!fine) {
		h->ended = h->ended || h->reading != NULL;
		h->reading = NULL;
	} else if (h->reading == NULL) {
		dispatch(x);
	}
}

void exchange_known(struct exchange *x, enum err e)
{
	struct conn *c = x->conn;

	conn_ref(c); /* an answer may end the exchange */
	x->handling = true;
	proceed(x, e);
	x->handling = false;
	progress(c);
	conn_unref(c);
}

/* ---- quotas */

static void hold(struct conn *c, int64_t ms)
{
	struct http_conn *h = conn_state(c);
	int64_t until = loop_now_ms(conn_loop(c)) + (ms < HOLD_MS_MAX ? ms : HOLD_MS_MAX);

	if (ms <= 0 || (h->held && until <= h->hold_until_ms))
		return;
	h->held = true;
	h->hold_until_ms = until;
	loop_timer_set(&h->hold, until - loop_now_ms(conn_loop(c)));
}

void exchange_charge_in(struct exchange *x, size_t bytes)
{
	if (!x->gone)
		hold(x->conn, access_charge_in(x->access, 1, (int64_t)bytes));
}

void exchange_charge_out(struct exchange *x, int64_t messages, size_t bytes)
{
	if (!x->gone)
		hold(x->conn, access_charge_out(x->access, messages, (int64_t)bytes));
}

static void malformed(struct exchange *x, llhttp_errno_t n)
{
	if (x->fail == ERR_TOOBIG)
		refuse(x, 413, "too_big", "the body is over the limit");
	else if (x->fail == ERR_NOMEM)
		refuse(x, 503, "busy", "out of memory");
	else if (n == HPE_INVALID_VERSION)
		refuse(x, 505, "malformed", "HTTP/1.1 is spoken here");
	else
		refuse(x, 400, "malformed", "malformed request");
}

static enum err on_head(struct conn *c, struct bytes head)
{
	struct http_conn *h = conn_state(c);
	struct http *http = conn_door_arg(c);
	struct exchange *x;
	llhttp_errno_t n;
	enum err e = exchange_new(head, &x);

	if (e != OK)
		return e;
	if (x->header_max > http->conf->head_count_max + 2) {
		exchange_free(x);
		return refuse_bytes(c, 431, "too_big", "too many headers");
	}
	enqueue(c, x);
	llhttp_init(&h->parser, HTTP_REQUEST, &callbacks);
	h->parser.data = x;
	n = llhttp_execute(&h->parser, (const char *)x->head, x->head_len);
	if ((n != HPE_OK && n != HPE_PAUSED) || !x->head_done) {
		h->ended = true;
		malformed(x, n);
		return OK;
	}
	if (!x->received)
		h->reading = x;
	if (!admit(x, &h->parser)) {
		h->ended = h->ended || h->reading != NULL;
		h->reading = NULL;
		return OK;
	}
	e = x->route->right.of == RIGHT_OPEN ? OK : login_begin(&h->who, x);
	if (e != ERR_MORE)
		proceed(x, e);
	return OK;
}

static enum err head_input(struct conn *c, struct bytes in)
{
	struct http_conn *h = conn_state(c);
	const struct http_conf *conf = ((const struct http *)conn_door_arg(c))->conf;
	size_t len;
	enum err e;

	while (h->scanned == 0 && in.len >= 2 && in.at[0] == '\r' && in.at[1] == '\n') {
		conn_consume(c, 2); /* an empty line before a request: RFC 9112 §2.2 */
		in = conn_input(c);
	}
	if (in.len == 0)
		return OK;
	if ((in.at[0] < 'A' || in.at[0] > 'Z') && in.at[0] != '\r')
		return refuse_bytes(c, 400, "malformed", "this is no HTTP request");
	e = head_find(in, (size_t)conf->head_bytes_max, &h->scanned, &len);
	if (e == ERR_MALFORMED)
		return refuse_bytes(c, 400, "malformed", "malformed line in the request's head");
	if (e == ERR_TOOBIG)
		return refuse_bytes(c, 431, "too_big", "the request's head is over the limit");
	if (e != OK)
		return e;
	h->scanned = 0;
	taken(h);
	e = on_head(c, bytes_of(in.at, len));
	conn_consume(c, len);
	return e;
}

static void body_input(struct conn *c, struct bytes in)
{
	struct http_conn *h = conn_state(c);
	struct exchange *x = h->reading;
	llhttp_errno_t n = llhttp_execute(&h->parser, (const char *)in.at, in.len);

	if (n == HPE_OK) {
		conn_consume(c, in.len);
		return;
	}
	h->reading = NULL;
	if (n != HPE_PAUSED) {
		h->ended = true;
		malformed(x, n);
		return;
	}
	conn_consume(c, (size_t)(llhttp_get_error_pos(&h->parser) - (const char *)in.at));
	taken(h);
	dispatch(x);
}

/* Whether another request may be begun. */
static bool has_room(struct conn *c)
{
	struct http_conn *h = conn_state(c);
	const struct http_conf *conf = ((const struct http *)conn_door_arg(c))->conf;

	if (h->ended || h->held || h->who.pending != NULL)
		return false;
	if (h->reading != NULL)
		return true;
	return h->queued < conf->pipeline_max && h->body_bytes < QUEUED_BODY_BYTES_MAX &&
		h->answer_bytes < (size_t)conf->answer_bytes_max && !conn_over_high(c);
}

static enum err on_input(struct conn *c)
{
	struct http_conn *h = conn_state(c);
	enum err e = OK;

	while (e == OK) {
		struct bytes in = conn_input(c);
		if (in.len == 0)
			break;
		if (!has_room(c)) {
			flush(c);
			if (conn_is_closing(c) || !has_room(c))
				break;
		}
		if (h->reading != NULL)
			body_input(c, in);
		else
			e = head_input(c, in);
	}
	if (e != OK && e != ERR_MORE)
		return e;
	progress(c);
	return OK;
}

/* Sends what is due, then goes on reading or stops it. */
static void progress(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	if (conn_is_closing(c))
		return;
	flush(c);
	if (conn_is_closing(c))
		return;
	if (has_room(c)) {
		if (h->paused)
			conn_resume(c);
		h->paused = false;
	} else {
		if (!h->paused)
			conn_pause(c);
		h->paused = true;
	}
	settle(c);
}

/* ---- the connection's life */

static void hold_over(struct loop_timer *t)
{
	struct http_conn *h = list_entry(t, struct http_conn, hold);

	h->held = false;
	progress(h->conn);
}

static enum err on_opened(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	list_init(&h->queue);
	loop_timer_init(&h->hold, conn_loop(c), hold_over);
	h->who.holder.changed = login_changed;
	h->conn = c;
	enter(c, PHASE_IDLE);
	return OK;
}

static void on_timeout(struct conn *c)
{
	struct http_conn *h = conn_state(c);

	if (h->phase == PHASE_IDLE) {
		size_t left = conn_queued(c);
		if (left > 0 && (h->left == 0 || left < h->left)) { /* it is still reading */
			h->left = left;
			conn_deadline(c, ((struct http *)conn_door_arg(c))->conf->idle_ms);
			return;
		}
		conn_close(c, ERR_TIMEOUT);
	} else if (h->reading != NULL) {
		struct exchange *x = h->reading;
		h->reading = NULL;
		h->ended = true;
		refuse(x, 408, "timeout", "the body took too long");
	} else if (h->phase == PHASE_HEAD) {
		if (refuse_bytes(c, 408, "timeout", "the request's head took too long") != OK)
			conn_close(c, ERR_NOMEM);
	}
}

static void on_closed(struct conn *c, enum err why)
{
	struct http_conn *h = conn_state(c);
	struct exchange *unknown = login_drop(&h->who);
	struct list *node;

	(void)why;
	loop_timer_cancel(&h->hold);
	while ((node = list_pop(&h->queue)) != NULL) {
		struct exchange *x = list_entry(node, struct exchange, node);
		if (x->answered || x == h->reading || x == unknown) {
			count_unanswered(c, x->http, -1);
			exchange_free(x);
			continue;
		}
		x->gone = true;
		if (x->abandoned != NULL)
			x->abandoned(x);
	}
	h->reading = NULL;
}

const struct conn_kind http_kind = {
	.name = "http",
	.state_bytes = sizeof(struct http_conn),
	.opened = on_opened,
	.input = on_input,
	.drained = progress,
	.timeout = on_timeout,
	.closed = on_closed,
};
