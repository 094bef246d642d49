#include <check.h>
#include <stdlib.h>
#include "cluster/consensus.h"
#include "cluster/raft_wire.h"
#include "server/base/mem.h"

static void setup(void)
{
	consensus_process_init();
}

enum { SAMPLES = 7 };
static struct raft_wire_entry entries[3];

static struct entry *entry_with(const char *text)
{
	struct slice s;
	ck_assert_int_eq(slice_copy(bytes_text(text), &s), OK);
	return entry_new(&s, 1);
}

static struct raft_configuration members(void)
{
	struct raft_configuration c;
	raft_configuration_init(&c);
	ck_assert_int_eq(raft_configuration_add(&c, 5, "a:1", RAFT_VOTER), 0);
	ck_assert_int_eq(raft_configuration_add(&c, 6, "b:1", RAFT_STANDBY), 0);
	return c;
}

static void sample_entries(void)
{
	struct raft_configuration conf = members();
	struct raft_buffer b;
	struct slice s;
	ck_assert_int_eq(raft_configuration_encode(&conf, &b), 0);
	ck_assert_int_eq(slice_copy(bytes_of(b.base, b.len), &s), OK);
	raft_free(b.base);
	raft_configuration_close(&conf);
	struct entry *e[3] = {entry_with("payload"), entry_new(&s, 1), NULL};
	for (int i = 0; i < 3; i++) {
		entries[i] = (struct raft_wire_entry){.from = e[i]};
		if (e[i])
			entries[i].head = e[i]->head;
		entries[i].head.term = 3;
		entries[i].head.max_ms = 1000;
	}
	entries[0].head.kind = ENTRY_DATA;
	entries[0].head.flags = ENTRY_HAS_ROWS | ENTRY_HAS_ORIGIN;
	entries[0].head.origin = (struct entry_origin){9, 8, 7};
	entries[0].head.base_offset = 40;
	entries[0].head.count = 2;
	entries[1].head.kind = ENTRY_CONFIG;
	entries[1].head.base_offset = 42;
	entries[2].head.kind = ENTRY_BARRIER;
	entries[2].head.base_offset = 42;
}

static struct raft_wire sample(int i)
{
	struct raft_wire w = {.group = 77,
		.from = 5,
		.to = 6,
		.clock_ms = 123,
		.address = bytes_text("host:7400")};
	w.message.type = (unsigned short)(i == SAMPLES - 1 ? RAFT_WIRE_MARK : i + 1);
	switch (w.message.type) {
	case RAFT_WIRE_MARK:
		w.message.append_entries = (struct raft_append_entries){
			.term = 3, .prev_log_index = 10, .prev_log_term = 2, .leader_commit = 10};
		break;
	case RAFT_IO_APPEND_ENTRIES:
		sample_entries();
		w.entries = entries;
		w.message.append_entries = (struct raft_append_entries){.term = 3,
			.prev_log_index = 10,
			.prev_log_term = 2,
			.leader_commit = 9,
			.n_entries = 3};
		break;
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		w.message.append_entries_result = (struct raft_append_entries_result){3, 11, 12};
		break;
	case RAFT_IO_REQUEST_VOTE:
		w.message.request_vote = (struct raft_request_vote){3, 5, 10, 2, true, false};
		break;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		w.message.request_vote_result = (struct raft_request_vote_result){
			3, true, raft_tribool_false};
		break;
	case RAFT_IO_INSTALL_SNAPSHOT:
		w.message.install_snapshot = (struct raft_install_snapshot){.term = 3,
			.last_index = 10,
			.last_term = 2,
			.conf_index = 4,
			.conf = members()};
		w.message.install_snapshot.data = (struct raft_buffer){raft_calloc(1, 8), 8};
		break;
	default: w.message.timeout_now = (struct raft_timeout_now){3, 10, 2}; break;
	}
	return w;
}

static size_t encode(const struct raft_wire *w, uint8_t *out, size_t room)
{
	struct slice *parts;
	int count;
	size_t at = 0;
	ck_assert_int_eq(raft_wire_encode(w, &parts, &count), OK);
	for (int i = 0; i < count; i++) {
		ck_assert_uint_le(at + parts[i].bytes.len, room);
		memcpy(out + at, parts[i].bytes.at, parts[i].bytes.len);
		at += parts[i].bytes.len;
		slice_unref(&parts[i]);
	}
	mem_free(parts);
	return at;
}

static enum err decode(const uint8_t *at, size_t len, struct raft_wire *out)
{
	struct slice frame;
	ck_assert_int_eq(slice_copy(bytes_of(at, len), &frame), OK); /* its own chunk: exact size */
	enum err e = raft_wire_decode(frame, out);
	slice_unref(&frame);
	return e;
}

