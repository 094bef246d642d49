/* Documents against a plain table of what there should be; shares that stay as they were. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cluster/catalog.h"
#include "cluster/docs.h"

enum { KEYS = 4000, STEPS = 60000 };

static int values[KEYS]; /* 0: not there */
static uint32_t seed;

static uint32_t next(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

struct name {
	char text[16];
};

static struct bytes key_of(int i, struct name *out)
{
	return bytes_of(out->text, (size_t)snprintf(out->text, sizeof out->text, "k%06d", i));
}

static void put(struct docs *d, int i, int value)
{
	struct name key, text;

	snprintf(text.text, sizeof text.text, "%d", value);
	docs_put(d, key_of(i, &key), bytes_text(text.text));
	values[i] = value;
}

static void take(struct docs *d, int i)
{
	struct name key;

	docs_remove(d, key_of(i, &key));
	values[i] = 0;
}

static int value_of(const struct catalog_doc *doc)
{
	char text[16] = {0};

	memcpy(text, doc->value.at, doc->value.len);
	return (int)strtol(text, NULL, 10);
}

static void is_like(const struct docs *d, const int *want)
{
	struct name key;
	int at = 0;

	for (int i = 0; i < KEYS; i++) {
		const struct catalog_doc *doc = docs_get(d, key_of(i, &key));

		ck_assert_int_eq(docs_seek(d, key_of(i, &key)), at);
		if (want[i] == 0) {
			ck_assert_ptr_null(doc);
			continue;
		}
		ck_assert_ptr_nonnull(doc);
		ck_assert_int_eq(value_of(doc), want[i]);
		ck_assert_ptr_eq(docs_at(d, at), doc);
		at++;
	}
	ck_assert_int_eq(docs_count(d), at);
}

/* What differs, and only that, in order. */
static void differs_like(
	const struct docs *old, const int *was, const struct docs *now, const int *is)
{
	struct catalog_docs_walk walk = {0};
	const struct catalog_doc *x, *y;
	struct name key;

	for (int i = 0; i < KEYS; i++) {
		if (was[i] == is[i])
			continue;
		ck_assert(docs_changed(old, now, &walk, &x, &y));
		ck_assert_int_eq(x != NULL, was[i] != 0);
		ck_assert_int_eq(y != NULL, is[i] != 0);
		ck_assert(bytes_equal((x != NULL ? x : y)->key, key_of(i, &key)));
		ck_assert(x == NULL || value_of(x) == was[i]);
		ck_assert(y == NULL || value_of(y) == is[i]);
	}
	ck_assert(!docs_changed(old, now, &walk, &x, &y));
}

START_TEST(is_what_was_put_and_shares_never_change)
{
	static int old_values[KEYS], none[KEYS];
	struct docs *d = docs_new();
	const struct docs *old = docs_share(d);

	seed = (uint32_t)_i;
	memset(values, 0, sizeof values);
	memset(old_values, 0, sizeof old_values);
	for (int step = 1; step <= STEPS; step++) {
		/* Grows, then shrinks: leaves split and become one again. */
		bool grow = step % (STEPS / 2) < STEPS / 4;
		int i = (int)next(KEYS);

		if (next(4) != 0 ? grow : !grow)
			put(d, i, step);
		else
			take(d, i);
		if (next(STEPS / 12) == 0) {
			const struct docs *now = docs_share(d);

			is_like(now, values);
			is_like(old, old_values);
			differs_like(old, old_values, now, values);
			differs_like(now, values, old, old_values);
			differs_like(NULL, none, now, values);
			docs_unref(old);
			old = now;
			memcpy(old_values, values, sizeof values);
		}
	}
	docs_free(d);
	is_like(old, old_values);
	docs_unref(old);
}
END_TEST

START_TEST(prefixes_are_found)
{
	struct docs *d = docs_new();

	ck_assert(!docs_any(NULL, bytes_text("k")));
	ck_assert(!docs_any(d, bytes_text("k")));
	for (int i = 0; i < 1000; i++)
		put(d, i, 1);
	ck_assert(docs_any(d, bytes_text("k")));
	ck_assert(docs_any(d, bytes_text("")));
	ck_assert(docs_any(d, bytes_text("k00025")));
	ck_assert(docs_any(d, bytes_text("k000999")));
	ck_assert(!docs_any(d, bytes_text("k001")));
	ck_assert(!docs_any(d, bytes_text("k0000000")));
	ck_assert(!docs_any(d, bytes_text("a")));
	ck_assert(!docs_any(d, bytes_text("l")));
	for (int i = 250; i < 260; i++) /* where leaves meet */
		take(d, i);
	ck_assert(!docs_any(d, bytes_text("k00025")));
	docs_free(d);
}
END_TEST

START_TEST(versions_move_with_changes_only)
{
	struct docs *d = docs_new();
	const struct docs *a, *b;

	put(d, 1, 1);
	a = docs_share(d);
	b = docs_share(d);
	ck_assert_ptr_eq(a, b);
	docs_unref(b);
	take(d, 2); /* was not there */
	b = docs_share(d);
	ck_assert_ptr_eq(a, b);
	docs_unref(b);
	docs_clear(d);
	b = docs_share(d);
	ck_assert_uint_gt(docs_version(b), docs_version(a));
	ck_assert_int_eq(docs_count(b), 0);
	ck_assert_int_eq(docs_count(a), 1);
	docs_unref(a);
	docs_unref(b);
	docs_free(d);
}
END_TEST

START_TEST(catalogues_have_them)
{
	struct docs *d = docs_new();
	const struct docs *s;
	struct catalog *one, *two;
	struct catalog_docs_walk walk = {0};
	const struct catalog_doc *was, *is;
	struct name key;

	put(d, 1, 10);
	put(d, 2, 20);
	s = docs_share(d);
	one = catalog_new(&(struct catalog_parts){.version = 1, .docs = s});
	docs_unref(s);
	put(d, 2, 21);
	s = docs_share(d);
	two = catalog_new(&(struct catalog_parts){.version = 2, .docs = s});
	docs_unref(s);
	docs_free(d);
	ck_assert_int_eq(catalog_doc_count(one), 2);
	ck_assert_int_eq(value_of(catalog_doc(one, key_of(2, &key))), 20);
	ck_assert_int_eq(value_of(catalog_doc_at(two, 1)), 21);
	ck_assert_int_eq(catalog_doc_seek(two, key_of(2, &key)), 1);
	ck_assert_ptr_eq(catalog_doc_at(one, 0), catalog_doc_at(two, 0)); /* shared */
	ck_assert_uint_ne(catalog_docs_version(one), catalog_docs_version(two));
	ck_assert(catalog_docs_changed(one, two, &walk, &was, &is));
	ck_assert_int_eq(value_of(was), 20);
	ck_assert_int_eq(value_of(is), 21);
	ck_assert(!catalog_docs_changed(one, two, &walk, &was, &is));
	catalog_release(one);
	ck_assert_int_eq(value_of(catalog_doc(two, key_of(1, &key))), 10);
	catalog_release(two);
	one = catalog_new(&(struct catalog_parts){.version = 3});
	ck_assert_int_eq(catalog_doc_count(one), 0);
	ck_assert_int_eq(catalog_doc_seek(one, bytes_text("a")), 0);
	ck_assert_ptr_null(catalog_doc(one, bytes_text("a")));
	ck_assert_uint_eq(catalog_docs_version(one), 0);
	catalog_release(one);
}
END_TEST

/* What a change costs with 100,000 of them: printed, for times are no test. */
START_TEST(a_change_costs_little)
{
	enum { MANY = 100000, CHANGES = 1000 };
	struct docs *d = docs_new();
	const struct docs *old, *now;
	struct timespec from, to;
	const struct catalog_doc *was, *is;
	struct name key;
	int found = 0;

	for (int i = 0; i < MANY; i++)
		docs_put(d, key_of(i, &key), bytes_text("value"));
	old = docs_share(d);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < CHANGES; i++) {
		struct catalog_docs_walk walk = {0};

		docs_put(d, key_of((int)next(MANY), &key), bytes_text("changed"));
		now = docs_share(d);
		while (docs_changed(old, now, &walk, &was, &is))
			found++;
		docs_unref(old);
		old = now;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	docs_unref(old);
	docs_free(d);
	ck_assert_int_le(found, CHANGES);
	ck_assert_int_gt(found, CHANGES * 9 / 10);
	printf("a change of one of %d documents, shared and compared: %.1f us\n", MANY,
		((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) /
			1e3 / CHANGES);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("docs");
	Suite *s = suite_create("docs");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, is_what_was_put_and_shares_never_change, 1, 5);
	tcase_add_test(tc, prefixes_are_found);
	tcase_add_test(tc, versions_move_with_changes_only);
	tcase_add_test(tc, catalogues_have_them);
	tcase_add_test(tc, a_change_costs_little);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
