#include "tests/unit/protocols/http/fixture.h"
#include <time.h>

#define OPENED "auth.anonymous=auto", "auth.fail_delay=20ms"

static const char admin[] = "root:secret";

static void user_add(const char *as, const char *body)
{
	ck_assert_msg(ask_as(as, "POST", "/api/v1/users", body) == 201, "%s", got.body);
}

static void rule_add(const char *body)
{
	ck_assert_msg(ask_as(admin, "POST", "/api/v1/acls", body) == 201, "%s", got.body);
}

static void start_with_admin(void)
{
	START(OPENED);
	user_add(NULL, "{\"name\":\"root\",\"password\":\"secret\",\"roles\":[\"admin\"]}");
}

START_TEST(the_first_user_closes_the_door)
{
	START(OPENED);
	ck_assert_int_eq(ask("GET", "/api/v1/streams", NULL), 200);
	ck_assert_int_eq(ask_as("any:body", "GET", "/api/v1/streams", NULL), 200);
	user_add(NULL, "{\"name\":\"root\",\"password\":\"secret\",\"roles\":[\"admin\"]}");
	BODY_HAS("\"roles\":[\"admin\"]");
	ck_assert_ptr_null(strstr(got.body, "secret"));
	ck_assert_int_eq(ask("GET", "/api/v1/streams", NULL), 401);
	ck_assert_ptr_nonnull(strstr(got.head, "\r\nWWW-Authenticate: Basic realm=\"sluice\""));
	BODY_HAS("log in first");
	ck_assert_int_eq(ask("GET", "/livez", NULL), 200);
	ck_assert_int_eq(ask("GET", "/metrics", NULL), 200);
	ck_assert_int_eq(ask_as("root:wrong", "GET", "/api/v1/streams", NULL), 401);
	BODY_HAS("wrong user or password");
	ck_assert_int_eq(ask_as("nobody:wrong", "GET", "/api/v1/streams", NULL), 401);
	BODY_HAS("wrong user or password");
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/users", NULL), 200);
	BODY_HAS("\"name\":\"root\",\"tenant\":\"default\"");
	fix_stop();
}
END_TEST

/* Nobody is let in for want of users while the first one is on its way. */
START_TEST(nobody_is_faster_than_the_first_administrator)
{
	START("auth.bootstrap=root:secret", "auth.anonymous=auto", "auth.fail_delay=20ms");
	for (int i = 0; i < 1000 && ask_as(admin, "GET", "/api/v1/users", NULL) != 200; i++) {
		ck_assert_msg(got.status == 503 || got.status == 401, "%d", got.status);
		ck_assert_int_eq(ask_as(NULL, "POST", "/api/v1/users", "{\"name\":\"eve\"}"), 401);
		ck_assert_int_ge(ask_as("eve:x", "GET", "/api/v1/users", NULL), 401);
	}
	ck_assert_int_eq(got.status, 200);
	BODY_HAS("{\"users\":[{\"name\":\"root\"");
	ck_assert_ptr_null(strstr(got.body, "eve"));
	fix_stop();
}
END_TEST

START_TEST(nonsense_is_nobody)
{
	static const char *const lines[] = {"Basic", "Basic ",
		"Basic ====", "Basic bm9jb2xvbg==", "Bearer abc", "Basic OnB3",
		"Basic dXNlcjo=", "x"};
	char text[300];
	start_with_admin();
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		int fd = dial();
		snprintf(text, sizeof text,
			"GET /api/v1/streams HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n\r\n",
			lines[i]);
		put(fd, text);
		ck_assert_msg(get_reply(fd) == 401, "%s: %d", lines[i], got.status);
		close(fd);
	}
	fix_stop();
}
END_TEST

