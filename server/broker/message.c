/* A QoS 0 message without properties is a key and a value: no headers are written and none are
 * looked for. All else that MQTT knows of a message goes to reserved headers, which nobody else can
 * set: names that are fields of the struct are left out of forwarded ones and out of what is read
 * back as other headers. */
#include "server/broker/message.h"
#include <stdio.h>
#include "server/broker/topic.h"

enum field { FIELD_NONE, FIELD_QOS, FIELD_RETAIN, FIELD_TOPIC, FIELD_EXPIRY, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = {
	[FIELD_QOS] = "mqtt.qos",
	[FIELD_RETAIN] = "mqtt.retain",
	[FIELD_TOPIC] = "mqtt.topic",
	[FIELD_EXPIRY] = "expires-at",
};

static enum field field_of(struct bytes name)
{
	if (name.len < 8 || name.len > 11)
		return FIELD_NONE;
	for (int f = FIELD_NONE + 1; f < FIELD_COUNT; f++)
		if (bytes_equal(name, bytes_text(field_names[f])))
			return (enum field)f;
	return FIELD_NONE;
}

struct fields { /* the headers of one record while it is encoded */
	struct record_header at[MESSAGE_HEADERS_MAX + FIELD_COUNT];
	int count;
	char expiry[24];
};

static void fields_add(struct fields *f, enum field name, struct bytes value)
{
	f->at[f->count++] = (struct record_header){bytes_text(field_names[name]), value, false};
}

static enum err fields_fill(struct fields *f, const struct message *m, bool other_key)
{
	f->count = 0;
	if (m->header_count < 0 || m->header_count > MESSAGE_HEADERS_MAX)
		return ERR_TOOBIG;
	if (m->qos > 0)
		fields_add(f, FIELD_QOS, bytes_text(m->qos == 1 ? "1" : "2"));
	if (m->retain)
		fields_add(f, FIELD_RETAIN, bytes_text("1"));
	if (other_key)
		fields_add(f, FIELD_TOPIC, m->topic);
	if (m->expires_at_ms != 0) {
		int n = snprintf(f->expiry, sizeof f->expiry, "%lld", (long long)m->expires_at_ms);
		fields_add(f, FIELD_EXPIRY, bytes_of(f->expiry, (size_t)n));
	}
	for (int i = 0; i < m->header_count; i++)
		if (field_of(m->headers[i].name) == FIELD_NONE)
			f->at[f->count++] = m->headers[i];
	return OK;
}

/* Out of line: the fields are 40 KB of stack that the plain message need not touch. */
static __attribute__((noinline)) enum err encode_fields(const struct message *m,
	const struct bytes *key, const struct bytes *value, bool other_key,
	struct batch_builder *out)
{
	struct fields f;
	enum err e = fields_fill(&f, m, other_key);
	if (e != OK)
		return e;
	return batch_builder_add(out, m->timestamp_ms, key, value, f.at, f.count);
}

enum err message_encode(const struct message *m, struct batch_builder *out)
{
	const struct bytes *key = m->has_key ? &m->key : m->topic.len > 0 ? &m->topic : NULL;
	bool other_key = m->has_key && m->topic.len > 0 && !bytes_equal(m->key, m->topic);
	/* What deletes a retained message is a tombstone: compaction leaves nothing of the topic.
	 */
	bool null_value = m->null_value || (m->retain && m->value.len == 0);
	const struct bytes *value = null_value ? NULL : &m->value;
	if (m->qos == 0 && !m->retain && !other_key && m->expires_at_ms == 0 &&
		m->header_count == 0)
		return batch_builder_add(out, m->timestamp_ms, key, value, NULL, 0);
	return encode_fields(m, key, value, other_key, out);
}

/* A decimal number of milliseconds; what isn't one means never. */
static int64_t expiry_of(struct bytes text)
{
	int64_t v = 0;
	if (text.len == 0 || text.len > 18)
		return 0;
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] < '0' || text.at[i] > '9')
			return 0;
		v = v * 10 + (text.at[i] - '0');
	}
	return v;
}

static void decode_fields(const struct record *r, struct message *out, struct bytes *topic)
{
	struct bytes rest = r->headers;
	for (int32_t i = 0; i < r->header_count; i++) {
		struct record_header h;
		if (record_header_next(&rest, &h) != OK)
			return;
		switch (field_of(h.name)) {
		case FIELD_QOS:
			if (h.value.len == 1 && (h.value.at[0] == '1' || h.value.at[0] == '2'))
				out->qos = (uint8_t)(h.value.at[0] - '0');
			break;
		case FIELD_RETAIN: out->retain = h.value.len > 0 && h.value.at[0] == '1'; break;
		case FIELD_TOPIC:
			if (topic_name_valid(h.value))
				*topic = h.value;
			break;
		case FIELD_EXPIRY: out->expires_at_ms = expiry_of(h.value); break;
		case FIELD_NONE:
		case FIELD_COUNT: break;
		}
	}
}

void message_decode(const struct record *r, struct bytes stream, struct message *out)
{
	struct bytes topic = bytes_of(NULL, 0);
	*out = (struct message){
		.key = r->key,
		.has_key = !r->null_key,
		.value = r->value,
		.null_value = r->null_value,
		.timestamp_ms = r->timestamp_ms,
		.encoded_headers = r->headers,
		.encoded_count = r->header_count,
	};
	if (r->header_count > 0)
		decode_fields(r, out, &topic);
	if (topic.len == 0)
		topic = !r->null_key && topic_name_valid(r->key) ? r->key : stream;
	out->topic = topic;
}

enum err message_header_next(struct bytes *rest, int *left, struct record_header *out)
{
	while (*left > 0) {
		if (record_header_next(rest, out) != OK)
			*left = 0;
		else if (--*left, field_of(out->name) == FIELD_NONE)
			return OK;
	}
	return ERR_NOTFOUND;
}
