/* JSON in: cJSON, read through a few functions that check kinds; out: server/base/json.h. Pure; any
 * thread. */
#ifndef HTTP_JSON_H
#define HTTP_JSON_H
#include <cjson/cJSON.h>
#include "server/base/json.h"

/* Reads a whole document: an object. NULL: malformed. Free with cJSON_Delete. */
cJSON *json_read(struct bytes body);
/* A member of a kind. *out stays as it is when the member is missing. ERR_INVALID: another kind. */
enum err json_get_text(const cJSON *o, const char *name, const char **out) MUST_USE;
enum err json_get_int(const cJSON *o, const char *name, int64_t *out) MUST_USE;
enum err json_get_bool(const cJSON *o, const char *name, bool *out) MUST_USE;

#endif
