/* Commands that administer: each is one request, and a table of what came back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

enum { WAIT_STEP_MS = 50 };

/* ---- streams */

static const struct column stream_columns[] = {
	{"NAME", "name", COLUMN_TEXT, false},
	{"PARTITIONS", "partitions", COLUMN_INT, false},
	{"RECORDS", "records", COLUMN_INT, false},
	{"SIZE", "bytes", COLUMN_BYTES, false},
	{"RETENTION", "retention_ms", COLUMN_MSEC, false},
	{"SIZE LIMIT", "retention_bytes", COLUMN_BYTES, true},
	{"REPLICAS", "replicas", COLUMN_INT, true},
	{"LEADERLESS", "without_leader", COLUMN_INT, true},
	{"INTERNAL", "internal", COLUMN_BOOL, true},
	{0},
};
static const struct column describe_columns[] = {
	{"Name", "name", COLUMN_TEXT, false},
	{"Id", "uuid", COLUMN_TEXT, true},
	{"Created", "created", COLUMN_TEXT, false},
	{"Partitions", "partitions", COLUMN_INT, false},
	{"Records", "records", COLUMN_INT, false},
	{"Size", "bytes", COLUMN_BYTES, false},
	{"Retention", "retention_ms", COLUMN_MSEC, false},
	{"Size limit", "retention_bytes", COLUMN_BYTES, false},
	{"Largest message", "message_bytes_max", COLUMN_BYTES, false},
	{0},
};
static const struct column partition_columns[] = {
	{"PARTITION", "partition", COLUMN_INT, false},
	{"LEADER", "leader", COLUMN_INT, false},
	{"REPLICAS", "replicas", COLUMN_TEXT, false},
	{"IN SYNC", "in_sync", COLUMN_TEXT, false},
	{"FIRST", "first_offset", COLUMN_INT, false},
	{"NEXT", "next_offset", COLUMN_INT, false},
	{"RECORDS", "records", COLUMN_INT, false},
	{"SIZE", "bytes", COLUMN_BYTES, false},
	{"EPOCH", "epoch", COLUMN_INT, true},
	{0},
};

static bool for_people(const struct options *o)
{
	return o->output == OUT_TABLE || o->output == OUT_WIDE;
}

enum exit_code stream_list(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o,
		o->given[FLAG_internal] ? "/api/v1/streams?internal=true" : "/api/v1/streams", &a);

	if (e == EXIT_OK)
		print_list(o, a.json, "streams", stream_columns);
	answer_fini(&a);
	return e;
}

static void print_settings(const cJSON *settings)
{
	const cJSON *s;

	cJSON_ArrayForEach(s, settings) if (cJSON_IsString(s))
		printf("Setting          %s = %s\n", s->string, s->valuestring);
}

enum exit_code stream_describe(const struct options *o)
{
	char *path = path_of("/api/v1/streams/", o->args[0]);
	struct answer a;
	enum exit_code e = client_get(o, path, &a);

	if (e == EXIT_OK)
		print_object(o, a.json, describe_columns);
	if (e == EXIT_OK && for_people(o)) {
		print_settings(cJSON_GetObjectItemCaseSensitive(a.json, "settings"));
		puts("");
		print_list(o, a.json, "partition_list", partition_columns);
	}
	answer_fini(&a);
	mem_free(path);
	return e;
}

static void add_setting(cJSON *settings, const char *pair)
{
	size_t len = strcspn(pair, "=");
	char *key = mem_text(pair, len);

	if (pair[len + 1] == 0)
		cJSON_AddNullToObject(settings, key);
	else
		cJSON_AddStringToObject(settings, key, pair + len + 1);
	mem_free(key);
}

/* What create and alter have in common. */
static enum exit_code body_of(const struct options *o, cJSON *body)
{
	cJSON *settings = cJSON_AddObjectToObject(body, "settings");
	int64_t partitions = -1, replicas = -1;
	enum exit_code e = flag_int(o, FLAG_partitions, &partitions);

