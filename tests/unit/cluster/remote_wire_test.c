#include "cluster/remote_wire.h"
#include <check.h>
#include <stdlib.h>
#include "server/base/mem.h"

/* One of each, written and read as its user does; the reader says whether it took it all. */

static struct entry *entry_make(void)
{
	struct slice part;
	struct entry *e;

	ck_assert_int_eq(slice_copy(bytes_text("payload of an entry"), &part), OK);
	e = entry_new(&part, 1);
	e->index = 77;
	e->head.kind = ENTRY_DATA;
	e->head.term = 5;
	e->head.count = 3;
	e->head.base_offset = 1000;
	return e;
}

static void write_propose(struct buf *b)
{
	propose_head_write(b, &(struct propose_head){9, 4, 2, 2});
	propose_item_write(
		b, &(struct propose_item){16, true, bytes_text("args"), bytes_text("ba")});
	buf_add_text(b, "ba");
	propose_item_write(b, &(struct propose_item){0, false, bytes_text(""), bytes_text("")});
}
static enum err read_propose(struct slice in)
{
	struct rd r = rd_over(in.bytes);
	struct propose_head h;
	struct propose_item i;

	propose_head_read(&r, &h);
	for (int n = 0; r.err == OK && n < h.count; n++) {
		propose_item_read(&r, &i);
		if (r.err == OK) /* within what came */
			ck_assert_uint_le(i.args.len + i.batch.len, in.bytes.len);
	}
	return rd_done(&r);
}

static void write_answer(struct buf *b)
{
	propose_answer_write(b, &(struct propose_answer){VERDICT_TAKEN, 3, 4, 9, 1});
	propose_outcome_write(b,
		&(struct propose_outcome){STATUS_DONE, ERR_CONFLICT, 12, 34, bytes_text("reply")});
}
static enum err read_answer(struct slice in)
{
	struct rd r = rd_over(in.bytes);
	struct propose_answer a;
	struct propose_outcome o;

	propose_answer_read(&r, &a);
	for (int n = 0; r.err == OK && n < a.count; n++) {
		propose_outcome_read(&r, &o);
		ck_assert_int_le(o.status, STATUS_UNSURE);
		ck_assert_int_lt(o.err, ERR_COUNT);
	}
	return rd_done(&r);
}

static void write_rows_ask(struct buf *b)
{
	rows_ask_write(b,
		&(struct rows_ask){
			20, true, false, bytes_text("key"), bytes_text("after"), 100, 1 << 20});
}
static enum err read_rows_ask(struct slice in)
{
	struct rows_ask a;

	return rows_ask_read(in.bytes, &a);
}

static void write_rows(struct buf *b)
{
	rows_given_write(b, &(struct rows_given){OK, true, 55, 2});
	rows_row_write(b, &(struct row){bytes_text("k1"), bytes_text("value")});
	rows_row_write(b, &(struct row){bytes_text("k2"), bytes_text("")});
}
static enum err read_rows(struct slice in)
{
	struct rd r = rd_over(in.bytes);
	struct rows_given g;
	struct row row;

	rows_given_read(&r, &g);
	for (uint32_t n = 0; r.err == OK && n < g.count; n++)
		rows_row_read(&r, &row);
	return rd_done(&r);
}

static void write_records_ask(struct buf *b)
{
	records_ask_write(b, &(struct records_ask){123, 456});
}
static enum err read_records_ask(struct slice in)
{
	struct records_ask a;

	return records_ask_read(in.bytes, &a);
}

static void add_entry(struct buf *b)
{
	struct entry *e = entry_make();

	records_entry_write(b, e);
	buf_add(b, e->parts[0].bytes);
	entry_unref(e);
}
static enum err take_entry(struct rd *r, struct slice in)
{
	struct entry *e;
	enum err err = records_entry_read(r, in, 8, &e);

	if (err != OK)
		return err;
	ck_assert_uint_eq(e->group, 8);
	ck_assert_int_ge(e->head.base_offset, 0);
	ck_assert_uint_eq(e->parts[0].bytes.len, e->head.payload_bytes);
	entry_unref(e);
	return OK;
}

static void write_records(struct buf *b)
{
	records_given_write(b, &(struct records_given){OK, 1, 2000, 2});
	add_entry(b);
	add_entry(b);
}
static enum err read_records(struct slice in)
{
	struct rd r = rd_over(in.bytes);
	struct records_given g;
	enum err e = OK;

