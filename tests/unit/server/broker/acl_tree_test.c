/* The tree of filters against looking at each of them, with words put in before. */
#include "server/broker/acl_tree.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { ENTRIES_MAX = 16, ROUNDS = 4000, TEXT_MAX = 160 };

struct entry { /* says the bit of its index */
	char text[TEXT_MAX];
	bool prefixed, deny;
};

static uint64_t seed;
static uint32_t pick(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static struct bytes B(const char *text) {
	return bytes_text(text);
}

static const char *const plain[] = {"a", "b", "ab", "", "$s", "id-x", "x"};
static const char *const parts[] = {"%c", "id-%c", "%c%c", "%ca", "%%c", "a%"};
#define ANY(list) list[pick(sizeof(list) / sizeof(list)[0])]

static void random_text(char *out, bool topic, bool prefixed)
{
	uint32_t depth = 1 + pick(5);
	size_t len = 0;
	for (uint32_t i = 0; i < depth; i++) {
		uint32_t kind = topic ? 9 : pick(prefixed ? 8 : 10);
		const char *level = kind < 2 ? ANY(parts) : ANY(plain);
		if (!topic && kind == 8)
			level = "+";
		if (!topic && kind == 9 && i + 1 == depth)
			level = "#";
		len += (size_t)snprintf(out + len, TEXT_MAX - len, "%s%s", i > 0 ? "/" : "", level);
	}
}

static void put_in(const char *text, const char *id, char out[TEXT_MAX])
{
	size_t len = 0;
	for (; *text != 0 && len < TEXT_MAX - 8; text++)
		if (text[0] == '%' && text[1] == 'c') {
			len += (size_t)snprintf(out + len, TEXT_MAX - len, "%s", id);
			text++;
		} else {
			out[len++] = *text;
		}
	out[len] = 0;
}

static bool matches(const struct entry *e, const char *topic, const char *id)
{
	char text[TEXT_MAX];
	put_in(e->text, id, text);
	return e->prefixed ? strncmp(topic, text, strlen(text)) == 0
			   : topic_matches(B(text), B(topic));
}

START_TEST(finds_what_each_of_them_finds)
{
	static const char *const ids[] = {"a", "x", "ab", "long-id"};
	int found = 0;
	seed = 100 + (uint64_t)_i;
	for (int round = 0; round < ROUNDS; round++) {
		struct entry e[ENTRIES_MAX];
		uint32_t count = 1 + pick(ENTRIES_MAX);
		struct acl_tree *t = acl_tree_new();
		for (uint32_t i = 0; i < count; i++) {
			e[i].prefixed = pick(4) == 0;
			e[i].deny = pick(2) == 0;
			random_text(e[i].text, false, e[i].prefixed);
			struct acl_bits b = {0, 0};
			*(e[i].deny ? &b.deny : &b.allow) = (uint16_t)(1u << i);
			acl_tree_add(t, B(e[i].text), e[i].prefixed, b);
		}
		for (int n = 0; n < 20; n++) {
			char topic[TEXT_MAX], literal[TEXT_MAX];
			const char *id = ANY(ids);
			random_text(topic, true, false);
			if (pick(3) == 0) { /* one that is likely to match */
				put_in(e[pick(count)].text, id, literal);
				for (char *c = literal; *c != 0; c++)
					*c = *c == '+' || *c == '#' ? 'a' : *c;
				memcpy(topic, literal, sizeof topic);
			}
			struct acl_bits want = {0, 0};
			for (uint32_t i = 0; i < count; i++)
				if (matches(&e[i], topic, id))
					*(e[i].deny ? &want.deny : &want.allow) |= (uint16_t)(1u
						<< i);
			struct acl_bits is = acl_tree_find(t, B(topic), B(id));
			ck_assert_msg(is.allow == want.allow && is.deny == want.deny,
				"\"%s\" of \"%s\"", topic, id);
			found += is.allow != 0 || is.deny != 0;
		}
		acl_tree_free(t);
	}
	ck_assert_int_gt(found, ROUNDS);
}
END_TEST

/* Every filter matches, by all ways that there are at each level. */
START_TEST(all_ways_are_gone)
{
	struct acl_tree *t = acl_tree_new();
	for (int bits = 0; bits < 1 << 10; bits++) {
		char text[64] = "";
		for (int i = 0; i < 10; i++)
			snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s",
				i > 0 ? "/" : "", bits >> i & 1 ? "+" : "%c");
		acl_tree_add(t, B(text), false, (struct acl_bits){.allow = 1});
	}
	acl_tree_add(t, B("+/+/+/+/+/+/+/+/+/a"), false, (struct acl_bits){.allow = 2});
	acl_tree_add(t, B("a/a/a/a/a/a/a/a/a/a/#"), false, (struct acl_bits){.deny = 4});
	struct acl_bits b = acl_tree_find(t, B("a/a/a/a/a/a/a/a/a/a"), B("a"));
	ck_assert_int_eq(b.allow, 3);
	ck_assert_int_eq(b.deny, 4);
	b = acl_tree_find(t, B("a/a/a/a/a/a/a/a/a/b"), B("a"));
	ck_assert_int_eq(b.allow, 1);
	ck_assert_int_eq(b.deny, 0);
	acl_tree_free(t);
}
END_TEST

START_TEST(nothing_is_found_in_none)
{
	struct acl_tree *t = acl_tree_new();
	struct acl_bits b = acl_tree_find(t, B("a/b"), B("c"));
	ck_assert_int_eq(b.allow | b.deny, 0);
	acl_tree_free(t);
	acl_tree_free(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acl_tree");
	TCase *tc = tcase_create("acl_tree");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, finds_what_each_of_them_finds, 0, 4);
	tcase_add_test(tc, all_ways_are_gone);
	tcase_add_test(tc, nothing_is_found_in_none);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
