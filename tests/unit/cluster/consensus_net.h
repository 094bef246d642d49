/* Tests of consensus: the replicas of replicas.h on a network where every message takes a
 * millisecond, on disks that sync every few, with ticks of 50 ms at phases of their own. */
#ifndef TESTS_CONSENSUS_NET_H
#define TESTS_CONSENSUS_NET_H
#include <check.h>
#include "server/base/log.h"
#include "tests/unit/cluster/replicas.h"

static struct {
	int phase[REPLICAS_MAX + 1];
	int sync_ms, latency_ms;
	uint64_t frames, bytes; /* sent */
	uint64_t bytes_to[REPLICAS_MAX + 1];
	bool (*lose)(const struct frame *f);
	bool reads_wait; /* reads of the log do not end */
} N;

static void net_route(struct frame *f)
{
	N.frames++;
	N.bytes += f->bytes.bytes.len;
	N.bytes_to[f->to] += f->bytes.bytes.len;
	list_init(&f->node);
	if (W.cut[f->from][f->to] || (N.lose && N.lose(f))) {
		frame_free(f);
		return;
	}
	f->at_ms = W.now_ms + N.latency_ms;
	list_push_back(&W.frames, &f->node);
}

static void net_init(int n)
{
	consensus_process_init();
	log_setup(LOG_ERROR + 1, false);
	world_init(n);
	memset(&N, 0, sizeof N);
	N.sync_ms = 2;
	N.latency_ms = 1;
	for (int i = 1; i <= n; i++)
		N.phase[i] = (int)(random_u64() % 50);
	W.route = net_route;
}

static void net_start(int i, int voters)
{
	rep_start(&W.rep[i], voters);
	rep_turn(&W.rep[i]);
}

static void net_ms(void)
{
	W.now_ms++;
	while (!list_empty(&W.frames) &&
		list_entry(W.frames.next, struct frame, node)->at_ms <= W.now_ms) {
		struct frame *f = list_entry(W.frames.next, struct frame, node);
		if (W.cut[f->from][f->to])
			frame_free(f);
		else
			deliver_frame(f);
	}
	for (int i = 1; i <= W.n; i++) {
		struct rep *r = &W.rep[i];
		if (!r->alive)
			continue;
		r->loop.now_ms = W.now_ms;
		if ((W.now_ms + N.phase[i]) % 50 == 0)
			rep_tick(r);
		if (!r->slow && (W.now_ms + i) % N.sync_ms == 0)
			rep_sync(r);
		if (!N.reads_wait && !list_empty(&r->loop.reads)) {
			fake_reads_done(&r->loop);
			rep_turn(r);
		}
	}
	ck_assert_msg(!W.broken[0], "%s", W.broken);
}

static void net_run(int ms)
{
	for (int i = 0; i < ms; i++)
		net_ms();
}

static struct rep *net_leader(void)
{
	struct rep *r = world_leader();
	return r && consensus_ready(r->c) ? r : NULL;
}

/* Until somebody leads; gives who. */
static struct rep *net_elect(void)
{
	for (int i = 0; i < 10000 && !net_leader(); i++)
		net_ms();
	ck_assert_ptr_nonnull(net_leader());
	return net_leader();
}

static void net_isolate(int i, bool on)
{
	for (int k = 1; k <= W.n; k++)
		W.cut[i][k] = W.cut[k][i] = on && i != k;
}

static int net_main(TCase *tc, const char *name)
{
	tcase_set_timeout(tc, 60);
	Suite *s = suite_create(name);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

/* A crash of a replica forgets its memory, as a process would. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

#endif
