#include "tests/unit/cluster/partition_world.h"
#include <stdio.h>
#include <unistd.h>
#include "cluster/rows_priv.h"
#include "server/base/clock.h"

enum { KS = 20 };

static struct world W;
static struct partition *P;

static void start(void)
{
	world_start(&W);
	P = world_open(&W, 1, 1024);
	loops_run(W.loops);
}

static void restart(bool crash)
{
	world_close(&W, P, false, crash);
	world_stop(&W);
	start();
}

static void setup(void)
{
	static bool registered;

	if (!registered)
		metric_register(&node_metrics);
	registered = true;
	memset(&W, 0, sizeof W);
	ck_assert_int_eq(store_open_mem(7, &W.store), OK);
	start();
}

static void teardown(void)
{
	world_close(&W, P, false, false);
	world_stop(&W);
	store_close(W.store);
}

/* --- counters: the outcome depends on what is pending --- */

struct count {
	struct proposal q;
	uint64_t seen;
};

static enum err count_up(struct eval *v, struct bytes args)
{
	uint64_t seen;
	struct bytes value;
	uint8_t next[8];
	enum err e = eval_get(v, KS, bytes_text("counter"), &value);

	(void)args;
	if (e != OK && e != ERR_NOTFOUND)
		return e;
	seen = e == OK ? get_u64be(value.at) : 0;
	put_u64be(next, seen + 1);
	eval_put(v, KS, bytes_text("counter"), bytes_of(next, sizeof next));
	buf_add_u64be(eval_reply(v), seen);
	return OK;
}
static const struct proposal_kind count_kind = {60, count_up};

/* --- many proposals from three loops --- */

enum { EACH = 400 };

struct sender {
	struct count at[EACH];
	int loop, answered;
	int64_t last_offset;
	bool bad;
};
static struct sender senders[WORLD_LOOPS];

static void sender_done(struct proposal *q)
{
	struct sender *s = &senders[loop_index(loop_here())];
	struct count *c = list_entry(q, struct count, q);

	if (q->err != OK || c != &s->at[s->answered] || q->base_offset <= s->last_offset ||
		q->reply.bytes.len != 8)
		s->bad = true;
	else
		c->seen = get_u64be(q->reply.bytes.at);
	s->last_offset = q->base_offset;
	if (++s->answered == EACH)
		sem_post(&W.done);
}

static void sender_run(void *arg)
{
	struct sender *s = arg;

	s->last_offset = -1;
	for (int i = 0; i < EACH; i++) {
		struct proposal *q = &s->at[i].q;

		*q = (struct proposal){.to = P, .kind = &count_kind, .done = sender_done};
		world_batch_into(q, 1 + i % 3, 100, 1000);
		partition_propose(q);
	}
}

START_TEST(proposals_of_three_loops_are_dense_and_ordered)
{
	struct world_read r = {.r = {.from = P, .bytes_max = 1 << 20}};
	static bool seen[WORLD_LOOPS * EACH];
	int64_t next = 0;

	memset(senders, 0, sizeof senders);
	for (int i = 0; i < WORLD_LOOPS; i++)
		loop_call(loops_at(W.loops, i), sender_run, &senders[i]);
	for (int i = 0; i < WORLD_LOOPS; i++)
		sem_wait(&W.done);
	memset(seen, 0, sizeof seen);
	for (int i = 0; i < WORLD_LOOPS; i++) {
		ck_assert(!senders[i].bad);
		for (int k = 0; k < EACH; k++) { /* the counter was seen at each value once */
			uint64_t n = senders[i].at[k].seen;

			ck_assert_uint_lt(n, WORLD_LOOPS * EACH);
			ck_assert(!seen[n]);
			seen[n] = true;
		}
	}
	while (next < partition_high_watermark(P)) {
		r.r.offset = next;
		ck_assert_int_eq(world_read(&W, 2, &r), OK);
		ck_assert_int_gt(r.r.count, 0);
		for (int i = 0; i < r.r.count; i++) {
			struct change_batches b;
			struct batch batch;
			const struct slice *holder;

			ck_assert_int_eq(r.r.entries[i]->head.base_offset, next);
			change_batches_init(&b, r.r.entries[i]);
			while (change_batches_next(&b, &batch, &holder) == OK) {
				ck_assert_int_eq(batch.base_offset, next);
				ck_assert_int_eq(batch.leader_epoch, partition_epoch(P));
				ck_assert_int_eq(batch_check(&batch, 1 << 20), OK);
				next += batch.count;
			}
		}
		record_read_fini(&r.r);
	}
	ck_assert_int_eq(next, WORLD_LOOPS * (134 * 1 + 133 * 2 + 133 * 3));
}
END_TEST

