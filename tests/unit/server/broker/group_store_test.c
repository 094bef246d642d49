/* What groups write, as bytes that reach a table's leader: what they change, what they must not
 * take back; cut or changed they change nothing by half, and the leader lives. */
#include "server/broker/group_store.h"
#include "server/base/mem.h"
#include "server/broker/keyspace.h"
#include "tests/unit/server/broker/world_rows.h"

enum { MUTATIONS = 1000, OFFSETS = 3 };

static struct world w;
static struct buf args;

static void setup(void)
{
	world_init(&w);
	world_start(&w, 1);
	buf_init(&args, 1 << 16);
}
static void teardown(void)
{
	buf_fini(&args);
	world_stop(&w);
}

static struct partition *table(void)
{
	return catalog_table_at(node_catalog(w.node, loops_at(w.loops, 0)), 0);
}

struct asked {
	struct proposal p;
};
static void on_done(struct proposal *p)
{
	(void)p;
	sem_post(&w.done);
}
static void run(void *arg)
{
	struct asked *a = arg;
	a->p.to = table();
	a->p.done = on_done;
	partition_propose(&a->p);
}
static enum err ask_bytes(const struct proposal_kind *kind, struct bytes in)
{
	/* Of its exact size: a read past the end is seen. */
	uint8_t *copy = mem_new(in.len + 1);
	uint8_t *at = copy + 1;
	memcpy(at, in.at, in.len);
	struct asked a = {.p = {.kind = kind, .args = bytes_of(at, in.len)}};
	world_call(&w, 0, run, &a);
	mem_free(copy);
	return a.p.err;
}
static enum err ask(const struct proposal_kind *kind)
{
	return ask_bytes(kind, buf_bytes(&args));
}

static int rows(uint8_t keyspace)
{
	return rows_count(&w, table(), keyspace, NULL);
}

static void make_store(int32_t generation, const char *state)
{
	struct group_row row = {
		.generation = generation, .time_ms = 1000, .protocol_type = bytes_text("consumer")};
	buf_clear(&args);
	group_store_args(&args, bytes_text("g"), &row, bytes_text(state));
	ck_assert_int_eq(args.err, OK);
}

static void make_offsets(bool forget, int64_t now_ms, int64_t renew_before_ms)
{
	struct group_offset of[OFFSETS + 1];
	for (int i = 0; i <= OFFSETS; i++)
		of[i] = (struct group_offset){.stream = {7},
			.partition = i,
			.offset = 100 + i,
			.epoch = 1,
			.metadata = bytes_text("m"),
			.err = i == OFFSETS ? GROUP_METADATA_TOOBIG : GROUP_OK};
	buf_clear(&args);
	group_offsets_args(&args,
		&(struct group_offsets_what){
			bytes_text("g"), of, OFFSETS + 1, forget, now_ms, renew_before_ms});
	ck_assert_int_eq(args.err, OK);
}

static void make_delete(bool last)
{
	struct buf key;
	struct row of[OFFSETS];
	uint8_t stream[16] = {7}, keys[OFFSETS][64];
	buf_init(&key, 64);
	for (int i = 0; i < OFFSETS; i++) {
		buf_clear(&key);
		group_offset_key(&key, bytes_text("g"), stream, i);
		memcpy(keys[i], buf_bytes(&key).at, buf_len(&key));
		of[i].key = bytes_of(keys[i], buf_len(&key));
	}
	buf_clear(&args);
	group_delete_args(&args, bytes_text("g"), last, of, OFFSETS);
	ck_assert_int_eq(args.err, OK);
	buf_fini(&key);
}

START_TEST(a_later_generation_is_not_taken_back)
{
	make_store(5, "members");
	ck_assert_int_eq(ask(&group_store_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP), 1);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_STATE), 1);
	make_store(4, "");
	ck_assert_int_eq(ask(&group_store_kind), ERR_CONFLICT);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_STATE), 1);
	make_store(5, "members"); /* said twice, it is the same */
	ck_assert_int_eq(ask(&group_store_kind), OK);
	make_store(6, "");
	ck_assert_int_eq(ask(&group_store_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP), 1);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_STATE), 0); /* nobody is in it */
}
END_TEST

