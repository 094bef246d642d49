/* A coordinator that has just come to lead a table: what it lists, and what becomes of members that
 * do not come back. */
#include "server/broker/group_home.h"
#include "server/broker/group_store.h"
#include "server/broker/keyspace.h"
#include "server/broker/tenant.h"
#include "tests/unit/server/broker/world_rows.h"

enum { SESSION_MS = 3000, GROUPS = 700 /* more than a page */, OFFSETS = 50000, LISTS = 5 };

static struct world w;
static struct groups *groups;
static const struct group_conf conf = {
	.session_ms_min = 1,
	.session_ms_max = 1800000,
	.members_max = 10,
	.bytes_max = 1 << 20,
	.groups_max = 10000,
	.offset_metadata_max = 4096,
};

static struct partition *table(void)
{
	return catalog_table_at(node_catalog(w.node, loops_at(w.loops, 0)), 0);
}

static void add_str(struct buf *out, const char *text)
{
	buf_add_u16be(out, (uint16_t)strlen(text));
	buf_add_text(out, text);
}

static void name(int i, struct buf *key)
{
	buf_addf(key, "g%04d", i);
}

static void generation(int i, struct buf *key, struct buf *value)
{
	struct group_row row = {
		.generation = 7, .time_ms = 1, .protocol_type = bytes_text("consumer")};
	name(i, key);
	group_row_write(value, &row);
}

/* One member, stable, as group_state.h has it. Every tenth group has none. */
static void members(int i, struct buf *key, struct buf *value)
{
	struct group_state_row row = {.generation = i % 10 == 0 ? 6 : 7, .time_ms = 1};
	struct buf state;
	buf_init(&state, 1000);
	buf_add_u8(&state, 1);
	buf_add_u8(&state, 1);
	add_str(&state, "range");
	add_str(&state, "m-1");
	buf_add_u32be(&state, 1);
	add_str(&state, "m-1");
	buf_add_u16be(&state, UINT16_MAX);
	add_str(&state, "app");
	add_str(&state, "10.0.0.1");
	buf_add_u32be(&state, SESSION_MS);
	buf_add_u32be(&state, SESSION_MS);
	buf_add_u8(&state, 1);
	add_str(&state, "range");
	buf_add_u32be(&state, 0);
	buf_add_u32be(&state, 0);
	row.state = buf_bytes(&state);
	name(i, key);
	group_state_row_write(value, &row);
	buf_fini(&state);
}

struct listing {
	struct group_call call;
	const struct bytes *tenant;
};

static void listed(struct group_call *c)
{
	(void)c;
	sem_post(&w.done);
}

static void list_run(void *arg)
{
	struct listing *l = arg;
	l->call = (struct group_call){
		.kind = GROUP_CALL_LIST, .table = table(), .tenant = l->tenant, .done = listed};
	group_call(groups, node_catalog(w.node, loop_here()), &l->call);
}

/* How many groups are listed in that state. */
static int count(enum group_state state)
{
	struct listing l = {0};
	int found = 0;
	world_call(&w, 0, list_run, &l);
	ck_assert_int_eq(l.call.err, GROUP_OK);
	ck_assert_uint_eq(l.call.listed_count, GROUPS);
	for (uint32_t i = 0; i < l.call.listed_count; i++)
		found += l.call.listed[i].state == state;
	group_call_fini(&l.call);
	return found;
}

