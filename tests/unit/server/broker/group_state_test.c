/* What is kept of a group: read back it is the same group, for every state that is kept; what is
 * cut short or changed is refused and leaves an empty group, whatever it was. */
#include <check.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "server/base/wire.h"
#include "server/broker/group_state.h"

enum { SESSION = 10000, REBALANCE = 60000, MEMBERS = 3 };

static const struct group_conf conf = {
	.session_ms_min = 1,
	.session_ms_max = 1800000,
	.initial_delay_ms = 10,
	.members_max = 20,
	.bytes_max = 1 << 20,
	.groups_max = 100,
};
static const char *const instances[MEMBERS] = {NULL, "i-1", NULL};

static struct group g, back;
static struct group_join joins[MEMBERS];
static struct group_sync syncs[MEMBERS];
static struct buf kept;
static int stores;

static void on_join(struct group_join *j)
{
	ck_assert_int_eq(j->err, GROUP_OK);
}

static void on_sync(struct group_sync *s)
{
	ck_assert_int_eq(s->err, GROUP_OK);
}

static void count_store(struct group *of)
{
	(void)of;
	stores++;
}

static struct bytes instance(int i)
{
	return instances[i] ? bytes_text(instances[i]) : bytes_of(NULL, 0);
}

static void join_as(int i, struct bytes id, int64_t now)
{
	static const struct group_choice choices[2] = {
		{{(const uint8_t *)"range", 5}, {(const uint8_t *)"a", 1}},
		{{(const uint8_t *)"robin", 5}, {NULL, 0}}};
	joins[i] = (struct group_join){.member_id = id,
		.instance_id = instance(i),
		.client_id = bytes_text("app"),
		.client_host = bytes_text("10.0.0.1"),
		.protocol_type = bytes_text("consumer"),
		.protocols = choices,
		.protocol_count = 2,
		.session_ms = SESSION,
		.rebalance_ms = REBALANCE,
		.done = on_join};
	group_join(&g, &joins[i], now);
}

static void join(int i, int64_t now)
{
	join_as(i, bytes_of("", 0), now);
}

static void join_again(int i, int64_t now)
{
	struct slice id = slice_ref(joins[i].id);
	group_join_fini(&joins[i]);
	join_as(i, id.bytes, now);
	slice_unref(&id);
}

static void sync_all(void)
{
	struct group_share shares[MEMBERS];
	for (int i = 0; i < MEMBERS; i++)
		shares[i] = (struct group_share){joins[i].id.bytes, joins[i].id.bytes};
	for (int i = MEMBERS - 1; i >= 0; i--) {
		bool leads = bytes_equal(joins[i].leader.bytes, joins[i].id.bytes);
		syncs[i] = (struct group_sync){.member_id = joins[i].id.bytes,
			.instance_id = instance(i),
			.generation = g.generation,
			.assignments = leads ? shares : NULL,
			.assignment_count = leads ? MEMBERS : 0,
			.done = on_sync};
		group_sync(&g, &syncs[i], 10);
	}
}

static void setup(void)
{
	stores = 0;
	memset(joins, 0, sizeof joins);
	memset(syncs, 0, sizeof syncs);
	buf_init(&kept, GROUP_STATE_BYTES_MAX);
	group_init(&g, &conf, 6);
	for (int i = 0; i < MEMBERS; i++)
		join(i, 1);
	(void)group_tick(&g, 1000);
	ck_assert_int_eq(g.state, GROUP_COMPLETING);
	sync_all();
	ck_assert_int_eq(g.state, GROUP_STABLE);
	group_init(&back, &conf, g.generation);
	ck_assert_int_eq(slice_copy(g.protocol_type.bytes, &back.protocol_type), OK);
}

static void teardown(void)
{
	for (int i = 0; i < MEMBERS; i++) {
		group_join_fini(&joins[i]);
		group_sync_fini(&syncs[i]);
	}
	group_fini(&g, GROUP_UNAVAILABLE);
	group_fini(&back, GROUP_UNAVAILABLE);
	buf_fini(&kept);
}