START_TEST(what_is_said_is_heard)
{
	uint8_t a[1024], b[1024];
	struct raft_wire w = sample(_i), got;
	size_t len = encode(&w, a, sizeof a);
	ck_assert_int_eq(decode(a, len, &got), OK);
	ck_assert_uint_eq(got.group, 77);
	ck_assert_uint_eq(got.from, 5);
	ck_assert_uint_eq(got.to, 6);
	ck_assert_uint_eq(got.clock_ms, 123);
	ck_assert(bytes_equal(got.address, bytes_text("host:7400")));
	ck_assert_uint_eq(got.message.type, w.message.type);
	for (unsigned i = 0; got.entries && i < 3; i++) { /* say it again from what was heard */
		got.entries[i].from = w.entries[i].from;
		if (w.entries[i].from)
			ck_assert(bytes_equal(
				got.entries[i].payload.bytes, w.entries[i].from->parts[0].bytes));
	}
	ck_assert_uint_eq(encode(&got, b, sizeof b), len);
	ck_assert_mem_eq(a, b, len);
	raft_wire_fini(&got);
}
END_TEST

START_TEST(entries_arrive_whole)
{
	uint8_t a[1024];
	struct raft_wire w = sample(0), got;
	size_t len = encode(&w, a, sizeof a);
	ck_assert_int_eq(decode(a, len, &got), OK);
	const struct raft_append_entries *m = &got.message.append_entries;
	ck_assert_uint_eq(m->n_entries, 3);
	ck_assert_uint_eq(m->prev_log_index, 10);
	ck_assert_uint_eq(m->leader_commit, 9);
	const struct entry_header *h = &got.entries[0].head;
	ck_assert_uint_eq(h->term, 3);
	ck_assert_int_eq(h->base_offset, 40);
	ck_assert_uint_eq(h->count, 2);
	ck_assert_int_eq(h->max_ms, 1000);
	ck_assert_uint_eq(h->origin.cluster, 9);
	ck_assert_int_eq(h->origin.offset, 7);
	ck_assert_uint_eq(h->flags, ENTRY_HAS_ROWS | ENTRY_HAS_ORIGIN);
	ck_assert_ptr_eq(got.entries[0].payload.chunk, got.frame.chunk); /* not copied */
	raft_wire_fini(&got);
}
END_TEST

/* The bytes themselves: they are read by other versions. */
START_TEST(golden_request_vote)
{
	static const uint8_t want[] = {1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 5,
		0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 123, 0, 9, 'h', 'o', 's', 't', ':',
		'7', '4', '0', '0', 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0,
		0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0};
	uint8_t a[256];
	struct raft_wire w = sample(RAFT_IO_REQUEST_VOTE - 1);
	ck_assert_uint_eq(encode(&w, a, sizeof a), sizeof want);
	ck_assert_mem_eq(a, want, sizeof want);
}
END_TEST

START_TEST(golden_append_entries)
{
	uint8_t a[1024];
	struct raft_wire w = sample(0);
	w.message.append_entries.n_entries = 1;
	size_t len = encode(&w, a, sizeof a);
	ck_assert_uint_eq(len, 38 + 9 + 36 + 48 + 20 + 7);
	static const uint8_t entry[] = {0, 0, 0, 0, 0, 0, 0, 3, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 7};
	ck_assert_mem_eq(a + 38 + 9 + 36, entry, sizeof entry);
	ck_assert_mem_eq(a + len - 7, "payload", 7);
}
END_TEST

START_TEST(golden_mark)
{
	static const uint8_t body[] = {
		0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 2};
	uint8_t a[256];
	struct raft_wire w = sample(SAMPLES - 1), got;
	ck_assert_uint_eq(encode(&w, a, sizeof a), 38 + 9 + sizeof body);
	ck_assert_uint_eq(a[1], 64);
	ck_assert_mem_eq(a + 38 + 9, body, sizeof body);
	ck_assert_int_eq(decode(a, 38 + 9 + sizeof body, &got), OK);
	ck_assert_uint_eq(got.message.append_entries.prev_log_index, 10);
	ck_assert_uint_eq(got.message.append_entries.leader_commit, 10);
	raft_wire_fini(&got);
}
END_TEST

/* A term that could not be followed by another would end the process that takes it over. */
START_TEST(terms_are_bounded)
{
	uint8_t a[1024];
	struct raft_wire w = sample(_i), got;
	size_t len = encode(&w, a, sizeof a);
	memset(a + 38 + 9, 0xff, 8);
	ck_assert_int_eq(decode(a, len, &got), ERR_MALFORMED);
}
END_TEST

START_TEST(a_message_without_payloads_is_one_part)
{
	uint8_t a[1024];
	struct raft_wire w = sample(_i);
	struct slice one;
	size_t len = encode(&w, a, sizeof a);
	bool whole = raft_wire_encode_head(&w, &one);
	ck_assert_int_eq(whole, _i != 0);
	if (!whole)
		return;
	ck_assert_uint_eq(one.bytes.len, len);
	ck_assert_mem_eq(one.bytes.at, a, len);
	slice_unref(&one);
}
END_TEST

START_TEST(refuses_every_prefix)
{
	uint8_t a[1024];
	struct raft_wire w = sample(_i), got;
	size_t len = encode(&w, a, sizeof a);
	for (size_t n = 0; n < len; n++)
		ck_assert_int_ne(decode(a, n, &got), OK);
	a[len] = 0;
	ck_assert_int_ne(decode(a, len + 1, &got), OK);
}
END_TEST

