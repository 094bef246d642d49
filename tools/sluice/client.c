/* Requests by libcurl: one handle with keep-alive for the commands, a multi handle for the long
 * polls of sub. An answer that is no success is said in the server's own words, and its status
 * becomes the exit status. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "protocols/http/version.h"
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

static CURL *shared; /* the process' one connection */

static size_t collect(char *at, size_t size, size_t count, void *arg)
{
	struct answer *a = arg;
	char *more = mem_resize(a->body, a->len + size * count + 1);

	if (more == NULL)
		return 0;
	a->body = more;
	memcpy(a->body + a->len, at, size * count);
	a->len += size * count;
	a->body[a->len] = 0;
	return size * count;
}

void answer_fini(struct answer *a)
{
	cJSON_Delete(a->json);
	mem_free(a->body);
	*a = (struct answer){0};
}

static const char *server_of(const struct options *o)
{
	const char *url = o->value[FLAG_server];

	if (url == NULL)
		url = getenv("SLUICE_SERVER");
	return url == NULL || *url == 0 ? "http://127.0.0.1:8080" : url;
}

static char *join(const char *a, const char *b)
{
	size_t size = strlen(a) + strlen(b) + 1;
	char *out = mem_new(size);

	(void)snprintf(out, size, "%s%s", a, b);
	return out;
}

/* NAME:PASSWORD, or NULL; the password is asked for once if it was left out. */
static const char *credentials(const struct options *o)
{
	static char *asked; /* the process' */
	const char *user = o->value[FLAG_login];
	char *password;
	size_t size;

	if (asked != NULL)
		return asked;
	if (user == NULL && !flag_is_own(o, FLAG_user))
		user = o->value[FLAG_user];
	if (user == NULL)
		user = getenv("SLUICE_USER");
	if (user == NULL || *user == 0 || strchr(user, ':') != NULL)
		return user;
	password = ask_password("password of ", user, ": ");
	if (password == NULL)
		return user;
	size = strlen(user) + strlen(password) + 2;
	asked = mem_new(size);
	(void)snprintf(asked, size, "%s:%s", user, password);
	mem_free(password);
	return asked;
}

/* The path, and the tenant to act in. Owned by the caller. */
static char *in_tenant(const struct options *o, const char *path)
{
	char *tenant, *out;

	if (!o->given[FLAG_tenant] || flag_is_own(o, FLAG_tenant))
		return mem_text(path, strlen(path));
	tenant = path_of(
		strchr(path, '?') != NULL ? "&tenant=" : "?tenant=", o->value[FLAG_tenant]);
	out = join(path, tenant);
	mem_free(tenant);
	return out;
}

/* NULL: it is no socket. */
static const char *socket_of(const char *server)
{
	return strncmp(server, "unix:", 5) == 0 ? server + 5 : NULL;
}

/* Sets what all requests have in common; url is copied by the library. */
static void prepare(CURL *c, const struct options *o, const char *path, struct answer *out)
{
	const char *server = server_of(o), *socket = socket_of(server), *user = credentials(o);
	char *trimmed = mem_text(
		socket ? "http://localhost" : server, strlen(socket ? "http://localhost" : server));
	char *url, *full = in_tenant(o, path);

	while (*trimmed && trimmed[strlen(trimmed) - 1] == '/')
		trimmed[strlen(trimmed) - 1] = 0;
	url = join(trimmed, full);
	if (socket != NULL)
		curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	/* A group's requests are sent on to the node that has it. */
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(c, CURLOPT_MAXREDIRS, 3L);
	curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_UNRESTRICTED_AUTH, 1L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, out);
	curl_easy_setopt(
		c, CURLOPT_CONNECTTIMEOUT_MS, (long)(o->timeout_ms < 5000 ? o->timeout_ms : 5000));
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)o->timeout_ms);
	if (user != NULL && *user)
		curl_easy_setopt(c, CURLOPT_USERPWD, user);
	mem_free(url);
	mem_free(full);
	mem_free(trimmed);
}