static void same(const struct slice *a, const struct slice *b)
{
	ck_assert((a->bytes.at == NULL) == (b->bytes.at == NULL));
	ck_assert(bytes_equal(a->bytes, b->bytes));
}

START_TEST(a_group_comes_back_as_it_was)
{
	struct group_member_view *a, *b;
	uint32_t count_a, count_b;
	group_state_write(&g, &kept);
	ck_assert_int_eq(group_state_read(&back, buf_bytes(&kept), 1000), OK);
	ck_assert_int_eq(back.state, GROUP_STABLE);
	ck_assert_int_eq(group_views(&g, &a, &count_a), OK);
	ck_assert_int_eq(group_views(&back, &b, &count_b), OK);
	ck_assert_uint_eq(count_a, MEMBERS);
	ck_assert_uint_eq(count_b, MEMBERS);
	for (int i = 0; i < MEMBERS; i++) {
		same(&a[i].id, &b[i].id);
		same(&a[i].instance, &b[i].instance);
		same(&a[i].client_id, &b[i].client_id);
		same(&a[i].client_host, &b[i].client_host);
		same(&a[i].metadata, &b[i].metadata);
		same(&a[i].assignment, &b[i].assignment);
	}
	group_views_free(a, count_a);
	group_views_free(b, count_b);
	same(&g.protocol, &back.protocol);
	ck_assert_uint_eq(g.bytes, back.bytes);
}
END_TEST

START_TEST(members_go_on_in_their_generation)
{
	struct group_sync again = {.member_id = joins[1].id.bytes,
		.instance_id = instance(1),
		.generation = g.generation,
		.done = on_sync};
	group_state_write(&g, &kept);
	ck_assert_int_eq(group_state_read(&back, buf_bytes(&kept), 1000), OK);
	for (int i = 0; i < MEMBERS; i++) {
		ck_assert_int_eq(
			group_heartbeat(&back, g.generation, joins[i].id.bytes, instance(i), 2000),
			GROUP_OK);
		ck_assert_int_eq(
			group_may_commit(&back, g.generation, joins[i].id.bytes, instance(i), 2000),
			GROUP_OK);
	}
	group_sync(&back, &again, 2000);
	ck_assert(bytes_equal(again.assignment.bytes, joins[1].id.bytes));
	group_sync_fini(&again);
	/* Who is not heard of is missed after a session. */
	ck_assert_int_eq(group_heartbeat(&back, g.generation, joins[0].id.bytes, instance(0),
				 2000 + SESSION - 1),
		GROUP_OK);
	(void)group_tick(&back, 2000 + SESSION + 1);
	ck_assert_int_eq(back.state, GROUP_PREPARING);
	ck_assert_uint_eq(group_size(&back), 1);
}
END_TEST

START_TEST(a_rebalance_goes_on)
{
	g.store = count_store;
	ck_assert_int_eq(group_leave(&g, joins[2].id.bytes, instance(2), 100000), GROUP_OK);
	ck_assert_int_eq(stores, 1);
	group_state_write(&g, &kept);
	ck_assert_int_eq(group_state_read(&back, buf_bytes(&kept), 1000), OK);
	ck_assert_int_eq(back.state, GROUP_PREPARING);
	ck_assert_uint_eq(group_size(&back), 2);
	ck_assert_int_eq(group_heartbeat(&back, g.generation, joins[0].id.bytes, instance(0), 1500),
		GROUP_REBALANCING);
	(void)group_tick(&back, 1500 + SESSION + 1); /* nobody comes */
	ck_assert_int_eq(back.state, GROUP_EMPTY);
}
END_TEST

/* A member has gone and all others have joined since, none is assigned anything: whoever leads next
 * has them join again. */