/* One connection: the same credentials again, others, none; each request is what it says. */
START_TEST(a_connection_is_whom_each_request_says)
{
	static const char root[] = "GET /api/v1/users HTTP/1.1\r\nHost: a\r\n"
				   "Authorization: Basic cm9vdDpzZWNyZXQ=\r\n\r\n";
	static const char bob[] = "GET /api/v1/users/bob HTTP/1.1\r\nHost: a\r\n"
				  "Authorization: Basic Ym9iOnB3\r\n\r\n";
	static const char none[] = "GET /api/v1/users HTTP/1.1\r\nHost: a\r\n\r\n";
	static const struct {
		const char *ask;
		int status;
	} steps[] = {{root, 200}, {root, 200}, {none, 401}, {root, 200}, {bob, 200}, {bob, 200},
		{none, 401}, {root, 200}};
	start_with_admin();
	user_add(admin, "{\"name\":\"bob\",\"password\":\"pw\"}");
	int fd = dial();
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		put(fd, steps[i].ask);
		ck_assert_msg(get_reply(fd) == steps[i].status, "%zu: %d", i, got.status);
	}
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		put(fd, steps[i].ask); /* all at once */
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		ck_assert_int_eq(get_reply(fd), steps[i].status);
	close(fd);
	fix_stop();
}
END_TEST

START_TEST(no_body_is_read_for_nobody)
{
	start_with_admin();
	int fd = dial();
	put(fd,
		"POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n"
		"Expect: 100-continue\r\nAuthorization: Basic cm9vdDp4\r\n\r\n");
	ck_assert_int_eq(get_reply(fd), 401); /* no 100 before */
	expect_end(fd);
	fd = dial();
	put(fd,
		"POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
		"Expect: 100-continue\r\nAuthorization: Basic cm9vdDpzZWNyZXQ=\r\n\r\n");
	char line[26] = "";
	get_exactly(fd, line, 25);
	ck_assert_str_eq(line, "HTTP/1.1 100 Continue\r\n\r\n");
	put(fd, "x");
	ck_assert_int_eq(get_reply(fd), 200);
	close(fd);
	fix_stop();
}
END_TEST

/* A client that goes while its password is being compared, many times over. */
START_TEST(who_goes_meanwhile)
{
	start_with_admin();
	for (int i = 0; i < 30; i++) {
		int fd = dial();
		put(fd,
			"GET /api/v1/users HTTP/1.1\r\nHost: a\r\n"
			"Authorization: Basic cm9vdDp3cm9uZw==\r\n\r\n"
			"GET /api/v1/users HTTP/1.1\r\n");
		if (i % 2)
			usleep(2000);
		close(fd);
	}
	int fd = dial();
	put(fd,
		"GET /api/v1/users HTTP/1.1\r\nHost: a\r\n"
		"Authorization: Basic cm9vdDp3cm9uZw==\r\n\r\n");
	usleep(1000);
	fix_stop(); /* with some under way */
	close(fd);
}
END_TEST

