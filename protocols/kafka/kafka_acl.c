/* Rules as Kafka's ACLs: the rules of who asks' own tenant, for the kinds of resources Kafka knows.
 * Rules about MQTT topics are not seen here, nor can they be made or deleted. Principals are
 * User:NAME, User:* and Role:NAME.
 *
 * Bad rules of a request are refused each by itself; the good ones are added in changes of many at
 * once. What a filter deletes is found in the catalogue in force, and deleted by name. */
#include "protocols/kafka/kafka_priv.h"
#include "server/broker/rights_admin.h"

enum {
	ANY = 1,
	PATTERN_MATCH = 2,
	PERMISSION_DENY = 2,
	PERMISSION_ALLOW = 3,
	RULES_AT_ONCE = 500, /* of a change of the catalogue */
	WHY_BYTES = 160
};

static const struct {
	const char *prefix;
	enum principal_kind kind;
} principals[] = {{"User:", PRINCIPAL_USER}, {"Role:", PRINCIPAL_ROLE}};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static bool principal_read(struct bytes text, struct rule *out)
{
	for (size_t i = 0; i < COUNT(principals); i++) {
		size_t len = strlen(principals[i].prefix);
		if (text.len <= len || memcmp(text.at, principals[i].prefix, len) != 0)
			continue;
		out->principal = principals[i].kind;
		out->who = bytes_of(text.at + len, text.len - len);
		return true;
	}
	return false;
}

/* Memory of r; empty when it has failed. */
static struct bytes principal_text(struct kafka_request *r, const struct rule *rule)
{
	const char *prefix = principals[rule->principal == PRINCIPAL_ROLE].prefix;
	size_t len = strlen(prefix);
	uint8_t *text = kafka_take(r, len + rule->who.len);
	if (text == NULL)
		return bytes_of(kafka_empty, 0);
	memcpy(text, prefix, len);
	memcpy(text + len, rule->who.at, rule->who.len);
	return bytes_of(text, len + rule->who.len);
}

static bool kind_known(int resource)
{
	return (resource >= RESOURCE_STREAM && resource <= RESOURCE_TRANSACTION) ||
		resource == RESOURCE_USER;
}

/* --- filters */

struct filter { /* as DescribeAcls and DeleteAcls say it; at NULL: any */
	int8_t resource, pattern, operation, permission;
	struct bytes name, principal, host;
};

/* NULL, or why it is no filter. */
static const char *filter_check(const struct filter *f)
{
	if (f->resource != ANY && (f->resource < ANY || f->resource > RESOURCE_USER))
		return "unknown resource type";
	if (f->pattern < ANY || f->pattern > RULE_PREFIXED)
		return "unknown pattern type";
	if (f->operation < ANY || f->operation >= ACTION_END)
		return "unknown operation";
	if (f->permission < ANY || f->permission > PERMISSION_ALLOW)
		return "unknown permission";
	return NULL;
}

static bool starts_with(struct bytes text, struct bytes prefix)
{
	return text.len >= prefix.len &&
		(prefix.len == 0 || memcmp(text.at, prefix.at, prefix.len) == 0);
}

/* MATCH: all patterns that concern a thing of that name. */
static bool name_matches(const struct filter *f, const struct rule *rule)
{
	if (f->pattern > PATTERN_MATCH && f->pattern != (int)rule->pattern)
		return false;
	if (f->name.at == NULL || bytes_equal(f->name, rule->name))
		return true;
	if (f->pattern != PATTERN_MATCH)
		return false;
	return rule->pattern == RULE_PREFIXED ? starts_with(f->name, rule->name)
					      : bytes_equal(rule->name, bytes_text("*"));
}

static bool matches(const struct filter *f, const struct rule *rule)
{
	struct rule asked;
	bool known = kind_known((int)rule->resource);
	if (!known || (f->resource != ANY && f->resource != (int)rule->resource))
		return false;
	if (f->operation != ANY && f->operation != (int)rule->action)
		return false;
	if (f->permission != ANY && (f->permission == PERMISSION_DENY) != rule->deny)
		return false;
	if (f->host.at != NULL && !bytes_equal(f->host, rule->host))
		return false;
	if (f->principal.at != NULL &&
		!(principal_read(f->principal, &asked) && asked.principal == rule->principal &&
			bytes_equal(asked.who, rule->who)))
		return false;
	return name_matches(f, rule);
}

