/* Commands that move messages: pub, sub, bench. sub asks for each partition with a long poll of its
 * own; a topic is found in the streams its routes may lead to, by the record's key, which is the
 * topic unless the route or the header mqtt.topic says otherwise. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/conf.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

enum { STDIN_STEP = 65536, STDIN_MAX = 64 << 20, POLLS_MAX = 4096 };

/* ---- pub */

/* All of stdin; NULL, after a message: too much, or it can't be read. */
static char *stdin_read(size_t *len)
{
	char *all = NULL;
	size_t got;

	*len = 0;
	do {
		char *more = *len > STDIN_MAX ? NULL : mem_resize(all, *len + STDIN_STEP);
		if (more == NULL) {
			say("sluice: stdin is over 64 MiB");
			mem_free(all);
			return NULL;
		}
		all = more;
		got = fread(all + *len, 1, STDIN_STEP, stdin);
		*len += got;
	} while (got > 0);
	if (ferror(stdin)) {
		say("sluice: stdin could not be read");
		mem_free(all);
		return NULL;
	}
	return all;
}

/* Takes path and gives it with one more query parameter. */
static char *add_query(char *path, const char *name, const char *value)
{
	char *encoded = path_of("", value);
	size_t size = strlen(path) + strlen(name) + strlen(encoded) + 3;
	char *out = mem_new(size);

	(void)snprintf(out, size, "%s%c%s=%s", path, strchr(path, '?') ? '&' : '?', name, encoded);
	mem_free(encoded);
	mem_free(path);
	return out;
}

static char *records_path(const char *stream)
{
	char *start = path_of("/streams/", stream);
	size_t size = strlen(start) + sizeof "/records";
	char *path = mem_new(size);

	(void)snprintf(path, size, "%s/records", start);
	mem_free(start);
	return path;
}

static char *pub_path(const struct options *o)
{
	static const struct {
		enum flag flag;
		const char *name;
	} queries[] = {{FLAG_key, "key"}, {FLAG_partition, "partition"}, {FLAG_retain, "retain"},
		{FLAG_qos, "qos"}, {FLAG_expires, "expires"}};
	const char *stream = o->value[FLAG_stream];
	char *path = stream ? records_path(stream) : topic_path(o->args[0]);

	for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
		const char *value = o->value[queries[i].flag];
		if (o->given[queries[i].flag])
			path = add_query(path, queries[i].name, value ? value : "true");
	}
	return path;
}

static int pub_lines(const struct options *o, const char **lines)
{
	for (int i = 0; i < o->header_count; i++) {
		size_t name = strcspn(o->headers[i], "=");
		size_t size = strlen(o->headers[i]) + 16;
		char *line = mem_new(size);
		const char *value = o->headers[i] + name + 1;
		/* "NAME:" with nothing behind would mean to the library: leave it out. */
		bool empty = value[strspn(value, " \t")] == 0;
		(void)snprintf(line, size, "X-Prop-%.*s%s%s", (int)name, o->headers[i],
			empty ? ";" : ": ", empty ? "" : value);
		lines[i] = line;
	}
	return o->header_count;
}

static enum exit_code pub_send(const struct options *o, const char *payload, size_t len)
{
	const char *lines[REPEATS_MAX];
	int line_count = pub_lines(o, lines);
	char *path = pub_path(o);
	struct answer a = {0};
	enum exit_code e = client_call(o,
		&(struct request){.method = "POST",
			.path = path,
			.body = payload,
			.len = len,
			.type = "",
			.lines = lines,
			.line_count = line_count},
		&a);

	if (e == EXIT_OK && a.json != NULL && o->output >= OUT_JSON)
		print_json(o, a.json);
	answer_fini(&a);
	for (int i = 0; i < line_count; i++)
		mem_free((void *)(uintptr_t)lines[i]);
	mem_free(path);
	return e;
}

enum exit_code pub(const struct options *o)
{
	bool stream = o->given[FLAG_stream];
	int payload_at = stream ? 0 : 1;
	const char *given = o->arg_count > payload_at ? o->args[payload_at] : "-";
	enum exit_code e;
	char *all;
	size_t len;