/* Each row of the table: nobody, a user without rules, the one rule it names, the administrator. */
static const struct {
	const char *method, *target, *body, *rule;
	int with; /* status with the rule; without it 403 */
} rows[] = {
	{"POST", "/topics/d/bob/t", "x",
		"\"resource\":\"topic\",\"name\":\"d/%u/t\",\"action\":\"write\"", 200},
	{"GET", "/topics/d/bob/t", NULL,
		"\"resource\":\"topic\",\"name\":\"d/#\",\"action\":\"read\"", 404},
	{"DELETE", "/topics/d/bob/t", NULL,
		"\"resource\":\"topic\",\"name\":\"d/+/t\",\"action\":\"write\"", 200},
	{"POST", "/streams/mqtt/records", "x",
		"\"resource\":\"stream\",\"name\":\"mqtt\",\"action\":\"write\"", 200},
	{"DELETE", "/streams/mqtt/records?key=k", NULL,
		"\"resource\":\"stream\",\"name\":\"mq\",\"pattern\":\"prefixed\",\"action\":"
		"\"write\"",
		200},
	{"GET", "/streams/mqtt/records", NULL,
		"\"resource\":\"stream\",\"name\":\"*\",\"action\":\"read\"", 200},
	{"POST", "/api/v1/streams", "{\"name\":\"made\"}",
		"\"resource\":\"stream\",\"name\":\"made\",\"action\":\"create\"", 201},
	{"POST", "/api/v1/streams", "{\"name\":\"made2\"}",
		"\"resource\":\"cluster\",\"action\":\"create\"", 201},
	{"GET", "/api/v1/streams/mqtt", NULL,
		"\"resource\":\"stream\",\"name\":\"mqtt\",\"action\":\"describe\"", 200},
	{"PATCH", "/api/v1/streams/made", "{\"partitions\":3}",
		"\"resource\":\"stream\",\"name\":\"made\",\"action\":\"alter\"", 200},
	{"PATCH", "/api/v1/streams/made", "{\"settings\":{\"retention.ms\":\"1h\"}}",
		"\"resource\":\"stream\",\"name\":\"made\",\"action\":\"alter-configs\"", 200},
	{"POST", "/api/v1/streams/made/trim", "{\"before_offset\":1}",
		"\"resource\":\"stream\",\"name\":\"made\",\"action\":\"delete\"", 200},
	{"GET", "/api/v1/partitions/mqtt/0", NULL,
		"\"resource\":\"stream\",\"name\":\"mqtt\",\"action\":\"read\"", 200},
	{"DELETE", "/api/v1/streams/made", NULL,
		"\"resource\":\"stream\",\"name\":\"made\",\"action\":\"delete\"", 204},
	{"GET", "/api/v1/routes", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"", 200},
	{"PUT", "/api/v1/routes/r", "{\"route\":\"r/# -> mqtt\"}",
		"\"resource\":\"cluster\",\"action\":\"alter\"", 204},
	{"DELETE", "/api/v1/routes/r", NULL, "\"resource\":\"cluster\",\"action\":\"alter\"", 204},
	{"GET", "/api/v1/config", NULL, "\"resource\":\"cluster\",\"action\":\"describe-configs\"",
		200},
	{"PUT", "/api/v1/config/http.idle_ms", "{\"value\":\"30s\"}",
		"\"resource\":\"cluster\",\"action\":\"alter-configs\"", 204},
	{"DELETE", "/api/v1/config/http.idle_ms", NULL,
		"\"resource\":\"cluster\",\"action\":\"alter-configs\"", 204},
	{"GET", "/api/v1/node", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"", 200},
	{"GET", "/api/v1/cluster", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"", 200},
	{"GET", "/api/v1/cluster/health", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"",
		200},
	{"GET", "/api/v1/cluster/moves", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"",
		200},
	{"POST", "/api/v1/cluster/balance?dry_run=true", NULL,
		"\"resource\":\"cluster\",\"action\":\"alter\"", 200},
	{"POST", "/api/v1/cluster/nodes/99/drain", NULL,
		"\"resource\":\"cluster\",\"action\":\"alter\"", 404},
	{"GET", "/api/v1/users", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"", 200},
	{"POST", "/api/v1/users", "{\"name\":\"x\",\"password\":\"y\"}",
		"\"resource\":\"cluster\",\"action\":\"alter\"", 201},
	{"PATCH", "/api/v1/users/x", "{\"disabled\":true}",
		"\"resource\":\"cluster\",\"action\":\"alter\"", 200},
	{"DELETE", "/api/v1/users/x", NULL, "\"resource\":\"cluster\",\"action\":\"alter\"", 204},
	{"GET", "/api/v1/acls", NULL, "\"resource\":\"cluster\",\"action\":\"describe\"", 200},
	{"POST", "/api/v1/acls",
		"{\"user\":\"x\",\"resource\":\"stream\",\"name\":\"s\",\"action\":\"all\"}",
		"\"resource\":\"cluster\",\"action\":\"alter\"", 201},
	{"DELETE", "/api/v1/acls?user=x", NULL, "\"resource\":\"cluster\",\"action\":\"alter\"",
		200},
	{"GET", "/api/v1/quotas", NULL, "\"resource\":\"cluster\",\"action\":\"describe-configs\"",
		200},
	{"PUT", "/api/v1/quotas/user/bob", "{\"connections\":100}",
		"\"resource\":\"cluster\",\"action\":\"alter-configs\"", 200},
	{"PATCH", "/api/v1/quotas/user/bob", "{\"bytes-in\":\"1MiB\"}",
		"\"resource\":\"cluster\",\"action\":\"alter-configs\"", 200},
	{"DELETE", "/api/v1/quotas/user/bob", NULL,
		"\"resource\":\"cluster\",\"action\":\"alter-configs\"", 204},
};

