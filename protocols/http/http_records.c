/* Records by stream and offset, messages by topic. A body is the value, whatever its Content-Type;
 * what else a record has comes from headers and the query. Reads give JSON; a read that finds
 * nothing may wait, holding no more than itself. */
#include <stdio.h>
#include <strings.h>
#include "protocols/http/http_priv.h"
#include "server/base/mem.h"
#include "server/broker/admin.h"
#include "server/broker/publish.h"

enum { RECORDS_MAX = 10000, RECORDS_DEFAULT = 100, TYPE_BYTES_MAX = 128 };

/* ---- record headers from request headers */

static const struct {
	const char *request, *record;
} named_headers[] = {{"content-type", "content-type"}, {"content-encoding", "content-encoding"},
	{"reply-to", "reply-to"}, {"x-correlation-id", "correlation-id"},
	{"x-message-id", "message-id"}, {"traceparent", "traceparent"}};

static struct bytes lower(struct bytes name)
{
	uint8_t *at = (uint8_t *)(uintptr_t)name.at; /* our own copy of the head */

	for (size_t i = 0; i < name.len; i++)
		if (at[i] >= 'A' && at[i] <= 'Z')
			at[i] = (uint8_t)(at[i] + 'a' - 'A');
	return name;
}

/* Nobody says it is somebody else. */
static bool is_forged(const struct exchange *x, const struct record_header *h)
{
	return bytes_equal(h->name, bytes_text("user-id")) &&
		!bytes_equal(h->value, access_user(x->access));
}

/* Names of the doors' own, by which one of them knows its messages again: not for users. A record
 * may say of which topic it is, as one that Kafka brings. */
static bool is_ours(struct bytes name, bool of_stream)
{
	if (of_stream && bytes_equal(name, bytes_text("mqtt.topic")))
		return false;
	return (name.len >= 5 && memcmp(name.at, "mqtt.", 5) == 0) ||
		(name.len > 0 && name.at[0] == '~');
}

static bool record_header_of(struct header *h, struct record_header *out)
{
	static const char prefix[] = "x-prop-";
	size_t len = sizeof prefix - 1;

	if (h->name.len > len && strncasecmp((const char *)h->name.at, prefix, len) == 0) {
		*out = (struct record_header){
			lower(bytes_of(h->name.at + len, h->name.len - len)), h->value, false};
		return true;
	}
	for (size_t i = 0; i < sizeof named_headers / sizeof named_headers[0]; i++)
		if (h->name.len == strlen(named_headers[i].request) &&
			strncasecmp((const char *)h->name.at, named_headers[i].request,
				h->name.len) == 0) {
			*out = (struct record_header){
				bytes_text(named_headers[i].record), h->value, false};
			return true;
		}
	return false;
}

/* Room for as many as the request has. Clients that post forms by default mean no type. of_stream:
 * for a record, not a message. */
static struct record_header *record_headers(struct exchange *x, bool of_stream, int *count)
{
	struct record_header *out = mem_new(((size_t)x->header_count + 1) * sizeof *out);

	*count = 0;
	for (int i = 0; i < x->header_count; i++) {
		struct record_header *h = &out[*count];
		if (!record_header_of(&x->headers[i], h) || !bytes_utf8(h->value) ||
			is_ours(h->name, of_stream) || is_forged(x, h))
			continue;
		if (bytes_equal(h->name, bytes_text("content-type")) &&
			bytes_equal(h->value, bytes_text("application/x-www-form-urlencoded")))
			continue;
		(*count)++;
	}
	return out;
}

/* ---- produce */

struct produce_op {
	struct admin_produce produce;
	struct exchange *x;
};

static void produced(struct admin_produce *p)
{
	struct produce_op *op = list_entry(p, struct produce_op, produce);
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);

	if (p->err == OK) {
		json_open(&j, NULL, '{');
		json_bytes(&j, "stream", x->params[0]);
		json_int(&j, "partition", p->partition);
		json_int(&j, "offset", p->offset);
		json_int(&j, "timestamp", p->timestamp_ms);
		json_close(&j, '}');
		answer_json(x, 200);
	} else {
		answer_err(x, p->err, NULL);
	}
	mem_free(op);
}

