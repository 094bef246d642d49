/* The map of keys: its hash by the vectors of its authors, and what it keeps of random keys. */
#include <check.h>
#include <stdlib.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/key_map.h"

/* From the reference implementation's vectors_sip128: key 00..0f, inputs "" and 00; its words are
 * little endian. */
START_TEST(hash_is_siphash)
{
	const uint64_t seed[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
	uint8_t zero = 0;
	struct key_hash h = key_hash(seed, bytes_of(NULL, 0), 2, 4);

	ck_assert_uint_eq(h.a, 0xe6a825ba047f81a3);
	ck_assert_uint_eq(h.b, 0x930255c71472f66d);
	h = key_hash(seed, bytes_of(&zero, 1), 2, 4);
	ck_assert_uint_eq(h.a, 0x44af996bd8c187da);
	ck_assert_uint_eq(h.b, 0x45fc229b11597634);
}
END_TEST

START_TEST(hash_sees_every_byte)
{
	const uint64_t seed[2] = {1, 2};
	uint8_t key[40] = {0};

	for (size_t len = 1; len <= sizeof key; len++) {
		struct key_hash h = key_hash(seed, bytes_of(key, len), 1, 3);

		for (size_t i = 0; i < len; i++) {
			struct key_hash other;

			key[i] ^= 1;
			other = key_hash(seed, bytes_of(key, len), 1, 3);
			key[i] ^= 1;
			ck_assert(h.a != other.a && h.b != other.b);
		}
	}
}
END_TEST

START_TEST(newest_offset_is_kept)
{
	enum { KEYS = 5000, PUTS = 40000 };
	struct key_map *m = key_map_new(KEYS, 1 << 20);
	int64_t *model = mem_new(KEYS * sizeof *model);

	for (int i = 0; i < KEYS; i++)
		model[i] = -1;
	for (int64_t offset = 0; offset < PUTS; offset++) {
		uint32_t k = (uint32_t)(random_u64() % KEYS);

		ck_assert(key_map_put(m, bytes_of(&k, sizeof k), offset));
		model[k] = offset;
	}
	for (uint32_t k = 0; k < KEYS; k++)
		ck_assert_int_eq(key_map_get(m, bytes_of(&k, sizeof k)), model[k]);
	uint32_t none = KEYS;
	ck_assert_int_eq(key_map_get(m, bytes_of(&none, sizeof none)), -1);
	mem_free(model);
	key_map_free(m);
}
END_TEST

/* A full map refuses new keys and takes those it has. */
START_TEST(bound_of_memory_holds)
{
	struct key_map *m = key_map_new(1000000, 24 * 1000);
	uint32_t k = 0, first = 0;

	while (key_map_put(m, bytes_of(&k, sizeof k), k))
		k++;
	ck_assert_uint_eq(k, 900);
	ck_assert_uint_eq(key_map_count(m), k);
	ck_assert(!key_map_put(m, bytes_of(&k, sizeof k), 5000));
	ck_assert_int_eq(key_map_get(m, bytes_of(&k, sizeof k)), -1);
	ck_assert(key_map_put(m, bytes_of(&first, sizeof first), 5000));
	ck_assert_int_eq(key_map_get(m, bytes_of(&first, sizeof first)), 5000);
	for (uint32_t i = 1; i < k; i++)
		ck_assert_int_eq(key_map_get(m, bytes_of(&i, sizeof i)), i);
	key_map_free(m);
	m = key_map_new(0, 0);
	ck_assert(key_map_put(m, bytes_of(NULL, 0), 0)); /* the empty key is one, too */
	ck_assert_int_eq(key_map_get(m, bytes_of(NULL, 0)), 0);
	key_map_free(m);
	key_map_free(NULL);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("key_map");
	Suite *s = suite_create("key_map");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, hash_is_siphash);
	tcase_add_test(tc, hash_sees_every_byte);
	tcase_add_test(tc, newest_offset_is_kept);
	tcase_add_test(tc, bound_of_memory_holds);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
