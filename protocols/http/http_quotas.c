/* Quotas: limits of a user or tenant, or with the name * of all that have none of their own. */
#include "protocols/http/http_priv.h"
#include "server/base/conf.h"
#include "server/base/mem.h"

static const char fields[] = "bytes-in bytes-out messages-in messages-out connections streams "
			     "partitions users rules routes";

static const char *kind_word(enum quota_kind k)
{
	return k == QUOTA_TENANT ? "tenant" : "user";
}

static void add_quota(struct json *j, const struct quota_doc *q)
{
	json_open(j, NULL, '{');
	json_text(j, "kind", kind_word(q->kind));
	json_bytes(j, "name", q->name.len > 0 ? q->name : bytes_text("*"));
	for (int w = 0; w < QUOTA_WHATS; w++)
		if (q->limit[w] >= 0)
			json_int(j, quota_word((enum quota_what)w), q->limit[w]);
	json_close(j, '}');
}

/* Of its own tenant, and what holds for all. */
static bool quota_seen(struct exchange *x, const struct catalog *c, const struct quota_doc *q)
{
	struct bytes tenant = access_tenant(x->access);
	struct user_doc u;

	if ((access_cluster_admin(x->access) && !x->tenant_asked) || q->name.len == 0)
		return true;
	if (q->kind == QUOTA_USER)
		return rights_user(c, q->name, &u) && bytes_equal(u.tenant, tenant);
	return bytes_equal(q->name, tenant.len > 0 ? tenant : bytes_text(tenant_text("")));
}

void api_quotas(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct json j = json_over(&x->out);
	struct quota_doc q;

	if (c == NULL)
		return;
	json_open(&j, NULL, '{');
	json_open(&j, "quotas", '[');
	for (int at = 0; rights_quota_next(c, &at, &q);)
		if (quota_seen(x, c, &q))
			add_quota(&j, &q);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

/* ---- changing */

static void quota_changed(struct rights_change *c)
{
	struct rights_op *op = list_entry(c, struct rights_op, change);
	struct json j = json_over(&op->x->out);
	const struct quota_doc *asked = &c->quota;
	struct quota_doc q;

	if (rights_op_over(op))
		return;
	if (rights_quota(shard_catalog(op->x->shard), asked->kind, asked->name, &q)) {
		add_quota(&j, &q);
		answer_json(op->x, 200);
	} else {
		answer_empty(op->x, 204);
	}
	rights_op_free(op);
}

/* A number, or bytes as the configuration writes them. */
static bool limit_read(const cJSON *v, int64_t *out)
{
	if (cJSON_IsNull(v)) {
		*out = -1;
		return true;
	}
	if (cJSON_IsString(v))
		return conf_parse_bytes(v->valuestring, out) == OK && *out >= 0;
	if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > 9007199254740992.0)
		return false;
	*out = (int64_t)v->valuedouble;
	return (double)*out == v->valuedouble;
}

static bool limits_read(const cJSON *o, struct quota_doc *q)
{
	const cJSON *v;

	cJSON_ArrayForEach(v, o)
	{
		enum quota_what w;
		if (!quota_of(bytes_text(v->string), &w) || !limit_read(v, &q->limit[w]))
			return false;
	}
	return true;
}

static void change(struct exchange *x, bool merge, cJSON *o)
{
	const struct catalog *c = exchange_catalog(x);
	struct rights_op *op = c == NULL ? NULL : rights_op_new(x, QUOTA_SET, o);
	struct quota_doc *q;

	if (op == NULL) {
		if (c == NULL)
			cJSON_Delete(o);
		return;
	}
	q = &op->change.quota;
	q->name = bytes_equal(x->params[1], bytes_text("*")) ? bytes_of("", 0) : x->params[1];
	q->kind = bytes_equal(x->params[0], bytes_text("tenant")) ? QUOTA_TENANT : QUOTA_USER;
	for (int w = 0; w < QUOTA_WHATS; w++)
		q->limit[w] = merge ? QUOTA_AS_IS : -1;
	if (q->kind == QUOTA_USER && !bytes_equal(x->params[0], bytes_text("user"))) {
		answer_error(x, 404, "not_found", "quotas are of a user or a tenant");
		rights_op_free(op);
	} else if (!limits_read(op->json, q)) {
		answer_error(x, 400, "invalid",
			"a limit is a whole number, a text such as 10MiB, or null");
		rights_op_free(op);
	} else {
		rights_op_start(op, quota_changed);
	}
}

static void change_by_body(struct exchange *x, bool merge)
{
	cJSON *o = exchange_json(x, fields);

	if (o != NULL)
		change(x, merge, o);
}

void api_quota_set(struct exchange *x)
{
	change_by_body(x, false);
}

void api_quota_alter(struct exchange *x)
{
	change_by_body(x, true);
}

void api_quota_delete(struct exchange *x)
{
	struct quota_doc q;
	const struct catalog *c = shard_catalog(x->shard);
	bool tenant = bytes_equal(x->params[0], bytes_text("tenant"));

	if (c != NULL &&
		!rights_quota(c, tenant ? QUOTA_TENANT : QUOTA_USER,
			bytes_equal(x->params[1], bytes_text("*")) ? bytes_of("", 0) : x->params[1],
			&q))
		answer_error(x, 404, "not_found", "it has no quota of its own");
	else
		change(x, false, NULL);
}
