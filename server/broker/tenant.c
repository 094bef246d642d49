/* Names inside are made of parts that cannot hold what stands between them: a stream's name has no
 * slash, a client's id no NUL, a tenant's name neither. So no name of one tenant, however it is
 * chosen, is that of another one's. */
#include "server/broker/tenant.h"
#include <assert.h>
#include "cluster/meta.h"

static const char default_name[] = "default";

static_assert((int)TENANT_NAME_MAX == META_TENANT_MAX, "one bound");
static_assert((int)STREAM_NAME_MAX == META_BARE_NAME_MAX, "one bound");

bool tenant_name_valid(struct bytes name)
{
	return meta_tenant_valid(name);
}

enum err tenant_read(struct bytes text, struct bytes *out)
{
	*out = bytes_of("", 0);
	if (text.len == 0 || bytes_equal(text, bytes_text(default_name)))
		return OK;
	if (!tenant_name_valid(text))
		return ERR_INVALID;
	*out = text;
	return OK;
}

const char *tenant_text(const char *tenant)
{
	return *tenant == 0 ? default_name : tenant;
}

bool stream_name_valid(struct bytes name)
{
	return meta_bare_name_valid(name);
}

bool stream_name_internal(struct bytes name)
{
	return name.len >= 2 && name.at[0] == '_' && name.at[1] == '_';
}

enum err tenant_stream(struct bytes tenant, struct bytes name, struct tenant_stream *out)
{
	out->len = 0;
	out->text[0] = 0;
	if (!stream_name_valid(name) || (tenant.len > 0 && !tenant_name_valid(tenant)))
		return ERR_INVALID;
	if (tenant.len > 0) {
		memcpy(out->text, tenant.at, tenant.len);
		out->text[tenant.len] = '/';
		out->len = tenant.len + 1;
	}
	memcpy(out->text + out->len, name.at, name.len);
	out->len += name.len;
	out->text[out->len] = 0;
	return OK;
}

void tenant_stream_split(struct bytes full, struct bytes *tenant, struct bytes *name)
{
	const uint8_t *slash = full.len > 0 ? memchr(full.at, '/', full.len) : NULL;
	size_t len = slash != NULL ? (size_t)(slash - full.at) : 0;
	*tenant = bytes_of(full.at, len);
	*name = slash != NULL ? bytes_of(slash + 1, full.len - len - 1) : full;
}

struct bytes tenant_id(struct bytes tenant, struct bytes id, uint8_t *out)
{
	if (tenant.len == 0)
		return id;
	out[0] = 0;
	memcpy(out + 1, tenant.at, tenant.len);
	out[tenant.len + 1] = 0;
	if (id.len > 0)
		memcpy(out + tenant.len + 2, id.at, id.len);
	return bytes_of(out, tenant.len + 2 + id.len);
}

void tenant_id_split(struct bytes full, struct bytes *tenant, struct bytes *id)
{
	const uint8_t *end = NULL;
	*tenant = bytes_of("", 0);
	*id = full;
	if (full.len > 2 && full.at[0] == 0)
		end = memchr(full.at + 1, 0, full.len - 1);
	if (end == NULL)
		return;
	size_t len = (size_t)(end - full.at) - 1;
	*tenant = bytes_of(full.at + 1, len);
	*id = bytes_of(end + 1, full.len - len - 2);
}