START_TEST(what_is_not_assigned_is_not_kept_as_if_it_were)
{
	g.store = count_store;
	join_again(1, 5000); /* its metadata is the same, but it leads */
	join_again(0, 5000);
	ck_assert_int_eq(g.state, GROUP_PREPARING);
	ck_assert_int_eq(group_leave(&g, joins[2].id.bytes, instance(2), 100000), GROUP_OK);
	ck_assert_int_eq(g.state, GROUP_COMPLETING);
	ck_assert_int_eq(stores, 1);
	group_state_write(&g, &kept);
	ck_assert_int_eq(group_state_read(&back, buf_bytes(&kept), 1000), OK);
	ck_assert_int_eq(back.state, GROUP_PREPARING);
}
END_TEST

START_TEST(an_empty_group_keeps_nothing)
{
	g.store = count_store;
	for (int i = 0; i < MEMBERS; i++)
		ck_assert_int_eq(group_leave(&g, joins[i].id.bytes, instance(i), 100000), GROUP_OK);
	ck_assert_int_eq(g.state, GROUP_EMPTY);
	ck_assert_int_eq(stores, MEMBERS);
	group_state_write(&g, &kept);
	ck_assert_uint_eq(buf_len(&kept), 0);
}
END_TEST

static void check_empty(void)
{
	ck_assert_int_eq(back.state, GROUP_EMPTY);
	ck_assert_uint_eq(group_size(&back), 0);
	ck_assert_uint_eq(back.bytes, 0);
	ck_assert_ptr_null(back.leader);
}

START_TEST(every_prefix_is_refused)
{
	group_state_write(&g, &kept);
	for (size_t len = 0; len < buf_len(&kept); len++) {
		uint8_t *copy = malloc(len ? len : 1);
		memcpy(copy, buf_bytes(&kept).at, len);
		ck_assert_int_eq(group_state_read(&back, bytes_of(copy, len), 1000), ERR_CORRUPT);
		free(copy);
		check_empty();
	}
}
END_TEST

/* Any byte changed: refused, or a group that can be worked with and written again. */
START_TEST(changed_bytes_do_no_harm)
{
	group_state_write(&g, &kept);
	size_t len = buf_len(&kept);
	for (size_t at = 0; at < len; at++)
		for (int bit = 0; bit < 8; bit++) {
			uint8_t *copy = malloc(len);
			struct buf again;
			memcpy(copy, buf_bytes(&kept).at, len);
			copy[at] ^= (uint8_t)(1 << bit);
			enum err e = group_state_read(&back, bytes_of(copy, len), 1000);
			free(copy);
			if (e != OK) {
				check_empty();
				continue;
			}
			ck_assert_uint_ge(group_size(&back), 1);
			buf_init(&again, GROUP_STATE_BYTES_MAX);
			group_state_write(&back, &again);
			ck_assert_uint_eq(buf_len(&again), len);
			buf_fini(&again);
			(void)group_tick(&back, INT64_MAX / 2);
			(void)group_tick(&back, INT64_MAX / 2 + REBALANCE);
			group_fini(&back, GROUP_UNAVAILABLE);
			group_init(&back, &conf, g.generation);
		}
}
END_TEST

START_TEST(what_does_not_fit_is_not_taken)
{
	struct group_conf small = conf;
	small.bytes_max = (int64_t)g.bytes - 1;
	back.conf = &small;
	group_state_write(&g, &kept);
	ck_assert_int_eq(group_state_read(&back, buf_bytes(&kept), 1000), ERR_TOOBIG);
	check_empty();
	back.conf = &conf;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("group_state");
	TCase *tc = tcase_create("all");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_group_comes_back_as_it_was);
	tcase_add_test(tc, members_go_on_in_their_generation);
	tcase_add_test(tc, a_rebalance_goes_on);
	tcase_add_test(tc, what_is_not_assigned_is_not_kept_as_if_it_were);
	tcase_add_test(tc, an_empty_group_keeps_nothing);
	tcase_add_test(tc, every_prefix_is_refused);
	tcase_add_test(tc, changed_bytes_do_no_harm);
	tcase_add_test(tc, what_does_not_fit_is_not_taken);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
