/* What fetching and serving may use, over all loops of the node: a throttle each way and a bound of
 * memory each way. Both are one word that all threads move, so nobody waits for anybody.
 *
 * The throttle is a time: when all that was taken will have gone at the configured rate. Who takes
 * bytes moves it and waits until its own part of it begins. */
#include "cluster/catchup_priv.h"
#include "server/base/mem.h"

static int64_t duration_us(int64_t bytes, int64_t rate)
{
	return rate == 0 ? 0 : bytes * 1000000 / rate;
}

int64_t catchup_bucket_take(struct catchup_bucket *b, int64_t now_us, int64_t bytes, int64_t rate)
{
	int64_t until = atomic_load(&b->until_us), start;

	if (rate == 0)
		return 0;
	do {
		start = until > now_us ? until : now_us;
		if (start - now_us > (int64_t)CATCHUP_WAIT_MS_MAX * 1000)
			return -1;
	} while (!atomic_compare_exchange_weak(
		&b->until_us, &until, start + duration_us(bytes, rate)));
	return start - now_us;
}

void catchup_bucket_correct(struct catchup_bucket *b, int64_t bytes, int64_t rate)
{
	atomic_fetch_add(&b->until_us, duration_us(bytes, rate));
}

bool catchup_hold(struct catchup_memory *m, int64_t bytes, int64_t max)
{
	int64_t held = atomic_load(&m->held);

	do {
		if (held > 0 && held + bytes > max)
			return false;
	} while (!atomic_compare_exchange_weak(&m->held, &held, held + bytes));
	return true;
}

void catchup_let_go(struct catchup_memory *m, int64_t bytes)
{
	int64_t held = atomic_fetch_sub(&m->held, bytes);

	must(held >= bytes);
}

struct catchups *catchups_new(
	const struct catchup_settings *s, struct peers *peers, struct loops *loops)
{
	int count = loops_count(loops);
	struct catchups *all = mem_new(sizeof *all + (size_t)count * sizeof all->each[0]);

	all->settings = s;
	all->peers = peers;
	all->loops = loops;
	for (int i = 0; i < count; i++) {
		all->each[i].all = all;
		all->each[i].loop = loops_at(loops, i);
		list_init(&all->each[i].sessions);
		list_init(&all->each[i].fetches);
	}
	return all;
}

void catchups_free(struct catchups *all)
{
	if (all == NULL)
		return;
	for (int i = 0; i < loops_count(all->loops); i++) {
		catchup_sessions_drop(&all->each[i]);
		catchup_fetches_drop(&all->each[i]);
	}
	mem_free(all);
}