static struct proposal large[40];
static int large_done;

static void large_answer(struct proposal *q)
{
	ck_assert_int_eq(q->err, OK);
	ck_assert_ptr_eq(q, &large[large_done]);
	if (++large_done == 40)
		sem_post(&W.done);
}

static void large_run(void *arg)
{
	(void)arg;
	large_done = 0;
	for (int i = 0; i < 40; i++) {
		large[i] = (struct proposal){.to = P, .done = large_answer};
		world_batch_into(&large[i], 1, i % 10 == 9 ? 400000 : 60000, 1000);
		partition_propose(&large[i]);
	}
}

START_TEST(entries_hold_256_kb_or_one_larger_batch)
{
	struct world_read r = {.r = {.from = P, .bytes_max = 16 << 20}};

	for (int round = 0; round < 5; round++)
		world_call(&W, round % WORLD_LOOPS, large_run, NULL);
	ck_assert_int_eq(partition_high_watermark(P), 200);
	r.r.offset = 100;
	ck_assert_int_eq(world_read(&W, 0, &r), OK);
	ck_assert_int_gt(r.r.count, 1);
	for (int i = 0; i < r.r.count; i++) {
		const struct entry_header *h = &r.r.entries[i]->head;

		ck_assert(h->payload_bytes <= (256 << 10) + CHANGE_HEADER_BYTES || h->count == 1);
		ck_assert_uint_ge(h->count, 1);
	}
	record_read_fini(&r.r);
}
END_TEST

static int busy_count;

static void busy_answer(struct proposal *q)
{
	ck_assert(q->err == OK || q->err == ERR_BUSY);
	busy_count += q->err == ERR_BUSY;
	if (++large_done == 20)
		sem_post(&W.done);
}

static void busy_run(void *arg)
{
	(void)arg;
	large_done = busy_count = 0;
	for (int i = 0; i < 20; i++) {
		large[i] = (struct proposal){.to = P, .done = busy_answer};
		world_batch_into(&large[i], 1, 200000, 1000);
		partition_propose(&large[i]);
	}
}

START_TEST(too_much_in_flight_is_refused)
{
	W.limits.inflight_bytes_max = 1 << 20;
	restart(false);
	struct world_ask a = {.q = {.to = P}};

	world_batch_into(&a.q, 1, 3 << 20, 5); /* alone, a larger one passes */
	ck_assert_int_eq(world_ask(&W, 0, &a), OK);
	ck_assert_uint_eq(P->held_bytes, 0);
	world_call(&W, 1, busy_run, NULL);
	ck_assert_int_ge(busy_count, 10);
	ck_assert_int_le(busy_count, 16);
	ck_assert_int_eq(partition_high_watermark(P), 1 + 20 - busy_count);
	ck_assert_uint_eq(P->held_bytes, 0);
	W.limits.inflight_bytes_max = 0;
}
END_TEST

/* --- conditions --- */

static enum err only_once(struct eval *v, struct bytes args)
{
	struct bytes value;
	enum err e = eval_get(v, KS, bytes_text("zz/once"), &value);

	buf_add_text(eval_reply(v), e == OK ? "there" : "");
	ck_assert(bytes_equal(args, bytes_text("once")));
	if (e == OK)
		return ERR_EXISTS;
	if (e != ERR_NOTFOUND)
		return e;
	eval_put(v, KS, bytes_text("zz/once"), bytes_text("x"));
	eval_put(v, KS, bytes_text("zz/twice"), bytes_text("y"));
	return OK;
}
static const struct proposal_kind once_kind = {61, only_once};
#define ONCE .to = P, .kind = &once_kind, .args = bytes_text("once")

