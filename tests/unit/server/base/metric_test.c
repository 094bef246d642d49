#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include "server/base/metric.h"

enum { A_IN, A_OUT, A_OPEN, A_COUNT };
enum { B_IN, B_COUNT };

static const struct metric_row a_rows[A_COUNT] = {
	[A_IN] = {"sluice_bytes_total", "dir=\"in\"", METRIC_COUNTER, "Bytes\\moved.\nAll."},
	[A_OUT] = {"sluice_bytes_total", "dir=\"out\"", METRIC_COUNTER, "Bytes moved."},
	[A_OPEN] = {"sluice_open", NULL, METRIC_GAUGE, "Open things."},
};
static const struct metric_row b_rows[B_COUNT] = {
	[B_IN] = {"sluice_bytes_total", "dir=\"none\"", METRIC_COUNTER, "Bytes moved."},
};

static struct metric_table a = {a_rows, A_COUNT, 0}, b = {b_rows, B_COUNT, 0};

static void *count_up(void *arg)
{
	struct metric_cells *c = metric_cells_new();

	(void)arg;
	for (int i = 0; i < 10000; i++)
		metric_add(c, &a, A_IN, 2);
	metric_set(c, &a, A_OPEN, 3);
	metric_set(c, &a, A_OPEN, 5);
	return NULL;
}

START_TEST(threads_are_summed)
{
	pthread_t t[3];

	metric_register(&a);
	metric_register(&a); /* twice is once */
	metric_register(&b);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, count_up, NULL), 0);
	while (metric_sum(&a, A_IN) == 0) /* reading meanwhile is allowed */
		;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(metric_sum(&a, A_IN), 60000);
	ck_assert_int_eq(metric_sum(&a, A_OUT), 0);
	ck_assert_int_eq(metric_sum(&a, A_OPEN), 15);
	ck_assert_int_eq(metric_sum(&b, B_IN), 0);
}
END_TEST

START_TEST(scrape_is_prometheus_text)
{
	struct buf out;
	struct metric_cells *c;

	metric_register(&a);
	metric_register(&b);
	c = metric_cells_new();
	metric_add(c, &a, A_OUT, 7);
	metric_add(c, &b, B_IN, -1);
	buf_init(&out, 1 << 16);
	metric_scrape(&out);
	buf_add_u8(&out, 0);
	ck_assert_int_eq(out.err, OK);
	ck_assert_str_eq((const char *)buf_bytes(&out).at,
		"# HELP sluice_bytes_total Bytes\\\\moved.\\nAll.\n"
		"# TYPE sluice_bytes_total counter\n"
		"sluice_bytes_total{dir=\"in\"} 0\n"
		"sluice_bytes_total{dir=\"out\"} 7\n"
		"sluice_bytes_total{dir=\"none\"} -1\n"
		"# HELP sluice_open Open things.\n"
		"# TYPE sluice_open gauge\n"
		"sluice_open 0\n");
	buf_fini(&out);
}
END_TEST

START_TEST(counting_without_a_number_stops)
{
	struct metric_cells *c = metric_cells_new();

	metric_add(c, &a, A_IN, 1);
}
END_TEST

START_TEST(a_table_after_the_cells_stops)
{
	(void)metric_cells_new();
	metric_register(&a);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("metric");
	tcase_add_test(tc, threads_are_summed);
	tcase_add_test(tc, scrape_is_prometheus_text);
	tcase_add_test_raise_signal(tc, counting_without_a_number_stops, SIGABRT);
	tcase_add_test_raise_signal(tc, a_table_after_the_cells_stops, SIGABRT);
	Suite *s = suite_create("metric");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
