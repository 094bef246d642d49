#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "cluster/meta.h"

static struct slice encoded(const struct meta_stream *s)
{
	struct buf b;
	struct slice out;

	buf_init(&b, 1 << 20);
	meta_stream_encode(s, &b);
	ck_assert_int_eq(b.err, OK);
	out = buf_share(&b);
	buf_fini(&b);
	return out;
}

static struct stream_setting two[] = {{"retention.ms", "5"}, {"cleanup.policy", "delete"}};
static uint64_t groups[] = {1024, 1030, UINT64_MAX};
static const struct meta_stream sample = {.uuid = {1, 2, 3},
	.created_ms = 1234567890123,
	.replicas = 3,
	.log_family = FAMILY_LOG_DAYS,
	.setting_count = 2,
	.settings = two,
	.group_count = 3,
	.groups = groups};

START_TEST(stream_row_comes_back)
{
	struct slice row = encoded(&sample);
	struct meta_stream *s;

	ck_assert_int_eq(meta_stream_decode(row.bytes, &s), OK);
	ck_assert_int_eq(memcmp(s->uuid, sample.uuid, 16), 0);
	ck_assert_int_eq(s->created_ms, sample.created_ms);
	ck_assert_uint_eq(s->replicas, 3);
	ck_assert_int_eq(s->log_family, FAMILY_LOG_DAYS);
	ck_assert_int_eq(s->group_count, 3);
	ck_assert_uint_eq(s->groups[2], UINT64_MAX);
	ck_assert_str_eq(meta_stream_setting(s, "cleanup.policy"), "delete");
	ck_assert_int_eq(meta_stream_number(s, "retention.ms", 9), 5);
	ck_assert_int_eq(meta_stream_number(s, "retention.bytes", 9), 9);
	meta_stream_free(s);
	slice_unref(&row);
}
END_TEST

START_TEST(every_prefix_is_malformed)
{
	struct slice row = encoded(&sample);
	struct meta_stream *s;

	for (size_t len = 0; len < row.bytes.len; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, row.bytes.at, len);
		ck_assert_int_eq(meta_stream_decode(bytes_of(exact, len), &s), ERR_MALFORMED);
		free(exact);
	}
	slice_unref(&row);
}
END_TEST

START_TEST(changed_bytes_never_break_out)
{
	struct slice row = encoded(&sample);
	struct meta_stream *s;
	uint8_t *copy = malloc(row.bytes.len);

	for (size_t i = 0; i < row.bytes.len; i++) {
		for (int v = 0; v < 256; v += 17) {
			memcpy(copy, row.bytes.at, row.bytes.len);
			copy[i] = (uint8_t)v;
			if (meta_stream_decode(bytes_of(copy, row.bytes.len), &s) == OK)
				meta_stream_free(s);
		}
	}
	memcpy(copy, row.bytes.at, row.bytes.len);
	copy[0] = 2; /* another version */
	ck_assert_int_eq(meta_stream_decode(bytes_of(copy, row.bytes.len), &s), ERR_MALFORMED);
	free(copy);
	slice_unref(&row);
}
END_TEST

START_TEST(cluster_row_comes_back)
{
	struct meta_cluster in = {.id = {9, 8},
		.tables = 16,
		.next_group = 2048,
		.founded_ms = 7,
		.next_incarnation = 5};
	struct meta_cluster out;
	struct buf b;

	buf_init(&b, 1000);
	meta_cluster_encode(&in, &b);
	ck_assert_int_eq(meta_cluster_decode(buf_bytes(&b), &out), OK);
	ck_assert_int_eq(memcmp(in.id, out.id, 16), 0);
	ck_assert_uint_eq(out.tables, 16);
	ck_assert_uint_eq(out.next_group, 2048);
	ck_assert_uint_eq(out.next_incarnation, 5);
	for (size_t len = 0; len < buf_len(&b); len++)
		ck_assert_int_eq(
			meta_cluster_decode(bytes_of(buf_bytes(&b).at, len), &out), ERR_MALFORMED);
	buf_clear(&b);
	in.tables = 0;
	meta_cluster_encode(&in, &b);
	ck_assert_int_eq(meta_cluster_decode(buf_bytes(&b), &out), ERR_MALFORMED);
	buf_fini(&b);
}
END_TEST

static const struct {
	const char *key, *value;
	enum err e;
} checks[] = {
	{"retention.ms", "-1", OK},
	{"retention.ms", "-2", ERR_INVALID},
	{"retention.ms", "", ERR_INVALID},
	{"max.message.bytes", "1048588", OK},
	{"max.message.bytes", "99999999999", ERR_INVALID},
	{"cleanup.policy", "delete", OK},
	{"cleanup.policy", "compact", OK},
	{"cleanup.policy", "compact,delete", OK},
	{"cleanup.policy", "delete, compact", OK},
	{"cleanup.policy", "delete,delete", ERR_INVALID},
	{"cleanup.policy", "compact,", ERR_INVALID},
	{"cleanup.policy", "compactor", ERR_INVALID},
	{"cleanup.policy", "del", ERR_INVALID},
	{"cleanup.policy", ",", ERR_INVALID},
	{"cleanup.policy", "", ERR_INVALID},
	{"message.timestamp.type", "LogAppendTime", OK},
	{"compression.type", "producer", OK},
	{"compression.type", "zstd", ERR_UNSUPPORTED},
	{"min.cleanable.dirty.ratio", "0.5", OK},
	{"min.cleanable.dirty.ratio", "1.5", ERR_INVALID},
	{"min.cleanable.dirty.ratio", ".", ERR_INVALID},
	{"preallocate", "false", OK},
	{"preallocate", "true", ERR_UNSUPPORTED},
	{"message.timestamp.after.max.ms", "9223372036854775807", OK},
	{"message.timestamp.after.max.ms", "3600000", ERR_UNSUPPORTED},
	{"message.timestamp.after.max.ms", "-1", ERR_INVALID},
	{"preallocate", "perhaps", ERR_INVALID},
	{"nonsense", "1", ERR_INVALID},
	{"retention.bytes", NULL, OK},
	{"nonsense", NULL, ERR_INVALID},
};