	records_given_read(&r, &g);
	for (int n = 0; r.err == OK && e == OK && n < g.count; n++)
		e = take_entry(&r, in);
	return e != OK ? e : rd_done(&r);
}

static void write_seek_ask(struct buf *b)
{
	seek_ask_write(b, &(struct seek_ask){true, 7});
}
static enum err read_seek_ask(struct slice in)
{
	struct seek_ask a;

	return seek_ask_read(in.bytes, &a);
}
static void write_seek(struct buf *b)
{
	seek_given_write(b, &(struct seek_given){OK, 12, 1000, 3});
}
static enum err read_seek(struct slice in)
{
	struct seek_given g;

	return seek_given_read(in.bytes, &g);
}
static void write_point(struct buf *b)
{
	point_given_write(b, &(struct point_given){OK, 12, 1000});
}
static enum err read_point(struct slice in)
{
	struct point_given g;

	return point_given_read(in.bytes, &g);
}
static void write_info(struct buf *b)
{
	struct partition_info i = {.term = 4, .leader = 2, .member_count = 2};

	i.members[0] = (struct partition_member){.replica = 1ull << 32 | 1,
		.role = MEMBER_VOTER,
		.match_index = 10,
		.in_sync = true};
	i.members[1] = (struct partition_member){.replica = 2ull << 32 | 1,
		.role = MEMBER_SPARE,
		.match_index = 9,
		.fetches = true,
		.fetched = 1ull << 33,
		.fetched_total = 3ull << 33,
		.fetched_bytes = 5ll << 33};
	info_given_write(b, &i);
}
static enum err read_info(struct slice in)
{
	struct partition_info i;
	enum err e = info_given_read(in.bytes, &i);

	if (e == OK)
		ck_assert_int_le(i.member_count, PARTITION_MEMBERS_MAX);
	return e;
}
static void write_follow(struct buf *b)
{
	follow_write(b, &(struct follow){99, FOLLOW_START | FOLLOW_ENTRIES, 1000, 1 << 20});
}
static enum err read_follow(struct slice in)
{
	struct follow f;

	return follow_read(in.bytes, &f);
}
static void write_feed(struct buf *b)
{
	feed_write(b, &(struct feed){99, 4, 10, 2000, true});
	add_entry(b);
}
static enum err read_feed(struct slice in)
{
	struct rd r = rd_over(in.bytes);
	struct feed f;
	enum err e;

	feed_read(&r, &f);
	if (r.err != OK)
		return r.err;
	e = f.entry ? take_entry(&r, in) : OK;
	return e != OK ? e : rd_done(&r);
}

static const struct {
	void (*write)(struct buf *b);
	enum err (*read)(struct slice in);
} all[] = {{write_propose, read_propose}, {write_answer, read_answer},
	{write_rows_ask, read_rows_ask}, {write_rows, read_rows},
	{write_records_ask, read_records_ask}, {write_records, read_records},
	{write_seek_ask, read_seek_ask}, {write_seek, read_seek}, {write_point, read_point},
	{write_info, read_info}, {write_follow, read_follow}, {write_feed, read_feed}};
enum { ALL = sizeof all / sizeof all[0] };

/* In a chunk of its own and of exactly that size. */
static enum err try_read(int i, struct bytes in)
{
	struct slice s;
	enum err e;

	ck_assert_int_eq(slice_copy(in, &s), OK);
	e = all[i].read(s);
	slice_unref(&s);
	return e;
}

START_TEST(what_is_written_is_read_and_no_prefix_of_it)
{
	struct buf b;

	buf_init(&b, 1 << 16);
	all[_i].write(&b);
	ck_assert_int_eq(b.err, OK);
	ck_assert_int_eq(try_read(_i, buf_bytes(&b)), OK);
	for (size_t len = 0; len < buf_len(&b); len++)
		ck_assert_int_ne(try_read(_i, bytes_of(buf_bytes(&b).at, len)), OK);
	buf_add_u8(&b, 0);
	ck_assert_int_ne(try_read(_i, buf_bytes(&b)), OK);
	buf_fini(&b);
}
END_TEST

