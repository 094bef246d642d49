/* What is a tenant's begins with its name, whatever it is, and how many such things there are is
 * counted by those who decide changes of the catalogue (meta_limit). So a limit is a number and the
 * prefix that it is about. */
#include "server/broker/tenant_limit.h"
#include <assert.h>
#include "cluster/meta.h"
#include "server/base/mem.h"
#include "server/broker/rights_admin.h"

static const char route_prefix[] = "route.";

static_assert((int)TENANT_LIMITS_MAX == META_LIMITS_MAX, "one bound");

/* Of the default tenant nothing carries the name: a limit is about what has no slash then. */
static struct bytes prefix_of(struct bytes tenant, enum quota_what what, uint8_t *room)
{
	struct wr w = wr_over(room, TENANT_LIMIT_PREFIX_MAX);
	bool named = tenant.len > 0;
	if (what == QUOTA_USERS)
		wr_bytes(&w, bytes_of("t", 2));
	else if (what == QUOTA_RULES)
		wr_bytes(&w, bytes_of("a", 2));
	else if (what == QUOTA_ROUTES)
		wr_bytes(&w, bytes_text(route_prefix));
	wr_bytes(&w, tenant);
	if (what == QUOTA_RULES)
		wr_u8(&w, 0);
	else if (named || what == QUOTA_USERS)
		wr_u8(&w, '/');
	must(w.err == OK);
	return bytes_of(room, wr_len(&w));
}

static enum meta_limited kind_of(enum quota_what what)
{
	return what == QUOTA_STREAMS       ? LIMIT_STREAMS
		: what == QUOTA_PARTITIONS ? LIMIT_PARTITIONS
		: what == QUOTA_ROUTES     ? LIMIT_SETTINGS
					   : LIMIT_DOCS;
}

int64_t tenant_may_have(const struct catalog *c, struct bytes tenant, enum quota_what what)
{
	struct bytes name = tenant.len > 0 ? tenant : bytes_text(tenant_text(""));
	struct quota_doc q;
	if (!rights_quota(c, QUOTA_TENANT, name, &q) &&
		!rights_quota(c, QUOTA_TENANT, bytes_of("", 0), &q))
		return -1;
	return q.limit[what];
}

static int64_t streams_of(const struct catalog *c, const struct meta_limit *l)
{
	int64_t count = 0;
	for (int i = 0; i < catalog_stream_count(c); i++) {
		const struct stream *s = catalog_stream_at(c, i);
		if (meta_limited(l, bytes_text(s->name)))
			count += l->of == LIMIT_STREAMS ? 1 : s->partition_count;
	}
	return count;
}

int64_t tenant_has(const struct catalog *c, struct bytes tenant, enum quota_what what)
{
	uint8_t room[TENANT_LIMIT_PREFIX_MAX];
	struct meta_limit l = {.of = kind_of(what), .prefix = prefix_of(tenant, what, room)};
	const char *key, *value;
	int64_t count = 0;
	if (l.of == LIMIT_STREAMS || l.of == LIMIT_PARTITIONS)
		return streams_of(c, &l);
	if (l.of == LIMIT_DOCS)
		return catalog_doc_count_of(c, l.prefix);
	for (int at = 0; catalog_setting_next(c, &at, &key, &value);)
		count += meta_limited(&l, bytes_text(key));
	return count;
}

bool tenant_full(const struct catalog *c, struct bytes tenant, int64_t partitions)
{
	int64_t streams_max = tenant_may_have(c, tenant, QUOTA_STREAMS);
	int64_t partitions_max = tenant_may_have(c, tenant, QUOTA_PARTITIONS);
	if (streams_max >= 0 && tenant_has(c, tenant, QUOTA_STREAMS) >= streams_max)
		return true;
	return partitions_max >= 0 &&
		tenant_has(c, tenant, QUOTA_PARTITIONS) + partitions > partitions_max;
}

enum err tenant_limit_add(
	struct tenant_limits *l, const struct catalog *c, struct bytes tenant, enum quota_what what)
{
	uint8_t room[TENANT_LIMIT_PREFIX_MAX];
	int64_t most = c != NULL ? tenant_may_have(c, tenant, what) : -1;
	if (most < 0)
		return OK;
	struct bytes prefix = prefix_of(tenant, what, room);
	for (int i = 0; i < l->count; i++)
		if (l->at[i].of == kind_of(what) && bytes_equal(l->at[i].prefix, prefix))
			return OK;
	if (l->count == TENANT_LIMITS_MAX)
		return ERR_TOOBIG;
	memcpy(l->prefixes[l->count], prefix.at, prefix.len);
	l->at[l->count] = (struct meta_limit){.of = kind_of(what),
		.prefix = bytes_of(l->prefixes[l->count], prefix.len),
		.what = bytes_text(quota_word(what)),
		.most = most};
	l->count++;
	return OK;
}

void tenant_limits_of(struct tenant_limits *l, const struct catalog *c, const struct meta_op *op)
{
	struct bytes tenant, bare;
	bool fits = true;
	if (op->kind == META_CREATE_STREAM || op->kind == META_ADD_PARTITIONS) {
		tenant_stream_split(bytes_text(op->name), &tenant, &bare);
		if (op->kind == META_CREATE_STREAM)
			fits = tenant_limit_add(l, c, tenant, QUOTA_STREAMS) == OK;
		fits = fits && tenant_limit_add(l, c, tenant, QUOTA_PARTITIONS) == OK;
	}
	for (int i = 0; op->kind == META_SET && i < op->setting_count; i++) {
		const char *key = op->settings[i].key;
		if (strncmp(key, route_prefix, sizeof route_prefix - 1) != 0)
			continue;
		tenant_stream_split(bytes_text(key + sizeof route_prefix - 1), &tenant, &bare);
		fits = fits && tenant_limit_add(l, c, tenant, QUOTA_ROUTES) == OK;
	}
	must(fits); /* a change is of one tenant */
}
