/* Users, rules, quotas and tenants. A password is never an argument that has to be given: it is
 * asked for twice on a terminal, or read from stdin. */
#include <stdio.h>
#include <string.h>
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

static bool for_people(const struct options *o)
{
	return o->output == OUT_TABLE || o->output == OUT_WIDE;
}

/* What was done, for people; what came back, for programs. */
static void done(const struct options *o, const struct answer *a, const char *what)
{
	if (for_people(o))
		say("%s%s", o->given[FLAG_dry_run] ? "tried only: " : "", what);
	else if (a->json != NULL)
		print_json(o, a->json);
}

/* ---- users */

static const struct column user_columns[] = {
	{"NAME", "name", COLUMN_TEXT, false},
	{"TENANT", "tenant", COLUMN_TEXT, false},
	{"ROLES", "roles", COLUMN_TEXT, false},
	{"DISABLED", "disabled", COLUMN_BOOL, false},
	{"LOGINS", "logins", COLUMN_TEXT, true},
	{"CREATED", "created", COLUMN_TEXT, true},
	{0},
};
static const struct column user_describe_columns[] = {
	{"Name", "name", COLUMN_TEXT, false},
	{"Tenant", "tenant", COLUMN_TEXT, false},
	{"Roles", "roles", COLUMN_TEXT, false},
	{"Disabled", "disabled", COLUMN_BOOL, false},
	{"Logins", "logins", COLUMN_TEXT, false},
	{"Created", "created", COLUMN_TEXT, false},
	{0},
};

static enum exit_code list(
	const struct options *o, const char *path, const char *name, const struct column *columns)
{
	struct answer a;
	enum exit_code e = client_get(o, path, &a);

	if (e == EXIT_OK)
		print_list(o, a.json, name, columns);
	answer_fini(&a);
	return e;
}

enum exit_code user_list(const struct options *o)
{
	return list(o, "/api/v1/users", "users", user_columns);
}

enum exit_code tenant_list(const struct options *o)
{
	static const struct column columns[] = {
		{"NAME", "name", COLUMN_TEXT, false},
		{"USERS", "users", COLUMN_INT, false},
		{"STREAMS", "streams", COLUMN_INT, false},
		{"PARTITIONS", "partitions", COLUMN_INT, false},
		{"RULES", "rules", COLUMN_INT, false},
		{"ROUTES", "routes", COLUMN_INT, false},
		{0},
	};
	return list(o, "/api/v1/tenants", "tenants", columns);
}

enum exit_code user_describe(const struct options *o)
{
	char *path = path_of("/api/v1/users/", o->args[0]);
	struct answer a;
	enum exit_code e = client_get(o, path, &a);

	if (e == EXIT_OK)
		print_object(o, a.json, user_describe_columns);
	answer_fini(&a);
	mem_free(path);
	return e;
}

static void add_roles(const struct options *o, cJSON *body)
{
	cJSON *roles = cJSON_AddArrayToObject(body, "roles");

	for (int i = 0; i < o->role_count; i++)
		if (*o->roles[i] != 0)
			cJSON_AddItemToArray(roles, cJSON_CreateString(o->roles[i]));
}

/* Takes body. */
static enum exit_code user_change(
	const struct options *o, const char *method, cJSON *body, const char *what)
{
	char *path = path_of("/api/v1/users/", o->args[0]);
	char text[512];
	struct answer a = {0};
	enum exit_code e = client_send(o, method, path, body, &a);

	(void)snprintf(text, sizeof text, "user %s %s", o->args[0], what);
	if (e == EXIT_OK)
		done(o, &a, text);
	answer_fini(&a);
	mem_free(path);
	return e;
}

enum exit_code user_add(const struct options *o)
{
	cJSON *body = cJSON_CreateObject();
	struct answer a = {0};
	char *password = NULL, text[512];
	enum exit_code e = o->given[FLAG_no_password] ? EXIT_OK
						      : new_password(o, o->args[0], &password);

	cJSON_AddStringToObject(body, "name", o->args[0]);
	if (password != NULL)
		cJSON_AddStringToObject(body, "password", password);
	if (o->value[FLAG_tenant] != NULL)
		cJSON_AddStringToObject(body, "tenant", o->value[FLAG_tenant]);
	add_roles(o, body);
	if (e == EXIT_OK)
		e = client_send(o, "POST", "/api/v1/users", body, &a);
	else
		cJSON_Delete(body);
	(void)snprintf(text, sizeof text, "user %s added", o->args[0]);
	if (e == EXIT_OK)
		done(o, &a, text);
	answer_fini(&a);
	mem_free(password);
	return e;
}

enum exit_code user_passwd(const struct options *o)
{
	char *password = NULL;
	enum exit_code e = new_password(o, o->args[0], &password);
	cJSON *body;

	if (e != EXIT_OK)
		return e;
	body = cJSON_CreateObject();
	cJSON_AddStringToObject(body, "password", password);
	mem_free(password);
	return user_change(o, "PATCH", body, "has a new password");
}

enum exit_code user_alter(const struct options *o)
{
	cJSON *body;

