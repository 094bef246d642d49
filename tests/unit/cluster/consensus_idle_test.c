/* What groups cost that do nothing: a thousand of three replicas each, all in this process, as many
 * instances as a node has that holds one replica of three thousand. */
#include <check.h>
#include <stdio.h>
#include "cluster/consensus_priv.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "tests/unit/cluster/fake_below.h"

enum { GROUPS = 1000, ROUNDS = 20 };

struct replica {
	uint64_t id;
	char address[24];
	struct disk disk;
	struct lane lane;
	struct store store;
	struct plog_env env;
	struct plog *log;
	struct consensus *c;
};

static struct {
	struct replica r[GROUPS][3];
	struct loop loop;
	struct sent_frame {
		uint64_t to;
		struct slice frame;
	} out[GROUPS * 8];
	int out_count;
	size_t bytes;
} I;

static void no_apply(void *arg, struct entry *e)
{
	(void)arg, (void)e;
}
static void no_more(void *arg)
{
	(void)arg;
}
static const struct consensus_fsm no_fsm = {no_apply, no_more, no_more, NULL};

static void keep(void *arg, uint64_t to, const char *address, struct slice *parts, int count)
{
	(void)arg, (void)address;
	must(I.out_count < GROUPS * 8); /* a check costs more than a heartbeat */
	if (count != 1)
		ck_abort_msg("an idle group sends payloads");
	I.bytes += parts[0].bytes.len;
	I.out[I.out_count++] = (struct sent_frame){to, parts[0]};
}
static const struct consensus_net keep_net = {keep};

static void start(struct replica *r, struct replica *all)
{
	struct consensus_member m[3];
	for (int i = 0; i < 3; i++)
		m[i] = (struct consensus_member){all[i].id, all[i].address};
	r->disk.first = 1;
	fake_lane_init(&r->lane, &r->disk);
	r->store.disk = &r->disk;
	r->env = (struct plog_env){.loop = &I.loop, .store = &r->store, .lane = &r->lane};
	r->log = fake_plog_open(&r->env, &r->disk);
	struct consensus_options o = {.heartbeat_ms = 150,
		.election_ms = 600,
		.snapshot_threshold = 256,
		.snapshot_trailing = 128,
		.inflight_bytes_max = 1 << 20,
		.env = &r->env};
	ck_assert_int_eq(consensus_open(r->log, r->id, r->address, m, 3, &o, &no_fsm, r, &keep_net,
				 r, &r->c),
		OK);
}

static struct replica *at(uint64_t id)
{
	return &I.r[(id & 0xffffffff) - 1][(id >> 32) - 1];
}

/* Delivers what is there now; answers wait for the next time. */
static int deliver(void)
{
	int n = I.out_count;
	static struct sent_frame in[GROUPS * 8];
	memcpy(in, I.out, (size_t)n * sizeof in[0]);
	I.out_count = 0;
	for (int i = 0; i < n; i++) {
		if (consensus_receive(at(in[i].to)->c, in[i].frame) != OK)
			ck_abort_msg("refused");
		slice_unref(&in[i].frame);
	}
	fake_loop_turn(&I.loop);
	return n;
}

static void sync_all(void)
{
	for (int g = 0; g < GROUPS; g++)
		for (int i = 0; i < 3; i++)
			lane_sync(&I.r[g][i].lane, 1 << 30);
	fake_loop_turn(&I.loop);
}

static void tick(int first, int last)
{
	for (int g = 0; g < GROUPS; g++)
		for (int i = first; i <= last; i++)
			consensus_tick(I.r[g][i].c);
	fake_loop_turn(&I.loop);
}

static void elect(void)
{
	fake_loop_init(&I.loop, 1000000);
	for (int g = 0; g < GROUPS; g++) {
		for (int i = 0; i < 3; i++) {
			struct replica *r = &I.r[g][i];
			r->id = (uint64_t)(i + 1) << 32 | (uint64_t)(g + 1);
			snprintf(r->address, sizeof r->address, "%llu", (unsigned long long)r->id);
		}
		for (int i = 0; i < 3; i++)
			start(&I.r[g][i], I.r[g]);
	}
	sync_all();
	I.loop.now_ms += 1300;
	tick(0, 0);
	for (int i = 0; i < 20; i++) {
		I.loop.now_ms += i > 10 ? 150 : 0;
		tick(0, 0);
		deliver();
		sync_all();
	}
	for (int g = 0; g < GROUPS; g++)
		ck_assert(consensus_ready(I.r[g][0].c));
}

START_TEST(heartbeats_cost_little)
{
	int64_t us[4] = {0};
	consensus_process_init();
	log_setup(LOG_ERROR + 1, false);
	elect();
	while (I.out_count > 0)
		deliver();
	I.bytes = 0;
	for (int i = 0; i < ROUNDS; i++) {
		int64_t t[5];
		I.loop.now_ms += 150;
		t[0] = clock_us();
		tick(0, 0);
		t[1] = clock_us();
		ck_assert_int_eq(deliver(), GROUPS * 2);
		t[2] = clock_us();
		ck_assert_int_eq(deliver(), GROUPS * 2);
		t[3] = clock_us();
		tick(0, 2); /* the same moment: nothing is due */
		t[4] = clock_us();
		ck_assert_int_eq(I.out_count, 0);
		for (int k = 0; k < 4; k++)
			us[k] += t[k + 1] - t[k];
	}
	double per = 1000.0 / ROUNDS / GROUPS;
	double sent = (double)us[0] * per / 2, answered = (double)us[1] * per / 2,
	       heard = (double)us[2] * per / 2, ticked = (double)us[3] * per / 3;
	/* A node with a replica of each of a thousand groups leads a third of them. */
	double a_second = 1000.0 / 3 * 2 / 0.150 * (sent + answered + heard) + 20 * 1000 * ticked;
	printf("idle: %.0f ns a heartbeat sent, %.0f received and answered, %.0f an answer heard, "
	       "%.0f a tick, %zu bytes; 1,000 groups: %.2f %% of a core\n",
		sent, answered, heard, ticked, I.bytes / ROUNDS / GROUPS / 4, a_second / 1e7);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("idle");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, heartbeats_cost_little);
	Suite *s = suite_create("idle");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* Nothing is taken down at the end. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