static void produce(struct exchange *x, bool null_value)
{
	const struct stream *s = exchange_stream(x);
	struct bytes key, value = buf_bytes(&x->body);
	struct admin_record r = {
		.partition = -1, .timestamp_ms = loop_now_wall_ms(conn_loop(x->conn))};
	struct record_header *headers;
	struct produce_op *op;
	enum err e;

	if (s == NULL)
		return;
	if (request_query_int(x, "partition", &r.partition) != OK || r.partition < -1) {
		answer_error(x, 400, "invalid", "partition must be a number");
		return;
	}
	key = request_header(x, "x-key");
	if (key.at == NULL)
		key = request_query(x, "key");
	if (key.at != NULL)
		r.key = &key;
	if (!null_value)
		r.value = &value;
	r.headers = headers = record_headers(x, true, &r.header_count);
	exchange_charge_in(x, value.len);
	op = mem_new(sizeof *op);
	op->x = x;
	op->produce.done = produced;
	e = admin_produce(&op->produce, x->shard, s, &r);
	mem_free(headers);
	if (e == OK)
		return;
	mem_free(op);
	answer_err(x, e, e == ERR_RANGE ? "no such partition" : NULL);
}

void records_produce(struct exchange *x)
{
	produce(x, false);
}

void records_delete(struct exchange *x)
{
	produce(x, true);
}

/* ---- read */

struct read_op { /* one request for records */
	struct stream_read read;
	struct partition_wait wait;
	struct offset_seek seek;
	struct loop_timer timer;
	struct exchange *x;
	const struct catalog *held; /* keeps the partition, and the stream's name */
	const struct stream *stream;
	int64_t partition, offset, time_ms, max, until_ms;
	bool base64, over;
};

static void read_free(struct read_op *op)
{
	loop_timer_cancel(&op->timer);
	catalog_release(op->held);
	mem_free(op);
}

/* A NUL is valid UTF-8, but many a reader of JSON ends a text there, ours too. */
static bool is_text(struct bytes b)
{
	return bytes_utf8(b) && (b.len == 0 || memchr(b.at, 0, b.len) == NULL);
}

static void add_field(struct json *j, const char *name, struct bytes b, bool null, bool base64)
{
	char other[64];

	if (null) {
		json_null(j, name);
	} else if (!base64 && is_text(b)) {
		json_bytes(j, name, b);
	} else {
		(void)snprintf(other, sizeof other, "%s_base64", name);
		json_base64(j, other, b);
	}
}