	if (o->role_count == 0)
		return usage_error("user alter needs --role: all roles it shall have");
	body = cJSON_CreateObject();
	add_roles(o, body);
	return user_change(o, "PATCH", body, "altered");
}

static enum exit_code able(const struct options *o, bool disabled)
{
	cJSON *body = cJSON_CreateObject();

	cJSON_AddBoolToObject(body, "disabled", disabled);
	return user_change(o, "PATCH", body, disabled ? "disabled" : "enabled");
}

enum exit_code user_enable(const struct options *o)
{
	return able(o, false);
}

enum exit_code user_disable(const struct options *o)
{
	return able(o, true);
}

enum exit_code user_delete(const struct options *o)
{
	enum exit_code e = confirm(o, "delete user %s with its rules and quota", o->args[0]);

	return e == EXIT_OK ? user_change(o, "DELETE", NULL, "deleted") : e;
}

/* ---- rules */

static const struct column rule_columns[] = {
	{"USER", "user", COLUMN_TEXT, false},
	{"ROLE", "role", COLUMN_TEXT, false},
	{"PERMISSION", "permission", COLUMN_TEXT, false},
	{"ACTION", "action", COLUMN_TEXT, false},
	{"RESOURCE", "resource", COLUMN_TEXT, false},
	{"NAME", "name", COLUMN_TEXT, false},
	{"PATTERN", "pattern", COLUMN_TEXT, false},
	{"HOST", "host", COLUMN_TEXT, true},
	{"TENANT", "tenant", COLUMN_TEXT, false},
	{0},
};

static const struct {
	enum flag flag;
	const char *resource;
} resources[] = {{FLAG_topic, "topic"}, {FLAG_stream, "stream"}, {FLAG_group, "group"},
	{FLAG_cluster, "cluster"}, {FLAG_transaction, "transaction"}};
enum { RESOURCES = sizeof resources / sizeof resources[0] };

/* What the flags say of rules, as the API's fields. */
static enum exit_code rule_said(const struct options *o, cJSON *body)
{
	int count = 0;

	if (o->role_count > 1 || (o->role_count == 1 && o->given[FLAG_user]))
		return usage_error("a rule is of one --user or one --role");
	if (o->role_count == 1)
		cJSON_AddStringToObject(body, "role", o->roles[0]);
	if (o->given[FLAG_user])
		cJSON_AddStringToObject(body, "user", o->value[FLAG_user]);
	for (int i = 0; i < RESOURCES; i++) {
		if (!o->given[resources[i].flag])
			continue;
		count++;
		cJSON_AddStringToObject(body, "resource", resources[i].resource);
		if (o->value[resources[i].flag] != NULL)
			cJSON_AddStringToObject(body, "name", o->value[resources[i].flag]);
	}
	if (count > 1)
		return usage_error("a rule is about one thing");
	if (o->given[FLAG_allow] && o->given[FLAG_deny])
		return usage_error("a rule either allows or denies");
	if (o->given[FLAG_allow] || o->given[FLAG_deny]) {
		bool deny = o->given[FLAG_deny];
		cJSON_AddStringToObject(body, "permission", deny ? "deny" : "allow");
		cJSON_AddStringToObject(body, "action", o->value[deny ? FLAG_deny : FLAG_allow]);
	}
	if (o->given[FLAG_prefixed])
		cJSON_AddStringToObject(body, "pattern", "prefixed");
	if (o->given[FLAG_host])
		cJSON_AddStringToObject(body, "host", o->value[FLAG_host]);
	return EXIT_OK;
}

static char *path_with(const char *path, const cJSON *fields)
{
	size_t size = strlen(path) + 1;
	char *out = mem_text(path, strlen(path));
	const cJSON *v;

	cJSON_ArrayForEach(v, fields)
	{
		char *value = path_of("", v->valuestring);
		size_t more = strlen(v->string) + strlen(value) + 2;
		out = mem_resize(out, size + more);
		must(out != NULL);
		(void)snprintf(out + size - 1, more + 1, "%c%s=%s", v == fields->child ? '?' : '&',
			v->string, value);
		size += more;
		mem_free(value);
	}
	return out;
}

enum exit_code acl_list(const struct options *o)
{
	cJSON *said = cJSON_CreateObject();
	enum exit_code e = rule_said(o, said);
	char *path = path_with("/api/v1/acls", said);

	cJSON_Delete(said);
	if (e == EXIT_OK)
		e = list(o, path, "rules", rule_columns);
	mem_free(path);
	return e;
}

static void count_words(
	const cJSON *document, const char *name, const char *what, char *out, size_t size)
{
	int n = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(document, name));

	(void)snprintf(out, size, "%d %s %s", n, n == 1 ? "rule" : "rules", what);
}

enum exit_code acl_add(const struct options *o)
{
	cJSON *body = cJSON_CreateObject();
	struct answer a = {0};
	char text[64];
	enum exit_code e = rule_said(o, body);

