/* Rows of silent producers go, those of others stay. */
#include "server/broker/keyspace.h"
#include "server/broker/produce.h"
#include "server/broker/producer_expire.h"
#include "tests/unit/server/broker/world_rows.h"

enum { ROWS = 400, KEEP_MS = 1600 };

static struct world w;

/* Every fourth has been heard of lately; every fourth is of another version. */
static void producers(int i, struct buf *key, struct buf *value)
{
	uint8_t bytes[PRODUCER_ROW_BYTES + 1];
	struct producer_row row = {.epoch = 1, .count = 1};
	row.time_ms = clock_wall_ms() + (i % 4 == 0 ? 600000 : -2 * KEEP_MS);
	size_t len = producer_row_write(&row, bytes);
	if (i % 4 == 1)
		bytes[0] = 'x';
	buf_add_u64be(key, (uint64_t)i);
	buf_add(value, bytes_of(bytes, len));
}

START_TEST(silent_producers_are_forgotten)
{
	static struct sweep s;
	static const int64_t keep_ms = KEEP_MS;
	world_init(&w);
	world_start(&w, 1);
	const struct stream *stream = catalog_stream(
		node_catalog(w.node, loops_at(w.loops, 0)), bytes_text("mqtt"));
	struct partition *p = stream->partitions[1];
	rows_put(&w, p, KEYSPACE_PRODUCER, ROWS, producers);
	producer_expire_start(&s, &keep_ms, w.node, loops_at(w.loops, 0));
	for (int i = 0; i < 1000 && rows_count(&w, p, KEYSPACE_PRODUCER, NULL) > ROWS / 2; i++)
		usleep(10000);
	usleep(2 * (useconds_t)expire_period_ms(KEEP_MS) * 1000); /* nor do more go later */
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE_PRODUCER, NULL), ROWS / 2);
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE_PRODUCER, "x"), ROWS / 4);
	sweep_stop(&s);
	world_stop(&w);
	sweep_free(&s);
}
END_TEST

START_TEST(rounds_are_a_part_of_the_life)
{
	ck_assert_int_eq(expire_period_ms(8000), 1000);
	ck_assert_int_eq(expire_period_ms(INT64_C(7) * 86400000), 600000);
	ck_assert_int_eq(expire_period_ms(0), 200);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("producer_expire");
	TCase *tc = tcase_create("expiry");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, silent_producers_are_forgotten);
	tcase_add_test(tc, rounds_are_a_part_of_the_life);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
