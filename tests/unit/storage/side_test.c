#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "storage/side.h"

static char dir[64], path[80];

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/side_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/side", dir);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

static struct side *opened(void)
{
	struct side *s;

	ck_assert_int_eq(side_open(dir, &s), OK);
	return s;
}

static void write_two(void)
{
	struct side *s = opened();
	struct side_slot *a = side_slot_new(s, 1), *b = side_slot_new(s, 2);
	struct side_slot *gone = side_slot_new(s, 3);

	ck_assert_uint_eq(side_sequence(s), 0);
	ck_assert(!side_behind(s, 1, 5, 0));
	side_slot_set(a, 5, 100);
	side_slot_set(b, 0xabcdef, 1);
	side_slot_set(gone, 1, 50);
	side_slot_free(gone);
	ck_assert_int_eq(side_write(s, 777), OK);
	side_close(s);
}

START_TEST(tells_who_is_behind)
{
	struct side *s;

	write_two();
	s = opened();
	ck_assert_uint_eq(side_sequence(s), 777);
	ck_assert(side_behind(s, 1, 5, 99));
	ck_assert(!side_behind(s, 1, 5, 100));
	ck_assert(!side_behind(s, 1, 5, 101));
	ck_assert(!side_behind(s, 1, 6, 3)); /* another life of the log */
	ck_assert(side_behind(s, 2, 0xabcdef, 0));
	ck_assert(!side_behind(s, 3, 1, 0));
	ck_assert(!side_behind(s, 4, 1, 0));
	side_close(s);
}
END_TEST

START_TEST(refuses_every_short_or_changed_file)
{
	uint8_t bytes[256];
	struct side *s;
	int fd;

	write_two();
	fd = open(path, O_RDWR);
	ssize_t len = read(fd, bytes, sizeof bytes);
	ck_assert_int_eq(len, 20 + 2 * 16 + 4);
	for (ssize_t i = 0; i < len; i++) {
		ck_assert_int_eq(ftruncate(fd, i), 0);
		ck_assert_int_eq(side_open(dir, &s), ERR_CORRUPT);
		ck_assert_int_eq(pwrite(fd, bytes, (size_t)len, 0), len);
		uint8_t flipped = bytes[i] ^ 0x10;
		ck_assert_int_eq(pwrite(fd, &flipped, 1, i), 1);
		ck_assert_int_eq(side_open(dir, &s), ERR_CORRUPT);
		ck_assert_int_eq(pwrite(fd, bytes, (size_t)len, 0), len);
	}
	close(fd);
	side_close(opened());
}
END_TEST

START_TEST(slots_are_used_again)
{
	struct side *s = opened();
	struct side_slot *a = side_slot_new(s, 1), *b = side_slot_new(s, 2);

	side_slot_free(a);
	ck_assert_ptr_eq(side_slot_new(s, 9), a);
	ck_assert_ptr_ne(side_slot_new(s, 10), b);
	side_close(s);
}
END_TEST

START_TEST(a_folder_that_takes_no_file)
{
	struct side *s = opened();

	rmdir(dir);
	ck_assert_int_eq(side_write(s, 1), ERR_IO);
	side_close(s);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("side");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, tells_who_is_behind);
	tcase_add_test(tc, refuses_every_short_or_changed_file);
	tcase_add_test(tc, slots_are_used_again);
	tcase_add_test(tc, a_folder_that_takes_no_file);
	Suite *s = suite_create("side");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
