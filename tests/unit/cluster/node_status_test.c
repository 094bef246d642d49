/* What a node says of itself comes back from bytes, whatever is done to them; leadership is handed
 * over before a stop, again and again while there is some. */
#include <check.h>
#include <stdio.h>
#include <time.h>
#include "cluster/node_priv.h"
#include "server/base/clock.h"
#include "storage/storage.h"

enum { GROUPS = 3 };

static struct world {
	int64_t now_ms;
	bool leads[GROUPS];
	int told[GROUPS];
	bool obedient; /* who is told hands over */
	peer_server serve;
	void *serve_arg;
	struct slice answer;
	struct peer_call *call;
	int done, polls;
	bool wins_late;
} w;
static struct node n;
static struct group groups[GROUPS];
static struct loop *home;

/* --- stand-ins --- */

static struct partition *fake(int i)
{
	return (struct partition *)(uintptr_t)(0x1000 * (i + 1));
}
static int number(const struct partition *p)
{
	return (int)((uintptr_t)p / 0x1000) - 1;
}
int64_t loop_now_ms(const struct loop *l)
{
	(void)l;
	return w.now_ms;
}
static void pass(void);
int nanosleep(const struct timespec *want, struct timespec *left)
{
	(void)want;
	(void)left;
	pass();
	return 0;
}
struct loop *loop_here(void)
{
	return home;
}
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	(void)l;
	fn(arg);
}
void loop_post(struct loop *l, struct loop_msg *m)
{
	(void)l;
	m->run(m);
}
void loop_timer_set(struct loop_timer *t, int64_t ms)
{
	(void)t;
	(void)ms;
}
bool partition_leads(const struct partition *p)
{
	return w.leads[number(p)];
}
void partition_step_aside(struct partition *p, uint32_t node)
{
	ck_assert_uint_eq(node, 0);
	w.told[number(p)]++;
	if (w.obedient)
		w.leads[number(p)] = false;
}
struct partition *partition_ref(struct partition *p)
{
	return p;
}
void partition_unref(struct partition *p)
{
	(void)p;
}
struct loop *partition_home(const struct partition *p)
{
	(void)p;
	return NULL;
}
void peers_serve(struct peers *p, enum peer_op op, peer_server fn, void *arg)
{
	(void)p;
	ck_assert_int_eq(op, PEER_OP_STATUS);
	w.serve = fn;
	w.serve_arg = arg;
}
void peer_answer(
	struct peer_request *r, enum peer_lane lane, enum err e, struct slice *parts, int k)
{
	(void)r;
	(void)lane;
	ck_assert_int_eq(e, OK);
	ck_assert_int_eq(k, 1);
	slice_unref(&w.answer);
	w.answer = parts[0];
}
void peer_call(struct peers *p, struct peer_call *c)
{
	(void)p;
	w.call = c;
}
bool node_alone(const struct node *x)
{
	return atomic_load(&x->alone);
}
bool node_ready(const struct node *x)
{
	return atomic_load(&x->ready);
}
void node_unready_why(const struct node *x, char *out, size_t size)
{
	(void)x;
	snprintf(out, size, "%s",
		"the catalogue has no leader yet, and other long stories "
		"that do not fit into what a status may say of them");
}
struct node_words node_line(struct bytes b)
{
	struct node_words out = {{0}};

	for (size_t i = 0; i < b.len && i < sizeof out.text - 1; i++)
		out.text[i] = (char)(b.at[i] == 0 ? '?' : b.at[i]);
	return out;
}
bool storage_writable(const struct storage *s)
{
	(void)s;
	return true;
}
bool storage_stalled(const struct storage *s)
{
	(void)s;
	return false;
}
int storage_disks(const struct storage *s)
{
	(void)s;
	return 2;
}
struct disk *storage_disk(const struct storage *s, int i)
{
	(void)s;
	(void)i;
	return NULL;
}
int64_t disk_free_bytes(const struct disk *d)
{
	(void)d;
	return 1000;
}
struct metric_table storage_metrics;
int64_t metric_sum(const struct metric_table *t, int row)
{
	(void)t;
	(void)row;
	return 77;
}
static int64_t five(void *arg)
{
	(void)arg;
	return 5;
}