	if (e == EXIT_OK)
		e = flag_int(o, FLAG_replicas, &replicas);
	if (o->given[FLAG_partitions])
		cJSON_AddNumberToObject(body, "partitions", (double)partitions);
	if (o->given[FLAG_replicas])
		cJSON_AddNumberToObject(body, "replicas", (double)replicas);
	if (o->given[FLAG_retention])
		cJSON_AddStringToObject(settings, "retention.ms", o->value[FLAG_retention]);
	if (o->given[FLAG_retention_bytes])
		cJSON_AddStringToObject(
			settings, "retention.bytes", o->value[FLAG_retention_bytes]);
	for (int i = 0; i < o->set_count; i++)
		add_setting(settings, o->sets[i]);
	return e;
}

/* Until each partition has a leader. */
static enum exit_code wait_led(const struct options *o, const char *name)
{
	int64_t until = clock_ms() + o->timeout_ms;
	char *path = path_of("/api/v1/streams/", name);
	enum exit_code e = EXIT_OK;

	for (;;) {
		int without = 0;
		const cJSON *p;
		struct answer a;
		e = client_get(o, path, &a);
		cJSON_ArrayForEach(p, cJSON_GetObjectItemCaseSensitive(a.json, "partition_list"))
			without += !cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(p, "leader"));
		answer_fini(&a);
		if (e != EXIT_OK || without == 0)
			break;
		if (clock_ms() > until) {
			say("sluice: %d partitions have no leader yet", without);
			e = EXIT_UNREACHABLE;
			break;
		}
		nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_MS * 1000000}, NULL);
	}
	mem_free(path);
	return e;
}

/* A change that worked: words for people, the stream for programs. */
static void changed(const struct options *o, const struct answer *a, const char *what)
{
	if (o->given[FLAG_dry_run])
		say("would be %s", what);
	else if (for_people(o))
		say("stream %s %s", o->args[0], what);
	if (!for_people(o) && a->json != NULL)
		print_json(o, a->json);
}

enum exit_code stream_create(const struct options *o)
{
	cJSON *body = cJSON_CreateObject();
	struct answer a = {0};
	enum exit_code e = body_of(o, body);

	cJSON_AddStringToObject(body, "name", o->args[0]);
	if (e != EXIT_OK) {
		cJSON_Delete(body);
		return e;
	}
	e = client_send(o, "POST", "/api/v1/streams", body, &a);
	if (e == EXIT_OK && o->given[FLAG_wait] && !o->given[FLAG_dry_run])
		e = wait_led(o, o->args[0]);
	if (e == EXIT_OK)
		changed(o, &a, "created");
	answer_fini(&a);
	return e;
}

enum exit_code stream_alter(const struct options *o)
{
	char *path = path_of("/api/v1/streams/", o->args[0]);
	cJSON *body = cJSON_CreateObject();
	struct answer a = {0};
	enum exit_code e = body_of(o, body);

	if (e == EXIT_OK)
		e = client_send(o, "PATCH", path, body, &a);
	else
		cJSON_Delete(body);
	if (e == EXIT_OK)
		changed(o, &a, "altered");
	answer_fini(&a);
	mem_free(path);
	return e;
}

/* A DELETE of one thing, asked for first. */
static enum exit_code delete_one(const struct options *o, const char *before, const char *what)
{
	char *path = path_of(before, o->args[0]);
	struct answer a = {0};
	enum exit_code e = confirm(o, "delete %s %s", what, o->args[0]);

	if (e == EXIT_OK)
		e = client_send(o, "DELETE", path, NULL, &a);
	if (e == EXIT_OK && for_people(o))
		say("%s %s %s", what, o->args[0],
			o->given[FLAG_dry_run] ? "would be deleted" : "deleted");
	answer_fini(&a);
	mem_free(path);
	return e;
}

enum exit_code stream_delete(const struct options *o)
{
	return delete_one(o, "/api/v1/streams/", "stream");
}

enum exit_code stream_trim(const struct options *o)
{
	char *path = path_of("/api/v1/streams/", o->args[0]), *full;
	int64_t partition = -1, before = -1;
	struct answer a = {0};
	cJSON *body = cJSON_CreateObject();
	enum exit_code e = flag_int(o, FLAG_partition, &partition);

