/* Everything is said by two messages that lie in the claim itself: one travels between the
 * claimer's loop and the home and back (acquire, granted; release, released), the other one brings
 * the fence. A fence that was sent before the release is seen by the claimer before `released`,
 * since one loop's messages to another keep their order: so the memory is not gone under it. A
 * fence that finds a later epoch than it is meant for goes back by the same message, and home lets
 * go whom it was for. */
#include "server/broker/claim.h"
#include "server/base/mem.h"

void claim_home_init(struct claim_home *h, struct loop *l)
{
	*h = (struct claim_home){.loop = l};
}

void claim_home_fini(struct claim_home *h)
{
	map_fini(&h->holders);
}

static struct claim *of_msg(struct loop_msg *m)
{
	return list_entry(m, struct claim, msg);
}

static void on_granted(struct loop_msg *m)
{
	struct claim *c = of_msg(m);
	c->ops->granted(c);
}
static struct claim *of_fence(struct loop_msg *m)
{
	return list_entry(m, struct claim, fence);
}
static void on_fence(struct loop_msg *m)
{
	struct claim *c = of_fence(m);
	/* After its release the memory goes before anything sent home now had come back. */
	if (c->over || !claim_outlives(c))
		c->ops->fenced(c);
}
static void on_released(struct loop_msg *m)
{
	struct claim *c = of_msg(m);
	c->ops->released(c);
}

static void grant(struct claim *c)
{
	struct loop_msg *m = &c->msg;
	m->run = on_granted;
	loop_post(c->from, m);
}
static void give_back(struct claim *c)
{
	struct loop_msg *m = &c->msg;
	m->run = on_released;
	loop_post(c->from, m);
}

/* Once: until it comes back as stale, or the holder goes, the message is on its way. */
static void fence(struct claim *c)
{
	c->fence.run = on_fence;
	loop_post(c->from, &c->fence);
}

static bool outlives(const struct claim *holder, const struct claim *c)
{
	return atomic_load(&holder->epoch) > c->upto;
}

static void set_against(struct claim *holder)
{
	uint64_t most = 0;
	for (const struct claim *c = holder->behind; c != NULL; c = c->behind)
		most = c->upto > most ? c->upto : most;
	atomic_store(&holder->against, most);
}

/* Gives back those behind who need not wait: for this holder, or any more. */
static void drop_behind(struct claim *holder)
{
	struct claim *c;
	for (struct claim **at = &holder->behind; (c = *at) != NULL;) {
		if (!outlives(holder, c) && !atomic_load(&c->withdrawn)) {
			at = &c->behind;
			continue;
		}
		*at = c->behind;
		give_back(c);
	}
}

static void on_acquire(struct loop_msg *m)
{
	struct claim *c = of_msg(m), *holder = map_get(&c->home->holders, c->name), *last;
	if (holder == NULL) {
		map_put(&c->home->holders, c->name, c);
		grant(c);
		return;
	}
	if (outlives(holder, c)) {
		give_back(c);
		return;
	}
	bool first = holder->behind == NULL;
	drop_behind(holder);
	for (last = holder; last->behind != NULL;)
		last = last->behind;
	last->behind = c;
	set_against(holder);
	if (first)
		fence(holder);
}

static void on_stale(struct loop_msg *m)
{
	struct claim *holder = of_fence(m);
	drop_behind(holder);
	set_against(holder);
	if (holder->behind != NULL)
		fence(holder);
}

static void on_release(struct loop_msg *m)
{
	struct claim *c = of_msg(m), *next = c->behind;
	must(map_remove(&c->home->holders, c->name) == c);
	if (next != NULL) {
		map_put(&c->home->holders, next->name, next);
		set_against(next);
		grant(next);
		if (next->behind != NULL)
			fence(next);
	}
	give_back(c);
}

void claim_acquire_upto(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name, uint64_t upto)
{
	loop_must_own(from);
	c->home = home;
	c->from = from;
	c->behind = NULL;
	c->ops = ops;
	c->name = name;
	c->upto = upto;
	c->over = false;
	atomic_store(&c->withdrawn, false);
	atomic_store(&c->epoch, 0);
	atomic_store(&c->against, 0);
	c->msg.run = on_acquire;
	loop_post(home->loop, &c->msg);
}

void claim_acquire(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name)
{
	claim_acquire_upto(c, home, from, ops, name, UINT64_MAX);
}

void claim_withdraw(struct claim *c)
{
	loop_must_own(c->from);
	atomic_store(&c->withdrawn, true);
}

void claim_set_epoch(struct claim *c, uint64_t epoch)
{
	loop_must_own(c->from);
	atomic_store(&c->epoch, epoch);
}

bool claim_outlives(struct claim *c)
{
	loop_must_own(c->from);
	if (atomic_load(&c->against) >= atomic_load(&c->epoch))
		return false;
	c->fence.run = on_stale;
	loop_post(c->home->loop, &c->fence);
	return true;
}

void claim_release(struct claim *c)
{
	loop_must_own(c->from);
	c->over = true;
	c->msg.run = on_release;
	loop_post(c->home->loop, &c->msg);
}
