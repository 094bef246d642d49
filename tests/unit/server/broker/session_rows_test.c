/* Rows: round trips, every prefix, every byte changed. */
#include "server/broker/session_rows.h"
#include <check.h>
#include <stdlib.h>

#define TEXT(s) bytes_of(s, sizeof(s) - 1)

static void make_session(struct buf *out)
{
	const uint64_t groups[] = {17, 99};
	struct session_row row = {.connected = true,
		.epoch = 0x1122334455667788,
		.born = 0x1122334455667700,
		.expiry_s = 3600,
		.since_ms = 1700000000000,
		.group_count = 2};
	struct session_row_sub a = {.filter = TEXT("a/+/c"), .qos = 2, .no_local = true, .id = 7};
	struct session_row_sub b = {.filter = TEXT("#"), .retain_as_published = true};
	buf_init(out, 4096);
	session_row_begin(out, &row, groups);
	size_t subs = session_row_subs_begin(out);
	size_t mark = session_row_sub_begin(out, &a);
	session_row_sub_start(out, (struct session_place){17, 1000});
	session_row_sub_start(out, (struct session_place){18, 0});
	session_row_sub_end(out, mark, 2);
	mark = session_row_sub_begin(out, &b);
	session_row_sub_end(out, mark, 0);
	session_row_subs_end(out, subs, 2);
	ck_assert_int_eq(out->err, OK);
}

static void make_cursor(struct buf *out)
{
	struct window w = {0};
	uint16_t id;
	const struct window_entry in[] = {
		{.offset = 5, .group = 17, .state = WINDOW_SENT1},
		{.offset = 6, .group = 17, .state = WINDOW_HELD1, .retained = true},
		{.offset = 7, .group = 18, .state = WINDOW_HELD2},
		{.offset = -1, .group = 0, .state = WINDOW_SENT1}, /* of no log: left out */
		{.offset = 8, .group = 18, .state = WINDOW_RELEASED},
	};
	for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
		ck_assert_int_eq(window_take(&w, in[i], &id), OK);
	buf_init(out, 4096);
	size_t mark = cursor_row_begin(out);
	cursor_row_position(out, (struct session_place){17, 1 << 20});
	cursor_row_position(out, (struct session_place){18, 0});
	cursor_row_end(out, mark, 2, &w);
	ck_assert_int_eq(out->err, OK);
	window_fini(&w);
}

START_TEST(a_session_comes_back)
{
	struct buf b;
	struct session_row row;
	struct session_row_sub sub;
	make_session(&b);
	ck_assert_int_eq(session_row_read(buf_bytes(&b), &row), OK);
	ck_assert(row.connected);
	ck_assert_uint_eq(row.epoch, 0x1122334455667788);
	ck_assert_uint_eq(row.born, 0x1122334455667700);
	ck_assert_uint_eq(row.expiry_s, 3600);
	ck_assert_uint_eq(row.group_count, 2);
	ck_assert_uint_eq(session_row_group(&row, 1), 99);
	struct bytes rest = row.subscriptions;
	ck_assert(session_row_next(&rest, &sub));
	ck_assert(bytes_equal(sub.filter, TEXT("a/+/c")));
	ck_assert(sub.qos == 2 && sub.no_local && !sub.retain_as_published && sub.id == 7);
	ck_assert_uint_eq(sub.start_count, 2);
	ck_assert_int_eq(session_row_start(&sub, 0).offset, 1000);
	ck_assert_uint_eq(session_row_start(&sub, 1).group, 18);
	ck_assert(session_row_next(&rest, &sub));
	ck_assert(bytes_equal(sub.filter, TEXT("#")));
	ck_assert(sub.qos == 0 && !sub.no_local && sub.retain_as_published && sub.id == 0);
	ck_assert(!session_row_next(&rest, &sub));
	buf_fini(&b);
}
END_TEST

START_TEST(when_it_ends)
{
	struct session_row row = {.since_ms = 1000, .expiry_s = 10};
	ck_assert_int_eq(session_row_ends_ms(&row, 99999), 11000);
	row.connected = true;
	ck_assert_int_eq(session_row_ends_ms(&row, 99999), 109999);
	row.expiry_s = SESSION_NEVER;
	ck_assert_int_eq(session_row_ends_ms(&row, 99999), INT64_MAX);
}
END_TEST

START_TEST(a_cursor_comes_back)
{
	struct buf b;
	struct cursor_row row;
	make_cursor(&b);
	ck_assert_int_eq(cursor_row_read(buf_bytes(&b), &row), OK);
	ck_assert_uint_eq(row.position_count, 2);
	ck_assert_int_eq(cursor_row_position_at(&row, 0).offset, 1 << 20);
	ck_assert_uint_eq(row.inflight_count, 4);
	struct cursor_inflight f = cursor_row_inflight_at(&row, 1);
	ck_assert_uint_eq(f.packet_id, 2);
	ck_assert(f.entry.retained);
	ck_assert_int_eq(f.entry.state, WINDOW_HELD1); /* it has not been sent */
	f = cursor_row_inflight_at(&row, 2);
	ck_assert_int_eq(f.entry.state, WINDOW_SENT2); /* it leaves with this row */
	ck_assert_int_eq(f.entry.offset, 7);
	f = cursor_row_inflight_at(&row, 3);
	ck_assert_uint_eq(f.packet_id, 5);
	ck_assert_int_eq(f.entry.state, WINDOW_RELEASED);
	buf_fini(&b);
}
END_TEST

static enum err read_any(int which, struct bytes in)
{
	struct session_row s;
	struct cursor_row c;
	return which == 0 ? session_row_read(in, &s) : cursor_row_read(in, &c);
}

START_TEST(every_prefix_is_refused)
{
	struct buf b;
	if (_i == 0)
		make_session(&b);
	else
		make_cursor(&b);
	struct bytes all = buf_bytes(&b);
	for (size_t len = 0; len < all.len; len++) {
		uint8_t *exact = malloc(len + (len == 0));
		memcpy(exact, all.at, len);
		ck_assert_int_eq(read_any(_i, bytes_of(exact, len)), ERR_CORRUPT);
		free(exact);
	}
	buf_add_u8(&b, 0);
	ck_assert_int_eq(read_any(_i, buf_bytes(&b)), ERR_CORRUPT);
	buf_fini(&b);
}
END_TEST

/* What is accepted can be walked to its end within the bytes. */
START_TEST(a_changed_byte_does_no_harm)
{
	struct buf b;
	make_session(&b);
	struct bytes all = buf_bytes(&b);
	for (size_t at = 0; at < all.len; at++) {
		for (unsigned v = 0; v < 256; v += 5) {
			uint8_t *copy = malloc(all.len);
			memcpy(copy, all.at, all.len);
			copy[at] = (uint8_t)v;
			struct session_row row;
			if (session_row_read(bytes_of(copy, all.len), &row) == OK) {
				struct session_row_sub sub;
				struct bytes rest = row.subscriptions;
				uint32_t n = 0;
				while (session_row_next(&rest, &sub))
					n++;
				ck_assert_uint_eq(n, row.subscription_count);
			}
			free(copy);
		}
	}
	buf_fini(&b);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("session_rows");
	tcase_add_test(tc, a_session_comes_back);
	tcase_add_test(tc, when_it_ends);
	tcase_add_test(tc, a_cursor_comes_back);
	tcase_add_loop_test(tc, every_prefix_is_refused, 0, 2);
	tcase_add_test(tc, a_changed_byte_does_no_harm);
	Suite *s = suite_create("session_rows");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
