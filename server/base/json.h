/* JSON out: an emitter over a buf that puts commas, escapes text and never holds a tree. Pure; any
 * thread. */
#ifndef BASE_JSON_H
#define BASE_JSON_H
#include "server/base/buf.h"

struct json { /* one document being written; depth is ours, not a peer's */
	struct buf *out;
	bool comma; /* the next value or name needs one before it */
};

static inline struct json json_over(struct buf *out)
{
	return (struct json){out, false};
}
/* name NULL: an element of an array, or the document itself. */
void json_open(struct json *j, const char *name, char bracket); /* '{' or '[' */
void json_close(struct json *j, char bracket);                  /* '}' or ']' */
void json_text(struct json *j, const char *name, const char *text);
/* As text if it is UTF-8; the caller has asked bytes_utf8, else bad bytes become '?'. */
void json_bytes(struct json *j, const char *name, struct bytes text);
void json_base64(struct json *j, const char *name, struct bytes data);
void json_int(struct json *j, const char *name, int64_t v);
void json_real(struct json *j, const char *name, double v);
void json_bool(struct json *j, const char *name, bool v);
void json_null(struct json *j, const char *name);

#endif