START_TEST(each_path_needs_its_right)
{
	char rule[300];
	start_with_admin();
	user_add(admin, "{\"name\":\"bob\",\"password\":\"pw\"}");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const char *m = rows[i].method, *to = rows[i].target, *b = rows[i].body;
		ck_assert_msg(ask_as(NULL, m, to, b) == 401, "%s %s: %d", m, to, got.status);
		ck_assert_msg(ask_as("bob:pw", m, to, b) == 403, "%s %s: %d", m, to, got.status);
		BODY_HAS("\"code\":\"denied\"");
		snprintf(rule, sizeof rule, "{\"user\":\"bob\",%s}", rows[i].rule);
		rule_add(rule);
		ck_assert_msg(ask_as("bob:pw", m, to, b) == rows[i].with, "%s %s: %d %s", m, to,
			got.status, got.body);
		ck_assert_int_eq(ask_as(admin, "DELETE", "/api/v1/acls?user=bob", NULL), 200);
		ck_assert_msg(ask_as("bob:pw", m, to, b) == 403, "%s %s: %d", m, to, got.status);
	}
	fix_stop();
}
END_TEST

START_TEST(lists_show_what_may_be_seen)
{
	start_with_admin();
	user_add(admin, "{\"name\":\"bob\",\"password\":\"pw\"}");
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/streams", "{\"name\":\"orders\"}"), 201);
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/streams", NULL), 200);
	BODY_HAS("\"streams\":[]");
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/partitions", NULL), 200);
	BODY_HAS("\"partitions\":[]");
	rule_add("{\"user\":\"bob\",\"resource\":\"stream\",\"name\":\"ord\",\"pattern\":"
		 "\"prefixed\",\"actions\":[\"read\",\"write\"]}");
	BODY_HAS("\"action\":\"write\"");
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/streams", NULL), 200);
	BODY_HAS("\"name\":\"orders\"");
	ck_assert_ptr_null(strstr(got.body, "\"name\":\"mqtt\""));
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/partitions", NULL), 200);
	BODY_HAS("\"stream\":\"orders\"");
	ck_assert_ptr_null(strstr(got.body, "\"mqtt\""));
	/* Its own user, and nobody else's; its own password, and nothing else. */
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/users/bob", NULL), 200);
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/users/root", NULL), 403);
	ck_assert_int_eq(
		ask_as("bob:pw", "PATCH", "/api/v1/users/bob", "{\"roles\":[\"admin\"]}"), 403);
	ck_assert_int_eq(
		ask_as("bob:pw", "PATCH", "/api/v1/users/bob", "{\"password\":\"other\"}"), 204);
	ck_assert_int_eq(ask_as("bob:pw", "GET", "/api/v1/users/bob", NULL), 401);
	ck_assert_int_eq(ask_as("bob:other", "GET", "/api/v1/users/bob", NULL), 200);
	fix_stop();
}
END_TEST

