#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/base/conf.h"

static const char *const levels[] = {"debug", "info", "warn", NULL};

static enum err check_even(const char *text, char *why, size_t why_size)
{
	if (strlen(text) % 2 == 0)
		return OK;
	snprintf(why, why_size, "must have an even length");
	return ERR_INVALID;
}

struct settings {
	bool create;
	int64_t loops, bytes, stall;
	const char *dir, *password, *even;
	int level;
	struct conf_named routes;
};

#define AT(field) offsetof(struct settings, field)
static const struct conf_row rows[] = {
	{"stream.auto_create", CONF_BOOL, AT(create), "true", 0, 0, NULL, CONF_AT_RELOAD, NULL,
		"Whether streams | come to be."},
	{"loops", CONF_INT, AT(loops), "2", 1, 64, NULL, CONF_AT_START, NULL, "Loops."},
	{"message.bytes-max", CONF_BYTES, AT(bytes), "1MiB", 1, INT64_MAX, NULL, CONF_AT_RELOAD,
		NULL, "Largest message."},
	{"disk.stall", CONF_MSEC, AT(stall), "600ms", 0, 0, NULL, CONF_AT_RELOAD, NULL,
		"A write in flight for longer than this makes the leaders of this node stop their "
		"heartbeats, so that others can take over while the disk hangs."},
	{"data.dir", CONF_TEXT, AT(dir), "./data", 0, 0, NULL, CONF_AT_START, NULL, "Folder."},
	{"auth.password", CONF_TEXT, AT(password), "", 0, 0, NULL, CONF_AT_RELOAD, check_even,
		"Password."},
	{"even", CONF_TEXT, AT(even), "", 0, 0, NULL, CONF_AT_RELOAD, check_even, "Even."},
	{"log.level", CONF_WORD, AT(level), "info", 0, 0, levels, CONF_AT_RELOAD, NULL, "Level."},
	{"route.*", CONF_NAMED, AT(routes), "", 0, 0, NULL, CONF_AT_RELOAD, NULL, "Routes."},
	{0},
};

static struct conf *c;
static struct settings s;
static char why[256];

static void setup(void)
{
	why[0] = 0;
	c = conf_new();
	conf_add(c, rows, &s);
}

static void teardown(void)
{
	conf_free(c);
}

static enum err set(const char *key, const char *value)
{
	return conf_set(c, key, value, why, sizeof why);
}

static enum err read_text(const char *text)
{
	char path[] = "/tmp/conf_test.XXXXXX";
	int fd = mkstemp(path);
	enum err e;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
	e = conf_read_file(c, path, why, sizeof why);
	unlink(path);
	return e;
}

static enum err read_env(const char *one)
{
	char *copy = strdup(one);
	char other[] = "HOME=/root";
	char *env[] = {other, copy, NULL};
	enum err e = conf_read_env(c, env, why, sizeof why);

	free(copy);
	return e;
}

static struct conf_item item(const char *name)
{
	struct conf_item found;

	for (int i = 0; conf_next(c, &i, &found);)
		if (strcmp(found.name, name) == 0)
			return found;
	ck_abort_msg("%s is not listed", name);
	return found;
}

START_TEST(defaults_are_there_at_once)
{
	ck_assert(s.create);
	ck_assert_int_eq(s.loops, 2);
	ck_assert_int_eq(s.bytes, 1 << 20);
	ck_assert_int_eq(s.stall, 600);
	ck_assert_str_eq(s.dir, "./data");
	ck_assert_str_eq(s.password, "");
	ck_assert_int_eq(s.level, 1);
	ck_assert_int_eq(s.routes.count, 0);
	ck_assert_str_eq(item("loops").source, "default");
}
END_TEST

START_TEST(stronger_sources_win_in_any_order)
{
	ck_assert_int_eq(set("loops", "5"), OK);
	ck_assert_int_eq(read_env("SLUICE_LOOPS=4"), OK);
	ck_assert_int_eq(read_env("SLUICE_MESSAGE_BYTES_MAX=64KiB"), OK);
	ck_assert_int_eq(read_text("# comment\n\n loops = 3 \r\nmessage.bytes-max=1\n"
				   "log.level = warn\nlog.level = debug"),
		OK);
	ck_assert_int_eq(s.loops, 2); /* nothing before conf_apply */
	conf_apply(c, true);
	ck_assert_int_eq(s.loops, 5);
	ck_assert_int_eq(s.bytes, 65536);
	ck_assert_int_eq(s.level, 0);
	ck_assert_str_eq(item("loops").source, "set");
	ck_assert_str_eq(item("message.bytes-max").source, "env");
	ck_assert_str_eq(item("message.bytes-max").value, "64KiB");
	ck_assert_str_eq(item("log.level").source, "file");
}
END_TEST