START_TEST(settings_are_checked)
{
	char why[160] = "";
	enum err e = meta_setting_check(checks[_i].key, checks[_i].value, why, sizeof why);

	ck_assert_msg(e == checks[_i].e, "%s=%s gave %s", checks[_i].key,
		checks[_i].value ? checks[_i].value : "NULL", err_text(e));
	if (e != OK)
		ck_assert_ptr_nonnull(strstr(why, checks[_i].key));
}
END_TEST

static const char *const bad_names[] = {"/x", "acme/", "acme/.", "a/b/c", "A/x", "a.b/x",
	"default/x", "__/x", "acme//x", "acme/x/"};
enum { BAD_NAMES = sizeof bad_names / sizeof bad_names[0] };

START_TEST(names_and_families)
{
	char name[META_NAME_MAX + 1];

	memset(name, 'a', sizeof name);
	ck_assert(meta_name_valid(bytes_of(name, 249)));
	ck_assert(!meta_name_valid(bytes_of(name, 250)));
	ck_assert(meta_name_valid(bytes_text("A.b_c-9")));
	ck_assert(!meta_name_valid(bytes_text("a b")));
	ck_assert(!meta_name_valid(bytes_text(".")));
	ck_assert(meta_name_valid(bytes_text("...")));
	ck_assert(meta_name_valid(bytes_text("acme-2/mqtt")));
	memset(name, 'a', sizeof name);
	name[META_TENANT_MAX] = '/';
	ck_assert(meta_name_valid(bytes_of(name, META_NAME_MAX)));
	ck_assert(!meta_name_valid(bytes_of(name, META_NAME_MAX + 1)));
	ck_assert(!meta_name_valid(bytes_of(name, META_TENANT_MAX + 1)));
	name[META_TENANT_MAX] = 'a';
	name[META_TENANT_MAX + 1] = '/';
	ck_assert(!meta_name_valid(bytes_of(name, META_NAME_MAX)));
	for (int i = 0; i < BAD_NAMES; i++)
		ck_assert_msg(!meta_name_valid(bytes_text(bad_names[i])), "%s", bad_names[i]);
	ck_assert(meta_name_internal(bytes_text("__x")));
	ck_assert(meta_name_internal(bytes_text("acme/__x")));
	ck_assert(!meta_name_internal(bytes_text("acme/_")));
	ck_assert(!meta_name_internal(bytes_text("a__/x")));
	ck_assert_int_eq(meta_family(false, 3600000), FAMILY_LOG_HOURS);
	ck_assert_int_eq(meta_family(false, 604800000), FAMILY_LOG_DAYS);
	ck_assert_int_eq(meta_family(false, -1), FAMILY_LOG_LONG);
	ck_assert_int_eq(meta_family(true, 3600000), FAMILY_LOG_COMPACTED);
}
END_TEST

/* What is in force of cleanup.policy and its companions. */
START_TEST(cleanup_is_read)
{
	struct stream_setting set[] = {{"cleanup.policy", "delete,compact"},
		{"min.cleanable.dirty.ratio", "0.25"}, {"delete.retention.ms", "7"},
		{"max.compaction.lag.ms", "9"}};
	struct meta_stream s = {.setting_count = 4, .settings = set};
	struct compact_policy policy;
	bool compacts, deletes;

	meta_stream_cleanup(&s, &compacts, &deletes, &policy);
	ck_assert(compacts && deletes);
	ck_assert_uint_eq(policy.dirty_ppm, 250000);
	ck_assert_int_eq(policy.delete_retention_ms, 7);
	ck_assert_int_eq(policy.lag_min_ms, 0);
	ck_assert_int_eq(policy.lag_max_ms, 9);
	set[0].value = "compact";
	set[1].value = "1";
	meta_stream_cleanup(&s, &compacts, &deletes, &policy);
	ck_assert(compacts && !deletes);
	ck_assert_uint_eq(policy.dirty_ppm, 1000000);
	s.setting_count = 0;
	meta_stream_cleanup(&s, &compacts, &deletes, &policy);
	ck_assert(!compacts && deletes);
	ck_assert_uint_eq(policy.dirty_ppm, 500000);
	ck_assert_int_eq(policy.delete_retention_ms, 86400000);
	ck_assert_int_eq(policy.lag_max_ms, INT64_MAX);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("meta");
	Suite *s = suite_create("meta");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, stream_row_comes_back);
	tcase_add_test(tc, every_prefix_is_malformed);
	tcase_add_test(tc, changed_bytes_never_break_out);
	tcase_add_test(tc, cluster_row_comes_back);
	tcase_add_test(tc, cleanup_is_read);
	tcase_add_loop_test(tc, settings_are_checked, 0, sizeof checks / sizeof checks[0]);
	tcase_add_test(tc, names_and_families);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
