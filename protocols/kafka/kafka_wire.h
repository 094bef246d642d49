/* Kafka's messages as C structs and as bytes, in every version of kafka_schema.txt, from which
 * the structs and the tables that drive this codec are made (kafka_schema.h, at build time).
 *
 *	struct kafka_header h;                           the frame without its length
 *	e = kafka_header_read(frame, &h);                what is asked, and where the body is
 *	struct kafka_metadata_req req;
 *	e = kafka_decode(h.api, h.version, true, h.body, &arena, &req);
 *	struct kafka_metadata_res res = kafka_metadata_res_init;
 *	res.brokers = kafka_array(&arena, &kafka_metadata_res_broker_type, res.brokers_count = 1);
 *	e = kafka_response_encode(&h, &res, &out);       length, header and body
 *	kafka_out_each(&out, conn_send_slice, conn);
 *
 * A null string, array or records has a NULL address; an empty one has not. Where null is not
 * allowed NULL is written as empty. Stateless; any thread. */
#ifndef KAFKA_WIRE_H
#define KAFKA_WIRE_H
#include "protocols/kafka/kafka_arena.h"
#include "server/base/buf.h"

struct kafka_uuid {
	uint8_t bytes[16];
};

struct kafka_records {              /* record batches, which the codec does not look into */
	struct bytes bytes;         /* decoded: a view of the input; to encode: copied */
	const struct slice *slices; /* to encode instead of bytes, in order, by reference */
	uint32_t slices_count;
};

/* The tables. */
enum kafka_type {
	KAFKA_BOOL,
	KAFKA_I8,
	KAFKA_I16,
	KAFKA_U16,
	KAFKA_I32,
	KAFKA_I64,
	KAFKA_F64,
	KAFKA_UUID,
	KAFKA_STRING,
	KAFKA_BYTES,
	KAFKA_RECORDS,
	KAFKA_STRUCT
};

struct kafka_field {
	const char *name;
	const struct kafka_struct *of; /* KAFKA_STRUCT: its own fields */
	uint16_t at;                   /* the value, or an array's address, in the C struct */
	uint16_t count_at;             /* an array's count */
	uint8_t type;                  /* enum kafka_type, of an array's elements */
	uint8_t array;
	uint8_t must;    /* refuse to drop it */
	int8_t from, to; /* the versions that have it */
	int8_t null_from, null_to;
	int8_t tag; /* -1: not tagged */
};

struct kafka_struct {
	const char *name;
	const struct kafka_field *fields; /* in the order of the wire, tagged ones last, by tag */
	const void *initial;              /* a C struct in which all fields have their defaults */
	const uint16_t *least;            /* by version: the fewest bytes it takes on the wire */
	uint16_t size;                    /* of the C struct */
	uint8_t plain;                    /* fields before the tagged ones */
	uint8_t count;
};

struct kafka_api {
	const char *name;
	int16_t key;        /* -1: bytes inside other messages */
	int8_t first, last; /* versions described; the adapter may serve fewer */
	int8_t flex;        /* the first with compact lengths and tagged fields */
	const struct kafka_struct *request, *response; /* response: NULL when key is -1 */
};

extern const struct kafka_api *const kafka_apis[]; /* all, by key */
extern const int kafka_apis_count;
extern const struct kafka_api *const kafka_apis_by_key[]; /* with NULL in the gaps */
extern const int kafka_keys_end;
extern const uint8_t kafka_empty[16]; /* the address of what is empty and not null */

const struct kafka_api *kafka_api_find(int key); /* NULL: not described */
static inline bool kafka_api_has(const struct kafka_api *api, int version)
{
	return version >= api->first && version <= api->last;
}

struct kafka_header {
	int16_t key, version;
	int32_t correlation;
	struct bytes client_id; /* may be null */
	const struct kafka_api *api;
	struct bytes body;
};

/* Reads a request frame (what follows its length) up to the body; borrows it. ERR_UNSUPPORTED: a
 * key or version that is not described; then key, version and correlation are set, api too if
 * the key is known, client_id and body are not. ERR_MALFORMED. */
enum err kafka_header_read(struct bytes frame, struct kafka_header *out) MUST_USE;

/* Reads a whole body into out, the C struct of this api and direction. Strings and records are
 * views of in; arrays are in the arena until its reset. ERR_MALFORMED, ERR_UNSUPPORTED (version),
 * ERR_TOOBIG (arena), ERR_NOMEM. */
enum err kafka_decode(const struct kafka_api *api, int version, bool request, struct bytes in,
	struct arena *arena, void *out) MUST_USE;

/* Appends a body to out, records copied. A failure leaves out as it was, but for out->err.
 * ERR_UNSUPPORTED (version), ERR_INVALID (a field marked ! that this version lacks), ERR_TOOBIG
 * (out's bound, or a string longer than its length field can say), ERR_NOMEM. */
enum err kafka_encode(const struct kafka_api *api, int version, bool request, const void *in,
	struct buf *out) MUST_USE;

/* count elements, each with its defaults; NULL with arena->err. count may be 0. */
void *kafka_array(struct arena *arena, const struct kafka_struct *type, uint32_t count);

/* Frames to be sent: bytes of our own and, in between, slices that are sent where they lie. */
struct kafka_cut;
struct kafka_out {
	struct buf buf;         /* our own bytes */
	struct kafka_cut *cuts; /* where slices go between them */
	uint32_t count, room;   /* of cuts */
	size_t slice_bytes;
};

void kafka_out_init(struct kafka_out *o, size_t own_bytes_max);
void kafka_out_fini(struct kafka_out *o);
void kafka_out_clear(struct kafka_out *o); /* to be used again; keeps little memory */
static inline size_t kafka_out_len(const struct kafka_out *o)
{
	return buf_len(&o->buf) + o->slice_bytes;
}
/* Appends a frame: length, response header, body. The arrays of slices in records are borrowed
 * until kafka_out_each, kafka_out_clear or kafka_out_fini. Fails like kafka_encode. */
enum err kafka_response_encode(
	const struct kafka_header *h, const void *in, struct kafka_out *o) MUST_USE;
/* Gives all of it to emit, in order, one share for each slice; o is empty afterwards. */
void kafka_out_each(struct kafka_out *o, void (*emit)(void *arg, struct slice s), void *arg);

/* The client's side (tools, tests): appends a request frame with its length; h's key and body
 * are not looked at. Reads a response frame (without its length) up to the body. */
enum err kafka_request_encode(
	const struct kafka_header *h, const void *in, struct kafka_out *o) MUST_USE;
enum err kafka_response_read(const struct kafka_api *api, int version, struct bytes frame,
	int32_t *correlation, struct bytes *body) MUST_USE;

#endif
