/* Rules: shown, added, deleted. Rules of a user or role are its tenant's; of a user that there is,
 * an administrator of the cluster need not say which. What is deleted is found in the catalogue in
 * force, and named exactly. */
#include <stdio.h>
#include "protocols/http/http_priv.h"
#include "server/base/mem.h"

enum { RULES_MAX = 1000, WHY_BYTES = 160 };

static const char fields[] = "user role resource name pattern host permission action actions rules";

/* ---- showing */

static void add_rule(struct json *j, const struct rule *r)
{
	json_open(j, NULL, '{');
	json_bytes(j, r->principal == PRINCIPAL_ROLE ? "role" : "user", r->who);
	json_text(j, "permission", r->deny ? "deny" : "allow");
	json_text(j, "action", action_word(r->action));
	json_text(j, "resource", resource_word(r->resource));
	json_bytes(j, "name", r->name);
	json_text(j, "pattern", r->pattern == RULE_PREFIXED ? "prefixed" : "literal");
	json_bytes(j, "host", r->host);
	json_bytes(j, "tenant", r->tenant.len > 0 ? r->tenant : bytes_text(tenant_text("")));
	json_close(j, '}');
}

/* ---- reading */

struct said { /* what a body or a query says of rules; .at NULL: nothing */
	struct bytes user, role, resource, name, pattern, host, permission;
	unsigned actions; /* bits; 0: none said */
};

static bool actions_add(struct bytes words, unsigned *actions)
{
	while (words.len > 0) {
		const uint8_t *comma = memchr(words.at, ',', words.len);
		size_t len = comma == NULL ? words.len : (size_t)(comma - words.at);
		enum action a;
		if (!action_of(bytes_of(words.at, len), &a))
			return false;
		*actions |= 1u << a;
		len += comma != NULL;
		words = bytes_of(words.at + len, words.len - len);
	}
	return true;
}

static bool text_of(const cJSON *o, const char *name, struct bytes *out)
{
	const char *text = NULL;

	if (json_get_text(o, name, &text) != OK)
		return false;
	if (text != NULL)
		*out = bytes_text(text);
	return true;
}

/* NULL, or what is wrong. */
static const char *said_by_json(const cJSON *o, struct said *s)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "actions"), *v;
	struct bytes action = {0};

	*s = (struct said){.actions = 0};
	if (!cJSON_IsObject(o) || !text_of(o, "user", &s->user) || !text_of(o, "role", &s->role) ||
		!text_of(o, "resource", &s->resource) || !text_of(o, "name", &s->name) ||
		!text_of(o, "pattern", &s->pattern) || !text_of(o, "host", &s->host) ||
		!text_of(o, "permission", &s->permission) || !text_of(o, "action", &action))
		return "user, role, resource, name, pattern, host, permission and action are texts";
	if (action.at != NULL && !actions_add(action, &s->actions))
		return "unknown action";
	if (list != NULL && !cJSON_IsArray(list))
		return "actions must be a list";
	cJSON_ArrayForEach(v, list)
	{
		if (!cJSON_IsString(v) || !actions_add(bytes_text(v->valuestring), &s->actions))
			return "unknown action";
	}
	return NULL;
}

static const char *said_by_query(struct exchange *x, struct said *s)
{
	struct bytes action = request_query(x, "action");

	*s = (struct said){.user = request_query(x, "user"),
		.role = request_query(x, "role"),
		.resource = request_query(x, "resource"),
		.name = request_query(x, "name"),
		.pattern = request_query(x, "pattern"),
		.host = request_query(x, "host"),
		.permission = request_query(x, "permission")};
	return action.at != NULL && !actions_add(action, &s->actions) ? "unknown action" : NULL;
}

static bool is(struct bytes text, const char *word)
{
	return bytes_equal(text, bytes_text(word));
}