START_TEST(tenants_do_not_meet)
{
	static const char eve[] = "eve:pw";
	start_with_admin();
	user_add(admin,
		"{\"name\":\"eve\",\"password\":\"pw\",\"tenant\":\"acme\",\"roles\":["
		"\"admin\"]}");
	ck_assert_int_eq(ask_as(eve, "POST", "/api/v1/streams", "{\"name\":\"s\"}"), 201);
	BODY_HAS("\"name\":\"s\"");
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/streams", "{\"name\":\"s\"}"), 201);
	ck_assert_int_eq(ask_as(eve, "POST", "/streams/s/records?partition=0", "of acme"), 200);
	ck_assert_int_eq(ask_as(admin, "GET", "/streams/s/records", NULL), 200);
	BODY_HAS("\"end_offset\":0");
	ck_assert_int_eq(ask_as(admin, "GET", "/streams/s/records?tenant=acme", NULL), 200);
	BODY_HAS("of acme");
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/streams/acme%2Fs", NULL), 404);
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/streams?tenant=default", NULL), 403);
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/streams?tenant=acme", NULL), 200);
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/streams?tenant=none", NULL), 404);
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/streams?tenant=A%20B", NULL), 400);
	/* Topics, with their retained values. */
	ck_assert_int_eq(ask_as(eve, "POST", "/topics/t?retain", "theirs"), 200);
	ck_assert_int_eq(ask_as(admin, "GET", "/topics/t", NULL), 404);
	ck_assert_int_eq(ask_as(admin, "GET", "/topics/t?tenant=acme", NULL), 200);
	BODY_HAS("theirs");
	/* An administrator of a tenant has its users, rules and routes, not the cluster. */
	user_add(eve, "{\"name\":\"ed\",\"password\":\"pw\"}");
	BODY_HAS("\"tenant\":\"acme\"");
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/users", NULL), 200);
	ck_assert_ptr_null(strstr(got.body, "root"));
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/users/root", NULL), 404);
	ck_assert_int_eq(ask_as(eve, "DELETE", "/api/v1/users/root", NULL), 404);
	ck_assert_int_eq(ask_as(eve, "POST", "/api/v1/users",
				 "{\"name\":\"spy\",\"password\":\"pw\",\"tenant\":\"default\"}"),
		403);
	ck_assert_int_eq(ask_as(eve, "PUT", "/api/v1/routes/r", "{\"route\":\"r/# -> s\"}"), 204);
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/routes", NULL), 200);
	ck_assert_ptr_null(strstr(got.body, "r/#"));
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/routes", NULL), 200);
	BODY_HAS("r/#");
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/node", NULL), 403);
	ck_assert_int_eq(ask_as(eve, "GET", "/api/v1/config", NULL), 403);
	ck_assert_int_eq(ask_as(eve, "PUT", "/api/v1/quotas/tenant/acme", "{}"), 403);
	/* A rule of a user is its tenant's, whoever makes it. */
	rule_add("{\"user\":\"ed\",\"resource\":\"stream\",\"name\":\"s\",\"action\":\"read\"}");
	BODY_HAS("\"tenant\":\"acme\"");
	ck_assert_int_eq(ask_as("ed:pw", "GET", "/streams/s/records", NULL), 200);
	BODY_HAS("of acme");
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/tenants", NULL), 200);
	BODY_HAS("{\"name\":\"acme\",\"streams\":2,\"partitions\":4,\"users\":2,");
	ck_assert_int_eq(ask_as("ed:pw", "GET", "/api/v1/tenants", NULL), 200);
	ck_assert_ptr_null(strstr(got.body, "default"));
	fix_stop();
}
END_TEST

/* The only connection of its user that there may be: those before may not be gone yet. */
static int dial_alone(void)
{
	for (int i = 0; i < 100; i++) {
		int fd = dial();
		put(fd,
			"GET /api/v1/users HTTP/1.1\r\nHost: a\r\n"
			"Authorization: Basic cm9vdDpzZWNyZXQ=\r\n\r\n");
		if (get_reply(fd) == 200)
			return fd;
		close(fd);
		usleep(20000);
	}
	ck_abort_msg("never the only one");
	return -1;
}