static struct proposal pair[2];
static int pair_done;
static bool pair_ordered;
static char pair_reply[2][16];

static void pair_answer(struct proposal *q)
{
	pair_ordered = pair_ordered && q == &pair[pair_done];
	snprintf(pair_reply[pair_done], sizeof pair_reply[0], "%.*s", (int)q->reply.bytes.len,
		q->reply.bytes.len > 0 ? (const char *)q->reply.bytes.at : "");
	if (++pair_done == 2)
		sem_post(&W.done);
}

static void pair_run(void *arg)
{
	(void)arg;
	pair_done = 0;
	pair_ordered = true;
	for (int i = 0; i < 2; i++) {
		pair[i] = (struct proposal){ONCE, .done = pair_answer};
		partition_propose(&pair[i]);
	}
}

START_TEST(negative_answer_waits_for_what_it_relied_on)
{
	world_call(&W, 0, pair_run, NULL);
	ck_assert(pair_ordered);
	ck_assert_int_eq(pair[0].err, OK);
	ck_assert_int_eq(pair[1].err, ERR_EXISTS);
	ck_assert_uint_eq(pair[1].index, pair[0].index);
	ck_assert_str_eq(pair_reply[0], "");
	ck_assert_str_eq(pair_reply[1], "there"); /* a refusal tells, too */
}
END_TEST

static enum err put_then_fail(struct eval *v, struct bytes args)
{
	struct bytes value;

	(void)args;
	eval_put(v, KS, bytes_text("ghost"), bytes_text("boo"));
	if (eval_get(v, KS, bytes_text("ghost"), &value) != OK || value.len != 3)
		return ERR_CORRUPT; /* its own writes are seen */
	return ERR_CONFLICT;
}
static const struct proposal_kind fail_kind = {62, put_then_fail};

START_TEST(refused_proposal_leaves_nothing)
{
	struct world_ask a = {.q = {.to = P, .kind = &fail_kind}};
	struct world_row r = {.r = {.from = P, .keyspace = KS, .key = bytes_text("ghost")}};

	world_batch_into(&a.q, 3, 10, 5);
	ck_assert_int_eq(world_ask(&W, 2, &a), ERR_CONFLICT);
	ck_assert_int_eq(world_row(&W, 0, &r), ERR_NOTFOUND);
	r.r.linearizable = true;
	ck_assert_int_eq(world_row(&W, 0, &r), ERR_NOTFOUND);
	ck_assert_int_eq(partition_high_watermark(P), 0);
}
END_TEST

static enum err duplicate(struct eval *v, struct bytes args)
{
	struct batch b;

	ck_assert_uint_eq(args.len, 0);
	ck_assert_int_eq(batch_read(eval_batch(v), &b), OK);
	ck_assert_int_eq(b.count, 3);
	eval_duplicate(v, 77);
	return OK;
}
static const struct proposal_kind duplicate_kind = {62, duplicate};

START_TEST(duplicate_is_answered_with_its_own_offset)
{
	struct world_ask a = {.q = {.to = P, .kind = &duplicate_kind}};

	world_batch_into(&a.q, 3, 10, 5);
	ck_assert_int_eq(world_ask(&W, 2, &a), OK);
	ck_assert_int_eq(a.q.base_offset, 77);
	ck_assert_int_eq(partition_high_watermark(P), 0);
}
END_TEST

/* --- rows: memory, store, restart --- */

static int put_from, put_count;
static uint32_t put_salt;

static struct bytes row_key(int i, char *out)
{
	return bytes_of(out, (size_t)snprintf(out, 32, "row/%06d", i));
}

static struct bytes row_value(int i, uint32_t salt, char *out)
{
	return bytes_of(out, (size_t)snprintf(out, 200, "%d-%u-%0100d", i, salt, i));
}

static enum err put_rows(struct eval *v, struct bytes args)
{
	char key[32], value[200];

	(void)args;
	for (int i = put_from; i < put_from + put_count; i++) {
		if (put_salt == 0)
			eval_delete(v, KS, row_key(i, key));
		else
			eval_put(v, KS, row_key(i, key), row_value(i, put_salt, value));
	}
	return OK;
}