/* All but the action. NULL, or what is wrong. */
static const char *rule_from(const struct said *s, struct rule *r)
{
	if ((s->user.at == NULL) == (s->role.at == NULL))
		return "a rule is of a user or of a role";
	r->principal = s->role.at != NULL ? PRINCIPAL_ROLE : PRINCIPAL_USER;
	r->who = s->role.at != NULL ? s->role : s->user;
	if (s->resource.at == NULL || !resource_of(s->resource, &r->resource))
		return "resource is stream, topic, group, cluster, transaction or user";
	r->name = s->name;
	if (r->resource == RESOURCE_CLUSTER && r->name.at == NULL)
		r->name = bytes_text("kafka-cluster");
	if (r->name.at == NULL)
		return "name is missing: * for all of that resource";
	if (s->pattern.at != NULL && !is(s->pattern, "literal") && !is(s->pattern, "prefixed"))
		return "pattern is literal or prefixed";
	r->pattern = is(s->pattern, "prefixed") ? RULE_PREFIXED : RULE_LITERAL;
	if (s->permission.at != NULL && !is(s->permission, "allow") && !is(s->permission, "deny"))
		return "permission is allow or deny";
	r->deny = is(s->permission, "deny");
	r->host = s->host.at != NULL ? s->host : bytes_text("*");
	return s->actions == 0 ? "action is missing: read, write, all, ..." : NULL;
}

/* ---- adding */

/* The rules of a user work in its tenant only. */
static struct bytes tenant_for(struct exchange *x, const struct rule *r)
{
	const struct catalog *c = shard_catalog(x->shard);
	struct user_doc u;

	if (r->principal == PRINCIPAL_USER && c != NULL && !x->tenant_asked &&
		access_cluster_admin(x->access) && rights_user(c, r->who, &u))
		return u.tenant;
	return access_tenant(x->access);
}

/* One rule per action; *why is for whoever asked. */
static enum err rules_add(struct rights_op *op, const struct said *s, char *why, size_t why_size)
{
	struct rights_change *c = &op->change;
	struct rule r = {.deny = false};
	const char *wrong = rule_from(s, &r);

	if (wrong != NULL) {
		(void)snprintf(why, why_size, "%s", wrong);
		return ERR_INVALID;
	}
	r.tenant = tenant_for(op->x, &r);
	for (int a = ACTION_ALL; a < ACTION_END; a++) {
		if ((s->actions & 1u << a) == 0)
			continue;
		r.action = (enum action)a;
		if (c->rule_count == RULES_MAX) {
			(void)snprintf(why, why_size, "at most %d rules at a time", RULES_MAX);
			return ERR_TOOBIG;
		}
		if (rule_check(&r, why, why_size) != OK)
			return ERR_INVALID;
		op->rules[c->rule_count++] = r;
	}
	return OK;
}

static void answer_rules(struct rights_op *op, const char *name, int status)
{
	struct exchange *x = op->x;
	struct json j = json_over(&x->out);

	json_open(&j, NULL, '{');
	if (op->change.check_only) {
		json_bool(&j, "dry_run", true);
		json_bool(&j, "valid", true);
	}
	json_open(&j, name, '[');
	for (int i = 0; i < op->change.rule_count; i++)
		add_rule(&j, &op->rules[i]);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, status);
}

static void over(struct rights_change *c, const char *name, int status)
{
	struct rights_op *op = list_entry(c, struct rights_op, change);

	if (c->err != OK)
		answer_err(op->x, c->err, c->why);
	else
		answer_rules(op, name, c->check_only ? 200 : status);
	rights_op_free(op);
}

static void rules_added(struct rights_change *c)
{
	over(c, "rules", 201);
}

static void rules_deleted(struct rights_change *c)
{
	over(c, "deleted", 200);
}

static struct rights_op *rules_op(struct exchange *x, enum rights_change_kind kind)
{
	cJSON *o = exchange_json(x, fields);
	struct rights_op *op = o == NULL ? NULL : rights_op_new(x, kind, o);

	if (op != NULL) {
		/* Names borrowed from it. */
		op->held = shard_catalog(x->shard) ? catalog_hold(shard_catalog(x->shard)) : NULL;
		op->rules = mem_new(RULES_MAX * sizeof *op->rules);
		op->change.rules = op->rules;
	}
	return op;
}