/* --- */

static void setup(void)
{
	memset(&w, 0, sizeof w);
	memset(&n, 0, sizeof n);
	memset(groups, 0, sizeof groups);
	home = NULL;
	w.now_ms = 1000;
	n.conf.id = 1;
	n.conf.version = "1.2.3";
	atomic_store(&n.ready, true);
	n.peers = (struct peers *)(uintptr_t)8;
	node_count_connections(&n, five, NULL);
	node_status_serve(&n);
	for (int i = 0; i < GROUPS; i++) {
		struct model_place *p = mem_new(sizeof *p);

		groups[i] = (struct group){.id = (uint64_t)i + 1,
			.partition = fake(i),
			.node = &n,
			.ready = true,
			.replica = 1,
			.asked = 1};
		p->row.group = groups[i].id;
		p->row.voter_count = p->row.member_count = 2;
		p->row.members[0] = 1ull << 32 | 1;
		p->row.members[1] = 2ull << 32 | 1;
		(void)map_put_u64(&n.groups, groups[i].id, &groups[i]);
		(void)map_put_u64(&n.places, p->row.group, p);
		w.leads[i] = i < 2;
	}
	for (uint32_t id = 1; id <= 2; id++) {
		struct model_node *m = mem_new(sizeof *m);

		m->up = true;
		(void)map_put_u64(&n.nodes, id, m);
	}
}

static void teardown(void)
{
	void *p;

	for (uint32_t at = 0; (p = map_next(&n.places, &at)) != NULL;)
		mem_free(p);
	for (uint32_t at = 0; (p = map_next(&n.nodes, &at)) != NULL;)
		mem_free(p);
	map_fini(&n.groups);
	map_fini(&n.places);
	map_fini(&n.nodes);
	slice_unref(&w.answer);
}

static void asked_status(void)
{
	w.serve(w.serve_arg, &(struct peer_request){.from = 2});
}

START_TEST(a_status_comes_back)
{
	struct node_status s = {.node = 2};

	groups[2].leaving = true;
	atomic_store(&n.ready, _i == 0);
	asked_status();
	ck_assert_int_eq(node_status_decode(w.answer.bytes, &s), OK);
	ck_assert_int_eq(s.ready, _i == 0);
	ck_assert_int_eq(s.replicas, 3);
	ck_assert_int_eq(s.leaders, 2);
	ck_assert_int_eq(s.unsettled, 1);
	ck_assert_int_eq(s.connections, 5);
	ck_assert_int_eq(s.disk_free_bytes, 2000);
	ck_assert_int_eq(s.disk_bytes, 77);
	ck_assert_int_gt(s.rss_bytes, 0);
	ck_assert_str_eq(s.version, "1.2.3");
	if (_i == 0)
		ck_assert_str_eq(s.why, "");
	else
		ck_assert_int_eq(strncmp(s.why, "the catalogue has no leader yet", 31), 0);
}
END_TEST

START_TEST(cut_and_changed_ones_do_no_harm)
{
	struct node_status s;
	uint8_t *copy;
	size_t len;

	asked_status();
	len = w.answer.bytes.len;
	for (size_t cut = 0; cut < len; cut++) {
		copy = mem_new(cut + 1);
		memcpy(copy, w.answer.bytes.at, cut);
		ck_assert_int_eq(node_status_decode(bytes_of(copy, cut), &s), ERR_MALFORMED);
		mem_free(copy);
	}
	copy = mem_new(len);
	for (size_t i = 0; i < len * 8; i++) {
		memcpy(copy, w.answer.bytes.at, len);
		copy[i / 8] ^= (uint8_t)(1 << i % 8);
		memset(&s, 'x', sizeof s);
		if (node_status_decode(bytes_of(copy, len), &s) == OK)
			ck_assert(memchr(s.version, 0, sizeof s.version) != NULL &&
				memchr(s.why, 0, sizeof s.why) != NULL);
	}
	mem_free(copy);
}
END_TEST