static const struct proposal_kind put_kind = {63, put_rows};

static void put(int from, int count, uint32_t salt)
{
	struct world_ask a = {.q = {.to = P, .kind = &put_kind}};

	put_from = from;
	put_count = count;
	put_salt = salt;
	ck_assert_int_eq(world_ask(&W, 0, &a), OK);
}

static void expect_row(int i, uint32_t salt)
{
	char key[32], value[200];
	struct world_row r = {.r = {.from = P, .keyspace = KS, .key = row_key(i, key)}};
	enum err e = world_row(&W, i % WORLD_LOOPS, &r);

	ck_assert_int_eq(e, salt == 0 ? ERR_NOTFOUND : OK);
	if (e == OK) {
		ck_assert_int_eq(r.r.count, 1);
		ck_assert(bytes_equal(r.r.rows[0].value, row_value(i, salt, value)));
	}
	row_read_fini(&r.r);
}

START_TEST(rows_survive_eviction_and_restart)
{
	enum { N = 6000 };
	uint64_t reads;

	for (int i = 0; i < N; i += 500)
		put(i, 500, 1);
	put(100, 50, 0);
	restart(false);
	ck_assert(!P->rows->complete);
	reads = store_reads(W.store, FAMILY_ROWS);
	for (int i = 0; i < N; i += 61)
		expect_row(i, i >= 100 && i < 150 ? 0 : 1);
	ck_assert_uint_gt(store_reads(W.store, FAMILY_ROWS), reads);
	put(1000, 100, 2); /* over rows that are not in memory */
	restart(true);     /* and were not written back: the log has them */
	for (int i = 900; i < 1200; i += 7)
		expect_row(i, i >= 1000 && i < 1100 ? 2 : 1);
}
END_TEST

START_TEST(evaluation_fetches_rows_from_the_store)
{
	enum { N = 3000 };
	struct world_ask a = {.q = {ONCE}};

	ck_assert_int_eq(world_ask(&W, 0, &a), OK);
	for (int i = 0; i < N; i += 500)
		put(i, 500, 1);
	restart(false);
	ck_assert(!P->rows->complete);
	a = (struct world_ask){.q = {ONCE}};
	ck_assert_int_eq(world_ask(&W, 0, &a), ERR_EXISTS);
	world_call(&W, 0, pair_run, NULL); /* in memory now */
	ck_assert_int_eq(pair[0].err, ERR_EXISTS);
	ck_assert_int_gt(metric_sum(&node_metrics, M_ROW_FETCHES), 0);
}
END_TEST

START_TEST(scan_merges_store_and_memory)
{
	enum { N = 3000 };
	struct world_row r = {.r = {.from = P,
				      .keyspace = KS,
				      .prefix = true,
				      .key = bytes_text("row/"),
				      .rows_max = 700}};
	char key[32], last[32], value[200];
	int at = 0;

	for (int i = 0; i < N; i += 500)
		put(i, 500, 1);
	restart(false);
	r.r.from = P;
	put(10, 10, 2);
	put(500, 100, 0);
	do {
		ck_assert_int_eq(world_row(&W, 2, &r), OK);
		for (int i = 0; i < r.r.count; i++, at++) {
			at += at == 500 ? 100 : 0;
			ck_assert(bytes_equal(r.r.rows[i].key, row_key(at, key)));
			ck_assert(bytes_equal(r.r.rows[i].value,
				row_value(at, at >= 10 && at < 20 ? 2 : 1, value)));
		}
		r.r.after = row_key(at - 1, last);
		row_read_fini(&r.r);
	} while (r.r.more);
	ck_assert_int_eq(at, N);
}
END_TEST

/* A writer moves a pair of rows from one value to the next, in one change; scans that race with
 * its write-backs see both or neither. */
static _Atomic int mover_stop;
static struct proposal mover;
static uint32_t mover_salt;

static enum err move_rows(struct eval *v, struct bytes args)
{
	char value[200];

	(void)args;
	mover_salt++;
	eval_put(v, KS, bytes_text("pair/a"), row_value(1, mover_salt, value));
	eval_put(v, KS, bytes_text("pair/z"), row_value(1, mover_salt, value));
	return OK;
}

