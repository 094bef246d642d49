/* Users, and what changes of users, rules and quotas have in common. Passwords come in and never go
 * out; of what is kept of them only the kinds are shown. */
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/broker/tenant_limit.h"

/* ---- changes */

const struct catalog *exchange_catalog(struct exchange *x)
{
	const struct catalog *c = shard_catalog(x->shard);

	if (c == NULL)
		answer_err(x, ERR_UNAVAILABLE, NULL);
	return c;
}

struct rights_op *rights_op_new(struct exchange *x, enum rights_change_kind kind, cJSON *json)
{
	struct rights_op *op;
	bool dry = false;

	if (request_query_bool(x, "dry_run", &dry) != OK) {
		cJSON_Delete(json);
		answer_error(x, 400, "invalid", "dry_run must be true or false");
		return NULL;
	}
	op = mem_new(sizeof *op);
	op->x = x;
	op->json = json;
	op->change = (struct rights_change){.shard = x->shard,
		.by = x->access,
		.door = "http",
		/* The connection may go before it is over. */
		.peer = mem_text(conn_peer(x->conn), strlen(conn_peer(x->conn))),
		.kind = kind,
		.check_only = dry,
		.tenant = access_tenant(x->access)};
	return op;
}

void rights_op_free(struct rights_op *op)
{
	if (op->password.len > 0)
		secret_wipe((void *)(uintptr_t)op->password.at, op->password.len);
	cJSON_Delete(op->json);
	if (op->held != NULL)
		catalog_release(op->held);
	mem_free(op->rules);
	mem_free(op->roles);
	mem_free((void *)(uintptr_t)op->change.peer);
	mem_free(op);
}

void rights_op_start(struct rights_op *op, void (*done)(struct rights_change *c))
{
	op->change.done = done;
	rights_change(&op->change);
}

bool rights_op_over(struct rights_op *op)
{
	const struct rights_change *c = &op->change;
	struct exchange *x = op->x;

	if (c->err != OK) {
		answer_err(x, c->err, c->why);
	} else if (c->check_only) {
		answer_tried(x);
	} else {
		return false;
	}
	rights_op_free(op);
	return true;
}

/* ---- showing */

static void add_user(struct json *j, const struct user_doc *u)
{
	static const char *const kinds[] = {[SECRET_CRYPT] = "password",
		[SECRET_SCRAM_256] = "scram-sha-256",
		[SECRET_SCRAM_512] = "scram-sha-512"};
	char created[32];

	clock_text(u->created_ms, created);
	json_open(j, NULL, '{');
	json_bytes(j, "name", u->name);
	json_bytes(j, "tenant", u->tenant.len > 0 ? u->tenant : bytes_text(tenant_text("")));
	json_open(j, "roles", '[');
	for (int i = 0; i < u->role_count; i++)
		json_bytes(j, NULL, u->roles[i]);
	json_close(j, ']');
	json_bool(j, "disabled", u->disabled);
	json_open(j, "logins", '[');
	for (int kind = SECRET_CRYPT; kind <= SECRET_SCRAM_512; kind++)
		if (user_secret(u, (enum secret_kind)kind) != NULL)
			json_text(j, NULL, kinds[kind]);
	json_close(j, ']');
	json_text(j, "created", created);
	json_close(j, '}');
}

/* The tenant whose things are listed; NULL: of all. */
static const struct bytes *listed_tenant(struct exchange *x, struct bytes *tenant)
{
	*tenant = access_tenant(x->access);
	return access_cluster_admin(x->access) && !x->tenant_asked ? NULL : tenant;
}

void api_users(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct json j = json_over(&x->out);
	struct user_doc u;
	struct bytes tenant;
	const struct bytes *of = listed_tenant(x, &tenant);

	if (c == NULL)
		return;
	json_open(&j, NULL, '{');
	json_open(&j, "users", '[');
	for (int at = 0; rights_user_next(c, &at, of, &u);)
		add_user(&j, &u);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

/* Names are the cluster's; whose user it is decides who may see it. */
static bool user_seen(
	struct exchange *x, const struct catalog *c, struct bytes name, struct user_doc *out)
{
	return rights_user(c, name, out) &&
		(bytes_equal(out->tenant, access_tenant(x->access)) ||
			(access_cluster_admin(x->access) && !x->tenant_asked));
}

static void answer_user(struct exchange *x, struct bytes name, int status)
{
	const struct catalog *c = exchange_catalog(x);
	struct json j = json_over(&x->out);
	struct user_doc u;

	if (c == NULL)
		return;
	if (!user_seen(x, c, name, &u)) {
		answer_error(x, 404, "not_found", "there is no such user");
		return;
	}
	add_user(&j, &u);
	answer_json(x, status);
}

void api_user(struct exchange *x)
{
	answer_user(x, x->params[0], 200);
}

/* ---- changing */

static void user_added(struct rights_change *c)
{
	struct rights_op *op = list_entry(c, struct rights_op, change);
	struct exchange *x = op->x;

	if (rights_op_over(op))
		return;
	x->tenant_asked = false;
	answer_user(x, c->name, 201);
	rights_op_free(op);
}

static void user_altered(struct rights_change *c)
{
	struct rights_op *op = list_entry(c, struct rights_op, change);

	if (rights_op_over(op))
		return;
	if (access_admin(op->x->access) || !bytes_equal(access_user(op->x->access), c->name))
		answer_user(op->x, c->name, 200);
	else /* it changed its own password: what it came with is worth nothing now */
		answer_empty(op->x, 204);
	rights_op_free(op);
}

static void user_deleted(struct rights_change *c)
{
	struct rights_op *op = list_entry(c, struct rights_op, change);

	if (rights_op_over(op))
		return;
	answer_empty(op->x, 204);
	rights_op_free(op);
}

static enum err roles_read(struct rights_op *op)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(op->json, "roles"), *v;
	int count = cJSON_GetArraySize(list);

	if (list == NULL || cJSON_IsNull(list))
		return OK;
	if (!cJSON_IsArray(list) || count > USER_ROLES_MAX)
		return ERR_INVALID;
	op->roles = mem_new(((size_t)count + 1) * sizeof *op->roles);
	cJSON_ArrayForEach(v, list)
	{
		if (!cJSON_IsString(v))
			return ERR_INVALID;
		op->roles[op->change.role_count++] = bytes_text(v->valuestring);
	}
	op->change.roles = op->roles;
	return OK;
}