static void add_headers(struct json *j, const struct record *r, bool base64)
{
	struct bytes rest = r->headers;
	struct record_header h;

	json_open(j, "headers", '[');
	for (int i = 0; i < r->header_count && record_header_next(&rest, &h) == OK; i++) {
		json_open(j, NULL, '{');
		json_bytes(j, "name", h.name);
		add_field(j, "value", h.value, h.null_value, base64);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void add_record(struct read_op *op, struct json *j, const struct record *r, int64_t offset)
{
	json_open(j, NULL, '{');
	json_int(j, "offset", offset);
	json_int(j, "timestamp", r->timestamp_ms);
	add_field(j, "key", r->key, r->null_key, op->base64);
	add_field(j, "value", r->value, r->null_value, op->base64);
	if (r->header_count > 0)
		add_headers(j, r, op->base64);
	json_close(j, '}');
}

/* Adds the records of one batch from op->offset on, which moves. */
static enum err add_batch(struct read_op *op, struct json *j, const struct batch *b)
{
	struct batch_walk w;
	struct record r;
	enum err e;

	if (b->control) {
		op->offset = b->base_offset + b->last_offset_delta + 1;
		return OK;
	}
	e = batch_walk_init(&w, b, BATCH_INFLATED_MAX);
	if (e != OK)
		return e;
	while (op->max > 0 && (e = batch_walk_next(&w, &r)) == OK) {
		int64_t offset = b->base_offset + r.offset_delta;
		if (offset < op->offset)
			continue;
		add_record(op, j, &r, offset);
		op->offset = offset + 1;
		op->max--;
	}
	batch_walk_fini(&w);
	return e == ERR_NOTFOUND ? OK : e;
}

static enum err add_slice(struct read_op *op, struct json *j, struct bytes rest)
{
	struct batch b;

	while (rest.len > 0 && op->max > 0) {
		enum err e = batch_read(rest, &b);
		if (e == OK)
			e = add_batch(op, j, &b);
		if (e != OK)
			return e;
		rest.at += b.all.len;
		rest.len -= b.all.len;
	}
	return OK;
}

static void answer_records(struct read_op *op)
{
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);
	int64_t most = op->max;
	enum err e = OK;

	/* A right may have gone while it waited. */
	if (!exchange_may(x, ACTION_READ, RESOURCE_STREAM, x->params[0]))
		e = ERR_DENIED;
	json_open(&j, NULL, '{');
	json_text(&j, "stream", stream_bare(op->stream->name));
	json_int(&j, "partition", op->partition);
	json_int(&j, "first_offset", op->read.first_offset);
	json_int(&j, "end_offset", op->read.high_watermark);
	json_open(&j, "records", '[');
	for (uint32_t i = 0; i < op->read.count && e == OK; i++)
		e = add_slice(op, &j, op->read.slices[i].bytes);
	json_close(&j, ']');
	json_int(&j, "next_offset", op->offset);
	json_close(&j, '}');
	exchange_charge_out(x, most - op->max, buf_len(&x->out));
	stream_read_fini(&op->read);
	read_free(op);
	if (e != OK)
		answer_err(x, e, NULL);
	else
		answer_json(x, 200);
}

static void read_begin(struct read_op *op);

static void wait_over(struct partition_wait *w)
{
	struct read_op *op = list_entry(w, struct read_op, wait);

	if (op->over || op->x->gone)
		answer_records(op);
	else
		read_begin(op);
}

static void timer_over(struct loop_timer *t)
{
	struct read_op *op = list_entry(t, struct read_op, timer);

	op->over = true;
	if (op->wait.armed)
		partition_wait_cancel(&op->wait);
}

static void abandoned(struct exchange *x)
{
	struct read_op *op = x->state;

	op->over = true;
	if (op->wait.armed)
		partition_wait_cancel(&op->wait);
}

static void read_done(struct stream_read *r)
{
	struct read_op *op = list_entry(r, struct read_op, read);

	if (r->err != OK) {
		struct exchange *x = op->x;
		char why[128];
		(void)snprintf(why, sizeof why, "the partition has offsets %lld to %lld",
			(long long)r->first_offset, (long long)r->high_watermark);
		answer_err(x, r->err, r->err == ERR_RANGE ? why : NULL);
		read_free(op);
		return;
	}
	if (r->count > 0 || op->over || op->x->gone || op->offset < r->high_watermark) {
		answer_records(op);
		return;
	}
	stream_read_fini(r);
	op->wait = (struct partition_wait){.at = r->from, .offset = op->offset, .done = wait_over};
	partition_wait(&op->wait);
}

static void read_begin(struct read_op *op)
{
	op->read.offset = op->offset;
	op->read.done = read_done;
	stream_read(&op->read);
}

static void sought(struct offset_seek *s)
{
	struct read_op *op = list_entry(s, struct read_op, seek);
	struct exchange *x = op->x;

	if (s->err != OK && s->err != ERR_NOTFOUND) {
		answer_err(x, s->err, NULL);
		read_free(op);
		return;
	}
	op->offset = s->err == OK ? s->offset : partition_high_watermark(s->from);
	read_begin(op);
}

/* offset=N, earliest, latest. */
static enum err offset_read(struct exchange *x, struct partition *p, int64_t *out)
{
	struct bytes word = request_query(x, "offset");

	*out = partition_first_offset(p);
	if (word.at == NULL || bytes_equal(word, bytes_text("earliest")))
		return OK;
	if (bytes_equal(word, bytes_text("latest"))) {
		*out = partition_high_watermark(p);
		return OK;
	}
	return request_query_int(x, "offset", out) == OK && *out >= 0 ? OK : ERR_INVALID;
}

struct read_query {
	int64_t partition, offset, time_ms, max, bytes, wait_ms;
	bool base64;
};

static const char *query_read(struct exchange *x, const struct stream *s, struct read_query *q)
{
	struct bytes encoding = request_query(x, "encoding");
	struct partition *p;

	*q = (struct read_query){.time_ms = -1,
		.max = RECORDS_DEFAULT,
		.bytes = x->http->conf->answer_bytes_max / 4};
	if (request_query_int(x, "partition", &q->partition) != OK || q->partition < 0)
		return "partition must be a number";
	p = stream_partition(s, q->partition);
	if (p == NULL)
		return "no such partition";
	if (offset_read(x, p, &q->offset) != OK)
		return "offset must be a number, earliest or latest";
	if (request_query_int(x, "time", &q->time_ms) != OK)
		return "time must be milliseconds since 1970";
	if (request_query_int(x, "max", &q->max) != OK || q->max < 1 || q->max > RECORDS_MAX)
		return "max must lie between 1 and 10000";
	if (request_query_int(x, "bytes", &q->bytes) != OK || q->bytes < 1)
		return "bytes must be a number";
	if (request_query_msec(x, "wait", &q->wait_ms) != OK || q->wait_ms < 0)
		return "wait must be a time such as 500ms or 5s";
	q->base64 = bytes_equal(encoding, bytes_text("base64"));
	if (encoding.at != NULL && !q->base64 && !bytes_equal(encoding, bytes_text("auto")))
		return "encoding must be auto or base64";
	return NULL;
}

void records_read(struct exchange *x)
{
	const struct stream *s = exchange_stream(x);
	const struct http_conf *conf = x->http->conf;
	struct loop *l = conn_loop(x->conn);
	struct read_query q;
	struct read_op *op;
	const char *why;

	if (s == NULL)
		return;
	why = query_read(x, s, &q);
	if (why != NULL) {
		answer_error(x, 400, "invalid", "%s", why);
		return;
	}
	op = mem_new(sizeof *op);
	op->x = x;
	op->stream = s;
	op->held = catalog_hold(shard_catalog(x->shard));
	op->partition = q.partition;
	op->offset = q.offset;
	op->max = q.max;
	op->base64 = q.base64;
	op->over = q.wait_ms == 0;
	op->read.from = stream_partition(s, q.partition);
	op->read.bytes_max = (size_t)(q.bytes < conf->answer_bytes_max ? q.bytes
								       : conf->answer_bytes_max);
	loop_timer_init(&op->timer, l, timer_over);
	if (!op->over)
		loop_timer_set(
			&op->timer, q.wait_ms < conf->wait_ms_max ? q.wait_ms : conf->wait_ms_max);
	x->state = op;
	x->abandoned = abandoned;
	exchange_expect(x, op->read.bytes_max);
	if (q.time_ms >= 0) {
		op->seek = (struct offset_seek){
			.from = op->read.from, .time_ms = q.time_ms, .done = sought};
		partition_seek(&op->seek);
	} else {
		read_begin(op);
	}
}

/* ---- topics */

struct topic_op { /* a message on its way */
	struct publish publish;
	struct room_wait room;
	struct message m;
	struct record_header *headers;
	struct exchange *x;
};

static void topic_free(struct topic_op *op)
{
	mem_free(op->headers);
	mem_free(op);
}

static void published(struct publish *p)
{
	struct topic_op *op = list_entry(p, struct topic_op, publish);
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);

	if (p->err == OK) {
		json_open(&j, NULL, '{');
		json_bytes(&j, "topic", x->params[0]);
		json_int(&j, "offset", p->offset);
		json_close(&j, '}');
		answer_json(x, 200);
	} else {
		answer_err(x, p->err, NULL);
	}
	topic_free(op);
}

