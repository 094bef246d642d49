/* Whose data it is: made once, counted at each start, and not taken for another's. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "storage/identity.h"

static char dir[64];
static struct loops *loops;
static struct workers *workers;

static struct storage *open_in(const char *folders)
{
	struct storage_conf c = {
		folders, 0, 60000, 8 << 20, 32 << 20, 8 << 20, 32 << 20, 256, true, 0, 1 << 20};
	struct storage *s;
	char why[200];

	ck_assert_int_eq(storage_open(&c, loops, workers, &s, why, sizeof why), OK);
	return s;
}

static enum err open_as(const char *folders, uint32_t node, struct identity *id, char why[200])
{
	struct storage *s = open_in(folders);
	enum err e;

	why[0] = 0;
	e = identity_open(s, node, id, why, 200);
	storage_close(s);
	return e;
}

static void setup(void)
{
	static bool registered;

	if (!registered)
		metric_register(&storage_metrics);
	registered = true;
	snprintf(dir, sizeof dir, "/tmp/sluice-identity-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	loops = loops_new(1);
	workers = workers_new(1);
}

static void teardown(void)
{
	char command[100];

	workers_free(workers);
	loops_free(loops);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(stays_and_counts_starts)
{
	struct identity first, second;
	struct storage *s;
	char why[200];

	ck_assert_int_eq(open_as(dir, 3, &first, why), OK);
	ck_assert(!identity_has_cluster(&first));
	ck_assert_int_eq(open_as(dir, 3, &second, why), OK);
	ck_assert_mem_eq(first.instance, second.instance, 16);
	ck_assert_uint_gt(second.boot, first.boot);
	second.cluster[4] = 7;
	s = open_in(dir);
	ck_assert_int_eq(identity_write(s, &second), OK);
	storage_close(s);
	ck_assert_int_eq(open_as(dir, 3, &first, why), OK);
	ck_assert(identity_has_cluster(&first));
	ck_assert_mem_eq(first.cluster, second.cluster, 16);
	ck_assert_int_eq(open_as(dir, 4, &first, why), ERR_CONFLICT);
	ck_assert_ptr_nonnull(strstr(why, "data of node 3"));
}
END_TEST

START_TEST(a_folder_may_be_added_but_not_lost)
{
	char two[200], three[300], path[100], why[200];
	struct identity id, other;

	snprintf(two, sizeof two, "%s/a,%s/b", dir, dir);
	snprintf(three, sizeof three, "%s,%s/c", two, dir);
	ck_assert_int_eq(open_as(two, 1, &id, why), OK);
	ck_assert_int_eq(open_as(three, 1, &other, why), OK);
	ck_assert_mem_eq(id.instance, other.instance, 16);
	ck_assert_int_eq(open_as(two, 1, &other, why), ERR_CONFLICT);
	ck_assert_ptr_nonnull(strstr(why, "2 of the 3"));
	snprintf(path, sizeof path, "%s/b/node", dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(open_as(three, 1, &other, why), ERR_CONFLICT);
	ck_assert_ptr_nonnull(strstr(why, "lost its data"));
}
END_TEST

START_TEST(damage_is_told)
{
	struct identity id;
	char path[100], why[200];
	FILE *f;

	ck_assert_int_eq(open_as(dir, 1, &id, why), OK);
	snprintf(path, sizeof path, "%s/node", dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fputs("sluice node\nnode x\n", f);
	fclose(f);
	ck_assert_int_eq(open_as(dir, 1, &id, why), ERR_CORRUPT);
	ck_assert_ptr_nonnull(strstr(why, "node"));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("identity");
	Suite *s = suite_create("identity");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, stays_and_counts_starts);
	tcase_add_test(tc, a_folder_may_be_added_but_not_lost);
	tcase_add_test(tc, damage_is_told);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