	if (e == EXIT_OK && !o->given[FLAG_allow] && !o->given[FLAG_deny])
		e = usage_error("acl add needs --allow or --deny with actions: read,write");
	if (e == EXIT_OK && cJSON_GetObjectItemCaseSensitive(body, "resource") == NULL)
		e = usage_error("acl add needs what it is about: --topic, --stream, --group, ...");
	if (e == EXIT_OK && !o->given[FLAG_user] && o->role_count == 0)
		e = usage_error("acl add needs --user or --role");
	if (e == EXIT_OK)
		e = client_send(o, "POST", "/api/v1/acls", body, &a);
	else
		cJSON_Delete(body);
	count_words(a.json, "rules", "added", text, sizeof text);
	if (e == EXIT_OK)
		done(o, &a, text);
	answer_fini(&a);
	return e;
}

/* What would go is shown before it goes. */
enum exit_code acl_delete(const struct options *o)
{
	cJSON *said = cJSON_CreateObject();
	char *path = path_of("/api/v1/acls", ""), text[64];
	struct answer a = {0};
	enum exit_code e = rule_said(o, said);
	bool ask = !o->given[FLAG_yes] && !o->given[FLAG_dry_run];
	int count = 1;

	if (e == EXIT_OK && ask) {
		e = client_send(
			o, "DELETE", "/api/v1/acls?dry_run=true", cJSON_Duplicate(said, true), &a);
		count = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(a.json, "deleted"));
		if (e == EXIT_OK && count > 0)
			print_list(o, a.json, "deleted", rule_columns);
		answer_fini(&a);
		if (e == EXIT_OK && count > 0)
			e = confirm(o, "delete %s", count == 1 ? "this rule" : "these rules");
	}
	if (e == EXIT_OK)
		e = client_send(o, "DELETE", path, said, &a);
	else
		cJSON_Delete(said);
	count = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(a.json, "deleted"));
	if (e == EXIT_OK && count == 0) {
		say("sluice: no such rule");
		e = EXIT_NOT_FOUND;
	}
	count_words(a.json, "deleted", "deleted", text, sizeof text);
	if (e == EXIT_OK)
		done(o, &a, text);
	answer_fini(&a);
	mem_free(path);
	return e;
}

/* ---- quotas */

static const struct column quota_columns[] = {
	{"KIND", "kind", COLUMN_TEXT, false},
	{"NAME", "name", COLUMN_TEXT, false},
	{"BYTES IN/S", "bytes-in", COLUMN_BYTES, false},
	{"BYTES OUT/S", "bytes-out", COLUMN_BYTES, false},
	{"MESSAGES IN/S", "messages-in", COLUMN_INT, false},
	{"MESSAGES OUT/S", "messages-out", COLUMN_INT, false},
	{"CONNECTIONS", "connections", COLUMN_INT, false},
	{"STREAMS", "streams", COLUMN_INT, false},
	{"PARTITIONS", "partitions", COLUMN_INT, false},
	{"USERS", "users", COLUMN_INT, false},
	{"RULES", "rules", COLUMN_INT, false},
	{"ROUTES", "routes", COLUMN_INT, false},
	{0},
};

enum exit_code quota_list(const struct options *o)
{
	return list(o, "/api/v1/quotas", "quotas", quota_columns);
}

/* NULL after a message. */
static char *quota_path(const struct options *o)
{
	bool user = o->given[FLAG_user];

	if (user == o->given[FLAG_tenant]) {
		(void)usage_error("a quota is of a --user or a --tenant; '*': of all without one");
		return NULL;
	}
	return path_of(user ? "/api/v1/quotas/user/" : "/api/v1/quotas/tenant/",
		o->value[user ? FLAG_user : FLAG_tenant]);
}

enum exit_code quota_set(const struct options *o)
{
	char *path = quota_path(o);
	struct answer a = {0};
	cJSON *body;
	enum exit_code e;

	if (path == NULL)
		return EXIT_USAGE;
	body = cJSON_CreateObject();
	for (int i = 0; i < o->arg_count; i++) {
		const char *equals = strchr(o->args[i], '=');
		char *name;
		if (equals == NULL) {
			cJSON_Delete(body);
			mem_free(path);
			return usage_error("a limit is written LIMIT=NUMBER, or LIMIT= for none");
		}
		name = mem_text(o->args[i], (size_t)(equals - o->args[i]));
		if (equals[1] == 0)
			cJSON_AddNullToObject(body, name);
		else
			cJSON_AddStringToObject(body, name, equals + 1);
		mem_free(name);
	}
	e = client_send(o, "PATCH", path, body, &a);
	if (e == EXIT_OK)
		done(o, &a, "quota set");
	answer_fini(&a);
	mem_free(path);
	return e;
}

enum exit_code quota_delete(const struct options *o)
{
	char *path = quota_path(o);
	struct answer a = {0};
	enum exit_code e = path == NULL ? EXIT_USAGE : confirm(o, "delete the quota");

	if (e == EXIT_OK)
		e = client_send(o, "DELETE", path, NULL, &a);
	if (e == EXIT_OK)
		done(o, &a, "quota deleted");
	answer_fini(&a);
	mem_free(path);
	return e;
}
