/* The rate is a bucket of time: every accept costs 1/rate seconds, at most one second is saved
 * up. Over a limit of its loop a door stops accepting for a moment, and the kernel's backlog
 * holds the clients: a fleet that comes back at once is let in at the pace that was set. */
#include "server/net/limit.h"
#include <stdatomic.h>
#include <sys/resource.h>

enum { SECOND_US = 1000000, FILES_RESERVE_MIN = 64 };

/* A quarter of the files, at most 2048, stay for the store, the peers and the listeners. */
static int64_t allowed(int64_t max, int64_t files)
{
	int64_t reserve = files / 4 < 2048 ? files / 4 : 2048;
	if (reserve < FILES_RESERVE_MIN)
		reserve = FILES_RESERVE_MIN;
	int64_t by_files = files - reserve > 16 ? files - reserve : 16;
	return max > 0 && max < by_files ? max : by_files;
}

void limit_total_init(struct limit_total *t, int64_t max, int64_t files)
{
	t->max = allowed(max, files);
	atomic_init(&t->open, 0);
}

bool limit_total_take(struct limit_total *t)
{
	if (atomic_fetch_add_explicit(&t->open, 1, memory_order_relaxed) < t->max)
		return true;
	limit_total_give(t);
	return false;
}

void limit_total_give(struct limit_total *t)
{
	atomic_fetch_sub_explicit(&t->open, 1, memory_order_relaxed);
}

int64_t limit_total_open(const struct limit_total *t)
{
	return atomic_load_explicit(&t->open, memory_order_relaxed);
}

int64_t limit_raise_files(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) != 0)
		return 1024;
	rlim_t soft = l.rlim_cur;
	l.rlim_cur = l.rlim_max;
	if (l.rlim_cur != soft && setrlimit(RLIMIT_NOFILE, &l) != 0)
		l.rlim_cur = soft;
	return l.rlim_cur > INT32_MAX ? INT32_MAX : (int64_t)l.rlim_cur;
}

void limit_gate_init(struct limit_gate *g, int64_t rate, int64_t begun_max, int64_t now_us)
{
	*g = (struct limit_gate){
		.rate = rate, .begun_max = begun_max, .tokens_us = SECOND_US, .at_us = now_us};
}

bool limit_gate_pass(struct limit_gate *g, bool begins, int64_t now_us)
{
	if (begins && g->begun_max > 0 && g->begun >= g->begun_max)
		return false;
	if (g->rate == 0)
		return true;
	int64_t cost_us = SECOND_US / g->rate > 0 ? SECOND_US / g->rate : 1;
	if (now_us > g->at_us) {
		int64_t earned = now_us - g->at_us;
		g->at_us = now_us;
		if (earned > SECOND_US - g->tokens_us)
			g->tokens_us = SECOND_US;
		else
			g->tokens_us += earned;
	}
	if (g->tokens_us < cost_us)
		return false;
	g->tokens_us -= cost_us;
	return true;
}

void limit_gate_begin(struct limit_gate *g)
{
	g->begun++;
}
void limit_gate_end(struct limit_gate *g)
{
	g->begun--;
}
