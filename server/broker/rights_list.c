/* What documents there are, in order. Those of a tenant are found without looking at the others:
 * rules begin with the tenant, and for users there is an index of documents without a value,
 *
 *	t NUL TENANT '/' NAME
 *
 * written together with the user's own. Its slash makes tenants come in the same order as in the
 * names of streams. What can't be read is passed over. */
#include "server/broker/rights_priv.h"

enum { PREFIX_MAX = CATALOG_DOC_KEY_MAX + 1 };

static bool starts(struct bytes key, struct bytes with)
{
	return key.len >= with.len && memcmp(key.at, with.at, with.len) == 0;
}

/* Steps to the next document that begins with prefix. */
static const struct catalog_doc *next_doc(const struct catalog *c, int *at, struct bytes prefix)
{
	int first = catalog_doc_seek(c, prefix);
	if (*at < first)
		*at = first;
	if (*at >= catalog_doc_count(c))
		return NULL;
	const struct catalog_doc *d = catalog_doc_at(c, *at);
	if (!starts(d->key, prefix))
		return NULL;
	++*at;
	return d;
}

/* --- users */

void rights_index_key(struct bytes tenant, struct bytes name, struct buf *out)
{
	buf_add(out, bytes_of("t", 2));
	buf_add(out, tenant);
	buf_add_u8(out, '/');
	buf_add(out, name);
}

bool rights_user(const struct catalog *c, struct bytes name, struct user_doc *out)
{
	uint8_t key[2 + USER_NAME_MAX] = "u";
	if (name.len == 0 || name.len > USER_NAME_MAX)
		return false;
	memcpy(key + 2, name.at, name.len);
	const struct catalog_doc *d = catalog_doc(c, bytes_of(key, 2 + name.len));
	return d != NULL && user_read(d->key, d->value, out) == OK;
}

static bool user_of_tenant(
	const struct catalog *c, int *at, struct bytes tenant, struct user_doc *out)
{
	const struct catalog_doc *d;
	struct buf b;
	bool found = false;
	buf_init(&b, PREFIX_MAX);
	rights_index_key(tenant, bytes_of("", 0), &b);
	struct bytes prefix = buf_bytes(&b);
	while (!found && (d = next_doc(c, at, prefix)) != NULL)
		found = rights_user(
			c, bytes_of(d->key.at + prefix.len, d->key.len - prefix.len), out);
	buf_fini(&b);
	return found;
}

bool rights_user_next(
	const struct catalog *c, int *at, const struct bytes *tenant, struct user_doc *out)
{
	const struct catalog_doc *d;
	if (tenant != NULL)
		return user_of_tenant(c, at, *tenant, out);
	while ((d = next_doc(c, at, bytes_of("u", 2))) != NULL)
		if (user_read(d->key, d->value, out) == OK)
			return true;
	return false;
}

bool rights_any_user(const struct catalog *c)
{
	int at = 0;
	return next_doc(c, &at, bytes_of("u", 2)) != NULL;
}

/* --- rules */

bool rights_rule_next(
	const struct catalog *c, int *at, const struct bytes *tenant, struct rule *out)
{
	const struct catalog_doc *d;
	struct buf b;
	bool found = false;
	buf_init(&b, PREFIX_MAX);
	buf_add(&b, bytes_of("a", 2));
	if (tenant != NULL) {
		buf_add(&b, *tenant);
		buf_add_u8(&b, 0);
	}
	while (!found && (d = next_doc(c, at, buf_bytes(&b))) != NULL)
		found = rule_read(d->key, out) == OK;
	buf_fini(&b);
	return found;
}

/* --- quotas */

bool rights_quota_next(const struct catalog *c, int *at, struct quota_doc *out)
{
	const struct catalog_doc *d;
	while ((d = next_doc(c, at, bytes_of("q", 2))) != NULL)
		if (quota_read(d->key, d->value, out) == OK)
			return true;
	return false;
}