static const struct proposal_kind move_kind = {63, move_rows};

static void mover_run(void *arg)
{
	(void)arg;
	mover = (struct proposal){.to = P, .kind = &move_kind, .done = mover.done};
	partition_propose(&mover);
}

static void moved(struct proposal *q)
{
	(void)q;
	if (mover_stop)
		sem_post(&W.done);
	else
		mover_run(NULL);
}

START_TEST(scan_is_of_one_moment)
{
	struct world_row r = {
		.r = {.from = P, .keyspace = KS, .prefix = true, .key = bytes_text("pair/")}};
	int two = 0;

	for (int i = 0; i < 3000; i += 500)
		put(i, 500, 1);
	restart(false);
	r.r.from = P;
	mover.done = moved;
	mover_stop = 0;
	loop_call(loops_at(W.loops, 1), mover_run, NULL);
	for (int i = 0; i < 1500; i++) {
		ck_assert_int_eq(world_row(&W, i % WORLD_LOOPS, &r), OK);
		ck_assert(r.r.count == 0 || r.r.count == 2);
		if (r.r.count == 2)
			ck_assert(bytes_equal(r.r.rows[0].value, r.r.rows[1].value));
		two += r.r.count == 2;
		row_read_fini(&r.r);
	}
	mover_stop = 1;
	sem_wait(&W.done);
	ck_assert_int_gt(two, 1000);
	ck_assert_int_gt(metric_sum(&node_metrics, M_WRITE_BACKS), 5);
}
END_TEST

/* Random rows against a model, over restarts with and without a clean end. */
START_TEST(rows_equal_a_model_over_crashes)
{
	enum { KEYS = 60 };
	uint32_t model[KEYS] = {0};

	srandom(11);
	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 150; i++) {
			int from = (int)(random() % KEYS), count = (int)(random() % 5);
			uint32_t salt = (uint32_t)(random() % 4);

			count = from + count > KEYS ? KEYS - from : count;
			put(from, count, salt);
			for (int k = from; k < from + count; k++)
				model[k] = salt;
		}
		restart(round % 2 == 0);
		for (int k = 0; k < KEYS; k++)
			expect_row(k, model[k]);
	}
}
END_TEST

/* --- trim, retention, waits, seeks --- */

static void publish(int records, size_t bytes, int64_t ms)
{
	struct world_ask a = {.q = {.to = P}};

	world_batch_into(&a.q, records, bytes, ms);
	ck_assert_int_eq(world_ask(&W, 0, &a), OK);
}

static void trim_run(void *arg)
{
	struct world_ask *a = arg;

	a->q.done = world_asked;
	partition_trim(&a->q, a->q.base_offset);
}

static enum err trim(int64_t offset, int64_t *low)
{
	struct world_ask a = {.q = {.to = P, .base_offset = offset}, .w = &W};

	world_call(&W, 2, trim_run, &a);
	*low = a.q.base_offset;
	return a.q.err;
}

START_TEST(trim_moves_the_first_offset_for_good)
{
	struct world_read r = {.r = {.from = P, .bytes_max = 100}};
	int64_t low;

	for (int i = 0; i < 10; i++)
		publish(10, 100, 1000);
	ck_assert_int_eq(trim(55, &low), OK);
	ck_assert_int_eq(low, 55);
	ck_assert_int_eq(partition_first_offset(P), 55);
	ck_assert_int_eq(trim(20, &low), OK); /* nothing to do */
	ck_assert_int_eq(low, 55);
	ck_assert_int_eq(trim(101, &low), ERR_RANGE);
	r.r.offset = 54;
	ck_assert_int_eq(world_read(&W, 0, &r), ERR_RANGE);
	r.r.offset = 55;
	ck_assert_int_eq(world_read(&W, 0, &r), OK);
	ck_assert_int_eq(r.r.entries[0]->head.base_offset, 50);
	record_read_fini(&r.r);
	restart(true);
	ck_assert_int_eq(partition_first_offset(P), 55);
	ck_assert_int_eq(partition_high_watermark(P), 100);
	ck_assert_int_eq(trim(-1, &low), OK);
	ck_assert_int_eq(low, 100);
}
END_TEST

