/* Changes of documents, evaluated over a table of rows that stands for the group's; and their
 * bytes.
 */
#include "tests/unit/cluster/meta_rows.h"

static struct docs *applied;
static struct meta_docs applied_row;

static int64_t view_count(void *arg, const struct meta_limit *l)
{
	(void)arg;
	return docs_count_of(applied, l->prefix);
}

static void setup(void)
{
	rows_begin();
	applied = docs_new();
	applied_row = (struct meta_docs){0};
	w.view = (struct meta_view){
		.conf = &w.conf, .docs = applied, .docs_row = &applied_row, .count = view_count};
	w.partition.options.owner = &w.view;
}

static void teardown(void)
{
	rows_end();
	docs_free(applied);
}

static struct meta_doc doc(const char *key, const char *value)
{
	return (struct meta_doc){.key = bytes_text(key),
		.value = value != NULL ? bytes_text(value) : bytes_of(NULL, 0)};
}

static enum err docs_ask(const struct meta_doc *docs, int count, const char *none)
{
	struct meta_request q = {.kind = META_DOCS,
		.docs = (struct meta_doc *)(uintptr_t)docs,
		.doc_count = count,
		.docs_none = bytes_text(none)};

	return ask(&q);
}

static const char *doc_text(const char *key)
{
	static char text[40];
	struct fake_row *r;
	char row[300];

	snprintf(row, sizeof row, "d/%s", key);
	r = row_find(bytes_text(row));
	if (r == NULL)
		return NULL;
	snprintf(text, sizeof text, "%.*s", (int)r->value.bytes.len,
		(const char *)r->value.bytes.at);
	return text;
}

/* What was decided is applied: the model has it. */
static void apply_docs(void)
{
	docs_clear(applied);
	for (struct list *n = w.rows.next; n != &w.rows; n = n->next) {
		const struct fake_row *r = list_entry(n, struct fake_row, node);

		if (r->len > 2 && r->key[0] == 'd' && r->key[1] == '/')
			docs_put(applied, bytes_of(r->key + 2, r->len - 2), r->value.bytes);
		if (r->len == 2 && memcmp(r->key, "dn", 2) == 0)
			ck_assert_int_eq(meta_docs_decode(r->value.bytes, &applied_row), OK);
	}
}

START_TEST(documents_come_change_and_go)
{
	struct meta_doc two[] = {doc("a", "1"), doc("b", "")};

	ck_assert_int_eq(docs_ask(two, 2, ""), OK);
	ck_assert_str_eq(doc_text("a"), "1");
	ck_assert_str_eq(doc_text("b"), "");
	apply_docs();
	ck_assert_uint_eq(applied_row.count, 2);
	ck_assert_uint_eq(applied_row.bytes, 3);
	ck_assert_int_eq(docs_ask(two, 2, ""), OK); /* nothing new */
	ck_assert_int_eq(w.writes, 0);
	two[0].value = bytes_text("123");
	two[1].value = bytes_of(NULL, 0);
	ck_assert_int_eq(docs_ask(two, 2, ""), OK);
	ck_assert_str_eq(doc_text("a"), "123");
	ck_assert_ptr_null(doc_text("b"));
	apply_docs();
	ck_assert_uint_eq(applied_row.count, 1);
	ck_assert_uint_eq(applied_row.bytes, 4);
	ck_assert_int_eq(docs_ask(&two[1], 1, ""), OK); /* is gone already */
	ck_assert_int_eq(w.writes, 0);
}
END_TEST

START_TEST(documents_have_conditions)
{
	struct meta_doc d = doc("a", "1");

	d.only = DOC_OLD;
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_NOTFOUND);
	d.only = DOC_SAME;
	d.before = bytes_text("0");
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_CONFLICT);
	d.only = DOC_NEW;
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_EXISTS);
	d.only = DOC_OLD;
	d.value = bytes_text("");
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	d.only = DOC_SAME; /* empty is not absent */
	d.before = bytes_of(NULL, 0);
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_CONFLICT);
	d.before = bytes_text("");
	d.value = bytes_of(NULL, 0);
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	ck_assert_ptr_null(doc_text("a"));
	d.before = bytes_of(NULL, 0); /* nothing before is what there is */
	d.value = bytes_text("2");
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	ck_assert_str_eq(doc_text("a"), "2");
}
END_TEST

static void leave(const char *key)
{
	struct fake_row *r = row_find(bytes_text(key));

	ck_assert_ptr_nonnull(r);
	r->away = true;
}

START_TEST(documents_that_left_memory_are_judged_by_the_model)
{
	struct meta_doc d = doc("a", "1");

	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	apply_docs();
	leave("d/a");
	d.only = DOC_NEW;
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_EXISTS);
	d.only = DOC_SAME;
	d.before = bytes_text("0");
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_CONFLICT);
	d.before = bytes_text("1");
	d.value = bytes_text("22");
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	apply_docs();
	ck_assert_uint_eq(applied_row.count, 1);
	ck_assert_uint_eq(applied_row.bytes, 3);
	leave("dn"); /* that one is fetched */
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_MORE);
}
END_TEST