	if (e == EXIT_OK)
		e = flag_int(o, FLAG_before, &before);
	if (e == EXIT_OK && o->given[FLAG_before] == o->given[FLAG_older_than])
		e = usage_error("stream trim needs one of --before and --older-than");
	if (e == EXIT_OK)
		e = confirm(o, "trim stream %s", o->args[0]);
	if (o->given[FLAG_partition])
		cJSON_AddNumberToObject(body, "partition", (double)partition);
	if (o->given[FLAG_before])
		cJSON_AddNumberToObject(body, "before_offset", (double)before);
	if (o->given[FLAG_older_than])
		cJSON_AddStringToObject(body, "older_than", o->value[FLAG_older_than]);
	full = mem_new(strlen(path) + 8);
	(void)snprintf(full, strlen(path) + 8, "%s/trim", path);
	if (e == EXIT_OK)
		e = client_send(o, "POST", full, body, &a);
	else
		cJSON_Delete(body);
	if (e == EXIT_OK)
		changed(o, &a, "trimmed");
	answer_fini(&a);
	mem_free(full);
	mem_free(path);
	return e;
}

/* ---- routes */

static const struct column route_columns[] = {
	{"NAME", "name", COLUMN_TEXT, false},
	{"FILTER", "filter", COLUMN_TEXT, false},
	{"STREAM", "stream", COLUMN_TEXT, false},
	{"DURABILITY", "durability", COLUMN_TEXT, false},
	{"KEY", "key", COLUMN_TEXT, false},
	{"SOURCE", "source", COLUMN_TEXT, false},
	{0},
};

enum exit_code route_list(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/routes", &a);

	if (e == EXIT_OK)
		print_list(o, a.json, "routes", route_columns);
	answer_fini(&a);
	return e;
}

enum exit_code route_set(const struct options *o)
{
	const char *durability = o->value[FLAG_durability], *key = o->value[FLAG_key];
	const char *stream = o->value[FLAG_stream];
	char *path, text[2048];
	struct answer a = {0};
	enum exit_code e;
	cJSON *body;
	int len;

	if (stream == NULL)
		return usage_error("route set needs --stream");
	len = snprintf(text, sizeof text, "%s -> %s%s%s%s%s", o->args[1], stream,
		durability ? " durability=" : "", durability ? durability : "", key ? " key=" : "",
		key ? key : "");
	if (len < 0 || (size_t)len >= sizeof text)
		return usage_error("the route is too long");
	path = path_of("/api/v1/routes/", o->args[0]);
	body = cJSON_CreateObject();
	cJSON_AddStringToObject(body, "route", text);
	e = client_send(o, "PUT", path, body, &a);
	if (e == EXIT_OK && for_people(o))
		say("route %s %s", o->args[0], o->given[FLAG_dry_run] ? "would be set" : "set");
	answer_fini(&a);
	mem_free(path);
	return e;
}

enum exit_code route_delete(const struct options *o)
{
	return delete_one(o, "/api/v1/routes/", "route");
}

/* ---- settings */

static const struct column config_columns[] = {
	{"KEY", "key", COLUMN_TEXT, false},
	{"VALUE", "value", COLUMN_TEXT, false},
	{"SOURCE", "source", COLUMN_TEXT, false},
	{"EFFECT", "effect", COLUMN_TEXT, true},
	{"DEFAULT", "default", COLUMN_TEXT, true},
	{"HELP", "help", COLUMN_TEXT, true},
	{0},
};

/* Leaves the settings whose key is, or begins with, name. Whether any is left. */
static bool keep_settings(cJSON *document, const char *name)
{
	cJSON *list = cJSON_GetObjectItemCaseSensitive(document, "settings"), *s, *next;
	size_t len = strlen(name);

	for (s = list != NULL ? list->child : NULL; s != NULL; s = next) {
		const cJSON *key = cJSON_GetObjectItemCaseSensitive(s, "key");
		next = s->next;
		if (!cJSON_IsString(key) || strncmp(key->valuestring, name, len) != 0 ||
			(key->valuestring[len] != 0 && key->valuestring[len] != '.'))
			cJSON_Delete(cJSON_DetachItemViaPointer(list, s));
	}
	return cJSON_GetArraySize(list) > 0;
}

enum exit_code config_show(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/config", &a);

	if (e == EXIT_OK && o->arg_count == 1 && !keep_settings(a.json, o->args[0])) {
		say("sluice: no such key: %s", o->args[0]);
		e = EXIT_NOT_FOUND;
	}
	if (e == EXIT_OK)
		print_list(o, a.json, "settings", config_columns);
	answer_fini(&a);
	return e;
}