/* The next rule of their tenant that matches; borrowed for this turn. */
static bool next_match(struct kafka_request *r, const struct filter *f, int *at, struct rule *out)
{
	struct bytes tenant = access_tenant(r->access);
	while (rights_rule_next(kafka_catalog(r), at, &tenant, out))
		if (matches(f, out))
			return true;
	return false;
}

static uint32_t count_matches(struct kafka_request *r, const struct filter *f)
{
	struct rule rule;
	uint32_t count = 0;
	for (int at = 0; next_match(r, f, &at, &rule);)
		count++;
	return count;
}

/* --- DescribeAcls */

static void refuse_describe(struct kafka_request *r, int16_t code, const char *why)
{
	struct kafka_describe_acls_res *res = r->res;
	res->error = code;
	res->message = bytes_text(why);
	kafka_answer(r);
}

/* Rules of the same resource stand together in an answer, though they come by principal. */
static struct kafka_describe_acls_res_resource *resource_for(struct kafka_request *r,
	struct kafka_describe_acls_res *res, struct map *seen, const struct rule *rule)
{
	struct buf key;
	struct kafka_describe_acls_res_resource *at;
	buf_init(&key, RULE_NAME_MAX + 2);
	buf_add_u8(&key, (uint8_t)rule->resource);
	buf_add_u8(&key, (uint8_t)rule->pattern);
	buf_add(&key, rule->name);
	at = map_get(seen, buf_bytes(&key));
	if (at == NULL) {
		struct bytes kept = kafka_copy(r, buf_bytes(&key));
		at = &res->resources[res->resources_count++];
		at->type = (int8_t)rule->resource;
		at->pattern_type = (int8_t)rule->pattern;
		at->name = kafka_copy(r, rule->name);
		if (kept.len == buf_len(&key))
			map_put(seen, kept, at);
		else
			kafka_fail(r, ERR_NOMEM);
	}
	buf_fini(&key);
	return at;
}

static bool fill_acl(
	struct kafka_request *r, struct kafka_describe_acls_res_acl *a, const struct rule *rule)
{
	a->principal = principal_text(r, rule);
	a->host = kafka_copy(r, rule->host);
	a->operation = (int8_t)rule->action;
	a->permission = rule->deny ? PERMISSION_DENY : PERMISSION_ALLOW;
	return !r->ready;
}

/* First which resources and how many rules each, then the rules. */
static bool describe_fill(struct kafka_request *r, const struct filter *f, struct map *seen)
{
	struct kafka_describe_acls_res *res = r->res;
	struct rule rule;
	res->resources = kafka_list(r, &kafka_describe_acls_res_resource_type, count_matches(r, f));
	if (res->resources == NULL)
		return false;
	for (int at = 0; !r->ready && next_match(r, f, &at, &rule);)
		resource_for(r, res, seen, &rule)->acls_count++;
	for (uint32_t i = 0; !r->ready && i < res->resources_count; i++) {
		struct kafka_describe_acls_res_resource *one = &res->resources[i];
		one->acls = kafka_list(r, &kafka_describe_acls_res_acl_type, one->acls_count);
		one->acls_count = 0;
	}
	for (int at = 0; !r->ready && next_match(r, f, &at, &rule);) {
		struct kafka_describe_acls_res_resource *one = resource_for(r, res, seen, &rule);
		if (!fill_acl(r, &one->acls[one->acls_count++], &rule))
			return false;
	}
	return !r->ready;
}