	if (!stream && o->arg_count < 1)
		return usage_error("pub needs a TOPIC, or --stream");
	if (stream && o->arg_count > 1)
		return usage_error("with --stream there is no TOPIC");
	if (!stream && (o->given[FLAG_key] || o->given[FLAG_partition]))
		return usage_error("--key and --partition go with --stream");
	if (stream && (o->given[FLAG_retain] || o->given[FLAG_qos] || o->given[FLAG_expires]))
		return usage_error("--retain, --qos and --expires go with a TOPIC");
	if (strcmp(given, "-") != 0)
		return pub_send(o, given, strlen(given));
	all = stdin_read(&len);
	if (all == NULL)
		return EXIT_FAILED;
	e = pub_send(o, all, len);
	mem_free(all);
	return e;
}

/* ---- sub */

struct sub_all {
	const struct options *o;
	const char *filter; /* NULL: all records */
	int64_t left;       /* to be printed; -1: no bound */
	bool enough;        /* none is left to be printed, or it can't be */
	cJSON *records;     /* -o json */
	struct sub_part *parts;
	int count;
};

struct sub_part {
	struct sub_all *all;
	char *stream;
	int partition;
	int64_t until; /* where the end was at the start; ends there unless followed */
};

/* MQTT's matching; a filter that begins with a wildcard does not match "$...". */
static bool filter_matches(const char *filter, const char *topic)
{
	if (*topic == '$' && (*filter == '#' || *filter == '+'))
		return false;
	for (;;) {
		size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");
		if (filter[0] == '#' && f == 1)
			return true;
		if (!(f == 1 && *filter == '+') && (f != t || strncmp(filter, topic, f) != 0))
			return false;
		filter += f;
		topic += t;
		if (*topic == 0)
			return *filter == 0 || strcmp(filter, "/#") == 0;
		if (*filter == 0)
			return false;
		filter++;
		topic++;
	}
}

static const char *text_of(const cJSON *o, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsString(v) ? v->valuestring : NULL;
}

static int64_t int_of(const cJSON *o, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsNumber(v) ? (int64_t)v->valuedouble : 0;
}

static const char *topic_of(const cJSON *record)
{
	const cJSON *h;

	cJSON_ArrayForEach(h, cJSON_GetObjectItemCaseSensitive(record, "headers"))
	{
		const char *name = text_of(h, "name");
		if (name != NULL && strcmp(name, "mqtt.topic") == 0)
			return text_of(h, "value");
	}
	return text_of(record, "key");
}

static void print_record(const struct sub_part *p, cJSON *record)
{
	const struct options *o = p->all->o;
	const char *topic = topic_of(record), *value = text_of(record, "value");
	const char *base64 = text_of(record, "value_base64");

	if (o->output >= OUT_JSON) {
		cJSON_AddStringToObject(record, "stream", p->stream);
		cJSON_AddNumberToObject(record, "partition", p->partition);
	}
	if (o->output == OUT_JSON) {
		cJSON_AddItemToArray(p->all->records, cJSON_Duplicate(record, true));
	} else if (o->output == OUT_NDJSON) {
		print_json(o, record);
	} else {
		const char *shown = value ? value : base64 ? base64 : "";
		if (o->output == OUT_WIDE)
			printf("%s/%d/%lld ", p->stream, p->partition,
				(long long)int_of(record, "offset"));
		if (o->given[FLAG_payload])
			puts(shown);
		else
			printf("%s %s%s\n", topic ? topic : "-",
				value || !base64 ? "" : "base64:", shown);
	}
	fflush(stdout);
	if (ferror(stdout))
		p->all->enough = true;
}

static char *poll_path(const struct sub_part *p, const char *offset)
{
	char *path = records_path(p->stream), number[16], wait[16];

	(void)snprintf(number, sizeof number, "%d", p->partition);
	path = add_query(path, "partition", number);
	path = add_query(path, "offset", offset);
	path = add_query(path, "max", "1000");
	(void)snprintf(wait, sizeof wait, "%ds", FOLLOW_WAIT_S);
	return p->all->o->given[FLAG_follow] ? add_query(path, "wait", wait) : path;
}