START_TEST(changed_bytes_do_no_harm)
{
	struct buf b;

	buf_init(&b, 1 << 16);
	all[_i].write(&b);
	for (size_t at = 0; at < buf_len(&b); at++)
		for (int v = 0; v < 256; v += 15) {
			uint8_t *bytes = b.chunk->data + b.start, was = bytes[at];

			bytes[at] = (uint8_t)v;
			(void)try_read(_i, buf_bytes(&b));
			bytes[at] = was;
		}
	buf_fini(&b);
}
END_TEST

START_TEST(an_entry_is_read_back_or_its_damage_seen)
{
	struct entry *e = entry_make(), *got;
	struct slice s;
	struct rd r;
	struct buf b;

	buf_init(&b, 1 << 16);
	records_entry_write(&b, e);
	buf_add(&b, e->parts[0].bytes);
	s = buf_share(&b);
	r = rd_over(s.bytes);
	ck_assert_int_eq(records_entry_read(&r, s, 8, &got), OK);
	ck_assert_uint_eq(got->index, 77);
	ck_assert_int_eq(got->head.base_offset, 1000);
	ck_assert_uint_eq(got->head.count, 3);
	ck_assert_uint_eq(got->head.term, 5);
	ck_assert(bytes_equal(got->parts[0].bytes, e->parts[0].bytes));
	entry_unref(got);
	s.chunk->data[s.bytes.at - s.chunk->data + (ptrdiff_t)s.bytes.len - 1] ^= 1;
	r = rd_over(s.bytes);
	ck_assert_int_eq(records_entry_read(&r, s, 8, &got), ERR_CORRUPT);
	slice_unref(&s);
	buf_fini(&b);
	entry_unref(e);
}
END_TEST

START_TEST(how_far_a_fetch_is_comes_back)
{
	struct partition_info i;
	struct buf b;

	buf_init(&b, 1 << 16);
	write_info(&b);
	ck_assert_int_eq(info_given_read(buf_bytes(&b), &i), OK);
	ck_assert_int_eq(i.member_count, 2);
	ck_assert(!i.members[0].fetches && i.members[0].in_sync);
	ck_assert(i.members[1].fetches && !i.members[1].in_sync);
	ck_assert_uint_eq(i.members[1].fetched, 1ull << 33);
	ck_assert_uint_eq(i.members[1].fetched_total, 3ull << 33);
	ck_assert_int_eq(i.members[1].fetched_bytes, 5ll << 33);
	buf_fini(&b);
}
END_TEST

START_TEST(leads_are_read_to_the_last_whole_one)
{
	struct lead l;
	struct rd r;
	struct buf b;
	int n = 0;

	buf_init(&b, 1 << 16);
	for (uint64_t i = 1; i <= 3; i++)
		leads_write(&b, &(struct lead){i, i * 10, (int64_t)i * 100});
	buf_add_u8(&b, 1);
	r = rd_over(buf_bytes(&b));
	while (leads_read(&r, &l)) {
		n++;
		ck_assert_uint_eq(l.group, (uint64_t)n);
		ck_assert_uint_eq(l.term, (uint64_t)n * 10);
		ck_assert_int_eq(l.high_watermark, n * 100);
	}
	ck_assert_int_eq(n, 3);
	buf_fini(&b);
}
END_TEST

START_TEST(errors_of_a_later_version_are_unknown)
{
	ck_assert_int_eq(remote_err(OK), OK);
	ck_assert_int_eq(remote_err(ERR_CONFLICT), ERR_CONFLICT);
	ck_assert_int_eq(remote_err(ERR_MORE), ERR_UNKNOWN);
	ck_assert_int_eq(remote_err(ERR_COUNT), ERR_UNKNOWN);
	ck_assert_int_eq(remote_err(255), ERR_UNKNOWN);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("remote_wire");
	Suite *s = suite_create("remote_wire");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, what_is_written_is_read_and_no_prefix_of_it, 0, ALL);
	tcase_add_loop_test(tc, changed_bytes_do_no_harm, 0, ALL);
	tcase_add_test(tc, an_entry_is_read_back_or_its_damage_seen);
	tcase_add_test(tc, how_far_a_fetch_is_comes_back);
	tcase_add_test(tc, leads_are_read_to_the_last_whole_one);
	tcase_add_test(tc, errors_of_a_later_version_are_unknown);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