void kafka_on_describe_acls(struct kafka_request *r)
{
	const struct kafka_describe_acls_req *req = r->req;
	struct filter f = {req->resource_type, req->pattern_type, req->operation, req->permission,
		req->resource_name, req->principal, req->host};
	const char *why = filter_check(&f);
	struct map seen = {0};
	if (!kafka_may_rights(r, ACTION_DESCRIBE)) {
		refuse_describe(r, KAFKA_CLUSTER_DENIED, "not allowed to describe rules");
		return;
	}
	if (why != NULL) {
		refuse_describe(r, KAFKA_INVALID_REQUEST, why);
		return;
	}
	bool filled = describe_fill(r, &f, &seen);
	map_fini(&seen);
	if (filled)
		kafka_answer(r);
}

/* --- changes, in lots */

struct lot { /* rules that are added or deleted at once */
	struct rights_change change;
	struct kafka_request *r;
	int16_t **errors;        /* by rule, where its outcome goes */
	struct bytes **messages; /* likewise */
};

static void on_changed(struct rights_change *c)
{
	struct lot *lot = list_entry(c, struct lot, change);
	struct kafka_request *r = lot->r;
	struct bytes why = bytes_of(NULL, 0);
	if (!r->sent && c->err != OK)
		why = kafka_copy(r, bytes_text(c->why[0] ? c->why : err_text(c->err)));
	for (int i = 0; !r->sent && c->err != OK && i < c->rule_count; i++) {
		*lot->errors[i] = kafka_rights_code(c->err);
		*lot->messages[i] = why;
	}
	kafka_land(r);
}

static struct lot *lot_new(struct kafka_request *r, enum rights_change_kind kind)
{
	struct lot *lot = kafka_take(r, sizeof *lot);
	if (lot == NULL)
		return NULL;
	struct rule *rules = kafka_take(r, RULES_AT_ONCE * sizeof *rules);
	lot->errors = rules ? kafka_take(r, RULES_AT_ONCE * sizeof *lot->errors) : NULL;
	lot->messages = lot->errors ? kafka_take(r, RULES_AT_ONCE * sizeof *lot->messages) : NULL;
	if (lot->messages == NULL)
		return NULL;
	lot->r = r;
	kafka_rights_change(r, &lot->change, kind, on_changed);
	lot->change.rules = rules;
	return lot;
}

static void lot_start(struct lot *lot)
{
	lot->r->outstanding++;
	rights_change(&lot->change);
}

/* *lot: the one being filled, NULL at first. False: memory is out. */
static bool lot_add(struct kafka_request *r, struct lot **lot, enum rights_change_kind kind,
	const struct rule *rule, int16_t *error, struct bytes *message)
{
	if (*lot == NULL && (*lot = lot_new(r, kind)) == NULL)
		return false;
	struct rights_change *c = &(*lot)->change;
	struct rule *rules = (struct rule *)(uintptr_t)c->rules;
	rules[c->rule_count] = *rule;
	(*lot)->errors[c->rule_count] = error;
	(*lot)->messages[c->rule_count++] = message;
	if (c->rule_count == RULES_AT_ONCE) {
		lot_start(*lot);
		*lot = NULL;
	}
	return true;
}

/* --- CreateAcls */

/* The rule that is asked for; NULL, or why it is none. */
static const char *rule_from(
	struct kafka_request *r, const struct kafka_create_acls_req_acl *a, struct rule *out)
{
	char why[WHY_BYTES];
	*out = (struct rule){.tenant = access_tenant(r->access),
		.resource = (enum resource)a->resource_type,
		.pattern = (enum rule_pattern)a->pattern_type,
		.name = a->resource_name,
		.host = a->host,
		.deny = a->permission == PERMISSION_DENY,
		.action = (enum action)a->operation};
	if (!kind_known(a->resource_type))
		return "a rule is about a topic, group, cluster, transactional id or user";
	if (a->pattern_type != RULE_LITERAL && a->pattern_type != RULE_PREFIXED)
		return "a rule's pattern is literal or prefixed";
	if (a->operation < ACTION_ALL || a->operation >= ACTION_END)
		return "unknown operation";
	if (a->permission != PERMISSION_DENY && a->permission != PERMISSION_ALLOW)
		return "a rule allows or denies";
	if (!principal_read(a->principal, out))
		return "a principal is User:NAME or Role:NAME";
	if (rule_check(out, why, sizeof why) == OK)
		return NULL;
	return kafka_text(r, bytes_text(why));
}

