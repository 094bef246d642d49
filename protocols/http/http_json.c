/* Reading goes through cJSON, which bounds nesting; what is not an object is no request. Nor is one
 * with a NUL in a text: cJSON's texts would end there, a password or a rule's name unnoticed. */
#include "protocols/http/http_json.h"
#include <math.h>

static bool holds_nul(struct bytes body)
{
	for (size_t i = 0; i + 1 < body.len; i++) {
		if (body.at[i] != '\\')
			continue;
		i++; /* what is escaped */
		if (body.len - i >= 5 && memcmp(body.at + i, "u0000", 5) == 0)
			return true;
	}
	return false;
}

cJSON *json_read(struct bytes body)
{
	const char *end = NULL;
	const char *last = (const char *)body.at + body.len;
	cJSON *o;

	if (body.len == 0 || !bytes_utf8(body) || holds_nul(body))
		return NULL;
	o = cJSON_ParseWithLengthOpts((const char *)body.at, body.len, &end, false);
	while (o != NULL && end < last && strchr(" \t\r\n", *end) != NULL && *end != 0)
		end++;
	if (o != NULL && (end != last || !cJSON_IsObject(o))) {
		cJSON_Delete(o);
		return NULL;
	}
	return o;
}

enum err json_get_text(const cJSON *o, const char *name, const char **out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	if (v == NULL || cJSON_IsNull(v))
		return OK;
	if (!cJSON_IsString(v))
		return ERR_INVALID;
	*out = v->valuestring;
	return OK;
}

enum err json_get_int(const cJSON *o, const char *name, int64_t *out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	if (v == NULL || cJSON_IsNull(v))
		return OK;
	if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) ||
		fabs(v->valuedouble) > 9007199254740992.0)
		return ERR_INVALID;
	*out = (int64_t)v->valuedouble;
	return OK;
}

enum err json_get_bool(const cJSON *o, const char *name, bool *out)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	if (v == NULL || cJSON_IsNull(v))
		return OK;
	if (!cJSON_IsBool(v))
		return ERR_INVALID;
	*out = cJSON_IsTrue(v);
	return OK;
}