/* What a user may be given by a body: false after an answer. */
static bool user_read_body(struct rights_op *op)
{
	struct rights_change *c = &op->change;
	const char *password = NULL;
	int disabled = -1;
	bool flag = false;
	enum err e = json_get_text(op->json, "password", &password);

	if (e == OK && cJSON_GetObjectItemCaseSensitive(op->json, "disabled") != NULL) {
		e = json_get_bool(op->json, "disabled", &flag);
		disabled = flag;
	}
	if (e == OK)
		e = roles_read(op);
	if (e != OK) {
		answer_error(op->x, 400, "invalid",
			"password is a text, roles a list of texts, disabled true or false");
		return false;
	}
	if (password != NULL) {
		op->password = bytes_text(password);
		c->password = &op->password;
	}
	if (disabled >= 0)
		c->able = disabled ? USER_DISABLE : USER_ENABLE;
	return true;
}

static struct rights_op *user_op(
	struct exchange *x, enum rights_change_kind kind, const char *fields)
{
	cJSON *o = exchange_json(x, fields);
	struct rights_op *op = o == NULL ? NULL : rights_op_new(x, kind, o);

	if (op != NULL && !user_read_body(op)) {
		rights_op_free(op);
		return NULL;
	}
	return op;
}

void api_user_add(struct exchange *x)
{
	struct rights_op *op = user_op(x, USER_ADD, "name password roles tenant disabled");
	const char *name = NULL, *tenant = NULL;
	enum err e;

	if (op == NULL)
		return;
	e = json_get_text(op->json, "name", &name);
	if (e == OK)
		e = json_get_text(op->json, "tenant", &tenant);
	if (e == OK && tenant != NULL)
		e = tenant_read(bytes_text(tenant), &op->change.tenant);
	if (e != OK || name == NULL) {
		answer_error(x, 400, "invalid",
			"name and tenant are texts; a tenant is 1 to %d of "
			"a-z, 0-9, -",
			TENANT_NAME_MAX);
		rights_op_free(op);
		return;
	}
	op->change.name = bytes_text(name);
	rights_op_start(op, user_added);
}

/* Who is no administrator changes its own password, and nothing else. */
static bool may_alter(struct exchange *x, const struct rights_op *op)
{
	bool own = bytes_equal(access_user(x->access), x->params[0]);

	if (access_admin(x->access) || exchange_may_cluster(x, ACTION_ALTER))
		return true;
	if (own && op->change.roles == NULL && op->change.able == USER_AS_IS)
		return true;
	answer_error(x, 403, "denied", "users change their own password only");
	return false;
}

void api_user_alter(struct exchange *x)
{
	struct rights_op *op = user_op(x, USER_ALTER, "password roles disabled");

	if (op == NULL)
		return;
	if (!may_alter(x, op)) {
		rights_op_free(op);
		return;
	}
	op->change.name = x->params[0];
	rights_op_start(op, user_altered);
}

void api_user_delete(struct exchange *x)
{
	struct rights_op *op = rights_op_new(x, USER_DELETE, NULL);

	if (op == NULL)
		return;
	op->change.name = x->params[0];
	rights_op_start(op, user_deleted);
}

/* ---- tenants */

static void add_tenant(struct json *j, const struct catalog *c, struct bytes tenant)
{
	json_open(j, NULL, '{');
	json_bytes(j, "name", tenant.len > 0 ? tenant : bytes_text(tenant_text("")));
	for (int w = QUOTA_STREAMS; w < QUOTA_WHATS; w++)
		json_int(j, quota_word((enum quota_what)w),
			tenant_has(c, tenant, (enum quota_what)w));
	json_open(j, "limits", '{');
	for (int w = QUOTA_STREAMS; w < QUOTA_WHATS; w++)
		if (tenant_may_have(c, tenant, (enum quota_what)w) >= 0)
			json_int(j, quota_word((enum quota_what)w),
				tenant_may_have(c, tenant, (enum quota_what)w));
	json_close(j, '}');
	json_close(j, '}');
}

void api_tenants(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct json j = json_over(&x->out);
	struct bytes tenant = {0};

	if (c == NULL)
		return;
	json_open(&j, NULL, '{');
	json_open(&j, "tenants", '[');
	for (int at = 0; rights_tenant_next(c, &at, &tenant);)
		if (access_cluster_admin(x->access) ||
			bytes_equal(tenant, access_tenant(x->access)))
			add_tenant(&j, c, tenant);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}