START_TEST(quotas_slow_down)
{
	struct timespec a, b;
	start_with_admin();
	ck_assert_int_eq(ask_as(admin, "PUT", "/api/v1/quotas/user/root",
				 "{\"messages-in\":10,\"connections\":50,\"bytes-in\":\"1MiB\"}"),
		200);
	BODY_HAS("{\"kind\":\"user\",\"name\":\"root\",\"bytes-in\":1048576,\"messages-in\":10,"
		 "\"connections\":50}");
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(ask_as(admin, "POST", "/topics/q", "x"), 200);
	clock_gettime(CLOCK_MONOTONIC, &b);
	ck_assert_int_ge((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000, 700);
	ck_assert_int_eq(ask_as(admin, "PATCH", "/api/v1/quotas/user/root",
				 "{\"messages-in\":null,\"connections\":1}"),
		200);
	ck_assert_ptr_null(strstr(got.body, "messages-in"));
	int fd = dial_alone();
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/users", NULL), 429);
	close(fd);
	for (int i = 0;
		i < 1000 && ask_as(admin, "DELETE", "/api/v1/quotas/user/root", NULL) == 429; i++)
		usleep(20000);
	ck_assert_int_eq(got.status, 204);
	ck_assert_int_eq(ask_as(admin, "DELETE", "/api/v1/quotas/user/root", NULL), 404);
	fix_stop();
}
END_TEST

START_TEST(refuses_what_is_no_rule_or_user)
{
	static const char *const rules[] = {"{}", "{\"user\":\"a\"}",
		"{\"user\":\"a\",\"role\":\"b\",\"resource\":\"stream\",\"name\":\"s\",\"action\":"
		"\"read\"}",
		"{\"user\":\"a\",\"resource\":\"streams\",\"name\":\"s\",\"action\":\"read\"}",
		"{\"user\":\"a\",\"resource\":\"stream\",\"action\":\"read\"}",
		"{\"user\":\"a\",\"resource\":\"stream\",\"name\":\"s\",\"action\":\"fly\"}",
		"{\"user\":\"a\",\"resource\":\"topic\",\"name\":\"a/#/b\",\"action\":\"read\"}",
		"{\"user\":\"a\",\"resource\":\"topic\",\"name\":\"a\",\"action\":\"create\"}",
		"{\"user\":\"a\",\"resource\":\"stream\",\"name\":\"s\",\"action\":\"read\","
		"\"pattern\":\"glob\"}",
		"{\"rules\":7}", "{\"rules\":[7]}", "{\"user\":7}"};
	static const char *const users[] = {"{}", "{\"name\":\"a:b\"}", "{\"name\":\"*\"}",
		"{\"name\":\"a\",\"roles\":\"admin\"}", "{\"name\":\"a\",\"roles\":[7]}",
		"{\"name\":\"a\",\"tenant\":\"A\"}", "{\"name\":\"a\",\"password\":\"\"}",
		"{\"name\":\"a\",\"disabled\":1}", "{\"name\":\"a\",\"secret\":\"b\"}"};
	start_with_admin();
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		ck_assert_msg(ask_as(admin, "POST", "/api/v1/acls", rules[i]) == 400, "%s: %s",
			rules[i], got.body);
	for (size_t i = 0; i < sizeof users / sizeof users[0]; i++)
		ck_assert_msg(ask_as(admin, "POST", "/api/v1/users", users[i]) == 400, "%s: %s",
			users[i], got.body);
	ck_assert_int_eq(ask_as(admin, "DELETE", "/api/v1/acls", NULL), 400);
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/users", "{\"name\":\"root\"}"), 409);
	ck_assert_int_eq(ask_as(admin, "DELETE", "/api/v1/users/none", NULL), 404);
	ck_assert_int_eq(ask_as(admin, "POST", "/api/v1/users?dry_run", "{\"name\":\"a\"}"), 200);
	BODY_HAS("\"dry_run\":true");
	ck_assert_int_eq(ask_as(admin, "GET", "/api/v1/users/a", NULL), 404);
	/* The last administrator stays while there are others. */
	user_add(admin, "{\"name\":\"bob\",\"password\":\"pw\"}");
	ck_assert_int_eq(ask_as(admin, "DELETE", "/api/v1/users/root", NULL), 409);
	ck_assert_int_eq(ask_as(admin, "PUT", "/api/v1/quotas/node/a", "{\"connections\":1}"), 404);
	ck_assert_int_eq(
		ask_as(admin, "PUT", "/api/v1/quotas/user/a", "{\"connections\":1.5}"), 400);
	fix_stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_login");
	TCase *tc = tcase_create("login");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, the_first_user_closes_the_door);
	tcase_add_test(tc, nobody_is_faster_than_the_first_administrator);
	tcase_add_test(tc, nonsense_is_nobody);
	tcase_add_test(tc, a_connection_is_whom_each_request_says);
	tcase_add_test(tc, no_body_is_read_for_nobody);
	tcase_add_test(tc, who_goes_meanwhile);
	tcase_add_test(tc, each_path_needs_its_right);
	tcase_add_test(tc, lists_show_what_may_be_seen);
	tcase_add_test(tc, tenants_do_not_meet);
	tcase_add_test(tc, quotas_slow_down);
	tcase_add_test(tc, refuses_what_is_no_rule_or_user);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