/* Every byte changed in several ways: never a crash; a payload's change is always noticed. */
START_TEST(survives_mutations)
{
	uint8_t a[1024], b[1024];
	struct raft_wire w = sample(_i), got;
	size_t len = encode(&w, a, sizeof a);
	static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x7f, 0x10};
	for (size_t at = 0; at < len; at++)
		for (size_t k = 0; k < sizeof flips; k++) {
			memcpy(b, a, len);
			b[at] ^= flips[k];
			enum err e = decode(b, len, &got);
			if (_i == 0 && at >= 38 + 9 + 36 + 3 * 48 + 20)
				ck_assert_int_eq(e, ERR_CORRUPT);
			if (at == 0)
				ck_assert_int_eq(e, ERR_UNSUPPORTED);
			if (e == OK)
				raft_wire_fini(&got);
		}
}
END_TEST

/* Entries whose offsets do not chain, or whose terms fall, never reach the core. */
START_TEST(refuses_broken_chains)
{
	uint8_t a[1024];
	struct raft_wire w = sample(0), got;
	entries[1].head.base_offset++;
	ck_assert_int_eq(decode(a, encode(&w, a, sizeof a), &got), ERR_MALFORMED);
	w = sample(0);
	entries[2].head.term = 2;
	ck_assert_int_eq(decode(a, encode(&w, a, sizeof a), &got), ERR_MALFORMED);
	w = sample(0);
	entries[2].head.term = 4; /* above the message's */
	ck_assert_int_eq(decode(a, encode(&w, a, sizeof a), &got), ERR_MALFORMED);
	w = sample(0);
	entries[2].head.count = 1; /* a barrier with a record */
	ck_assert_int_eq(decode(a, encode(&w, a, sizeof a), &got), ERR_MALFORMED);
	w = sample(0);
	entries[0].head.base_offset = INT64_MAX; /* nothing comes after it (for the sanitizer) */
	ck_assert_int_eq(decode(a, encode(&w, a, sizeof a), &got), ERR_MALFORMED);
}
END_TEST

START_TEST(configurations_are_checked)
{
	static const uint8_t two_same[] = {1, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 'a',
		0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 'b', 0, 1, 0};
	static const uint8_t many[] = {
		1, 255, 255, 255, 255, 255, 255, 255, 255, 5, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 1};
	static const uint8_t role[] = {
		1, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 9};
	static const uint8_t good[] = {
		1, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 1, 0, 0, 0, 0};
	struct raft_configuration c;
	ck_assert_int_eq(
		raft_config_decode(bytes_of(two_same, sizeof two_same), &c), ERR_MALFORMED);
	ck_assert_int_eq(raft_config_decode(bytes_of(many, sizeof many), &c), ERR_MALFORMED);
	ck_assert_int_eq(raft_config_decode(bytes_of(role, sizeof role), &c), ERR_MALFORMED);
	for (size_t n = 0; n < 20; n++)
		ck_assert_int_eq(raft_config_decode(bytes_of(good, n), &c), ERR_MALFORMED);
	ck_assert_int_eq(raft_config_decode(bytes_of(good, sizeof good), &c), OK);
	ck_assert_uint_eq(c.n, 1);
	ck_assert_uint_eq(c.servers[0].id, 5);
	ck_assert_int_eq(c.servers[0].role, RAFT_VOTER);
	raft_configuration_close(&c);
}
END_TEST

START_TEST(survives_failed_allocations)
{
	uint8_t a[1024];
	struct raft_wire w = sample(0), got;
	size_t len = encode(&w, a, sizeof a);
	struct slice frame, *parts;
	int count;
	ck_assert_int_eq(slice_copy(bytes_of(a, len), &frame), OK);
	mem_fail_at(0);
	ck_assert_int_eq(raft_wire_decode(frame, &got), ERR_NOMEM);
	for (int i = 0; i < 2; i++) {
		mem_fail_at(i);
		ck_assert_int_eq(raft_wire_encode(&w, &parts, &count), ERR_NOMEM);
	}
	mem_fail_at(-1);
	slice_unref(&frame);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("raft_wire");
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, what_is_said_is_heard, 0, SAMPLES);
	tcase_add_test(tc, entries_arrive_whole);
	tcase_add_test(tc, golden_request_vote);
	tcase_add_test(tc, golden_append_entries);
	tcase_add_test(tc, golden_mark);
	tcase_add_loop_test(tc, terms_are_bounded, 0, SAMPLES);
	tcase_add_loop_test(tc, a_message_without_payloads_is_one_part, 0, SAMPLES);
	tcase_add_loop_test(tc, refuses_every_prefix, 0, SAMPLES);
	tcase_add_loop_test(tc, survives_mutations, 0, SAMPLES);
	tcase_add_test(tc, refuses_broken_chains);
	tcase_add_test(tc, configurations_are_checked);
	tcase_add_test(tc, survives_failed_allocations);
	Suite *s = suite_create("raft_wire");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* Samples are left to the end of the process. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