bool rights_quota(
	const struct catalog *c, enum quota_kind kind, struct bytes name, struct quota_doc *out)
{
	struct buf key;
	if (name.len > USER_NAME_MAX)
		return false;
	buf_init(&key, PREFIX_MAX);
	quota_key(kind, name, &key);
	const struct catalog_doc *d = catalog_doc(c, buf_bytes(&key));
	buf_fini(&key);
	return d != NULL && quota_read(d->key, d->value, out) == OK;
}

/* --- tenants */

/* The first stream whose name is not before text. */
static int stream_seek(const struct catalog *c, struct bytes text)
{
	int low = 0, high = catalog_stream_count(c);
	while (low < high) {
		int mid = low + (high - low) / 2;
		if (bytes_compare(bytes_text(catalog_stream_at(c, mid)->name), text) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* What is before the first slash; false: there is none. */
static bool before_slash(struct bytes text, struct bytes *out)
{
	const uint8_t *slash = text.len > 0 ? memchr(text.at, '/', text.len) : NULL;
	if (slash == NULL)
		return false;
	*out = bytes_of(text.at, (size_t)(slash - text.at));
	return true;
}

/* Beyond all names that begin with the tenant's, in streams and in the index. */
static void beyond(struct bytes tenant, const char *kind, size_t kind_len, struct buf *out)
{
	buf_add(out, bytes_of(kind, kind_len));
	buf_add(out, tenant);
	buf_add_u8(out, '/' + 1);
}

static bool user_tenant_after(const struct catalog *c, struct bytes last, struct bytes *out)
{
	struct bytes kind = bytes_of("t", 2);
	struct buf b;
	buf_init(&b, PREFIX_MAX);
	beyond(last, "t", 2, &b);
	int at = catalog_doc_seek(c, buf_bytes(&b));
	buf_fini(&b);
	if (at >= catalog_doc_count(c))
		return false;
	struct bytes key = catalog_doc_at(c, at)->key;
	return starts(key, kind) && before_slash(bytes_of(key.at + 2, key.len - 2), out);
}

static bool stream_tenant_after(const struct catalog *c, struct bytes last, struct bytes *out)
{
	struct buf b;
	buf_init(&b, PREFIX_MAX);
	if (last.len > 0)
		beyond(last, "", 0, &b);
	int at = stream_seek(c, buf_bytes(&b));
	buf_fini(&b);
	for (; at < catalog_stream_count(c); at++)
		if (before_slash(bytes_text(catalog_stream_at(c, at)->name), out))
			return true;
	return false;
}

/* Whether a comes before b with a slash behind both. */
static bool tenant_before(struct bytes a, struct bytes b)
{
	size_t len = a.len < b.len ? a.len : b.len;
	int order = len > 0 ? memcmp(a.at, b.at, len) : 0;
	if (order != 0 || a.len == b.len)
		return order < 0;
	return a.len < b.len ? '/' < b.at[len] : a.at[len] < '/';
}

bool rights_tenant_next(const struct catalog *c, int *at, struct bytes *out)
{
	struct bytes last = *out, user, stream;
	if ((*at)++ == 0) {
		*out = bytes_of("", 0);
		return true;
	}
	bool by_user = user_tenant_after(c, last, &user);
	bool by_stream = stream_tenant_after(c, last, &stream);
	if (by_user && (!by_stream || tenant_before(user, stream)))
		*out = user;
	else if (by_stream)
		*out = stream;
	return by_user || by_stream;
}

bool rights_tenant_exists(const struct catalog *c, struct bytes tenant)
{
	struct buf b;
	int at = 0;
	if (tenant.len == 0)
		return true;
	buf_init(&b, PREFIX_MAX);
	rights_index_key(tenant, bytes_of("", 0), &b);
	bool found = next_doc(c, &at, buf_bytes(&b)) != NULL;
	if (!found) {
		buf_clear(&b);
		buf_add(&b, tenant);
		buf_add_u8(&b, '/');
		at = stream_seek(c, buf_bytes(&b));
		found = at < catalog_stream_count(c) &&
			starts(bytes_text(catalog_stream_at(c, at)->name), buf_bytes(&b));
	}
	buf_fini(&b);
	return found;
}
