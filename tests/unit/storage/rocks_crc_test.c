#include <check.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/base/crc32c.h"
#include "storage/rocks_crc.h"

START_TEST(the_library_calls_ours)
{
	ck_assert(rocks_crc_in_force());
}
END_TEST

/* A store that was written with the one sum is read with the other: a WAL record as RocksDB lays it
 * out (masked CRC, length, type) of a batch written here, computed by hand. */
START_TEST(what_is_in_the_wal_is_the_standard_sum)
{
	char dir[] = "/tmp/rocks-crc-XXXXXX", command[128], *error = NULL;
	uint8_t head[7], payload[4096];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_t *db = rocksdb_open(o, dir, &error);
	ck_assert_ptr_null(error);
	rocksdb_writeoptions_t *w = rocksdb_writeoptions_create();
	rocksdb_put(db, w, "key", 3, "some value", 10, &error);
	ck_assert_ptr_null(error);
	rocksdb_flush_wal(db, 1, &error);
	ck_assert_ptr_null(error);

	snprintf(command, sizeof command, "cat %s/*.log", dir);
	FILE *f = popen(command, "r");
	ck_assert_uint_eq(fread(head, 1, sizeof head, f), sizeof head);
	size_t len = (size_t)head[4] | (size_t)head[5] << 8;
	ck_assert_uint_le(len, sizeof payload);
	ck_assert_uint_eq(fread(payload, 1, len, f), len);
	pclose(f);
	uint32_t stored = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 |
		(uint32_t)head[3] << 24;
	uint32_t sum = crc32c_more(crc32c(bytes_of(head + 6, 1)), bytes_of(payload, len));
	ck_assert_uint_eq(stored, ((sum >> 15) | (sum << 17)) + 0xa282ead8u);

	rocksdb_writeoptions_destroy(w);
	rocksdb_close(db);
	rocksdb_options_destroy(o);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("rocks_crc");
	tcase_add_test(tc, the_library_calls_ours);
	tcase_add_test(tc, what_is_in_the_wal_is_the_standard_sum);
	Suite *s = suite_create("rocks_crc");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
