#include <check.h>
#include <stdlib.h>
#include "server/net/proxy.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
static const char v4[] = SIGNATURE "\x21\x11\0\x0f\x0a\1\2\3\x0a\0\0\1\x12\x67\7\x5b\4\0\0rest";
static const char v6[] = SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
				   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\x50\7\x5b";
enum { V4_BYTES = 31, V6_BYTES = 52 };

START_TEST(reads_ipv4_and_skips_extensions)
{
	struct proxy_header h;
	size_t used;
	ck_assert_int_eq(proxy_read(bytes_of(v4, sizeof v4 - 1), &h, &used), OK);
	ck_assert_uint_eq(used, V4_BYTES);
	ck_assert_int_eq(h.family, PROXY_IPV4);
	ck_assert_int_eq(memcmp(h.source, "\x0a\1\2\3", 4), 0);
	ck_assert_uint_eq(h.source_port, 4711);
}
END_TEST

START_TEST(reads_ipv6)
{
	struct proxy_header h;
	size_t used;
	ck_assert_int_eq(proxy_read(bytes_of(v6, sizeof v6 - 1), &h, &used), OK);
	ck_assert_uint_eq(used, V6_BYTES);
	ck_assert_int_eq(h.family, PROXY_IPV6);
	ck_assert_int_eq(h.source[15], 1);
	ck_assert_uint_eq(h.source_port, 80);
}
END_TEST

START_TEST(local_and_unspecified_keep_the_socket)
{
	struct proxy_header h;
	size_t used;
	ck_assert_int_eq(proxy_read(bytes_of(SIGNATURE "\x20\0\0\0", 16), &h, &used), OK);
	ck_assert_int_eq(h.family, PROXY_LOCAL);
	ck_assert_int_eq(proxy_read(bytes_of(SIGNATURE "\x20\x11\0\1x", 17), &h, &used), OK);
	ck_assert_int_eq(h.family, PROXY_LOCAL);
	ck_assert_uint_eq(used, 17);
	ck_assert_int_eq(proxy_read(bytes_of(SIGNATURE "\x21\0\0\0", 16), &h, &used), OK);
	ck_assert_int_eq(h.family, PROXY_LOCAL);
}
END_TEST

/* Every beginning asks for more, and for no more than the header is long. */
static void try_prefix(const char *full, size_t whole, size_t len)
{
	struct proxy_header h;
	size_t used;
	uint8_t *exact = malloc(len ? len : 1);
	memcpy(exact, full, len);
	ck_assert_int_eq(proxy_read(bytes_of(exact, len), &h, &used), ERR_MORE);
	ck_assert_uint_gt(used, len);
	ck_assert_uint_le(used, whole);
	free(exact);
}

START_TEST(asks_for_more_at_every_prefix_v4)
{
	try_prefix(v4, V4_BYTES, (size_t)_i);
}
END_TEST
START_TEST(asks_for_more_at_every_prefix_v6)
{
	try_prefix(v6, V6_BYTES, (size_t)_i);
}
END_TEST

START_TEST(refuses_a_wrong_byte_at_once)
{
	struct proxy_header h;
	size_t used;
	uint8_t bad[14];
	memcpy(bad, v4, sizeof bad);
	bad[_i] ^= 0x40;
	ck_assert_int_eq(proxy_read(bytes_of(bad, (size_t)_i + 1), &h, &used), ERR_MALFORMED);
}
END_TEST

START_TEST(refuses_wrong_bodies)
{
	struct proxy_header h;
	size_t used;
	/* a command there is not, a family there is not, an IPv4 body too short, one too long */
	ck_assert_int_eq(
		proxy_read(bytes_of(SIGNATURE "\x22\x11\0\0", 16), &h, &used), ERR_MALFORMED);
	ck_assert_int_eq(
		proxy_read(bytes_of(SIGNATURE "\x21\x41\0\0", 16), &h, &used), ERR_MALFORMED);
	ck_assert_int_eq(proxy_read(bytes_of(SIGNATURE "\x21\x11\0\4\1\2\3\4", 20), &h, &used),
		ERR_MALFORMED);
	ck_assert_int_eq(
		proxy_read(bytes_of(SIGNATURE "\x21\x11\xff\xff", 16), &h, &used), ERR_TOOBIG);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("proxy");
	tcase_add_test(tc, reads_ipv4_and_skips_extensions);
	tcase_add_test(tc, reads_ipv6);
	tcase_add_test(tc, local_and_unspecified_keep_the_socket);
	tcase_add_loop_test(tc, asks_for_more_at_every_prefix_v4, 0, V4_BYTES);
	tcase_add_loop_test(tc, asks_for_more_at_every_prefix_v6, 0, V6_BYTES);
	tcase_add_loop_test(tc, refuses_a_wrong_byte_at_once, 0, 13);
	tcase_add_test(tc, refuses_wrong_bodies);
	Suite *s = suite_create("proxy");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
