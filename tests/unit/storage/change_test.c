/* Changes as written in parts and as read back in one. */
#include <check.h>
#include <stdlib.h>
#include "storage/change.h"

static struct slice batch_of(int32_t records)
{
	struct batch_builder b;
	struct slice s;

	batch_builder_init(&b, 4096);
	for (int32_t i = 0; i < records; i++) {
		struct bytes key = bytes_text("key"), value = bytes_text("value");

		ck_assert_int_eq(batch_builder_add(&b, 1000 + i, &key, &value, NULL, 0), OK);
	}
	s = batch_builder_seal(&b);
	batch_builder_fini(&b);
	return s;
}

static struct slice two_rows(void)
{
	struct row_change put = {ROW_PUT, 3, bytes_text("k"), bytes_text("v1")};
	struct row_change del = {ROW_DELETE, 200, bytes_text("gone"), {NULL, 0}};
	struct slice s;
	struct buf b;

	buf_init(&b, 4096);
	change_begin(&b);
	change_add_row(&b, &put);
	change_add_row(&b, &del);
	s = change_end(&b);
	ck_assert_uint_eq(buf_len(&b), 0);
	buf_fini(&b);
	return s;
}

static struct entry *in_parts(void)
{
	struct slice parts[3] = {two_rows(), batch_of(2), batch_of(5)};

	return entry_new(parts, 3);
}

/* The same bytes as one part of exactly that size, as from a disk. */
static struct entry *in_one(const struct entry *e, size_t len)
{
	struct slice part;
	size_t at = 0;

	part.chunk = chunk_try(len);
	for (uint32_t i = 0; i < e->part_count && at < len; i++) {
		size_t n = e->parts[i].bytes.len < len - at ? e->parts[i].bytes.len : len - at;

		memcpy(part.chunk->data + at, e->parts[i].bytes.at, n);
		at += n;
	}
	part.bytes = bytes_of(part.chunk->data, len);
	return entry_new(&part, 1);
}

static enum err walk(const struct entry *e, int *rows, int *records)
{
	struct change_batches batches;
	const struct slice *holder;
	struct change_rows w;
	struct row_change row;
	struct batch batch;
	enum err err = change_rows_init(&w, e);

	*rows = *records = 0;
	while (err == OK && (err = change_rows_next(&w, &row)) == OK)
		++*rows;
	if (err != ERR_NOTFOUND)
		return err;
	change_batches_init(&batches, e);
	while ((err = change_batches_next(&batches, &batch, &holder)) == OK) {
		*records += batch.count;
		ck_assert(batch.all.at >= holder->bytes.at);
		ck_assert(batch.all.at + batch.all.len <= holder->bytes.at + holder->bytes.len);
	}
	return err;
}

START_TEST(walks_parts_and_one_alike)
{
	struct entry *e = in_parts(), *one = in_one(e, e->head.payload_bytes);
	struct change_rows w;
	struct row_change row;
	int rows, records;

	ck_assert_uint_eq(one->head.payload_crc, e->head.payload_crc);
	ck_assert_int_eq(walk(e, &rows, &records), ERR_NOTFOUND);
	ck_assert_int_eq(rows, 2);
	ck_assert_int_eq(records, 7);
	ck_assert_int_eq(walk(one, &rows, &records), ERR_NOTFOUND);
	ck_assert_int_eq(rows, 2);
	ck_assert_int_eq(records, 7);
	ck_assert_int_eq(change_rows_init(&w, one), OK);
	ck_assert_int_eq(change_rows_next(&w, &row), OK);
	ck_assert_int_eq(row.op, ROW_PUT);
	ck_assert_uint_eq(row.keyspace, 3);
	ck_assert(bytes_equal(row.key, bytes_text("k")));
	ck_assert(bytes_equal(row.value, bytes_text("v1")));
	ck_assert_int_eq(change_rows_next(&w, &row), OK);
	ck_assert_int_eq(row.op, ROW_DELETE);
	ck_assert(bytes_equal(row.key, bytes_text("gone")));
	ck_assert_int_eq(change_rows_next(&w, &row), ERR_NOTFOUND);
	entry_unref(e);
	entry_unref(one);
}
END_TEST

/* A prefix fails unless it ends where a batch ends. */
START_TEST(refuses_every_short_input)
{
	struct entry *e = in_parts();
	size_t rows_end = e->parts[0].bytes.len, second = rows_end + e->parts[1].bytes.len;

	for (size_t len = 1; len < e->head.payload_bytes; len++) {
		struct entry *one = in_one(e, len);
		int rows, records;
		enum err err = walk(one, &rows, &records);

		ck_assert_int_eq(
			err, len == rows_end || len == second ? ERR_NOTFOUND : ERR_MALFORMED);
		entry_unref(one);
	}
	entry_unref(e);
}
END_TEST

START_TEST(refuses_mutated_headers)
{
	/* version, zero, row op, and lengths that reach over the end */
	static const int at[] = {0, 1, 2, 6, 8, 11};
	struct entry *e = in_parts(), *one = in_one(e, e->head.payload_bytes);
	int rows, records;

	one->parts[0].chunk->data[at[_i]] = 0xf0;
	ck_assert_int_eq(walk(one, &rows, &records), ERR_MALFORMED);
	entry_unref(e);
	entry_unref(one);
}
END_TEST

START_TEST(no_payload_is_no_change)
{
	struct entry *e = entry_new(NULL, 0);
	int rows, records;

	ck_assert_int_eq(walk(e, &rows, &records), ERR_NOTFOUND);
	ck_assert_int_eq(rows + records, 0);
	entry_unref(e);
}
END_TEST

START_TEST(too_large_a_row_is_said)
{
	struct row_change put = {ROW_PUT, 3, bytes_text("k"), bytes_text("0123456789")};
	struct buf b;

	buf_init(&b, 20);
	change_begin(&b);
	change_add_row(&b, &put);
	ck_assert_int_eq(b.err, ERR_TOOBIG);
	ck_assert_ptr_null(change_end(&b).chunk);
	buf_fini(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("change");
	tcase_add_test(tc, walks_parts_and_one_alike);
	tcase_add_test(tc, refuses_every_short_input);
	tcase_add_loop_test(tc, refuses_mutated_headers, 0, 6);
	tcase_add_test(tc, no_payload_is_no_change);
	tcase_add_test(tc, too_large_a_row_is_said);
	Suite *s = suite_create("change");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