static void tick_trim(void *arg)
{
	P->retain_at_ms = 0;
	*(uint64_t *)arg = plog_marks(P->log)->first_index;
	sem_post(&W.done);
}
START_TEST(rows_alone_leave_the_log)
{
	uint64_t first = 0;
	int n = 0;
	for (; n < 1500; n++)
		put(n % 50, 1, 1 + (uint32_t)n);
	/* What is let go of is looked at when something comes. */
	for (int i = 0; i < 2000 && first <= 900; i++, n++) {
		put(n % 50, 1, 1 + (uint32_t)n);
		world_call(&W, 1, tick_trim, &first);
		usleep(10000);
	}
	ck_assert_uint_gt(first, 900);
	restart(true);
	for (int i = 0; i < 50; i++)
		expect_row(i, (uint32_t)(n - (n - 1 - i) % 50));
}
END_TEST
static void retain_run(void *arg)
{
	(void)arg;
	partition_set_retention(P, -1, 2500);
	P->retain_at_ms = 0;
	sem_post(&W.done);
}

static struct partition *younger;

static void younger_created(void *arg, enum err e)
{
	(void)arg;
	W.err = e;
	sem_post(&W.done);
}
static void younger_create(void *arg)
{
	(void)arg;
	younger = world_partition(&W, 1, 1025);
	partition_create(younger, younger_created, NULL);
}

/* A partition that comes when rounds of ticks have been made is ticked, and all others go on. */
START_TEST(ticks_go_on_when_a_partition_comes)
{
	usleep(200000);
	world_call(&W, 1, younger_create, NULL);
	ck_assert_int_eq(W.err, OK);
	for (int i = 0; i < 10; i++)
		publish(10, 100, 1000);
	world_call(&W, 1, retain_run, NULL);
	for (int i = 0; i < 2000 && partition_first_offset(P) == 0; i++)
		usleep(10000);
	ck_assert_int_gt(partition_first_offset(P), 50);
	world_close(&W, younger, true, false);
}
END_TEST

static void keep_index(void *arg)
{
	*(uint64_t *)arg = plog_last_index(P->log) + 1 - consensus_keep_index(P->consensus);
	sem_post(&W.done);
}

/* Large entries are not kept by the hundred for Raft's sake: trim could not give them back. */
START_TEST(large_entries_can_be_trimmed_soon)
{
	uint64_t kept = 0;
	for (int i = 0; i < 60; i++)
		publish(1, 1 << 20, 1000);
	for (int i = 0; i < 2000; i++) {
		world_call(&W, 1, keep_index, &kept);
		if (kept <= 17)
			break;
		usleep(10000);
	}
	ck_assert_uint_le(kept, 17);
	restart(true);
	ck_assert_int_eq(partition_high_watermark(P), 60);
	publish(1, 100, 1000);
}
END_TEST

START_TEST(retention_trims_by_bytes)
{
	for (int i = 0; i < 10; i++)
		publish(10, 100, 1000);
	world_call(&W, 1, retain_run, NULL);
	for (int i = 0; i < 2000 && partition_first_offset(P) == 0; i++)
		usleep(10000);
	ck_assert_int_gt(partition_first_offset(P), 50);
	ck_assert_int_lt(partition_first_offset(P), 100);
	ck_assert_int_eq(partition_first_offset(P) % 10, 0);
}
END_TEST

static int64_t past_us(void)
{
	return 1000000000000; /* in 1970 */
}

/* The clock of the machine was ahead and is right again, or the other way round: what is written
 * later is still younger, or retention by age would look at the wrong entries. */
START_TEST(hybrid_time_never_falls)
{
	struct world_read r = {.r = {.from = P, .bytes_max = 1 << 20}};
	int64_t before = 0;

	publish(1, 100, 1000);
	clock_replace(NULL, past_us);
	restart(_i == 1);
	publish(1, 100, 1000);
	publish(1, 100, 1000);
	clock_replace(NULL, NULL);
	r.r.from = P;
	for (r.r.offset = 0; r.r.offset < 3; record_read_fini(&r.r)) {
		ck_assert_int_eq(world_read(&W, 2, &r), OK);
		ck_assert_int_gt(r.r.count, 0);
		for (int i = 0; i < r.r.count; i++) {
			ck_assert_int_gt(r.r.entries[i]->head.hlc, before);
			before = r.r.entries[i]->head.hlc;
			r.r.offset = entry_next_offset(&r.r.entries[i]->head);
		}
	}
}
END_TEST

