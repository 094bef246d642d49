/* Connections that only heartbeat go to the loop their group is at home on; they stay who they are,
 * and nothing that is asked on the way is lost. */
#include "protocols/kafka/kafka_priv.h"
#include "tests/unit/protocols/kafka/login.h"

enum { MEMBERS = 16 };

static struct member {
	int fd;
	char group[16], id[64];
	int32_t generation;
} members[MEMBERS];

static int admin;

static void up(void)
{
	boot_with(with_admin);
	admin = dial_admin();
	ck_assert_int_eq(put_user(admin, "ann", "right"), 0);
	ck_assert_int_eq(add_acl(admin, &(struct acl){3, 4, "g", "User:ann", 3, 3}), 0);
}
static void over(void)
{
	end(admin);
	down();
}

static void sync_group(struct member *m)
{
	struct kafka_sync_group_req req = kafka_sync_group_req_init;
	struct kafka_sync_group_res res;
	req.group_id = bytes_text(m->group);
	req.generation = m->generation;
	req.member_id = bytes_text(m->id);
	req.assignments = kafka_array(&arena, &kafka_sync_group_req_assignment_type, 1);
	req.assignments_count = 1;
	req.assignments[0].member_id = bytes_text(m->id);
	req.assignments[0].assignment = bytes_text("x");
	ask(m->fd, KAFKA_SYNC_GROUP, 3, 2, &req);
	answer(m->fd, KAFKA_SYNC_GROUP, 3, 2, &res);
	ck_assert_int_eq(res.error, 0);
}

/* A group of its own: members of before are still expected in theirs. */
static void join(struct member *m)
{
	static int number;
	struct kafka_join_group_req req = kafka_join_group_req_init;
	struct kafka_join_group_res res;
	m->fd = dial_as("ann", "right");
	snprintf(m->group, sizeof m->group, "g%d", number++);
	req.group_id = bytes_text(m->group);
	req.session_timeout_ms = req.rebalance_timeout_ms = 30000;
	req.protocol_type = bytes_text("consumer");
	req.protocols = kafka_array(&arena, &kafka_join_group_req_protocol_type, 1);
	req.protocols_count = 1;
	req.protocols[0].name = bytes_text("range");
	req.protocols[0].metadata = bytes_text("m");
	ask(m->fd, KAFKA_JOIN_GROUP, 3, 1, &req);
	answer(m->fd, KAFKA_JOIN_GROUP, 3, 1, &res);
	ck_assert_int_eq(res.error, 0);
	snprintf(m->id, sizeof m->id, "%.*s", (int)res.member_id.len, res.member_id.at);
	m->generation = res.generation;
	sync_group(m);
}

static void send_beat(const struct member *m, int32_t correlation)
{
	struct kafka_heartbeat_req req = kafka_heartbeat_req_init;
	req.group_id = bytes_text(m->group);
	req.generation = m->generation;
	req.member_id = bytes_text(m->id);
	ask(m->fd, KAFKA_HEARTBEAT, 3, correlation, &req);
}

static int16_t beat_answer(const struct member *m, int32_t correlation)
{
	struct kafka_heartbeat_res res;
	answer(m->fd, KAFKA_HEARTBEAT, 3, correlation, &res);
	return res.error;
}

static int16_t beat(const struct member *m)
{
	send_beat(m, 3);
	return beat_answer(m, 3);
}

static void send_coordinator(const struct member *m, int32_t correlation)
{
	struct kafka_find_coordinator_req req = kafka_find_coordinator_req_init;
	req.key = bytes_text(m->group);
	ask(m->fd, KAFKA_FIND_COORDINATOR, 2, correlation, &req);
}

static void coordinator_answer(const struct member *m, int32_t correlation)
{
	struct kafka_find_coordinator_res res;
	answer(m->fd, KAFKA_FIND_COORDINATOR, 2, correlation, &res);
	ck_assert_int_eq(res.error, 0);
}

static int64_t moved(void)
{
	return metric_sum(&kafka_metrics, M_MOVED);
}

static void all_join(void)
{
	for (int i = 0; i < MEMBERS; i++)
		join(&members[i]);
}

static void all_end(void)
{
	for (int i = 0; i < MEMBERS; i++)
		end(members[i].fd);
}