static char *on_records(void *arg, const cJSON *answer)
{
	struct sub_part *p = arg;
	int64_t next = int_of(answer, "next_offset");
	char number[32];
	cJSON *record;

	cJSON_ArrayForEach(record, cJSON_GetObjectItemCaseSensitive(answer, "records"))
	{
		const char *topic = topic_of(record);
		if (p->all->enough)
			return NULL;
		if (p->until >= 0 && int_of(record, "offset") >= p->until)
			return NULL;
		if (p->all->filter != NULL &&
			(topic == NULL || !filter_matches(p->all->filter, topic)))
			continue;
		print_record(p, record);
		if (p->all->left > 0 && --p->all->left == 0)
			p->all->enough = true;
	}
	if (p->all->enough || (p->until >= 0 && next >= p->until))
		return NULL;
	(void)snprintf(number, sizeof number, "%lld", (long long)next);
	return poll_path(p, number);
}

/* Adds the partitions of a stream that are asked for. */
static enum exit_code sub_add(struct sub_all *all, const char *stream)
{
	const struct options *o = all->o;
	char *path = path_of("/api/v1/streams/", stream);
	int64_t only = -1;
	struct answer a;
	const cJSON *p;
	enum exit_code e = flag_int(o, FLAG_partition, &only);

	if (e == EXIT_OK)
		e = client_get(o, path, &a);
	mem_free(path);
	if (e != EXIT_OK)
		return e;
	cJSON_ArrayForEach(p, cJSON_GetObjectItemCaseSensitive(a.json, "partition_list"))
	{
		if (o->given[FLAG_partition] && int_of(p, "partition") != only)
			continue;
		if (all->count == POLLS_MAX)
			break;
		all->parts = mem_resize(all->parts, (size_t)(all->count + 1) * sizeof *all->parts);
		must(all->parts != NULL);
		all->parts[all->count++] = (struct sub_part){.all = all,
			.stream = mem_text(stream, strlen(stream)),
			.partition = (int)int_of(p, "partition"),
			.until = o->given[FLAG_follow] ? -1 : int_of(p, "next_offset")};
	}
	answer_fini(&a);
	if (all->count == 0) {
		say("sluice: no such partition");
		return EXIT_NOT_FOUND;
	}
	return EXIT_OK;
}

static bool has_stream(const struct sub_all *all, const char *stream)
{
	for (int i = 0; i < all->count; i++)
		if (strcmp(all->parts[i].stream, stream) == 0)
			return true;
	return false;
}

/* A topic may be in any stream that routes lead to; a memory route keeps nothing to be read. */
static enum exit_code sub_add_routes(struct sub_all *all)
{
	struct answer a;
	const cJSON *r;
	enum exit_code e = client_get(all->o, "/api/v1/routes", &a);

	cJSON_ArrayForEach(r, cJSON_GetObjectItemCaseSensitive(a.json, "routes"))
	{
		const char *stream = text_of(r, "stream"), *durability = text_of(r, "durability");
		if (e != EXIT_OK || stream == NULL || has_stream(all, stream) ||
			(durability != NULL && strcmp(durability, "memory") == 0))
			continue;
		e = sub_add(all, stream);
	}
	answer_fini(&a);
	return e;
}

/* Whether the word names a stream; topics may look alike, so the stream wins. */
static bool is_stream(const struct options *o, const char *name)
{
	char *path;
	struct answer a;
	const cJSON *s;
	bool found = false;

	if (strpbrk(name, "/+#") != NULL)
		return false;
	path = mem_text("/api/v1/streams?internal=true", 29);
	if (client_get(o, path, &a) == EXIT_OK)
		cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(a.json, "streams"))
			found = found ||
			(text_of(s, "name") != NULL && strcmp(text_of(s, "name"), name) == 0);
	answer_fini(&a);
	mem_free(path);
	return found;
}

static enum exit_code sub_find(struct sub_all *all)
{
	const struct options *o = all->o;
	const char *name = o->args[0];

