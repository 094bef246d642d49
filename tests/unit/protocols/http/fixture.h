/* The HTTP door. A test writes bytes and reads answers: status, headers, body. */
#ifndef TESTS_HTTP_FIXTURE_H
#define TESTS_HTTP_FIXTURE_H
#include <stdatomic.h>
#include "protocols/http/http.h"
#include "server/broker/group_home.h"
#include "server/broker/secret.h"
#include "tests/unit/protocols/door.h"

static struct http_conf http_conf;
static struct groups *groups;
static struct http *http;
static _Atomic int reloads;

static inline void count_reload(void)
{
	atomic_fetch_add(&reloads, 1);
}

static inline void fix_set(const char *text)
{
	char key[64];
	size_t len = strcspn(text, "=");
	snprintf(key, sizeof key, "%.*s", (int)len, text);
	set(key, text + len + 1);
}

/* settings: "key=value" and a NULL behind the last one. */
static inline void fix_start(const char *const *settings)
{
	static const struct group_conf group_conf = {.session_ms_min = 100,
		.session_ms_max = 10000,
		.members_max = 10,
		.bytes_max = 100000,
		.groups_max = 100,
		.offset_metadata_max = 1000,
		.loop_bytes_max = 1000000,
		.offsets_keep_ms = 100000};
	door_init("http", &http_kind, http_rows, &http_conf, &http_metrics);
	set("message.bytes_max", "100000");
	set("tables", "1");
	for (; settings != NULL && *settings != NULL; settings++)
		fix_set(*settings);
	door_open();
	groups = groups_new(&group_conf, t.loops);
	http = http_new(&http_conf,
		&(struct http_env){.broker = t.broker,
			.groups = groups,
			.loops = t.loops,
			.net = t.net,
			.conf = t.conf,
			.reload = count_reload});
	door_listen(http);
	http_serving(http, true);
}
#define START(...) fix_start((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static inline void fix_stop(void)
{
	net_drain(t.net, 1000);
	groups_stop(groups);
	door_close();
	http_free(http);
	groups_free(groups);
	door_free();
}

/* ---- a client */

static inline void put_bytes(int fd, const void *at, size_t len)
{
	ck_assert_int_eq(send(fd, at, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline void put(int fd, const char *text)
{
	put_bytes(fd, text, strlen(text));
}

struct reply {
	int status;
	char head[4096];
	char body[400000];
	size_t len; /* of body */
};
static struct reply got;

static inline void get_exactly(int fd, char *to, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(fd, to, len, 0);
		ck_assert_msg(n > 0, "the connection ended within an answer");
		to += n;
		len -= (size_t)n;
	}
}

/* Reads the next answer into got; without_body: to a HEAD request. */
static inline int get_reply_of(int fd, bool without_body)
{
	size_t len = 0;
	memset(&got, 0, sizeof got);
	while (len < 4 || memcmp(got.head + len - 4, "\r\n\r\n", 4) != 0) {
		ck_assert(len + 1 < sizeof got.head);
		get_exactly(fd, got.head + len++, 1);
	}
	ck_assert_int_eq(sscanf(got.head, "HTTP/1.1 %d ", &got.status), 1);
	const char *length = strstr(got.head, "Content-Length: ");
	if (length != NULL)
		got.len = strtoul(length + 16, NULL, 10);
	ck_assert(got.len < sizeof got.body);
	if (!without_body)
		get_exactly(fd, got.body, got.len);
	return got.status;
}

static inline int get_reply(int fd)
{
	return get_reply_of(fd, false);
}

static inline void expect_end(int fd)
{
	char c;
	ck_assert_int_eq(recv(fd, &c, 1, 0), 0);
	close(fd);
}

/* One request on a connection of its own. body NULL: none. */
static inline int ask(const char *method, const char *target, const char *body)
{
	char text[4096];
	int fd = dial();
	snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
		method, target, body ? strlen(body) : 0, body ? body : "");
	put(fd, text);
	get_reply_of(fd, strcmp(method, "HEAD") == 0);
	close(fd);
	return got.status;
}

/* The same by user "NAME:PASSWORD"; NULL: without one. */
static inline int ask_as(const char *user, const char *method, const char *target, const char *body)
{
	char text[8192], credentials[400] = "";
	int fd = dial();
	if (user != NULL) {
		struct buf b;
		buf_init(&b, 300);
		base64_write(bytes_text(user), &b);
		snprintf(credentials, sizeof credentials, "Authorization: Basic %.*s\r\n",
			(int)buf_len(&b), (const char *)buf_bytes(&b).at);
		buf_fini(&b);
	}
	snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n%s",
		method, target, credentials, body ? strlen(body) : 0, body ? body : "");
	put(fd, text);
	get_reply(fd);
	close(fd);
	return got.status;
}

#define BODY_HAS(text)                                                                             \
	ck_assert_msg(strstr(got.body, text) != NULL, "no %s in %.1500s", text, got.body)

#endif