START_TEST(offsets_come_and_go)
{
	make_offsets(false, 2000, 500);
	ck_assert_int_eq(ask(&group_offsets_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_OFFSET), OFFSETS); /* not the refused one */
	ck_assert_int_eq(rows(KEYSPACE_GROUP), 1);              /* renewed: it is in use */
	make_offsets(true, 2000, 500);
	ck_assert_int_eq(ask(&group_offsets_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_OFFSET), 0);
	ck_assert_int_eq(rows(KEYSPACE_GROUP), 1);
	make_offsets(false, 2000, 500);
	ck_assert_int_eq(ask(&group_offsets_kind), OK);
	make_store(1, "members");
	ck_assert_int_eq(ask(&group_store_kind), OK);
	make_delete(false);
	ck_assert_int_eq(ask(&group_delete_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP_OFFSET), 0);
	ck_assert_int_eq(rows(KEYSPACE_GROUP), 1); /* there is another page */
	make_delete(true);
	ck_assert_int_eq(ask(&group_delete_kind), OK);
	ck_assert_int_eq(rows(KEYSPACE_GROUP) + rows(KEYSPACE_GROUP_STATE), 0);
}
END_TEST

/* Cut in the middle of anything they are refused, and nothing of them is there. */
START_TEST(what_is_cut_changes_nothing)
{
	int whole = 0;
	make_offsets(false, 2000, 500);
	for (size_t n = 0; n < buf_len(&args); n++) {
		int before = rows(KEYSPACE_GROUP_OFFSET);
		enum err e = ask_bytes(&group_offsets_kind, bytes_of(buf_bytes(&args).at, n));
		ck_assert(e == OK || e == ERR_MALFORMED);
		whole += e == OK;
		if (e != OK)
			ck_assert_int_eq(rows(KEYSPACE_GROUP_OFFSET), before);
	}
	ck_assert_int_eq(whole, OFFSETS); /* none, one, two of three */
	make_delete(true);
	for (size_t n = 0; n + 1 < buf_len(&args); n++) {
		int before = rows(KEYSPACE_GROUP_OFFSET);
		if (ask_bytes(&group_delete_kind, bytes_of(buf_bytes(&args).at, n)) != OK)
			ck_assert_int_eq(rows(KEYSPACE_GROUP_OFFSET), before);
	}
	make_store(1, "");
	for (size_t n = 0; n < buf_len(&args); n++)
		ck_assert_int_eq(ask_bytes(&group_store_kind, bytes_of(buf_bytes(&args).at, n)),
			ERR_MALFORMED);
}
END_TEST

START_TEST(what_is_changed_does_no_harm)
{
	static const struct proposal_kind *const kinds[] = {
		&group_store_kind, &group_offsets_kind, &group_delete_kind};
	uint32_t seed = 7;
	for (int i = 0; i < MUTATIONS; i++) {
		uint8_t bytes[512];
		switch (i % 3) {
		case 0: make_store(1 + i, "members"); break;
		case 1: make_offsets(i % 2, 2000, 500); break;
		default: make_delete(i % 2); break;
		}
		size_t len = buf_len(&args);
		ck_assert_uint_le(len, sizeof bytes);
		memcpy(bytes, buf_bytes(&args).at, len);
		for (int k = 0; k < 3; k++) {
			seed = seed * 1664525 + 1013904223;
			bytes[(seed >> 8) % len] ^= (uint8_t)(1u << (seed >> 28 & 7));
		}
		(void)ask_bytes(kinds[i % 3], bytes_of(bytes, len));
	}
	make_store(INT32_MAX, "members");
	ck_assert_int_eq(ask(&group_store_kind), OK); /* the leader lives */
}
END_TEST

START_TEST(rows_are_read_as_they_were_written)
{
	struct group_state_row row = {3, 12345, bytes_text("state")}, back;
	buf_clear(&args);
	group_state_row_write(&args, &row);
	ck_assert_int_eq(group_state_row_read(buf_bytes(&args), &back), OK);
	ck_assert_int_eq(back.generation, 3);
	ck_assert_int_eq(back.time_ms, 12345);
	ck_assert(bytes_equal(back.state, row.state));
	for (size_t n = 0; n < buf_len(&args) - row.state.len; n++)
		ck_assert_int_eq(
			group_state_row_read(bytes_of(buf_bytes(&args).at, n), &back), ERR_CORRUPT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("group_store");
	TCase *tc = tcase_create("writes");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_later_generation_is_not_taken_back);
	tcase_add_test(tc, offsets_come_and_go);
	tcase_add_test(tc, what_is_cut_changes_nothing);
	tcase_add_test(tc, what_is_changed_does_no_harm);
	tcase_add_test(tc, rows_are_read_as_they_were_written);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