static struct partition_wait waiter;
static int64_t wait_offset;
static sem_t waits; /* not W.done: another answer may come at the same time */

static void waited(struct partition_wait *w)
{
	ck_assert(!w->armed);
	sem_post(&waits);
}
static void wait_run(void *arg)
{
	(void)arg;
	waiter = (struct partition_wait){.at = P, .offset = wait_offset, .done = waited};
	partition_wait(&waiter);
}
static void cancel_run(void *arg)
{
	(void)arg;
	partition_wait_cancel(&waiter);
}
static void wait_cancel_run(void *arg)
{
	wait_run(arg);
	cancel_run(arg);
}

START_TEST(waits_end_once_the_log_has_grown_or_are_cancelled)
{
	int value;

	sem_init(&waits, 0, 0);
	wait_offset = 5;
	publish(5, 10, 0);
	loop_call(loops_at(W.loops, 0), wait_run, NULL);
	usleep(20000);
	sem_getvalue(&waits, &value);
	ck_assert_int_eq(value, 0);
	publish(1, 10, 0);
	sem_wait(&waits);
	loop_call(loops_at(W.loops, 2), wait_run, NULL); /* fulfilled already */
	sem_wait(&waits);
	for (int i = 0; i < 50; i++) { /* half of them would never end by themselves */
		wait_offset = i % 2 ? 5 : 500;
		loop_call(loops_at(W.loops, i % WORLD_LOOPS), wait_cancel_run, NULL);
		sem_wait(&waits);
	}
	usleep(20000);
	sem_getvalue(&waits, &value);
	ck_assert_int_eq(value, 0);
}
END_TEST

static void sought(struct offset_seek *s)
{
	(void)s;
	sem_post(&W.done);
}
static void seek_run(void *arg)
{
	struct offset_seek *s = arg;

	s->from = P;
	s->done = sought;
	partition_seek(s);
}

START_TEST(seeks_by_time_and_epoch)
{
	struct offset_seek s = {.time_ms = 2005};

	publish(10, 10, 1000);
	publish(10, 10, 2000);
	world_call(&W, 0, seek_run, &s);
	ck_assert_int_eq(s.err, OK);
	ck_assert_int_eq(s.offset, 15);
	ck_assert_int_eq(s.timestamp_ms, 2005);
	s = (struct offset_seek){.time_ms = 2010};
	world_call(&W, 0, seek_run, &s);
	ck_assert_int_eq(s.err, ERR_NOTFOUND);
	s = (struct offset_seek){.by_epoch = true, .epoch = partition_epoch(P)};
	world_call(&W, 2, seek_run, &s);
	ck_assert_int_eq(s.err, OK);
	ck_assert_int_eq(s.offset, 20);
	ck_assert_int_eq(s.found_epoch, partition_epoch(P));
}
END_TEST

START_TEST(cold_records_are_read_back)
{
	struct world_read r = {.r = {.from = P, .bytes_max = 300000}};
	int64_t at = 0;

	W.tail_bytes = 100000;
	restart(false);
	r.r.from = P;
	for (int i = 0; i < 40; i++)
		publish(5, 20000, 1000);
	while (at < 200) {
		r.r.offset = at;
		ck_assert_int_eq(world_read(&W, 0, &r), OK);
		ck_assert_int_gt(r.r.count, 0);
		ck_assert_int_eq(r.r.entries[0]->head.base_offset, at);
		at = entry_next_offset(&r.r.entries[r.r.count - 1]->head);
		record_read_fini(&r.r);
	}
	r.r.offset = 200;
	ck_assert_int_eq(world_read(&W, 0, &r), OK);
	ck_assert_int_eq(r.r.count, 0);
	ck_assert_int_eq(r.r.high_watermark, 200);
}
END_TEST