static enum exit_code code_of_status(long status)
{
	if (status >= 200 && status < 300)
		return EXIT_OK;
	switch (status) {
	case 401:
	case 403: return EXIT_DENIED;
	case 404: return EXIT_NOT_FOUND;
	case 408:
	case 429:
	case 503:
	case 504: return EXIT_UNREACHABLE;
	case 409: return EXIT_CONFLICT;
	default: return EXIT_FAILED;
	}
}

static enum exit_code failed(const struct options *o, CURLcode code)
{
	const char *server = server_of(o), *at = strrchr(server, '@');

	/* Without the credentials that may stand before it. */
	fprintf(stderr, "sluice: %s: %s\n", at != NULL ? at + 1 : server, curl_easy_strerror(code));
	return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ? EXIT_USAGE
										 : EXIT_UNREACHABLE;
}

static enum exit_code judge(CURL *c, struct answer *out)
{
	const cJSON *error, *message = NULL;
	enum exit_code e;

	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &out->status);
	if (out->len > 0)
		out->json = cJSON_ParseWithLength(out->body, out->len);
	e = code_of_status(out->status);
	if (e == EXIT_OK)
		return e;
	error = cJSON_GetObjectItemCaseSensitive(out->json, "error");
	if (error != NULL)
		message = cJSON_GetObjectItemCaseSensitive(error, "message");
	if (cJSON_IsString(message))
		fprintf(stderr, "sluice: %s\n", message->valuestring);
	else
		fprintf(stderr, "sluice: the server answered with status %ld\n", out->status);
	return e;
}

enum exit_code client_call(const struct options *o, const struct request *r, struct answer *out)
{
	struct curl_slist *lines = NULL;
	CURLcode code;

	*out = (struct answer){0};
	if (shared == NULL)
		shared = curl_easy_init();
	must(shared != NULL);
	curl_easy_reset(shared); /* keeps the connection */
	prepare(shared, o, r->path, out);
	lines = curl_slist_append(lines, "Expect:");
	if (r->body != NULL) {
		curl_easy_setopt(shared, CURLOPT_POSTFIELDS, r->body);
		curl_easy_setopt(shared, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->len);
		if (r->type == NULL)
			lines = curl_slist_append(lines, "Content-Type: application/json");
		else if (*r->type == 0)
			lines = curl_slist_append(lines, "Content-Type:");
	}
	curl_easy_setopt(shared, CURLOPT_CUSTOMREQUEST, r->method);
	for (int i = 0; i < r->line_count; i++)
		lines = curl_slist_append(lines, r->lines[i]);
	curl_easy_setopt(shared, CURLOPT_HTTPHEADER, lines);
	code = curl_easy_perform(shared);
	curl_slist_free_all(lines);
	return code == CURLE_OK ? judge(shared, out) : failed(o, code);
}

enum exit_code client_get(const struct options *o, const char *path, struct answer *out)
{
	return client_call(o, &(struct request){.method = "GET", .path = path}, out);
}

enum exit_code client_send(const struct options *o, const char *method, const char *path,
	cJSON *json, struct answer *out)
{
	char *text = json == NULL ? NULL : cJSON_PrintUnformatted(json);
	const char *dry = strchr(path, '?') != NULL ? "&dry_run=true" : "?dry_run=true";
	char *full = join(path, o->given[FLAG_dry_run] ? dry : "");
	enum exit_code e;

	must(json == NULL || text != NULL);
	e = client_call(o,
		&(struct request){.method = method,
			.path = full,
			.body = text,
			.len = text ? strlen(text) : 0},
		out);
	mem_free(full);
	free(text); /* the JSON library's */
	cJSON_Delete(json);
	return e;
}

/* ---- paths */

static char *encode(const char *part, const char *keep)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~";
	char *out = mem_new(strlen(part) * 3 + 1), *to = out;

	for (; *part; part++) {
		if (strchr(plain, *part) != NULL || strchr(keep, *part) != NULL)
			*to++ = *part;
		else
			to += snprintf(to, 4, "%%%02X", (unsigned char)*part);
	}
	*to = 0;
	return out;
}

char *path_of(const char *before, const char *part)
{
	char *encoded = encode(part, ""), *out = join(before, encoded);

	mem_free(encoded);
	return out;
}

char *topic_path(const char *topic)
{
	char *encoded = encode(topic, "/"), *out = join("/topics/", encoded);

	mem_free(encoded);
	return out;
}