	if (!o->given[FLAG_stream] && is_stream(o, name))
		return sub_add(all, name);
	all->filter = name;
	return o->given[FLAG_stream] ? sub_add(all, o->value[FLAG_stream]) : sub_add_routes(all);
}

static enum exit_code sub_run(struct sub_all *all)
{
	const struct options *o = all->o;
	const char *offset = o->value[FLAG_offset];
	struct poll_one *polls = mem_new((size_t)all->count * sizeof *polls);
	enum exit_code e;

	if (offset == NULL)
		offset = o->given[FLAG_follow] ? "latest" : "earliest";
	for (int i = 0; i < all->count; i++)
		polls[i] = (struct poll_one){
			poll_path(&all->parts[i], offset), &all->parts[i], on_records};
	e = client_poll(o, polls, all->count, &all->enough);
	if (o->output == OUT_JSON)
		print_json(o, all->records);
	mem_free(polls);
	return e;
}

enum exit_code sub(const struct options *o)
{
	struct sub_all all = {.o = o, .left = -1};
	enum exit_code e = flag_int(o, FLAG_count, &all.left);

	if (e != EXIT_OK)
		return e;
	all.enough = all.left == 0;
	all.records = cJSON_CreateArray();
	e = sub_find(&all);
	if (e == EXIT_OK)
		e = sub_run(&all);
	for (int i = 0; i < all.count; i++)
		mem_free(all.parts[i].stream);
	mem_free(all.parts);
	cJSON_Delete(all.records);
	return e;
}

/* ---- bench */

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* One publisher, one message at a time: what a script would see. */
static enum exit_code bench_http(const struct options *o)
{
	enum { COUNT = 2000, SIZE = 256 };
	char *payload = mem_new(SIZE), *path = topic_path("bench/http");
	int64_t *took = mem_new(COUNT * sizeof *took), began = clock_us(), all;
	enum exit_code e = EXIT_OK;
	int n = 0;

	memset(payload, 'x', SIZE);
	for (; n < COUNT && e == EXIT_OK; n++) {
		int64_t start = clock_us();
		struct answer a;
		e = client_call(o,
			&(struct request){.method = "POST",
				.path = path,
				.body = payload,
				.len = SIZE,
				.type = ""},
			&a);
		answer_fini(&a);
		took[n] = clock_us() - start;
	}
	all = clock_us() - began;
	if (e == EXIT_OK) {
		qsort(took, COUNT, sizeof *took, by_value);
		printf("http, 1 publisher, %d messages of %d B, one at a time\n", n, SIZE);
		printf("%.0f messages/s, p50 %.2f ms, p99 %.2f ms\n", n * 1e6 / (double)all,
			(double)took[COUNT / 2] / 1e3, (double)took[COUNT * 99 / 100] / 1e3);
	}
	mem_free(took);
	mem_free(path);
	mem_free(payload);
	return e;
}

/* Words behind "bench" are the generator's; without any it measures MQTT at QoS 1. */
enum exit_code bench(const struct options *o)
{
	char *program = beside(o, "sluice-bench");
	char **words;
	int count = 0;

	if (o->raw_count > 0 && strcmp(o->raw[0], "http") == 0) {
		mem_free(program);
		return bench_http(o);
	}
	if (access(program, X_OK) != 0) {
		mem_free(program);
		if (o->raw_count > 0) {
			say("sluice: sluice-bench is not installed beside sluice; only "
			    "\"bench http\" can be measured");
			return EXIT_FAILED;
		}
		return bench_http(o);
	}
	words = mem_new(((size_t)o->raw_count + 5) * sizeof *words);
	words[count++] = program;
	if (o->raw_count == 0) {
		static char workload[] = "mqtt", qos[] = "--qos", one[] = "1";
		words[count++] = workload;
		words[count++] = qos;
		words[count++] = one;
	}
	for (int i = 0; i < o->raw_count; i++)
		words[count++] = o->raw[i];
	execv(program, words);
	say("sluice: sluice-bench could not be started");
	return EXIT_FAILED;
}
