/* Commands about the cluster. What moves data is shown first, then asked for, then done; with
 * --wait the command returns when it has happened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

enum { STEP_MS = 250, PATH_BYTES = 128 };

static bool for_people(const struct options *o)
{
	return o->output == OUT_TABLE || o->output == OUT_WIDE;
}

static const cJSON *member(const cJSON *of, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(of, name);
}

/* ---- looking */

static const struct column cluster_columns[] = {
	{"Cluster", "cluster_name", COLUMN_TEXT, false},
	{"Cluster id", "cluster_id", COLUMN_TEXT, false},
	{"Healthy", "healthy", COLUMN_BOOL, false},
	{"Problems", "problems", COLUMN_TEXT, false},
	{"Controller", "leader", COLUMN_INT, false},
	{"Streams", "streams", COLUMN_INT, false},
	{"Groups", "groups", COLUMN_INT, false},
	{"Without leader", "groups_without_leader", COLUMN_INT, false},
	{"Lacking replicas", "groups_under_replicated", COLUMN_INT, false},
	{"Moving", "groups_moving", COLUMN_INT, false},
	{0},
};
static const struct column node_columns[] = {
	{"NODE", "id", COLUMN_INT, false},
	{"NAME", "name", COLUMN_TEXT, false},
	{"RACK", "rack", COLUMN_TEXT, false},
	{"STATE", "state", COLUMN_TEXT, false},
	{"ANSWERS", "answers", COLUMN_BOOL, false},
	{"READY", "ready", COLUMN_BOOL, false},
	{"REPLICAS", "replicas", COLUMN_INT, false},
	{"LEADS", "leaders", COLUMN_INT, false},
	{"MOVING", "unsettled", COLUMN_INT, false},
	{"MEMORY", "memory_bytes", COLUMN_BYTES, false},
	{"DISK FREE", "disk_free_bytes", COLUMN_BYTES, false},
	{"UP", "uptime_s", COLUMN_SEC, false},
	{"ADDRESS", "address", COLUMN_TEXT, false},
	{"VERSION", "version", COLUMN_TEXT, true},
	{"CONNECTIONS", "connections", COLUMN_INT, true},
	{0},
};
static const struct column partition_columns[] = {
	{"STREAM", "stream", COLUMN_TEXT, false},
	{"PARTITION", "partition", COLUMN_INT, false},
	{"LEADER", "leader", COLUMN_INT, false},
	{"REPLICAS", "replicas", COLUMN_TEXT, false},
	{"IN SYNC", "in_sync", COLUMN_TEXT, false},
	{"MOVING", "moving", COLUMN_BOOL, false},
	{"FIRST", "first_offset", COLUMN_INT, false},
	{"NEXT", "next_offset", COLUMN_INT, false},
	{"SIZE", "bytes", COLUMN_BYTES, false},
	{"EPOCH", "epoch", COLUMN_INT, true},
	{"GROUP", "group", COLUMN_INT, true},
	{0},
};
static const struct column fetch_columns[] = {
	{"STREAM", "stream", COLUMN_TEXT, false},
	{"PARTITION", "partition", COLUMN_INT, false},
	{"NODE", "node", COLUMN_INT, false},
	{"ENTRIES", "entries", COLUMN_INT, false},
	{"OF", "entries_total", COLUMN_INT, false},
	{"FETCHED", "bytes", COLUMN_BYTES, false},
	{0},
};
static const struct column member_columns[] = {
	{"NODE", "node", COLUMN_INT, false},
	{"ROLE", "role", COLUMN_TEXT, false},
	{"IN SYNC", "in_sync", COLUMN_BOOL, false},
	{"BEHIND", "behind", COLUMN_INT, false},
	{0},
};
static const struct column describe_columns[] = {
	{"Stream", "stream", COLUMN_TEXT, false},
	{"Partition", "partition", COLUMN_INT, false},
	{"Leader", "leader", COLUMN_INT, false},
	{"Epoch", "epoch", COLUMN_INT, false},
	{"First offset", "first_offset", COLUMN_INT, false},
	{"Next offset", "next_offset", COLUMN_INT, false},
	{"Records", "records", COLUMN_INT, false},
	{"Size", "bytes", COLUMN_BYTES, false},
	{"Moving", "moving", COLUMN_BOOL, false},
	{"Group", "group", COLUMN_INT, true},
	{0},
};
static const struct column plan_columns[] = {
	{"STREAM", "stream", COLUMN_TEXT, false},
	{"PARTITION", "partition", COLUMN_INT, false},
	{"FROM", "from", COLUMN_TEXT, false},
	{"TO", "to", COLUMN_TEXT, false},
	{"WHY", "reason", COLUMN_TEXT, false},
	{0},
};

/* Whether some node did not answer: what is shown is not all. */
static enum exit_code whole(const cJSON *document)
{
	const cJSON *n;
	bool all = true;

	cJSON_ArrayForEach(n, member(document, "nodes")) all &= cJSON_IsTrue(member(n, "answers"));
	return all ? EXIT_OK : EXIT_PARTIAL;
}