START_TEST(groups_with_members_are_listed_as_what_they_are)
{
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	rows_put(&w, table(), KEYSPACE_GROUP, GROUPS, generation);
	rows_put(&w, table(), KEYSPACE_GROUP_STATE, GROUPS, members);
	/* At once: nobody has spoken for any of them yet. */
	ck_assert_int_eq(count(GROUP_STABLE), GROUPS - GROUPS / 10);
	/* Nor does anybody: their sessions end. */
	int left = GROUPS;
	for (int i = 0; i < 2000 && (left = count(GROUP_EMPTY)) < GROUPS; i++)
		usleep(20000);
	ck_assert_int_eq(left, GROUPS);
	groups_stop(groups);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

/* ---- tenants */

static void called(struct group_call *c)
{
	(void)c;
	sem_post(&w.done);
}
static void call_run(void *arg)
{
	struct group_call *c = arg;
	c->done = called;
	group_call(groups, node_catalog(w.node, loop_here()), c);
}
static enum group_err commit(struct bytes id, int64_t offset)
{
	struct group_offset o = {.stream = {7}, .partition = 1, .offset = offset, .epoch = -1};
	struct group_call c = {.kind = GROUP_CALL_COMMIT,
		.group_id = id,
		.generation = -1,
		.offsets = &o,
		.offset_count = 1};
	world_call(&w, 0, call_run, &c);
	enum group_err e = c.err;
	group_call_fini(&c);
	return e;
}

static void have_read(struct offsets_read *r)
{
	(void)r;
	sem_post(&w.done);
}
struct reading {
	struct offsets_read r;
	struct bytes id;
};
static void read_run(void *arg)
{
	struct reading *x = arg;
	x->r.done = have_read;
	offsets_read(&x->r, node_catalog(w.node, loop_here()), x->id);
}
static int64_t committed(struct bytes id)
{
	struct reading x = {.id = id};
	world_call(&w, 0, read_run, &x);
	ck_assert_int_eq(x.r.err, GROUP_OK);
	ck_assert_uint_eq(x.r.count, 1);
	int64_t offset = x.r.found[0].offset;
	offsets_read_fini(&x.r);
	return offset;
}

START_TEST(one_id_in_two_tenants_is_two_groups)
{
	static uint8_t room[40000], text[40000];
	struct bytes g = bytes_text("g"), acme, tenant, id;
	struct listing l = {0};
	int seen[2] = {0};
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	acme = tenant_id(bytes_text("acme"), g, room);
	ck_assert_int_eq(commit(g, 5), GROUP_OK);
	ck_assert_int_eq(commit(acme, 9), GROUP_OK);
	ck_assert_int_eq(committed(g), 5);
	ck_assert_int_eq(committed(acme), 9);
	world_call(&w, 0, list_run, &l);
	for (uint32_t i = 0; i < l.call.listed_count; i++) {
		tenant_id_split(l.call.listed[i].id.bytes, &tenant, &id);
		ck_assert(bytes_equal(id, g));
		seen[tenant.len > 0]++;
	}
	group_call_fini(&l.call);
	ck_assert(seen[0] == 1 && seen[1] == 1);
	/* Bounds are the same for every tenant. */
	memset(text, 'x', sizeof text);
	acme = tenant_id(bytes_text("acme"), bytes_of(text, 32767), room);
	ck_assert_int_eq(commit(acme, 1), GROUP_OK);
	acme = tenant_id(bytes_text("acme"), bytes_of(text, 32768), room);
	ck_assert_int_eq(commit(acme, 1), GROUP_BAD_ID);
	ck_assert_int_eq(commit(bytes_of(text, 32768), 1), GROUP_BAD_ID);
	acme = tenant_id(bytes_text("acme"), bytes_of("", 0), room);
	ck_assert_int_eq(commit(acme, 1), GROUP_BAD_ID);
	acme = tenant_id(bytes_text("acme"), bytes_of("a\0b", 3), room);
	ck_assert_int_eq(commit(acme, 1), GROUP_BAD_ID);
	ck_assert_int_eq(commit(bytes_of("a\0b", 3), 1), GROUP_BAD_ID);
	ck_assert_int_eq(commit(bytes_of("\0acme", 5), 1), GROUP_BAD_ID);
	groups_stop(groups);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

/* ---- bounds */

static struct listing many[LISTS];

static void one_of_many(struct group_call *c)
{
	int begun = 0;
	ck_assert_int_eq(c->err, GROUP_OK);
	ck_assert_uint_eq(c->listed_count, GROUPS);
	group_call_fini(c);
	for (int i = 0; i < LISTS; i++)
		begun += many[i].call.listed_count > 0;
	ck_assert_int_le(begun, 1);
	sem_post(&w.done);
}

static void lists_run(void *arg)
{
	(void)arg;
	for (int i = 0; i < LISTS; i++) {
		list_run(&many[i]);
		many[i].call.done = one_of_many;
	}
}

START_TEST(lists_asked_for_at_once_are_made_one_after_another)
{
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	rows_put(&w, table(), KEYSPACE_GROUP, GROUPS, generation);
	world_call(&w, 0, lists_run, NULL);
	for (int i = 1; i < LISTS; i++)
		sem_wait(&w.done);
	groups_stop(groups);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

START_TEST(a_list_is_of_the_tenant_that_asks)
{
	uint8_t room[TENANT_ID_EXTRA + 1];
	struct bytes acme = bytes_text("acme"), zeta = bytes_text("zeta"), nobody = {0};
	struct bytes ours = tenant_id(acme, bytes_text("g"), room);
	struct listing l = {0};
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	rows_put(&w, table(), KEYSPACE_GROUP, GROUPS, generation);
	ck_assert_int_eq(commit(ours, 9), GROUP_OK);
	for (int i = 0; i < 3; i++) {
		struct bytes *tenants[] = {&acme, &zeta, &nobody};
		l.tenant = tenants[i];
		world_call(&w, 0, list_run, &l);
		ck_assert_int_eq(l.call.err, GROUP_OK);
		ck_assert_uint_eq(l.call.listed_count, i == 0 ? 1 : i == 1 ? 0 : GROUPS);
		if (i == 0)
			ck_assert(bytes_equal(l.call.listed[0].id.bytes, ours));
		group_call_fini(&l.call);
	}
	groups_stop(groups);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

/* What was found is counted as long as it is there, and there is an end to it. */
START_TEST(offsets_that_are_read_are_counted)
{
	struct group_offset offsets[10];
	struct bytes id = bytes_text("g");
	int64_t held = 0;
	struct group_call c = {.kind = GROUP_CALL_COMMIT,
		.group_id = id,
		.generation = -1,
		.offsets = offsets,
		.offset_count = 10};
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	for (int i = 0; i < 10; i++)
		offsets[i] = (struct group_offset){.stream = {7},
			.partition = i,
			.epoch = -1,
			.metadata = bytes_text("a note")};
	world_call(&w, 0, call_run, &c);
	ck_assert_int_eq(c.err, GROUP_OK);
	group_call_fini(&c);
	for (int i = 0; i < 2; i++) {
		struct reading x = {.id = id, .r = {.held = &held, .held_max = i ? 100 : 1 << 20}};
		world_call(&w, 0, read_run, &x);
		ck_assert_int_eq(x.r.err, i ? GROUP_UNAVAILABLE : GROUP_OK);
		ck_assert_int_gt(held, 10 * (int)sizeof(struct offsets_found));
		offsets_read_fini(&x.r);
		ck_assert_int_eq(held, 0);
	}
	groups_stop(groups);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

/* ---- deleting */

static uint32_t left_of(struct bytes id)
{
	struct reading x = {.id = id};
	world_call(&w, 0, read_run, &x);
	ck_assert_int_eq(x.r.err, GROUP_OK);
	uint32_t count = x.r.count;
	offsets_read_fini(&x.r);
	return count;
}

static void delete_run(void *arg)
{
	call_run(arg);
	sem_post(&w.done); /* the test goes on while the call is under way */
}

/* Coordination is lost between two pages of offsets: it is not said that the group is gone. */
START_TEST(a_group_deleted_in_part_is_not_called_deleted)
{
	static struct group_offset offsets[OFFSETS];
	struct bytes id = bytes_text("g");
	struct group_call c = {.kind = GROUP_CALL_COMMIT,
		.group_id = id,
		.generation = -1,
		.offsets = offsets,
		.offset_count = OFFSETS};
	world_init(&w);
	world_start(&w, 1);
	groups = groups_new(&conf, w.loops);
	for (int i = 0; i < OFFSETS; i++)
		offsets[i] = (struct group_offset){.stream = {7}, .partition = i, .epoch = -1};
	world_call(&w, 0, call_run, &c);
	ck_assert_int_eq(c.err, GROUP_OK);
	group_call_fini(&c);
	c = (struct group_call){.kind = GROUP_CALL_DELETE, .group_id = id};
	world_call(&w, 0, delete_run, &c);
	uint32_t left;
	while ((left = left_of(id)) == OFFSETS)
		;
	ck_assert_uint_gt(left, 0);
	groups_stop(groups);
	sem_wait(&w.done);
	ck_assert_uint_gt(left_of(id), 0);
	ck_assert_int_eq(c.err, GROUP_NOT_HERE);
	group_call_fini(&c);
	world_stop(&w);
	groups_free(groups);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("group_home");
	TCase *tc = tcase_create("leading");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, groups_with_members_are_listed_as_what_they_are);
	tcase_add_test(tc, one_id_in_two_tenants_is_two_groups);
	tcase_add_test(tc, lists_asked_for_at_once_are_made_one_after_another);
	tcase_add_test(tc, a_list_is_of_the_tenant_that_asks);
	tcase_add_test(tc, offsets_that_are_read_are_counted);
	tcase_add_test(tc, a_group_deleted_in_part_is_not_called_deleted);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