START_TEST(that_there_are_none_is_told_of_what_is_decided)
{
	struct meta_doc d = doc("user/a", "1"), other = doc("rule/b", "2");

	ck_assert_int_eq(docs_ask(&other, 1, ""), OK);
	/* Not applied yet: nobody knows what comes with it. */
	ck_assert_int_eq(docs_ask(&d, 1, "user/"), ERR_BUSY);
	apply_docs();
	ck_assert_int_eq(docs_ask(&d, 1, "rule/"), ERR_CONFLICT);
	ck_assert_int_eq(docs_ask(&d, 1, "user/"), OK);
	ck_assert_int_eq(docs_ask(&d, 1, "user/"), ERR_BUSY);
	apply_docs();
	ck_assert_int_eq(docs_ask(&d, 1, "user/"), ERR_CONFLICT);
	ck_assert(said("some already"));
	/* Its coming and going between leaves other things there: still not known. */
	d.value = bytes_of(NULL, 0);
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	ck_assert_int_eq(docs_ask(&other, 1, "user/"), ERR_BUSY);
	apply_docs();
	ck_assert_int_eq(docs_ask(&other, 1, "user/"), OK);
}
END_TEST

START_TEST(documents_are_bounded)
{
	static uint8_t long_key[CATALOG_DOC_KEY_MAX + 1], big[CATALOG_DOC_BYTES_MAX + 1];
	uint8_t row[META_DOCS_BYTES];
	struct meta_docs full = {1, CATALOG_DOCS_BYTES_MAX - 1, 1};
	struct meta_doc d = doc("", "1"), known = doc("a", "1");

	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_INVALID);
	memset(long_key, 'k', sizeof long_key);
	d.key = bytes_of(long_key, sizeof long_key);
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_INVALID);
	d.key.len--;
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	d.value = bytes_of(big, sizeof big);
	ck_assert_int_eq(docs_ask(&d, 1, ""), ERR_TOOBIG);
	d.value.len--;
	ck_assert_int_eq(docs_ask(&d, 1, ""), OK);
	ck_assert_int_eq(docs_ask(&known, 1, ""), OK);
	meta_docs_encode(&full, row);
	eval_put(&w, META_KEYSPACE, bytes_text("dn"), bytes_of(row, sizeof row));
	known.value = bytes_text("12");
	ck_assert_int_eq(docs_ask(&known, 1, ""), OK);
	known.value = bytes_text("123");
	ck_assert_int_eq(docs_ask(&known, 1, ""), ERR_TOOBIG);
	known.value = bytes_of(NULL, 0); /* less is always fine */
	ck_assert_int_eq(docs_ask(&known, 1, ""), OK);
	full = (struct meta_docs){CATALOG_DOCS_MAX, 1 << 20, 1};
	meta_docs_encode(&full, row);
	eval_put(&w, META_KEYSPACE, bytes_text("dn"), bytes_of(row, sizeof row));
	known.value = bytes_text("1");
	ck_assert_int_eq(docs_ask(&known, 1, ""), ERR_TOOBIG);
	ck_assert(said("there may be"));
}
END_TEST

START_TEST(a_check_of_documents_changes_nothing)
{
	struct meta_doc d = doc("a", "1");
	struct meta_request q = {.kind = META_DOCS, .docs = &d, .doc_count = 1, .check_only = true};

	ck_assert_int_eq(ask(&q), OK);
	ck_assert_int_eq(w.writes, 0);
	d.only = DOC_OLD;
	ck_assert_int_eq(ask(&q), ERR_NOTFOUND);
}
END_TEST

START_TEST(there_are_no_more_documents_than_a_limit_says)
{
	struct meta_doc three[] = {doc("u/a", "1"), doc("u/b", "1"), doc("v/a", "1")};
	struct meta_limit l[] = {{.of = LIMIT_DOCS, .prefix = bytes_text("u/"), .most = 1},
		{.of = LIMIT_DOCS, .prefix = bytes_text("v/"), .most = 9}};
	struct meta_request q = {
		.kind = META_DOCS, .docs = three, .doc_count = 3, .limits = l, .limit_count = 2};

	q.check_only = true; /* nobody here takes back what a refusal has staged */
	ck_assert_int_eq(ask(&q), ERR_QUOTA);
	q.check_only = false;
	l[0].most = 2;
	ck_assert_int_eq(ask(&q), OK);
	apply_docs();
	three[0].value = bytes_text("2"); /* other than before, no more */
	ck_assert_int_eq(ask(&q), OK);
	apply_docs();
	three[0].key = bytes_text("u/c");
	q.check_only = true;
	ck_assert_int_eq(ask(&q), ERR_QUOTA);
	q.check_only = false;
	three[1].value = bytes_of(NULL, 0); /* one for the other */
	ck_assert_int_eq(ask(&q), OK);
	apply_docs();
	l[0].most = 0; /* fewer is always fine */
	three[0].value = bytes_of(NULL, 0);
	ck_assert_int_eq(ask(&q), OK);
	w.unsettled = true;
	ck_assert_int_eq(ask(&q), ERR_MORE);
}
END_TEST