enum exit_code cluster_status(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/cluster", &a);

	if (e == EXIT_OK) {
		print_object(o, a.json, cluster_columns);
		if (for_people(o)) {
			puts("");
			print_list(o, a.json, "nodes", node_columns);
		}
		e = whole(a.json);
	}
	answer_fini(&a);
	return e;
}

enum exit_code cluster_nodes(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/cluster", &a);

	if (e == EXIT_OK) {
		print_list(o, a.json, "nodes", node_columns);
		e = whole(a.json);
	}
	answer_fini(&a);
	return e;
}

enum exit_code cluster_health(const struct options *o)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/cluster/health", &a);
	const cJSON *p;

	if (e == EXIT_OK && !for_people(o))
		print_json(o, a.json);
	if (e == EXIT_OK && !cJSON_IsTrue(member(a.json, "healthy"))) {
		cJSON_ArrayForEach(p, member(a.json, "problems")) if (for_people(o))
			puts(cJSON_IsString(p) ? p->valuestring : "");
		e = EXIT_UNHEALTHY;
	} else if (e == EXIT_OK && for_people(o)) {
		puts("healthy");
	}
	answer_fini(&a);
	return e;
}

static enum exit_code print_groups(const struct options *o, const char *path, const char *list)
{
	struct answer a;
	enum exit_code e = client_get(o, path, &a);
	const cJSON *silent = member(a.json, "unanswered");

	if (e == EXIT_OK) {
		print_list(o, a.json, list, partition_columns);
		if (for_people(o) && cJSON_GetArraySize(member(a.json, "fetches")) > 0) {
			puts("");
			print_list(o, a.json, "fetches", fetch_columns);
		}
		if (cJSON_IsNumber(silent) && silent->valueint > 0) {
			say("sluice: the leaders of %d partitions did not answer",
				silent->valueint);
			e = EXIT_PARTIAL;
		}
	}
	answer_fini(&a);
	return e;
}

enum exit_code cluster_moves(const struct options *o)
{
	return print_groups(o, "/api/v1/cluster/moves", "moves");
}

enum exit_code partition_list(const struct options *o)
{
	char *path = o->arg_count == 1 ? path_of("/api/v1/partitions?stream=", o->args[0]) : NULL;
	enum exit_code e = print_groups(o,
		path != NULL                      ? path
			: o->given[FLAG_internal] ? "/api/v1/partitions?internal=true"
						  : "/api/v1/partitions",
		"partitions");

	mem_free(path);
	return e;
}

enum exit_code partition_describe(const struct options *o)
{
	char *stream, *path, *end;
	long index = strtol(o->args[1], &end, 10);
	size_t size;
	struct answer a;
	enum exit_code e;

	if (end == o->args[1] || *end != 0 || index < 0) {
		say("sluice: a partition is a number: %s", o->args[1]);
		return EXIT_USAGE;
	}
	stream = path_of("/api/v1/partitions/", o->args[0]);
	size = strlen(stream) + 24;
	path = mem_new(size);
	(void)snprintf(path, size, "%s/%ld", stream, index);
	e = client_get(o, path, &a);
	if (e == EXIT_OK) {
		print_object(o, a.json, describe_columns);
		if (for_people(o)) {
			puts("");
			print_list(o, a.json, "members", member_columns);
		}
		if (!cJSON_IsTrue(member(a.json, "answered"))) {
			say("sluice: its leader did not answer: shown is what this node knows");
			e = EXIT_PARTIAL;
		}
	}
	answer_fini(&a);
	mem_free(path);
	mem_free(stream);
	return e;
}

/* ---- changing */

/* A node by its id or its name. */
static enum exit_code node_named(const struct options *o, const char *word, int *id)
{
	struct answer a;
	const cJSON *n;
	char *end;
	enum exit_code e;
	int found = 0;
	long given = strtol(word, &end, 10);

	if (*word != 0 && *end == 0 && given > 0 && given <= INT32_MAX) {
		*id = (int)given;
		return EXIT_OK;
	}
	e = client_get(o, "/api/v1/cluster", &a);
	*id = 0;
	cJSON_ArrayForEach(n, member(a.json, "nodes"))
	{
		const cJSON *name = member(n, "name"), *number = member(n, "id");
		if (cJSON_IsString(name) && cJSON_IsNumber(number) &&
			strcmp(name->valuestring, word) == 0) {
			*id = number->valueint;
			found++;
		}
	}
	answer_fini(&a);
	if (e == EXIT_OK && found == 0) {
		say("sluice: no node %s", word);
		e = EXIT_NOT_FOUND;
	} else if (e == EXIT_OK && found > 1) {
		say("sluice: %d nodes are named %s: give the id of one", found, word);
		e = EXIT_USAGE;
	}
	return e;
}

static bool holds(const cJSON *list, int node)
{
	const cJSON *n;

	cJSON_ArrayForEach(n, list) if (cJSON_IsNumber(n) && n->valueint == node) return true;
	return false;
}

/* How many groups are not where they are wanted, or still have a replica on the node (0: any).
 * Every node follows the catalogue until it is removed. */