START_TEST(bad_values_are_named)
{
	static const struct {
		const char *key, *value;
	} bad[] = {{"loops", "0"}, {"loops", "65"}, {"loops", "x"}, {"loops", ""}, {"loops", "1.5"},
		{"loops", "99999999999999999999"}, {"message.bytes-max", "1KB2"},
		{"message.bytes-max", "9999999TiB"}, {"message.bytes-max", "0"},
		{"disk.stall", "-1"}, {"disk.stall", "5 s"}, {"disk.stall", "5y"},
		{"stream.auto_create", "maybe"}, {"log.level", "loud"}, {"even", "odd"},
		{"even", "\xff\xff"}};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ck_assert_int_eq(set(bad[i].key, bad[i].value), ERR_INVALID);
		ck_assert_msg(strncmp(why, bad[i].key, strlen(bad[i].key)) == 0, "%s", why);
	}
	ck_assert_int_eq(set("log.level", "loud"), ERR_INVALID);
	ck_assert_str_eq(why, "log.level = loud: must be one of debug, info, warn");
	ck_assert_int_eq(set("auth.password", "secret7"), ERR_INVALID);
	ck_assert_str_eq(why, "auth.password: must have an even length");
}
END_TEST

START_TEST(unknown_keys_get_a_hint)
{
	ck_assert_int_eq(set("log.levle", "info"), ERR_INVALID);
	ck_assert_str_eq(why, "unknown key log.levle; did you mean log.level?");
	ck_assert_int_eq(set("entirely.different.thing", "info"), ERR_INVALID);
	ck_assert_str_eq(why, "unknown key entirely.different.thing");
	ck_assert_int_eq(set("route.", "x"), ERR_INVALID);
	ck_assert_int_eq(set("route.*", "x"), OK); /* a name like any other */
	ck_assert_int_eq(read_env("SLUICE_LOG_LEVEK=info"), ERR_INVALID);
	ck_assert_str_eq(why, "SLUICE_LOG_LEVEK: unknown key log.levek; did you mean log.level?");
	ck_assert_int_eq(read_env("SLUICE_PORT_1883_TCP=tcp://10.0.0.1:1883"), OK);
	ck_assert_int_eq(read_env("SLUICE_SERVICE_HOST=10.0.0.1"), OK);
	ck_assert_int_eq(read_env("SLUICE_LOOPS=many"), ERR_INVALID);
}
END_TEST

START_TEST(files_fail_by_line)
{
	ck_assert_int_eq(read_text("loops = 3\n\nloops 4\n"), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(why, ":3: expected key = value"));
	ck_assert_int_eq(read_text("loops = 3\nloops = none"), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(why, ":2: loops = none: must be a whole number"));
	ck_assert_int_eq(conf_read_file(c, "/nowhere/x", why, sizeof why), ERR_NOTFOUND);
	ck_assert_ptr_nonnull(strstr(why, "/nowhere/x"));
	ck_assert_int_eq(conf_read_file(c, "/tmp", why, sizeof why), ERR_IO);
}
END_TEST

START_TEST(named_texts_collect)
{
	ck_assert_int_eq(read_text("route.b = x -> y\nroute.a = # -> z key=a=b\n"), OK);
	ck_assert_int_eq(read_env("SLUICE_ROUTE_B=other"), OK);
	ck_assert_int_eq(set("route.c", "last"), OK);
	conf_apply(c, true);
	ck_assert_int_eq(s.routes.count, 3);
	ck_assert_str_eq(s.routes.pairs[0].name, "b");
	ck_assert_str_eq(s.routes.pairs[0].value, "other");
	ck_assert_str_eq(s.routes.pairs[1].name, "a");
	ck_assert_str_eq(s.routes.pairs[1].value, "# -> z key=a=b");
	ck_assert_str_eq(s.routes.pairs[2].name, "c");
	ck_assert_str_eq(item("route.b").source, "env");
	ck_assert_str_eq(item("route.c").value, "last");
	conf_forget(c);
	conf_apply(c, false);
	ck_assert_int_eq(s.routes.count, 0);
}
END_TEST