static struct slice docs_request(void)
{
	static struct meta_limit limits[2];
	static struct meta_doc docs[3];
	struct meta_request q = {.kind = META_DOCS,
		.docs = docs,
		.doc_count = 3,
		.docs_none = bytes_text("none"),
		.limits = limits,
		.limit_count = 2};
	struct slice out;
	struct buf b;

	docs[0] = doc("one", "value");
	docs[0].only = DOC_SAME;
	docs[0].before = bytes_text("old");
	docs[1] = doc("two", NULL);
	docs[1].only = DOC_OLD;
	docs[2] = doc("three", "");
	limits[0] = (struct meta_limit){.of = LIMIT_DOCS,
		.prefix = bytes_text("t"),
		.what = bytes_text("things"),
		.most = 7};
	limits[1] = (struct meta_limit){.of = LIMIT_STREAMS, .most = INT64_MAX};
	buf_init(&b, 1 << 20);
	meta_request_encode(&q, &b);
	out = buf_share(&b);
	buf_fini(&b);
	return out;
}

START_TEST(requests_of_documents_come_back)
{
	struct slice bytes = docs_request();
	struct meta_request *q;

	ck_assert_int_eq(meta_request_decode(bytes.bytes, &q), OK);
	ck_assert_int_eq(q->doc_count, 3);
	ck_assert(bytes_equal(q->docs_none, bytes_text("none")));
	ck_assert(bytes_equal(q->docs[0].key, bytes_text("one")));
	ck_assert(bytes_equal(q->docs[0].value, bytes_text("value")));
	ck_assert(bytes_equal(q->docs[0].before, bytes_text("old")));
	ck_assert_int_eq(q->docs[0].only, DOC_SAME);
	ck_assert_ptr_null(q->docs[1].value.at);
	ck_assert_int_eq(q->docs[1].only, DOC_OLD);
	ck_assert_ptr_nonnull(q->docs[2].value.at);
	ck_assert_uint_eq(q->docs[2].value.len, 0);
	ck_assert_ptr_null(q->docs[2].before.at);
	ck_assert_int_eq(q->limit_count, 2);
	ck_assert_int_eq(q->limits[0].of, LIMIT_DOCS);
	ck_assert_int_eq(q->limits[0].most, 7);
	ck_assert(bytes_equal(q->limits[0].prefix, bytes_text("t")));
	ck_assert(bytes_equal(q->limits[0].what, bytes_text("things")));
	ck_assert_int_eq(q->limits[1].most, INT64_MAX);
	meta_request_free(q);
	slice_unref(&bytes);
}
END_TEST

START_TEST(short_and_changed_requests_of_documents_are_refused_or_harmless)
{
	struct slice bytes = docs_request();
	uint8_t *copy = malloc(bytes.bytes.len);
	struct meta_request *q;

	for (size_t len = 0; len < bytes.bytes.len; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, bytes.bytes.at, len);
		ck_assert_int_eq(meta_request_decode(bytes_of(exact, len), &q), ERR_MALFORMED);
		free(exact);
	}
	for (size_t i = 0; i < bytes.bytes.len; i++) {
		for (int v = 0; v < 256; v++) {
			memcpy(copy, bytes.bytes.at, bytes.bytes.len);
			copy[i] = (uint8_t)v;
			buf_clear(&w.reply);
			if (meta_request_decode(bytes_of(copy, bytes.bytes.len), &q) == OK) {
				bool docs = q->kind == META_DOCS;

				meta_request_free(q);
				if (docs)
					(void)meta_kind.evaluate(
						&w, bytes_of(copy, bytes.bytes.len));
			}
		}
	}
	free(copy);
	slice_unref(&bytes);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("meta_docs");
	Suite *s = suite_create("meta_docs");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, documents_come_change_and_go);
	tcase_add_test(tc, documents_have_conditions);
	tcase_add_test(tc, documents_that_left_memory_are_judged_by_the_model);
	tcase_add_test(tc, that_there_are_none_is_told_of_what_is_decided);
	tcase_add_test(tc, documents_are_bounded);
	tcase_add_test(tc, a_check_of_documents_changes_nothing);
	tcase_add_test(tc, there_are_no_more_documents_than_a_limit_says);
	tcase_add_test(tc, requests_of_documents_come_back);
	tcase_add_test(tc, short_and_changed_requests_of_documents_are_refused_or_harmless);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