static void told_status(struct node_status *s)
{
	(void)s;
	w.done++;
}

START_TEST(others_are_asked_by_a_call)
{
	struct node_status s = {.of = &n, .node = 2, .done = told_status};

	asked_status();
	node_ask_status(&s);
	ck_assert_ptr_nonnull(w.call);
	w.call->err = _i == 0 ? OK : ERR_TIMEOUT;
	if (_i == 0)
		w.call->answer = slice_ref(w.answer);
	if (_i == 2) { /* an answer that is none */
		w.call->err = OK;
		ck_assert_int_eq(slice_copy(bytes_text("?"), &w.call->answer), OK);
	}
	w.call->done(w.call);
	ck_assert_int_eq(w.done, 1);
	ck_assert_int_eq(s.err, _i == 0 ? OK : _i == 1 ? ERR_TIMEOUT : ERR_MALFORMED);
	ck_assert_int_eq(s.ready, _i == 0);
	if (_i != 0)
		ck_assert(s.why[0] != 0);
	s = (struct node_status){.of = &n, .node = 1, .done = told_status};
	node_ask_status(&s); /* itself: no call */
	ck_assert_int_eq(w.done, 2);
	ck_assert_int_eq(s.leaders, 2);
	n.peers = NULL;
	s = (struct node_status){.of = &n, .node = 2, .done = told_status};
	node_ask_status(&s);
	ck_assert_int_eq(s.err, ERR_UNAVAILABLE);
}
END_TEST

/* --- stepping aside --- */

/* While main waits, time passes: the home loop ticks. */
static void pass(void)
{
	w.now_ms += 20;
	w.polls++;
	if (w.polls == 20 && w.wins_late)
		w.leads[2] = true;
	if (w.told[2] >= 2) /* its first word was not heeded: nobody was in sync */
		w.leads[1] = w.leads[2] = false;
	node_aside_tick(&n);
}

START_TEST(all_is_handed_over)
{
	w.obedient = true;
	node_step_aside(&n, 5000);
	ck_assert(!w.leads[0] && !w.leads[1]);
	ck_assert_int_eq(w.told[0], 1);
	ck_assert_int_eq(w.told[1], 1);
	ck_assert_int_eq(w.told[2], 0);
	ck_assert_int_lt(w.polls, 5); /* nobody waits longer than that */
}
END_TEST

/* A group is won while others are handed over, as when nodes stop one after the other. */
START_TEST(what_is_won_late_is_told_too)
{
	w.leads[0] = false;
	w.wins_late = true;
	node_step_aside(&n, 20000);     /* by the clock, far more than it takes */
	ck_assert_int_ge(w.told[1], 2); /* as long as it does not let go */
	ck_assert_int_ge(w.told[2], 2);
	ck_assert(!w.leads[1] && !w.leads[2]);
}
END_TEST

START_TEST(without_anybody_else_nothing_is_waited_for)
{
	struct model_node *m = map_get_u64(&n.nodes, 2);

	if (_i == 0)
		m->up = false;
	else if (_i == 1)
		atomic_store(&n.alone, true);
	else
		atomic_store(&n.ready, false);
	node_step_aside(&n, 5000);
	ck_assert_int_eq(w.told[0], 0);
	ck_assert_int_lt(w.polls, 5);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("node_status");
	TCase *tc = tcase_create("node_status");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_status_comes_back, 0, 2);
	tcase_add_test(tc, cut_and_changed_ones_do_no_harm);
	tcase_add_loop_test(tc, others_are_asked_by_a_call, 0, 3);
	tcase_add_test(tc, all_is_handed_over);
	tcase_add_test(tc, what_is_won_late_is_told_too);
	tcase_add_loop_test(tc, without_anybody_else_nothing_is_waited_for, 0, 3);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