START_TEST(who_only_heartbeats_goes_to_its_group)
{
	int64_t before = moved(), after;
	all_join();
	for (int round = 0; round < 6; round++)
		for (int i = 0; i < MEMBERS; i++)
			ck_assert_int_eq(beat(&members[i]), 0);
	after = moved();
	ck_assert_int_gt(after, before);
	ck_assert_int_lt(after, before + MEMBERS); /* some were there */
	for (int round = 0; round < 6; round++)
		for (int i = 0; i < MEMBERS; i++)
			ck_assert_int_eq(beat(&members[i]), 0);
	ck_assert_int_eq(moved(), after); /* once */
	all_end();
}
END_TEST

START_TEST(who_asks_more_stays)
{
	int64_t before = moved();
	all_join();
	for (int round = 0; round < 6; round++)
		for (int i = 0; i < MEMBERS; i++) {
			ck_assert_int_eq(beat(&members[i]), 0);
			send_coordinator(&members[i], 4);
			coordinator_answer(&members[i], 4);
		}
	ck_assert_int_eq(moved(), before);
	all_end();
}
END_TEST

/* What comes in one go with the heartbeat that it moves with is answered over there, in order. */
START_TEST(what_is_asked_on_the_way_is_answered)
{
	int64_t before = moved();
	all_join();
	for (int i = 0; i < MEMBERS; i++) {
		ck_assert_int_eq(beat(&members[i]), 0);
		ck_assert_int_eq(beat(&members[i]), 0);
		for (int32_t n = 10; n < 20; n++)
			n % 2 ? send_coordinator(&members[i], n) : send_beat(&members[i], n);
	}
	for (int i = 0; i < MEMBERS; i++)
		for (int32_t n = 10; n < 20; n++)
			if (n % 2)
				coordinator_answer(&members[i], n);
			else
				ck_assert_int_eq(beat_answer(&members[i], n), 0);
	ck_assert_int_gt(moved(), before);
	all_end();
}
END_TEST

/* Rights that change, and a login that is over, are known over there. */
START_TEST(who_moves_stays_who_it_is)
{
	int64_t before = moved();
	all_join();
	for (int round = 0; round < 4; round++)
		for (int i = 0; i < MEMBERS; i++)
			ck_assert_int_eq(beat(&members[i]), 0);
	ck_assert_int_gt(moved(), before);
	ck_assert_uint_eq(drop_acls(admin), 1);
	for (int i = 0; i < MEMBERS; i++)
		ck_assert_int_eq(beat(&members[i]), KAFKA_GROUP_DENIED);
	ck_assert_int_eq(add_acl(admin, &(struct acl){3, 4, "g", "User:ann", 3, 3}), 0);
	for (int i = 0; i < MEMBERS; i++)
		ck_assert_int_eq(beat(&members[i]), 0);
	ck_assert_int_eq(put_user(admin, "ann", "other"), 0);
	for (int i = 0; i < MEMBERS; i++)
		ck_assert(is_closed(members[i].fd));
	all_end();
	ck_assert_int_eq(put_user(admin, "ann", "right"), 0);
}
END_TEST

/* Connections and rights that end in the midst of it. */
START_TEST(what_ends_on_the_way_ends)
{
	for (int round = 0; round < 4; round++) {
		all_join();
		for (int i = 0; i < MEMBERS; i++) {
			ck_assert_int_eq(beat(&members[i]), 0);
			ck_assert_int_eq(beat(&members[i]), 0);
		}
		for (int i = 0; i < MEMBERS; i++) {
			send_beat(&members[i], 3);
			if (round % 2 == 0)
				close(members[i].fd);
		}
		if (round % 2 == 0)
			continue;
		ck_assert_int_eq(put_user(admin, "ann", "other"), 0);
		for (int i = 0; i < MEMBERS; i++) {
			char byte[256];
			while (recv(members[i].fd, byte, sizeof byte, 0) > 0)
				;
		}
		all_end();
		ck_assert_int_eq(put_user(admin, "ann", "right"), 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kafka_move");
	TCase *tc = tcase_create("move");
	tcase_set_timeout(tc, 60);
	tcase_add_unchecked_fixture(tc, up, over);
	tcase_add_test(tc, who_only_heartbeats_goes_to_its_group);
	tcase_add_test(tc, who_asks_more_stays);
	tcase_add_test(tc, what_is_asked_on_the_way_is_answered);
	tcase_add_test(tc, who_moves_stays_who_it_is);
	tcase_add_test(tc, what_ends_on_the_way_ends);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_set_fork_status(r, CK_NOFORK); /* the node's threads do not survive a fork */
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