static enum exit_code left_to_do(const struct options *o, int node, int *left)
{
	struct answer a;
	enum exit_code e = client_get(o, "/api/v1/partitions?internal=true", &a);
	const cJSON *p, *silent = member(a.json, "unanswered");

	*left = cJSON_IsNumber(silent) ? silent->valueint : 0;
	cJSON_ArrayForEach(p, member(a.json, "partitions"))
	{
		const cJSON *name = member(p, "stream");
		if (cJSON_IsString(name) && strcmp(name->valuestring, "__catalog") == 0)
			continue;
		*left += cJSON_IsTrue(member(p, "moving")) ||
			(node > 0 && holds(member(p, "replicas"), node));
	}
	answer_fini(&a);
	return e;
}

static enum exit_code wait_done(const struct options *o, int node)
{
	int64_t until = clock_ms() + o->timeout_ms;
	int left = 0, quiet = 0, said = -1;
	enum exit_code e;

	/* Plans are made in steps: nothing to do is believed when it is seen some times. */
	while ((e = left_to_do(o, node, &left)) == EXIT_OK && (left > 0 || ++quiet < 4)) {
		if (left > 0)
			quiet = 0;
		if (left != said && left > 0 && for_people(o))
			say("%d partitions to go", left);
		said = left;
		if (clock_ms() > until) {
			say("sluice: %d partitions are still to move", left);
			return EXIT_UNREACHABLE;
		}
		nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000}, NULL);
	}
	return e;
}

static enum exit_code show_plan(const struct options *o, const char *method, const char *path)
{
	char full[PATH_BYTES + 16];
	struct answer a = {0};
	const cJSON *fewer;
	enum exit_code e;
	struct request r = {.method = method, .path = full};

	(void)snprintf(full, sizeof full, "%s%sdry_run=true", path, strchr(path, '?') ? "&" : "?");
	e = client_call(o, &r, &a);
	if (e == EXIT_OK && (for_people(o) || o->given[FLAG_dry_run])) {
		if (for_people(o) && cJSON_GetArraySize(member(a.json, "plan")) == 0)
			say("nothing would move");
		else
			print_list(o, a.json, "plan", plan_columns);
	}
	fewer = member(a.json, "fewer_replicas");
	if (e == EXIT_OK && cJSON_IsNumber(fewer) && fewer->valueint > 0)
		say("%d partitions would have fewer replicas", fewer->valueint);
	answer_fini(&a);
	return e;
}

/* Shows, asks, does, waits. node 0: of no node. */
static enum exit_code carry_out(
	const struct options *o, const char *method, const char *path, int node, const char *what)
{
	struct answer a = {0};
	enum exit_code e = show_plan(o, method, path);

	if (e != EXIT_OK || o->given[FLAG_dry_run])
		return e;
	e = confirm(o, "%s", what);
	if (e == EXIT_OK)
		e = client_send(o, method, path, NULL, &a);
	answer_fini(&a);
	if (e == EXIT_OK && o->given[FLAG_wait])
		e = wait_done(o, node);
	if (e == EXIT_OK && for_people(o))
		say("%s: %s", what, o->given[FLAG_wait] ? "done" : "begun");
	return e;
}

enum exit_code cluster_drain(const struct options *o)
{
	char path[PATH_BYTES], what[64];
	int id;
	enum exit_code e = node_named(o, o->args[0], &id);
	struct answer a = {0};

	if (e != EXIT_OK)
		return e;
	(void)snprintf(path, sizeof path, "/api/v1/cluster/nodes/%d/drain%s", id,
		o->given[FLAG_force] ? "?force=true" : "");
	(void)snprintf(what, sizeof what, "drain node %d", id);
	if (!o->given[FLAG_undo])
		return carry_out(o, "POST", path, id, what);
	e = client_send(o, "DELETE", path, NULL, &a);
	answer_fini(&a);
	if (e == EXIT_OK && for_people(o))
		say("node %d %s be used again", id, o->given[FLAG_dry_run] ? "would" : "will");
	return e;
}

enum exit_code cluster_remove(const struct options *o)
{
	char path[PATH_BYTES];
	struct answer a = {0};
	int id;
	enum exit_code e = node_named(o, o->args[0], &id);

	if (e == EXIT_OK)
		e = confirm(o, "remove node %d%s", id,
			o->given[FLAG_force] ? ", whatever is on it" : "");
	if (e != EXIT_OK)
		return e;
	(void)snprintf(path, sizeof path, "/api/v1/cluster/nodes/%d%s", id,
		o->given[FLAG_force] ? "?force=true" : "");
	e = client_send(o, "DELETE", path, NULL, &a);
	answer_fini(&a);
	if (e == EXIT_OK && for_people(o))
		say("node %d %s removed", id, o->given[FLAG_dry_run] ? "would be" : "is");
	return e;
}

enum exit_code cluster_balance(const struct options *o)
{
	return carry_out(o, "POST", "/api/v1/cluster/balance", 0, "balance the cluster");
}
