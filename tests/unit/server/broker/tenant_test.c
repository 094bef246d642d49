#include "server/broker/tenant.h"
#include <check.h>

static const struct {
	const char *name;
	bool valid;
} tenants[] = {
	{"a", true},
	{"acme-2", true},
	{"-", true},
	{"0", true},
	{"", false},
	{"default", false},
	{"Default", false},
	{"a/b", false},
	{"a.b", false},
	{"a_b", false},
	{"a b", false},
	{"\xc3\xa4", false},
};

START_TEST(names_of_tenants_are_plain)
{
	ck_assert_int_eq(tenant_name_valid(bytes_text(tenants[_i].name)), tenants[_i].valid);
}
END_TEST

START_TEST(names_are_bounded)
{
	char text[STREAM_NAME_MAX + 1];
	memset(text, 'a', sizeof text);
	ck_assert(tenant_name_valid(bytes_of(text, TENANT_NAME_MAX)));
	ck_assert(!tenant_name_valid(bytes_of(text, TENANT_NAME_MAX + 1)));
	ck_assert(!tenant_name_valid(bytes_of("a\0b", 3)));
	ck_assert(stream_name_valid(bytes_of(text, STREAM_NAME_MAX)));
	ck_assert(!stream_name_valid(bytes_of(text, STREAM_NAME_MAX + 1)));
	ck_assert(!stream_name_valid(bytes_of("a\0b", 3)));
	struct tenant_stream full;
	ck_assert_int_eq(tenant_stream(bytes_of(text, TENANT_NAME_MAX),
				 bytes_of(text, STREAM_NAME_MAX), &full),
		OK);
	ck_assert_uint_eq(full.len, TENANT_STREAM_BYTES);
	ck_assert_uint_eq(strlen(full.text), TENANT_STREAM_BYTES);
}
END_TEST

START_TEST(the_default_tenant_has_a_name_for_people)
{
	struct bytes out;
	ck_assert(tenant_read(bytes_text(""), &out) == OK && out.len == 0);
	ck_assert(tenant_read(bytes_text("default"), &out) == OK && out.len == 0);
	ck_assert(tenant_read(bytes_text("acme"), &out) == OK);
	ck_assert(bytes_equal(out, bytes_text("acme")));
	ck_assert_int_eq(tenant_read(bytes_text("A"), &out), ERR_INVALID);
	ck_assert_uint_eq(out.len, 0);
	ck_assert_str_eq(tenant_text(""), "default");
	ck_assert_str_eq(tenant_text("acme"), "acme");
}
END_TEST

static const struct {
	const char *tenant, *name, *full; /* full NULL: ERR_INVALID */
} streams[] = {
	{"", "mqtt", "mqtt"},
	{"acme", "mqtt", "acme/mqtt"},
	{"acme", "__x", "acme/__x"},
	{"", "a.b_c-D", "a.b_c-D"},
	{"", "acme/mqtt", NULL},
	{"b", "acme/mqtt", NULL},
	{"", "/mqtt", NULL},
	{"", "", NULL},
	{"acme", "", NULL},
	{"acme", ".", NULL},
	{"acme", "..", NULL},
	{"default", "mqtt", NULL},
	{"a/b", "mqtt", NULL},
};

START_TEST(streams_carry_their_tenant)
{
	struct bytes tenant = bytes_text(streams[_i].tenant), name = bytes_text(streams[_i].name);
	struct tenant_stream full;
	enum err e = tenant_stream(tenant, name, &full);
	if (streams[_i].full == NULL) {
		ck_assert_int_eq(e, ERR_INVALID);
		return;
	}
	ck_assert_int_eq(e, OK);
	ck_assert_str_eq(full.text, streams[_i].full);
	ck_assert_uint_eq(full.len, strlen(full.text));
	struct bytes back, bare;
	tenant_stream_split(bytes_of(full.text, full.len), &back, &bare);
	ck_assert(bytes_equal(back, tenant) && bytes_equal(bare, name));
}
END_TEST

static const struct {
	const char *tenant;
	struct bytes id;
} ids[] = {
	{"", {(const uint8_t *)"device-7", 8}},
	{"acme", {(const uint8_t *)"device-7", 8}},
	{"acme", {(const uint8_t *)"", 0}},
	{"", {(const uint8_t *)"", 0}},
	{"a", {(const uint8_t *)"\xff/\xfe", 3}},
};

START_TEST(ids_carry_their_tenant)
{
	uint8_t room[32];
	struct bytes tenant = bytes_text(ids[_i].tenant), back, bare;
	struct bytes full = tenant_id(tenant, ids[_i].id, room);
	ck_assert(full.len <= ids[_i].id.len + TENANT_ID_EXTRA);
	if (tenant.len == 0)
		ck_assert(full.at == ids[_i].id.at && full.len == ids[_i].id.len);
	else
		ck_assert_uint_eq(full.len, tenant.len + 2 + ids[_i].id.len);
	tenant_id_split(full, &back, &bare);
	ck_assert(bytes_equal(back, tenant) && bytes_equal(bare, ids[_i].id));
}
END_TEST

/* Whatever bytes: parts of what was given, and no more. */
START_TEST(any_bytes_can_be_taken_apart)
{
	static const char any[] = "\0acme\0id\0x/y";
	for (size_t from = 0; from < sizeof any; from++) {
		for (size_t len = 0; from + len <= sizeof any; len++) {
			struct bytes full = bytes_of(any + from, len), tenant, id;
			tenant_id_split(full, &tenant, &id);
			ck_assert(tenant.len + id.len <= len);
			ck_assert(id.at + id.len == full.at + len);
			tenant_stream_split(full, &tenant, &id);
			ck_assert(tenant.len + id.len <= len);
			ck_assert(id.at + id.len == full.at + len);
		}
	}
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof(a)[0])
START_TEST(internal_names_begin_with_two)
{
	ck_assert(stream_name_internal(bytes_text("__")));
	ck_assert(stream_name_internal(bytes_text("__audit")));
	ck_assert(!stream_name_internal(bytes_text("_")));
	ck_assert(!stream_name_internal(bytes_text("_a")));
	ck_assert(!stream_name_internal(bytes_of(NULL, 0)));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("tenant");
	tcase_add_loop_test(tc, names_of_tenants_are_plain, 0, COUNT(tenants));
	tcase_add_test(tc, names_are_bounded);
	tcase_add_test(tc, internal_names_begin_with_two);
	tcase_add_test(tc, the_default_tenant_has_a_name_for_people);
	tcase_add_loop_test(tc, streams_carry_their_tenant, 0, COUNT(streams));
	tcase_add_loop_test(tc, ids_carry_their_tenant, 0, COUNT(ids));
	tcase_add_test(tc, any_bytes_can_be_taken_apart);
	Suite *s = suite_create("tenant");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