static void topic_send(struct topic_op *op);

static void has_room(struct room_wait *w)
{
	topic_send(list_entry(w, struct topic_op, room));
}

static void topic_abandoned(struct exchange *x)
{
	struct topic_op *op = x->state;

	if (list_empty(&op->room.node))
		return; /* on its way: its outcome ends it */
	list_remove(&op->room.node);
	topic_free(op);
	answer_err(x, ERR_CLOSED, NULL);
}

static void topic_send(struct topic_op *op)
{
	struct exchange *x = op->x;
	enum err e;

	op->publish.done = published;
	e = shard_publish(x->shard, &op->m, op->m.qos > 0 ? &op->publish : NULL);
	if (e == ERR_BUSY) {
		op->room.room = has_room;
		shard_when_room(x->shard, &op->room);
		return;
	}
	if (e == OK && op->m.qos > 0)
		return;
	topic_free(op);
	if (e == OK)
		answer_empty(x, 202);
	else
		answer_err(x, e, e == ERR_INVALID ? "no valid topic name" : NULL);
}

static void topic_begin(
	struct exchange *x, struct bytes value, bool retain, int64_t qos, int64_t expires_ms)
{
	struct topic_op *op = mem_new(sizeof *op);
	int64_t now = loop_now_wall_ms(conn_loop(x->conn));

