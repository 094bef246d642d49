/* What is told ends up in the stream __audit, as JSON, in order; floods become numbers. */
#include "server/broker/admin_change.h"
#include <cjson/cJSON.h>
#include "server/broker/stream.h"
#include "tests/unit/server/broker/world.h"

static struct world w;

static void setup(void)
{
	world_init(&w);
	world_start(&w, 2);
}
static void teardown(void)
{
	world_stop(&w);
}

/* --- telling */

struct telling {
	struct audit_event event;
	int loop, times;
};

static void tell_run(void *arg)
{
	struct telling *t = arg;
	for (int i = 0; i < t->times; i++)
		audit(world_shard(&w, t->loop), &t->event);
	sem_post(&w.done);
}

static void tell(int loop, int times, struct audit_event event)
{
	struct telling t = {event, loop, times};
	world_call(&w, loop, tell_run, &t);
}

/* --- reading what is there */

enum { RECORDS_MAX = 3000 };
static struct {
	cJSON *value;
	char key[600];
} records[RECORDS_MAX];
static int record_count;
static const struct stream *stream;
static int64_t retention_ms;
static int partitions;

static void take(struct bytes all)
{
	struct batch b;
	struct batch_walk walk;
	struct record r;
	while (all.len > 0) {
		ck_assert_int_eq(batch_read(all, &b), OK);
		ck_assert_int_eq(batch_check(&b, 1 << 20), OK);
		ck_assert_int_eq(batch_walk_init(&walk, &b, 1 << 20), OK);
		while (batch_walk_next(&walk, &r) == OK) {
			ck_assert_int_lt(record_count, RECORDS_MAX);
			ck_assert(bytes_utf8(r.value));
			records[record_count].value = cJSON_ParseWithLength(
				(const char *)r.value.at, r.value.len);
			ck_assert_ptr_nonnull(records[record_count].value);
			snprintf(records[record_count].key, sizeof records[0].key, "%.*s",
				(int)r.key.len, r.key.len > 0 ? (const char *)r.key.at : "");
			record_count++;
		}
		batch_walk_fini(&walk);
		all = bytes_of(all.at + b.all.len, all.len - b.all.len);
	}
}

static void forget(void)
{
	for (int i = 0; i < record_count; i++)
		cJSON_Delete(records[i].value);
	record_count = 0;
}

static void on_read(struct stream_read *r)
{
	ck_assert_int_eq(r->err, OK);
	for (uint32_t i = 0; i < r->count; i++)
		take(r->slices[i].bytes);
	bool more = r->next_offset < r->high_watermark && r->next_offset > r->offset;
	r->offset = r->next_offset;
	stream_read_fini(r);
	if (more)
		stream_read(r);
	else
		sem_post(&w.done);
}

static void read_run(void *arg)
{
	struct stream_read *r = arg;
	stream = catalog_stream(shard_catalog(world_shard(&w, 0)), bytes_text("__audit"));
	if (stream == NULL) {
		sem_post(&w.done);
		return;
	}
	retention_ms = stream->retention_ms;
	partitions = stream->partition_count;
	*r = (struct stream_read){
		.from = stream->partitions[0], .bytes_max = 1 << 20, .done = on_read};
	stream_read(r);
}

/* Reads until there are that many. */
static void await(int count)
{
	struct stream_read r;
	for (int i = 0; i < 1000; i++) {
		forget();
		world_call(&w, 0, read_run, &r);
		if (record_count >= count)
			return;
		usleep(10000);
	}
	ck_abort_msg("%d of %d records", record_count, count);
}

static const char *field(int i, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(records[i].value, name);
	return v == NULL ? NULL : cJSON_GetStringValue(v);
}

/* --- tests */

START_TEST(events_are_records)
{
	tell(0, 1,
		(struct audit_event){.what = "user-add",
			.door = "http",
			.peer = "127.0.0.1:5",
			.user = bytes_text("ro\"ot\xff"),
			.tenant = bytes_text("acme"),
			.object = bytes_text("bob"),
			.detail = "role=ops"});
	await(1);
	ck_assert_int_eq(record_count, 1);
	ck_assert_int_eq(retention_ms, INT64_C(90) * 86400000);
	ck_assert_int_eq(partitions, 1);
	ck_assert_str_eq(field(0, "what"), "user-add");
	ck_assert_str_eq(field(0, "door"), "http");
	ck_assert_str_eq(field(0, "peer"), "127.0.0.1:5");
	ck_assert_str_eq(field(0, "user"), "ro\"ot?");
	ck_assert_str_eq(records[0].key, "ro\"ot\xff");
	ck_assert_str_eq(field(0, "tenant"), "acme");
	ck_assert_str_eq(field(0, "object"), "bob");
	ck_assert_str_eq(field(0, "result"), "ok");
	ck_assert_str_eq(field(0, "detail"), "role=ops");
	ck_assert_uint_eq(strlen(field(0, "time")), 24);
	tell(1, 1, (struct audit_event){.what = "x", .err = ERR_DENIED}); /* from another loop */
	await(2);
	ck_assert_str_eq(field(1, "result"), err_text(ERR_DENIED));
	ck_assert_str_eq(field(1, "tenant"), "default");
	ck_assert_ptr_null(field(1, "door"));
	ck_assert_ptr_null(field(1, "object"));
	forget();
}
END_TEST

/* --- changes of the catalogue */

static void changed(struct admin_change *c)
{
	access_unref(c->who.by);
	sem_post(&w.done);
}

static void change_run(void *arg)
{
	struct admin_change *c = arg;
	struct shard *s = world_shard(&w, 0);
	admin_who(&c->who, s, access_all(s, bytes_of("", 0), "uid:7"), "kafka", NULL);
	c->done = changed;
	admin_change(c);
}