/* --- watching and the end --- */

static struct watcher watch;
static int64_t watch_next;
static int watch_led;
static void watch_committed(struct watcher *w, struct entry *e)
{
	(void)w;
	ck_assert_int_eq(e->head.base_offset, watch_next);
	watch_next = entry_next_offset(&e->head);
}
static void watch_leads(struct watcher *w, bool leads)
{
	(void)w;
	watch_led += leads ? 1 : -1;
}
static void watch_run(void *arg)
{
	(void)arg;
	watch = (struct watcher){.committed = watch_committed, .led = watch_leads};
	watch_next = partition_watch(P, &watch);
	sem_post(&W.done);
}

START_TEST(watchers_see_every_entry_in_order)
{
	publish(3, 10, 0);
	world_call(&W, 1, watch_run, NULL);
	ck_assert_int_eq(watch_next, 3);
	for (int i = 0; i < 20; i++)
		publish(2, 10, 0);
	ck_assert_int_eq(watch_next, 43);
	watch_led = 1;
	restart(false);
	ck_assert_int_eq(watch_led, 0);
}
END_TEST

START_TEST(closed_partition_answers_closed_and_leaves_nothing)
{
	struct world_ask a = {.q = {.to = P}};
	struct world_row r = {.r = {.from = P, .keyspace = KS, .key = bytes_text("zz/once")}};
	struct world_read rr = {.r = {.from = P}};
	struct world_close c = {&W, P, true, false};
	struct store_iter *i;

	publish(3, 10, 0);
	put(0, 100, 1);
	sem_init(&waits, 0, 0);
	wait_offset = 500;
	loop_call(loops_at(W.loops, 0), wait_run, NULL);
	world_call(&W, 1, world_close_run, &c);
	sem_wait(&waits);
	ck_assert_int_eq(world_ask(&W, 0, &a), ERR_CLOSED);
	ck_assert_int_eq(world_row(&W, 2, &r), ERR_CLOSED);
	ck_assert_int_eq(world_read(&W, 2, &rr), ERR_CLOSED);
	partition_unref(P);
	world_stop(&W);
	for (int f = 0; f < FAMILY_COUNT; f++) {
		static const uint8_t to[8] = {255};

		i = store_iter_new(W.store, NULL, (enum store_family)f, bytes_of("", 0),
			bytes_of(to, 8), true);
		ck_assert(!store_iter_valid(i));
		ck_assert_int_eq(store_iter_free(i), OK);
	}
	start();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("partition");
	Suite *s = suite_create("partition");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, proposals_of_three_loops_are_dense_and_ordered);
	tcase_add_test(tc, entries_hold_256_kb_or_one_larger_batch);
	tcase_add_test(tc, too_much_in_flight_is_refused);
	tcase_add_test(tc, negative_answer_waits_for_what_it_relied_on);
	tcase_add_test(tc, refused_proposal_leaves_nothing);
	tcase_add_test(tc, duplicate_is_answered_with_its_own_offset);
	tcase_add_test(tc, rows_survive_eviction_and_restart);
	tcase_add_test(tc, evaluation_fetches_rows_from_the_store);
	tcase_add_test(tc, scan_merges_store_and_memory);
	tcase_add_test(tc, scan_is_of_one_moment);
	tcase_add_test(tc, rows_equal_a_model_over_crashes);
	tcase_add_test(tc, trim_moves_the_first_offset_for_good);
	tcase_add_test(tc, rows_alone_leave_the_log);
	tcase_add_test(tc, large_entries_can_be_trimmed_soon);
	tcase_add_test(tc, retention_trims_by_bytes);
	tcase_add_test(tc, ticks_go_on_when_a_partition_comes);
	tcase_add_loop_test(tc, hybrid_time_never_falls, 0, 2);
	tcase_add_test(tc, waits_end_once_the_log_has_grown_or_are_cancelled);
	tcase_add_test(tc, seeks_by_time_and_epoch);
	tcase_add_test(tc, cold_records_are_read_back);
	tcase_add_test(tc, watchers_see_every_entry_in_order);
	tcase_add_test(tc, closed_partition_answers_closed_and_leaves_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