	op->x = x;
	list_init(&op->room.node);
	op->headers = record_headers(x, false, &op->m.header_count);
	op->m.headers = op->headers;
	op->m.topic = x->params[0];
	op->m.tenant = access_tenant(x->access);
	op->m.value = value;
	op->m.qos = (uint8_t)qos;
	op->m.retain = retain;
	op->m.timestamp_ms = now;
	op->m.expires_at_ms = expires_ms < 0 ? 0 : now + expires_ms;
	x->state = op;
	x->abandoned = topic_abandoned;
	exchange_charge_in(x, value.len);
	topic_send(op);
}

void topic_publish(struct exchange *x)
{
	int64_t qos = 1, expires_ms = -1;
	bool retain = false;

	if (request_query_bool(x, "retain", &retain) != OK ||
		request_query_int(x, "qos", &qos) != OK || qos < 0 || qos > 2 ||
		request_query_msec(x, "expires", &expires_ms) != OK || expires_ms < -1 ||
		expires_ms > INT64_MAX / 2) {
		answer_error(x, 400, "invalid",
			"retain is true or false, qos 0 to 2, expires a time such as 10m");
		return;
	}
	topic_begin(x, buf_bytes(&x->body), retain, qos, expires_ms);
}

/* MQTT's way: an empty retained message. */
void topic_forget(struct exchange *x)
{
	topic_begin(x, bytes_of(NULL, 0), true, 1, -1);
}

struct retained_op {
	struct admin_retained retained;
	struct exchange *x;
	char type[TYPE_BYTES_MAX];
};

static bool printable(struct bytes b)
{
	for (size_t i = 0; i < b.len; i++)
		if (b.at[i] < 0x20 || b.at[i] > 0x7e)
			return false;
	return b.len > 0;
}

/* The type the publisher gave, if it can be a header's value. The answer needs it until it is
 * written, so it goes among the extra headers. */
static void add_type(struct exchange *x, const struct message *m)
{
	struct bytes rest = m->encoded_headers;
	int left = m->encoded_count;
	struct record_header h;
	char type[TYPE_BYTES_MAX];

	while (message_header_next(&rest, &left, &h) == OK)
		if (bytes_equal(h.name, bytes_text("content-type")) && printable(h.value) &&
			h.value.len < sizeof type) {
			memcpy(type, h.value.at, h.value.len);
			type[h.value.len] = 0;
			answer_header(x, "Content-Type", type);
			return;
		}
	answer_header(x, "Content-Type", "application/octet-stream");
}

static void retained_done(struct admin_retained *r)
{
	struct retained_op *op = list_entry(r, struct retained_op, retained);
	struct exchange *x = op->x;
	enum err e = r->err;
	char number[32];

	if (e == OK) {
		add_type(x, &r->message);
		/* Whatever it is, no browser shall take it for a page of this server. */
		answer_header(x, "Content-Security-Policy", "sandbox");
		answer_header(x, "X-Content-Type-Options", "nosniff");
		(void)snprintf(number, sizeof number, "%lld", (long long)r->offset);
		answer_header(x, "X-Offset", number);
		(void)snprintf(number, sizeof number, "%lld", (long long)r->message.timestamp_ms);
		answer_header(x, "X-Timestamp", number);
		buf_add(&x->out, r->message.value);
		exchange_charge_out(x, 1, r->message.value.len);
	}
	admin_retained_fini(r);
	mem_free(op);
	if (e == OK)
		answer(x, 200, NULL);
	else
		answer_err(x, e, e == ERR_NOTFOUND ? "no retained value on this topic" : NULL);
}

void topic_retained(struct exchange *x)
{
	struct bytes accept = request_header(x, "accept");
	struct retained_op *op;
	enum err e;

	if (bytes_equal(accept, bytes_text("text/event-stream"))) {
		answer_err(x, ERR_UNSUPPORTED, "event streams are not served yet");
		return;
	}
	op = mem_new(sizeof *op);
	op->x = x;
	op->retained.topic = x->params[0];
	op->retained.tenant = access_tenant(x->access);
	op->retained.done = retained_done;
	e = admin_retained(&op->retained, x->shard);
	if (e == OK)
		return;
	mem_free(op);
	answer_err(x, e, e == ERR_INVALID ? "no valid topic name" : NULL);
}