enum exit_code config_set(const struct options *o)
{
	char *path = path_of("/api/v1/config/", o->args[0]);
	bool set = o->arg_count == 2;
	cJSON *body = set ? cJSON_CreateObject() : NULL;
	struct answer a = {0};
	enum exit_code e;

	if (set)
		cJSON_AddStringToObject(body, "value", o->args[1]);
	e = client_send(o, set ? "PUT" : "DELETE", path, body, &a);
	if (e == EXIT_OK && for_people(o))
		say("%s %s", o->args[0],
			o->given[FLAG_dry_run] ? "would be changed"
				: set          ? "set for the cluster"
					       : "taken back");
	answer_fini(&a);
	mem_free(path);
	return e;
}

char *beside(const struct options *o, const char *program)
{
	char self[4096];
	ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
	size_t folder, size;
	char *out;

	(void)o;
	if (len < 0)
		len = 0;
	self[len] = 0;
	folder = strrchr(self, '/') == NULL ? 0 : (size_t)(strrchr(self, '/') - self) + 1;
	size = folder + strlen(program) + 1;
	out = mem_new(size);
	(void)snprintf(out, size, "%.*s%s", (int)folder, self, program);
	return out;
}

/* The rules are the daemon's: it checks, and says what is wrong on our stderr. */
enum exit_code config_check(const struct options *o)
{
	char *daemon = beside(o, "sluiced");
	int status;
	pid_t child = fork();

	if (child == 0) {
		execl(daemon, "sluiced", "--check-config", "--config", o->args[0], (char *)NULL);
		execlp("sluiced", "sluiced", "--check-config", "--config", o->args[0],
			(char *)NULL);
		_exit(127);
	}
	mem_free(daemon);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return EXIT_FAILED;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		say("%s is fine", o->args[0]);
		return EXIT_OK;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		say("sluice: sluiced was not found");
	return EXIT_FAILED;
}

/* ---- the node */

static const struct column node_columns[] = {
	{"State", "state", COLUMN_TEXT, false},
	{"Node", "id", COLUMN_INT, false},
	{"Name", "name", COLUMN_TEXT, false},
	{"Rack", "rack", COLUMN_TEXT, true},
	{"Version", "version", COLUMN_TEXT, false},
	{"Cluster", "cluster_name", COLUMN_TEXT, false},
	{"Cluster id", "cluster_id", COLUMN_TEXT, true},
	{"Started", "started", COLUMN_TEXT, true},
	{"Up for", "uptime_s", COLUMN_SEC, false},
	{"Connections", "connections", COLUMN_INT, false},
	{"Streams", "streams", COLUMN_INT, false},
	{"Partitions", "partitions", COLUMN_INT, false},
	{"Leading", "partitions_leading", COLUMN_INT, false},
	{"Records", "records", COLUMN_INT, false},
	{"Size", "bytes", COLUMN_BYTES, false},
	{"Memory", "memory_bytes", COLUMN_BYTES, false},
	{"Processor s", "cpu_s", COLUMN_INT, false},
	{"Open files", "open_files", COLUMN_INT, true},
	{"Loops", "loops", COLUMN_INT, true},
	{0},
};
static const struct column door_columns[] = {
	{"DOOR", "protocol", COLUMN_TEXT, false},
	{"TLS", "tls", COLUMN_BOOL, false},
	{"ADDRESS", "address", COLUMN_TEXT, false},
	{"ADVERTISED", "advertised", COLUMN_TEXT, true},
	{0},
};

enum exit_code node_status(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/node", &a);
	const cJSON *state = cJSON_GetObjectItemCaseSensitive(a.json, "state");

	if (e == EXIT_OK)
		print_object(o, a.json, node_columns);
	if (e == EXIT_OK && for_people(o)) {
		puts("");
		print_list(o, a.json, "doors", door_columns);
	}
	if (e == EXIT_OK && (!cJSON_IsString(state) || strcmp(state->valuestring, "ready") != 0))
		e = EXIT_UNHEALTHY;
	answer_fini(&a);
	return e;
}