/* ---- long polls */

struct polling {
	const struct options *o;
	CURLM *many;
	CURL **handles;
	struct answer *answers;
	int64_t *since; /* waited_us when it was asked; -1: it is over */
	struct poll_one *at;
	int count, running;
	int64_t waited_us; /* for the server; not while our output was not taken */
	enum exit_code worst;
};

static void poll_begin(struct polling *p, int i, char *path)
{
	CURL *c = p->handles[i];

	answer_fini(&p->answers[i]);
	curl_easy_reset(c);
	prepare(c, p->o, path, &p->answers[i]);
	mem_free(path);
	/* The library's clock would go on while a pager reads; ours is waited_us. */
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 0L);
	p->since[i] = p->waited_us;
	must(curl_multi_add_handle(p->many, c) == CURLM_OK);
}

static void poll_done(struct polling *p, const CURLMsg *m)
{
	CURL *c = m->easy_handle;
	CURLcode code = m->data.result; /* gone when the handle is removed */
	char *next = NULL;
	int i = 0;
	enum exit_code e;

	while (i < p->count && p->handles[i] != c)
		i++;
	must(i < p->count);
	curl_multi_remove_handle(p->many, c);
	p->since[i] = -1;
	e = code == CURLE_OK ? judge(c, &p->answers[i]) : failed(p->o, code);
	if (e == EXIT_OK)
		next = p->at[i].each(p->at[i].arg, p->answers[i].json);
	else
		p->worst = e;
	if (next != NULL && p->worst == EXIT_OK)
		poll_begin(p, i, next);
	else
		p->running--;
}

/* Waits for an answer, at most a second: more has passed if we were stopped. */
static void poll_wait(struct polling *p)
{
	enum { STEP_MS = 1000 };
	int64_t began = clock_us(), took;

	(void)curl_multi_poll(p->many, NULL, 0, STEP_MS, NULL);
	took = clock_us() - began;
	p->waited_us += took < STEP_MS * 1000 ? took : STEP_MS * 1000;
}

/* Ends all when the server is silent on one. */
static void poll_check_late(struct polling *p)
{
	int64_t held_ms = p->o->given[FLAG_follow] ? FOLLOW_WAIT_S * 1000 : 0;

	for (int i = 0; i < p->count && p->worst == EXIT_OK; i++)
		if (p->since[i] >= 0 &&
			(p->waited_us - p->since[i]) / 1000 - held_ms > p->o->timeout_ms)
			p->worst = failed(p->o, CURLE_OPERATION_TIMEDOUT);
}

enum exit_code client_poll(
	const struct options *o, struct poll_one *at, int count, const bool *enough)
{
	struct polling p = {.o = o, .at = at, .count = count, .running = count};
	CURLMsg *m;
	int left;

	p.many = curl_multi_init();
	p.handles = mem_new((size_t)count * sizeof *p.handles);
	p.answers = mem_new((size_t)count * sizeof *p.answers);
	p.since = mem_new((size_t)count * sizeof *p.since);
	for (int i = 0; i < count; i++) {
		p.handles[i] = curl_easy_init();
		poll_begin(&p, i, at[i].path);
	}
	while (p.running > 0 && p.worst == EXIT_OK && !*enough) {
		must(curl_multi_perform(p.many, &left) == CURLM_OK);
		while ((m = curl_multi_info_read(p.many, &left)) != NULL)
			if (m->msg == CURLMSG_DONE)
				poll_done(&p, m);
		if (p.running > 0 && !*enough)
			poll_check_late(&p);
		if (p.running > 0 && p.worst == EXIT_OK && !*enough)
			poll_wait(&p);
	}
	for (int i = 0; i < count; i++) {
		curl_multi_remove_handle(p.many, p.handles[i]);
		curl_easy_cleanup(p.handles[i]);
		answer_fini(&p.answers[i]);
	}
	curl_multi_cleanup(p.many);
	mem_free(p.since);
	mem_free(p.answers);
	mem_free(p.handles);
	return p.worst;
}

void client_end(void)
{
	curl_easy_cleanup(shared);
	shared = NULL;
}