static enum err rules_add_json(struct rights_op *op, const cJSON *o, char *why, size_t why_size)
{
	struct said s;
	const char *wrong = said_by_json(o, &s);

	if (wrong == NULL)
		return rules_add(op, &s, why, why_size);
	(void)snprintf(why, why_size, "%s", wrong);
	return ERR_INVALID;
}

void api_acls_add(struct exchange *x)
{
	struct rights_op *op = rules_op(x, RULES_ADD);
	const cJSON *list, *v;
	char why[WHY_BYTES] = "rules must be a list of objects";
	enum err e;

	if (op == NULL)
		return;
	list = cJSON_GetObjectItemCaseSensitive(op->json, "rules");
	e = list == NULL              ? rules_add_json(op, op->json, why, sizeof why)
		: cJSON_IsArray(list) ? OK
				      : ERR_INVALID;
	cJSON_ArrayForEach(v, list)
	{
		if (e == OK)
			e = rules_add_json(op, v, why, sizeof why);
	}
	if (e != OK) {
		answer_err(x, e, why);
		rights_op_free(op);
		return;
	}
	rights_op_start(op, rules_added);
}

/* ---- finding */

static bool says(struct bytes said, struct bytes is)
{
	return said.at == NULL || bytes_equal(said, is);
}

static bool matches(const struct said *s, const struct rule *r)
{
	bool role = r->principal == PRINCIPAL_ROLE;

	if ((s->user.at != NULL && role) || (s->role.at != NULL && !role))
		return false;
	return says(s->user, r->who) && says(s->role, r->who) &&
		says(s->resource, bytes_text(resource_word(r->resource))) &&
		says(s->name, r->name) && says(s->host, r->host) &&
		says(s->pattern,
			bytes_text(r->pattern == RULE_PREFIXED ? "prefixed" : "literal")) &&
		says(s->permission, bytes_text(r->deny ? "deny" : "allow")) &&
		(s->actions == 0 || (s->actions & 1u << r->action) != 0);
}

/* The tenant whose rules are meant; NULL: all. */
static const struct bytes *tenant_meant(struct exchange *x, struct bytes *tenant)
{
	*tenant = access_tenant(x->access);
	return access_cluster_admin(x->access) && !x->tenant_asked ? NULL : tenant;
}

void api_acls(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct json j = json_over(&x->out);
	struct bytes tenant;
	const struct bytes *of = tenant_meant(x, &tenant);
	struct rule r;
	struct said s;
	const char *wrong;

	if (c == NULL)
		return;
	wrong = said_by_query(x, &s);
	if (wrong != NULL) {
		answer_error(x, 400, "invalid", "%s", wrong);
		return;
	}
	json_open(&j, NULL, '{');
	json_open(&j, "rules", '[');
	for (int at = 0; rights_rule_next(c, &at, of, &r);)
		if (matches(&s, &r))
			add_rule(&j, &r);
	json_close(&j, ']');
	json_close(&j, '}');
	answer_json(x, 200);
}

void api_acls_delete(struct exchange *x)
{
	const struct catalog *c = exchange_catalog(x);
	struct rights_op *op = c == NULL ? NULL : rules_op(x, RULES_DELETE);
	struct bytes tenant;
	const struct bytes *of = tenant_meant(x, &tenant);
	const char *wrong;
	struct rule r;
	struct said s;

	if (op == NULL)
		return;
	wrong = buf_len(&x->body) > 0 ? said_by_json(op->json, &s) : said_by_query(x, &s);
	if (wrong == NULL && s.user.at == NULL && s.role.at == NULL && s.resource.at == NULL &&
		s.name.at == NULL)
		wrong = "say which rules: by user, role, resource or name";
	for (int at = 0; wrong == NULL && rights_rule_next(c, &at, of, &r);)
		if (matches(&s, &r) && op->change.rule_count < RULES_MAX)
			op->rules[op->change.rule_count++] = r;
	if (wrong != NULL) {
		answer_error(x, 400, "invalid", "%s", wrong);
		rights_op_free(op);
		return;
	}
	rights_op_start(op, rules_deleted);
}
