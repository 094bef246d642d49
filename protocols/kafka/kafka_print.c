/* The same walk as the encoder's, with names and text instead of lengths and bytes. */
#include "protocols/kafka/kafka_print.h"

static void print_struct(
	struct buf *out, int version, const struct kafka_struct *s, const uint8_t *in);

static void print_text(struct buf *out, struct bytes b)
{
	buf_add_u8(out, '"');
	for (size_t i = 0; i < b.len; i++) {
		if (b.at[i] < ' ' || b.at[i] > '~' || b.at[i] == '"' || b.at[i] == '\\')
			buf_addf(out, "\\x%02x", b.at[i]);
		else
			buf_add_u8(out, b.at[i]);
	}
	buf_add_u8(out, '"');
}

static void print_digits(struct buf *out, struct bytes b)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < b.len && out->err == OK; i++) {
		buf_add_u8(out, (uint8_t)digits[b.at[i] >> 4]);
		buf_add_u8(out, (uint8_t)digits[b.at[i] & 15]);
	}
}

static void print_hex(struct buf *out, struct bytes b)
{
	buf_add_u8(out, 'x');
	print_digits(out, b);
}

static void print_records(struct buf *out, const struct kafka_records *r)
{
	buf_add_u8(out, 'x');
	if (!r->slices)
		print_digits(out, r->bytes);
	for (uint32_t i = 0; r->slices && i < r->slices_count; i++)
		print_digits(out, r->slices[i].bytes);
}

static bool may_be_null(const struct kafka_field *f, int version)
{
	return version >= f->null_from && version <= f->null_to;
}

/* Strings, bytes and records begin with the struct bytes that says whether they are null. */
static bool print_null(struct buf *out, const struct kafka_field *f, const void *in)
{
	if (f->type != KAFKA_STRING && f->type != KAFKA_BYTES && f->type != KAFKA_RECORDS)
		return false;
	if (((const struct bytes *)in)->at)
		return false;
	if (f->type == KAFKA_RECORDS && ((const struct kafka_records *)in)->slices)
		return false;
	buf_add_text(out, "null");
	return true;
}

static void print_value(struct buf *out, int version, const struct kafka_field *f, const void *in)
{
	if (!f->array && may_be_null(f, version) && print_null(out, f, in))
		return;
	switch ((enum kafka_type)f->type) {
	case KAFKA_BOOL: buf_add_text(out, *(const bool *)in ? "true" : "false"); break;
	case KAFKA_I8: buf_addf(out, "%d", *(const int8_t *)in); break;
	case KAFKA_I16: buf_addf(out, "%d", *(const int16_t *)in); break;
	case KAFKA_U16: buf_addf(out, "%u", *(const uint16_t *)in); break;
	case KAFKA_I32: buf_addf(out, "%ld", (long)*(const int32_t *)in); break;
	case KAFKA_I64: buf_addf(out, "%lld", (long long)*(const int64_t *)in); break;
	case KAFKA_F64: buf_addf(out, "%.17g", *(const double *)in); break;
	case KAFKA_UUID: print_hex(out, bytes_of(in, sizeof(struct kafka_uuid))); break;
	case KAFKA_STRING: print_text(out, *(const struct bytes *)in); break;
	case KAFKA_BYTES: print_hex(out, *(const struct bytes *)in); break;
	case KAFKA_RECORDS: print_records(out, in); break;
	case KAFKA_STRUCT: print_struct(out, version, f->of, in); break;
	}
}

static size_t element_size(const struct kafka_field *f)
{
	switch ((enum kafka_type)f->type) {
	case KAFKA_BOOL:
	case KAFKA_I8: return 1;
	case KAFKA_I16:
	case KAFKA_U16: return 2;
	case KAFKA_I32: return 4;
	case KAFKA_I64:
	case KAFKA_F64: return 8;
	case KAFKA_UUID: return sizeof(struct kafka_uuid);
	case KAFKA_STRING:
	case KAFKA_BYTES: return sizeof(struct bytes);
	case KAFKA_RECORDS: return sizeof(struct kafka_records);
	case KAFKA_STRUCT: return f->of->size;
	}
	return 0;
}

static void print_array(
	struct buf *out, int version, const struct kafka_field *f, const uint8_t *in)
{
	const uint8_t *items;
	uint32_t count;
	memcpy(&items, in + f->at, sizeof items);
	memcpy(&count, in + f->count_at, sizeof count);
	if (!items && may_be_null(f, version)) {
		buf_add_text(out, "null");
		return;
	}
	buf_add_u8(out, '[');
	for (uint32_t i = 0; i < count && out->err == OK; i++) {
		if (i)
			buf_add_u8(out, ',');
		print_value(out, version, f, items + i * element_size(f));
	}
	buf_add_u8(out, ']');
}

static void print_struct(
	struct buf *out, int version, const struct kafka_struct *s, const uint8_t *in)
{
	const char *between = "{";
	for (uint32_t i = 0; i < s->count; i++) {
		const struct kafka_field *f = &s->fields[i];
		if (version < f->from || version > f->to)
			continue;
		buf_addf(out, "%s%s=", between, f->name);
		between = ",";
		if (f->array)
			print_array(out, version, f, in);
		else
			print_value(out, version, f, in + f->at);
	}
	buf_add_text(out, *between == '{' ? "{}" : "}");
}

void kafka_print(const struct kafka_api *api, int version, bool request, const void *message,
	struct buf *out)
{
	print_struct(out, version, request ? api->request : api->response, message);
}