void kafka_on_create_acls(struct kafka_request *r)
{
	const struct kafka_create_acls_req *req = r->req;
	struct kafka_create_acls_res *res = r->res;
	struct lot *lot = NULL;
	bool may = kafka_may_rights(r, ACTION_ALTER);
	res->results_count = req->acls_count;
	res->results = kafka_list(r, &kafka_create_acls_res_result_type, req->acls_count);
	if (res->results == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->acls_count && !r->ready; i++) {
		struct kafka_create_acls_res_result *one = &res->results[i];
		struct rule rule;
		const char *why = may ? rule_from(r, &req->acls[i], &rule)
				      : "not allowed to change rules";
		if (why != NULL) {
			one->error = may ? KAFKA_INVALID_REQUEST : KAFKA_CLUSTER_DENIED;
			one->message = bytes_text(why);
		} else if (!lot_add(r, &lot, RULES_ADD, &rule, &one->error, &one->message)) {
			break;
		}
	}
	if (lot != NULL && !r->ready)
		lot_start(lot);
	kafka_land(r);
}

/* --- DeleteAcls */

static bool fill_deleted(
	struct kafka_request *r, struct kafka_delete_acls_res_acl *a, struct rule *rule)
{
	a->resource_type = (int8_t)rule->resource;
	a->resource_name = rule->name = kafka_copy(r, rule->name);
	a->pattern_type = (int8_t)rule->pattern;
	a->host = rule->host = kafka_copy(r, rule->host);
	a->principal = principal_text(r, rule);
	a->operation = (int8_t)rule->action;
	a->permission = rule->deny ? PERMISSION_DENY : PERMISSION_ALLOW;
	if (r->ready)
		return false;
	size_t prefix = a->principal.len - rule->who.len;
	rule->who = bytes_of(a->principal.at + prefix, rule->who.len);
	rule->tenant = access_tenant(r->access);
	return true;
}

static bool delete_matches(struct kafka_request *r, const struct filter *f,
	struct kafka_delete_acls_res_result *out, struct lot **lot)
{
	struct rule rule;
	uint32_t count = count_matches(r, f);
	out->acls = kafka_list(r, &kafka_delete_acls_res_acl_type, count);
	if (out->acls == NULL)
		return false;
	for (int at = 0; out->acls_count < count && next_match(r, f, &at, &rule);) {
		struct kafka_delete_acls_res_acl *a = &out->acls[out->acls_count++];
		if (!fill_deleted(r, a, &rule) ||
			!lot_add(r, lot, RULES_DELETE, &rule, &a->error, &a->message))
			return false;
	}
	return true;
}

void kafka_on_delete_acls(struct kafka_request *r)
{
	const struct kafka_delete_acls_req *req = r->req;
	struct kafka_delete_acls_res *res = r->res;
	struct lot *lot = NULL;
	bool may = kafka_may_rights(r, ACTION_ALTER);
	res->results_count = req->filters_count;
	res->results = kafka_list(r, &kafka_delete_acls_res_result_type, req->filters_count);
	if (res->results == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->filters_count && !r->ready; i++) {
		const struct kafka_delete_acls_req_filter *q = &req->filters[i];
		struct kafka_delete_acls_res_result *one = &res->results[i];
		struct filter f = {q->resource_type, q->pattern_type, q->operation, q->permission,
			q->resource_name, q->principal, q->host};
		const char *why = may ? filter_check(&f) : "not allowed to change rules";
		if (why != NULL) {
			one->error = may ? KAFKA_INVALID_REQUEST : KAFKA_CLUSTER_DENIED;
			one->message = bytes_text(why);
		} else if (!delete_matches(r, &f, one, &lot)) {
			break;
		}
	}
	if (lot != NULL && !r->ready)
		lot_start(lot);
	kafka_land(r);
}