START_TEST(a_reload_changes_what_may_change)
{
	ck_assert_int_eq(read_text("data.dir = /a\nauth.password = first1\nloops = 4"), OK);
	conf_apply(c, true);
	ck_assert_str_eq(item("auth.password").value, "***");
	conf_forget(c);
	ck_assert_int_eq(read_text("data.dir = /b\nauth.password = second\nloops = 4"), OK);
	ck_assert_str_eq(s.password, "first1");
	conf_apply(c, false);
	ck_assert_str_eq(s.password, "second");
	ck_assert_str_eq(s.dir, "/a"); /* needs a restart, and its text is still there */
	ck_assert_str_eq(item("data.dir").value, "/a");
	ck_assert_int_eq(s.loops, 4);
	conf_forget(c);
	ck_assert_int_eq(read_text("even = odd"), ERR_INVALID);
	ck_assert_str_eq(s.password, "second"); /* a reload that failed changed nothing */
	conf_forget(c);
	conf_apply(c, false);
	ck_assert_str_eq(s.password, "");
}
END_TEST

/* The sample as it is changes nothing; with its settings uncommented it says the defaults. */
START_TEST(the_sample_reads_back)
{
	struct buf out;
	char *at;

	buf_init(&out, 1 << 20);
	conf_write_sample(c, &out);
	buf_add_u8(&out, 0);
	ck_assert_int_eq(out.err, OK);
	at = (char *)out.chunk->data;
	ck_assert_int_eq(read_text(at), OK);
	conf_apply(c, true);
	ck_assert_str_eq(item("loops").source, "default");
	for (char *line = at; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		ck_assert_int_le((int)strcspn(line, "\n"), 100);
		if (line[0] == '#' && line[1] != ' ')
			line[0] = ' ';
	}
	ck_assert_int_eq(read_text(at), OK);
	conf_apply(c, true);
	ck_assert_str_eq(item("loops").source, "file");
	ck_assert_str_eq(item("disk.stall").source, "file");
	ck_assert_int_eq(s.bytes, 1 << 20);
	ck_assert_str_eq(s.dir, "./data");
	ck_assert_int_eq(s.routes.count, 1);
	buf_fini(&out);
}
END_TEST

START_TEST(the_reference_names_every_row)
{
	struct buf out;

	buf_init(&out, 1 << 20);
	conf_write_reference(c, &out);
	buf_add_u8(&out, 0);
	for (const struct conf_row *row = rows; row->key; row++)
		ck_assert_ptr_nonnull(strstr((const char *)out.chunk->data, row->key));
	ck_assert_ptr_nonnull(strstr((const char *)out.chunk->data,
		"| `loops` | a whole number, 1 to 64 | `2` | at start | Loops. |\n"));
	ck_assert_ptr_nonnull(strstr((const char *)out.chunk->data, "streams \\| come"));
	buf_fini(&out);
}
END_TEST

START_TEST(value_forms)
{
	int64_t v;
	bool on;

	ck_assert_int_eq(conf_parse_bytes("4096", &v), OK);
	ck_assert_int_eq(v, 4096);
	ck_assert_int_eq(conf_parse_bytes("3GiB", &v), OK);
	ck_assert_int_eq(v, 3ll << 30);
	ck_assert_int_eq(conf_parse_msec("2h", &v), OK);
	ck_assert_int_eq(v, 7200000);
	ck_assert_int_eq(conf_parse_msec("7d", &v), OK);
	ck_assert_int_eq(v, 604800000);
	ck_assert_int_eq(conf_parse_msec("10m", &v), OK);
	ck_assert_int_eq(v, 600000);
	ck_assert_int_eq(conf_parse_int("-1", &v), OK);
	ck_assert_int_eq(v, -1);
	ck_assert_int_eq(conf_parse_int("9223372036854775807", &v), OK);
	ck_assert_int_eq(v, INT64_MAX);
	ck_assert_int_eq(conf_parse_int("9223372036854775808", &v), ERR_INVALID);
	ck_assert_int_eq(conf_parse_int("-", &v), ERR_INVALID);
	ck_assert_int_eq(conf_parse_int("1s", &v), ERR_INVALID);
	ck_assert_int_eq(conf_parse_bool("off", &on), OK);
	ck_assert(!on);
	ck_assert_int_eq(conf_parse_bool("YES", &on), OK);
	ck_assert(on);
	ck_assert_int_eq(conf_parse_bool("2", &on), ERR_INVALID);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("conf");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, defaults_are_there_at_once);
	tcase_add_test(tc, stronger_sources_win_in_any_order);
	tcase_add_test(tc, bad_values_are_named);
	tcase_add_test(tc, unknown_keys_get_a_hint);
	tcase_add_test(tc, files_fail_by_line);
	tcase_add_test(tc, named_texts_collect);
	tcase_add_test(tc, a_reload_changes_what_may_change);
	tcase_add_test(tc, the_sample_reads_back);
	tcase_add_test(tc, the_reference_names_every_row);
	tcase_add_test(tc, value_forms);
	Suite *suite = suite_create("conf");
	suite_add_tcase(suite, tc);
	SRunner *sr = srunner_create(suite);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
