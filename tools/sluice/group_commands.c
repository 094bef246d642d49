/* Consumer groups. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "server/base/clock.h"
#include "server/base/conf.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

static const struct column group_columns[] = {
	{"GROUP", "group", COLUMN_TEXT, false},
	{"STATE", "state", COLUMN_TEXT, false},
	{"TYPE", "type", COLUMN_TEXT, false},
	{"NODE", "node", COLUMN_INT, true},
	{0},
};
static const struct column describe_columns[] = {
	{"Group", "group", COLUMN_TEXT, false},
	{"State", "state", COLUMN_TEXT, false},
	{"Type", "type", COLUMN_TEXT, false},
	{"Protocol", "protocol", COLUMN_TEXT, false},
	{"Node", "node", COLUMN_INT, false},
	{0},
};
static const struct column member_columns[] = {
	{"MEMBER", "member", COLUMN_TEXT, false},
	{"CLIENT", "client", COLUMN_TEXT, false},
	{"HOST", "host", COLUMN_TEXT, false},
	{"INSTANCE", "instance", COLUMN_TEXT, true},
	{0},
};
static const struct column offset_columns[] = {
	{"STREAM", "stream", COLUMN_TEXT, false},
	{"PARTITION", "partition", COLUMN_INT, false},
	{"OFFSET", "offset", COLUMN_INT, false},
	{"END", "end_offset", COLUMN_INT, false},
	{"LAG", "lag", COLUMN_INT, false},
	{"COMMITTED", "committed", COLUMN_TEXT, true},
	{0},
};
static const struct column reset_columns[] = {
	{"PARTITION", "partition", COLUMN_INT, false},
	{"OFFSET", "offset", COLUMN_INT, false},
	{0},
};

static bool for_people(const struct options *o)
{
	return o->output == OUT_TABLE || o->output == OUT_WIDE;
}

enum exit_code group_list(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/groups", &a);

	if (e == EXIT_OK)
		print_list(o, a.json, "groups", group_columns);
	answer_fini(&a);
	return e;
}

enum exit_code group_describe(const struct options *o)
{
	char *path = path_of("/api/v1/groups/", o->args[0]);
	struct answer a;
	enum exit_code e = client_get(o, path, &a);

	if (e == EXIT_OK)
		print_object(o, a.json, describe_columns);
	if (e == EXIT_OK && for_people(o)) {
		puts("");
		print_list(o, a.json, "members", member_columns);
		puts("");
		print_list(o, a.json, "offsets", offset_columns);
	}
	answer_fini(&a);
	mem_free(path);
	return e;
}

enum exit_code group_delete(const struct options *o)
{
	char *path = path_of("/api/v1/groups/", o->args[0]);
	struct answer a = {0};
	enum exit_code e = confirm(o, "delete group %s with its offsets", o->args[0]);

	if (e == EXIT_OK)
		e = client_send(o, "DELETE", path, NULL, &a);
	if (e == EXIT_OK && for_people(o))
		say("group %s %s", o->args[0],
			o->given[FLAG_dry_run] ? "could be deleted" : "deleted");
	answer_fini(&a);
	mem_free(path);
	return e;
}

/* earliest, latest, an offset; a time as 2026-01-31T12:00:00Z, or as -1h: so long ago. */
static enum exit_code to_read(const struct options *o, cJSON *body)
{
	const char *text = o->value[FLAG_to], *rest;
	struct tm tm = {0};
	int64_t n;

	if (text == NULL)
		return usage_error("group reset needs --to: earliest, latest, an offset or a time");
	if (strcmp(text, "earliest") == 0 || strcmp(text, "latest") == 0) {
		cJSON_AddStringToObject(body, "to", text);
	} else if (text[0] == '-' && conf_parse_msec(text + 1, &n) == OK && n > 0) {
		cJSON_AddNumberToObject(body, "time", (double)(clock_wall_ms() - n));
	} else if (conf_parse_int(text, &n) == OK && n >= 0) {
		cJSON_AddNumberToObject(body, "to", (double)n);
	} else if ((rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm)) != NULL &&
		strcmp(rest, "Z") == 0) {
		cJSON_AddNumberToObject(body, "time", (double)timegm(&tm) * 1000);
	} else {
		return usage_error("--to is earliest, latest, an offset, 2026-01-31T12:00:00Z, or "
				   "-1h");
	}
	return EXIT_OK;
}

enum exit_code group_reset(const struct options *o)
{
	char *path = path_of("/api/v1/groups/", o->args[0]), *full;
	size_t size = strlen(path) + sizeof "/reset";
	cJSON *body = cJSON_CreateObject();
	struct answer a = {0};
	int64_t partition = -1;
	enum exit_code e = to_read(o, body);

	if (e == EXIT_OK && o->value[FLAG_stream] == NULL)
		e = usage_error("group reset needs --stream");
	if (e == EXIT_OK)
		e = flag_int(o, FLAG_partition, &partition);
	if (e == EXIT_OK)
		e = confirm(o, "move group %s on stream %s", o->args[0], o->value[FLAG_stream]);
	if (o->value[FLAG_stream] != NULL)
		cJSON_AddStringToObject(body, "stream", o->value[FLAG_stream]);
	if (o->given[FLAG_partition])
		cJSON_AddNumberToObject(body, "partition", (double)partition);
	full = mem_new(size);
	(void)snprintf(full, size, "%s/reset", path);
	if (e == EXIT_OK)
		e = client_send(o, "POST", full, body, &a);
	else
		cJSON_Delete(body);
	if (e == EXIT_OK)
		print_list(o, a.json, "offsets", reset_columns);
	answer_fini(&a);
	mem_free(full);
	mem_free(path);
	return e;
}