static enum err change(struct meta_op op)
{
	struct admin_change c = {.op = op};
	world_call(&w, 0, change_run, &c);
	return c.op.err;
}

START_TEST(changes_of_the_catalogue_are_told_as_what_they_are)
{
	struct meta_setting s[] = {{"retention.ms", "5"}, {"retention.bytes", NULL}};
	struct meta_setting set = {"route.acme/r", "# -> x"}, gone = {"route.acme/r", NULL};
	struct meta_op create = {.kind = META_CREATE_STREAM,
		.name = "acme/s",
		.partitions = 2,
		.replicas = -1,
		.settings = s,
		.setting_count = 1,
		.check_only = true};
	ck_assert_int_eq(change(create), OK); /* only tried */
	create.check_only = false;
	ck_assert_int_eq(change(create), OK);
	ck_assert_int_eq(change((struct meta_op){
				 .kind = META_ADD_PARTITIONS, .name = "acme/s", .partitions = 3}),
		OK);
	ck_assert_int_eq(change((struct meta_op){.kind = META_ALTER_STREAM,
				 .name = "acme/s",
				 .settings = s,
				 .setting_count = 2}),
		OK);
	ck_assert_int_eq(
		change((struct meta_op){.kind = META_SET, .settings = &set, .setting_count = 1}),
		OK);
	ck_assert_int_eq(
		change((struct meta_op){.kind = META_SET, .settings = &gone, .setting_count = 1}),
		OK);
	ck_assert_int_eq(
		change((struct meta_op){.kind = META_DELETE_STREAM, .name = "acme/s"}), OK);
	ck_assert_int_ne(
		change((struct meta_op){
			.kind = META_NODE_STATE, .node_id = 9, .node_state = NODE_DRAINING}),
		OK);
	static const struct {
		const char *what, *object, *detail;
	} told[] = {{"stream-create", "s", "partitions=2 replicas=3 retention.ms=5 "},
		{"stream-alter", "s", "partitions=3 "},
		{"stream-alter", "s", "retention.ms=5 retention.bytes= "},
		{"setting-set", "route.acme/r", "# -> x"}, {"setting-delete", "route.acme/r", NULL},
		{"stream-delete", "s", NULL}, {"node-drain", "9", "no node 9"}};
	await(7);
	ck_assert_int_eq(record_count, 7);
	for (int i = 0; i < 7; i++) {
		ck_assert_str_eq(field(i, "what"), told[i].what);
		ck_assert_str_eq(field(i, "object"), told[i].object);
		ck_assert_pstr_eq(field(i, "detail"), told[i].detail);
		ck_assert_str_eq(field(i, "user"), "uid:7");
		ck_assert_str_eq(field(i, "door"), "kafka");
		ck_assert_ptr_null(field(i, "peer"));
	}
	forget();
}
END_TEST

START_TEST(many_keep_their_order)
{
	char detail[16];
	for (int i = 0; i < 500; i++) {
		snprintf(detail, sizeof detail, "%d", i);
		tell(0, 1, (struct audit_event){.what = "x", .detail = detail});
	}
	await(500);
	for (int i = 0; i < 500; i++) {
		snprintf(detail, sizeof detail, "%d", i);
		ck_assert_str_eq(field(i, "detail"), detail);
	}
	forget();
}
END_TEST

START_TEST(refused_logins_are_bounded)
{
	struct audit_event e = {
		.what = "login-refused", .user = bytes_text("eve"), .err = ERR_UNAUTHENTICATED};
	int64_t before = clock_ms();
	tell(0, 1000, e);
	if (clock_ms() - before > 900) /* a machine that slow tells more of them */
		return;
	await(61);
	ck_assert_int_eq(record_count, 61);
	for (int i = 0; i < 60; i++)
		ck_assert_str_eq(field(i, "user"), "eve");
	ck_assert_str_eq(field(60, "detail"), "940 more logins or changes");
	ck_assert_str_eq(field(60, "user"), "");
	/* As it goes on one more is told after three seconds; a number not before a minute. */
	usleep(3100000);
	tell(0, 1000, e);
	e.what = "user-alter"; /* so are changes that come to nothing */
	tell(0, 1000, e);
	await(62);
	tell(0, 1, (struct audit_event){.what = "x"}); /* does not wait for the number */
	await(63);
	usleep(1500000);
	await(63);
	ck_assert_int_le(record_count, 64); /* on a slow machine */
	ck_assert_str_eq(field(61, "user"), "eve");
	ck_assert_str_eq(field(record_count - 1, "what"), "x");
	forget();
}
END_TEST

START_TEST(what_does_not_fit_is_counted)
{
	static char detail[400];
	memset(detail, 'x', sizeof detail - 1);
	tell(0, 5000, (struct audit_event){.what = "x", .detail = detail});
	for (int last = 0;;) { /* until the number is told */
		await(last + 1);
		last = record_count;
		if (strcmp(field(last - 1, "what"), "audit-lost") == 0)
			break;
	}
	int lost = 0;
	ck_assert_int_eq(sscanf(field(record_count - 1, "detail"), "%d records lost", &lost), 1);
	ck_assert_int_gt(lost, 0);
	ck_assert_int_eq(record_count - 1 + lost, 5000);
	forget();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("audit");
	TCase *tc = tcase_create("records");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, events_are_records);
	tcase_add_test(tc, changes_of_the_catalogue_are_told_as_what_they_are);
	tcase_add_test(tc, many_keep_their_order);
	tcase_add_test(tc, refused_logins_are_bounded);
	tcase_add_test(tc, what_does_not_fit_is_counted);
	suite_add_tcase(s, tc);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
