/* Everything is said by two messages that lie in the claim itself: one travels between the
 * claimer's loop and the home and back (acquire, granted; release, released), the other one brings
 * the fence. A fence that was sent before the release is seen by the claimer before `released`,
 * since one loop's messages to another keep their order: so the memory is not gone under it. */
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
static void on_fence(struct loop_msg *m)
{
	struct claim *c = list_entry(m, struct claim, fence);
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
static void fence(struct claim *c)
{
	c->fence.run = on_fence;
	loop_post(c->from, &c->fence);
}

static void on_acquire(struct loop_msg *m)
{
	struct claim *c = of_msg(m), *holder = map_get(&c->home->holders, c->name);
	if (holder == NULL) {
		map_put(&c->home->holders, c->name, c);
		grant(c);
		return;
	}
	if (holder->behind == NULL)
		fence(holder);
	while (holder->behind != NULL)
		holder = holder->behind;
	holder->behind = c;
}

static void on_release(struct loop_msg *m)
{
	struct claim *c = of_msg(m), *next = c->behind;
	must(map_remove(&c->home->holders, c->name) == c);
	if (next != NULL) {
		map_put(&c->home->holders, next->name, next);
		grant(next);
		if (next->behind != NULL)
			fence(next);
	}
	m->run = on_released;
	loop_post(c->from, m);
}

void claim_acquire(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name)
{
	loop_must_own(from);
	c->home = home;
	c->from = from;
	c->behind = NULL;
	c->ops = ops;
	c->name = name;
	c->msg.run = on_acquire;
	loop_post(home->loop, &c->msg);
}

void claim_release(struct claim *c)
{
	loop_must_own(c->from);
	c->msg.run = on_release;
	loop_post(c->home->loop, &c->msg);
}
