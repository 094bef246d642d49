/* What is remembered of published wills goes in time; other rows of QoS 2 stay, whatever they say.
 */
#include "server/broker/keyspace.h"
#include "server/broker/publish.h"
#include "server/broker/producer_expire.h"
#include "server/broker/will_expire.h"
#include "tests/unit/server/broker/world_rows.h"

enum { ROWS = 400, KEEP_MS = 1600 };

static struct world w;

/* In turn: an old will, a young one, a packet id, a client's epoch; what is old begins with 'o'. */
static void rows(int i, struct buf *key, struct buf *value)
{
	char name[16];
	(void)snprintf(name, sizeof name, "client%d", i);
	uint8_t bytes[sizeof name + QOS2_KEY_EXTRA];
	size_t len = qos2_key(bytes_text(name), i % 4 == 2 ? 7 : 0, bytes);
	buf_add(key, bytes_of(bytes, i % 4 == 3 ? len - 2 : len));
	buf_add_u8(value, i % 4 == 0 ? 'o' : 'y');
	buf_add(value, bytes_of("1234567", 7));
	if (i % 4 != 3)
		buf_add_u64be(value, 1000);
	if (i % 4 < 2)
		buf_add_u64be(
			value, (uint64_t)(clock_wall_ms() + (i % 4 == 0 ? -2 * KEEP_MS : 600000)));
}

START_TEST(published_wills_are_forgotten)
{
	static struct sweep s;
	static const int64_t keep_ms = KEEP_MS;
	world_init(&w);
	world_start(&w, 1);
	const struct stream *stream = catalog_stream(
		node_catalog(w.node, loops_at(w.loops, 0)), bytes_text("mqtt"));
	struct partition *p = stream->partitions[1];
	rows_put(&w, p, KEYSPACE_QOS2, ROWS, rows);
	will_expire_start(&s, &keep_ms, w.node, loops_at(w.loops, 0));
	for (int i = 0; i < 1000 && rows_count(&w, p, KEYSPACE_QOS2, "o") > 0; i++)
		usleep(10000);
	usleep(2 * (useconds_t)expire_period_ms(KEEP_MS) * 1000); /* nor do more go later */
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE_QOS2, "o"), 0);
	ck_assert_int_eq(rows_count(&w, p, KEYSPACE_QOS2, "y"), ROWS / 4 * 3);
	sweep_stop(&s);
	world_stop(&w);
	sweep_free(&s);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("will_expire");
	TCase *tc = tcase_create("expiry");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, published_wills_are_forgotten);
	suite_add_tcase(suite, tc);
	SRunner *run = srunner_create(suite);
	srunner_run_all(run, CK_ENV);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed == 0 ? 0 : 1;
}
